//! Collects samples and prints them: a table a workload, and one of all at the end.

use super::flow::Outcome;
use super::servers::Kind;
use super::workload::Workload;
use crate::common::report::{Spread, Table, figure, machine};

/// One measurement: its cost, and what else there is to say of a relayed one.
pub(crate) struct Sample {
    cost: f64,
    outcome: Option<Outcome>,
}

impl From<f64> for Sample {
    fn from(cost: f64) -> Self {
        Self {
            cost,
            outcome: None,
        }
    }
}

impl From<Outcome> for Sample {
    fn from(outcome: Outcome) -> Self {
        Self {
            cost: outcome.cost,
            outcome: Some(outcome),
        }
    }
}

/// All samples of one server under one workload.
struct Entry {
    key: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

impl Entry {
    fn spread(&self) -> Option<Spread> {
        Spread::of(
            &self
                .samples
                .iter()
                .map(|sample| sample.cost)
                .collect::<Vec<_>>(),
        )
    }

    fn median_of(&self, read: impl Fn(&Outcome) -> f64) -> String {
        let values: Vec<f64> = self
            .samples
            .iter()
            .filter_map(|s| s.outcome.as_ref())
            .map(read)
            .collect();
        Spread::of(&values).map_or_else(String::new, |spread| figure(spread.median))
    }

    fn loss(&self) -> String {
        let outcomes = || self.samples.iter().filter_map(|s| s.outcome.as_ref());
        let sent: u64 = outcomes().map(|o| o.sent).sum();
        let lost: u64 = outcomes().map(|o| o.lost).sum();
        match (sent, lost) {
            (0, _) => String::new(),
            (_, 0) => "0".to_owned(),
            _ => format!("{lost} of {sent}"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Results {
    entries: Vec<Entry>,
    /// Workloads measured, in order: key, title, unit, goal.
    workloads: Vec<(&'static str, &'static str, &'static str, Option<f64>)>,
}

impl Results {
    pub(crate) fn add(&mut self, workload: &Workload, kind: Kind, sample: Sample) {
        let same = |entry: &&mut Entry| entry.key == workload.key && entry.kind == kind;
        match self.entries.iter_mut().find(same) {
            Some(entry) => entry.samples.push(sample),
            None => self.entries.push(Entry {
                key: workload.key,
                kind,
                samples: vec![sample],
            }),
        }
    }

    /// Everything known of one workload.
    #[allow(
        clippy::print_stdout,
        reason = "the figures are what the program is run for"
    )]
    pub(crate) fn print(&mut self, workload: &Workload) {
        self.workloads
            .push((workload.key, workload.title, workload.unit(), workload.goal));
        println!("\n`{}`: {}; {}\n", workload.key, workload.title, machine());
        let unit = workload.unit();
        let mut table = Table::new(&[
            "server",
            unit,
            "min–max",
            "× coturn",
            "packets/s",
            "core",
            "lost",
            "p50 µs",
            "p99 µs",
        ]);
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.key == workload.key)
        {
            let Some(spread) = entry.spread() else {
                continue;
            };
            table.row(vec![
                entry.kind.name().to_owned(),
                figure(spread.median),
                format!("{}–{}", figure(spread.min), figure(spread.max)),
                self.ratio(workload.key, entry.kind)
                    .map(figure)
                    .unwrap_or_default(),
                entry.median_of(|o| o.rate),
                entry.median_of(|o| o.busy),
                entry.loss(),
                entry.median_of(|o| o.p50),
                entry.median_of(|o| o.p99),
            ]);
        }
        table.print();
    }

    /// One row a workload: medians of all servers, and callbox against its goal.
    #[allow(
        clippy::print_stdout,
        reason = "the figures are what the program is run for"
    )]
    pub(crate) fn print_summary(&self) {
        let servers: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| self.entries.iter().any(|entry| entry.kind == *kind))
            .collect();
        let mut header = vec!["workload", "unit"];
        header.extend(servers.iter().map(|kind| kind.name()));
        header.extend(["callbox × coturn", "goal"]);
        let mut table = Table::new(&header);
        for &(key, title, unit, goal) in &self.workloads {
            let mut row = vec![title.to_owned(), unit.to_owned()];
            row.extend(
                servers
                    .iter()
                    .map(|&kind| self.median(key, kind).map_or("–".into(), figure)),
            );
            row.push(
                self.ratio(key, Kind::Callbox)
                    .map(figure)
                    .unwrap_or_default(),
            );
            row.push(
                goal.map(|goal| format!("≤ {}", figure(goal)))
                    .unwrap_or_default(),
            );
            table.row(row);
        }
        println!("\nMedians. {}.\n", machine());
        table.print();
    }

    fn median(&self, key: &str, kind: Kind) -> Option<f64> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.key == key && entry.kind == kind)?;
        Some(entry.spread()?.median)
    }

    fn ratio(&self, key: &str, kind: Kind) -> Option<f64> {
        Some(self.median(key, kind)? / self.median(key, Kind::Coturn)?)
    }
}
