//! The lobby: where clients that know no rooms find each other. The first of them that speaks enters
//! a room, and with it all that wait for a call and have said nothing yet.

use super::requests::{Answer, Requester};
use super::{ConnId, Cx, Hub};
use crate::auth::{Grant, RoomScope};
use crate::protocol::{ErrorCode, Join, RequestError, RoomPatch};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The room of those who name none.
const ROOM: &str = "default";

/// The room that the lobby is to the bearer of these rights, and whether it is the room of all that name
/// none; `None`: a token that names no single room.
pub(in crate::signal) fn lobby_room(rooms: &RoomScope) -> Option<(Cow<'_, str>, bool)> {
    match rooms {
        RoomScope::Matching(_) => Some((rooms.single()?, false)),
        RoomScope::Any => Some((Cow::Borrowed(ROOM), true)),
    }
}

/// Connections that wait in silence, by lobby; no more entries than connections.
#[derive(Debug, Default)]
pub(super) struct Lobbies(HashMap<Arc<str>, BTreeSet<ConnId>>);

impl Lobbies {
    pub(super) fn wait(&mut self, lobby: &Arc<str>, conn: ConnId) {
        self.0.entry(Arc::clone(lobby)).or_default().insert(conn);
    }

    pub(super) fn leave(&mut self, lobby: &str, conn: ConnId) {
        if let Some(waiting) = self.0.get_mut(lobby) {
            waiting.remove(&conn);
            if waiting.is_empty() {
                self.0.remove(lobby);
            }
        }
    }

    /// Every lobby with the connections that wait in it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeSet<ConnId>)> {
        self.0.iter()
    }

    fn empty(&mut self, lobby: &str) -> BTreeSet<ConnId> {
        self.0.remove(lobby).unwrap_or_default()
    }
}

impl Hub {
    /// Lets a client wait in a lobby that came without one: the backend was asked about it first.
    pub fn wait_in_lobby(&mut self, conn: ConnId, lobby: Arc<str>, grant: Grant) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        entry.waits_as = Some(Box::new(grant));
        self.lobbies.wait(&lobby, conn);
        entry.lobby = Some(lobby);
    }

    /// Enters the room of the token, or else the one of all that name none.
    pub(super) fn enter_lobby(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let any = RoomScope::Any;
        let rooms = grant.as_ref().map_or(&any, |grant| &grant.rooms);
        let Some((room, is_open)) = lobby_room(rooms) else {
            let message = "the token names no single room to enter";
            return Err(RequestError::new(ErrorCode::Forbidden, message));
        };
        let room = room.into_owned();
        let join = || Join {
            room_id: room.clone(),
            identity: None,
            token: None,
            password: None,
            metadata: None,
            create: RoomPatch::default(),
        };
        let answer = self.join(cx, requester, join(), grant)?;
        let entry = &self.conns[&requester.conn];
        let (shown, lobby) = (entry.shown, entry.lobby.clone());
        let Some(lobby) = lobby.filter(|_| is_open) else {
            return Ok(answer);
        };
        for conn in self.lobbies.empty(&lobby) {
            let Some(entry) = self.conns.get_mut(&conn) else {
                continue;
            };
            entry.shown = shown;
            let waits_as = entry.waits_as.clone();
            let waiting = Requester::unasked(conn, entry.peer);
            let rights = waits_as.map_or_else(Grant::open, |grant| *grant);
            // A full room holds no more: who does not get in waits on.
            if self.join(cx, &waiting, join(), Ok(rights)).is_err() {
                self.lobbies.wait(&lobby, conn);
            }
        }
        Ok(answer)
    }
}
