//! What the operator sees and does.

use super::moderation::{no_such_member, no_such_room};
use super::{ConnId, Cx, Effect, Hub, Notice, Now, Party};
use crate::protocol::{
    Body, CloseCode, DialectKind, LeaveReason, PeerId, PeerView, Report, RequestError, RoomPatch,
    RoomView, ServerMessage,
};
use crate::signal::room::Room;
use serde::Serialize;
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

/// A room with its members, as the admin API shows it.
#[derive(Debug, Serialize)]
pub struct RoomInfo<'a> {
    /// The room.
    #[serde(flatten)]
    pub room: RoomView<'a>,
    /// Its members, in the order in which they came.
    pub members: Vec<MemberInfo<'a>>,
}

/// A member, as the admin API shows it.
#[derive(Debug, Serialize)]
pub struct MemberInfo<'a> {
    /// What the other members see.
    #[serde(flatten)]
    pub peer: PeerView<'a>,
    /// What it reported last of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<DatedReport>,
}

/// A report and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DatedReport {
    /// What the member said.
    #[serde(flatten)]
    pub report: Report,
    /// Unix milliseconds.
    pub ts: u64,
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

/// Who a connection's client is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its peer id, which it has before it has a session.
    pub peer: PeerId,
    /// Its name, once it has a session, or a name of another protocol.
    pub identity: Option<String>,
    /// Its room.
    pub room: Option<Arc<str>>,
    /// The claims of the token that gave it the session, where somebody is to be shown them.
    pub claims: Option<Arc<serde_json::Value>>,
}

impl Hub {
    /// Who the client of `conn` is.
    pub fn standing(&self, conn: ConnId) -> Option<Standing> {
        let peer = self.conns.get(&conn)?.peer;
        let session = self.sessions.get(peer);
        Some(Standing {
            peer,
            identity: session.map_or_else(
                || self.exchange_name(conn),
                |session| Some(session.name(peer).into_owned()),
            ),
            room: session.and_then(|session| session.room.clone()),
            claims: match session {
                Some(session) => session.claims.clone(),
                None => self
                    .exchange
                    .members
                    .get(&conn)
                    .and_then(|m| m.claims.clone()),
            },
        })
    }

    fn exchange_name(&self, conn: ConnId) -> Option<String> {
        let member = self.exchange.members.get(&conn)?;
        let name = member.identity.as_deref().or(member.name.as_deref());
        name.map(str::to_owned)
    }

    /// Whether there is that connection, of that client and dialect.
    pub fn has_connection(&self, conn: ConnId, client: IpAddr, dialect: DialectKind) -> bool {
        let conn = self.conns.get(&conn);
        conn.is_some_and(|conn| (conn.client, conn.dialect) == (client, dialect))
    }

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
            .map(|member| MemberInfo {
                peer: self.peer_view(member),
                report: (self.sessions.get(member.peer))
                    .and_then(|session| session.report.as_deref().copied()),
            })
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
        let room = self.remove_room(room).ok_or_else(no_such_room)?;
        self.note_room(&room.id);
        self.members -= room.members().len();
        for member in room.members() {
            let session = self
                .sessions
                .get_mut(member.peer)
                .expect("a member has a session");
            session.room = None;
        }
        for member in room.members() {
            let Party { peer_id, identity } = self.party(member.peer);
            self.notice(cx, || Notice::PeerLeft {
                room: room.id.clone(),
                peer_id,
                identity,
                reason: LeaveReason::RoomClosed,
            });
            self.send_own_leave(cx, member.peer, LeaveReason::RoomClosed);
            self.revoke_bearer(cx, member.peer);
            let (reason, code) = (LeaveReason::RoomClosed, CloseCode::RoomClosed);
            self.evict(cx, member.peer, reason, code, "room closed");
        }
        self.notice_room_ended(cx, &room.id, room.created_at);
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

    /// Ends the sessions and connections of clients that `is_denied`.
    pub fn drop_clients(
        &mut self,
        now: Now,
        is_denied: impl Fn(IpAddr) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let cx = &mut Cx { now, effects };
        let mut denied: Vec<_> = self.conns.iter().collect();
        denied.retain(|(_, entry)| is_denied(entry.client));
        let mut denied: Vec<_> = denied
            .iter()
            .map(|(id, entry)| (**id, entry.peer))
            .collect();
        denied.sort_unstable();
        for (conn, peer) in denied {
            let (code, text) = (CloseCode::Kicked, "refused by the operator");
            match self.sessions.get(peer).is_some() {
                true => self.evict(cx, peer, LeaveReason::Kicked, code, text),
                false => self.close_for_abuse(cx, conn, code, text),
            }
        }
    }

    /// Removes those whom a token names so.
    pub fn remove_identity(&mut self, now: Now, name: &str, effects: &mut Vec<Effect>) {
        let peers: Vec<_> = self.names.bearers(name).collect();
        for peer in peers {
            let session = self.sessions.get(peer);
            if session.is_some_and(|session| session.bearer.as_deref() == Some(name)) {
                let reason = "removed by the operator";
                self.remove_member(&mut Cx { now, effects }, peer, reason);
            }
        }
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
        self.note_session(peer);
        true
    }
}
