//! Removes releases that nothing needs any more. One that a shim or a program still runs from stays, for as long as it does.

use super::state::linked;
use super::txn::Txn;
use crate::install::disk;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Removes them and returns their names.
///
/// # Errors
/// Where it cannot be seen what runs, or one cannot be removed.
pub fn collect(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let releases = layout.releases();
    disk::remove_stages(&releases)?;
    let linked = [linked(&layout.current())?, linked(&layout.previous())?];
    let mut needed: BTreeSet<String> = linked.into_iter().flatten().map(|id| id.to_string()).collect();
    // One that cannot be read names nothing, and whoever can mend that decides.
    if let Some(txn) = Txn::read(layout)? {
        needed.extend([txn.from, txn.to].into_iter().chain(txn.previous));
    }
    needed.extend(running(&releases)?);
    let mut removed = Vec::new();
    for entry in fs::read_dir(&releases)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !needed.contains(&name) {
            let path = releases.join(&name);
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Names of releases that some process executes a file of.
fn running(releases: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        // A process that has ended meanwhile runs from nowhere.
        if is_process
            && let Ok(program) = fs::read_link(entry.path().join("exe"))
            && let Ok(inside) = program.strip_prefix(releases)
            && let Some(release) = inside.components().next()
        {
            found.insert(release.as_os_str().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_runs_and_what_is_linked_stays() {
        let root = tempfile::tempdir().unwrap();
        // The kernel tells resolved paths.
        let layout = Layout::below(root.path().canonicalize().unwrap());
        let releases = layout.releases();
        for name in ["now", "before", "old-with-shim", "old", ".stage-1"] {
            fs::create_dir_all(releases.join(name)).unwrap();
        }
        for (link, name) in [(layout.current(), "now"), (layout.previous(), "before")] {
            std::os::unix::fs::symlink(format!("releases/{name}"), link).unwrap();
        }
        let shim = releases.join("old-with-shim/holdfast-shim");
        fs::copy("/bin/sleep", &shim).unwrap();
        let mut runs = Command::new(&shim).arg("60").spawn().unwrap();
        assert_eq!(collect(&layout).unwrap(), ["old"]);
        runs.kill().unwrap();
        runs.wait().unwrap();
        assert_eq!(collect(&layout).unwrap(), ["old-with-shim"]);
        let mut left: Vec<_> = fs::read_dir(releases).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["before", "now"]);
    }
}
