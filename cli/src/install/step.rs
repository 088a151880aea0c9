//! One step of a plan: it describes, applies and reverts itself. Install and update are made of these.

use super::command::{Call, CallError, Commands};
use super::disk::{self, Change};
use super::record::Account;
use super::undo::{Again, Undo};
use super::{ipv6, ready};
use crate::update::census::Census;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use holdfast_release::Folder;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mode of everything that root writes for all to read.
pub const FILE_MODE: u32 = 0o644;

/// What may be done to the host. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a directory of root's, 0755.
    Directory {
        /// Which.
        path: PathBuf,
    },
    /// Put the release folder in place.
    Place {
        /// Its name below `releases`.
        id: String,
    },
    /// Point a link somewhere, in one rename.
    Link {
        /// The link.
        path: PathBuf,
        /// Where to.
        target: String,
    },
    /// Write a file, in one rename.
    Write {
        /// The file.
        path: PathBuf,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Have the kernel forward IPv6 of workers, and leave everything else about it as it is.
    Forward6,
    /// Make the helper's account, by `systemd-sysusers`.
    Account {
        /// Its name.
        name: String,
    },
    /// Write unit files and have systemd read them, where one differs.
    Units {
        /// By name.
        files: BTreeMap<String, Vec<u8>>,
    },
    /// Nothing: systemd makes these sockets and directories. A revert removes those that were made, with all in them.
    UnitPaths {
        /// Which.
        paths: Vec<PathBuf>,
    },
    /// Have systemd start units at boot.
    Enable {
        /// Which.
        units: Vec<String>,
    },
    /// Bind a listener anew.
    Relisten {
        /// The listener.
        socket: String,
        /// Who serves it.
        service: String,
    },
    /// Start a unit.
    Start {
        /// Which.
        unit: String,
    },
    /// Restart a unit.
    Restart {
        /// Which.
        unit: String,
    },
    /// Wait until an owner's daemon answers with the right version, and all is well.
    Await {
        /// Whose daemon.
        owner: OwnerName,
        /// The owner.
        uid: u32,
        /// What it has to answer.
        version: String,
    },
    /// See that each program that runs is the file that was installed.
    Programs {
        /// Which.
        programs: Vec<Program>,
        /// The release's name below `releases`.
        id: String,
    },
    /// See that no worker was lost.
    Workers {
        /// Whose.
        owners: Vec<Account>,
        /// Who lived before.
        before: Census,
    },
    /// Wait, and see that nothing has crashed meanwhile.
    Soak {
        /// What has to run through.
        programs: Vec<Program>,
        /// Whose workers.
        owners: Vec<Account>,
        /// Who lived before.
        before: Census,
        /// How long.
        time: Duration,
    },
}

/// A program that a unit keeps running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its unit.
    pub unit: String,
    /// Its file's name in a release.
    pub file: String,
}

/// Where steps act.
pub struct Host<'a> {
    /// Paths.
    pub layout: &'a Layout,
    /// Programs.
    pub commands: &'a dyn Commands,
    /// The release that [`Step::Place`] puts in place.
    pub folder: &'a Folder,
    /// How long a daemon may take until it and all it needs answer.
    pub ready_max: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path } => write!(f, "make the directory {} (root, 0755)", path.display()),
            Self::Place { id } => write!(f, "put the release {id} in place"),
            Self::Link { path, target } => write!(f, "point {} to {target}", path.display()),
            Self::Write { path, .. } => write!(f, "write {}", path.display()),
            Self::Forward6 => f.write_str("have the kernel forward workers' IPv6 (nobody else's)"),
            Self::Account { name } => write!(f, "make the system account {name}"),
            Self::Units { files } => write!(f, "write {} unit files and have systemd read them", files.len()),
            Self::UnitPaths { paths } => {
                f.write_str("leave to systemd:")?;
                paths.iter().try_for_each(|path| write!(f, " {}", path.display()))
            }
            Self::Enable { units } => write!(f, "start at boot: {}", units.join(" ")),
            Self::Relisten { socket, .. } => write!(f, "bind {socket} anew"),
            Self::Start { unit } => write!(f, "start {unit}"),
            Self::Restart { unit } => write!(f, "restart {unit} (workers stay)"),
            Self::Await { owner, version, .. } => {
                write!(f, "wait until the daemon of {owner} answers with version {version}")
            }
            Self::Programs { programs, .. } => write!(f, "see that all {} programs are the new ones", programs.len()),
            Self::Workers { before, .. } => write!(f, "see that all {} workers live on", before.live()),
            Self::Soak { time, .. } => write!(f, "watch it for {} s", time.as_secs()),
        }
    }
}

