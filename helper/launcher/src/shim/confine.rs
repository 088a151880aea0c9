//! What takes a process's rights away before it executes what is not ours: the worker's first process, and whatever
//! else is started inside. One place, so that none of them has more than another.

use crate::halt::{CAGE, Halt, Step};
use crate::sys;
use nix::sys::signal::SigSet;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// In a child that is about to execute: plain signals, no capability, no new privileges, the system-call filter.
/// From here on no call that the filter refuses can be made.
pub fn confine() -> Result<(), Halt> {
    sys::default_signals();
    SigSet::empty().thread_set_mask().step("unblock signals")?;
    give_up_capabilities()?;
    sys::seccomp(&FILTER).step("seccomp")
}

/// For good: nothing is inheritable, nothing can be gained by exec.
pub fn give_up_capabilities() -> Result<(), Halt> {
    rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
    rustix::thread::clear_ambient_capability_set().step("ambient capabilities")?;
    // Up to the kernel's last one, which may be later than the last that has a name here.
    for number in 0..64 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).step("bounding set"),
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step("capset")?;
    let now = rustix::thread::capabilities(None).step("capget")?;
    if (now.effective | now.permitted | now.inheritable).is_empty() {
        Ok(())
    } else {
        Err(Halt::new(CAGE, "capabilities stayed", Errno::PERM))
    }
}
