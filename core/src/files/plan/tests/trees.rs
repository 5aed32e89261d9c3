//! The plan over whole trees: from any index, base and disk it comes to rest, the disk then holds what the index says,
//! nothing that the user had is lost, and who has nothing arrives at the same tree.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use core::convert::Infallible;

use super::*;
use crate::files::conflict::HiddenFate;
use crate::index::author::{self, Author, Unmade};
use crate::index::merge::conflicts;

/// Few paths that contain one another, so that files stand where others have folders.
const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "d/d", "d/d/a", "e/a"];
/// Steps until a tree must be at rest.
const STEPS_MAX: usize = 400;

/// A share's folder and index on one machine.
#[derive(Clone, Debug)]
struct Trees {
    rows: BTreeMap<RelPath, PathRow>,
    records: BTreeMap<Uuid, Record>,
    archive: Vec<EntryContent>,
    author: Author,
    next_uuid: u64,
}

impl Around for &Trees {
    type Miss = Infallible;

    fn row(&mut self, path: &RelPath) -> Result<PathRow, Infallible> {
        Ok(Trees::row(self, path))
    }

    fn record(&mut self, uuid: Uuid) -> Result<Option<Arc<Record>>, Infallible> {
        Ok(self.records.get(&uuid).cloned().map(Arc::new))
    }
}

impl Trees {
    fn new() -> Trees {
        let author = Author { peer: PeerId([4; 16]), rev: 0, wall: WallTime(1000) };
        let (rows, records) = (BTreeMap::new(), BTreeMap::new());
        Trees { rows, records, archive: Vec::new(), author, next_uuid: 0 }
    }

    fn row(&self, path: &RelPath) -> PathRow {
        self.rows.get(path).cloned().unwrap_or_default()
    }

    fn row_mut(&mut self, path: &RelPath) -> &mut PathRow {
        self.rows.entry(path.clone()).or_default()
    }

    fn disk(&self, path: &RelPath) -> Option<&EntryContent> {
        self.rows.get(path).and_then(PathRow::content)
    }

    fn is_dir(&self, path: &RelPath) -> bool {
        path.is_root() || self.disk(path) == Some(&DIR)
    }

    /// What lies on the disk beneath a path.
    fn beneath(&self, path: &RelPath) -> Vec<RelPath> {
        let there = |(at, row): (&RelPath, &PathRow)| {
            (at != path && at.is_beneath(path) && row.disk.is_some()).then(|| at.clone())
        };
        self.rows.iter().filter_map(there).collect()
    }

    /// The whole disk.
    fn tree(&self) -> BTreeMap<String, EntryContent> {
        let there = |(path, row): (&RelPath, &PathRow)| Some((path.as_str().into(), row.content()?.clone()));
        self.rows.iter().filter_map(there).collect()
    }

    fn learn(&mut self, record: &Record) {
        let old = self.records.get(&record.uuid).cloned();
        let new = old.as_ref().map_or_else(|| record.clone(), |old| join(old, record));
        if let Some(old) = old.filter(|old| *old != new) {
            self.rows.values_mut().for_each(|row| _ = row.keep_base(&old));
        }
        self.records.insert(record.uuid, new);
    }

    fn live(&self, path: &RelPath) -> Vec<Record> {
        self.records.values().filter(|r| path.is_key(&r.key) && !r.deleted()).cloned().collect()
    }

    fn implied_dir(&self, path: &RelPath, live: &[Record]) -> bool {
        let beneath = |record: &Record| {
            !record.deleted()
                && RelPath::from_key(&record.key).is_some_and(|at| at != *path && at.is_beneath(path))
        };
        !live.iter().any(Record::is_dir) && self.records.values().any(beneath)
    }

