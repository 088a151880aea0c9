//! What is done to the kernel, step by step. Decides nothing: what to make comes as values.

use super::blockers::Blocker;
use super::links::{self, Link, PairPlan, Traffic};
use super::nft::{self, Element, Kind};
use super::ruleset::{
    INTERNAL, LINKS, NO_ROUTER, PEERS, PUBLISH, PUBLISH_AT, PUBLISH6, PUBLISH6_AT, UPLINKS, WORKERS, WORKERS6,
};
use super::wire::{Messages, Wire, WireError};
use super::{elements, sockets, tables};
use crate::ledger::Attachment;
use crate::rules::NETWORK_PREFIX;
use crate::subnet::Subnet;
use crate::words::{LinkName, Port, Start, Tag};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::net::IpAddr;
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
    /// A program of the host listens there.
    #[error("port {} is in use by a program of this host", .0.host)]
    PortInUse(Port),
    /// A firewall of the host is in the way.
    #[error("{}", .0.what)]
    Blocked(Blocker),
    /// Links of this host have no IPv6.
    #[error("IPv6 is switched off for new links of this host")]
    NoIpv6,
    /// Not a link that can be shared.
    #[error("link {name} cannot be shared: {why}")]
    Parent {
        /// Which.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// The host itself has it.
    #[error("address {0} is in use by this host")]
    HostsAddress(std::net::Ipv4Addr),
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

pub(super) fn at(step: &'static str) -> impl FnOnce(WireError) -> NetError {
    move |source| NetError::Kernel { step, source }
}

/// The sockets, and what was learned by them.
#[derive(Debug)]
pub struct Kernel {
    pub(super) route: Wire,
    filter: Wire,
    diag: Wire,
    inet6: bool,
    /// Somebody is attached, so that packets are forwarded.
    forwards: bool,
    /// Others cannot flush the ruleset.
    pub owns_rules: bool,
    /// What the sets about the host hold, should they be lost.
    of_host: tables::Contents,
    /// What was found last, and when.
    blockers: Option<(Instant, Vec<Blocker>)>,
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
            forwards: false,
            owns_rules: false,
            of_host: Vec::new(),
            blockers: None,
        })
    }

    /// Lays the ruleset, reads back who is attached, and removes what is half there: elements without a link, and
    /// links of ours that the rules do not know.
    pub fn take_stock(&mut self) -> Result<Vec<Attachment>, NetError> {
        self.owns_rules = tables::lay(&mut self.filter, Vec::new()).map_err(at("lay the ruleset"))?;
        let links = links::census(&mut self.route).map_err(at("list links"))?;
        let tagged: BTreeMap<LinkName, (Tag, &Link)> =
            links.iter().filter_map(|link| Some((link.our_name()?, (link.tag?, link)))).collect();
        let attachments = self.read_attachments(&tagged)?;
        for (name, (_, link)) in &tagged {
            if !attachments.iter().any(|attachment| attachment.link == *name) {
                links::remove(&mut self.route, link.index).map_err(at("remove a link that the rules do not know"))?;
            }
        }
        self.forwards = !attachments.is_empty();
        self.arrange_uplinks()?;
        Ok(attachments)
    }

    /// Lays the ruleset again where somebody took it away, all in one transaction. `false`: it was there.
    pub fn restore(&mut self, attachments: &[Attachment]) -> Result<bool, NetError> {
        if tables::find(&mut self.filter).map_err(at("look for the ruleset"))? == tables::Found::Same {
            return Ok(false);
        }
        let mut contents = elements::all(attachments);
        contents.extend(self.of_host.clone());
        self.owns_rules = tables::lay(&mut self.filter, contents).map_err(at("lay the ruleset again"))?;
        Ok(true)
    }

    /// Has conntrack forget all flows of these addresses. Returns how many there were.
    pub fn forget_flows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, NetError> {
        super::conntrack::forget(&mut self.filter, addresses).map_err(at("forget flows"))
    }

    fn read_attachments(&mut self, tagged: &BTreeMap<LinkName, (Tag, &Link)>) -> Result<Vec<Attachment>, NetError> {
        let mut listed = |set| tables::elements(&mut self.filter, set).map_err(at("list elements"));
        let mut stale = Vec::new();
        let mut found: BTreeMap<Start, Attachment> = BTreeMap::new();
        let known: BTreeSet<LinkName> = listed(LINKS.name)?.iter().filter_map(elements::read_link).collect();
        for element in listed(WORKERS.name)? {
            let worker = elements::read_worker(&element).filter(|worker| known.contains(&worker.link));
            let link = worker.and_then(|worker| tagged.get(&worker.link));
            match (worker, link) {
                (Some(worker), Some((tag, link))) if tag.start == worker.start && tag.address == worker.address => {
                    found.insert(tag.start, worker.attachment(tag.network, link.group));
                }
                _ => stale.push((WORKERS.name, element)),
            }
        }
        let sets = [WORKERS6, INTERNAL, PUBLISH, PUBLISH6, PUBLISH_AT, PUBLISH6_AT];
        for set in sets.map(|set| set.name) {
            for element in listed(set)? {
                if elements::complete(set, &element, &mut found).is_none() {
                    stale.push((set, element));
                }
            }
        }
        let marks: BTreeSet<u32> = found.values().map(|attachment| attachment.mark).collect();
        let old = |peers: &Element| elements::read_peers(peers).is_none_or(|mark| !marks.contains(&mark));
        stale.extend(listed(PEERS.name)?.into_iter().filter(old).map(|peers| (PEERS.name, peers)));
        stale.extend(known.iter().filter(|link| !tagged.contains_key(link)).map(|link| elements::link(*link)));
        self.remove_elements(&stale).map_err(at("remove stale elements"))?;
        Ok(found.into_values().collect())
    }

    fn remove_elements(&mut self, stale: &[(&'static CStr, Element)]) -> Result<(), WireError> {
        if stale.is_empty() {
            return Ok(());
        }
        let removals = nft::transaction(|messages| {
            for (set, element) in stale {
                nft::change_elements(messages, Kind::DelSetElem, set, std::slice::from_ref(element));
            }
        });
        self.filter.transact(removals, nft::barrier())
    }

    /// Names of all links that are named as ours are.
    pub fn link_names(&mut self) -> Result<BTreeSet<LinkName>, NetError> {
        let links = links::census(&mut self.route).map_err(at("list links"))?;
        Ok(links.iter().filter_map(links::Link::our_name).collect())
    }

    /// What went over each link of ours.
    pub fn traffic(&mut self) -> Result<BTreeMap<LinkName, Traffic>, NetError> {
        links::traffic(&mut self.route).map_err(at("count traffic"))
    }

    /// The host's own networks: addresses and routes that do not lead to a worker.
    pub fn foreign_networks(&mut self) -> Result<Vec<Subnet>, NetError> {
        let links = links::census(&mut self.route).map_err(at("list links"))?;
        let ours: BTreeSet<u32> = links
            .iter()
            .filter(|link| link.our_name().is_some() && link.tag.is_some())
            .map(|link| link.index)
            .collect();
        let routes = links::routes(&mut self.route).map_err(at("list routes"))?;
        let addresses = links::addresses(&mut self.route).map_err(at("list addresses"))?;
        let routed = routes.into_iter().filter(|r| !ours.contains(&r.link) && r.to.prefix() > 0).map(|r| r.to);
        let addressed = addresses.into_iter().filter(|(link, _)| !ours.contains(link)).map(|(_, subnet)| subnet);
        Ok(routed.chain(addressed).collect())
    }

    /// Gives an attachment its rules: nobody of the host listens on its ports, packets are forwarded, its elements
    /// are in. No link of it exists yet.
    pub fn admit(&mut self, attachment: &Attachment) -> Result<(), NetError> {
        let taken = sockets::in_use(&mut self.diag, attachment.ports.iter()).map_err(at("look for listeners"))?;
        if let Some(port) = taken {
            return Err(NetError::PortInUse(port));
        }
        if let Some(blocker) = self.blockers()?.into_iter().next() {
            return Err(NetError::Blocked(blocker));
        }
        if !self.forwards {
            self.forwards = true;
            self.arrange_uplinks()?;
        }
        let (links, link) = elements::link(attachment.link);
        let added = nft::transaction(|messages| {
            nft::change_elements(messages, Kind::NewSetElem, links, std::slice::from_ref(&link));
            if attachment.mark != 0 {
                let (set, peers) = elements::peers(attachment.mark);
                nft::change_elements(messages, Kind::NewSetElem, set, std::slice::from_ref(&peers));
            }
            elements::change(messages, Kind::NewSetElem, attachment);
        });
        self.filter.transact(added, nft::barrier()).map_err(at("add the worker's rules"))
    }

    /// Nobody is attached any more: forwarding goes back to what it was.
    pub fn rest(&mut self) -> Result<(), NetError> {
        self.forwards = false;
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
        super::uplinks::arrange(&mut self.route, &mut self.filter, self.forwards).map_err(at("switch forwarding"))?;
        let mut listed = |set| Ok((set, tables::elements(&mut self.filter, set).map_err(at("list uplinks"))?));
        self.of_host = vec![listed(UPLINKS.name)?, listed(NO_ROUTER.name)?];
        Ok(())
    }

    /// Whether workers can have IPv6 here: the kernel has it and forwards it.
    pub fn host6(&mut self) -> Result<bool, NetError> {
        Ok(self.inet6 && super::uplinks::host_forwards6(&mut self.route).map_err(at("look at IPv6 forwarding"))?)
    }

    /// Makes the pair of links, its peer in `netns`. [`Kernel::admit`] comes before.
    pub fn wire(&mut self, attachment: &Attachment, netns: &OwnedFd) -> Result<(), NetError> {
        let gateway = Subnet::around(attachment.address, NETWORK_PREFIX).gateway();
        let plan = PairPlan {
            name: attachment.link,
            tag: attachment.tag(),
            mark: attachment.mark,
            gateway,
            inet6: self.inet6,
        };
        let index = links::make_pair(&mut self.route, &plan, netns.as_fd()).map_err(at("make the link"))?;
        let Some(address6) = attachment.address6 else { return Ok(()) };
        match links::add_address6(&mut self.route, index, attachment.address, address6) {
            // net.ipv6.conf.default.disable_ipv6 says it, which cannot be read from here.
            Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)) => {
                Err(NetError::NoIpv6)
            }
            outcome => outcome.map_err(at("give the link its IPv6 address")),
        }
    }

    /// Takes an attachment's rules away; its link is cut off, and known as a worker's until [`Kernel::unlink`]. Idempotent.
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

    /// Removes a worker's link, where it outlived its namespace's end, and then the rules' word that it is a worker's.
    /// Slow (RCU): never on a caller's path.
    pub fn unlink(&mut self, attachment: &Attachment) -> Result<(), NetError> {
        let found = links::find(&mut self.route, attachment.link).map_err(at("look for the link"))?;
        match found {
            Some(link) if link.tag.map(|tag| tag.start) == Some(attachment.start) => {
                links::remove(&mut self.route, link.index).map_err(at("remove the link"))?;
            }
            Some(_) | None => {}
        }
        self.link_gone(attachment.link)
    }

    /// After a launch that was undone: forgets a link that was never made, or is gone already.
    pub fn forget_unless_there(&mut self, link: LinkName) -> Result<(), NetError> {
        match links::find(&mut self.route, link).map_err(at("look for the link"))? {
            Some(_) => Ok(()),
            None => self.link_gone(link),
        }
    }

    /// The rules need not know a link as a worker's any more. Idempotent.
    pub fn link_gone(&mut self, link: LinkName) -> Result<(), NetError> {
        self.forget(elements::link(link))
    }

    /// A named network holds no address any more.
    pub fn part(&mut self, mark: u32) -> Result<(), NetError> {
        self.forget(elements::peers(mark))
    }

    fn forget(&mut self, element: (&'static CStr, Element)) -> Result<(), NetError> {
        match self.remove_elements(&[element]) {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
            outcome => outcome.map_err(at("tell the rules what is gone")),
        }
    }
}
