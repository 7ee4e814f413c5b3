//! What `callbox check` and `callbox doctor` see of `cluster.redis`.

use super::address;
use crate::cluster::redis::{Redis, Server, StoreError};
use crate::cluster::seal::Secrets;
use crate::cluster::store::{MEMORY, Names};
use crate::config::{Cluster, Config};
use std::time::{Duration, Instant};

/// Something to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// For programs: a word that stays.
    pub finding: &'static str,
    /// One sentence.
    pub cause: String,
    /// One sentence.
    pub fix: String,
    /// Whether the node does not work like that.
    pub is_fault: bool,
}

/// A Redis as it was found.
#[derive(Debug)]
pub struct StoreLook {
    /// How long it took.
    pub took: Duration,
    /// What it is, in a few words; `None`: it cannot be asked.
    pub detail: Option<String>,
    /// What is to be changed.
    pub findings: Vec<Finding>,
}

/// Looks at the Redis of a node, and changes nothing; nothing where the box is not one.
pub async fn look_at_store(config: &Config) -> Option<StoreLook> {
    let cluster = config.cluster.as_ref()?;
    let began = Instant::now();
    let names = Names::new(&cluster.prefix);
    let looked = match address(cluster) {
        Ok(address) => Redis::new(address, names.clone()).look().await,
        Err(error) => {
            return Some(StoreLook {
                took: Duration::ZERO,
                detail: None,
                findings: vec![fault(
                    "redis-address",
                    format!("{error:#}"),
                    "correct cluster.redis",
                )],
            });
        }
    };
    let took = began.elapsed();
    let (detail, findings) = match looked {
        Ok(look) => {
            let nodes = match look.nodes {
                1 => "1 node".to_owned(),
                n => format!("{n} nodes"),
            };
            let version = look.server.as_ref().map(|server| &*server.version);
            let mut findings = judge(look.server.as_ref());
            findings.extend(foreign(cluster, look.mark.as_deref()));
            (
                Some(format!("{}, {nodes}", version.unwrap_or("answers"))),
                findings,
            )
        }
        Err(error) => (None, vec![unreachable(&error, &names)]),
    };
    Some(StoreLook {
        took,
        detail,
        findings,
    })
}

fn fault(finding: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        finding,
        cause: cause.into(),
        fix: fix.into(),
        is_fault: true,
    }
}

fn note(finding: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        is_fault: false,
        ..fault(finding, cause, fix)
    }
}

/// Whether the cluster that has left its mark has another secret.
fn foreign(cluster: &Cluster, mark: Option<&[u8]>) -> Option<Finding> {
    let secrets = Secrets::new(&cluster.secrets).ok()?;
    let sealed = mark?.get(MEMORY..).unwrap_or_default();
    let opens = secrets.open_record(&[b"mark"], sealed).is_some();
    (!opens).then(|| {
        fault(
            "cluster-secret",
            "cluster.secret does not open what the nodes of this Redis have written",
            "give all nodes the same cluster.secret, or this cluster another cluster.prefix",
        )
    })
}

/// What of a server's settings costs rooms.
fn judge(server: Option<&Server>) -> Vec<Finding> {
    let Some(server) = server else {
        return vec![note(
            "redis-settings",
            "the user of cluster.redis may not see the settings of Redis",
            "have it look once: add +info +config|get to its ACL, or see that maxmemory-policy is noeviction and \
             that Redis has a disk or a replica",
        )];
    };
    let mut findings = vec![];
    if !server.policy.is_empty() && server.policy != "noeviction" {
        findings.push(note(
            "redis-evicts",
            format!(
                "maxmemory-policy of Redis is {}: when its memory is full it drops the records of rooms, and \
                 with a node that dies then, its rooms are gone",
                server.policy
            ),
            "set maxmemory-policy noeviction in redis.conf (`redis-cli config set maxmemory-policy noeviction`)",
        ));
    }
    if server.persists == Some(false) {
        findings.push(note(
            "redis-forgets",
            "Redis has neither a disk nor a replica: what it has is gone when it restarts, and the rooms of a \
             node that dies meanwhile are lost",
            "set appendonly yes in redis.conf, or give Redis a replica",
        ));
    }
    findings
}

fn unreachable(error: &StoreError, names: &Names) -> Finding {
    let code = match error {
        StoreError::Redis(error) => error.code().map(str::to_owned),
        _ => None,
    };
    match code.as_deref() {
        Some("NOAUTH" | "WRONGPASS") => fault(
            "redis-password",
            format!("Redis refuses the user or the password of cluster.redis: {error}"),
            "correct them: redis://USER:PASSWORD@HOST:PORT/0",
        ),
        Some("NOPERM") => fault(
            "redis-acl",
            format!("the user of cluster.redis may not do what nodes need: {error}"),
            format!("give it this line: {}", names.acl("callbox")),
        ),
        _ => fault(
            "redis-silent",
            format!("cluster.redis is not reached: {error}"),
            "start Redis, correct cluster.redis, or open the way to it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cost_rooms_are_named_with_their_fix() {
        let server = |policy: &str, persists| Server {
            version: "Redis 7".into(),
            policy: policy.into(),
            persists,
        };
        let of = |server: &Server| -> Vec<&'static str> {
            judge(Some(server))
                .iter()
                .map(|finding| finding.finding)
                .collect()
        };
        assert_eq!(of(&server("noeviction", Some(true))), [""; 0]);
        assert_eq!(of(&server("noeviction", None)), [""; 0]);
        assert_eq!(
            of(&server("allkeys-lru", Some(false))),
            ["redis-evicts", "redis-forgets"]
        );
        assert_eq!(judge(None)[0].finding, "redis-settings");
    }

    #[tokio::test]
    async fn a_redis_that_is_not_there_is_a_finding_and_no_cluster_is_none() {
        let load = |toml: &str| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("box.toml");
            std::fs::write(&file, toml).unwrap();
            Config::load(Some(&file), std::iter::empty()).unwrap()
        };
        assert!(look_at_store(&load("")).await.is_none());
        let toml = format!(
            "[turn]\nsecrets = [\"0123456789abcdef\"]\n[cluster]\nredis = \"unix:/nonexistent/redis\"\nsecret = \"{}\"\n",
            "s".repeat(32)
        );
        let look = look_at_store(&load(&toml)).await.unwrap();
        assert_eq!(look.detail, None);
        assert_eq!(look.findings[0].finding, "redis-silent");
        assert!(look.findings[0].is_fault);
    }
}
