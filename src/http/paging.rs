//! Long lists in parts: `?from=` is the `next` of the part before.

use super::access::query;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::convert::Infallible;

/// Bytes of one part: it is put together while signaling waits.
pub(super) const MAX_PART: usize = 4 << 20;

/// Where a part begins.
pub(super) struct Begin(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Begin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(query(parts, "from").unwrap_or_default()))
    }
}

/// Bytes of the part that one node gives another: it goes between messages of clients.
pub(super) const MAX_OF_NODE: usize = 512 << 10;

/// As much of `list` as fits into `max` bytes, one at least, and what comes next.
pub(super) fn part<T>(
    mut list: impl Iterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
    max: usize,
) -> (Vec<T>, Option<T>) {
    let (mut shown, mut bytes) = (vec![], 0);
    for item in list.by_ref() {
        bytes += bytes_of(&item);
        if bytes > max && !shown.is_empty() {
            return (shown, Some(item));
        }
        shown.push(item);
    }
    (shown, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_hold_every_item_once_and_stay_within_the_limit(
            sizes in prop::collection::vec(0_usize..200, 0..60),
            max in 1_usize..300,
        ) {
            let (mut begin, mut seen) = (0, vec![]);
            loop {
                let rest = sizes.iter().enumerate().skip(begin);
                let (shown, next) = part(rest, |(_, size)| **size, max);
                let bytes: usize = shown.iter().map(|(_, size)| **size).sum();
                prop_assert!(bytes <= max || shown.len() == 1);
                seen.extend(shown.iter().map(|(n, _)| *n));
                match next {
                    Some((n, size)) => {
                        prop_assert!(n > begin && bytes + size > max);
                        begin = n;
                    }
                    None => break,
                }
            }
            prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
