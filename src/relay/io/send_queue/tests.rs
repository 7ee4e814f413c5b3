use super::*;
use crate::relay::engine::Transport;
use crate::relay::io::listener::group;
use crate::relay::io::udp::Offload;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::UdpSocket;

/// Everything that reached `receivers`, by receiver and sender, in order of arrival.
type Seen = HashMap<(usize, SocketAddr), Vec<Vec<u8>>>;

#[derive(Debug, Clone)]
struct Step {
    receiver: usize,
    relay: Option<usize>,
    head: usize,
    length: usize,
    count: usize,
    padding: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (
        0_usize..3,
        prop::option::of(0_usize..2),
        prop_oneof![Just(4_usize), Just(40)],
        prop_oneof![Just(0_usize), Just(700), Just(701), 0_usize..900],
        prop_oneof![4 => Just(1_usize), 1 => 1..4_usize],
        0_usize..4,
    )
        .prop_map(|(receiver, relay, head, length, count, padding)| Step {
            receiver,
            relay,
            head,
            length,
            count,
            padding,
        })
}

struct World {
    listeners: Vec<Listener>,
    relays: Vec<Rc<RelaySocket>>,
    receivers: Vec<UdpSocket>,
}

impl World {
    fn new() -> Self {
        let local = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let offload = Offload::probe();
        let relay = || RelaySocket::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
        Self {
            listeners: group(vec![local()], 1, offload).unwrap().remove(0),
            relays: (0..2).map(|_| Rc::new(relay())).collect(),
            receivers: (0..3).map(|_| local()).collect(),
        }
    }

    fn send(&self, steps: &[Step], bytes: &[u8], merge: bool) -> (Seen, IoStats) {
        let offload = Offload {
            gro: false,
            gso: merge,
        };
        let mut stats = IoStats::default();
        let mut sender = Sender::new(offload);
        let mut queue = SendQueue::new(merge);
        for (index, step) in steps.iter().enumerate() {
            let to = self.receivers[step.receiver].local_addr().unwrap();
            let payload =
                PayloadRun::back_to_back(&bytes[index..][..step.length * step.count], step.count);
            match step.relay {
                Some(relay) => {
                    queue.push_for_peer(&self.relays[relay], to, payload, step.padding == 0);
                }
                None => {
                    let five_tuple = FiveTuple {
                        transport: Transport::Udp,
                        client: to,
                        server: self.listeners[0].asked(None),
                    };
                    let head = vec![index as u8; step.head];
                    let listener = (0, &self.listeners[0]);
                    queue.push_for_client(listener, &five_tuple, &head, payload, step.padding);
                }
            }
        }
        queue.flush(&self.listeners, &mut sender, &mut stats);
        (self.receive(), stats)
    }

    fn receive(&self) -> Seen {
        let mut seen = Seen::new();
        let mut buffer = [0; 2000];
        for (index, receiver) in self.receivers.iter().enumerate() {
            receiver.set_nonblocking(true).unwrap();
            while let Ok((length, from)) = receiver.recv_from(&mut buffer) {
                let datagrams = seen.entry((index, from)).or_default();
                datagrams.push(buffer[..length].to_vec());
            }
        }
        seen
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn grouping_changes_neither_datagrams_nor_the_order_within_a_flow(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let bytes: Vec<u8> = (0..4000).map(|i| (i * 7) as u8).collect();
        let sent: usize = steps.iter().map(|step| step.count).sum();
        let world = World::new();
        let (one_by_one, plain) = world.send(&steps, &bytes, false);
        let (grouped, merged) = world.send(&steps, &bytes, true);
        prop_assert_eq!(one_by_one, grouped);
        prop_assert_eq!((plain.sent, plain.gso_sends), (sent as u64, 0));
        prop_assert_eq!((merged.sent, merged.gso_refused), (sent as u64, 0));
    }
}

#[test]
fn a_batch_inherits_the_memory_of_the_one_before() {
    let entries: Vec<Entry<'static>> = Vec::with_capacity(100);
    let memory = entries.as_ptr() as usize;
    let recycled = recycle(entries);
    assert_eq!(
        (recycled.as_ptr() as usize, recycled.capacity()),
        (memory, 100)
    );
    assert_eq!(recycle_slices(Vec::with_capacity(7)).capacity(), 7);
}

#[test]
fn a_run_takes_as_many_messages_as_the_kernel_wants() {
    let world = World::new();
    let bytes: Vec<u8> = (0..200_000).map(|i| (i / 7) as u8).collect();
    // More than 64 segments, and more than 65,507 bytes.
    for (length, count, messages) in [(9, 150, 3), (1200, 100, 2)] {
        for relay in [None, Some(0)] {
            let step = Step {
                receiver: 0,
                relay,
                head: 4,
                length,
                count,
                padding: 0,
            };
            let (seen, stats) = world.send(std::slice::from_ref(&step), &bytes, true);
            assert_eq!((stats.sent, stats.gso_sends), (count as u64, messages));
            let expected: Vec<&[u8]> = bytes.chunks(length).take(count).collect();
            let head = if relay.is_none() { 4 } else { 0 };
            let [datagrams] = &seen.values().collect::<Vec<_>>()[..] else {
                panic!("one flow")
            };
            let payloads: Vec<&[u8]> = datagrams.iter().map(|d| &d[head..]).collect();
            assert_eq!(payloads, expected);
        }
    }
}

#[test]
fn a_frame_of_equal_datagrams_and_a_shorter_one_is_one_message() {
    let world = World::new();
    let step = |length| Step {
        receiver: 0,
        relay: None,
        head: 4,
        length,
        count: 1,
        padding: 0,
    };
    let mut steps = vec![step(700); 8];
    steps.push(step(300));
    let (_, stats) = world.send(&steps, &[1; 2000], true);
    assert_eq!((stats.sent, stats.gso_sends), (9, 1));
    // What follows the shorter one is of the next frame.
    steps.extend(vec![step(700); 3]);
    let (_, stats) = world.send(&steps, &[1; 2000], true);
    assert_eq!((stats.sent, stats.gso_sends), (12, 2));
}
