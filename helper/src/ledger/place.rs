//! Where a network's addresses lie: ranges of its owner's pool, one after the other as they are needed.

use crate::rules::{NETWORK_PREFIX, Owner};
use crate::subnet::Subnet;
use crate::words::Network;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Why a network gets no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No range of the pool is free.
    #[error("no range is free")]
    PoolFull,
    /// The range that was asked for is another network's, or the host routes it elsewhere.
    #[error("range {0} is taken")]
    Taken(Subnet),
    /// A range without a free address, although it is new.
    #[error("all addresses are given")]
    Full,
}

/// One network's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// See [`super::Attachment::mark`].
    pub mark: u32,
    /// Each with the place where the search for a free address goes on, so that one given back rests for as long as
    /// it can.
    ranges: Vec<(Subnet, u32)>,
}

impl Place {
    /// A network with its first range.
    pub fn of(range: Subnet, mark: u32) -> Self {
        Self { mark, ranges: vec![(range, 0)] }
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Its ranges.
    pub fn subnets(&self) -> Vec<Subnet> {
        self.ranges.iter().map(|(subnet, _)| *subnet).collect()
    }

    /// A free address, the one of its range that rested longest.
    pub fn free(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.ranges.iter().find_map(|(subnet, next)| {
            let addresses = (0..subnet.workers_max()).map(|n| subnet.worker_address(next.wrapping_add(n)));
            addresses.into_iter().find(|address| !taken.contains(address))
        })
    }

    /// Takes note that `address` was given.
    pub fn gave(&mut self, address: Ipv4Addr) {
        let range = range_of(address);
        let place = self.ranges.iter().position(|(subnet, _)| *subnet == range).unwrap_or_else(|| {
            self.ranges.push((range, 0));
            self.ranges.len() - 1
        });
        if let Some((subnet, next)) = self.ranges.get_mut(place) {
            *next = address.to_bits().wrapping_sub(subnet.worker_address(0).to_bits()).wrapping_add(1);
        }
    }

    /// Whether any of its addresses is given or rests.
    pub fn holds_any(&self, taken: &BTreeSet<Ipv4Addr>) -> bool {
        let any = |subnet: &Subnet| taken.range(subnet.base()..).next().is_some_and(|a| subnet.contains(*a));
        self.ranges.iter().any(|(subnet, _)| any(subnet))
    }
}

/// The range that an address of a worker lies in.
pub fn range_of(address: Ipv4Addr) -> Subnet {
    Subnet::around(address, NETWORK_PREFIX)
}

/// Ranges of the owner's pool in the order in which its network tries them for its range number `number`.
pub fn candidates(owner: &Owner, network: Network, number: usize) -> impl Iterator<Item = Subnet> {
    let (pool, count) = (owner.pool, 1u64 << (NETWORK_PREFIX.saturating_sub(owner.pool.prefix())));
    // The default network of who installed first begins at the pool's first range, as people expect of a pool.
    let first = match network {
        Network::Named(_) => hash(&format!("{} {network} {number}", owner.uid)) % count,
        _ => 0,
    };
    let nth = move |n: u64| pool.split(NETWORK_PREFIX).nth(((first + n) % count) as usize);
    (0..count).filter_map(nth)
}

/// FNV-1a: stable over compilers and releases. Who finds a collision gets the next range.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
