use super::*;
use proptest::prelude::*;

const INSIDE: &str = "10.199.1.2:5000";
const STUN: &str = "198.19.255.1:3478";
const PEER: &str = "198.18.0.9:6000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nat(kind: Kind) -> Nat {
    let addresses = vec![at("198.18.0.1:0").ip(), at("[2001:2::1]:0").ip()];
    Nat::new(kind, Public { addresses }, 1)
}

/// The public endpoint under which `to` sees a datagram from inside.
fn seen(nat: &mut Nat, now: Instant, from: &str, to: &str) -> Option<SocketAddr> {
    match nat.outbound(now, Packet::udp(at(from), at(to), b"x")) {
        Outbound::Forward(packet) => Some(packet.src),
        _ => None,
    }
}

fn comes_in(nat: &mut Nat, now: Instant, from: &str, to: SocketAddr) -> Option<SocketAddr> {
    let packet = nat.inbound(now, Packet::udp(at(from), to, b"y"))?;
    Some(packet.dst)
}

#[test]
fn each_kind_maps_and_filters_as_it_is_named() {
    let now = Instant::now();
    let (same_host, other_host) = ("198.19.255.1:3479", "198.19.255.2:3478");
    for (kind, one_mapping, from_same_host, from_other_host) in [
        (Kind::Full, true, true, true),
        (Kind::Restricted, true, true, false),
        (Kind::PortRestricted, true, false, false),
        (Kind::Symmetric, false, false, false),
    ] {
        let mut nat = nat(kind);
        let first = seen(&mut nat, now, INSIDE, STUN).unwrap();
        let inside = Some(at(INSIDE));
        assert_eq!(comes_in(&mut nat, now, STUN, first), inside, "{kind}");
        let came = comes_in(&mut nat, now, same_host, first);
        assert_eq!(came.is_some(), from_same_host, "{kind}");
        let came = comes_in(&mut nat, now, other_host, first);
        assert_eq!(came.is_some(), from_other_host, "{kind}");
        let second = seen(&mut nat, now, INSIDE, PEER).unwrap();
        assert_eq!(first == second, one_mapping, "{kind}");
    }
}

#[test]
fn without_a_nat_nothing_is_changed_or_dropped() {
    let now = Instant::now();
    let mut nat = nat(Kind::None);
    let own = "198.18.0.1:5000";
    assert_eq!(seen(&mut nat, now, own, STUN), Some(at(own)));
    assert_eq!(comes_in(&mut nat, now, PEER, at(own)), Some(at(own)));
}

#[test]
fn ipv6_is_translated_by_the_same_rules() {
    let now = Instant::now();
    let mut nat = nat(Kind::PortRestricted);
    let (inside, remote) = ("[fd00::2]:5000", "[2001:2::9]:7");
    let public = seen(&mut nat, now, inside, remote).unwrap();
    assert_eq!(public, at("[2001:2::1]:5000"));
    let back = comes_in(&mut nat, now, remote, public);
    assert_eq!(back, Some(at(inside)));
    assert_eq!(comes_in(&mut nat, now, "[2001:2::9]:8", public), None);
}

#[test]
fn a_mapping_ends_when_nothing_leaves_by_it() {
    let now = Instant::now();
    let mut nat = nat(Kind::Full);
    let public = seen(&mut nat, now, INSIDE, STUN).unwrap();
    let later = now + UDP_IDLE - Duration::from_secs(1);
    assert!(comes_in(&mut nat, later, PEER, public).is_some());
    // What came in did not keep it alive.
    assert_eq!(comes_in(&mut nat, now + UDP_IDLE, PEER, public), None);
}

#[test]
fn udp_is_dropped_where_it_does_not_pass() {
    for kind in [Kind::NoUdp, Kind::TlsOnly] {
        assert_eq!(seen(&mut nat(kind), Instant::now(), INSIDE, STUN), None);
    }
}

/// A TCP segment with `flags` and `payload`.
fn segment(to: &str, flags: u8, payload: &[u8]) -> Packet {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 199, 1, 2];
    let SocketAddr::V4(to) = at(to) else {
        panic!("IPv4")
    };
    bytes.extend(to.ip().octets());
    bytes.extend(5000_u16.to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    Packet::parse(&bytes).unwrap()
}

