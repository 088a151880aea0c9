//! The one decision about a worker: given where it is and what happened, where it goes and what to do.
//!
//! The loop that calls it commits the new state before it performs an action, and feeds what came of the
//! action back as [`Seen`]. No wildcard arm: a new phase or event is a compile error until it is decided.

use super::restart::{self, Verdict};
use super::{End, Goal, Phase, Timestamp, Verb, Worker};
use super::{boot, freeze};
use holdfast_proto::words::Generation;
use std::time::Duration;

/// What the owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run it; refused where it is live.
    Start,
    /// Its stop signal, SIGKILL after the grace. Without effect where it is down.
    Stop {
        /// From the request, else the worker's own.
        grace: Duration,
    },
    /// As `Stop`, because the host goes down: no word of its owner's.
    PowerOff {
        /// Of the shutdown, for all workers alike.
        grace: Duration,
    },
    /// Stop where it is live, then start.
    Restart {
        /// As for `Stop`.
        grace: Duration,
    },
    /// Freeze it.
    Suspend,
    /// Thaw it.
    Resume,
}

impl Command {
    /// As it is typed.
    pub fn verb(self) -> Verb {
        match self {
            Self::Start => Verb::Start,
            Self::Stop { .. } | Self::PowerOff { .. } => Verb::Stop,
            Self::Restart { .. } => Verb::Restart,
            Self::Suspend => Verb::Suspend,
            Self::Resume => Verb::Resume,
        }
    }
}

/// What was seen of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The program has been executed, at this time.
    Executed(Timestamp),
    /// It ended, or was never executed: the record says so, or there is none and no shim.
    Ended(End),
    /// The launch was refused or undone; no shim is left of it.
    Refused {
        /// Asking again later may work (helper away), or not (rules).
        transient: bool,
    },
    /// It is frozen.
    Frozen,
    /// It could not be frozen.
    NotFrozen,
    /// It runs again.
    Thawed,
    /// It could not be thawed.
    NotThawed,
    /// The grace of a stop is over.
    GraceOver,
    /// It was killed, and is still there after as long as that may take.
    Undying,
    /// The wait before a start by policy is over.
    BackoffOver,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The owner asked.
    Told(Command),
    /// Something was seen, of this generation.
    Seen(Generation, Seen),
    /// The host has booted since the worker was last seen; how its generation ended, where one was live.
    Booted(Option<End>),
}

/// Something to do, after the new state is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Order the current generation from the helper.
    Launch,
    /// Send the worker's stop signal.
    Ask,
    /// Send SIGKILL.
    Kill,
    /// Wait for so long, then [`Seen::GraceOver`].
    WaitGrace(Duration),
    /// Wait for its end, then [`Seen::Undying`].
    WaitDeath,
    /// Tell those who wait for its end that the kernel does not let go of it.
    TellUndying,
    /// Wait until it is due ([`Worker::due`]), then [`Seen::BackoffOver`].
    WaitBackoff,
    /// Forget the wait.
    CancelWait,
    /// Freeze the worker's cgroup.
    Freeze,
    /// Thaw it.
    Thaw,
    /// Give the ended generation's ports and addresses back.
    Detach,
    /// Tell who asked that the phase does not allow it.
    Refuse,
}

