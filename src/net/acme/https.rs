//! The box's HTTPS client as instant-acme calls it.
//!
//! instant-acme's own client needs a process-wide TLS provider, which a library does not choose.

use crate::net::https::{HttpsClient, Limits, system_trust};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::pin::Pin;
use std::time::Duration;

/// What one request may take: a certificate chain is a few KiB.
const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(30),
    body: 1 << 20,
};

/// Makes a client that trusts the system's certificate authorities as they are at this moment.
pub(super) fn client() -> Result<Box<dyn HttpClient>, String> {
    Ok(Box::new(Client(HttpsClient::new(system_trust()?, None))))
}

struct Client(HttpsClient);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            if request.uri().scheme_str() != Some("https") {
                let problem = format!("{} is not a valid https URL", request.uri());
                return Err(Error::Other(problem.into()));
            }
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(other)?.to_bytes();
            let request = Request::from_parts(parts, Full::new(body));
            let response = client.send(request, LIMITS).await.map_err(other)?;
            Ok(response.map(Full::new).into())
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
