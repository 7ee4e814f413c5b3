//! The dashboard and the alert rules ask for nothing that a running box does not serve.

use crate::http::{json, send};
use crate::tls::TlsBox;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../docs/alerts.yml");
const TOKEN: &str = "Authorization: Bearer sesame\r\n";

/// What Prometheus adds to whatever it scrapes.
const OF_THE_SCRAPE: &[&str] = &["instance", "job"];

/// What foreign clients are seen by.
const FOREIGN_CLIENTS: &[&str] = &[
    "callbox_signal_dialect_connections",
    "callbox_signal_dialect_messages_total",
    "callbox_signal_topics",
    "callbox_signal_subscriptions",
    "callbox_signal_names",
    "callbox_signal_parked_bytes",
    "callbox_signal_topic_subscriptions_refused_total",
    "callbox_signal_topic_messages_refused_total",
];

/// By metric, as served with its suffixes: the values that each label was seen with.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

async fn served() -> Served {
    // A node of a cluster shows all of its metrics before Redis has answered for the first time.
    let toml = format!(
        "[auth]\nadmin_token = \"sesame\"\n[turn]\nsecrets = [\"0123456789abcdef\"]\n\
         [cluster]\nredis = \"unix:/nonexistent/redis\"\nsecret = \"{}\"",
        "s".repeat(32)
    );
    let tls = TlsBox::start(&["localhost"], &toml).await;
    let (status, _, text) = send(&tls.callbox, "GET", "/metrics", TOKEN, "").await;
    assert_eq!(status, 200);
    let mut served = Served::new();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = match sample.split_once('{') {
            Some((name, rest)) => (name, rest.split_once('}').unwrap().0),
            None => (sample.split_once(' ').unwrap().0, ""),
        };
        let known = served.entry(name.to_owned()).or_default();
        for (label, _, value) in matchers(labels) {
            known.entry(label).or_default().insert(value);
        }
    }
    served.insert("up".to_owned(), BTreeMap::new());
    served
}

/// Label, operator and value of each `label="value"` in `text`.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    let parts: Vec<&str> = text.split('"').collect();
    parts
        .chunks_exact(2)
        .map(|pair| {
            let head = pair[0].trim_start_matches(',').trim();
            let label = head.trim_end_matches(['=', '~', '!']);
            (label.into(), head[label.len()..].into(), pair[1].into())
        })
        .collect()
}

/// What `query` names that is not served.
fn faults(query: &str, served: &Served) -> Vec<String> {
    let mut faults = vec![];
    let mut labels: BTreeSet<&str> = OF_THE_SCRAPE.iter().copied().collect();
    let mut metrics = 0;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in query.match_indices(['c', 'p', 'u']) {
        let begins = !query[..at].ends_with(is_word);
        let word = query[at..].split(|c| !is_word(c)).next().unwrap();
        let is_metric = ["callbox_", "process_"].iter().any(|p| word.starts_with(p));
        if !begins || !(is_metric || word == "up") {
            continue;
        }
        metrics += 1;
        let Some(known) = served.get(word) else {
            faults.push(format!("{word} is not served"));
            continue;
        };
        labels.extend(known.keys().map(String::as_str));
        let Some(selector) = query[at + word.len()..].strip_prefix('{') else {
            continue;
        };
        for (label, operator, wanted) in matchers(selector.split_once('}').unwrap().0) {
            if OF_THE_SCRAPE.contains(&label.as_str()) {
                continue;
            }
            let Some(values) = known.get(&label) else {
                faults.push(format!("{word} has no label {label}"));
                continue;
            };
            let alternatives = if operator.contains('~') { "|" } else { "\n" };
            for value in wanted.split(alternatives) {
                if !values.contains(value) {
                    faults.push(format!("{word} has no {label}=\"{value}\""));
                }
            }
        }
    }
    if metrics == 0 {
        faults.push(format!("no metric in {query}"));
    }
    let grouped = query.split(" by (").skip(1);
    for list in grouped.map(|rest| rest.split_once(')').unwrap().0) {
        for label in list.split(", ").filter(|label| !labels.contains(label)) {
            faults.push(format!("no metric of {query} has a label {label}"));
        }
    }
    faults
}