    fn with<R>(&self, path: &RelPath, run: impl FnOnce(&View<'_>) -> R) -> R {
        let (row, live) = (self.row(path), self.live(path));
        let implied_dir = self.implied_dir(path, &live);
        let dead: Vec<&Record> =
            self.records.values().filter(|r| path.is_key(&r.key) && r.deleted()).collect();
        let live: Vec<&Record> = live.iter().collect();
        let base_now = row.base_uuid().and_then(|uuid| self.records.get(&uuid));
        let base = row.resolve_base(base_now);
        let lost = base.zip(base_now).filter(|(base, now)| conflicts(now, base)).map(|(base, _)| base);
        let made = |base: &Record| {
            self.records.contains_key(&conflict::conflict_id(base.uuid, &base.value_change).1)
        };
        run(&View {
            path,
            row: &row,
            shown: conflict::shown(&live, implied_dir),
            implied_dir,
            base,
            base_now,
            dead: &dead,
            target: target(path, row.content(), base_now, &mut &*self).unwrap_or_else(|never| match never {}),
            conflict_made: lost.is_some_and(made),
            policy: Policy::FULL,
        })
    }

    /// Makes the directories above a path where nothing is; whether they are all there.
    fn make_above(&mut self, path: &RelPath) -> bool {
        let above: Vec<RelPath> = path.ancestors().filter(|above| !above.is_root()).collect();
        if above.iter().any(|above| self.disk(above).is_some_and(|content| *content != DIR)) {
            return false;
        }
        for above in above {
            let row = self.row_mut(&above);
            if row.disk.is_none() {
                (row.disk, row.base, row.implied) = (Some(disk(DIR)), Base::None, true);
            }
        }
        true
    }

    /// Something went from this path: what lies above may be empty now.
    fn emptied(&mut self, path: &RelPath) {
        if let Some(above) = path.parent().filter(|above| !above.is_root()) {
            self.row_mut(&above).recheck_dir();
        }
    }

    /// Takes what is on disk here to the archive; nothing may go that no version or tombstone knows.
    fn take(&mut self, path: &RelPath, stamp: Stamp) {
        let here = self.row(path).disk.expect("something is there");
        assert_eq!(here.stamp, stamp);
        let agreed = here.content == DIR
            || self.with(path, |view| {
                base_content(view) == Some(&here.content)
                    || view.row.base_uuid().is_none() && was_deleted(view, &here.content)
            });
        assert!(agreed, "an unknown content is taken from {path:?}: {self:#?}");
        self.archive.push(here.content);
        let row = self.row_mut(path);
        (row.disk, row.base, row.implied) = (None, Base::None, false);
    }

    /// Puts content here, over what may be replaced; whether it could.
    fn put(
        &mut self,
        path: &RelPath,
        content: EntryContent,
        uuid: Option<Uuid>,
        replaces: Option<Stamp>,
    ) -> bool {
        assert_eq!(self.row(path).disk.map(|disk| disk.stamp), replaces, "{path:?}: {self:#?}");
        if !self.make_above(path) {
            return false;
        }
        replaces.into_iter().for_each(|stamp| self.take(path, stamp));
        let row = self.row_mut(path);
        row.disk = Some(disk(content));
        row.base = uuid.map_or(Base::None, Base::Index);
        row.implied = uuid.is_none();
        true
    }

    /// One step for one path; whether anything happened.
    fn advance(&mut self, path: &RelPath) -> bool {
        let live = self.live(path);
        let implied_dir = self.implied_dir(path, &live);
        if live.len() > 1 || implied_dir && !live.is_empty() {
            let refs: Vec<&Record> = live.iter().collect();
            let fates = conflict::resolve(&refs, implied_dir, path);
            for (uuid, fate) in &fates {
                let record = self.records[uuid].clone();
                let made = match fate {
                    HiddenFate::Rename { to, lost_to } => {
                        author::give_way(&mut self.author, &record, to.to_key(), *lost_to)
                    }
                    HiddenFate::Delete => author::delete(&mut self.author, &record),
                };
                self.learn(&made.expect("within limits"));
            }
            return !fates.is_empty();
        }
        let row = self.row(path);
        match self.with(path, plan) {
            Step::Nothing | Step::Wait(_) => return false,
            Step::Adopt { uuid } => {
                let row = self.row_mut(path);
                (row.base, row.implied) = (Base::Index(uuid), false);
            }
            Step::SetMeta { uuid, stamp, mode, mtime_ns } => {
                let row = self.row_mut(path);
                let disk = row.disk.as_mut().expect("something is there");
                assert_eq!(disk.stamp, stamp);
                disk.stamp.mode = mode.unwrap_or(stamp.mode);
                disk.stamp.mtime_ns = mtime_ns.unwrap_or(stamp.mtime_ns);
                row.base = Base::Index(uuid);
            }
            Step::Forget => self.row_mut(path).base = Base::None,
            Step::KeepImplied => {
                let row = self.row_mut(path);
                (row.base, row.implied) = (Base::None, true);
            }
            Step::MakeDir { uuid, .. } => return self.put(path, DIR, uuid, None),
            Step::PutLink { uuid, target, replaces, .. } => {
                return self.put(path, EntryContent::Link(target), Some(uuid), replaces);
            }
            Step::BringFile { uuid, size, sha256, replaces, .. } => {
                return self.put(path, EntryContent::File { size, sha256 }, Some(uuid), replaces);
            }
            Step::MoveTo { to, stamp } => {
                assert!(to != *path && self.disk(&to).is_none() && row.content() != Some(&DIR));
                assert_eq!(row.disk.as_ref().map(|disk| disk.stamp), Some(stamp));
                if !self.make_above(&to) {
                    return false;
                }
                let from = self.row_mut(path);
                let moved = (from.disk.take(), core::mem::take(&mut from.base));
                let there = self.row_mut(&to);
                (there.disk, there.base) = moved;
                there.implied = false;
                self.emptied(path);
            }
            Step::Remove { stamp } => {
                self.take(path, stamp);
                self.emptied(path);
            }
            Step::RemoveDir { stamp } => {
                if self.beneath(path).is_empty() {
                    self.take(path, stamp);
                    self.emptied(path);
                } else {
                    self.row_mut(path).leave_dir();
                }
            }
            Step::LocalChange => {
                let seen = row.disk.clone();
                self.survey(path, seen, Found::Running);
            }
            Step::Conflict => {
                let (base, now) = self.with(path, |view| (view.base.cloned(), view.base_now.cloned()));
                let (base, now) = (base.expect("a base"), now.expect("a winner"));
                let place = RelPath::from_key(&now.key).expect("a path");
                let made = conflict::conflict_file(&base, &place).expect("a file or link");
                let winner = made.value.conflict_source.expect("a conflict file says it");
                let copy =
                    author::conflict_copy(&mut self.author, &base, winner, made.path.to_key(), made.uuid);
                self.learn(&copy.expect("within limits"));
            }
            Step::Rewrite => {
                let (base, now) = self.with(path, |view| (view.base.cloned(), view.base_now.cloned()));
                let (base, now) = (base.expect("a base"), now.expect("a winner"));
                let made = author::take_place(&mut self.author, &now, &base);
                self.learn(&made.expect("within limits"));
            }
        }
        true
    }

    /// The user's state of a path is found: the change that it means is authored, and the row takes it.
    fn survey(&mut self, path: &RelPath, seen: Option<DiskState>, found: Found) {
        let observed = seen.as_ref().map(|disk| Observed { stamp: &disk.stamp, content: &disk.content });
        let (change, base) =
            self.with(path, |view| (local_change(view, observed, found, WallTime(1000)), view.base.cloned()));
        let now = base.as_ref().and_then(|base| self.records.get(&base.uuid)).cloned();
        self.row_mut(path).disk = seen;
        let base_uuid = base.as_ref().map(|base| base.uuid);
        self.next_uuid += 1;
        let mut new_uuid = [9; 16];
        new_uuid[8..].copy_from_slice(&self.next_uuid.to_be_bytes());
        let new_uuid = Uuid(new_uuid);
        let me = &mut self.author;
        let revision = |value: EntryValue, meta: Option<Meta>, time: WallTime| author::Revision {
            value: Some(Value::Entry(value)),
            meta,
            time: Some(time),
            ..author::Revision::default()
        };
        let made: Result<Record, Unmade> = match change {
            LocalChange::None => return,
            LocalChange::Wait(reason) => panic!("{path:?} waits: {reason:?}"),
            LocalChange::Adopt { uuid } => {
                self.row_mut(path).base = Base::Index(uuid);
                return;
            }
            LocalChange::Create { revive, value, meta, time } => {
                match revive.and_then(|uuid| self.records.get(&uuid)) {
                    Some(old) => {
                        let seen = Some(old.value_clock.clone());
                        let revision = revision(value, Some(meta), time);
                        author::revise(me, old, author::Revision { value_seen: seen, ..revision })
                    }
                    None => {
                        author::create(me, new_uuid, path.to_key(), Value::Entry(value), meta, Some(time))
                    }
                }
            }
            LocalChange::Edit { uuid, from_base, value, meta, time } => {
                assert!(from_base, "there is always a base, or none is asked for");
                let base = base.expect("a base");
                assert_eq!(base.uuid, uuid);
                if author::covers_own(me.peer, &base, now.as_ref()) {
                    let meta = meta.unwrap_or_else(|| base.meta.clone());
                    author::create(me, new_uuid, path.to_key(), Value::Entry(value), meta, Some(time))
                } else {
                    let seen = Some(base.value_clock.clone());
                    let revision = author::Revision { value_seen: seen, ..revision(value, meta, time) };
                    author::revise(me, &base, revision)
                }
            }
            LocalChange::Meta { meta, .. } => author::set_meta(me, &base.expect("a base"), meta),
            LocalChange::Delete { .. } => author::delete(me, &base.expect("a base")),
        };
        let new = made.unwrap_or_else(|why| panic!("{path:?}: {why:?}\n{self:#?}"));
        self.row_mut(path).base = Base::Older(Box::new(new.clone()));
        self.learn(&new);
        if self.records[&new.uuid] == new {
            self.row_mut(path).base = Base::Index(new.uuid);
        }
        // A revived record may have another key: its tombstone lay here, so it has this one.
        assert!(new.deleted() || base_uuid == Some(new.uuid) || path.is_key(&new.key));
    }

    /// Plans paths in some order until nothing happens any more; whether it came to that.
    fn rest(&mut self, order: u64) -> bool {
        let mut quiet = 0;
        let mut at = order;
        for _ in 0..STEPS_MAX {
            let mut paths: BTreeSet<RelPath> = self.rows.keys().cloned().collect();
            paths.extend(self.records.values().filter_map(|record| RelPath::from_key(&record.key)));
            let above: Vec<RelPath> = paths.iter().flat_map(RelPath::ancestors).collect();
            paths.extend(above);
            paths.retain(|path| !path.is_root());
            let count = paths.len();
            if count == 0 {
                return true;
            }
            // Any order of any paths, then all in turn.
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = usize::try_from(at >> 33).unwrap_or(0) % count;
            let paths: Vec<RelPath> = paths.into_iter().collect();
            let moved = (0..count).any(|by| self.advance(&paths[(start + by) % count]));
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 0 {
                return true;
            }
        }
        false
    }

    /// What the disk should hold by the index: each shown record, and the directories above it.
    fn wanted(&self) -> BTreeMap<String, EntryContent> {
        let mut wanted = BTreeMap::new();
        let keys = self.records.values().filter(|record| !record.deleted());
        for path in keys.filter_map(|record| RelPath::from_key(&record.key)) {
            for above in path.ancestors().filter(|above| !above.is_root()) {
                wanted.insert(String::from(above.as_str()), DIR);
            }
            let live = self.live(&path);
            let refs: Vec<&Record> = live.iter().collect();
            let shown = conflict::shown(&refs, self.implied_dir(&path, &live));
            if let Some(content) = shown.and_then(entry) {
                wanted.insert(path.as_str().into(), content.content.clone());
            }
        }
        wanted
    }
}

/// What others did to a record: what, which path, which content, and whether apart from what was done before.
type Act = (u8, usize, EntryContent, bool);

#[derive(Clone, Debug)]
struct Triple {
    /// Records: where and what they were at first, what was done to them, and how much of it this machine was in step
    /// with; `None`: it had not heard of it.
    records: Vec<(usize, EntryContent, Vec<Act>, Option<usize>)>,
    /// What the user did meanwhile: a path, and what is there now.
    user: Vec<(usize, Option<EntryContent>)>,
    /// Whether it was found after a start.
    offline: bool,
    order: u64,
}

fn content() -> impl Strategy<Value = EntryContent> {
    prop_oneof![4 => (1u8..5).prop_map(file), 2 => Just(DIR), 1 => Just(link())]
}

fn triple() -> impl Strategy<Value = Triple> {
    let act = (0u8..4, 0..PATHS.len(), content(), any::<bool>());
    let history = proptest::collection::vec(act, 0..4);
    let seen = proptest::option::weighted(0.8, 0usize..4);
    let record = (0..PATHS.len(), content(), history, seen);
    let records = proptest::collection::vec(record, 0..5);
    let user = proptest::collection::vec((0..PATHS.len(), proptest::option::of(content())), 0..4);
    (records, user, any::<bool>(), any::<u64>()).prop_map(|(records, user, offline, order)| Triple {
        records,
        user,
        offline,
        order,
    })
}

fn key(at: usize) -> String {
    format!("/{}", PATHS[at])
}

fn play_acts(first: &Record, acts: &[Act], revs: u64) -> Record {
    let mut now = first.clone();
    for (number, (what, at, content, apart)) in acts.iter().enumerate() {
        let from = if *apart { first.clone() } else { now.clone() };
        let (peer, rev) = (2 + (number % 2) as u8, revs + number as u64);
        let next = match what {
            0 => edited(&from, content.clone(), peer, rev),
            1 | 2 => moved(&from, &key(*at), peer, rev),
            _ => deleted(&from, peer, rev),
        };
        now = join(&now, &next);
    }
    now
}

impl Triple {
    /// The machine with its index, what it was in step with, and what the user did to that.
    fn world(&self) -> Trees {
        let mut world = Trees::new();
        for (number, (at, content, acts, seen)) in self.records.iter().enumerate() {
            let revs = 10 * (number as u64 + 1);
            let first = record(number as u8 + 1, &key(*at), content.clone(), 1, revs);
            let known = seen.map(|seen| play_acts(&first, &acts[..seen.min(acts.len())], revs + 1));
            if let Some(known) = &known {
                world.begin_with(known);
            }
        }
        for (number, (at, content, acts, _)) in self.records.iter().enumerate() {
            let revs = 10 * (number as u64 + 1);
            let first = record(number as u8 + 1, &key(*at), content.clone(), 1, revs);
            world.learn(&play_acts(&first, acts, revs + 1));
        }
        world
    }
}

impl Trees {
    /// The machine is in step with a record, if its place is free.
    fn begin_with(&mut self, known: &Record) {
        self.learn(known);
        let at = RelPath::from_key(&known.key).filter(|_| !known.deleted());
        let Some((at, content)) = at.zip(known.content()) else { return };
        let above_fits = at.ancestors().all(|above| self.is_dir(&above) || self.disk(&above).is_none());
        if self.disk(&at).is_some() || !above_fits {
            return;
        }
        self.make_above(&at);
        let row = self.row_mut(&at);
        (row.disk, row.base) = (Some(disk(content.clone())), Base::Index(known.uuid));
    }

