//! The engine as its clients and peers see it, on a clock that only the tests move.

mod allocate;
mod authentication;
mod batches;
mod binding;
mod channels;
mod client;
mod conformance;
mod data;
mod discovery;
mod floods;
mod hairpin;
mod hand_over;
mod harness;
mod lifecycle;
mod limits;
mod model;
mod permissions;
mod readdress;
mod refresh;
mod scarcity;
mod users;
mod watched;
mod wire;
