//! The database's form and its migrations, forward only. Fields are added, never reused: the previous
//! release reads what this one writes for as long as it is the rollback target.

use super::StoreError;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::path::Path;
use std::time::Duration;

const STEPS: &[M<'static>] = &[
    M::up(include_str!("0001.sql")),
    M::up(include_str!("0002.sql")),
    M::up(include_str!("0003.sql")),
    M::up(include_str!("0004.sql")),
];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);
/// The user_version that this build writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// What a check of a database's copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationCheck {
    /// Its version before.
    pub from: i64,
    /// Its version after: this build's.
    pub to: i64,
}

/// Opens or makes the database, brings it to [`VERSION`], and refuses one of a newer version unchanged.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let unreadable =
        |error: &dyn std::fmt::Display| StoreError::Unreadable { path: path.into(), why: error.to_string() };
    // NOFOLLOW: the directory is the owner's own, a link in it is no database of ours.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| unreadable(&error))?;
    let found = version(&connection).map_err(|error| unreadable(&error))?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.into(), found, known: VERSION });
    }
    // A full disk must not read as a damaged database.
    let failed = |error: rusqlite::Error| match StoreError::from(error) {
        StoreError::Sqlite(error) => unreadable(&error),
        other => other,
    };
    configure(&connection).map_err(failed)?;
    MIGRATIONS.to_latest(&mut connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => failed(err),
        other => unreadable(&other),
    })?;
    Ok(connection)
}

/// Migrates a copy of a database and checks it whole. For an update's preflight; never called on the live file.
pub fn check_migrations(copy: &Path) -> Result<MigrationCheck, StoreError> {
    let unreadable = |why: String| StoreError::Unreadable { path: copy.into(), why };
    if !copy.is_file() {
        return Err(unreadable("there is no such file".into()));
    }
    let before = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW)
        .and_then(|connection| version(&connection))
        .map_err(|error| unreadable(error.to_string()))?;
    let connection = open(copy)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(unreadable(verdict));
    }
    super::rows::workers(&connection, copy)?;
    Ok(MigrationCheck { from: before, to: VERSION })
}

/// Makes a whole copy of a database that others may be writing to meanwhile.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let unreadable = |error: rusqlite::Error| StoreError::Unreadable { path: from.into(), why: error.to_string() };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags).map_err(unreadable)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map(drop).map_err(unreadable)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // KiB: every worker is in memory anyway, so pages are seldom read again.
    connection.pragma_update(None, "cache_size", -512)?;
    connection.pragma_update(None, "trusted_schema", "OFF")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_database_in_use_is_copied_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (state, copy) = (folder.path().join("holdfast.db"), folder.path().join("copy.db"));
        let connection = super::open(&state).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        super::copy(&state, &copy).unwrap();
        let check = super::check_migrations(&copy).unwrap();
        assert_eq!((check.from, check.to), (super::VERSION, super::VERSION));
        // A copy is never written over.
        assert!(super::copy(&state, &copy).is_err());
    }

    #[test]
    fn the_migrations_are_sound() {
        super::MIGRATIONS.validate().unwrap();
    }
}
