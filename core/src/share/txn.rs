//! One transaction of a share: a view of the store that knows what it lacks.
//!
//! Decisions are pure functions over a [`Txn`]. Where one needs a row that is not loaded it gets [`Miss`], the need is
//! noted, and the whole batch is decided again once everything noted was loaded. Nothing is written until a batch
//! was decided without a miss; then [`Txn::writes`] gives one commit with every index kept in step.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::files::path::{PathError, RelPath};
use crate::files::plan::Around;
use crate::files::row::{Base, PathRow};
use crate::files::serve::content_key;
use crate::ids::{RootId, Sha256, Uuid};
use crate::index::codec::{self, Damaged, PeerTable};
use crate::index::digest::Digest;
use crate::index::record::{EntryContent, Record, Value};
use crate::io::store::{Query, Row, Space, Write};
use crate::share::layout;

/// A row that a decision needs is not loaded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss;

/// Something that a decision needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Record(Uuid),
    Row(RelPath),
    Content(Sha256),
    Beneath(RelPath),
}

/// How many paths with one content a decision looks at.
const CONTENT_PATHS_MAX: u32 = 8;
/// How many rows beneath a path are looked at to learn whether a live record is among them: at first,
const BENEATH_ROWS: u32 = 512;
/// and then, where many tombstones lie there, at once.
const BENEATH_ROWS_MORE: u32 = 4096;

/// Bytes of an ordinary row's stored form, with room to spare.
const ROW_BYTES: usize = 160;

/// What is known of what lies beneath a path.
#[derive(Clone, Debug, Default)]
struct Beneath {
    /// Paths with live records.
    live: Vec<RelPath>,
    /// Where the rows begin that were not looked at yet.
    next: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct StoredRecord {
    record: Arc<Record>,
    arrival: u64,
}

/// What a share counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Live files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths that are not at their index version.
    pub pending: u64,
    /// Bytes of their contents.
    pub pending_bytes: u64,
    /// Live conflict files.
    pub conflicts: u64,
    /// Live records whose key is meant as a path and cannot be one; they count nowhere else.
    pub pathless: u64,
    /// The sum over all records; `None` in a store that an earlier version began.
    pub digest: Option<Digest>,
}

impl Default for Totals {
    /// Of a store without records.
    fn default() -> Totals {
        Totals {
            files: 0,
            bytes: 0,
            pending: 0,
            pending_bytes: 0,
            conflicts: 0,
            pathless: 0,
            digest: Some(Digest::default()),
        }
    }
}

/// What a transaction changed, for one whose view of the store is older.
#[derive(Debug, Default)]
pub struct Changes {
    records: BTreeMap<Uuid, StoredRecord>,
    rows: BTreeMap<RelPath, Box<PathRow>>,
    /// Contents that lie elsewhere than before.
    contents: Vec<Sha256>,
}

/// A view of the store with changes on top.
#[derive(Debug)]
pub struct Txn {
    root: RootId,
    records: BTreeMap<Uuid, Option<StoredRecord>>,
    rows: BTreeMap<RelPath, Box<PathRow>>,
    content: BTreeMap<Sha256, Vec<RelPath>>,
    /// What is known of what lies beneath paths.
    beneath: BTreeMap<RelPath, Beneath>,
    new_records: BTreeMap<Uuid, StoredRecord>,
    new_rows: BTreeMap<RelPath, Box<PathRow>>,
    /// Contents and inodes that came to rows in this transaction, perhaps for a moment.
    new_content: BTreeSet<(Sha256, u64, RelPath)>,
    extra: Vec<Write>,
    /// Contents that can be read here from now on.
    pub appeared: Vec<Sha256>,
    /// What was missed since the last load, with repetitions.
    missing: Vec<Need>,
    asked: Vec<Need>,
    /// Contents that this transaction adds to a path or takes from one.
    moved: Vec<Sha256>,
    /// Totals with the changes of this transaction.
    pub totals: Totals,
    /// The last arrival number given out, with the changes of this transaction.
    pub arrival: u64,
}

