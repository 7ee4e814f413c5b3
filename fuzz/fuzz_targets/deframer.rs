//! A stream of messages as a TCP client may send it.
#![no_main]

use callbox::relay::framing::{Deframer, MAX_MESSAGE};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut deframer = Deframer::new(bytes, MAX_MESSAGE);
    while let Ok(Some(message)) = deframer.next_message() {
        assert!(message.len() + deframer.rest().len() <= bytes.len());
    }
});
