//! Links, their addresses and their IPv4 settings, by rtnetlink (rtnetlink(7)).

use super::wire::{ACK, CREATE, DUMP, EXCL, Messages, Wire, WireError};
use crate::prefix6::gateway6;
use crate::subnet::Subnet;
use crate::words::{LinkName, Tag};
use netlink_bindings::rt_addr::{AddrAttrs, Ifaddrmsg, PushAddrAttrs};
use netlink_bindings::rt_link::{Ifinfomsg, LinkAttrs, PushLinkAttrs};
use netlink_bindings::rt_route::{PushRouteAttrs, RouteAttrs, Rtmsg};
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UP: u32 = libc::IFF_UP as u32;
/// No neighbour is ever asked for or heard: each end knows the other, since both have one link-layer address.
const NOARP: u32 = libc::IFF_NOARP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
pub(super) const VETH_INFO_PEER: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const SCOPE_GLOBAL: u8 = 0;
/// No duplicate is looked for (nobody else can be there), and no route to it is made.
const ADDRESS6_FLAGS: u32 = libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE;
/// `IPV4_DEVCONF_FORWARDING`.
const FORWARDING: u16 = 1;
/// `IPV4_DEVCONF_ACCEPT_REDIRECTS`.
const ACCEPT_REDIRECTS: u16 = 4;
/// `IPV4_DEVCONF_SEND_REDIRECTS`.
const SEND_REDIRECTS: u16 = 6;
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
    /// The group that it is in.
    pub group: u32,
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

/// A worker's pair of links to make.
#[derive(Debug, Clone, Copy)]
pub struct PairPlan {
    /// Name of the host end.
    pub name: LinkName,
    /// What the host end says it is.
    pub tag: Tag,
    /// The group of its network; 0: none.
    pub mark: u32,
    /// The host's own address on the link, the same on all of a range.
    pub gateway: Ipv4Addr,
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

/// What went over a link since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
}

/// What went over each link that is named as ours are.
pub fn traffic(wire: &mut Wire) -> Result<BTreeMap<LinkName, Traffic>, WireError> {
    let mut all = BTreeMap::new();
    let mut request = Messages::default();
    request.push(libc::RTM_GETLINK, DUMP, |b| header(b, 0, 0, 0));
    wire.ask(request, |_, body| {
        let attributes = LinkAttrs::new(body.get(Ifinfomsg::len()..).unwrap_or_default());
        let name = attributes.get_ifname().ok().and_then(|name| LinkName::from_padded(name.to_bytes()));
        if let Some(name) = name
            && let Ok(stats) = attributes.get_stats64()
        {
            let (rx_bytes, rx_packets) = (stats.rx_bytes, stats.rx_packets);
            let (tx_bytes, tx_packets) = (stats.tx_bytes, stats.tx_packets);
            all.insert(name, Traffic { rx_bytes, rx_packets, tx_bytes, tx_packets });
        }
    })?;
    Ok(all)
}

