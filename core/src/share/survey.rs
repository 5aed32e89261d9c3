//! Looks at the disk: walks the folder, follows the watcher's hints, hashes what changed, and finds what was moved
//! (sync.md, Scanning). Gives observations; what they mean is decided in the pipeline.
//!
//! One pass runs at a time. It gathers what differs from the rows, a bounded number of paths at once; then moves are
//! matched, contents read, and the observations handed over; then it gathers on. A pass begins only when all that was
//! handed over before is stored, and what disk work is about to store is looked at once more after that: a path that is
//! gone and has no row yet would be passed over for good.

mod absent;
mod contents;
mod gather;
mod hints;
mod large;
mod result;
mod retries;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::budget::DeleteBudget;
use crate::files::local::Found;
use crate::files::path::RelPath;
use crate::files::reconcile::{GRAIN_DEFAULT, InodeKey};
use crate::files::row::{DiskState, PathRow};
use crate::ids::{RootId, Token};
use crate::index::codec::PeerTable;
use crate::io::disk::{Kind, Stamp};
use crate::io::store::{Query, Row, Space, StoreDone, StoreError, StoreOp};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::layout;
use crate::share::local::{Doubt, Observation, Vanished};
use crate::share::survey::absent::Held;
use crate::share::survey::gather::{Gathering, Walk};
use crate::share::survey::large::Large;
use crate::share::survey::retries::Retries;
use crate::share::unusable::Unusable;
use crate::time::{Instant, Now, WallTime};

/// A path is looked at once it was quiet for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or, if whoever changed it is done with it, for this long,
const QUIET_DONE: Duration = Duration::from_millis(20);
/// where no look began for so long: what changes now and then is followed at once, what changes all the time in groups;
const WHILE: Duration = Duration::from_secs(1);
/// or, while it keeps changing, after this long.
const RESTLESS: Duration = Duration::from_secs(10);
/// A path that is gone may turn up elsewhere for this long before its end is told.
const GONE_WAIT: Duration = Duration::from_secs(2);
/// Hints that are remembered; with more the whole folder is looked through.
const HINTS_MAX: usize = 20_000;
/// After so many looks in a row, each of which left more doubts than hints or failed at some path, the next is sure.
const DOUBT_ROUNDS: u32 = 3;
/// Paths that differ, of one gathering.
const GATHERED_MAX: usize = 20_000;
#[cfg(any(test, feature = "simulator"))]
const GATHERED_FEW: usize = 400;
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
    /// For how long it is to be quiet.
    quiet: Duration,
}

impl Hint {
    fn ripe_at(&self) -> Instant {
        self.last.plus(self.quiet).min(self.first.plus(RESTLESS))
    }
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
    /// In what situation it was found, where that was in an earlier pass.
    found: Option<Found>,
}

impl Todo {
    fn new(path: RelPath, stamp: Stamp, row: PathRow, new: bool) -> Todo {
        Todo { path, stamp, row, new, content: None, found: None }
    }
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
    /// Rows of where the directory that is walked was before.
    OldRows,
    GoneRows(RelPath),
    /// Rows beneath a vanished directory, for the directories among them.
    OldDirs(Vec<RelPath>),
    /// Since when; so too below.
    Hash(Vec<usize>, WallTime),
    Check,
    /// Whether anything is left in the folder; the number of the walk.
    Left(u64),
    /// Contents that have a queue of their own.
    HashLarge(Vec<RelPath>, WallTime),
    Forget,
}

