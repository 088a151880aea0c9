use super::*;
use crate::worker::RestartPolicy;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000_000_000);
const AT: Timestamp = Timestamp(999_000_000_000);
const GRACE: Duration = Duration::from_secs(3);
const GENERATION: Generation = Generation(5);

fn worker(phase: Phase) -> Worker {
    let started = phase.is_live() && phase != Phase::Starting;
    Worker {
        phase,
        generation: GENERATION,
        goal: if phase == Phase::Stopping { Goal::Down } else { Goal::Up },
        policy: RestartPolicy::No,
        restarts: 0,
        strikes: 0,
        started_at: started.then_some(AT),
        grace: GRACE,
        due: (phase == Phase::Waiting).then_some(NOW),
    }
}

fn seen(seen: Seen) -> Event {
    Event::Seen(GENERATION, seen)
}

fn events() -> [Event; 18] {
    [
        Event::Told(Command::Start),
        Event::Told(Command::Stop { grace: GRACE }),
        Event::Told(Command::PowerOff { grace: GRACE }),
        Event::Told(Command::Restart { grace: GRACE }),
        Event::Told(Command::Suspend),
        Event::Told(Command::Resume),
        seen(Seen::Executed(AT)),
        seen(Seen::Ended(End::Code(0))),
        seen(Seen::Ended(End::Signal(15))),
        seen(Seen::Refused { transient: false }),
        seen(Seen::Refused { transient: true }),
        seen(Seen::Frozen),
        seen(Seen::NotFrozen),
        seen(Seen::Thawed),
        seen(Seen::NotThawed),
        seen(Seen::GraceOver),
        seen(Seen::Undying),
        seen(Seen::BackoffOver),
    ]
}

/// A letter an action, in their order; `!` is a refusal.
fn letters(actions: &[Action]) -> String {
    let letter = |action: &Action| match action {
        Action::Launch => 'L',
        Action::Ask => 'A',
        Action::Kill => 'K',
        Action::WaitGrace(_) => 'G',
        Action::WaitDeath => 'W',
        Action::TellUndying => 'U',
        Action::WaitBackoff => 'B',
        Action::CancelWait => 'c',
        Action::Freeze => 'F',
        Action::Thaw => 'T',
        Action::Detach => 'D',
        Action::Refuse => '!',
    };
    actions.iter().map(letter).collect()
}

fn cell(phase: Phase, event: Event) -> String {
    let (next, actions) = step(&worker(phase), event, NOW);
    let actions = letters(&actions);
    let goes = if next.phase == phase { String::new() } else { next.phase.name().to_owned() };
    let text = [goes, actions].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
    if text.is_empty() { ".".into() } else { text }
}

/// Every phase with every event, for a worker that its owner wants to run once (policy `no`).
const TABLE: &str = "
event        created    starting   running     suspending  suspended   resuming    stopping   stopped    waiting       failed
start        starting:L !          !           !           !           !           !          starting:L starting:cL   starting:L
stop         .          stopping   stopping:AG stopping:TAG stopping:TAG stopping:TAG G        .          stopped:c     .
power-off    .          stopping   stopping:AG stopping:TAG stopping:TAG stopping:TAG G        .          stopped:c     .
restart      starting:L stopping   stopping:AG stopping:TAG stopping:TAG stopping:TAG G        starting:L starting:cL   starting:L
suspend      !          !          suspending:F .          .           !           !          !          !             !
resume       !          !          .           resuming:T  resuming:T  .           !          !          !             !
executed     .          running    .           .           .           .           AG         .          .             .
ended-0      .          stopped:cD stopped:cD  stopped:cD  stopped:cD  stopped:cD  stopped:cD .          .             .
ended-15     .          failed:cD  failed:cD   failed:cD   failed:cD   failed:cD   stopped:cD .          .             .
refused      .          failed     .           .           .           .           stopped    .          .             .
away         .          failed     .           .           .           .           stopped    .          .             .
frozen       .          .          suspended   suspended:c .           T           T          .          .             .
not-frozen   .          .          .           running:cT  .           .           .          .          .             .
thawed       .          .          .           F           running     running:c   .          .          .             .
not-thawed   .          .          .           .           .           suspended:c .          .          .             .
grace-over   .          .          .           .           .           .           KW         .          .             .
undying      .          .          .           .           .           .           KU         .          .             .
backoff-over .          .          .           .           .           .           .          .          starting:L    .
";

