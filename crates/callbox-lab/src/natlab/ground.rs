//! What calls are made on: namespaces and sockets, or a virtual network.

use super::matrix::Pair;
use super::peer::Spec;
use super::real::Running;
use super::verdict::Packets;
use super::{real, vnet};
use crate::kind::Kind;
use callbox::cli::reach::BoxUrl;
use std::net::SocketAddr;
use std::time::Duration;

/// Networks and a box.
pub enum Ground {
    /// Namespaces.
    Real(Box<real::Ground>),
    /// webrtc-util's virtual network.
    Virtual(Box<vnet::Ground>),
}

impl Ground {
    /// The box that is called through.
    #[must_use]
    pub fn url(&self) -> &BoxUrl {
        match self {
            Self::Real(ground) => ground.url(),
            Self::Virtual(ground) => ground.url(),
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Real(ground) => ground.address(),
            Self::Virtual(ground) => ground.address(),
        }
    }

    /// By how much the links delay an exchange between peer and box.
    #[must_use]
    pub fn slack(&self) -> Duration {
        match self {
            Self::Real(ground) => ground.slack(),
            Self::Virtual(_) => Duration::ZERO,
        }
    }

    /// The lab's own STUN server, where the box does not see the lab's addresses.
    #[must_use]
    pub fn stun(&self) -> Option<SocketAddr> {
        match self {
            Self::Real(ground) => ground.stun(),
            Self::Virtual(_) => None,
        }
    }

    /// Starts a peer behind `kind`.
    ///
    /// # Errors
    /// A sentence.
    pub async fn start(&self, kind: Kind, side: usize, spec: Spec) -> Result<Running, String> {
        match self {
            Self::Real(ground) => ground.start(kind, side, spec).await,
            Self::Virtual(ground) => ground.start(kind, side, spec),
        }
    }

    /// Counts from zero on both sides.
    pub async fn reset_counts(&self, pair: Pair) {
        match self {
            Self::Real(ground) => ground.reset_counts(pair).await,
            Self::Virtual(ground) => ground.reset_counts(pair),
        }
    }

    /// What passed both sides' routers since then; `direct` is where a direct path leads.
    ///
    /// # Errors
    /// A sentence.
    pub async fn packets(
        &self,
        pair: Pair,
        direct: [Option<SocketAddr>; 2],
    ) -> Result<[Packets; 2], String> {
        match self {
            Self::Real(ground) => ground.packets(pair, direct).await,
            Self::Virtual(ground) => ground.packets(pair, direct),
        }
    }

    /// Gives a side another public address, or its first one again.
    ///
    /// # Errors
    /// A sentence.
    pub async fn move_to(&self, kind: Kind, side: usize, second: bool) -> Result<(), String> {
        match self {
            Self::Real(ground) => ground.move_to(kind, side, second).await,
            Self::Virtual(_) => Err("--move is not for --virtual".into()),
        }
    }

    /// Kills the box and starts it again.
    ///
    /// # Errors
    /// A sentence: it is not the lab's own, or does not come back.
    pub async fn restart_box(&self) -> Result<(), String> {
        match self {
            Self::Real(ground) => ground.restart_box().await,
            Self::Virtual(_) => Err("--restart is not for --virtual".into()),
        }
    }

    /// Ends everything and gives all places back.
    pub async fn close(self) {
        match self {
            Self::Real(ground) => ground.close().await,
            Self::Virtual(ground) => drop(ground),
        }
    }
}
