//! The ground of `--virtual`: webrtc-util's virtual network in place of namespaces, so that the matrix
//! runs without root. Signaling goes over the machine's loopback to the real box; the relay is its
//! engine, as a host of the virtual network. There is no TCP in it: where a network passes TCP, streams
//! lead to the engine directly.

use super::matrix::{Pair, passes};
use super::peer::Spec;
use super::real::{Running, program, run_peer};
use super::relay::{Relay, VirtualRelay, VirtualSocket};
use super::report::Proof;
use super::verdict::Packets;
use super::virtual_box::{ADDRESSES, Connector, PORTS, VirtualBox};
use crate::kind::{Filtering, Kind, Mapping};
use crate::nat::Counts;
use crate::network::judge;
use crate::packet::Protocol;
use crate::stage::{self, Job};
use crate::user::Caller;
use async_trait::async_trait;
use callbox::cli::nat::{self, Server};
use callbox::cli::reach::{BoxUrl, Stream, Via};
use futures_util::future::try_join_all;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use turn_engine::Transport;
use webrtc_util::vnet::chunk::Chunk;
use webrtc_util::vnet::interface::Interface;
use webrtc_util::vnet::nat::{EndpointDependencyType, NatType};
use webrtc_util::vnet::net::{Net, NetConfig};
use webrtc_util::vnet::router::{Nic, Router, RouterConfig};

const LIFETIME: Duration = Duration::from_secs(600);
const HTTPS: u16 = 443;
/// Chunks that wait for a host; beyond that they are lost.
const QUEUE: usize = 4_096;

type Shared<T> = Arc<StdMutex<T>>;
type NicRef = Arc<Mutex<dyn Nic + Send + Sync>>;
type AnyChunk = Box<dyn Chunk + Send + Sync>;
type Fault = webrtc_util::Error;

/// The virtual networks and the box.
pub struct Ground {
    hosts: HashMap<(Kind, usize), Host>,
    url: BoxUrl,
    address: SocketAddr,
    secret_box: VirtualBox,
    process: Child,
    _routers: Vec<Arc<Mutex<Router>>>,
    _ports: Vec<Arc<Mutex<Port>>>,
}

