//! `holdfast system`: the installed system, looked after by root.

mod handover;
mod show;
mod shutdown;

use crate::caller::without_blanks;
use crate::exit::{self, Stop};
use crate::install::apply;
use crate::install::command::{Call, Commands, HostCommands};
use crate::install::facts::{self, Facts};
use crate::install::plan::{self, Plan, Request};
use crate::install::record::{Account, Installed};
use crate::install::remove::{self, Removal};
use crate::install::step::{Host, Step};
use crate::install::workers::{self, LiveWorker};
use crate::install::{ready, rules, slice};
use crate::out;
use crate::update::state::linked;
use crate::update::txn;
use anyhow::Context;
use clap::{Args, Subcommand};
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use holdfast_release::Folder;
use nix::unistd::{Uid, User};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What was typed after `holdfast system`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct SystemArgs {
    /// What to do with the installed system.
    #[command(subcommand)]
    pub action: Action,
}

/// The verbs of the installed system.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Install for an owner, refresh an install, or add another owner (root)
    ///
    /// Running it again refreshes: what has changed is replaced and restarted, workers stay.
    /// A step that fails takes everything back.
    Install(InstallArgs),
    /// Say what is installed and what runs
    Status {
        /// Of this owner alone
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Restart helper, launchers and daemons; workers stay (root)
    Restart,
    /// Have the daemons give way to ones of the installed release, with no call refused; workers stay (root)
    ///
    /// A successor that does not get ready changes nothing: the daemon that runs serves on, and the reason is told.
    /// Where the unit file has changed, the unit is restarted instead.
    Handover {
        /// Of this owner alone
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
    /// Remove what was installed; state and rules stay without --purge (root)
    Uninstall(UninstallArgs),
    /// Stop all workers: what the shutdown unit runs when the machine goes down
    #[command(hide = true)]
    StopWorkers {
        /// Of this owner alone
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        /// Seconds until those that did not end are killed
        #[arg(long, default_value_t = 10)]
        grace: u32,
    },
    /// Let an owner move processes within the owner's slice: what the launcher's unit runs before it
    #[command(hide = true)]
    OpenSlice {
        /// Whose slice
        #[arg(long, value_name = "USER")]
        owner: String,
    },
}

/// `system install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Whose workers will run; by default who called sudo
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// The release folder, as packaging/build makes one; by default the folder of this program
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Host ports to grant beside 1024-65535, as 80,443 or 1-1023
    #[arg(long, value_name = "RANGES")]
    ports: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// `system uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Remove this owner alone
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Also remove state, output of workers, rules and the helper's account
    #[arg(long)]
    purge: bool,
    /// Stop live workers first; without it they keep everything as it is
    #[arg(long)]
    stop_workers: bool,
}

