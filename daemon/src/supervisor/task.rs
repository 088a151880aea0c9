//! The loop of one worker: what happens goes into `step`, the new state onto record, and only then the actions out.

use super::launch::{self, Launch, Launched};
use super::view::View;
use super::{Ask, LINGER, Shared, Watchers, not_recorded, now, random};
use crate::reconcile::Found;
use crate::shim::{self, Process, Shim, Word};
use crate::store::{Change, EndRow, HistoryRow, WorkerRow};
use crate::worker::spec::Network;
use crate::worker::{Action, Command, End, Event, Phase, Seen, Spec, Timestamp, step};
use holdfast_launcher::record::{ExitRecord, Outcome};
use holdfast_proto::daemon as wire;
use holdfast_proto::helper::LaunchReply;
use holdfast_proto::problem::{Problem, Reason};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Where the outcome of an ask goes.
pub type Answer = oneshot::Sender<Result<wire::Worker, Problem>>;

/// Longest wait for the helper to take published ports back before an end is announced; it goes on behind it.
const DETACH_WITHIN: Duration = Duration::from_secs(2);
/// Wait before a start by policy is tried again that could not be put on record.
const RECORD_RETRY: Duration = Duration::from_secs(5);

/// The loop's ends of an [`super::Entry`].
#[derive(Debug)]
pub struct Ends {
    /// What is asked.
    pub asks: mpsc::Receiver<Ask>,
    /// Who watches.
    pub watchers: Arc<Watchers>,
}

type Launching = Pin<Box<dyn Future<Output = Launched> + Send>>;

/// One worker's loop.
pub struct Task {
    shared: Arc<Shared>,
    row: WorkerRow,
    spec: Spec,
    end: Option<EndRow>,
    ends: Ends,
    view: watch::Sender<View>,
    launching: Option<Launching>,
    shim: Option<Shim>,
    process: Option<Process>,
    timer: Option<(Instant, Seen)>,
    /// Until then, a worker with `remove_on_exit` waits for a watcher to come back.
    linger: Option<Instant>,
    /// Answered at the first start's outcome; while it is there, a failure forgets the worker.
    creator: Option<Answer>,
    /// The first start failed: what its creator hears when it is forgotten.
    stillborn: Option<(Answer, Problem)>,
    starters: Vec<Answer>,
    stoppers: Vec<Answer>,
    removers: Vec<Answer>,
}

/// Something for the loop.
enum Happening {
    Asked(Option<Ask>),
    Launched(Launched),
    Heard(Result<Word, shim::ShimError>),
    TimeOver(Seen),
    WatchersChanged,
}

impl Task {
    /// A loop that does not run yet, and the view of its worker.
    pub fn new(
        shared: Arc<Shared>,
        row: WorkerRow,
        spec: Spec,
        end: Option<EndRow>,
        ends: Ends,
    ) -> (Self, watch::Receiver<View>) {
        let (view, seen) = watch::channel(View::of(&row, &spec, end.as_ref(), 0, &shared.owner));
        let task = Self {
            shared,
            row,
            spec,
            end,
            ends,
            view,
            launching: None,
            shim: None,
            process: None,
            timer: None,
            linger: None,
            creator: None,
            stillborn: None,
            starters: Vec::new(),
            stoppers: Vec::new(),
            removers: Vec::new(),
        };
        (task, seen)
    }

    /// Starts a new worker; `creator` hears whether it is executed.
    pub async fn begin(mut self, creator: Answer) {
        match self.apply(Event::Told(Command::Start), "run").await {
            Ok(()) => {
                self.creator = Some(creator);
                self.run().await;
            }
            Err(problem) => {
                self.shared.forget(self.row.id, &self.row.spec.name);
                drop(creator.send(Err(problem)));
            }
        }
    }

    /// Goes on with a worker of an earlier daemon.
    pub async fn recover(mut self, found: Found) {
        if self.row.worker.phase.is_live() || self.spec.remove_on_exit {
            self.linger = Some(Instant::now() + LINGER);
        }
        match found {
            Found::Resting => {
                if self.row.worker.phase == Phase::Waiting {
                    self.timer = Some((Instant::now(), Seen::BackoffOver));
                }
            }
            Found::Ended(record) => self.heard_end(&record).await,
            Found::Lost { why } => self.lost(why).await,
            Found::Alive { shim, version, started_at_ns, process } => {
                self.executed(Some(shim), version, started_at_ns, process).await;
            }
            Found::Undecided => {
                let row = self.row.clone();
                let shared = self.shared.clone();
                self.launching = Some(Box::pin(async move { Launch::find_out(shared, &row).await }));
            }
        }
        self.run().await;
    }

