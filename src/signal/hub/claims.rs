//! Names of dialects that have them: who takes one, who is reached by one, and messages for a name
//! that nobody has yet.

use super::exchange::Member;
use super::interface::{ConnId, Event};
use super::registry::{Claim, Contest, Name};
use super::requests::Requester;
use super::timers::Timer;
use super::{Cx, Hub};
use crate::auth::{Grant, is_name};
use crate::network::network_of;
use crate::protocol::{
    Addressed, CloseCode, DialectKind, ErrorCode, ExchangeReply, RequestError, Takeover,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long the holder of a name may take for a sign of life while another client wants the name.
const CONTEST: Duration = Duration::from_secs(5);

impl Hub {
    pub(super) fn claim(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        name: String,
        proof: u128,
        takeover: Takeover,
    ) -> Result<(), RequestError> {
        let conn = requester.conn;
        let refused = |code, message| Err(RequestError::new(code, message));
        if !is_name(&name) {
            let message = "a name has 1 to 128 bytes without control characters";
            return refused(ErrorCode::InvalidMessage, message);
        }
        let (dialect, network) = {
            let entry = &self.conns[&conn];
            (entry.dialect, network_of(entry.client))
        };
        let member = self.member(conn);
        if member.holds.is_some() || member.wants.is_some() {
            return refused(ErrorCode::InvalidMessage, "the connection has a name");
        }
        let proof = match (takeover, &member.identity) {
            (Takeover::Private, _) => 0,
            (Takeover::Shared, _) if !member.may_call => {
                return refused(ErrorCode::Forbidden, "the token does not allow calls");
            }
            (Takeover::Shared, Some(identity)) if **identity != *name => {
                let message = "the id differs from the identity in the token";
                return refused(ErrorCode::Forbidden, message);
            }
            // A client with a token of that identity is that identity.
            (Takeover::Shared, Some(_)) => 0,
            (Takeover::Shared, None) if !member.chooses_identity => {
                return refused(ErrorCode::Forbidden, "the token has no `sub`");
            }
            (Takeover::Shared, None) => proof,
        };
        let key: Name = match takeover {
            Takeover::Shared => (dialect, name.as_str().into()),
            // No name contains a control character.
            Takeover::Private => match &member.identity {
                Some(identity) => (dialect, format!("{identity}\n{name}").into()),
                None => (dialect, format!("{network}\r{name}").into()),
            },
        };
        let until = cx.now.instant + CONTEST;
        match self.exchange.registry.claim(&key, conn, proof, until) {
            Claim::New => self.claimed(cx, conn, key, &name),
            Claim::TakenOver(old) => {
                if takeover == Takeover::Private {
                    self.member(old).holds = None;
                    self.close_for_abuse(
                        cx,
                        old,
                        CloseCode::Replaced,
                        "another connection took over",
                    );
                }
                self.claimed(cx, conn, key, &name);
            }
            Claim::Contested(holder) => {
                self.member(conn).wants = Some(key.clone());
                self.timers.set(until, Timer::ContestEnds(key));
                self.send_event(cx, holder, Event::Probe);
            }
            Claim::Taken => self.tell(cx, conn, ExchangeReply::Taken),
        }
        Ok(())
    }

    /// The rights of a connection that has presented its token, for the node of the names.
    pub fn rights(&self, conn: ConnId) -> Option<Grant> {
        let member = self.exchange.members.get(&conn)?;
        Some(Grant {
            identity: member.identity.as_deref().map(str::to_owned),
            chooses_identity: member.chooses_identity,
            rooms: member.rooms.clone(),
            role: member.role,
            call: member.may_call,
            subscribe: member.may_subscribe,
            team: member.team.as_deref().map(str::to_owned),
            claims: member.claims.clone(),
            ..Grant::open()
        })
    }

    /// A connection of another node is about to claim a name. That node has judged its token, and ends
    /// the connection with the token.
    pub fn admit_to_names(&mut self, conn: ConnId, rights: Grant) {
        if let Some(entry) = self.conns.get(&conn) {
            let network = network_of(entry.client);
            let member = || Member::new(rights, network);
            self.exchange.members.entry(conn).or_insert_with(member);
        }
    }

    /// A connection has its name at another node.
    pub fn named_elsewhere(&mut self, conn: ConnId, name: &Arc<str>) {
        if let Some(member) = self.exchange.members.get_mut(&conn) {
            member.name = Some(Arc::clone(name));
        }
    }

    /// Whether this node serves a connection: its client has a session here, or presented its rights.
    pub fn is_served(&self, conn: ConnId) -> bool {
        self.has_session(conn) || self.exchange.members.contains_key(&conn)
    }

    /// Another node has the names from here on. The connections that have names here are closed, and their
    /// clients take their names there. Nothing is revoked, as calls go on meanwhile.
    pub(super) fn give_up_names(&mut self, cx: &mut Cx<'_>) {
        let members = self.exchange.members.iter();
        let named = members.filter(|(conn, member)| {
            let entry = self.conns.get(conn);
            let has_name = member.name.is_some() || member.wants.is_some();
            has_name
                && entry
                    .is_some_and(|entry| entry.dialect == DialectKind::PeerJs && !entry.elsewhere)
        });
        let mut named: Vec<_> = named.map(|(conn, _)| *conn).collect();
        named.sort_unstable();
        for conn in named {
            if let Some((_, refresh)) = self.member(conn).minted.take() {
                self.timers.cancel(refresh, Timer::RefreshMember(conn));
            }
            let peer = self.conns[&conn].peer;
            self.give_up_connection(cx, conn, peer);
        }
    }

    /// The connection has the name from here on, and gets what waits for it.
    fn claimed(&mut self, cx: &mut Cx<'_>, conn: ConnId, key: Name, name: &str) {
        let member = self.member(conn);
        let name: Arc<str> = name.into();
        member.wants = None;
        member.holds = Some(key.clone());
        member.name = Some(Arc::clone(&name));
        self.tell(cx, conn, ExchangeReply::Claimed { name });
        let Some((until, messages)) = self.exchange.parked.take(&key) else {
            return;
        };
        self.timers.cancel(until, Timer::ParkedEnds(key));
        for message in messages {
            let event = Event::Addressed {
                from: message.from,
                message: message.message,
            };
            self.send_event(cx, conn, event);
        }
    }

    /// A pong: who is asked for a sign of life keeps the name.
    pub(super) fn alive(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let held = self
            .exchange
            .members
            .get(&conn)
            .and_then(|m| m.holds.clone());
        if let Some(name) = held
            && let Some(contest) = self.exchange.registry.defend(&name, conn)
        {
            self.contest_lost(cx, &name, contest);
        }
    }

    fn contest_lost(&mut self, cx: &mut Cx<'_>, name: &Name, contest: Contest) {
        let timer = Timer::ContestEnds(name.clone());
        self.timers.cancel(contest.until, timer);
        self.member(contest.newcomer).wants = None;
        self.tell(cx, contest.newcomer, ExchangeReply::Taken);
    }

    /// The holder of a name gave no sign of life.
    pub(super) fn contest_ends(&mut self, cx: &mut Cx<'_>, name: &Name) {
        let Some((old, contest)) = self.exchange.registry.surrender(name) else {
            return;
        };
        let text = Arc::clone(&name.1);
        self.claimed(cx, contest.newcomer, name.clone(), &text);
        self.member(old).holds = None;
        let reason = "no sign of life, and another client wants the name";
        self.close_for_abuse(cx, old, CloseCode::HeartbeatTimeout, reason);
    }

    pub(super) fn release_name(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let member = self.member(conn);
        member.name = None;
        let Some(name) = member.holds.take() else {
            return;
        };
        if let Some(contest) = self.exchange.registry.release(&name, conn) {
            let timer = Timer::ContestEnds(name.clone());
            self.timers.cancel(contest.until, timer);
            let text = Arc::clone(&name.1);
            self.claimed(cx, contest.newcomer, name, &text);
        }
    }

    pub(super) fn send_to_name(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        to: Arc<str>,
        message: Arc<Addressed>,
        parks: bool,
    ) -> Result<(), RequestError> {
        let conn = requester.conn;
        let Some(from) = self.member(conn).name.clone() else {
            let message = "the connection has no name";
            return Err(RequestError::new(ErrorCode::NotInRoom, message));
        };
        if !is_name(&to) {
            return Ok(());
        }
        let name: Name = (self.conns[&conn].dialect, to);
        let holder = self.exchange.registry.holder(&name);
        let may = self.may_send(requester, || message.cost()).is_ok()
            && self.may_reach_name(requester, &from, &name.1, holder);
        match holder {
            Some(holder) if may => {
                self.send_event(cx, holder, Event::Addressed { from, message });
                return Ok(());
            }
            _ if !parks => return Ok(()),
            _ if !may => {
                // As if nobody had the name.
                let (name, own) = (name.1, from);
                self.tell(cx, conn, ExchangeReply::Absent { name, own });
                return Ok(());
            }
            _ => {}
        }
        let sender = (conn, network_of(self.conns[&conn].client));
        let now = cx.now.instant;
        let parked = &mut self.exchange.parked;
        match parked.park(now, &name, sender, Arc::clone(&from), message) {
            Ok(None) => {}
            Ok(Some(until)) => self.timers.set(until, Timer::ParkedEnds(name)),
            Err(_) => {
                let absent = ExchangeReply::Absent {
                    name: name.1,
                    own: from,
                };
                self.tell(cx, conn, absent);
            }
        }
        Ok(())
    }

    /// Nobody took the name in time: each sender is told once for each name that it sent under.
    pub(super) fn parked_ends(&mut self, cx: &mut Cx<'_>, name: &Name) {
        let Some((_, messages)) = self.exchange.parked.take(name) else {
            return;
        };
        let mut told = BTreeSet::new();
        for message in messages {
            if told.insert((message.sender, Arc::clone(&message.from)))
                && self.exchange.members.contains_key(&message.sender)
            {
                let absent = ExchangeReply::Absent {
                    name: Arc::clone(&name.1),
                    own: message.from,
                };
                self.tell(cx, message.sender, absent);
            }
        }
    }
}
