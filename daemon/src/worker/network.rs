//! What a worker is attached to, as its owner says it. Pure.

use super::spec::{SpecError, shown};
use holdfast_proto::words::{Macvlan, NetworkName};

/// What a worker is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// An address of its own, and no other worker in reach.
    Bridge,
    /// A network that the owner made.
    Named(NetworkName),
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
    /// As [`Self::Bridge`], and a virtual machine in the worker has the address.
    Tap,
    /// A link of its own on a wire of the host's.
    Macvlan(Macvlan),
}

impl Network {
    /// Whether the helper gives it an address, to be given back.
    pub fn has_address(self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_) | Self::Tap | Self::Macvlan(_))
    }

    /// The word of the contract.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name.as_str(),
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
            Self::Tap => "tap",
            Self::Macvlan(link) => link.as_str(),
        }
    }
}

/// As the owner gave it.
pub(super) fn network(name: &str) -> Result<Network, SpecError> {
    match name {
        "bridge" => Ok(Network::Bridge),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        "tap" => Ok(Network::Tap),
        _ if name.starts_with("macvlan") => Ok(Network::Macvlan(name.parse()?)),
        _ => name.parse().map(Network::Named).map_err(|_| SpecError::Network(shown(name.as_bytes()))),
    }
}

/// An address on a wire of the host's, and the way out of there, both as the helper will judge them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lan {
    /// With prefix length; empty on every other network.
    pub address: String,
    /// Empty: none.
    pub gateway: String,
}

/// Most characters of either.
const LAN_CHARS_MAX: usize = 64;

/// There where it is needed, and only there.
pub(super) fn lan(address: &str, gateway: &str, network: Network) -> Result<Lan, SpecError> {
    match (network, address.is_empty(), gateway.is_empty()) {
        (Network::Macvlan(_), true, _) => Err(SpecError::NoLanAddress),
        (Network::Macvlan(_), false, _) if address.len() > LAN_CHARS_MAX || gateway.len() > LAN_CHARS_MAX => {
            Err(SpecError::NoLanAddress)
        }
        (Network::Macvlan(_), false, _) | (_, true, true) => {
            Ok(Lan { address: address.to_owned(), gateway: gateway.to_owned() })
        }
        (_, _, _) => Err(SpecError::LanAddress(network.name().to_owned())),
    }
}
