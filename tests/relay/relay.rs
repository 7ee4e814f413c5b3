//! A relay for one story, and what the stories look at.

use callbox::auth::credential::{Credential, TurnSecrets};
use callbox::relay::engine::{PeerPolicy, Quotas, Settings};
use callbox::relay::shared::RelayAddress;
use callbox::relay::{ClientStream, Listeners, RelayConfig, RelayHandle, RelayStats};
use rustls::pki_types::PrivatePkcs8KeyDer;
use secrecy::SecretString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long something that is about to happen may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Relay {
    pub(crate) handle: Arc<RelayHandle>,
    _tasks: JoinSet<()>,
    pub(crate) udp: SocketAddr,
    pub(crate) udp_v6: SocketAddr,
    /// A second port of the address of `udp`.
    pub(crate) udp_second: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// What clients of `tls` trust.
    pub(crate) certificate: rustls::pki_types::CertificateDer<'static>,
    pub(crate) secrets: TurnSecrets,
}

impl Relay {
    pub(crate) fn start(workers: usize) -> Self {
        Self::coalescing(workers, Duration::from_micros(200))
    }

    /// Starts a relay whose workers pause for `coalesce` at most.
    pub(crate) fn coalescing(workers: usize, coalesce: Duration) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_v6 = UdpSocket::bind("[::1]:0").unwrap();
        let second = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_second = second.local_addr().unwrap();
        let (tcp, tls) = (listener(), listener());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let tls_config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let secrets = TurnSecrets::new(vec![SecretString::from("north")]).unwrap();
        let address = |ip: IpAddr| RelayAddress {
            bind: ip,
            announced: ip,
        };
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let config = RelayConfig {
            settings: settings(&secrets),
            addresses: vec![address(v4), address(v6)],
            // Below the ports that the kernel hands out by itself.
            ports: 10_000..=32_000,
            workers,
            coalesce,
        };
        let addresses = (
            udp.local_addr().unwrap(),
            udp_v6.local_addr().unwrap(),
            tcp.local_addr().unwrap(),
            tls.local_addr().unwrap(),
        );
        let listeners = Listeners {
            admit: None,
            udp: vec![udp, udp_v6, second],
            tcp: vec![tcp],
        };
        let handle = Arc::new(RelayHandle::start(config, listeners).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(tls_port(tls, tls_config, Arc::clone(&handle)));
        Self {
            _tasks: tasks,
            handle,
            udp: addresses.0,
            udp_v6: addresses.1,
            udp_second,
            tcp: addresses.2,
            tls: addresses.3,
            certificate,
            secrets,
        }
    }

    pub(crate) fn credential(&self, user: &str) -> Credential {
        self.secrets.mint(user, unix_now() + 3600)
    }

    pub(crate) async fn stats(&self) -> RelayStats {
        self.handle.stats().await.unwrap()
    }

    /// Asks until the counters are as they should be.
    pub(crate) async fn eventually(&self, what: impl Fn(&RelayStats) -> bool) -> RelayStats {
        let deadline = Instant::now() + SOON;
        loop {
            let stats = self.stats().await;
            if what(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{stats:#?}");
            tokio::task::yield_now().await;
        }
    }
}

/// Stands in for the box's TLS port: hands connections over with their handshake done.
async fn tls_port(listener: TcpListener, config: rustls::ServerConfig, handle: Arc<RelayHandle>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, peer) = listener.accept().await.unwrap();
        let (local, handle) = (socket.local_addr().unwrap(), Arc::clone(&handle));
        let shaken = acceptor.accept(socket);
        tokio::spawn(async move {
            if let Ok(stream) = shaken.await {
                handle.serve_stream(ClientStream::tls(stream).unwrap(), peer, local, &[]);
            }
        });
    }
}

pub(crate) fn settings(secrets: &TurnSecrets) -> Settings {
    let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
    let own = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    Settings {
        realm: "callbox".into(),
        users: callbox::auth::TurnUsers::default(),
        secrets: secrets.clone(),
        policy: PeerPolicy::new(loopback.to_vec(), vec![], own),
        quotas: Quotas {
            user: 1_000,
            ip: 100_000,
            total: 100_000,
        },
        max_session: Duration::from_secs(24 * 3600),
        max_rate: None,
        total_rate: None,
        alternates: vec![],
        reports_icmp: false,
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A socket that sends back what it gets, until the test ends.
pub(crate) fn echo(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}
