//! The application's backend: events as signed POSTs, and questions before a join, register, call
//! or create.
//!
//! All of it is pure: time and randomness are arguments.

pub mod question;
pub mod queue;
pub mod signature;
