use super::*;
use crate::relay::stats::IoStats;
use proptest::prelude::*;
use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};

const PLAIN: Offload = Offload {
    gro: false,
    gso: false,
};

fn listener(address: &str, offload: Offload) -> (Socket, SocketAddr) {
    let socket = Socket::from(UdpSocket::bind(address).unwrap());
    prepare_listener(&socket, offload).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Sends `groups` of equally long datagrams and returns what arrives.
fn send_and_receive(
    groups: &[(usize, Vec<u8>)],
    offload: Offload,
    stats: &mut IoStats,
) -> Vec<Vec<u8>> {
    let (receiver, to) = listener("127.0.0.1:0", offload);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut slices = vec![];
    let mut messages = vec![];
    for (length, marks) in groups {
        let mut datagrams: Vec<Vec<u8>> = marks.iter().map(|m| vec![*m; *length]).collect();
        let message = |slices, datagrams| Message {
            to,
            source: None,
            datagrams,
            segment: *length as u16,
            slices,
        };
        let first = slices.len();
        if offload.gso {
            // Half of them back to back, the others each by itself.
            let others = datagrams.split_off(marks.len().div_ceil(2));
            slices.push(datagrams.concat());
            slices.extend(others);
            messages.push(message(first..slices.len(), marks.len()));
        } else {
            slices.extend(datagrams);
            messages.extend((first..slices.len()).map(|at| message(at..at + 1, 1)));
        }
    }
    let slices: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
    Sender::new(offload).send(sender.as_fd(), &messages, &slices, stats);

    let mut recv_buffers = RecvBuffers::new();
    let mut received = vec![];
    loop {
        let mut round = recv_buffers.round();
        let Ok(batch) = round.receive(&receiver, BATCH) else {
            return received;
        };
        for mut gro_batch in batch {
            assert_eq!(gro_batch.from, sender.local_addr().unwrap());
            while let Some(run) = gro_batch.datagrams.next_run(|_, _| true) {
                received.extend(run.payloads().map(<[u8]>::to_vec));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn offloads_change_neither_datagrams_nor_their_order(
        groups in prop::collection::vec(
            (1_usize..1400, prop::collection::vec(any::<u8>(), 1..40)),
            0..8,
        ),
    ) {
        let expected: Vec<Vec<u8>> = groups
            .iter()
            .flat_map(|(length, marks)| marks.iter().map(|m| vec![*m; *length]))
            .collect();
        let offload = Offload::probe();
        for offload in [
            PLAIN,
            offload,
            Offload { gro: false, ..offload },
            Offload { gso: false, ..offload },
        ] {
            let mut stats = IoStats::default();
            prop_assert_eq!(&send_and_receive(&groups, offload, &mut stats), &expected);
            prop_assert_eq!(stats.sent, expected.len() as u64);
            prop_assert_eq!(stats.gso_refused, 0);
        }
    }
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let mut stats = IoStats::default();
    let received = send_and_receive(&[(0, vec![1])], Offload::probe(), &mut stats);
    assert_eq!(received, [b""]);
}

#[test]
fn a_wildcard_tells_which_address_was_asked_and_answers_from_it() {
    for (wildcard, asked) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
        let asked: IpAddr = asked.parse().unwrap();
        let (socket, address) = listener(wildcard, Offload::probe());
        let client = UdpSocket::bind((asked, 0)).unwrap();
        client.connect((asked, address.port())).unwrap();
        client.send(b"question").unwrap();
        let mut recv_buffers = RecvBuffers::new();
        let mut round = recv_buffers.round();
        let question = round.receive(&socket, 1).unwrap().next().unwrap();
        assert_eq!(question.local, Some(asked));
        let answer = Message {
            to: question.from,
            source: question.local,
            datagrams: 1,
            segment: 6,
            slices: 0..1,
        };
        let mut stats = IoStats::default();
        let slices = [IoSlice::new(b"answer")];
        Sender::new(PLAIN).send(socket.as_fd(), &[answer], &slices, &mut stats);
        let mut buffer = [0; 16];
        // A connected socket receives its peer only.
        assert_eq!(client.recv(&mut buffer).unwrap(), 6, "{wildcard}");
    }
}

#[test]
fn a_batch_that_no_path_takes_whole_is_sent_one_by_one() {
    let mut stats = IoStats::default();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    // 200 segments are more than the kernel takes.
    let bytes: Vec<u8> = (0..200).map(|index| index as u8).collect();
    let slices = bytes.split_at(150);
    let slices = [IoSlice::new(slices.0), IoSlice::new(slices.1)];
    let gro_batch = Message {
        to: receiver.local_addr().unwrap(),
        source: None,
        datagrams: 200,
        segment: 1,
        slices: 0..2,
    };
    let last = Message {
        datagrams: 1,
        segment: 150,
        slices: 0..1,
        ..gro_batch
    };
    let mut io = Sender::new(Offload::probe());
    // What comes after it is still sent, and only once.
    io.send(sender.as_fd(), &[gro_batch, last], &slices, &mut stats);
    assert_eq!((stats.gso_refused, stats.sent), (1, 201));
    receiver.set_nonblocking(true).unwrap();
    let mut buffer = [0; 300];
    for byte in &bytes {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], [*byte]);
    }
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 150);
    assert!(receiver.recv(&mut buffer).is_err());
}

