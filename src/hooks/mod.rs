//! The application's backend: questions before a join, register, call or create, and a queue of
//! events as signed POSTs.
//!
//! [`queue`], [`question`] and [`signature`] are pure. [`Authorizer`] asks questions. Nothing fills
//! [`queue`] yet: the hub has no events for it.

mod authorize;
pub mod question;
pub mod queue;
mod request;
pub mod signature;

pub use authorize::{Authorizer, Counters, Decision};

use hyper::Uri;
use secrecy::SecretString;

/// What the operator has set under `hooks`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who is asked; `None`: nobody.
    pub authorize: Option<Uri>,
    /// Signs questions.
    pub secret: Option<SecretString>,
    /// Whether a question without an answer counts as allowed.
    pub fail_open: bool,
    /// Whether the URLs may lead to addresses that the relay would refuse.
    pub allow_private: bool,
}
