//! The entries of `public.address`, their names looked up again and again while the box runs, and
//! what is announced kept at them and at the addresses that this machine has.
//!
//! What a lookup loses is kept: an answer that fails, or that lacks a family (a resolver tells a
//! failing AAAA lookup as a good A one), changes nothing.

use super::interfaces::{Announced, NO_ADDRESS, interfaces};
use super::kernel::AddressChanges;
use crate::config::AddressRule;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// `getaddrinfo` tells no TTL; names of dynamic DNS services live for one minute.
const INTERVAL: Duration = Duration::from_secs(60);
/// The same while the box knows no address at all: at boot, the resolver may be the slower one.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// Added at random, so that boxes that started together do not ask together.
const JITTER: Duration = Duration::from_secs(15);

/// Looks one name up.
pub type Resolve = Box<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Finds what is to be announced, of names and of what was announced before.
pub type Find =
    Box<dyn for<'a> Fn(&'a Names, &'a [Announced]) -> BoxFuture<'a, Vec<Announced>> + Send + Sync>;

/// What became of lookups, for metrics.
#[derive(Debug, Default)]
pub struct NameCounters {
    failures: AtomicU64,
    changes: AtomicU64,
}

impl NameCounters {
    /// Lookups that brought no address.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Times that a family's public address became another one.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Changes and failures.
    pub fn all(&self) -> [u64; 2] {
        [self.changes(), self.failures()]
    }

    /// Goes on from what an earlier process counted.
    pub fn add(&self, [changes, failures]: [u64; 2]) {
        self.changes.fetch_add(changes, Ordering::Relaxed);
        self.failures.fetch_add(failures, Ordering::Relaxed);
    }
}

/// The rules for public addresses, and what their names were answered with last.
pub struct Names {
    rules: Vec<AddressRule>,
    /// By rule.
    answers: Vec<Vec<IpAddr>>,
    resolve: Resolve,
    is_failing: bool,
    /// Counts since the start.
    pub counters: Arc<NameCounters>,
}

impl Names {
    /// Looks names up as the system does.
    pub fn new(rules: &[AddressRule]) -> Self {
        let by_system = |name: String| async move {
            let found = lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        };
        Self::with(rules, Box::new(move |name| by_system(name).boxed()))
    }

    /// Looks names up by `resolve`.
    pub fn with(rules: &[AddressRule], resolve: Resolve) -> Self {
        Self {
            rules: rules.to_vec(),
            answers: vec![vec![]; rules.len()],
            resolve,
            is_failing: false,
            counters: Arc::default(),
        }
    }

    /// Looks every name up once. The first failure after a success is logged, and the first
    /// success after that.
    pub(super) async fn look_up(&mut self) {
        let mut failure = None;
        for (rule, answer) in self.rules.iter().zip(&mut self.answers) {
            let name = match rule {
                AddressRule::Ip(ip) => {
                    *answer = vec![*ip];
                    continue;
                }
                AddressRule::Dns(name) => name,
            };
            match (self.resolve)(name.clone()).await {
                Ok(found) if !found.is_empty() => {
                    let lost = |ip: &IpAddr| found.iter().all(|f| f.is_ipv4() != ip.is_ipv4());
                    answer.retain(lost);
                    answer.extend(found);
                }
                failed => {
                    let why = failed.err().map(|error| error.to_string());
                    let why = why.unwrap_or_else(|| "the name has no address".into());
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    failure = Some((name.clone(), why));
                }
            }
        }
        let was_failing = std::mem::replace(&mut self.is_failing, failure.is_some());
        match failure {
            Some((name, why)) if !was_failing => tracing::warn!(
                "public.address: cannot look up {name}: {why}; what is known of it stays"
            ),
            None if was_failing => tracing::info!("public.address: names are found again"),
            _ => {}
        }
    }

    /// At most one address a family, each with how it was found: of the first rule that has any,
    /// the one that is announced already, or else its first.
    pub(super) fn choose(&self, announced: &[Announced]) -> Vec<(IpAddr, String)> {
        let of_family = |ipv4: bool| {
            let answers = self.rules.iter().zip(&self.answers);
            let mut found = answers.filter_map(|(rule, answer)| {
                let mut ips = answer.iter().filter(|ip| ip.is_ipv4() == ipv4);
                let is_known = |ip: &&IpAddr| announced.iter().any(|a| a.address == **ip);
                let ip = ips.clone().find(is_known).or_else(|| ips.next())?;
                Some((*ip, how(rule)))
            });
            found.next()
        };
        [true, false].into_iter().filter_map(of_family).collect()
    }

