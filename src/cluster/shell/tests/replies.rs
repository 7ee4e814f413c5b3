//! What clients get.

use super::clients::{Deed, Session, Wish};
use super::world::{Kind, World};
use super::*;
use rand::RngExt;
use std::collections::BTreeMap;

impl World {
    /// The numbers of frames: up by one, unless frames are said to be missing.
    pub(super) fn count(&mut self, c: usize, frame: &Value) {
        let kind = &frame["type"];
        let Some(seq) = frame["seq"].as_u64() else {
            return;
        };
        if kind == "joined" {
            return;
        }
        let Some(session) = self.session(c) else {
            self.fail(format!("a frame for a session that is not there: {frame}"));
        };
        let skips = std::mem::take(&mut session.gap) && seq > session.seen;
        if seq != session.seen + 1 && !skips {
            let seen = session.seen;
            self.fail(format!(
                "{} gets number {seq} after {seen}: {frame}",
                self.clients[c].name
            ));
        }
        session.seen = seq;
    }

    pub(super) fn receive(&mut self, c: usize, frame: &Value) {
        trace(self.step, || {
            format!("{} gets {frame}", self.clients[c].name)
        });
        self.count(c, frame);
        let kind = frame["type"].as_str().unwrap_or_default().to_owned();
        let id = frame["id"].as_str().unwrap_or_default().to_owned();
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        if let (Some(expires), Some(session)) = (frame["expiresAt"].as_u64(), self.session(c))
            && kind != "joined"
        {
            session.expires = expires;
        }
        let mut request = String::new();
        if let Some(session) = self.session(c)
            && let Some(at) = session
                .unanswered
                .iter()
                .position(|(other, _)| *other == id)
            && let Some((_, text)) = session.unanswered.remove(at)
        {
            request = text;
        }
        match kind.as_str() {
            "joined" => self.joined(c, frame),
            "resumed" => self.resumed(c, frame),
            "error" => self.refused(c, frame, &id),
            "ack" if id.starts_with('k') => {
                let gone = self.kick_was_done(c, &request);
                self.tell(format!("the kick of {gone} is done"));
            }
            "room-updated" if id.starts_with('c') => self.changed(c, &id, frame),
            "left" => {
                self.forget_changes_of(c);
                self.clients[c].session = None;
                self.clients[c].retry_at = self.step + self.rng.random_range(0..20);
            }
            "message" => self.message(c, frame),
            "peer-joined" => {
                if let Some(session) = self.session(c) {
                    let peer = text("peerId");
                    if session.view.insert(peer.clone(), true).is_none() {
                        session.received.insert(peer, 0);
                    }
                }
            }
            "peer-left" => {
                let peer = text("peerId");
                self.judge_left(c, &peer, &text("reason"));
                if let Some(session) = self.session(c) {
                    session.view.remove(&peer);
                    session.received.remove(&peer);
                }
            }
            "peer-state" => {
                let is_online = frame["connection"] == "online";
                let serves = self.kind == Kind::Serve;
                let (peer, is_host) = (text("peerId"), frame["role"] == "host");
                let step = self.step;
                if let Some(session) = self.session(c)
                    && session.peer == peer
                {
                    match is_host {
                        true => drop(session.host.get_or_insert(Deed::new(step))),
                        false => session.host = None,
                    }
                }
                if let Some(session) = self.session(c)
                    && let Some(before) = session.view.get_mut(&peer)
                {
                    *before = is_online;
                    if serves {
                        // It was in the other half of the room meanwhile.
                        session.received.remove(&peer);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn view(frame: &Value) -> BTreeMap<String, bool> {
        let peers = frame["peers"].as_array().into_iter().flatten();
        let peer = |peer: &Value| {
            let id = peer["peerId"].as_str().unwrap_or_default().to_owned();
            (id, peer["connection"] == "online")
        };
        peers.map(peer).collect()
    }

    pub(super) fn joined(&mut self, c: usize, frame: &Value) {
        self.totals.joins += 1;
        let Some((asked, Wish::Join(room, is_honest))) = self.clients[c].wish.take() else {
            self.fail(format!("{} did not ask to join", self.clients[c].name));
        };
        self.forget_changes_of(c);
        let view = Self::view(frame);
        let is_host = frame["role"] == "host";
        self.tell(format!(
            "{} ({}) has joined {} as {} with {}",
            self.clients[c].name, frame["peerId"], ROOMS[room], frame["role"], frame["peers"]
        ));
        self.judge_joined(c, room, asked, is_honest, frame, &view);
        let is_next = (self.clients[c].last_peer.as_deref()) == frame["peerId"].as_str();
        let peer = frame["peerId"].as_str().unwrap_or_default().to_owned();
        self.clients[c].last_peer = Some(peer.clone());
        let mut life = Deed::new(self.step);
        life.is_void = self.rooms[room].lost_at >= asked;
        self.clients[c].session = Some(Session {
            peer: peer.clone(),
            token: frame["resumeToken"].as_str().unwrap_or_default().to_owned(),
            room,
            seen: 1,
            gap: false,
            is_attached: true,
            attached_at: self.step,
            lost_at: None,
            life,
            host: is_host.then_some(life),
            is_leaving: false,
            is_next,
            // A kick of its session before may come late, and peers are kicked by their ids.
            kick_asked: is_next && self.kicked.contains(&peer),
            kicked: None,
            expires: frame["expiresAt"].as_u64().unwrap_or_default(),
            sent: 0,
            unanswered: VecDeque::new(),
            received: BTreeMap::new(),
            whispers: BTreeMap::new(),
            view,
        });
    }

    pub(super) fn resumed(&mut self, c: usize, frame: &Value) {
        let Some((asked, wish)) = self.clients[c].wish.take() else {
            self.fail(format!("{} did not ask to resume", self.clients[c].name));
        };
        if matches!(wish, Wish::Haunt) {
            return self.judge_haunting(c, frame);
        }
        self.totals.resumes += 1;
        let has_gap = frame["gap"] == true;
        self.totals.gaps += u64::from(has_gap);
        self.judge_resumed(c, asked, frame);
        let (step, view) = (self.step, Self::view(frame));
        self.tell(format!(
            "{} has resumed{} with {}",
            self.clients[c].name,
            if has_gap { " with a gap" } else { "" },
            frame["peers"]
        ));
        let is_host = frame["role"] == "host";
        let Some(room) = self.clients[c].session.as_ref().map(|session| session.room) else {
            return;
        };
        let lost_at = self.rooms[room].lost_at;
        let Some(session) = self.session(c) else {
            return;
        };
        session.gap = has_gap;
        if has_gap {
            session.received.clear();
            session.whispers.clear();
        }
        session.view = view;
        (session.is_attached, session.attached_at) = (true, step);
        session.lost_at = None;
        session.is_leaving = false;
        session.life = Deed::new(step);
        session.life.is_void = lost_at >= asked;
        if is_host && session.host.is_none() {
            session.host = Some(Deed::new(step));
        } else if !is_host {
            session.host = None;
        }
        for (_, text) in session.unanswered.clone() {
            self.up(c, text);
        }
    }

    pub(super) fn refused(&mut self, c: usize, frame: &Value, id: &str) {
        let code = frame["code"].as_str().unwrap_or_default().to_owned();
        let pause = self.rng.random_range(5..25);
        match id {
            _ if id.starts_with('r') => {
                let wish = self.clients[c].wish.take();
                if code != "resume-failed" {
                    self.fail(format!("a resume is answered with {frame}"));
                }
                if matches!(wish, Some((_, Wish::Haunt))) {
                    self.totals.refused += 1;
                } else {
                    self.judge_lost(c);
                    self.forget_changes_of(c);
                    self.clients[c].session = None;
                }
                self.clients[c].retry_at = self.step + 1;
            }
            // An answer of before it lost its connection.
            _ if id.starts_with('j')
                && !matches!(self.clients[c].wish, Some((_, Wish::Join(..)))) => {}
            _ if id.starts_with('j') => {
                let wish = self.clients[c].wish.take();
                self.judge_refused(c, wish, &code);
                if let Some(session) = self.session(c) {
                    session.is_leaving = false;
                }
                self.clients[c].retry_at = self.step + pause;
            }
            _ if id.starts_with('w') && code == "no-such-peer" => {}
            _ if id.starts_with('k') && code == "no-such-peer" => {}
            _ if id.starts_with(['c', 'k']) && code == "forbidden" => {
                // Another one is host since the room has moved.
                self.forget_changes_of(c);
                self.judge_demoted(c);
            }
            "" if code == "unauthorized" => {}
            _ => self.fail(format!("{}: {frame}", self.clients[c].name)),
        }
    }

    pub(super) fn message(&mut self, c: usize, frame: &Value) {
        self.totals.messages += 1;
        let content = &frame["content"];
        let room = self.room_of(c);
        let from = frame["from"].as_str().unwrap_or_default().to_owned();
        let n = content["n"].as_u64().unwrap_or_default();
        if content["by"] != *from || frame["roomId"] != room {
            self.fail(format!("a message of another peer or room: {frame}"));
        }
        let name = self.clients[c].name.clone();
        let had_halves = |session: &Session| self.rooms[session.room].had_halves(self.step);
        let had_halves = self.clients[c].session.as_ref().is_some_and(had_halves);
        let Some(session) = self.session(c) else {
            return;
        };
        if let Some(to) = content["to"].as_str() {
            let last = session.whispers.insert(from, n).unwrap_or_default();
            if to != session.peer || (last >= n && !had_halves) {
                self.fail(format!(
                    "{name} gets what is not for it, or was before: {frame}"
                ));
            }
            return;
        }
        if let Some(last) = session.received.insert(from, n)
            && n != last + 1
            && !had_halves
        {
            self.fail(format!("{name} gets message {n} after {last}: {frame}"));
        }
    }
}
