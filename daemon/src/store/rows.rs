//! Rows of the database, and the statements that write and read them. Each names its columns and replaces no row
//! whole: a newer form may have more of them.

use super::calls::{self, CallRow, Outcome};
use super::networks::{self, NetworkRow};
use super::{EventRow, StoreError};
use crate::worker::{End, Goal, Phase, RestartPolicy, Timestamp, Worker};
use holdfast_proto::daemon as wire;
use holdfast_proto::key::Key;
use holdfast_proto::words::{Epoch, Generation, NetworkName, WorkerId};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::path::Path;
use std::time::Duration;

/// Entries of a worker's history that are kept; older ones go.
pub const HISTORY_ENTRIES_MAX: i64 = 100;

/// One worker: intent and state.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// As its owner gave it, with the name filled in; parsed again where it is used.
    pub spec: wire::WorkerSpec,
    /// What `step` decides upon.
    pub worker: Worker,
    /// Of the current generation's orders.
    pub nonce: [u8; 16],
    /// Boot in which the current generation was ordered.
    pub boot_id: String,
    /// When it was put on record.
    pub created_at: Timestamp,
    /// End of the last generation that ended; 0: none yet.
    pub finished_at: Timestamp,
    /// Of the current generation, for people.
    pub shim_pid: u32,
    /// Of the current generation.
    pub shim_version: String,
    /// With prefix length; empty where it has none now.
    pub addresses: Vec<String>,
    /// As published now.
    pub ports: Vec<wire::Publish>,
}

/// How one generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRow {
    /// Whose.
    pub worker: WorkerId,
    /// Which start.
    pub generation: Generation,
    /// Code, signal, ...
    pub end: End,
    /// For `NotStarted` and `Lost`: the step and reason, for a person.
    pub why: String,
    /// Killed for lack of memory.
    pub oom: bool,
    /// When.
    pub finished_at: Timestamp,
    /// Bytes of output, kept or not, over all generations.
    pub log_bytes: u64,
    /// Bytes of these that are not kept.
    pub log_dropped_bytes: u64,
}

/// A phase entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// Whose.
    pub worker: WorkerId,
    /// When.
    pub time: Timestamp,
    /// Which start.
    pub generation: Generation,
    /// Entered.
    pub phase: Phase,
    /// For a person.
    pub why: String,
}

/// Something to write; several in one commit are taken together or not at all.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds or replaces a worker.
    Put(Box<WorkerRow>),
    /// Adds how a generation ended; one that is there already stays.
    End(Box<EndRow>),
    /// Adds to a worker's history.
    Note(HistoryRow),
    /// Forgets a worker with its history.
    Delete(WorkerId),
    /// Adds to what happened, with the next cursor.
    Event(Box<EventRow>),
    /// Adds or replaces a network.
    PutNetwork(NetworkRow),
    /// Forgets a network.
    DeleteNetwork(NetworkName),
    /// Adds a call.
    BeginCall(Box<CallRow>),
    /// What became of a call.
    EndCall(Key, Outcome),
}

