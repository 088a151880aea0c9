//! Cleans up what a crashed run left. Every trace of a container carries its owner's pid:
//! `holdfast-smoke-<pid>-<n>` as a cgroup and as a directory below [`WORK`].

use crate::{Result, cgroup};
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Upper layers and mount points of containers. Not in /tmp, which may be a small tmpfs.
pub const WORK: &str = "/var/tmp/holdfast-smoke";

const PREFIX: &str = "holdfast-smoke-";

/// The name of the `n`th container of this process.
pub fn name(n: u32) -> String {
    format!("{PREFIX}{}-{n}", std::process::id())
}

/// The directory of a container.
pub fn directory(name: &str) -> PathBuf {
    Path::new(WORK).join(name)
}

/// Removes the containers of processes that are gone. Several tests begin at once: one sweeps, others wait.
pub fn sweep() -> Result {
    fs::create_dir_all(WORK).with_context(|| format!("create {WORK}"))?;
    let lock = File::create(Path::new(WORK).join("lock")).context("create the sweep's lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the sweep")?;
    let places = cgroup::roots().into_iter().chain([PathBuf::from(WORK)]);
    let mut names = BTreeSet::new();
    for place in places {
        for entry in fs::read_dir(&place).with_context(|| format!("list {}", place.display()))? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    for name in names.iter().filter(|name| owner_is_gone(name)) {
        remove(name).with_context(|| format!("clean up {name} of a crashed run"))?;
    }
    Ok(())
}

/// A name with our own pid is an earlier process's: this one has made nothing yet.
fn owner_is_gone(name: &str) -> bool {
    let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { return false };
    pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists()
}

/// Ends a container and removes its traces. Idempotent.
pub fn remove(name: &str) -> Result {
    cgroup::destroy(name)?;
    let directory = directory(name);
    if !directory.exists() {
        return Ok(());
    }
    for mount in ["root", "."] {
        // Not mounted is as good as unmounted.
        let _ = unmount(directory.join(mount), UnmountFlags::DETACH);
    }
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))
}
