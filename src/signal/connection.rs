//! One WebSocket connection: one task that reads, writes and keeps the heartbeat.
//!
//! It frames and parses; what a message means is the hub's business.

mod buffered_socket;
mod ending;

use super::dialect::{Asked, Closing, Dialect, Incoming, Outgoing, Output};
use super::driver::{Admission, DialectStats, Driver};
use super::hub::{self, Input, Loss};
use super::websocket::{Decoder, Event, Next, Opcode};
use crate::auth::Grant;
use crate::protocol::{CloseCode, PeerId, RequestError};
use buffered_socket::BufferedSocket;
use ending::End;
use secrecy::{ExposeSecret, SecretString};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// Pings and pongs that a client may send between two heartbeats. Browsers send none, libraries
/// one in some seconds.
const MAX_CONTROL_FRAMES: u32 = 1_000;

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
}

/// Turns a token, or the lack of one, into rights.
pub type Authorize = Arc<dyn Fn(Option<&str>) -> Result<Grant, RequestError> + Send + Sync>;

/// What carries a connection: a stream of WebSocket frames, from a socket or from what stands for
/// one.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for T {}

/// Runs a connection until it ends; `token` came with the request.
pub fn run<C: Carrier, D: Dialect>(
    carrier: C,
    dialect: D,
    admission: Admission,
    token: Option<SecretString>,
    settings: ConnectionSettings,
) -> impl Future<Output = ()> {
    let heartbeat = Heartbeat {
        at: Instant::now() + settings.heartbeat,
        ping: None,
        control_frames: 0,
    };
    // Made outside of the future, which would otherwise hold it twice.
    let mut connection = Connection {
        socket: BufferedSocket::new(carrier, settings.timeout),
        dialect,
        decoder: Decoder::default(),
        unfinished: None,
        hub_notified: false,
        wants_end: None,
        admission,
        token,
        settings,
        opened: Instant::now(),
        sent: None,
        heartbeat,
        probe: None,
    };
    async move {
        let (conn, client) = (connection.admission.conn, connection.admission.client);
        connection.driver().input(Input::Connected {
            conn,
            client,
            dialect: connection.admission.dialect,
        });
        connection.open();
        let end = {
            let mut timer = pin!(sleep_until(connection.heartbeat.at));
            poll_fn(|cx| connection.poll(cx, timer.as_mut())).await
        };
        connection.hub_notified = true;
        if let Some(loss) = end.loss() {
            connection.driver().input(Input::Closed { conn, loss });
        }
        connection.log_closed(&end);
        connection.admission.outbox.abandon();
        connection.close(end).await;
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
    admission: Admission,
    token: Option<SecretString>,
    settings: ConnectionSettings,
    opened: Instant,
    /// The last sequence number written, and whose session it is of.
    sent: Option<(PeerId, u64)>,
    heartbeat: Heartbeat,
    /// The payload of a ping with which the hub asked for a sign of life.
    probe: Option<u64>,
}

struct Heartbeat {
    /// When to send the next ping, or to give up on the one that is out.
    at: Instant,
    ping: Option<Ping>,
    /// Pings and pongs of the client since the last answered ping.
    control_frames: u32,
}

/// A ping that waits for its pong.
struct Ping {
    /// Drawn anew each time: only who reads can answer.
    payload: u64,
    /// What was last sent before it; `None` once the session began anew since.
    confirms: Option<(PeerId, u64)>,
}

impl<C: Carrier, D: Dialect> Connection<C, D> {
    fn driver(&self) -> &Driver {
        self.admission.driver()
    }

    /// Does what can be done without waiting; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
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
            // Who takes little is not listened to, or the answers would pile up. Nothing is missed:
            // it is asked again as soon as the socket has room.
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
            }
            ready!(timer.as_mut().poll(cx));
            if dialect_at.is_some_and(|dialect_at| dialect_at <= first) {
                let now = now::<D>(self.opened);
                self.speak(|dialect, out| dialect.timed_out(now, out));
            }
            if at <= first
                && let Err(end) = self.time_is_up()
            {
                return Poll::Ready(end);
            }
        }
    }

    /// Whether so little waits for the client that it may say more.
    fn accepts_input(&self) -> bool {
        let now = || Instant::now().into_std();
        self.wants_end.is_none() && self.socket.is_light() && self.admission.outbox.is_light(now)
    }

    /// A full socket is not pinged.
    fn deadline(&self) -> Instant {
        match (self.socket.blocked_until(), &self.heartbeat.ping) {
            (None, _) => self.heartbeat.at,
            (Some(until), None) => until,
            (Some(until), Some(_)) => until.min(self.heartbeat.at),
        }
    }

    /// Writes until nothing waits: ready with `Ok` when all is out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
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
        let count = match D::IS_NATIVE {
            true => None,
            false => Some(
                &self
                    .admission
                    .driver()
                    .stats()
                    .of(self.admission.dialect)
                    .sent,
            ),
        };
        let mut is_probed = false;
        let gathered = REQUESTS.with_borrow_mut(|requests| {
            let now = now::<D>(self.opened);
            let each = |frame: &Outgoing, buffer: &mut Vec<u8>| {
                if !D::IS_NATIVE && matches!(frame.event, hub::Event::Probe) {
                    is_probed = true;
                    return;
                }
                dialect.encode(frame, now, &mut Output::new(buffer, requests, wants_end));
                if let Some(count) = count {
                    count.inc();
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
            call(
                &mut self.dialect,
                &mut Output::new(frames, requests, &mut self.wants_end),
            );
        });
        self.ask();
    }

    /// Hands the hub what the dialect asks of it.
    fn ask(&self) {
        REQUESTS.with_borrow_mut(|requests| {
            for message in requests.drain(..) {
                let grant = match &message {
                    Ok(message) if message.wants_grant() => {
                        self.authorize(message.token().or(self.token.as_ref()))
                    }
                    _ => Ok(Grant::open()),
                };
                self.driver().input(Input::Frame {
                    conn: self.admission.conn,
                    message,
                    grant,
                });
            }
        });
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
                self.heartbeat = Heartbeat {
                    at: Instant::now() + self.settings.heartbeat,
                    ping: None,
                    control_frames: 0,
                };
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
        if !D::IS_NATIVE {
            self.dialect_stats().received.inc();
        }
        let now = now::<D>(self.opened);
        self.speak(|dialect, out| dialect.decode(message, now, out));
    }

    fn count_control_frame(&mut self) -> Result<(), End> {
        self.heartbeat.control_frames += 1;
        if self.heartbeat.control_frames > MAX_CONTROL_FRAMES {
            return Err(End::broken(CloseCode::RateLimited, "too many pings"));
        }
        Ok(())
    }

    /// The socket had no room for too long, or the heartbeat is due.
    fn time_is_up(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self
            .socket
            .blocked_until()
            .is_some_and(|until| until <= now)
        {
            // A connection that was to end anyway ends as it was to.
            if let Some(closing) = self.admission.outbox.closing() {
                return Err(End::Close(closing));
            }
            self.driver().stats().slow_consumers.inc();
            return Err(End::broken(
                CloseCode::SlowConsumer,
                "too slow: too little could be written within signal.timeout",
            ));
        }
        if self.heartbeat.ping.is_some() {
            if let Some(closing) = self.admission.outbox.closing() {
                return Err(End::Close(closing));
            }
            if !self.accepts_input() {
                // The pong may be there, unread; meanwhile the full socket has its own deadline.
                self.heartbeat.at = now + self.settings.timeout;
                return Ok(());
            }
            let closing = Closing {
                code: CloseCode::HeartbeatTimeout,
                reason: "no pong within signal.timeout",
            };
            return Err(End::Lost(Loss::Timeout, Some(closing)));
        }
        // A frame that does not end keeps its sender from answering the ping; fragments do not.
        let unfinished = self.decoder.unfinished();
        if unfinished.is_some() && unfinished == self.unfinished {
            return Err(End::broken(
                CloseCode::ProtocolError,
                "a message did not end within signal.heartbeat",
            ));
        }
        self.unfinished = unfinished;
        let payload: u64 = rand::random();
        self.socket.queue(Opcode::Ping, &payload.to_be_bytes());
        self.heartbeat.at = now + self.settings.timeout;
        self.heartbeat.ping = Some(Ping {
            payload,
            confirms: self.sent,
        });
        Ok(())
    }
}

/// The time for a dialect that asks for it.
fn now<D: Dialect>(opened: Instant) -> std::time::Instant {
    match D::IS_NATIVE {
        true => opened.into_std(),
        false => Instant::now().into_std(),
    }
}

impl<C: Carrier, D: Dialect> Drop for Connection<C, D> {
    /// A session without a socket would be online for ever: the hub hears of it whatever ends the
    /// task.
    fn drop(&mut self) {
        if !self.hub_notified {
            let (conn, loss) = (self.admission.conn, Loss::Disconnected);
            self.driver().input(Input::Closed { conn, loss });
        }
    }
}

#[cfg(test)]
mod tests;
