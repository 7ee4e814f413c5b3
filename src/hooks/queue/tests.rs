use super::*;
use proptest::prelude::*;

fn at(start: Instant, seconds: u64) -> Now {
    Now {
        instant: start + Duration::from_secs(seconds),
        unix_ms: seconds * 1000,
    }
}

fn number(n: u64) -> Map<String, Value> {
    Map::from_iter([("n".to_owned(), json!(n))])
}

fn events(body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).unwrap();
    body["events"].as_array().unwrap().clone()
}

#[test]
fn an_event_names_id_time_node_and_type_and_no_field_replaces_them() {
    let now = at(Instant::now(), 5);
    let mut queue = Queue::new("box-1", 7);
    let fields = Map::from_iter([
        ("type".to_owned(), json!("forged")),
        ("room".to_owned(), json!("r")),
    ]);
    queue.push(now, "peer-joined", fields);
    let batch = events(&queue.next_batch(now).unwrap());
    let expected = json!({"id": "0000000000000007-0", "ts": 5000, "node": "box-1", "type": "peer-joined", "room": "r"});
    assert_eq!(batch, [expected]);
}

#[test]
fn a_backend_that_is_down_for_an_hour_gets_every_event_once_and_in_order() {
    let start = Instant::now();
    let mut queue = Queue::new("n", 0);
    let mut got = vec![];
    let mut attempts = 0;
    for second in 0..7200 {
        let now = at(start, second);
        queue.push(now, "peer-joined", number(second));
        while let Some(body) = queue.next_batch(now) {
            let up = second >= 3600;
            attempts += u32::from(!up);
            if up {
                got.extend(events(&body).iter().map(|e| e["n"].as_u64().unwrap()));
            }
            let outcome = match up {
                true => Outcome::Delivered,
                false => Outcome::Failed(None),
            };
            queue.finished(now, outcome, 0.5);
        }
    }
    assert_eq!(got, (0..7200).collect::<Vec<_>>());
    assert!(
        attempts < 40,
        "{attempts} attempts in an hour are not a back-off"
    );
    assert_eq!(queue.counts().dropped, 0);
    assert_eq!(queue.bytes, 0);
}

#[test]
fn what_does_not_fit_is_reported_by_a_gap_in_its_place() {
    let now = at(Instant::now(), 0);
    let mut queue = Queue::new("n", 0);
    for n in 0..MAX_EVENTS as u64 + 10 {
        queue.push(now, "call-started", number(n));
    }
    assert_eq!((queue.len(), queue.counts().dropped), (MAX_EVENTS, 10));
    let mut got = vec![];
    while let Some(body) = queue.next_batch(now) {
        got.extend(events(&body));
        queue.finished(now, Outcome::Delivered, 0.0);
        if got.len() == 100 {
            queue.push(now, "call-started", number(1_000_000));
        }
    }
    assert_eq!(got.len(), MAX_EVENTS + 2);
    assert_eq!(got[MAX_EVENTS]["type"], "gap");
    assert_eq!(got[MAX_EVENTS]["dropped"], 10);
    assert_eq!(got[MAX_EVENTS + 1]["n"], 1_000_000);
}

#[test]
fn a_gap_at_the_end_is_reported_without_a_further_event() {
    let now = at(Instant::now(), 0);
    let mut queue = Queue::new("n", 0);
    for n in 0..=MAX_EVENTS as u64 {
        queue.push(now, "call-started", number(n));
    }
    let mut last = Value::Null;
    while let Some(body) = queue.next_batch(now) {
        last = events(&body).pop().unwrap();
        queue.finished(now, Outcome::Delivered, 0.0);
    }
    assert_eq!(
        (&last["type"], &last["dropped"]),
        (&json!("gap"), &json!(1))
    );
}

#[test]
fn events_too_old_become_one_gap_at_the_front() {
    let start = Instant::now();
    let mut queue = Queue::new("n", 0);
    for n in 0..10 {
        queue.push(at(start, n * 3600), "relay-ended", number(n));
    }
    let day = 24 * 3600;
    let first = events(&queue.next_batch(at(start, day + 3600)).unwrap());
    assert_eq!(
        (&first[0]["type"], &first[0]["dropped"]),
        (&json!("gap"), &json!(2))
    );
    assert_eq!(first[1]["n"], 2);
    queue.finished(at(start, day + 3600), Outcome::Failed(None), 0.0);
    // Later the first gap and what grew old behind it are one gap again.
    let second = events(&queue.next_batch(at(start, day + 3 * 3600)).unwrap());
    assert_eq!(
        (&second[0]["type"], &second[0]["dropped"]),
        (&json!("gap"), &json!(4))
    );
    assert_eq!(second[1]["n"], 4);
    assert_eq!(queue.counts().dropped, 4);
}

