//! The plan as a table, and run to its end from any state.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::files::conflict;
use crate::files::fixture::*;
use crate::files::local::{Found, LocalChange, Observed, local_change};
use crate::files::row::Base;
use crate::ids::PeerId;
use crate::index::clock::Clock;
use crate::index::merge::join;
use crate::index::record::{Change, Meta};
use crate::io::disk::Kind;

mod trees;

/// One path of a share, with the index around it.
#[derive(Clone, Debug)]
struct World {
    path: RelPath,
    row: PathRow,
    records: BTreeMap<Uuid, Record>,
    implied_dir: bool,
    target: Target,
    conflict_made: bool,
    policy: Policy,
}

impl World {
    fn new() -> World {
        World {
            path: path("a"),
            row: PathRow::default(),
            records: BTreeMap::new(),
            implied_dir: false,
            target: Target::Free,
            conflict_made: false,
            policy: Policy::FULL,
        }
    }

    /// In step with this record.
    fn in_step(record: &Record) -> World {
        let mut world = World::new();
        world.records.insert(record.uuid, record.clone());
        world.row.base = Base::Index(record.uuid);
        world.row.disk = entry(record).filter(|_| !record.deleted()).map(|value| disk(value.content.clone()));
        world
    }

    /// The index takes this version in.
    fn learn(mut self, record: &Record) -> World {
        self.store(record);
        self
    }

    fn store(&mut self, record: &Record) {
        let old = self.records.get(&record.uuid);
        let new = old.map_or_else(|| record.clone(), |old| join(old, record));
        if let Some(old) = old.filter(|old| **old != new) {
            self.row.keep_base(old);
        }
        self.records.insert(record.uuid, new);
    }

    fn holds(mut self, content: Option<EntryContent>) -> World {
        self.row.disk = content.map(disk);
        self
    }

    fn with<R>(&self, run: impl FnOnce(&View<'_>) -> R) -> R {
        let here = |record: &&Record| self.path.is_key(&record.key);
        let live: Vec<&Record> = self.records.values().filter(here).filter(|r| !r.deleted()).collect();
        let dead: Vec<&Record> = self.records.values().filter(here).filter(|r| r.deleted()).collect();
        let base_now = self.row.base_uuid().and_then(|uuid| self.records.get(&uuid));
        run(&View {
            path: &self.path,
            row: &self.row,
            shown: conflict::shown(&live, self.implied_dir),
            implied_dir: self.implied_dir,
            base: self.row.resolve_base(base_now),
            base_now,
            dead: &dead,
            target: self.target,
            conflict_made: self.conflict_made,
            policy: self.policy,
        })
    }

    fn step(&self) -> Step {
        self.with(plan)
    }
}

const DIR: EntryContent = EntryContent::Dir;

fn link() -> EntryContent {
    EntryContent::Link("t".into())
}

fn word(step: &Step) -> &'static str {
    match step {
        Step::Nothing => "nothing",
        Step::Adopt { .. } => "adopt",
        Step::SetMeta { .. } => "set meta",
        Step::Forget => "forget",
        Step::KeepImplied => "keep implied",
        Step::MakeDir { uuid: Some(_), .. } => "make dir",
        Step::MakeDir { uuid: None, .. } => "make implied dir",
        Step::PutLink { replaces: None, .. } => "put link",
        Step::PutLink { .. } => "replace by link",
        Step::BringFile { replaces: None, .. } => "bring",
        Step::BringFile { delta: true, .. } => "bring by delta",
        Step::BringFile { .. } => "replace",
        Step::MoveTo { .. } => "move",
        Step::Remove { .. } => "remove",
        Step::RemoveDir { .. } => "remove dir",
        Step::LocalChange => "local change",
        Step::Conflict => "conflict",
        Step::Rewrite => "rewrite",
        Step::Wait(Reason::Unwanted) => "unwanted",
        Step::Wait(Reason::OnDemand) => "on demand",
        Step::Wait(Reason::NotCaughtUp) => "not caught up",
        Step::Wait(Reason::NotKnown) => "not known",
        Step::Wait(Reason::Hidden) => "hidden",
        Step::Wait(Reason::TargetTaken) => "target taken",
        Step::Wait(Reason::DirInTheWay) => "dir in the way",
        Step::Wait(Reason::Unusable) => "unusable",
    }
}

