//! Boots a real systemd in a container, installs Holdfast there as root would, and acts in it as anybody.
//!
//! The scenarios are in `tests/scenarios`; each promises one thing by its name. Nothing of the product is
//! mocked, and no fault is injected by a switch of the product: faults come from outside.
//!
//! This crate never runs in the product and nothing depends on it. It needs root, and a machine
//! where it may make namespaces and cgroups (`smoke/test` prepares one).

#![forbid(unsafe_code)]

mod base;
mod census;
mod cgroup;
mod flow;
mod host;
mod live;
mod mirror;
mod output;
mod outside;
mod product;
mod publisher;
mod residue;
mod scale;
mod sweep;
mod user;

pub use base::USERS;
pub use census::{Census, Identity};
pub use flow::{Flow, connect};
pub use host::{Down, Host, RELEASE};
pub use live::{DAEMON, HELPER, LAUNCHER, UNITS, WORKERS, until};
pub use mirror::{Fault, Mirror};
pub use output::Output;
pub use outside::Outside;
pub use product::{ExitShown, PortShown, WorkerShown};
pub use publisher::{MIRROR, Publisher};
pub use residue::{Residue, tree_hash};
pub use scale::scaled;
pub use user::{Running, User};

/// The one result of this crate: a scenario ends at the first thing that is not as promised.
pub type Result<T = ()> = anyhow::Result<T>;
