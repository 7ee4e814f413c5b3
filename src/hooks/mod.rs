//! The application's backend: questions before a join, register, call or create, and events as
//! signed POSTs; and the stream of events that an operator listens to.
//!
//! [`queue`], [`question`] and [`signature`] are pure. [`Authorizer`] asks questions. [`Events`] is
//! the stream, and the task that sends it.

mod authorize;
mod delivery;
mod events;
pub mod question;
pub mod queue;
mod request;
pub mod signature;

pub use authorize::{Authorizer, Counters, Decision};
pub use delivery::Backend;
pub use events::{Delivered, Events, Listener, ListenerEvent, Topic};
pub use queue::Remains;
pub use request::Answered;

use hyper::Uri;
use secrecy::SecretString;

/// What lets a backend at a private address be asked.
pub const PRIVATE_BACKEND: &str =
    "set hooks.allow_private = true, or list the address in turn.allowed_peers";

/// What the operator has set under `hooks`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who is asked; `None`: nobody.
    pub authorize: Option<Uri>,
    /// Where events go; `None`: nowhere.
    pub url: Option<Uri>,
    /// Signs questions and events.
    pub secret: Option<SecretString>,
    /// Whether a question without an answer counts as allowed.
    pub fail_open: bool,
    /// Whether the URLs may lead to addresses that the relay would refuse.
    pub allow_private: bool,
}