#[track_caller]
fn check(world: &World, expect: &str) {
    assert_eq!(word(&world.step()), expect, "{world:#?}");
}

#[test]
fn nothing_here_and_the_index_wants_something() {
    let of = |content| World::new().learn(&record(1, "/a", content, 1, 1));
    check(&World::new(), "nothing");
    check(&of(file(1)), "bring");
    check(&of(DIR), "make dir");
    check(&of(link()), "put link");
    check(&World { implied_dir: true, ..World::new() }, "make implied dir");
    // An implied directory comes before a file.
    check(&World { implied_dir: true, ..of(file(1)) }, "make implied dir");
    check(&World { implied_dir: true, ..of(DIR) }, "make dir");
    let on_demand = Policy { want: Want::OnDemand, ..Policy::FULL };
    check(&World { policy: on_demand, ..of(file(1)) }, "on demand");
    check(&World { policy: on_demand, ..of(DIR) }, "make dir");
    check(&World { policy: on_demand, ..of(link()) }, "put link");
    let mut odd = record(1, "/a", DIR, 1, 1);
    odd.value = Value::Json("7".into());
    check(&World::new().learn(&odd), "unusable");
    check(&World::new().learn(&deleted(&file_record(1, "/a", 1, 1), 2, 2)), "nothing");
}

#[test]
fn in_step_and_the_index_went_on() {
    let old = file_record(1, "/a", 1, 1);
    check(&World::in_step(&old), "nothing");
    check(&World::in_step(&old).learn(&edited(&old, file(2), 2, 2)), "bring by delta");
    check(&World::in_step(&old).learn(&edited(&old, link(), 2, 2)), "replace by link");
    check(&World::in_step(&old).learn(&edited(&old, DIR, 2, 2)), "remove");
    check(&World::in_step(&old).learn(&edited(&old, file(1), 2, 2)), "adopt");
    check(&World::in_step(&old).learn(&moved(&old, "/b", 2, 2)), "move");
    check(&World::in_step(&old).learn(&deleted(&old, 2, 2)), "remove");
    check(&World { implied_dir: true, ..World::in_step(&old) }, "hidden");
    let mut chmod = moved(&old, "/a", 2, 2);
    chmod.meta_change = chmod.key_change;
    chmod.meta.unix_mode = Some(0o755);
    let world = World::in_step(&old).learn(&chmod);
    assert_eq!(
        world.step(),
        Step::SetMeta { uuid: old.uuid, stamp: stamp(&file(1), 1), mode: Some(0o755), mtime_ns: None }
    );
    chmod.meta.mtime = Some(WallTime(99));
    assert!(matches!(
        World::in_step(&old).learn(&chmod).step(),
        Step::SetMeta { mtime_ns: Some(99), mode: Some(0o755), .. }
    ));
    let dir = record(1, "/a", DIR, 1, 1);
    check(&World::in_step(&dir).learn(&edited(&dir, file(1), 2, 2)), "remove dir");
    check(&World::in_step(&dir).learn(&deleted(&dir, 2, 2)), "remove dir");
    let gone = World::in_step(&dir).learn(&deleted(&dir, 2, 2));
    check(&World { implied_dir: true, ..gone }, "keep implied");
    check(&World::in_step(&dir).learn(&moved(&dir, "/b", 2, 2)), "remove dir");
    // Two directories moved into each other: both paths exist, and none moves beneath itself.
    check(
        &World { implied_dir: true, ..World::in_step(&dir).learn(&moved(&dir, "/b/a", 2, 2)) },
        "keep implied",
    );
    check(&World::in_step(&dir).learn(&moved(&dir, "/a/b", 2, 2)), "remove dir");
}

