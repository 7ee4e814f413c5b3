//! A hub with a virtual clock and clients that remember what they got.

use super::*;
use crate::auth::credential::TurnSecrets;
use crate::protocol::{DialectKind, frame, parse};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) now: Now,
    pub(crate) revoked: Vec<(String, u64)>,
    pub(crate) closed: BTreeMap<u64, u16>,
    pub(crate) held: BTreeMap<u64, Instant>,
    /// Subscriptions that found no place, as the operator is told.
    pub(crate) without_topic: usize,
    pub(crate) reports: usize,
    pub(crate) notices: Vec<Notice>,
    open: BTreeSet<u64>,
    inboxes: BTreeMap<u64, VecDeque<Value>>,
    /// What dialects with topics and names got.
    pub(crate) exchanged: BTreeMap<u64, Vec<Event>>,
    last_seq: BTreeMap<(u64, PeerId), u64>,
    pub(crate) peers: BTreeMap<u64, PeerId>,
    next_conn: u64,
    next_id: u64,
}

pub(crate) fn ice(relay: bool) -> IceIssuer {
    IceIssuer {
        stun_urls: vec!["stun:box.example:3478".into()],
        turn_urls: if relay {
            vec!["turn:box.example:3478?transport=udp".into()]
        } else {
            vec![]
        },
        secrets: TurnSecrets::new(vec!["north".to_owned().into()]).unwrap(),
        ttl: Duration::from_secs(3600),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), ice(true))
    }

    pub(crate) fn with(settings: Settings, ice: IceIssuer) -> Self {
        Self {
            hub: Hub::new(settings, ice, [7; 32]),
            now: Now {
                instant: Instant::now(),
                unix_ms: 1_700_000_000_000,
            },
            revoked: Vec::new(),
            closed: BTreeMap::new(),
            held: BTreeMap::new(),
            reports: 0,
            without_topic: 0,
            notices: vec![],
            open: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            exchanged: BTreeMap::new(),
            last_seq: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_conn: 1,
            next_id: 0,
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.hub.handle(self.now, input, &mut effects);
        self.deliver(effects);
    }

    /// The client on `conn` has everything up to `seq` of the session there.
    pub(crate) fn confirm(&mut self, conn: u64, seq: u64) {
        let peer = self.peers[&conn];
        let conn = ConnId(conn);
        self.input(Input::Confirmed { conn, peer, seq });
    }

    pub(crate) fn deliver(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send {
                    conn: ConnId(conn),
                    peer,
                    seq,
                    event: Event::Native(body),
                } => {
                    self.peers.insert(conn, peer);
                    assert!(self.open.contains(&conn), "sent to closed {conn}: {body:?}");
                    let value: Value = serde_json::from_str(&frame(seq, &body)).unwrap();
                    if let Some(seq) = seq
                        && let Some(last) = self.last_seq.insert((conn, peer), seq)
                    {
                        assert!(seq == last + 1 || seq == 1, "{seq} after {last}");
                    }
                    self.inboxes.entry(conn).or_default().push_back(value);
                }
                Effect::Close {
                    conn: ConnId(conn),
                    code,
                    ..
                } => {
                    assert!(self.open.remove(&conn), "closed {conn} twice");
                    self.closed.insert(conn, code as u16);
                }
                Effect::Report(_) => self.reports += 1,
                Effect::NoTopic { .. } => self.without_topic += 1,
                Effect::Notice(notice) => self.notices.push(*notice),
                Effect::Hold { conn, until } => {
                    self.held.insert(conn.0, until);
                }
                Effect::Send {
                    conn: ConnId(conn),
                    event,
                    ..
                } => {
                    assert!(
                        self.open.contains(&conn),
                        "sent to closed {conn}: {event:?}"
                    );
                    self.exchanged.entry(conn).or_default().push(event);
                }
                Effect::Revoke {
                    user,
                    revoked_until,
                    ..
                } => self.revoked.push((user.to_string(), revoked_until)),
                Effect::RevokeIdentity { identity, .. } => {
                    self.revoked.push((identity.to_string(), 0))
                }
            }
        }
    }

    /// Opens a connection; its `welcome` is in the inbox.
    pub(crate) fn open(&mut self) -> u64 {
        self.open_from("192.0.2.1")
    }

    pub(crate) fn open_from(&mut self, client: &str) -> u64 {
        self.open_as(client, DialectKind::Native)
    }

    pub(crate) fn open_as(&mut self, client: &str, dialect: DialectKind) -> u64 {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.open.insert(conn);
        let client = client.parse().unwrap();
        self.input(Input::Connected {
            conn: ConnId(conn),
            client,
            dialect,
            lobby: None,
        });
        conn
    }

    pub(crate) fn send(&mut self, conn: u64, message: Value) {
        self.send_as(conn, message, Ok(Grant::open()));
    }

    pub(crate) fn send_as(
        &mut self,
        conn: u64,
        message: Value,
        grant: Result<Grant, RequestError>,
    ) {
        self.send_text(conn, &message.to_string(), grant);
    }

    pub(crate) fn send_text(&mut self, conn: u64, text: &str, grant: Result<Grant, RequestError>) {
        let message = parse(text);
        self.input(Input::Frame {
            conn: ConnId(conn),
            message,
            grant: Some(Box::new(grant)),
        });
    }

    /// Everything that `conn` got since the last look.
    pub(crate) fn take(&mut self, conn: u64) -> Vec<Value> {
        self.inboxes.remove(&conn).unwrap_or_default().into()
    }

    /// Undoes a look.
    pub(crate) fn put_back(&mut self, conn: u64, messages: Vec<Value>) {
        self.inboxes.entry(conn).or_default().extend(messages);
    }

    /// The types of everything that `conn` got since the last look.
    pub(crate) fn types(&mut self, conn: u64) -> Vec<String> {
        self.take(conn)
            .iter()
            .map(|m| m["type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sends and returns the one frame that comes back to `conn`.
    pub(crate) fn ask(&mut self, conn: u64, message: Value) -> Value {
        self.ask_as(conn, message, Ok(Grant::open()))
    }

    pub(crate) fn ask_as(
        &mut self,
        conn: u64,
        mut message: Value,
        grant: Result<Grant, RequestError>,
    ) -> Value {
        self.take(conn);
        if message.get("id").is_none() {
            self.next_id += 1;
            message["id"] = json!(format!("ask-{}", self.next_id));
        }
        let id = message["id"].clone();
        self.send_as(conn, message, grant);
        let mut got = self.take(conn);
        let index = got.iter().position(|m| m["id"] == id).expect("an answer");
        let answer = got.remove(index);
        self.put_back(conn, got);
        answer
    }

    /// Opens a connection and joins under the name; returns the connection and `joined`.
    pub(crate) fn join(&mut self, room: &str, identity: &str) -> (u64, Value) {
        let conn = self.open();
        let joined = self.ask(
            conn,
            json!({"type": "join", "roomId": room, "identity": identity}),
        );
        assert_eq!(joined["type"], "joined", "{joined}");
        (conn, joined)
    }

    /// Joins several to one room and empties their inboxes; returns connections and peer ids.
    pub(crate) fn party<const N: usize>(&mut self, room: &str) -> [(u64, String); N] {
        let party = std::array::from_fn(|n| {
            let (conn, joined) = self.join(room, &format!("p{n}"));
            (conn, joined["peerId"].as_str().unwrap().to_owned())
        });
        self.clear();
        party
    }

    pub(crate) fn register(&mut self, identity: &str) -> (u64, String) {
        let conn = self.open();
        let registered = self.ask(conn, json!({"type": "register", "identity": identity}));
        assert_eq!(registered["type"], "registered", "{registered}");
        (conn, registered["peerId"].as_str().unwrap().to_owned())
    }

    pub(crate) fn clear(&mut self) {
        self.inboxes.clear();
    }

    /// Loses the connection.
    pub(crate) fn cut(&mut self, conn: u64) {
        if self.open.remove(&conn) {
            self.input(Input::Closed {
                conn: ConnId(conn),
                loss: Loss::Disconnected,
            });
        }
    }

    pub(crate) fn is_open(&self, conn: u64) -> bool {
        self.open.contains(&conn)
    }

    /// Lets time pass, stopping wherever the hub asked to be woken.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(due) = self.hub.next_timeout().filter(|due| *due <= end) {
            self.set_clock(due);
            let mut effects = Vec::new();
            self.hub.handle_timeout(self.now, &mut effects);
            self.deliver(effects);
            assert!(
                self.hub.next_timeout().is_none_or(|next| next > due),
                "a timer stays due"
            );
        }
        self.set_clock(end);
    }

    fn set_clock(&mut self, instant: Instant) {
        let passed = instant.saturating_duration_since(self.now.instant);
        self.now.unix_ms += u64::try_from(passed.as_millis()).unwrap();
        self.now.instant = self.now.instant.max(instant);
    }

    /// Cuts everyone off and lets all windows end: nothing may be left.
    pub(crate) fn empties(&mut self) {
        for conn in self.open.clone() {
            self.cut(conn);
        }
        self.pass(Duration::from_secs(120));
        let sent = self.hub.sessions.sent;
        assert_eq!(
            self.hub.gauges(),
            Gauges {
                sent,
                ..Gauges::default()
            }
        );
        assert!(self.hub.tokens.is_empty() && self.hub.rooms_of.is_empty());
    }
}
