//! Each kind of thing as a snapshot holds it.

use super::super::calls::{Call, Stage};
use super::super::ended::{self, Entry as Ended};
use super::super::exchange::Member as ExchangeMember;
use super::super::parked::Queue;
use super::super::rate::Bucket;
use super::super::registry::{Holder, Name};
use super::super::response_cache::Remembered;
use super::super::session::{Away, Conn, Link, Session};
use super::super::{ConnId, Now, Party};
use super::{Bodies, SnapshotError};
use crate::auth::{Role, RoomScope};
use crate::protocol::{
    Addressed, CallId, CloseCode, DialectKind, LeaveReason, PeerId, Publication, Report,
    ResumeToken, SubscriptionOptions,
};
use crate::signal::room::{Invite, Member, PasswordHash, Room};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time that anything takes: timers of tokens run at most a year.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);

/// Time from the snapshot on, nanoseconds; negative where it has passed.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Left(i64);

impl Left {
    pub(super) fn of(at: Instant, now: Now) -> Self {
        let nanos = |time: Duration| i64::try_from(time.min(LONGEST).as_nanos()).unwrap_or(0);
        match at.checked_duration_since(now.instant) {
            Some(left) => Self(nanos(left)),
            None => Self(-nanos(now.instant.saturating_duration_since(at))),
        }
    }

    pub(super) fn at(self, now: Now) -> Result<Instant, SnapshotError> {
        let time = Duration::from_nanos(self.0.unsigned_abs());
        let at = match self.0 {
            0.. => now.instant.checked_add(time),
            _ => now.instant.checked_sub(time),
        };
        at.filter(|_| time <= LONGEST)
            .ok_or(SnapshotError::Contradiction("a time is out of range"))
    }
}

