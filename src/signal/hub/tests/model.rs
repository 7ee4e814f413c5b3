//! The hub against a naive model: after every operation each client has got exactly the frames
//! that the model expects, and the rooms hold whom the model says.

mod ops;
mod outcome;

use super::harness::{World, ice};
use super::*;
use ops::{Ask, Op, ops};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Clients; every third one has the same identity.
const CLIENTS: usize = 6;
const ROOMS: [&str; 2] = ["one", "two"];
const PASSWORD: &str = "pw";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_hub_does_what_a_naive_model_does(ops in ops()) {
        let mut run = Run::new();
        for c in 0..4 {
            run.step(&Op::Connect(c));
        }
        for op in &ops {
            run.step(op);
        }
        run.world.empties();
    }
}

#[derive(Default)]
struct Client {
    /// The open connection.
    conn: Option<u64>,
    peer: String,
    /// Since when the connection waits for a session, ms.
    waiting_since: Option<u64>,
    session: Option<Session>,
    /// Types of frames that are due: sent, or to be replayed.
    due: Vec<String>,
}

struct Session {
    room: Option<usize>,
    token: Value,
    /// The last number that the client saw.
    seen: u64,
    away_since: Option<u64>,
}

#[derive(Default)]
struct Room {
    members: Vec<(usize, &'static str)>,
    locked: bool,
    password: bool,
    max: Option<u32>,
    relay: bool,
}

struct Call {
    id: Value,
    caller: usize,
    ringing: Vec<usize>,
    callee: Option<usize>,
    since: u64,
    over: bool,
}

struct Run {
    world: World,
    clients: [Client; CLIENTS],
    rooms: [Room; ROOMS.len()],
    calls: Vec<Call>,
    clock: u64,
    asked: u64,
}

impl Run {
    fn new() -> Self {
        let settings = Settings {
            rate: 0,
            candidate_rate: 0,
            list_rooms: true,
            ring: 1 << 20,
            ..Settings::default()
        };
        Self {
            world: World::with(settings, ice(true)),
            clients: Default::default(),
            rooms: Default::default(),
            calls: Vec::new(),
            clock: 0,
            asked: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        // A millisecond apart, so that no two timers fall together.
        self.pass(1);
        match *op {
            Op::Connect(c) => self.connect(c),
            Op::Cut(c) => self.cut(c),
            Op::Resume(c) => self.resume(c),
            Op::Pass(seconds) => self.pass(seconds * 1000),
            Op::Confirm(c) => {
                if let (Some(conn), Some(session)) =
                    (self.clients[c].conn, &self.clients[c].session)
                {
                    let seen = session.seen;
                    self.world.confirm(conn, seen);
                }
            }
            Op::Malformed(c) => {
                if let Some(conn) = self.clients[c].conn {
                    self.world.send_text(conn, "{}", Ok(Grant::open()));
                    self.tell(c, "error");
                    // Told apart from ten in a row.
                    self.world.send(conn, json!({"type": "ping"}));
                    self.tell(c, "pong");
                }
            }
            Op::Ask(c, ref ask, twice) => self.ask(c, ask, twice),
        }
        self.compare();
    }

    fn compare(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let Some(conn) = client.conn else { continue };
            let got = self.world.take(conn);
            if let Some(session) = &mut client.session {
                for seq in got.iter().filter_map(|frame| frame["seq"].as_u64()) {
                    session.seen = seq;
                }
            }
            let types: Vec<_> = got.iter().map(|m| m["type"].as_str().unwrap()).collect();
            assert_eq!(types, client.due, "client {index}: {got:?}");
            client.due.clear();
        }
        for (index, name) in ROOMS.iter().enumerate() {
            let expected: Vec<_> = self.rooms[index]
                .members
                .iter()
                .map(|&(c, role)| {
                    let away = self.clients[c]
                        .session
                        .as_ref()
                        .unwrap()
                        .away_since
                        .is_some();
                    let connection = if away { "away" } else { "online" };
                    json!([self.clients[c].peer, role, connection])
                })
                .collect();
            let shown = self
                .world
                .hub
                .room(name)
                .map_or(json!({"members": []}), |room| {
                    serde_json::to_value(room).unwrap()
                });
            let members: Vec<_> = shown["members"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| json!([m["peerId"], m["role"], m["connection"]]))
                .collect();
            assert_eq!(members, expected, "room {name}");
        }
        let alive = self.calls.iter().filter(|call| !call.over).count();
        assert_eq!(self.world.hub.gauges().calls, alive);
        let sessions = self.clients.iter().filter(|c| c.session.is_some()).count();
        assert_eq!(self.world.hub.gauges().sessions, sessions);
    }

