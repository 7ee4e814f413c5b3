use super::*;

mod calls;
mod harness;
mod limits;
mod membership;
mod moderation;
mod operator;
mod resume;
mod routing;
