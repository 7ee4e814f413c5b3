//! STUN and TURN: a pure [`engine`], the box-wide [`ledger`] its workers share, and the I/O
//! shells around them.

pub mod engine;
pub mod ledger;
mod rate;
