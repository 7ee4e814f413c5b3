//! Sockets between clients and boxes, and what is on its way.

use super::clients::{Deed, Down, Wire, Wish};
use super::world::{Kind, World};
use super::*;
use crate::signal::Socket;
use rand::RngExt;
use serde_json::json;

impl World {
    /// What the box does with its sockets.
    pub(super) fn move_along(&mut self, index: usize) {
        let of_it =
            |(id, wire): (&u64, &Wire)| (wire.node == index && !wire.is_over).then_some(*id);
        let ids: Vec<_> = self.wires.iter().filter_map(of_it).collect();
        for id in ids {
            self.move_wire(index, id);
        }
    }

    pub(super) fn move_wire(&mut self, index: usize, id: u64) {
        let step = self.step;
        let Some(mut wire) = self.wires.remove(&id) else {
            return;
        };
        let is_gone = wire.gone_at.is_some_and(|at| at <= step);
        if wire.socket.is_none() {
            if is_gone {
                return;
            }
            let address = self.clients[wire.client].address;
            match Socket::open(&self.boxes[index].driver, address) {
                Ok(socket) => wire.socket = Some(socket),
                Err(_) => {
                    wire.is_over = true;
                    let end = Down::End(Some(CloseCode::TryLater));
                    wire.down.push_back((step, end));
                    self.wires.insert(id, wire);
                    return;
                }
            }
        }
        let Some(socket) = wire.socket.take() else {
            return;
        };
        // What a client said before it went may be read, or be lost.
        if !is_gone || self.rng.random_bool(0.5) {
            while socket.is_read() && wire.up.front().is_some_and(|(due, _)| *due <= step) {
                if let Some((_, text)) = wire.up.pop_front() {
                    socket.say(&text);
                }
            }
        }
        if is_gone {
            socket.lose();
            return;
        }
        let mut due = wire.down.back().map_or(0, |(due, _)| *due);
        let rng = &mut self.rng;
        let down = &mut wire.down;
        let code = socket.take(|frame| {
            due = due.max(step + rng.random_range(0..3));
            down.push_back((due, Down::Frame(frame)));
        });
        match code {
            None => wire.socket = Some(socket),
            Some(code) => {
                wire.down.push_back((due.max(step), Down::End(Some(code))));
                wire.is_over = true;
                if code == CloseCode::SlowConsumer {
                    socket.lose();
                }
                if wire.gone_at.is_some() {
                    return;
                }
            }
        }
        self.wires.insert(id, wire);
    }

    /// A box is gone, and its sockets with it: some clients learn of it late.
    pub(super) fn cut_wires_of(&mut self, index: usize) {
        let step = self.step;
        self.wires
            .retain(|_, wire| wire.node != index || wire.gone_at.is_none());
        for wire in self.wires.values_mut() {
            if wire.node != index || wire.is_over {
                continue;
            }
            (wire.socket, wire.is_over) = (None, true);
            let arrive = self.rng.random_range(0..=wire.down.len());
            wire.down.truncate(arrive);
            let late = match self.rng.random_ratio(1, 5) {
                true => self.rng.random_range(20..100),
                false => self.rng.random_range(0..5),
            };
            let due = wire.down.back().map_or(step, |(due, _)| *due);
            wire.down.push_back((due.max(step + late), Down::End(None)));
        }
    }

    pub(super) fn up(&mut self, c: usize, text: String) {
        trace(self.step, || {
            format!("{} says {text}", self.clients[c].name)
        });
        let due = self.step + self.rng.random_range(0..3);
        if let Some(wire) = self.clients[c].wire.and_then(|id| self.wires.get_mut(&id)) {
            let last = wire.up.back().map_or(0, |(due, _)| *due);
            wire.up.push_back((due.max(last), text));
        }
    }

    /// The pong to a ping.
    pub(super) fn confirm(&mut self, c: usize) {
        if !(self.step + 7 * c as u64).is_multiple_of(50) {
            return;
        }
        let Some(wire) = self.clients[c].wire.and_then(|id| self.wires.get(&id)) else {
            return;
        };
        if let (Some(session), Some(socket)) = (&self.clients[c].session, &wire.socket)
            && self.is_running(wire.node)
            && let Some(peer) = crate::protocol::PeerId::parse(&session.peer)
        {
            socket.confirm(peer, session.seen);
        }
    }

