//! Values as people write them: `"30s"`, `"64KiB"`, `"5Mbit"`, `"100/s"`, `"49152-65535"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A length of time, written `"30s"`, `"1h 30m"`, `"500ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes, written `"64KiB"`, `"256MiB"`, `"1000"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// Bits a second, written `"5Mbit"`, `"800kbit"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// Bytes a second, written `"256KiB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

/// Events a second, written `"100/s"` or `100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frequency(pub u32);

/// UDP ports, both ends included, written `"49152-65535"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        humantime::parse_duration(s)
            .map(Self)
            .map_err(|_| "is not a duration; write e.g. \"30s\", \"10m\" or \"1h\"".into())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
];
const BIT_RATES: &[(&str, u64)] = &[
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        scaled(s, SIZES)
            .map(Self)
            .ok_or_else(|| "is not a size; write e.g. \"64KiB\" or \"256MiB\"".into())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, SIZES)
    }
}

impl FromStr for BitRate {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        scaled(s, BIT_RATES)
            .map(Self)
            .ok_or_else(|| "is not a bit rate; write e.g. \"5Mbit\" or \"800kbit\"".into())
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, BIT_RATES)
    }
}

impl FromStr for ByteRate {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s
            .parse::<Size>()
            .or_else(|_| s.strip_suffix("/s").unwrap_or(s).parse())
        {
            Ok(Size(rate)) if rate > 0 => Ok(Self(rate)),
            _ => Err("is not a rate above zero; write e.g. \"256KiB/s\"".into()),
        }
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, SIZES)?;
        f.write_str("/s")
    }
}

impl FromStr for Frequency {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let number = s.strip_suffix("/s").unwrap_or(s).trim();
        match number.parse() {
            Ok(n) if n > 0 => Ok(Self(n)),
            _ => Err("is not a rate above zero; write e.g. \"100/s\"".into()),
        }
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl FromStr for Ports {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let ends = s.split_once('-').and_then(|(low, high)| {
            Some((
                low.trim().parse::<u16>().ok()?,
                high.trim().parse::<u16>().ok()?,
            ))
        });
        match ends {
            Some((low, high)) if 0 < low && low <= high => Ok(Self(low..=high)),
            _ => Err("is not a port range; write e.g. \"49152-65535\"".into()),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

fn scaled(s: &str, units: &[(&str, u64)]) -> Option<u64> {
    let s = s.trim();
    let digits = s.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = s.split_at(digits);
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes with the largest unit that divides the value.
fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (unit, factor) = units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .unwrap_or(&("", 1));
    write!(f, "{}{unit}", value / factor)
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(PhantomData))
            }
        }
    )*};
}
serde_as_text!(Span, Size, BitRate, ByteRate, Frequency, Ports);

/// Takes a bare number as well as a string, so that `signal.rate = 100` means what it says.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string with a unit")
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<T, E> {
        s.parse()
            .map_err(|reason| E::custom(format!("{s:?} {reason}")))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_they_are_written() {
        let size = |s: &str| s.parse::<Size>().map(|v| (v.0, v.to_string()));
        assert_eq!(size("64KiB"), Ok((65_536, "64KiB".into())));
        assert_eq!(size("256 MiB"), Ok((256 << 20, "256MiB".into())));
        assert_eq!(size("1500"), Ok((1500, "1500B".into())));
        for bad in [
            "",
            "KiB",
            "-1",
            "1.5MiB",
            "64KB",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        let rate = |s: &str| s.parse::<BitRate>().map(|v| (v.0, v.to_string()));
        assert_eq!(rate("5Mbit"), Ok((5_000_000, "5Mbit".into())));
        assert!(
            rate("5").is_err(),
            "a rate without a unit could be bits or bytes"
        );
        let bytes = |s: &str| s.parse::<ByteRate>().map(|v| (v.0, v.to_string()));
        assert_eq!(bytes("256KiB/s"), Ok((256 << 10, "256KiB/s".into())));
        assert_eq!(bytes("1MiB"), Ok((1 << 20, "1MiB/s".into())));
        assert!(bytes("0/s").is_err() && bytes("1MiB/m").is_err());
        assert_eq!("100/s".parse::<Frequency>().unwrap().to_string(), "100/s");
        assert!("0/s".parse::<Frequency>().is_err());
        assert_eq!("100-200".parse::<Ports>().unwrap().0, 100..=200);
        for bad in ["200-100", "0-10", "100", "1-70000", "a-b"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad:?}");
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m 30s");
        assert!("30".parse::<Span>().is_err());
    }
}
