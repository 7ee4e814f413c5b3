//! `http.root`: the application's own page, files of one folder.
//!
//! No listing, no file or folder whose name begins with a dot, and no way out of the folder: a link that
//! leads out of it is not followed.

mod range;

use super::download::{Download, Slot};
use super::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use range::{Part, part};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Segments of a path that are looked at.
const MAX_DEPTH: usize = 32;

/// Media types by extension; what is not listed is downloaded.
const TYPES: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ogg", "audio/ogg"),
    ("onnx", "application/octet-stream"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tflite", "application/octet-stream"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xml", "application/xml"),
];

/// A file that is read.
struct Opened {
    file: File,
    length: u64,
    modified: SystemTime,
    mime: &'static str,
}

/// The folder that is served.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

/// What a path leads to.
enum Found {
    File(Opened),
    /// A folder that was asked for without the slash behind it.
    Folder,
    Nothing,
}

impl Root {
    /// Serves `folder`, which a link may name.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::canonicalize(folder).map(Self)
    }

    /// Answers `GET` and `HEAD`.
    pub(super) async fn serve(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        download: Download,
    ) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let detail = "files are read by GET and HEAD";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Problem::new(status, "method-not-allowed", detail).into_response();
        }
        let Some(slot) = download.slot().await else {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail = "as many files are being read as may be: ask again in a moment";
            return Problem::new(status, "busy", detail).into_response();
        };
        let path = uri.path().to_owned();
        let root = self.clone();
        let found = tokio::task::spawn_blocking(move || root.find(&path)).await;
        match found {
            Ok(Found::File(opened)) => respond(method, headers, opened, slot),
            Ok(Found::Folder) => redirect(uri),
            Ok(Found::Nothing) | Err(_) => Problem::not_found().into_response(),
        }
    }

    fn find(&self, path: &str) -> Found {
        let Some(segments) = segments(path) else {
            return Found::Nothing;
        };
        let mut wanted = self.0.clone();
        wanted.extend(&segments);
        let Some(real) = self.within(&wanted) else {
            return Found::Nothing;
        };
        if !real.is_dir() {
            return match path.ends_with('/') {
                true => Found::Nothing,
                false => open(&real),
            };
        }
        match (path.ends_with('/'), self.within(&real.join("index.html"))) {
            (_, None) => Found::Nothing,
            (true, Some(index)) => open(&index),
            (false, Some(_)) => Found::Folder,
        }
    }

    /// The file that a path stands for, links followed, unless it is outside of the folder or hidden in it.
    fn within(&self, path: &Path) -> Option<PathBuf> {
        let real = fs::canonicalize(path).ok()?;
        let inner = real.strip_prefix(&self.0).ok()?;
        let hidden = inner
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        (!hidden).then_some(real)
    }
}

/// The decoded names in a path; `None` where one of them may not be.
fn segments(path: &str) -> Option<Vec<String>> {
    let mut names = vec![];
    for raw in path.split('/').filter(|raw| !raw.is_empty()) {
        let name = decoded(raw)?;
        let is_plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !is_plain || names.len() == MAX_DEPTH {
            return None;
        }
        names.push(name);
    }
    Some(names)
}

