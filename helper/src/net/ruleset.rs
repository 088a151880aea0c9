//! The rules that hold for every worker, as values. What differs by worker are elements of the sets in it.
//!
//! `nft list table inet holdfast` shows the same. Traffic that neither comes from nor goes to a link of a
//! worker is accepted unread, but for what forwarding of ours would otherwise let through (`uplinks`).

use super::expr::{Base, Expr, Meta, Register, Verdict};
use super::nft::{Chain, Hook, Set};
use crate::prefix6::CLOUDS;
use std::ffi::CStr;
use std::net::Ipv6Addr;

/// Rises with every change to this file: a table of another form is replaced in one transaction.
pub const FORM: &[u8] = b"holdfast ruleset 4";

// Types as nft(8) numbers them (`enum datatypes`).
const NFPROTO: u32 = 2;
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const DEVGROUP: u32 = 35;
const IFNAME: u32 = 41;

/// Host ends of workers' links.
pub const LINKS: Set = Set { name: c"links", key: (&[IFNAME], 16), value: None };
/// Names of the host's links where we, and nobody else, switched forwarding on.
pub const UPLINKS: Set = Set { name: c"uplinks", key: (&[IFNAME], 16), value: None };
/// Families that the host forwards for workers alone.
pub const NO_ROUTER: Set = Set { name: c"no_router", key: (&[NFPROTO], 1), value: None };
/// Link and address of each worker: what may come in there.
pub const WORKERS: Set = Set { name: c"workers", key: (&[IFNAME, IPV4_ADDR], 20), value: None };
/// The same of IPv6.
pub const WORKERS6: Set = Set { name: c"workers6", key: (&[IFNAME, IPV6_ADDR], 32), value: None };
/// Groups of links (`ip link … group`) between which packets pass: each named network's with itself.
pub const PEERS: Set = Set { name: c"peers", key: (&[DEVGROUP, DEVGROUP], 8), value: None };
/// Links whose network has no way out.
pub const INTERNAL: Set = Set { name: c"internal", key: (&[IFNAME], 16), value: None };
/// Ports published on every address.
pub const PUBLISH: Set =
    Set { name: c"publish", key: (&[INET_PROTO, INET_SERVICE], 8), value: Some((&[IPV4_ADDR, INET_SERVICE], 8)) };
/// The same, to the workers' IPv6 addresses.
pub const PUBLISH6: Set =
    Set { name: c"publish6", key: (&[INET_PROTO, INET_SERVICE], 8), value: Some((&[IPV6_ADDR, INET_SERVICE], 20)) };
/// Ports published on one address.
pub const PUBLISH_AT: Set = Set {
    name: c"publish_at",
    key: (&[IPV4_ADDR, INET_PROTO, INET_SERVICE], 12),
    value: Some((&[IPV4_ADDR, INET_SERVICE], 8)),
};

/// Ports published on one IPv6 address.
pub const PUBLISH6_AT: Set = Set {
    name: c"publish6_at",
    key: (&[IPV6_ADDR, INET_PROTO, INET_SERVICE], 24),
    value: Some((&[IPV6_ADDR, INET_SERVICE], 20)),
};

/// All sets, in the order in which they are made.
pub const SETS: [Set; 11] =
    [LINKS, UPLINKS, NO_ROUTER, WORKERS, WORKERS6, PEERS, INTERNAL, PUBLISH, PUBLISH6, PUBLISH_AT, PUBLISH6_AT];

const FILTER: &CStr = c"filter";
const NAT: &CStr = c"nat";
const PUBLISH_TO: &CStr = c"publish_to";
const PUBLISH6_TO: &CStr = c"publish6_to";
const EARLY6: &CStr = c"early6";
const FROM_WORKER: &CStr = c"from_worker";
const TO_WORKER: &CStr = c"to_worker";
// enum nf_inet_hooks
const PREROUTING: i32 = 0;
const INPUT: i32 = 1;
const FORWARD: i32 = 2;
const OUTPUT: i32 = 3;
const POSTROUTING: i32 = 4;
// enum nf_ip_hook_priorities
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const NORMAL: i32 = 0;
const SRCNAT: i32 = 100;

