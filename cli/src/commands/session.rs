//! `holdfast session`: Holdfast without systemd.

use crate::caller::Caller;
use crate::client::session_root;
use crate::exit::{self, Stop};
use crate::out;
use crate::session::ask::{ask_status, check_reach, quieten, remove, sick, tell};
use crate::session::record::{self, Record, Supervisor};
use crate::session::{Role, Session, tree};
use crate::view::cell;
use anyhow::Context;
use clap::{Args, Subcommand};
use holdfast_proto::layout::Layout;
use serde::Serialize;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Most time from `session start` until the daemon answers.
const START_MAX: Duration = Duration::from_secs(30);
/// What helper and launcher may take longer than the daemon.
const HEALTHY_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Most time for the supervisor to end its programs.
const STOP_MAX: Duration = Duration::from_secs(40);
/// Lines of the log that are shown where the start fails.
const LOG_LINES: usize = 12;

/// What was typed after `holdfast session`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  sudo holdfast session start --owner $USER     networks bridge and none
  holdfast session start                        as an ordinary user: networks none and host
  holdfast session status
  sudo holdfast session stop --stop-workers

A session is where there is no systemd: a container, CI, a first try. Its files are below $HOLDFAST_SESSION,
by default /run/holdfast-session (root) or $XDG_RUNTIME_DIR/holdfast."
)]
pub struct SessionArgs {
    /// What to do with the session.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start Holdfast; returns when its daemon answers
    Start,
    /// Say what runs
    Status {
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Stop Holdfast; refuses while workers live
    Stop {
        /// Stop the workers first
        #[arg(long)]
        stop_workers: bool,
        /// Remove everything of it: rules, log, and what workers left
        #[arg(long)]
        purge: bool,
    },
}

/// `session status --json`.
#[derive(Debug, Serialize)]
struct StatusJson {
    root: PathBuf,
    running: bool,
    supervisor: Option<u32>,
    socket: PathBuf,
    log: PathBuf,
    #[serde(flatten)]
    record: Option<Record>,
    workers: Option<serde_json::Value>,
}

/// Does it to the session of whoever asks.
///
/// # Errors
/// Where the session cannot be had, or refuses.
pub fn run(args: SessionArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    let is_root = nix::unistd::Uid::effective().is_root();
    match args.action {
        Action::Start => start(&ours(is_root, owner)?),
        Action::Status { json } => status(&seen(is_root, owner)?, json),
        Action::Stop { stop_workers, purge } => stop(&ours(is_root, owner)?, stop_workers, purge),
    }
}

/// The session that the caller starts and stops.
fn ours(is_root: bool, owner: Option<&str>) -> anyhow::Result<Session> {
    let root = session_root(is_root).ok_or_else(|| {
        Stop::refused(
            "there is no place for a session: XDG_RUNTIME_DIR is not set (log in properly, or \
             `export HOLDFAST_SESSION=DIR` with a directory of your own)",
        )
    })?;
    let recorded = is_root.then(|| recorded_owner(&root)).flatten();
    let sudo_user = is_root.then(|| std::env::var("SUDO_USER").ok()).flatten().filter(|user| user != "root");
    let owner = owner.map(str::to_owned).or(recorded).or(sudo_user);
    if is_root && owner.is_none() {
        return Err(Stop::usage("root cannot own workers: say whose they are with --owner USER").into());
    }
    Session::of_process(root, owner.as_deref())
}

/// The session that the caller may use: one that root started for him, or his own.
fn seen(is_root: bool, owner: Option<&str>) -> anyhow::Result<Session> {
    if is_root || std::env::var_os("HOLDFAST_SESSION").is_some() {
        return ours(is_root, owner);
    }
    if let (Some(root), Ok(caller)) = (session_root(true), Caller::of_process(owner))
        && Layout::below(&root).owner_run(&caller.owner).exists()
    {
        return Session::of_process(root, owner);
    }
    ours(is_root, owner)
}

/// Whose session it is that runs, so that root need not say it again.
fn recorded_owner(root: &Path) -> Option<String> {
    let probe = Session {
        layout: Layout::below(root),
        owner: Caller { owner: "nobody".parse().ok()?, uid: 0, gid: 0, is_root: true },
        helper: crate::session::Identity { uid: 0, gid: 0 },
    };
    record::read(&probe).ok().flatten().map(|record| record.owner)
}

fn start(session: &Session) -> anyhow::Result<ExitCode> {
    if let Some(supervisor) = record::supervisor(session)? {
        return already(session, &supervisor);
    }
    refuse_beside_installed(session)?;
    let folder = folder()?;
    check_reach(session, &folder)?;
    tree::make(session)?;
    let log = record::log_path(session);
    let log_file = std::fs::File::options().append(true).create(true).mode(0o644).open(&log);
    let log_file = log_file.with_context(|| format!("cannot open {}", log.display()))?;
    // Whoever waits for the end of a pipe that was left open here shall not wait for the session's.
    crate::sys::close_on_exec_from(3).context("cannot close what was left open")?;
    let mut child = crate::session::this_program()
        .args(["--owner", session.owner.owner.as_str(), "session-supervise", "--root"])
        .arg(session.layout.root())
        .arg("--folder")
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .context("cannot start the supervisor")?;
    let unhealthy = await_daemon(session, &mut child).inspect_err(|_| {
        // What did not start is not left half running; workers of an earlier session go on.
        if let Ok(Some(supervisor)) = record::supervisor(session) {
            let _ = supervisor.end(STOP_MAX);
        }
    })?;
    if let Some(why) = unhealthy {
        tell(&format!("the daemon answers, but not all is well: {why}"));
    }
    greet(session);
    Ok(ExitCode::SUCCESS)
}

/// Waits until the daemon answers and all is healthy; returns what is not, after some patience.
fn await_daemon(session: &Session, supervisor: &mut Child) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    loop {
        let ended = supervisor.try_wait()?.is_some();
        match ask_status(session).map(|status| sick(&status)) {
            Some(None) => return Ok(None),
            Some(unhealthy) if began.elapsed() > HEALTHY_MAX => return Ok(unhealthy),
            None if ended || began.elapsed() > START_MAX => {
                let log = record::log_path(session);
                let text = format!("the session did not start; the end of {}:\n{}", log.display(), log_end(&log));
                return Err(Stop { code: exit::FAILED, text }.into());
            }
            _ => std::thread::sleep(LOOK_PAUSE),
        }
    }
}

