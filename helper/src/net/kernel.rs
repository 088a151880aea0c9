//! What is done to the kernel, step by step. Decides nothing: what to make comes as values.

use super::blockers::Blocker;
use super::links::{self, BridgePlan, PairPlan};
use super::nft::{self, Kind};
use super::ruleset::{BRIDGES, PUBLISH, PUBLISH_AT, WORKERS};
use super::wire::{Messages, Wire, WireError};
use super::{elements, sockets, tables};
use crate::ledger::Attachment;
use crate::subnet::Subnet;
use crate::words::{LinkName, Network, Port, Start, Tag, Uid};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const NETLINK_SOCK_DIAG: i32 = 4;
/// The host's firewall is read again after this long: it changes seldom, and a launch should not wait for it.
const BLOCKERS_AGE_MAX: Duration = Duration::from_secs(2);

/// Why a change of the network was not made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused, or did not answer.
    #[error("{step}: {source}")]
    Kernel {
        /// Which step.
        step: &'static str,
        /// Its answer.
        source: WireError,
    },
    /// A link of this name is there, and not tagged as ours.
    #[error("link {0} exists and is not tagged as ours: remove or rename it")]
    NotOurs(LinkName),
    /// A program of the host listens there.
    #[error("port {} is in use by a program of this host", .0.host)]
    PortInUse(Port),
    /// A firewall of the host is in the way.
    #[error("{}", .0.what)]
    Blocked(Blocker),
    /// The queue is full.
    #[error("the network thread has too much to do")]
    Busy,
    /// No answer in time.
    #[error("the network thread did not answer in time")]
    Deadline,
    /// The thread has ended.
    #[error("the network thread has ended")]
    Gone,
}

fn at(step: &'static str) -> impl FnOnce(WireError) -> NetError {
    move |source| NetError::Kernel { step, source }
}

/// The sockets, and what was learned by them.
#[derive(Debug)]
pub struct Kernel {
    route: Wire,
    filter: Wire,
    diag: Wire,
    inet6: bool,
    /// Our bridges that are up, by name.
    bridges: BTreeMap<LinkName, u32>,
    /// What was found last, and when.
    blockers: Option<(Instant, Vec<Blocker>)>,
}

/// What the kernel holds of ours, after what was half done has been undone.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Networks that have a bridge.
    pub networks: Vec<(Uid, Network, Subnet)>,
    /// Workers that have a link and rules.
    pub attachments: Vec<(Network, Attachment)>,
}

impl Kernel {
    /// Opens the sockets. Needs CAP_NET_ADMIN for everything that comes after.
    pub fn open() -> Result<Self, NetError> {
        let open = |protocol, step| Wire::open(protocol).map_err(at(step));
        let mut route = open(libc::NETLINK_ROUTE, "open rtnetlink")?;
        let links = links::census(&mut route).map_err(at("list links"))?;
        Ok(Self {
            route,
            filter: open(libc::NETLINK_NETFILTER, "open nfnetlink")?,
            diag: open(NETLINK_SOCK_DIAG, "open sock_diag")?,
            inet6: links.iter().any(|link| link.loopback && link.inet6),
            bridges: BTreeMap::new(),
            blockers: None,
        })
    }

    /// Lays the ruleset, reads back what is attached, and removes what is half there: elements without
    /// a link, and links of ours that say nothing.
    pub fn take_stock(&mut self) -> Result<Holdings, NetError> {
        tables::lay(&mut self.filter).map_err(at("lay the ruleset"))?;
        let links = links::census(&mut self.route).map_err(at("list links"))?;
        let mut holdings = Holdings::default();
        let mut workers: BTreeMap<Start, LinkName> = BTreeMap::new();
        for link in &links {
            match (link.our_name(), link.tag) {
                (Some(name), Some(Tag::Bridge { owner, network, subnet }))
                    if name == LinkName::of_bridge(owner, network) =>
                {
                    self.raise_bridge(name, link.index)?;
                    holdings.networks.push((owner, network, subnet));
                }
                (Some(name), Some(Tag::Worker { start, .. })) => {
                    workers.insert(start, name);
                }
                _ => {}
            }
        }
        self.read_attachments(&workers, &mut holdings)?;
        Ok(holdings)
    }

