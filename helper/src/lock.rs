//! One helper at a time: a POSIX lock on a file, whose holder is ended where it is an older helper that hangs.
//!
//! Units never send SIGKILL (`SendSIGKILL=no`), so a helper that ignores SIGTERM would serve beside its successor.

use nix::fcntl::{FcntlArg, fcntl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::path::{Path, PathBuf};

/// Rounds of looking for a holder and ending it.
const ROUNDS_MAX: usize = 5;
/// Longest wait for a killed holder's end.
const END_SECS_MAX: i64 = 5;

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else holds it and cannot be ended.
    #[error("{path} is held by process {holder}, which cannot be ended: {source}")]
    Held {
        /// Which.
        path: PathBuf,
        /// Who, in this pid namespace.
        holder: i32,
        /// Why.
        source: std::io::Error,
    },
    /// Again and again.
    #[error("{0} is held by one process after the other: is something starting helpers in a loop?")]
    Contended(PathBuf),
}

/// The lock; it ends with this value, or with the process.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

/// Takes the lock, ending whoever holds it.
pub fn take(path: &Path) -> Result<Lock, LockError> {
    let failed = |source: std::io::Error| LockError::File { path: path.to_owned(), source };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|e| failed(e.into()))?;
    for _ in 0..ROUNDS_MAX {
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => return Ok(Lock { _file: file }),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        if let Some(holder) = holder(&file).map_err(failed)? {
            end(&file, holder).map_err(|source| LockError::Held { path: path.to_owned(), holder, source })?;
        }
    }
    Err(LockError::Contended(path.to_owned()))
}

fn holder(file: &OwnedFd) -> Result<Option<i32>, std::io::Error> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

/// Pins the holder first and looks again: only a process that held the lock after it was pinned is ended.
fn end(file: &OwnedFd, pid: i32) -> Result<(), std::io::Error> {
    // 0 or -1: a holder outside of our pid namespace, or one by open file description.
    let target =
        Pid::from_raw(pid).filter(|_| pid > 1).ok_or_else(|| std::io::Error::other("it is not visible from here"))?;
    let pinned = match rustix::process::pidfd_open(target, PidfdFlags::empty()) {
        Ok(pinned) => pinned,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if holder(file)? != Some(pid) {
        return Ok(());
    }
    tracing::warn!(pid, "an older helper holds the lock: it is ended");
    match rustix::process::pidfd_send_signal(&pinned, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let wait = Timespec { tv_sec: END_SECS_MAX, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pinned, PollFlags::IN)], Some(&wait))? {
        0 => Err(std::io::Error::other("it was killed and did not end in time")),
        _ => Ok(()),
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
