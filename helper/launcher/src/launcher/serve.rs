//! The loop: words of the helper, words of shims, ends of shims, signals.

use crate::birth::{self, Newborn, Nursery, NurseryError};
use crate::cgroups::Cgroups;
use crate::identity::IdentityError;
use crate::launch::{Next, Stage};
use crate::line::Line;
use crate::packet;
use holdfast_launcher::launch::{Failure, FromHelper, FromLauncher, PACKET_BYTES_MAX, ShimWord, Wiring};
use holdfast_launcher::lock::LockError;
use holdfast_launcher::own_limits;
use holdfast_proto::words::WorkerId;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a launch may wait for its next word.
const STEP: Duration = Duration::from_secs(10);

/// How long a shim whose launch is over may take to leave by itself, without a trace, before it is killed.
const LEAVE: Duration = Duration::from_secs(1);

/// Most launches under way at once; more are refused.
const LAUNCHES_MAX: usize = 256;

/// How long launches under way may go on once the launcher is told to end; new ones are for its successor.
const DRAIN: Duration = Duration::from_secs(2);

/// How long it then stays: with its end systemd removes every empty cgroup of the unit, and a shim that was just let go
/// is about to start its worker in one.
const SETTLE: Duration = Duration::from_millis(200);

/// How often cgroups of shims that an earlier launcher made are looked at.
const SWEEP: Duration = Duration::from_secs(30);

