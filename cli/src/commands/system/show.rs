//! What `holdfast system` prints.

use crate::caller::without_blanks;
use crate::exit;
use crate::install::command::{Call, Commands};
use crate::install::plan::{HELPER_UNIT, start_order};
use crate::install::record::{Account, Installed};
use crate::install::remove::Removal;
use crate::install::workers::LiveWorker;
use crate::install::{disk, facts, ready};
use crate::out;
use crate::view::cell;
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// What there is to say where nothing is installed.
pub const NOT_INSTALLED: &str = "not installed: `sudo FOLDER/holdfast system install --owner USER` does it";
/// Most characters of a word in a table.
const CELL_MAX: usize = 100;

/// After an install.
///
/// # Errors
/// Where stdout cannot be written.
pub fn installed(layout: &Layout, owner: &OwnerName, installed: &Installed, signed: bool) -> anyhow::Result<()> {
    let build = if signed { "" } else { " (local build)" };
    let rows = [
        ("owner", owner.to_string()),
        ("release", format!("{}{build}", installed.release)),
        ("socket", layout.daemon_socket(owner).display().to_string()),
        ("helper socket", layout.helper_socket().display().to_string()),
        ("rules", layout.rules_toml().display().to_string()),
        ("services", format!("holdfastd@{owner} holdfast-launcher@{owner} holdfast-helper")),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in rows {
        out::line(&format!("{name:width$}  {value}"))?;
    }
    out::line(&format!(
        "\nNow, as {owner} and without sudo:\n  holdfast run -d --name web -p 8080:80 -- python3 -m http.server 80"
    ))?;
    Ok(())
}

/// After a removal.
///
/// # Errors
/// Where stdout cannot be written.
pub fn removed(layout: &Layout, owners: &[Account], removal: Removal) -> anyhow::Result<()> {
    let names: Vec<&str> = owners.iter().map(|owner| owner.name.as_str()).collect();
    let names = if names.is_empty() { "no owner".to_owned() } else { names.join(" ") };
    out::line(&format!("removed: {names}{}", if removal.host { ", and Holdfast itself" } else { "" }))?;
    let (state, config) = (layout.state(), layout.config());
    match removal.purge {
        true => out::line("state, output of workers and rules are removed, too")?,
        false => out::line(&format!("kept: {} and {} (--purge removes them)", state.display(), config.display()))?,
    }
    Ok(())
}

/// What to call a live worker in a refusal: `owner/name`, or its id where no daemon tells.
pub fn name_of(layout: &Layout, commands: &dyn Commands, owner: &OwnerName, worker: &LiveWorker) -> String {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        name: String,
    }
    let id = worker.id.to_string();
    let listed = commands.run(&ready::as_owner(layout, owner, ["ps", "--json"])).unwrap_or_default();
    let listed: Vec<Listed> = serde_json::from_str(&listed).unwrap_or_default();
    let name = listed.into_iter().find(|listed| listed.id == id).map_or(id, |listed| cell(&listed.name, CELL_MAX));
    format!("{owner}/{name}")
}

/// One unit as systemd has it.
#[derive(Debug, Serialize)]
struct UnitShown {
    unit: String,
    active: String,
    enabled: String,
    pid: Option<u32>,
}

/// `system status --json`.
#[derive(Debug, Serialize)]
struct StatusShown<'a> {
    installed: bool,
    version: &'a str,
    release: &'a str,
    current: Option<String>,
    previous: Option<String>,
    commit: &'a str,
    installed_at: String,
    owners: Vec<String>,
    units: Vec<UnitShown>,
    sockets: Vec<String>,
    daemon: Option<serde_json::Value>,
}