struct Host {
    net: Arc<Net>,
    public: IpAddr,
    counts: Shared<Counts>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Ground {
    /// Sets up what `pairs` need, proves it, and says what the probes found.
    ///
    /// # Errors
    /// A sentence.
    pub async fn new(pairs: &[Pair]) -> Result<(Self, Vec<Proof>), String> {
        let mut wanted: Vec<(Kind, usize)> = pairs
            .iter()
            .flat_map(|Pair(a, b)| [(*a, 0), (*b, 1)])
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let secret = format!("{:032x}", rand::random::<u128>());
        let (process, url) = start_box(&secret)?;
        let built = Wan::build(&wanted).await;
        let built = built.map_err(|error| format!("no virtual network: {error}"));
        let secret_box = match &built {
            Ok(wan) => VirtualBox::start(Arc::clone(&wan.server), &secret).await,
            Err(error) => Err(error.clone()),
        };
        let mut process = process;
        let (wan, secret_box) = match (built, secret_box) {
            (Ok(wan), Ok(secret_box)) => (wan, secret_box),
            (Err(error), _) | (_, Err(error)) => {
                let _ = process.kill();
                let _ = process.wait();
                return Err(error);
            }
        };
        let url = BoxUrl::parse(&url, None)?;
        let address = url.resolve().await?;
        let ground = Self {
            hosts: wan.hosts,
            url,
            address,
            secret_box,
            process,
            _routers: wan.routers,
            _ports: wan.ports,
        };
        let proofs = try_join_all(wanted.into_iter().map(|key| ground.prove(key))).await?;
        Ok((ground, proofs))
    }

    async fn prove(&self, (kind, side): (Kind, usize)) -> Result<Proof, String> {
        let host = self.host(kind, side)?;
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let local = host.net.get_interface("eth0").await;
        let local = local.and_then(|eth0| eth0.addrs().first().map(IpNet::addr));
        let any = local.map_or(any, |ip| SocketAddr::new(ip, 0));
        let bind = async || {
            let bound = host.net.bind(any).await;
            bound.map(VirtualSocket).map_err(|error| error.to_string())
        };
        let (first, fresh) = (bind().await?, bind().await?);
        let server = Server {
            primary: SocketAddr::new(ADDRESSES[0], PORTS[0]),
            second_port: None,
        };
        let found = nat::discover(&first, &fresh, server).await;
        let found = found.map_err(|error| error.to_string())?;
        let udp = judge(kind, found.as_ref())?;
        for socket in [first, fresh] {
            let _ = socket.0.close().await;
        }
        Ok(Proof {
            network: format!("{kind}, {} side", ["first", "second"][side]),
            found: format!("IPv4 {udp}, in a virtual network"),
        })
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

    fn host(&self, kind: Kind, side: usize) -> Result<&Host, String> {
        let host = self.hosts.get(&(kind, side));
        host.ok_or_else(|| format!("there is no network of {kind}"))
    }

    /// Starts a peer behind `kind`.
    ///
    /// # Errors
    /// A sentence.
    pub fn start(&self, kind: Kind, side: usize, mut spec: Spec) -> Result<Running, String> {
        let host = self.host(kind, side)?;
        spec.net = Some(Arc::clone(&host.net));
        let (public, counts) = (host.public, Arc::clone(&host.counts));
        let connector = self.secret_box.connector();
        spec.relays = Some(Box::new(move |handed| {
            relays(handed, kind, public, &connector, &counts)
        }));
        let (orders, todo) = mpsc::channel(8);
        let (sender, news) = mpsc::channel(16);
        let spawned = run_peer(spec, todo, sender);
        spawned.map_err(|error| format!("a thread cannot be started: {error}"))?;
        Ok(Running::new(orders, news))
    }

    /// Counts from zero on both sides.
    pub fn reset_counts(&self, Pair(a, b): Pair) {
        for key in [(a, 0), (b, 1)] {
            if let Some(host) = self.hosts.get(&key) {
                locked(&host.counts).clear();
            }
        }
    }

    /// What passed both sides' routers since then; `direct` is where a direct path leads.
    ///
    /// # Errors
    /// A sentence.
    pub fn packets(
        &self,
        Pair(a, b): Pair,
        direct: [Option<SocketAddr>; 2],
    ) -> Result<[Packets; 2], String> {
        let sides = [self.host(a, 0)?, self.host(b, 1)?];
        Ok([0, 1].map(|side| {
            let counts = locked(&sides[side].counts);
            Packets::of(&counts, &[sides[1 - side].public], &ADDRESSES, direct[side])
        }))
    }
}

/// The relays of `iceServers`, reached from the host at `public`.
fn relays(
    handed: &Value,
    kind: Kind,
    public: IpAddr,
    connector: &Connector,
    counts: &Shared<Counts>,
) -> Vec<Relay> {
    let credential = handed.as_array().into_iter().flatten().find_map(|entry| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        Some((text("username")?, text("credential")?))
    });
    let Some((username, password)) = credential else {
        return vec![];
    };
    [Via::Udp, Via::Tcp, Via::Tls]
        .map(|via| {
            let transport = match via {
                Via::Udp => Transport::Udp,
                Via::Tcp => Transport::Tcp,
                Via::Tls => Transport::Tls,
            };
            let port = if via == Via::Tls { HTTPS } else { PORTS[0] };
            let address = SocketAddr::new(ADDRESSES[0], port);
            let (connector, counts) = (connector.clone(), Arc::clone(counts));
            Relay::Virtual(VirtualRelay {
                via,
                address,
                username: username.clone(),
                password: password.clone(),
                dial: Arc::new(move || {
                    if !passes(kind, via) {
                        return Err("the firewall refuses it".into());
                    }
                    let counts = Arc::clone(&counts);
                    let count = move |is_out| count(&counts, Protocol::Tcp, address, is_out);
                    let stream = connector.connect(transport, public, address, count);
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }),
            })
        })
        .into()
}

fn locked<T>(shared: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counts: &StdMutex<Counts>, protocol: Protocol, remote: SocketAddr, is_out: bool) {
    let mut counts = locked(counts);
    let count = counts.entry((protocol, remote)).or_default();
    match is_out {
        true => count.out += 1,
        false => count.r#in += 1,
    }
}

/// A box on loopback for signaling, which hands out the virtual relay's URLs.
fn start_box(secret: &str) -> Result<(Child, String), String> {
    let [ip, _] = ADDRESSES;
    let [port, _] = PORTS;
    // The relay is not the box's own: what switches that one off has to be carried out here.
    let urls = match std::env::var("CALLBOX_TURN__ENABLED").as_deref() {
        Ok("false") => format!("[\"stun:{ip}:{port}\"]"),
        _ => format!(
            "[\"stun:{ip}:{port}\",\"turn:{ip}:{port}?transport=udp\",\
             \"turn:{ip}:{port}?transport=tcp\",\"turns:{ip}:{HTTPS}?transport=tcp\"]"
        ),
    };
    let job = Job {
        command: vec![program()?.display().to_string()],
        caller: Caller::own()?,
        resolv: None,
        terminal: false,
        lab: std::process::id(),
    };
    let mut command = stage::command("@follow", &job)?;
    command
        .env("CALLBOX_HTTP__LISTEN", "[\"127.0.0.1:0\"]")
        .env("CALLBOX_TURN__UDP", "[\"127.0.0.1:0\"]")
        .env("CALLBOX_TURN__TCP", "[\"127.0.0.1:0\"]")
        .env("CALLBOX_TURN__SECRETS", format!("[\"{secret}\"]"))
        .env("CALLBOX_PUBLIC__ICE_URLS", urls)
        .env("CALLBOX_AUTH__MODE", "open")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| format!("the box cannot be started: {error}"))?;
    let stdout = child.stdout.take();
    let lines = stdout.map(|stdout| BufReader::new(stdout).lines());
    let url = lines
        .into_iter()
        .flatten()
        .map_while(Result::ok)
        .find_map(|line| {
            let begin = line.find("http://127.0.0.1:")?;
            let url = line[begin..].split_whitespace().next()?;
            Some(url.trim_end_matches('/').to_owned())
        });
    match url {
        Some(url) => Ok((child, url)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err("the box did not start: run `callbox check`".into())
        }
    }
}

