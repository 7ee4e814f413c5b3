//! Datagrams that GRO has joined do what they do one by one.

use super::harness::*;
use crate::engine::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use stun::attributes::ATTR_DATA;

const UNPERMITTED: &str = "8.8.9.9:4000";
/// Of every channel: a peer, a client of this worker, one of the other, one bound to nothing.
const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x4002, 0x4003];

/// Two boxes made alike: one gets trains, the other the same datagrams one by one.
struct World {
    boxed: TestBox,
    client: Client,
    relayed: SocketAddr,
}

impl World {
    fn new(max_rate: Option<u64>, total_rate: Option<u64>) -> Self {
        let mut boxed = TestBox::with(Options {
            settings: Settings {
                max_rate,
                total_rate,
                ..settings()
            },
            workers: 2,
            ..Options::default()
        });
        let (mut client, relayed) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
        client.bind(&mut boxed, CHANNELS[0], PEER).success();
        // One has a channel to answer through, the other gets Data indications.
        let others = [(0, CHANNELS[1]), (1, CHANNELS[2])];
        // Between workers, who draws first on the total rate is a matter of batches.
        for (worker, channel) in &others[..if total_rate.is_some() { 1 } else { 2 }] {
            let mut other = Client::new(&format!("198.51.100.8:{channel}"), "b");
            other.worker = *worker;
            other.challenge(&mut boxed);
            let at = other.allocate(&mut boxed).to_string();
            client.bind(&mut boxed, *channel, &at).success();
            if *worker == 0 {
                other
                    .bind(&mut boxed, 0x4abc, &relayed.to_string())
                    .success();
            } else {
                other.permit(&mut boxed, &relayed.to_string()).success();
            }
        }
        client.permit(&mut boxed, "8.8.8.9:1").success();
        Self {
            boxed,
            client,
            relayed,
        }
    }

    fn stats(&self) -> (Stats, Stats) {
        let [one, other] = &self.boxed.engines[..] else {
            unreachable!("two workers")
        };
        (one.stats().clone(), other.stats().clone())
    }
}

/// A Send indication with `count` bytes of payload, which is 36 bytes longer.
fn send_indication(peer: &str, mark: u8, count: usize) -> Vec<u8> {
    let request = Client::new("198.51.100.7:5000", "a").send_indication();
    request
        .peer(peer)
        .attr(ATTR_DATA, &vec![mark; count])
        .unsigned()
}

/// Datagrams of one length: ChannelData, Send indications to all sorts of peers, garbage.
fn datagram(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let channel = (prop::sample::select(&CHANNELS[..]), any::<u8>(), 0..3_usize).prop_map(
        move |(number, mark, slack)| {
            let payload = vec![mark; (length - 4).saturating_sub(slack)];
            let mut message = channel_data(number, &payload);
            message.resize(length, 0);
            message
        },
    );
    let peer = prop::sample::select(&[PEER, "8.8.8.9:1", UNPERMITTED][..]);
    let indication = (peer, any::<u8>()).prop_map(move |(peer, mark)| {
        let mut message = send_indication(peer, mark, length.saturating_sub(36) / 4 * 4);
        message.resize(length, 0);
        message
    });
    let garbage = prop::collection::vec(any::<u8>(), length);
    prop_oneof![6 => channel, 3 => indication, 1 => garbage]
}

/// The bytes of a batch and its segment size.
fn gro_batch() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (
        prop_oneof![
            1 => Just(4_usize),
            5 => 4..300_usize,
            4 => (9..75_usize).prop_map(|words| 4 * words),
        ],
        1..20_usize,
    )
        .prop_flat_map(|(length, count)| {
            let datagrams = prop::collection::vec(datagram(length), count);
            (datagrams, 4..=length, Just(length))
        })
        .prop_map(|(datagrams, last, length)| {
            let mut bytes = datagrams.concat();
            bytes.truncate(bytes.len() - length + last);
            // What is cut off at the end is what its header says, or broken.
            (bytes, length)
        })
}

