//! What translators remember, as text for the process that goes on with their connections.

use super::mqtt::Mqtt;
use super::peerjs::PeerJs;
use super::socketio::SocketIo;
use super::trystero::Trystero;
use super::tutorial::Tutorial;
use super::{Foreign, Settings};
use crate::protocol::DialectKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// No timer of a translator is longer: the longest keep-alive of MQTT is a day and some hours.
pub(super) const LONGEST: Duration = Duration::from_secs(2 * 24 * 3600);

/// Milliseconds until a time.
pub(super) fn left(at: Instant, now: Instant) -> u64 {
    let left = at.saturating_duration_since(now).min(LONGEST);
    left.as_millis().try_into().unwrap_or(0)
}

/// The time until which so many milliseconds are left.
pub(super) fn at(left: u64, now: Instant) -> Instant {
    now + Duration::from_millis(left).min(LONGEST)
}

pub(super) fn write(memory: &impl Serialize) -> Option<String> {
    serde_json::to_string(memory).ok()
}

pub(super) fn read<T: DeserializeOwned>(memory: &str) -> Result<T, String> {
    // The error itself may quote what was read, a token among it.
    serde_json::from_str(memory).map_err(|error| {
        let (kind, place) = (error.classify(), error.column());
        format!("its state cannot be read: {kind:?} at byte {place}")
    })
}

impl Foreign {
    /// Makes the translator that an earlier process had of a connection, whose `memory` it is.
    ///
    /// # Errors
    /// It is not spoken here, or the memory is not one of it; in words for the log.
    pub fn remembered(
        kind: DialectKind,
        memory: &str,
        settings: &Settings,
        now: Instant,
    ) -> Result<Self, String> {
        let is_off = || format!("{} is not in compat.enabled any more", kind.as_str());
        let spoken = |is_on: bool| is_on.then_some(()).ok_or_else(is_off);
        match kind {
            DialectKind::Tutorial => {
                spoken(settings.tutorials || settings.polling)?;
                Ok(Tutorial::remembered(memory, now)?.into())
            }
            DialectKind::YWebrtc => settings.y_webrtc.map(Self::from).ok_or_else(is_off),
            DialectKind::Trystero => spoken(settings.trystero).map(|()| Trystero.into()),
            DialectKind::PeerJs => {
                let peerjs = settings.peerjs.as_ref().ok_or_else(is_off)?;
                Ok(PeerJs::remembered(memory, peerjs.relay_only)?.into())
            }
            DialectKind::Mqtt => {
                spoken(settings.mqtt || settings.tutorials)?;
                let topics = settings.mqtt_rooms.clone();
                Ok(Box::new(Mqtt::remembered(memory, topics, now)?).into())
            }
            DialectKind::SocketIo => {
                spoken(settings.socketio.is_some())?;
                Ok(Box::new(SocketIo::remembered(memory, now)?).into())
            }
            DialectKind::Native
            | DialectKind::Tutorial0
            | DialectKind::Tutorial1
            | DialectKind::Tutorial2
            | DialectKind::Tutorial3 => Err("it is of no translator".into()),
        }
    }
}

/// Goes on with a memory that may be anything, as the process does that is given one.
#[cfg(any(test, fuzzing))]
pub fn fuzz(kind: DialectKind, memory: &str, now: Instant) {
    use crate::signal::{Dialect, Incoming, Output};

    let settings = Settings {
        tutorials: true,
        y_webrtc: Some(super::YWebrtc { relay_only: false }),
        trystero: true,
        peerjs: Some(super::PeerJsSettings {
            key: "peerjs".into(),
            paths: vec![],
            relay_only: false,
        }),
        mqtt: true,
        socketio: Some(super::socketio::Profile::Relay),
        ..Settings::default()
    };
    let Ok(mut dialect) = Foreign::remembered(kind, memory, &settings, now) else {
        return;
    };
    let (mut frames, mut asked, mut closing) = (vec![], vec![], None);
    let out = &mut Output::new(&mut frames, &mut asked, &mut closing);
    dialect.decode(Incoming::Text("{}"), now, out);
    dialect.decode(Incoming::Binary(b"\xc0\0"), now, out);
    if dialect.next_timeout().is_some() {
        dialect.timed_out(now + LONGEST, out);
    }
    drop(dialect.memory(now));
}
