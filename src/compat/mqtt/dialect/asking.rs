//! What the client publishes and subscribes.

use super::super::super::y_webrtc::{exchange, message};
use super::super::packet::{Publish, Reason, Subscribe, Version};
use super::super::writer::Ack;
use super::delivery::publication;
use super::{ICE_TOPIC, MAX_IN_FLIGHT, Mqtt};
use crate::protocol::{
    ClientMessage, ExchangeRequest, MessageType, Publication, SubscriptionOptions, Wish,
};
use crate::signal::Output;
use std::sync::Arc;

impl Mqtt {
    pub(super) fn publish(
        &mut self,
        publish: &Publish<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), Reason> {
        if publish.aliased {
            return Err(Reason::TopicAlias);
        }
        if publish.retain && self.version == Version::V5 {
            return Err(Reason::RetainUnavailable);
        }
        let is_again = publish.qos == 2 && self.unreleased.contains(&publish.id);
        if publish.qos == 2 && !is_again && self.unreleased.len() >= MAX_IN_FLIGHT.into() {
            return Err(Reason::ReceiveMaximum);
        }
        if is_again || !self.enters_to_publish(publish, out) {
            self.publish_now(publish, out);
        }
        Ok(())
    }

    /// Publishes, where the client is in the room that the topic is.
    pub(super) fn publish_now(&mut self, publish: &Publish<'_>, out: &mut Output<'_>) {
        if publish.qos == 2 && !self.unreleased.insert(publish.id) {
            self.acknowledge(Ack::PubRec, publish.id, Reason::Success, out);
            return out.request(exchange(ExchangeRequest::Idle));
        }
        if publish.topic.starts_with('$') {
            // What the server says there, no client says to another.
            if publish.qos > 0 {
                self.published(publish.id, Reason::NotAuthorized, out);
            }
            return out.request(exchange(ExchangeRequest::Idle));
        }
        let Some(room) = self.rooms.room_of(publish.topic) else {
            return out.request(exchange(ExchangeRequest::Publish {
                id: publish.id,
                publication: publication(publish, None, publish.payload),
            }));
        };
        match self.for_room(publish.topic, publish.payload) {
            Some((said, payload)) => {
                let kind = said.as_ref().map_or(MessageType::Message, |said| said.kind);
                if let Some(said) = said {
                    out.request(Ok(said));
                }
                out.request(Ok(ClientMessage {
                    kind,
                    ..message(ExchangeRequest::Publish {
                        id: publish.id,
                        publication: publication(publish, Some(&room), &payload),
                    })
                }));
            }
            None => {
                if publish.qos > 0 {
                    self.published(publish.id, Reason::NotAuthorized, out);
                }
                out.request(exchange(ExchangeRequest::Idle));
            }
        }
    }

    /// A will, if it may go where it wants.
    pub(super) fn will(&self, will: &Publish<'_>) -> Option<Arc<Publication>> {
        let room = self.rooms.room_of(will.topic);
        let payload = match room {
            Some(_) => self.rooms.unstamped(will.payload)?,
            None => will.payload.into(),
        };
        Some(publication(will, room.as_deref(), &payload))
    }

    /// Acknowledges a publication with what became of it.
    pub(super) fn published(&mut self, id: u16, reason: Reason, out: &mut Output<'_>) {
        let ack = match self.unreleased.contains(&id) {
            true => Ack::PubRec,
            false => Ack::PubAck,
        };
        if ack == Ack::PubRec && reason as u8 >= 0x80 && self.version == Version::V5 {
            // A refused message of QoS 2 ends there (MQTT 5.0, 4.3.3).
            self.unreleased.remove(&id);
        }
        self.acknowledge(ack, id, reason, out);
    }

    pub(super) fn subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), Reason> {
        let mut topics = vec![];
        let mut codes = vec![];
        for filter in &subscribe.filters {
            let name = filter.filter;
            codes.push(if subscribe.identified {
                Some(Err(Reason::IdentifiersUnavailable))
            } else if name == ICE_TOPIC {
                self.wants_ice = true;
                out.request(exchange(ExchangeRequest::Ice));
                Some(Ok(0))
            } else if name.starts_with("$share/") {
                Some(Err(Reason::SharedUnavailable))
            } else if name.starts_with('$') {
                Some(Err(Reason::NotAuthorized))
            } else if name.contains(['+', '#']) {
                Some(Err(Reason::WildcardsUnavailable))
            } else {
                topics.push(Wish {
                    room: self.rooms.room_of(name),
                    is_refused: false,
                    topic: name.into(),
                    options: SubscriptionOptions {
                        qos: filter.qos.min(1),
                        no_local: filter.no_local,
                    },
                });
                None
            });
        }
        let id = subscribe.id;
        if topics.is_empty() {
            out.request(exchange(ExchangeRequest::Idle));
            self.subscribed(id, codes, vec![], out);
            return Ok(());
        }
        if self.subscribing.len() >= MAX_IN_FLIGHT.into() {
            return Err(Reason::QuotaExceeded);
        }
        self.subscribing.insert(id, codes);
        self.ask_topics(id, topics, out);
        Ok(())
    }
}
