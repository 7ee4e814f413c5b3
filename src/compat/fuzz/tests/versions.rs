//! Versions of a dialect, and what passes where only relayed candidates do.

use super::*;

/// The same conversation in each version of each dialect, and where only relayed candidates pass.
#[test]
fn a_first_byte_chooses_among_versions() {
    let of = |kind, first: u8| chosen(kind, &[first]).0;
    for (first, versions) in [
        (0, [Version::V3, Version::V3]),
        (1, [Version::V5, Version::V3]),
        (2, [Version::V3, Version::V5]),
        (3, [Version::V5, Version::V5]),
    ] {
        let variant = of(DialectKind::Mqtt, first);
        assert_eq!(variant.versions, versions);
        let mut world = World::with(DialectKind::Mqtt, variant, Instant::now());
        world.received();
        let publish: &[u8] = match versions[ATTACKER as usize] {
            Version::V3 => b"\x30\x04\0\x01tm",
            Version::V5 => b"\x30\x05\0\x01t\0m",
        };
        world.binary(ATTACKER, publish);
        let received = world.received();
        assert_eq!(received.len(), 1, "{versions:?}");
        judge(DialectKind::Mqtt, variant, "", &received[0]);
    }
    for (first, revisions) in [
        (0x80, [Revision::V4, Revision::V4]),
        (0x80 + 36, [Revision::V3, Revision::V3]),
        (0x80 + 72, [Revision::V3, Revision::V4]),
        (0x80 + 108, [Revision::V4, Revision::V3]),
    ] {
        let variant = of(DialectKind::SocketIo, first);
        assert_eq!(variant.revisions, revisions);
        let event = r#"42["hello",{"n":1}]"#;
        let received = attack_with(DialectKind::SocketIo, variant, &[event]);
        assert_eq!(received.len(), 1, "{revisions:?}");
    }
    let line = "candidate:1 1 udp 1 192.0.2.7 5 typ host";
    for (first, passes) in [(0x80, true), (0x81, false)] {
        let candidate = format!(r#"{{"candidate":{{"candidate":"{line}"}}}}"#);
        let publish =
            format!(r#"{{"type":"publish","topic":"t","data":{{"signal":{candidate}}}}}"#);
        let variant = of(DialectKind::YWebrtc, first);
        let received = attack_with(DialectKind::YWebrtc, variant, &[&publish]);
        assert_eq!(!received.is_empty(), passes);
        let send = format!(r#"{{"type":"CANDIDATE","dst":"client1","payload":{candidate}}}"#);
        let variant = of(DialectKind::PeerJs, first);
        let received = attack_with(DialectKind::PeerJs, variant, &[&send]);
        assert_eq!(!received.is_empty(), passes);
    }
}
