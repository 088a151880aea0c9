//! The worker's `/proc`: of its own pid namespace, without what shows or changes the host.

use crate::halt::{CAGE, Halt, Step};
use crate::hidden::{Covers, put_over};
use crate::root::{attach_on, clone_tree, filesystem};
use crate::sys;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, OwnedFd};

/// Covered: the host's memory, keys, timers, devices. What is not there on a kernel needs no cover.
const MASKED: &[&str] =
    &["acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"];

/// Can be read, and changed by nobody inside.
const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// A new one, not attached yet. All of it can be reached by this descriptor also when the worker sees less.
pub fn new() -> Result<OwnedFd, Halt> {
    filesystem("proc", &[], MountAttrFlags::MOUNT_ATTR_NOEXEC).step("new /proc")
}

/// Sets what of the worker's own namespaces is set by files.
fn set(proc: &OwnedFd, knob: &str, value: &str) -> Result<(), Halt> {
    rustix::fs::openat(proc, format!("sys/{knob}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(file, value.as_bytes()))
        .step(knob)
        .map(drop)
}

/// Sets what the worker's own namespaces are to be like: any port for anybody, ping for its group.
pub fn set_up(proc: &OwnedFd) -> Result<(), Halt> {
    let gid = rustix::process::getegid().as_raw();
    set(proc, "net/ipv4/ip_unprivileged_port_start", "0")?;
    set(proc, "net/ipv4/ping_group_range", &format!("{gid} {gid}"))
}

/// Before the link is up, so that it never has an address that the kernel made.
pub fn no_ipv6(network_knobs: &OwnedFd, link: &str) -> Result<(), Halt> {
    let path = format!("ipv6/conf/{link}/disable_ipv6");
    match rustix::fs::openat(network_knobs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        // A kernel without IPv6 has none to switch off.
        Err(Errno::NOENT) => Ok(()),
        opened => opened.and_then(|file| rustix::io::write(file, b"1")).step("switch IPv6 off").map(drop),
    }
}

/// `/proc/sys/net`, as it is before [`close`].
pub fn network_knobs(proc: &OwnedFd) -> Result<OwnedFd, Halt> {
    open(proc, "sys/net").step("open /proc/sys/net")?.ok_or_else(|| Halt::new(CAGE, "/proc/sys/net", Errno::NOENT))
}

/// No namespace of its own for whoever is in the user namespace of this process: behind the system-call filter.
pub fn allow_no_namespaces(user_knobs: &OwnedFd) -> Result<(), Halt> {
    rustix::fs::openat(user_knobs, "max_user_namespaces", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(file, b"0"))
        .step("max_user_namespaces")
        .map(drop)
}

/// `/proc/sys/user`, as it is before [`close`].
pub fn user_knobs(proc: &OwnedFd) -> Result<OwnedFd, Halt> {
    open(proc, "sys/user").step("open /proc/sys/user")?.ok_or_else(|| Halt::new(CAGE, "/proc/sys/user", Errno::NOENT))
}

/// To be called when everything is set.
pub fn close(proc: &OwnedFd, covers: &Covers) -> Result<(), Halt> {
    for name in MASKED {
        if let Some(shown) = open(proc, name).step(format!("hide /proc/{name}"))? {
            put_over(&shown, covers)?;
        }
    }
    for name in READ_ONLY {
        let step = || format!("read-only /proc/{}", name);
        if let Some(shown) = open(proc, name).step(step())? {
            let tree = clone_tree(&shown, c"", false).step(step())?;
            let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into();
            sys::mount_setattr(tree.as_fd(), c"", false, read_only, libc::MS_PRIVATE).step(step())?;
            attach_on(&tree, &shown).step(step())?;
        }
    }
    Ok(())
}

fn open(proc: &OwnedFd, name: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(proc.as_fd(), name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}
