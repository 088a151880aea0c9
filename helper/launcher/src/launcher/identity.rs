//! Who the launcher is: the owner, with no capability, from its first instruction.

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// This process is not what a launcher has to be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Owner of nobody's workers.
    #[error("runs as uid 0: start it as the owner whose workers it makes")]
    Root,
    /// It would hand these on, or be worth attacking for them.
    #[error("holds capabilities ({0:?}): start it without any, as holdfast-launcher@.service does")]
    Capabilities(CapabilitySet),
    /// Asked the kernel and got no answer, or set something that did not stick.
    #[error("cannot {step}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// Why not.
        #[source]
        source: rustix::io::Errno,
    },
    /// Set without an error, read back otherwise.
    #[error("{0} was set and does not hold")]
    NotKept(&'static str),
}

/// Refuses root and any capability, then gives up what could ever bring one, and reads back that it is so.
pub fn confine() -> Result<(), IdentityError> {
    let step = |step: &'static str| move |source| IdentityError::Kernel { step, source };
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(IdentityError::Root);
    }
    let sets = rustix::thread::capabilities(None).map_err(step("read its capabilities"))?;
    let held = sets.effective | sets.permitted;
    if !held.is_empty() {
        return Err(IdentityError::Capabilities(held));
    }
    // Inheritable ones are no power yet, and what starts a session (a container's first shell) may leave some.
    rustix::thread::clear_ambient_capability_set().map_err(step("clear ambient capabilities"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(step("clear inheritable capabilities"))?;
    if rustix::thread::capabilities(None).map_err(step("read its capabilities"))? != sets {
        return Err(IdentityError::NotKept("an empty set of capabilities"));
    }
    rustix::thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    if !rustix::thread::no_new_privs().map_err(step("read no_new_privs"))? {
        return Err(IdentityError::NotKept("no_new_privs"));
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("become undumpable"))?;
    match rustix::process::dumpable_behavior().map_err(step("read the dumpable flag"))? {
        DumpableBehavior::NotDumpable => Ok(()),
        _ => Err(IdentityError::NotKept("the dumpable flag")),
    }
}
