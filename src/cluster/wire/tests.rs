//! Entries survive the wire, and nothing else is one.

use super::*;
use crate::cluster::seal::Secrets;
use crate::protocol::PeerId;
use proptest::prelude::*;
use std::net::IpAddr;

fn peer() -> impl Strategy<Value = PeerId> {
    any::<u128>().prop_map(PeerId::from_bits)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let dialect = prop::option::of(prop::sample::select(DialectKind::ALL));
    let text = any::<String>;
    let optional = any::<Option<String>>;
    (text(), optional(), dialect, optional()).prop_map(|(text, room, dialect, grant)| Frame {
        text,
        room,
        dialect,
        grant,
    })
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let dialect = || prop::sample::select(DialectKind::ALL);
    let target = (any::<u64>(), peer(), any::<Option<u64>>());
    let target = target.prop_map(|(vconn, peer, seq)| Target { vconn, peer, seq });
    let enter = (
        any::<u64>(),
        peer(),
        ip(),
        dialect(),
        any::<Option<u64>>(),
        any::<[u8; 16]>(),
        frame(),
    );
    let enter = enter.prop_map(
        |(vconn, peer, client, dialect, revoked_until, place, frame)| Entry::Enter {
            vconn,
            peer,
            client,
            dialect,
            revoked_until,
            place,
            frame,
        },
    );
    let entered = (
        any::<u64>(),
        peer(),
        any::<(Option<String>, Option<String>)>(),
    );
    let entered = entered.prop_map(|(vconn, peer, (identity, room))| Entry::Entered {
        vconn,
        peer,
        identity,
        room,
    });
    let send = (
        prop::sample::select(FrameType::ALL),
        prop::option::of(dialect()),
        any::<String>(),
        prop::collection::vec(target, 0..9),
    );
    let send = send.prop_map(|(kind, sender, text, to)| Entry::Send {
        kind,
        sender,
        text: text.into(),
        to,
    });
    let code = prop::sample::select(CloseCode::ALL);
    let close = (any::<u64>(), code, any::<String>());
    let close = close.prop_map(|(vconn, code, reason)| Entry::Close {
        vconn,
        code,
        reason,
    });
    prop_oneof![
        enter,
        (any::<[u64; 2]>(), frame()).prop_map(|([vconn, number], frame)| Entry::Frame {
            vconn,
            number,
            frame
        }),
        (prop::sample::select(CloseCode::ALL), any::<u128>(), ip()).prop_map(
            |(code, token, network)| Entry::Ended(EndedSession {
                token,
                network,
                code
            })
        ),
        (any::<u32>(), any::<[u64; 4]>(), peer()).prop_map(
            |(generation, [vconn, seq, received, said], peer)| {
                Entry::Attach {
                    generation,
                    vconn,
                    peer,
                    seq,
                    received,
                    said,
                }
            }
        ),
        any::<u32>().prop_map(|generation| Entry::AllNamed { generation }),
        any::<u64>().prop_map(|vconn| Entry::Attached { vconn }),
        any::<u64>().prop_map(|vconn| Entry::Detached { vconn }),
        (any::<u64>(), peer(), any::<u64>()).prop_map(|(vconn, peer, seq)| Entry::Confirmed {
            vconn,
            peer,
            seq
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(vconn, timeout)| Entry::Closed {
            vconn,
            loss: [Loss::Disconnected, Loss::Timeout][usize::from(timeout)],
        }),
        any::<u64>().prop_map(|vconn| Entry::Leave { vconn }),
        any::<u64>().prop_map(|vconn| Entry::Cancel { vconn }),
        (any::<u64>(), peer(), any::<String>()).prop_map(|(vconn, peer, text)| Entry::Event {
            vconn,
            peer,
            text
        }),
        entered,
        any::<u64>().prop_map(|vconn| Entry::Refused { vconn }),
        any::<(u64, [u8; 16])>().prop_map(|(vconn, place)| Entry::Astray { vconn, place }),
        send,
        any::<(u64, u64)>().prop_map(|(vconn, ms)| Entry::Hold { vconn, ms }),
        close,
        any::<(u64, Option<u64>)>().prop_map(|(vconn, revoked_until)| Entry::Left {
            vconn,
            revoked_until
        }),
        any::<(String, u64)>().prop_map(|(user, until)| Entry::Revoke { user, until }),
        Just(Entry::Settled),
        (
            dialect(),
            any::<(String, Vec<u8>, Vec<u8>, u8, Option<String>)>()
        )
            .prop_map(|(realm, (topic, properties, payload, qos, room))| {
                Entry::Published {
                    realm,
                    publication: Arc::new(Publication {
                        topic: topic.into(),
                        properties: properties.into(),
                        payload: payload.into(),
                        qos,
                        room: room.map(Arc::from),
                    }),
                }
            }),
        any::<(u64, String)>().prop_map(|(id, question)| Entry::Ask { id, question }),
        any::<(u64, String)>().prop_map(|(id, answer)| Entry::Answer { id, answer }),
    ]
}

fn written(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![];
    for entry in entries {
        write_entry(&mut bytes, entry);
    }
    bytes
}

proptest! {
    #[test]
    fn entries_survive_the_wire(entries in prop::collection::vec(entry(), 0..20)) {
        let bytes = written(&entries);
        prop_assert_eq!(read_entries(&bytes), Ok(entries));
    }

    /// What is read is what would be written, whatever the bytes are.
    #[test]
    fn any_bytes_are_refused_or_are_entries(
        entries in prop::collection::vec(entry(), 1..4),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written(&entries);
        for (place, byte) in noise {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = read_entries(&bytes[..end.index(bytes.len())]);
        if let Ok((entries, 0)) = read_known(&bytes) {
            prop_assert_eq!(written(&entries), bytes);
        }
    }

    #[test]
    fn batches_open_for_their_link_alone(
        entries in prop::collection::vec(entry(), 0..9),
        generation: u32,
        number: u64,
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let (from, to) = (Incarnation::from_bits(1), Incarnation::from_bits(2));
        let secrets = Secrets::new(&["s".repeat(32).into()]).unwrap();
        let head = Head { from, to, generation, number };
        let batch = seal_batch(head, &secrets.link(from, to), written(&entries));
        prop_assert_eq!(Head::read(&batch), Ok(head));
        prop_assert_eq!(open_batch(&batch, &secrets.link(from, to)), Ok(entries));
        let other = open_batch(&batch, &secrets.link(to, from));
        prop_assert_eq!(other, Err(WireError::Seal));
        prop_assert!(open_batch(&noise, &secrets.link(from, to)).is_err());
    }
}

/// What a later release adds does no harm to a node of this one.
#[test]
fn entries_of_later_releases_are_passed_over() {
    let known = Entry::Leave { vconn: 7 };
    let mut bytes = written(std::slice::from_ref(&known));
    let later = [&[u8::MAX, 3], &b"abc"[..]].concat();
    bytes.extend_from_slice(&later);
    bytes.extend(written(std::slice::from_ref(&known)));
    assert_eq!(read_entries(&bytes), Ok(vec![known.clone(), known]));
    assert_eq!(read_known(&later), Ok((vec![], 1)));
    assert_eq!(read_entries(&later[..4]), Err(WireError::Malformed));
    let many = later.repeat(MAX_ENTRIES + 1);
    assert_eq!(read_entries(&many), Err(WireError::Malformed));
}

#[test]
fn another_version_is_named() {
    let secrets = Secrets::new(&["s".repeat(32).into()]).unwrap();
    let (from, to) = (Incarnation::from_bits(1), Incarnation::from_bits(2));
    let (generation, number) = (1, 1);
    let head = Head {
        from,
        to,
        generation,
        number,
    };
    let keys = secrets.link(from, to);
    let mut batch = seal_batch(head, &keys, vec![]);
    batch[0] = VERSION + 1;
    assert_eq!(
        open_batch(&batch, &keys),
        Err(WireError::Version(VERSION + 1))
    );
    assert_eq!(
        open_batch(&batch[..9], &keys),
        Err(WireError::Version(VERSION + 1))
    );
    assert_eq!(open_batch(&[VERSION], &keys), Err(WireError::Malformed));
}

#[test]
fn regressions_stay_fixed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/wire");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz::read(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}
