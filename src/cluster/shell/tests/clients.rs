//! Clients: each holds one session through whatever happens, as the client library does. It sends numbered
//! messages, repeats what was not answered, and connects again through any node.

use super::world::World;
use super::*;
use crate::signal::Socket;
use rand::RngExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Steps after which a client gives up a connection on which nothing comes.
const PATIENCE: u64 = 80;

/// What is on its way to a client.
pub(super) enum Down {
    Frame(String),
    End(Option<CloseCode>),
}

/// One socket and what is on its way.
pub(super) struct Wire {
    pub(super) client: usize,
    pub(super) node: usize,
    /// `None` until the node has taken it, and once it is over there.
    pub(super) socket: Option<Socket>,
    pub(super) up: VecDeque<(u64, String)>,
    pub(super) down: VecDeque<(u64, Down)>,
    /// When the node finds that the client is gone.
    pub(super) gone_at: Option<u64>,
    pub(super) is_over: bool,
}

/// What a client waits for.
#[derive(Clone)]
pub(super) enum Wish {
    /// The room, and whether with its password.
    Join(usize, bool),
    Resume,
    /// With the token of a session that a host has ended.
    Haunt,
}

/// What a host has done to a session or a room: certain once it would live through the death of its home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) since: u64,
    pub(super) is_durable: bool,
    /// It may have been lost with a home.
    pub(super) is_void: bool,
}

impl Deed {
    pub(super) fn new(since: u64) -> Self {
        Self {
            since,
            is_durable: false,
            is_void: false,
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        self.is_durable && !self.is_void
    }
}

pub(super) struct Session {
    pub(super) peer: String,
    pub(super) token: String,
    pub(super) room: usize,
    pub(super) seen: u64,
    /// Whether the next number may skip some.
    pub(super) gap: bool,
    pub(super) is_attached: bool,
    pub(super) attached_at: u64,
    pub(super) lost_at: Option<u64>,
    pub(super) life: Deed,
    pub(super) host: Option<Deed>,
    pub(super) is_leaving: bool,
    /// Its peer had another session before, on the same connection.
    pub(super) is_next: bool,
    /// A host was about to end it.
    pub(super) kick_asked: bool,
    pub(super) kicked: Option<Deed>,
    /// When its credentials end.
    pub(super) expires: u64,
    pub(super) sent: u64,
    pub(super) unanswered: VecDeque<(String, String)>,
    /// Of each peer the number of its last message to all.
    pub(super) received: BTreeMap<String, u64>,
    /// The last number that was sent to this one alone, of each peer.
    pub(super) whispers: BTreeMap<String, u64>,
    /// The other members, and whether each is online.
    pub(super) view: BTreeMap<String, bool>,
}

impl Session {
    /// Whether it was asked to end: by its client, or by a host.
    pub(super) fn is_ending(&self) -> bool {
        self.is_leaving || self.kick_asked
    }

    /// Whether a home may have ended it by that step.
    pub(super) fn may_be_gone(&self, step: u64) -> bool {
        let away = self.lost_at.map_or(0, |at| step - at);
        self.is_ending() || self.is_next || self.life.is_void || away + 20 >= steps(WINDOW)
    }
}

pub(super) struct Client {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) wire: Option<u64>,
    pub(super) retry_at: u64,
    pub(super) wish: Option<(u64, Wish)>,
    pub(super) session: Option<Session>,
    /// A session that a host has ended: token, room, when.
    pub(super) dead: Option<(String, usize, Deed)>,
    pub(super) heard_at: u64,
    pub(super) last_peer: Option<String>,
    pub(super) is_done: bool,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            name: format!("p{number}"),
            address: [198, 51, 100, number as u8].into(),
            wire: None,
            retry_at: number as u64,
            wish: None,
            session: None,
            dead: None,
            heard_at: 0,
            last_peer: None,
            is_done: false,
        }
    }
}

impl World {
    pub(super) fn session(&mut self, c: usize) -> Option<&mut Session> {
        self.clients[c].session.as_mut()
    }

