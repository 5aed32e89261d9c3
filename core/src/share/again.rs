//! Deletes of what a new identity made again: their authors had seen the value under the old one. Decides on the same
//! record alone; another record of the same path may be deleted only because this one is its double.

use crate::files::path::RelPath;
use crate::index::author;
use crate::index::record::Record;
use crate::share::planning::Judge;
use crate::share::progress::Former;
use crate::share::txn::Miss;

impl Judge<'_> {
    /// A delete that came from a peer holds also for the value that was made again, where its author knew what the
    /// former identity had made: he saw the same bytes in the same record.
    pub(super) fn delete_again(&mut self, gone: &Record) -> Result<(), Miss> {
        let knew = |former: &Former| gone.deleted_clock.get(former.id) > former.above;
        if !gone.deleted() || !self.may_author() || !self.progress.former.iter().any(knew) {
            return Ok(());
        }
        let Some(record) = self.txn.record(gone.uuid)?.filter(|record| !record.deleted()) else {
            return Ok(());
        };
        let set = &record.value_change;
        let again = set.peer == self.keys.id() && set.rev <= self.progress.reclaimed;
        if !again || !record.same_value(gone) {
            return Ok(());
        }
        let mut author = self.author();
        match author::delete(&mut author, &record) {
            Ok(deleted) => self.put_authored(&author, deleted),
            Err(why) => {
                if let Some(path) = RelPath::from_key(&record.key) {
                    self.unmade(&path, why);
                }
                Ok(())
            }
        }
    }
}
