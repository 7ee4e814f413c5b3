//! Everybody comes back at once: each client connects over TLS, joins a room and allocates a relay.

use super::scenarios::Subject;
use super::servers::ADDRESS;
use super::turn::{Challenge, Credential, allocate, expect_success};
use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun::message::{CLASS_ERROR_RESPONSE, Message};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Loopback addresses that clients come from: each stays far below `signal.connections_per_ip`.
const SOURCES: usize = 100;
/// The longest that one client tries: somebody in front of a screen has left by then.
const TIMEOUT: Duration = Duration::from_secs(60);
/// RFC 8489 section 6.2.1: the first retransmission of a request over UDP.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// What a client reads at once: thousands of them are in one process.
const READ: usize = 4_096;
/// Descriptors of the box and of the generator beside those of clients.
const SPARE: u64 = 1_000;

/// The WebSocket of a client.
pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;
/// What a client keeps open: another one that got the same port would meet its allocation.
type Sockets = (Socket, UdpSocket);

/// What the box is set to beside its defaults, which hold for everything that a client meets.
pub(crate) fn settings(clients: usize) -> Vec<(&'static str, String)> {
    let quota = clients.max(1).to_string();
    vec![
        // Else relays would live on 127.0.0.1, where the box does not listen.
        ("PUBLIC__ADDRESS", ADDRESS.to_string()),
        ("TURN__TOTAL_QUOTA", quota),
        // Above the servers' own ports; the default range has 16,384.
        ("TURN__RELAY_PORTS", "26000-65535".to_owned()),
        ("ROOMS__MAX_ROOMS", "100000".to_owned()),
        ("SIGNAL__CONNECTIONS_PER_IP", "1000".to_owned()),
    ]
}

/// Seconds until the last of `clients` has joined and has a relay, and how many did not get there.
pub(crate) fn herd(subject: &Subject, clients: usize, descriptors: u64) -> Result<[f64; 2]> {
    let needed = 2 * clients as u64 + SPARE;
    ensure!(
        descriptors >= needed,
        "{clients} clients take {needed} descriptors, and this shell gives {descriptors}: \
         `ulimit -n {needed}`, or --clients"
    );
    let tls = subject
        .door
        .tls
        .clone()
        .context("the herd comes over TLS")?;
    let address = subject.door.address;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut coming = JoinSet::new();
        for number in 0..clients {
            let tls = Arc::clone(&tls);
            let one = come_back(number, address.into(), tls);
            coming.spawn(async move { timeout(TIMEOUT, one).await.context("took too long")? });
        }
        let (mut here, mut refusals, mut last) = (vec![], BTreeMap::new(), started);
        while let Some(outcome) = coming.join_next().await {
            match outcome? {
                Ok(sockets) => {
                    here.push(sockets);
                    last = Instant::now();
                }
                Err(error) => *refusals.entry(format!("{error:#}")).or_insert(0_usize) += 1,
            }
        }
        for (reason, count) in &refusals {
            eprintln!("{count} of the herd: {reason}");
        }
        let refused = refusals.values().sum::<usize>();
        Ok([(last - started).as_secs_f64(), refused as f64])
    })
}

async fn come_back(number: usize, address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Sockets> {
    let source = Ipv4Addr::new(127, 0, 1, (number % SOURCES) as u8 + 1);
    let mut socket = connect(source, address, tls).await?;
    let join = format!(
        r#"{{"type":"join","id":"j","roomId":"herd-{}"}}"#,
        number / 2
    );
    socket.send(Frame::text(join)).await.context("joining")?;
    let joined = loop {
        let Some(Frame::Text(text)) = socket.next().await.transpose().context("joining")? else {
            bail!("closed while joining");
        };
        let message: Value = serde_json::from_str(&text)?;
        match message["type"].as_str() {
            Some("joined") => break message,
            Some("error") => bail!("join refused: {}", message["code"]),
            _ => {}
        }
    };
    let relayed = relay(source, &joined).await?;
    Ok((socket, relayed))
}

/// A WebSocket from an address of this machine.
pub(super) async fn connect(
    source: Ipv4Addr,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<Socket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(tls).connect(name, stream).await;
    let url = format!("wss://{address}/ws");
    let small = WebSocketConfig::default().read_buffer_size(READ);
    let stream = stream.context("shaking hands")?;
    let upgraded = client_async_with_config(url, stream, Some(small)).await;
    Ok(upgraded.context("upgrading")?.0)
}

/// Allocates at the first URL for UDP.
pub(super) async fn relay(source: Ipv4Addr, joined: &Value) -> Result<UdpSocket> {
    let servers = joined["iceServers"].as_array().into_iter().flatten();
    let mut servers = servers.filter(|server| server["username"].is_string());
    let server = servers.next().context("no relay was handed out")?;
    let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
    let credential = Credential {
        username: text("username"),
        password: text("credential"),
    };
    let urls = server["urls"].as_array().into_iter().flatten();
    let mut urls = urls.filter_map(|url| {
        url.as_str()?
            .strip_prefix("turn:")?
            .strip_suffix("?transport=udp")
    });
    let server: SocketAddr = urls.next().context("no URL for UDP")?.parse()?;
    let socket = UdpSocket::bind((IpAddr::from(source), 0)).await?;
    socket.connect(server).await?;
    let refusal = ask(&socket, &allocate(None)?).await?;
    ensure!(refusal.typ.class == CLASS_ERROR_RESPONSE, "not challenged");
    let challenge = Challenge::read(&refusal, &credential, None)?;
    let response = ask(&socket, &allocate(Some(&challenge))?).await?;
    expect_success(&response).context("allocating")?;
    Ok(socket)
}

/// The response to a request, which is sent until one comes.
async fn ask(socket: &UdpSocket, request: &Message) -> Result<Message> {
    let mut buffer = vec![0; 1500];
    let mut wait = RETRANSMIT;
    loop {
        socket.send(&request.raw).await?;
        if let Ok(received) = timeout(wait, socket.recv(&mut buffer)).await {
            let mut response = Message::new();
            response.raw = buffer[..received?].to_vec();
            response.decode()?;
            if response.transaction_id == request.transaction_id {
                return Ok(response);
            }
        }
        wait *= 2;
    }
}
