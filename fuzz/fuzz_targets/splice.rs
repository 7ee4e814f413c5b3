//! A client's frame on its way to another client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::signal::fuzz_splice(bytes));