#[test]
fn like_datagrams_go_together() {
    let mut world = World::new(None, None);
    let client = world.client.five_tuple;
    // To a peer, to a relay of this worker, and to one of the other: there by a hand-over, and by
    // Data indications, which are one by one.
    for (channel, runs) in [(CHANNELS[0], 1), (CHANNELS[1], 1), (CHANNELS[2], 1 + 9)] {
        let gro_batch = channel_data(channel, &[7; 100]).repeat(9);
        let before = world.boxed.runs;
        let outs = world.boxed.client_sends_train(&client, &gro_batch, 104);
        assert_eq!((outs.len(), world.boxed.runs - before), (9, runs));
    }
    let mixed =
        [CHANNELS[0], CHANNELS[0], CHANNELS[1], CHANNELS[0]].map(|c| channel_data(c, b"four"));
    let mut mixed = mixed.concat();
    // A shorter one at the end.
    mixed.extend(channel_data(CHANNELS[0], b"two"));
    let before = world.boxed.runs;
    let outs = world.boxed.client_sends_train(&client, &mixed, 8);
    assert_eq!((outs.len(), world.boxed.runs - before), (5, 4));
    let before = world.boxed.runs;
    let at = world.relayed;
    let outs = world.boxed.peer_sends_train(at, addr(PEER), &[1; 450], 100);
    assert_eq!((outs.len(), world.boxed.runs - before), (5, 2));
}

#[test]
fn send_indications_are_relayed() {
    let mut world = World::new(None, None);
    let client = world.client.five_tuple;
    let gro_batch = send_indication(PEER, 7, 100).repeat(9);
    let outs = world.boxed.client_sends_train(&client, &gro_batch, 136);
    assert_eq!(outs.len(), 9);
}

proptest! {
    #[test]
    fn of_a_client(
        trains in prop::collection::vec(gro_batch(), 1..6),
        max_rate in prop::option::of(500_u64..5_000),
        total_rate in prop::option::of(500_u64..5_000),
    ) {
        let mut together = World::new(max_rate, total_rate);
        let mut one_by_one = World::new(max_rate, total_rate);
        for (bytes, segment) in &trains {
            let client = together.client.five_tuple;
            let whole = together.boxed.client_sends_train(&client, bytes, *segment);
            let mut parts = vec![];
            for datagram in bytes.chunks(*segment) {
                parts.extend(one_by_one.boxed.client_sends(&client, datagram));
            }
            prop_assert_eq!(by_flow(whole), by_flow(parts));
        }
        prop_assert_eq!(together.stats(), one_by_one.stats());
    }

    #[test]
    fn of_a_peer(
        trains in prop::collection::vec((0..4_usize, 1..200_usize, 0..2_000_usize), 1..6),
        max_rate in prop::option::of(500_u64..5_000),
    ) {
        let mut together = World::new(max_rate, None);
        let mut one_by_one = World::new(max_rate, None);
        for (peer, segment, length) in trains {
            // Bound to a channel, permitted, of another port, and a stranger.
            let peer = addr([PEER, "8.8.8.9:7", "8.8.8.8:9", UNPERMITTED][peer]);
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let at = together.relayed;
            let whole = together.boxed.peer_sends_train(at, peer, &bytes, segment);
            let mut parts = vec![];
            for datagram in bytes.chunks(segment) {
                parts.extend(one_by_one.boxed.peer_sends(at, peer, datagram));
            }
            if bytes.is_empty() {
                parts = one_by_one.boxed.peer_sends(at, peer, &[]);
            }
            prop_assert_eq!(whole, parts);
        }
        prop_assert_eq!(together.stats(), one_by_one.stats());
    }
}

/// What goes to other workers is handed over at the end of a batch, so only the order within a
/// flow is promised.
fn by_flow(mut outs: Vec<Out>) -> Vec<Out> {
    outs.sort_by_key(|out| match out {
        Out::Reply(to, _) | Out::ToClient(to, _) => to.client,
        Out::ToPeer { to, .. } => *to,
        Out::Event(_) => PEER.parse().unwrap(),
    });
    outs
}
