//! Calls by their keys: which were made, and what became of them. Bounded by age and by number.

use super::StoreError;
use crate::worker::Timestamp;
use holdfast_proto::key::Key;
use holdfast_proto::words::{Generation, WorkerId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Calls that are remembered; older ones go.
pub const CALLS_KEPT: i64 = 16_384;
/// How long one is remembered: many times as long as a caller tries.
pub const KEPT_NS: i64 = 600 * 1_000_000_000;
/// How many calls there may be until the oldest are removed together.
const TRIM_EVERY: i64 = 64;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    /// Of its caller.
    pub key: Key,
    /// Of verb and request.
    pub digest: [u8; 16],
    /// When its first attempt came.
    pub began_at: Timestamp,
    /// The worker that it is about, and its generation then.
    pub worker: Option<(WorkerId, Generation)>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Under way; or its daemon died over it.
    Begun,
    /// The reply, encoded.
    Done(Vec<u8>),
    /// The problem, encoded.
    Refused(Vec<u8>),
}

impl Outcome {
    fn columns(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Begun => ("", &[]),
            Self::Done(reply) => ("done", reply),
            Self::Refused(problem) => ("refused", problem),
        }
    }
}

pub fn begin(transaction: &Transaction<'_>, row: &CallRow) -> Result<(), StoreError> {
    let (worker, generation) =
        row.worker.map_or((String::new(), 0), |(worker, generation)| (worker.to_string(), generation.0 as i64));
    let (outcome, answer) = row.outcome.columns();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO calls (key, digest, began_at, worker, generation, outcome, answer)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![row.key.bytes(), row.digest, row.began_at.0, worker, generation, outcome, answer])?;
    let seq = transaction.last_insert_rowid();
    if seq % TRIM_EVERY == 0 {
        transaction
            .prepare_cached("DELETE FROM calls WHERE seq <= ?1 OR began_at < ?2")?
            .execute([seq - CALLS_KEPT, row.began_at.0 - KEPT_NS])?;
    }
    Ok(())
}

pub fn end(transaction: &Transaction<'_>, key: Key, outcome: &Outcome) -> Result<(), StoreError> {
    let (outcome, answer) = outcome.columns();
    transaction.prepare_cached("UPDATE calls SET outcome = ?2, answer = ?3 WHERE key = ?1")?.execute(params![
        key.bytes(),
        outcome,
        answer
    ])?;
    Ok(())
}

/// The call of a key, if it is remembered.
pub fn find(connection: &Connection, key: Key) -> Result<Option<CallRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT digest, began_at, worker, generation, outcome, answer FROM calls WHERE key = ?1")?;
    let row = statement.query_row([key.bytes()], |row| {
        let generation = Generation(row.get::<_, i64>(3)? as u64);
        let worker = row.get::<_, String>(2)?.parse().ok().map(|worker| (worker, generation));
        let answer = row.get(5)?;
        let outcome = match row.get::<_, String>(4)?.as_str() {
            "done" => Outcome::Done(answer),
            "refused" => Outcome::Refused(answer),
            _ => Outcome::Begun,
        };
        Ok(CallRow { key, digest: row.get(0)?, began_at: Timestamp(row.get(1)?), worker, outcome })
    });
    Ok(row.optional()?)
}
