//! Minutes of virtual time over a network that loses connections: with whatever was on its way,
//! found at once or late, resumed in time or not, while the wall clock jumps.
//!
//! Clients behave as the protocol asks: they resend unanswered requests under the same id after a
//! resume and join anew where that fails. Then every message arrives once and in order, except
//! where a gap was announced.

use super::harness::ice;
use super::*;
use crate::protocol::{DialectKind, frame, parse};
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};

const CLIENTS: usize = 8;
const ROOMS: [&str; 2] = ["red", "blue"];
const STEP: Duration = Duration::from_millis(50);
/// How often the server pings, in steps; the pong confirms.
const PING_EVERY: u64 = 100;

#[test]
fn every_message_arrives_once_and_in_order() {
    let (mut resumes, mut gaps, mut delivered) = (0, 0, 0);
    for seed in 0..8 {
        let ample = seed % 2 == 0;
        let (ring, ring_total) = if ample {
            (4 << 20, 64 << 20)
        } else {
            (2_000, 10_000)
        };
        let mut net = Net::new(seed, ring, ring_total);
        for _ in 0..3600 {
            net.step(true);
        }
        // Nobody is cut off any more, and everything in flight arrives.
        for _ in 0..2400 {
            net.step(false);
        }
        net.check_all_arrived();
        resumes += net.hub.counters().resumes;
        let announced = net.hub.counters().gaps;
        assert!(
            !ample || announced == 0,
            "nothing is lost where the rings are ample"
        );
        gaps += announced;
        delivered += net.clients.iter().map(|c| c.delivered).sum::<u64>();
        net.empty();
    }
    assert!(
        resumes > 150 && gaps > 10 && delivered > 8_000,
        "{resumes} {gaps} {delivered}"
    );
}

enum Down {
    Frame(String),
    Ping((Option<PeerId>, u64)),
}

enum Up {
    Text(String),
    Pong((Option<PeerId>, u64)),
}

/// One socket and what is on its way.
struct Wire {
    client: usize,
    down: VecDeque<(u64, Down)>,
    up: VecDeque<(u64, Up)>,
    /// The last number sent down.
    sent: (Option<PeerId>, u64),
    /// When the server finds that the socket is dead.
    dead_at: Option<u64>,
}

#[derive(Default)]
struct Client {
    conn: Option<u64>,
    /// When it connects again.
    retry_at: u64,
    token: Option<Value>,
    seen: u64,
    /// Whether the next number may skip some.
    gap: bool,
    peer: String,
    room: &'static str,
    in_session: bool,
    /// Messages sent in this session, and those without an answer.
    sent: u64,
    unanswered: VecDeque<(String, String)>,
    /// Of each peer in the room: the last message's number; absent: any may come.
    received: BTreeMap<String, u64>,
    delivered: u64,
}

struct Net {
    hub: Hub,
    rng: StdRng,
    now: Now,
    tick: u64,
    wires: BTreeMap<u64, Wire>,
    clients: Vec<Client>,
    next_conn: u64,
    ids: u64,
    ring: usize,
    ring_total: usize,
}

impl Net {
    fn new(seed: u64, ring: usize, ring_total: usize) -> Self {
        let settings = Settings {
            rate: 0,
            ring,
            ring_total,
            ..Settings::default()
        };
        Self {
            hub: Hub::new(settings, ice(true), [5; 32]),
            rng: StdRng::seed_from_u64(seed),
            now: Now {
                instant: Instant::now(),
                unix_ms: 1_700_000_000_000,
            },
            tick: 0,
            wires: BTreeMap::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            next_conn: 0,
            ids: 0,
            ring,
            ring_total,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_ratio(1, one_in)
    }

    fn step(&mut self, chaos: bool) {
        self.tick += 1;
        self.now.instant += STEP;
        self.now.unix_ms += 50;
        if chaos && self.chance(500) {
            self.now.unix_ms = self.rng.random_range(1_600_000_000_000..1_800_000_000_000);
        }
        let mut effects = Vec::new();
        self.hub.handle_timeout(self.now, &mut effects);
        self.carry_out(effects);
        assert!(
            self.hub
                .next_timeout()
                .is_none_or(|due| due > self.now.instant)
        );

        for client in 0..CLIENTS {
            self.act(client, chaos);
        }
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            self.move_along(conn);
        }
        let gauges = self.hub.gauges();
        assert!(
            gauges.ring_bytes <= self.ring_total
                && gauges.ring_bytes <= gauges.sessions * self.ring
        );
    }

