//! A connection that HTTP requests carry: what stands for its socket, and where requests attach.
//!
//! The connection's task reads and writes frames of RFC 6455, as with a socket. The mailbox cuts
//! what the task writes into messages, which wait for a request that fetches them, and puts what
//! requests bring into frames. It answers pings by itself: the client is there as long as requests
//! come. Bounded: beyond [`CAPACITY`] the task has no room to write, as with a full socket.

mod carrier;
mod parking;
mod probe;
#[cfg(test)]
mod tests;

pub use carrier::MailboxCarrier;
pub use probe::Probe;

use super::carrier::Message;
use super::dialect::Incoming;
use super::websocket::{self, Opcode};
use carrier::Adopted;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of messages that may wait for a request; the rest waits in the outbox.
const CAPACITY: usize = 16 * 1024;
/// Bytes of requests that may wait for the task, on top of one message.
const MAX_UNREAD: usize = 64 * 1024;
/// Bytes of fetched messages that are kept for a client that did not get them.
const MAX_KEPT: usize = 16 * 1024;

/// How the connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Goodbye {
    /// The status of the close frame, where there was one.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: String,
}

/// What a fetch brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Messages; behind the last ones there may be the end.
    Messages(Vec<Message>),
    /// The connection has ended.
    Ended(Goodbye),
    /// A later request fetches now, or another transport or process carries the connection.
    Superseded,
}

/// The client is gone, or the connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// What was asked for again is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap;

/// Where the requests of one client meet its connection.
#[derive(Debug)]
pub struct Mailbox {
    state: Mutex<State>,
    /// Room for more of what requests bring.
    room: Notify,
    idle: Duration,
    keeps: bool,
    /// What another process finds it by.
    label: OnceLock<String>,
}

#[derive(Debug)]
struct State {
    /// Frames of the client that the task has not read.
    unread: VecDeque<u8>,
    task_reads: Option<Waker>,
    /// The beginning of a frame of the task.
    partial: Vec<u8>,
    /// Whole messages of the task, and their bytes.
    waiting: VecDeque<Message>,
    bytes: usize,
    task_writes: Option<Waker>,
    /// Fetched messages that the client has not confirmed by asking for more.
    kept: VecDeque<Message>,
    kept_bytes: usize,
    /// The number of the last message that was taken out of `kept` for good.
    lost: Option<u64>,
    fetcher: Option<Waker>,
    fetch: u64,
    /// Requests that are attached, and when the last one was.
    attached: u32,
    seen: Instant,
    /// The task has said goodbye.
    goodbye: Option<Goodbye>,
    /// The task is gone, or the client is.
    closed: bool,
    /// What takes the place of requests.
    adopted: Option<Adopted>,
    upgraded: bool,
    /// Another process goes on with it.
    parked: bool,
}

impl State {
    fn new() -> Self {
        Self {
            unread: VecDeque::new(),
            task_reads: None,
            partial: vec![],
            waiting: VecDeque::new(),
            bytes: 0,
            task_writes: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            lost: None,
            fetcher: None,
            fetch: 0,
            attached: 0,
            seen: Instant::now(),
            goodbye: None,
            closed: false,
            adopted: None,
            upgraded: false,
            parked: false,
        }
    }
}

impl Mailbox {
    /// Makes a mailbox and what its connection's task runs on. Without a request for `idle` the
    /// client counts as gone; `keeps` has fetched messages kept until the client asks for more.
    pub fn new(idle: Duration, keeps: bool) -> (Arc<Self>, MailboxCarrier) {
        let mailbox = Arc::new(Self {
            state: Mutex::new(State::new()),
            room: Notify::new(),
            idle,
            keeps,
            label: OnceLock::new(),
        });
        let carrier = MailboxCarrier::new(Arc::clone(&mailbox));
        (mailbox, carrier)
    }