impl Txn {
    /// An empty view.
    pub fn new(root: RootId, totals: Totals, arrival: u64) -> Txn {
        Txn {
            root,
            records: BTreeMap::new(),
            rows: BTreeMap::new(),
            content: BTreeMap::new(),
            beneath: BTreeMap::new(),
            new_records: BTreeMap::new(),
            new_rows: BTreeMap::new(),
            new_content: BTreeSet::new(),
            extra: Vec::new(),
            appeared: Vec::new(),
            missing: Vec::new(),
            asked: Vec::new(),
            moved: Vec::new(),
            totals,
            arrival,
        }
    }

    /// Forgets all changes, so that the batch can be decided again.
    pub fn restart(&mut self, totals: Totals, arrival: u64) {
        self.new_records.clear();
        self.new_rows.clear();
        self.new_content.clear();
        self.extra.clear();
        self.totals = totals;
        self.arrival = arrival;
    }

    /// The look-ups for everything that was missed; empty if nothing was.
    pub fn take_queries(&mut self) -> Vec<Query> {
        self.asked = core::mem::take(&mut self.missing);
        // In the order of the keys, which is kind to the store.
        self.asked.sort_unstable();
        self.asked.dedup();
        let root = self.root;
        self.asked
            .iter()
            .map(|need| match need {
                Need::Record(uuid) => {
                    Query::Get { space: Space::Record, key: layout::record_key(root, *uuid) }
                }
                // Two rows tell whether anything at all lies beneath, which mostly spares a second look-up.
                Need::Row(path) => {
                    let (start, (_, end)) = (layout::path_key(root, path), layout::beneath(root, path));
                    Query::Range { space: Space::Path, start, end, limit: 2 }
                }
                Need::Content(sha256) => {
                    let (start, end) = layout::content_range(root, sha256);
                    Query::Range { space: Space::Content, start, end, limit: CONTENT_PATHS_MAX }
                }
                Need::Beneath(path) => {
                    let (first, end) = layout::beneath(root, path);
                    let (start, limit) = match self.beneath.get(path).and_then(|known| known.next.clone()) {
                        Some(next) => (next, BENEATH_ROWS_MORE),
                        None => (first, BENEATH_ROWS),
                    };
                    Query::Range { space: Space::Path, start, end, limit }
                }
            })
            .collect()
    }

    /// Takes the answers to [`Txn::take_queries`].
    pub fn loaded(&mut self, answers: Vec<Vec<Row>>, peers: &PeerTable) -> Result<(), Damaged> {
        for (need, rows) in core::mem::take(&mut self.asked).into_iter().zip(answers) {
            match need {
                Need::Record(uuid) => {
                    let stored = match rows.first() {
                        Some((_, value)) => Some(decode_stored(value, peers)?),
                        None => None,
                    };
                    self.records.insert(uuid, stored);
                }
                Need::Row(path) => {
                    let own = rows.first().filter(|(key, _)| *key == layout::path_key(self.root, &path));
                    let row = match own {
                        Some((_, value)) => PathRow::decode(value, peers)?,
                        None => PathRow::default(),
                    };
                    if rows.len() == usize::from(own.is_some()) {
                        self.beneath.entry(path.clone()).or_default();
                    }
                    self.rows.insert(path, Box::new(row));
                }
                Need::Content(sha256) => {
                    let paths =
                        rows.iter().filter_map(|(key, _)| RelPath::from_sort_key(key.get(36..)?)).collect();
                    self.content.insert(sha256, paths);
                }
                Need::Beneath(path) => {
                    let known = self.beneath.entry(path).or_default();
                    for (key, value) in &rows {
                        if !PathRow::decode(value, peers)?.live.is_empty() {
                            known.live.extend(layout::path_of_key(key));
                        }
                    }
                    let limit = if known.next.is_some() { BENEATH_ROWS_MORE } else { BENEATH_ROWS };
                    known.next = rows.last().filter(|_| rows.len() == limit as usize).map(|(key, _)| {
                        let mut key = key.clone();
                        key.push(0);
                        key
                    });
                }
            }
        }
        Ok(())
    }

