//! Drives one relayed workload: sends, echoes, counts, and reads the server's CPU clock around the
//! measured stretch. One thread spins over all sockets, so that no server pays for waking it.

use super::client::Client;
use super::fleet::Fleet;
use super::load::{Burst, Bursts, Flow, Load, Pace};
use super::sys::{self, Receiver};
use super::wire::{self, Framing, Stamp};
use crate::common::epoll::Epoll;
use crate::common::process::ServerProcess;
use crate::common::report::quantile_us;
use anyhow::{Result, ensure};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Buffers fill and clocks rise before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// The same where another server has had its turn meanwhile: caches only.
const RESUME: Duration = Duration::from_millis(20);
/// Outstanding packets count as lost when nothing has arrived for so long; a server that is off
/// its core on a busy machine comes back sooner.
const STALL: Duration = Duration::from_secs(2);
/// A generator that was off its core skips ahead rather than send a burst to catch up.
const CATCH_UP: Duration = Duration::from_micros(500);
/// A paced turn that sent less of what was asked says nothing about that pace.
const PACE_HELD: f64 = 0.95;
/// Latencies kept of one turn.
const SAMPLES: usize = 1 << 20;
const PEER_BUFFER: i32 = 8 << 20;
const PEER_TOKEN: usize = usize::MAX >> 1;
const RECEIVE_SLOTS: usize = 16;
/// No burst: `Stamp::burst` counts from 1.
const NO_BURST: u32 = 0;

/// What a run gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Server CPU, µs per relayed packet.
    pub(crate) cost: f64,
    /// Relayed packets a second.
    pub(crate) rate: f64,
    /// The share of a core that the server used.
    pub(crate) busy: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// From sending to arrival, µs.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The far side of all relays: one socket that echoes, swallows or sends.
pub(crate) struct Peer {
    socket: UdpSocket,
    pub(crate) address: SocketAddrV4,
}

impl Peer {
    pub(crate) fn bind(address: Ipv4Addr, gro: bool) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        sys::grow_receive_buffer(&socket, PEER_BUFFER)?;
        if gro {
            sys::enable_gro(&socket)?;
        }
        let SocketAddr::V4(address) = socket.local_addr()? else {
            unreachable!("bound to an IPv4 address")
        };
        Ok(Self { socket, address })
    }

    /// Sends the burst that `stamp` describes, its last packet of `last` bytes.
    fn send(
        &self,
        to: SocketAddrV4,
        out: &mut Vec<u8>,
        stamp: &Stamp,
        last: usize,
        offload: bool,
    ) -> Result<()> {
        out.clear();
        for packet in 1..=stamp.packets {
            stamp.write(
                out,
                if packet == stamp.packets {
                    last
                } else {
                    stamp.size.into()
                },
            );
        }
        Ok(sys::send_burst(
            &self.socket,
            Some(to),
            out,
            stamp.size.into(),
            offload,
        )?)
    }
}

/// One run in progress, a turn at a time.
pub(crate) struct Run {
    load: Load,
    framing: Framing,
    clients: Vec<Client>,
    relayed: Vec<SocketAddrV4>,
    peer: Peer,
    measured: Measured,
    /// The burst that is arriving at the peer, client by client, and how much of it is there.
    arriving: Vec<(u32, u16)>,
    tally: Tally,
    bursts: Bursts,
    next_client: usize,
    epoll: Epoll,
    receiver: Receiver,
    out: Vec<u8>,
}

/// What all turns of a run came to.
#[derive(Default)]
struct Measured {
    cpu: f64,
    wall: f64,
    relayed: u64,
    latencies: Vec<u32>,
}

impl Run {
    pub(crate) fn new(load: Load, framing: Framing, fleet: Fleet, peer: Peer) -> Result<Self> {
        let Fleet {
            clients, relayed, ..
        } = fleet;
        let epoll = Epoll::new(256)?;
        epoll.add(peer.socket.as_raw_fd(), PEER_TOKEN)?;
        for (index, client) in clients.iter().enumerate() {
            epoll.add(client.fd(), index)?;
        }
        Ok(Self {
            load,
            framing,
            arriving: vec![(NO_BURST, 0); clients.len()],
            clients,
            relayed,
            peer,
            measured: Measured::default(),
            tally: Tally::new(),
            bursts: Bursts::new(load.shape),
            next_client: 0,
            epoll,
            receiver: Receiver::new(RECEIVE_SLOTS),
            out: Vec::with_capacity(1 << 17),
        })
    }

