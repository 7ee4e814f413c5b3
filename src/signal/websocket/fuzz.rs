//! What the fuzz target runs.

use super::{Decoder, Next, Violation};

/// Longest message here: little more than what two bytes of length begin at.
const MAX: usize = 200;

/// A stream cut into pieces, whose size is the first byte, and read with a pause after every
/// message, gives what it gives in one.
///
/// # Panics
/// If it does not, or a message is longer than the limit.
pub fn fuzz(bytes: &[u8]) {
    let [piece, stream @ ..] = bytes else {
        return;
    };
    let whole = read(&mut std::iter::once(stream), || Next::Go);
    let cut = read(&mut stream.chunks(usize::from(*piece) + 1), || Next::Pause);
    assert_eq!(cut, whole);
}

/// Every event, and what ended them.
fn read(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    next: fn() -> Next,
) -> (Vec<String>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut events = vec![];
    for piece in pieces {
        let mut bytes = piece.to_vec();
        loop {
            let fed: Result<(), Violation> = decoder.feed(&mut bytes, MAX, |event| {
                events.push(format!("{event:?}"));
                Ok(next())
            });
            if let Err(violation) = fed {
                return (events, Some(violation));
            }
            if !decoder.is_paused() {
                break;
            }
            bytes.clear();
        }
        assert!(
            decoder.partial.len() < MAX + 14,
            "a frame and its header at most"
        );
    }
    (events, None)
}
