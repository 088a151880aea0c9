//! What a session's supervisor leaves for others to see: its lock, and the pids of what it keeps running. Both lie in
//! a directory of the session's keeper.

use super::Session;
use anyhow::Context;
use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockType, Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// Most bytes of the record: it is ours and short.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// One program that is kept running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// `helper`, `launcher`, `daemon`.
    pub name: String,
    /// None while it is about to be started again.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u64,
}

/// What the supervisor says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose workers.
    pub owner: String,
    /// The folder that the programs run from.
    pub folder: PathBuf,
    /// Where workers' cgroups are; none where the host lets us make none.
    pub cgroup: Option<PathBuf>,
    /// What is kept running.
    pub programs: Vec<ProgramRecord>,
}

fn lock_path(session: &Session) -> PathBuf {
    session.layout.session_run().join("lock")
}

/// The log of the supervisor and its programs.
pub fn log_path(session: &Session) -> PathBuf {
    session.layout.session_run().join("log")
}

fn record_path(session: &Session) -> PathBuf {
    session.layout.session_run().join("programs.json")
}

/// Takes the supervisor's lock; none where another holds it. It is held until the process ends.
///
/// # Errors
/// Where the file cannot be opened.
pub fn take_lock(session: &Session) -> anyhow::Result<Option<File>> {
    let path = lock_path(session);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The supervisor that runs, pinned, so that what is sent reaches nobody else.
#[derive(Debug)]
pub struct Supervisor {
    /// Its pid.
    pub pid: u32,
    pidfd: OwnedFd,
}

/// Finds the session's supervisor by its lock; none where none runs.
///
/// # Errors
/// Where the lock is there and cannot be asked about.
pub fn supervisor(session: &Session) -> anyhow::Result<Option<Supervisor>> {
    let path = lock_path(session);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let holder = || -> anyhow::Result<Option<Pid>> {
        let found = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::ReadLock))?;
        Ok(found.and_then(|lock| lock.pid))
    };
    let Some(pid) = holder()? else { return Ok(None) };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error).context("cannot pin the supervisor"),
    };
    // It held the lock after it was pinned: so the pinned process is the holder, not one that took its number.
    let still = holder()? == Some(pid);
    Ok(still.then_some(Supervisor { pid: pid.as_raw_nonzero().get().unsigned_abs(), pidfd }))
}

impl Supervisor {
    /// Asks it to end its programs and itself; returns whether it did in time.
    ///
    /// # Errors
    /// Where it may not be signalled.
    pub fn end(&self, patience: Duration) -> anyhow::Result<bool> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            outcome => outcome.context("cannot signal the session's supervisor")?,
        }
        ended_within(&self.pidfd, patience)
    }
}

/// Waits for a pinned process to end.
///
/// # Errors
/// Where the kernel refuses to say.
pub fn ended_within(pidfd: &OwnedFd, patience: Duration) -> anyhow::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(patience)?;
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return Ok(outcome? > 0),
        }
    }
}

/// Replaces the record.
///
/// # Errors
/// Where it cannot be written.
pub fn write(session: &Session, record: &Record) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let mut file = atomic_write_file::AtomicWriteFile::open(record_path(session))?;
    serde_json::to_writer_pretty(&mut file, record)?;
    writeln!(file)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(file.commit()?)
}

/// Reads the record; none where there is none. Only true while a supervisor runs.
///
/// # Errors
/// Where it cannot be read.
pub fn read(session: &Session) -> anyhow::Result<Option<Record>> {
    use std::io::Read;
    let file = match File::open(record_path(session)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(RECORD_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(serde_json::from_str(&text).context("the session's record is damaged")?))
}
