//! People who log in, and programs with a fixed TURN password.

use crate::harness::{Callbox, Client, Process, TIMEOUT};
use crate::http::{json, send};
use crate::operation::config;
use crate::turn_client;
use callbox::auth::credential::Credential;
use callbox::auth::passwords;
use callbox::config::Config;
use serde_json::json as value;
use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn people() -> String {
    let hash = passwords::hash("sesame", [7; 16]);
    format!("[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n[auth.users]\nann = {hash:?}\n")
}

async fn log_in(callbox: &Callbox, name: &str, password: &str) -> (u16, String, String) {
    let body = value!({"name": name, "password": password}).to_string();
    send(callbox, "POST", "/v1/login", "", &body).await
}

#[tokio::test]
async fn a_person_logs_in_and_joins_under_its_name() {
    let callbox = Callbox::start(&people()).await;
    let (status, _, body) = log_in(&callbox, "ann", "sesame").await;
    assert_eq!(status, 200, "{body}");
    let answer = json(&body);
    let mut client = Client::connect(&callbox).await;
    let join =
        value!({"type": "join", "roomId": "any", "identity": "eve", "token": answer["token"]});
    let joined = client.request(join).await;
    assert_eq!(
        (&joined["type"], &joined["identity"]),
        (&value!("joined"), &value!("ann"))
    );
    for (name, password) in [("ann", "sesam"), ("bob", "sesame")] {
        let (status, _, body) = log_in(&callbox, name, password).await;
        assert_eq!(
            (status, &json(&body)["code"]),
            (401, &value!("bad-password"))
        );
    }
    for body in ["", "{}", "{\"name\": 1, \"password\": \"x\"}"] {
        assert_eq!(send(&callbox, "POST", "/v1/login", "", body).await.0, 400);
    }
    let shown = send(&callbox, "GET", "/v1/login", "", "").await.2;
    assert_eq!(json(&shown), value!({"login": true}));
}

#[tokio::test]
async fn guesses_are_limited_and_a_box_without_people_has_no_login() {
    let callbox = Callbox::start(&people()).await;
    for _ in 0..10 {
        assert_eq!(log_in(&callbox, "ann", "wrong").await.0, 401);
    }
    let (status, head, _) = log_in(&callbox, "ann", "sesame").await;
    assert_eq!(status, 429);
    assert!(head.to_lowercase().contains("retry-after:"), "{head}");

    let without = Callbox::start("").await;
    assert_eq!(log_in(&without, "ann", "sesame").await.0, 404);
    let shown = send(&without, "GET", "/v1/login", "", "").await.2;
    assert_eq!(json(&shown), value!({"login": false}));
}

#[tokio::test]
async fn who_is_removed_is_out_with_the_token_of_the_login_too() {
    let callbox = Callbox::start(&people()).await;
    let (_, _, body) = log_in(&callbox, "ann", "sesame").await;
    let join = value!({"type": "join", "roomId": "any", "token": json(&body)["token"]});
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.request(join.clone()).await["identity"], "ann");

    // Another password ends what the old one began, as a removal does.
    let hash = passwords::hash("sesame", [8; 16]);
    let after =
        format!("[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n[auth.users]\nann = {hash:?}\n");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(after.as_bytes()).unwrap();
    callbox.reload(Config::load(Some(file.path()), std::iter::empty()).unwrap());
    client.until("kicked").await;
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.refused(join).await, "unauthorized");
    let (status, _, body) = log_in(&callbox, "ann", "sesame").await;
    assert_eq!(status, 200, "{body}");
    let join = value!({"type": "join", "roomId": "any", "token": json(&body)["token"]});
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.request(join).await["identity"], "ann");
}

