//! From what was observed to the likeliest cause and its mend. Pure: these sentences are what the
//! doctor is for.

use super::fault::{Fault, Leg, TlsFault};
use super::report::Diagnosis;
use super::url::{IceUrl, Transport};
use std::net::{IpAddr, SocketAddr};

/// What the other checks saw: one failure alone rarely tells its cause.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Something of the box answered over TCP.
    pub(super) tcp: bool,
    /// Something of the box answered over UDP.
    pub(super) udp: bool,
    /// Something of the box answered over IPv4.
    pub(super) ipv4: bool,
    /// Where the box's HTTP answered.
    pub(super) web: Option<IpAddr>,
    /// Seconds by which the box's clock is ahead of this machine's.
    pub(super) ahead: i64,
    /// A token was sent along.
    pub(super) token: bool,
    /// `turn.relay_ports` of the configuration, or its default.
    pub(super) relay_ports: String,
}

/// More seconds of difference than any network delay explains; tokens with `nbf` or a short `exp`
/// fail from about there.
pub(super) const MAX_SKEW: i64 = 30;

impl Seen {
    pub(super) fn skewed(&self) -> bool {
        self.ahead.abs() > MAX_SKEW
    }

    /// Why the box's HTTP cannot be asked.
    pub(super) fn web(&self, fault: &Fault, at: SocketAddr, host: &str) -> Diagnosis {
        match fault {
            Fault::Refused => because(
                "box-down",
                format!("nothing listens on {at}: the box is not running, or listens elsewhere"),
                "start it (`systemctl status callbox` says how it ended) and compare http.listen \
                 and tls.listen with this URL",
            ),
            Fault::Silent => because(
                "tcp-blocked",
                format!(
                    "nothing comes back from {at}: a firewall drops {}/tcp",
                    at.port()
                ),
                format!(
                    "open {}/tcp at the cloud's firewall first, then at the host's; see that the \
                     address is the box's",
                    at.port()
                ),
            ),
            Fault::Foreign => because(
                "port-taken",
                format!(
                    "what answers on {at} does not speak as a box does: another program has \
                         the port, or http:// and https:// are mixed up"
                ),
                format!(
                    "`ss -ltnp sport = {}` on the box names the program",
                    at.port()
                ),
            ),
            Fault::Http(503, line) => because(
                "not-ready",
                format!("the box is {line}: it takes no newcomers"),
                "wait until it is ready; while it drains, a restart is under way",
            ),
            Fault::Http(status, _) => because(
                "not-callbox",
                format!(
                    "HTTP {status} comes from something that is no box: a proxy in front, or \
                         another program"
                ),
                "see that the proxy passes every path on to http.listen",
            ),
            other => self.any(other, host, at),
        }
    }

    /// Why no session could be had.
    pub(super) fn signaling(&self, fault: &Fault, at: SocketAddr, host: &str) -> Diagnosis {
        match fault {
            Fault::Signaling(code, _) if code == "token-expired" && self.skewed() => self.skew(),
            Fault::Signaling(code, message)
                if ["unauthorized", "token-expired", "forbidden"].contains(&code.as_str()) =>
            {
                if self.token {
                    because(
                        "token-refused",
                        format!("the box refuses the token: {message}"),
                        "sign it with the key that auth.secret, auth.public_key or auth.jwks of \
                         the running box names, and its aud and iss as configured",
                    )
                } else {
                    because(
                        "token-needed",
                        "the box asks for a token, and none was given",
                        "give --token (`callbox token --identity doctor --room '*'` makes one), \
                         or --config with the box's own file",
                    )
                }
            }
            Fault::Signaling(code, message) => because(
                "signaling",
                format!("the box answers {code}: {message}"),
                "its log has the same moment in more detail",
            ),
            Fault::Http(403, line) => because(
                "host-refused",
                format!("the box refuses the request: {line}"),
                "ask by the name in public.host",
            ),
            Fault::Http(429 | 503, line) => because(
                "not-ready",
                format!("the box takes no connection: {line}"),
                "wait, or raise signal.connections_per_ip and signal.max_connections",
            ),
            Fault::Http(status, _) => because(
                "websocket-blocked",
                format!(
                    "HTTP {status} in place of a WebSocket: a proxy in front does not pass \
                         the upgrade on"
                ),
                "nginx: proxy_http_version 1.1, and the headers Upgrade and Connection; see \
                 docs/deploy.md",
            ),
            other => self.web(other, at, host),
        }
    }

