//! The driver of one node among several: connections here whose session is at another node, and
//! connections of other nodes whose session is here.
//!
//! A connection goes to another node when its client asks for something that is there. Until the
//! answer has come, the client is not read, and what it has said already waits in order. All of it
//! happens under the lock of the hub, so that frames keep their order on both sides.

mod edge;
mod ends;
mod gate;
mod home;
mod lists;
mod moving;
mod names;
mod reasons;
mod reset;
mod route;

use super::{Driver, Outbox, Outgoing, State, now};
use crate::protocol::{Body, ClientMessage, CloseCode, FrameError, Locator};
use crate::signal::hub::{ConnId, Event, Granted, Guest, Input, Locate, Loss, Standing};
use crate::signal::nodes::{NodeId, Nodes, Target, Word};
use ends::{EdgeEnd, HomeEnd, Position};
use lists::Lists;
use moving::Moving;
use reasons::reason;
use reset::Doomed;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits at most until it is known where its room is.
const SEEK: Duration = Duration::from_secs(3);
/// When a client may ask again for a room that nobody could find.
const RETRY: Duration = Duration::from_secs(2);
/// Messages of one client that wait behind the one for which a node is sought: what one frame makes.
const MAX_BEHIND: usize = 64;
/// How long a client is not read once too much waits for its home.
const HEAVY: Duration = Duration::from_millis(50);
/// How often a room is sought whose home has just moved.
const MAX_ASTRAY: u32 = 3;
/// Inputs that wait for the gate. Clients are not read meanwhile, so that each has a few.
const MAX_GATED: usize = 1 << 20;

type Message = Result<ClientMessage, FrameError>;

/// Connections between this node and others.
pub(super) struct Links {
    nodes: Arc<dyn Nodes>,
    /// Connections here whose session is at another node, or on its way there.
    routes: HashMap<ConnId, Route>,
    /// Connections of other nodes whose session is here.
    guests: HashMap<ConnId, GuestOf>,
    conns: HashMap<(NodeId, u64), ConnId>,
    /// Connections of other nodes that were asked whether they still want a session.
    asked: HashSet<(NodeId, u64)>,
    /// What the effects at hand say to other nodes.
    said: Vec<(NodeId, Word)>,
    /// Inputs that came while the gate was shut.
    gated: VecDeque<Input>,
    lists: Lists,
    /// Whose input is being carried out.
    pub(super) sender: Option<ConnId>,
    doomed: Doomed,
}

/// Where a connection's session is.
pub(super) enum Route {
    There(There),
    Moving(Box<Moving>),
}

/// A session at another node.
pub(super) struct There {
    node: NodeId,
    standing: Standing,
    end: EdgeEnd,
}

/// Whose connection has a session here.
struct GuestOf {
    node: NodeId,
    vconn: u64,
    end: HomeEnd<Outgoing>,
}

/// How many connections there are between this node and others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remote {
    /// Connections here whose session is at another node.
    pub edge: usize,
    /// Sessions here whose connection is at another node.
    pub home: usize,
}

impl Links {
    fn new(nodes: Arc<dyn Nodes>) -> Self {
        Self {
            nodes,
            routes: HashMap::new(),
            guests: HashMap::new(),
            conns: HashMap::new(),
            asked: HashSet::new(),
            said: vec![],
            gated: VecDeque::new(),
            lists: Lists::default(),
            sender: None,
            doomed: Doomed::default(),
        }
    }

    /// Sends an event to a connection of another node; frames that several get go once.
    pub(super) fn send(&mut self, conn: ConnId, frame: &Outgoing) {
        let Some(guest) = self.guests.get_mut(&conn) else {
            return;
        };
        if !guest.end.sends(frame.seq, || frame.clone()) {
            return;
        }
        let (node, vconn) = (&guest.node, &guest.vconn);
        let Event::Native(body) = &frame.event else {
            let (vconn, peer) = (*vconn, frame.peer);
            let text = serde_json::to_string(&frame.event).unwrap_or_default();
            return self.said.push((*node, Word::Event { vconn, peer, text }));
        };
        let target = Target {
            vconn: *vconn,
            peer: frame.peer,
            seq: frame.seq,
        };
        let last = self.said.iter_mut().rev().find(|(to, _)| to == node);
        if let Some((_, Word::Send { text, to, .. })) = last
            && Arc::ptr_eq(text, &body.shared())
        {
            return to.push(target);
        }
        let word = Word::Send {
            kind: body.kind(),
            sender: body.sender(),
            text: body.shared(),
            to: vec![target],
        };
        self.said.push((*node, word));
    }

    /// Has the other node read nothing of a client for a while.
    pub(super) fn hold(&mut self, conn: ConnId, time: Duration) {
        if let Some(GuestOf { node, vconn, .. }) = self.guests.get(&conn) {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.said.push((*node, Word::Hold { vconn: *vconn, ms }));
        }
    }

    /// The hub has closed a connection.
    pub(super) fn closed(&mut self, conn: ConnId, code: CloseCode, reason: &'static str) {
        if let Some((node, vconn)) = self.forget_guest(conn) {
            let reason = reason.to_owned();
            let word = Word::Close {
                vconn,
                code,
                reason,
            };
            self.said.push((node, word));
        } else {
            self.forget_route(conn, Loss::Disconnected);
        }
    }

