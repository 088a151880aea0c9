//! `holdfast-launcher --keep`: the main process of the unit that workers live in. It sits in a cgroup of its own, so that
//! controllers can be enabled for the others, and does nothing more.

use crate::cgroups::{enter, open, own_path};
use crate::identity::{IdentityError, confine};

const OWN: &str = "keeper";

/// Why it does not keep.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is not what it has to be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no cgroup to keep.
    #[error("no cgroup: {0}")]
    Nowhere(String),
    /// It is not ours to divide.
    #[error("cannot enter {OWN} below the own cgroup: {0}")]
    Enter(#[source] rustix::io::Errno),
}

/// Returns only where it could not begin; a signal ends it.
pub fn run() -> Result<(), KeepError> {
    confine()?;
    let own = own_path().map_err(KeepError::Nowhere)?;
    open(&own).and_then(|dir| enter(&dir, OWN)).map_err(KeepError::Enter)?;
    // Where nobody asked to be told, nobody waits either.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        nix::unistd::pause();
    }
}
