//! Calls with a key are done once, and a daemon that leaves says where everything stands.

#![allow(missing_docs, clippy::unwrap_used)]

mod stage;

use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::daemon::*;
use holdfast_proto::key::KEY_HEADER;
use holdfast_proto::problem::{Problem, Reason};
use stage::{Stage, list, named, run, until};
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;

fn keyed<Q>(key: u8, request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(KEY_HEADER, format!("{key:032x}").parse().unwrap());
    request
}

fn reason(status: tonic::Status) -> Reason {
    Problem::from_status(&status).reason()
}

async fn run_keyed(client: &mut DaemonClient<Channel>, key: u8, spec: WorkerSpec) -> Result<Vec<Worker>, Reason> {
    let request = RunRequest { spec: Some(spec), attach: false };
    let mut events = client.run(keyed(key, request)).await.map_err(reason)?.into_inner();
    let mut told = Vec::new();
    while let Some(event) = events.message().await.map_err(reason)? {
        match event.event.unwrap() {
            run_event::Event::Created(worker) | run_event::Event::Started(worker) => told.push(worker),
            other => panic!("{other:?}"),
        }
    }
    Ok(told)
}

#[tokio::test]
async fn a_run_that_is_asked_for_again_is_the_same_worker() {
    if stage::is_done_as_ordinary_user("a_run_that_is_asked_for_again_is_the_same_worker") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let web = named("web", &["sleep", "1000"]);
    let first = run_keyed(&mut client, 1, web.clone()).await.unwrap();
    let again = run_keyed(&mut client, 1, web.clone()).await.unwrap();
    assert_eq!(first[1], again[1]);
    stage.kill_daemon();
    stage.start_daemon();
    let mut client = stage.client().await;
    let later = run_keyed(&mut client, 1, web.clone()).await.unwrap();
    assert_eq!((&later[1].id, later[1].pid, later[1].generation), (&first[1].id, first[1].pid, 1));
    assert_eq!(list(&mut client, true).await.len(), 1);
    // Another call with this key, and another key for this call.
    let other = named("other", &["true"]);
    assert_eq!(run_keyed(&mut client, 1, other).await, Err(Reason::Invalid));
    let stop = keyed(1, StopRequest { worker: "web".into(), ..Default::default() });
    assert_eq!(reason(client.stop(stop).await.unwrap_err()), Reason::Invalid);
    assert_eq!(run_keyed(&mut client, 2, web.clone()).await, Err(Reason::NameTaken));
    // Forgotten since: not run again.
    client.remove(keyed(3, RemoveRequest { worker: "web".into(), force: true })).await.unwrap();
    assert_eq!(run_keyed(&mut client, 1, web.clone()).await, Err(Reason::NoSuchWorker));
    let gone = client.remove(keyed(3, RemoveRequest { worker: "web".into(), force: true })).await.unwrap();
    assert_eq!(gone.into_inner().id, first[1].id);
    // What was refused stays so, and nothing is left of it.
    for _ in 0..2 {
        let spec = named("no", &["/no/such/program"]);
        assert_eq!(run_keyed(&mut client, 4, spec).await, Err(Reason::NotFound));
        stage.kill_daemon();
        stage.start_daemon();
        client = stage.client().await;
        assert_eq!(list(&mut client, true).await, []);
    }
    let mut bad = Request::new(StopRequest::default());
    bad.metadata_mut().insert(KEY_HEADER, "short".parse().unwrap());
    assert_eq!(reason(client.stop(bad).await.unwrap_err()), Reason::Invalid);
}

#[tokio::test]
async fn what_was_done_is_not_done_again_by_a_later_daemon() {
    if stage::is_done_as_ordinary_user("what_was_done_is_not_done_again_by_a_later_daemon") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let program = "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done";
    let ran = run(&mut client, named("w", &["sh", "-c", program]), false).await.unwrap();
    let id = ran.started.unwrap().id;
    let said = stage.log_dir(&id);
    let count = |word: &str| {
        let files = std::fs::read_dir(&said).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        let text = files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect::<String>();
        text.matches(word).count()
    };
    until(async || count("up") == 1).await;
    for _ in 0..3 {
        client.kill(keyed(1, KillRequest { worker: "w".into(), signal: 1 })).await.unwrap();
        let restarted = client.restart(keyed(2, RestartRequest { worker: "w".into(), timeout_secs: Some(0) })).await;
        assert_eq!(restarted.unwrap().into_inner().worker.unwrap().generation, 2);
        client
            .create_network(keyed(3, CreateNetworkRequest { name: "lan".into(), ..Default::default() }))
            .await
            .unwrap();
        stage.kill_daemon();
        stage.start_daemon();
        client = stage.client().await;
    }
    let worker = &list(&mut client, true).await[0];
    assert_eq!((worker.generation, worker.id.as_str()), (2, id.as_str()));
    assert!(count("hup") <= 1, "signalled {} times", count("hup"));
    for _ in 0..2 {
        client.remove_network(keyed(4, RemoveNetworkRequest { name: "lan".into() })).await.unwrap();
    }
}

#[tokio::test]
async fn a_daemon_that_leaves_says_so_to_all_and_the_next_one_goes_on() {
    if stage::is_done_as_ordinary_user("a_daemon_that_leaves_says_so_to_all_and_the_next_one_goes_on") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let program = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    run(&mut client, named("w", &["sh", "-c", program]), false).await.unwrap();
    let mut logs =
        client.logs(LogsRequest { worker: "w".into(), follow: true, ..Default::default() }).await.unwrap().into_inner();
    let first = logs.message().await.unwrap().unwrap().output.unwrap();
    assert_eq!(first.bytes, b"up\n");
    let filters = vec!["kind=stopped".to_owned()];
    let asked = EventsRequest { follow: true, filters, cursor: Some(0), ..Default::default() };
    let mut events = client.events(asked.clone()).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    let (mut waits, mut stops) = (client.clone(), client.clone());
    let waiting = tokio::spawn(async move { waits.wait(WaitRequest { worker: "w".into() }).await });
    let stop = || keyed(7, StopRequest { worker: "w".into(), timeout_secs: Some(6), ..Default::default() });
    let stopping = tokio::spawn(async move { stops.stop(stop()).await });
    until(async || list(&mut client, false).await[0].phase() == Phase::Stopping).await;
    assert!(stage.stop_daemon() < Duration::from_secs(4));
    assert_eq!(reason(waiting.await.unwrap().unwrap_err()), Reason::Leaving);
    assert_eq!(reason(stopping.await.unwrap().unwrap_err()), Reason::Leaving);
    assert_eq!(reason(logs.message().await.unwrap_err()), Reason::Leaving);
    // Where it stands, past what the filter left out; then that it goes on elsewhere.
    let stands = events.message().await.unwrap().unwrap();
    assert!(stands.event.is_none() && stands.cursor >= 2, "{stands:?}");
    assert_eq!(reason(events.message().await.unwrap_err()), Reason::Leaving);
    stage.start_daemon();
    let mut client = stage.client().await;
    let stopped = client.stop(stop()).await.unwrap().into_inner().worker.unwrap();
    assert_eq!((stopped.phase(), stage::signal_of(&stopped)), (Phase::Stopped, Some(9)));
    let mut events = client.events(EventsRequest { cursor: Some(stands.cursor), ..asked }).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    assert_eq!(told.kind(), EventKind::Stopped);
}