fn already(session: &Session, supervisor: &Supervisor) -> anyhow::Result<ExitCode> {
    let owner = record::read(session)?.map(|record| record.owner);
    let whose = owner.as_deref().unwrap_or("somebody");
    let root = session.layout.root().display();
    if owner.as_deref() != Some(session.owner.owner.as_str()) {
        let text = format!(
            "a session of {whose} runs at {root} (supervisor pid {}): stop it, or set HOLDFAST_SESSION to another directory",
            supervisor.pid
        );
        return Err(Stop::refused(text).into());
    }
    tell(&format!("a session of {whose} already runs at {root} (supervisor pid {})", supervisor.pid));
    Ok(ExitCode::SUCCESS)
}

/// Two helpers in one network namespace would take each other's rules for leftovers.
fn refuse_beside_installed(session: &Session) -> anyhow::Result<()> {
    let socket = Layout::system().helper_socket();
    if session.owner.is_root && UnixStream::connect(&socket).is_ok() {
        let text = format!(
            "Holdfast is installed and its helper listens at {}: a session beside it would fight with it; \
             use the installed one, or `sudo holdfast system uninstall` it first",
            socket.display()
        );
        return Err(Stop::refused(text).into());
    }
    Ok(())
}

/// The release folder: where this program lies, with the others beside it.
fn folder() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?.canonicalize()?;
    let folder = exe.parent().unwrap_or(Path::new("/")).to_owned();
    let files = Role::ALL.map(Role::file_name).into_iter().chain(["holdfast-shim"]);
    let missing: Vec<&str> = files.filter(|name| !folder.join(name).is_file()).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "{} lacks {}: run the `holdfast` of a whole release folder (packaging/build makes one)",
        folder.display(),
        missing.join(", ")
    );
    Ok(folder)
}

fn status(session: &Session, json: bool) -> anyhow::Result<ExitCode> {
    let supervisor = record::supervisor(session)?;
    let record = record::read(session)?.filter(|_| supervisor.is_some());
    let answer = ask_status(session);
    let socket = session.layout.daemon_socket(&session.owner.owner);
    let running = supervisor.is_some();
    if json {
        out::json(&StatusJson {
            root: session.layout.root().to_owned(),
            running,
            supervisor: supervisor.map(|found| found.pid),
            socket,
            log: record::log_path(session),
            record,
            workers: answer.and_then(|status| status.get("workers").cloned()),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows =
        vec![["supervisor".to_owned(), shown_pid(supervisor.as_ref().map(|found| found.pid)), String::new()]];
    for program in record.iter().flat_map(|record| &record.programs) {
        let restarts = program.starts.saturating_sub(1);
        rows.push([cell(&program.name, 20), shown_pid(program.pid), format!("{restarts} restarts")]);
    }
    out::table(["PROGRAM", "PID", ""], rows)?;
    let workers = answer.as_ref().and_then(|status| status.get("workers")).map_or_else(
        || "the daemon does not answer".to_owned(),
        |counts| format!("{} live, {} failed", counts["live"], counts["failed"]),
    );
    out::text(&format!(
        "\nOwner    {}\nRoot     {}\nSocket   {}\nLog      {}\nWorkers  {workers}\n",
        session.owner.owner,
        session.layout.root().display(),
        socket.display(),
        record::log_path(session).display(),
    ))?;
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(exit::NO_DAEMON) })
}

fn shown_pid(pid: Option<u32>) -> String {
    pid.map_or_else(|| "not running".to_owned(), |pid| pid.to_string())
}

fn stop(session: &Session, stop_workers: bool, purge: bool) -> anyhow::Result<ExitCode> {
    let there = if purge { session.layout.root().to_owned() } else { session.layout.run() };
    if !there.exists() {
        tell(&format!("no session is at {}", session.layout.root().display()));
        return Ok(ExitCode::SUCCESS);
    }
    if record::supervisor(session)?.is_none() && session.layout.workers_run(&session.owner.owner).exists() {
        // Its supervisor was killed: programs may be left, and only a daemon knows of workers. A new one takes over.
        start(session)?;
    }
    if let Some(supervisor) = record::supervisor(session)? {
        quieten(session, stop_workers)?;
        anyhow::ensure!(
            supervisor.end(STOP_MAX)?,
            "the supervisor (pid {}) does not end; its log is {}",
            supervisor.pid,
            record::log_path(session).display()
        );
    }
    remove(session, purge)?;
    tell(&format!("the session of {} is stopped", session.owner.owner));
    Ok(ExitCode::SUCCESS)
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn greet(session: &Session) {
    let owner = &session.owner.owner;
    tell(&format!("a session of {owner} runs at {}", session.layout.root().display()));
    if std::io::stderr().is_terminal() {
        let (as_root, net) = if session.owner.is_root { (" (as that user)", "") } else { ("", " --net none") };
        tell(&format!("try{as_root}: holdfast run --rm{net} -- /bin/echo hello"));
    }
}
