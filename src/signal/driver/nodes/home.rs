//! Connections of other nodes whose session is here.

use super::super::{Driver, State};
use super::names;
use crate::protocol::{ErrorCode, Locator, Request, RequestError, parse};
use crate::signal::hub::{ConnId, Guest, Hub, Input, Loss};
use crate::signal::nodes::{Frame, NodeId, Word};
use secrecy::ExposeSecret;

/// Connections that were asked again, at most: of more, some are asked twice.
const MAX_ASKED: usize = 65_536;

/// The input that another node's frame is.
fn input(conn: ConnId, frame: Frame) -> Input {
    if let Some(input) = names::read(conn, &frame.text) {
        return input;
    }
    let mut message = parse(&frame.text);
    if let Ok(message) = &mut message {
        message.dialect = frame.dialect;
        if let (Request::Join(join), Some(room)) = (&mut message.request, frame.room) {
            join.room_id = room;
        }
    }
    let grant = frame
        .grant
        .and_then(|grant| serde_json::from_str(&grant).ok());
    let refused = || RequestError::new(ErrorCode::Unauthorized, "the token allows nothing");
    Input::Frame {
        conn,
        message,
        grant: Some(Box::new(grant.ok_or_else(refused))),
    }
}

impl State {
    pub(super) fn forget_asked(&mut self, is_gone: impl Fn((NodeId, u64)) -> bool) {
        if let Some(links) = self.links.as_mut() {
            links.asked.retain(|asked| !is_gone(*asked));
        }
    }
}

impl Driver {
    /// Whether a resume has come from another node that would take a session away from a living
    /// connection. Where Redis has stood still, its client may have given up and resumed elsewhere since:
    /// so its node is asked to seek the room again, which it does for a client that still waits.
    pub(super) fn asks_again(
        &self,
        node: NodeId,
        vconn: u64,
        place: Locator,
        frame: &Frame,
    ) -> bool {
        if frame.room.is_some() {
            return false;
        }
        let Ok(Request::Resume { token, .. }) = parse(&frame.text).map(|message| message.request)
        else {
            return false;
        };
        let mut state = self.lock();
        let is_online = state.hub.is_online(token.expose_secret());
        let Some(links) = state.links.as_mut() else {
            return false;
        };
        let asker = (node, vconn);
        if links.asked.remove(&asker) || links.conns.contains_key(&asker) || !is_online {
            return false;
        }
        if links.asked.len() >= MAX_ASKED {
            links.asked.clear();
        }
        links.asked.insert(asker);
        links.nodes.say(node, Word::Astray { vconn, place });
        true
    }

    /// A connection of another node asks for a session here.
    pub(super) fn guest_enters(
        &self,
        node: NodeId,
        vconn: u64,
        guest: Guest,
        is_new: bool,
        frame: Frame,
    ) {
        let (state, conn) = (self.lock(), guest.conn);
        let is_admitted =
            |hub: &mut Hub, now, effects: &mut _| !is_new || hub.admits(now, guest.peer, effects);
        if !self.run(state, is_admitted) {
            // Its session has lost this connection as the link was reset: the client resumes.
            let mut state = self.lock();
            state.forget_guest(node, vconn);
            if let Some(links) = state.links.as_ref() {
                links.nodes.say(node, Word::Detached { vconn });
            }
            return;
        }
        let state = self.lock();
        let rights = (frame.grant.as_deref()).and_then(|grant| serde_json::from_str(grant).ok());
        let given = input(conn, frame);
        let standing = self.run_saying(state, |hub, now, effects| {
            if is_new {
                hub.receive(guest);
            }
            if let (
                Input::Frame {
                    message: Ok(message),
                    ..
                },
                Some(rights),
            ) = (&given, rights)
                && names::is_claim(&message.request)
            {
                hub.admit_to_names(conn, rights);
            }
            hub.handle(now, given, effects);
            let standing = hub.standing_here(conn);
            let said = standing.clone().map(|standing| {
                let (peer, identity) = (standing.peer, standing.identity);
                let room = standing.room.map(|room| room.to_string());
                let word = Word::Entered {
                    vconn,
                    peer,
                    identity,
                    room,
                };
                (node, word)
            });
            (standing, said)
        });
        if standing.is_none() {
            let mut state = self.lock();
            if state.forget_guest(node, vconn).is_none() {
                return;
            }
            if let Some(links) = state.links.as_ref() {
                links.nodes.say(node, Word::Refused { vconn });
            }
            let loss = Loss::Disconnected;
            self.run(state, |hub, now, effects| {
                hub.handle(now, Input::Closed { conn, loss }, effects);
            });
        }
    }

    /// The client of a connection of another node says something in its session.
    pub(super) fn guest_says(&self, node: NodeId, vconn: u64, number: u64, frame: Frame) {
        let mut state = self.lock();
        let Some(conn) = state.guest_of(node, vconn) else {
            return;
        };
        let links = state.links.as_mut();
        let guest = links.and_then(|links| links.guests.get_mut(&conn));
        if !guest.is_some_and(|guest| guest.end.takes(number)) {
            return;
        }
        let mut given = input(conn, frame);
        if let Some(links) = &mut state.links {
            if let Input::Frame {
                message: Ok(message),
                grant,
                ..
            } = given
            {
                let Some((message, grant)) = links.wait_for_rooms(conn, message, grant) else {
                    return;
                };
                given = Input::Frame {
                    conn,
                    message: Ok(message),
                    grant,
                };
            }
            links.sender = Some(conn);
        }
        let is_served = self.run(state, |hub, now, effects| {
            hub.handle(now, given, effects);
            hub.is_served(conn)
        });
        if is_served {
            return;
        }
        let mut state = self.lock();
        if state.forget_guest(node, vconn).is_none() {
            return;
        }
        let revoked_until = state.hub.floor(super::now(), conn);
        if let Some(links) = state.links.as_ref() {
            let word = Word::Left {
                vconn,
                revoked_until,
            };
            links.nodes.say(node, word);
        }
        let loss = Loss::Disconnected;
        self.run(state, |hub, now, effects| {
            hub.handle(now, Input::Closed { conn, loss }, effects);
        });
    }

    pub(super) fn of_guest(&self, node: NodeId, vconn: u64, given: impl FnOnce(ConnId) -> Input) {
        let state = self.lock();
        if let Some(conn) = state.guest_of(node, vconn) {
            let given = given(conn);
            self.run(state, |hub, now, effects| hub.handle(now, given, effects));
        }
    }
}
