//! `GET /ws`: admission, then the upgrade.

use super::Context;
use super::access::token_of;
use super::guard::ClientAddr;
use super::problem::Problem;
use crate::signal::{self, ConnectError};
use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use secrecy::SecretString;
use std::sync::Arc;

/// Frames are small: axum's default of 128 KiB would be most of a connection's memory.
const READ_BUFFER: usize = 1024;
/// Gathered before a write; the session flushes after each batch anyway.
const WRITE_BUFFER: usize = 4 * 1024;

pub(super) async fn upgrade(
    State(context): State<Arc<Context>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let token = token_of(&parts).map(SecretString::from);
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| {
            Problem::new(
                StatusCode::UPGRADE_REQUIRED,
                "not-a-websocket",
                "this path speaks WebSocket (RFC 6455, version 13)",
            )
        })?;
    let admission = context.driver.admit(client)?;
    let max_frame = context.sessions.max_frame;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(usize::MAX)
        // A frame that is a little too large is read whole, and answered properly.
        .max_message_size(2 * max_frame)
        .max_frame_size(2 * max_frame)
        .on_upgrade(move |socket| signal::run(socket, admission, token, context.sessions.clone())))
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        let (status, code) = match error {
            ConnectError::PerIp => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            ConnectError::Total => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            ConnectError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        };
        Self::new(status, code, error.to_string())
    }
}
