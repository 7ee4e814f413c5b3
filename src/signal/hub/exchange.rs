//! What connections of dialects without rooms ask, and the topics among it.
//!
//! Such a connection has no session: nothing is kept for it, and all it holds goes with it.

use super::interface::{ConnId, Effect, Event, granted};
use super::invites::void;
use super::parked::Parked;
use super::rate::{Bucket, Verdict};
use super::registry::{Name, Registry};
use super::requests::{Answer, Requester};
use super::session::Conn;
use super::timers::Timer;
use super::topics::{Subscriber, Topics};
use super::{Cx, Granted, Hub, Now};
use crate::auth::{Grant, Role, RoomScope};
use crate::network::network_of;
use crate::protocol::{
    CloseCode, Denied, DialectKind, ErrorCode, ExchangeReply, ExchangeRequest, MAX_TOPIC,
    MessageType, PeerId, Publication, RequestError, Wish,
};
use crate::signal::id_map::IdMap;
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
    pub(super) members: IdMap<ConnId, Member>,
    pub(super) topics: Topics,
    pub(super) registry: Registry,
    pub(super) parked: Parked,
}

/// A connection that presented its rights.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) rooms: RoomScope,
    pub(super) network: IpAddr,
    pub(super) may_call: bool,
    pub(super) identity: Option<Arc<str>>,
    pub(super) chooses_identity: bool,
    /// The role that its token gives.
    pub(super) role: Option<Role>,
    /// The `team` claim of its token.
    pub(super) team: Option<Arc<str>>,
    /// The claims of its token, where the operator's backend is asked.
    pub(super) claims: Option<Arc<serde_json::Value>>,
    /// Whether it came by an invitation, which is for its room and for no topic beside it.
    pub(super) is_invited: bool,
    /// Whether its token lets it subscribe.
    pub(super) may_subscribe: bool,
    /// What others reach it by; kept when the name is taken over, as the client may still speak.
    pub(super) name: Option<Arc<str>>,
    /// What it has, or had, in the registry.
    pub(super) holds: Option<Name>,
    /// What it waits for.
    pub(super) wants: Option<Name>,
    pub(super) will: Option<Arc<Publication>>,
    pub(super) deliveries: Bucket,
    /// The highest expiry of its TURN credentials, and when they are to be renewed.
    pub(super) minted: Option<(u64, Instant)>,
    /// When its token ends, Unix seconds, and the timer for that.
    pub(super) ends: Option<(u64, Instant)>,
}

impl Member {
    pub(super) fn new(grant: Grant, network: IpAddr) -> Self {
        let role = grant.role_outside();
        Self {
            rooms: grant.rooms,
            network,
            may_call: grant.call,
            identity: grant.identity.map(Arc::from),
            chooses_identity: grant.chooses_identity,
            role,
            team: grant.team.map(Arc::from),
            claims: grant.claims,
            is_invited: grant.invite.is_some(),
            may_subscribe: grant.subscribe,
            name: None,
            holds: None,
            wants: None,
            will: None,
            deliveries: Bucket::default(),
            minted: None,
            ends: None,
        }
    }
}

impl Exchange {
    /// Whether a connection is somebody to others: by a topic, by a name, or as a client of MQTT, which
    /// may do nothing but publish now and then.
    pub(super) fn has_entered(&self, conn: ConnId, dialect: DialectKind) -> bool {
        let Some(member) = self.members.get(&conn) else {
            return false;
        };
        dialect == DialectKind::Mqtt
            || member.holds.is_some()
            || member.wants.is_some()
            || self.topics.count_of(conn) > 0
    }
}

