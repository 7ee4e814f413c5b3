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
}

impl Dialect {
    /// Where client `index` of `room` connects to; partners have indices that differ in bit 0.
    pub(crate) fn path(self, room: usize, index: usize) -> String {
        match self {
            Self::Callbox => "/ws".to_owned(),
            Self::PeerJs => format!("/peerjs?key=peerjs&token=t{index}&id=c{index}"),
            Self::Matchbox => format!("/room{room}"),
            Self::Rooms => format!("/?room={room}"),
        }
    }

    /// What is sent once the socket is open.
    pub(crate) fn join(self, room: usize) -> Option<String> {
        (self == Self::Callbox).then(|| format!(r#"{{"type":"join","roomId":"room{room}"}}"#))
    }

    pub(crate) fn standing(self, index: usize) -> Standing {
        let partner = (self == Self::PeerJs).then(|| format!("c{}", index ^ 1));
        Standing {
            joined: false,
            partner,
        }
    }

    /// Reads a frame that is not a measured message; returns what the client has to send for it.
    pub(crate) fn learn(self, standing: &mut Standing, text: &str) -> Result<Option<String>> {
        match self {
            Self::Callbox => standing.joined |= text.contains(r#""type":"joined""#),
            Self::PeerJs => standing.joined |= text.contains("OPEN"),
            Self::Rooms => standing.joined |= text.contains("joined"),
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
            Self::Matchbox => (
                format!(r#"{{"Signal":{{"receiver":"{to}","data":""#),
                r#""}}"#,
            ),
        };
        let filling = size.saturating_sub(head.len() + tail.len() + DIGITS + 1);
        format!("{head}{MARK}{nanos:016x}{}{tail}", "x".repeat(filling))
    }

    pub(crate) fn leave(self) -> Option<&'static str> {
        (self == Self::Callbox).then_some(r#"{"type":"leave"}"#)
    }

    /// Tells whether one message reaches all others of a room.
    pub(crate) fn broadcasts(self) -> bool {
        matches!(self, Self::Callbox | Self::Rooms)
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