    /// Runs for `length` after a warm-up, and drains what is outstanding. Returns the server's CPU
    /// time, µs per relayed packet, or nothing where the machine did not let the pace be held.
    pub(crate) fn turn(&mut self, server: &ServerProcess, length: Duration) -> Result<Option<f64>> {
        let first = self.tally.sent == 0;
        self.drive(Some(if first { WARM_UP } else { RESUME }))?;
        self.tally.latencies.clear();
        let sent = self.tally.sent;
        let (started, cpu, relayed) = (Instant::now(), server.cpu_time()?, self.tally.relayed);
        self.drive(Some(length))?;
        let wall = started.elapsed().as_secs_f64();
        let cpu = (server.cpu_time()? - cpu).as_secs_f64();
        let relayed = self.tally.relayed - relayed;
        ensure!(relayed > 0, "nothing was relayed");
        let sent = self.tally.sent - sent;
        let mut latencies = std::mem::take(&mut self.tally.latencies);
        self.drive(None)?;
        if let Pace::PacketsPerSecond(rate) = self.load.pace {
            let asked = f64::from(rate / self.load.crossings()) * wall;
            if (sent as f64) < asked * PACE_HELD {
                return Ok(None);
            }
        }
        self.measured.cpu += cpu;
        self.measured.wall += wall;
        self.measured.relayed += relayed;
        self.measured.latencies.append(&mut latencies);
        Ok(Some(cpu * 1e6 / relayed as f64))
    }

    /// What all turns came to.
    pub(crate) fn outcome(mut self) -> Result<Outcome> {
        let measured = &mut self.measured;
        ensure!(
            measured.relayed > 0,
            "the machine did not let the pace be held"
        );
        let relayed = measured.relayed as f64;
        Ok(Outcome {
            cost: measured.cpu * 1e6 / relayed,
            rate: relayed / measured.wall,
            busy: measured.cpu / measured.wall,
            sent: self.tally.sent,
            lost: self.tally.lost,
            p50: quantile_us(&mut measured.latencies, 0.50),
            p99: quantile_us(&mut measured.latencies, 0.99),
        })
    }

    /// Sends and receives for `length`; without one, receives until nothing is outstanding.
    fn drive(&mut self, length: Option<Duration>) -> Result<()> {
        let started = Instant::now();
        let mut due = started;
        self.tally.progress = started;
        loop {
            for index in 0..self.epoll.wait(Some(Duration::ZERO))? {
                match self.epoll.token(index) {
                    PEER_TOKEN => self.peer_receives()?,
                    client => self.client_receives(client)?,
                }
            }
            let now = Instant::now();
            if self.tally.in_flight > 0 && now - self.tally.progress > STALL {
                self.tally.give_up();
            }
            match length {
                None if self.tally.in_flight == 0 => return Ok(()),
                None => {}
                Some(length) if now - started >= length => return Ok(()),
                Some(_) => match self.load.pace {
                    Pace::Saturated => self.fill_window()?,
                    Pace::PacketsPerSecond(rate) => self.keep_pace(now, rate, &mut due)?,
                },
            }
        }
    }

    fn fill_window(&mut self) -> Result<()> {
        while self.tally.in_flight + usize::from(self.bursts.next.packets) <= self.load.window() {
            self.send_burst()?;
        }
        Ok(())
    }

    fn keep_pace(&mut self, now: Instant, rate: u32, due: &mut Instant) -> Result<()> {
        if now > *due + CATCH_UP {
            *due = now;
        }
        if now >= *due {
            let crossings = u32::from(self.bursts.next.packets) * self.load.crossings();
            *due += Duration::from_secs(1) * crossings / rate;
            self.send_burst()?;
        }
        Ok(())
    }

