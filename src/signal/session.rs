//! One WebSocket connection: one task that reads, writes and keeps the heartbeat.
//!
//! It frames and parses; what a message means is the hub's business. Buffers belong to the thread:
//! a connection that waits holds none.

use super::driver::{Admission, Driver};
use super::hub::{Input, Loss};
use super::outbox::Closing;
use super::websocket::{self, Decoder, Event, Next, Opcode, Violation};
use crate::auth::Grant;
use crate::protocol::{self, CloseCode, FrameError, PeerId, Refusal};
use secrecy::{ExposeSecret, SecretString};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Bytes read at once: some session descriptions.
const READ_BATCH: usize = 16 * 1024;
/// Bytes gathered for one write; more would only grow the buffer under it. Also what a client has to
/// take within the timeout once its socket is full.
const WRITE_BATCH: usize = 16 * 1024;
/// How long a connection that is being closed may take to say goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The same for a consumer that fell behind: it has yet to read what the kernel holds for it.
const SLOW_CLOSE_WAIT: Duration = Duration::from_secs(30);
/// Pings and pongs that a client may send between two heartbeats. Browsers send none, libraries
/// one in some seconds.
const MAX_CONTROL_FRAMES: u32 = 1_000;
/// Longest reason in a close frame, bytes: a control frame without its code (RFC 6455 section 5.5).
const MAX_CLOSE_REASON: usize = 123;

thread_local! {
    /// What the connection at hand reads into.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BATCH]);
    /// What it gathers its frames in.
    static WRITE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(2 * WRITE_BATCH));
}

/// How connections are run.
#[derive(Clone)]
pub struct SessionSettings {
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
pub type Authorize = Arc<dyn Fn(Option<&str>) -> Result<Grant, Refusal> + Send + Sync>;

/// Runs a connection that was upgraded to WebSocket until it ends; `token` came with the request.
pub fn run<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    admission: Admission,
    token: Option<SecretString>,
    settings: SessionSettings,
) -> impl Future<Output = ()> {
    let heartbeat = Heartbeat {
        at: Instant::now() + settings.heartbeat,
        ping: None,
        control_frames: 0,
    };
    // Made outside of the future, which would otherwise hold it twice.
    let mut session = Session {
        socket,
        decoder: Decoder::default(),
        unsent: vec![],
        from_outbox: 0,
        unflushed: false,
        blocked: None,
        unfinished: None,
        told: false,
        admission,
        token,
        settings,
        sent: None,
        heartbeat,
    };
    async move {
        let (conn, client) = (session.admission.conn, session.admission.client);
        session.driver().input(Input::Connected { conn, client });
        let end = {
            let mut timer = pin!(sleep_until(session.heartbeat.at));
            poll_fn(|cx| session.poll(cx, timer.as_mut())).await
        };
        session.told = true;
        if let Some(loss) = end.loss() {
            session.driver().input(Input::Closed { conn, loss });
        }
        session.say_goodbye(end).await;
    }
}

struct Session<S: AsyncRead + AsyncWrite + Unpin> {
    socket: S,
    decoder: Decoder,
    /// Bytes that the socket had no room for, or that go before the next frames.
    unsent: Vec<u8>,
    /// How much of the outbox's capacity they take up.
    from_outbox: usize,
    /// Whether the socket may hold bytes back until it is flushed, as TLS does.
    unflushed: bool,
    /// There while the socket has no room.
    blocked: Option<Blocked>,
    /// The message that was unfinished when the heartbeat was last due.
    unfinished: Option<u64>,
    /// Whether the hub knows of the end.
    told: bool,
    admission: Admission,
    token: Option<SecretString>,
    settings: SessionSettings,
    /// The last sequence number written, and whose session it is of.
    sent: Option<(PeerId, u64)>,
    heartbeat: Heartbeat,
}

struct Blocked {
    /// When it is given up.
    until: Instant,
    /// Bytes that it took since that was set.
    taken: usize,
}

/// How a connection ended.
enum End {
    /// The hub closed it.
    Close(Closing),
    /// The hub has yet to hear of it; the client may still be told why.
    Lost(Loss, Option<Closing>),
    /// The client said goodbye, maybe with a code, and waits for the same.
    Left(Option<u16>),
}

impl End {
    fn loss(&self) -> Option<Loss> {
        match self {
            // The outbox closes a slow consumer by itself: the hub does not know.
            Self::Close(closing) if closing.code == CloseCode::SlowConsumer => {
                Some(Loss::Disconnected)
            }
            Self::Close(_) => None,
            Self::Lost(loss, _) => Some(*loss),
            Self::Left(_) => Some(Loss::Disconnected),
        }
    }

    fn lost() -> Self {
        Self::Lost(Loss::Disconnected, None)
    }

