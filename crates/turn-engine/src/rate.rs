//! Rates: one number per limited thing, no timer (the generic cell rate algorithm).

use std::time::{Duration, Instant};

/// How far ahead of its rate a sender may get: a key frame's worth, and no more than the queues
/// behind would take anyway.
const BURST: Duration = Duration::from_secs(1);

/// How long it takes to pay for `amount` at `rate` a second; a rate of 0 counts as 1.
pub fn cost(amount: u64, rate: u64) -> Duration {
    Duration::from_nanos(nanos(amount, rate))
}

fn nanos(amount: u64, rate: u64) -> u64 {
    let rate = rate.max(1);
    match amount.checked_mul(1_000_000_000) {
        // Whatever is charged for: dividing twice as many bits takes several times as long.
        Some(whole) => whole / rate,
        None => {
            let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate);
            u64::try_from(nanos).unwrap_or(u64::MAX)
        }
    }
}

/// When everything is paid for, once something of `cost` is added to what was to be paid by
/// `paid_until`.
pub fn pay(paid_until: Option<Instant>, now: Instant, cost: Duration) -> Instant {
    paid_until.map_or(now, |paid| paid.max(now)) + cost
}

/// The moment, in nanoseconds of some clock, at which everything admitted so far is paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// The bucket after `amount` more at `rate` per second, or `None` if it is over its burst.
    /// One admission may overshoot, so that the size of a datagram never makes it inadmissible.
    pub(crate) fn admit(self, amount: u64, rate: u64, now: u64) -> Option<Self> {
        let paid_at = self.0.max(now);
        if paid_at - now >= BURST.as_nanos() as u64 {
            return None;
        }
        Some(Self(paid_at.saturating_add(nanos(amount, rate))))
    }
}

impl From<u64> for Bucket {
    fn from(paid_at: u64) -> Self {
        Self(paid_at)
    }
}

impl From<Bucket> for u64 {
    fn from(bucket: Bucket) -> Self {
        bucket.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_burst(
            rate in 1u64..10_000_000,
            sends in proptest::collection::vec((0u64..200_000_000, 0u64..1500), 1..300),
        ) {
            let (mut bucket, mut now, mut admitted, mut largest) = (Bucket::default(), 0, 0, 0);
            for (pause, size) in sends {
                now += pause;
                if let Some(next) = bucket.admit(size, rate, now) {
                    bucket = next;
                    admitted += size;
                    largest = size.max(largest);
                }
            }
            let seconds = now as f64 / SECOND as f64 + BURST.as_secs_f64();
            prop_assert!(admitted as f64 <= rate as f64 * seconds + largest as f64 + 1.0);
        }
    }

    #[test]
    fn a_sender_within_its_rate_loses_nothing() {
        let mut bucket = Bucket::default();
        for i in 0..10_000 {
            bucket = bucket.admit(1000, 100_000, i * SECOND / 100).unwrap();
        }
    }

    #[test]
    fn what_was_refused_costs_nothing_and_time_heals() {
        let full = Bucket::default().admit(5_000, 1_000, 0).unwrap();
        assert_eq!(full.admit(1, 1_000, 3 * SECOND), None);
        assert!(full.admit(1, 1_000, 5 * SECOND).is_some());
    }
}
