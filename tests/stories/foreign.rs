//! Rights of foreign clients: tokens, the backend, rules and removal hold for them.

use crate::carriers::{Socket, connect, next, text};
use crate::harness::{Callbox, Client};
use crate::hooks::{Backend, toml};
use crate::http::{json, send};
use futures_util::SinkExt;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_tungstenite::tungstenite::Message;

const SECRET: &str = "a secret that is long enough for HS256";

fn token(mut claims: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    claims["exp"] = json!(now.as_secs() + 600);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// A packet of MQTT.
async fn packet(socket: &mut Socket, head: u8, body: &[u8]) {
    let mut bytes = vec![head];
    let mut rest = body.len();
    while rest > 127 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(body);
    socket.send(Message::binary(bytes)).await.unwrap();
}

async fn answer(socket: &mut Socket) -> Vec<u8> {
    next(socket).await.into_data().to_vec()
}

async fn mqtt(callbox: &Callbox, name: &str, token: Option<&str>) -> (Socket, Vec<u8>) {
    let mut socket = connect(callbox, "/mqtt", Some("mqtt")).await;
    let flags = if token.is_some() { 0xC2 } else { 2 };
    let mut hello = [&text("MQTT")[..], &[4, flags, 0, 60], &text(name)].concat();
    if let Some(token) = token {
        hello.extend([text("any"), text(token)].concat());
    }
    packet(&mut socket, 0x10, &hello).await;
    let answer = answer(&mut socket).await;
    (socket, answer)
}

async fn subscribe(socket: &mut Socket, topic: &str) -> u8 {
    packet(socket, 0x82, &[&[0, 1][..], &text(topic), &[0]].concat()).await;
    let answer = answer(socket).await;
    assert_eq!(answer[0], 0x90);
    answer[4]
}

async fn say(socket: &mut Socket, message: Value) {
    let message = Message::text(message.to_string());
    socket.send(message).await.unwrap();
}

async fn next_event(socket: &mut Socket) -> Value {
    json(next(socket).await.to_text().unwrap())
}

#[tokio::test]
async fn a_token_for_a_room_opens_the_topic_that_is_the_room() {
    let callbox = Callbox::start(&format!(
        "[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n[compat]\nenabled = [\"mqtt\"]\n\
         [compat.mqtt]\nrooms = \"room/{{room}}/signaling\""
    ))
    .await;
    let good = token(json!({"sub": "ann", "room": "123"}));
    let (mut ann, accepted) = mqtt(&callbox, "c", Some(&good)).await;
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    assert_eq!(subscribe(&mut ann, "room/124/signaling").await, 0x80);
    assert_eq!(subscribe(&mut ann, "room/123/signaling").await, 0);
    let mut native = Client::connect(&callbox).await;
    let bob = token(json!({"sub": "bob", "room": "123"}));
    let join = json!({"type": "join", "roomId": "123", "token": bob});
    let joined = native.request(join).await;
    assert_eq!(joined["peers"][0]["identity"], "ann");
    let publish = [
        &text("room/123/signaling")[..],
        b"{\"type\":\"offer\",\"sdp\":\"v=0\"}",
    ];
    packet(&mut ann, 0x30, &publish.concat()).await;
    assert_eq!(native.until("offer").await["fromIdentity"], "ann");
}

#[tokio::test]
async fn the_backend_decides_on_topics_and_on_connections_of_foreign_protocols() {
    let (backend, address) = Backend::start().await;
    let more = "[compat]\nenabled = [\"peerjs\", \"y-webrtc\", \"mqtt\"]";
    let callbox = Callbox::start(&toml(address, more)).await;
    let mut peerjs = connect(&callbox, "/peerjs?key=peerjs&id=mallory&token=t", None).await;
    let refused = next_event(&mut peerjs).await;
    assert_eq!(refused["type"], "ERROR", "{refused}");
    let asked = backend.question(0).await;
    assert_eq!(
        (&asked["action"], &asked["identity"]),
        (&json!("register"), &json!("mallory"))
    );
    assert_eq!(mqtt(&callbox, "mallory", None).await.1, [0x20, 2, 0, 5]);
    let (mut sensor, accepted) = mqtt(&callbox, "sensor", None).await;
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    assert_eq!(subscribe(&mut sensor, "closed").await, 0x80);
    assert_eq!(subscribe(&mut sensor, "open").await, 0);
    let asked = backend.question(3).await;
    assert_eq!(
        (&asked["action"], &asked["identity"], &asked["room"]),
        (&json!("join"), &json!("sensor"), &json!("closed"))
    );
    // Of several topics each is asked about.
    let mut doc = connect(&callbox, "/y-webrtc", None).await;
    say(
        &mut doc,
        json!({"type": "subscribe", "topics": ["closed", "fine"]}),
    )
    .await;
    for topic in ["closed", "fine"] {
        say(&mut doc, json!({"type": "publish", "topic": topic})).await;
    }
    let event = next_event(&mut doc).await;
    assert_eq!(
        (&event["topic"], &event["clients"]),
        (&json!("fine"), &json!(1))
    );
}

#[tokio::test]
async fn questions_about_topics_carry_the_claims_of_the_connection() {
    let (backend, address) = Backend::start().await;
    let jwt = format!(
        "[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n[compat]\nenabled = [\"mqtt\", \"y-webrtc\"]\n\
         [compat.mqtt]\nrooms = \"room/{{room}}/signaling\""
    );
    let callbox = Callbox::start(&toml(address, &jwt)).await;
    let good = token(json!({"sub": "ann", "room": "*", "plan": "small"}));
    let (mut ann, accepted) = mqtt(&callbox, "c", Some(&good)).await;
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    assert_eq!(subscribe(&mut ann, "news").await, 0);
    assert_eq!(subscribe(&mut ann, "room/123/signaling").await, 0);
    assert_eq!(subscribe(&mut ann, "more").await, 0);
    let path = format!("/y-webrtc?token={good}");
    let mut doc = connect(&callbox, &path, None).await;
    say(&mut doc, json!({"type": "subscribe", "topics": ["doc"]})).await;
    let expected = [
        ("register", None),
        ("join", Some("news")),
        ("create", Some("123")),
        ("join", Some("more")),
        ("register", None),
        ("join", Some("doc")),
    ];
    for (n, (action, room)) in expected.into_iter().enumerate() {
        let asked = backend.question(n).await;
        assert_eq!(
            (&asked["action"], &asked["room"], &asked["identity"]),
            (&json!(action), &json!(room), &json!("ann")),
            "{asked}"
        );
        assert_eq!(asked["claims"]["plan"], "small", "{asked}");
    }
}

#[tokio::test]
async fn the_backend_decides_who_enters_the_lobby_and_who_is_called_into_it() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "[compat]\nenabled = [\"tutorials\"]")).await;
    let offer = json!({"desc": {"type": "offer", "sdp": "v=0"}});
    // Silent pages are asked about when they come: nobody waits for an answer during a call.
    let mut silent = Client::connect_to(&callbox, "/", &[]).await.unwrap();
    let asked = backend.question(0).await;
    assert_eq!(
        (&asked["action"], &asked["room"], &asked["identity"]),
        (&json!("create"), &json!("default"), &Value::Null)
    );
    backend.refuses("default");
    let mut denied = Client::connect_to(&callbox, "/", &[]).await.unwrap();
    backend.question(1).await;
    denied.send(offer.clone()).await;
    assert_eq!(backend.question(2).await["room"], "default");
    let mut unwanted = Client::connect_to(&callbox, "/", &[]).await.unwrap();
    backend.question(3).await;
    backend.refuses("nothing");
    let mut caller = Client::connect_to(&callbox, "/", &[]).await.unwrap();
    caller.send(offer.clone()).await;
    // The room is not there yet: who was refused has not made it.
    assert_eq!(backend.question(5).await["action"], "create");
    assert_eq!(silent.recv().await, offer);
    unwanted.send(json!({"type": "ping"})).await;
    let answer = unwanted.recv().await;
    assert_eq!(answer["type"], "pong", "the refused page was called");
}

