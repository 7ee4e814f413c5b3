//! Who may do what: signaling tokens become a [`Grant`], TURN credentials are minted and checked.
//!
//! Pure: the clock is an argument, and nothing here knows of rooms, sockets or relays.

mod error;
mod grant;
mod invite;
pub mod passwords;
mod signer;
pub mod token;

pub use grant::{
    Grant, MAX_METADATA, MAX_METADATA_DEPTH, MAX_NAME, Role, RoomPattern, RoomScope, glob, is_name,
    is_too_deep,
};
pub use invite::{Invitation, InviteKeys, page_link};
pub use passwords::People;
pub use signer::{Bearer, Signer};
pub use turn_engine::credential;
pub use turn_engine::users::TurnUsers;
