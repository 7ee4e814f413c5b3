//! TCP and TLS clients.

use crate::client::{self, Client, Framed, Link};
use crate::relay::{Relay, SOON, echo, provider};
use callbox::auth::credential::Credential;
use callbox::relay::ClientStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Instant;
use stun::message::{CLASS_SUCCESS_RESPONSE, Message};
use tokio::io::AsyncReadExt;

type TlsLink = Framed<StreamOwned<ClientConnection, TcpStream>>;

fn tls(relay: &Relay, credential: Credential) -> Client<TlsLink> {
    let mut roots = RootCertStore::empty();
    roots.add(relay.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = StreamOwned::new(session, client::tcp_stream(relay.tls));
    Client::new(Framed::new(stream), credential)
}

fn relays_both_ways<L: Link>(mut client: Client<L>) {
    let mapped = client.binding();
    assert!(mapped.ip().is_loopback());
    client.allocate().unwrap();
    let peer = echo("127.0.0.1");
    client.bind(0x4007, peer).unwrap();
    for length in [1, 2, 3, 4, 1200, 16_383, 65_000] {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        client.send_channel(0x4007, &payload);
        assert_eq!(client.receive_channel(), (0x4007, payload));
    }
    client.release().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_relay_both_ways() {
    let relay = Relay::start(2);
    relays_both_ways(client::tcp(relay.tcp, relay.credential("alice")));
    relays_both_ways(tls(&relay, relay.credential("bob")));
    let stats = relay.eventually(|stats| stats.streams == 0).await;
    assert_eq!((stats.io.streams_opened, stats.io.streams_closed), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_way_of_cutting_a_stream_relays_the_same() {
    let relay = Relay::start(1);
    let mut client = client::tcp(relay.tcp, relay.credential("alice"));
    client.allocate().unwrap();
    let peer = echo("127.0.0.1");
    client.bind(0x4000, peer).unwrap();
    let payloads: Vec<Vec<u8>> = (0..40_u8).map(|i| vec![i; usize::from(i) * 7]).collect();
    let mut stream = vec![];
    for payload in &payloads {
        stream.extend(client::channel_data(0x4000, payload));
        stream.resize(stream.len().next_multiple_of(4), 0);
    }
    for piece in [1, 3, 5, 17, 1000, stream.len()] {
        for bytes in stream.chunks(piece) {
            client.link.stream.write_all(bytes).unwrap();
        }
        for payload in &payloads {
            assert_eq!(client.receive_channel(), (0x4000, payload.clone()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_again_receives_again() {
    let relay = Relay::start(1);
    let mut client = client::tcp(relay.tcp, relay.credential("alice"));
    let relayed = client.allocate().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    // Until nothing more is taken for it.
    let deadline = Instant::now() + SOON;
    while relay.stats().await.io.slow_reader == 0 {
        assert!(Instant::now() < deadline);
        for _ in 0..100 {
            peer.send_to(&[0; 1200], relayed).unwrap();
        }
    }
    loop {
        peer.send_to(b"still there?", relayed).unwrap();
        if client.receive_channel() == (0x4000, b"still there?".to_vec()) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_turn_is_closed_at_once() {
    let relay = Relay::start(1);
    for greeting in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
        b"\xff",
        b"GET / HTTP",
    ] {
        let mut stream = client::tcp_stream(relay.tcp);
        stream.write_all(greeting).unwrap();
        // Either end of file or a reset: the box has not read all of it.
        let ended = stream.read(&mut [0; 8]).map_err(|error| error.kind());
        assert!(
            matches!(ended, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)),
            "{ended:?}"
        );
    }
    relay
        .eventually(|stats| stats.io.streams_refused == 3 && stats.streams == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_stream_is_the_end_of_its_allocation() {
    let relay = Relay::start(2);
    for ending in 0..3 {
        let opened = relay.stats().await.engine.allocations_opened;
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let mut client = client::tcp(relay.tcp, relay.credential("alice"));
                client.allocate().unwrap();
                client.link.stream
            })
            .collect();
        let stats = relay.stats().await;
        assert_eq!(
            (stats.streams, stats.engine.allocations_opened),
            (50, opened + 50)
        );
        for stream in clients {
            match ending {
                0 => drop(stream),
                1 => stream.shutdown(Shutdown::Write).unwrap(),
                // As when the process is killed with unread data: a reset.
                _ => socket2::SockRef::from(&stream)
                    .set_linger(Some(std::time::Duration::ZERO))
                    .unwrap(),
            }
        }
        relay
            .eventually(|stats| {
                stats.streams == 0 && stats.engine.allocations_closed == opened + 50
            })
            .await;
    }
    let mut client = tls(&relay, relay.credential("alice"));
    client.allocate().unwrap();
    drop(client);
    relay.eventually(|stats| stats.streams == 0).await;
    assert!(relay.handle.allocations().await.is_empty());
}

/// Whether one message, that of a success, answers `request`.
fn answers(bytes: &[u8], request: &Message) -> bool {
    let mut response = Message::new();
    response.unmarshal_binary(bytes).is_ok()
        && response.typ.class == CLASS_SUCCESS_RESPONSE
        && response.transaction_id == request.transaction_id
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_answered_wherever_they_were_read() {
    let relay = Relay::start(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    // For a channel that there is not: it is dropped.
    let chatter = client::channel_data(0x4000, &[0; 1000]).repeat(40);
    let request = client::binding_request();
    let length = request.raw.len();
    for (chatter, read_before) in [(&[][..], length), (&chatter, 0), (&chatter, 3)] {
        let words = [chatter, &request.raw].concat();
        let story = tokio::task::spawn_blocking(move || {
            let mut client = client::tcp_stream(server);
            client.write_all(&words).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut received = vec![];
            client.read_to_end(&mut received).unwrap();
            received
        });
        let (mut socket, peer) = listener.accept().await.unwrap();
        let mut prefix = vec![0; read_before];
        socket.read_exact(&mut prefix).await.unwrap();
        let stream = ClientStream::tcp(socket).unwrap();
        relay.handle.serve_stream(stream, peer, server, &prefix);
        assert!(answers(&story.await.unwrap(), &request));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_over_tls_are_answered() {
    let relay = Relay::start(1);
    let Framed { mut stream, .. } = tls(&relay, relay.credential("alice")).link;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    // Words and goodbye in one write.
    let request = client::binding_request();
    stream.conn.writer().write_all(&request.raw).unwrap();
    stream.conn.send_close_notify();
    stream.conn.write_tls(&mut stream.sock).unwrap();
    let mut received = vec![];
    stream.read_to_end(&mut received).unwrap();
    assert!(answers(&received, &request));
    relay.eventually(|stats| stats.streams == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_accepted_elsewhere_is_served_with_what_was_read_of_it() {
    let relay = Relay::start(2);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let credential = relay.credential("alice");
    let story = tokio::task::spawn_blocking(move || {
        relays_both_ways(client::tcp(server, credential));
    });
    let (mut socket, peer) = listener.accept().await.unwrap();
    let mut prefix = [0; 3];
    socket.read_exact(&mut prefix).await.unwrap();
    let stream = ClientStream::tcp(socket).unwrap();
    relay.handle.serve_stream(stream, peer, server, &prefix);
    story.await.unwrap();
}
