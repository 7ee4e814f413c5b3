//! Where the nodes and the clients of a fleet are: each process of clients in a network namespace of its own, behind a veth
//! pair, or all of them on loopback where the caller may not make namespaces.

use crate::common::process::ip;
use anyhow::Result;
use std::net::Ipv4Addr;
use std::process::Command;

/// Addresses of one process of clients.
const SOURCES: u8 = 50;
/// RFC 2544's benchmarking range.
const NETWORK: [u8; 2] = [198, 19];
const NODES: u8 = 240;

pub(super) struct Place {
    pub(super) nodes: [Ipv4Addr; 2],
    sources: Vec<Vec<Ipv4Addr>>,
    namespaces: Vec<Namespace>,
}

impl Place {
    pub(super) fn make(parts: usize) -> Result<Self> {
        let [a, b] = NETWORK;
        let nodes = [1, 2].map(|host| Ipv4Addr::new(a, b, NODES, host));
        let made = (0..parts).map(|index| Namespace::make(index as u8, &nodes));
        match made.collect::<Result<Vec<_>>>() {
            Ok(namespaces) => Ok(Self {
                nodes,
                sources: namespaces
                    .iter()
                    .map(|space| space.sources.clone())
                    .collect(),
                namespaces,
            }),
            Err(error) => {
                eprintln!(
                    "clients are on loopback, not in namespaces of their own, which takes root and `ip`: {error:#}"
                );
                let sources =
                    |part| (1..=SOURCES).map(move |host| Ipv4Addr::new(127, 0, 20 + part, host));
                Ok(Self {
                    nodes: [10, 11].map(|host| Ipv4Addr::new(127, 0, 0, host)),
                    sources: (0..parts as u8)
                        .map(|part| sources(part).collect())
                        .collect(),
                    namespaces: vec![],
                })
            }
        }
    }

    pub(super) fn sources(&self, part: usize) -> &[Ipv4Addr] {
        &self.sources[part]
    }

    /// This program, where a process of clients belongs.
    pub(super) fn command(&self, part: usize) -> Result<Command> {
        let program = std::env::current_exe()?;
        Ok(match self.namespaces.get(part) {
            // `ip netns exec` becomes the program.
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &space.name]).arg(program);
                command
            }
            None => Command::new(program),
        })
    }

    /// For the table.
    pub(super) fn said(&self) -> String {
        let addresses = self.sources.iter().map(Vec::len).sum::<usize>();
        match self.namespaces.len() {
            0 => format!("{addresses} on loopback"),
            spaces => format!("{addresses} in {spaces} namespaces"),
        }
    }
}

/// A namespace with addresses of clients, gone when dropped; the addresses of nodes are on the other end of the first.
struct Namespace {
    name: String,
    outside: String,
    sources: Vec<Ipv4Addr>,
}

impl Namespace {
    fn make(index: u8, nodes: &[Ipv4Addr]) -> Result<Self> {
        let [a, b] = NETWORK;
        let gateway = Ipv4Addr::new(a, b, index, 1);
        let inside = format!("cbfleet-in{index}");
        let space = Self {
            name: format!("callbox-fleet-{index}"),
            outside: format!("cbfleet-out{index}"),
            sources: (0..SOURCES)
                .map(|host| Ipv4Addr::new(a, b, index, 10 + host))
                .collect(),
        };
        // What an interrupted run left behind is in the way.
        space.remove();
        let Self { name, outside, .. } = &space;
        ip(&["netns", "add", name])?;
        ip(&[
            "link", "add", outside, "type", "veth", "peer", "name", &inside,
        ])?;
        ip(&["link", "set", &inside, "netns", name])?;
        ip(&["address", "add", &format!("{gateway}/24"), "dev", outside])?;
        if index == 0 {
            for node in nodes {
                ip(&["address", "add", &format!("{node}/32"), "dev", outside])?;
            }
        }
        ip(&["link", "set", outside, "up"])?;
        for source in &space.sources {
            let address = format!("{source}/24");
            ip(&["-n", name, "address", "add", &address, "dev", &inside])?;
        }
        ip(&["-n", name, "link", "set", &inside, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&[
            "-n",
            name,
            "route",
            "add",
            "default",
            "via",
            &gateway.to_string(),
        ])?;
        Ok(space)
    }

    fn remove(&self) {
        // Absent ones are what is wanted; the pair goes with either of its ends.
        for words in [
            ["link", "delete", &*self.outside],
            ["netns", "delete", &*self.name],
        ] {
            let _ = Command::new("ip").args(words).output();
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}
