//! Volumes and what must stay hidden: opened while the host's tree is there, mounted inside.

use crate::halt::{Halt, Step};
use crate::places::open_in;
use crate::root::{PLAIN, attach_on, clone_tree, refused, tmpfs};
use crate::sys;
use crate::targets::{self, Ours};
use holdfast_launcher::orders::{Orders, Volume};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The volumes of one worker, and the directories that none of them may show.
pub struct Volumes {
    volumes: Vec<Opened>,
    hidden: Vec<Hidden>,
}

struct Opened {
    /// The mounts at the source, detached.
    tree: OwnedFd,
    /// Where the source really is, symlinks resolved by the kernel.
    source: PathBuf,
    target: PathBuf,
    directory: bool,
}

struct Hidden {
    path: PathBuf,
    identity: (u64, u64),
}

/// Opens every source once; from here on no path of it is walked again.
pub fn open(orders: &Orders) -> Result<Volumes, Halt> {
    let hidden = orders.hidden.iter().filter_map(|path| hide(path).transpose()).collect::<Result<Vec<_>, _>>()?;
    let volumes = orders.volumes.iter().map(|volume| open_one(volume, &hidden)).collect::<Result<_, _>>()?;
    Ok(Volumes { volumes, hidden })
}

impl Volumes {
    /// Mounts the volumes in their order, then covers what is hidden wherever it shows.
    pub fn mount(self, root: &OwnedFd, ours: &Ours) -> Result<(), Halt> {
        for volume in &self.volumes {
            let step = || format!("volume target {}", volume.target.display());
            let target = targets::make(root, &volume.target, volume.directory, ours).named(step())?;
            attach_on(&volume.tree, &target).named(step())?;
        }
        for hidden in &self.hidden {
            let inside = self.volumes.iter().filter_map(|volume| {
                let below = hidden.path.strip_prefix(&volume.source).ok()?;
                Some(volume.target.join(below))
            });
            for path in std::iter::once(hidden.path.clone()).chain(inside) {
                cover(root, &path, hidden.identity)?;
            }
        }
        Ok(())
    }
}

fn open_one(volume: &Volume, hidden: &[Hidden]) -> Result<Opened, Halt> {
    let step = || format!("volume source {}", volume.source.display());
    let fd = rustix::fs::open(&volume.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).named(step())?;
    let source = real_path(&fd).step(step())?;
    if let Some(hidden) = hidden.iter().find(|hidden| source.starts_with(&hidden.path)) {
        return Err(refused(format!(
            "volume source {}: {} is not for workers",
            source.display(),
            hidden.path.display()
        )));
    }
    let target = targets::normal(&volume.target).unwrap_or_else(|| PathBuf::from("/"));
    if target == Path::new("/") || target.starts_with("/proc") {
        return Err(refused(format!("volume target {}: not the root and not in /proc", volume.target.display())));
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).step(step())?.st_mode);
    let tree = clone_tree(&fd, c"", true).step(step())?;
    let mut attributes = PLAIN;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, volume.read_only);
    sys::mount_setattr(tree.as_fd(), c"", true, attributes.bits().into(), libc::MS_PRIVATE).step(step())?;
    Ok(Opened { tree, source, target, directory: kind == FileType::Directory })
}

/// A directory to hide, if there is one.
fn hide(path: &Path) -> Result<Option<Hidden>, Halt> {
    let step = || format!("hidden directory {}", path.display());
    match rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => {
            let fd = other.step(step())?;
            Ok(Some(Hidden { path: real_path(&fd).step(step())?, identity: identity(&fd).step(step())? }))
        }
    }
}

/// Mounts an empty read-only directory over `path` if what shows there is the hidden directory.
fn cover(root: &OwnedFd, path: &Path, hidden: (u64, u64)) -> Result<(), Halt> {
    let step = || format!("hide {}", path.display());
    let shown = match open_in(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.step(step())?,
    };
    if identity(&shown).step(step())? != hidden {
        return Ok(());
    }
    let cover = tmpfs(&[("mode", "0555"), ("size", "4k")]).step(step())?;
    attach_on(&cover, &shown).step(step())?;
    sys::mount_setattr(cover.as_fd(), c"", false, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), 0).step(step())
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Where an open file is now (proc(5), /proc/pid/fd).
fn real_path(fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(link.into_bytes())))
}