/// Says what is installed and runs. Everybody may ask; only an owner (and root in an owner's name) hears its daemon.
///
/// # Errors
/// Where the record is there and not understood, or stdout cannot be written.
pub fn status(layout: &Layout, commands: &dyn Commands, owner: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let Some(mut record) = facts::installed(layout)? else {
        if json {
            out::json(&serde_json::json!({ "installed": false }))?;
        }
        exit::say(&anyhow::anyhow!(NOT_INSTALLED));
        return Ok(ExitCode::from(exit::NO_DAEMON));
    };
    if let Some(owner) = owner.map(without_blanks) {
        record.owners.retain(|known| known.name.as_str() == owner);
        if record.owners.is_empty() {
            return Err(exit::Stop { code: exit::NO_SUCH, text: format!("{owner:?} is no owner here") }.into());
        }
    }
    let status = gather(layout, commands, &record);
    if json {
        out::json(&status)?;
    } else {
        print(&status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather<'a>(layout: &Layout, commands: &dyn Commands, record: &'a Installed) -> StatusShown<'a> {
    let sockets = record.owners.iter().map(|owner| layout.daemon_socket(&owner.name));
    let sockets = [layout.helper_socket(), layout.launch_socket()].into_iter().chain(sockets);
    StatusShown {
        installed: true,
        version: &record.version,
        release: &record.release,
        current: disk::link_if_there(&layout.current()).ok().flatten(),
        previous: disk::link_if_there(&layout.previous()).ok().flatten(),
        commit: &record.commit,
        installed_at: record.installed_at.to_string(),
        owners: record.owners.iter().map(|owner| owner.name.to_string()).collect(),
        units: start_order(record).iter().map(|unit| unit_shown(commands, unit)).collect(),
        sockets: sockets.map(|path| path.display().to_string()).collect(),
        daemon: own_daemon(layout, commands, record),
    }
}

/// A unit by systemd's machine output; what it does not say is `unknown`.
fn unit_shown(commands: &dyn Commands, unit: &str) -> UnitShown {
    let call = Call::systemctl(["show", "--property=ActiveState,UnitFileState,MainPID", unit]);
    let said = commands.run(&call).unwrap_or_default();
    let value = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let unknown = || "unknown".to_owned();
    UnitShown {
        unit: unit.to_owned(),
        active: value("ActiveState").unwrap_or_else(unknown),
        enabled: value("UnitFileState").unwrap_or_else(unknown),
        pid: value("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0),
    }
}

/// What the caller's own daemon answers; nothing where the caller has none.
fn own_daemon(layout: &Layout, commands: &dyn Commands, record: &Installed) -> Option<serde_json::Value> {
    let me = nix::unistd::Uid::effective();
    let mine = record.owners.iter().find(|owner| me.is_root() || owner.uid == me.as_raw())?;
    let said = commands.run(&ready::as_owner(layout, &mine.name, ["status", "--json"])).ok()?;
    serde_json::from_str(&said).ok()
}

fn print(status: &StatusShown) -> anyhow::Result<()> {
    let rows = status.units.iter().map(|unit| {
        let pid = unit.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        [unit.unit.clone(), cell(&unit.active, CELL_MAX), cell(&unit.enabled, CELL_MAX), pid]
    });
    out::table(["UNIT", "ACTIVE", "ENABLED", "PID"], rows.collect())?;
    out::line(&format!("\nrelease   {} (commit {})", status.release, status.commit))?;
    out::line(&format!("installed {}", status.installed_at))?;
    out::line(&format!("owners    {}", status.owners.join(" ")))?;
    out::line(&format!("sockets   {}", status.sockets.join(" ")))?;
    let text = |value: &serde_json::Value, key: &str| value.get(key).map(|it| it.to_string().replace('"', ""));
    if let Some(daemon) = &status.daemon {
        let version = text(daemon, "version").unwrap_or_default();
        let live = daemon.get("workers").and_then(|workers| text(workers, "live")).unwrap_or_default();
        out::line(&format!("daemon    answers with version {}, {live} workers live", cell(&version, CELL_MAX)))?;
    }
    let owners = status.owners.iter().map(|owner| format!(" -u holdfastd@{owner} -u holdfast-launcher@{owner}"));
    out::line(&format!("journal   journalctl -u {HELPER_UNIT}{}", owners.collect::<String>()))?;
    Ok(())
}
