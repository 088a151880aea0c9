//! An owner's slice: opened to the owner by root when the launcher starts, stopped when the owner goes.

use super::command::{Call, CallError, Commands};
use anyhow::{Context, ensure};
use holdfast_proto::cgroups::{MOUNTS, slices, unified_path, workers_unit};
use holdfast_proto::words::OwnerName;
use nix::unistd::User;
use std::fs;
use std::path::{Path, PathBuf};

/// What `holdfast-launcher@.service` runs as root before its launcher: gives `owner` the one file of the slice whose
/// writer may move processes between the cgroups in it. Those are the owner's anyway.
///
/// # Errors
/// Where this process is in no unit of that slice: any other cgroup's file would open more.
pub fn open(owner: &OwnerName) -> anyhow::Result<()> {
    let text = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let place = slice_of(&text, owner)?;
    let user = User::from_name(owner.as_str())?.with_context(|| format!("there is no account {owner}"))?;
    ensure!(!user.uid.is_root(), "root owns no workers");
    let place = place.trim_start_matches('/');
    let procs = MOUNTS.map(|mount| Path::new(mount).join(place).join("cgroup.procs"));
    let procs = procs.into_iter().find(|path| path.exists()).context("cgroup v2 is not mounted")?;
    std::os::unix::fs::chown(&procs, Some(user.uid.as_raw()), None).with_context(|| procs.display().to_string())
}

/// The cgroup of the owner's slice, where this is the text of a process in one of its units. Pure.
fn slice_of<'a>(text: &'a str, owner: &OwnerName) -> anyhow::Result<&'a str> {
    let own = unified_path(text).context("no cgroup v2")?;
    let slice = own.rsplit_once('/').map_or("", |(slice, _)| slice);
    let wanted = format!("/{}", slices(owner).join("/"));
    ensure!(slice.ends_with(&wanted), "{own} is not in the slice {wanted}: is Slice= of the unit another one?");
    Ok(slice)
}

/// What is told to systemd so that a unit stops: the unit that workers live in refuses a stop of itself alone.
pub fn stopped_by(unit: &str) -> String {
    held_for(unit).and_then(|owner| slices(&owner).pop()).unwrap_or_else(|| unit.to_owned())
}

/// Whose workers a unit holds, if it does.
pub fn held_for(unit: &str) -> Option<OwnerName> {
    unit.strip_prefix("holdfast-workers@")?.strip_suffix(".service")?.parse().ok()
}

/// Whether a unit holds workers: it is stopped with its owner, and never restarted.
pub fn holds_workers(unit: &str) -> bool {
    held_for(unit).is_some()
}

/// Stops the slices that an owner's lies in and that hold nothing any more, the innermost first.
///
/// # Errors
/// Where systemd does not.
pub fn leave(commands: &dyn Commands, owner: &OwnerName) -> Result<(), CallError> {
    let all = slices(owner);
    for depth in (1..=all.len()).rev() {
        let place: PathBuf = all[..depth].iter().collect();
        let is_used = MOUNTS.iter().any(|mount| holds_any(&Path::new(mount).join(&place)));
        if is_used {
            break;
        }
        commands.run(&Call::systemctl(["stop", &all[depth - 1]]))?;
    }
    Ok(())
}

fn holds_any(cgroup: &Path) -> bool {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// Where the cgroups of an owner's workers are or may have been, below the mount.
pub fn places(owner: &OwnerName) -> Vec<PathBuf> {
    let slice: PathBuf = slices(owner).iter().collect();
    let launcher = holdfast_proto::cgroups::launcher_unit(owner);
    let before = Path::new("system.slice").join("system-holdfast\\x2dlauncher.slice").join(&launcher);
    vec![slice.join(workers_unit(owner)), slice.join(launcher), before]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> OwnerName {
        name.parse().unwrap()
    }

    #[test]
    fn only_the_owners_own_slice_is_opened() {
        let john = owner("john");
        let inside = "0::/holdfast.slice/holdfast-john:.slice/holdfast-launcher@john.service\n";
        assert_eq!(slice_of(inside, &john).unwrap(), "/holdfast.slice/holdfast-john:.slice");
        for elsewhere in [
            "0::/system.slice/system-holdfast\\x2dlauncher.slice/holdfast-launcher@john.service\n",
            "0::/holdfast.slice/holdfast-john.slice/holdfast-john-doe:.slice/holdfast-launcher@john-doe.service\n",
            "0::/holdfast.slice/holdfast-john:.slice\n",
            "0::/holdfast.slice/x\n",
            "0::/\n",
            "4:memory:/holdfast.slice/holdfast-john:.slice/x\n",
        ] {
            assert!(slice_of(elsewhere, &john).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn what_holds_workers_stops_with_its_slice() {
        assert_eq!(stopped_by("holdfast-workers@john-doe.service"), "holdfast-john-doe:.slice");
        assert_eq!(stopped_by("holdfastd@john-doe.socket"), "holdfastd@john-doe.socket");
    }

    #[test]
    fn workers_are_looked_for_beside_the_launcher_first() {
        let all = places(&owner("a"));
        assert_eq!(all[0], Path::new("holdfast.slice/holdfast-a:.slice/holdfast-workers@a.service"));
    }
}
