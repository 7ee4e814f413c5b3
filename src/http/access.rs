//! Tokens on the HTTP surface: where they stand in a request, and what they grant.

use super::problem::Problem;
use crate::auth::Grant;
use crate::auth::token::{TokenError, Verifier};
use crate::net::RemoteKeys;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// Who may join: anyone, or bearers of a token that verifies.
#[derive(Clone)]
pub struct Access {
    verifier: watch::Receiver<Option<Verifier>>,
    keys: RemoteKeys,
}

impl Access {
    /// Follows the verifier, which a reload may change, and the keys that are fetched for it; no
    /// verifier is open mode.
    pub fn new(verifier: watch::Receiver<Option<Verifier>>, keys: RemoteKeys) -> Self {
        Self { verifier, keys }
    }

    /// Whether a token is needed.
    pub fn asks_for_tokens(&self) -> bool {
        self.verifier.borrow().is_some()
    }

    /// Has the key fetched that `token` names, where it is absent and may be fetched now.
    pub fn fetch_key(&self, token: &str) -> Option<BoxFuture<'static, ()>> {
        let fetched = self.keys.current();
        let is_missing = match &*self.verifier.borrow() {
            Some(verifier) => verifier.misses_key(token, fetched.as_deref()),
            None => false,
        };
        match is_missing {
            true => Some(self.keys.refresh()?.boxed()),
            false => None,
        }
    }

    /// Judges a token at `now` (Unix seconds).
    ///
    /// # Errors
    /// A token is asked for and absent, expired, or does not verify.
    pub fn grant(&self, token: Option<&str>, now: u64) -> Result<Grant, TokenError> {
        match (&*self.verifier.borrow(), token) {
            (None, _) => Ok(Grant::open()),
            (Some(verifier), Some(token)) => {
                let fetched = self.keys.current();
                verifier.verify_with(token, now, fetched.as_deref())
            }
            (Some(_), None) => Err(TokenError::Refused("a token is needed".into())),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let status = match error {
            TokenError::KeysAwaited => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// The token of a request: `Authorization: Bearer`, or `?token=` for clients that can set no
/// header.
pub(super) fn token_of(parts: &Parts) -> Option<String> {
    bearer_of(parts)
        .or_else(|| query(parts, "token"))
        .filter(|token| !token.is_empty())
}

/// What stands behind `Authorization: Bearer`, where there is one Authorization header.
pub(super) fn bearer_of(parts: &Parts) -> Option<String> {
    let mut given = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (given.next()?, given.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// The value of one query parameter.
pub(super) fn query(parts: &Parts, name: &str) -> Option<String> {
    form_urlencoded::parse(parts.uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn parts(query: &str, authorization: &[&str]) -> Parts {
        let mut request = Request::get(format!("/v1/rooms{query}"));
        for value in authorization {
            request = request.header(header::AUTHORIZATION, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_query_is_never_taken_for_a_header() {
        for authorization in [
            &[][..],
            &["Basic dTpw"],
            &["Bearer"],
            &["Digest x"],
            &["Basic dTpw", "Bearer t"],
            &["Bearer t", "Bearer u"],
        ] {
            let parts = parts("?token=t", authorization);
            assert_eq!(bearer_of(&parts), None, "{authorization:?}");
            assert_eq!(token_of(&parts).as_deref(), Some("t"));
        }
        let both = parts("?token=t", &["bearer u"]);
        assert_eq!(bearer_of(&both).as_deref(), Some("u"));
        assert_eq!(token_of(&both).as_deref(), Some("u"));
        assert_eq!(bearer_of(&parts("", &["Bearer "])).as_deref(), Some(""));
        assert_eq!(token_of(&parts("", &["Bearer "])), None);
    }
}