    /// Why a STUN or TURN URL does not work.
    pub(super) fn ice(&self, fault: &Fault, url: &IceUrl, at: SocketAddr) -> Diagnosis {
        let port = at.port();
        let protocol = url.transport.protocol();
        match fault {
            Fault::Silent | Fault::Refused if at.is_ipv6() && self.ipv4 => because(
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
            ),
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
                    "what answers on {at} over {protocol} is no TURN server: another program \
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
    pub(super) fn relay_ports(&self, fault: &Fault, url: &IceUrl, at: SocketAddr) -> Diagnosis {
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

    /// The clocks differ.
    pub(super) fn skew(&self) -> Diagnosis {
        let (by, direction) = (
            self.ahead.unsigned_abs(),
            if self.ahead > 0 { "ahead of" } else { "behind" },
        );
        because(
            "clock-skew",
            format!(
                "the box's clock is {by} s {direction} this machine's: tokens and credentials \
                     of other programs expire early or late"
            ),
            "set both by NTP (`timedatectl set-ntp true`); auth.leeway bridges a few seconds",
        )
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
            440 => because(
                "no-ipv6",
                "the box has no public IPv6 address to relay on: peers that have IPv6 only are \
                 reached by no relay",
                "give the machine an IPv6 address, or name it in public.address",
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

    fn any(&self, fault: &Fault, host: &str, at: SocketAddr) -> Diagnosis {
        match fault {
            Fault::Unresolved(reason) => unresolved(host, reason),
            Fault::Tls(tls) => certificate(tls, host),
            Fault::NoRoute => because(
                "no-ipv6",
                format!("this machine has no route to {}", at.ip()),
                "ask from a network that has the address's family",
            ),
            other => self.other(other),
        }
    }

    fn other(&self, fault: &Fault) -> Diagnosis {
        let text = match fault {
            Fault::Other(text) => text.clone(),
            other => format!("{other:?}"),
        };
        because("other", text, "the box's log may say more")
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

/// A name that leads nowhere.
pub(super) fn unresolved(host: &str, reason: &str) -> Diagnosis {
    because(
        "name-unresolved",
        format!("{host} has no address: {reason}"),
        format!(
            "make an A record (and AAAA) for {host} that points at the box, or correct \
                 public.host"
        ),
    )
}

fn certificate(fault: &TlsFault, host: &str) -> Diagnosis {
    match fault {
        TlsFault::Name(presented) => because(
            "certificate-name",
            format!(
                "the certificate is for {}, and not for {host}",
                match presented.as_slice() {
                    [] => "other names".to_owned(),
                    names => names.join(", "),
                }
            ),
            format!(
                "ask for one that names {host} (tls.acme does by itself), or reach the box by \
                     a name that the certificate has"
            ),
        ),
        TlsFault::Expired => because(
            "certificate-expired",
            "the certificate has expired",
            "renew it; the box takes the new files of tls.cert and tls.key up by itself",
        ),
        TlsFault::NotYet => because(
            "certificate-not-yet-valid",
            "the certificate is not valid yet: it is new, or this machine's clock is behind",
            "compare `date` here and on the box",
        ),
        TlsFault::Issuer => because(
            "certificate-issuer",
            "nobody whom this machine trusts signed the certificate: it is self-signed, or the \
             file lacks the intermediate certificates",
            "give tls.cert the full chain (fullchain.pem), or trust your own authority: \
             SSL_CERT_FILE names a store",
        ),
        TlsFault::Other(text) => because(
            "tls",
            format!("the TLS handshake fails: {text}"),
            "see that the port speaks TLS (tls.listen) and nothing on the way ends it",
        ),
    }
}

fn because(finding: &'static str, cause: impl Into<String>, mend: impl Into<String>) -> Diagnosis {
    Diagnosis {
        finding,
        cause: cause.into(),
        mend: mend.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            tcp: true,
            udp: true,
            ipv4: true,
            web: Some("198.51.100.7".parse().unwrap()),
            relay_ports: "49152-65535".into(),
            ..Seen::default()
        }
    }

    fn finding(seen: &Seen, fault: Fault, url: &str) -> &'static str {
        let url = IceUrl::parse(url).unwrap();
        let ip = url.host.parse().unwrap_or("198.51.100.7".parse().unwrap());
        seen.ice(&fault, &url, SocketAddr::new(ip, url.port))
            .finding
    }

    #[test]
    fn silence_is_read_by_what_else_answers() {
        let no_udp = Seen {
            udp: false,
            ..seen()
        };
        let dead = Seen {
            udp: false,
            tcp: false,
            ..seen()
        };
        let udp = "turn:call.example.org?transport=udp";
        let tls = "turns:call.example.org:443?transport=tcp";
        assert_eq!(finding(&no_udp, Fault::Silent, udp), "udp-blocked");
        assert_eq!(finding(&seen(), Fault::Silent, tls), "tcp-blocked");
        assert_eq!(finding(&dead, Fault::Silent, udp), "host-unreachable");
        let elsewhere = "turn:203.0.113.9?transport=udp";
        assert_eq!(finding(&no_udp, Fault::Silent, elsewhere), "wrong-address");
        let v6 = "turn:[2001:db8::7]?transport=udp";
        assert_eq!(finding(&no_udp, Fault::Silent, v6), "no-ipv6");
    }

    #[test]
    fn a_refused_credential_is_the_secret_unless_the_clocks_differ() {
        let unauthorized = || Fault::Stun(401, "Unauthorized".into(), "coturn".into());
        let url = "turn:call.example.org";
        assert_eq!(finding(&seen(), unauthorized(), url), "secret-mismatch");
        let late = Seen {
            ahead: -4000,
            ..seen()
        };
        assert_eq!(finding(&late, unauthorized(), url), "clock-skew");
        assert!(late.skew().cause.contains("4000 s behind"));
    }

    #[test]
    fn a_payload_lost_from_outside_is_the_address_or_the_port_range() {
        let url = IceUrl::parse("turn:call.example.org").unwrap();
        let at = "198.51.100.7:3478".parse().unwrap();
        let lost = |elsewhere: Option<&str>| {
            let elsewhere = elsewhere.map(|ip| ip.parse().unwrap());
            let fault = Fault::Lost(Leg::FromOutside { elsewhere });
            seen().relay_ports(&fault, &url, at)
        };
        let closed = lost(None);
        assert_eq!(closed.finding, "relay-ports-closed");
        assert!(closed.mend.contains("49152-65535/udp"), "{}", closed.mend);
        assert_eq!(lost(Some("203.0.113.9")).finding, "wrong-address");
    }

    #[test]
    fn a_refused_token_and_a_missing_one_are_told_apart() {
        let at = "198.51.100.7:443".parse().unwrap();
        let refused = Fault::Signaling("unauthorized".into(), "signature".into());
        assert_eq!(seen().signaling(&refused, at, "h").finding, "token-needed");
        let with_token = Seen {
            token: true,
            ..seen()
        };
        assert_eq!(
            with_token.signaling(&refused, at, "h").finding,
            "token-refused"
        );
        let upgrade = Fault::Http(400, String::new());
        assert_eq!(
            seen().signaling(&upgrade, at, "h").finding,
            "websocket-blocked"
        );
    }
}
