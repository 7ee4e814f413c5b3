//! What has to hold, and what is known of rooms and sessions: what was done long enough ago, at a home that
//! reached Redis, lives through everything but a Redis that loses its data together with that home.

use super::clients::{Deed, Wish};
use super::machine::now;
use super::world::{Kind, World};
use super::*;
use crate::signal::hub::Hub;
use std::collections::BTreeMap;

/// Steps for which a home has to reach Redis before what it did before is certain to be saved.
const STEADY: u64 = 40;
/// Steps that a save takes.
const SAVED: u64 = 10;
/// Steps without a home that serves, after which another may have taken the room.
const UNSERVED: u64 = 50;

/// What is known of a room.
pub(super) struct Room {
    name: &'static str,
    /// The run of the box that serves it.
    home: Option<u64>,
    steady: u64,
    unserved: u64,
    /// When something of it may have been lost with a home.
    pub(super) lost_at: u64,
    locked: bool,
    has_password: bool,
    deed: Deed,
    pub(super) is_known: bool,
    /// Whose change of it is not answered yet, since when, and the id of the request.
    pub(super) changing: Option<(usize, u64, String)>,
    /// When there were two halves of it last, of which one is lost.
    halves_at: Option<u64>,
}

impl Room {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            home: None,
            steady: 0,
            unserved: 0,
            lost_at: 0,
            locked: false,
            has_password: false,
            deed: Deed::new(0),
            is_known: false,
            changing: None,
            halves_at: None,
        }
    }

    pub(super) fn password(&self) -> String {
        format!("key of {}", self.name)
    }

    /// Whether members may have been in another half of it a moment ago.
    pub(super) fn had_halves(&self, step: u64) -> bool {
        self.halves_at.is_some_and(|at| step < at + steps(WINDOW))
    }

    /// Whether it is locked, as far as is known, and nobody is about to change that.
    pub(super) fn may_be_locked(&self) -> bool {
        self.changing.is_none() && (self.locked || !self.is_known)
    }

    fn learn(&mut self, step: u64, room: &Value) {
        self.locked = room["locked"] == true;
        self.has_password = room["hasPassword"] == true;
        self.is_known = true;
        self.deed = Deed::new(step);
    }
}

impl World {
    /// Everything that somebody has done in a room.
    fn deeds(&mut self, room: usize) -> Vec<&mut Deed> {
        let mut deeds = vec![&mut self.rooms[room].deed];
        for client in &mut self.clients {
            if let Some(session) = client.session.as_mut().filter(|s| s.room == room) {
                deeds.push(&mut session.life);
                deeds.extend(session.host.as_mut());
                deeds.extend(session.kicked.as_mut());
            }
            if let Some((_, of, deed)) = &mut client.dead
                && *of == room
            {
                deeds.push(deed);
            }
        }
        deeds
    }

    /// What is not saved of a room may be lost with its home; all of it, where Redis has lost it too.
    pub(super) fn lose(&mut self, room: usize, for_good: bool) {
        if self.kind == Kind::Deploy {
            return;
        }
        for deed in self.deeds(room) {
            deed.is_void |= for_good || !deed.is_durable;
        }
        let step = self.step;
        let room = &mut self.rooms[room];
        room.is_known &= !room.deed.is_void;
        (room.lost_at, room.steady) = (step, 0);
    }

    /// Whether a node that is up has a room, whether it serves or not.
    pub(super) fn is_anywhere(&self, room: usize) -> bool {
        let has = |hub: &mut Hub| hub.has_room(ROOMS[room]);
        let mut up = (0..self.boxes.len()).filter(|index| self.is_up(*index));
        up.any(|index| self.boxes[index].driver.with_hub(|hub, _, _| has(hub)))
    }

    fn rooms_at(&self, index: usize) -> Vec<usize> {
        let run = Some(self.boxes[index].run);
        let rooms = self.rooms.iter().enumerate();
        rooms
            .filter_map(|(at, room)| (room.home == run).then_some(at))
            .collect()
    }

