//! A box with virtual sockets and a virtual clock.

pub(super) use super::client::*;
use super::watched::Tally;
use crate::credential::TurnSecrets;
use crate::engine::*;
use crate::shared::{RelayAddress, SharedState};
use secrecy::SecretString;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const REALM: &str = "callbox";
pub(super) const UNIX: u64 = 1_700_000_000;
pub(super) const V4: &str = "192.0.2.10";
pub(super) const V6: &str = "2001:db8::10";
pub(super) const PEER: &str = "8.8.8.8:4000";
pub(super) const PEER6: &str = "[2606:4700::1]:4000";

/// What the box did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    Reply(FiveTuple, Vec<u8>),
    ToClient(FiveTuple, Vec<u8>),
    ToPeer {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
        dont_fragment: bool,
    },
    Event(Event),
}

/// The ports that are open, shared with every socket.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) open: BTreeSet<SocketAddr>,
    /// Bound by another program.
    pub(super) foreign: BTreeSet<SocketAddr>,
    pub(super) broken: bool,
    /// No file descriptor is left.
    pub(super) exhausted: bool,
    /// How often a port was tried that another program holds.
    pub(super) tried_in_vain: usize,
    pub(super) opened: usize,
}

#[derive(Debug)]
pub(super) struct FakeSocket {
    address: SocketAddr,
    pub(super) key: RelayedKey,
    ports: Rc<RefCell<Ports>>,
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        assert!(self.ports.borrow_mut().open.remove(&self.address));
    }
}

pub(super) struct FakeSockets(Rc<RefCell<Ports>>);

impl RelaySockets for FakeSockets {
    type Socket = FakeSocket;

    fn adopt(&mut self, key: RelayedKey, announced: SocketAddr) -> Option<FakeSocket> {
        Some(self.adopted(announced, key))
    }

    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<FakeSocket, OpenError> {
        let mut ports = self.0.borrow_mut();
        if ports.broken {
            return Err(OpenError::Other(io::Error::other("out of order")));
        }
        if ports.exhausted {
            return Err(OpenError::NoDescriptor);
        }
        if ports.foreign.contains(&address) {
            ports.tried_in_vain += 1;
            return Err(OpenError::PortHeld);
        }
        assert!(ports.open.insert(address), "{address} is leased twice");
        ports.opened += 1;
        Ok(FakeSocket {
            address,
            key,
            ports: Rc::clone(&self.0),
        })
    }
}

/// The sockets of a box that goes on from another one: all of them come along.
impl FakeSockets {
    fn adopted(&self, address: SocketAddr, key: RelayedKey) -> FakeSocket {
        assert!(self.0.borrow_mut().open.insert(address));
        FakeSocket {
            address,
            key,
            ports: Rc::clone(&self.0),
        }
    }
}

/// Collects what one call does; hand-overs to other workers are kept to be carried there.
#[derive(Default)]
struct Collector {
    outs: Vec<Out>,
    /// Of each, the payloads back to back and how many there are.
    hand_overs: Vec<(WorkerId, RelayedKey, SocketAddr, Vec<u8>, usize)>,
    /// Runs that went out to clients, peers and workers.
    runs: usize,
}

impl<'a> Output<'a, FakeSocket> for Collector {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        self.outs.push(Out::Reply(*to, message.to_vec()));
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
        assert!(padding < 4);
        self.runs += 1;
        let whole = |payload| [head, payload, &vec![0; padding]].concat();
        let outs = payloads.payloads().map(|p| Out::ToClient(*to, whole(p)));
        self.outs.extend(outs);
    }

    fn to_peer(&mut self, from: &FakeSocket, to: SocketAddr, payloads: PayloadRun<'a>, df: bool) {
        self.runs += 1;
        let from = from.address;
        let outs = payloads.payloads().map(|payload| Out::ToPeer {
            from,
            to,
            payload: payload.to_vec(),
            dont_fragment: df,
        });
        self.outs.extend(outs);
    }

    fn to_worker(
        &mut self,
        worker: WorkerId,
        relay: RelayedKey,
        from: SocketAddr,
        payloads: PayloadRun<'a>,
    ) {
        self.runs += 1;
        let bytes = payloads.payloads().collect::<Vec<_>>().concat();
        let letter = (worker, relay, from, bytes, payloads.count());
        self.hand_overs.push(letter);
    }

    fn event(&mut self, event: Event) {
        self.outs.push(Out::Event(event));
    }
}

/// How a test box differs from the usual one.
pub(super) struct Options {
    pub(super) settings: Settings,
    pub(super) relays: Vec<RelayAddress>,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) workers: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: settings(),
            relays: vec![same(V4), same(V6)],
            ports: 49_152..=65_535,
            workers: 1,
        }
    }
}

pub(super) fn same(ip: &str) -> RelayAddress {
    let ip = ip.parse().unwrap();
    RelayAddress {
        bind: ip,
        announced: ip,
    }
}

