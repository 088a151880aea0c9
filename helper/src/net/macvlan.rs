//! Links on a wire of the host's, made directly in a worker's namespace, and their witnesses in the host's.
//!
//! A macvlan cannot be seen from here once it is there, so a pair of links that carries nothing is made with it: its
//! host end says whose it is, and vanishes when the worker's namespace does.

use super::kernel::{Kernel, NetError, at};
use super::links::{self, IFLA_INFO_DATA, INSIDE, VETH_INFO_PEER, header};
use super::wire::{ACK, CREATE, DUMP, EXCL, Messages, Wire, WireError};
use crate::lan::LanLink;
use crate::words::LinkName;
use netlink_bindings::rt_link::{Ifinfomsg, LinkAttrs, PushLinkAttrs};
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::ffi::CString;

const IFLA_LINK: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
/// Workers on one parent do not reach each other: frames between two of them are dropped, also where a switch sends
/// them back.
const MACVLAN_MODE_PRIVATE: u32 = 1;
const NOARP: u32 = libc::IFF_NOARP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

impl Kernel {
    /// Makes a worker's link on its parent, its witness first. Checks by the kernel's word what rules cannot know: that
    /// the parent is Ethernet and no worker's, and that the host does not have the address itself.
    pub fn share_wire(&mut self, link: &LanLink, netns: &OwnedFd) -> Result<(), NetError> {
        let parent = parent(&mut self.route, link.on.parent())?;
        let address = link.address.address;
        if self.has(address)? {
            return Err(NetError::HostsAddress(address));
        }
        make_witness(&mut self.route, link, netns.as_fd()).map_err(at("make the witness"))?;
        make(&mut self.route, link, parent, netns.as_fd()).map_err(at("make the link on its parent"))
    }

    /// Whether the host has this address on any link.
    fn has(&mut self, address: std::net::Ipv4Addr) -> Result<bool, NetError> {
        let mut request = Messages::default();
        request.push(libc::RTM_GETADDR, DUMP, |b| b.extend([libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]));
        let mut found = false;
        let outcome = self.route.ask(request, |_, body| {
            let attributes = netlink_bindings::rt_addr::AddrAttrs::new(body.get(8..).unwrap_or_default());
            found |= attributes.get_local().is_ok_and(|local| local == address);
        });
        outcome.map_err(at("list addresses")).map(|()| found)
    }

    /// Removes a witness that outlived its worker's namespace. Slow (RCU): never on a caller's path.
    pub fn dismiss_witness(&mut self, link: &LanLink) -> Result<(), NetError> {
        let found = witnesses(&mut self.route).map_err(at("look for the witness"))?;
        let there = found.into_iter().find(|(_, other)| other.start == link.start && other.witness == link.witness);
        match there {
            Some((index, _)) => links::remove(&mut self.route, index).map_err(at("remove the witness")).map(drop),
            None => Ok(()),
        }
    }

    /// Who is on a wire now, by the witnesses.
    pub fn on_wires(&mut self) -> Result<Vec<LanLink>, NetError> {
        let found = witnesses(&mut self.route).map_err(at("list witnesses"))?;
        Ok(found.into_iter().map(|(_, link)| link).collect())
    }
}

/// The number of a link that may be shared.
fn parent(wire: &mut Wire, name: &str) -> Result<u32, NetError> {
    let refused = |why| NetError::Parent { name: name.to_owned(), why };
    let mut request = Messages::default();
    request.push(libc::RTM_GETLINK, ACK, |b| {
        header(b, 0, 0, 0);
        PushLinkAttrs::new(b).push_ifname_bytes(name.as_bytes());
    });
    let mut found = None;
    match wire
        .ask(request, |_, body| found = Ifinfomsg::new_from_slice(body.get(..Ifinfomsg::len()).unwrap_or_default()))
    {
        Err(error) if error.errno() == Some(Errno::NODEV) => return Err(refused("there is none of this name")),
        outcome => outcome.map_err(at("look for the parent"))?,
    }
    let link = found.ok_or_else(|| refused("there is none of this name"))?;
    let is_ethernet = link.ifi_type == libc::ARPHRD_ETHER && link.ifi_flags & LOOPBACK == 0;
    if !is_ethernet || name.parse::<LinkName>().is_ok() {
        return Err(refused("it is no Ethernet link of the host's own"));
    }
    u32::try_from(link.ifi_index).map_err(|_| refused("it has no number"))
}

