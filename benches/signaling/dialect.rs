//! What the servers' protocols have in common, said in each one's words: a URL to join by, a
//! message to the other side, and how one's own joining and partner are told. Pure.

use anyhow::Result;
use serde_json::Value;

/// What marks the sending time inside a message's filling; none of the protocols uses it.
const MARK: char = '~';
/// Hexadecimal digits of the time behind the mark.
const DIGITS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Callbox,
    PeerJs,
    Matchbox,
    /// Version 4 over WebSocket alone, with rooms by event.
    SocketIo,
    /// A topic for each client, to which its partner publishes.
    YWebrtc,
    /// Rooms by URL, messages passed on to all others: the Node server and the floor.
    Rooms,
}

/// One client's view of its room.
#[derive(Default)]
pub(crate) struct Standing {
    /// It may send, as far as the server is concerned.
    pub(crate) joined: bool,
    /// How the other side is addressed, where the protocol wants to be told.
    pub(crate) partner: Option<String>,
    room: usize,
    /// What callbox gives to resume with.
    pub(crate) token: Option<String>,
}

impl Dialect {
    /// Where client `index` of `room` connects to; partners have indices that differ in bit 0.
    pub(crate) fn path(self, room: usize, index: usize) -> String {
        match self {
            Self::Callbox => "/ws".to_owned(),
            Self::PeerJs => format!("/peerjs?key=peerjs&token=t{index}&id=c{index}"),
            Self::Matchbox => format!("/room{room}"),
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Self::YWebrtc => "/y-webrtc".to_owned(),
            Self::Rooms => format!("/?room={room}"),
        }
    }

    /// What is sent once the socket is open.
    pub(crate) fn join(self, room: usize, index: usize) -> Vec<String> {
        match self {
            Self::Callbox => vec![format!(r#"{{"type":"join","roomId":"room{room}"}}"#)],
            Self::SocketIo => vec!["40".to_owned()],
            // A subscription has no answer; the one to the ping comes behind it.
            Self::YWebrtc => vec![
                format!(r#"{{"type":"subscribe","topics":["c{index}"]}}"#),
                r#"{"type":"ping"}"#.to_owned(),
            ],
            Self::PeerJs | Self::Matchbox | Self::Rooms => vec![],
        }
    }

    pub(crate) fn standing(self, room: usize, index: usize) -> Standing {
        let is_named = matches!(self, Self::PeerJs | Self::YWebrtc);
        Standing {
            joined: false,
            partner: is_named.then(|| format!("c{}", index ^ 1)),
            room,
            token: None,
        }
    }

    /// Reads a frame that is not a measured message; returns what the client has to send for it.
    pub(crate) fn learn(self, standing: &mut Standing, text: &str) -> Result<Option<String>> {
        match self {
            Self::Callbox if text.contains(r#""type":"joined""#) => {
                standing.joined = true;
                let token = text.split_once(r#""resumeToken":""#);
                let token = token.and_then(|(_, rest)| rest.split_once('"'));
                standing.token = token.map(|(token, _)| token.to_owned());
            }
            Self::Callbox => {}
            Self::PeerJs => standing.joined |= text.contains("OPEN"),
            Self::Rooms => standing.joined |= text.contains("joined"),
            Self::YWebrtc => standing.joined |= text.contains("pong"),
            Self::SocketIo if text == "2" => return Ok(Some("3".to_owned())),
            Self::SocketIo if text.starts_with("40") => {
                return Ok(Some(format!(r#"42["join","room{}"]"#, standing.room)));
            }
            Self::SocketIo => standing.joined |= text.starts_with(r#"42["room-users""#),
            Self::Matchbox => return learn_matchbox(standing, text),
        }
        Ok(None)
    }

    /// A message to the partner (or to all others) of about `size` bytes, sent at `nanos`.
    pub(crate) fn message(self, standing: &Standing, size: usize, nanos: u64) -> String {
        let to = standing.partner.as_deref().unwrap_or_default();
        let (head, tail) = match self {
            Self::Callbox => (r#"{"type":"message","content":""#.to_owned(), r#""}"#),
            Self::Rooms => (r#"{"type":"message","content":""#.to_owned(), r#""}"#),
            Self::PeerJs => (
                format!(r#"{{"type":"CANDIDATE","dst":"{to}","payload":""#),
                r#""}"#,
            ),
            Self::SocketIo => (r#"42["message",{"content":""#.to_owned(), r#""}]"#),
            Self::YWebrtc => (
                format!(r#"{{"type":"publish","topic":"{to}","data":""#),
                r#""}"#,
            ),
            Self::Matchbox => (
                format!(r#"{{"Signal":{{"receiver":"{to}","data":""#),
                r#""}}"#,
            ),
        };
        let filling = size.saturating_sub(head.len() + tail.len() + DIGITS + 1);
        format!("{head}{MARK}{nanos:016x}{}{tail}", "x".repeat(filling))
    }

    pub(crate) fn leave(self) -> Option<&'static str> {
        match self {
            Self::Callbox => Some(r#"{"type":"leave"}"#),
            Self::SocketIo => Some("41"),
            Self::PeerJs | Self::Matchbox | Self::YWebrtc | Self::Rooms => None,
        }
    }

    /// Whether one message reaches all others of a room.
    pub(crate) fn broadcasts(self) -> bool {
        matches!(self, Self::Callbox | Self::Rooms | Self::SocketIo)
    }
}

/// When a measured message was sent; `None` for any other frame.
pub(crate) fn sent_at(text: &str) -> Option<u64> {
    let digits = text.find(MARK)? + 1;
    u64::from_str_radix(text.get(digits..digits + DIGITS)?, 16).ok()
}

/// The server names newcomers to those present; these greet, so that newcomers know them too.
fn learn_matchbox(standing: &mut Standing, text: &str) -> Result<Option<String>> {
    let event: Value = serde_json::from_str(text)?;
    let greeted = event["Signal"]["sender"].as_str();
    let Some(partner) = event["NewPeer"].as_str().or(greeted) else {
        return Ok(None);
    };
    standing.partner = Some(partner.to_owned());
    standing.joined = true;
    let greeting = format!(r#"{{"Signal":{{"receiver":"{partner}","data":"hello"}}}}"#);
    Ok(greeted.is_none().then_some(greeting))
}
