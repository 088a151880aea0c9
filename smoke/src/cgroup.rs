//! One cgroup of its own per container, in every hierarchy that systemd uses: containers that are started
//! from the root cgroup would share `payload` and collide.

use crate::Result;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long killed processes may take to leave.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Where to make cgroups: the hybrid layout's two trees, or the one tree of a pure v2 host.
pub fn roots() -> Vec<PathBuf> {
    let hybrid: Vec<PathBuf> =
        ["unified", "systemd"].iter().map(|h| Path::new("/sys/fs/cgroup").join(h)).filter(|p| p.is_dir()).collect();
    if hybrid.is_empty() { vec![PathBuf::from("/sys/fs/cgroup")] } else { hybrid }
}

/// Makes the cgroup `name` in each root.
pub fn create(name: &str) -> Result<Vec<PathBuf>> {
    roots()
        .into_iter()
        .map(|root| {
            let group = root.join(name);
            fs::create_dir(&group).with_context(|| format!("create cgroup {}", group.display()))?;
            Ok(group)
        })
        .collect()
}

/// Offers the cgroup `name`, and what is below it, every v2 controller that this machine's root has. What cannot be
/// offered (one with members of its own hands nothing on) stays as it is: who asked sees what came.
pub fn offer(name: &str) {
    for root in roots().into_iter().filter(|root| root.join("cgroup.controllers").exists()) {
        let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        for controller in there.split_whitespace() {
            for group in [root.clone(), root.join(name)] {
                let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
}

/// Kills whatever is in the cgroup `name` and removes it with all below. Nothing there: nothing done.
pub fn destroy(name: &str) -> Result {
    for group in roots().into_iter().map(|root| root.join(name)).filter(|g| g.is_dir()) {
        let kill = group.join("cgroup.kill");
        if kill.exists() {
            fs::write(&kill, "1").with_context(|| format!("kill {}", group.display()))?;
        }
    }
    for group in roots().into_iter().map(|root| root.join(name)) {
        let deadline = Instant::now() + EMPTY_WITHIN;
        while group.is_dir() && remove_tree(&group).is_err() {
            if Instant::now() > deadline {
                bail!("cgroup {} still holds processes", group.display());
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Removes children first; a cgroup's files are the kernel's and go with it.
fn remove_tree(group: &Path) -> Result {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)?;
    Ok(())
}
