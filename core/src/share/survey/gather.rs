//! Gathers what differs from the rows: walks directories beside their rows, and reads the rows of directories that are
//! gone, one batch of paths at a time. Judges nothing.
//!
//! A directory that was renamed is walked beside the rows of where it was, so that each batch holds both ends of the
//! same moves and a folder of any size moves its records. For that the directories beneath those that are gone are
//! listed by their inode before anything is walked, and a directory that turns out to come from elsewhere within a
//! walk is left for a walk of its own.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::{Ask, PAGE, SPECIAL_MAX, Step, Survey, Todo};
use crate::engine::outbox::Outbox;
use crate::files::local::Found;
use crate::files::path::RelPath;
use crate::files::reconcile::{Merge, Observation as Seen, Seen as SeenAt};
use crate::files::row::PathRow;
use crate::index::codec::PeerTable;
use crate::index::record::EntryContent;
use crate::io::disk::{Kind, Stamp};
use crate::io::store::{Query, Space, StoreOp};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::layout;
use crate::time::Now;

/// Directories that are gone and are known by their inode; what was moved out of others is found by its files alone.
const OLD_DIRS_MAX: usize = 10_000;
/// Directories that came or went and that one walk leaves for later; with more they are taken as they come.
const LATER_MAX: usize = 2000;
/// Vanished directories the rows beneath which are looked through at once.
const LOOK_BACK_AT_ONCE: usize = 10;

/// A directory that is to be walked.
#[derive(Debug)]
pub(super) struct Walk {
    pub dir: RelPath,
    /// Its inode; 0 if it is not known.
    pub inode: u64,
    /// The directory itself, if it is news: it goes into the batch in which its walk begins, as the one that it was
    /// before does.
    pub new: Option<Seen>,
}

#[derive(Debug)]
pub(super) struct Walking {
    walk: u64,
    dir: RelPath,
    merge: Merge,
    /// What comes next, while the rows of the old place that come before it are not here.
    next: Option<SeenAt>,
    rows_from: Vec<u8>,
    asked_entries: bool,
    asked_rows: bool,
    /// Whether a page of the walk came.
    begun: bool,
    /// Whether the directory was gone again when its walk began.
    lost: bool,
    /// What lies beneath this one is left for later.
    later: Option<RelPath>,
    old: Option<OldPlace>,
}

impl Walking {
    /// Whether rows are under way that would be taken for those of the next walk.
    fn waits_for_rows(&self) -> bool {
        self.asked_rows || self.old.as_ref().is_some_and(|old| old.asked)
    }
}

/// Where a directory was before: the rows there.
#[derive(Debug)]
struct OldPlace {
    dir: RelPath,
    rows: VecDeque<(RelPath, PathRow)>,
    from: Vec<u8>,
    asked: bool,
    done: bool,
    /// As in [`Walking`].
    later: Option<RelPath>,
}

/// What one pass has still to walk and to read, and what it knows of directories.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    pub walks: VecDeque<Walk>,
    pub walking: Option<Walking>,
    /// Directories that are gone, the rows beneath which are to be read; with their own row, if that goes with them.
    pub gone_dirs: BTreeMap<RelPath, Option<PathRow>>,
    gone_page: Option<(RelPath, Vec<u8>)>,
    /// Directories that are gone, the directories beneath which are to be listed before anything more is walked.
    pub look_back: BTreeSet<RelPath>,
    look_pages: Vec<(RelPath, Vec<u8>)>,
    /// Directories that are gone, by their inode.
    old_dirs: BTreeMap<u64, (RelPath, PathRow)>,
    /// Directories that are known to have moved: where they were, and where they are. What lay there was looked at.
    pub moved: BTreeMap<RelPath, RelPath>,
    /// Directories that have been gone for long enough that what lay there is not waited for.
    ripe: BTreeSet<RelPath>,
}

#[derive(PartialEq, Eq)]
enum Walked {
    Over,
    /// The batch is full.
    Full,
    /// For another page.
    Waits,
}

