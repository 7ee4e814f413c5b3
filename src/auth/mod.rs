//! Who may do what: signaling tokens become a [`Grant`], TURN credentials are minted and checked.
//!
//! Pure: the clock is an argument, and nothing here knows of rooms, sockets or relays.

mod error;
mod grant;
mod invite;
mod signer;
pub mod token;

pub use grant::{Grant, MAX_METADATA, MAX_NAME, Role, RoomPattern, RoomScope, is_name};
pub use invite::{Invitation, InviteKeys, page_link};
pub use signer::{Bearer, Signer};
pub use turn_engine::credential;
