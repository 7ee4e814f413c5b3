//! The application's backend: events as signed POSTs, and questions before a join, register, call
//! or create.
//!
//! [`queue`], [`question`] and [`signature`] are pure. [`delivery`] owns the one task that sends
//! events, [`authorize`] asks questions; both share the box's HTTPS client.

pub mod question;
pub mod queue;
pub mod signature;
