//! What goes to the client: publications and acknowledgements.

use super::super::packet::{Publish, Reason};
use super::super::writer::{self, Ack};
use super::Mqtt;
use crate::protocol::{CloseCode, Denied, Publication};
use crate::signal::Output;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Messages that wait for acknowledgements of others, and their bytes. With the will that is 32 KiB a
/// connection, and 32 MiB for the 1,000 connections of a network.
const MAX_WAITING: (usize, usize) = (1_000, 28 << 10);

/// Messages of QoS 1 to the client.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outbound {
    last_id: u16,
    in_flight: BTreeSet<u16>,
    waiting: VecDeque<Arc<Publication>>,
    bytes: usize,
}

impl Mqtt {
    /// The client has a message; others may wait for that.
    pub(super) fn acknowledged(&mut self, id: u16, out: &mut Output<'_>) {
        self.out.in_flight.remove(&id);
        while self.out.in_flight.len() < self.limits.in_flight
            && let Some(next) = self.out.waiting.pop_front()
        {
            self.out.bytes -= next.cost();
            self.send(&next, 1, out);
        }
    }

    pub(super) fn deliver(
        &mut self,
        publication: &Arc<Publication>,
        qos: u8,
        out: &mut Output<'_>,
    ) {
        if qos == 0 {
            return self.send(publication, 0, out);
        }
        if self.out.in_flight.len() < self.limits.in_flight && self.out.waiting.is_empty() {
            return self.send(publication, 1, out);
        }
        self.out.bytes += publication.cost();
        self.out.waiting.push_back(Arc::clone(publication));
        let (messages, bytes) = MAX_WAITING;
        if self.out.waiting.len() > messages || self.out.bytes > bytes {
            self.fail(Reason::QuotaExceeded, CloseCode::SlowConsumer, out);
        }
    }

    pub(super) fn send(&mut self, publication: &Publication, qos: u8, out: &mut Output<'_>) {
        let id = match qos {
            0 => 0,
            _ => self.out.next_id(),
        };
        let publish = Publish {
            duplicate: false,
            qos,
            retain: false,
            topic: &publication.topic,
            id,
            aliased: false,
            properties: &publication.properties,
            payload: &publication.payload,
        };
        if writer::publish_length(&publish) > self.limits.packet {
            // MQTT 5.0, 3.1.2.11.4: as if it had been sent.
            self.out.in_flight.remove(&id);
            return;
        }
        let mut bytes = vec![];
        writer::publish(&mut bytes, self.version, &publish);
        out.binary(&bytes);
    }

    pub(super) fn acknowledge(&self, ack: Ack, id: u16, reason: Reason, out: &mut Output<'_>) {
        let mut bytes = vec![];
        writer::acknowledge(&mut bytes, self.version, ack, id, reason);
        out.binary(&bytes);
    }

    /// Answers a SUBSCRIBE: `granted` fills the codes that are open.
    pub(super) fn subscribed(
        &self,
        id: u16,
        codes: Vec<Option<Result<u8, Reason>>>,
        granted: Vec<Result<u8, Reason>>,
        out: &mut Output<'_>,
    ) {
        let mut granted = granted.into_iter();
        let mut next = || granted.next().unwrap_or(Err(Reason::QuotaExceeded));
        let codes: Vec<_> = codes
            .into_iter()
            .map(|c| c.unwrap_or_else(&mut next))
            .collect();
        let mut bytes = vec![];
        writer::subscribed(&mut bytes, self.version, id, &codes);
        out.binary(&bytes);
    }
}

impl Outbound {
    /// Whether another process may have written it: few are in flight, and the bytes are those that
    /// wait.
    pub(super) fn is_sound(&self, most_in_flight: usize) -> bool {
        let bytes: usize = self.waiting.iter().map(|waiting| waiting.cost()).sum();
        self.in_flight.len() <= most_in_flight && self.bytes == bytes
    }

    /// An id that is not in flight; fewer are in flight than there are.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(self.last_id) {
                return self.last_id;
            }
        }
    }
}

pub(super) fn publication(
    publish: &Publish<'_>,
    room: Option<&str>,
    payload: &[u8],
) -> Arc<Publication> {
    Arc::new(Publication {
        topic: publish.topic.into(),
        properties: publish.properties.into(),
        payload: payload.into(),
        qos: publish.qos.min(1),
        room: room.map(Arc::from),
    })
}

pub(super) fn reason(denied: Denied) -> Reason {
    match denied {
        Denied::Forbidden => Reason::NotAuthorized,
        Denied::Full | Denied::TooFast => Reason::QuotaExceeded,
    }
}
