//! The long-term credential mechanism (RFC 8489 section 9.2.4) and its REST credentials.

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;
use stun::message::Message;

const CLIENT: &str = "198.51.100.7:5000";

/// Sends `request` as it is.
fn raw(boxed: &mut TestBox, client: &Client, request: &[u8]) -> Response {
    boxed.ask(&client.five_tuple, request)
}

fn assert_challenge(response: &Response, code: u16) {
    assert_eq!(response.code(), code);
    assert_eq!(response.text(ATTR_REALM), REALM);
    assert!(response.text(ATTR_NONCE).starts_with("obMatJos2"));
    assert_eq!(
        response.attr(ATTR_PASSWORD_ALGORITHMS),
        [0, 2, 0, 0, 0, 1, 0, 0]
    );
    for absent in [
        ATTR_USERNAME,
        ATTR_USER_HASH,
        ATTR_MESSAGE_INTEGRITY,
        ATTR_MESSAGE_INTEGRITY_SHA256,
        ATTR_SOFTWARE,
    ] {
        assert!(!response.has(absent), "{absent}");
    }
}

#[test]
fn every_request_but_binding_is_challenged() {
    let mut boxed = TestBox::new();
    let mut client = Client::new(CLIENT, "a");
    for method in [
        METHOD_ALLOCATE,
        METHOD_REFRESH,
        METHOD_CREATE_PERMISSION,
        METHOD_CHANNEL_BIND,
    ] {
        let request = client.request(method).udp().unsigned();
        assert_challenge(&raw(&mut boxed, &client, &request), 401);
    }
    assert_eq!(boxed.stats().refused.code_401, 4);
}

#[test]
fn integrity_without_its_companions_is_a_400() {
    let mut boxed = TestBox::new();
    let client = Client::challenged(&mut boxed, CLIENT, "a");
    for missing in [ATTR_USERNAME, ATTR_REALM, ATTR_NONCE] {
        let mut request = client.clone().request(METHOD_ALLOCATE).udp();
        for (kind, value) in [
            (ATTR_USERNAME, &client.username),
            (ATTR_REALM, &client.realm),
            (ATTR_NONCE, &client.nonce),
        ] {
            if kind != missing {
                request = request.attr(kind, value.as_bytes());
            }
        }
        let response = raw(
            &mut boxed,
            &client,
            &request.integrity(&client.key()).fingerprinted(),
        );
        assert_eq!(response.code(), 400, "without {missing}");
        assert_eq!(response.kinds(), [ATTR_ERROR_CODE, ATTR_FINGERPRINT]);
    }
}

#[test]
fn wrong_credentials_are_a_401() {
    let mut boxed = TestBox::new();
    let good = Client::challenged(&mut boxed, CLIENT, "a");
    type Spoil = fn(&mut Client);
    let cases: [(&str, Spoil); 5] = [
        ("password", |c| c.password.push('x')),
        ("username", |c| c.username.push('x')),
        ("not REST", |c| c.username = "alice".into()),
        ("too long", |c| c.username.push_str(&"x".repeat(600))),
        ("realm", |c| c.realm = "other".into()),
    ];
    for (name, spoil) in cases {
        let mut client = good.clone();
        spoil(&mut client);
        let request = client.request(METHOD_ALLOCATE).udp().signed(&client);
        let outs = boxed.client_sends(&client.five_tuple, &request);
        let [event] = events(&outs)[..] else {
            panic!("{name}: {outs:?}")
        };
        assert!(
            matches!(
                event,
                Event::Refused {
                    user: None,
                    refusal: DenyReason::Credentials,
                    ..
                }
            ),
            "{name}"
        );
        assert_challenge(&raw(&mut boxed, &client, &request), 401);
    }
    assert_eq!(
        boxed.stats().auth_failures,
        10,
        "two of each, and not the challenge"
    );
    let mut invalid_utf8 = good.clone();
    let request = invalid_utf8
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_USERNAME, &[0xff, 0xfe])
        .attr(ATTR_REALM, REALM.as_bytes())
        .attr(ATTR_NONCE, good.nonce.as_bytes())
        .integrity(&good.key())
        .fingerprinted();
    assert_challenge(&raw(&mut boxed, &good, &request), 401);
    boxed.assert_empty();
}

