//! Addresses as people write them.

use std::net::IpAddr;

/// A host as it stands in a URL: IPv6 addresses in brackets.
pub fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv6_addresses_stand_in_brackets() {
        assert_eq!(bracketed("2001:db8::1"), "[2001:db8::1]");
        assert_eq!(bracketed("192.0.2.1"), "192.0.2.1");
        assert_eq!(bracketed("call.example.org"), "call.example.org");
    }
}
