//! Suspend and resume in a worker's loop: the orders to its shim, and who waits for what comes of them.

use super::{Answer, Task};
use crate::worker::{Command, Event, Phase, Seen};
use holdfast_launcher::control::Order;
use holdfast_launcher::launch::Failure;
use holdfast_proto::problem::{Problem, Reason};
use nix::errno::Errno;
use std::time::Duration;
use tokio::time::Instant;

/// How long a shim may take to say what came of an order; its own deadline is shorter.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);

/// Who waits for a worker to be suspended or to run again.
#[derive(Debug, Default)]
pub struct Changers {
    waiting: Vec<(Phase, Answer)>,
    /// Why the last order came to nothing.
    problem: Option<Problem>,
}

impl Task {
    /// Freezes or thaws; answered when that is done, or why it is not.
    pub(super) async fn change(&mut self, command: Command, to: Phase, answer: Answer) {
        match self.apply(Event::Told(command), command.verb().name()).await {
            Ok(()) => self.changers.waiting.push((to, answer)),
            Err(problem) => drop(answer.send(Err(problem))),
        }
    }

    pub(super) fn order(&mut self, order: &Order, failed: Seen) {
        let wait = match self.shim.as_ref().map(|shim| shim.order(order)) {
            Some(Ok(())) => ANSWERS_WITHIN,
            Some(Err(error)) => {
                tracing::error!(worker = %self.row.id, error = &error as &dyn std::error::Error, "the shim takes no order");
                Duration::ZERO
            }
            None => Duration::ZERO,
        };
        // A stop that thaws waits for its grace instead.
        if matches!(self.row.worker.phase, Phase::Suspending | Phase::Resuming) {
            self.timer = Some((Instant::now() + wait, failed));
        }
    }

    pub(super) async fn not_changed(&mut self, seen: Seen, why: &str) {
        let name = &self.row.spec.name;
        let verb = if seen == Seen::NotFrozen { "suspended" } else { "resumed" };
        let problem = Problem::new(Reason::Host, format!("worker {name} could not be {verb}: {why}"))
            .hint("it is as it was; `holdfast stop` ends it in any case");
        self.changers.problem = Some(problem);
        self.seen(seen, why).await;
    }

    /// Answers those whose wait is over.
    pub(super) fn settle_changers(&mut self) {
        let phase = self.row.worker.phase;
        let on_its_way = match phase {
            Phase::Suspending => Some(Phase::Suspended),
            Phase::Resuming => Some(Phase::Running),
            Phase::Created
            | Phase::Starting
            | Phase::Running
            | Phase::Suspended
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Waiting
            | Phase::Failed => None,
        };
        let (staying, done): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changers.waiting).into_iter().partition(|(to, _)| Some(*to) == on_its_way);
        self.changers.waiting = staying;
        let overtaken = || {
            Problem::new(Reason::WrongPhase, format!("worker {} is {} by now", self.row.spec.name, phase.name()))
                .hint("another command came after this one")
        };
        let problem = self.changers.problem.clone();
        let worker = self.shown().worker;
        for (to, answer) in done {
            let outcome = if to == phase { Ok(worker.clone()) } else { Err(problem.clone().unwrap_or_else(overtaken)) };
            drop(answer.send(outcome));
        }
        if on_its_way.is_none() {
            self.changers.problem = None;
        }
    }
}

/// The shim's reason, for a person.
pub fn why_not(failure: &Failure) -> String {
    match failure.errno {
        libc::EOPNOTSUPP => "workers have no cgroup of their own here (a session outside systemd)".to_owned(),
        libc::ETIMEDOUT => "the kernel did not do it in time: a process of it waits for a disk or a device".to_owned(),
        errno => format!("{}: {}", failure.step, Errno::from_raw(errno).desc()),
    }
}
