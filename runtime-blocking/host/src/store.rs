//! The store: SQLite behind [`StoreOp`] (core's `io::store`).
//!
//! Owns the database file, its transactions and their durability. What keys and values mean is the engine's.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clearskies_core::ids::Token;
use clearskies_core::io::store::{Durability, Query, Row, Space, StoreDone, StoreError, StoreOp, Write};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::durable;
use crate::schema::{self, MIGRATIONS, MigrateError, TABLES};

/// How an operation ended.
pub type StoreResult = Result<StoreDone, StoreError>;

/// When commits that may wait are synced: well within the five seconds of [`Durability::Soon`].
const SYNC_AFTER: Duration = Duration::from_secs(3);

/// At most this many commits share one transaction.
const GROUP_MAX: usize = 64;

/// Bytes of a page; small rows by the hundred, and what disks write at once.
const PAGE_BYTES: u32 = 4096;

/// Pages in the log before they are brought into the database: 8 MB.
const WAL_PAGES: u32 = 2000;

/// Bytes of the log that are kept for use again after it was larger.
const WAL_BYTES_KEPT: u32 = 16 * 1024 * 1024;

/// Bytes of the log beyond which it is brought into the database when the store rests: what a few edits leave is not
/// worth a second write.
const WAL_BYTES_AT_REST: u32 = 1024 * 1024;

/// Prepared statements that are kept: at most six for each of eight tables.
const STATEMENTS_MAX: usize = 64;

/// What gives freed memory back to the system, see [`at_rest`].
static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Names what gives freed memory back to the system once a store rests: the allocator is the process's choice, and so
/// is this. The first one named stays.
pub fn at_rest(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Memory for pages, in KiB.
    pub cache_kib: u32,
    /// After so long without an operation a store on a thread of its own [rests](Store::rest).
    pub rest_after: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { cache_kib: 8 * 1024, rest_after: Duration::from_secs(5) }
    }
}

/// Why a store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// It was written by a newer version of this software.
    Newer {
        /// The form that it has.
        found: i64,
        /// The newest form that this version knows.
        known: i64,
    },
    /// It is a database of something else.
    Foreign,
    /// It is damaged, or no database.
    Corrupt,
    /// Another process has it open.
    Busy,
    /// The volume is full.
    NoSpace,
    /// Anything else.
    Io(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Newer { found, known } => write!(
                f,
                "the database was written by a newer version of ClearSkies (form {found}, this version knows \
                 {known}); install that version again, nothing was changed"
            ),
            OpenError::Foreign => f.write_str("the file is a database of another program; nothing was changed"),
            OpenError::Corrupt => f.write_str(
                "the database is damaged; your files are not touched. Move it away and join your shares again, \
                 or restore it from a backup",
            ),
            OpenError::Busy => f.write_str("the database is open in another process"),
            OpenError::NoSpace => f.write_str("the volume with the database is full"),
            OpenError::Io(text) => write!(f, "could not open the database: {text}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Corrupt,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Busy,
            Some(ErrorCode::DiskFull) => OpenError::NoSpace,
            _ => OpenError::Io(error.to_string()),
        }
    }
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => OpenError::NoSpace,
            _ => OpenError::Io(error.to_string()),
        }
    }
}

/// An open store.
pub struct Store {
    connection: Connection,
    /// The text of each statement, by table and verb.
    sql: Vec<String>,
    path: PathBuf,
    /// The log, to sync it without a checkpoint. Opened once it exists.
    wal: Option<File>,
    full: bool,
    wiping: bool,
    /// Since when there are commits that are not synced.
    unsynced_since: Option<Instant>,
    /// Whether the log holds keys that were deleted.
    wipe_log: bool,
    rest_after: Duration,
    /// When the last operation ended, unless the store rested since.
    worked_at: Option<Instant>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a statement does with a table.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Verb {
    Get,
    Range,
    Last,
    Put,
    Delete,
    DeleteRange,
}

impl Verb {
    const ALL: [Verb; 6] = [Verb::Get, Verb::Range, Verb::Last, Verb::Put, Verb::Delete, Verb::DeleteRange];

