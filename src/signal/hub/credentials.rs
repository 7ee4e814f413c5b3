//! TURN credentials of sessions: minted, renewed, and the policy to use them by.

use super::requests::{Answer, Requester};
use super::timers::Timer;
use super::{Cx, Hub};
use crate::protocol::{Body, Ice, PeerId, RequestError, ServerMessage, TransportPolicy};
use std::time::Duration;

impl Hub {
    pub(super) fn fresh_ice(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
    ) -> Result<Answer, RequestError> {
        self.session(requester)?;
        let ice = self.mint(cx, requester.peer);
        Ok(Answer::Reply(Body::new(
            &ServerMessage::IceServers(ice),
            requester.id(),
        )))
    }

    pub(super) fn push_ice(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        let ice = self.mint(cx, peer);
        let body = Body::new(&ServerMessage::IceServers(ice), None);
        self.sessions.send(cx.effects, peer, body);
    }

    pub(super) fn push_ice_to_all(&mut self, cx: &mut Cx<'_>, room: &str) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        let peers: Vec<_> = room.members().iter().map(|member| member.peer).collect();
        for peer in peers {
            self.push_ice(cx, peer);
        }
    }

    /// Mints credentials for a session and sets the time of their renewal.
    pub(super) fn mint(&mut self, cx: &Cx<'_>, peer: PeerId) -> Ice {
        let policy = self.policy(peer);
        let session = self
            .sessions
            .get_mut(peer)
            .expect("credentials are minted for sessions");
        let servers = self.ice.issue_until(
            &peer.to_string(),
            cx.now.unix_ms / 1000,
            session.revoked_until,
            session.ends.map(|(ends, _)| ends),
        );
        if let Some(before) = session.refresh.take() {
            self.timers.cancel(before, Timer::Refresh(peer));
        }
        if self.ice.has_relay() {
            session.minted = session.minted.max(Some(servers.expires_at));
            let refresh = cx.now.instant + Duration::from_secs(servers.ttl.max(1)) * 3 / 4;
            self.set_refresh(peer, refresh);
            self.note_session(peer);
            self.watch_clock(cx);
        }
        Ice { servers, policy }
    }

    /// How a session has to use ICE: what it is told, and what holds for all it sends.
    pub(super) fn policy(&self, peer: PeerId) -> TransportPolicy {
        let room = self.sessions.get(peer).and_then(|s| s.room.as_ref());
        match room.and_then(|room| self.rooms.get(room)) {
            Some(room) if room.relay_only => TransportPolicy::Relay,
            _ => TransportPolicy::All,
        }
    }
}
