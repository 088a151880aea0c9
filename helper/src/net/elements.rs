//! What differs by worker: its elements in the ruleset's sets, each with the start that it belongs to.

use super::nft::{self, Element};
use super::ruleset::{PUBLISH, PUBLISH_AT, WORKERS};
use crate::ledger::Attachment;
use crate::words::{LinkName, Port, Proto, Start};
use std::ffi::CStr;
use std::net::Ipv4Addr;

/// The elements of one attachment, by set.
pub fn of(attachment: &Attachment) -> Vec<(&'static CStr, Vec<Element>)> {
    let who = attachment.start.to_string();
    let worker = Element {
        key: [&attachment.bridge.padded()[..], &attachment.address.octets()].concat(),
        value: None,
        comment: format!("{who} link={}", attachment.link),
    };
    let (any, at): (Vec<&Port>, Vec<&Port>) = attachment.ports.iter().partition(|port| port.address.is_unspecified());
    let published = |port: &&Port| Element {
        key: port_key(port),
        value: Some([&attachment.address.octets()[..], &padded(port.worker)].concat()),
        comment: who.clone(),
    };
    let sets = [
        (WORKERS.name, vec![worker]),
        (PUBLISH.name, any.iter().map(published).collect()),
        (PUBLISH_AT.name, at.iter().map(published).collect()),
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
    /// Bridge.
    pub bridge: LinkName,
    /// Address.
    pub address: Ipv4Addr,
}

/// Reads an element of [`WORKERS`]; none where it is not as [`of`] makes them.
pub fn read_worker(element: &Element) -> Option<WorkerElement> {
    let (bridge, address) = element.key.split_at_checked(16)?;
    let link = element.comment.split(' ').find_map(|word| word.strip_prefix("link="))?;
    Some(WorkerElement {
        start: element.comment.parse().ok()?,
        link: link.parse().ok()?,
        bridge: LinkName::from_padded(bridge)?,
        address: <[u8; 4]>::try_from(address).ok()?.into(),
    })
}

/// Reads an element of [`PUBLISH`] or [`PUBLISH_AT`].
pub fn read_port(set: &CStr, element: &Element) -> Option<(Start, Port)> {
    let (address, rest) = if set == PUBLISH_AT.name {
        let (address, rest) = element.key.split_first_chunk::<4>()?;
        (Ipv4Addr::from(*address), rest)
    } else {
        (Ipv4Addr::UNSPECIFIED, &element.key[..])
    };
    let proto = match i32::from(*rest.first()?) {
        libc::IPPROTO_TCP => Proto::Tcp,
        libc::IPPROTO_UDP => Proto::Udp,
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.get(4..6).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let port = Port { proto, address, host: number(rest)?, worker: number(element.value.as_deref()?)? };
    Some((element.comment.parse().ok()?, port))
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
    let mut key = if port.address.is_unspecified() { Vec::new() } else { port.address.octets().to_vec() };
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
        let any = Port { proto: Proto::Tcp, address: Ipv4Addr::UNSPECIFIED, host: 8080, worker: 80 };
        let at = Port { proto: Proto::Udp, address: Ipv4Addr::LOCALHOST, host: 5353, worker: 53 };
        let attachment = Attachment {
            start,
            link: LinkName::from_random(5),
            bridge: LinkName::from_random(6),
            subnet: "10.88.0.0/22".parse().unwrap(),
            address: Ipv4Addr::new(10, 88, 0, 2),
            ports: vec![any, at],
        };
        let sets = of(&attachment);
        assert_eq!(sets.len(), 3);
        let worker = read_worker(&sets[0].1[0]).unwrap();
        assert_eq!((worker.start, worker.link, worker.address), (start, attachment.link, attachment.address));
        assert_eq!(sets[1].1[0].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(read_port(sets[1].0, &sets[1].1[0]), Some((start, any)));
        assert_eq!(read_port(sets[2].0, &sets[2].1[0]), Some((start, at)));
        for length in 0..12 {
            let cut = Element { key: vec![6; length], value: Some(vec![0; length]), comment: start.to_string() };
            let _ = (read_worker(&cut), read_port(PUBLISH.name, &cut), read_port(PUBLISH_AT.name, &cut));
        }
    }
}
