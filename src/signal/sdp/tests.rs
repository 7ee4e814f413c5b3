//! Descriptions of four implementations, odd lines, and random text.

use super::*;
use proptest::prelude::*;
use serde_json::value::to_raw_value;

// Offers as the four write them, shortened to one section or two; addresses from documentation
// ranges stand for the real ones.

const CHROMIUM: &str = "v=0\r\n\
o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n\
s=-\r\n\
t=0 0\r\n\
a=group:BUNDLE 0 1\r\n\
a=extmap-allow-mixed\r\n\
a=msid-semantic: WMS\r\n\
m=audio 54609 UDP/TLS/RTP/SAVPF 111 63\r\n\
c=IN IP4 203.0.113.77\r\n\
a=rtcp:54610 IN IP4 203.0.113.77\r\n\
a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 network-id 1 network-cost 10\r\n\
a=candidate:435653019 1 tcp 1518280447 192.168.0.196 9 typ host tcptype active generation 0\r\n\
a=candidate:1853887674 1 udp 1518280447 47ddfb45-92d7-4b7b-9d3b-3a7ab2b5d7fb.local 36768 typ host generation 0\r\n\
a=candidate:842163049 1 udp 1677729535 203.0.113.77 54609 typ srflx raddr 192.168.0.196 rport 46243 generation 0 network-cost 999\r\n\
a=candidate:2096437349 1 udp 41885439 198.51.100.9 61665 typ relay raddr 203.0.113.77 rport 54609 generation 0 network-id 1 network-cost 10\r\n\
a=ice-ufrag:F7gI\r\n\
a=ice-pwd:x9cml/YzichV2+XlhiMu8g\r\n\
a=ice-options:trickle\r\n\
a=fingerprint:sha-256 D2:FA:0E:C3\r\n\
a=setup:actpass\r\n\
a=mid:0\r\n\
a=rtcp-mux\r\n\
a=rtpmap:111 opus/48000/2\r\n\
a=rtcp-fb:111 transport-cc\r\n\
m=video 0 UDP/TLS/RTP/SAVPF 96\r\n\
c=IN IP4 0.0.0.0\r\n\
a=bundle-only\r\n\
a=mid:1\r\n";

const FIREFOX: &str = "v=0\r\n\
o=mozilla...THIS_IS_SDPARTA-128.0 6584384473834812311 0 IN IP4 0.0.0.0\r\n\
s=-\r\n\
t=0 0\r\n\
a=sendrecv\r\n\
a=group:BUNDLE 0\r\n\
a=ice-options:trickle\r\n\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
c=IN IP4 203.0.113.77\r\n\
a=candidate:0 1 UDP 2122252543 2001:db8:1::5 51688 typ host\r\n\
a=candidate:3 1 TCP 2105524479 192.168.0.196 9 typ host tcptype active\r\n\
a=candidate:1 1 UDP 1686052863 203.0.113.77 51688 typ srflx raddr 0.0.0.0 rport 0\r\n\
a=candidate:2 1 UDP 92217343 198.51.100.9 63077 typ relay raddr 198.51.100.9 rport 63077\r\n\
a=sendrecv\r\n\
a=end-of-candidates\r\n\
a=ice-pwd:6a4c1e5cf1c9c8d9\r\n\
a=mid:0\r\n\
a=sctp-port:5000\r\n\
a=max-message-size:1073741823\r\n";

const SAFARI: &str = "v=0\r\n\
o=- 7811482382349 2 IN IP6 2001:db8:1::5\r\n\
s=-\r\n\
t=0 0\r\n\
m=audio 61203 UDP/TLS/RTP/SAVPF 111\r\n\
c=IN IP6 2001:db8:1::5\r\n\
a=rtcp:9 IN IP4 0.0.0.0\r\n\
a=candidate:842163049 1 udp 1677729535 2001:db8:1::5 61203 typ srflx raddr :: rport 0 generation 0\r\n\
a=candidate:2096437349 1 udp 25108223 2001:db8:ffff::9 50001 typ relay raddr 2001:db8:1::5 rport 61203 generation 0 ufrag Nn/H network-id 1\r\n\
a=ice-ufrag:Nn/H\r\n\
a=mid:0\r\n";

