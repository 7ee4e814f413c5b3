//! Events that wait for the backend: in order, at least once, bounded.
//!
//! Pure: time and jitter are arguments. One batch is under way at a time, so that events arrive in
//! order. What does not fit is counted and reported by a `gap` event in its place.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Events in one POST at most.
const BATCH_EVENTS: usize = 100;
/// Bytes of events in one POST at most, unless one event alone is larger.
const BATCH_BYTES: usize = 256 * 1024;
/// Events that wait at most. When the queue is full, new events are dropped and counted.
const MAX_EVENTS: usize = 50_000;
/// Bytes of events that wait at most, likewise.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// An event that could not be delivered for this long is dropped and counted.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The pause after the first failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts, whatever `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The time of an event.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For stamps: Unix milliseconds.
    pub unix_ms: u64,
}

/// How an attempt to deliver a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered with a 2xx status.
    Delivered,
    /// Anything else; `Retry-After` in the answer, if there was one.
    Failed(Option<Duration>),
}

/// What the queue has counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that the backend has confirmed.
    pub delivered: u64,
    /// Events that were dropped: the queue was full, or they were too old.
    pub dropped: u64,
    /// Attempts that failed.
    pub failures: u64,
}

/// Events that wait for the backend.
#[derive(Debug)]
pub struct Queue {
    node: String,
    /// Makes the ids of this run differ from those of every other.
    run: u64,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// How many at the front are in the batch that is under way.
    under_way: usize,
    /// Dropped at the end of the queue and not reported yet.
    unreported: u64,
    failures_in_a_row: u32,
    paused_until: Option<Instant>,
    counts: Counts,
}

#[derive(Debug)]
struct Waiting {
    text: Box<str>,
    since: Instant,
    /// How many events this `gap` stands for; 0 for any other event.
    gap: u64,
}

/// What waits, for the process that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Each event, its age in milliseconds, and how many it stands for if it is a `gap`.
    waiting: Vec<(Box<str>, u64, u64)>,
    unreported: u64,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    counts: Counts,
}

