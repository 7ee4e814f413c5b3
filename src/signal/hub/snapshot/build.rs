//! A hub from its parts, each checked, and all of them together.

use super::super::admin::DatedReport;
use super::super::calls::{Call, Stage};
use super::super::exchange::Member as ExchangeMember;
use super::super::parked;
use super::super::rate::{Bucket, ByteBucket, Inflow};
use super::super::registry::{Contest, Holder};
use super::super::response_cache::ResponseCache;
use super::super::ring::Ring;
use super::super::session::{Away, Conn, Link, Session};
use super::super::timers::Timer;
use super::super::{ConnId, Hub, Now};
use super::parts::{
    CallPart, ConnPart, ExchangeMemberPart, Left, LinkPart, NamePart, QueuePart, RoomPart,
    SessionPart, whole,
};
use super::{CounterPart, HubSnapshot, SnapshotError};
use crate::network::network_of;
use crate::protocol::{Body, CallId, ErrorCode, MessageType, PeerId};
use crate::signal::room::Room;
use serde_json::value::RawValue;
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

type Result<T> = std::result::Result<T, SnapshotError>;

/// The highest Unix second that a snapshot may hold: some 34,000 years from now, and far from where
/// sums overflow.
const LAST_SECOND: u64 = 1 << 40;
/// The most frames and sessions that a connection may have counted.
const MOST_COUNTED: u32 = 1 << 30;

fn refused<T>(why: &'static str) -> Result<T> {
    Err(SnapshotError::Contradiction(why))
}

fn ensure(holds: bool, why: &'static str) -> Result<()> {
    if holds { Ok(()) } else { refused(why) }
}

fn second(second: u64) -> Result<u64> {
    ensure(second <= LAST_SECOND, "a date is out of range")?;
    Ok(second)
}

/// A sum that can be added to.
fn count(sum: u64) -> u64 {
    sum.min(1 << 60)
}

fn json(text: Option<String>) -> Result<Option<Box<RawValue>>> {
    text.map(RawValue::from_string)
        .transpose()
        .or(refused("metadata is not JSON"))
}

/// A hub that is being put together.
pub(super) struct Builder {
    hub: Hub,
    now: Now,
}

impl Builder {
    pub(super) fn new(hub: Hub, now: Now) -> Self {
        Self { hub, now }
    }

    pub(super) fn build(mut self, snapshot: HubSnapshot) -> Result<Hub> {
        let mut peers = HashSet::new();
        for (conn, part) in snapshot.conns {
            ensure(peers.insert(part.peer), "two connections of one peer")?;
            self.conn(ConnId(conn), part)?;
        }
        for (peer, part) in snapshot.sessions {
            ensure(self.hub.sessions.get(peer).is_none(), "a session twice")?;
            self.session(peer, part, &snapshot.bodies)?;
        }
        self.hub.sessions.sent = count(snapshot.sent);
        for room in snapshot.rooms {
            self.room(room)?;
        }
        for (id, call) in snapshot.calls {
            self.call(id, call)?;
        }
        for (conn, member) in snapshot.members {
            self.member(ConnId(conn), member)?;
        }
        for name in snapshot.names {
            self.name(name)?;
        }
        for queue in snapshot.parked {
            self.queue(queue)?;
        }
        for (guesser, until) in snapshot.guessers {
            let until = until.at(self.now)?;
            let is_new = self.hub.attempts.insert(guesser.clone(), until);
            ensure(is_new, "a guesser twice, or too many")?;
            self.hub.timers.set(until, Timer::Forgive(guesser));
        }
        for (lobby, conns) in snapshot.lobbies {
            for conn in conns.into_iter().map(ConnId) {
                let waits = self.hub.conns.get(&conn);
                let waits = waits.is_some_and(|conn| conn.lobby.as_ref() == Some(&lobby));
                ensure(waits, "a lobby of a connection that is not in it")?;
                self.hub.lobbies.wait(&lobby, conn);
            }
        }
        for (network, until) in snapshot.pressure {
            let until = until.at(self.now)?;
            self.hub.pressure.until.insert(network, until);
        }
        for part in snapshot.ended {
            let (entry, code) = part.entry(self.now)?;
            self.hub.ended.restore(entry, code);
        }
        if let Some((instant, unix_ms)) = snapshot.clock {
            self.hub.clocks.last = Some((instant.at(self.now)?, unix_ms));
        }
        if let Some(due) = snapshot.clock_due {
            let due = due.at(self.now)?;
            self.hub.clocks.due = Some(due);
            self.hub.timers.set(due, Timer::LookAtClock);
        }
        self.counters(snapshot.counters);
        self.check()?;
        Ok(self.hub)
    }

