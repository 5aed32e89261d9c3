//! Makes changed names durable before the database knows of them. A commit that outlived a power cut which took the
//! removal or the rename itself back would leave a file that nobody knows: it would pass for a new one.
//!
//! A flush costs far more than what it covers, so it waits for company, and any flush covers all that was done before
//! it. Owns what was changed and is not flushed yet; changes nothing itself.

use core::time::Duration;

use super::{Changes, GROUP_WAIT, Job, Trouble, Work};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::index::record::EntryContent;
use crate::io::disk::{DiskError, DiskOp};
use crate::share::finish::{Finished, Outcome};
use crate::time::{Instant, Now};

/// So many changes are flushed without waiting for more.
const FLUSH_ITEMS: usize = 2000;
/// How long a change waits while more are under way, or a flush is coming anyway; else as long as installs do.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

impl Work {
    /// A path was changed on disk: that is told once it is durable.
    pub(super) fn changed(&mut self, path: RelPath, outcome: Outcome, now: Now) {
        self.unflushed_since.get_or_insert(now.mono);
        self.unflushed.items.push(Finished { path, outcome });
    }

    /// Puts out a flush, which covers all that was changed before it.
    pub(super) fn flush(&mut self, job: Job, out: &mut Outbox) {
        let token = out.disk(DiskOp::Flush { root: self.root });
        self.jobs.insert(token, job);
        self.unflushed_since = None;
        let covered = core::mem::take(&mut self.unflushed);
        if !covered.items.is_empty() {
            self.covered.insert(token, covered);
        }
    }

    /// Flushes what waited long enough, or has nothing to wait for.
    pub fn pump_flush(&mut self, now: Now, out: &mut Outbox) {
        let Some(since) = self.unflushed_since.filter(|_| !self.is_flushing()) else { return };
        if self.unflushed.items.len() >= FLUSH_ITEMS || now.mono.since(since) >= self.flush_wait() {
            self.flush(Job::Flush, out);
        }
    }

    /// How long a change waits, as far as can be told now.
    fn flush_wait(&self) -> Duration {
        let changes = |job: &Job| {
            matches!(
                job,
                Job::DirIntents(_) | Job::MakeDirs(_) | Job::Rename(_) | Job::Remove(..) | Job::SetMeta(_)
            )
        };
        // Installs flush twice.
        let installs = !self.wants.is_empty() || !self.ready.is_empty() || !self.groups.is_empty();
        let more = installs || self.jobs.values().any(changes);
        if more { FLUSH_WAIT } else { GROUP_WAIT }
    }

    fn is_flushing(&self) -> bool {
        !self.covered.is_empty()
    }

    /// A flush ended that covered these changes.
    pub(super) fn flushed(&mut self, changes: Changes, error: Option<DiskError>, now: Now) {
        let Changes { items, groups } = changes;
        let Some(error) = error else {
            self.finished.extend(items);
            self.groups_ended.extend(groups);
            return;
        };
        let made_dirs = !groups.is_empty();
        self.unsure.1.extend(groups);
        // The next try finds it done, and flushes again.
        for Finished { path, outcome } in items {
            match outcome {
                Outcome::Moved { to, .. } => {
                    self.free(&to);
                    self.pause(to, Trouble::Disk(error), now);
                }
                Outcome::Placed { version, content: EntryContent::Dir, .. } if made_dirs => {
                    self.unsure.0.push((path.clone(), Some(version)));
                }
                Outcome::Implied { .. } if made_dirs => self.unsure.0.push((path.clone(), None)),
                _ => {}
            }
            self.fail(path, Trouble::Disk(error), now);
        }
    }

    /// When what was changed is flushed at the latest.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        self.unflushed_since.filter(|_| !self.is_flushing()).map(|since| since.plus(self.flush_wait()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{file, path, stamp};
    use crate::ids::{RootId, Token};
    use crate::index::codec::PeerTable;
    use crate::io::Output;
    use crate::io::disk::DiskDone;
    use crate::share::task::Task;
    use crate::time::WallTime;
    use alloc::format;
    use alloc::vec::Vec;

    fn now(ms: u64) -> Now {
        Now { mono: Instant(ms * 1_000_000), wall: WallTime(1_800_000_000_000_000_000) }
    }

    type Rig = (Work, Outbox);

