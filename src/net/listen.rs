//! Binding listeners, with errors that name the port's holder and the key to change.

use super::owner;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Connections that wait for `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BindError {
    message: String,
    kernel: io::Error,
}

impl BindError {
    /// Whether another program has the port.
    pub fn is_taken(&self) -> bool {
        self.kernel.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether the machine lacks the whole family of a wildcard address, while `listed` has
    /// the same port on the other family's: that pair means "everywhere".
    pub fn is_half_of_pair(&self, address: SocketAddr, listed: &[SocketAddr]) -> bool {
        let other = |a: &SocketAddr| {
            a.ip().is_unspecified()
                && a.port() == address.port()
                && a.is_ipv4() != address.is_ipv4()
        };
        lacks_family(&self.kernel) && address.ip().is_unspecified() && listed.iter().any(other)
    }

    /// Whether the machine lacks this address or its whole family.
    pub fn is_absent_address(&self) -> bool {
        matches!(
            self.kernel.raw_os_error(),
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
        )
    }
}

/// Asks for as many file descriptors as the process may have: each relayed address and each
/// connection is one, and shells start programs with 1,024 though they may have far more.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // A sandbox may refuse; then the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Descriptors of a process that are neither clients' nor relays': listeners of each worker, epoll
/// sets, timers, files.
const OWN_DESCRIPTORS: u64 = 128;

/// How many connections this process has descriptors for, once as many as `relays` are reserved;
/// relays get half of what there is at most.
pub fn connection_budget(relays: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let budget = share_of(limit, relays);
    budget - super::connections::FILES.min(budget / 4)
}

fn share_of(limit: u64, relays: u32) -> u32 {
    let free = limit.saturating_sub(OWN_DESCRIPTORS.min(limit / 4));
    let left = free - u64::from(relays).min(free / 2);
    left.try_into().unwrap_or(u32::MAX)
}

/// Binds a TCP listener for the configuration key `key`.
///
/// # Errors
/// The address is taken, absent or not permitted; the message says which, and the fix.
pub fn tcp(address: SocketAddr, key: &str) -> Result<TcpListener, BindError> {
    let bind = |waits| {
        let socket = open(address, Type::STREAM, Protocol::TCP, waits)?;
        // Connections of an earlier run in TIME_WAIT do not hold the port; a listener still does.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind_or_wait(address, key, bind).map_err(|source| worded("tcp", address, key, source))
}

/// Binds a UDP socket for the configuration key `key`.
///
/// # Errors
/// As [`tcp`].
pub fn udp(address: SocketAddr, key: &str) -> Result<UdpSocket, BindError> {
    let bind = |waits| {
        let socket = open(address, Type::DGRAM, Protocol::UDP, waits)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind_or_wait(address, key, bind).map_err(|source| worded("udp", address, key, source))
}

/// An address that is written down and not there yet (a lease that has not come, a floating address
/// that another machine holds) is bound all the same, and served once it comes.
fn bind_or_wait<T>(
    address: SocketAddr,
    key: &str,
    bind: impl Fn(bool) -> io::Result<T>,
) -> io::Result<T> {
    match bind(false) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && address.port() != 0 => {
            let bound = bind(true).map_err(|_| error)?;
            tracing::warn!(
                "{key} names {address}, but no interface of this machine has that address: it is \
                 served once one has"
            );
            Ok(bound)
        }
        other => other,
    }
}

fn open(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    is_absent: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `0.0.0.0` and `[::]` are listed and bound side by side.
        socket.set_only_v6(true)?;
    }
    match address {
        _ if !is_absent => {}
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn lacks_family(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

fn worded(protocol: &str, address: SocketAddr, key: &str, source: io::Error) -> BindError {
    let port = address.port();
    let message = match source.kind() {
        io::ErrorKind::AddrInUse => match owner::of_address(protocol, address) {
            Some(owner) => {
                format!("port {port}/{protocol} is taken by {owner}: stop it, or set {key}")
            }
            None => format!(
                "port {port}/{protocol} is taken by another process: \
                 `ss -lpn sport = {port}` as root names it; stop it, or set {key}"
            ),
        },
        io::ErrorKind::PermissionDenied => format!(
            "port {port}/{protocol} needs a privilege below 1024: grant CAP_NET_BIND_SERVICE \
             (the systemd unit does), or set {key} to a higher port"
        ),
        _ if lacks_family(&source) => {
            let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
            format!(
                "{key} names {address}, but this machine has no {family}: take \"{address}\" out \
                 of {key}"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{key} names {address}, but no interface of this machine has that address")
        }
        _ => format!("{key} names {address}, which could not be bound: {source}"),
    };
    BindError {
        message,
        kernel: source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder_and_the_key() {
        let held = udp("127.0.0.1:0".parse().unwrap(), "turn.udp").unwrap();
        let error = udp(held.local_addr().unwrap(), "turn.udp")
            .unwrap_err()
            .to_string();
        let port = held.local_addr().unwrap().port();
        let pid = std::process::id();
        assert!(
            error.starts_with(&format!("port {port}/udp is taken by pid {pid} (")),
            "{error}"
        );
        assert!(error.ends_with("stop it, or set turn.udp"), "{error}");
        let held = tcp("127.0.0.1:0".parse().unwrap(), "http.listen").unwrap();
        let error = tcp(held.local_addr().unwrap(), "http.listen").unwrap_err();
        assert!(error.to_string().contains("set http.listen"));
        assert!(!error.is_absent_address());
    }

    #[test]
    fn a_family_that_the_machine_lacks_is_passed_over_where_the_other_one_is_listed() {
        let lacks = || io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        let v6: SocketAddr = "[::]:443".parse().unwrap();
        let error = worded("tcp", v6, "tls.listen", lacks());
        let shown = error.to_string();
        assert!(shown.contains("no IPv6") && shown.contains("take \"[::]:443\" out of tls.listen"));
        let listed = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|a| a.parse().unwrap()).collect()
        };
        assert!(error.is_half_of_pair(v6, &listed(&["0.0.0.0:443", "[::]:443"])));
        assert!(!error.is_half_of_pair(v6, &listed(&["0.0.0.0:80", "[::]:443"])));
        assert!(!error.is_half_of_pair(v6, &listed(&["[::]:443"])));
        let one = "[::1]:443".parse().unwrap();
        assert!(!error.is_half_of_pair(one, &listed(&["0.0.0.0:443"])));
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_bound_all_the_same() {
        let port = udp("127.0.0.1:0".parse().unwrap(), "x")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let absent = SocketAddr::from(([192, 0, 2, 1], port));
        assert_eq!(
            udp(absent, "turn.udp").unwrap().local_addr().unwrap(),
            absent
        );
        assert_eq!(
            tcp(absent, "turn.tcp").unwrap().local_addr().unwrap(),
            absent
        );
    }

    #[test]
    fn descriptors_are_reserved_for_relays() {
        assert_eq!(share_of(524_288, 10_000), 514_160);
        assert_eq!(share_of(1_024, 10_000), 448);
        assert_eq!(share_of(1_024, 100), 796);
        assert_eq!(share_of(u64::MAX, 10_000), u32::MAX);
        assert_eq!(share_of(0, 10_000), 0);
        assert!(share_of(64, 10_000) >= 24);
    }

    #[test]
    fn an_address_of_another_machine_is_told() {
        let error = udp("192.0.2.1:0".parse().unwrap(), "turn.udp").unwrap_err();
        assert!(error.is_absent_address());
        assert!(error.to_string().contains("192.0.2.1"));
    }
}