    fn tell(&mut self, client: usize, kind: &str) {
        self.clients[client].due.push(kind.to_owned());
    }

    fn tell_room(&mut self, room: usize, except: Option<usize>, kind: &str) {
        for (member, _) in self.rooms[room].members.clone() {
            if Some(member) != except {
                self.tell(member, kind);
            }
        }
    }

    fn room_of(&self, c: usize) -> Option<usize> {
        self.clients[c]
            .session
            .as_ref()
            .and_then(|session| session.room)
    }

    fn role_of(&self, c: usize) -> Option<&'static str> {
        let room = self.room_of(c)?;
        self.rooms[room]
            .members
            .iter()
            .find(|m| m.0 == c)
            .map(|m| m.1)
    }

    fn connect(&mut self, c: usize) {
        if self.clients[c].conn.is_some() || self.clients[c].session.is_some() {
            return;
        }
        let conn = self.world.open();
        let welcome = self.world.take(conn).remove(0);
        self.clients[c] = Client {
            conn: Some(conn),
            peer: welcome["peerId"].as_str().unwrap().to_owned(),
            waiting_since: Some(self.clock),
            ..Client::default()
        };
    }

    fn cut(&mut self, c: usize) {
        let Some(conn) = self.clients[c].conn.take() else {
            return;
        };
        self.world.cut(conn);
        self.clients[c].waiting_since = None;
        let clock = self.clock;
        if let Some(session) = &mut self.clients[c].session {
            session.away_since = Some(clock);
            if let Some(room) = session.room {
                self.tell_room(room, Some(c), "peer-state");
            }
        }
    }

