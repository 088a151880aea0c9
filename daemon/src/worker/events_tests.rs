use super::super::step::{Command, Event, Seen, step};
use super::super::{RestartPolicy, Timestamp};
use super::*;
use holdfast_proto::words::Generation;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(1);

fn worker(phase: Phase) -> Worker {
    let started_at = (phase != Phase::Starting && phase != Phase::Created).then_some(Timestamp(5));
    Worker { phase, generation: Generation(1), started_at, ..Worker::created(RestartPolicy::No) }
}

/// One life, step by step, and what is told of it.
fn told(mut worker: Worker, events: &[Event]) -> String {
    let mut kinds = Vec::new();
    for event in events {
        let before = worker.clone();
        worker = step(&worker, *event, Timestamp(9)).0;
        let end = match event {
            Event::Seen(_, Seen::Ended(end)) => Some(*end),
            _ => None,
        };
        kinds.extend(events_of(&before, &worker, end).into_iter().map(kind_name));
    }
    kinds.join(" ")
}

fn seen(generation: u64, seen: Seen) -> Event {
    Event::Seen(Generation(generation), seen)
}

#[test]
fn whole_lives_are_told_in_their_order() {
    let (start, executed) = (Event::Told(Command::Start), seen(1, Seen::Executed(Timestamp(7))));
    let ended = |generation, end| seen(generation, Seen::Ended(end));
    let new = || Worker { generation: Generation(0), ..worker(Phase::Created) };
    let stop = Event::Told(Command::Stop { grace: GRACE });
    let restart = Event::Told(Command::Restart { grace: GRACE });
    let again = seen(2, Seen::Executed(Timestamp(8)));
    for (events, expected) in [
        (&[start, executed, ended(1, End::Code(0))][..], "created started exited stopped"),
        (&[start, executed, ended(1, End::Code(3))], "created started exited failed"),
        (&[start, executed, executed, stop, ended(1, End::Signal(15))], "created started exited stopped"),
        (&[start, stop, executed, ended(1, End::Signal(15))], "created started exited stopped"),
        (&[start, executed, restart, ended(1, End::Signal(15)), again], "created started exited restarting started"),
        (&[start, ended(1, End::NotStarted(127))], "created failed"),
        (&[start, seen(1, Seen::Refused { transient: false })], "created failed"),
        (&[start, executed, ended(1, End::Lost), start, again], "created started exited failed started"),
        (
            &[
                start,
                executed,
                Event::Told(Command::Suspend),
                seen(1, Seen::Frozen),
                Event::Told(Command::Resume),
                seen(1, Seen::Thawed),
            ],
            "created started suspended resumed",
        ),
        (&[start, executed, Event::Told(Command::Suspend), seen(1, Seen::NotFrozen)], "created started"),
        (&[start, executed, seen(1, Seen::Frozen), seen(1, Seen::Thawed)], "created started suspended resumed"),
    ] {
        assert_eq!(told(new(), events), expected, "{events:?}");
    }
    let policy = Worker { policy: RestartPolicy::Always, ..new() };
    let events =
        [start, executed, ended(1, End::Code(1)), seen(1, Seen::BackoffOver), again, stop, ended(2, End::Code(0))];
    let expected = "created started exited restarting started exited stopped";
    assert_eq!(told(policy, &events), expected);
}

#[test]
fn nothing_is_told_where_nothing_changed_and_no_kind_twice() {
    for from in Phase::ALL {
        assert_eq!(events_of(&worker(from), &worker(from), None), [], "{from:?}");
        for to in Phase::ALL {
            for end in [None, Some(End::Code(0)), Some(End::Lost)] {
                let kinds = events_of(&worker(from), &worker(to), end);
                let mut once = kinds.clone();
                once.dedup();
                assert!(kinds.len() <= 4 && once == kinds, "{from:?} {to:?} {kinds:?}");
            }
        }
    }
}

fn event(kind: EventKind, time: i64) -> wire::Event {
    let labels = [("app".to_owned(), "shop".to_owned())].into();
    wire::Event { kind: kind.into(), time, name: "web".into(), labels, network: "bridge".into(), ..Default::default() }
}

#[test]
fn events_are_wanted_by_kind_time_and_what_their_worker_carries() {
    let admits = |filters: &[&str], since, until| {
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Wanted::parse(&filters, since, until).unwrap().admits(&event(EventKind::Failed, 100))
    };
    assert!(admits(&[], 0, 0) && admits(&["kind=failed", "kind=exited", "label=app", "name=w*"], 100, 101));
    for no in ["kind=exited", "label=nosuch", "name=db", "network=none", "external-id=x"] {
        assert!(!admits(&[no], 0, 0), "{no}");
    }
    assert!(!admits(&[], 101, 0) && !admits(&[], 0, 100));
    for bad in ["kind=nosuch", "kind=", "phase=failed", "color=red", "kind"] {
        let error = Wanted::parse(&[bad.to_owned()], 0, 0).unwrap_err().to_string();
        assert!(error.contains("kind"), "{error}");
    }
    assert!(Wanted::parse(&["kind=x".into()], 0, 0).unwrap_err().to_string().contains("restarting, suspended"));
}
