//! The signaling servers under test and how each is started.

use super::dialect::Dialect;
use super::scenarios::Subject;
use super::socket::Door;
use crate::common::process::{Cores, ServerProcess};
use crate::common::setup::target;
use anyhow::{Result, bail};
use rustls::{ClientConfig, RootCertStore};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Its own address, so that ports of other programs do not matter.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
/// Below the ephemeral ports; each start takes the next three.
const FIRST_PORT: u16 = 24_000;
/// More than any scenario comes near.
const PLENTY: &str = "1000000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Callbox,
    CallboxTls,
    Node,
    PeerJs,
    Matchbox,
    Floor,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Callbox,
        Self::CallboxTls,
        Self::Node,
        Self::PeerJs,
        Self::Matchbox,
        Self::Floor,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Callbox => "callbox",
            Self::CallboxTls => "callbox, TLS",
            Self::Node => "Node ws",
            Self::PeerJs => "PeerJS",
            Self::Matchbox => "matchbox",
            Self::Floor => "floor",
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Callbox | Self::CallboxTls => Dialect::Callbox,
            Self::PeerJs => Dialect::PeerJs,
            Self::Matchbox => Dialect::Matchbox,
            Self::Node | Self::Floor => Dialect::Rooms,
        }
    }
}

pub(crate) struct Launcher {
    cores: Cores,
    folder: PathBuf,
    callbox: PathBuf,
    matchbox: PathBuf,
    /// The folder of the Node servers, with its `node_modules` once `npm ci` has been run there.
    node: PathBuf,
    next_port: Cell<u16>,
}

impl Launcher {
    pub(crate) fn new(cores: Cores, callbox: PathBuf) -> Result<Self> {
        let folder = target().join("bench-signaling");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            cores,
            folder,
            callbox,
            matchbox: target().join("tools/bin/matchbox_server"),
            node: Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/signaling/peers"),
            next_port: Cell::new(FIRST_PORT),
        })
    }

    /// Tells whether a server is installed, and says aloud how to install it otherwise.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        let (file, fix) = match kind {
            Kind::Callbox | Kind::CallboxTls => (self.callbox.clone(), "cargo build --release"),
            Kind::Matchbox => (
                self.matchbox.clone(),
                "cargo install matchbox_server --root target/tools",
            ),
            Kind::Node | Kind::PeerJs => (
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

    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(&self, kind: Kind) -> Result<Subject> {
        let port = self.next_port.get();
        self.next_port.set(port + 3);
        let address = SocketAddrV4::new(ADDRESS, port);
        let mut tls = None;
        let mut command = match kind {
            Kind::Callbox => self.callbox(address),
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
        let mut command = Command::new(&self.callbox);
        let turn = SocketAddrV4::new(ADDRESS, address.port() + 1);
        for (key, value) in [
            ("HTTP__LISTEN", address.to_string()),
            ("HTTP__PAGES", "false".to_owned()),
            ("AUTH__MODE", "open".to_owned()),
            ("LOG__LEVEL", "warn".to_owned()),
            ("TURN__UDP", turn.to_string()),
            ("TURN__TCP", turn.to_string()),
            ("TURN__WORKERS", "1".to_owned()),
            ("ROOMS__MAX_PEERS", "1000".to_owned()),
            ("ROOMS__MAX_ROOMS", PLENTY.to_owned()),
            ("SIGNAL__RATE", format!("{PLENTY}/s")),
            ("SIGNAL__BYTE_RATE", "1GiB/s".into()),
            ("SIGNAL__CANDIDATE_RATE", format!("{PLENTY}/s")),
            ("SIGNAL__CONNECTIONS_PER_IP", PLENTY.to_owned()),
        ] {
            command.env(format!("CALLBOX_{key}"), value);
        }
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
