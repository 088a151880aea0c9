use super::*;

fn look(at_us: u64, cpu_us: u64, received: u64, generation: u64) -> Vec<WorkerStats> {
    let worker = Worker { id: "00112233445566aa".into(), name: "web".into(), generation, pid: 7, ..Worker::default() };
    let counters = Counters {
        at_us,
        cpu_us: Some(cpu_us),
        memory_bytes: Some(3 << 20),
        received_bytes: Some(received),
        sent_bytes: Some(0),
        ..Counters::default()
    };
    vec![WorkerStats { worker: Some(worker), counters: Some(counters) }]
}

#[test]
fn two_looks_tell_a_rate_and_one_does_not() {
    let mut looks = Looks::default();
    assert_eq!(looks.take(look(1_000_000, 500_000, 0, 1))[0].cpu_percent, None);
    let usage = &looks.take(look(3_000_000, 3_500_000, 4096, 1))[0];
    assert_eq!((usage.cpu_percent, usage.received_per_sec, usage.sent_per_sec), (Some(150.0), Some(2048.0), Some(0.0)));
}

#[test]
fn a_new_generation_and_counters_that_went_back_tell_nothing_wrong() {
    let mut looks = Looks::default();
    looks.take(look(1_000_000, 9_000_000, 9, 1));
    assert_eq!(looks.take(look(2_000_000, 10, 0, 2))[0].cpu_percent, None, "another generation");
    assert_eq!(looks.take(look(3_000_000, 5, 0, 2))[0].cpu_percent, Some(0.0), "went back");
    assert_eq!(looks.take(look(3_000_000, 50, 0, 2))[0].cpu_percent, None, "no time between");
    assert_eq!(looks.take(look(2_000_000, 50, 0, 2))[0].cpu_percent, None, "the clock of another boot");
}

#[test]
fn a_worker_that_was_not_counted_is_shown_without_figures() {
    let worker = Worker { name: "job".into(), phase: Phase::Stopped.into(), ..Worker::default() };
    let usage = Looks::default().take(vec![WorkerStats { worker: Some(worker), counters: None }]);
    let shown = row(&usage[0], Timestamp::UNIX_EPOCH);
    assert_eq!(shown, ["job", "stopped", "-", "-", "-", "-", "-", "0", "-"].map(str::to_owned));
}

#[test]
fn bytes_are_short_whatever_their_size() {
    for (count, told) in [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1536, "1.5K"),
        (1023 * 1024, "1.0M"),
        (12 << 20, "12.0M"),
        (5 << 30, "5.0G"),
        (u64::MAX, "16.0E"),
    ] {
        assert_eq!(bytes(count), told, "{count}");
    }
    for shift in 0..64 {
        for count in [1u64 << shift, (1u64 << shift) - 1, (1u64 << shift).saturating_mul(1000)] {
            assert!(bytes(count).len() <= 6, "{count}: {}", bytes(count));
        }
    }
}

#[test]
fn memory_that_is_added_up_says_so() {
    let counted = Counters { memory_bytes: Some(1 << 20), memory_by_cgroup: true, ..Counters::default() };
    assert_eq!(memory(&counted), "1.0M");
    assert_eq!(memory(&Counters { memory_by_cgroup: false, ..counted }), "~1.0M");
    assert_eq!(memory(&Counters::default()), "-");
}
