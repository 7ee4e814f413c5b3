use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const PORTS: RangeInclusive<u16> = 50_000..=50_099;

fn ledger(ports: RangeInclusive<u16>, seed: u8) -> (Arc<Ledger>, Instant) {
    let now = Instant::now();
    let ip = "192.0.2.10".parse().unwrap();
    (
        Ledger::new(
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

fn port(ledger: &Arc<Ledger>, now: Instant) -> Option<PortLease> {
    Some(ledger.lease_port(Family::V4, Parity::Any, now)?.0)
}

#[test]
fn every_port_is_lent_once_in_an_order_that_the_seed_decides() {
    let order = |seed| {
        let (ledger, now) = ledger(PORTS, seed);
        let leases: Vec<_> = std::iter::from_fn(|| port(&ledger, now)).collect();
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
fn a_released_port_rests_for_thirty_seconds_unless_the_range_runs_out() {
    let (ledger, start) = ledger(50_000..=50_002, 1);
    let at = |seconds| start + Duration::from_secs(seconds);
    let held = port(&ledger, start).unwrap();
    let released = port(&ledger, start).unwrap();
    let number = released.port();
    ledger.observe(at(10));
    drop(released);
    let other = port(&ledger, at(39)).unwrap();
    assert_ne!(other.port(), number);
    assert_eq!(ledger.free_ports(), 1);
    // It is the only one left.
    let early = port(&ledger, at(39)).unwrap();
    assert_eq!(early.port(), number);
    assert!(port(&ledger, at(39)).is_none());
    drop((held, early, other));
    assert_eq!(ledger.free_ports(), 3);
}

#[test]
fn of_two_resting_ports_the_older_goes_first() {
    let (ledger, start) = ledger(50_000..=50_001, 1);
    let (a, b) = (port(&ledger, start).unwrap(), port(&ledger, start).unwrap());
    let numbers = (a.port(), b.port());
    ledger.observe(start + Duration::from_secs(1));
    drop(b);
    ledger.observe(start + Duration::from_secs(2));
    drop(a);
    let now = start + Duration::from_secs(3);
    let again = (port(&ledger, now).unwrap(), port(&ledger, now).unwrap());
    assert_eq!((again.1.port(), again.0.port()), numbers);
}

#[test]
fn pairs_are_found_as_long_as_there_is_one() {
    let (ledger, now) = ledger(PORTS, 3);
    let mut leases = Vec::new();
    while let Some((even, Some(odd))) = ledger.lease_port(Family::V4, Parity::EvenPair, now) {
        assert_eq!((even.port() % 2, odd.port()), (0, even.port() + 1));
        leases.push((even, odd));
    }
    assert_eq!(leases.len(), 50);
    // The last even port without its neighbour is no pair.
    let (even, odd) = leases.pop().unwrap();
    drop(even);
    assert!(
        ledger
            .lease_port(Family::V4, Parity::EvenPair, now)
            .is_none()
    );
    assert!(ledger.lease_port(Family::V4, Parity::Even, now).is_some());
    drop(odd);
}

#[test]
fn the_directory_knows_a_port_while_its_lease_lives() {
    let (ledger, now) = ledger(PORTS, 1);
    let lease = port(&ledger, now).unwrap();
    let at = |port| SocketAddr::new("192.0.2.10".parse().unwrap(), port);
    assert_eq!(ledger.find(at(lease.port())), None);
    let index = (1 << RelayKey::INDEX_BITS) - 1;
    let key = RelayKey {
        index,
        generation: u32::MAX,
    };
    lease.publish(WorkerId(255), key);
    assert_eq!(ledger.find(at(lease.port())), Some((WorkerId(255), key)));
    for elsewhere in [
        "192.0.2.11:50000",
        "[2001:db8::1]:50000",
        "192.0.2.10:49999",
        "192.0.2.10:0",
    ] {
        assert_eq!(ledger.find(elsewhere.parse().unwrap()), None, "{elsewhere}");
    }
    let number = lease.port();
    drop(lease);
    assert_eq!(ledger.find(at(number)), None);
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
    let ledger = Ledger::new(relays.into(), 50_000..=50_000, [1; 32], now);
    let v4 = ledger.lease_port(Family::V4, Parity::Any, now).unwrap();
    let v6 = ledger.lease_port(Family::V6, Parity::Any, now).unwrap();
    assert_eq!((v4.0.port(), v6.0.port()), (50_000, 50_000));
    assert!(ledger.lease_port(Family::V4, Parity::Any, now).is_none());
}

#[test]
fn revocation_is_up_to_the_floor() {
    let (ledger, _) = ledger(PORTS, 1);
    ledger.revoke("a", 1_000, 500);
    assert!(ledger.is_revoked("a", 999) && ledger.is_revoked("a", 1_000));
    assert!(!ledger.is_revoked("a", 1_001) && !ledger.is_revoked("b", 1));
}

#[test]
fn revocation_covers_what_living_allocations_were_made_with() {
    let (ledger, _) = ledger(PORTS, 1);
    let user: Arc<str> = "carol".into();
    let quotas = Quotas {
        user: 4,
        ip: 4,
        total: 4,
    };
    let ip = IpAddr::from([192, 0, 2, 1]);
    let lease = ledger.lease_quota(&user, 9_000, ip, quotas).unwrap();
    ledger.revoke("carol", 1_000, 500);
    assert!(ledger.is_revoked("carol", 9_000) && !ledger.is_revoked("carol", 9_001));
    drop(lease);
    assert_eq!(ledger.allocations(), 0);
}

#[test]
fn a_pair_that_cannot_be_had_leaves_resting_ports_at_rest() {
    let (ledger, now) = ledger(50_000..=50_003, 1);
    let take = |parity| ledger.lease_port(Family::V4, parity, now);
    let held: Vec<_> = (0..4).map(|_| take(Parity::Any).unwrap().0).collect();
    let (even, odd): (Vec<_>, Vec<_>) = held.into_iter().partition(|l| l.port() % 2 == 0);
    ledger.observe(now);
    drop(odd);
    assert!(take(Parity::Even).is_none() && take(Parity::EvenPair).is_none());
    let pool = &ledger.relays[0].get().unwrap().pool;
    assert!(lock(pool).is_all_at_rest(), "nothing was thawed in vain");
    drop(even);
    assert!(take(Parity::EvenPair).is_some());
}

proptest! {
    /// Any order of taking and giving back: nothing is lent twice, nothing is lost.
    #[test]
    fn leases_add_up(steps in proptest::collection::vec((0u8..5, any::<u16>(), 0u64..20), 1..400)) {
        let (ledger, mut now) = ledger(50_000..=50_019, 5);
        let reserver: (Arc<str>, IpAddr) = ("reserver".into(), IpAddr::from([192, 0, 2, 99]));
        let unlimited = Quotas { user: 1_000, ip: 1_000, total: 1_000 };
        let mut ports: Vec<PortLease> = Vec::new();
        let mut tokens = Vec::new();
        let mut kept: HashMap<_, (u16, Instant)> = HashMap::new();
        let mut allocations = Vec::new();
        for (step, pick, wait) in steps {
            now += Duration::from_secs(wait);
            ledger.observe(now);
            ledger.expire_reservations(now);
            kept.retain(|_, (_, until)| *until > now);
            // A reservation counts as an allocation of its user's.
            let quotas = Quotas { user: 4, ip: 6, total: 10 + kept.len() as u32 };
            match step {
                0 | 1 => {
                    let parity = [Parity::Any, Parity::Even, Parity::EvenPair][pick as usize % 3];
                    if let Some((lease, spare)) = ledger.lease_port(Family::V4, parity, now) {
                        prop_assert!(parity == Parity::Any || lease.port() % 2 == 0);
                        ports.push(lease);
                        if let Some(spare) = spare {
                            let port = spare.port();
                            let (user, ip) = &reserver;
                            let place = ledger.lease_quota(user, 1, *ip, unlimited).unwrap();
                            let token = ledger.reserve(spare, place, now).unwrap();
                            kept.insert(token, (port, now + Duration::from_secs(30)));
                            tokens.push(token);
                        }
                    }
                }
                2 if !ports.is_empty() => drop(ports.swap_remove(pick as usize % ports.len())),
                3 if !tokens.is_empty() => {
                    let token = tokens[pick as usize % tokens.len()];
                    let expected = kept.remove(&token).filter(|(_, until)| *until > now);
                    let lease = ledger.redeem(token, now);
                    prop_assert_eq!(lease.as_ref().map(|l| l.port()), expected.map(|(p, _)| p));
                    ports.extend(lease);
                }
                _ => {
                    let user: Arc<str> = format!("u{}", pick % 4).into();
                    let ip = IpAddr::from([192, 0, 2, (pick % 3) as u8]);
                    match ledger.lease_quota(&user, 1, ip, quotas) {
                        Ok(lease) => allocations.push((lease, user, ip)),
                        Err(_) if allocations.is_empty() => prop_assert!(false),
                        Err(_) => drop(allocations.swap_remove(pick as usize % allocations.len())),
                    }
                }
            }
            let numbers: BTreeSet<_> = ports.iter().map(|l| l.port()).collect();
            prop_assert_eq!(numbers.len(), ports.len());
            prop_assert_eq!(ledger.allocations() as usize, allocations.len() + kept.len());
            prop_assert!(allocations.len() <= 10);
            for (_, user, ip) in &allocations {
                let of_user = allocations.iter().filter(|(_, u, _)| u == user).count();
                let of_ip = allocations.iter().filter(|(_, _, i)| i == ip).count();
                prop_assert!(of_user <= 4 && of_ip <= 6);
            }
        }
        now += Duration::from_secs(30);
        ledger.expire_reservations(now);
        prop_assert_eq!(ledger.free_ports(), 20 - ports.len());
        drop((ports, allocations));
        prop_assert_eq!(ledger.free_ports(), 20);
        prop_assert!(lock(&ledger.quotas).is_empty());
    }
}
