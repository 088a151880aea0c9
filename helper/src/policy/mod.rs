//! Judges one launch by the rules and the ledger. Pure: no clock, no kernel, no file.

mod lan;
mod ports;

pub use lan::{AskedLan, LanRefusal};
use ports::choose_ports;

use crate::lan::LanLink;
use crate::ledger::{Attachment, Ledger, PlaceError};
use crate::rules::{NETWORK_PREFIX, Owner, Rules};
use crate::subnet::Subnet;
use crate::words::{LinkName, Network, Port, Proto, Start, Uid};
use holdfast_proto::words::{Generation, WorkerId};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Most ports of one worker.
pub const PORTS_PER_WORKER_MAX: usize = 256;

/// What an owner's daemon asks for, in words that cannot be wrong. Who asks, the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// Who asks, and for which start.
    pub start: Start,
    /// Which network.
    pub network: Network,
    /// For a named one: the range that its owner wants it to begin with.
    pub subnet: Option<Subnet>,
    /// For a named one: nothing outside of it is in reach.
    pub internal: bool,
    /// For network `macvlan`: its address there.
    pub lan: Option<AskedLan>,
    /// What to publish.
    pub ports: Vec<AskedPort>,
    /// Random bits for the link's name.
    pub nonce: u64,
    /// Host ports not to choose: found in use by programs that are not ours.
    pub avoid: BTreeSet<(Proto, u16)>,
}

/// A port as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedPort {
    /// Transport.
    pub proto: Proto,
    /// Host address; 0.0.0.0: all, of both families.
    pub address: IpAddr,
    /// Absent: one that is free.
    pub host: Option<u16>,
    /// In the worker, not 0.
    pub worker: u16,
}

/// Proof that the rules allow one launch, with what it was given. Only [`judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    start: Start,
    network: Network,
    attachment: Option<Attachment>,
    lan: Option<LanLink>,
    chosen: Vec<usize>,
}

impl Permit {
    /// Which start it allows.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Which network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// What it was given on a wire of the host's.
    pub fn lan(&self) -> Option<&LanLink> {
        self.lan.as_ref()
    }

    /// What it was given of its owner's pool; absent for networks `none`, `host` and `macvlan`.
    pub fn attachment(&self) -> Option<&Attachment> {
        self.attachment.as_ref()
    }

    /// Whether any of its ports that cannot be published beside `port` was chosen here, so that another would do.
    pub fn chose(&self, port: &Port) -> bool {
        let ports = self.attachment.as_ref().map_or(&[][..], |a| &a.ports);
        self.chosen.iter().any(|index| ports.get(*index) == Some(port))
    }
}

