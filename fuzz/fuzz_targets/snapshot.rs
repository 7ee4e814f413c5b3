//! Operations on an engine, and on another one that goes on from its snapshot.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turn_engine::engine::fuzz::hand_over(bytes));
