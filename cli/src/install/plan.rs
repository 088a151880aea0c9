//! Decides what an install does: pure, from [`Facts`] to steps.

use super::facts::{Facts, SYSTEMD_MIN};
use super::ipv6::Forwards6;
use super::record::{Account, Installed};
use super::rules::{self, RulesRefusal};
use super::slice::holds_workers;
use super::step::Step;
use holdfast_proto::cgroups::{has_slice, launcher_unit, workers_unit};
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The helper's system account and group.
pub const HELPER_ACCOUNT: &str = "holdfast";
/// The helper's unit.
pub const HELPER_UNIT: &str = "holdfast-helper.service";
/// Units that are there once.
pub const HOST_UNITS: [&str; 3] = ["holdfast-helper.socket", HELPER_UNIT, SHUTDOWN_UNIT];
/// Stops workers when it is stopped itself.
pub const SHUTDOWN_UNIT: &str = "holdfast-shutdown.service";
/// Undoes an update that was cut off.
pub const RECOVER_UNIT: &str = "holdfast-recover.service";
/// Has [`RECOVER_UNIT`] look while an update is under way.
pub const RECOVER_TIMER: &str = "holdfast-recover.timer";
/// uid of `nobody`: what the kernel shows for an account that it cannot map.
const OVERFLOW_UID: u32 = 65534;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Ports to grant beside the default ones.
    pub ports: Vec<String>,
    /// The IPv6 prefix of an owner who has none yet.
    pub pool6: String,
    /// When it was asked.
    pub now: Timestamp,
}

/// What will be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What `install.toml` says afterwards.
    pub installed: Installed,
}

/// Why nothing will be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefusal {
    /// Something else is PID 1.
    #[error("systemd does not run this machine, so nothing can be installed: use `holdfast session start` instead")]
    NoSystemd,
    /// Too old.
    #[error(
        "systemd {0} is too old: {SYSTEMD_MIN} or newer is needed (Debian 12, Ubuntu 24.04); `holdfast session start` works without"
    )]
    OldSystemd(u32),
    /// Nothing could run.
    #[error("workers need user namespaces, and {owner} cannot make them: {why}; allow them and install again")]
    NoUserNamespaces {
        /// Login name.
        owner: OwnerName,
        /// The cause.
        why: String,
    },
    /// root, nobody or the helper itself.
    #[error("{0} cannot own workers: name an ordinary account with --owner USER")]
    NotAnOwner(OwnerName),
    /// systemd has no slice of that name.
    #[error("{0} cannot own workers: systemd takes no two '-' in a row in a slice's name; use another account")]
    NoSlice(OwnerName),
    /// The account changed under the same name.
    #[error(
        "{owner} was installed with uid {then} and has uid {now} now: `holdfast system uninstall --owner {owner}` first"
    )]
    OtherUid {
        /// Login name.
        owner: OwnerName,
        /// uid in `install.toml`.
        then: u32,
        /// uid of the account.
        now: u32,
    },
    /// The rules cannot be extended.
    #[error(transparent)]
    Rules(#[from] RulesRefusal),
    /// A file that every release has.
    #[error("the release has no {0}: make a new one with packaging/build")]
    Incomplete(&'static str),
}

/// Decides. Steps that have nothing to do are left out only where they would interrupt something.
///
/// # Errors
/// Where nothing may be changed at all.
pub fn plan(facts: &Facts, request: &Request, layout: &Layout) -> Result<Plan, PlanRefusal> {
    check(facts)?;
    let installed = record(facts, request);
    let mut steps = directories(layout, &facts.account.name);
    steps.push(Step::Place { id: facts.release.id.clone() });
    steps.extend(links(facts, layout));
    steps.extend(config(facts, request, &installed, layout)?);
    steps.push(Step::Account { name: HELPER_ACCOUNT.to_owned() });
    steps.push(Step::Units { files: facts.release.units.clone() });
    let owner = &facts.account.name;
    let sockets = [layout.helper_socket(), layout.launch_socket(), layout.daemon_socket(owner)];
    let directories = [layout.helper_run(), layout.owner_state(owner), layout.workers_run(owner)];
    let paths = sockets.into_iter().chain(directories).collect();
    steps.push(Step::UnitPaths { paths });
    steps.extend(services(facts, &installed));
    // Last: until here, what recovers is the release before.
    steps.push(Step::Link { path: committed(layout), target: format!("releases/{}", facts.release.id) });
    Ok(Plan { steps, installed })
}

fn check(facts: &Facts) -> Result<(), PlanRefusal> {
    let account = &facts.account;
    match facts.machine.systemd {
        None => return Err(PlanRefusal::NoSystemd),
        Some(version) if version < SYSTEMD_MIN => return Err(PlanRefusal::OldSystemd(version)),
        Some(_) => {}
    }
    if account.uid == 0 || account.uid == OVERFLOW_UID || account.name.as_str() == HELPER_ACCOUNT {
        return Err(PlanRefusal::NotAnOwner(account.name.clone()));
    }
    if !has_slice(&account.name) {
        return Err(PlanRefusal::NoSlice(account.name.clone()));
    }
    if let Some(then) = known(facts.installed.as_ref(), &account.name)
        && then.uid != account.uid
    {
        let owner = account.name.clone();
        return Err(PlanRefusal::OtherUid { owner, then: then.uid, now: account.uid });
    }
    if let Err(why) = &facts.machine.user_namespaces {
        return Err(PlanRefusal::NoUserNamespaces { owner: account.name.clone(), why: why.clone() });
    }
    Ok(())
}

fn known<'a>(installed: Option<&'a Installed>, name: &OwnerName) -> Option<&'a Account> {
    installed.and_then(|installed| installed.owners.iter().find(|owner| owner.name == *name))
}

