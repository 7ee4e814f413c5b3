//! How many allocations there are: per user, per client address, in all.

use super::{SharedState, lock};
use crate::engine::{DenyReason, Quotas};
use crate::network::NetworkCounts;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// The counts; a user or address without allocations has no entry.
#[derive(Debug, Default)]
pub(super) struct QuotaCounts {
    users: HashMap<Arc<str>, User>,
    ips: NetworkCounts,
    total: u32,
}

#[derive(Debug, Default)]
struct User {
    allocations: u32,
    /// The highest expiry of the credentials that they were made with, Unix seconds.
    expiry: u64,
}

impl QuotaCounts {
    /// 0 for a user without allocations.
    pub(super) fn highest_expiry(&self, user: &str) -> u64 {
        self.users.get(user).map_or(0, |user| user.expiry)
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.ips.is_empty() && self.total == 0
    }

    fn count(&mut self, user: &Arc<str>, expiry: u64, ip: IpAddr) {
        // Its caller has judged the quota.
        self.ips.add(ip, 1);
        let entry = self.users.entry(Arc::clone(user)).or_default();
        entry.allocations += 1;
        entry.expiry = entry.expiry.max(expiry);
        self.total += 1;
    }

    fn check(&self, user: &str, ip: IpAddr, quotas: Quotas) -> Result<(), DenyReason> {
        if self
            .users
            .get(user)
            .is_some_and(|u| u.allocations >= quotas.user)
            || quotas.user == 0
        {
            Err(DenyReason::UserQuota)
        } else if self.ips.is_full(ip, quotas.ip, quotas.total) {
            Err(DenyReason::IpQuota)
        } else if self.total >= quotas.total {
            Err(DenyReason::TotalQuota)
        } else {
            Ok(())
        }
    }
}

/// One allocation within the quotas. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct QuotaLease {
    shared: Arc<SharedState>,
    user: Arc<str>,
    ip: IpAddr,
}

impl QuotaLease {
    pub(super) fn take(
        shared: &Arc<SharedState>,
        user: &Arc<str>,
        expiry: u64,
        ip: IpAddr,
        quotas: Quotas,
    ) -> Result<Self, DenyReason> {
        let mut counts = lock(&shared.quotas);
        counts.check(user, ip, quotas)?;
        counts.count(user, expiry, ip);
        drop(counts);
        Ok(Self::of(shared, user, ip))
    }

    /// As [`take`](Self::take), of an allocation that lives already.
    pub(super) fn retake(
        shared: &Arc<SharedState>,
        user: &Arc<str>,
        expiry: u64,
        ip: IpAddr,
    ) -> Self {
        lock(&shared.quotas).count(user, expiry, ip);
        Self::of(shared, user, ip)
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    fn of(shared: &Arc<SharedState>, user: &Arc<str>, ip: IpAddr) -> Self {
        Self {
            shared: Arc::clone(shared),
            user: Arc::clone(user),
            ip,
        }
    }
}

impl Drop for QuotaLease {
    fn drop(&mut self) {
        let mut counts = lock(&self.shared.quotas);
        give_back(counts.users.entry(Arc::clone(&self.user)), |user| {
            &mut user.allocations
        });
        counts.ips.give_back(self.ip);
        counts.total -= 1;
    }
}

fn give_back<K: Eq + Hash, V>(entry: Entry<'_, K, V>, count: impl Fn(&mut V) -> &mut u32) {
    if let Entry::Occupied(mut entry) = entry {
        let left = count(entry.get_mut());
        *left -= 1;
        if *left == 0 {
            entry.remove();
        }
    }
}
