//! What a pass found, turned into observations: moves matched, and the folder checked before absences are believed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::gather::Gathering;
use super::{Ask, GoneMode, HINTS_MAX, RESCAN_FACTOR, RESCAN_FIRST, Step, Survey};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::reconcile::{Appeared, match_moves};
use crate::files::row::DiskState;
use crate::io::DiskOp;
use crate::share::local::{Observation, What};
use crate::time::Now;

impl Survey {
    /// Takes what was moved out of both lists' work. Content that came by a rename with the same inode, size and
    /// time need not be read again.
    pub(super) fn match_moves(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let appeared: Vec<Appeared> = self
            .todo
            .iter()
            .filter(|todo| todo.new && todo.row.live.is_empty())
            .map(|todo| Appeared {
                path: todo.path.clone(),
                stamp: todo.stamp,
                content: todo.content.as_ref().map(|disk| disk.content.clone()),
            })
            .collect();
        self.moves.clear();
        for found in match_moves(&self.gone, &appeared, &self.gathering.moved) {
            let from = self.gone.binary_search_by(|(path, _)| path.cmp(&found.from));
            let to = self.todo.binary_search_by(|todo| todo.path.cmp(&found.to));
            if let (Ok(from), Ok(to)) = (from, to) {
                let todo = &mut self.todo[to];
                if let (Some(was), None) = (&self.gone[from].1.disk, &todo.content) {
                    todo.content = Some(DiskState { stamp: todo.stamp, ..was.clone() });
                }
                self.moves.push((found.from, found.to));
            }
        }
    }

    /// All contents are known: moves by content are matched, and absences are believed only in a folder that is in
    /// order.
    pub(super) fn hashed(&mut self, now: Now, out: &mut Outbox) {
        self.match_moves();
        if self.gone.is_empty() {
            return self.hand_over(now);
        }
        self.step = Step::Check;
        let token = out.disk(DiskOp::CheckRoot { root: self.root });
        self.asks.insert(token, Ask::Check);
        self.emptied = false;
        if self.may_be_emptied(now) {
            self.next_walk += 1;
            let (root, walk) = (self.root, self.next_walk);
            let token = out.disk(DiskOp::Walk { root, walk, dir: RelPath::root(), limit: 1 });
            self.asks.insert(token, Ask::Left(walk));
        }
    }

    /// One of the checks ended well.
    pub(super) fn checked(&mut self, now: Now) {
        if !self.asks.values().any(|ask| matches!(ask, Ask::Check | Ask::Left(_))) {
            self.hand_over(now);
        }
    }

    /// Turns what was gathered into observations: what is there first, then what is gone.
    pub(super) fn hand_over(&mut self, now: Now) {
        let found = self.found;
        self.note_arrived(now.mono);
        let from_of: BTreeMap<RelPath, RelPath> =
            core::mem::take(&mut self.moves).into_iter().map(|(from, to)| (to, from)).collect();
        let moved: BTreeMap<&RelPath, &RelPath> = from_of.iter().map(|(to, from)| (from, to)).collect();
        let mut gone = core::mem::take(&mut self.gone);
        gone.retain(|(path, row)| {
            if let Some(to) = moved.get(path) {
                self.gathering.leave_beneath(path, row, to);
            }
            !moved.contains_key(path)
        });
        self.missing.retain(|path, _| !moved.contains_key(path));
        for path in moved.keys() {
            self.held.remove(path);
        }
        // Moves by their source's order, so that a directory comes before what it holds.
        for todo in core::mem::take(&mut self.todo) {
            let Some(state) = todo.content else { continue };
            let moved_from = from_of.get(&todo.path).cloned();
            let seen = todo.row.disk.as_ref().map(|disk| disk.stamp);
            let sure = self.sure.remove(&todo.path);
            let what = What::Holds { state, moved_from, sure };
            let found = todo.found.unwrap_or(found);
            self.ready.push_back(Observation { path: todo.path, seen, what, found });
        }
        self.hand_over_gone(gone, found, now);
        self.step = Step::Gather;
        if self.gathering.is_over() {
            self.end(now);
        }
    }

    /// What seems to be new may have been moved here from a path that was not known to be gone: both are looked at
    /// together, once, unless that other path is in work.
    pub fn note_doubted(&mut self, path: RelPath, from: RelPath, busy: &BTreeSet<RelPath>, now: Now) {
        if !busy.contains(&from) {
            if self.sure.len() >= HINTS_MAX {
                self.sure.clear();
            }
            self.sure.insert(path.clone());
        }
        self.hint(path, now);
        self.hint(from, now);
    }

    pub(super) fn end(&mut self, now: Now) {
        self.step = Step::Rest;
        self.gathering = Gathering::default();
        if !self.full {
            return;
        }
        self.large.end_full();
        self.looked = true;
        self.finished = true;
        if self.mode != GoneMode::Judged {
            self.budget.clear();
            self.mode = GoneMode::Judged;
        }
        let took = now.mono.since(self.began);
        self.rescan_at = Some(now.mono.plus(RESCAN_FIRST.max(took * RESCAN_FACTOR)));
    }
}
