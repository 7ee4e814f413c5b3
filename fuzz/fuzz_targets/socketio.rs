//! What a client of this protocol says, and what another one receives of it; and bodies of requests.
#![no_main]

use callbox::compat::fuzz::{fuzz_bytes, fuzz_engine};
use callbox::protocol::DialectKind;
use std::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bytes(DialectKind::SocketIo, bytes, Instant::now());
    fuzz_engine(bytes);
});
