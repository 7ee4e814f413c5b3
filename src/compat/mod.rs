//! Foreign protocols: one pure translator each, between a client's messages and the hub's.
//!
//! A translator knows `signal`'s interface and `protocol`. It owns no socket, clock, lock or task;
//! its paths and headers are in `http`.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod memory;
pub mod mqtt;
pub mod object;
pub mod peerjs;
pub mod socketio;
pub mod trystero;
pub mod tutorial;
pub mod writer;
pub mod y_webrtc;

#[cfg(any(test, fuzzing))]
pub use memory::fuzz as fuzz_memory;

use crate::signal::{Closing, Dialect, Incoming, Outgoing, Output};
use mqtt::Mqtt;
use peerjs::PeerJs;
use socketio::SocketIo;
use std::sync::Arc;
use std::time::Instant;
use trystero::Trystero;
use tutorial::Tutorial;
use y_webrtc::YWebrtc;

/// The longest token in a message of a dialect that may need it again, bytes: it is kept for as long as
/// the connection is open. A token of the native protocol is judged and dropped; one in a URL is as long
/// as the head of a request may be.
const MAX_TOKEN: usize = 8 << 10;

/// What the box speaks beside its own protocol.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The clients of the tutorials.
    pub tutorials: bool,
    /// Whether tutorial pages that name no room find each other by the origin of their pages.
    pub lobby: bool,
    /// y-webrtc.
    pub y_webrtc: Option<YWebrtc>,
    /// The `ws-relay` of trystero.
    pub trystero: bool,
    /// PeerJS.
    pub peerjs: Option<PeerJsSettings>,
    /// MQTT over WebSocket.
    pub mqtt: bool,
    /// Topics of MQTT that are rooms.
    pub mqtt_rooms: Option<Arc<mqtt::RoomTopics>>,
    /// `/api/messages`.
    pub polling: bool,
    /// Socket.IO.
    pub socketio: Option<socketio::Profile>,
}

/// How PeerJS is spoken.
#[derive(Debug, Clone)]
pub struct PeerJsSettings {
    /// The key that clients have to name.
    pub key: String,
    /// Prefixes of paths, with a slash at both ends.
    pub paths: Vec<String>,
    /// Whether only relayed candidates pass.
    pub relay_only: bool,
}

/// Makes an enum of translators, so that a call costs a branch.
macro_rules! dialects {
    ($($(#[$doc:meta])* $name:ident($type:ty),)+) => {
        /// The translator of one connection.
        #[derive(Debug)]
        pub enum Foreign { $($(#[$doc])* $name($type),)+ }

        impl Dialect for Foreign {
            fn is_timeless(&self) -> bool {
                match self { $(Self::$name(dialect) => dialect.is_timeless(),)+ }
            }

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

            fn memory(&self, now: Instant) -> Option<String> {
                match self { $(Self::$name(dialect) => dialect.memory(now),)+ }
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
    /// y-webrtc.
    YWebrtc(YWebrtc),
    /// trystero's ws-relay.
    Trystero(Trystero),
    /// PeerJS.
    PeerJs(PeerJs),
    /// MQTT, which needs more room than the others.
    Mqtt(Box<Mqtt>),
    /// Socket.IO, likewise.
    SocketIo(Box<SocketIo>),
}

#[cfg(test)]
mod tests;
