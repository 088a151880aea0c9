//! What an install finds before it changes anything. Everything is read here, so that [`super::plan`] is pure.

use super::command::{Call, Commands};
use super::disk;
use super::ipv6::{self, Forwards6};
use super::record::{Account, Installed};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_release::{Folder, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// The oldest systemd whose behaviour the units rely on.
pub const SYSTEMD_MIN: u32 = 252;

/// What there is.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The machine.
    pub machine: Machine,
    /// The new owner.
    pub account: Account,
    /// The release that was named.
    pub release: ReleaseFacts,
    /// `install.toml`.
    pub installed: Option<Installed>,
    /// `rules.toml`.
    pub rules: Option<String>,
    /// Target of `current`.
    pub current: Option<String>,
    /// Unit files that are there, by name.
    pub units: BTreeMap<String, Vec<u8>>,
    /// Units that run.
    pub active: Vec<String>,
}

/// What the host can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Version of the systemd that runs as PID 1; none where something else does.
    pub systemd: Option<u32>,
    /// Why the owner cannot make user namespaces, if so.
    pub user_namespaces: Result<(), String>,
    /// Who has IPv6 forwarded.
    pub forwards6: Forwards6,
}

/// What the plan needs to know of a release folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// Name of its folder once installed.
    pub id: String,
    /// What its programs print.
    pub version: String,
    /// Commit of its sources.
    pub commit: String,
    /// Unit files, by name.
    pub units: BTreeMap<String, Vec<u8>>,
    /// Conf files and default rules, by name.
    pub conf: BTreeMap<String, String>,
}

impl ReleaseFacts {
    /// Of a folder that was checked.
    ///
    /// # Errors
    /// Where the folder changed since.
    pub fn of(folder: &Folder) -> anyhow::Result<Self> {
        let (mut units, mut conf) = (BTreeMap::new(), BTreeMap::new());
        for file in folder.release().files() {
            if let Some(unit) = file.unit_name() {
                units.insert(unit, folder.read(&file.name)?);
            } else if file.role == Role::Conf {
                let text = String::from_utf8(folder.read(&file.name)?).with_context(|| file.name.clone())?;
                conf.insert(file.name.clone(), text);
            }
        }
        let release = folder.release();
        let (version, commit) = (release.version.to_string(), release.commit.clone());
        Ok(Self { id: folder.id().to_string(), version, commit, units, conf })
    }
}

/// Reads everything.
///
/// # Errors
/// Where something that is there cannot be read or understood.
pub fn gather(layout: &Layout, commands: &dyn Commands, folder: &Folder, account: Account) -> anyhow::Result<Facts> {
    let release = ReleaseFacts::of(folder)?;
    let mut units = BTreeMap::new();
    for name in release.units.keys() {
        if let Some(bytes) = disk::read_if_there(&layout.units().join(name)).with_context(|| name.clone())? {
            units.insert(name.clone(), bytes);
        }
    }
    let user_namespaces = user_namespaces(commands, &account);
    let machine = Machine { systemd: systemd(layout, commands)?, user_namespaces, forwards6: ipv6::now() };
    let active = if machine.systemd.is_some() { active_units(commands)? } else { Vec::new() };
    Ok(Facts {
        machine,
        account,
        release,
        installed: installed(layout)?,
        rules: text_if_there(&layout.rules_toml())?,
        current: disk::link_if_there(&layout.current()).context("current")?,
        units,
        active,
    })
}

/// Reads `install.toml`.
///
/// # Errors
/// Where it is there and not understood.
pub fn installed(layout: &Layout) -> anyhow::Result<Option<Installed>> {
    let path = layout.install_toml();
    let Some(text) = text_if_there(&path)? else { return Ok(None) };
    Installed::parse(&text).map(Some).with_context(|| path.display().to_string())
}

/// Version of the systemd that runs as PID 1, or none where it does not.
/// Both of its marks are asked for: `/proc/1/exe` cannot be read by everybody, and one mark alone can be left over.
///
/// # Errors
/// Where it runs and does not say its version.
pub fn systemd(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<Option<u32>> {
    let booted = layout.root().join("run/systemd/system").is_dir();
    let first = std::fs::read_to_string(layout.root().join("proc/1/comm")).unwrap_or_default();
    if !booted || first.trim() != "systemd" {
        return Ok(None);
    }
    let said = commands.run(&Call::systemctl(["--version"]))?;
    // "systemd 252 (252.39-1~deb12u2)"
    let version = said.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    version.map(Some).with_context(|| format!("systemctl --version said {said:?}"))
}

/// Names of our units that run.
///
/// # Errors
/// Where systemd does not answer.
pub fn active_units(commands: &dyn Commands) -> anyhow::Result<Vec<String>> {
    let patterns = ["holdfast*.service", "holdfast*.socket"];
    let args = ["list-units", "--plain", "--no-legend", "--full", "--state=active"].into_iter().chain(patterns);
    let said = commands.run(&Call::systemctl(args))?;
    Ok(said.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Tries what the launcher does first, as the owner.
fn user_namespaces(commands: &dyn Commands, account: &Account) -> Result<(), String> {
    const UNSHARE: &str = "/usr/bin/unshare";
    for (path, off, what) in [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ] {
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == off) {
            return Err(what.to_owned());
        }
    }
    if !Path::new(UNSHARE).exists() {
        return Ok(());
    }
    let call = Call::new(UNSHARE, ["--user", "--net", "/bin/true"]).run_as(account.uid, account.gid);
    commands.run(&call).map(drop).map_err(|error| {
        let guarded = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        match std::fs::read_to_string(guarded).is_ok_and(|value| value.trim() == "1") {
            true => format!("{error} (AppArmor: kernel.apparmor_restrict_unprivileged_userns is 1)"),
            false => error.to_string(),
        }
    })
}

fn text_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = disk::read_if_there(path).with_context(|| path.display().to_string())?;
    bytes.map(String::from_utf8).transpose().with_context(|| path.display().to_string())
}