    /// On a new connection, whether or not the old one is still open.
    fn resume(&mut self, c: usize) {
        let Some(session) = &self.clients[c].session else {
            return;
        };
        let (token, seen, room) = (session.token.clone(), session.seen, session.room);
        let was_away = session.away_since.is_some();
        let conn = self.world.open();
        self.world.take(conn);
        self.world.send(
            conn,
            json!({"type": "resume", "resumeToken": token, "seq": seen}),
        );
        if let Some(old) = self.clients[c].conn.replace(conn) {
            assert_eq!(self.world.closed.get(&old), Some(&4004));
        }
        self.clients[c].session.as_mut().unwrap().away_since = None;
        self.clients[c].due.insert(0, "resumed".to_owned());
        if let Some(room) = room.filter(|_| was_away) {
            self.tell_room(room, Some(c), "peer-state");
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.clock + ms;
        let deadline = |c: &Client| c.waiting_since.map(|since| since + 10_000);
        let window = |c: &Client| c.session.as_ref()?.away_since.map(|since| since + 30_000);
        loop {
            let clients = 0..CLIENTS;
            let deadlines = clients
                .clone()
                .filter_map(|c| Some((deadline(&self.clients[c])?, 0, c)));
            let windows = clients.filter_map(|c| Some((window(&self.clients[c])?, 1, c)));
            let rings = self.calls.iter().enumerate().filter_map(|(n, call)| {
                (!call.over && call.callee.is_none()).then_some((call.since + 45_000, 2, n))
            });
            let Some((at, what, index)) = deadlines.chain(windows).chain(rings).min() else {
                break;
            };
            if at > end {
                break;
            }
            match what {
                0 => {
                    self.clients[index].waiting_since = None;
                    self.clients[index].conn = None;
                }
                1 => self.end(index),
                _ => {
                    self.calls[index].over = true;
                    self.tell(self.calls[index].caller, "hangup");
                    for device in self.calls[index].ringing.clone() {
                        self.tell(device, "hangup");
                    }
                }
            }
            self.clock = at;
        }
        self.clock = end;
        self.world.pass(Duration::from_millis(ms));
    }

    fn end(&mut self, c: usize) {
        let room = self.room_of(c);
        self.clients[c].session = None;
        for n in 0..self.calls.len() {
            let call = &mut self.calls[n];
            let rings = call.ringing.contains(&c);
            if call.over || !(rings || call.caller == c || call.callee == Some(c)) {
                continue;
            }
            call.ringing.retain(|device| *device != c);
            if rings && !call.ringing.is_empty() {
                continue;
            }
            call.over = true;
            let parties = [Some(call.caller), call.callee];
            for party in parties
                .into_iter()
                .flatten()
                .chain(self.calls[n].ringing.clone())
            {
                if party != c {
                    self.tell(party, "hangup");
                }
            }
        }
        let Some(room) = room else { return };
        let was_host = self.rooms[room].members.contains(&(c, "host"));
        self.rooms[room].members.retain(|member| member.0 != c);
        if self.rooms[room].members.is_empty() {
            self.rooms[room] = Room::default();
            return;
        }
        self.tell_room(room, None, "peer-left");
        let members = &mut self.rooms[room].members;
        if was_host
            && !members.iter().any(|m| m.1 == "host")
            && let Some(heir) = members.iter_mut().find(|m| m.1 == "member")
        {
            heir.1 = "host";
            self.tell_room(room, None, "peer-state");
        }
    }

    fn ask(&mut self, c: usize, ask: &Ask, twice: bool) {
        let Some(conn) = self.clients[c].conn else {
            return;
        };
        self.asked += 1;
        let mut message = self.message(c, ask);
        message["id"] = json!(format!("{}-{}", conn, self.asked));
        let reply = self.expect(c, ask);
        self.tell(c, reply);
        if *ask == Ask::Leave && reply == "left" {
            // The goodbye goes first, while there is a session to number it.
            self.end(c);
            self.clients[c].waiting_since = Some(self.clock);
        }
        if let Ask::Room {
            relay: Some(relay), ..
        } = *ask
            && reply == "room-updated"
        {
            let room = self.room_of(c).unwrap();
            if std::mem::replace(&mut self.rooms[room].relay, relay) != relay {
                self.tell_room(room, None, "ice-servers");
            }
        }
        self.world.send(conn, message.clone());
        self.learn(c, conn);
        if twice && !matches!(ask, Ask::Call(_)) {
            self.compare();
            self.tell(c, reply);
            self.world.send(conn, message);
        }
    }

    /// Remembers tokens and call ids that only the hub can make.
    fn learn(&mut self, c: usize, conn: u64) {
        let got = self.world.take(conn);
        for frame in &got {
            match frame["type"].as_str().unwrap() {
                "joined" | "registered" => {
                    let session = self.clients[c].session.as_mut().unwrap();
                    session.token = frame["resumeToken"].clone();
                }
                "calling" => self.calls.last_mut().unwrap().id = frame["callId"].clone(),
                _ => {}
            }
        }
        self.world.put_back(conn, got);
    }

    fn message(&self, c: usize, ask: &Ask) -> Value {
        let peer = |c: usize| json!(self.clients[c].peer);
        let call = |n: usize| match self.calls.len() {
            0 => json!("none"),
            len => self.calls[n % len].id.clone(),
        };
        match *ask {
            Ask::Join {
                room,
                password,
                create,
            } => json!({
                "type": "join", "roomId": ROOMS[room], "identity": identity(c),
                "password": password.then_some(PASSWORD),
                "create": {"password": create.then_some(PASSWORD)},
            }),
            Ask::Register => json!({"type": "register", "identity": identity(c)}),
            Ask::Leave => json!({"type": "leave"}),
            Ask::Forward { kind, to } => {
                let mut message = json!({"type": kind, "sdp": "v=0", "candidate": null, "content": 1, "tracks": []});
                if let Some(to) = to {
                    message["to"] = peer(to);
                }
                message
            }
            Ask::Call(identity) => json!({"type": "call", "to": format!("i{identity}")}),
            Ask::Accept(n) => json!({"type": "accept", "callId": call(n)}),
            Ask::Reject(n) => json!({"type": "reject", "callId": call(n)}),
            Ask::Hangup(n) => json!({"type": "hangup", "callId": call(n)}),
            Ask::State => json!({"type": "state", "state": {"a": 1}}),
            Ask::Mute { to, kind } => json!({"type": kind, "kind": "audio", "to": to.map(peer)}),
            Ask::Plain(kind) => json!({"type": kind}),
            Ask::Kick(c) => json!({"type": "kick", "peerId": peer(c)}),
            Ask::Room {
                locked,
                password,
                max,
                relay,
            } => {
                let mut message =
                    json!({"type": "room", "locked": locked, "maxPeers": max, "relayOnly": relay});
                if let Some(password) = password {
                    message["password"] = json!(password.then_some(PASSWORD));
                }
                message
            }
            Ask::Grant(c, role) => json!({"type": "grant", "peerId": peer(c), "role": role}),
        }
    }
}

fn identity(c: usize) -> String {
    format!("i{}", c % 3)
}
