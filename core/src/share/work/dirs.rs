//! Makes directories, with those above them where they are missing. Before that it is stored, as of installs: a
//! directory that stands without the database knowing of it would pass for a user's own (sync.md, "Bringing a path to a
//! version", step 6).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{GROUP_ITEMS_MAX, Job, Ready, Renaming, Trouble, Work};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::plan::wanted_meta;
use crate::index::codec::PeerTable;
use crate::index::record::{EntryContent, Record};
use crate::io::disk::{MODE_BITS, Made, per_item};
use crate::io::store::{Durability, Space, StoreOp, Write};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::finish::{Finished, Outcome};
use crate::share::intents::{self, Coming};
use crate::time::Now;

/// A directory that is to be made.
#[derive(Debug)]
pub(super) struct Making {
    pub path: RelPath,
    /// `None` for what lies beneath it.
    pub version: Option<Arc<Record>>,
    /// Whether it is in work for this. What other work makes of it is the other's matter.
    pub own: bool,
    /// Where it is not: the intents that say so. They are kept until that other work ends, if it is made here.
    pub group: Option<u64>,
}

impl Making {
    /// One that is in work for this.
    pub(super) fn own(path: RelPath, version: Option<Arc<Record>>) -> Making {
        Making { path, version, own: true, group: None }
    }
}

/// What directories are made for.
#[derive(Debug)]
pub(super) enum MadeFor {
    /// Themselves.
    Them,
    /// Those among them that could not be made without the others.
    Those,
    Rename(Renaming),
    /// A part of this group.
    Installs(u64, Vec<Ready>),
}

/// Directories that are to be made together.
#[derive(Debug)]
pub(super) struct DirGroup {
    /// The groups whose intents say so.
    groups: Vec<u64>,
    dirs: Vec<Making>,
    made_for: MadeFor,
}

impl DirGroup {
    /// What has come in full and is put in place when they are made.
    pub(super) fn staged(&self) -> &[Ready] {
        match &self.made_for {
            MadeFor::Installs(_, part) => part,
            MadeFor::Them | MadeFor::Those | MadeFor::Rename(_) => &[],
        }
    }
}

