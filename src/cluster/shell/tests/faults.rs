//! What goes wrong.

use super::super::super::node::Input;
use super::redis::Store;
use super::world::{Kind, NODES, World};
use super::*;
use rand::RngExt;

impl World {
    pub(super) fn fault(&mut self) {
        let index = self.rng.random_range(0..NODES);
        if self.kind == Kind::Deploy {
            let all_serve = (0..NODES).all(|i| self.is_serving(i) && self.boxes[i].joined);
            let none_leaves = self.boxes.iter().all(|of| of.leaving.is_none());
            if all_serve && none_leaves && self.rng.random_ratio(1, 60) {
                self.drain(index);
            }
            return;
        }
        if self.step < self.unsettled_until || !self.is_up(index) {
            return;
        }
        let dice = self.rng.random_range(0..300);
        self.totals.faults += u64::from(dice < 10);
        match dice {
            0 | 1 => {
                self.tell(format!("node {index} is killed"));
                self.home_is_lost(index);
                self.end(index, 60);
            }
            2 => self.freeze(index, 20, 70),
            3 => self.freeze(index, 110, 200),
            4 => self.cut(index, 5, 60),
            5 => self.cut(index, 90, 170),
            6 => {
                let away = self.rng.random_range(1..50);
                self.tell(format!(
                    "Redis restarts with its data, away for {away} steps"
                ));
                self.redis_is_away(away);
            }
            7 => {
                let frozen = self.rng.random_range(10..150);
                self.tell(format!("Redis stands still for {frozen} steps"));
                self.redis_frozen_until = self.step + frozen;
                if frozen > 70 {
                    self.deafen_all(frozen);
                }
            }
            8 => self.forget(),
            9 if self.is_serving(index) && self.boxes[index].joined => self.drain(index),
            _ => {}
        }
    }

    fn freeze(&mut self, index: usize, from: u64, to: u64) {
        let frozen = self.rng.random_range(from..to);
        self.tell(format!("node {index} is frozen for {frozen} steps"));
        self.boxes[index].frozen_until = self.step + frozen;
    }

    fn cut(&mut self, index: usize, from: u64, to: u64) {
        let cut = self.rng.random_range(from..to);
        self.tell(format!("node {index} is cut from Redis for {cut} steps"));
        let (step, of) = (self.step, &mut self.boxes[index]);
        of.cut_until = step + cut;
        of.deafen(step, step + 5);
    }

    fn drain(&mut self, index: usize) {
        if self.boxes[index].leaving.is_some() {
            return;
        }
        self.tell(format!("node {index} leaves"));
        let (step, of) = (self.step, &mut self.boxes[index]);
        of.leaving = Some(step);
        of.driver.admit_nobody();
        of.input(step, Input::GiveUp, &self.earlier[index]);
    }

    fn redis_is_away(&mut self, away: u64) {
        self.redis_away_until = self.step + away;
        self.deafen_all(5);
    }

    fn deafen_all(&mut self, again: u64) {
        for of in &mut self.boxes {
            of.deafen(self.step, self.step + again);
        }
    }

    /// Redis forgets everything, or what came last.
    fn forget(&mut self) {
        let all_serve = (0..NODES).all(|index| {
            self.is_serving(index)
                && self.boxes[index].joined
                && self.boxes[index].cut_until <= self.step
                && self.boxes[index].leaving.is_none()
        });
        if !all_serve || self.redis_away_until > self.step || self.redis_frozen_until > self.step {
            return;
        }
        match self.rng.random_range(0..3) {
            0 => {
                self.tell("Redis fails over to a replica that lacks the last second");
                self.conflicts_until = self.step + 2 * steps(LEASE);
                self.store = self.replica.clone();
            }
            1 => {
                self.tell("Redis forgets everything");
                self.store = Store::new(self.plant);
            }
            _ => {
                let index = self.rng.random_range(0..NODES);
                self.tell(format!(
                    "Redis forgets everything, and node {index} is killed"
                ));
                self.store = Store::new(self.plant);
                self.home_is_lost_for_good(index);
                self.end(index, 20);
            }
        }
        // A room without a home is gone with its record.
        for room in 0..ROOMS.len() {
            if !self.is_anywhere(room) {
                self.lose(room, true);
            }
        }
        // What waited in the buffers of the server that is gone is gone with it.
        self.orphans.clear();
        for of in &mut self.boxes {
            of.calls.retain(|call| !call.given_up);
        }
        self.unsettled_until = self.step + 2 * steps(LEASE);
        self.nothing_is_certain();
        let away = self.rng.random_range(1..20);
        self.redis_is_away(away);
    }

    /// The faults end.
    pub(super) fn quiet(&mut self) {
        self.tell("no more faults");
        self.is_quiet = true;
        self.redis_away_until = self.redis_away_until.min(self.step);
        self.redis_frozen_until = self.redis_frozen_until.min(self.step);
        for of in &mut self.boxes {
            of.frozen_until = of.frozen_until.min(self.step);
            of.cut_until = of.cut_until.min(self.step);
        }
    }
}