/// Why not. Each names the rule, what was given, and (as far as it is known) what would work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an owner. Says nothing about what there is.
    #[error("not yours")]
    NotYours,
    /// This start has its launch already, or a later one has.
    #[error("worker {worker}, generation {asked}: generation {attached} is attached already")]
    AlreadyAttached {
        /// Which worker.
        worker: WorkerId,
        /// The one asked for.
        asked: Generation,
        /// The one attached.
        attached: Generation,
    },
    /// The network is not among the owner's.
    #[error("rule networks of owner {owner}: {asked:?} is not in {granted:?}")]
    Network {
        /// Whose rule.
        owner: String,
        /// Asked for.
        asked: String,
        /// What the rule lists.
        granted: Vec<String>,
    },
    /// See [`LanRefusal`].
    #[error(transparent)]
    Lan(#[from] LanRefusal),
    /// Ports without a network to publish from.
    #[error("network \"{network}\" publishes no ports: {asked} were asked for")]
    PortsWithoutNetwork {
        /// Which.
        network: Network,
        /// How many.
        asked: usize,
    },
    /// Too many ports of one worker.
    #[error("{0} ports were asked for: a worker may publish {PORTS_PER_WORKER_MAX}")]
    ManyPorts(usize),
    /// Outside the grant.
    #[error("rule ports of owner {owner}: port {asked} is not in {granted}")]
    PortGrant {
        /// Whose rule.
        owner: String,
        /// Asked for.
        asked: u16,
        /// What the rule lists.
        granted: String,
    },
    /// Not an address that may be published on.
    #[error("rule bind of owner {owner}: address {asked} is not in {granted:?}")]
    Bind {
        /// Whose rule.
        owner: String,
        /// Asked for.
        asked: IpAddr,
        /// What the rule lists.
        granted: Vec<IpAddr>,
    },
    /// Asked for twice in one request.
    #[error("port {0} is asked for twice")]
    PortTwice(Port),
    /// Published by another worker.
    #[error("port {host}/{proto} is in use by {holder}")]
    PortTaken {
        /// Which.
        host: u16,
        /// Transport.
        proto: Proto,
        /// By whom, as far as the caller may know.
        holder: String,
    },
    /// None left to choose.
    #[error("rule ports of owner {owner}: no {proto} port of {granted} is free")]
    NoPortFree {
        /// Whose rule.
        owner: String,
        /// Transport.
        proto: Proto,
        /// What the rule lists.
        granted: String,
    },
    /// A quota is used up.
    #[error("rule {rule} of owner {owner}: {used} are attached and {asked} asked for, at most {max} may be")]
    Quota {
        /// `workers_max` or `ports_max`.
        rule: &'static str,
        /// Whose rule.
        owner: String,
        /// Now.
        used: usize,
        /// More.
        asked: usize,
        /// The rule's value.
        max: u32,
    },
    /// The pool has no room.
    #[error("rule pool of owner {owner}: {pool} has no free /{NETWORK_PREFIX} that this host does not route elsewhere")]
    PoolFull {
        /// Whose rule.
        owner: String,
        /// The rule's value.
        pool: String,
    },
    /// Not a range of the pool.
    #[error("rule pool of owner {owner}: {asked} is no /{NETWORK_PREFIX} of {pool}")]
    NotInPool {
        /// Whose rule.
        owner: String,
        /// Asked for.
        asked: String,
        /// The rule's value.
        pool: String,
    },
    /// Somebody has the range.
    #[error("network {network} of owner {owner}: {subnet} is in use by another network, or by this host")]
    SubnetTaken {
        /// Whose.
        owner: String,
        /// Which.
        network: Network,
        /// Asked for.
        subnet: String,
    },
    /// A port on an IPv6 address for a worker that has none.
    #[error("port on {address}: workers of owner {owner} have no IPv6")]
    NoIpv6 {
        /// Whose.
        owner: String,
        /// Asked for.
        address: IpAddr,
    },
    /// A port where nothing outside is in reach.
    #[error("network {0} is internal: it publishes no ports")]
    PortsOnInternal(Network),
}

/// Decides one launch. What it permits is not given yet: the caller enters it into the same ledger at once.
pub fn judge(request: &LaunchRequest, rules: &Rules, ledger: &Ledger) -> Result<Permit, Refusal> {
    let start = request.start;
    let owner = rules.owner(start.owner).ok_or(Refusal::NotYours)?;
    expects(start, ledger)?;
    let network = request.network;
    if let Network::Macvlan(on) = network {
        return lan::judge(request, on, owner, ledger);
    }
    allow_network(network, owner)?;
    if !network.has_address() {
        return match request.ports.len() {
            0 => Ok(Permit { start, network, attachment: None, lan: None, chosen: Vec::new() }),
            asked => Err(Refusal::PortsWithoutNetwork { network, asked }),
        };
    }
    if request.internal && !request.ports.is_empty() {
        return Err(Refusal::PortsOnInternal(request.network));
    }
    allow_quotas(request, owner, ledger)?;
    let (ports, chosen) = choose_ports(request, owner, ledger)?;
    let (address, mark) = choose_address(request, owner, ledger)?;
    let address6 = ledger.address6(owner, address).filter(|_| network != Network::Tap);
    if let Some(port) = ports.iter().find(|port| port.address.is_ipv6() && address6.is_none()) {
        return Err(Refusal::NoIpv6 { owner: owner.name.to_string(), address: port.address });
    }
    let (internal, link) = (request.internal, LinkName::from_random(request.nonce));
    let attachment = Attachment { start, network, mark, internal, link, address, address6, ports };
    Ok(Permit { start, network, attachment: Some(attachment), lan: None, chosen })
}

