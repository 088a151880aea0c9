//! The ledger: which addresses and ports are given to whom. Pure; the kernel's tags are what it is rebuilt from.

mod lan;
mod place;

pub use place::PlaceError;

use crate::lan::LanLink;
use crate::rules::Owner;
use crate::subnet::Subnet;
use crate::words::{LinkName, Network, Port, Start, Tag, Uid};
use holdfast_proto::words::{Generation, WorkerId};
use place::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What one start of a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Which start of whose worker.
    pub start: Start,
    /// Which network of its owner.
    pub network: Network,
    /// What the rules know a named network by, the group of its links; 0 for [`Network::Bridge`], whose workers see nobody.
    pub mark: u32,
    /// Nothing outside of the network is in reach.
    pub internal: bool,
    /// Host end of its link.
    pub link: LinkName,
    /// Its own.
    pub address: Ipv4Addr,
    /// Its own of IPv6; absent where its owner has no prefix, or the host no IPv6.
    pub address6: Option<Ipv6Addr>,
    /// What it publishes.
    pub ports: Vec<Port>,
}

impl Attachment {
    /// What its link says it is.
    pub fn tag(&self) -> Tag {
        Tag { start: self.start, network: self.network, address: self.address, address6: self.address6 }
    }
}

/// Groups of links from here on are ours ("hf" in ASCII, then a number).
const MARKS: u32 = 0x6866_0001;

/// Everything that is given.
#[derive(Debug, Default)]
pub struct Ledger {
    attached: BTreeMap<Start, Attachment>,
    /// Given, or resting after it was given back.
    addresses: BTreeSet<Ipv4Addr>,
    /// Given. They rest by the IPv4 address that each follows from.
    addresses6: BTreeSet<Ipv6Addr>,
    /// Whether the host has IPv6 and forwards it.
    host6: bool,
    linked: BTreeSet<LinkName>,
    lan: BTreeMap<Start, LanLink>,
    networks: BTreeMap<(Uid, Network), Place>,
    /// Networks of the host that are not ours: routes and addresses.
    foreign: Vec<Subnet>,
}

impl Ledger {
    /// The attachment of this start.
    pub fn of(&self, start: Start) -> Option<&Attachment> {
        self.attached.get(&start)
    }

    /// All starts of one worker, oldest first.
    pub fn starts_of(&self, owner: Uid, worker: WorkerId) -> impl Iterator<Item = &Attachment> {
        let from = Start { owner, worker, generation: Generation(0) };
        let to = Start { owner, worker, generation: Generation(u64::MAX) };
        self.attached.range(from..=to).map(|(_, attachment)| attachment)
    }

    /// All attachments of one owner.
    pub fn of_owner(&self, owner: Uid) -> impl Iterator<Item = &Attachment> {
        let from = Start { owner, worker: WorkerId::from_random(0), generation: Generation(0) };
        let to = Start { owner, worker: WorkerId::from_random(u64::MAX), generation: Generation(u64::MAX) };
        self.attached.range(from..=to).map(|(_, attachment)| attachment)
    }

    /// Everything that is attached.
    pub fn all(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.values()
    }

    /// The attachment whose host end has this name.
    pub fn by_link(&self, link: LinkName) -> Option<&Attachment> {
        self.attached.values().find(|attachment| attachment.link == link)
    }

    /// Host ends that exist: of attachments whose launch was done, not of those under way.
    pub fn links(&self) -> impl Iterator<Item = LinkName> {
        self.linked.iter().copied()
    }

    /// Takes note that the link of this start exists. `false`: it was taken back meanwhile.
    pub fn link(&mut self, start: Start) -> bool {
        let link = self.attached.get(&start).map(|attachment| attachment.link);
        link.is_some_and(|link| self.linked.insert(link))
    }

    /// Who holds a port that cannot be published beside this one.
    pub fn holder(&self, port: &Port) -> Option<&Attachment> {
        self.attached.values().find(|attachment| attachment.ports.iter().any(|held| held.clashes(port)))
    }

    /// The address ranges that an owner's network has now, in the order in which it got them.
    pub fn subnets(&self, owner: Uid, network: Network) -> Vec<Subnet> {
        self.networks.get(&(owner, network)).map(Place::subnets).unwrap_or_default()
    }

    /// How many named networks of an owner hold addresses now.
    pub fn named_networks(&self, owner: Uid) -> usize {
        let named = |(uid, network): &&(Uid, Network)| *uid == owner && matches!(network, Network::Named(_));
        self.networks.keys().filter(named).count()
    }

    /// Whether the next worker of this network takes a range that it does not have yet.
    pub fn needs_range(&self, owner: Uid, network: Network) -> bool {
        self.networks.get(&(owner, network)).is_none_or(|place| place.free(&self.addresses).is_none())
    }