/// Does it to the system at `layout`.
///
/// # Errors
/// Whatever was refused or failed; refusals have changed nothing.
pub fn run(args: SystemArgs, layout: &Layout) -> anyhow::Result<ExitCode> {
    let commands = HostCommands;
    match args.action {
        Action::Install(args) => install(&args, layout, &commands),
        Action::Status { owner, json } => show::status(layout, &commands, owner.as_deref(), json),
        Action::Restart => restart(layout, &commands),
        Action::Handover { owner } => handover::handover(layout, &commands, owner.as_deref()),
        Action::Uninstall(args) => uninstall(&args, layout, &commands),
        Action::StopWorkers { owner: Some(owner), grace } => shutdown::stop_of(&owner, grace),
        Action::StopWorkers { owner: None, grace } => {
            need_root("system stop-workers")?;
            shutdown::stop_all(layout, &commands, &remove::owners(layout)?, grace).map(|()| ExitCode::SUCCESS)
        }
        Action::OpenSlice { owner } => {
            need_root("system open-slice")?;
            slice::open(&owner.parse()?).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn install(args: &InstallArgs, layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    need_root("system install")?;
    let account = owner_account(args.owner.as_deref())?;
    let ports = args.ports.as_deref().map(rules::parse_ports).transpose().map_err(|e| Stop::usage(e.to_string()))?;
    let folder = open_folder(args.from.as_deref())?;
    let (ports, pool6) = (ports.unwrap_or_default(), rules::fresh_prefix()?);
    let request = Request { ports, pool6, now: jiff::Timestamp::now() };
    let decide = || -> anyhow::Result<(Facts, Plan)> {
        let facts = facts::gather(layout, commands, &folder, account.clone())?;
        let plan = plan::plan(&facts, &request, layout).map_err(|refusal| Stop::refused(refusal.to_string()))?;
        Ok((facts, plan))
    };
    let (_, plan) = decide()?;
    if args.dry_run {
        for (index, step) in plan.steps.iter().enumerate() {
            out::line(&format!("{:>3}. {step}", index + 1))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // A refusal leaves not even a lock behind; what was found before the lock may have changed since.
    let _lock = lock(layout, "system install")?;
    let (facts, plan) = decide()?;
    let host = Host { layout, commands, folder: &folder, ready_max: ready::READY_MAX };
    let begun = begin_txn(layout, commands, &facts)?;
    let applied = apply::apply(&plan.steps, &host, &mut announce);
    // What could not be put back now, the timer tries again.
    match applied {
        Ok(()) => txn::end(layout, commands)?,
        Err(failed) => {
            if begun && failed.left.is_empty() {
                txn::end(layout, commands)?;
            }
            return Err(failed.into());
        }
    }
    show::installed(layout, &facts.account.name, &plan.installed, folder.has_signature())?;
    Ok(ExitCode::SUCCESS)
}

/// Over another release of the same owner an install is an update: where it is cut off, that release comes back by itself.
/// A first one has nothing to come back to; it may be run again. Says whether there is a record.
fn begin_txn(layout: &Layout, commands: &dyn Commands, facts: &Facts) -> anyhow::Result<bool> {
    let known = facts.installed.iter().flat_map(|installed| &installed.owners).any(|owner| *owner == facts.account);
    let current = linked(&layout.current())?.filter(|id| known && id.as_str() != facts.release.id);
    let Some(current) = current.filter(|id| Folder::open(&layout.releases().join(id.as_str())).is_ok()) else {
        return Ok(false);
    };
    txn::begin(layout, commands, current.as_str(), linked(&layout.previous())?.as_ref(), &facts.release.id)?;
    Ok(true)
}

/// Progress, on stderr: the steps that take time or are seen from outside.
fn announce(step: &Step) {
    match step {
        Step::Directory { .. } | Step::Link { .. } | Step::Write { .. } | Step::UnitPaths { .. } => {}
        _ => anstream::eprintln!("- {step}"),
    }
}

fn restart(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    need_root("system restart")?;
    let installed = need_installed(layout)?;
    let _lock = lock(layout, "system restart")?;
    for unit in plan::start_order(&installed).iter().filter(|unit| is_program(unit)) {
        anstream::eprintln!("- restart {unit} (workers stay)");
        commands.run(&Call::systemctl(["restart", unit])).with_context(|| ready::last_words(commands, unit))?;
    }
    for owner in &installed.owners {
        ready::wait(layout, commands, &owner.name, &installed.version, ready::READY_MAX)?;
    }
    out::line(&format!("restarted; version {} answers", installed.version))?;
    Ok(ExitCode::SUCCESS)
}

fn is_program(unit: &str) -> bool {
    unit.ends_with(".service") && unit != plan::SHUTDOWN_UNIT && !slice::holds_workers(unit)
}

fn uninstall(args: &UninstallArgs, layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    need_root("system uninstall")?;
    let _lock = lock(layout, "system uninstall")?;
    let all = remove::owners(layout)?;
    let owners = match args.owner.as_deref().map(without_blanks) {
        None => all,
        Some(name) => match all.into_iter().find(|owner| owner.name.as_str() == name) {
            Some(owner) => vec![owner],
            None => return Err(Stop::refused(format!("{name:?} is no owner here: nothing to remove")).into()),
        },
    };
    let live = live_workers(commands, &owners);
    if !live.is_empty() && !args.stop_workers {
        let names: Vec<String> =
            live.iter().map(|(owner, worker)| show::name_of(layout, commands, owner, worker)).collect();
        let text = format!(
            "{} workers are live: {}; stop them, or add --stop-workers (nothing has changed)",
            names.len(),
            names.join(" ")
        );
        return Err(Stop::refused(text).into());
    }
    if !live.is_empty() {
        shutdown::stop_all(layout, commands, &owners, shutdown::GRACE_SECS)?;
    }
    let removal = Removal { host: args.owner.is_none(), purge: args.purge };
    let left = remove::remove(layout, commands, &owners, removal);
    show::removed(layout, &owners, removal)?;
    if left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for what in left {
        exit::say(&anyhow::anyhow!("could not be removed: {what}"));
    }
    Ok(ExitCode::from(exit::FAILED))
}

/// Live workers of owners; an owner whose launcher was never there has none.
fn live_workers<'a>(commands: &dyn Commands, owners: &'a [Account]) -> Vec<(&'a OwnerName, LiveWorker)> {
    let of = |owner: &'a Account| {
        let live = workers::live(commands, &owner.name).unwrap_or_default();
        live.into_iter().map(move |worker| (&owner.name, worker))
    };
    owners.iter().flat_map(of).collect()
}

fn need_root(verb: &str) -> Result<(), Stop> {
    match Uid::effective().is_root() {
        true => Ok(()),
        false => Err(Stop::refused(format!("{verb} requires root; run it with sudo (nothing has changed)"))),
    }
}

pub fn need_installed(layout: &Layout) -> anyhow::Result<Installed> {
    let installed = facts::installed(layout)?;
    Ok(installed.ok_or_else(|| Stop { code: exit::NO_DAEMON, text: show::NOT_INSTALLED.to_owned() })?)
}

/// Who is to own workers: who was named, or who called sudo.
fn owner_account(named: Option<&str>) -> anyhow::Result<Account> {
    let caller = std::env::var("SUDO_USER").ok().filter(|name| name != "root");
    let name = named.map(without_blanks).map(str::to_owned).or(caller);
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Stop::usage("owner is required: say whose workers will run with --owner USER"))?;
    let owner: OwnerName = name.parse().map_err(|error| Stop::refused(format!("{error}")))?;
    let user = User::from_name(&name)?;
    let user =
        user.ok_or_else(|| Stop::refused(format!("--owner {name:?}: there is no such account (getent passwd)")))?;
    if user.uid.is_root() {
        return Err(Stop::refused("root cannot own workers: name an ordinary account with --owner USER").into());
    }
    let home = user.dir.to_string_lossy().into_owned();
    Ok(Account { name: owner, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home })
}

/// The release to install: what was named, or the folder that this program lies in.
fn open_folder(from: Option<&Path>) -> anyhow::Result<Folder> {
    let own = std::env::current_exe()?;
    let path = from.or_else(|| own.parent()).context("this program lies in no folder")?;
    let path = path.canonicalize().map_err(|error| Stop::refused(format!("{}: {error}", path.display())))?;
    Ok(Folder::open(&path).map_err(|refusal| {
        let text =
            format!("{} is no release folder: {refusal}; packaging/build makes one, --from names it", path.display());
        Stop::refused(text)
    })?)
}

/// One at a time; the file is root's, so nobody else can hold it. It says who does.
pub fn lock(layout: &Layout, verb: &str) -> anyhow::Result<File> {
    let path = layout.root().join("run/holdfast-system.lock");
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = file.with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{verb} (process {})", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Its holder may be about to write it; then there is no name to tell.
            let _ = file.take(100).read_to_string(&mut holder);
            let holder = if holder.is_empty() { "another install, update or removal" } else { &holder };
            Err(Stop::refused(format!("locked: {holder} is under way; wait for it (nothing has changed)")).into())
        }
        Err(TryLockError::Error(error)) => Err(error).context(path.display().to_string()),
    }
}
