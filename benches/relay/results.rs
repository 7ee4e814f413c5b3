//! Collects samples and prints them: a table a workload, and one of all at the end.

use super::flow::Outcome;
use super::kind::Kind;
use super::workload::Workload;
use crate::common::report::{Spread, Table, figure, machine};

/// What one round gave of one server.
pub(crate) struct Sample {
    cost: f64,
    /// The cost in each turn; a turn that says nothing is `None`.
    turns: Vec<Option<f64>>,
    outcome: Option<Outcome>,
}

impl Sample {
    pub(crate) fn of(cost: f64, turns: Vec<Option<f64>>) -> Self {
        Self {
            cost,
            turns,
            outcome: None,
        }
    }

    pub(crate) fn relayed(outcome: Outcome, turns: Vec<Option<f64>>) -> Self {
        Self {
            cost: outcome.cost,
            turns,
            outcome: Some(outcome),
        }
    }
}

/// All samples of one server under one workload.
struct Entry {
    key: &'static str,
    kind: Kind,
    /// By round; a measurement that failed is missing.
    samples: Vec<Option<Sample>>,
}

impl Entry {
    fn spread(&self) -> Option<Spread> {
        Spread::of(
            &self
                .samples
                .iter()
                .flatten()
                .map(|sample| sample.cost)
                .collect::<Vec<_>>(),
        )
    }

    fn median_of(&self, read: impl Fn(&Outcome) -> f64) -> String {
        let values: Vec<f64> = self
            .samples
            .iter()
            .flatten()
            .filter_map(|s| s.outcome.as_ref())
            .map(read)
            .collect();
        Spread::of(&values).map_or_else(String::new, |spread| figure(spread.median))
    }

    fn loss(&self) -> String {
        let outcomes = || {
            self.samples
                .iter()
                .flatten()
                .filter_map(|s| s.outcome.as_ref())
        };
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
    /// Adds what the next round gave of `kind`.
    pub(crate) fn add(&mut self, workload: &Workload, kind: Kind, sample: Option<Sample>) {
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
            "× callbox",
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
                self.ratio(workload.key, entry.kind, Kind::Coturn),
                self.ratio(workload.key, entry.kind, Kind::Callbox),
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
        header.extend(["callbox × coturn", "goal", "turn::server × callbox"]);
        let mut table = Table::new(&header);
        for &(key, title, unit, goal) in &self.workloads {
            let mut row = vec![title.to_owned(), unit.to_owned()];
            row.extend(
                servers
                    .iter()
                    .map(|&kind| self.median(key, kind).map_or("–".into(), figure)),
            );
            row.push(self.ratio(key, Kind::Callbox, Kind::Coturn));
            row.push(goal.map_or_else(String::new, |goal| format!("≤ {}", figure(goal))));
            row.push(self.ratio(key, Kind::TurnCrate, Kind::Callbox));
            table.row(row);
        }
        println!("\nMedians. {}.\n", machine());
        table.print();
    }

    fn entry(&self, key: &str, kind: Kind) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.key == key && entry.kind == kind)
    }

    fn median(&self, key: &str, kind: Kind) -> Option<f64> {
        Some(self.entry(key, kind)?.spread()?.median)
    }

    /// The median of all turns' own ratios: what slows a turn down is mostly in both sides of it.
    /// Empty where there is none.
    fn ratio(&self, key: &str, kind: Kind, to: Kind) -> String {
        let (Some(ours), Some(theirs)) = (self.entry(key, kind), self.entry(key, to)) else {
            return String::new();
        };
        let rounds = ours.samples.iter().zip(&theirs.samples);
        let ratios: Vec<f64> = rounds
            .filter_map(|(ours, theirs)| Some((ours.as_ref()?, theirs.as_ref()?)))
            .flat_map(|(ours, theirs)| ours.turns.iter().zip(&theirs.turns))
            .filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?))
            .collect();
        Spread::of(&ratios).map_or_else(String::new, |spread| figure(spread.median))
    }
}
