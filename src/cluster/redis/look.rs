//! What a Redis says of itself, for somebody who looks whether it suits a cluster.

use super::{Redis, StoreError, read};
use redis::Value;
use std::collections::BTreeMap;

/// A Redis as it is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The memory that a cluster has left there.
    pub mark: Option<Vec<u8>>,
    /// Nodes that are registered.
    pub nodes: usize,
    /// Its settings; `None`: this user may not see them.
    pub server: Option<Server>,
}

/// Settings of a Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// `maxmemory-policy`.
    pub policy: String,
    /// Whether a restart keeps the data, or a replica has them; `None`: it does not say.
    pub persists: Option<bool>,
}

impl Redis {
    /// Looks, and changes nothing.
    ///
    /// # Errors
    /// Redis gave no answer, or refuses what nodes need.
    pub async fn look(&self) -> Result<Look, StoreError> {
        let mut mark = redis::cmd("GET");
        mark.arg(self.names.mark());
        let mut nodes = redis::cmd("HGETALL");
        nodes.arg(self.names.nodes());
        let mark = read(self.ask(&mark).await?)?;
        let nodes: BTreeMap<String, u64> = read(self.ask(&nodes).await?)?;
        let server = match self.ask(&redis::cmd("INFO")).await {
            Ok(info) => {
                let mut save = redis::cmd("CONFIG");
                save.arg("GET").arg("save");
                let save = self.ask(&save).await.ok();
                Some(server(&read::<String>(info)?, save.and_then(saves)))
            }
            Err(StoreError::Redis(error)) if error.code() == Some("NOPERM") => None,
            Err(error) => return Err(error),
        };
        Ok(Look {
            mark,
            nodes: nodes.len(),
            server,
        })
    }
}

/// Whether `CONFIG GET save` names times to save at.
fn saves(answer: Value) -> Option<bool> {
    let settings: BTreeMap<String, String> = read(answer).ok()?;
    Some(!settings.get("save")?.is_empty())
}

/// What `INFO` says; `saves`: whether snapshots are written, where that is known.
fn server(info: &str, saves: Option<bool>) -> Server {
    let fields: BTreeMap<&str, &str> = (info.lines())
        .filter_map(|line| line.trim().split_once(':'))
        .collect();
    let of = |name: &str| fields.get(name).copied().unwrap_or_default();
    let keeps = of("aof_enabled") == "1" || !matches!(of("connected_slaves"), "" | "0");
    let version = match of("valkey_version") {
        "" => format!("Redis {}", of("redis_version")),
        version => format!("Valkey {version}"),
    };
    Server {
        version,
        policy: of("maxmemory_policy").to_owned(),
        persists: if keeps { Some(true) } else { saves },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory_policy:allkeys-lru\r\n\
                    aof_enabled:0\r\nconnected_slaves:0\r\n";
        let seen = server(info, Some(false));
        assert_eq!(
            (&*seen.version, &*seen.policy),
            ("Redis 7.0.15", "allkeys-lru")
        );
        assert_eq!(seen.persists, Some(false));
        assert_eq!(server(info, None).persists, None);
        assert_eq!(
            server(&info.replace("aof_enabled:0", "aof_enabled:1"), Some(false)).persists,
            Some(true)
        );
        let valkey = "redis_version:7.2.4\nvalkey_version:8.0.1\nconnected_slaves:2\n";
        let seen = server(valkey, Some(false));
        assert_eq!(
            (&*seen.version, seen.persists),
            ("Valkey 8.0.1", Some(true))
        );
    }
}
