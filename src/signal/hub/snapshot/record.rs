//! What a crash must not lose of a room: its settings and its members, each a record of its own, so
//! that only what has changed is saved.
//!
//! Frames and remembered answers are not in it. A session that is made of a record numbers from where
//! its client is, and says that frames are missing.

use super::super::session::{Link, Session};
use super::super::{Effect, Hub, Now};
use super::image::RoomImage;
use super::parts::{ConnPart, Left, LinkPart, RoomPart, SessionPart};
use super::{Bodies, HubSnapshot, SnapshotError};
use crate::protocol::{LeaveReason, PeerId};
use crate::signal::room::Member;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A room without its members.
#[derive(Clone, Serialize, Deserialize)]
pub struct SettingsRecord(RoomPart);

/// A member and its session.
#[derive(Clone, Serialize, Deserialize)]
pub struct MemberRecord {
    member: Member,
    session: SessionPart,
}

impl fmt::Debug for SettingsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SettingsRecord({})", self.0.id)
    }
}

/// Records hold tokens.
impl fmt::Debug for MemberRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberRecord({})", self.member.peer)
    }
}

impl MemberRecord {
    /// Whose it is.
    pub fn peer(&self) -> PeerId {
        self.member.peer
    }
}

impl Hub {
    /// The settings of a room.
    pub fn settings_record(&self, room: &str) -> Option<SettingsRecord> {
        let mut part = RoomPart::of(self.rooms.get(room)?);
        part.members.clear();
        Some(SettingsRecord(part))
    }

    /// A member of a room.
    pub fn member_record(&self, now: Now, room: &str, peer: PeerId) -> Option<MemberRecord> {
        let member = *self.rooms.get(room)?.member(peer)?;
        let session = self.sessions.get(peer)?;
        let mut part = SessionPart::of(session, now, &mut Bodies::default());
        part.ring = (vec![], 0);
        part.calls.clear();
        part.refresh = None;
        part.link = LinkPart::Away {
            until: Left::of(now.instant, now),
            reason: LeaveReason::Disconnected,
            conn: Box::new(self.connection_record(session, now)?),
        };
        Some(MemberRecord {
            member,
            session: part,
        })
    }

    fn connection_record(&self, session: &Session, now: Now) -> Option<ConnPart> {
        let conn = match &session.link {
            Link::Online(conn) => self.conns.get(conn)?,
            Link::Away(away) => &away.conn,
        };
        let mut part = ConnPart::of(conn, now);
        part.responses.clear();
        (part.deadline, part.lobby) = (None, None);
        (part.frames, part.candidates, part.bytes) = (None, None, None);
        part.inflow.clear();
        Some(part)
    }

    /// Takes over a room whose home has died. All members are away, their windows starting now; calls
    /// and invitations in use go on as the records have them.
    ///
    /// # Errors
    /// As [`Self::restore_room`]. Nothing has changed then.
    pub fn restore_records(
        &mut self,
        now: Now,
        settings: SettingsRecord,
        members: Vec<MemberRecord>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SnapshotError> {
        let SettingsRecord(mut room) = settings;
        let mut image = HubSnapshot::empty();
        let window = Left::of(now.instant + self.settings.resume_window, now);
        room.members.clear();
        for MemberRecord {
            member,
            mut session,
        } in members
        {
            if let LinkPart::Away { until, .. } = &mut session.link {
                *until = window;
            }
            // The token ends by the wall clock, and the record is of another time.
            if let Some((ends, left)) = &mut session.ends {
                let ms = ends.saturating_mul(1000).saturating_sub(now.unix_ms);
                let time = Duration::from_millis(ms).min(Duration::from_secs(365 * 24 * 3600));
                *left = Left::of(now.instant + time, now);
            }
            room.members.push(member);
            image.sessions.push((member.peer, session));
        }
        // Who came first inherits first, as in the room that was.
        room.members
            .sort_by_key(|member| (member.joined_at, member.peer));
        image.rooms.push(room);
        self.restore_room(now, RoomImage::from(image), effects)
    }
}
