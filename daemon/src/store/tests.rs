use super::*;
use crate::worker::{End, Goal, Phase, RestartPolicy, Timestamp, Worker};
use holdfast_proto::daemon as wire;
use holdfast_proto::words::Generation;
use std::time::Duration;

fn row(id: u64, name: &str) -> WorkerRow {
    let worker = Worker {
        phase: Phase::Running,
        generation: Generation(3),
        goal: Goal::Up,
        policy: RestartPolicy::OnFailure(Some(4)),
        restarts: 2,
        strikes: 1,
        started_at: Some(Timestamp(77)),
        grace: Duration::from_millis(1500),
        due: Some(Timestamp(88)),
    };
    WorkerRow {
        id: WorkerId::from_random(id),
        spec: wire::WorkerSpec { name: name.into(), command: vec![vec![0xff, 0x01]], ..Default::default() },
        worker,
        nonce: [7; 16],
        boot_id: "boot".into(),
        created_at: Timestamp(id as i64),
        finished_at: Timestamp(66),
        shim_pid: 12,
        shim_version: "1.2.3".into(),
        addresses: vec!["10.88.0.2/22".into(), "fd00::2/64".into()],
        ports: vec![wire::Publish { proto: "tcp".into(), host: 8080, worker: 80, address: String::new() }],
    }
}

fn ended(id: u64, generation: u64, end: End) -> EndRow {
    EndRow {
        worker: WorkerId::from_random(id),
        generation: Generation(generation),
        end,
        why: "because".into(),
        oom: true,
        finished_at: Timestamp(66),
        log_bytes: 10,
        log_dropped_bytes: 4,
    }
}

fn note(id: u64, why: &str) -> HistoryRow {
    HistoryRow {
        worker: WorkerId::from_random(id),
        time: Timestamp(5),
        generation: Generation(1),
        phase: Phase::Starting,
        why: why.into(),
    }
}

fn opened(path: &Path) -> Result<(Store, Opened), StoreError> {
    let store = start().unwrap();
    let opened = store.open(path, "boot", None)?;
    Ok((store, opened))
}

#[tokio::test]
async fn what_was_committed_is_there_again_under_the_next_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    let (store, first) = opened(&path).unwrap();
    assert_eq!((first.epoch, first.last_boot.as_str(), first.workers.len()), (Epoch(1), "", 0));
    let mut changes = vec![Change::Put(Box::new(row(1, "a"))), Change::Put(Box::new(row(2, "b")))];
    changes.push(Change::End(Box::new(ended(1, 1, End::Code(3)))));
    changes.push(Change::End(Box::new(ended(1, 2, End::NotStarted(127)))));
    changes.push(Change::Note(note(1, "run")));
    store.commit(changes).await.unwrap();
    // Told again, an end does not change.
    store.commit(vec![Change::End(Box::new(ended(1, 2, End::Lost)))]).await.unwrap();
    store.commit(vec![Change::Delete(WorkerId::from_random(2))]).await.unwrap();
    assert_eq!(store.history(WorkerId::from_random(1)).await.unwrap(), [note(1, "run")]);
    drop(store);
    let (_, second) = opened(&path).unwrap();
    assert_eq!((second.epoch, second.last_boot.as_str()), (Epoch(2), "boot"));
    assert_eq!(second.workers, [row(1, "a")]);
    assert_eq!(second.ends, [ended(1, 2, End::NotStarted(127))]);
}

#[tokio::test]
async fn a_worker_that_is_put_again_keeps_its_history_and_a_deleted_one_loses_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = opened(&dir.path().join("holdfast.db")).unwrap();
    let put = || Change::Put(Box::new(row(1, "a")));
    for turn in 0..150 {
        store.commit(vec![put(), Change::Note(note(1, &turn.to_string()))]).await.unwrap();
    }
    let history = store.history(WorkerId::from_random(1)).await.unwrap();
    assert_eq!((history.len(), history[0].why.as_str(), history[99].why.as_str()), (100, "50", "149"));
    store.commit(vec![Change::Delete(WorkerId::from_random(1)), put()]).await.unwrap();
    assert_eq!(store.history(WorkerId::from_random(1)).await.unwrap(), []);
}