/// The survey of one share.
#[derive(Debug)]
pub struct Survey {
    root: RootId,
    /// As in [`DiskDone::Opened`].
    pub grain: Duration,
    hints: BTreeMap<RelPath, Hint>,
    /// Directories that came and are to be walked when they are looked at next, and those of them that are now.
    new_dirs: BTreeSet<RelPath>,
    to_walk: BTreeSet<RelPath>,
    /// Paths that were in work when a pass began that concerns them: they are looked at again after that work.
    waiting: BTreeSet<RelPath>,
    freed: u64,
    full_due: bool,
    rescan_at: Option<Instant>,
    step: Step,
    asks: BTreeMap<Token, Ask>,
    // What one pass works on.
    full: bool,
    found: Found,
    began: Instant,
    hinted: Vec<RelPath>,
    stamps: Option<Vec<Result<Stamp, DiskError>>>,
    /// Of each hinted path its row, and whether there are rows beneath it.
    hint_rows: Option<Vec<(PathRow, bool)>>,
    gathering: Gathering,
    next_walk: u64,
    todo: Vec<Todo>,
    to_hash: VecDeque<usize>,
    gone: Vec<(RelPath, PathRow)>,
    moves: Vec<(RelPath, RelPath)>,
    /// Paths that are gone, since when, and what lay there.
    missing: BTreeMap<RelPath, (Instant, PathRow)>,
    /// When a path was last found gone that was not known to be.
    missed_last: Instant,
    /// Files and links that stand where a directory was, of which something is missing. They are told together with
    /// its end: before that the directory lives for others, and they would stand beside it.
    in_place_of: BTreeSet<RelPath>,
    /// Paths that were read while their stamp was too young to be trusted: they are read once more.
    young: BTreeSet<RelPath>,
    young_at: Option<Instant>,
    /// Where something may have been moved away from, and what seems to be new and may be that.
    doubted: BTreeSet<(RelPath, RelPath)>,
    /// Whether these were more than can be hinted at, and in how many looks in a row.
    doubts_overflowed: bool,
    doubt_rounds: u32,
    /// How many looks in a row failed at some path while they were to make something sure.
    failed_rounds: u32,
    /// Paths that are looked at in this pass together with where they may have been before.
    sure: BTreeSet<RelPath>,
    /// Paths that wait for another one which is in work.
    behind: BTreeMap<RelPath, Doubt>,
    /// What was read of paths that are to be looked at again.
    known: BTreeMap<RelPath, DiskState>,
    large: Large,
    ready: VecDeque<Observation>,
    /// Whether the first look of this run is over.
    pub looked: bool,
    /// Nobody looked for a while: what the next look through the folder finds happened when the disk says.
    away: bool,
    /// The first look is the first of all: what lies here was never judged.
    pub without_base: bool,
    /// The end of the store may be lost since the last look.
    pub after_loss: bool,
    /// Set when a full look has just ended, for the share to note.
    finished: bool,
    mode: GoneMode,
    budget: DeleteBudget,
    /// As [`GATHERED_MAX`].
    gathered_max: usize,
    /// Deletes that are held back.
    pub held: Held,
    /// Deletes that were handed over and are not stored yet.
    telling: u64,
    /// What appeared under a new name, and when: under an old one it is not missing.
    arrived: BTreeMap<InodeKey, (RelPath, Instant)>,
    /// Absences that would be deletes; whether they are held is decided when all of them are known.
    vanished: Vec<Vanished>,
    /// Whether nothing was left in the folder when it was last checked.
    emptied: bool,
    /// Live records of the share, for the budget.
    pub live: u64,
    /// What cannot be read or synced, with its reason.
    pub unreadable: BTreeMap<RelPath, String>,
    retries: Retries,
    /// Sockets, pipes and devices: the first of them, for who asks.
    pub special: BTreeSet<RelPath>,
    /// Names that cannot be synced.
    pub unusable: Unusable,
    /// The folder is not what it should be.
    pub root_lost: Option<Result<Option<Vec<u8>>, DiskError>>,
}

impl Survey {
    /// Nothing was looked at yet.
    pub fn new(root: RootId) -> Survey {
        Survey {
            root,
            grain: GRAIN_DEFAULT,
            hints: BTreeMap::new(),
            new_dirs: BTreeSet::new(),
            to_walk: BTreeSet::new(),
            waiting: BTreeSet::new(),
            freed: 0,
            full_due: true,
            rescan_at: None,
            step: Step::Rest,
            asks: BTreeMap::new(),
            full: false,
            found: Found::Running,
            began: Instant(0),
            hinted: Vec::new(),
            stamps: None,
            hint_rows: None,
            gathering: Gathering::default(),
            next_walk: 0,
            todo: Vec::new(),
            to_hash: VecDeque::new(),
            gone: Vec::new(),
            moves: Vec::new(),
            missing: BTreeMap::new(),
            missed_last: Instant(0),
            in_place_of: BTreeSet::new(),
            young: BTreeSet::new(),
            young_at: None,
            doubted: BTreeSet::new(),
            doubts_overflowed: false,
            doubt_rounds: 0,
            failed_rounds: 0,
            sure: BTreeSet::new(),
            behind: BTreeMap::new(),
            known: BTreeMap::new(),
            large: Large::default(),
            ready: VecDeque::new(),
            looked: false,
            away: true,
            without_base: false,
            after_loss: false,
            finished: false,
            mode: GoneMode::Judged,
            budget: DeleteBudget::new(),
            gathered_max: GATHERED_MAX,
            held: Held::default(),
            telling: 0,
            arrived: BTreeMap::new(),
            vanished: Vec::new(),
            emptied: false,
            live: 0,
            unreadable: BTreeMap::new(),
            retries: Retries::default(),
            special: BTreeSet::new(),
            unusable: Unusable::default(),
            root_lost: None,
        }
    }

