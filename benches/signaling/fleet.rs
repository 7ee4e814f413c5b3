//! A fleet comes back: clients of two nodes, each over TLS with a relay, whose nodes die at once and start cold.
//!
//! The clients are in processes of their own ([`part`]), each in a network namespace where that may be made.

pub(super) mod part;
mod place;

use super::cluster::{Redis, is_ready};
use super::servers::Launcher;
use crate::common::process::ServerProcess;
use crate::common::report::{Table, figure, machine};
use crate::common::sched;
use anyhow::{Context, Result, bail, ensure};
use part::{Part, Tally};
use place::Place;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Processes that the clients are in.
const PARTS: usize = 4;
/// Descriptors of a process beside those of clients.
const SPARE: u64 = 1_000;
/// The longest wait for a fleet.
const TIMEOUT: Duration = Duration::from_secs(120);
const READY: Duration = Duration::from_secs(20);
const SAID: Duration = Duration::from_secs(2);
/// How long Redis may take to save the sessions of the clients that came last.
const SAVE_DELAY: Duration = Duration::from_secs(2);
const NODES: [&str; 2] = ["a", "b"];
const HTTP: u16 = 24_080;
const TLS: u16 = 24_443;
const TURN: u16 = 24_478;
/// Above the ports of servers and below none: 35,000 of them.
const RELAY_PORTS: &str = "30000-65535";

struct Node {
    name: &'static str,
    address: Ipv4Addr,
}

impl Node {
    fn tls(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, TLS)
    }

    /// Starts it; it is not ready yet.
    fn start(&self, launcher: &Launcher, redis: &Redis, quota: usize) -> Result<ServerProcess> {
        let folder = launcher.folder();
        let at = |port| SocketAddrV4::new(self.address, port).to_string();
        let file = |name: &str| folder.join(name).display().to_string();
        let log = File::create(folder.join(format!("fleet-{}.log", self.name)))?;
        let mut command = Command::new(launcher.program());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (key, value) in [
            ("HTTP__LISTEN", at(HTTP)),
            ("HTTP__PAGES", "false".to_owned()),
            ("TLS__LISTEN", at(TLS)),
            ("TLS__CERT", file("fleet-cert.pem")),
            ("TLS__KEY", file("fleet-key.pem")),
            ("PUBLIC__ADDRESS", self.address.to_string()),
            ("AUTH__MODE", "open".to_owned()),
            ("LOG__LEVEL", "warn".to_owned()),
            ("TURN__UDP", at(TURN)),
            ("TURN__TCP", at(TURN)),
            ("TURN__TOTAL_QUOTA", quota.to_string()),
            ("TURN__RELAY_PORTS", RELAY_PORTS.to_owned()),
            ("TURN__SECRETS", "0123456789abcdef".repeat(2)),
            ("ROOMS__MAX_ROOMS", "100000".to_owned()),
            ("CLUSTER__REDIS", redis.url()),
            ("CLUSTER__SECRET", "s".repeat(32)),
            ("CLUSTER__NODE", self.name.to_owned()),
        ] {
            command.env(format!("CALLBOX_{key}"), value);
        }
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(ServerProcess::child(child))
    }
}