    fn sql(self, table: &str) -> String {
        match self {
            Verb::Get => format!("SELECT v FROM {table} WHERE k = ?1"),
            Verb::Range => format!("SELECT k, v FROM {table} WHERE k >= ?1 AND k < ?2 ORDER BY k LIMIT ?3"),
            Verb::Last => {
                format!("SELECT k, v FROM {table} WHERE k >= ?1 AND k < ?2 ORDER BY k DESC LIMIT 1")
            }
            Verb::Put => {
                format!(
                    "INSERT INTO {table} (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
                )
            }
            Verb::Delete => format!("DELETE FROM {table} WHERE k = ?1"),
            Verb::DeleteRange => format!("DELETE FROM {table} WHERE k >= ?1 AND k < ?2"),
        }
    }
}

/// The statements of one operation, each looked up once, however many rows it has.
struct Statements<'s> {
    store: &'s Store,
    ready: [Option<CachedStatement<'s>>; Space::ALL.len() * Verb::ALL.len()],
}

impl<'s> Statements<'s> {
    fn new(store: &'s Store) -> Statements<'s> {
        Statements { store, ready: [const { None }; Space::ALL.len() * Verb::ALL.len()] }
    }

    fn get(&mut self, space: Space, verb: Verb) -> rusqlite::Result<&mut CachedStatement<'s>> {
        // There is a table for every space, see the test in `schema.rs`.
        let at = space as usize * Verb::ALL.len() + verb as usize;
        if self.ready[at].is_none() {
            self.ready[at] = Some(self.store.connection.prepare_cached(&self.store.sql[at])?);
        }
        Ok(self.ready[at].as_mut().expect("it was just set"))
    }
}

impl Store {
    /// Opens a store, or makes one; its directory must exist.
    ///
    /// # Errors
    /// See [`OpenError`]; a database that cannot be used is left as it is.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        Self::open_with(path, StoreOptions::default())
    }

