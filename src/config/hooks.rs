//! `hooks`: where the application's backend is.

use super::collect::Check;
use super::raw::Raw;
use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};

/// The application's backend.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Who is asked before join, register, call and create.
    pub authorize: Option<Uri>,
    /// Where events go.
    pub url: Option<Uri>,
    /// Signs questions and events; present where there is a backend.
    pub secret: Option<SecretString>,
    /// Whether a question without an answer counts as allowed.
    pub fail_open: bool,
    /// Whether the URLs may lead to addresses that the relay refuses.
    pub allow_private: bool,
}

impl Check<'_> {
    pub(super) fn hooks(&mut self, raw: &Raw) -> Hooks {
        let hooks = &raw.hooks;
        let authorize = self.backend("hooks.authorize", hooks.authorize.as_deref());
        let secret = self.secret("hooks.secret", hooks.secret.clone(), &hooks.secret_file);
        let url = self.backend("hooks.url", hooks.url.as_deref());
        let is_used = hooks.authorize.is_some() || hooks.url.is_some();
        if is_used && hooks.secret.is_none() && hooks.secret_file.is_none() {
            self.problem("hooks.secret", "", "is not set, and a backend is named")
                .set_fix(
                    "set hooks.secret or hooks.secret_file to the text with which the backend \
                     checks the header Callbox-Signature",
                );
        }
        if let Some(secret) = &secret {
            let file = hooks.secret_file.as_deref();
            self.judge_secret("hooks.secret", secret.expose_secret(), file);
        }
        Hooks {
            authorize,
            url,
            secret,
            fail_open: hooks.fail_open,
            allow_private: hooks.allow_private,
        }
    }

    fn backend(&mut self, key: &str, text: Option<&str>) -> Option<Uri> {
        let text = text?;
        let uri = text.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                // It would stand in the log and be sent to nobody.
                && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        });
        match uri {
            Some(uri) => Some(uri),
            None => {
                self.problem(key, format!("{text:?}"), "is not a valid http or https URL")
                    .set_fix("write e.g. \"https://app.example.org/callbox/authorize\"");
                None
            }
        }
    }
}
