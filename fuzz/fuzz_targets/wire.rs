//! What a node reads of another one: entries of a batch, and a link that delivers them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callbox::cluster::wire::fuzz::read(bytes));
