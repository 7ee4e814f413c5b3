//! The hub through its interface, as a shell would drive it.

use super::*;
use crate::auth::Grant;
use crate::protocol::{FrameError, MessageType};

mod admission;
mod calls;
mod documented;
mod exchange;
mod harness;
mod limits;
mod membership;
mod model;
mod moderation;
mod operator;
mod resume;
mod routing;
mod simulation;
