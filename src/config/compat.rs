//! The foreign protocols that the box speaks: the `[compat]` table.

use super::check::Check;
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
        Compat {
            enabled,
            socketio_profile,
            lobby: is_loopback_and_open,
        }
    }
}
