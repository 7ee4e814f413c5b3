//! Names that one connection has at a time, in each dialect.
//!
//! A second client that wants a taken name cannot know whether its holder is still there: a lost
//! network leaves a socket that looks open. So a claim with another proof becomes a contest: the
//! holder is asked for a sign of life, and the newcomer waits for it.

use super::interface::ConnId;
use crate::protocol::DialectKind;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A name and the dialect that it belongs to.
pub(super) type Name = (DialectKind, Arc<str>);

/// Who has which name; no more entries than connections.
#[derive(Debug, Default)]
pub(super) struct Registry {
    names: HashMap<Name, Holder>,
}

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) conn: ConnId,
    pub(super) proof: u128,
    pub(super) contest: Option<Contest>,
}

/// A newcomer that waits for the holder's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) newcomer: ConnId,
    pub(super) proof: u128,
    pub(super) until: Instant,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The name was free, or the connection's own.
    New,
    /// The name was this connection's, which proved the same.
    TakenOver(ConnId),
    /// This connection has it and is to be asked for a sign of life.
    Contested(ConnId),
    /// Another newcomer waits for it already.
    Taken,
}

impl Registry {
    pub(super) fn claim(
        &mut self,
        name: &Name,
        conn: ConnId,
        proof: u128,
        contest_until: Instant,
    ) -> Claim {
        let Some(holder) = self.names.get_mut(name) else {
            let contest = None;
            let holder = Holder {
                conn,
                proof,
                contest,
            };
            self.names.insert(name.clone(), holder);
            return Claim::New;
        };
        if holder.conn == conn {
            return Claim::New;
        }
        if holder.proof == proof {
            return Claim::TakenOver(std::mem::replace(&mut holder.conn, conn));
        }
        if holder.contest.is_some() {
            return Claim::Taken;
        }
        holder.contest = Some(Contest {
            newcomer: conn,
            proof,
            until: contest_until,
        });
        Claim::Contested(holder.conn)
    }

    /// Which connection has the name.
    pub(super) fn holder(&self, name: &Name) -> Option<ConnId> {
        self.names.get(name).map(|holder| holder.conn)
    }

    /// Ends the contest for a name, as its holder gave a sign of life.
    pub(super) fn defend(&mut self, name: &Name, conn: ConnId) -> Option<Contest> {
        let holder = self.names.get_mut(name)?;
        holder.contest.take_if(|_| holder.conn == conn)
    }

    /// Ends the contest for a name, as its holder gave none; the newcomer has it now.
    pub(super) fn surrender(&mut self, name: &Name) -> Option<(ConnId, Contest)> {
        let holder = self.names.get_mut(name)?;
        let contest = holder.contest.take()?;
        let old = std::mem::replace(&mut holder.conn, contest.newcomer);
        holder.proof = contest.proof;
        Some((old, contest))
    }

    /// Frees a name if that connection has it. Where a newcomer waits, it has the name now.
    pub(super) fn release(&mut self, name: &Name, conn: ConnId) -> Option<Contest> {
        if self.holder(name) != Some(conn) {
            return None;
        }
        let (_, contest) = self.surrender(name).unzip();
        if contest.is_none() {
            self.names.remove(name);
        }
        contest
    }

    /// A newcomer gives up.
    pub(super) fn withdraw(&mut self, name: &Name, newcomer: ConnId) -> Option<Contest> {
        let contest = &mut self.names.get_mut(name)?.contest;
        contest.take_if(|contest| contest.newcomer == newcomer)
    }

    /// Every name with who has it.
    pub(super) fn holders(&self) -> impl Iterator<Item = (&Name, &Holder)> {
        self.names.iter()
    }

    /// Enters a name as it was; returns whether it was free.
    pub(super) fn insert(&mut self, name: Name, holder: Holder) -> bool {
        self.names.insert(name, holder).is_none()
    }

    /// How many names are taken.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_name_has_one_holder_and_one_contest() {
        let mut names = Registry::default();
        let until = Instant::now() + Duration::from_secs(5);
        let name: Name = (DialectKind::PeerJs, "ann".into());
        let claim =
            |names: &mut Registry, conn, proof| names.claim(&name, ConnId(conn), proof, until);
        assert_eq!(claim(&mut names, 1, 10), Claim::New);
        assert_eq!(claim(&mut names, 1, 10), Claim::New);
        assert_eq!(claim(&mut names, 2, 10), Claim::TakenOver(ConnId(1)));
        assert_eq!(names.release(&name, ConnId(1)), None, "no longer its own");
        assert_eq!(names.holder(&name), Some(ConnId(2)));
        // A stranger waits, a second one does not.
        assert_eq!(claim(&mut names, 3, 30), Claim::Contested(ConnId(2)));
        assert_eq!(claim(&mut names, 4, 40), Claim::Taken);
        assert_eq!(names.defend(&name, ConnId(1)), None, "not the holder");
        let contest = names.defend(&name, ConnId(2)).unwrap();
        assert_eq!((contest.newcomer, contest.until), (ConnId(3), until));
        // It comes again, and the holder is silent.
        assert_eq!(claim(&mut names, 3, 30), Claim::Contested(ConnId(2)));
        assert_eq!(names.surrender(&name).unwrap().0, ConnId(2));
        assert_eq!(names.holder(&name), Some(ConnId(3)));
        assert_eq!(claim(&mut names, 2, 30), Claim::TakenOver(ConnId(3)));
        // The holder goes while a newcomer waits; then nobody is left.
        assert_eq!(claim(&mut names, 5, 50), Claim::Contested(ConnId(2)));
        let contest = names.release(&name, ConnId(2)).unwrap();
        assert_eq!(contest.newcomer, ConnId(5));
        assert_eq!(claim(&mut names, 6, 60), Claim::Contested(ConnId(5)));
        assert!(names.withdraw(&name, ConnId(5)).is_none());
        assert!(names.withdraw(&name, ConnId(6)).is_some());
        assert_eq!(names.release(&name, ConnId(5)), None);
        assert_eq!(names.len(), 0);
    }
}
