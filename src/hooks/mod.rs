//! The application's backend: events as signed POSTs, and questions before a join, register, call
//! or create.
//!
//! [`queue`], [`question`] and [`signature`] are pure. [`EventSender`] owns the one task that sends
//! events; [`Authorizer`] asks questions.

mod authorize;
mod delivery;
pub mod question;
pub mod queue;
pub mod signature;

pub use authorize::{Authorizer, Counters, Decision};
pub use delivery::EventSender;

use hyper::Uri;
use secrecy::SecretString;
use std::time::Duration;

/// What the operator has set under `hooks`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where events go; `None`: events are off.
    pub url: Option<Uri>,
    /// Who is asked; `None`: nobody.
    pub authorize: Option<Uri>,
    /// Signs events and questions.
    pub secret: Option<SecretString>,
    /// Whether a question without an answer counts as allowed.
    pub fail_open: bool,
    /// Whether the URLs may lead to addresses that the relay would refuse.
    pub allow_private: bool,
    /// The deadline of one POST, in place of the default.
    pub(crate) timeout: Option<Duration>,
}