    /// What the user did is found: each path that differs from its row.
    fn user(&mut self, acts: &[(usize, Option<EntryContent>)], found: Found) {
        let mut after: BTreeMap<RelPath, Option<DiskState>> = BTreeMap::new();
        for (number, (at, content)) in acts.iter().enumerate() {
            // What is as it was elsewhere would be a move, which is told before any of this.
            let new = |old: &EntryContent| if *old == DIR { DIR } else { file(100 + number as u8) };
            let content = &content.as_ref().map(new);
            let at = path(PATHS[*at]);
            let now = |at: &RelPath, after: &BTreeMap<RelPath, Option<DiskState>>| {
                after.get(at).cloned().unwrap_or_else(|| self.row(at).disk).map(|disk| disk.content)
            };
            // A path that is in a file, or in nothing, is none.
            if at.ancestors().any(|above| !above.is_root() && now(&above, &after) != Some(DIR)) {
                continue;
            }
            if *content == Some(DIR) && now(&at, &after) == Some(DIR) {
                continue;
            }
            for beneath in self.beneath(&at).into_iter().chain(after.keys().cloned().collect::<Vec<_>>()) {
                if beneath != at && beneath.is_beneath(&at) {
                    after.insert(beneath, None);
                }
            }
            after.insert(at, content.clone().map(disk));
        }
        for (at, seen) in after {
            if self.row(&at).disk != seen {
                self.survey(&at, seen, found);
            }
        }
    }
}

fn files_of<'a>(tree: impl IntoIterator<Item = &'a EntryContent>) -> Vec<&'a EntryContent> {
    tree.into_iter().filter(|content| **content != DIR).collect()
}

