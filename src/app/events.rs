//! Joins signaling, the relay and the log with the stream of events.

use super::relay_owners::RelayOwners;
use super::usage::Usage;
use crate::config::Config;
use crate::hooks::{Events, Topic};
use crate::http::{Listen, Listening};
use crate::log;
use crate::protocol::PeerId;
use crate::relay::OnAllocation;
use crate::relay::engine::{CloseReason, Event};
use crate::signal::Driver;
use crate::signal::hub::{Notice, PeerInfo, Subject};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// What each event bears: the name of the node in its cluster, or else of this machine.
pub(super) fn node_name(config: &Config) -> String {
    if let Some(cluster) = &config.cluster {
        return cluster.node.clone();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "callbox".to_owned(),
        name => name.to_owned(),
    }
}

/// Has signaling tell `events` what happens.
pub(super) fn connect(events: &Events, driver: &Driver, owners: &Arc<RelayOwners>) {
    let (told, owners) = (events.clone(), Arc::clone(owners));
    driver.notify(Box::new(move |notice| {
        if let Notice::PeerJoined {
            room,
            peer_id,
            identity,
            ..
        } = &notice
        {
            owners.joined(*peer_id, room, identity);
        }
        told.notice(notice);
    }));
    watch(events, driver);
}

/// Has signaling make notices while anybody wants them.
pub(super) fn watch(events: &Events, driver: &Driver) {
    driver.with_hub(|hub, _, _| hub.watch(events.is_wanted()));
}

/// Shows the warnings of this process to listeners, until the task is ended.
pub(super) async fn follow_warnings(events: Events) {
    let mut warnings = log::warnings();
    loop {
        match warnings.recv().await {
            Ok(message) => {
                let message = json!({ "message": &*message });
                events.show(Topic::Warning, "warning", &message);
            }
            // The log has them.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Lets the admin API listen.
pub(super) fn listen(events: &Events, driver: &Arc<Driver>) -> Listen {
    let (events, driver) = (events.clone(), Arc::clone(driver));
    Box::new(move |subjects| {
        let listener = events.listen(subjects.clone())?;
        driver.with_hub(|hub, _, _| {
            subjects.iter().for_each(|subject| hub.trace(subject));
            hub.watch(true);
        });
        let end = EndOfListening {
            events: events.clone(),
            driver: Arc::clone(&driver),
            subjects,
        };
        Some(Listening {
            listener,
            end: Box::new(end),
        })
    })
}

/// Ends what was made for one listener alone. It is dropped after the listener.
struct EndOfListening {
    events: Events,
    driver: Arc<Driver>,
    subjects: Vec<Subject>,
}

impl Drop for EndOfListening {
    fn drop(&mut self) {
        self.driver.with_hub(|hub, _, _| {
            self.subjects.iter().for_each(|s| hub.end_trace(s));
            hub.watch(self.events.is_wanted());
        });
    }
}

/// The end of a relay, as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RelayEnded<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    who: Option<Who>,
    transport: &'static str,
    bytes: u64,
    bytes_sent: u64,
    bytes_received: u64,
    seconds: u64,
    reason: &'static str,
}

/// Where a peer was when its relay ended.
#[derive(Serialize)]
struct Who {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    identity: String,
}

impl From<PeerInfo> for Who {
    fn from(peer: PeerInfo) -> Self {
        Self {
            room: peer.room_id,
            identity: peer.identity,
        }
    }
}

/// What becomes of the end of a relay: it is counted, and told.
pub(super) fn on_allocation(
    events: &Events,
    owners: &Arc<RelayOwners>,
    usage: &Arc<Usage>,
) -> OnAllocation {
    let (events, owners, usage) = (events.clone(), Arc::clone(owners), Arc::clone(usage));
    Arc::new(move |event| {
        usage.count(event);
        tell(&events, &owners, event);
    })
}

fn tell(events: &Events, owners: &RelayOwners, event: &Event) {
    let who = match event {
        Event::Closed {
            user, five_tuple, ..
        } => owners.closed(user, five_tuple),
        _ => None,
    };
    match event {
        Event::Opened {
            user, five_tuple, ..
        } => {
            if events.is_wanted() {
                owners.opened(user, *five_tuple);
            }
            let started = json!({
                "user": &**user,
                "peerId": peer_id(user),
                "transport": five_tuple.transport.as_str(),
            });
            events.show(Topic::Relay, "relay-started", &started);
        }
        Event::Closed {
            user,
            five_tuple,
            sent,
            received,
            lived,
            reason,
            ..
        } => {
            let ended = RelayEnded {
                user,
                peer_id: peer_id(user),
                who: who.map(Who::from),
                transport: five_tuple.transport.as_str(),
                bytes: sent.bytes + received.bytes,
                bytes_sent: sent.bytes,
                bytes_received: received.bytes,
                seconds: lived.as_secs(),
                reason: reason_name(*reason),
            };
            // Browsers make allocations that no call comes to use: the backend would learn nothing.
            match sent.packets + received.packets {
                0 => events.show(Topic::Relay, "relay-ended", &ended),
                _ => events.push(Topic::Relay, "relay-ended", &ended),
            }
        }
        Event::Refused { .. }
        | Event::PermissionInstalled { .. }
        | Event::PermissionGone { .. }
        | Event::ChannelBound { .. }
        | Event::ChannelGone { .. } => {}
    }
}

/// The user, where it is the peer id of a session.
fn peer_id(user: &str) -> Option<&str> {
    PeerId::parse(user).map(|_| user)
}

fn reason_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Client => "client",
        CloseReason::Expired => "expired",
        CloseReason::SessionEnd => "session-end",
        CloseReason::Revoked => "revoked",
        CloseReason::Disconnected => "disconnected",
        CloseReason::Stopped => "stopped",
    }
}
