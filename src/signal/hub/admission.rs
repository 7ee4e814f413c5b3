//! Who may come in: caps, names, passwords, locks.

use super::interface::UniqueIdentity;
use super::rate::Guesser;
use super::requests::Requester;
use super::timers::Timer;
use super::{Cx, Hub};
use crate::auth::{Grant, Role};
use crate::network::network_of;
use crate::protocol::{ErrorCode, PeerId, RequestError};
use crate::signal::room::PasswordHash;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;

/// When a server, or a network, full of sessions may be asked again: about when resume windows
/// have ended.
const FULL_RETRY: Duration = Duration::from_secs(30);

impl Hub {
    pub(super) fn check_capacity(
        &self,
        requester: &Requester,
        grant: Result<Grant, RequestError>,
    ) -> Result<Grant, RequestError> {
        if self.draining.is_some() {
            return Err(RequestError::new(
                ErrorCode::Draining,
                "the server shuts down",
            ));
        }
        let network = network_of(self.conns[&requester.conn].client);
        let full = self.sessions.len() >= self.settings.max_sessions
            || self.sessions.of_network(network) >= self.settings.sessions_per_network;
        if full && self.sessions.get(requester.peer).is_none() {
            return Err(RequestError::slow_down(FULL_RETRY));
        }
        grant
    }

    /// Members of that name, the asker aside, where names are to be unique.
    pub(super) fn namesakes(
        &self,
        room: &str,
        requester: PeerId,
        identity: Option<&str>,
    ) -> Vec<PeerId> {
        let (UniqueIdentity::Replace | UniqueIdentity::Reject, Some(_), Some(room)) = (
            self.settings.unique_identity,
            identity,
            self.rooms.get(room),
        ) else {
            return Vec::new();
        };
        let same_name = |peer: &PeerId| {
            self.sessions
                .get(*peer)
                .is_some_and(|session| session.identity.as_deref() == identity)
        };
        room.others(requester)
            .map(|member| member.peer)
            .filter(same_name)
            .collect()
    }

    /// Whether the asker may enter, and if so, whether that makes the room anew.
    pub(super) fn may_enter(
        &mut self,
        cx: &Cx<'_>,
        requester: &Requester,
        name: &str,
        password: Option<&SecretString>,
        token_role: Option<Role>,
        namesakes: &[PeerId],
    ) -> Result<bool, RequestError> {
        let Some(room) = self.rooms.get(name) else {
            if self.rooms.len() >= self.settings.max_rooms {
                return Err(RequestError::new(
                    ErrorCode::RoomFull,
                    "the server has no room left",
                ));
            }
            return Ok(true);
        };
        let rejoins = room.member(requester.peer).is_some();
        if rejoins && room.members().len() == 1 {
            return Ok(false);
        }
        // Any host may set a password, and none keeps a token's host out.
        if token_role != Some(Role::Host)
            && let Some(hash) = room.password.clone()
        {
            let id = room.id.clone();
            self.check_password(cx, requester, id, &hash, password)?;
        }
        if !namesakes.is_empty() && self.settings.unique_identity == UniqueIdentity::Reject {
            return Err(RequestError::new(
                ErrorCode::IdentityTaken,
                "the identity is in the room",
            ));
        }
        let leaving = usize::from(rejoins) + namesakes.len();
        self.rooms[name]
            .admit(token_role, leaving, self.settings.max_peers)
            .map_err(|code| {
                let message = match code {
                    ErrorCode::RoomLocked => "the room is locked",
                    _ => "the room is full",
                };
                RequestError::new(code, message)
            })?;
        Ok(false)
    }

    fn check_password(
        &mut self,
        cx: &Cx<'_>,
        requester: &Requester,
        room: Arc<str>,
        hash: &PasswordHash,
        password: Option<&SecretString>,
    ) -> Result<(), RequestError> {
        let refusal = |message| Err(RequestError::new(ErrorCode::BadPassword, message));
        let Some(password) = password else {
            return refusal("the room has a password");
        };
        let guesser: Guesser = (network_of(self.conns[&requester.conn].client), room);
        let now = cx.now.instant;
        self.attempts
            .check(now, &guesser)
            .map_err(RequestError::slow_down)?;
        if hash.verify(password) {
            return Ok(());
        }
        let charge = self.attempts.charge(now, guesser.clone());
        if let Some((until, guesser)) = charge.instead_of {
            self.timers.cancel(until, Timer::Forgive(guesser));
        }
        self.timers.set(charge.until, Timer::Forgive(guesser));
        refusal("the password is wrong")
    }
}
