//! The owners' launchers: who dialled in, and what is asked of them.
//!
//! The newest connection of an owner is the one that counts; an older one is closed. Several launches may be
//! under way on one connection, told apart by number. Nothing here waits without a deadline.

use crate::words::Uid;
use holdfast_launcher::launch::{Failure, FromHelper, FromLauncher, PACKET_BYTES_MAX};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags,
};
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::timeout;

/// How long a launch waits for a launcher that is away; they redial every few tenths of a second.
const DIALS_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for the first word of a new connection.
const DIAL_SECS_MAX: u64 = 5;
/// Longest wait for room to send: a launcher that does not read is as good as none.
const SEND_SECS_MAX: u64 = 2;
/// Connections at once that have not said their first word.
const DIALLING_MAX: usize = 16;
/// Answers that wait to be taken up, per launch: it has two, and a failure.
const ANSWERS_MAX: usize = 4;
/// Descriptors that one packet may carry.
const DESCRIPTORS_MAX: usize = 4;

/// Why a launcher could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LauncherError {
    /// None is connected.
    #[error("the owner's launcher is not connected")]
    Absent,
    /// It closed the connection, or was replaced.
    #[error("the owner's launcher closed its connection")]
    Closed,
    /// It does not read.
    #[error("the owner's launcher takes no orders")]
    Deaf,
    /// It could not do it; nothing of the launch is left with it.
    #[error("{}: {}", .0.step, std::io::Error::from_raw_os_error(.0.errno))]
    Failed(Failure),
    /// It said something that cannot be right.
    #[error("the owner's launcher answered nonsense: {0}")]
    Nonsense(&'static str),
    /// It did not answer.
    #[error("the owner's launcher did not answer in time ({0})")]
    Deadline(&'static str),
}

/// An answer of a launcher to one launch.
#[derive(Debug)]
pub enum Answer {
    /// Paused: its network namespace. The pidfd that came with it is not needed here.
    Prepared {
        /// For people.
        shim_pid: u32,
        /// Not yet checked.
        netns: OwnedFd,
    },
    /// Let go.
    Released,
    /// Over.
    Failed(Failure),
}

/// All owners' launchers.
#[derive(Debug, Default)]
pub struct Launchers {
    connected: Mutex<BTreeMap<Uid, Arc<Connection>>>,
    dialled: Notify,
}

/// One launcher's connection.
#[derive(Debug)]
pub struct Connection {
    socket: AsyncFd<OwnedFd>,
    version: String,
    pid: u32,
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    last_seq: u64,
    waiting: BTreeMap<u64, mpsc::Sender<Answer>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code holds these locks over anything that can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Launchers {
    /// The launcher of one owner.
    pub fn of(&self, owner: Uid) -> Result<Arc<Connection>, LauncherError> {
        lock(&self.connected).get(&owner).cloned().ok_or(LauncherError::Absent)
    }

    /// As [`Launchers::of`], or the one that dials in soon: launchers redial by themselves after a helper's start.
    pub async fn awaited(&self, owner: Uid) -> Result<Arc<Connection>, LauncherError> {
        let deadline = tokio::time::Instant::now() + DIALS_WITHIN;
        loop {
            // Before the look, so that one who comes between the two is not missed.
            let dialled = self.dialled.notified();
            if let Ok(connection) = self.of(owner) {
                return Ok(connection);
            }
            tokio::time::timeout_at(deadline, dialled).await.map_err(|_| LauncherError::Absent)?;
        }
    }

    /// Accepts launchers until the listener fails. `is_owner` says whose are taken; others are closed without a word.
    pub async fn accept(self: Arc<Self>, listener: AsyncFd<OwnedFd>, is_owner: impl Fn(Uid) -> bool) {
        let dialling = Arc::new(Semaphore::new(DIALLING_MAX));
        loop {
            let socket = match accept_one(&listener).await {
                Ok(socket) => socket,
                Err(error) => {
                    // Out of descriptors, or a peer that left: neither ends the service, and neither may spin.
                    tracing::warn!(%error, "a launcher could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { continue };
            let owner = Uid(peer.uid.as_raw());
            if !is_owner(owner) {
                tracing::warn!(uid = owner.0, "a launcher of a user who is no owner was turned away");
                continue;
            }
            let Ok(permit) = dialling.clone().try_acquire_owned() else { continue };
            let launchers = Arc::clone(&self);
            let pid = peer.pid.as_raw_nonzero().get() as u32;
            tokio::spawn(async move {
                let dialled = dial(socket, pid).await;
                drop(permit);
                match dialled {
                    Ok(connection) => launchers.serve(owner, Arc::new(connection)).await,
                    Err(error) => tracing::warn!(uid = owner.0, %error, "a launcher did not dial in"),
                }
            });
        }
    }

    async fn serve(&self, owner: Uid, connection: Arc<Connection>) {
        tracing::info!(uid = owner.0, pid = connection.pid, version = connection.version, "launcher connected");
        if let Some(older) = lock(&self.connected).insert(owner, Arc::clone(&connection)) {
            older.close();
        }
        self.dialled.notify_waiters();
        connection.read_until_closed().await;
        connection.close();
        let mut connected = lock(&self.connected);
        if connected.get(&owner).is_some_and(|current| Arc::ptr_eq(current, &connection)) {
            connected.remove(&owner);
        }
        tracing::info!(uid = owner.0, pid = connection.pid, "launcher gone");
    }
}

async fn accept_one(listener: &AsyncFd<OwnedFd>) -> Result<AsyncFd<OwnedFd>, std::io::Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        listener.async_io(Interest::READABLE, |fd| rustix::net::accept_with(fd, flags).map_err(Into::into)).await?;
    crate::sys::register(socket, Interest::READABLE | Interest::WRITABLE)
}

async fn dial(socket: AsyncFd<OwnedFd>, pid: u32) -> Result<Connection, LauncherError> {
    let first = timeout(Duration::from_secs(DIAL_SECS_MAX), receive(&socket)).await;
    let (word, _) = first.map_err(|_| LauncherError::Deadline("dial"))??;
    let FromLauncher::Dial { version } = word else { return Err(LauncherError::Nonsense("no dial")) };
    let version = version.chars().filter(|c| !c.is_control()).take(64).collect();
    Ok(Connection { socket, version, pid, state: Mutex::default(), closed: watch::Sender::new(false) })
}

/// One launch's place in a connection.
#[derive(Debug)]
pub struct Call {
    connection: Arc<Connection>,
    seq: u64,
    answers: mpsc::Receiver<Answer>,
    closed: watch::Receiver<bool>,
    over: bool,
}

impl Connection {
    /// The launcher's version, as it said.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The launcher's pid when it dialled, for people.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Opens a place for one launch.
    pub fn call(self: &Arc<Self>) -> Call {
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let mut state = lock(&self.state);
        state.last_seq += 1;
        let seq = state.last_seq;
        state.waiting.insert(seq, answer);
        Call { connection: Arc::clone(self), seq, answers, closed: self.closed.subscribe(), over: false }
    }

    fn close(&self) {
        self.closed.send_replace(true);
        lock(&self.state).waiting.clear();
        // The reader wakes at once, and the launcher learns of it.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    async fn read_until_closed(&self) {
        loop {
            let (word, descriptors) = match receive(&self.socket).await {
                Ok(packet) => packet,
                Err(LauncherError::Closed) => return,
                Err(error) => {
                    tracing::warn!(pid = self.pid, %error, "connection of a launcher closed");
                    return;
                }
            };
            if *self.closed.borrow() {
                return;
            }
            let (seq, answer) = match (word, descriptors) {
                (FromLauncher::Prepared { seq, shim_pid }, mut descriptors) if descriptors.len() == 2 => {
                    (seq, Answer::Prepared { shim_pid, netns: descriptors.swap_remove(0) })
                }
                (FromLauncher::Released { seq }, descriptors) if descriptors.is_empty() => (seq, Answer::Released),
                (FromLauncher::Failed { seq, failure }, descriptors) if descriptors.is_empty() => {
                    (seq, Answer::Failed(failure))
                }
                _ => {
                    tracing::warn!(pid = self.pid, "a launcher spoke out of turn: its connection is closed");
                    return;
                }
            };
            let waiting = lock(&self.state).waiting.get(&seq).cloned();
            if waiting.is_some_and(|place| {
                place.try_send(answer).is_err_and(|e| matches!(e, mpsc::error::TrySendError::Full(_)))
            }) {
                tracing::warn!(pid = self.pid, "a launcher answered too often: its connection is closed");
                return;
            }
        }
    }

    async fn send(&self, word: &FromHelper, descriptor: Option<BorrowedFd<'_>>) -> Result<(), LauncherError> {
        let packet = word.encode();
        let sent = self.socket.async_io(Interest::WRITABLE, |fd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            rustix::net::sendmsg(fd, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL).map_err(Into::into)
        });
        match timeout(Duration::from_secs(SEND_SECS_MAX), sent).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(LauncherError::Closed),
            Err(_) => Err(LauncherError::Deaf),
        }
    }
}

impl Call {
    /// This launch's number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Closes the connection that this launch is on, with all others on it.
    pub fn hang_up(&self) {
        self.connection.close();
    }

    /// Whether the launcher has said that nothing is left of this launch.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Says one word of this launch, with at most one descriptor.
    pub async fn say(&self, word: &FromHelper, descriptor: Option<BorrowedFd<'_>>) -> Result<(), LauncherError> {
        self.connection.send(word, descriptor).await
    }

    /// The next answer. [`Answer::Failed`] comes as the error that it is.
    pub async fn answer(&mut self, what: &'static str, within: Duration) -> Result<Answer, LauncherError> {
        let next = async {
            tokio::select! {
                biased;
                answer = self.answers.recv() => answer.ok_or(LauncherError::Closed),
                _ = self.closed.wait_for(|closed| *closed) => Err(LauncherError::Closed),
            }
        };
        match timeout(within, next).await {
            Ok(Ok(Answer::Failed(failure))) => {
                self.over = true;
                Err(LauncherError::Failed(shown(failure)))
            }
            Ok(outcome) => outcome,
            Err(_) => Err(LauncherError::Deadline(what)),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.connection.state).waiting.remove(&self.seq);
    }
}

/// An owner's words go on to people only so long and without control characters.
fn shown(failure: Failure) -> Failure {
    Failure {
        step: failure.step.chars().filter(|c| !c.is_control()).take(200).collect(),
        errno: failure.errno.clamp(0, 4095),
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<(FromLauncher, Vec<OwnedFd>), LauncherError> {
    let received = socket.async_io(Interest::READABLE, |fd| receive_now(fd.as_fd()).map_err(Into::into)).await;
    let (packet, descriptors) = received.map_err(|_| LauncherError::Closed)?;
    if packet.is_empty() {
        return Err(LauncherError::Closed);
    }
    let word = FromLauncher::decode(&packet).map_err(|_| LauncherError::Nonsense("not a word of its language"))?;
    Ok((word, descriptors))
}

fn receive_now(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let cut = rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC;
    if received.flags.intersects(cut) {
        return Err(Errno::MSGSIZE);
    }
    packet.truncate(received.bytes);
    Ok((packet, descriptors))
}