#[test]
fn userhash_names_nobody() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_USER_HASH, &[7; 32])
        .attr(ATTR_REALM, REALM.as_bytes())
        .attr(ATTR_NONCE, client.nonce.clone().as_bytes())
        .integrity(&client.key())
        .fingerprinted();
    assert_challenge(&raw(&mut boxed, &client, &request), 401);
}

#[test]
fn a_stale_or_foreign_nonce_is_a_438_with_a_fresh_one() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    boxed.advance(Duration::from_secs(3_599));
    client.refresh(&mut boxed, 3_600).success();
    boxed.advance(Duration::from_secs(1));
    let response = client.refresh(&mut boxed, 3_600);
    assert_challenge(&response, 438);
    client.nonce = response.text(ATTR_NONCE);
    client.refresh(&mut boxed, 3_600).success();

    let mut other = Client::new("198.51.100.7:5001", "a");
    other.nonce = client.nonce.clone();
    let request = other.request(METHOD_ALLOCATE).udp();
    assert_challenge(&other.ask(&mut boxed, request), 438);
    other.nonce = "nonsense".into();
    let request = other.request(METHOD_ALLOCATE).udp();
    assert_challenge(&other.ask(&mut boxed, request), 438);
}

#[test]
fn nonces_differ_between_clients() {
    let mut boxed = TestBox::new();
    let a = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    let b = Client::challenged(&mut boxed, "198.51.100.7:5001", "a");
    assert_ne!(a.nonce, b.nonce);
}

#[test]
fn sha256_passwords_and_integrity_work() {
    let mut boxed = TestBox::new();
    for algorithm in [1, 2] {
        let mut client = Client::challenged(&mut boxed, CLIENT, "a");
        client.algorithm = Some(algorithm);
        client.allocate(&mut boxed);
        client.permit(&mut boxed, PEER).success();
        assert_eq!(
            client.permit(&mut boxed, "10.0.0.1:1").code(),
            403,
            "errors are signed too"
        );
        // MESSAGE-INTEGRITY is enough as proof; the answer bears the stronger one.
        let request = client
            .request(METHOD_REFRESH)
            .credentials(&client)
            .integrity(&client.key());
        raw(&mut boxed, &client, &request.fingerprinted())
            .success()
            .assert_signed(&client);
        client.refresh(&mut boxed, 0).success();
    }
}

#[test]
fn the_stronger_integrity_decides() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    client.algorithm = Some(2);
    let both = |client: &mut Client, sha1: &[u8], sha256: &[u8]| {
        let request = client.request(METHOD_ALLOCATE).udp().credentials(client);
        request
            .integrity(sha1)
            .integrity_sha256(sha256)
            .fingerprinted()
    };
    let key = client.key();
    let request = both(&mut client, &key, b"wrong");
    assert_eq!(raw(&mut boxed, &client, &request).code(), 401);
    let request = both(&mut client, b"wrong", &key);
    raw(&mut boxed, &client, &request)
        .success()
        .assert_signed(&client);
}

#[test]
fn truncated_integrity_is_refused() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    client.algorithm = Some(2);
    let whole = client.request(METHOD_ALLOCATE).udp().credentials(&client);
    let mac = {
        let mut message = Message::new();
        let signed = whole.clone().integrity_sha256(&client.key()).unsigned();
        message.unmarshal_binary(&signed).unwrap();
        message.get(ATTR_MESSAGE_INTEGRITY_SHA256).unwrap()
    };
    for length in [0, 4, 16, 20, 28] {
        let request = whole
            .clone()
            .attr(ATTR_MESSAGE_INTEGRITY_SHA256, &mac[..length]);
        assert_eq!(
            raw(&mut boxed, &client, &request.unsigned()).code(),
            401,
            "{length}"
        );
    }
    let request = whole.attr(ATTR_MESSAGE_INTEGRITY, &mac[..20]);
    assert_eq!(raw(&mut boxed, &client, &request.unsigned()).code(), 401);
}

