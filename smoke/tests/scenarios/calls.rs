//! The worker's system calls: each row of the table is refused, and what runtimes need is there.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Result, User};

#[path = "../../../helper/launcher/build/calls.rs"]
#[allow(dead_code)]
mod table;

use table::{Answer, ROWS, Row, When};

/// Calls that must get past the filter; what the kernel then says is its affair.
const NEEDED: &[(&str, libc::c_long, &str)] = &[
    ("socket-unix", libc::SYS_socket, "1 1 0"),
    ("socket-inet", libc::SYS_socket, "2 1 0"),
    ("socket-inet6", libc::SYS_socket, "10 2 0"),
    ("socket-route", libc::SYS_socket, "16 3 0"),
    ("unshare-files", libc::SYS_unshare, "0x400"),
    ("prlimit-own", libc::SYS_prlimit64, "0 7 0 0"),
    ("personality-ask", libc::SYS_personality, "0xffffffff"),
    ("personality-debugger", libc::SYS_personality, "0x40000"),
    ("memory-executable", libc::SYS_mmap, "0 4096 7 0x22 0xffffffffffffffff 0"),
    ("memfd_create", libc::SYS_memfd_create, "0 0"),
    ("membarrier", libc::SYS_membarrier, "0 0 0"),
    ("futex", libc::SYS_futex, "0 1 1 0 0 0"),
    ("rseq", libc::SYS_rseq, "0 32 1 0"),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, "0 0 0"),
    ("sched_setscheduler", libc::SYS_sched_setscheduler, "0 3 0"),
    ("setpriority", libc::SYS_setpriority, "0 0 1"),
    ("mbind", libc::SYS_mbind, "0 0 0 0 0 0"),
    ("madvise", libc::SYS_madvise, "0 0 4"),
    ("process_vm_readv", libc::SYS_process_vm_readv, "0 0 0 0 0 0"),
    ("pidfd_open", libc::SYS_pidfd_open, "0 0"),
    ("eventfd2", libc::SYS_eventfd2, "0 0"),
    ("epoll_create1", libc::SYS_epoll_create1, "0"),
    ("inotify_init1", libc::SYS_inotify_init1, "0"),
    ("timerfd_create", libc::SYS_timerfd_create, "1 0"),
    ("signalfd4", libc::SYS_signalfd4, "0xffffffff 0 8 0"),
    ("seccomp-own", libc::SYS_seccomp, "2 0 0"),
    ("close_range", libc::SYS_close_range, "1000 1001 0"),
    ("copy_file_range", libc::SYS_copy_file_range, "0 0 0 0 0 0"),
    ("statx", libc::SYS_statx, "0 0 0 0 0"),
    ("openat2", libc::SYS_openat2, "0 0 0 0"),
    ("getrandom", libc::SYS_getrandom, "0 0 0"),
    ("ioctl-terminal", libc::SYS_ioctl, "0 0x5413 0"),
];

/// Arguments with which a row refuses, each set once.
fn refused_arguments(row: &Row) -> Vec<String> {
    let with = |place: u8, value: u32| {
        let mut arguments = vec!["0".to_owned(); 6];
        arguments[usize::from(place)] = format!("{value:#x}");
        arguments
    };
    let all = match row.when {
        When::Always => vec![with(0, 0)],
        When::AnyBit(place, bits) => {
            (0..32).map(|bit| 1 << bit).filter(|bit| bits & bit != 0).map(|bit| with(place, bit)).collect()
        }
        When::OneOf(place, values) => values.iter().map(|value| with(place, *value)).collect(),
        // Of socket's families and personality's flags, and of pids for prlimit64.
        When::NoneOf(place, values) => {
            let others = [3, 4, 17, 21, 29, 30, 38, 40, 41, 43, 44, 0x40_0000, 1];
            others.iter().filter(|value| !values.contains(value)).map(|value| with(place, *value)).collect()
        }
        When::OtherThanZero(place, value, other) => [4, 6, 9, 12, 15, 16, 20, 21]
            .iter()
            .map(|protocol| {
                let mut arguments = with(place, value);
                arguments[1] = "3".to_owned();
                arguments[usize::from(other)] = protocol.to_string();
                arguments
            })
            .collect(),
    };
    all.into_iter().map(|arguments| arguments.join(" ")).collect()
}

/// Makes these calls in a worker that was started with `options`; what each said.
fn calls_in_worker(alice: User<'_>, options: &str, lines: &str) -> Result<Vec<String>> {
    alice.feed("cat > calls.py", include_bytes!("probes/calls.py"))?.ok()?;
    alice.feed("cat > calls.txt", lines.as_bytes())?.ok()?;
    let volumes = "--volume ~/calls.py:/mnt/calls.py:ro --volume ~/calls.txt:/mnt/calls.txt:ro";
    let said = alice
        .holdfast(&format!(
            "run --rm --net none {options} {volumes} -- sh -c 'exec python3 /mnt/calls.py < /mnt/calls.txt'"
        ))?
        .ok()?;
    Ok(said.text().lines().map(str::to_owned).collect())
}

#[test]
fn t37_each_refused_call_is_refused_and_the_rest_of_the_kernel_is_there() -> Result {
    on_installed(|host| {
        let mut lines = String::new();
        let mut expected = Vec::new();
        for row in ROWS {
            for arguments in refused_arguments(row) {
                lines.push_str(&format!("{} {} {arguments}\n", row.name, row.number));
                expected.push((row.name, arguments, row.answer));
            }
        }
        for (name, number, arguments) in NEEDED {
            lines.push_str(&format!("{name} {number} {arguments}\n"));
        }
        let said = calls_in_worker(host.alice(), "", &lines)?;
        ensure!(said.len() == expected.len() + NEEDED.len(), "{} answers: {said:?}", said.len());
        for ((name, arguments, answer), line) in expected.iter().zip(&said) {
            let errno = if *answer == Answer::Enosys { "ENOSYS" } else { "EPERM" };
            ensure!(*line == format!("{name} {errno}"), "{name} {arguments}: {line:?} where {errno} was promised");
        }
        for line in &said[expected.len()..] {
            let (name, answer) = line.split_once(' ').context("name and answer")?;
            ensure!(
                !["EPERM", "EACCES", "ENOSYS"].contains(&answer),
                "{name} is needed by runtimes, and says {answer}"
            );
        }
        println!("{} calls refused by {} rows, {} needed ones answered", expected.len(), ROWS.len(), NEEDED.len());
        let nested = host.alice().holdfast("run --rm --net none -- unshare --user true")?;
        ensure!(nested.code != 0 && nested.stderr.contains("not permitted"), "{nested}");
        Ok(())
    })
}
