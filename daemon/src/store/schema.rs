//! The database's forms, forward only. Fields are added, never reused: the previous release reads and writes what this
//! one leaves for as long as it is the rollback target.

use super::StoreError;
use super::form::{self, FIRST, Form, Found};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rusqlite_migration::{M, Migrations};
use std::path::Path;
use std::time::Duration;

const FORMS: &[Form] = &[
    Form { up: include_str!("0001.sql"), oldest: 1 },
    Form { up: include_str!("0002.sql"), oldest: 2 },
    Form { up: include_str!("0003.sql"), oldest: 3 },
    Form { up: include_str!("0004.sql"), oldest: 4 },
    Form { up: include_str!("0005.sql"), oldest: 5 },
    // A table of its own: who does not know it leaves it alone.
    Form { up: include_str!("0006.sql"), oldest: 5 },
];
/// The newest form that this build knows: the database's user_version.
pub const VERSION: i64 = FORMS.len() as i64;

/// What a check of a database's copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationCheck {
    /// Its version before.
    pub from: i64,
    /// Its version after: this build's, or a newer one that this build may use.
    pub to: i64,
}

/// Opens or makes the database and brings it as far as it may (see [`form::target`]). A newer one is used as it is, or
/// refused unchanged where it says that daemons like this one must not.
pub fn open(path: &Path, needed: Option<i64>) -> Result<Connection, StoreError> {
    let unreadable =
        |error: &dyn std::fmt::Display| StoreError::Unreadable { path: path.into(), why: error.to_string() };
    // NOFOLLOW: the directory is the owner's own, a link in it is no database of ours.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| unreadable(&error))?;
    let found = found(&connection).map_err(|error| unreadable(&error))?;
    let Some(target) = form::target(found, FORMS, needed) else {
        return Err(StoreError::Newer { path: path.into(), found: found.form, known: VERSION });
    };
    // A full disk must not read as a damaged database.
    let failed = |error: rusqlite::Error| match StoreError::from(error) {
        StoreError::Sqlite(error) => unreadable(&error),
        other => other,
    };
    configure(&connection).map_err(failed)?;
    if target > found.form {
        let steps = FORMS.iter().map(|form| M::up(form.up)).collect();
        Migrations::new(steps).to_version(&mut connection, target as usize).map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => failed(err),
            other => unreadable(&other),
        })?;
    }
    Ok(connection)
}

/// That this build would use a database, in use or not, as it is: what runs now can go on with it if this build fails.
pub fn check_form(path: &Path, needed: Option<i64>) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let found = found(&connection)?;
    match form::target(found, FORMS, needed) {
        Some(target) if target == found.form => Ok(()),
        Some(_) | None => Err(StoreError::Form { found: found.form }),
    }
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
    // All steps are tried, also those that would have to wait.
    let connection = open(copy, None)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(unreadable(verdict));
    }
    super::rows::workers(&connection, copy)?;
    Ok(MigrationCheck { from: before, to: version(&connection)? })
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

/// One that does not say who may use it is for those alone that know its form.
fn found(connection: &Connection) -> rusqlite::Result<Found> {
    let form = version(connection)?;
    let says = form >= FIRST && connection.table_exists(None, "form")?;
    let oldest = match says {
        true => connection.query_row("SELECT oldest FROM form WHERE id = 1", [], |row| row.get(0)).optional()?,
        false => None,
    };
    Ok(Found { form, oldest: oldest.unwrap_or(form) })
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
    use super::*;

    #[test]
    fn a_database_in_use_is_copied_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (state, copy) = (folder.path().join("holdfast.db"), folder.path().join("copy.db"));
        let connection = open(&state, None).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        super::copy(&state, &copy).unwrap();
        let check = check_migrations(&copy).unwrap();
        assert_eq!((check.from, check.to), (VERSION, VERSION));
        // A copy is never written over.
        assert!(super::copy(&state, &copy).is_err());
    }

    #[test]
    fn each_form_says_in_the_database_what_it_says_here() {
        let mut connection = Connection::open_in_memory().unwrap();
        let migrations = Migrations::new(FORMS.iter().map(|form| M::up(form.up)).collect());
        for (form, number) in FORMS.iter().zip(1..) {
            migrations.to_version(&mut connection, number).unwrap();
            let found = found(&connection).unwrap();
            assert_eq!((found.form, found.oldest), (number as i64, form.oldest));
        }
        assert!(FORMS.windows(2).all(|pair| pair[0].oldest <= pair[1].oldest));
    }
}