/// Decides whether an owner may have a named network, and says which range it would begin with.
pub fn judge_network(
    owner: Uid,
    network: Network,
    wish: Option<Subnet>,
    (rules, ledger): (&Rules, &Ledger),
) -> Result<Subnet, Refusal> {
    let owner = rules.owner(owner).ok_or(Refusal::NotYours)?;
    if let Network::Macvlan(on) = network {
        lan::allow_parent(on, owner)?;
        return Err(LanRefusal::NoAddress(on).into());
    }
    allow_network(network, owner)?;
    allow_range(network, wish, owner, ledger)?;
    match ledger.subnets(owner.uid, network).first() {
        Some(subnet) => Ok(*subnet),
        None => ledger.range_for(owner, network, wish).map_err(|error| no_place(error, network, owner)),
    }
}

/// A start is launched once, and none after a later one.
fn expects(start: Start, ledger: &Ledger) -> Result<(), Refusal> {
    let pooled = ledger.starts_of(start.owner, start.worker).map(|a| a.start);
    let shared = ledger.lan_of_owner(start.owner).map(|link| link.start).filter(|s| s.worker == start.worker);
    let later = pooled.chain(shared).map(|s| s.generation).find(|g| *g >= start.generation);
    match later {
        Some(attached) => Err(Refusal::AlreadyAttached { worker: start.worker, asked: start.generation, attached }),
        None => Ok(()),
    }
}

fn allow_network(network: Network, owner: &Owner) -> Result<(), Refusal> {
    let right = if matches!(network, Network::Named(_)) { Network::Bridge } else { network };
    if owner.networks.contains(&right) {
        return Ok(());
    }
    let granted = owner.networks.iter().map(ToString::to_string).collect();
    Err(Refusal::Network { owner: owner.name.to_string(), asked: right.to_string(), granted })
}

fn allow_quotas(request: &LaunchRequest, owner: &Owner, ledger: &Ledger) -> Result<(), Refusal> {
    let asked = request.ports.len();
    if asked > PORTS_PER_WORKER_MAX {
        return Err(Refusal::ManyPorts(asked));
    }
    let (workers, ports) = ledger.of_owner(owner.uid).fold((0, 0), |(w, p), a| (w + 1, p + a.ports.len()));
    for (rule, used, asked, max) in
        [("workers_max", workers, 1, owner.workers_max), ("ports_max", ports, asked, owner.ports_max)]
    {
        if used + asked > max as usize {
            return Err(Refusal::Quota { rule, owner: owner.name.to_string(), used, asked, max });
        }
    }
    Ok(())
}

fn choose_address(request: &LaunchRequest, owner: &Owner, ledger: &Ledger) -> Result<(Ipv4Addr, u32), Refusal> {
    let network = request.network;
    allow_range(network, request.subnet, owner, ledger)?;
    ledger.place(owner, network, request.subnet).map_err(|error| no_place(error, network, owner))
}

/// A named network more than the rules allow, or a range that is not the owner's to have.
fn allow_range(network: Network, wish: Option<Subnet>, owner: &Owner, ledger: &Ledger) -> Result<(), Refusal> {
    if let Some(asked) = wish.filter(|wish| wish.prefix() != NETWORK_PREFIX || !owner.pool.covers(*wish)) {
        let (asked, pool) = (asked.to_string(), owner.pool.to_string());
        return Err(Refusal::NotInPool { owner: owner.name.to_string(), asked, pool });
    }
    let used = ledger.named_networks(owner.uid);
    let is_new = matches!(network, Network::Named(_)) && ledger.subnets(owner.uid, network).is_empty();
    if is_new && used >= owner.networks_max as usize {
        let (rule, max) = ("networks_max", owner.networks_max);
        return Err(Refusal::Quota { rule, owner: owner.name.to_string(), used, asked: 1, max });
    }
    Ok(())
}

fn no_place(error: PlaceError, network: Network, owner: &Owner) -> Refusal {
    let name = owner.name.to_string();
    match error {
        PlaceError::Taken(subnet) => Refusal::SubnetTaken { owner: name, network, subnet: subnet.to_string() },
        PlaceError::PoolFull | PlaceError::Full => Refusal::PoolFull { owner: name, pool: owner.pool.to_string() },
    }
}

#[cfg(test)]
mod tests;
