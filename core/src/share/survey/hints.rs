//! What is at the paths that the watcher named. Sorts them; reads nothing itself.

use alloc::collections::BTreeMap;

use super::{Step, Survey};
use crate::files::path::RelPath;
use crate::files::reconcile::{Observation as Seen, present};
use crate::files::row::{Base, DiskState};
use crate::index::record::EntryContent;
use crate::io::DiskError;
use crate::io::disk::Kind;
use crate::share::local::{Observation, What};
use crate::time::Now;

/// The permission bits that looking into a directory needs, of whomever.
const READ_AND_SEARCH: u32 = 0o555;

impl Survey {
    /// Stamps and rows of the hinted paths are here.
    pub(super) fn judge_hints(&mut self, now: Now) {
        // The one that comes first waits for the other.
        let (Some(stamps), Some(rows)) = (&mut self.stamps, &mut self.hint_rows) else { return };
        let (stamps, rows) = (core::mem::take(stamps), core::mem::take(rows));
        (self.stamps, self.hint_rows) = (None, None);
        // Whether something could not be looked at that may be the other end of what is doubted.
        let mut failed = false;
        // Of each directory one path that came and went unseen.
        let mut passed: BTreeMap<RelPath, RelPath> = BTreeMap::new();
        for ((path, stamp), (row, beneath)) in
            core::mem::take(&mut self.hinted).into_iter().zip(stamps).zip(rows)
        {
            let was_dir = row.content() == Some(&EntryContent::Dir);
            // What lay in a directory may have a row where the directory itself, gone too soon, has none.
            let held_rows = was_dir || beneath;
            match stamp {
                Ok(stamp) => {
                    let back = self.missing.remove(&path).is_some() | self.held.remove(&path);
                    self.note_kind(&path, stamp.kind);
                    let is_dir = stamp.kind == Kind::Dir;
                    if held_rows && !is_dir {
                        self.gathering.gone_dirs.insert(path.clone(), None);
                        self.gathering.look_back.insert(path.clone());
                    }
                    // Whether it may be read may have become another, too.
                    let same = |disk: &DiskState| {
                        let bits = (disk.stamp.mode ^ stamp.mode) & READ_AND_SEARCH;
                        disk.is_listed(&stamp) && bits == 0
                    };
                    let same_dir = row.disk.as_ref().is_some_and(same);
                    // What lies in a directory that could not be read was never seen; and with a directory that was
                    // gone all that it holds is back.
                    let unseen = is_dir && self.unreadable.remove(&path).is_some();
                    let came = self.to_walk.remove(&path);
                    let walked = is_dir && (came || back || unseen || !(was_dir && same_dir));
                    let seen = present(stamp, row);
                    if is_dir {
                        self.hint_unreadable_in(&path, now);
                    } else if matches!(seen, Seen::Same) {
                        self.note_readable(&path);
                    }
                    if walked {
                        self.walk(path, stamp.inode, seen);
                    } else {
                        self.take(path, seen);
                    }
                }
                // Beneath a file or a link nothing is.
                Err(DiskError::NotFound | DiskError::WrongKind) => {
                    // A walk of this pass may meet it yet, and then it came from where something was a moment ago.
                    self.sure.remove(&path);
                    self.forget_unreadable(&path);
                    self.special.remove(&path);
                    self.unusable.forget(&path);
                    self.large.forget(&path);
                    if row.disk.is_some() {
                        let is_ripe = self.is_ripe(&path);
                        if held_rows {
                            self.dir_is_gone(path, row, is_ripe);
                        } else {
                            self.gone.push((path, row));
                        }
                    } else {
                        if held_rows {
                            self.gathering.gone_dirs.insert(path.clone(), None);
                            self.gathering.look_back.insert(path.clone());
                        }
                        self.missing.remove(&path);
                        self.held.remove(&path);
                        if row.base == Base::None {
                            passed.extend(path.parent().map(|dir| (dir, path)));
                        }
                    }
                }
                Err(error) => {
                    failed = true;
                    if self.to_walk.remove(&path) {
                        self.new_dirs.insert(path.clone());
                    }
                    self.note_unreadable(path, error, now);
                }
            }
        }
        // It may have been what kept a sync from taking the directory away.
        for path in passed.into_values() {
            let (what, found) = (What::Gone { counts: false }, self.found);
            self.ready.push_back(Observation { path, seen: None, what, found });
        }
        self.judge_sure(failed);
        self.note_old_missing();
        self.step = Step::Gather;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::engine::outbox::Outbox;
    use crate::files::fixture::{file, path, stamp};
    use crate::files::row::PathRow;
    use crate::ids::RootId;
    use crate::share::survey::{QUIET, QUIET_DONE, WHILE};
    use crate::time::{Instant, WallTime};

    fn now(at: Duration) -> Now {
        Now { mono: Instant(0).plus(at), wall: WallTime(0) }
    }

    fn survey() -> Survey {
        let mut survey = Survey::new(RootId(1));
        survey.full_due = false;
        survey
    }

    /// When it wants to look, counted from a hint.
    fn wait(survey: &Survey, since: Now) -> Duration {
        survey.poll_timeout().unwrap().since(since.mono)
    }

    #[test]
    fn what_is_done_is_looked_at_soon_unless_something_else_just_was() {
        let mut survey = survey();
        let first = now(2 * WHILE);
        survey.hint(path("a"), first);
        assert_eq!(wait(&survey, first), QUIET);
        survey.hint_done(path("a"), first);
        assert_eq!(wait(&survey, first), QUIET_DONE);
        // It goes on.
        survey.hint(path("a"), first);
        assert_eq!(wait(&survey, first), QUIET);
        survey.hint_done(path("a"), first);
        let looked = now(2 * WHILE + QUIET_DONE);
        survey.pump(looked, true, &Default::default(), 0, &mut Outbox::default());
        assert!(survey.hints.is_empty());
        survey.step = Step::Rest;
        for (after, quiet) in [(WHILE - Duration::from_nanos(1), QUIET), (WHILE, QUIET_DONE)] {
            let again = now(2 * WHILE + QUIET_DONE + after);
            survey.hint_done(path("b"), again);
            assert_eq!(wait(&survey, again), quiet);
        }
    }

    #[test]
    fn both_ends_of_a_move_are_looked_at_together() {
        let mut survey = survey();
        survey.hint_done(path("from"), now(2 * WHILE));
        survey.hint_done(path("to"), now(2 * WHILE + QUIET_DONE / 2));
        survey.hint(path("other"), now(2 * WHILE));
        survey.pump(now(2 * WHILE + QUIET_DONE), true, &Default::default(), 0, &mut Outbox::default());
        assert_eq!(survey.hinted, [path("from"), path("to")]);
    }

    #[test]
    fn what_lies_above_is_looked_at_with_what_is_done() {
        let mut survey = survey();
        survey.hint_new_dir(path("d"), now(2 * WHILE));
        survey.hint_done(path("d/in/y"), now(2 * WHILE));
        survey.pump(now(2 * WHILE + QUIET_DONE), true, &Default::default(), 0, &mut Outbox::default());
        assert_eq!(survey.hinted, [path("d"), path("d/in/y")]);
        assert!(survey.hints.is_empty() && survey.to_walk.contains(&path("d")));
    }

    #[test]
    fn beneath_what_is_no_directory_is_nothing() {
        let mut survey = survey();
        let disk = Some(DiskState { stamp: stamp(&file(1), 1), content: file(1), settled: true });
        let row = PathRow { disk, ..PathRow::default() };
        for (error, gone) in [(DiskError::WrongKind, 1), (DiskError::NotFound, 1), (DiskError::Denied, 0)] {
            survey.hinted = [path("link/s")].into();
            survey.stamps = Some([Err(error)].into());
            survey.hint_rows = Some([(row.clone(), false)].into());
            survey.judge_hints(now(WHILE));
            assert_eq!((core::mem::take(&mut survey.gone).len(), survey.unreadable.len()), (gone, 1 - gone));
        }
    }
}