    /// Says what the effects have led to.
    pub(super) fn flush(&mut self) {
        for (node, word) in self.said.drain(..) {
            self.nodes.say(node, word);
        }
    }

    /// Says something before what waits.
    pub(super) fn say(&self, node: NodeId, word: Word) {
        self.nodes.say(node, word);
    }

    /// Has the hub's changes saved.
    pub(super) fn changed(&self) {
        self.nodes.changed();
    }

    fn forget_guest(&mut self, conn: ConnId) -> Option<(NodeId, u64)> {
        let GuestOf { node, vconn, .. } = self.guests.remove(&conn)?;
        self.conns.remove(&(node, vconn));
        Some((node, vconn))
    }

    /// The session at that node of a connection here.
    fn there(&mut self, conn: ConnId, at: NodeId) -> Option<&mut There> {
        let there = match self.routes.get_mut(&conn)? {
            Route::There(there) => there,
            Route::Moving(moving) => moving.from.as_mut()?,
        };
        (there.node == at).then_some(there)
    }

    /// A connection here is gone: the node of its session learns of it.
    fn forget_route(&mut self, conn: ConnId, loss: Loss) {
        let vconn = conn.0;
        let from = match self.routes.remove(&conn) {
            Some(Route::There(there)) => Some(there.node),
            Some(Route::Moving(moving)) => {
                match moving.end_of_wait(vconn, loss) {
                    Some(word) => self.said.push(word),
                    None if moving.to.is_none() => self.nodes.unsought(conn),
                    None => {}
                }
                moving.from.map(|there| there.node)
            }
            None => None,
        };
        if let Some(node) = from {
            self.said.push((node, Word::Closed { vconn, loss }));
        }
    }

    /// Whether frames of that node are for that connection.
    fn is_of(&self, conn: ConnId, of: NodeId) -> bool {
        match self.routes.get(&conn) {
            Some(Route::There(there)) => there.node == of,
            Some(Route::Moving(moving)) => {
                moving.to == Some(of) || moving.from.as_ref().is_some_and(|from| from.node == of)
            }
            None => false,
        }
    }
}

impl Driver {
    /// Makes this box a node among several, before it serves.
    pub fn join_cluster(&self, nodes: Arc<dyn Nodes>) {
        let _ = self.nodes.set(Arc::clone(&nodes));
        self.lock().links = Some(Box::new(Links::new(nodes)));
    }

    /// Says how rooms are found from here on, and has all of them saved anew.
    pub fn locate(&self, locate: Locate) {
        self.with_hub(|hub, _, _| hub.join_cluster(locate));
    }

    /// Whether inputs are taken: always, but in a node that other nodes may have given up.
    pub fn is_open(&self) -> bool {
        self.nodes.get().is_none_or(|nodes| nodes.is_open())
    }

    /// Connections between this node and others.
    pub fn remote(&self) -> Remote {
        let state = self.lock();
        let links = state.links.as_ref();
        links.map_or_else(Remote::default, |links| Remote {
            edge: links.routes.len(),
            home: links.guests.len(),
        })
    }

    /// Who the client of a connection is, wherever its session is, and whether there is that room here.
    pub(in crate::signal) fn standing(
        &self,
        conn: ConnId,
        room: Option<&str>,
    ) -> Option<(Standing, bool)> {
        let mut state = self.lock();
        let exists = room.is_some_and(|room| state.hub.has_room(room));
        let links = state.links.as_mut();
        let there = links.and_then(|links| match links.routes.get(&conn)? {
            Route::There(there) => Some(there.standing.clone()),
            Route::Moving(moving) => moving.from.as_ref().map(|from| from.standing.clone()),
        });
        Some((there.or_else(|| state.hub.standing(conn))?, exists))
    }