#[test]
fn a_tls_only_network_judges_the_port_and_the_first_byte() {
    let now = Instant::now();
    let mut nat = nat(Kind::TlsOnly);
    let (syn, ack) = (0x02, 0x10);
    let forwards = |outcome| matches!(outcome, Outbound::Forward(_));
    let refused = nat.outbound(now, segment("198.18.0.9:80", syn, b""));
    let Outbound::Reject(reset) = refused else {
        panic!("{refused:?}")
    };
    assert!(reset.flags().unwrap().rst());
    assert_eq!((reset.src, reset.dst), (at("198.18.0.9:80"), at(INSIDE)));
    let https = "198.18.0.9:443";
    assert!(forwards(nat.outbound(now, segment(https, syn, b""))));
    assert!(forwards(nat.outbound(now, segment(https, ack, b""))));
    let plain = nat.outbound(now, segment(https, ack, b"GET / HTTP/1.1\r\n"));
    assert!(matches!(plain, Outbound::Reject(_)), "{plain:?}");
    let hello = [TLS_HANDSHAKE, 3, 1, 0, 5];
    assert!(forwards(nat.outbound(now, segment(https, ack, &hello))));
    // A record that follows is not a handshake any more.
    assert!(forwards(
        nat.outbound(now, segment(https, ack, &[23, 3, 3]))
    ));
    // The next connection from that port is judged anew.
    assert!(forwards(nat.outbound(now, segment(https, syn, b""))));
    let stun = nat.outbound(now, segment(https, ack, &[0, 1, 0, 0]));
    assert!(matches!(stun, Outbound::Reject(_)), "{stun:?}");
}

#[test]
fn what_passes_is_counted_by_remote_endpoint() {
    let now = Instant::now();
    let mut nat = nat(Kind::PortRestricted);
    let public = seen(&mut nat, now, INSIDE, STUN).unwrap();
    assert!(comes_in(&mut nat, now, STUN, public).is_some());
    assert!(comes_in(&mut nat, now, PEER, public).is_none());
    let count = |remote| nat.counts()[&(Protocol::Udp, at(remote))];
    let counted = |out, r#in, filtered| Count {
        out,
        r#in,
        filtered,
    };
    assert_eq!(count(STUN), counted(1, 1, 0));
    assert_eq!(count(PEER), counted(0, 0, 1));
}

proptest! {
    /// Whatever leaves, an answer finds its way back to whom it is for, and two inside endpoints
    /// never share a public one.
    #[test]
    fn answers_find_their_way(
        sends in proptest::collection::vec((0_u16..40, 0_u8..20, 1_u16..4), 1..200),
        kind in prop_oneof![Just(Kind::Full), Just(Kind::Restricted), Just(Kind::PortRestricted), Just(Kind::Symmetric)],
    ) {
        let now = Instant::now();
        let mut nat = nat(kind);
        let mut owners: HashMap<SocketAddr, SocketAddr> = HashMap::new();
        for (port, host, remote_port) in sends {
            let inside = at(&format!("10.199.1.2:{}", 5_000 + port));
            let remote = at(&format!("198.18.0.{host}:{remote_port}"));
            let sent = nat.outbound(now, Packet::udp(inside, remote, b"x"));
            let Outbound::Forward(sent) = sent else { panic!("dropped") };
            let owner = *owners.entry(sent.src).or_insert(inside);
            prop_assert_eq!(owner, inside);
            let back = nat.inbound(now, Packet::udp(remote, sent.src, b"y"));
            prop_assert_eq!(back.map(|packet| packet.dst), Some(inside));
        }
    }
}

#[test]
fn the_table_never_outgrows_its_bound() {
    let mut now = Instant::now();
    let mut nat = nat(Kind::Symmetric);
    for n in 0..u32::try_from(MAX_MAPPINGS).unwrap() + 20 {
        now += Duration::from_millis(1);
        let remote = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 9);
        nat.outbound(now, Packet::udp(at(INSIDE), remote, b"x"));
    }
    assert!(nat.by_public.len() <= MAX_MAPPINGS);
    assert_eq!(nat.by_public.len(), nat.by_inside.len());
}