/// Reads the body of `RTM_NEWLINK` or `RTM_DELLINK`.
pub fn read_link(body: &[u8]) -> Option<Link> {
    let (head, attributes) = body.split_at_checked(Ifinfomsg::len())?;
    let head = Ifinfomsg::new_from_slice(head)?;
    let index = u32::try_from(head.ifi_index).ok()?;
    let loopback = head.ifi_flags & LOOPBACK != 0;
    let mut link = Link { index, name: Vec::new(), tag: None, group: 0, inet6: false, loopback, forwards: false };
    for attribute in LinkAttrs::new(attributes) {
        match attribute {
            Ok(LinkAttrs::Ifname(name)) => link.name = name.to_bytes().to_vec(),
            Ok(LinkAttrs::Ifalias(alias)) => link.tag = alias.to_str().ok().and_then(|a| a.parse().ok()),
            Ok(LinkAttrs::Group(group)) => link.group = group,
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

/// Makes a worker's pair: host end named, tagged, up, routed to the worker's address alone; the peer `eth0`, down,
/// directly in the namespace that `netns` refers to. The pair vanishes with that namespace, and its route with it.
/// Returns the number of the host end.
pub fn make_pair(wire: &mut Wire, plan: &PairPlan, netns: BorrowedFd<'_>) -> Result<u32, WireError> {
    let mut messages = Messages::default();
    let address = link_address(plan.tag.address);
    messages.push(libc::RTM_NEWLINK, ACK | CREATE | EXCL, |b| {
        header(b, 0, 0, 0);
        let link = PushLinkAttrs::new(&mut *b)
            .push_ifname_bytes(plan.name.to_string().as_bytes())
            .push_group(plan.mark)
            .push_address(&address);
        let mut info = link.nested_linkinfo().push_kind(c"veth");
        // The kernel's own description of rtnetlink has no veth: its one attribute is a whole link message.
        let buffer = netlink_bindings::traits::Pusher::as_vec_mut(&mut info);
        let data = push_nested_header(buffer, IFLA_INFO_DATA);
        let peer = push_nested_header(buffer, VETH_INFO_PEER);
        header(buffer, 0, NOARP, NOARP);
        PushLinkAttrs::new(&mut *buffer)
            .push_ifname_bytes(INSIDE.as_bytes())
            .push_address(&address)
            .push_net_ns_fd(netns.as_raw_fd() as u32);
        finalize_nested_header(buffer, peer);
        finalize_nested_header(buffer, data);
    });
    messages.push(libc::RTM_NEWLINK, ACK, |b| {
        header(b, 0, UP | NOARP, UP | NOARP);
        let conf = [(FORWARDING, 1), (ACCEPT_REDIRECTS, 0), (SEND_REDIRECTS, 0), (ROUTE_LOCALNET, 1)];
        settings(b, plan.name, plan.tag, plan.inet6, &conf);
    });
    messages.push(libc::RTM_GETLINK, ACK, |b| {
        header(b, 0, 0, 0);
        PushLinkAttrs::new(b).push_ifname_bytes(plan.name.to_string().as_bytes());
    });
    let mut index = None;
    wire.acknowledged_with(messages, |body| index = read_link(body).map(|link| link.index))?;
    let index = index.ok_or(WireError::Garbled("a new link is not there"))?;
    wire.acknowledged(host_address(index, plan))?;
    Ok(index)
}

/// Gives the host end the gateway of IPv6, which is the link's own, and the route to the worker.
pub fn add_address6(wire: &mut Wire, index: u32, four: Ipv4Addr, worker: Ipv6Addr) -> Result<(), WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWADDR, ACK | CREATE | EXCL, |b| {
        let head =
            Ifaddrmsg { ifa_family: libc::AF_INET6 as u8, ifa_prefixlen: 128, ifa_index: index, ..Default::default() };
        b.extend(head.as_slice());
        let gateway = IpAddr::from(gateway6(four));
        PushAddrAttrs::new(b).push_local(gateway).push_address(gateway).push_flags(ADDRESS6_FLAGS);
    });
    messages.push(libc::RTM_NEWROUTE, ACK | CREATE | EXCL, |b| {
        let head = Rtmsg {
            rtm_family: libc::AF_INET6 as u8,
            rtm_dst_len: 128,
            rtm_table: libc::RT_TABLE_MAIN,
            rtm_protocol: libc::RTPROT_STATIC,
            rtm_scope: libc::RT_SCOPE_UNIVERSE,
            rtm_type: libc::RTN_UNICAST,
            ..Default::default()
        };
        b.extend(head.as_slice());
        PushRouteAttrs::new(b).push_dst(worker.into()).push_oif(index);
    });
    wire.acknowledged(messages)
}

/// The gateway's address with the worker's as its peer: the route to the worker comes with it.
fn host_address(index: u32, plan: &PairPlan) -> Messages {
    let mut messages = Messages::default();
    messages.push(libc::RTM_NEWADDR, ACK | CREATE | EXCL, |b| {
        let head =
            Ifaddrmsg { ifa_family: libc::AF_INET as u8, ifa_prefixlen: 32, ifa_index: index, ..Default::default() };
        b.extend(head.as_slice());
        PushAddrAttrs::new(b).push_local(plan.gateway.into()).push_address(plan.tag.address.into());
    });
    messages
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
pub fn remove(wire: &mut Wire, index: u32) -> Result<bool, WireError> {
    let mut messages = Messages::default();
    messages.push(libc::RTM_DELLINK, ACK, |b| header(b, index, 0, 0));
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

pub(super) fn header(b: &mut Vec<u8>, index: u32, flags: u32, change: u32) {
    let head = Ifinfomsg { ifi_index: index as i32, ifi_flags: flags, ifi_change: change, ..Default::default() };
    b.extend(head.as_slice());
}

/// Locally administered, unicast; made from the worker's address, so that it is the same whenever that is given again.
fn link_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x68, a, b, c, d]
}
