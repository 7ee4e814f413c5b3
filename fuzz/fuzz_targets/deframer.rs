//! Messages in a stream, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turn_engine::framing::fuzz(bytes));
