//! Events by cursor, by the real holdfastd.

#![allow(missing_docs, clippy::unwrap_used)]

mod stage;

use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use stage::{Stage, named, run};
use std::time::Duration;
use tonic::transport::Channel;

async fn kept(client: &mut DaemonClient<Channel>, request: EventsRequest) -> Result<Vec<(u64, Event)>, Problem> {
    let problem = |status: tonic::Status| Problem::from_status(&status);
    let mut stream = client.events(request).await.map_err(problem)?.into_inner();
    let mut events = Vec::new();
    while let Some(reply) = stream.message().await.map_err(problem)? {
        events.extend(reply.event.map(|event| (reply.cursor, event)));
    }
    Ok(events)
}

fn told(events: &[(u64, Event)]) -> Vec<String> {
    let line = |event: &Event| {
        let kind = event.kind().as_str_name().trim_start_matches("EVENT_KIND_").to_lowercase();
        format!("{kind} {}", event.name)
    };
    events.iter().map(|(_, event)| line(event)).collect()
}

#[tokio::test]
async fn a_follower_that_resumes_by_its_cursor_misses_nothing_over_a_killed_daemon() {
    if stage::is_done_as_ordinary_user("a_follower_that_resumes_by_its_cursor_misses_nothing_over_a_killed_daemon") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let request = |cursor| EventsRequest { cursor, follow: true, ..Default::default() };
    let mut stream = client.events(request(None)).await.unwrap().into_inner();
    let mut cursor = stream.message().await.unwrap().unwrap().cursor;
    let mut seen = Vec::new();
    for round in 0..4 {
        run(&mut client, named(&format!("w{round}"), &["sh", "-c", "sleep 0.2; exit 3"]), false).await.unwrap();
        // As far as it gets.
        let read = async {
            while let Ok(Some(reply)) = stream.message().await {
                cursor = reply.cursor;
                seen.extend(reply.event.map(|event| (reply.cursor, event)));
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(100 * round), read).await);
        stage.kill_daemon();
        // Ends while nobody is there to hear it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.start_daemon();
        client = stage.client().await;
        stream = client.events(request(Some(cursor))).await.unwrap().into_inner();
    }
    let all = kept(&mut client, EventsRequest::default()).await.unwrap();
    let expected: Vec<String> = (0..4)
        .flat_map(|round| ["created", "started", "exited", "failed"].map(|kind| format!("{kind} w{round}")))
        .collect();
    assert_eq!(told(&all), expected);
    while seen.len() < all.len() {
        let reply = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap().unwrap();
        seen.extend(reply.event.map(|event| (reply.cursor, event)));
    }
    assert_eq!(seen, all);
    let exited = all.iter().find(|(_, event)| event.kind() == EventKind::Exited).unwrap();
    assert_eq!(exited.1.exit.as_ref().unwrap().how, Some(exit::How::Code(3)));
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(200), stream.message()).await {
        assert_eq!(more.unwrap().unwrap().event, None, "an event was told twice");
    }
}

#[tokio::test]
async fn events_are_narrowed_and_bad_cursors_are_refused_by_name() {
    if stage::is_done_as_ordinary_user("events_are_narrowed_and_bad_cursors_are_refused_by_name") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    run(&mut client, named("a", &["true"]), true).await.unwrap();
    run(&mut client, WorkerSpec { remove_on_exit: true, ..named("b", &["true"]) }, true).await.unwrap();
    let filtered = |filters: &[&str]| EventsRequest {
        filters: filters.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    };
    stage::until(async || told(&kept(&mut client, filtered(&["kind=removed"])).await.unwrap()) == ["removed b"]).await;
    let both = kept(&mut client, filtered(&["kind=exited", "kind=created", "name=a"])).await.unwrap();
    assert_eq!(told(&both), ["created a", "exited a"]);
    let all = kept(&mut client, EventsRequest::default()).await.unwrap();
    assert_eq!(told(&all).len(), 9, "{:?}", told(&all));
    let since = all[4].1.time;
    let late = kept(&mut client, EventsRequest { since, until: i64::MAX, ..Default::default() }).await.unwrap();
    assert_eq!(late, all[4..]);
    let early = kept(&mut client, EventsRequest { until: since, follow: true, cursor: Some(0), ..Default::default() });
    assert_eq!(early.await.unwrap(), all[..4]);
    let refused = kept(&mut client, filtered(&["kind=nosuch"])).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Invalid);
    let ahead = EventsRequest { cursor: Some(all[8].0 + 1), ..Default::default() };
    let refused = kept(&mut client, ahead).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::CursorGone);
    stage.stop_daemon();
    // What a long life does.
    let database = stage.layout.owner_state(&stage.owner).join("holdfast.db");
    rusqlite::Connection::open(database).unwrap().execute("DELETE FROM events WHERE cursor < 7", []).unwrap();
    stage.start_daemon();
    let mut client = stage.client().await;
    let old = EventsRequest { cursor: Some(2), follow: true, ..Default::default() };
    let refused = kept(&mut client, old).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::CursorGone);
    assert!(refused.to_string().contains("the oldest that is there is 7"), "{refused}");
    let next = kept(&mut client, EventsRequest { cursor: Some(6), ..Default::default() }).await.unwrap();
    assert_eq!(next[0].0, 7);
    assert_eq!(kept(&mut client, EventsRequest { cursor: Some(0), ..Default::default() }).await.unwrap(), next);
}
