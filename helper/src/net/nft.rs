//! nf_tables as values: rules, chains, sets, and the messages that carry them (nft(8), nfnetlink).
//!
//! Only what the ruleset needs. Everything is binary attributes; no text of anybody's is ever parsed.

use super::expr::{Expr, push_expr};
use super::wire::{APPEND, CREATE, Messages};
use netlink_bindings::nftables::{
    Nfgenmsg, PushBatchAttrs, PushChainAttrs, PushRuleAttrs, PushSetAttrs, PushSetelemListAttrs, PushTableAttrs,
};
use std::ffi::CStr;

/// The one table that is ours.
pub const TABLE: &CStr = c"holdfast";

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Numbers of nf_tables messages (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u16)]
pub enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    NewSetElem = 12,
    GetSetElem = 13,
    DelSetElem = 14,
    GetGen = 16,
}

impl Kind {
    /// As `nlmsg_type`.
    pub const fn wire(self) -> u16 {
        (NFNL_SUBSYS_NFTABLES << 8) | self as u16
    }
}

/// A hook that a base chain hangs on.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static CStr,
    /// `NF_INET_*`.
    pub number: i32,
    /// Lower ones run first.
    pub priority: i32,
}

/// A chain with its rules.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its name.
    pub name: &'static CStr,
    /// Absent for one that is only jumped to.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Vec<Expr>>,
}

/// A set, or a map where it has values.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Its name.
    pub name: &'static CStr,
    /// Types of the key's parts as nft numbers them, for who lists it, and their bytes in all.
    pub key: (&'static [u32], u32),
    /// The same of the value.
    pub value: Option<(&'static [u32], u32)>,
}

/// One element: key, value for a map, and a comment for people and for the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Exactly the set's bytes.
    pub key: Vec<u8>,
    /// Exactly the map's bytes.
    pub value: Option<Vec<u8>>,
    /// At most [`COMMENT_BYTES_MAX`].
    pub comment: String,
}

