//! `holdfast update`: the newer release, or the one before.

mod bar;
mod recover;

use super::system;
use crate::exit::{self, Stop};
use crate::install::apply::HeldSignals;
use crate::install::command::{Commands, HostCommands};
use crate::install::record::Installed;
use crate::install::step::Step;
use crate::out;
use crate::update::collect;
use crate::update::config;
use crate::update::courier::Courier;
use crate::update::error::UpdateError;
use crate::update::notice;
use crate::update::offer::{self, Offer};
use crate::update::receipt::{self, Receipt};
use crate::update::state::{self, HostState};
use crate::update::swap::{Outcome, Swap};
use crate::update::txn::Txn;
use crate::update::{preflight, stage};
use crate::view::plain;
use clap::Args;
use holdfast_proto::layout::Layout;
use holdfast_release::{Floor, Folder};
use jiff::Timestamp;
use nix::unistd::Uid;
use semver::Version;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// What was typed after `holdfast update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast update --check               as anyone: exit 10 if there is a newer release, 0 if not
  sudo holdfast update                  shows what it will do, asks, does it; workers stay
  sudo holdfast update --yes --soak 300 without a question; five minutes to prove itself
  sudo holdfast update --rollback       back to the release before; once more: forward again
  holdfast update --history

Where releases come from, and whose signature counts: /etc/holdfast/update.toml and /etc/holdfast/trust.
A release that does not do well within the soak is taken back by itself (exit 20; 21 if that failed, too).")]
pub struct UpdateArgs {
    /// Only say whether there is a newer release; changes nothing, needs no root
    #[arg(long, conflicts_with_all = ["dry_run", "rollback", "history"])]
    check: bool,
    /// This version, instead of the newest
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["rollback", "history"])]
    to: Option<Version>,
    /// Fetch, verify and try it, say what would be done, and do nothing
    #[arg(long, conflicts_with = "history")]
    dry_run: bool,
    /// Back to the release that ran before
    #[arg(long, conflicts_with = "history")]
    rollback: bool,
    /// What became of earlier updates
    #[arg(long)]
    history: bool,
    /// Go back if an earlier update was cut off (what holdfast-recover.service runs)
    #[arg(long, hide = true, conflicts_with_all = ["check", "to", "dry_run", "rollback", "history"])]
    recover: bool,
    /// The same, beside the units that are ordered after that one
    #[arg(long, hide = true, conflicts_with_all = ["check", "to", "dry_run", "rollback", "history", "recover"])]
    recover_now: bool,
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
    /// How long the new release has to run without a crash before it counts
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    soak: u64,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Does it.
///
/// # Errors
/// Whatever was refused or failed before anything changed.
pub fn run(args: &UpdateArgs, layout: &Layout) -> anyhow::Result<ExitCode> {
    if args.history {
        return receipt::history(layout, args.json).map(|()| ExitCode::SUCCESS);
    }
    let commands = HostCommands;
    let outcome = match args {
        UpdateArgs { check: true, .. } => check(args, layout),
        UpdateArgs { recover: true, .. } => recover::recover(layout, &commands),
        UpdateArgs { recover_now: true, .. } => recover::recover_now(layout, &commands),
        _ => change_whole(args, layout, &commands),
    };
    // What failed before anything changed is a document, too.
    let error = match outcome {
        Err(error) if args.json => error,
        outcome => return outcome,
    };
    let mut receipt = Receipt::new("failed", None, args.to.as_ref().map(Version::to_string));
    if let Some(refused) = error.downcast_ref::<UpdateError>() {
        receipt.refusal = refused.name();
        receipt.result = if refused.name().is_some() { "refused" } else { "failed" };
    }
    out::json(&receipt)?;
    Err(into_stop(error))
}

/// An update's error with the contract's exit code.
fn into_stop(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<UpdateError>() {
        Ok(error) => Stop::from(error).into(),
        Err(error) => error,
    }
}

/// A line for whoever looks on. A terminal that went away must not end an update.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "- {}", plain(line));
}

fn need_state(layout: &Layout) -> anyhow::Result<HostState> {
    let nothing = || Stop { code: exit::NO_DAEMON, text: "nothing is installed, so nothing can be updated".to_owned() };
    Ok(HostState::read(layout)?.ok_or_else(nothing)?)
}

/// Asks the sources what `args` wants of them.
fn ask(
    args: &UpdateArgs,
    layout: &Layout,
    state: &HostState,
    seen: &mut Floor,
) -> Result<(Courier, Offer), UpdateError> {
    let trust = config::read(layout, 0)?;
    let courier = Courier::new(trust.config.proxy.clone());
    let courier = courier.map_err(|source| UpdateError::Disk { what: "this program".to_owned(), source })?;
    let offer = offer::best(&courier, &trust, state, args.to.as_ref(), Timestamp::now(), seen)?;
    Ok((courier, offer))
}

