//! Why a certificate cannot be served.

/// Why a pair cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No PEM, or none of the right kind.
    #[error("the {0} file holds no PEM {0}: {1}")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// PEM, but no certificate in it.
    #[error("the certificate file holds no certificate")]
    Empty,
    /// The leaf is not an X.509 certificate.
    #[error("the first certificate cannot be read: {0}")]
    Unreadable(String),
    /// A key that asks for a passphrase.
    #[error(
        "the key is encrypted, and nobody is there to type its passphrase: `openssl pkey -in KEY \
         -out PLAIN` writes one that is not"
    )]
    Encrypted,
    /// Text of two bytes a letter.
    #[error("the {0} file is UTF-16 (\"Unicode\" in some editors): save it as plain UTF-8")]
    Utf16(&'static str),
    /// Another form than PEM.
    #[error("the {kind} file is {form}: {fix}")]
    Form {
        /// Which file.
        kind: &'static str,
        /// What it is.
        form: &'static str,
        /// What makes PEM of it.
        fix: &'static str,
    },
    /// The key is of an unknown kind, or belongs to another certificate.
    #[error("certificate and key do not fit: {0}")]
    Mismatch(rustls::Error),
}
