//! Judges a launch onto a wire of the host's: which one, how many, and that the address is nobody else's.

use super::ports::held_by;
use super::{LaunchRequest, Permit, Refusal};
use crate::lan::{LanAddress, LanLink};
use crate::ledger::Ledger;
use crate::rules::Owner;
use crate::words::LinkName;
use holdfast_proto::words::Macvlan;
use std::net::Ipv4Addr;

/// Why not on a wire of the host's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanRefusal {
    /// The link is not among those that the owner may share.
    #[error("rule macvlan_parents of owner {owner}: {asked:?} is not in {granted:?}")]
    Parent {
        /// Whose rule.
        owner: String,
        /// Asked for.
        asked: String,
        /// What the rule lists.
        granted: Vec<String>,
    },
    /// A worker of a wire needs to be told its address.
    #[error("network {0} gives no addresses: none was asked for")]
    NoAddress(Macvlan),
    /// Two of one address on a wire cut each other off.
    #[error("address {address} is in use by {holder}")]
    Taken {
        /// Which.
        address: Ipv4Addr,
        /// By whom, as far as the caller may know.
        holder: String,
    },
}

/// The address that a worker is to have there, and its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedLan {
    /// Its own.
    pub address: LanAddress,
    /// Absent: none but its own network is in reach.
    pub gateway: Option<Ipv4Addr>,
}

/// Whether an owner may have a link on this parent.
pub fn allow_parent(on: Macvlan, owner: &Owner) -> Result<(), LanRefusal> {
    if owner.macvlan_parents.contains(&on) {
        return Ok(());
    }
    let granted = owner.macvlan_parents.iter().map(|parent| parent.parent().to_owned()).collect();
    Err(LanRefusal::Parent { owner: owner.name.to_string(), asked: on.parent().to_owned(), granted })
}

pub(super) fn judge(request: &LaunchRequest, on: Macvlan, owner: &Owner, ledger: &Ledger) -> Result<Permit, Refusal> {
    allow_parent(on, owner)?;
    if !request.ports.is_empty() {
        return Err(Refusal::PortsWithoutNetwork { network: request.network, asked: request.ports.len() });
    }
    let AskedLan { address, gateway } = request.lan.ok_or(LanRefusal::NoAddress(on))?;
    let (used, max) = (ledger.lan_of_owner(owner.uid).count(), owner.macvlan_max);
    if used >= max as usize {
        return Err(Refusal::Quota { rule: "macvlan_max", owner: owner.name.to_string(), used, asked: 1, max });
    }
    if let Some(holder) = ledger.lan_holder(address.address) {
        let holder = held_by(holder.start, owner.uid);
        return Err(LanRefusal::Taken { address: address.address, holder }.into());
    }
    let (start, witness) = (request.start, LinkName::from_random(request.nonce));
    let lan = LanLink { start, on, witness, address, gateway };
    Ok(Permit { start, network: request.network, attachment: None, lan: Some(lan), chosen: Vec::new() })
}
