//! What one network may have one connection sent: half of what may wait there, whatever it does and with
//! however many connections, and what the connection takes. Beyond that its clients wait, and what
//! they ask for meanwhile is refused.

use super::rate::widest_network;
use super::{ConnId, Cx, Effect, Hub, Now};
use crate::protocol::{ExchangeRequest, Payload, PeerId, Request, ResumeToken};
use crate::rate::cost;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Networks that are looked at closely at once. Each has sent half an outbox within a second; beyond
/// them, who sends waits all the same, and is not refused.
const MAX_NETWORKS: usize = 10_000;

/// How long one message may have its sender wait for a slow link: less than a connection that takes
/// nothing is kept.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Less is not worth a timer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// A connection for which much waits.
#[derive(Debug, Clone, Copy)]
pub struct Congested {
    /// Which.
    pub receiver: ConnId,
    /// Bytes that wait for it.
    pub waits: usize,
    /// Bytes of those that have just come.
    pub sent: usize,
}

/// Which networks have had a connection sent more than their share.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Until when, at most.
    pub(super) until: HashMap<IpAddr, Instant>,
    /// Kept between inputs for its capacity.
    sent: Vec<(ConnId, usize)>,
}

impl Pressure {
    fn note(&mut self, now: Instant, network: IpAddr, until: Instant) {
        if self.until.len() >= MAX_NETWORKS && !self.until.contains_key(&network) {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= MAX_NETWORKS {
                return;
            }
        }
        let known = self.until.entry(network).or_insert(until);
        *known = until.max(*known);
    }
}