    /// Another node says something. Only one task at a time does so for each node.
    pub fn received(&self, node: NodeId, word: Word) {
        match word {
            Word::Enter {
                vconn,
                peer,
                client,
                dialect,
                revoked_until,
                place,
                frame,
            } => {
                if self.asks_again(node, vconn, place, &frame) {
                    return;
                }
                let (conn, is_new) = self.lock().guest(node, vconn);
                let guest = Guest {
                    conn,
                    peer,
                    client,
                    dialect,
                    revoked_until,
                };
                self.guest_enters(node, vconn, guest, is_new, frame);
            }
            Word::Frame {
                vconn,
                number,
                frame,
            } => self.guest_says(node, vconn, number, frame),
            Word::Attach {
                generation,
                vconn,
                peer,
                seq,
                received,
                said,
            } => {
                let at = Position {
                    generation,
                    seq,
                    received,
                    said,
                };
                self.guest_attaches(node, vconn, peer, at);
            }
            Word::AllNamed { generation } => self.guests_are_named(node, generation),
            Word::Attached { vconn } => self.attached(node, ConnId(vconn)),
            Word::Detached { vconn } => self.detached(node, ConnId(vconn)),
            Word::Confirmed { vconn, peer, seq } => {
                self.of_guest(node, vconn, |conn| Input::Confirmed { conn, peer, seq });
            }
            Word::Closed { vconn, loss } => {
                self.of_guest(node, vconn, |conn| Input::Closed { conn, loss });
                let mut state = self.lock();
                state.forget_guest(node, vconn);
                state.forget_asked(|asked| asked == (node, vconn));
            }
            Word::Leave { vconn } => {
                let mut state = self.lock();
                if let Some(conn) = state.forget_guest(node, vconn) {
                    self.run(state, |hub, now, effects| hub.left_for(now, conn, effects));
                }
            }
            Word::Cancel { vconn } => {
                let mut state = self.lock();
                if let Some(conn) = state.forget_guest(node, vconn) {
                    self.run(state, |hub, now, effects| hub.cancelled(now, conn, effects));
                }
            }
            Word::Entered {
                vconn,
                peer,
                identity,
                room,
            } => {
                let standing = Standing {
                    peer,
                    identity,
                    room: room.map(Arc::from),
                    claims: None,
                };
                self.entered(node, ConnId(vconn), standing);
            }
            Word::Refused { vconn } => self.refused(node, ConnId(vconn)),
            Word::Astray { vconn, .. } => self.astray(node, ConnId(vconn)),
            Word::Send {
                kind,
                sender,
                text,
                to,
            } => {
                if let Some(body) = Body::from_parts(kind, sender, text) {
                    self.deliver(node, &body, &to);
                }
            }
            Word::Event { vconn, peer, text } => {
                self.deliver_event(node, ConnId(vconn), peer, &text);
            }
            Word::Hold { vconn, ms } => {
                let (state, conn) = (self.lock(), ConnId(vconn));
                if state.is_of(conn, node)
                    && let Some(outbox) = state.outboxes.get(&conn)
                {
                    outbox.hold(now().instant + Duration::from_millis(ms).min(SEEK));
                }
            }
            Word::Close {
                vconn,
                code,
                reason: text,
            } => {
                let (mut state, conn) = (self.lock(), ConnId(vconn));
                if !state.is_of(conn, node) {
                    return;
                }
                // Another node may have been asked meanwhile.
                if let Some(links) = state.links.as_mut() {
                    links.forget_route(conn, Loss::Disconnected);
                    links.said.retain(|(to, _)| *to != node);
                    links.flush();
                }
                self.close_here(state, conn, code, reason(&text));
            }
            Word::Left {
                vconn,
                revoked_until,
            } => self.left(node, ConnId(vconn), revoked_until),
            Word::Published { realm, publication } => self.with_hub(|hub, now, effects| {
                hub.published_elsewhere(now, realm, &publication, effects);
            }),
            Word::Ended(ended) => self.with_hub(|hub, now, _| hub.ended_elsewhere(now, ended)),
            Word::Revoke { .. } | Word::Settled | Word::Ask { .. } | Word::Answer { .. } => {}
        }
    }

    /// Closes every connection of a node that may not serve: its clients find another.
    pub fn close_all(&self, code: CloseCode, reason: &'static str) {
        self.close_some(usize::MAX, code, reason);
    }

    /// Closes so many connections, and returns how many are left.
    pub fn close_some(&self, count: usize, code: CloseCode, reason: &'static str) -> usize {
        let open = |outbox: &Outbox| outbox.closing().is_none();
        let mut conns: Vec<_> = (self.lock().outboxes.iter())
            .filter_map(|(conn, outbox)| open(outbox).then_some(*conn))
            .collect();
        let left = conns.len().saturating_sub(count);
        conns.truncate(count);
        for conn in conns {
            let mut state = self.lock();
            if let Some(links) = state.links.as_mut() {
                links.forget_route(conn, Loss::Disconnected);
                links.flush();
            }
            self.close_here(state, conn, code, reason);
        }
        left
    }

    /// What stands for a room in tokens.
    pub fn locator(&self, room: Option<&str>) -> Option<Locator> {
        self.lock().hub.locator(room)
    }
}

impl State {
    fn is_of(&self, conn: ConnId, node: NodeId) -> bool {
        (self.links.as_ref()).is_some_and(|links| links.is_of(conn, node))
    }

    /// The number here of another node's connection, and whether it is new.
    pub(super) fn guest(&mut self, node: NodeId, vconn: u64) -> (ConnId, bool) {
        if let Some(conn) = self.guest_of(node, vconn) {
            return (conn, false);
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        if let Some(links) = self.links.as_mut() {
            let end = HomeEnd::new();
            links.guests.insert(conn, GuestOf { node, vconn, end });
            links.conns.insert((node, vconn), conn);
        }
        (conn, true)
    }

    fn guest_of(&self, node: NodeId, vconn: u64) -> Option<ConnId> {
        self.links.as_ref()?.conns.get(&(node, vconn)).copied()
    }

    fn forget_guest(&mut self, node: NodeId, vconn: u64) -> Option<ConnId> {
        let conn = self.guest_of(node, vconn)?;
        self.links.as_mut()?.forget_guest(conn);
        Some(conn)
    }
}
