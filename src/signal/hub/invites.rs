//! Invitations of hosts: given out, looked at when somebody comes by one, and void when their host is
//! removed. They are kept with their room and end with it.

use super::requests::{Answer, Requester};
use super::{Cx, DatedReport, Hub, Notice, Party};
use crate::auth::{Grant, Invitation, InviteKeys, Role, page_link};
use crate::protocol::{
    Body, ErrorCode, InviteRequest, PeerId, Report, RequestError, ServerMessage,
};
use crate::signal::hub::Effect;
use crate::signal::room::Invite;
use rand::RngExt;
use std::time::Duration;

/// Invitations that one room may have out: bounds what its hosts make the server hold.
const MAX_INVITES: usize = 1_000;
/// When a host whose room has too many out may ask again.
const FULL_RETRY: Duration = Duration::from_secs(60);

impl Hub {
    pub(super) fn invite(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        asked: InviteRequest,
    ) -> Result<Answer, RequestError> {
        let room_id = self.room_as_host(requester)?;
        let now = cx.now.unix_ms / 1000;
        let expires_at = now + asked.ttl;
        let link = |token| page_link(&self.settings.page, &room_id, token);
        if !self.settings.invite_tokens {
            // In open mode everybody with the link may enter.
            let (token, url) = (None, &*link(None));
            let invited = ServerMessage::Invited {
                token,
                url,
                expires_at,
            };
            return Ok(Answer::Reply(Body::new(&invited, requester.id())));
        }
        let invitation = Invitation {
            room: room_id.to_string(),
            role: asked.role,
            exp: expires_at,
            id: PeerId::from_bits(self.rng.random()).to_string(),
        };
        let token = InviteKeys::new(&self.ice.secrets).sign(&invitation);
        let url = link(Some(&token));
        let room = self
            .rooms
            .get_mut(&room_id)
            .expect("a session's room exists");
        room.invites.retain(|_, invite| invite.expires_at > now);
        if room.invites.len() >= MAX_INVITES {
            return Err(RequestError::slow_down(FULL_RETRY));
        }
        let by_token = room
            .member(requester.peer)
            .is_some_and(|member| member.token_role == Some(Role::Host));
        room.invites.insert(
            invitation.id,
            Invite {
                by: requester.peer,
                by_token,
                expires_at,
                uses: asked.uses,
            },
        );
        self.note_room(&room_id);
        let invited = ServerMessage::Invited {
            token: Some(&token),
            url: &url,
            expires_at,
        };
        Ok(Answer::Reply(Body::new(&invited, requester.id())))
    }

    /// The invitation that a newcomer to `room` comes by, if it comes by one.
    ///
    /// # Errors
    /// It is void.
    pub(super) fn invitation(
        &self,
        room: &str,
        grant: &Grant,
    ) -> Result<Option<&Invite>, RequestError> {
        let Some(id) = &grant.invite else {
            return Ok(None);
        };
        let invite = self.rooms.get(room).and_then(|room| room.invites.get(id));
        match invite {
            Some(invite) if invite.uses != Some(0) => Ok(Some(invite)),
            _ => Err(void()),
        }
    }

    /// Whether the bearer of a grant may have what members get: an invitation has to hold.
    pub fn holds(&self, grant: &Grant, room: Option<&str>) -> bool {
        grant.invite.is_none() || room.is_some_and(|room| self.invitation(room, grant).is_ok())
    }

    /// Counts a use.
    pub(super) fn use_invitation(&mut self, room: &str, grant: &Grant) {
        let room = self.rooms.get_mut(room);
        if let (Some(room), Some(id)) = (room, &grant.invite)
            && let Some(invite) = room.invites.get_mut(id)
            && let Some(uses) = &mut invite.uses
        {
            *uses = uses.saturating_sub(1);
            let id = room.id.clone();
            self.note_room(&id);
        }
    }

    /// Voids what a host has given out.
    pub(super) fn void_invitations(&mut self, room: &str, host: PeerId) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.invites.retain(|_, invite| invite.by != host);
            let id = room.id.clone();
            self.note_room(&id);
        }
    }

    pub(super) fn report(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        report: Report,
    ) -> Result<Answer, RequestError> {
        let room = self.session(requester)?.room.clone();
        if let Some(session) = self.sessions.get_mut(requester.peer) {
            let ts = cx.now.unix_ms;
            session.report = Some(Box::new(DatedReport { report, ts }));
        }
        cx.effects.push(Effect::Report(report));
        let Party { peer_id, identity } = self.party(requester.peer);
        self.notice(cx, || Notice::Report {
            peer_id,
            identity,
            room,
            report,
        });
        Ok(Answer::Ack)
    }
}

/// Refuses an invitation that does not hold any more.
pub(super) fn void() -> RequestError {
    RequestError::new(
        ErrorCode::Unauthorized,
        "the invitation is void: it is used up, its host was removed, or the room has ended",
    )
}
