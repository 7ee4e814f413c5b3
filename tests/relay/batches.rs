//! What leaves the box does not depend on what was received, looked up and sent together.

use crate::client::{self, Client, Link};
use crate::relay::Relay;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const TO_PEER: u16 = 0x4000;
const TO_BOB: u16 = 0x4001;
const TO_CAROL: u16 = 0x4002;
/// Bob's and Carol's channel to Alice.
const TO_ALICE: u16 = 0x4005;
/// Datagrams on the way at a time: as many as the smallest socket buffer holds.
const UNDER_WAY: usize = 60;

/// Every way through a relay. What Carol gets and sends crosses two boxes, so that the trains
/// that one has built with UDP_SEGMENT are what the other receives with UDP_GRO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flow {
    AliceToPeer,
    PeerToAlice,
    AliceToBob,
    BobToAlice,
    AliceToCarol,
    CarolToAlice,
}

use Flow::*;

/// What arrived, by flow, in order of arrival.
type Seen = BTreeMap<Flow, Vec<Vec<u8>>>;

struct World<L> {
    alice: Client<L>,
    bob: Client<UdpSocket>,
    carol: Client<UdpSocket>,
    peer: UdpSocket,
    /// Alice's relayed address.
    relayed: SocketAddr,
}

impl<L: Link> World<L> {
    fn new(near: &Relay, far: &Relay, mut alice: Client<L>) -> Self {
        let join = |relay: &Relay, user| {
            let mut client = client::udp(relay.udp, relay.credential(user));
            let relayed = client.allocate().unwrap();
            (client, relayed)
        };
        let relayed = alice.allocate().unwrap();
        let (mut bob, to_bob) = join(near, "bob");
        let (mut carol, to_carol) = join(far, "carol");
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        alice.bind(TO_PEER, peer.local_addr().unwrap()).unwrap();
        alice.bind(TO_BOB, to_bob).unwrap();
        alice.bind(TO_CAROL, to_carol).unwrap();
        bob.bind(TO_ALICE, relayed).unwrap();
        carol.bind(TO_ALICE, relayed).unwrap();
        Self {
            alice,
            bob,
            carol,
            peer,
            relayed,
        }
    }

    fn send(&mut self, flow: Flow, payload: &[u8]) {
        match flow {
            AliceToPeer => self.alice.send_channel(TO_PEER, payload),
            AliceToBob => self.alice.send_channel(TO_BOB, payload),
            AliceToCarol => self.alice.send_channel(TO_CAROL, payload),
            BobToAlice => self.bob.send_channel(TO_ALICE, payload),
            CarolToAlice => self.carol.send_channel(TO_ALICE, payload),
            PeerToAlice => assert_eq!(
                self.peer.send_to(payload, self.relayed).unwrap(),
                payload.len()
            ),
        }
    }

    /// Takes one datagram where one of `flow` is due; Alice may get one of another.
    fn receive(&mut self, flow: Flow, seen: &mut Seen) {
        let (flow, payload) = match flow {
            AliceToPeer => {
                let mut buffer = [0; 2000];
                let (length, from) = self.peer.recv_from(&mut buffer).unwrap();
                assert_eq!(from, self.relayed);
                (flow, buffer[..length].to_vec())
            }
            AliceToBob => (flow, self.bob.receive_channel().1),
            AliceToCarol => (flow, self.carol.receive_channel().1),
            PeerToAlice | BobToAlice | CarolToAlice => match self.alice.receive_channel() {
                (TO_PEER, payload) => (PeerToAlice, payload),
                (TO_BOB, payload) => (BobToAlice, payload),
                (TO_CAROL, payload) => (CarolToAlice, payload),
                (channel, _) => panic!("nobody has bound {channel:#x}"),
            },
        };
        seen.entry(flow).or_default().push(payload);
    }

    /// Sends `steps`, `together` of them before the first is waited for.
    fn run(&mut self, steps: &[(Flow, usize)], together: usize) -> Seen {
        let mut seen = Seen::new();
        for (chunk, steps) in steps.chunks(together).enumerate() {
            for (index, (flow, length)) in steps.iter().enumerate() {
                self.send(*flow, &vec![(chunk * together + index) as u8; *length]);
            }
            for (flow, _) in steps {
                self.receive(*flow, &mut seen);
            }
        }
        seen
    }
}

fn step() -> impl Strategy<Value = (Flow, usize)> {
    let flow = prop::sample::select(vec![
        AliceToPeer,
        PeerToAlice,
        AliceToBob,
        BobToAlice,
        AliceToCarol,
        CarolToAlice,
    ]);
    (flow, prop_oneof![4 => Just(700_usize), 1 => 0..1200_usize])
}

/// Frames of one flow, as video comes, with strays between them.
fn steps() -> impl Strategy<Value = Vec<(Flow, usize)>> {
    let frame = (step(), 1..12_usize).prop_map(|(step, count)| vec![step; count]);
    prop::collection::vec(
        prop_oneof![frame, step().prop_map(|step| vec![step])],
        0..16,
    )
    .prop_map(|frames| {
        let mut steps = frames.concat();
        steps.truncate(UNDER_WAY);
        steps
    })
}

async fn compare<L: Link>(workers: usize, alice: impl FnOnce(&Relay) -> Client<L>) {
    let (near, far) = (Relay::start(workers), Relay::start(1));
    let world = RefCell::new(World::new(&near, &far, alice(&near)));
    TestRunner::new(Config::with_cases(48))
        .run(&steps(), |steps| {
            let one_by_one = world.borrow_mut().run(&steps, 1);
            let batched = world.borrow_mut().run(&steps, UNDER_WAY);
            prop_assert_eq!(one_by_one, batched);
            Ok(())
        })
        .unwrap();
    for relay in [near, far] {
        let stats = relay.stats().await;
        assert_eq!((stats.io.gso_refused, stats.io.send_errors), (0, 0));
        assert!(
            stats.io.gso_sends > 0 || !stats.offload.gso,
            "no batch has come together"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_what_its_datagrams_give_one_by_one() {
    let alice = |relay: &Relay| client::udp(relay.udp, relay.credential("alice"));
    compare(1, alice).await;
    // Now and then Bob is another worker's, and what goes between them is handed over.
    compare(4, alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_stream_gives_what_its_messages_give_one_by_one() {
    compare(1, |relay| client::tcp(relay.tcp, relay.credential("alice"))).await;
}
