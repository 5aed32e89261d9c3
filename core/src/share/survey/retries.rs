//! Looks that failed, and when they are tried again: what the disk could not read a moment ago may be there now, and
//! no hint says so.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Survey, UNREADABLE_MAX};
use crate::files::path::RelPath;
use crate::time::{Instant, Now, retry_pause};

#[derive(Clone, Copy, Debug)]
struct Retry {
    /// `None` while it is being tried.
    at: Option<Instant>,
    pause: Duration,
}

/// Paths at which a look failed.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<RelPath, Retry>);

impl Retries {
    /// A look that was no try but followed a hint begins with short pauses again: something changed there.
    fn failed(&mut self, path: RelPath, now: Instant) {
        let tried = self.0.get(&path).filter(|last| last.at.is_none());
        let pause = retry_pause(tried.map(|last| last.pause));
        self.0.insert(path, Retry { at: Some(now.plus(pause)), pause });
    }

    fn take_due(&mut self, now: Instant) -> Vec<RelPath> {
        let due = self.0.iter_mut().filter(|(_, retry)| retry.at.is_some_and(|at| at <= now));
        due.map(|(path, retry)| {
            retry.at = None;
            path.clone()
        })
        .collect()
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|retry| retry.at).min()
    }
}

impl Survey {
    /// A look at a path failed and is to be tried again. Of more than can be told none is tried before the folder is
    /// looked through.
    pub(super) fn retry_look(&mut self, path: &RelPath, now: Now) {
        if self.unreadable.contains_key(path) {
            let unreadable = &self.unreadable;
            if self.retries.0.len() >= 2 * UNREADABLE_MAX {
                self.retries.0.retain(|path, _| unreadable.contains_key(path));
            }
            self.retries.failed(path.clone(), now.mono);
        }
    }

    /// A look at a path ended well.
    pub(super) fn note_readable(&mut self, path: &RelPath) {
        if self.unreadable.remove(path).is_some() {
            self.retries.0.remove(path);
        }
    }

    /// Nothing is at a path any more.
    pub(super) fn forget_unreadable(&mut self, gone: &RelPath) {
        self.unreadable.retain(|path, _| !path.starts_with(gone));
        self.retries.0.retain(|path, _| !path.starts_with(gone));
    }

    /// Hints at what is to be tried again now.
    pub(super) fn retry_looks(&mut self, now: Now) {
        for path in self.retries.take_due(now.mono) {
            if self.unreadable.contains_key(&path) {
                self.hint(path, now);
            } else {
                self.retries.0.remove(&path);
            }
        }
    }

    /// Whether a path, or a directory above it, could not be looked at.
    pub fn is_unseen(&self, path: &RelPath) -> bool {
        let unread = |path: &RelPath| self.unreadable.contains_key(path);
        !self.unreadable.is_empty() && (unread(path) || self.is_above_unseen(path))
    }

    /// Whether something above a path could not be looked at.
    pub fn is_above_unseen(&self, path: &RelPath) -> bool {
        !self.unreadable.is_empty() && path.ancestors().any(|dir| self.unreadable.contains_key(&dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::path;
    use crate::ids::RootId;
    use crate::io::DiskError;
    use crate::time::WallTime;

    fn now(seconds: u64) -> Now {
        Now { mono: Instant(seconds * 1_000_000_000), wall: WallTime(0) }
    }

    #[test]
    fn pauses_grow_up_to_the_last_and_begin_anew_after_a_success() {
        let mut survey = Survey::new(RootId(1));
        let mut at = 0;
        for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            survey.note_unreadable(path("a"), DiskError::Io, now(at));
            assert_eq!(survey.retries.next_at(), Some(now(at + pause).mono));
            survey.retry_looks(now(at + pause - 1));
            assert!(survey.hints.is_empty());
            at += pause;
            survey.retry_looks(now(at));
            assert!(survey.hints.remove(&path("a")).is_some() && survey.retries.next_at().is_none());
        }
        survey.note_unreadable(path("a"), DiskError::Io, now(at));
        survey.unreadable.clear();
        survey.retry_looks(now(at + 300));
        assert!(survey.hints.is_empty() && survey.retries.0.is_empty());
    }

    #[test]
    fn pauses_are_short_again_after_a_hint() {
        let mut survey = Survey::new(RootId(1));
        survey.note_unreadable(path("a"), DiskError::Io, now(0));
        survey.retry_looks(now(2));
        survey.note_unreadable(path("a"), DiskError::Io, now(2));
        assert_eq!(survey.retries.next_at(), Some(now(6).mono));
        survey.note_unreadable(path("a"), DiskError::Io, now(3));
        assert_eq!(survey.retries.next_at(), Some(now(5).mono));
        // As after a try that went well.
        for end in [Survey::note_readable, Survey::forget_unreadable] {
            survey.retry_looks(now(5));
            end(&mut survey, &path("a"));
            survey.note_unreadable(path("a"), DiskError::Io, now(6));
            assert_eq!(survey.retries.next_at(), Some(now(8).mono));
        }
    }

    #[test]
    fn no_more_are_tried_than_are_told() {
        let mut survey = Survey::new(RootId(1));
        for at in 0..=UNREADABLE_MAX {
            assert_eq!(survey.retries.0.len(), at.min(UNREADABLE_MAX));
            survey.note_unreadable(path(&alloc::format!("d{at}")), DiskError::Denied, now(0));
        }
        assert_eq!(survey.retries.0.len(), UNREADABLE_MAX);
        assert!(survey.is_unseen(&path("d0/x")) && !survey.is_unseen(&path("d")));
        assert!(survey.is_above_unseen(&path("d0/x")) && !survey.is_above_unseen(&path("d0")));
    }
}
