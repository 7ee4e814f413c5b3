//! Tokens on the HTTP surface: where they stand in a request, and what they grant.

use super::problem::Problem;
use crate::auth::Grant;
use crate::auth::token::{TokenError, Verifier};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use tokio::sync::watch;

/// Who may join: anyone, or bearers of a token that verifies.
#[derive(Debug, Clone)]
pub struct Access(watch::Receiver<Option<Verifier>>);

impl Access {
    /// Follows the verifier, which a reload may change; `None` is open mode.
    pub fn new(verifier: watch::Receiver<Option<Verifier>>) -> Self {
        Self(verifier)
    }

    /// Judges a token at `now` (Unix seconds).
    ///
    /// # Errors
    /// A token is asked for and absent, expired, or does not verify.
    pub fn grant(&self, token: Option<&str>, now: u64) -> Result<Grant, TokenError> {
        match (&*self.0.borrow(), token) {
            (None, _) => Ok(Grant::open()),
            (Some(verifier), Some(token)) => verifier.verify(token, now),
            (Some(_), None) => Err(TokenError::Refused("a token is needed".into())),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
    }
}

/// The token of a request: `Authorization: Bearer`, or `?token=` for clients that can set no
/// header.
pub(super) fn token_of(parts: &Parts) -> Option<String> {
    let bearer = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer
        .or_else(|| query(parts, "token"))
        .filter(|token| !token.is_empty())
}

/// The value of one query parameter.
pub(super) fn query(parts: &Parts, name: &str) -> Option<String> {
    form_urlencoded::parse(parts.uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
