//! The relayed addresses of one family: their ports, who owns each, and on which address they
//! live, which may change while allocations on an earlier one go on.

use super::ports::{Pool, PoolSnapshot};
use super::relayed_index::RelayedAddressIndex;
use super::{RelayAddress, lock};
use rand::rngs::StdRng;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Earlier addresses under which relays of the box still find each other. One more forgets the
/// oldest: its allocations are then reached by others through the network only.
const FORMER: usize = 8;

#[derive(Debug)]
pub(super) struct FamilyPool {
    /// The current one first, then the former ones, latest first.
    addresses: Mutex<Vec<RelayAddress>>,
    /// The same for packets.
    homes: Homes,
    pub(super) pool: Mutex<Pool>,
    pub(super) relayed_index: RelayedAddressIndex,
}

impl FamilyPool {
    pub(super) fn new(address: RelayAddress, ports: &RangeInclusive<u16>, rng: StdRng) -> Self {
        let homes = Homes::default();
        homes.write(&[address]);
        Self {
            addresses: Mutex::new(vec![address]),
            homes,
            pool: Mutex::new(Pool::new(ports.clone(), rng)),
            relayed_index: RelayedAddressIndex::new(ports),
        }
    }

    /// The pool that a snapshot describes, and the ports that were lent. There is an address.
    pub(super) fn restore(
        mut addresses: Vec<RelayAddress>,
        ports: &RangeInclusive<u16>,
        pool: PoolSnapshot,
        rng: StdRng,
        taken: Instant,
    ) -> (Self, Vec<u16>) {
        addresses.truncate(FORMER + 1);
        let homes = Homes::default();
        homes.write(&addresses);
        let (pool, lent) = Pool::restore(ports.clone(), pool, rng, taken);
        let family_pool = Self {
            addresses: Mutex::new(addresses),
            homes,
            pool: Mutex::new(pool),
            relayed_index: RelayedAddressIndex::new(ports),
        };
        (family_pool, lent)
    }

    /// Every address on which relays live, or have, the current one first.
    pub(super) fn relay_addresses(&self) -> Vec<RelayAddress> {
        lock(&self.addresses).clone()
    }

    /// Where new relays live.
    pub(super) fn address(&self) -> RelayAddress {
        lock(&self.addresses)[0]
    }

    /// Has new relays live on `address`; those there are stay where they are.
    pub(super) fn move_to(&self, address: RelayAddress) {
        let mut addresses = lock(&self.addresses);
        addresses.retain(|known| *known != address);
        addresses.insert(0, address);
        addresses.truncate(FORMER + 1);
        self.homes.write(&addresses);
    }

    /// Whether relays live on `ip`, or have. Lock-free: this is asked for packets.
    pub(super) fn are_on(&self, ip: IpAddr) -> bool {
        self.homes.contains(ip)
    }

    /// Every address on which relays live, or have.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let addresses = lock(&self.addresses);
        let both = addresses.iter().flat_map(|a| [a.announced, a.bind]);
        both.collect()
    }

    pub(super) fn held_ports(&self) -> usize {
        lock(&self.pool).held()
    }

    pub(super) fn free_ports(&self) -> usize {
        lock(&self.pool).available()
    }
}

/// Addresses as plain words. Who reads them while they are written may miss one, and drops a
/// packet in the moment in which the box moves.
#[derive(Debug, Default)]
struct Homes {
    words: [[AtomicU64; 2]; 2 * (FORMER + 1)],
    count: AtomicUsize,
}

impl Homes {
    fn write(&self, addresses: &[RelayAddress]) {
        let both = addresses.iter().flat_map(|a| [a.announced, a.bind]);
        for (words, ip) in self.words.iter().zip(both) {
            for (word, half) in words.iter().zip(halves(ip)) {
                word.store(half, Ordering::Relaxed);
            }
        }
        self.count.store(2 * addresses.len(), Ordering::Release);
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let wanted = halves(ip);
        let count = self.count.load(Ordering::Acquire);
        let mut homes = self.words[..count].iter();
        homes.any(|words| words.each_ref().map(|word| word.load(Ordering::Relaxed)) == wanted)
    }
}

/// IPv4 addresses and IPv6 ones never meet here: a family has homes of its own.
fn halves(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [0, u32::from(ip).into()],
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            [(bits >> 64) as u64, bits as u64]
        }
    }
}
