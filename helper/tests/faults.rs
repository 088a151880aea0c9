//! Each call to the kernel that a launch makes fails once, from outside: the launch fails whole, and the next one works.
//! Needs root and strace; says SKIP otherwise.
#![allow(clippy::unwrap_used)] // A test says what went wrong by panicking.

mod stage;

use stage::*;
use std::process::{Command, Stdio};

#[test]
fn a_launch_that_fails_at_any_step_leaves_nothing() {
    let strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !strace {
        eprintln!("SKIP: needs strace");
    }
    if skip() || !strace {
        return;
    }
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    // Its link stays, so that the counts below are of links and rules alone.
    stage.owner(|mut c| async move { c.launch(launch_request(0, &[])).await.unwrap() });
    let mut failed = 0;
    for (call, times) in [
        ("sendto", 10),
        ("recvfrom", 14),
        ("sendmsg", 4),
        ("recvmsg", 4),
        ("memfd_create", 1),
        ("ioctl", 4),
        ("fcntl", 2),
        ("pwrite64", 1),
    ] {
        for when in 1..=times {
            let pid = stage.helper_pid();
            let mut tracer = Command::new("strace")
                .args([
                    "-f",
                    "-q",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &format!("inject={call}:error=ENOMEM:when={when}"),
                    "-p",
                    &pid.to_string(),
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            eventually("strace attached", || {
                std::fs::read_to_string(format!("/proc/{pid}/status"))
                    .unwrap()
                    .contains(&format!("TracerPid:\t{}", tracer.id()))
            });
            let since = std::time::Instant::now();
            let number = 1000 + failed;
            let launched = stage.try_owner(move |mut c| async move {
                c.launch(launch_request(number, &[("tcp", 8080, 80)])).await.is_ok()
            });
            println!("{call} {when}: launched {launched:?} after {:?}", since.elapsed());
            run(&format!("kill {}", tracer.id()));
            tracer.wait().unwrap();
            failed += u64::from(launched != Some(true));
            stage.workers.lock().unwrap().remove(&format!("{number:016x}"));
            assert!(stage.helper_lives(), "{call} {when} ended the helper");
            eventually(&format!("{call} {when}: rules gone"), || stage.ruleset().matches("worker=").count() == 1);
            eventually(&format!("{call} {when}: links gone"), || stage.our_links().len() == 1);
            stage.wait_for_launcher();
        }
    }
    println!("{failed} launches failed");
    assert!(failed > 10);
    stage.owner(|mut c| async move { c.launch(launch_request(7, &[("tcp", 8080, 80)])).await.unwrap() });
}
