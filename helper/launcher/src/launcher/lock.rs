//! One launcher per owner: a POSIX record lock, whose holder is known to the kernel by pid.
//!
//! The units never kill what is left over (`SendSIGKILL=no`), so a launcher that finds the lock held ends the
//! holder, which has the same uid, and only then acts.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, PidfdFlags, Signal};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How often a holder is looked for and ended before giving up.
const TRIES_MAX: u32 = 5;

/// How long one holder may take to die.
const DEATH: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file itself.
    #[error("cannot open {path}: does the directory exist, and is it the owner's? ({source})")]
    Open {
        /// The lock's path.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// Anything else on the way.
    #[error("cannot {step} for {path}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The lock's path.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// It would not die, or another one came each time.
    #[error("{path} is still held after {TRIES_MAX} holders were killed: end the other launcher by hand")]
    Held {
        /// The lock's path.
        path: PathBuf,
    },
}

/// Takes the lock, for as long as the descriptor is open (and no other of the same file is closed: fcntl_locking(2)).
pub fn take(path: &Path) -> Result<OwnedFd, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|source| LockError::Open { path: path.to_owned(), source })?;
    let failed = |step: &'static str| move |source| LockError::Kernel { step, path: path.to_owned(), source };
    for _ in 0..TRIES_MAX {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN | Errno::ACCESS) => end_holder(&file).map_err(failed("end the holder"))?,
            Err(source) => return Err(failed("take the lock")(source)),
        }
    }
    Err(LockError::Held { path: path.to_owned() })
}

/// Kills whoever holds the lock, if somebody still does.
fn end_holder(file: &OwnedFd) -> rustix::io::Result<()> {
    let Some(pid) = holder(file)? else { return Ok(()) };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        other => other?,
    };
    // The number may have passed to another process before it was pinned; the lock says who it is now.
    if holder(file)? != Some(pid) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        other => other?,
    }
    match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&DEATH))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

fn holder(file: &OwnedFd) -> rustix::io::Result<Option<Pid>> {
    let asked = Flock::from(FlockType::WriteLock);
    Ok(rustix::process::fcntl_getlk(file, &asked)?.and_then(|held| held.pid))
}
