//! The system calls that no safe wrapper offers. All `unsafe` of this crate is here.

use crate::words::Uid;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

// ioctl_ns(2): _IO(0xb7, n).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// Takes over the descriptors that came with the start of this process (LISTEN_FDS).
///
/// Called once, first of all, by `main`, before anything else could own them.
pub fn adopt(descriptors: impl Iterator<Item = RawFd>) -> Vec<OwnedFd> {
    // SAFETY: `from_raw_fd` wants open descriptors that nobody else owns. They are those that sd_listen_fds(3)
    // promises to this very process (LISTEN_PID was compared), and this is the one place that takes them.
    descriptors.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()
}

/// Hands a descriptor to the runtime, which waits for `interest` on it.
pub fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` refers to one open file from its making to its drop, and only the `AsyncFd`,
    // which takes it over and gives out no `&mut` of it here, drops it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}

/// The kind of a namespace (`CLONE_NEW*`); an error for a descriptor that is none.
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; on a descriptor of
    // another kind it fails with ENOTTY.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) })
}

/// The user namespace that a namespace belongs to.
pub fn user_namespace_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: NS_GET_USERNS takes no argument and touches no memory of ours.
    let raw = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) })?;
    // SAFETY: the call above succeeded, so `raw` is a new descriptor that only we know.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Who made a user namespace.
pub fn owner_of(user_namespace: BorrowedFd<'_>) -> io::Result<Uid> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t to the address given, which is that of a live local.
    check(unsafe { libc::ioctl(user_namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) })?;
    Ok(Uid(uid))
}

fn check(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}
