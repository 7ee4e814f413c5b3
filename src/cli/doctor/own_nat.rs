//! `callbox doctor --nat`: what kind of NAT this machine is behind, by the box's STUN server.

use super::dial;
use super::examination::Examination;
use super::fault::Fault;
use super::report::{Diagnosis, Line};
use super::url::{BaseUrl, IceUrl};
use super::web::Web;
use super::wire::socket_for;
use crate::cli::nat::{self, Discovery, Filtering, Mapping, Server};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STUN_PORT: u16 = 3478;
/// The port after the first is what a box listens on as well (`turn.udp`).
const NEXT: u16 = 1;

impl Examination {
    /// One line a family of the box.
    pub(super) async fn own_nat(&mut self, base: &BaseUrl, token: Option<&str>) {
        let (servers, no_box) = self.stun_servers(base, token).await;
        if servers.is_empty() {
            let diagnosis = Diagnosis {
                finding: "no-address",
                cause: format!("{} has no address", base.host),
                fix: "check the name".into(),
            };
            let line = Line::failed("NAT", "not found out", Instant::now().elapsed(), diagnosis);
            self.lines.push(line);
        }
        for server in servers {
            let line = ask(server, no_box.as_ref()).await;
            self.lines.push(line);
        }
    }

    /// Where the box's STUN is, and what is wrong where no box answers over HTTP. STUN needs no
    /// credential: where the box hands no URLs out without a token, its usual port is asked.
    async fn stun_servers(
        &self,
        base: &BaseUrl,
        token: Option<&str>,
    ) -> (Vec<SocketAddr>, Option<Diagnosis>) {
        let mut host = (base.host.clone(), STUN_PORT);
        let mut no_box = None;
        let found = dial::resolve(&base.host, base.port).await;
        if let Some(address) = found.ok().and_then(|found| found.first().copied()) {
            let web = Web {
                base: base.clone(),
                address,
                trust: Arc::clone(&self.trust),
            };
            let handed = web.ice_servers(token).await.unwrap_or_else(|fault| {
                if !is_of_a_box(&fault) {
                    no_box = Some(self.seen.web(&fault, address, &base.host));
                }
                vec![]
            });
            let urls = handed
                .iter()
                .filter_map(|entry| entry["urls"].as_array())
                .flatten();
            let found = urls
                .filter_map(Value::as_str)
                .filter_map(IceUrl::parse)
                .filter(|url| !url.relays);
            let mut addresses: Vec<SocketAddr> = vec![];
            for url in found {
                for address in dial::resolve(&url.host, url.port).await.unwrap_or_default() {
                    let is_new = |known: &SocketAddr| known.is_ipv4() != address.is_ipv4();
                    if addresses.iter().all(is_new) {
                        addresses.push(address);
                    }
                }
            }
            if !addresses.is_empty() {
                return (addresses, no_box);
            }
            host = (address.ip().to_string(), STUN_PORT);
        }
        let found = dial::resolve(&host.0, host.1).await;
        (found.unwrap_or_default(), no_box)
    }
}

/// Whether a box may be there all the same: it asks for a token, or takes nobody now, or has a certificate that
/// this machine does not trust.
fn is_of_a_box(fault: &Fault) -> bool {
    matches!(fault, Fault::Http(401 | 403 | 429 | 503, _) | Fault::Tls(_))
}

async fn ask(server: SocketAddr, no_box: Option<&Diagnosis>) -> Line {
    let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
    let check = format!("NAT {family}");
    let started = Instant::now();
    let found = async {
        let (first, fresh) = (socket_for(server).await?, socket_for(server).await?);
        let server = Server {
            primary: server,
            second_port: server.port().checked_add(NEXT),
        };
        let found = nat::discover(&first, &fresh, server).await;
        found.map_err(super::fault::Fault::from)
    };
    match found.await {
        Ok(Some(found)) => Line::ok(check, said(&found), started.elapsed()),
        Ok(None) => silent(check, server, no_box, started.elapsed()),
        Err(_) => Line::note(
            check,
            "not found out",
            Diagnosis {
                finding: "no-route",
                cause: format!("this machine has no {family}"),
                fix: "nothing is wrong with that".into(),
            },
        ),
    }
}

/// No answer came over UDP. That says something of this machine's network only where a box is.
fn silent(check: String, server: SocketAddr, no_box: Option<&Diagnosis>, took: Duration) -> Line {
    match no_box {
        None => Line::note(
            check,
            "no UDP",
            Diagnosis {
                finding: "udp-blocked",
                cause: format!("no answer comes from {server} over UDP"),
                fix: "where other networks get one, a firewall here drops UDP (no-udp or tls-only \
                      of `callbox behind`): calls from here go by the relay over TCP or TLS"
                    .into(),
            },
        ),
        Some(diagnosis) => Line::failed(
            check,
            "not found out",
            took,
            Diagnosis {
                cause: format!(
                    "no box answers: over UDP {server} is silent, and {}",
                    diagnosis.cause
                ),
                ..diagnosis.clone()
            },
        ),
    }
}

