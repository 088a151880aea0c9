//! Volumes: their sources are opened once while the host's tree is there, and mounted inside by descriptor.
//!
//! A symlink in a source is followed, as the owner's own shell would, by the kernel and once; what was opened then is
//! what is mounted, whatever the path comes to mean.

use crate::halt::{Halt, Step};
use crate::hidden::Hidden;
use crate::mounts::{self, Mount};
use crate::root::{PLAIN, attach_on, clone_tree, refused};
use crate::sys;
use crate::targets::{self, Ours};
use holdfast_launcher::orders::{Orders, Volume};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The volumes of one worker.
pub struct Volumes(Vec<Opened>);

struct Opened {
    /// The mounts at the source, detached.
    tree: OwnedFd,
    target: PathBuf,
    directory: bool,
}

/// Opens every source once; from here on no path of it is walked again.
pub fn open(orders: &Orders, host: &[Mount], hidden: &Hidden) -> Result<Volumes, Halt> {
    orders.volumes.iter().map(|volume| open_one(volume, host, hidden)).collect::<Result<_, _>>().map(Volumes)
}

impl Volumes {
    /// Mounts the volumes in their order; never on what is `proc`'s.
    pub fn mount(self, root: &OwnedFd, proc: &OwnedFd, ours: &Ours) -> Result<(), Halt> {
        let proc = rustix::fs::fstat(proc).step("stat /proc")?.st_dev;
        for volume in self.0 {
            let step = || format!("volume target {}", volume.target.display());
            let target = targets::make(root, &volume.target, volume.directory, ours).named(step())?;
            // By another volume's symlink it may have come anywhere inside.
            if rustix::fs::fstat(&target).step(step())?.st_dev == proc {
                return Err(not_there(&volume.target));
            }
            attach_on(&volume.tree, &target).named(step())?;
        }
        Ok(())
    }
}

/// A source as the owner means it, by a descriptor. No magic link of /proc: those name what this process has open.
pub fn open_source(path: &Path, step: String) -> Result<OwnedFd, Halt> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .named(step)
}

fn open_one(volume: &Volume, host: &[Mount], hidden: &Hidden) -> Result<Opened, Halt> {
    let step = || format!("volume source {}", volume.source.display());
    let fd = open_source(&volume.source, step())?;
    let (place, source) = mounts::place(host, &fd).step(step())?;
    hidden.must_not_hold("volume source", &place, &source)?;
    let target = targets::normal(&volume.target).unwrap_or_else(|| PathBuf::from("/"));
    if target == Path::new("/") || target.starts_with("/proc") {
        return Err(not_there(&volume.target));
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).step(step())?.st_mode);
    let tree = clone_tree(&fd, c"", true).step(step())?;
    let mut attributes = PLAIN;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, volume.read_only);
    sys::mount_setattr(tree.as_fd(), c"", true, attributes.bits().into(), libc::MS_PRIVATE).step(step())?;
    Ok(Opened { tree, target, directory: kind == FileType::Directory })
}

fn not_there(target: &Path) -> Halt {
    refused(format!("volume target {}: not the root and not in /proc", target.display()))
}