/// First register.
const R0: Register = Register(0);
/// Second 4 bytes: after an address or a protocol.
const R1: Register = Register(1);
/// Third 4 bytes.
const R2: Register = Register(2);
/// After a link's name, or an IPv6 address.
const R4: Register = Register(4);
/// After an IPv6 address and a protocol.
const R5: Register = Register(5);
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const ICMP_ECHO: u8 = 8;
/// First type of ICMPv6 that is neither an error nor an echo: listeners and neighbours, routers, redirects (RFC 4443, 4861).
const ICMPV6_OF_A_LINK: u8 = 130;
/// First byte of link-local addresses (`fe80::/10`), and of nothing else that is in use.
const LINK_LOCAL6: u8 = 0xfe;
const MULTICAST6: u8 = 0xff;
/// `169.254.0.0/16`.
const LINK_LOCAL: [u8; 2] = [169, 254];

/// All chains: those that are jumped to first.
pub fn chains() -> Vec<Chain> {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    vec![
        Chain { name: PUBLISH_TO, hook: None, rules: publish_to() },
        Chain { name: PUBLISH6_TO, hook: None, rules: publish6_to() },
        Chain { name: EARLY6, hook: None, rules: early6() },
        Chain { name: FROM_WORKER, hook: None, rules: from_worker() },
        Chain { name: TO_WORKER, hook: None, rules: to_worker() },
        Chain { name: c"early", hook: hook(FILTER, PREROUTING, RAW), rules: early() },
        Chain { name: c"publish_in", hook: hook(NAT, PREROUTING, DSTNAT), rules: publish() },
        Chain { name: c"publish_out", hook: hook(NAT, OUTPUT, DSTNAT), rules: publish() },
        Chain { name: c"input", hook: hook(FILTER, INPUT, NORMAL), rules: input() },
        Chain { name: c"forward", hook: hook(FILTER, FORWARD, NORMAL), rules: forward() },
        Chain { name: c"masquerade_out", hook: hook(NAT, POSTROUTING, SRCNAT), rules: masquerade_out() },
    ]
}

/// Before conntrack sees it, and before a published port could answer: a worker speaks by its own address, never to or
/// from loopback (which `route_localnet` on its link would otherwise let in), and never to a link-local address, where
/// metadata services are.
fn early() -> Vec<Vec<Expr>> {
    let link_local = vec![prefix(DESTINATION, 2), Expr::Equals(R0, LINK_LOCAL.to_vec())];
    vec![
        rule([outside(Meta::InName)], Verdict::Accept),
        rule([ipv6()], Verdict::Goto(EARLY6)),
        rule([ipv4(), link_local], Verdict::Drop),
        rule([ipv4(), loopback(DESTINATION)], Verdict::Drop),
        rule([ipv4(), worker(Meta::InName, SOURCE, true)], Verdict::Drop),
    ]
}

/// The same for IPv6, where a link-local source, with it every word of a router, is nobody's own address. Nothing on a
/// worker's link is found by asking (each end knows the other), so nobody there has to ask or to answer.
fn early6() -> Vec<Vec<Expr>> {
    let to = |bytes: &[u8]| vec![prefix(DESTINATION6, bytes.len() as u32), Expr::Equals(R0, bytes.to_vec())];
    let of_a_link = vec![
        Expr::Meta(Meta::Transport, R0),
        Expr::Equals(R0, vec![libc::IPPROTO_ICMPV6 as u8]),
        Expr::Payload { base: Base::Transport, offset: 0, bytes: 1, to: R0 },
        Expr::AtLeast(R0, vec![ICMPV6_OF_A_LINK]),
    ];
    let loopback = Ipv6Addr::LOCALHOST.octets();
    let mut closed: Vec<Vec<u8>> = vec![vec![LINK_LOCAL6], vec![MULTICAST6], loopback.to_vec()];
    closed.extend(CLOUDS.map(|cloud| cloud.to_vec()));
    let mut rules = vec![rule([worker6(Meta::InName, SOURCE6, true)], Verdict::Drop)];
    rules.extend(closed.iter().map(|bytes| rule([to(bytes)], Verdict::Drop)));
    rules.push(rule([of_a_link], Verdict::Drop));
    rules
}

