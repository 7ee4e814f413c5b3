//! HTTPS to the authority: a connection a request, trusting what the system trusts.
//!
//! instant-acme's own client needs a process-wide TLS provider, which a library does not choose.

use crate::net::certs::provider;
use bytes::Bytes;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long the authority may take to answer one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer: a certificate chain is a few KiB.
const MAX_BODY: usize = 1 << 20;

/// Makes a client that trusts the system's certificate authorities (or those of SSL_CERT_FILE) as
/// they are at this moment.
pub(super) fn client() -> Result<Box<dyn HttpClient>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system trusts no certificate authority; \
                    install the package ca-certificates"
            .into());
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Box::new(Client(TlsConnector::from(Arc::new(config)))))
}

struct Client(TlsConnector);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            match timeout(TIMEOUT, exchange(connector, request)).await {
                Ok(answered) => answered,
                Err(_) => Err(Error::Other("the authority does not answer".into())),
            }
        })
    }
}

async fn exchange(
    connector: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Error> {
    let uri = request.uri().clone();
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::Other(
            format!("{uri} is not a valid https URL").into(),
        ));
    };
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(443)))
        .await
        .map_err(other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(other)?;
    let stream = connector.connect(name, stream).await.map_err(other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(other)?;
    // Ends with the response's body.
    tokio::spawn(connection);
    let host = authority.as_str().parse().map_err(other)?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(path) = uri.path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    let response = sender.send_request(request).await.map_err(other)?;
    Ok(response.map(|body| Limited::new(body, MAX_BODY)).into())
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
