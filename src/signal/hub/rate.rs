//! Rates: token buckets as one instant each (the generic cell rate algorithm).

use crate::network::networks_of;
use crate::rate::{cost, pay};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far ahead of its rate a client may get: at any rate that makes bursts of ten times the rate.
const BURST: Duration = Duration::from_secs(10);
/// How far ahead makes it abuse: as much again, sent in spite of `rate-limited`.
const ABUSE: Duration = Duration::from_secs(20);
/// One wrong password in this time for one network and room: 14,400 guesses a day. A /56 makes eight
/// times as many, a /48 sixty-four times.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(6);
/// Ten wrong passwords pass at once: people mistype, and share addresses.
const ATTEMPT_BURST: Duration = Duration::from_secs(60);
/// Networks and rooms watched at once, about 200 bytes each. When it is full, the one closest to
/// being forgiven goes, as nobody may be kept out by what others guess. To be forgotten early, a
/// guesser has to make more wrong guesses elsewhere than it wins here.
const MAX_ATTEMPTS: usize = 10_000;

/// The bucket of one connection and kind of message.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When the client would be back within its rate.
    pub(super) paid_until: Option<Instant>,
}

/// What becomes of one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Wait(Duration),
    Abuse,
}

impl Bucket {
    /// Charges one message at `rate` a second (0: unlimited); refused ones are charged as well.
    pub(super) fn charge(&mut self, now: Instant, rate: u32) -> Verdict {
        self.charge_many(now, rate, 1)
    }

    /// Charges a message that counts as `count`.
    pub(super) fn charge_many(&mut self, now: Instant, rate: u32, count: u32) -> Verdict {
        if rate == 0 || count == 0 {
            return Verdict::Pass;
        }
        let interval = cost(count.into(), rate.into());
        let paid_until = pay(self.paid_until, now, interval);
        self.paid_until = Some(paid_until);
        match paid_until - now {
            ahead if ahead <= BURST => Verdict::Pass,
            ahead if ahead <= ABUSE => Verdict::Wait(ahead + interval - BURST),
            _ => Verdict::Abuse,
        }
    }
}

/// The bytes that one connection sends to others.
#[derive(Debug, Default)]
pub(super) struct ByteBucket {
    /// When the client would be back within its rate.
    pub(super) paid_until: Option<Instant>,
}

impl ByteBucket {
    /// Charges bytes at `rate` a second (0: unlimited), of which `burst` pass at once; returns until
    /// when the client has to wait, if it has to.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        bytes: usize,
        rate: u64,
        burst: u64,
    ) -> Option<Instant> {
        if rate == 0 {
            return None;
        }
        let paid_until = pay(self.paid_until, now, cost(bytes as u64, rate));
        self.paid_until = Some(paid_until);
        let wait = (paid_until - now).checked_sub(cost(burst, rate))?;
        (!wait.is_zero()).then(|| now + wait)
    }
}

/// Networks that one connection is sent something by, and that are watched at once. One more takes the
/// place of the one closest to its rate.
const MAX_SENDERS: usize = 16;

/// What one connection is sent, by the network of who sends it: no network may fill what waits for a
/// connection, with however many connections of its own.
#[derive(Debug, Default)]
pub(super) struct Inflow(pub(super) Vec<(IpAddr, Instant)>);

impl Inflow {
    /// How many networks it has at most.
    pub(super) const MAX: usize = MAX_SENDERS;

    /// Charges bytes of a network as [`ByteBucket::charge`] does.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        network: IpAddr,
        bytes: usize,
        rate: u64,
        burst: u64,
    ) -> Option<Instant> {
        let known = self.0.iter().position(|(known, _)| *known == network);
        let index = known.unwrap_or_else(|| {
            if self.0.len() >= MAX_SENDERS {
                self.0.retain(|(_, until)| *until > now);
            }
            if self.0.len() >= MAX_SENDERS {
                let first = (0..self.0.len()).min_by_key(|index| self.0[*index].1);
                self.0.swap_remove(first.unwrap_or_default());
            }
            self.0.push((network, now));
            self.0.len() - 1
        });
        let paid_until = Some(self.0[index].1);
        let mut bucket = ByteBucket { paid_until };
        let until = bucket.charge(now, bytes, rate, burst);
        self.0[index].1 = bucket.paid_until.unwrap_or(now);
        until
    }

    /// Has a network be ahead of its rate by `over` at least.
    pub(super) fn press(&mut self, now: Instant, network: IpAddr, over: Duration) {
        if let Some((_, until)) = self.0.iter_mut().find(|(known, _)| *known == network) {
            *until = (*until).max(now + over);
        }
    }

    /// How long a network has to wait before it is within `burst` again.
    pub(super) fn wait(&self, now: Instant, network: IpAddr, rate: u64, burst: u64) -> Duration {
        let known = self.0.iter().find(|(known, _)| *known == network);
        let ahead = known.map_or(Duration::ZERO, |(_, until)| {
            until.saturating_duration_since(now)
        });
        ahead.saturating_sub(cost(burst, rate))
    }
}