#[test]
fn removals_wait_until_everything_is_known() {
    let old = file_record(1, "/a", 1, 1);
    let half = Policy { known: false, ..Policy::FULL };
    let removed = World::in_step(&old).learn(&deleted(&old, 2, 2));
    check(&World { policy: half, ..removed.clone() }, "not known");
    // An edit needs not wait, nor does a move.
    check(
        &World { policy: half, ..World::in_step(&old).learn(&edited(&old, file(2), 2, 2)) },
        "bring by delta",
    );
    check(&World { policy: half, ..World::in_step(&old).learn(&moved(&old, "/b", 2, 2)) }, "move");
    let replaced = removed.learn(&file_record(2, "/a", 2, 3));
    check(&World { policy: half, ..replaced.clone() }, "not known");
    check(&replaced, "replace");
}

#[test]
fn moves_meet_what_is_there() {
    let old = file_record(1, "/a", 1, 1);
    let gone = World::in_step(&old).learn(&moved(&old, "/b", 2, 2));
    check(&World { target: Target::Taken, ..gone.clone() }, "target taken");
    check(&World { target: Target::Holds, ..gone.clone() }, "remove");
    check(&World { target: Target::Unwanted, ..gone.clone() }, "remove");
    let swap = gone.learn(&file_record(2, "/a", 2, 3));
    check(&swap, "move");
    check(&World { target: Target::Taken, ..swap.clone() }, "target taken");
    check(&World { target: Target::Cycle, ..swap.clone() }, "replace");
    // Nothing of what was here is wanted where the record moved to.
    let mut later = World { target: Target::Taken, ..swap };
    later = later.learn(&edited(&moved(&old, "/b", 2, 2), file(7), 2, 4));
    check(&later, "replace");
    later.policy.known = false;
    check(&later, "not known");
    let dir = record(1, "/a", DIR, 1, 1);
    let gone = World::in_step(&dir).learn(&moved(&dir, "/b", 2, 2));
    check(&World { target: Target::Taken, ..gone }, "remove dir");
    let nowhere = World::in_step(&old).learn(&moved(&old, "/.clearskies", 2, 2));
    check(&nowhere, "unusable");
    check(&nowhere.clone().learn(&file_record(2, "/a", 2, 3)), "replace");
    check(&World { implied_dir: true, ..nowhere.clone() }, "remove");
    check(
        &World { implied_dir: true, policy: Policy { known: false, ..Policy::FULL }, ..nowhere },
        "not known",
    );
}

#[test]
fn a_changed_disk_is_a_local_change_first() {
    let old = file_record(1, "/a", 1, 1);
    for now in [
        old.clone(),
        edited(&old, file(2), 2, 2),
        deleted(&old, 2, 2),
        moved(&old, "/b", 2, 2),
        edited(&old, DIR, 2, 2),
    ] {
        for content in [file(7), link(), DIR] {
            if entry(&now).is_some_and(|value| value.content == content) && !now.deleted() {
                continue;
            }
            check(&World::in_step(&old).learn(&now).holds(Some(content)), "local change");
        }
    }
    check(&World::in_step(&old).holds(None), "local change");
    check(&World::in_step(&old).learn(&edited(&old, file(2), 2, 2)).holds(None), "local change");
    check(&World::in_step(&old).learn(&edited(&old, file(2), 2, 2)).holds(Some(file(2))), "adopt");
    check(&World::in_step(&old).learn(&deleted(&old, 2, 2)).holds(None), "forget");
    check(&World::in_step(&old).learn(&moved(&old, "/b", 2, 2)).holds(None), "forget");
}

#[test]
fn nothing_is_shut_to_its_owner() {
    for (content, bits) in [(file(1), 0o477), (DIR, 0o777)] {
        let mut shut = record(1, "/a", content, 1, 1);
        shut.meta.unix_mode = Some(0o077);
        assert_eq!(wanted_meta(&shut).0, Some(bits));
    }
}

