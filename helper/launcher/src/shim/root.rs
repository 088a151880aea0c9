//! The worker's root: a tmpfs with the host's directories bound read-only, and everything that changes its own.
//!
//! All by mount descriptors (fsopen, open_tree, move_mount): no path is walked twice, so none can be swapped in
//! between.

use crate::confine::Confinement;
use crate::halt::{CAGE, Halt, NOT_EXECUTABLE, Step};
use crate::hidden::{Covers, Hidden};
use crate::places::{Places, open_in};
use crate::sys;
use crate::targets::{self, Ours};
use crate::tree::Tree;
use crate::volumes::Volumes;
use crate::{Cage, devices, mounts, proc};
use holdfast_launcher::orders::{Network, Orders};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Set on everything that the worker sees.
pub const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Where the new root stands until it becomes the root; no source of ours lies there.
const BUILDING_SITE: &str = "/sys";

/// What the new root is made of.
pub struct Parts<'a> {
    /// The worker's.
    pub orders: &'a Orders,
    /// Of the hosts file.
    pub places: &'a Places,
    /// In their order.
    pub volumes: Volumes,
    /// Covered in the end.
    pub hidden: &'a Hidden,
    /// What it is filled with.
    pub tree: Tree,
}

/// Builds the root and moves into it.
pub fn build(parts: Parts<'_>) -> Result<Cage, Halt> {
    sys::mount_setattr(CWD, c"/", true, 0, libc::MS_PRIVATE).step("private mounts")?;
    let root = tmpfs(&[("mode", "0755"), ("size", "4m")]).step("tmpfs /")?;
    move_mount(&root, c"", CWD, BUILDING_SITE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("mount /")?;
    let mut ours = Ours::default();
    ours.add(&root).step("stat /")?;
    parts.tree.bind(&root)?;
    own_directories(&root, &mut ours)?;
    devices::make(&root, parts.orders.network, &mut ours)?;
    // Before any volume: these are ours, whatever is mounted over them later.
    let null = open_in(&root, Path::new("dev/null"), OFlags::RDWR).step("open /dev/null")?;
    let covers = Covers {
        directory: open_in(&root, Path::new("sys"), OFlags::PATH).step("open /sys")?,
        file: open_in(&root, Path::new("dev/null"), OFlags::PATH).step("open /dev/null")?,
    };
    let proc = proc::new()?;
    attach(&proc, &root, Path::new("proc")).step("mount /proc")?;
    let hosts = name_files(parts.orders, parts.places, &root, &ours)?;
    parts.volumes.mount(&root, &proc, &ours)?;
    enter(&root)?;
    parts.hidden.cover(&root, &mounts::read(&proc)?, hosts, &covers)?;
    let confinement = Confinement::of(&parts.orders.cage, &proc)?;
    if parts.orders.network != Network::Host {
        proc::set_up(&proc)?;
    }
    let network_knobs = proc::network_knobs(&proc)?;
    if !parts.orders.cage.nested {
        // A sandbox inside mounts a /proc of its own, which the kernel allows where ours is whole alone.
        proc::close(&proc, &covers)?;
    }
    sys::mount_setattr(root.as_fd(), c"", false, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), 0)
        .step("read-only /")?;
    let workdir = workdir(&root, &parts.orders.workdir)?;
    Ok(Cage { workdir, null, proc, network_knobs, confinement: Rc::new(confinement) })
}

