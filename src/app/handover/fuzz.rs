//! What the fuzz target runs: here, so that `cargo test` replays what it has found.
//!
//! Compiled for tests and by `cargo fuzz` only.

use super::KNOWN;
use super::container::Reader;
use super::state::BoxState;
use crate::compat::fuzz_memory;
use crate::relay::engine::{
    Engine, EngineSnapshot, OpenError, RelaySockets, RelayedKey, Settings, WorkerId,
};
use crate::relay::shared::{SharedSnapshot, SharedState};
use crate::signal::{ParkedConnection, SignalSnapshot};
use rustix::fs::{MemfdFlags, memfd_create};
use secrecy::SecretString;
use serde::Deserialize;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A relay as one text.
#[derive(Deserialize)]
struct Relay {
    shared: SharedSnapshot,
    engine: EngineSnapshot,
}

struct AnySocket;

impl RelaySockets for AnySocket {
    type Socket = ();

    fn open(&mut self, _: SocketAddr, _: RelayedKey) -> Result<(), OpenError> {
        Ok(())
    }

    fn adopt(&mut self, _: RelayedKey, _: SocketAddr) -> Option<()> {
        Some(())
    }
}

/// Reads `bytes` as a successor reads what it is given, by the first byte: a whole file, the box, a
/// relay, rooms, connections. Whatever they are, nothing panics.
pub fn read(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 5 {
        0 => {
            let Ok(file) = memfd_create("fuzz", MemfdFlags::CLOEXEC) else {
                return;
            };
            let mut file = File::from(file);
            if file.write_all(bytes).is_ok()
                && let Ok(reader) = Reader::open(file, &KNOWN)
            {
                for tag in KNOWN {
                    let _ = reader.all(tag);
                }
            }
        }
        1 => drop(serde_json::from_slice::<BoxState>(bytes)),
        2 => relay(bytes),
        3 => drop(serde_json::from_slice::<SignalSnapshot>(bytes)),
        _ => {
            let connections = serde_json::from_slice::<Vec<ParkedConnection>>(bytes);
            for connection in connections.unwrap_or_default() {
                if let Some(memory) = connection.memory() {
                    fuzz_memory(connection.dialect(), memory, Instant::now());
                }
                connection.read();
            }
        }
    }
}

fn relay(bytes: &[u8]) {
    let Ok(relay) = serde_json::from_slice::<Relay>(bytes) else {
        return;
    };
    let now = Instant::now();
    let Ok(shared) = SharedState::restore(relay.shared, now, 0) else {
        return;
    };
    let secrets = vec![SecretString::from("a secret of sixteen")];
    let Some(secrets) = crate::auth::credential::TurnSecrets::new(secrets) else {
        return;
    };
    let settings = Arc::new(Settings::new("callbox", secrets));
    let id = WorkerId(0);
    let engine = Engine::restore(
        id,
        settings,
        Arc::clone(&shared),
        AnySocket,
        relay.engine,
        now,
    );
    if let Ok((mut engine, _)) = engine {
        let again = engine.snapshot(now);
        assert_eq!(again.allocations(), engine.allocations(now).count());
    }
    shared.release_unclaimed(now);
    assert_eq!(shared.allocations(), 0, "what was claimed is given back");
}