impl Work {
    /// All directories above these paths, each once, parents first.
    pub(super) fn above<'a>(&mut self, paths: impl Iterator<Item = &'a RelPath>) -> Vec<Making> {
        let mut dirs: Vec<RelPath> =
            paths.flat_map(RelPath::ancestors).filter(|dir| !dir.is_root()).collect();
        dirs.sort();
        dirs.dedup();
        let making = |path: RelPath| {
            let own = self.busy.insert(path.clone());
            Making { own, ..Making::own(path, None) }
        };
        dirs.into_iter().map(making).collect()
    }

    /// Stores which directories are about to be made. No directory is lost with that: what a power cut takes from the
    /// store's end is looked at as such, so that nothing waits for the store's disk.
    pub(super) fn store_dir_intents(
        &mut self,
        mut dirs: Vec<Making>,
        made_for: MadeFor,
        peers: &PeerTable,
        out: &mut Outbox,
    ) {
        let (mut writes, mut groups) = (Vec::new(), Vec::new());
        let mut store = |part: &[&Making]| {
            self.next_id += 1;
            let items = part.iter().map(|dir| (&dir.path, Coming::Dir(dir.version.clone())));
            let (key, value) = (self.intents_key(self.next_id), intents::encode(items, peers));
            writes.push(Write::Put { space: Space::Intent, key, value });
            self.next_id
        };
        let own: Vec<&Making> = dirs.iter().filter(|dir| dir.own).collect();
        groups.extend(own.chunks(GROUP_ITEMS_MAX).map(&mut store));
        for dir in dirs.iter_mut().filter(|dir| !dir.own) {
            dir.group = Some(store(&[dir]));
        }
        let group = DirGroup { groups, dirs, made_for };
        if writes.is_empty() {
            return self.make_dirs(group, out);
        }
        let token = out.store(StoreOp::Commit { writes, durability: Durability::Soon });
        self.jobs.insert(token, Job::DirIntents(group));
    }

    pub(super) fn make_dirs(&mut self, group: DirGroup, out: &mut Outbox) {
        let mode = |dir: &Making| dir.version.as_ref().and_then(|version| wanted_meta(version).0);
        let dirs = group.dirs.iter().map(|dir| (dir.path.clone(), mode(dir))).collect();
        let op = DiskOp::MakeDirs { root: self.root, dirs };
        self.jobs.insert(out.disk(op), Job::MakeDirs(group));
    }

    /// The store refused what is to be stored before they are made.
    pub(super) fn fail_dirs(&mut self, group: DirGroup, now: Now, out: &mut Outbox) {
        let error = Err(DiskError::Io);
        self.made_dirs(group, error, &PeerTable::default(), now, out);
    }

    pub(super) fn made_dirs(
        &mut self,
        DirGroup { mut groups, dirs, made_for }: DirGroup,
        result: Result<DiskDone, DiskError>,
        peers: &PeerTable,
        now: Now,
        out: &mut Outbox,
    ) {
        let made = per_item(result, dirs.len(), |done| match done {
            DiskDone::Made(made) => Some(made),
            _ => None,
        });
        let mut again = Vec::new();
        for (Making { path, version, own, group }, made) in dirs.into_iter().zip(made) {
            if !own {
                self.made_beside(path, group, made);
                continue;
            }
            // Whoever made it, it is told here.
            self.groups_ended.extend(self.made_beside.remove(&path).and_then(|(_, group)| group));
            // One that was there before may hold things that nobody has seen: it is walked once.
            match (made.map(|Made { stamp, empty }| (stamp, empty)), version) {
                (Ok((stamp, settled)), Some(version))
                    if wanted_meta(&version).0.is_some_and(|mode| mode != stamp.mode & MODE_BITS) =>
                {
                    // It was there, made for what lies beneath: the plan sets its bits.
                    self.changed(path, Outcome::Implied { stamp, settled }, now);
                }
                (Ok((stamp, settled)), Some(version)) => {
                    self.failures.remove(&path);
                    let (content, archived) = (EntryContent::Dir, None);
                    let outcome = Outcome::Placed { version, content, stamp, settled, archived };
                    self.changed(path, outcome, now);
                }
                (Ok((stamp, settled)), None) => {
                    self.changed(path, Outcome::Implied { stamp, settled }, now);
                }
                (Err(error), version) => match &made_for {
                    MadeFor::Them if error == DiskError::NotFound => {
                        again.push(Making::own(path, version));
                    }
                    MadeFor::Them | MadeFor::Those => self.fail(path, Trouble::Disk(error), now),
                    // What they are made for says what failed.
                    MadeFor::Rename(_) | MadeFor::Installs(..) => {
                        self.finished.push(Finished { path, outcome: Outcome::Failed });
                    }
                },
            }
        }
        // The same flush covers them. Where none was made it may cover nothing, and none comes.
        let none = self.unflushed.items.is_empty();
        let ended = if none { &mut self.groups_ended } else { &mut self.unflushed.groups };
        ended.append(&mut groups);
        match made_for {
            MadeFor::Them if !again.is_empty() => {
                // A directory on the way lives only through what lies beneath it.
                let mut dirs = self.above(again.iter().map(|dir| &dir.path));
                dirs.retain(|dir| dir.own);
                dirs.append(&mut again);
                dirs.sort_by(|a, b| a.path.cmp(&b.path));
                self.store_dir_intents(dirs, MadeFor::Those, peers, out);
            }
            MadeFor::Them | MadeFor::Those => {}
            MadeFor::Rename(renaming) => self.rename(renaming, out),
            MadeFor::Installs(id, part) => self.install_part(id, part, now, out),
        }
    }

    /// A directory was made, or not, where something else is in work, such as the end of a file: it is told when that
    /// has ended.
    fn made_beside(&mut self, path: RelPath, group: Option<u64>, made: Result<Made, DiskError>) {
        let Ok(Made { stamp, empty: true }) = made else { return self.groups_ended.extend(group) };
        let is_free = self.busy.insert(path.clone());
        let before = self.made_beside.insert(path.clone(), (stamp, group));
        self.groups_ended.extend(before.and_then(|(_, group)| group));
        if is_free {
            self.free(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GROUP_WAIT;
    use super::*;
    use crate::files::fixture::{file, file_record, path, record, stamp};
    use crate::ids::{RootId, TempId, Token};
    use crate::index::codec::encode_record;
    use crate::io::Output;
    use crate::io::disk::Stamp;
    use crate::io::store::{StoreDone, StoreError};
    use crate::share::intents::Intent;
    use crate::share::task::Task;
    use crate::time::{Instant, WallTime};
    use alloc::format;

    fn now(ms: u64) -> Now {
        Now { mono: Instant(ms * 1_000_000), wall: WallTime(1_800_000_000_000_000_000) }
    }

    struct Rig {
        work: Work,
        out: Outbox,
        peers: PeerTable,
    }

    impl Rig {
        fn new() -> Rig {
            let mut rig =
                Rig { work: Work::new(RootId(1), 0), out: Outbox::default(), peers: PeerTable::default() };
            rig.work.enabled = true;
            rig
        }

        fn begin(&mut self, dir: &str, version: Option<Record>) {
            version.iter().for_each(|version| encode_record(version, &mut self.peers, &mut Vec::new()));
            self.work.begin(Task::MakeDir { path: path(dir), version: version.map(Arc::new) });
        }

        fn pump(&mut self, now: Now) {
            self.work.pump(&self.peers, now, &mut self.out);
            self.work.pump_flush(now, &mut self.out);
        }

        /// The rows of the only commit that was put out.
        fn stored(&mut self) -> (Token, Vec<Vec<Intent>>) {
            let mut commits = core::iter::from_fn(|| self.out.pop()).filter_map(|output| match output {
                Output::Store { token, op: StoreOp::Commit { writes, .. } } => Some((token, writes)),
                Output::Disk { .. } => panic!("work begins before it is stored"),
                _ => None,
            });
            let ((token, writes), None) = (commits.next().unwrap(), commits.next()) else { panic!() };
            let rows = writes.into_iter().map(|write| match write {
                Write::Put { space: Space::Intent, value, .. } => {
                    intents::decode(&value, &self.peers).unwrap()
                }
                _ => panic!(),
            });
            (token, rows.collect())
        }

        fn disk_op(&mut self) -> (Token, DiskOp) {
            let mut ops = core::iter::from_fn(|| self.out.pop()).filter_map(|output| match output {
                Output::Disk { token, op } => Some((token, op)),
                _ => None,
            });
            ops.next().unwrap()
        }

        /// Carries the store's part out, and answers the operation that follows.
        fn made(&mut self, result: impl Fn(usize) -> Result<Made, DiskError>) {
            let (token, _) = self.stored();
            self.work.handle_store(token, Ok(StoreDone::Committed), now(1), &mut self.out);
            let (token, DiskOp::MakeDirs { dirs, .. }) = self.disk_op() else { panic!() };
            let made = (0..dirs.len()).map(result).collect();
            let Rig { work, out, peers } = self;
            work.handle_disk(token, Ok(DiskDone::Made(made)), peers, now(1), out);
        }

        fn flushed(&mut self, result: Result<DiskDone, DiskError>) {
            let later = now(1 + u64::try_from(GROUP_WAIT.as_millis()).unwrap());
            self.pump(later);
            let (token, DiskOp::Flush { .. }) = self.disk_op() else { panic!() };
            let Rig { work, out, peers } = self;
            work.handle_disk(token, result, peers, later, out);
        }
    }

    fn dir(n: u8, at: &str) -> Record {
        record(n, &path(at).to_key(), EntryContent::Dir, n, 1)
    }

    fn stands(inode: usize) -> Result<Made, DiskError> {
        let stamp = stamp(&EntryContent::Dir, inode as u64 + 1);
        Ok(Made { stamp: Stamp { mode: 0o744, ..stamp }, empty: true })
    }

    #[test]
    fn what_is_made_is_stored_before_and_forgotten_once_it_is_durable() {
        let mut rig = Rig::new();
        rig.begin("a", Some(dir(1, "a")));
        rig.begin("b", None);
        rig.pump(now(1));
        let (token, rows) = rig.stored();
        let intent = |at: &str, version| Intent { path: path(at), coming: Coming::Dir(version) };
        assert_eq!(rows, [[intent("a", Some(Arc::new(dir(1, "a")))), intent("b", None)]]);
        rig.work.handle_store(token, Ok(StoreDone::Committed), now(1), &mut rig.out);
        let (token, DiskOp::MakeDirs { .. }) = rig.disk_op() else { panic!() };
        let made = [stands(0), stands(1)].into();
        rig.work.handle_disk(token, Ok(DiskDone::Made(made)), &rig.peers, now(1), &mut rig.out);
        assert!(rig.work.take_finished().1.is_empty());
        rig.flushed(Ok(DiskDone::Unit));
        let (items, groups) = rig.work.take_finished();
        assert_eq!((items.len(), groups.len()), (2, 1));
        assert_eq!(rig.work.take_unsure(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_could_not_be_flushed_is_unsure() {
        let mut rig = Rig::new();
        rig.begin("a", Some(dir(1, "a")));
        rig.begin("b", None);
        rig.pump(now(1));
        rig.made(stands);
        rig.flushed(Err(DiskError::RootMissing));
        assert!(rig.work.take_finished().1.is_empty());
        let (unsure, groups) = rig.work.take_unsure();
        assert_eq!(unsure, [(path("a"), Some(Arc::new(dir(1, "a")))), (path("b"), None)]);
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn where_none_was_made_nothing_is_kept() {
        let mut rig = Rig::new();
        rig.begin("a", None);
        rig.pump(now(1));
        rig.made(|_| Err(DiskError::Denied));
        let (items, groups) = rig.work.take_finished();
        assert!(matches!(items[..], [Finished { outcome: Outcome::Failed, .. }]));
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn those_above_are_stored_too() {
        let mut rig = Rig::new();
        rig.begin("a/b", Some(dir(1, "a/b")));
        rig.pump(now(1));
        rig.made(|_| Err(DiskError::NotFound));
        // The first row is of no use any more; the second has both.
        assert_eq!(rig.work.take_finished().1.len(), 1);
        let (token, rows) = rig.stored();
        let paths: Vec<_> = rows.iter().flatten().map(|intent| intent.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/b"]);
        // Without it nothing is made.
        rig.work.handle_store(token, Err(StoreError::Io), now(1), &mut rig.out);
        assert!(rig.out.pop().is_none());
        assert_eq!(rig.work.take_finished().0.len(), 2);
    }

    #[test]
    fn those_above_a_renamed_file_are_stored_and_told() {
        let mut rig = Rig::new();
        let version = Arc::new(file_record(1, "/d/e/new", 1, 1));
        let seen = stamp(&file(1), 1);
        let (from, to) = (path("old"), path("d/e/new"));
        rig.work.begin(Task::Rename { from, to, stamp: seen, version });
        // Another one's: it is made all the same, and told when that one has ended.
        rig.work.begin(Task::SetMeta {
            path: path("d"),
            stamp: seen,
            version: Arc::new(dir(2, "d")),
            mode: None,
            mtime_ns: None,
        });
        rig.pump(now(1));
        let renamed = |rig: &mut Rig, result| {
            let (token, DiskOp::Rename { .. }) = rig.disk_op() else { panic!() };
            let Rig { work, out, peers } = rig;
            while out.pop().is_some() {}
            work.handle_disk(token, Ok(DiskDone::Stamps([result].into())), peers, now(1), out);
        };
        renamed(&mut rig, Err(DiskError::NotFound));
        let (token, rows) = rig.stored();
        assert_eq!(rows, ["d/e", "d"].map(|dir| [Intent { path: path(dir), coming: Coming::Dir(None) }]));
        assert!(rig.work.is_busy(&path("d/e")));
        rig.work.handle_store(token, Ok(StoreDone::Committed), now(1), &mut rig.out);
        let (token, DiskOp::MakeDirs { dirs, .. }) = rig.disk_op() else { panic!() };
        assert_eq!(dirs, [(path("d"), None), (path("d/e"), None)]);
        let made = Ok(DiskDone::Made([stands(0), stands(1)].into()));
        rig.work.handle_disk(token, made, &rig.peers, now(1), &mut rig.out);
        renamed(&mut rig, Ok(seen));
        let outcomes = |items: &[Finished]| {
            items
                .iter()
                .map(|item| (item.path.clone(), matches!(item.outcome, Outcome::Implied { .. })))
                .collect()
        };
        let told: Vec<_> = outcomes(&rig.work.unflushed.items);
        assert_eq!(told, [(path("d/e"), true), (path("old"), false)]);
        assert_eq!(rig.work.unflushed.groups.len(), 1);
        // It stays in work until it is known.
        rig.work.ended(&path("d"));
        assert_eq!(rig.work.unflushed.groups.len(), 2);
        assert_eq!(outcomes(&rig.work.unflushed.items[2..]), [(path("d"), true)]);
        assert!(rig.work.is_busy(&path("d")));
        rig.work.ended(&path("d"));
        assert!(!rig.work.is_busy(&path("d")) && rig.work.unflushed.items.len() == 3);
    }

    #[test]
    fn what_waits_for_directories_keeps_its_temp() {
        let mut rig = Rig::new();
        let version = Arc::new(file_record(1, "/d/f", 1, 1));
        let item = Ready { path: path("d/f"), version, temp: TempId(7), replaces: None, retried: true };
        let dirs = rig.work.above([&item.path].into_iter());
        rig.work.store_dir_intents(dirs, MadeFor::Installs(1, [item].into()), &rig.peers, &mut rig.out);
        assert_eq!(rig.work.temps_in_use(), [TempId(7)]);
        let (token, _) = rig.stored();
        rig.work.handle_store(token, Ok(StoreDone::Committed), now(1), &mut rig.out);
        assert_eq!(rig.work.temps_in_use(), [TempId(7)]);
        let (token, DiskOp::MakeDirs { .. }) = rig.disk_op() else { panic!() };
        let refused = Ok(DiskDone::Made([Err(DiskError::Denied)].into()));
        rig.work.handle_disk(token, refused, &rig.peers, now(1), &mut rig.out);
        assert_eq!(rig.work.temps_in_use(), [TempId(7)]);
        let DiskOp::Install { .. } = rig.disk_op().1 else { panic!() };
        // What fails is the install; the directory is free again.
        let (items, groups) = rig.work.take_finished();
        assert!(matches!(&items[..], [Finished { outcome: Outcome::Failed, .. }]));
        assert!(rig.work.failures().next().is_none() && groups.len() == 1);
    }

    #[test]
    fn intents_come_after_those_of_earlier_runs() {
        let mut rig = Rig::new();
        let earlier = Work::new(RootId(1), 77).intents_key(9);
        rig.work.count_intents_from(&earlier);
        rig.work.count_intents_from(b"short");
        rig.begin("a", None);
        rig.pump(now(1));
        rig.made(|_| Err(DiskError::Denied));
        let keys: Vec<_> = rig.work.take_finished().1.iter().map(|id| rig.work.intents_key(*id)).collect();
        assert!(keys.iter().all(|key| *key > earlier) && keys.len() == 1);
    }

    #[test]
    fn rows_at_their_limit_and_past_it() {
        for (count, rows) in [(GROUP_ITEMS_MAX, 1), (GROUP_ITEMS_MAX + 1, 2)] {
            let mut rig = Rig::new();
            (0..count).for_each(|n| rig.begin(&format!("{n}"), None));
            rig.pump(now(1));
            let stored = rig.stored().1;
            assert_eq!((stored.len(), stored.concat().len()), (rows, count));
        }
    }
}
