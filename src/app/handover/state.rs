//! What of the box itself goes to a successor, beside the relay and the rooms.

use super::blackouts::Blackouts;
use super::container::Reader;
use super::counted::Counted;
use super::{BOX, CONNECTIONS, DESCRIPTORS, HUB, KNOWN, Origin, SHARED, WORKER, fds, unit};
use crate::app::App;
use crate::app::denied::Added;
use crate::auth::InviteKeys;
use crate::auth::credential::TurnSecrets;
use crate::clock;
use crate::config::Config;
use crate::hooks::Remains;
use crate::net::{Announced, Inherited, Listener};
use crate::relay::{RelayState, WorkerState};
use crate::signal::{LeftBehind, ParkedConnection};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Until the next boot the clock goes on; after it, deadlines would mean nothing.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A TCP listener that is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::app) struct Listening {
    /// `http`, `tls` or `metrics`, as socket units call them, or `turn`.
    pub(in crate::app) kind: String,
    address: SocketAddr,
    /// systemd holds it too.
    inherited: bool,
}

/// The `kind` of the relay's listeners.
const TURN: &str = "turn";

impl Listening {
    pub(in crate::app) fn of_relay(listener: &TcpListener) -> Option<Self> {
        Some(Self {
            kind: TURN.into(),
            address: listener.local_addr().ok()?,
            inherited: false,
        })
    }
}

/// A listener of this process, once more, for its successor.
pub(in crate::app) struct HeldListener {
    pub(in crate::app) listening: Listening,
    pub(in crate::app) socket: OwnedFd,
}

impl HeldListener {
    /// Holds `listener` too; `None` where no descriptor is left.
    pub(in crate::app) fn of(kind: &str, listener: &Listener) -> Option<Self> {
        let listening = Listening {
            kind: kind.into(),
            address: listener.socket.local_addr().ok()?,
            inherited: listener.inherited,
        };
        let socket = listener.socket.try_clone().ok()?.into();
        Some(Self { listening, socket })
    }
}

/// An address as it is announced.
#[derive(Clone, Serialize, Deserialize)]
struct AnnouncedAs {
    address: IpAddr,
    local: IpAddr,
    how: String,
}

/// What the operator and the backend would miss.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::app) struct Kept {
    /// Events that the backend has not taken.
    pub(in crate::app) events: Remains,
    /// Those that came behind them, while this was written.
    #[serde(skip)]
    pub(in crate::app) late_events: Remains,
    /// Networks that the admin API refuses.
    pub(in crate::app) denied: Added,
    /// What was relayed this month.
    pub(in crate::app) usage: Option<String>,
    pub(in crate::app) counted: Counted,
    /// People who could log in, each with the mark of the password.
    pub(in crate::app) logins: BTreeMap<String, String>,
}

/// What relays have added to [`Kept`] that ended after it was written: those of TLS clients end with
/// the workers.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Late {
    events: Remains,
    /// In place of what was kept, where more was relayed.
    usage: Option<String>,
}

/// The box, but for relay and rooms.
#[derive(Serialize, Deserialize)]
pub(in crate::app) struct BoxState {
    version: String,
    boot: String,
    /// When workers stopped, and when their shared state was written down; by `clock::monotonic`.
    pub(super) stopped: u64,
    pub(super) taken: u64,
    pub(super) signaling_stopped: u64,
    /// Of every worker, in the order of its first descriptors.
    pub(super) udp: Vec<SocketAddr>,
    /// In the order of the first descriptors.
    pub(super) tcp: Vec<Listening>,
    /// How many descriptors each worker has.
    pub(super) workers: Vec<usize>,
    /// How many connections of signaling there are, whose descriptors are the last ones.
    #[serde(default)]
    pub(super) connections: usize,
    /// Those that requests carry, without descriptors.
    #[serde(default)]
    pub(super) carried: Option<Box<RawValue>>,
    announced: Vec<AnnouncedAs>,
    /// A TURN secret that was made for this run, since no configuration names one.
    made_secret: Option<String>,
    longest_ttl: u64,
    unit: Option<String>,
    blackouts: Blackouts,
    /// Written before packets begin to wait.
    #[serde(default)]
    pub(super) kept: Option<Box<RawValue>>,
    /// Written once the workers have ended.
    #[serde(default)]
    pub(super) late: Late,
}

impl App {
    pub(super) fn state(&self, tcp: Vec<Listening>, origin: &Origin) -> BoxState {
        let config = self.reloader.config.borrow();
        let announced = self.reloader.announced.borrow();
        let made = config.turn.made_secret;
        let secret = config.turn.secrets.all().next().filter(|_| made);
        let announced = announced.iter().map(|known| AnnouncedAs {
            address: known.address,
            local: known.local,
            how: known.how.clone(),
        });
        BoxState {
            version: env!("CARGO_PKG_VERSION").into(),
            boot: boot(),
            stopped: clock::monotonic(),
            taken: clock::monotonic(),
            signaling_stopped: 0,
            udp: vec![],
            tcp,
            workers: vec![],
            connections: 0,
            carried: None,
            announced: announced.collect(),
            made_secret: secret.map(|secret| secret.expose_secret().into()),
            longest_ttl: self.reloader.longest_ttl.load(Ordering::Relaxed),
            unit: origin.unit.clone(),
            blackouts: self.blackouts.clone(),
            kept: None,
            late: Late::default(),
        }
    }

