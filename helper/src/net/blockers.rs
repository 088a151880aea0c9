//! Forward chains of the host's own firewall that would drop what workers send: no other table can
//! overrule a drop, so they are found and named, with the rule to add.
//!
//! Seen is what nf_tables holds, which includes iptables-nft (so Docker, ufw and firewalld of today). Rules of
//! the legacy iptables cannot be read without more capabilities than the helper has.

use super::nft::{self, Kind, TABLE};
use super::wire::{DUMP, Messages, Wire, WireError};
use netlink_bindings::nftables::{ChainAttrs, ExprOps, IterableExprListAttrs, Nfgenmsg, PushRuleAttrs, RuleAttrs};
use rustix::io::Errno;
use std::ffi::CString;

const NF_INET_FORWARD: u32 = 2;
/// What `hf*` and `hf+` become: a comparison of the first two bytes.
const OUR_PREFIX: &[u8] = b"hf";

/// One chain in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Which, and what it does.
    pub what: String,
    /// What root may do about it.
    pub remedy: String,
}

/// A base chain on the forward hook, or any chain of such a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    family: u8,
    table: CString,
    name: CString,
    hooked: bool,
    drops: bool,
}

/// What one rule means here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Meaning {
    accepts_from_us: bool,
    accepts_to_us: bool,
    drops_everything: bool,
}

/// All chains that drop what workers send or are sent.
pub fn find(wire: &mut Wire) -> Result<Vec<Blocker>, WireError> {
    let chains = chains(wire)?;
    let mut blockers = Vec::new();
    for base in chains.iter().filter(|chain| chain.hooked) {
        let mut sum = Meaning::default();
        for chain in chains.iter().filter(|chain| (chain.family, &chain.table) == (base.family, &base.table)) {
            for rule in meanings(wire, chain)? {
                sum.accepts_from_us |= rule.accepts_from_us;
                sum.accepts_to_us |= rule.accepts_to_us;
                sum.drops_everything |= rule.drops_everything && chain.name == base.name;
            }
        }
        if (base.drops || sum.drops_everything) && !(sum.accepts_from_us && sum.accepts_to_us) {
            blockers.push(blocker(base, &chains));
        }
    }
    Ok(blockers)
}

fn blocker(base: &Chain, chains: &[Chain]) -> Blocker {
    let family = if i32::from(base.family) == libc::NFPROTO_INET { "inet" } else { "ip" };
    let (table, name) = (shown(&base.table), shown(&base.name));
    let what = format!("the host's firewall drops forwarded packets: table {family} {table}, chain {name}");
    let iptables = (family, table.as_str(), name.as_str()) == ("ip", "filter", "FORWARD");
    let remedy = if iptables {
        let docker = chains
            .iter()
            .any(|c| c.family == base.family && c.table == base.table && c.name.as_c_str() == c"DOCKER-USER");
        let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
        format!("iptables -I {chain} -i hf+ -j ACCEPT && iptables -I {chain} -o hf+ -j ACCEPT")
    } else {
        format!(
            "nft insert rule {family} {table} {name} iifname \"hf*\" accept && nft insert rule {family} {table} {name} oifname \"hf*\" accept"
        )
    };
    Blocker { what, remedy }
}

/// Root's names, but shown to people: nothing that a terminal or a shell would act on.
fn shown(name: &CString) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.to_string_lossy().chars().filter(safe).take(128).collect()
}

fn chains(wire: &mut Wire) -> Result<Vec<Chain>, WireError> {
    let mut chains = Vec::new();
    let mut request = Messages::default();
    request.push(Kind::GetChain.wire(), DUMP, |b| nft::header(b, libc::AF_UNSPEC));
    wire.ask(request, |_, body| chains.extend(read_chain(body)))?;
    Ok(chains)
}

fn read_chain(body: &[u8]) -> Option<Chain> {
    let (head, attributes) = body.split_at_checked(Nfgenmsg::len())?;
    let family = *head.first()?;
    let attributes = ChainAttrs::new(attributes);
    let table = attributes.get_table().ok()?.to_owned();
    let ours = i32::from(family) == libc::NFPROTO_INET && table.as_c_str() == TABLE;
    let relevant = [libc::NFPROTO_INET, libc::NFPROTO_IPV4].contains(&i32::from(family));
    let hook = attributes.get_hook().and_then(|hook| hook.get_num()).ok();
    (relevant && !ours).then(|| {
        Some(Chain {
            family,
            table,
            name: attributes.get_name().ok()?.to_owned(),
            hooked: hook == Some(NF_INET_FORWARD),
            drops: attributes.get_policy().ok() == Some(libc::NF_DROP as u32),
        })
    })?
}

fn meanings(wire: &mut Wire, chain: &Chain) -> Result<Vec<Meaning>, WireError> {
    let mut meanings = Vec::new();
    let mut request = Messages::default();
    request.push(Kind::GetRule.wire(), DUMP, |b| {
        nft::header(b, chain.family.into());
        PushRuleAttrs::new(b).push_table(&chain.table).push_chain(&chain.name);
    });
    let asked = wire.ask(request, |_, body| {
        let attributes = RuleAttrs::new(body.get(Nfgenmsg::len()..).unwrap_or_default());
        if let Ok(expressions) = attributes.get_expressions() {
            meanings.push(meaning(&expressions));
        }
    });
    match asked {
        // Gone since it was listed.
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(Vec::new()),
        outcome => outcome.map(|()| meanings),
    }
}

/// Reads one rule as far as it concerns workers: unconditional drops, and accepts of our links alone.
fn meaning(expressions: &IterableExprListAttrs<'_>) -> Meaning {
    let mut meaning = Meaning::default();
    let (mut loaded, mut from_us, mut to_us, mut other_condition) = (None, false, false, false);
    for expression in expressions.get_elem() {
        match (expression.get_name().map(|n| n.to_bytes()), expression.get_data()) {
            (_, Ok(ExprOps::Meta(meta))) => loaded = meta.get_key().ok(),
            (_, Ok(ExprOps::Cmp(cmp))) => {
                let ours = cmp.get_data().and_then(|data| data.get_value()).is_ok_and(|value| value == OUR_PREFIX);
                from_us |= ours && loaded == Some(libc::NFT_META_IIFNAME as u32);
                to_us |= ours && loaded == Some(libc::NFT_META_OIFNAME as u32);
                other_condition |= !ours;
            }
            (_, Ok(ExprOps::Immediate(immediate))) => {
                let code = immediate
                    .get_data()
                    .and_then(|data| data.get_verdict())
                    .and_then(|verdict| verdict.get_code())
                    .ok();
                let accepts = code == Some(libc::NF_ACCEPT as u32) && !other_condition;
                meaning.accepts_from_us = accepts && from_us && !to_us;
                meaning.accepts_to_us = accepts && to_us && !from_us;
                meaning.drops_everything = code == Some(libc::NF_DROP as u32) && !other_condition && !from_us && !to_us;
            }
            (Ok(b"counter" | b"log" | b"limit"), _) => {}
            (Ok(b"reject"), _) => meaning.drops_everything = !other_condition && !from_us && !to_us,
            _ => other_condition = true,
        }
    }
    meaning
}
