//! The tables of connections and sessions, and the one way to send to a session.

use super::admin::DatedReport;
use super::interface::{ConnId, Effect, Event, Settings};
use super::rate::{Bucket, ByteBucket, Inflow};
use super::response_cache::ResponseCache;
use super::ring::Ring;
use super::ring_shares::RingShares;
use crate::auth::{Grant, Role};
use crate::network::NetworkCounts;
use crate::protocol::{Body, CallId, DialectKind, LeaveReason, PeerId, Presence, ResumeToken};
use crate::signal::id_map::IdMap;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// One open socket. It has a session where the table of sessions has its peer id.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) peer: PeerId,
    pub(super) client: IpAddr,
    pub(super) dialect: DialectKind,
    /// What others are shown of its dialect.
    pub(super) shown: Option<DialectKind>,
    /// Where it waits for a call as long as it says nothing.
    pub(super) lobby: Option<Arc<str>>,
    /// What it may there, where the backend was asked.
    pub(super) waits_as: Option<Box<Grant>>,
    /// The highest expiry of credentials that were revoked from this peer id.
    pub(super) revoked_until: Option<u64>,
    /// When it must have a session.
    pub(super) deadline: Option<Instant>,
    /// Frames since it last had a session, or since it was opened.
    pub(super) outside: u32,
    /// Malformed frames in a row.
    pub(super) malformed: u8,
    pub(super) frames: Bucket,
    pub(super) candidates: Bucket,
    pub(super) bytes: ByteBucket,
    /// What others send it.
    pub(super) inflow: Inflow,
    pub(super) responses: ResponseCache,
    /// How many sessions began on this connection and on those that it resumes. A cached response is
    /// valid in the session in which it was given.
    pub(super) sessions: u32,
    /// Its session is at another node.
    pub(super) elsewhere: bool,
    /// Its socket is at another node.
    pub(super) is_guest: bool,
}

impl Conn {
    /// A connection that has done nothing yet and that nothing is demanded of.
    pub(super) fn new(peer: PeerId, client: IpAddr, dialect: DialectKind) -> Self {
        Self {
            peer,
            client,
            dialect,
            shown: dialect.shown(),
            lobby: None,
            waits_as: None,
            revoked_until: None,
            deadline: None,
            outside: 0,
            malformed: 0,
            frames: Bucket::default(),
            candidates: Bucket::default(),
            bytes: ByteBucket::default(),
            inflow: Inflow::default(),
            responses: ResponseCache::default(),
            sessions: 0,
            elsewhere: false,
            is_guest: false,
        }
    }
}

/// Someone with a name: registered, or in a room.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) dialect: DialectKind,
    /// What others are shown of its dialect.
    pub(super) shown: Option<DialectKind>,
    /// The network of its last connection.
    pub(super) network: IpAddr,
    /// `None`: the peer id serves as name.
    pub(super) identity: Option<Arc<str>>,
    /// For whom its token takes credentials over HTTP.
    pub(super) bearer: Option<Arc<str>>,
    pub(super) room: Option<Arc<str>>,
    /// The role that its token gives where no room does.
    pub(super) role: Option<Role>,
    pub(super) may_call: bool,
    pub(super) may_list_rooms: bool,
    pub(super) may_subscribe: bool,
    /// The `team` claim of the token.
    pub(super) team: Option<Arc<str>>,
    /// The claims of the token, where the operator's backend is asked.
    pub(super) claims: Option<Arc<serde_json::Value>>,
    pub(super) state: Option<Box<RawValue>>,
    pub(super) metadata: Option<Box<RawValue>>,
    pub(super) token: ResumeToken,
    pub(super) ring: Ring,
    /// The highest expiry of the credentials it was given.
    pub(super) minted: Option<u64>,
    /// The highest expiry that a revocation refuses.
    pub(super) revoked_until: Option<u64>,
    /// When its token ends, where it ends with its token: Unix seconds, and the timer's instant.
    pub(super) ends: Option<(u64, Instant)>,
    /// When its credentials are to be renewed.
    pub(super) refresh: Option<Instant>,
    /// Calls it rings in, is rung by, or is in.
    pub(super) calls: Vec<CallId>,
    /// Whether its client has shown that it knows of it: by a frame, a confirmation or a resume.
    pub(super) is_used: bool,
    /// What it reported last of a connection, for the operator.
    pub(super) report: Option<Box<DatedReport>>,
}

/// How a session is reached.
#[derive(Debug)]
pub(super) enum Link {
    Online(ConnId),
    Away(Box<Away>),
}

/// What waits for a client that lost its socket.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) until: Instant,
    /// The reason that the others get if it does not come back.
    pub(super) reason: LeaveReason,
    /// The lost connection: requests answered on it stay answered, and rates used up on it stay
    /// used up.
    pub(super) conn: Conn,
}

