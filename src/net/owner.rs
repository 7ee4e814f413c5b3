//! Who holds a port, as `/proc` tells: for the error of a listener that could not be bound.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Its command, at most 15 bytes.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// Finds the process with a listening or bound socket that keeps `address` from being bound;
/// `protocol` is `tcp` or `udp`.
///
/// `None` where it belongs to another user, or to another network namespace.
pub fn of_address(protocol: &str, address: SocketAddr) -> Option<Owner> {
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/net/{protocol}{family}")).ok())
        .flat_map(|table| inodes_of(&table, protocol, address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| {
                fs::read_link(fd.path())
                    .is_ok_and(|to| inodes.iter().any(|i| to.as_os_str() == i.as_str()))
            });
        let name = || {
            Some(
                fs::read_to_string(entry.path().join("comm"))
                    .ok()?
                    .trim()
                    .to_owned(),
            )
        };
        holds.then(name).flatten().map(|name| Owner { pid, name })
    })
}

/// Reads one table of proc_net(5): the second column is the local `ADDRESS:PORT` in hex, the
/// fourth the state, the tenth the inode.
fn inodes_of(table: &str, protocol: &str, address: SocketAddr) -> Vec<String> {
    const TCP_LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (local, port) = columns.get(1)?.rsplit_once(':')?;
            let local = parse_ip(local)?;
            let same_address =
                local == address.ip() || local.is_unspecified() || address.ip().is_unspecified();
            let holds = u16::from_str_radix(port, 16).ok()? == address.port()
                && same_address
                && (protocol == "udp" || *columns.get(3)? == TCP_LISTEN);
            holds
                .then(|| columns.get(9).map(|inode| (*inode).to_owned()))
                .flatten()
        })
        .collect()
}

/// The kernel prints an address as 32-bit words in the machine's own byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(
            u32::from_str_radix(hex.get(at..at + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let owner = of_address("udp", udp.local_addr().unwrap()).unwrap();
        assert_eq!(owner.pid, std::process::id());
        let tcp = std::net::TcpListener::bind("[::1]:0")
            .or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let owner = of_address("tcp", tcp.local_addr().unwrap()).unwrap();
        assert_eq!(owner.pid, std::process::id());
    }
}
