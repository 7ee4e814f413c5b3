//! Connections of signaling that an earlier process has left: each goes on as what it was.

use super::AppState;
use super::carried::{Engine, Label};
use super::compat::socketio;
use super::socket::Socket;
use crate::compat::Foreign;
use crate::signal::{
    self, Admission, ConnectionSettings, Dialect, LeftBehind, Mailbox, Native, ParkedConnection,
    ParkedMailbox,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Goes on with a connection of an earlier process; `place` is held as long as it lives.
///
/// # Errors
/// It cannot go on, in words for the log; its client counts as gone.
pub fn resume(
    context: &Arc<AppState>,
    left: LeftBehind,
    admission: Admission,
    place: Option<impl Send + 'static>,
) -> Result<(), String> {
    let conn = admission.conn();
    // What was left may be anything: a fault in reading it is not the end of the box.
    let begin = AssertUnwindSafe(|| {
        #[cfg(test)]
        signal::panics::come_by("connection");
        by_dialect(context, left, admission, place)
    });
    let goes_on = catch_unwind(begin).unwrap_or_else(|_| Err("reading it panicked".into()));
    goes_on.inspect_err(|_| context.driver.lose(conn))
}

fn by_dialect(
    context: &Arc<AppState>,
    left: LeftBehind,
    admission: Admission,
    place: Option<impl Send + 'static>,
) -> Result<(), String> {
    let (kind, settings) = (left.0.dialect(), context.sessions.clone());
    let Some(memory) = left.0.memory() else {
        return go_on(context, Native, left, admission, settings, place);
    };
    let dialect = Foreign::remembered(kind, memory, &context.compat, Instant::now())?;
    let settings = match &dialect {
        Foreign::SocketIo(client) => socketio::settings(context, client.opening().revision),
        _ => settings,
    };
    go_on(context, dialect, left, admission, settings, place)
}

fn go_on<D: Dialect + Send + 'static>(
    context: &Arc<AppState>,
    dialect: D,
    (parked, socket): LeftBehind,
    admission: Admission,
    settings: ConnectionSettings,
    place: Option<impl Send + 'static>,
) -> Result<(), String> {
    if let Some(socket) = socket {
        let socket = Socket::adopt(socket).map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            let _place = place;
            signal::resume(socket, dialect, admission, parked, settings).await;
        });
        return Ok(());
    }
    let mailbox = parked.mailbox().cloned().ok_or("nothing carries it")?;
    by_requests(context, mailbox, dialect, parked, admission, settings)
}

/// Its requests find the connection by the name that they know.
fn by_requests<D: Dialect + Send + 'static>(
    context: &Arc<AppState>,
    mailbox: ParkedMailbox,
    dialect: D,
    parked: ParkedConnection,
    admission: Admission,
    settings: ConnectionSettings,
) -> Result<(), String> {
    let label = serde_json::from_str(mailbox.label());
    let label = label.map_err(|error| format!("its name cannot be read: {error}"))?;
    let (mailbox, carrier) = Mailbox::of(mailbox);
    let carried = &context.carried;
    match &label {
        Label::Polling(id) => carried.polling.insert(id, mailbox),
        Label::Engine(id, engine) => {
            let engine = Engine::new(mailbox, *engine);
            carried.engine.insert(id, Arc::new(engine));
        }
    }
    let context = Arc::clone(context);
    tokio::spawn(async move {
        signal::resume(carrier, dialect, admission, parked, settings).await;
        match &label {
            Label::Polling(id) => context.carried.polling.remove(id),
            Label::Engine(id, _) => context.carried.engine.remove(id),
        }
    });
    Ok(())
}