/// Each of two paths waited for the other.
#[test]
fn a_file_moves_into_a_folder_of_its_own_name_and_out_of_it() {
    for (from, to) in [(2, 5), (5, 2)] {
        let moved = (1, to, file(1), false);
        let records = [(from, file(1), [moved].into(), Some(0))].into();
        let triple = Triple { records, user: Vec::new(), offline: false, order: 0 };
        let mut world = triple.world();
        assert!(world.rest(0));
        assert_eq!(world.tree(), world.wanted());
        assert_eq!(world.tree().get(PATHS[to]), Some(&file(1)));
    }
}

/// Two files exchange places, one of which lies in a folder that comes, or goes, for the other.
#[test]
fn files_move_in_a_ring_over_a_folder() {
    let (a, d, d_a) = (0, 2, 3);
    for (from, to) in
        [((a, d_a), (d, a)), ((d_a, a), (a, d))].map(|(one, other)| ([one.0, other.0], [one.1, other.1]))
    {
        let moved = |at: usize| [(1, to[at], file(1), false)].into();
        let records: Vec<_> = (0..2).map(|at| (from[at], file(1 + at as u8), moved(at), Some(0))).collect();
        for order in 0..8 {
            let triple = Triple { records: records.clone(), user: Vec::new(), offline: false, order: 0 };
            let mut world = triple.world();
            assert!(world.rest(order << 33));
            assert_eq!(world.tree(), world.wanted());
            assert!((0..2).all(|at| world.tree().get(PATHS[to[at]]) == Some(&file(1 + at as u8))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn whole_trees_come_to_rest_without_a_loss(triple in triple()) {
        let mut world = triple.world();
        let name = |(at, content): (String, EntryContent)| format!("{at} {content:?}");
        let before: BTreeSet<String> = world.tree().into_iter().map(name).collect();
        world.user(&triple.user, if triple.offline { Found::Offline } else { Found::Running });
        let had = world.tree();
        prop_assert!(world.rest(triple.order), "no rest: {world:#?}");
        let tree = world.tree();
        prop_assert_eq!(&tree, &world.wanted(), "the disk is not what the index says: {:#?}", world);
        for (at, content) in &had {
            if *content == DIR {
                continue;
            }
            let there = tree.values().any(|now| now == content);
            prop_assert!(there || world.archive.contains(content), "lost: {} {:?}", at, content);
            // What the user made, nobody else knew of: it stands, somewhere.
            let made = !before.contains(&format!("{at} {content:?}"));
            prop_assert!(there || !made, "the user's edit does not stand: {} {:?}\n{:#?}", at, content, world);
        }
        // Who begins with nothing arrives at the same.
        let mut other = Trees { records: world.records.clone(), ..Trees::new() };
        other.author.peer = PeerId([5; 16]);
        prop_assert!(other.rest(triple.order.rotate_left(7)), "no rest: {other:#?}");
        prop_assert_eq!(&other.records, &world.records, "an index at rest is changed");
        prop_assert_eq!(other.tree(), tree);
        prop_assert!(files_of(&other.archive).is_empty());
    }
}
