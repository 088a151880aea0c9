//! From the launcher's word to the worker's end: one loop over its output, its watchers and its processes.

use crate::confine::keep_for_sessions;
use crate::freeze::{self, Freezer};
use crate::halt::{CAGE, Halt, Step};
use crate::log::{Flow, Log};
use crate::meter::Meter;
use crate::own::Own;
use crate::places::{Places, now_ns};
use crate::sessions::Sessions;
use crate::streams::Streams;
use crate::watchers::Watchers;
use crate::worker::{self, Born};
use crate::{Cage, netlink, proc, sys, tap};
use holdfast_launcher::control::Report;
use holdfast_launcher::launch::Wiring;
use holdfast_launcher::limits::Enforced;
use holdfast_launcher::orders::{Network, Orders};
use holdfast_launcher::output::Stream;
use holdfast_launcher::record::{ExitRecord, Outcome};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// After its last output a worker counts as quiet, and memory is given back.
const QUIET: Duration = Duration::from_secs(1);

/// How long output may still come when every process of the worker has been killed: somebody outside got hold of
/// its pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// How long killed processes may take to go.
const DEATH: Duration = Duration::from_secs(10);

/// Runs the worker and leaves its record; also where it cannot be wired or forked.
pub fn live(orders: Orders, places: Places, cage: Cage, enforced: Enforced, wiring: &Wiring) {
    let Ok((log, signals)) = prepare(&orders, &places) else {
        places.leave_not_started(&orders, &Halt::new(CAGE, "log", Errno::IO));
        return;
    };
    let Ok(null) = cage.null.try_clone() else {
        places.leave_not_started(&orders, &Halt::new(CAGE, "dup", Errno::MFILE));
        return;
    };
    let mut life = Life {
        watchers: Watchers::new(orders.nonce),
        sessions: Sessions::new(null, cage.confinement.clone()),
        freezer: Freezer::default(),
        report: Report::Preparing { generation: orders.generation, version: holdfast_proto::VERSION.to_owned() },
        started_at_ns: 0,
        finished_at_ns: None,
        identity: Identity { worker: orders.worker.clone(), generation: orders.generation, nonce: orders.nonce },
        places,
        log,
        signals,
        meter: None,
    };
    let outcome = match life.start(&orders, &cage, wiring) {
        Ok(born) => {
            // None of the rest is needed again, and an idle shim is to be small.
            life.meter = Some(Meter::new(cage.proc, &wiring.link, enforced));
            drop((orders, cage.workdir, cage.null, cage.network_knobs, cage.confinement));
            life.watch(born)
        }
        Err(halt) => Outcome::NotStarted { code: halt.code, failure: halt.failure },
    };
    life.end(outcome);
}

