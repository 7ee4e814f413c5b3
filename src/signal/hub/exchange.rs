//! What connections of dialects without rooms ask, and the topics among it.
//!
//! Such a connection has no session: nothing is kept for it, and all it holds goes with it.

use super::interface::{ConnId, Effect, Event};
use super::parked::Parked;
use super::rate::{Bucket, Verdict};
use super::registry::{Name, Registry};
use super::requests::{Answer, Requester};
use super::timers::Timer;
use super::topics::Topics;
use super::{Cx, Hub};
use crate::auth::{Grant, RoomScope};
use crate::network::network_of;
use crate::protocol::{
    CloseCode, Denied, DialectKind, ErrorCode, ExchangeReply, ExchangeRequest, MAX_TOPIC, PeerId,
    Publication, RequestError, Wish,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Subscribers of a topic, where `rooms.max_peers` is less.
const MIN_SUBSCRIBERS: u32 = 200;
/// Deliveries to subscribers, for each message that `signal.rate` allows: a full mesh of twenty.
const DELIVERIES_PER_MESSAGE: u32 = 20;

/// Everything of dialects with topics and names.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) members: HashMap<ConnId, Member>,
    pub(super) topics: Topics,
    pub(super) registry: Registry,
    pub(super) parked: Parked,
}

/// A connection that presented its rights.
#[derive(Debug)]
pub(super) struct Member {
    rooms: RoomScope,
    network: IpAddr,
    pub(super) may_call: bool,
    pub(super) identity: Option<Arc<str>>,
    pub(super) chooses_identity: bool,
    /// What others reach it by; kept when the name is taken over, as the client may still speak.
    pub(super) name: Option<Arc<str>>,
    /// What it has, or had, in the registry.
    pub(super) holds: Option<Name>,
    /// What it waits for.
    pub(super) wants: Option<Name>,
    will: Option<Arc<Publication>>,
    deliveries: Bucket,
    /// The highest expiry of its TURN credentials, and when they are to be renewed.
    minted: Option<(u64, Instant)>,
    /// When its token ends, Unix seconds, and the timer for that.
    ends: Option<(u64, Instant)>,
}

impl Hub {
    pub(super) fn exchange(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        request: ExchangeRequest,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let conn = requester.conn;
        if let ExchangeRequest::Open { .. } = request {
            self.open_exchange(cx, conn, grant?);
            self.tell(cx, conn, ExchangeReply::Opened);
            return Ok(Answer::Sent);
        }
        if !self.exchange.members.contains_key(&conn) {
            let message = "the connection has not presented its rights";
            return Err(RequestError::new(ErrorCode::Unauthorized, message));
        }
        match request {
            ExchangeRequest::Open { .. } | ExchangeRequest::Idle => {}
            ExchangeRequest::Subscribe { id, topics } => {
                let codes = topics
                    .iter()
                    .map(|wish| self.subscribe_topic(requester, wish));
                let codes = codes.collect();
                self.answer(cx, conn, id, ExchangeReply::Subscribed { id, codes });
            }
            ExchangeRequest::Unsubscribe { id, topics } => {
                let table = &mut self.exchange.topics;
                let found = topics.iter().map(|topic| table.unsubscribe(conn, topic));
                let found = found.collect();
                self.answer(cx, conn, id, ExchangeReply::Unsubscribed { id, found });
            }
            ExchangeRequest::Publish { id, publication } => {
                let clients = self.publish(cx, conn, &publication);
                self.answer(cx, conn, id, ExchangeReply::Published { id, clients });
            }
            ExchangeRequest::Will(will) => self.member(conn).will = will,
            ExchangeRequest::Claim {
                name,
                proof,
                takeover,
            } => self.claim(cx, requester, name, proof, takeover)?,
            ExchangeRequest::Release => self.release_name(cx, conn),
            ExchangeRequest::Send { to, message, parks } => {
                self.send_to_name(cx, requester, &to, message, parks)?;
            }
            ExchangeRequest::Ice => self.mint_for_member(cx, conn),
        }
        Ok(Answer::Sent)
    }

