//! Absences: when they are believed, and whether so many of them are told (sync.md, Deletes).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::{GoneMode, HINTS_MAX, Survey};
use crate::files::budget::Verdict;
use crate::files::local::Found;
use crate::files::path::RelPath;
use crate::files::reconcile::inode_key;
use crate::files::row::PathRow;
use crate::index::record::EntryContent;
use crate::share::local::{Observation, Vanished, What};
use crate::time::{Instant, Now};

/// Held deletes that are remembered one by one; more are only counted.
const HELD_MAX: usize = 100_000;
/// How long it is remembered that a file appeared under a new name, and how many of them are.
const ARRIVED_KEPT: Duration = Duration::from_secs(60);
const ARRIVED_MAX: usize = 50_000;
/// With so many absences it is asked at once whether they are too many; fewer wait until all are known.
const VANISHED_MAX: usize = 2000;
/// So many files at once that leave nothing in the folder are taken for a missing disk.
pub(super) const EMPTIED_FILES: usize = 2;

/// Deletes that are held back.
#[derive(Debug, Default)]
pub struct Held {
    paths: BTreeSet<RelPath>,
    more: u64,
}

impl Held {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.paths.len() as u64 + self.more
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Their paths, as far as they are remembered.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.iter()
    }

    /// Whether this path is one of them.
    pub fn contains(&self, path: &RelPath) -> bool {
        self.paths.contains(path)
    }

    /// Whether one of them lies beneath this path.
    fn any_beneath(&self, path: &RelPath) -> bool {
        self.paths.range(path.clone()..).take_while(|at| at.starts_with(path)).any(|at| at != path)
    }

    pub(super) fn insert(&mut self, path: RelPath) {
        if self.paths.len() < HELD_MAX {
            self.paths.insert(path);
        } else if !self.paths.contains(&path) {
            self.more += 1;
        }
    }

    pub(super) fn remove(&mut self, path: &RelPath) -> bool {
        self.paths.remove(path)
    }
}

fn is_file(row: &PathRow) -> bool {
    row.content().is_some_and(|content| *content != EntryContent::Dir)
}

impl Survey {
    /// Whether what is gone in this pass is enough to have emptied the folder, so that this is worth a look.
    pub(super) fn may_be_emptied(&self) -> bool {
        let files = self.gone.iter().filter(|(path, row)| is_file(row) && self.is_ripe(path));
        self.mode == GoneMode::Judged && files.take(EMPTIED_FILES).count() == EMPTIED_FILES
    }

    /// Whether a path was not there when it was last looked at, and is not known to be gone for good yet.
    pub fn is_missing(&self, path: &RelPath) -> bool {
        self.missing.contains_key(path)
    }

    /// Whether a path has been gone for so long that it is not waited for. What became of it during this pass is named
    /// by hints that this pass does not look at.
    pub(super) fn is_ripe(&self, path: &RelPath) -> bool {
        let since = self.missing.get(path).map(|(since, _)| *since);
        self.full
            || since.is_some_and(|since| self.gone_from(since) <= self.began)
            || self.gathering.is_ripe_beneath(path)
    }

    /// Whether all that is missing beneath this path is looked at now, and none of it held back, so that what stands
    /// there instead may be told with it.
    pub(super) fn may_tell(&self, path: &RelPath, looked_at: &BTreeSet<RelPath>) -> bool {
        let beneath = self.missing.range(path.clone()..).take_while(|(at, _)| at.starts_with(path));
        beneath.into_iter().all(|(at, _)| looked_at.contains(at)) && !self.held.any_beneath(path)
    }

