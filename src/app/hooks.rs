//! Joins the application's backend with signaling: settings and questions.

use crate::config::Config;
use crate::hooks::question::{Action, Question};
use crate::hooks::{Authorizer, Decision, Settings};
use crate::net::https::{HttpsClient, Judge, system_trust, trust};
use crate::protocol::RequestError;
use crate::relay::engine::{PeerPolicy, Verdict};
use crate::signal::{Consent, Consult, Consulted, Consulting, Inquiry};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::RootCertStore;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// When a client may ask again that met too many questions under way.
const BUSY: Duration = Duration::from_secs(1);

/// The application's backend, as the rest of the box sees it.
#[derive(Clone)]
pub(super) struct Hooks {
    authorizer: Arc<Authorizer>,
    settings: watch::Sender<Settings>,
}

impl Hooks {
    /// Nobody is asked while `hooks.authorize` is not set.
    pub(super) fn new(config: &Config) -> Self {
        let settings = watch::Sender::new(settings(config));
        let tls = system_trust().unwrap_or_else(|problem| {
            let url = config.hooks.authorize.as_ref();
            if url.is_some_and(|url| url.scheme_str() == Some("https")) {
                tracing::warn!("hooks cannot use https: {problem}");
            }
            trust(RootCertStore::empty())
        });
        let turn = &config.turn;
        let policy = PeerPolicy::new(
            turn.allowed_peers.clone(),
            turn.denied_peers.clone(),
            vec![],
        );
        let current = settings.subscribe();
        let judge: Judge = Arc::new(move |ip: IpAddr| {
            current.borrow().allow_private || policy.judge(ip) == Verdict::Allow
        });
        let client = HttpsClient::new(tls, Some(judge));
        let authorizer = Arc::new(Authorizer::new(client, settings.subscribe()));
        Self {
            authorizer,
            settings,
        }
    }

    /// Takes new settings.
    pub(super) fn apply(&self, config: &Config) {
        self.settings.send_replace(settings(config));
        self.authorizer.clear();
    }
}

fn settings(config: &Config) -> Settings {
    let hooks = &config.hooks;
    Settings {
        authorize: hooks.authorize.clone(),
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
        let authorizer = Arc::clone(&self.authorizer);
        Box::pin(async move {
            match authorizer.ask(&question).await {
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
        claims: inquiry.token.map_or(Value::Null, claims),
        ip: inquiry.client,
    }
}

/// The claims of a token that was verified already; `null` for one that is not a JWT.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
    json.ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or(Value::Null)
}