/// What `install.toml` will say; its time changes only with something else.
fn record(facts: &Facts, request: &Request) -> Installed {
    let before = facts.installed.as_ref();
    let mut owners: Vec<Account> = before.map(|installed| installed.owners.clone()).unwrap_or_default();
    owners.retain(|owner| owner.name != facts.account.name);
    owners.push(facts.account.clone());
    owners.sort();
    let (version, release) = (facts.release.version.clone(), facts.release.id.clone());
    let commit = facts.release.commit.clone();
    let fresh = Installed { version, release, commit, installed_at: request.now, owners };
    match before {
        Some(before) if *before == (Installed { installed_at: before.installed_at, ..fresh.clone() }) => before.clone(),
        _ => fresh,
    }
}

/// Parents first. All are root's, 0755.
fn directories(layout: &Layout, owner: &OwnerName) -> Vec<Step> {
    let root = layout.root();
    let system = ["usr/local/lib", "usr/local/bin", "etc/sysusers.d", "etc/tmpfiles.d", "etc/sysctl.d"];
    let system = system.map(|path| root.join(path));
    let ours = [
        layout.library(),
        layout.releases(),
        layout.config(),
        layout.state(),
        layout.state().join("owners"),
        layout.run(),
        layout.run().join("owners"),
        layout.owner_run(owner),
    ];
    system.into_iter().chain(ours).map(|path| Step::Directory { path }).collect()
}

/// `current.previous` follows only where `current` moves, so that a refresh keeps the way back.
fn links(facts: &Facts, layout: &Layout) -> Vec<Step> {
    let target = format!("releases/{}", facts.release.id);
    let mut steps = Vec::new();
    if let Some(before) = facts.current.clone().filter(|before| *before != target) {
        steps.push(Step::Link { path: layout.previous(), target: before });
    }
    steps.push(Step::Link { path: layout.current(), target });
    steps.push(Step::Link { path: layout.command(), target: "../lib/holdfast/current/holdfast".to_owned() });
    steps
}

/// The link to the release that was committed last: what recovers an update runs from there.
pub fn committed(layout: &Layout) -> PathBuf {
    layout.library().join("committed")
}