/// Decides what happens next to one worker. Never waits, never reads a clock, never fails. `at`: when the event was.
pub fn step(worker: &Worker, event: Event, at: Timestamp) -> (Worker, Vec<Action>) {
    match event {
        Event::Told(Command::Start) => start(worker),
        Event::Told(Command::Stop { grace }) => stop(worker, grace, Goal::Down),
        Event::Told(Command::PowerOff { grace }) => power_off(worker, grace),
        Event::Booted(end) => boot::booted(worker, end),
        Event::Told(Command::Restart { grace }) => restart(worker, grace),
        Event::Told(Command::Suspend) => freeze::suspend(worker),
        Event::Told(Command::Resume) => freeze::resume(worker),
        // A late word about an earlier start.
        Event::Seen(generation, _) if generation != worker.generation => unchanged(worker),
        Event::Seen(_, Seen::Executed(since)) => executed(worker, since),
        Event::Seen(_, Seen::Ended(end)) => ended(worker, end, at),
        Event::Seen(_, Seen::Refused { transient }) => refused(worker, transient, at),
        Event::Seen(_, Seen::Frozen) => freeze::frozen(worker),
        Event::Seen(_, Seen::NotFrozen) => freeze::not_frozen(worker),
        Event::Seen(_, Seen::Thawed) => freeze::thawed(worker),
        Event::Seen(_, Seen::NotThawed) => freeze::not_thawed(worker),
        Event::Seen(_, Seen::GraceOver) => grace_over(worker),
        Event::Seen(_, Seen::Undying) => undying(worker),
        Event::Seen(_, Seen::BackoffOver) => backoff_over(worker),
    }
}

fn start(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Created | Phase::Stopped | Phase::Failed => launch(worker, vec![Action::Launch]),
        Phase::Waiting => launch(worker, vec![Action::CancelWait, Action::Launch]),
        Phase::Starting | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming | Phase::Stopping => {
            (worker.clone(), vec![Action::Refuse])
        }
    }
}

fn restart(worker: &Worker, grace: Duration) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Created | Phase::Stopped | Phase::Failed | Phase::Waiting => start(worker),
        Phase::Starting | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming | Phase::Stopping => {
            stop(worker, grace, Goal::Up)
        }
    }
}

/// What its owner wants stays: it is up again after the boot where its policy says so.
fn power_off(worker: &Worker, grace: Duration) -> (Worker, Vec<Action>) {
    match worker.phase {
        // Its owner stopped it, or it ended for good.
        Phase::Created | Phase::Stopped | Phase::Failed => unchanged(worker),
        Phase::Stopping if worker.goal == Goal::Down => stop(worker, grace, Goal::Down),
        Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Waiting => stop(worker, grace, Goal::UpAfterBoot),
    }
}

fn stop(worker: &Worker, grace: Duration, goal: Goal) -> (Worker, Vec<Action>) {
    let stopping = Worker { phase: Phase::Stopping, goal, grace, ..worker.clone() };
    match worker.phase {
        Phase::Created | Phase::Stopped | Phase::Failed => (Worker { goal, ..worker.clone() }, vec![]),
        Phase::Waiting => {
            (Worker { phase: Phase::Stopped, goal, due: None, ..worker.clone() }, vec![Action::CancelWait])
        }
        // Nobody to signal yet: asked when it is executed.
        Phase::Starting => (stopping, vec![]),
        Phase::Running => (stopping, vec![Action::Ask, Action::WaitGrace(grace)]),
        // A frozen worker does not hear its stop signal.
        Phase::Suspending | Phase::Suspended | Phase::Resuming => {
            (stopping, vec![Action::Thaw, Action::Ask, Action::WaitGrace(grace)])
        }
        Phase::Stopping if worker.started_at.is_none() => (stopping, vec![]),
        Phase::Stopping => (stopping, vec![Action::WaitGrace(grace)]),
    }
}

fn executed(worker: &Worker, at: Timestamp) -> (Worker, Vec<Action>) {
    let known = Worker { started_at: Some(at), ..worker.clone() };
    match worker.phase {
        Phase::Starting => enter(&known, Phase::Running, vec![]),
        // The stop came before there was somebody to ask, or its asker died: (again) now.
        Phase::Stopping => (known, vec![Action::Ask, Action::WaitGrace(worker.grace)]),
        // Heard again after a reconnect.
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => (known, vec![]),
        // It ended before; the end counts.
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => unchanged(worker),
    }
}

