//! What was moved to the archive while a program may still hold it open: looked at twice, and brought back beside its
//! path if it was written after the move (sync.md, "Deletes").
//!
//! The list lives in memory alone. What was not looked at before the program ended is found by its times instead
//! ([`written_late`]), when the archive is looked through for what may go.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::event::Event;
use crate::engine::outbox::Outbox;
use crate::files::conflict;
use crate::files::path::RelPath;
use crate::files::row::DiskState;
use crate::ids::{RootId, Sha256, Token, Uuid};
use crate::index::record::EntryContent;
use crate::io::disk::{self, Archived, Hashed, HashedContent, Kind, Stamp};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::{Ctx, Share, status};
use crate::time::{Instant, Now, WallTime};

/// An archived file is looked at so long after it was moved,
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// and so long after that again.
const SECOND_LOOK: Duration = Duration::from_secs(590);
/// Files that are waited for; what is more is found when the archive is looked through.
pub const KEPT_MAX: usize = 10_000;
/// Files of one look.
const PER_LOOK: usize = 64;
/// Names that are tried for a file that is taken out.
const NAMES_MAX: u32 = 100;

/// A file in the archive, as it was moved there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where in the archive, the path it had, and its stamp.
    pub file: Archived,
    /// What it held.
    pub content: Option<EntryContent>,
    /// The record whose version that was.
    pub source: Option<Uuid>,
}

impl Kept {
    /// Of what a path held before it was replaced or removed; only a regular file can be written through a handle.
    pub fn new(folder: &str, path: &RelPath, disk: &DiskState, source: Option<Uuid>) -> Option<Kept> {
        (disk.stamp.kind == Kind::File).then(|| Kept {
            file: Archived { folder: folder.into(), path: path.clone(), stamp: disk.stamp },
            content: Some(disk.content.clone()),
            source,
        })
    }
}

/// Whether a file was written after it was moved to the archive at this time, which was taken before the move: a write
/// in between would have stopped that. A write sets both times of a file; one that somebody set ahead is not yet that
/// of a change. Only a write in the very tick of the clock in which the file was moved cannot be told by this.
pub fn written_late(archived: WallTime, stamp: &Stamp) -> bool {
    stamp.kind == Kind::File && stamp.mtime_ns > archived.0 && stamp.ctime_ns >= stamp.mtime_ns
}

/// A file that was taken out of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it is now.
    pub to: RelPath,
    /// The path that it had.
    pub original: RelPath,
    /// The record whose version it was.
    pub source: Option<Uuid>,
}

#[derive(Debug)]
enum Job {
    Check(Vec<Kept>, Look),
    Take(Kept, RelPath, u32),
    /// What was taken out is made durable.
    Flush(Vec<Taken>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    First,
    Second,
}

/// The archived files of one share that are waited for.
#[derive(Debug)]
pub struct LateWrites {
    root: RootId,
    first: VecDeque<(Instant, Kept)>,
    second: VecDeque<(Instant, Kept)>,
    takes: Vec<(Kept, u32)>,
    jobs: BTreeMap<Token, Job>,
    /// What was taken out and is not durable yet.
    unflushed: Vec<Taken>,
    taken: Vec<Taken>,
    /// Paths at which nobody is to look before what is taken there is durable, and those of them where nothing came.
    begun: Vec<RelPath>,
    failed: Vec<RelPath>,
    /// The newest of those that are waited for, by what each held.
    contents: BTreeMap<Sha256, Archived>,
}

impl LateWrites {
    /// Nothing is waited for.
    pub fn new(root: RootId) -> LateWrites {
        LateWrites {
            root,
            first: VecDeque::new(),
            second: VecDeque::new(),
            takes: Vec::new(),
            jobs: BTreeMap::new(),
            unflushed: Vec::new(),
            taken: Vec::new(),
            begun: Vec::new(),
            failed: Vec::new(),
            contents: BTreeMap::new(),
        }
    }

    /// A file in the archive that held this when it was moved there: where it lies, and its stamp.
    pub fn with_content(&self, sha256: &Sha256) -> Option<(RelPath, Stamp)> {
        let file = self.contents.get(sha256)?;
        Some((RelPath::in_archive(&file.folder, &file.path)?, file.stamp))
    }

    fn forget_content(&mut self, kept: &Kept) {
        if let Some(EntryContent::File { sha256, .. }) = &kept.content
            && self.contents.get(sha256) == Some(&kept.file)
        {
            self.contents.remove(sha256);
        }
    }

