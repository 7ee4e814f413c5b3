//! What a node asks of all others, and how much it says to them.
//!
//! `rooms` over all nodes: who asks for the list waits for a moment, until the other nodes have said
//! what they have. The list is good for a second, so that many who ask cost the nodes no more.

use super::super::{Driver, State, now};
use super::{Granted, HEAVY, Links};
use crate::protocol::{ClientMessage, Request};
use crate::signal::hub::{ConnId, Input, OtherRooms};
use crate::signal::nodes::Word;
use std::time::{Duration, Instant};

/// How long a list is good for.
const FRESH: Duration = Duration::from_secs(1);
/// Clients that wait for a list; who asks beyond that, or twice, gets the last one.
const MAX_WAITING: usize = 4_096;

/// Requests that wait for the rooms of other nodes.
#[derive(Default)]
pub(super) struct Lists {
    until: Option<Instant>,
    is_asked: bool,
    waiting: Vec<(ConnId, ClientMessage, Granted)>,
}

impl Links {
    /// Keeps a request for which other nodes have to be asked first; gives back any other.
    pub(super) fn wait_for_rooms(
        &mut self,
        conn: ConnId,
        message: ClientMessage,
        grant: Granted,
    ) -> Option<(ClientMessage, Granted)> {
        let lists = &mut self.lists;
        let is_fresh = lists.until.is_some_and(|until| now().instant < until);
        let waits = lists.waiting.iter().any(|(other, ..)| *other == conn);
        let is_list = matches!(message.request, Request::Rooms);
        if !is_list || is_fresh || waits || lists.waiting.len() >= MAX_WAITING {
            return Some((message, grant));
        }
        lists.waiting.push((conn, message, grant));
        if !std::mem::replace(&mut lists.is_asked, true) {
            self.nodes.list_rooms();
        }
        None
    }
}

impl Driver {
    /// Takes the rooms of other nodes, and answers who waits for them.
    pub fn other_rooms(&self, rooms: OtherRooms) {
        let waiting = {
            let mut state = self.lock();
            state.hub.set_other_rooms(rooms);
            let Some(links) = state.links.as_mut() else {
                return;
            };
            links.lists.is_asked = false;
            links.lists.until = Some(now().instant + FRESH);
            std::mem::take(&mut links.lists.waiting)
        };
        for (conn, message, grant) in waiting {
            let input = Input::Frame {
                conn,
                message: Ok(message),
                grant,
            };
            let state = self.lock();
            match state.is_guest(conn) {
                true => self.run(state, |hub, now, effects| hub.handle(now, input, effects)),
                false => {
                    drop(state);
                    self.input(input);
                }
            }
        }
    }
}

impl State {
    /// Says what the effects have led to, and has changes saved. Where much waits for a node, the client
    /// whose input it was is read less.
    pub(in crate::signal::driver) fn flush_links(&mut self, now: Instant) {
        let Some(links) = &mut self.links else {
            return;
        };
        let sender = links.sender.take();
        let mut is_heavy = false;
        for (node, word) in links.said.drain(..) {
            links.nodes.say(node, word);
            is_heavy |= sender.is_some() && !links.nodes.is_light(node);
        }
        if let Some(sender) = sender.filter(|_| is_heavy) {
            match self.outboxes.get(&sender) {
                Some(outbox) => outbox.hold(now + HEAVY),
                None => {
                    links.hold(sender, HEAVY);
                    links.flush();
                }
            }
        }
        for (realm, publication) in self.hub.take_published() {
            links.nodes.say_all(&Word::Published { realm, publication });
        }
        for ended in self.hub.take_ended() {
            links.nodes.say_all(&Word::Ended(ended));
        }
        if self.hub.has_changes() {
            links.changed();
        }
    }

    fn is_guest(&self, conn: ConnId) -> bool {
        let links = self.links.as_ref();
        links.is_some_and(|links| links.guests.contains_key(&conn))
    }
}
