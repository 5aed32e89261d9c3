//! Paths that failed: why, and when they are tried again.

use super::{FAILURES_MAX, Failure, Trouble, Work};
use crate::files::path::RelPath;
use crate::io::disk::{DiskError, Kind};
use crate::share::finish::{Finished, Outcome};
use crate::share::task::Task;
use crate::time::{Now, retry_pause};

impl Work {
    /// Why a path failed, if it did.
    pub fn failure(&self, path: &RelPath) -> Option<&Failure> {
        self.failures.get(path)
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = (&RelPath, &Failure)> {
        self.failures.iter()
    }

    /// Forgets what failed, so that everything is tried again now.
    pub fn retry_all(&mut self) {
        self.failures.clear();
        self.wake();
    }

    /// Forgets that a path failed: another version is wanted there.
    pub fn forget_failure(&mut self, path: &RelPath) {
        self.failures.remove(path);
    }

    pub(super) fn fail(&mut self, path: RelPath, trouble: Trouble, now: Now) {
        if trouble == Trouble::Disk(DiskError::WrongKind) {
            // What stands in the way may be in step by itself, and so be looked at by nobody.
            self.pages.push_back(path.ancestors().filter(|dir| !dir.is_root()).collect());
        }
        self.no_space |= trouble == Trouble::Disk(DiskError::NoSpace);
        self.pause(path.clone(), trouble, now);
        let outcome = match trouble {
            Trouble::Disk(DiskError::Changed | DiskError::Exists | DiskError::WrongKind) => Outcome::Changed,
            _ => Outcome::Failed,
        };
        self.finished.push(Finished { path, outcome });
    }

    /// Whether a task would bring something into the archive while that is full; then its path waits.
    pub fn holds_back(&mut self, task: &Task, now: Now) -> bool {
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
        let pause = retry_pause(self.failures.get(&path).map(|failure| failure.pause));
        if self.failures.len() < FAILURES_MAX || self.failures.contains_key(&path) {
            let (retry_at, sweep) = (now.mono.plus(pause), self.sweeps);
            self.failures.insert(path, Failure { trouble, retry_at, pause, due: false, sweep });
        }
    }
}
