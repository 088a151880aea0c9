//! The control socket: whoever shows the nonce is told the worker's state now and at each change.

use crate::packet;
use crate::sessions::{Caller, call_of};
use holdfast_launcher::control::{Hello, Order, PACKET_BYTES_MAX, Report};
use holdfast_launcher::counters::{AskCounters, Counters};
use holdfast_launcher::session::Call;
use rustix::net::SocketFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most watchers at once; a later one has to wait until one leaves or is found silent.
const WATCHERS_MAX: usize = 8;

/// Most orders of one turn of the loop: one per watcher.
const ORDERS_MAX: usize = WATCHERS_MAX;

/// How long a watcher may take to say Hello.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whoever is connected.
pub struct Watchers {
    nonce: [u8; 16],
    watchers: Vec<Watcher>,
    callers: Vec<Caller>,
    orders: Vec<Order>,
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
        Self { nonce, watchers: Vec::new(), callers: Vec::new(), orders: Vec::new() }
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

    /// Takes what watchers said and tells those that said it right `report`; those that call for a session are
    /// kept for [`Watchers::callers`]; the others go.
    pub fn hear(&mut self, report: &Report, worker: Option<BorrowedFd<'_>>) {
        let now = Instant::now();
        let packet = report.encode();
        for mut watcher in std::mem::take(&mut self.watchers) {
            let mut buffer = [0; PACKET_BYTES_MAX];
            let stays = match packet::receive(watcher.socket.as_fd(), &mut buffer) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    watcher.silent_until.is_none_or(|until| now < until)
                }
                Ok((len, fds)) if len > 0 && watcher.silent_until.is_some() && Call::is_one(&buffer[..len]) => {
                    self.callers.extend(call_of(&buffer[..len], &self.nonce).map(|call| {
                        let program = fds.into_iter().next();
                        Caller { link: watcher.socket, call, program }
                    }));
                    continue;
                }
                Ok((len, _)) if len > 0 && watcher.silent_until.is_some() => {
                    if AskCounters::decode(&buffer[..len]).is_ok_and(|ask| packet::same(&ask.nonce, &self.nonce)) {
                        watcher.asks_counters = true;
                        true
                    } else {
                        watcher.silent_until = None;
                        Hello::decode(&buffer[..len]).is_ok_and(|hello| packet::same(&hello.nonce, &self.nonce))
                            && tell(&watcher.socket, &packet, worker)
                    }
                }
                // After Hello: an order. Whoever gives none that is known here goes.
                Ok((len, _)) if len > 0 => match Order::decode(&buffer[..len]) {
                    Ok(order) if self.orders.len() < ORDERS_MAX => {
                        self.orders.push(order);
                        true
                    }
                    Ok(_) | Err(_) => false,
                },
                Ok(_) | Err(_) => false,
            };
            if stays {
                self.watchers.push(watcher);
            }
        }
    }

    /// Whether somebody is there who has not been told anything yet.
    pub fn have_news(&self) -> bool {
        self.watchers.iter().any(|watcher| watcher.silent_until.is_some())
    }

    /// What was ordered since this was asked last, in its order.
    pub fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Those that called for a session since this was asked last.
    pub fn callers(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.callers)
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