/// The virtual Internet.
struct Wan {
    server: Arc<Net>,
    hosts: HashMap<(Kind, usize), Host>,
    routers: Vec<Arc<Mutex<Router>>>,
    ports: Vec<Arc<Mutex<Port>>>,
}

impl Wan {
    async fn build(wanted: &[(Kind, usize)]) -> Result<Self, Fault> {
        let root = router("198.18.0.0/15", None, None)?;
        let addresses = ADDRESSES.map(|ip| ip.to_string()).to_vec();
        let (server, port) = host(&root, addresses).await?;
        let mut wan = Self {
            server,
            hosts: HashMap::new(),
            routers: vec![Arc::clone(&root)],
            ports: vec![port],
        };
        // Hosts without a router of their own are counted where everything passes.
        let mut open: HashMap<IpAddr, Shared<Counts>> = HashMap::new();
        for (number, (kind, side)) in (2_u8..).zip(wanted) {
            let public = IpAddr::V4(Ipv4Addr::new(198, 18, 2, number));
            let counts = Shared::<Counts>::default();
            let (net, port) = if kind.rules().translates {
                let lan = router(
                    &format!("10.199.{number}.0/24"),
                    Some(public),
                    Some(nat_type(*kind)),
                )?;
                let (net, port) = host(&lan, vec![]).await?;
                root.lock().await.add_router(Arc::clone(&lan)).await?;
                let parent = Arc::clone(&root);
                lan.lock().await.set_router(parent).await?;
                let (passes, counts) = (kind.rules().udp, Arc::clone(&counts));
                let filter = Box::new(move |chunk: &(dyn Chunk + Send + Sync)| {
                    if passes {
                        let is_out = is_inside(chunk.get_source_ip());
                        let remote = match is_out {
                            true => chunk.destination_addr(),
                            false => chunk.source_addr(),
                        };
                        count(&counts, Protocol::Udp, remote, is_out);
                    }
                    passes
                });
                lan.lock().await.add_chunk_filter(filter).await;
                wan.routers.push(lan);
                (net, port)
            } else {
                open.insert(public, Arc::clone(&counts));
                host(&root, vec![public.to_string()]).await?
            };
            wan.ports.push(port);
            let key = (*kind, *side);
            wan.hosts.insert(
                key,
                Host {
                    net,
                    public,
                    counts,
                },
            );
        }
        let filter = Box::new(move |chunk: &(dyn Chunk + Send + Sync)| {
            let (from, to) = (chunk.source_addr(), chunk.destination_addr());
            if let Some(counts) = open.get(&from.ip()) {
                count(counts, Protocol::Udp, to, true);
            }
            if let Some(counts) = open.get(&to.ip()) {
                count(counts, Protocol::Udp, from, false);
            }
            true
        });
        root.lock().await.add_chunk_filter(filter).await;
        root.lock().await.start().await?;
        Ok(wan)
    }
}