fn prepare(orders: &Orders, places: &Places) -> std::io::Result<(Log, SignalFd)> {
    let log = Log::open(places.log.try_clone()?, orders.log_bytes_max, orders.log_files_max)?;
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    Ok((log, SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
}

struct Identity {
    worker: String,
    generation: u64,
    nonce: [u8; 16],
}

struct Life {
    identity: Identity,
    places: Places,
    log: Log,
    signals: SignalFd,
    watchers: Watchers,
    /// Once the worker has been forked.
    meter: Option<Meter>,
    sessions: Sessions,
    freezer: Freezer,
    /// What a watcher is told that comes now.
    report: Report,
    started_at_ns: i64,
    /// When its first process was reaped.
    finished_at_ns: Option<i64>,
}

/// One worker that has been forked.
struct Watched {
    pid: i32,
    pidfd: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Until the program has been executed or was not.
    executed: Option<OwnedFd>,
    not_executed: Option<Halt>,
    status: Option<WaitStatus>,
}

impl Life {
    fn start(&mut self, orders: &Orders, cage: &Cage, wiring: &Wiring) -> Result<Born, Halt> {
        if wiring.no_ipv6 {
            proc::no_ipv6(&cage.network_knobs, &wiring.link)?;
        }
        match orders.network {
            Network::Tap => tap::set_up(wiring, &cage.network_knobs)?,
            Network::Own | Network::Host => netlink::set_up(wiring)?,
        }
        let mut line = String::new();
        for (ip, _) in &wiring.addresses {
            line.push_str(&format!("{ip}\t{}\n", orders.hostname));
        }
        if let Some(hosts) = self.places.hosts_append.as_ref().filter(|_| !line.is_empty()) {
            rustix::io::write(hosts, line.as_bytes()).step("add to the hosts file")?;
        }
        self.started_at_ns = now_ns();
        let born = worker::fork(orders, cage, self.places.worker_cgroup.as_ref().map(|fd| fd.as_fd()))?;
        // The worker gives up its own.
        keep_for_sessions().inspect_err(|_| kill(&born.pidfd))?;
        Ok(born)
    }

    fn watch(&mut self, born: Born) -> Outcome {
        let Born { pid, pidfd, streams, executed } = born;
        let Streams { input, outputs: [stdout, stderr] } = streams;
        // On a terminal there is no standard error of its own.
        let is_terminal = stderr.is_none();
        self.sessions.have_own(input.map(|input| Own::new(input, is_terminal)));
        let executed = Some(executed);
        let mut worker = Watched { pid, pidfd, stdout, stderr, executed, not_executed: None, status: None };
        let mut quiet_at = Some(Instant::now() + QUIET);
        while worker.status.is_none() {
            let busy = self.turn(&mut worker, quiet_at);
            if busy {
                quiet_at = Some(Instant::now() + QUIET);
            } else if quiet_at.is_some_and(|at| at <= Instant::now()) {
                self.log.rest();
                sys::shrink();
                quiet_at = None;
            }
        }
        self.hear_executed(&mut worker);
        self.sweep_out(&mut worker);
        match (worker.not_executed, worker.status) {
            (Some(halt), _) => Outcome::NotStarted { code: halt.code, failure: halt.failure },
            (None, Some(status)) => outcome(status),
            (None, None) => Outcome::Signal(Signal::SIGKILL as u8),
        }
    }

    /// Waits for the next thing and does it. True: output came.
    fn turn(&mut self, worker: &mut Watched, until: Option<Instant>) -> bool {
        let deadline = until.into_iter().chain(self.watchers.deadline()).chain(self.sessions.due());
        let deadline = deadline.chain(self.freezer.deadline()).min();
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let pipes = [&worker.stdout, &worker.stderr, &worker.executed];
        fds.extend(pipes.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.watchers.has_room().then(|| PollFd::new(&self.places.listener, PollFlags::IN)));
        fds.extend(self.watchers.sockets().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.freezer.events().map(|fd| PollFd::new(fd, PollFlags::PRI)));
        self.sessions.poll_fds(&mut fds);
        // Blocked signals do not interrupt; whatever else the answer is, each source says what it has.
        let _ = poll(&mut fds, timeout.as_ref());
        drop(fds);
        let busy = self.take_output(worker);
        self.hear_executed(worker);
        self.watchers.accept(&self.places.listener);
        if self.watchers.have_news() {
            self.freezer.look_anew(self.places.worker_cgroup.as_ref());
            self.note_frozen();
        }
        let told = matches!(self.report, Report::Running { .. }).then(|| worker.pidfd.as_fd());
        self.watchers.hear(&self.report, told);
        self.freeze_or_thaw();
        if let Some(meter) = &self.meter {
            self.watchers.answer_counters(|| meter.read(self.places.worker_cgroup.as_ref(), reaped_us));
        }
        while let Ok(Some(_)) = self.signals.read_signal() {}
        self.reap(worker);
        self.hear_callers(worker);
        busy | self.sessions.turn()
    }

    /// Obeys what was ordered, and tells what has come of it.
    fn freeze_or_thaw(&mut self) {
        let (generation, cgroup) = (self.identity.generation, self.places.worker_cgroup.as_ref());
        let orders = self.watchers.orders();
        let refused =
            orders.iter().filter_map(|order| self.freezer.obey(order, generation, cgroup)).collect::<Vec<_>>();
        for report in refused.into_iter().chain(self.freezer.look(generation, cgroup)) {
            self.watchers.tell(&report, None);
        }
        self.note_frozen();
    }

    fn note_frozen(&mut self) {
        if let Report::Running { frozen, .. } = &mut self.report {
            *frozen = self.freezer.frozen;
        }
    }

    fn hear_callers(&mut self, worker: &Watched) {
        let is_running = matches!(self.report, Report::Running { .. }) && worker.status.is_none();
        for caller in self.watchers.callers() {
            self.sessions.answer(caller, is_running, self.places.worker_cgroup.as_ref());
        }
    }

    fn take_output(&mut self, worker: &mut Watched) -> bool {
        let mut busy = false;
        for (pipe, stream) in [(&mut worker.stdout, Stream::Stdout), (&mut worker.stderr, Stream::Stderr)] {
            let flow = pipe.as_ref().map_or(Flow::Empty, |fd| self.log.take(fd, stream));
            if flow == Flow::Ended {
                *pipe = None;
            }
            busy |= flow == Flow::Some;
        }
        busy
    }

    /// The end of this pipe without a word: exec has closed it.
    fn hear_executed(&mut self, worker: &mut Watched) {
        let Some(pipe) = &worker.executed else { return };
        let mut said = [0; 512];
        let len = match rustix::io::read(pipe, &mut said) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(len) => len,
            Err(_) => 0,
        };
        worker.executed = None;
        worker.not_executed = worker::exec_failure(&said[..len]);
        if worker.not_executed.is_none() {
            self.report = Report::Running {
                generation: self.identity.generation,
                version: holdfast_proto::VERSION.to_owned(),
                started_at_ns: self.started_at_ns,
                frozen: self.freezer.frozen,
            };
            self.watchers.tell(&self.report, Some(worker.pidfd.as_fd()));
        }
    }

    /// Takes in whoever has ended: as PID 1 this is the parent of every orphan of the worker.
    fn reap(&mut self, worker: &mut Watched) -> Reaped {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == worker.pid => {
                    worker.status = Some(status);
                    self.finished_at_ns = Some(now_ns());
                }
                Ok(Some((pid, status))) => self.sessions.reaped(pid.as_raw_nonzero().get(), status),
                Err(Errno::INTR) => {}
                Ok(None) => return Reaped::SomeLive,
                Err(_) => return Reaped::NoneLeft,
            }
        }
    }

    /// The worker's end is the end of everything in it: kills the rest, then takes what is left in the pipes.
    fn sweep_out(&mut self, worker: &mut Watched) {
        let deadline = Instant::now() + DEATH;
        while Instant::now() < deadline {
            // -1 here is everything in this pid namespace but PID 1 (kill(2)).
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), Signal::SIGKILL);
            self.take_output(worker);
            if self.reap(worker) == Reaped::NoneLeft {
                break;
            }
            self.turn(worker, Some(Instant::now() + Duration::from_millis(10)));
        }
        let deadline = Instant::now() + DRAIN;
        let open = |worker: &Watched| worker.stdout.is_some() || worker.stderr.is_some();
        while (open(worker) || !self.sessions.are_told()) && Instant::now() < deadline {
            if !self.take_output(worker) && (open(worker) || !self.sessions.are_told()) {
                self.turn(worker, Some(deadline));
            }
        }
        self.log.finish();
    }

    fn end(&mut self, outcome: Outcome) {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
        let micros = |time: Option<nix::sys::time::TimeVal>| time.map_or(0, |time| time.num_microseconds() as u64);
        let (log_bytes, log_dropped_bytes) = self.log.totals();
        let record = ExitRecord {
            worker: self.identity.worker.clone(),
            generation: self.identity.generation,
            nonce: self.identity.nonce,
            started_at_ns: if matches!(outcome, Outcome::NotStarted { .. }) { 0 } else { self.started_at_ns },
            finished_at_ns: self.finished_at_ns.unwrap_or_else(now_ns),
            outcome,
            user_us: micros(usage.map(|usage| usage.user_time())),
            system_us: micros(usage.map(|usage| usage.system_time())),
            max_rss_kib: usage.map_or(0, |usage| usage.max_rss() as u64),
            oom: self.places.oom_killed(),
            log_bytes,
            log_dropped_bytes,
        };
        if self.freezer.frozen {
            freeze::leave(self.places.worker_cgroup.as_ref());
        }
        self.places.remove_cgroup();
        self.places.leave(&record);
        let report = Report::Ended(record);
        self.watchers.tell(&report, None);
        // Those that dialled in the last moment.
        self.watchers.accept(&self.places.listener);
        self.watchers.hear(&report, None);
    }
}

/// CPU time of everything that was waited for, in microseconds.
fn reaped_us() -> u64 {
    let micros = |time: nix::sys::time::TimeVal| time.num_microseconds() as u64;
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

fn kill(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

#[derive(PartialEq, Eq)]
enum Reaped {
    SomeLive,
    NoneLeft,
}

fn outcome(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Outcome::Code(code as u8),
        (None, Some(signal)) => Outcome::Signal(signal as u8),
        (None, None) => Outcome::Signal(Signal::SIGKILL as u8),
    }
}
