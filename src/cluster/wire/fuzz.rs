//! What the fuzz target runs: entries that some node might write, and what a link makes of them.

use super::super::link::{Effect, Link};
use super::super::seal::Secrets;
use super::{Entry, Head, Incarnation, open_batch, read_known, seal_batch, write_entry};

/// Bytes are refused, or are entries that would be written just so, but for those of later releases; a link delivers those entries and
/// no others, and takes nothing that is not sealed.
///
/// # Panics
/// If that does not hold.
pub fn read(bytes: &[u8]) {
    let entries = read_known(bytes);
    if let Ok((entries, 0)) = &entries {
        let mut written = vec![];
        for entry in entries {
            write_entry(&mut written, entry);
        }
        assert_eq!(written, bytes, "entries are written in one way");
    }
    let entries = entries.map(|(entries, _)| entries);
    let Ok(secrets) = Secrets::new(&["s".repeat(32).into()]) else {
        return;
    };
    let (from, to) = (Incarnation::from_bits(1), Incarnation::from_bits(2));
    let keys = secrets.link(from, to);
    assert!(open_batch(bytes, &keys).is_err(), "nobody has sealed it");
    let head = Head {
        from,
        to,
        generation: 1,
        number: 1,
    };
    let batch = seal_batch(head, &keys, bytes.to_vec());
    let (mut link, mut effects) = (Link::new(&secrets, to, from), vec![]);
    let taken = link.received(&batch, &mut effects);
    assert_eq!(
        taken.is_ok(),
        entries.is_ok(),
        "a link reads as the codec does"
    );
    let delivered: Vec<Entry> = (effects.into_iter())
        .filter_map(|effect| match effect {
            Effect::Deliver(entries) => Some(entries),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(delivered, entries.unwrap_or_default(), "in order and once");
}
