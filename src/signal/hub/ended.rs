//! Sessions that somebody else ended, by a kick, a replacement or the end of their room: a client that
//! lost its connection before it was told so is told when it comes to resume.

use super::{Cx, Hub, Now};
use crate::network::NetworkCounts;
use crate::protocol::{CloseCode, PeerId, ResumeToken};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

/// Sessions that are remembered at once, about 150 bytes each. Beyond them the oldest goes: its client
/// learns that there is nothing to resume, and may join anew.
pub(super) const MAX_ENDED: usize = 10_000;
/// Sessions of one network that are remembered at once.
const PER_NETWORK: u32 = 1_000;

/// What is remembered, for as long as such a session could have been resumed. Nothing is due: what is
/// too old goes with the next look.
#[derive(Debug, Default)]
pub(super) struct Ended {
    codes: HashMap<u128, CloseCode>,
    /// In the order in which the sessions ended.
    queue: VecDeque<Entry>,
    networks: NetworkCounts,
}

/// One session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The digest of its resume token.
    pub(super) token: u128,
    pub(super) network: IpAddr,
    pub(super) until: Instant,
}

impl Ended {
    /// Remembers a session; returns whether it does.
    fn note(&mut self, now: Instant, entry: Entry, code: CloseCode) -> bool {
        self.expire(now);
        self.restore(entry, code)
    }

    /// As [`Self::note`], of a snapshot: what is too old goes with the next look.
    pub(super) fn restore(&mut self, entry: Entry, code: CloseCode) -> bool {
        let total = u32::try_from(MAX_ENDED).unwrap_or(u32::MAX);
        if self.codes.contains_key(&entry.token)
            || !self.networks.take(entry.network, PER_NETWORK, total)
        {
            return false;
        }
        if self.queue.len() >= MAX_ENDED {
            self.forget_oldest();
        }
        self.codes.insert(entry.token, code);
        self.queue.push_back(entry);
        true
    }

    /// With which code the session of that token was ended.
    fn code(&mut self, now: Instant, token: u128) -> Option<CloseCode> {
        self.expire(now);
        self.codes.get(&token).copied()
    }

    fn expire(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|entry| entry.until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.queue.pop_front() {
            self.codes.remove(&entry.token);
            self.networks.give_back(entry.network);
        }
    }

    /// Every session, in the order in which they ended.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, CloseCode)> {
        let entries = self.queue.iter();
        entries.filter_map(|entry| Some((entry, *self.codes.get(&entry.token)?)))
    }
}

/// A session that was ended, as nodes of a cluster say it to each other: its client may come back to any
/// of them, and its room may have gone or moved meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedSession {
    /// The digest of its resume token.
    pub token: u128,
    /// The network of its client.
    pub network: IpAddr,
    /// How it ended.
    pub code: CloseCode,
}

/// What a client is told that comes back to such a session; none for ends after which it may.
pub(super) fn reason(code: CloseCode) -> Option<&'static str> {
    match code {
        CloseCode::Kicked => Some("kicked"),
        CloseCode::Replaced => Some("replaced"),
        CloseCode::RoomClosed => Some("room closed"),
        _ => None,
    }
}

impl Hub {
    /// Remembers how a session ends that may have lost its connection unnoticed.
    pub(super) fn note_ended(&mut self, cx: &Cx<'_>, peer: PeerId, code: CloseCode) {
        let Some(session) = self.sessions.get(peer) else {
            return;
        };
        if reason(code).is_none() || !session.dialect.is_resumable() {
            return;
        }
        let entry = Entry {
            token: session.token.digest(),
            network: session.network,
            until: cx.now.instant + self.settings.resume_window,
        };
        if self.ended.note(cx.now.instant, entry, code) {
            let Entry { token, network, .. } = entry;
            self.note_for_nodes(EndedSession {
                token,
                network,
                code,
            });
        }
    }

    /// Remembers a session that another node has ended.
    pub fn ended_elsewhere(&mut self, now: Now, ended: EndedSession) {
        let EndedSession {
            token,
            network,
            code,
        } = ended;
        if reason(code).is_none() || self.tokens.contains_key(&token) {
            return;
        }
        let entry = Entry {
            token,
            network,
            until: now.instant + self.settings.resume_window,
        };
        self.ended.note(now.instant, entry, code);
    }

    /// Whether the session of a resume token is known to have been ended.
    pub fn has_ended(&mut self, now: Now, text: &str) -> bool {
        let token = ResumeToken::parse(text).map(|token| token.digest());
        token.is_some_and(|token| self.ended.code(now.instant, token).is_some())
    }

    /// How the session of that token was ended, and what to say about it.
    pub(super) fn ended_by(
        &mut self,
        cx: &Cx<'_>,
        token: u128,
    ) -> Option<(CloseCode, &'static str)> {
        let code = self.ended.code(cx.now.instant, token)?;
        Some((code, reason(code)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NETWORK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn sessions_are_forgotten_in_time_and_bounded_by_network_and_in_all() {
        let now = Instant::now();
        let mut ended = Ended::default();
        let window = Duration::from_secs(30);
        let entry = |token, network, now| Entry {
            token,
            network,
            until: now + window,
        };
        let code = CloseCode::Kicked;
        for token in 0..u128::from(PER_NETWORK) {
            assert!(ended.note(now, entry(token, NETWORK, now), code));
        }
        assert!(!ended.note(now, entry(5000, NETWORK, now), code));
        assert_eq!(ended.code(now, 0), Some(code));
        assert_eq!(ended.code(now, 5000), None);
        // Others have room, and the oldest makes it.
        for token in 10_000..20_000_u128 {
            let network = IpAddr::from([198, 51, (token % 200) as u8, (token % 7) as u8]);
            assert!(ended.note(now, entry(token, network, now), code));
        }
        assert_eq!(
            (ended.queue.len(), ended.codes.len()),
            (MAX_ENDED, MAX_ENDED)
        );
        assert_eq!(ended.code(now, 0), None);
        assert_eq!(ended.code(now, 19_999), Some(code));
        assert!(ended.note(now, entry(5000, NETWORK, now), code));
        assert_eq!(ended.entries().count(), MAX_ENDED);
        // Nothing is left of them after the window.
        assert_eq!(ended.code(now + window, 5000), None);
        assert!(ended.codes.is_empty() && ended.queue.is_empty() && ended.networks.is_empty());
    }
}
