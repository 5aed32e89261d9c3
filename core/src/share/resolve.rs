//! Resolving a conflict file: its content takes the place of the original's, or it goes (sync.md, Conflicts).

use alloc::format;
use alloc::sync::Arc;

use crate::files::path::RelPath;
use crate::index::author::{self, Revision, Unmade};
use crate::index::record::{EntryValue, Record, Value};
use crate::share::Share;
use crate::share::pipeline::Op;
use crate::share::planning::Judge;
use crate::share::txn::Miss;

/// What there is to say where a content that is not on this disk should be kept.
pub const NOT_HERE: &str = "its content is not here yet; it can be kept once it is.";

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
            if self.set_value(path, &record, EntryValue { conflict_source: None, ..value.clone() })? {
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
        if self.set_value(path, &original, value)? { self.drop_conflict(path, &record) } else { Ok(()) }
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
    fn set_value(&mut self, path: &RelPath, record: &Arc<Record>, value: EntryValue) -> Result<bool, Miss> {
        let mut author = self.author();
        let revision = Revision { value: Some(Value::Entry(value)), ..Revision::default() };
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