    fn read_attachments(&mut self, links: &BTreeMap<Start, LinkName>, holdings: &mut Holdings) -> Result<(), NetError> {
        let mut listed = |set| tables::elements(&mut self.filter, set).map_err(at("list elements"));
        let mut stale = Vec::new();
        let mut found: BTreeMap<Start, (Network, Attachment)> = BTreeMap::new();
        for element in listed(WORKERS.name)? {
            let attachment = elements::read_worker(&element).and_then(|worker| {
                let place = holdings.networks.iter().find(|(owner, network, _)| {
                    *owner == worker.start.owner && LinkName::of_bridge(*owner, *network) == worker.bridge
                })?;
                let elements::WorkerElement { start, link, bridge, address } = worker;
                (links.get(&start) == Some(&link) && place.2.contains(address))
                    .then(|| (place.1, Attachment { start, link, bridge, subnet: place.2, address, ports: Vec::new() }))
            });
            match attachment {
                Some(attachment) => drop(found.insert(attachment.1.start, attachment)),
                None => stale.push((WORKERS.name, element)),
            }
        }
        for set in [PUBLISH.name, PUBLISH_AT.name] {
            for element in listed(set)? {
                let port = elements::read_port(set, &element);
                match port.and_then(|(start, port)| Some((found.get_mut(&start)?, port))) {
                    Some(((_, attachment), port)) => attachment.ports.push(port),
                    None => stale.push((set, element)),
                }
            }
        }
        let removals = nft::transaction(|messages| {
            for (set, element) in &stale {
                nft::change_elements(messages, Kind::DelSetElem, set, std::slice::from_ref(element));
            }
        });
        if !stale.is_empty() {
            self.filter.transact(removals, nft::barrier()).map_err(at("remove stale elements"))?;
        }
        holdings.attachments.extend(found.into_values());
        Ok(())
    }

    /// Names of all links that are named as ours are.
    pub fn link_names(&mut self) -> Result<BTreeSet<LinkName>, NetError> {
        let links = links::census(&mut self.route).map_err(at("list links"))?;
        Ok(links.iter().filter_map(links::Link::our_name).collect())
    }

    /// The host's own networks: addresses and routes that do not lead to a bridge of ours.
    pub fn foreign_networks(&mut self) -> Result<Vec<Subnet>, NetError> {
        let ours: Vec<u32> = self.bridges.values().copied().collect();
        let routes = links::routes(&mut self.route).map_err(at("list routes"))?;
        let addresses = links::addresses(&mut self.route).map_err(at("list addresses"))?;
        let routed = routes.into_iter().filter(|r| !ours.contains(&r.link) && r.to.prefix() > 0).map(|r| r.to);
        let addressed = addresses.into_iter().filter(|(link, _)| !ours.contains(link)).map(|(_, subnet)| subnet);
        Ok(routed.chain(addressed).collect())
    }

    /// Gives an attachment its rules: nobody of the host listens on its ports, its bridge is there and
    /// up, its elements are in. No link of it exists yet. Returns the bridge's number.
    pub fn admit(&mut self, attachment: &Attachment, network: Network) -> Result<u32, NetError> {
        let taken = sockets::in_use(&mut self.diag, attachment.ports.iter()).map_err(at("look for listeners"))?;
        if let Some(port) = taken {
            return Err(NetError::PortInUse(port));
        }
        if let Some(blocker) = self.blockers()?.into_iter().next() {
            return Err(NetError::Blocked(blocker));
        }
        let bridge = match self.bridges.get(&attachment.bridge) {
            Some(index) => *index,
            None => self.make_bridge(attachment, network)?,
        };
        let added = nft::transaction(|messages| elements::change(messages, Kind::NewSetElem, attachment));
        self.filter.transact(added, nft::barrier()).map_err(at("add the worker's rules"))?;
        Ok(bridge)
    }

    fn make_bridge(&mut self, attachment: &Attachment, network: Network) -> Result<u32, NetError> {
        let Attachment { bridge: name, subnet, start, .. } = *attachment;
        let tag = Tag::Bridge { owner: start.owner, network, subnet };
        let found = links::find(&mut self.route, name).map_err(at("look for the bridge"))?;
        let index = match found {
            Some(link) if link.tag == Some(tag) => link.index,
            Some(_) => return Err(NetError::NotOurs(name)),
            None => {
                let plan = BridgePlan { name, tag, subnet };
                links::make_bridge(&mut self.route, &plan, self.inet6).map_err(at("make the bridge"))?
            }
        };
        self.raise_bridge(name, index)?;
        Ok(index)
    }

