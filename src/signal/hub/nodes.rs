//! What a hub does as one of several: it has connections of other nodes, connections whose session
//! is at another node, tokens that say where their session is, and a list of what has changed.

use super::session::{Conn, Link};
use super::timers::Timer;
use super::{ConnId, Cx, Effect, EndedSession, Hub, Now, Standing};
use crate::protocol::{
    Body, DialectKind, LeaveReason, Locator, PeerId, Publication, RequestError, ResumeToken,
    RoomView,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What of rooms has changed since it was last asked for, by room.
pub type Changes = BTreeMap<Arc<str>, Change>;

/// What of one room has changed: the room itself may be gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether its settings have.
    pub settings: bool,
    /// Members who came, went or changed.
    pub members: BTreeSet<PeerId>,
}

/// Says what stands for a room in tokens; for `None`, what stands for those without a room.
#[derive(Clone)]
pub struct Locate(Arc<LocateFn>);

type LocateFn = dyn Fn(Option<&str>) -> Locator + Send + Sync;

impl Locate {
    /// Wraps a function that gives the same answer to the same room.
    pub fn new(locate: impl Fn(Option<&str>) -> Locator + Send + Sync + 'static) -> Self {
        Self(Arc::new(locate))
    }
}

impl fmt::Debug for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locate")
    }
}

/// What a hub of a cluster has beside its rooms; a box of its own has `None`.
#[derive(Debug)]
pub(super) struct Cluster {
    locate: Locate,
    /// Bounded by the rooms and their members; emptied by the one that saves.
    changes: Changes,
    /// What `rooms` shows beside the own ones.
    others: OtherRooms,
    /// What was published here; emptied after each input.
    published: Vec<(DialectKind, Arc<Publication>)>,
    /// Sessions that were ended here; emptied after each input.
    ended: Vec<EndedSession>,
}

/// Rooms of other nodes, as they were a moment ago.
#[derive(Debug, Default)]
pub struct OtherRooms {
    /// By name.
    pub rooms: Vec<OtherRoom>,
    /// Whether there are more.
    pub truncated: bool,
    /// The nodes that did not answer.
    pub partial: Vec<String>,
}

/// A room of another node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherRoom {
    room_id: String,
    locked: bool,
    max_peers: u32,
    has_password: bool,
    metadata: Option<Box<RawValue>>,
    relay_only: bool,
    created_at: u64,
    peers: Option<usize>,
}

impl OtherRoom {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.room_id
    }

    /// The room as a list shows it.
    pub(super) fn view(&self) -> RoomView<'_> {
        RoomView {
            room_id: &self.room_id,
            locked: self.locked,
            max_peers: self.max_peers,
            has_password: self.has_password,
            metadata: self.metadata.as_deref(),
            relay_only: self.relay_only,
            created_at: self.created_at,
            peers: self.peers,
        }
    }
}

/// A connection of another node.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its number here.
    pub conn: ConnId,
    /// Its peer id, which its own node has drawn.
    pub peer: PeerId,
    /// The far end.
    pub client: IpAddr,
    /// What it speaks.
    pub dialect: DialectKind,
    /// The highest expiry of credentials that were revoked from its peer id.
    pub revoked_until: Option<u64>,
}

impl Hub {
    /// Makes this hub one of several, or tells it of another way to locate.
    pub fn join_cluster(&mut self, locate: Locate) {
        let changes = self.take_changes();
        let others = OtherRooms::default();
        self.cluster = Some(Cluster {
            locate,
            changes,
            others,
            published: vec![],
            ended: vec![],
        });
    }

    /// What was published since the last call, for those who have subscribed at other nodes.
    pub fn take_published(&mut self) -> Vec<(DialectKind, Arc<Publication>)> {
        let cluster = self.cluster.as_mut();
        cluster.map_or_else(Vec::new, |cluster| std::mem::take(&mut cluster.published))
    }