#[test]
fn retry_after_is_honoured_up_to_the_longest_pause() {
    let start = Instant::now();
    for (asked, pause) in [(30, 30), (100_000, 300), (0, 1)] {
        let mut queue = Queue::new("n", 0);
        queue.push(at(start, 0), "room-started", number(0));
        queue.next_batch(at(start, 0)).unwrap();
        let asked = Some(Duration::from_secs(asked));
        queue.finished(at(start, 0), Outcome::Failed(asked), 1.0);
        assert_eq!(
            queue.next_timeout(start),
            Some(start + Duration::from_secs(pause))
        );
        if pause > 1 {
            assert_eq!(queue.next_batch(at(start, pause - 1)), None);
        }
        assert!(queue.next_batch(at(start, pause)).is_some());
    }
}

#[test]
fn what_waits_goes_on_in_another_process_before_all_else() {
    let now = at(Instant::now(), 100);
    let mut queue = Queue::new("n", 1);
    for n in 0..3 {
        queue.push(now, "peer-joined", number(n));
    }
    // Nobody knows whether this batch arrives.
    queue.next_batch(now).unwrap();
    let later = at(now.instant, 7);
    let text = serde_json::to_string(&queue.take_remains(later.instant)).unwrap();
    assert!(queue.is_empty());

    let mut next = Queue::new("n", 2);
    next.push(later, "peer-joined", number(3));
    next.restore(later.instant, serde_json::from_str(&text).unwrap());
    let got = events(&next.next_batch(later).unwrap());
    let numbers: Vec<_> = got.iter().map(|event| event["n"].as_u64()).collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(3)]);
    next.finished(later, Outcome::Delivered, 0.0);
    assert!(next.is_empty());
}

#[test]
fn what_does_not_fit_into_the_next_process_is_reported() {
    let now = at(Instant::now(), 0);
    let mut queue = Queue::new("n", 1);
    for n in 0..MAX_EVENTS as u64 + 5 {
        queue.push(now, "e", number(n));
    }
    let mut next = Queue::new("n", 2);
    next.push(now, "e", number(0));
    next.restore(now.instant, queue.take_remains(now.instant));
    let mut dropped = 0;
    while let Some(body) = next.next_batch(now) {
        let gaps = events(&body);
        dropped += gaps
            .iter()
            .filter_map(|e| e["dropped"].as_u64())
            .sum::<u64>();
        next.finished(now, Outcome::Delivered, 0.0);
    }
    assert_eq!(dropped, 6);
}

proptest! {
    /// Whatever fails in between: every event arrives in order, or a gap stands in its place.
    #[test]
    fn order_holds_and_nothing_is_lost_without_a_gap(steps in prop::collection::vec((0u64..4000, 0u8..4), 1..200)) {
        let start = Instant::now();
        let (mut queue, mut clock, mut pushed) = (Queue::new("n", 0), 0, 0u64);
        let mut next = 0u64;
        for (seconds, kind) in steps {
            clock += seconds;
            let now = at(start, clock);
            match kind {
                0 | 1 => {
                    queue.push(now, "peer-left", number(pushed));
                    pushed += 1;
                }
                _ => if let Some(body) = queue.next_batch(now) {
                    prop_assert_eq!(queue.next_batch(now), None);
                    if kind == 2 {
                        queue.finished(now, Outcome::Failed(None), 0.3);
                    } else {
                        for event in events(&body) {
                            match event["n"].as_u64() {
                                Some(n) => { prop_assert_eq!(n, next); next += 1; }
                                None => next += event["dropped"].as_u64().unwrap(),
                            }
                        }
                        queue.finished(now, Outcome::Delivered, 0.0);
                    }
                }
            }
            let bytes: usize = queue.waiting.iter().map(|event| event.text.len()).sum();
            prop_assert_eq!(queue.bytes, bytes);
            prop_assert_eq!(queue.counts.delivered + queue.counts.dropped <= pushed + queue.counts.delivered, true);
        }
    }
}
