//! Frames as a library writes and reads them, and what no library would write.

use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write as _};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

const MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into()),
            Event::Binary(payload) => Self::Binary(payload.into()),
            Event::Ping(payload) => Self::Ping(payload.into()),
            Event::Pong(payload) => Self::Pong(payload.into()),
            Event::Close(code) => Self::Close(code),
        }
    }
}

fn decode(bytes: &[u8], cut: usize) -> (Vec<Said>, Result<(), Violation>, Decoder) {
    let mut decoder = Decoder::default();
    let mut said = vec![];
    for piece in bytes.chunks(cut) {
        let fed = decoder.feed(&mut piece.to_vec(), MAX, |event| {
            said.push(event.into());
            Ok(Next::Go)
        });
        if fed.is_err() {
            return (said, fed, decoder);
        }
    }
    (said, Ok(()), decoder)
}

/// A masked frame, as a client writes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![];
    write_header(&mut frame, Opcode::Text, payload.len());
    frame[0] = first;
    frame[1] |= 0x80;
    let mask = [1, 2, 3, 4];
    frame.write_all(&mask).unwrap();
    let at = frame.len();
    frame.extend_from_slice(payload);
    for (n, byte) in frame[at..].iter_mut().enumerate() {
        *byte ^= mask[n % 4];
    }
    frame
}

/// What the library's client writes for these messages.
fn written(messages: &[Message]) -> Vec<u8> {
    let config = WebSocketConfig::default().max_write_buffer_size(usize::MAX);
    let stream = Cursor::new(vec![]);
    let mut client = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
    for message in messages {
        client.write(message.clone()).unwrap();
    }
    client.flush().unwrap();
    client.get_ref().get_ref().clone()
}

fn any_message() -> impl Strategy<Value = Message> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from);
    prop_oneof![
        ".{0,200}".prop_map(|text| Message::Text(text.into())),
        bytes(MAX).prop_map(Message::Binary),
        bytes(MAX_CONTROL).prop_map(Message::Ping),
        bytes(MAX_CONTROL).prop_map(Message::Pong),
    ]
}

proptest! {
    #[test]
    fn reads_what_a_client_writes_however_it_is_cut(
        messages in proptest::collection::vec(any_message(), 0..8),
        cut in 1..500_usize,
    ) {
        let expected: Vec<_> = messages.iter().map(|message| match message {
            Message::Text(text) => Said::Text(text.as_str().into()),
            Message::Binary(payload) => Said::Binary(payload.to_vec()),
            Message::Ping(payload) => Said::Ping(payload.to_vec()),
            Message::Pong(payload) => Said::Pong(payload.to_vec()),
            other => unreachable!("{other}"),
        }).collect();
        let (said, end, decoder) = decode(&written(&messages), cut);
        prop_assert_eq!((said, end), (expected, Ok(())));
        prop_assert_eq!(decoder.partial.capacity(), 0, "an idle connection holds no buffer");
    }

    #[test]
    fn a_client_reads_what_is_written(text in ".{0,70000}") {
        let mut bytes = vec![];
        write_frame(&mut bytes, Opcode::Text, text.as_bytes());
        let stream = Cursor::new(bytes);
        let mut client = WebSocket::from_raw_socket(stream, Role::Client, None);
        prop_assert_eq!(client.read().unwrap(), Message::Text(text.into()));
    }

    #[test]
    fn no_bytes_bring_it_down(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 1..50_usize,
    ) {
        let (_, _, decoder) = decode(&bytes, cut);
        prop_assert!(decoder.partial.len() <= MAX + 14);
    }
}

