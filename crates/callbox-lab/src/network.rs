//! A network of the lab: a namespace with one host, its router, and a probe that proves the NAT.

use crate::edge::{Gateway, PROBE_ANSWER, open_tun};
use crate::kind::{Filtering, Kind, Mapping, TcpRule};
use crate::link::Impairment;
use crate::nat::Counts;
use crate::netns::{Namespace, ip};
use crate::router::{Order, Router};
use crate::stun_server::PORTS;
use crate::wan::{Place, Plan, probe_address};
use callbox::cli::nat::{self, Discovery, Server};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket as StdSocket};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tun_rs::AsyncDevice;

/// How long a TCP probe may take: three SYNs (RFC 6298).
const TCP_WITHIN: Duration = Duration::from_secs(5);
/// How often the probe tries a connection that has to pass.
const TCP_TRIES: usize = 3;

/// What a network is to be.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The kind of its router.
    pub kind: Kind,
    /// What its link does to packets.
    pub impairment: Impairment,
    /// The host has no IPv4 address.
    pub v6_only: bool,
    /// The machine's network is reached.
    pub internet: bool,
}

/// A running network. It ends when it is dropped.
pub struct Network {
    /// What it is.
    pub settings: Settings,
    /// Its addresses.
    pub plan: Plan,
    /// Where its host is.
    pub inside: Namespace,
    /// The host's `resolv.conf`, where it has one of its own.
    pub resolv: Option<PathBuf>,
    v6: bool,
    orders: mpsc::Sender<Order>,
    router: JoinHandle<()>,
}

impl Network {
    /// Sets it up; nothing is proven yet.
    ///
    /// # Errors
    /// A sentence that says what the machine lacks.
    pub async fn start(settings: Settings) -> Result<Self, String> {
        let v6 = std::path::Path::new("/proc/net/if_inet6").exists();
        if settings.v6_only && !v6 {
            return Err("this machine's kernel has no IPv6: leave --v6-only out".into());
        }
        let inside = Namespace::new().await?;
        let runtime = Handle::current();
        let (place, tun) = inside
            .run(move || {
                let place = Place::claim(&runtime)?;
                let tun = host_inside(&runtime, settings, place.plan, v6)?;
                Ok::<(Place, AsyncDevice), String>((place, tun))
            })
            .await??;
        let plan = place.plan;
        let gateway = Gateway::new(plan, v6, settings.internet).await?;
        let resolv = match settings.internet {
            true => Some(write_resolv(&place, settings.v6_only)?),
            false => None,
        };
        let Settings {
            kind,
            impairment,
            internet,
            ..
        } = settings;
        let router = Router::new(kind, place, tun, gateway, impairment, internet);
        let (orders, todo) = mpsc::channel(16);
        Ok(Self {
            settings,
            plan,
            inside,
            resolv,
            v6,
            orders,
            router: tokio::spawn(router.run(todo)),
        })
    }

    /// Ends it, and waits until its place is given back.
    pub async fn close(self) {
        drop(self.orders);
        let _ = self.router.await;
    }

    /// What passed the router since [`Self::reset_counts`].
    pub async fn counts(&self) -> Counts {
        let (answer, counts) = oneshot::channel();
        let _ = self.orders.send(Order::Counts(answer)).await;
        counts.await.unwrap_or_default()
    }

    /// Returns when the router has done it: an answer to a later order says so. A connection that began
    /// before a move would be cut by it.
    async fn done(&self, order: Order) {
        let _ = self.orders.send(order).await;
        self.counts().await;
    }

    /// Counts from zero.
    pub async fn reset_counts(&self) {
        self.done(Order::Reset).await;
    }

    /// Forgets what was mapped and counted.
    pub async fn forget(&self) {
        self.done(Order::Forget).await;
    }

