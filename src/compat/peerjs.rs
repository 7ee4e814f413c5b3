//! PeerJS: names in JSON text frames (client 1.x, server `peer` 1.0).
//!
//! A client takes an id and writes to ids. The token in its URL proves, when it comes again, that it
//! is the same client; on a box with tokens it is the JWT.

use super::object::Object;
use super::y_webrtc::exchange;
use crate::protocol::{
    Addressed, ClientMessage, CloseCode, ExchangeReply, ExchangeRequest, FrameError, FrameType,
    MessageType, Request, Takeover, write_json_str,
};
use crate::signal::hub::Event;
use crate::signal::sdp;
use crate::signal::{Asked, Closing, Dialect, Incoming, Outgoing, Output};
use secrecy::SecretString;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// What a client presents in the query of its URL.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The id that it wants.
    pub id: String,
    /// What proves that it is the same client when it comes again.
    pub proof: u128,
    /// The JWT, where the box asks for one.
    pub token: Option<SecretString>,
}

impl Hello {
    /// Reads the query. `key` is the one that clients have to name; a JWT may stand in its place
    /// where `takes_jwt`.
    ///
    /// # Errors
    /// What is missing or wrong, for a person to read.
    pub fn read(query: &str, key: &str, takes_jwt: bool) -> Result<Self, &'static str> {
        let value = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.into_owned())
                .filter(|value| !value.is_empty())
        };
        let (Some(id), Some(token), Some(given)) = (value("id"), value("token"), value("key"))
        else {
            return Err("the URL needs id, token and key");
        };
        let key_is_jwt = takes_jwt && given.split('.').count() == 3;
        if given != key && !key_is_jwt {
            return Err("the key is not the one of this server");
        }
        let hash = Sha256::digest(token.as_bytes());
        let (head, _) = hash.split_first_chunk().expect("SHA-256 gives 32 bytes");
        Ok(Self {
            id,
            proof: u128::from_be_bytes(*head),
            token: Some(SecretString::from(if key_is_jwt { given } else { token })),
        })
    }
}

/// One connection of PeerJS.
#[derive(Debug)]
pub struct PeerJs {
    state: State,
    /// Whether only relayed candidates pass.
    relay_only: bool,
}

#[derive(Debug)]
enum State {
    /// The query was not acceptable.
    Refused(&'static str),
    /// The hub has yet to give the id.
    Waits(Box<Hello>),
    /// The client has the id.
    Open(Arc<str>),
    /// The client was told why it is closed.
    Ended,
}

impl PeerJs {
    /// A connection whose URL was read.
    pub fn new(hello: Result<Hello, &'static str>, relay_only: bool) -> Self {
        Self {
            state: match hello {
                Ok(hello) => State::Waits(Box::new(hello)),
                Err(reason) => State::Refused(reason),
            },
            relay_only,
        }
    }

    fn end(&mut self, kind: &str, message: &str, out: &mut Output<'_>) {
        let mut text = format!(r#"{{"type":"{kind}","payload":{{"msg":"#);
        write_json_str(&mut text, message);
        text.push_str("}}");
        out.text(&text);
        out.close(CloseCode::Normal, "");
        self.state = State::Ended;
    }

    fn read(&self, text: &str) -> Asked {
        let object = Object::parse(text)?;
        let kind = object.string("type").unwrap_or_default();
        let dst = object.string("dst").filter(|dst| !dst.is_empty());
        let (kind, counted) = match &*kind {
            "OFFER" => ("OFFER", MessageType::Message),
            "ANSWER" => ("ANSWER", MessageType::Message),
            "CANDIDATE" => ("CANDIDATE", MessageType::Candidate),
            "LEAVE" => ("LEAVE", MessageType::Message),
            // HEARTBEAT asks for nothing. EXPIRE, OPEN, ID-TAKEN and ERROR are the server's.
            _ => return exchange(ExchangeRequest::Idle),
        };
        let Some(dst) = dst else {
            return exchange(match kind {
                "LEAVE" => ExchangeRequest::Release,
                _ => ExchangeRequest::Idle,
            });
        };
        let payload = match (object.get("payload"), self.relay_only) {
            (None, _) => None,
            (Some(raw), false) => Some(Cow::Borrowed(raw.get())),
            (Some(raw), true) => match relayed_only(raw) {
                Some(text) => Some(Cow::Owned(text)),
                None => return exchange(ExchangeRequest::Idle),
            },
        };
        let message = Arc::new(Addressed {
            kind,
            payload: payload.map(Box::from),
        });
        Ok(ClientMessage {
            id: None,
            kind: counted,
            request: Request::Exchange(ExchangeRequest::Send {
                to: dst.into_owned(),
                message,
                parks: kind != "LEAVE",
            }),
        })
    }
}

impl Dialect for PeerJs {
    fn opened(&mut self, _: Instant, out: &mut Output<'_>) {
        match &mut self.state {
            State::Refused(reason) => {
                let reason = *reason;
                self.end("ERROR", reason, out);
            }
            State::Waits(hello) => out.request(Ok(ClientMessage {
                id: None,
                kind: MessageType::Register,
                request: Request::Exchange(ExchangeRequest::Open {
                    token: hello.token.take(),
                }),
            })),
            State::Open(_) | State::Ended => {}
        }
    }

    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        out.request(match message {
            Incoming::Text(text) => self.read(text),
            Incoming::Binary(_) => Err(FrameError::binary()),
        });
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        match (&outgoing.event, &self.state) {
            (Event::Addressed { from, message }, State::Open(own)) => {
                let payload = message.payload.as_deref();
                out.text(&frame(message.kind, from, own, payload));
            }
            (Event::Exchange(reply), _) => self.answer(reply, out),
            (Event::Native(body), State::Waits(_)) if body.kind() == FrameType::Error => {
                let message = Object::parse(body.as_str())
                    .ok()
                    .and_then(|object| object.string("message").map(Cow::into_owned));
                self.end("ERROR", message.as_deref().unwrap_or("refused"), out);
            }
            _ => {}
        }
    }

