//! The host's links to the outside: replies to workers come in there, so IPv4 must be forwarded from them.
//!
//! Where the host does not forward by itself it is switched on for these links alone, and only while there is
//! a bridge; the rules then drop what comes in there and does not go to a bridge, so the host becomes no router.

use super::links::{self, Link};
use super::nft::{self, Element, Kind};
use super::ruleset::{NO_ROUTER, UPLINKS};
use super::wire::{ACK, Messages, Wire, WireError};
use super::{elements, tables};
use netlink_bindings::utils::push_header;
use rustix::io::Errno;
use std::ffi::CStr;

const RTM_GETNETCONF: u16 = 82;
// NETCONFA_IFINDEX, NETCONFA_FORWARDING, NETCONFA_IFINDEX_ALL (linux/netconf.h).
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`, `NETCONFA_IFINDEX_DEFAULT`.
const ALL: i32 = -1;
const DEFAULT: i32 = -2;
/// `struct netconfmsg`, padded.
const NETCONF_BYTES: usize = 4;

/// Makes forwarding right for the links that there are. `wanted`: there is a bridge.
pub fn arrange(route: &mut Wire, filter: &mut Wire, wanted: bool) -> Result<(), WireError> {
    let ours = tables::elements(filter, UPLINKS.name)?;
    arrange6(route, filter)?;
    if forwards(route, libc::AF_INET, ALL)? {
        // Somebody else switched it on everywhere, and wants other traffic through.
        return remove(filter, UPLINKS.name, &ours);
    }
    let links = links::census(route)?;
    if !wanted {
        for link in links.iter().filter(|link| is_listed(&ours, link)) {
            links::set_forwarding(route, link.index, false)?;
        }
        return remove(filter, UPLINKS.name, &ours);
    }
    let outward = outward(route)?;
    for link in links.iter().filter(|link| !link.loopback && link.our_name().is_none() && outward.contains(&link.index))
    {
        if link.forwards {
            continue;
        }
        if !is_listed(&ours, link) {
            let element = element(link);
            let added =
                nft::transaction(|messages| nft::change_elements(messages, Kind::NewSetElem, UPLINKS.name, &[element]));
            filter.transact(added, nft::barrier())?;
        }
        links::set_forwarding(route, link.index, true)?;
    }
    Ok(())
}

fn is_listed(listed: &[Element], link: &Link) -> bool {
    let key = element(link).key;
    listed.iter().any(|element| element.key == key)
}

fn element(link: &Link) -> Element {
    let mut padded = [0; 16];
    let length = link.name.len().min(15);
    padded[..length].copy_from_slice(&link.name[..length]);
    elements::name(padded, "holdfast forwards".to_owned())
}

fn remove(filter: &mut Wire, set: &'static CStr, listed: &[Element]) -> Result<(), WireError> {
    if listed.is_empty() {
        return Ok(());
    }
    let removed = nft::transaction(|messages| nft::change_elements(messages, Kind::DelSetElem, set, listed));
    match filter.transact(removed, nft::barrier()) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Numbers of links with an address of global scope or a default route.
fn outward(route: &mut Wire) -> Result<Vec<u32>, WireError> {
    let addressed = links::addresses(route)?.into_iter().map(|(link, _)| link);
    let routed = links::routes(route)?.into_iter().filter(|route| route.to.prefix() == 0).map(|route| route.link);
    Ok(addressed.chain(routed).collect())
}

/// Whether `net.ipv6.conf.all.forwarding` is on. Not where the kernel has no IPv6.
pub fn host_forwards6(route: &mut Wire) -> Result<bool, WireError> {
    forwards6(route, ALL)
}

/// Where IPv6 is forwarded and yet new links are no router's, an install switched it on for workers: nobody else's packets
/// pass (packaging/holdfast.sysctl.conf).
fn arrange6(route: &mut Wire, filter: &mut Wire) -> Result<(), WireError> {
    let for_workers = forwards6(route, ALL)? && !forwards6(route, DEFAULT)?;
    let there = tables::elements(filter, NO_ROUTER.name)?;
    if !for_workers {
        return remove(filter, NO_ROUTER.name, &there);
    }
    if there.is_empty() {
        let key = vec![libc::NFPROTO_IPV6 as u8];
        let element = Element { key, value: None, comment: "holdfast forwards for workers alone".to_owned() };
        let added =
            nft::transaction(|messages| nft::change_elements(messages, Kind::NewSetElem, NO_ROUTER.name, &[element]));
        filter.transact(added, nft::barrier())?;
    }
    Ok(())
}

fn forwards6(route: &mut Wire, which: i32) -> Result<bool, WireError> {
    match forwards(route, libc::AF_INET6, which) {
        Err(error) if error.errno().is_some() => Ok(false),
        outcome => outcome,
    }
}

/// Whether forwarding is on for all links, or for new ones.
fn forwards(route: &mut Wire, family: i32, which: i32) -> Result<bool, WireError> {
    let mut on = false;
    let mut request = Messages::default();
    request.push(RTM_GETNETCONF, ACK, |b| {
        b.extend([family as u8, 0, 0, 0]);
        push_header(b, IFINDEX, 4);
        b.extend(which.to_ne_bytes());
    });
    route.ask(request, |_, body| {
        let mut position = 0;
        let attributes = body.get(NETCONF_BYTES..).unwrap_or_default();
        while let Some((header, value)) = netlink_bindings::utils::chop_header(attributes, &mut position) {
            if header.r#type == FORWARDING {
                on = value.first_chunk().is_some_and(|b| i32::from_ne_bytes(*b) != 0);
            }
        }
    })?;
    Ok(on)
}
