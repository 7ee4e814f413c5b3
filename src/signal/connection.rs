//! One WebSocket connection: one task that reads, writes and keeps the heartbeat.
//!
//! It frames and parses; what a message means is the hub's business.

mod buffered_socket;
mod consult;
mod ending;
mod heartbeat;
mod parking;

use super::carrier::Carrier;
use super::dialect::{Asked, Closing, Dialect, Incoming, Outgoing, Output};
use super::driver::{Admission, DialectStats, Driver};
use super::hub::{self, Input, Loss};
use super::websocket::{Decoder, Event, Next, Opcode, server_frames};
use crate::auth::Grant;
use crate::protocol::{
    ClientMessage, CloseCode, ExchangeRequest, MessageType, PeerId, Request, RequestError,
};
use buffered_socket::BufferedSocket;
use consult::Pending;
pub use consult::{Consent, Consult, Consulted, Consulting, Inquiry};
use ending::End;
use heartbeat::{Heartbeat, Ping};
pub use parking::resume;
use secrecy::{ExposeSecret, SecretString};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    /// What the dialect at hand asks of the hub, kept for its capacity.
    static REQUESTS: RefCell<Vec<Asked>> = const { RefCell::new(vec![]) };
}

/// How connections are run.
#[derive(Clone)]
pub struct ConnectionSettings {
    /// Time between pings.
    pub heartbeat: Duration,
    /// How long a pong, or room in the socket's buffer, may take.
    pub timeout: Duration,
    /// The largest frame, bytes.
    pub max_frame: usize,
    /// Judges the token of a frame, or of the connection.
    pub authorize: Authorize,
    /// Asks the operator's backend, where there is one.
    pub consult: Option<Arc<dyn Consult>>,
    /// Fetches the key that a token names, where keys are fetched.
    pub fetch_key: Option<FetchKey>,
}

/// Has the key of a token fetched; `None` where it is known, or not to be fetched now.
pub type FetchKey = Arc<dyn Fn(&str) -> Option<Fetching> + Send + Sync>;

/// A fetch that ends.
pub type Fetching = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Turns a token, or the lack of one, into rights.
pub type Authorize = Arc<dyn Fn(Option<&str>) -> Result<Grant, RequestError> + Send + Sync>;

/// Runs a connection until it ends; `token` came with the request.
pub fn run<C: Carrier, D: Dialect>(
    carrier: C,
    dialect: D,
    admission: Admission,
    token: Option<SecretString>,
    settings: ConnectionSettings,
) -> impl Future<Output = ()> {
    // Made outside of the future, which would otherwise hold it twice.
    let mut connection = Connection::new(carrier, dialect, admission, token, settings);
    async move {
        let (conn, client) = (connection.admission.conn, connection.admission.client);
        connection.driver().input(Input::Connected {
            conn,
            client,
            dialect: connection.admission.dialect,
            lobby: connection.free_lobby(),
        });
        connection.open();
        connection.live().await;
    }
}

struct Connection<C: Carrier, D: Dialect> {
    socket: BufferedSocket<C>,
    dialect: D,
    decoder: Decoder,
    /// The message that was unfinished when the heartbeat was last due.
    unfinished: Option<u64>,
    /// Whether the hub knows of the end.
    hub_notified: bool,
    /// How the dialect wants the connection to end.
    wants_end: Option<Closing>,
    /// The request that waits for an answer or a key.
    pending: Option<Box<Pending>>,
    /// What the dialect asked of the hub behind it: what one message makes, for no more is read.
    deferred: VecDeque<Asked>,
    admission: Admission,
    token: Option<SecretString>,
    settings: ConnectionSettings,
    opened: Instant,
    /// The last sequence number written, and whose session it is of.
    sent: Option<(PeerId, u64)>,
    heartbeat: Heartbeat,
    /// It was asked to stop for a successor, and waits for the answer to [`Self::pending`] before it does.
    is_to_stop: bool,
    /// The payload of a ping with which the hub asked for a sign of life.
    probe: Option<u64>,
    /// The task that the timer wakes, by its waker's data.
    timed: Option<usize>,
}

impl<C: Carrier, D: Dialect> Connection<C, D> {
    fn new(
        carrier: C,
        dialect: D,
        admission: Admission,
        token: Option<SecretString>,
        settings: ConnectionSettings,
    ) -> Self {
        let heartbeat = Heartbeat::new(Instant::now() + settings.heartbeat);
        Self {
            socket: BufferedSocket::new(carrier, settings.timeout),
            dialect,
            decoder: Decoder::default(),
            unfinished: None,
            hub_notified: false,
            wants_end: None,
            pending: None,
            deferred: VecDeque::new(),
            admission,
            token,
            settings,
            opened: Instant::now(),
            sent: None,
            heartbeat,
            is_to_stop: false,
            probe: None,
            timed: None,
        }
    }

