//! Takes away what is not wanted any more, as soon as nothing under way needs it. Decides nothing about what goes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Job, PAGE, PAGES_MAX, Sweep, TASKS_MAX, Trouble, Work};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::io::disk::{self, DiskDone, DiskError, DiskOp, Kind, Remove};
use crate::share::finish::{Finished, Outcome};
use crate::time::Now;

/// How long removals wait for what else is being decided.
const REMOVALS_WAIT: Duration = Duration::from_secs(1);
/// What is noted of a path where there was nothing to remove.
const MISSED: Trouble = Trouble::Disk(DiskError::NotFound);

impl Work {
    /// Deleted paths are looked at without waiting for a sweep that goes on only as fast as downloads end.
    pub fn hurry(&mut self, paths: Vec<RelPath>) {
        let stalled = matches!(self.sweep, Sweep::At(..)) && self.busy.len() + PAGE as usize > TASKS_MAX;
        if stalled && self.pages.len() < PAGES_MAX as usize && !paths.is_empty() {
            self.pages.push_back(paths);
        }
    }

    /// Removes what the sweeps found to be removed. While more is being decided (`settled` is false) it waits for a
    /// moment: what is to be copied from a path is best copied before the path goes. What work under way needs stays,
    /// for the sweep that follows the end of that work.
    pub fn pump_removals(&mut self, settled: bool, now: Now, out: &mut Outbox) {
        if self.removals.is_empty() || !self.enabled {
            return;
        }
        let since = *self.removals_since.get_or_insert(now.mono);
        let planning =
            self.planning > 0 || !self.pages.is_empty() || matches!(self.sweep, Sweep::At(_, true));
        if (planning || !settled) && now.mono.since(since) < REMOVALS_WAIT {
            return;
        }
        self.removals_since = None;
        let mut items = core::mem::take(&mut self.removals);
        // Deepest first, so that a directory is empty when its turn comes.
        items.sort_by(|(a, _), (b, _)| b.cmp(a));
        // Of what was found twice the later stamp counts.
        items.dedup_by(|(a, later), (b, stamp)| {
            let same = a == b;
            if same {
                *stamp = *later;
            }
            same
        });
        let mut needed: BTreeSet<RelPath> = self.sources.values().cloned().collect();
        items.retain(|(path, stamp)| {
            // Nothing is moved or copied from beneath a file, but it may stand where a directory is being made.
            let dir = stamp.kind == Kind::Dir;
            let stays = |set: &BTreeSet<RelPath>| {
                let first = set.range(path..).next();
                first.is_some_and(|first| first == path || dir && first.is_beneath(path))
            };
            let stays = stays(&self.busy) || stays(&needed);
            if stays {
                needed.insert(path.clone());
            }
            !stays
        });
        if items.is_empty() {
            return;
        }
        let archive = self.archive_folder(now);
        let paths: Vec<RelPath> = items.iter().map(|(path, _)| path.clone()).collect();
        self.busy.extend(paths.iter().cloned());
        let items = items
            .into_iter()
            .map(|(path, stamp)| Remove { path, stamp, archive: Some(archive.clone()) })
            .collect();
        let job = Job::Remove(paths, archive);
        self.jobs.insert(out.disk(DiskOp::Remove { root: self.root, items }), job);
    }

    /// Whether sync wanted to remove what lay at a path, and it was gone: then its absence tells others nothing.
    pub fn missed(&self, path: &RelPath) -> bool {
        self.failures.get(path).is_some_and(|failure| failure.trouble == MISSED)
    }

