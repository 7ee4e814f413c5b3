use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use std::collections::BTreeMap;

fn pool(ports: RangeInclusive<u16>) -> (Pool, Instant) {
    (Pool::new(ports, StdRng::from_seed([3; 32])), Instant::now())
}

/// Looks at every port, as the pool must not.
fn fitting(model: &BTreeMap<u16, Place>, parity: Parity, place: impl Fn(&Place) -> bool) -> bool {
    model.iter().any(|(port, at)| {
        let pair = || port.checked_add(1).and_then(|next| model.get(&next));
        place(at)
            && match parity {
                Parity::Any => true,
                Parity::Even => port % 2 == 0,
                Parity::EvenPair => port % 2 == 0 && pair().is_some_and(&place),
            }
    })
}

proptest! {
    #[test]
    fn the_pool_does_what_a_scan_of_the_range_would(
        first in prop_oneof![Just(50_000_u16), Just(50_001), Just(65_520)],
        size in 1_u16..16,
        steps in prop::collection::vec((0_u8..7, any::<u16>(), 0_u64..25), 1..300),
    ) {
        let ports = first..=first.saturating_add(size - 1);
        let (mut pool, mut now) = pool(ports.clone());
        let mut model: BTreeMap<u16, Place> = ports.map(|port| (port, Place::Free)).collect();
        let mut held: BTreeMap<u16, Instant> = BTreeMap::new();
        for (step, pick, wait) in steps {
            now += Duration::from_secs(wait);
            // The range is so small that one look sets free whatever is due.
            for place in model.values_mut() {
                if matches!(place, Place::Quarantined(since) if now >= *since + QUARANTINE) {
                    *place = Place::Free;
                }
            }
            let away: Vec<u16> = model
                .iter()
                .filter(|(port, place)| **place == Place::Away && !held.contains_key(*port))
                .map(|(port, _)| *port)
                .collect();
            match step {
                0..=2 => {
                    held.retain(|port, until| {
                        let due = now >= *until;
                        if due {
                            model.insert(*port, Place::Free);
                        }
                        !due
                    });
                    let parity = [Parity::Any, Parity::Even, Parity::EvenPair][usize::from(step)];
                    let taken = pool.take(parity, now);
                    let free = fitting(&model, parity, |place| *place == Place::Free);
                    let any = fitting(&model, parity, |place| *place != Place::Away);
                    prop_assert_eq!(taken.is_some(), any, "{:?} of {:?}", parity, model);
                    let Some(port) = taken else { continue };
                    let both = [port, port.saturating_add(1)];
                    let taken = &both[..1 + usize::from(parity == Parity::EvenPair)];
                    prop_assert!(parity == Parity::Any || port % 2 == 0);
                    for port in taken {
                        let before = model.insert(*port, Place::Away);
                        prop_assert_ne!(before, Some(Place::Away));
                        if free {
                            prop_assert_eq!(before, Some(Place::Free), "a port is in quarantine in vain");
                        }
                    }
                }
                3 | 4 if !away.is_empty() => {
                    let port = away[usize::from(pick) % away.len()];
                    pool.release(port, now);
                    model.insert(port, Place::Quarantined(now));
                }
                5 if !away.is_empty() => {
                    let port = away[usize::from(pick) % away.len()];
                    pool.set_aside(port, now);
                    held.insert(port, now + HELD);
                }
                _ => {
                    let port = first.saturating_sub(2).saturating_add(pick % (size + 4));
                    let can = model.get(&port).is_some_and(|place| *place != Place::Away);
                    prop_assert_eq!(pool.claim(port).is_some(), can);
                    if can {
                        model.insert(port, Place::Away);
                    }
                }
            }
            let available = model.values().filter(|place| **place != Place::Away).count();
            prop_assert_eq!(pool.available(), available);
            prop_assert_eq!(pool.held(), held.len());
        }
    }
}

/// A scan for each quarantined port took ten milliseconds a request here, on every worker's time.
#[test]
fn no_request_looks_at_every_port_of_an_exhausted_range() {
    let range = 1_024..=u16::MAX;
    let (mut pool, start) = pool(range.clone());
    for port in range.clone() {
        pool.claim(port).unwrap();
    }
    range
        .clone()
        .filter(|port| port % 2 == 1)
        .for_each(|port| pool.release(port, start));
    // A scan of the quarantined ports for each of them would take a billion steps a request.
    for _ in 0..20_000 {
        assert_eq!(pool.take(Parity::EvenPair, start), None);
        assert_eq!(pool.take(Parity::Even, start), None);
    }
    // And many whose quarantine has ended do not come back all in one request.
    let later = start + QUARANTINE;
    assert!(pool.take(Parity::Any, later).is_some());
    assert_eq!(
        pool.free_even.len() + pool.free_odd.len(),
        RELEASED_A_TAKE - 1
    );
}

#[test]
fn what_is_in_quarantine_longest_goes_first_for_every_wish() {
    let (mut pool, start) = pool(50_000..=50_005);
    let at = |seconds| start + Duration::from_secs(seconds);
    (50_000..=50_005).for_each(|port| pool.claim(port).unwrap());
    // Pairs are as old as the younger of their ports.
    for (port, second) in [
        (50_004, 1),
        (50_000, 2),
        (50_001, 3),
        (50_003, 4),
        (50_002, 5),
        (50_005, 6),
    ] {
        pool.release(port, at(second));
    }
    assert_eq!(pool.take(Parity::EvenPair, at(7)), Some(50_000));
    assert_eq!(pool.take(Parity::Even, at(7)), Some(50_004));
    assert_eq!(pool.take(Parity::Any, at(7)), Some(50_003));
    assert_eq!(pool.take(Parity::EvenPair, at(7)), None);
}

#[test]
fn a_port_that_another_program_holds_is_left_alone_for_a_minute() {
    let (mut pool, start) = pool(50_000..=50_000);
    let port = pool.take(Parity::Any, start).unwrap();
    pool.set_aside(port, start);
    assert_eq!((pool.held(), pool.available()), (1, 0));
    assert_eq!(pool.take(Parity::Any, start + HELD / 2), None);
    assert_eq!(pool.take(Parity::Any, start + HELD), Some(port));
    assert_eq!(pool.held(), 0);
}
