//! The signaling of y-webrtc (its `bin/server.js`): topics in JSON text frames.
//!
//! The protocol has no answer but `pong`, and no error: what is wrong is dropped.

use super::object::Object;
use crate::protocol::{
    ClientMessage, ExchangeRequest, FrameError, MAX_TOPIC, MessageType, Publication, Request,
    SubscriptionOptions, Wish, folds_to,
};
use crate::signal::hub::Event;
use crate::signal::sdp;
use crate::signal::{Asked, Dialect, Incoming, Outgoing, Output};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// Topics in one frame: as many as a connection may have.
const MAX_TOPICS: usize = 1_000;
/// How a publication begins.
const HEAD: &str = r#"{"type":"publish","topic":"#;
/// The fields that the server writes.
const OWN: [&str; 3] = ["type", "topic", "clients"];
/// What a client gets for its `ping`.
const PONG: &str = r#"{"type":"pong"}"#;

/// One connection of y-webrtc.
#[derive(Debug, Clone, Copy)]
pub struct YWebrtc {
    /// Whether only relayed candidates pass. What cannot be read, as in rooms with a password, does
    /// not pass then.
    pub relay_only: bool,
}

impl Dialect for YWebrtc {
    fn is_timeless(&self) -> bool {
        true
    }

    fn opened(&mut self, _: Instant, out: &mut Output<'_>) {
        out.request(open());
    }

    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        let Incoming::Text(text) = message else {
            out.request(Err(FrameError::binary()));
            return;
        };
        match self.read(text) {
            Ok(Message::Ping) => {
                out.text(PONG);
                out.request(exchange(ExchangeRequest::Idle));
            }
            Ok(Message::Request(request)) => out.request(exchange(request)),
            Err(error) => out.request(Err(error)),
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        if let Event::Published {
            publication,
            clients,
            ..
        } = &outgoing.event
            && let Ok(text) = std::str::from_utf8(&publication.payload)
        {
            let mut digits = [0; 10];
            let clients = decimal(*clients, &mut digits);
            out.text_of(&[text, ",\"clients\":", clients, "}"]);
        }
    }

    /// The settings say everything.
    fn memory(&self, _: Instant) -> Option<String> {
        Some(String::new())
    }
}

/// What a frame says.
#[derive(Debug)]
enum Message {
    Ping,
    Request(ExchangeRequest),
}

impl YWebrtc {
    fn read(self, text: &str) -> Result<Message, FrameError> {
        let object = Object::parse(text)?;
        let Some(kind) = object.string("type") else {
            return Ok(Message::Request(ExchangeRequest::Idle));
        };
        Ok(match &*kind {
            "ping" => Message::Ping,
            "subscribe" => Message::Request(ExchangeRequest::Subscribe {
                id: 0,
                topics: topics(&object).map(wish).collect(),
            }),
            "unsubscribe" => Message::Request(ExchangeRequest::Unsubscribe {
                id: 0,
                topics: topics(&object).map(Arc::from).collect(),
            }),
            "publish" => Message::Request(match self.publication(object) {
                Some(publication) => ExchangeRequest::Publish { id: 0, publication },
                None => ExchangeRequest::Idle,
            }),
            _ => Message::Request(ExchangeRequest::Idle),
        })
    }

    /// The object as subscribers get it, but for `clients` and the last brace.
    fn publication(self, mut object: Object<'_>) -> Option<Arc<Publication>> {
        let topic = object.string("topic").filter(|topic| is_topic(topic))?;
        let raw = object.get("topic")?.get();
        // The server alone writes these, for decoders that ignore case as well.
        object.retain(|name| !OWN.iter().any(|own| folds_to(name, own)));
        // As much as there will be, so that nothing is copied once more; names with escapes are rare.
        let length: usize = (object.fields())
            .map(|(name, raw)| name.len() + raw.get().len() + 4)
            .sum();
        let mut text = String::with_capacity(HEAD.len() + raw.len() + length);
        text.push_str(HEAD);
        text.push_str(raw);
        for (name, raw) in object.fields() {
            let raw = match (self.relay_only, name) {
                (false, _) => Cow::Borrowed(raw.get()),
                (true, "data") => Cow::Owned(relayed_only(raw)?),
                (true, _) => continue,
            };
            text.push(',');
            crate::protocol::write_json_str(&mut text, name);
            text.push(':');
            text.push_str(&raw);
        }
        Some(Arc::new(Publication {
            topic: topic.into(),
            properties: [].into(),
            payload: text.into_bytes().into(),
            qos: 0,
            room: None,
        }))
    }
}

