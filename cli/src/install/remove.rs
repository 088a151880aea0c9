//! Takes Holdfast off the host: best effort at each step, so that half an install goes, too.

use super::command::{Call, Commands};
use super::disk;
use super::plan::{
    HELPER_ACCOUNT, HOST_UNITS, RECOVER_TIMER, RECOVER_UNIT, SHUTDOWN_UNIT, owner_units, sysctl, tmpfiles,
};
use super::record::{Account, Installed};
use super::rules;
use super::undo::{remove_directory, remove_foreign, remove_owner_runtime};
use super::{facts, ipv6, network, slice};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use nix::unistd::User;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Everything of the host, not only the owners named.
    pub host: bool,
    /// Also state and configuration.
    pub purge: bool,
}

/// Removes `owners`, and the host's part if asked. Returns what could not be removed.
pub fn remove(layout: &Layout, commands: &dyn Commands, owners: &[Account], removal: Removal) -> Vec<String> {
    let mut left = Left::default();
    if removal.host {
        // First: its stop asks the daemons, which are there only until now.
        left.note("shutdown unit", end_units(layout, commands, &[SHUTDOWN_UNIT.to_owned()]));
    }
    for owner in owners {
        left.note(&format!("units of {}", owner.name), end_units(layout, commands, &owner_units(&owner.name)));
        left.note(&format!("slice of {}", owner.name), slice::leave(commands, &owner.name).map_err(Into::into));
        if removal.purge {
            let state = layout.owner_state(&owner.name);
            left.note(&format!("state of {}", owner.name), remove_foreign(commands, &state));
        }
        let runtime = remove_owner_runtime(layout, commands, &owner.name);
        left.note(&format!("sockets of {}", owner.name), runtime);
        left.note(&format!("links of {}", owner.name), network::remove_links(Some(owner.uid)).map_err(Into::into));
    }
    if removal.host {
        remove_host(layout, commands, removal.purge, &mut left);
    } else {
        left.note("records", forget(layout, owners, removal.purge));
    }
    left.0
}

/// Owners that are installed: by `install.toml`, and where that says less, by their units and their state.
///
/// # Errors
/// Where the host cannot be read.
pub fn owners(layout: &Layout) -> anyhow::Result<Vec<Account>> {
    // A broken file must not keep anybody from removing the rest.
    let installed = facts::installed(layout).unwrap_or_default();
    let mut found: BTreeMap<OwnerName, Account> = BTreeMap::new();
    for owner in installed.map(|installed| installed.owners).unwrap_or_default() {
        found.insert(owner.name.clone(), owner);
    }
    for name in names_in(&layout.units().join("multi-user.target.wants"))? {
        let name = name.strip_prefix("holdfastd@").and_then(|rest| rest.strip_suffix(".service"));
        if let Some(name) = name.and_then(|name| name.parse::<OwnerName>().ok())
            && !found.contains_key(&name)
            && let Some(user) = User::from_name(name.as_str())?
        {
            let (uid, gid, home) = (user.uid.as_raw(), user.gid.as_raw(), user.dir.display().to_string());
            found.insert(name.clone(), Account { name, uid, gid, home });
        }
    }
    for name in names_in(&layout.state().join("owners"))? {
        if let Ok(name) = name.parse::<OwnerName>()
            && !found.contains_key(&name)
        {
            // The account may be gone; its directory still says who it was.
            let about = fs::symlink_metadata(layout.owner_state(&name))?;
            let (uid, gid) = (about.uid(), about.gid());
            found.insert(name.clone(), Account { name, uid, gid, home: String::new() });
        }
    }
    Ok(found.into_values().collect())
}