const AIORTC: &str = "v=0\n\
o=- 3927418541 3927418541 IN IP4 0.0.0.0\n\
s=-\n\
t=0 0\n\
m=video 42215 UDP/TLS/RTP/SAVPF 97\n\
c=IN IP4 172.17.0.2\n\
a=sendrecv\n\
a=rtcp:42215\n\
a=candidate:a6b5b2c7f5d1e5dd 1 udp 2130706431 172.17.0.2 42215 typ host\n\
a=candidate:9ac0cd7b9a1c2d34 1 udp 1694498815 203.0.113.77 42215 typ srflx raddr 172.17.0.2 rport 42215\n\
a=candidate:5d0f8b7a6c3e2f11 1 udp 16777215 198.51.100.9 60111 typ relay raddr 172.17.0.2 rport 42215\n\
a=end-of-candidates\n\
a=ice-ufrag:qx1Y\n";

const OWN_ADDRESSES: [&str; 7] = [
    "192.168.0.196",
    "203.0.113.77",
    "2001:db8:1::5",
    "172.17.0.2",
    ".local",
    "54609",
    "typ host",
];

fn lines(sdp: &str) -> Vec<&str> {
    sdp.lines().collect()
}

#[test]
fn no_address_survives_and_the_relayed_candidates_do() {
    for sdp in [CHROMIUM, FIREFOX, SAFARI, AIORTC] {
        let filtered = filter(sdp);
        for address in OWN_ADDRESSES {
            assert!(!filtered.contains(address), "{address} in {filtered}");
        }
        assert!(!filtered.contains("srflx"));
        assert_eq!(filtered.matches("typ relay").count(), 1, "{filtered}");
        assert_eq!(
            filter(&filtered),
            filtered,
            "filtering twice changes nothing more"
        );
    }
}

#[test]
fn no_candidate_hides_among_the_formats_of_a_section() {
    for (line, filtered) in [
        (
            "m=audio 5000 UDP/TLS/RTP/SAVPF 111 candidate:1 1 udp 1 203.0.113.77 5000 typ host",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 1 udp 1 5000 typ host",
        ),
        ("m=video 0 RTP/AVP 2001:db8::7 96", "m=video 0 RTP/AVP 96"),
        (
            "m=video 9 RTP/AVP 203.0.113.7% %203.0.113.7 203.0.113.7/24 96",
            "m=video 9 RTP/AVP 96",
        ),
        (
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        ),
    ] {
        assert_eq!(filter(line), filtered);
    }
}

#[test]
fn everything_else_stays_in_its_order() {
    let filtered = filter(CHROMIUM);
    assert!(filtered.ends_with("a=mid:1\r\n"));
    assert!(!filtered.replace("\r\n", "").contains(['\r', '\n']));
    let kept = |line: &&str| {
        !["a=candidate", "c=", "m=", "o=", "a=rtcp:"]
            .iter()
            .any(|p| line.starts_with(p))
    };
    let of = |sdp| {
        lines(sdp)
            .into_iter()
            .filter(kept)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&filtered), of(CHROMIUM));
    assert_eq!(lines(&filter(AIORTC)).len(), lines(AIORTC).len() - 2);
}

#[test]
fn lines_with_addresses_are_made_neutral() {
    let filtered = filter(CHROMIUM);
    for line in [
        "o=- 4611731400430051336 2 IN IP4 0.0.0.0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=candidate:2096437349 1 udp 41885439 198.51.100.9 61665 typ relay raddr 0.0.0.0 rport 0 generation 0 network-id 1 network-cost 10",
    ] {
        assert!(lines(&filtered).contains(&line), "{line} not in {filtered}");
    }
    let filtered = filter(SAFARI);
    for line in [
        "o=- 7811482382349 2 IN IP6 ::",
        "c=IN IP6 ::",
        "a=candidate:2096437349 1 udp 25108223 2001:db8:ffff::9 50001 typ relay raddr :: rport 0 generation 0 ufrag Nn/H network-id 1",
    ] {
        assert!(lines(&filtered).contains(&line), "{line} not in {filtered}");
    }
    assert!(lines(&filter(AIORTC)).contains(&"a=rtcp:9"));
}

