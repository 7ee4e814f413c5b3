//! STUN and TURN: from a silent port to a payload that is lost.

use super::{Observations, because};
use crate::cli::doctor::fault::{Fault, Leg};
use crate::cli::doctor::report::Diagnosis;
use crate::cli::doctor::url::{IceUrl, Transport};
use std::net::{IpAddr, SocketAddr};

impl Observations {
    /// Why a STUN or TURN URL does not work.
    pub(in crate::cli::doctor) fn ice(
        &self,
        fault: &Fault,
        url: &IceUrl,
        at: SocketAddr,
    ) -> Diagnosis {
        let port = at.port();
        let protocol = url.transport.protocol();
        match fault {
            Fault::Silent | Fault::Refused
                if at.is_ipv6() && self.ipv4.contains(&(protocol, port)) =>
            {
                because(
                    "no-ipv6",
                    format!(
                        "{} has an IPv6 address, {}, where nothing answers, while IPv4 works: \
                         browsers lose seconds on it",
                        url.host,
                        at.ip()
                    ),
                    format!(
                        "listen on [::]:{port} and open {port}/{protocol} for IPv6 too, or take \
                         the AAAA record away"
                    ),
                )
            }
            Fault::Silent | Fault::Refused if self.is_wrong_address(url, at) => because(
                "wrong-address",
                format!(
                    "the box hands out {}, where nothing answers, while its web port answers \
                         on {}: it takes itself for another host",
                    at.ip(),
                    self.web.map(|ip| ip.to_string()).unwrap_or_default()
                ),
                "correct public.address (behind 1:1 NAT: the public one) or set public.host",
            ),
            Fault::Silent if url.transport == Transport::Udp && self.tcp => because(
                "udp-blocked",
                format!("UDP to {at} vanishes while TCP gets through: a firewall drops {port}/udp"),
                format!(
                    "open {port}/udp at the cloud's firewall first, then at the host's (`ufw \
                         allow {port}/udp`); if it is open, the network here blocks UDP: ask from \
                         another one"
                ),
            ),
            Fault::Silent if url.transport != Transport::Udp && (self.udp || self.tcp) => because(
                "tcp-blocked",
                format!(
                    "TCP to {at} vanishes while others get through: a firewall drops \
                         {port}/tcp"
                ),
                format!("open {port}/tcp at the cloud's firewall first, then at the host's"),
            ),
            Fault::Silent => because(
                "host-unreachable",
                format!("nothing at all comes back from {}", at.ip()),
                "see that this is the box's address and that it is up; then the firewalls",
            ),
            Fault::Refused => because(
                "port-closed",
                format!("{} says that nothing listens on {port}/{protocol}", at.ip()),
                format!(
                    "see that the box listens there (turn.udp, turn.tcp, tls.listen) and that \
                         a port mapping or a rejecting firewall passes {port}/{protocol} on"
                ),
            ),
            Fault::Foreign => because(
                "port-taken",
                format!(
                    "what answers on {at} over {protocol} is not a TURN server: another program \
                         has the port"
                ),
                format!(
                    "`ss -lpn sport = {port}` on the box names it: stop it, or give callbox \
                         another port"
                ),
            ),
            Fault::Stun(..) => self.refusal(fault, url),
            Fault::Lost(Leg::BetweenRelays) => because(
                "relay-broken",
                "two allocations of this server cannot reach each other",
                "see that turn.denied_peers does not cover the box's own address; its log at \
                 level debug names refused peers",
            ),
            other => self.any(other, &url.host, at),
        }
    }

    /// Why a payload from outside did not reach a relayed address.
    pub(in crate::cli::doctor) fn relay_ports(
        &self,
        fault: &Fault,
        url: &IceUrl,
        at: SocketAddr,
    ) -> Diagnosis {
        match fault {
            Fault::PrivateRelay(relayed) => because(
                "wrong-address",
                format!(
                    "relayed addresses are on {relayed}, which is private, while the box was \
                         reached on {}",
                    at.ip()
                ),
                format!("behind 1:1 NAT, set public.address = [\"{}\"]", at.ip()),
            ),
            Fault::Lost(Leg::FromOutside {
                elsewhere: Some(relayed),
            }) => because(
                "wrong-address",
                format!(
                    "relayed addresses are on {relayed}, where nothing arrives, while the box \
                         was reached on {}",
                    at.ip()
                ),
                format!(
                    "if {} is the box's public address, set public.address to it; if \
                         {relayed} is, open {}/udp there",
                    at.ip(),
                    self.relay_ports
                ),
            ),
            Fault::Lost(Leg::FromOutside { elsewhere: None }) => because(
                "relay-ports-closed",
                "datagrams to a relayed port do not arrive, while the relay itself works: a \
                 firewall drops the relay's port range",
                format!(
                    "open {}/udp (turn.relay_ports) at the cloud's firewall first, then at \
                         the host's",
                    self.relay_ports
                ),
            ),
            other => self.ice(other, url, at),
        }
    }

    /// An error response of a STUN or TURN server.
    fn refusal(&self, fault: &Fault, url: &IceUrl) -> Diagnosis {
        let Fault::Stun(code, reason, realm) = fault else {
            return self.other(fault);
        };
        match code {
            401 if self.skewed() => self.skew(),
            401 | 441 => because(
                "secret-mismatch",
                format!(
                    "the server at {} (realm {realm:?}) does not accept the credentials that \
                         the box hands out: it goes by another secret",
                    url.text
                ),
                "give both the same turn.secrets (coturn: static-auth-secret); if callbox itself \
                 should serve this port, another TURN server has taken it",
            ),
            // Every URL is tried without naming a family, as browsers do: that means IPv4.
            440 => because(
                "no-ipv4",
                "the box has no IPv4 address to relay on, and gives browsers no other: they name \
                 no address family",
                "give the machine an IPv4 address, or name it in public.address",
            ),
            486 => because(
                "quota",
                "the box refuses a further allocation of this user or address",
                "raise turn.user_quota or turn.ip_quota, or wait until calls end",
            ),
            508 => because(
                "no-relay-port",
                "the box has no free relay port, or no address to relay on",
                "widen turn.relay_ports, raise turn.total_quota, and see that public.address \
                 names an address",
            ),
            300 => because(
                "not-ready",
                "the server sends its clients elsewhere: it is draining",
                "ask again after the restart",
            ),
            403 => because(
                "relay-broken",
                "the server forbids its own relayed addresses as peers",
                "take the box's address out of turn.denied_peers",
            ),
            _ => because(
                "turn-error",
                format!("the server answers {code} {reason}"),
                "its log has the same moment in more detail",
            ),
        }
    }

    /// An address was handed out that is not the one on which the box's web port answers.
    fn is_wrong_address(&self, url: &IceUrl, at: SocketAddr) -> bool {
        url.host.parse::<IpAddr>().is_ok()
            && self
                .web
                .is_some_and(|web| web.is_ipv4() == at.is_ipv4() && web != at.ip())
            && !(self.udp && self.tcp)
    }
}
