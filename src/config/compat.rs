//! The foreign protocols that the box speaks: the `[compat]` table.

use super::collect::Check;
use super::protocols::{Protocol, SocketIoProfile};
use super::raw::Raw;
use std::collections::BTreeSet;

/// The foreign protocols that are on.
#[derive(Debug, Clone, Default)]
pub struct Compat {
    /// Which.
    pub enabled: BTreeSet<Protocol>,
    /// `compat.socketio.profile`.
    pub socketio_profile: SocketIoProfile,
    /// Whether a page that opens a call without a room finds those that wait in silence: on
    /// loopback only, where nobody else waits.
    pub lobby: bool,
    /// `compat.peerjs.key`.
    pub peerjs_key: String,
    /// `compat.peerjs.paths`, with a slash at both ends.
    pub peerjs_paths: Vec<String>,
    /// `compat.peerjs.relay_only`.
    pub peerjs_relay_only: bool,
    /// `compat.mqtt.rooms`.
    pub mqtt_rooms: Option<String>,
    /// `compat.y-webrtc.relay_only`.
    pub y_webrtc_relay_only: bool,
}

impl Compat {
    /// Whether `protocol` is on.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.enabled.contains(&protocol)
    }
}

impl Check<'_> {
    pub(super) fn compat(&mut self, raw: &Raw, is_loopback_and_open: bool) -> Compat {
        let enabled = match &raw.compat.enabled {
            Some(written) => written.iter().copied().collect(),
            // Nobody else reaches the box: the tutorials work as they are written.
            None if is_loopback_and_open => BTreeSet::from([Protocol::Tutorials]),
            None => BTreeSet::new(),
        };
        let socketio_profile = raw.compat.socketio.profile;
        if socketio_profile != SocketIoProfile::default() && !enabled.contains(&Protocol::SocketIo)
        {
            self.problem(
                "compat.socketio.profile",
                "",
                "is set, but compat.enabled does not name \"socketio\"",
            )
            .set_fix("add \"socketio\" to compat.enabled, or leave the profile out");
        }
        let peerjs = &raw.compat.peerjs;
        if peerjs.key.is_empty() {
            self.problem("compat.peerjs.key", "", "is empty")
                .set_fix("leave it out, or give clients a key to name");
        }
        let mqtt_rooms = match &raw.compat.mqtt.rooms {
            Some(pattern) => self.mqtt_rooms(pattern),
            // A tutorial shows its room in this topic.
            None if enabled.contains(&Protocol::Tutorials) => Some("room/{room}/signaling".into()),
            None => None,
        };
        let peerjs_paths = peerjs
            .paths
            .iter()
            .filter_map(|path| self.peerjs_path(path));
        Compat {
            mqtt_rooms,
            enabled,
            socketio_profile,
            lobby: is_loopback_and_open,
            peerjs_key: peerjs.key.clone(),
            peerjs_paths: peerjs_paths.collect::<BTreeSet<_>>().into_iter().collect(),
            peerjs_relay_only: peerjs.relay_only,
            y_webrtc_relay_only: raw.compat.y_webrtc.relay_only,
        }
    }

    /// A pattern of topics with one `{room}`; empty: no topic is a room.
    fn mqtt_rooms(&mut self, pattern: &str) -> Option<String> {
        let is_plain = !pattern.contains(['+', '#', '\0']) && !pattern.starts_with('$');
        let rest = pattern.replacen("{room}", "", 1);
        if pattern.is_empty()
            || is_plain && rest.len() < pattern.len() && !rest.contains(['{', '}'])
        {
            return Some(pattern.to_owned()).filter(|pattern| !pattern.is_empty());
        }
        self.problem(
            "compat.mqtt.rooms",
            pattern,
            "is not a topic with one {room} in it",
        )
        .set_fix("write \"room/{room}/signaling\", or \"\" for no topic that is a room");
        None
    }

    /// A prefix with a slash at both ends, as clients write it into their URLs.
    fn peerjs_path(&mut self, path: &str) -> Option<String> {
        let is_plain = |segment: &str| {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            !segment.is_empty() && segment.bytes().all(is_word) && !matches!(segment, "." | "..")
        };
        let bare = path.trim_matches('/');
        let reserved = ["v1", "ws", "sdk", "assets", "check", "admin", "socket.io"];
        let first = bare.split('/').next().unwrap_or("");
        if bare.is_empty() || bare.split('/').all(is_plain) && !reserved.contains(&first) {
            let slash = if bare.is_empty() { "" } else { "/" };
            return Some(format!("/{bare}{slash}"));
        }
        self.problem(
            "compat.peerjs.paths",
            path,
            "is not a path that can be given to PeerJS",
        )
        .set_fix("write \"/\", or segments of letters, digits and -._~ that the box does not use");
        None
    }
}
