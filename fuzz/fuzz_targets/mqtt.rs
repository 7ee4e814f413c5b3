//! What a client of this protocol says, and what another one receives of it; and packets however the
//! stream is cut.
#![no_main]

use callbox::compat::fuzz::fuzz_bytes;
use callbox::protocol::DialectKind;
use std::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_bytes(DialectKind::Mqtt, bytes, Instant::now());
    callbox::compat::mqtt::fuzz(bytes);
});
