//! Rows of the owner's networks.

use super::StoreError;
use crate::worker::Timestamp;
use holdfast_proto::words::NetworkName;
use rusqlite::{Connection, Transaction, params};

/// One network that the owner made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its name.
    pub name: NetworkName,
    /// The range that it is to begin with; empty: any.
    pub subnet: String,
    /// Nothing outside of it is in reach.
    pub internal: bool,
    /// When it was put on record.
    pub created_at: Timestamp,
}

pub fn put(transaction: &Transaction<'_>, row: &NetworkRow) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO networks (name, subnet, internal, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET subnet = ?2, internal = ?3, created_at = ?4",
    )?;
    statement.execute(params![row.name.as_str(), row.subnet, row.internal, row.created_at.0])?;
    Ok(())
}

pub fn delete(transaction: &Transaction<'_>, name: NetworkName) -> Result<(), StoreError> {
    transaction.prepare_cached("DELETE FROM networks WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(())
}

/// All of them. A row that is no network's is left out.
pub fn all(connection: &Connection) -> Result<Vec<NetworkRow>, StoreError> {
    let mut statement = connection.prepare("SELECT name, subnet, internal, created_at FROM networks")?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let (subnet, internal, created_at) = (row.get(1)?, row.get(2)?, Timestamp(row.get(3)?));
        Ok(name.parse().ok().map(|name| NetworkRow { name, subnet, internal, created_at }))
    })?;
    Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}