/// Every object below `value` that has an `expr`.
fn with_queries<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| with_queries(item, found)),
        Value::Object(fields) => {
            if fields.contains_key("expr") {
                found.push(value);
            }
            fields.values().for_each(|value| with_queries(value, found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_dashboard_asks_for_what_is_served() {
    let (served, dashboard) = (served().await, json(DASHBOARD));
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    let panels = dashboard["panels"].as_array().unwrap();
    let kinds = |kind: &str| panels.iter().filter(|p| p["type"] == kind).count();
    assert_eq!(kinds("row"), 7);

    let mut targets = vec![];
    with_queries(&dashboard, &mut targets);
    assert!(targets.len() > panels.len(), "{} targets", targets.len());
    let shown: String = targets.iter().map(|t| t["expr"].to_string()).collect();
    for name in FOREIGN_CLIENTS {
        assert!(shown.contains(name), "no panel shows {name}");
    }
    let mut found = vec![];
    for target in targets {
        assert_eq!(
            target["datasource"]["uid"], "${DS_PROMETHEUS}",
            "{target}: as imported anywhere"
        );
        let query = target["expr"].as_str().unwrap();
        found.extend(faults(query, &served));
        let rates = query.matches("rate(").count() + query.matches("increase(").count();
        if query.matches("[$__rate_interval])").count() < rates {
            found.push(format!("{query}: a rate over a fixed time"));
        }
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        for name in legend.split("{{").skip(1) {
            let label = name.split_once("}}").unwrap().0;
            let is_there = query.contains(label) || query.contains("callbox_build_info");
            if !is_there && !OF_THE_SCRAPE.contains(&label) {
                found.push(format!("{query} has no {label} for its legend"));
            }
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in variables.iter().filter(|v| v["type"] == "query") {
        let query = variable["query"]["query"].as_str().unwrap();
        found.extend(faults(query, &served));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn the_alert_rules_ask_for_what_is_served_and_say_what_to_do() {
    let served = served().await;
    let mut found = vec![];
    let mut count = 0;
    for rule in ALERTS.split("- alert: ").skip(1) {
        count += 1;
        let name = rule.lines().next().unwrap();
        let value = |key: &str| {
            let line = rule.lines().find_map(|l| l.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name} has no {key}"))
        };
        let query = value("expr: ");
        found.extend(faults(query, &served));
        let (summary, description) = (value("summary: "), value("description: "));
        assert!(value("labels: { severity: ").ends_with(" }"), "{name}");
        assert!(description.len() > 80, "{name} names no fix");
        for text in [summary, description] {
            for label in text.split("$labels.").skip(1) {
                let label = label.split(' ').next().unwrap();
                if !query.contains(label) && !OF_THE_SCRAPE.contains(&label) {
                    found.push(format!("{name}: nothing has a label {label}"));
                }
            }
        }
    }
    assert!(count >= 20, "{count} rules");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_name_a_label_or_a_value_that_is_gone_is_found() {
    let values = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let labels = BTreeMap::from([("cause".to_owned(), values)]);
    let served = Served::from([("callbox_x_total".to_owned(), labels)]);
    for good in [
        "sum by (cause, job) (rate(callbox_x_total{cause=~\"a|b\", job=\"j\"}[5m]))",
        "callbox_x_total{cause=\"a\"} > 1",
    ] {
        assert!(faults(good, &served).is_empty(), "{good}");
    }
    for bad in [
        "callbox_x",
        "callbox_x_total{kind=\"a\"}",
        "callbox_x_total{cause=\"c\"}",
        "callbox_x_total{cause=~\"a|c\"}",
        "sum by (kind) (callbox_x_total)",
        "vector(1)",
    ] {
        assert_eq!(faults(bad, &served).len(), 1, "{bad}");
    }
}