    /// Works on few paths at once, so that a simulated folder has more of them.
    #[cfg(any(test, feature = "simulator"))]
    pub fn gather_few(&mut self) {
        self.gathered_max = GATHERED_FEW;
    }

    /// Something may have changed at a path.
    pub fn hint(&mut self, path: RelPath, now: Now) {
        self.hint_quiet(path, QUIET, now);
    }

    /// Somebody changed a path and is done with it.
    pub fn hint_done(&mut self, path: RelPath, now: Now) {
        let looked = self.began.plus(WHILE) > now.mono;
        self.hint_quiet(path, if looked { QUIET } else { QUIET_DONE }, now);
    }

    fn hint_quiet(&mut self, path: RelPath, quiet: Duration, now: Now) {
        if path.is_root() || self.hints.len() >= HINTS_MAX {
            self.hints.clear();
            self.full_due = true;
            return;
        }
        let hint = self.hints.entry(path).or_insert(Hint { first: now.mono, last: now.mono, quiet });
        (hint.last, hint.quiet) = (now.mono, quiet);
    }

    /// A directory came, and what lies in it was neither watched nor listed: its row may be of one that was there
    /// before, down to the inode.
    pub fn hint_new_dir(&mut self, path: RelPath, now: Now) {
        if self.new_dirs.len() >= HINTS_MAX {
            self.full_due = true;
        } else {
            self.new_dirs.insert(path.clone());
        }
        self.hint(path, now);
    }

