//! Whether what was installed serves: asked the way its owner asks.

use super::command::{Call, Commands, QUICK_MAX, Said};
use super::record::Account;
use super::step::Program;
use crate::update::census::Census;
use anyhow::{Context, bail};
use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long a daemon may take until it and all it needs answer.
pub const READY_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// How long a fresh daemon may take to find its workers.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// How often a release that is watched is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// What asks us to end. Ctrl-C and a terminal that goes away change nothing once the programs have.
const ENDING: [Signal; 1] = [Signal::SIGTERM];
/// Lines of the journal that a failure shows.
const LINES: &str = "5";

/// The parts of `status --json` that tell it.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    owner: String,
    programs: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    name: String,
    version: Option<String>,
    healthy: bool,
    #[serde(default)]
    why: Option<String>,
}

/// Waits until `owner`'s daemon answers with `version`, and helper and launcher are healthy and of it, too.
///
/// # Errors
/// Where that is not so in time; says what answered last, and what the journal has.
pub fn wait(
    layout: &Layout,
    commands: &dyn Commands,
    owner: &OwnerName,
    version: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let why = match commands.ask(&as_owner(layout, owner, ["status", "--json"]))? {
            said if said.code == Some(0) => match judge(&said.out, owner, version) {
                None => return Ok(()),
                Some(why) => why,
            },
            said => last_line(&said),
        };
        if Instant::now() >= deadline {
            let words = last_words(commands, &format!("holdfastd@{owner}.service"));
            bail!("not ready after {} s: {why}\n{words}", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// Sees that the main process of each unit executes the file of this release, and not one that was there before.
///
/// # Errors
/// For the first that does not.
pub fn check_programs(layout: &Layout, commands: &dyn Commands, programs: &[Program], id: &str) -> anyhow::Result<()> {
    for Program { unit, file } in programs {
        let pid = main_pid(commands, unit)?;
        let exe = layout.root().join(format!("proc/{pid}/exe"));
        let runs = std::fs::read_link(exe).with_context(|| format!("{unit} does not run"))?;
        let wanted = layout.releases().join(id).join(file);
        anyhow::ensure!(runs == wanted, "{unit} runs {}, not {}", runs.display(), wanted.display());
    }
    Ok(())
}

/// Sees that every worker that lived before lives now, or has ended by itself.
///
/// # Errors
/// Naming those that do not, once all had the time that a daemon needs to look around.
pub fn check_workers(
    layout: &Layout,
    commands: &dyn Commands,
    owners: &[Account],
    before: &Census,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let lost = match Census::take(layout, commands, owners) {
            Ok(after) => before.lost_by(&after),
            Err(error) => vec![format!("{error:#}")],
        };
        if lost.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{}", lost.join("; "));
        }
        std::thread::sleep(POLL);
    }
}

/// Sees for a while that no unit gets another main process, and that nobody asks us to end: whoever goes on watching
/// would hold up a machine that goes down.
///
/// # Errors
/// As soon as one does, or somebody asks.
pub fn watch(commands: &dyn Commands, programs: &[Program], time: Duration) -> anyhow::Result<()> {
    let mains = || programs.iter().map(|program| main_pid(commands, &program.unit)).collect::<anyhow::Result<Vec<_>>>();
    let (before, deadline) = (mains()?, Instant::now() + time);
    let asked = SignalFd::with_flags(&SigSet::from_iter(ENDING), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    while Instant::now() < deadline {
        // They are held back (see `apply`), so one that is pending is read here.
        if let Some(signal) = asked.read_signal()? {
            let name = Signal::try_from(signal.ssi_signo as i32).map_or("a signal", Signal::as_str);
            bail!("asked to end ({name}) while it was watched");
        }
        std::thread::sleep(WATCH_EVERY.min(deadline.saturating_duration_since(Instant::now())));
        for (program, (then, now)) in programs.iter().zip(before.iter().zip(mains()?)) {
            let unit = &program.unit;
            anyhow::ensure!(*then == now, "{unit} ended while it was watched\n{}", last_words(commands, unit));
        }
    }
    Ok(())
}

fn main_pid(commands: &dyn Commands, unit: &str) -> anyhow::Result<u32> {
    let said = commands.run(&Call::systemctl(["show", "--property=MainPID", "--value", unit]))?;
    said.trim().parse().with_context(|| format!("{unit}: systemd says its main process is {said:?}"))
}

/// A call of the installed CLI in an owner's name; as root the CLI gives root's rights up for the owner's.
pub fn as_owner<const N: usize>(layout: &Layout, owner: &OwnerName, args: [&str; N]) -> Call {
    let program = layout.current().join("holdfast");
    let args = ["--owner", owner.as_str()].into_iter().chain(args);
    Call::new(&program.to_string_lossy(), args).within(QUICK_MAX)
}

/// What a unit said last, for a person.
pub fn last_words(commands: &dyn Commands, unit: &str) -> String {
    let call = Call::new("/usr/bin/journalctl", ["--unit", unit, "--lines", LINES, "--output", "cat", "--no-pager"]);
    let said = commands.ask(&call).map(|said| said.out).unwrap_or_default();
    format!("{unit} said last: {}\nfor more: journalctl -u {unit}", said.trim())
}

/// Why it is not ready, or nothing.
fn judge(json: &str, owner: &OwnerName, version: &str) -> Option<String> {
    let status: Status = match serde_json::from_str(json).context("status --json") {
        Ok(status) => status,
        Err(error) => return Some(format!("{error:#}")),
    };
    if status.owner != owner.as_str() {
        return Some(format!("the daemon of {:?} answered", status.owner));
    }
    if status.version != version {
        return Some(format!("the daemon answers with version {:?}, {version} was installed", status.version));
    }
    status.programs.into_iter().find_map(|program| {
        let (name, why) = (program.name, program.why.unwrap_or_default());
        match program.version {
            _ if !program.healthy => Some(format!("{name} is not healthy: {why}")),
            Some(other) if other != version => Some(format!("{name} is of version {other:?}, {version} was installed")),
            _ => None,
        }
    })
}

fn last_line(said: &Said) -> String {
    said.err.lines().last().unwrap_or("no answer").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(json: &str) -> Option<String> {
        judge(json, &"alice".parse().unwrap(), "1.2.3")
    }

    #[test]
    fn only_all_healthy_and_of_one_version_is_ready() {
        let good =
            r#"{"version":"1.2.3","owner":"alice","programs":[{"name":"helper","version":"1.2.3","healthy":true}]}"#;
        assert_eq!(why(good), None);
        for (from, to, part) in [
            (r#""owner":"alice""#, r#""owner":"bob""#, "bob"),
            (r#"{"version":"1.2.3""#, r#"{"version":"1.2.2""#, "1.2.2"),
            (r#""version":"1.2.3","healthy""#, r#""version":"1.2.2","healthy""#, "helper is of version"),
            ("true", r#"false,"why":"gone""#, "helper is not healthy: gone"),
            ("}]}", "", "status --json"),
        ] {
            let text = why(&good.replace(from, to)).expect(to);
            assert!(text.contains(part), "{text}");
        }
    }
}