#[test]
fn bidding_down_is_a_400() {
    let mut boxed = TestBox::new();
    let client = Client::challenged(&mut boxed, CLIENT, "a");
    let list = &[0, 2, 0, 0, 0, 1, 0, 0][..];
    type Value<'a> = Option<&'a [u8]>;
    let cases: [(&str, Value, Value); 6] = [
        ("no list", Some(&[0, 1, 0, 0]), None),
        ("no choice", None, Some(list)),
        ("MD5 only", Some(&[0, 1, 0, 0]), Some(&[0, 1, 0, 0])),
        (
            "other order",
            Some(&[0, 1, 0, 0]),
            Some(&[0, 1, 0, 0, 0, 2, 0, 0]),
        ),
        ("unlisted choice", Some(&[0, 3, 0, 0]), Some(list)),
        ("short choice", Some(&[0, 2]), Some(list)),
    ];
    for (name, choice, offered) in cases {
        let mut request = client
            .clone()
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(ATTR_USERNAME, client.username.as_bytes())
            .attr(ATTR_REALM, client.realm.as_bytes())
            .attr(ATTR_NONCE, client.nonce.as_bytes());
        if let Some(choice) = choice {
            request = request.attr(ATTR_PASSWORD_ALGORITHM, choice);
        }
        if let Some(offered) = offered {
            request = request.attr(ATTR_PASSWORD_ALGORITHMS, offered);
        }
        let request = request.integrity(&client.key()).fingerprinted();
        assert_eq!(raw(&mut boxed, &client, &request).code(), 400, "{name}");
    }
    // Stripping the feature from the nonce makes it stale.
    let mut stripped = client.clone();
    stripped.nonce = stripped.nonce.replace("gAAB", "AAAA");
    let request = stripped.request(METHOD_ALLOCATE).udp();
    assert_eq!(stripped.ask(&mut boxed, request).code(), 438);
}

#[test]
fn what_follows_integrity_is_ignored() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .credentials(&client)
        .integrity(&client.key())
        .lifetime(3_600)
        .attr(AttrType(0x7abc), b"unknown")
        .fingerprinted();
    assert_eq!(raw(&mut boxed, &client, &request).success().lifetime(), 600);
}

#[test]
fn any_of_the_secrets_verifies_and_removed_ones_only_for_what_lives() {
    let with = |list: &[&str]| Settings {
        secrets: secrets(list),
        ..settings()
    };
    let mut boxed = TestBox::with_settings(with(&["south", "north"]));
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    boxed.reload(with(&["south"]));
    client.refresh(&mut boxed, 600).success();
    client.permit(&mut boxed, PEER).success();
    let mut late = Client::challenged(&mut boxed, "198.51.100.7:5001", "a");
    let request = late.request(METHOD_ALLOCATE).udp();
    assert_eq!(late.ask(&mut boxed, request).code(), 401);
}

#[test]
fn an_expired_credential_makes_nothing_new_and_keeps_what_lives() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    boxed.advance(Duration::from_secs(3_000));
    client.challenge(&mut boxed);
    client.refresh(&mut boxed, 3_600).success();
    boxed.advance(Duration::from_secs(601));
    client.refresh(&mut boxed, 3_600).success();
    client.permit(&mut boxed, PEER).success();
    client.bind(&mut boxed, 0x4000, PEER).success();

    let mut late = Client::challenged(&mut boxed, "198.51.100.7:5001", "a");
    let request = late.request(METHOD_ALLOCATE).udp().signed(&late);
    let outs = boxed.client_sends(&late.five_tuple, &request);
    assert!(matches!(
        events(&outs)[..],
        [Event::Refused {
            refusal: DenyReason::Expired,
            ..
        }]
    ));
    assert_challenge(&raw(&mut boxed, &late, &request), 401);
}

#[test]
fn a_credential_is_good_until_its_last_second() {
    let mut boxed = TestBox::new();
    boxed.advance(Duration::from_secs(3_600));
    Client::allocated(&mut boxed, CLIENT, "a");
}

#[test]
fn revoked_credentials_make_nothing_and_later_ones_do() {
    let mut boxed = TestBox::new();
    Client::allocated(&mut boxed, CLIENT, "a");
    Client::allocated(&mut boxed, "198.51.100.7:5001", "b");
    boxed.shared.revoke("a", UNIX + 3_600, UNIX);
    let closed = boxed.revoke("a");
    assert!(matches!(
        events(&closed)[..],
        [Event::Closed {
            reason: CloseReason::Revoked,
            ..
        }]
    ));
    assert_eq!(boxed.shared.allocations(), 1);

    let mut again = Client::challenged(&mut boxed, "198.51.100.7:5002", "a");
    let request = again.request(METHOD_ALLOCATE).udp();
    assert_eq!(again.ask(&mut boxed, request).code(), 401);
    let later = secrets(&["north"]).mint("a", UNIX + 3_601);
    (again.username, again.password) = (later.username, later.password);
    again.allocate(&mut boxed);
    Client::allocated(&mut boxed, "198.51.100.7:5003", "b");
}

