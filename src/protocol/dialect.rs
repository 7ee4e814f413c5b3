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
        /// The tutorial with identities: each member that learns of a newcomer offers.
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
        /// Socket.IO.
        SocketIo = "socketio",
    }
}

/// Between a protocol and a room of its own. Names that clients choose hold no controls.
const OF: char = '\u{1f}';

/// The room of all whose token names no single one.
const LOBBY: &str = "lobby";

/// The name of a room without the protocol whose own it is, and without the part of it.
pub fn room_name(room: &str) -> &str {
    room.rsplit_once(OF).map_or(room, |(_, name)| name)
}

/// The room that a client enters which asks for [`DialectKind::own_lobby`]; nothing for another room.
pub fn room_of_lobby(room: &str, token_room: Option<&str>) -> Option<String> {
    let is_lobby = room.ends_with(OF);
    is_lobby.then(|| format!("{room}{}", token_room.unwrap_or(LOBBY)))
}

/// Whether only clients of one foreign protocol enter the room.
pub fn is_foreign_room(room: &str) -> bool {
    room.contains(OF)
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
        !matches!(self, Self::Tutorial | Self::SocketIo)
    }

    /// Whether the hub sees all that its clients say to each other in a room: those of MQTT have the
    /// topic as well, so that they are not members of a room that shows no addresses.
    pub const fn can_be_filtered(self) -> bool {
        !matches!(self, Self::Mqtt)
    }

    /// Whether a call can ring at its clients: those of Socket.IO are in rooms of their own, and what
    /// MQTT publishes to the topic of a room has no word for a call.
    pub const fn can_be_called(self) -> bool {
        !matches!(self, Self::SocketIo | Self::Mqtt)
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

    /// The hub's name of a room that clients of this protocol alone enter: no client can write it.
    pub fn own_room(self, room: &str) -> String {
        format!("{}{OF}{room}", self.as_str())
    }

    /// A room of one part of this protocol, which clients of its other parts do not enter.
    pub fn own_room_of(self, part: &str, room: &str) -> String {
        format!("{}{OF}{part}{OF}{room}", self.as_str())
    }

    /// The lobby of one part of this protocol: the room of the client's token, where that names one.
    pub fn own_lobby(self, part: &str) -> String {
        self.own_room_of(part, "")
    }

    /// What other peers are shown; nothing for the native protocol.
    pub const fn shown(self) -> Option<Self> {
        match self {
            Self::Native => None,
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_of_a_part_is_of_no_other_part_and_has_its_name() {
        let kind = DialectKind::SocketIo;
        let rooms = [
            kind.own_room("r"),
            kind.own_room("call/r"),
            kind.own_room_of("call", "r"),
            kind.own_room_of("mesh", "r"),
        ];
        let distinct: std::collections::BTreeSet<_> = rooms.iter().collect();
        assert_eq!(distinct.len(), rooms.len());
        assert_eq!(
            rooms.each_ref().map(|room| room_name(room)),
            ["r", "call/r", "r", "r"]
        );
        assert!(rooms.iter().all(|room| is_foreign_room(room)));
        let lobby = kind.own_lobby("call");
        let entered = |token| room_of_lobby(&lobby, token);
        assert_eq!(entered(None), Some(kind.own_room_of("call", "lobby")));
        assert_eq!(entered(Some("r")), Some(rooms[2].clone()));
        for room in rooms.iter().map(String::as_str).chain(["r", ""]) {
            assert_eq!(room_of_lobby(room, Some("r")), None);
        }
    }
}
