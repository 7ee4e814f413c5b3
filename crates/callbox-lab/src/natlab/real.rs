//! The ground of a real run: a network of the lab for each kind and side, and a box in one of its
//! own with two public addresses, or one that a URL names.

use super::matrix::Pair;
use super::peer::{self, News, Order, Spec};
use super::report::Proof;
use super::verdict::Packets;
use crate::kind::Kind;
use crate::link::Impairment;
use crate::netns::Namespace;
use crate::network::{Network, Settings};
use crate::stage::{self, Job};
use crate::stun_server::PORTS;
use crate::user::Caller;
use crate::wan::probe_address;
use callbox::cli::reach::BoxUrl;
use futures_util::future::try_join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

/// How long the box may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// Signaling and TURN over TLS, the port that every kind passes.
const HTTPS: u16 = 443;

/// A peer that runs, and the two ways to it.
pub struct Running {
    /// What it is told.
    pub orders: mpsc::Sender<Order>,
    /// What it says.
    pub news: mpsc::Receiver<News>,
    /// What it has said when it began to look for a path: whether it reaches a relay.
    pub begun: Option<bool>,
}

impl Running {
    /// A peer that has said nothing yet.
    #[must_use]
    pub fn new(orders: mpsc::Sender<Order>, news: mpsc::Receiver<News>) -> Self {
        Self {
            orders,
            news,
            begun: None,
        }
    }
}

/// The networks and the box.
pub struct Ground {
    networks: HashMap<(Kind, usize), Network>,
    own_box: Option<OwnBox>,
    url: BoxUrl,
    address: SocketAddr,
    box_ips: Vec<IpAddr>,
    slack: Duration,
}

struct OwnBox {
    network: Network,
    process: Mutex<Option<Child>>,
    job: Job,
}

impl Ground {
    /// Sets up what `pairs` need, proves it, and says what the probes found.
    ///
    /// # Errors
    /// A sentence.
    pub async fn new(
        pairs: &[Pair],
        url: Option<&str>,
        impairment: Impairment,
    ) -> Result<(Self, Vec<Proof>), String> {
        let mut wanted: Vec<(Kind, usize)> = pairs
            .iter()
            .flat_map(|Pair(a, b)| [(*a, 0), (*b, 1)])
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let networks = wanted.into_iter().map(|(kind, side)| async move {
            let settings = Settings {
                kind,
                impairment,
                v6_only: false,
                internet: url.is_some(),
            };
            let network = Network::start(settings).await?;
            // What is lost on the link would look like another kind: probes are sent again, and
            // the verdict is about the NAT.
            let proof = network.prove().await?;
            let name = format!("{kind}, {} side", ["first", "second"][side]);
            Ok::<_, String>((
                (kind, side),
                network,
                Proof {
                    network: name,
                    found: proof,
                },
            ))
        });
        let own_box = async {
            match url {
                Some(_) => Ok(None),
                None => OwnBox::new().await.map(Some),
            }
        };
        let (networks, own_box) = tokio::try_join!(try_join_all(networks), own_box)?;
        let mut proofs = vec![];
        let mut by_kind = HashMap::new();
        for (key, network, proof) in networks {
            proofs.push(proof);
            by_kind.insert(key, network);
        }
        let (url, address, box_ips) = match (&own_box, url) {
            (Some(own_box), _) => own_box.url()?,
            (None, Some(url)) => {
                let url = BoxUrl::parse(url, None)?;
                let address = url.resolve().await?;
                if address.ip().is_loopback() {
                    return Err(format!(
                        "{url} is on loopback, and peers behind NATs reach the machine's other \
                         addresses only: leave --url out, or let the box listen on one of those"
                    ));
                }
                (url, address, vec![address.ip()])
            }
            (None, None) => return Err("there is no box".into()),
        };
        let ground = Self {
            networks: by_kind,
            own_box,
            url,
            address,
            box_ips,
            slack: 2 * impairment.delay,
        };
        Ok((ground, proofs))
    }

