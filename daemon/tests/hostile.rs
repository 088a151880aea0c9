//! The real holdfastd where things are not as they should be: foreign callers, two mains, no helper, no room.

#![allow(missing_docs, clippy::unwrap_used)]

mod stage;

use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use stage::{Stage, list, named, run, spec, until};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

const SOCKET: &str = "HOLDFAST_TEST_SOCKET";

async fn list_from_a_child(stage: &Stage, wrapper: &[&str]) {
    let status = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["the_child_is_refused", "--exact", "--nocapture"])
        .env(SOCKET, stage.layout.daemon_socket(&stage.owner))
        .status()
        .unwrap();
    assert!(status.success(), "{wrapper:?}");
}

/// Run by the test below, in another user namespace.
#[tokio::test]
async fn the_child_is_refused() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let mut client = DaemonClient::new(endpoint.connect().await.unwrap());
    let list = client.list(ListRequest { all: true, ..Default::default() }).await.unwrap_err();
    let stop =
        client.stop(StopRequest { worker: "x".into(), timeout_secs: None, ..Default::default() }).await.unwrap_err();
    let (list, stop) = (Problem::from_status(&list), Problem::from_status(&stop));
    assert_eq!(list.reason(), Reason::NotYours);
    assert_eq!(list, stop);
}

#[tokio::test]
async fn a_caller_in_another_user_namespace_is_refused_though_its_uid_is_the_owners() {
    if stage::is_done_as_ordinary_user("a_caller_in_another_user_namespace_is_refused_though_its_uid_is_the_owners") {
        return;
    }
    let stage = Stage::started().await;
    assert_eq!(list(&mut stage.client().await, true).await, []);
    list_from_a_child(&stage, &["unshare", "--user", "--map-root-user"]).await;
    list_from_a_child(&stage, &["unshare", "--user", "--map-current-user"]).await;
    list_from_a_child(&stage, &["unshare", "--user"]).await;
}

#[tokio::test]
async fn every_thread_is_locked_down() {
    if stage::is_done_as_ordinary_user("every_thread_is_locked_down") {
        return;
    }
    let stage = Stage::started().await;
    list(&mut stage.client().await, true).await;
    let tasks = format!("/proc/{}/task", stage.daemon_pid());
    let mut threads = 0;
    for task in std::fs::read_dir(tasks).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"] {
            assert!(status.contains(line), "{line} is not in\n{status}");
        }
        threads += 1;
    }
    assert_eq!(threads, 3);
    // Not dumpable: what is the process's own belongs to root now.
    assert!(std::fs::read_dir(format!("/proc/{}/fd", stage.daemon_pid())).is_err());
}

#[tokio::test]
async fn a_second_main_ends_the_first_and_takes_its_workers_up() {
    if stage::is_done_as_ordinary_user("a_second_main_ends_the_first_and_takes_its_workers_up") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let started = run(&mut client, named("lives", &["sleep", "1000"]), false).await.unwrap().started.unwrap();
    // It answers to nothing any more, not even SIGTERM.
    let first = stage.forget_daemon();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.id() as i32), nix::sys::signal::Signal::SIGSTOP).unwrap();
    stage.start_daemon();
    let mut first = first;
    until(async || first.try_wait().unwrap().is_some()).await;
    assert_eq!(list(&mut stage.client().await, true).await, [started]);
}

#[tokio::test]
async fn a_silent_connection_does_not_keep_the_daemon_from_ending() {
    if stage::is_done_as_ordinary_user("a_silent_connection_does_not_keep_the_daemon_from_ending") {
        return;
    }
    let mut stage = Stage::started().await;
    list(&mut stage.client().await, true).await;
    let _silent = UnixStream::connect(stage.layout.daemon_socket(&stage.owner)).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(stage.stop_daemon() < Duration::from_secs(3));
}

