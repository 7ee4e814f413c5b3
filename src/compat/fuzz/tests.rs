//! An attack for each dialect, and noise for all of them.

use super::super::{PeerJsSettings, Settings as Spoken};
use super::*;
use proptest::prelude::*;

mod across;
mod rooms;
mod versions;

const KINDS: [(DialectKind, &str); 6] = [
    (DialectKind::Tutorial, "tutorial"),
    (DialectKind::PeerJs, "peerjs"),
    (DialectKind::Mqtt, "mqtt"),
    (DialectKind::YWebrtc, "y-webrtc"),
    (DialectKind::Trystero, "trystero"),
    (DialectKind::SocketIo, "socketio"),
];

#[test]
fn regressions_stay_fixed() {
    for (kind, name) in KINDS {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/regressions")
            .join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            fuzz_bytes(kind, &bytes, Instant::now());
            inputs += 1;
        }
        assert!(inputs > 0, "{folder:?}");
    }
}

/// The translator that another process makes of what this one remembers.
pub(super) fn remake(dialect: &Foreign, kind: DialectKind, now: Instant) -> Foreign {
    let settings = Spoken {
        tutorials: true,
        y_webrtc: Some(YWebrtc { relay_only: false }),
        trystero: true,
        peerjs: Some(PeerJsSettings {
            key: "peerjs".into(),
            paths: vec![],
            relay_only: false,
        }),
        mqtt: true,
        mqtt_rooms: RoomTopics::new("room/{room}/signaling").map(Arc::new),
        socketio: Some(Profile::Relay),
        ..Spoken::default()
    };
    let memory = dialect.memory(now).unwrap();
    Foreign::remembered(kind, &memory, &settings, now).unwrap()
}

/// What both clients receive while one says `messages`, by translators that are made again and again
/// or stay.
fn conversation(
    kind: DialectKind,
    profile: Profile,
    messages: &[&[u8]],
    remakes: bool,
    now: Instant,
) -> Vec<Vec<Message>> {
    let mut world = World::with(kind, [profile; 2], now);
    world.remakes = remakes.then_some(kind);
    for message in messages {
        match (kind, std::str::from_utf8(message)) {
            (DialectKind::Mqtt, _) | (_, Err(_)) => world.binary(ATTACKER, message),
            (_, Ok(text)) => world.text(ATTACKER, text),
        }
        let later = world.now.instant + Duration::from_millis(400);
        world.now.instant = later;
        for conn in [VICTIM, ATTACKER] {
            world.act(conn, |dialect, now, out| {
                if dialect.next_timeout().is_some_and(|at| at <= now) {
                    dialect.timed_out(now, out);
                }
            });
        }
    }
    (world.clients.into_iter())
        .map(|(_, _, received)| received)
        .collect()
}

fn goes_on_elsewhere(kind: DialectKind, profile: Profile, messages: &[&[u8]]) -> usize {
    let now = Instant::now();
    let stays = conversation(kind, profile, messages, false, now);
    let moves = conversation(kind, profile, messages, true, now);
    assert_eq!(moves, stays, "{kind:?} {profile:?}");
    stays.iter().map(Vec::len).sum()
}

