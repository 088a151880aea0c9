//! The part of the ledger about workers on wires of the host's.

use super::Ledger;
use crate::lan::LanLink;
use crate::words::{LinkName, Start, Uid};
use std::net::Ipv4Addr;

impl Ledger {
    /// All of one owner.
    pub fn lan_of_owner(&self, owner: Uid) -> impl Iterator<Item = &LanLink> {
        self.lan.values().filter(move |link| link.start.owner == owner)
    }

    /// The one whose witness has this name.
    pub fn lan_by_witness(&self, witness: LinkName) -> Option<&LanLink> {
        self.lan.values().find(|link| link.witness == witness)
    }

    /// Who has this address on any wire: which wires are one, nobody here can know.
    pub fn lan_holder(&self, address: Ipv4Addr) -> Option<&LanLink> {
        self.lan.values().find(|link| link.address.address == address)
    }

    /// Enters one. `false`, and nothing changes, where its start or address is given already.
    pub fn enter_lan(&mut self, link: LanLink) -> bool {
        let free = !self.lan.contains_key(&link.start) && self.lan_holder(link.address.address).is_none();
        if free {
            self.lan.insert(link.start, link);
        }
        free
    }

    /// Takes note that the witness of this start exists. `false`: it was taken back meanwhile.
    pub fn link_lan(&mut self, start: Start) -> bool {
        let witness = self.lan.get(&start).map(|link| link.witness);
        witness.is_some_and(|witness| self.linked.insert(witness))
    }

    /// Gives back what a start holds, all of it at once: the host forwards nothing for it, so nothing of it lingers.
    pub fn strike_lan(&mut self, start: Start) -> Option<LanLink> {
        let link = self.lan.remove(&start)?;
        self.linked.remove(&link.witness);
        Some(link)
    }
}