impl Gathering {
    pub(super) fn is_over(&self) -> bool {
        self.is_walked() && self.gone_dirs.is_empty() && self.gone_page.is_none()
    }

    pub(super) fn is_walked(&self) -> bool {
        self.walking.is_none() && self.walks.is_empty()
    }

    /// Whether a path lies beneath a directory that has been gone for long enough.
    pub(super) fn is_ripe_beneath(&self, path: &RelPath) -> bool {
        !self.ripe.is_empty() && path.ancestors().any(|dir| self.ripe.contains(&dir))
    }

    /// Whether the rows beneath what is gone, if it was a directory, are read in this pass, so that it may be told.
    pub(super) fn is_left(&self, path: &RelPath, row: &PathRow) -> bool {
        !is_dir(row) || self.ripe.contains(path) || self.is_ripe_beneath(path)
    }

    fn note_old(&mut self, path: &RelPath, row: &PathRow) {
        let inode =
            row.disk.as_ref().filter(|disk| disk.stamp.kind == Kind::Dir).map(|disk| disk.stamp.inode);
        if let Some(inode) = inode.filter(|inode| *inode != 0)
            && self.old_dirs.len() < OLD_DIRS_MAX
        {
            self.old_dirs.insert(inode, (path.clone(), row.clone()));
        }
    }

    /// Whether a directory with this inode was somewhere else than at `path`, and is gone from there.
    fn was_elsewhere(&self, inode: u64, path: Option<&RelPath>) -> bool {
        self.old_dirs.get(&inode).is_some_and(|(old, _)| Some(old) != path)
    }

    /// Whether what lay at a path beneath `dir`, which is gone, was looked at with a directory that moved away.
    fn has_moved(&self, path: &RelPath, dir: &RelPath) -> bool {
        let within = |at: &RelPath| at.is_beneath(dir);
        !self.moved.is_empty()
            && core::iter::once(path.clone())
                .chain(path.ancestors())
                .take_while(within)
                .any(|at| self.moved.contains_key(&at))
    }

    /// A directory has moved. If it was not walked beside the rows of where it was, these are left: nothing else would
    /// ever look at them.
    pub(super) fn leave_beneath(&mut self, from: &RelPath, row: &PathRow, to: &RelPath) {
        if !is_dir(row) {
            return;
        }
        let above = core::iter::once(from.clone()).chain(from.ancestors());
        let place = above.filter_map(|dir| from.rebase(&dir, self.moved.get(&dir)?)).next();
        if place.as_ref() != Some(to) {
            self.gone_dirs.insert(from.clone(), None);
        }
    }

    /// The next directory beneath which all that is left is gone.
    fn next_gone(&mut self) -> Option<(RelPath, Option<PathRow>)> {
        let (dir, row) = self.gone_dirs.pop_first()?;
        // What lies beneath it comes with it.
        let inner: Vec<RelPath> = self
            .gone_dirs
            .range(dir.clone()..)
            .map(|(path, _)| path.clone())
            .take_while(|path| path.starts_with(&dir))
            .collect();
        for path in inner {
            if !self.has_moved(&path, &dir) {
                self.gone_dirs.remove(&path);
            }
        }
        Some((dir, row))
    }

    /// Pages of rows in which to look for directories: first what is left of those that were begun.
    fn next_look_back(&mut self) -> Vec<(RelPath, Vec<u8>)> {
        if self.old_dirs.len() >= OLD_DIRS_MAX {
            self.look_back.clear();
            self.look_pages.clear();
        }
        let mut pages = core::mem::take(&mut self.look_pages);
        while pages.len() < LOOK_BACK_AT_ONCE
            && let Some(dir) = self.look_back.pop_first()
        {
            pages.push((dir, Vec::new()));
        }
        pages
    }
}

fn is_dir(row: &PathRow) -> bool {
    row.content() == Some(&EntryContent::Dir)
}

