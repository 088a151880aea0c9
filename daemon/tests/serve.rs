//! The real holdfastd, as an ordinary user, against a helper and shims that speak the real forms.

#![allow(missing_docs, clippy::unwrap_used)]

mod stage;

use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use stage::{Stage, code, list, named, run, signal_of, spec, until};
use std::time::{Duration, Instant};

fn problem(status: tonic::Status) -> Problem {
    Problem::from_status(&status)
}

#[tokio::test]
async fn a_run_shows_output_and_exit_code() {
    if stage::is_done_as_ordinary_user("a_run_shows_output_and_exit_code") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let ran = run(&mut client, named("hello", &["sh", "-c", "echo out; echo err >&2; exit 42"]), true).await.unwrap();
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let exited = ran.exited.unwrap();
    assert_eq!((code(&exited), exited.phase(), exited.generation), (Some(42), Phase::Failed, 1));
    assert_eq!(ran.created.unwrap().id, exited.id);
    assert!(ran.started.unwrap().started_at > 0);
    assert_eq!(list(&mut client, false).await, []);
    assert_eq!(list(&mut client, true).await[0].name, "hello");
}

#[tokio::test]
async fn a_worker_is_listed_stopped_and_removed() {
    if stage::is_done_as_ordinary_user("a_worker_is_listed_stopped_and_removed") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let ran = run(&mut client, named("web", &["sleep", "1000"]), false).await.unwrap();
    let started = ran.started.unwrap();
    assert!(started.pid > 0);
    assert!(std::path::Path::new(&format!("/proc/{}", started.pid)).exists());
    assert_eq!(list(&mut client, false).await, [started.clone()]);
    let refused = client.remove(RemoveRequest { worker: "web".into(), force: false }).await.unwrap_err();
    assert_eq!(problem(refused).reason(), Reason::WrongPhase);
    let refused = client.start(StartRequest { worker: "web".into() }).await.unwrap_err();
    assert_eq!(problem(refused).reason(), Reason::WrongPhase);
    let reference = started.id[..6].to_owned();
    let stopped = client.stop(StopRequest { worker: reference, timeout_secs: None }).await.unwrap().into_inner();
    let stopped = stopped.worker.unwrap();
    assert_eq!((signal_of(&stopped), stopped.phase(), stopped.pid), (Some(15), Phase::Stopped, 0));
    let again = client.stop(StopRequest { worker: "web".into(), timeout_secs: None }).await.unwrap().into_inner();
    assert_eq!(again.worker.unwrap(), stopped);
    client.remove(RemoveRequest { worker: "web".into(), force: false }).await.unwrap();
    assert_eq!(list(&mut client, true).await, []);
    assert!(!stage.log_dir(&started.id).exists());
    let gone = client.wait(WaitRequest { worker: "web".into() }).await.unwrap_err();
    assert_eq!(problem(gone).reason(), Reason::NoSuchWorker);
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_and_forgotten() {
    if stage::is_done_as_ordinary_user("what_cannot_be_started_is_refused_and_forgotten") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let missing = run(&mut client, named("x", &["/nosuch"]), true).await.unwrap_err();
    assert_eq!((missing.reason(), missing.message.as_str()), (Reason::NotFound, "/nosuch: not found"));
    let directory = run(&mut client, named("x", &["/etc"]), true).await.unwrap_err();
    assert_eq!(directory.reason(), Reason::CannotExecute);
    *stage.world.refuse.lock().unwrap() = Some(Problem::new(Reason::PortInUse, "port 80 is taken").hint("another"));
    let taken = run(&mut client, named("x", &["true"]), false).await.unwrap_err();
    assert_eq!(taken, Problem::new(Reason::PortInUse, "port 80 is taken").hint("another"));
    *stage.world.refuse.lock().unwrap() = None;
    let invalid = run(&mut client, named("-x", &["true"]), false).await.unwrap_err();
    assert_eq!(invalid.reason(), Reason::Invalid);
    assert_eq!(list(&mut client, true).await, []);
    run(&mut client, named("x", &["sleep", "100"]), false).await.unwrap();
    let twice = run(&mut client, named("x", &["true"]), false).await.unwrap_err();
    assert_eq!(twice.reason(), Reason::NameTaken);
}

#[tokio::test]
async fn a_killed_daemon_finds_its_workers_again() {
    if stage::is_done_as_ordinary_user("a_killed_daemon_finds_its_workers_again") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let lives = run(&mut client, named("lives", &["sleep", "1000"]), false).await.unwrap().started.unwrap();
    let ends = named("ends", &["sh", "-c", "echo before; sleep 0.3; echo after; exit 7"]);
    run(&mut client, ends, false).await.unwrap();
    run(&mut client, named("lost", &["sleep", "1000"]), false).await.unwrap();
    stage.kill_daemon();
    let lost = list_position(&stage, "lost");
    stage.world.shims.lock().unwrap()[lost].lose();
    tokio::time::sleep(Duration::from_millis(600)).await;
    stage.start_daemon();
    let mut client = stage.client().await;
    let all = list(&mut client, true).await;
    let by_name = |name: &str| all.iter().find(|worker| worker.name == name).unwrap().clone();
    assert_eq!(by_name("lives"), lives);
    assert_eq!(code(&by_name("ends")), Some(7));
    assert!(by_name("lost").exit.unwrap().shim_lost);
    let logs = client.logs(LogsRequest { worker: "ends".into(), follow: true, tail_lines: None }).await.unwrap();
    let mut logs = logs.into_inner();
    let mut text = Vec::new();
    while let Some(event) = logs.message().await.unwrap() {
        text.extend(event.output.unwrap().bytes);
    }
    assert_eq!(text, b"before\nafter\n");
    until(async || stage.world.fences.lock().unwrap().as_slice() == [1, 2]).await;
}

fn list_position(stage: &Stage, name: &str) -> usize {
    let orders = stage.world.orders.lock().unwrap();
    orders.iter().position(|orders| orders.hostname == name).unwrap()
}

#[tokio::test]
async fn true_with_rm_leaves_nothing_and_is_quick() {
    if stage::is_done_as_ordinary_user("true_with_rm_leaves_nothing_and_is_quick") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let wanted = WorkerSpec { remove_on_exit: true, ..spec(&["/bin/true"]) };
        let ran = run(&mut client, wanted, true).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(code(&ran.exited.unwrap()), Some(0));
    }
    until(async || list(&mut client, true).await.is_empty()).await;
    until(async || {
        let workers = stage.layout.owner_state(&stage.owner).join("workers");
        std::fs::read_dir(workers).unwrap().count() == 0
    })
    .await;
    times.sort();
    eprintln!("run --rm true through daemon and stage: median {:?}", times[times.len() / 2]);
}