/// `data` of a publication without what tells an address; `None` where nothing of it may pass.
fn relayed_only(data: &RawValue) -> Option<String> {
    let object = Object::parse(data.get()).ok()?;
    let mut fields = vec![];
    for name in ["type", "from", "to", "token"] {
        // Ids and times; what is nested could hold anything.
        if let Some(raw) = object
            .get(name)
            .filter(|raw| !raw.get().starts_with(['{', '[']))
        {
            fields.push(format!("\"{name}\":{raw}"));
        }
    }
    if let Some(signal) = object.get("signal") {
        fields.push(format!("\"signal\":{}", relayed_signal(signal)?));
    }
    Some(format!("{{{}}}", fields.join(",")))
}

/// A signal of simple-peer: a description, a candidate, or a wish that names no address.
fn relayed_signal(signal: &RawValue) -> Option<String> {
    let object = Object::parse(signal.get()).ok()?;
    if object.get("sdp").is_some() {
        return sdp::description(signal).ok();
    }
    if let Some(candidate) = object.get("candidate") {
        let candidate = sdp::candidate(candidate).ok()??;
        return Some(format!(r#"{{"type":"candidate","candidate":{candidate}}}"#));
    }
    match &*object.string("type")? {
        "renegotiate" => Some(r#"{"type":"renegotiate","renegotiate":true}"#.to_owned()),
        _ => None,
    }
}

/// A number as text, at the end of its room.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[at..]).unwrap_or_default();
        }
    }
}

/// The connection's first request.
pub(super) fn open() -> Asked {
    Ok(ClientMessage {
        dialect: None,
        id: None,
        kind: MessageType::Register,
        request: Request::Exchange(ExchangeRequest::Open {
            token: None,
            name: None,
        }),
    })
}

/// A request that counts as a message.
pub(super) fn exchange(request: ExchangeRequest) -> Asked {
    Ok(message(request))
}

/// The same, to be changed.
pub(super) fn message(request: ExchangeRequest) -> ClientMessage {
    ClientMessage {
        dialect: None,
        id: None,
        kind: MessageType::Message,
        request: Request::Exchange(request),
    }
}

pub(super) fn wish(topic: String) -> Wish {
    Wish {
        topic: topic.into(),
        options: SubscriptionOptions::default(),
        room: None,
        is_refused: false,
    }
}

pub(super) fn is_topic(topic: &str) -> bool {
    (1..=MAX_TOPIC).contains(&topic.len())
}