#[test]
fn usernames_of_other_programs_work() {
    let mut boxed = TestBox::new();
    let bare = (UNIX + 60).to_string();
    for (i, username) in [
        bare.clone(),
        format!("{bare}:@u:example.org"),
        format!("{bare}:"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::new(&format!("198.51.100.7:{}", 5_000 + i), "a");
        client.password = secrets(&["north"]).passwords(&username).next().unwrap();
        client.username = username;
        client.challenge(&mut boxed);
        client.allocate(&mut boxed);
    }
    let users: Vec<_> = boxed.engines[0]
        .allocations(boxed.now.instant)
        .map(|view| view.user.to_string())
        .collect();
    assert_eq!(users, [&bare, "@u:example.org", ""]);
}

#[test]
fn no_unauthenticated_answer_amplifies_more_than_threefold() {
    for realm in ["callbox", "turn.a-rather-long-domain-name.example.org"] {
        let mut boxed = TestBox::with_settings(Settings {
            realm: realm.into(),
            ..settings()
        });
        for address in [CLIENT, "[2001:db8:1::7]:5000"] {
            let mut client = Client::new(address, "a");
            let headers = if client.five_tuple.client.is_ipv4() {
                28
            } else {
                48
            };
            let bare = client.request(METHOD_ALLOCATE).unsigned();
            let usual = client.request(METHOD_ALLOCATE).udp().unsigned();
            let broken = client.request(METHOD_ALLOCATE).integrity(b"key").unsigned();
            let unknown = client
                .request(METHOD_BINDING)
                .attr(AttrType(0x7001), b"")
                .unsigned();
            let binding = client.request(METHOD_BINDING).unsigned();
            for request in [bare, usual, broken, unknown, binding] {
                for out in boxed.client_sends(&client.five_tuple, &request) {
                    let Out::Reply(_, reply) = out else { continue };
                    let (asked, got) = (headers + request.len(), headers + reply.len());
                    assert!(got <= 3 * asked, "{got} for {asked}");
                    if realm == "callbox" {
                        assert!(reply.len() <= 3 * request.len(), "{reply:02x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_shortest_request_gets_the_shortest_challenge_and_that_is_enough() {
    let mut boxed = TestBox::new();
    let mut client = Client::new(CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).unsigned();
    assert_eq!(request.len(), 20);
    let response = raw(&mut boxed, &client, &request);
    assert_eq!((response.code(), response.0.raw.len()), (401, 56));
    assert_eq!(
        response.kinds(),
        [ATTR_ERROR_CODE, ATTR_REALM, ATTR_NONCE],
        "what a client of RFC 5389 needs"
    );
    client.nonce = response.text(ATTR_NONCE);
    client.allocate(&mut boxed);
    // What a browser sends first: 28 bytes.
    let request = client.request(METHOD_REFRESH).udp().unsigned();
    let response = raw(&mut boxed, &client, &request);
    assert_eq!((request.len(), response.0.raw.len()), (28, 80));
    // Who has FINGERPRINT gets FINGERPRINT, and who has a stream gets everything.
    let request = client.request(METHOD_REFRESH).fingerprinted();
    assert!(raw(&mut boxed, &client, &request).has(ATTR_FINGERPRINT));
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..client.five_tuple
    };
    let request = client.request(METHOD_ALLOCATE).unsigned();
    let response = boxed.ask(&tcp, &request);
    assert_challenge(&response, 401);
    assert!(response.has(ATTR_FINGERPRINT));
}

#[test]
fn the_usual_first_request_is_answered_even_with_a_long_realm() {
    let realm = "turn.a-rather-long-domain-name.example.org";
    let mut boxed = TestBox::with_settings(Settings {
        realm: realm.into(),
        ..settings()
    });
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(client.realm, realm);
    client.refresh(&mut boxed, 600).success();
    let mut bare = Client::new(CLIENT, "a");
    let request = bare.request(METHOD_ALLOCATE).unsigned();
    let quiet = Settings {
        realm: "r".repeat(100),
        ..settings()
    };
    boxed.reload(quiet);
    assert_eq!(boxed.client_sends(&bare.five_tuple, &request), []);
    assert_eq!(boxed.stats().dropped.amplification, 1);
    // A stream cannot be spoofed.
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..bare.five_tuple
    };
    assert_eq!(boxed.ask(&tcp, &request).code(), 401);
}