/// Raises the epoch and notes the boot; answers with the new epoch and the boot noted before.
pub fn next_epoch(transaction: &Transaction<'_>, boot_id: &str) -> Result<(Epoch, String), StoreError> {
    let last: Option<(i64, String)> = transaction
        .query_row("SELECT epoch, boot_id FROM meta WHERE id = 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (epoch, last_boot) = last.unwrap_or_default();
    let epoch = epoch + 1;
    transaction.execute(
        "INSERT INTO meta (id, epoch, boot_id) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET epoch = ?1, boot_id = ?2",
        params![epoch, boot_id],
    )?;
    Ok((Epoch(epoch as u64), last_boot))
}

/// Writes one change; answers with the cursor where it is an event.
pub fn apply(transaction: &Transaction<'_>, change: &Change) -> Result<Option<u64>, StoreError> {
    match change {
        Change::Put(row) => put(transaction, row)?,
        Change::End(row) => end(transaction, row)?,
        Change::Note(row) => note(transaction, row)?,
        Change::Delete(id) => {
            transaction.prepare_cached("DELETE FROM workers WHERE id = ?1")?.execute([id.to_string()])?;
        }
        Change::Event(event) => return super::events::insert(transaction, event).map(Some),
        Change::PutNetwork(row) => networks::put(transaction, row)?,
        Change::DeleteNetwork(name) => networks::delete(transaction, *name)?,
        Change::BeginCall(row) => calls::begin(transaction, row)?,
        Change::EndCall(key, outcome) => calls::end(transaction, *key, outcome)?,
    }
    Ok(None)
}

fn put(transaction: &Transaction<'_>, row: &WorkerRow) -> Result<(), StoreError> {
    // Not INSERT OR REPLACE: that deletes first, and the history with it.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO workers (id, name, spec, policy, phase, generation, goal, restarts, strikes, grace_ms, nonce, boot_id,
            created_at, started_at, finished_at, shim_pid, shim_version, addresses, ports, due) VALUES
            (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
         ON CONFLICT (id) DO UPDATE SET policy = ?4, phase = ?5, generation = ?6, goal = ?7, restarts = ?8,
            strikes = ?9, grace_ms = ?10, nonce = ?11, boot_id = ?12, started_at = ?14, finished_at = ?15,
            shim_pid = ?16, shim_version = ?17, addresses = ?18, ports = ?19, due = ?20",
    )?;
    let worker = &row.worker;
    statement.execute(params![
        row.id.to_string(),
        row.spec.name,
        row.spec.encode_to_vec(),
        worker.policy.to_string(),
        worker.phase.name(),
        worker.generation.0 as i64,
        goal_name(worker.goal),
        worker.restarts,
        worker.strikes,
        i64::try_from(worker.grace.as_millis()).unwrap_or(i64::MAX),
        row.nonce,
        row.boot_id,
        row.created_at.0,
        worker.started_at.unwrap_or_default().0,
        row.finished_at.0,
        row.shim_pid,
        row.shim_version,
        row.addresses.join("\n"),
        ports_text(&row.ports),
        worker.due.unwrap_or_default().0,
    ])?;
    Ok(())
}

fn end(transaction: &Transaction<'_>, row: &EndRow) -> Result<(), StoreError> {
    let (kind, value) = match row.end {
        End::Code(code) => ("code", code),
        End::Signal(signal) => ("signal", signal),
        End::NotStarted(code) => ("not-started", code),
        End::Lost => ("lost", 0),
    };
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO ends
            (worker, generation, kind, value, why, oom, finished_at, log_bytes, log_dropped_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        row.worker.to_string(),
        row.generation.0 as i64,
        kind,
        value,
        row.why,
        row.oom,
        row.finished_at.0,
        row.log_bytes as i64,
        row.log_dropped_bytes as i64,
    ])?;
    Ok(())
}

fn note(transaction: &Transaction<'_>, row: &HistoryRow) -> Result<(), StoreError> {
    let worker = row.worker.to_string();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO history (worker, seq, time, generation, phase, why) VALUES
            (?1, (SELECT coalesce(max(seq), 0) + 1 FROM history WHERE worker = ?1), ?2, ?3, ?4, ?5)
         RETURNING seq",
    )?;
    let seq: i64 = statement
        .query_row(params![worker, row.time.0, row.generation.0 as i64, row.phase.name(), row.why], |row| row.get(0))?;
    if seq > HISTORY_ENTRIES_MAX {
        let mut statement = transaction.prepare_cached("DELETE FROM history WHERE worker = ?1 AND seq <= ?2")?;
        statement.execute(params![worker, seq - HISTORY_ENTRIES_MAX])?;
    }
    Ok(())
}

/// Every worker; a row that this build cannot read is a damaged database, not a forgotten worker.
pub fn workers(connection: &Connection, path: &Path) -> Result<Vec<WorkerRow>, StoreError> {
    let mut statement = connection.prepare("SELECT * FROM workers ORDER BY created_at, id")?;
    let mut rows = statement.query([])?;
    let mut workers = Vec::new();
    while let Some(row) = rows.next()? {
        let worker = worker_of(row)?.ok_or_else(|| StoreError::Unreadable {
            path: path.into(),
            why: format!("the row of worker {:?} is damaged", row.get::<_, String>("id").unwrap_or_default()),
        })?;
        workers.push(worker);
    }
    Ok(workers)
}

