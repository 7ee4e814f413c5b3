//! Messages for names that nobody has yet: kept in order for a few seconds.
//!
//! A queue is dropped whole when its time is over; every sender in it is told then. Where a limit
//! is reached, a message is not kept and its sender is told at once.

use super::interface::ConnId;
use super::registry::Name;
use crate::protocol::{Addressed, Denied};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a queue is kept from its first message on.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Messages in one queue.
const QUEUE_MESSAGES: usize = 256;
/// Bytes in one queue.
const QUEUE_BYTES: usize = 64 << 10;
/// Bytes of one network's messages.
const NETWORK_BYTES: usize = 1 << 20;
/// Bytes in all queues.
const TOTAL_BYTES: usize = 8 << 20;
/// Bytes that a message and its share of a queue take up beside its payload and names.
const OVERHEAD: usize = 256;

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Parked {
    queues: HashMap<Name, Queue>,
    networks: HashMap<IpAddr, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Queue {
    until: Instant,
    bytes: usize,
    messages: Vec<Message>,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sender: ConnId,
    network: IpAddr,
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
        let (queued, bytes) = self
            .queues
            .get(name)
            .map_or((0, 0), |queue| (queue.messages.len(), queue.bytes));
        let of_network = self.networks.get(&network).copied().unwrap_or(0);
        if queued >= QUEUE_MESSAGES
            // One message of the largest size has to fit.
            || queued > 0 && bytes + cost > QUEUE_BYTES
            || of_network + cost > NETWORK_BYTES
            || self.bytes + cost > TOTAL_BYTES
        {
            return Err(Denied::Full);
        }
        *self.networks.entry(network).or_insert(0) += cost;
        self.bytes += cost;
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
        for message in &queue.messages {
            let cost = message.cost() + name.1.len();
            self.bytes -= cost;
            if let Entry::Occupied(mut bytes) = self.networks.entry(message.network) {
                *bytes.get_mut() -= cost;
                if *bytes.get() == 0 {
                    bytes.remove();
                }
            }
        }
        Some((queue.until, queue.messages))
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
            kind: "OFFER",
            payload: Some("x".repeat(bytes).into()),
        })
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
        assert_eq!((parked.bytes(), parked.networks.len()), (0, 0));
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
        assert_eq!(filled, NETWORK_BYTES / 60_400);
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
