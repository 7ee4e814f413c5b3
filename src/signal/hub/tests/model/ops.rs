//! Operations at random.

use super::{CLIENTS, ROOMS};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect(usize),
    Cut(usize),
    Resume(usize),
    Pass(u64),
    Confirm(usize),
    Malformed(usize),
    Ask(usize, Ask, bool),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    Join {
        room: usize,
        password: bool,
        create: bool,
    },
    Register,
    Leave,
    Forward {
        kind: &'static str,
        to: Option<usize>,
    },
    Call(usize),
    Accept(usize),
    Reject(usize),
    Hangup(usize),
    State,
    Mute {
        to: Option<usize>,
        kind: &'static str,
    },
    Plain(&'static str),
    Kick(usize),
    Room {
        locked: Option<bool>,
        password: Option<bool>,
        max: Option<u32>,
        relay: Option<bool>,
    },
    Grant(usize, &'static str),
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let client = 0..CLIENTS;
    let relayed = vec![
        "offer",
        "answer",
        "candidate",
        "message",
        "hangup",
        "publish",
        "subscribe",
    ];
    let ask = prop_oneof![
        6 => (0..ROOMS.len(), prop::bool::weighted(0.7), prop::bool::ANY)
            .prop_map(|(room, password, create)| Ask::Join { room, password, create }),
        2 => Just(Ask::Register),
        1 => Just(Ask::Leave),
        6 => (prop::sample::select(relayed), prop::option::of(client.clone()))
            .prop_map(|(kind, to)| Ask::Forward { kind, to }),
        3 => (0usize..3).prop_map(Ask::Call),
        2 => any::<usize>().prop_map(Ask::Accept),
        1 => any::<usize>().prop_map(Ask::Reject),
        1 => any::<usize>().prop_map(Ask::Hangup),
        1 => Just(Ask::State),
        1 => (prop::option::of(client.clone()), prop::sample::select(&["mute", "unmute"]))
            .prop_map(|(to, kind)| Ask::Mute { to, kind }),
        1 => prop::sample::select(&["list", "rooms", "ice", "ping"]).prop_map(Ask::Plain),
        1 => client.clone().prop_map(Ask::Kick),
        2 => (
            prop::option::of(prop::bool::weighted(0.3)),
            prop::option::of(prop::bool::ANY),
            prop::option::of(1u32..8),
            prop::option::of(prop::bool::ANY),
        ).prop_map(|(locked, password, max, relay)| Ask::Room { locked, password, max, relay }),
        1 => (client.clone(), prop::sample::select(&["host", "member", "viewer"]))
            .prop_map(|(who, role)| Ask::Grant(who, role)),
    ];
    let op = prop_oneof![
        3 => client.clone().prop_map(Op::Connect),
        2 => client.clone().prop_map(Op::Cut),
        3 => client.clone().prop_map(Op::Resume),
        1 => (1u64..20).prop_map(Op::Pass),
        1 => client.clone().prop_map(Op::Confirm),
        1 => client.clone().prop_map(Op::Malformed),
        20 => (client, ask, prop::bool::weighted(0.2)).prop_map(|(c, a, twice)| Op::Ask(c, a, twice)),
    ];
    prop::collection::vec(op, 1..150)
}
