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
}

impl TokenError {
    /// The name on the wire: `token-expired` or `unauthorized`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired(_) => "token-expired",
            Self::Refused(_) => "unauthorized",
        }
    }
}
