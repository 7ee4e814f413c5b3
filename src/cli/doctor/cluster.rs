//! The box as a node of a cluster: Redis, and what each node says when it is asked.

use super::examination::Examination;
use super::report::{Diagnosis, Line};
use super::web::Web;
use crate::app::look_at_store;
use crate::config::Config;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// The difference of clocks from which on tokens and credentials expire visibly early or late, ms.
const MAX_SKEW: i64 = 2_000;

impl Examination {
    /// Asks Redis, and the box for all nodes.
    pub(super) async fn cluster(&mut self, web: &Web, config: &Config) {
        let Some(look) = look_at_store(config).await else {
            return;
        };
        let is_well = !look.findings.iter().any(|finding| finding.is_fault);
        if let Some(detail) = look.detail.filter(|_| is_well) {
            self.lines.push(Line::ok("Redis", detail, look.took));
        }
        for found in look.findings {
            let diagnosis = Diagnosis {
                finding: found.finding,
                cause: found.cause,
                fix: found.fix,
            };
            self.lines.push(match found.is_fault {
                true => Line::failed("Redis", "does not work", look.took, diagnosis),
                false => Line::note("Redis", "to look at", diagnosis),
            });
        }
        let auth = &config.auth;
        let named = auth.admin_tokens.iter().find(|token| token.has("read"));
        let token = (auth.admin_token.as_ref()).or(named.map(|named| &named.token));
        let Some(token) = token else {
            let diagnosis = Diagnosis {
                finding: "nodes-not-asked",
                cause: "without auth.admin_token a box does not say what other nodes answer".into(),
                fix: "set auth.admin_token, or a token with the scope read".into(),
            };
            self.lines.push(Line::note("nodes", "not asked", diagnosis));
            return;
        };
        match web.json("/v1/nodes", token.expose_secret()).await {
            Ok(answer) => self.lines.extend(node_lines(&answer)),
            Err(fault) => {
                let diagnosis = Diagnosis {
                    finding: "nodes-unknown",
                    cause: format!("the box does not list the nodes: {fault:?}"),
                    fix: "see that it runs by this configuration, and what its log says of cluster.redis"
                        .into(),
                };
                let line = Line::failed("nodes", "not listed", Duration::ZERO, diagnosis);
                self.lines.push(line);
            }
        }
    }
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// A line for each node of `GET /v1/nodes`, beside what the asked one says of itself.
fn node_lines(answer: &Value) -> Vec<Line> {
    let rows: Vec<&Value> = answer["nodes"].as_array().into_iter().flatten().collect();
    let Some(own) = rows.iter().find(|row| row["self"] == true) else {
        return vec![];
    };
    let mut lines = vec![];
    for row in &rows {
        let name = row["name"].as_str().or(row["id"].as_str()).unwrap_or("?");
        let check = format!("node {name}");
        let took = Duration::from_millis(row["ms"].as_u64().unwrap_or(0));
        let text = |key: &str| row[key].as_str().unwrap_or("?").to_owned();
        let mut faults = faults(row, own);
        let detail = match row["answers"] == true {
            true => format!(
                "{}, {} rooms, {} connections",
                text("version"),
                row["rooms"],
                row["connections"]
            ),
            false => "no answer".into(),
        };
        if faults.is_empty() {
            lines.push(Line::ok(check, detail, took));
            continue;
        }
        lines.extend(
            faults
                .drain(..)
                .map(|(is_fault, diagnosis)| match is_fault {
                    true => Line::failed(check.clone(), detail.clone(), took, diagnosis),
                    false => Line::note(check.clone(), detail.clone(), diagnosis),
                }),
        );
    }
    lines
}

/// What is wrong with a node beside another one, and whether that is a fault.
fn faults(row: &Value, own: &Value) -> Vec<(bool, Diagnosis)> {
    let because = |finding, cause: String, fix: &str| Diagnosis {
        finding,
        cause,
        fix: fix.into(),
    };
    if row["answers"] != true {
        let cause = "it is registered and has not answered within a second".to_owned();
        let fix =
            "look at its log and its load: it is dead within cluster.lease, or cut from Redis";
        return vec![(true, because("node-silent", cause, fix))];
    }
    let mut found = vec![];
    let ahead = row["clockAheadMs"].as_i64().unwrap_or(0);
    if ahead.abs() > MAX_SKEW {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let seconds = ahead.unsigned_abs() / 1_000;
        let cause = format!(
            "its clock is {seconds} s {direction} that of the node that was asked: what one mints expires early \
             or late at the other"
        );
        found.push((
            true,
            because(
                "clock-skew",
                cause,
                "set both by NTP (`timedatectl set-ntp true`)",
            ),
        ));
    }
    let (its, ours) = (texts(&row["turnSecrets"]), texts(&own["turnSecrets"]));
    if its.is_disjoint(&ours) {
        let cause = "its turn.secrets are others: relays of one node refuse what the other mints"
            .to_owned();
        found.push((
            true,
            because(
                "turn-secrets",
                cause,
                "give all nodes the same turn.secrets",
            ),
        ));
    } else if its != ours {
        let cause = "its turn.secrets are not all the same".to_owned();
        let fix = "end the rotation on all nodes: each takes what any of them mints";
        found.push((false, because("turn-secrets", cause, fix)));
    }
    if row["auth"] != own["auth"] {
        let cause = "it signs tokens with another key: who has one of it is refused by the other"
            .to_owned();
        found.push((
            true,
            because("auth-secret", cause, "give all nodes the same auth.secret"),
        ));
    }
    if row["version"] != own["version"] {
        let cause = format!(
            "it runs {}, and the node that was asked {}",
            row["version"], own["version"]
        );
        let fix = "end the upgrade: two neighbouring releases work together";
        found.push((false, because("versions", cause, fix)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;
    use serde_json::json;

    #[test]
    fn each_node_is_judged_beside_the_one_that_was_asked() {
        let node = |name: &str, more: Value| {
            let mut row = json!({"name": name, "self": false, "answers": true, "ms": 3, "version": "1",
                "turnSecrets": ["a", "b"], "auth": "x", "rooms": 1, "connections": 2, "clockAheadMs": 40});
            for (key, value) in more.as_object().unwrap() {
                row[key] = value.clone();
            }
            row
        };
        let rows = json!({"nodes": [
            node("own", json!({"self": true})),
            node("well", json!({})),
            node("dead", json!({"answers": false})),
            node("late", json!({"clockAheadMs": -5000})),
            node("turning", json!({"turnSecrets": ["b", "c"]})),
            node("foreign", json!({"turnSecrets": ["c"], "auth": "y"})),
            node("new", json!({"version": "2"})),
        ]});
        let seen: Vec<_> = (node_lines(&rows).into_iter())
            .map(|line| (line.check, line.status, line.diagnosis.map(|d| d.finding)))
            .collect();
        let line = |name: &str, status, finding| (format!("node {name}"), status, finding);
        assert_eq!(
            seen,
            [
                line("own", Status::Ok, None),
                line("well", Status::Ok, None),
                line("dead", Status::Failed, Some("node-silent")),
                line("late", Status::Failed, Some("clock-skew")),
                line("turning", Status::Note, Some("turn-secrets")),
                line("foreign", Status::Failed, Some("turn-secrets")),
                line("foreign", Status::Failed, Some("auth-secret")),
                line("new", Status::Note, Some("versions")),
            ]
        );
    }
}