#[test]
fn fragments_make_one_message_with_control_frames_between() {
    let bytes = [
        frame(0x01, "gr".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x00, &"ü".as_bytes()[..1]),
        frame(0x80, &"üße".as_bytes()[1..]),
        frame(0x81, b"next"),
    ]
    .concat();
    for cut in [1, 3, bytes.len()] {
        let begun = decode(&bytes[..9], cut).2;
        assert_eq!(begun.unfinished(), Some(0));
        let (said, end, decoder) = decode(&bytes, cut);
        let expected = [
            Said::Ping(b"ping".to_vec()),
            Said::Text("grüße".into()),
            Said::Text("next".into()),
        ];
        assert_eq!((&said[..], end), (&expected[..], Ok(())));
        assert_eq!(decoder.unfinished(), None);
    }
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_has_come() {
    let whole = frame(0x81, &[b'a'; MAX + 1]);
    let in_parts = [frame(0x01, &[b'a'; MAX]), frame(0x80, b"a")].concat();
    let absurd = vec![
        0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
    ];
    for bytes in [&whole[..8], &in_parts, &absurd] {
        let (said, end, _) = decode(bytes, bytes.len());
        assert_eq!((said, end), (vec![], Err(Violation::TooLarge)));
    }
    let (said, ..) = decode(&frame(0x81, &[b'a'; MAX]), 100);
    assert_eq!(said, [Said::Text("a".repeat(MAX))]);
}

#[test]
fn what_the_rfc_forbids_is_refused() {
    let framing = |bytes: &[u8]| matches!(decode(bytes, 64).1, Err(Violation::Framing(_)));
    assert!(framing(&[0x81, 0x01, b'a']), "unmasked");
    assert!(framing(&frame(0xc1, b"a")), "a reserved bit");
    assert!(framing(&frame(0x83, b"a")), "a reserved opcode");
    assert!(framing(&frame(0x09, b"a")), "a fragmented ping");
    assert!(framing(&frame(0x89, &[0; 126])), "a long ping");
    assert!(framing(&frame(0x80, b"a")), "a continuation of nothing");
    let twice = [frame(0x01, b"a"), frame(0x81, b"a")].concat();
    assert!(framing(&twice), "a message within another one");
    assert!(framing(&frame(0x88, &[3])), "half a close code");
    assert!(framing(&frame(0x88, &[3, 237])), "1005 is never sent");
    let negative = [&[0x81, 0xff, 0x80][..], &[0; 11]].concat();
    assert!(framing(&negative), "a negative length");
    let empty = [frame(0x01, b""), frame(0x00, b"").repeat(MAX_FRAGMENTS)].concat();
    assert!(framing(&empty), "fragments without end");
    assert_eq!(decode(&frame(0x81, &[0xff]), 64).1, Err(Violation::NotUtf8));
    let reason = frame(0x88, &[3, 232, 0xff]);
    assert_eq!(decode(&reason, 64).1, Err(Violation::NotUtf8));
}

#[test]
fn regressions_stay_fixed() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/websocket");
    let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        fuzz::fuzz(&std::fs::read(input.unwrap().path()).unwrap());
    }
}

#[test]
fn a_paused_reader_loses_nothing() {
    let mut decoder = Decoder::default();
    let mut bytes = [
        frame(0x81, b"one"),
        frame(0x81, b"two"),
        frame(0x81, b"three"),
    ]
    .concat();
    let cut = bytes.len() - 2;
    let (mut said, mut turns) = (vec![], 0);
    let mut feed = |decoder: &mut Decoder, bytes: &mut [u8]| {
        let fed: Result<(), Violation> = decoder.feed(bytes, MAX, |event| {
            said.push(Said::from(event));
            Ok(Next::Pause)
        });
        fed.unwrap();
    };
    feed(&mut decoder, &mut bytes[..cut]);
    while decoder.is_paused() {
        feed(&mut decoder, &mut []);
        turns += 1;
    }
    assert_eq!(turns, 2);
    feed(&mut decoder, &mut bytes[cut..]);
    feed(&mut decoder, &mut []);
    assert!(!decoder.is_paused());
    assert_eq!(
        said,
        ["one", "two", "three"].map(|text| Said::Text(text.into()))
    );
}

#[test]
fn after_a_violation_nothing_is_read() {
    let mut bytes = [frame(0xc1, b"a"), frame(0x88, b"")].concat();
    let mut decoder = Decoder::default();
    let mut feed =
        |bytes: &mut [u8]| decoder.feed(bytes, MAX, |event| panic!("{event:?} was read"));
    let first: Result<(), Violation> = feed(&mut bytes);
    assert_eq!(first, Err(Violation::Framing("a reserved bit is set")));
    assert_eq!(feed(&mut frame(0x88, b"")), Ok(()));
}

#[test]
fn closing_may_give_a_code() {
    let (said, ..) = decode(&frame(0x88, &[]), 64);
    assert_eq!(said, [Said::Close(None)]);
    let (said, ..) = decode(&frame(0x88, b"\x0f\xa0bye"), 64);
    assert_eq!(said, [Said::Close(Some(4000))]);
}
