//! Who may come in: caps, names, passwords, locks.

use super::interface::UniqueIdentity;
use super::rate::{Guesser, guessers};
use super::requests::Requester;
use super::timers::Timer;
use super::{Cx, Hub, Now};
use crate::auth::{Grant, Role};
use crate::network::network_of;
use crate::protocol::{ErrorCode, PeerId, RequestError};
use crate::signal::room::{PasswordHash, Room};
use secrecy::SecretString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            || self.sessions.is_network_full(network, &self.settings);
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

    /// Adds a room, or puts it back, and counts it to the network of who made it.
    pub(super) fn insert_room(&mut self, room: Room) {
        self.rooms_of.add(room.maker, 1);
        self.rooms.insert(room.id.clone(), room);
    }

    /// Takes a room out, for good or for a change.
    pub(super) fn remove_room(&mut self, name: &str) -> Option<Room> {
        let room = self.rooms.remove(name)?;
        self.rooms_of.give_back(room.maker);
        Some(room)
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
            let network = network_of(self.conns[&requester.conn].client);
            let total = u32::try_from(self.settings.max_rooms).unwrap_or(u32::MAX);
            let limit = self.settings.sessions_per_network;
            if self.rooms_of.is_full(network, limit, total) {
                return Err(RequestError::slow_down(FULL_RETRY));
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
        let client = self.conns[&requester.conn].client;
        let now = cx.now.instant;
        for (guesser, times) in guessers(client, &room) {
            self.attempts
                .check(now, &guesser, times)
                .map_err(RequestError::slow_down)?;
        }
        if hash.verify(password) {
            return Ok(());
        }
        for (guesser, times) in guessers(client, &room) {
            self.charge_guess(now, guesser, times);
        }
        refusal("the password is wrong")
    }

    /// Whether a client may try to log in as `name`.
    ///
    /// # Errors
    /// `rate-limited`: too many wrong passwords of late, for this name or any, from its network.
    pub fn may_log_in(&self, now: Now, client: IpAddr, name: &str) -> Result<(), RequestError> {
        for (guesser, times) in login_guessers(client, name) {
            let checked = self.attempts.check(now.instant, &guesser, times);
            checked.map_err(RequestError::slow_down)?;
        }
        Ok(())
    }

    /// A client has tried a wrong password, or a name that nobody has.
    pub fn login_failed(&mut self, now: Now, client: IpAddr, name: &str) {
        for (guesser, times) in login_guessers(client, name) {
            self.charge_guess(now.instant, guesser, times);
        }
    }

    fn charge_guess(&mut self, now: Instant, guesser: Guesser, times: u32) {
        let charge = self.attempts.charge(now, guesser.clone(), times);
        if let Some((until, guesser)) = charge.instead_of {
            self.timers.cancel(until, Timer::Forgive(guesser));
        }
        self.timers.set(charge.until, Timer::Forgive(guesser));
    }
}

/// What wrong passwords of people are charged to. No room has a name with a control character.
fn login_guessers(client: IpAddr, name: &str) -> impl Iterator<Item = (Guesser, u32)> {
    let of_name: Arc<str> = format!("\u{0}login {name}").into();
    let of_any: Arc<str> = "\u{0}login".into();
    [of_name, of_any]
        .into_iter()
        .flat_map(move |what| guessers(client, &what).collect::<Vec<_>>())
}
