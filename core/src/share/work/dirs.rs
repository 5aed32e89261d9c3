//! Makes directories, with those above them where they are missing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Job, Trouble, Work, ancestors};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::plan::wanted_meta;
use crate::index::record::{EntryContent, Record};
use crate::io::disk::{MODE_BITS, Made, per_item};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::finish::Outcome;
use crate::time::Now;

impl Work {
    pub(super) fn make_dirs(
        &mut self,
        dirs: Vec<(RelPath, Option<Arc<Record>>)>,
        retried: bool,
        out: &mut Outbox,
    ) {
        let mode = |version: &Option<Arc<Record>>| version.as_ref().and_then(|v| wanted_meta(v).0);
        let wanted = dirs.iter().map(|(path, version)| (path.clone(), mode(version))).collect();
        let op = DiskOp::MakeDirs { root: self.root, dirs: wanted };
        self.jobs.insert(out.disk(op), Job::MakeDirs(dirs, retried));
    }

    pub(super) fn made_dirs(
        &mut self,
        dirs: Vec<(RelPath, Option<Arc<Record>>)>,
        retried: bool,
        result: Result<DiskDone, DiskError>,
        now: Now,
        out: &mut Outbox,
    ) {
        let made = per_item(result, dirs.len(), |done| match done {
            DiskDone::Made(made) => Some(made),
            _ => None,
        });
        let mut again = Vec::new();
        for ((path, version), made) in dirs.into_iter().zip(made) {
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
                (Err(DiskError::NotFound), version) if !retried => again.push((path, version)),
                (Err(error), _) => self.fail(path, Trouble::Disk(error), now),
            }
        }
        if again.is_empty() {
            return;
        }
        // A directory on the way lives only through what lies beneath it. One that is in work is its own matter.
        let above = ancestors(again.iter().map(|(path, _)| path));
        let above = above.into_iter().map(|(path, _)| path).filter(|path| !self.busy.contains(path));
        let mut dirs: Vec<_> = above.map(|path| (path, None)).collect();
        self.busy.extend(dirs.iter().map(|(path, _)| path.clone()));
        dirs.append(&mut again);
        dirs.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.make_dirs(dirs, true, out);
    }
}
