//! Contents that take long to read have a queue of their own, so that no pass waits for them. What was read is kept
//! until the next pass meets the path with the same stamp; so all judging stays in passes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::contents::hashes;
use super::{Ask, HASH_BYTES, HASH_PATHS, Hint, Survey};
use crate::engine::outbox::Outbox;
use crate::files::local::Found;
use crate::files::path::RelPath;
use crate::files::reconcile::stamp_matches;
use crate::files::row::DiskState;
use crate::io::disk::Kind;
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::time::{Now, WallTime};

/// A larger file than this is not read within a pass,
pub(super) const LARGE_BYTES: u64 = 64 << 20;
/// nor what comes behind so many bytes of one gathering, unless it may be the other end of a move.
pub(super) const PASS_BYTES: u64 = 512 << 20;
/// Paths that may wait here; what comes behind them is read within its pass.
const WAITING_MAX: usize = 10_000;
/// Operations that are under way at once.
const AT_ONCE: usize = 3;

#[derive(Debug)]
enum State {
    Waiting(u64),
    Reading,
    Read(DiskState),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// In what situation the path was found.
    found: Found,
    /// Whether the first look through the folder found it, which is not over before it is read.
    first: bool,
    /// Whether it was read before the present look through the folder began, which will meet it.
    old: bool,
}

/// Files that are to be read, are being read, or were read and not judged yet.
#[derive(Debug, Default)]
pub(super) struct Large {
    entries: BTreeMap<RelPath, Entry>,
    /// Their order; what is not waiting any more is passed over.
    queue: VecDeque<RelPath>,
}

impl Large {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn holds_first(&self) -> bool {
        self.entries.values().any(|entry| entry.first)
    }

    /// Nothing that could be read is at a path any more, or the row knows it.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.entries.remove(path);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.queue.clear();
    }

    pub(super) fn begin_full(&mut self) {
        for entry in self.entries.values_mut() {
            entry.old = matches!(entry.state, State::Read(_));
        }
    }

    pub(super) fn end_full(&mut self) {
        self.entries.retain(|_, entry| !entry.old);
    }

    /// The next paths to read together.
    fn next(&mut self) -> Vec<RelPath> {
        let (mut batch, mut bytes) = (Vec::new(), 0u64);
        while let Some(path) = self.queue.front() {
            if let Some(entry) = self.entries.get_mut(path)
                && let State::Waiting(size) = entry.state
            {
                bytes = bytes.saturating_add(size);
                if !batch.is_empty() && (bytes > HASH_BYTES || batch.len() >= HASH_PATHS) {
                    break;
                }
                entry.state = State::Reading;
                batch.push(path.clone());
            }
            self.queue.pop_front();
        }
        batch
    }
}

impl Survey {
    /// Gives the pass what was read for it.
    pub(super) fn take_large(&mut self) {
        if self.large.is_empty() {
            return;
        }
        for todo in &mut self.todo {
            let Some(entry) = self.large.entries.get(&todo.path) else { continue };
            let State::Read(disk) = &entry.state else { continue };
            if stamp_matches(&disk.stamp, &todo.stamp) {
                (todo.content, todo.found) = (Some(disk.clone()), Some(entry.found));
            }
            // With another stamp it was written to since, and is read again as what it is now.
            self.large.entries.remove(&todo.path);
        }
    }

    /// Takes what would take long to read out of the pass.
    pub(super) fn leave_large(&mut self) {
        let (found, first) = (self.found, self.full && !self.looked);
        // Nobody waits behind the first look, and the ends of a move are to be judged together.
        let bytes_max = if first || !self.gone.is_empty() { u64::MAX } else { PASS_BYTES };
        let (large, mut bytes) = (&mut self.large, 0u64);
        self.todo.retain(|todo| {
            if todo.stamp.kind != Kind::File || todo.content.is_some() {
                return true;
            }
            let size = todo.stamp.size;
            bytes = bytes.saturating_add(size);
            if size <= LARGE_BYTES && bytes <= bytes_max {
                large.entries.remove(&todo.path);
                return true;
            }
            bytes -= size;
            if large.entries.contains_key(&todo.path) {
                return false;
            }
            if large.entries.len() >= WAITING_MAX {
                return true;
            }
            large
                .entries
                .insert(todo.path.clone(), Entry { state: State::Waiting(size), found, first, old: false });
            large.queue.push_back(todo.path.clone());
            false
        });
    }

    /// Reads on.
    pub(super) fn hash_large(&mut self, now: Now, out: &mut Outbox) {
        let under_way = self.asks.values().filter(|ask| matches!(ask, Ask::HashLarge(..))).count();
        for _ in under_way..AT_ONCE {
            let paths = self.large.next();
            if paths.is_empty() {
                return;
            }
            let token = out.disk(DiskOp::Hash { root: self.root, paths: paths.clone() });
            self.asks.insert(token, Ask::HashLarge(paths, now.wall));
        }
    }

    pub(super) fn large_hashed(
        &mut self,
        paths: Vec<RelPath>,
        result: Result<DiskDone, DiskError>,
        since: WallTime,
        now: Now,
    ) {
        let results = hashes(result, paths.len());
        for (path, result) in paths.into_iter().zip(results) {
            let Some(disk) = self.read(path.clone(), result, since, now) else {
                self.large.entries.remove(&path);
                continue;
            };
            if let Some(entry) = self.large.entries.get_mut(&path) {
                (entry.state, entry.old) = (State::Read(disk), false);
                // It was quiet for as long as it was read.
                let ripe = Hint { first: now.mono, last: now.mono, quiet: Duration::ZERO };
                self.hints.entry(path).or_insert(ripe);
            }
        }
    }
}
