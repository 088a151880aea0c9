//! The rules that hold for every worker, as values. What differs by worker are elements of the sets in it.
//!
//! `nft list table inet holdfast` shows the same. Traffic that neither comes from nor goes to a link of a
//! worker is accepted unread, but for what forwarding of ours would otherwise let through (`uplinks`).

use super::expr::{Base, Expr, Meta, Register, Verdict};
use super::nft::{Chain, Hook, Set};
use std::ffi::CStr;

/// Rises with every change to this file: a table of another form is replaced in one transaction.
pub const FORM: &[u8] = b"holdfast ruleset 3";

// Types as nft(8) numbers them (`enum datatypes`).
const IPV4_ADDR: u32 = 7;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const DEVGROUP: u32 = 35;
const IFNAME: u32 = 41;

/// Host ends of workers' links.
pub const LINKS: Set = Set { name: c"links", key: (&[IFNAME], 16), value: None };
/// Names of the host's links where we, and nobody else, switched forwarding on.
pub const UPLINKS: Set = Set { name: c"uplinks", key: (&[IFNAME], 16), value: None };
/// Link and address of each worker: what may come in there.
pub const WORKERS: Set = Set { name: c"workers", key: (&[IFNAME, IPV4_ADDR], 20), value: None };
/// Groups of links (`ip link … group`) between which packets pass: each named network's with itself.
pub const PEERS: Set = Set { name: c"peers", key: (&[DEVGROUP, DEVGROUP], 8), value: None };
/// Links whose network has no way out.
pub const INTERNAL: Set = Set { name: c"internal", key: (&[IFNAME], 16), value: None };
/// Ports published on every address.
pub const PUBLISH: Set =
    Set { name: c"publish", key: (&[INET_PROTO, INET_SERVICE], 8), value: Some((&[IPV4_ADDR, INET_SERVICE], 8)) };
/// Ports published on one address.
pub const PUBLISH_AT: Set = Set {
    name: c"publish_at",
    key: (&[IPV4_ADDR, INET_PROTO, INET_SERVICE], 12),
    value: Some((&[IPV4_ADDR, INET_SERVICE], 8)),
};

/// All sets, in the order in which they are made.
pub const SETS: [Set; 7] = [LINKS, UPLINKS, WORKERS, PEERS, INTERNAL, PUBLISH, PUBLISH_AT];

const FILTER: &CStr = c"filter";
const NAT: &CStr = c"nat";
const PUBLISH_TO: &CStr = c"publish_to";
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
/// After a link's name.
const R4: Register = Register(4);
const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const ICMP_ECHO: u8 = 8;

/// All chains: those that are jumped to first.
pub fn chains() -> Vec<Chain> {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    vec![
        Chain { name: PUBLISH_TO, hook: None, rules: publish_to() },
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

/// Before conntrack sees it: a worker speaks IPv4, by its own address, and never to or from loopback
/// (which `route_localnet` on its link would otherwise let in).
fn early() -> Vec<Vec<Expr>> {
    vec![
        rule([outside(Meta::InName)], Verdict::Accept),
        rule([vec![Expr::Meta(Meta::Family, R0), Expr::Equals(R0, vec![IPV6])]], Verdict::Drop),
        rule([ipv4(), loopback(DESTINATION)], Verdict::Drop),
        rule([ipv4(), worker(Meta::InName, SOURCE, true)], Verdict::Drop),
    ]
}

/// Published ports answer on every address of the host, for others and for the host itself.
fn publish() -> Vec<Vec<Expr>> {
    let local = vec![Expr::DestinationKind(R0), Expr::Equals(R0, LOCAL.to_ne_bytes().to_vec())];
    vec![rule([ipv4(), local], Verdict::Jump(PUBLISH_TO))]
}

/// A port of one address goes before the same port of all.
fn publish_to() -> Vec<Vec<Expr>> {
    let dnat = || Expr::Dnat { address: R0, port: R1 };
    let at = [ipv4(), vec![payload(DESTINATION, R0), Expr::Meta(Meta::Transport, R1), port(R2)]].concat();
    let any = [ipv4(), vec![Expr::Meta(Meta::Transport, R0), port(R1)]].concat();
    vec![
        [at, vec![Expr::Map { map: PUBLISH_AT.name, key: R0, value: R0 }, dnat()]].concat(),
        [any, vec![Expr::Map { map: PUBLISH.name, key: R0, value: R0 }, dnat()]].concat(),
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
    let uplink = vec![Expr::Meta(Meta::InName, R0), Expr::In { set: UPLINKS.name, key: R0, not: false }];
    vec![
        rule([inside(Meta::InName)], Verdict::Goto(FROM_WORKER)),
        rule([inside(Meta::OutName)], Verdict::Goto(TO_WORKER)),
        rule([uplink], Verdict::Drop),
    ]
}

/// To workers of the same named network, to published ports and to the outside (unless the network is internal). Not
/// to link-local addresses (metadata services), not to other workers.
fn from_worker() -> Vec<Vec<Expr>> {
    let link_local = vec![
        Expr::Payload { base: Base::Network, offset: DESTINATION, bytes: 2, to: R0 },
        Expr::Equals(R0, vec![169, 254]),
    ];
    let same_network = vec![
        Expr::Meta(Meta::InGroup, R0),
        Expr::Meta(Meta::OutGroup, R1),
        Expr::In { set: PEERS.name, key: R0, not: false },
    ];
    let internal = vec![Expr::Meta(Meta::InName, R0), Expr::In { set: INTERNAL.name, key: R0, not: false }];
    vec![
        rule([known()], Verdict::Accept),
        rule([ipv4(), link_local], Verdict::Drop),
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
        masquerade(&[inside(Meta::InName), outside(Meta::OutName)]),
    ]
}

/// Offsets of addresses in an IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

fn rule<const N: usize>(parts: [Vec<Expr>; N], end: Verdict) -> Vec<Expr> {
    [parts.concat(), vec![Expr::End(end)]].concat()
}

fn inside(which: Meta) -> Vec<Expr> {
    vec![Expr::Meta(which, R0), Expr::In { set: LINKS.name, key: R0, not: false }]
}

fn outside(which: Meta) -> Vec<Expr> {
    vec![Expr::Meta(which, R0), Expr::In { set: LINKS.name, key: R0, not: true }]
}

fn worker(link: Meta, address: u32, not: bool) -> Vec<Expr> {
    vec![Expr::Meta(link, R0), payload(address, R4), Expr::In { set: WORKERS.name, key: R0, not }]
}

fn ipv4() -> Vec<Expr> {
    vec![Expr::Meta(Meta::Family, R0), Expr::Equals(R0, vec![IPV4])]
}

fn loopback(address: u32) -> Vec<Expr> {
    vec![Expr::Payload { base: Base::Network, offset: address, bytes: 1, to: R0 }, Expr::Equals(R0, vec![127])]
}

fn known() -> Vec<Expr> {
    vec![Expr::CtState(R0), Expr::AnyBit(R0, ESTABLISHED_OR_RELATED)]
}

fn published() -> Vec<Expr> {
    vec![Expr::CtStatus(R0), Expr::AnyBit(R0, DST_NAT)]
}

fn payload(address: u32, to: Register) -> Expr {
    Expr::Payload { base: Base::Network, offset: address, bytes: 4, to }
}

fn port(to: Register) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, bytes: 2, to }
}
