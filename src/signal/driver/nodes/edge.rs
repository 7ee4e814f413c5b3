//! Connections here whose client has asked for something at another node: asked, entered, refused.

use super::super::{Closing, Driver, Outgoing, State, now};
use super::ends::EdgeEnd;
use super::route::frame;
use super::{Granted, MAX_ASTRAY, Message, RETRY, Route, SEEK, There, names};
use crate::protocol::{Body, CloseCode, Request, RequestError};
use crate::signal::hub::{ConnId, Event, Input, Loss, Standing};
use crate::signal::nodes::{Found, NodeId, Sought, Target, Word};
use std::collections::VecDeque;
use std::sync::MutexGuard;

impl Driver {
    /// It is known where what a connection's client asked for is.
    pub fn found(&self, conn: ConnId, found: Found) {
        let mut state = self.lock();
        let State { hub, links, .. } = &mut *state;
        let Some(links) = links.as_mut() else {
            return;
        };
        let Some(Route::Moving(moving)) = links.routes.get_mut(&conn) else {
            return;
        };
        if moving.to.is_some() {
            return;
        }
        match found {
            Found::There(node) => {
                moving.to = Some(node);
                let now = now();
                let entry = hub.standing(conn).zip(hub.client_of(conn));
                let revoked_until = hub.floor(now, conn);
                let place = match &moving.sought {
                    Sought::Room(room) => hub.locator(Some(room)),
                    Sought::People => hub.locator(None),
                    Sought::Located(place) => Some(*place),
                };
                let grant = Some(Box::new(Ok(moving.grant.clone())));
                let (Some((standing, (client, dialect))), Some(place), Some(frame)) =
                    (entry, place, frame(&moving.message, &grant))
                else {
                    return self.refuse_move(state, conn);
                };
                let word = Word::Enter {
                    vconn: conn.0,
                    peer: standing.peer,
                    client,
                    dialect,
                    revoked_until,
                    place,
                    frame,
                };
                links.nodes.say(node, word);
            }
            Found::Here => self.enter_here(state, conn),
            Found::Nowhere => self.refuse_move(state, conn),
        }
    }

    /// A room is at this node after all: the hub of this node judges.
    pub(super) fn enter_here(&self, mut state: MutexGuard<'_, State>, conn: ConnId) {
        let Some(moving) = state.take_moving(conn) else {
            return;
        };
        let given = Input::Frame {
            conn,
            message: Ok(moving.message),
            grant: Some(Box::new(Ok(moving.grant))),
        };
        let Some(there) = moving.from else {
            self.run(state, |hub, now, effects| hub.handle(now, given, effects));
            return self.go_on(conn, moving.behind);
        };
        let entered = self.run(state, |hub, now, effects| {
            let floor = hub.floor(now, conn);
            hub.came_back(now, conn, floor);
            hub.handle(now, given, effects);
            let entered = hub.has_session(conn);
            if !entered {
                hub.went_elsewhere(now, conn, effects);
            }
            entered
        });
        let mut state = self.lock();
        if let Some(links) = state.links.as_mut() {
            match entered {
                true => links.nodes.say(there.node, Word::Leave { vconn: conn.0 }),
                false => {
                    links.routes.insert(conn, Route::There(there));
                }
            }
        }
        drop(state);
        self.go_on(conn, moving.behind);
    }

    /// Nobody can say where a room is: a client with a session is told, another one comes again.
    pub(super) fn refuse_move(&self, mut state: MutexGuard<'_, State>, conn: ConnId) {
        let Some(moving) = state.take_moving(conn) else {
            return;
        };
        let has_session = state.hub.has_session(conn);
        let Some(links) = state.links.as_mut() else {
            return;
        };
        match moving.end_of_wait(conn.0, Loss::Disconnected) {
            Some((to, word)) => links.nodes.say(to, word),
            None if moving.to.is_none() => links.nodes.unsought(conn),
            None => {}
        }
        if moving.from.is_none() && !has_session {
            return self.close_here(
                state,
                conn,
                CloseCode::TryLater,
                "the node of the room is not known yet: try again",
            );
        }
        if let Some(there) = moving.from {
            links.routes.insert(conn, Route::There(there));
        }
        let id = moving.message.id;
        self.run(state, |hub, now, effects| {
            let error = RequestError::slow_down(RETRY);
            hub.refuse_request(now, conn, id.as_deref(), &error, effects);
        });
        self.go_on(conn, moving.behind);
    }

    /// Closes a connection of this node that has no session here.
    pub(super) fn close_here(
        &self,
        mut state: MutexGuard<'_, State>,
        conn: ConnId,
        code: CloseCode,
        reason: &'static str,
    ) {
        if let Some(links) = state.links.as_mut() {
            links.routes.remove(&conn);
        }
        let outbox = state.outboxes.get(&conn).cloned();
        let loss = Loss::Disconnected;
        self.run(state, |hub, now, effects| {
            hub.handle(now, Input::Closed { conn, loss }, effects);
        });
        if let Some(outbox) = outbox {
            outbox.close(Closing { code, reason });
        }
    }

