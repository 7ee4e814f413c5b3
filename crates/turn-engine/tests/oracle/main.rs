//! The same requests to this engine and to `turn::server` 0.17.2: what both answer alike, and every
//! difference with the section that decides it. docs/conformance.md has the table for readers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod client;
#[allow(dead_code, reason = "its program is not run here")]
#[path = "../../examples/two_sockets.rs"]
mod example;
mod payload;
mod tables;

use client::{Client, UDP, bind, outcome, peer, request};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stun::attributes::*;
use stun::message::*;
use tables::{ALIKE, DIFFERENCES};
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use turn_engine::credential::{Credential, TurnSecrets};
use webrtc_util::vnet::net::Net;

/// How long an answer may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

struct OneUser(Credential);

impl AuthHandler for OneUser {
    fn auth_handle(
        &self,
        username: &str,
        realm: &str,
        _: SocketAddr,
    ) -> Result<Vec<u8>, turn::Error> {
        match username == self.0.username {
            true => Ok(generate_auth_key(username, realm, &self.0.password)),
            false => Err(turn::Error::ErrFakeErr),
        }
    }
}

/// Every script by its name, against one server.
fn outcomes(server: SocketAddr, good: &Credential) -> Vec<(&'static str, String)> {
    let mut all = vec![];
    let new = || Client::new(server, good);
    let challenged = || Client::challenged(server, good);
    let allocated = || Client::allocated(server, good);
    let somebody: SocketAddr = "127.0.0.1:9".parse().unwrap();

    let binding = request(METHOD_BINDING, &[]);
    all.push(("Binding", outcome(new().exchange(&binding.raw))));
    let unknown = request(METHOD_BINDING, &[(AttrType(0x7001), b"")]);
    all.push((
        "Binding with an unknown required attribute",
        outcome(new().exchange(&unknown.raw)),
    ));
    let classic = [&[0, 1, 0, 0][..], &[7; 16]].concat();
    all.push(("Binding of RFC 3489", outcome(new().exchange(&classic))));
    let mut wrong = request(METHOD_BINDING, &[(ATTR_FINGERPRINT, &[1, 2, 3, 4])]);
    wrong.write_header();
    all.push((
        "Binding with a wrong FINGERPRINT",
        outcome(new().exchange(&wrong.raw)),
    ));

    let anonymous = request(METHOD_ALLOCATE, &[UDP]);
    all.push((
        "Allocate without credentials",
        outcome(new().exchange(&anonymous.raw)),
    ));
    let anonymous = request(METHOD_REFRESH, &[]);
    all.push((
        "Refresh without credentials",
        outcome(new().exchange(&anonymous.raw)),
    ));
    let allocate =
        |attributes: &[(AttrType, &[u8])]| challenged().ask(request(METHOD_ALLOCATE, attributes));
    all.push(("Allocate", allocate(&[UDP])));
    all.push((
        "Allocate for 100 s",
        allocate(&[UDP, (ATTR_LIFETIME, &[0, 0, 0, 100])]),
    ));
    all.push((
        "Allocate for a day",
        allocate(&[UDP, (ATTR_LIFETIME, &86_400_u32.to_be_bytes())]),
    ));
    all.push(("Allocate without REQUESTED-TRANSPORT", allocate(&[])));
    all.push((
        "Allocate for TCP",
        allocate(&[(ATTR_REQUESTED_TRANSPORT, &[6, 0, 0, 0])]),
    ));
    all.push((
        "Allocate with an unknown required attribute",
        allocate(&[UDP, (AttrType(0x7001), b"")]),
    ));
    all.push((
        "Allocate of a family that is not served",
        allocate(&[UDP, (ATTR_REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])]),
    ));
    all.push((
        "Allocate with an even port",
        allocate(&[UDP, (ATTR_EVEN_PORT, &[0])]),
    ));
    all.push((
        "Allocate with a reservation that is not there",
        allocate(&[UDP, (ATTR_RESERVATION_TOKEN, &[7; 8])]),
    ));
    all.push((
        "Allocate with DONT-FRAGMENT",
        allocate(&[UDP, (ATTR_DONT_FRAGMENT, b"")]),
    ));
    let mut stranger = challenged();
    stranger.credential.password = "wrong".into();
    all.push((
        "Allocate with a wrong password",
        stranger.ask(request(METHOD_ALLOCATE, &[UDP])),
    ));
    let mut stranger = challenged();
    stranger.credential.username = "nobody".into();
    all.push((
        "Allocate of an unknown user",
        stranger.ask(request(METHOD_ALLOCATE, &[UDP])),
    ));
    let mut stale = challenged();
    stale.nonce = "made up".into();
    all.push((
        "Allocate with a made-up nonce",
        stale.ask(request(METHOD_ALLOCATE, &[UDP])),
    ));

    let client = challenged();
    let first = client.sign(request(METHOD_ALLOCATE, &[UDP]));
    assert!(outcome(client.exchange(&first.raw)).starts_with("success"));
    all.push((
        "Allocate retransmitted",
        outcome(client.exchange(&first.raw)),
    ));
    all.push((
        "Allocate again",
        client.ask(request(METHOD_ALLOCATE, &[UDP])),
    ));

    let client = allocated();
    all.push(("Refresh", client.ask(request(METHOD_REFRESH, &[]))));
    all.push((
        "Refresh for 100 s",
        client.ask(request(METHOD_REFRESH, &[(ATTR_LIFETIME, &[0, 0, 0, 100])])),
    ));
    all.push((
        "Refresh for 0 s",
        client.ask(request(METHOD_REFRESH, &[(ATTR_LIFETIME, &[0; 4])])),
    ));
    all.push((
        "Refresh without an allocation",
        client.ask(request(METHOD_REFRESH, &[])),
    ));

    let permit = |peers: &[&str]| {
        let mut permission = request(METHOD_CREATE_PERMISSION, &[]);
        for address in peers {
            peer(&mut permission, address.parse().unwrap());
        }
        allocated().ask(permission)
    };
    all.push(("CreatePermission", permit(&["127.0.0.1:9"])));
    all.push(("CreatePermission without a peer", permit(&[])));
    all.push(("CreatePermission of another family", permit(&["[::1]:9"])));
    all.push((
        "CreatePermission of a private address",
        permit(&["10.0.0.1:9"]),
    ));
    let mut orphan = request(METHOD_CREATE_PERMISSION, &[]);
    peer(&mut orphan, somebody);
    all.push((
        "CreatePermission without an allocation",
        challenged().ask(orphan),
    ));

    let client = allocated();
    all.push(("ChannelBind", bind(&client, 0x4000, somebody)));
    all.push(("ChannelBind again", bind(&client, 0x4000, somebody)));
    all.push((
        "ChannelBind of a number to another peer",
        bind(&client, 0x4000, "127.0.0.1:10".parse().unwrap()),
    ));
    all.push((
        "ChannelBind of a peer to another number",
        bind(&client, 0x4001, somebody),
    ));
    all.push((
        "ChannelBind of number 0x3fff",
        bind(&client, 0x3fff, "127.0.0.1:11".parse().unwrap()),
    ));
    all.push((
        "ChannelBind of port 0",
        bind(&client, 0x4002, "127.0.0.1:0".parse().unwrap()),
    ));
    all.push((
        "ChannelBind without an allocation",
        bind(&challenged(), 0x4000, somebody),
    ));

    all.extend(payload::outcomes(server, good));
    all
}

