//! Who calls: the owner from the host, or somebody whom every call is refused.
//!
//! Workers have the owner's uid, so the uid alone proves nothing (threat T34): the caller's user namespace must be
//! ours too. It is read from `/proc/<pid>/ns/user` while a pidfd pins the caller: SO_PEERPIDFD (Linux 6.5), else
//! pidfd_open(2) of SO_PEERCRED's pid. That link of a caller that is not dumpable (root's CLI, which became the owner)
//! is closed to us; then its id maps must be ours and its pid must be a pid of our own pid namespace: a worker is in one
//! of its own, and no unprivileged process can write the host's map. What cannot be read is refused.
//!
//! That is looked at once, of the process that connected; so its connection counts for as long as that process lives,
//! and not in the hands of whoever it was passed to and has outlived it (threat T06).
//!
//! This needs a thread of its own, outside the Landlock domain: from inside one, ptrace access to anybody outside,
//! and so that link, is denied (landlock(7)). The thread accepts, looks, and hands over; it reads nothing from callers.

use crate::confine::hold_limits;
use crate::handover::Candidate;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;

/// Connections served at a time; further ones wait in the listener's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// A connection that says nothing for so long is dropped.
pub const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);
/// Accepted connections that wait for the service.
const QUEUE_MAX: usize = 16;
/// Processes of our own unit that wait to be heard.
const CANDIDATES_MAX: usize = 4;
/// Wait after an accept that failed (descriptors used up), or while all connections are taken.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A caller, as judged when it connected.
#[derive(Debug, Clone)]
pub enum Peer {
    /// The owner, in our user namespace, by this process (a pidfd).
    Owner(Arc<OwnedFd>),
    /// Anybody else.
    Foreign,
}

impl Peer {
    /// Whether a call is the owner's now: the process that connected is there.
    pub fn is_owner(&self) -> bool {
        let Self::Owner(process) = self else { return false };
        // A pidfd is readable once its process has ended (pidfd_open(2)). What cannot be seen is refused.
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&Timespec::default())) == Ok(0)
    }
}

/// An accepted connection and who is behind it.
#[derive(Debug)]
pub struct Accepted {
    stream: UnixStream,
    peer: Peer,
    open: Arc<()>,
}

/// Where callers come in: open or closed. What is closed refuses nobody: the listener is systemd's or the session's, and
/// who calls meanwhile waits in its queue for whoever opens next.
#[derive(Debug)]
pub struct Door {
    inside: Arc<Inside>,
    bell: OwnedFd,
    listener: OwnedFd,
}

/// Both sides of the door's lock: where those who come in go, while it is open.
type Inside = Mutex<Option<Ways>>;

/// Where callers go, and where those go who may succeed this daemon.
#[derive(Debug, Clone)]
struct Ways {
    callers: mpsc::Sender<Accepted>,
    candidates: mpsc::Sender<Candidate>,
}

impl Door {
    /// Lets callers in; the receivers have them. Whoever opened before hears nothing more.
    pub fn open(&self) -> (mpsc::Receiver<Accepted>, mpsc::Receiver<Candidate>) {
        let (callers, incoming) = mpsc::channel(QUEUE_MAX);
        let (candidates, called) = mpsc::channel(CANDIDATES_MAX);
        self.turn(Some(Ways { callers, candidates }));
        (incoming, called)
    }

    /// What is listened on.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.turn(None);
    }

    fn turn(&self, to: Option<Ways>) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = to;
        // Full only where the thread has been woken already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// Starts watching the door for `uid` in a thread of its own; it is closed. To be called before the calling thread enters
/// Landlock.
pub fn watch(listener: UnixListener, uid: u32, owner: &str) -> io::Result<Door> {
    // Two daemons have this listener for a moment where one replaces the other: neither may wait in accept(2).
    listener.set_nonblocking(true)?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let inside = Arc::<Inside>::default();
    let given = OwnedFd::from(listener.try_clone()?);
    let porter = Porter {
        listener,
        uid,
        home: Home::read(owner)?,
        inside: inside.clone(),
        bell: bell.try_clone()?,
        open: Arc::default(),
        failing: AtomicBool::new(false),
    };
    std::thread::Builder::new().name("accept".into()).spawn(move || porter.watch())?;
    Ok(Door { inside, bell, listener: given })
}