    /// A record, as this transaction leaves it.
    pub fn record(&mut self, uuid: Uuid) -> Result<Option<Arc<Record>>, Miss> {
        if let Some(stored) = self.new_records.get(&uuid) {
            return Ok(Some(stored.record.clone()));
        }
        match self.records.get(&uuid) {
            Some(stored) => Ok(stored.as_ref().map(|s| s.record.clone())),
            None => {
                self.missing.push(Need::Record(uuid));
                Err(Miss)
            }
        }
    }

    /// Notes that no record has this name yet.
    pub fn note_new(&mut self, uuid: Uuid) {
        self.records.entry(uuid).or_insert(None);
    }

    /// A path's row, as this transaction leaves it; an empty one where nothing is known.
    pub fn row(&mut self, path: &RelPath) -> Result<PathRow, Miss> {
        if let Some(row) = self.new_rows.get(path).or_else(|| self.rows.get(path)) {
            return Ok((**row).clone());
        }
        self.missing.push(Need::Row(path.clone()));
        Err(Miss)
    }

    /// Paths that held this content when the transaction began (at most eight).
    pub fn paths_with(&mut self, sha256: &Sha256) -> Result<Vec<RelPath>, Miss> {
        match self.content.get(sha256) {
            Some(paths) => Ok(paths.clone()),
            None => {
                self.missing.push(Need::Content(*sha256));
                Err(Miss)
            }
        }
    }

    /// Paths that may have got this content, with this inode, in this transaction.
    pub fn new_paths_with(&self, sha256: &Sha256, inode: u64) -> impl Iterator<Item = &RelPath> {
        let same = move |(of, number, _): &&(Sha256, u64, RelPath)| of == sha256 && *number == inode;
        let first = (*sha256, inode, RelPath::root());
        self.new_content.range(first..).take_while(same).map(|(_, _, path)| path)
    }

    /// Whether a live record lies beneath a path, as this transaction leaves it.
    pub fn live_beneath(&mut self, path: &RelPath) -> Result<bool, Miss> {
        let changed = self.new_rows.range((Bound::Excluded(path), Bound::Unbounded));
        if changed.take_while(|(p, _)| p.is_beneath(path)).any(|(_, row)| !row.live.is_empty()) {
            return Ok(true);
        }
        match self.beneath.get(path) {
            Some(known) if known.live.iter().any(|path| !self.new_rows.contains_key(path)) => Ok(true),
            Some(Beneath { next: None, .. }) => Ok(false),
            _ => {
                self.missing.push(Need::Beneath(path.clone()));
                Err(Miss)
            }
        }
    }

    /// The live records of a row, loaded.
    pub fn live_records(&mut self, row: &PathRow) -> Result<Vec<Arc<Record>>, Miss> {
        self.all_records(&row.live)
    }

    /// The tombstones that a row remembers, loaded.
    pub fn dead_records(&mut self, row: &PathRow) -> Result<Vec<Arc<Record>>, Miss> {
        self.all_records(&row.dead)
    }

    fn all_records(&mut self, uuids: &[Uuid]) -> Result<Vec<Arc<Record>>, Miss> {
        let mut found = Vec::with_capacity(uuids.len());
        let mut missed = false;
        for &uuid in uuids {
            match self.record(uuid) {
                Ok(record) => found.extend(record),
                Err(Miss) => missed = true,
            }
        }
        if missed { Err(Miss) } else { Ok(found) }
    }

    /// The version that a row's disk content is.
    pub fn base_of(&mut self, row: &PathRow) -> Result<Option<Arc<Record>>, Miss> {
        match &row.base {
            Base::None => Ok(None),
            Base::Index(uuid) => self.record(*uuid),
            Base::Older(record) => Ok(Some(Arc::new((**record).clone()))),
        }
    }

    /// Sets a row.
    pub fn put_row(&mut self, path: &RelPath, mut row: PathRow) {
        // What has a base is there for itself.
        row.implied &= row.base == Base::None || row.is_left_dir();
        if let (Some(sha256), Some(disk)) = (content_of(&row), &row.disk) {
            let inode = disk.stamp.inode;
            let had = |old: &PathRow| old.disk.as_ref().is_some_and(|disk| disk.stamp.inode == inode);
            if !self.rows.get(path).is_some_and(|old| had(old) && content_of(old) == Some(sha256)) {
                self.new_content.insert((sha256, inode, path.clone()));
            }
        }
        self.new_rows.insert(path.clone(), Box::new(row));
    }

