//! Histories at random: what clients do, and what a shell makes of it.

use crate::auth::{Grant, Role, RoomPattern, RoomScope};
use crate::protocol::{
    Addressed, ClientMessage, DialectKind, ExchangeRequest, MessageType, PeerId, Publication,
    Request, SubscriptionOptions, Takeover, Wish, parse,
};
use crate::signal::hub::{ConnId, Effect, Event, Hub, Input, Loss, Now, Settings, UniqueIdentity};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const CONNS: u64 = 9;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect(u64, DialectKind),
    Close(u64, Loss),
    Say(u64, Said),
    Confirm(u64, u64),
    Alive(u64),
    Pass(u64),
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    /// A frame in which `%t` is a resume token, `%c` a call and `%p` a peer that the hub gave out.
    Frame(&'static str, prop::sample::Index, u8),
    Malformed,
    Exchange(usize, u8),
}

/// Frames of clients; `%n` is one of few names.
const FRAMES: &[&str] = &[
    r#"{"type":"join","roomId":"a","identity":"%n","id":"%i"}"#,
    r#"{"type":"join","roomId":"a","identity":"%n","password":"pw"}"#,
    r#"{"type":"join","roomId":"b","create":{"password":"pw","metadata":{"x":1}},"metadata":[1]}"#,
    r#"{"type":"join","roomId":"b","password":"wrong"}"#,
    r#"{"type":"register","identity":"%n","id":"%i"}"#,
    r#"{"type":"resume","resumeToken":"%t","seq":%s,"id":"%i"}"#,
    r#"{"type":"leave","id":"%i"}"#,
    r#"{"type":"message","content":{"n":[1,2]},"id":"%i"}"#,
    r#"{"type":"message","to":"%p","content":"words"}"#,
    r#"{"type":"offer","to":"%p","sdp":"v=0"}"#,
    r#"{"type":"call","to":"%n","id":"%i"}"#,
    r#"{"type":"call","to":"%p"}"#,
    r#"{"type":"accept","callId":"%c","id":"%i"}"#,
    r#"{"type":"reject","callId":"%c"}"#,
    r#"{"type":"hangup","callId":"%c","reason":"enough"}"#,
    r#"{"type":"state","state":{"mood":"%n","deep":{"%i":1}}}"#,
    r#"{"type":"list","id":"%i"}"#,
    r#"{"type":"rooms","id":"%i"}"#,
    r#"{"type":"ice","id":"%i"}"#,
    r#"{"type":"kick","peerId":"%p","id":"%i"}"#,
    r#"{"type":"room","locked":false,"password":"pw","maxPeers":7,"relayOnly":true,"id":"%i"}"#,
    r#"{"type":"room","password":null,"metadata":{"topic":"%n"}}"#,
    r#"{"type":"grant","peerId":"%p","role":"host"}"#,
    r#"{"type":"invite","role":"member","id":"%i"}"#,
    r#"{"type":"ping","t":1,"id":"%i"}"#,
];

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let conn = 0..CONNS;
    let said = prop_oneof![
        12 => (prop::sample::select(FRAMES), any::<prop::sample::Index>(), 0u8..4)
            .prop_map(|(text, index, n)| Said::Frame(text, index, n)),
        1 => Just(Said::Malformed),
        6 => (0usize..11, 0u8..3).prop_map(|(kind, n)| Said::Exchange(kind, n)),
    ];
    let dialect = prop::sample::select(&[
        DialectKind::Native,
        DialectKind::Native,
        DialectKind::Native,
        DialectKind::Tutorial1,
        DialectKind::PeerJs,
        DialectKind::Mqtt,
    ]);
    let loss = prop::sample::select(&[Loss::Disconnected, Loss::Timeout]);
    let op = prop_oneof![
        3 => (conn.clone(), dialect).prop_map(|(conn, dialect)| Op::Connect(conn, dialect)),
        2 => (conn.clone(), loss).prop_map(|(conn, loss)| Op::Close(conn, loss)),
        14 => (conn.clone(), said).prop_map(|(conn, said)| Op::Say(conn, said)),
        1 => (conn.clone(), 0u64..30).prop_map(|(conn, seq)| Op::Confirm(conn, seq)),
        1 => conn.prop_map(Op::Alive),
        2 => prop_oneof![1u64..700, 3_000u64..20_000].prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 1..160)
}