impl Hub {
    pub(super) fn exchange(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        request: ExchangeRequest,
        grant: Granted,
    ) -> Result<Answer, RequestError> {
        let conn = requester.conn;
        if let ExchangeRequest::Open { .. } = request {
            match granted(grant).and_then(|grant| self.open_exchange(cx, conn, grant)) {
                Ok(()) => self.tell(cx, conn, ExchangeReply::Opened),
                Err(refusal) => self.not_opened(cx, requester, refusal)?,
            }
            return Ok(Answer::Sent);
        }
        if let ExchangeRequest::Idle | ExchangeRequest::Alive = request {
            // The limits have been charged for it, in every state of the connection.
            return Ok(Answer::Sent);
        }
        if !self.exchange.members.contains_key(&conn) {
            let message = "the connection has not presented its rights";
            return Err(RequestError::new(ErrorCode::Unauthorized, message));
        }
        match request {
            ExchangeRequest::Open { .. } | ExchangeRequest::Idle | ExchangeRequest::Alive => {}
            ExchangeRequest::Subscribe { id, topics } => {
                let codes = topics
                    .iter()
                    .map(|wish| self.subscribe_topic(requester, wish));
                let codes: Vec<_> = codes.collect();
                self.note_refused(cx, conn, id, &codes);
                self.answer(cx, conn, id, ExchangeReply::Subscribed { id, codes });
            }
            ExchangeRequest::Unsubscribe { id, topics } => {
                let table = &mut self.exchange.topics;
                let found = topics.iter().map(|topic| table.unsubscribe(conn, topic));
                let found = found.collect();
                self.answer(cx, conn, id, ExchangeReply::Unsubscribed { id, found });
            }
            ExchangeRequest::Publish { id, publication } => {
                let clients = self.publish(cx, requester, &publication);
                self.counters.refused_publications += u64::from(clients.is_err());
                if clients.is_ok() {
                    // Who publishes need not subscribe; the rate bounds it.
                    self.conns
                        .get_mut(&conn)
                        .into_iter()
                        .for_each(|it| it.outside = 0);
                }
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
                self.send_to_name(cx, requester, to, message, parks)?;
            }
            ExchangeRequest::Ice => self.mint_for_member(cx, conn),
        }
        Ok(Answer::Sent)
    }

    fn open_exchange(
        &mut self,
        cx: &Cx<'_>,
        conn: ConnId,
        grant: Grant,
    ) -> Result<(), RequestError> {
        if !self.holds(&grant, grant.rooms.exact()) {
            return Err(void());
        }
        let Some(entry) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        if let Some(deadline) = entry.deadline.take() {
            self.timers.cancel(deadline, Timer::JoinDeadline(conn));
        }
        let (network, ends) = (network_of(entry.client), grant.ends);
        let member = || Member::new(grant, network);
        self.exchange.members.entry(conn).or_insert_with(member);
        if let Some(ends) = ends {
            self.end_member_with_token(cx.now, conn, ends);
        }
        Ok(())
    }

    /// Ends a connection that is not let in. Where its token is at fault, its request ends it.
    fn not_opened(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        refusal: RequestError,
    ) -> Result<(), RequestError> {
        let code = match refusal.code {
            ErrorCode::Unauthorized | ErrorCode::TokenExpired => return Err(refusal),
            ErrorCode::RateLimited => CloseCode::RateLimited,
            _ => CloseCode::Unauthorized,
        };
        self.refuse(cx, requester.conn, &refusal, requester.id());
        self.close_for_abuse(cx, requester.conn, code, "the connection is refused");
        Ok(())
    }

    /// Sets the timer for the end of a connection's token.
    pub(super) fn end_member_with_token(&mut self, now: Now, conn: ConnId, ends: u64) {
        let left = ends.saturating_mul(1000).saturating_sub(now.unix_ms);
        // A timer beyond a year would only outlive the process.
        let left = Duration::from_millis(left).min(Duration::from_secs(365 * 24 * 3600));
        let at = now.instant + left;
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
            return self.end_member_with_token(cx.now, conn, ends);
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
        if wish.is_refused || !self.may_subscribe_topic(requester, wish) {
            return Err(Denied::Forbidden);
        }
        let entry = &self.conns[&conn];
        let who = (conn, entry.dialect, network_of(entry.client));
        let max = self.settings.max_peers.max(MIN_SUBSCRIBERS) as usize;
        let topics = &mut self.exchange.topics;
        topics.subscribe(who, &wish.topic, wish.options, max)?;
        Ok(wish.options.qos)
    }

    /// Counts subscriptions that were refused. Where the protocol has no words for it, the operator
    /// is the only one who learns that there was no place.
    fn note_refused(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: u16,
        codes: &[Result<u8, Denied>],
    ) {
        let refused = codes.iter().filter(|code| code.is_err()).count();
        self.counters.refused_subscriptions += refused as u64;
        if id == 0 && codes.contains(&Err(Denied::Full)) {
            let dialect = self.conns[&conn].dialect;
            cx.effects.push(Effect::NoTopic { dialect });
        }
    }