/// Published ports answer on every address of the host, for others and for the host itself. Not on `::1`, since IPv6 has no
/// `route_localnet`: answers would never find back to a caller there, who is refused at once and then tries 127.0.0.1; nor
/// on link-local addresses, whose callers nobody may forward.
fn publish() -> Vec<Vec<Expr>> {
    let local = || vec![Expr::DestinationKind(R0), Expr::Equals(R0, LOCAL.to_ne_bytes().to_vec())];
    let wide = vec![
        prefix(DESTINATION6, 16),
        Expr::Differs(R0, Ipv6Addr::LOCALHOST.octets().to_vec()),
        prefix(DESTINATION6, 1),
        Expr::Differs(R0, vec![LINK_LOCAL6]),
    ];
    vec![rule([ipv4(), local()], Verdict::Jump(PUBLISH_TO)), rule([ipv6(), wide, local()], Verdict::Jump(PUBLISH6_TO))]
}

/// A port of one address goes before the same port of all.
fn publish_to() -> Vec<Vec<Expr>> {
    let dnat = || Expr::Dnat { family: libc::NFPROTO_IPV4, address: R0, port: R1 };
    let at = [ipv4(), vec![address(DESTINATION, R0), Expr::Meta(Meta::Transport, R1), port(R2)]].concat();
    let any = [ipv4(), vec![Expr::Meta(Meta::Transport, R0), port(R1)]].concat();
    vec![
        [at, vec![Expr::Map { map: PUBLISH_AT.name, key: R0, value: R0 }, dnat()]].concat(),
        [any, vec![Expr::Map { map: PUBLISH.name, key: R0, value: R0 }, dnat()]].concat(),
    ]
}

fn publish6_to() -> Vec<Vec<Expr>> {
    let dnat = || Expr::Dnat { family: libc::NFPROTO_IPV6, address: R0, port: R4 };
    let at = [ipv6(), vec![prefix(DESTINATION6, 16), Expr::Meta(Meta::Transport, R4), port(R5)]].concat();
    let any = [ipv6(), vec![Expr::Meta(Meta::Transport, R0), port(R1)]].concat();
    vec![
        [at, vec![Expr::Map { map: PUBLISH6_AT.name, key: R0, value: R0 }, dnat()]].concat(),
        [any, vec![Expr::Map { map: PUBLISH6.name, key: R0, value: R0 }, dnat()]].concat(),
    ]
}

/// The host's own services are closed to workers; they may ping their gateway.
fn input() -> Vec<Vec<Expr>> {
    let echo = vec![
        Expr::Meta(Meta::Transport, R0),
        Expr::Equals(R0, vec![libc::IPPROTO_ICMP as u8]),
        Expr::Payload { base: Base::Transport, offset: 0, bytes: 1, to: R0 },
        Expr::Equals(R0, vec![ICMP_ECHO]),
    ];
    vec![
        rule([outside(Meta::InName)], Verdict::Accept),
        rule([known()], Verdict::Accept),
        rule([ipv4(), echo], Verdict::Accept),
        rule([], Verdict::Drop),
    ]
}

fn forward() -> Vec<Vec<Expr>> {
    let no_router = vec![Expr::Meta(Meta::Family, R0), Expr::In { set: NO_ROUTER.name, key: R0, not: false }];
    let uplink = vec![Expr::Meta(Meta::InName, R0), Expr::In { set: UPLINKS.name, key: R0, not: false }];
    vec![
        rule([inside(Meta::InName)], Verdict::Goto(FROM_WORKER)),
        rule([inside(Meta::OutName)], Verdict::Goto(TO_WORKER)),
        rule([ipv4(), uplink], Verdict::Drop),
        rule([no_router], Verdict::Drop),
    ]
}

