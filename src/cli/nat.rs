//! What kind of NAT a socket is behind, by asking a STUN server (RFC 5780).
//!
//! A server with two addresses and two ports answers everything. One with a second port only
//! still tells a mapping that depends on the port, which is what decides whether peers meet
//! directly.

pub use crate::net::stun::Datagrams;
use crate::net::stun::{self, Answer, Schedule};
use serde::Serialize;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;

/// RFC 8489 section 6.2.1, cut short: silence is an answer here.
const SCHEDULE: Schedule = Schedule {
    sendings: &[
        Duration::ZERO,
        Duration::from_millis(250),
        Duration::from_millis(600),
        Duration::from_millis(1_100),
    ],
    silence: Duration::from_millis(1_800),
};
const CHANGE_ADDRESS: u8 = 0x04;
const CHANGE_PORT: u8 = 0x02;

/// Which mapping the NAT makes (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mapping {
    /// The socket's address is seen as it is.
    #[serde(rename = "none")]
    Untranslated,
    /// One public endpoint towards everybody.
    #[serde(rename = "EIM")]
    EndpointIndependent,
    /// One for each remote address.
    #[serde(rename = "ADM")]
    AddressDependent,
    /// One for each remote address and port.
    #[serde(rename = "APDM")]
    AddressAndPortDependent,
    /// The server has no second address: the same endpoint towards two ports of one address.
    #[serde(rename = "EIM or ADM")]
    NotPortDependent,
}

/// What the NAT lets in (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Filtering {
    /// Everything.
    #[serde(rename = "EIF")]
    EndpointIndependent,
    /// What comes from an address that was sent to.
    #[serde(rename = "ADF")]
    AddressDependent,
    /// What comes from an address and port that was sent to.
    #[serde(rename = "APDF")]
    AddressAndPortDependent,
}

/// The endpoints of a STUN server that are to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Asked first.
    pub primary: SocketAddr,
    /// Another port of the same address, where the server itself names no other address.
    pub second_port: Option<u16>,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// The socket's own address.
    pub local: SocketAddr,
    /// The address as the server sees it.
    pub mapped: SocketAddr,
    /// The mapping; none if the server has but one endpoint.
    pub mapping: Option<Mapping>,
    /// The filtering; none if the server cannot answer from another endpoint.
    pub filtering: Option<Filtering>,
}

/// Whether a STUN server answers over UDP.
pub async fn is_answered(socket: &impl Datagrams, server: SocketAddr) -> bool {
    ask(socket, server, 0).await.is_some()
}

/// Asks `server` from `socket`; `fresh`, which has sent nothing yet, finds out what is let in.
/// `None` if nothing comes back: UDP does not pass.
///
/// # Errors
/// The socket's own address is not known.
pub async fn discover(
    socket: &impl Datagrams,
    fresh: &impl Datagrams,
    server: Server,
) -> io::Result<Option<Discovery>> {
    let Some(first) = ask(socket, server.primary, 0).await else {
        return Ok(None);
    };
    let local = local_address(socket, server.primary).await?;
    let filtering = async {
        match first.other {
            Some(_) => filtering(fresh, server.primary).await,
            None => None,
        }
    };
    let (mapping, filtering) = tokio::join!(mapping(socket, server, local, &first), filtering);
    Ok(Some(Discovery {
        local,
        mapped: first.mapped,
        mapping,
        filtering,
    }))
}

async fn mapping(
    socket: &impl Datagrams,
    server: Server,
    local: SocketAddr,
    first: &Answer,
) -> Option<Mapping> {
    if first.mapped == local {
        return Some(Mapping::Untranslated);
    }
    let seen_by = async |server| ask(socket, server, 0).await.map(|answer| answer.mapped);
    let other = first
        .other
        .filter(|other| other.ip() != server.primary.ip() && !other.ip().is_unspecified());
    let Some(other) = other else {
        let port = first.other.map(|other| other.port()).or(server.second_port);
        let port = port.filter(|port| *port != server.primary.port())?;
        let again = seen_by(SocketAddr::new(server.primary.ip(), port)).await?;
        return Some(match again == first.mapped {
            true => Mapping::NotPortDependent,
            false => Mapping::AddressAndPortDependent,
        });
    };
    // RFC 5780 section 4.3: test II, then test III.
    let second = seen_by(SocketAddr::new(other.ip(), server.primary.port())).await?;
    if second == first.mapped {
        return Some(Mapping::EndpointIndependent);
    }
    let third = seen_by(other).await?;
    Some(match third == second {
        true => Mapping::AddressDependent,
        false => Mapping::AddressAndPortDependent,
    })
}

/// RFC 5780 section 4.4, from a socket that has sent to nobody else.
async fn filtering(socket: &impl Datagrams, server: SocketAddr) -> Option<Filtering> {
    ask(socket, server, 0).await?;
    if let Some(answer) = ask(socket, server, CHANGE_ADDRESS | CHANGE_PORT).await {
        // Servers with one address ignore the request or answer from where they were asked.
        return (answer.from.ip() != server.ip()).then_some(Filtering::EndpointIndependent);
    }
    match ask(socket, server, CHANGE_PORT).await {
        Some(answer) if answer.from == server => None,
        Some(_) => Some(Filtering::AddressDependent),
        None => Some(Filtering::AddressAndPortDependent),
    }
}

/// The address that a socket sends from, where it is bound to none.
async fn local_address(socket: &impl Datagrams, towards: SocketAddr) -> io::Result<SocketAddr> {
    let bound = socket.local_addr()?;
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let look = UdpSocket::bind(SocketAddr::new(bound.ip(), 0)).await?;
    look.connect(towards).await?;
    Ok(SocketAddr::new(look.local_addr()?.ip(), bound.port()))
}

async fn ask(socket: &impl Datagrams, server: SocketAddr, change: u8) -> Option<Answer> {
    stun::ask(socket, server, change, SCHEDULE).await
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untranslated => "no NAT",
            Self::EndpointIndependent => "EIM",
            Self::AddressDependent => "ADM",
            Self::AddressAndPortDependent => "APDM",
            Self::NotPortDependent => "EIM or ADM",
        })
    }
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "EIF",
            Self::AddressDependent => "ADF",
            Self::AddressAndPortDependent => "APDF",
        })
    }
}
