//! Links, their addresses and their IPv4 settings, by rtnetlink (rtnetlink(7)).

use super::wire::{ACK, CREATE, DUMP, EXCL, Messages, Wire, WireError};
use crate::subnet::Subnet;
use crate::words::{LinkName, Tag};
use netlink_bindings::rt_addr::{AddrAttrs, Ifaddrmsg, PushAddrAttrs};
use netlink_bindings::rt_link::{Ifinfomsg, LinkAttrs, PushLinkAttrs};
use netlink_bindings::rt_route::{RouteAttrs, Rtmsg};
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::net::Ipv4Addr;

const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// `IFLA_BRPORT_MODE`: frames may leave by the port that they came in by.
const HAIRPIN: u8 = 1;
const SCOPE_GLOBAL: u8 = 0;
/// `IPV4_DEVCONF_FORWARDING`.
const FORWARDING: u16 = 1;
/// `IPV4_DEVCONF_ROUTE_LOCALNET`.
const ROUTE_LOCALNET: u16 = 26;

/// The link's name inside a worker.
pub const INSIDE: &str = "eth0";

/// One link of the host's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number for it.
    pub index: u32,
    /// Its name, which need not be text.
    pub name: Vec<u8>,
    /// The tag, where it is one of ours.
    pub tag: Option<Tag>,
    /// Whether the kernel takes IPv6 settings for it.
    pub inet6: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether IPv4 is forwarded that comes in here.
    pub forwards: bool,
}

impl Link {
    /// Its name, where it is one that we give.
    pub fn our_name(&self) -> Option<LinkName> {
        LinkName::from_padded(&self.name)
    }
}

/// A bridge to make.
#[derive(Debug, Clone, Copy)]
pub struct BridgePlan {
    /// Its name.
    pub name: LinkName,
    /// What it says it is.
    pub tag: Tag,
    /// Its addresses; it gets the gateway's.
    pub subnet: Subnet,
}

/// A worker's pair of links to make.
#[derive(Debug, Clone, Copy)]
pub struct PairPlan {
    /// Name of the host end.
    pub name: LinkName,
    /// What the host end says it is.
    pub tag: Tag,
    /// Bridge that the host end is a port of.
    pub bridge: u32,
    /// The worker's address: its link-layer address is made from it, so that neighbours' caches
    /// stay true when the address is given again.
    pub address: Ipv4Addr,
    /// Whether links take IPv6 settings here.
    pub inet6: bool,
}

/// All links.
pub fn census(wire: &mut Wire) -> Result<Vec<Link>, WireError> {
    let mut links = Vec::new();
    let mut request = Messages::default();
    request.push(libc::RTM_GETLINK, DUMP, |b| header(b, 0, 0, 0));
    wire.ask(request, |kind, body| {
        if kind == libc::RTM_NEWLINK
            && let Some(link) = read_link(body)
        {
            links.push(link);
        }
    })?;
    Ok(links)
}

/// Reads the body of `RTM_NEWLINK` or `RTM_DELLINK`.
pub fn read_link(body: &[u8]) -> Option<Link> {
    let (head, attributes) = body.split_at_checked(Ifinfomsg::len())?;
    let head = Ifinfomsg::new_from_slice(head)?;
    let index = u32::try_from(head.ifi_index).ok()?;
    let loopback = head.ifi_flags & LOOPBACK != 0;
    let mut link = Link { index, name: Vec::new(), tag: None, inet6: false, loopback, forwards: false };
    for attribute in LinkAttrs::new(attributes) {
        match attribute {
            Ok(LinkAttrs::Ifname(name)) => link.name = name.to_bytes().to_vec(),
            Ok(LinkAttrs::Ifalias(alias)) => link.tag = alias.to_str().ok().and_then(|a| a.parse().ok()),
            Ok(LinkAttrs::AfSpec(families)) => {
                link.inet6 = families.get_inet6().is_ok();
                let settings = families.get_inet().and_then(|inet| inet.get_conf()).unwrap_or_default();
                link.forwards = settings.first_chunk().is_some_and(|b| u32::from_ne_bytes(*b) != 0);
            }
            _ => {}
        }
    }
    Some(link)
}