    /// [`Store::open`] with other options.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(path: &Path, options: StoreOptions) -> Result<Store, OpenError> {
        // Made by us, so that no moment passes in which others may read it; the log takes its mode from it.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        // Before SQLite locks it: closing any descriptor of a file drops its locks.
        drop(file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Otherwise SQLite plans a range query anew for each pair of bounds.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // One process alone: no shared memory, no lock per transaction.
        connection.execute_batch(&format!(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {WAL_PAGES};
             PRAGMA journal_size_limit = {WAL_BYTES_KEPT}; PRAGMA secure_delete = FAST;
             PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -{};",
            options.cache_kib.clamp(64, 4 * 1024 * 1024)
        ))?;
        match schema::migrate(&mut connection, MIGRATIONS) {
            Ok(()) => {}
            Err(MigrateError::Newer(found)) => {
                return Err(OpenError::Newer { found, known: MIGRATIONS.len() as i64 });
            }
            Err(MigrateError::Foreign) => return Err(OpenError::Foreign),
            Err(MigrateError::Sql(error)) => return Err(error.into()),
        }
        // The log of the last run may hold commits that never were synced.
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        durable::sync_dir(path)?;
        let sql = TABLES.iter().flat_map(|table| Verb::ALL.map(|verb| verb.sql(table))).collect();
        Ok(Store {
            connection,
            sql,
            path: path.to_owned(),
            wal: None,
            full: true,
            wiping: false,
            unsynced_since: None,
            wipe_log: false,
            rest_after: options.rest_after,
            worked_at: None,
        })
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing of a failed commit took effect.
    pub fn execute(&mut self, op: &StoreOp) -> StoreResult {
        match op {
            StoreOp::Load { queries } => {
                self.load(queries).map(StoreDone::Loaded).map_err(|e| map("read from", &e))
            }
            StoreOp::Commit { writes, durability } => self.commit(writes, *durability),
        }
    }

    /// When [`Store::rest`] is due; `None` if there is nothing to give back.
    pub fn rest_due(&self) -> Option<Instant> {
        self.worked_at.map(|at| at + self.rest_after)
    }

    /// Gives back what only work needs: the memory of the pages, and the room of a log beyond what is kept. Syncs,
    /// as the log has to be in the database before it is cut.
    ///
    /// # Errors
    /// Something could not be written; what was durable still is.
    pub fn rest(&mut self) -> Result<(), StoreError> {
        self.worked_at = None;
        self.sync()?;
        let log_bytes = std::fs::metadata(durable::beside(&self.path, "-wal")).map_or(0, |log| log.len());
        if log_bytes > u64::from(WAL_BYTES_AT_REST) {
            let done = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            done.map_err(|e| map("bring the log into", &e))?;
        }
        let done = self.connection.execute_batch("PRAGMA shrink_memory");
        if let Some(give_back) = GIVE_BACK.get() {
            give_back();
        }
        done.map_err(|e| map("release memory of", &e))
    }

    fn load(&self, queries: &[Query]) -> rusqlite::Result<Vec<Vec<Row>>> {
        // One read transaction for all: no look at the log's end per query.
        let tx = self.connection.unchecked_transaction()?;
        let mut statements = Statements::new(self);
        let found = queries.iter().map(|query| ask(&mut statements, query)).collect();
        drop(statements);
        tx.finish()?;
        found
    }

    fn commit(&mut self, writes: &[Write], durability: Durability) -> StoreResult {
        self.prepare_commit(durability == Durability::Now, deletes_keys(writes));
        let tried = self.transact(|store| store.write_all(writes));
        self.committed(durability == Durability::Now, tried)
    }

    /// Several commits in one transaction, each whole or not at all. `None`: none of them took effect, and each
    /// must be tried by itself.
    fn commit_group(&mut self, commits: &[(&[Write], Durability)]) -> Option<Vec<StoreResult>> {
        let now = commits.iter().any(|(_, durability)| *durability == Durability::Now);
        self.prepare_commit(now, commits.iter().any(|(writes, _)| deletes_keys(writes)));
        let mut results = Vec::with_capacity(commits.len());
        let tried = self.transact(|store| {
            for (writes, _) in commits {
                store.connection.prepare_cached("SAVEPOINT one")?.execute([])?;
                match store.write_all(writes) {
                    Ok(()) => results.push(Ok(StoreDone::Committed)),
                    Err(error) if store.connection.is_autocommit() => return Err(error),
                    Err(error) => {
                        store.connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
                        results.push(Err(map("write to", &error)));
                    }
                }
                store.connection.prepare_cached("RELEASE one")?.execute([])?;
            }
            Ok(())
        });
        self.committed(now, tried).ok().map(|_| results)
    }

    fn transact(&mut self, work: impl FnOnce(&Store) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let tried = work(self).and_then(|()| self.connection.prepare_cached("COMMIT")?.execute([]).map(drop));
        self.abandon();
        tried
    }

    /// Ends a transaction that is still open: it failed.
    fn abandon(&self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            log::error!("could not roll back: {error}");
        }
    }

    fn write_all(&self, writes: &[Write]) -> rusqlite::Result<()> {
        let mut statements = Statements::new(self);
        for write in writes {
            match write {
                Write::Put { space, key, value } => {
                    statements.get(*space, Verb::Put)?.execute([key, value])?
                }
                Write::Delete { space, key } => statements.get(*space, Verb::Delete)?.execute([key])?,
                Write::DeleteRange { space, start, end } => {
                    statements.get(*space, Verb::DeleteRange)?.execute([start, end])?
                }
            };
        }
        Ok(())
    }

