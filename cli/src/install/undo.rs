//! Takes back what a step did.

use super::command::{Call, Commands, SYSTEMCTL_MAX};
use super::disk;
use super::record::Account;
use super::step::{FILE_MODE, Host};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How to take back one step that was applied.
#[derive(Debug)]
pub enum Undo {
    /// There is nothing to take back.
    Nothing,
    /// Remove an empty directory.
    RemoveDirectory(PathBuf),
    /// Remove a release that was put in place.
    RemoveRelease(PathBuf),
    /// Put a link back.
    Link(PathBuf, Option<String>),
    /// Put files back as they were; afterwards systemd reads units again if they are units.
    Files {
        /// What they held.
        before: Vec<(PathBuf, Option<Vec<u8>>)>,
        /// Whether systemd has to be told.
        units: bool,
    },
    /// Remove an account that was made.
    RemoveAccount(String),
    /// Remove an owner's state and run-time files that were made.
    RemoveOwnerState(Account),
    /// Remove the helper's run-time directory that was made.
    RemoveHelperRuntime,
    /// Take units out of the boot.
    Disable(Vec<String>),
    /// Stop a unit that did not run.
    Stop(String),
    /// Restart a unit once everything else is as before.
    RestartLast(Vec<String>),
}

impl Undo {
    /// Takes it back. What has to wait until all else is as before is added to `last`.
    ///
    /// # Errors
    /// Where something is left; the caller goes on with the other steps.
    pub fn apply(self, host: &Host, last: &mut Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::RemoveDirectory(path) => remove_directory(&path),
            Self::RemoveRelease(path) => fs::remove_dir_all(&path).with_context(|| path.display().to_string()),
            Self::Link(path, Some(target)) => {
                disk::write_link(&path, &target).with_context(|| path.display().to_string())
            }
            Self::Link(path, None) => disk::remove_file(&path).map(drop).with_context(|| path.display().to_string()),
            Self::Files { before, units } => {
                put_back(before)?;
                if units {
                    host.commands.run(&Call::systemctl(["daemon-reload"]))?;
                }
                Ok(())
            }
            Self::RemoveAccount(name) => Ok(host.commands.run(&Call::new("/usr/sbin/userdel", [name])).map(drop)?),
            Self::RemoveOwnerState(owner) => remove_owner_state(host.layout, host.commands, &owner),
            Self::RemoveHelperRuntime => remove_helper_runtime(host.layout, host.commands),
            Self::Disable(units) => {
                Ok(host.commands.run(&Call::systemctl(["disable".to_owned()].into_iter().chain(units))).map(drop)?)
            }
            Self::Stop(unit) => {
                host.commands.run(&Call::systemctl(["stop", &unit]))?;
                // A unit that failed before would be shown for ever; one that did not is no error here.
                host.commands.ask(&Call::systemctl(["reset-failed", &unit]))?;
                Ok(())
            }
            Self::RestartLast(units) => {
                last.extend(units);
                Ok(())
            }
        }
    }
}

/// Removes an owner's state and run-time files.
///
/// # Errors
/// Where something is left.
pub fn remove_owner_state(layout: &Layout, commands: &dyn Commands, owner: &Account) -> anyhow::Result<()> {
    let state = layout.owner_state(&owner.name);
    empty_as(commands, &state, owner.uid, owner.gid)?;
    remove_directory(&state)?;
    remove_owner_runtime(layout, commands, owner)
}

/// Removes an owner's sockets and other run-time files.
///
/// # Errors
/// Where something is left.
pub fn remove_owner_runtime(layout: &Layout, commands: &dyn Commands, owner: &Account) -> anyhow::Result<()> {
    let workers = layout.workers_run(&owner.name);
    empty_as(commands, &workers, owner.uid, owner.gid)?;
    remove_directory(&workers)?;
    disk::remove_file(&layout.daemon_socket(&owner.name)).context("daemon.sock")?;
    remove_directory(&layout.owner_run(&owner.name))
}

/// Removes the helper's run-time directory.
///
/// # Errors
/// Where something is left.
pub fn remove_helper_runtime(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<()> {
    let path = layout.helper_run();
    if let Ok(about) = fs::symlink_metadata(&path) {
        empty_as(commands, &path, about.uid(), about.gid())?;
    }
    remove_directory(&path)
}

/// Empties a directory of somebody else's as that one, so that no link in it leads root anywhere. The directory
/// itself lies in root's and stays for root to remove.
///
/// # Errors
/// Where something is left in it.
pub fn empty_as(commands: &dyn Commands, path: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let text = path.to_str().context("a path that is not UTF-8")?;
    let call = Call::new("/usr/bin/find", [text, "-xdev", "-mindepth", "1", "-delete"]);
    Ok(commands.run(&call.within(SYSTEMCTL_MAX).as_owner(uid, gid)).map(drop)?)
}

/// Removes an empty directory; its absence is as good.
pub fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
        _ => Ok(()),
    }
}

/// Puts files back as they were, the last first.
pub fn put_back(before: Vec<(PathBuf, Option<Vec<u8>>)>) -> anyhow::Result<()> {
    for (path, bytes) in before.into_iter().rev() {
        let outcome = match bytes {
            Some(bytes) => disk::write_file(&path, &bytes, FILE_MODE),
            None => disk::remove_file(&path).map(drop),
        };
        outcome.with_context(|| path.display().to_string())?;
    }
    Ok(())
}
