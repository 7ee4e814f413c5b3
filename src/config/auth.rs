//! `auth.*`: who may join, and with what.

use super::Auth;
use super::collect::Check;
use super::raw::{self, Mode, Raw};
use crate::auth::Signer;
use crate::auth::token::Verifier;
use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::path::Path;

impl Check<'_> {
    pub(super) fn auth(&mut self, raw: &Raw, loopback: bool) -> Auth {
        let secret = self.secret(
            "auth.secret",
            raw.auth.secret.clone(),
            &raw.auth.secret_file,
        );
        let mode = raw.auth.mode.unwrap_or(Mode::Open);
        if raw.auth.mode.is_none() && !loopback {
            self.problem(
                "auth.mode",
                "",
                "is not set, and the box is reachable from outside",
            )
            .set_fix(
                "write two lines: [auth] and mode = \"open\" (anyone may join), \
                     or mode = \"jwt\" beside secret = \"…\"",
            );
        }
        let has_key = secret.is_some() || raw.auth.public_key.is_some() || raw.auth.jwks.is_some();
        match mode {
            Mode::Jwt if !has_key => self
                .problem("auth.secret", "", "is not set, and auth.mode = \"jwt\" needs a key")
                .set_fix("set auth.secret, auth.public_key or auth.jwks; `openssl rand -hex 32` makes a secret"),
            Mode::Open if has_key => self.warnings.push(
                "auth has a key, but auth.mode is \"open\": tokens are not asked for".into(),
            ),
            _ => {}
        }
        if let Some(secret) = &secret {
            let file = raw.auth.secret_file.as_deref();
            self.judge_secret("auth.secret", secret.expose_secret(), file);
        }
        let signer = secret.as_ref().and_then(|secret| {
            let (issuer, audience) = (raw.auth.issuer.clone(), raw.auth.audience.clone());
            Signer::new(secret, &raw.auth.algorithms, issuer, audience)
        });
        let written = raw.auth.jwks.as_deref();
        let jwks_url = written.filter(|text| text.contains("://"));
        let jwks_url = jwks_url.and_then(|text| self.jwks_url(text));
        let people = self.people(raw, mode, signer.is_some());
        let verifier = self.verifier(&raw.auth, secret);
        let admin_token = self.secret(
            "auth.admin_token",
            raw.auth.admin_token.clone(),
            &raw.auth.admin_token_file,
        );
        if admin_token
            .as_ref()
            .is_some_and(|token| token.expose_secret().is_empty())
        {
            self.problem(
                "auth.admin_token",
                "",
                "is empty, and anyone could send that",
            )
            .set_fix(
                "`openssl rand -hex 32` makes one; without the key the admin API does not exist",
            );
        }
        if let Some(token) = &admin_token {
            let (key, file) = ("auth.admin_token", raw.auth.admin_token_file.as_deref());
            self.judge_secret(key, token.expose_secret(), file);
            self.judge_admin_token(key, token.expose_secret());
        }
        Auth {
            mode,
            verifier: (mode == Mode::Jwt).then_some(verifier),
            jwks_url: jwks_url.filter(|_| mode == Mode::Jwt),
            admin_token,
            admin_tokens: self.admin_tokens(raw),
            people,
            users_file: raw.auth.users_file.clone(),
            signer,
        }
    }

    /// Over plain http anybody on the way could put keys in.
    fn jwks_url(&mut self, text: &str) -> Option<Uri> {
        const EXAMPLE: &str = "https://id.example.org/.well-known/jwks.json";
        let url = text.parse::<Uri>().ok();
        let problem = match &url {
            Some(url) if url.authority().is_some_and(|a| a.as_str().contains('@')) => {
                "has a user name in it, which is not sent"
            }
            Some(url) => match (url.scheme_str(), url.host()) {
                (_, None | Some("")) => "is not a valid URL",
                (Some("https"), _) => return Some(url.clone()),
                (Some("http"), Some(host)) if is_loopback(host) => return Some(url.clone()),
                (Some("http"), _) => "is not https, and anybody on the way could put keys in",
                _ => "is neither a path nor an https URL",
            },
            None => "is not a valid URL",
        };
        self.problem("auth.jwks", format!("{text:?}"), problem)
            .set_fix(format!(
                "write the jwks_uri of your identity provider, e.g. {EXAMPLE:?}"
            ));
        None
    }

    fn verifier(&mut self, auth: &raw::Auth, secret: Option<SecretString>) -> Verifier {
        let mut verifier = Verifier::new(
            auth.issuer.clone(),
            auth.audience.clone(),
            auth.leeway.0.as_secs(),
        );
        verifier.enforce_exp(auth.enforce_exp);
        if let Some(secret) = secret {
            let length = secret.expose_secret().len();
            if length == 0 {
                self.problem(
                    "auth.secret",
                    "",
                    "is empty, and anyone could sign with that",
                )
                .set_fix("`openssl rand -hex 32` makes one");
            } else if (16..32).contains(&length) {
                self.warnings.push(format!(
                    "auth.secret has {length} bytes; RFC 7518 section 3.2 asks for 32 with HS256"
                ));
            }
            verifier.add_secret(&secret);
        }
        if let Some(key) = &auth.public_key {
            let pem = if key.trim_start().starts_with("-----BEGIN") {
                Some(key.clone())
            } else {
                self.read("auth.public_key", Path::new(key))
            };
            if let Some(Err(reason)) = pem.map(|pem| verifier.add_pem(&pem)) {
                self.problem("auth.public_key", "", reason)
                    .set_fix("name a PEM file, or paste one that begins with BEGIN PUBLIC KEY");
            }
        }
        match &auth.jwks {
            Some(url) if url.contains("://") => verifier.fetch_keys(),
            Some(path) => {
                if let Some(json) = self.read("auth.jwks", Path::new(path))
                    && let Err(reason) = verifier.add_jwks(&json)
                {
                    self.problem("auth.jwks", path, reason)
                        .set_fix("name a file as your identity provider serves at jwks_uri");
                }
            }
            None => {}
        }
        if let Err(reason) = verifier.restrict(&auth.algorithms) {
            self.problem("auth.algorithms", "", reason)
                .set_fix("name what your tokens are signed with, e.g. [\"HS256\"]");
        }
        verifier
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn load(jwks: &str) -> Result<Config, String> {
        let env = [("MODE", "jwt"), ("JWKS", jwks)];
        let env = env.map(|(key, value)| (format!("CALLBOX_AUTH__{key}"), value.to_owned()));
        Config::load(None, env.into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_fetched_by_https_and_from_this_machine() {
        for url in [
            "https://id.example.org/jwks",
            "https://10.0.0.7:8443/jwks?tenant=a",
            "http://localhost:9000/jwks",
            "http://127.0.0.1/jwks",
            "http://[::1]:9000/jwks",
        ] {
            let config = load(url).unwrap();
            assert_eq!(config.auth.jwks_url, Some(url.parse().unwrap()), "{url}");
            assert!(config.files.is_empty(), "{url}");
        }
        for (url, reason) in [
            ("http://id.example.org/jwks", "is not https"),
            ("http://10.0.0.7/jwks", "is not https"),
            ("http://localhost.example.org/jwks", "is not https"),
            ("https://user:word@id.example.org/jwks", "has a user name"),
            ("ftp://id.example.org/jwks", "is neither a path nor"),
            ("https://", "is not a valid URL"),
            ("https://a b/", "is not a valid URL"),
        ] {
            let error = load(url).unwrap_err();
            assert!(
                error.contains("auth.jwks") && error.contains(reason),
                "{error}"
            );
            assert!(error.contains("jwks_uri"), "{error}");
        }
    }

    #[test]
    fn algorithms_may_be_those_of_keys_to_come_but_for_shared_secrets() {
        let with = |algorithm: &str| {
            let env = [
                ("MODE", "jwt"),
                ("JWKS", "https://id.example.org/jwks"),
                ("ALGORITHMS", algorithm),
            ];
            let env = env.map(|(key, value)| (format!("CALLBOX_AUTH__{key}"), value.to_owned()));
            Config::load(None, env.into_iter()).is_ok()
        };
        assert!(with("RS256") && with("ES512"));
        assert!(!with("HS256") && !with("none"));
    }
}