#[test]
fn one_refused_datagram_does_not_hold_up_the_others() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = |to| Message {
        to,
        source: None,
        datagrams: 1,
        segment: 1,
        slices: 0..1,
    };
    let good = message(receiver.local_addr().unwrap());
    let nowhere = message("127.0.0.1:0".parse().unwrap());
    let other_family = message("[::1]:9".parse().unwrap());
    let mut stats = IoStats::default();
    Sender::new(PLAIN).send(
        sender.as_fd(),
        &[nowhere.clone(), good.clone(), other_family, good, nowhere],
        &[IoSlice::new(b"x")],
        &mut stats,
    );
    assert_eq!((stats.sent, stats.send_errors), (2, 3));
}

#[test]
fn an_icmp_error_names_the_peer_and_costs_no_other_datagram() {
    for ip in ["127.0.0.1", "::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let dead = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        let living = UdpSocket::bind((ip, 0)).unwrap();
        let relay = RelaySocket::bind(SocketAddr::new(ip, 0), Offload::probe()).unwrap();
        let message = |to| Message {
            to,
            source: None,
            datagrams: 1,
            segment: 1,
            slices: 0..1,
        };
        let mut stats = IoStats::default();
        let slices = [IoSlice::new(b"x")];
        let mut sender = Sender::new(Offload::probe());
        sender.send(relay.as_fd(), &[message(dead)], &slices, &mut stats);
        let to = living.local_addr().unwrap();
        sender.send(relay.as_fd(), &[message(to)], &slices, &mut stats);
        assert_eq!((stats.sent, stats.send_errors), (2, 0));
        living.set_nonblocking(true).unwrap();
        assert_eq!(living.recv(&mut [0; 8]).unwrap(), 1);
        let error = relay.take_icmp_error().unwrap();
        assert_eq!(error.peer, dead);
        let port_unreachable = if ip.is_ipv4() { (3, 3) } else { (1, 4) };
        assert_eq!((error.kind, error.code), port_unreachable);
        assert_eq!(relay.take_icmp_error(), None);
    }
}

#[test]
fn the_receive_limit_grows_with_datagrams_in_successive_turns() {
    let address = "127.0.0.1:0".parse().unwrap();
    let relay = RelaySocket::bind(address, PLAIN).unwrap();
    let limits: Vec<usize> = [5, 6, 7, 9].map(|turn| relay.recv_limit(turn)).into();
    assert_eq!(limits, [1, BATCH, BATCH, 1]);
}

#[test]
fn relayed_datagrams_have_headers_of_their_own() {
    let v4 = (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_MTU_DISCOVER);
    let v6 = (
        libc::IPPROTO_IPV6,
        libc::IPV6_TCLASS,
        libc::IPV6_MTU_DISCOVER,
    );
    for (ip, (level, class, discover)) in [("127.0.0.1", v4), ("::1", v6)] {
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        let relay = RelaySocket::bind(address, Offload::probe()).unwrap();
        assert_eq!(
            option(relay.as_fd(), level, class),
            0,
            "best effort, no ECN"
        );
        // IP_PMTUDISC_… and IPV6_PMTUDISC_… have the same values.
        assert_eq!(
            option(relay.as_fd(), level, discover),
            libc::IP_PMTUDISC_DONT
        );
        relay.set_dont_fragment(true);
        assert_eq!(option(relay.as_fd(), level, discover), libc::IP_PMTUDISC_DO);
        relay.set_dont_fragment(false);
        assert_eq!(
            option(relay.as_fd(), level, discover),
            libc::IP_PMTUDISC_DONT
        );
    }
}

fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> i32 {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` and `length` live here, and `length` says how much room there is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    value
}