fn is_newer(offer: &Offer, state: &HostState) -> bool {
    offer.signed.id != state.current && offer.signed.release.seq > state.running.seq
}

fn check(args: &UpdateArgs, layout: &Layout) -> anyhow::Result<ExitCode> {
    let state = need_state(layout)?;
    let (_, offer) = ask(args, layout, &state, &mut Floor::default()).map_err(into_stop_unless(args.json))?;
    if Uid::effective().is_root() && args.to.is_none() {
        notice::remember(layout, &offer, Timestamp::now())?;
    }
    let newer = is_newer(&offer, &state);
    let result = if newer { "available" } else { "current" };
    let mut receipt = Receipt::new(result, Some(state.current.to_string()), Some(offer.signed.id.to_string()));
    receipt.warnings = offer.signed.warnings.iter().map(ToString::to_string).collect();
    if args.json {
        out::json(&receipt)?;
    } else {
        let release = &offer.signed.release;
        match newer {
            true => out::line(&format!(
                "{} is there (this host runs {}): sudo holdfast update",
                release.version, state.running.version
            ))?,
            false => out::line(&format!("{} is the newest release", state.running.version))?,
        }
        if newer && !release.notes.is_empty() {
            out::text(&release.notes.lines().map(|line| format!("  {}\n", plain(line))).collect::<String>())?;
        }
        receipt.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
    }
    Ok(if newer { ExitCode::from(exit::NEWER) } else { ExitCode::SUCCESS })
}

/// With `--json` the error itself is still needed for the document.
fn into_stop_unless(json: bool) -> impl Fn(UpdateError) -> anyhow::Error {
    move |error| if json { error.into() } else { Stop::from(error).into() }
}

/// What is to run.
struct Goal {
    /// In place.
    folder: Folder,
    /// What was learned of keys and time on the way.
    seen: Floor,
    /// What an operator should know of it.
    warnings: Vec<String>,
}

/// What does not come to run is not kept either.
fn change_whole(args: &UpdateArgs, layout: &Layout, commands: &dyn Commands) -> anyhow::Result<ExitCode> {
    let stop = into_stop_unless(args.json);
    if !Uid::effective().is_root() {
        return Err(stop(UpdateError::NoRoot));
    }
    let installed = system::need_installed(layout)?;
    let _lock = lock(layout).map_err(|error| match error.downcast::<UpdateError>() {
        Ok(locked) => stop(locked),
        Err(error) => error,
    })?;
    if let Some(txn) = Txn::read(layout)? {
        recover::go_back(layout, commands, &installed, &txn)?;
    }
    change(args, layout, commands, &installed).inspect_err(|_| {
        if let Err(error) = collect::collect(layout) {
            tell(&format!("{error:#}"));
        }
    })
}

/// A lock that another holds is a refusal by its name.
fn lock(layout: &Layout) -> anyhow::Result<std::fs::File> {
    system::lock(layout, "update").map_err(|error| match error.downcast::<Stop>() {
        Ok(stop) => UpdateError::Locked(stop.text).into(),
        Err(error) => error,
    })
}

/// Forward or back.
fn change(
    args: &UpdateArgs,
    layout: &Layout,
    commands: &dyn Commands,
    installed: &Installed,
) -> anyhow::Result<ExitCode> {
    let stop = into_stop_unless(args.json);
    let state = need_state(layout)?;
    let goal = if args.rollback {
        let folder = previous(layout, &state)?;
        let place = layout.releases().join(folder.id().as_str());
        preflight::check_states(layout, commands, &place, &installed.owners).map_err(&stop)?;
        Goal { folder, seen: Floor::default(), warnings: Vec::new() }
    } else {
        let mut seen = Floor::default();
        let asked = ask(args, layout, &state, &mut seen);
        // Keys that were revoked stay so, whatever becomes of the release.
        state::raise_floor(layout, seen)?;
        let (courier, offer) = asked.map_err(&stop)?;
        if args.to.is_none() {
            notice::remember(layout, &offer, Timestamp::now())?;
        }
        let wanted = if args.to.is_some() { offer.signed.id != state.current } else { is_newer(&offer, &state) };
        if !wanted {
            return say(
                args,
                &Receipt::new("current", Some(state.current.to_string()), Some(state.current.to_string())),
            );
        }
        let warnings = offer.signed.warnings.iter().map(ToString::to_string).collect();
        let folder = bring(layout, commands, &courier, &offer, installed).map_err(&stop)?;
        Goal { folder, seen, warnings }
    };
    let folder = &goal.folder;
    let swap = Swap { layout, commands, installed, soak: Duration::from_secs(args.soak) };
    let plan = swap.plan(folder)?;
    if args.dry_run || !args.yes {
        describe(args, folder, &plan.steps)?;
    }
    if args.dry_run {
        let removed = collect::collect(layout)?;
        removed.iter().for_each(|name| tell(&format!("removed {name} again")));
        return say(args, &Receipt::new("dry-run", Some(state.current.to_string()), Some(folder.id().to_string())));
    }
    consent(args)?;
    tell("from here on Ctrl-C and a terminal that goes away change nothing; `update --rollback` goes back afterwards");
    let held = HeldSignals::hold();
    let outcome = swap.apply(folder, &state, &mut |step| announce(step))?;
    let code = finish(args, layout, &state, goal, outcome)?;
    // What was held back came too late: it would only hide how this ended, which is now.
    std::mem::forget(held);
    Ok(code)
}

