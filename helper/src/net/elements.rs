//! What differs by worker: its elements in the ruleset's sets, each with the start that it belongs to.

use super::nft::{self, Element};
use super::ruleset::{INTERNAL, LINKS, PEERS, PUBLISH, PUBLISH_AT, PUBLISH6, PUBLISH6_AT, WORKERS, WORKERS6};
use crate::ledger::Attachment;
use crate::words::{LinkName, Network, Port, Proto, Start};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes a link one of a worker's to the rules: it stays for as long as the link does, so that a link never
/// passes for one of the host's own.
pub fn link(name: LinkName) -> (&'static CStr, Element) {
    (LINKS.name, self::name(name.padded(), "holdfast link".to_owned()))
}

/// What lets links of one named network see each other: it stays for as long as the network has addresses.
pub fn peers(mark: u32) -> (&'static CStr, Element) {
    let mark = mark.to_ne_bytes();
    (PEERS.name, Element { key: [mark, mark].concat(), value: None, comment: "holdfast network".to_owned() })
}

/// Reads an element of [`PEERS`].
pub fn read_peers(element: &Element) -> Option<u32> {
    element.key.first_chunk().map(|mark| u32::from_ne_bytes(*mark))
}

/// The elements of one attachment, by set; [`link`] comes before and goes after.
pub fn of(attachment: &Attachment) -> Vec<(&'static CStr, Vec<Element>)> {
    let who = attachment.start.to_string();
    let padded_name = attachment.link.padded();
    let worker = Element {
        key: [&padded_name[..], &attachment.address.octets()].concat(),
        value: None,
        comment: format!("{who} link={}", attachment.link),
    };
    let worker6 = |address6: Ipv6Addr| Element {
        key: [&padded_name[..], &address6.octets()].concat(),
        value: None,
        comment: format!("{who} link={}", attachment.link),
    };
    let internal = Element { key: padded_name.to_vec(), value: None, comment: who.clone() };
    let (any, at): (Vec<&Port>, Vec<&Port>) = attachment.ports.iter().partition(|port| port.address.is_unspecified());
    let published = |port: &&Port| Element {
        key: port_key(port),
        value: Some([&attachment.address.octets()[..], &padded(port.worker)].concat()),
        comment: who.clone(),
    };
    let published6 = |(port, address6): (&&Port, Ipv6Addr)| Element {
        key: port_key(port),
        value: Some([&address6.octets()[..], &padded(port.worker)].concat()),
        comment: who.clone(),
    };
    let (at6, at): (Vec<&Port>, Vec<&Port>) = at.into_iter().partition(|port| port.address.is_ipv6());
    let at6 = at6.iter().filter_map(|port| Some((port, attachment.address6?)));
    let any6 = any.iter().filter_map(|port| Some((port, attachment.address6?)));
    let sets = [
        (WORKERS.name, vec![worker]),
        (WORKERS6.name, attachment.address6.map(worker6).into_iter().collect()),
        (PUBLISH6.name, any6.map(published6).collect()),
        (INTERNAL.name, attachment.internal.then_some(internal).into_iter().collect()),
        (PUBLISH.name, any.iter().map(published).collect()),
        (PUBLISH_AT.name, at.iter().map(published).collect()),
        (PUBLISH6_AT.name, at6.map(published6).collect()),
    ];
    sets.into_iter().filter(|(_, elements): &(_, Vec<_>)| !elements.is_empty()).collect()
}

/// The element of a link's name in a set of names.
pub fn name(padded: [u8; 16], comment: String) -> Element {
    Element { key: padded.to_vec(), value: None, comment }
}

/// A worker's element, read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerElement {
    /// Whose.
    pub start: Start,
    /// Host end of the link.
    pub link: LinkName,
    /// Address.
    pub address: Ipv4Addr,
}

impl WorkerElement {
    /// What it says of an attachment; [`complete`] adds what other elements say.
    pub fn attachment(self, network: Network, mark: u32) -> Attachment {
        let Self { start, link, address } = self;
        Attachment { start, network, mark, internal: false, link, address, address6: None, ports: Vec::new() }
    }
}

/// Adds what an element of another set says to the attachment that it belongs to; none where there is no such.
pub fn complete(set: &CStr, element: &Element, found: &mut BTreeMap<Start, Attachment>) -> Option<()> {
    let start: Start = element.comment.parse().ok()?;
    let attachment = found.get_mut(&start)?;
    if set == INTERNAL.name {
        attachment.internal = true;
    } else if set == WORKERS6.name {
        let (link, address6) = element.key.split_at_checked(16)?;
        LinkName::from_padded(link).filter(|link| *link == attachment.link)?;
        attachment.address6 = Some(<[u8; 16]>::try_from(address6).ok()?.into());
    } else if set == PUBLISH6.name {
        // Beside one of IPv4, which says all there is to know.
        let address6: [u8; 16] = *element.value.as_deref()?.first_chunk()?;
        attachment.address6.filter(|ours| ours.octets() == address6)?;
    } else {
        attachment.ports.push(read_port(set, element)?.1);
    }
    Some(())
}

/// Reads an element of [`WORKERS`]; none where it is not as [`of`] makes them.
pub fn read_worker(element: &Element) -> Option<WorkerElement> {
    let (link, address) = element.key.split_at_checked(16)?;
    Some(WorkerElement {
        start: element.comment.parse().ok()?,
        link: LinkName::from_padded(link)?,
        address: <[u8; 4]>::try_from(address).ok()?.into(),
    })
}

