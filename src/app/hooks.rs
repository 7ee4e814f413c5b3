//! Joins the application's backend with signaling: settings, questions, and the task that sends
//! events.

use super::events::node_name;
use crate::address::kept;
use crate::config::Config;
use crate::hooks::question::{Action, Question};
use crate::hooks::{Authorizer, Decision, Events, PRIVATE_BACKEND, Settings, Topic};
use crate::net::https::{HttpsClient, Judge, system_trust, trust};
use crate::protocol::RequestError;
use crate::relay::engine::{PeerPolicy, Verdict};
use crate::signal::{Consent, Consult, Consulted, Consulting, Inquiry};
use hyper::Uri;
use rustls::RootCertStore;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// When a client may ask again that met too many questions under way.
const BUSY: Duration = Duration::from_secs(1);

/// The application's backend, as the rest of the box sees it.
#[derive(Clone)]
pub(super) struct Hooks {
    pub(super) authorizer: Arc<Authorizer>,
    /// The stream of events.
    pub(super) events: Events,
    client: HttpsClient,
    settings: watch::Sender<Settings>,
    /// Where the URLs may lead to.
    policy: Arc<RwLock<PeerPolicy>>,
}

impl Hooks {
    /// Nobody is asked while `hooks.authorize` is not set.
    pub(super) fn new(config: &Config) -> Self {
        let settings = watch::Sender::new(settings(config));
        let tls = system_trust().unwrap_or_else(|problem| {
            let mut urls = config.hooks.authorize.iter().chain(&config.hooks.url);
            if urls.any(|url| url.scheme_str() == Some("https")) {
                tracing::warn!("hooks cannot use https: {problem}");
            }
            trust(RootCertStore::empty())
        });
        let policy = Arc::new(RwLock::new(policy(config)));
        let (current, judging) = (settings.subscribe(), Arc::clone(&policy));
        let judge: Judge = Arc::new(move |ip: IpAddr| {
            let policy = judging.read().unwrap_or_else(PoisonError::into_inner);
            current.borrow().allow_private || policy.judge(ip) == Verdict::Allow
        });
        let client = HttpsClient::new(tls, Some(judge));
        let authorizer = Arc::new(Authorizer::new(client.clone(), settings.subscribe()));
        let events = Events::new(node_name(config), rand::random());
        events.deliver_to_backend(config.hooks.url.is_some());
        Self {
            authorizer,
            events,
            client,
            settings,
            policy,
        }
    }

    /// Takes new settings.
    pub(super) fn apply(&self, config: &Config) {
        self.events.deliver_to_backend(config.hooks.url.is_some());
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy(config);
        self.settings.send_replace(settings(config));
        self.client.judge_anew();
        self.authorizer.clear();
    }

    /// Sends events to the backend for as long as it is polled.
    pub(super) fn deliver(&self) -> impl Future<Output = ()> + Send + use<> {
        let (events, client) = (self.events.clone(), self.client.clone());
        events.deliver(client, self.settings.subscribe())
    }

    /// Shows the state of this box to listeners.
    pub(super) fn node(&self, kind: &str) {
        self.events.show(Topic::Node, kind, &serde_json::json!({}));
    }

    /// Sends the last events: the box ends.
    pub(super) async fn flush(&self) {
        let settings = self.settings.borrow().clone();
        self.events.flush(&self.client, &settings).await;
    }
}

/// Names each backend that is never asked, since its address is written in the URL and is not public.
pub(crate) fn unreachable_backends(config: &Config) -> Vec<String> {
    let hooks = &config.hooks;
    let policy = policy(config);
    let urls = [
        ("hooks.url", &hooks.url),
        ("hooks.authorize", &hooks.authorize),
    ];
    let warn = |(key, url): (&str, &Option<Uri>)| {
        let url = url.as_ref().filter(|_| !hooks.allow_private)?;
        let host = url.host()?.trim_matches(['[', ']']);
        let ip = match host {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            literal => literal.parse().ok()?,
        };
        (policy.judge(ip) != Verdict::Allow).then(|| {
            format!("{key} = {url}: {host} is not a public address, so nothing is sent there; {PRIVATE_BACKEND}")
        })
    };
    urls.into_iter().filter_map(warn).collect()
}

/// The address policy of the relay; a backend may be on this machine's public address.
fn policy(config: &Config) -> PeerPolicy {
    let turn = &config.turn;
    PeerPolicy::new(
        turn.allowed_peers.clone(),
        turn.denied_peers.clone(),
        vec![],
    )
}

fn settings(config: &Config) -> Settings {
    let hooks = &config.hooks;
    Settings {
        authorize: hooks.authorize.clone(),
        url: hooks.url.clone(),
        secret: hooks.secret.clone(),
        fail_open: hooks.fail_open,
        allow_private: hooks.allow_private,
    }
}

impl Consult for Hooks {
    fn is_on(&self) -> bool {
        self.authorizer.is_on()
    }

    fn ask(&self, inquiry: Inquiry<'_>) -> Consulting {
        let question = question(&inquiry);
        let (authorizer, client) = (Arc::clone(&self.authorizer), inquiry.client);
        Box::pin(async move {
            match authorizer.ask(client, &question).await {
                Decision::Allow { role, metadata } => Consent::Granted { role, metadata },
                Decision::Deny(reason) => Consent::forbidden(reason),
                Decision::Busy => Consent::Refused(RequestError::slow_down(BUSY)),
            }
        })
    }
}

fn question(inquiry: &Inquiry<'_>) -> Question {
    let in_room = inquiry.standing.room.as_deref();
    let (action, room, to) = match inquiry.request {
        Consulted::Join { room, creates } => match creates {
            true => (Action::Create, Some(room), None),
            false => (Action::Join, Some(room), None),
        },
        Consulted::Register => (Action::Register, None, None),
        Consulted::Call { to } => (Action::Call, in_room, Some(to)),
    };
    Question {
        action,
        identity: inquiry.identity.map(str::to_owned),
        peer_id: inquiry.standing.peer.to_string(),
        room: room.map(str::to_owned),
        to: to.map(str::to_owned),
        claims: inquiry.claims.cloned().unwrap_or_default(),
        ip: kept(inquiry.client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn warnings(toml: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let secret = "secret = \"0123456789abcdef0123456789abcdef\"";
        write!(file, "[hooks]\n{secret}\n{toml}").unwrap();
        let config = Config::load(Some(file.path()), std::iter::empty()).unwrap();
        unreachable_backends(&config)
    }

    #[test]
    fn a_backend_that_nothing_can_be_sent_to_is_named_with_what_opens_it() {
        let private = "url = \"http://10.0.0.1:81/events\"\n";
        let found = warnings(private);
        assert_eq!(
            found,
            [
                "hooks.url = http://10.0.0.1:81/events: 10.0.0.1 is not a public address, so nothing is sent \
                 there; set hooks.allow_private = true, or list the address in turn.allowed_peers"
            ]
        );
        for host in ["localhost:8000", "[::1]", "[fd00::1]:9", "169.254.169.254"] {
            let toml = format!("authorize = \"http://{host}/\"\n");
            assert!(
                warnings(&toml)[0].starts_with("hooks.authorize = "),
                "{host}"
            );
        }
        for fine in [
            "url = \"https://app.example.org/\"\n",
            "url = \"http://9.9.9.9/\"\n",
            &format!("{private}allow_private = true\n"),
            &format!("{private}[turn]\nallowed_peers = [\"10.0.0.1\"]\n"),
        ] {
            assert!(warnings(fine).is_empty(), "{fine}");
        }
    }
}
