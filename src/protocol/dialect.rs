//! Which protocol a connection speaks, and what follows from that for its session.

named! {
    /// The protocol of a connection.
    pub enum DialectKind {
        /// The one of `docs/protocol.md`.
        Native = "native",
        /// The WebSocket clients of the tutorials, on `/`.
        Tutorial = "tutorial",
        /// The signaling of y-webrtc.
        YWebrtc = "y-webrtc",
        /// The `ws-relay` of trystero.
        Trystero = "trystero",
        /// PeerJS.
        PeerJs = "peerjs",
        /// MQTT 3.1.1 and 5.
        Mqtt = "mqtt",
    }
}

impl DialectKind {
    /// Whether a session may outlive its connection. Foreign clients cannot resume: the loss of
    /// their connection ends their session at once, and nothing is kept for them.
    pub const fn is_resumable(self) -> bool {
        matches!(self, Self::Native)
    }

    /// Whether a connection without a session is closed after a while. Pages of tutorials wait for
    /// a click, and topics need no session.
    pub const fn has_join_deadline(self) -> bool {
        !matches!(self, Self::Tutorial)
    }

    /// Whether the token, where one is needed, has to come with the connection's request: nothing
    /// in the protocol carries one later.
    pub const fn authenticates_at_once(self) -> bool {
        matches!(self, Self::Tutorial)
    }

    /// What other peers are shown; nothing for the native protocol.
    pub const fn shown(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            other => Some(other.as_str()),
        }
    }
}
