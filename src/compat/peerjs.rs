//! PeerJS: names in JSON text frames (client 1.x, server `peer` 1.0).
//!
//! A client takes an id and writes to ids. The token in its URL proves, when it comes again, that it
//! is the same client; on a box with tokens it is the JWT.

mod memory;

use super::object::Object;
use super::y_webrtc::exchange;
use crate::protocol::{
    Addressed, ClientMessage, CloseCode, ExchangeReply, ExchangeRequest, FrameType, MessageType,
    Request, Takeover, write_json_str,
};
use crate::signal::hub::Event;
use crate::signal::{Asked, Closing, Dialect, Incoming, Outgoing, Output, sdp};
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
    /// What OPEN will carry, once the hub has given it.
    payload: Option<String>,
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
            payload: None,
        })
    }
}

/// What a page has to know where only relayed candidates pass.
const RELAY_ONLY: &str = r#""iceTransportPolicy":"relay""#;

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
        let Ok(object) = Object::parse(text) else {
            // As any other message that asks for nothing: the limits hold for it.
            return exchange(ExchangeRequest::Idle);
        };
        let kind = object.string("type").unwrap_or_default();
        let dst = object.string("dst").filter(|dst| !dst.is_empty());
        let (kind, counted) = match &*kind {
            "OFFER" => ("OFFER", MessageType::Offer),
            "ANSWER" => ("ANSWER", MessageType::Answer),
            "CANDIDATE" => ("CANDIDATE", MessageType::Candidate),
            "LEAVE" => ("LEAVE", MessageType::Hangup),
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
            kind: Cow::Borrowed(kind),
            payload: payload.map(Box::from),
        });
        Ok(ClientMessage {
            dialect: None,
            id: None,
            kind: counted,
            request: Request::Exchange(ExchangeRequest::Send {
                to: dst.into(),
                message,
                parks: kind != "LEAVE",
            }),
        })
    }
}

impl Dialect for PeerJs {
    fn is_timeless(&self) -> bool {
        true
    }

    fn opened(&mut self, _: Instant, out: &mut Output<'_>) {
        match &mut self.state {
            State::Refused(reason) => {
                let reason = *reason;
                self.end("ERROR", reason, out);
            }
            State::Waits(hello) => out.request(Ok(ClientMessage {
                dialect: None,
                id: None,
                kind: MessageType::Register,
                request: Request::Exchange(ExchangeRequest::Open {
                    token: hello.token.take(),
                    name: Some(hello.id.clone()),
                }),
            })),
            State::Open(_) | State::Ended => {}
        }
    }

    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        out.request(match message {
            Incoming::Text(text) => self.read(text),
            Incoming::Binary(_) => exchange(ExchangeRequest::Idle),
        });
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        match (&outgoing.event, &self.state) {
            (Event::Addressed { from, message }, State::Open(own)) => {
                let payload = message.payload.as_deref();
                write_frame(&message.kind, from, own, payload, out);
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

    fn memory(&self, _: Instant) -> Option<String> {
        self.to_memory()
    }

    fn closing(&mut self, closing: &Closing, out: &mut Output<'_>) -> u16 {
        // A client ends for good at an ERROR before its first OPEN, and comes again without one.
        let comes_again = matches!(closing.code, CloseCode::TryLater | CloseCode::Restart);
        if let (State::Waits(_), false) = (&self.state, comes_again) {
            self.end("ERROR", closing.reason, out);
        }
        closing.code as u16
    }
}

impl PeerJs {
    fn answer(&mut self, reply: &ExchangeReply, out: &mut Output<'_>) {
        match (reply, &mut self.state) {
            (ExchangeReply::Opened, State::Waits(hello)) => {
                // They come before the answer to the claim, behind which messages may wait.
                out.request(exchange(ExchangeRequest::Ice));
                out.request(exchange(ExchangeRequest::Claim {
                    name: std::mem::take(&mut hello.id),
                    proof: hello.proof,
                    takeover: Takeover::Shared,
                }));
            }
            (ExchangeReply::Ice(servers), State::Waits(hello)) => {
                hello.payload = serde_json::to_string(servers).ok();
            }
            (ExchangeReply::Claimed { name }, state) => {
                let payload = match std::mem::replace(state, State::Open(Arc::clone(name))) {
                    State::Waits(hello) => hello.payload,
                    _ => None,
                };
                // Clients that know nothing of it pass over it.
                out.text(&match (
                    payload.as_deref().and_then(|p| p.strip_prefix('{')),
                    self.relay_only,
                ) {
                    (None, _) => r#"{"type":"OPEN"}"#.to_owned(),
                    (Some(rest), false) => format!(r#"{{"type":"OPEN","payload":{{{rest}}}"#),
                    (Some(rest), true) => {
                        format!(r#"{{"type":"OPEN","payload":{{{RELAY_ONLY},{rest}}}"#)
                    }
                });
            }
            (ExchangeReply::Taken, _) => self.end("ID-TAKEN", "the id is taken", out),
            (ExchangeReply::Absent { name, own }, _) => {
                write_frame("EXPIRE", name, own, None, out);
            }
            _ => {}
        }
    }
}

fn write_frame(kind: &str, src: &str, dst: &str, payload: Option<&str>, out: &mut Output<'_>) {
    let (src, dst) = (in_json(src), in_json(dst));
    let (name, payload) = match payload {
        Some(payload) => (r#"","payload":"#, payload),
        None => ("\"", ""),
    };
    out.text_of(&[
        r#"{"type":""#,
        kind,
        r#"","src":""#,
        &src,
        r#"","dst":""#,
        &dst,
        name,
        payload,
        "}",
    ]);
}

/// A text as it stands in JSON between quotes. Nearly every id is the same there.
fn in_json(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    write_json_str(&mut quoted, text);
    Cow::Owned(quoted[1..quoted.len() - 1].to_owned())
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
mod tests;
