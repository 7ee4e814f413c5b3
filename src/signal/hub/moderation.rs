//! What a peer says of itself, and what a host does to others and to the room.

use super::requests::{Answer, Requester};
use super::routing::Place;
use super::{Cx, Effect, Hub};
use crate::auth::{Grant, Role};
use crate::protocol::{
    Body, CloseCode, ErrorCode, LeaveReason, MAX_METADATA, MAX_METADATA_DEPTH, Media, PeerId,
    RequestError, RoomPatch, ServerMessage, is_deeper_than, is_foreign_room,
};
use crate::signal::room::{Member, PasswordHash, Room};
use rand::RngExt;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Bytes of the rooms in one reply to `rooms`: half of what an outbox holds by default.
const MAX_ROOM_LIST: usize = 128 * 1024;

impl Hub {
    pub(super) fn state(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        patch: Map<String, Value>,
    ) -> Result<Answer, RequestError> {
        self.session(requester)?;
        self.may_send(requester, || {
            serde_json::to_string(&patch).map_or(0, |text| text.len())
        })?;
        let session = self
            .sessions
            .get_mut(requester.peer)
            .expect("looked up above");
        let mut state = match &session.state {
            Some(raw) => serde_json::from_str(raw.get()).expect("a state is kept as an object"),
            None => Map::new(),
        };
        merge(&mut state, patch);
        let raw = to_raw_value(&state).expect("a JSON object is serialisable");
        if raw.get().len() > MAX_METADATA {
            let message = format!("the merged state has at most {MAX_METADATA} bytes");
            return Err(RequestError::new(ErrorCode::TooLarge, message));
        }
        if is_deeper_than(raw.get(), MAX_METADATA_DEPTH) {
            let message = format!("`state` nests at most {MAX_METADATA_DEPTH} levels deep");
            return Err(RequestError::new(ErrorCode::InvalidMessage, message));
        }
        session.state = (!state.is_empty()).then_some(raw);
        self.note_session(requester.peer);
        self.broadcast_peer_state(cx, requester.peer, Some(requester.peer));
        Ok(Answer::Ack)
    }

    pub(super) fn mute(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        media: Media,
        muted: bool,
        to: Option<String>,
        rest: &str,
    ) -> Result<Answer, RequestError> {
        match to {
            Some(to) if to != requester.peer.to_string() => {
                self.may_send(requester, || rest.len())?;
                let (room, target) = self.member_under_host(requester, &to)?;
                let place = Place::Room(room);
                let body = self.stamped(cx, requester.kind, requester.peer, &place, None, rest);
                self.sessions.send(cx.effects, target, body);
                Ok(Answer::Ack)
            }
            _ => {
                let mut kinds = Map::new();
                kinds.insert(media.as_str().to_owned(), json!(muted));
                let mut patch = Map::new();
                patch.insert("muted".to_owned(), Value::Object(kinds));
                self.state(cx, requester, patch)
            }
        }
    }

    pub(super) fn kick(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        target: &str,
        reason: Option<String>,
    ) -> Result<Answer, RequestError> {
        let (room, peer) = self.member_under_host(requester, target)?;
        self.not_over_tokens_host(&room, requester, peer)?;
        self.remove_member(cx, peer, reason.as_deref().unwrap_or("kicked"));
        Ok(Answer::Ack)
    }

    pub(super) fn grant(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        target: &str,
        role: Role,
    ) -> Result<Answer, RequestError> {
        let room = self.room_as_host(requester)?;
        let peer = PeerId::parse(target).ok_or_else(no_such_member)?;
        if role != Role::Host {
            self.not_over_tokens_host(&room, requester, peer)?;
        }
        let room_id = room;
        let room = self
            .rooms
            .get_mut(&room_id)
            .expect("a session's room exists");
        room.set_role(peer, role).map_err(|code| match code {
            ErrorCode::NoSuchPeer => no_such_member(),
            _ => RequestError::new(code, "a room's last host stays host"),
        })?;
        if role != Role::Host {
            self.void_invitations(&room_id, peer);
        }
        self.note_member(&room_id, peer);
        self.broadcast_peer_state(cx, peer, None);
        Ok(Answer::Ack)
    }

    pub(super) fn change_room(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        patch: RoomPatch,
    ) -> Result<Answer, RequestError> {
        let room = self.room_as_host(requester)?;
        let repolicy = self.patch(cx, &room, patch, Some(requester.peer))?;
        let body = self.room_body(requester)?;
        self.reply(cx, requester, body);
        if repolicy {
            self.push_ice_to_all(cx, &room);
        }
        Ok(Answer::Sent)
    }

    /// The reply to `room`.
    pub(super) fn room_body(&self, requester: &Requester) -> Result<Body, RequestError> {
        let room = self.room_of(requester.peer)?.view();
        Ok(Body::new(
            &ServerMessage::RoomUpdated { room },
            requester.id(),
        ))
    }

