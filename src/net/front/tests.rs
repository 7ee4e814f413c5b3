use super::*;
use crate::net::{ConnectionCaps, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A plain port on loopback, and what it hands over.
struct Port {
    address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    _stop: watch::Sender<bool>,
}

impl Port {
    async fn open(proxies: &[&str]) -> Self {
        Self::with(Front {
            trusted: proxies.iter().map(|net| net.parse().unwrap()).collect(),
            proxy_protocol: true,
            ..Front::plain(connections(1_000, 1_000))
        })
        .await
    }

    async fn open_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let store = CertStore::default();
        store.install(Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap());
        Self::with(Front {
            tls: Some(Arc::new(store)),
            ..Front::plain(connections(1_000, 1_000))
        })
        .await
    }

    async fn with(front: Front) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(front.serve(listener, stopped, move |accepted| {
            let _ = sender.send(accepted);
        }));
        Self {
            address,
            accepted,
            _stop: stop,
        }
    }

    async fn say(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

fn connections(per_network: u32, total: u32) -> Arc<Connections> {
    Connections::new(ConnectionCaps { per_network, total })
}

fn plain(accepted: &mut Accepted) -> &mut BufReader<TcpStream> {
    match &mut accepted.wire {
        Wire::Plain(stream) => stream,
        Wire::Tls(_) => panic!("the port is plain"),
    }
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn the_first_byte_decides_and_is_not_lost() {
    let mut port = Port::open(&[]).await;
    let cases = [
        (&b"GET / HTTP/1.1\r\n"[..], Protocol::Http1),
        (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], Protocol::Turn),
    ];
    for (said, protocol) in cases {
        let client = port.say(said).await;
        let mut accepted = port.accepted.recv().await.unwrap();
        assert_eq!(accepted.protocol, protocol);
        assert_eq!(accepted.client, client.local_addr().unwrap());
        assert_eq!(accepted.local, port.address);
        let mut received = vec![0; said.len()];
        plain(&mut accepted)
            .read_exact(&mut received)
            .await
            .unwrap();
        assert_eq!(received, said);
    }
    for said in [&[0x40, 0, 0, 4][..], &[0x16, 3, 1], b"\r\n"] {
        assert!(is_closed(&mut port.say(said).await).await, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_dropped_after_ten_seconds() {
    for port in [Port::open(&[]).await, Port::open_tls().await] {
        let began = Instant::now();
        let mut silent = port.say(b"").await;
        assert!(is_closed(&mut silent).await);
        let waited = began.elapsed();
        assert!(
            waited >= GREETING_TIMEOUT && waited < 2 * GREETING_TIMEOUT,
            "{waited:?}"
        );
    }
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_nobody_else_can() {
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\nGET /";
    let mut port = Port::open(&["127.0.0.0/8"]).await;
    let _client = port.say(header).await;
    let mut accepted = port.accepted.recv().await.unwrap();
    assert_eq!(accepted.client.to_string(), "192.0.2.1:1000");
    assert_eq!(accepted.local.to_string(), "198.51.100.2:443");
    let mut received = [0; 5];
    plain(&mut accepted)
        .read_exact(&mut received)
        .await
        .unwrap();
    assert_eq!(&received, b"GET /");
    assert!(
        is_closed(&mut port.say(b"GET / HTTP/1.1\r\n\r\n").await).await,
        "a trusted proxy has to send the header, or its clients could"
    );

    let mut untrusting = Port::open(&["10.0.0.0/8"]).await;
    let client = untrusting.say(header).await;
    let accepted = untrusting.accepted.recv().await.unwrap();
    assert_eq!(accepted.client, client.local_addr().unwrap());
    assert_eq!(
        accepted.protocol,
        Protocol::Http1,
        "`PROXY` is taken for a method"
    );
}

#[tokio::test]
async fn a_handshake_that_stops_in_the_middle_ends() {
    tokio::time::pause();
    let port = Port::open_tls().await;
    let began = Instant::now();
    let mut slow = port.say(&[0x16, 3, 1, 2, 0, 1]).await;
    assert!(is_closed(&mut slow).await);
    let waited = began.elapsed();
    assert!(waited >= HANDSHAKE_TIMEOUT && waited < 2 * HANDSHAKE_TIMEOUT);
}

#[tokio::test]
async fn thousands_may_be_silent_at_once_and_all_are_served() {
    let mut port = Port::with(Front::plain(connections(5_000, 5_000))).await;
    let mut herd = vec![];
    for _ in 0..1_500 {
        herd.push(TcpStream::connect(port.address).await.unwrap());
    }
    for client in &mut herd {
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    }
    for _ in 0..herd.len() {
        let accepted = port.accepted.recv().await.unwrap();
        assert_eq!(accepted.protocol, Protocol::Http1);
    }
}

#[tokio::test]
async fn a_connection_past_the_bound_is_closed_and_one_that_ends_makes_room() {
    let connections = connections(1_000, 2);
    let mut port = Port::with(Front::plain(Arc::clone(&connections))).await;
    let hello = b"GET / HTTP/1.1\r\n";
    let _one = port.say(hello).await;
    let _two = port.say(hello).await;
    let first = port.accepted.recv().await.unwrap();
    let _second = port.accepted.recv().await.unwrap();
    assert!(is_closed(&mut TcpStream::connect(port.address).await.unwrap()).await);
    drop(first);
    let _three = port.say(hello).await;
    let _third = port.accepted.recv().await.unwrap();
    assert_eq!(connections.total(), 2);
}