/// Takes owners out of `install.toml` and the boot's directories; a purge takes their rules, too.
fn forget(layout: &Layout, owners: &[Account], purge: bool) -> anyhow::Result<()> {
    let gone = |owner: &Account| owners.iter().any(|gone| gone.name == owner.name);
    if let Some(mut installed) = facts::installed(layout)? {
        installed.owners.retain(|owner| !gone(owner));
        disk::write_file(&layout.install_toml(), installed.text()?.as_bytes(), 0o644)?;
        forget_directories(layout, &installed)?;
    }
    if purge && let Some(text) = disk::read_if_there(&layout.rules_toml())? {
        let mut text = String::from_utf8(text).context("rules.toml")?;
        for owner in owners {
            text = rules::without(&text, owner.name.as_str())?;
        }
        disk::write_file(&layout.rules_toml(), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn forget_directories(layout: &Layout, installed: &Installed) -> anyhow::Result<()> {
    let path = layout.root().join("etc/tmpfiles.d/holdfast.conf");
    let Some(text) = disk::read_if_there(&path)? else { return Ok(()) };
    let text = String::from_utf8(text).context("tmpfiles.d/holdfast.conf")?;
    let own = |line: &&str| !line.starts_with("d /run/holdfast/owners/");
    let lines: String = text.lines().filter(own).map(|line| format!("{line}\n")).collect();
    Ok(disk::write_file(&path, tmpfiles(&lines, installed).as_bytes(), 0o644)?)
}

/// Stops units and takes them out of the boot.
fn end_units(layout: &Layout, commands: &dyn Commands, units: &[String]) -> anyhow::Result<()> {
    // The daemon's socket first: else a caller would start the daemon again.
    let stop =
        units.iter().filter(|unit| unit.ends_with(".socket")).chain(units.iter().filter(|u| !u.ends_with(".socket")));
    let mut outcome = Ok(());
    for unit in stop {
        let file = match unit.split_once('@') {
            Some((name, rest)) => format!("{name}@{}", rest.rfind('.').map_or("", |dot| &rest[dot..])),
            None => unit.clone(),
        };
        if !layout.units().join(&file).exists() {
            continue;
        }
        for (verb, unit) in [("stop", &slice::stopped_by(unit)), ("disable", unit)] {
            if let Err(error) = commands.run(&Call::systemctl([verb, unit])) {
                outcome = Err(error.into());
            }
        }
        // One that never failed is no error here.
        commands.ask(&Call::systemctl(["reset-failed", unit]))?;
    }
    outcome
}

fn remove_host(layout: &Layout, commands: &dyn Commands, purge: bool, left: &mut Left) {
    let units = [RECOVER_TIMER, RECOVER_UNIT].into_iter().chain(HOST_UNITS).map(str::to_owned);
    left.note("units of the host", end_units(layout, commands, &units.collect::<Vec<_>>()));
    left.note("unit files", remove_unit_files(layout, commands));
    left.note("sockets", remove_run(layout, commands));
    let etc = layout.root().join("etc");
    // Rules are the administrator's and stay for the next install; the record of this one does not.
    let conf = [etc.join("tmpfiles.d/holdfast.conf"), layout.install_toml()];
    for path in conf.into_iter().chain([layout.command(), layout.current(), layout.previous()]) {
        left.note(&path.display().to_string(), disk::remove_file(&path).map(drop).map_err(Into::into));
    }
    left.note("forwarding of IPv6", forward_no_more(layout));
    left.note("releases", remove_tree(&layout.library()));
    left.note("links", network::remove_links(None).map_err(Into::into));
    left.note("table holdfast", network::remove_table().map_err(Into::into));
    if purge {
        left.note("configuration", remove_tree(&layout.config()));
        left.note("state", purge_state(layout));
        left.note("account", remove_account(layout, commands));
    }
}

fn forward_no_more(layout: &Layout) -> anyhow::Result<()> {
    let was_ours = disk::remove_file(&sysctl(layout))? == disk::Change::Made;
    if was_ours && layout.is_system() { ipv6::for_nobody() } else { Ok(()) }
}

fn remove_unit_files(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<()> {
    let mut changed = false;
    for name in names_in(&layout.units())? {
        let ours = name.starts_with("holdfast-") || name.starts_with("holdfastd@");
        if ours && [".service", ".socket", ".timer"].iter().any(|suffix| name.ends_with(suffix)) {
            changed |= disk::remove_file(&layout.units().join(name))? == disk::Change::Made;
        }
    }
    if changed {
        commands.run(&Call::systemctl(["daemon-reload"]))?;
    }
    Ok(())
}

fn remove_run(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<()> {
    for path in [layout.helper_socket(), layout.launch_socket()] {
        disk::remove_file(&path)?;
    }
    remove_foreign(commands, &layout.helper_run())?;
    for path in [layout.run().join("owners"), layout.run()] {
        remove_directory(&path)?;
    }
    Ok(())
}

/// Removes root's state; what is below `owners` was purged as its owners, and root does not go in there.
fn purge_state(layout: &Layout) -> anyhow::Result<()> {
    remove_directory(&layout.state().join("owners"))?;
    remove_tree(&layout.state())
}

/// Removes the account before the file that would make it again.
fn remove_account(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<()> {
    if commands.ask(&Call::new("/usr/bin/getent", ["passwd", HELPER_ACCOUNT]))?.code == Some(0) {
        commands.run(&Call::new("/usr/sbin/userdel", [HELPER_ACCOUNT]))?;
    }
    let directory = layout.root().join("etc/sysusers.d");
    disk::remove_file(&directory.join("holdfast.conf"))?;
    // Debian has none of its own: an install makes it.
    if names_in(&directory)?.is_empty() {
        remove_directory(&directory)?;
    }
    Ok(())
}

/// Removes a tree of root's.
fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
        _ => Ok(()),
    }
}

fn names_in(path: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// What could not be removed.
#[derive(Default)]
struct Left(Vec<String>);

impl Left {
    fn note(&mut self, what: &str, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            self.0.push(format!("{what}: {error:#}"));
        }
    }
}
