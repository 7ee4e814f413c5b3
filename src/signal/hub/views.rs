//! What clients are shown of sessions, members and rooms.

use super::requests::Requester;
use super::session::Session;
use super::{Cx, Hub};
use crate::protocol::{
    Body, Entry, ErrorCode, LeaveReason, PeerId, PeerView, RequestError, Resumption, ServerMessage,
    StateView,
};
use crate::signal::room::{Member, Room};
use std::sync::Arc;

/// Bytes of peers in one frame: with what stands beside them, a list stays below the largest frame
/// that clients send, 64 KiB by default.
const MAX_PEERS: usize = 60 * 1024;
/// Bytes that ICE servers and all else but the room's metadata take in `joined`.
const BESIDE_PEERS: usize = 4 * 1024;

impl Hub {
    /// The text of `joined`, `registered` or `resumed`, with fresh credentials, and the frames that
    /// follow it where the room has more members than fit.
    pub(super) fn session_started_body(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        resumption: Option<Resumption>,
        id: Option<&str>,
    ) -> (Body, Vec<Body>) {
        let ice = self.mint(cx, peer);
        let session = self
            .sessions
            .get(peer)
            .expect("an entry is made for a session");
        let room = session.room.as_ref().map(|room| &self.rooms[room]);
        let metadata = room.and_then(|room| room.metadata.as_deref());
        let beside = BESIDE_PEERS + metadata.map_or(0, |metadata| metadata.get().len());
        let mut pages = room.map_or(vec![], |room| self.others(room, peer, beside));
        let rest = pages.split_off(pages.len().min(1));
        let entry = Entry {
            room_id: session.room.as_deref(),
            peer_id: peer,
            identity: session.name(peer),
            role: room
                .and_then(|room| room.member(peer))
                .map(|member| member.role),
            peers: pages.pop(),
            more: !rest.is_empty(),
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
        (Body::new(&message, id), peers_frames(rest, None))
    }

    /// The reply to `list`, and the frames that follow it.
    pub(super) fn peers(&self, room: &Room, requester: &Requester) -> (Body, Vec<Body>) {
        let pages = self.others(room, requester.peer, 0);
        let mut frames = peers_frames(pages, requester.id());
        let rest = frames.split_off(1);
        (frames.remove(0), rest)
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

    /// The members of `room` beside `peer`, in parts that fit into a frame each; `beside` bytes of the
    /// first one are taken.
    fn others<'a>(&'a self, room: &Room, peer: PeerId, beside: usize) -> Vec<Vec<PeerView<'a>>> {
        let (mut pages, mut bytes) = (vec![vec![]], beside);
        for view in room.others(peer).map(|member| self.peer_view(member)) {
            let size = view.size();
            let page = pages.last_mut().expect("there is a first part");
            if bytes + size > MAX_PEERS && !page.is_empty() {
                pages.push(vec![view]);
                bytes = size;
            } else {
                page.push(view);
                bytes += size;
            }
        }
        pages
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
        if let Some((room, body)) = self.peer_state(peer) {
            self.broadcast(cx, &room, except, &body);
        }
    }

    /// The same, to those members only who are online.
    pub(super) fn tell_online_of(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        let Some((room, body)) = self.peer_state(peer) else {
            return;
        };
        for member in self.rooms[&room].others(peer) {
            let is_online = (self.sessions.get(member.peer)).is_some_and(|s| s.conn().is_some());
            if is_online {
                self.sessions.send(cx.effects, member.peer, body.clone());
            }
        }
    }

    /// What the room of a peer is told of it, and which room that is.
    fn peer_state(&self, peer: PeerId) -> Option<(Arc<str>, Body)> {
        let room = self.room_of(peer).ok()?;
        let view = self.peer_view(room.member(peer)?);
        let message = ServerMessage::PeerState {
            peer_id: peer,
            identity: view.identity,
            role: view.role,
            state: view.state,
            connection: view.connection,
        };
        Some((room.id.clone(), Body::new(&message, None)))
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

/// `peers` frames of those parts, the first with the `id` of a request.
fn peers_frames(pages: Vec<Vec<PeerView<'_>>>, id: Option<&str>) -> Vec<Body> {
    let count = pages.len();
    let frame = |(n, peers)| {
        let more = n + 1 < count;
        Body::new(&ServerMessage::Peers { peers, more }, id.filter(|_| n == 0))
    };
    pages.into_iter().enumerate().map(frame).collect()
}