    fn at(&self, left: Option<Left>) -> Result<Option<Instant>> {
        left.map(|left| left.at(self.now)).transpose()
    }

    fn bucket(&self, left: Option<Left>) -> Result<Bucket> {
        let paid_until = self.at(left)?;
        Ok(Bucket { paid_until })
    }

    fn conn_of(&self, part: ConnPart) -> Result<Conn> {
        let responses = ResponseCache::from_entries(part.responses);
        let inflow = part.inflow.into_iter().take(Inflow::MAX);
        let inflow = inflow.map(|(network, until)| Ok((network, until.at(self.now)?)));
        Ok(Conn {
            peer: part.peer,
            client: part.client,
            dialect: part.dialect,
            shown: part.shown,
            lobby: part.lobby,
            waits_as: None,
            revoked_until: part.revoked_until.map(second).transpose()?,
            deadline: self.at(part.deadline)?,
            outside: part.outside.min(MOST_COUNTED),
            malformed: part.malformed.min(u8::MAX / 2),
            frames: self.bucket(part.frames)?,
            candidates: self.bucket(part.candidates)?,
            bytes: ByteBucket {
                paid_until: self.at(part.bytes)?,
            },
            inflow: Inflow(inflow.collect::<Result<_>>()?),
            responses: responses.ok_or(SnapshotError::Contradiction("too many answers"))?,
            sessions: part.sessions.min(MOST_COUNTED),
            elsewhere: false,
            is_guest: false,
        })
    }

    fn conn(&mut self, id: ConnId, part: ConnPart) -> Result<()> {
        let conn = self.conn_of(part)?;
        if let Some(deadline) = conn.deadline {
            self.hub.timers.set(deadline, Timer::JoinDeadline(id));
        }
        ensure(id.0 < 1 << 60, "a connection's number is out of range")?;
        let before = self.hub.conns.insert(id, conn);
        ensure(before.is_none(), "a connection twice")
    }

    fn link(&mut self, peer: PeerId, part: LinkPart) -> Result<Link> {
        match part {
            LinkPart::Online(conn) => Ok(Link::Online(ConnId(conn))),
            LinkPart::Away {
                until,
                reason,
                conn,
            } => {
                let until = until.at(self.now)?;
                let conn = self.conn_of(*conn)?;
                ensure(conn.peer == peer, "a lost connection of another peer")?;
                self.hub.timers.set(until, Timer::WindowEnds(peer));
                self.hub.away += 1;
                Ok(Link::Away(Box::new(Away {
                    until,
                    reason,
                    conn,
                })))
            }
        }
    }

    fn session(&mut self, peer: PeerId, part: SessionPart, bodies: &[Body]) -> Result<()> {
        let (places, next) = part.ring;
        let frames = places.iter().map(|place| {
            let body = bodies.get(*place as usize).cloned();
            body.ok_or(SnapshotError::Contradiction("a frame that is not there"))
        });
        let ring = Ring::from_parts(frames.collect::<Result<_>>()?, next)
            .ok_or(SnapshotError::Contradiction("a ring that never was"))?;
        if let Some(state) = &part.state {
            let is_object = serde_json::from_str::<serde_json::Map<_, _>>(state).is_ok();
            ensure(is_object, "a state that is not an object")?;
        }
        let unique: HashSet<_> = part.calls.iter().collect();
        ensure(
            unique.len() == part.calls.len(),
            "a call twice in a session",
        )?;
        let refresh = self.at(part.refresh)?;
        if let Some(refresh) = refresh {
            self.hub.timers.set(refresh, Timer::Refresh(peer));
        }
        let ends = match part.ends {
            None => None,
            Some((ends, left)) => {
                let at = left.at(self.now)?;
                self.hub.timers.set(at, Timer::TokenEnds(peer));
                Some((ends, at))
            }
        };
        let taken = self.hub.tokens.insert(part.token.digest(), peer);
        ensure(taken.is_none(), "a resume token twice")?;
        if let Some(name) = &part.identity {
            self.hub.names.insert(name.clone(), part.network, peer);
        }
        let named = part.identity.clone().filter(|_| part.named_by_token);
        let session = Session {
            link: self.link(peer, part.link)?,
            dialect: part.dialect,
            shown: part.shown,
            network: part.network,
            identity: part.identity,
            bearer: part.bearer.or(named),
            room: part.room,
            role: part.role,
            may_call: part.may_call,
            may_list_rooms: part.may_list_rooms,
            may_subscribe: part.may_subscribe,
            team: part.team,
            claims: part.claims,
            state: json(part.state)?,
            metadata: json(part.metadata)?,
            token: part.token,
            ring,
            minted: part.minted.map(second).transpose()?,
            revoked_until: part.revoked_until.map(second).transpose()?,
            ends,
            refresh,
            calls: part.calls,
            is_used: part.is_used,
            report: (part.report).map(|(report, ts)| Box::new(DatedReport { report, ts })),
        };
        self.hub.sessions.insert(peer, session);
        Ok(())
    }

