//! One room with its members, to be taken to another process.

use super::super::calls::Call;
use super::super::session::{Link, Session};
use super::super::{ConnId, Cx, Effect, Hub, Now};
use super::build::Builder;
use super::parts::{CallPart, ConnPart, Left, LinkPart, RoomPart, SessionPart};
use super::{Bodies, HubSnapshot, SnapshotError};
use crate::protocol::{CallId, CloseCode, LeaveReason, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A room, its members' sessions with their rings and remembered answers, and the calls between
/// them. All members are away: their connections stay behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoomImage(HubSnapshot);

impl From<HubSnapshot> for RoomImage {
    fn from(snapshot: HubSnapshot) -> Self {
        Self(snapshot)
    }
}

impl RoomImage {
    /// The room's name, where the image holds one.
    pub fn room(&self) -> Option<&str> {
        self.0.rooms.first().map(|room| &*room.id)
    }

    /// How many members the room has.
    pub fn members(&self) -> usize {
        self.0.sessions.len()
    }
}

impl HubSnapshot {
    fn members_of_rooms(&self) -> Vec<PeerId> {
        let members = self.rooms.iter().flat_map(|room| &room.members);
        members.map(|member| member.peer).collect()
    }

    /// What makes the image of one member without calls.
    fn alone(&self) -> impl Fn(PeerId, &SessionPart) -> Self + use<> {
        let (bodies, rooms) = (self.bodies.clone(), self.rooms.clone());
        move |peer, part| {
            let mut part = part.clone();
            part.calls.clear();
            let mut rooms = rooms.clone();
            for room in &mut rooms {
                room.members.retain(|member| member.peer == peer);
                room.members.truncate(1);
            }
            Self {
                bodies: bodies.clone(),
                sessions: vec![(peer, part)],
                rooms,
                ..Self::empty()
            }
        }
    }

    /// Leaves only those members, and only the calls among them.
    fn keep_only(&mut self, mut peers: BTreeSet<PeerId>) {
        let sessions: HashMap<_, _> = (self.sessions.iter())
            .map(|(peer, session)| (*peer, session.calls.iter().copied().collect()))
            .collect();
        let has = |peer: PeerId, call: CallId| {
            sessions
                .get(&peer)
                .is_some_and(|calls: &HashSet<_>| calls.contains(&call))
        };
        self.calls
            .retain(|(id, call)| call.parties().all(|peer| has(peer, *id)));
        let calls: HashSet<_> = self.calls.iter().map(|(id, _)| *id).collect();
        for (_, session) in &mut self.sessions {
            session.calls.retain(|call| calls.contains(call));
        }
        for room in &mut self.rooms {
            room.members.retain(|member| peers.remove(&member.peer));
        }
    }
}

impl Hub {
    /// The image of a room. The windows of its members start when the image is restored; those of members
    /// who are away go on then, so that nobody who is gone stays for as long as rooms move.
    pub fn image(&self, now: Now, room: &str) -> Option<RoomImage> {
        let room = self.rooms.get(room)?;
        let peers = room.members().iter().map(|member| member.peer).collect();
        let mut image = self.image_of(now, &peers)?;
        image.rooms.push(RoomPart::of(room));
        Some(RoomImage(image))
    }

    /// The image of those who are registered and in no room, with the calls between them; `None` where
    /// nobody is.
    pub fn people_image(&self, now: Now) -> Option<RoomImage> {
        let peers = self.people();
        let image = self.image_of(now, &peers)?;
        (!peers.is_empty()).then_some(RoomImage(image))
    }

    fn people(&self) -> BTreeSet<PeerId> {
        let sessions = self.sessions.iter();
        let registered = sessions.filter(|(_, session)| session.room.is_none());
        registered.map(|(peer, _)| peer).collect()
    }

    fn image_of(&self, now: Now, peers: &BTreeSet<PeerId>) -> Option<HubSnapshot> {
        let is_inside = |call: &Call| Self::parties(call).all(|party| peers.contains(&party));
        let mut bodies = Bodies::default();
        let mut image = HubSnapshot::empty();
        let mut calls = BTreeSet::new();
        for peer in peers {
            let session = self.sessions.get(*peer)?;
            let mut part = SessionPart::of(session, now, &mut bodies);
            part.calls
                .retain(|id| self.calls.get(id).is_some_and(is_inside));
            calls.extend(part.calls.iter().copied());
            part.link = self.link_left_behind(session, now)?;
            image.sessions.push((*peer, part));
        }
        image.bodies = bodies.list;
        image.calls = (calls.into_iter())
            .filter_map(|id| Some((id, CallPart::of(self.calls.get(&id)?, now))))
            .collect();
        Some(image)
    }

    fn link_left_behind(&self, session: &Session, now: Now) -> Option<LinkPart> {
        let (conn, reason, until) = match &session.link {
            Link::Online(conn) => {
                let until = now.instant + self.settings.resume_window;
                (self.conns.get(conn)?, LeaveReason::Disconnected, until)
            }
            Link::Away(away) => (&away.conn, away.reason, away.until),
        };
        let mut conn = Box::new(ConnPart::of(conn, now));
        conn.deadline = None;
        let until = Left::of(until, now);
        Some(LinkPart::Away {
            until,
            reason,
            conn,
        })
    }

    /// Takes in a room, or those who are registered, that another process had: all of them are away.
    /// A member who has a session here has left that room for it, unless its client was cut off before it
    /// has shown that it knows of that session: then it is still in that room. A connection here whose session comes
    /// with the image is closed, as its client resumes. A member whose part contradicts itself is left
    /// out, and so is a call that is here already.
    ///
    /// # Errors
    /// The image contradicts itself beyond that, or the room is here already. Nothing has changed then.
    pub fn restore_room(
        &mut self,
        now: Now,
        image: RoomImage,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SnapshotError> {
        let RoomImage(snapshot) = image;
        if snapshot.version != super::VERSION {
            return Err(SnapshotError::Version(snapshot.version));
        }
        let has_room = !snapshot.rooms.is_empty();
        let is_image = snapshot.rooms.len() <= 1
            && snapshot.conns.is_empty()
            && snapshot.members.is_empty()
            && snapshot.names.is_empty()
            && snapshot.parked.is_empty()
            && snapshot.guessers.is_empty();
        let is_of_it = |(_, session): &(_, SessionPart)| session.room.is_some() == has_room;
        if !is_image || !snapshot.sessions.iter().all(is_of_it) {
            let why = "an image holds one room and its members, or those without a room";
            return Err(SnapshotError::Contradiction(why));
        }
        let name = snapshot.rooms.first().map(|room| Arc::clone(&room.id));
        let mut members = snapshot.members_of_rooms();
        if (name.as_ref()).is_some_and(|name| self.rooms.contains_key(name)) {
            return Err(SnapshotError::Present("the room"));
        }
        let mut aside = self.aside(now, snapshot)?;
        let cx = &mut Cx { now, effects };
        self.take_out_foreign(&mut aside, cx);
        members.retain(|peer| aside.sessions.get(*peer).is_none());
        let renews = !aside.sessions.with_credentials().is_empty();
        self.timers.append(&mut aside.timers);
        self.tokens.extend(aside.tokens.drain());
        for (_, room) in std::mem::take(&mut aside.rooms) {
            self.insert_room(room);
        }
        self.calls.extend(aside.calls.drain());
        self.away += aside.away;
        self.members += aside.members;
        for (peer, session) in aside.sessions.drain() {
            if let Some(name) = &session.identity {
                self.names.insert(name.clone(), session.network, peer);
            }
            self.sessions.insert(peer, session);
        }
        if let Some(name) = name.filter(|_| !members.is_empty()) {
            // Who is left out goes from the record too, and another one may be host now.
            self.note_all(&name);
            for peer in members {
                self.note_member(&name, peer);
            }
        }
        if renews {
            self.watch_clock(cx);
        }
        Ok(())
    }

    /// An image put together aside, where all of it is checked.
    fn aside(&self, now: Now, snapshot: HubSnapshot) -> Result<Self, SnapshotError> {
        let build = |snapshot| {
            let mut aside = Self::new(self.settings.clone(), self.ice.clone(), [0; 32]);
            aside.watch(self.watch.has_events());
            Builder::new(aside, now).build(snapshot)
        };
        let mut snapshot = HubSnapshot {
            clock: None,
            clock_due: None,
            ..snapshot
        };
        let refused = match build(snapshot.clone()) {
            Err(refused @ SnapshotError::Contradiction(_)) => refused,
            built => return built,
        };
        let alone = snapshot.alone();
        let mut sound = BTreeSet::new();
        let mut tokens = BTreeSet::new();
        snapshot.sessions.retain(|(peer, part)| {
            let is_sound = !sound.contains(peer)
                && !tokens.contains(&part.token.digest())
                && build(alone(*peer, part)).is_ok();
            if is_sound {
                sound.insert(*peer);
                tokens.insert(part.token.digest());
            }
            is_sound
        });
        if sound.is_empty() {
            return Err(refused);
        }
        snapshot.keep_only(sound);
        build(snapshot)
    }

    /// Takes out of an image what is here already.
    fn take_out_foreign(&mut self, aside: &mut Self, cx: &mut Cx<'_>) {
        let calls: Vec<_> = (aside.calls.keys())
            .filter(|call| self.calls.contains_key(*call))
            .copied()
            .collect();
        for call in calls {
            aside.remove_call(call);
        }
        let mut unknown: Vec<_> = (aside.sessions.iter())
            .filter_map(|(peer, _)| {
                let here = self.sessions.get(peer)?;
                (!here.is_used && matches!(here.link, Link::Away(_))).then_some(peer)
            })
            .collect();
        unknown.sort_unstable();
        for peer in unknown {
            self.end_unknown(cx, peer);
        }
        let is_here = |(peer, session): (PeerId, &Session)| {
            let is_here = self.sessions.get(peer).is_some()
                || self.tokens.contains_key(&session.token.digest());
            is_here.then_some(peer)
        };
        let mut foreign: Vec<_> = aside.sessions.iter().filter_map(is_here).collect();
        foreign.sort_unstable();
        for peer in foreign {
            aside.end(cx, peer, LeaveReason::Left);
        }
        let conns = self.conns.iter();
        let left_behind = conns.filter(|(_, conn)| aside.sessions.get(conn.peer).is_some());
        let mut left_behind: Vec<_> = left_behind.map(|(id, conn)| (*id, conn.peer)).collect();
        left_behind.sort_unstable();
        for (conn, peer) in left_behind {
            self.give_up_connection(cx, conn, peer);
        }
    }

    /// Forgets a room that another process has from now on. Nobody is told that anyone has left and
    /// nothing is revoked; the connections of its members are closed, and they resume there.
    /// Returns whether there was such a room.
    pub fn give_up_room(&mut self, now: Now, room: &str, effects: &mut Vec<Effect>) -> bool {
        self.unnote(room);
        let Some(room) = self.remove_room(room) else {
            return false;
        };
        self.members -= room.members().len();
        let peers = room.members().iter().map(|member| member.peer).collect();
        self.give_up_sessions(&mut Cx { now, effects }, &peers);
        true
    }

    /// Forgets those who are registered and in no room, and the names that clients have, whom another process has from now on.
    pub fn give_up_people(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let peers = self.people();
        let cx = &mut Cx { now, effects };
        self.give_up_sessions(cx, &peers);
        self.give_up_names(cx);
    }

    fn give_up_sessions(&mut self, cx: &mut Cx<'_>, peers: &BTreeSet<PeerId>) {
        for peer in peers {
            let Some(session) = self.close_session(*peer) else {
                continue;
            };
            if let Link::Away(_) = session.link {
                self.away -= 1;
            }
            for call in &session.calls {
                let goes_along = (self.calls.get(call))
                    .is_none_or(|call| Self::parties(call).all(|party| peers.contains(&party)));
                match goes_along {
                    true => drop(self.remove_call(*call)),
                    false => self.party_left(cx, *call, *peer),
                }
            }
            if let Some(conn) = session.conn() {
                self.give_up_connection(cx, conn, *peer);
            }
        }
    }

    pub(in crate::signal::hub) fn give_up_connection(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        peer: PeerId,
    ) {
        self.remove_connection(conn);
        self.exchange_left(cx, conn, peer);
        cx.effects.push(Effect::Close {
            conn,
            code: CloseCode::Restart,
            reason: "the room has moved",
        });
    }
}
