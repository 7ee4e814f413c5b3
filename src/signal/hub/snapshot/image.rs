//! One room with its members, to be taken to another process.

use super::super::calls::Call;
use super::super::session::{Link, Session};
use super::super::{ConnId, Cx, Effect, Hub, Now};
use super::build::Builder;
use super::parts::{CallPart, ConnPart, Left, LinkPart, RoomPart, SessionPart};
use super::{Bodies, HubSnapshot, SnapshotError};
use crate::protocol::{CloseCode, LeaveReason, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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

impl Hub {
    /// The image of a room. The windows of its members start when the image is restored.
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
        let (conn, reason) = match &session.link {
            Link::Online(conn) => (self.conns.get(conn)?, LeaveReason::Disconnected),
            Link::Away(away) => (&away.conn, away.reason),
        };
        let mut conn = Box::new(ConnPart::of(conn, now));
        conn.deadline = None;
        let until = Left::of(now.instant + self.settings.resume_window, now);
        Some(LinkPart::Away {
            until,
            reason,
            conn,
        })
    }

    /// Takes in a room, or those who are registered, that another process had: all of them are away.
    ///
    /// # Errors
    /// The image contradicts itself, or the room, a member or a call of it is here already. Nothing
    /// has changed then.
    pub fn restore_room(&mut self, now: Now, image: RoomImage) -> Result<(), SnapshotError> {
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
        // Put together aside, where all of it is checked.
        let aside = Self::new(self.settings.clone(), self.ice.clone(), [0; 32]);
        let mut aside = Builder::new(aside, now).build(HubSnapshot {
            clock: None,
            clock_due: None,
            ..snapshot
        })?;
        self.is_absent(&aside)?;
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
        if renews {
            let effects = &mut vec![];
            self.watch_clock(&Cx { now, effects });
        }
        Ok(())
    }

    fn is_absent(&self, other: &Self) -> Result<(), SnapshotError> {
        let is_here = |peer: PeerId| {
            self.sessions.get(peer).is_some() || self.conns.values().any(|conn| conn.peer == peer)
        };
        if other.rooms.keys().any(|room| self.rooms.contains_key(room)) {
            return Err(SnapshotError::Present("the room"));
        }
        if other.sessions.iter().any(|(peer, _)| is_here(peer))
            || (other.tokens.keys()).any(|token| self.tokens.contains_key(token))
        {
            return Err(SnapshotError::Present("a member"));
        }
        if other.calls.keys().any(|call| self.calls.contains_key(call)) {
            return Err(SnapshotError::Present("a call"));
        }
        Ok(())
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
