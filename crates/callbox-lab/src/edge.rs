//! From the lab to the machine's own network, and the Internet if there is one.
//!
//! Packets end here: each UDP mapping has a socket of the machine, each TCP connection is accepted
//! in a namespace where every address leads to one listener, and made again from the machine.
//! So no packet of the lab is forwarded by the machine, and its firewall and routing stay as they
//! are, whatever they are.

use crate::netns::{Namespace, ip, nft};
use crate::packet::{Packet, Protocol};
use crate::wan::{Plan, is_of_the_lab, probe_address};
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// A little longer than a NAT keeps a mapping that is idle.
const UDP_IDLE: Duration = Duration::from_secs(180);
/// UDP sockets open at once; beyond that the one that is idle the longest goes.
const MAX_UDP: usize = 2_048;
/// TCP connections at once; beyond that new ones are reset.
const MAX_TCP: usize = 1_024;
/// Datagrams that wait for the router; beyond that they are dropped.
const QUEUE: usize = 1_024;
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const DNS: u16 = 53;
/// The well-known prefix of NAT64 (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
/// The gateway's own address, which nothing else has.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0xffff, 0, 0, 0, 0xfe);
/// What the listener answers where a probe asks.
pub const PROBE_ANSWER: &[u8] = b"cbx";

/// A datagram from the machine's network.
pub struct Arrival {
    /// With the addresses that the lab knows.
    pub packet: Packet,
    /// From the router's own resolver: no NAT in between.
    pub from_router: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Via {
    Direct,
    Nat64,
    Resolver(SocketAddr),
}

struct Port {
    /// Sends at once; the reader's handle of the same socket would first wait for readiness.
    sender: std::net::UdpSocket,
    used: Instant,
    reader: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The sockets of one network on the machine.
pub struct Edge {
    ports: HashMap<(SocketAddr, Via), Port>,
    arrivals: mpsc::Sender<Arrival>,
    resolver: Option<IpAddr>,
}

impl Edge {
    /// Sockets are opened as they are needed.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, arrived) = mpsc::channel(QUEUE);
        let edge = Self {
            ports: HashMap::new(),
            arrivals,
            resolver: resolver(),
        };
        (edge, arrived)
    }

    /// Sends a datagram from a socket that stands for its source.
    pub fn send(&mut self, now: Instant, packet: &Packet) {
        let (via, to) = match embedded_v4(packet.dst.ip()) {
            Some(ip) => (Via::Nat64, SocketAddr::new(ip.into(), packet.dst.port())),
            None => (Via::Direct, packet.dst),
        };
        self.send_via(now, packet, via, to);
    }

    /// Sends a query to the machine's name server.
    pub fn resolve(&mut self, now: Instant, packet: &Packet) {
        if let Some(resolver) = self.resolver {
            let to = SocketAddr::new(resolver, DNS);
            self.send_via(now, packet, Via::Resolver(packet.dst), to);
        }
    }

    fn send_via(&mut self, now: Instant, packet: &Packet, via: Via, to: SocketAddr) {
        let key = (packet.src, via);
        if !self.ports.contains_key(&key) {
            self.make_room(now);
            let Ok(port) = self.open(now, packet.src, via, to) else {
                return;
            };
            self.ports.insert(key, port);
        }
        if let Some(port) = self.ports.get_mut(&key) {
            port.used = now;
            // What the machine refuses to send is lost, as on any way.
            let _ = port.sender.send_to(packet.payload(), to);
        }
    }

    fn open(&self, now: Instant, owner: SocketAddr, via: Via, to: SocketAddr) -> io::Result<Port> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The same port if it is free: that keeps a mapping's number to the outside.
        let socket = std::net::UdpSocket::bind((any, owner.port()))
            .or_else(|_| std::net::UdpSocket::bind((any, 0)))?;
        socket.set_nonblocking(true)?;
        let sender = socket.try_clone()?;
        let socket = UdpSocket::from_std(socket)?;
        let reader = tokio::spawn(read(socket, owner, via, self.arrivals.clone()));
        Ok(Port {
            sender,
            used: now,
            reader,
        })
    }

