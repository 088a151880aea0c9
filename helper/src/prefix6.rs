//! An owner's IPv6 prefix, and what its networks and workers have of it. Pure.
//!
//! Nothing of IPv6 is given by itself: each address follows from the IPv4 address beside it, which the ledger gives to one
//! worker alone. A /22 range of IPv4 has one /64, numbered by the second and third number of the range's first address; a
//! worker's place in it is the one that it has in the range: 10.88.4.2 goes with `fd…:5804::2`.

use crate::rules::NETWORK_PREFIX;
use crate::subnet::Subnet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits that an owner has.
const OWNER_BITS: u8 = 48;
/// Bits of one network.
pub const NETWORK6_BITS: u8 = 64;
/// First byte of a unique local address that somebody chose by chance (RFC 4193).
const LOCAL: u8 = 0xfd;

/// 48 bits of an owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6(Ipv6Addr);

/// Not such a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no private IPv6 prefix: write one as fd12:3456:789a::/48, with 40 bits of your own after fd")]
pub struct Prefix6Error(String);

impl Prefix6 {
    /// First address of the /64 that goes with an IPv4 range.
    pub fn network(self, range: Subnet) -> Ipv6Addr {
        let number = range.base().to_bits() >> 8 & 0xffff;
        Ipv6Addr::from_bits(self.0.to_bits() | u128::from(number) << (128 - NETWORK6_BITS))
    }

    /// The address that goes with a worker's IPv4 address.
    pub fn address(self, four: Ipv4Addr) -> Ipv6Addr {
        let range = Subnet::around(four, NETWORK_PREFIX);
        let place = four.to_bits() - range.base().to_bits();
        Ipv6Addr::from_bits(self.network(range).to_bits() | u128::from(place))
    }
}

/// The host's own address on a worker's link. It has it on no other link, so that none of its tables grows long by it.
pub fn gateway6(worker: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(worker.to_bits()))
}

impl FromStr for Prefix6 {
    type Err = Prefix6Error;
    fn from_str(text: &str) -> Result<Self, Prefix6Error> {
        let base = text.strip_suffix("/48").and_then(|base| base.parse::<Ipv6Addr>().ok());
        let whole = base.filter(|base| {
            base.octets()[0] == LOCAL
                && base.to_bits().trailing_zeros() >= 128 - u32::from(OWNER_BITS)
                && !is_a_clouds(*base)
        });
        whole.map(Self).ok_or_else(|| Prefix6Error(text.chars().take(64).collect()))
    }
}

/// Prefixes of 32 bits that clouds answer in to their guests alone: metadata (which may hold a host's own rights), names, time.
/// Amazon fd00:ec2::254, Google fd20:ce::254, Oracle fd00:c1::a9fe:a9fe, Scaleway fd00:42::42.
pub const CLOUDS: [[u8; 4]; 4] =
    [[0xfd, 0x00, 0x0e, 0xc2], [0xfd, 0x20, 0x00, 0xce], [0xfd, 0x00, 0x00, 0xc1], [0xfd, 0x00, 0x00, 0x42]];

fn is_a_clouds(address: Ipv6Addr) -> bool {
    CLOUDS.iter().any(|cloud| address.octets().starts_with(cloud))
}

impl fmt::Display for Prefix6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{OWNER_BITS}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_whole_private_prefixes_parse() {
        assert_eq!("fd12:3456:789a::/48".parse::<Prefix6>().unwrap().to_string(), "fd12:3456:789a::/48");
        for bad in [
            "",
            "fd12:3456:789a::",
            "fd12:3456:789a::/64",
            "fd12:3456:789a:1::/48",
            "fd12:3456:789a::1/48",
            "fc12:3456:789a::/48",
            "fe80::/48",
            "ff02::/48",
            "2001:db8::/48",
            "::/48",
            "::ffff:10.0.0.0/48",
            "64:ff9b::/48",
            "fd00:ec2::/48",
            "fd20:ce:7::/48",
            "10.88.0.0/16",
            "fd12:3456:789a::/048",
            " fd12:3456:789a::/48",
        ] {
            assert!(bad.parse::<Prefix6>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_address_goes_with_the_one_of_ipv4() {
        let prefix: Prefix6 = "fd12:3456:789a::/48".parse().unwrap();
        assert_eq!(prefix.address(Ipv4Addr::new(10, 88, 4, 2)).to_string(), "fd12:3456:789a:5804::2");
        assert_eq!(prefix.address(Ipv4Addr::new(10, 88, 7, 254)).to_string(), "fd12:3456:789a:5804::3fe");
        assert_eq!(prefix.network("10.88.4.0/22".parse().unwrap()).to_string(), "fd12:3456:789a:5804::");
        assert_eq!(gateway6(Ipv4Addr::new(10, 88, 4, 2)).to_string(), "fe80::a58:402");
    }

    proptest! {
        /// Pools have at most 24 bits of their own (`rules`).
        #[test]
        fn two_addresses_of_a_pool_never_have_the_same_one(a in 0u32..1 << 24, b in 0u32..1 << 24) {
            let prefix: Prefix6 = "fd12:3456:789a::/48".parse().unwrap();
            let of = |n: u32| prefix.address(Ipv4Addr::from_bits(0x0a00_0000 | n));
            prop_assert_eq!(of(a) == of(b), a == b);
        }
    }
}