#[test]
fn what_has_no_base() {
    let mut world = World::new().holds(Some(file(1)));
    check(&world, "local change");
    check(&world.clone().learn(&file_record(1, "/a", 1, 1)), "adopt");
    check(&world.clone().learn(&file_record(1, "/a", 2, 1)), "local change");
    let dead = deleted(&file_record(1, "/a", 1, 1), 1, 2);
    check(&world.clone().learn(&dead), "remove");
    check(&world.clone().learn(&dead).learn(&file_record(2, "/a", 2, 1)), "replace");
    check(&world.clone().learn(&deleted(&file_record(1, "/a", 2, 1), 1, 2)), "local change");
    world.policy.caught_up = false;
    check(&world, "not caught up");
    check(&world.clone().learn(&dead), "not caught up");
    check(&world.clone().learn(&file_record(1, "/a", 1, 1)), "adopt");
    world.policy.want = Want::Nothing;
    check(&world, "unwanted");
    let mut ignored = World::in_step(&file_record(1, "/a", 1, 1));
    ignored.policy.want = Want::Nothing;
    check(&ignored, "forget");
}

#[test]
fn losers_are_kept() {
    let old = file_record(1, "/a", 1, 1);
    let mine = edited(&old, file(2), 3, 2);
    let theirs = edited(&old, file(3), 2, 5);
    let lost = World::in_step(&mine).learn(&theirs);
    check(&lost, "conflict");
    check(&World { conflict_made: true, ..lost.clone() }, "bring by delta");
    check(&World { policy: Policy { known: false, ..Policy::FULL }, ..lost.clone() }, "not known");
    check(&World { policy: Policy { author: false, ..Policy::FULL }, ..lost.clone() }, "bring by delta");
    // The same, met through a third party that merged the two.
    check(&World::in_step(&mine).learn(&join(&theirs, &mine)), "conflict");
    // The winner keeps its path; who holds the other makes the conflict file.
    check(&World::in_step(&theirs).learn(&mine), "adopt");
    // Equal content is none.
    check(&World::in_step(&mine).learn(&edited(&old, file(2), 2, 5)), "adopt");
    // A loser to a deleted value takes its place.
    let dead = World::in_step(&mine).learn(&deleted(&theirs, 2, 6));
    check(&dead, "rewrite");
    check(&World { conflict_made: true, ..dead.clone() }, "remove");
    check(&World { policy: Policy { author: false, ..Policy::FULL }, ..dead }, "remove");
    // A delete that had seen this version takes it away.
    check(&World::in_step(&mine).learn(&deleted(&mine, 2, 6)), "remove");
    // A delete of an older version does not.
    check(&World::in_step(&mine).learn(&deleted(&old, 2, 6)), "adopt");
}

#[test]
fn losers_are_kept_where_their_record_moved_on() {
    let old = file_record(1, "/a", 1, 1);
    let mine = edited(&old, file(2), 3, 2);
    let theirs = edited(&moved(&old, "/b", 2, 4), file(3), 2, 5);
    let lost = World::in_step(&mine).learn(&theirs);
    // It follows, and the conflict is met there.
    check(&lost, "move");
    check(&World { target: Target::Taken, ..lost.clone() }, "target taken");
    let half = Policy { known: false, ..Policy::FULL };
    let reader = Policy { author: false, ..Policy::FULL };
    let nowhere = World::in_step(&mine).learn(&edited(&moved(&old, "/.clearskies", 2, 4), file(3), 2, 5));
    check(&nowhere, "unusable");
    let needed = World { implied_dir: true, ..nowhere };
    check(&needed, "conflict");
    check(&World { conflict_made: true, ..needed.clone() }, "remove");
    check(&World { policy: reader, ..needed }, "remove");
    for target in [Target::Holds, Target::Cycle, Target::Unwanted] {
        let there = World { target, ..lost.clone() };
        check(&there, "conflict");
        check(&World { conflict_made: true, ..there.clone() }, "remove");
        check(&World { policy: half, ..there.clone() }, "not known");
        check(&World { policy: reader, ..there.clone() }, "remove");
        check(&there.clone().learn(&file_record(2, "/a", 9, 7)), "conflict");
    }
    // What moved without an edit, or after it was seen, has lost nothing.
    let followed = World::in_step(&mine).learn(&moved(&mine, "/b", 2, 4));
    check(&World { target: Target::Holds, ..followed }, "remove");
    let seen = edited(&moved(&mine, "/b", 2, 4), file(3), 2, 5);
    check(&World { target: Target::Holds, ..World::in_step(&mine).learn(&seen) }, "remove");
}

