//! Flows that conntrack knows: those of an address that was given back are forgotten, so that no packet of theirs
//! is still translated or let through (conntrack(8), `nfnetlink_conntrack.h`).

use super::nft;
use super::wire::{ACK, DUMP, Messages, Wire, WireError};
use netlink_bindings::utils::{chop_header, push_header};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::net::IpAddr;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const HEADER_BYTES: usize = 4;
// enum ctattr_type
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
/// `CTA_TUPLE_IP`.
const TUPLE_IP: u16 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
/// Entries that go in one send.
const DELETES_PER_SEND: usize = 128;

/// One flow: its original tuple and its number, as the kernel wrote them.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    family: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

/// Forgets every flow from or to one of these addresses, before or after translation. Returns how many.
pub fn forget(wire: &mut Wire, addresses: &BTreeSet<IpAddr>) -> Result<usize, WireError> {
    let mut flows = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        if !addresses.iter().any(|address| address.is_ipv4() == (family == libc::AF_INET)) {
            continue;
        }
        let mut request = Messages::default();
        request.push(GET, DUMP, |b| nft::header(b, family));
        wire.ask(request, |_, body| flows.extend(read(body, addresses)))?;
    }
    for some in flows.chunks(DELETES_PER_SEND) {
        let mut messages = Messages::default();
        for flow in some {
            messages.push(DELETE, ACK, |b| {
                nft::header(b, flow.family.into());
                push_header(b, TUPLE_ORIG | NESTED, flow.tuple.len() as u16);
                b.extend(&flow.tuple);
                push_header(b, ID, flow.id.len() as u16);
                b.extend(&flow.id);
            });
        }
        match wire.acknowledged(messages) {
            // Ended by itself meanwhile; the others were looked at all the same.
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(flows.len())
}

/// The flow, where it concerns one of the addresses.
fn read(body: &[u8], addresses: &BTreeSet<IpAddr>) -> Option<Flow> {
    let (head, attributes) = body.split_at_checked(HEADER_BYTES)?;
    let (mut flow, mut concerned) = (Flow { family: *head.first()?, tuple: Vec::new(), id: Vec::new() }, false);
    let mut position = 0;
    while let Some((header, value)) = chop_header(attributes, &mut position) {
        match header.r#type & TYPE_MASK {
            kind @ (TUPLE_ORIG | TUPLE_REPLY) => {
                concerned |= ends(value).iter().any(|address| addresses.contains(address));
                if kind == TUPLE_ORIG {
                    flow.tuple = value.to_vec();
                }
            }
            ID => flow.id = value.to_vec(),
            _ => {}
        }
    }
    concerned.then_some(flow)
}

/// Source and destination of a tuple.
fn ends(tuple: &[u8]) -> Vec<IpAddr> {
    let mut ends = Vec::new();
    let mut position = 0;
    while let Some((header, value)) = chop_header(tuple, &mut position) {
        if header.r#type & TYPE_MASK != TUPLE_IP {
            continue;
        }
        let mut inner = 0;
        while let Some((_, value)) = chop_header(value, &mut inner) {
            if let Ok(four) = <[u8; 4]>::try_from(value) {
                ends.push(IpAddr::from(four));
            } else if let Ok(sixteen) = <[u8; 16]>::try_from(value) {
                ends.push(IpAddr::from(sixteen));
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_header(&mut bytes, kind, value.len() as u16);
        bytes.extend(value);
        bytes
    }

    #[test]
    fn flows_are_found_by_any_of_their_four_ends_and_hostile_bytes_are_none() {
        let ip = |source: [u8; 4], to: [u8; 4]| {
            attribute(TUPLE_IP | NESTED, &[attribute(1, &source), attribute(2, &to)].concat())
        };
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
        body.extend(attribute(TUPLE_ORIG | NESTED, &ip([192, 0, 2, 1], [192, 0, 2, 2])));
        body.extend(attribute(TUPLE_REPLY | NESTED, &ip([10, 88, 0, 2], [192, 0, 2, 1])));
        body.extend(attribute(ID, &[1, 2, 3, 4]));
        let of = |text: &str| BTreeSet::from([text.parse::<IpAddr>().unwrap()]);
        for end in ["192.0.2.1", "192.0.2.2", "10.88.0.2"] {
            assert_eq!(read(&body, &of(end)).unwrap().id, [1, 2, 3, 4], "{end}");
        }
        assert_eq!(read(&body, &of("10.88.0.3")), None);
        for length in 0..body.len() {
            let _ = read(&body[..length], &of("10.88.0.2"));
        }
    }
}