    fn closing(&mut self, closing: &Closing, out: &mut Output<'_>) -> u16 {
        if let State::Waits(_) = self.state {
            self.end("ERROR", closing.reason, out);
        }
        closing.code as u16
    }
}

impl PeerJs {
    fn answer(&mut self, reply: &ExchangeReply, out: &mut Output<'_>) {
        match (reply, &mut self.state) {
            (ExchangeReply::Opened, State::Waits(hello)) => {
                out.request(exchange(ExchangeRequest::Claim {
                    name: std::mem::take(&mut hello.id),
                    proof: hello.proof,
                    takeover: Takeover::Shared,
                }));
            }
            (ExchangeReply::Claimed { name }, _) => {
                self.state = State::Open(Arc::clone(name));
                out.text(r#"{"type":"OPEN"}"#);
            }
            (ExchangeReply::Taken, _) => self.end("ID-TAKEN", "the id is taken", out),
            (ExchangeReply::Absent { name, own }, _) => {
                out.text(&frame("EXPIRE", name, own, None));
            }
            _ => {}
        }
    }
}

fn frame(kind: &str, src: &str, dst: &str, payload: Option<&str>) -> String {
    let mut text = String::with_capacity(96 + payload.map_or(0, str::len));
    text.push_str(r#"{"type":""#);
    text.push_str(kind);
    text.push_str(r#"","src":"#);
    write_json_str(&mut text, src);
    text.push_str(r#","dst":"#);
    write_json_str(&mut text, dst);
    if let Some(payload) = payload {
        text.push_str(r#","payload":"#);
        text.push_str(payload);
    }
    text.push('}');
    text
}

/// A payload without what tells an address; `None` where nothing of it may pass. What the
/// application says of itself, in `metadata`, passes as messages of the native protocol do.
fn relayed_only(payload: &RawValue) -> Option<String> {
    let object = Object::parse(payload.get()).ok()?;
    let mut fields = vec![];
    for name in [
        "type",
        "connectionId",
        "metadata",
        "label",
        "reliable",
        "serialization",
    ] {
        if let Some(raw) = object.get(name) {
            fields.push(format!("\"{name}\":{raw}"));
        }
    }
    if let Some(description) = object.get("sdp") {
        fields.push(format!("\"sdp\":{}", sdp::description(description).ok()?));
    }
    if let Some(candidate) = object.get("candidate") {
        fields.push(format!(
            "\"candidate\":{}",
            sdp::candidate(candidate).ok()??
        ));
    }
    Some(format!("{{{}}}", fields.join(",")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self as harness, Done};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn hello() -> Hello {
        Hello::read("key=peerjs&id=ann&token=abc&version=1.5.5", "peerjs", false).unwrap()
    }

    /// A connection that has its id.
    fn ann(relay_only: bool) -> PeerJs {
        let mut dialect = PeerJs::new(Ok(hello()), relay_only);
        let done = harness::opened(&mut dialect);
        assert!(matches!(
            done.requests[0],
            Ok(ExchangeRequest::Open { token: Some(_) })
        ));
        let done = reply(&mut dialect, ExchangeReply::Opened);
        assert!(matches!(
            &done.requests[0],
            Ok(ExchangeRequest::Claim { name, takeover: Takeover::Shared, .. }) if name == "ann"
        ));
        let done = reply(&mut dialect, ExchangeReply::Claimed { name: "ann".into() });
        assert_eq!(done.texts, [r#"{"type":"OPEN"}"#]);
        dialect
    }

    fn reply(dialect: &mut PeerJs, reply: ExchangeReply) -> Done {
        harness::event(dialect, Event::Exchange(Box::new(reply)))
    }

    /// What a frame asks for, and what its receiver "bob" gets.
    fn relayed(dialect: &mut PeerJs, frame: &Value) -> Option<Value> {
        let mut done = harness::text(dialect, &frame.to_string());
        let request = done.requests.pop().unwrap().unwrap();
        let ExchangeRequest::Send { message, .. } = request else {
            assert!(matches!(request, ExchangeRequest::Idle));
            return None;
        };
        let mut bob = PeerJs {
            state: State::Open("bob".into()),
            relay_only: false,
        };
        let from = "ann".into();
        let done = harness::event(&mut bob, Event::Addressed { from, message });
        Some(serde_json::from_str(&done.texts[0]).unwrap())
    }

    #[test]
    fn the_query_names_id_token_and_key() {
        let read = |query, jwt| Hello::read(query, "peerjs", jwt).map(|hello| hello.id);
        assert_eq!(read("key=peerjs&id=a%20b&token=x", false), Ok("a b".into()));
        for query in [
            "",
            "key=peerjs&id=a",
            "key=peerjs&token=x",
            "id=a&token=x",
            "key=peerjs&id=&token=x",
        ] {
            assert_eq!(
                read(query, false),
                Err("the URL needs id, token and key"),
                "{query}"
            );
        }
        let wrong = Err("the key is not the one of this server");
        assert_eq!(read("key=other&id=a&token=x", false), wrong);
        assert_eq!(read("key=a.b.c&id=a&token=x", false), wrong);
        assert_eq!(read("key=a.b.c&id=a&token=x", true), Ok("a".into()));
        assert_eq!(read("key=other&id=a&token=x", true), wrong);
        let proof = |query| Hello::read(query, "peerjs", false).unwrap().proof;
        assert_eq!(
            proof("key=peerjs&id=a&token=x"),
            proof("key=peerjs&id=b&token=x")
        );
        assert_ne!(
            proof("key=peerjs&id=a&token=x"),
            proof("key=peerjs&id=a&token=y")
        );
    }

    #[test]
    fn who_is_refused_hears_why_and_is_closed() {
        let mut dialect = PeerJs::new(Err("no"), false);
        let done = harness::opened(&mut dialect);
        assert_eq!(done.texts, [r#"{"type":"ERROR","payload":{"msg":"no"}}"#]);
        assert_eq!(done.closing.unwrap().code, CloseCode::Normal);
        // Taken.
        let mut dialect = PeerJs::new(Ok(hello()), false);
        let done = reply(&mut dialect, ExchangeReply::Taken);
        let text = r#"{"type":"ID-TAKEN","payload":{"msg":"the id is taken"}}"#;
        assert_eq!(done.texts, [text]);
        assert!(done.closing.is_some());
        // By the hub: before an id the reason is an ERROR, with one it is the close frame's.
        let closing = Closing {
            code: CloseCode::Unauthorized,
            reason: "unauthorized",
        };
        let mut dialect = PeerJs::new(Ok(hello()), false);
        let done = harness::closing(&mut dialect, &closing);
        let text = r#"{"type":"ERROR","payload":{"msg":"unauthorized"}}"#;
        assert_eq!(
            (done.texts, done.status),
            (vec![text.to_owned()], Some(4001))
        );
        assert!(harness::closing(&mut ann(false), &closing).texts.is_empty());
    }

    #[test]
    fn four_fields_are_relayed_and_the_source_is_the_servers() {
        let mut dialect = ann(false);
        let payload = json!({"sdp": {"type": "offer", "sdp": "v=0"}, "type": "data",
            "connectionId": "dc_1", "metadata": {"n": [1, 2]}, "label": "dc_1"});
        for kind in ["OFFER", "ANSWER", "CANDIDATE", "LEAVE"] {
            let frame = json!({"type": kind, "src": "eve", "dst": "bob", "payload": payload,
                "iceServers": [], "key": "x"});
            let expected = json!({"type": kind, "src": "ann", "dst": "bob", "payload": payload});
            assert_eq!(relayed(&mut dialect, &frame), Some(expected));
        }
        let done = reply(
            &mut dialect,
            ExchangeReply::Absent {
                name: "carl".into(),
                own: "ann".into(),
            },
        );
        assert_eq!(
            done.texts,
            [r#"{"type":"EXPIRE","src":"carl","dst":"ann"}"#]
        );
        let done = harness::text(&mut dialect, r#"{"type":"LEAVE"}"#);
        assert!(matches!(done.requests[0], Ok(ExchangeRequest::Release)));
        for text in ["", "x", "[]", "5"] {
            let done = harness::text(&mut dialect, text);
            assert!(done.requests[0].as_ref().unwrap_err().malformed, "{text}");
        }
    }

    /// Attacks: what the server says, no client says to another.
    #[test]
    fn the_servers_words_are_not_relayed() {
        let mut dialect = ann(false);
        for kind in [
            "OPEN",
            "ID-TAKEN",
            "ERROR",
            "EXPIRE",
            "INVALID-KEY",
            "HEARTBEAT",
            "offer",
            "X",
        ] {
            let frame = json!({"type": kind, "src": "x", "dst": "bob", "payload": {"msg": "bye"}});
            assert_eq!(relayed(&mut dialect, &frame), None, "{kind}");
        }
        let frame = json!({"type": "OFFER", "payload": {}});
        assert_eq!(relayed(&mut dialect, &frame), None, "to nobody");
        let twice = r#"{"type":"EXPIRE","type":"OFFER","dst":"bob","payload":1}"#;
        let twice: Box<RawValue> = serde_json::from_str(twice).unwrap();
        let done = harness::text(&mut dialect, twice.get());
        let Ok(ExchangeRequest::Send { message, .. }) = &done.requests[0] else {
            panic!()
        };
        assert_eq!(
            (message.kind, message.payload.as_deref()),
            ("OFFER", Some("1"))
        );
    }

    #[test]
    fn where_only_relayed_candidates_pass_addresses_do_not() {
        let mut dialect = ann(true);
        let candidate = |dialect: &mut PeerJs, kind: &str| {
            let line = format!("candidate:1 1 udp 1 192.0.2.7 5 typ {kind} raddr 10.0.0.1 rport 9");
            let payload = json!({"candidate": {"candidate": line, "sdpMid": "0"},
                "type": "data", "connectionId": "dc_1"});
            relayed(
                dialect,
                &json!({"type": "CANDIDATE", "dst": "bob", "payload": payload}),
            )
        };
        assert_eq!(candidate(&mut dialect, "host"), None);
        let relay = candidate(&mut dialect, "relay").unwrap().to_string();
        assert!(
            relay.contains("192.0.2.7") && !relay.contains("10.0.0.1"),
            "{relay}"
        );
        let sdp = "v=0\r\nc=IN IP4 10.0.0.1\r\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\n";
        let payload = json!({"sdp": {"type": "offer", "sdp": sdp}, "type": "data",
            "connectionId": "dc_1", "hidden": "10.0.0.1"});
        let frame = json!({"type": "OFFER", "dst": "bob", "payload": payload});
        let offer = relayed(&mut dialect, &frame).unwrap();
        assert!(!offer.to_string().contains("10.0.0.1"), "{offer}");
        assert_eq!(offer["payload"]["sdp"]["type"], "offer");
        let unreadable = json!({"type": "OFFER", "dst": "bob", "payload": {"sdp": {"sdp": [sdp]}}});
        assert_eq!(relayed(&mut dialect, &unreadable), None);
        let text = json!({"type": "OFFER", "dst": "bob", "payload": "10.0.0.1"});
        assert_eq!(relayed(&mut dialect, &text), None);
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in "\\PC{0,80}", relay_only: bool) {
            harness::text(&mut ann(relay_only), &text);
        }

        #[test]
        fn any_payload_arrives_as_sent(text in "\\PC{0,60}", number: i64) {
            let payload = json!({"text": text, "list": [number, null, {"deep": [[text]]}]});
            let frame = json!({"type": "ANSWER", "dst": "bob", "payload": payload});
            let got = relayed(&mut ann(false), &frame).unwrap();
            prop_assert_eq!(&got["payload"], &payload);
        }
    }
}
