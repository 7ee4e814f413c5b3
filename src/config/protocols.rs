//! The names of foreign protocols, as `compat` writes them.

use serde::{Deserialize, Serialize};
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
