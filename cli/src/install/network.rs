//! Removes what the helper leaves in the kernel for its next start: the owners' bridges and the table `holdfast`.
//!
//! Only what carries the helper's tag is touched. The few messages are written by hand: the command has no other use
//! for a netlink library.

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// How every interface of the helper's is tagged (ifalias), followed by the owner's uid.
const TAG: &str = "holdfast owner=";
const TABLE: &[u8] = b"holdfast\0";
const ANSWER_MAX: Duration = Duration::from_secs(5);

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const RTM_DELLINK: u16 = 17;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFPROTO_INET: u8 = 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER_PERSIST: u32 = 2 | 4;

/// Removes interfaces of one owner, or of all.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_links(uid: Option<u32>) -> io::Result<()> {
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        // An interface that vanishes meanwhile is as good as removed.
        let alias = fs::read_to_string(path.join("ifalias")).unwrap_or_default();
        if is_of(&alias, uid)
            && let Some(index) = index_of(&path)
        {
            remove_link(index)?;
        }
    }
    Ok(())
}

/// Removes the helper's table, if it is there.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_table() -> io::Result<()> {
    let nfgenmsg = |family: u8, subsystem: u8| vec![family, 0, 0, subsystem];
    let mut named = nfgenmsg(NFPROTO_INET, 0);
    named.extend((4 + TABLE.len() as u16).to_ne_bytes());
    named.extend(NFTA_TABLE_NAME.to_ne_bytes());
    named.extend(TABLE);
    named.resize(named.len().next_multiple_of(4), 0);
    let batch = |kind: u16, body: &[u8]| {
        let kind = u16::from(NFNL_SUBSYS_NFTABLES) << 8 | kind;
        let mut batch = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, &nfgenmsg(0, NFNL_SUBSYS_NFTABLES));
        batch.extend(message(kind, NLM_F_REQUEST | NLM_F_ACK, body));
        batch.extend(message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, &nfgenmsg(0, NFNL_SUBSYS_NFTABLES)));
        batch
    };
    // A table that the helper left behind is nobody's: only who adopts it may remove it (decisions/0010). Refused where
    // the table is of another kind, which needs none of it.
    let mut adopted = named.clone();
    adopted.extend(8_u16.to_ne_bytes());
    adopted.extend(NFTA_TABLE_FLAGS.to_ne_bytes());
    adopted.extend(NFT_TABLE_F_OWNER_PERSIST.to_be_bytes());
    let socket = open(Some(netlink::NETFILTER))?;
    let _ = ask(&socket, &batch(NFT_MSG_NEWTABLE, &adopted));
    gone(ask(&socket, &batch(NFT_MSG_DELTABLE, &named)))
}

fn is_of(alias: &str, uid: Option<u32>) -> bool {
    let Some(rest) = alias.strip_prefix(TAG) else { return false };
    let owner = rest.split_whitespace().next().and_then(|word| word.parse().ok());
    owner.is_some_and(|owner: u32| uid.is_none_or(|uid| uid == owner))
}

fn index_of(path: &Path) -> Option<i32> {
    fs::read_to_string(path.join("ifindex")).ok()?.trim().parse().ok()
}

fn remove_link(index: i32) -> io::Result<()> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    // NETLINK_ROUTE is protocol 0.
    gone(ask(&open(None)?, &message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, &body)))
}

/// What is not there any more was to be removed.
fn gone(outcome: Result<(), Errno>) -> io::Result<()> {
    match outcome {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// One message: struct nlmsghdr and its body, which is a multiple of four bytes.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn open(protocol: Option<rustix::net::Protocol>) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends and waits for the one acknowledgement.
fn ask(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    rustix::net::sendto(socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 4096];
    let (_, count) = rustix::net::recv(socket, &mut answer, RecvFlags::empty())?;
    let word = |at: usize| answer[..count].get(at..at + 4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let is_error = answer[..count].get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
    match word(16) {
        Some(0) if is_error => Ok(()),
        Some(code) if is_error => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_helpers_tag_of_the_right_owner_counts() {
        let alias = "holdfast owner=1000 network=bridge subnet=10.88.0.0/22\n";
        assert!(is_of(alias, None) && is_of(alias, Some(1000)));
        assert!(!is_of(alias, Some(100)) && !is_of(alias, Some(10000)));
        for other in ["", "docker", "holdfast", "holdfast owner=", "holdfast owner=x", "not holdfast owner=1000"] {
            assert!(!is_of(other, None), "{other:?}");
        }
    }
}
