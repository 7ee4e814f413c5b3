//! Foreign protocols: one pure translator each, between a client's messages and the hub's.
//!
//! A translator knows `signal`'s interface and `protocol`. It owns no socket, clock, lock or task;
//! its paths and headers are in `http`.

pub mod mqtt;
pub mod object;
pub mod peerjs;
pub mod trystero;
pub mod tutorial;
pub mod writer;
pub mod y_webrtc;

use crate::signal::{Closing, Dialect, Incoming, Outgoing, Output};
use std::time::Instant;
use tutorial::Tutorial;

/// What the box speaks beside its own protocol.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The clients of the tutorials.
    pub tutorials: bool,
    /// Whether tutorial pages that name no room find each other by the origin of their pages.
    pub lobby: bool,
}

/// Makes an enum of translators, so that a call costs a branch.
macro_rules! dialects {
    ($($(#[$doc:meta])* $name:ident($type:ty),)+) => {
        /// The translator of one connection.
        #[derive(Debug)]
        pub enum Foreign { $($(#[$doc])* $name($type),)+ }

        impl Dialect for Foreign {
            fn opened(&mut self, now: Instant, out: &mut Output<'_>) {
                match self { $(Self::$name(dialect) => dialect.opened(now, out),)+ }
            }

            fn decode(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>) {
                match self { $(Self::$name(dialect) => dialect.decode(message, now, out),)+ }
            }

            fn encode(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>) {
                match self { $(Self::$name(dialect) => dialect.encode(outgoing, now, out),)+ }
            }

            fn next_timeout(&self) -> Option<Instant> {
                match self { $(Self::$name(dialect) => dialect.next_timeout(),)+ }
            }

            fn timed_out(&mut self, now: Instant, out: &mut Output<'_>) {
                match self { $(Self::$name(dialect) => dialect.timed_out(now, out),)+ }
            }

            fn closing(&mut self, closing: &Closing, out: &mut Output<'_>) -> u16 {
                match self { $(Self::$name(dialect) => dialect.closing(closing, out),)+ }
            }
        }

        $(impl From<$type> for Foreign {
            fn from(dialect: $type) -> Self {
                Self::$name(dialect)
            }
        })+
    };
}

dialects! {
    /// A client of a tutorial.
    Tutorial(Tutorial),
}

#[cfg(test)]
mod tests;
