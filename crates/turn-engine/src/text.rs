//! Bytes as base64, for snapshots in a format of texts: `#[serde(with = "text")]`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes bytes as base64.
///
/// # Errors
/// What the serializer says.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD_NO_PAD.encode(bytes))
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// The text is not base64.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD_NO_PAD
        .decode(text)
        .map_err(|_| de::Error::custom("bytes that are not base64"))
}