#[test]
fn directories_are_left_for_what_they_hold() {
    let dir = record(1, "/a", DIR, 1, 1);
    let mut left = World::in_step(&dir).learn(&deleted(&dir, 2, 2));
    left.row.leave_dir();
    check(&left, "nothing");
    let mut emptied = left.clone();
    assert!(emptied.row.recheck_dir() && !emptied.row.recheck_dir());
    check(&emptied, "remove dir");
    check(&World { implied_dir: true, ..emptied.clone() }, "keep implied");
    check(&emptied.learn(&file_record(2, "/a", 2, 3)), "remove dir");
    check(&World { implied_dir: true, ..left.clone() }, "keep implied");
    check(&left.learn(&file_record(2, "/a", 2, 3)), "dir in the way");
    let mut made = World::new().holds(Some(DIR));
    check(&made, "local change");
    made.row.implied = true;
    check(&made, "remove dir");
    check(&World { implied_dir: true, ..made.clone() }, "nothing");
    made.row.leave_dir();
    check(&made, "nothing");
}

#[test]
fn putting_back() {
    let old = file_record(1, "/a", 1, 1);
    let back = |world: &World| world.with(put_back);
    assert_eq!(word(&back(&World::in_step(&old).holds(Some(file(2))))), "replace");
    assert_eq!(word(&back(&World::in_step(&old).holds(None))), "bring");
    assert_eq!(word(&back(&World::in_step(&old).holds(Some(DIR)))), "remove dir");
    assert_eq!(word(&back(&World::new().holds(Some(file(2))))), "remove");
    assert_eq!(word(&back(&World::in_step(&old))), "nothing");
}

/// What a run of the plan has kept.
#[derive(Default)]
struct Kept(Vec<EntryContent>);

impl World {
    /// Does what the step says, as an executor would. Returns false at rest.
    fn apply(&mut self, step: Step, kept: &mut Kept, dirs_are_full: bool, rev: u64) -> bool {
        let here = self.row.disk.clone();
        let done = |content: EntryContent, mode: Option<u32>, mtime_ns: Option<i64>| {
            let mut disk = disk(content);
            disk.stamp.mode = mode.unwrap_or(0o666);
            if disk.stamp.kind == Kind::File {
                disk.stamp.mtime_ns = mtime_ns.unwrap_or(7);
            }
            Some(disk)
        };
        // Nothing but what base or a tombstone says may be taken from the disk.
        let mut take = |world: &World, stamp: Stamp| {
            let disk = here.clone().expect("something is there");
            assert_eq!(disk.stamp, stamp);
            let agreed = world.with(|view| {
                base_content(view) == Some(&disk.content)
                    || view.row.base_uuid().is_none() && was_deleted(view, &disk.content)
                    || disk.content == DIR
            });
            assert!(agreed, "an unknown content is taken away");
            kept.0.push(disk.content);
        };
        match step {
            Step::Nothing | Step::Wait(_) => return false,
            Step::Adopt { uuid } => self.row.base = Base::Index(uuid),
            Step::SetMeta { uuid, stamp, mode, mtime_ns } => {
                let disk = self.row.disk.as_mut().expect("something is there");
                assert_eq!(disk.stamp, stamp);
                disk.stamp.mode = mode.unwrap_or(stamp.mode);
                disk.stamp.mtime_ns = mtime_ns.unwrap_or(stamp.mtime_ns);
                self.row.base = Base::Index(uuid);
            }
            Step::Forget => (self.row.base, self.row.implied) = (Base::None, false),
            Step::KeepImplied => (self.row.base, self.row.implied) = (Base::None, true),
            Step::MakeDir { uuid, mode } => {
                assert_eq!(here, None);
                self.row.disk = done(DIR, mode, None);
                self.row.base = uuid.map_or(Base::None, Base::Index);
                self.row.implied = uuid.is_none();
            }
            Step::PutLink { uuid, target, mtime_ns, replaces } => {
                assert_eq!(here.as_ref().map(|disk| disk.stamp), replaces);
                replaces.into_iter().for_each(|stamp| take(self, stamp));
                self.row.disk = done(EntryContent::Link(target), None, mtime_ns);
                self.row.base = Base::Index(uuid);
            }
            Step::BringFile { uuid, size, sha256, mode, mtime_ns, replaces, .. } => {
                assert_eq!(here.as_ref().map(|disk| disk.stamp), replaces);
                replaces.into_iter().for_each(|stamp| take(self, stamp));
                self.row.disk = done(EntryContent::File { size, sha256 }, mode, mtime_ns);
                self.row.base = Base::Index(uuid);
            }
            Step::MoveTo { to, stamp } => {
                assert!(to != self.path && self.target == Target::Free);
                take(self, stamp);
                (self.row.disk, self.row.base) = (None, Base::None);
                self.target = Target::Holds;
            }
            Step::Remove { stamp } => {
                take(self, stamp);
                (self.row.disk, self.row.base) = (None, Base::None);
            }
            Step::RemoveDir { stamp } => {
                take(self, stamp);
                if dirs_are_full {
                    self.row.leave_dir();
                } else {
                    (self.row.disk, self.row.base, self.row.implied) = (None, Base::None, false);
                }
            }
            Step::LocalChange => self.author(rev),
            Step::Conflict => {
                let lost =
                    self.with(|view| view.base.and_then(|base| conflict::conflict_file(base, view.path)));
                kept.0.push(lost.expect("a file").value.content);
                self.conflict_made = true;
            }
            Step::Rewrite => {
                let base = self.with(|view| view.base.cloned()).expect("a base");
                let now = self.records[&base.uuid].clone();
                let mut new = edited(&now, file(0), 4, rev);
                new.value = base.value.clone();
                new.value_clock.join(&base.value_clock);
                self.store(&new);
                self.row.base = Base::Index(new.uuid);
            }
        }
        true
    }

