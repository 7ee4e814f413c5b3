//! A link with delay, loss and a rate: packets in, packets out when they are due. Pure.

use crate::packet::Packet;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A queue longer than this drops what comes, as a router's does.
const LONGEST_QUEUE: Duration = Duration::from_millis(500);
/// And so does one with more packets than this.
const MAX_QUEUED: usize = 20_000;

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Impairment {
    /// How long each is on the way.
    pub delay: Duration,
    /// How many of a hundred are lost.
    pub loss: f64,
    /// Bits a second; `None`: no limit.
    pub rate: Option<u64>,
}

/// One direction of a link.
pub struct Link {
    impairment: Impairment,
    random: SmallRng,
    /// When the last packet has left the sender.
    free_at: Option<Instant>,
    queue: VecDeque<(Instant, Packet)>,
    /// Packets that were lost or found the queue full.
    pub lost: u64,
}

impl Link {
    /// A link that loses packets by `seed`.
    #[must_use]
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            random: SmallRng::seed_from_u64(seed),
            free_at: None,
            queue: VecDeque::new(),
            lost: 0,
        }
    }

    /// Takes a packet at `now`.
    pub fn push(&mut self, now: Instant, packet: Packet) {
        let Impairment { delay, loss, rate } = self.impairment;
        if loss > 0.0 && self.random.random::<f64>() * 100.0 < loss {
            self.lost += 1;
            return;
        }
        let mut sent = now;
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            let begins = self.free_at.map_or(now, |free| free.max(now));
            if begins.duration_since(now) > LONGEST_QUEUE {
                self.lost += 1;
                return;
            }
            let bits = packet.length() as u64 * 8;
            sent = begins + Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate);
            self.free_at = Some(sent);
        }
        if self.queue.len() >= MAX_QUEUED {
            self.lost += 1;
            return;
        }
        self.queue.push_back((sent + delay, packet));
    }

    /// The next packet that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Packet> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front().map(|(_, packet)| packet)
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn packet(size: usize) -> Packet {
        let address: SocketAddr = "10.0.0.1:1".parse().unwrap();
        Packet::udp(address, address, &vec![0; size - 28])
    }

    #[test]
    fn a_packet_is_out_after_the_delay_and_not_before() {
        let delay = Duration::from_millis(80);
        let impairment = Impairment {
            delay,
            ..Impairment::default()
        };
        let now = Instant::now();
        let mut link = Link::new(impairment, 1);
        link.push(now, packet(100));
        assert_eq!(link.next_timeout(), Some(now + delay));
        assert_eq!(link.pop(now + delay / 2), None);
        assert!(link.pop(now + delay).is_some());
    }

    #[test]
    fn a_rate_spreads_packets_and_a_full_queue_drops() {
        let impairment = Impairment {
            rate: Some(1_000_000),
            ..Impairment::default()
        };
        let now = Instant::now();
        let mut link = Link::new(impairment, 1);
        // 10 ms each.
        for _ in 0..100 {
            link.push(now, packet(1_250));
        }
        assert_eq!(link.next_timeout(), Some(now + Duration::from_millis(10)));
        assert_eq!(link.lost, 49, "half a second waits, the rest is dropped");
        let mut through = 0;
        while link.pop(now + Duration::from_millis(100)).is_some() {
            through += 1;
        }
        assert_eq!(through, 10);
    }

    #[test]
    fn loss_is_about_what_was_asked_for() {
        let impairment = Impairment {
            loss: 20.0,
            ..Impairment::default()
        };
        let now = Instant::now();
        let mut link = Link::new(impairment, 7);
        for _ in 0..10_000 {
            link.push(now, packet(100));
        }
        assert!((1_800..2_200).contains(&link.lost), "{}", link.lost);
    }
}