    /// Tells what is gone for good. False if it may be too much, and is not told yet.
    pub(super) fn hand_over_gone(&mut self, gone: Vec<(RelPath, PathRow)>, found: Found, now: Now) -> bool {
        let mut ripe = Vec::new();
        // What is still to be walked may be where it went.
        let walked = self.gathering.is_walked();
        for (path, row) in gone {
            let since = self.missing.get(&path).map(|(since, _)| *since);
            if since.is_none() {
                self.missed_last = now.mono;
            }
            let since = since.unwrap_or(now.mono);
            if walked && self.is_ripe(&path) || self.missing.len() >= HINTS_MAX {
                self.missing.remove(&path);
                if self.full || self.gathering.is_left(&path, &row) {
                    ripe.push((path, row));
                } else {
                    self.leave_gone(path, row, true);
                }
            } else {
                self.missing.insert(path, (since, row));
            }
        }
        if self.mode == GoneMode::Judged {
            // A walk may have met the new name before the end of the old one was heard of.
            let (lies_elsewhere, rest) =
                ripe.into_iter().partition(|(path, row)| self.has_arrived(path, row));
            self.tell_gone(lies_elsewhere, &What::Gone { counts: false }, found);
            ripe = rest;
        }
        if ripe.is_empty() {
            return true;
        }
        let what = match self.mode {
            GoneMode::Restored => What::BringBack,
            GoneMode::Confirmed => What::Gone { counts: false },
            GoneMode::Judged => {
                let (count, files) = (ripe.len(), ripe.iter().filter(|(_, row)| is_file(row)).count());
                if self.is_too_much(now.mono, count, files) {
                    // Among them may be what sync itself took away a moment ago.
                    What::Vanished
                } else {
                    self.telling += count as u64;
                    What::Gone { counts: true }
                }
            }
        };
        self.tell_gone(ripe, &what, found);
        !matches!(what, What::Vanished)
    }

    fn tell_gone(&mut self, gone: Vec<(RelPath, PathRow)>, what: &What, found: Found) {
        // Children before their directory, so that at no moment something lies beneath nothing.
        for (path, row) in gone.into_iter().rev() {
            let seen = row.disk.as_ref().map(|disk| disk.stamp);
            self.ready.push_back(Observation { path, seen, what: what.clone(), found });
        }
    }

    /// Remembers for a while what appeared under a new name.
    pub(super) fn note_arrived(&mut self, now: Instant) {
        self.arrived.retain(|_, (_, at)| now.since(*at) < ARRIVED_KEPT);
        for todo in self.todo.iter().filter(|todo| todo.new) {
            let Some(key) = inode_key(&todo.stamp) else { continue };
            if self.arrived.len() < ARRIVED_MAX || self.arrived.contains_key(&key) {
                self.arrived.insert(key, (todo.path.clone(), now));
            }
        }
    }

    /// Whether what lay at a path appeared under another name.
    fn has_arrived(&self, path: &RelPath, row: &PathRow) -> bool {
        let key = row.disk.as_ref().and_then(|disk| inode_key(&disk.stamp));
        key.and_then(|key| self.arrived.get(&key)).is_some_and(|(arrived, _)| arrived != path)
    }

    /// Whether so many more paths, so many of them files, may not be told to be gone.
    fn is_too_much(&mut self, now: Instant, paths: usize, files: usize) -> bool {
        let unsent = self.held.count().saturating_add(self.telling).saturating_add(paths as u64);
        let many = self.budget.judge(now, unsent, self.live) == Verdict::Held;
        // What is held is decided as a whole, with what goes meanwhile.
        many || !self.held.is_empty() || self.emptied && files >= EMPTIED_FILES
    }

    /// Takes over what a commit said of absences: deletes that were authored, and what would be some.
    pub fn note_absent(&mut self, deleted: u64, mut vanished: Vec<Vanished>, now: Now) {
        self.budget.note_sent(now.mono, deleted);
        self.vanished.append(&mut vanished);
        let files = self.vanished.iter().filter(|one| one.file).count();
        // More of them make it no less.
        if self.vanished.len() >= VANISHED_MAX && self.is_too_much(now.mono, self.vanished.len(), files) {
            core::mem::take(&mut self.vanished).into_iter().for_each(|one| self.held.insert(one.path));
        }
    }

    /// All absences of a pass are known for what they are: they are told, or held.
    pub(super) fn judge_vanished(&mut self, now: Now) {
        let vanished = core::mem::take(&mut self.vanished);
        if vanished.is_empty() {
            return;
        }
        let files = vanished.iter().filter(|one| one.file).count();
        let held = self.is_too_much(now.mono, vanished.len(), files);
        for Vanished { path, seen, found, .. } in vanished {
            if held {
                self.held.insert(path);
            } else {
                self.telling += 1;
                self.ready.push_back(Observation { path, seen, what: What::Gone { counts: true }, found });
            }
        }
    }
}