    /// Adds a write that the transaction itself knows nothing of.
    pub fn put_extra(&mut self, write: Write) {
        self.extra.push(write);
    }

    /// Something went away from a path: the nearest directory above, if it stood only for it, is to be looked at.
    pub fn emptied(&mut self, path: &RelPath) -> Result<(), Miss> {
        let mut dirs = path.ancestors().filter(|dir| !dir.is_root());
        while let Some(dir) = dirs.next() {
            let Ok(mut row) = self.row(&dir) else {
                // All at once: a load for each directory above would have a whole batch decided anew as often.
                dirs.for_each(|dir| drop(self.row(&dir)));
                return Err(Miss);
            };
            if row.recheck_dir() {
                self.put_row(&dir, row);
                break;
            }
            if row.disk.is_some() || !row.live.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Stores a version of a record and keeps rows and totals in step. Needs the record and the rows of its old and
    /// new key.
    pub fn put_record(&mut self, record: impl Into<Arc<Record>>) -> Result<(), Miss> {
        let record = record.into();
        let uuid = record.uuid;
        let old = self.record(uuid)?;
        let new_path = RelPath::from_key(&record.key);
        let old_path = old.as_ref().and_then(|old| RelPath::from_key(&old.key));
        // Both rows first, so that a miss leaves nothing half done.
        let new_row = new_path.as_ref().map(|path| self.row(path)).transpose()?;
        if let Some(path) = &old_path {
            self.row(path)?;
        }
        let was_live = old.as_ref().is_some_and(|old| !old.deleted());
        if let Some(path) = old_path.as_ref().filter(|_| was_live)
            && (record.deleted() || new_path.as_ref() != Some(path))
        {
            self.emptied(path)?;
        }

        if let (Some(old), Some(path)) = (&old, &old_path) {
            let mut row = self.row(path)?;
            row.remove_record(uuid);
            if !same_on_disk(old, &record) {
                row.keep_base(old);
            }
            self.put_row(path, row);
        }
        if let (Some(path), Some(row)) = (&new_path, new_row) {
            // The old key may be the new one: take what was just put.
            let mut row = if old_path.as_ref() == Some(path) { self.row(path)? } else { row };
            if record.deleted() {
                row.add_dead(uuid);
            } else {
                row.add_live(uuid);
            }
            self.put_row(path, row);
        }
        if let Some(old) = &old {
            self.count(old, old_path.is_some(), false);
        }
        if let Some(digest) = &mut self.totals.digest {
            old.iter().for_each(|old| digest.take(old));
            digest.add(&record);
        }
        self.count(&record, new_path.is_some(), true);
        self.arrival += 1;
        let stored = StoredRecord { record, arrival: self.arrival };
        self.new_records.insert(uuid, stored);
        Ok(())
    }

    fn count(&mut self, record: &Record, has_path: bool, add: bool) {
        if record.deleted() {
            return;
        }
        if !has_path {
            let (pathless, one) = (&mut self.totals.pathless, u64::from(is_pathless(record)));
            *pathless = if add { *pathless + one } else { pathless.saturating_sub(one) };
            return;
        }
        let Value::Entry(entry) = &record.value else { return };
        let conflict = u64::from(entry.conflict_source.is_some());
        let (file, size) = match entry.content {
            EntryContent::File { size, .. } => (1, size),
            EntryContent::Dir | EntryContent::Link(_) => (0, 0),
        };
        let Totals { files, bytes, conflicts, .. } = &mut self.totals;
        // Sums wrap: sizes are claims, and what is added of a false one goes again with it.
        if add {
            *files += file;
            *bytes = bytes.wrapping_add(size);
            *conflicts += conflict;
        } else {
            *files = files.saturating_sub(file);
            *bytes = bytes.wrapping_sub(size);
            *conflicts = conflicts.saturating_sub(conflict);
        }
    }

    /// Whether anything was missed since the last load.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// All changes as writes of one commit; updates the totals of what is pending. Peers that are new are added to
    /// `peers`, which the caller stores in the same commit.
    pub fn writes(&mut self, peers: &mut PeerTable) -> Vec<Write> {
        let root = self.root;
        let mut writes = core::mem::take(&mut self.extra);
        for (uuid, stored) in &self.new_records {
            if let Some(Some(old)) = self.records.get(uuid) {
                writes.push(Write::Delete {
                    space: Space::Arrival,
                    key: layout::arrival_key(root, old.arrival),
                });
            }
            writes.push(Write::Put {
                space: Space::Arrival,
                key: layout::arrival_key(root, stored.arrival),
                value: uuid.0.to_vec(),
            });
            let mut value = stored.arrival.to_be_bytes().to_vec();
            codec::encode_record(&stored.record, peers, &mut value);
            writes.push(Write::Put { space: Space::Record, key: layout::record_key(root, *uuid), value });
        }
        let mut rows = core::mem::take(&mut self.new_rows);
        rows.retain(|path, row| {
            row.pending = self.pending_bytes(row);
            let old = self.rows.remove(path);
            if old.as_ref() == Some(row) {
                return false;
            }
            self.index_row(path, &old.unwrap_or_default(), row, &mut writes);
            let key = layout::path_key(root, path);
            if row.is_empty() {
                **row = PathRow::default();
                writes.push(Write::Delete { space: Space::Path, key });
            } else {
                let mut value = Vec::with_capacity(ROW_BYTES);
                row.encode(peers, &mut value);
                writes.push(Write::Put { space: Space::Path, key, value });
            }
            true
        });
        self.new_rows = rows;
        writes
    }

    /// The paths of all records that this transaction changes.
    pub fn new_keys(&self) -> impl Iterator<Item = RelPath> {
        self.new_records.values().filter_map(|stored| RelPath::from_key(&stored.record.key))
    }

    /// All versions that this transaction stores.
    pub fn new_versions(&self) -> impl Iterator<Item = &Record> {
        self.new_records.values().map(|stored| &*stored.record)
    }

    /// The same with their arrival numbers, in the order of these.
    pub fn arrived(&self) -> Vec<(u64, Arc<Record>)> {
        let new = self.new_records.values().map(|stored| (stored.arrival, stored.record.clone()));
        let mut new: Vec<_> = new.collect();
        new.sort_unstable_by_key(|(arrival, _)| *arrival);
        new
    }

    /// What [`Txn::writes`] wrote.
    pub fn into_changes(self) -> Changes {
        Changes { records: self.new_records, rows: self.new_rows, contents: self.moved }
    }

    /// Brings this view, parts of which were loaded before a commit, up to that commit. May be repeated.
    pub fn absorb(&mut self, changes: &Changes) {
        for (uuid, stored) in &changes.records {
            if let Some(known) = self.records.get_mut(uuid) {
                *known = Some(stored.clone());
            }
        }
        // Both are in order, so one walk over both will do.
        let mut changed = changes.rows.iter().peekable();
        for (path, known) in &mut self.rows {
            while changed.next_if(|(other, _)| *other < path).is_some() {}
            if let Some((_, row)) = changed.next_if(|(other, _)| *other == path) {
                known.clone_from(row);
            }
        }
        for sha256 in &changes.contents {
            self.content.remove(sha256);
        }
        // What lies beneath a path comes right behind it.
        let mut changed = changes.rows.keys().peekable();
        self.beneath.retain(|dir, _| {
            while changed.next_if(|path| *path <= dir).is_some() {}
            !changed.peek().is_some_and(|path| path.is_beneath(dir))
        });
    }

    /// Keeps the indexes over rows, and the totals, in step with a row's change.
    fn index_row(&mut self, path: &RelPath, old: &PathRow, new: &PathRow, writes: &mut Vec<Write>) {
        let root = self.root;
        let (was, is) = (content_of(old), content_of(new));
        let stamp = |row: &PathRow| row.disk.as_ref().map(|disk| disk.stamp);
        if was != is || stamp(old) != stamp(new) {
            self.appeared.extend(is);
        }
        if was != is {
            self.moved.extend(was.into_iter().chain(is));
            if let Some(sha256) = was {
                writes.push(Write::Delete { space: Space::Content, key: content_key(root, &sha256, path) });
            }
            if let Some(sha256) = is {
                let key = content_key(root, &sha256, path);
                writes.push(Write::Put { space: Space::Content, key, value: Vec::new() });
            }
        }
        if old.pending != new.pending {
            let key = layout::path_key(root, path);
            if let Some(bytes) = old.pending {
                self.totals.pending = self.totals.pending.saturating_sub(1);
                self.totals.pending_bytes = self.totals.pending_bytes.wrapping_sub(bytes);
            }
            match new.pending {
                Some(bytes) => {
                    self.totals.pending += 1;
                    self.totals.pending_bytes = self.totals.pending_bytes.wrapping_add(bytes);
                    if old.pending.is_none() {
                        writes.push(Write::Put { space: Space::Pending, key, value: Vec::new() });
                    }
                }
                None => writes.push(Write::Delete { space: Space::Pending, key }),
            }
        }
    }

    /// How many bytes a row still wants; `None` if it is in step. The live records were loaded by whoever put the
    /// row; one that was not counts as 0 bytes, which only the display shows.
    fn pending_bytes(&self, row: &PathRow) -> Option<u64> {
        let in_step = match (&row.base, row.live.as_slice()) {
            (Base::Index(base), [only]) => base == only && row.disk.is_some(),
            (Base::None, []) => row.disk.is_none() || row.implied,
            (Base::Index(_), []) => row.is_left_dir() && !row.is_dir_to_check(),
            _ => false,
        };
        if in_step {
            return None;
        }
        let size = |uuid: &Uuid| {
            let record = match self.new_records.get(uuid) {
                Some(stored) => Some(&stored.record),
                None => self.records.get(uuid).and_then(|s| s.as_ref()).map(|s| &s.record),
            };
            match record.map(|r| &r.value) {
                Some(Value::Entry(entry)) => match entry.content {
                    EntryContent::File { size, .. } => size,
                    _ => 0,
                },
                _ => 0,
            }
        };
        Some(row.live.iter().map(size).max().unwrap_or(0))
    }
}

/// Whether a record's key is meant as a path and cannot be one (protocol §8).
pub fn is_pathless(record: &Record) -> bool {
    matches!(RelPath::check_key(&record.key), Err(why) if why != PathError::NotAPath)
}

/// Whether two versions of a record look the same on disk: then content that is the one is the other as well.
pub fn same_on_disk(a: &Record, b: &Record) -> bool {
    a.key == b.key && a.looks_like(b)
}

/// The digest of what lies at a path, if it may be named to others: only what the club has a record of.
fn content_of(row: &PathRow) -> Option<Sha256> {
    match (&row.disk, &row.base) {
        (_, Base::None) | (None, _) => None,
        (Some(disk), _) => match disk.content {
            EntryContent::File { sha256, .. } => Some(sha256),
            _ => None,
        },
    }
}

impl Around for Txn {
    type Miss = Miss;

    fn row(&mut self, path: &RelPath) -> Result<PathRow, Miss> {
        Txn::row(self, path)
    }

    fn record(&mut self, uuid: Uuid) -> Result<Option<Arc<Record>>, Miss> {
        Txn::record(self, uuid)
    }
}

/// Reads a stored record and its arrival number.
pub fn decode_stored_record(value: &[u8], peers: &PeerTable) -> Result<(Record, u64), Damaged> {
    let (arrival, mut rest) = value.split_first_chunk::<8>().ok_or(Damaged)?;
    Ok((codec::decode_record(&mut rest, peers)?, u64::from_be_bytes(*arrival)))
}

fn decode_stored(value: &[u8], peers: &PeerTable) -> Result<StoredRecord, Damaged> {
    let (record, arrival) = decode_stored_record(value, peers)?;
    Ok(StoredRecord { record: Arc::new(record), arrival })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_directories_above_are_loaded_at_once() {
        let mut txn = Txn::new(RootId(1), Totals::default(), 0);
        let path = RelPath::from_key("/a/b/c/d").unwrap();
        assert_eq!(txn.emptied(&path), Err(Miss));
        let queries = txn.take_queries();
        assert_eq!(queries.len(), 3);
        txn.loaded(queries.iter().map(|_| Vec::new()).collect(), &PeerTable::default()).unwrap();
        assert_eq!(txn.emptied(&path), Ok(()));
    }
}
