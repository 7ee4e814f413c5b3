//! WebSocket frames in a stream, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::signal::fuzz_websocket(bytes));
