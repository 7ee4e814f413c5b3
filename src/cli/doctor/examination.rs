//! The order of questions: each answer tells how to read the next failure.

use super::OWN_TTL;
use super::diagnose::{self, Observations};
use super::dial;
use super::fault::Fault;
use super::relay::{Outside, Server};
use super::report::{Diagnosis, Line};
use super::turn::Credential;
use super::url::{BaseUrl, IceUrl, Transport};
use super::web::{Session, Web};
use crate::clock;
use crate::config::Config;
use futures_util::future::join_all;
use rustls::ClientConfig;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// The longest that everything about one URL may take: connecting, two allocations, eight
/// payloads.
const URL_TIMEOUT: Duration = Duration::from_secs(20);

/// What is known so far, and what is said of it.
pub(super) struct Examination {
    pub(super) trust: Arc<ClientConfig>,
    pub(super) seen: Observations,
    pub(super) lines: Vec<Line>,
}

/// A STUN or TURN URL at one address, and how it fared.
struct Tried {
    server: Server,
    outcome: Result<SocketAddr, Fault>,
    took: Duration,
}

impl Examination {
    pub(super) async fn examine(
        &mut self,
        base: &BaseUrl,
        token: Option<&str>,
        config: Option<&Config>,
        now: u64,
    ) {
        let Some(web) = self.find_web(base).await else {
            return;
        };
        if !self.health(&web).await {
            return;
        }
        if let Some(config) = config {
            self.cluster(&web, config).await;
        }
        let (session, is_shut) = self.session(&web, token).await;
        if is_shut {
            return;
        }
        let handed = match &session {
            Some(session) => session.ice_servers.clone(),
            None => web.ice_servers(token).await.unwrap_or_default(),
        };
        let servers = self.servers(&handed).await;
        let tried = join_all(servers.into_iter().map(attempt)).await;
        for one in tried.iter().filter(|one| one.outcome.is_ok()) {
            self.reached(one.server.url.transport, one.server.address);
        }
        for one in &tried {
            self.ice_line(one);
        }
        let works = |one: &&Tried| one.server.url.relays && one.outcome.is_ok();
        if let Some(working) = tried.iter().find(works).map(|one| &one.server) {
            self.relay_ports(working).await;
            self.ipv6_relay(working).await;
            if let Some(config) = config {
                self.secret(working, config, now).await;
            }
        }
        if let Some(session) = session {
            session.leave().await;
        }
    }

    /// Resolves the box's own name and notes what it lacks.
    async fn find_web(&mut self, base: &BaseUrl) -> Option<Web> {
        let started = Instant::now();
        let addresses = match dial::resolve(&base.host, base.port).await {
            Ok(addresses) if !addresses.is_empty() => addresses,
            other => {
                let reason = match other {
                    Err(Fault::Unresolved(reason)) => reason,
                    _ => "it has no address".to_owned(),
                };
                let diagnosis = diagnose::unresolved(&base.host, &reason);
                self.fail("name", "no address", started, diagnosis);
                return None;
            }
        };
        let is_name = base.host.parse::<IpAddr>().is_err() && base.host != "localhost";
        if is_name && addresses.iter().all(SocketAddr::is_ipv4) {
            let diagnosis = Diagnosis {
                finding: "no-ipv6",
                cause: format!("{} has no AAAA record", base.host),
                fix: "where the machine has IPv6, add one: clients of IPv6-only networks depend \
                       on their network's NAT64 otherwise"
                    .into(),
            };
            self.lines.push(Line::note("IPv6", "IPv4 only", diagnosis));
        }
        Some(Web {
            base: base.clone(),
            address: addresses[0],
            trust: Arc::clone(&self.trust),
        })
    }

    /// Whether there is a box to ask further.
    async fn health(&mut self, web: &Web) -> bool {
        for (check, path) in [("health", "/healthz"), ("ready", "/readyz")] {
            let started = Instant::now();
            match web.get(path, None).await {
                Ok(answer) => {
                    self.reached(Transport::Tcp, web.address);
                    self.seen.web = Some(web.address.ip());
                    self.pass(check, answer.line, started);
                    if let Some(date) = answer.date {
                        self.seen.ahead = ahead(date, clock::now());
                    }
                }
                Err(fault) => {
                    let diagnosis = self.seen.web(&fault, web.address, &web.base.host);
                    self.fail(check, "not well", started, diagnosis);
                    if !matches!(fault, Fault::Http(..)) {
                        return false;
                    }
                }
            }
        }
        if self.seen.skewed() {
            let diagnosis = self.seen.skew();
            self.fail("clock", "differs", Instant::now(), diagnosis);
        }
        true
    }