    /// Waits for a file that was just moved to the archive.
    pub fn add(&mut self, kept: Kept, now: Now) {
        if self.first.len() + self.second.len() < KEPT_MAX {
            if let Some(EntryContent::File { sha256, .. }) = &kept.content {
                self.contents.insert(*sha256, kept.file.clone());
            }
            self.first.push_back((now.mono.plus(FIRST_LOOK), kept));
        }
    }

    /// Has a file that was written late brought back beside its path.
    pub fn take(&mut self, kept: Kept) {
        let known = |job: &Job| matches!(job, Job::Take(other, ..) if other.file == kept.file);
        if !self.jobs.values().any(known) {
            self.takes.push((kept, 0));
        }
    }

    /// What was brought back since the last call.
    pub fn take_taken(&mut self) -> Vec<Taken> {
        core::mem::take(&mut self.taken)
    }

    /// When the next look is due; none while one is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = [self.first.front(), self.second.front()].into_iter().flatten().map(|(due, _)| *due).min();
        next.filter(|_| self.jobs.is_empty())
    }

    /// Looks at what is due.
    pub fn pump(&mut self, now: Now, out: &mut Outbox) {
        for (kept, tried) in core::mem::take(&mut self.takes) {
            self.put_out_take(kept, tried, out);
        }
        let takes = |job: &Job| matches!(job, Job::Take(..) | Job::Flush(_));
        if !self.unflushed.is_empty() && !self.jobs.values().any(takes) {
            let taken = core::mem::take(&mut self.unflushed);
            self.jobs.insert(out.disk(DiskOp::Flush { root: self.root }), Job::Flush(taken));
        }
        if !self.jobs.is_empty() {
            return;
        }
        for (queue, look) in [(&mut self.first, Look::First), (&mut self.second, Look::Second)] {
            let due = queue.iter().take(PER_LOOK).take_while(|(due, _)| *due <= now.mono).count();
            if due == 0 {
                continue;
            }
            let kept: Vec<Kept> = queue.drain(..due).map(|(_, kept)| kept).collect();
            let files = kept.iter().map(|kept| kept.file.clone()).collect();
            let token = out.disk(DiskOp::CheckArchived { root: self.root, files });
            self.jobs.insert(token, Job::Check(kept, look));
        }
    }

    fn put_out_take(&mut self, kept: Kept, tried: u32, out: &mut Outbox) {
        let Archived { folder, path, .. } = kept.file.clone();
        let to = conflict::late_name(&path, &folder, tried);
        let op = DiskOp::TakeArchived { root: self.root, folder, path, to: to.clone() };
        self.begun.push(to.clone());
        self.jobs.insert(out.disk(op), Job::Take(kept, to, tried));
    }

    /// Whether a token is its own.
    pub fn owns(&self, token: Token) -> bool {
        self.jobs.contains_key(&token)
    }

    /// Takes the end of its own disk work.
    pub fn handle_disk(&mut self, token: Token, result: Result<DiskDone, DiskError>, now: Now) {
        match self.jobs.remove(&token) {
            Some(Job::Check(kept, look)) => {
                let found = disk::per_item(result, kept.len(), |done| match done {
                    DiskDone::Checked(found) => Some(found),
                    _ => None,
                });
                for (kept, found) in kept.into_iter().zip(found) {
                    self.checked(kept, look, found, now);
                }
            }
            Some(Job::Take(kept, to, tried)) => self.took(kept, to, tried, stamp(result)),
            // After a power cut it may be in the archive again; it is looked for there.
            Some(Job::Flush(taken)) => self.taken.extend(taken),
            None => {}
        }
    }

    fn took(&mut self, kept: Kept, to: RelPath, tried: u32, result: Result<Stamp, DiskError>) {
        match result {
            Ok(_) => {
                let Kept { file, source, .. } = kept;
                return self.unflushed.push(Taken { to, original: file.path, source });
            }
            Err(DiskError::Exists) if tried < NAMES_MAX => self.takes.push((kept, tried + 1)),
            Err(DiskError::NotFound) => {}
            Err(error) => {
                // It stays in the archive, and is tried again when that is looked through.
                log::warn!(
                    "{}: was written late and cannot be taken out: {error:?}",
                    kept.file.path.as_str()
                );
            }
        }
        self.failed.push(to);
    }

