//! What is not PEM, or not the PEM that is wanted: named, with the command that makes it right.

use super::error::IdentityError;

/// What the file of `tls.cert` holds.
pub(super) const CERTIFICATE: &str = "certificate";
/// What the file of `tls.key` holds.
pub(super) const KEY: &str = "key";

/// PKCS #12 (RFC 7292) begins with its version, which is 3.
const PKCS12: &[u8] = &[0x02, 0x01, 0x03];
/// The object identifier of PKCS #7's signed data (RFC 5652).
const PKCS7: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
];

/// Refuses `bytes` where they are known to be of another form than the PEM of `kind`.
///
/// # Errors
/// The form is known and another one.
pub(super) fn judge(kind: &'static str, bytes: &[u8]) -> Result<(), IdentityError> {
    if is_utf16(bytes) {
        return Err(IdentityError::Utf16(kind));
    }
    match other_form(kind, bytes) {
        None => Ok(()),
        Some((form, fix)) => Err(IdentityError::Form { kind, form, fix }),
    }
}

/// With a byte order mark, or with the zeros that ASCII has in it.
fn is_utf16(bytes: &[u8]) -> bool {
    let is_marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    is_marked || matches!(bytes, [0, b'-', 0, b'-', ..] | [b'-', 0, b'-', 0, ..])
}

fn other_form(kind: &'static str, bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let is_key = kind == KEY;
    if let Some(inside) = der(bytes) {
        return Some(if inside.starts_with(PKCS12) {
            (
                "PKCS #12 (.p12, .pfx), and not PEM",
                "`openssl pkcs12 -in FILE -nokeys -out fullchain.pem` writes the certificates, and \
                 `openssl pkcs12 -in FILE -nocerts -noenc -out key.pem` the key",
            )
        } else if inside.starts_with(PKCS7) {
            (
                "PKCS #7 (.p7b), and not PEM",
                "`openssl pkcs7 -inform DER -in FILE -print_certs -out fullchain.pem` writes PEM",
            )
        } else if is_key {
            (
                "DER, and not PEM",
                "`openssl pkey -inform DER -in FILE -out key.pem` writes PEM",
            )
        } else {
            (
                "DER, and not PEM",
                "`openssl x509 -inform DER -in FILE -out cert.pem` writes PEM",
            )
        });
    }
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        let fix = "`keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype \
                   PKCS12` makes PKCS #12 of it, and `openssl pkcs12` PEM of that";
        return Some(("a Java key store, and not PEM", fix));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Some(("compressed by gzip", "`gunzip` makes PEM of it"));
    }
    let text = String::from_utf8_lossy(bytes);
    // "-----BEGIN" in base64, as in a Secret of Kubernetes.
    if text.trim_start().starts_with("LS0tLS1CRUdJT") {
        let fix = "`base64 -d FILE` writes the PEM that is in it";
        return Some(("PEM in base64 once more", fix));
    }
    if text.trim().is_empty() {
        return Some(("empty", "write the PEM into it"));
    }
    if is_on_one_line(&text) {
        let fix = "BEGIN and END stand on lines of their own, and at most 64 letters on each line \
                   between them; a variable or a secret store has lost the line breaks";
        return Some(("PEM without line breaks", fix));
    }
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    let has_key = text.contains("PRIVATE KEY-----");
    match is_key {
        true if has("OPENSSH PRIVATE KEY") => Some((
            "a key of OpenSSH",
            "name the key for which the certificate was made",
        )),
        true if !has_key && has("CERTIFICATE") => Some((
            "a certificate",
            "name the private key in tls.key, and the certificate in tls.cert",
        )),
        true if !has_key && text.contains("PUBLIC KEY-----") => {
            Some(("a public key", "name the private key"))
        }
        true => None,
        false if has("CERTIFICATE") => None,
        false if has("CERTIFICATE REQUEST") || has("NEW CERTIFICATE REQUEST") => Some((
            "a request for a certificate (CSR)",
            "name what the authority has made of it",
        )),
        false if has("PKCS7") => Some((
            "PKCS #7 (.p7b), and not PEM",
            "`openssl pkcs7 -in FILE -print_certs -out fullchain.pem` writes PEM certificates",
        )),
        false if has("TRUSTED CERTIFICATE") => Some((
            "a certificate of OpenSSL's own form",
            "`openssl x509 -in FILE -out cert.pem` writes the usual one",
        )),
        false if has_key => Some((
            "a key",
            "name the certificate in tls.cert, and the private key in tls.key",
        )),
        false => None,
    }
}

/// What is inside of the SEQUENCE with which a file of DER begins.
fn der(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, length @ 0x81..=0x84, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        // With a length that is not known at the beginning (BER).
        [0x30, 0x80, rest @ ..] => Some(rest),
        [0x30, length, rest @ ..] if usize::from(*length) == rest.len() => Some(rest),
        _ => None,
    }
}