    /// Goes on with a client whose place is known: what waited first.
    pub(super) fn go_on(&self, conn: ConnId, behind: VecDeque<(Message, Granted)>) {
        for (message, grant) in behind {
            self.input(Input::Frame {
                conn,
                message,
                grant,
            });
        }
        let state = self.lock();
        let is_moving = (state.links.as_ref())
            .is_some_and(|links| matches!(links.routes.get(&conn), Some(Route::Moving(_))));
        if !is_moving && let Some(outbox) = state.outboxes.get(&conn) {
            outbox.release();
        }
    }

    /// A connection here has a session at another node from here on.
    pub(super) fn entered(&self, node: NodeId, conn: ConnId, mut standing: Standing) {
        let mut state = self.lock();
        if !state.is_asked(conn, node) {
            return;
        }
        let Some(moving) = state.take_moving(conn) else {
            return;
        };
        standing.claims.clone_from(&moving.grant.claims);
        if let Some(links) = state.links.as_mut() {
            let end = match moving.from {
                // The other end goes on too.
                Some(from) if from.node == node => from.end,
                from => {
                    if let Some(from) = from {
                        links.nodes.say(from.node, Word::Leave { vconn: conn.0 });
                    }
                    match moving.message.request {
                        Request::Resume { seq, .. } => EdgeEnd::new(seq),
                        _ => EdgeEnd::new(0),
                    }
                }
            };
            let there = There {
                node,
                standing,
                end,
            };
            links.routes.insert(conn, Route::There(there));
        }
        self.run(state, |hub, now, effects| {
            hub.went_elsewhere(now, conn, effects);
        });
        self.go_on(conn, moving.behind);
    }

    /// A connection here has got an answer of another node, and is where it was.
    pub(super) fn refused(&self, node: NodeId, conn: ConnId) {
        let mut state = self.lock();
        if !state.is_asked(conn, node) {
            return;
        }
        let Some(moving) = state.take_moving(conn) else {
            return;
        };
        if names::is_claim(&moving.message.request) {
            // Its client waits for an answer, and none has come.
            let why = "the node of the names does not take the client: try again";
            return self.close_here(state, conn, CloseCode::TryLater, why);
        }
        if let (Some(links), Some(there)) = (state.links.as_mut(), moving.from) {
            links.routes.insert(conn, Route::There(there));
        }
        drop(state);
        self.go_on(conn, moving.behind);
    }

    /// A room was not where it was thought to be.
    pub(super) fn astray(&self, node: NodeId, conn: ConnId) {
        let mut state = self.lock();
        if !state.is_asked(conn, node) {
            return;
        }
        let Some(links) = state.links.as_mut() else {
            return;
        };
        if let Some(Route::Moving(moving)) = links.routes.get_mut(&conn) {
            moving.to = None;
            moving.astray += 1;
            if moving.astray > MAX_ASTRAY {
                return self.refuse_move(state, conn);
            }
            links.nodes.seek(conn, &moving.sought);
        }
    }

    /// A session at another node has ended, and its connection here has not.
    pub(super) fn left(&self, node: NodeId, conn: ConnId, revoked_until: Option<u64>) {
        let mut state = self.lock();
        let Some(links) = state.links.as_mut() else {
            return;
        };
        match links.routes.get_mut(&conn) {
            Some(Route::There(there)) if there.node == node => {
                links.routes.remove(&conn);
            }
            Some(Route::Moving(moving)) => {
                if moving.from.take_if(|from| from.node == node).is_none() {
                    return;
                }
            }
            _ => return,
        }
        self.run(state, |hub, now, _| hub.came_back(now, conn, revoked_until));
    }

    /// Puts a frame of another node into the outboxes of its receivers.
    pub(super) fn deliver(&self, node: NodeId, body: &Body, to: &[Target]) {
        let mut state = self.lock();
        state.inputs += 1;
        let input = state.inputs;
        for target in to {
            let conn = ConnId(target.vconn);
            if !state.is_of(conn, node) {
                continue;
            }
            let links = state.links.as_mut();
            if let Some(there) = links.and_then(|links| links.there(conn, node))
                && !there.end.takes(target.seq)
            {
                continue;
            }
            state.sent.0[body.kind() as usize] += 1;
            if let Some(outbox) = state.outboxes.get(&conn) {
                let frame = Outgoing {
                    peer: target.peer,
                    seq: target.seq,
                    event: Event::Native(body.clone()),
                };
                self.push(input, outbox, frame);
            }
        }
    }

    /// Ends the wait of clients for rooms that nobody finds.
    pub(super) fn end_seeks(&self) {
        if !self.is_open() {
            return;
        }
        let now = now().instant;
        let mut late = vec![];
        {
            let mut state = self.lock();
            let State {
                links, outboxes, ..
            } = &mut *state;
            for (conn, route) in links.iter_mut().flat_map(|links| &mut links.routes) {
                let Route::Moving(moving) = route else {
                    continue;
                };
                if moving.until > now {
                    continue;
                }
                // The node that has the session may have moved it already, and says so in any case, or
                // the link to it is reset: until then nobody can say which session the client has.
                let from = moving.from.as_ref().map(|from| from.node);
                if from.is_some() && from == moving.to {
                    moving.until = now + SEEK;
                    if let Some(outbox) = outboxes.get(conn) {
                        outbox.hold(moving.until + SEEK);
                    }
                    continue;
                }
                late.push(*conn);
            }
        }
        late.sort_unstable();
        for conn in late {
            self.refuse_move(self.lock(), conn);
        }
    }
}
