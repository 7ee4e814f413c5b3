//! STUN messages and ChannelData as a socket may bring them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turn_engine::engine::fuzz::parse(bytes));