fn worker_of(row: &Row<'_>) -> Result<Option<WorkerRow>, StoreError> {
    let text = |column: &str| row.get::<_, String>(column);
    let number = |column: &str| row.get::<_, i64>(column);
    let (Ok(id), Ok(spec), Ok(policy), Some(phase), Some(goal)) = (
        text("id")?.parse(),
        wire::WorkerSpec::decode(row.get::<_, Vec<u8>>("spec")?.as_slice()),
        text("policy")?.parse::<RestartPolicy>(),
        Phase::from_name(&text("phase")?),
        goal_of(&text("goal")?),
    ) else {
        return Ok(None);
    };
    let started_at = Some(Timestamp(number("started_at")?)).filter(|at| at.0 != 0);
    let worker = Worker {
        phase,
        generation: Generation(number("generation")? as u64),
        goal,
        policy,
        restarts: row.get("restarts")?,
        strikes: row.get("strikes")?,
        started_at,
        grace: Duration::from_millis(number("grace_ms")? as u64),
        due: Some(Timestamp(number("due")?)).filter(|at| at.0 != 0),
    };
    Ok(Some(WorkerRow {
        id,
        spec,
        worker,
        nonce: row.get("nonce")?,
        boot_id: text("boot_id")?,
        created_at: Timestamp(number("created_at")?),
        finished_at: Timestamp(number("finished_at")?),
        shim_pid: row.get("shim_pid")?,
        shim_version: text("shim_version")?,
        addresses: text("addresses")?.lines().map(str::to_owned).collect(),
        ports: ports_of(&text("ports")?),
    }))
}

/// Of each worker that has one: its last end.
pub fn last_ends(connection: &Connection) -> Result<Vec<EndRow>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT * FROM ends AS e WHERE generation = (SELECT max(generation) FROM ends WHERE worker = e.worker)",
    )?;
    let rows = statement.query_map([], |row| {
        let value: u8 = row.get("value")?;
        Ok(EndRow {
            worker: row.get::<_, String>("worker")?.parse().unwrap_or(WorkerId::from_random(0)),
            generation: Generation(row.get::<_, i64>("generation")? as u64),
            end: match row.get::<_, String>("kind")?.as_str() {
                "code" => End::Code(value),
                "signal" => End::Signal(value),
                "not-started" => End::NotStarted(value),
                _ => End::Lost,
            },
            why: row.get("why")?,
            oom: row.get("oom")?,
            finished_at: Timestamp(row.get("finished_at")?),
            log_bytes: row.get::<_, i64>("log_bytes")? as u64,
            log_dropped_bytes: row.get::<_, i64>("log_dropped_bytes")? as u64,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One worker's history, oldest first.
pub fn history(connection: &Connection, worker: WorkerId) -> Result<Vec<HistoryRow>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT time, generation, phase, why FROM history WHERE worker = ?1 ORDER BY seq")?;
    let rows = statement.query_map([worker.to_string()], |row| {
        Ok(HistoryRow {
            worker,
            time: Timestamp(row.get(0)?),
            generation: Generation(row.get::<_, i64>(1)? as u64),
            phase: Phase::from_name(&row.get::<_, String>(2)?).unwrap_or(Phase::Created),
            why: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn goal_name(goal: Goal) -> &'static str {
    match goal {
        Goal::Up => "up",
        Goal::Down => "down",
        Goal::UpAfterBoot => "up-after-boot",
    }
}

fn goal_of(name: &str) -> Option<Goal> {
    match name {
        "up" => Some(Goal::Up),
        "down" => Some(Goal::Down),
        "up-after-boot" => Some(Goal::UpAfterBoot),
        _ => None,
    }
}

fn ports_text(ports: &[wire::Publish]) -> String {
    let lines: Vec<_> =
        ports.iter().map(|port| format!("{} {} {} {}", port.proto, port.host, port.worker, port.address)).collect();
    lines.join("\n")
}

fn ports_of(text: &str) -> Vec<wire::Publish> {
    let port = |line: &str| {
        let mut words = line.split(' ');
        Some(wire::Publish {
            proto: words.next()?.to_owned(),
            host: words.next()?.parse().ok()?,
            worker: words.next()?.parse().ok()?,
            address: words.next()?.to_owned(),
        })
    };
    text.lines().filter_map(port).collect()
}
