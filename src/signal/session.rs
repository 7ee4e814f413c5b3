//! One WebSocket connection: one task that reads, writes and keeps the heartbeat.
//!
//! It parses and frames; what a message means is the hub's business.

use super::driver::{Admission, Driver};
use super::hub::{Input, Loss};
use super::outbox::{Closing, Outgoing};
use crate::auth::Grant;
use crate::protocol::{self, CloseCode, FrameError, Refusal};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use secrecy::{ExposeSecret, SecretString};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Frames gathered for one write; more would only grow the buffer under it.
const WRITE_BATCH: usize = 16 * 1024;
/// How long a connection that is being closed may take to say goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The same for a consumer that fell behind: it has yet to read what the kernel holds for it.
const SLOW_CLOSE_WAIT: Duration = Duration::from_secs(30);
/// Pings and pongs that a client may send between two heartbeats. Browsers send none, libraries
/// one in some seconds.
const MAX_CONTROL_FRAMES: u32 = 1_000;

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

/// Runs a connection until it ends; `token` came with the upgrade request.
pub async fn run(
    socket: WebSocket,
    admission: Admission,
    token: Option<SecretString>,
    settings: SessionSettings,
) {
    let (conn, client) = (admission.conn, admission.client);
    admission.driver().input(Input::Connected { conn, client });
    let heartbeat = Heartbeat {
        at: Instant::now() + settings.heartbeat,
        ping: None,
        control_frames: 0,
    };
    let mut session = Session {
        socket,
        admission,
        token,
        settings,
        sent: 0,
        heartbeat,
    };
    let end = session.exchange().await;
    if let Some(loss) = end.loss() {
        session.driver().input(Input::Closed { conn, loss });
    }
    if let End::Close(closing) | End::Lost(_, Some(closing)) = end {
        session.say_goodbye(closing).await;
    }
}