/// The widest network that a client is counted in.
pub(super) fn widest_network(client: IpAddr) -> IpAddr {
    let last = networks_of(client).last();
    last.map_or(client, |((network, _), _)| network)
}

/// Who guesses at which room: a network by its address and length.
pub(super) type Guesser = ((IpAddr, u8), Arc<str>);

/// The guessers that a client of `network` is one of, each with how many times the rate of the first
/// it has.
pub(super) fn guessers(client: IpAddr, room: &Arc<str>) -> impl Iterator<Item = (Guesser, u32)> {
    networks_of(client).map(|(network, times)| ((network, Arc::clone(room)), times))
}

/// Wrong passwords of late.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When each guesser would be back within its rate.
    paid_until: BTreeMap<Guesser, Instant>,
    /// The same pairs, the first to be forgiven first.
    order: BTreeSet<(Instant, Guesser)>,
}

/// What one wrong password leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Charge {
    /// When to [`Attempts::expire`] the guesser.
    pub(super) until: Instant,
    /// Who needs no longer expire at that instant: the same guesser, or one forgotten for it.
    pub(super) instead_of: Option<(Instant, Guesser)>,
}

impl Attempts {
    /// Whether `guesser` may try a password, at `times` the rate.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(super) fn check(
        &self,
        now: Instant,
        guesser: &Guesser,
        times: u32,
    ) -> Result<(), Duration> {
        let Some(paid_until) = self.paid_until.get(guesser) else {
            return Ok(());
        };
        let ahead = paid_until.saturating_duration_since(now) + ATTEMPT_INTERVAL / times;
        match ahead.checked_sub(ATTEMPT_BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Charges a wrong password, at `times` the rate.
    pub(super) fn charge(&mut self, now: Instant, guesser: Guesser, times: u32) -> Charge {
        let before = self.paid_until.get(&guesser).copied();
        let instead_of = match before {
            Some(before) => Some((before, guesser.clone())),
            None if self.len() >= MAX_ATTEMPTS => self.order.first().cloned(),
            None => None,
        };
        if let Some((_, replaced)) = &instead_of {
            self.expire(replaced);
        }
        let until = pay(before, now, ATTEMPT_INTERVAL / times);
        self.order.insert((until, guesser.clone()));
        self.paid_until.insert(guesser, until);
        Charge { until, instead_of }
    }

    pub(super) fn expire(&mut self, guesser: &Guesser) {
        if let Some((guesser, until)) = self.paid_until.remove_entry(guesser) {
            self.order.remove(&(until, guesser));
        }
    }

    /// Every guesser with the time at which it is forgiven.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Guesser, Instant)> {
        self.paid_until
            .iter()
            .map(|(guesser, until)| (guesser, *until))
    }

    /// Enters a guesser as it was; returns whether it is new and there was room.
    pub(super) fn insert(&mut self, guesser: Guesser, until: Instant) -> bool {
        if self.len() >= MAX_ATTEMPTS || self.paid_until.contains_key(&guesser) {
            return false;
        }
        self.order.insert((until, guesser.clone()));
        self.paid_until.insert(guesser, until);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.paid_until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_pass_then_wait_then_abuse() {
        let now = Instant::now();
        let mut bucket = Bucket::default();
        for _ in 0..1000 {
            assert_eq!(bucket.charge(now, 100), Verdict::Pass);
        }
        let Verdict::Wait(wait) = bucket.charge(now, 100) else {
            panic!()
        };
        assert_eq!(wait, Duration::from_millis(20));
        assert_eq!(bucket.charge(now + wait, 100), Verdict::Pass);
        for _ in 0..998 {
            assert!(matches!(bucket.charge(now, 100), Verdict::Wait(_)));
        }
        assert_eq!(bucket.charge(now, 100), Verdict::Abuse);
        assert_eq!(
            bucket.charge(now + Duration::from_secs(30), 100),
            Verdict::Pass
        );
        assert_eq!(Bucket::default().charge(now, 0), Verdict::Pass);
    }

    #[test]
    fn a_burst_of_bytes_passes_and_then_the_sender_waits() {
        let now = Instant::now();
        let mut bucket = ByteBucket::default();
        let mut charge = |at, bytes| bucket.charge(at, bytes, 1000, 500);
        assert_eq!(charge(now, 500), None);
        assert_eq!(charge(now, 100), Some(now + Duration::from_millis(100)));
        let later = now + Duration::from_millis(600);
        assert_eq!(charge(later, 500), None, "all is paid");
        assert_eq!(charge(later, 5000), Some(later + Duration::from_secs(5)));
        assert_eq!(ByteBucket::default().charge(now, usize::MAX, 0, 0), None);
        assert!(ByteBucket::default().charge(now, 16 << 20, 1, 0).is_some());
    }

    #[test]
    fn each_network_has_a_share_of_a_connection() {
        let now = Instant::now();
        let mut inflow = Inflow::default();
        let network = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert_eq!(inflow.charge(now, network(1), 500, 1000, 500), None);
        let until = Some(now + Duration::from_millis(100));
        assert_eq!(inflow.charge(now, network(1), 100, 1000, 500), until);
        assert_eq!(inflow.charge(now, network(2), 500, 1000, 500), None);
        let wait = |inflow: &Inflow, n| inflow.wait(now, network(n), 1000, 500);
        assert_eq!(wait(&inflow, 1), Duration::from_millis(100));
        assert_eq!(wait(&inflow, 2), Duration::ZERO);
        for n in 3..100 {
            assert_eq!(inflow.charge(now, network(n), 1, 1000, 500), None);
        }
        assert_eq!(inflow.0.len(), MAX_SENDERS);
        assert_eq!(
            wait(&inflow, 1),
            Duration::from_millis(100),
            "the worst stays"
        );
        assert_eq!(
            widest_network("2001:db8:1:2::3".parse().unwrap()).to_string(),
            "2001:db8:1::"
        );
    }

    #[test]
    fn ten_wrong_passwords_then_one_in_six_seconds() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let guesser: Guesser = ((IpAddr::from([192, 0, 2, 1]), 64), "room".into());
        for _ in 0..10 {
            assert_eq!(attempts.check(now, &guesser, 1), Ok(()));
            attempts.charge(now, guesser.clone(), 1);
        }
        assert_eq!(attempts.check(now, &guesser, 1), Err(ATTEMPT_INTERVAL));
        assert_eq!(attempts.check(now + ATTEMPT_INTERVAL, &guesser, 1), Ok(()));
        assert_eq!(attempts.check(now, &(guesser.0, "other".into()), 1), Ok(()));
    }

    #[test]
    fn a_full_table_of_guessers_forgets_the_mildest_and_keeps_nobody_out() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let from = |n: u32| -> Guesser { ((IpAddr::from(n.to_be_bytes()), 64), "room".into()) };
        for _ in 0..10 {
            attempts.charge(now, from(0), 1);
        }
        for n in 1..MAX_ATTEMPTS as u32 {
            assert_eq!(attempts.charge(now, from(n), 1).instead_of, None);
        }
        let new = from(MAX_ATTEMPTS as u32);
        assert_eq!(attempts.check(now, &new, 1), Ok(()));
        let forgotten = attempts.charge(now, new.clone(), 1).instead_of;
        assert_eq!(forgotten, Some((now + ATTEMPT_INTERVAL, from(1))));
        assert!(attempts.check(now, &from(0), 1).is_err(), "the worst stays");
        let again = attempts.charge(now, new.clone(), 1).instead_of;
        assert_eq!(again, Some((now + ATTEMPT_INTERVAL, new)));
        assert_eq!(
            (attempts.len(), attempts.order.len()),
            (MAX_ATTEMPTS, MAX_ATTEMPTS)
        );
    }

    #[test]
    fn a_wider_network_guesses_at_a_bounded_rate_too() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let room: Arc<str> = "room".into();
        let mut guesses = 0;
        // Each guess comes from another /64 of one /56.
        for n in 0..256 {
            let client = IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]);
            let mut known = guessers(client, &room);
            if known.all(|(guesser, times)| attempts.check(now, &guesser, times).is_ok()) {
                guesses += 1;
                for (guesser, times) in guessers(client, &room) {
                    attempts.charge(now, guesser, times);
                }
            }
        }
        assert_eq!(guesses, 80);
    }
}
