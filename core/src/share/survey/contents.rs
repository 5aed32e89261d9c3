//! Reads what a pass gathered.

use alloc::vec::Vec;

use super::{Ask, HASH_BYTES, HASH_PATHS, HASHES_MAX, HINTS_MAX, LINK_TARGET, QUIET, Survey, UNREADABLE_MAX};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::reconcile::{GRAIN_DEFAULT, settled};
use crate::files::row::DiskState;
use crate::index::record::EntryContent;
use crate::io::disk::{self, Hashed, HashedContent, Kind};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::time::{Now, WallTime};

/// What a disk operation says of each of its `count` paths.
pub(super) fn hashes(result: Result<DiskDone, DiskError>, count: usize) -> Vec<Result<Hashed, DiskError>> {
    disk::per_item(result, count, |done| match done {
        DiskDone::Hashed(results) => Some(results),
        _ => None,
    })
}

impl Survey {
    pub(super) fn hash(&mut self, now: Now, out: &mut Outbox) {
        let under_way = self.asks.values().filter(|ask| matches!(ask, Ask::Hash(..))).count();
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
            self.asks.insert(token, Ask::Hash(batch, now.wall));
        }
        if !self.asks.values().any(|ask| matches!(ask, Ask::Hash(..))) {
            self.hashed(now, out);
        }
    }

    pub(super) fn hash_done(
        &mut self,
        batch: &[usize],
        result: Result<DiskDone, DiskError>,
        since: WallTime,
        now: Now,
    ) {
        for (&at, result) in batch.iter().zip(hashes(result, batch.len())) {
            let Some((path, kind)) = self.todo.get(at).map(|todo| (todo.path.clone(), todo.stamp.kind))
            else {
                continue;
            };
            if kind == Kind::Link && matches!(result, Err(DiskError::BadName)) {
                if self.unreadable.len() < UNREADABLE_MAX {
                    self.unreadable.insert(path, LINK_TARGET.into());
                }
                continue;
            }
            self.todo[at].content = self.read(path, result, since, now);
        }
    }

    /// What was read at a path, not before `since`; if nothing was, sees to it that it is tried again or told.
    pub(super) fn read(
        &mut self,
        path: RelPath,
        result: Result<Hashed, DiskError>,
        since: WallTime,
        now: Now,
    ) -> Option<DiskState> {
        match result {
            Ok(hashed) => {
                let content = match hashed.content {
                    HashedContent::File(sha256) => EntryContent::File { size: hashed.stamp.size, sha256 },
                    HashedContent::Link(target) => EntryContent::Link(target),
                    // It became one since it was gathered: what lies in it has not been listed.
                    HashedContent::Dir => {
                        self.hint(path, now);
                        return None;
                    }
                };
                let settled = settled(&hashed.stamp, since, self.grain);
                self.note_readable(&path);
                if !settled && self.young.len() < HINTS_MAX {
                    self.young.insert(path);
                    self.young_at.get_or_insert(now.mono.plus(GRAIN_DEFAULT + QUIET));
                }
                return Some(DiskState { stamp: hashed.stamp, content, settled });
            }
            Err(DiskError::Changed | DiskError::NotFound | DiskError::WrongKind) => self.hint(path, now),
            Err(error) => self.note_unreadable(path, error, now),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{path, stamp};
    use crate::ids::RootId;
    use crate::time::Instant;

    #[test]
    fn what_became_a_directory_is_listed_before_it_is_known() {
        let mut survey = Survey::new(RootId(1));
        let hashed = Hashed { stamp: stamp(&EntryContent::Dir, 1), content: HashedContent::Dir };
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        assert_eq!(survey.read(path("a"), Ok(hashed), WallTime(0), now), None);
        assert!(survey.hints.contains_key(&path("a")));
    }
}