    /// Takes note of the host's own networks, which ours must not overlap.
    pub fn learn_foreign(&mut self, foreign: Vec<Subnet>) {
        self.foreign = foreign;
    }

    /// Takes note of whether the host has IPv6 and forwards it.
    pub fn learn_host6(&mut self, works: bool) {
        self.host6 = works;
    }

    /// Takes note that it does not after all. `false`: that was known.
    pub fn forget_host6(&mut self) -> bool {
        std::mem::take(&mut self.host6)
    }

    /// Whether the host has IPv6 and forwards it.
    pub fn host6(&self) -> bool {
        self.host6
    }

    /// The IPv6 address that goes with `address`, if there can be one. One that a worker has by an older prefix is not
    /// given twice.
    pub fn address6(&self, owner: &Owner, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let address6 = owner.pool6.filter(|_| self.host6)?.address(address);
        (!self.addresses6.contains(&address6)).then_some(address6)
    }

    /// The address and the mark that the next worker of this network gets. `wish`: the range that its owner wants it
    /// to begin with.
    pub fn place(&self, owner: &Owner, network: Network, wish: Option<Subnet>) -> Result<(Ipv4Addr, u32), PlaceError> {
        let place = self.networks.get(&(owner.uid, network));
        if let Some(place) = place
            && let Some(address) = place.free(&self.addresses)
        {
            return Ok((address, place.mark));
        }
        let range = self.range_for(owner, network, wish)?;
        let address = Place::of(range, 0).free(&self.addresses).ok_or(PlaceError::Full)?;
        Ok((address, place.map_or_else(|| self.free_mark(network), |place| place.mark)))
    }

    /// The next range of a network: always the same ones for the same owner and name, as far as nobody else has them.
    pub fn range_for(&self, owner: &Owner, network: Network, wish: Option<Subnet>) -> Result<Subnet, PlaceError> {
        let had = self.networks.get(&(owner.uid, network)).map_or(0, Place::len);
        let is_free = |candidate: &Subnet| {
            let mut used = self.networks.values().flat_map(Place::subnets).chain(self.foreign.iter().copied());
            !used.any(|used| used.overlaps(*candidate))
        };
        match wish.filter(|_| had == 0) {
            Some(wish) if is_free(&wish) => Ok(wish),
            Some(wish) => Err(PlaceError::Taken(wish)),
            None => place::candidates(owner, network, had).find(is_free).ok_or(PlaceError::PoolFull),
        }
    }

    /// The lowest number above [`MARKS`] that no named network has.
    fn free_mark(&self, network: Network) -> u32 {
        if !matches!(network, Network::Named(_)) {
            return 0;
        }
        let used: BTreeSet<u32> = self.networks.values().map(|place| place.mark).collect();
        (MARKS..).find(|mark| !used.contains(mark)).unwrap_or(u32::MAX)
    }

    /// Enters an attachment. `false`, and nothing changes, where its start, address or a port is given already.
    pub fn enter(&mut self, attachment: Attachment) -> bool {
        let taken = self.attached.contains_key(&attachment.start)
            || self.addresses.contains(&attachment.address)
            || attachment.address6.is_some_and(|address6| self.addresses6.contains(&address6))
            || attachment.ports.iter().any(|port| self.holder(port).is_some());
        if taken {
            return false;
        }
        let range = place::range_of(attachment.address);
        let place = self.networks.entry((attachment.start.owner, attachment.network));
        place.or_insert_with(|| Place::of(range, attachment.mark)).gave(attachment.address);
        self.addresses.insert(attachment.address);
        self.addresses6.extend(attachment.address6);
        self.attached.insert(attachment.start, attachment);
        true
    }

    /// Gives back what a start holds, but for its address, which rests until [`Ledger::rested`].
    pub fn strike(&mut self, start: Start) -> Option<Attachment> {
        let attachment = self.attached.remove(&start)?;
        self.linked.remove(&attachment.link);
        if let Some(address6) = attachment.address6 {
            self.addresses6.remove(&address6);
        }
        Some(attachment)
    }

    /// The address may be given to another from now on. Networks that hold nothing any more are forgotten: these are
    /// the marks of named ones among them.
    pub fn rested(&mut self, address: Ipv4Addr) -> Vec<u32> {
        self.addresses.remove(&address);
        let addresses = &self.addresses;
        let mut forgotten = Vec::new();
        self.networks.retain(|_, place| {
            let stays = place.holds_any(addresses);
            forgotten.extend((!stays && place.mark != 0).then_some(place.mark));
            stays
        });
        forgotten
    }

    /// Whether anybody is attached.
    pub fn is_idle(&self) -> bool {
        self.attached.is_empty()
    }
}

#[cfg(test)]
mod tests;