    pub(super) fn removed(
        &mut self,
        paths: Vec<RelPath>,
        archive: &str,
        result: Result<DiskDone, DiskError>,
        now: Now,
    ) {
        let results = disk::per_item(result, paths.len(), |done| match done {
            DiskDone::Removed(results) => Some(results),
            _ => None,
        });
        for (path, result) in paths.into_iter().zip(results) {
            let outcome = match result {
                Ok(()) => Outcome::Removed { archived: Some(archive.into()) },
                Err(DiskError::NotFound) => {
                    // A user was faster, and may have moved it: it is left to the look that says where to.
                    self.pause(path.clone(), MISSED, now);
                    self.changed(path, Outcome::Missed, now);
                    continue;
                }
                Err(DiskError::NotEmpty) => {
                    self.failures.remove(&path);
                    self.finished.push(Finished { path, outcome: Outcome::Kept });
                    continue;
                }
                Err(error) => {
                    self.fail(path, Trouble::Disk(error), now);
                    continue;
                }
            };
            self.failures.remove(&path);
            self.changed(path, outcome, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{file, file_record, path, stamp};
    use crate::ids::RootId;
    use crate::index::record::EntryContent;
    use crate::io::Output;
    use crate::io::disk::Stamp;
    use crate::share::task::Task;
    use crate::time::{Instant, WallTime};
    use alloc::string::String;
    use alloc::sync::Arc;

    fn now(ms: u64) -> Now {
        Now { mono: Instant(ms * 1_000_000), wall: WallTime(1_800_000_000_000_000_000) }
    }

    fn work() -> Work {
        let mut work = Work::new(RootId(1), 0);
        work.enabled = true;
        work
    }

    fn stamped(dir: bool) -> Stamp {
        stamp(&if dir { EntryContent::Dir } else { file(1) }, 1)
    }

    fn remove(work: &mut Work, at: &str, dir: bool) {
        work.begin(Task::Remove { path: path(at), stamp: stamped(dir) });
    }

    fn bring(work: &mut Work, to: &str, from: Option<&str>) {
        let version = Arc::new(file_record(to.len() as u8, &path(to).to_key(), 1, 1));
        let local = from.map(|from| (path(from), stamped(false)));
        work.begin(Task::Bring { path: path(to), version, replaces: None, local, old: None });
    }

    fn removed(work: &mut Work, settled: bool, now: Now) -> Vec<String> {
        let mut out = Outbox::default();
        work.pump_removals(settled, now, &mut out);
        let ops = core::iter::from_fn(|| out.pop()).filter_map(|output| match output {
            Output::Disk { op: DiskOp::Remove { items, .. }, .. } => Some(items),
            _ => None,
        });
        ops.flatten().map(|item| item.path.as_str().into()).collect()
    }

    #[test]
    fn only_what_is_needed_stays() {
        let mut work = work();
        bring(&mut work, "large", None);
        bring(&mut work, "copy", Some("d/source"));
        bring(&mut work, "is/a/dir", None);
        let version = Arc::new(file_record(9, "/m/from", 1, 1));
        let (from, to) = (path("m/from"), path("to"));
        work.begin(Task::Rename { from, to, stamp: stamped(false), version });
        for (at, dir) in [("x", false), ("d", true), ("d/source", false), ("d/other", false), ("m", true)] {
            remove(&mut work, at, dir);
        }
        // Downloads beneath go on while the file in their way goes.
        remove(&mut work, "is", false);
        remove(&mut work, "d.e", true);
        remove(&mut work, "x", false);
        assert_eq!(removed(&mut work, true, now(1)), ["x", "is", "d.e", "d/other"]);
        // The rest is found anew by the sweep that follows the end of the work.
        assert_eq!(removed(&mut work, true, now(2)), [] as [&str; 0]);
        work.ended(&path("m/from"));
        remove(&mut work, "m", true);
        assert_eq!(removed(&mut work, true, now(3)), ["m"]);
    }

    #[test]
    fn what_was_not_there_is_left_to_a_look() {
        let mut work = work();
        let results = [Ok(()), Err(DiskError::NotFound), Err(DiskError::Io)];
        let paths = ["gone", "missed", "failed"].map(path);
        work.removed(paths.to_vec(), "archive", Ok(DiskDone::Removed(results.to_vec())), now(1));
        let is_missed = |item: &Finished| matches!(item.outcome, Outcome::Missed).then(|| item.path.clone());
        assert_eq!(work.unflushed.items.iter().filter_map(is_missed).collect::<Vec<_>>(), [path("missed")]);
        assert_eq!(paths.map(|path| work.missed(&path)), [false, true, false]);
    }

    #[test]
    fn a_source_goes_when_it_was_copied() {
        let mut work = work();
        bring(&mut work, "copy", Some("source"));
        remove(&mut work, "source", false);
        assert_eq!(removed(&mut work, true, now(1)), [] as [&str; 0]);
        let id = work.next_id;
        assert!(work.take_want(id).is_some());
        remove(&mut work, "source", false);
        assert_eq!(removed(&mut work, true, now(1)), ["source"]);
    }

    #[test]
    fn what_is_brought_back_is_left_alone_until_it_is_released() {
        let mut work = work();
        work.hold(path("x"));
        bring(&mut work, "x", None);
        remove(&mut work, "x", false);
        assert_eq!((work.next_id, removed(&mut work, true, now(1))), (0, Vec::new()));
        let freed = work.freed();
        work.release(&path("x"));
        assert!(work.freed() > freed && !work.is_busy(&path("x")) && !work.is_idle());
        // What is in work by itself is not held, and so not released.
        bring(&mut work, "x", None);
        work.hold(path("x"));
        work.release(&path("x"));
        assert!(work.is_busy(&path("x")));
    }

    #[test]
    fn deletes_do_not_wait_for_a_sweep_that_waits_for_downloads() {
        let mut work = work();
        let busy = TASKS_MAX - PAGE as usize;
        work.busy = (0..busy).map(|n| path(&alloc::format!("{n}"))).collect();
        work.sweep = Sweep::At(Vec::new(), false);
        // There is room: the sweep goes on by itself.
        work.hurry([path("x")].into());
        assert_eq!(work.take_page(), None);
        work.busy.insert(path("one more"));
        for _ in 0..=PAGES_MAX {
            work.hurry([path("x")].into());
        }
        assert_eq!(work.pages.len(), PAGES_MAX as usize);
        assert_eq!(work.take_page(), Some([path("x")].into()));
    }

    #[test]
    fn what_is_being_decided_is_waited_for_no_longer_than_a_moment() {
        let mut work = work();
        remove(&mut work, "x", false);
        let wait = u64::try_from(REMOVALS_WAIT.as_millis()).unwrap();
        assert_eq!(removed(&mut work, false, now(5)), [] as [&str; 0]);
        assert_eq!(removed(&mut work, false, now(4 + wait)), [] as [&str; 0]);
        assert_eq!(removed(&mut work, false, now(5 + wait)), ["x"]);
    }
}
