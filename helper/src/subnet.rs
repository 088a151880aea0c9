//! IPv4 subnets: parsing, containment, the addresses in them. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network, its host bits zero. IPv6 gets a type of its own, since nothing of this arithmetic is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// Not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad subnet {0:?}: write an address with zero host bits and a prefix length, as 10.88.0.0/16")]
pub struct SubnetError(String);

impl Subnet {
    /// The network of `prefix` bits that `address` lies in; `prefix` above 32 counts as 32.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: address.to_bits() & mask(prefix), prefix }
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// First address of it.
    pub fn base(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The host's own address in it: the first one that a host may have.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base
    }

    /// Whether all of `other` lies in it.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base())
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The networks of `prefix` bits in it, in order; none where it is smaller than that.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Self> {
        let count = if prefix < self.prefix || prefix > 32 { 0 } else { 1u64 << (prefix - self.prefix) };
        let base = u64::from(self.base);
        (0..count).map(move |n| Self { base: (base + (n << (32 - prefix))) as u32, prefix })
    }

    /// How many addresses workers can have: all but network, gateway and broadcast.
    pub fn workers_max(self) -> u32 {
        if self.prefix >= 30 { u32::from(self.prefix == 30) } else { (1u32 << (32 - self.prefix)) - 3 }
    }

    /// The address of the worker's place `n`, counted from 0 and wrapping round.
    pub fn worker_address(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 2 + n % self.workers_max().max(1))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv4Addr = address.parse().ok()?;
            let digits = (1..=2).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
            let prefix: u8 = prefix.parse().ok().filter(|p| digits && *p <= 32)?;
            let subnet = Self::around(address, prefix);
            (subnet.base() == address).then_some(subnet)
        });
        parsed.ok_or_else(|| SubnetError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn only_whole_networks_parse() {
        for good in ["10.88.0.0/16", "0.0.0.0/0", "1.2.3.4/32"] {
            assert_eq!(subnet(good).to_string(), good);
        }
        for bad in [
            "",
            "10.88.0.0",
            "10.88.0.1/16",
            "10.88.0.0/33",
            "10.88.0.0/-1",
            "10.88.0.0/+8",
            "::/0",
            "10.88.0.0/016",
            "a/b",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_quarter_of_kilo_addresses_fit_in_a_22() {
        let net = subnet("10.88.4.0/22");
        assert_eq!(net.gateway(), Ipv4Addr::new(10, 88, 4, 1));
        assert_eq!(net.workers_max(), 1021);
        assert_eq!(net.worker_address(0), Ipv4Addr::new(10, 88, 4, 2));
        assert_eq!(net.worker_address(1020), Ipv4Addr::new(10, 88, 7, 254));
        assert_eq!(net.worker_address(1021), net.worker_address(0));
        assert_eq!(subnet("10.88.0.0/16").split(22).count(), 64);
        assert_eq!(subnet("10.88.0.0/24").split(22).count(), 0);
    }

    proptest! {
        #[test]
        fn overlap_is_what_shared_addresses_say(a: u32, b: u32, p in 16u8..=32, q in 16u8..=32) {
            let (x, y) = (Subnet::around(Ipv4Addr::from_bits(a), p), Subnet::around(Ipv4Addr::from_bits(a ^ (b >> 14)), q));
            let shares = x.contains(y.base()) || y.contains(x.base());
            prop_assert_eq!(x.overlaps(y), shares);
            prop_assert_eq!(x.overlaps(y), y.overlaps(x));
        }

        #[test]
        fn the_parts_of_a_split_are_disjoint_and_inside(a: u32, p in 8u8..=22) {
            let whole = Subnet::around(Ipv4Addr::from_bits(a), p);
            let mut before: Option<Subnet> = None;
            for part in whole.split(22).take(300) {
                prop_assert!(whole.covers(part) && before.is_none_or(|b| !b.overlaps(part)));
                before = Some(part);
            }
        }
    }
}