fn ended(worker: &Worker, end: End, at: Timestamp) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Stopping => match worker.goal {
            Goal::Up => launch(worker, vec![Action::CancelWait, Action::Detach, Action::Launch]),
            Goal::Down | Goal::UpAfterBoot => enter(worker, Phase::Stopped, vec![Action::CancelWait, Action::Detach]),
        },
        Phase::Starting | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => {
            let ran = worker.started_at.map_or(Duration::ZERO, |since| at.since(since));
            match restart::judge(worker.policy, end, worker.strikes, ran) {
                Verdict::Retry { delay, strikes } => (
                    wait(worker, strikes, at.after(delay)),
                    vec![Action::CancelWait, Action::Detach, Action::WaitBackoff],
                ),
                Verdict::GiveUp if end == End::Code(0) => {
                    enter(worker, Phase::Stopped, vec![Action::CancelWait, Action::Detach])
                }
                Verdict::GiveUp => enter(worker, Phase::Failed, vec![Action::CancelWait, Action::Detach]),
            }
        }
        // Exactly one end a generation.
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => unchanged(worker),
    }
}

fn refused(worker: &Worker, transient: bool, at: Timestamp) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Stopping => match worker.goal {
            Goal::Up => launch(worker, vec![Action::Launch]),
            Goal::Down | Goal::UpAfterBoot => enter(worker, Phase::Stopped, vec![]),
        },
        Phase::Starting if transient => {
            match restart::judge(worker.policy, End::Lost, worker.strikes, Duration::ZERO) {
                Verdict::Retry { delay, strikes } => {
                    (wait(worker, strikes, at.after(delay)), vec![Action::WaitBackoff])
                }
                Verdict::GiveUp => enter(worker, Phase::Failed, vec![]),
            }
        }
        Phase::Starting => enter(worker, Phase::Failed, vec![]),
        // It was executed, so it was not refused.
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => unchanged(worker),
        Phase::Created | Phase::Stopped | Phase::Waiting | Phase::Failed => unchanged(worker),
    }
}

fn grace_over(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Stopping => (worker.clone(), vec![Action::Kill, Action::WaitDeath]),
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => unchanged(worker),
    }
}

/// It stays `stopping`, since SIGKILL cannot be taken back, and is watched until it goes.
fn undying(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Stopping => (worker.clone(), vec![Action::Kill, Action::TellUndying]),
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopped
        | Phase::Waiting
        | Phase::Failed => unchanged(worker),
    }
}

fn backoff_over(worker: &Worker) -> (Worker, Vec<Action>) {
    match worker.phase {
        Phase::Waiting => {
            let (next, actions) = launch(worker, vec![Action::Launch]);
            let restarts = worker.restarts.saturating_add(1);
            (Worker { restarts, strikes: worker.strikes, ..next }, actions)
        }
        Phase::Created
        | Phase::Starting
        | Phase::Running
        | Phase::Suspending
        | Phase::Suspended
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Failed => unchanged(worker),
    }
}

fn wait(worker: &Worker, strikes: u32, due: Timestamp) -> Worker {
    Worker { phase: Phase::Waiting, strikes, due: Some(due), ..worker.clone() }
}

/// The next generation, wanted up, as by the owner's hand: with no strike against it and no restart counted.
pub(super) fn launch(worker: &Worker, actions: Vec<Action>) -> (Worker, Vec<Action>) {
    let next = Worker {
        phase: Phase::Starting,
        generation: worker.generation.next(),
        goal: Goal::Up,
        restarts: 0,
        strikes: 0,
        started_at: None,
        due: None,
        ..worker.clone()
    };
    (next, actions)
}

pub(super) fn enter(worker: &Worker, phase: Phase, actions: Vec<Action>) -> (Worker, Vec<Action>) {
    (Worker { phase, ..worker.clone() }, actions)
}

pub(super) fn unchanged(worker: &Worker) -> (Worker, Vec<Action>) {
    (worker.clone(), vec![])
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