pub(super) fn secrets(list: &[&str]) -> TurnSecrets {
    TurnSecrets::new(list.iter().map(|s| SecretString::from(*s)).collect()).unwrap()
}

pub(super) fn settings() -> Settings {
    let own = vec![
        V4.parse().unwrap(),
        V6.parse().unwrap(),
        "127.0.0.1".parse().unwrap(),
    ];
    Settings {
        realm: REALM.into(),
        secrets: secrets(&["north"]),
        users: crate::users::TurnUsers::default(),
        policy: PeerPolicy::new(vec![], vec![], own),
        quotas: Quotas {
            user: 128,
            ip: 1_000,
            total: 10_000,
        },
        max_session: Duration::from_secs(24 * 3_600),
        max_rate: None,
        total_rate: None,
        alternates: vec![],
        reports_icmp: true,
    }
}

/// A box of one or more workers.
pub(super) struct TestBox {
    pub(super) engines: Vec<Engine<FakeSockets>>,
    pub(super) shared: Arc<SharedState>,
    pub(super) ports: Rc<RefCell<Ports>>,
    pub(super) now: Now,
    /// Runs that went out, hand-overs between workers included.
    pub(super) runs: usize,
    /// What the events of permissions and channels say, once [`watch`](Self::watch) was called.
    pub(super) tally: Tally,
    started: Instant,
}

impl TestBox {
    pub(super) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(super) fn with_settings(settings: Settings) -> Self {
        Self::with(Options {
            settings,
            ..Options::default()
        })
    }

    pub(super) fn with(options: Options) -> Self {
        let started = Instant::now();
        let shared = SharedState::new(options.relays, options.ports, [1; 32], started);
        let ports = Rc::new(RefCell::new(Ports::default()));
        let settings = Arc::new(options.settings);
        let engine = |id| {
            let sockets = FakeSockets(Rc::clone(&ports));
            let (settings, shared) = (Arc::clone(&settings), Arc::clone(&shared));
            Engine::new(
                WorkerId(id),
                settings,
                shared,
                sockets,
                [id + 2; 32],
                started,
            )
        };
        let engines = (0..options.workers).map(engine).collect();
        Self {
            engines,
            shared,
            ports,
            now: Now {
                instant: started,
                unix: UNIX,
            },
            runs: 0,
            tally: Tally::default(),
            started,
        }
    }

    /// What opens the sockets of this box.
    pub(super) fn sockets(&self) -> FakeSockets {
        FakeSockets(Rc::clone(&self.ports))
    }

    /// A box that goes on from the snapshots of this one.
    pub(super) fn successor(mut self) -> Self {
        let now = self.now;
        let settings = Arc::clone(&self.engines[0].settings);
        let snapshots: Vec<_> = self
            .engines
            .iter_mut()
            .map(|engine| engine.snapshot(now.instant))
            .collect();
        let shared = self.shared.snapshot(now.instant);
        let remains: Vec<_> = self.engines.drain(..).map(Engine::dismantle).collect();
        drop(remains);
        let shared = SharedState::restore(shared, now.instant, now.unix).unwrap();
        let ports = Rc::new(RefCell::new(Ports::default()));
        let engines = snapshots.into_iter().zip(0..).map(|(snapshot, id)| {
            let (settings, shared) = (Arc::clone(&settings), Arc::clone(&shared));
            let sockets = FakeSockets(Rc::clone(&ports));
            let id = WorkerId(id);
            let restored = Engine::restore(id, settings, shared, sockets, snapshot, now.instant);
            let (engine, lost) = restored.unwrap();
            assert_eq!(lost, 0);
            engine
        });
        let engines = engines.collect();
        assert_eq!(shared.release_unclaimed(now.instant), 0);
        Self {
            engines,
            shared,
            ports,
            ..self
        }
    }

    /// Moves the clock and lets every engine's timers run.
    pub(super) fn advance(&mut self, by: Duration) -> Vec<Out> {
        self.skip(by);
        let now = self.now;
        let mut outs = Vec::new();
        for worker in 0..self.engines.len() {
            outs.extend(self.run(worker, |engine, out| engine.handle_timeout(now, out)));
        }
        outs
    }

    /// Moves the clock without any timer running, as in the middle of a long batch.
    pub(super) fn skip(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.unix = UNIX + (self.now.instant - self.started).as_secs();
    }

    fn run(
        &mut self,
        worker: usize,
        call: impl FnOnce(&mut Engine<FakeSockets>, &mut Collector),
    ) -> Vec<Out> {
        let mut collector = Collector::default();
        call(&mut self.engines[worker], &mut collector);
        let mut outs = collector.outs;
        self.runs += collector.runs;
        for (worker, key, from, bytes, count) in collector.hand_overs {
            let mut collector = Collector::default();
            let engine = &mut self.engines[usize::from(worker.0)];
            let payloads = PayloadRun::back_to_back(&bytes, count);
            engine.from_worker(self.now, key, from, payloads, &mut collector);
            assert!(collector.hand_overs.is_empty(), "a hand-over goes one way");
            self.runs += collector.runs;
            outs.extend(collector.outs);
        }
        self.tally.count(&outs);
        outs
    }

