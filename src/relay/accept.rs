//! Accepting TCP and TLS clients: connections are set up on the runtime of the whole box, and
//! handed to a worker when TURN can begin. TLS handshakes never hold up datagrams.

use super::handle::{ClientStream, Intake};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// TLS handshakes at a time. One more is refused: a client tries its next URL.
const HANDSHAKES: usize = 1024;
/// How long accepting rests where the process is out of file descriptors or memory.
const REST: Duration = Duration::from_millis(50);

/// Accepts connections that speak TURN from their first byte.
pub(super) async fn plain(listener: TcpListener, intake: Arc<Intake>) {
    loop {
        let (socket, peer) = accept(&listener).await;
        match ClientStream::tcp(socket) {
            Ok(stream) => hand_over(&intake, stream, peer, &listener),
            Err(error) => tracing::debug!(%peer, "connection lost: {error}"),
        }
    }
}

/// Accepts connections that speak TURN inside TLS.
pub(super) async fn tls(listener: TcpListener, acceptor: TlsAcceptor, intake: Arc<Intake>) {
    let listener = Arc::new(listener);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut tasks = JoinSet::new();
    loop {
        let (socket, peer) = accept(&listener).await;
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            tracing::debug!(%peer, "too many TLS handshakes at a time");
            continue;
        };
        let (acceptor, listener, intake) =
            (acceptor.clone(), Arc::clone(&listener), Arc::clone(&intake));
        tasks.spawn(async move {
            let _permit = permit;
            let shaken = timeout(HANDSHAKE, acceptor.accept(socket)).await;
            match shaken
                .map_err(io::Error::from)
                .flatten()
                .and_then(ClientStream::tls)
            {
                Ok(stream) => hand_over(&intake, stream, peer, &listener),
                Err(error) => tracing::debug!(%peer, "TLS handshake: {error}"),
            }
        });
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
                    sleep(REST).await;
                }
            }
        }
    }
}
