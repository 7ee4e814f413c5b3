//! What people put into certificate files: read as far as it can be meant, and remarked on.

use super::error::IdentityError;
use super::form::{self, CERTIFICATE, KEY};
use super::provider::provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

/// UTF-8's byte order mark, which some editors write.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Certificates of one file that are looked at: a chain has three or four.
const MAX_CHAIN: usize = 16;

/// A chain in the order of RFC 8446 section 4.4.2 with its key, and what an operator should know.
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    pub(super) remarks: Vec<String>,
}

/// Reads both files.
pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Pair, IdentityError> {
    let mut remarks = vec![];
    let chain = text(CERTIFICATE, chain, &mut remarks)?;
    let key = text(KEY, key, &mut remarks)?;
    if is_encrypted(key) {
        return Err(IdentityError::Encrypted);
    }
    let mut listed = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Pem(CERTIFICATE, error))?;
    listed.truncate(MAX_CHAIN);
    let first = listed.first().ok_or(IdentityError::Empty)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Pem(KEY, error))?;
    parse(first)?;
    let belongs = |leaf: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![leaf.clone()], key.clone_key(), &provider())
    };
    let leaf = match belongs(first) {
        Ok(_) => 0,
        Err(error) => listed
            .iter()
            .position(|certificate| belongs(certificate).is_ok())
            .ok_or(IdentityError::Mismatch(error))?,
    };
    let ordered = in_order(&listed, leaf);
    if ordered != (0..listed.len()).collect::<Vec<_>>() {
        remarks.push(format!(
            "its certificates are out of order or do not belong together: {} of {} are shown, the \
             leaf first and each issuer behind what it signed",
            ordered.len(),
            listed.len()
        ));
    }
    let last = &listed[*ordered.last().unwrap_or(&leaf)];
    if let Ok(top) = parse(last)
        && ordered.len() == 1
        && top.issuer().as_raw() != top.subject().as_raw()
    {
        remarks.push(format!(
            "it holds the leaf without its chain: clients that do not know its issuer ({}) refuse \
             it; name the file with the full chain (fullchain.pem)",
            top.issuer()
        ));
    }
    let chain = ordered.iter().map(|index| listed[*index].clone()).collect();
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(IdentityError::Mismatch)?;
    Ok(Pair { key, remarks })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    parse_x509_certificate(der)
        .map(|(_, parsed)| parsed)
        .map_err(|error| IdentityError::Unreadable(error.to_string()))
}

/// What follows the leaf: the issuer of the one before, as far as it is there.
fn in_order(listed: &[CertificateDer<'static>], leaf: usize) -> Vec<usize> {
    let mut order = vec![leaf];
    while let Some(below) = order.last().and_then(|index| parse(&listed[*index]).ok()) {
        let is_next = |index: &usize| {
            !order.contains(index)
                && parse(&listed[*index])
                    .is_ok_and(|c| c.subject().as_raw() == below.issuer().as_raw())
        };
        if below.issuer().as_raw() == below.subject().as_raw() {
            break;
        }
        let Some(next) = (0..listed.len()).find(is_next) else {
            break;
        };
        order.push(next);
    }
    order
}

/// The file without a byte order mark.
fn text<'a>(
    kind: &'static str,
    bytes: &'a [u8],
    remarks: &mut Vec<String>,
) -> Result<&'a [u8], IdentityError> {
    form::judge(kind, bytes)?;
    Ok(match bytes.strip_prefix(BOM) {
        None => bytes,
        Some(rest) => {
            remarks.push(format!(
                "the {kind} file begins with a byte order mark, which is passed over here and \
                 which other programs stumble over: save it as plain UTF-8"
            ));
            rest
        }
    })
}

/// PKCS #8 (RFC 5958) says it in its label, the older forms in a header (RFC 1421).
fn is_encrypted(key: &[u8]) -> bool {
    let key = String::from_utf8_lossy(key);
    key.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || key
            .lines()
            .any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    struct Authority {
        root: String,
        middle: String,
        leaf: String,
        key: String,
    }

    fn authority() -> Authority {
        let ca = |name: &str| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let root = ca("root").self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(ca("root"), root_key);
        let middle = ca("middle").signed_by(&middle_key, &root_issuer).unwrap();
        let middle_issuer = Issuer::new(ca("middle"), middle_key);
        let leaf = CertificateParams::new(vec!["a.example".into()]).unwrap();
        let leaf = leaf.signed_by(&key, &middle_issuer).unwrap();
        Authority {
            root: root.pem(),
            middle: middle.pem(),
            leaf: leaf.pem(),
            key: key.serialize_pem(),
        }
    }

    fn read(chain: &str, key: &str) -> Result<(usize, String), String> {
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
        let identity = identity.map_err(|error| error.to_string())?;
        assert!(identity.names("a.example"), "the leaf comes first");
        Ok((identity.key.cert.len(), identity.remarks.join("\n")))
    }

    #[test]
    fn a_chain_in_any_order_is_shown_in_the_right_one() {
        let Authority {
            root,
            middle,
            leaf,
            key,
        } = authority();
        assert_eq!(
            read(&format!("{leaf}{middle}"), &key),
            Ok((2, String::new()))
        );
        assert_eq!(
            read(&format!("{leaf}{middle}{root}"), &key),
            Ok((3, String::new()))
        );
        for wrong in [format!("{middle}{leaf}"), format!("{root}{middle}{leaf}")] {
            let (shown, remarks) = read(&wrong, &key).unwrap();
            assert!(shown >= 2 && remarks.contains("out of order"), "{remarks}");
        }
    }

    #[test]
    fn a_leaf_alone_is_remarked_on_unless_it_signed_itself() {
        let Authority {
            leaf, key, root, ..
        } = authority();
        let (_, remarks) = read(&leaf, &key).unwrap();
        assert!(
            remarks.contains("without its chain") && remarks.contains("CN=middle"),
            "{remarks}"
        );
        let (shown, remarks) = read(&format!("{leaf}{root}"), &key).unwrap();
        assert!(
            shown == 1 && remarks.contains("without its chain"),
            "{remarks}"
        );
        let own = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let own = read(&own.cert.pem(), &own.signing_key.serialize_pem());
        assert_eq!(own, Ok((1, String::new())));
    }

    #[test]
    fn byte_order_marks_and_encrypted_keys_are_named() {
        let Authority {
            middle, leaf, key, ..
        } = authority();
        let chain = format!("{leaf}{middle}");
        let (_, remarks) = read(&format!("\u{feff}{chain}"), &format!("\u{feff}{key}")).unwrap();
        assert!(remarks.contains("certificate file begins") && remarks.contains("key file begins"));
        for encrypted in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let error = read(&chain, encrypted).unwrap_err();
            assert!(
                error.contains("is encrypted") && error.contains("openssl pkey"),
                "{error}"
            );
        }
    }
}