    /// Takes out what the operator and the backend would miss. Only relays may add to it from here
    /// on: see [`Self::late`].
    pub(super) fn kept(&self) -> Option<Box<RawValue>> {
        let kept = Kept {
            events: self.reloader.hooks.events.take_remains(),
            late_events: Remains::default(),
            denied: self
                .reloader
                .denied
                .as_ref()
                .map_or_else(Added::new, |denied| denied.added()),
            usage: self.usage.as_ref().map(|usage| usage.text()),
            counted: Counted::of(self),
            logins: self.reloader.people().marks(),
        };
        to_raw_value(&kept).ok()
    }

    /// Takes out what relays have added since [`Self::kept`]; all workers have ended.
    pub(super) fn late(&self) -> Late {
        Late {
            events: self.reloader.hooks.events.take_remains(),
            usage: self.usage.as_ref().and_then(|usage| usage.newer_text()),
        }
    }
}

fn boot() -> String {
    std::fs::read_to_string(BOOT).unwrap_or_default()
}

/// What an earlier process has left, not yet served.
pub struct Adopted {
    state: BoxState,
    reader: Reader,
    fds: Vec<OwnedFd>,
    /// Those of signaling.
    connections: Vec<OwnedFd>,
    /// When this process began.
    pub(in crate::app) began: u64,
}

/// The relay's share.
pub(in crate::app) struct RelayPart {
    pub(in crate::app) state: RelayState,
    pub(in crate::app) tcp: Vec<(SocketAddr, TcpListener)>,
}