#[tokio::test]
async fn rules_of_calls_hold_for_ids_of_peerjs() {
    let callbox = Callbox::start(
        "[compat]\nenabled = [\"peerjs\"]\n[[policy.calls]]\nfrom = \"agent-*\"\nto = \"*\"",
    )
    .await;
    let mut clients = vec![];
    for id in ["agent-1", "user-1", "user-2"] {
        let path = format!("/peerjs?key=peerjs&id={id}&token=t");
        let mut client = connect(&callbox, &path, None).await;
        assert_eq!(next_event(&mut client).await["type"], "OPEN");
        clients.push(client);
    }
    let [agent, one, two] = &mut clients[..] else {
        panic!()
    };
    let message = |kind: &str, dst: &str| json!({"type": kind, "dst": dst, "payload": {}});
    say(one, message("OFFER", "user-2")).await;
    let expired = next_event(one).await;
    assert_eq!(
        (&expired["type"], &expired["src"]),
        (&json!("EXPIRE"), &json!("user-2"))
    );
    say(agent, message("OFFER", "user-2")).await;
    assert_eq!(next_event(two).await["src"], "agent-1");
    say(two, message("ANSWER", "agent-1")).await;
    assert_eq!(next_event(agent).await["type"], "ANSWER");
}

#[tokio::test]
async fn who_is_removed_loses_the_credentials_of_its_token() {
    let callbox = Callbox::start(&format!(
        "[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\nadmin_token = \"sesame\"\n\
         [compat]\nenabled = [\"peerjs\"]"
    ))
    .await;
    let token = token(json!({"sub": "user-1", "room": "q", "call": true}));
    let mint = async || {
        let path = format!("/peerjs/ice-servers?token={token}");
        let (status, _, body) = send(&callbox, "GET", &path, "", "").await;
        assert_eq!(status, 200, "{body}");
        let servers = json(&body)["iceServers"].clone();
        let name = servers
            .as_array()
            .unwrap()
            .iter()
            .find_map(|it| it["username"].as_str());
        let (expiry, user) = name.unwrap().split_once(':').unwrap();
        assert_eq!(user, "http-user-1");
        expiry.parse::<u64>().unwrap()
    };
    let path = format!("/peerjs?key=peerjs&id=user-1&token={token}");
    let mut client = connect(&callbox, &path, None).await;
    assert_eq!(next_event(&mut client).await["type"], "OPEN");
    let before = mint().await;
    let admin = "Authorization: Bearer sesame\r\n";
    let (_, _, body) = send(&callbox, "GET", "/v1/clients", admin, "").await;
    let peer = json(&body)["clients"][0]["peerId"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/clients/{peer}");
    assert_eq!(send(&callbox, "DELETE", &path, admin, "").await.0, 204);
    assert!(mint().await > before, "what was minted before is revoked");
}

/// Version 5 has words for the end, whatever its messages are.
#[tokio::test]
async fn over_the_rate_a_client_of_mqtt_5_is_told_why_it_is_closed() {
    let callbox = Callbox::start(
        "[compat]\nenabled = [\"mqtt\"]\n[signal]\nrate = \"1/s\"\n[auth]\nadmin_token = \"sesame\"",
    )
    .await;
    for qos in [0, 1] {
        let mut socket = connect(&callbox, "/mqtt", Some("mqtt")).await;
        let hello = [&text("MQTT")[..], &[5, 2, 0, 60, 0], &text("c")].concat();
        packet(&mut socket, 0x10, &hello).await;
        assert_eq!(answer(&mut socket).await[0], 0x20);
        let id: &[u8] = if qos > 0 { &[0, 1] } else { &[] };
        let publish = [&text("t")[..], id, b"\0m"].concat();
        let head = [0x30 | qos << 1, publish.len() as u8];
        let ping: &[u8] = if qos > 0 { &[] } else { &[0xC0, 0] };
        let said = [&head[..], &publish, ping].concat();
        // Ten seconds' worth passes at once. Each is answered, one of QoS 0 by what follows it.
        let last = loop {
            socket.send(Message::binary(said.clone())).await.unwrap();
            let last = answer(&mut socket).await;
            if !matches!(last[0], 0x40 | 0xD0) {
                break last;
            }
        };
        assert_eq!(last, [0xE0, 1, 0x96], "QoS {qos}");
    }
}

/// Libraries write a packet in pieces, or several at once.
#[tokio::test]
async fn messages_of_mqtt_are_counted_and_not_frames() {
    let callbox =
        Callbox::start("[compat]\nenabled = [\"mqtt\"]\n[auth]\nadmin_token = \"sesame\"").await;
    let (mut socket, _) = mqtt(&callbox, "c", None).await;
    let publish = [&[0x32, 6][..], &text("t"), &[0, 1], b"m"].concat();
    for _ in 0..3 {
        for byte in &publish {
            socket.send(Message::binary(vec![*byte])).await.unwrap();
        }
    }
    let twice = [&publish[..], &publish, b"\xc0"].concat();
    socket.send(Message::binary(twice)).await.unwrap();
    socket.send(Message::binary(vec![0])).await.unwrap();
    // The answer to a ping does not wait for the hub.
    let mut answers = vec![];
    for _ in 0..6 {
        answers.push(answer(&mut socket).await[0]);
    }
    answers.sort_unstable();
    assert_eq!(answers, [0x40, 0x40, 0x40, 0x40, 0x40, 0xD0]);
    let admin = "Authorization: Bearer sesame\r\n";
    let (_, _, metrics) = send(&callbox, "GET", "/metrics", admin, "").await;
    // CONNECT, five PUBLISH and PINGREQ.
    let line = "callbox_signal_dialect_messages_total{dialect=\"mqtt\",direction=\"received\"} 7\n";
    assert!(metrics.contains(line), "{metrics}");
}
