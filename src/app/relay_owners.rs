//! Whose relays there are: room and name of each peer that has some, kept until its last one has ended.
//!
//! Most relays end because their peer has left, and then the hub does not know the peer any more. The hub is asked
//! by a task, never on a worker's thread.

use crate::protocol::PeerId;
use crate::relay::engine::{AllocationView, FiveTuple};
use crate::signal::Driver;
use crate::signal::hub::PeerInfo;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The peers that have relays. There are as many entries as allocations at most.
#[derive(Default)]
pub(super) struct RelayOwners {
    table: Mutex<Table>,
    /// Somebody is unknown.
    wake: Notify,
}

#[derive(Default)]
struct Table {
    owners: HashMap<Arc<str>, Owner>,
    /// Whom the hub is to be asked for.
    unknown: Vec<Arc<str>>,
}

#[derive(Default)]
struct Owner {
    relays: Vec<FiveTuple>,
    who: Option<PeerInfo>,
}

impl RelayOwners {
    /// A relay of `user` began.
    pub(super) fn opened(&self, user: &Arc<str>, five_tuple: FiveTuple) {
        if PeerId::parse(user).is_none() {
            return;
        }
        let mut table = self.table();
        let owner = table.owners.entry(Arc::clone(user)).or_default();
        owner.relays.push(five_tuple);
        if owner.who.is_none() {
            table.unknown.push(Arc::clone(user));
            drop(table);
            self.wake.notify_one();
        }
    }

    /// A relay of `user` has ended; returns who that is, where it is known.
    pub(super) fn closed(&self, user: &str, five_tuple: &FiveTuple) -> Option<PeerInfo> {
        let mut table = self.table();
        let owner = table.owners.get_mut(user)?;
        owner.relays.retain(|relay| relay != five_tuple);
        match owner.relays.is_empty() {
            true => table.owners.remove(user)?.who,
            false => owner.who.clone(),
        }
    }

    /// A peer has entered a room, with relays or without.
    pub(super) fn joined(&self, peer: PeerId, room: &str, identity: &str) {
        let mut table = self.table();
        if table.owners.is_empty() {
            return;
        }
        if let Some(owner) = table.owners.get_mut(peer.to_string().as_str()) {
            owner.who = Some(PeerInfo {
                identity: identity.to_owned(),
                room_id: Some(room.to_owned()),
            });
        }
    }

    /// Takes over the relays that an earlier process has handed over; `living` lists what there is.
    pub(super) async fn adopt<F>(self: Arc<Self>, living: impl Fn() -> F)
    where
        F: Future<Output = Vec<AllocationView>>,
    {
        let before = living().await;
        for relay in &before {
            self.opened(&relay.user, relay.five_tuple);
        }
        // One that ended before it was taken over is reported no more.
        let after: HashSet<_> = living()
            .await
            .iter()
            .map(|relay| relay.five_tuple)
            .collect();
        let gone = before
            .iter()
            .filter(|relay| !after.contains(&relay.five_tuple));
        gone.for_each(|relay| {
            self.closed(&relay.user, &relay.five_tuple);
        });
    }

    /// Asks the hub who it is, until the task is ended.
    pub(super) async fn follow(self: Arc<Self>, driver: Arc<Driver>) {
        loop {
            self.wake.notified().await;
            let unknown = std::mem::take(&mut self.table().unknown);
            for user in unknown {
                let who = driver.with_hub(|hub, _, _| hub.peer(&user));
                self.found(&user, who);
            }
        }
    }

    fn found(&self, user: &str, who: Option<PeerInfo>) {
        if let Some(owner) = self.table().owners.get_mut(user) {
            // A join that came meanwhile is newer.
            owner.who = owner.who.take().or(who);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::engine::{Flow, Transport};
    use std::time::Duration;

    fn relay(port: u16) -> FiveTuple {
        FiveTuple {
            transport: Transport::Udp,
            client: ([192, 0, 2, 1], port).into(),
            server: ([192, 0, 2, 2], 3478).into(),
        }
    }

    fn ann(room: Option<&str>) -> PeerInfo {
        PeerInfo {
            identity: "ann".to_owned(),
            room_id: room.map(str::to_owned),
        }
    }

    #[test]
    fn a_peer_is_known_until_its_last_relay_has_ended() {
        let owners = RelayOwners::default();
        let peer = PeerId::from_bits(7);
        let user: Arc<str> = peer.to_string().into();
        owners.opened(&user, relay(1));
        owners.opened(&user, relay(2));
        assert_eq!(
            owners.closed(&user, &relay(1)),
            None,
            "nobody has been asked"
        );
        owners.found(&user, Some(ann(None)));
        owners.opened(&user, relay(3));
        owners.joined(peer, "r", "ann");
        owners.found(&user, Some(ann(None)));
        assert_eq!(owners.closed(&user, &relay(2)), Some(ann(Some("r"))));
        assert_eq!(owners.closed(&user, &relay(3)), Some(ann(Some("r"))));
        assert!(owners.table().owners.is_empty());
        owners.found(&user, Some(ann(None)));
        owners.joined(peer, "r", "ann");
        assert_eq!(owners.closed(&user, &relay(3)), None);
        owners.opened(&"cam".into(), relay(4));
        assert!(owners.table().owners.is_empty(), "its user says it all");
    }

    fn view(user: &Arc<str>, five_tuple: FiveTuple) -> AllocationView {
        AllocationView {
            user: Arc::clone(user),
            secret: None,
            five_tuple,
            relayed: vec![],
            sent: Flow::default(),
            received: Flow::default(),
            age: Duration::ZERO,
            expires_in: Duration::ZERO,
            permissions: 0,
            channels: 0,
        }
    }

    #[tokio::test]
    async fn relays_that_were_handed_over_are_known_but_for_those_that_end_meanwhile() {
        let owners = Arc::new(RelayOwners::default());
        let user: Arc<str> = PeerId::from_bits(7).to_string().into();
        let looks = Mutex::new(vec![vec![1, 3], vec![1, 2]]);
        let living = || {
            let ports = looks.lock().unwrap().pop().unwrap();
            let relays = ports.into_iter().map(|port| view(&user, relay(port)));
            std::future::ready(relays.collect())
        };
        Arc::clone(&owners).adopt(living).await;
        owners.found(&user, Some(ann(Some("r"))));
        assert_eq!(
            owners.table().unknown,
            [Arc::clone(&user), Arc::clone(&user)]
        );
        assert_eq!(owners.closed(&user, &relay(1)), Some(ann(Some("r"))));
        assert!(owners.table().owners.is_empty(), "2 has ended before");
    }
}