    /// Gives the network its second public IPv4 address, or the first one again: what leads to the
    /// other one is lost, as in a phone that changes from one network to another.
    ///
    /// # Errors
    /// A sentence.
    pub async fn move_to(&self, second: bool) -> Result<(), String> {
        if self.settings.kind.rules().translates {
            self.done(Order::Move { second }).await;
            return Ok(());
        }
        let [first, other] = [false, true].map(|second| self.plan.public_v4(second));
        let script = match second {
            true => format!(
                "address del {first}/32 dev cbx0\nroute replace default dev cbx0 src {other}\n"
            ),
            false => format!(
                "address replace {first}/32 dev cbx0\nroute replace default dev cbx0 src {first}\n"
            ),
        };
        self.inside.run(move || ip(&script)).await?
    }

    /// A file beside the network's place, which goes with it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.plan.file(name)
    }

    /// Proves that the network is of its kind, from the place where the command will be, and says
    /// what was found.
    ///
    /// # Errors
    /// A sentence that says what differs.
    pub async fn prove(&self) -> Result<String, String> {
        let family = async |v6: bool| {
            let is_there = if v6 { self.v6 } else { !self.settings.v6_only };
            if !is_there {
                return Ok(None);
            }
            let name = if v6 { "IPv6" } else { "IPv4" };
            let (udp, tcp) = tokio::join!(self.prove_udp(v6), self.prove_tcp(v6));
            Ok::<_, String>(Some(format!("{name} {}, {}", udp?, tcp?)))
        };
        let (v4, v6) = tokio::join!(family(false), family(true));
        let found: Vec<String> = [v4?, v6?].into_iter().flatten().collect();
        Ok(found.join("; "))
    }

    async fn prove_udp(&self, v6: bool) -> Result<String, String> {
        let host = self.host(v6);
        let sockets = self
            .inside
            .run(move || {
                let open = || {
                    let socket = StdSocket::bind((host, 0))?;
                    socket.set_nonblocking(true)?;
                    Ok::<_, io::Error>(socket)
                };
                Ok::<[StdSocket; 2], io::Error>([open()?, open()?])
            })
            .await?;
        let broken = |error: io::Error| format!("the probe has no socket: {error}");
        let [first, second] = sockets.map_err(broken)?;
        let first = UdpSocket::from_std(first).map_err(broken)?;
        let second = UdpSocket::from_std(second).map_err(broken)?;
        let server = Server {
            primary: SocketAddr::new(probe_address(v6, false), PORTS[0]),
            second_port: None,
        };
        let found = nat::discover(&first, &second, server)
            .await
            .map_err(broken)?;
        judge(self.settings.kind, found.as_ref())
    }

    async fn prove_tcp(&self, v6: bool) -> Result<&'static str, String> {
        const HELLO: &[u8] = &[22, 3, 1, 0, 0];
        let ask = async |port: u16, first: &'static [u8]| {
            let to = SocketAddr::new(probe_address(v6, false), port);
            self.inside.run(move || tcp_passes(to, first)).await
        };
        // What has to pass is tried again: the link may lose packets by wish.
        let passes = async |port: u16, first: &'static [u8]| {
            for _ in 1..TCP_TRIES {
                if ask(port, first).await? {
                    return Ok(true);
                }
            }
            ask(port, first).await
        };
        match self.settings.kind.rules().tcp {
            TcpRule::Any => match passes(80, b"GET").await? {
                true => Ok("TCP passes"),
                false => Err(unproven(self.settings.kind, "no TCP connection passes")),
            },
            TcpRule::TlsOn443 => {
                let found = [
                    passes(443, HELLO).await?,
                    ask(443, b"GET").await?,
                    ask(80, HELLO).await?,
                ];
                match found {
                    [true, false, false] => Ok("TLS on TCP 443 passes, other TCP is refused"),
                    found => Err(unproven(
                        self.settings.kind,
                        &format!("TLS on 443, HTTP on 443 and TLS on 80 pass as {found:?}"),
                    )),
                }
            }
        }
    }

    /// The host's own address.
    #[must_use]
    pub fn host(&self, v6: bool) -> IpAddr {
        let translates = self.settings.kind.rules().translates;
        match (translates, v6) {
            (true, false) => self.plan.inside_v4().into(),
            (true, true) => self.plan.inside_v6().into(),
            (false, false) => self.plan.public_v4(false).into(),
            (false, true) => self.plan.public_v6(false).into(),
        }
    }
}

