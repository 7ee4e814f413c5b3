//! The workloads that relay nothing: Binding, allocations, and what idle clients cost in memory.

use super::client::Transport;
use super::fleet::{Fleet, Target, exchange};
use super::flow::Peer;
use super::servers::Server;
use super::turn;
use super::wire::Framing;
use crate::common::process::ServerProcess;
use anyhow::Result;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Clients that ask at the same time.
const CLIENTS: usize = 100;
/// Allocations whose memory is measured, after `CLIENTS` that warm the server's heap.
const IDLE: usize = 2_000;
/// Clients that never finish allocating.
const HALF_OPEN: usize = 2_000;

/// Clients that ask for nothing but Bindings.
pub(crate) fn binders(server: &Server) -> Result<Fleet> {
    Fleet::connect(&server.target, Transport::Udp, CLIENTS, false)
}

/// CPU µs per STUN Binding request.
pub(crate) fn binding(server: &Server, fleet: &mut Fleet, length: Duration) -> Result<f64> {
    per_unit(&server.process, length, || {
        exchange(&mut fleet.clients, |_| turn::binding())?;
        Ok(CLIENTS)
    })
}

/// CPU µs per allocation: challenge, Allocate, ChannelBind and the Refresh that ends it, each from
/// a fresh address and port, since servers remember five-tuples for a while.
pub(crate) fn allocation(server: &Server, peer: &Peer, length: Duration) -> Result<f64> {
    let mut target = server.target.clone();
    let mut locals = (1..=250).map(|host| Ipv4Addr::new(127, 0, 2, host)).cycle();
    per_unit(&server.process, length, || {
        target.locals.splice(.., locals.next());
        idle_clients(&target, peer, CLIENTS)?.release()?;
        Ok(CLIENTS)
    })
}

/// Resident MiB per 1,000 allocations with a channel.
pub(crate) fn idle_memory(server: &Server, peer: &Peer) -> Result<f64> {
    let _warm = idle_clients(&server.target, peer, CLIENTS)?;
    let before = server.process.resident_kib()?;
    let _idle = idle_clients(&server.target, peer, IDLE)?;
    let growth = server.process.resident_kib()?.saturating_sub(before);
    Ok(growth as f64 / 1024.0 * 1000.0 / IDLE as f64)
}

/// Resident KiB per client that was challenged and never came back (UDP), or connected and never
/// spoke (TCP, TLS before its handshake).
pub(crate) fn half_open(server: &Server, transport: Transport) -> Result<f64> {
    let open = |count| -> Result<Fleet> {
        let mut fleet = Fleet::connect(&server.target, transport, count, false)?;
        if transport == Transport::Udp {
            fleet.challenge(&server.target.credential)?;
        }
        Ok(fleet)
    };
    let _warm = open(CLIENTS)?;
    let before = server.process.resident_kib()?;
    let _idle = open(HALF_OPEN)?;
    // Nothing tells that the last connection has been accepted.
    std::thread::sleep(Duration::from_millis(200));
    let growth = server.process.resident_kib()?.saturating_sub(before);
    Ok(growth as f64 / HALF_OPEN as f64)
}

fn idle_clients(target: &Target, peer: &Peer, count: usize) -> Result<Fleet> {
    let mut fleet = Fleet::connect(target, Transport::Udp, count, false)?;
    fleet.allocate(Framing::Channel, &target.credential)?;
    fleet.open(Framing::Channel, |_| peer.address)?;
    Ok(fleet)
}

/// Repeats `work` for `length` and divides the server's CPU time by the units it reports.
fn per_unit(
    server: &ServerProcess,
    length: Duration,
    mut work: impl FnMut() -> Result<usize>,
) -> Result<f64> {
    work()?;
    let (started, cpu) = (Instant::now(), server.cpu_time()?);
    let mut units = 0;
    while started.elapsed() < length {
        units += work()?;
    }
    Ok((server.cpu_time()? - cpu).as_secs_f64() * 1e6 / units as f64)
}
