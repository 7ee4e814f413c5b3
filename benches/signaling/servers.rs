//! The signaling servers under test and how each is started.

use super::dialect::Dialect;
use super::scenarios::Subject;
use super::socket::Door;
use crate::common::process::{Cores, ServerProcess};
use crate::common::setup::target;
use anyhow::{Context as _, Result, bail};
use rustls::{ClientConfig, RootCertStore};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Its own address, so that ports of other programs do not matter.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
/// Below the ephemeral ports; each start takes the next three.
const FIRST_PORT: u16 = 24_000;
/// More than any scenario comes near.
const PLENTY: &str = "1000000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Callbox,
    /// Another binary of callbox, which `--beside` names.
    Beside,
    CallboxTls,
    /// Events and questions go to a backend.
    CallboxHooks,
    Node,
    PeerJs,
    CallboxPeerJs,
    SocketIo,
    CallboxSocketIo,
    YWebrtc,
    CallboxYWebrtc,
    Matchbox,
    Floor,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Callbox,
        Self::Beside,
        Self::CallboxTls,
        Self::CallboxHooks,
        Self::Node,
        Self::PeerJs,
        Self::CallboxPeerJs,
        Self::SocketIo,
        Self::CallboxSocketIo,
        Self::YWebrtc,
        Self::CallboxYWebrtc,
        Self::Matchbox,
        Self::Floor,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Callbox => "callbox",
            Self::Beside => "callbox, beside",
            Self::CallboxTls => "callbox, TLS",
            Self::CallboxHooks => "callbox, hooks",
            Self::Node => "Node ws",
            Self::PeerJs => "PeerJS",
            Self::CallboxPeerJs => "callbox for PeerJS",
            Self::SocketIo => "Socket.IO",
            Self::CallboxSocketIo => "callbox for Socket.IO",
            Self::YWebrtc => "y-webrtc",
            Self::CallboxYWebrtc => "callbox for y-webrtc",
            Self::Matchbox => "matchbox",
            Self::Floor => "floor",
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Callbox | Self::Beside | Self::CallboxTls | Self::CallboxHooks => {
                Dialect::Callbox
            }
            Self::PeerJs | Self::CallboxPeerJs => Dialect::PeerJs,
            Self::SocketIo | Self::CallboxSocketIo => Dialect::SocketIo,
            Self::YWebrtc | Self::CallboxYWebrtc => Dialect::YWebrtc,
            Self::Matchbox => Dialect::Matchbox,
            Self::Node | Self::Floor => Dialect::Rooms,
        }
    }
}

pub(crate) struct Launcher {
    cores: Cores,
    folder: PathBuf,
    callbox: PathBuf,
    beside: Option<PathBuf>,
    matchbox: PathBuf,
    /// The folder of the Node servers, with its `node_modules` once `npm ci` has been run there.
    node: PathBuf,
    next_port: Cell<u16>,
}