impl Hub {
    /// Does what a client or its end asks for, and charges it for what others were sent of that: its
    /// connection for what the one who got most has to take, and its network for each.
    pub(super) fn charged(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        input: impl FnOnce(&mut Self, &mut Cx<'_>),
    ) {
        let before = cx.effects.len();
        let sender = (self.conns.get(&conn)).map(|entry| (entry.peer, entry.client));
        input(self, cx);
        if let Some((peer, client)) = sender {
            self.charge_bytes(cx, conn, (peer, client), before);
        }
    }

    fn charge_bytes(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        (sender, client): (PeerId, IpAddr),
        before: usize,
    ) {
        let (rate, burst) = (self.settings.byte_rate, self.settings.byte_burst);
        let mut sent = std::mem::take(&mut self.pressure.sent);
        let effects = cx.effects.get(before..).unwrap_or_default().iter();
        sent.extend(effects.filter_map(|effect| match effect {
            Effect::Send {
                conn, peer, event, ..
            } if *peer != sender => Some((*conn, event.cost())),
            _ => None,
        }));
        if rate > 0 && !sent.is_empty() {
            sent.sort_unstable_by_key(|(receiver, _)| *receiver);
            let (now, network) = (cx.now.instant, widest_network(client));
            let (mut most, mut pressed) = (0, None);
            for of_one in sent.chunk_by(|one, next| one.0 == next.0) {
                let bytes: usize = of_one.iter().map(|(_, bytes)| bytes).sum();
                most = bytes.max(most);
                if let Some(receiver) = self.conns.get_mut(&of_one[0].0) {
                    let until = (receiver.inflow).charge(now, network, bytes, rate, burst);
                    pressed = until.max(pressed);
                }
            }
            if let Some(until) = pressed {
                self.pressure.note(now, network, until);
            }
            if let Some(entry) = self.conns.get_mut(&conn) {
                let own = entry.bytes.charge(now, most, rate, burst);
                if let Some(until) = own.max(pressed) {
                    cx.effects.push(Effect::Hold { conn, until });
                }
            }
        }
        sent.clear();
        self.pressure.sent = sent;
    }

    /// Has a client wait for those of `receivers` for whom more than half of `capacity` bytes waits: each
    /// with that, and with what the client has just sent it. Returns until when its connection is not
    /// to be read.
    ///
    /// A link that is slower than `signal.byte_rate` would be filled within that rate. Who sends to it goes
    /// on at a quarter of the rate, and at less and less the fuller it is.
    pub fn congested(
        &mut self,
        now: Now,
        sender: ConnId,
        receivers: &[Congested],
        capacity: usize,
    ) -> Option<Instant> {
        let (rate, burst) = (self.settings.byte_rate, self.settings.byte_burst);
        let now = now.instant;
        let entry = self.conns.get(&sender).filter(|_| rate > 0)?;
        let (peer, network) = (entry.peer, widest_network(entry.client));
        let half = (capacity / 2).max(1);
        let mut hold = None;
        for congested in receivers {
            let Some(entry) = self.conns.get_mut(&congested.receiver) else {
                continue;
            };
            if entry.peer == peer {
                continue;
            }
            let over = congested.waits.saturating_sub(half).min(half);
            let slower = rate / (4 + (24 * over / half) as u64);
            let pause = cost(congested.sent as u64, slower.max(1)).min(LONGEST_PAUSE);
            if pause < SHORTEST_PAUSE {
                continue;
            }
            hold = hold.max(Some(now + pause));
            if over > half / 2 {
                entry.inflow.press(now, network, cost(burst, rate) + pause);
                self.pressure.note(now, network, now + pause);
            }
        }
        hold
    }

    /// How long a client has to wait with a request, as its network has sent more than its share to
    /// somebody who would get something of it.
    pub(super) fn presses(
        &self,
        now: Instant,
        conn: ConnId,
        request: &Request,
    ) -> Option<Duration> {
        if self.pressure.until.is_empty() {
            return None;
        }
        let entry = self.conns.get(&conn)?;
        let network = widest_network(entry.client);
        let pressed = self.pressure.until.get(&network)?;
        let longest = pressed.checked_duration_since(now)?;
        let (rate, burst) = (self.settings.byte_rate, self.settings.byte_burst);
        let session = self.sessions.get(entry.peer);
        let mut to = None;
        let (room, burst) = match request {
            Request::Forward(message) => {
                to = message.to.as_deref().and_then(PeerId::parse);
                // A class behind one address that enters together negotiates together.
                let negotiates = !matches!(message.payload, Payload::Opaque);
                let more = if negotiates { burst / 4 } else { 0 };
                (session?.room.as_deref(), burst.saturating_add(more))
            }
            Request::State(_) | Request::Mute { .. } | Request::Room(_) => {
                (session?.room.as_deref(), burst)
            }
            // What they say to others is short: they have half of the share more.
            Request::Join(join) => (Some(join.room_id.as_str()), burst.saturating_add(burst / 2)),
            Request::Resume { token, .. } => {
                let token = ResumeToken::parse(token.expose_secret())?;
                let peer = self.tokens.get(&token.digest())?;
                let room = self.sessions.get(*peer)?.room.as_deref();
                (room, burst.saturating_add(burst / 2))
            }
            Request::Call { .. }
            | Request::Exchange(ExchangeRequest::Publish { .. } | ExchangeRequest::Send { .. }) => {
                return Some(longest).filter(|wait| !wait.is_zero());
            }
            _ => return None,
        };
        let room = self.rooms.get(room?)?;
        let members = room.members().iter().map(|member| member.peer);
        let waits = members
            .filter(|peer| to.is_none_or(|to| to == *peer))
            .filter_map(|peer| self.conns.get(&self.sessions.get(peer)?.conn()?))
            .map(|receiver| receiver.inflow.wait(now, network, rate, burst));
        waits.max().filter(|wait| !wait.is_zero())
    }

    /// A client is gone whose network has sent more than its share: its will is not published.
    pub(super) fn withhold_will(&mut self, now: Instant, conn: ConnId, client: IpAddr) {
        let until = self.pressure.until.get(&widest_network(client));
        if until.is_some_and(|until| *until > now)
            && let Some(member) = self.exchange.members.get_mut(&conn)
        {
            member.will = None;
        }
    }
}