    fn room(&mut self, part: RoomPart) -> Result<()> {
        let unique: HashSet<_> = part.members.iter().map(|member| member.peer).collect();
        ensure(unique.len() == part.members.len(), "a member twice")?;
        ensure(!unique.is_empty(), "a room without members")?;
        self.hub.members += unique.len();
        let first = part.members.first().map(|member| member.peer);
        let first = first.and_then(|peer| self.hub.sessions.get(peer));
        let maker = part.maker.or(first.map(|session| session.network));
        let maker = maker.ok_or(SnapshotError::Contradiction("a room of nobody"))?;
        let mut room = Room::new(part.id.clone(), part.max_peers, part.created_at, maker);
        room.locked = part.locked;
        room.password = part.password;
        room.metadata = json(part.metadata)?;
        room.relay_only = part.relay_only;
        room.invites = part.invites;
        room.restore_members(part.members);
        ensure(!self.hub.rooms.contains_key(&part.id), "a room twice")?;
        self.hub.insert_room(room);
        Ok(())
    }

    fn call(&mut self, id: CallId, part: CallPart) -> Result<()> {
        let call = match part {
            CallPart::Answered {
                caller,
                from,
                to,
                callee,
                since,
                by,
            } => Call {
                caller,
                stage: Stage::Answered { callee, since, by },
                from,
                to,
            },
            CallPart::Ringing {
                caller,
                from,
                to,
                devices,
                ends,
            } => {
                ensure(!devices.is_empty(), "a call that rings nowhere")?;
                let ends = ends.at(self.now)?;
                self.hub.timers.set(ends, Timer::RingEnds(id));
                let stage = Stage::Ringing { devices, ends };
                Call {
                    caller,
                    stage,
                    from,
                    to,
                }
            }
        };
        let before = self.hub.calls.insert(id, call);
        ensure(before.is_none(), "a call twice")
    }

    fn member(&mut self, conn: ConnId, part: ExchangeMemberPart) -> Result<()> {
        let Some(entry) = self.hub.conns.get(&conn) else {
            return refused("a member without a connection");
        };
        let who = (conn, entry.dialect, network_of(entry.client));
        for (topic, options) in &part.topics {
            let topics = &mut self.hub.exchange.topics;
            let subscribed = topics.subscribe(who, topic, *options, usize::MAX);
            ensure(subscribed.is_ok(), "too many topics")?;
        }
        let mut dated = |dated: Option<(u64, Left)>, timer| -> Result<_> {
            let Some((date, left)) = dated else {
                return Ok(None);
            };
            let at = left.at(self.now)?;
            self.hub.timers.set(at, timer);
            Ok(Some((second(date)?, at)))
        };
        let minted = dated(part.minted, Timer::RefreshMember(conn))?;
        let ends = match part.ends {
            // Any number may stand in a token.
            Some((ends, left)) => {
                dated(Some((0, left)), Timer::MemberEnds(conn))?.map(|(_, at)| (ends, at))
            }
            None => None,
        };
        let member = ExchangeMember {
            rooms: part.rooms,
            network: part.network,
            may_call: part.may_call,
            identity: part.identity,
            chooses_identity: part.chooses_identity,
            role: part.role,
            team: part.team,
            claims: part.claims,
            is_invited: part.is_invited,
            may_subscribe: part.may_subscribe,
            name: part.name,
            holds: part.holds,
            wants: part.wants,
            will: part.will,
            deliveries: self.bucket(part.deliveries)?,
            minted,
            ends,
        };
        let before = self.hub.exchange.members.insert(conn, member);
        ensure(before.is_none(), "a member twice")
    }