    /// A session; without one, returns whether it takes a token that the doctor does not have. A box
    /// that asks for a token is as it should be, and hands out nothing to look at.
    async fn session(&mut self, web: &Web, token: Option<&str>) -> (Option<Session>, bool) {
        let started = Instant::now();
        match web.join(token).await {
            Ok(session) => {
                let detail = format!("joined; {} ICE servers", session.ice_servers.len());
                self.pass("signaling", detail, started);
                (Some(session), false)
            }
            Err(fault) => {
                let diagnosis = self.seen.signaling(&fault, web.address, &web.base.host);
                let finding = diagnosis.finding;
                if finding == diagnose::TOKEN_NEEDED {
                    let line = Line::note("signaling", "asks for a token", diagnosis);
                    self.lines.push(line);
                } else {
                    self.fail("signaling", "no session", started, diagnosis);
                }
                (None, finding.starts_with("token-"))
            }
        }
    }

    /// Every URL handed out, at one address a family.
    async fn servers(&mut self, handed: &[Value]) -> Vec<Server> {
        let mut servers = vec![];
        for entry in handed {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let credential = Credential {
                username: text("username"),
                password: text("credential"),
            };
            for url in entry["urls"].as_array().into_iter().flatten() {
                let url = url.as_str().unwrap_or_default();
                let Some(url) = IceUrl::parse(url) else {
                    let diagnosis = Diagnosis {
                        finding: "bad-url",
                        cause: format!("no browser takes {url:?} as an ICE URL"),
                        fix: "correct public.ice_urls".into(),
                    };
                    self.fail("ice", url, Instant::now(), diagnosis);
                    continue;
                };
                match dial::resolve(&url.host, url.port).await {
                    Ok(addresses) if !addresses.is_empty() => {
                        servers.extend(addresses.into_iter().map(|address| Server {
                            url: url.clone(),
                            address,
                            credential: credential.clone(),
                            trust: Arc::clone(&self.trust),
                        }));
                    }
                    _ => {
                        let diagnosis = diagnose::unresolved(&url.host, "the name leads nowhere");
                        self.fail(&url.text, "no address", Instant::now(), diagnosis);
                    }
                }
            }
        }
        if !servers.iter().any(|server| server.url.relays) {
            let diagnosis = Diagnosis {
                finding: "no-relay",
                cause: "the box hands out no TURN URL: callers behind strict NATs will not \
                        connect"
                    .into(),
                fix: "switch turn.enabled on, and see that public.host or public.address names \
                       what clients reach"
                    .into(),
            };
            self.lines.push(Line::note("relay", "none", diagnosis));
        }
        servers
    }

    fn ice_line(&mut self, tried: &Tried) {
        let Tried {
            server,
            outcome,
            took,
        } = tried;
        let family = if server.address.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        let check = format!("{} {family}", server.url.text);
        self.lines.push(match outcome {
            Ok(address) if server.url.relays => {
                let detail = format!("relayed on {address}, payload both ways");
                Line::ok(check, detail, *took)
            }
            Ok(address) => Line::ok(check, format!("seen as {address}"), *took),
            Err(Fault::NoRoute) => {
                let diagnosis = self.seen.ice(&Fault::NoRoute, &server.url, server.address);
                Line::note(check, "not tried", diagnosis)
            }
            Err(fault) => {
                let diagnosis = self.seen.ice(fault, &server.url, server.address);
                Line::failed(check, "does not work", *took, diagnosis)
            }
        });
    }