    /// The box that is called through.
    #[must_use]
    pub fn url(&self) -> &BoxUrl {
        &self.url
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By how much the links delay an exchange between peer and box.
    #[must_use]
    pub fn slack(&self) -> Duration {
        self.slack
    }

    /// The lab's own STUN server, where the box is outside of the lab and does not see its
    /// addresses.
    #[must_use]
    pub fn stun(&self) -> Option<SocketAddr> {
        self.own_box
            .is_none()
            .then(|| SocketAddr::new(probe_address(false, false), PORTS[0]))
    }

    fn network(&self, kind: Kind, side: usize) -> Result<&Network, String> {
        let network = self.networks.get(&(kind, side));
        network.ok_or_else(|| format!("there is no network of {kind}"))
    }

    /// Starts a peer behind `kind`.
    ///
    /// # Errors
    /// A sentence.
    pub async fn start(&self, kind: Kind, side: usize, spec: Spec) -> Result<Running, String> {
        let network = self.network(kind, side)?;
        network.forget().await;
        run_inside(&network.inside, spec).await
    }

    /// Counts from zero on both sides.
    pub async fn reset_counts(&self, Pair(a, b): Pair) {
        for key in [(a, 0), (b, 1)] {
            if let Some(network) = self.networks.get(&key) {
                network.reset_counts().await;
            }
        }
    }

    /// What passed both sides' routers since then; `direct` is where a direct path leads.
    ///
    /// # Errors
    /// A sentence.
    pub async fn packets(
        &self,
        Pair(a, b): Pair,
        direct: [Option<SocketAddr>; 2],
    ) -> Result<[Packets; 2], String> {
        let sides = [self.network(a, 0)?, self.network(b, 1)?];
        let addresses = sides.map(|network| {
            [false, true].map(|second| IpAddr::from(network.plan.public_v4(second)))
        });
        let [first, second] = sides;
        let counts = [first.counts().await, second.counts().await];
        Ok([0, 1].map(|side| {
            Packets::of(
                &counts[side],
                &addresses[1 - side],
                &self.box_ips,
                direct[side],
            )
        }))
    }

    /// Gives a side another public address, or its first one again.
    ///
    /// # Errors
    /// A sentence.
    pub async fn move_to(&self, kind: Kind, side: usize, second: bool) -> Result<(), String> {
        self.network(kind, side)?.move_to(second).await
    }

    /// Kills the box and starts it again.
    ///
    /// # Errors
    /// A sentence: it is not the lab's own, or does not come back.
    pub async fn restart_box(&self) -> Result<(), String> {
        let own_box = self.own_box.as_ref();
        let own_box = own_box.ok_or("--restart is for the lab's own box: leave --url out")?;
        own_box.stop(Signal::SIGKILL).await;
        own_box.ended().await?;
        own_box.start().await
    }

    /// Ends everything and gives all places back.
    pub async fn close(self) {
        if let Some(own_box) = self.own_box {
            own_box.stop(Signal::SIGKILL).await;
            own_box.network.close().await;
        }
        for network in self.networks.into_values() {
            network.close().await;
        }
    }
}

/// A peer on a thread of its own in `namespace`: what it opens is inside.
async fn run_inside(namespace: &Namespace, spec: Spec) -> Result<Running, String> {
    let (orders, todo) = mpsc::channel(8);
    let (sender, news) = mpsc::channel(16);
    // A thread is in the namespace of the thread that starts it.
    let spawned = namespace.run(move || run_peer(spec, todo, sender)).await?;
    spawned.map_err(|error| format!("a thread cannot be started: {error}"))?;
    Ok(Running::new(orders, news))
}

/// A peer on a thread of its own.
///
/// # Errors
/// The machine has no thread left.
pub fn run_peer(
    spec: Spec,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("peer".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(peer::run(spec, orders, news));
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            }
            Err(error) => {
                let _ = news.blocking_send(News::Failed(error.to_string()));
            }
        }
    })
}