/// The strings of `topics`; what is not a topic is passed over.
fn topics<'a>(object: &Object<'a>) -> impl Iterator<Item = String> {
    let list: Vec<&RawValue> = object
        .get("topics")
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    list.into_iter()
        .take(MAX_TOPICS)
        .filter_map(|raw| super::object::string(raw).map(Cow::into_owned))
        .filter(|topic| is_topic(topic))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self as harness, Done};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const OPEN: YWebrtc = YWebrtc { relay_only: false };
    const RELAYED: YWebrtc = YWebrtc { relay_only: true };

    fn request(mut done: Done) -> ExchangeRequest {
        assert!(done.closing.is_none());
        done.requests.pop().expect("a request").unwrap()
    }

    /// What subscribers get of a publication.
    fn published(dialect: &mut YWebrtc, frame: &Value) -> Option<Value> {
        let done = harness::text(dialect, &frame.to_string());
        let ExchangeRequest::Publish { publication, .. } = request(done) else {
            return None;
        };
        let event = Event::Published {
            publication,
            clients: 3,
            qos: 0,
        };
        let done = harness::event(dialect, event);
        Some(serde_json::from_str(&done.texts[0]).unwrap())
    }

    #[test]
    fn a_number_is_written_as_it_is() {
        for number in [0, 7, 10, 200, 4_294_967_295] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string());
        }
    }

    #[test]
    fn topics_are_subscribed_and_left_and_what_is_not_one_is_passed_over() {
        let mut dialect = OPEN;
        assert!(matches!(
            request(harness::opened(&mut dialect)),
            ExchangeRequest::Open {
                token: None,
                name: None
            }
        ));
        let long = "x".repeat(MAX_TOPIC + 1);
        let frame = json!({"type": "subscribe", "topics": ["a", 5, null, "", long, "b"]});
        let ExchangeRequest::Subscribe { id: 0, topics } =
            request(harness::text(&mut dialect, &frame.to_string()))
        else {
            panic!()
        };
        let names: Vec<_> = topics.iter().map(|wish| &*wish.topic).collect();
        assert_eq!(names, ["a", "b"]);
        for frame in [
            json!({"type": "subscribe"}),
            json!({"type": "subscribe", "topics": "a"}),
        ] {
            let done = harness::text(&mut dialect, &frame.to_string());
            assert!(matches!(
                request(done),
                ExchangeRequest::Subscribe { topics, .. } if topics.is_empty()
            ));
        }
        let frame = json!({"type": "unsubscribe", "topics": ["a"]});
        let done = harness::text(&mut dialect, &frame.to_string());
        assert!(
            matches!(request(done), ExchangeRequest::Unsubscribe { topics, .. } if *topics[0] == *"a")
        );
    }

    #[test]
    fn a_ping_is_answered_and_nothing_else_is() {
        let mut dialect = OPEN;
        let done = harness::text(&mut dialect, r#"{"type":"ping"}"#);
        assert_eq!(done.texts, [PONG]);
        for text in [
            r#"{"type":"pong"}"#,
            r#"{"type":"ice-servers","iceServers":[]}"#,
            r#"{"type":"publish"}"#,
            r#"{"type":"publish","topic":5}"#,
            r#"{"topic":"a"}"#,
        ] {
            let done = harness::text(&mut dialect, text);
            assert!(done.texts.is_empty());
            assert!(matches!(request(done), ExchangeRequest::Idle), "{text}");
        }
        for text in ["", "x", "[]", "5", "{"] {
            let done = harness::text(&mut dialect, text);
            assert!(done.requests[0].as_ref().unwrap_err().malformed, "{text}");
        }
        let done = harness::binary(&mut dialect, b"x");
        assert!(done.requests[0].as_ref().unwrap_err().malformed);
    }

    #[test]
    fn a_publication_arrives_whole_with_the_number_of_subscribers() {
        let frame = json!({"type": "publish", "topic": "a\u{1F3A7}\"", "data": {"type": "announce",
            "from": "me"}, "extra": [1, 2.50, null], "clients": 99});
        let mut expected = frame.clone();
        expected["clients"] = json!(3);
        assert_eq!(published(&mut OPEN.clone(), &frame), Some(expected));
    }

    /// Attacks: a client writes what the server says, for decoders of any kind.
    #[test]
    fn no_field_of_a_client_stands_for_one_of_the_server() {
        let text = r#"{"type":"ice-servers","Type":"pong","ty\u0070e":"x","type":"publish",
            "topic":"a","TOPIC":"b","Clients":7,"\u0063lients":9,"clientſ":1}"#;
        let done = harness::text(&mut OPEN.clone(), text);
        let ExchangeRequest::Publish { publication, .. } = request(done) else {
            panic!()
        };
        assert_eq!(&*publication.payload, br#"{"type":"publish","topic":"a""#);
    }

    #[test]
    fn where_only_relayed_candidates_pass_addresses_do_not() {
        let publish = |data: Value| {
            let frame = json!({"type": "publish", "topic": "a", "data": data, "note": "10.0.0.1"});
            published(&mut RELAYED.clone(), &frame)
        };
        let announce = publish(json!({"type": "announce", "from": "me", "x": {"ip": "10.0.0.1"}}));
        let expected = json!({"type": "publish", "topic": "a", "clients": 3,
            "data": {"type": "announce", "from": "me"}});
        assert_eq!(announce, Some(expected));
        let candidate = |kind: &str| {
            let line = format!("candidate:1 1 udp 1 192.0.2.7 5 typ {kind} raddr 10.0.0.1 rport 9");
            let candidate = json!({"candidate": line, "sdpMid": "0"});
            publish(json!({"type": "signal", "from": "a", "to": "b", "token": 5,
                "signal": {"type": "candidate", "candidate": candidate}}))
        };
        assert_eq!(candidate("host"), None);
        assert_eq!(candidate("srflx"), None);
        let relayed = candidate("relay").unwrap().to_string();
        assert!(
            relayed.contains("192.0.2.7") && !relayed.contains("10.0.0.1"),
            "{relayed}"
        );
        let sdp = "v=0\r\nc=IN IP4 10.0.0.1\r\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\n";
        let offer = publish(json!({"type": "signal", "from": "a", "to": "b",
            "signal": {"type": "offer", "sdp": sdp}}));
        let offer = offer.unwrap();
        assert!(!offer.to_string().contains("10.0.0.1"), "{offer}");
        assert_eq!(offer["data"]["signal"]["type"], "offer");
        // A room with a password encrypts: nothing can be read, nothing passes.
        assert_eq!(publish(json!("bm90IHJlYWRhYmxl")), None);
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in "\\PC{0,80}", relay_only: bool) {
            harness::text(&mut YWebrtc { relay_only }, &text);
        }

        #[test]
        fn any_data_arrives_as_sent(
            topic in "[^\\x00]{1,40}",
            key in "[a-z]{1,9}",
            text in "\\PC{0,40}",
            number: i64,
        ) {
            prop_assume!(!["type", "topic", "clients"].contains(&&*key));
            let frame = json!({"type": "publish", "topic": topic, key: {"n": number, "t": [text]}});
            let mut expected = frame.clone();
            expected["clients"] = json!(3);
            prop_assert_eq!(published(&mut OPEN.clone(), &frame), Some(expected));
        }
    }
}