#[test]
fn odd_lines_leak_nothing() {
    for (line, expected) in [
        ("o=alice 10.0.0.1", "o=- 0 0 IN IP4 0.0.0.0"),
        (
            "o=192.168.7.7 1 1 IN IP4 192.168.7.7",
            "o=- 1 1 IN IP4 0.0.0.0",
        ),
        ("o=- 192.168.7.7 1 IN IP4 0.0.0.0", "o=- 0 0 IN IP4 0.0.0.0"),
        ("c=IN IP4 10.0.0.1/127/3", "c=IN IP4 0.0.0.0"),
        ("c=", "c=IN IP4 0.0.0.0"),
        ("m=audio 4000/2 RTP/AVP 0", "m=audio 9 RTP/AVP 0"),
        ("m=audio  50000 RTP", "m=audio 9 RTP"),
        ("m=audio", "m=audio"),
        ("m=", "m="),
        ("C=IN IP4 192.168.7.7", ""),
        ("c =IN IP4 192.168.7.7", ""),
        ("", ""),
        ("é=1", ""),
        ("a=remote-candidates:1 10.0.0.1 5000", ""),
        ("a=source-filter: incl IN IP4 * 10.0.0.1", ""),
        ("a=Candidate:1 1 udp 1 10.0.0.1 5 typ host", ""),
        ("a= candidate:1 1 udp 1 10.0.0.1 5 typ host", ""),
        ("a=candidate:1 1 udp 1 10.0.0.1 5 typ", ""),
        ("a=candidate:1 1 udp 1 10.0.0.1 5 typ relay typ host", ""),
        (
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay RADDR 10.0.0.1 rport",
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay RADDR 0.0.0.0 rport",
        ),
        (
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay generation raddr 192.168.7.7 rport 50000",
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay generation raddr 0.0.0.0 rport 0",
        ),
        (
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay raddr raddr 192.168.7.7",
            "a=candidate:1 1 udp 1 1.2.3.4 5 typ relay raddr 0.0.0.0 0.0.0.0",
        ),
        (
            "a=candidate:2 1 udp 1 1.2.3.4 5 typ relay x candidate:1 1 udp 1 10.0.0.1 5 typ relay",
            "",
        ),
    ] {
        assert_eq!(filter(line), expected, "{line}");
    }
    assert_eq!(
        filter("s=-\ra=candidate:1 1 udp 1 10.0.0.1 5 typ host\rt=0 0"),
        "s=-\rt=0 0"
    );
}

const SEPARATORS: [char; 12] = [
    '\0', '\t', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\x7f', '\u{85}', '\u{2028}', '\u{2029}',
    '\u{9f}',
];

#[test]
fn no_candidate_hides_in_a_line_that_some_readers_split_or_trim() {
    let host = "candidate:1 1 udp 1 192.168.7.7 50000 typ host";
    for separator in SEPARATORS {
        for line in [
            format!("s=-{separator}a={host}"),
            format!("a=mid:0{separator}c=IN IP4 192.168.7.7"),
            format!("a=candidate:1 1 udp 1 1.2.3.4 5 typ relay{separator}raddr 192.168.7.7"),
        ] {
            assert_eq!(filter(&format!("{line}\r\nt=0 0")), "t=0 0", "{line:?}");
        }
    }
    for line in [
        format!("A={host}"),
        host.to_owned(),
        format!("\u{feff}a={host}"),
        format!(" a={host}"),
        format!("a=\u{200b}{host}"),
        format!("a={}", host.replace(':', " :")),
        format!("a={}", host.replace(':', "\u{200b}:")),
        format!("a=x:{host}"),
        format!("s={}", host.to_uppercase()),
        format!(
            "a={}",
            host.replace("typ host", "typ relay raddr\u{a0}192.168.7.7")
        ),
    ] {
        assert_eq!(filter(&line), "", "{line:?}");
    }
}

