//! The wire forms between daemon, helper, launcher and shim, the files that a shim leaves, the lock of each main, and
//! the limits it started with.
//!
//! Never does: a system call, but for [`lock`] and [`own_limits`]. Daemon and helper link this library; the launcher's
//! and the shim's own code is in their binaries. Every form starts with a version byte; old shims outlive updates, so a
//! form is only ever added to under a new version (fixtures in `fixtures/` pin the bytes).

#![forbid(unsafe_code)]

pub mod codec;
pub mod control;
pub mod counters;
pub mod launch;
pub mod limits;
pub mod lock;
pub mod orders;
pub mod output;
pub mod own_limits;
pub mod record;
pub mod session;

pub use codec::WireError;