    pub(super) fn room_of(&self, c: usize) -> &'static str {
        self.clients[c]
            .session
            .as_ref()
            .map_or("", |s| ROOMS[s.room])
    }

    /// What the clients do.
    pub(super) fn act(&mut self) {
        for c in 0..CLIENTS {
            self.listen_to(c);
            self.act_as(c);
        }
    }

    pub(super) fn listen_to(&mut self, c: usize) {
        while let Some(id) = self.clients[c].wire
            && let Some(wire) = self.wires.get_mut(&id)
            && wire.down.front().is_some_and(|(due, _)| *due <= self.step)
            && let Some((_, down)) = wire.down.pop_front()
        {
            self.clients[c].heard_at = self.step;
            match down {
                Down::Frame(text) => self.receive(c, &serde_json::from_str(&text).unwrap()),
                Down::End(code) => {
                    self.wires.remove(&id);
                    self.closed(c, code);
                }
            }
        }
    }

    pub(super) fn act_as(&mut self, c: usize) {
        let step = self.step;
        let client = &self.clients[c];
        if client.is_done {
            return;
        }
        if client.wire.is_none() {
            if client.retry_at <= step {
                self.connect(c);
            }
            return;
        }
        let waits = client.wish.is_some()
            || (client.session.as_ref()).is_some_and(|session| !session.unanswered.is_empty());
        if waits && step > client.heard_at + PATIENCE {
            return self.hang_up(c, false);
        }
        let attached = client
            .session
            .as_ref()
            .is_some_and(|session| session.is_attached);
        if client.wish.is_some() {
            return;
        }
        if !attached {
            if client.retry_at <= step {
                self.join(c);
            }
            return;
        }
        self.confirm(c);
        self.do_something(c);
    }

    pub(super) fn do_something(&mut self, c: usize) {
        let dice = self.rng.random_range(0..1_000);
        let is_quiet = self.is_quiet;
        let Some(session) = self.session(c) else {
            return;
        };
        if session.unanswered.len() > 20 || session.is_ending() {
            return;
        }
        let (is_host, room) = (session.host.is_some(), session.room);
        match dice {
            0..120 if !is_quiet => self.speak(c),
            120..140 if !is_quiet => self.whisper(c),
            140..143 if !is_quiet => {
                self.leave(c);
            }
            143..146 if !is_quiet => {
                session.is_leaving = true;
                self.tell(format!("{} goes to another room", self.clients[c].name));
                self.join(c);
            }
            146..156 if is_host && !is_quiet => self.change_room(c, room),
            156..161 if is_host && !is_quiet => self.kick(c),
            161..167 if !is_quiet => {
                self.tell(format!("the socket of {} is cut", self.clients[c].name));
                self.hang_up(c, true);
            }
            // Nobody is kept out in the end.
            900..1_000 if is_quiet && is_host && self.rooms[room].may_be_locked() => {
                self.change(c, room, json!({"type": "room", "locked": false}));
            }
            _ => {}
        }
    }

    pub(super) fn speak(&mut self, c: usize) {
        let Some(session) = self.session(c) else {
            return;
        };
        session.sent += 1;
        let content = json!({"by": session.peer, "n": session.sent});
        self.send(c, json!({"type": "message", "content": content}), "m");
    }

    pub(super) fn whisper(&mut self, c: usize) {
        let Some(session) = self.session(c) else {
            return;
        };
        let Some(to) = session.view.keys().next_back().cloned() else {
            return;
        };
        let by = session.peer.clone();
        let content = json!({"by": by, "n": self.next, "to": to});
        self.send(
            c,
            json!({"type": "message", "to": to, "content": content}),
            "w",
        );
    }

    pub(super) fn leave(&mut self, c: usize) {
        self.tell(format!(
            "{} leaves {}",
            self.clients[c].name,
            self.room_of(c)
        ));
        if let Some(session) = self.session(c) {
            session.is_leaving = true;
        }
        self.up(c, json!({"type": "leave"}).to_string());
    }

    pub(super) fn change_room(&mut self, c: usize, room: usize) {
        if self.rooms[room].changing.is_some() {
            return;
        }
        let change = match self.rng.random_range(0..4) {
            0 => json!({"type": "room", "locked": true}),
            1 => json!({"type": "room", "locked": false}),
            2 => json!({"type": "room", "password": self.rooms[room].password()}),
            _ => json!({"type": "room", "password": null}),
        };
        self.change(c, room, change);
    }

    pub(super) fn change(&mut self, c: usize, room: usize, change: Value) {
        self.rooms[room].changing = Some((c, self.step, format!("c{}", self.next + 1)));
        self.rooms[room].is_known = false;
        self.tell(format!(
            "{} changes {}: {change}",
            self.clients[c].name, ROOMS[room]
        ));
        self.send(c, change, "c");
    }

    pub(super) fn kick(&mut self, c: usize) {
        let Some(session) = &self.clients[c].session else {
            return;
        };
        let Some(target) = session.view.keys().next().cloned() else {
            return;
        };
        if let Some(victim) = self
            .client_of(&target)
            .filter(|v| self.room_of(*v) == self.room_of(c))
        {
            let names = (&self.clients[c].name, &self.clients[victim].name);
            self.tell(format!(
                "{} kicks {} from {}",
                names.0,
                names.1,
                self.room_of(c)
            ));
            if let Some(session) = self.session(victim) {
                session.kick_asked = true;
            }
            self.totals.kicks += 1;
            self.kicked.insert(target.clone());
            let kick = json!({"type": "kick", "peerId": target});
            self.send(c, kick, "k");
        }
    }

    pub(super) fn client_of(&self, peer: &str) -> Option<usize> {
        let has = |client: &Client| client.session.as_ref().is_some_and(|s| s.peer == peer);
        self.clients.iter().position(has)
    }

    /// Sends a request that is to be answered.
    pub(super) fn send(&mut self, c: usize, mut message: Value, kind: &str) {
        self.next += 1;
        let id = format!("{kind}{}", self.next);
        message["id"] = id.clone().into();
        let text = message.to_string();
        if let Some(session) = self.session(c) {
            if session.unanswered.is_empty() {
                self.clients[c].heard_at = self.step;
            }
            if let Some(session) = self.session(c) {
                session.unanswered.push_back((id, text.clone()));
            }
        }
        self.up(c, text);
    }
}
