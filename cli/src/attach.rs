//! A worker in the foreground: its output here, our signals there, its exit code ours. A daemon that goes away
//! meanwhile is waited for: the worker never notices, so neither does whoever watches it.

use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, Patience, answer, present};
use crate::commands::run::LAUNCH_MAX;
use crate::exec::own::{self, Seat};
use crate::exec::terminal::{self, RawTerminal};
use crate::exit::{FAILED, RUN_FAILED, SIGNAL_BASE, Stop};
use crate::sink::{Cursor, Sink};
use crate::view;
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::{
    KillRequest, LogsRequest, Output, RemoveRequest, RunRequest, StopRequest, WaitRequest, Worker, WorkerSpec,
};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Request;

/// Longest that a stop may take: the longest grace, and then some.
const STOP_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause before a slow terminal is offered the next piece.
const SLOW_PAUSE: Duration = Duration::from_millis(5);

/// Starts the worker and stays until it ended.
///
/// # Errors
/// [`CallError`] where it could not be started, or nobody knows how it ended.
pub async fn run(daemon: Daemon, spec: WorkerSpec, seat: Seat, caller: &Caller) -> anyhow::Result<u8> {
    let remove = spec.remove_on_exit;
    let (mut watch, mut left) = Watch::new(daemon, seat, Cursor::default(), caller)?;
    watch.comes_back = !matches!(spec.restart.as_str(), "" | "no");
    let ended = tokio::select! {
        ended = watch.until_its_end(spec, remove) => Some(ended),
        Some(()) = left.recv() => None,
    };
    watch.finish(ended)
}

/// Stays with a worker that runs until it ended; output from byte `seen` on.
///
/// # Errors
/// [`CallError`] where nobody knows how it ended.
pub async fn again(daemon: Daemon, worker: Worker, seen: u64, seat: Seat, caller: &Caller) -> anyhow::Result<u8> {
    let (mut watch, mut left) = Watch::new(daemon, seat, Cursor::at(seen), caller)?;
    watch.worker = Some(worker.id.clone());
    watch.started = true;
    watch.sit_down();
    let ended = tokio::select! {
        ended = watch.until_it_ends(&worker.id) => Some(ended),
        Some(()) = left.recv() => None,
    };
    watch.finish(ended)
}

/// That somebody may sit there.
///
/// # Errors
/// Where a terminal is needed and there is none, or it is root's.
pub fn require(seat: Seat, verb: &str, caller: &Caller) -> Result<(), Stop> {
    if seat != Seat::Terminal {
        return Ok(());
    }
    terminal::require(verb)?;
    if caller.is_root {
        let owner = &caller.owner;
        let text = format!(
            "a terminal of root's is not given to what {owner} runs: do it as {owner} (sudo -u {owner} holdfast {verb} ...)"
        );
        return Err(Stop::refused(text));
    }
    Ok(())
}

/// The signals that are passed on.
pub struct Signals([(u32, Signal); 4]);

impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new() -> std::io::Result<Self> {
        let listen = |kind: SignalKind| signal(kind).map(|heard| (kind.as_raw_value().unsigned_abs(), heard));
        let (int, term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self([int, term, listen(SignalKind::hangup())?, listen(SignalKind::quit())?]))
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> u32 {
        let [(int, on_int), (term, on_term), (hup, on_hup), (quit, on_quit)] = &mut self.0;
        tokio::select! {
            _ = on_int.recv() => *int,
            _ = on_term.recv() => *term,
            _ = on_hup.recv() => *hup,
            _ = on_quit.recv() => *quit,
        }
    }
}

/// One worker, watched.
struct Watch {
    daemon: Daemon,
    signals: Signals,
    sink: Sink,
    cursor: Cursor,
    /// Its id, once it is on record.
    worker: Option<String>,
    /// Its policy would start it again after a signal.
    comes_back: bool,
    started: bool,
    /// Signals that came before it could take any: at most one of each kind matters.
    early: Vec<u32>,
    seat: Seat,
    /// Told where whoever sits there leaves.
    leaves: mpsc::Sender<()>,
    raw: Option<RawTerminal>,
    patience: Patience,
}

