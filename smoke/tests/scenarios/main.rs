//! The promises, each kept on a real systemd by the installed product. `smoke/test` runs them.

#![allow(missing_docs)]

mod api;
mod bad_input;
mod boot;
mod cage;
mod calls;
mod cgroups;
mod events;
mod exec;
mod exec_terminal;
mod exits;
mod fifty_workers;
mod find;
mod handover;
mod harness;
mod install;
mod ipv6;
mod leaks;
mod life;
mod limits;
mod macvlan;
mod main_job;
mod modes;
mod networks;
mod power;
mod rootfs;
mod runtimes;
mod session;
mod suspend;
mod tap;
mod threats;
mod traps;
mod two_owners;
mod unbroken;
mod update;
mod update_bad;
mod update_cut_off;
mod update_hostile;
mod update_http;
mod update_load;
mod update_rights;
mod update_signals;
mod update_state;
mod usage;
mod words;

use holdfast_smoke::{Host, Result};

/// A scenario on a fresh host with Holdfast installed for alice; what the product said is shown where it fails.
fn on_installed(scenario: impl FnOnce(&Host) -> Result) -> Result {
    let host = Host::installed()?;
    host.explain(scenario(&host))
}

/// A scenario on a fresh host without Holdfast.
fn on_fresh(scenario: impl FnOnce(&Host) -> Result) -> Result {
    let host = Host::boot()?;
    host.explain(scenario(&host))
}
