//! The PROXY protocol header (HAProxy's specification, versions 1 and 2) in front of a connection.
//!
//! Reads the header and not a byte more: what follows belongs to TLS.

use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Section 2.2: what version 2 begins with; shorter than the shortest header of version 1.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.2: the signature, version and command, family, and the length of the rest.
const V2_FIXED: usize = 16;
/// The most that may follow: addresses and extensions of real balancers take a few hundred bytes.
const V2_MAX_REST: usize = 4096;
/// Section 2.1: the longest line of version 1 with its CR LF.
const V1_MAX: usize = 107;

/// Reads one header; `None` where the proxy speaks for itself, as in a health check.
///
/// # Errors
/// The connection ends or does not begin with a header.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<ProxiedAddress>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(V2_FIXED, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > V2_MAX_REST {
            return Err(malformed());
        }
        header.resize(V2_FIXED + rest, 0);
        stream.read_exact(&mut header[V2_FIXED..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\n") {
            if header.len() == V1_MAX {
                return Err(malformed());
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(malformed());
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(&header, config).map_err(|_| malformed())?;
    if length != header.len() {
        return Err(malformed());
    }
    Ok(parsed.proxied_address().cloned())
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a trusted proxy sent no valid PROXY header",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use proxy_header::Tlv;
    use std::net::SocketAddr;

    /// Reads from memory, and returns what is left with the outcome.
    fn parse(mut bytes: &[u8]) -> (io::Result<Option<ProxiedAddress>>, &[u8]) {
        let outcome = read(&mut bytes).now_or_never();
        (outcome.expect("memory does not block"), bytes)
    }

    fn address() -> impl Strategy<Value = ProxiedAddress> {
        let v4 = any::<([u8; 4], u16, [u8; 4], u16)>()
            .prop_map(|(a, p, b, q)| ProxiedAddress::stream((a, p).into(), (b, q).into()));
        let v6 = any::<([u8; 16], u16, [u8; 16], u16)>()
            .prop_map(|(a, p, b, q)| ProxiedAddress::stream((a, p).into(), (b, q).into()));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn a_header_is_read_and_what_follows_is_left(
            address in address(), rest: Vec<u8>, tlv in proptest::option::of("[a-z]{0,200}"),
        ) {
            let mut v1 = vec![];
            ProxyHeader::with_address(address.clone()).encode_v1(&mut v1).unwrap();
            let mut v2 = vec![];
            let tlvs = tlv.map(|name| Tlv::Authority(name.into()));
            ProxyHeader::with_tlvs(Some(address.clone()), tlvs).encode_v2(&mut v2).unwrap();
            for mut bytes in [v1, v2] {
                let length = bytes.len();
                bytes.extend(&rest);
                let (read, left) = parse(&bytes);
                prop_assert_eq!(read.unwrap(), Some(address.clone()));
                prop_assert_eq!(left, &rest[..]);
                for cut in 0..length {
                    prop_assert!(parse(&bytes[..cut]).0.is_err());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes: Vec<u8>,
            kind in 0..3_u8,
            command: u8,
            family: u8,
            length in 0..80_u16,
        ) {
            let mut input = match kind {
                0 => vec![],
                1 => b"PROXY ".to_vec(),
                _ => {
                    let [high, low] = length.to_be_bytes();
                    [SIGNATURE.as_slice(), &[command, family, high, low]].concat()
                }
            };
            input.extend(bytes);
            let _ = parse(&input);
        }
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        let (read, left) = parse(b"PROXY UNKNOWN\r\nrest");
        assert_eq!((read.unwrap(), left), (None, &b"rest"[..]));
        let mut local = vec![];
        ProxyHeader::with_local().encode_v2(&mut local).unwrap();
        assert_eq!(parse(&local).0.unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused_within_bounds() {
        let endless = format!("PROXY TCP4 {}", "1".repeat(10_000));
        let (read, left) = parse(endless.as_bytes());
        assert!(read.is_err());
        assert_eq!(left.len(), endless.len() - V1_MAX);
        let mut vast = [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat();
        vast.resize(70_000, 0);
        let (read, left) = parse(&vast);
        assert!(read.is_err());
        assert_eq!(left.len(), vast.len() - V2_FIXED);
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0];
        assert!(
            parse(&hello).0.is_err(),
            "a TLS client in the proxy's place"
        );
    }

    #[test]
    fn the_parts_are_named_rightly() {
        let source: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let (read, _) = parse(b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n");
        let address = read.unwrap().unwrap();
        assert_eq!(address.source, source);
        assert_eq!(address.destination.to_string(), "198.51.100.2:443");
    }
}
