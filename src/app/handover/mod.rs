//! A running box given to a successor: sockets, allocations, sessions.
//!
//! The old process asks the new binary whether it reads what it would be given, stops, and writes its
//! state into a sealed memory file. In an upgrade it then becomes the new binary by `execve`, all
//! sockets open; in a restart systemd keeps file and sockets, and starts the new one. The new one
//! adopts before it binds. What waits in the sockets meanwhile is read by the new process.
//! Whatever fails before the `execve` leaves the old process running; whatever fails after it ends
//! in a start from nothing, with a line in the log that says why.

pub mod answer;
mod arrival;
mod blackouts;
mod bus;
mod check;
mod container;
mod counted;
mod fds;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod memory;
mod restart;
mod state;
mod store;
mod unit;

pub(super) use arrival::Arrival;
pub(super) use blackouts::Blackouts;
pub use check::check_handover;
pub(super) use counted::Counting;
pub use fds::{hold_signals, release_signals};
pub use state::Adopted;
pub(super) use state::{BoxState, HeldListener, Kept, Listening, RelayPart};

use super::App;
use crate::clock;
use crate::http::Phase;
use crate::relay::RelayState;
use container::{Reader, Tag, Writer};
use serde::Serialize;
use serde_json::value::to_raw_value;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names the memory file to the successor: its descriptor and the process id, so that no child of
/// this process takes itself for one. Names without a double underscore are not configuration.
const VARIABLE: &str = "CALLBOX_HANDOVER";

const BOX: Tag = *b"BOX ";
const SHARED: Tag = *b"SHAR";
const WORKER: Tag = *b"WORK";
const DESCRIPTORS: Tag = *b"FDS ";
const HUB: Tag = *b"HUB ";
/// Since format 2.
const CONNECTIONS: Tag = *b"CONN";
const KNOWN: [Tag; 6] = [BOX, SHARED, WORKER, DESCRIPTORS, HUB, CONNECTIONS];

/// The first format in which connections of signaling go on.
const CONNECTIONS_SINCE: u32 = 2;
/// How long connections may take to stop for the successor. Calls go on meanwhile.
const PARKING: Duration = Duration::from_secs(1);
/// How long the other WebSockets may take to close before the process stops.
const GOODBYE: Duration = Duration::from_millis(100);

/// What this process was started as, to be found out before anything changes it.
#[derive(Debug, Clone)]
pub struct Origin {
    program: OsString,
    config: Option<PathBuf>,
    /// Of the unit's files.
    unit: Option<String>,
}

impl Origin {
    /// Looks at the arguments: the path that was typed, or that systemd names, is where an upgrade
    /// puts the next binary.
    pub fn of_process(config: Option<&Path>, adopted: Option<&Adopted>) -> Self {
        let typed = std::env::args_os().next().map(PathBuf::from);
        let typed = typed.filter(|path| path.components().count() > 1);
        let program = typed.or_else(|| std::env::current_exe().ok());
        Self {
            program: program.map_or_else(|| "callbox".into(), OsString::from),
            config: config.map(Path::to_owned),
            unit: match adopted {
                Some(adopted) => adopted.unit(),
                None => unit::fingerprint(),
            },
        }
    }

    /// Asks the binary on disk whether it can go on from here; returns the format to write.
    ///
    /// # Errors
    /// Why there is no hand-over, in words for the log.
    fn ask_successor(&self) -> Result<u32, String> {
        if self.unit.is_some() && unit::fingerprint() != self.unit {
            return Err(format!(
                "{}, and its sandbox and limits apply from a restart on: `systemctl daemon-reload \
                 && systemctl restart` the service",
                answer::UNIT_CHANGED
            ));
        }
        check::ask(&self.program, self.config.as_deref())
    }

    /// Asks whether systemd starts the service again, and the binary on disk whether it can go on from
    /// here then; `None` where this is the end.
    ///
    /// # Errors
    /// Why a restart does not hand over, in words for the log.
    fn ask_restart(&self) -> Result<Option<(Way, u32)>, String> {
        let Some(restart) = restart::ask()? else {
            return Ok(None);
        };
        if restart.store == 0 {
            return Err(
                "systemd keeps no sockets: set FileDescriptorStoreMax=64 in the unit".into(),
            );
        }
        let format = check::ask(&self.program, self.config.as_deref())?;
        Ok(Some((Way::Store(restart.store), format)))
    }
}