    fn open_exchange(&mut self, cx: &Cx<'_>, conn: ConnId, grant: Grant) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        if let Some(deadline) = entry.deadline.take() {
            self.timers.cancel(deadline, Timer::JoinDeadline(conn));
        }
        self.exchange.members.entry(conn).or_insert(Member {
            rooms: grant.rooms,
            network: network_of(entry.client),
            may_call: grant.call,
            identity: grant.identity.map(Arc::from),
            chooses_identity: grant.chooses_identity,
            name: None,
            holds: None,
            wants: None,
            will: None,
            deliveries: Bucket::default(),
            minted: None,
            ends: None,
        });
        if let Some(ends) = grant.ends {
            self.end_member_with_token(cx, conn, ends);
        }
    }

    /// Sets the timer for the end of a connection's token.
    fn end_member_with_token(&mut self, cx: &Cx<'_>, conn: ConnId, ends: u64) {
        let left = ends.saturating_mul(1000).saturating_sub(cx.now.unix_ms);
        // A timer beyond a year would only outlive the process.
        let left = Duration::from_millis(left).min(Duration::from_secs(365 * 24 * 3600));
        let at = cx.now.instant + left;
        let before = self.member(conn).ends.replace((ends, at));
        if let Some((_, before)) = before {
            self.timers.cancel(before, Timer::MemberEnds(conn));
        }
        self.timers.set(at, Timer::MemberEnds(conn));
    }

    pub(super) fn member_ends(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let ends = self.member(conn).ends.map_or(0, |(ends, _)| ends);
        if cx.now.unix_ms / 1000 < ends {
            // The wall clock was set back.
            return self.end_member_with_token(cx, conn, ends);
        }
        let reason = "the connection ends with its token";
        let refusal = RequestError::new(ErrorCode::TokenExpired, reason);
        self.refuse(cx, conn, &refusal, None);
        self.close_for_abuse(cx, conn, CloseCode::Unauthorized, reason);
    }

    fn subscribe_topic(&mut self, requester: &Requester, wish: &Wish) -> Result<u8, Denied> {
        let conn = requester.conn;
        if wish.topic.is_empty() || wish.topic.len() > MAX_TOPIC {
            return Err(Denied::Full);
        }
        if !self.member(conn).rooms.allows(&wish.topic) {
            return Err(Denied::Forbidden);
        }
        let entry = &self.conns[&conn];
        let who = (conn, entry.dialect, network_of(entry.client));
        let max = self.settings.max_peers.max(MIN_SUBSCRIBERS) as usize;
        let topics = &mut self.exchange.topics;
        topics.subscribe(who, &wish.topic, wish.options, max)?;
        Ok(wish.options.qos)
    }

    /// Sends to the subscribers of a topic; how many there are.
    fn publish(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        publication: &Arc<Publication>,
    ) -> Result<u32, Denied> {
        let realm = self.conns[&conn].dialect;
        let member = self.member(conn);
        if !member.rooms.allows(&publication.topic) {
            return Err(Denied::Forbidden);
        }
        let subscribers = self.exchange.topics.subscribers(realm, &publication.topic);
        let clients = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
        let rate = self.settings.rate.saturating_mul(DELIVERIES_PER_MESSAGE);
        let deliveries = &mut self.member(conn).deliveries;
        match deliveries.charge_many(cx.now.instant, rate, clients) {
            Verdict::Pass => {}
            Verdict::Wait(_) => return Err(Denied::TooFast),
            Verdict::Abuse => {
                self.close_for_abuse(cx, conn, CloseCode::RateLimited, "rate limited");
                return Err(Denied::TooFast);
            }
        }
        self.deliver(cx, realm, Some(conn), publication);
        Ok(clients)
    }

    fn deliver(
        &mut self,
        cx: &mut Cx<'_>,
        realm: DialectKind,
        from: Option<ConnId>,
        publication: &Arc<Publication>,
    ) {
        let subscribers = self.exchange.topics.subscribers(realm, &publication.topic);
        let clients = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
        for subscriber in subscribers {
            if subscriber.options.no_local && Some(subscriber.conn) == from {
                continue;
            }
            let Some(entry) = self.conns.get(&subscriber.conn) else {
                continue;
            };
            cx.effects.push(Effect::Send {
                conn: subscriber.conn,
                peer: entry.peer,
                seq: None,
                event: Event::Published {
                    publication: Arc::clone(publication),
                    clients,
                    qos: publication.qos.min(subscriber.options.qos),
                },
            });
        }
    }

    /// Mints credentials for the connection's peer and sets the time of their renewal.
    pub(super) fn mint_for_member(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let (peer, revoked_until) = {
            let entry = &self.conns[&conn];
            (entry.peer, entry.revoked_until)
        };
        let now = cx.now.unix_ms / 1000;
        let servers = self.ice.issue(&peer.to_string(), now, revoked_until);
        let before = self.member(conn).minted.take();
        if let Some((_, refresh)) = before {
            self.timers.cancel(refresh, Timer::RefreshMember(conn));
        }
        if self.ice.has_relay() {
            let refresh = cx.now.instant + Duration::from_secs(servers.ttl.max(1)) * 3 / 4;
            let highest = before
                .map_or(0, |(expiry, _)| expiry)
                .max(servers.expires_at);
            self.member(conn).minted = Some((highest, refresh));
            self.timers.set(refresh, Timer::RefreshMember(conn));
        }
        self.tell(cx, conn, ExchangeReply::Ice(servers));
    }

    /// A connection is gone: so is all that it held.
    pub(super) fn exchange_left(&mut self, cx: &mut Cx<'_>, conn: ConnId, peer: PeerId) {
        if !self.exchange.members.contains_key(&conn) {
            return;
        }
        self.exchange.topics.remove(conn);
        if let Some(name) = self.member(conn).wants.take()
            && let Some(contest) = self.exchange.registry.withdraw(&name, conn)
        {
            self.timers.cancel(contest.until, Timer::ContestEnds(name));
        }
        self.release_name(cx, conn);
        let Some(member) = self.exchange.members.remove(&conn) else {
            return;
        };
        if let Some((_, timer)) = member.ends {
            self.timers.cancel(timer, Timer::MemberEnds(conn));
        }
        if let Some((revoked_until, refresh)) = member.minted {
            self.timers.cancel(refresh, Timer::RefreshMember(conn));
            // While the box drains, calls outlive their signaling.
            if self.draining.is_none() {
                cx.effects.push(Effect::Revoke {
                    user: peer,
                    revoked_until,
                    network: member.network,
                });
            }
        }
        if let Some(will) = member.will
            && self.draining.is_none()
            && member.rooms.allows(&will.topic)
        {
            self.deliver(cx, DialectKind::Mqtt, None, &will);
        }
    }

    fn answer(&self, cx: &mut Cx<'_>, conn: ConnId, id: u16, reply: ExchangeReply) {
        if id != 0 {
            self.tell(cx, conn, reply);
        }
    }

    pub(super) fn tell(&self, cx: &mut Cx<'_>, conn: ConnId, reply: ExchangeReply) {
        self.send_event(cx, conn, Event::Exchange(Box::new(reply)));
    }

    pub(super) fn send_event(&self, cx: &mut Cx<'_>, conn: ConnId, event: Event) {
        if let Some(entry) = self.conns.get(&conn) {
            cx.effects.push(Effect::Send {
                conn,
                peer: entry.peer,
                seq: None,
                event,
            });
        }
    }

    /// The member of a connection that is known to be one.
    pub(super) fn member(&mut self, conn: ConnId) -> &mut Member {
        let members = &mut self.exchange.members;
        members.get_mut(&conn).expect("the connection is a member")
    }
}
