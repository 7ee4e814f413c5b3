//! The stream of events: kept for the backend where there is one, and shown to everybody who listens.
//!
//! An event costs a short lock and never waits. A listener that is slow loses events and is told
//! how many.

use super::queue::{Counts, Now, Queue, Remains};
use crate::clock;
use crate::signal::hub::{Notice, Subject};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

/// Events that a listener may lag behind. A slower listener loses the oldest.
const LISTENER_LAG: usize = 1_024;
/// Listeners at once.
const MAX_LISTENERS: usize = 64;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A room began or ended.
    Room,
    /// A peer came or went.
    Peer,
    /// A relay began or ended.
    Relay,
    /// A call began or ended.
    Call,
    /// How a connection went, as a client tells.
    Report,
    /// Who says what to whom.
    Message,
    /// The state of a box.
    Node,
    /// What the operator should look at.
    Warning,
}

impl Topic {
    /// The name of the event in a stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Peer => "peer",
            Self::Relay => "relay",
            Self::Call => "call",
            Self::Report => "report",
            Self::Message => "message",
            Self::Node => "node",
            Self::Warning => "warning",
        }
    }

    fn of(notice: &Notice) -> Self {
        match notice {
            Notice::RoomStarted { .. } | Notice::RoomEnded { .. } => Self::Room,
            Notice::PeerJoined { .. } | Notice::PeerLeft { .. } => Self::Peer,
            Notice::CallStarted { .. } | Notice::CallEnded { .. } => Self::Call,
            Notice::Report { .. } => Self::Report,
            Notice::Message { .. } => Self::Message,
        }
    }
}

/// One event, as a listener gets it.
#[derive(Debug, Clone)]
pub struct ListenerEvent {
    /// What it is about.
    pub topic: Topic,
    /// One JSON object: `id`, `ts`, `node`, `type` and more.
    pub text: Arc<str>,
    /// Whose message it is.
    traced: Option<Arc<Notice>>,
}

/// The stream of events. Clones share it.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued.
    pub(super) wake: Notify,
    /// Whether there is a backend that wants them.
    delivers: AtomicBool,
    listeners: broadcast::Sender<ListenerEvent>,
}

impl Events {
    /// `node` names this box in each event; `run` is random.
    pub fn new(node: impl Into<String>, run: u64) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue::new(node, run)),
            wake: Notify::new(),
            delivers: AtomicBool::new(false),
            listeners: broadcast::channel(LISTENER_LAG).0,
        }))
    }

    /// Keeps events for a backend from here on, or drops what was kept.
    pub fn deliver_to_backend(&self, delivers: bool) {
        self.0.delivers.store(delivers, Ordering::Relaxed);
        if !delivers {
            self.queue().clear();
        }
    }

    /// Whether anybody wants events.
    pub fn is_wanted(&self) -> bool {
        self.0.delivers.load(Ordering::Relaxed) || self.0.listeners.receiver_count() > 0
    }

    /// Takes what signaling tells.
    pub fn notice(&self, notice: Notice) {
        if !self.is_wanted() {
            return;
        }
        let topic = Topic::of(&notice);
        let fields = fields(&notice);
        let is_kept = !matches!(topic, Topic::Report | Topic::Message);
        let traced = (topic == Topic::Message).then(|| Arc::new(notice));
        let kind = fields.get("type").and_then(Value::as_str);
        let kind = kind.unwrap_or_default().to_owned();
        self.tell(topic, &kind, fields, is_kept, traced);
    }

    /// Takes an event for backend and listeners.
    pub fn push(&self, topic: Topic, kind: &str, event: &impl Serialize) {
        if self.is_wanted() {
            self.tell(topic, kind, fields(event), true, None);
        }
    }

    /// Takes an event for listeners alone.
    pub fn show(&self, topic: Topic, kind: &str, event: &impl Serialize) {
        if self.0.listeners.receiver_count() > 0 {
            self.tell(topic, kind, fields(event), false, None);
        }
    }

    /// Listens from here on; `None` where too many do already. Of messages, those of `subjects`
    /// come.
    pub fn listen(&self, subjects: Vec<Subject>) -> Option<Listener> {
        if self.0.listeners.receiver_count() >= MAX_LISTENERS {
            return None;
        }
        Some(Listener {
            events: self.0.listeners.subscribe(),
            subjects,
        })
    }

    /// Events that wait for the backend.
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Takes out what waits for the backend: the process that goes on sends it.
    pub fn take_remains(&self) -> Remains {
        self.queue().take_remains(now().instant)
    }

    /// Sends what an earlier process has left before everything else, if there is a backend.
    pub fn restore(&self, remains: Remains) {
        if self.0.delivers.load(Ordering::Relaxed) {
            self.queue().restore(now().instant, remains);
            self.0.wake.notify_one();
        }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.0.listeners.receiver_count()
    }

    /// Sums since the start.
    pub fn counts(&self) -> Counts {
        self.queue().counts()
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Under one lock, so that backend and listeners see one order.
    fn tell(
        &self,
        topic: Topic,
        kind: &str,
        fields: Map<String, Value>,
        is_kept: bool,
        traced: Option<Arc<Notice>>,
    ) {
        let is_kept = is_kept && self.0.delivers.load(Ordering::Relaxed);
        let mut queue = self.queue();
        let text = match is_kept {
            true => queue.push(now(), kind, fields),
            false => queue.stamp(now(), kind, fields),
        };
        if self.0.listeners.receiver_count() > 0 {
            let text = Arc::from(text);
            // It fails where the last listener has just gone.
            let _ = self.0.listeners.send(ListenerEvent {
                topic,
                text,
                traced,
            });
        }
        drop(queue);
        if is_kept {
            self.0.wake.notify_one();
        }
    }
}