fn config(facts: &Facts, request: &Request, after: &Installed, layout: &Layout) -> Result<Vec<Step>, PlanRefusal> {
    let conf = |name: &'static str| facts.release.conf.get(name).ok_or(PlanRefusal::Incomplete(name));
    let rules = match &facts.rules {
        Some(rules) => rules,
        None => conf("rules.toml")?,
    };
    let rules = rules::extend(rules, &facts.account, &request.ports, &request.pool6)?;
    let record = after.text().map_err(|error| RulesRefusal::Form(error.to_string()))?;
    let etc = layout.root().join("etc");
    let write = |path, text: String| Step::Write { path, bytes: text.into_bytes() };
    let mut steps = vec![
        write(layout.install_toml(), record),
        write(layout.rules_toml(), rules),
        write(etc.join("sysusers.d/holdfast.conf"), conf("holdfast.sysusers.conf")?.clone()),
        write(etc.join("tmpfiles.d/holdfast.conf"), tmpfiles(conf("holdfast.tmpfiles.conf")?, after)),
    ];
    // What a router does is its administrator's choice, and serves workers as it is.
    if matches!(facts.machine.forwards6, Forwards6::Off | Forwards6::Workers) {
        steps.push(write(sysctl(layout), conf("holdfast.sysctl.conf")?.clone()));
    }
    if facts.machine.forwards6 == Forwards6::Off {
        steps.push(Step::Forward6);
    }
    Ok(steps)
}

/// What has IPv6 of workers forwarded from the next boot on.
pub fn sysctl(layout: &Layout) -> PathBuf {
    layout.root().join("etc/sysctl.d/60-holdfast.conf")
}

/// The release's lines and one for every owner's directory of sockets.
pub fn tmpfiles(lines: &str, installed: &Installed) -> String {
    let owners =
        installed.owners.iter().map(|owner| format!("d /run/holdfast/owners/{} 0755 root root -\n", owner.name));
    std::iter::once(lines.to_owned()).chain(owners).collect()
}

/// Enables all; starts what does not run; restarts what runs from what has changed, and nothing else.
fn services(facts: &Facts, installed: &Installed) -> Vec<Step> {
    let owner = &facts.account.name;
    let mut enabled = host_and(owner);
    enabled.push(RECOVER_UNIT.to_owned());
    let mut steps = vec![Step::Enable { units: enabled }];
    let moved = facts.current.as_deref() != Some(&format!("releases/{}", facts.release.id));
    let runs = |unit: &str| facts.active.iter().any(|active| active == unit);
    let changed = |unit: &str| {
        let file = template_of(unit);
        facts.units.get(&file) != facts.release.units.get(&file)
    };
    // A listener can be bound again only while nobody serves it.
    let all: Vec<String> = start_order(installed);
    let relisten = |unit: &&String| unit.ends_with(".socket") && runs(unit) && changed(unit);
    let sockets: Vec<&String> = all.iter().filter(relisten).collect();
    let served = |unit: &str| sockets.iter().any(|socket| socket.replace(".socket", ".service") == unit);
    for socket in &sockets {
        steps.push(Step::Relisten { socket: (*socket).clone(), service: socket.replace(".socket", ".service") });
    }
    let wanted = BTreeSet::from_iter(host_and(owner));
    for unit in &all {
        let is_program = unit.ends_with(".service") && unit != SHUTDOWN_UNIT && !holds_workers(unit);
        if runs(unit) && is_program && !served(unit) && (moved || changed(unit)) {
            steps.push(Step::Restart { unit: unit.clone() });
        } else if !runs(unit) && wanted.contains(unit) {
            steps.push(Step::Start { unit: unit.clone() });
        }
    }
    let (uid, version) = (facts.account.uid, facts.release.version.clone());
    steps.push(Step::Await { owner: owner.clone(), uid, version });
    steps
}

/// The file of an instance.
fn template_of(unit: &str) -> String {
    match (unit.find('@'), unit.rfind('.')) {
        (Some(at), Some(dot)) => format!("{}{}", &unit[..=at], &unit[dot..]),
        _ => unit.to_owned(),
    }
}

/// One owner's units, in the order in which they are started.
pub fn owner_units(owner: &OwnerName) -> [String; 4] {
    [
        format!("holdfastd@{owner}.socket"),
        workers_unit(owner),
        launcher_unit(owner),
        format!("holdfastd@{owner}.service"),
    ]
}

fn host_and(owner: &OwnerName) -> Vec<String> {
    HOST_UNITS.map(str::to_owned).into_iter().chain(owner_units(owner)).collect()
}

/// Helper, then each owner's launcher and daemon.
pub fn start_order(installed: &Installed) -> Vec<String> {
    let owners = installed.owners.iter().flat_map(|owner| owner_units(&owner.name));
    HOST_UNITS.map(str::to_owned).into_iter().chain(owners).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