/// Reads an element of [`LINKS`].
pub fn read_link(element: &Element) -> Option<LinkName> {
    LinkName::from_padded(&element.key)
}

/// Reads an element of [`PUBLISH`], [`PUBLISH_AT`] or [`PUBLISH6_AT`].
pub fn read_port(set: &CStr, element: &Element) -> Option<(Start, Port)> {
    let (address, rest) = if set == PUBLISH_AT.name {
        let (address, rest) = element.key.split_first_chunk::<4>()?;
        (IpAddr::from(*address), rest)
    } else if set == PUBLISH6_AT.name {
        let (address, rest) = element.key.split_first_chunk::<16>()?;
        (IpAddr::from(*address), rest)
    } else {
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), &element.key[..])
    };
    let value = element.value.as_deref()?;
    let value = if set == PUBLISH6_AT.name { value.get(12..)? } else { value };
    let proto = match i32::from(*rest.first()?) {
        libc::IPPROTO_TCP => Proto::Tcp,
        libc::IPPROTO_UDP => Proto::Udp,
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.get(4..6).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let port = Port { proto, address, host: number(rest)?, worker: number(value)? };
    Some((element.comment.parse().ok()?, port))
}

/// Everything that the sets hold for these attachments.
pub fn all(attachments: &[Attachment]) -> super::tables::Contents {
    let mut contents = super::tables::Contents::new();
    for attachment in attachments {
        let (set, link) = self::link(attachment.link);
        contents.push((set, vec![link]));
        if attachment.mark != 0 {
            let (set, peers) = peers(attachment.mark);
            contents.push((set, vec![peers]));
        }
        contents.extend(of(attachment));
    }
    contents
}

/// Adds all of one attachment's elements, or removes them.
pub fn change(messages: &mut super::wire::Messages, kind: nft::Kind, attachment: &Attachment) {
    for (set, elements) in of(attachment) {
        nft::change_elements(messages, kind, set, &elements);
    }
}

fn port_key(port: &Port) -> Vec<u8> {
    let proto = match port.proto {
        Proto::Tcp => libc::IPPROTO_TCP,
        Proto::Udp => libc::IPPROTO_UDP,
    };
    let mut key = match port.address {
        address if address.is_unspecified() => Vec::new(),
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    key.extend([proto as u8, 0, 0, 0]);
    key.extend(padded(port.host));
    key
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Uid;
    use holdfast_proto::words::{Generation, WorkerId};

    #[test]
    fn elements_are_read_back_as_they_were_made() {
        let start = Start { owner: Uid(1000), worker: WorkerId::from_random(7), generation: Generation(3) };
        let any = Port { proto: Proto::Tcp, address: Ipv4Addr::UNSPECIFIED.into(), host: 8080, worker: 80 };
        let at = Port { proto: Proto::Udp, address: Ipv4Addr::LOCALHOST.into(), host: 5353, worker: 53 };
        let at6 = Port { address: "2001:db8::1".parse().unwrap(), ..at };
        let attachment = Attachment {
            start,
            network: Network::Named("lan".parse().unwrap()),
            mark: 7,
            internal: true,
            link: LinkName::from_random(5),
            address: Ipv4Addr::new(10, 88, 0, 2),
            address6: Some("fd12:3456:789a:5800::2".parse().unwrap()),
            ports: vec![any, at, at6],
        };
        let sets = of(&attachment);
        assert_eq!(sets.len(), 7);
        assert_eq!(read_peers(&peers(7).1), Some(7));
        let mut found =
            BTreeMap::from([(start, read_worker(&sets[0].1[0]).unwrap().attachment(attachment.network, 7))]);
        for (set, elements) in &sets[1..] {
            elements.iter().for_each(|element| complete(set, element, &mut found).unwrap());
        }
        assert_eq!(found[&start], attachment);
        assert_eq!(read_link(&link(attachment.link).1), Some(attachment.link));
        let worker = read_worker(&sets[0].1[0]).unwrap();
        assert_eq!((worker.start, worker.link, worker.address), (start, attachment.link, attachment.address));
        let published = |set: &CStr| sets.iter().find(|(name, _)| *name == set).unwrap().1[0].clone();
        assert_eq!(published(PUBLISH.name).key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(published(PUBLISH6.name).key, published(PUBLISH.name).key);
        assert_eq!(read_port(PUBLISH.name, &published(PUBLISH.name)), Some((start, any)));
        assert_eq!(read_port(PUBLISH_AT.name, &published(PUBLISH_AT.name)), Some((start, at)));
        assert_eq!(read_port(PUBLISH6_AT.name, &published(PUBLISH6_AT.name)), Some((start, at6)));
        let other = Element { value: Some(vec![9; 20]), ..published(PUBLISH6.name) };
        assert_eq!(complete(PUBLISH6.name, &other, &mut found), None, "to an address that is not the worker's");
        for length in 0..12 {
            let cut = Element { key: vec![6; length], value: Some(vec![0; length]), comment: start.to_string() };
            let _ = (read_worker(&cut), read_port(PUBLISH.name, &cut), read_port(PUBLISH_AT.name, &cut));
        }
    }
}
