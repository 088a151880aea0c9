//! Live workers as the kernel has them: by their cgroups, whoever answers or does not.

use super::command::{Call, Commands, SYSTEMCTL};
use super::slice;
use holdfast_proto::cgroups::{MOUNTS, launcher_unit, workers_unit};
use holdfast_proto::words::{OwnerName, WorkerId};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to end what it was told to kill, and a shim to write its worker's record.
const KILL_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// One worker's cgroup, `w-<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveWorker {
    /// Whose worker.
    pub id: WorkerId,
    path: PathBuf,
}

/// Live workers of `owner`.
///
/// # Errors
/// Where systemd does not say where the units' cgroups are, or they cannot be read.
pub fn live(commands: &dyn Commands, owner: &OwnerName) -> anyhow::Result<Vec<LiveWorker>> {
    let units = [workers_unit(owner), launcher_unit(owner)];
    let show = ["show", "--property=ControlGroup", "--value"].map(str::to_owned);
    let said = commands.run(&Call::new(SYSTEMCTL, show.into_iter().chain(units)))?;
    // A unit that does not run has no cgroup to tell, but leftovers are where they always are.
    let told = said.split_whitespace().map(|place| PathBuf::from(place.trim_start_matches('/')));
    let places: BTreeSet<PathBuf> = told.chain(slice::places(owner)).collect();
    let all = MOUNTS.iter().flat_map(|root| places.iter().map(move |place| Path::new(root).join(place)));
    Ok(live_below(&all.collect::<Vec<_>>())?)
}

fn live_below(places: &[PathBuf]) -> io::Result<Vec<LiveWorker>> {
    let mut found = Vec::new();
    for place in places {
        let entries = match fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("w-"));
            if let Some(id) = name.and_then(|id| id.parse().ok())
                && is_populated(&path)
            {
                found.push(LiveWorker { id, path });
            }
        }
    }
    Ok(found)
}

/// Ends workers that did not end when asked: the worker first, so that its shim can write the record; then the shim.
///
/// # Errors
/// Where something lives still.
pub fn kill(workers: &[LiveWorker]) -> anyhow::Result<()> {
    // A frozen worker dies of cgroup.kill as well; its shim needs no thaw.
    for level in [Path::new("worker"), Path::new("")] {
        for worker in workers {
            // Gone meanwhile, or it never came so far: then there is nothing to kill.
            let _ = fs::write(worker.path.join(level).join("cgroup.kill"), "1");
        }
        let deadline = Instant::now() + KILL_MAX;
        while workers.iter().any(|worker| is_populated(&worker.path)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
    }
    let left: Vec<String> =
        workers.iter().filter(|worker| is_populated(&worker.path)).map(|w| w.id.to_string()).collect();
    anyhow::ensure!(left.is_empty(), "these workers could not be ended: {}", left.join(" "));
    Ok(())
}

/// Whether any process is in this cgroup or below (cgroup v2, "cgroup.events").
fn is_populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_populated_cgroups_of_workers_are_live() {
        let root = tempfile::tempdir().unwrap();
        for (name, populated) in [("w-0000000000000001", 1), ("w-0000000000000002", 0), ("launcher", 1), ("w-x", 1)] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("cgroup.events"), format!("populated {populated}\nfrozen 0\n"))
                .unwrap();
        }
        let live = live_below(&[root.path().to_owned(), root.path().join("absent")]).unwrap();
        assert_eq!(live.iter().map(|worker| worker.id.to_string()).collect::<Vec<_>>(), ["0000000000000001"]);
    }
}