/// Undoes percent-encoding; what is not UTF-8 then names no file here.
fn decoded(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Opens what is a plain file: neither a link put there since, nor a pipe that nobody writes to.
fn open(path: &Path) -> Found {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let Ok(file) = options.open(path) else {
        return Found::Nothing;
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Found::File(Opened {
            length: metadata.len(),
            modified: metadata.modified().unwrap_or(UNIX_EPOCH),
            mime: mime(path),
            file,
        }),
        _ => Found::Nothing,
    }
}

fn respond(method: &Method, headers: &HeaderMap, opened: Opened, slot: Slot) -> Response {
    let Opened {
        mut file,
        length,
        modified,
        mime,
    } = opened;
    let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = format!("\"{:x}-{length:x}\"", age.as_nanos());
    let etag = HeaderValue::try_from(&tag).unwrap_or(HeaderValue::from_static("\"file\""));
    let common = [
        (header::ETAG, etag),
        // The files may change at any time: a browser asks whether its copy is good.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ];
    if super::sdk::is_known(headers, &common[0].1) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let is_current = text(header::IF_RANGE).is_none_or(|known| known == tag);
    let range = text(header::RANGE)
        .filter(|_| is_current)
        .map(|range| part(range, length));
    let (status, from, count) = match range {
        Some(Part::Of(from, count)) => (StatusCode::PARTIAL_CONTENT, from, count),
        Some(Part::None) => {
            let whole = format!("bytes */{length}");
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range",
                "the file ends before this range begins",
            );
            return ([(header::CONTENT_RANGE, whole)], problem).into_response();
        }
        Some(Part::Whole) | None => (StatusCode::OK, 0, length),
    };
    if file.seek(SeekFrom::Start(from)).is_err() {
        return Problem::not_found().into_response();
    }
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ if count == 0 => Body::empty(),
        _ => Body::from_stream(slot.watch(chunks(file, count))),
    };
    let mut response = (status, common, body).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{length}", from + count - 1);
        if let Ok(range) = HeaderValue::try_from(range) {
            out.insert(header::CONTENT_RANGE, range);
        }
    }
    response
}

/// Reads `count` bytes, a chunk at a time, on threads that may wait for a disk.
fn chunks(file: File, count: u64) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, count), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = move || {
            let wanted = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let mut chunk = vec![0; wanted];
            let got = file.read(&mut chunk)?;
            chunk.truncate(got);
            match got {
                // It became shorter: the length that was promised can no longer be kept.
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok((Bytes::from(chunk), (file, left - got as u64))),
            }
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(io::Error::other)?.map(Some)
    })
}

fn redirect(uri: &Uri) -> Response {
    // A path that begins with two slashes would name another host.
    let path = format!("/{}/", uri.path().trim_matches('/'));
    let to = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let Ok(to) = HeaderValue::try_from(to) else {
        return Problem::not_found().into_response();
    };
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response()
}

