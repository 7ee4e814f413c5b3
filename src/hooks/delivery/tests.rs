//! A backend that fails in every way, in virtual time.

mod over_http;

use super::super::events::Topic;
use super::*;
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const HOUR: Duration = Duration::from_secs(3600);

/// What the backend does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Answers with this status.
    Answers(u16),
    /// Nobody listens at its port, or the connection breaks before the answer.
    Resets,
    /// Takes the batch, but the answer is lost.
    TakesAndResets,
    /// Answers later than the client waits.
    Late,
    /// Asks for a pause of that many seconds.
    Busy(u64),
}

struct Fake {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Value>>,
    attempts: Mutex<Vec<tokio::time::Instant>>,
}

impl Fake {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            taken: Mutex::default(),
            attempts: Mutex::default(),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn take(&self, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap();
        let events = body["events"].as_array().unwrap().clone();
        self.taken.lock().unwrap().extend(events);
    }

    fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    /// The events, of those that came twice the first.
    fn distinct(&self) -> Vec<Value> {
        let mut seen = std::collections::BTreeSet::new();
        let taken = self.taken.lock().unwrap().clone();
        let mut taken = taken.into_iter();
        let taken = taken.by_ref();
        taken
            .filter(|event| seen.insert(event["id"].as_str().unwrap().to_owned()))
            .collect()
    }
}

impl Backend for Arc<Fake> {
    async fn deliver(&self, _: &Settings, body: String) -> Result<Answered, String> {
        self.attempts
            .lock()
            .unwrap()
            .push(tokio::time::Instant::now());
        let answer = |status, retry_after| {
            Ok(Answered {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after,
                cache_control: None,
                body: Bytes::new(),
            })
        };
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Takes => {
                self.take(&body);
                answer(200, None)
            }
            Mood::Answers(status) => answer(status, None),
            Mood::Busy(seconds) => answer(503, Some(Duration::from_secs(seconds))),
            Mood::Resets => Err("connection reset".into()),
            Mood::TakesAndResets => {
                self.take(&body);
                Err("connection reset".into())
            }
            Mood::Late => {
                tokio::time::sleep(TIMEOUT).await;
                Err("no answer within 10s".into())
            }
        }
    }
}

fn settings() -> Settings {
    Settings {
        url: Some("http://backend.example/events".parse().unwrap()),
        ..Settings::default()
    }
}

struct Stage {
    events: Events,
    backend: Arc<Fake>,
    settings: watch::Sender<Settings>,
    _task: tokio::task::JoinSet<()>,
}

impl Stage {
    fn new(mood: Mood) -> Self {
        let (events, backend) = (Events::new("box", 1), Fake::new(mood));
        events.deliver_to_backend(true);
        let settings = watch::Sender::new(settings());
        let mut task = tokio::task::JoinSet::new();
        let delivery = events.clone();
        task.spawn(delivery.deliver(Arc::clone(&backend), settings.subscribe()));
        Self {
            events,
            backend,
            settings,
            _task: task,
        }
    }

    fn push(&self, n: u64) {
        let event = json!({"n": n});
        self.events.push(Topic::Peer, "peer-joined", &event);
    }

    /// Waits, in virtual time, until nothing waits.
    async fn delivered(&self) {
        for _ in 0..100_000 {
            if self.events.waiting() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} events still wait", self.events.waiting());
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|e| e["n"].as_u64()).collect()
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_at_the_backend_for_an_hour_events_arrive_in_order_afterwards() {
    for mood in [
        Mood::Resets,
        Mood::TakesAndResets,
        Mood::Late,
        Mood::Answers(500),
        Mood::Answers(302),
        Mood::Answers(404),
        Mood::Busy(20),
    ] {
        let stage = Stage::new(mood);
        for n in 0..720 {
            stage.push(n);
            tokio::time::sleep(HOUR / 720).await;
        }
        // Backoff: an hour of failures is not thousands of attempts.
        let attempts = stage.backend.attempts();
        assert!((10..250).contains(&attempts), "{mood:?}: {attempts}");
        assert_eq!(stage.events.counts().delivered, 0, "{mood:?}");
        stage.backend.set(Mood::Takes);
        stage.delivered().await;
        let arrived = stage.backend.distinct();
        assert_eq!(numbers(&arrived), (0..720).collect::<Vec<_>>(), "{mood:?}");
        if mood != Mood::TakesAndResets {
            assert_eq!(stage.backend.taken.lock().unwrap().len(), 720, "{mood:?}");
        }
        assert_eq!(stage.events.counts().dropped, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_told_as_a_gap_in_its_place() {
    let stage = Stage::new(Mood::Resets);
    const PUSHED: u64 = 60_000;
    for n in 0..PUSHED {
        stage.push(n);
    }
    assert!(stage.events.waiting() <= 50_001, "the queue is bounded");
    stage.backend.set(Mood::Takes);
    stage.delivered().await;
    stage.push(PUSHED);
    stage.delivered().await;
    let arrived = stage.backend.distinct();
    let gaps: Vec<_> = arrived.iter().filter(|e| e["type"] == "gap").collect();
    assert_eq!(gaps.len(), 1);
    let dropped = gaps[0]["dropped"].as_u64().unwrap();
    assert!(dropped > 0);
    assert_eq!(stage.events.counts().dropped, dropped);
    let numbers = numbers(&arrived);
    assert_eq!(numbers.len() as u64 + dropped, PUSHED + 1);
    assert!(numbers.is_sorted());
    let at = arrived.iter().position(|e| e["type"] == "gap").unwrap();
    assert_eq!(at, arrived.len() - 2, "before what came later");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_asks_for_a_pause_gets_it() {
    let stage = Stage::new(Mood::Busy(90));
    stage.push(0);
    tokio::time::sleep(Duration::from_secs(85)).await;
    assert_eq!(stage.backend.attempts(), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.backend.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_settings_are_tried_at_once_and_none_ends_it() {
    let stage = Stage::new(Mood::Answers(401));
    stage.push(0);
    tokio::time::sleep(HOUR).await;
    stage.backend.set(Mood::Takes);
    stage.settings.send_replace(settings());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.events.waiting(), 0);
    stage.settings.send_replace(Settings::default());
    stage.events.deliver_to_backend(false);
    stage.push(1);
    tokio::time::sleep(HOUR).await;
    assert_eq!(numbers(&stage.backend.distinct()), [0]);
}

#[tokio::test(start_paused = true)]
async fn the_last_events_are_sent_before_the_box_ends_and_never_hold_it_up() {
    let (events, backend) = (Events::new("box", 1), Fake::new(Mood::Takes));
    events.deliver_to_backend(true);
    for n in 0..250 {
        events.push(Topic::Peer, "peer-left", &json!({"n": n}));
    }
    events.flush(&backend, &settings()).await;
    assert_eq!(numbers(&backend.distinct()).len(), 250);
    events.push(Topic::Peer, "peer-left", &json!({"n": 250}));
    backend.set(Mood::Late);
    let start = tokio::time::Instant::now();
    events.flush(&backend, &settings()).await;
    assert!(start.elapsed() <= LAST_ATTEMPT);
}
