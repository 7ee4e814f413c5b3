//! What the configuration and this machine tell before the box is asked anything.

use super::report::{Diagnosis, Line};
use super::url::BaseUrl;
use crate::address::bracketed;
use crate::cli::certificate::check_certificate;
use crate::config::Config;
use crate::net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Processes that rightly hold the box's ports: itself, and systemd for `callbox.socket`.
const EXPECTED_OWNERS: [&str; 2] = ["callbox", "systemd"];

/// Where a box on this machine that runs by `config` is asked: under its public name where TLS is
/// served, as clients do, else on its first plain listener.
///
/// # Errors
/// It has none that can be known.
pub(super) fn base_url(config: &Config) -> Result<BaseUrl, String> {
    let known = |listen: &[SocketAddr]| listen.iter().find(|a| a.port() != 0).copied();
    if let (Some(host), Some(tls)) = (&config.public.host, known(&config.tls.listen)) {
        return BaseUrl::parse(&format!("https://{}:{}", bracketed(host), tls.port()));
    }
    let address =
        known(&config.http.listen).ok_or("http.listen names no port that is known: give --url")?;
    BaseUrl::parse(&format!("http://{}", reachable(address)))
}

/// Ports of the configuration that another program holds.
pub(super) fn foreign_holders(config: &Config) -> Vec<Line> {
    let mut lines = vec![];
    let turn = |listen: &[SocketAddr]| match config.turn.enabled {
        true => listen.to_vec(),
        false => vec![],
    };
    let listeners = [
        ("http.listen", "tcp", config.http.listen.clone()),
        ("tls.listen", "tcp", config.tls.listen.clone()),
        ("turn.udp", "udp", turn(&config.turn.udp.addresses)),
        ("turn.tcp", "tcp", turn(&config.turn.tcp.addresses)),
    ];
    let mut named: Vec<(&str, u16)> = vec![];
    let each = listeners.iter().flat_map(|(key, protocol, addresses)| {
        let named = move |address: &SocketAddr| (*key, *protocol, *address);
        addresses.iter().map(named)
    });
    for (key, protocol, address) in each {
        let port = address.port();
        if port == 0 || named.contains(&(protocol, port)) {
            continue;
        }
        let Some(owner) = net::owner_of(protocol, address) else {
            continue;
        };
        if EXPECTED_OWNERS.contains(&owner.name.as_str()) {
            continue;
        }
        named.push((protocol, port));
        let diagnosis = Diagnosis {
            finding: "port-taken",
            cause: format!("port {port}/{protocol} of this machine is taken by {owner}"),
            fix: format!("stop it, or set {key} to another port"),
        };
        let check = format!("port {port}/{protocol}");
        lines.push(Line::failed(check, "taken", Duration::ZERO, diagnosis));
    }
    lines
}

/// What is wrong with the certificate files of the configuration.
pub(super) fn certificate_faults(config: &Config) -> Vec<Line> {
    let diagnosis = |cause| Diagnosis {
        finding: "certificate",
        cause,
        fix: "correct the files of tls.cert and tls.key: they are read again by themselves".into(),
    };
    let check = "certificate files";
    let known = config.warnings.len();
    match check_certificate(config.clone()) {
        Ok(checked) => {
            let remarks = checked.warnings[known..].iter().cloned().map(diagnosis);
            let note = |d| Line::note(check, "to look at", d);
            remarks.map(note).collect()
        }
        Err(error) => {
            let faults = error.0.iter().map(|problem| diagnosis(problem.to_string()));
            let failed = |d| Line::failed(check, "faulty", Duration::ZERO, d);
            faults.map(failed).collect()
        }
    }
}

/// The address by which this machine reaches its own listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, udp: &str) -> Config {
        let env = [
            ("CALLBOX_HTTP__LISTEN", listen),
            ("CALLBOX_TURN__UDP", udp),
            ("CALLBOX_TURN__TCP", "127.0.0.1:0"),
            ("CALLBOX_AUTH__MODE", "open"),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
        Config::load(None, env.into_iter()).unwrap()
    }

    #[test]
    fn a_port_that_another_program_holds_is_named_once() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = config("127.0.0.1:0", &format!("127.0.0.1:{port},[::1]:{port}"));
        let lines = foreign_holders(&config);
        assert_eq!(lines.len(), 1);
        let diagnosis = lines[0].diagnosis.as_ref().unwrap();
        assert_eq!(diagnosis.finding, "port-taken");
        let holder = format!("pid {}", std::process::id());
        assert!(diagnosis.cause.contains(&holder), "{}", diagnosis.cause);
    }

    #[test]
    fn a_box_on_all_addresses_is_asked_on_loopback() {
        let url = |listen| base_url(&config(listen, "127.0.0.1:0")).map(|u| u.to_string());
        assert_eq!(url("[::]:8080"), Ok("http://[::1]:8080".into()));
        assert_eq!(url("0.0.0.0:80"), Ok("http://127.0.0.1".into()));
        assert!(url("127.0.0.1:0").is_err());
    }
}
