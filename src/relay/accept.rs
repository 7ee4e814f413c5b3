//! Accepting TCP clients: connections are set up on the runtime of the whole box, and handed to a
//! worker. Those inside TLS come from the TLS port, their handshake done.

use super::intake::{Admit, ClientStream, Intake};
use crate::address::shown_socket;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// How long accepting rests where the process is out of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Accepts connections that speak TURN from their first byte, as far as `admit` lets them in.
pub(super) async fn accept_turn_tcp(listener: TcpListener, intake: Arc<Intake>, admit: Admit) {
    loop {
        let (socket, peer) = accept(&listener).await;
        let Some(place) = admit(peer.ip()) else {
            continue;
        };
        match ClientStream::tcp(socket) {
            Ok(stream) => hand_over(&intake, stream.holding(place), peer, &listener),
            Err(error) => tracing::debug!(client = shown_socket(peer), "connection lost: {error}"),
        }
    }
}

fn hand_over(intake: &Intake, stream: ClientStream, peer: SocketAddr, listener: &TcpListener) {
    let local = stream.local_addr().or_else(|_| listener.local_addr());
    if let Ok(local) = local {
        intake.serve_stream(stream, peer, local, &[]);
    }
}

/// The next connection; errors of single connections are not the listener's end.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!("accept: {error}");
                let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                if error
                    .raw_os_error()
                    .is_some_and(|code| exhausted.contains(&code))
                {
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}
