use super::*;

mod harness;
mod membership;