impl Watch {
    fn new(daemon: Daemon, seat: Seat, cursor: Cursor, caller: &Caller) -> anyhow::Result<(Self, mpsc::Receiver<()>)> {
        let (leaves, left) = mpsc::channel(1);
        let watch = Self {
            daemon,
            signals: Signals::new()?,
            sink: Sink::new(caller.is_root),
            cursor,
            worker: None,
            comes_back: false,
            started: false,
            early: Vec::new(),
            seat,
            leaves,
            raw: None,
            patience: Patience::default(),
        };
        Ok((watch, left))
    }

    /// Once it runs: what is typed goes there.
    fn sit_down(&mut self) {
        let Some(worker) = self.worker.clone().filter(|_| self.seat != Seat::None) else { return };
        if self.seat == Seat::Terminal {
            // It was one a moment ago; one that is gone since needs no mode.
            self.raw = RawTerminal::enter().ok();
        }
        tokio::spawn(own::pass_on(self.daemon.clone(), worker, self.seat, self.leaves.clone()));
    }

    /// `None`: it was left running.
    fn finish(self, ended: Option<anyhow::Result<Worker>>) -> anyhow::Result<u8> {
        self.sink.finish();
        drop(self.raw);
        match ended {
            Some(ended) => exit_code(&ended?),
            None => {
                let worker = self.worker.unwrap_or_default();
                crate::exit::say(&anyhow::anyhow!("left it running; `holdfast attach {worker}` comes back"));
                Ok(0)
            }
        }
    }

