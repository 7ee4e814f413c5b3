//! Rates: token buckets as one instant each (the generic cell rate algorithm).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far ahead of its rate a client may get: at any rate that makes bursts of ten times the rate.
const BURST: Duration = Duration::from_secs(10);
/// How far ahead makes it abuse: as much again, sent in spite of `rate-limited`.
const ABUSE: Duration = Duration::from_secs(20);
/// One wrong password in this time for one network and room: 14,400 guesses a day.
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
    paid_until: Option<Instant>,
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
        let interval = Duration::from_secs(1) / rate * count;
        let paid_until = self.paid_until.map_or(now, |paid| paid.max(now)) + interval;
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
    paid_until: Option<Instant>,
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
        let time = |bytes: u64| {
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
            Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
        };
        let paid_until = self.paid_until.map_or(now, |paid| paid.max(now)) + time(bytes as u64);
        self.paid_until = Some(paid_until);
        let wait = (paid_until - now).checked_sub(time(burst))?;
        (!wait.is_zero()).then(|| now + wait)
    }
}

/// Who guesses at which room.
pub(super) type Guesser = (IpAddr, Arc<str>);

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
    /// Tells whether `guesser` may try a password.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(super) fn check(&self, now: Instant, guesser: &Guesser) -> Result<(), Duration> {
        let Some(paid_until) = self.paid_until.get(guesser) else {
            return Ok(());
        };
        let ahead = paid_until.saturating_duration_since(now) + ATTEMPT_INTERVAL;
        match ahead.checked_sub(ATTEMPT_BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Charges a wrong password.
    pub(super) fn charge(&mut self, now: Instant, guesser: Guesser) -> Charge {
        let before = self.paid_until.get(&guesser).copied();
        let instead_of = match before {
            Some(before) => Some((before, guesser.clone())),
            None if self.len() >= MAX_ATTEMPTS => self.order.first().cloned(),
            None => None,
        };
        if let Some((_, replaced)) = &instead_of {
            self.expire(replaced);
        }
        let until = before.map_or(now, |paid| paid.max(now)) + ATTEMPT_INTERVAL;
        self.order.insert((until, guesser.clone()));
        self.paid_until.insert(guesser, until);
        Charge { until, instead_of }
    }

    pub(super) fn expire(&mut self, guesser: &Guesser) {
        if let Some((guesser, until)) = self.paid_until.remove_entry(guesser) {
            self.order.remove(&(until, guesser));
        }
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
    fn ten_wrong_passwords_then_one_in_six_seconds() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let guesser: Guesser = (IpAddr::from([192, 0, 2, 1]), "room".into());
        for _ in 0..10 {
            assert_eq!(attempts.check(now, &guesser), Ok(()));
            attempts.charge(now, guesser.clone());
        }
        assert_eq!(attempts.check(now, &guesser), Err(ATTEMPT_INTERVAL));
        assert_eq!(attempts.check(now + ATTEMPT_INTERVAL, &guesser), Ok(()));
        assert_eq!(attempts.check(now, &(guesser.0, "other".into())), Ok(()));
    }

    #[test]
    fn a_full_table_of_guessers_forgets_the_mildest_and_keeps_nobody_out() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let from = |n: u32| -> Guesser { (IpAddr::from(n.to_be_bytes()), "room".into()) };
        for _ in 0..10 {
            attempts.charge(now, from(0));
        }
        for n in 1..MAX_ATTEMPTS as u32 {
            assert_eq!(attempts.charge(now, from(n)).instead_of, None);
        }
        let new = from(MAX_ATTEMPTS as u32);
        assert_eq!(attempts.check(now, &new), Ok(()));
        let forgotten = attempts.charge(now, new.clone()).instead_of;
        assert_eq!(forgotten, Some((now + ATTEMPT_INTERVAL, from(1))));
        assert!(attempts.check(now, &from(0)).is_err(), "the worst stays");
        let again = attempts.charge(now, new.clone()).instead_of;
        assert_eq!(again, Some((now + ATTEMPT_INTERVAL, new)));
        assert_eq!(
            (attempts.len(), attempts.order.len()),
            (MAX_ATTEMPTS, MAX_ATTEMPTS)
        );
    }
}
