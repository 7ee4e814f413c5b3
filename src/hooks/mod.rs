//! The application's backend: events as signed POSTs, and questions before a join, register, call
//! or create.
//!
//! [`queue`], [`question`] and [`signature`] are pure. [`Authorizer`] asks questions.

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
