//! The end of a connection: why it ends, who knows of it, and the last words.

use super::super::dialect::{Closing, Dialect};
use super::super::hub::Loss;
use super::super::websocket::{Event, Next, Opcode, Violation};
use super::{Carrier, Connection};
use crate::address::shown;
use crate::protocol::CloseCode;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection that is being closed may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for one whose socket is full, or was: it has yet to read what the kernel holds for it.
const SLOW_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest reason in a close frame, bytes: a control frame without its code (RFC 6455 section 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// How a connection ended.
pub(super) enum End {
    /// The hub closed it.
    Close(Closing),
    /// The hub does not know of it yet; the client may still get the reason.
    Lost(Loss, Option<Closing>),
    /// The client said goodbye, maybe with a code, and waits for the same.
    Left(Option<u16>),
    /// It stops here, to go on in another process.
    Parked,
}

impl End {
    pub(super) fn loss(&self) -> Option<Loss> {
        match self {
            // The outbox closes a slow consumer by itself: the hub does not know.
            Self::Close(closing) if closing.code == CloseCode::SlowConsumer => {
                Some(Loss::Disconnected)
            }
            Self::Close(_) | Self::Parked => None,
            Self::Lost(loss, _) => Some(*loss),
            Self::Left(_) => Some(Loss::Disconnected),
        }
    }

    pub(super) fn lost() -> Self {
        Self::Lost(Loss::Disconnected, None)
    }

    pub(super) fn broken(code: CloseCode, reason: &'static str) -> Self {
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

impl<C: Carrier, D: Dialect> Connection<C, D> {
    pub(super) fn log_closed(&self, end: &End) {
        let code = match end {
            End::Close(closing) | End::Lost(_, Some(closing)) => Some(closing.code as u16),
            End::Left(code) => *code,
            End::Lost(_, None) | End::Parked => None,
        };
        let peer = self.sent.map(|(peer, _)| tracing::field::display(peer));
        let (sent, received) = (self.socket.traffic.sent, self.socket.traffic.received);
        let seconds = self.admission.outbox.age().as_secs();
        let client = self.admission.client;
        let client = shown(client);
        tracing::debug!(
            client,
            peer,
            seconds,
            sent,
            received,
            code,
            "connection closed"
        );
    }

    /// Sends the close frame, and reads on until the client has answered it: dropping a socket
    /// with unread bytes resets the connection, and the client would never learn why.
    pub(super) async fn close(&mut self, end: End) {
        let (payload, patience, answered) = match end {
            End::Lost(_, None) | End::Parked => return,
            End::Left(code) => {
                let code = code.map_or(vec![], |code| code.to_be_bytes().to_vec());
                (code, CLOSE_TIMEOUT, true)
            }
            End::Close(closing) | End::Lost(_, Some(closing)) => {
                let mut status = closing.code as u16;
                self.speak(|dialect, out| status = dialect.closing(&closing, out));
                let Closing { code, reason } = closing;
                let reason = &reason[..reason.floor_char_boundary(MAX_CLOSE_REASON)];
                let payload = [&status.to_be_bytes(), reason.as_bytes()].concat();
                let patience = match self.socket.blocked_until() {
                    None if code != CloseCode::SlowConsumer => CLOSE_TIMEOUT,
                    _ => SLOW_CLOSE_TIMEOUT,
                };
                (payload, patience, false)
            }
        };
        self.socket.queue(Opcode::Close, &payload);
        let farewell = async {
            let outbox = Arc::clone(&self.admission.outbox);
            poll_fn(|cx| self.socket.poll_send(cx, &outbox)).await?;
            if !answered {
                while poll_fn(|cx| self.poll_answer(cx)).await.is_ok() {}
            }
            poll_fn(|cx| self.socket.poll_shutdown(cx)).await
        };
        if timeout(patience, farewell).await.is_err() {
            tracing::debug!(
                client = shown(self.admission.client),
                "left without a goodbye"
            );
        }
    }

    /// Passes over what the client says; fails when it has closed its side. Who broke the framing is
    /// not understood any more, but may still hang up.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let answered = self.poll_events(cx, |_, event| match event {
            Event::Close(code) => Err(End::Left(code)),
            _ => Ok(Next::Go),
        });
        answered.map(|answered| match answered {
            Err(End::Lost(_, Some(_))) => Ok(()),
            answered => answered,
        })
    }
}