    fn make_room(&mut self, now: Instant) {
        if self.ports.len() < MAX_UDP {
            return;
        }
        let oldest = self.ports.values().map(|port| port.used).min();
        self.ports.retain(|_, port| {
            now.saturating_duration_since(port.used) < UDP_IDLE && Some(port.used) != oldest
        });
    }
}

async fn read(socket: UdpSocket, owner: SocketAddr, via: Via, arrivals: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier datagram; the next read is about the next one.
            tokio::task::yield_now().await;
            continue;
        };
        let from = match (via, from) {
            (Via::Direct, from) => from,
            (Via::Nat64, SocketAddr::V4(from)) => {
                SocketAddr::new(nat64(*from.ip()).into(), from.port())
            }
            (Via::Nat64, SocketAddr::V6(_)) => continue,
            (Via::Resolver(asked), _) => asked,
        };
        let arrival = Arrival {
            packet: Packet::udp(from, owner, &buffer[..length]),
            from_router: matches!(via, Via::Resolver(_)),
        };
        match arrivals.try_send(arrival) {
            Err(mpsc::error::TrySendError::Closed(_)) => return,
            // A full queue drops, as a router's does.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
        }
    }
}

/// Where TCP ends: a namespace that takes all packets for its own.
pub struct Gateway {
    /// Packets to and from it.
    pub tun: AsyncDevice,
    listeners: Vec<JoinHandle<()>>,
    _namespace: Namespace,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

impl Gateway {
    /// Sets it up. Connections are made from the machine if `internet`, else only probes are
    /// answered.
    ///
    /// # Errors
    /// A sentence.
    pub async fn new(plan: Plan, v6: bool, internet: bool) -> Result<Self, String> {
        let namespace = Namespace::new().await?;
        let runtime = Handle::current();
        let (tun, sockets) = namespace
            .run(move || gateway_inside(&runtime, v6))
            .await??;
        let permits = Arc::new(Semaphore::new(MAX_TCP));
        let mut listeners = vec![];
        for socket in sockets {
            let listener = TcpListener::from_std(socket).map_err(|error| error.to_string())?;
            let permits = Arc::clone(&permits);
            listeners.push(tokio::spawn(accept(listener, permits, plan, internet)));
        }
        Ok(Self {
            tun,
            listeners,
            _namespace: namespace,
        })
    }
}

fn gateway_inside(runtime: &Handle, v6: bool) -> Result<(AsyncDevice, Vec<StdListener>), String> {
    let tun = open_tun(runtime, "cbxgw")?;
    let mut script = format!(
        "link set lo up\nlink set cbxgw up\naddress add {GATEWAY_V4}/32 dev cbxgw\n\
         route add default dev cbxgw\n"
    );
    if v6 {
        script += &format!("address add {GATEWAY_V6}/128 dev cbxgw nodad\n");
        script += "route add ::/0 dev cbxgw\n";
    }
    ip(&script)?;
    let mut listeners = vec![];
    let mut rules = String::from(
        "table inet cbx {\n chain redirect_all {\n  type nat hook prerouting priority dstnat\n",
    );
    let families: &[(&str, &str)] = match v6 {
        false => &[("ipv4", "0.0.0.0:0")],
        true => &[("ipv4", "0.0.0.0:0"), ("ipv6", "[::]:0")],
    };
    for (family, any) in families {
        let broken = |error: io::Error| format!("no listener in the gateway: {error}");
        let listener = listen(any).map_err(broken)?;
        let port = listener.local_addr().map_err(broken)?.port();
        rules += &format!("  meta nfproto {family} meta l4proto tcp redirect to :{port}\n");
        listeners.push(listener);
    }
    nft(&(rules + " }\n}\n"))?;
    Ok((tun, listeners))
}

fn listen(any: &str) -> io::Result<StdListener> {
    let address: SocketAddr = any.parse().map_err(io::Error::other)?;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(256)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Opens a TUN device in the namespace of the calling thread.
///
/// # Errors
/// A sentence.
pub fn open_tun(runtime: &Handle, name: &str) -> Result<AsyncDevice, String> {
    let _entered = runtime.enter();
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(1_500)
        .enable(false)
        .build_async();
    device.map_err(|error| {
        format!(
            "/dev/net/tun cannot be used ({error}): load the kernel module tun; in a container, \
             give it --device /dev/net/tun and CAP_NET_ADMIN"
        )
    })
}

async fn accept(listener: TcpListener, permits: Arc<Semaphore>, plan: Plan, internet: bool) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            reset(&stream);
            continue;
        };
        tokio::spawn(async move {
            serve(stream, plan, internet).await;
            drop(permit);
        });
    }
}