#[test]
fn every_phase_meets_every_event_as_the_table_says() {
    let mut rows = TABLE.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names: Vec<_> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    assert_eq!(rows.next().unwrap()[1..], names);
    for (row, event) in rows.by_ref().zip(events()) {
        assert_eq!(row.len(), 1 + Phase::ALL.len());
        for (phase, expected) in Phase::ALL.into_iter().zip(&row[1..]) {
            assert_eq!(cell(phase, event), *expected, "{} in {}", row[0], phase.name());
        }
    }
    assert!(rows.next().is_none());
}

#[test]
fn a_late_word_of_an_earlier_start_changes_nothing() {
    for phase in Phase::ALL {
        for event in events() {
            let Event::Seen(_, what) = event else { continue };
            let before = worker(phase);
            let (after, actions) = step(&before, Event::Seen(Generation(4), what), NOW);
            assert_eq!((after, actions.len()), (before, 0), "{what:?} in {phase:?}");
        }
    }
}

#[test]
fn a_launch_is_always_the_next_generation_and_wanted() {
    for phase in Phase::ALL {
        for event in events() {
            let (after, actions) = step(&worker(phase), event, NOW);
            let launches = actions.contains(&Action::Launch);
            assert_eq!(after.generation, if launches { Generation(6) } else { GENERATION });
            if launches {
                assert_eq!((after.phase, after.goal, after.started_at), (Phase::Starting, Goal::Up, None));
            }
        }
    }
}

#[test]
fn a_restart_is_a_stop_that_comes_up_again() {
    let (stopping, actions) = step(&worker(Phase::Running), Event::Told(Command::Restart { grace: GRACE }), NOW);
    assert_eq!((stopping.phase, stopping.goal, letters(&actions).as_str()), (Phase::Stopping, Goal::Up, "AG"));
    let (next, actions) = step(&stopping, seen(Seen::Ended(End::Signal(15))), NOW);
    assert_eq!((next.phase, next.generation, letters(&actions).as_str()), (Phase::Starting, Generation(6), "cDL"));
    // A stop meanwhile wins over the start.
    let (stopping, _) = step(&stopping, Event::Told(Command::Stop { grace: GRACE }), NOW);
    let (next, actions) = step(&stopping, seen(Seen::Ended(End::Signal(15))), NOW);
    assert_eq!((next.phase, letters(&actions).as_str()), (Phase::Stopped, "cD"));
}

#[test]
fn a_power_off_is_no_word_of_the_owner_but_their_stop_stays_one() {
    let (off, _) = step(&worker(Phase::Running), Event::Told(Command::PowerOff { grace: GRACE }), NOW);
    assert_eq!((off.phase, off.goal), (Phase::Stopping, Goal::UpAfterBoot));
    let (down, _) = step(&off, seen(Seen::Ended(End::Signal(15))), NOW);
    assert_eq!((down.phase, down.goal), (Phase::Stopped, Goal::UpAfterBoot));
    // A stop by hand meanwhile or afterwards counts.
    for before in [off, down] {
        let (after, _) = step(&before, Event::Told(Command::Stop { grace: GRACE }), NOW);
        assert_eq!(after.goal, Goal::Down);
        let (after, _) = step(&after, Event::Told(Command::PowerOff { grace: GRACE }), NOW);
        assert_eq!(after.goal, Goal::Down);
    }
}

#[test]
fn a_stop_before_the_execution_asks_once_there_is_somebody() {
    let (stopping, actions) = step(&worker(Phase::Starting), Event::Told(Command::Stop { grace: GRACE }), NOW);
    assert_eq!((stopping.phase, actions.len()), (Phase::Stopping, 0));
    let (again, actions) = step(&stopping, Event::Told(Command::Stop { grace: Duration::ZERO }), NOW);
    assert_eq!((again.phase, actions.len()), (Phase::Stopping, 0));
    let (asked, actions) = step(&again, seen(Seen::Executed(AT)), NOW);
    assert_eq!(actions, [Action::Ask, Action::WaitGrace(Duration::ZERO)]);
    let (_, actions) = step(&asked, seen(Seen::GraceOver), NOW);
    assert_eq!(actions, [Action::Kill, Action::WaitDeath]);
}