    /// Sets what must be set outside a transaction. Deleted secrets are overwritten everywhere; elsewhere only
    /// where it costs no page.
    fn prepare_commit(&mut self, full: bool, wipe: bool) {
        if full != self.full {
            let level = if full { "FULL" } else { "NORMAL" };
            match self.connection.execute_batch(&format!("PRAGMA synchronous = {level}")) {
                Ok(()) => self.full = full,
                Err(error) => log::error!("could not set how commits are synced: {error}"),
            }
        }
        if wipe != self.wiping {
            let level = if wipe { "ON" } else { "FAST" };
            match self.connection.execute_batch(&format!("PRAGMA secure_delete = {level}")) {
                Ok(()) => self.wiping = wipe,
                Err(error) => log::error!("could not set how rows are deleted: {error}"),
            }
        }
        self.wipe_log |= wipe;
    }

    fn committed(&mut self, now: bool, tried: rusqlite::Result<()>) -> StoreResult {
        tried.map_err(|e| map("write to", &e))?;
        if now && self.full {
            // The sync of this commit covers all of the log before it.
            if !self.wipe_log {
                self.unsynced_since = None;
                return Ok(StoreDone::Committed);
            }
        } else if now {
            self.sync()?;
            return Ok(StoreDone::Committed);
        }
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(StoreDone::Committed)
    }

    /// When [`Store::sync`] is due; `None` while everything is synced.
    pub fn sync_due(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_AFTER)
    }

    /// Makes all commits so far durable.
    ///
    /// # Errors
    /// They may not be durable; the caller tries again later.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        if self.wipe_log {
            // Brings the log into the database, syncs that, and empties the log.
            let done = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            done.map_err(|e| map("sync", &e))?;
            self.wipe_log = false;
        } else {
            self.sync_log().map_err(|error| {
                log::error!("could not sync the database: {error}");
                StoreError::Io
            })?;
        }
        self.unsynced_since = None;
        Ok(())
    }

    fn sync_log(&mut self) -> std::io::Result<()> {
        // SQLite keeps no locks on its log, so that a second descriptor is harmless, and it keeps the file as long
        // as it has it open.
        let wal = match &self.wal {
            Some(wal) => wal,
            None => {
                let wal = File::open(durable::beside(&self.path, "-wal"))?;
                durable::sync_dir(&self.path)?;
                self.wal.insert(wal)
            }
        };
        wal.sync_data()
    }

    /// Syncs, brings the log into the database and closes it.
    ///
    /// # Errors
    /// Something could not be written; what was durable still is.
    pub fn close(mut self) -> Result<(), StoreError> {
        let synced = self.sync();
        let Store { connection, .. } = self;
        connection.close().map_err(|(_, e)| map("close", &e))?;
        synced
    }
}

/// Answers one look-up.
fn ask(statements: &mut Statements<'_>, query: &Query) -> rusqlite::Result<Vec<Row>> {
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match query {
        Query::Get { space, key } => {
            let statement = statements.get(*space, Verb::Get)?;
            let value: Option<Vec<u8>> = statement.query_row([key], |row| row.get(0)).optional()?;
            Ok(value.map(|value| (key.clone(), value)).into_iter().collect())
        }
        Query::Range { space, start, end, limit } => {
            statements.get(*space, Verb::Range)?.query_map(params![start, end, limit], pair)?.collect()
        }
        Query::Last { space, start, end } => {
            let row = statements.get(*space, Verb::Last)?.query_row([start, end], pair).optional()?;
            Ok(row.into_iter().collect())
        }
    }
}

/// Whether these writes remove what may be a key or a code.
fn deletes_keys(writes: &[Write]) -> bool {
    writes.iter().any(|write| {
        matches!(
            write,
            Write::Delete { space: Space::Meta, .. } | Write::DeleteRange { space: Space::Meta, .. }
        )
    })
}

