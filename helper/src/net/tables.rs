//! What nf_tables holds: our table's form, elements, and other people's chains.

use super::nft::{self, Element, Kind, TABLE};
use super::ruleset::{FORM, SETS, chains};
use super::wire::{DUMP, Messages, Wire, WireError};
use netlink_bindings::nftables::{
    IterableSetelemAttrs, Nfgenmsg, PushSetelemListAttrs, PushTableAttrs, SetelemListAttrs, TableAttrs,
};
use rustix::io::Errno;
use std::ffi::CStr;

/// Tries of a dump that changed while it was read.
const DUMP_TRIES_MAX: usize = 8;

/// How our table was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// As this program makes it.
    Same,
    /// Of another form: an older or newer helper's.
    Other,
    /// Not there.
    Absent,
}

/// Looks for our table.
pub fn find(wire: &mut Wire) -> Result<Found, WireError> {
    let mut found = Found::Absent;
    let mut request = Messages::default();
    request.push(Kind::GetTable.wire(), super::wire::ACK, |b| {
        nft::header(b, libc::NFPROTO_INET);
        PushTableAttrs::new(b).push_name(TABLE);
    });
    let asked = wire.ask(request, |_, body| {
        let form = body.get(Nfgenmsg::len()..).and_then(|a| TableAttrs::new(a).get_userdata().ok());
        found = if form == Some(FORM) { Found::Same } else { Found::Other };
    });
    match asked {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(Found::Absent),
        outcome => outcome.map(|()| found),
    }
}

/// What sets hold, by name.
pub type Contents = Vec<(&'static CStr, Vec<Element>)>;

/// Makes our table, or makes it anew, in one transaction that keeps every element: no packet meets a gap. Where there
/// is none, it gets `contents`. Answers whether others cannot flush it (decisions/0010).
pub fn lay(wire: &mut Wire, contents: Contents) -> Result<bool, WireError> {
    let found = find(wire)?;
    let adopted = found != Found::Absent && wire.transact(nft::transaction(nft::adopt_table), nft::barrier()).is_ok();
    if found == Found::Same {
        return Ok(adopted);
    }
    let mut kept = contents;
    if found == Found::Other {
        // A set that the other form has not is empty in this one.
        kept = SETS.iter().map(|set| (set.name, elements(wire, set.name).unwrap_or_default())).collect();
    }
    let mut with =
        |flags| wire.transact(nft::transaction(|all| lay_messages(all, found, &kept, flags)), nft::barrier());
    match with(nft::OWNED) {
        Err(error) if matches!(error.errno(), Some(Errno::OPNOTSUPP | Errno::INVAL)) => with(0).map(|()| false),
        outcome => outcome.map(|()| true),
    }
}

fn lay_messages(messages: &mut Messages, found: Found, kept: &Contents, flags: u32) {
    if found == Found::Other {
        nft::delete_table(messages);
    }
    nft::add_table(messages, FORM, flags);
    for (id, set) in SETS.iter().enumerate() {
        nft::add_set(messages, set, id as u32 + 1);
    }
    for (set, elements) in kept {
        nft::change_elements(messages, Kind::NewSetElem, set, elements);
    }
    let chains = chains();
    for chain in &chains {
        nft::add_chain(messages, chain);
    }
    for chain in &chains {
        nft::add_rules(messages, chain);
    }
}

/// All elements of one of our sets.
pub fn elements(wire: &mut Wire, set: &CStr) -> Result<Vec<Element>, WireError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut all = Vec::new();
        let mut request = Messages::default();
        request.push(Kind::GetSetElem.wire(), DUMP, |b| {
            nft::header(b, libc::NFPROTO_INET);
            PushSetelemListAttrs::new(b).push_table(TABLE).push_set(set);
        });
        let asked = wire.ask(request, |_, body| {
            let attributes = body.get(Nfgenmsg::len()..).unwrap_or_default();
            if let Ok(list) = SetelemListAttrs::new(attributes).get_elements() {
                all.extend(list.get_elem().filter_map(|element| read(&element)));
            }
        });
        match asked {
            Err(error) if error.errno() == Some(Errno::INTR) && tries < DUMP_TRIES_MAX => {}
            outcome => return outcome.map(|()| all),
        }
    }
}

fn read(element: &IterableSetelemAttrs<'_>) -> Option<Element> {
    let key = element.get_key().ok()?.get_value().ok()?.to_vec();
    let value = element.get_data().ok().and_then(|data| data.get_value().ok()).map(<[u8]>::to_vec);
    let comment = element.get_userdata().ok().and_then(nft::comment).unwrap_or_default().to_owned();
    Some(Element { key, value, comment })
}
