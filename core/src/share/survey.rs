//! Looks at the disk: walks the folder, follows the watcher's hints, hashes what changed, and finds what was moved
//! (sync.md, Scanning). Gives observations; what they mean is decided in the pipeline.
//!
//! One pass runs at a time. It gathers what differs from the rows, a bounded number of paths at once; then moves are
//! matched, contents read, and the observations handed over; then it gathers on.

mod result;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::budget::DeleteBudget;
use crate::files::path::RelPath;
use crate::files::reconcile::{GRAIN_DEFAULT, Merge, Observation as Seen, present, settled};
use crate::files::row::{DiskState, PathRow};
use crate::ids::{RootId, Token};
use crate::index::codec::PeerTable;
use crate::index::record::EntryContent;
use crate::io::disk::{HashedContent, Kind, Stamp};
use crate::io::store::{Query, Space, StoreDone, StoreError, StoreOp};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::layout;
use crate::share::local::Observation;
use crate::share::unusable::Unusable;
use crate::time::{Instant, Now};

/// A path is looked at once it was quiet for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or, while it keeps changing, after this long.
const RESTLESS: Duration = Duration::from_secs(10);
/// A path that is gone may turn up elsewhere for this long before its end is told.
const GONE_WAIT: Duration = Duration::from_secs(2);
/// Hints that are remembered; with more the whole folder is looked through.
const HINTS_MAX: usize = 20_000;
/// Paths that differ, of one gathering.
const GATHERED_MAX: usize = 20_000;
/// Entries of one page of a walk, and rows of one look-up.
const PAGE: u32 = 1000;
/// Paths and bytes of one hash operation, and how many are under way at once.
const HASH_PATHS: usize = 64;
const HASH_BYTES: u64 = 16 << 20;
const HASHES_MAX: usize = 4;
/// Without a reason the folder is looked through this often at most,
const RESCAN_FIRST: Duration = Duration::from_secs(3600);
/// and so much longer than the last time took, so that it stays under a tenth of the time.
const RESCAN_FACTOR: u32 = 10;
/// Deletes that are held back, with their paths.
const HELD_PATHS_MAX: usize = 100;
/// Files that could not be read and are told of.
const UNREADABLE_MAX: usize = 100;
/// Sockets, pipes and devices that are known by name.
const SPECIAL_MAX: usize = 1000;
/// What there is to say of a link that names bytes which are no text.
const LINK_TARGET: &str = "it is a link, and its target is not UTF-8; give it a target that is.";

/// What becomes of paths that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GoneMode {
    /// The budget decides.
    #[default]
    Judged,
    /// The user confirmed: they are deleted.
    Confirmed,
    /// The user refused: they are brought back.
    Restored,
}

#[derive(Clone, Copy, Debug)]
struct Hint {
    first: Instant,
    last: Instant,
}

/// A path whose content is to be read.
#[derive(Debug)]
struct Todo {
    path: RelPath,
    stamp: Stamp,
    row: PathRow,
    /// Whether the row knew of nothing here.
    new: bool,
    content: Option<DiskState>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Rest,
    /// Stamps and rows of hinted paths are under way.
    Hints,
    /// A directory is walked, or rows of vanished directories are read.
    Gather,
    /// Contents are read.
    Hash,
    /// The folder is checked before its absences are believed.
    Check,
}

#[derive(Debug)]
enum Ask {
    Stamps,
    HintRows,
    Walk,
    Rows,
    GoneRows(RelPath),
    Hash(Vec<usize>),
    Check,
    Forget,
}