    async fn run(mut self) {
        loop {
            self.publish();
            self.settle();
            if self.is_done() && self.forget().await {
                return;
            }
            match self.next().await {
                Happening::Asked(Some(ask)) => self.asked(ask).await,
                // The daemon ends; the worker stays.
                Happening::Asked(None) => return,
                Happening::Launched(launched) => {
                    self.launching = None;
                    self.launched(launched).await;
                }
                Happening::Heard(heard) => self.heard(heard).await,
                Happening::TimeOver(seen) => {
                    self.timer = None;
                    self.seen(seen, "its time is over").await;
                }
                Happening::WatchersChanged => {}
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let generation = self.row.worker.generation.0;
        let timer = self.timer.map(|(at, _)| at).into_iter().chain(self.linger).min();
        tokio::select! {
            biased;
            launched = maybe(self.launching.as_mut()) => Happening::Launched(launched),
            heard = maybe(self.shim.as_mut().map(|shim| Box::pin(shim.next(generation)))) => Happening::Heard(heard),
            ask = self.ends.asks.recv() => Happening::Asked(ask),
            () = maybe(timer.map(|at| Box::pin(tokio::time::sleep_until(at)))) => match self.timer {
                Some((at, seen)) if at <= Instant::now() => Happening::TimeOver(seen),
                _ => { self.linger = None; Happening::WatchersChanged }
            },
            () = self.ends.watchers.changed.notified() => Happening::WatchersChanged,
        }
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Start(answer) => match self.apply(Event::Told(Command::Start), "start").await {
                Ok(()) => self.starters.push(answer),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Ask::Stop(grace, answer) => match self.apply(Event::Told(Command::Stop { grace }), "stop").await {
                Ok(()) => self.stoppers.push(answer),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Ask::Restart(grace, answer) => match self.apply(Event::Told(Command::Restart { grace }), "restart").await {
                Ok(()) => self.starters.push(answer),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Ask::Kill(signal, answer) => drop(answer.send(self.kill(signal))),
            Ask::Remove { force, answer } => self.remove(force, answer).await,
        }
    }

    async fn remove(&mut self, force: bool, answer: Answer) {
        if !self.row.worker.phase.is_live() {
            self.removers.push(answer);
        } else if force {
            let stop = Event::Told(Command::Stop { grace: Duration::ZERO });
            match self.apply(stop, "removed by force").await {
                Ok(()) => {
                    self.removers.push(answer);
                    self.signal(libc::SIGKILL as u8);
                }
                Err(problem) => drop(answer.send(Err(problem))),
            }
        } else {
            let name = &self.row.spec.name;
            let message = format!("worker {name} is {}", self.row.worker.phase.name());
            let hint = format!("stop it first with `holdfast stop {name}`, or use `holdfast rm -f {name}`");
            drop(answer.send(Err(Problem::new(Reason::WrongPhase, message).hint(hint))));
        }
    }

    fn kill(&mut self, signal: u8) -> Result<wire::Worker, Problem> {
        let name = &self.row.spec.name;
        match &self.process {
            Some(process) if self.row.worker.phase.is_live() => match process.signal(signal) {
                Ok(()) => Ok(self.shown().worker),
                Err(error) => {
                    Err(Problem::new(Reason::Internal, format!("worker {name} could not be signalled: {error}")))
                }
            },
            _ => Err(Problem::new(Reason::WrongPhase, format!("worker {name} is {}", self.row.worker.phase.name()))
                .hint("only a worker that runs can be signalled")),
        }
    }

    async fn launched(&mut self, launched: Launched) {
        match launched {
            Launched::Executed { shim, version, started_at_ns, process, reply } => {
                self.take(reply);
                self.executed(Some(shim), version, started_at_ns, process).await;
            }
            Launched::Ended { record, reply } => {
                self.take(reply);
                if let Some(problem) = launch::problem_of(&record, &self.spec) {
                    return self.not_started(&record, problem).await;
                }
                // It ran and ended before we could look: both are told, in their order.
                self.seen(Seen::Executed(Timestamp(record.started_at_ns)), "executed").await;
                self.answer_started();
                self.heard_end(&record).await;
            }
            Launched::Lost => self.lost("its shim vanished without a record").await,
            Launched::Refused { problem, transient } => {
                let why = problem.message.clone();
                self.seen(Seen::Refused { transient }, &why).await;
                self.answer_failed(&problem);
            }
        }
    }

    fn take(&mut self, reply: Option<LaunchReply>) {
        let Some(reply) = reply else { return };
        self.row.shim_pid = reply.shim_pid;
        self.row.addresses = reply.addresses;
        let publish = |port: holdfast_proto::helper::Port| wire::Publish {
            proto: port.proto,
            host: port.host,
            worker: port.worker,
            address: port.address,
        };
        self.row.ports = reply.ports.into_iter().map(publish).collect();
    }

    async fn executed(&mut self, shim: Option<Shim>, version: String, started_at_ns: i64, process: Process) {
        if let Some(pid) = shim.as_ref().map(|shim| shim.pid).filter(|pid| *pid != 0) {
            self.row.shim_pid = pid;
        }
        self.shim = shim;
        self.process = Some(process);
        self.row.shim_version = version;
        self.seen(Seen::Executed(Timestamp(started_at_ns)), "executed").await;
        self.answer_started();
    }

    async fn heard(&mut self, heard: Result<Word, shim::ShimError>) {
        match heard {
            Ok(Word::Preparing) => {}
            Ok(Word::Running { version, started_at_ns, process }) => {
                let shim = self.shim.take();
                self.executed(shim, version, started_at_ns, process).await;
            }
            Ok(Word::Ended(record)) => self.heard_end(&record).await,
            Ok(Word::Gone) => self.hung_up().await,
            Err(error) => {
                tracing::error!(worker = %self.row.id, error = &error as &dyn std::error::Error, "the shim cannot be read");
                self.hung_up().await;
            }
        }
    }

    /// The connection ended without the last word: the record has it, or the shim can be asked again, or it is lost.
    async fn hung_up(&mut self) {
        self.shim = None;
        let (generation, nonce) = (self.row.worker.generation.0, self.row.nonce);
        if let Some(record) = shim::read_record(&self.shared.state_dir(self.row.id), generation, nonce) {
            return self.heard_end(&record).await;
        }
        match Shim::connect(&self.shared.socket(self.row.id), nonce) {
            Ok(mut shim) => match tokio::time::timeout(shim::FIRST_WORD, shim.next(generation)).await {
                Ok(Ok(Word::Running { version, started_at_ns, process })) => {
                    self.executed(Some(shim), version, started_at_ns, process).await;
                }
                Ok(Ok(Word::Ended(record))) => self.heard_end(&record).await,
                _ => self.lost_unless_recorded().await,
            },
            Err(_) => self.lost_unless_recorded().await,
        }
    }

    async fn lost_unless_recorded(&mut self) {
        let (generation, nonce) = (self.row.worker.generation.0, self.row.nonce);
        match shim::read_record(&self.shared.state_dir(self.row.id), generation, nonce) {
            Some(record) => self.heard_end(&record).await,
            None => self.lost("its shim vanished without a record").await,
        }
    }

    async fn heard_end(&mut self, record: &ExitRecord) {
        if let Some(problem) = launch::problem_of(record, &self.spec) {
            return self.not_started(record, problem).await;
        }
        let (end, why) = match record.outcome {
            Outcome::Code(code) => (End::Code(code), format!("exit code {code}")),
            Outcome::Signal(signal) => (End::Signal(signal), format!("signal {signal}")),
            Outcome::NotStarted { code, .. } => (End::NotStarted(code), String::new()),
        };
        if record.started_at_ns > 0 {
            self.row.worker.started_at = Some(Timestamp(record.started_at_ns));
        }
        self.ended(self.end_row(end, String::new(), Some(record)), &why).await;
    }

    async fn not_started(&mut self, record: &ExitRecord, problem: Problem) {
        let Outcome::NotStarted { code, .. } = record.outcome else { return };
        let why = launch::why(record, &self.spec);
        self.ended(self.end_row(End::NotStarted(code), why.clone(), Some(record)), &why).await;
        self.answer_failed(&problem);
    }

    async fn lost(&mut self, why: &str) {
        self.ended(self.end_row(End::Lost, why.to_owned(), None), why).await;
        self.answer_failed(&Problem::new(Reason::Internal, why).hint("see the launcher's log"));
    }

    fn end_row(&self, end: End, why: String, record: Option<&ExitRecord>) -> EndRow {
        EndRow {
            worker: self.row.id,
            generation: self.row.worker.generation,
            end,
            why,
            oom: record.is_some_and(|record| record.oom),
            finished_at: record.map_or_else(now, launch::ended_at),
            log_bytes: record.map_or(0, |record| record.log_bytes),
            log_dropped_bytes: record.map_or(0, |record| record.log_dropped_bytes),
        }
    }

    async fn ended(&mut self, end: EndRow, why: &str) {
        if !self.row.worker.phase.is_live() {
            return;
        }
        self.shim = None;
        self.process = None;
        self.row.finished_at = end.finished_at;
        self.end = Some(end.clone());
        let seen = Seen::Ended(end.end);
        self.commit_and_act(Event::Seen(self.row.worker.generation, seen), why, Some(end)).await.unwrap_or_else(
            |problem| tracing::error!(worker = %self.row.id, %problem, "an end is not on record; its file is"),
        );
    }

    async fn seen(&mut self, seen: Seen, why: &str) {
        let event = Event::Seen(self.row.worker.generation, seen);
        if let Err(problem) = self.apply(event, why).await {
            tracing::error!(worker = %self.row.id, %problem, "what was seen is not on record");
        }
    }

    async fn apply(&mut self, event: Event, why: &str) -> Result<(), Problem> {
        self.commit_and_act(event, why, None).await
    }

    /// The heart: decide, put on record, act.
    async fn commit_and_act(&mut self, event: Event, why: &str, end: Option<EndRow>) -> Result<(), Problem> {
        let before = self.row.clone();
        let (worker, actions) = step(&self.row.worker, event, now());
        if actions.contains(&Action::Refuse) {
            let message = format!("worker {} is {}", self.row.spec.name, self.row.worker.phase.name());
            return Err(Problem::new(Reason::WrongPhase, message).hint("`holdfast ps -a` shows where each worker is"));
        }
        let launches = actions.contains(&Action::Launch);
        self.row.worker = worker;
        if launches {
            self.row.nonce = random()?;
            self.row.boot_id.clone_from(&self.shared.boot_id);
        }
        if let Err(problem) = self.record(&before, end, event, why).await
            && launches
        {
            return self.not_launched(before, event, problem);
        }
        for action in actions {
            self.perform(action, before.worker.generation).await;
        }
        Ok(())
    }

    async fn record(
        &mut self,
        before: &WorkerRow,
        end: Option<EndRow>,
        event: Event,
        why: &str,
    ) -> Result<(), Problem> {
        let worker = &self.row.worker;
        let mut changes = Vec::with_capacity(3);
        if *worker != before.worker || end.is_some() {
            changes.push(Change::Put(Box::new(self.row.clone())));
        }
        changes.extend(end.map(|end| Change::End(Box::new(end))));
        if worker.phase != before.worker.phase || worker.generation != before.worker.generation {
            changes.push(Change::Note(HistoryRow {
                worker: self.row.id,
                time: now(),
                generation: worker.generation,
                phase: worker.phase,
                why: why.to_owned(),
            }));
        }
        if changes.is_empty() {
            return Ok(());
        }
        // That it was executed the shim says again at any time: not worth a wait.
        let outcome = match event {
            Event::Seen(_, Seen::Executed(_)) => self.shared.store.note(changes).await,
            Event::Seen(..) | Event::Told(_) => self.shared.store.commit(changes).await,
        };
        outcome.map_err(|error| not_recorded(&error))
    }

    /// A start that could not be put on record does not happen.
    fn not_launched(&mut self, before: WorkerRow, event: Event, problem: Problem) -> Result<(), Problem> {
        let was_live = before.worker.phase.is_live();
        self.row = before;
        match event {
            Event::Seen(_, Seen::BackoffOver) => {
                self.timer = Some((Instant::now() + RECORD_RETRY, Seen::BackoffOver));
            }
            // A restart whose first half is done: it is down, and who asked hears why.
            Event::Seen(..) if was_live => {
                self.row.worker.phase = Phase::Failed;
                self.answer_failed(&problem);
            }
            Event::Seen(..) | Event::Told(_) => {}
        }
        Err(problem)
    }

    async fn perform(&mut self, action: Action, ended: holdfast_proto::words::Generation) {
        match action {
            Action::Launch => {
                self.row.addresses.clear();
                self.row.ports.clear();
                match Launch::prepare(&self.shared, &self.row, &self.spec) {
                    Ok(launch) => self.launching = Some(Box::pin(launch.perform())),
                    Err(problem) => {
                        let refused = Launched::Refused { problem, transient: false };
                        self.launching = Some(Box::pin(std::future::ready(refused)));
                    }
                }
            }
            Action::Ask => self.signal(self.spec.stop_signal),
            Action::Kill => self.signal(libc::SIGKILL as u8),
            Action::WaitGrace(grace) => self.timer = Some((Instant::now() + grace, Seen::GraceOver)),
            Action::WaitBackoff(delay) => self.timer = Some((Instant::now() + delay, Seen::BackoffOver)),
            Action::CancelWait => self.timer = None,
            // No verb reaches these yet; the shim's control socket has no word for them.
            Action::Freeze | Action::Thaw => {}
            Action::Detach => self.detach(ended).await,
            Action::Refuse => {}
        }
    }

    fn signal(&self, signal: u8) {
        // Without a process it is asked again when it is executed (`step`).
        if let Some(process) = &self.process
            && let Err(error) = process.signal(signal)
        {
            tracing::error!(worker = %self.row.id, signal, %error, "the worker could not be signalled");
        }
    }

    async fn detach(&mut self, generation: holdfast_proto::words::Generation) {
        if self.spec.network == Network::None {
            return;
        }
        let (helper, id) = (self.shared.helper.clone(), self.row.id);
        let done = tokio::spawn(async move { helper.detach_until_done(id, generation).await });
        if !self.spec.publish.is_empty() {
            drop(tokio::time::timeout(DETACH_WITHIN, done).await);
        }
    }

    fn shown(&self) -> View {
        let pid = self.process.as_ref().map_or(0, |process| process.pid);
        View::of(&self.row, &self.spec, self.end.as_ref(), pid, &self.shared.owner)
    }

    fn publish(&mut self) {
        let view = self.shown();
        let before = self.view.send_replace(view.clone());
        let names = before.phase.is_live() != view.phase.is_live() || before.worker.addresses != view.worker.addresses;
        if view.network == Network::Bridge && names {
            self.shared.hosts_stale.notify_one();
        }
    }

    fn answer_started(&mut self) {
        self.publish();
        let worker = self.shown().worker;
        for answer in self.creator.take().into_iter().chain(self.starters.drain(..)) {
            drop(answer.send(Ok(worker.clone())));
        }
    }

    fn answer_failed(&mut self, problem: &Problem) {
        // A restart by policy or a pending one goes on; who waits for it goes on waiting.
        if self.row.worker.phase.is_live() {
            return;
        }
        for answer in self.starters.drain(..) {
            drop(answer.send(Err(problem.clone())));
        }
        // Answered only once nothing of it is left.
        self.stillborn = self.creator.take().map(|creator| (creator, problem.clone()));
    }

    /// Answers those who wait for it to be down.
    fn settle(&mut self) {
        if self.row.worker.phase.is_live() {
            return;
        }
        let worker = self.shown().worker;
        for answer in self.stoppers.drain(..) {
            drop(answer.send(Ok(worker.clone())));
        }
        if self.row.worker.phase != Phase::Waiting {
            let problem =
                Problem::new(Reason::WrongPhase, format!("worker {} was stopped meanwhile", self.row.spec.name));
            for answer in self.starters.drain(..) {
                drop(answer.send(Err(problem.clone())));
            }
        }
    }

    fn is_done(&self) -> bool {
        let phase = self.row.worker.phase;
        let unwanted = self.stillborn.is_some() || !self.removers.is_empty();
        let ended = matches!(phase, Phase::Stopped | Phase::Failed);
        let unwatched = self.ends.watchers.count.load(Ordering::Acquire) == 0 && self.linger.is_none();
        (unwanted && !phase.is_live()) || (self.spec.remove_on_exit && ended && unwatched)
    }

    /// Forgets the worker, with its output; `false` where that could not be put on record, and it stays.
    async fn forget(&mut self) -> bool {
        let id = self.row.id;
        let outcome = self.shared.store.commit(vec![Change::Delete(id)]).await;
        if let Err(error) = &outcome {
            let problem = not_recorded(error);
            for answer in self.removers.drain(..) {
                drop(answer.send(Err(problem.clone())));
            }
            self.linger = Some(Instant::now() + LINGER);
        } else {
            self.remove_files();
            self.shared.forget(id, &self.row.spec.name);
            let worker = self.shown().worker;
            for answer in self.removers.drain(..) {
                drop(answer.send(Ok(worker.clone())));
            }
        }
        if let Some((creator, problem)) = self.stillborn.take() {
            drop(creator.send(Err(problem)));
        }
        outcome.is_ok()
    }

    fn remove_files(&self) {
        let dir = self.shared.state_dir(self.row.id);
        for outcome in [std::fs::remove_dir_all(&dir), std::fs::remove_file(self.shared.socket(self.row.id))] {
            match outcome {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(worker = %self.row.id, %error, "a file of a removed worker stays");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// What an optional future gives; waits for ever where there is none.
async fn maybe<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