fn mime(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension.unwrap_or_default().to_ascii_lowercase();
    TYPES
        .iter()
        .find(|(known, _)| *known == extension)
        .map_or("application/octet-stream", |(_, mime)| mime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::os::unix::fs::symlink;

    struct Site {
        _folder: tempfile::TempDir,
        root: Root,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let site = folder.path().join("site");
            for (name, text) in [
                ("index.html", "<p>home"),
                ("app.js", "0123456789"),
                ("docs/index.html", "<p>docs"),
                ("bare/x.txt", "x"),
                (".env", "hidden"),
                (".git/config", "hidden"),
                ("ü 1.txt", "umlaut"),
                ("empty.txt", ""),
            ] {
                let path = site.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::write(folder.path().join("secret.txt"), "out").unwrap();
            symlink(folder.path().join("secret.txt"), site.join("out.txt")).unwrap();
            symlink("..", site.join("up")).unwrap();
            symlink(".env", site.join("env.txt")).unwrap();
            symlink("app.js", site.join("link.js")).unwrap();
            let root = Root::open(&site).unwrap();
            Self {
                _folder: folder,
                root,
            }
        }

        async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
            self.ask(Method::GET, path, headers).await
        }

        async fn ask(
            &self,
            method: Method,
            path: &str,
            headers: &[(&str, &str)],
        ) -> (u16, HeaderMap, String) {
            let mut given = HeaderMap::new();
            for (name, value) in headers {
                let name: header::HeaderName = name.parse().unwrap();
                given.insert(name, value.parse().unwrap());
            }
            let uri: Uri = path.parse().unwrap();
            let response = self
                .root
                .serve(&method, &uri, &given, Download::default())
                .await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            (parts.status.as_u16(), parts.headers, text)
        }
    }

    #[tokio::test]
    async fn files_have_types_tags_and_folders_their_index() {
        let site = Site::new();
        let (status, headers, body) = site.get("/", &[]).await;
        assert_eq!((status, body.as_str()), (200, "<p>home"));
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let (status, headers, _) = site.get("/app.js", &[]).await;
        assert_eq!(status, 200);
        assert_eq!(
            headers[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
        let tag = headers[header::ETAG].to_str().unwrap().to_owned();
        let known = site.get("/app.js", &[("if-none-match", &tag)]).await;
        assert_eq!((known.0, known.2.as_str()), (304, ""));
        assert_eq!(site.get("/docs/", &[]).await.2, "<p>docs");
        let (status, headers, _) = site.get("/docs?a=b", &[]).await;
        assert_eq!(
            (status, &headers[header::LOCATION]),
            (308, &HeaderValue::from_static("/docs/?a=b"))
        );
        assert_eq!(site.get("/%C3%BC%201.txt", &[]).await.2, "umlaut");
        assert_eq!(site.get("/link.js", &[]).await.2, "0123456789");
        assert_eq!(site.get("/empty.txt", &[]).await.0, 200);
        let head = site.ask(Method::HEAD, "/app.js", &[]).await;
        assert_eq!((head.0, head.2.as_str()), (200, ""));
        assert_eq!(head.1[header::CONTENT_LENGTH], "10");
        assert_eq!(site.ask(Method::POST, "/app.js", &[]).await.0, 405);
    }

    #[tokio::test]
    async fn nothing_outside_hidden_or_listed_is_served() {
        let site = Site::new();
        for path in [
            "/.env",
            "/.git/config",
            "/%2eenv",
            "/env.txt",
            "/out.txt",
            "/up/secret.txt",
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/docs/%2e%2e/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/docs%5c..%5csecret.txt",
            "/app.js%00.txt",
            "/app.js/",
            "/app.js/x",
            "/bare/",
            "/bare",
            "/%ff",
            "/%zz",
            "/nothing",
        ] {
            assert_eq!(site.get(path, &[]).await.0, 404, "{path}");
        }
        let deep = "/a".repeat(1_000);
        assert_eq!(site.get(&deep, &[]).await.0, 404);
        // Two slashes would name another host.
        let (status, headers, _) = site.get("//docs", &[]).await;
        assert_eq!(status, 308);
        assert_eq!(headers[header::LOCATION], "/docs/");
    }

    #[tokio::test]
    async fn ranges_are_served_one_at_a_time() {
        let site = Site::new();
        for (range, status, body, content_range) in [
            ("bytes=2-4", 206, "234", "bytes 2-4/10"),
            ("bytes=7-", 206, "789", "bytes 7-9/10"),
            ("bytes=-3", 206, "789", "bytes 7-9/10"),
            ("bytes=8-99", 206, "89", "bytes 8-9/10"),
            ("bytes=-99", 206, "0123456789", "bytes 0-9/10"),
            ("bytes=4-2", 200, "0123456789", ""),
            ("bytes=1-2,5-6", 200, "0123456789", ""),
            ("lines=1-2", 200, "0123456789", ""),
        ] {
            let got = site.get("/app.js", &[("range", range)]).await;
            assert_eq!((got.0, got.2.as_str()), (status, body), "{range}");
            let said = got.1.get(header::CONTENT_RANGE);
            assert_eq!(said.map_or("", |v| v.to_str().unwrap()), content_range);
        }
        for beyond in ["bytes=10-", "bytes=-0"] {
            let (status, headers, _) = site.get("/app.js", &[("range", beyond)]).await;
            assert_eq!(status, 416);
            assert_eq!(headers[header::CONTENT_RANGE], "bytes */10");
        }
        let (_, headers, _) = site.get("/app.js", &[]).await;
        let tag = headers[header::ETAG].to_str().unwrap();
        let range = ("range", "bytes=0-1");
        assert_eq!(
            site.get("/app.js", &[range, ("if-range", tag)]).await.0,
            206
        );
        let old = ("if-range", "\"other\"");
        assert_eq!(site.get("/app.js", &[range, old]).await.0, 200);
    }
}
