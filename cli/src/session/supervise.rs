//! The session's supervisor: holds the listening sockets, keeps helper, launcher and daemon running, and never
//! touches a worker. It does for a session what systemd does for the units.

use super::record::{self, ProgramRecord, Record};
use super::sockets::{self, Listening};
use super::{Role, Session, cgroup};
use anyhow::Context;
use clap::Args;
use nix::sys::signal::{SigSet, Signal as Sig};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// First pause before a program that ended is started again; it doubles with each quick end.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A program that ran for so long has started well.
const WELL_AFTER: Duration = Duration::from_secs(10);
/// What a program may take to end after SIGTERM, before SIGKILL.
const END_MAX: Duration = Duration::from_secs(5);
/// How often the log's size is looked at, at least.
const LOG_LOOK: Duration = Duration::from_secs(60);
/// The log is cut to its last part when it has grown to this.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What is kept of it then.
const LOG_BYTES_KEPT: u64 = 1024 * 1024;

/// What `session start` asks for. Standard error is the session's log.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// The session's directory
    #[arg(long)]
    pub root: PathBuf,
    /// The folder of the programs
    #[arg(long)]
    pub folder: PathBuf,
}

/// One program that is kept running.
struct Kept {
    role: Role,
    sockets: Vec<OwnedFd>,
    child: Option<Child>,
    starts: u64,
    began: Instant,
    pause: Duration,
    /// When it is started next, while it does not run.
    due: Instant,
}

/// The pause after a program ended that ran for `ran`, having waited `last` before. Pure.
fn next_pause(last: Duration, ran: Duration) -> Duration {
    if ran >= WELL_AFTER { PAUSE_MIN } else { (last * 2).clamp(PAUSE_MIN, PAUSE_MAX) }
}

/// Runs the session until it is asked to end.
///
/// # Errors
/// Where another supervisor runs, or a socket cannot be bound.
pub fn run(args: &SuperviseArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    let session = Session::of_process(args.root.clone(), owner)?;
    // Its own session: the terminal that started it may go. Where it leads one already, that is so.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    let signals = hear_signals()?;
    let Some(_lock) = record::take_lock(&session)? else {
        anyhow::bail!("another supervisor of {} runs", session.layout.root().display());
    };
    let cgroup = match cgroup::make(&session) {
        Ok(path) => Some(path),
        Err(error) => {
            note(&format!("workers get no cgroups of their own: {error}"));
            None
        }
    };
    let now = Instant::now();
    let keep = |listening: Listening| Kept {
        role: listening.role,
        sockets: listening.sockets,
        child: None,
        starts: 0,
        began: now,
        pause: Duration::ZERO,
        due: now,
    };
    let kept = sockets::bind_all(&session)?.into_iter().map(keep).collect();
    let mut supervisor = Supervisor { session, folder: args.folder.clone(), cgroup, kept };
    supervisor.keep_running(&signals)?;
    supervisor.end_all();
    sockets::unlink_all(&supervisor.session);
    cgroup::remove(&supervisor.session);
    Ok(ExitCode::SUCCESS)
}

/// Takes the signals that matter as words to read; a hangup is none.
fn hear_signals() -> anyhow::Result<SignalFd> {
    let mut heard = SigSet::empty();
    for signal in [Sig::SIGCHLD, Sig::SIGTERM, Sig::SIGINT, Sig::SIGHUP] {
        heard.add(signal);
    }
    heard.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("cannot make a signalfd")
}

fn note(text: &str) {
    eprintln!("{} holdfast session: {text}", jiff::Timestamp::now());
}

struct Supervisor {
    session: Session,
    folder: PathBuf,
    cgroup: Option<PathBuf>,
    kept: Vec<Kept>,
}

