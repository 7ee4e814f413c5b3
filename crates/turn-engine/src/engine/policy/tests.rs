use super::*;

fn policy(allowed: &[&str], denied: &[&str], own: &[&str]) -> PeerPolicy {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    PeerPolicy::new(
        nets(allowed),
        nets(denied),
        own.iter().map(|ip| ip.parse().unwrap()).collect(),
    )
}

fn judge(policy: &PeerPolicy, ip: &str) -> Verdict {
    policy.judge(ip.parse().unwrap())
}

/// Every way to write an IPv4 address as IPv6.
fn embeddings(v4: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = v4.octets();
    let (hi, lo) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        format!("::ffff:{v4}"),
        format!("::{v4}"),
        format!("::ffff:0:{v4}"),
        format!("64:ff9b::{v4}"),
        format!("64:ff9b:1::{v4}"),
        format!("2002:{hi:x}:{lo:x}::1"),
        format!("2001:0:808:808:8000:63bf:{:x}:{:x}", !hi, !lo),
    ]
}

/// Address, what it is; every one is refused unless a list opens it.
const SPECIAL_V4: &[(&str, Range)] = &[
    ("0.0.0.0", Range::Unspecified),
    ("0.1.2.3", Range::Unspecified),
    ("10.0.0.1", Range::Private),
    ("10.255.255.255", Range::Private),
    ("100.64.0.1", Range::CarrierNat),
    ("100.100.100.200", Range::CarrierNat),
    ("100.127.255.255", Range::CarrierNat),
    ("127.0.0.1", Range::Loopback),
    ("127.255.255.254", Range::Loopback),
    ("168.63.129.16", Range::Metadata),
    ("169.254.0.1", Range::LinkLocal),
    ("169.254.169.254", Range::LinkLocal),
    ("172.16.0.1", Range::Private),
    ("172.31.255.255", Range::Private),
    ("192.0.0.1", Range::Special),
    ("192.0.0.192", Range::Special),
    ("192.0.2.1", Range::Special),
    ("192.88.99.1", Range::Special),
    ("192.168.0.1", Range::Private),
    ("192.168.255.255", Range::Private),
    ("198.18.0.1", Range::Special),
    ("198.19.255.255", Range::Special),
    ("198.51.100.7", Range::Special),
    ("203.0.113.7", Range::Special),
    ("224.0.0.1", Range::Multicast),
    ("239.255.255.255", Range::Multicast),
    ("240.0.0.1", Range::Reserved),
    ("255.255.255.255", Range::Reserved),
];

const SPECIAL_V6: &[(&str, Range)] = &[
    ("::", Range::Unspecified),
    ("::1", Range::Loopback),
    ("100::1", Range::Special),
    ("100:0:0:1::1", Range::Special),
    ("2001:2::1", Range::Special),
    ("2001:10::1", Range::Special),
    ("2001:20::1", Range::Special),
    ("2001:db8::1", Range::Special),
    ("3fff::1", Range::Special),
    ("5f00::1", Range::Special),
    ("fc00::1", Range::Private),
    ("fd00:ec2::254", Range::Private),
    ("fec0::1", Range::Private),
    ("fe80::1", Range::LinkLocal),
    ("febf::1", Range::LinkLocal),
    ("ff02::1", Range::Multicast),
    ("ffff::1", Range::Multicast),
    ("4000::1", Range::Reserved),
    ("1::1", Range::Reserved),
];

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "3ffe::1",
];

#[test]
fn the_refusal_table() {
    let plain = policy(&[], &[], &[]);
    let open = policy(&["0.0.0.0/0", "::/0"], &[], &[]);
    let mut judged = 0;
    let mut check = |ip: &str, range: Range| {
        judged += 1;
        let denied = Verdict::Deny(Denial::Range(range));
        assert!(matches!(judge(&plain, ip), Verdict::Deny(_)), "{ip}");
        match judge(&open, ip) {
            Verdict::Deny(_) => assert!(range.is_never_a_peer(), "{ip} stays shut"),
            verdict => {
                assert_eq!(verdict, Verdict::Allow, "{ip}");
                assert_eq!(judge(&plain, ip), denied, "{ip}");
            }
        }
    };
    for &(ip, range) in SPECIAL_V4 {
        check(ip, range);
        for embedded in embeddings(ip.parse().unwrap()) {
            // `::0.0.0.0` and `::0.0.0.1` are the unspecified and the loopback address.
            check(&embedded, range);
        }
    }
    for &(ip, range) in SPECIAL_V6 {
        check(ip, range);
    }
    assert!(judged >= 60, "{judged}");
}

