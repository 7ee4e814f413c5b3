//! Parts of a file, as a `Range` header asks for them.

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// From this byte, so many.
    Of(u64, u64),
    /// A form that may be ignored (RFC 9110, section 14.2), several ranges included.
    Whole,
    /// Beyond the end.
    None,
}

/// Reads a `Range` header of a file of that length.
pub(super) fn part(range: &str, length: u64) -> Part {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .filter(|list| !list.contains(','))
        .and_then(|one| one.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let (from, to) = match (first, last) {
        ("", last) => match number(last) {
            Some(0) => return Part::None,
            Some(count) => (length.saturating_sub(count), length),
            None => return Part::Whole,
        },
        (first, "") => match number(first) {
            Some(from) => (from, length),
            None => return Part::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(from), Some(to)) if from <= to => (from, to.saturating_add(1).min(length)),
            _ => return Part::Whole,
        },
    };
    match from < to {
        true => Part::Of(from, to - from),
        false => Part::None,
    }
}