    /// The output and the end of a worker that runs, by however many daemons.
    async fn until_it_ends(&mut self, id: &str) -> anyhow::Result<Worker> {
        loop {
            match self.next_reading(id).await {
                Err(CallError::Lost) => self.reconnect().await?,
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn until_its_end(&mut self, spec: WorkerSpec, remove: bool) -> anyhow::Result<Worker> {
        let (call, request) = (client::key()?, RunRequest { spec: Some(spec), attach: true });
        loop {
            match self.first_reading(client::keyed(request.clone(), call)).await {
                Err(CallError::Lost) if self.started => break,
                // By its key the daemon knows whether it made the worker.
                Err(CallError::Lost) => self.reconnect().await?,
                outcome => return Ok(outcome?),
            }
        }
        let id = present(self.worker.clone())?;
        loop {
            self.reconnect().await?;
            match self.next_reading(&id).await {
                Err(CallError::Lost) => {}
                outcome => {
                    let worker = outcome?;
                    if remove {
                        // The daemon does it for the watcher of `Run`; this one came later.
                        let request = RemoveRequest { worker: id, force: false };
                        let _ = self
                            .daemon
                            .change(ANSWER_MAX, request, |mut rpc, request| async move { rpc.remove(request).await })
                            .await;
                    }
                    return Ok(worker);
                }
            }
        }
    }

    /// From `Run` to the worker's end, or to the daemon's.
    async fn first_reading(&mut self, request: Request<RunRequest>) -> Result<Worker, CallError> {
        self.cursor.rewind();
        let launch_by = Instant::now() + LAUNCH_MAX;
        let call = tokio::time::timeout_at(launch_by, self.daemon.rpc.run(request)).await;
        let mut events = call.map_err(|_| CallError::Deadline(LAUNCH_MAX))??.into_inner();
        loop {
            let event = tokio::select! {
                event = events.message() => event?,
                number = self.signals.next() => {
                    self.pass_on(number).await;
                    continue;
                }
                () = tokio::time::sleep_until(launch_by), if !self.started => {
                    return Err(CallError::Deadline(LAUNCH_MAX));
                }
            };
            match event.and_then(|event| event.event) {
                Some(Event::Created(worker) | Event::Existing(worker)) => self.worker = Some(worker.id),
                Some(Event::Started(worker)) => {
                    self.worker = Some(worker.id);
                    self.started = true;
                    for number in std::mem::take(&mut self.early) {
                        self.pass_on(number).await;
                    }
                    self.sit_down();
                }
                Some(Event::Output(output)) => self.write(output).await,
                Some(Event::Exited(worker)) => return Ok(worker),
                None => return Err(CallError::Lost),
            }
        }
    }

    /// The rest of the output, and the end.
    async fn next_reading(&mut self, id: &str) -> Result<Worker, CallError> {
        let position = Some(self.cursor.go_on());
        let request = LogsRequest { worker: id.to_owned(), follow: true, position, ..Default::default() };
        let mut events = answer(ANSWER_MAX, self.daemon.rpc.logs(request)).await?;
        loop {
            tokio::select! {
                event = events.message() => match event? {
                    Some(event) => {
                        if let Some(output) = event.output {
                            self.write(output).await;
                        }
                    }
                    None => break,
                },
                number = self.signals.next() => self.pass_on(number).await,
            }
        }
        let reply = answer(ANSWER_MAX, self.daemon.rpc.wait(WaitRequest { worker: id.to_owned() })).await?;
        reply.worker.ok_or(CallError::Lost)
    }

    /// Waits for the daemon to come back; a signal ends the waiting, not the worker.
    async fn reconnect(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            again = self.daemon.again(&mut self.patience) => self.daemon = again?,
            number = self.signals.next() => {
                let worker = self.worker.as_deref().map_or_else(String::new, |id| format!("worker {id} goes on: "));
                let text = format!("{worker}no daemon was there to pass signal {number} on");
                let code = u8::try_from(number).unwrap_or(0) + SIGNAL_BASE;
                return Err(Stop { code, text }.into());
            }
        }
        Ok(())
    }

    async fn pass_on(&mut self, number: u32) {
        let Some(worker) = self.worker.clone().filter(|_| self.started) else {
            if !self.early.contains(&number) {
                self.early.push(number);
            }
            return;
        };
        if self.comes_back
            && [SignalKind::interrupt(), SignalKind::terminate()]
                .iter()
                .any(|kind| kind.as_raw_value().unsigned_abs() == number)
        {
            return self.stop(worker);
        }
        let request = KillRequest { worker, signal: number };
        // Where it has just ended, its end is on the way.
        let _ =
            self.daemon.change(ANSWER_MAX, request, |mut rpc, request| async move { rpc.kill(request).await }).await;
    }

    /// Whoever presses Ctrl-C means the end of it. Beside the output, which goes on until then.
    fn stop(&self, worker: String) {
        let (daemon, request) = (self.daemon.clone(), StopRequest { worker, ..Default::default() });
        tokio::spawn(async move {
            let stop = daemon.change(STOP_MAX, request, |mut rpc, request| async move { rpc.stop(request).await });
            drop(stop.await);
        });
    }

    async fn write(&mut self, output: Output) {
        let Some(mut piece) = self.cursor.advance(output) else { return };
        while let Err(back) = self.sink.offer(piece) {
            piece = back;
            tokio::select! {
                () = tokio::time::sleep(SLOW_PAUSE) => {}
                number = self.signals.next() => self.pass_on(number).await,
            }
        }
    }
}

/// The worker's own code, or 128+N. Where it never ran or nobody knows, the reason goes to stderr as Holdfast's failure.
fn exit_code(worker: &Worker) -> anyhow::Result<u8> {
    let exit = present(worker.exit.as_ref())?;
    if !exit.not_started.is_empty() {
        crate::exit::say(&anyhow::anyhow!("{}: {}", worker.name, exit.not_started));
    }
    match view::exit_code(exit) {
        _ if exit.shim_lost => {
            let text = format!("{}: its shim was killed, so nobody knows how it ended", worker.name);
            Err(Stop { code: FAILED, text }.into())
        }
        Some(code) => Ok(code),
        None => Ok(RUN_FAILED),
    }
}