/// Both ends stay down; the host's end is tagged before anything else of the launch is there.
fn make_witness(wire: &mut Wire, link: &LanLink, netns: BorrowedFd<'_>) -> Result<(), WireError> {
    let name = link.witness.to_string();
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWLINK, ACK | CREATE | EXCL, |b| {
        header(b, 0, NOARP, NOARP);
        let pushed = PushLinkAttrs::new(&mut *b).push_ifname_bytes(name.as_bytes());
        let mut info = pushed.nested_linkinfo().push_kind(c"veth");
        let buffer = netlink_bindings::traits::Pusher::as_vec_mut(&mut info);
        let data = push_nested_header(buffer, IFLA_INFO_DATA);
        let peer = push_nested_header(buffer, VETH_INFO_PEER);
        header(buffer, 0, NOARP, NOARP);
        PushLinkAttrs::new(&mut *buffer).push_ifname_bytes(name.as_bytes()).push_net_ns_fd(netns.as_raw_fd() as u32);
        finalize_nested_header(buffer, peer);
        finalize_nested_header(buffer, data);
    });
    messages.push(libc::RTM_NEWLINK, ACK, |b| {
        header(b, 0, 0, 0);
        let alias = link.to_string();
        PushLinkAttrs::new(b).push_ifname_bytes(name.as_bytes()).push_ifalias_bytes(alias.as_bytes());
    });
    wire.acknowledged(messages)
}

fn make(wire: &mut Wire, link: &LanLink, parent: u32, netns: BorrowedFd<'_>) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWLINK, ACK | CREATE | EXCL, |b| {
        header(b, 0, 0, 0);
        let address = link_address(link);
        push_header(b, IFLA_LINK, 4);
        b.extend(parent.to_ne_bytes());
        let pushed = PushLinkAttrs::new(&mut *b)
            .push_ifname_bytes(INSIDE.as_bytes())
            .push_address(&address)
            .push_net_ns_fd(netns.as_raw_fd() as u32);
        let mut info = pushed.nested_linkinfo().push_kind(c"macvlan");
        let buffer = netlink_bindings::traits::Pusher::as_vec_mut(&mut info);
        let data = push_nested_header(buffer, IFLA_INFO_DATA);
        push_header(buffer, IFLA_MACVLAN_MODE, 4);
        buffer.extend(MACVLAN_MODE_PRIVATE.to_ne_bytes());
        finalize_nested_header(buffer, data);
    });
    wire.acknowledged(messages)
}

/// Links that say they are witnesses, with their numbers.
fn witnesses(wire: &mut Wire) -> Result<Vec<(u32, LanLink)>, WireError> {
    let mut found = Vec::new();
    let mut request = Messages::default();
    request.push(libc::RTM_GETLINK, DUMP, |b| header(b, 0, 0, 0));
    wire.ask(request, |kind, body| {
        let Some((head, attributes)) = body.split_at_checked(Ifinfomsg::len()) else { return };
        let index = Ifinfomsg::new_from_slice(head).and_then(|head| u32::try_from(head.ifi_index).ok());
        let attributes = LinkAttrs::new(attributes);
        let name = attributes.get_ifname().ok().and_then(|name| LinkName::from_padded(name.to_bytes()));
        let alias = attributes.get_ifalias().ok().and_then(|alias| CString::from(alias).into_string().ok());
        if kind == libc::RTM_NEWLINK
            && let (Some(index), Some(name), Some(alias)) = (index, name, alias)
            && let Some(link) = LanLink::read(name, &alias)
        {
            found.push((index, link));
        }
    })?;
    Ok(found)
}

/// Locally administered, unicast; of the worker's id, so that what learned it once knows the worker again.
fn link_address(link: &LanLink) -> [u8; 6] {
    let [.., b, c, d, e] = link.start.worker.bits().to_be_bytes();
    [0x02, 0x69, b, c, d, e]
}
