//! What each part of signaling is told of the configuration.

use super::hooks::Hooks;
use crate::clock;
use crate::compat::{self, PeerJsSettings, y_webrtc::YWebrtc};
use crate::config::{Config, Mode, Protocol, UniqueIdentity};
use crate::http::Access;
use crate::protocol::{ErrorCode, RequestError};
use crate::signal::hub::{self, Settings};
use crate::signal::{ConnectionLimits, ConnectionSettings};
use std::sync::Arc;

pub(super) fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        per_ip: config.signal.connections_per_ip,
        total: config.signal.max_connections,
        outbox: config.signal.outbox.0 as usize,
    }
}

pub(super) fn hub_settings(config: &Config, page: &str) -> Settings {
    let (rooms, signal) = (&config.rooms, &config.signal);
    Settings {
        max_peers: rooms.max_peers,
        max_rooms: rooms.max_rooms as usize,
        unique_identity: match rooms.unique_identity {
            UniqueIdentity::Allow => hub::UniqueIdentity::Allow,
            UniqueIdentity::Replace => hub::UniqueIdentity::Replace,
            UniqueIdentity::Reject => hub::UniqueIdentity::Reject,
        },
        sessions_per_network: signal.connections_per_ip as usize,
        list_rooms: rooms.list,
        heartbeat: signal.heartbeat.0,
        resume_window: signal.resume_window.0,
        ring: signal.ring.0 as usize,
        ring_total: signal.ring_total.0 as usize,
        rate: signal.rate.0,
        candidate_rate: signal.candidate_rate.0,
        page: page.to_owned(),
        invite_tokens: config.auth.mode == Mode::Jwt,
        byte_rate: signal.byte_rate.0,
        byte_burst: signal.outbox.0 / 2,
        ..Settings::default()
    }
}

pub(super) fn connection_settings(
    config: &Config,
    access: Access,
    hooks: &Hooks,
) -> ConnectionSettings {
    ConnectionSettings {
        heartbeat: config.signal.heartbeat.0,
        timeout: config.signal.timeout.0,
        max_frame: config.signal.max_frame.0 as usize,
        authorize: Arc::new(move |token| {
            access.grant(token, clock::unix_now()).map_err(|error| {
                let code = ErrorCode::from_name(error.code()).unwrap_or(ErrorCode::Unauthorized);
                RequestError::new(code, error.to_string())
            })
        }),
        consult: Some(Arc::new(hooks.clone())),
    }
}

pub(super) fn compat_settings(config: &Config) -> compat::Settings {
    let compat = &config.compat;
    let on = |protocol| compat.speaks(protocol);
    compat::Settings {
        tutorials: on(Protocol::Tutorials),
        lobby: compat.lobby,
        y_webrtc: on(Protocol::YWebrtc).then_some(YWebrtc {
            relay_only: compat.y_webrtc_relay_only,
        }),
        trystero: on(Protocol::Trystero),
        peerjs: on(Protocol::PeerJs).then(|| PeerJsSettings {
            key: compat.peerjs_key.clone(),
            paths: compat.peerjs_paths.clone(),
            relay_only: compat.peerjs_relay_only,
        }),
        mqtt: on(Protocol::Mqtt),
    }
}
