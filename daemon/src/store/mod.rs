//! What must not be forgotten: the owner's workers, how each generation ended, and the daemon's epoch.
//!
//! SQLite in WAL mode, written by one thread. A commit is in the file when [`Store::commit`] answers;
//! it is not waited for on the disk (docs/decisions/0001-store-synchronous-normal.md).

mod calls;
mod events;
mod form;
mod networks;
mod rows;
mod schema;

pub use calls::{CallRow, Outcome};
pub use events::{EventRow, Page};
pub use form::oldest_needed;
pub use networks::NetworkRow;
pub use rows::{Change, EndRow, HistoryRow, WorkerRow};
pub use schema::{check_form, check_migrations, copy};

use crate::confine::hold_limits;
use holdfast_proto::key::Key;
use holdfast_proto::words::{Epoch, WorkerId};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::sync::{oneshot, watch};

/// Orders that may wait for the writer; more make their callers wait.
const QUEUE_MAX: usize = 256;

/// How often, and after which pause, a directory is removed again that somebody is still writing to.
const REMOVE_ROUNDS: u32 = 10;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Why the store cannot be had or did not take a change. Nothing of a refused change is in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a later version, in a form that this one must not touch.
    #[error(
        "the database {path} is of a newer version ({found}) than this holdfastd reads ({known}); \
         install that newer release again, or restore the database that was kept before it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its user_version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// To be migrated, or not for this build: not to be handed over.
    #[error("the database is of version {found}, and this holdfastd would change that: restart the unit instead")]
    Form {
        /// Its user_version.
        found: i64,
    },
    /// Not a database of ours, or damaged.
    #[error(
        "the database {path} cannot be read: {why}; move it away to start with an empty one (workers go on running)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        why: String,
    },
    /// ENOSPC, EDQUOT, EFBIG: the change was not taken.
    #[error("the disk with the owner's state is full")]
    Full,
    /// Anything else that SQLite says.
    #[error("the store failed")]
    Sqlite(#[source] rusqlite::Error),
    /// The writer ended (its thread panicked).
    #[error("the store's writer has ended")]
    Gone,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error().map(|error| error.extended_code) {
            // A write over RLIMIT_FSIZE or a quota comes as a failed write.
            Some(rusqlite::ffi::SQLITE_FULL | rusqlite::ffi::SQLITE_IOERR_WRITE) => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

/// What the store held when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// This start's epoch, already on record.
    pub epoch: Epoch,
    /// Boot id of the last start; empty at the first.
    pub last_boot: String,
    /// Every worker.
    pub workers: Vec<WorkerRow>,
    /// For each worker of `workers` that has one: how its last generation that ended did.
    pub ends: Vec<EndRow>,
    /// Cursor of the newest event; 0: there was none yet.
    pub newest_event: u64,
    /// Every network.
    pub networks: Vec<NetworkRow>,
}

/// What the store held when it was closed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Cursor of the newest event.
    pub newest_event: u64,
    /// How many are on record.
    pub workers: u32,
}

/// The way to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    orders: mpsc::SyncSender<Order>,
    newest_event: watch::Receiver<u64>,
}

enum Order {
    Open { path: PathBuf, boot_id: String, needed: Option<i64>, answer: mpsc::SyncSender<Result<Opened, StoreError>> },
    Close { answer: mpsc::SyncSender<Held> },
    Commit { changes: Vec<Change>, answer: Option<oneshot::Sender<Result<(), StoreError>>> },
    Remove { paths: Vec<PathBuf> },
    Events { after: u64, answer: oneshot::Sender<Result<Page, StoreError>> },
    Call { key: Key, answer: oneshot::Sender<Result<Option<CallRow>, StoreError>> },
    History { worker: WorkerId, answer: oneshot::Sender<Result<Vec<HistoryRow>, StoreError>> },
}

/// Starts the writer's thread, before the seccomp filter, which allows no new one; it waits for [`Store::open`].
pub fn start() -> std::io::Result<Store> {
    let (orders, inbox) = mpsc::sync_channel(QUEUE_MAX);
    let (newest, newest_event) = watch::channel(0);
    std::thread::Builder::new().name("store".into()).spawn(move || write_all(&inbox, &newest))?;
    Ok(Store { orders, newest_event })
}

impl Store {
    /// Opens (or makes) the database, migrates it as far as a daemon of the form `needed` could still use it, and raises
    /// the epoch. Blocks; called before the runtime serves.
    pub fn open(&self, path: &Path, boot_id: &str, needed: Option<i64>) -> Result<Opened, StoreError> {
        let (answer, opened) = mpsc::sync_channel(1);
        let order = Order::Open { path: path.to_owned(), boot_id: boot_id.to_owned(), needed, answer };
        self.orders.send(order).map_err(|_| StoreError::Gone)?;
        opened.recv().map_err(|_| StoreError::Gone)?
    }

    /// Takes what was ordered until now, and nothing more until it is opened again; answers what was then in it. Blocks;
    /// called when nobody serves.
    pub fn close(&self) -> Held {
        let (answer, closed) = mpsc::sync_channel(1);
        let ordered = self.orders.send(Order::Close { answer });
        // A writer that has ended holds nothing: whoever compares with that does not go on.
        ordered.ok().and_then(|()| closed.recv().ok()).unwrap_or_default()
    }

