//! The ledger: which addresses and ports are given to whom. Pure; the kernel's tags are what it is rebuilt from.

use crate::rules::{NETWORK_PREFIX, Owner};
use crate::subnet::Subnet;
use crate::words::{LinkName, Network, Port, Start, Uid};
use holdfast_proto::words::{Generation, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What one start of a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Which start of whose worker.
    pub start: Start,
    /// Host end of its link.
    pub link: LinkName,
    /// The bridge that it is on.
    pub bridge: LinkName,
    /// Its network's addresses.
    pub subnet: Subnet,
    /// Its own.
    pub address: Ipv4Addr,
    /// What it publishes.
    pub ports: Vec<Port>,
}

/// Everything that is given.
#[derive(Debug, Default)]
pub struct Ledger {
    attached: BTreeMap<Start, Attachment>,
    addresses: BTreeSet<Ipv4Addr>,
    linked: BTreeSet<LinkName>,
    networks: BTreeMap<(Uid, Network), Place>,
    /// Networks of the host that are not ours: routes and addresses.
    foreign: Vec<Subnet>,
}

/// One network of an owner.
#[derive(Debug, Clone, Copy)]
struct Place {
    subnet: Subnet,
    /// Where the search for a free address goes on, so that one given back rests for as long as it can.
    next: u32,
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

    /// The addresses of an owner's network, where it has some.
    pub fn subnet(&self, owner: Uid, network: Network) -> Option<Subnet> {
        self.networks.get(&(owner, network)).map(|place| place.subnet)
    }

    /// Whether anybody is attached to this network.
    pub fn is_idle(&self, owner: Uid, network: Network) -> bool {
        self.subnet(owner, network)
            .is_none_or(|subnet| self.addresses.range(subnet.base()..).next().is_none_or(|a| !subnet.contains(*a)))
    }

    /// Takes note of the host's own networks, which ours must not overlap.
    pub fn learn_foreign(&mut self, foreign: Vec<Subnet>) {
        self.foreign = foreign;
    }

    /// The addresses that an owner's network has or would get: the first /22 of the pool that nobody uses.
    pub fn subnet_for(&self, owner: &Owner, network: Network) -> Option<Subnet> {
        if let Some(subnet) = self.subnet(owner.uid, network) {
            return Some(subnet);
        }
        let ours = || self.networks.values().map(|place| &place.subnet);
        owner
            .pool
            .split(NETWORK_PREFIX)
            .find(|candidate| !ours().chain(&self.foreign).any(|used| used.overlaps(*candidate)))
    }

    /// A free address of `subnet`, the one that rested longest; none where all are given.
    pub fn free_address(&self, owner: Uid, network: Network, subnet: Subnet) -> Option<Ipv4Addr> {
        let next = self.networks.get(&(owner, network)).map_or(0, |place| place.next);
        (0..subnet.workers_max())
            .map(|n| subnet.worker_address(next.wrapping_add(n)))
            .find(|a| !self.addresses.contains(a))
    }

    /// Enters an attachment. `false`, and nothing changes, where its start, address or a port is given already.
    pub fn enter(&mut self, network: Network, attachment: Attachment) -> bool {
        let taken = self.attached.contains_key(&attachment.start)
            || self.addresses.contains(&attachment.address)
            || attachment.ports.iter().any(|port| self.holder(port).is_some());
        if taken {
            return false;
        }
        let place = self.enter_network(attachment.start.owner, network, attachment.subnet);
        place.next =
            attachment.address.to_bits().wrapping_sub(place.subnet.worker_address(0).to_bits()).wrapping_add(1);
        self.addresses.insert(attachment.address);
        self.attached.insert(attachment.start, attachment);
        true
    }

    /// Enters a network that exists (its bridge does).
    pub fn keep_network(&mut self, owner: Uid, network: Network, subnet: Subnet) {
        self.enter_network(owner, network, subnet);
    }

    fn enter_network(&mut self, owner: Uid, network: Network, subnet: Subnet) -> &mut Place {
        self.networks.entry((owner, network)).or_insert(Place { subnet, next: 0 })
    }

    /// Gives back what a start holds. The address may be given to another from now on.
    pub fn strike(&mut self, start: Start) -> Option<Attachment> {
        let attachment = self.attached.remove(&start)?;
        self.addresses.remove(&attachment.address);
        self.linked.remove(&attachment.link);
        Some(attachment)
    }

    /// Forgets a network whose bridge is gone; it stays where somebody is attached.
    pub fn strike_network(&mut self, owner: Uid, network: Network) {
        if self.is_idle(owner, network) {
            self.networks.remove(&(owner, network));
        }
    }

    /// Networks that nobody is attached to.
    pub fn idle_networks(&self) -> Vec<(Uid, Network, Subnet)> {
        let idle = self.networks.iter().filter(|((owner, network), _)| self.is_idle(*owner, *network));
        idle.map(|((owner, network), place)| (*owner, *network, place.subnet)).collect()
    }
}

#[cfg(test)]
mod tests;