/// Whether what a probe found is what `kind` says, and what it found.
///
/// # Errors
/// A sentence that says what differs.
pub fn judge(kind: Kind, found: Option<&Discovery>) -> Result<String, String> {
    let rules = kind.rules();
    let mapping = match (rules.translates, rules.mapping) {
        (false, _) => nat::Mapping::Untranslated,
        (true, Mapping::Independent) => nat::Mapping::EndpointIndependent,
        (true, Mapping::AddressAndPort) => nat::Mapping::AddressAndPortDependent,
    };
    let filtering = match rules.filtering {
        Filtering::Independent => nat::Filtering::EndpointIndependent,
        Filtering::Address => nat::Filtering::AddressDependent,
        Filtering::AddressAndPort => nat::Filtering::AddressAndPortDependent,
    };
    match found {
        None if !rules.udp => Ok("UDP dropped".into()),
        Some(found) if !rules.udp => Err(unproven(
            kind,
            &format!("UDP passed and was seen as {}", found.mapped),
        )),
        None => Err(unproven(kind, "no UDP datagram came back")),
        Some(found) if found.mapping == Some(mapping) && found.filtering == Some(filtering) => {
            Ok(format!("{mapping}/{filtering} as {}", found.mapped))
        }
        Some(found) => Err(unproven(
            kind,
            &format!(
                "the probe found {:?}/{:?}, and {mapping}/{filtering} was asked for",
                found.mapping, found.filtering
            ),
        )),
    }
}

fn unproven(kind: Kind, why: &str) -> String {
    format!("the network is not {kind} ({}): {why}", kind.rules())
}

fn host_inside(
    runtime: &Handle,
    settings: Settings,
    plan: Plan,
    v6: bool,
) -> Result<AsyncDevice, String> {
    let tun = open_tun(runtime, "cbx0")?;
    let mut script = String::from("link set lo up\nlink set cbx0 up\n");
    let translates = settings.kind.rules().translates;
    if !settings.v6_only {
        let own: &[String] = &match translates {
            true => vec![format!("{}/24", plan.inside_v4())],
            false => [false, true]
                .map(|second| format!("{}/32", plan.public_v4(second)))
                .to_vec(),
        };
        for address in own {
            script += &format!("address add {address} dev cbx0\n");
        }
        let first = own[0].split('/').next().unwrap_or_default();
        script += &format!("route add default dev cbx0 src {first}\n");
    }
    if v6 {
        let own = match translates {
            true => vec![format!("{}/64", plan.inside_v6())],
            false => [false, true]
                .map(|second| format!("{}/128", plan.public_v6(second)))
                .to_vec(),
        };
        for address in &own {
            script += &format!("address add {address} dev cbx0 nodad\n");
        }
        let first = own[0].split('/').next().unwrap_or_default();
        script += &format!("route add ::/0 dev cbx0 src {first}\n");
    }
    ip(&script)?;
    Ok(tun)
}

/// The machine's `resolv.conf` with the router as the name server.
fn write_resolv(place: &Place, v6_only: bool) -> Result<PathBuf, String> {
    let [v4, v6] = place.plan.router();
    let router = if v6_only { v6 } else { v4 };
    let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let kept = machine
        .lines()
        .filter(|line| line.starts_with("search") || line.starts_with("domain"));
    let mut text = format!("nameserver {router}\n");
    kept.for_each(|line| text += &format!("{line}\n"));
    let path = place.file("resolv");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Whether a connection is made, and what is sent first reaches the far end. Blocks.
fn tcp_passes(to: SocketAddr, first: &[u8]) -> bool {
    let talk = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&to, TCP_WITHIN)?;
        stream.set_read_timeout(Some(TCP_WITHIN))?;
        stream.write_all(first)?;
        let mut answer = [0; PROBE_ANSWER.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer == PROBE_ANSWER)
    };
    talk().unwrap_or(false)
}