    pub(super) fn home_is_lost(&mut self, index: usize) {
        for room in self.rooms_at(index) {
            self.lose(room, false);
        }
    }

    pub(super) fn home_is_lost_for_good(&mut self, index: usize) {
        for room in self.rooms_at(index) {
            self.lose(room, true);
        }
    }

    /// Redis lacks something: until it is written again, nothing lives through the death of a home.
    pub(super) fn nothing_is_certain(&mut self) {
        for room in 0..ROOMS.len() {
            self.rooms[room].steady = 0;
            for deed in self.deeds(room) {
                deed.is_durable = false;
            }
        }
    }

    /// What holds at any time.
    pub(super) fn look(&mut self) {
        for (at, name) in ROOMS.iter().copied().enumerate() {
            let has = |index: &usize| {
                let driver = &self.boxes[*index].driver;
                self.is_serving(*index) && driver.with_hub(|hub, _, _| hub.has_room(name))
            };
            let serving: Vec<_> = (0..self.boxes.len()).filter(has).collect();
            let is_settled = self.step >= self.unsettled_until;
            if serving.len() > 1 && is_settled && self.kind != Kind::Serve {
                self.fail(format!("{name} is served by nodes {serving:?}"));
            }
            let isolated = |index: &usize| self.boxes[*index].node.gauges(now()).isolated;
            if serving.len() > 1 || serving.iter().any(isolated) {
                // Both halves go on; one of them will be lost.
                self.lose(at, true);
                self.rooms[at].halves_at = Some(self.step);
                self.rooms[at].home = None;
                continue;
            }
            let Some(home) = serving.first().copied() else {
                let room = &mut self.rooms[at];
                (room.steady, room.unserved) = (0, room.unserved + 1);
                if room.unserved > UNSERVED {
                    self.lose(at, false);
                }
                continue;
            };
            let run = Some(self.boxes[home].run);
            let before = std::mem::replace(&mut self.rooms[at].home, run);
            if before != run && before.is_some() {
                self.tell(format!("{name} is at node {home} now"));
                self.lose(at, false);
            }
            let is_connected = self.is_connected(home);
            let step = self.step;
            let room = &mut self.rooms[at];
            room.unserved = 0;
            room.steady = if is_connected { room.steady + 1 } else { 0 };
            if room.steady >= STEADY {
                for deed in self.deeds(at) {
                    deed.is_durable |= deed.since + SAVED <= step;
                }
            }
        }
        if self.step.is_multiple_of(50) {
            self.judge_bounds();
        }
    }

    fn judge_bounds(&self) {
        for (index, of) in self
            .boxes
            .iter()
            .enumerate()
            .filter(|(i, _)| self.is_up(*i))
        {
            let (gauges, remote) = (
                of.driver.with_hub(|hub, _, _| hub.gauges()),
                of.driver.remote(),
            );
            // Sessions that nobody resumes live for a window.
            if gauges.connections > 60 || gauges.sessions > 60 || remote.edge + remote.home > 120 {
                self.fail(format!("node {index} has grown: {gauges:?}, {remote:?}"));
            }
        }
    }

    /// Sessions in a room that certainly live, beside that of a client.
    fn living(&self, room: usize, except: usize, since: u64) -> Vec<(String, String)> {
        let others = self
            .clients
            .iter()
            .enumerate()
            .filter(|(c, _)| *c != except);
        let living = others.filter_map(|(_, client)| {
            let session = client.session.as_ref()?;
            let lives = session.room == room
                && session.is_attached
                && session.attached_at <= since
                && session.life.is_certain()
                && !session.is_ending();
            lives.then(|| (client.name.clone(), session.peer.clone()))
        });
        living.collect()
    }

