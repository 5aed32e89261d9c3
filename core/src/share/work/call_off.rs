//! Calls downloads off that are of no use any more. What is to become of their paths is decided anew.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Trouble, Work};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::index::record::Record;
use crate::io::DiskError;
use crate::time::Now;

impl Work {
    /// A record has another version now: a download for one that it is no more is called off, because nobody may have
    /// that content any longer, and what is to become of the path now would wait for it.
    pub fn superseded(&mut self, record: &Record, now: Now, out: &mut Outbox) {
        let Some(&id) = self.wanted.get(&record.uuid) else { return };
        let Some((_, version, _)) = self.wants.get(&id) else { return };
        let same = !record.deleted() && record.key == version.key && record.content() == version.content();
        // What comes late over another peer is nothing new.
        if same || version.clock.covers(&record.clock) {
            return;
        }
        if !record.deleted() && record.content() == version.content() {
            // Only the place is another: what came of it is of use there, and all of it is moved there.
            if !self.fetcher.put_off(id, now, out) {
                return;
            }
        } else {
            self.fetcher.cancel(id, now, out);
        }
        if let Some((path, ..)) = self.take_want(id) {
            self.free(&path);
            self.wake();
        }
    }

    /// What downloads to these paths were to replace is seen to lie elsewhere: they stop, so that this is looked at now
    /// and not when they have ended. What came of them stays for whatever wants it then.
    pub fn displaced(&mut self, paths: &BTreeSet<RelPath>, now: Now, out: &mut Outbox) {
        let wants = self.wants.iter().filter(|(_, (path, ..))| paths.contains(path));
        let ids: Vec<u64> = wants.map(|(&id, _)| id).collect();
        for id in ids {
            // One that has just come in full is put in its place, or not, in a moment.
            if self.fetcher.put_off(id, now, out)
                && let Some((path, ..)) = self.take_want(id)
            {
                // Planned at once it would be in work again before anybody looks.
                self.pause(path.clone(), Trouble::Disk(DiskError::Changed), now);
                self.free(&path);
                self.wake();
            }
        }
    }
}
