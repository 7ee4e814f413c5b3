//! Rates: token buckets as one instant each (the generic cell rate algorithm).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
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
/// Networks and rooms watched at once, about 100 bytes each. When it is full, passwords from
/// further networks wait: a flood of guesses from everywhere must not open a room.
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
        if rate == 0 {
            return Verdict::Pass;
        }
        let interval = Duration::from_secs(1) / rate;
        let paid_until = self.paid_until.map_or(now, |paid| paid.max(now)) + interval;
        self.paid_until = Some(paid_until);
        match paid_until - now {
            ahead if ahead <= BURST => Verdict::Pass,
            ahead if ahead <= ABUSE => Verdict::Wait(ahead + interval - BURST),
            _ => Verdict::Abuse,
        }
    }
}

/// Who guesses at which room.
pub(super) type Guesser = (IpAddr, Arc<str>);

/// Wrong passwords of late.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<Guesser, Instant>);

impl Attempts {
    /// Tells whether `guesser` may try a password.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(super) fn check(&self, now: Instant, guesser: &Guesser) -> Result<(), Duration> {
        match self.0.get(guesser) {
            Some(paid_until) => {
                let ahead = paid_until.saturating_duration_since(now) + ATTEMPT_INTERVAL;
                if ahead > ATTEMPT_BURST {
                    Err(ahead - ATTEMPT_BURST)
                } else {
                    Ok(())
                }
            }
            None if self.0.len() >= MAX_ATTEMPTS => Err(ATTEMPT_INTERVAL),
            None => Ok(()),
        }
    }

    /// Charges a wrong password; returns when to [`Self::expire`] instead of the instant before.
    pub(super) fn charge(&mut self, now: Instant, guesser: Guesser) -> (Option<Instant>, Instant) {
        let before = self.0.get(&guesser).copied();
        let paid_until = before.map_or(now, |paid| paid.max(now)) + ATTEMPT_INTERVAL;
        self.0.insert(guesser, paid_until);
        (before, paid_until)
    }

    pub(super) fn expire(&mut self, guesser: &Guesser) {
        self.0.remove(guesser);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The network that limits count by: one IPv4 address, or one IPv6 /64 (what one subscriber gets).
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
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
    fn the_table_of_guessers_is_bounded_and_fails_closed() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        for n in 0..MAX_ATTEMPTS as u32 {
            attempts.charge(now, (IpAddr::from(n.to_be_bytes()), "room".into()));
        }
        let new: Guesser = (IpAddr::from([192, 0, 2, 1]), "room".into());
        assert!(attempts.check(now, &new).is_err());
        attempts.expire(&(IpAddr::from([0, 0, 0, 0]), "room".into()));
        assert_eq!(attempts.check(now, &new), Ok(()));
    }

    #[test]
    fn networks_are_single_ipv4_addresses_and_ipv6_64s() {
        let net = |s: &str| network(s.parse().unwrap()).to_string();
        assert_eq!(net("192.0.2.7"), "192.0.2.7");
        assert_eq!(net("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