    fn broken(code: CloseCode, reason: &'static str) -> Self {
        Self::Lost(Loss::Disconnected, Some(Closing { code, reason }))
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::lost()
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Framing(how) => Self::broken(CloseCode::ProtocolError, how),
            Violation::NotUtf8 => Self::broken(CloseCode::BadUtf8, "a text frame is UTF-8"),
            Violation::TooLarge => {
                Self::broken(CloseCode::TooLarge, "the frame is over signal.max_frame")
            }
        }
    }
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

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn driver(&self) -> &Driver {
        self.admission.driver()
    }

    /// Does what can be done without waiting; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            match self.poll_write(cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    if let Poll::Ready(closing) = self.admission.outbox.poll_overflowed(cx) {
                        return Poll::Ready(End::Close(closing));
                    }
                }
            }
            // Who takes little is not listened to, or the answers would pile up. Nothing is missed:
            // it is asked again as soon as the socket has room.
            if self.admission.outbox.is_light()
                && let Poll::Ready(read) = self.poll_read(cx)
            {
                match read {
                    Ok(()) => continue,
                    Err(end) => return Poll::Ready(end),
                }
            }
            let at = self.deadline();
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if let Err(end) = self.time_is_up(cx) {
                return Poll::Ready(end);
            }
        }
    }

    /// A full socket is not pinged.
    fn deadline(&self) -> Instant {
        match (&self.blocked, &self.heartbeat.ping) {
            (None, _) => self.heartbeat.at,
            (Some(blocked), None) => blocked.until,
            (Some(blocked), Some(_)) => blocked.until.min(self.heartbeat.at),
        }
    }

    /// Writes until nothing waits: ready with `Ok` when all is out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            if let Err(error) = ready!(self.poll_send(cx)) {
                return Poll::Ready(Err(error.into()));
            }
            match WRITE.with_borrow_mut(|buffer| self.poll_gather(cx, buffer)) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(closing)) => return Poll::Ready(Err(End::Close(closing))),
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Frames a batch of the outbox and writes what the socket takes of it; the rest is kept.
    /// Pending when nothing waits.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<Result<(), Closing>> {
        buffer.clear();
        let outbox = &self.admission.outbox;
        let (sent, ping) = (&mut self.sent, &mut self.heartbeat.ping);
        let gathered = outbox.poll_take(cx, WRITE_BATCH, |frame| {
            websocket::write_header(
                buffer,
                Opcode::Text,
                protocol::frame_len(frame.seq, &frame.body),
            );
            protocol::write_frame(buffer, frame.seq, &frame.body);
            if let Some(seq) = frame.seq {
                *sent = Some((frame.peer, seq));
            }
            if let (Some(1), Some(ping)) = (frame.seq, ping.as_mut()) {
                // Another session begins: the ping that is out confirms nothing of it.
                ping.confirms = None;
            }
        });
        self.from_outbox = ready!(gathered)?;
        // An error, or no room, comes up again when the rest is sent.
        let written = match Pin::new(&mut self.socket).poll_write(cx, buffer) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.unflushed = true;
        if written < buffer.len() {
            self.unsent = buffer[written..].to_vec();
        } else {
            // A frame of any size may have passed.
            buffer.shrink_to(2 * WRITE_BATCH);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes and flushes what is unsent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (sent, taken) = self.poll_unsent(cx);
        if sent.is_ready() {
            self.blocked = None;
            return sent;
        }
        let timeout = self.settings.timeout;
        let fresh = || Blocked {
            until: Instant::now() + timeout,
            taken: 0,
        };
        let blocked = self.blocked.get_or_insert_with(fresh);
        blocked.taken += taken;
        if blocked.taken >= WRITE_BATCH {
            *blocked = fresh();
        }
        sent
    }

    /// Also tells how many bytes the socket took.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> (Poll<io::Result<()>>, usize) {
        let mut written = 0;
        let sent = loop {
            if written == self.unsent.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.unsent[written..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => {
                    written += more;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if written < self.unsent.len() {
            self.unsent.drain(..written);
            return (sent, written);
        }
        self.unsent = vec![];
        if self.from_outbox > 0 {
            self.admission
                .outbox
                .written(std::mem::take(&mut self.from_outbox));
        }
        if !self.unflushed {
            return (Poll::Ready(Ok(())), written);
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        (flushed, written)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let max = self.settings.max_frame;
        let is_paused = decoder.is_paused();
        let mut feed = |session: &mut Self, bytes: &mut [u8]| {
            decoder.feed(bytes, max, |event| session.take_event(event))
        };
        let read = match is_paused {
            true => Poll::Ready(feed(self, &mut [])),
            false => self.poll_feed(cx, &mut feed),
        };
        self.decoder = decoder;
        read
    }

    /// Hands what the socket has for us to `take`.
    fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Self, &mut [u8]) -> Result<(), End>,
    ) -> Poll<Result<(), End>> {
        READ.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            Poll::Ready(match read.filled_mut() {
                [] => Err(End::lost()),
                bytes => take(self, bytes),
            })
        })
    }

    fn take_event(&mut self, event: Event<'_>) -> Result<Next, End> {
        let conn = self.admission.conn;
        match event {
            Event::Text(text) => self.frame(text),
            Event::Binary => self.driver().input(Input::Frame {
                conn,
                message: Err(FrameError::binary()),
                grant: Ok(Grant::open()),
            }),
            Event::Ping(payload) => {
                self.count_control_frame()?;
                websocket::write_frame(&mut self.unsent, Opcode::Pong, payload);
            }
            Event::Pong(payload) => {
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
        Ok(match self.admission.outbox.is_light() {
            true => Next::Go,
            false => Next::Pause,
        })
    }

    fn count_control_frame(&mut self) -> Result<(), End> {
        self.heartbeat.control_frames += 1;
        if self.heartbeat.control_frames > MAX_CONTROL_FRAMES {
            return Err(End::broken(CloseCode::RateLimited, "too many pings"));
        }
        Ok(())
    }

    fn frame(&self, text: &str) {
        let message = protocol::parse(text);
        let grant = match &message {
            Ok(message) if message.wants_grant() => {
                let token = message.token().or(self.token.as_ref());
                (self.settings.authorize)(token.map(ExposeSecret::expose_secret))
            }
            _ => Ok(Grant::open()),
        };
        self.driver().input(Input::Frame {
            conn: self.admission.conn,
            message,
            grant,
        });
    }

    /// The socket had no room for too long, or the heartbeat is due.
    fn time_is_up(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = Instant::now();
        if self
            .blocked
            .as_ref()
            .is_some_and(|blocked| blocked.until <= now)
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
            // The pong may be there, unread since too much waits to be written.
            if let Poll::Ready(Err(end)) = self.poll_read(cx) {
                return Err(end);
            }
            if self.heartbeat.ping.is_none() {
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
        websocket::write_frame(&mut self.unsent, Opcode::Ping, &payload.to_be_bytes());
        self.heartbeat.at = now + self.settings.timeout;
        self.heartbeat.ping = Some(Ping {
            payload,
            confirms: self.sent,
        });
        Ok(())
    }

    /// Sends the close frame, and reads on until the client has answered it: dropping a socket
    /// with unread bytes resets the connection, and the client would never learn why.
    async fn say_goodbye(&mut self, end: End) {
        let (payload, patience, answered) = match end {
            End::Lost(_, None) => return,
            End::Left(code) => {
                let code = code.map_or(vec![], |code| code.to_be_bytes().to_vec());
                (code, CLOSE_WAIT, true)
            }
            End::Close(Closing { code, reason }) | End::Lost(_, Some(Closing { code, reason })) => {
                let reason = &reason[..reason.floor_char_boundary(MAX_CLOSE_REASON)];
                let payload = [&(code as u16).to_be_bytes(), reason.as_bytes()].concat();
                let patience = match code {
                    CloseCode::SlowConsumer => SLOW_CLOSE_WAIT,
                    _ => CLOSE_WAIT,
                };
                (payload, patience, false)
            }
        };
        websocket::write_frame(&mut self.unsent, Opcode::Close, &payload);
        let farewell = async {
            if poll_fn(|cx| self.poll_send(cx)).await.is_err() {
                return;
            }
            if !answered {
                while poll_fn(|cx| self.poll_answer(cx)).await.is_ok() {}
            }
            // Over TLS, the proof that nothing was cut off.
            let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
        };
        if timeout(patience, farewell).await.is_err() {
            tracing::debug!(client = %self.admission.client, "left without a goodbye");
        }
    }

    /// Passes over what the client says; fails when it has closed its side. Who broke the framing is
    /// not understood any more, but may still hang up.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let max = self.settings.max_frame;
        let read = self.poll_feed(cx, |_, bytes| {
            let fed = decoder.feed(bytes, max, |event| match event {
                Event::Close(code) => Err(End::Left(code)),
                _ => Ok(Next::Go),
            });
            fed.or_else(|end| match end {
                End::Left(_) => Err(end),
                _ => Ok(()),
            })
        });
        self.decoder = decoder;
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for Session<S> {
    /// A session without a socket would be online for ever: the hub hears of it whatever ends the
    /// task.
    fn drop(&mut self) {
        if !self.told {
            let (conn, loss) = (self.admission.conn, Loss::Disconnected);
            self.driver().input(Input::Closed { conn, loss });
        }
    }
}

#[cfg(test)]
mod tests;
