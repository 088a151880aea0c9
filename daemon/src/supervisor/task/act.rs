//! The heart of a worker's loop: decide, put on record, act.

use super::super::launch::{Launch, Launched};
use super::super::view::exit;
use super::super::{not_recorded, now, random};
use super::Task;
use crate::store::{Change, EndRow, EventRow, HistoryRow, WorkerRow};
use crate::worker::events::events_of;
use crate::worker::restart::BACKOFF_MAX;
use crate::worker::{Action, Event, Instead, Phase, Seen, Verb, instead, step};
use holdfast_launcher::control::Order;
use holdfast_proto::daemon::{self as wire, EventKind};
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::Generation;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for the helper to take published ports back before an end is announced; it goes on behind it.
const DETACH_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for a disk that takes them again; later ones are only in the daemon's log.
const UNRECORDED_MAX: usize = 64;
/// How long a killed worker may take to be gone: longer than its shim waits for the processes in it.
const DEATH_WITHIN: Duration = Duration::from_secs(15);
/// Why a worker starts or is down.
pub(super) const HOST_STARTED: &str = "the host has booted";
/// Wait before a start by policy is tried again that could not be put on record.
const RECORD_RETRY: Duration = Duration::from_secs(5);

impl Task {
    pub(super) async fn seen(&mut self, seen: Seen, why: &str) {
        let event = Event::Seen(self.row.worker.generation, seen);
        if let Err(problem) = self.apply(event, why).await {
            tracing::error!(worker = %self.row.id, %problem, "what was seen is not on record");
        }
    }

    pub(super) async fn apply(&mut self, event: Event, why: &str) -> Result<(), Problem> {
        self.commit_and_act(event, why, None).await
    }