/// Whether something follows a BEGIN on its line.
fn is_on_one_line(text: &str) -> bool {
    text.lines().any(|line| {
        let behind = line.split_once("-----BEGIN ").map(|(_, behind)| behind);
        let behind = behind.and_then(|behind| behind.split_once("-----"));
        behind.is_some_and(|(_, rest)| !rest.trim().is_empty())
    }) && !text.contains('\r')
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;
    use base64::Engine as _;

    fn refused(kind: &'static str, bytes: &[u8]) -> String {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let read = match kind {
            KEY => Identity::from_pem(cert.as_bytes(), bytes),
            _ => Identity::from_pem(bytes, key.as_bytes()),
        };
        read.expect_err("another form").to_string()
    }

    #[test]
    fn text_of_two_bytes_a_letter_is_named() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        for mark in ["\u{feff}", ""] {
            let wide: Vec<u16> = format!("{mark}{}", made.cert.pem())
                .encode_utf16()
                .collect();
            let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            for (kind, bytes) in [(CERTIFICATE, &little), (CERTIFICATE, &big), (KEY, &little)] {
                let error = refused(kind, bytes);
                assert!(
                    error.contains(&format!("the {kind} file is UTF-16")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn other_forms_are_named_with_the_command_that_makes_pem_of_them() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let one_line = |pem: &str| pem.replace('\n', "").into_bytes();
        let pkcs12 = [&[0x30, 0x82, 9, 0x63][..], PKCS12, &[0; 60]].concat();
        let pkcs7 = [&[0x30, 0x82, 9, 0x63][..], PKCS7, &[0; 60]].concat();
        let forms: [(&'static str, Vec<u8>, &str, &str); 17] = [
            (
                CERTIFICATE,
                made.cert.der().to_vec(),
                "DER",
                "openssl x509 -inform DER",
            ),
            (
                KEY,
                made.signing_key.serialize_der(),
                "DER",
                "openssl pkey -inform DER",
            ),
            (CERTIFICATE, pkcs12.clone(), "PKCS #12", "openssl pkcs12"),
            (KEY, pkcs12, "PKCS #12", "-nocerts"),
            (CERTIFICATE, pkcs7, "PKCS #7", "openssl pkcs7 -inform DER"),
            (
                CERTIFICATE,
                b"-----BEGIN PKCS7-----\nAA\n".to_vec(),
                "PKCS #7",
                "openssl pkcs7",
            ),
            (
                KEY,
                vec![0xfe, 0xed, 0xfe, 0xed, 0],
                "Java key store",
                "keytool",
            ),
            (
                CERTIFICATE,
                one_line(&cert),
                "without line breaks",
                "lines of their own",
            ),
            (
                KEY,
                one_line(&key),
                "without line breaks",
                "lines of their own",
            ),
            (CERTIFICATE, key.clone().into_bytes(), "is a key", "tls.key"),
            (
                KEY,
                cert.clone().into_bytes(),
                "is a certificate",
                "tls.cert",
            ),
            (CERTIFICATE, b" \n".to_vec(), "is empty", "PEM"),
            (
                KEY,
                b"-----BEGIN PUBLIC KEY-----\nAA\n".to_vec(),
                "public key",
                "private key",
            ),
            (
                KEY,
                b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA\n".to_vec(),
                "OpenSSH",
                "was made",
            ),
            (
                CERTIFICATE,
                b"-----BEGIN CERTIFICATE REQUEST-----\nAA\n".to_vec(),
                "CSR",
                "authority",
            ),
            (
                CERTIFICATE,
                base64::prelude::BASE64_STANDARD.encode(&cert).into_bytes(),
                "in base64",
                "base64 -d",
            ),
            (KEY, vec![0x1f, 0x8b, 8, 0], "gzip", "gunzip"),
        ];
        for (kind, bytes, form, fix) in forms {
            let error = refused(kind, &bytes);
            assert!(
                error.contains(form) && error.contains(fix),
                "{kind}: {error}"
            );
        }
        // Line breaks of other systems, and text around the PEM, are no fault.
        for line_break in ["\r\n", "\r"] {
            let (cert, key) = (
                cert.replace('\n', line_break),
                key.replace('\n', line_break),
            );
            assert_eq!(
                judge(CERTIFICATE, cert.as_bytes())
                    .err()
                    .map(|e| e.to_string()),
                None
            );
            assert_eq!(
                judge(KEY, key.as_bytes()).err().map(|e| e.to_string()),
                None
            );
        }
        let with_text = format!("subject=CN = a.example\n{cert}");
        assert!(Identity::from_pem(with_text.as_bytes(), key.as_bytes()).is_ok());
    }
}