    /// Takes all of the changes or none; answers when they are in the file.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Commit { changes, answer: Some(answer) }).await?;
        answered.await.map_err(|_| StoreError::Gone)?
    }

    /// As [`Store::commit`], without waiting for the outcome; a failure is logged. For what a file of the
    /// shim also says, and reconcile would find again.
    pub async fn note(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.send(Order::Commit { changes, answer: None }).await
    }

    /// Removes files and directories that belong to rows, in their turn; what is not there is no error. By the writer,
    /// since a file system may take milliseconds for it.
    pub async fn remove_files(&self, paths: Vec<PathBuf>) -> Result<(), StoreError> {
        self.send(Order::Remove { paths }).await
    }

    /// A worker's history, oldest first.
    pub async fn history(&self, worker: WorkerId) -> Result<Vec<HistoryRow>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::History { worker, answer }).await?;
        answered.await.map_err(|_| StoreError::Gone)?
    }

    /// The call that was made with a key, if it is remembered.
    pub async fn call(&self, key: Key) -> Result<Option<CallRow>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Call { key, answer }).await?;
        answered.await.map_err(|_| StoreError::Gone)?
    }

    /// The events after a cursor, oldest first: as many as fit one page.
    pub async fn events(&self, after: u64) -> Result<Page, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Events { after, answer }).await?;
        answered.await.map_err(|_| StoreError::Gone)?
    }

    /// The cursor of the newest event that is on record; changes as events come.
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.newest_event.clone()
    }

    async fn send(&self, mut order: Order) -> Result<(), StoreError> {
        loop {
            match self.orders.try_send(order) {
                Ok(()) => return Ok(()),
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(StoreError::Gone),
                Err(mpsc::TrySendError::Full(back)) => order = back,
            }
            // The queue is a standard one (the writer is no task): a full one is waited for by turns.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// The writer's whole life. Ends when every [`Store`] is gone.
fn write_all(inbox: &mpsc::Receiver<Order>, newest: &watch::Sender<u64>) {
    let mut database: Option<Connection> = None;
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Open { path, boot_id, needed, answer } => {
                let opened = open(&path, &boot_id, needed).map(|(connection, opened)| {
                    newest.send_replace(opened.newest_event);
                    database = Some(connection);
                    opened
                });
                drop(answer.send(opened));
            }
            Order::Close { answer } => {
                let held = database.take().and_then(|database| {
                    let workers = database.query_row("SELECT count(*) FROM workers", [], |row| row.get(0));
                    Some(Held { newest_event: events::newest(&database).ok()?, workers: workers.ok()? })
                });
                let _ = answer.send(held.unwrap_or_default());
            }
            Order::Commit { changes, answer } => {
                let outcome =
                    database.as_mut().ok_or(StoreError::Gone).and_then(|db| commit_held(db, &changes, newest));
                match (answer, outcome) {
                    (Some(answer), outcome) => drop(answer.send(outcome)),
                    (None, Ok(())) => {}
                    (None, Err(error)) => tracing::error!(%error, "a change was not recorded"),
                }
            }
            Order::Events { after, answer } => {
                let outcome = database.as_ref().ok_or(StoreError::Gone).and_then(|db| events::page(db, after));
                drop(answer.send(outcome));
            }
            Order::Remove { paths } => paths.iter().for_each(|path| remove(path)),
            Order::Call { key, answer } => {
                let outcome = database.as_ref().ok_or(StoreError::Gone).and_then(|db| calls::find(db, key));
                drop(answer.send(outcome));
            }
            Order::History { worker, answer } => {
                let outcome = database.as_ref().ok_or(StoreError::Gone).and_then(|db| rows::history(db, worker));
                drop(answer.send(outcome));
            }
        }
    }
}

fn remove(path: &Path) {
    for round in 1..=REMOVE_ROUNDS {
        let outcome = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(error) => Err(error),
        };
        match outcome {
            // The shim of a launch whose helper was lost half-way writes there until its launcher ends it.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && round < REMOVE_ROUNDS => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a file of a removed worker stays");
                return;
            }
            Ok(()) | Err(_) => return,
        }
    }
}

fn open(path: &Path, boot_id: &str, needed: Option<i64>) -> Result<(Connection, Opened), StoreError> {
    let mut connection = schema::open(path, needed)?;
    let transaction = connection.transaction()?;
    let (epoch, last_boot) = rows::next_epoch(&transaction, boot_id)?;
    transaction.commit()?;
    let workers = rows::workers(&connection, path)?;
    let ends = rows::last_ends(&connection)?;
    let newest_event = events::newest(&connection)?;
    let networks = networks::all(&connection)?;
    Ok((connection, Opened { epoch, last_boot, workers, ends, newest_event, networks }))
}

/// Again where it failed and somebody may have changed this process's limits meanwhile: an end that is not recorded
/// would be told wrongly.
fn commit_held(connection: &mut Connection, changes: &[Change], newest: &watch::Sender<u64>) -> Result<(), StoreError> {
    hold_limits();
    match commit(connection, changes, newest) {
        Err(StoreError::Full) => {
            hold_limits();
            commit(connection, changes, newest)
        }
        outcome => outcome,
    }
}

fn commit(connection: &mut Connection, changes: &[Change], newest: &watch::Sender<u64>) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let mut last_event = None;
    for change in changes {
        last_event = rows::apply(&transaction, change)?.or(last_event);
    }
    transaction.commit()?;
    // Told only now: who follows reads what is on record.
    if let Some(cursor) = last_event {
        newest.send_replace(cursor);
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