impl Session {
    /// The name others see.
    pub(super) fn name(&self, peer: PeerId) -> Cow<'_, str> {
        match &self.identity {
            Some(identity) => Cow::Borrowed(identity),
            None => Cow::Owned(peer.to_string()),
        }
    }

    /// The same, to keep.
    pub(super) fn shared_name(&self, peer: PeerId) -> Arc<str> {
        let own = || peer.to_string().into();
        self.identity.clone().unwrap_or_else(own)
    }

    pub(super) fn presence(&self) -> Presence {
        match self.link {
            Link::Online(_) => Presence::Online,
            Link::Away(_) => Presence::Away,
        }
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Online(conn) => Some(conn),
            Link::Away(_) => None,
        }
    }
}

/// All sessions, where they are from, and the bytes that their rings hold.
#[derive(Debug)]
pub(super) struct Sessions {
    map: IdMap<PeerId, Session>,
    /// How many each network has; no more entries than three for a session.
    networks: NetworkCounts,
    /// What the rings of each hold; `None` where one network may have every session.
    shares: Option<RingShares>,
    ring_limit: usize,
    ring_total_limit: usize,
    ring_bytes: usize,
    /// Frames numbered so far, those to away sessions included.
    pub(super) sent: u64,
}

impl Sessions {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            map: IdMap::default(),
            networks: NetworkCounts::default(),
            shares: RingShares::new(settings.sessions_per_network),
            ring_limit: settings.ring,
            ring_total_limit: settings.ring_total,
            ring_bytes: 0,
            sent: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, settings: &Settings) {
        self.ring_limit = settings.ring;
        self.ring_total_limit = settings.ring_total;
    }

    /// Sends, or keeps for the resume where the session is away. What cannot resume gets no
    /// numbers, and nothing is kept for it.
    pub(super) fn send(&mut self, effects: &mut Vec<Effect>, peer: PeerId, body: Body) {
        let Some(session) = self.map.get_mut(&peer) else {
            return;
        };
        self.sent += 1;
        if !session.dialect.is_resumable() {
            if let Link::Online(conn) = session.link {
                effects.push(Effect::Send {
                    conn,
                    peer,
                    seq: None,
                    event: Event::Native(body),
                });
            }
            return;
        }
        let seq = session.ring.push(
            body.clone(),
            self.ring_limit,
            &mut self.ring_bytes,
            self.ring_total_limit,
        );
        if let Link::Online(conn) = session.link {
            effects.push(Effect::Send {
                conn,
                peer,
                seq: Some(seq),
                event: Event::Native(body),
            });
        }
    }

    pub(super) fn confirm(&mut self, peer: PeerId, seq: u64) {
        if let Some(session) = self.map.get_mut(&peer) {
            session.is_used = true;
            session.ring.confirm(seq, &mut self.ring_bytes);
        }
    }

    /// Adds a session, or puts it in the place of an older one.
    pub(super) fn insert(&mut self, peer: PeerId, mut session: Session) {
        self.remove(peer);
        let share = (self.shares.as_mut()).map(|shares| shares.of(session.network));
        session.ring.charge_to(share);
        self.ring_bytes += session.ring.bytes();
        self.networks.add(session.network, 1);
        self.map.insert(peer, session);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Session> {
        let mut session = self.map.remove(&peer)?;
        session.ring.charge_to(None);
        if let Some(shares) = &mut self.shares {
            shares.forget(session.network);
        }
        self.ring_bytes -= session.ring.bytes();
        self.networks.give_back(session.network);
        Some(session)
    }

    /// Counts a session on another network, as its client has moved.
    pub(super) fn relocate(&mut self, peer: PeerId, network: IpAddr) {
        if let Some(session) = self.remove(peer) {
            self.insert(peer, Session { network, ..session });
        }
    }

    /// Whether a network has as many sessions as it may.
    pub(super) fn is_network_full(&self, network: IpAddr, settings: &Settings) -> bool {
        let total = u32::try_from(settings.max_sessions).unwrap_or(u32::MAX);
        (self.networks).is_full(network, settings.sessions_per_network, total)
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Session> {
        self.map.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Session> {
        self.map.get_mut(&peer)
    }

    /// Sessions whose credentials get renewed, in an order that does not change from run to run.
    pub(super) fn with_credentials(&self) -> Vec<PeerId> {
        let renewed = self
            .map
            .iter()
            .filter(|(_, session)| session.refresh.is_some());
        let mut peers: Vec<_> = renewed.map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &Session)> {
        self.map.iter().map(|(peer, session)| (*peer, session))
    }

    /// Takes all sessions out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (PeerId, Session)> {
        self.networks = NetworkCounts::default();
        if let Some(shares) = &mut self.shares {
            shares.clear();
        }
        self.ring_bytes = 0;
        self.map.drain()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }
}
