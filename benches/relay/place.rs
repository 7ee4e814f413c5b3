//! Where server, clients and peers live: on loopback, or with the server in a network namespace
//! behind a veth pair, whose receive path has real GRO.

use super::kind::Kind;
use super::sys;
use crate::common::process::ip;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

/// One address for each kind of server.
const SERVERS: u8 = Kind::ALL.len() as u8;
const NAMESPACE: &str = "callbox-bench";
const INSIDE: &str = "cbbench-in";
const OUTSIDE: &str = "cbbench-out";

/// Addresses of the three parties. Each has its own, and so has each server, so that the ports of
/// clients, relays and peers do not meet.
pub(crate) struct Place {
    servers: Vec<Ipv4Addr>,
    /// Clients take them in turn, since servers limit what one source may ask.
    pub(crate) clients: Vec<Ipv4Addr>,
    pub(crate) peer: Ipv4Addr,
    namespace: Option<Veth>,
}

impl Place {
    pub(crate) fn loopback() -> Self {
        Self {
            servers: (1..=SERVERS)
                .map(|host| Ipv4Addr::new(127, 0, 4, host))
                .collect(),
            clients: (1..=50)
                .map(|host| Ipv4Addr::new(127, 0, 3, host))
                .collect(),
            peer: Ipv4Addr::new(127, 0, 0, 30),
            namespace: None,
        }
    }

    /// RFC 2544's benchmarking range, on both ends of a veth pair.
    ///
    /// # Errors
    /// The caller may not make namespaces (it has to be root), or `ip` is missing.
    pub(crate) fn veth() -> Result<Self> {
        let servers: Vec<_> = (1..=SERVERS)
            .map(|host| Ipv4Addr::new(198, 18, 77, host))
            .collect();
        let clients = vec![Ipv4Addr::new(198, 18, 77, 20)];
        let peer = Ipv4Addr::new(198, 18, 77, 30);
        let namespace = Some(Veth::make(&servers, &[clients[0], peer])?);
        Ok(Self {
            servers,
            clients,
            peer,
            namespace,
        })
    }

    /// Where a server of this kind listens and relays.
    pub(crate) fn server(&self, kind: Kind) -> Ipv4Addr {
        self.servers[kind as usize]
    }

    /// A command that runs where the server belongs.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        if self.namespace.is_none() {
            return Command::new(program);
        }
        // `ip netns exec` becomes the program: its process id is the server's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACE]).arg(program);
        command
    }
}

/// The pair and its namespace, gone when dropped.
struct Veth;

impl Veth {
    fn make(inside: &[Ipv4Addr], outside: &[Ipv4Addr]) -> Result<Self> {
        // What an interrupted run left behind is in the way.
        remove();
        ip(&["netns", "add", NAMESPACE])?;
        let made = Self;
        ip(&[
            "link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE,
        ])?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        for interface in [OUTSIDE, INSIDE] {
            sys::enable_interface_gro(&socket, interface).context("switching GRO on")?;
        }
        ip(&["link", "set", INSIDE, "netns", NAMESPACE])?;
        for address in outside {
            ip(&["address", "add", &format!("{address}/24"), "dev", OUTSIDE])?;
        }
        ip(&["link", "set", OUTSIDE, "up"])?;
        for address in inside {
            let address = format!("{address}/24");
            ip(&["-n", NAMESPACE, "address", "add", &address, "dev", INSIDE])?;
        }
        ip(&["-n", NAMESPACE, "link", "set", INSIDE, "up"])?;
        ip(&["-n", NAMESPACE, "link", "set", "lo", "up"])?;
        Ok(made)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    // Absent ones are what is wanted; the pair goes with either of its ends.
    let _ = Command::new("ip")
        .args(["link", "delete", OUTSIDE])
        .output();
    let _ = Command::new("ip")
        .args(["netns", "delete", NAMESPACE])
        .output();
}