/// The survey of one share.
#[derive(Debug)]
pub struct Survey {
    root: RootId,
    hints: BTreeMap<RelPath, Hint>,
    full_due: bool,
    rescan_at: Option<Instant>,
    step: Step,
    asks: BTreeMap<Token, Ask>,
    // What one pass works on.
    full: bool,
    began: Instant,
    hinted: Vec<RelPath>,
    stamps: Option<Vec<Result<Stamp, DiskError>>>,
    hint_rows: Option<Vec<PathRow>>,
    walks: VecDeque<RelPath>,
    walking: Option<Walking>,
    next_walk: u64,
    gone_dirs: Vec<RelPath>,
    todo: Vec<Todo>,
    to_hash: VecDeque<usize>,
    gone: Vec<(RelPath, PathRow)>,
    moves: Vec<(RelPath, RelPath)>,
    /// Paths that are gone, since when, and what lay there.
    missing: BTreeMap<RelPath, (Instant, PathRow)>,
    /// When a path was last found gone that was not known to be.
    missed_last: Instant,
    /// Paths that were read while their stamp was too young to be trusted: they are read once more.
    young: BTreeSet<RelPath>,
    young_at: Option<Instant>,
    ready: VecDeque<Observation>,
    /// Whether the first look of this run is over.
    pub looked: bool,
    /// The first look is the first of all: what lies here was never judged.
    pub without_base: bool,
    /// Set when a full look has just ended, for the share to note.
    pub finished: bool,
    mode: GoneMode,
    budget: DeleteBudget,
    /// Deletes that are held back: how many, and the first of them.
    pub held: (u64, Vec<RelPath>),
    /// Live records of the share, for the budget.
    pub live: u64,
    /// What cannot be read or synced, with its reason.
    pub unreadable: BTreeMap<RelPath, String>,
    /// Sockets, pipes and devices: the first of them, for who asks.
    pub special: BTreeSet<RelPath>,
    /// Names that cannot be synced.
    pub unusable: Unusable,
    /// The folder is not what it should be.
    pub root_lost: Option<Result<Option<Vec<u8>>, DiskError>>,
}

#[derive(Debug)]
struct Walking {
    walk: u64,
    dir: RelPath,
    merge: Merge,
    rows_from: Vec<u8>,
    asked_entries: bool,
    asked_rows: bool,
}

impl Survey {
    /// Nothing was looked at yet.
    pub fn new(root: RootId) -> Survey {
        Survey {
            root,
            hints: BTreeMap::new(),
            full_due: true,
            rescan_at: None,
            step: Step::Rest,
            asks: BTreeMap::new(),
            full: false,
            began: Instant(0),
            hinted: Vec::new(),
            stamps: None,
            hint_rows: None,
            walks: VecDeque::new(),
            walking: None,
            next_walk: 0,
            gone_dirs: Vec::new(),
            todo: Vec::new(),
            to_hash: VecDeque::new(),
            gone: Vec::new(),
            moves: Vec::new(),
            missing: BTreeMap::new(),
            missed_last: Instant(0),
            young: BTreeSet::new(),
            young_at: None,
            ready: VecDeque::new(),
            looked: false,
            without_base: false,
            finished: false,
            mode: GoneMode::Judged,
            budget: DeleteBudget::new(),
            held: (0, Vec::new()),
            live: 0,
            unreadable: BTreeMap::new(),
            special: BTreeSet::new(),
            unusable: Unusable::default(),
            root_lost: None,
        }
    }

    /// Something may have changed at a path.
    pub fn hint(&mut self, path: RelPath, now: Now) {
        if path.is_root() || self.hints.len() >= HINTS_MAX {
            self.hints.clear();
            self.full_due = true;
            return;
        }
        let hint = self.hints.entry(path).or_insert(Hint { first: now.mono, last: now.mono });
        hint.last = now.mono;
    }

    /// The whole folder is to be looked through.
    pub fn look_through(&mut self) {
        self.full_due = true;
    }

    /// The user decided about held deletes: the next look through the folder obeys.
    pub fn decide(&mut self, mode: GoneMode) {
        self.mode = mode;
        self.full_due = true;
    }

