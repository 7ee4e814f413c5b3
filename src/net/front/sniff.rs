//! What a client speaks, from ALPN or from its first byte.

/// ALPN names that this box answers to, in its order of preference. RFC 7443's come first: who
/// offers one speaks STUN, whatever else it offers (coturn's client offers `http/1.1` as well).
pub(super) const ALPN: [&[u8]; 5] = [
    b"stun.turn",
    b"stun.nat-discovery",
    b"h2",
    b"http/1.1",
    crate::net::certs::ACME_ALPN,
];

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and WebSocket from there.
    Http1,
    /// HTTP/2, agreed on by ALPN.
    Http2,
    /// STUN and TURN messages.
    Turn,
}

impl Protocol {
    /// Judges a connection by what was agreed on (RFC 7301) and the first byte the client sent.
    /// Browsers offer no ALPN for `turns:`; then the byte alone decides, and where there was a
    /// name, the byte has to fit it.
    ///
    /// `None`: nothing that this box speaks.
    pub(super) fn of(alpn: Option<&[u8]>, first: u8) -> Option<Self> {
        // RFC 8489 section 5 and RFC 7983: 0-3 begins a STUN message. ChannelData (64-79, RFC 8656)
        // needs an allocation before, and HTTP begins with the letters of a method, all of them
        // upper case in RFC 9110, or of `PRI` (RFC 9113).
        let spoken = match first {
            0..=3 => Self::Turn,
            b'A'..=b'Z' | b'a'..=b'z' => Self::Http1,
            _ => return None,
        };
        match (alpn, spoken) {
            (None, spoken) => Some(spoken),
            (Some(b"http/1.1"), Self::Http1) => Some(Self::Http1),
            (Some(b"h2"), Self::Http1) => Some(Self::Http2),
            (Some(b"stun.turn" | b"stun.nat-discovery"), Self::Turn) => Some(Self::Turn),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_alpn_the_first_byte_decides() {
        let spoken = |byte| Protocol::of(None, byte);
        for byte in 0..=3 {
            assert_eq!(spoken(byte), Some(Protocol::Turn));
        }
        for method in ["GET", "POST", "OPTIONS", "PRI", "patch"] {
            assert_eq!(
                spoken(method.as_bytes()[0]),
                Some(Protocol::Http1),
                "{method}"
            );
        }
        let others = [4, 0x0d, 0x16, b' ', b'0', 0x40, 0x5b, 0x7f, 0x80, 0xff];
        for byte in others {
            assert_eq!(spoken(byte), None, "{byte:#x}");
        }
    }

    #[test]
    fn each_name_agreed_on_has_its_protocol() {
        let of = |alpn: &str, byte| Protocol::of(Some(alpn.as_bytes()), byte);
        assert_eq!(of("h2", b'P'), Some(Protocol::Http2));
        assert_eq!(of("http/1.1", b'G'), Some(Protocol::Http1));
        assert_eq!(of("stun.turn", 0), Some(Protocol::Turn));
        assert_eq!(of("acme-tls/1", b'G'), None);
    }

    proptest! {
        #[test]
        fn a_first_byte_never_belies_the_name(byte: u8, which in 0..ALPN.len()) {
            let agreed = Protocol::of(Some(ALPN[which]), byte);
            let is_turn = ALPN[which].starts_with(b"stun.");
            if let Some(protocol) = agreed {
                prop_assert_eq!(protocol == Protocol::Turn, is_turn);
                prop_assert_eq!(byte < 4, is_turn);
            }
        }
    }
}