/// Starts both and waits until they serve; what they do from their start on is counted.
fn start(
    nodes: &[Node; 2],
    launcher: &Launcher,
    redis: &Redis,
    quota: usize,
) -> Result<[ServerProcess; 2]> {
    let mut processes = [
        nodes[0].start(launcher, redis, quota)?,
        nodes[1].start(launcher, redis, quota)?,
    ];
    let started = Instant::now();
    for (node, process) in nodes.iter().zip(&mut processes) {
        while !is_ready(SocketAddrV4::new(node.address, HTTP)) {
            let log = launcher.folder().join(format!("fleet-{}.log", node.name));
            ensure!(
                !process.has_ended() && started.elapsed() < READY,
                "a node does not get ready; see {}",
                log.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(processes)
}

fn certificate(folder: &Path, nodes: &[Node; 2]) -> Result<()> {
    let names = nodes.each_ref().map(|node| node.address.to_string());
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(folder.join("fleet-cert.pem"), made.cert.pem())?;
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join("fleet-key.pem"), key)?;
    Ok(())
}

/// As many clients as two nodes have descriptors for; says aloud where these are fewer than asked.
fn bounded(clients: usize) -> Result<usize> {
    let descriptors = sched::open_files()?;
    let most = (descriptors.saturating_sub(SPARE) / 2) as usize * NODES.len();
    if clients > most {
        eprintln!(
            "this machine gives a process {descriptors} descriptors (`ulimit -Hn`), of which a client with a relay \
             takes two of its node: {most} clients are measured in place of {clients}"
        );
    }
    Ok(clients.min(most) / 8 * 8)
}

/// Waits until every part has said that all of its clients are there; says every two seconds how many are.
fn all_there(tallies: &Receiver<(usize, Tally)>, clients: usize) -> Result<(Instant, Tally)> {
    let (began, mut said) = (Instant::now(), Instant::now());
    let mut parts: [Tally; PARTS] = Default::default();
    loop {
        let left = TIMEOUT.saturating_sub(began.elapsed());
        let tally = tallies.recv_timeout(left);
        let mut sum = Tally::default();
        parts.iter().for_each(|part| sum.add(part));
        let Ok((index, tally)) = tally else {
            bail!("not all clients have got to a relay: {sum}");
        };
        parts[index] = tally;
        let mut sum = Tally::default();
        parts.iter().for_each(|part| sum.add(part));
        if sum.there() == clients {
            return Ok((Instant::now(), sum));
        }
        if said.elapsed() >= SAID {
            said = Instant::now();
            eprintln!("after {:.0} s: {sum}", began.elapsed().as_secs_f64());
        }
    }
}

/// Every row with what it is and its goal.
#[allow(
    clippy::print_stdout,
    reason = "the figures are what the program is run for"
)]
pub(crate) fn measure(launcher: &Launcher, asked: usize) -> Result<()> {
    let clients = bounded(asked)?;
    let redis = Redis::start(launcher)?;
    // Two nodes and all clients share the cores, as on machines of their own each would have them.
    sched::unpin()?;
    let place = Place::make(PARTS)?;
    let nodes = [0, 1].map(|index| Node {
        name: NODES[index],
        address: place.nodes[index],
    });
    certificate(launcher.folder(), &nodes)?;
    // A node that buries the other takes rooms of it over, and their relays are here then.
    let quota = clients / 2 + SPARE as usize / 2;
    let mut processes = start(&nodes, launcher, &redis, quota)?;

    let (sender, tallies) = channel();
    let part = |index: usize| {
        let arguments = part::Arguments {
            first: clients / PARTS * index,
            count: clients / PARTS,
            sources: place.sources(index).to_vec(),
            nodes: nodes.iter().map(Node::tls).collect(),
            certificate: launcher.folder().join("fleet-cert.pem"),
        };
        Part::start(place.command(index)?, &arguments, sender.clone())
    };
    let began = Instant::now();
    let mut parts = (0..PARTS).map(part).collect::<Result<Vec<_>>>()?;
    let (there, first) = all_there(&tallies, clients)?;
    println!("after {} s: {first}", figure((there - began).as_secs_f64()));
    std::thread::sleep(SAVE_DELAY);

    for part in &mut parts {
        part.again()?;
    }
    // What they have said before is of no interest.
    std::thread::sleep(SAID / 2);
    while tallies.try_recv().is_ok() {}
    for process in &mut processes {
        process.kill()?;
    }
    let killed = Instant::now();
    processes = start(&nodes, launcher, &redis, quota)?;
    let ready = Instant::now();
    let (back, tally) = all_there(&tallies, clients)?;
    let cpu = [
        processes[0].cpu_time()?.as_secs_f64(),
        processes[1].cpu_time()?.as_secs_f64(),
    ];
    println!("{tally}");

    let mut table = Table::new(&[
        "a fleet that comes back to two cold nodes",
        "measured",
        "goal",
    ]);
    let mut row = |title: &str, value: String, goal: &str| {
        table.row(vec![title.to_owned(), value, goal.to_owned()]);
    };
    let seconds = |time: Duration| figure(time.as_secs_f64());
    row("clients, each with a relay", clients.to_string(), "20,000");
    row("their addresses and namespaces", place.said(), "");
    row(
        "s from the death of both nodes until both are ready",
        seconds(ready - killed),
        "",
    );
    row(
        "s from their death until the last client has a relay",
        seconds(back - killed),
        "≤ 10",
    );
    row(
        "clients that were refused",
        tally.refused().to_string(),
        "0",
    );
    row(
        "attempts that were told to come later (1013)",
        tally.later.to_string(),
        "",
    );
    row("sessions that were resumed", tally.resumed.to_string(), "");
    row(
        "CPU s of the nodes",
        format!("{} + {}", figure(cpu[0]), figure(cpu[1])),
        "",
    );
    let each = (cpu[0] + cpu[1]) * 1e6 / clients as f64;
    row("CPU µs of a node for a client", figure(each), "");
    println!("\n{}.\n", machine());
    table.print();
    for part in parts {
        part.end();
    }
    Ok(())
}