    /// Somebody asks about a path: it is looked at, with the directories above it, in case no event told of a change.
    pub fn hint_asked(&mut self, path: &RelPath, now: Now) {
        for path in path.ancestors().filter(|dir| !dir.is_root()).chain([path.clone()]) {
            self.hint(path, now);
        }
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

    /// Stops what is under way, because the folder is not in order, or was not looked at for a while. Everything is
    /// looked at again, as it is after a start.
    pub fn abandon(&mut self) {
        self.asks.clear();
        self.clear_pass();
        self.missing.clear();
        self.in_place_of.clear();
        self.vanished.clear();
        self.large.clear();
        self.behind.clear();
        self.known.clear();
        self.ready.clear();
        (self.full_due, self.finished) = (true, false);
        self.away = true;
    }

    fn clear_pass(&mut self) {
        self.step = Step::Rest;
        self.hinted.clear();
        self.to_walk.clear();
        self.stamps = None;
        self.hint_rows = None;
        self.gathering = Gathering::default();
        self.todo.clear();
        self.to_hash.clear();
        self.gone.clear();
        self.moves.clear();
        self.doubted.clear();
        self.sure.clear();
    }

    /// Whether a pass is under way or due.
    pub fn is_busy(&self) -> bool {
        let rests = self.step == Step::Rest && self.large.is_empty() && self.vanished.is_empty();
        !rests || self.full_due || !self.ready.is_empty() || !self.hints.is_empty()
    }

    /// Whether all that the last look through the folder found was handed over. Says it once.
    pub fn take_finished(&mut self) -> bool {
        let over = self.finished && self.ready.is_empty() && !self.large.holds_first();
        self.finished &= !over;
        over
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
        if self.step != Step::Rest || !self.ready.is_empty() {
            return None;
        }
        if self.full_due || self.in_place_of.iter().any(|path| self.may_tell(path, &BTreeSet::new())) {
            return Some(Instant(0));
        }
        let hint = self.hints.values().map(Hint::ripe_at).min();
        let missing = self.missing.values().map(|(since, _)| self.gone_from(*since)).min();
        [hint, missing, self.rescan_at, self.young_at, self.retries.next_at()].into_iter().flatten().min()
    }

    /// When a path that has been missing since then counts as gone: once no other one has vanished for a while, so that
    /// what goes together is judged together.
    fn gone_from(&self, since: Instant) -> Instant {
        self.missed_last.plus(GONE_WAIT).min(since.plus(RESTLESS))
    }

    /// Whether there is something that [`Survey::pump`] would do at once; the arguments are as there.
    pub fn lags(&self, stored: bool, freed: u64) -> bool {
        let judges = stored && self.step == Step::Rest && !self.vanished.is_empty();
        self.freed != freed || self.ready.is_empty() && (judges || self.gathers_on())
    }

    /// Begins or goes on with a pass. `stored` says whether everything that was handed over is stored; `busy` are the
    /// paths that are in work, and `freed` grows whenever one of them ceases to be.
    pub fn pump(&mut self, now: Now, stored: bool, busy: &BTreeSet<RelPath>, freed: u64, out: &mut Outbox) {
        if self.freed != freed {
            self.freed = freed;
            for path in self.waiting.difference(busy).cloned().collect::<Vec<_>>() {
                self.waiting.remove(&path);
                self.hint(path, now);
            }
            self.look_behind(busy, now);
        }
        if stored && self.ready.is_empty() {
            self.telling = 0;
            if self.step == Step::Rest {
                self.judge_vanished(now);
            }
        }
        if self.step == Step::Rest && stored && self.ready.is_empty() {
            self.begin(now, busy, out);
        }
        // What was found goes first, so that there is never more of it than one batch.
        if self.step == Step::Gather && self.ready.is_empty() {
            self.gather(now, out);
        }
        if self.step == Step::Hash {
            self.hash(now, out);
        }
        // Behind the steps that find them: nothing else may call for this.
        self.hash_large(now, out);
    }

    fn begin(&mut self, now: Now, busy: &BTreeSet<RelPath>, out: &mut Outbox) {
        self.retry_looks(now);
        if self.rescan_at.is_some_and(|at| at <= now.mono) {
            self.full_due = true;
        }
        if self.full_due {
            self.full_due = false;
            self.rescan_at = None;
            self.full = true;
            self.found = match (self.away, self.without_base) {
                (true, true) => Found::WithoutBase,
                (true, false) if self.after_loss => Found::AfterLoss,
                (true, false) => Found::Offline,
                (false, _) => Found::Running,
            };
            self.away = false;
            self.began = now.mono;
            self.hints.clear();
            self.new_dirs.clear();
            self.begin_full_doubted(busy);
            self.waiting.extend(busy.iter().cloned());
            self.unreadable.clear();
            self.special.clear();
            self.unusable.clear();
            // What was held is counted anew, together with what went since.
            self.held = Held::default();
            self.missing.clear();
            self.in_place_of.clear();
            self.large.begin_full();
            self.gathering.walks.push_back(Walk { dir: RelPath::root(), new: None, inode: 0 });
            self.step = Step::Gather;
            return;
        }
        let mut hinted: BTreeSet<RelPath> = BTreeSet::new();
        // With the first that is ripe go those that soon will be: the two ends of a move are judged together.
        if self.hints.values().any(|hint| hint.ripe_at() <= now.mono) {
            self.hints.retain(|path, hint| {
                let ripe = Hint { quiet: hint.quiet / 2, ..*hint }.ripe_at() <= now.mono;
                if ripe {
                    hinted.insert(path.clone());
                }
                !ripe
            });
            // And what lies above: what is new in a directory says that there is one, where perhaps a file was.
            let above = hinted.iter().flat_map(RelPath::ancestors).filter(|dir| self.hints.contains_key(dir));
            let above: Vec<RelPath> = above.collect();
            above.iter().for_each(|dir| _ = self.hints.remove(dir));
            hinted.extend(above);
        }
        let gone = self.missing.iter().filter(|(_, (since, _))| self.gone_from(*since) <= now.mono);
        hinted.extend(gone.map(|(path, _)| path.clone()));
        let told: Vec<RelPath> =
            self.in_place_of.iter().filter(|path| self.may_tell(path, &hinted)).cloned().collect();
        for path in told {
            self.in_place_of.remove(&path);
            hinted.insert(path);
        }
        if self.young_at.is_some_and(|at| at <= now.mono) {
            self.young_at = None;
            hinted.append(&mut self.young);
        }
        self.join_doubted(&mut hinted, busy);
        hinted.retain(|path| {
            self.waiting.extend(busy.range(path.clone()..).take_while(|at| at.starts_with(path)).cloned());
            let free = !busy.contains(path);
            if !free {
                self.missing.remove(path);
            }
            free
        });
        if hinted.is_empty() {
            return;
        }
        self.full = false;
        self.began = now.mono;
        self.found = Found::Running;
        self.to_walk = hinted.iter().filter(|path| self.new_dirs.remove(*path)).cloned().collect();
        self.hinted = hinted.into_iter().collect();
        self.step = Step::Hints;
        let token = out.disk(DiskOp::Stat { root: self.root, paths: self.hinted.clone() });
        self.asks.insert(token, Ask::Stamps);
        // Two rows tell whether anything at all lies beneath.
        let get = |path: &RelPath| {
            let (start, (_, end)) = (layout::path_key(self.root, path), layout::beneath(self.root, path));
            Query::Range { space: Space::Path, start, end, limit: 2 }
        };
        let token = out.store(StoreOp::Load { queries: self.hinted.iter().map(get).collect() });
        self.asks.insert(token, Ask::HintRows);
    }

    /// A name that cannot be synced is in a directory, or was.
    pub fn note_unusable(&mut self, dir: RelPath, name: &str, there: bool) {
        self.unusable.note(dir, name, there);
    }

    fn note_unreadable(&mut self, path: RelPath, error: DiskError, now: Now) {
        // Of another volume the directory on which it is mounted says it all.
        if error == DiskError::OtherVolume && path.ancestors().any(|dir| self.unreadable.contains_key(&dir)) {
            return;
        }
        if self.unreadable.len() < UNREADABLE_MAX || self.unreadable.contains_key(&path) {
            self.unreadable.insert(path.clone(), super::status::disk_sentence(error).into());
        }
        self.retry_look(&path, now);
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
        self.take_large();
        self.take_known();
        self.match_moves();
        self.leave_large();
        self.to_hash = (0..self.todo.len()).filter(|&at| self.todo[at].content.is_none()).collect();
        self.step = Step::Hash;
        self.hash(now, out);
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
            Ask::Walk => self.walked(result, now),
            Ask::Hash(batch, since) => self.hash_done(&batch, result, since, now),
            Ask::HashLarge(paths, since) => self.large_hashed(paths, result, since, now),
            Ask::Check => match result {
                Ok(DiskDone::Marker(marker)) => {
                    self.root_lost = Some(Ok(marker));
                    self.checked(now);
                }
                Ok(_) => self.root_lost = Some(Err(DiskError::Io)),
                Err(error) => self.root_lost = Some(Err(error)),
            },
            Ask::Left(walk) => {
                self.emptied = match result {
                    Ok(DiskDone::Walked { entries, unobserved, unusable, done }) => {
                        if !done {
                            let token = out.disk(DiskOp::EndWalk { root: self.root, walk });
                            self.ignore(token);
                        }
                        done && entries.is_empty() && unobserved.is_empty() && unusable.is_empty()
                    }
                    _ => false,
                };
                self.checked(now);
            }
            Ask::HintRows | Ask::Rows | Ask::GoneRows(_) | Ask::OldRows | Ask::OldDirs(_) | Ask::Forget => {}
        }
        None
    }

    /// Takes the result of a store operation; gives it back if it was not this survey's.
    pub fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        peers: &PeerTable,
        now: Now,
    ) -> Option<Result<StoreDone, StoreError>> {
        let Some(ask) = self.asks.remove(&token) else { return Some(result) };
        let Ok(StoreDone::Loaded(mut answers)) = result else {
            // The store is in trouble, which its own messages say: this pass is given up.
            self.abandon();
            return None;
        };
        match ask {
            Ask::HintRows => {
                let row = |(path, rows): (&RelPath, &Vec<Row>)| {
                    let own = rows.first().filter(|(key, _)| *key == layout::path_key(self.root, path));
                    let row = own.and_then(|(_, value)| PathRow::decode(value, peers).ok());
                    (row.unwrap_or_default(), rows.len() > usize::from(own.is_some()))
                };
                self.hint_rows = Some(self.hinted.iter().zip(&answers).map(row).collect());
                self.judge_hints(now);
            }
            Ask::OldDirs(dirs) => self.old_dirs_came(dirs, answers, peers),
            Ask::Rows | Ask::OldRows | Ask::GoneRows(_) => {
                self.rows_came(ask, answers.pop().unwrap_or_default(), peers);
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
