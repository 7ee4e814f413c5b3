//! Connections that requests carry, by the secret that names each.

use super::problem::Problem;
use super::ws::fetch_key;
use super::{AppState, access};
use crate::compat::socketio::engine::Revision;
use crate::protocol::DialectKind;
use crate::signal::{self, ConnectionSettings, Dialect, Mailbox};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those of one protocol; no more entries than connections.
#[derive(Debug)]
pub(super) struct Registry<T>(Mutex<HashMap<Box<str>, Arc<T>>>);

/// What names a connection, for the process that goes on with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Label {
    /// Of `/api/messages`.
    Polling(String),
    /// Of Socket.IO.
    Engine(String, EngineLabel),
}

impl Label {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is known of a session of Engine.IO beside its name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct EngineLabel {
    pub(super) revision: Revision,
    pub(super) base64: bool,
    pub(super) network: IpAddr,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Registry<T> {
    pub(super) fn find(&self, id: &str) -> Option<Arc<T>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn insert(&self, id: &str, entry: Arc<T>) {
        self.lock().insert(id.into(), entry);
    }

    pub(super) fn remove(&self, id: &str) {
        let mut entries = self.lock();
        entries.remove(id);
        if entries.is_empty() {
            entries.shrink_to(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session of Engine.IO that began by polling.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) revision: Revision,
    /// Whether the client cannot read bytes.
    pub(super) base64: bool,
    /// Clients of version 3 show their session to each other, so that it holds in one network only.
    pub(super) network: IpAddr,
    pub(super) is_polled: AtomicBool,
    pub(super) is_posted: AtomicBool,
}

impl Engine {
    pub(super) fn new(mailbox: Arc<Mailbox>, label: EngineLabel) -> Self {
        let EngineLabel {
            revision,
            base64,
            network,
        } = label;
        Self {
            mailbox,
            revision,
            base64,
            network,
            is_polled: AtomicBool::new(false),
            is_posted: AtomicBool::new(false),
        }
    }
}

/// All connections that requests carry.
#[derive(Debug, Default)]
pub struct Carried {
    /// The native protocol.
    pub(super) sessions: Registry<Mailbox>,
    /// `/api/messages`.
    pub(super) polling: Registry<Mailbox>,
    /// Socket.IO.
    pub(super) engine: Registry<Engine>,
}

/// How a connection that requests carry is run.
pub(super) struct Carriage<D> {
    pub(super) dialect: D,
    pub(super) kind: DialectKind,
    /// Without a request for so long the client counts as gone.
    pub(super) idle: Duration,
    /// Whether fetched messages are kept until the client asks for more.
    pub(super) keeps: bool,
    pub(super) settings: ConnectionSettings,
}

/// Begins a connection for the client of a request, and runs it until it ends. `enter` is called
/// before it begins, `forget` at its end.
///
/// # Errors
/// The box admits no more connections.
pub(super) fn begin<D: Dialect + Send + 'static>(
    context: &Arc<AppState>,
    client: IpAddr,
    parts: &Parts,
    carriage: Carriage<D>,
    enter: impl FnOnce(&Carried, &Arc<Mailbox>),
    forget: impl FnOnce(&Carried) + Send + 'static,
) -> Result<Arc<Mailbox>, Problem> {
    let Carriage {
        dialect,
        kind,
        idle,
        keeps,
        settings,
    } = carriage;
    let token = access::token_of(parts).map(SecretString::from);
    let admission = context.driver.admit(client, kind)?;
    let (mailbox, carrier) = Mailbox::new(idle, keeps);
    enter(&context.carried, &mailbox);
    let context = Arc::clone(context);
    tokio::spawn(async move {
        fetch_key(&settings, token.as_ref()).await;
        signal::run(carrier, dialect, admission, token, settings).await;
        forget(&context.carried);
    });
    Ok(mailbox)
}

/// Has the client make its next request over another connection, where the process that goes on with
/// its mailbox accepts it.
pub(super) fn leads_on(mailbox: &Mailbox, answer: &mut Response) {
    if mailbox.is_parked() {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
}

/// A secret that names a connection.
pub(super) fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}
