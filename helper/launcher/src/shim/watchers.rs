//! The control socket: whoever shows the nonce is told the worker's state now and at each change.

use crate::packet;
use holdfast_launcher::control::{Hello, PACKET_BYTES_MAX, Report};
use holdfast_launcher::counters::{AskCounters, Counters};
use rustix::net::SocketFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most watchers at once; a later one has to wait until one leaves or is found silent.
const WATCHERS_MAX: usize = 8;

/// How long a watcher may take to say Hello.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whoever is connected.
pub struct Watchers {
    nonce: [u8; 16],
    watchers: Vec<Watcher>,
}

struct Watcher {
    socket: OwnedFd,
    /// Until it has said Hello.
    silent_until: Option<Instant>,
    /// Waits for the worker's counters, and for nothing else.
    asks_counters: bool,
}

impl Watchers {
    /// Nobody yet.
    pub fn new(nonce: [u8; 16]) -> Self {
        Self { nonce, watchers: Vec::new() }
    }

    /// Whether one more would be let in.
    pub fn has_room(&self) -> bool {
        self.watchers.len() < WATCHERS_MAX
    }

    /// Lets in whoever waits, of this uid and from outside the worker's pid namespace.
    pub fn accept(&mut self, listener: &OwnedFd) {
        while self.has_room() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = rustix::net::accept_with(listener, flags) else { return };
            if is_trusted(&socket) {
                self.watchers.push(Watcher {
                    socket,
                    silent_until: Some(Instant::now() + PATIENCE),
                    asks_counters: false,
                });
            }
        }
    }

    /// Takes what watchers said and tells those that said it right `report`; the others go.
    pub fn hear(&mut self, report: &Report, worker: Option<BorrowedFd<'_>>) {
        let (nonce, now) = (self.nonce, Instant::now());
        let packet = report.encode();
        self.watchers.retain_mut(|watcher| {
            let mut buffer = [0; PACKET_BYTES_MAX];
            match packet::receive(watcher.socket.as_fd(), &mut buffer) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    watcher.silent_until.is_none_or(|until| now < until)
                }
                Ok((len, _)) if len > 0 && watcher.silent_until.is_some() => {
                    if AskCounters::decode(&buffer[..len]).is_ok_and(|ask| same(&ask.nonce, &nonce)) {
                        watcher.asks_counters = true;
                        return true;
                    }
                    watcher.silent_until = None;
                    Hello::decode(&buffer[..len]).is_ok_and(|hello| same(&hello.nonce, &nonce))
                        && tell(&watcher.socket, &packet, worker)
                }
                Ok(_) | Err(_) => false,
            }
        });
    }

    /// Answers those that asked for the worker's counters, which are taken once for all of them; then they go.
    pub fn answer_counters(&mut self, take: impl FnOnce() -> Counters) {
        if !self.watchers.iter().any(|watcher| watcher.asks_counters) {
            return;
        }
        let packet = take().encode();
        self.watchers.retain(|watcher| {
            if watcher.asks_counters {
                tell(&watcher.socket, &packet, None);
            }
            !watcher.asks_counters
        });
    }

    /// Tells every watcher; one that does not take it goes, and will read the record.
    pub fn tell(&mut self, report: &Report, worker: Option<BorrowedFd<'_>>) {
        let packet = report.encode();
        self.watchers.retain(|watcher| watcher.silent_until.is_some() || tell(&watcher.socket, &packet, worker));
    }

    /// Their sockets, to be polled.
    pub fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.watchers.iter().map(|watcher| &watcher.socket)
    }

    /// When the next silent one has to go.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchers.iter().filter_map(|watcher| watcher.silent_until).min()
    }
}

fn tell(socket: &OwnedFd, packet: &[u8], worker: Option<BorrowedFd<'_>>) -> bool {
    packet::send(socket.as_fd(), packet, worker.as_slice()).is_ok()
}

/// A peer inside the worker has a pid here; one outside has none, and the kernel says 0 (pid_namespaces(7)).
fn is_trusted(socket: &OwnedFd) -> bool {
    // rustix's Pid cannot be 0, so the credentials are asked for with nix.
    let credentials = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials);
    credentials.is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw() && peer.pid() == 0)
}

/// Compares without a hint of how far they agree.
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