    /// Notes what other nodes are to have.
    pub(super) fn note_published(&mut self, realm: DialectKind, publication: &Arc<Publication>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.published.push((realm, Arc::clone(publication)));
        }
    }

    /// The sessions that were ended since the last call, for the nodes to which their clients may come.
    pub fn take_ended(&mut self) -> Vec<EndedSession> {
        let cluster = self.cluster.as_mut();
        cluster.map_or_else(Vec::new, |cluster| std::mem::take(&mut cluster.ended))
    }

    /// Notes what other nodes are to remember.
    pub(super) fn note_for_nodes(&mut self, ended: EndedSession) {
        if let Some(cluster) = &mut self.cluster {
            cluster.ended.push(ended);
        }
    }

    /// Takes what `rooms` shows of other nodes from here on.
    pub fn set_other_rooms(&mut self, others: OtherRooms) {
        if let Some(cluster) = &mut self.cluster {
            cluster.others = others;
        }
    }

    /// What `rooms` shows of other nodes.
    pub(super) fn other_rooms(&self) -> Option<&OtherRooms> {
        self.cluster.as_ref().map(|cluster| &cluster.others)
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let cluster = self.cluster.as_mut();
        cluster.map_or_else(Changes::new, |cluster| std::mem::take(&mut cluster.changes))
    }

    /// Whether [`Self::take_changes`] has something.
    pub fn has_changes(&self) -> bool {
        (self.cluster.as_ref()).is_some_and(|cluster| !cluster.changes.is_empty())
    }

    /// Notes all of a room as changed.
    pub fn note_all(&mut self, room: &str) {
        let members = self.rooms.get(room).map(|room| {
            let members = room.members().iter().map(|member| member.peer);
            (Arc::clone(&room.id), members.collect::<Vec<_>>())
        });
        let (name, members) = members.unwrap_or_else(|| (room.into(), vec![]));
        self.note_room(&name);
        for member in members {
            self.note_member(&name, member);
        }
    }

    /// Drops what was noted of a room that is another node's.
    pub(super) fn unnote(&mut self, room: &str) {
        if let Some(cluster) = &mut self.cluster {
            cluster.changes.remove(room);
        }
    }

    /// Notes that a room was made, changed or ended.
    pub(super) fn note_room(&mut self, room: &Arc<str>) {
        if let Some(cluster) = &mut self.cluster {
            cluster
                .changes
                .entry(Arc::clone(room))
                .or_default()
                .settings = true;
        }
    }

    /// Notes that a member came, went or changed.
    pub(super) fn note_member(&mut self, room: &Arc<str>, peer: PeerId) {
        if let Some(cluster) = &mut self.cluster {
            let change = cluster.changes.entry(Arc::clone(room)).or_default();
            change.members.insert(peer);
        }
    }

    /// Notes that the session of a peer has changed.
    pub(super) fn note_session(&mut self, peer: PeerId) {
        if self.cluster.is_some()
            && let Some(room) = self
                .sessions
                .get(peer)
                .and_then(|session| session.room.clone())
        {
            self.note_member(&room, peer);
        }
    }

    /// A new token of a session in that room.
    pub(super) fn located(&self, token: ResumeToken, room: Option<&str>) -> ResumeToken {
        let cluster = self.cluster.as_ref();
        token.at(cluster.map(|cluster| (cluster.locate.0)(room)))
    }

    /// What stands for a room, or for those without one.
    pub fn locator(&self, room: Option<&str>) -> Option<Locator> {
        Some((self.cluster.as_ref()?.locate.0)(room))
    }

    /// Takes a connection of another node in. It has been welcomed there, and there its client is
    /// waited for.
    pub fn receive(&mut self, guest: Guest) {
        let Guest {
            conn,
            peer,
            client,
            dialect,
            revoked_until,
        } = guest;
        self.conns.insert(
            conn,
            Conn {
                revoked_until,
                is_guest: true,
                ..Conn::new(peer, client, dialect)
            },
        );
    }

    /// Whether the client of a connection has a session here.
    pub fn has_session(&self, conn: ConnId) -> bool {
        let peer = self.conns.get(&conn).map(|conn| conn.peer);
        let session = peer.and_then(|peer| self.sessions.get(peer));
        session.is_some_and(|session| session.conn() == Some(conn))
    }

    /// Whether a connection of another node may have a session under that peer id: it may not where there
    /// is one that has lost its connection. One of which its client does not know ends.
    pub fn admits(&mut self, now: Now, peer: PeerId, effects: &mut Vec<Effect>) -> bool {
        let is_known = match self.sessions.get(peer) {
            Some(session) => session.is_used || session.conn().is_some(),
            None => return true,
        };
        if !is_known {
            self.end_unknown(&mut Cx { now, effects }, peer);
        }
        !is_known
    }

    /// What the client of a connection lacks that has everything up to `seq`: all of it, or `None`
    /// where some of it is lost, or the session is not on this connection.
    pub fn replay(&self, conn: ConnId, peer: PeerId, seq: u64) -> Option<Vec<(u64, Body)>> {
        let session = self.sessions.get(peer);
        if session.is_none() && self.is_served(conn) {
            // A client with a name and no session has no ring.
            return Some(vec![]);
        }
        let session = session.filter(|session| session.conn() == Some(conn))?;
        if !session.dialect.is_resumable() {
            return Some(vec![]);
        }
        let (frames, gap) = session.ring.since(seq)?;
        (!gap).then_some(frames)
    }

    /// Whether there is a room of that name.
    pub fn has_room(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    /// Whether there is the session of a resume token.
    pub fn has_token(&self, text: &str) -> bool {
        ResumeToken::parse(text).is_some_and(|token| self.tokens.contains_key(&token.digest()))
    }

    /// Whether a connection has the session of a resume token.
    pub fn is_online(&self, text: &str) -> bool {
        let peer = ResumeToken::parse(text).and_then(|token| self.tokens.get(&token.digest()));
        let session = peer.and_then(|peer| self.sessions.get(*peer));
        session.is_some_and(|session| matches!(session.link, Link::Online(_)))
    }

    /// Up to which expiry the credentials of a connection's client may be revoked: known exactly where
    /// its session is here, else the highest that another node may have minted.
    pub fn floor(&self, now: Now, conn: ConnId) -> Option<u64> {
        let entry = self.conns.get(&conn)?;
        let known = match self.sessions.get(entry.peer) {
            Some(session) => session.minted.max(session.revoked_until),
            None if entry.elsewhere => Some(now.unix_ms / 1000 + self.ice.ttl.as_secs()),
            None => None,
        };
        known.max(entry.revoked_until)
    }

    /// The session of a connection's client is at another node from here on. A session that it has
    /// here ends, as with a `join` of another room.
    pub fn went_elsewhere(&mut self, now: Now, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) else {
            return;
        };
        self.end(&mut Cx { now, effects }, peer, LeaveReason::Left);
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        entry.elsewhere = true;
        (entry.outside, entry.malformed) = (0, 0);
        if let Some(deadline) = entry.deadline.take() {
            self.timers.cancel(deadline, Timer::JoinDeadline(conn));
        }
        if let Some(lobby) = entry.lobby.clone() {
            self.lobbies.leave(&lobby, conn);
        }
    }

    /// The session of a connection's client at another node has ended, or is about to be replaced by
    /// one here.
    pub fn came_back(&mut self, now: Now, conn: ConnId, revoked_until: Option<u64>) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        entry.elsewhere = false;
        entry.revoked_until = entry.revoked_until.max(revoked_until);
        if entry.dialect.has_join_deadline() && entry.deadline.is_none() {
            let deadline = now.instant + self.settings.join_deadline;
            entry.deadline = Some(deadline);
            self.timers.set(deadline, Timer::JoinDeadline(conn));
        }
    }

    /// The client of a connection of another node has entered a room there: its session here ends.
    pub fn left_for(&mut self, now: Now, conn: ConnId, effects: &mut Vec<Effect>) {
        let cx = &mut Cx { now, effects };
        if let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) {
            self.end(cx, peer, LeaveReason::Left);
        }
        self.lost(cx, conn, LeaveReason::Left);
    }

    /// The client of a connection of another node has got nothing of the session that it has here, and is
    /// where it was.
    pub fn cancelled(&mut self, now: Now, conn: ConnId, effects: &mut Vec<Effect>) {
        let cx = &mut Cx { now, effects };
        if let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) {
            self.end_unknown(cx, peer);
        }
        self.lost(cx, conn, LeaveReason::Left);
    }

    /// Ends a session of which its client does not know. Its credentials were given to nobody, and those of
    /// the session that the client has elsewhere under the same peer id stay.
    pub(super) fn end_unknown(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        if let Some(session) = self.sessions.get_mut(peer) {
            session.minted = None;
        }
        self.end(cx, peer, LeaveReason::Left);
    }

    /// Answers a request with an error.
    pub fn refuse_request(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&str>,
        error: &RequestError,
        effects: &mut Vec<Effect>,
    ) {
        self.refuse(&mut Cx { now, effects }, conn, error, id);
    }

    /// The far end of a connection, and what it speaks.
    pub fn client_of(&self, conn: ConnId) -> Option<(IpAddr, DialectKind)> {
        let conn = self.conns.get(&conn)?;
        Some((conn.client, conn.dialect))
    }

    /// Who the client of a connection is, where this node serves it.
    pub fn standing_here(&self, conn: ConnId) -> Option<Standing> {
        self.standing(conn).filter(|_| self.is_served(conn))
    }
}