    /// Hands a message of the client to the task; waits while too much is unread.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn put(&self, message: Incoming<'_>) -> Result<(), Closed> {
        loop {
            let has_room = self.room.notified();
            {
                let mut state = self.lock();
                if state.closed || state.goodbye.is_some() {
                    return Err(Closed);
                }
                state.seen = Instant::now();
                // A message that nobody takes is not confirmed: the request ends with the process.
                if !state.parked && state.unread.len() < MAX_UNREAD {
                    let (opcode, payload) = match message {
                        Incoming::Text(text) => (Opcode::Text, text.as_bytes()),
                        Incoming::Binary(bytes) => (Opcode::Binary, bytes),
                    };
                    state.say(opcode, payload);
                    return Ok(());
                }
            }
            has_room.await;
        }
    }

    /// Lets a message out that the task has not said.
    pub fn slip(&self, message: Message) {
        self.lock().deliver(message);
    }

    /// Begins to fetch, in place of an earlier request. `after` names the last message that the
    /// client got: later ones come again.
    ///
    /// # Errors
    /// They are no longer there.
    pub fn fetch(self: &Arc<Self>, after: Option<u64>) -> Result<Fetch, Gap> {
        let mut state = self.lock();
        if let Some(after) = after {
            for message in state.behind(after)? {
                state.bytes += message.len();
                state.waiting.push_front(message);
            }
        }
        state.confirm();
        state.fetch += 1;
        state.attached += 1;
        wake(&mut state.fetcher);
        Ok(Fetch {
            number: state.fetch,
            mailbox: Arc::clone(self),
        })
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether another transport carries the connection now.
    pub fn is_upgraded(&self) -> bool {
        self.lock().upgraded
    }

    /// The client is gone.
    pub fn close(&self) {
        let mut state = self.lock();
        if state.parked {
            return;
        }
        state.closed = true;
        state.wake_all();
        drop(state);
        self.room.notify_waiters();
    }

    fn poll_next(&self, cx: &Context<'_>, fetch: u64) -> Poll<Fetched> {
        let mut state = self.lock();
        if state.fetch != fetch || state.upgraded || state.parked {
            return Poll::Ready(Fetched::Superseded);
        }
        if !state.waiting.is_empty() {
            let messages: Vec<_> = state.waiting.drain(..).collect();
            state.bytes = 0;
            wake(&mut state.task_writes);
            if self.keeps {
                messages.iter().for_each(|message| state.keep(message));
            }
            return Poll::Ready(Fetched::Messages(messages));
        }
        if let Some(goodbye) = state.goodbye.clone() {
            // The client knows: the task need not wait for more.
            if !state.closed {
                let code = goodbye
                    .code
                    .map_or(vec![], |code| code.to_be_bytes().to_vec());
                state.say(Opcode::Close, &code);
            }
            return Poll::Ready(Fetched::Ended(goodbye));
        }
        if state.closed {
            return Poll::Ready(Fetched::Ended(Goodbye::default()));
        }
        state.fetcher = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts a frame of the client before the task.
    fn say(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = vec![];
        websocket::write_client_frame(&mut frame, opcode, payload);
        self.unread.extend(frame);
        wake(&mut self.task_reads);
    }

    fn deliver(&mut self, message: Message) {
        self.bytes += message.len();
        self.waiting.push_back(message);
        wake(&mut self.fetcher);
    }

    /// Takes what is kept behind a number, the last first. The numbers of a new session begin anew.
    fn behind(&mut self, after: u64) -> Result<impl Iterator<Item = Message> + use<>, Gap> {
        let place = |is: &dyn Fn(u64) -> bool| {
            let found = self
                .kept
                .iter()
                .rposition(|kept| kept.seq().is_some_and(is));
            found.map(|place| place + 1)
        };
        let start = match (place(&|seq| seq == after), self.lost) {
            (Some(start), _) => start,
            (None, Some(lost)) if lost > after => return Err(Gap),
            (None, Some(lost)) if lost == after => 0,
            (None, _) => place(&|seq| seq <= after).unwrap_or(0),
        };
        Ok(self.kept.split_off(start).into_iter().rev())
    }

    /// The client has what is kept.
    fn confirm(&mut self) {
        let last = self.kept.iter().rev().find_map(Message::seq);
        self.lost = last.or(self.lost);
        self.kept.clear();
        self.kept_bytes = 0;
    }

    fn keep(&mut self, message: &Message) {
        self.kept_bytes += message.len();
        self.kept.push_back(message.clone());
        while self.kept_bytes > MAX_KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.len();
            self.lost = oldest.seq().or(self.lost);
        }
    }

    /// Takes what the task writes.
    fn take(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = &partial[..];
        while let Some((opcode, payload, after)) = websocket::split_server_frame(rest) {
            rest = after;
            match opcode {
                Opcode::Text => self.deliver(Message::Text(lossy(payload))),
                Opcode::Binary => self.deliver(Message::Binary(payload.to_vec())),
                Opcode::Ping => self.say(Opcode::Pong, payload),
                Opcode::Close => {
                    let (code, reason) = match payload {
                        [a, b, reason @ ..] => (Some(u16::from_be_bytes([*a, *b])), lossy(reason)),
                        _ => (None, String::new()),
                    };
                    self.goodbye = Some(Goodbye { code, reason });
                    wake(&mut self.fetcher);
                }
                Opcode::Pong | Opcode::Continuation => {}
            }
        }
        self.partial = rest.to_vec();
    }

    fn wake_all(&mut self) {
        wake(&mut self.fetcher);
        wake(&mut self.task_reads);
        wake(&mut self.task_writes);
    }
}

/// A request that fetches; dropped, the client is on its own for a while.
#[derive(Debug)]
pub struct Fetch {
    number: u64,
    mailbox: Arc<Mailbox>,
}

impl Fetch {
    /// The next messages, or the end.
    pub async fn next(&mut self) -> Fetched {
        poll_fn(|cx| self.mailbox.poll_next(cx, self.number)).await
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut state = self.mailbox.lock();
        state.attached -= 1;
        state.seen = Instant::now();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The messages among frames of a server.
#[cfg(any(test, fuzzing))]
pub fn server_messages(mut frames: &[u8]) -> Vec<Message> {
    let mut messages = vec![];
    while let Some((opcode, payload, rest)) = websocket::split_server_frame(frames) {
        frames = rest;
        match opcode {
            Opcode::Text => messages.push(Message::Text(lossy(payload))),
            Opcode::Binary => messages.push(Message::Binary(payload.to_vec())),
            _ => {}
        }
    }
    messages
}

/// The task writes texts as texts.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