    /// Puts out what is due; the tokens of removals, with how many paths each has, and of flushes.
    fn put_out((work, out): &mut Rig, now: Now) -> (Vec<(Token, usize)>, Vec<Token>) {
        let (mut removals, mut flushes) = (Vec::new(), Vec::new());
        work.pump(&PeerTable::default(), now, out);
        work.pump_removals(true, now, out);
        work.pump_flush(now, out);
        while let Some(output) = out.pop() {
            match output {
                Output::Disk { token, op: DiskOp::Remove { items, .. } } => {
                    removals.push((token, items.len()))
                }
                Output::Disk { token, op: DiskOp::Flush { .. } } => flushes.push(token),
                _ => {}
            }
        }
        (removals, flushes)
    }

    fn answer((work, out): &mut Rig, token: Token, result: Result<DiskDone, DiskError>, now: Now) {
        work.handle_disk(token, result, &PeerTable::default(), now, out);
    }

    fn alone() -> u64 {
        u64::try_from(GROUP_WAIT.as_millis()).unwrap()
    }

    fn work() -> Rig {
        let mut work = Work::new(RootId(1), 0);
        work.enabled = true;
        (work, Outbox::default())
    }

    fn remove(work: &mut Rig, count: usize, now: Now) -> (Token, usize) {
        for at in 0..count {
            work.0.begin(Task::Remove { path: path(&format!("{at}")), stamp: stamp(&file(1), 1) });
        }
        put_out(work, now).0[0]
    }

    #[test]
    fn what_went_is_told_once_that_is_durable() {
        let mut work = work();
        let (removal, count) = remove(&mut work, 3, now(1));
        assert_eq!(put_out(&mut work, now(1)).1, []);
        answer(&mut work, removal, Ok(DiskDone::Removed((0..count).map(|_| Ok(())).collect())), now(2));
        assert_eq!(put_out(&mut work, now(1 + alone())).1, []);
        let (_, flushes) = put_out(&mut work, now(2 + alone()));
        assert_eq!((flushes.len(), work.0.take_finished().0.len()), (1, 0));
        answer(&mut work, flushes[0], Ok(DiskDone::Unit), now(3));
        assert_eq!(work.0.take_finished().0.len(), 3);
    }

    #[test]
    fn what_could_not_be_flushed_is_tried_again() {
        let mut work = work();
        let (removal, _) = remove(&mut work, 1, now(1));
        answer(&mut work, removal, Ok(DiskDone::Removed([Ok(())].into())), now(2));
        let (_, flushes) = put_out(&mut work, now(2 + alone()));
        answer(&mut work, flushes[0], Err(DiskError::Io), now(3));
        let finished = work.0.take_finished().0;
        assert!(matches!(finished[..], [Finished { outcome: Outcome::Failed, .. }]));
        assert!(work.0.failure(&path("0")).is_some());
    }

    #[test]
    fn a_change_waits_for_others_a_moment_and_no_longer() {
        let mut work = work();
        let (first, _) = remove(&mut work, 1, now(1));
        work.0.begin(Task::Remove { path: path("other"), stamp: stamp(&file(1), 1) });
        let (second, _) = put_out(&mut work, now(1)).0[0];
        answer(&mut work, first, Ok(DiskDone::Removed([Ok(())].into())), now(2));
        let wait = u64::try_from(FLUSH_WAIT.as_millis()).unwrap();
        assert_eq!(put_out(&mut work, now(1 + wait)).1, []);
        assert_eq!(work.0.poll_timeout(), Some(now(2 + wait).mono));
        let (_, flushes) = put_out(&mut work, now(2 + wait));
        assert_eq!(flushes.len(), 1);
        // What goes meanwhile waits for the end of that flush: it is not covered.
        answer(&mut work, second, Ok(DiskDone::Removed([Ok(())].into())), now(3 + wait));
        assert_eq!(put_out(&mut work, now(3 + wait)).1, []);
        answer(&mut work, flushes[0], Ok(DiskDone::Unit), now(4 + wait));
        assert_eq!(work.0.take_finished().0.len(), 1);
        assert_eq!(put_out(&mut work, now(3 + wait + alone())).1.len(), 1);
    }

    #[test]
    fn enough_changes_wait_for_nothing() {
        for (count, flushes) in [(FLUSH_ITEMS - 1, 0), (FLUSH_ITEMS, 1)] {
            let mut work = work();
            let (removal, _) = remove(&mut work, count, now(1));
            work.0.begin(Task::Remove { path: path("other"), stamp: stamp(&file(1), 1) });
            put_out(&mut work, now(1));
            let gone = (0..count).map(|_| Ok(())).collect();
            answer(&mut work, removal, Ok(DiskDone::Removed(gone)), now(2));
            assert_eq!(put_out(&mut work, now(2)).1.len(), flushes, "{count}");
        }
    }
}
