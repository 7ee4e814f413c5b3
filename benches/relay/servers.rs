//! The servers under test: how each is started, and what it can do.

use super::client::Transport;
use super::fleet::{Target, exchange};
use super::kind::Kind;
use super::place::Place;
use super::tls::Certificate;
use super::turn::{self, Credential};
use crate::common::process::{Cores, ServerProcess};
use anyhow::{Context, Result, bail, ensure};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &str = "callbox-bench-secret";
pub(crate) const REALM: &str = "bench";
/// More allocations than any workload makes.
const QUOTA: &str = "1000000";
/// Below the ephemeral ports; each start takes the next four.
const FIRST_PORT: u16 = 20_000;

/// A TURN server that somebody else has started.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Other {
    /// A TURN server that runs on this machine, to measure as `other`: its address for UDP and TCP.
    /// It is not pinned: start it with `taskset`.
    #[arg(long, requires_all = ["other_secret", "other_pid"])]
    other: Option<SocketAddrV4>,
    /// Its address for TLS.
    #[arg(long, requires = "other")]
    other_tls: Option<SocketAddrV4>,
    /// Its secret for TURN REST credentials.
    #[arg(long, requires = "other")]
    other_secret: Option<String>,
    /// Its process, whose CPU time counts.
    #[arg(long, requires = "other")]
    other_pid: Option<u32>,
}

impl Other {
    pub(crate) fn is_given(&self) -> bool {
        self.other.is_some()
    }

    fn server(&self, locals: Vec<Ipv4Addr>) -> Result<Server> {
        let (Some(address), Some(secret), Some(id)) =
            (self.other, &self.other_secret, self.other_pid)
        else {
            bail!("--other names no server");
        };
        let target = Target {
            udp: address,
            tcp: address,
            tls: self.other_tls.unwrap_or(address),
            locals,
            credential: Credential::mint(secret, "bench", tomorrow()?),
        };
        let addresses = [target.udp, target.tls];
        ensure!(
            addresses.iter().all(|address| address.ip().is_loopback()),
            "--other takes servers on loopback only: nobody else is to be flooded"
        );
        let process = ServerProcess::running(id);
        Ok(Server { process, target })
    }
}

fn tomorrow() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400)
}

/// What all servers are started with.
pub(crate) struct Launcher {
    pub(crate) cores: Cores,
    /// For logs, certificates and what servers leave behind.
    pub(crate) folder: PathBuf,
    pub(crate) callbox: PathBuf,
    beside: Option<PathBuf>,
    other: Other,
    certificate: Certificate,
    credential: Credential,
    next_port: Cell<u16>,
}

pub(crate) struct Server {
    pub(crate) process: ServerProcess,
    pub(crate) target: Target,
}

impl Launcher {
    pub(crate) fn new(
        cores: Cores,
        folder: PathBuf,
        callbox: PathBuf,
        beside: Option<PathBuf>,
        other: Other,
    ) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let certificate = Certificate::make(&folder)?;
        let credential = Credential::mint(SECRET, "bench", tomorrow()?);
        Ok(Self {
            cores,
            folder,
            callbox,
            beside,
            other,
            certificate,
            credential,
            next_port: Cell::new(FIRST_PORT),
        })
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn start(&self, kind: Kind, place: &Place) -> Result<Server> {
        if kind == Kind::Other {
            return self.other.server(place.clients.clone());
        }
        let port = self.next_port.get();
        self.next_port.set(port + 4);
        let target = Target {
            udp: SocketAddrV4::new(place.server(kind), port),
            tcp: SocketAddrV4::new(place.server(kind), port),
            tls: SocketAddrV4::new(place.server(kind), port + 1),
            locals: place.clients.clone(),
            credential: self.credential.clone(),
        };
        let mut command = match kind {
            Kind::Callbox => self.callbox(&self.callbox, place, &target, port + 2),
            Kind::Beside => {
                let binary = self.beside.as_ref().context("--beside names no binary")?;
                self.callbox(binary, place, &target, port + 2)
            }
            Kind::Coturn => self.coturn(place, &target),
            _ => self.own(place, kind, &target)?,
        };
        let log = self
            .folder
            .join(format!("{}.log", kind.name().replace([':', ',', ' '], "-")));
        let mut process = ServerProcess::spawn(&mut command, self.cores, &log)?;
        wait_until_ready(kind, &mut process, &target, &log)?;
        Ok(Server { process, target })
    }

