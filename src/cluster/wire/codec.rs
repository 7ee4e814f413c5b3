//! Numbers, texts and ids as bytes, and back.

use super::WireError;
use crate::protocol::PeerId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Appends.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn tag(&mut self, tag: u8, number: u64) {
        self.0.push(tag);
        self.number(number);
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn peer(&mut self, peer: PeerId) {
        self.0.extend_from_slice(&peer.bits().to_be_bytes());
    }

    pub(super) fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                self.0.push(4);
                self.0.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.0.push(6);
                self.0.extend_from_slice(&ip.octets());
            }
        }
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.0.push(0),
            Some(value) => {
                self.0.push(1);
                write(self, value);
            }
        }
    }
}

pub(super) type Read<T> = Result<T, WireError>;

/// Takes from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().or(Err(WireError::Malformed))
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of 0 could be left out.
            let fits = shift < 63 || part < 2;
            if !fits || (byte == 0 && shift > 0) {
                return Err(WireError::Malformed);
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = usize::try_from(self.number()?).or(Err(WireError::Malformed))?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).or(Err(WireError::Malformed))
    }

    pub(super) fn peer(&mut self) -> Read<PeerId> {
        Ok(PeerId::from_bits(u128::from_be_bytes(self.array()?)))
    }

    pub(super) fn ip(&mut self) -> Read<IpAddr> {
        match self.u8()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(WireError::Malformed),
        }
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed),
        }
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(WireError::Malformed),
        }
    }

    /// A value of a list, by its place there.
    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> Read<T> {
        let place = usize::try_from(self.number()?).or(Err(WireError::Malformed))?;
        all.get(place).copied().ok_or(WireError::Malformed)
    }
}
