//! What clients are shown of sessions, members and rooms.

use super::requests::Requester;
use super::session::Session;
use super::{Cx, Hub};
use crate::protocol::{
    Body, Entry, ErrorCode, LeaveReason, PeerId, PeerView, RequestError, Resumption, ServerMessage,
    StateView,
};
use crate::signal::room::{Member, Room};

impl Hub {
    /// The text of `joined`, `registered` or `resumed`, with fresh credentials.
    pub(super) fn session_started_body(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        resumption: Option<Resumption>,
        id: Option<&str>,
    ) -> Body {
        let ice = self.mint(cx, peer);
        let session = self
            .sessions
            .get(peer)
            .expect("an entry is made for a session");
        let room = session.room.as_ref().map(|room| &self.rooms[room]);
        let entry = Entry {
            room_id: session.room.as_deref(),
            peer_id: peer,
            identity: session.name(peer),
            role: room
                .and_then(|room| room.member(peer))
                .map(|member| member.role),
            peers: room.map(|room| self.others(room, peer)),
            room: room.map(Room::view),
            ice,
            resume_token: session.token,
            resume_window: self.settings.resume_window.as_secs(),
            resumption,
        };
        let message = match (&entry.resumption, &entry.room) {
            (Some(_), _) => ServerMessage::Resumed(entry),
            (None, Some(_)) => ServerMessage::Joined(entry),
            (None, None) => ServerMessage::Registered(entry),
        };
        Body::new(&message, id)
    }

    pub(super) fn session(&self, requester: &Requester) -> Result<&Session, RequestError> {
        self.sessions
            .get(requester.peer)
            .ok_or_else(|| RequestError::new(ErrorCode::NotInRoom, "join or register first"))
    }

    pub(super) fn room_of(&self, peer: PeerId) -> Result<&Room, RequestError> {
        self.sessions
            .get(peer)
            .and_then(|session| session.room.as_ref())
            .map(|room| &self.rooms[room])
            .ok_or_else(|| RequestError::new(ErrorCode::NotInRoom, "join a room first"))
    }

    /// Whoever is in `room` beside `peer`.
    pub(super) fn others<'a>(&'a self, room: &Room, peer: PeerId) -> Vec<PeerView<'a>> {
        room.others(peer)
            .map(|member| self.peer_view(member))
            .collect()
    }

    pub(super) fn peer_view(&self, member: &Member) -> PeerView<'_> {
        let session = self
            .sessions
            .get(member.peer)
            .expect("a member has a session");
        PeerView {
            peer_id: member.peer,
            identity: session.name(member.peer),
            role: member.role,
            state: StateView(session.state.as_deref()),
            metadata: session.metadata.as_deref(),
            joined_at: member.joined_at,
            connection: session.presence(),
            dialect: session.shown,
        }
    }

    /// Tells the room of a peer's state, role and presence.
    pub(super) fn broadcast_peer_state(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        except: Option<PeerId>,
    ) {
        let Ok(room) = self.room_of(peer) else { return };
        let (Some(member), room) = (room.member(peer), room.id.clone()) else {
            return;
        };
        let view = self.peer_view(member);
        let message = ServerMessage::PeerState {
            peer_id: peer,
            identity: view.identity,
            role: view.role,
            state: view.state,
            connection: view.connection,
        };
        let body = Body::new(&message, None);
        self.broadcast(cx, &room, except, &body);
    }

    /// Tells a session that it is itself out, where nobody stays to tell the others.
    pub(super) fn send_own_leave(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: LeaveReason) {
        let Some(session) = self.sessions.get(peer) else {
            return;
        };
        let left = ServerMessage::PeerLeft {
            peer_id: peer,
            identity: session.name(peer),
            reason,
        };
        let body = Body::new(&left, None);
        self.sessions.send(cx.effects, peer, body);
    }
}