/// Makes a bridge, down, with its tag, settings and address; [`up`] is the caller's, after the rules.
/// Returns its index. Where a later step fails, the bridge is removed again.
pub fn make_bridge(wire: &mut Wire, plan: &BridgePlan, inet6: bool) -> Result<u32, WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWLINK, ACK | CREATE | EXCL, |b| {
        header(b, 0, 0, 0);
        let link = PushLinkAttrs::new(b)
            .push_ifname_bytes(plan.name.to_string().as_bytes())
            // A bridge without an address of its own takes the lowest of its ports': callers' caches would break.
            .push_address(&link_address(plan.subnet.gateway()));
        link.nested_linkinfo().nested_data_bridge().push_mcast_snooping(0);
    });
    messages.push(libc::RTM_SETLINK, ACK, |b| {
        header(b, 0, 0, 0);
        settings(b, plan.name, plan.tag, inet6, &[(FORWARDING, 1), (ROUTE_LOCALNET, 1)]);
    });
    wire.acknowledged(messages)?;
    let made = find(wire, plan.name).and_then(|found| match found {
        Some(link) => give_address(wire, link.index, plan.subnet).map(|()| link.index),
        None => Err(WireError::Garbled("a new bridge is not there")),
    });
    if made.is_err()
        && let Ok(Some(link)) = find(wire, plan.name)
    {
        let _ = remove(wire, &link);
    }
    made
}

/// Makes a worker's pair in one call: host end named, tagged, on its bridge and up; the peer `eth0`, down,
/// directly in the namespace that `netns` refers to. The pair vanishes with that namespace.
pub fn make_pair(wire: &mut Wire, plan: &PairPlan, netns: BorrowedFd<'_>) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWLINK, ACK | CREATE | EXCL, |b| {
        header(b, 0, 0, 0);
        let link =
            PushLinkAttrs::new(&mut *b).push_ifname_bytes(plan.name.to_string().as_bytes()).push_master(plan.bridge);
        let mut info = link.nested_linkinfo().push_kind(c"veth");
        // The kernel's own description of rtnetlink has no veth: its one attribute is a whole link message.
        let buffer = netlink_bindings::traits::Pusher::as_vec_mut(&mut info);
        let data = push_nested_header(buffer, IFLA_INFO_DATA);
        let peer = push_nested_header(buffer, VETH_INFO_PEER);
        header(buffer, 0, 0, 0);
        PushLinkAttrs::new(&mut *buffer)
            .push_ifname_bytes(INSIDE.as_bytes())
            .push_address(&link_address(plan.address))
            .push_net_ns_fd(netns.as_raw_fd() as u32);
        finalize_nested_header(buffer, peer);
        finalize_nested_header(buffer, data);
    });
    // RTM_NEWLINK without NLM_F_CREATE: RTM_SETLINK leaves the settings of a bridge's port alone.
    messages.push(libc::RTM_NEWLINK, ACK, |b| {
        header(b, 0, UP, UP);
        settings(b, plan.name, plan.tag, plan.inet6, &[]);
        // With br_netfilter a worker that calls its own published port meets itself while still bridged.
        PushLinkAttrs::new(b).nested_linkinfo().nested_slave_data_bridge().push_mode(HAIRPIN);
    });
    wire.acknowledged(messages)
}

/// Brings a link up.
pub fn up(wire: &mut Wire, index: u32) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_SETLINK, ACK, |b| header(b, index, UP, UP));
    wire.acknowledged(messages)
}

/// Switches forwarding of IPv4 that comes in by one link on or off, as its `forwarding` sysctl would.
pub fn set_forwarding(wire: &mut Wire, index: u32, on: bool) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_SETLINK, ACK, |b| {
        header(b, index, 0, 0);
        PushLinkAttrs::new(b).nested_af_spec().nested_inet().push_conf(&devconf(&[(FORWARDING, on.into())]));
    });
    wire.acknowledged(messages)
}

/// The link of this name, if any.
pub fn find(wire: &mut Wire, name: LinkName) -> Result<Option<Link>, WireError> {
    let mut found = None;
    let mut request = Messages::default();
    request.push(libc::RTM_GETLINK, ACK, |b| {
        header(b, 0, 0, 0);
        PushLinkAttrs::new(b).push_ifname_bytes(name.to_string().as_bytes());
    });
    match wire.ask(request, |_, body| found = read_link(body)) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
        outcome => outcome.map(|()| found),
    }
}