    pub(super) fn judge_joined(
        &mut self,
        c: usize,
        room: usize,
        asked: u64,
        is_honest: bool,
        frame: &Value,
        view: &BTreeMap<String, bool>,
    ) {
        let name = self.clients[c].name.clone();
        let living = match self.step >= self.unsettled_until {
            true => self.living(room, c, asked),
            false => vec![],
        };
        for (other, peer) in &living {
            if !view.contains_key(peer) {
                self.fail(format!(
                    "{name} is in {} without {other} ({peer})",
                    ROOMS[room]
                ));
            }
        }
        if !living.is_empty() && frame["role"] == "host" {
            self.fail(format!("{name} is host of the room of others"));
        }
        let of = &self.rooms[room];
        let is_certain = of.is_known && of.changing.is_none() && of.deed.since <= asked;
        if is_certain && !living.is_empty() {
            let shown = &frame["room"];
            let differs = (shown["hasPassword"] == true) != of.has_password || of.locked;
            if differs || (of.has_password && !is_honest) {
                self.fail(format!(
                    "{name} enters a room that is locked ({}) or has a password ({}): {shown}",
                    of.locked, of.has_password
                ));
            }
        }
        self.learn(room, asked, &frame["room"], view.is_empty());
    }

    fn learn(&mut self, room: usize, asked: u64, shown: &Value, is_new: bool) {
        let step = self.step;
        let room = &mut self.rooms[room];
        if is_new || (!room.is_known && room.changing.is_none()) {
            room.learn(step, shown);
            room.is_known = room.lost_at < asked && room.changing.is_none();
        }
    }

    pub(super) fn judge_resumed(&mut self, c: usize, asked: u64, frame: &Value) {
        let Some(session) = &self.clients[c].session else {
            return;
        };
        let name = &self.clients[c].name;
        if frame["peerId"] != *session.peer || frame["roomId"] != ROOMS[session.room] {
            self.fail(format!("{name} is another one: {frame}"));
        }
        if session
            .kicked
            .is_some_and(|deed| !deed.is_void && deed.since < asked)
        {
            self.fail(format!("{name} was kicked, and is back"));
        }
        let is_host = frame["role"] == "host";
        if session.host.is_some_and(|host| host.is_certain()) && !is_host {
            self.fail(format!("{name} is host no longer: {}", frame["role"]));
        }
        if self.kind == Kind::Deploy && frame["gap"] == true {
            self.fail(format!("{name} has resumed with a gap"));
        }
        let (at, room) = (session.room, &self.rooms[session.room]);
        let is_certain = room.is_known && room.changing.is_none() && room.deed.since <= asked;
        let shown = &frame["room"];
        let differs = (shown["hasPassword"] == true) != room.has_password
            || (shown["locked"] == true) != room.locked;
        if is_certain && session.life.is_certain() && differs {
            self.fail(format!(
                "{} was locked ({}) and had a password ({}): {shown}",
                room.name, room.locked, room.has_password
            ));
        }
        self.learn(at, asked, &frame["room"], false);
    }

    /// The session of a client is said to be gone.
    pub(super) fn judge_lost(&mut self, c: usize) {
        self.totals.lost += 1;
        let Some(session) = &self.clients[c].session else {
            return;
        };
        let away = session.lost_at.map_or(0, |at| self.step - at);
        let may_be = session.is_ending()
            || session.is_next
            || session.life.is_void
            || (self.step < self.conflicts_until && !session.life.is_durable)
            || away + 20 >= steps(WINDOW);
        let name = self.clients[c].name.clone();
        if !may_be {
            self.fail(format!(
                "the session of {name} is lost after {away} steps ({:?})",
                session.life
            ));
        }
        self.tell(format!("the session of {name} is gone after {away} steps"));
    }

    pub(super) fn judge_refused(&mut self, c: usize, wish: Option<(u64, Wish)>, code: &str) {
        let name = &self.clients[c].name;
        let Some((asked, Wish::Join(at, is_honest))) = wish else {
            self.fail(format!("{name} did not ask to join"));
        };
        let room = &self.rooms[at];
        let is_certain = room.is_known && room.changing.is_none() && room.deed.since <= asked;
        match code {
            "bad-password" if is_honest => self.fail(format!("{name} knows the password")),
            "bad-password" => self.totals.refused += 1,
            "room-locked" if is_certain && room.deed.is_certain() && !room.locked => {
                self.fail(format!("{} is not locked", room.name));
            }
            "room-locked" | "rate-limited" | "draining" => {}
            _ => self.fail(format!("{name} may not join: {code}")),
        }
    }

