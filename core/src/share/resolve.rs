//! Resolving a conflict file: its content takes the place of the original's, or it goes (sync.md, Conflicts). A content
//! that was kept may be thrown away before it is in its place: then the original falls back to what it was.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;

use crate::files::path::RelPath;
use crate::files::row::PathRow;
use crate::ids::Uuid;
use crate::index::author::{self, Revision, Unmade};
use crate::index::record::{Change, EntryValue, Meta, Record, Value};
use crate::share::Share;
use crate::share::pipeline::Op;
use crate::share::planning::{Judge, Scene};
use crate::share::txn::Miss;
use crate::share::work::Trouble;

/// What there is to say where a content that is not on this disk should be kept.
pub const NOT_HERE: &str = "its content is not here yet; it can be kept once it is.";

/// Contents of which it is remembered that they were thrown away after they were kept; of any more the originals wait.
const THROWN_MAX: usize = 1000;

/// What was kept here at an original's path, and thrown away before it was there: by the original, the change that kept
/// it. It lives in memory alone.
#[derive(Debug, Default)]
pub struct Thrown(BTreeMap<Uuid, Change>);

impl Thrown {
    /// Takes over what a batch found.
    pub fn note(&mut self, found: &[(Uuid, Change)]) {
        for (original, kept) in found {
            if self.0.len() < THROWN_MAX || self.0.contains_key(original) {
                self.0.insert(*original, *kept);
            }
        }
    }

    fn has(&self, original: &Record) -> bool {
        self.0.get(&original.uuid) == Some(&original.value_change)
    }
}

impl Share {
    /// Resolves a conflict file: `keep` puts its content in place of the original's; either way it goes itself.
    pub fn resolve(&mut self, path: RelPath, keep: bool) {
        self.pipeline.push(Op::Resolve { path, keep });
    }
}

impl Judge<'_> {
    /// Both records change in one batch, so that no peer ever sees neither content.
    pub(super) fn resolve(&mut self, path: &RelPath, keep: bool) -> Result<(), Miss> {
        let row = self.txn.row(path)?;
        let live = self.txn.live_records(&row)?;
        let conflict =
            live.iter().find_map(|record| Some((record.clone(), record.entry()?, record.conflict_source()?)));
        let (Some((record, value, source)), true) = (conflict, self.may_author()) else {
            // Somebody else resolved it meanwhile.
            self.effects.notices.push(format!("{}: is no conflict file any more.", path.as_str()));
            return Ok(());
        };
        if !keep {
            return self.drop_conflict(path, &record);
        }
        if row.content() != Some(&value.content) {
            // Whoever has it may replace it, knowing nothing of this: then nobody could bring what is wanted.
            self.effects.notices.push(format!("{}: {NOT_HERE}", path.as_str()));
            return Ok(());
        }
        // A directory is not replaced, with all that it holds. There, and where it is not known here what it lost to,
        // it becomes a file like any other.
        let original = self.txn.record(source)?;
        let Some(original) = original.filter(|original| !original.is_dir()) else {
            let value = EntryValue { conflict_source: None, ..value.clone() };
            if self.set_value(path, &record, value, None)? {
                self.effects.notices.push(format!(
                    "{}: its old name belongs to a directory, or to nothing that is known here, so it keeps this one.",
                    path.as_str()
                ));
            }
            return Ok(());
        };
        // Rows that the changes touch, so that a miss leaves nothing half done.
        if let Some(place) = RelPath::from_key(&original.key) {
            self.txn.row(&place)?;
        }
        let value = EntryValue { conflict_source: original.conflict_source(), ..value.clone() };
        // A content that found no new place keeps its old one.
        // A link has no bits: a file that takes its place brings its own, or they would differ on each computer.
        let bits = record.meta.unix_mode.filter(|_| original.meta.unix_mode.is_none());
        let meta = bits.map(|bits| Meta { unix_mode: Some(bits), ..original.meta.clone() });
        if self.set_value(path, &original, value, meta)? { self.drop_conflict(path, &record) } else { Ok(()) }
    }

    /// What a conflict file held is gone from it, by its user's hand. If it was kept here and the original has not got
    /// it yet, it may be nowhere now.
    pub(super) fn note_thrown(&mut self, scene: &Scene) -> Result<(), Miss> {
        let (Some(base), Some(now)) = (&scene.base, &scene.base_now) else { return Ok(()) };
        // It was dropped when it was kept, also where somebody has written on in it since.
        let dropped = base.value_change.seen_by(&now.deleted_clock);
        let Some(source) = base.conflict_source().filter(|_| dropped) else { return Ok(()) };
        let Some(original) = self.txn.record(source)?.filter(|original| !original.deleted()) else {
            return Ok(());
        };
        let kept = original.value_change;
        if kept.peer == self.keys.id() && base.content() == original.content() {
            self.effects.thrown.push((source, kept));
        }
        Ok(())
    }

    /// An original whose kept content was thrown away takes the value again that it has on disk, or goes where it has
    /// none: whoever threw it away had seen it. Only once no member that is connected has it; until then it comes from
    /// there. Returns whether it did.
    pub(super) fn fall_back(
        &mut self,
        path: &RelPath,
        row: &PathRow,
        original: &Record,
        base: Option<&Record>,
    ) -> Result<bool, Miss> {
        let nobody = self.work.failure(path).is_some_and(|failure| failure.trouble == Trouble::NotAvailable);
        if !nobody || !self.thrown.has(original) || !self.may_author() {
            return Ok(false);
        }
        if !self.links.values().any(|link| link.writer) {
            return Ok(false);
        }
        let before = base.filter(|base| base.uuid == original.uuid && base.content() == row.content());
        let revision = match before {
            Some(base) => Revision { value: Some(base.value.clone()), ..Revision::default() },
            None => Revision { delete: true, ..Revision::default() },
        };
        let mut author = self.author();
        match author::revise(&mut author, original, revision) {
            Ok(record) => self.put_authored(&author, record)?,
            Err(why) => self.unmade(path, why),
        }
        let what = if before.is_some() { "it stays as it was" } else { "it is deleted" };
        self.effects.notices.push(format!(
            "{}: the conflict file that was to take its place was removed before it had, and no member that is \
             connected has it; {what}.",
            path.as_str()
        ));
        Ok(true)
    }

    fn drop_conflict(&mut self, path: &RelPath, record: &Arc<Record>) -> Result<(), Miss> {
        let mut author = self.author();
        match author::delete(&mut author, record) {
            Ok(record) => self.put_authored(&author, record),
            Err(why) => {
                self.unmade(path, why);
                Ok(())
            }
        }
    }

    /// False if the record cannot take the value.
    fn set_value(
        &mut self,
        path: &RelPath,
        record: &Arc<Record>,
        value: EntryValue,
        meta: Option<Meta>,
    ) -> Result<bool, Miss> {
        let mut author = self.author();
        let revision = Revision { value: Some(Value::Entry(value)), meta, ..Revision::default() };
        match author::revise(&mut author, record, revision) {
            Ok(record) => self.put_authored(&author, record).map(|()| true),
            Err(Unmade::Same) => Ok(true),
            Err(why) => {
                self.unmade(path, why);
                Ok(false)
            }
        }
    }
}