    fn checked(&mut self, mut kept: Kept, look: Look, found: Result<Option<Hashed>, DiskError>, now: Now) {
        // Of what is touched or being written this stamp says nothing any more.
        if look == Look::Second || !matches!(found, Ok(None)) {
            self.forget_content(&kept);
        }
        match found {
            // Another file has its name there, or it was pruned.
            Ok(Some(hashed)) if hashed.stamp.inode != kept.file.stamp.inode => return,
            Err(DiskError::NotFound | DiskError::WrongKind) => return,
            Ok(Some(hashed)) if !same_content(&kept, &hashed) => {
                self.take(kept);
                return;
            }
            // It was touched, and holds what it held.
            Ok(Some(hashed)) => kept.file.stamp = hashed.stamp,
            Err(DiskError::Changed) => {
                // It is being written.
                self.first.push_back((now.mono.plus(FIRST_LOOK), kept));
                return;
            }
            Ok(None) | Err(_) => {}
        }
        if look == Look::First {
            self.second.push_back((now.mono.plus(SECOND_LOOK), kept));
        }
    }
}

fn same_content(kept: &Kept, hashed: &Hashed) -> bool {
    match (&kept.content, &hashed.content) {
        (Some(EntryContent::File { size, sha256 }), HashedContent::File(now)) => {
            *size == hashed.stamp.size && sha256 == now
        }
        _ => false,
    }
}

fn stamp(result: Result<DiskDone, DiskError>) -> Result<Stamp, DiskError> {
    match result {
        Ok(DiskDone::Stamps(mut stamps)) => stamps.pop().unwrap_or(Err(DiskError::Io)),
        Ok(_) => Err(DiskError::Io),
        Err(error) => Err(error),
    }
}

impl Share {
    /// Looks at what was archived, and shows what was written there since.
    pub(super) fn pump_late(&mut self, ctx: &mut Ctx<'_>) {
        if self.may_work() {
            self.late.pump(ctx.now, ctx.out);
        }
        core::mem::take(&mut self.late.begun).into_iter().for_each(|path| self.work.hold(path));
        for path in core::mem::take(&mut self.late.failed) {
            self.work.release(&path);
        }
        for taken in self.late.take_taken() {
            self.work.release(&taken.to);
            let (share, original) = (&self.folder.path, taken.original.as_str());
            let message = format!(
                "{original}: a program wrote to the version that was replaced or deleted; what it wrote is \
                 kept as {}.",
                taken.to.name()
            );
            ctx.out.event(Event::Notice { share: Some(share.clone()), message });
            // Directories that had to be made for it are new as well.
            for dir in taken.to.ancestors().filter(|dir| !dir.is_root()) {
                self.survey.hint(dir, ctx.now);
            }
            self.survey.hint(taken.to.clone(), ctx.now);
            if self.taken.len() < KEPT_MAX {
                self.taken.insert(taken.to.clone(), taken);
            }
        }
    }

