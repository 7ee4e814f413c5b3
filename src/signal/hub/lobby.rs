//! The lobby: where clients that know no rooms find each other. The first of them that speaks enters
//! a room, and with it all that wait for a call and have said nothing yet.

use super::requests::{Answer, Requester};
use super::{ConnId, Cx, Hub};
use crate::auth::{Grant, RoomPattern, RoomScope};
use crate::protocol::{ErrorCode, Join, RequestError, RoomPatch};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The room of those who name none.
const ROOM: &str = "default";

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

    fn empty(&mut self, lobby: &str) -> BTreeSet<ConnId> {
        self.0.remove(lobby).unwrap_or_default()
    }
}

impl Hub {
    /// Enters the room of the token, or else the one of all that name none.
    pub(super) fn enter_lobby(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let (room, is_open) = match grant.as_ref().map(|grant| &grant.rooms) {
            Ok(RoomScope::Matching(patterns)) => match &patterns[..] {
                [RoomPattern::Exact(room)] => (room.clone(), false),
                _ => {
                    let message = "the token names no single room to enter";
                    return Err(RequestError::new(ErrorCode::Forbidden, message));
                }
            },
            Ok(RoomScope::Any) | Err(_) => (ROOM.to_owned(), true),
        };
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
            let waiting = Requester::unasked(conn, entry.peer);
            // A full room holds no more: who does not get in waits on.
            if self.join(cx, &waiting, join(), Ok(Grant::open())).is_err() {
                self.lobbies.wait(&lobby, conn);
            }
        }
        Ok(answer)
    }
}
