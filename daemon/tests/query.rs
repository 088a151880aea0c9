//! Labels, filters, external ids and prune, by the real holdfastd.

#![allow(missing_docs, clippy::unwrap_used)]

mod stage;

use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use stage::{Stage, list, named, run, until};

fn labelled(name: &str, labels: &[(&str, &str)]) -> WorkerSpec {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    WorkerSpec { labels, ..named(name, &["sleep", "1000"]) }
}

#[tokio::test]
async fn workers_are_found_by_what_they_carry_and_pruned_by_it() {
    if stage::is_done_as_ordinary_user("workers_are_found_by_what_they_carry_and_pruned_by_it") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    run(&mut client, labelled("web", &[("app", "shop"), ("tier", "front")]), false).await.unwrap();
    run(&mut client, labelled("db", &[("app", "shop")]), false).await.unwrap();
    run(&mut client, named("job", &["sh", "-c", "echo 12345; exit 3"]), true).await.unwrap();
    run(&mut client, named("done", &["true"]), true).await.unwrap();
    let found = async |client: &mut daemon_client::DaemonClient<_>, all, filters: &[&str]| {
        let filters = filters.iter().map(|text| (*text).to_owned()).collect();
        let reply = client.list(ListRequest { all, filters }).await.map(|reply| reply.into_inner().workers);
        reply.map(|workers| workers.into_iter().map(|worker| worker.name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(found(&mut client, false, &["label=app=shop"]).await.unwrap(), "web db");
    assert_eq!(found(&mut client, false, &["label=app=shop", "label=tier"]).await.unwrap(), "web");
    assert_eq!(found(&mut client, false, &["phase=failed"]).await.unwrap(), "job");
    assert_eq!(found(&mut client, false, &["phase=failed", "phase=running", "name=*b"]).await.unwrap(), "web db job");
    let refused = Problem::from_status(&found(&mut client, false, &["color=red"]).await.unwrap_err());
    assert_eq!(refused.reason(), Reason::Invalid);

    stage.kill_daemon();
    stage.start_daemon();
    let mut client = stage.client().await;
    assert_eq!(found(&mut client, false, &["label=tier=front"]).await.unwrap(), "web");

    let prune = |filter: &str, dry_run| PruneRequest { filters: vec![filter.to_owned()], dry_run };
    let would = client.prune(prune("phase=failed", true)).await.unwrap().into_inner().pruned;
    assert_eq!((would.len(), would[0].name.as_str()), (1, "job"));
    assert!(would[0].bytes > 6, "{would:?}");
    assert_eq!(list(&mut client, true).await.len(), 4);
    let went = client.prune(prune("phase=failed", false)).await.unwrap().into_inner().pruned;
    assert_eq!(went, would);
    assert!(!stage.log_dir(&would[0].id).exists());
    let went = client.prune(PruneRequest::default()).await.unwrap().into_inner().pruned;
    assert_eq!(went.iter().map(|worker| worker.name.as_str()).collect::<Vec<_>>(), ["done"]);
    assert_eq!(list(&mut client, true).await.len(), 2);
}

#[tokio::test]
async fn a_run_that_is_repeated_by_its_external_id_is_there_once() {
    if stage::is_done_as_ordinary_user("a_run_that_is_repeated_by_its_external_id_is_there_once") {
        return;
    }
    let mut stage = Stage::started().await;
    let mut client = stage.client().await;
    let wanted = WorkerSpec { external_id: "job:17".into(), ..named("", &["sleep", "1000"]) };
    let first = run(&mut client, wanted.clone(), false).await.unwrap();
    let id = first.started.unwrap().id;
    assert_eq!(first.created.unwrap().external_id, "job:17");
    // Default and spelt-out default are the same worker.
    let same = WorkerSpec { stop_signal: 15, ..wanted.clone() };
    let again = run(&mut client, same.clone(), false).await.unwrap();
    assert_eq!((again.created, again.existing.unwrap().id), (None, id.clone()));
    stage.kill_daemon();
    stage.start_daemon();
    let mut client = stage.client().await;
    let after = run(&mut client, same, false).await.unwrap();
    assert_eq!((after.existing.unwrap().id, after.started.unwrap().id), (id.clone(), id.clone()));
    let other = WorkerSpec { command: vec![b"true".to_vec()], ..wanted.clone() };
    let refused = run(&mut client, other, false).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::NameTaken);
    assert!(refused.message.contains("job:17"), "{refused}");
    let inspected = client.inspect(InspectRequest { worker: id.clone() }).await.unwrap().into_inner();
    assert_eq!(inspected.spec.unwrap().external_id, "job:17");
    client.remove(RemoveRequest { worker: id.clone(), force: true }).await.unwrap();
    let fresh = run(&mut client, wanted, false).await.unwrap();
    assert_ne!(fresh.created.unwrap().id, id);
}

#[tokio::test]
async fn twenty_at_once_with_one_external_id_make_one_worker() {
    if stage::is_done_as_ordinary_user("twenty_at_once_with_one_external_id_make_one_worker") {
        return;
    }
    let stage = Stage::started().await;
    let wanted = WorkerSpec { external_id: "one".into(), ..named("", &["sleep", "1000"]) };
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut client, wanted) = (stage.client().await, wanted.clone());
        runs.spawn(async move { run(&mut client, wanted, false).await.unwrap() });
    }
    let runs = runs.join_all().await;
    assert_eq!(runs.iter().filter(|run| run.created.is_some()).count(), 1);
    assert!(runs.iter().all(|run| run.started.as_ref().is_some_and(|worker| worker.started_at > 0)));
    let mut client = stage.client().await;
    assert_eq!(list(&mut client, true).await.len(), 1);
    // Where the one start fails, who came second hears it and may ask again.
    *stage.world.refuse.lock().unwrap() = Some(Problem::new(Reason::PortInUse, "taken"));
    let failing = WorkerSpec { external_id: "two".into(), ..wanted };
    assert_eq!(run(&mut client, failing.clone(), false).await.unwrap_err().reason(), Reason::PortInUse);
    *stage.world.refuse.lock().unwrap() = None;
    until(async || run(&mut stage.client().await, failing.clone(), false).await.is_ok()).await;
}