#[test]
fn candidates_are_kept_back_or_blanked() {
    let run = |value: Value| candidate(&to_raw_value(&value).unwrap()).unwrap();
    let host = "candidate:1 1 udp 2122260223 192.168.0.196 46243 typ host";
    let relay =
        "candidate:2 1 udp 41885439 198.51.100.9 61665 typ relay raddr 203.0.113.77 rport 5";
    let blank = "candidate:2 1 udp 41885439 198.51.100.9 61665 typ relay raddr 0.0.0.0 rport 0";
    assert_eq!(run(host.into()), None);
    assert_eq!(run(format!("a={host}").into()), None);
    assert_eq!(run(format!("{relay}\r\n{host}").into()), None);
    assert_eq!(run("10.0.0.1".into()), None);
    assert_eq!(run(relay.into()), Some(Value::from(blank).to_string()));
    assert_eq!(run("".into()), Some("\"\"".to_owned()));
    assert_eq!(run(Value::Null), Some("null".to_owned()));
    let init = |candidate: &str| {
        serde_json::json!({"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0,
            "usernameFragment": "F7gI", "address": "10.0.0.1", "relatedAddress": "10.0.0.1"})
    };
    assert_eq!(run(init(host)), None);
    let kept: Value = serde_json::from_str(&run(init(relay)).unwrap()).unwrap();
    assert_eq!(
        kept,
        serde_json::json!({"candidate": blank, "sdpMid": "0", "sdpMLineIndex": 0,
        "usernameFragment": "F7gI"})
    );
    assert!(run(init("")).is_some());
    let labelled =
        |name: &str, value: Value| run(serde_json::json!({"candidate": "", name: value}));
    for (name, good) in [
        ("sdpMid", Value::Null),
        ("sdpMid", "audio-1".into()),
        ("sdpMLineIndex", 3.into()),
        ("usernameFragment", "x".repeat(256).into()),
    ] {
        let kept: Value = serde_json::from_str(&labelled(name, good.clone()).unwrap()).unwrap();
        assert_eq!(kept[name], good);
    }
    for (name, bad) in [
        ("sdpMid", serde_json::json!({"candidate": host})),
        ("sdpMid", 1.into()),
        ("sdpMLineIndex", host.into()),
        ("sdpMLineIndex", 65_536.into()),
        ("usernameFragment", host.into()),
        ("usernameFragment", "x".repeat(257).into()),
    ] {
        assert_eq!(
            labelled(name, bad).unwrap(),
            r#"{"candidate":""}"#,
            "{name}"
        );
    }
    assert_eq!(
        candidate(&to_raw_value(&serde_json::json!({"candidate": 1})).unwrap()),
        Err(Unreadable)
    );
}

