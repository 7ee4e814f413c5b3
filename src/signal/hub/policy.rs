//! What the operator allows members to send, and whom to call.
//!
//! Without rules nothing is looked at.

use super::requests::Requester;
use super::rules::{CallRule, MessageRule};
use super::session::Session;
use super::{ConnId, Hub};
use crate::auth::{Role, glob};
use crate::protocol::{ErrorCode, MessageType, PeerId, RequestError};

/// What a rule refuses of a message, whose size is asked for where it matters.
fn refused(
    rule: &MessageRule,
    kind: MessageType,
    size: impl FnOnce() -> usize,
) -> Option<&'static str> {
    let is_listed = rule
        .allow
        .as_ref()
        .is_none_or(|allow| allow.contains(&kind));
    if !is_listed || rule.deny.contains(&kind) {
        return Some("the policy of this server does not allow this message");
    }
    let is_large = rule.max.is_some_and(|max| size() > max);
    is_large.then_some("the policy of this server allows smaller messages only")
}

/// One of two between whom a call may be.
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) team: Option<&'a str>,
    pub(super) room: Option<&'a str>,
}

impl<'a> Side<'a> {
    fn of(session: &'a Session, name: &'a str) -> Self {
        Self {
            name,
            team: session.team.as_deref(),
            room: session.room.as_deref(),
        }
    }
}

/// Whether a rule is about these two.
fn fits(rule: &CallRule, from: &Side<'_>, to: &Side<'_>) -> bool {
    let covers = |pattern: &Option<String>, name: &str| {
        let pattern = pattern.as_deref();
        pattern.is_none_or(|pattern| glob(pattern, name))
    };
    covers(&rule.from, from.name)
        && covers(&rule.to, to.name)
        && (!rule.same_team || from.team.is_some() && from.team == to.team)
        && (!rule.same_room || from.room.is_some() && from.room == to.room)
}

impl Hub {
    /// Judges a message for others by `policy.messages`; `size` is that of what they get of it.
    pub(super) fn may_send(
        &mut self,
        requester: &Requester,
        size: impl FnOnce() -> usize,
    ) -> Result<(), RequestError> {
        if self.settings.policy.messages.is_empty() {
            return Ok(());
        }
        self.may_say(self.role_of(requester), requester.kind, size)
    }

    /// The role in the room, or by the token where there is no room.
    pub(super) fn role_of(&self, requester: &Requester) -> Option<Role> {
        let room = self.room_of(requester.peer).ok();
        let in_room = room.and_then(|room| Some(room.member(requester.peer)?.role));
        let in_call = || self.sessions.get(requester.peer)?.role;
        let foreign = || self.exchange.members.get(&requester.conn)?.role;
        in_room.or_else(in_call).or_else(foreign)
    }

    /// The same for who has that role.
    pub(super) fn may_say(
        &mut self,
        role: Option<Role>,
        kind: MessageType,
        size: impl FnOnce() -> usize,
    ) -> Result<(), RequestError> {
        let rules = &self.settings.policy.messages;
        let rule = rules.iter().find(|r| r.role.is_none() || r.role == role);
        match rule.and_then(|rule| refused(rule, kind, size)) {
            None => Ok(()),
            Some(message) => {
                self.counters.refused_messages += 1;
                Err(RequestError::new(ErrorCode::Forbidden, message))
            }
        }
    }

    /// Judges a call by `policy.calls`.
    pub(super) fn may_reach(&self, caller: PeerId, callee: PeerId) -> bool {
        let rules = &self.settings.policy.calls;
        if rules.is_empty() {
            return true;
        }
        let (Some(from), Some(to)) = (self.sessions.get(caller), self.sessions.get(callee)) else {
            return false;
        };
        let (from_name, to_name) = (from.name(caller), to.name(callee));
        self.calls_allow(&Side::of(from, &from_name), &Side::of(to, &to_name))
    }

    fn calls_allow(&self, from: &Side<'_>, to: &Side<'_>) -> bool {
        let mut rules = self.settings.policy.calls.iter();
        let decides = rules.find(|rule| fits(rule, from, to));
        decides.is_some_and(|rule| !rule.deny)
    }

    /// Judges by `policy.calls` what a client sends to a name; `holder` has the name. An offer calls;
    /// everything else may belong to a call of either side.
    pub(super) fn may_reach_name(
        &mut self,
        requester: &Requester,
        from: &str,
        to: &str,
        holder: Option<ConnId>,
    ) -> bool {
        let rules = &self.settings.policy.calls;
        if rules.is_empty() {
            return true;
        }
        let team = |conn| self.exchange.members.get(&conn)?.team.as_deref();
        let side = |name, conn: Option<ConnId>| Side {
            name,
            team: conn.and_then(team),
            room: None,
        };
        // Nobody knows yet of which team a client will be that takes the name later.
        let is_known = holder.is_some() || rules.iter().all(|rule| !rule.same_team);
        let (from, to) = (side(from, Some(requester.conn)), side(to, holder));
        let is_allowed = is_known
            && (self.calls_allow(&from, &to)
                || requester.kind != MessageType::Offer && self.calls_allow(&to, &from));
        if !is_allowed {
            self.counters.refused_calls += 1;
        }
        is_allowed
    }
}