    /// Stops what is under way, because the folder is not in order. Everything is looked at again when it is.
    pub fn abandon(&mut self) {
        self.asks.clear();
        self.clear_pass();
        self.missing.clear();
        self.ready.clear();
        self.full_due = true;
    }

    fn clear_pass(&mut self) {
        self.step = Step::Rest;
        self.hinted.clear();
        self.stamps = None;
        self.hint_rows = None;
        self.walks.clear();
        self.walking = None;
        self.gone_dirs.clear();
        self.todo.clear();
        self.to_hash.clear();
        self.gone.clear();
        self.moves.clear();
    }

    /// Whether a pass is under way or due.
    pub fn is_busy(&self) -> bool {
        self.step != Step::Rest || self.full_due || !self.ready.is_empty() || !self.hints.is_empty()
    }

    /// Whether every observation was taken.
    pub fn all_taken(&self) -> bool {
        self.ready.is_empty()
    }

    /// Observations that are ready, at most `limit`.
    pub fn take_ready(&mut self, limit: usize) -> Vec<Observation> {
        let count = self.ready.len().min(limit);
        self.ready.drain(..count).collect()
    }

    /// When the survey wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.step != Step::Rest {
            return None;
        }
        if self.full_due {
            return Some(Instant(0));
        }
        let hint = self.hints.values().map(|hint| hint.last.plus(QUIET).min(hint.first.plus(RESTLESS))).min();
        let missing = self.missing.values().map(|(since, _)| self.gone_from(*since)).min();
        [hint, missing, self.rescan_at, self.young_at].into_iter().flatten().min()
    }

    /// When a path that has been missing since then counts as gone: once no other one has vanished for a while, so that
    /// what goes together is judged together.
    fn gone_from(&self, since: Instant) -> Instant {
        self.missed_last.plus(GONE_WAIT).min(since.plus(RESTLESS))
    }

    /// Begins or goes on with a pass.
    pub fn pump(&mut self, now: Now, out: &mut Outbox) {
        if self.step == Step::Rest {
            self.begin(now, out);
        }
        if self.step == Step::Gather {
            self.gather(now, out);
        }
        if self.step == Step::Hash {
            self.hash(now, out);
        }
    }

    fn begin(&mut self, now: Now, out: &mut Outbox) {
        if self.rescan_at.is_some_and(|at| at <= now.mono) {
            self.full_due = true;
        }
        if self.full_due {
            self.full_due = false;
            self.rescan_at = None;
            self.full = true;
            self.began = now.mono;
            self.hints.clear();
            self.unreadable.clear();
            self.special.clear();
            self.unusable.clear();
            // What was held is counted anew, together with what went since.
            self.budget.note_back(self.held.0);
            self.held = (0, Vec::new());
            self.walks.push_back(RelPath::root());
            self.step = Step::Gather;
            return;
        }
        let due = |since: Instant, wait: Duration| since.plus(wait) <= now.mono;
        let restless = |hint: &Hint| due(hint.first, RESTLESS);
        let mut hinted: BTreeSet<RelPath> = BTreeSet::new();
        // With the first that is ripe go those that soon will be: the two ends of a move are judged together.
        if self.hints.values().any(|hint| due(hint.last, QUIET) || restless(hint)) {
            self.hints.retain(|path, hint| {
                let ripe = due(hint.last, QUIET / 2) || restless(hint);
                if ripe {
                    hinted.insert(path.clone());
                }
                !ripe
            });
        }
        let gone = self.missing.iter().filter(|(_, (since, _))| self.gone_from(*since) <= now.mono);
        hinted.extend(gone.map(|(path, _)| path.clone()));
        if self.young_at.is_some_and(|at| at <= now.mono) {
            self.young_at = None;
            hinted.append(&mut self.young);
        }
        if hinted.is_empty() {
            return;
        }
        self.full = false;
        self.hinted = hinted.into_iter().collect();
        self.step = Step::Hints;
        let token = out.disk(DiskOp::Stat { root: self.root, paths: self.hinted.clone() });
        self.asks.insert(token, Ask::Stamps);
        let get = |path: &RelPath| Query::Get { space: Space::Path, key: layout::path_key(self.root, path) };
        let token = out.store(StoreOp::Load { queries: self.hinted.iter().map(get).collect() });
        self.asks.insert(token, Ask::HintRows);
    }

    /// Stamps and rows of the hinted paths are here.
    fn judge_hints(&mut self, now: Now) {
        // The one that comes first waits for the other.
        let (Some(stamps), Some(rows)) = (&mut self.stamps, &mut self.hint_rows) else { return };
        let (stamps, rows) = (core::mem::take(stamps), core::mem::take(rows));
        (self.stamps, self.hint_rows) = (None, None);
        let mut walks: Vec<RelPath> = Vec::new();
        for ((path, stamp), row) in core::mem::take(&mut self.hinted).into_iter().zip(stamps).zip(rows) {
            let was_dir = row.content() == Some(&EntryContent::Dir);
            match stamp {
                Ok(stamp) => {
                    self.missing.remove(&path);
                    self.note_kind(&path, stamp.kind);
                    let is_dir = stamp.kind == Kind::Dir;
                    if was_dir && !is_dir {
                        self.gone_dirs.push(path.clone());
                    }
                    let walked = |disk: &DiskState| disk.settled && disk.stamp.inode == stamp.inode;
                    let same_dir = row.disk.as_ref().is_some_and(walked);
                    // What lies in a directory that could not be read was never seen.
                    let unseen = is_dir && self.unreadable.remove(&path).is_some();
                    if is_dir && !(was_dir && same_dir) || unseen {
                        walks.push(path.clone());
                    }
                    let seen = present(stamp, row);
                    if is_dir {
                        self.hint_unreadable_in(&path, now);
                    } else if matches!(seen, Seen::Same) {
                        self.unreadable.remove(&path);
                    }
                    self.take(path, seen);
                }
                Err(DiskError::NotFound | DiskError::WrongKind) => {
                    self.unreadable.retain(|known, _| !known.starts_with(&path));
                    self.special.remove(&path);
                    self.unusable.forget(&path);
                    if was_dir {
                        self.gone_dirs.push(path.clone());
                    }
                    if row.disk.is_some() {
                        self.gone.push((path, row));
                    } else {
                        self.missing.remove(&path);
                    }
                }
                Err(error) => {
                    self.note_unreadable(path, error);
                }
            }
        }
        // A directory within another one that is walked is walked with it.
        for dir in walks {
            if !self.walks.iter().any(|outer| dir.starts_with(outer)) {
                self.walks.push_back(dir);
            }
        }
        self.step = Step::Gather;
    }

    fn take(&mut self, path: RelPath, seen: Seen) {
        match seen {
            Seen::Same | Seen::Unobserved => {}
            Seen::New(stamp, row) => self.todo.push(Todo { path, stamp, row, new: true, content: None }),
            Seen::Changed(stamp, row) => self.todo.push(Todo { path, stamp, row, new: false, content: None }),
            Seen::Gone(row) => self.gone.push((path, row)),
        }
    }

    /// A name that cannot be synced is in a directory, or was.
    pub fn note_unusable(&mut self, dir: RelPath, name: &str, there: bool) {
        self.unusable.note(dir, name, there);
    }

    fn note_unreadable(&mut self, path: RelPath, error: DiskError) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.insert(path, super::status::disk_sentence(error).into());
        }
    }

    /// A directory changed: what could not be read in it is tried again.
    fn hint_unreadable_in(&mut self, dir: &RelPath, now: Now) {
        let inside = self.unreadable.keys().filter(|path| *path != dir && path.starts_with(dir));
        for path in inside.cloned().collect::<Vec<_>>() {
            self.hint(path, now);
        }
    }

    fn note_kind(&mut self, path: &RelPath, kind: Kind) {
        if kind != Kind::Other {
            self.special.remove(path);
        } else if self.special.len() < SPECIAL_MAX {
            self.special.insert(path.clone());
        }
    }

    fn gather(&mut self, now: Now, out: &mut Outbox) {
        if self.asks.values().any(|ask| matches!(ask, Ask::GoneRows(_))) {
            return;
        }
        loop {
            if self.todo.len() + self.gone.len() >= GATHERED_MAX {
                return self.gathered(now, out);
            }
            if let Some(walking) = &mut self.walking {
                while let Some(seen) = walking.merge.poll() {
                    let over = self.todo.len() + self.gone.len() >= GATHERED_MAX;
                    match seen.observation {
                        Seen::Same | Seen::Unobserved => {}
                        Seen::New(stamp, row) => {
                            self.todo.push(Todo { path: seen.path, stamp, row, new: true, content: None });
                        }
                        Seen::Changed(stamp, row) => {
                            self.todo.push(Todo { path: seen.path, stamp, row, new: false, content: None });
                        }
                        Seen::Gone(row) => self.gone.push((seen.path, row)),
                    }
                    if over {
                        break;
                    }
                }
                if self.todo.len() + self.gone.len() >= GATHERED_MAX {
                    continue;
                }
                if walking.merge.is_finished() {
                    self.walking = None;
                    continue;
                }
                self.ask_pages(out);
                return;
            }
            if let Some(dir) = self.walks.pop_front() {
                self.next_walk += 1;
                let (rows_from, _) = layout::beneath(self.root, &dir);
                self.walking = Some(Walking {
                    walk: self.next_walk,
                    dir,
                    merge: Merge::new(),
                    rows_from,
                    asked_entries: false,
                    asked_rows: false,
                });
                continue;
            }
            if let Some(dir) = self.gone_dirs.pop() {
                let (start, _) = layout::beneath(self.root, &dir);
                self.ask_gone_rows(dir, start, out);
                return;
            }
            return self.gathered(now, out);
        }
    }

    fn ask_pages(&mut self, out: &mut Outbox) {
        let Some(walking) = &mut self.walking else { return };
        if walking.merge.wants_entries() && !walking.asked_entries {
            walking.asked_entries = true;
            let op =
                DiskOp::Walk { root: self.root, walk: walking.walk, dir: walking.dir.clone(), limit: PAGE };
            self.asks.insert(out.disk(op), Ask::Walk);
        }
        if walking.merge.wants_rows() && !walking.asked_rows {
            walking.asked_rows = true;
            let (_, end) = layout::beneath(self.root, &walking.dir);
            let start = walking.rows_from.clone();
            let query = Query::Range { space: Space::Path, start, end, limit: PAGE };
            self.asks.insert(out.store(StoreOp::Load { queries: [query].into() }), Ask::Rows);
        }
    }

    fn ask_gone_rows(&mut self, dir: RelPath, start: Vec<u8>, out: &mut Outbox) {
        let (_, end) = layout::beneath(self.root, &dir);
        let query = Query::Range { space: Space::Path, start, end, limit: PAGE };
        let token = out.store(StoreOp::Load { queries: [query].into() });
        self.asks.insert(token, Ask::GoneRows(dir));
    }

    /// Enough was gathered: moves by inode are matched, and what is left is read.
    fn gathered(&mut self, now: Now, out: &mut Outbox) {
        let known: BTreeSet<RelPath> = self.gone.iter().map(|(path, _)| path.clone()).collect();
        let missing = self.missing.iter().filter(|(path, _)| !known.contains(*path));
        let earlier: Vec<_> = missing.map(|(path, (_, row))| (path.clone(), row.clone())).collect();
        self.gone.extend(earlier);
        self.gone.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.gone.dedup_by(|(a, _), (b, _)| a == b);
        self.todo.sort_by(|a, b| a.path.cmp(&b.path));
        self.todo.dedup_by(|a, b| a.path == b.path);
        self.match_moves();
        self.to_hash = (0..self.todo.len()).filter(|&at| self.todo[at].content.is_none()).collect();
        self.step = Step::Hash;
        self.hash(now, out);
    }

    fn hash(&mut self, now: Now, out: &mut Outbox) {
        let under_way = self.asks.values().filter(|ask| matches!(ask, Ask::Hash(_))).count();
        for _ in under_way..HASHES_MAX {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(&at) = self.to_hash.front() {
                let todo = &mut self.todo[at];
                if todo.stamp.kind == Kind::Dir {
                    let (stamp, content) = (todo.stamp, EntryContent::Dir);
                    todo.content = Some(DiskState { stamp, content, settled: true });
                    self.to_hash.pop_front();
                    continue;
                }
                bytes += todo.stamp.size;
                if !batch.is_empty() && (bytes > HASH_BYTES || batch.len() >= HASH_PATHS) {
                    break;
                }
                batch.push(at);
                self.to_hash.pop_front();
            }
            if batch.is_empty() {
                break;
            }
            let paths = batch.iter().map(|&at| self.todo[at].path.clone()).collect();
            let token = out.disk(DiskOp::Hash { root: self.root, paths });
            self.asks.insert(token, Ask::Hash(batch));
        }
        if !self.asks.values().any(|ask| matches!(ask, Ask::Hash(_))) {
            self.hashed(now, out);
        }
    }

    fn hash_done(&mut self, batch: &[usize], result: Result<DiskDone, DiskError>, now: Now) {
        let results = match result {
            Ok(DiskDone::Hashed(results)) if results.len() == batch.len() => results,
            Ok(_) => batch.iter().map(|_| Err(DiskError::Io)).collect(),
            Err(error) => batch.iter().map(|_| Err(error)).collect(),
        };
        for (&at, result) in batch.iter().zip(results) {
            let Some(todo) = self.todo.get_mut(at) else { continue };
            match result {
                Ok(hashed) => {
                    let content = match hashed.content {
                        HashedContent::File(sha256) => EntryContent::File { size: hashed.stamp.size, sha256 },
                        HashedContent::Link(target) => EntryContent::Link(target),
                        HashedContent::Dir => EntryContent::Dir,
                    };
                    let settled = settled(&hashed.stamp, now.wall, GRAIN_DEFAULT);
                    self.unreadable.remove(&todo.path);
                    if !settled && self.young.len() < HINTS_MAX {
                        self.young.insert(todo.path.clone());
                        self.young_at.get_or_insert(now.mono.plus(GRAIN_DEFAULT + QUIET));
                    }
                    todo.content = Some(DiskState { stamp: hashed.stamp, content, settled });
                }
                Err(DiskError::Changed | DiskError::NotFound | DiskError::WrongKind) => {
                    let path = todo.path.clone();
                    self.hint(path, now);
                }
                Err(DiskError::BadName) if todo.stamp.kind == Kind::Link => {
                    if self.unreadable.len() < UNREADABLE_MAX {
                        self.unreadable.insert(todo.path.clone(), LINK_TARGET.into());
                    }
                }
                Err(error) => {
                    let path = todo.path.clone();
                    self.note_unreadable(path, error);
                }
            }
        }
    }

    /// Takes the result of a disk operation; gives it back if it was not this survey's.
    pub fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        now: Now,
        out: &mut Outbox,
    ) -> Option<Result<DiskDone, DiskError>> {
        let Some(ask) = self.asks.remove(&token) else { return Some(result) };
        if matches!(result, Err(DiskError::RootMissing)) {
            self.root_lost = Some(Err(DiskError::RootMissing));
            return None;
        }
        match ask {
            Ask::Stamps => {
                self.stamps = Some(match result {
                    Ok(DiskDone::Stamps(stamps)) => stamps,
                    Ok(_) => self.hinted.iter().map(|_| Err(DiskError::Io)).collect(),
                    Err(error) => self.hinted.iter().map(|_| Err(error)).collect(),
                });
                self.judge_hints(now);
            }
            Ask::Walk => self.walked(result),
            Ask::Hash(batch) => self.hash_done(&batch, result, now),
            Ask::Check => match result {
                Ok(DiskDone::Marker(marker)) => {
                    self.root_lost = Some(Ok(marker));
                    self.hand_over(now, out);
                }
                Ok(_) => self.root_lost = Some(Err(DiskError::Io)),
                Err(error) => self.root_lost = Some(Err(error)),
            },
            Ask::HintRows | Ask::Rows | Ask::GoneRows(_) | Ask::Forget => {}
        }
        None
    }

    fn walked(&mut self, result: Result<DiskDone, DiskError>) {
        let Some(walking) = &mut self.walking else { return };
        walking.asked_entries = false;
        match result {
            Ok(DiskDone::Walked { entries, unobserved, unusable, done }) => {
                let special = entries.iter().filter(|entry| entry.stamp.kind == Kind::Other);
                let room = SPECIAL_MAX.saturating_sub(self.special.len());
                self.special.extend(special.map(|entry| entry.path.clone()).take(room));
                let dirs = unobserved.iter().map(|(dir, _)| dir.clone()).collect();
                walking.merge.push_entries(entries, dirs, done);
                for (dir, error) in unobserved {
                    self.note_unreadable(dir, error);
                }
                for (dir, name) in unusable {
                    self.note_unusable(dir, &name, true);
                }
            }
            _ => walking.merge.fail_walk(),
        }
    }

    /// Takes the result of a store operation; gives it back if it was not this survey's.
    pub fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        peers: &PeerTable,
        now: Now,
        out: &mut Outbox,
    ) -> Option<Result<StoreDone, StoreError>> {
        let Some(ask) = self.asks.remove(&token) else { return Some(result) };
        let Ok(StoreDone::Loaded(mut answers)) = result else {
            // The store is in trouble, which its own messages say: this pass is given up.
            self.abandon();
            return None;
        };
        match ask {
            Ask::HintRows => {
                let row = |rows: &Vec<(Vec<u8>, Vec<u8>)>| {
                    rows.first().and_then(|(_, value)| PathRow::decode(value, peers).ok()).unwrap_or_default()
                };
                self.hint_rows = Some(answers.iter().map(row).collect());
                self.judge_hints(now);
            }
            Ask::Rows => {
                let rows = answers.pop().unwrap_or_default();
                let Some(walking) = &mut self.walking else { return None };
                walking.asked_rows = false;
                let done = rows.len() < PAGE as usize;
                if let Some((key, _)) = rows.last() {
                    walking.rows_from.clone_from(key);
                    walking.rows_from.push(0);
                }
                walking.merge.push_rows(decode_rows(rows, peers), done);
            }
            Ask::GoneRows(dir) => {
                let rows = answers.pop().unwrap_or_default();
                let next = rows.last().filter(|_| rows.len() == PAGE as usize).map(|(key, _)| {
                    let mut key = key.clone();
                    key.push(0);
                    key
                });
                let rows = decode_rows(rows, peers);
                self.gone.extend(rows.into_iter().filter(|(_, row)| row.disk.is_some()));
                if let Some(start) = next {
                    self.ask_gone_rows(dir, start, out);
                }
            }
            _ => {}
        }
        None
    }

    /// Notes an operation whose end changes nothing.
    pub fn ignore(&mut self, token: Token) {
        self.asks.insert(token, Ask::Forget);
    }
}

fn decode_rows(rows: Vec<(Vec<u8>, Vec<u8>)>, peers: &PeerTable) -> Vec<(RelPath, PathRow)> {
    rows.into_iter()
        .filter_map(|(key, value)| Some((layout::path_of_key(&key)?, PathRow::decode(&value, peers).ok()?)))
        .collect()
}