/// The kind in the words of `callbox behind`, and what follows for calls.
fn said(found: &Discovery) -> String {
    let filtering = match found.filtering {
        Some(filtering) => filtering.to_string(),
        None => "filtering unknown, the box has one address".into(),
    };
    let Some(mapping) = found.mapping else {
        return format!(
            "seen as {}; the kind is unknown, the box has one STUN port",
            found.mapped
        );
    };
    let kind = match (mapping, found.filtering) {
        (Mapping::Untranslated, None | Some(Filtering::EndpointIndependent)) => "none",
        (Mapping::Untranslated, _) => "no NAT, but a firewall",
        (Mapping::EndpointIndependent, Some(Filtering::EndpointIndependent)) => "full",
        (Mapping::EndpointIndependent, Some(Filtering::AddressDependent)) => "restricted",
        (Mapping::EndpointIndependent, Some(Filtering::AddressAndPortDependent)) => {
            "port-restricted"
        }
        (Mapping::EndpointIndependent | Mapping::NotPortDependent, _) => "not symmetric",
        (Mapping::AddressDependent, _) => "symmetric by address",
        (Mapping::AddressAndPortDependent, _) => "symmetric",
    };
    let calls = match mapping {
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => {
            "calls to peers behind port-restricted or symmetric NATs go by the relay"
        }
        _ if kind == "none" || kind == "full" || kind == "restricted" => {
            "calls go directly, unless the other side has no UDP"
        }
        _ => "calls go directly, unless the other side is symmetric or has no UDP",
    };
    format!(
        "{kind} ({mapping}, {filtering}), seen as {}: {calls}",
        found.mapped
    )
}

#[cfg(test)]
mod tests {
    use super::super::diagnose::Observations;
    use super::super::report::Status;
    use super::*;

    fn found(mapping: Option<Mapping>, filtering: Option<Filtering>) -> String {
        said(&Discovery {
            local: "10.0.0.2:5000".parse().unwrap(),
            mapped: "192.0.2.1:6000".parse().unwrap(),
            mapping,
            filtering,
        })
    }

    #[test]
    fn silence_is_a_firewall_where_a_box_answers_and_a_failure_where_none_does() {
        let (server, took) = ("192.0.2.9:3478".parse().unwrap(), Duration::ZERO);
        let note = silent("NAT IPv4".into(), server, None, took);
        assert_eq!((note.status, &*note.detail), (Status::Note, "no UDP"));

        let at = "192.0.2.9:443".parse().unwrap();
        let no_box = Observations::default().web(&Fault::Refused, at, "192.0.2.9");
        let failed = silent("NAT IPv4".into(), server, Some(&no_box), took);
        assert_eq!(
            (failed.status, &*failed.detail),
            (Status::Failed, "not found out")
        );
        let diagnosis = failed.diagnosis.unwrap();
        assert_eq!(diagnosis.finding, "box-down");
        assert_eq!(
            diagnosis.cause,
            "no box answers: over UDP 192.0.2.9:3478 is silent, and nothing listens on \
             192.0.2.9:443: the box is not running, or listens elsewhere"
        );
        assert_eq!(diagnosis.fix, no_box.fix);
    }

    #[test]
    fn a_box_that_asks_for_a_token_is_a_box() {
        assert!(is_of_a_box(&Fault::Http(401, String::new())));
        for fault in [
            Fault::Http(404, String::new()),
            Fault::Refused,
            Fault::Silent,
            Fault::Foreign,
        ] {
            assert!(!is_of_a_box(&fault), "{fault:?}");
        }
    }

    #[test]
    fn what_was_found_has_the_names_of_the_kinds() {
        use Filtering::{AddressAndPortDependent as Apdf, EndpointIndependent as Eif};
        use Mapping::{AddressAndPortDependent as Apdm, EndpointIndependent as Eim};
        let says = |mapping, filtering, words: &str| {
            let text = found(mapping, filtering);
            assert!(text.starts_with(words), "{text}");
        };
        says(Some(Mapping::Untranslated), Some(Eif), "none (no NAT, EIF)");
        says(
            Some(Eim),
            Some(Eif),
            "full (EIM, EIF), seen as 192.0.2.1:6000: calls go directly",
        );
        says(Some(Eim), Some(Apdf), "port-restricted (EIM, APDF)");
        says(Some(Apdm), Some(Apdf), "symmetric (APDM, APDF)");
        says(Some(Apdm), None, "symmetric (APDM, filtering unknown");
        says(
            Some(Mapping::NotPortDependent),
            None,
            "not symmetric (EIM or ADM",
        );
        says(None, None, "seen as 192.0.2.1:6000; the kind is unknown");
    }
}
