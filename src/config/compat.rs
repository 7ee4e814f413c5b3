//! The foreign protocols that the box speaks: the `[compat]` table.

use super::collect::Check;
use super::raw::Raw;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Defines the names once for reading, writing and listing.
macro_rules! protocols {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// An entry of `compat.enabled`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Protocol {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl Protocol {
            const NAMES: &[(&str, Self)] = &[$(($name, Self::$variant),)+];
        }
    };
}

protocols! {
    /// The clients of the tutorials, and what they need of Socket.IO, polling and MQTT.
    Tutorials = "tutorials",
    /// Socket.IO with the generic relay rule.
    SocketIo = "socketio",
    /// `GET` and `POST /api/messages`.
    Polling = "polling",
    /// PeerJS.
    PeerJs = "peerjs",
    /// y-webrtc.
    YWebrtc = "y-webrtc",
    /// trystero's ws-relay.
    Trystero = "trystero",
    /// MQTT over WebSocket.
    Mqtt = "mqtt",
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, protocol)| *protocol).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!(
                "is not a protocol that the box speaks: {}",
                names.join(", ")
            )
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, protocol)| protocol == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// What applications over Socket.IO expect of their server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketIoProfile {
    /// Events pass to the room or to a named target.
    #[default]
    Relay,
    /// Everybody is in one lobby and sees who is there.
    Lobby,
    /// `create or join room`, for two.
    Codelab,
    /// `join room` and signals by id, for five.
    Mesh,
    /// `callUser` and `answerCall`.
    Call,
}

/// The foreign protocols that are on.
#[derive(Debug, Clone, Default)]
pub struct Compat {
    /// Which.
    pub enabled: BTreeSet<Protocol>,
    /// `compat.socketio.profile`.
    pub socketio_profile: SocketIoProfile,
    /// Whether a page that opens a call without a room finds those that wait in silence: on
    /// loopback only, where nobody else waits.
    pub lobby: bool,
    /// `compat.peerjs.key`.
    pub peerjs_key: String,
    /// `compat.peerjs.paths`, with a slash at both ends.
    pub peerjs_paths: Vec<String>,
    /// `compat.peerjs.relay_only`.
    pub peerjs_relay_only: bool,
    /// `compat.y-webrtc.relay_only`.
    pub y_webrtc_relay_only: bool,
}

impl Compat {
    /// Whether `protocol` is on.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.enabled.contains(&protocol)
    }
}

impl Check<'_> {
    pub(super) fn compat(&mut self, raw: &Raw, is_loopback_and_open: bool) -> Compat {
        let enabled = match &raw.compat.enabled {
            Some(written) => written.iter().copied().collect(),
            // Nobody else reaches the box: the tutorials work as they are written.
            None if is_loopback_and_open => BTreeSet::from([Protocol::Tutorials]),
            None => BTreeSet::new(),
        };
        let socketio_profile = raw.compat.socketio.profile;
        if socketio_profile != SocketIoProfile::default() && !enabled.contains(&Protocol::SocketIo)
        {
            self.problem(
                "compat.socketio.profile",
                "",
                "is set, but compat.enabled does not name \"socketio\"",
            )
            .set_fix("add \"socketio\" to compat.enabled, or leave the profile out");
        }
        let peerjs = &raw.compat.peerjs;
        if peerjs.key.is_empty() {
            self.problem("compat.peerjs.key", "", "is empty")
                .set_fix("leave it out, or give clients a key to name");
        }
        let peerjs_paths = peerjs
            .paths
            .iter()
            .filter_map(|path| self.peerjs_path(path));
        Compat {
            enabled,
            socketio_profile,
            lobby: is_loopback_and_open,
            peerjs_key: peerjs.key.clone(),
            peerjs_paths: peerjs_paths.collect::<BTreeSet<_>>().into_iter().collect(),
            peerjs_relay_only: peerjs.relay_only,
            y_webrtc_relay_only: raw.compat.y_webrtc.relay_only,
        }
    }

    /// A prefix with a slash at both ends, as clients write it into their URLs.
    fn peerjs_path(&mut self, path: &str) -> Option<String> {
        let is_plain = |segment: &str| {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            !segment.is_empty() && segment.bytes().all(is_word) && !matches!(segment, "." | "..")
        };
        let bare = path.trim_matches('/');
        let reserved = ["v1", "ws", "sdk", "assets", "check", "admin"];
        let first = bare.split('/').next().unwrap_or("");
        if bare.is_empty() || bare.split('/').all(is_plain) && !reserved.contains(&first) {
            let slash = if bare.is_empty() { "" } else { "/" };
            return Some(format!("/{bare}{slash}"));
        }
        self.problem(
            "compat.peerjs.paths",
            path,
            "is not a path that can be given to PeerJS",
        )
        .set_fix("write \"/\", or segments of letters, digits and -._~ that the box does not use");
        None
    }
}
