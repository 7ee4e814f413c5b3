//! The floor: a bare axum room router. Rooms by URL, text frames passed on as they are, 1 KiB read
//! buffers, one task a connection, nothing parsed.

use anyhow::Result;
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// axum's default of 128 KiB a connection would be all that is measured.
const READ_BUFFER: usize = 1024;
/// Frames waiting for one consumer; one more is dropped.
const OUTBOX: usize = 256;

type Members = Vec<(u64, mpsc::Sender<Utf8Bytes>)>;

#[derive(Default)]
struct Rooms {
    by_name: HashMap<String, Members>,
    next: u64,
}

type Shared = Arc<Mutex<Rooms>>;

/// Routes until the process is ended.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let router = Router::new()
            .route("/", any(upgrade))
            .with_state(Shared::default());
        let listener = tokio::net::TcpListener::bind(listen)
            .await?
            .tap_io(|stream| {
                // A socket that cannot be told so is only slower.
                let _ = stream.set_nodelay(true);
            });
        Ok(axum::serve(listener, router).await?)
    })
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    Query(query): Query<HashMap<String, String>>,
    State(rooms): State<Shared>,
) -> Response {
    let room = query.get("room").cloned().unwrap_or_default();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .on_upgrade(move |socket| session(socket, rooms, room))
}

async fn session(mut socket: WebSocket, rooms: Shared, room: String) {
    let (outbox, mut waiting) = mpsc::channel(OUTBOX);
    let id = join(&rooms, &room, outbox);
    let mut alive = socket.send(Message::text("joined")).await.is_ok();
    while alive {
        alive = tokio::select! {
            frame = socket.recv() => match frame {
                Some(Ok(Message::Text(text))) => {
                    pass_on(&rooms, &room, id, &text);
                    true
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                Some(Ok(_)) => true,
            },
            Some(text) = waiting.recv() => socket.send(Message::Text(text)).await.is_ok(),
        };
    }
    leave(&rooms, &room, id);
}

fn join(rooms: &Shared, room: &str, outbox: mpsc::Sender<Utf8Bytes>) -> u64 {
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    rooms.next += 1;
    let id = rooms.next;
    rooms
        .by_name
        .entry(room.to_owned())
        .or_default()
        .push((id, outbox));
    id
}

fn pass_on(rooms: &Shared, room: &str, from: u64, text: &Utf8Bytes) {
    let rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, outbox) in rooms.by_name.get(room).into_iter().flatten() {
        if *id != from {
            // A full outbox drops: the floor protects nobody, and tells nobody.
            let _ = outbox.try_send(text.clone());
        }
    }
}

fn leave(rooms: &Shared, room: &str, id: u64) {
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(members) = rooms.by_name.get_mut(room) {
        members.retain(|(member, _)| *member != id);
        if members.is_empty() {
            rooms.by_name.remove(room);
        }
    }
}
