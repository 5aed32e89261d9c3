//! Takes over what the survey found on disk: local changes become versions that descend from what the disk held
//! before (sync.md, "Three observations").

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::engine::command::Existing;
use crate::files::local::{Found, LocalChange, Observed, local_change, mode_of, put_here};
use crate::files::path::RelPath;
use crate::files::plan::{Policy, Target, has_meta_of, has_mtime, live_meta, wanted_meta};
use crate::files::reconcile::inode_key;
use crate::files::row::{Base, DiskState};
use crate::ids::Uuid;
use crate::index::author::{self, Author, Revision, Unmade};
use crate::index::clock::Clock;
use crate::index::merge;
use crate::index::record::{EntryContent, Meta, Record, Value};
use crate::io::disk::Stamp;
use crate::share::archived::Taken;
use crate::share::finish::{self, base_for, kept_record};
use crate::share::leftovers::placed_unseen;
use crate::share::planning::{Judge, Scene, all};
use crate::share::txn::Miss;
use crate::time::WallTime;

/// What the survey found at one path.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The path.
    pub path: RelPath,
    /// The stamp that the row had when the survey compared; if it has another one by now, the path is looked at again.
    pub seen: Option<Stamp>,
    /// What is there.
    pub what: What,
    /// In what situation it was found.
    pub found: Found,
}

/// What is at a path.
#[derive(Clone, Debug)]
pub enum What {
    /// Something.
    Holds {
        /// What.
        state: DiskState,
        /// Where it was before, if it was moved here: that path is gone.
        moved_from: Option<RelPath>,
        /// Whether it is known that it is new: where it may have been before was looked at together with it.
        sure: bool,
    },
    /// Nothing any more.
    Gone {
        /// Whether it counts as one of many deletes: what was confirmed does not, nor what is known to lie elsewhere.
        counts: bool,
    },
    /// Nothing any more, but so much is gone that nothing is told yet: it is only asked whether it would be a delete.
    Vanished,
    /// Nothing any more, and the user wants it back.
    BringBack,
}

impl What {
    fn state(&self) -> Option<&DiskState> {
        match self {
            What::Holds { state, .. } => Some(state),
            What::Gone { .. } | What::Vanished | What::BringBack => None,
        }
    }

    /// Where a path was moved from, if it was.
    pub fn moved_from(&self) -> Option<&RelPath> {
        match self {
            What::Holds { moved_from, .. } => moved_from.as_ref(),
            What::Gone { .. } | What::Vanished | What::BringBack => None,
        }
    }
}

/// An absence that would be a delete, if it were told.
#[derive(Clone, Debug)]
pub struct Vanished {
    /// The path.
    pub path: RelPath,
    /// As in [`Observation`].
    pub seen: Option<Stamp>,
    /// As in [`Observation`].
    pub found: Found,
    /// Whether it is something else than a directory.
    pub file: bool,
}

/// What cannot be judged before another path was looked at, or is not in work any more.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The path.
    pub path: RelPath,
    /// The other one.
    pub other: RelPath,
    /// What was read at the path, so that it need not be read again.
    pub state: Option<DiskState>,
    /// Why.
    pub why: Why,
}

/// Why a path cannot be judged alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was moved from the other path, and one of both is in work, or it seems to be what a row still has there: both
    /// are looked at together, and then it is sure.
    Moved,
    /// The other path, to which its record moved, is in work.
    Follows,
}

