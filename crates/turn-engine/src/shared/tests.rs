use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const PORTS: RangeInclusive<u16> = 50_000..=50_099;

fn shared(ports: RangeInclusive<u16>, seed: u8) -> (Arc<SharedState>, Instant) {
    let now = Instant::now();
    let ip = "192.0.2.10".parse().unwrap();
    (
        SharedState::new(
            vec![RelayAddress {
                bind: ip,
                announced: ip,
            }],
            ports,
            [seed; 32],
            now,
        ),
        now,
    )
}

fn port(shared: &Arc<SharedState>, now: Instant) -> Option<PortLease> {
    Some(shared.lease_port(Family::V4, Parity::Any, now)?.0)
}

#[test]
fn every_port_is_lent_once_in_an_order_that_the_seed_decides() {
    let order = |seed| {
        let (shared, now) = shared(PORTS, seed);
        let leases: Vec<_> = std::iter::from_fn(|| port(&shared, now)).collect();
        assert_eq!(
            leases.iter().map(|l| l.port()).collect::<BTreeSet<_>>(),
            PORTS.collect()
        );
        leases.iter().map(|l| l.port()).collect::<Vec<_>>()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let sequential = order(1).windows(2).filter(|w| w[1] == w[0] + 1).count();
    assert!(
        sequential < 10,
        "{sequential} of 99 follow their predecessor"
    );
}

#[test]
fn a_released_port_is_in_quarantine_for_thirty_seconds_unless_the_range_runs_out() {
    let (shared, start) = shared(50_000..=50_002, 1);
    let at = |seconds| start + Duration::from_secs(seconds);
    let held = port(&shared, start).unwrap();
    let released = port(&shared, start).unwrap();
    let number = released.port();
    shared.observe(at(10));
    drop(released);
    let other = port(&shared, at(39)).unwrap();
    assert_ne!(other.port(), number);
    assert_eq!(shared.free_ports(), 1);
    // It is the only one left.
    let early = port(&shared, at(39)).unwrap();
    assert_eq!(early.port(), number);
    assert!(port(&shared, at(39)).is_none());
    drop((held, early, other));
    assert_eq!(shared.free_ports(), 3);
}

#[test]
fn of_two_resting_ports_the_older_goes_first() {
    let (shared, start) = shared(50_000..=50_001, 1);
    let (a, b) = (port(&shared, start).unwrap(), port(&shared, start).unwrap());
    let numbers = (a.port(), b.port());
    shared.observe(start + Duration::from_secs(1));
    drop(b);
    shared.observe(start + Duration::from_secs(2));
    drop(a);
    let now = start + Duration::from_secs(3);
    let again = (port(&shared, now).unwrap(), port(&shared, now).unwrap());
    assert_eq!((again.1.port(), again.0.port()), numbers);
}

#[test]
fn pairs_are_found_as_long_as_there_is_one() {
    let (shared, now) = shared(PORTS, 3);
    let mut leases = Vec::new();
    while let Some((even, Some(odd))) = shared.lease_port(Family::V4, Parity::EvenPair, now) {
        assert_eq!((even.port() % 2, odd.port()), (0, even.port() + 1));
        leases.push((even, odd));
    }
    assert_eq!(leases.len(), 50);
    // The last even port without its neighbour is not a pair.
    let (even, odd) = leases.pop().unwrap();
    drop(even);
    assert!(
        shared
            .lease_port(Family::V4, Parity::EvenPair, now)
            .is_none()
    );
    assert!(shared.lease_port(Family::V4, Parity::Even, now).is_some());
    drop(odd);
}

#[test]
fn the_directory_knows_a_port_while_its_lease_lives() {
    let (shared, now) = shared(PORTS, 1);
    let lease = port(&shared, now).unwrap();
    let at = |port| SocketAddr::new("192.0.2.10".parse().unwrap(), port);
    assert_eq!(shared.find(at(lease.port())), None);
    let index = (1 << RelayedKey::INDEX_BITS) - 1;
    let key = RelayedKey {
        index,
        generation: u32::MAX,
    };
    lease.publish(WorkerId(255), key);
    assert_eq!(shared.find(at(lease.port())), Some((WorkerId(255), key)));
    for elsewhere in [
        "192.0.2.11:50000",
        "[2001:db8::1]:50000",
        "192.0.2.10:49999",
        "192.0.2.10:0",
    ] {
        assert_eq!(shared.find(elsewhere.parse().unwrap()), None, "{elsewhere}");
    }
    let number = lease.port();
    drop(lease);
    assert_eq!(shared.find(at(number)), None);
}

#[test]
fn families_have_pools_of_their_own() {
    let now = Instant::now();
    let relays = ["192.0.2.10", "2001:db8::10"].map(|ip| {
        let ip = ip.parse().unwrap();
        RelayAddress {
            bind: ip,
            announced: ip,
        }
    });
    let shared = SharedState::new(relays.into(), 50_000..=50_000, [1; 32], now);
    let v4 = shared.lease_port(Family::V4, Parity::Any, now).unwrap();
    let v6 = shared.lease_port(Family::V6, Parity::Any, now).unwrap();
    assert_eq!((v4.0.port(), v6.0.port()), (50_000, 50_000));
    assert!(shared.lease_port(Family::V4, Parity::Any, now).is_none());
}

#[test]
fn revocation_is_up_to_the_highest_expiry() {
    let (shared, _) = shared(PORTS, 1);
    shared.revoke("a", 1_000, 500);
    assert!(shared.is_revoked("a", 999) && shared.is_revoked("a", 1_000));
    assert!(!shared.is_revoked("a", 1_001) && !shared.is_revoked("b", 1));
}

#[test]
fn revocation_covers_what_living_allocations_were_made_with() {
    let (shared, _) = shared(PORTS, 1);
    let user: Arc<str> = "carol".into();
    let quotas = Quotas {
        user: 4,
        ip: 4,
        total: 4,
    };
    let ip = IpAddr::from([192, 0, 2, 1]);
    let lease = shared.lease_quota(&user, 9_000, ip, quotas).unwrap();
    shared.revoke("carol", 1_000, 500);
    assert!(shared.is_revoked("carol", 9_000) && !shared.is_revoked("carol", 9_001));
    drop(lease);
    assert_eq!(shared.allocations(), 0);
}

#[test]
fn a_pair_that_cannot_be_had_leaves_quarantined_ports_in_quarantine() {
    let (shared, now) = shared(50_000..=50_003, 1);
    let take = |parity| shared.lease_port(Family::V4, parity, now);
    let held: Vec<_> = (0..4).map(|_| take(Parity::Any).unwrap().0).collect();
    let (even, odd): (Vec<_>, Vec<_>) = held.into_iter().partition(|l| l.port() % 2 == 0);
    shared.observe(now);
    drop(odd);
    assert!(take(Parity::Even).is_none() && take(Parity::EvenPair).is_none());
    let pool = &shared.relays[0].get().unwrap().pool;
    assert!(lock(pool).is_all_free(), "nothing left quarantine in vain");
    drop(even);
    assert!(take(Parity::EvenPair).is_some());
}

proptest! {
    /// Any order of taking and giving back: nothing is lent twice, nothing is lost.
    #[test]
    fn leases_add_up(steps in proptest::collection::vec((0u8..5, any::<u16>(), 0u64..20), 1..400)) {
        let (shared, mut now) = shared(50_000..=50_019, 5);
        let reserver: (Arc<str>, IpAddr) = ("reserver".into(), IpAddr::from([192, 0, 2, 99]));
        let unlimited = Quotas { user: 1_000, ip: 1_000, total: 1_000 };
        let mut ports: Vec<PortLease> = Vec::new();
        let mut tokens = Vec::new();
        let mut kept: HashMap<_, (u16, Instant)> = HashMap::new();
        let mut allocations = Vec::new();
        for (step, pick, wait) in steps {
            now += Duration::from_secs(wait);
            shared.observe(now);
            shared.expire_reservations(now);
            kept.retain(|_, (_, until)| *until > now);
            // A reservation counts as an allocation of its user's.
            let quotas = Quotas { user: 4, ip: 6, total: 10 + kept.len() as u32 };
            match step {
                0 | 1 => {
                    let parity = [Parity::Any, Parity::Even, Parity::EvenPair][pick as usize % 3];
                    if let Some((lease, spare)) = shared.lease_port(Family::V4, parity, now) {
                        prop_assert!(parity == Parity::Any || lease.port() % 2 == 0);
                        ports.push(lease);
                        if let Some(spare) = spare {
                            let port = spare.port();
                            let (user, ip) = &reserver;
                            let place = shared.lease_quota(user, 1, *ip, unlimited).unwrap();
                            let token = shared.reserve(spare, place, now).unwrap();
                            kept.insert(token, (port, now + Duration::from_secs(30)));
                            tokens.push(token);
                        }
                    }
                }
                2 if !ports.is_empty() => drop(ports.swap_remove(pick as usize % ports.len())),
                3 if !tokens.is_empty() => {
                    let token = tokens[pick as usize % tokens.len()];
                    let expected = kept.remove(&token).filter(|(_, until)| *until > now);
                    let lease = shared.redeem(token, now);
                    prop_assert_eq!(lease.as_ref().map(|l| l.port()), expected.map(|(p, _)| p));
                    ports.extend(lease);
                }
                _ => {
                    let user: Arc<str> = format!("u{}", pick % 4).into();
                    let ip = IpAddr::from([192, 0, 2, (pick % 3) as u8]);
                    match shared.lease_quota(&user, 1, ip, quotas) {
                        Ok(lease) => allocations.push((lease, user, ip)),
                        Err(_) if allocations.is_empty() => prop_assert!(false),
                        Err(_) => drop(allocations.swap_remove(pick as usize % allocations.len())),
                    }
                }
            }
            let numbers: BTreeSet<_> = ports.iter().map(|l| l.port()).collect();
            prop_assert_eq!(numbers.len(), ports.len());
            prop_assert_eq!(shared.allocations() as usize, allocations.len() + kept.len());
            prop_assert!(allocations.len() <= 10);
            for (_, user, ip) in &allocations {
                let of_user = allocations.iter().filter(|(_, u, _)| u == user).count();
                let of_ip = allocations.iter().filter(|(_, _, i)| i == ip).count();
                prop_assert!(of_user <= 4 && of_ip <= 6);
            }
        }
        now += Duration::from_secs(30);
        shared.expire_reservations(now);
        prop_assert_eq!(shared.free_ports(), 20 - ports.len());
        drop((ports, allocations));
        prop_assert_eq!(shared.free_ports(), 20);
        prop_assert!(lock(&shared.quotas).is_empty());
    }
}
