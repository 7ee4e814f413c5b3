//! Why a token was refused.

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `exp` has passed.
    #[error("the token expired {0} s ago")]
    Expired(u64),
    /// Anything else; the text names what failed and holds nothing of the token.
    #[error("{0}")]
    Refused(String),
    /// The keys that would verify the token are still being fetched.
    #[error("the keys of auth.jwks have not been fetched yet: try again later")]
    KeysAwaited,
}

impl TokenError {
    /// The name on the wire: `token-expired` or `unauthorized`, or `internal` where the box lacks
    /// the keys.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired(_) => "token-expired",
            Self::Refused(_) => "unauthorized",
            Self::KeysAwaited => "internal",
        }
    }
}