    fn has_name(&self) -> bool {
        let is_name = |rule: &AddressRule| matches!(rule, AddressRule::Dns(_));
        self.rules.iter().any(is_name)
    }

    /// Keeps `announced` at what `find` makes of the names' answers and of the addresses that this
    /// machine has, for ever: looks again when `changes` says so, and names up each minute.
    pub async fn follow(
        mut self,
        announced: watch::Sender<Vec<Announced>>,
        mut changes: AddressChanges,
        find: Find,
    ) {
        let mut interfaces = interfaces();
        let mut next_look_up = self.next_look_up(&announced);
        loop {
            tokio::select! {
                () = sleep_until(next_look_up), if self.has_name() => {
                    self.look_up().await;
                    next_look_up = self.next_look_up(&announced);
                }
                () = changes.changed() => {}
            }
            let now_there = super::interfaces::interfaces();
            let is_moved = now_there != interfaces;
            if is_moved && self.has_name() {
                // Another network has another resolver.
                self.look_up().await;
                next_look_up = self.next_look_up(&announced);
            }
            interfaces = now_there;
            let before = announced.borrow().clone();
            let after = find(&self, &before).await;
            let addresses = |list: &[Announced]| -> Vec<_> {
                list.iter().map(|a| (a.address, a.local)).collect()
            };
            if addresses(&before) != addresses(&after) {
                self.counters.changes.fetch_add(1, Ordering::Relaxed);
                match after.is_empty() {
                    false => {
                        tracing::info!("public address: {} → {}", listed(&before), listed(&after));
                    }
                    true => {
                        tracing::warn!("public address: {} → none; {NO_ADDRESS}", listed(&before))
                    }
                }
                announced.send_replace(after);
            } else if is_moved {
                // Who keeps relays off the box's own addresses looks at them again.
                announced.send_replace(before);
            }
        }
    }

    fn next_look_up(&self, announced: &watch::Sender<Vec<Announced>>) -> Instant {
        let jitter = rand::rng().random_range(Duration::ZERO..JITTER);
        let wait = match announced.borrow().is_empty() {
            true => FIRST_INTERVAL,
            false => INTERVAL + jitter,
        };
        Instant::now() + wait
    }
}

/// `before`, with those of `found` in place of the ones of their families.
#[cfg(test)]
fn replaced(before: &[Announced], found: impl Iterator<Item = Announced>) -> Vec<Announced> {
    let mut after = before.to_vec();
    for new in found {
        let is_like = |old: &&mut Announced| old.address.is_ipv4() == new.address.is_ipv4();
        match after.iter_mut().find(is_like) {
            Some(old) if (old.address, old.local) == (new.address, new.local) => {}
            Some(old) => *old = new,
            None => after.push(new),
        }
    }
    after
}

fn how(rule: &AddressRule) -> String {
    match rule {
        AddressRule::Ip(_) => "public.address".into(),
        AddressRule::Dns(name) => format!("DNS lookup of {name}"),
    }
}