    /// Stores what the local change means, as the index would.
    fn author(&mut self, rev: u64) {
        let disk = self.row.disk.clone();
        let change = self.with(|view| {
            let seen = disk.as_ref().map(|disk| Observed { stamp: &disk.stamp, content: &disk.content });
            local_change(view, seen, Found::WithoutBase, WallTime(1000))
        });
        let base = self.with(|view| view.base.cloned());
        let dot = |time: WallTime| Change { time, peer: PeerId([4; 16]), rev };
        let new = match change {
            LocalChange::None | LocalChange::Wait(_) => return,
            LocalChange::Meta { .. } => panic!("the content differs"),
            LocalChange::Adopt { uuid } => {
                self.row.base = Base::Index(uuid);
                return;
            }
            LocalChange::Create { revive, value, meta, time } => {
                let old = revive.and_then(|uuid| self.records.get(&uuid));
                let new = old.cloned().unwrap_or_else(|| record(9, "/a", DIR, 4, rev));
                changed(new, Some((value, Some(meta))), dot(time))
            }
            LocalChange::Edit { uuid, from_base, value, meta, time } => {
                let old = if from_base { base.expect("a base") } else { self.records[&uuid].clone() };
                assert_eq!(old.uuid, uuid);
                let mut old = old;
                if !from_base {
                    old.clock = Clock::default();
                    old.deleted_clock = Clock::default();
                }
                changed(old, Some((value, meta)), dot(time))
            }
            LocalChange::Delete { time, .. } => changed(base.expect("a base"), None, dot(time)),
        };
        let uuid = new.uuid;
        self.row.base = Base::Older(Box::new(new.clone()));
        self.store(&new);
        if self.records[&uuid] == new {
            self.row.base = Base::Index(uuid);
        }
    }
}

/// The record with this change; without a value it is deleted.
fn changed(mut record: Record, value: Option<(EntryValue, Option<Meta>)>, dot: Change) -> Record {
    record.clock.set(dot.peer, dot.rev);
    record.update = dot;
    match value {
        None => record.deleted_clock = record.clock.clone(),
        Some((value, meta)) => {
            record.value = Value::Entry(value);
            record.value_change = dot;
            record.value_clock = record.clock.clone();
            if let Some(meta) = meta {
                (record.meta, record.meta_change) = (meta, dot);
            }
        }
    }
    record
}

