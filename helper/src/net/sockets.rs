//! Whether a program of the host listens on a port already (sock_diag(7)): publishing it would hide that program.

use super::wire::{DUMP, Messages, Wire, WireError};
use crate::rules::no_place_to_publish;
use crate::words::{Port, Proto};
use netlink_bindings::inet_diag::{Msg, ReqV2, Sockid};
use netlink_bindings::utils::chop_header;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u32 = 10;
/// A UDP socket that is bound and not connected.
const TCP_CLOSE: u32 = 7;
/// `INET_DIAG_SKV6ONLY`: a byte, where `netlink-bindings` 0.3.5 takes it for a flag.
const ONLY_SIX: u16 = 11;

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
        found |= u16::from_be(head.sockid._sport_be) == port.host
            && clashes(port.address, head.family, head.sockid.src, only_six(attributes));
    })?;
    Ok(found)
}

fn only_six(attributes: &[u8]) -> bool {
    let mut position = 0;
    while let Some((header, value)) = chop_header(attributes, &mut position) {
        if header.r#type == ONLY_SIX {
            return value.first() == Some(&1);
        }
    }
    false
}

/// Whether a socket hears callers of a port that is published on `published` (0.0.0.0: on all addresses, but for those of
/// IPv6 where nothing is published).
fn clashes(published: IpAddr, family: u8, source: [u8; 16], only_six: bool) -> bool {
    let bound = if i32::from(family) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::new(source[0], source[1], source[2], source[3]))
    } else {
        Ipv6Addr::from(source).to_canonical()
    };
    match (published, bound) {
        (_, IpAddr::V4(bound)) if bound.is_unspecified() => published.is_ipv4(),
        (_, IpAddr::V6(bound)) if bound.is_unspecified() => {
            published.is_ipv6() || published.is_unspecified() || !only_six
        }
        (published, bound) if published.is_unspecified() => no_place_to_publish(bound).is_none(),
        (published, bound) => published == bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_socket_on_everything_answers_ipv4_unless_told_not_to() {
        let bound = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(four) => {
                let mut source = [0; 16];
                source[..4].copy_from_slice(&four.octets());
                (libc::AF_INET as u8, source)
            }
            IpAddr::V6(six) => (libc::AF_INET6 as u8, six.octets()),
        };
        let on = |published: &str, text: &str, only_six| {
            let (family, source) = bound(text);
            clashes(published.parse().unwrap(), family, source, only_six)
        };
        for (published, text, only_six, expected) in [
            ("0.0.0.0", "::", false, true),
            ("0.0.0.0", "::", true, true),
            ("192.0.2.1", "::", false, true),
            ("192.0.2.1", "::", true, false),
            ("2001:db8::1", "::", true, true),
            ("0.0.0.0", "::1", false, false),
            ("0.0.0.0", "fe80::1", false, false),
            ("0.0.0.0", "2001:db8::1", false, true),
            ("2001:db8::1", "2001:db8::1", false, true),
            ("2001:db8::1", "2001:db8::2", false, false),
            ("2001:db8::1", "0.0.0.0", false, false),
            ("192.0.2.1", "::ffff:192.0.2.1", false, true),
            ("192.0.2.1", "0.0.0.0", false, true),
            ("0.0.0.0", "127.0.0.1", false, true),
            ("192.0.2.1", "127.127.127.127", false, false),
        ] {
            assert_eq!(on(published, text, only_six), expected, "{published} beside {text} (only IPv6: {only_six})");
        }
        assert!(
            only_six(&[5, 0, 11, 0, 1, 0, 0, 0]) && !only_six(&[5, 0, 11, 0, 0, 0, 0, 0]) && !only_six(&[9, 0, 11, 0])
        );
    }
}