/// To workers of the same named network, to published ports and to the outside (unless the network is internal), not to
/// other workers. What nobody may reach was dropped before ([`early`]).
fn from_worker() -> Vec<Vec<Expr>> {
    let same_network = vec![
        Expr::Meta(Meta::InGroup, R0),
        Expr::Meta(Meta::OutGroup, R1),
        Expr::In { set: PEERS.name, key: R0, not: false },
    ];
    let internal = vec![Expr::Meta(Meta::InName, R0), Expr::In { set: INTERNAL.name, key: R0, not: false }];
    vec![
        rule([known()], Verdict::Accept),
        rule([same_network], Verdict::Accept),
        rule([internal], Verdict::Drop),
        rule([published()], Verdict::Accept),
        rule([outside(Meta::OutName)], Verdict::Accept),
        rule([], Verdict::Drop),
    ]
}

fn to_worker() -> Vec<Vec<Expr>> {
    vec![rule([known()], Verdict::Accept), rule([published()], Verdict::Accept), rule([], Verdict::Drop)]
}

/// Loopback callers, workers that call a published port of their own, and whatever leaves for the outside.
fn masquerade_out() -> Vec<Vec<Expr>> {
    let masquerade = |parts: &[Vec<Expr>]| [parts.concat(), vec![Expr::Masquerade]].concat();
    vec![
        masquerade(&[inside(Meta::OutName), ipv4(), loopback(SOURCE)]),
        masquerade(&[ipv4(), worker(Meta::OutName, SOURCE, false), published()]),
        masquerade(&[ipv6(), worker6(Meta::OutName, SOURCE6, false), published()]),
        masquerade(&[inside(Meta::InName), outside(Meta::OutName)]),
    ]
}

/// Offsets of addresses in an IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// The same in one of IPv6.
const SOURCE6: u32 = 8;
const DESTINATION6: u32 = 24;

fn rule<const N: usize>(parts: [Vec<Expr>; N], end: Verdict) -> Vec<Expr> {
    [parts.concat(), vec![Expr::End(end)]].concat()
}

fn inside(which: Meta) -> Vec<Expr> {
    vec![Expr::Meta(which, R0), Expr::In { set: LINKS.name, key: R0, not: false }]
}

fn outside(which: Meta) -> Vec<Expr> {
    vec![Expr::Meta(which, R0), Expr::In { set: LINKS.name, key: R0, not: true }]
}

fn worker(link: Meta, offset: u32, not: bool) -> Vec<Expr> {
    vec![Expr::Meta(link, R0), address(offset, R4), Expr::In { set: WORKERS.name, key: R0, not }]
}

fn worker6(link: Meta, offset: u32, not: bool) -> Vec<Expr> {
    let address6 = Expr::Payload { base: Base::Network, offset, bytes: 16, to: R4 };
    vec![Expr::Meta(link, R0), address6, Expr::In { set: WORKERS6.name, key: R0, not }]
}

fn ipv4() -> Vec<Expr> {
    vec![Expr::Meta(Meta::Family, R0), Expr::Equals(R0, vec![IPV4])]
}

fn ipv6() -> Vec<Expr> {
    vec![Expr::Meta(Meta::Family, R0), Expr::Equals(R0, vec![IPV6])]
}

fn loopback(address: u32) -> Vec<Expr> {
    vec![prefix(address, 1), Expr::Equals(R0, vec![127])]
}

/// The first bytes of an address.
fn prefix(address: u32, bytes: u32) -> Expr {
    Expr::Payload { base: Base::Network, offset: address, bytes, to: R0 }
}

fn known() -> Vec<Expr> {
    vec![Expr::CtState(R0), Expr::AnyBit(R0, ESTABLISHED_OR_RELATED)]
}

fn published() -> Vec<Expr> {
    vec![Expr::CtStatus(R0), Expr::AnyBit(R0, DST_NAT)]
}

fn address(offset: u32, to: Register) -> Expr {
    Expr::Payload { base: Base::Network, offset, bytes: 4, to }
}

fn port(to: Register) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, bytes: 2, to }
}
