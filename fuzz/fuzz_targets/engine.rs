//! Operations on an engine, with credentials that are good.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turn_engine::engine::fuzz::operate(bytes));
