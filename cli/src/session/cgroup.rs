//! A cgroup of its own for the session's launcher, handed to the owner as systemd's `Delegate=` does, where the host
//! lets us.

use super::Session;
use rustix::fs::{Gid, Uid};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where cgroup v2 may be mounted: alone, or beside v1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What is given to the owner beside the directory (systemd: `cg_set_access`); not all are on every kernel.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// Levels below the launcher's that it makes: `w-<id>/worker`.
const LEVELS_MAX: usize = 3;

/// Makes it, or finds the one that an earlier supervisor of this session made.
///
/// # Errors
/// Where there is no cgroup v2, or it cannot be written: then workers live in the launcher's own.
pub fn make(session: &Session) -> io::Result<PathBuf> {
    if !session.owner.is_root {
        return Err(io::Error::other("an ordinary user's session divides none"));
    }
    let path = place(session)?;
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (uid, gid) = (Uid::from_raw(session.owner.uid), Gid::from_raw(session.owner.gid));
    rustix::fs::chown(&path, Some(uid), Some(gid))?;
    for file in FILES.map(|name| path.join(name)) {
        match rustix::fs::chown(&file, Some(uid), Some(gid)) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
            _ => {}
        }
    }
    Ok(path)
}

/// Removes it where nothing lives in it.
pub fn remove(session: &Session) {
    if let Ok(path) = place(session) {
        remove_below(&path, LEVELS_MAX);
    }
}

/// Named by the session's directory itself, so that its next supervisor finds it, and another session another.
fn place(session: &Session) -> io::Result<PathBuf> {
    let root = session.layout.root().metadata()?;
    // This file is v2's alone, and there below the root too where controllers are off.
    let mount = MOUNTS.into_iter().find(|mount| Path::new(mount).join("cgroup.subtree_control").exists());
    let mount = mount.ok_or_else(|| io::Error::other(format!("cgroup v2 is not mounted at {}", MOUNTS[0])))?;
    Ok(Path::new(mount).join(format!("holdfast-session-{:x}-{:x}", root.dev(), root.ino())))
}

fn remove_below(path: &Path, levels: usize) {
    if levels > 0
        && let Ok(entries) = std::fs::read_dir(path)
    {
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.for_each(|entry| remove_below(&entry.path(), levels - 1));
    }
    // The kernel refuses where something lives in it, and that is right.
    let _ = std::fs::remove_dir(path);
}