fn is_inside(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10)
}

fn nat_type(kind: Kind) -> NatType {
    let rules = kind.rules();
    NatType {
        mapping_behavior: match rules.mapping {
            Mapping::Independent => EndpointDependencyType::EndpointIndependent,
            Mapping::AddressAndPort => EndpointDependencyType::EndpointAddrPortDependent,
        },
        filtering_behavior: match rules.filtering {
            Filtering::Independent => EndpointDependencyType::EndpointIndependent,
            Filtering::Address => EndpointDependencyType::EndpointAddrDependent,
            Filtering::AddressAndPort => EndpointDependencyType::EndpointAddrPortDependent,
        },
        mapping_life_time: LIFETIME,
        ..NatType::default()
    }
}

fn router(
    cidr: &str,
    public: Option<IpAddr>,
    nat_type: Option<NatType>,
) -> Result<Arc<Mutex<Router>>, Fault> {
    let router = Router::new(RouterConfig {
        cidr: cidr.into(),
        static_ips: public.into_iter().map(|ip| ip.to_string()).collect(),
        nat_type,
        ..RouterConfig::default()
    })?;
    Ok(Arc::new(Mutex::new(router)))
}

/// A host of `router`'s network; without `static_ips` it gets an address.
async fn host(
    router: &Arc<Mutex<Router>>,
    static_ips: Vec<String>,
) -> Result<(Arc<Net>, Arc<Mutex<Port>>), Fault> {
    let net = Arc::new(Net::new(Some(NetConfig {
        static_ips,
        ..NetConfig::default()
    })));
    let port = Arc::new(Mutex::new(Port::new(net.get_nic()?)));
    let nic: NicRef = port.clone();
    router.lock().await.add_net(nic).await?;
    let parent = Arc::clone(router);
    port.lock().await.set_router(parent).await?;
    Ok((net, port))
}

/// A queue between a router and a host. A router of webrtc-util 0.17.2 delivers under its lock and
/// waits for the host's, which a sender holds that waits for the router.
struct Port {
    host: NicRef,
    queue: mpsc::Sender<AnyChunk>,
}

impl Port {
    fn new(host: NicRef) -> Self {
        let (queue, mut queued) = mpsc::channel::<AnyChunk>(QUEUE);
        let to = Arc::clone(&host);
        tokio::spawn(async move {
            while let Some(chunk) = queued.recv().await {
                to.lock().await.on_inbound_chunk(chunk).await;
            }
        });
        Self { host, queue }
    }
}

#[async_trait]
impl Nic for Port {
    async fn get_interface(&self, name: &str) -> Option<Interface> {
        self.host.lock().await.get_interface(name).await
    }

    async fn add_addrs_to_interface(
        &mut self,
        name: &str,
        addresses: &[IpNet],
    ) -> Result<(), Fault> {
        let mut host = self.host.lock().await;
        host.add_addrs_to_interface(name, addresses).await
    }

    async fn on_inbound_chunk(&self, chunk: AnyChunk) {
        let _ = self.queue.try_send(chunk);
    }

    async fn get_static_ips(&self) -> Vec<IpAddr> {
        self.host.lock().await.get_static_ips().await
    }

    async fn set_router(&self, router: Arc<Mutex<Router>>) -> Result<(), Fault> {
        self.host.lock().await.set_router(router).await
    }
}