impl Adopted {
    pub(super) fn from_descriptor(number: i32, began: u64) -> Result<Self, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let file = fds::adopt(number).map_err(|error| words(&error))?;
        let reader = Reader::open(file, &KNOWN).map_err(|error| words(&error))?;
        let numbers = reader.one(DESCRIPTORS).map_err(|error| words(&error))?;
        let numbers: Vec<i32> = serde_json::from_slice(&numbers).map_err(|error| words(&error))?;
        let mut seen = std::collections::HashSet::from([number]);
        let mut adopted = Vec::with_capacity(numbers.len());
        for number in numbers {
            if !seen.insert(number) {
                return Err("the snapshot names a descriptor twice".into());
            }
            let fd = fds::adopt(number);
            adopted.push(fd.map_err(|error| format!("descriptor {number}: {error}"))?);
        }
        let mut adopted = Self::of(reader, adopted)?;
        adopted.began = began;
        Ok(adopted)
    }

    /// What systemd has kept: the sandbox and the limits are those of the unit as it is now.
    pub(super) fn from_store(
        snapshot: OwnedFd,
        fds: Vec<OwnedFd>,
        began: u64,
    ) -> Result<Self, String> {
        let reader = Reader::open(snapshot, &KNOWN).map_err(|error| error.to_string())?;
        let mut adopted = Self::of(reader, fds)?;
        adopted.began = began;
        adopted.state.unit = unit::fingerprint();
        Ok(adopted)
    }

    pub(super) fn of(reader: Reader, mut fds: Vec<OwnedFd>) -> Result<Self, String> {
        let state = reader.one(BOX).map_err(|error| error.to_string())?;
        let state: BoxState = serde_json::from_slice(&state).map_err(|error| error.to_string())?;
        if state.boot != boot() {
            return Err("the snapshot is of another boot".into());
        }
        let before = state
            .workers
            .iter()
            .try_fold(state.tcp.len(), |sum, fds| sum.checked_add(*fds));
        let named = before.and_then(|before| before.checked_add(state.connections));
        if named != Some(fds.len()) {
            return Err("the snapshot names another number of sockets".into());
        }
        let connections = fds.split_off(fds.len() - state.connections);
        Ok(Self {
            state,
            reader,
            fds,
            connections,
            began: clock::monotonic(),
        })
    }

    pub(super) fn unit(&self) -> Option<String> {
        self.state.unit.clone()
    }

    /// The version of the process that left it.
    pub fn version(&self) -> &str {
        &self.state.version
    }

    pub(in crate::app) fn blackouts(&self) -> Blackouts {
        self.state.blackouts.clone()
    }

    /// What the operator and the backend would miss.
    pub(in crate::app) fn kept(&mut self) -> Kept {
        let kept = self.state.kept.take();
        let read = |kept: Box<RawValue>| serde_json::from_str(kept.get());
        let kept: Kept = kept
            .map(read)
            .transpose()
            .unwrap_or_else(|error| {
                tracing::warn!(
                    "events, bans and usage of the earlier process cannot be read: {error}"
                );
                None
            })
            .unwrap_or_default();
        let late = std::mem::take(&mut self.state.late);
        Kept {
            late_events: late.events,
            usage: late.usage.or(kept.usage),
            ..kept
        }
    }

    /// When packets began to wait.
    pub(in crate::app) fn stopped(&self) -> u64 {
        self.state.stopped
    }

    /// What was announced last.
    pub(in crate::app) fn announced(&self) -> Vec<Announced> {
        let announced = self.state.announced.iter().cloned();
        announced
            .map(|known| Announced {
                address: known.address,
                local: known.local,
                how: known.how,
            })
            .collect()
    }

    /// The longest `turn.ttl` that has applied, in seconds.
    pub(in crate::app) fn longest_ttl(&self) -> u64 {
        self.state.longest_ttl
    }

    /// Keeps the secret that was made for the run, unless `config` names one.
    pub(in crate::app) fn keep_secret(&self, config: &mut Config) {
        let made = self
            .state
            .made_secret
            .as_deref()
            .filter(|_| config.turn.made_secret);
        let made = made.map(|secret| vec![SecretString::from(secret)]);
        if let Some(secrets) = made.and_then(TurnSecrets::new) {
            if let Some(verifier) = &mut config.auth.verifier {
                verifier.accept_invites(InviteKeys::new(&secrets));
            }
            config.turn.secrets = secrets;
        }
    }

    /// What signaling was, as text, and when it stopped.
    pub(in crate::app) fn signaling(&self) -> Option<(Result<Vec<u8>, String>, Instant)> {
        let stopped = clock::instant_at(self.state.signaling_stopped);
        let text = self.reader.one(HUB).map_err(|error| error.to_string());
        Some((text, stopped))
    }

    /// The connections that go on, each with its socket where it has one.
    pub(in crate::app) fn connections(&mut self) -> Result<Vec<LeftBehind>, String> {
        let sockets = std::mem::take(&mut self.connections);
        let carried = match self.state.carried.take() {
            Some(text) => serde_json::from_str(text.get()).map_err(|error| error.to_string())?,
            None => Vec::<ParkedConnection>::new(),
        };
        let carried = carried.into_iter().map(|parked| (parked, None));
        if sockets.is_empty() {
            return Ok(carried.collect());
        }
        let text = self.reader.one(CONNECTIONS);
        let text = text.map_err(|error| error.to_string())?;
        let parked: Vec<ParkedConnection> =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if parked.len() != sockets.len() {
            return Err("the snapshot has another number of connections".into());
        }
        let over_sockets = parked.into_iter().zip(sockets.into_iter().map(Some));
        Ok(over_sockets.chain(carried).collect())
    }

    /// Takes the listeners of HTTP out, beside those that systemd has `passed`, and the relay's share where there is one.
    ///
    /// # Errors
    /// The relay's share is damaged, in words for the log.
    pub(in crate::app) fn take(
        &mut self,
        passed: Inherited,
    ) -> (Inherited, Result<Option<RelayPart>, String>) {
        let mut fds = std::mem::take(&mut self.fds).into_iter();
        let (mut listeners, mut tcp) = (vec![], vec![]);
        for (listening, fd) in self.state.tcp.iter().zip(fds.by_ref()) {
            let socket = TcpListener::from(fd);
            if socket.local_addr().ok() != Some(listening.address) {
                continue;
            }
            match listening.kind.as_str() {
                TURN => tcp.push((listening.address, socket)),
                kind => {
                    let inherited = listening.inherited;
                    listeners.push((kind.to_owned(), Listener { socket, inherited }));
                }
            }
        }
        let relay = match self.state.workers.is_empty() {
            true => Ok(None),
            false => self.relay(fds, tcp).map(Some),
        };
        (passed.and_handed_over(listeners), relay)
    }

    fn relay(
        &self,
        mut fds: impl Iterator<Item = OwnedFd>,
        tcp: Vec<(SocketAddr, TcpListener)>,
    ) -> Result<RelayPart, String> {
        let shared = self.reader.one(SHARED).map_err(|error| error.to_string())?;
        let shared = serde_json::from_slice(&shared).map_err(|error| error.to_string())?;
        let data = self.reader.all(WORKER).map_err(|error| error.to_string())?;
        if data.len() != self.state.workers.len() {
            return Err("the snapshot has another number of workers".into());
        }
        let counts = self.state.workers.iter().copied();
        let workers = data
            .into_iter()
            .zip(counts)
            .map(|(data, count)| WorkerState {
                data,
                fds: fds.by_ref().take(count).collect(),
            });
        let workers = workers.collect();
        Ok(RelayPart {
            state: RelayState {
                stopped: self.state.stopped,
                taken: self.state.taken,
                shared,
                udp: self.state.udp.clone(),
                workers,
            },
            tcp,
        })
    }
}
