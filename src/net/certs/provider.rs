//! The cryptography of every TLS side.

use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// The cryptography of every TLS side in this box. Named each time: a process-wide default would
/// be a choice for the program that links this library.
pub(in crate::net) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
