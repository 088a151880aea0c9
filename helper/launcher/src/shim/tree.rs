//! What a worker's root is filled with: the host's directories, or those of a tree that its owner gave.

use crate::halt::{Halt, Step};
use crate::hidden::Hidden;
use crate::mounts::{self, Mount};
use crate::root::{PLAIN, attach_on, clone_tree, filesystem, tmpfs};
use crate::sys;
use crate::volumes::open_source;
use holdfast_launcher::orders::Orders;
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Of the host's root, not bound: the host's own business, homes, and what the worker has its own of.
const NOT_OF_THE_HOST: &[&[u8]] =
    &[b"boot", b"dev", b"home", b"lost+found", b"media", b"mnt", b"proc", b"root", b"run", b"sys", b"tmp"];

/// Of a given tree: what the worker has its own of.
const NOT_OF_A_TREE: &[&[u8]] = &[b"dev", b"lost+found", b"proc", b"run", b"sys", b"tmp"];

/// In `/etc`, the worker's own.
const NAME_FILES: &[&str] = &["hosts", "resolv.conf"];

const EMPTY_FILE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// A directory to take the root's content from.
pub struct Tree {
    top: OwnedFd,
    is_host: bool,
    attributes: MountAttrFlags,
}

impl Tree {
    /// Opens it once; from here on nothing is looked up by its path.
    pub fn open(orders: &Orders, host: &[Mount], hidden: &Hidden) -> Result<Self, Halt> {
        let read_only = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(rootfs) = &orders.cage.rootfs else {
            let top = rustix::fs::open("/", flags, Mode::empty()).step("open the host's /")?;
            return Ok(Self { top, is_host: true, attributes: read_only });
        };
        let step = || format!("root file system {}", rootfs.path.display());
        let fd = open_source(&rootfs.path, step())?;
        let (place, path) = mounts::place(host, &fd).step(step())?;
        hidden.must_not_hold("root file system", &place, &path)?;
        let top = rustix::fs::openat(&fd, ".", flags, Mode::empty()).named(step())?;
        if rootfs.writable {
            // Where even this fails, the worker's files lie in an `/etc` that it cannot write to.
            let _ = make_name_files(&top);
        }
        Ok(Self { top, is_host: false, attributes: if rootfs.writable { PLAIN } else { read_only } })
    }

    /// Fills `root`, a tmpfs of ours: directories are mounts, symlinks are made again, and so the tree itself never
    /// needs a place for what is the worker's own.
    pub fn bind(&self, root: &OwnedFd) -> Result<(), Halt> {
        for entry in Dir::read_from(&self.top).step("read the root's tree")? {
            let entry = entry.step("read the root's tree")?;
            let name = entry.file_name().to_bytes();
            let skipped = if self.is_host { NOT_OF_THE_HOST } else { NOT_OF_A_TREE };
            if name != b"." && name != b".." && !skipped.contains(&name) {
                self.bind_entry(root, &entry)?;
            }
        }
        if !self.is_host {
            make_etc(root).step("make /etc")?;
        }
        Ok(())
    }

    fn bind_entry(&self, root: &OwnedFd, entry: &DirEntry) -> Result<(), Halt> {
        let name = entry.file_name();
        let step = || format!("bind /{}", name.to_string_lossy());
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => {
                let stat = rustix::fs::statat(&self.top, name, AtFlags::SYMLINK_NOFOLLOW).step(step())?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.top, name, Vec::new()).step(step())?;
                rustix::fs::symlinkat(target, root, name).step(step())
            }
            FileType::Directory => {
                rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)).step(step())?;
                self.mount_entry(root, name, OFlags::DIRECTORY).step(step())
            }
            FileType::RegularFile if !self.is_host => {
                rustix::fs::openat(root, name, EMPTY_FILE, Mode::from_raw_mode(0o644)).step(step())?;
                self.mount_entry(root, name, OFlags::empty()).step(step())
            }
            _ => Ok(()),
        }
    }

    /// What has become a symlink since it was listed is not followed: that could lead anywhere on the host.
    fn mount_entry(&self, root: &OwnedFd, name: &CStr, kind: OFlags) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let source = rustix::fs::openat2(&self.top, name, flags | kind, Mode::empty(), resolve)?;
        let missing = if name == c"etc" { missing_name_files(&source) } else { Vec::new() };
        let tree =
            if missing.is_empty() { clone_tree(&source, c"", true)? } else { filled_etc(root, &source, &missing)? };
        let attributes = self.attributes.bits().into();
        sys::mount_setattr(tree.as_fd(), c"", true, attributes, libc::MS_PRIVATE).map_err(from_io)?;
        let target = rustix::fs::openat(root, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        attach_on(&tree, &target)
    }
}

fn from_io(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// What an `/etc` lacks to bind the worker's files on: a minimal host or tree may have neither.
fn missing_name_files(etc: &OwnedFd) -> Vec<&'static str> {
    let missing = |name: &&str| rustix::fs::statat(etc, *name, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT);
    NAME_FILES.iter().copied().filter(missing).collect()
}

/// An `/etc` with empty files for those it lacks: a read-only overlay, so that nothing is made in the tree itself.
fn filled_etc(root: &OwnedFd, etc: &OwnedFd, missing: &[&str]) -> rustix::io::Result<OwnedFd> {
    let files = tmpfs(&[("mode", "0755"), ("size", "64k")])?;
    for name in missing {
        rustix::fs::openat(&files, *name, EMPTY_FILE, Mode::from_raw_mode(0o644))?;
    }
    let target = rustix::fs::openat(root, "etc", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    attach_on(&files, &target)?;
    let layers = format!("/proc/self/fd/{}:/proc/self/fd/{}", files.as_raw_fd(), etc.as_raw_fd());
    filesystem("overlay", &[("lowerdir", &layers)], MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// In a tree that may be written: what the worker's own files are bound on, so that its `/etc` needs no overlay.
fn make_name_files(top: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(top, "etc", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let etc = rustix::fs::openat(top, "etc", flags, Mode::empty())?;
    for name in missing_name_files(&etc) {
        rustix::fs::openat(&etc, name, EMPTY_FILE, Mode::from_raw_mode(0o644))?;
    }
    Ok(())
}

/// A tree without `/etc` gets one in our own root.
fn make_etc(root: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(root, "etc", Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => return Ok(()),
        other => other?,
    }
    for name in NAME_FILES {
        rustix::fs::openat(root, format!("etc/{name}"), EMPTY_FILE, Mode::from_raw_mode(0o644))?;
    }
    Ok(())
}