#[test]
fn public_addresses_are_reachable_in_every_form() {
    let plain = policy(&[], &[], &[]);
    for ip in PUBLIC {
        assert_eq!(judge(&plain, ip), Verdict::Allow, "{ip}");
        if let Ok(v4) = ip.parse() {
            for embedded in embeddings(v4) {
                assert_eq!(
                    judge(&plain, &embedded),
                    Verdict::Allow,
                    "{ip} as {embedded}"
                );
            }
        }
    }
}

#[test]
fn every_special_range_names_itself() {
    let plain = policy(&[], &[], &[]);
    for &(ip, range) in SPECIAL_V4.iter().chain(SPECIAL_V6) {
        assert_eq!(
            judge(&plain, ip),
            Verdict::Deny(Denial::Range(range)),
            "{ip}"
        );
    }
}

#[test]
fn denied_peers_beats_allowed_peers_in_every_form() {
    let both = policy(&["10.0.0.0/8"], &["10.1.0.0/16", "8.8.8.8/32"], &[]);
    assert_eq!(judge(&both, "10.0.0.1"), Verdict::Allow);
    for ip in ["10.1.0.1", "8.8.8.8"] {
        assert_eq!(judge(&both, ip), Verdict::Deny(Denial::Listed));
        for embedded in embeddings(ip.parse().unwrap()) {
            assert!(
                matches!(judge(&both, &embedded), Verdict::Deny(_)),
                "{embedded}"
            );
        }
    }
    let translated = policy(&[], &["64:ff9b::/96"], &[]);
    assert_eq!(
        judge(&translated, "64:ff9b::8.8.8.8"),
        Verdict::Deny(Denial::Listed)
    );
}

#[test]
fn own_addresses_are_own_in_every_form() {
    let own = policy(
        &[],
        &[],
        &["127.0.0.1", "::1", "8.8.4.4", "::ffff:10.0.0.5", "fd00::5"],
    );
    for ip in ["127.0.0.1", "::1", "8.8.4.4", "10.0.0.5", "fd00::5"] {
        assert_eq!(judge(&own, ip), Verdict::Own { listed: false }, "{ip}");
    }
    for embedded in embeddings(Ipv4Addr::new(8, 8, 4, 4)) {
        let verdict = judge(&own, &embedded);
        assert_eq!(verdict, Verdict::Own { listed: false }, "{embedded}");
    }
    assert!(matches!(judge(&own, "127.0.0.2"), Verdict::Deny(_)));
    assert!(matches!(judge(&own, "10.0.0.6"), Verdict::Deny(_)));
    let listed = policy(&["127.0.0.0/8"], &[], &["127.0.0.1"]);
    assert_eq!(judge(&listed, "127.0.0.1"), Verdict::Own { listed: true });
    assert_eq!(judge(&listed, "127.0.0.2"), Verdict::Allow);
    let denied = policy(&[], &["8.8.4.0/24"], &["8.8.4.4"]);
    assert_eq!(judge(&denied, "8.8.4.4"), Verdict::Deny(Denial::Listed));
}

#[test]
fn never_peers_stay_shut_even_when_own_or_listed() {
    let open = policy(&["0.0.0.0/0", "::/0"], &[], &["0.0.0.0", "::"]);
    for ip in [
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "ff02::1",
        "::ffff:0.0.0.0",
    ] {
        assert!(matches!(judge(&open, ip), Verdict::Deny(_)), "{ip}");
    }
}

#[test]
fn local_use_translation_prefixes_are_read_at_every_length() {
    let plain = policy(&[], &[], &[]);
    for ip in [
        "64:ff9b:1:808:8:800::",
        "64:ff9b:1:8:8:808::",
        "64:ff9b:1:0:8:808:800::",
        "64:ff9b:1::808:808",
    ] {
        assert_eq!(judge(&plain, ip), Verdict::Allow, "{ip}");
    }
    for ip in [
        "64:ff9b:1:a01:1:100::",
        "64:ff9b:1:a:1:101::",
        "64:ff9b:1:0:a:101:100::",
        "64:ff9b:1::a01:101",
        "64:ff9b:1::",
    ] {
        assert!(matches!(judge(&plain, ip), Verdict::Deny(_)), "{ip}");
    }
}

#[test]
fn the_strictest_reading_of_a_translated_address_holds() {
    let plain = policy(&[], &[], &[]);
    // Public where a /96 prefix looks, private where a /48 prefix looks, and the other way round.
    for ip in ["64:ff9b:1:a00:0:100:808:808", "64:ff9b:1:808:8:800:a00:1"] {
        assert!(matches!(judge(&plain, ip), Verdict::Deny(_)), "{ip}");
    }
    // A Teredo address behind a private server.
    assert!(matches!(
        judge(&plain, "2001:0:a00:1:8000:63bf:f7f7:f7f7"),
        Verdict::Deny(_)
    ));
}