/// Where the page after this one begins, if this was not the last.
fn next_page(rows: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<u8>> {
    let (key, _) = rows.last().filter(|_| rows.len() == PAGE as usize)?;
    let mut key = key.clone();
    key.push(0);
    Some(key)
}

fn decode_rows(rows: Vec<(Vec<u8>, Vec<u8>)>, peers: &PeerTable) -> impl Iterator<Item = (RelPath, PathRow)> {
    rows.into_iter()
        .filter_map(|(key, value)| Some((layout::path_of_key(&key)?, PathRow::decode(&value, peers).ok()?)))
}

/// The stamp of what is there.
fn stamp_of(seen: &Seen) -> Option<&Stamp> {
    match seen {
        Seen::New(stamp, _) | Seen::Changed(stamp, _) => Some(stamp),
        Seen::Same | Seen::Gone(_) | Seen::Unobserved => None,
    }
}

impl Survey {
    pub(super) fn take(&mut self, path: RelPath, seen: Seen) {
        match seen {
            Seen::Same | Seen::Unobserved => self.large.forget(&path),
            Seen::New(stamp, row) => self.todo.push(Todo::new(path, stamp, row, true)),
            Seen::Changed(stamp, row) => self.todo.push(Todo::new(path, stamp, row, false)),
            Seen::Gone(row) => self.gone.push((path, row)),
        }
    }

    /// A directory that the watcher named is to be walked. They come in the order of paths.
    pub(super) fn walk(&mut self, dir: RelPath, inode: u64, seen: Seen) {
        // A directory within another one that is walked is walked with it.
        if !self.gathering.walks.back().is_some_and(|outer| dir.starts_with(&outer.dir)) {
            self.gathering.walks.push_back(Walk { dir, inode, new: Some(seen) });
        }
    }

    /// A directory is gone. What lay in it may have gone elsewhere with it, so its rows are read only when it has been
    /// gone for long.
    pub(super) fn dir_is_gone(&mut self, path: RelPath, row: PathRow, is_ripe: bool) {
        self.gathering.note_old(&path, &row);
        self.gathering.look_back.insert(path.clone());
        self.leave_gone(path, row, is_ripe);
    }

    pub(super) fn leave_gone(&mut self, path: RelPath, row: PathRow, is_ripe: bool) {
        if is_ripe {
            self.gathering.ripe.insert(path.clone());
            self.gathering.gone_dirs.insert(path, Some(row));
        } else {
            self.gone.push((path, row));
        }
    }

    /// What was found gone in earlier passes may be what comes now.
    pub(super) fn note_old_missing(&mut self) {
        if self.gathering.walks.is_empty() {
            return;
        }
        for (path, (_, row)) in self.missing.iter().filter(|(_, (_, row))| is_dir(row)) {
            self.gathering.note_old(path, row);
            self.gathering.look_back.insert(path.clone());
        }
    }

    fn waits_for_rows(&self) -> bool {
        self.asks.values().any(|ask| matches!(ask, Ask::GoneRows(_) | Ask::OldDirs(_)))
    }

    /// Whether gathering goes on at once, when all that was found before was taken.
    pub(super) fn gathers_on(&self) -> bool {
        let pages = |ask: &Ask| matches!(ask, Ask::Walk | Ask::Rows | Ask::OldRows);
        self.step == Step::Gather && !self.waits_for_rows() && !self.asks.values().any(pages)
    }

    /// Both ends of a directory that is walked stay in the batch until something of what it holds was seen.
    fn is_full(&self) -> bool {
        let begins = self.gathering.walking.as_ref().is_some_and(|walking| !walking.begun);
        !begins && self.todo.len() + self.gone.len() >= self.gathered_max
    }

    pub(super) fn gather(&mut self, now: Now, out: &mut Outbox) {
        if self.waits_for_rows() {
            return;
        }
        loop {
            if self.is_full() {
                return self.gathered(now, out);
            }
            if let Some(mut walking) = self.gathering.walking.take() {
                if walking.lost {
                    if walking.waits_for_rows() {
                        self.gathering.walking = Some(walking);
                        return;
                    }
                    self.lose_walk(walking);
                    continue;
                }
                match self.walk_on(&mut walking) {
                    Walked::Over => {}
                    Walked::Full => self.gathering.walking = Some(walking),
                    Walked::Waits => {
                        self.ask_pages(&mut walking, out);
                        self.gathering.walking = Some(walking);
                        return;
                    }
                }
                continue;
            }
            if !self.gathering.walks.is_empty() {
                let pages = self.gathering.next_look_back();
                if !pages.is_empty() {
                    return self.ask_old_dirs(pages, out);
                }
            }
            if let Some(walk) = self.gathering.walks.pop_front() {
                self.begin_walk(walk);
                continue;
            }
            if let Some((dir, start)) = self.gathering.gone_page.take() {
                let query = self.page_beneath(&dir, &start);
                let token = out.store(StoreOp::Load { queries: [query].into() });
                self.asks.insert(token, Ask::GoneRows(dir));
                return;
            }
            if let Some((dir, row)) = self.gathering.next_gone() {
                self.gone.extend(row.map(|row| (dir.clone(), row)));
                self.gathering.gone_page = Some((dir, Vec::new()));
                continue;
            }
            return self.gathered(now, out);
        }
    }

    fn begin_walk(&mut self, walk: Walk) {
        let Walk { dir, inode, new } = walk;
        let old = match self.gathering.old_dirs.remove(&inode) {
            Some((old, row)) if old != dir => {
                self.gathering.gone_dirs.remove(&old);
                self.gathering.moved.insert(old.clone(), dir.clone());
                // Both ends of the directory itself go into this batch.
                self.gone.push((old.clone(), row));
                let (rows, from) = (VecDeque::new(), Vec::new());
                Some(OldPlace { dir: old, rows, from, asked: false, done: false, later: None })
            }
            _ => None,
        };
        if let Some(seen) = new {
            self.take(dir.clone(), seen);
        }
        self.next_walk += 1;
        self.gathering.walking = Some(Walking {
            walk: self.next_walk,
            dir,
            merge: Merge::new(),
            next: None,
            rows_from: Vec::new(),
            asked_entries: false,
            asked_rows: false,
            begun: false,
            lost: false,
            later: None,
            old,
        });
    }

    /// The directory was gone again when its walk began, and the hint of that follows: nothing is known of its end.
    fn lose_walk(&mut self, walking: Walking) {
        self.todo.retain(|todo| todo.path != walking.dir);
        let Some(old) = walking.old else { return };
        self.gathering.moved.remove(&old.dir);
        if let Some(at) = self.gone.iter().position(|(path, _)| *path == old.dir) {
            let (path, row) = self.gone.swap_remove(at);
            self.gathering.note_old(&path, &row);
            // It was seen a moment ago.
            self.missing.remove(&path);
            self.leave_gone(path, row, self.full);
        }
    }

    fn walk_on(&mut self, walking: &mut Walking) -> Walked {
        loop {
            if walking.begun && self.is_full() {
                return Walked::Full;
            }
            let seen = walking.next.take().or_else(|| walking.merge.poll());
            if seen.is_none() && !walking.merge.is_finished() {
                return Walked::Waits;
            }
            if let Some(old) = &mut walking.old {
                // The rows of the old place come up to the same place as the walk.
                let here = seen.as_ref().map(|seen| seen.path.rebase(&walking.dir, &old.dir));
                let is_next = |(path, _): &&(RelPath, PathRow)| match &here {
                    None => true,
                    Some(here) => here.as_ref().is_some_and(|here| path <= here),
                };
                if old.rows.front().filter(is_next).is_some()
                    && let Some((path, row)) = old.rows.pop_front()
                {
                    let at = seen.as_ref().filter(|_| here == Some(Some(path.clone())));
                    self.take_old(old, path, row, at);
                    walking.next = seen;
                    continue;
                }
                if old.rows.is_empty() && !old.done {
                    walking.next = seen;
                    return Walked::Waits;
                }
            }
            let Some(seen) = seen else { return Walked::Over };
            self.take_walked(walking, seen);
        }
    }

    /// Takes what a walk found at a path.
    fn take_walked(&mut self, walking: &mut Walking, seen: SeenAt) {
        let SeenAt { path, observation } = seen;
        if walking.later.as_ref().is_some_and(|dir| path.is_beneath(dir)) {
            return;
        }
        if !matches!(observation, Seen::Gone(_) | Seen::Unobserved) {
            self.missing.remove(&path);
            self.held.remove(&path);
        }
        match observation {
            Seen::Same | Seen::Unobserved => {}
            Seen::Gone(row) if is_dir(&row) && self.gathering.gone_dirs.len() < LATER_MAX => {
                walking.later = Some(path.clone());
                self.dir_is_gone(path, row, self.full);
            }
            Seen::New(stamp, _) if stamp.kind == Kind::Dir && self.comes_later(walking, &path, &stamp) => {
                walking.later = Some(path.clone());
                let walk = Walk { dir: path, inode: stamp.inode, new: Some(observation) };
                self.gathering.walks.push_back(walk);
            }
            other => self.take(path, other),
        }
    }

    /// Whether a new directory is walked on its own, beside the rows of where it was.
    fn comes_later(&self, walking: &Walking, path: &RelPath, stamp: &Stamp) -> bool {
        let here = walking.old.as_ref().and_then(|old| path.rebase(&walking.dir, &old.dir));
        // Which directories are gone is known only when all were looked at.
        let unknown = self.full && walking.dir.is_root() && self.found != Found::WithoutBase;
        self.gathering.walks.len() < LATER_MAX
            && (unknown || self.gathering.was_elsewhere(stamp.inode, here.as_ref()))
    }

    /// Takes a row of where the directory that is walked was before; `at` is what is at the same place in it now.
    fn take_old(&mut self, old: &mut OldPlace, path: RelPath, row: PathRow, at: Option<&SeenAt>) {
        if row.disk.is_none() || old.later.as_ref().is_some_and(|dir| path.is_beneath(dir)) {
            return;
        }
        if !is_dir(&row) {
            return self.gone.push((path, row));
        }
        if self.gathering.moved.contains_key(&path) {
            old.later = Some(path);
            return;
        }
        let there = at.and_then(|seen| stamp_of(&seen.observation)).filter(|stamp| stamp.kind == Kind::Dir);
        if there.is_some_and(|stamp| !self.gathering.was_elsewhere(stamp.inode, Some(&path))) {
            return self.gone.push((path, row));
        }
        old.later = Some(path.clone());
        let is_ripe = self.is_ripe(&path);
        self.leave_gone(path, row, is_ripe);
    }

    fn ask_pages(&mut self, walking: &mut Walking, out: &mut Outbox) {
        if walking.merge.wants_entries() && !walking.asked_entries {
            walking.asked_entries = true;
            let op =
                DiskOp::Walk { root: self.root, walk: walking.walk, dir: walking.dir.clone(), limit: PAGE };
            self.asks.insert(out.disk(op), Ask::Walk);
        }
        if walking.merge.wants_rows() && !walking.asked_rows {
            walking.asked_rows = true;
            let query = self.page_beneath(&walking.dir, &walking.rows_from);
            self.asks.insert(out.store(StoreOp::Load { queries: [query].into() }), Ask::Rows);
        }
        if let Some(old) = walking.old.as_mut().filter(|old| old.rows.is_empty() && !old.done && !old.asked) {
            old.asked = true;
            let query = self.page_beneath(&old.dir, &old.from);
            self.asks.insert(out.store(StoreOp::Load { queries: [query].into() }), Ask::OldRows);
        }
    }

    /// A page of the rows beneath a directory; without a start the first.
    fn page_beneath(&self, dir: &RelPath, start: &[u8]) -> Query {
        let (first, end) = layout::beneath(self.root, dir);
        let start = if start.is_empty() { first } else { start.to_vec() };
        Query::Range { space: Space::Path, start, end, limit: PAGE }
    }

    fn ask_old_dirs(&mut self, pages: Vec<(RelPath, Vec<u8>)>, out: &mut Outbox) {
        let queries = pages.iter().map(|(dir, start)| self.page_beneath(dir, start)).collect();
        let token = out.store(StoreOp::Load { queries });
        self.asks.insert(token, Ask::OldDirs(pages.into_iter().map(|(dir, _)| dir).collect()));
    }

    /// Rows of vanished directories came: the directories among them are noted.
    pub(super) fn old_dirs_came(
        &mut self,
        dirs: Vec<RelPath>,
        answers: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
        peers: &PeerTable,
    ) {
        for (dir, rows) in dirs.into_iter().zip(answers) {
            let next = next_page(&rows);
            for (path, row) in decode_rows(rows, peers) {
                self.gathering.note_old(&path, &row);
                self.gathering.look_back.remove(&path);
            }
            self.gathering.look_pages.extend(next.map(|next| (dir, next)));
        }
    }

    /// A page of rows came.
    pub(super) fn rows_came(&mut self, ask: Ask, rows: Vec<(Vec<u8>, Vec<u8>)>, peers: &PeerTable) {
        let next = next_page(&rows);
        let rows = decode_rows(rows, peers);
        let gathering = &mut self.gathering;
        match ask {
            Ask::Rows => {
                let Some(walking) = &mut gathering.walking else { return };
                walking.asked_rows = false;
                walking.merge.push_rows(rows.collect(), next.is_none());
                walking.rows_from = next.unwrap_or_default();
            }
            Ask::OldRows => {
                let Some(old) = gathering.walking.as_mut().and_then(|walking| walking.old.as_mut()) else {
                    return;
                };
                (old.asked, old.done) = (false, next.is_none());
                old.rows.extend(rows);
                old.from = next.unwrap_or_default();
            }
            Ask::GoneRows(dir) => {
                let rows = rows.filter(|(path, row)| row.disk.is_some() && !gathering.has_moved(path, &dir));
                self.gone.extend(rows);
                gathering.gone_page = next.map(|next| (dir, next));
            }
            _ => {}
        }
    }

    /// A page of a walk came.
    pub(super) fn walked(&mut self, result: Result<DiskDone, DiskError>, now: Now) {
        let Some(walking) = &mut self.gathering.walking else { return };
        walking.asked_entries = false;
        let begins = !core::mem::replace(&mut walking.begun, true);
        match result {
            Ok(DiskDone::Walked { unobserved, .. })
                if begins
                    && unobserved
                        .iter()
                        .any(|(dir, error)| *dir == walking.dir && *error == DiskError::NotFound) =>
            {
                walking.lost = true;
            }
            Ok(DiskDone::Walked { entries, unobserved, unusable, done }) => {
                let special = entries.iter().filter(|entry| entry.stamp.kind == Kind::Other);
                let room = SPECIAL_MAX.saturating_sub(self.special.len());
                self.special.extend(special.map(|entry| entry.path.clone()).take(room));
                let dirs = unobserved.iter().map(|(dir, _)| dir.clone()).collect();
                walking.merge.push_entries(entries, dirs, done);
                for (dir, error) in unobserved {
                    self.note_unreadable(dir, error, now);
                }
                for (dir, name) in unusable {
                    self.note_unusable(dir, &name, true);
                }
            }
            failed => {
                walking.merge.fail_walk();
                let (dir, error) = (walking.dir.clone(), failed.err().unwrap_or(DiskError::Io));
                self.note_unreadable(dir, error, now);
            }
        }
    }
}
