//! What happened, in the order in which it was put on record: a bounded table whose row number is the cursor.

use super::StoreError;
use crate::worker::events::kind_name;
use holdfast_proto::daemon as wire;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Events that are kept; older ones go.
pub const EVENTS_KEPT: u64 = 100_000;
/// How many more there may be until the oldest are removed together.
const TRIM_EVERY: u64 = 256;
/// Most events of one page.
pub const PAGE_EVENTS: u32 = 256;

/// Something that happened, for [`super::Change::Event`]. Whoever changes a worker or a network commits it with the change.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow(pub wire::Event);

/// Some events in a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The oldest event that is kept; `None`: none is.
    pub oldest: Option<u64>,
    /// The newest one that ever was; 0: none yet.
    pub newest: u64,
    /// With their cursors, rising without a gap.
    pub events: Vec<(u64, wire::Event)>,
}

impl EventRow {
    /// A network came or went.
    pub fn network(kind: wire::EventKind, name: &str, time_ns: i64) -> Self {
        Self(wire::Event { time: time_ns, kind: kind.into(), name: name.to_owned(), ..Default::default() })
    }
}

/// Adds an event; answers with its cursor.
pub fn insert(transaction: &Transaction<'_>, row: &EventRow) -> Result<u64, StoreError> {
    let event = &row.0;
    transaction
        .prepare_cached("INSERT INTO events (time, kind, name, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event.time, kind_name(event.kind()), event.name, event.encode_to_vec()])?;
    let cursor = transaction.last_insert_rowid() as u64;
    if cursor.is_multiple_of(TRIM_EVERY) && cursor > EVENTS_KEPT {
        transaction
            .prepare_cached("DELETE FROM events WHERE cursor <= ?1")?
            .execute([(cursor - EVENTS_KEPT) as i64])?;
    }
    Ok(cursor)
}

/// The newest cursor that was ever given.
pub fn newest(connection: &Connection) -> Result<u64, StoreError> {
    let newest: Option<i64> = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| row.get(0))
        .optional()?;
    Ok(newest.unwrap_or(0) as u64)
}

/// The events after a cursor. One that this build cannot read is there, and empty.
pub fn page(connection: &Connection, after: u64) -> Result<Page, StoreError> {
    let oldest: Option<i64> = connection.query_row("SELECT min(cursor) FROM events", [], |row| row.get(0))?;
    let mut statement =
        connection.prepare_cached("SELECT cursor, body FROM events WHERE cursor > ?1 ORDER BY cursor LIMIT ?2")?;
    let rows = statement.query_map(params![i64::try_from(after).unwrap_or(i64::MAX), PAGE_EVENTS], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Vec<u8>>(1)?))
    })?;
    let mut events = Vec::new();
    for row in rows {
        let (cursor, body) = row?;
        events.push((cursor, wire::Event::decode(body.as_slice()).unwrap_or_default()));
    }
    Ok(Page { oldest: oldest.map(|oldest| oldest as u64), newest: newest(connection)?, events })
}
