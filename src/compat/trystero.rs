//! The `ws-relay` strategy of trystero: topics in JSON text frames, one a frame.
//!
//! The protocol has no answer and no error: what is wrong is dropped. Payloads are encrypted, so
//! that a box which is to relay only refuses this dialect in its configuration.

use super::object::Object;
use super::y_webrtc::{exchange, is_topic, open, wish};
use crate::protocol::{ExchangeRequest, Publication};
use crate::signal::hub::Event;
use crate::signal::{Dialect, Incoming, Outgoing, Output};
use std::sync::Arc;
use std::time::Instant;

/// One connection of trystero.
#[derive(Debug, Clone, Copy)]
pub struct Trystero;

impl Dialect for Trystero {
    fn is_timeless(&self) -> bool {
        true
    }

    fn opened(&mut self, _: Instant, out: &mut Output<'_>) {
        out.request(open());
    }

    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        out.request(match message {
            Incoming::Text(text) => exchange(read(text)),
            Incoming::Binary(_) => exchange(ExchangeRequest::Idle),
        });
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        if let Event::Published { publication, .. } = &outgoing.event
            && let Ok(text) = std::str::from_utf8(&publication.payload)
        {
            out.text(text);
        }
    }

    fn memory(&self, _: Instant) -> Option<String> {
        Some(String::new())
    }
}

/// What a frame asks for; the limits hold for one that is not of the protocol, too.
fn read(text: &str) -> ExchangeRequest {
    let Ok(object) = Object::parse(text) else {
        return ExchangeRequest::Idle;
    };
    let kind = object.string("type").unwrap_or_default();
    let topic = object.string("topic").filter(|topic| is_topic(topic));
    let Some(topic) = topic else {
        return ExchangeRequest::Idle;
    };
    match &*kind {
        "subscribe" => ExchangeRequest::Subscribe {
            id: 0,
            topics: vec![wish(topic.into_owned())],
        },
        "unsubscribe" => ExchangeRequest::Unsubscribe {
            id: 0,
            topics: vec![topic.into()],
        },
        "publish" => {
            // Subscribers get these two fields and no others, so that no field of a client can be
            // taken for one of the server.
            let raw = object.get("topic").map_or("", |raw| raw.get());
            let payload = match object.get("payload") {
                Some(payload) => format!(r#"{{"topic":{raw},"payload":{payload}}}"#),
                None => format!(r#"{{"topic":{raw}}}"#),
            };
            ExchangeRequest::Publish {
                id: 0,
                publication: Arc::new(Publication {
                    topic: topic.into(),
                    properties: [].into(),
                    payload: payload.into_bytes().into(),
                    qos: 0,
                    room: None,
                }),
            }
        }
        _ => ExchangeRequest::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests as harness;
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str) -> ExchangeRequest {
        let mut done = harness::text(&mut Trystero, text);
        assert!(done.texts.is_empty() && done.closing.is_none());
        done.requests.pop().unwrap().unwrap()
    }

    #[test]
    fn one_topic_a_frame() {
        let text = r#"{"type":"subscribe","topic":"h"}"#;
        let ExchangeRequest::Subscribe { topics, .. } = asked(text) else {
            panic!()
        };
        assert_eq!(*topics[0].topic, *"h");
        let text = r#"{"type":"unsubscribe","topic":"h"}"#;
        assert!(matches!(asked(text), ExchangeRequest::Unsubscribe { .. }));
        for text in [
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","topic":["h"]}"#,
            r#"{"type":"subscribe","topic":""}"#,
            r#"{"type":"else","topic":"h"}"#,
            r#"{"topic":"h"}"#,
            "",
            "[]",
            "{",
        ] {
            assert!(matches!(asked(text), ExchangeRequest::Idle), "{text}");
        }
        let done = harness::binary(&mut Trystero, b"x");
        assert!(matches!(done.requests[0], Ok(ExchangeRequest::Idle)));
    }

    /// Attacks included: whatever else a client writes does not arrive.
    #[test]
    fn subscribers_get_topic_and_payload_and_nothing_else() {
        for (frame, expected) in [
            (
                r#"{"type":"publish","topic":"h","payload":"{\"a\":1}","clients":3,"Type":"x"}"#,
                r#"{"topic":"h","payload":"{\"a\":1}"}"#,
            ),
            (
                r#"{"payload":[1.50,{"topic":"x"}],"type":"publish","topic":"a\u0022"}"#,
                r#"{"topic":"a\u0022","payload":[1.50,{"topic":"x"}]}"#,
            ),
            (r#"{"type":"publish","topic":"h"}"#, r#"{"topic":"h"}"#),
        ] {
            let ExchangeRequest::Publish { publication, .. } = asked(frame) else {
                panic!("{frame}")
            };
            let event = Event::Published {
                publication,
                clients: 2,
                qos: 0,
            };
            assert_eq!(harness::event(&mut Trystero, event).texts, [expected]);
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in "\\PC{0,80}") {
            harness::text(&mut Trystero, &text);
        }
    }
}
