//! Messages for names that nobody has yet: kept in order for a few seconds.
//!
//! A queue is dropped whole when its time is over; every sender in it is told then. Where a limit
//! is reached, a message is not kept and its sender is told at once.

use super::interface::ConnId;
use super::registry::Name;
use crate::network::NetworkCounts;
use crate::protocol::{Addressed, Denied};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a queue is kept from its first message on.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Messages in one queue.
const QUEUE_MESSAGES: usize = 256;
/// Bytes in one queue.
const QUEUE_BYTES: usize = 64 << 10;
/// Absent names that one sender may wait for.
const SENDER_NAMES: usize = 256;
/// Bytes of one network's messages ([`NetworkCounts`]).
const NETWORK_BYTES: u64 = 1 << 20;
/// Bytes in all queues.
const TOTAL_BYTES: usize = 8 << 20;
/// Bytes that a message and its share of a queue take up beside its payload and names.
const OVERHEAD: usize = 256;

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Parked {
    queues: HashMap<Name, Queue>,
    /// In how many queues a sender has messages.
    senders: HashMap<ConnId, usize>,
    networks: NetworkCounts,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) until: Instant,
    bytes: usize,
    pub(super) messages: Vec<Message>,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sender: ConnId,
    pub(super) network: IpAddr,
    /// The sender's name.
    pub(super) from: Arc<str>,
    pub(super) message: Arc<Addressed>,
}

impl Message {
    fn cost(&self) -> usize {
        self.message.cost() + self.from.len() + OVERHEAD
    }
}

impl Parked {
    /// Keeps a message; returns when to [`Self::take`] the queue if it is a new one.
    pub(super) fn park(
        &mut self,
        now: Instant,
        name: &Name,
        (sender, network): (ConnId, IpAddr),
        from: Arc<str>,
        message: Arc<Addressed>,
    ) -> Result<Option<Instant>, Denied> {
        let message = Message {
            sender,
            network,
            from,
            message,
        };
        let cost = message.cost() + name.1.len();
        let queue = self.queues.get(name);
        let (queued, bytes) = queue.map_or((0, 0), |queue| (queue.messages.len(), queue.bytes));
        let is_known = queue.is_some_and(|queue| {
            let mut senders = queue.messages.iter().map(|message| message.sender);
            senders.any(|known| known == sender)
        });
        let names = self.senders.get(&sender).copied().unwrap_or(0);
        if !is_known && names >= SENDER_NAMES
            || queued >= QUEUE_MESSAGES
            // One message of the largest size has to fit.
            || queued > 0 && bytes + cost > QUEUE_BYTES
            || self.bytes + cost > TOTAL_BYTES
            || !self.networks.take_many(network, cost as u64, NETWORK_BYTES, TOTAL_BYTES as u64 / 2)
        {
            return Err(Denied::Full);
        }
        self.bytes += cost;
        if !is_known {
            self.senders.insert(sender, names + 1);
        }
        let is_new = !self.queues.contains_key(name);
        let queue = self.queues.entry(name.clone()).or_insert_with(|| Queue {
            until: now + TIMEOUT,
            bytes: 0,
            messages: vec![],
        });
        queue.bytes += cost;
        queue.messages.push(message);
        Ok(is_new.then_some(queue.until))
    }

    /// Takes a queue out, with the time at which it would have ended.
    pub(super) fn take(&mut self, name: &Name) -> Option<(Instant, Vec<Message>)> {
        let queue = self.queues.remove(name)?;
        let senders: BTreeSet<_> = queue.messages.iter().map(|m| m.sender).collect();
        for sender in senders {
            if let Some(names) = self.senders.get_mut(&sender) {
                *names -= 1;
                if *names == 0 {
                    self.senders.remove(&sender);
                }
            }
        }
        for message in &queue.messages {
            let cost = message.cost() + name.1.len();
            self.bytes -= cost;
            self.networks.give_back_many(message.network, cost as u64);
        }
        Some((queue.until, queue.messages))
    }

    /// Every queue.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&Name, &Queue)> {
        self.queues.iter()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DialectKind;

    fn name(text: &str) -> Name {
        (DialectKind::PeerJs, text.into())
    }

    fn message(bytes: usize) -> Arc<Addressed> {
        Arc::new(Addressed {
            kind: "OFFER".into(),
            payload: Some("x".repeat(bytes).into()),
        })
    }

    #[test]
    fn one_sender_waits_for_a_few_hundred_names() {
        let now = Instant::now();
        let mut parked = Parked::default();
        let park = |parked: &mut Parked, to: &str, sender| {
            let sender = (ConnId(sender), IpAddr::from([192, 0, 2, 1]));
            parked.park(now, &name(to), sender, "ann".into(), message(1))
        };
        for n in 0..SENDER_NAMES {
            assert!(park(&mut parked, &format!("n{n}"), 1).is_ok());
        }
        assert_eq!(park(&mut parked, "more", 1), Err(Denied::Full));
        assert_eq!(
            park(&mut parked, "n0", 1),
            Ok(None),
            "it waits for that one"
        );
        assert!(park(&mut parked, "more", 2).is_ok(), "of the same network");
        parked.take(&name("n0"));
        assert!(park(&mut parked, "more", 1).is_ok());
        for n in 1..SENDER_NAMES {
            parked.take(&name(&format!("n{n}")));
        }
        parked.take(&name("more"));
        assert!(parked.senders.is_empty() && parked.bytes() == 0);
    }

    #[test]
    fn queues_are_kept_in_order_and_bounded() {
        let now = Instant::now();
        let mut parked = Parked::default();
        let park = |parked: &mut Parked, to: &str, bytes, network: u8| {
            let sender = (ConnId(1), IpAddr::from([192, 0, 2, network]));
            parked.park(now, &name(to), sender, "ann".into(), message(bytes))
        };
        assert_eq!(park(&mut parked, "bob", 60_000, 1), Ok(Some(now + TIMEOUT)));
        assert_eq!(park(&mut parked, "bob", 10, 1), Ok(None));
        assert_eq!(park(&mut parked, "bob", 10_000, 1), Err(Denied::Full));
        let (_, messages) = parked.take(&name("bob")).unwrap();
        let sizes: Vec<_> = messages.iter().map(|m| m.message.cost()).collect();
        assert_eq!(sizes, [60_000, 10]);
        assert!(parked.bytes() == 0 && parked.networks.is_empty());
        // Many small ones fill a queue, many queues fill a network's share, and all together.
        for _ in 0..100 {
            park(&mut parked, "bob", 1, 1).unwrap();
        }
        while park(&mut parked, "bob", 1, 1).is_ok() {}
        let (_, messages) = parked.take(&name("bob")).unwrap();
        assert!((100..=QUEUE_MESSAGES).contains(&messages.len()));
        let mut filled = 0;
        while park(&mut parked, &format!("n{filled}"), 60_000, 1).is_ok() {
            filled += 1;
        }
        assert_eq!(filled, NETWORK_BYTES as usize / 60_400);
        assert!(park(&mut parked, "other", 60_000, 2).is_ok());
        for network in 3..=100 {
            let mut n = 0;
            while park(&mut parked, &format!("n{network}-{n}"), 60_000, network).is_ok() {
                n += 1;
            }
        }
        assert!(parked.bytes() <= TOTAL_BYTES);
        assert_eq!(park(&mut parked, "late", 60_000, 200), Err(Denied::Full));
    }
}
