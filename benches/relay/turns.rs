//! Servers side by side under one workload: all are started, then each has the generator for a
//! moment, in turn. A machine's mood lasts longer than a turn, and so is in every server's figure.

use super::control;
use super::fleet::Fleet;
use super::flow::{Peer, Run};
use super::kind::Kind;
use super::load::{Flow, Load};
use super::place::Place;
use super::results::Sample;
use super::servers::{Launcher, Server};
use super::workload::{Task, Workload};
use anyhow::Result;
use std::time::Duration;

const TURN: Duration = Duration::from_millis(150);

/// Clients of one server beyond which its fleet is alone: with five such fleets, open files run out.
const CROWD: usize = 2_000;

/// What a round measures, and how.
pub(crate) struct Round<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) place: &'a Place,
    pub(crate) workload: &'a Workload,
    /// The time that each server is measured.
    pub(crate) length: Duration,
}

impl Round<'_> {
    /// Starts every server of `kinds` afresh and measures it.
    pub(crate) fn measure(&self, kinds: &[Kind]) -> Vec<(Kind, Result<Sample>)> {
        let together = match &self.workload.task {
            Task::Relay(load) if load.clients > CROWD => 1,
            Task::Relay(_) | Task::Binding => kinds.len().max(1),
            _ => return kinds.iter().map(|&kind| (kind, self.alone(kind))).collect(),
        };
        let groups = kinds.chunks(together);
        groups.flat_map(|kinds| self.in_turn(kinds)).collect()
    }

    fn in_turn(&self, kinds: &[Kind]) -> Vec<(Kind, Result<Sample>)> {
        let start = |kind| -> Result<(Server, Work)> {
            let server = self.launcher.start(kind, self.place)?;
            let work = Work::prepare(&server, kind, self.place, &self.workload.task)?;
            Ok((server, work))
        };
        let mut contenders: Vec<_> = kinds.iter().map(|&k| (k, start(k), vec![])).collect();
        for _ in 0..self.length.div_duration_f64(TURN).ceil() as usize {
            for (_, contender, turns) in &mut contenders {
                let turn = match contender {
                    Ok((server, work)) => work.turn(server, TURN),
                    Err(_) => continue,
                };
                match turn {
                    Ok(cost) => turns.push(cost),
                    Err(error) => *contender = Err(error),
                }
            }
        }
        contenders
            .into_iter()
            .map(|(kind, contender, turns)| (kind, contender.and_then(|(_, w)| w.sample(turns))))
            .collect()
    }

    /// What has no turns: memory, and allocations, which want fresh ports.
    fn alone(&self, kind: Kind) -> Result<Sample> {
        let server = self.launcher.start(kind, self.place)?;
        let peer = Peer::bind(self.place.peer, false)?;
        let cost = match self.workload.task {
            Task::IdleMemory => control::idle_memory(&server, &peer)?,
            Task::HalfOpen(transport) => control::half_open(&server, transport)?,
            _ => control::allocation(&server, &peer, self.length)?,
        };
        Ok(Sample::of(cost, vec![Some(cost)]))
    }
}

enum Work {
    Relay(Box<Run>),
    Binding(Fleet),
}

impl Work {
    fn prepare(server: &Server, kind: Kind, place: &Place, task: &Task) -> Result<Self> {
        match task {
            Task::Relay(load) => Ok(Self::Relay(Box::new(run(server, kind, place, *load)?))),
            _ => Ok(Self::Binding(control::binders(server)?)),
        }
    }

    fn turn(&mut self, server: &Server, length: Duration) -> Result<Option<f64>> {
        match self {
            Self::Relay(run) => run.turn(&server.process, length),
            Self::Binding(fleet) => control::binding(server, fleet, length).map(Some),
        }
    }

    fn sample(self, turns: Vec<Option<f64>>) -> Result<Sample> {
        match self {
            Self::Relay(run) => Ok(Sample::relayed(run.outcome()?, turns)),
            Self::Binding(_) => {
                let costs = turns.iter().flatten();
                let mean = costs.clone().sum::<f64>() / costs.count() as f64;
                Ok(Sample::of(mean, turns))
            }
        }
    }
}

fn run(server: &Server, kind: Kind, place: &Place, load: Load) -> Result<Run> {
    let framing = kind.framing(load.indications);
    let peer = Peer::bind(place.peer, load.offload)?;
    let mut fleet = Fleet::connect(&server.target, load.transport, load.clients, load.offload)?;
    fleet.allocate(framing, &server.target.credential)?;
    let relayed = fleet.relayed.clone();
    fleet.open(framing, |client| match load.flow {
        Flow::Pair => relayed[client ^ 1],
        _ => peer.address,
    })?;
    Run::new(load, framing, fleet, peer)
}
