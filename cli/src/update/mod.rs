//! Updating Holdfast: from a source that nobody has to trust to a release that runs, or back.
//!
//! [`config`] reads what root trusts, [`courier`] has bytes brought by a child without rights ([`fetch`]), [`offer`]
//! picks what verifies, [`stage`] puts it in place, [`preflight`] tries it as the owners, [`swap`] makes it the one that
//! runs by the same steps that install it, checks it, and goes back if it fails; [`state`] is what a host remembers, [`notice`] what of it `status` says.
//! Never does: parse anything of a stranger as root before its signature was found good, run anything of a new release
//! as root before the flip, touch a worker.

pub mod census;
pub mod collect;
pub mod config;
pub mod courier;
pub mod error;
pub mod fetch;
pub mod leftover;
pub mod notice;
pub mod offer;
pub mod preflight;
pub mod receipt;
pub mod record;
pub mod stage;
pub mod state;
pub mod swap;
pub mod txn;