    /// Whether a peer elsewhere reaches relayed addresses: what a call of one relayed side needs.
    async fn relay_ports(&mut self, server: &Server) {
        let started = Instant::now();
        let outcome = timeout(URL_TIMEOUT, server.probe_from_outside()).await;
        let not_tried = |cause: &str, fix: &str| {
            let (cause, fix) = (cause.into(), fix.into());
            let finding = "relay-ports-untried";
            let diagnosis = Diagnosis {
                finding,
                cause,
                fix,
            };
            Line::note("relay ports", "not tried", diagnosis)
        };
        let line = match outcome.unwrap_or(Err(Fault::Silent)) {
            Ok(Outside::Arrived(relayed)) => {
                let detail = format!("a datagram from here reaches {relayed}");
                Line::ok("relay ports", detail, started.elapsed())
            }
            Ok(Outside::SameHost) => not_tried(
                "the doctor is on the box itself, whose own addresses are reached inside the process only",
                "run it on another machine: callbox doctor --url URL --token TOKEN",
            ),
            Ok(Outside::Refused) => not_tried(
                "the box rightly refuses to relay to this machine's private address",
                "run it from a network that reaches the box over the Internet",
            ),
            Ok(Outside::OtherFamily) => not_tried(
                "this machine was seen over another address family than relayed addresses have",
                "run it from a network with IPv4",
            ),
            Err(Fault::Lost(_)) if !self.seen.udp => not_tried(
                "UDP gets through nowhere from here",
                "fix that first, or ask from another network",
            ),
            Err(fault) => {
                let diagnosis = self.seen.relay_ports(&fault, &server.url, server.address);
                Line::failed("relay ports", "unreachable", started.elapsed(), diagnosis)
            }
        };
        self.lines.push(line);
    }

    async fn ipv6_relay(&mut self, server: &Server) {
        let started = Instant::now();
        match server.allocate(true).await {
            Ok(allocated) => {
                self.pass(
                    "relay IPv6",
                    format!("relayed on {}", allocated.relayed),
                    started,
                );
            }
            Err(fault) => {
                let diagnosis = match fault {
                    Fault::Stun(440, ..) => diagnose::no_ipv6_relay(),
                    fault => self.seen.ice(&fault, &server.url, server.address),
                };
                self.lines.push(Line::note("relay IPv6", "none", diagnosis));
            }
        }
    }

    /// Whether the running box goes by the secret of the file: other programs that share the
    /// file's secret depend on it.
    async fn secret(&mut self, server: &Server, config: &Config, now: u64) {
        if config.turn.made_secret {
            return;
        }
        let started = Instant::now();
        let minted = config.turn.secrets.mint("doctor", now + OWN_TTL.as_secs());
        let mut server = server.clone();
        server.credential = Credential {
            username: minted.username,
            password: minted.password,
        };
        match server.allocate(false).await {
            Ok(_) => self.pass("secret", "turn.secrets of the file is the box's", started),
            Err(Fault::Stun(401 | 441, ..)) if !self.seen.skewed() => {
                let diagnosis = Diagnosis {
                    finding: "secret-mismatch",
                    cause: "the box refuses credentials made with turn.secrets of this file: it \
                            was started with another secret"
                        .into(),
                    fix: "`systemctl reload callbox` takes the file's secret up; give programs \
                           that share it the same"
                        .into(),
                };
                self.fail("secret", "refused", started, diagnosis);
            }
            Err(fault) => {
                let diagnosis = self.seen.ice(&fault, &server.url, server.address);
                self.fail("secret", "not checked", started, diagnosis);
            }
        }
    }

    fn reached(&mut self, transport: Transport, address: SocketAddr) {
        match transport {
            Transport::Udp => self.seen.udp = true,
            Transport::Tcp | Transport::Tls => self.seen.tcp = true,
        }
        if address.is_ipv4() {
            self.seen.ipv4.push((transport.protocol(), address.port()));
        }
    }

    fn pass(&mut self, check: &str, detail: impl Into<String>, started: Instant) {
        self.lines.push(Line::ok(check, detail, started.elapsed()));
    }

    fn fail(&mut self, check: &str, detail: &str, started: Instant, diagnosis: Diagnosis) {
        let took = started.elapsed();
        self.lines
            .push(Line::failed(check, detail, took, diagnosis));
    }
}

async fn attempt(server: Server) -> Tried {
    let started = Instant::now();
    let outcome = timeout(URL_TIMEOUT, async {
        if server.url.relays {
            server.between_relays().await.map(|a| a.relayed)
        } else {
            server.binding().await
        }
    });
    let outcome = outcome.await.unwrap_or(Err(Fault::Silent));
    Tried {
        server,
        outcome,
        took: started.elapsed(),
    }
}

/// Seconds by which `theirs` is ahead of `ours`.
fn ahead(theirs: SystemTime, ours: SystemTime) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match theirs.duration_since(ours) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}