/// The thread at the door.
struct Porter {
    listener: UnixListener,
    uid: u32,
    home: Home,
    inside: Arc<Inside>,
    bell: OwnedFd,
    /// Held by each connection.
    open: Arc<()>,
    /// Said once for a bout of failures: descriptors that are used up stay so for a while.
    failing: AtomicBool,
}

impl Porter {
    fn watch(&self) {
        loop {
            let ways = self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match (self.wait(ways.is_some()), ways) {
                (Ok(true), Some(ways)) => self.accept(&ways),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    // With a limit of no open files, poll(2) takes none to watch.
                    hold_limits();
                    tracing::warn!(%error, "the listener could not be watched");
                    std::thread::sleep(ACCEPT_RETRY);
                }
            }
        }
    }

    /// True: somebody may be there. False: the door was turned.
    fn wait(&self, is_open: bool) -> io::Result<bool> {
        let mut watched = vec![PollFd::new(&self.bell, PollFlags::IN)];
        watched.extend(is_open.then(|| PollFd::new(&self.listener, PollFlags::IN)));
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if watched[0].revents().is_empty() {
            return Ok(watched.get(1).is_some_and(|listener| !listener.revents().is_empty()));
        }
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        Ok(false)
    }

    fn accept(&self, ways: &Ways) {
        while Arc::strong_count(&self.open) > CONNECTIONS_MAX {
            if ways.callers.is_closed() {
                return;
            }
            std::thread::sleep(ACCEPT_RETRY);
        }
        let accepting = self.listener.accept();
        hold_limits();
        let stream = match accepting {
            Ok((stream, _)) => {
                self.failing.store(false, Ordering::Relaxed);
                stream
            }
            // Another daemon was quicker, or they have gone.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return,
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "connections cannot be accepted");
                }
                std::thread::sleep(ACCEPT_RETRY);
                return;
            }
        };
        let peer = match examine(&stream, self.uid, &self.home) {
            Ok(process) => match self.home.unit_mate(&process) {
                // More of them than systemd ever starts are not heard.
                Some(pid) => return drop(ways.candidates.try_send(Candidate::new(stream, process, pid))),
                None => Peer::Owner(Arc::new(process)),
            },
            Err(refusal) => {
                tracing::warn!(target: "audit", %refusal, "a caller was refused");
                Peer::Foreign
            }
        };
        // An error is a door that was closed meanwhile: this one has to call again.
        drop(ways.callers.blocking_send(Accepted { stream, peer, open: self.open.clone() }));
    }
}

/// Why a caller is foreign. For the log alone: the caller hears one text, whatever the reason.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("uid {0} is not the owner")]
    Uid(u32),
    #[error("pid {pid} of the owner's uid is in another user namespace ({theirs})")]
    Namespace { pid: u32, theirs: String },
    #[error("the caller (pid {pid}) could not be examined: {source}")]
    Unreadable { pid: i32, source: io::Error },
}

fn examine(stream: &UnixStream, uid: u32, ours: &Home) -> Result<OwnedFd, Refusal> {
    let credentials = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(|errno| Refusal::Unreadable { pid: 0, source: errno.into() })?;
    if credentials.uid() != uid {
        return Err(Refusal::Uid(credentials.uid()));
    }
    let unreadable = |source| Refusal::Unreadable { pid: credentials.pid(), source };
    let pidfd = pin(stream, credentials.pid()).map_err(unreadable)?;
    let pid = pid_of(&pidfd).map_err(unreadable)?;
    match user_namespace(&pid.to_string()) {
        Ok(theirs) if theirs == ours.namespace => {}
        Ok(theirs) => return Err(Refusal::Namespace { pid, theirs: theirs.display().to_string() }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let theirs = id_maps(&pid.to_string()).map_err(unreadable)?;
            if theirs != ours.id_maps || pid_depth(&pidfd).map_err(unreadable)? != 1 {
                return Err(Refusal::Namespace { pid, theirs: "unreadable, with other id maps or pids".into() });
            }
        }
        Err(error) => return Err(unreadable(error)),
    }
    // Still there: so the link read was that process's, not of a later one with its number.
    match pid_of(&pidfd) {
        Ok(again) if again == pid => Ok(pidfd),
        Ok(_) => Err(unreadable(io::ErrorKind::NotFound.into())),
        Err(error) => Err(unreadable(error)),
    }
}