fn any_content() -> impl Strategy<Value = EntryContent> {
    prop_oneof![3 => (1u8..4).prop_map(file), 1 => Just(DIR), 1 => Just(link())]
}

/// What others did to a record: edits, moves, chmods and deletes, made one after another or apart.
fn any_history() -> impl Strategy<Value = Vec<(u8, EntryContent, bool)>> {
    proptest::collection::vec((0u8..4, any_content(), any::<bool>()), 0..4)
}

fn play(first: &Record, history: &[(u8, EntryContent, bool)]) -> Record {
    let mut now = first.clone();
    for (at, (what, content, apart)) in history.iter().enumerate() {
        let from = if *apart { first } else { &now };
        let (peer, rev) = (2 + (at % 2) as u8, 10 + at as u64);
        let next = match what {
            0 => edited(from, content.clone(), peer, rev),
            1 => moved(from, if *apart { "/b" } else { "/a" }, peer, rev),
            2 => deleted(from, peer, rev),
            _ => {
                let mut new = moved(from, "/a", peer, rev);
                (new.meta.unix_mode, new.meta_change) = (Some(0o600), new.update);
                new
            }
        };
        now = join(&now, &next);
    }
    now
}

fn any_world() -> impl Strategy<Value = World> {
    let targets = [Target::Free, Target::Holds, Target::Taken, Target::Cycle, Target::Unwanted];
    let first = (any_content(), any_history(), 0usize..3);
    let second = proptest::option::of((any_content(), any_history()));
    let flags = any::<[bool; 6]>();
    let disk = proptest::option::of(proptest::option::of(any_content()));
    (first, second, disk, flags, proptest::sample::select(targets.to_vec())).prop_map(
        |((content, history, seen), second, other, flags, target)| {
            let first = record(1, "/a", content, 1, 1);
            let mut world = World::new();
            if flags[0] {
                // In step with some version on the way.
                let seen = seen.min(history.len());
                let base = play(&first, &history[..seen]);
                world = World::in_step(&base);
                if !world.path.is_key(&base.key) {
                    world = World::new();
                }
            }
            if flags[1] {
                world.store(&play(&first, &history));
            }
            if let Some((content, history)) = second {
                world.store(&play(&record(2, "/a", content, 3, 5), &history));
            }
            if let Some(content) = other {
                world = world.holds(content);
            }
            world.implied_dir = flags[2];
            world.target = target;
            let want = if flags[3] { Want::OnDemand } else { Want::Content };
            world.policy = Policy { known: flags[4], caught_up: flags[5], want, ..Policy::FULL };
            world
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// From any state the plan comes to rest, takes nothing that nobody knew of, and ends with the index.
    #[test]
    fn comes_to_rest_without_a_loss(mut world in any_world(), dirs_are_full in any::<bool>()) {
        let mut kept = Kept::default();
        let before = world.row.content().cloned();
        let mut rev = 1;
        let mut rest = |world: &mut World, kept: &mut Kept| {
            for _ in 0..12 {
                let step = world.step();
                rev += 1;
                if !world.apply(step, kept, dirs_are_full, rev) {
                    return true;
                }
            }
            false
        };
        prop_assert!(rest(&mut world, &mut kept), "no rest: {world:#?}");
        (world.policy.known, world.policy.caught_up) = (true, true);
        prop_assert!(rest(&mut world, &mut kept), "no rest: {world:#?}");
        // What was on disk is there, or was kept.
        if let Some(before) = before.filter(|before| *before != DIR) {
            let there = world.row.content() == Some(&before);
            prop_assert!(there || kept.0.contains(&before));
        }
        // At rest without waiting: the disk is what the index wants.
        if world.step() == Step::Nothing {
            let wanted = world.with(|view| Goal::of(view).content().cloned());
            let left = wanted.is_none() && world.row.content() == Some(&DIR) && dirs_are_full;
            prop_assert!(left || wanted.as_ref() == world.row.content(), "{world:#?}");
        }
        // A view that is at rest stays at rest.
        let step = world.step();
        prop_assert_eq!(world.step(), step);
    }
}
