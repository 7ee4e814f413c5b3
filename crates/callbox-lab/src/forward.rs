//! What of the machine's loopback a program behind a NAT reaches: the box that `--to` names, and
//! the X display of a remote login.

use crate::kind::{Kind, TcpRule};
use crate::network::Network;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, ToSocketAddrs as _};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const REACH_WITHIN: Duration = Duration::from_secs(10);
/// TCP ports of X displays begin here.
const X11: u16 = 6_000;

/// Listeners inside; they end when this is dropped.
pub struct Forwards(Vec<JoinHandle<()>>);

impl Drop for Forwards {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Listens inside for what leads to the machine's loopback.
///
/// # Errors
/// A sentence.
pub async fn open(network: &Network, to: Option<&str>) -> Result<Forwards, String> {
    let mut targets = vec![];
    if let Some(url) = to {
        let target = resolve(url)?;
        if target.ip().is_loopback() {
            targets.push(target);
        }
    }
    if let Some(display) = std::env::var("DISPLAY").ok().as_deref().and_then(x11) {
        targets.push(display);
    }
    let mut tasks = vec![];
    for target in targets {
        let bound = network
            .inside
            .run(move || {
                let listener = StdListener::bind(target)?;
                listener.set_nonblocking(true)?;
                Ok::<_, std::io::Error>(listener)
            })
            .await?;
        let broken = |error| format!("{target} inside: {error}");
        let listener = bound.map_err(broken)?;
        let listener = TcpListener::from_std(listener).map_err(broken)?;
        tasks.push(tokio::spawn(accept(listener, target)));
    }
    Ok(Forwards(tasks))
}

async fn accept(listener: TcpListener, target: SocketAddr) {
    while let Ok((mut inside, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Ok(mut machine) = TcpStream::connect(target).await {
                let _ = copy_bidirectional(&mut inside, &mut machine).await;
            }
        });
    }
}

/// Tries to reach `url` from inside.
///
/// # Errors
/// A sentence with the likeliest reason.
pub async fn reach(network: &Network, url: &str) -> Result<(), String> {
    let target = resolve(url)?;
    let kind = network.settings.kind;
    if kind.rules().tcp == TcpRule::TlsOn443 && !target.ip().is_loopback() {
        let is_https = url.starts_with("https:") || url.starts_with("wss:");
        if target.port() != 443 || !is_https {
            return Err(format!(
                "{url} is not reached from behind {}: it passes TLS on TCP port 443 only, so the \
                 box needs tls.listen on port 443",
                Kind::TlsOnly
            ));
        }
    }
    // The lab's gateway accepts before it knows, so the machine asks first.
    let from_machine = timeout(REACH_WITHIN, TcpStream::connect(target)).await;
    let from_machine = from_machine.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = from_machine {
        return Err(format!(
            "{url} is not reached from this machine: {error}; is the box running there?"
        ));
    }
    let connects = network
        .inside
        .run(move || std::net::TcpStream::connect_timeout(&target, REACH_WITHIN))
        .await?;
    connects
        .map(drop)
        .map_err(|error| format!("{url} is not reached from behind {kind}: {error}"))
}

fn resolve(url: &str) -> Result<SocketAddr, String> {
    let bad = || format!("--to {url:?} is not a valid URL: write https://call.example.org");
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let port = match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => return Err(bad()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let full = match has_port {
        true => authority.to_owned(),
        false => format!("{authority}:{port}"),
    };
    let mut found = full
        .to_socket_addrs()
        .map_err(|error| format!("--to {url}: {error}"))?;
    found.next().ok_or_else(bad)
}

/// The address of a display that is reached over TCP, as `ssh -X` makes them.
fn x11(display: &str) -> Option<SocketAddr> {
    let number = display.strip_prefix("localhost:")?;
    let number: u16 = number.split('.').next()?.parse().ok()?;
    Some(SocketAddr::new(
        std::net::Ipv4Addr::LOCALHOST.into(),
        X11.checked_add(number)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_their_ports() {
        let read = |url| resolve(url).map(|address| address.to_string());
        assert_eq!(read("http://127.0.0.1:8080/x"), Ok("127.0.0.1:8080".into()));
        assert_eq!(read("https://192.0.2.1"), Ok("192.0.2.1:443".into()));
        assert_eq!(
            read("wss://[2001:db8::1]/ws"),
            Ok("[2001:db8::1]:443".into())
        );
        assert!(read("192.0.2.1").is_err());
        assert!(read("ftp://192.0.2.1").is_err());
    }

    #[test]
    fn a_display_of_a_remote_login_is_a_tcp_port() {
        let found = x11("localhost:10.0").map(|address| address.to_string());
        assert_eq!(found.as_deref(), Some("127.0.0.1:6010"));
        assert_eq!(x11(":0"), None);
    }
}
