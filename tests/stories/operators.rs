//! Operators with names and scopes, clients that are refused, and addresses that are not kept.

use crate::harness::{Callbox, Client, Process, Reachable, TIMEOUT};
use crate::hooks::{self, Backend};
use crate::http::{json, send};
use crate::turn_client;
use callbox::auth::credential::TurnSecrets;
use serde_json::{Value, json as value};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const TOKENS: &str = "[auth]\nmode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
    admin_token = \"root\"\n\
    [auth.admin_tokens.grafana]\ntoken = \"reads\"\nscope = \"read\"\n\
    [auth.admin_tokens.shift]\ntoken = \"acts\"\nscope = [\"read\", \"act\"]\n\
    [auth.admin_tokens.backend]\ntoken = \"mints\"\nscope = \"mint\"\n";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_and_each_act_is_one_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        // As the box writes: `journalctl -g audit` has to find the lines.
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let callbox = Callbox::start(TOKENS).await;
    let requests = [
        ("GET", "/v1/rooms", ""),
        ("DELETE", "/v1/rooms/none", ""),
        ("POST", "/v1/tokens", "{\"identity\": \"ann\"}"),
    ];
    for (token, expected) in [
        ("root", [200, 404, 200]),
        ("reads", [200, 403, 403]),
        ("acts", [200, 404, 403]),
        ("mints", [403, 403, 200]),
        ("wrong", [401, 401, 401]),
    ] {
        for ((method, path, body), expected) in requests.iter().zip(expected) {
            let (status, _, answer) = send(&callbox, method, path, &bearer(token), body).await;
            assert_eq!(status, expected, "{token} {method} {path}: {answer}");
        }
    }
    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let audit: Vec<_> = written
        .lines()
        .filter(|line| line.contains(" audit "))
        .collect();
    assert_eq!(audit.len(), 8, "{written}");
    let by_shift = audit.iter().find(|line| line.contains("token=\"shift\""));
    let line = by_shift.unwrap();
    assert!(
        line.contains("method=DELETE") && line.contains("/v1/rooms/none"),
        "{line}"
    );
    assert!(!written.contains("acts"), "no token is written");
}

/// A connection from an address of its own, or none where the box closes it.
async fn from(ip: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{ip}:0").parse().unwrap())?;
    let mut stream = socket.connect(to).await?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await?;
    match answer.is_empty() {
        true => Err(ErrorKind::ConnectionReset.into()),
        false => Ok(stream),
    }
}

async fn websocket_from(ip: &str, callbox: &impl Reachable) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(callbox.http()).await.unwrap();
    let url = format!("ws://{}/ws", callbox.http());
    Client::over(stream, &url).await.unwrap()
}

/// Binding requests from both addresses, the first of which may be left unanswered.
fn answers(server: SocketAddr, first: &str, second: &str) -> bool {
    let [first, second] = [first, second].map(|ip| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(server).unwrap();
        socket
    });
    let request = b"\0\x01\0\0\x21\x12\xa4\x42twelve bytes";
    let mut answer = [0; 200];
    second.set_read_timeout(Some(TIMEOUT)).unwrap();
    first.send(request).unwrap();
    second.send(request).unwrap();
    second.recv(&mut answer).unwrap();
    first.set_nonblocking(true).unwrap();
    // One worker answers in order.
    first.recv(&mut answer).is_ok()
}