#[tokio::test]
async fn a_commit_is_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    let (store, _) = opened(&path).unwrap();
    // The second one's name is taken.
    let both = vec![Change::Put(Box::new(row(1, "a"))), Change::Put(Box::new(row(2, "a")))];
    assert!(matches!(store.commit(both).await, Err(StoreError::Sqlite(_))));
    drop(store);
    assert_eq!(opened(&path).unwrap().1.workers, []);
}

#[test]
fn a_database_of_a_newer_version_is_refused_unchanged_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    drop(opened(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.execute("UPDATE form SET oldest = ?1", [schema::VERSION + 1]).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let error = opened(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: schema::VERSION, .. }), "{error:?}");
    assert!(error.to_string().contains("install that newer release"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(check_migrations(&path).is_err());
}

/// A form that only adds is used as it is, and what it added stays.
#[tokio::test]
async fn a_newer_form_that_only_adds_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    let (store, _) = opened(&path).unwrap();
    let network = NetworkRow {
        name: "backend".parse().unwrap(),
        subnet: String::new(),
        internal: true,
        created_at: Timestamp(5),
    };
    let changes = |id: u64| {
        let end = Change::End(Box::new(ended(id, 1, End::Code(3))));
        vec![Change::Put(Box::new(row(id, &format!("w{id}")))), end, Change::Note(note(id, "run")), event("x")]
    };
    store.commit(changes(1)).await.unwrap();
    store.commit(vec![Change::PutNetwork(network.clone())]).await.unwrap();
    drop(store);
    let newer = Connection::open(&path).unwrap();
    for table in ["meta", "workers", "ends", "history", "events", "networks", "form"] {
        newer.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN later TEXT NOT NULL DEFAULT 'unsaid'")).unwrap();
        newer.execute(&format!("UPDATE {table} SET later = 'said'"), []).unwrap();
    }
    newer.pragma_update(None, "user_version", schema::VERSION + 2).unwrap();
    drop(newer);
    let (store, again) = opened(&path).unwrap();
    assert_eq!((again.workers, again.networks), (vec![row(1, "w1")], vec![network.clone()]));
    store.commit(changes(1)).await.unwrap();
    store.commit(changes(2)).await.unwrap();
    store.commit(vec![Change::PutNetwork(network)]).await.unwrap();
    drop(store);
    let newer = Connection::open(&path).unwrap();
    let version: i64 = newer.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION + 2);
    for (table, said) in [("meta", 1), ("workers", 1), ("ends", 1), ("history", 1), ("events", 1), ("networks", 1)] {
        let query = format!("SELECT count(*) FROM {table} WHERE later = 'said'");
        let found: i64 = newer.query_row(&query, [], |row| row.get(0)).unwrap();
        assert_eq!(found, said, "{table}");
    }
}

#[test]
fn garbage_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    let garbage = b"this is no database, but long enough to look at ".repeat(100);
    std::fs::write(&path, &garbage).unwrap();
    assert!(matches!(opened(&path), Err(StoreError::Unreadable { .. })));
    assert!(matches!(check_migrations(&path), Err(StoreError::Unreadable { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn a_damaged_row_is_a_damaged_database_and_no_forgotten_worker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    let (store, _) = opened(&path).unwrap();
    store.commit(vec![Change::Put(Box::new(row(1, "a")))]).await.unwrap();
    drop(store);
    Connection::open(&path).unwrap().execute("UPDATE workers SET phase = 'odd'", []).unwrap();
    assert!(matches!(opened(&path), Err(StoreError::Unreadable { .. })));
    assert!(check_migrations(&path).is_err());
}

#[test]
fn a_link_in_the_databases_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("holdfast.db"), dir.path().join("other"));
    drop(opened(&other).unwrap());
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert!(opened(&path).is_err());
}

#[test]
fn a_copy_is_checked_and_a_missing_one_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.db");
    assert!(check_migrations(&path).is_err());
    assert!(!path.exists());
    drop(opened(&path).unwrap());
    let check = check_migrations(&path).unwrap();
    assert_eq!((check.from, check.to), (schema::VERSION, schema::VERSION));
}