fn serve_example(secret: &'static str) -> (SocketAddr, impl FnOnce()) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let go_on = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&go_on);
    let serving = std::thread::spawn(move || {
        example::serve(&server, secret, || asked.load(Ordering::Relaxed)).unwrap();
    });
    let stop = move || {
        go_on.store(false, Ordering::Relaxed);
        serving.join().unwrap();
    };
    (address, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_answer_alike_but_where_the_table_says_why() {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
    let credential = secrets.mint("alice", unix.as_secs() + 3_600);
    let (ours, stop) = serve_example("north");

    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let theirs = socket.local_addr().unwrap();
    let server = Server::new(ServerConfig {
        conn_configs: vec![ConnConfig {
            conn: Arc::new(socket),
            relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                relay_address: theirs.ip(),
                address: theirs.ip().to_string(),
                net: Arc::new(Net::new(None)),
            }),
        }],
        realm: "example.org".into(),
        auth_handler: Arc::new(OneUser(credential.clone())),
        channel_bind_timeout: Duration::from_secs(600),
        alloc_close_notify: None,
    });
    let server = server.await.unwrap();

    let (ours, theirs) = tokio::task::spawn_blocking(move || {
        (outcomes(ours, &credential), outcomes(theirs, &credential))
    })
    .await
    .unwrap();
    stop();
    server.close().await.unwrap();

    for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let alike = ALIKE.iter().find(|(alike, _)| alike == name);
        let expected = match alike {
            Some((_, both)) => Some((*both, *both)),
            None => (DIFFERENCES.iter().find(|(differs, ..)| differs == name))
                .map(|(_, ours, theirs, _)| (*ours, *theirs)),
        };
        assert_eq!(Some((ours.as_str(), theirs.as_str())), expected, "{name}");
    }
    assert_eq!(ours.len(), ALIKE.len() + DIFFERENCES.len());
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    for (name, ours, theirs, rule) in DIFFERENCES {
        let row = format!("| {name} | {ours} | {theirs} | {rule} |");
        assert!(table.contains(&row), "docs/conformance.md lacks {row}");
    }
    assert!(DIFFERENCES.iter().all(|(.., rule)| !rule.is_empty()));
}