#[test]
fn descriptions_are_strings_or_objects() {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    assert_eq!(
        description(&raw(r#""c=IN IP4 10.0.0.1""#)).unwrap(),
        r#""c=IN IP4 0.0.0.0""#
    );
    let object = raw(r#"{"type":"offer","sdp":"m=audio 5 x","address":"10.0.0.1"}"#);
    assert_eq!(
        description(&object).unwrap(),
        r#"{"type":"offer","sdp":"m=audio 9 x"}"#
    );
    let odd = raw(r#"{"type":"candidate:1 1 udp 1 10.0.0.1 5 typ host","sdp":"t=0 0"}"#);
    assert_eq!(description(&odd).unwrap(), r#"{"sdp":"t=0 0"}"#);
    assert_eq!(description(&raw(r#""\ud800""#)), Err(Unreadable));
}

#[test]
fn beside_the_payload_only_labels_and_the_receiver_stay() {
    assert_eq!(beside("").unwrap(), "");
    let rest = r#","to":"first","sdpMid":"0","candidate":"c","candidates":["c"],"x":1e999,"to":"p","sdpMLineIndex":0"#;
    assert_eq!(
        beside(rest).unwrap(),
        r#","sdpMLineIndex":0,"sdpMid":"0","to":"p""#
    );
    assert_eq!(
        beside(r#","sdpMid":{"candidate":"c"},"usernameFragment":"\ud800""#).unwrap(),
        ""
    );
}

/// What separates lines for someone, what is trimmed off them, and what candidates are made of.
const ALPHABET: &str =
    r"[a-zA-Z=: 0-9\r\n\x00\t\x0b\x0c\x1c-\x1e\x7f\x85\xa0\u{200b}\u{2028}\u{2029}\u{feff}]{0,40}";

proptest! {
    #[test]
    fn no_host_candidate_passes_wherever_it_stands(
        before in ALPHABET,
        end in prop::sample::select(&["\r\n", "\n", "\r", "\x0b", "\u{85}", "\u{2028}", "\0", "a=x", "=", ""]),
        after in ALPHABET,
        upper in any::<bool>(),
    ) {
        let host = "a=candidate:1 1 udp 1 192.0.2.55 5 typ host";
        let host = if upper { host.to_uppercase() } else { host.to_owned() };
        let sdp = format!("{before}{end}{host}{end}{after}");
        prop_assert!(!filter(&sdp).contains("192.0.2.55"));
    }

    #[test]
    fn any_text_is_filtered_once_and_for_all(
        sdp in "([omcaA]=|candidate:|candidate:1 1 udp 1 1.2.3.4 5 |typ relay| raddr | rport |IP6|[ 0-9a-z:.\r\n\u{b}\u{85}\u{2028}\u{feff}\u{200b}])*"
    ) {
        let once = filter(&sdp);
        prop_assert_eq!(filter(&once), once);
    }
}

#[test]
fn candidates_of_native_libraries_pass_and_are_filtered() {
    let relay =
        "candidate:2 1 udp 41885439 198.51.100.9 61665 typ relay raddr 203.0.113.77 rport 5";
    let host = "candidate:1 1 udp 2122260223 192.168.0.196 46243 typ host";
    let judged = |value: serde_json::Value| {
        let filtered = candidate(&to_raw_value(&value).unwrap()).unwrap();
        filtered.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap())
    };
    // iOS; Android with what its library adds; AppRTC; a browser's whole event.
    for (object, kept) in [
        (
            serde_json::json!({"sdp": relay, "sdpMid": "0", "sdpMLineIndex": 0}),
            vec!["sdp", "sdpMid", "sdpMLineIndex"],
        ),
        (
            serde_json::json!({"sdp": relay, "sdpMid": "0", "sdpMLineIndex": 0,
                "serverUrl": "turn:192.168.0.196", "adapterType": "WIFI"}),
            vec!["sdp", "sdpMid", "sdpMLineIndex"],
        ),
        (
            serde_json::json!({"type": "candidate", "label": 0, "id": "audio", "candidate": relay}),
            vec!["label", "id", "candidate"],
        ),
    ] {
        let filtered = judged(object.clone()).unwrap();
        let names: std::collections::BTreeSet<_> = filtered
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names, kept.into_iter().collect(), "{filtered}");
        let text = filtered.to_string();
        assert!(
            text.contains("198.51.100.9") && !text.contains("203.0.113.77"),
            "{text}"
        );
        let leaky = object.to_string().replace(relay, host);
        assert_eq!(
            judged(serde_json::from_str(&leaky).unwrap()),
            None,
            "{leaky}"
        );
    }
    let event =
        serde_json::json!({"candidate": {"candidate": relay, "sdpMid": "0"}, "isTrusted": true});
    assert_eq!(judged(event).unwrap()["candidate"]["sdpMid"], "0");
    let both = serde_json::json!({"candidate": relay, "sdp": host});
    assert_eq!(judged(both), None, "one of two texts shows an address");
    let wrong = serde_json::json!({"sdp": [host]});
    assert_eq!(candidate(&to_raw_value(&wrong).unwrap()), Err(Unreadable));
}

#[test]
fn descriptions_of_native_libraries_keep_their_type() {
    for (kind, kept) in [
        (serde_json::json!("OFFER"), true),
        (serde_json::json!("answer"), true),
        (serde_json::json!(2), true),
        (serde_json::json!(4), false),
        (serde_json::json!("192.168.0.196"), false),
        (serde_json::json!(["offer"]), false),
    ] {
        let object = serde_json::json!({"type": kind, "sdp": "v=0\r\nc=IN IP4 203.0.113.77\r\n"});
        let filtered = description(&to_raw_value(&object).unwrap()).unwrap();
        let filtered: serde_json::Value = serde_json::from_str(&filtered).unwrap();
        assert_eq!(filtered.get("type"), kept.then_some(&kind));
        assert_eq!(filtered["sdp"], "v=0\r\nc=IN IP4 0.0.0.0\r\n");
    }
}
