//! What a pass found, turned into observations: moves matched, and the folder checked before absences are believed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::gather::Gathering;
use super::{Ask, DOUBT_ROUNDS, GoneMode, HINTS_MAX, RESCAN_FACTOR, RESCAN_FIRST, Step, Survey, Todo};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::reconcile::{Appeared, match_moves, stamp_matches};
use crate::files::row::DiskState;
use crate::ids::Uuid;
use crate::io::DiskOp;
use crate::io::disk::Kind;
use crate::share::local::{Doubt, Observation, What, Why};
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
        self.follow_records();
    }

    /// What lies where its record went by now was renamed by sync, which was kept from telling the database.
    fn follow_records(&mut self) {
        let new = self.todo.iter().enumerate().filter(|(_, todo)| todo.new);
        let live = new.flat_map(|(at, todo)| todo.row.live.iter().map(move |uuid| (*uuid, at)));
        let gone_to: BTreeMap<Uuid, usize> = live.collect();
        let followed = self.gone.iter().filter_map(|(from, row)| {
            let todo = &self.todo[*gone_to.get(&row.base_uuid()?)?];
            let (was, now) = (&row.disk.as_ref()?.stamp, &todo.stamp);
            let same = was.inode != 0 && (was.inode, was.kind) == (now.inode, now.kind);
            same.then(|| (from.clone(), todo.path.clone()))
        });
        let followed: BTreeMap<RelPath, RelPath> = followed.collect();
        self.moves.retain(|(from, _)| !followed.contains_key(from));
        self.moves.extend(followed);
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
        if self.may_be_emptied() {
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
        // What is new comes first: what is gone from a path where something else is now may be found there. Moves by
        // their source's order, so that a directory comes before what it holds.
        let (new, changed): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.todo).into_iter().partition(|todo| todo.new);
        // A directory has one name: one that was met twice was moved on meanwhile, and its record is to go with it.
        let is_dir = |todo: &&Todo| todo.stamp.kind == Kind::Dir && todo.stamp.inode != 0;
        let dirs_moved: BTreeSet<u64> = new
            .iter()
            .filter(|todo| from_of.contains_key(&todo.path))
            .filter(is_dir)
            .map(|todo| todo.stamp.inode)
            .collect();
        let is_twice = |todo: &Todo| {
            is_dir(&todo) && dirs_moved.contains(&todo.stamp.inode) && !from_of.contains_key(&todo.path)
        };
        let (twice, new): (Vec<_>, Vec<_>) = new.into_iter().partition(is_twice);
        twice.into_iter().for_each(|todo| self.hint_new_dir(todo.path, now));
        let mut instead = Vec::new();
        for todo in new.into_iter().chain(changed) {
            let Some(state) = todo.content else { continue };
            let moved_from = from_of.get(&todo.path).cloned();
            let seen = todo.row.disk.as_ref().map(|disk| disk.stamp);
            // What was read is what was seen together with the other end.
            let sure = self.sure.contains(&todo.path) && todo.stamp.inode == state.stamp.inode;
            let what = What::Holds { state, moved_from, sure };
            let found = todo.found.unwrap_or(found);
            let behind = gone.partition_point(|(at, _)| *at <= todo.path);
            let beneath = gone.get(behind).is_some_and(|(at, _)| at.starts_with(&todo.path));
            let replaces = todo.stamp.kind != Kind::Dir && beneath;
            let observation = Observation { path: todo.path, seen, what, found };
            if replaces {
                instead.push(observation);
            } else {
                self.ready.push_back(observation);
            }
        }
        let told = self.hand_over_gone(gone, found, now);
        instead.into_iter().for_each(|observation| self.hand_over_instead(observation, told, now));
        self.step = Step::Gather;
        if self.gathering.is_over() {
            self.end(now);
        }
    }

    /// A file or link stands where a directory was, of which something is gone. If that is `told`, and nothing more is
    /// to be read, it comes behind it.
    fn hand_over_instead(&mut self, observation: Observation, told: bool, now: Now) {
        let none = BTreeSet::new();
        let all_read = told && self.gathering.is_over();
        if all_read && self.may_tell(&observation.path, &none) || self.in_place_of.len() >= HINTS_MAX {
            self.ready.push_back(observation);
            return;
        }
        // It is found once more then, and what it was moved from with it.
        if let Some(from) = observation.what.moved_from() {
            self.hint(from.clone(), now);
        }
        self.in_place_of.insert(observation.path);
    }

    /// What cannot be judged alone is looked at again, as soon as the other path is not in work: together with that
    /// one, if it was moved from there, or seems to have been.
    pub fn note_doubted(&mut self, doubt: Doubt, busy: &BTreeSet<RelPath>, now: Now) {
        if busy.contains(&doubt.other) && self.behind.len() < HINTS_MAX {
            self.behind.insert(doubt.path.clone(), doubt);
            return;
        }
        let Doubt { path, other, state, why } = doubt;
        if why == Why::Moved && !busy.contains(&other) {
            self.doubts_overflowed |= self.hints.len() + 2 > HINTS_MAX;
            // The first ones stay where there are too many, so that each look is sure of some.
            if self.doubted.len() < HINTS_MAX {
                self.doubted.insert((other.clone(), path.clone()));
            }
        }
        // What was read too soon after its last change is read again anyway.
        if let Some(state) = state.filter(|state| state.settled) {
            if self.known.len() >= HINTS_MAX {
                self.known.clear();
            }
            self.known.insert(path.clone(), state);
        }
        self.hint(path, now);
        if why == Why::Moved {
            self.hint(other, now);
        }
    }

    /// Paths ceased to be in work: what waits for them is looked at.
    pub(super) fn look_behind(&mut self, busy: &BTreeSet<RelPath>, now: Now) {
        let (still, over): (BTreeMap<_, _>, BTreeMap<_, _>) =
            core::mem::take(&mut self.behind).into_iter().partition(|(_, doubt)| busy.contains(&doubt.other));
        self.behind = still;
        over.into_values().for_each(|doubt| self.note_doubted(doubt, busy, now));
    }

    /// Gives the pass what was read before, where that is unchanged.
    pub(super) fn take_known(&mut self) {
        if self.known.is_empty() {
            return;
        }
        for todo in &mut self.todo {
            let known = self.known.remove(&todo.path).filter(|disk| stamp_matches(&disk.stamp, &todo.stamp));
            todo.content = todo.content.take().or(known);
        }
    }

    /// Where something may have been moved away from: nothing is told of an end there before both ends were looked at
    /// together.
    pub fn is_doubted(&self, from: &RelPath) -> bool {
        let first = (from.clone(), RelPath::root());
        self.doubted.range(first..).next().is_some_and(|(other, _)| other == from)
    }

    /// Nothing is sure after a look that failed at some path, unless looks go on failing: whoever may not look there
    /// will not learn by waiting, and what is new meanwhile is as good as a copy.
    pub(super) fn judge_sure(&mut self, failed: bool) {
        if self.sure.is_empty() {
            return;
        }
        if !failed {
            self.failed_rounds = 0;
        } else if self.failed_rounds < DOUBT_ROUNDS {
            self.failed_rounds += 1;
            self.sure.clear();
        }
    }

    /// Both ends of what is doubted are looked at together, with all that may have been moved from the same path, or it
    /// is doubted once more when they are.
    pub(super) fn join_doubted(&mut self, hinted: &mut BTreeSet<RelPath>, busy: &BTreeSet<RelPath>) {
        let is_hinted = |(from, path): &&(RelPath, RelPath)| hinted.contains(from) || hinted.contains(path);
        let joined: BTreeSet<RelPath> =
            self.doubted.iter().filter(is_hinted).map(|(from, _)| from.clone()).collect();
        self.doubted.retain(|(from, path)| {
            let is_joined = joined.contains(from);
            if is_joined && !busy.contains(from) && !busy.contains(path) {
                hinted.extend([from.clone(), path.clone()]);
                self.sure.insert(path.clone());
            }
            !is_joined
        });
    }

    /// A look through the folder begins, of which nothing is sure: the two ends of a move may be found far apart. Only
    /// where one such look after another ends with more doubts than can be looked at (thousands of files that have two
    /// names each) the next is sure of some.
    pub(super) fn begin_full_doubted(&mut self, busy: &BTreeSet<RelPath>) {
        self.doubt_rounds = if self.doubts_overflowed { self.doubt_rounds + 1 } else { 0 };
        self.doubts_overflowed = false;
        for (from, path) in core::mem::take(&mut self.doubted) {
            if self.doubt_rounds >= DOUBT_ROUNDS && !busy.contains(&from) && !busy.contains(&path) {
                self.sure.insert(path);
            }
        }
    }

    pub(super) fn end(&mut self, now: Now) {
        self.step = Step::Rest;
        self.gathering = Gathering::default();
        self.sure.clear();
        if !self.full {
            return;
        }
        self.large.end_full();
        self.known.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{file, path, stamp};
    use crate::ids::RootId;
    use crate::io::DiskError;
    use crate::io::disk::Stamp;
    use crate::share::survey::Todo;
    use crate::time::{Instant, WallTime};

    #[test]
    fn what_waits_for_work_elsewhere_is_looked_at_after_it_and_not_read_again() {
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        let content = file(1);
        let state = DiskState { stamp: stamp(&content, 1), content, settled: true };
        for (why, sure, hinted) in [(Why::Moved, true, 2), (Why::Follows, false, 1)] {
            let mut survey = Survey::new(RootId(1));
            let doubt = Doubt { path: path("g"), other: path("f"), state: Some(state.clone()), why };
            let busy = BTreeSet::from([path("f")]);
            survey.note_doubted(doubt, &busy, now);
            survey.look_behind(&busy, now);
            assert!(survey.hints.is_empty(), "{why:?}: f is in work still");
            survey.look_behind(&BTreeSet::new(), now);
            assert_eq!((survey.hints.len(), survey.is_doubted(&path("f"))), (hinted, sure), "{why:?}");
            let todo = |stamp| Todo::new(path("g"), stamp, Default::default(), true);
            survey.todo.push(todo(state.stamp));
            survey.take_known();
            assert_eq!(survey.todo.pop().and_then(|todo| todo.content), Some(state.clone()));
            // Written to since, it is read.
            survey.known.insert(path("g"), state.clone());
            survey.todo.push(todo(Stamp { ctime_ns: state.stamp.ctime_ns + 1, ..state.stamp }));
            survey.take_known();
            assert!(survey.todo.pop().is_some_and(|todo| todo.content.is_none()));
        }
    }

    #[test]
    fn a_look_is_sure_of_some_where_those_before_it_left_too_many_doubts() {
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        let mut survey = Survey::new(RootId(1));
        for round in 1..=DOUBT_ROUNDS {
            for at in 0..HINTS_MAX + 1 {
                let (new, other) = (path(&alloc::format!("b{at}")), path(&alloc::format!("a{at}")));
                let doubt = Doubt { path: new, other, state: None, why: Why::Moved };
                survey.note_doubted(doubt, &BTreeSet::new(), now);
            }
            survey.pump(now, true, &BTreeSet::new(), 0, &mut Outbox::default());
            assert!(survey.full, "the hints were too many");
            let sure = if round == DOUBT_ROUNDS { HINTS_MAX } else { 0 };
            assert_eq!(survey.sure.len(), sure, "look {round}");
            survey.end(now);
        }
    }

    #[test]
    fn all_names_of_one_file_are_sure_after_one_look() {
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        let (mut survey, free) = (Survey::new(RootId(1)), BTreeSet::new());
        let from = path("first");
        let names: Vec<RelPath> = (0..300).map(|at| path(&alloc::format!("name{at}"))).collect();
        for name in &names {
            let doubt = Doubt { path: name.clone(), other: from.clone(), state: None, why: Why::Moved };
            survey.note_doubted(doubt, &free, now);
        }
        assert!(survey.is_doubted(&from) && !survey.is_doubted(&names[0]));
        // One of them is hinted at a moment before the others.
        let mut hinted = BTreeSet::from([names[7].clone()]);
        survey.join_doubted(&mut hinted, &free);
        assert!(names.iter().all(|name| survey.sure.contains(name) && hinted.contains(name)));
        assert!(hinted.contains(&from) && !survey.is_doubted(&from));
        // What is not there is met by a walk of the same look only if it came from elsewhere a moment ago.
        survey.hinted = names[..2].to_vec();
        survey.stamps = Some(alloc::vec![Err(DiskError::NotFound), Ok(stamp(&file(1), 1))]);
        survey.hint_rows = Some(alloc::vec![Default::default(), Default::default()]);
        survey.judge_hints(now);
        assert!(!survey.sure.contains(&names[0]) && survey.sure.contains(&names[1]));
        // And nothing is where the other end could not be looked at, unless that goes on.
        for round in 0..=DOUBT_ROUNDS {
            survey.sure.insert(names[1].clone());
            survey.hinted = alloc::vec![from.clone()];
            survey.stamps = Some(alloc::vec![Err(DiskError::Denied)]);
            survey.hint_rows = Some(alloc::vec![Default::default()]);
            survey.judge_hints(now);
            assert_eq!(survey.sure.is_empty(), round < DOUBT_ROUNDS, "round {round}");
        }
    }

    #[test]
    fn what_is_doubted_is_sure_only_when_both_ends_are_looked_at() {
        let mut survey = Survey::new(RootId(1));
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        let (new, from) = (path("new"), path("from"));
        let free = BTreeSet::new();
        let doubt = || Doubt { path: new.clone(), other: from.clone(), state: None, why: Why::Moved };
        for busy in [&new, &from] {
            survey.note_doubted(doubt(), &free, now);
            let mut hinted = BTreeSet::from([new.clone()]);
            survey.join_doubted(&mut hinted, &BTreeSet::from([busy.clone()]));
            assert!(survey.sure.is_empty() && !survey.is_doubted(&from) && hinted.len() == 1);
        }
        survey.note_doubted(doubt(), &free, now);
        survey.join_doubted(&mut BTreeSet::from([path("other")]), &free);
        assert!(survey.sure.is_empty() && survey.is_doubted(&from) && !survey.is_doubted(&new));
        for end in [&new, &from] {
            survey.note_doubted(doubt(), &free, now);
            let mut hinted = BTreeSet::from([end.clone()]);
            survey.join_doubted(&mut hinted, &free);
            assert!(survey.sure.remove(&new) && !survey.is_doubted(&from));
            assert_eq!(hinted, BTreeSet::from([new.clone(), from.clone()]));
        }
    }
}