/// On a file system that is full: the commit says so, nothing of it is there, and later ones work again.
#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    if !nix::unistd::Uid::current().is_root() {
        eprintln!("needs root for a small file system of its own; skipped");
        return;
    }
    let small = SmallDisk::new();
    let path = small.0.path().join("holdfast.db");
    let (store, _) = opened(&path).unwrap();
    store.commit(vec![Change::Put(Box::new(row(1, "a")))]).await.unwrap();
    let ballast = small.0.path().join("ballast");
    drop(std::fs::write(&ballast, vec![1; 4 << 20]));
    let mut refused = false;
    for id in 2..200 {
        match store.commit(vec![Change::Put(Box::new(row(id, &format!("w{id}"))))]).await {
            Ok(()) => {}
            Err(StoreError::Full) => refused = true,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused);
    std::fs::remove_file(&ballast).unwrap();
    store.commit(vec![Change::Put(Box::new(row(1000, "late")))]).await.unwrap();
    drop(store);
    let names: Vec<_> = opened(&path).unwrap().1.workers.into_iter().map(|row| row.spec.name).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"late".to_owned()));
}

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "holdfast-test"])
            .arg(dir.path())
            .status();
        assert!(mount.unwrap().success());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmount.unwrap().success());
    }
}

fn event(name: &str) -> Change {
    Change::Event(Box::new(EventRow::network(wire::EventKind::NetworkCreated, name, 5)))
}

#[tokio::test]
async fn events_have_rising_cursors_that_no_restart_gives_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (store, before) = opened(&path).unwrap();
    assert_eq!(before.newest_event, 0);
    let mut newest = store.newest_event();
    store.commit(vec![event("a"), Change::Put(Box::new(row(1, "web"))), event("b")]).await.unwrap();
    assert!(newest.has_changed().unwrap());
    assert_eq!(*newest.borrow_and_update(), 2);
    // A change that is refused takes its event with it, and gives no cursor away.
    let refused = store.commit(vec![event("c"), Change::Put(Box::new(row(2, "web")))]).await;
    assert!(refused.is_err() && !newest.has_changed().unwrap());
    let page = store.events(1).await.unwrap();
    assert_eq!((page.oldest, page.newest, page.events.len()), (Some(1), 2, 1));
    assert_eq!((page.events[0].0, page.events[0].1.name.as_str()), (2, "b"));
    drop(store);
    rusqlite::Connection::open(&path).unwrap().execute("DELETE FROM events", []).unwrap();
    let (store, opened) = opened(&path).unwrap();
    assert_eq!((opened.newest_event, *store.newest_event().borrow()), (2, 2));
    store.commit(vec![event("d")]).await.unwrap();
    let page = store.events(0).await.unwrap();
    assert_eq!((page.oldest, page.newest, page.events[0].0), (Some(3), 3, 3));
    assert_eq!(store.events(u64::MAX).await.unwrap().events, []);
}

#[tokio::test]
async fn the_oldest_events_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = opened(&dir.path().join("db")).unwrap();
    let kept = super::events::EVENTS_KEPT;
    for _ in 0..(kept + 1000) / 1000 {
        store.commit((0..1000).map(|_| event("x")).collect()).await.unwrap();
    }
    let page = store.events(0).await.unwrap();
    let (oldest, newest) = (page.oldest.unwrap(), page.newest);
    assert!(newest > kept && newest - oldest < kept + 256 && newest - oldest >= kept - 1, "{oldest} {newest}");
    assert_eq!(page.events.len(), super::events::PAGE_EVENTS as usize);
}
