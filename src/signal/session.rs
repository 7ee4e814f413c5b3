//! One WebSocket connection: one task that reads, writes and keeps the heartbeat.
//!
//! It frames and parses; what a message means is the hub's business. Buffers belong to the thread:
//! a connection that waits holds none.

use super::driver::{Admission, Driver};
use super::hub::{Input, Loss};
use super::outbox::Closing;
use super::websocket::{self, Decoder, Event, Opcode, Violation};
use crate::auth::Grant;
use crate::protocol::{self, CloseCode, FrameError, Refusal};
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
/// Bytes gathered for one write; more would only grow the buffer under it.
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
        blocked_until: None,
        admission,
        token,
        settings,
        sent: 0,
        heartbeat,
    };
    async move {
        let (conn, client) = (session.admission.conn, session.admission.client);
        session.driver().input(Input::Connected { conn, client });
        let end = {
            let mut timer = pin!(sleep_until(session.heartbeat.at));
            poll_fn(|cx| session.poll(cx, timer.as_mut())).await
        };
        if let Some(loss) = end.loss() {
            session.driver().input(Input::Closed { conn, loss });
        }
        session.say_goodbye(end).await;
    }
}

struct Session<S> {
    socket: S,
    decoder: Decoder,
    /// Bytes that the socket had no room for, or that go before the next frames.
    unsent: Vec<u8>,
    /// How much of the outbox's capacity they take up.
    from_outbox: usize,
    /// Whether the socket may hold bytes back until it is flushed, as TLS does.
    unflushed: bool,
    /// When a socket without room is given up.
    blocked_until: Option<Instant>,
    admission: Admission,
    token: Option<SecretString>,
    settings: SessionSettings,
    /// The last sequence number written.
    sent: u64,
    heartbeat: Heartbeat,
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
    /// The last sequence number sent before it; `None` once another session began since.
    confirms: Option<u64>,
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
                Poll::Ready(Ok(())) => match self.poll_read(cx) {
                    Poll::Ready(Err(end)) => return Poll::Ready(end),
                    Poll::Ready(Ok(())) => continue,
                    Poll::Pending => {}
                },
                // Who takes nothing is not listened to, or the answers would pile up.
                Poll::Pending => {
                    if let Poll::Ready(closing) = self.admission.outbox.poll_overflowed(cx) {
                        return Poll::Ready(End::Close(closing));
                    }
                }
            }
            let at = self.blocked_until.unwrap_or(self.heartbeat.at);
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if let Err(end) = self.time_is_up() {
                return Poll::Ready(end);
            }
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
            *sent = frame.seq.unwrap_or(*sent);
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
        let sent = self.poll_unsent(cx);
        if sent.is_pending() {
            let until = || Instant::now() + self.settings.timeout;
            self.blocked_until.get_or_insert_with(until);
        } else {
            self.blocked_until = None;
        }
        sent
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            return sent;
        }
        self.unsent = vec![];
        if self.from_outbox > 0 {
            self.admission
                .outbox
                .written(std::mem::take(&mut self.from_outbox));
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let max = self.settings.max_frame;
        let read = self.poll_feed(cx, |session, bytes| {
            decoder.feed(bytes, max, |event| session.take_event(event))
        });
        self.decoder = decoder;
        read
    }

    /// Hands what the socket has for us to `take`.
    fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Self, &mut [u8]) -> Result<(), End>,
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

    fn take_event(&mut self, event: Event<'_>) -> Result<(), End> {
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
                    return self.count_control_frame();
                };
                self.heartbeat = Heartbeat {
                    at: Instant::now() + self.settings.heartbeat,
                    ping: None,
                    control_frames: 0,
                };
                if let Some(seq) = ping.confirms {
                    self.driver().input(Input::Confirmed { conn, seq });
                }
            }
            Event::Close(code) => return Err(End::Left(code)),
        }
        Ok(())
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
    fn time_is_up(&mut self) -> Result<(), End> {
        if self.blocked_until.is_some() {
            return Err(End::broken(
                CloseCode::SlowConsumer,
                "too slow: nothing could be written within signal.timeout",
            ));
        }
        if self.heartbeat.ping.is_some() {
            let closing = Closing {
                code: CloseCode::HeartbeatTimeout,
                reason: "no pong within signal.timeout",
            };
            return Err(End::Lost(Loss::Timeout, Some(closing)));
        }
        let payload: u64 = rand::random();
        websocket::write_frame(&mut self.unsent, Opcode::Ping, &payload.to_be_bytes());
        self.heartbeat.at = Instant::now() + self.settings.timeout;
        self.heartbeat.ping = Some(Ping {
            payload,
            confirms: Some(self.sent),
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
            if poll_fn(|cx| self.poll_send(cx)).await.is_ok() && !answered {
                while poll_fn(|cx| self.poll_answer(cx)).await.is_ok() {}
            }
        };
        if timeout(patience, farewell).await.is_err() {
            tracing::debug!(client = %self.admission.client, "left without a goodbye");
        }
    }

    /// Passes over what the client says; fails when it has closed its side.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let max = self.settings.max_frame;
        let read = self.poll_feed(cx, |_, bytes| {
            let fed = decoder.feed(bytes, max, |event| match event {
                Event::Close(code) => Err(End::Left(code)),
                _ => Ok(()),
            });
            match fed {
                Err(End::Left(_)) => fed,
                // Whoever broke the framing is not understood, but may still hang up.
                _ => Ok(()),
            }
        });
        self.decoder = decoder;
        read
    }
}
