//! What the operator sees and does.

use super::moderation::{no_such_member, no_such_room};
use super::{Cx, Effect, Hub, Now};
use crate::protocol::{
    Body, CloseCode, LeaveReason, PeerId, PeerView, RequestError, RoomPatch, RoomView,
    ServerMessage,
};
use crate::signal::room::Room;
use serde::Serialize;
use serde_json::value::RawValue;
use std::ops::Bound;

/// A room with its members, as the admin API shows it.
#[derive(Debug, Serialize)]
pub struct RoomInfo<'a> {
    /// The room.
    #[serde(flatten)]
    pub room: RoomView<'a>,
    /// Its members, in the order in which they came.
    pub members: Vec<PeerView<'a>>,
}

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerInfo {
    /// Its name.
    pub identity: String,
    /// Its room; `None` for a registration.
    pub room_id: Option<String>,
}

impl Hub {
    /// All rooms by name, each with its count of members.
    pub fn rooms(&self) -> impl Iterator<Item = RoomView<'_>> {
        self.rooms_from("")
    }

    /// Those from the one of that name on.
    pub fn rooms_from(&self, name: &str) -> impl Iterator<Item = RoomView<'_>> {
        let from = (Bound::Included(name), Bound::Unbounded);
        let rooms = self.rooms.range::<str, _>(from);
        rooms.map(|(_, room)| room.counted_view())
    }

    /// One room with its members.
    pub fn room(&self, name: &str) -> Option<RoomInfo<'_>> {
        let room = self.rooms.get(name)?;
        let members = room
            .members()
            .iter()
            .map(|member| self.peer_view(member))
            .collect();
        Some(RoomInfo {
            room: room.counted_view(),
            members,
        })
    }

    /// Whose relays those of the TURN user `user` are.
    pub fn peer(&self, user: &str) -> Option<PeerInfo> {
        let peer = PeerId::parse(user)?;
        let session = self.sessions.get(peer)?;
        Some(PeerInfo {
            identity: session.name(peer).into_owned(),
            room_id: session.room.as_deref().map(str::to_owned),
        })
    }

    /// Sends `notify` to every member; returns how many there are.
    ///
    /// # Errors
    /// `no-such-room`.
    pub fn notify(
        &mut self,
        now: Now,
        room: &str,
        content: &RawValue,
        effects: &mut Vec<Effect>,
    ) -> Result<usize, RequestError> {
        let count = self
            .rooms
            .get(room)
            .ok_or_else(no_such_room)?
            .members()
            .len();
        let body = Body::new(&ServerMessage::Notify { content }, None);
        self.broadcast(&mut Cx { now, effects }, room, None, &body);
        Ok(count)
    }

    /// Changes a room and tells its members.
    ///
    /// # Errors
    /// `no-such-room`, or `no-relay`.
    pub fn patch_room(
        &mut self,
        now: Now,
        room: &str,
        patch: RoomPatch,
        effects: &mut Vec<Effect>,
    ) -> Result<RoomView<'_>, RequestError> {
        let cx = &mut Cx { now, effects };
        if self.patch(cx, room, patch, None)? {
            self.push_ice_to_all(cx, room);
        }
        self.rooms
            .get(room)
            .map(Room::counted_view)
            .ok_or_else(no_such_room)
    }

    /// Ends the sessions of all members; returns how many they were.
    ///
    /// # Errors
    /// `no-such-room`.
    pub fn close_room(
        &mut self,
        now: Now,
        room: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<usize, RequestError> {
        let cx = &mut Cx { now, effects };
        // Removed first: with nobody left to tell, a room of n costs n frames and not n².
        let room = self.rooms.remove(room).ok_or_else(no_such_room)?;
        self.members -= room.members().len();
        for member in room.members() {
            let session = self
                .sessions
                .get_mut(member.peer)
                .expect("a member has a session");
            session.room = None;
        }
        for member in room.members() {
            self.send_own_leave(cx, member.peer, LeaveReason::RoomClosed);
            let (reason, code) = (LeaveReason::RoomClosed, CloseCode::RoomClosed);
            self.evict(cx, member.peer, reason, code, "room closed");
        }
        Ok(room.members().len())
    }

    /// Removes a member as a kick does.
    ///
    /// # Errors
    /// `no-such-room` or `no-such-peer`.
    pub fn remove_peer(
        &mut self,
        now: Now,
        room: &str,
        peer: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RequestError> {
        let room = self.rooms.get(room).ok_or_else(no_such_room)?;
        let peer = PeerId::parse(peer)
            .filter(|peer| room.member(*peer).is_some())
            .ok_or_else(no_such_member)?;
        self.remove_member(&mut Cx { now, effects }, peer, "removed by the operator");
        Ok(())
    }

    /// Revokes a session's credentials, which it may renew; returns whether there is such a
    /// session with credentials.
    pub fn revoke(&mut self, user: &str, effects: &mut Vec<Effect>) -> bool {
        let Some(peer) = PeerId::parse(user) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(peer) else {
            return false;
        };
        let Some(revoked_until) = session.minted else {
            return false;
        };
        session.revoked_until = Some(revoked_until);
        effects.push(Effect::Revoke {
            user: peer,
            revoked_until,
            network: session.network,
        });
        true
    }
}
