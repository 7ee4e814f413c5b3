//! How many replies a source gets before it has proved anything: a table of fixed size, whatever
//! the number of sources.

use crate::network::network_of;
use crate::relay::rate::Bucket;
use foldhash::quality::FixedState;
use std::hash::BuildHasher;
use std::net::IpAddr;

/// Replies per second and source. A source may be a NAT with hundreds of browsers behind it, each
/// asking half a dozen times when a meeting starts; whom somebody names as a source in order to
/// flood him gets less than 150 kB/s.
const RATE: u64 = 1_000;

/// Buckets in each of two rows: 64 KiB a worker. A source is held back only if another one uses
/// up its bucket in both rows.
const BUCKETS: usize = 4_096;
const ROWS: usize = 2;

#[derive(Debug)]
pub(super) struct Throttle {
    buckets: Box<[[Bucket; BUCKETS]; ROWS]>,
    hashers: [FixedState; ROWS],
}

impl Throttle {
    pub(super) fn new(seeds: [u64; ROWS]) -> Self {
        Self {
            buckets: Box::new([[Bucket::default(); BUCKETS]; ROWS]),
            hashers: seeds.map(FixedState::with_seed),
        }
    }

    /// Takes one reply to `source` at `now` nanoseconds, if there is one left.
    pub(super) fn admit(&mut self, source: IpAddr, now: u64) -> bool {
        let block = network_of(source);
        let mut admitted = false;
        for (row, hasher) in self.buckets.iter_mut().zip(&self.hashers) {
            let bucket = &mut row[hasher.hash_one(block) as usize % BUCKETS];
            if let Some(next) = bucket.admit(1, RATE, now) {
                *bucket = next;
                admitted = true;
            }
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SECOND: u64 = 1_000_000_000;

    fn admitted(throttle: &mut Throttle, source: IpAddr, now: u64) -> usize {
        (0..10_000).filter(|_| throttle.admit(source, now)).count()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut throttle = Throttle::new([1, 2]);
        let source = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(admitted(&mut throttle, source, 0), 1_000);
        assert_eq!(admitted(&mut throttle, source, SECOND / 10), 100);
        assert_eq!(admitted(&mut throttle, source, 9 * SECOND), 1_000);
    }

    #[test]
    fn one_loud_source_silences_nobody_else() {
        let mut throttle = Throttle::new([1, 2]);
        admitted(&mut throttle, Ipv4Addr::new(192, 0, 2, 1).into(), 0);
        for i in 0..=255 {
            assert!(throttle.admit(Ipv4Addr::new(198, 51, 100, i).into(), 0));
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_one_source() {
        let mut throttle = Throttle::new([1, 2]);
        let at = |host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        let admitted = (0..5_000)
            .filter(|&host| throttle.admit(at(host), 0))
            .count();
        assert_eq!(admitted, 1_000);
        assert!(throttle.admit(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1).into(), 0));
    }
}
