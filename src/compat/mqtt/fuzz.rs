//! What the fuzz target runs.

use super::packet::{Packet, Reason, Version};
use super::reader::Stream;
use std::ops::ControlFlow;

/// Longest packet here, so that the limit is met.
const MAX: usize = 300;

/// A stream cut into pieces, whose size is the first byte, gives the packets that it gives in one;
/// nothing panics, and no more than a packet is held.
///
/// # Panics
/// If one of these does not hold.
pub fn fuzz(bytes: &[u8]) {
    let [piece, stream @ ..] = bytes else {
        return;
    };
    for version in [Version::V3, Version::V5] {
        let whole = read(&mut std::iter::once(stream), version);
        let cut = read(&mut stream.chunks(usize::from(*piece) + 1), version);
        assert_eq!(cut, whole);
    }
}

fn read(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    version: Version,
) -> (Vec<String>, Option<Reason>) {
    let mut stream = Stream::default();
    let mut packets = vec![];
    for piece in pieces {
        let fed = stream.feed(piece, MAX, |head, body| {
            let packet = Packet::read(head, body, version)?;
            packets.push(format!("{packet:?}"));
            Ok(ControlFlow::Continue(()))
        });
        if let Err(reason) = fed {
            return (packets, Some(reason));
        }
        assert!(stream.held() < MAX, "an unfinished packet at most");
    }
    (packets, None)
}
