//! How many allocations there are: per user, per client address, in all.

use super::{Ledger, lock};
use crate::relay::engine::{Quotas, Refusal, client_block};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// The counts; a user or address without allocations has no entry.
#[derive(Debug, Default)]
pub(super) struct Books {
    users: HashMap<Arc<str>, u32>,
    ips: HashMap<IpAddr, u32>,
    total: u32,
}

impl Books {
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.ips.is_empty() && self.total == 0
    }

    fn check(&self, user: &str, block: IpAddr, quotas: Quotas) -> Result<(), Refusal> {
        if self.users.get(user).is_some_and(|&n| n >= quotas.user) || quotas.user == 0 {
            Err(Refusal::UserQuota)
        } else if self.ips.get(&block).is_some_and(|&n| n >= quotas.ip) || quotas.ip == 0 {
            Err(Refusal::IpQuota)
        } else if self.total >= quotas.total {
            Err(Refusal::TotalQuota)
        } else {
            Ok(())
        }
    }
}

/// One allocation within the quotas. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::relay) struct QuotaLease {
    ledger: Arc<Ledger>,
    user: Arc<str>,
    block: IpAddr,
}

impl QuotaLease {
    pub(super) fn take(
        ledger: &Arc<Ledger>,
        user: &Arc<str>,
        ip: IpAddr,
        quotas: Quotas,
    ) -> Result<Self, Refusal> {
        let block = client_block(ip);
        let mut books = lock(&ledger.quotas);
        books.check(user, block, quotas)?;
        *books.users.entry(Arc::clone(user)).or_default() += 1;
        *books.ips.entry(block).or_default() += 1;
        books.total += 1;
        drop(books);
        Ok(Self {
            ledger: Arc::clone(ledger),
            user: Arc::clone(user),
            block,
        })
    }
}

impl Drop for QuotaLease {
    fn drop(&mut self) {
        let mut books = lock(&self.ledger.quotas);
        give_back(books.users.entry(Arc::clone(&self.user)));
        give_back(books.ips.entry(self.block));
        books.total -= 1;
    }
}

fn give_back<K: Eq + Hash>(entry: Entry<'_, K, u32>) {
    if let Entry::Occupied(mut entry) = entry {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
