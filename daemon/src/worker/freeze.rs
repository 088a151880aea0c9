//! Suspend and resume, as [`super::step`] decides them. Pure.

use super::step::{enter, unchanged};
use super::{Action, Phase, Worker};

pub fn suspend(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Running => enter(worker, Phase::Suspending, vec![Action::Freeze]),
        Phase::Suspending | Phase::Suspended => unchanged(worker),
        Phase::Created
        | Phase::Starting
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => (worker.clone(), vec![Action::Refuse]),
    }
}

pub fn resume(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Suspending | Phase::Suspended => enter(worker, Phase::Resuming, vec![Action::Thaw]),
        Phase::Running | Phase::Resuming => unchanged(worker),
        Phase::Created | Phase::Starting | Phase::Stopping | Phase::Stopped | Phase::Waiting | Phase::Failed => {
            (worker.clone(), vec![Action::Refuse])
        }
    }
}

/// The kernel's word counts: also where nobody asked, or an order was lost with the daemon that gave it.
pub fn frozen(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Suspending => enter(worker, Phase::Suspended, vec![Action::CancelWait]),
        // By hand, from outside.
        Phase::Running => enter(worker, Phase::Suspended, vec![]),
        // What is wanted by now is otherwise: said (again).
        Phase::Resuming | Phase::Stopping => (worker.clone(), vec![Action::Thaw]),
        Phase::Created | Phase::Starting | Phase::Suspended | Phase::Stopped | Phase::Waiting | Phase::Failed => {
            unchanged(worker)
        }
    }
}

/// As [`frozen`].
pub fn thawed(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Resuming => enter(worker, Phase::Running, vec![Action::CancelWait]),
        Phase::Suspended => enter(worker, Phase::Running, vec![]),
        Phase::Suspending => (worker.clone(), vec![Action::Freeze]),
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => unchanged(worker),
    }
}

/// An order that failed leaves the worker where it was before.
pub fn not_frozen(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        // Nothing half frozen stays, whatever became of the order.
        Phase::Suspending => enter(worker, Phase::Running, vec![Action::CancelWait, Action::Thaw]),
        // The order was overtaken by another one.
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => unchanged(worker),
    }
}

/// As [`not_frozen`].
pub fn not_thawed(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Resuming => enter(worker, Phase::Suspended, vec![Action::CancelWait]),
        // A stop thaws too, and goes on by its grace whatever came of it.
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => unchanged(worker),
    }
}