impl Queue {
    /// Takes out what waits. A batch that is under way is in it: nobody knows whether it arrived.
    pub fn take_remains(&mut self, now: Instant) -> Remains {
        let age = |since| now.saturating_duration_since(since).as_millis();
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|event| {
            let age = u64::try_from(age(event.since)).unwrap_or(u64::MAX);
            (event.text, age, event.gap)
        });
        let remains = Remains {
            waiting: waiting.collect(),
            unreported: self.unreported,
            counts: std::mem::take(&mut self.counts),
        };
        self.clear();
        remains
    }

    /// Puts what an earlier process has left before everything else. What does not fit is counted
    /// as dropped.
    pub fn restore(&mut self, now: Instant, remains: Remains) {
        let own = std::mem::take(&mut self.waiting);
        let own_unreported = std::mem::take(&mut self.unreported);
        self.bytes = 0;
        for (text, age, gap) in remains.waiting {
            let since = now.checked_sub(Duration::from_millis(age));
            self.put(text, since.unwrap_or(now), gap);
        }
        // They are counted already.
        self.unreported += remains.unreported;
        self.counts.delivered += remains.counts.delivered;
        self.counts.dropped += remains.counts.dropped;
        self.counts.failures += remains.counts.failures;
        for event in own {
            self.put(event.text, event.since, event.gap);
        }
        self.unreported += own_unreported;
    }

    fn put(&mut self, text: Box<str>, since: Instant, gap: u64) {
        if self.unreported > 0 || !self.has_room(text.len()) {
            return self.drop_at_end(gap.max(1));
        }
        self.bytes += text.len();
        self.waiting.push_back(Waiting { text, since, gap });
    }

    fn drop_at_end(&mut self, events: u64) {
        self.unreported += events;
        self.counts.dropped += events;
    }

    /// Starts empty. `run` is random; `node` names the box in each event.
    pub fn new(node: impl Into<String>, run: u64) -> Self {
        Self {
            node: node.into(),
            run,
            next_number: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            under_way: 0,
            unreported: 0,
            failures_in_a_row: 0,
            paused_until: None,
            counts: Counts::default(),
        }
    }

    /// Appends an event with the given fields, or drops it where the queue is full. Returns its
    /// text.
    pub fn push(&mut self, now: Now, kind: &str, fields: Map<String, Value>) -> Box<str> {
        self.report_gap(now);
        let text = self.text(now, kind, fields);
        if self.has_room(text.len()) && self.unreported == 0 {
            self.append(now, text.clone(), 0);
        } else {
            self.unreported += 1;
            self.counts.dropped += 1;
        }
        text
    }

    /// The text of an event that nobody waits for here.
    pub fn stamp(&mut self, now: Now, kind: &str, fields: Map<String, Value>) -> Box<str> {
        self.text(now, kind, fields)
    }

    /// Drops everything: there is nobody to send it to.
    pub fn clear(&mut self) {
        self.waiting.clear();
        (self.bytes, self.under_way, self.unreported) = (0, 0, 0);
        self.retry_now();
    }

    /// Ends the pause after failures.
    pub fn retry_now(&mut self) {
        self.failures_in_a_row = 0;
        self.paused_until = None;
    }

    /// The body of the next POST: `{"events":[…]}`. `None` while one is under way, during a pause,
    /// or where nothing waits. The caller reports the outcome to [`Self::finished`].
    pub fn next_batch(&mut self, now: Now) -> Option<String> {
        if self.under_way > 0 || self.paused_until.is_some_and(|until| now.instant < until) {
            return None;
        }
        self.drop_old(now);
        let mut body = String::from(r#"{"events":["#);
        for event in self.waiting.iter().take(BATCH_EVENTS) {
            if self.under_way > 0 {
                if body.len() + event.text.len() > BATCH_BYTES {
                    break;
                }
                body.push(',');
            }
            body.push_str(&event.text);
            self.under_way += 1;
        }
        body.push_str("]}");
        (self.under_way > 0).then_some(body)
    }

    /// Takes the outcome of the batch that was under way. `jitter` is a random number from 0 to 1.
    pub fn finished(&mut self, now: Now, outcome: Outcome, jitter: f64) {
        let under_way = std::mem::take(&mut self.under_way);
        match outcome {
            Outcome::Delivered => {
                for event in self.waiting.drain(..under_way) {
                    self.bytes -= event.text.len();
                }
                self.counts.delivered += under_way as u64;
                self.failures_in_a_row = 0;
                self.paused_until = None;
                self.report_gap(now);
            }
            Outcome::Failed(retry_after) => {
                self.counts.failures += 1;
                let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures_in_a_row.min(16));
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                let pause = doubled.min(LONGEST_PAUSE).mul_f64(0.5 + jitter / 2.0);
                let pause = retry_after.map_or(pause, |asked| asked.min(LONGEST_PAUSE).max(pause));
                self.paused_until = Some(now.instant + pause);
            }
        }
    }

    /// When to call [`Self::next_batch`]: at once where that time has passed, never while nothing
    /// waits or a batch is under way.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() || self.under_way > 0 {
            return None;
        }
        Some(self.paused_until.unwrap_or(now))
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sums since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() < MAX_EVENTS && self.bytes + bytes <= MAX_BYTES
    }

    /// Puts the `gap` of events dropped at the end in their place, once the queue has room.
    fn report_gap(&mut self, now: Now) {
        if self.unreported == 0 || !self.has_room(256) {
            return;
        }
        let dropped = std::mem::take(&mut self.unreported);
        let text = self.gap(now, dropped);
        self.append(now, text, dropped);
    }

    fn drop_old(&mut self, now: Now) {
        let old = |event: &Waiting| now.instant.duration_since(event.since) >= MAX_AGE;
        let mut lost = 0;
        while let Some(first) = self.waiting.front() {
            let before_old = first.gap > 0 && self.waiting.get(1).is_some_and(old);
            if !old(first) && !before_old {
                break;
            }
            if first.gap == 0 {
                self.counts.dropped += 1;
            }
            lost += first.gap.max(1);
            self.bytes -= first.text.len();
            self.waiting.pop_front();
        }
        if lost > 0 {
            let text = self.gap(now, lost);
            self.bytes += text.len();
            self.waiting.push_front(Waiting {
                text,
                since: now.instant,
                gap: lost,
            });
        }
    }

    fn gap(&mut self, now: Now, dropped: u64) -> Box<str> {
        let fields = Map::from_iter([("dropped".to_owned(), json!(dropped))]);
        self.text(now, "gap", fields)
    }

    fn text(&mut self, now: Now, kind: &str, fields: Map<String, Value>) -> Box<str> {
        let id = format!("{:016x}-{}", self.run, self.next_number);
        self.next_number += 1;
        let mut event = Map::new();
        event.insert("id".into(), id.into());
        event.insert("ts".into(), now.unix_ms.into());
        event.insert("node".into(), self.node.clone().into());
        event.insert("type".into(), kind.into());
        for (name, value) in fields {
            event.entry(name).or_insert(value);
        }
        Value::Object(event).to_string().into()
    }

    fn append(&mut self, now: Now, text: Box<str>, gap: u64) {
        self.bytes += text.len();
        self.waiting.push_back(Waiting {
            text,
            since: now.instant,
            gap,
        });
    }
}

#[cfg(test)]
mod tests;