/// What clients were told and may say again.
#[derive(Default)]
pub(super) struct Received {
    tokens: Vec<String>,
    calls: Vec<String>,
    peers: Vec<String>,
}

impl Received {
    pub(super) fn take(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Send {
                event: Event::Native(body),
                ..
            } = effect
            else {
                continue;
            };
            let frame: Value = serde_json::from_str(body.as_str()).unwrap();
            let fields = [
                ("resumeToken", &mut self.tokens),
                ("callId", &mut self.calls),
                ("peerId", &mut self.peers),
            ];
            for (name, list) in fields {
                if let Some(text) = frame[name].as_str()
                    && !list.iter().any(|known| known == text)
                {
                    list.push(text.to_owned());
                }
            }
        }
    }

    fn fill(&self, text: &str, index: prop::sample::Index, n: u8) -> String {
        let pick = |list: &[String]| match list {
            [] => "none".to_owned(),
            list => index.get(list).clone(),
        };
        text.replace("%t", &pick(&self.tokens))
            .replace("%c", &pick(&self.calls))
            .replace("%p", &pick(&self.peers))
            .replace("%n", ["ann", "bob", "cid", "dee"][usize::from(n)])
            .replace("%s", &n.to_string())
            .replace("%i", &format!("id{}", index.index(12)))
    }
}

fn exchange(kind: usize, n: u8) -> ExchangeRequest {
    let topic: std::sync::Arc<str> = format!("topic {n}").into();
    let name = format!("name {n}");
    let publication = Publication {
        topic: topic.clone(),
        properties: [n].into(),
        payload: b"what was said".as_slice().into(),
        qos: n,
        room: (n == 1).then(|| "r".into()),
    };
    let options = SubscriptionOptions {
        qos: n,
        no_local: n == 1,
    };
    match kind {
        0 | 1 => ExchangeRequest::Open {
            token: None,
            name: None,
        },
        2 => ExchangeRequest::Subscribe {
            id: 1,
            topics: vec![Wish {
                topic,
                options,
                room: None,
                is_refused: false,
            }],
        },
        3 => ExchangeRequest::Unsubscribe {
            id: 2,
            topics: vec![topic],
        },
        4 => ExchangeRequest::Publish {
            id: 3,
            publication: std::sync::Arc::new(publication),
        },
        5 => ExchangeRequest::Will(Some(std::sync::Arc::new(publication))),
        6 | 7 => ExchangeRequest::Claim {
            name,
            proof: u128::MAX - u128::from(n),
            takeover: [Takeover::Shared, Takeover::Private][kind - 6],
        },
        8 => ExchangeRequest::Release,
        9 => ExchangeRequest::Send {
            to: name.into(),
            message: std::sync::Arc::new(Addressed {
                kind: "OFFER".into(),
                payload: Some("{}".into()),
            }),
            parks: true,
        },
        _ => ExchangeRequest::Ice,
    }
}

/// Made anew for each hub, as an input cannot be copied.
pub(super) fn input(op: &Op, conn: ConnId, received: &Received) -> Option<Input> {
    let text = |slot, text: &str| Input::Frame {
        conn,
        message: parse(text),
        grant: Some(Box::new(Ok(grant(slot)))),
    };
    Some(match *op {
        Op::Connect(slot, dialect) => Input::Connected {
            conn,
            client: [192, 0, 2, slot as u8 % 3].into(),
            dialect,
            lobby: (dialect == DialectKind::Tutorial1).then(|| "lobby".into()),
        },
        Op::Close(_, loss) => Input::Closed { conn, loss },
        Op::Say(slot, Said::Frame(frame, index, n)) => text(slot, &received.fill(frame, index, n)),
        Op::Say(slot, Said::Malformed) => text(slot, "{}"),
        Op::Say(slot, Said::Exchange(kind, n)) => Input::Frame {
            conn,
            message: Ok(ClientMessage {
                dialect: None,
                id: None,
                kind: MessageType::Message,
                request: Request::Exchange(exchange(kind, n)),
            }),
            grant: Some(Box::new(Ok(grant(slot)))),
        },
        Op::Confirm(slot, seq) => Input::Confirmed {
            conn,
            peer: PeerId::parse(received.peers.get(slot as usize)?)?,
            seq,
        },
        Op::Alive(_) => Input::Alive { conn },
        Op::Pass(_) => return None,
    })
}