    fn name(&mut self, part: NamePart) -> Result<()> {
        let contest = match part.contest {
            None => None,
            Some((newcomer, proof, until)) => {
                let until = until.at(self.now)?;
                let timer = Timer::ContestEnds(part.name.clone());
                self.hub.timers.set(until, timer);
                Some(Contest {
                    newcomer: ConnId(newcomer),
                    proof: whole(proof),
                    until,
                })
            }
        };
        let holder = Holder {
            conn: ConnId(part.conn),
            proof: whole(part.proof),
            contest,
        };
        let is_new = self.hub.exchange.registry.insert(part.name, holder);
        ensure(is_new, "a name twice")
    }

    fn queue(&mut self, part: QueuePart) -> Result<()> {
        let until = part.until.at(self.now)?;
        let begun = until.checked_sub(parked::TIMEOUT);
        let begun = begun.ok_or(SnapshotError::Contradiction("a time is out of range"))?;
        ensure(!part.messages.is_empty(), "a queue without messages")?;
        let mut is_new = true;
        for (sender, network, from, message) in part.messages {
            let sender = (ConnId(sender), network);
            let queues = &mut self.hub.exchange.parked;
            let parked = queues.park(begun, &part.name, sender, from, message);
            ensure(
                parked.is_ok_and(|new| new.is_some() == is_new),
                "more messages wait than may",
            )?;
            is_new = false;
        }
        let timer = Timer::ParkedEnds(part.name);
        self.hub.timers.set(until, timer);
        Ok(())
    }

    fn counters(&mut self, part: CounterPart) {
        let counters = &mut self.hub.counters;
        for (name, sum) in part.received {
            if let Some(kind) = MessageType::from_name(&name) {
                counters.set_received(kind, count(sum));
            }
        }
        for (name, sum) in part.refused {
            if let Some(code) = ErrorCode::from_name(&name) {
                counters.set_refused(code, count(sum));
            }
        }
        counters.resumes = count(part.resumes);
        counters.gaps = count(part.gaps);
        counters.withheld_candidates = count(part.withheld_candidates);
        counters.clock_steps = count(part.clock_steps);
        counters.refused_messages = count(part.refused_messages);
        counters.refused_calls = count(part.refused_calls);
        counters.refused_subscriptions = count(part.refused_subscriptions);
        counters.refused_publications = count(part.refused_publications);
    }

    /// What the hub's own code relies on: each index says the same as what it is an index of.
    fn check(&self) -> Result<()> {
        let hub = &self.hub;
        let (mut in_rooms, mut in_calls, mut online) = (0, 0, 0);
        for (peer, session) in hub.sessions.iter() {
            if let Link::Online(conn) = session.link {
                let conn = hub.conns.get(&conn);
                let is_own = conn.is_some_and(|conn| conn.peer == peer);
                ensure(is_own, "a session on a connection that is not its own")?;
                online += 1;
            }
            if let Some(room) = &session.room {
                let room = hub.rooms.get(room);
                let is_in = room.is_some_and(|room| room.member(peer).is_some());
                ensure(is_in, "a session in a room that does not have it")?;
                in_rooms += 1;
            }
            for id in &session.calls {
                let call = hub.calls.get(id);
                let is_in = call.is_some_and(|call| Hub::parties(call).any(|p| p == peer));
                ensure(is_in, "a session in a call that does not have it")?;
            }
            in_calls += session.calls.len();
        }
        ensure(in_rooms == hub.members, "a member without a session")?;
        let with_session = (hub.conns.values())
            .filter(|conn| hub.sessions.get(conn.peer).is_some())
            .count();
        ensure(
            with_session == online,
            "a connection of a session that is away",
        )?;
        let mut parties = 0;
        for call in hub.calls.values() {
            let unique: BTreeSet<_> = Hub::parties(call).collect();
            ensure(
                unique.len() == Hub::parties(call).count(),
                "a party twice in a call",
            )?;
            parties += unique.len();
        }
        ensure(parties == in_calls, "a party without a session")?;
        self.check_names()
    }

    fn check_names(&self) -> Result<()> {
        let exchange = &self.hub.exchange;
        let member = |conn| exchange.members.get(&conn);
        let mut contests = 0;
        for (name, holder) in exchange.registry.holders() {
            let holds = member(holder.conn).is_some_and(|m| m.holds.as_ref() == Some(name));
            ensure(holds, "a name that its holder does not have")?;
            if let Some(contest) = &holder.contest {
                let wants = member(contest.newcomer);
                let wants = wants.is_some_and(|m| m.wants.as_ref() == Some(name));
                ensure(wants, "a contest of a newcomer that does not want the name")?;
                contests += 1;
            }
        }
        let waiting = exchange.members.values().filter(|m| m.wants.is_some());
        ensure(waiting.count() == contests, "a newcomer without a contest")
    }
}
