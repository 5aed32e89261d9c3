//! Paths that failed: why, and when they are tried again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Trouble, Work};
use crate::files::path::RelPath;
use crate::ids::Sha256;
use crate::index::record::Record;
use crate::io::disk::{DiskError, Kind};
use crate::share::archive_search::WANTED_MAX;
use crate::share::finish::{Finished, Outcome};
use crate::share::task::Task;
use crate::time::{Instant, Now, retry_pause};

/// Failures that are remembered with their reason.
pub(super) const FAILURES_MAX: usize = 10_000;
/// Each pause ends together with those that end in the same part of it: all are then planned by one sweep.
const PARTS: u32 = 4;

/// A path that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Why.
    pub trouble: Trouble,
    retry_at: Instant,
    pause: Duration,
    /// Whether its time has come, and the next sweep takes it.
    due: bool,
    /// The last sweep that found the path pending.
    pub(super) sweep: u64,
}

/// Paths that failed, and the order in which they are tried again.
#[derive(Debug, Default)]
pub(super) struct Failures {
    paths: BTreeMap<RelPath, Failure>,
    times: BTreeSet<(Instant, RelPath)>,
}

impl Failures {
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn get(&self, path: &RelPath) -> Option<&Failure> {
        self.paths.get(path)
    }

    pub(super) fn remove(&mut self, path: &RelPath) {
        if let Some(failure) = self.paths.remove(path) {
            self.times.remove(&(failure.retry_at, path.clone()));
        }
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&RelPath, &Failure) -> bool) {
        self.paths.retain(|path, failure| {
            let stays = stays(path, failure);
            if !stays {
                self.times.remove(&(failure.retry_at, path.clone()));
            }
            stays
        });
    }

    /// Notes that a sweep found a path pending; whether it is to be planned.
    pub(super) fn met(&mut self, path: &RelPath, sweep: u64) -> bool {
        self.paths.get_mut(path).is_none_or(|failure| {
            failure.sweep = sweep;
            failure.due
        })
    }

    /// When the next pause ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// Marks those whose pause has ended, and lets the next one begin; whether there were any.
    pub(super) fn mark_due(&mut self, now: Instant) -> bool {
        let later = self.times.split_off(&(Instant(now.0.saturating_add(1)), RelPath::root()));
        let due = core::mem::replace(&mut self.times, later);
        let any = !due.is_empty();
        for (_, path) in due {
            if let Some(failure) = self.paths.get_mut(&path) {
                failure.due = true;
                failure.retry_at = ends(failure.pause, now);
                self.times.insert((failure.retry_at, path));
            }
        }
        any
    }

    fn put(&mut self, path: RelPath, failure: Failure) {
        self.remove(&path);
        self.times.insert((failure.retry_at, path.clone()));
        self.paths.insert(path, failure);
    }
}

/// When a pause ends that begins now.
fn ends(pause: Duration, now: Instant) -> Instant {
    now.plus(pause).round_up(pause / PARTS)
}

impl Work {
    /// Why a path failed, if it did.
    pub fn failure(&self, path: &RelPath) -> Option<&Failure> {
        self.failures.get(path)
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = (&RelPath, &Failure)> {
        self.failures.paths.iter()
    }

    /// Forgets what failed, so that everything is tried again now.
    pub fn retry_all(&mut self) {
        self.failures = Failures::default();
        self.wake();
    }

    /// Tries at once what no peer had: its content was found here.
    pub fn retry_missing(&mut self) {
        self.failures.retain(|_, failure| failure.trouble != Trouble::NotAvailable);
        self.wake();
    }

    /// A content that no peer has, and that was not missing before.
    pub fn take_missing(&mut self) -> Option<(Sha256, u64)> {
        self.missing.pop()
    }

    pub(super) fn misses(&mut self, path: &RelPath, version: &Record) {
        let known = self.failures.get(path).is_some_and(|failure| failure.trouble == Trouble::NotAvailable);
        if let Some(sha256) = version.sha256().filter(|_| !known && self.missing.len() < WANTED_MAX) {
            self.missing.push((sha256, version.size()));
        }
    }

    /// Forgets that a path failed: another version is wanted there.
    pub fn forget_failure(&mut self, path: &RelPath) {
        self.failures.remove(path);
    }

    pub(super) fn fail(&mut self, path: RelPath, trouble: Trouble, now: Now) {
        self.no_space |= trouble == Trouble::Disk(DiskError::NoSpace);
        self.pause(path.clone(), trouble, now);
        let outcome = match trouble {
            Trouble::Disk(DiskError::Changed | DiskError::Exists | DiskError::WrongKind) => Outcome::Changed,
            _ => Outcome::Failed,
        };
        self.finished.push(Finished { path, outcome });
    }

    /// Whether a task would bring something into the archive while that is full, or fetch what there is no way to put
    /// in its place, because it is not known what stands above it (`unseen`); then its path waits.
    pub fn holds_back(&mut self, task: &Task, unseen: bool, now: Now) -> bool {
        if unseen && matches!(task, Task::Bring { .. }) {
            self.pause(task.path().clone(), Trouble::Unseen, now);
            return true;
        }
        let archives = match task {
            Task::Bring { replaces, .. } => replaces.is_some(),
            Task::Remove { stamp, .. } => stamp.kind != Kind::Dir,
            Task::MakeDir { .. } | Task::Rename { .. } | Task::SetMeta { .. } => false,
        };
        let holds = archives && self.archive_full;
        if holds {
            self.pause(task.path().clone(), Trouble::ArchiveFull, now);
        }
        holds
    }

    /// The archive became full, or has room again: then what waited for that goes on at once.
    pub fn set_archive_full(&mut self, full: bool) {
        self.archive_full = full;
        if !full {
            self.failures.retain(|_, failure| failure.trouble != Trouble::ArchiveFull);
            self.wake();
        }
    }

    /// Whether the volume was found full since the last call.
    pub fn take_no_space(&mut self) -> bool {
        core::mem::take(&mut self.no_space)
    }

    /// Leaves a path alone for a while, each time for longer.
    pub(super) fn pause(&mut self, path: RelPath, trouble: Trouble, now: Now) {
        if matches!(trouble, Trouble::Disk(DiskError::WrongKind | DiskError::Denied)) {
            // What stands in the way, and be it a link, may be in step by itself, and so be looked at by nobody.
            let tried = |dir: &RelPath| dir.is_root() || self.failures.get(dir).is_some();
            let page: Vec<RelPath> = path.ancestors().filter(|dir| !tried(dir)).collect();
            if !page.is_empty() && self.pages.back() != Some(&page) {
                self.pages.push_back(page);
            }
        }
        let pause = retry_pause(self.failures.get(&path).map(|failure| failure.pause));
        if self.failures.len() < FAILURES_MAX || self.failures.get(&path).is_some() {
            let (retry_at, sweep) = (ends(pause, now.mono), self.sweeps);
            self.failures.put(path, Failure { trouble, retry_at, pause, due: false, sweep });
        }
    }
}
