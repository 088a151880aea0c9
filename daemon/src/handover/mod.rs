//! One daemon after another, without a moment in which a call is refused: the running one hands over to its successor.
//!
//! systemd starts the successor (`systemctl reload`: ExecReload of the unit), in the unit's cgroup and a fresh sandbox
//! of the unit's. It calls at the daemon's own socket, which is below directories of root's, and is known there by its
//! cgroup: nobody but systemd puts a process into that. The old one gives it the listener, and, once the successor has
//! done what can fail without acting, stops acting: streams and calls end as at any other end (`leave`), the store is
//! closed, the lock let go. Then the successor acts, or, where it does not in time, is killed, and the old one goes on.
//! Two never act: who acts holds the lock.

mod giving;
mod line;
mod start;
mod taking;
mod words;

pub use giving::{Candidate, Successor};
pub use start::succeed;
pub use taking::{Predecessor, TakeError};
pub use words::State;

use std::sync::{Arc, Mutex, PoisonError};

/// What became of handovers since the unit was started. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Past(Arc<Mutex<(u32, String)>>);

impl Past {
    /// So many succeeded.
    pub fn set_done(&self, done: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = done;
    }

    /// How many there were, and why the last one that was tried failed; empty where it did not.
    pub fn told(&self) -> (u32, String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes one that failed.
    pub fn failed(&self, why: &str) {
        tracing::error!(why, "a handover failed; this daemon serves on");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = why.to_owned();
    }
}