    /// What a client does of its own accord.
    fn act(&mut self, c: usize, chaos: bool) {
        let tick = self.tick;
        let Some(conn) = self.clients[c].conn else {
            if self.clients[c].retry_at <= tick {
                self.connect(c);
            }
            return;
        };
        if chaos && self.chance(300) {
            // Most are found at once; some sockets are half open for a while.
            let late = if self.chance(3) {
                self.rng.random_range(0..400)
            } else {
                0
            };
            let longest = if self.chance(4) { 900 } else { 100 };
            let away = self.rng.random_range(0..longest);
            let wire = self.wires.get_mut(&conn).unwrap();
            wire.dead_at = Some(tick + late);
            wire.up.clear();
            wire.down.clear();
            self.clients[c].conn = None;
            self.clients[c].retry_at = tick + away;
            return;
        }
        if self.clients[c].in_session && chaos && self.chance(8) {
            let client = &mut self.clients[c];
            client.sent += 1;
            self.ids += 1;
            let id = self.ids.to_string();
            let content = json!({"by": client.peer, "in": client.room, "n": client.sent});
            let text = json!({"type": "message", "id": id, "content": content}).to_string();
            client.unanswered.push_back((id, text.clone()));
            self.up(conn, Up::Text(text));
        } else if self.clients[c].in_session && chaos && self.chance(2000) {
            self.clients[c].in_session = false;
            self.up(conn, Up::Text(json!({"type": "leave"}).to_string()));
        }
        if tick % PING_EVERY == conn % PING_EVERY {
            let sent = self.wires[&conn].sent;
            self.down(conn, Down::Ping(sent));
        }
    }

    fn connect(&mut self, c: usize) {
        self.next_conn += 1;
        let conn = self.next_conn;
        let wire = Wire {
            client: c,
            down: VecDeque::new(),
            up: VecDeque::new(),
            sent: (None, 0),
            dead_at: None,
        };
        self.wires.insert(conn, wire);
        self.clients[c].conn = Some(conn);
        self.clients[c].in_session = false;
        let client = [192, 0, 2, 1].into();
        self.input(Input::Connected {
            conn: ConnId(conn),
            client,
            dialect: DialectKind::Native,
            lobby: None,
        });
        match self.clients[c].token.clone() {
            Some(token) => {
                let seq = self.clients[c].seen;
                let resume = json!({"type": "resume", "resumeToken": token, "seq": seq});
                self.up(conn, Up::Text(resume.to_string()));
            }
            None => self.join(c, conn),
        }
    }

    fn join(&mut self, c: usize, conn: u64) {
        let room = ROOMS.choose(&mut self.rng).copied().unwrap();
        self.clients[c].room = room;
        self.up(
            conn,
            Up::Text(json!({"type": "join", "roomId": room}).to_string()),
        );
    }

    fn up(&mut self, conn: u64, item: Up) {
        let at = self.tick + self.rng.random_range(0..6);
        if let Some(wire) = self.living(conn) {
            send_off(&mut wire.up, at, item);
        }
    }

    fn down(&mut self, conn: u64, item: Down) {
        let at = self.tick + self.rng.random_range(0..6);
        if let Some(wire) = self.living(conn) {
            send_off(&mut wire.down, at, item);
        }
    }

    fn living(&mut self, conn: u64) -> Option<&mut Wire> {
        let wire = self.wires.get_mut(&conn)?;
        wire.dead_at.is_none().then_some(wire)
    }

    fn move_along(&mut self, conn: u64) {
        let tick = self.tick;
        loop {
            let Some(wire) = self.wires.get_mut(&conn) else {
                return;
            };
            if wire.dead_at.is_some_and(|at| at <= tick) {
                self.wires.remove(&conn);
                let loss = Loss::Timeout;
                return self.input(Input::Closed {
                    conn: ConnId(conn),
                    loss,
                });
            }
            if wire.up.front().is_some_and(|(at, _)| *at <= tick) {
                match wire.up.pop_front().unwrap().1 {
                    Up::Text(text) => {
                        let message = parse(&text);
                        self.input(Input::Frame {
                            conn: ConnId(conn),
                            message,
                            grant: None,
                        });
                    }
                    Up::Pong((Some(peer), seq)) => self.input(Input::Confirmed {
                        conn: ConnId(conn),
                        peer,
                        seq,
                    }),
                    Up::Pong((None, _)) => {}
                }
            } else if wire.down.front().is_some_and(|(at, _)| *at <= tick) {
                let client = wire.client;
                match wire.down.pop_front().unwrap().1 {
                    Down::Frame(text) => {
                        self.receive(client, conn, &serde_json::from_str(&text).unwrap());
                    }
                    Down::Ping(seq) => self.up(conn, Up::Pong(seq)),
                }
            } else {
                return;
            }
        }
    }

