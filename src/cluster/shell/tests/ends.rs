//! What has to hold once everything is quiet, and once everybody is gone.

use super::clients::Client;
use super::machine::now;
use super::world::World;
use super::*;
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// In the quiet everybody who has a session says something.
    pub(super) fn last_words(&mut self) {
        for c in 0..CLIENTS {
            self.speak(c);
        }
    }

    /// After the quiet: everybody is in a room, sees who else is, and has got what they have said.
    pub(super) fn judge_quiet(&mut self) {
        for client in &self.clients {
            let name = &client.name;
            let Some(session) = client.session.as_ref().filter(|s| s.is_attached) else {
                self.fail(format!(
                    "{name} has found no way back: {:?}",
                    client.session.is_some()
                ));
            };
            if !session.unanswered.is_empty() {
                self.fail(format!("{name} has no answer: {:?}", session.unanswered));
            }
            let others = self.clients.iter().filter(|other| other.name != *name);
            let others = others.filter_map(|other| other.session.as_ref());
            let others: Vec<_> = others.filter(|other| other.room == session.room).collect();
            let seen: BTreeMap<_, _> = session.view.iter().map(|(p, o)| (p.as_str(), *o)).collect();
            let there: BTreeMap<_, _> = others.iter().map(|o| (o.peer.as_str(), true)).collect();
            if seen != there {
                self.fail(format!("{name} sees {seen:?} in place of {there:?}"));
            }
            for other in others {
                let last = session.received.get(&other.peer).copied();
                if last != Some(other.sent) {
                    self.fail(format!(
                        "{name} has got {last:?} of {} messages of {}",
                        other.sent, other.peer
                    ));
                }
            }
        }
        for (at, room) in ROOMS.iter().enumerate() {
            let has = |index: &usize| {
                let driver = &self.boxes[*index].driver;
                driver.with_hub(|hub, _, _| hub.has_room(room))
            };
            let homes: Vec<_> = (0..self.boxes.len()).filter(has).collect();
            let members = |client: &&Client| {
                client
                    .session
                    .as_ref()
                    .is_some_and(|session| session.room == at)
            };
            let expected = usize::from(self.clients.iter().any(|client| members(&client)));
            if homes.len() != expected {
                self.fail(format!("{room} is at nodes {homes:?}"));
            }
        }
    }

    /// Half of the clients leave, the others are cut off.
    pub(super) fn everybody_leaves(&mut self) {
        for c in 0..CLIENTS {
            self.clients[c].is_done = true;
            match c % 2 {
                0 => self.leave(c),
                _ => self.hang_up(c, false),
            }
        }
    }

    /// Nothing is left of anybody.
    pub(super) fn judge_empty(&mut self) {
        for c in 0..CLIENTS {
            if self.clients[c].wire.is_some() {
                self.hang_up(c, false);
            }
        }
        for _ in 0..10 {
            self.step();
        }
        // What a dead home has left, and nobody has come back to, Redis drops after a day.
        let model = &self.store.model;
        let lives = |key: &&String| model.owner(key).is_some_and(|owner| model.lives(owner));
        let rooms: BTreeSet<_> = model.rooms().filter(lives).cloned().collect();
        let people = self.boxes[0].node.room_key(None);
        let left: Vec<_> = rooms
            .iter()
            .filter(|key| people.as_deref() != Some(key.as_str()))
            .collect();
        if !left.is_empty() {
            self.fail(format!("Redis keeps {left:?}"));
        }
        for (index, of) in self.boxes.iter().enumerate() {
            let gauges = of.driver.with_hub(|hub, _, _| hub.gauges());
            let counts = [
                gauges.connections,
                gauges.sessions,
                gauges.away,
                gauges.rooms,
                gauges.peers,
                gauges.ring_bytes,
            ];
            let (remote, own) = (of.driver.remote(), of.node.gauges(now()));
            if counts != [0; 6] || (remote.edge, remote.home) != (0, 0) || own.rooms > 1 {
                self.fail(format!(
                    "node {index} keeps {gauges:?}, {remote:?}, {own:?}"
                ));
            }
        }
    }
}
