//! The worker's `/dev`: a tmpfs of its own with six of the host's devices, its own terminals and shared memory.

use crate::halt::{Halt, Step};
use crate::root::{attach, clone_tree, terminals, tmpfs};
use crate::sys;
use crate::targets::Ours;
use holdfast_launcher::launch::TUN;
use holdfast_launcher::orders::Network;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, move_mount};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const BOUND: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Whatever the host's `/dev` is mounted with.
const DEVICE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

const LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes `/dev` below `root`.
pub fn make(root: &OwnedFd, network: Network, ours: &mut Ours) -> Result<(), Halt> {
    let dev = tmpfs(&[("mode", "0755"), ("size", "1m")]).step("tmpfs /dev")?;
    attach(&dev, root, Path::new("dev")).step("mount /dev")?;
    ours.add(&dev).step("stat /dev")?;
    for name in BOUND {
        bind(&dev, name)?;
    }
    if network == Network::Tap {
        of_machines(&dev)?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(mode)).step(format!("make /dev/{name}"))?;
    }
    let pts = terminals().step("devpts")?;
    attach(&pts, &dev, Path::new("pts")).step("mount /dev/pts")?;
    let shm = tmpfs(&[("mode", "1777")]).step("tmpfs /dev/shm")?;
    attach(&shm, &dev, Path::new("shm")).step("mount /dev/shm")?;
    ours.add(&shm).step("stat /dev/shm")?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).step(format!("link /dev/{name}"))?;
    }
    Ok(())
}

/// What a virtual machine's monitor opens; who may, the modes of the host's devices say. Without KVM some can do.
fn of_machines(dev: &OwnedFd) -> Result<(), Halt> {
    rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755)).step("make /dev/net")?;
    bind(dev, "net/tun").map_err(|halt| Halt::new(halt.code, TUN, Errno::from_raw_os_error(halt.failure.errno)))?;
    match rustix::fs::stat("/dev/kvm") {
        Ok(_) => bind(dev, "kvm"),
        Err(_) => Ok(()),
    }
}

/// Besides terminals the one kind of mount without `nodev`.
fn bind(dev: &OwnedFd, name: &str) -> Result<(), Halt> {
    let step = || format!("bind /dev/{name}");
    let path = CString::new(format!("/dev/{name}")).unwrap_or_default();
    let tree = clone_tree(CWD, &path, false).step(step())?;
    sys::mount_setattr(tree.as_fd(), c"", false, DEVICE.bits().into(), libc::MS_PRIVATE).step(step())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666)).step(step())?;
    move_mount(&tree, c"", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(step())
}
