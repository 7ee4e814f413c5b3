//! A dialect alone: what it writes, asks and wants.

use crate::protocol::{ExchangeRequest, FrameError, PeerId, Request};
use crate::signal::hub::Event;
use crate::signal::{Closing, Dialect, Incoming, Outgoing, Output};
use std::time::Instant;

/// What a dialect did since the last look.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) texts: Vec<String>,
    pub(super) binaries: Vec<Vec<u8>>,
    pub(super) requests: Vec<Result<ExchangeRequest, FrameError>>,
    pub(super) closing: Option<Closing>,
    /// What [`Dialect::closing`] gave, where that was called.
    pub(super) status: Option<u16>,
}

pub(super) fn opened(dialect: &mut impl Dialect) -> Done {
    watch(|out| dialect.opened(Instant::now(), out))
}

pub(super) fn text(dialect: &mut impl Dialect, text: &str) -> Done {
    watch(|out| dialect.decode(Incoming::Text(text), Instant::now(), out))
}

pub(super) fn binary(dialect: &mut impl Dialect, bytes: &[u8]) -> Done {
    watch(|out| dialect.decode(Incoming::Binary(bytes), Instant::now(), out))
}

pub(super) fn event(dialect: &mut impl Dialect, event: Event) -> Done {
    let outgoing = Outgoing {
        peer: PeerId::from_bits(7),
        seq: None,
        event,
    };
    watch(|out| dialect.encode(&outgoing, Instant::now(), out))
}

pub(super) fn closing(dialect: &mut impl Dialect, closing: &Closing) -> Done {
    let mut status = 0;
    let mut done = watch(|out| status = dialect.closing(closing, out));
    done.status = Some(status);
    done
}

pub(super) fn watch(act: impl FnOnce(&mut Output<'_>)) -> Done {
    let (mut frames, mut requests, mut closing) = (vec![], vec![], None);
    act(&mut Output::new(&mut frames, &mut requests, &mut closing));
    let mut done = Done {
        closing,
        ..Done::default()
    };
    for request in requests {
        done.requests
            .push(request.map(|message| match message.request {
                Request::Exchange(request) => request,
                other => panic!("{other:?}"),
            }));
    }
    (done.texts, done.binaries) = messages(&frames);
    done
}

/// The texts and the bytes among frames of a server.
pub(super) fn messages(frames: &[u8]) -> (Vec<String>, Vec<Vec<u8>>) {
    let (mut texts, mut binaries) = (vec![], vec![]);
    let mut rest = frames;
    while !rest.is_empty() {
        let (length, header) = match rest[1] {
            126 => (u16::from_be_bytes([rest[2], rest[3]]).into(), 4),
            127 => (
                u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize,
                10,
            ),
            short => (usize::from(short), 2),
        };
        let payload = rest[header..header + length].to_vec();
        match rest[0] {
            0x81 => texts.push(String::from_utf8(payload).unwrap()),
            0x82 => binaries.push(payload),
            other => panic!("frame {other:x}"),
        }
        rest = &rest[header + length..];
    }
    (texts, binaries)
}
