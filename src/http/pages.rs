//! The embedded pages: what is compiled in from `web/`.

use super::problem::Problem;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Pages load nothing from elsewhere and run nothing inline.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     media-src 'self' blob: mediastream:; worker-src 'self' blob:; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'",
);

struct Page {
    name: &'static str,
    mime: &'static str,
    text: &'static str,
}

macro_rules! pages {
    ($($name:literal => $mime:literal,)*) => {
        &[$(Page {
            name: $name,
            mime: $mime,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $name)),
        },)*]
    };
}

const PAGES: &[Page] = pages! {
    "call.js" => "text/javascript; charset=utf-8",
    "chat.js" => "text/javascript; charset=utf-8",
    "check.html" => "text/html; charset=utf-8",
    "check.js" => "text/javascript; charset=utf-8",
    "dialogs.js" => "text/javascript; charset=utf-8",
    "i18n.js" => "text/javascript; charset=utf-8",
    "icon.svg" => "image/svg+xml",
    "index.html" => "text/html; charset=utf-8",
    "media.js" => "text/javascript; charset=utf-8",
    "page.js" => "text/javascript; charset=utf-8",
    "qr.js" => "text/javascript; charset=utf-8",
    "settings.js" => "text/javascript; charset=utf-8",
    "stage.js" => "text/javascript; charset=utf-8",
    "style.css" => "text/css; charset=utf-8",
};

pub(super) async fn call() -> Response {
    page("index.html")
}

pub(super) async fn check() -> Response {
    page("check.html")
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    page(&name)
}

fn page(name: &str) -> Response {
    let Some(page) = PAGES.iter().find(|page| page.name == name) else {
        return Problem::not_found().into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(page.mime)),
        // They change with the binary: a browser asks each time.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    (headers, page.text).into_response()
}
