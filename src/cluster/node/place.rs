//! What stands for a room: in tokens, and in keys of Redis.

use super::super::seal::room_hash;
use super::PEOPLE;
use crate::protocol::Locator;

/// What stands for a room in tokens, or for those without a room.
pub fn locator(key: &[u8; 32], room: Option<&str>) -> Locator {
    let hash = room_hash(key, room.unwrap_or(PEOPLE));
    let mut place = [0; 16];
    for (byte, digits) in place.iter_mut().zip(hash.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    place
}

/// What stands for a room, as keys of Redis hold it.
pub fn hex(place: &Locator) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in place {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