/// A worker learns of it in its next turn, and may have read what came before that.
async fn until_answered(server: SocketAddr, ip: &'static str, expected: bool) {
    let ask = move || answers(server, ip, "127.0.0.3");
    let settled = async { while tokio::task::spawn_blocking(ask).await.unwrap() != expected {} };
    let waited = timeout(TIMEOUT, settled).await;
    waited.unwrap_or_else(|_| panic!("{ip} is answered: {expected} is what should be"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_refused_everywhere_for_as_long_as_it_is_said() {
    let callbox = Callbox::start(
        "[auth]\nadmin_token = \"root\"\n[turn]\nworkers = 1\nsecrets = [\"north\"]\n\
         [net]\ndenied_clients = [\"127.0.9.0/24\"]",
    )
    .await;
    let (http, udp, tcp) = (callbox.http(), callbox.udp[0], callbox.tcp[0]);
    let token = bearer("root");
    assert!(from("127.0.9.1", http).await.is_err(), "configured");
    assert!(from("127.0.0.2", http).await.is_ok());
    let mut member = websocket_from("127.0.0.2", &callbox).await;
    let joined = member
        .request(value!({"type": "join", "roomId": "r"}))
        .await;
    assert_eq!(joined["type"], "joined");
    let allocate = move || {
        let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
        let credential = secrets.mint("cam", 4_000_000_000);
        let ip = "127.0.0.2".parse().unwrap();
        let mut client = turn_client::udp_from(ip, udp, credential);
        client.allocate().unwrap();
    };
    tokio::task::spawn_blocking(allocate).await.unwrap();

    let path = "/v1/denied/127.0.0.2/32";
    assert_eq!(send(&callbox, "PUT", path, &token, "").await.0, 204);
    assert_eq!(member.closed().await, CloseCode::Library(4002));
    assert!(from("127.0.0.2", http).await.is_err());
    assert!(from("127.0.0.2", tcp).await.is_err());
    until_answered(udp, "127.0.0.2", false).await;
    let relays = json(&send(&callbox, "GET", "/v1/relays", &token, "").await.2);
    assert_eq!(relays["relays"], value!([]), "its relay has ended");
    let list = json(&send(&callbox, "GET", "/v1/denied", &token, "").await.2);
    let networks: Vec<_> = list["denied"].as_array().unwrap().iter().collect();
    assert_eq!(networks.len(), 2, "{list}");
    assert_eq!(
        (&networks[1]["network"], &networks[1]["expiresAt"]),
        (&value!("127.0.0.2/32"), &Value::Null)
    );

    assert_eq!(send(&callbox, "DELETE", path, &token, "").await.0, 204);
    assert_eq!(send(&callbox, "DELETE", path, &token, "").await.0, 404);
    assert!(from("127.0.0.2", http).await.is_ok());
    until_answered(udp, "127.0.0.2", true).await;

    // It ends by itself.
    let path = "/v1/denied/127.0.0.2?ttl=1";
    assert_eq!(send(&callbox, "PUT", path, &token, "").await.0, 204);
    let back = async {
        while from("127.0.0.2", http).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, back).await.unwrap();
    for bad in ["0.0.0.0/0", "nonsense", "127.0.0.2?ttl=never"] {
        let path = format!("/v1/denied/{bad}");
        assert_eq!(
            send(&callbox, "PUT", &path, &token, "").await.0,
            400,
            "{bad}"
        );
    }
    assert_eq!(send(&callbox, "PUT", path, "", "").await.0, 401);
}

/// Of a client at `127.0.77.7`: lines of the log about its WebSocket and its relay, a question to the
/// backend, and a row of the admin API.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_as_far_as_the_operator_wants() {
    const CLIENT: &str = "127.0.77.7";
    for (kept, in_log, in_question) in [
        ("full", "client=\"127.0.77.7", value!(CLIENT)),
        ("network", "client=\"127.0.77.0/24\"", value!("127.0.77.0")),
        ("none", "client=\"-\"", Value::Null),
    ] {
        let (backend, address) = Backend::start().await;
        let url = format!("http://{address}/authorize");
        let (mut process, log) = Process::start_with_log(&[
            ("NO_COLOR", "1"),
            ("CALLBOX_LOG__ADDRESSES", kept),
            ("CALLBOX_LOG__LEVEL", "debug"),
            ("CALLBOX_DRAIN__GRACE", "0s"),
            ("CALLBOX_AUTH__ADMIN_TOKEN", "root"),
            ("CALLBOX_TURN__SECRETS", "north"),
            ("CALLBOX_HOOKS__AUTHORIZE", &url),
            ("CALLBOX_HOOKS__SECRET", hooks::SECRET),
            ("CALLBOX_HOOKS__ALLOW_PRIVATE", "true"),
        ]);
        let server = process.turn();
        let allocate = move || {
            let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
            let credential = secrets.mint("cam", 4_000_000_000);
            let mut client = turn_client::udp_from(CLIENT.parse().unwrap(), server, credential);
            client.allocate().unwrap();
            client
        };
        let _client = tokio::task::spawn_blocking(allocate).await.unwrap();
        let mut member = websocket_from(CLIENT, &process).await;
        let join = value!({"type": "join", "roomId": "r"});
        assert_eq!(member.request(join).await["type"], "joined");
        assert_eq!(backend.question(0).await["ip"], in_question, "{kept}");
        let relays = send(&process, "GET", "/v1/relays", &bearer("root"), "")
            .await
            .2;
        let relays = json(&relays);
        let shown = relays["relays"][0]["client"].as_str().unwrap();
        assert!(in_log.contains(shown) || kept == "full", "{shown}");
        drop(member);

        process.signal("INT");
        let ended = tokio::task::spawn_blocking(move || process.exit_code());
        assert_eq!(ended.await.unwrap(), Some(0));
        let log: Vec<String> = tokio::task::spawn_blocking(move || log.iter().collect())
            .await
            .unwrap();
        let log = log.join("\n");
        for about in ["connection closed", "allocation opened"] {
            let line = log.lines().find(|line| line.contains(about));
            let line = line.unwrap_or_else(|| panic!("{kept}: {about} in {log}"));
            assert!(line.contains(in_log), "{kept}: {line}");
        }
        let whole = log.lines().filter(|line| line.contains(CLIENT)).count();
        assert_eq!(whole > 0, kept == "full", "{kept}: {log}");
        let network = log.lines().filter(|line| line.contains("127.0.77")).count();
        assert_eq!(network > 0, kept != "none", "{kept}: {log}");
    }
}
