//! The way from requests to a WebSocket: the client tries the socket, then moves over.

use super::super::carrier::Carrier;
use super::super::websocket::{self, Decoder, Event, Next, Opcode, Violation};
use super::{Adopted, Closed, Mailbox};
use std::any::Any;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The largest message of a client that tries a socket.
const MAX_MESSAGE: usize = 64;

/// What is said while a client tries a socket.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The client's question.
    pub question: &'static str,
    /// The answer.
    pub answer: &'static str,
    /// The client moves over.
    pub moves: &'static str,
}

/// What ends a trial.
enum Failed {
    Io,
    Broken,
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<Violation> for Failed {
    fn from(_: Violation) -> Self {
        Self::Broken
    }
}

impl Mailbox {
    /// Has the client try `socket`; then the socket takes the place of requests. `answered` is
    /// called between; `held` lives as long as the socket.
    ///
    /// # Errors
    /// The client did not move over: requests carry the connection as before.
    pub async fn adopt(
        self: &Arc<Self>,
        mut socket: Box<dyn Carrier + Send>,
        probe: Probe,
        answered: impl FnOnce(),
        held: Box<dyn Any + Send>,
    ) -> Result<(), Closed> {
        let mut decoder = Decoder::default();
        let mut frame = vec![];
        let tried = async {
            expect(&mut socket, &mut decoder, probe.question).await?;
            websocket::write_frame(&mut frame, Opcode::Text, probe.answer.as_bytes());
            socket.write_all(&frame).await?;
            socket.flush().await?;
            answered();
            expect(&mut socket, &mut decoder, probe.moves).await
        };
        let moves = tried.await.is_ok();
        {
            let mut state = self.lock();
            // Of several sockets that the client tries the first one that it moves to stays.
            if moves && !state.closed && state.goodbye.is_none() && !state.upgraded {
                state.upgraded = true;
                state.adopted = Some(Adopted {
                    socket,
                    _held: held,
                    read: decoder.into_rest(),
                });
                state.wake_all();
                return Ok(());
            }
        }
        let mut goodbye = vec![];
        websocket::write_frame(&mut goodbye, Opcode::Close, &1008_u16.to_be_bytes());
        let _ = socket.write_all(&goodbye).await;
        let _ = socket.shutdown().await;
        Err(Closed)
    }
}

/// Reads until the client says `text`, which is all that it may say.
async fn expect(
    socket: &mut Box<dyn Carrier + Send>,
    decoder: &mut Decoder,
    text: &str,
) -> Result<(), Failed> {
    let mut buffer = [0; 1024];
    loop {
        let length = match decoder.is_paused() {
            true => 0,
            false => match socket.read(&mut buffer).await? {
                0 => return Err(Failed::Io),
                length => length,
            },
        };
        let mut is_said = false;
        let mut pongs = vec![];
        decoder.feed(&mut buffer[..length], MAX_MESSAGE, |event| match event {
            Event::Text(said) if said == text => {
                is_said = true;
                Ok(Next::Pause)
            }
            Event::Ping(payload) => {
                websocket::write_frame(&mut pongs, Opcode::Pong, payload);
                Ok(Next::Go)
            }
            Event::Pong(_) => Ok(Next::Go),
            _ => Err(Failed::Broken),
        })?;
        socket.write_all(&pongs).await?;
        if is_said {
            return Ok(());
        }
    }
}
