//! Clients of protocols with names and topics, as the operator sees and removes them.

use super::moderation::no_such_member;
use super::session::Conn;
use super::{ConnId, Cx, Effect, Hub, Now};
use crate::protocol::{CloseCode, PeerId, RequestError};
use serde::Serialize;
use std::sync::Arc;

/// A client that presented its rights.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInfo {
    /// The user of its TURN credentials.
    pub peer_id: PeerId,
    /// What it speaks.
    pub dialect: &'static str,
    /// What others reach it by, where the protocol has names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Whom its token names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
    /// The room that it is in, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_id: Option<Arc<str>>,
    /// How many topics it has subscribed.
    pub topics: usize,
}

impl Hub {
    /// The clients, at most `max` of them; whether there are more.
    pub fn clients(&self, max: usize) -> (Vec<ClientInfo>, bool) {
        // Those of other nodes are in the lists of these.
        let is_own = |conn: &ConnId| self.conns.get(conn).is_some_and(|entry| !entry.is_guest);
        let mut conns: Vec<_> = self.exchange.members.keys().copied().collect();
        conns.retain(is_own);
        conns.sort_unstable();
        let client = |conn| {
            let (entry, member) = (self.conns.get(&conn)?, &self.exchange.members[&conn]);
            let session = self.sessions.get(entry.peer);
            Some(ClientInfo {
                peer_id: entry.peer,
                dialect: entry.dialect.as_str(),
                name: member.name.clone(),
                identity: member.identity.clone(),
                room_id: session.and_then(|session| session.room.clone()),
                topics: self.exchange.topics.count_of(conn),
            })
        };
        let has_more = conns.len() > max;
        let clients = conns.into_iter().take(max).filter_map(client);
        (clients.collect(), has_more)
    }

    /// Closes a client's connection; what it has goes with it.
    ///
    /// # Errors
    /// `no-such-peer`.
    pub fn remove_client(
        &mut self,
        now: Now,
        peer: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RequestError> {
        let peer = PeerId::parse(peer).ok_or_else(no_such_member)?;
        let mut members = self.exchange.members.keys();
        let conn = members
            .find(|conn| {
                let is_own = |entry: &Conn| entry.peer == peer && !entry.is_guest;
                self.conns.get(conn).is_some_and(is_own)
            })
            .copied()
            .ok_or_else(no_such_member)?;
        let cx = &mut Cx { now, effects };
        self.revoke_bearer(cx, self.conns[&conn].peer);
        let member = &self.exchange.members[&conn];
        if let Some(identity) = member.identity.clone() {
            // What its token opened over HTTP goes with it.
            let network = member.network;
            cx.effects
                .push(Effect::RevokeIdentity { identity, network });
        }
        self.close_for_abuse(cx, conn, CloseCode::Kicked, "removed by the operator");
        Ok(())
    }
}