fn pin(stream: &UnixStream, pid: i32) -> io::Result<OwnedFd> {
    match nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerPidfd) {
        Ok(pidfd) => Ok(pidfd),
        Err(nix::errno::Errno::ENOPROTOOPT) => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
            Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The caller's pid; an error once it was reaped (`Pid:` is then -1).
fn pid_of(pidfd: &impl AsFd) -> io::Result<u32> {
    fdinfo(pidfd, "Pid:")?.trim().parse().map_err(|_| io::ErrorKind::NotFound.into())
}

/// In how many pid namespaces, from ours inwards, it has a pid.
fn pid_depth(pidfd: &impl AsFd) -> io::Result<usize> {
    Ok(fdinfo(pidfd, "NSpid:")?.split_whitespace().count())
}

fn fdinfo(pidfd: &impl AsFd, field: &str) -> io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    value.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Where this daemon is.
#[derive(Debug)]
struct Home {
    namespace: PathBuf,
    id_maps: [String; 2],
    /// Our cgroup, where it is that of our unit, into which only systemd puts processes.
    unit: Option<String>,
}

impl Home {
    fn read(owner: &str) -> io::Result<Self> {
        let unit = format!("/holdfastd@{owner}.service");
        let unit = cgroup("self").ok().filter(|cgroup| cgroup.ends_with(&unit));
        Ok(Self { namespace: user_namespace("self")?, id_maps: id_maps("self")?, unit })
    }

    /// The pid of a process of our unit that is not this one. What cannot be looked at is none.
    fn unit_mate(&self, process: &OwnedFd) -> Option<u32> {
        let unit = self.unit.as_ref()?;
        let pid = pid_of(process).ok().filter(|pid| *pid != std::process::id())?;
        let is_mate = cgroup(&pid.to_string()).is_ok_and(|cgroup| cgroup == *unit);
        // Still there: so what was read is of that process.
        (is_mate && pid_of(process).is_ok_and(|again| again == pid)).then_some(pid)
    }
}

/// In the one hierarchy of cgroups(7).
fn cgroup(pid: &str) -> io::Result<String> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    all.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).ok_or_else(|| ErrorKind::NotFound.into())
}

/// As user_namespaces(7) shows them to us.
fn id_maps(pid: &str) -> io::Result<[String; 2]> {
    let read = |map| std::fs::read_to_string(format!("/proc/{pid}/{map}"));
    Ok([read("uid_map")?, read("gid_map")?])
}

fn user_namespace(pid: &str) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/user"))
}

/// A connection as the service has it.
#[derive(Debug)]
pub struct Connection {
    stream: tokio::net::UnixStream,
    peer: Peer,
    /// Until the first byte: when it is dropped.
    silent_until: Option<Pin<Box<tokio::time::Sleep>>>,
    _open: Arc<()>,
}

impl Connection {
    /// Brings an accepted connection to the runtime.
    pub fn new(accepted: Accepted) -> io::Result<Self> {
        accepted.stream.set_nonblocking(true)?;
        Ok(Self {
            stream: tokio::net::UnixStream::from_std(accepted.stream)?,
            peer: accepted.peer,
            silent_until: Some(Box::pin(tokio::time::sleep(FIRST_BYTE_WITHIN))),
            _open: accepted.open,
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(silent_until) = &mut this.silent_until {
            match &outcome {
                Poll::Ready(_) => this.silent_until = None,
                Poll::Pending if silent_until.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => {}
            }
        }
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
