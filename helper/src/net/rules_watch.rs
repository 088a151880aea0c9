//! What nf_tables tells of changes that others make: that our table is gone, and who did it (`nft monitor` shows the same).
//!
//! Needed only where the kernel has no tables that outlive their owner (docs/decisions/0010): there, whoever flushes the
//! ruleset flushes ours.

use super::nft::{Kind, TABLE};
use super::wire::{self, WireError, received};
use netlink_bindings::nftables::{GenAttrs, Nfgenmsg, TableAttrs};
use rustix::fd::OwnedFd;
use rustix::net::SocketFlags;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
const NEW_GENERATION: u16 = Kind::NewTable.wire() | 15;

/// Who took the table away, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Its process.
    pub pid: u32,
    /// The name of that process.
    pub name: String,
}

/// Reads notifications: a table that went is told before the generation that it went with.
#[derive(Debug, Default)]
pub struct Reader {
    gone: bool,
}

/// Opens the socket that the kernel tells it by.
pub fn open() -> Result<OwnedFd, WireError> {
    wire::open(libc::NETLINK_NETFILTER, 1 << (GROUP - 1), SocketFlags::NONBLOCK)
}

impl Reader {
    /// Who took our table away, if somebody did.
    pub fn read(&mut self, datagram: &[u8]) -> Option<Culprit> {
        let mut culprit = None;
        for message in received(datagram) {
            let attributes = message.body.get(Nfgenmsg::len()..).unwrap_or_default();
            let family = message.body.first().map(|family| i32::from(*family));
            if message.kind == Kind::DelTable.wire() && family == Some(libc::NFPROTO_INET) {
                self.gone |= TableAttrs::new(attributes).get_name().is_ok_and(|name| name == TABLE);
            } else if message.kind == NEW_GENERATION && self.gone {
                self.gone = false;
                let generation = GenAttrs::new(attributes);
                let name = generation.get_proc_name().map(|name| name.to_string_lossy().into_owned());
                culprit = Some(Culprit {
                    pid: generation.get_proc_pid().unwrap_or_default(),
                    name: name.unwrap_or_default().chars().filter(|c| !c.is_control()).collect(),
                });
            }
        }
        culprit
    }
}
