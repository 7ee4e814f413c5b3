//! What happens to connections between nodes when a link is reset, or a node is gone.
//!
//! After a reset, the edge names its connections to the home, and the home goes on with them where
//! nothing is lost (`ends`). What cannot go on is closed, and its client resumes. Where that concerns
//! many, they are closed over two seconds, so that they do not all come back at once.

use super::super::{Driver, State};
use super::ends::Position;
use super::{Route, SEEK, now};
use crate::protocol::{CloseCode, PeerId};
use crate::signal::dialect::Outgoing;
use crate::signal::hub::{ConnId, Event, Input, Loss};
use crate::signal::nodes::{NodeId, Word};
use std::collections::VecDeque;
use std::sync::MutexGuard;

/// Connections that are closed in one tick in any case, and the ticks that all of them take otherwise.
const AT_ONCE: usize = 64;
const TICKS: usize = 8;

const LOST: &str = "the node of the room is lost";
const RESET: &str = "the way to the room was interrupted: resume";

/// Connections that are to be closed, a share in each tick.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    waiting: VecDeque<Doom>,
    /// How many were closed since the last tick.
    closed: usize,
    /// How many are closed in each tick.
    share: usize,
}

#[derive(Debug, Clone, Copy)]
struct Doom {
    conn: ConnId,
    /// Where its session was.
    node: NodeId,
    code: CloseCode,
    reason: &'static str,
}

impl Doomed {
    /// Whether a connection is closed now; it waits for a tick otherwise.
    fn goes(&mut self, doom: Doom) -> bool {
        let goes = self.waiting.is_empty() && self.closed < AT_ONCE;
        match goes {
            true => self.closed += 1,
            false => self.waiting.push_back(doom),
        }
        goes
    }

    /// Those that are closed in this tick.
    fn tick(&mut self) -> Vec<Doom> {
        self.share = match self.waiting.len() {
            0 => 0,
            waiting => self.share.max(AT_ONCE).max(waiting.div_ceil(TICKS)),
        };
        let count = self.share.min(self.waiting.len());
        self.closed = count;
        self.waiting.drain(..count).collect()
    }
}

impl Driver {
    /// Ends the waits of clients that are over, and closes the next of those that are to be closed.
    /// Called four times a second.
    pub fn tick(&self) {
        self.end_seeks();
        let doomed = {
            let mut state = self.lock();
            (state.links.as_mut()).map_or_else(Vec::new, |links| links.doomed.tick())
        };
        for doom in doomed {
            self.close_doomed(doom);
        }
    }

    /// The link to a node was reset: what was on the way may be lost, and both nodes go on.
    pub fn link_reset(&self, node: NodeId, generation: u32) {
        let mut state = self.lock();
        let Some(links) = state.links.as_mut() else {
            return;
        };
        for guest in links.guests.values_mut() {
            if guest.node == node {
                guest.end.reset(generation);
            }
        }
        let routes = routes_of(links, node);
        for conn in &routes {
            if let Some(Route::Moving(moving)) = links.routes.get(conn)
                && let Some((to, word)) = moving.end_of_wait(conn.0, Loss::Disconnected)
                && to == node
            {
                links.nodes.say(node, word);
            }
            let Some(there) = links.there(*conn, node) else {
                continue;
            };
            let (vconn, peer) = (conn.0, there.standing.peer);
            let Position {
                seq,
                received,
                said,
                ..
            } = there.end.reset(generation);
            let word = Word::Attach {
                generation,
                vconn,
                peer,
                seq,
                received,
                said,
            };
            links.nodes.say(node, word);
        }
        links.nodes.say(node, Word::AllNamed { generation });
        state.forget_asked(|(of, _)| of == node);
        drop(state);
        for conn in routes {
            let state = self.lock();
            if state.is_asked(conn, node) {
                self.stop_moving(state, conn, node, RESET);
            }
        }
    }

    /// A node is gone for good: connections between it and this one end, and their clients resume.
    pub fn lost_node(&self, node: NodeId) {
        let mut state = self.lock();
        let Some(links) = state.links.as_mut() else {
            return;
        };
        let guests = links.conns.iter().filter(|((of, _), _)| *of == node);
        let mut guests: Vec<_> = guests.map(|((_, vconn), conn)| (*vconn, *conn)).collect();
        guests.sort_unstable();
        let routes = routes_of(links, node);
        for (vconn, _) in &guests {
            state.forget_guest(node, *vconn);
        }
        state.forget_asked(|(of, _)| of == node);
        self.run(state, |hub, now, effects| {
            for (_, conn) in guests {
                let loss = Loss::Disconnected;
                hub.handle(now, Input::Closed { conn, loss }, effects);
            }
        });
        for conn in routes {
            let state = self.lock();
            match state
                .links
                .as_ref()
                .and_then(|links| links.routes.get(&conn))
            {
                Some(Route::There(_)) => self.doom(state, conn, node, CloseCode::Restart, LOST),
                Some(Route::Moving(_)) => self.stop_moving(state, conn, node, LOST),
                None => {}
            }
        }
    }

