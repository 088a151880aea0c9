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
    assert_eq!(list(&mut client, false).await, std::slice::from_ref(&started));
    let refused = client.remove(RemoveRequest { worker: "web".into(), force: false }).await.unwrap_err();
    assert_eq!(problem(refused).reason(), Reason::WrongPhase);
    let refused = client.start(StartRequest { worker: "web".into() }).await.unwrap_err();
    assert_eq!(problem(refused).reason(), Reason::WrongPhase);
    let reference = started.id[..6].to_owned();
    let stopped = client
        .stop(StopRequest { worker: reference, timeout_secs: None, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let stopped = stopped.worker.unwrap();
    assert_eq!((signal_of(&stopped), stopped.phase(), stopped.pid), (Some(15), Phase::Stopped, 0));
    let again = client
        .stop(StopRequest { worker: "web".into(), timeout_secs: None, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
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
    // Where the daemon died before it had noted the execution, the new one first has earlier launches fenced off.
    until(async || {
        let lost = list(&mut client, true).await.into_iter().find(|worker| worker.name == "lost").unwrap();
        lost.exit.is_some_and(|exit| exit.shim_lost)
    })
    .await;
    let logs = client.logs(LogsRequest { worker: "ends".into(), follow: true, ..Default::default() }).await.unwrap();
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

#[tokio::test]
async fn a_restart_is_a_new_generation_and_a_kill_is_no_planned_stop() {
    if stage::is_done_as_ordinary_user("a_restart_is_a_new_generation_and_a_kill_is_no_planned_stop") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let first = run(&mut client, named("web", &["sleep", "1000"]), false).await.unwrap().started.unwrap();
    let restart = RestartRequest { worker: "web".into(), timeout_secs: None };
    let second = client.restart(restart.clone()).await.unwrap().into_inner().worker.unwrap();
    assert_eq!((second.generation, second.phase(), signal_of(&second)), (2, Phase::Running, Some(15)));
    assert_ne!(second.pid, first.pid);
    client.kill(KillRequest { worker: "web".into(), signal: 9 }).await.unwrap();
    let killed = client.wait(WaitRequest { worker: "web".into() }).await.unwrap().into_inner().worker.unwrap();
    assert_eq!((killed.phase(), signal_of(&killed)), (Phase::Failed, Some(9)));
    let refused = client.kill(KillRequest { worker: "web".into(), signal: 9 }).await.unwrap_err();
    assert_eq!(problem(refused).reason(), Reason::WrongPhase);
    let third = client.restart(restart).await.unwrap().into_inner().worker.unwrap();
    assert_eq!(third.generation, 3);
    let history = client.inspect(InspectRequest { worker: "web".into() }).await.unwrap().into_inner().history;
    let ends = |generation| {
        let of = history.iter().filter(|entry| entry.generation == generation);
        of.filter(|entry| matches!(entry.phase(), Phase::Stopped | Phase::Failed)).count()
    };
    assert_eq!((ends(1), ends(2), ends(3)), (1, 1, 0));
    client.remove(RemoveRequest { worker: "web".into(), force: true }).await.unwrap();
    assert_eq!(list(&mut client, true).await, []);
}

#[tokio::test]
async fn a_worker_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    if stage::is_done_as_ordinary_user("a_worker_that_ignores_its_stop_signal_is_killed_after_the_grace") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let deaf = WorkerSpec {
        stop_timeout_secs: Some(1),
        ..named("deaf", &["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"])
    };
    let id = run(&mut client, deaf, false).await.unwrap().started.unwrap().id;
    until(async || stage.log_dir(&id).join("0000000001").metadata().is_ok_and(|file| file.len() > 24)).await;
    let begun = Instant::now();
    let stop = StopRequest { worker: "deaf".into(), timeout_secs: None, ..Default::default() };
    let stopped = client.stop(stop).await.unwrap().into_inner().worker.unwrap();
    assert_eq!((stopped.phase(), signal_of(&stopped)), (Phase::Stopped, Some(9)));
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&begun.elapsed()));
}

#[tokio::test]
async fn names_addresses_and_ports_are_kept_current() {
    if stage::is_done_as_ordinary_user("names_addresses_and_ports_are_kept_current") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let publish = Publish { proto: "tcp".into(), host: 0, worker: 80, address: String::new() };
    let bridged = |name: &str| WorkerSpec { network: "bridge".into(), ..named(name, &["sleep", "1000"]) };
    let web = WorkerSpec { publish: vec![publish.clone()], ..bridged("web") };
    let web = run(&mut client, web, false).await.unwrap().started.unwrap();
    assert_eq!((web.addresses, web.ports), (vec!["10.88.0.2/22".into()], vec![Publish { host: 4242, ..publish }]));
    let unnamed = run(&mut client, bridged(""), false).await.unwrap().started.unwrap();
    let hosts = stage.layout.workers_run(&stage.owner).join("hosts.bridge");
    let expected = format!("10.88.0.2 web\n10.88.0.3 {}\n", unnamed.name);
    until(async || {
        let text = std::fs::read_to_string(&hosts).unwrap();
        expected.lines().all(|line| text.lines().any(|other| other == line))
    })
    .await;
    let stop = StopRequest { worker: "web".into(), timeout_secs: None, ..Default::default() };
    let stopped = client.stop(stop).await.unwrap().into_inner().worker.unwrap();
    assert_eq!(stopped.addresses, Vec::<String>::new());
    // Given back before the stop was announced, since a port was published.
    assert!(stage.world.attached.lock().unwrap().iter().all(|one| one.worker != stopped.id));
    until(async || !std::fs::read_to_string(&hosts).unwrap().contains("web")).await;
}

#[tokio::test]
async fn what_stayed_attached_while_no_daemon_was_there_is_given_back() {
    if stage::is_done_as_ordinary_user("what_stayed_attached_while_no_daemon_was_there_is_given_back") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let spec = WorkerSpec { network: "bridge".into(), ..named("brief", &["sleep", "0.3"]) };
    run(&mut client, spec, false).await.unwrap();
    assert_eq!(stage.world.attached.lock().unwrap().len(), 1);
    stage.kill_daemon();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.start_daemon();
    until(async || stage.world.attached.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_detached_run_with_rm_goes_after_its_end_and_a_watcher_sees_it_first() {
    if stage::is_done_as_ordinary_user("a_detached_run_with_rm_goes_after_its_end_and_a_watcher_sees_it_first") {
        return;
    }
    let stage = Stage::started().await;
    let mut client = stage.client().await;
    let brief =
        |name: &str| WorkerSpec { remove_on_exit: true, ..named(name, &["sh", "-c", "sleep 0.3; echo bye; exit 9"]) };
    run(&mut client, brief("one"), false).await.unwrap();
    let mut other = stage.client().await;
    let waiting = tokio::spawn(async move {
        let worker = other.wait(WaitRequest { worker: "one".into() }).await.unwrap().into_inner().worker.unwrap();
        code(&worker)
    });
    let logs = client.logs(LogsRequest { worker: "one".into(), follow: true, ..Default::default() }).await.unwrap();
    let mut logs = logs.into_inner();
    let mut text = Vec::new();
    while let Some(event) = logs.message().await.unwrap() {
        text.extend(event.output.unwrap().bytes);
    }
    assert_eq!((text.as_slice(), waiting.await.unwrap()), (&b"bye\n"[..], Some(9)));
    until(async || list(&mut client, true).await.is_empty()).await;
}
