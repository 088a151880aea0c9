//! Takes back what a step did.

use super::command::{Call, Commands, SYSTEMCTL_MAX};
use super::disk;
use super::plan::HELPER_UNIT;
use super::slice;
use super::step::{FILE_MODE, Host, relisten};
use super::{ipv6, network};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
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
    /// Have IPv6 not forwarded.
    Forward6,
    /// Remove an account that was made.
    RemoveAccount(String),
    /// Remove sockets and directories that systemd made.
    RemoveUnitPaths(Vec<PathBuf>),
    /// Take units out of the boot.
    Disable(Vec<String>),
    /// Stop a unit that did not run.
    Stop(String),
    /// Bring units back once everything else is as before.
    Last(Vec<Again>),
}

/// How a unit comes back as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// By a restart.
    Restart(String),
    /// A listener and its service, bound anew.
    Relisten(String, String),
}

impl Again {
    /// Does it.
    ///
    /// # Errors
    /// Where a unit does not come back.
    pub fn apply(&self, commands: &dyn Commands) -> anyhow::Result<()> {
        match self {
            Self::Restart(unit) => commands.run(&Call::systemctl(["restart", unit])).map(drop)?,
            Self::Relisten(socket, service) => relisten(commands, socket, service)?,
        }
        Ok(())
    }
}

impl Undo {
    /// Takes it back. What has to wait until all else is as before is added to `last`.
    ///
    /// # Errors
    /// Where something is left; the caller goes on with the other steps.
    pub fn apply(self, host: &Host, last: &mut Vec<Again>) -> anyhow::Result<()> {
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
            Self::Forward6 => ipv6::off(),
            Self::RemoveAccount(name) => Ok(host.commands.run(&Call::new("/usr/sbin/userdel", [name])).map(drop)?),
            Self::RemoveUnitPaths(paths) => paths.iter().try_for_each(|path| match path.is_dir() {
                true => remove_foreign(host.commands, path),
                false => disk::remove_file(path).map(drop).with_context(|| path.display().to_string()),
            }),
            Self::Disable(units) => {
                Ok(host.commands.run(&Call::systemctl(["disable".to_owned()].into_iter().chain(units))).map(drop)?)
            }
            Self::Stop(unit) => {
                host.commands.run(&Call::systemctl(["stop", &slice::stopped_by(&unit)]))?;
                // A unit that failed before would be shown for ever; one that did not is no error here.
                host.commands.ask(&Call::systemctl(["reset-failed", &unit]))?;
                if let Some(owner) = slice::held_for(&unit) {
                    slice::leave(host.commands, &owner)?;
                }
                // What the helper made in the kernel is not below the root of a test or a session.
                if unit == HELPER_UNIT && host.layout.is_system() {
                    network::remove_links(None)?;
                    network::remove_table()?;
                }
                Ok(())
            }
            Self::Last(units) => {
                last.extend(units);
                Ok(())
            }
        }
    }
}

/// Removes an owner's sockets and other run-time files.
///
/// # Errors
/// Where something is left.
pub fn remove_owner_runtime(layout: &Layout, commands: &dyn Commands, owner: &OwnerName) -> anyhow::Result<()> {
    remove_foreign(commands, &layout.workers_run(owner))?;
    disk::remove_file(&layout.daemon_socket(owner)).context("daemon.sock")?;
    remove_directory(&layout.owner_run(owner))
}

/// Removes a directory of somebody else's that lies in one of root's. It is emptied as whom it belongs to, so that
/// no link in it leads root anywhere.
///
/// # Errors
/// Where something is left.
pub fn remove_foreign(commands: &dyn Commands, path: &Path) -> anyhow::Result<()> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    let text = path.to_str().context("a path that is not UTF-8")?;
    let call = Call::new("/usr/bin/find", [text, "-xdev", "-mindepth", "1", "-delete"]);
    commands.run(&call.within(SYSTEMCTL_MAX).run_as(about.uid(), about.gid()))?;
    remove_directory(path)
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
