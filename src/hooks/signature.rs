//! The header `Callbox-Signature: t=<unix_s>,v1=<hex HMAC-SHA256 of "t.body">`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write;
use std::time::Duration;

/// The name of the header.
pub const HEADER: &str = "callbox-signature";

/// Signs `body` as of `unix_s`.
pub fn sign(secret: &[u8], unix_s: u64, body: &[u8]) -> String {
    let digest = mac(secret, unix_s, body).finalize().into_bytes();
    let mut header = format!("t={unix_s},v1=");
    for byte in digest {
        let _ = write!(header, "{byte:02x}");
    }
    header
}

/// Whether `header` signs `body` and is not older or newer than `tolerance`. The comparison
/// takes constant time.
pub fn verify(secret: &[u8], header: &str, body: &[u8], unix_s: u64, tolerance: Duration) -> bool {
    let mut stamp = None;
    let mut signature = None;
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => stamp = value.parse::<u64>().ok(),
            Some(("v1", value)) => signature = unhex(value),
            _ => {}
        }
    }
    let (Some(stamp), Some(signature)) = (stamp, signature) else {
        return false;
    };
    stamp.abs_diff(unix_s) <= tolerance.as_secs()
        && mac(secret, stamp, body).verify_slice(&signature).is_ok()
}

fn mac(secret: &[u8], unix_s: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Duration = Duration::from_secs(300);

    /// The digest was made with OpenSSL: `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn a_signature_is_what_other_tools_compute() {
        let header = sign(b"key", 1_700_000_000, b"{}");
        assert_eq!(header, EXPECTED);
    }

    const EXPECTED: &str =
        "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";

    #[test]
    fn a_changed_body_key_or_time_is_refused() {
        let header = sign(b"key", 1_000, b"body");
        assert!(verify(b"key", &header, b"body", 1_100, TOLERANCE));
        assert!(!verify(b"key", &header, b"Body", 1_100, TOLERANCE));
        assert!(!verify(b"kez", &header, b"body", 1_100, TOLERANCE));
        assert!(!verify(b"key", &header, b"body", 1_301, TOLERANCE));
        assert!(!verify(
            b"key",
            &header.replace("t=1000", "t=1001"),
            b"body",
            1_100,
            TOLERANCE
        ));
        for nonsense in [
            "",
            "t=1000",
            "v1=00",
            "t=x,v1=zz",
            "t=1000,v1=0",
            "t=1000,v1=é0",
        ] {
            assert!(
                !verify(b"key", nonsense, b"body", 1_000, TOLERANCE),
                "{nonsense}"
            );
        }
    }
}