    /// Runs until it ends, here or by going on elsewhere.
    async fn live(&mut self) {
        let mut timer = pin!(sleep_until(self.heartbeat.at));
        let end = loop {
            match poll_fn(|cx| self.poll(cx, timer.as_mut())).await {
                End::Parked if self.leave() => return self.driver().taken().await,
                End::Parked => {}
                end => break end,
            }
        };
        self.hub_notified = true;
        if let Some(loss) = end.loss() {
            let conn = self.admission.conn;
            self.driver().input(Input::Closed { conn, loss });
        }
        self.log_closed(&end);
        self.admission.outbox.abandon();
        self.close(end).await;
    }

    fn driver(&self) -> &Driver {
        self.admission.driver()
    }

    /// Does what can be done without waiting; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            self.is_to_stop |= self.admission.outbox.is_asked_to_park();
            if self.is_to_stop && !self.waits_for_answer() {
                self.is_to_stop = false;
                match self.can_stop() {
                    true => return Poll::Ready(End::Parked),
                    false => self.driver().stays(self.admission.conn),
                }
            }
            match self.poll_write(cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) if self.wants_end.is_some() => {
                    return Poll::Ready(End::Lost(Loss::Disconnected, self.wants_end.take()));
                }
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    if let Poll::Ready(closing) = self.admission.outbox.poll_overflowed(cx) {
                        return Poll::Ready(End::Close(closing));
                    }
                }
            }
            self.poll_consent(cx);
            if self.is_to_stop && !self.waits_for_answer() {
                continue;
            }
            // A client that reads little is not read, or the answers would pile up. Nothing is lost: its
            // bytes are read as soon as the socket has room.
            if self.accepts_input()
                && let Poll::Ready(read) = self.poll_read(cx)
            {
                match read {
                    Ok(()) => continue,
                    Err(end) => return Poll::Ready(end),
                }
            }
            let at = self.deadline();
            let dialect_at = self.dialect.next_timeout().map(Instant::from_std);
            let held_until = self.admission.outbox.held_until().map(Instant::from_std);
            let wakes = dialect_at.into_iter().chain(held_until);
            let first = wakes.fold(at, Instant::min);
            if timer.deadline() != first {
                timer.as_mut().reset(first);
                self.timed = None;
            }
            let task = cx.waker().data().addr();
            // Mostly the timer knows this task already, and has nothing new to say.
            if self.timed == Some(task) && !timer.is_elapsed() {
                return Poll::Pending;
            }
            // A timer that is polled without budget does not learn of the task.
            self.timed = Some(task).filter(|task| *task != 0 && has_budget_remaining());
            ready!(timer.as_mut().poll(cx));
            self.timed = None;
            if dialect_at.is_some_and(|dialect_at| dialect_at <= first) {
                let now = now(&self.dialect, self.opened);
                self.speak(|dialect, out| dialect.timed_out(now, out));
            }
            if at <= first
                && let Err(end) = self.time_is_up()
            {
                return Poll::Ready(end);
            }
        }
    }

    /// Whether so little waits for the client that more of its messages are read.
    fn accepts_input(&self) -> bool {
        let now = || Instant::now().into_std();
        self.wants_end.is_none()
            && self.pending.is_none()
            && self.socket.is_light()
            && self.driver().is_open()
            && self.admission.outbox.is_light(now)
    }

    /// Writes until nothing waits: ready with `Ok` when all is out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // Mostly a client has spoken, and nothing waits for it.
        if self.socket.is_clear() && self.admission.outbox.is_idle(cx) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_send(cx, &self.admission.outbox))?;
            match self.poll_gather(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(closing)) => return Poll::Ready(Err(End::Close(closing))),
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Has a batch of the outbox written in the words of the dialect.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closing>> {
        let outbox = &self.admission.outbox;
        let (sent, ping) = (&mut self.sent, &mut self.heartbeat.ping);
        let (dialect, wants_end) = (&mut self.dialect, &mut self.wants_end);
        let socket = &mut self.socket;
        let stats = match D::IS_NATIVE {
            true => None,
            false => Some(self.admission.driver().stats().of(self.admission.dialect)),
        };
        let mut is_probed = false;
        let gathered = REQUESTS.with_borrow_mut(|requests| {
            let opened = self.opened;
            let mut read_clock = None;
            let each = |frame: &Outgoing, buffer: &mut Vec<u8>| {
                if !D::IS_NATIVE && matches!(frame.event, hub::Event::Probe) {
                    is_probed = true;
                    return;
                }
                let before = buffer.len();
                // Mostly nothing waits, and nobody asks for the time.
                let now = *read_clock.get_or_insert_with(|| now(&*dialect, opened));
                let mut out = Output::new(buffer, requests, wants_end);
                dialect.encode(frame, now, &mut out);
                if let Some(stats) = stats {
                    // What has waited for this may be read now.
                    stats.received.inc_by(out.read().unwrap_or(0));
                    stats.sent.inc_by(server_frames(&buffer[before..]));
                }
                if let Some(seq) = frame.seq {
                    *sent = Some((frame.peer, seq));
                }
                if let (Some(1), Some(ping)) = (frame.seq, ping.as_mut()) {
                    // Another session begins: the ping that is out confirms nothing of it.
                    ping.confirms = None;
                }
            };
            socket.poll_gather::<D>(cx, outbox, each)
        });
        if is_probed {
            let payload: u64 = rand::random();
            self.socket.queue(Opcode::Ping, &payload.to_be_bytes());
            self.probe = Some(payload);
        }
        self.ask();
        gathered
    }

    /// Lets the dialect do something, and carries out what it asks for.
    fn speak(&mut self, call: impl FnOnce(&mut D, &mut Output<'_>)) {
        REQUESTS.with_borrow_mut(|requests| {
            let frames = self.socket.frames();
            let before = frames.len();
            call(
                &mut self.dialect,
                &mut Output::new(frames, requests, &mut self.wants_end),
            );
            if !D::IS_NATIVE && self.socket.frames().len() > before {
                let sent = server_frames(&self.socket.frames()[before..]);
                self.dialect_stats().sent.inc_by(sent);
            }
        });
        self.ask();
    }

    fn dialect_stats(&self) -> &DialectStats {
        self.driver().stats().of(self.admission.dialect)
    }

    fn authorize(&self, token: Option<&SecretString>) -> Result<Grant, RequestError> {
        (self.settings.authorize)(token.map(ExposeSecret::expose_secret))
    }

    /// Begins: where the token cannot come later, it is judged now.
    fn open(&mut self) {
        if self.admission.dialect.authenticates_at_once()
            && self.authorize(self.token.as_ref()).is_err()
        {
            self.wants_end = Some(Closing {
                code: CloseCode::Unauthorized,
                reason: "the connection needs a valid ?token=",
            });
            return;
        }
        let now = self.opened.into_std();
        self.speak(|dialect, out| dialect.opened(now, out));
        if self.pending.is_none() {
            self.ask_for_lobby();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.poll_events(cx, |connection, event| connection.take_event(event))
    }

    /// Reads once, unless the decoder was paused, and hands what it finds to `take`.
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Self, Event<'_>) -> Result<Next, End>,
    ) -> Poll<Result<(), End>> {
        let max = self.settings.max_frame;
        buffered_socket::with_buffer(|buffer| {
            let length = match self.decoder.is_paused() {
                true => 0,
                false => ready!(self.socket.poll_read(cx, buffer))?,
            };
            let mut decoder = std::mem::take(&mut self.decoder);
            let fed = decoder.feed(&mut buffer[..length], max, |event| take(self, event));
            self.decoder = decoder;
            Poll::Ready(fed)
        })
    }

    fn take_event(&mut self, event: Event<'_>) -> Result<Next, End> {
        let conn = self.admission.conn;
        match event {
            Event::Text(text) => self.decode(Incoming::Text(text)),
            Event::Binary(bytes) => self.decode(Incoming::Binary(bytes)),
            Event::Ping(payload) => {
                self.count_control_frame()?;
                self.socket.queue(Opcode::Pong, payload);
            }
            Event::Pong(payload) => {
                if self
                    .probe
                    .take_if(|probe| payload == probe.to_be_bytes())
                    .is_some()
                {
                    self.driver().input(Input::Alive { conn });
                    return Ok(Next::Go);
                }
                let answers = |ping: &mut Ping| payload == ping.payload.to_be_bytes();
                let Some(ping) = self.heartbeat.ping.take_if(answers) else {
                    self.count_control_frame()?;
                    return Ok(Next::Go);
                };
                self.heartbeat = Heartbeat::new(Instant::now() + self.settings.heartbeat);
                if let Some((peer, seq)) = ping.confirms {
                    self.driver().input(Input::Confirmed { conn, peer, seq });
                }
            }
            Event::Close(code) => return Err(End::Left(code)),
        }
        Ok(match self.accepts_input() {
            true => Next::Go,
            false => Next::Pause,
        })
    }

    fn decode(&mut self, message: Incoming<'_>) {
        let now = now(&self.dialect, self.opened);
        let mut read = 0;
        self.speak(|dialect, out| {
            dialect.decode(message, now, out);
            // The limits hold for what a dialect passes over, too.
            out.ask_at_least(idle);
            read = out.read().unwrap_or(1);
        });
        if !D::IS_NATIVE {
            self.dialect_stats().received.inc_by(read);
        }
    }
}

/// What asks for nothing.
fn idle() -> Asked {
    Ok(ClientMessage {
        id: None,
        kind: MessageType::Message,
        request: Request::Exchange(ExchangeRequest::Idle),
        dialect: None,
    })
}

/// The time for a dialect that asks for it.
fn now(dialect: &impl Dialect, opened: Instant) -> std::time::Instant {
    match dialect.is_timeless() {
        true => opened.into_std(),
        false => Instant::now().into_std(),
    }
}

impl<C: Carrier, D: Dialect> Drop for Connection<C, D> {
    /// Reports the end to the hub, whatever ends the task: a session without a socket would be online
    /// for ever.
    fn drop(&mut self) {
        if !self.hub_notified {
            let (conn, loss) = (self.admission.conn, Loss::Disconnected);
            self.driver().input(Input::Closed { conn, loss });
        }
    }
}

#[cfg(test)]
mod tests;
