//! `auth.*`: who may join, and with what.

use super::Auth;
use super::collect::Check;
use super::raw::{self, Mode, Raw};
use crate::auth::Signer;
use crate::auth::token::Verifier;
use secrecy::{ExposeSecret, SecretString};
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
            .set_fix("`openssl rand -hex 32` makes one; without the key there is no admin API");
        }
        if let Some(token) = &admin_token {
            let (key, file) = ("auth.admin_token", raw.auth.admin_token_file.as_deref());
            self.judge_secret(key, token.expose_secret(), file);
            self.judge_admin_token(key, token.expose_secret());
        }
        Auth {
            mode,
            verifier: (mode == Mode::Jwt).then_some(verifier),
            admin_token,
            signer,
        }
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
        if let Some(path) = &auth.jwks
            && let Some(json) = self.read("auth.jwks", path)
            && let Err(reason) = verifier.add_jwks(&json)
        {
            self.problem("auth.jwks", path.display(), reason)
                .set_fix("name a file as your identity provider serves at jwks_uri");
        }
        if let Err(reason) = verifier.restrict(&auth.algorithms) {
            self.problem("auth.algorithms", "", reason)
                .set_fix("name what your tokens are signed with, e.g. [\"HS256\"]");
        }
        verifier
    }
}