    pub(super) fn list_rooms(
        &self,
        requester: &Requester,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let session = self.sessions.get(requester.peer);
        let granted = match grant {
            Ok(grant) => grant.list_rooms,
            Err(refusal) if session.is_none() => return Err(refusal),
            Err(_) => false,
        };
        let may = granted
            || self.settings.list_rooms
            || session.is_some_and(|session| session.may_list_rooms);
        if !may {
            return Err(RequestError::new(
                ErrorCode::Forbidden,
                "rooms are not listed",
            ));
        }
        let mut here = (self.rooms.values())
            .filter(|room| !is_foreign_room(&room.id))
            .map(Room::counted_view)
            .peekable();
        let others = self.other_rooms();
        let mut there = (others.into_iter())
            .flat_map(|others| &others.rooms)
            .map(|room| room.view())
            .peekable();
        let (mut rooms, mut bytes, mut is_cut) = (vec![], 0, false);
        loop {
            let is_there = match (here.peek(), there.peek()) {
                (Some(here), Some(there)) => there.room_id < here.room_id,
                (here, _) => here.is_none(),
            };
            let Some(room) = (if is_there { there.next() } else { here.next() }) else {
                break;
            };
            // 200 bytes hold the fields of fixed size with their names.
            bytes += 200 + room.room_id.len() + room.metadata.map_or(0, |m| m.get().len());
            if bytes > MAX_ROOM_LIST {
                is_cut = true;
                break;
            }
            rooms.push(room);
        }
        let truncated = is_cut || others.is_some_and(|others| others.truncated);
        let partial = others.map_or(&[][..], |others| &others.partial);
        Ok(Answer::Reply(Body::new(
            &ServerMessage::Rooms {
                rooms,
                truncated,
                partial,
            },
            requester.id(),
        )))
    }

    /// Removes a member who is told why.
    pub(super) fn remove_member(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: &str) {
        let kicked = Body::new(&ServerMessage::Kicked { reason }, None);
        self.sessions.send(cx.effects, peer, kicked);
        self.revoke_bearer(cx, peer);
        if let Some(room) = self
            .sessions
            .get(peer)
            .and_then(|session| session.room.clone())
        {
            self.void_invitations(&room, peer);
        }
        self.evict(cx, peer, LeaveReason::Kicked, CloseCode::Kicked, "kicked");
    }

    /// Revokes what the bearer of a session's token took over HTTP.
    pub(super) fn revoke_bearer(&self, cx: &mut Cx<'_>, peer: PeerId) {
        if let Some(session) = self.sessions.get(peer)
            && let Some(identity) = session.bearer.clone()
        {
            let network = session.network;
            let revoked = Effect::RevokeIdentity { identity, network };
            cx.effects.push(revoked);
        }
    }

    /// Changes a room and tells its members but `except`; returns whether all of them need to be
    /// told of another ICE policy.
    pub(super) fn patch(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        patch: RoomPatch,
        except: Option<PeerId>,
    ) -> Result<bool, RequestError> {
        if patch.relay_only == Some(true) && !self.ice.has_relay() {
            return Err(no_relay());
        }
        let is_unseen = |member: &Member| {
            let session = self.sessions.get(member.peer);
            session.is_some_and(|session| !session.dialect.can_be_filtered())
        };
        let has_unseen = |room: &Room| room.members().iter().any(is_unseen);
        if patch.relay_only == Some(true)
            && (is_foreign_room(name) || self.rooms.get(name).is_some_and(has_unseen))
        {
            return Err(cannot_be_filtered());
        }
        let mut room = self.remove_room(name).ok_or_else(no_such_room)?;
        let relay_only = room.relay_only;
        self.apply(&mut room, patch);
        let repolicy = room.relay_only != relay_only;
        let body = Body::new(&ServerMessage::RoomUpdated { room: room.view() }, None);
        self.note_room(&room.id);
        self.insert_room(room);
        self.broadcast(cx, name, except, &body);
        Ok(repolicy)
    }

    pub(super) fn apply(&mut self, room: &mut Room, patch: RoomPatch) {
        if let Some(locked) = patch.locked {
            room.locked = locked;
        }
        if let Some(max_peers) = patch.max_peers {
            room.max_peers = max_peers.min(self.settings.max_peers);
        }
        if let Some(password) = patch.password {
            room.password =
                password.map(|password| PasswordHash::new(&password, self.rng.random()));
        }
        if let Some(metadata) = patch.metadata {
            room.metadata = metadata;
        }
        if let Some(relay_only) = patch.relay_only {
            room.relay_only = relay_only;
        }
    }

    fn not_over_tokens_host(
        &self,
        room: &str,
        requester: &Requester,
        target: PeerId,
    ) -> Result<(), RequestError> {
        if self.rooms[room].rules_over(requester.peer, target) {
            return Ok(());
        }
        let message = "a token makes that peer host, and yours does not make you one";
        Err(RequestError::new(ErrorCode::Forbidden, message))
    }

    pub(super) fn room_as_host(&self, requester: &Requester) -> Result<Arc<str>, RequestError> {
        let room = self.room_of(requester.peer)?;
        match room.member(requester.peer) {
            Some(member) if member.role == Role::Host => Ok(room.id.clone()),
            _ => Err(RequestError::new(
                ErrorCode::Forbidden,
                "only a host may do that",
            )),
        }
    }

    /// Another member of the room whose host the asker is.
    fn member_under_host(
        &self,
        requester: &Requester,
        target: &str,
    ) -> Result<(Arc<str>, PeerId), RequestError> {
        let room = self.room_as_host(requester)?;
        PeerId::parse(target)
            .filter(|peer| *peer != requester.peer && self.rooms[&room].member(*peer).is_some())
            .map(|peer| (room, peer))
            .ok_or_else(no_such_member)
    }
}

pub(super) fn no_relay() -> RequestError {
    RequestError::new(ErrorCode::NoRelay, "the server has no relay")
}

pub(super) fn cannot_be_filtered() -> RequestError {
    let message =
        "what clients of this protocol say to each other cannot be kept from showing addresses";
    RequestError::new(ErrorCode::Forbidden, message)
}

pub(super) fn no_such_room() -> RequestError {
    RequestError::new(ErrorCode::NoSuchRoom, "no such room")
}

pub(super) fn no_such_member() -> RequestError {
    RequestError::new(ErrorCode::NoSuchPeer, "no such member of the room")
}

/// Applies a merge patch (RFC 7396). Parsing bounds the depth of both.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(patch) => {
                let slot = target.entry(key).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(inner) = slot {
                    merge(inner, patch);
                }
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}