/// Some come with tokens, which end.
fn grant(conn: u64) -> Grant {
    match conn {
        1 => Grant {
            ends: Some(1_700_000_060),
            role: Some(Role::Host),
            identity: Some("ann".into()),
            list_rooms: true,
            ..Grant::open()
        },
        2 => Grant {
            ends: Some(1_700_000_090),
            rooms: RoomScope::Matching(vec![
                RoomPattern::Exact("a".into()),
                RoomPattern::Glob("topic *".into()),
            ]),
            ..Grant::open()
        },
        _ => Grant::open(),
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        rate: 20,
        byte_burst: 400,
        byte_rate: 1_000,
        ring: 2_000,
        unique_identity: UniqueIdentity::Replace,
        ..Settings::default()
    }
}

/// What is open, as a shell knows it: nothing is said on a socket that is closed, topics and names
/// are for dialects that have them, and no number is given twice.
#[derive(Default)]
pub(super) struct Shell {
    open: BTreeMap<u64, (ConnId, DialectKind)>,
    conns: u64,
    pub(super) received: Received,
}

impl Shell {
    /// The connection that an operation is about, if it makes sense.
    pub(super) fn conn(&mut self, op: &Op) -> Option<ConnId> {
        let has_names =
            |dialect: DialectKind| matches!(dialect, DialectKind::PeerJs | DialectKind::Mqtt);
        match op {
            Op::Connect(slot, dialect) if !self.open.contains_key(slot) => {
                self.conns += 1;
                let conn = ConnId(self.conns);
                self.open.insert(*slot, (conn, *dialect));
                Some(conn)
            }
            Op::Connect(..) => None,
            Op::Close(slot, _) => self.open.remove(slot).map(|(conn, _)| conn),
            Op::Say(slot, said) => {
                let (conn, dialect) = *self.open.get(slot)?;
                let fits = match said {
                    Said::Malformed => true,
                    Said::Frame(..) => !has_names(dialect),
                    Said::Exchange(..) => has_names(dialect),
                };
                fits.then_some(conn)
            }
            Op::Confirm(slot, _) | Op::Alive(slot) => self.open.get(slot).map(|(conn, _)| *conn),
            Op::Pass(_) => Some(ConnId(0)),
        }
    }

    pub(super) fn step(&mut self, op: &Op, now: &mut Now, hubs: &mut [&mut Hub]) {
        let Some(conn) = self.conn(op) else {
            return;
        };
        if let Op::Pass(ms) = op {
            now.instant += Duration::from_millis(*ms);
            now.unix_ms += ms;
        }
        let effects: Vec<Vec<Effect>> = hubs
            .iter_mut()
            .map(|hub| {
                let mut effects = vec![];
                match input(op, conn, &self.received) {
                    Some(input) => hub.handle(*now, input, &mut effects),
                    None => hub.handle_timeout(*now, &mut effects),
                }
                effects
            })
            .collect();
        for other in &effects[1..] {
            assert_eq!(&effects[0], other, "{op:?}");
        }
        for hub in &hubs[1..] {
            assert_eq!(hubs[0].gauges(), hub.gauges(), "{op:?}");
            assert_eq!(hubs[0].next_timeout(), hub.next_timeout(), "{op:?}");
            assert_eq!(hubs[0].timers, hub.timers, "{op:?}");
        }
        self.received.take(&effects[0]);
        for effect in &effects[0] {
            if let Effect::Close { conn, .. } = effect {
                self.open.retain(|_, (open, _)| open != conn);
            }
        }
    }
}