/// A translator that another process makes of what was remembered goes on as the one that was.
#[test]
fn translators_go_on_in_another_process() {
    let said: [(DialectKind, &[&[u8]]); 6] = [
        (
            DialectKind::Tutorial,
            &[
                br#"{"type":"message","content":"a"}"#,
                br#"{"type":"register","userId":"ann"}"#,
                br#"{"type":"join","userId":"ann","roomId":"s"}"#,
                br#"{"type":"join","roomId":"r","id":"7"}"#,
                br#"{"type":"offer","sdp":"v=0
"}"#,
                br#"{"type":"leave"}"#,
            ],
        ),
        (
            DialectKind::PeerJs,
            &[
                br#"{"type":"OFFER","dst":"client1","payload":{"a":1}}"#,
                br#"{"type":"OFFER","dst":"nobody","payload":{"a":1}}"#,
                br#"{"type":"LEAVE"}"#,
            ],
        ),
        (
            DialectKind::YWebrtc,
            &[
                br#"{"type":"publish","topic":"t","data":1}"#,
                br#"{"type":"ping"}"#,
            ],
        ),
        (
            DialectKind::Trystero,
            &[br#"{"type":"publish","topic":"t","payload":1}"#],
        ),
        (
            DialectKind::Mqtt,
            &[
                b"\x30\x04\x00\x01ta",
                b"\x32\x06\x00\x01t\x00\x05b",
                // One packet in two pieces, and a topic that is a room.
                b"\x30\x04\x00",
                b"\x01tc\x82\x15\x00\x09\x00\x10room/r/signaling\x01",
                b"\x82\x16\x00\x09\x00\x11room/ro/signaling\x01",
                b"\x34\x06\x00\x01t\x00\x06d",
                b"\x62\x02\x00\x06\xc0\x00",
                b"\xa2\x05\x00\x0a\x00\x01t\xe0\x00",
            ],
        ),
        (
            DialectKind::SocketIo,
            &[
                br#"42["chat",{"a":1}]"#,
                br#"423["chat",{"a":2}]"#,
                br#"451-["bytes",{"_placeholder":true,"num":0}]"#,
                b"\xff\xfe",
                b"3",
                b"41",
                b"40",
            ],
        ),
    ];
    for (kind, messages) in said {
        let received = goes_on_elsewhere(kind, Profile::Relay, messages);
        assert!(received > messages.len() / 2, "{kind:?}: {received}");
    }
    for (profile, _) in PROFILES {
        let messages: [&[u8]; 4] = [
            br#"42["join-room",{"roomId":"r"}]"#,
            br#"42["message",{"a":1}]"#,
            br#"421["callUser",{"userToCall":"x","signalData":{}}]"#,
            br#"42["offer",{"sdp":"v=0"}]"#,
        ];
        goes_on_elsewhere(DialectKind::SocketIo, profile, &messages);
    }
}

proptest! {
    #[test]
    fn noise_goes_on_in_another_process(
        which in 0..KINDS.len(),
        texts in proptest::collection::vec("\\PC{0,30}", 0..6),
    ) {
        let messages: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        goes_on_elsewhere(KINDS[which].0, Profile::Relay, &messages);
    }

    #[test]
    fn no_memory_brings_a_translator_down(
        which in 0..KINDS.len(),
        memory in "\\PC{0,60}",
    ) {
        super::super::fuzz_memory(KINDS[which].0, &memory, Instant::now());
    }
}

/// What an attacker says, and whether anything of it reaches the other client.
fn attack(kind: DialectKind, texts: &[&str]) -> Vec<String> {
    attack_with(kind, RELAYS, texts)
}

fn attack_with(kind: DialectKind, variant: impl Into<Variant>, texts: &[&str]) -> Vec<String> {
    let mut world = World::with(kind, variant, Instant::now());
    world.received();
    for text in texts {
        world.text(ATTACKER, text);
    }
    let attacker = world.peers[ATTACKER as usize].clone();
    let received = world.received();
    received
        .iter()
        .for_each(|received| judge(kind, world.variant, &attacker, received));
    received
        .into_iter()
        .map(|received| format!("{received:?}"))
        .collect()
}

#[test]
fn no_client_of_a_tutorial_speaks_for_the_server() {
    let received = attack(
        DialectKind::Tutorial,
        &[
            r#"{"type":"ice-servers","iceServers":[],"to":"x"}"#,
            r#"{"type":"welcome","clientId":"x"}"#,
            r#"{"type":"room-joined","members":[]}"#,
            r#"{"type":"user-joined","clientId":"x"}"#,
            r#"{"type":"peer-left","peerId":"x"}"#,
            r#"{"type":"message","content":1,"iceServers":[],"fromId":"eve","seq":9}"#,
        ],
    );
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(received[0].contains("content") && !received[0].contains("eve"));
}

#[test]
fn no_client_of_peerjs_speaks_for_the_server() {
    let frame = |kind: &str| {
        format!(r#"{{"type":"{kind}","dst":"client1","src":"eve","payload":{{"msg":"m"}}}}"#)
    };
    let kinds = [
        "OPEN",
        "ID-TAKEN",
        "ERROR",
        "EXPIRE",
        "INVALID-KEY",
        "HEARTBEAT",
        "OFFER",
    ];
    let frames = kinds.map(frame);
    let frames: Vec<_> = frames.iter().map(String::as_str).collect();
    let received = attack(DialectKind::PeerJs, &frames);
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(received[0].contains("OFFER") && received[0].contains("client0"));
}

#[test]
fn no_client_of_topics_speaks_for_the_server() {
    let received = attack(
        DialectKind::YWebrtc,
        &[
            r#"{"type":"pong"}"#,
            r#"{"type":"ice-servers","topic":"t","iceServers":[]}"#,
            r#"{"type":"publish","topic":"t","clients":99,"CLIENTS":98,"data":1}"#,
        ],
    );
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(!received[0].contains("99"));
    let received = attack(
        DialectKind::Trystero,
        &[r#"{"type":"publish","topic":"t","payload":1,"clients":2,"type":"publish"}"#],
    );
    assert_eq!(received.len(), 1, "{received:?}");
}

#[test]
fn no_client_of_mqtt_speaks_for_the_server() {
    let mut world = World::new(DialectKind::Mqtt, Instant::now());
    // The victim asks for ICE servers, and is in a room of natives and others.
    world.binary(VICTIM, b"\x82\x11\x00\x02\x00\x0c$callbox/ice\x00");
    world.received();
    for topic in ["$callbox/ice", "$SYS/x"] {
        let length = 2 + topic.len() + 2;
        let head = [0x30, length as u8, 0, topic.len() as u8];
        world.binary(ATTACKER, &[&head, topic.as_bytes(), b"[]"].concat());
    }
    assert_eq!(world.received(), []);
}

#[test]
fn no_client_of_socketio_speaks_for_the_server() {
    let received = attack(
        DialectKind::SocketIo,
        &[
            r#"42["ice-servers",{"iceServers":[]}]"#,
            r#"42["ice\u002dservers",{"iceServers":[]}]"#,
            r#"42["user-left","x"]"#,
            r#"42["connect"]"#,
            r#"42["disconnect","x"]"#,
            r#"40{"sid":"x"}"#,
            r#"44{"message":"x"}"#,
            r#"41"#,
            r#"42["chat",{"from":"eve","sender":"eve"}]"#,
        ],
    );
    // It left by `41`, of which the server speaks.
    assert!(
        received.iter().all(|received| received.contains("user-")),
        "{received:?}"
    );
    let received = attack(
        DialectKind::SocketIo,
        &[r#"42["chat",{"from":"eve","sender":"eve","iceServers":[]}]"#],
    );
    assert!(
        received.len() == 1 && !received[0].contains("eve"),
        "{received:?}"
    );
}

/// What no parser takes for bytes is stamped, and what stands for bytes is nothing else.
#[test]
fn no_client_of_socketio_hides_its_id_behind_a_placeholder() {
    let received = attack(
        DialectKind::SocketIo,
        &[
            r#"42["offer",{"_placeholder":false,"from":"eve","sender":"eve","sdp":"v=0"}]"#,
            r#"42["offer",{"_placeholder":true,"num":0,"from":"eve","sender":"eve"}]"#,
            r#"42["offer",{"_placeholder":true,"num":0}]"#,
            r#"42["offer",{"FROM":"eve","Sender":"eve"}]"#,
            "450-[\"offer\",{\"_placeholder\":true,\"from\":\"eve\",\"sender\":\"eve\"}]",
        ],
    );
    assert_eq!(received.len(), 5, "{received:?}");
    assert!(!received.concat().contains("eve"), "{received:?}");
    // It names nobody here, and goes nowhere.
    let event = r#"42["offer",{"_placeholder":true,"num":0,"to":"nobody"}]"#;
    assert!(attack(DialectKind::SocketIo, &[event]).is_empty());
    for hidden in [
        r#"{"_placeholder":true,"num":0,"from":"eve"}"#,
        r#"{"_placeholder":1,"num":0,"from":"eve"}"#,
        r#"{"_placeholder":false,"from":"eve"}"#,
        r#"{"\u005fplaceholder":"x","num":0,"from":"eve"}"#,
        r#"{"a":{"_placeholder":1,"num":0}}"#,
    ] {
        let event = format!(r#"451-["offer",{hidden}]"#);
        let received = attack(DialectKind::SocketIo, &[&event, "\u{1}bytes"]);
        assert!(received.is_empty(), "{received:?}");
    }
}

/// What one profile keeps for the server, clients of others may say: to each other alone.
#[test]
fn no_profile_of_socketio_speaks_to_another() {
    let own = [
        "me",
        "callEnded",
        "callAccepted",
        "callUser",
        "all users",
        "room full",
        "user joined",
        "user left",
        "receiving returned signal",
        "full",
        "created",
        "joined",
        "join",
        "ready",
        "change",
        "ipaddr",
        "message",
        "bye",
    ];
    for (attacker, _) in PROFILES {
        for (victim, join) in PROFILES {
            let mut texts: Vec<_> = join.into_iter().map(str::to_owned).collect();
            for room in ["r", "lobby", "", "call/lobby", "call\\u001flobby"] {
                for join in ["join", "join room", "create or join"] {
                    texts.push(format!(r#"42["{join}","{room}"]"#));
                }
                texts.extend(own.map(|name| format!(r#"42["{name}",{{"to":"x"}},"x"]"#)));
                texts.extend(own.map(|name| format!(r#"42["{name}","x"]"#)));
            }
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            // The judge knows what one profile says to itself.
            let received = attack_with(DialectKind::SocketIo, [attacker, victim], &texts);
            assert!(attacker == victim || received.is_empty(), "{received:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nobody_gets_what_is_not_of_its_protocol(
        messages in prop::collection::vec(
            prop::sample::select(vec![
                r#"{"type":"publish","topic":"t","payload":{"a":[1]},"data":1}"#,
                r#"{"type":"offer","sdp":"v","to":null,"from":1}"#,
                r#"{"type":"OFFER","dst":"client1","payload":{}}"#,
                r#"{"type":"LEAVE"}"#,
                r#"{"desc":{"type":"offer","sdp":"v"}}"#,
                r#"{"type":"join","roomId":"r","identity":"x"}"#,
                r#"{"type":"message","content":{"iceServers":[]}}"#,
                r#"42["offer",{"to":"x"},"y"]"#,
                r#"42["join",{"room":"r"}]"#,
                r#"451-["f",{"_placeholder":true,"num":0}]"#,
                r#"42["f",{"_placeholder":true,"num":0,"from":"x"}]"#,
                r#"42["callUser",{"userToCall":"x","signalData":1}]"#,
                r#"42["join room","r"]"#,
                r#"42["callEnded"]"#,
                "\u{1}bytes",
                "41",
                "40",
                "",
            ]),
            0..12,
        ),
        cut in 0_usize..80,
        kind in 0_usize..6,
        attacker in 0_usize..6,
        victim in 0_usize..6,
    ) {
        let mut messages: Vec<&[u8]> = messages.into_iter().map(str::as_bytes).collect();
        if let Some(last) = messages.last_mut() {
            *last = &last[..cut.min(last.len())];
        }
        let profiles = [PROFILES[attacker].0, PROFILES[victim].0];
        fuzz_with(KINDS[kind].0, profiles, messages.into_iter(), Instant::now());
    }

    #[test]
    fn any_bytes_are_judged(bytes: Vec<u8>, first: u8, kind in 0_usize..6) {
        let bytes = [vec![first], bytes].concat();
        fuzz_bytes(KINDS[kind].0, &bytes, Instant::now());
    }

    #[test]
    fn any_body_of_engine_io_is_read_as_it_is_written(
        packets in prop::collection::vec("[0-6b][a-zA-Z4=€]{0,6}|\\PC{0,5}", 0..5),
        noise: Vec<u8>,
        first in 0_u8..3,
    ) {
        let lengths = |packet: &String| format!("{}:{packet}", packet.encode_utf16().count());
        let binary = |packet: &String| {
            let kind = u8::from(packet.starts_with('b'));
            [&[kind, packet.len() as u8, 0xff][..], packet.as_bytes()].concat()
        };
        let body = match first {
            0 => packets.join("\u{1e}").into_bytes(),
            1 => packets.iter().map(lengths).collect::<String>().into_bytes(),
            _ => packets.iter().flat_map(binary).collect(),
        };
        fuzz_engine(&[vec![first], body].concat());
        fuzz_engine(&[vec![first], noise].concat());
    }
}
