//! What a relay-only room lets through of a session description or a candidate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::signal::fuzz_sdp(bytes));