/// What a listener gets next.
#[derive(Debug, Clone)]
pub enum Delivered {
    /// An event.
    Event(ListenerEvent),
    /// So many events are lost: the listener was too slow.
    Gap(u64),
}

/// One that listens.
pub struct Listener {
    events: broadcast::Receiver<ListenerEvent>,
    subjects: Vec<Subject>,
}

impl Listener {
    /// Waits for the next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Delivered> {
        loop {
            match self.events.recv().await {
                Ok(told) => {
                    let traced = told.traced.as_deref();
                    if traced.is_none_or(|message| self.subjects.iter().any(|s| s.fits(message))) {
                        return Some(Delivered::Event(told));
                    }
                }
                Err(RecvError::Lagged(lost)) => return Some(Delivered::Gap(lost)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn fields(event: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(event) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The runtime's clock, which a test may move.
pub(super) fn now() -> Now {
    Now {
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: clock::unix_now_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn room(name: &str) -> Notice {
        Notice::RoomStarted { room: name.into() }
    }

    fn id(told: &str) -> Value {
        serde_json::from_str::<Value>(told).unwrap()["id"].clone()
    }

    #[tokio::test]
    async fn backend_and_listeners_get_the_same_events_in_the_same_order() {
        let events = Events::new("box", 7);
        events.notice(room("unheard"));
        events.deliver_to_backend(true);
        let mut listener = events.listen(vec![]).unwrap();
        events.notice(room("a"));
        events.show(Topic::Warning, "warning", &json!({"message": "only shown"}));
        events.push(Topic::Relay, "relay-ended", &json!({"bytes": 3}));
        let body = events.queue().next_batch(now()).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let kept = body["events"].as_array().unwrap();
        assert_eq!(kept.len(), 2, "{body}");
        let mut got = vec![];
        for _ in 0..3 {
            if let Some(Delivered::Event(told)) = listener.next().await {
                got.push(told);
            }
        }
        let topics: Vec<_> = got.iter().map(|told| told.topic.as_str()).collect();
        assert_eq!(topics, ["room", "warning", "relay"]);
        assert_eq!(id(&got[0].text), kept[0]["id"]);
        assert_eq!(id(&got[2].text), kept[1]["id"]);
    }

    #[tokio::test]
    async fn a_slow_listener_learns_how_many_it_lost() {
        let events = Events::new("box", 7);
        let mut listener = events.listen(vec![]).unwrap();
        for n in 0..LISTENER_LAG + 10 {
            events.notice(room(&n.to_string()));
        }
        assert!(matches!(listener.next().await, Some(Delivered::Gap(10))));
        assert!(matches!(listener.next().await, Some(Delivered::Event(_))));
    }

    #[test]
    fn listeners_are_bounded_and_without_any_nothing_is_made() {
        let events = Events::new("box", 7);
        assert!(!events.is_wanted());
        let listeners: Vec<_> = std::iter::from_fn(|| events.listen(vec![])).collect();
        assert_eq!(listeners.len(), MAX_LISTENERS);
        drop(listeners);
        assert!(!events.is_wanted());
    }
}
