//! Whether a program of the host listens on a port already (sock_diag(7)): publishing it would hide that program.

use super::wire::{DUMP, Messages, Wire, WireError};
use crate::words::{Port, Proto};
use netlink_bindings::inet_diag::{Msg, ReplyAttrs, ReqV2, Sockid};
use std::net::{Ipv4Addr, Ipv6Addr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u32 = 10;
/// A UDP socket that is bound and not connected.
const TCP_CLOSE: u32 = 7;

/// The first of these ports that a socket of this network namespace is bound to, on the same address.
pub fn in_use<'p>(wire: &mut Wire, ports: impl Iterator<Item = &'p Port>) -> Result<Option<Port>, WireError> {
    for port in ports {
        for family in [libc::AF_INET, libc::AF_INET6] {
            if bound(wire, port, family as u8)? {
                return Ok(Some(*port));
            }
        }
    }
    Ok(None)
}

fn bound(wire: &mut Wire, port: &Port, family: u8) -> Result<bool, WireError> {
    let (protocol, state) = match port.proto {
        Proto::Tcp => (libc::IPPROTO_TCP, TCP_LISTEN),
        Proto::Udp => (libc::IPPROTO_UDP, TCP_CLOSE),
    };
    let mut found = false;
    let mut request = Messages::default();
    request.push(SOCK_DIAG_BY_FAMILY, DUMP, |b| {
        let mut sockid = Sockid::new();
        sockid._sport_be = port.host.to_be();
        let query = ReqV2 { family, protocol: protocol as u8, states: 1 << state, sockid, ..Default::default() };
        b.extend(query.as_slice());
    });
    wire.ask(request, |_, body| {
        let Some((head, attributes)) = body.split_at_checked(Msg::len()) else { return };
        let Some(head) = Msg::new_from_slice(head) else { return };
        let six_only = ReplyAttrs::new(attributes).get_skv6only().is_ok();
        if u16::from_be(head.sockid._sport_be) == port.host
            && let Some(address) = listens_on(head.family, head.sockid.src, six_only)
        {
            found |= address.is_unspecified() || port.address.is_unspecified() || address == port.address;
        }
    })?;
    Ok(found)
}

/// The IPv4 address that a socket answers on, if any: one of IPv6 may answer on all of them.
fn listens_on(family: u8, source: [u8; 16], six_only: bool) -> Option<Ipv4Addr> {
    if i32::from(family) == libc::AF_INET {
        return Some(Ipv4Addr::new(source[0], source[1], source[2], source[3]));
    }
    let address = Ipv6Addr::from(source);
    if address.is_unspecified() { (!six_only).then_some(Ipv4Addr::UNSPECIFIED) } else { address.to_ipv4_mapped() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_socket_on_everything_answers_ipv4_unless_told_not_to() {
        let six = libc::AF_INET6 as u8;
        assert_eq!(listens_on(six, [0; 16], false), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(listens_on(six, [0; 16], true), None);
        assert_eq!(listens_on(six, Ipv6Addr::LOCALHOST.octets(), false), None);
        assert_eq!(listens_on(six, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(), false), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(listens_on(libc::AF_INET as u8, [127; 16], false), Some(Ipv4Addr::new(127, 127, 127, 127)));
    }
}