async fn serve(mut stream: TcpStream, plan: Plan, internet: bool) {
    let Some(asked) = original_destination(&stream) else {
        return reset(&stream);
    };
    let probes = [false, true].map(|v6| probe_address(v6, false));
    if probes.contains(&asked.ip()) {
        let mut first = [0];
        if stream.read_exact(&mut first).await.is_ok() {
            let _ = stream.write_all(PROBE_ANSWER).await;
            let _ = stream.shutdown().await;
        }
        return;
    }
    let to = destination(asked, plan).filter(|to| internet && !is_of_the_lab(to.ip()));
    let Some(to) = to else {
        return reset(&stream);
    };
    match timeout(CONNECT_WITHIN, TcpStream::connect(to)).await {
        Ok(Ok(mut machine)) => {
            let _ = stream.set_nodelay(true);
            let _ = machine.set_nodelay(true);
            if copy_bidirectional(&mut stream, &mut machine).await.is_err() {
                reset(&stream);
            }
        }
        _ => reset(&stream),
    }
}

/// Where a connection goes on the machine's network.
fn destination(asked: SocketAddr, plan: Plan) -> Option<SocketAddr> {
    if plan.router().contains(&asked.ip()) {
        let resolver = resolver().filter(|_| asked.port() == DNS)?;
        return Some(SocketAddr::new(resolver, DNS));
    }
    match embedded_v4(asked.ip()) {
        Some(ip) => Some(SocketAddr::new(ip.into(), asked.port())),
        None => Some(asked),
    }
}

fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match stream.local_addr().ok()? {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    address.ok()?.as_socket()
}

/// The client is to see a connection that was refused, not one that ended well.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether the machine's network is asked for this packet at all.
#[must_use]
pub fn is_outside(packet: &Packet) -> bool {
    let unroutable = match packet.dst.ip() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
        }
    };
    !unroutable && !is_of_the_lab(packet.dst.ip())
}

/// Whether a packet asks the router's name server.
#[must_use]
pub fn is_query(packet: &Packet, plan: Plan) -> bool {
    packet.dst.port() == DNS
        && packet.protocol == Protocol::Udp
        && plan.router().contains(&packet.dst.ip())
}

fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let segments = ip.segments();
    let [a, b] = segments[6].to_be_bytes();
    let [c, d] = segments[7].to_be_bytes();
    (segments[..6] == NAT64).then(|| Ipv4Addr::new(a, b, c, d))
}

fn nat64(ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = ip.octets();
    let [s, t, ..] = NAT64;
    let high = u16::from_be_bytes([a, b]);
    let low = u16::from_be_bytes([c, d]);
    Ipv6Addr::new(s, t, 0, 0, 0, 0, high, low)
}

/// The machine's first name server.
fn resolver() -> Option<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nat64_addresses_carry_the_ipv4_address() {
        let ip = Ipv4Addr::new(192, 0, 2, 33);
        assert_eq!(nat64(ip).to_string(), "64:ff9b::c000:221");
        assert_eq!(embedded_v4(nat64(ip).into()), Some(ip));
        assert_eq!(embedded_v4("2001:db8::1".parse().unwrap()), None);
    }
}