    fn send_burst(&mut self) -> Result<()> {
        let burst = self.bursts.next;
        self.bursts.advance();
        let client = self.next_client;
        self.next_client = (client + 1) % self.load.active;
        let stamp = self.tally.stamp(client, burst);
        if self.load.flow == Flow::Down {
            let to = self.relayed[client];
            return self.peer.send(
                to,
                &mut self.out,
                &stamp,
                burst.last.into(),
                self.load.offload,
            );
        }
        let peer = match self.load.flow {
            Flow::Pair => self.relayed[client ^ 1],
            _ => self.peer.address,
        };
        let stream = self.clients[client].is_stream();
        self.out.clear();
        for packet in 1..=burst.packets {
            let size = if packet == burst.packets {
                burst.last
            } else {
                burst.size
            };
            wire::frame(
                &mut self.out,
                self.framing,
                stream,
                peer,
                &stamp,
                size.into(),
            );
        }
        let segment = wire::framed_size(self.framing, burst.size.into());
        self.clients[client].send(&self.out, segment, self.load.offload)
    }

    fn peer_receives(&mut self) -> Result<()> {
        let Self {
            load,
            peer,
            receiver,
            tally,
            arriving,
            relayed,
            out,
            ..
        } = self;
        for slot in 0..receiver.receive(&peer.socket)? {
            for payload in receiver.slot(slot).datagrams() {
                let Some(stamp) = tally.arrived(payload) else {
                    continue;
                };
                if load.flow != Flow::Echo {
                    tally.complete(&stamp);
                    continue;
                }
                let client = stamp.client as usize;
                if arriving[client].0 != stamp.burst {
                    arriving[client] = (stamp.burst, 0);
                }
                arriving[client].1 += 1;
                if arriving[client].1 == stamp.packets {
                    peer.send(relayed[client], out, &stamp, payload.len(), load.offload)?;
                }
            }
        }
        Ok(())
    }

    fn client_receives(&mut self, client: usize) -> Result<()> {
        let Self {
            clients,
            receiver,
            tally,
            framing,
            ..
        } = self;
        clients[client].receive(receiver, |message| {
            let payload = wire::payload(*framing, message);
            if let Some(stamp) = payload.and_then(|payload| tally.arrived(payload)) {
                tally.complete(&stamp);
            }
        })
    }
}

/// What is outstanding and what has arrived.
struct Tally {
    started: Instant,
    /// When a packet arrived last.
    progress: Instant,
    epoch: u16,
    bursts: u32,
    in_flight: usize,
    sent: u64,
    lost: u64,
    /// Packets that came out of the server on either side.
    relayed: u64,
    latencies: Vec<u32>,
}

impl Tally {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            progress: now,
            epoch: 0,
            bursts: NO_BURST,
            in_flight: 0,
            sent: 0,
            lost: 0,
            relayed: 0,
            latencies: vec![],
        }
    }

    fn stamp(&mut self, client: usize, burst: Burst) -> Stamp {
        self.bursts = self.bursts.wrapping_add(1).max(NO_BURST + 1);
        self.in_flight += usize::from(burst.packets);
        self.sent += u64::from(burst.packets);
        Stamp {
            client: client as u32,
            burst: self.bursts,
            packets: burst.packets,
            size: burst.size,
            epoch: self.epoch,
            sent: self.started.elapsed().as_nanos() as u64,
        }
    }

    /// Counts a packet that the server has relayed; `None` if it was given up before.
    fn arrived(&mut self, payload: &[u8]) -> Option<Stamp> {
        let stamp = Stamp::read(payload).filter(|stamp| stamp.epoch == self.epoch)?;
        self.relayed += 1;
        Some(stamp)
    }

    fn complete(&mut self, stamp: &Stamp) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.progress = Instant::now();
        if self.latencies.len() < SAMPLES {
            let now = (self.progress - self.started).as_nanos() as u64;
            self.latencies
                .push(u32::try_from(now - stamp.sent).unwrap_or(u32::MAX));
        }
    }

    fn give_up(&mut self) {
        self.lost += self.in_flight as u64;
        self.in_flight = 0;
        self.epoch = self.epoch.wrapping_add(1);
    }
}
