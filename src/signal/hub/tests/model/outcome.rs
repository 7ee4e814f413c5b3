//! What the model expects of each request.

use super::*;

impl Run {
    /// The type of the reply; what else follows is done and told here.
    pub(super) fn expect(&mut self, c: usize, ask: &Ask) -> &'static str {
        self.outcome(c, ask).unwrap_or("error")
    }

    /// `None`: refused.
    fn outcome(&mut self, c: usize, ask: &Ask) -> Option<&'static str> {
        let has_session = self.clients[c].session.is_some();
        match *ask {
            Ask::Join {
                room,
                password,
                create,
            } => self.join(c, room, password, create),
            Ask::Register => {
                if self.room_of(c).is_some() {
                    return None;
                }
                self.open_session(c, None);
                Some("registered")
            }
            Ask::Plain("ping") => Some("pong"),
            Ask::Plain("rooms") => Some("rooms"),
            _ if !has_session => None,
            Ask::Leave => Some("left"),
            Ask::Plain("ice") => Some("ice-servers"),
            Ask::Plain(_) => self.room_of(c).map(|_| "peers"),
            Ask::Forward { kind, to: None } => {
                let room = self.room_of(c)?;
                if kind == "publish" && self.role_of(c) == Some("viewer") {
                    return None;
                }
                self.tell_room(room, Some(c), kind);
                Some("ack")
            }
            Ask::Forward { kind, to: Some(to) } => {
                let meets = self.clients[to].session.is_some()
                    && to != c
                    && (self.room_of(c).is_some() && self.room_of(c) == self.room_of(to)
                        || self.calls.iter().any(|call| {
                            let pair = (call.caller, call.callee);
                            !call.over && (pair == (c, Some(to)) || pair == (to, Some(c)))
                        }));
                if !meets || kind == "publish" && self.role_of(c) == Some("viewer") {
                    return None;
                }
                self.tell(to, kind);
                Some("ack")
            }
            Ask::State | Ask::Mute { to: None, .. } => self.broadcast_peer_state(c),
            Ask::Mute { to: Some(to), .. } if to == c => self.broadcast_peer_state(c),
            Ask::Mute { to: Some(to), kind } => {
                self.host_over(c, to)?;
                self.tell(to, kind);
                Some("ack")
            }
            Ask::Kick(target) => {
                self.host_over(c, target)?;
                self.end(target);
                self.clients[target].conn = None;
                Some("ack")
            }
            Ask::Room {
                locked,
                password,
                max,
                ..
            } => {
                let room = self
                    .room_of(c)
                    .filter(|_| self.role_of(c) == Some("host"))?;
                let state = &mut self.rooms[room];
                state.locked = locked.unwrap_or(state.locked);
                state.password = password.unwrap_or(state.password);
                state.max = max.or(state.max);
                self.tell_room(room, Some(c), "room-updated");
                Some("room-updated")
            }
            Ask::Grant(target, role) => {
                let room = self
                    .room_of(c)
                    .filter(|_| self.role_of(c) == Some("host"))?;
                let members = &mut self.rooms[room].members;
                let hosts = members.iter().filter(|m| m.1 == "host").count();
                let member = members.iter_mut().find(|m| m.0 == target)?;
                if member.1 == "host" && role != "host" && hosts == 1 {
                    return None;
                }
                member.1 = role;
                self.tell_room(room, None, "peer-state");
                Some("ack")
            }
            Ask::Call(who) => self.call(c, who),
            Ask::Accept(n) => {
                let n = self.ringing_at(c, n)?;
                for device in std::mem::take(&mut self.calls[n].ringing) {
                    if device != c {
                        self.tell(device, "hangup");
                    }
                }
                self.calls[n].callee = Some(c);
                self.tell(self.calls[n].caller, "accept");
                Some("ack")
            }
            Ask::Reject(n) => {
                let n = self.ringing_at(c, n)?;
                self.reject(c, n)
            }
            Ask::Hangup(n) => {
                if let Some(n) = self.ringing_at(c, n) {
                    return self.reject(c, n);
                }
                let n = n.checked_rem(self.calls.len())?;
                let call = &self.calls[n];
                if call.over || !(call.caller == c || call.callee == Some(c)) {
                    return None;
                }
                let others = call
                    .ringing
                    .iter()
                    .copied()
                    .chain([call.caller])
                    .chain(call.callee);
                for other in others.filter(|other| *other != c).collect::<Vec<_>>() {
                    self.tell(other, "hangup");
                }
                self.calls[n].over = true;
                Some("ack")
            }
        }
    }

    fn join(
        &mut self,
        c: usize,
        room: usize,
        password: bool,
        create: bool,
    ) -> Option<&'static str> {
        let state = &self.rooms[room];
        let others = state.members.iter().filter(|m| m.0 != c).count();
        let full = others >= state.max.unwrap_or(50) as usize;
        if others > 0 && (state.password && !password || state.locked || full) {
            return None;
        }
        let left = self.room_of(c);
        let alone = left == Some(room) && others == 0;
        if alone {
            // The room waits for its only member.
            self.rooms[room].members.clear();
            self.clients[c].session.as_mut().unwrap().room = None;
        }
        if left.is_some() {
            self.end(c);
        }
        if self.rooms[room].members.is_empty() && !alone {
            self.rooms[room].password = create;
        }
        let members = &mut self.rooms[room].members;
        let hostless = !members.iter().any(|m| m.1 == "host");
        members.push((c, if hostless { "host" } else { "member" }));
        self.open_session(c, Some(room));
        self.tell_room(room, Some(c), "peer-joined");
        Some("joined")
    }

    fn open_session(&mut self, c: usize, room: Option<usize>) {
        self.clients[c].waiting_since = None;
        self.clients[c].session = Some(Session {
            room,
            token: Value::Null,
            seen: 0,
            away_since: None,
        });
    }

    fn broadcast_peer_state(&mut self, c: usize) -> Option<&'static str> {
        if let Some(room) = self.room_of(c) {
            self.tell_room(room, Some(c), "peer-state");
        }
        Some("ack")
    }

    fn host_over(&self, c: usize, target: usize) -> Option<()> {
        let room = self.room_of(c)?;
        let may = self.role_of(c) == Some("host") && target != c;
        (may && self.room_of(target) == Some(room)).then_some(())
    }

    fn call(&mut self, c: usize, who: usize) -> Option<&'static str> {
        let alive = || self.calls.iter().filter(|call| !call.over);
        let answered = alive()
            .filter(|call| (call.caller == c && call.callee.is_some()) || call.callee == Some(c));
        let placing = alive().filter(|call| call.caller == c && call.callee.is_none());
        let busy = answered.count() >= 16 || placing.count() >= 16;
        // All are of one network.
        let full = |d: usize| {
            let at_device = alive().filter(|call| call.ringing.contains(&d));
            at_device.clone().filter(|call| call.caller == c).count() >= 2
                || at_device.count() >= 32
        };
        let rings =
            |d: &usize| d % 3 == who && *d != c && self.clients[*d].session.is_some() && !full(*d);
        let ringing: Vec<_> = (0..CLIENTS).filter(rings).collect();
        if busy || ringing.is_empty() {
            return None;
        }
        for device in ringing.clone() {
            self.tell(device, "call");
        }
        let (id, since) = (Value::Null, self.clock);
        self.calls.push(Call {
            id,
            caller: c,
            ringing,
            callee: None,
            since,
            over: false,
        });
        Some("calling")
    }

    fn ringing_at(&self, c: usize, n: usize) -> Option<usize> {
        let n = n.checked_rem(self.calls.len())?;
        (!self.calls[n].over && self.calls[n].ringing.contains(&c)).then_some(n)
    }

    fn reject(&mut self, c: usize, n: usize) -> Option<&'static str> {
        self.calls[n].ringing.retain(|device| *device != c);
        if self.calls[n].ringing.is_empty() {
            self.calls[n].over = true;
            self.tell(self.calls[n].caller, "reject");
        }
        Some("ack")
    }
}