    /// A host may not do what hosts may.
    pub(super) fn judge_demoted(&mut self, c: usize) {
        let name = self.clients[c].name.clone();
        if let Some(session) = self.session(c)
            && let Some(host) = session.host.take()
            && host.is_certain()
            && !session.life.is_void
        {
            self.fail(format!("{name} is host no longer"));
        }
    }

    /// Somebody has resumed a session that a host has ended.
    pub(super) fn judge_haunting(&mut self, c: usize, frame: &Value) {
        let dead = self.clients[c].dead.take();
        if let Some((.., deed)) = dead
            && !deed.is_void
        {
            self.fail(format!(
                "{} was kicked ({deed:?}), and is back: {frame}",
                self.clients[c].name
            ));
        }
        self.hang_up(c, false);
    }

    /// A peer is said to have left a room.
    pub(super) fn judge_left(&mut self, c: usize, peer: &str, reason: &str) {
        let Some(victim) = self
            .client_of(peer)
            .filter(|v| self.room_of(*v) == self.room_of(c))
        else {
            // It has moved on, under the same id.
            return;
        };
        let name = self.clients[victim].name.clone();
        self.tell(format!(
            "{} learns that {name} has left: {reason}",
            self.clients[c].name
        ));
        let Some(session) = &self.clients[victim].session else {
            return;
        };
        if !session.may_be_gone(self.step) {
            self.fail(format!("{name} has not left"));
        }
    }

    /// The relays of a peer are revoked.
    pub(super) fn judge_revoked(&mut self, user: &str, until: Option<u64>) {
        let Some(c) = self.client_of(user) else {
            return;
        };
        let Some(session) = &self.clients[c].session else {
            return;
        };
        // Its session before may have had others.
        let is_older = until.is_some_and(|until| until < session.expires);
        if !is_older && !session.may_be_gone(self.step) {
            self.fail(format!(
                "the relays of {} are revoked",
                self.clients[c].name
            ));
        }
    }

    /// A kick is answered; returns who is gone.
    pub(super) fn kick_was_done(&mut self, by: usize, request: &str) -> String {
        let request: Value = serde_json::from_str(request).unwrap_or_default();
        let peer = request["peerId"].as_str().unwrap_or_default().to_owned();
        let step = self.step;
        let room = self.room_of(by);
        if let Some(c) = self.client_of(&peer).filter(|c| self.room_of(*c) == room)
            && let Some(session) = self.session(c)
        {
            session.kicked.get_or_insert(Deed::new(step));
            let lost_at =
                self.rooms[self.clients[c].session.as_ref().map_or(0, |s| s.room)].lost_at;
            if let Some(session) = self.session(c)
                && let Some(kicked) = &mut session.kicked
            {
                kicked.is_void |= lost_at + SAVED >= step;
            }
        }
        peer
    }

    pub(super) fn changed(&mut self, c: usize, id: &str, frame: &Value) {
        let step = self.step;
        let Some(at) = self.clients[c].session.as_ref().map(|session| session.room) else {
            return;
        };
        let room = &mut self.rooms[at];
        let is_it = |(by, _, of): &mut (usize, u64, String)| *by == c && of == id;
        if let Some((_, asked, _)) = room.changing.take_if(is_it) {
            room.learn(step, &frame["room"]);
            room.is_known = room.lost_at < asked;
        }
    }

    /// What a client asked of a room may have happened, or not.
    pub(super) fn forget_changes_of(&mut self, c: usize) {
        for room in &mut self.rooms {
            if room.changing.take_if(|(by, ..)| *by == c).is_some() {
                room.is_known = false;
            }
        }
    }
}
