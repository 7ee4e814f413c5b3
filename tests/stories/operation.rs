//! Running the box: what a reload changes under a call, what signals do, what the doctor says.

use crate::harness::{Callbox, Client, Process, Reachable, TIMEOUT};
use crate::turn_client;
use callbox::auth::Bearer;
use callbox::auth::credential::TurnSecrets;
use callbox::cli::{DoctorArgs, Source, doctor};
use callbox::clock::unix_now;
use callbox::config::Config;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

pub fn config(toml: &str) -> Config {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, toml.as_bytes()).unwrap();
    Config::load(Some(file.path()), std::iter::empty()).unwrap()
}

/// The doctor's report on `callbox`, as seen by who holds `config`.
async fn examine(callbox: &Callbox, config: &Config) -> Value {
    asked(callbox, config, false).await
}

async fn asked(callbox: &Callbox, config: &Config, nat: bool) -> Value {
    let args = DoctorArgs {
        textfile: None,
        source: Source { config: None },
        url: Some(format!("http://{}", callbox.http())),
        token: None,
        nat,
        json: true,
    };
    let (text, _) = doctor(&args, Some(config), unix_now()).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

fn findings(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["status"] == "failed");
    failed
        .map(|check| check["finding"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_no_nat_where_there_is_none() {
    let callbox = Callbox::start("").await;
    let report = asked(&callbox, &config(""), true).await;
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 1, "{report}");
    assert_eq!(checks[0]["check"], "NAT IPv4");
    let detail = checks[0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("none (no NAT, "), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_keys_and_secrets_under_an_open_session() {
    let before = "[turn]\nsecrets = [\"north\"]";
    let after = "[auth]\nmode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                 [turn]\nsecrets = [\"south\"]\nrealm = \"elsewhere\"";
    let callbox = Callbox::start(before).await;
    let (mut client, _) = Client::join(&callbox, "room", "alice").await;
    let report = examine(&callbox, &config(before)).await;
    assert_eq!(report["ok"], true, "{report}");

    let waiting = callbox.reload(config(after));
    assert!(waiting.contains(&"turn.realm".to_owned()), "{waiting:?}");
    let started = Instant::now();
    loop {
        let report = examine(&callbox, &config(after)).await;
        if report["ok"] == true {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "{report}");
    }
    let report = examine(&callbox, &config(before)).await;
    let checks = report["checks"].as_array().unwrap();
    let asks_for_token = |check: &Value| check["finding"] == "token-needed";
    assert!(checks.iter().any(asks_for_token), "{report}");
    let mut newcomer = Client::connect(&callbox).await;
    let join = json!({"type": "join", "roomId": "room"});
    assert_eq!(newcomer.refused(join).await, "unauthorized");
    let pong = client.request(json!({"type": "ping"})).await;
    assert_eq!(pong["type"], "pong", "who is in stays in");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_secret_that_the_box_does_not_have() {
    let callbox = Callbox::start("[turn]\nsecrets = [\"north\"]").await;
    let report = examine(&callbox, &config("[turn]\nsecrets = [\"south\"]")).await;
    assert_eq!(findings(&report), ["secret-mismatch"], "{report}");
    let fix = report["checks"].as_array().unwrap().last().unwrap()["fix"].as_str();
    assert!(fix.unwrap().contains("systemctl reload"), "{report}");
}

#[tokio::test]
async fn the_doctor_without_a_token_accuses_no_box_and_names_a_bad_one() {
    let toml = "[auth]\nmode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"";
    let callbox = Callbox::start(toml).await;
    let examine = async |token: Option<&str>| {
        let args = DoctorArgs {
            textfile: None,
            source: Source { config: None },
            url: Some(format!("http://{}", callbox.http())),
            token: token.map(str::to_owned),
            nat: false,
            json: true,
        };
        let (text, is_healthy) = doctor(&args, None, unix_now()).await.unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        let found = checks.filter_map(|check| check["finding"].as_str().map(str::to_owned));
        (is_healthy, found.collect::<Vec<_>>())
    };
    assert_eq!(examine(None).await, (true, vec!["token-needed".to_owned()]));
    let garbage = examine(Some("sesame")).await;
    assert_eq!(garbage, (false, vec!["token-malformed".to_owned()]));
    let other = "[auth]\nmode = \"jwt\"\nsecret = \"another-secret-0123456789abcdef01\"";
    let bearer = Bearer {
        identity: "doctor".into(),
        rooms: vec!["doctor-*".into()],
        role: None,
        call: None,
        login: None,
    };
    let signer = config(other).auth.signer.unwrap();
    let (token, _) = signer.sign(&bearer, unix_now(), TIMEOUT);
    let forged = examine(Some(&token)).await;
    assert_eq!(forged, (false, vec!["token-refused".to_owned()]));
    let (token, _) = signer.sign(&bearer, unix_now() - 3600, TIMEOUT);
    assert_eq!(examine(Some(&token)).await.1, ["token-refused"]);
    let own = config(toml).auth.signer.unwrap();
    let (token, _) = own.sign(&bearer, unix_now() - 3600, TIMEOUT);
    assert_eq!(examine(Some(&token)).await.1, ["token-expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_drain_at_once_and_cleanly() {
    let mut process = Process::start(&[("CALLBOX_DRAIN__GRACE", "10m")]);
    let (mut client, _) = Client::join(&process, "room", "alice").await;
    process.signal("TERM");
    client.expect("draining").await;
    assert_eq!(process.exit_code_so_far(), None, "it waits for the call");
    process.signal("TERM");
    assert_eq!(client.closed().await, CloseCode::Away);
    assert_eq!(process.exit_code(), Some(0));
}

fn is_ready(http: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(http).unwrap();
    let request = b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.split(' ').nth(1) == Some("200")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_relays_of_other_programs() {
    let mut process = Process::start(&[
        ("CALLBOX_DRAIN__GRACE", "10m"),
        ("CALLBOX_TURN__SECRETS", "north"),
        ("CALLBOX_TURN__ALLOWED_PEERS", "127.0.0.0/8"),
    ]);
    let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
    let credential = secrets.mint("elsewhere", unix_now() + 3_600);
    let turn = process.turn();
    let released = tokio::task::spawn_blocking(move || {
        let mut turn = turn_client::udp(turn, credential);
        let relayed = turn.allocate().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        turn.bind(0x4000, peer.local_addr().unwrap()).unwrap();
        process.signal("TERM");
        while is_ready(process.http()) {}
        assert_eq!(process.exit_code_so_far(), None, "the relay is in use");
        peer.send_to(b"hello", relayed).unwrap();
        assert_eq!(turn.receive_channel(), (0x4000, b"hello".to_vec()));
        turn.release().unwrap();
        assert_eq!(process.exit_code(), Some(0));
    });
    timeout(TIMEOUT, released).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_the_end_of_the_grace() {
    let mut process = Process::start(&[("CALLBOX_DRAIN__GRACE", "1s")]);
    let mut clients = vec![];
    for n in 0..300 {
        clients.push(
            Client::join(&process, &format!("room {n}"), "alice")
                .await
                .0,
        );
    }
    process.signal("TERM");
    for mut client in clients {
        client.expect("draining").await;
        client.until("peer-left").await;
        assert_eq!(client.closed().await, CloseCode::Away);
    }
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn the_configurations_of_the_deployment_guide_are_valid() {
    let guide = include_str!("../../docs/deploy.md");
    let blocks = guide.split("```toml\n").skip(1);
    let mut count = 0;
    for block in blocks.map(|rest| rest.split("```").next().unwrap()) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, block.as_bytes()).unwrap();
        // What the package's own file adds.
        let env = [
            ("CALLBOX_PUBLIC__HOST", "call.example.org"),
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("CALLBOX_TURN__SECRETS", "north"),
            ("CALLBOX_TLS__ACME__EMAIL", "ops@example.org"),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
        if let Err(error) = Config::load(Some(file.path()), env.into_iter()) {
            panic!("{error}\n{block}");
        }
        count += 1;
    }
    assert!(count > 5);
}

/// There, one thread does all that is not relayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_on_one_core_serves_relays_and_drains() {
    let mut process = Process::start_on_one_core(&[
        ("CALLBOX_TURN__SECRETS", "north"),
        ("CALLBOX_DRAIN__GRACE", "10m"),
    ]);
    let (mut ann, _) = Client::join(&process, "r", "ann").await;
    let (mut bob, _) = Client::join(&process, "r", "bob").await;
    ann.until("peer-joined").await;
    for n in 0..100 {
        ann.send(json!({"type": "message", "content": n})).await;
        assert_eq!(bob.until("message").await["content"], n);
        bob.send(json!({"type": "message", "content": n})).await;
        assert_eq!(ann.until("message").await["content"], n);
    }
    let server = process.turn();
    let allocate = move || {
        let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
        let mut client = turn_client::udp(server, secrets.mint("cam", unix_now() + 3_600));
        client.allocate().unwrap();
    };
    tokio::task::spawn_blocking(allocate).await.unwrap();
    process.signal("TERM");
    ann.until("draining").await;
    process.signal("TERM");
    assert_eq!(ann.closed().await, CloseCode::Away);
    let ended = tokio::task::spawn_blocking(move || process.exit_code());
    assert_eq!(timeout(TIMEOUT, ended).await.unwrap().unwrap(), Some(0));
}
