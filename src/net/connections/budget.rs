//! What requests hold for a while: bodies that are being read, files that are open.

use crate::network::NetworkCounts;
use std::net::IpAddr;

/// What requests hold for a while, by network and in all.
#[derive(Debug, Default)]
pub(super) struct Budget {
    total: u64,
    networks: NetworkCounts,
}

impl Budget {
    /// Takes an amount within both limits; a client that is not known counts in all only.
    pub(super) fn take(&mut self, client: Option<IpAddr>, amount: u64, limits: (u64, u64)) -> bool {
        let (of_network, in_all) = limits;
        let has_room = self.total.saturating_add(amount) <= in_all
            && client.is_none_or(|client| {
                (self.networks).take_many(client, amount, of_network, in_all / 2)
            });
        self.total += if has_room { amount } else { 0 };
        has_room
    }

    pub(super) fn give_back(&mut self, client: Option<IpAddr>, amount: u64) {
        self.total -= amount;
        if let Some(client) = client {
            self.networks.give_back_many(client, amount);
        }
    }
}