    /// The archive was looked through: `limit` is what it may take, `kept` what it keeps, in bytes, and `full` whether
    /// replacing waits.
    pub fn archive_judged(&mut self, ctx: &mut Ctx<'_>, limit: u64, kept: u64, full: bool) {
        self.archive_space.keeps(kept);
        let Some(full) = self.archive_space.judged(limit, full, ctx.now.mono) else { return };
        self.work.set_archive_full(full);
        if full {
            let message = status::ARCHIVE_FULL.into();
            ctx.out.event(Event::Notice { share: Some(self.folder.path.clone()), message });
        }
        self.pump(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{disk, file, path, stamp as stamp_for};
    use crate::io::Output;

    const ROOT: RootId = RootId(1);
    const SECOND: i64 = 1_000_000_000;

    fn now(seconds: u64) -> Now {
        let nanos = seconds * 1_000_000_000;
        Now { mono: Instant(nanos), wall: WallTime(nanos.cast_signed()) }
    }

    fn kept() -> Kept {
        Kept::new("f", &path("a"), &disk(file(1)), None).unwrap()
    }

    /// Lets what is due be looked at, and answers that.
    fn look(late: &mut LateWrites, seconds: u64, found: Result<Option<Hashed>, DiskError>) -> usize {
        let mut out = Outbox::default();
        late.pump(now(seconds), &mut out);
        let mut looks = 0;
        while let Some(Output::Disk { token, op }) = out.pop() {
            let DiskOp::CheckArchived { files, .. } = op else { panic!("{op:?}") };
            looks += files.len();
            let found = files.iter().map(|_| found.clone()).collect();
            late.handle_disk(token, Ok(DiskDone::Checked(found)), now(seconds));
        }
        looks
    }

    fn holds(content: u8, inode: u64) -> Result<Option<Hashed>, DiskError> {
        let EntryContent::File { sha256, .. } = file(content) else { panic!() };
        let stamp = Stamp { mtime_ns: 99, inode, ..stamp_for(&file(content), inode) };
        Ok(Some(Hashed { stamp, content: HashedContent::File(sha256) }))
    }

    #[test]
    fn two_looks_and_no_more() {
        let mut late = LateWrites::new(ROOT);
        late.add(kept(), now(0));
        assert_eq!(late.poll_timeout(), Some(now(10).mono));
        assert_eq!(look(&mut late, 9, Ok(None)), 0);
        assert_eq!(look(&mut late, 10, Ok(None)), 1);
        assert_eq!(late.poll_timeout(), Some(now(600).mono));
        assert_eq!(look(&mut late, 600, Ok(None)), 1);
        assert_eq!(late.poll_timeout(), None);
        assert!(late.takes.is_empty());
    }

    #[test]
    fn what_went_there_is_found_by_its_content_until_it_changed_or_was_looked_at_twice() {
        let EntryContent::File { sha256, .. } = file(1) else { panic!() };
        let place = (RelPath::in_archive("f", &path("a")).unwrap(), kept().file.stamp);
        for (found, stays) in [(Ok(None), true), (holds(1, 7), false), (Err(DiskError::NotFound), false)] {
            let mut late = LateWrites::new(ROOT);
            late.add(kept(), now(0));
            assert_eq!(late.with_content(&sha256), Some(place.clone()));
            look(&mut late, 10, found);
            assert_eq!(late.with_content(&sha256), stays.then(|| place.clone()));
            if stays {
                look(&mut late, 600, Ok(None));
            }
            assert_eq!(late.with_content(&sha256), None);
            assert!(late.contents.is_empty());
        }
    }

    #[test]
    fn what_was_written_is_taken_and_what_was_touched_is_not() {
        for (found, takes, waits) in [
            (holds(2, 1), 1, false),
            (holds(1, 1), 0, true),
            // Another file under its name.
            (holds(2, 7), 0, false),
            (Err(DiskError::NotFound), 0, false),
            // Being written: looked at soon.
            (Err(DiskError::Changed), 0, true),
            (Err(DiskError::Io), 0, true),
        ] {
            let mut late = LateWrites::new(ROOT);
            late.add(kept(), now(0));
            assert_eq!(look(&mut late, 10, found.clone()), 1);
            assert_eq!((late.takes.len(), late.poll_timeout().is_some()), (takes, waits), "{found:?}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let mut late = LateWrites::new(ROOT);
        late.take(kept());
        let mut tried = Vec::new();
        for error in [Some(DiskError::Exists), None] {
            let mut out = Outbox::default();
            late.pump(now(0), &mut out);
            let Some(Output::Disk { token, op: DiskOp::TakeArchived { to, .. } }) = out.pop() else {
                panic!()
            };
            tried.push(to);
            let stamp = error.map_or(Ok(kept().file.stamp), Err);
            late.handle_disk(token, Ok(DiskDone::Stamps([stamp].into())), now(0));
        }
        assert_ne!(tried[0], tried[1]);
        assert_eq!(
            (late.take_taken(), &late.begun, &late.failed),
            (Vec::new(), &tried, &tried[..1].to_vec())
        );
        let mut out = Outbox::default();
        late.pump(now(0), &mut out);
        let Some(Output::Disk { token, op: DiskOp::Flush { .. } }) = out.pop() else { panic!() };
        late.handle_disk(token, Ok(DiskDone::Unit), now(0));
        let taken = late.take_taken();
        assert_eq!((taken[0].to.clone(), taken[0].original.clone()), (tried[1].clone(), path("a")));
    }

    #[test]
    fn no_more_than_the_limit_is_waited_for() {
        let mut late = LateWrites::new(ROOT);
        for _ in 0..=KEPT_MAX {
            late.add(kept(), now(0));
        }
        assert_eq!(late.first.len(), KEPT_MAX);
        let dir = disk(EntryContent::Dir);
        assert_eq!(
            Kept::new("f", &path("a"), &dir, None),
            None,
            "a directory has no handle to write through"
        );
    }

    #[test]
    fn times_tell_a_late_write() {
        let archived = WallTime(100 * SECOND);
        let with = |mtime, ctime| {
            let stamp = stamp_for(&file(1), 1);
            written_late(archived, &Stamp { mtime_ns: mtime * SECOND, ctime_ns: ctime * SECOND, ..stamp })
        };
        assert!(!with(50, 100), "moved");
        assert!(!with(50, 500), "its bits were set");
        assert!(with(101, 101), "written");
        assert!(!with(100, 100), "in the same tick");
        assert!(!with(900, 101), "its time was ahead when it was moved");
    }
}
