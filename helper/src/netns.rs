//! Whether a descriptor that a launcher sent is what it should be: a network namespace of that owner, and not the host's.
//!
//! It proves no more than "the owner's", and need not: a foreign link can never be pushed into the host's own
//! namespace or into another owner's (CVE-2017-5985 is the precedent).

use crate::sys;
use crate::words::Uid;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;

/// A network namespace that belongs to the owner it was checked for. Only [`checked`] makes one.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Why a descriptor was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Not a network namespace at all.
    #[error("the launcher sent no network namespace")]
    Kind,
    /// The host's own, or somebody else's.
    #[error("the launcher sent a network namespace that is not its owner's")]
    NotTheirs,
    /// The kernel would not say.
    #[error("a namespace cannot be looked at: {0}")]
    Look(#[from] io::Error),
}

/// What is compared: a namespace is the same exactly where device and inode are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

/// The identity of the namespace that this process is in.
pub fn own() -> io::Result<Identity> {
    let stat = rustix::fs::stat("/proc/self/ns/net")?;
    Ok(Identity(stat.st_dev, stat.st_ino))
}

/// Takes a descriptor as `owner`'s network namespace.
pub fn checked(descriptor: OwnedFd, owner: Uid, host: Identity) -> Result<Netns, NetnsError> {
    if sys::namespace_kind(descriptor.as_fd()).ok() != Some(libc::CLONE_NEWNET) {
        return Err(NetnsError::Kind);
    }
    let stat = rustix::fs::fstat(&descriptor).map_err(io::Error::from)?;
    let theirs = Identity(stat.st_dev, stat.st_ino) != host && belongs(descriptor.as_fd(), owner)?;
    if theirs { Ok(Netns(descriptor)) } else { Err(NetnsError::NotTheirs) }
}

/// A namespace whose user namespace lies outside of ours (EPERM) is not the owner's either.
fn belongs(namespace: BorrowedFd<'_>, owner: Uid) -> Result<bool, NetnsError> {
    match sys::user_namespace_of(namespace) {
        Ok(users) => Ok(sys::owner_of(users.as_fd())? == owner),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_owners_namespace_is_refused() {
        let host = own().unwrap();
        let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
        assert!(matches!(checked(open("/proc/self/ns/net"), Uid(1000), host), Err(NetnsError::NotTheirs)));
        assert!(matches!(checked(open("/proc/self/ns/user"), Uid(1000), host), Err(NetnsError::Kind)));
        assert!(matches!(checked(open("/proc/self/ns/mnt"), Uid(1000), host), Err(NetnsError::Kind)));
        assert!(matches!(checked(open("/proc/self/status"), Uid(1000), host), Err(NetnsError::Kind)));
        assert!(matches!(checked(open("/dev/null"), Uid(1000), host), Err(NetnsError::Kind)));
        let elsewhere = Identity(0, 0);
        assert!(matches!(checked(open("/proc/self/ns/net"), Uid(1000), elsewhere), Err(NetnsError::NotTheirs)));
    }
}