/// How a successor gets what is left to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// This process becomes the successor.
    Exec,
    /// systemd keeps it, no more than so many descriptors, and starts the successor.
    Store(usize),
}

/// A box that has stopped, and can go on: as the successor, or here.
pub struct Prepared {
    reader: Reader,
    fds: Vec<OwnedFd>,
    failure: Option<String>,
}

/// A hand-over without a successor.
pub struct Failed {
    /// Why, in words for the log.
    pub reason: String,
    /// Everything that a start in this process needs to go on, or why it is not there.
    pub left: Result<Adopted, String>,
}

impl App {
    /// Asks the binary on disk whether it can go on from here; returns the format to write.
    ///
    /// # Errors
    /// Why there is no hand-over, in words for the log.
    pub async fn ask_successor(&self, origin: &Origin) -> Result<u32, String> {
        if !self.reloader.hands_over() {
            return Err(
                "upgrade.handover is false, or this is a node of a cluster: restart the service"
                    .into(),
            );
        }
        memory::check(&self.load())?;
        let origin = origin.clone();
        let asked = tokio::task::spawn_blocking(move || origin.ask_successor()).await;
        asked.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Asks whether systemd starts the service again; returns the way and the format of a hand-over,
    /// or `None` where this is the end or calls cannot go on.
    pub async fn ask_restart(&self, origin: &Origin) -> Option<(Way, u32)> {
        if !self.reloader.hands_over() {
            return None;
        }
        let (origin, load) = (origin.clone(), self.load());
        let asked = tokio::task::spawn_blocking(move || {
            let restart = origin.ask_restart()?;
            restart
                .is_some()
                .then(|| memory::check(&load))
                .transpose()?;
            Ok(restart)
        });
        let asked = asked.await;
        let asked = asked.unwrap_or_else(|error| Err(error.to_string()));
        asked.unwrap_or_else(|error| {
            tracing::warn!("calls end with this process: {error}");
            None
        })
    }

    fn load(&self) -> memory::Load {
        let gauges = self.driver.with_hub(|hub, _, _| hub.gauges());
        let relay = self.relay.as_ref();
        memory::Load {
            sessions: gauges.sessions,
            ring_bytes: gauges.ring_bytes,
            allocations: relay.map_or(0, |relay| relay.shared().allocations() as usize),
        }
    }

    /// Stops everything and writes it down in `format`. Relayed packets wait in their sockets from
    /// here on, and so does what comes over plain WebSockets; those over TLS are closed, and their
    /// clients resume.
    pub async fn hand_over(mut self, format: u32, origin: &Origin) -> Prepared {
        self.phase.send_replace(Phase::Draining);
        // Who comes from here on waits in the queues of the listeners.
        self.stop_inherited.send_replace(true);
        self.stop.send_replace(true);
        if format >= CONNECTIONS_SINCE {
            self.driver.park(PARKING).await;
        }
        let signaling_stopped = clock::monotonic();
        let signaling = self.driver.hand_over();
        let (mut parked, mut sockets, mut carried) = (vec![], vec![], vec![]);
        for (connection, socket) in self.driver.take_parked() {
            match socket {
                Some(socket) => {
                    parked.push(connection);
                    sockets.push(socket);
                }
                None => carried.push(connection),
            }
        }
        self.driver.leave_to_successor();
        let _ = tokio::time::timeout(GOODBYE, self.driver.empty()).await;
        self.tasks.shutdown().await;
        if let Some(usage) = &self.usage {
            usage.close();
        }
        if let (Some(relay), Some(log)) = (&self.relay, &self.revocations) {
            super::revocations::append(relay, log).await;
        }
        // A backend that does not answer must not hold anybody: the successor sends what waits.
        let kept = self.kept();
        let (mut writer, mut failure) = (Writer::new(), None);
        // Rooms may be large: they are written while packets still flow.
        writer.add(HUB, text(&signaling));
        drop(signaling);
        if format >= CONNECTIONS_SINCE {
            writer.add(CONNECTIONS, text(&parked));
        }
        let (mut tcp, mut fds) = (vec![], vec![]);
        for held in std::mem::take(&mut self.listeners) {
            tcp.push(held.listening);
            fds.push(held.socket);
        }
        let mut state = self.state(tcp, origin);
        state.signaling_stopped = signaling_stopped;
        state.kept = kept;
        if let Some(relay) = &self.relay {
            for listener in relay.tcp_listeners().unwrap_or_default() {
                if let Some(listening) = Listening::of_relay(&listener) {
                    state.tcp.push(listening);
                    fds.push(listener.into());
                }
            }
            match relay.give_up() {
                Ok(given) => fds.extend(write_relay(given, &mut state, &mut writer)),
                Err(error) => failure = Some(error),
            }
        }
        state.late = self.late();
        (state.connections, state.carried) = (sockets.len(), to_raw_value(&carried).ok());
        fds.extend(sockets);
        let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        writer.add(DESCRIPTORS, text(&numbers));
        writer.add(BOX, text(&state));
        let sealed = writer.seal(format);
        if let Some(error) = sealed.failure {
            failure.get_or_insert(format!("the snapshot cannot be written: {error}"));
        }
        Prepared {
            reader: sealed.reader,
            fds,
            failure,
        }
    }
}

/// Writes the relay's share; returns its sockets, those of each worker in turn.
fn write_relay(given: RelayState, state: &mut BoxState, writer: &mut Writer) -> Vec<OwnedFd> {
    (state.stopped, state.taken, state.udp) = (given.stopped, given.taken, given.udp);
    writer.add(SHARED, text(&given.shared));
    let mut fds = vec![];
    for worker in given.workers {
        state.workers.push(worker.fds.len());
        fds.extend(worker.fds);
        writer.add(WORKER, worker.data);
    }
    fds
}

/// Plain data always has a text; without one, the successor starts from nothing.
fn text(data: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(data).unwrap_or_default()
}

impl Prepared {
    /// Leaves everything to the successor, by becoming it or by leaving it to systemd, after which this
    /// process ends.
    ///
    /// # Errors
    /// There is no successor.
    pub fn pass_on(
        self,
        way: Way,
        origin: &Origin,
        asked: impl FnOnce() -> Option<i32>,
    ) -> Result<(), Box<Failed>> {
        let failure = match (&self.failure, way) {
            (Some(failure), _) => failure.clone(),
            (None, Way::Exec) => self.exec(origin, asked),
            (None, Way::Store(most)) => match self.store(most) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
        };
        Err(Box::new(Failed {
            reason: failure,
            left: Adopted::of(self.reader, self.fds),
        }))
    }