/// Why the launcher does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not what it has to be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another one is there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its limits are not its own any more.
    #[error(transparent)]
    Limits(#[from] own_limits::Lowered),
    /// It has nothing to make shims of.
    #[error(transparent)]
    Nursery(#[from] NurseryError),
    /// The kernel's answer to a step of its own.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
}

/// Everything the launcher knows.
pub struct Launcher {
    nursery: Nursery,
    line: Line,
    signals: SignalFd,
    /// Under way, by the helper's number.
    launches: BTreeMap<u64, Launch>,
    /// Shims that were told to go by the end of their pair, and when they are killed if they are still there.
    leaving: Vec<(OwnedFd, Instant)>,
    /// Shims not reaped yet, by pid: a number that is theirs until they are reaped. Nothing is signalled by it.
    shims: HashMap<i32, WorkerId>,
    /// Highest seen: words of an earlier daemon are void.
    epoch: u64,
    sweep_at: Instant,
    /// Once it is told to end: until when launches under way may go on.
    ends_at: Option<Instant>,
    /// Half the time that the service manager allows, and when it is next told that all is well.
    watchdog: Option<(Duration, Instant)>,
}

struct Launch {
    pidfd: OwnedFd,
    pair: OwnedFd,
    stage: Stage,
    deadline: Instant,
}

/// The connection is of no use any more.
struct LineLost;

impl Launcher {
    /// Takes its signals.
    pub fn new(socket: PathBuf, nursery: Nursery) -> Result<Self, StartError> {
        let failed =
            |step| move |errno: nix::Error| StartError::Kernel { step, source: Errno::from_raw_os_error(errno as i32) };
        let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        mask.thread_block().map_err(failed("block signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(failed("make a signalfd"))?;
        let now = Instant::now();
        Ok(Self {
            nursery,
            line: Line::new(socket),
            signals,
            launches: BTreeMap::new(),
            leaving: Vec::new(),
            shims: HashMap::new(),
            epoch: 0,
            sweep_at: now,
            ends_at: None,
            watchdog: sd_notify::watchdog_enabled().map(|period| (period / 2, now)),
        })
    }

    /// Serves until SIGTERM or SIGINT, and then until launches under way are over; shims that have been released stay.
    pub fn run(&mut self) -> Result<(), StartError> {
        self.dial();
        notify(sd_notify::NotifyState::Ready);
        loop {
            let woken = self.wait().map_err(|source| StartError::Kernel { step: "wait", source })?;
            // Before a descriptor is taken or a process made: workers inherit these limits, too.
            own_limits::put_back()?;
            if woken.signal && self.take_signals() && self.ends_at.is_none() {
                notify(sd_notify::NotifyState::Stopping);
                self.ends_at = Some(Instant::now() + DRAIN);
            }
            for seq in woken.shims {
                self.hear_shim(seq);
            }
            if woken.helper && self.hear_helper().is_err() {
                self.lose_line();
            }
            self.keep_time();
            if self.ends_at.is_some_and(|at| self.launches.is_empty() || at <= Instant::now()) {
                std::thread::sleep(SETTLE);
                return Ok(());
            }
        }
    }

    fn wait(&self) -> rustix::io::Result<Woken> {
        let seqs: Vec<u64> = self.launches.keys().copied().collect();
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.launches.values().map(|launch| PollFd::new(&launch.pair, PollFlags::IN)));
        fds.extend(self.line.socket.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let left = self.next_deadline().saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let woken: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(Woken {
            signal: woken[0],
            shims: seqs.iter().zip(&woken[1..]).filter(|(_, woken)| **woken).map(|(seq, _)| *seq).collect(),
            helper: self.line.socket.is_some() && woken.last() == Some(&true),
        })
    }

    fn next_deadline(&self) -> Instant {
        let watchdog = self.watchdog.map(|(_, at)| at);
        let launches = self.launches.values().map(|launch| launch.deadline);
        let leaving = self.leaving.iter().map(|(_, at)| *at);
        launches
            .chain(leaving)
            .chain(self.line.due())
            .chain(watchdog)
            .chain(self.ends_at)
            .fold(self.sweep_at, Instant::min)
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> =
            self.launches.iter().filter(|(_, launch)| launch.deadline <= now).map(|(seq, _)| *seq).collect();
        for seq in late {
            let step = self.launches.get(&seq).map_or("", |launch| launch.stage.awaited());
            self.fail(seq, Failure { step: step.to_owned(), errno: Errno::TIMEDOUT.raw_os_error() });
        }
        self.leaving.retain(|(pidfd, at)| {
            let over = *at <= now;
            if over {
                kill(pidfd);
            }
            !over
        });
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP;
            self.nursery.cgroups.sweep();
        }
        if let Some((period, at)) = self.watchdog.filter(|(_, at)| *at <= now) {
            self.watchdog = Some((period, at.max(now) + period));
            notify(sd_notify::NotifyState::Watchdog);
        }
        self.dial();
    }

    /// True: asked to end.
    fn take_signals(&mut self) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return true;
            }
        }
        // One SIGCHLD may stand for several ends.
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(worker) = self.shims.remove(&pid.as_raw_nonzero().get()) {
                self.nursery.cgroups.remove(&Cgroups::name(worker));
            }
        }
        false
    }

    fn dial(&mut self) {
        if self.ends_at.is_none() && self.line.dial_if_due(Instant::now()) {
            self.answer(&FromLauncher::Dial { version: holdfast_proto::VERSION.to_owned() }, &[]);
        }
    }

    /// Launches that the helper can no longer release are undone with it.
    fn lose_line(&mut self) {
        self.line.drop_line(Instant::now());
        for launch in std::mem::take(&mut self.launches).into_values() {
            self.dismiss(launch);
        }
    }

    fn hear_helper(&mut self) -> Result<(), LineLost> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let Some(socket) = &self.line.socket else { return Ok(()) };
            let (len, fds) = match packet::receive(socket.as_fd(), &mut buffer) {
                Ok((0, _)) => return Err(LineLost),
                Ok(got) => got,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(_) => return Err(LineLost),
            };
            self.line.proved();
            let word = FromHelper::decode(&buffer[..len]).map_err(|error| {
                eprintln!("holdfast-launcher: the helper's word is not understood ({error}); hanging up");
                LineLost
            })?;
            self.obey(word, fds)?;
        }
    }

    fn obey(&mut self, word: FromHelper, mut fds: Vec<OwnedFd>) -> Result<(), LineLost> {
        match word {
            FromHelper::Prepare { seq, epoch, worker, generation: _, host_network } => {
                if self.launches.contains_key(&seq) {
                    return Err(LineLost);
                }
                let orders = if fds.len() == 1 { fds.pop() } else { None };
                match self.prepare(epoch, &worker, orders, host_network) {
                    Ok((worker, newborn)) => self.begin(seq, worker, newborn),
                    Err(failure) => self.answer(&FromLauncher::Failed { seq, failure }, &[]),
                }
            }
            FromHelper::Release { seq, wiring } => self.advance(seq, |stage| stage.wired(wiring)),
            FromHelper::Abort { seq } => self.fail(seq, Failure { step: "aborted".to_owned(), errno: 0 }),
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        epoch: u64,
        worker: &str,
        orders: Option<OwnedFd>,
        host_network: bool,
    ) -> Result<(WorkerId, Newborn), Failure> {
        let refused = |step: &str, errno: Errno| Failure { step: step.to_owned(), errno: errno.raw_os_error() };
        if epoch < self.epoch {
            return Err(refused("epoch: a later daemon has spoken", Errno::STALE));
        }
        self.epoch = epoch;
        if self.ends_at.is_some() {
            // The helper knows by this number that asking again is all it takes.
            return Err(refused("the launcher is being replaced", Errno::RESTART));
        }
        if self.launches.len() >= LAUNCHES_MAX {
            return Err(refused("launches under way: at most 256", Errno::AGAIN));
        }
        let worker: WorkerId = worker.parse().map_err(|_| refused("worker id", Errno::INVAL))?;
        let orders = orders.ok_or_else(|| refused("orders: one memfd", Errno::BADF))?;
        birth::check_orders(orders.as_fd())?;
        Ok((worker, self.nursery.bear(worker, &orders, host_network)?))
    }

    fn begin(&mut self, seq: u64, worker: WorkerId, newborn: Newborn) {
        let Newborn { pid, pidfd, netns, pair } = newborn;
        self.shims.insert(pid as i32, worker);
        self.answer(&FromLauncher::Prepared { seq, shim_pid: pid }, &[netns.as_fd(), pidfd.as_fd()]);
        let launch = Launch { pidfd, pair, stage: Stage::Born, deadline: Instant::now() + STEP };
        if self.line.socket.is_some() {
            self.launches.insert(seq, launch);
        } else {
            self.dismiss(launch);
        }
    }

    fn hear_shim(&mut self, seq: u64) {
        let Some(launch) = self.launches.get(&seq) else { return };
        let mut buffer = [0; PACKET_BYTES_MAX];
        let word = match packet::receive(launch.pair.as_fd(), &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((len, _)) if len > 0 => ShimWord::decode(&buffer[..len]).ok(),
            Ok(_) | Err(_) => None,
        };
        match word {
            Some(ShimWord::Ready) => self.advance(seq, Stage::ready),
            Some(ShimWord::Failed(failure)) => self.fail(seq, failure),
            Some(ShimWord::Go(_)) | None => {
                self.fail(seq, Failure { step: "shim ended before it was ready".to_owned(), errno: 0 });
            }
        }
    }

    /// Does what follows from a word about a launch. One that is over already is no error: answers cross.
    fn advance(&mut self, seq: u64, word: impl FnOnce(Stage) -> Next) {
        let Some(launch) = self.launches.get_mut(&seq) else { return };
        match word(std::mem::take(&mut launch.stage)) {
            Next::Wait(stage) => {
                launch.stage = stage;
                launch.deadline = Instant::now() + STEP;
            }
            Next::Go(wiring) => self.release(seq, wiring),
            Next::Twice => self.fail(seq, Failure { step: "a word said twice".to_owned(), errno: 0 }),
        }
    }

    fn release(&mut self, seq: u64, wiring: Wiring) {
        let Some(launch) = self.launches.get(&seq) else { return };
        match packet::send(launch.pair.as_fd(), &ShimWord::Go(wiring).encode(), &[]) {
            Ok(()) => {
                self.launches.remove(&seq);
                self.answer(&FromLauncher::Released { seq }, &[]);
            }
            Err(errno) => self.fail(seq, Failure { step: "release".to_owned(), errno: errno.raw_os_error() }),
        }
    }

    fn fail(&mut self, seq: u64, failure: Failure) {
        if let Some(launch) = self.launches.remove(&seq) {
            self.dismiss(launch);
            self.answer(&FromLauncher::Failed { seq, failure }, &[]);
        }
    }

    /// The end of the pair tells the shim that its launch is over; it takes its files away and ends.
    fn dismiss(&mut self, launch: Launch) {
        let Launch { pidfd, pair, .. } = launch;
        drop(pair);
        self.leaving.push((pidfd, Instant::now() + LEAVE));
    }

    /// A helper that does not take answers is as good as gone: its launches are undone, the line is dialled again.
    fn answer(&mut self, word: &FromLauncher, fds: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.line.socket else { return };
        if packet::send(socket.as_fd(), &word.encode(), fds).is_err() {
            self.lose_line();
        }
    }
}

struct Woken {
    signal: bool,
    helper: bool,
    shims: Vec<u64>,
}

/// By pidfd; a shim that is gone already needs no killing.
fn kill(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

/// The service manager may be gone or never have been there: that is its affair.
fn notify(state: sd_notify::NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
