//! What a worker is attached to, as its owner says it. Pure.

use super::spec::{SpecError, shown};
use holdfast_proto::words::NetworkName;

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
}

impl Network {
    /// Whether the helper gives it an address, to be given back.
    pub fn has_address(self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_))
    }

    /// The word of the contract.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name.as_str(),
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// As the owner gave it.
pub(super) fn network(name: &str) -> Result<Network, SpecError> {
    match name {
        "bridge" => Ok(Network::Bridge),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => name.parse().map(Network::Named).map_err(|_| SpecError::Network(shown(name.as_bytes()))),
    }
}