/// Most bytes of a comment: the kernel keeps 256 of user data, two are its header, one its end.
pub const COMMENT_BYTES_MAX: usize = 253;
/// `NFTNL_UDATA_SET_ELEM_COMMENT`, as nft(8) writes and shows it.
const UDATA_COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`, four bytes, host byte order.
const UDATA_KEY_HOST_ENDIAN: [u8; 6] = [0, 4, 1, 0, 0, 0];
/// Elements in one message: far below the 64 KiB that an attribute's length can say.
const ELEMENTS_PER_MESSAGE: usize = 128;

/// The header that all of these messages share.
pub fn header(b: &mut Vec<u8>, family: i32) {
    b.extend(Nfgenmsg { nfgen_family: family as u8, version: 0, _res_id_be: 0 }.as_slice());
}

/// A transaction: all of it, or (by the kernel) nothing. `generation`: it is refused if anything changed since.
pub fn transaction(changes: impl FnOnce(&mut Messages)) -> Messages {
    let mut messages = Messages::default();
    let bracket = |b: &mut Vec<u8>| {
        b.extend(
            Nfgenmsg { nfgen_family: libc::AF_UNSPEC as u8, version: 0, _res_id_be: NFNL_SUBSYS_NFTABLES.to_be() }
                .as_slice(),
        );
    };
    messages.push(BATCH_BEGIN, 0, |b| {
        bracket(b);
        PushBatchAttrs::new(b);
    });
    changes(&mut messages);
    messages.push(BATCH_END, 0, bracket);
    messages
}

/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: nobody but the socket that made (or adopted) the table changes or flushes
/// it, and it stays when that socket closes. From Linux 6.9.
pub const OWNED: u32 = 2 | 4;

/// Adds the table, with a word about its form in its user data. `flags`: [`OWNED`] or 0.
pub fn add_table(messages: &mut Messages, form: &[u8], flags: u32) {
    messages.push(Kind::NewTable.wire(), CREATE, |b| {
        header(b, libc::NFPROTO_INET);
        PushTableAttrs::new(b).push_name(TABLE).push_flags(flags).push_userdata(form);
    });
}

/// Makes a table that is there this socket's own; refused where it is not [`OWNED`], or another's.
pub fn adopt_table(messages: &mut Messages) {
    messages.push(Kind::NewTable.wire(), 0, |b| {
        header(b, libc::NFPROTO_INET);
        PushTableAttrs::new(b).push_name(TABLE).push_flags(OWNED);
    });
}

/// Removes the table and all in it.
pub fn delete_table(messages: &mut Messages) {
    messages.push(Kind::DelTable.wire(), 0, |b| {
        header(b, libc::NFPROTO_INET);
        PushTableAttrs::new(b).push_name(TABLE);
    });
}

/// Adds a chain without its rules: chains that jump to each other need all to be there.
pub fn add_chain(messages: &mut Messages, chain: &Chain) {
    messages.push(Kind::NewChain.wire(), CREATE, |b| {
        header(b, libc::NFPROTO_INET);
        let attributes = PushChainAttrs::new(b).push_table(TABLE).push_name(chain.name);
        if let Some(hook) = chain.hook {
            let attributes = attributes.push_type(hook.kind).push_policy(libc::NF_ACCEPT as u32);
            attributes.nested_hook().push_num(hook.number as u32).push_priority(hook.priority);
        }
    });
}

/// Adds the rules of a chain, in order.
pub fn add_rules(messages: &mut Messages, chain: &Chain) {
    for rule in &chain.rules {
        messages.push(Kind::NewRule.wire(), CREATE | APPEND, |b| {
            header(b, libc::NFPROTO_INET);
            let attributes = PushRuleAttrs::new(b).push_table(TABLE).push_chain(chain.name);
            let mut expressions = attributes.nested_expressions();
            for expression in rule {
                expressions = push_expr(expressions, expression);
            }
        });
    }
}

/// Adds a set or map; `id` is its number within the transaction.
pub fn add_set(messages: &mut Messages, set: &Set, id: u32) {
    // nft joins the types of a concatenation as six bits each.
    let joined = |types: &[u32]| types.iter().fold(0, |all, each| (all << 6) | each);
    messages.push(Kind::NewSet.wire(), CREATE, |b| {
        header(b, libc::NFPROTO_INET);
        let flags = if set.value.is_some() { libc::NFT_SET_MAP as u32 } else { 0 };
        let attributes = PushSetAttrs::new(b)
            .push_table(TABLE)
            .push_name(set.name)
            .push_id(id)
            .push_flags(flags)
            .push_key_type(joined(set.key.0))
            .push_key_len(set.key.1);
        // Without this word nft(8) shows names of links reversed; the kernel does not look at it.
        let attributes = attributes.push_userdata(if set.key.0.len() == 1 { &UDATA_KEY_HOST_ENDIAN } else { &[] });
        if let Some((types, bytes)) = set.value {
            attributes.push_data_type(joined(types)).push_data_len(bytes);
        }
    });
}

/// Adds or removes elements. Removing takes only keys that are there.
pub fn change_elements(messages: &mut Messages, kind: Kind, set: &CStr, elements: &[Element]) {
    let flags = if kind == Kind::NewSetElem { CREATE } else { 0 };
    for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
        messages.push(kind.wire(), flags, |b| {
            header(b, libc::NFPROTO_INET);
            let mut list = PushSetelemListAttrs::new(b).push_table(TABLE).push_set(set).nested_elements();
            for element in chunk {
                let mut each = list.nested_elem().nested_key().push_value(&element.key).end_nested();
                if kind == Kind::NewSetElem {
                    if let Some(value) = &element.value {
                        each = each.nested_data().push_value(value).end_nested();
                    }
                    each = each.push_userdata(&udata(&element.comment));
                }
                list = each.end_nested();
            }
        });
    }
}

/// Asks for the generation: its answer shows that everything sent before it was looked at.
pub fn barrier() -> Messages {
    let mut messages = Messages::default();
    messages.push(Kind::GetGen.wire(), 0, |b| header(b, libc::AF_UNSPEC));
    messages
}

/// A comment as nft(8) keeps it: kind, length, text, NUL.
fn udata(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(COMMENT_BYTES_MAX)];
    let mut bytes = vec![UDATA_COMMENT, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

/// The comment in user data that nft(8) or [`udata`] made.
pub fn comment(userdata: &[u8]) -> Option<&str> {
    let [kind, length, text @ ..] = userdata else { return None };
    let text = text.get(..usize::from(*length))?.strip_suffix(&[0])?;
    (*kind == UDATA_COMMENT).then(|| std::str::from_utf8(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read_back_and_hostile_ones_are_not() {
        let text = "owner=1000 worker=00ff00ff00ff00ff generation=1";
        assert_eq!(comment(&udata(text)), Some(text));
        assert!(udata(&"x".repeat(1000)).len() <= 256);
        for bytes in [&[][..], &[0], &[0, 5], &[0, 255, b'x', 0], &[1, 2, b'x', 0], &[0, 2, 0xff, 0], &[0, 1, b'x']] {
            assert_eq!(comment(bytes), None, "{bytes:?}");
        }
    }
}