    fn callbox(&self, binary: &Path, place: &Place, target: &Target, http_port: u16) -> Command {
        let mut command = place.command(binary);
        let http = SocketAddrV4::new(Ipv4Addr::LOCALHOST, http_port);
        for (key, value) in [
            ("HTTP__LISTEN", http.to_string()),
            ("AUTH__MODE", "open".to_owned()),
            ("PUBLIC__ADDRESS", target.udp.ip().to_string()),
            ("LOG__LEVEL", "warn".to_owned()),
            ("TLS__LISTEN", target.tls.to_string()),
            ("TLS__CERT", self.certificate.chain.display().to_string()),
            ("TLS__KEY", self.certificate.key.display().to_string()),
            ("TURN__UDP", target.udp.to_string()),
            ("TURN__TCP", target.tcp.to_string()),
            ("TURN__REALM", REALM.to_owned()),
            ("TURN__SECRETS", SECRET.to_owned()),
            (
                "TURN__ALLOWED_PEERS",
                r#"["127.0.0.0/8", "198.18.0.0/15"]"#.to_owned(),
            ),
            ("TURN__WORKERS", "1".to_owned()),
            ("TURN__USER_QUOTA", QUOTA.to_owned()),
            ("TURN__IP_QUOTA", QUOTA.to_owned()),
            ("TURN__TOTAL_QUOTA", QUOTA.to_owned()),
        ] {
            command.env(format!("CALLBOX_{key}"), value);
        }
        command
    }

    fn coturn(&self, place: &Place, target: &Target) -> Command {
        let mut command = place.command(Path::new("turnserver"));
        let ip = target.udp.ip();
        command
            .args([
                "-n",
                "--no-cli",
                "--no-dtls",
                "--log-file=/dev/null",
                "--use-auth-secret",
            ])
            .args(["--allow-loopback-peers", "--relay-threads=1"])
            .arg(format!("--listening-ip={ip}"))
            .arg(format!("--relay-ip={ip}"))
            .arg(format!("--listening-port={}", target.udp.port()))
            .arg(format!("--tls-listening-port={}", target.tls.port()))
            .arg(format!("--realm={REALM}"))
            .arg(format!("--static-auth-secret={SECRET}"))
            .arg(format!("--cert={}", self.certificate.chain.display()))
            .arg(format!("--pkey={}", self.certificate.key.display()))
            .arg(format!(
                "--pidfile={}",
                self.folder.join("coturn.pid").display()
            ))
            .arg(format!(
                "--userdb={}",
                self.folder.join("coturn.db").display()
            ));
        command
    }

    /// This program again, as one of the servers it brings along.
    fn own(&self, place: &Place, kind: Kind, target: &Target) -> Result<Command> {
        let mut command = place.command(&std::env::current_exe()?);
        let listen = target.udp.to_string();
        match kind {
            Kind::TurnCrate => {
                let Credential { username, password } = &self.credential;
                command.args(["baseline", &listen, username, password]);
            }
            _ => {
                command.args(["floor", &listen]);
                if kind == Kind::FloorBatched {
                    command.arg("--batched");
                }
            }
        }
        Ok(command)
    }
}

fn wait_until_ready(
    kind: Kind,
    process: &mut ServerProcess,
    target: &Target,
    log: &Path,
) -> Result<()> {
    const TRIES: usize = 100;
    let pause = std::time::Duration::from_millis(50);
    for _ in 0..TRIES {
        std::thread::sleep(pause);
        if process.has_ended() {
            break;
        }
        // A connected socket is refused while nobody listens: that is the answer "not yet".
        let mut client = target.connect(Transport::Udp, 0, false)?;
        let answered = if kind.is_floor() {
            client.register(target.udp).is_ok()
        } else {
            exchange(std::slice::from_mut(&mut client), |_| turn::binding()).is_ok()
        };
        if answered {
            return Ok(());
        }
    }
    bail!("{} does not answer; see {}", kind.name(), log.display())
}