impl Judge<'_> {
    /// Takes over one batch of observations, which belong to what looks began to find at `since`.
    pub(super) fn local(&mut self, items: &[Observation], since: WallTime) -> Result<(), Miss> {
        all(items, |item| self.observe(item, since))
    }

    fn observe(&mut self, item: &Observation, since: WallTime) -> Result<(), Miss> {
        let path = &item.path;
        let busy = |path: &RelPath| self.work.is_busy(path);
        if let Some(from) = item.what.moved_from().filter(|from| busy(from) || busy(path)) {
            self.doubt(item, from.clone(), Why::Moved);
            return Ok(());
        }
        if busy(path) {
            self.effects.again.push(path.clone());
            return Ok(());
        }
        let mut scene = self.scene(path)?;
        // Whether the index has another mode or time for the same value, which the disk was not given yet.
        let mut meta_left = false;
        if let (Some(base), Some(now)) = (&scene.base, &scene.base_now)
            && !now.deleted()
            && now.key == base.key
            && now.same_value(base)
            && match item.what.state() {
                Some(state) => Some(&state.content) == base.content() || !self.back_unseen(base, now),
                None => !base.value_change.seen_by(&now.deleted_clock),
            }
        {
            // Who changes or deletes what lies here has seen the index's value, whoever set it again: our own, which a
            // later revision covers, would else stand beside that change, and nobody would have its content. But what
            // is gone from here is not what was made after the same had been deleted, or was brought back then.
            // What an edit a moment ago left may not have been given to the disk yet either.
            let lacks = scene.row.disk.as_ref().is_some_and(|disk| !has_meta_of(disk, base));
            let still = lacks && matches!(scene.row.base, Base::Older(_));
            meta_left = still || wanted_meta(base) != wanted_meta(now);
            scene.base = scene.base_now.clone();
        }
        if scene.row.disk.as_ref().map(|disk| disk.stamp) != item.seen {
            self.effects.again.push(path.clone());
            self.effects.again.extend(item.what.moved_from().cloned());
            return Ok(());
        }
        if self.intents.contains_key(path) {
            self.effects.judged.push(path.clone());
        }
        let now = item.what.state();
        let is_from = |doubt: &Doubt| doubt.why == Why::Moved && doubt.other == *path;
        if now.is_none() && (self.survey.is_doubted(path) || self.effects.doubted.iter().any(is_from)) {
            // It may be what seemed to be new a moment ago.
            self.effects.again.push(path.clone());
            return Ok(());
        }
        let restored = now.is_some_and(|now| self.restored.is(path, now.stamp.inode));
        if restored && scene.row.disk.is_some() {
            // Nothing was there when it was put back: what the row has had gone before, whoever took it away.
            let what = What::Gone { counts: false };
            self.observe(&Observation { what, ..item.clone() }, since)?;
            return match self.txn.row(path)?.disk {
                // It is to be looked at once more.
                Some(_) => Ok(()),
                None => self.observe(&Observation { seen: None, ..item.clone() }, since),
            };
        }
        let found = if restored { Found::Running } else { item.found };
        if restored || now.is_some() && self.restored.knows(path) {
            self.effects.recorded.push(path.clone());
            self.txn.put_extra(self.restored.forgotten(path));
        }
        if let (Some(from), Some(now)) = (item.what.moved_from(), now) {
            if !restored && self.take_move(from, path, now, since)? {
                return Ok(());
            }
            // It was not told that this one is gone: the move would have said so.
            self.effects.again.push(from.clone());
        }
        if self.take_intent(path, now)? {
            return Ok(());
        }
        let mut row = scene.row.clone();
        if matches!(item.what, What::BringBack) {
            self.txn.emptied(path)?;
            row.disk = None;
            row.base = Base::None;
            self.txn.put_row(path, row);
            return Ok(());
        }
        if self.existing == Existing::Replace && found == Found::WithoutBase && row.base == Base::None {
            row.disk = now.cloned();
            self.txn.put_row(path, row);
            return Ok(());
        }
        let policy = Policy { author: self.may_author(), caught_up: self.progress.caught_up, ..Policy::FULL };
        let gone = now
            .is_none_or(|now| scene.base.as_ref().is_some_and(|base| base.content() != Some(&now.content)));
        let target = match &scene.base_now {
            Some(base_now) if gone => match self.followed(path, &scene, base_now, now)? {
                Ok(target) => target,
                Err(busy) => {
                    self.doubt(item, busy, Why::Follows);
                    return Ok(());
                }
            },
            _ => Target::Free,
        };
        if target == Target::Holds && now.is_some() {
            // What was here stands where its record went, perhaps by our own rename that was cut off by a crash: what
            // is here now is another file, and no edit of that one.
            row.base = Base::None;
            scene = Scene { row: row.clone(), base: None, base_now: None, ..scene };
        }
        let dead = scene.dead_refs();
        let view = scene.view(path, &dead, target, false, policy);
        let observed = now.map(|now| Observed { stamp: &now.stamp, content: &now.content });
        let mut change = local_change(&view, observed, found, self.wall());
        if let (LocalChange::Adopt { .. }, Some(now), Some(seen)) = (&change, now, &observed)
            && self.may_author()
            && self.other_path(path, now)?.is_some()
        {
            change = put_here(&view, seen, found, self.wall()).unwrap_or(change);
        }
        let known_gone = gone && matches!(found, Found::Running | Found::Offline);
        if known_gone && !matches!(item.what, What::Vanished) {
            self.note_thrown(&scene)?;
        }
        let no_change = matches!(change, LocalChange::None | LocalChange::Adopt { .. });
        if known_gone && no_change && !matches!(item.what, What::Vanished) {
            // It may be no change to its record, which was deleted or is a directory by now, and yet end its value.
            self.loser_replaced(&scene)?;
        }
        if matches!(change, LocalChange::Delete { .. })
            && scene.base.as_ref().is_some_and(|base| self.covers_own(base, &scene))
        {
            // It would delete what was written at another path, and the value that was there before lives on in that.
            if now.is_none() {
                self.txn.emptied(path)?;
            }
            row.disk = now.cloned();
            row.base = Base::None;
            row.implied = false;
            self.txn.put_row(path, row);
            return Ok(());
        }
        if !self.may_author() && !matches!(change, LocalChange::None | LocalChange::Adopt { .. }) {
            // Local changes of a peer that may not author never leave it; the plan puts the path back.
            row.disk = now.cloned();
            self.txn.put_row(path, row);
            return Ok(());
        }
        if matches!(change, LocalChange::Delete { .. }) {
            match item.what {
                What::Vanished => {
                    let file = scene.row.content().is_some_and(|content| *content != EntryContent::Dir);
                    let (path, seen, found) = (path.clone(), item.seen, found);
                    self.effects.vanished.push(Vanished { path, seen, found, file });
                    return Ok(());
                }
                What::Gone { counts } => self.effects.deleted += u64::from(counts),
                What::Holds { .. } | What::BringBack => {}
            }
        }
        if matches!(change, LocalChange::Edit { from_base: true, .. } | LocalChange::Delete { .. }) {
            self.loser_replaced(&scene)?;
        }
        if now.is_none() {
            // It may have been all that a directory stood for, whatever became of its record.
            self.txn.emptied(path)?;
        }
        let mut author = self.author();
        let made = match change {
            LocalChange::None => {
                row.disk = now.cloned();
                if row.disk.is_none() {
                    row.base = Base::None;
                    row.implied = false;
                } else if scene.implied_dir && row.base == Base::None {
                    row.implied = true;
                } else if row.implied && row.live.is_empty() && !scene.implied_dir {
                    row.recheck_dir();
                }
                self.txn.put_row(path, row);
                return Ok(());
            }
            LocalChange::Adopt { uuid } => {
                row.disk = now.cloned();
                let shown = self.txn.record(uuid)?;
                row.base = match (shown, now) {
                    // The plan sees that mode or time are left to be set.
                    (Some(shown), Some(now)) if !has_meta_of(now, &shown) => {
                        Base::Older(Box::new((*shown).clone()))
                    }
                    _ => Base::Index(uuid),
                };
                self.txn.put_row(path, row);
                return Ok(());
            }
            LocalChange::Wait(_) => return Ok(()),
            LocalChange::Create { revive, mut value, meta, time } => {
                if let Some(from) = self.other_name(item)? {
                    self.doubt(item, from, Why::Moved);
                    return Ok(());
                }
                if let Some(taken) = self.taken.get(path) {
                    value.conflict_source = self.source_of(taken)?;
                    self.effects.recorded.push(path.clone());
                }
                let tombstone = revive.map(|uuid| self.txn.record(uuid)).transpose()?.flatten();
                let (key, value, time) = (path.to_key(), Value::Entry(value), Some(time));
                match tombstone {
                    Some(from) => {
                        let (value, meta) = (Some(value), Some(meta));
                        // Who writes where something was deleted has seen that, and nothing that had lost to it: that
                        // may be where it has no conflict file yet.
                        let value_seen = Some(from.value_clock.clone());
                        let key = Some(key);
                        let revision = Revision { key, value, value_seen, meta, time, ..Revision::default() };
                        author::revise(&mut author, &from, revision)
                    }
                    None => author::create(&mut author, self.new_uuid(), key, value, meta, time),
                }
            }
            LocalChange::Edit { uuid, from_base, value, mut meta, time } => {
                let (value, time) = (Value::Entry(value), Some(self.after_same(time, &scene)));
                // Others put a link in its place, which has no mode.
                let has_mode = |record: &Arc<Record>| record.meta.unix_mode.is_some();
                let lost_mode = scene.base_now.as_ref().is_some_and(|now| !has_mode(now));
                let base_meta = scene.base.as_ref().filter(|base| has_mode(base)).map(|base| &base.meta);
                let lost = base_meta.filter(|_| lost_mode && meta.is_none());
                let meta_again = lost.is_some();
                meta = meta.or_else(|| lost.map(|lost| Meta { mtime: None, ..lost.clone() }));
                match scene.base.as_ref().filter(|_| from_base) {
                    Some(base) if self.covers_own(base, &scene) => {
                        let meta = meta.unwrap_or_else(|| base.meta.clone());
                        author::create(&mut author, self.new_uuid(), path.to_key(), value, meta, time)
                    }
                    Some(base) => {
                        // What the user saw was the base's value; a value that the base's other members had
                        // seen, but that
                        // never was on this disk, is not replaced knowingly and stays a conflict.
                        let value_seen = Some(base.value_clock.clone());
                        let value = Some(value);
                        let revision =
                            Revision { value, value_seen, meta, meta_again, time, ..Revision::default() };
                        author::revise(&mut author, base, revision)
                    }
                    None => {
                        let meta = meta.unwrap_or_else(Meta::default);
                        author::create(&mut author, uuid, path.to_key(), value, meta, time)
                    }
                }
            }
            LocalChange::Meta { meta, time, .. } => self.revise_base(
                &mut author,
                &scene.base,
                Revision { meta: Some(meta), time: Some(time), ..Revision::default() },
            ),
            LocalChange::Delete { time, .. } => self.revise_base(
                &mut author,
                &scene.base,
                Revision { delete: true, time: Some(time), ..Revision::default() },
            ),
        };
        match made {
            Ok(version) => self.store_version(&author, version, path, now.cloned(), meta_left),
            Err(Unmade::Same) => {
                row.disk = now.cloned();
                self.txn.put_row(path, row);
                Ok(())
            }
            Err(why) => {
                self.unmade(path, why);
                Ok(())
            }
        }
    }

    /// Whether the value that a base had was deleted, and somebody brought the same back, while the row may be older
    /// than what lay here at that time: what is here now was perhaps written after that delete, or is what was deleted,
    /// and nobody here replaced what came back.
    fn back_unseen(&self, base: &Record, now: &Record) -> bool {
        // Our own would be covered by the change that is made of what is here.
        let by_others = now.value_change.peer != self.keys.id();
        self.progress.tail_lost && by_others && base.value_change.seen_by(&now.deleted_clock)
    }

    /// The time of an edit that was found now: later than when the very value that it replaces was set again, here
    /// perhaps, as that of a loser whose winner was deleted. Else that value would stay, and the edit's revision cover
    /// the edit.
    fn after_same(&self, time: WallTime, scene: &Scene) -> WallTime {
        match (&scene.base, &scene.base_now) {
            (Some(base), Some(now)) if now.same_value(base) && !self.back_unseen(base, now) => {
                time.max(WallTime(now.value_change.time.0.saturating_add(1)))
            }
            _ => time,
        }
    }

    /// Whether a change here of this base would cover a value that was given to its record here meanwhile.
    fn covers_own(&self, base: &Record, scene: &Scene) -> bool {
        author::covers_own(self.keys.id(), base, scene.base_now.as_deref())
    }

    /// Where the very file lay that seems to be new, if a row still has it there: a user may have moved it before its
    /// end there could be seen, perhaps while sync was about to store that it had put it there.
    fn other_name(&mut self, item: &Observation) -> Result<Option<RelPath>, Miss> {
        let What::Holds { state, sure: false, .. } = &item.what else { return Ok(None) };
        if item.found == Found::WithoutBase { Ok(None) } else { self.other_path(&item.path, state) }
    }

    /// Another path whose row has this very file, by inode and content.
    fn other_path(&mut self, path: &RelPath, state: &DiskState) -> Result<Option<RelPath>, Miss> {
        let EntryContent::File { size: 1.., sha256 } = &state.content else { return Ok(None) };
        let Some(key) = inode_key(&state.stamp) else { return Ok(None) };
        // What is moved about while a look goes through the folder is met twice, perhaps by one batch.
        let mut paths = self.txn.paths_with(sha256)?;
        paths.extend(self.txn.new_paths_with(sha256, state.stamp.inode).cloned());
        for from in paths {
            let row = self.txn.row(&from)?;
            let same = row.disk.as_ref().is_some_and(|disk| inode_key(&disk.stamp) == Some(key));
            if same && from != *path {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }

    /// The record whose older version a file is that was taken out of the archive.
    fn source_of(&mut self, taken: &Taken) -> Result<Option<Uuid>, Miss> {
        let row = self.txn.row(&taken.original)?;
        Ok(taken.source.or(row.live.first().or(row.dead.last()).copied()))
    }

    fn doubt(&mut self, item: &Observation, other: RelPath, why: Why) {
        let (path, state) = (item.path.clone(), item.what.state().cloned());
        self.effects.doubted.push(Doubt { path, other, state, why });
    }

    /// Whether what is gone from a path stands where its record moved to; that path while it is in work.
    fn followed(
        &mut self,
        path: &RelPath,
        scene: &Scene,
        now: &Record,
        seen: Option<&DiskState>,
    ) -> Result<Result<Target, RelPath>, Miss> {
        let Some(to) = RelPath::from_key(&now.key).filter(|to| to != path && !now.deleted()) else {
            return Ok(Ok(Target::Free));
        };
        if self.work.is_busy(&to) {
            return Ok(Err(to));
        }
        if self.work.missed(path) {
            // Sync was about to remove it, because it did.
            return Ok(Ok(Target::Holds));
        }
        let there = self.txn.row(&to)?;
        // Or a later version of it stood there, which came while this one was gone and nobody had told, and is here
        // now.
        let back = seen.zip(there.disk.as_ref()).is_some_and(|(seen, disk)| {
            let same_file = inode_key(&seen.stamp).is_some_and(|key| inode_key(&disk.stamp) == Some(key));
            there.base_uuid() == Some(now.uuid) && same_file && disk.content == seen.content
        });
        let same = back || there.content().is_some() && there.content() == scene.row.content();
        Ok(Ok(if same { Target::Holds } else { Target::Free }))
    }

    /// A user replaced or deleted a value that had lost, before its content was copied to its conflict file: what that
    /// record names may be nowhere any more, and who replaced it had seen it.
    fn loser_replaced(&mut self, scene: &Scene) -> Result<(), Miss> {
        let (Some(base), Some(now)) = (&scene.base, &scene.base_now) else { return Ok(()) };
        // A value that has seen both may have come since it lost.
        if now.value_change == base.value_change {
            return Ok(());
        }
        let kept = kept_record(self.txn, base)?;
        let Some(record) = kept.filter(|record| !record.deleted()) else { return Ok(()) };
        let Some(path) = RelPath::from_key(&record.key) else { return Ok(()) };
        if record.content() != base.content() || self.txn.row(&path)?.disk.is_some() {
            return Ok(());
        }
        if !self.may_author() {
            return Ok(());
        }
        let mut author = self.author();
        match author::delete(&mut author, &record) {
            Ok(deleted) => self.put_authored(&author, deleted)?,
            Err(why) => self.unmade(&path, why),
        }
        Ok(())
    }

    fn revise_base(
        &self,
        author: &mut Author,
        base: &Option<Arc<Record>>,
        revision: Revision,
    ) -> Result<Record, Unmade> {
        match base {
            Some(base) => author::revise(author, base, revision),
            None => Err(Unmade::Same),
        }
    }

    /// Stores a version that was made of a base, which the index may have left behind; the row takes what was seen.
    /// `meta_left` says that the disk may lack a mode or time that the version has: the plan sees to it then.
    fn store_version(
        &mut self,
        author: &Author,
        version: Record,
        path: &RelPath,
        now: Option<DiskState>,
        meta_left: bool,
    ) -> Result<(), Miss> {
        let stored = self.txn.record(version.uuid)?;
        let joined = match &stored {
            Some(stored) => merge::join(stored, &version),
            None => version.clone(),
        };
        let uuid = version.uuid;
        let source = stored.and_then(|stored| merge::forgotten_source(&stored, &version, &joined));
        let base = match &now {
            None => Base::None,
            Some(_) if version.deleted() => Base::None,
            Some(now) if meta_left && !has_meta_of(now, &version) => Base::Older(Box::new(version)),
            Some(_) if joined.looks_like(&version) && path.is_key(&joined.key) => Base::Index(version.uuid),
            Some(_) => Base::Older(Box::new(version)),
        };
        self.put_authored(author, joined)?;
        self.name_source(uuid, source)?;
        let mut row = self.txn.row(path)?;
        row.disk = now;
        row.base = base;
        row.implied = false;
        self.txn.put_row(path, row);
        Ok(())
    }

    /// A move within the share: the record gets another key. False if what lay at `from` is nothing that can move.
    fn take_move(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        now: &DiskState,
        since: WallTime,
    ) -> Result<bool, Miss> {
        let mut from_row = self.txn.row(from)?;
        let to_row = self.txn.row(to)?;
        let (Some(base), Some(was)) = (self.txn.base_of(&from_row)?, from_row.disk.clone()) else {
            return Ok(false);
        };
        if was.content == now.content && self.take_renamed(&base, from, to, now)? {
            return Ok(true);
        }
        let current = self.txn.record(base.uuid)?;
        let taken = !to_row.live.is_empty() || to_row.disk.is_some();
        // If others moved it meanwhile, both moves are true, and the later one stays.
        let lives = current.is_some_and(|current| !current.deleted());
        if taken || !lives || !self.may_author() || was.content != now.content {
            return Ok(false);
        }
        let before = live_meta(&base);
        let mut meta = before.clone();
        let seen = Observed { stamp: &now.stamp, content: &now.content };
        if now.stamp.mode != was.stamp.mode && now.stamp.kind == was.stamp.kind {
            // Of a directory as well: a new one may have taken the inode of the one that is gone.
            meta.unix_mode = mode_of(&seen).or(meta.unix_mode);
        }
        if has_mtime(&was.content) && now.stamp.mtime_ns != was.stamp.mtime_ns {
            meta.mtime = Some(WallTime(now.stamp.mtime_ns));
        }
        let mut author = self.author();
        if self.clock.sane() {
            // A folder's files are moved at one time, however many batches they come in: where others moved the folder
            // too, one of both moves is the later one for all of them.
            author.wall = since.min(author.wall);
        }
        let meta = Some(meta).filter(|meta| *meta != before);
        let revision = Revision { key: Some(to.to_key()), meta, ..Revision::default() };
        let version = match author::revise(&mut author, &base, revision) {
            Ok(version) => version,
            Err(why) => {
                self.unmade(to, why);
                return Ok(false);
            }
        };
        self.txn.emptied(from)?;
        from_row.disk = None;
        from_row.base = Base::None;
        from_row.implied = false;
        self.txn.put_row(from, from_row);
        self.store_version(&author, version, to, Some(now.clone()), false)?;
        Ok(true)
    }

    /// What lay at `from` was renamed because its record has another key by now, or is the loser's that it became the
    /// conflict file of, before the database knew of the rename: a program was killed then, or the folder was away.
    /// That is no move of a user's, whatever became of that record since.
    fn take_renamed(
        &mut self,
        base: &Record,
        from: &RelPath,
        to: &RelPath,
        now: &DiskState,
    ) -> Result<bool, Miss> {
        let records = [self.txn.record(base.uuid)?, kept_record(self.txn, base)?];
        let is_this = |record: &Arc<Record>| to.is_key(&record.key);
        let Some(record) = records.into_iter().flatten().find(is_this) else { return Ok(false) };
        let mut from_row = self.txn.row(from)?;
        let mut to_row = self.txn.row(to)?;
        self.txn.emptied(from)?;
        let version = Arc::new(renamed(base, &record));
        to_row.base = finish::base_of_renamed(self.txn, &from_row, &version, to)?;
        let was = from_row.disk.take();
        from_row.base = Base::None;
        from_row.implied = false;
        to_row.disk = was.map(|was| finish::renamed(was, to, &now.stamp, self.effects)).or(to_row.disk);
        self.txn.put_row(from, from_row);
        self.txn.put_row(to, to_row);
        Ok(true)
    }

    /// After a crash: content that an install had just put there is that version, not a user's edit. So is a directory
    /// that the database does not know; a user's own that came there just then is as good as it.
    fn take_intent(&mut self, path: &RelPath, now: Option<&DiskState>) -> Result<bool, Miss> {
        let (Some(intent), Some(now)) = (self.intents.get(path), now) else { return Ok(false) };
        let mut row = self.txn.row(path)?;
        let dir = now.content == EntryContent::Dir;
        let known = dir && row.disk.is_some();
        let Some(intent) = intent else {
            if dir && !known {
                finish::imply(self.txn, path, now.clone())?;
            }
            return Ok(dir && !known);
        };
        if known || intent.content() != Some(&now.content) || finish::knows(self.txn, &row, intent)? {
            return Ok(false);
        }
        row.base = base_for(self.txn, intent, path)?;
        row.disk = if has_meta_of(now, intent) {
            Some(now.clone())
        } else {
            // What was put in place had its mode and time: others were set since, and that is seen by another look.
            self.effects.again.push(path.clone());
            placed_unseen(intent)
        };
        self.txn.put_row(path, row);
        Ok(true)
    }
}

/// A version under the key that its record, or its conflict file's, has.
fn renamed(version: &Record, record: &Record) -> Record {
    let mut value = version.value.clone();
    let mut deleted_clock = version.deleted_clock.clone();
    if let Value::Entry(entry) = &mut value
        && record.uuid != version.uuid
    {
        entry.conflict_source = record.conflict_source();
        deleted_clock = Clock::default();
    }
    let (uuid, key, key_change) = (record.uuid, record.key.clone(), record.key_change);
    let mut clock = version.clock.clone();
    clock.join(&Clock::of(key_change.peer, key_change.rev));
    let update = version.update.max(key_change);
    Record { uuid, key, key_change, value, clock, deleted_clock, update, ..version.clone() }
}