#[test]
fn a_refused_launch_of_a_restart_is_tried_once_more_and_of_a_stop_is_over() {
    let restarting = Worker { goal: Goal::Up, started_at: None, ..worker(Phase::Stopping) };
    let (next, actions) = step(&restarting, seen(Seen::Refused { transient: false }), NOW);
    assert_eq!((next.phase, letters(&actions).as_str()), (Phase::Starting, "L"));
    let (next, actions) = step(&next, Event::Seen(Generation(6), Seen::Refused { transient: false }), NOW);
    assert_eq!((next.phase, actions.len()), (Phase::Failed, 0));
}

#[test]
fn a_policy_waits_and_starts_again_but_never_after_a_planned_stop() {
    let always = Worker { policy: RestartPolicy::Always, ..worker(Phase::Running) };
    let (waiting, actions) = step(&always, seen(Seen::Ended(End::Signal(9))), NOW);
    assert_eq!(actions, [Action::CancelWait, Action::Detach, Action::WaitBackoff]);
    assert_eq!((waiting.phase, waiting.strikes, waiting.restarts), (Phase::Waiting, 1, 0));
    assert_eq!(waiting.due, Some(NOW.after(Duration::from_millis(100))));
    let (starting, actions) = step(&waiting, seen(Seen::BackoffOver), NOW);
    assert_eq!((letters(&actions).as_str(), starting.restarts, starting.strikes), ("L", 1, 1));
    assert_eq!(starting.due, None);
    let (stopping, _) = step(&always, Event::Told(Command::Stop { grace: GRACE }), NOW);
    let (stopped, _) = step(&stopping, seen(Seen::Ended(End::Signal(15))), NOW);
    assert_eq!(stopped.phase, Phase::Stopped);
    // An outside SIGTERM is no planned stop.
    let (waiting, _) = step(&always, seen(Seen::Ended(End::Signal(15))), NOW);
    assert_eq!(waiting.phase, Phase::Waiting);
    let (stopped, actions) = step(&waiting, Event::Told(Command::Stop { grace: GRACE }), NOW);
    assert_eq!((stopped.phase, letters(&actions).as_str()), (Phase::Stopped, "c"));
}

#[test]
fn a_helper_that_is_away_is_waited_for_where_the_policy_says() {
    let starting = Worker { policy: RestartPolicy::OnFailure(Some(3)), ..worker(Phase::Starting) };
    let (waiting, actions) = step(&starting, seen(Seen::Refused { transient: true }), NOW);
    assert_eq!((waiting.phase, letters(&actions).as_str()), (Phase::Waiting, "B"));
    let (failed, _) = step(&starting, seen(Seen::Refused { transient: false }), NOW);
    assert_eq!(failed.phase, Phase::Failed);
}

#[test]
fn a_start_by_hand_forgives_the_strikes() {
    let waiting = Worker { strikes: 7, restarts: 9, ..worker(Phase::Waiting) };
    let (starting, _) = step(&waiting, Event::Told(Command::Start), NOW);
    assert_eq!((starting.strikes, starting.restarts), (0, 0));
}

fn any_event() -> impl Strategy<Value = (usize, bool)> {
    (0..18usize, any::<bool>())
}

proptest! {
    /// Whatever comes in whatever order: one end a generation, no launch while one may be live, generations rise.
    #[test]
    fn no_order_of_events_breaks_the_invariants(
        order in prop::collection::vec(any_event(), 1..200),
        policy in prop_oneof![
            Just(RestartPolicy::No), Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure(Some(2)))
        ],
    ) {
        let mut worker = Worker::created(policy);
        let mut ends = std::collections::HashSet::new();
        for (index, late) in order {
            let event = match events()[index] {
                Event::Seen(_, what) if late => Event::Seen(Generation(worker.generation.0.saturating_sub(1)), what),
                Event::Seen(_, what) => Event::Seen(worker.generation, what),
                told => told,
            };
            let before = worker.clone();
            let (after, actions) = step(&before, event, NOW);
            prop_assert!(after.generation >= before.generation);
            if actions.contains(&Action::Launch) {
                let over = matches!(event, Event::Seen(_, Seen::Ended(_) | Seen::Refused { .. }));
                prop_assert!(!before.phase.is_live() || over, "a second launch beside a live one");
            }
            if actions.contains(&Action::Detach) {
                prop_assert!(ends.insert(before.generation), "two ends of one generation");
            }
            if actions.contains(&Action::Refuse) {
                prop_assert_eq!(&after, &before);
                prop_assert_eq!(actions.len(), 1);
            }
            worker = after;
        }
    }
}