impl Supervisor {
    /// Until a signal asks to end.
    fn keep_running(&mut self, signals: &SignalFd) -> anyhow::Result<()> {
        loop {
            if self.reap_and_start() {
                self.write_record();
            }
            let due = self.kept.iter().filter(|kept| kept.child.is_none()).map(|kept| kept.due).min();
            let patience = due.map_or(LOG_LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOG_LOOK));
            match poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&Timespec::try_from(patience)?)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for signals"),
            }
            while let Some(signal) = signals.read_signal()? {
                let number = i32::try_from(signal.ssi_signo)?;
                if [Sig::SIGTERM as i32, Sig::SIGINT as i32].contains(&number) {
                    return Ok(());
                }
            }
            if let Err(error) = cut_log(&record::log_path(&self.session)) {
                note(&format!("the log cannot be cut: {error}"));
            }
        }
    }

    /// Takes the ends of what ended, starts what is due; returns whether anything changed.
    fn reap_and_start(&mut self) -> bool {
        let mut changed = false;
        for kept in &mut self.kept {
            if let Some(status) = kept.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                kept.child = None;
                kept.pause = next_pause(kept.pause, kept.began.elapsed());
                kept.due = Instant::now() + kept.pause;
                note(&format!("{} ended ({status}); next start in {:?}", kept.role.as_str(), kept.pause));
                changed = true;
            }
            if kept.child.is_none() && kept.due <= Instant::now() {
                changed = true;
                kept.starts += 1;
                kept.began = Instant::now();
                let cgroup = self.cgroup.as_ref().filter(|_| kept.role == Role::Launcher);
                let cgroup = cgroup.map(|path| path.join(cgroup::LAUNCHER));
                match start(&self.session, &self.folder, kept, cgroup.as_deref()) {
                    Ok(child) => kept.child = Some(child),
                    Err(error) => {
                        kept.pause = next_pause(kept.pause, Duration::ZERO);
                        kept.due = Instant::now() + kept.pause;
                        note(&format!("{} cannot be started: {error:#}", kept.role.as_str()));
                    }
                }
            }
        }
        changed
    }

    fn write_record(&self) {
        let program = |kept: &Kept| ProgramRecord {
            name: kept.role.as_str().to_owned(),
            pid: kept.child.as_ref().map(Child::id),
            starts: kept.starts,
        };
        let record = Record {
            owner: self.session.owner.owner.to_string(),
            folder: self.folder.clone(),
            cgroup: self.cgroup.clone(),
            programs: self.kept.iter().map(program).collect(),
        };
        if let Err(error) = record::write(&self.session, &record) {
            note(&format!("the record cannot be written: {error:#}"));
        }
    }

    /// Ends the programs, the daemon first; their workers go on.
    fn end_all(&mut self) {
        for kept in self.kept.iter_mut().rev() {
            if let Some(mut child) = kept.child.take()
                && let Err(error) = end(&mut child)
            {
                note(&format!("{} may not have ended: {error:#}", kept.role.as_str()));
            }
        }
    }
}

fn start(
    session: &Session,
    folder: &std::path::Path,
    kept: &Kept,
    cgroup: Option<&std::path::Path>,
) -> anyhow::Result<Child> {
    let mut command = super::this_program();
    command.args(["--owner", session.owner.owner.as_str(), "session-exec", kept.role.as_str(), "--root"]);
    command.arg(session.layout.root()).arg("--folder").arg(folder);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    let given = |place: usize| -> anyhow::Result<Stdio> {
        Ok(kept.sockets.get(place).map(OwnedFd::try_clone).transpose()?.map_or_else(Stdio::null, Stdio::from))
    };
    command.env_clear().stdin(given(0)?).stdout(given(1)?);
    Ok(command.spawn()?)
}

/// Asks a child to end, and kills it where it does not. It is ours and not yet reaped, so its pid is its own.
fn end(child: &mut Child) -> anyhow::Result<()> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(pidfd.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if record::ended_within(&pidfd, END_MAX)? {
            child.wait()?;
            return Ok(());
        }
    }
    anyhow::bail!("pid {} is still there", child.id())
}

/// Keeps the last part of a log that has grown long. Every program appends (O_APPEND), so that writing goes on at
/// its new end; what is written between reading and cutting is lost.
fn cut_log(path: &std::path::Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= LOG_BYTES_MAX {
        return Ok(());
    }
    let mut kept = vec![0; usize::try_from(LOG_BYTES_KEPT).unwrap_or(0)];
    file.read_exact_at(&mut kept, length - LOG_BYTES_KEPT)?;
    file.set_len(0)?;
    file.write_all_at(&kept, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_longest_and_start_anew_after_a_good_run() {
        let mut pause = Duration::ZERO;
        let told: Vec<u128> = (0..8)
            .map(|_| {
                pause = next_pause(pause, Duration::ZERO);
                pause.as_millis()
            })
            .collect();
        assert_eq!(told, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(next_pause(PAUSE_MAX, WELL_AFTER), PAUSE_MIN);
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, [vec![b'a'; 9 << 20], b"the end".to_vec()].concat()).unwrap();
        cut_log(&path).unwrap();
        let left = std::fs::read(&path).unwrap();
        assert!(left.len() == 1 << 20 && left.ends_with(b"the end"));
        cut_log(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 1 << 20);
    }
}
