//! The client library under `/sdk/v1/`: what is compiled in from `sdk/js/dist`, for pages of any origin.
//!
//! Each file has two names: a plain one that browsers ask about each time, and one with a part of its
//! digest in it that never changes. `GET /sdk/v1/` lists both with the digest for `integrity`.

use super::json::as_json;
use super::problem::Problem;
use crate::protocol::schema;
use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha384};
use std::fmt::Write;
use std::sync::LazyLock;

/// Where the library is served: the one path that pages of every origin may read.
pub(super) const PREFIX: &str = "/sdk/v1/";

/// Bytes of the digest in a name that never changes.
const NAME_BYTES: usize = 8;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TYPESCRIPT: &str = "application/typescript; charset=utf-8";
const SOURCE_MAP: &str = "application/json";

struct File {
    name: &'static str,
    mime: &'static str,
    text: &'static str,
    /// The name that never changes: `callbox.0123456789abcdef.js`.
    hashed: String,
    etag: HeaderValue,
    integrity: String,
}

macro_rules! files {
    ($($name:literal from $source:literal as $mime:expr,)*) => {
        vec![$(File::new(
            $name,
            $mime,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/js/dist/", $source)),
        ),)*]
    };
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    files! {
        "callbox.js" from "callbox.mjs" as JAVASCRIPT,
        "callbox.mjs" from "callbox.mjs" as JAVASCRIPT,
        "callbox.mjs.map" from "callbox.mjs.map" as SOURCE_MAP,
        "callbox.umd.js" from "callbox.umd.js" as JAVASCRIPT,
        "callbox.umd.js.map" from "callbox.umd.js.map" as SOURCE_MAP,
        "callbox.d.ts" from "callbox.d.ts" as TYPESCRIPT,
        "signal.d.ts" from "signal.d.ts" as TYPESCRIPT,
        "signal.js" from "signal.mjs" as JAVASCRIPT,
        "signal.mjs" from "signal.mjs" as JAVASCRIPT,
        "signal.mjs.map" from "signal.mjs.map" as SOURCE_MAP,
        "hooks.js" from "hooks.mjs" as JAVASCRIPT,
        "hooks.mjs" from "hooks.mjs" as JAVASCRIPT,
        "hooks.mjs.map" from "hooks.mjs.map" as SOURCE_MAP,
        "hooks.d.ts" from "hooks.d.ts" as TYPESCRIPT,
    }
});

impl File {
    fn new(name: &'static str, mime: &'static str, text: &'static str) -> Self {
        let digest = Sha384::digest(text);
        let mut hex = String::new();
        for byte in digest.iter().take(NAME_BYTES) {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
        let etag = format!("\"{hex}\"");
        Self {
            name,
            mime,
            text,
            hashed: format!("{stem}.{hex}.{extension}"),
            etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"sdk\"")),
            integrity: format!("sha384-{}", STANDARD.encode(digest)),
        }
    }
}

/// `GET /sdk/v1/{name}`.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let found = FILES.iter().find_map(|file| match name == file.name {
        true => Some((file, "no-cache")),
        false => (name == file.hashed).then_some((file, "public, max-age=31536000, immutable")),
    });
    let Some((file, cache)) = found else {
        return Problem::not_found().into_response();
    };
    let common = [
        (header::ETAG, file.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        // Pages that are isolated (COEP) may load it too.
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        ),
    ];
    if is_known(&headers, &file.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let mime = HeaderValue::from_static(file.mime);
    (common, [(header::CONTENT_TYPE, mime)], file.text).into_response()
}

/// `GET /sdk/v1/`: every file with the name that never changes and its digest.
pub(super) async fn index() -> Json<Value> {
    let files: serde_json::Map<String, Value> = FILES
        .iter()
        .map(|file| {
            let entry = json!({
                "immutable": file.hashed,
                "integrity": file.integrity,
                "bytes": file.text.len(),
            });
            (file.name.to_owned(), entry)
        })
        .collect();
    Json(json!({ "version": 1, "files": files }))
}

static SCHEMA: LazyLock<String> = LazyLock::new(|| schema::json_schema().to_string());
static ASYNC_API: LazyLock<String> =
    LazyLock::new(|| schema::async_api(env!("CARGO_PKG_VERSION")).to_string());

/// `GET /v1/schema.json`: the messages of `/ws` as JSON Schema.
pub(super) fn schema() -> Response {
    as_json(Bytes::from_static(SCHEMA.as_bytes()))
}

/// `GET /v1/asyncapi.json`: the same as AsyncAPI 3.
pub(super) fn async_api() -> Response {
    as_json(Bytes::from_static(ASYNC_API.as_bytes()))
}

/// RFC 9110, section 13.1.2: a list of tags, weak or not, or `*`.
pub(super) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.to_str().unwrap_or_default();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or_default().split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Sha256;
    use std::fs;
    use std::path::PathBuf;

    /// `dist/` is committed, so that a build needs no Node. What it was made of is listed in it.
    #[test]
    fn the_built_library_is_not_older_than_its_sources() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk/js");
        let listed = fs::read_to_string(folder.join("dist/SOURCES")).unwrap();
        let mut names: Vec<&str> = vec![];
        for line in listed.lines() {
            let (digest, name) = line.split_once("  ").unwrap();
            let bytes = fs::read(folder.join(name)).unwrap_or_default();
            let mut hex = String::new();
            for byte in Sha256::digest(bytes) {
                write!(hex, "{byte:02x}").unwrap();
            }
            let stale = "run `npm ci && npm run build` in sdk/js and commit sdk/js/dist";
            assert_eq!(hex, digest, "sdk/js/{name} changed: {stale}");
            names.push(name);
        }
        for entry in fs::read_dir(folder.join("src")).unwrap() {
            let name = format!("src/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(
                names.contains(&name.as_str()),
                "sdk/js/{name} is new: build again"
            );
        }
    }

    #[tokio::test]
    async fn a_file_has_a_plain_name_and_one_that_never_changes() {
        let plain = file(Path("callbox.js".into()), HeaderMap::new()).await;
        assert_eq!(plain.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(plain.headers()[header::CONTENT_TYPE], JAVASCRIPT);
        let Json(index) = index().await;
        let hashed = index["files"]["callbox.js"]["immutable"].as_str().unwrap();
        assert!(
            hashed.starts_with("callbox.") && hashed.ends_with(".js"),
            "{hashed}"
        );
        let twin = file(Path(hashed.into()), HeaderMap::new()).await;
        assert!(
            twin.headers()[header::CACHE_CONTROL]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        assert_eq!(twin.headers()[header::ETAG], plain.headers()[header::ETAG]);
        let etag = plain.headers()[header::ETAG].clone();
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag)]);
        let known = file(Path("callbox.js".into()), headers).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        let unknown = file(Path("callbox.0000000000000000.js".into()), HeaderMap::new()).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    }
}
