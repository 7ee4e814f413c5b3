//! What each part of the box gets of the configuration.

use super::hooks::Hooks;
use crate::address;
use crate::auth::People;
use crate::clock;
use crate::compat::{self, PeerJsSettings, mqtt::RoomTopics, socketio::Profile, y_webrtc::YWebrtc};
use crate::config::{Config, LogAddresses, Mode, Protocol, SocketIoProfile, UniqueIdentity};
use crate::http::{self, Access, AdminToken, Scope};
use crate::net::{self, ConnectionCaps};
use crate::protocol::{ErrorCode, RequestError};
use crate::signal::hub::{self, Settings};
use crate::signal::{ConnectionLimits, ConnectionSettings};
use anyhow::{Context as _, Result};
use secrecy::ExposeSecret;
use std::sync::Arc;
use tokio::sync::watch;

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
        sessions_per_network: signal.connections_per_ip,
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
        policy: policy(config),
        ..Settings::default()
    }
}

fn policy(config: &Config) -> hub::Policy {
    let messages = config.policy.messages.iter().map(|rule| hub::MessageRule {
        role: rule.role,
        allow: rule.allow.clone(),
        deny: rule.deny.clone(),
        max: rule.max.map(|max| max.0 as usize),
    });
    let calls = config.policy.calls.iter().map(|rule| hub::CallRule {
        from: rule.from.clone(),
        to: rule.to.clone(),
        same_team: rule.same_team,
        same_room: rule.same_room,
        deny: rule.deny,
    });
    hub::Policy {
        messages: messages.collect(),
        calls: calls.collect(),
    }
}

pub(super) fn connection_settings(
    config: &Config,
    access: Access,
    hooks: &Hooks,
) -> ConnectionSettings {
    let keys = access.clone();
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
        fetch_key: Some(Arc::new(move |token| keys.fetch_key(token))),
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
        mqtt_rooms: compat
            .mqtt_rooms
            .as_deref()
            .and_then(RoomTopics::new)
            .map(Arc::new),
        polling: on(Protocol::Polling) || on(Protocol::Tutorials),
        socketio: match (on(Protocol::SocketIo), on(Protocol::Tutorials)) {
            (true, _) => Some(match compat.socketio_profile {
                SocketIoProfile::Relay => Profile::Relay,
                SocketIoProfile::Lobby => Profile::Lobby,
                SocketIoProfile::Codelab => Profile::Codelab,
                SocketIoProfile::Mesh => Profile::Mesh,
                SocketIoProfile::Call => Profile::Call,
            }),
            (false, true) => Some(Profile::Tutorial),
            (false, false) => None,
        },
    }
}

/// The folder of the application's own page.
pub(super) fn application(config: &Config) -> Result<Option<http::Root>> {
    let Some(folder) = &config.http.root else {
        return Ok(None);
    };
    let root = http::Root::open(folder);
    let shown = folder.display();
    root.map(Some)
        .with_context(|| format!("http.root = {shown}: make the folder, or name another one"))
}

/// Signs with the key of the configuration that applies.
pub(super) fn signer(config: watch::Receiver<Config>) -> http::Sign {
    Box::new(move |bearer, now, ttl| {
        let config = config.borrow();
        let signer = config.auth.signer.as_ref()?;
        Some(signer.sign(bearer, now, ttl))
    })
}

/// The people of the configuration that applies.
pub(super) fn people(config: watch::Receiver<Config>) -> Box<dyn Fn() -> People + Send + Sync> {
    Box::new(move || config.borrow().auth.people.clone())
}

pub(super) fn admin_token(config: &Config) -> Option<AdminToken> {
    let tokens = match &config.auth.admin_token {
        Some(token) => AdminToken::new(token.expose_secret()),
        None => AdminToken::default(),
    };
    let named = config.auth.admin_tokens.iter();
    let tokens = named.fold(tokens, |tokens, named| {
        let scopes = Scope::ALL.into_iter();
        let scopes: Vec<_> = scopes.filter(|s| named.has(s.as_str())).collect();
        tokens.with(&named.name, named.token.expose_secret(), &scopes)
    });
    (!tokens.is_empty()).then_some(tokens)
}

/// Shows as much of client addresses as the configuration says.
pub(super) fn show_addresses(config: &Config) {
    address::show(match config.log.addresses {
        LogAddresses::Full => address::Detail::Full,
        LogAddresses::Network => address::Detail::Network,
        LogAddresses::None => address::Detail::Nothing,
    });
}

/// What a process with the descriptors that shells give by default does not reach.
const FEW_CONNECTIONS: u32 = 1_000;

/// `signal.connections_per_ip` and `signal.max_connections` bound TCP connections of every kind; the
/// latter no further than the process has descriptors.
pub(super) fn connection_caps(config: &Config) -> ConnectionCaps {
    let relays = match config.turn.enabled {
        true => config.turn.total_quota,
        false => 0,
    };
    let budget = net::connection_budget(relays);
    let wanted = config.signal.max_connections;
    if budget < wanted.min(FEW_CONNECTIONS) {
        tracing::warn!(
            "descriptors suffice for {budget} connections beside relays, not for the {wanted} of \
             signal.max_connections: raise LimitNOFILE of the unit (`ulimit -Hn` in a shell)"
        );
    }
    ConnectionCaps {
        per_network: config.signal.connections_per_ip,
        total: wanted.min(budget),
    }
}
