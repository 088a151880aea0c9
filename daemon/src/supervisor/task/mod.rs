//! The loop of one worker: what happens goes into `step`, the new state onto record, and only then the actions out.

mod act;
mod freeze;
mod seen;

use super::launch::{Launch, Launched};
use super::view::View;
use super::{Ask, LINGER, Shared, Watchers, not_recorded};
use crate::reconcile::Found;
use crate::shim::{self, Process, Shim, Word};
use crate::store::{CallRow, Change, EndRow, Outcome, WorkerRow};
use crate::worker::{Command, Event, Phase, Seen, Spec, Verb, instead};
use holdfast_proto::daemon::{self as wire, EventKind};
use holdfast_proto::key::Key;
use holdfast_proto::problem::{Problem, Reason};
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Why a worker was stopped that its owner did not stop.
const GOES_DOWN: &str = "the host goes down";

/// Where the outcome of an ask goes.
pub type Answer = oneshot::Sender<Result<wire::Worker, Problem>>;

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
    changers: freeze::Changers,
    /// Events of changes that the store did not take, and the call that asks for the first start: for the next commit.
    unrecorded: Vec<Change>,
    /// Of the call that made it.
    call: Option<Key>,
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
            changers: freeze::Changers::default(),
            unrecorded: Vec::new(),
            call: None,
        };
        (task, seen)
    }

    /// Starts a new worker; `creator` hears whether it is executed. `call`, which asked for it, goes on record with it.
    pub async fn begin(mut self, creator: Answer, call: Option<CallRow>) {
        if let Some(call) = call {
            self.call = Some(call.key);
            let worker = Some((self.row.id, self.row.worker.generation));
            self.unrecorded.push(Change::BeginCall(Box::new(CallRow { worker, ..call })));
        }
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

    /// Goes on with a worker of an earlier daemon; says when what was found shows in its view.
    pub async fn recover(mut self, found: Found, shows: oneshot::Sender<()>) {
        if self.row.worker.phase.is_live() || self.spec.remove_on_exit {
            self.linger = Some(Instant::now() + LINGER);
        }
        match found {
            Found::Resting => {
                if self.row.worker.phase == Phase::Waiting {
                    self.await_due();
                }
            }
            Found::Ended(record) => self.heard_end(&record).await,
            Found::Booted(record) => self.booted(record).await,
            Found::Lost { why } => self.lost(why).await,
            Found::Alive { shim, alive } => self.executed(Some(shim), alive).await,
            Found::Undecided => {
                let (shared, row, spec) = (self.shared.clone(), self.row.clone(), self.spec.clone());
                self.launching = Some(Box::pin(async move { Launch::find_out(shared, &row, &spec).await }));
            }
        }
        self.publish();
        // Nobody waits where the start has been given up.
        let _ = shows.send(());
        self.run().await;
    }

    async fn run(mut self) {
        loop {
            self.publish();
            self.settle();
            self.settle_changers();
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
                    self.time_over(seen).await;
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

    async fn time_over(&mut self, seen: Seen) {
        match seen {
            Seen::NotFrozen | Seen::NotThawed => self.not_changed(seen, "its shim did not answer in time").await,
            _ => self.seen(seen, "its time is over").await,
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
            Ask::PowerOff(grace, answer) => match self.apply(Event::Told(Command::PowerOff { grace }), GOES_DOWN).await
            {
                Ok(()) => self.stoppers.push(answer),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Ask::Restart(grace, answer) => match self.apply(Event::Told(Command::Restart { grace }), "restart").await {
                Ok(()) => self.starters.push(answer),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Ask::Suspend(answer) => self.change(Command::Suspend, Phase::Suspended, answer).await,
            Ask::Resume(answer) => self.change(Command::Resume, Phase::Running, answer).await,
            Ask::Kill(signal, answer) => drop(answer.send(self.kill(signal))),
            Ask::Remove { force, answer } => self.remove(force, answer).await,
        }
    }

    async fn remove(&mut self, force: bool, answer: Answer) {
        if instead(Verb::Remove, self.row.worker.phase).is_none() {
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
            let mut problem = self.wrong_phase(Verb::Remove);
            problem.hint.push_str(&format!(", or use `holdfast rm -f {}`", self.row.spec.name));
            drop(answer.send(Err(problem)));
        }
    }

    fn kill(&mut self, signal: u8) -> Result<wire::Worker, Problem> {
        let name = &self.row.spec.name;
        match &self.process {
            Some(process) if instead(Verb::Kill, self.row.worker.phase).is_none() => match process.signal(signal) {
                Ok(()) => Ok(self.shown().worker),
                Err(error) => {
                    Err(Problem::new(Reason::Internal, format!("worker {name} could not be signalled: {error}")))
                }
            },
            _ => Err(self.wrong_phase(Verb::Kill)),
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
        if view.network.has_address() && names {
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
        // Whose daemon leaves have watchers on their way to the next one.
        let unwatched = unwatched && !self.shared.leaving.is_begun();
        (unwanted && !phase.is_live()) || (self.spec.remove_on_exit && ended && unwatched)
    }

    /// Forgets the worker, with its output; `false` where that could not be put on record, and it stays.
    async fn forget(&mut self) -> bool {
        let id = self.row.id;
        // First the files: on a full disk they make the room that forgetting takes.
        let files = vec![self.shared.state_dir(id), self.shared.socket(id)];
        let mut outcome = self.shared.store.remove_files(files).await;
        if outcome.is_ok() {
            let mut changes = std::mem::take(&mut self.unrecorded);
            changes.push(Change::Delete(id));
            changes.push(self.event(EventKind::Removed, self.row.worker.generation, None, ""));
            if let (Some(key), Some((_, problem))) = (self.call, &self.stillborn) {
                changes.push(Change::EndCall(key, Outcome::Refused(problem.encode_to_vec())));
            }
            outcome = self.shared.store.commit(changes).await;
        }
        if let Err(error) = &outcome {
            let problem = not_recorded(error);
            for answer in self.removers.drain(..) {
                drop(answer.send(Err(problem.clone())));
            }
            self.linger = Some(Instant::now() + LINGER);
        } else {
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
}

/// What an optional future gives; waits for ever where there is none.
async fn maybe<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