    /// Connects through any node that is ready, and asks for the session or a room.
    pub(super) fn connect(&mut self, c: usize) {
        let ready: Vec<_> = (0..self.boxes.len())
            .filter(|index| {
                let of = &self.boxes[*index];
                let has_stopped = of.shared.has_stopped.load(Ordering::Relaxed);
                self.is_up(*index) && of.joined && of.leaving.is_none() && !has_stopped
            })
            .collect();
        if ready.is_empty() {
            self.clients[c].retry_at = self.step + 5;
            return;
        }
        let node = ready[self.rng.random_range(0..ready.len())];
        self.next += 1;
        let id = self.next;
        let wire = Wire {
            client: c,
            node,
            socket: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            gone_at: None,
            is_over: false,
        };
        self.wires.insert(id, wire);
        let haunts = !self.is_quiet && self.rng.random_bool(0.5);
        let client = &mut self.clients[c];
        (client.wire, client.heard_at) = (Some(id), self.step);
        let (token, seq, wish) = match (&client.session, &client.dead) {
            (Some(session), _) => (session.token.clone(), session.seen, Wish::Resume),
            (None, Some((token, ..))) if haunts => (token.clone(), 1, Wish::Haunt),
            _ => return self.join(c),
        };
        client.wish = Some((self.step, wish));
        let resume =
            json!({"type": "resume", "id": format!("r{id}"), "resumeToken": token, "seq": seq});
        self.tell(format!(
            "{} resumes through node {node}",
            self.clients[c].name
        ));
        self.up(c, resume.to_string());
    }

    pub(super) fn join(&mut self, c: usize) {
        let room = self.rng.random_range(0..ROOMS.len());
        let is_honest = self.is_quiet || !self.rng.random_ratio(1, 6);
        self.next += 1;
        let id = format!("j{}", self.next);
        let mut join = json!({"type": "join", "id": id, "roomId": ROOMS[room]});
        join["identity"] = self.clients[c].name.clone().into();
        if is_honest {
            join["password"] = self.rooms[room].password().into();
        }
        if self.rng.random_ratio(1, 3) {
            join["create"] = json!({"password": self.rooms[room].password()});
        }
        self.clients[c].wish = Some((self.step, Wish::Join(room, is_honest)));
        self.clients[c].heard_at = self.step;
        self.up(c, join.to_string());
    }

    /// A client is gone from its connection; the node finds that out at once or late.
    pub(super) fn hang_up(&mut self, c: usize, cut: bool) {
        let late = match cut && self.rng.random_ratio(1, 3) {
            true => self.rng.random_range(0..200),
            false => 0,
        };
        let away = match self.rng.random_ratio(1, 10) && cut && self.kind != Kind::Deploy {
            true => self.rng.random_range(0..500),
            false => self.rng.random_range(0..20),
        };
        let step = self.step;
        if let Some(id) = self.clients[c].wire.take() {
            match self.wires.get_mut(&id) {
                Some(wire) if wire.is_over => drop(self.wires.remove(&id)),
                Some(wire) => wire.gone_at = Some(step + late),
                None => {}
            }
        }
        self.detach(c);
        self.clients[c].retry_at = step + away;
    }

    pub(super) fn detach(&mut self, c: usize) {
        let step = self.step;
        self.clients[c].wish = None;
        if let Some(session) = self.session(c) {
            session.is_attached = false;
            session.lost_at.get_or_insert(step);
        }
    }

    /// The server has closed the connection, or its box is gone.
    pub(super) fn closed(&mut self, c: usize, code: Option<CloseCode>) {
        self.clients[c].wire = None;
        let haunts = matches!(self.clients[c].wish, Some((_, Wish::Haunt)));
        self.detach(c);
        let pause = self.rng.random_range(0..10);
        self.clients[c].retry_at = self.step + pause;
        self.tell(format!("{} is closed with {code:?}", self.clients[c].name));
        match code {
            Some(CloseCode::Kicked) if haunts => self.totals.refused += 1,
            Some(CloseCode::Kicked) => self.is_kicked(c),
            Some(CloseCode::Replaced) => {
                self.fail("the session of a client that holds it is on another connection");
            }
            Some(CloseCode::TryLater) => self.clients[c].retry_at = self.step + 5 + pause,
            _ => {}
        }
    }

    pub(super) fn is_kicked(&mut self, c: usize) {
        let step = self.step;
        let Some(session) = self.clients[c].session.take() else {
            return;
        };
        if !session.kick_asked {
            self.fail(format!("{} is kicked by nobody", self.clients[c].name));
        }
        let lost_at = self.rooms[session.room].lost_at;
        let mut deed = session.kicked.unwrap_or(Deed::new(step));
        deed.is_void |= lost_at >= session.attached_at && session.kicked.is_none();
        self.clients[c].dead = Some((session.token, session.room, deed));
        self.forget_changes_of(c);
        self.clients[c].retry_at = step + 10;
    }
}