impl Step {
    /// Does it. What it returns takes exactly this back.
    ///
    /// # Errors
    /// Where it could not be done; the step has then taken back what it did itself.
    pub fn apply(&self, host: &Host) -> anyhow::Result<Undo> {
        match self {
            Self::Directory { path } => made(disk::make_directory(path)?, || Undo::RemoveDirectory(path.clone())),
            Self::Place { .. } => {
                let place = host.layout.releases().join(host.folder.id().as_str());
                made(disk::place_release(host.folder, &host.layout.releases())?, || Undo::RemoveRelease(place))
            }
            Self::Link { path, target } => point(path, target),
            Self::Write { path, bytes } => write_all(&[(path.clone(), bytes)], false),
            // The kernel is not below the root of a test.
            Self::Forward6 if !host.layout.is_system() => Ok(Undo::Nothing),
            Self::Forward6 => match ipv6::for_workers() {
                Ok(()) => Ok(Undo::Forward6),
                // Some of it may be done.
                Err(cause) => Err(Interrupted { undo: Undo::Forward6, cause }.into()),
            },
            Self::Account { name } => make_account(host, name),
            Self::Units { files } => write_units(host, files),
            Self::UnitPaths { paths } => {
                let absent = paths.iter().filter(|path| path.symlink_metadata().is_err());
                Ok(Undo::RemoveUnitPaths(absent.cloned().collect()))
            }
            Self::Enable { units } => enable(host, units),
            Self::Relisten { socket, service } => {
                let undo = Undo::Last(vec![Again::Relisten(socket.clone(), service.clone())]);
                match relisten(host.commands, socket, service) {
                    Ok(()) => Ok(undo),
                    Err(error) => Err(Interrupted { undo, cause: error.into() }.into()),
                }
            }
            Self::Start { unit } => match host.commands.run(&Call::systemctl(["start", unit])) {
                Ok(_) => Ok(Undo::Stop(unit.clone())),
                // A unit that failed tries again for ever, so it has to be stopped all the same.
                Err(error) => Err(failed_unit(host, unit, error.into())),
            },
            Self::Restart { unit } => {
                let undo = Undo::Last(vec![Again::Restart(unit.clone())]);
                match host.commands.run(&Call::systemctl(["restart", unit])) {
                    Ok(_) => Ok(undo),
                    Err(error) => Err(Interrupted { undo, cause: error.into() }.into()),
                }
            }
            Self::Await { owner, version, .. } => {
                ready::wait(host.layout, host.commands, owner, version, host.ready_max)?;
                // Nothing to take back, and worth telling.
                Ok(Undo::Last(Vec::new()))
            }
            Self::Programs { programs, id } => {
                ready::check_programs(host.layout, host.commands, programs, id).map(|()| Undo::Nothing)
            }
            Self::Workers { owners, before } => {
                ready::check_workers(host.layout, host.commands, owners, before).map(|()| Undo::Nothing)
            }
            Self::Soak { programs, owners, before, time } => {
                ready::watch(host.commands, programs, *time)?;
                ready::check_workers(host.layout, host.commands, owners, before).map(|()| Undo::Nothing)
            }
        }
    }
}

/// A step that failed and still has something to be taken back with the others.
#[derive(Debug, thiserror::Error)]
#[error("{cause:#}")]
pub struct Interrupted {
    /// What takes it back.
    pub undo: Undo,
    /// Why it failed.
    pub cause: anyhow::Error,
}

fn made(change: Change, undo: impl FnOnce() -> Undo) -> anyhow::Result<Undo> {
    Ok(if change == Change::Made { undo() } else { Undo::Nothing })
}

