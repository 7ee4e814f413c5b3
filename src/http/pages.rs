//! The embedded pages: what is compiled in from `web/`.

use super::AppState;
use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

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
    "admin-words.js" => "text/javascript; charset=utf-8",
    "admin.css" => "text/css; charset=utf-8",
    "admin.html" => "text/html; charset=utf-8",
    "admin.js" => "text/javascript; charset=utf-8",
    "call.js" => "text/javascript; charset=utf-8",
    "chat.js" => "text/javascript; charset=utf-8",
    "check.html" => "text/html; charset=utf-8",
    "check.js" => "text/javascript; charset=utf-8",
    "dialogs.js" => "text/javascript; charset=utf-8",
    "disk-worker.js" => "text/javascript; charset=utf-8",
    "disk.js" => "text/javascript; charset=utf-8",
    "files.js" => "text/javascript; charset=utf-8",
    "i18n.js" => "text/javascript; charset=utf-8",
    "icon.svg" => "image/svg+xml",
    "index.html" => "text/html; charset=utf-8",
    "media.js" => "text/javascript; charset=utf-8",
    "nat.js" => "text/javascript; charset=utf-8",
    "page.js" => "text/javascript; charset=utf-8",
    "qr.js" => "text/javascript; charset=utf-8",
    "recording.js" => "text/javascript; charset=utf-8",
    "settings.js" => "text/javascript; charset=utf-8",
    "stage.js" => "text/javascript; charset=utf-8",
    "style.css" => "text/css; charset=utf-8",
};

/// How each page begins.
const ROOT: &str = "<html lang=\"en\">";

/// Where the pages' scripts and styles are: beside an application of its own they have a folder that it
/// does not use.
pub(super) fn folder(context: &AppState) -> &'static str {
    match context.root {
        Some(_) => "/callbox-assets/{name}",
        None => "/assets/{name}",
    }
}

pub(super) fn call(context: &AppState) -> Response {
    page("index.html", context)
}

/// `GET /call`, beside an application of its own.
pub(super) async fn moved(State(context): State<Arc<AppState>>) -> Response {
    call(&context)
}

pub(super) async fn check(State(context): State<Arc<AppState>>) -> Response {
    page("check.html", &context)
}

pub(super) async fn asset(
    Path(name): Path<String>,
    State(context): State<Arc<AppState>>,
) -> Response {
    page(&name, &context)
}

/// The dashboard exists where the admin API does.
pub(super) async fn admin(State(context): State<Arc<AppState>>) -> Response {
    match context.admin_token.borrow().is_some() {
        true => page("admin.html", &context),
        false => Problem::not_found().into_response(),
    }
}

/// A page knows where the machine of the box finds it: there plain http counts as secure.
fn page(name: &str, context: &AppState) -> Response {
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
    if !page.text.contains(ROOT) {
        return (headers, page.text).into_response();
    }
    (headers, adapted(page, context)).into_response()
}

/// Pages as this box serves them, by their text: each once, and shared by all who read it.
static ADAPTED: LazyLock<Mutex<HashMap<String, Bytes>>> = LazyLock::new(Mutex::default);
/// A process has one configuration, and its tests a few.
const MAX_ADAPTED: usize = 64;

fn adapted(page: &Page, context: &AppState) -> Bytes {
    let key = format!(
        "{} {} {:?}",
        page.name,
        context.root.is_some(),
        context.local_page
    );
    let mut known = ADAPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = known.get(&key) {
        return text.clone();
    }
    let mut text = page.text.to_owned();
    if let Some(local) = &context.local_page {
        text = text.replacen(
            ROOT,
            &format!("<html lang=\"en\" data-local=\"{local}\">"),
            1,
        );
    }
    if context.root.is_some() {
        text = text.replace("\"assets/", "\"callbox-assets/");
    }
    let text = Bytes::from(text);
    if known.len() < MAX_ADAPTED {
        known.insert(key, text.clone());
    }
    text
}
