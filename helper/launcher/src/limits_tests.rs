#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use super::*;

const BOOLS: [bool; 2] = [false, true];

/// Every combination of what is wanted and what is there.
#[test]
fn each_limit_is_enforced_or_refused_by_name_whatever_the_host() {
    for bits in 0u8..64 {
        let bit = |number: u8| bits & (1 << number) != 0;
        let there = Controllers { memory: bit(0), cpu: bit(1), pids: bit(2) };
        let limits = Limits {
            memory_bytes: bit(3).then_some(1 << 30),
            cpu_millis: bit(4).then_some(1500),
            tasks: 100,
            best_effort: bit(5),
        };
        let outcome = decide(&limits, there);
        let lacks_memory = bit(3) && !bit(0) && !bit(5);
        let lacks_cpu = bit(4) && !bit(1) && !bit(5);
        let Ok(enforced) = outcome else {
            let named = if lacks_memory { Limit::Memory } else { Limit::Cpu };
            assert!(lacks_memory || lacks_cpu, "{limits:?} {there:?}");
            assert_eq!(outcome, Err(named));
            continue;
        };
        assert!(!lacks_memory && !lacks_cpu, "{limits:?} {there:?}: a limit was dropped without a word");
        let expected =
            |wanted: bool, there: bool| wanted.then_some(if there { Enforcer::Cgroup } else { Enforcer::Nobody });
        assert_eq!((enforced.memory, enforced.cpu), (expected(bit(3), bit(0)), expected(bit(4), bit(1))));
        assert_eq!(
            enforced.tasks,
            Some(if bit(2) { Enforcer::Cgroup } else { Enforcer::Rlimit }),
            "always, by default"
        );
        let files: Vec<_> = settings(&limits, &enforced).into_iter().map(|setting| setting.file).collect();
        assert_eq!(files.contains(&"memory.max"), bit(3) && bit(0));
        assert_eq!(files.contains(&"cpu.max"), bit(4) && bit(1));
        assert_eq!(files.contains(&"pids.max"), bit(2));
    }
}

#[test]
fn files_get_what_the_kernel_reads() {
    let limits = Limits { memory_bytes: Some(512 << 20), cpu_millis: Some(1500), tasks: 64, best_effort: false };
    let all = Controllers { memory: true, cpu: true, pids: true };
    let written: Vec<_> = settings(&limits, &decide(&limits, all).unwrap())
        .into_iter()
        .map(|setting| (setting.file, setting.value, setting.may_be_missing))
        .collect();
    let expected = [
        ("memory.swap.max", "0", true),
        ("memory.oom.group", "1", true),
        ("memory.max", "536870912", false),
        ("cpu.max", "150000 100000", false),
        ("pids.max", "64", false),
    ];
    assert_eq!(written, expected.map(|(file, value, missing)| (file, value.to_owned(), missing)));
    let least = Limits { cpu_millis: Some(CPU_MILLIS_MIN), ..Limits::default() };
    let cpu = settings(&least, &decide(&least, all).unwrap()).remove(0);
    assert_eq!(cpu.value, "1000 100000", "the least quota that the kernel takes");
}

#[test]
fn controllers_are_read_by_their_whole_names() {
    assert_eq!(Controllers::parse("cpuset cpu io memory pids\n"), Controllers { memory: true, cpu: true, pids: true });
    assert_eq!(Controllers::parse("cpuset hugetlb\n"), Controllers::default());
    assert_eq!(Controllers::parse(""), Controllers::default());
}

#[test]
fn a_step_names_its_limit() {
    for limit in [Limit::Memory, Limit::Cpu] {
        assert_eq!(Limit::of_step(limit.step()), Some(limit));
    }
    assert_eq!(Limit::of_step("mount /proc"), None);
}

#[test]
fn limits_are_read_back_and_those_that_nothing_could_run_under_are_refused() {
    let through = |limits: Limits| {
        let mut w = Writer::new(1);
        limits.write(&mut w);
        let bytes = w.finish();
        Limits::read(&mut Reader::new(&bytes, 1).unwrap())
    };
    for best_effort in BOOLS {
        let limits = Limits { memory_bytes: Some(MEMORY_BYTES_MIN), cpu_millis: Some(10), tasks: 1, best_effort };
        assert_eq!(through(limits), Ok(limits));
    }
    assert_eq!(through(Limits::default()), Ok(Limits::default()));
    for limits in [
        Limits { memory_bytes: Some(1), ..Limits::default() },
        Limits { cpu_millis: Some(9), ..Limits::default() },
        Limits { cpu_millis: Some(CPU_MILLIS_MAX + 1), ..Limits::default() },
        Limits { tasks: 0, ..Limits::default() },
        Limits { tasks: TASKS_MAX + 1, ..Limits::default() },
    ] {
        assert_eq!(through(limits), Err(WireError::Value("limit")), "{limits:?}");
    }
}