struct Session {
    socket: WebSocket,
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
        }
    }

    fn lost() -> Self {
        Self::Lost(Loss::Disconnected, None)
    }

    fn broken(code: CloseCode, reason: &str) -> Self {
        Self::Lost(
            Loss::Disconnected,
            Some(Closing {
                code,
                reason: reason.into(),
            }),
        )
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

impl Session {
    fn driver(&self) -> &Driver {
        self.admission.driver()
    }

    async fn exchange(&mut self) -> End {
        let outbox = Arc::clone(&self.admission.outbox);
        loop {
            tokio::select! {
                () = outbox.filled() => {
                    if let Err(end) = self.flush().await {
                        return end;
                    }
                }
                received = self.socket.recv() => {
                    let message = match received {
                        Some(Ok(message)) => message,
                        Some(Err(error)) => return self.unreadable(&error),
                        None => return End::lost(),
                    };
                    if let Err(end) = self.received(message) {
                        return end;
                    }
                }
                () = sleep_until(self.heartbeat.at) => {
                    if let Err(end) = self.beat().await {
                        return end;
                    }
                }
            }
        }
    }

    fn received(&mut self, message: Message) -> Result<(), End> {
        let conn = self.admission.conn;
        match message {
            Message::Text(text) if text.len() > self.settings.max_frame => {
                return Err(End::broken(
                    CloseCode::TooLarge,
                    "the frame is over signal.max_frame",
                ));
            }
            Message::Text(text) => self.frame(text.as_str()),
            Message::Binary(_) => self.driver().input(Input::Frame {
                conn,
                message: Err(FrameError::binary()),
                grant: Ok(Grant::open()),
            }),
            Message::Pong(payload) => {
                let answers = |ping: &mut Ping| payload[..] == ping.payload.to_be_bytes();
                if let Some(ping) = self.heartbeat.ping.take_if(answers) {
                    self.heartbeat = Heartbeat {
                        at: Instant::now() + self.settings.heartbeat,
                        ping: None,
                        control_frames: 0,
                    };
                    if let Some(seq) = ping.confirms {
                        self.driver().input(Input::Confirmed { conn, seq });
                    }
                    return Ok(());
                }
                return self.count_control_frame();
            }
            // The library answers pings and the closing handshake by itself.
            Message::Ping(_) => return self.count_control_frame(),
            Message::Close(_) => return Err(End::lost()),
        }
        Ok(())
    }

    /// Every ping of a client that does not read leaves a pong in the write buffer.
    fn count_control_frame(&mut self) -> Result<(), End> {
        self.heartbeat.control_frames += 1;
        if self.heartbeat.control_frames > MAX_CONTROL_FRAMES {
            return Err(End::broken(CloseCode::RateLimited, "too many pings"));
        }
        Ok(())
    }

    fn frame(&self, text: &str) {
        let message = protocol::parse(text, self.settings.max_frame);
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

    /// Writes all that waits in the outbox, watching the clock and the outbox meanwhile.
    async fn flush(&mut self) -> Result<(), End> {
        let outbox = Arc::clone(&self.admission.outbox);
        let (frames, closing) = outbox.take();
        let deadline = self.settings.timeout;
        tokio::select! {
            written = timeout(deadline, self.write(frames)) => match written {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::lost()),
                Err(_) => return Err(End::broken(
                    CloseCode::SlowConsumer,
                    "too slow: nothing could be written within signal.timeout",
                )),
            },
            () = outbox.overflowed() => return Err(outbox.take().1.map_or_else(End::lost, End::Close)),
        }
        closing.map_or(Ok(()), |closing| Err(End::Close(closing)))
    }

    async fn write(&mut self, frames: VecDeque<Outgoing>) -> Result<(), axum::Error> {
        let mut batch = 0;
        for Outgoing { seq, body } in frames {
            let text = protocol::frame(seq, &body);
            batch += body.len();
            self.sent = seq.unwrap_or(self.sent);
            if seq == Some(1)
                && let Some(ping) = &mut self.heartbeat.ping
            {
                // Another session begins: the ping that is out confirms nothing of it.
                ping.confirms = None;
            }
            self.socket
                .feed(Message::Text(Utf8Bytes::from(text)))
                .await?;
            if batch >= WRITE_BATCH {
                self.socket.flush().await?;
                self.admission.outbox.written(std::mem::take(&mut batch));
            }
        }
        self.socket.flush().await?;
        self.admission.outbox.written(batch);
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), End> {
        if self.heartbeat.ping.is_some() {
            let closing = Closing {
                code: CloseCode::HeartbeatTimeout,
                reason: "no pong within signal.timeout".into(),
            };
            return Err(End::Lost(Loss::Timeout, Some(closing)));
        }
        let payload: u64 = rand::random();
        self.heartbeat = Heartbeat {
            at: Instant::now() + self.settings.timeout,
            ping: Some(Ping {
                payload,
                confirms: Some(self.sent),
            }),
            control_frames: self.heartbeat.control_frames,
        };
        let ping = Message::Ping(payload.to_be_bytes().to_vec().into());
        match timeout(self.settings.timeout, self.socket.send(ping)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::lost()),
            Err(_) => Err(End::broken(
                CloseCode::SlowConsumer,
                "too slow: a ping found no room",
            )),
        }
    }

    /// What axum's errors wrap tells a client what it did wrong.
    fn unreadable(&self, error: &axum::Error) -> End {
        let text = error.to_string();
        tracing::debug!(client = %self.admission.client, "unreadable: {text}");
        let source = std::error::Error::source(error);
        match source.and_then(|source| source.downcast_ref::<tungstenite::Error>()) {
            Some(tungstenite::Error::Capacity(_)) => {
                End::broken(CloseCode::TooLarge, "the frame is over signal.max_frame")
            }
            Some(tungstenite::Error::Utf8(_)) => {
                End::broken(CloseCode::BadUtf8, "a text frame is UTF-8")
            }
            _ => End::lost(),
        }
    }

    /// Sends the close frame, and reads on until the client has answered it: dropping a socket
    /// with unread bytes resets the connection, and the client would never learn why.
    async fn say_goodbye(mut self, Closing { code, reason }: Closing) {
        let frame = CloseFrame {
            code: code as u16,
            reason: reason.into(),
        };
        let patience = match code {
            CloseCode::SlowConsumer => SLOW_CLOSE_WAIT,
            _ => CLOSE_WAIT,
        };
        let farewell = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = self.socket.recv().await {}
            Ok::<_, axum::Error>(())
        };
        if !matches!(timeout(patience, farewell).await, Ok(Ok(()))) {
            tracing::debug!(client = %self.admission.client, "left without a goodbye");
        }
    }
}
