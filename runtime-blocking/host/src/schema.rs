//! The database's form, and how an older form becomes the present one.
//!
//! Each migration is one transaction together with its version number, so one that was interrupted simply runs
//! again.

use rusqlite::{Connection, Transaction};

/// Marks a file as ours in its header: "CSky".
pub(crate) const APPLICATION_ID: i32 = 0x4353_6b79;

/// One step from a version to the next.
pub(crate) type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// All steps; the version of a database is how many of them it has behind it.
pub(crate) const MIGRATIONS: &[Migration] = &[first];

/// The tables, by the number of their [`Space`](clearskies_core::io::store::Space).
pub(crate) const TABLES: [&str; 8] =
    ["meta", "record", "arrival", "path", "content", "pending", "intent", "partial"];

fn first(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in TABLES {
        tx.execute_batch(&format!(
            "CREATE TABLE {table} (k BLOB PRIMARY KEY NOT NULL, v BLOB NOT NULL) WITHOUT ROWID"
        ))?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)
}

/// What stands in the way of a migration.
#[derive(Debug)]
pub(crate) enum MigrateError {
    /// The database's version is above all that are known.
    Newer(i64),
    /// The file is somebody else's database.
    Foreign,
    /// A step failed; it left nothing behind.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        MigrateError::Sql(error)
    }
}

/// Brings a database to the version that these steps lead to.
pub(crate) fn migrate(connection: &mut Connection, steps: &[Migration]) -> Result<(), MigrateError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(MigrateError::Foreign);
    }
    let done = match usize::try_from(version) {
        Ok(done) if done <= steps.len() => done,
        _ => return Err(MigrateError::Newer(version)),
    };
    for (at, step) in steps.iter().enumerate().skip(done) {
        let tx = connection.transaction()?;
        step(&tx)?;
        // Fits: there are as many steps as this list is long.
        tx.pragma_update(None, "user_version", (at + 1) as i64)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.execute_batch("ALTER TABLE path ADD COLUMN extra; INSERT INTO meta VALUES (x'01', x'02')")?;
        tx.execute_batch("SELECT * FROM nowhere")
    }

    fn whole(tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.execute_batch("ALTER TABLE path ADD COLUMN extra; INSERT INTO meta VALUES (x'01', x'02')")
    }

    fn version(connection: &Connection) -> i64 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_interrupted_migration_runs_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut connection = Connection::open(&path).unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(version(&connection), 1);
        assert!(matches!(migrate(&mut connection, &[first, half]), Err(MigrateError::Sql(_))));
        drop(connection);
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(version(&connection), 1, "nothing of the failed step is left");
        migrate(&mut connection, &[first, whole]).unwrap();
        assert_eq!(version(&connection), 2);
        let rows: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
        migrate(&mut connection, &[first, whole]).unwrap();
        assert!(matches!(migrate(&mut connection, MIGRATIONS), Err(MigrateError::Newer(2))));
    }

    #[test]
    fn somebody_elses_database_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        assert!(matches!(migrate(&mut connection, MIGRATIONS), Err(MigrateError::Foreign)));
    }

    #[test]
    fn every_space_has_a_table() {
        use clearskies_core::io::store::Space;
        for (at, space) in Space::ALL.iter().enumerate() {
            assert_eq!(*space as usize, at);
            assert_eq!(TABLES[at], format!("{space:?}").to_lowercase());
        }
    }
}