    /// A client cannot get to where it wants to go: it keeps the session that it has here or at a third
    /// node, and comes again otherwise.
    fn stop_moving(
        &self,
        mut state: MutexGuard<'_, State>,
        conn: ConnId,
        node: NodeId,
        reason: &'static str,
    ) {
        let has_session = state.hub.has_session(conn);
        let Some(links) = state.links.as_mut() else {
            return;
        };
        let Some(Route::Moving(moving)) = links.routes.get(&conn) else {
            return;
        };
        let keeps = match &moving.from {
            Some(from) => from.node != node,
            None => has_session,
        };
        if keeps {
            return self.refuse_move(state, conn);
        }
        let code = match &moving.from {
            Some(_) => CloseCode::Restart,
            None => CloseCode::TryLater,
        };
        self.doom(state, conn, node, code, reason);
    }

    /// Closes a connection whose session was at that node, now or with the next ticks.
    fn doom(
        &self,
        mut state: MutexGuard<'_, State>,
        conn: ConnId,
        node: NodeId,
        code: CloseCode,
        reason: &'static str,
    ) {
        let doom = Doom {
            conn,
            node,
            code,
            reason,
        };
        let State {
            links, outboxes, ..
        } = &mut *state;
        if links.as_mut().is_some_and(|links| links.doomed.goes(doom)) {
            drop(state);
            return self.close_doomed(doom);
        }
        // What the client says from here on would be lost.
        if let Some(outbox) = outboxes.get(&conn) {
            outbox.hold(now().instant + SEEK);
        }
    }

    fn close_doomed(&self, doom: Doom) {
        let mut state = self.lock();
        if !state.is_of(doom.conn, doom.node) {
            return;
        }
        if let Some(links) = state.links.as_mut() {
            links.forget_route(doom.conn, Loss::Disconnected);
            links.flush();
        }
        self.close_here(state, doom.conn, doom.code, doom.reason);
    }

    /// The node of a connection says how far it is.
    pub(super) fn guest_attaches(&self, node: NodeId, vconn: u64, peer: PeerId, at: Position) {
        let mut state = self.lock();
        let State { hub, links, .. } = &mut *state;
        let Some(links) = links.as_mut() else {
            return;
        };
        let conn = links.conns.get(&(node, vconn)).copied();
        let end = conn.and_then(|conn| links.guests.get_mut(&conn));
        if end.as_ref().is_some_and(|guest| guest.end.is_stale(at)) {
            return;
        }
        let found = conn.zip(end).and_then(|(conn, guest)| {
            let lacks = hub.replay(conn, peer, at.seq)?;
            Some((conn, lacks, guest.end.attach(at)?))
        });
        if let Some((conn, lacks, held)) = found {
            links.nodes.say(node, Word::Attached { vconn });
            for (seq, body) in lacks {
                let (seq, event) = (Some(seq), Event::Native(body));
                links.send(conn, &Outgoing { peer, seq, event });
            }
            for frame in held {
                links.send(conn, &frame);
            }
            return links.flush();
        }
        links.nodes.say(node, Word::Detached { vconn });
        if state.forget_guest(node, vconn).is_some()
            && let Some(conn) = conn
        {
            let loss = Loss::Disconnected;
            self.run(state, |hub, now, effects| {
                hub.handle(now, Input::Closed { conn, loss }, effects);
            });
        }
    }

    /// A node has named all of its connections: those of before the reset that it has not are gone.
    pub(super) fn guests_are_named(&self, node: NodeId, generation: u32) {
        let mut state = self.lock();
        let Some(links) = state.links.as_mut() else {
            return;
        };
        let guests = links.guests.iter();
        let gone = guests
            .filter(|(_, guest)| guest.node == node && guest.end.is_detached_since(generation));
        let mut gone: Vec<_> = gone.map(|(conn, _)| *conn).collect();
        gone.sort_unstable();
        for conn in &gone {
            links.forget_guest(*conn);
        }
        self.run(state, |hub, now, effects| {
            for conn in gone {
                let loss = Loss::Disconnected;
                hub.handle(now, Input::Closed { conn, loss }, effects);
            }
        });
    }

    /// The home goes on with a connection.
    pub(super) fn attached(&self, node: NodeId, conn: ConnId) {
        let mut state = self.lock();
        if let Some(there) = (state.links.as_mut()).and_then(|links| links.there(conn, node)) {
            there.end.attached();
        }
    }

    /// The home cannot go on with a connection: its client resumes.
    pub(super) fn detached(&self, node: NodeId, conn: ConnId) {
        let state = self.lock();
        if state.is_of(conn, node) {
            self.doom(state, conn, node, CloseCode::Restart, RESET);
        }
    }
}

/// Connections here with a session at that node, or on their way there.
fn routes_of(links: &super::Links, node: NodeId) -> Vec<ConnId> {
    let mut routes: Vec<_> = links.routes.keys().copied().collect();
    routes.retain(|conn| links.is_of(*conn, node));
    routes.sort_unstable();
    routes
}

#[cfg(test)]
mod tests;