    /// The rules know the bridge before it is up.
    fn raise_bridge(&mut self, name: LinkName, index: u32) -> Result<(), NetError> {
        let element = elements::name(name.padded(), "holdfast bridge".to_owned());
        let known = nft::transaction(|messages| {
            nft::change_elements(messages, Kind::NewSetElem, BRIDGES.name, std::slice::from_ref(&element));
        });
        self.filter.transact(known, nft::barrier()).map_err(at("tell the rules of the bridge"))?;
        links::up(&mut self.route, index).map_err(at("bring the bridge up"))?;
        self.bridges.insert(name, index);
        self.arrange_uplinks()
    }

    /// Forward chains of the host that drop what workers send. At most [`BLOCKERS_AGE_MAX`] old.
    pub fn blockers(&mut self) -> Result<Vec<Blocker>, NetError> {
        if let Some((at_time, blockers)) = &self.blockers
            && at_time.elapsed() < BLOCKERS_AGE_MAX
        {
            return Ok(blockers.clone());
        }
        let blockers = super::blockers::find(&mut self.filter).map_err(at("read the host's firewall"))?;
        self.blockers = Some((Instant::now(), blockers.clone()));
        Ok(blockers)
    }

    /// Makes forwarding right for the host's links to the outside. Idempotent.
    pub fn arrange_uplinks(&mut self) -> Result<(), NetError> {
        let wanted = !self.bridges.is_empty();
        super::uplinks::arrange(&mut self.route, &mut self.filter, wanted).map_err(at("switch forwarding"))
    }

    /// Makes the pair of links, its peer in `netns`. [`Kernel::admit`] comes before.
    pub fn wire(&mut self, attachment: &Attachment, bridge: u32, netns: &OwnedFd) -> Result<(), NetError> {
        let Attachment { link: name, start, address, .. } = *attachment;
        let tag = Tag::Worker { start, address };
        let plan = PairPlan { name, tag, bridge, address, inet6: self.inet6 };
        links::make_pair(&mut self.route, &plan, netns.as_fd()).map_err(at("make the link"))
    }

    /// Takes an attachment's rules away. Idempotent.
    pub fn dismiss(&mut self, attachment: &Attachment) -> Result<(), NetError> {
        let removed = nft::transaction(|messages| elements::change(messages, Kind::DelSetElem, attachment));
        match self.filter.transact(removed, nft::barrier()) {
            Err(error) if error.errno() == Some(Errno::NOENT) => self.dismiss_each(attachment),
            outcome => outcome.map_err(at("remove the worker's rules")),
        }
    }

    /// One by one, for one that is gone must not keep the others.
    fn dismiss_each(&mut self, attachment: &Attachment) -> Result<(), NetError> {
        for (set, elements) in elements::of(attachment) {
            for element in elements {
                let removed = nft::transaction(|messages: &mut Messages| {
                    nft::change_elements(messages, Kind::DelSetElem, set, std::slice::from_ref(&element));
                });
                match self.filter.transact(removed, nft::barrier()) {
                    Err(error) if error.errno() == Some(Errno::NOENT) => {}
                    outcome => outcome.map_err(at("remove the worker's rules"))?,
                }
            }
        }
        Ok(())
    }

    /// Removes a worker's link, where it outlived its namespace's end. Slow (RCU): never on a caller's path.
    pub fn unlink(&mut self, attachment: &Attachment) -> Result<(), NetError> {
        let found = links::find(&mut self.route, attachment.link).map_err(at("look for the link"))?;
        let ours = Tag::Worker { start: attachment.start, address: attachment.address };
        match found {
            Some(link) if link.tag == Some(ours) => {
                links::remove(&mut self.route, &link).map(drop).map_err(at("remove the link"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes a bridge that nobody is attached to, and its mention in the rules. Slow (RCU).
    pub fn drop_bridge(&mut self, name: LinkName) -> Result<(), NetError> {
        self.bridges.remove(&name);
        if let Some(link) = links::find(&mut self.route, name).map_err(at("look for the bridge"))?
            && matches!(link.tag, Some(Tag::Bridge { .. }))
        {
            links::remove(&mut self.route, &link).map_err(at("remove the bridge"))?;
        }
        let element = elements::name(name.padded(), String::new());
        let forgotten = nft::transaction(|messages| {
            nft::change_elements(messages, Kind::DelSetElem, BRIDGES.name, std::slice::from_ref(&element));
        });
        match self.filter.transact(forgotten, nft::barrier()) {
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            outcome => outcome.map_err(at("tell the rules that the bridge is gone"))?,
        }
        self.arrange_uplinks()
    }
}