/// The working directory inside, which must be one.
fn workdir(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Halt> {
    open_in(root, path, OFlags::PATH | OFlags::DIRECTORY).named(format!("working directory {}", path.display()))
}

/// A new tmpfs, not attached yet.
pub fn tmpfs(options: &[(&str, &str)]) -> rustix::io::Result<OwnedFd> {
    filesystem("tmpfs", options, MountAttrFlags::empty())
}

/// A new file system, not attached yet; never with setuid programs or devices.
pub fn filesystem(kind: &str, options: &[(&str, &str)], extra: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    mounted(kind, options, PLAIN | extra)
}

/// A new instance of `/dev/pts`, not attached yet. With `nodev` none of its terminals could be opened, and it has no
/// other devices.
pub fn terminals() -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mounted("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], attributes)
}

fn mounted(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of the mount tree at `path`, not attached yet.
pub fn clone_tree<Fd: AsFd>(dir: Fd, path: &CStr, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_NO_AUTOMOUNT;
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(dir, path, flags)
}

/// Puts a detached tree on a directory or file below `root`, symlinks followed within it.
pub fn attach(tree: &OwnedFd, root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    attach_on(tree, &open_in(root, path, OFlags::PATH)?)
}

/// Puts a detached tree on `target`.
pub fn attach_on(tree: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
}

fn own_directories(root: &OwnedFd, ours: &mut Ours) -> Result<(), Halt> {
    for (name, mode) in [("tmp", 0o1777), ("run", 0o755), ("dev", 0o755), ("proc", 0o555), ("sys", 0o555)] {
        rustix::fs::mkdirat(root, name, Mode::from_raw_mode(mode)).step(format!("make /{name}"))?;
    }
    for (path, mode) in [("tmp", "1777"), ("var/tmp", "1777"), ("run", "0755")] {
        let target = match open_in(root, Path::new(path), OFlags::PATH | OFlags::DIRECTORY) {
            // A host may lack /var/tmp, and then a worker does.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.step(format!("open /{path}"))?,
        };
        let tree = tmpfs(&[("mode", mode)]).step(format!("tmpfs /{path}"))?;
        attach_on(&tree, &target).step(format!("mount /{path}"))?;
        ours.add(&tree).step(format!("stat /{path}"))?;
    }
    Ok(())
}

/// `/etc/hosts` and `/etc/resolv.conf`; answers with the mount of the first, which lies in a hidden directory.
fn name_files(orders: &Orders, places: &Places, root: &OwnedFd, ours: &Ours) -> Result<u64, Halt> {
    let read_only = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let hosts = clone_tree(&places.hosts, c"", false).step("bind the hosts file")?;
    sys::mount_setattr(hosts.as_fd(), c"", false, read_only.bits().into(), libc::MS_PRIVATE)
        .step("bind the hosts file")?;
    match attach(&hosts, root, Path::new("etc/hosts")) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).step("mount /etc/hosts"),
    }
    let hosts = mounts::id(&hosts).step("bind the hosts file")?;
    const MADE: &str = ".resolv.conf";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, MADE, flags, Mode::from_raw_mode(0o644)).step("make resolv.conf")?;
    rustix::io::write(&file, &orders.resolv_conf).step("write resolv.conf")?;
    let tree = clone_tree(root, c".resolv.conf", false).step("bind resolv.conf")?;
    sys::mount_setattr(tree.as_fd(), c"", false, read_only.bits().into(), libc::MS_PRIVATE).step("bind resolv.conf")?;
    let target = match open_in(root, Path::new("etc/resolv.conf"), OFlags::PATH) {
        Err(Errno::NOENT) => match resolv_conf_link(root) {
            Some(link) => targets::make(root, &link, false, ours).step("make the target of /etc/resolv.conf")?,
            None => return Ok(hosts),
        },
        other => other.step("open /etc/resolv.conf")?,
    };
    attach_on(&tree, &target).step("mount /etc/resolv.conf")?;
    // Not before: the kernel attaches nothing that is unlinked.
    rustix::fs::unlinkat(root, MADE, AtFlags::empty()).step("hide resolv.conf")?;
    Ok(hosts)
}

/// Where a dangling `/etc/resolv.conf` points to (systemd-resolved's into /run, which is the worker's own).
fn resolv_conf_link(root: &OwnedFd) -> Option<PathBuf> {
    let etc = open_in(root, Path::new("etc"), OFlags::PATH).ok()?;
    let link = rustix::fs::readlinkat(&etc, "resolv.conf", Vec::new()).ok()?;
    let path = Path::new("/etc").join(Path::new(link.to_str().ok()?));
    targets::normal(&path)
}

/// Makes `root` the root and lets go of the host's tree (pivot_root(2), "pivot_root(".", ".")").
fn enter(root: &OwnedFd) -> Result<(), Halt> {
    rustix::process::fchdir(root).step("enter the new root")?;
    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the old root")?;
    rustix::process::chdir("/").step("chdir /")?;
    // Whatever happens, no relative path starts in the host's tree.
    let here = rustix::process::getcwd(Vec::new()).step("getcwd")?;
    if here.to_bytes() == b"/" { Ok(()) } else { Err(Halt::new(CAGE, "the new root is not the root", Errno::XDEV)) }
}

/// A volume cannot stand here.
pub fn refused(what: String) -> Halt {
    Halt::new(NOT_EXECUTABLE, what, Errno::PERM)
}
