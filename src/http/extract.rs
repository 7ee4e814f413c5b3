//! Parts of a request whose refusal is problem+json, as everything else is.

use super::problem::Problem;
use axum::extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// One or several segments of the path.
pub(super) struct Segment<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segment<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(segment)| Self(segment))
            .map_err(|_| not_utf8())
    }
}

/// The named segments of the path, as texts.
pub(super) struct Segments(pub(super) RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|_| not_utf8())
    }
}

fn not_utf8() -> Problem {
    let detail = "the path is not UTF-8";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-path", detail)
}

/// The body as text.
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        String::from_request(request, state)
            .await
            .map(Self)
            .map_err(|refused| match refused.status() {
                status @ StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::new(status, "too-large", "the body is over 64 KiB")
                }
                _ => Problem::new(
                    StatusCode::BAD_REQUEST,
                    "invalid-body",
                    "the body is not UTF-8",
                ),
            })
    }
}