    fn may_subscribe_topic(&self, requester: &Requester, wish: &Wish) -> bool {
        let member = &self.exchange.members[&requester.conn];
        if !member.may_subscribe {
            return false;
        }
        let Some(room) = wish.room.as_deref() else {
            return !member.is_invited && member.rooms.allows(&wish.topic);
        };
        self.is_in_room(requester.conn, room) && member.rooms.allows(room)
    }

    /// Whether the session of a connection is in a room. What is at another node is known to the
    /// dialect: it has seen `joined`.
    fn is_in_room(&self, conn: ConnId, room: &str) -> bool {
        self.conns.get(&conn).is_some_and(|entry| {
            let session = self.sessions.get(entry.peer);
            entry.elsewhere || session.is_some_and(|session| session.room.as_deref() == Some(room))
        })
    }

    /// Whether a connection may publish, as far as its rights go.
    fn may_publish(&self, conn: ConnId, publication: &Publication) -> bool {
        let member = &self.exchange.members[&conn];
        match &publication.room {
            None => !member.is_invited && member.rooms.allows(&publication.topic),
            // Who has subscribed the topic of a room is a member of the room.
            Some(room) => {
                let has_topic = self.exchange.topics.has(conn, &publication.topic);
                member.rooms.allows(room) && (has_topic || self.is_in_room(conn, room))
            }
        }
    }

    /// Sends to the subscribers of a topic; how many there are.
    fn publish(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        publication: &Arc<Publication>,
    ) -> Result<u32, Denied> {
        let conn = requester.conn;
        let realm = self.conns[&conn].dialect;
        if !self.may_publish(conn, publication) {
            return Err(Denied::Forbidden);
        }
        self.may_send(requester, || publication.payload.len())
            .map_err(|_| Denied::Forbidden)?;
        let Exchange {
            members, topics, ..
        } = &mut self.exchange;
        let member = members.get_mut(&conn).expect("the connection is a member");
        let subscribers = topics.subscribers(realm, &publication.topic);
        let clients = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
        let rate = self.settings.rate.saturating_mul(DELIVERIES_PER_MESSAGE);
        // All other nodes together cost as much as one subscriber here.
        let costs = clients.saturating_add(self.cluster.is_some().into());
        let charged = member.deliveries.charge_many(cx.now.instant, rate, costs);
        match charged {
            Verdict::Pass => {}
            Verdict::Wait(_) => return Err(Denied::TooFast),
            Verdict::Abuse => {
                self.close_for_abuse(cx, conn, CloseCode::RateLimited, "rate limited");
                return Err(Denied::TooFast);
            }
        }
        deliver(cx, &self.conns, subscribers, Some(conn), publication);
        self.note_published(realm, publication);
        Ok(clients)
    }

    /// Delivers what was published at another node.
    pub fn published_elsewhere(
        &mut self,
        now: Now,
        realm: DialectKind,
        publication: &Arc<Publication>,
        effects: &mut Vec<Effect>,
    ) {
        let subscribers = self.exchange.topics.subscribers(realm, &publication.topic);
        let cx = &mut Cx { now, effects };
        deliver(cx, &self.conns, subscribers, None, publication);
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
        let will = self.member(conn).will.take();
        let will = will.filter(|will| self.may_publish(conn, will));
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
        if let Some(will) = will
            && self.draining.is_none()
            && self
                .may_say(member.role, MessageType::Message, || will.payload.len())
                .is_ok()
        {
            let topics = &self.exchange.topics;
            let subscribers = topics.subscribers(DialectKind::Mqtt, &will.topic);
            deliver(cx, &self.conns, subscribers, None, &will);
            self.note_published(DialectKind::Mqtt, &will);
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

/// Sends to the subscribers of a topic.
fn deliver(
    cx: &mut Cx<'_>,
    conns: &IdMap<ConnId, Conn>,
    subscribers: &[Subscriber],
    from: Option<ConnId>,
    publication: &Arc<Publication>,
) {
    let clients = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
    for subscriber in subscribers {
        if subscriber.options.no_local && Some(subscriber.conn) == from {
            continue;
        }
        let Some(entry) = conns.get(&subscriber.conn) else {
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
