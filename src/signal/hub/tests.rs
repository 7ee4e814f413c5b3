//! The hub through its interface, as a shell would drive it.

use super::*;
use crate::auth::Grant;
use crate::protocol::{FrameError, MessageType};

mod admission;
mod calls;
mod documented;
mod exchange;
mod guests;
mod harness;
mod invites;
mod limits;
mod membership;
mod model;
mod moderation;
mod no_topic;
mod notices;
mod operator;
mod policy;
mod publishers;
mod resume;
mod rights;
mod routing;
mod simulation;
mod snapshot;
