//! What can go wrong on the way to a box, as it was observed; [`super::diagnose`] says why.

use std::io;
use std::net::IpAddr;

/// One thing that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The name has no address.
    Unresolved(String),
    /// The host says that nothing listens on the port.
    Refused,
    /// This machine has no route of that family.
    NoRoute,
    /// Nothing came back.
    Silent,
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// Something answered, and not in the protocol of the port.
    Foreign,
    /// An HTTP response that was not hoped for: status, and the body's first line.
    Http(u16, String),
    /// The box answered with an `error` message: code and text.
    Signaling(String, String),
    /// A STUN error response: code, reason and the server's realm.
    Stun(u16, String, String),
    /// The far end of a relayed payload never got it.
    Lost(Leg),
    /// The relayed address is none that the Internet reaches, while the server's own is.
    PrivateRelay(IpAddr),
    /// Anything else.
    Other(String),
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsFault {
    /// It names others.
    Name(Vec<String>),
    Expired,
    NotYet,
    Issuer,
    Other(String),
}

/// Which way a payload was to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    /// From one allocation to another of the same server.
    BetweenRelays,
    /// From a socket of this machine to a relayed address, which is that of another host than
    /// the one that was asked for it if `elsewhere` names it.
    FromOutside { elsewhere: Option<IpAddr> },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::from(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => Self::NoRoute,
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Self::Silent,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Foreign,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<&rustls::Error> for Fault {
    fn from(error: &rustls::Error) -> Self {
        use rustls::CertificateError as C;
        Self::Tls(match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                C::NotValidForNameContext { presented, .. } => TlsFault::Name(
                    // As "DnsName(\"other.example\")".
                    presented
                        .iter()
                        .map(|name| name.split('"').nth(1).unwrap_or(name).to_owned())
                        .collect(),
                ),
                C::NotValidForName => TlsFault::Name(vec![]),
                C::Expired | C::ExpiredContext { .. } => TlsFault::Expired,
                C::NotValidYet | C::NotValidYetContext { .. } => TlsFault::NotYet,
                C::UnknownIssuer => TlsFault::Issuer,
                other => TlsFault::Other(other.to_string()),
            },
            rustls::Error::InvalidMessage(_) => return Self::Foreign,
            other => TlsFault::Other(other.to_string()),
        })
    }
}
