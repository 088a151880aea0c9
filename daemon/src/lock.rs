//! Two mains at once are worse than none: the one that comes later ends the one before it, then acts.
//!
//! A unit with SendSIGKILL=no may leave a main that ignores SIGTERM; its successor finds it by the lock, pins it
//! by a pidfd, looks again that it is still the holder, and kills it by that pidfd.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How long a killed holder may take to go.
const GONE_WITHIN_SECS: i64 = 5;
/// Holders that are ended one after another before this start is given up.
const HOLDERS_MAX: usize = 5;

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be opened or locked.
    #[error("the lock {path} cannot be taken")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder does not end.
    #[error("another holdfastd (pid {pid}) holds {path} and does not end within {GONE_WITHIN_SECS} s of SIGKILL")]
    Stuck {
        /// The holder.
        pid: i32,
        /// Which file.
        path: PathBuf,
    },
}

/// Held until the program ends. POSIX locks go with any descriptor of the file, so it is opened here alone.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock, ending whoever holds it.
pub fn take(path: &Path) -> Result<Lock, LockError> {
    let failed = |source: io::Error| LockError::File { path: path.into(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(failed)?;
    for _ in 0..HOLDERS_MAX {
        match fcntl(&file, FcntlArg::F_SETLK(&whole(F_WRLCK))) {
            Ok(_) => return Ok(Lock { _file: file }),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        if let Some(pid) = holder(&file).map_err(failed)? {
            end(&file, pid, path)?;
        }
    }
    Err(failed(io::ErrorKind::WouldBlock.into()))
}

fn whole(kind: i32) -> flock {
    flock { l_type: kind as i16, l_whence: SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn holder(file: &File) -> io::Result<Option<i32>> {
    let mut found = whole(F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    Ok((i32::from(found.l_type) != F_UNLCK && found.l_pid > 0).then_some(found.l_pid))
}

fn end(file: &File, pid: i32, path: &Path) -> Result<(), LockError> {
    let failed = |source: io::Error| LockError::File { path: path.into(), source };
    let Some(number) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else { return Ok(()) };
    // Still the holder, so the pidfd is the holder's and not that of a later process with its number.
    if holder(file).map_err(failed)? != Some(pid) {
        return Ok(());
    }
    tracing::warn!(pid, "another holdfastd holds the lock; ending it");
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    let limit = Timespec { tv_sec: GONE_WITHIN_SECS, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
        Ok(1..) => Ok(()),
        Ok(0) => Err(LockError::Stuck { pid, path: path.into() }),
        Err(errno) => Err(failed(errno.into())),
    }
}
