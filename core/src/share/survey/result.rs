//! What a pass found, turned into observations: moves matched, absences believed or held back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Ask, GoneMode, HELD_PATHS_MAX, HINTS_MAX, RESCAN_FACTOR, RESCAN_FIRST, Step, Survey};
use crate::engine::outbox::Outbox;
use crate::files::budget::Verdict;
use crate::files::local::Found;
use crate::files::path::RelPath;
use crate::files::reconcile::{Appeared, match_moves};
use crate::files::row::{DiskState, PathRow};
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
        for found in match_moves(&self.gone, &appeared) {
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
            return self.hand_over(now, out);
        }
        self.step = Step::Check;
        let token = out.disk(DiskOp::CheckRoot { root: self.root });
        self.asks.insert(token, Ask::Check);
    }

    /// Turns what was gathered into observations: what is there first, then what is gone.
    pub(super) fn hand_over(&mut self, now: Now, out: &mut Outbox) {
        let found = match (self.full && !self.looked, self.without_base) {
            (true, true) => Found::WithoutBase,
            (true, false) => Found::Offline,
            _ => Found::Running,
        };
        let from_of: BTreeMap<RelPath, RelPath> =
            core::mem::take(&mut self.moves).into_iter().map(|(from, to)| (to, from)).collect();
        let moved: BTreeSet<&RelPath> = from_of.values().collect();
        let mut gone = core::mem::take(&mut self.gone);
        gone.retain(|(path, _)| !moved.contains(path));
        self.missing.retain(|path, _| !moved.contains(path));
        // Moves by their source's order, so that a directory comes before what it holds.
        for todo in core::mem::take(&mut self.todo) {
            let Some(state) = todo.content else { continue };
            let moved_from = from_of.get(&todo.path).cloned();
            let seen = todo.row.disk.as_ref().map(|disk| disk.stamp);
            let what = What::Holds { state, moved_from };
            self.ready.push_back(Observation { path: todo.path, seen, what, found });
        }
        self.hand_over_gone(gone, found, now);
        self.step = Step::Gather;
        let over = self.walking.is_none() && self.walks.is_empty() && self.gone_dirs.is_empty();
        if over {
            self.end(now);
        } else {
            self.gather(now, out);
        }
    }

    pub(super) fn hand_over_gone(&mut self, gone: Vec<(RelPath, PathRow)>, found: Found, now: Now) {
        let mut ripe = Vec::new();
        for (path, row) in gone {
            let since = self.missing.get(&path).map(|(since, _)| *since);
            if since.is_none() {
                self.missed_last = now.mono;
            }
            let since = since.unwrap_or(now.mono);
            if self.full || self.gone_from(since) <= now.mono || self.missing.len() >= HINTS_MAX {
                self.missing.remove(&path);
                ripe.push((path, row));
            } else {
                self.missing.insert(path, (since, row));
            }
        }
        if ripe.is_empty() {
            return;
        }
        let what = match self.mode {
            GoneMode::Restored => What::BringBack,
            GoneMode::Confirmed => What::Gone,
            GoneMode::Judged => {
                let count = ripe.len() as u64;
                if self.budget.note_gone(now, count, self.live) == Verdict::Held {
                    self.held.0 += count;
                    let room = HELD_PATHS_MAX.saturating_sub(self.held.1.len());
                    self.held.1.extend(ripe.into_iter().map(|(path, _)| path).take(room));
                    return;
                }
                self.budget.note_sent(count);
                What::Gone
            }
        };
        // Children before their directory, so that at no moment something lies beneath nothing.
        for (path, row) in ripe.into_iter().rev() {
            let seen = row.disk.as_ref().map(|disk| disk.stamp);
            self.ready.push_back(Observation { path, seen, what: what.clone(), found });
        }
    }

    pub(super) fn end(&mut self, now: Now) {
        self.step = Step::Rest;
        if !self.full {
            return;
        }
        self.looked = true;
        self.finished = true;
        if self.mode != GoneMode::Judged {
            self.budget.confirm();
            self.mode = GoneMode::Judged;
        }
        let took = now.mono.since(self.began);
        self.rescan_at = Some(now.mono.plus(RESCAN_FIRST.max(took * RESCAN_FACTOR)));
    }
}