    fn receive(&mut self, c: usize, conn: u64, frame: &Value) {
        let client = &mut self.clients[c];
        let kind = frame["type"].as_str().unwrap();
        if let Some(seq) = frame["seq"].as_u64() {
            let expected = if kind == "joined" { 1 } else { client.seen + 1 };
            let skips = std::mem::take(&mut client.gap) && seq > client.seen;
            assert!(seq == expected || skips, "{seq} after {}", client.seen);
            client.seen = seq;
        }
        if let Some(id) = frame["id"].as_str() {
            assert_ne!(kind, "error", "{frame}");
            client.unanswered.retain(|(other, _)| other != id);
        }
        match kind {
            "joined" => {
                client.token = Some(frame["resumeToken"].clone());
                client.peer = frame["peerId"].as_str().unwrap().to_owned();
                client.in_session = true;
                client.sent = 0;
                client.unanswered.clear();
                client.received.clear();
            }
            "resumed" => {
                client.in_session = true;
                client.gap = frame["gap"] == true;
                if client.gap {
                    client.received.clear();
                }
                for (_, text) in client.unanswered.clone() {
                    self.up(conn, Up::Text(text));
                }
            }
            "error" => {
                // The session is gone.
                client.token = None;
                self.join(c, conn);
            }
            "left" => {
                client.in_session = false;
                client.token = None;
                self.join(c, conn);
            }
            "message" => {
                let content = &frame["content"];
                assert_eq!(
                    (&content["in"], &frame["roomId"]),
                    (&json!(client.room), &json!(client.room))
                );
                assert_eq!(frame["from"], content["by"]);
                let from = frame["from"].as_str().unwrap().to_owned();
                let n = content["n"].as_u64().unwrap();
                if let Some(last) = client.received.insert(from, n) {
                    assert_eq!(n, last + 1, "lost or repeated");
                }
                client.delivered += 1;
            }
            "peer-left" => {
                client.received.remove(frame["peerId"].as_str().unwrap());
            }
            _ => {}
        }
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.hub.handle(self.now, input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send {
                    conn: ConnId(conn),
                    peer,
                    seq,
                    event: Event::Native(body),
                } => {
                    let wire = self
                        .wires
                        .get_mut(&conn)
                        .expect("sent to a closed connection");
                    wire.sent = seq.map_or(wire.sent, |seq| (Some(peer), seq));
                    self.down(conn, Down::Frame(frame(seq, &body)));
                }
                Effect::Close {
                    conn: ConnId(conn), ..
                } => {
                    let wire = self.wires.remove(&conn).expect("closed twice");
                    let client = &mut self.clients[wire.client];
                    if client.conn == Some(conn) {
                        client.conn = None;
                    }
                }
                Effect::Send { .. } | Effect::Revoke { .. } | Effect::RevokeIdentity { .. } => {}
                Effect::Hold { .. }
                | Effect::Report(_)
                | Effect::Notice(_)
                | Effect::NoTopic { .. } => {}
            }
        }
    }

    /// After the quiet: a client that received anything of a peer has received all that it sent.
    fn check_all_arrived(&self) {
        for client in &self.clients {
            assert!(client.in_session && client.unanswered.is_empty());
            for other in &self.clients {
                if let Some(last) = client.received.get(&other.peer) {
                    assert_eq!(*last, other.sent);
                }
            }
        }
        let peers: BTreeSet<_> = self.clients.iter().map(|c| &c.peer).collect();
        assert_eq!(peers.len(), CLIENTS);
    }

    fn empty(&mut self) {
        while let Some((conn, _)) = self.wires.pop_first() {
            self.input(Input::Closed {
                conn: ConnId(conn),
                loss: Loss::Disconnected,
            });
        }
        self.now.instant += Duration::from_secs(60);
        let mut effects = Vec::new();
        self.hub.handle_timeout(self.now, &mut effects);
        let sent = self.hub.gauges().sent;
        assert_eq!(
            self.hub.gauges(),
            Gauges {
                sent,
                ..Gauges::default()
            }
        );
    }
}

/// Arrives at that time, but overtakes nothing.
fn send_off<T>(way: &mut VecDeque<(u64, T)>, at: u64, item: T) {
    let last = way.back().map_or(0, |(at, _)| *at);
    way.push_back((at.max(last), item));
}