#[tokio::test]
async fn without_a_helper_workers_are_listed_stopped_and_read_but_not_started() {
    if stage::is_done_as_ordinary_user("without_a_helper_workers_are_listed_stopped_and_read_but_not_started") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    run(&mut client, named("lives", &["sh", "-c", "echo here; exec sleep 1000"]), false).await.unwrap();
    stage.kill_daemon();
    stage.stop_helper();
    stage.start_daemon();
    let mut client = stage.client().await;
    assert_eq!(list(&mut client, false).await.len(), 1);
    let logs = LogsRequest { worker: "lives".into(), follow: false, tail_lines: Some(1), ..Default::default() };
    let output = client.logs(logs).await.unwrap().into_inner().message().await.unwrap().unwrap().output.unwrap();
    assert_eq!(output.bytes, b"here\n");
    let refused = run(&mut client, spec(&["true"]), false).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Unavailable);
    let stop = StopRequest { worker: "lives".into(), timeout_secs: Some(1), ..Default::default() };
    assert_eq!(client.stop(stop).await.unwrap().into_inner().worker.unwrap().phase(), Phase::Stopped);
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.programs.iter().all(|program| !program.healthy && !program.why.is_empty()));
    assert_eq!(list(&mut client, true).await.len(), 1);
    // It comes back, and is fenced by itself.
    stage.start_helper().await;
    until(async || run(&mut client, spec(&["true"]), false).await.is_ok()).await;
}

#[tokio::test]
async fn a_limit_that_another_process_sets_is_put_back() {
    if stage::is_done_as_ordinary_user("a_limit_that_another_process_sets_is_put_back") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    // What takes connections is there before the daemon is: it must have started before it is hit.
    list(&mut client, true).await;
    let pid = stage.daemon_pid().to_string();
    for (round, limit) in ["--fsize=0:", "--fsize=1:", "--nofile=5:", "--nproc=0:"].into_iter().enumerate() {
        let status = Command::new("prlimit").args(["--pid", &pid, limit]).status();
        assert!(status.unwrap().success());
        // Over a new connection and into the store; what was lowered is as before.
        run(&mut stage.client().await, named(&format!("w{round}"), &["sleep", "1000"]), false).await.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let shown = limits.lines().find(|line| line.starts_with("Max file size")).unwrap();
        assert!(shown.contains("unlimited"), "{limit}: {shown}");
    }
    assert_eq!(list(&mut client, true).await.len(), 4);
}

#[test]
fn what_must_not_start_does_not_and_says_why() {
    if stage::is_done_as_ordinary_user("what_must_not_start_does_not_and_says_why") {
        return;
    }
    let me = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap().name;
    for (owner, expected) in [
        ("root", "the owner is root"),
        ("nobody", "but nobody is uid"),
        ("no-such-user-here", "there is no user"),
        (me.as_str(), "0 listening sockets were passed"),
        (".x", "bad owner name"),
    ] {
        let output = Command::new(stage::program()).args(["--owner", owner]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{owner}: {text}");
    }
}

#[tokio::test]
async fn a_thousand_workers_on_record_are_taken_up_and_listed_in_time() {
    if stage::is_done_as_ordinary_user("a_thousand_workers_on_record_are_taken_up_and_listed_in_time") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    run(&mut client, named("model", &["true"]), false).await.unwrap();
    client.wait(WaitRequest { worker: "model".into() }).await.unwrap();
    stage.stop_daemon();
    let database = stage.layout.owner_state(&stage.owner).join("holdfast.db");
    let connection = rusqlite::Connection::open(database).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO workers (id, name, spec, policy, phase, generation, goal, restarts, strikes, grace_ms, nonce,
                boot_id, created_at, started_at, finished_at, shim_pid, shim_version, addresses, ports)
             SELECT printf('%016x', i), 'w-' || i, CAST(replace(spec, CAST('model' AS BLOB),
                printf('%05d', i)) AS BLOB), policy, phase, generation, goal, restarts, strikes, grace_ms, nonce, boot_id,
                created_at, started_at, finished_at, shim_pid, shim_version, addresses, ports FROM workers, n;",
        )
        .unwrap();
    drop(connection);
    let begun = Instant::now();
    stage.start_daemon();
    let mut client = stage.client().await;
    assert_eq!(list(&mut client, true).await.len(), 1001);
    let taken_up = begun.elapsed();
    let mut times: Vec<_> = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        list(&mut client, true).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.daemon_pid())).unwrap();
    let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    eprintln!("1,000 on record: first list {taken_up:?} after the start, then {:?}; {rss}", times[5]);
    assert!(taken_up < Duration::from_secs(2) && times[5] < Duration::from_millis(100));
}
