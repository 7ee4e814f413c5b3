use super::*;
use crate::net::Identity;
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
            tls: None,
            proxies: proxies.iter().map(|net| net.parse().unwrap()).collect(),
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
            proxies: vec![],
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
        let mut heard = vec![0; said.len()];
        plain(&mut accepted).read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
    }
    for said in [&[0x40, 0, 0, 4][..], &[0x16, 3, 1], b"\r\n"] {
        assert!(is_closed(&mut port.say(said).await).await, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_dropped_after_ten_seconds() {
    // The second one dies in the middle of a TLS handshake.
    for (port, said) in [
        (Port::open(&[]).await, &b""[..]),
        (Port::open_tls().await, &[0x16, 3, 1, 2, 0, 1]),
    ] {
        let began = Instant::now();
        let mut silent = port.say(said).await;
        assert!(is_closed(&mut silent).await);
        let waited = began.elapsed();
        assert!(waited >= GREETING_TIMEOUT && waited < 2 * GREETING_TIMEOUT);
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
    let mut heard = [0; 5];
    plain(&mut accepted).read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"GET /");
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
async fn a_crowd_of_silent_clients_keeps_nobody_out() {
    let mut port = Port::open(&[]).await;
    let mut crowd = vec![];
    for _ in 0..MAX_SILENT {
        crowd.push(TcpStream::connect(port.address).await.unwrap());
    }
    let _late = port.say(b"GET / HTTP/1.1\r\n").await;
    let accepted = port.accepted.recv().await.unwrap();
    assert_eq!(accepted.protocol, Protocol::Http1);
    assert!(is_closed(&mut crowd[0]).await, "the oldest made room");
}

#[tokio::test]
async fn who_opens_many_makes_room_for_who_opens_one() {
    let mut port = Port::open(&[]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut slow = socket.connect(port.address).await.unwrap();
    let mut crowd = vec![];
    for _ in 0..MAX_SILENT {
        crowd.push(TcpStream::connect(port.address).await.unwrap());
    }
    assert!(is_closed(&mut crowd[0]).await, "not the oldest of all");
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let accepted = port.accepted.recv().await.unwrap();
    assert_eq!(accepted.client, slow.local_addr().unwrap());
}
