//! Addresses on a wire that the host shares with workers of network `macvlan`: chosen by their owner, since no pool of
//! ours reaches there. Pure.

use crate::subnet::Subnet;
use crate::words::{LinkName, Start};
use holdfast_proto::words::Macvlan;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Shortest and longest prefix of such an address.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
/// Where no host of a wire can be: "this network", loopback, link-local, multicast, reserved.
const NOBODYS: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// A worker's address with the length of its network's prefix, as `192.0.2.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanAddress {
    /// A host's: neither the network's own nor its broadcast address.
    pub address: Ipv4Addr,
    /// 8 to 30.
    pub prefix: u8,
}

/// Not an address for a worker, or not a gateway for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?}: {works}")]
pub struct LanError {
    what: &'static str,
    given: String,
    works: &'static str,
}

/// What one start of a worker of network `macvlan` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanLink {
    /// Which start of whose worker.
    pub start: Start,
    /// Which link of the host it shares.
    pub on: Macvlan,
    /// The host's end of a pair that carries nothing and lives as long as the worker's namespace: the worker's own link
    /// cannot be seen from here.
    pub witness: LinkName,
    /// Its own.
    pub address: LanAddress,
    /// Its way out, if it has one.
    pub gateway: Option<Ipv4Addr>,
}

impl LanAddress {
    /// The address in its network through which others are reached; empty: none.
    pub fn gateway(self, text: &str) -> Result<Option<Ipv4Addr>, LanError> {
        if text.is_empty() {
            return Ok(None);
        }
        let network = Subnet::around(self.address, self.prefix);
        let gateway = text.parse().ok().filter(|gateway| {
            network.contains(*gateway) && *gateway != self.address && is_a_host(*gateway, self.prefix)
        });
        gateway.map(Some).ok_or_else(|| bad("gateway", text, "give another host's address in the worker's own network"))
    }
}

impl FromStr for LanAddress {
    type Err = LanError;
    fn from_str(text: &str) -> Result<Self, LanError> {
        let works = "give a host's address with its prefix length, 8 to 30 (as 192.0.2.10/24)";
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let digits = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with('0');
            let prefix = prefix.parse().ok().filter(|prefix| digits && PREFIXES.contains(prefix))?;
            let address = address.parse().ok().filter(|address| is_a_host(*address, prefix))?;
            Some(Self { address, prefix })
        });
        parsed.ok_or_else(|| bad("address", text, works))
    }
}

fn is_a_host(address: Ipv4Addr, prefix: u8) -> bool {
    let network = Subnet::around(address, prefix);
    let broadcast = network.base().to_bits() | (u32::MAX >> prefix);
    let nobodys = NOBODYS.iter().any(|(base, prefix)| Subnet::around(*base, *prefix).contains(address));
    !nobodys && address != network.base() && address.to_bits() != broadcast
}

fn bad(what: &'static str, given: &str, works: &'static str) -> LanError {
    LanError { what, given: given.chars().take(64).collect(), works }
}

impl fmt::Display for LanAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for LanLink {
    /// What the witness says it is, as its ifalias.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holdfast {} on={} lan={}", self.start, self.on, self.address)
    }
}

impl LanLink {
    /// Reads back what a link of this name says it is; which way out its worker has nobody needs to know again.
    pub fn read(witness: LinkName, alias: &str) -> Option<Self> {
        let value = |key: &str| alias.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let start = alias.strip_prefix("holdfast ")?.parse().ok()?;
        let (on, address) = (value("on")?.parse().ok()?, value("lan")?.parse().ok()?);
        Some(Self { start, on, witness, address, gateway: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Uid;
    use holdfast_proto::words::{Generation, WorkerId};

    #[test]
    fn addresses_are_those_of_a_host_on_a_wire() {
        for good in ["192.0.2.10/24", "10.0.0.1/8", "172.16.5.6/30", "203.0.113.254/24", "100.64.0.9/10"] {
            assert_eq!(good.parse::<LanAddress>().map(|a| a.to_string()), Ok(good.to_owned()));
        }
        let corpus = [
            "",
            "0.0.0.0/0",
            "0.0.0.0/24",
            "0.1.2.3/24",
            "127.0.0.1/8",
            "127.0.0.2/24",
            "169.254.1.1/16",
            "169.254.169.254/24",
            "224.0.0.1/24",
            "239.1.1.1/24",
            "240.0.0.1/24",
            "255.255.255.255/24",
            "192.0.2.0/24",
            "192.0.2.255/24",
            "192.0.2.4/30",
            "192.0.2.7/30",
            "192.0.2.1/31",
            "192.0.2.1/32",
            "192.0.2.1/7",
            "192.0.2.1/0",
            "192.0.2.1",
            "192.0.2.1/",
            "192.0.2.1/024",
            "192.0.2.1/+24",
            "192.0.2.1/-1",
            "192.0.2.1/33",
            "192.0.2.1/24/24",
            "192.0.2.256/24",
            "192.0.2/24",
            "0xc0000201/24",
            "192.0.02.01/24",
            "::1/64",
            "fe80::1/64",
            "fd00::1/64",
            "::ffff:192.0.2.1/120",
            "a/24",
            " 192.0.2.1/24",
            "192.0.2.1/24 ",
        ];
        for text in corpus {
            assert!(text.parse::<LanAddress>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_gateway_is_another_host_of_the_network() {
        let address: LanAddress = "192.0.2.10/24".parse().unwrap();
        assert_eq!(address.gateway(""), Ok(None));
        assert_eq!(address.gateway("192.0.2.1"), Ok(Some(Ipv4Addr::new(192, 0, 2, 1))));
        for text in ["192.0.2.10", "192.0.2.0", "192.0.2.255", "192.0.3.1", "0.0.0.0", "fe80::1", "gw", "192.0.2.1/24"]
        {
            assert!(address.gateway(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_witness_is_read_back_and_taken_for_nothing_else() {
        let start = Start { owner: Uid(u32::MAX), worker: WorkerId::from_random(7), generation: Generation(u64::MAX) };
        let (on, witness) = (Macvlan::on("abcdefghijklmno").unwrap(), LinkName::from_random(9));
        let link = LanLink { start, on, witness, address: "203.100.113.254/24".parse().unwrap(), gateway: None };
        assert_eq!(LanLink::read(witness, &link.to_string()), Some(link.clone()));
        assert!(link.to_string().len() < 255 && link.to_string().parse::<crate::words::Tag>().is_err());
        for alias in
            ["", "holdfast", "holdfast owner=1 worker=00ff00ff00ff00ff generation=1 network=bridge address=10.88.0.2"]
        {
            assert_eq!(LanLink::read(witness, alias), None);
        }
    }
}
