//! What a successor is given: a whole file, the box, a relay, rooms, connections.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::app::handover::fuzz::read(bytes));
