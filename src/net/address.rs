//! Where this box is found from outside, and how that was found out.

use super::Names;
use super::interfaces::{Announced, announce, interfaces, outbound};
use super::stun::{self, Schedule};
use crate::config::Public;
use crate::network::network_of;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};

/// RFC 8489 section 6.2.1: the first retransmissions of a STUN request come after 0.5 s, 1 s …
const SCHEDULE: Schedule = Schedule {
    sendings: &[
        Duration::ZERO,
        Duration::from_millis(500),
        Duration::from_millis(1_500),
    ],
    silence: Duration::from_millis(3_000),
};

/// Finds at most one address a family, in the order of the operating contract: what is
/// configured, a public interface, a STUN server where one is named, and else whatever interface
/// the default route takes.
///
/// `is_public` judges whether an address can be reached from the whole Internet; `names` are those
/// of `public`.
pub async fn discover(
    public: &Public,
    names: &mut Names,
    loopback: bool,
    is_public: impl Fn(IpAddr) -> bool,
) -> Vec<Announced> {
    if loopback {
        return [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ]
        .into_iter()
        .map(|ip| Announced {
            address: ip,
            local: ip,
            how: "loopback".into(),
        })
        .collect();
    }
    names.look_up().await;
    rediscover(public, names, &[], is_public).await
}

/// What is found now, of which `before` was announced: an address that is there still and no worse
/// than another stays.
pub async fn rediscover(
    public: &Public,
    names: &Names,
    before: &[Announced],
    is_public: impl Fn(IpAddr) -> bool,
) -> Vec<Announced> {
    let mut found: Vec<Announced> = vec![];
    let mut add = |address: IpAddr, how: &str| {
        let is_like = |known: &Announced| known.address.is_ipv4() == address.is_ipv4();
        if !found.iter().any(is_like) {
            found.extend(announce(address, how.into()));
        }
    };
    for (ip, how) in names.choose(before) {
        add(ip, &how);
    }
    if public.addresses.is_empty() {
        let mut public_ones: Vec<IpAddr> = interfaces().into_iter().collect();
        public_ones.retain(|ip| is_public(*ip) && is_usable(*ip));
        // Of a prefix that is on its way out the machine sends nothing any more.
        let preferred = outbound(false).map(network_of);
        let is_old = |ip: &IpAddr| ip.is_ipv6() && preferred.is_some_and(|p| p != network_of(*ip));
        let is_new = |ip: &IpAddr| before.iter().all(|known| known.address != *ip);
        public_ones.sort_by_key(|ip| (is_old(ip), is_new(ip)));
        for ip in public_ones {
            add(ip, "network interface");
        }
        if let Some(server) = &public.stun {
            let how = format!("STUN by {server}");
            match ask(server).await {
                Ok(addresses) => addresses.into_iter().for_each(|ip| add(ip, &how)),
                Err(error) => {
                    tracing::warn!("public.stun: no answer of {server}: {error}");
                    let known = before.iter().filter(|known| known.how == how);
                    known.for_each(|known| add(known.address, &how));
                }
            }
        }
        for ipv4 in [true, false] {
            if let Some(ip) = outbound(ipv4).filter(|ip| !ip.is_loopback() && !is_link_local(*ip)) {
                add(
                    ip,
                    "interface of the default route; not public, so set public.address",
                );
            }
        }
    }
    found.sort_by_key(|announced| announced.address.is_ipv6());
    found
}

/// Good on one link only, and with a zone beside it.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Whether sockets can be bound to an address: one of IPv6 is listed before the kernel has
/// made sure that nobody else has it.
fn is_usable(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// Asks a STUN server over each family that its name has.
async fn ask(server: &str) -> io::Result<Vec<IpAddr>> {
    let mut answers: Vec<IpAddr> = vec![];
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(server).await? {
        if answers
            .iter()
            .any(|known| known.is_ipv4() == address.is_ipv4())
        {
            continue;
        }
        match ask_one(address).await {
            Ok(ip) => answers.push(ip),
            Err(error) => failure = error,
        }
    }
    if answers.is_empty() {
        Err(failure)
    } else {
        Ok(answers)
    }
}

async fn ask_one(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    match stun::ask(&socket, server, 0, SCHEDULE).await {
        Some(answer) => Ok(answer.mapped.ip()),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AddressRule;

    fn public(addresses: Vec<AddressRule>) -> Public {
        Public {
            turn_host: None,
            host: None,
            ice_urls: vec![],
            addresses,
            stun: None,
        }
    }

    #[tokio::test]
    async fn a_loopback_box_is_found_on_loopback_only() {
        let found = discover(&public(vec![]), &mut Names::new(&[]), true, |_| true).await;
        assert!(
            found
                .iter()
                .all(|a| a.address.is_loopback() && a.how == "loopback")
        );
    }

    #[tokio::test]
    async fn a_configured_address_is_announced_and_the_local_one_bound() {
        for local in ["127.0.0.1", "127.0.7.1"] {
            let public = public(vec![AddressRule::Ip(local.parse().unwrap())]);
            let mut names = Names::new(&public.addresses);
            let found = discover(&public, &mut names, false, |_| false).await;
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].local, found[0].address);
            assert_eq!(found[0].how, "public.address");
        }
    }
}