impl OwnBox {
    async fn new() -> Result<Self, String> {
        let settings = Settings {
            kind: Kind::None,
            impairment: Impairment::default(),
            v6_only: false,
            internet: false,
        };
        let network = Network::start(settings).await?;
        let [first, second] = [false, true].map(|second| network.plan.public_v4(second));
        let [config, cert, key] = ["toml", "cert", "key"].map(|name| network.file(name));
        let signed = rcgen::generate_simple_self_signed(vec![first.to_string()])
            .map_err(|error| format!("no certificate for the box: {error}"))?;
        write(&cert, &signed.cert.pem())?;
        write(&key, &signed.signing_key.serialize_pem())?;
        write(&config, &configuration(first, second, &cert, &key))?;
        let job = Job {
            command: vec![
                program()?.display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
            caller: Caller::own()?,
            resolv: None,
            terminal: false,
            lab: std::process::id(),
        };
        let own_box = Self {
            network,
            process: Mutex::new(None),
            job,
        };
        own_box.start().await?;
        Ok(own_box)
    }

    fn url(&self) -> Result<(BoxUrl, SocketAddr, Vec<IpAddr>), String> {
        let [first, second] = [false, true].map(|second| self.network.plan.public_v4(second));
        let pem = fs::read(self.network.file("cert")).map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        for cert in rustls_pemfile_certs(&pem) {
            roots.add(cert).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url = BoxUrl::parse(&format!("https://{first}"), Some(Arc::new(trust)))?;
        let ips = vec![first.into(), second.into()];
        Ok((url, SocketAddr::new(first.into(), HTTPS), ips))
    }

    async fn start(&self) -> Result<(), String> {
        let mut command = stage::command("@inner", &self.job)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let spawned = self.network.inside.run(move || command.spawn()).await?;
        let mut child = spawned.map_err(|error| format!("the box cannot be started: {error}"))?;
        let stderr = child.stderr.take();
        let said = thread::spawn(move || last_lines(stderr));
        let listens = SocketAddr::new(self.network.plan.public_v4(false).into(), HTTPS);
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            let connect = move || std::net::TcpStream::connect_timeout(&listens, STARTS_WITHIN);
            if self.network.inside.run(connect).await?.is_ok() {
                *self.process.lock().await = Some(child);
                return Ok(());
            }
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() {
                let said = said.join().unwrap_or_default();
                return Err(format!("the box did not start: {}", said.trim()));
            }
            if Instant::now() > until {
                let _ = child.kill();
                return Err(format!("the box does not listen on {listens}"));
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    /// Waits until the port is free: processes of a namespace end one after the other.
    async fn ended(&self) -> Result<(), String> {
        let listens = SocketAddr::new(self.network.plan.public_v4(false).into(), HTTPS);
        let until = Instant::now() + STARTS_WITHIN;
        while Instant::now() < until {
            let connect = move || std::net::TcpStream::connect_timeout(&listens, STARTS_WITHIN);
            if self.network.inside.run(connect).await?.is_err() {
                return Ok(());
            }
            sleep(LOOKS_EVERY).await;
        }
        Err("the box does not end".into())
    }

    async fn stop(&self, signal: Signal) {
        let Some(mut child) = self.process.lock().await.take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let _ = kill(pid, signal);
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}

/// What the box says, of which the end is kept.
fn last_lines(stderr: Option<std::process::ChildStderr>) -> String {
    use std::io::{BufRead as _, BufReader};
    let Some(stderr) = stderr else {
        return String::new();
    };
    let mut kept = std::collections::VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if kept.len() == 8 {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
}

fn rustls_pemfile_certs(pem: &[u8]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

fn configuration(first: Ipv4Addr, second: Ipv4Addr, cert: &Path, key: &Path) -> String {
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let [one, two] = PORTS;
    let secret = format!("{:032x}", rand::random::<u128>());
    format!(
        "[public]\naddress = [\"{first}\"]\n[http]\nlisten = [\"127.0.0.1:8080\"]\n[tls]\nlisten \
         = [\"{first}:{HTTPS}\"]\ncert = {cert:?}\nkey = {key:?}\n[auth]\nmode = \
         \"open\"\n[turn]\nudp = [\"{first}:{one}\", \"{first}:{two}\", \"{second}:{one}\", \
         \"{second}:{two}\"]\ntcp = [\"{first}:{one}\"]\nsecrets = [\"{secret}\"]\nallowed_peers \
         = [\"198.18.0.0/15\", \"2001:2::/48\"]\n"
    )
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let open = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = open.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// The box's own program, beside this one or in PATH.
///
/// # Errors
/// It is nowhere.
pub fn program() -> Result<PathBuf, String> {
    let beside = std::env::current_exe().map(|path| path.with_file_name("callbox"));
    if let Ok(beside) = beside
        && beside.is_file()
    {
        return Ok(beside);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|folder| Path::new(folder).join("callbox"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            "the program callbox is not beside callbox-lab and not in PATH; name a box by --url"
                .into()
        })
}