fn map(doing: &str, error: &rusqlite::Error) -> StoreError {
    log::error!("could not {doing} the database: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt,
        _ => StoreError::Io,
    }
}

/// A store on a thread of its own.
pub struct StoreThread {
    jobs: Option<Sender<(Token, StoreOp)>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreThread").finish_non_exhaustive()
    }
}

impl StoreThread {
    /// Starts it. `done` is called once per token that [`StoreThread::submit`] took, on the new thread, in the
    /// order in which they were submitted.
    ///
    /// # Errors
    /// The system refused to start a thread.
    pub fn spawn(
        store: Store,
        done: impl Fn(Token, StoreResult) + Send + 'static,
    ) -> std::io::Result<StoreThread> {
        let (jobs, queue) = channel();
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || run(store, &queue, &done))?;
        Ok(StoreThread { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Takes an operation. Returns it if the thread is gone; then no completion comes.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn submit(&self, token: Token, op: StoreOp) -> Result<(), StoreOp> {
        match &self.jobs {
            Some(jobs) => jobs.send((token, op)).map_err(|error| error.0.1),
            None => Err(op),
        }
    }

    /// Carries out what was submitted, syncs and closes the store; returns when all completions are given.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // What an operation panics with is caught, so only `done` itself can have panicked.
            if thread.join().is_err() {
                log::error!("the store's thread panicked");
            }
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(mut store: Store, queue: &Receiver<(Token, StoreOp)>, done: &dyn Fn(Token, StoreResult)) {
    loop {
        let due = store.sync_due().into_iter().chain(store.rest_due()).min();
        let first = match due {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(first) => {
                take(&mut store, first, queue, done);
                store.worked_at = Some(Instant::now());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // Also while one operation follows another without a pause.
        if store.sync_due().is_some_and(|due| due <= Instant::now()) && store.sync().is_err() {
            // Tried again, but not at once.
            store.unsynced_since = Some(Instant::now());
        }
        if store.rest_due().is_some_and(|due| due <= Instant::now()) && store.rest().is_err() {
            log::warn!("the database's log stays as it is until the next pause");
        }
    }
    if let Err(error) = store.close() {
        log::error!("the database was not closed well: {error:?}");
    }
}

/// Carries out one operation, and the commits that wait right behind it if it is a commit.
fn take(
    store: &mut Store,
    first: (Token, StoreOp),
    queue: &Receiver<(Token, StoreOp)>,
    done: &dyn Fn(Token, StoreResult),
) {
    let mut batch = vec![first];
    while batch.len() < GROUP_MAX && matches!(batch.last(), Some((_, StoreOp::Commit { .. }))) {
        match queue.try_recv() {
            Ok(next) => batch.push(next),
            Err(_) => break,
        }
    }
    let commits: Vec<_> = batch
        .iter()
        .filter_map(|(_, op)| match op {
            StoreOp::Commit { writes, durability } => Some((writes.as_slice(), *durability)),
            StoreOp::Load { .. } => None,
        })
        .collect();
    let mut results = Vec::new();
    if commits.len() > 1 {
        results = guarded(store, |store| store.commit_group(&commits)).flatten().unwrap_or_default();
    }
    // A load can only be the last, so that the results so far belong to the first of the batch.
    for (_, op) in batch.iter().skip(results.len()) {
        results.push(guarded(store, |store| store.execute(op)).unwrap_or(Err(StoreError::Io)));
    }
    for ((token, _), result) in batch.into_iter().zip(results) {
        done(token, result);
    }
}

/// Runs something; if it panics its transaction is undone, and the thread lives on.
fn guarded<T>(store: &mut Store, work: impl FnOnce(&mut Store) -> T) -> Option<T> {
    let ran = catch_unwind(AssertUnwindSafe(|| work(store)));
    if ran.is_err() {
        log::error!("a store operation panicked");
        store.abandon();
    }
    ran.ok()
}

#[cfg(test)]
mod tests;
