//! What kind of NAT a socket is behind, by asking a STUN server (RFC 5780).
//!
//! A server with two addresses and two ports answers everything. One with a second port only
//! still tells a mapping that depends on the port, which is what decides whether peers meet
//! directly.

use serde::Serialize;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_CHANGE_REQUEST, ATTR_OTHER_ADDRESS};
use stun::message::{BINDING_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, Message, Setter};
use stun::xoraddr::XorMappedAddress;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Requests are sent at these times after the first (RFC 8489 section 6.2.1, cut short: silence is
/// an answer here).
const SENDINGS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(1_100),
];
/// When nothing has come by then, nothing will.
const SILENCE: Duration = Duration::from_millis(1_800);
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

/// Asks `server` from `socket`; `fresh`, which has sent nothing yet, finds out what is let in.
/// `None` if nothing comes back: UDP does not pass.
///
/// # Errors
/// The socket's own address is not known.
pub async fn discover(
    socket: &UdpSocket,
    fresh: &UdpSocket,
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
    socket: &UdpSocket,
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
async fn filtering(socket: &UdpSocket, server: SocketAddr) -> Option<Filtering> {
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
async fn local_address(socket: &UdpSocket, towards: SocketAddr) -> io::Result<SocketAddr> {
    let bound = socket.local_addr()?;
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let look = UdpSocket::bind(SocketAddr::new(bound.ip(), 0)).await?;
    look.connect(towards).await?;
    Ok(SocketAddr::new(look.local_addr()?.ip(), bound.port()))
}

struct Answer {
    from: SocketAddr,
    mapped: SocketAddr,
    other: Option<SocketAddr>,
}

/// One request, sent until it is answered or silence is sure.
async fn ask(socket: &UdpSocket, server: SocketAddr, change: u8) -> Option<Answer> {
    let mut request = Message::new();
    let setters: [Box<dyn Setter>; 2] = [Box::new(TransactionId::new()), Box::new(BINDING_REQUEST)];
    request.build(&setters).ok()?;
    if change != 0 {
        request.add(ATTR_CHANGE_REQUEST, &[0, 0, 0, change]);
    }
    let started = Instant::now();
    let mut buffer = [0; 2_048];
    for n in 0..SENDINGS.len() {
        let _ = socket.send_to(&request.raw, server).await;
        let until = started + SENDINGS.get(n + 1).copied().unwrap_or(SILENCE);
        while let Ok(Ok((length, from))) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            if let Some(answer) = read(&buffer[..length], from, &request) {
                return Some(answer);
            }
        }
    }
    None
}

fn read(bytes: &[u8], from: SocketAddr, request: &Message) -> Option<Answer> {
    let mut message = Message {
        raw: bytes.to_vec(),
        ..Message::default()
    };
    message.decode().ok()?;
    let fits = message.transaction_id == request.transaction_id
        && message.typ.class == CLASS_SUCCESS_RESPONSE;
    if !fits {
        return None;
    }
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&message).ok()?;
    let mut other = stun::addr::MappedAddress::default();
    let other = other
        .get_from_as(&message, ATTR_OTHER_ADDRESS)
        .ok()
        .map(|()| SocketAddr::new(other.ip, other.port));
    Some(Answer {
        from,
        mapped: SocketAddr::new(mapped.ip, mapped.port),
        other,
    })
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
