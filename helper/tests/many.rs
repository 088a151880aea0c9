//! Launches one after the other and side by side: nothing adds up, and what they cost. Needs root; says SKIP otherwise.
#![allow(clippy::unwrap_used)] // A test says what went wrong by panicking.

mod stage;

use holdfast_proto::helper as wire;
use stage::*;
use std::time::{Duration, Instant};

fn proc_line(pid: u32, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

#[test]
fn launches_and_ends_leave_descriptors_links_and_rules_as_they_were() {
    if skip() {
        return;
    }
    let count: u64 = std::env::var("HOLDFAST_TEST_COUNT").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut stage = Stage::new();
    stage.start_helper();
    stage.start_launcher();
    let pid = stage.helper_pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let idle = proc_line(pid, "status", "VmRSS");
    stage.owner(|mut c| async move { c.launch(launch_request(0, &[])).await.unwrap() });
    let (before, ruleset) = (descriptors(), stage.ruleset().matches("worker=").count());
    assert_eq!(ruleset, 1);
    let mut spent = Vec::new();
    for worker in 1..=count {
        let took = stage.owner(move |mut c| async move {
            let since = Instant::now();
            let reply = c.launch(launch_request(worker, &[("tcp", 0, 80), ("udp", 0, 53)])).await.unwrap().into_inner();
            assert_eq!(reply.ports.len(), 2);
            since.elapsed()
        });
        spent.push(took);
        let detach = wire::DetachRequest { epoch: 1, worker: format!("{worker:016x}"), generation: 1 };
        if worker % 2 == 0 {
            // Half end as the daemon tells it, half as the kernel does.
            let removed = stage.owner(|mut c| async move { c.detach(detach).await.unwrap().into_inner().removed });
            assert!(removed);
        }
        stage.workers.lock().unwrap().remove(&format!("{worker:016x}"));
    }
    eventually("rules of ended workers gone", || stage.ruleset().matches("worker=").count() == 1);
    eventually("links of ended workers gone", || stage.our_links().len() == 1);
    eventually("descriptors as before", || descriptors() <= before);
    let attached = stage
        .owner(|mut c| async move { c.attached(wire::AttachedRequest {}).await.unwrap().into_inner().attachments });
    assert_eq!(attached.len(), 1);
    spent.sort();
    println!(
        "{count} launches: median {:?}, p90 {:?}, max {:?} (with a fake launcher that forks unshare); idle {idle}; now {}; {}",
        spent[spent.len() / 2],
        spent[spent.len() * 9 / 10],
        spent[spent.len() - 1],
        proc_line(pid, "status", "VmRSS"),
        proc_line(pid, "smaps_rollup", "Pss:"),
    );
    stage.workers.lock().unwrap().clear();
    let since = Instant::now();
    eventually("rules of the last worker gone", || stage.ruleset().matches("worker=").count() == 0);
    std::thread::sleep(Duration::from_secs(5));
    eventually("forwarding goes", || {
        stage.our_links().is_empty() && stage.in_host("cat /proc/sys/net/ipv4/conf/up0/forwarding").trim() == "0"
    });
    assert!(since.elapsed() > Duration::from_secs(5), "forwarding stays a while");
}

#[test]
fn it_tells_systemd_when_it_serves_feeds_the_watchdog_and_ends_when_told() {
    if skip() {
        return;
    }
    let mut stage = Stage::new();
    let path = stage.root.join("run/holdfast/notify");
    let notify = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    run(&format!("chmod 666 {}", path.display()));
    stage.environment =
        vec![("NOTIFY_SOCKET".into(), path.display().to_string()), ("WATCHDOG_USEC".into(), "600000".into())];
    stage.start_helper();
    stage.start_launcher();
    let mut said = String::new();
    while said.matches("WATCHDOG=1").count() < 3 {
        let mut buffer = [0; 4096];
        let length = notify.recv(&mut buffer).unwrap();
        said += std::str::from_utf8(&buffer[..length]).unwrap();
        said += "\n";
    }
    assert!(said.starts_with("READY=1"), "{said}");
    // A connection that never speaks must not keep it alive.
    let _silent = std::os::unix::net::UnixStream::connect(stage.root.join("run/holdfast/helper.sock")).unwrap();
    stage.owner(|mut c| async move { c.launch(launch_request(1, &[("tcp", 8080, 80)])).await.unwrap() });
    run(&format!("kill -HUP {pid}; sleep 0.2; kill -TERM {pid}", pid = stage.helper_pid()));
    assert!(stage.helper_ends().success());
    assert!(stage.ruleset().contains("8080"), "all kernel objects stay");
}