/// Removes one link by its number. `false`: it was gone already.
pub fn remove(wire: &mut Wire, link: &Link) -> Result<bool, WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_DELLINK, ACK, |b| header(b, link.index, 0, 0));
    match wire.acknowledged(messages) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// The host's IPv4 addresses of global scope, each with the number of its link.
pub fn addresses(wire: &mut Wire) -> Result<Vec<(u32, Subnet)>, WireError> {
    let mut addresses = Vec::new();
    let mut request = Messages::default();
    request.push(libc::RTM_GETADDR, DUMP, |b| {
        b.extend(Ifaddrmsg { ifa_family: libc::AF_INET as u8, ..Default::default() }.as_slice())
    });
    wire.ask(request, |_, body| {
        let Some((head, attributes)) = body.split_at_checked(Ifaddrmsg::len()) else { return };
        let Some(head) = Ifaddrmsg::new_from_slice(head) else { return };
        if head.ifa_scope == SCOPE_GLOBAL
            && let Ok(std::net::IpAddr::V4(address)) = AddrAttrs::new(attributes).get_address()
        {
            addresses.push((head.ifa_index, Subnet::around(address, head.ifa_prefixlen)));
        }
    })?;
    Ok(addresses)
}

/// One IPv4 route: where to, and by which link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// 0.0.0.0/0 for a default route.
    pub to: Subnet,
    /// 0 where it has none (or several).
    pub link: u32,
}

/// The host's IPv4 routes, of every table.
pub fn routes(wire: &mut Wire) -> Result<Vec<Route>, WireError> {
    let mut routes = Vec::new();
    let mut request = Messages::default();
    request.push(libc::RTM_GETROUTE, DUMP, |b| {
        b.extend(Rtmsg { rtm_family: libc::AF_INET as u8, ..Default::default() }.as_slice())
    });
    wire.ask(request, |_, body| {
        let Some((head, attributes)) = body.split_at_checked(Rtmsg::len()) else { return };
        let Some(head) = Rtmsg::new_from_slice(head) else { return };
        let (mut to, mut link) = (Ipv4Addr::UNSPECIFIED, 0);
        for attribute in RouteAttrs::new(attributes) {
            match attribute {
                Ok(RouteAttrs::Dst(std::net::IpAddr::V4(address))) => to = address,
                Ok(RouteAttrs::Oif(index)) => link = index,
                _ => {}
            }
        }
        routes.push(Route { to: Subnet::around(to, head.rtm_dst_len), link });
    })?;
    Ok(routes)
}

fn give_address(wire: &mut Wire, index: u32, subnet: Subnet) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWADDR, ACK | CREATE | EXCL, |b| {
        let head = Ifaddrmsg {
            ifa_family: libc::AF_INET as u8,
            ifa_prefixlen: subnet.prefix(),
            ifa_index: index,
            ..Default::default()
        };
        b.extend(head.as_slice());
        let broadcast = Ipv4Addr::from_bits(subnet.base().to_bits() | (u32::MAX >> subnet.prefix()));
        PushAddrAttrs::new(b)
            .push_local(subnet.gateway().into())
            .push_address(subnet.gateway().into())
            .push_broadcast(broadcast);
    });
    wire.acknowledged(messages)
}

/// Name, tag and settings of a link that is addressed by its name.
fn settings(b: &mut Vec<u8>, name: LinkName, tag: Tag, inet6: bool, conf: &[(u16, u32)]) {
    let link = PushLinkAttrs::new(b)
        .push_ifname_bytes(name.to_string().as_bytes())
        .push_ifalias_bytes(tag.to_string().as_bytes());
    let mut families = link.nested_af_spec();
    if !conf.is_empty() {
        families = families.nested_inet().push_conf(&devconf(conf)).end_nested();
    }
    if inet6 {
        families.nested_inet6().push_addr_gen_mode(IN6_ADDR_GEN_MODE_NONE);
    }
}

/// On input `IFLA_INET_CONF` is a nest of numbered settings.
fn devconf(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (which, value) in settings {
        push_header(&mut bytes, *which, 4);
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

fn header(b: &mut Vec<u8>, index: u32, flags: u32, change: u32) {
    let head = Ifinfomsg { ifi_index: index as i32, ifi_flags: flags, ifi_change: change, ..Default::default() };
    b.extend(head.as_slice());
}

/// Locally administered, unicast.
fn link_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x68, a, b, c, d]
}
