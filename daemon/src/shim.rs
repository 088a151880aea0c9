//! The daemon's end of a shim's control socket, and the record that a shim leaves.
//!
//! A peer that shows the right nonce's reports is the shim that this daemon (or the one before it) ordered:
//! nothing else is needed to adopt a worker. Signals go to the pidfd that comes with its report, never to a number.

use crate::confine::hold_limits;
use holdfast_launcher::WireError;
use holdfast_launcher::control::{Hello, Order, PACKET_BYTES_MAX, Report};
use holdfast_launcher::counters::{AskCounters, Counters};
use holdfast_launcher::launch::Failure;
use holdfast_launcher::record::ExitRecord;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How long a shim may take to say its first word.
pub const FIRST_WORD: Duration = Duration::from_secs(5);
/// Largest exit record that is read (a failed step's name is the only part that varies).
const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// sun_path holds 108 bytes with its NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a shim cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// No socket, or nobody behind it.
    #[error("nobody listens on the shim's socket")]
    Nobody,
    /// It sent what this build does not read.
    #[error("the shim's words cannot be read")]
    Wire(#[from] WireError),
    /// It said nothing in time.
    #[error("the shim said nothing within {FIRST_WORD:?}")]
    Silent,
    /// The kernel refused.
    #[error("the shim's socket failed")]
    Io(#[from] io::Error),
}

impl From<Errno> for ShimError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The first process of a worker, pinned.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    /// Its host pid, for people; 0 once it was reaped.
    pub pid: u32,
}

impl Process {
    fn of(pidfd: OwnedFd) -> Self {
        let pid = pid_of(&pidfd).unwrap_or(0);
        Self { pidfd, pid }
    }

    /// Sends a standard signal (1 to 31). One that has ended already is no error.
    pub fn signal(&self, signal: u8) -> io::Result<()> {
        let signal = rustix::process::Signal::from_named_raw(signal.into()).ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A worker whose program has been executed and has not ended.
#[derive(Debug)]
pub struct Alive {
    /// The shim's version.
    pub version: String,
    /// When, in nanoseconds since the Unix epoch.
    pub started_at_ns: i64,
    /// Its first process.
    pub process: Process,
    /// Its cgroup is frozen.
    pub frozen: bool,
}

/// What a shim says.
#[derive(Debug)]
pub enum Word {
    /// The cage stands; nothing is executed yet.
    Preparing,
    /// Executed.
    Running(Alive),
    /// Every process of it is frozen.
    Frozen,
    /// None is.
    Thawed,
    /// It could not be frozen.
    NotFrozen(Failure),
    /// It could not be thawed.
    NotThawed(Failure),
    /// Ended; the record is on disk.
    Ended(Box<ExitRecord>),
    /// It hung up: the record says why, or it is lost.
    Gone,
}

/// A connection to one shim.
#[derive(Debug)]
pub struct Shim {
    /// A seqpacket socket; tokio has the same readiness for it as for a stream.
    socket: UnixStream,
    /// The shim's host pid as the kernel gives it, for people.
    pub pid: u32,
}

impl Shim {
    /// Connects and shows the nonce. Does not wait for the shim: the kernel queues both.
    pub fn connect(path: &Path, nonce: [u8; 16]) -> Result<Self, ShimError> {
        Self::connect_saying(path, &Hello { nonce }.encode())
    }

    fn connect_saying(path: &Path, first: &[u8]) -> Result<Self, ShimError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match dial(&socket, path) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => return Err(ShimError::Nobody),
            Err(errno) => return Err(errno.into()),
        }
        match rustix::net::send(&socket, first, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ShimError::Nobody),
            Err(errno) => return Err(errno.into()),
        }
        let pid = rustix::net::sockopt::socket_peercred(&socket).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
        Ok(Self { socket: UnixStream::from_std(socket.into())?, pid: u32::try_from(pid).unwrap_or(0) })
    }

    /// Gives an order; what comes of it is a word. Never waits: a shim that reads nothing is an error.
    pub fn order(&self, order: &Order) -> Result<(), ShimError> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::send(&self.socket, &order.encode(), flags).map(drop)?)
    }

    /// The next word about `generation`. Cancel-safe.
    pub async fn next(&mut self, generation: u64) -> Result<Word, ShimError> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_io(Interest::READABLE, || Ok(receive(self.socket.as_fd())?)) {
                Ok((bytes, _)) if bytes.is_empty() => return Ok(Word::Gone),
                Ok((bytes, descriptor)) => {
                    if let Some(word) = word(Report::decode(&bytes)?, descriptor, generation)? {
                        return Ok(word);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Ok(Word::Gone),
                    _ => return Err(error.into()),
                },
            }
        }
    }
}

/// Asks the shim behind `path` what its worker has used. Whoever calls this keeps the deadline.
pub async fn counters(path: &Path, nonce: [u8; 16]) -> Result<Counters, ShimError> {
    let shim = Shim::connect_saying(path, &AskCounters { nonce }.encode())?;
    loop {
        shim.socket.readable().await?;
        match shim.socket.try_io(Interest::READABLE, || Ok(receive(shim.socket.as_fd())?)) {
            Ok((bytes, _)) if bytes.is_empty() => return Err(ShimError::Nobody),
            Ok((bytes, _)) => return Ok(Counters::decode(&bytes)?),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `None`: about another generation, which is no news of this one.
fn word(report: Report, descriptor: Option<OwnedFd>, generation: u64) -> Result<Option<Word>, ShimError> {
    match report {
        Report::Preparing { generation: of, .. } => Ok((of == generation).then_some(Word::Preparing)),
        Report::Running { generation: of, version, started_at_ns, frozen } => {
            let process = Process::of(descriptor.ok_or(WireError::Value("report without a pidfd"))?);
            Ok((of == generation).then_some(Word::Running(Alive { version, started_at_ns, process, frozen })))
        }
        Report::Frozen { generation: of } => Ok((of == generation).then_some(Word::Frozen)),
        Report::Thawed { generation: of } => Ok((of == generation).then_some(Word::Thawed)),
        Report::NotFrozen { generation: of, failure } => Ok((of == generation).then_some(Word::NotFrozen(failure))),
        Report::NotThawed { generation: of, failure } => Ok((of == generation).then_some(Word::NotThawed(failure))),
        Report::Ended(record) => Ok((record.generation == generation).then_some(Word::Ended(Box::new(record)))),
    }
}

/// Reads the record of one generation; `None` where there is none (yet), or none of this launch.
pub fn read_record(state_dir: &Path, generation: u64, nonce: [u8; 16]) -> Option<ExitRecord> {
    // A record that cannot be opened for want of descriptors would be a worker lost.
    hold_limits();
    let file = std::fs::File::open(state_dir.join(ExitRecord::file_name(generation))).ok()?;
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let record = ExitRecord::decode(&bytes)
        .inspect_err(|error| tracing::error!(%error, dir = %state_dir.display(), "an exit record cannot be read"))
        .ok()?;
    (record.generation == generation && record.nonce == nonce).then_some(record)
}

/// Connects to a shim's socket.
pub fn dial(socket: &OwnedFd, path: &Path) -> Result<(), Errno> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return rustix::net::connect(socket, &SocketAddrUnix::new(path)?);
    }
    // A session may lie deep: reach the directory by a descriptor.
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    rustix::net::connect(socket, &SocketAddrUnix::new(&short)?)
}

fn receive(socket: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    bytes.truncate(got.bytes);
    Ok((bytes, descriptor))
}

/// The `Pid:` line of a pidfd's fdinfo (pidfd_open(2)); `None` once it was reaped.
fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}