fn listed(announced: &[Announced]) -> String {
    let addresses: Vec<_> = announced.iter().map(|a| a.address.to_string()).collect();
    match addresses.is_empty() {
        true => "none".into(),
        false => addresses.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::interfaces::announce;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use tokio::time::timeout;

    /// An answer of the resolver: addresses, or `None` for a failure.
    type Answer = Option<&'static [&'static str]>;

    /// Names that are answered with each of `answers` in turn, and with the last one for ever.
    fn names(answers: &[Answer]) -> Names {
        let answers = Mutex::new(VecDeque::from(answers.to_vec()));
        let resolve: Resolve = Box::new(move |name| {
            assert_eq!(name, "call.example.org");
            let mut answers = answers.lock().unwrap();
            let answer = match answers.len() {
                1 => answers[0],
                _ => answers.pop_front().unwrap(),
            };
            let found = answer.ok_or_else(|| io::Error::other("no server answers"));
            let found = found.map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect());
            std::future::ready(found).boxed()
        });
        Names::with(&[AddressRule::Dns("call.example.org".into())], resolve)
    }

    fn chosen(names: &Names, announced: &[Announced]) -> Vec<String> {
        let chosen = names.choose(announced);
        chosen.iter().map(|(ip, _)| ip.to_string()).collect()
    }

    fn announced(ip: &str) -> Vec<Announced> {
        vec![Announced {
            address: ip.parse().unwrap(),
            local: ip.parse().unwrap(),
            how: String::new(),
        }]
    }

    /// Follows names alone.
    async fn follow(names: Names, sender: watch::Sender<Vec<Announced>>) {
        let find: Find = Box::new(|names, before| {
            let found = names.choose(before).into_iter();
            let found = found.filter_map(|(ip, how)| announce(ip, how));
            std::future::ready(replaced(before, found)).boxed()
        });
        names.follow(sender, AddressChanges::Never, find).await;
    }

    /// Whatever comes of following these answers for `rounds` of lookups.
    async fn followed(answers: &[Answer], rounds: u32) -> (Vec<String>, Arc<NameCounters>) {
        let mut names = names(answers);
        names.look_up().await;
        let first = names.choose(&[]);
        let first = first.into_iter().filter_map(|(ip, how)| announce(ip, how));
        let counters = Arc::clone(&names.counters);
        let sender = watch::Sender::new(first.collect());
        let follow = follow(names, sender.clone());
        let _ = timeout((INTERVAL + JITTER) * rounds, follow).await;
        let seen = sender
            .borrow()
            .iter()
            .map(|a| a.address.to_string())
            .collect();
        (seen, counters)
    }

    #[tokio::test(start_paused = true)]
    async fn another_answer_is_announced_within_75_seconds() {
        let mut names = names(&[Some(&["127.0.0.1"]), Some(&["127.0.0.2"])]);
        names.look_up().await;
        let sender = watch::Sender::new(announced("127.0.0.1"));
        let (counters, mut seen) = (Arc::clone(&names.counters), sender.subscribe());
        let started = Instant::now();
        tokio::select! {
            () = follow(names, sender) => {}
            changed = seen.changed() => changed.unwrap(),
        }
        assert!((INTERVAL..INTERVAL + JITTER).contains(&started.elapsed()));
        assert_eq!(seen.borrow()[0].address.to_string(), "127.0.0.2");
        assert_eq!(seen.borrow()[0].how, "DNS lookup of call.example.org");
        assert_eq!((counters.changes(), counters.failures()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_fails_or_lacks_a_family_changes_nothing() {
        let (seen, counters) = followed(&[Some(&["127.0.0.1"]), None], 5).await;
        assert_eq!(seen, ["127.0.0.1"]);
        assert_eq!((counters.changes(), counters.failures() >= 5), (0, true));

        let mut partly = names(&[Some(&["192.0.2.1", "2001:db8::1"]), Some(&["192.0.2.2"])]);
        partly.look_up().await;
        partly.look_up().await;
        assert_eq!(chosen(&partly, &[]), ["192.0.2.2", "2001:db8::1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_box_that_started_without_an_answer_gets_its_address_later() {
        let (seen, counters) = followed(&[None, None, Some(&["127.0.0.1"])], 4).await;
        assert_eq!(seen, ["127.0.0.1"]);
        assert_eq!((counters.changes(), counters.failures()), (1, 2));
    }

    #[tokio::test]
    async fn addresses_that_a_server_tells_in_turn_are_no_change() {
        let mut names = names(&[Some(&["192.0.2.2", "192.0.2.1"])]);
        names.look_up().await;
        assert_eq!(chosen(&names, &announced("192.0.2.1")), ["192.0.2.1"]);
        assert_eq!(chosen(&names, &announced("192.0.2.3")), ["192.0.2.2"]);
    }

    #[tokio::test]
    async fn the_first_rule_with_an_address_of_the_family_counts() {
        let ip = |ip: &str| AddressRule::Ip(ip.parse().unwrap());
        let mut names = names(&[Some(&["192.0.2.2", "2001:db8::2"])]);
        names.rules.insert(0, ip("192.0.2.1"));
        names.answers.push(vec![]);
        names.look_up().await;
        let known = announced("192.0.2.2");
        assert_eq!(chosen(&names, &known), ["192.0.2.1", "2001:db8::2"]);
        assert_eq!(names.choose(&[])[0].1, "public.address");
    }
}
