//! Finds or makes the place inside that something is mounted on.

use crate::places::open_in;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The file systems that this shim made: only in these does it make mount points.
#[derive(Default)]
pub struct Ours(Vec<u64>);

impl Ours {
    /// Counts the file system of `fd` among them.
    pub fn add<Fd: AsFd>(&mut self, fd: Fd) -> rustix::io::Result<()> {
        self.0.push(rustix::fs::fstat(fd)?.st_dev);
        Ok(())
    }

    fn has(&self, fd: &OwnedFd) -> rustix::io::Result<bool> {
        Ok(self.0.contains(&rustix::fs::fstat(fd)?.st_dev))
    }
}

/// Opens `path` below `root`; what is missing of it is made where that is in a file system of ours, else EROFS.
pub fn make(root: &OwnedFd, path: &Path, directory: bool, ours: &Ours) -> rustix::io::Result<OwnedFd> {
    let names: Vec<_> =
        path.components().filter_map(|part| if let Component::Normal(n) = part { Some(n) } else { None }).collect();
    let mut reached = open_in(root, Path::new("."), OFlags::PATH)?;
    let mut walked = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        walked.push(name);
        reached = match open_in(root, &walked, OFlags::PATH) {
            Err(Errno::NOENT) if !ours.has(&reached)? => return Err(Errno::ROFS),
            Err(Errno::NOENT) => {
                if directory || index + 1 < names.len() {
                    rustix::fs::mkdirat(&reached, *name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    rustix::fs::openat(&reached, *name, flags, Mode::from_raw_mode(0o644))?;
                }
                open_in(root, &walked, OFlags::PATH)?
            }
            other => other?,
        };
    }
    Ok(reached)
}

/// `path` without `.` and `..`, taken literally; `None` where `..` leads above the root.
pub fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => normal.pop().then_some(())?,
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_resolved_and_never_above_the_root() {
        assert_eq!(normal(Path::new("/etc/../run/./x")), Some(PathBuf::from("/run/x")));
        assert_eq!(normal(Path::new("/..")), None);
    }
}