    pub(super) fn client_sends(&mut self, five_tuple: &FiveTuple, bytes: &[u8]) -> Vec<Out> {
        self.client_sends_to(0, five_tuple, bytes)
    }

    pub(super) fn client_sends_to(
        &mut self,
        worker: usize,
        five_tuple: &FiveTuple,
        bytes: &[u8],
    ) -> Vec<Out> {
        let now = self.now;
        self.run(worker, |engine, out| {
            engine.from_client(now, five_tuple, bytes.into(), out)
        })
    }

    /// Datagrams of `segment` bytes each, joined by GRO, arrive from a client.
    pub(super) fn client_sends_train(
        &mut self,
        five_tuple: &FiveTuple,
        bytes: &[u8],
        segment: usize,
    ) -> Vec<Out> {
        let now = self.now;
        self.run(0, |engine, out| {
            engine.from_client(now, five_tuple, GroBatch::new(bytes, segment), out)
        })
    }

    /// A datagram from `peer` arrives at the relayed address `at`.
    pub(super) fn peer_sends(&mut self, at: SocketAddr, peer: SocketAddr, data: &[u8]) -> Vec<Out> {
        self.peer_sends_train(at, peer, data, data.len())
    }

    /// As [`peer_sends`](Self::peer_sends): datagrams of `segment` bytes each, joined by GRO.
    pub(super) fn peer_sends_train(
        &mut self,
        at: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
        segment: usize,
    ) -> Vec<Out> {
        let Some((worker, key)) = self.shared.find(at) else {
            return Vec::new();
        };
        let now = self.now;
        self.run(worker.0.into(), |engine, out| {
            engine.from_peer(now, key, peer, GroBatch::new(data, segment), out)
        })
    }

    pub(super) fn icmp(
        &mut self,
        at: SocketAddr,
        peer: &str,
        icmp: (u8, u8),
        error_data: u32,
    ) -> Vec<Out> {
        let (worker, key) = self.shared.find(at).unwrap();
        let (now, peer) = (self.now, peer.parse().unwrap());
        self.run(worker.0.into(), |engine, out| {
            engine.peer_unreachable(now, key, peer, icmp, error_data, out);
        })
    }

    pub(super) fn client_closed(&mut self, five_tuple: &FiveTuple) -> Vec<Out> {
        let now = self.now;
        self.run(0, |engine, out| engine.client_closed(now, five_tuple, out))
    }

    /// Revokes on every worker, as the shells do.
    pub(super) fn revoke(&mut self, user: &str) -> Vec<Out> {
        let now = self.now;
        let workers = 0..self.engines.len();
        workers
            .flat_map(|w| self.run(w, |engine, out| engine.revoke(user, now, out)))
            .collect()
    }

    /// Takes new settings on every worker, as the shells do.
    pub(super) fn reload(&mut self, settings: Settings) {
        let (settings, now) = (Arc::new(settings), self.now);
        for worker in 0..self.engines.len() {
            self.run(worker, |engine, out| {
                for user in engine.reconfigure(Arc::clone(&settings), out) {
                    engine.drop_user(&user, now, out);
                }
            });
        }
    }

    /// Watches permissions and channels from here on.
    pub(super) fn watch(&mut self) {
        let now = self.now;
        self.tally = Tally::default();
        for worker in 0..self.engines.len() {
            self.run(worker, |engine, out| engine.watch(now, out));
        }
    }

    /// Sends a request that has exactly one answer.
    pub(super) fn ask(&mut self, five_tuple: &FiveTuple, bytes: &[u8]) -> Response {
        self.ask_of(0, five_tuple, bytes)
    }

    pub(super) fn ask_of(&mut self, worker: usize, tuple: &FiveTuple, bytes: &[u8]) -> Response {
        let replies: Vec<_> = self
            .client_sends_to(worker, tuple, bytes)
            .into_iter()
            .filter_map(|out| match out {
                Out::Reply(to, bytes) => Some((to, bytes)),
                _ => None,
            })
            .collect();
        let [(to, reply)] = &replies[..] else {
            panic!("not one reply but {replies:?}")
        };
        assert_eq!(to, tuple);
        let response = Response::parse(reply);
        assert_eq!(response.0.transaction_id.0, bytes[8..20]);
        response
    }

    pub(super) fn stats(&self) -> &Stats {
        self.engines[0].stats()
    }

    /// Nothing is left of any allocation.
    pub(super) fn assert_empty(&self) {
        assert_eq!(self.ports.borrow().open, BTreeSet::new());
        assert_eq!(self.shared.allocations(), 0);
        for engine in &self.engines {
            assert_eq!(engine.allocations(self.now.instant).count(), 0);
            assert_eq!(engine.next_timeout(), None);
        }
    }
}
