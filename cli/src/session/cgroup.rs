//! Cgroups of a session, in the shape that an owner's slice has under systemd: `launcher/`, and beside it `workers/`,
//! which is the owner's to divide. Where the host lets us.

use super::Session;
use holdfast_proto::cgroups::MOUNTS;
use rustix::fs::{Gid, Uid};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The launcher's own, below the session's.
pub const LAUNCHER: &str = "launcher";
/// The workers', below the session's.
const WORKERS: &str = "workers";
/// What is given to the owner beside a directory (systemd: `cg_set_access`); not all are on every kernel.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// What limits workers.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Levels below the session's: `workers/w-<id>/worker`.
const LEVELS_MAX: usize = 4;

/// Makes them, or finds those that an earlier supervisor of this session made. Returns the session's.
///
/// # Errors
/// Where there is no cgroup v2, or it cannot be written: then workers live in the launcher's own.
pub fn make(session: &Session) -> io::Result<PathBuf> {
    if !session.owner.is_root {
        return Err(io::Error::other("an ordinary user's session divides none"));
    }
    let path = place(session)?;
    let own = (Uid::from_raw(session.owner.uid), Gid::from_raw(session.owner.gid));
    make_one(&path)?;
    // Both may be refused, in a container by a process that is in the cgroup above: then there are no limits by cgroups.
    for above in path.parent().into_iter().chain([path.as_path()]) {
        enable(above);
    }
    // Processes of the owner's may be moved between the two.
    give(&path.join("cgroup.procs"), own)?;
    make_one(&path.join(LAUNCHER))?;
    let workers = path.join(WORKERS);
    make_one(&workers)?;
    give(&workers, own)?;
    for file in FILES.map(|name| workers.join(name)) {
        match give(&file, own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(path)
}

fn make_one(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn give(path: &Path, (uid, gid): (Uid, Gid)) -> io::Result<()> {
    Ok(rustix::fs::chown(path, Some(uid), Some(gid))?)
}

/// Hands controllers on to the cgroups below, as far as they are there; says nothing where one is not: `inspect` does.
fn enable(path: &Path) {
    let there = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for name in CONTROLLERS.into_iter().filter(|name| there.split_whitespace().any(|word| word == *name)) {
        let _ = std::fs::write(path.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

/// Removes them where nothing lives in them.
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
