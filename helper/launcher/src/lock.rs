//! One main at a time: the lock that helper, daemon and launcher each take before they act.
//!
//! The units never kill what is left over (`SendSIGKILL=no`), so a main that ignores SIGTERM would act beside its
//! successor. The successor finds it by the lock, which the kernel knows the holder of, pins it by a pidfd, looks again
//! that it is still the holder, and ends it. Both have the same uid.

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
    #[error("{path} is still held after {TRIES_MAX} holders were killed: end the other one by hand")]
    Held {
        /// The lock's path.
        path: PathBuf,
    },
}

/// The lock. It ends with this value, with the process, and with the closing of any other descriptor of the same file
/// in this process (fcntl_locking(2)): nothing else may open that file.
#[derive(Debug)]
#[must_use = "the lock ends with this value"]
pub struct Lock {
    _file: OwnedFd,
    /// How many holders were killed for it.
    pub ended: u32,
}

/// Takes the lock, ending whoever holds it.
///
/// # Errors
/// [`LockError`]: nothing may be done without it.
pub fn take(path: &Path) -> Result<Lock, LockError> {
    let file = open(path)?;
    let failed = |step: &'static str| move |source| LockError::Kernel { step, path: path.to_owned(), source };
    let mut ended = 0;
    for _ in 0..TRIES_MAX {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file, ended }),
            Err(Errno::AGAIN | Errno::ACCESS) => ended += end_holder(&file).map_err(failed("end the holder"))?,
            Err(source) => return Err(failed("take the lock")(source)),
        }
    }
    Err(LockError::Held { path: path.to_owned() })
}

/// Takes the lock if nobody holds it; ends nobody.
///
/// # Errors
/// [`LockError`]: nothing may be done without it.
pub fn take_if_free(path: &Path) -> Result<Option<Lock>, LockError> {
    let file = open(path)?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file, ended: 0 })),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(source) => Err(LockError::Kernel { step: "take the lock", path: path.to_owned(), source }),
    }
}

fn open(path: &Path) -> Result<OwnedFd, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|source| LockError::Open { path: path.to_owned(), source })
}

/// Kills whoever holds the lock, if somebody still does; says how many that were.
fn end_holder(file: &OwnedFd) -> rustix::io::Result<u32> {
    let Some(pid) = holder(file)? else { return Ok(0) };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(0),
        other => other?,
    };
    // The number may have passed to another process before it was pinned; the lock says who it is now.
    if holder(file)? != Some(pid) {
        return Ok(0);
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(0),
        other => other?,
    }
    match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&DEATH))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(1),
    }
}

fn holder(file: &OwnedFd) -> rustix::io::Result<Option<Pid>> {
    let asked = Flock::from(FlockType::WriteLock);
    Ok(rustix::process::fcntl_getlk(file, &asked)?.and_then(|held| held.pid))
}