/// `--nocapture` shows how long it took.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "it measures, too")]
async fn a_fixed_password_relays_until_a_reload_removes_it() {
    let mut users = tempfile::NamedTempFile::new().unwrap();
    const LINE: &[u8] = b"cam = \"sesame of 16 bytes\"\n";
    users.write_all(LINE).unwrap();
    let path = users.path().display().to_string();
    let process = Process::start(&[
        ("CALLBOX_TURN__USERS_FILE", &path),
        ("CALLBOX_TURN__ALLOWED_PEERS", "127.0.0.0/8"),
        ("CALLBOX_AUTH__ADMIN_TOKEN", "sesame"),
    ]);
    let server = process.turn();
    let credential = || Credential {
        username: "cam".into(),
        password: "sesame of 16 bytes".into(),
    };
    let allows = move || turn_client::udp(server, credential()).allocate();
    let story = move || {
        // A busy machine may be late once; what waits for a timer is late each time.
        for attempt in 1..=5 {
            let mut turn = turn_client::udp(server, credential());
            let relayed = turn.allocate().unwrap();
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            turn.bind(0x4000, peer.local_addr().unwrap()).unwrap();
            peer.send_to(b"hello", relayed).unwrap();
            assert_eq!(turn.receive_channel(), (0x4000, b"hello".to_vec()));

            users.as_file().set_len(0).unwrap();
            let began = Instant::now();
            process.signal("HUP");
            let mut last = began;
            let mut received = [0; 16];
            peer.set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            loop {
                turn.send_channel(0x4000, b"still there?");
                if peer.recv(&mut received).is_ok() {
                    last = Instant::now();
                } else if allows() == Err(401) {
                    break;
                }
                assert!(began.elapsed() < TIMEOUT, "the relay lives on");
            }
            println!("the relay went on for {:.1?} after SIGHUP", last - began);
            if last - began < Duration::from_secs(1) {
                return drop(process);
            }
            assert!(attempt < 5, "no removal takes effect within a second");
            std::fs::write(users.path(), LINE).unwrap();
            process.signal("HUP");
            let deadline = Instant::now() + TIMEOUT;
            while allows().is_err() {
                assert!(Instant::now() < deadline, "the user is not back");
            }
        }
    };
    tokio::task::spawn_blocking(story).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_password_that_an_operator_revokes_is_refused_until_it_is_another() {
    let toml = |password: &str| {
        format!("[auth]\nadmin_token = \"sesame\"\n[turn.users]\ncam = \"{password}\"\n")
    };
    let callbox = Callbox::start(&toml("sesame of 16 bytes")).await;
    let server = callbox.udp[0];
    let allocates = async move |password: &'static str| {
        let credential = Credential {
            username: "cam".into(),
            password: password.into(),
        };
        let allocate = move || turn_client::udp(server, credential).allocate().map(drop);
        tokio::task::spawn_blocking(allocate).await.unwrap()
    };
    assert_eq!(allocates("sesame of 16 bytes").await, Ok(()));
    let head = "Authorization: Bearer sesame\r\n";
    let (status, ..) = send(&callbox, "DELETE", "/v1/relays/cam", head, "").await;
    assert_eq!(status, 204);
    assert_eq!(allocates("sesame of 16 bytes").await, Err(401));
    callbox.reload(config(&toml("sesame of 16 bytes")));
    assert_eq!(allocates("sesame of 16 bytes").await, Err(401));
    callbox.reload(config(&toml("another of 17 bytes")));
    let deadline = Instant::now() + TIMEOUT;
    while allocates("another of 17 bytes").await != Ok(()) {
        assert!(Instant::now() < deadline, "the new password is refused");
    }
}

#[tokio::test]
async fn metrics_do_not_name_users() {
    let callbox = Callbox::start(
        "[turn.users]\ncamera-at-the-door = \"sesame of 16 bytes\"\n[auth]\nadmin_token = \"sesame\"",
    )
    .await;
    let server = callbox.udp[0];
    let relay = move || {
        let credential = Credential {
            username: "camera-at-the-door".into(),
            password: "sesame of 16 bytes".into(),
        };
        let mut turn = turn_client::udp(server, credential);
        turn.allocate().unwrap();
        turn
    };
    let _turn = tokio::task::spawn_blocking(relay).await.unwrap();
    let token = "Authorization: Bearer sesame\r\n";
    let relays = send(&callbox, "GET", "/v1/relays", token, "").await.2;
    assert!(relays.contains("camera-at-the-door"), "{relays}");
    let metrics = send(&callbox, "GET", "/metrics", token, "").await.2;
    assert!(!metrics.contains("camera"), "{metrics}");
}
