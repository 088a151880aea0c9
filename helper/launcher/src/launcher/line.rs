//! The line to the helper: dialled, kept, dialled again for ever.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why the helper was not reached.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Anybody could have put a socket there.
    #[error(
        "{0} is not a directory of root's (or, in a session, the owner's) that nobody else can write: \
         a socket in it may be anybody's"
    )]
    Directory(PathBuf),
    /// The kernel's answer.
    #[error("{path}: {source}")]
    Kernel {
        /// What was opened or dialled.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
}

/// The line, up or down.
pub struct Line {
    path: PathBuf,
    /// The connection, while there is one.
    pub socket: Option<OwnedFd>,
    dial_at: Instant,
    pause: Duration,
    said: Option<DialError>,
}

impl Line {
    /// A line that is down, to be dialled at once.
    pub fn new(path: PathBuf) -> Self {
        Self { path, socket: None, dial_at: Instant::now(), pause: PAUSE_MIN, said: None }
    }

    /// Dials if the line is down and its pause is over; true if it came up. A failure is said once, not each time.
    pub fn dial_if_due(&mut self, now: Instant) -> bool {
        if self.socket.is_some() || now < self.dial_at {
            return false;
        }
        match dial(&self.path) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.said = None;
                true
            }
            Err(error) => {
                self.dial_at = now + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                if self.said.as_ref() != Some(&error) {
                    eprintln!("holdfast-launcher: no line to the helper: {error}; dialling on");
                    self.said = Some(error);
                }
                false
            }
        }
    }

    /// The helper has spoken: the next pause starts small again.
    pub fn proved(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// Hangs up.
    pub fn drop_line(&mut self, now: Instant) {
        self.socket = None;
        self.dial_at = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// When to dial next; `None` while the line is up.
    pub fn due(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.dial_at)
    }
}

/// A listener that systemd holds shows systemd as its peer; so it is the place that has to be trusted.
fn dial(path: &Path) -> Result<OwnedFd, DialError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| DialError::Kernel { path, source }
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at(parent))?;
    let stat = rustix::fs::fstat(&dir).map_err(at(parent))?;
    let trusted = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if !trusted || stat.st_mode & 0o022 != 0 {
        return Err(DialError::Directory(parent.to_owned()));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(at(path))?;
    // Through the directory that was just checked, and never too long for a socket address.
    let through = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(&through).map_err(at(path))?;
    rustix::net::connect(&socket, &address).map_err(at(path))?;
    Ok(socket)
}