impl Launcher {
    pub(crate) fn new(cores: Cores, callbox: PathBuf, beside: Option<PathBuf>) -> Result<Self> {
        let folder = target().join("bench-signaling");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            cores,
            folder,
            callbox,
            beside,
            matchbox: target().join("tools/bin/matchbox_server"),
            node: Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/signaling/peers"),
            next_port: Cell::new(FIRST_PORT),
        })
    }

    /// Whether a server is installed, and says aloud how to install it otherwise.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        let (file, fix) = match kind {
            Kind::Beside => match &self.beside {
                Some(binary) => (binary.clone(), "--beside BINARY"),
                None => return false,
            },
            Kind::Callbox
            | Kind::CallboxTls
            | Kind::CallboxHooks
            | Kind::CallboxPeerJs
            | Kind::CallboxSocketIo
            | Kind::CallboxYWebrtc => (self.callbox.clone(), "cargo build --release"),
            Kind::Matchbox => (
                self.matchbox.clone(),
                "cargo install matchbox_server --root target/tools",
            ),
            Kind::Node | Kind::PeerJs | Kind::SocketIo | Kind::YWebrtc => (
                self.node.join("node_modules"),
                "npm ci --prefix benches/signaling/peers",
            ),
            Kind::Floor => return true,
        };
        let there = file.exists();
        if !there {
            eprintln!(
                "{} is left out: {} is missing; `{fix}`",
                kind.name(),
                file.display()
            );
        }
        there
    }

    /// Where files of servers go.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The binary under test.
    pub(crate) fn program(&self) -> &Path {
        &self.callbox
    }

    /// Starts a program on the servers' core.
    pub(crate) fn spawn(&self, command: &mut Command, name: &str) -> Result<ServerProcess> {
        let log = self.folder.join(format!("{name}.log"));
        ServerProcess::spawn(command, self.cores, &log)
    }

    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(&self, kind: Kind) -> Result<Subject> {
        self.start_with(kind, &[])
    }

    /// As [`Self::start`], with settings of callbox.
    pub(crate) fn start_with(&self, kind: Kind, settings: &[(&str, String)]) -> Result<Subject> {
        let port = self.next_port.get();
        self.next_port.set(port + 3);
        let address = SocketAddrV4::new(ADDRESS, port);
        let mut tls = None;
        let mut command = match kind {
            Kind::Callbox => self.callbox(address),
            Kind::Beside => self.beside(address)?,
            Kind::CallboxHooks => {
                let backend = format!("http://{}/", backend()?);
                let mut command = self.callbox(address);
                command
                    .env("CALLBOX_HOOKS__URL", &backend)
                    .env("CALLBOX_HOOKS__AUTHORIZE", &backend)
                    .env("CALLBOX_HOOKS__SECRET", "0123456789abcdef0123456789abcdef")
                    .env("CALLBOX_HOOKS__ALLOW_PRIVATE", "true");
                command
            }
            Kind::CallboxPeerJs => self.callbox_for(address, "peerjs"),
            Kind::CallboxSocketIo => self.callbox_for(address, "socketio"),
            Kind::CallboxYWebrtc => self.callbox_for(address, "y-webrtc"),
            Kind::SocketIo => self.node(
                "socketio-server.js",
                &[&ADDRESS.to_string(), &port.to_string()],
            ),
            Kind::YWebrtc => {
                let mut command = self.node("node_modules/y-webrtc/bin/server.js", &[]);
                command
                    .env("HOST", ADDRESS.to_string())
                    .env("PORT", port.to_string());
                command
            }
            Kind::CallboxTls => {
                let (command, config) = self.callbox_tls(address)?;
                tls = Some(config);
                command
            }
            Kind::Node => self.node("room-server.js", &[&ADDRESS.to_string(), &port.to_string()]),
            Kind::PeerJs => self.node(
                "node_modules/peer/dist/bin/peerjs.js",
                &[
                    "--host",
                    &ADDRESS.to_string(),
                    "--port",
                    &port.to_string(),
                    "--concurrent_limit",
                    PLENTY,
                    "--alive_timeout",
                    PLENTY,
                ],
            ),
            Kind::Matchbox => {
                let mut command = Command::new(&self.matchbox);
                command.arg(address.to_string()).env("RUST_LOG", "warn");
                command
            }
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["floor", &address.to_string()]);
                command
            }
        };
        for (key, value) in settings {
            command.env(format!("CALLBOX_{key}"), value);
        }
        let log = self
            .folder
            .join(format!("{}.log", kind.name().replace(' ', "-")));
        let mut process = ServerProcess::spawn(&mut command, self.cores, &log)?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            if TcpStream::connect(address).is_ok() {
                return Ok(Subject {
                    process,
                    door: Door { address, tls },
                    dialect: kind.dialect(),
                });
            }
            if process.has_ended() {
                break;
            }
        }
        bail!("{} does not listen; see {}", kind.name(), log.display())
    }

    fn callbox(&self, address: SocketAddrV4) -> Command {
        let mut command = Self::box_at(&self.callbox, address);
        command.env("CALLBOX_SIGNAL__BYTE_RATE", "1GiB/s");
        command
    }

    /// The other binary, which may be from before `signal.byte_rate`.
    fn beside(&self, address: SocketAddrV4) -> Result<Command> {
        let binary = self.beside.as_ref().context("--beside names no binary")?;
        Ok(Self::box_at(binary, address))
    }

    fn box_at(binary: &Path, address: SocketAddrV4) -> Command {
        let mut command = Command::new(binary);
        let turn = SocketAddrV4::new(ADDRESS, address.port() + 1);
        for (key, value) in [
            ("HTTP__LISTEN", address.to_string()),
            ("HTTP__PAGES", "false".to_owned()),
            ("AUTH__MODE", "open".to_owned()),
            ("LOG__LEVEL", "warn".to_owned()),
            ("TURN__UDP", turn.to_string()),
            ("TURN__TCP", turn.to_string()),
            ("TURN__WORKERS", "1".to_owned()),
            // Descriptors are kept for as many relays: these are for connections here.
            ("TURN__TOTAL_QUOTA", "100".to_owned()),
            ("ROOMS__MAX_PEERS", "1000".to_owned()),
            ("ROOMS__MAX_ROOMS", PLENTY.to_owned()),
            ("SIGNAL__RATE", format!("{PLENTY}/s")),
            ("SIGNAL__CANDIDATE_RATE", format!("{PLENTY}/s")),
            ("SIGNAL__CONNECTIONS_PER_IP", PLENTY.to_owned()),
        ] {
            command.env(format!("CALLBOX_{key}"), value);
        }
        command
    }

    /// The same with one foreign protocol on.
    fn callbox_for(&self, address: SocketAddrV4, protocol: &str) -> Command {
        let mut command = self.callbox(address);
        command.env("CALLBOX_COMPAT__ENABLED", protocol);
        command
    }

    /// The same behind TLS at `address`, and how a client verifies it.
    fn callbox_tls(&self, address: SocketAddrV4) -> Result<(Command, Arc<ClientConfig>)> {
        let made = rcgen::generate_simple_self_signed([ADDRESS.to_string()])?;
        let (cert, key) = (self.folder.join("cert.pem"), self.folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let mut command = self.callbox(SocketAddrV4::new(ADDRESS, address.port() + 1));
        command
            .env("CALLBOX_TLS__LISTEN", address.to_string())
            .env("CALLBOX_TLS__CERT", cert)
            .env("CALLBOX_TLS__KEY", key);
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok((command, Arc::new(config)))
    }

    fn node(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.node.join(script))
            .args(arguments)
            .env("NODE_ENV", "production");
        command
    }
}

/// A backend that allows everything and takes every event. It ends with the process.
fn backend() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    Ok(address)
}

fn answer_all(stream: TcpStream) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let head = line.trim_end().to_ascii_lowercase();
            if let Some(value) = head.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if head.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"allow\":true}";
        requests.get_mut().write_all(answer)?;
    }
}
