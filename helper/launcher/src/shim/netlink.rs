//! The inside of the worker's network namespace, by the few rtnetlink(7) messages that it takes.

use crate::halt::{CAGE, Halt, Step};
use holdfast_launcher::launch::Wiring;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

/// The loopback's index in every network namespace.
const LOOPBACK: u32 = 1;

/// How long the kernel may take for one answer.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

const HEADER_BYTES: usize = 16;
/// linux/rtnetlink.h
const RTNH_F_ONLINK: u32 = 4;
/// linux/if_link.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const NLA_F_NESTED: u16 = 1 << 15;

/// Loopback up: before the launcher's word, so that it costs nobody time.
pub fn loopback_up() -> Result<(), Halt> {
    ask(&open()?, up(LOOPBACK), "lo up")
}

/// The link with its addresses and default routes, if the worker has one.
pub fn set_up(wiring: &Wiring) -> Result<(), Halt> {
    if wiring.link.is_empty() {
        return Ok(());
    }
    let socket = open()?;
    let index = rustix::net::netdevice::name_to_index(&socket, &wiring.link).step(format!("link {}", wiring.link))?;
    if wiring.addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        ask(&socket, no_link_local(index), "no link-local address")?;
    }
    for (ip, prefix) in &wiring.addresses {
        ask(&socket, address(index, *ip, *prefix), &format!("address {ip}/{prefix}"))?;
    }
    ask(&socket, up(index), &format!("{} up", wiring.link))?;
    for gateway in &wiring.gateways {
        ask(&socket, default_route(index, *gateway), &format!("route by {gateway}"))?;
    }
    Ok(())
}

/// The way between a link and a tap device behind which a guest has an address: the guest by the tap, all others by the
/// link. Both up afterwards; `own` is this side's on the tap.
pub fn open_way(link: &str, tap: &str, own: (Ipv4Addr, u8), guest: Ipv4Addr) -> Result<(), Halt> {
    let socket = open()?;
    let index = |name: &str| rustix::net::netdevice::name_to_index(&socket, name).step(format!("link {name}"));
    let (link, tap) = (index(link)?, index(tap)?);
    ask(&socket, address(tap, own.0.into(), own.1), "address of the tap")?;
    ask(&socket, up(tap), "tap up")?;
    ask(&socket, direct_route(tap, guest, 32), "route to the guest")?;
    ask(&socket, up(link), "link up")?;
    ask(&socket, direct_route(link, Ipv4Addr::UNSPECIFIED, 0), "route to all others")
}

/// Protocol 0 is NETLINK_ROUTE.
fn open() -> Result<OwnedFd, Halt> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).step("netlink")
}

/// A message without its header's length and with flags that ask for an answer.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.raw(&Self::nest(&[(kind, value)]))
    }

    /// Attributes, each padded to four bytes.
    fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in attributes {
            bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// struct ifinfomsg: family, pad, type u16, index i32, flags u32, change u32.
fn up(index: u32) -> Vec<u8> {
    let flag = (libc::IFF_UP as u32).to_ne_bytes();
    let message = Message::new(libc::RTM_NEWLINK, 0);
    message.raw(&[0; 4]).raw(&index.to_ne_bytes()).raw(&flag).raw(&flag).finish()
}

/// The worker speaks by the address that it is given, or not at all: one that the kernel makes by itself would only have
/// it ask for routers, in vain.
fn no_link_local(index: u32) -> Vec<u8> {
    let mode = Message::nest(&[(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])]);
    let families = Message::nest(&[(libc::AF_INET6 as u16 | NLA_F_NESTED, &mode)]);
    let message = Message::new(libc::RTM_NEWLINK, 0).raw(&[0; 4]).raw(&index.to_ne_bytes()).raw(&[0; 8]);
    message.attribute(IFLA_AF_SPEC | NLA_F_NESTED, &families).finish()
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index u32. No duplicate detection: the helper owns the
/// network, and the address must serve at once.
fn address(index: u32, ip: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, octets) = octets(ip);
    let flags = if ip.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
        .raw(&[family, prefix, flags, libc::RT_SCOPE_UNIVERSE])
        .raw(&index.to_ne_bytes())
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
        .finish()
}

/// struct rtmsg: family, two lengths, tos, table, protocol, scope, type, flags u32. The address covers nothing but
/// itself, so that the gateway is on the link by this word alone.
fn default_route(index: u32, gateway: IpAddr) -> Vec<u8> {
    let (family, octets) = octets(gateway);
    Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
        .raw(&[family, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST])
        .raw(&RTNH_F_ONLINK.to_ne_bytes())
        .attribute(libc::RTA_GATEWAY, &octets)
        .attribute(libc::RTA_OIF, &index.to_ne_bytes())
        .finish()
}

/// Without a gateway: the link has no neighbours, or the one.
fn direct_route(index: u32, to: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
        .raw(&[
            libc::AF_INET as u8,
            prefix,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            libc::RT_SCOPE_LINK,
            libc::RTN_UNICAST,
        ])
        .raw(&[0; 4]);
    let message = if prefix > 0 { message.attribute(libc::RTA_DST, &to.octets()) } else { message };
    message.attribute(libc::RTA_OIF, &index.to_ne_bytes()).finish()
}

fn octets(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

/// Sends one message and takes the kernel's answer to it.
fn ask(socket: &OwnedFd, message: Vec<u8>, step: &str) -> Result<(), Halt> {
    rustix::net::send(socket, &message, SendFlags::empty()).step(step)?;
    let mut answer = [0; 1024];
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PATIENCE)).step(step)? == 0 {
        return Err(Halt::new(CAGE, step, Errno::TIMEDOUT));
    }
    let (len, _) = rustix::net::recv(socket, &mut answer, RecvFlags::DONTWAIT).step(step)?;
    match outcome(&answer[..len]) {
        Some(0) => Ok(()),
        Some(errno) => Err(Halt::new(CAGE, step, Errno::from_raw_os_error(errno))),
        None => Err(Halt::new(CAGE, step, Errno::PROTO)),
    }
}

/// The errno in an NLMSG_ERROR message; 0 is the acknowledgement.
fn outcome(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(error.checked_neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernel_s_layout() {
        let message = address(7, IpAddr::from([10, 88, 0, 2]), 22);
        assert_eq!(message.len(), 16 + 8 + 8 + 8);
        assert_eq!(message[..4], 40u32.to_ne_bytes());
        assert_eq!(message[16..20], [libc::AF_INET as u8, 22, 0, 0]);
        assert_eq!(message[24..32], [8, 0, 2, 0, 10, 88, 0, 2]);
        let route = default_route(7, "fd00::1".parse().unwrap());
        assert_eq!(route.len(), 16 + 12 + 20 + 8);
        let mode = no_link_local(7);
        assert_eq!(mode[32..], [16, 0, 26, 0x80, 12, 0, 10, 0x80, 5, 0, 8, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn answers_that_are_no_acknowledgement_are_no_success() {
        assert_eq!(outcome(&[0; 8]), None);
        assert_eq!(outcome(&[0; 36]), None);
        let mut answer = [0; 36];
        answer[4] = libc::NLMSG_ERROR as u8;
        assert_eq!(outcome(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(outcome(&answer), Some(17));
    }
}