fn paid(bucket: &Bucket, now: Now) -> Option<Left> {
    bucket.paid_until.map(|until| Left::of(until, now))
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ConnPart {
    pub(super) peer: PeerId,
    pub(super) client: IpAddr,
    pub(super) dialect: DialectKind,
    pub(super) shown: Option<DialectKind>,
    pub(super) lobby: Option<Arc<str>>,
    pub(super) revoked_until: Option<u64>,
    pub(super) deadline: Option<Left>,
    pub(super) outside: u32,
    pub(super) malformed: u8,
    pub(super) frames: Option<Left>,
    pub(super) candidates: Option<Left>,
    pub(super) bytes: Option<Left>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    pub(super) inflow: Vec<(IpAddr, Left)>,
    pub(super) responses: Vec<(u64, Remembered)>,
    pub(super) sessions: u32,
}

impl ConnPart {
    pub(super) fn of(conn: &Conn, now: Now) -> Self {
        Self {
            peer: conn.peer,
            client: conn.client,
            dialect: conn.dialect,
            shown: conn.shown,
            lobby: conn.lobby.clone(),
            revoked_until: conn.revoked_until,
            deadline: conn.deadline.map(|at| Left::of(at, now)),
            outside: conn.outside,
            malformed: conn.malformed,
            frames: paid(&conn.frames, now),
            candidates: paid(&conn.candidates, now),
            bytes: conn.bytes.paid_until.map(|at| Left::of(at, now)),
            inflow: (conn.inflow.0.iter())
                .map(|(network, until)| (*network, Left::of(*until, now)))
                .collect(),
            responses: conn.responses.entries(),
            sessions: conn.sessions,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SessionPart {
    pub(super) link: LinkPart,
    pub(super) dialect: DialectKind,
    pub(super) shown: Option<DialectKind>,
    pub(super) network: IpAddr,
    pub(super) identity: Option<Arc<str>>,
    /// Of the versions that had no `bearer`.
    pub(super) named_by_token: bool,
    #[serde(default)]
    pub(super) bearer: Option<Arc<str>>,
    pub(super) room: Option<Arc<str>>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    pub(super) role: Option<Role>,
    pub(super) may_call: bool,
    pub(super) may_list_rooms: bool,
    pub(super) may_subscribe: bool,
    pub(super) team: Option<Arc<str>>,
    #[serde(default)]
    pub(super) claims: Option<Arc<serde_json::Value>>,
    pub(super) state: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) token: ResumeToken,
    /// Places of its frames among the bodies, and the number of the next frame.
    pub(super) ring: (Vec<u32>, u64),
    pub(super) minted: Option<u64>,
    pub(super) revoked_until: Option<u64>,
    pub(super) ends: Option<(u64, Left)>,
    pub(super) refresh: Option<Left>,
    pub(super) calls: Vec<CallId>,
    /// With its time; absent in what earlier versions wrote.
    #[serde(default)]
    pub(super) report: Option<(Report, u64)>,
    #[serde(default = "yes")]
    pub(super) is_used: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum LinkPart {
    Online(u64),
    Away {
        until: Left,
        reason: LeaveReason,
        conn: Box<ConnPart>,
    },
}

impl LinkPart {
    fn of(link: &Link, now: Now) -> Self {
        match link {
            Link::Online(ConnId(conn)) => Self::Online(*conn),
            Link::Away(away) => {
                let Away {
                    until,
                    reason,
                    conn,
                } = &**away;
                Self::Away {
                    until: Left::of(*until, now),
                    reason: *reason,
                    conn: Box::new(ConnPart::of(conn, now)),
                }
            }
        }
    }
}

impl SessionPart {
    pub(super) fn of(session: &Session, now: Now, bodies: &mut Bodies) -> Self {
        let (frames, next) = session.ring.parts();
        let raw = |raw: &serde_json::value::RawValue| raw.get().to_owned();
        Self {
            link: LinkPart::of(&session.link, now),
            dialect: session.dialect,
            shown: session.shown,
            network: session.network,
            identity: session.identity.clone(),
            named_by_token: session.bearer.is_some() && session.identity.is_some(),
            bearer: session.bearer.clone(),
            room: session.room.clone(),
            role: session.role,
            may_call: session.may_call,
            may_list_rooms: session.may_list_rooms,
            may_subscribe: session.may_subscribe,
            team: session.team.clone(),
            claims: session.claims.clone(),
            state: session.state.as_deref().map(raw),
            metadata: session.metadata.as_deref().map(raw),
            token: session.token,
            ring: (frames.map(|body| bodies.place(body)).collect(), next),
            minted: session.minted,
            revoked_until: session.revoked_until,
            ends: session.ends.map(|(ends, at)| (ends, Left::of(at, now))),
            refresh: session.refresh.map(|at| Left::of(at, now)),
            calls: session.calls.clone(),
            report: session
                .report
                .as_ref()
                .map(|dated| (dated.report, dated.ts)),
            is_used: session.is_used,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RoomPart {
    pub(super) id: Arc<str>,
    pub(super) locked: bool,
    pub(super) max_peers: u32,
    pub(super) password: Option<PasswordHash>,
    pub(super) metadata: Option<String>,
    pub(super) relay_only: bool,
    pub(super) created_at: u64,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    pub(super) maker: Option<IpAddr>,
    pub(super) invites: BTreeMap<String, Invite>,
    pub(super) members: Vec<Member>,
}

impl RoomPart {
    pub(super) fn of(room: &Room) -> Self {
        Self {
            id: room.id.clone(),
            locked: room.locked,
            max_peers: room.max_peers,
            password: room.password.clone(),
            metadata: room.metadata.as_ref().map(|raw| raw.get().to_owned()),
            relay_only: room.relay_only,
            created_at: room.created_at,
            maker: Some(room.maker),
            invites: room.invites.clone(),
            members: room.members().to_vec(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum CallPart {
    Ringing {
        caller: PeerId,
        from: Party,
        to: Arc<str>,
        devices: Vec<PeerId>,
        ends: Left,
    },
    Answered {
        caller: PeerId,
        from: Party,
        to: Arc<str>,
        callee: PeerId,
        since: u64,
        by: Party,
    },
}

impl CallPart {
    /// Who rings and is rung, or who talks.
    pub(super) fn parties(&self) -> impl Iterator<Item = PeerId> {
        let (caller, others) = match self {
            Self::Ringing {
                caller, devices, ..
            } => (caller, devices.as_slice()),
            Self::Answered { caller, callee, .. } => (caller, std::slice::from_ref(callee)),
        };
        std::iter::once(*caller).chain(others.iter().copied())
    }

    pub(super) fn of(call: &Call, now: Now) -> Self {
        let caller = call.caller;
        let (from, to) = (call.from.clone(), Arc::clone(&call.to));
        match &call.stage {
            Stage::Ringing { devices, ends } => Self::Ringing {
                caller,
                from,
                to,
                devices: devices.clone(),
                ends: Left::of(*ends, now),
            },
            Stage::Answered { callee, since, by } => Self::Answered {
                caller,
                from,
                to,
                callee: *callee,
                since: *since,
                by: by.clone(),
            },
        }
    }
}

/// What holds of members that were written down without it.
fn yes() -> bool {
    true
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ExchangeMemberPart {
    pub(super) rooms: RoomScope,
    pub(super) network: IpAddr,
    pub(super) may_call: bool,
    pub(super) identity: Option<Arc<str>>,
    pub(super) chooses_identity: bool,
    #[serde(default)]
    pub(super) role: Option<Role>,
    #[serde(default)]
    pub(super) team: Option<Arc<str>>,
    #[serde(default)]
    pub(super) claims: Option<Arc<serde_json::Value>>,
    #[serde(default)]
    pub(super) is_invited: bool,
    #[serde(default = "yes")]
    pub(super) may_subscribe: bool,
    pub(super) name: Option<Arc<str>>,
    pub(super) holds: Option<Name>,
    pub(super) wants: Option<Name>,
    pub(super) will: Option<Arc<Publication>>,
    pub(super) deliveries: Option<Left>,
    pub(super) minted: Option<(u64, Left)>,
    pub(super) ends: Option<(u64, Left)>,
    pub(super) topics: Vec<(Arc<str>, SubscriptionOptions)>,
}

impl ExchangeMemberPart {
    pub(super) fn of(
        member: &ExchangeMember,
        topics: Vec<(Arc<str>, SubscriptionOptions)>,
        now: Now,
    ) -> Self {
        let dated = |(expiry, at)| (expiry, Left::of(at, now));
        Self {
            rooms: member.rooms.clone(),
            network: member.network,
            may_call: member.may_call,
            identity: member.identity.clone(),
            chooses_identity: member.chooses_identity,
            role: member.role,
            team: member.team.clone(),
            claims: member.claims.clone(),
            is_invited: member.is_invited,
            may_subscribe: member.may_subscribe,
            name: member.name.clone(),
            holds: member.holds.clone(),
            wants: member.wants.clone(),
            will: member.will.clone(),
            deliveries: paid(&member.deliveries, now),
            minted: member.minted.map(dated),
            ends: member.ends.map(dated),
            topics,
        }
    }
}

/// The halves of a proof, as not every format knows numbers of 128 bits.
pub(super) type Proof = (u64, u64);

fn halves(proof: u128) -> Proof {
    ((proof >> 64) as u64, proof as u64)
}

pub(super) fn whole((high, low): Proof) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct EndedPart {
    pub(super) token: Proof,
    pub(super) network: IpAddr,
    pub(super) until: Left,
    pub(super) code: u16,
}

impl EndedPart {
    pub(super) fn of(entry: &Ended, code: CloseCode, now: Now) -> Self {
        Self {
            token: halves(entry.token),
            network: entry.network,
            until: Left::of(entry.until, now),
            code: code as u16,
        }
    }

    pub(super) fn entry(&self, now: Now) -> Result<(Ended, CloseCode), SnapshotError> {
        let mut codes = CloseCode::ALL.iter().copied();
        let code = codes.find(|code| *code as u16 == self.code && ended::reason(*code).is_some());
        let entry = Ended {
            token: whole(self.token),
            network: self.network,
            until: self.until.at(now)?,
        };
        let wrong = SnapshotError::Contradiction("a session that did not end so");
        Ok((entry, code.ok_or(wrong)?))
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct NamePart {
    pub(super) name: Name,
    pub(super) conn: u64,
    pub(super) proof: Proof,
    /// The newcomer, its proof, and when the contest ends.
    pub(super) contest: Option<(u64, Proof, Left)>,
}

impl NamePart {
    pub(super) fn of(name: &Name, holder: &Holder, now: Now) -> Self {
        Self {
            name: name.clone(),
            conn: holder.conn.0,
            proof: halves(holder.proof),
            contest: holder.contest.map(|contest| {
                let until = Left::of(contest.until, now);
                (contest.newcomer.0, halves(contest.proof), until)
            }),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct QueuePart {
    pub(super) name: Name,
    pub(super) until: Left,
    pub(super) messages: Vec<(u64, IpAddr, Arc<str>, Arc<Addressed>)>,
}

impl QueuePart {
    pub(super) fn of(name: &Name, queue: &Queue, now: Now) -> Self {
        let message = |message: &super::super::parked::Message| {
            let (from, text) = (message.from.clone(), Arc::clone(&message.message));
            (message.sender.0, message.network, from, text)
        };
        Self {
            name: name.clone(),
            until: Left::of(queue.until, now),
            messages: queue.messages.iter().map(message).collect(),
        }
    }
}
