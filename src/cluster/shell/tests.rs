//! Whole boxes in a simulation: three nodes with their hubs and drivers, a model of Redis, and clients that
//! hold their sessions through whatever happens. Faults follow from a seed.
//!
//! `CALLBOX_SEEDS=5000` (a count, or a range as `70..90`) runs as many seeds in place of the few; a failure
//! prints its seed and what happened before it. `CALLBOX_TRACE=1` prints what nodes and clients get and do,
//! as it happens.

mod clients;
mod ends;
mod faults;
mod judge;
mod machine;
mod planted;
mod redis;
mod replies;
mod wires;
mod world;

use super::*;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::cluster::membership::Isolated;
use crate::protocol::CloseCode;
use std::sync::LazyLock;
use std::time::Instant;
use world::{Kind, World};

/// One step of time.
const STEP: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_secs(10);
/// How long a session outlives its socket.
const WINDOW: Duration = Duration::from_secs(30);
const ROOMS: [&str; 2] = ["red", "blue"];
const CLIENTS: usize = 6;

/// Steps that a time takes.
const fn steps(time: Duration) -> u64 {
    (time.as_millis() / STEP.as_millis()) as u64
}

/// Says what happens, where that is asked for.
fn trace(step: u64, what: impl FnOnce() -> String) {
    static IS_ASKED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("CALLBOX_TRACE").is_some_and(|asked| asked == "1"));
    if *IS_ASKED {
        eprintln!("{:6.1} s  {}", step as f64 * STEP.as_secs_f64(), what());
    }
}

fn ice() -> IceIssuer {
    IceIssuer {
        stun_urls: vec![],
        turn_urls: vec!["turn:box.example".into()],
        secrets: TurnSecrets::new(vec!["north".to_owned().into()]).unwrap(),
        ttl: Duration::from_secs(3600),
    }
}

/// The seeds of one test: so many, unless the environment says others.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CALLBOX_SEEDS") else {
        return 0..few;
    };
    let number = |text: &str| text.parse().expect("CALLBOX_SEEDS is a count or a range");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

fn simulate(kind: Kind, few: u64) {
    let mut totals = world::Totals::default();
    for seed in seeds(few) {
        totals.add(&World::new(kind, seed).run());
    }
    eprintln!("{kind:?}: {totals:?}");
    if seeds(few) == (0..few) {
        assert!(totals.are_of_use(kind), "{kind:?} tries little: {totals:?}");
    }
}

#[test]
fn rooms_live_through_faults_of_nodes() {
    simulate(Kind::Stop, 12);
}

#[test]
fn halves_of_a_room_come_together() {
    simulate(Kind::Serve, 12);
}

#[test]
fn deploys_lose_nothing() {
    simulate(Kind::Deploy, 3);
}