fn point(path: &Path, target: &str) -> anyhow::Result<Undo> {
    let before = disk::link_if_there(path)
        .with_context(|| format!("{} is there and no link of ours: move it away", path.display()))?;
    if before.as_deref() == Some(target) {
        return Ok(Undo::Nothing);
    }
    let undo = Undo::Link(path.to_owned(), before);
    match disk::write_link(path, target) {
        Ok(()) => Ok(undo),
        // It may point there already, and only not be on disk.
        Err(error) => Err(Interrupted { undo, cause: error.into() }.into()),
    }
}

fn files(before: Vec<(PathBuf, Option<Vec<u8>>)>, units: bool) -> Undo {
    if before.is_empty() { Undo::Nothing } else { Undo::Files { before, units } }
}

/// Writes what differs.
fn write_all(wanted: &[(PathBuf, &Vec<u8>)], units: bool) -> anyhow::Result<Undo> {
    let mut done = Vec::new();
    for (path, bytes) in wanted {
        let change = |done: &mut Vec<_>| -> std::io::Result<()> {
            let before = disk::read_if_there(path)?;
            if before.as_ref() == Some(*bytes) {
                return Ok(());
            }
            // Before it is tried: one that fails may have its new content already, and only not be on disk.
            done.push((path.clone(), before));
            disk::write_file(path, bytes, FILE_MODE)
        };
        if let Err(error) = change(&mut done) {
            let cause = anyhow::Error::from(error).context(path.display().to_string());
            return Err(Interrupted { undo: files(done, units), cause }.into());
        }
    }
    Ok(files(done, units))
}

fn write_units(host: &Host, units: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Undo> {
    let at = host.layout.units();
    let wanted: Vec<_> = units.iter().map(|(name, bytes)| (at.join(name), bytes)).collect();
    let undo = write_all(&wanted, true)?;
    if matches!(undo, Undo::Nothing) {
        return Ok(undo);
    }
    match host.commands.run(&Call::systemctl(["daemon-reload"])) {
        Ok(_) => Ok(undo),
        Err(error) => Err(Interrupted { undo, cause: error.into() }.into()),
    }
}

fn make_account(host: &Host, name: &str) -> anyhow::Result<Undo> {
    let there =
        |database| host.commands.ask(&Call::new("/usr/bin/getent", [database, name])).map(|said| said.code == Some(0));
    if there("passwd")? && there("group")? {
        return Ok(Undo::Nothing);
    }
    let conf = host.layout.root().join("etc/sysusers.d/holdfast.conf");
    let conf = conf.to_str().context("a path that is not UTF-8")?;
    host.commands.run(&Call::new("/usr/bin/systemd-sysusers", [conf]))?;
    Ok(Undo::RemoveAccount(name.to_owned()))
}

/// Binds a listener anew. Both are stopped in one go: a caller who waits would else start the service between them,
/// and a listener whose service runs cannot be started.
///
/// # Errors
/// Where one of them does not start.
pub fn relisten(commands: &dyn Commands, socket: &str, service: &str) -> Result<(), CallError> {
    commands.run(&Call::systemctl(["stop", socket, service]))?;
    commands.run(&Call::systemctl(["start", socket]))?;
    commands.run(&Call::systemctl(["start", service])).map(drop)
}

/// Enables what is not enabled yet.
fn enable(host: &Host, units: &[String]) -> anyhow::Result<Undo> {
    let mut fresh = Vec::new();
    for unit in units {
        let said = host.commands.ask(&Call::systemctl(["is-enabled", unit]))?;
        if said.out.trim() != "enabled" {
            fresh.push(unit.clone());
        }
    }
    if fresh.is_empty() {
        return Ok(Undo::Nothing);
    }
    let call = Call::systemctl(["enable".to_owned()].into_iter().chain(fresh.clone()));
    match host.commands.run(&call) {
        Ok(_) => Ok(Undo::Disable(fresh)),
        Err(error) => Err(Interrupted { undo: Undo::Disable(fresh), cause: error.into() }.into()),
    }
}

/// A unit that does not start: what it said last, and that it still has to be stopped.
fn failed_unit(host: &Host, unit: &str, error: anyhow::Error) -> anyhow::Error {
    let cause = error.context(ready::last_words(host.commands, unit));
    Interrupted { undo: Undo::Stop(unit.to_owned()), cause }.into()
}
