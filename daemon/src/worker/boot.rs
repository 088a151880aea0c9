//! What becomes of a worker when the host has booted, as [`super::step`] decides it. Pure.
//!
//! Nothing of an earlier boot lives. `always` starts again; so does `unless-stopped` where its owner had not stopped
//! it. Nobody is started who was being stopped.

use super::step::{enter, launch, unchanged};
use super::{Action, End, Goal, Phase, RestartPolicy, Worker};
use holdfast_proto::words::Generation;

/// `end`: how the generation ended that was live in the earlier boot.
pub fn booted(worker: &Worker, end: Option<End>) -> (Worker, Vec<Action>) {
    match worker.phase {
        // A first start that was never seen to be executed may be what took the host down.
        Phase::Starting if worker.generation == Generation(1) => enter(worker, Phase::Failed, vec![]),
        Phase::Starting | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => {
            if returns(worker.policy) { again(worker) } else { down(worker, end) }
        }
        Phase::Stopping => match worker.goal {
            Goal::Up | Goal::UpAfterBoot if returns(worker.policy) => again(worker),
            Goal::Up | Goal::UpAfterBoot | Goal::Down => enter(worker, Phase::Stopped, vec![]),
        },
        Phase::Waiting if returns(worker.policy) => again(worker),
        Phase::Waiting => (Worker { phase: Phase::Failed, due: None, ..worker.clone() }, vec![]),
        Phase::Stopped => match (worker.policy, worker.goal) {
            (RestartPolicy::Always, _) | (RestartPolicy::UnlessStopped, Goal::UpAfterBoot) => again(worker),
            (RestartPolicy::UnlessStopped, Goal::Up | Goal::Down)
            | (RestartPolicy::No | RestartPolicy::OnFailure(_), _) => unchanged(worker),
        },
        // It failed for good; another boot changes nothing about that.
        Phase::Created | Phase::Failed => unchanged(worker),
    }
}

fn returns(policy: RestartPolicy) -> bool {
    match policy {
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
    }
}

fn again(worker: &Worker) -> (Worker, Vec<Action>) {
    let (next, actions) = launch(worker, vec![Action::Launch]);
    (Worker { restarts: worker.restarts.saturating_add(1), ..next }, actions)
}

fn down(worker: &Worker, end: Option<End>) -> (Worker, Vec<Action>) {
    let phase = if end == Some(End::Code(0)) { Phase::Stopped } else { Phase::Failed };
    enter(worker, phase, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Event, Timestamp, step};

    /// What stands where it says `up` is started again; the rest is where it then is. The end was SIGKILL's or none.
    const TABLE: &str = "
phase       goal     no       on-failure unless-stopped always
created     down     created  created    created        created
starting    up       failed   failed     up             up
running     up       failed   failed     up             up
suspending  up       failed   failed     up             up
suspended   up       failed   failed     up             up
resuming    up       failed   failed     up             up
stopping    down     stopped  stopped    stopped        stopped
stopping    up       stopped  stopped    up             up
stopping    boot     stopped  stopped    up             up
stopped     down     stopped  stopped    stopped        up
stopped     up       stopped  stopped    stopped        up
stopped     boot     stopped  stopped    up             up
waiting     up       failed   failed     up             up
failed      up       failed   failed     failed         failed
";

    fn after_boot(phase: Phase, goal: Goal, policy: RestartPolicy, end: Option<End>) -> Worker {
        let created = Worker::created(policy);
        let due = (phase == Phase::Waiting).then_some(Timestamp(9));
        let worker = Worker { phase, goal, due, generation: Generation(3), restarts: 1, strikes: 5, ..created };
        let (after, actions) = step(&worker, Event::Booted(end), Timestamp(1));
        let starts = after.generation == Generation(4);
        assert_eq!(actions, if starts { vec![Action::Launch] } else { vec![] });
        assert!(
            !starts || (after.phase, after.goal, after.restarts, after.strikes) == (Phase::Starting, Goal::Up, 2, 0)
        );
        assert_eq!(after.due, None);
        after
    }

    #[test]
    fn every_phase_goal_and_policy_meets_a_boot_as_the_table_says() {
        let policies =
            [RestartPolicy::No, RestartPolicy::OnFailure(Some(5)), RestartPolicy::UnlessStopped, RestartPolicy::Always];
        for row in TABLE.trim().lines().skip(1) {
            let cells: Vec<_> = row.split_whitespace().collect();
            let phase = Phase::from_name(cells[0]).unwrap();
            let goal = match cells[1] {
                "up" => Goal::Up,
                "down" => Goal::Down,
                _ => Goal::UpAfterBoot,
            };
            for (policy, expected) in policies.into_iter().zip(&cells[2..]) {
                let after = after_boot(phase, goal, policy, Some(End::Signal(9)));
                let shown = if after.phase == Phase::Starting { "up" } else { after.phase.name() };
                assert_eq!(shown, *expected, "{row} with {policy}");
            }
        }
    }

    #[test]
    fn a_first_start_that_was_never_executed_stays_down() {
        let starting = Worker {
            phase: Phase::Starting,
            goal: Goal::Up,
            generation: Generation(1),
            ..Worker::created(RestartPolicy::Always)
        };
        let (after, actions) = step(&starting, Event::Booted(Some(End::Lost)), Timestamp(1));
        assert_eq!((after.phase, actions.len()), (Phase::Failed, 0));
    }

    #[test]
    fn what_ended_well_before_the_boot_is_stopped() {
        assert_eq!(after_boot(Phase::Running, Goal::Up, RestartPolicy::No, Some(End::Code(0))).phase, Phase::Stopped);
    }
}
