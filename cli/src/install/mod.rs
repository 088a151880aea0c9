//! Installing and removing Holdfast: one plan that describes, applies and reverts itself.
//!
//! [`facts`] reads the host, [`plan`] decides (pure), [`apply`] does the steps of [`step`] and takes them back
//! by [`undo`]; [`remove`] is the way out, best effort at each step. Never opens anything below a directory
//! that an owner can write: what has to be done there is done as the owner.

pub mod apply;
pub mod command;
pub mod disk;
pub mod facts;
pub mod give_way;
pub mod ipv6;
pub mod network;
pub mod plan;
pub mod ready;
pub mod record;
pub mod remove;
pub mod rules;
pub mod slice;
pub mod step;
pub mod undo;
pub mod workers;

#[cfg(test)]
pub(crate) mod tests;
