//! Who asks: the address of the connection, or the one that a trusted proxy names.
//!
//! Invariant: a header counts only as far as each hop that wrote it is trusted. Anyone can send one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// A proxy's address or network, such as `127.0.0.1` or `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange(IpNet);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct AddressRangeError(String);

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map(Self).map_err(|_| AddressRangeError(text.to_owned()))
    }
}

impl AddressRange {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// What counts as one visitor: an IPv4 address, or an IPv6 network of 64 bits, which is what one household gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visitor {
    V4(Ipv4Addr),
    V6(u64),
}

impl Visitor {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(bits) => write!(f, "{}/64", std::net::Ipv6Addr::from_bits(u128::from(*bits) << 64)),
        }
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";
/// A longer chain of proxies is nobody's.
const HOPS_MAX: usize = 32;

/// The address nearest to us that is no trusted proxy's.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut nearest = peer.to_canonical();
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let hops = lines.iter().rev().flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
    for hop in hops.take(HOPS_MAX) {
        if !is_trusted(nearest) {
            break;
        }
        // What a proxy did not write as an address names nobody; the proxy itself is who asks then.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
    }
    nearest
}

/// Whether the request came through a proxy, trusted or not.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR) || headers.contains_key("forwarded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked_by(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<AddressRange> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_header_counts_only_from_a_named_proxy() {
        assert_eq!(asked_by("192.0.2.1", &["198.51.100.7"], &[]), "192.0.2.1");
        assert_eq!(asked_by("192.0.2.1", &["198.51.100.7"], &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(asked_by("10.1.2.3", &["198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(asked_by("::1", &["2001:db8::5"], &["::1"]), "2001:db8::5");
        assert_eq!(asked_by("::ffff:10.1.2.3", &["198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
    }

    #[test]
    fn what_a_client_wrote_into_the_header_itself_does_not_count() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(asked_by("10.0.0.1", &["1.2.3.4, 198.51.100.7"], &trusted), "198.51.100.7");
        assert_eq!(asked_by("10.0.0.1", &["1.2.3.4, 198.51.100.7, 10.0.0.9"], &trusted), "198.51.100.7");
        assert_eq!(asked_by("10.0.0.1", &["1.2.3.4", "198.51.100.7"], &trusted), "198.51.100.7");
        assert_eq!(asked_by("10.0.0.1", &["1.2.3.4, nonsense"], &trusted), "10.0.0.1");
        assert_eq!(asked_by("10.0.0.1", &[], &trusted), "10.0.0.1");
    }

    #[test]
    fn a_household_is_one_visitor() {
        let of = |text: &str| Visitor::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn ranges_are_addresses_or_networks() {
        assert!("nowhere".parse::<AddressRange>().is_err() && "10.0.0.0/33".parse::<AddressRange>().is_err());
        assert!("192.0.2.1".parse::<AddressRange>().unwrap().contains("192.0.2.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_header_gives_an_address(line in "[ -~]{0,60}", trusted: bool) {
            let trusted = if trusted { &["10.0.0.1"][..] } else { &[] };
            let found = asked_by("10.0.0.1", &[&line], trusted);
            prop_assert!(found.parse::<IpAddr>().is_ok());
        }
    }
}
