//! `GET /v1/openapi.json`: the document is gathered from the handlers that are served.

use super::AppState;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

/// A router without routes whose document says what callbox is and which tokens there are.
pub(super) fn described() -> OpenApiRouter<Arc<AppState>> {
    let bearer = |description: &str| {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some(description.into());
        SecurityScheme::Http(http)
    };
    let info = InfoBuilder::new()
        .title("callbox")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Errors are application/problem+json (RFC 9457); `code` is for programs. Without a \
             configured auth.admin_token the admin paths answer 404.",
        ));
    let components = ComponentsBuilder::new()
        .security_scheme("admin", bearer("auth.admin_token"))
        .security_scheme(
            "client",
            bearer("a signaling token; not asked for in open mode"),
        );
    let document = OpenApiBuilder::new()
        .info(info.build())
        .components(Some(components.build()))
        .build();
    OpenApiRouter::with_openapi(document)
}

/// The document as text, made once. A last part of a path that may hold slashes has a star in the
/// router alone.
pub(super) fn render(mut document: OpenApi) -> Bytes {
    let paths = std::mem::take(&mut document.paths.paths);
    let named = paths.into_iter();
    document.paths.paths = named
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    document.to_json().expect("a document is plain data").into()
}

pub(super) fn response(document: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document).into_response()
}
