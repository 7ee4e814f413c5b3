//! Which protocol a connection speaks, and what follows from that for its session.

named! {
    /// The protocol of a connection.
    pub enum DialectKind {
        /// The one of `docs/protocol.md`.
        Native = "native",
        /// A WebSocket client of a tutorial, on `/`, that has not shown yet of which.
        Tutorial = "tutorial",
        /// The tutorial with rooms of members: newcomers offer, SDP as text or object.
        Tutorial0 = "tutorial-0",
        /// The tutorial with identities: whoever hears of a newcomer offers.
        Tutorial1 = "tutorial-1",
        /// The tutorial of one call between two pages, without rooms.
        Tutorial2 = "tutorial-2",
        /// The tutorial of the video chat: newcomers offer, SDP as object.
        Tutorial3 = "tutorial-3",
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

    /// Whether connections are counted under it: others only tell peers apart.
    pub const fn is_counted(self) -> bool {
        !matches!(
            self,
            Self::Native | Self::Tutorial0 | Self::Tutorial1 | Self::Tutorial2 | Self::Tutorial3
        )
    }

    /// What other peers are shown; nothing for the native protocol.
    pub const fn shown(self) -> Option<Self> {
        match self {
            Self::Native => None,
            other => Some(other),
        }
    }
}
