//! The kinds of servers that are measured.

use super::client::Transport;
use super::wire::Framing;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Callbox,
    /// A second binary of callbox, to tell what a change gives.
    Beside,
    Coturn,
    TurnCrate,
    Floor,
    FloorBatched,
    /// One that runs already: see `--other`.
    Other,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Callbox,
        Self::Beside,
        Self::Coturn,
        Self::TurnCrate,
        Self::Floor,
        Self::FloorBatched,
        Self::Other,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Callbox => "callbox",
            Self::Beside => "callbox, beside",
            Self::Coturn => "coturn",
            Self::TurnCrate => "turn::server",
            Self::Floor => "floor",
            Self::FloorBatched => "floor, batched",
            Self::Other => "other",
        }
    }

    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorBatched)
    }

    pub(crate) fn framing(self, indications: bool) -> Framing {
        match indications {
            _ if self.is_floor() => Framing::Raw,
            true => Framing::Indication,
            false => Framing::Channel,
        }
    }

    pub(crate) fn speaks(self, transport: Transport) -> bool {
        transport == Transport::Udp || !(self.is_floor() || self == Self::TurnCrate)
    }
}