    fn store(&self, most: usize) -> Result<(), String> {
        let snapshot = self.reader.file().ok_or("there is no snapshot")?;
        store::leave(snapshot, &self.fds, most)
    }

    fn exec(&self, origin: &Origin, asked: impl FnOnce() -> Option<i32>) -> String {
        let Some(file) = self.reader.file() else {
            return "there is no snapshot".into();
        };
        let all = || self.fds.iter().map(AsFd::as_fd).chain([file]);
        if let Err(error) = fds::keep_open(all(), true) {
            let _ = fds::keep_open(all(), false);
            return format!("a socket cannot be kept open: {error}");
        }
        let mut environment: Vec<_> = std::env::vars_os().collect();
        environment.retain(|(name, _)| name != VARIABLE);
        environment.push((VARIABLE.into(), named(file).into()));
        // A signal in between would find no handler and end the process.
        fds::hold_signals();
        // One that came while this was prepared was taken here, and is for the successor to act on.
        if let Some(signal) = asked() {
            fds::repeat_signal(signal);
        }
        let arguments = std::env::args_os().collect();
        let error = fds::become_program(origin.program.clone(), arguments, environment);
        fds::release_signals();
        let _ = fds::keep_open(all(), false);
        let program = Path::new(&origin.program).display();
        format!("{program} cannot be executed: {error}")
    }
}

fn named(file: BorrowedFd<'_>) -> String {
    format!("{}:{}", file.as_raw_fd(), std::process::id())
}

/// Takes over what the process that was here before has left, if it has. To be called before
/// anything opens descriptors.
///
/// # Errors
/// Why it cannot be taken; everything that was left is closed then.
pub fn adopt() -> Option<Result<Adopted, String>> {
    adopt_after_exec().or_else(store::take)
}

fn adopt_after_exec() -> Option<Result<Adopted, String>> {
    let value = std::env::var(VARIABLE).ok()?;
    let (number, process) = value.split_once(':')?;
    if process.parse() != Ok(std::process::id()) {
        return None;
    }
    let began = clock::monotonic();
    let adopted = number
        .parse()
        .map_err(|_| format!("{VARIABLE} names no descriptor"))
        .and_then(|number| Adopted::from_descriptor(number, began));
    if adopted.is_err() {
        fds::close_all();
    }
    Some(adopted)
}

#[cfg(test)]
mod tests;
