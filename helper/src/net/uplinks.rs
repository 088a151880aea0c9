//! The host's links to the outside: replies to workers come in there, so IPv4 must be forwarded from them.
//!
//! Where the host does not forward by itself it is switched on for these links alone, and only while there is
//! a bridge; the rules then drop what comes in there and does not go to a bridge, so the host becomes no router.

use super::links::{self, Link};
use super::nft::{self, Element, Kind};
use super::ruleset::UPLINKS;
use super::wire::{ACK, Messages, Wire, WireError};
use super::{elements, tables};
use netlink_bindings::utils::push_header;
use rustix::io::Errno;

const RTM_GETNETCONF: u16 = 82;
// NETCONFA_IFINDEX, NETCONFA_FORWARDING, NETCONFA_IFINDEX_ALL (linux/netconf.h).
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
const ALL: i32 = -1;
/// `struct netconfmsg`, padded.
const NETCONF_BYTES: usize = 4;

/// Makes forwarding right for the links that there are. `wanted`: there is a bridge.
pub fn arrange(route: &mut Wire, filter: &mut Wire, wanted: bool) -> Result<(), WireError> {
    let ours = tables::elements(filter, UPLINKS.name)?;
    if host_forwards(route)? {
        // Somebody else switched it on everywhere, and wants other traffic through.
        return forget(filter, &ours);
    }
    let links = links::census(route)?;
    if !wanted {
        for link in links.iter().filter(|link| is_listed(&ours, link)) {
            links::set_forwarding(route, link.index, false)?;
        }
        return forget(filter, &ours);
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

fn forget(filter: &mut Wire, listed: &[Element]) -> Result<(), WireError> {
    if listed.is_empty() {
        return Ok(());
    }
    let removed = nft::transaction(|messages| nft::change_elements(messages, Kind::DelSetElem, UPLINKS.name, listed));
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

/// Whether `net.ipv4.ip_forward` is on.
fn host_forwards(route: &mut Wire) -> Result<bool, WireError> {
    let mut forwards = false;
    let mut request = Messages::default();
    request.push(RTM_GETNETCONF, ACK, |b| {
        b.extend([libc::AF_INET as u8, 0, 0, 0]);
        push_header(b, IFINDEX, 4);
        b.extend(ALL.to_ne_bytes());
    });
    route.ask(request, |_, body| {
        let mut position = 0;
        let attributes = body.get(NETCONF_BYTES..).unwrap_or_default();
        while let Some((header, value)) = netlink_bindings::utils::chop_header(attributes, &mut position) {
            if header.r#type == FORWARDING {
                forwards = value.first_chunk().is_some_and(|b| i32::from_ne_bytes(*b) != 0);
            }
        }
    })?;
    Ok(forwards)
}
