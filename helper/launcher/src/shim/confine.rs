//! What takes a process's rights away before it executes what is not ours: the worker's first process, and whatever
//! else is started inside. One place, so that none of them has more than another.

use crate::halt::{CAGE, Halt, Step};
use crate::{proc, sys};
use holdfast_launcher::launch::CLOSE_ABSTRACT;
use holdfast_launcher::orders::CageOrders;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::OwnedFd;

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// What holds every process of one worker.
pub struct Confinement {
    /// Namespaces of their own are allowed.
    nested: bool,
    /// Where the owner's ids show as 0.
    root: Option<RootUser>,
}

/// What it takes to be 0 in a user namespace below the shim's. Not in the shim's own: whoever is 0 there could change
/// the settings of its network namespace without any capability.
struct RootUser {
    /// Of our own `/proc`, before it was closed.
    user_knobs: OwnedFd,
    proc: OwnedFd,
    uid: u32,
    gid: u32,
}

impl Confinement {
    /// Reads it from the orders, while `/proc` is open; without a nested one, the shim's own user namespace is the last.
    pub fn of(orders: &CageOrders, proc: &OwnedFd) -> Result<Self, Halt> {
        let user_knobs = proc::user_knobs(proc)?;
        if !orders.nested && !orders.root_user {
            proc::allow_no_namespaces(&user_knobs)?;
        }
        let root = if orders.root_user {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            Some(RootUser { user_knobs, proc: proc.try_clone().step("dup")?, uid, gid })
        } else {
            None
        };
        Ok(Self { nested: orders.nested, root })
    }

    /// In a child that is about to execute: its user, plain signals, no capability, no new privileges, the system-call
    /// filter. From here on no call that the filter refuses can be made.
    pub fn confine(&self) -> Result<(), Halt> {
        if let Some(root) = &self.root {
            root.enter()?;
            if !self.nested {
                proc::allow_no_namespaces(&root.user_knobs)?;
            }
        }
        sys::default_signals();
        SigSet::empty().thread_set_mask().step("unblock signals")?;
        give_up_capabilities()?;
        sys::seccomp(if self.nested { &FILTER_NESTED } else { &FILTER }).step("seccomp")
    }
}

impl RootUser {
    fn enter(&self) -> Result<(), Halt> {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).step("user namespace")?;
        // /proc/self is root's while the process is not dumpable; nobody in here could use the moment, for it holds
        // capabilities that nobody else in here has.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).step("dumpable")?;
        self.write("setgroups", "deny")?;
        self.write("uid_map", &format!("0 {} 1", self.uid))?;
        self.write("gid_map", &format!("0 {} 1", self.gid))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("dumpable")
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Halt> {
        rustix::fs::openat(&self.proc, format!("self/{file}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| rustix::io::write(fd, text.as_bytes()))
            .step(file)
            .map(drop)
    }
}

/// Of the host's network namespace, whose abstract sockets have no file's mode to guard them (CVE-2020-15257). In the
/// shim before it forks, so that all of the worker's processes are in one circle and reach each other.
pub fn close_abstract_sockets() -> Result<(), Halt> {
    rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
    sys::close_abstract_sockets().step(CLOSE_ABSTRACT)
}

/// For good: nothing is inheritable, nothing can be gained by exec.
pub fn give_up_capabilities() -> Result<(), Halt> {
    empty_bounding_set()?;
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

/// All that the shim keeps once the worker was forked: a cgroup namespace for a program that is started beside it
/// takes CAP_SYS_ADMIN in the worker's user namespace (docs/decisions, "one capability"). As long as the shim is
/// permitted one that the worker is not, the kernel also lets no process of the same uid trace it, lower its priority
/// or bind it to a CPU (cap_safe_nice, cap_ptrace_access_check).
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// In the shim, for good: everything but [`KEPT`], and that does nothing until a child raises it.
pub fn keep_for_sessions() -> Result<(), Halt> {
    empty_bounding_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: KEPT, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step("capset")
}

/// In a child of the shim that has not executed yet.
pub fn raise_kept() -> Result<(), Halt> {
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).step("capset")
}

/// No ambient capability, none that exec could give. What is empty already takes no capability to empty.
fn empty_bounding_set() -> Result<(), Halt> {
    rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
    rustix::thread::clear_ambient_capability_set().step("ambient capabilities")?;
    // Up to the kernel's last one, which may be later than the last that has a name here.
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one).step("bounding set")?,
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).step("bounding set"),
        }
    }
    Ok(())
}
