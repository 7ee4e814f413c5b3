//! The table, the JSON and the JUnit of a run. Pure.

use super::verdict::{Packets, Row};
use callbox::cli::reach::Via;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What was found about one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The kind, and which side's it is.
    pub network: String,
    /// What the probe found.
    pub found: String,
}

/// The head of the table.
#[must_use]
pub fn head() -> String {
    format!(
        "{:<33} {:<5} {:<9} {:<7} {:<8} {:>7}  {:<25} {}\n",
        "CALL",
        "ONLY",
        "EXPECTED",
        "ACTUAL",
        "BY",
        "CONNECT",
        "PACKETS (DIRECT+RELAYED)",
        "VERDICT"
    )
}

/// One line of the table, and another one where something is wrong.
#[must_use]
pub fn line(row: &Row) -> String {
    let only = row.only.map_or("-".into(), |via| via.to_string());
    let by = |via: Option<Via>| via.map_or("-".into(), |via| via.to_string());
    let by = match row.transports {
        [None, None] => "-".to_owned(),
        [a, b] => format!("{}/{}", by(a), by(b)),
    };
    let connect = row.connect_ms.map_or("-".into(), |ms| format!("{ms} ms"));
    let packets = row.packets.map_or("-".into(), |[a, b]| {
        let one = |packets: Packets| format!("{}+{}", packets.direct, packets.relayed);
        format!("{} / {}", one(a), one(b))
    });
    let verdict = if row.is_good() { "ok" } else { "NOT OK" };
    let mut line = format!(
        "{:<33} {only:<5} {:<9} {:<7} {by:<8} {connect:>7}  {packets:<25} {verdict}\n",
        row.pair, row.expected, row.actual
    );
    if row.tries > 1 {
        let _ = writeln!(line, "    made {} times", row.tries);
    }
    if let Some(after) = &row.after {
        let how = match after.uninterrupted {
            true => "data went on",
            false => "data came back after a restart of ICE",
        };
        let _ = writeln!(
            line,
            "    after the {}: {how}, {}, {} ms",
            after.what, after.actual, after.recover_ms
        );
        if after.tries > 1 {
            let _ = writeln!(line, "    ICE was restarted {} times", after.tries);
        }
    }
    if let Some(fault) = &row.fault {
        let _ = writeln!(line, "    {fault}");
    }
    line
}

/// The last line.
#[must_use]
pub fn summary(rows: &[Row], seconds: f64) -> String {
    let bad = rows.iter().filter(|row| !row.is_good()).count();
    match bad {
        0 => format!("{} calls, all as expected, in {seconds:.0} s\n", rows.len()),
        bad => format!(
            "{} calls, {bad} NOT as expected, in {seconds:.0} s\n",
            rows.len()
        ),
    }
}

/// One JSON object.
#[must_use]
pub fn to_json(box_url: &str, proofs: &[Proof], rows: &[Row], seconds: f64) -> Value {
    let networks: Vec<Value> = proofs
        .iter()
        .map(|proof| json!({"network": proof.network, "probe": proof.found}))
        .collect();
    let calls: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut call = serde_json::to_value(row).unwrap_or_default();
            call["ok"] = row.is_good().into();
            call
        })
        .collect();
    json!({
        "url": box_url,
        "ok": rows.iter().all(Row::is_good),
        "seconds": seconds,
        "networks": networks,
        "calls": calls,
    })
}

/// A JUnit file: a test case for each call.
#[must_use]
pub fn to_junit(proofs: &[Proof], rows: &[Row], seconds: f64) -> String {
    let failures = rows.iter().filter(|row| !row.is_good()).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"callbox \
         natlab\" tests=\"{}\" failures=\"{failures}\" time=\"{seconds:.3}\">\n<properties>\n",
        rows.len()
    );
    for proof in proofs {
        let _ = writeln!(
            xml,
            "<property name=\"{}\" value=\"{}\"/>",
            escaped(&proof.network),
            escaped(&proof.found)
        );
    }
    xml += "</properties>\n";
    for row in rows {
        let only = row.only.map_or("best".into(), |via| via.to_string());
        let ms = row.connect_ms.and_then(|ms| u32::try_from(ms).ok());
        let seconds = ms.map_or(0.0, |ms| f64::from(ms) / 1_000.0);
        let _ = write!(
            xml,
            "<testcase classname=\"natlab.{only}\" name=\"{}\" time=\"{seconds:.3}\">\
             <properties><property name=\"tries\" value=\"{}\"/></properties>",
            escaped(&row.pair),
            row.tries
        );
        if let Some(fault) = &row.fault {
            let _ = write!(
                xml,
                "<failure message=\"{}\">{}</failure>",
                escaped(fault),
                escaped(&line(row))
            );
        }
        xml += "</testcase>\n";
    }
    xml + "</testsuite>\n</testsuites>\n"
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(character),
            // XML 1.0 has no place for the others.
            character if character.is_control() => out.push('?'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Call;
    use super::super::verdict::Unconnected;
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |pair: &str| {
            Row::new(Call {
                pair: pair.parse().unwrap(),
                only: None,
                relay_only: false,
            })
        };
        let mut good = row("full/none");
        good.connect_ms = Some(1_234);
        good.tries = 2;
        let why = Unconnected::NoPath("a <b> & \"c\"\u{7}".into());
        vec![good, row("none/none").unconnected(&why)]
    }

    #[test]
    fn junit_names_each_call_and_each_failure() {
        let proofs = [Proof {
            network: "full".into(),
            found: "EIM/EIF".into(),
        }];
        let xml = to_junit(&proofs, &rows(), 2.5);
        for wanted in [
            "tests=\"2\" failures=\"1\" time=\"2.500\"",
            "<property name=\"full\" value=\"EIM/EIF\"/>",
            "name=\"full/none\" time=\"1.234\"><properties><property name=\"tries\" \
             value=\"2\"/></properties></testcase>",
            "<failure message=\"not connected: a &lt;b&gt; &amp; &quot;c&quot;?\">",
        ] {
            assert!(xml.contains(wanted), "{wanted}\n{xml}");
        }
    }

    #[test]
    fn json_and_table_say_what_went_wrong() {
        let json = to_json("https://h", &[], &rows(), 1.0);
        assert_eq!(json["ok"], false);
        assert_eq!(json["calls"][0]["ok"], true);
        assert_eq!(json["calls"][0]["tries"], 2);
        assert_eq!(json["calls"][1]["tries"], 1);
        assert_eq!(json["calls"][1]["expected"], "direct");
        assert_eq!(json["calls"][1]["actual"], "none");
        let table: String = rows().iter().map(line).collect();
        assert!(table.contains("not connected: a <b>"));
        assert_eq!(table.matches("made 2 times").count(), 1, "{table}");
        assert!(summary(&rows(), 1.0).contains("1 NOT as expected"));
    }
}