    /// The heart: decide, put on record, act.
    pub(super) async fn commit_and_act(&mut self, event: Event, why: &str, end: Option<EndRow>) -> Result<(), Problem> {
        let before = self.row.clone();
        // An end that was found late is judged by its own time: a start that is overdue comes at once.
        let at = end.as_ref().map_or_else(now, |end| end.finished_at);
        let (worker, actions) = step(&self.row.worker, event, at);
        if let (true, Event::Told(command)) = (actions.contains(&Action::Refuse), event) {
            return Err(self.wrong_phase(command.verb()));
        }
        let launches = actions.contains(&Action::Launch);
        self.row.worker = worker;
        if launches {
            self.row.nonce = random()?;
            self.row.boot_id.clone_from(&self.shared.boot_id);
            self.row.addresses.clear();
            self.row.ports.clear();
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

    /// Why its phase does not allow `verb`, and what works instead.
    pub(super) fn wrong_phase(&self, verb: Verb) -> Problem {
        let (name, phase) = (&self.row.spec.name, self.row.worker.phase);
        let message = format!("worker {name} is {}, which does not allow {}", phase.name(), verb.name());
        let way = instead(verb, phase).unwrap_or(Instead::Wait);
        Problem::new(Reason::WrongPhase, message).hint(way.hint(name))
    }

    pub(super) async fn record(
        &mut self,
        before: &WorkerRow,
        end: Option<EndRow>,
        event: Event,
        why: &str,
    ) -> Result<(), Problem> {
        let worker = &self.row.worker;
        let mut changes = std::mem::take(&mut self.unrecorded);
        changes.extend(self.events_since(before, end.as_ref(), why));
        if *worker != before.worker || end.is_some() {
            changes.push(Change::Put(Box::new(self.row.clone())));
        }
        let note = |generation, phase, why: &str| {
            Change::Note(HistoryRow { worker: self.row.id, time: now(), generation, phase, why: why.to_owned() })
        };
        let goes_on = worker.generation != before.worker.generation;
        if let Some(end) = end {
            // One end a generation, also where the next one begins in the same step.
            let phase = if goes_on { Phase::Stopped } else { worker.phase };
            changes.push(note(end.generation, phase, why));
            changes.push(Change::End(Box::new(end)));
            if goes_on {
                let why = if matches!(event, Event::Booted(_)) { HOST_STARTED } else { "restart" };
                changes.push(note(worker.generation, worker.phase, why));
            }
        } else if goes_on || worker.phase != before.worker.phase {
            changes.push(note(worker.generation, worker.phase, why));
        }
        if changes.is_empty() {
            return Ok(());
        }
        // That it was executed the shim says again at any time: not worth a wait.
        if matches!(event, Event::Seen(_, Seen::Executed(_))) {
            return self.shared.store.note(changes).await.map_err(|error| not_recorded(&error));
        }
        let events = changes.iter().filter(|change| matches!(change, Change::Event(_)));
        let events: Vec<Change> = events.take(UNRECORDED_MAX).cloned().collect();
        let outcome = self.shared.store.commit(changes).await;
        if outcome.is_err() && matches!(event, Event::Seen(..) | Event::Booted(_)) {
            // What was seen has happened, on record or not: told with the next change that is.
            self.unrecorded = events;
        }
        outcome.map_err(|error| not_recorded(&error))
    }

    fn events_since(&self, before: &WorkerRow, end: Option<&EndRow>, why: &str) -> Vec<Change> {
        let kinds = events_of(&before.worker, &self.row.worker, end.map(|end| end.end));
        kinds.into_iter().map(|kind| self.event(kind, before.worker.generation, end, why)).collect()
    }

    /// An event of this worker, to be committed with what it tells.
    pub(super) fn event(&self, kind: EventKind, ended: Generation, end: Option<&EndRow>, why: &str) -> Change {
        let (row, exited) = (&self.row, kind == EventKind::Exited);
        Change::Event(Box::new(EventRow(wire::Event {
            time: now().0,
            kind: kind.into(),
            id: row.id.to_string(),
            name: row.spec.name.clone(),
            generation: if exited { ended.0 } else { row.worker.generation.0 },
            why: why.to_owned(),
            exit: end.filter(|_| exited).map(exit),
            network: row.spec.network.clone(),
            labels: row.spec.labels.clone(),
            external_id: row.spec.external_id.clone(),
        })))
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
            Event::Seen(..) | Event::Booted(_) if was_live => {
                self.row.worker.phase = Phase::Failed;
                self.answer_failed(&problem);
            }
            Event::Seen(..) | Event::Told(_) | Event::Booted(_) => {}
        }
        Err(problem)
    }

    pub(super) async fn perform(&mut self, action: Action, ended: Generation) {
        match action {
            Action::Launch => match Launch::prepare(&self.shared, &self.row, &self.spec) {
                Ok(launch) => self.launching = Some(Box::pin(launch.perform())),
                Err(problem) => {
                    let refused = Launched::Refused { problem, transient: false };
                    self.launching = Some(Box::pin(std::future::ready(refused)));
                }
            },
            Action::Ask => self.signal(self.spec.stop_signal),
            Action::Kill => self.signal(libc::SIGKILL as u8),
            Action::WaitGrace(grace) => self.timer = Some((Instant::now() + grace, Seen::GraceOver)),
            Action::WaitDeath => self.timer = Some((Instant::now() + DEATH_WITHIN, Seen::Undying)),
            Action::TellUndying => self.tell_undying(),
            Action::WaitBackoff => self.await_due(),
            Action::CancelWait => self.timer = None,
            Action::Freeze => {
                self.order(&Order::Freeze { generation: self.row.worker.generation.0 }, Seen::NotFrozen);
            }
            Action::Thaw => self.order(&Order::Thaw { generation: self.row.worker.generation.0 }, Seen::NotThawed),
            Action::Detach => self.detach(ended).await,
            Action::Refuse => {}
        }
    }

    fn tell_undying(&mut self) {
        let message = format!(
            "worker {} was killed {} s ago and is still there: a process of it waits in the kernel (for a disk, a \
             network file system, a device), or its shim was stopped from outside",
            self.row.spec.name,
            DEATH_WITHIN.as_secs()
        );
        let problem = Problem::new(Reason::Host, message)
            .hint("it goes as soon as that is over, and is watched until then; nothing else can end it");
        tracing::error!(worker = %self.row.id, %problem, "an undying worker");
        let waiting = self.stoppers.drain(..).chain(self.starters.drain(..)).chain(self.removers.drain(..));
        for answer in waiting {
            drop(answer.send(Err(problem.clone())));
        }
    }

    /// Waits for the start that is due; no longer than the longest back-off, whatever became of the clock.
    pub(super) fn await_due(&mut self) {
        let left = self.row.worker.due.unwrap_or_default().since(now()).min(BACKOFF_MAX);
        self.timer = Some((Instant::now() + left, Seen::BackoffOver));
    }

    pub(super) fn signal(&self, signal: u8) {
        // Without a process it is asked again when it is executed (`step`).
        if let Some(process) = &self.process
            && let Err(error) = process.signal(signal)
        {
            tracing::error!(worker = %self.row.id, signal, %error, "the worker could not be signalled");
        }
    }

    pub(super) async fn detach(&mut self, generation: Generation) {
        if !self.spec.network.has_address() {
            return;
        }
        let (helper, id) = (self.shared.helper.clone(), self.row.id);
        let done = tokio::spawn(async move { helper.detach_until_done(id, generation).await });
        if !self.spec.publish.is_empty() {
            drop(tokio::time::timeout(DETACH_WITHIN, done).await);
        }
    }
}
