//! What no worker may see although it lies in what it sees: our own state and sockets. Covered wherever it shows.

use crate::halt::{Halt, Step};
use crate::mounts::{self, Mount, Place, join};
use crate::places::open_in;
use crate::root::{PLAIN, attach_on, clone_tree, refused};
use crate::sys;
use holdfast_launcher::orders::Orders;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The directories, found on the host.
pub struct Hidden(Vec<Directory>);

struct Directory {
    place: Place,
    /// On the host, for people.
    path: std::path::PathBuf,
    identity: (u64, u64),
}

/// What a cover is made of: both empty, neither can be changed.
pub struct Covers {
    /// A directory.
    pub directory: OwnedFd,
    /// `/dev/null` inside.
    pub file: OwnedFd,
}

impl Hidden {
    /// Looks for them while the host's tree is there.
    pub fn find(orders: &Orders, host: &[Mount]) -> Result<Self, Halt> {
        orders.hidden.iter().filter_map(|path| find(path, host).transpose()).collect::<Result<_, _>>().map(Self)
    }

    /// Refuses what lies in one of them, whatever path led there.
    pub fn must_not_hold(&self, what: &str, place: &Place, shown: &Path) -> Result<(), Halt> {
        match self.0.iter().find(|directory| directory.place.way_to(place).is_some()) {
            Some(directory) => {
                let (shown, path) = (shown.display(), directory.path.display());
                Err(refused(format!("{what} {shown}: {path} is not for workers")))
            }
            None => Ok(()),
        }
    }

    /// Covers them in every mount of the new root that shows one, or a part of one; `spared` is a mount of ours that does.
    pub fn cover(&self, root: &OwnedFd, mounts: &[Mount], spared: u64, covers: &Covers) -> Result<(), Halt> {
        for directory in &self.0 {
            for mount in mounts.iter().filter(|mount| mount.id != spared) {
                if let Some(way) = mount.root.way_to(&directory.place) {
                    cover(root, &join(&mount.point, &way), Some(directory.identity), covers)?;
                } else if directory.place.way_to(&mount.root).is_some() {
                    cover(root, &mount.point, None, covers)?;
                }
            }
        }
        Ok(())
    }
}

/// A directory to hide, if there is one.
fn find(path: &Path, host: &[Mount]) -> Result<Option<Directory>, Halt> {
    let step = || format!("hidden directory {}", path.display());
    match rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => {
            let fd = other.step(step())?;
            let (place, path) = mounts::place(host, &fd).step(step())?;
            Ok(Some(Directory { place, path, identity: identity(&fd).step(step())? }))
        }
    }
}

/// Mounts something empty over `path`, if what shows there is what is meant.
fn cover(root: &OwnedFd, path: &Path, meant: Option<(u64, u64)>, covers: &Covers) -> Result<(), Halt> {
    let step = || format!("hide {}", path.display());
    let shown = match open_in(root, path, OFlags::PATH) {
        // What its owner cannot come to, the worker cannot either.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        other => other.step(step())?,
    };
    if meant.is_some_and(|meant| identity(&shown).ok() != Some(meant)) {
        return Ok(());
    }
    put_over(&shown, covers)
}

/// Covers one open file or directory: with a directory that is empty, or with a device that cannot be opened.
pub fn put_over(shown: &OwnedFd, covers: &Covers) -> Result<(), Halt> {
    let directory = FileType::from_raw_mode(rustix::fs::fstat(shown).step("stat what is hidden")?.st_mode);
    let cover = if directory == FileType::Directory { &covers.directory } else { &covers.file };
    let tree = clone_tree(cover, c"", false).step("make a cover")?;
    let closed = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(tree.as_fd(), c"", false, closed.bits().into(), libc::MS_PRIVATE).step("make a cover")?;
    attach_on(&tree, shown).step("mount a cover")
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
