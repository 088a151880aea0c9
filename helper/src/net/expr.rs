//! The expressions that rules are made of, and how nf_tables reads them (nft(8), `linux/netfilter/nf_tables.h`).
//! Only those that the ruleset needs.

use netlink_bindings::nftables::{PushDataAttrs, PushExprAttrs, PushExprListAttrs};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::push_header;
use std::ffi::CStr;

// enum nft_lookup_attributes
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const LOOKUP_FLAGS: u16 = 5;

/// A 4-byte register; a 16-byte one is four of them. 0 is where a concatenated key starts.
#[derive(Debug, Clone, Copy)]
pub struct Register(pub u8);

impl Register {
    const fn wire(self) -> u32 {
        libc::NFT_REG32_00 as u32 + self.0 as u32
    }
}

/// `meta` keys in use.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Meta {
    InName,
    OutName,
    InGroup,
    OutGroup,
    Family,
    Transport,
}

/// Where a packet's bytes are counted from.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Base {
    Network,
    Transport,
}

/// What a rule ends with.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Verdict {
    Accept,
    Drop,
    Jump(&'static CStr),
    Goto(&'static CStr),
}

/// One expression of a rule.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Expr {
    /// Loads into a register.
    Meta(Meta, Register),
    Payload {
        base: Base,
        offset: u32,
        bytes: u32,
        to: Register,
    },
    CtState(Register),
    CtStatus(Register),
    /// Kind of the destination address (`RTN_LOCAL`, …).
    DestinationKind(Register),
    /// Goes on where the register's bits under `mask` are not all zero.
    AnyBit(Register, u32),
    /// Goes on where the register equals.
    Equals(Register, Vec<u8>),
    /// Goes on where it does not.
    Differs(Register, Vec<u8>),
    /// Goes on where it is not less.
    AtLeast(Register, Vec<u8>),
    /// Goes on where the set has (or, `not`, has not) the key that starts at the register.
    In {
        set: &'static CStr,
        key: Register,
        not: bool,
    },
    /// Goes on where the map has the key; its value replaces it.
    Map {
        map: &'static CStr,
        key: Register,
        value: Register,
    },
    /// New destination from registers.
    Dnat {
        family: i32,
        address: Register,
        port: Register,
    },
    /// Source becomes the address of the outgoing link.
    Masquerade,
    End(Verdict),
}

/// Adds one expression to a rule's list.
pub fn push_expr<P: Pusher>(list: PushExprListAttrs<P>, expression: &Expr) -> PushExprListAttrs<P> {
    let at = list.nested_elem();
    match expression {
        Expr::Meta(what, to) => {
            let key = match what {
                Meta::InName => libc::NFT_META_IIFNAME,
                Meta::OutName => libc::NFT_META_OIFNAME,
                Meta::InGroup => libc::NFT_META_IIFGROUP,
                Meta::OutGroup => libc::NFT_META_OIFGROUP,
                Meta::Family => libc::NFT_META_NFPROTO,
                Meta::Transport => libc::NFT_META_L4PROTO,
            };
            at.nested_data_meta().push_key(key as u32).push_dreg(to.wire()).end_nested().end_nested()
        }
        Expr::Payload { base, offset, bytes, to } => {
            let base = match base {
                Base::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
                Base::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
            };
            let payload = at.nested_data_payload().push_dreg(to.wire()).push_base(base as u32);
            payload.push_offset(*offset).push_len(*bytes).end_nested().end_nested()
        }
        Expr::CtState(to) => push_ct(at, libc::NFT_CT_STATE, *to),
        Expr::CtStatus(to) => push_ct(at, libc::NFT_CT_STATUS, *to),
        Expr::DestinationKind(to) => {
            const RESULT_ADDRTYPE: u32 = 3;
            const FLAG_DADDR: u32 = 1 << 1;
            let fib = at.nested_data_fib().push_dreg(to.wire()).push_result(RESULT_ADDRTYPE);
            fib.push_flags(FLAG_DADDR).end_nested().end_nested()
        }
        Expr::Equals(register, value) => push_cmp(at, libc::NFT_CMP_EQ, *register, value),
        Expr::Differs(register, value) => push_cmp(at, libc::NFT_CMP_NEQ, *register, value),
        Expr::AtLeast(register, value) => push_cmp(at, libc::NFT_CMP_GTE, *register, value),
        Expr::AnyBit(register, mask) => {
            let bits = at.nested_data_bitwise().push_sreg(register.wire()).push_dreg(register.wire()).push_len(4);
            let bits = bits.nested_mask().push_value(&mask.to_ne_bytes()).end_nested();
            let list = bits.nested_xor().push_value(&[0; 4]).end_nested().end_nested().end_nested();
            push_cmp(list.nested_elem(), libc::NFT_CMP_NEQ, *register, &[0; 4])
        }
        Expr::In { set, key, not } => push_lookup(at, set, *key, (LOOKUP_FLAGS, u32::from(*not))),
        Expr::Map { map, key, value } => push_lookup(at, map, *key, (LOOKUP_DREG, value.wire())),
        Expr::Dnat { family, address, port } => {
            let nat = at.nested_data_nat().push_type(libc::NFT_NAT_DNAT as u32).push_family(*family as u32);
            nat.push_reg_addr_min(address.wire()).push_reg_proto_min(port.wire()).end_nested().end_nested()
        }
        Expr::Masquerade => at.push_name(c"masq").end_nested(),
        Expr::End(verdict) => {
            push_verdict(at.nested_data_immediate().push_dreg(libc::NFT_REG_VERDICT as u32).nested_data(), *verdict)
        }
    }
}

type At<P> = PushExprAttrs<PushExprListAttrs<P>>;
type DataAt<P> = PushDataAttrs<
    netlink_bindings::nftables::PushExprImmediateAttrs<netlink_bindings::builtin::PushDummy<PushExprListAttrs<P>>>,
>;

fn push_ct<P: Pusher>(at: At<P>, key: i32, to: Register) -> PushExprListAttrs<P> {
    at.nested_data_ct().push_key(key as u32).push_dreg(to.wire()).end_nested().end_nested()
}

/// `netlink-bindings` 0.3.5 numbers these attributes wrongly (its source lists them in another order than
/// `enum nft_lookup_attributes`), so they are written by number.
fn push_lookup<P: Pusher>(at: At<P>, set: &CStr, key: Register, (last, value): (u16, u32)) -> PushExprListAttrs<P> {
    let mut lookup = at.nested_data_lookup().push_set(set);
    for (attribute, value) in [(LOOKUP_SREG, key.wire()), (last, value)] {
        let buffer = lookup.as_vec_mut();
        push_header(buffer, attribute, 4);
        buffer.extend(value.to_be_bytes());
    }
    lookup.end_nested().end_nested()
}

fn push_cmp<P: Pusher>(at: At<P>, how: i32, register: Register, value: &[u8]) -> PushExprListAttrs<P> {
    let cmp = at.nested_data_cmp().push_sreg(register.wire()).push_op(how as u32);
    cmp.nested_data().push_value(value).end_nested().end_nested().end_nested()
}

fn push_verdict<P: Pusher>(at: DataAt<P>, verdict: Verdict) -> PushExprListAttrs<P> {
    let (code, chain) = match verdict {
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
    };
    let mut verdict = at.nested_verdict().push_code(code as u32);
    if let Some(chain) = chain {
        verdict = verdict.push_chain(chain);
    }
    verdict.end_nested().end_nested().end_nested().end_nested()
}