fn previous(layout: &Layout, state: &HostState) -> anyhow::Result<Folder> {
    let none =
        || Stop { code: exit::NO_SUCH, text: "no previous release to roll back to (nothing has changed)".to_owned() };
    let id = state.previous.as_ref().filter(|id| **id != state.current).ok_or_else(none)?;
    Ok(Folder::open(&layout.releases().join(id.as_str())).map_err(UpdateError::from)?)
}

/// Puts the offered release in place and tries it.
fn bring(
    layout: &Layout,
    commands: &dyn Commands,
    courier: &Courier,
    offer: &Offer,
    installed: &Installed,
) -> Result<Folder, UpdateError> {
    let release = &offer.signed.release;
    tell(&format!("{} from {}, signed by {}", offer.signed.id, offer.base, offer.signed.key));
    let mut shown = bar::Shown::default();
    stage::place(layout, courier, offer, &mut |progress| shown.tell(progress))?;
    let place = layout.releases().join(offer.signed.id.as_str());
    let folder = Folder::open(&place)?;
    tell("try it as the owners");
    preflight::run(layout, commands, &place, release, &installed.owners)?;
    Ok(folder)
}

fn describe(args: &UpdateArgs, folder: &Folder, steps: &[Step]) -> anyhow::Result<()> {
    let mut text = format!("{}:\n", folder.id());
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Directory { .. })) {
        text += &format!("{:>3}. {step}\n", index + 1);
    }
    text += &format!("   then watch it for {} s, and go back if it does not do well\n", args.soak);
    let mut err = std::io::stderr().lock();
    Ok(err.write_all(text.as_bytes())?)
}

/// Asks where somebody is there to answer.
fn consent(args: &UpdateArgs) -> anyhow::Result<()> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Stop::usage("nobody can be asked here: add --yes (nothing has changed)").into());
    }
    write!(std::io::stderr(), "Do it? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Stop::refused("not done (nothing has changed)").into()),
    }
}

fn announce(step: &Step) {
    match step {
        Step::Directory { .. } | Step::UnitPaths { .. } => {}
        step => tell(&step.to_string()),
    }
}

/// Makes what was done last, and says it.
fn finish(
    args: &UpdateArgs,
    layout: &Layout,
    state: &HostState,
    goal: Goal,
    outcome: Outcome,
) -> anyhow::Result<ExitCode> {
    let Goal { folder, seen, warnings } = goal;
    let mut receipt = Receipt::new("updated", Some(state.current.to_string()), Some(folder.id().to_string()));
    receipt.warnings = warnings;
    match outcome {
        Outcome::Done { workers: (before, after), api_gap, left } => {
            // It counts by now: what fails from here on is worth a word, and no way back.
            let floor = state::raise_floor(layout, Floor::of(folder.release()).raised_by(seen));
            receipt.warnings.extend(left.into_iter().chain(floor.err().map(|error| format!("{error:#}"))));
            receipt.count(&before, Some(&after));
            receipt.probes.forward = Some("ok".to_owned());
            receipt.api_gap_ms = u64::try_from(api_gap.as_millis()).ok();
            match collect::collect(layout) {
                Ok(names) => {
                    names.iter().for_each(|name| tell(&format!("removed {name}, which nothing runs from")));
                }
                Err(error) => receipt.warnings.push(format!("removing old releases: {error:#}")),
            }
        }
        Outcome::Back { forward, rollback, before } => {
            receipt.result = if rollback.is_ok() { "rolled-back" } else { "rollback-incomplete" };
            receipt.count(&before, None);
            receipt.probes.forward = Some(forward);
            receipt.probes.rollback = Some(rollback.err().unwrap_or_else(|| "ok".to_owned()));
        }
    }
    if let Err(error) = receipt.keep(layout) {
        receipt.warnings.push(format!("the receipt was not kept: {error:#}"));
    }
    receipt.warnings.iter().for_each(|warning| tell(&format!("warning: {warning}")));
    say(args, &receipt)
}

fn say(args: &UpdateArgs, receipt: &Receipt) -> anyhow::Result<ExitCode> {
    if args.json {
        out::json(receipt)?;
    } else {
        receipt.print()?;
    }
    Ok(match receipt.result {
        "rolled-back" => ExitCode::from(exit::ROLLED_BACK),
        "rollback-incomplete" => ExitCode::from(exit::ROLLBACK_INCOMPLETE),
        _ => ExitCode::SUCCESS,
    })
}
