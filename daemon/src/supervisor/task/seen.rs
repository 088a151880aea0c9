//! What a worker's loop sees of it: the launch's outcome, the shim's words, the record.

use super::super::launch::Launched;
use super::super::{now, outcome};
use super::Task;
use super::act::HOST_STARTED;
use super::freeze::why_not;
use crate::shim::{self, Alive, Shim, Word};
use crate::store::EndRow;
use crate::worker::{End, Event, Phase, Seen, Timestamp};
use holdfast_launcher::record::{ExitRecord, Outcome};
use holdfast_proto::daemon as wire;
use holdfast_proto::helper::LaunchReply;
use holdfast_proto::problem::{Problem, Reason};

impl Task {
    pub(super) async fn launched(&mut self, launched: Launched) {
        match launched {
            Launched::Executed { shim, alive, reply } => {
                self.take(reply);
                self.executed(Some(shim), alive).await;
            }
            Launched::Ended { record, reply } => {
                self.take(reply);
                if let Some(problem) = outcome::problem_of(&record, &self.spec) {
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

    pub(super) async fn executed(&mut self, shim: Option<Shim>, alive: Alive) {
        if let Some(pid) = shim.as_ref().map(|shim| shim.pid).filter(|pid| *pid != 0) {
            self.row.shim_pid = pid;
        }
        self.shim = shim;
        self.process = Some(alive.process);
        self.row.shim_version = alive.version;
        self.seen(Seen::Executed(Timestamp(alive.started_at_ns)), "executed").await;
        self.answer_started();
        // Heard (again) after a daemon's absence: what it ordered may have been done, or lost.
        match (alive.frozen, self.row.worker.phase) {
            (true, _) => self.seen(Seen::Frozen, "it is frozen").await,
            (false, Phase::Suspending | Phase::Suspended | Phase::Resuming) => {
                self.seen(Seen::Thawed, "it is not frozen").await;
            }
            (false, _) => {}
        }
    }

    pub(super) async fn heard(&mut self, heard: Result<Word, shim::ShimError>) {
        match heard {
            Ok(Word::Preparing) => {}
            Ok(Word::Running(alive)) => {
                let shim = self.shim.take();
                self.executed(shim, alive).await;
            }
            Ok(Word::Frozen) => self.seen(Seen::Frozen, "it is frozen").await,
            Ok(Word::Thawed) => self.seen(Seen::Thawed, "it runs again").await,
            Ok(Word::NotFrozen(failure)) => self.not_changed(Seen::NotFrozen, &why_not(&failure)).await,
            Ok(Word::NotThawed(failure)) => self.not_changed(Seen::NotThawed, &why_not(&failure)).await,
            Ok(Word::Ended(record)) => self.heard_end(&record).await,
            Ok(Word::Gone) => self.hung_up().await,
            Err(error) => {
                tracing::error!(worker = %self.row.id, error = &error as &dyn std::error::Error, "the shim cannot be read");
                self.hung_up().await;
            }
        }
    }

    /// The connection ended without the last word: the record has it, or the shim can be asked again, or it is lost.
    pub(super) async fn hung_up(&mut self) {
        self.shim = None;
        let (generation, nonce) = (self.row.worker.generation.0, self.row.nonce);
        if let Some(record) = shim::read_record(&self.shared.state_dir(self.row.id), generation, nonce) {
            return self.heard_end(&record).await;
        }
        match Shim::connect(&self.shared.socket(self.row.id), nonce) {
            Ok(mut shim) => match tokio::time::timeout(shim::FIRST_WORD, shim.next(generation)).await {
                Ok(Ok(Word::Running(alive))) => self.executed(Some(shim), alive).await,
                Ok(Ok(Word::Ended(record))) => self.heard_end(&record).await,
                _ => self.lost_unless_recorded().await,
            },
            Err(_) => self.lost_unless_recorded().await,
        }
    }

    pub(super) async fn lost_unless_recorded(&mut self) {
        let (generation, nonce) = (self.row.worker.generation.0, self.row.nonce);
        match shim::read_record(&self.shared.state_dir(self.row.id), generation, nonce) {
            Some(record) => self.heard_end(&record).await,
            None => self.lost("its shim vanished without a record").await,
        }
    }

    pub(super) async fn heard_end(&mut self, record: &ExitRecord) {
        if let Some(problem) = outcome::problem_of(record, &self.spec) {
            return self.not_started(record, problem).await;
        }
        let (end, why) = end_of(record);
        if record.started_at_ns > 0 && self.row.worker.started_at.is_none() {
            // Nobody was there when it was executed: told now, before its end.
            self.seen(Seen::Executed(Timestamp(record.started_at_ns)), "executed").await;
        }
        self.ended(self.end_row(end, String::new(), Some(record)), &why).await;
    }

    /// The host has booted since it was last seen, with what its shim left.
    pub(super) async fn booted(&mut self, record: Option<Box<ExitRecord>>) {
        let end = self.row.worker.phase.is_live().then(|| match record {
            Some(record) => self.end_row(end_of(&record).0, outcome::why(&record, &self.spec), Some(&record)),
            None => self.end_row(End::Lost, HOST_STARTED.to_owned(), None),
        });
        if let Some(end) = &end {
            self.row.finished_at = end.finished_at;
            self.end = Some(end.clone());
        }
        let event = Event::Booted(end.as_ref().map(|end| end.end));
        if let Err(problem) = self.commit_and_act(event, HOST_STARTED, end).await {
            tracing::error!(worker = %self.row.id, %problem, "what a boot changed is not on record");
        }
    }

    pub(super) async fn not_started(&mut self, record: &ExitRecord, problem: Problem) {
        let Outcome::NotStarted { code, .. } = record.outcome else { return };
        let why = outcome::why(record, &self.spec);
        self.ended(self.end_row(End::NotStarted(code), why.clone(), Some(record)), &why).await;
        self.answer_failed(&problem);
    }

    pub(super) async fn lost(&mut self, why: &str) {
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
            finished_at: record.map_or_else(now, outcome::ended_at),
            log_bytes: record.map_or(0, |record| record.log_bytes),
            log_dropped_bytes: record.map_or(0, |record| record.log_dropped_bytes),
        }
    }

    pub(super) async fn ended(&mut self, end: EndRow, why: &str) {
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
}

/// How it ended, and the same for a person.
fn end_of(record: &ExitRecord) -> (End, String) {
    match record.outcome {
        Outcome::Code(code) => (End::Code(code), format!("exit code {code}")),
        Outcome::Signal(signal) => (End::Signal(signal), format!("signal {signal}")),
        Outcome::NotStarted { code, .. } => (End::NotStarted(code), String::new()),
    }
}
