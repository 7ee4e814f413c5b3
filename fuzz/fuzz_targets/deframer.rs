//! Messages in a stream, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::relay::framing::fuzz(bytes));
