//! Looks in this share's own archive for contents that no peer has: a program that was killed between archiving a file
//! and putting its content where it is wanted does not know any more that it has it; the list of what went there
//! lately is in memory alone (`archived.rs`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::engine::outbox::Outbox;
use crate::ids::{RootId, Sha256, Token};
use crate::index::record::EntryContent;
use crate::io::disk::{self, Archived, Hashed, HashedContent, Kind};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::share::archived::Kept;
use crate::share::{Ctx, Share};

/// Contents that are looked for at once.
pub const WANTED_MAX: usize = 1000;
/// Contents that were looked for and are not looked for again; with more all may be looked for once more.
const SOUGHT_MAX: usize = 10_000;
/// Archived files of one look, the newest first.
const LISTED_MAX: u32 = 10_000;
/// Bytes that one look reads at most, and the first file that it reads whatever its size.
const READ_BYTES_MAX: u64 = 1 << 32;

/// Contents by their SHA-256, each with its size in bytes.
type Wanted = BTreeMap<Sha256, u64>;

#[derive(Debug)]
enum Job {
    List(Wanted),
    Read(Vec<Archived>, Wanted),
}

/// The looks into one share's archive.
#[derive(Debug)]
pub struct ArchiveSearch {
    root: RootId,
    wanted: Wanted,
    /// What looks that ended well were for: a content that was found and still does not come, for whatever reason, is
    /// no cause to read the archive again and again.
    sought: BTreeSet<Sha256>,
    job: Option<(Token, Job)>,
}

impl ArchiveSearch {
    /// Nothing is looked for.
    pub fn new(root: RootId) -> ArchiveSearch {
        ArchiveSearch { root, wanted: Wanted::new(), sought: BTreeSet::new(), job: None }
    }

    /// Has a content looked for, if there is room, and it was not in this run.
    pub fn want(&mut self, sha256: Sha256, size: u64) {
        if self.wanted.len() < WANTED_MAX && !self.sought.contains(&sha256) {
            self.wanted.insert(sha256, size);
        }
    }

    /// Begins a look for what is wanted, one at a time.
    pub fn pump(&mut self, out: &mut Outbox) {
        if self.job.is_none() && !self.wanted.is_empty() {
            let token = out.disk(DiskOp::ListArchive { root: self.root, limit: LISTED_MAX });
            self.job = Some((token, Job::List(core::mem::take(&mut self.wanted))));
        }
    }

    /// Whether a token is its own.
    pub fn owns(&self, token: Token) -> bool {
        self.job.as_ref().is_some_and(|(own, _)| *own == token)
    }

    /// Takes the end of its own disk work; what was found.
    pub fn handle_disk(&mut self, result: Result<DiskDone, DiskError>, out: &mut Outbox) -> Vec<Kept> {
        match (self.job.take(), result) {
            (Some((_, Job::List(wanted))), Ok(DiskDone::Archived(files))) => {
                if self.sought.len() + wanted.len() > SOUGHT_MAX {
                    self.sought.clear();
                }
                self.sought.extend(wanted.keys());
                let files = candidates(files, &wanted);
                if !files.is_empty() {
                    let op = DiskOp::CheckArchived { root: self.root, files: files.clone() };
                    self.job = Some((out.disk(op), Job::Read(files, wanted)));
                }
                Vec::new()
            }
            (Some((_, Job::Read(files, wanted))), result) => {
                let found = disk::per_item(result, files.len(), |done| match done {
                    DiskDone::Checked(found) => Some(found),
                    _ => None,
                });
                files
                    .into_iter()
                    .zip(found)
                    .filter_map(|(file, found)| found_in(file, found, &wanted))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The files that may hold what is wanted, by their size, with a stamp that none has: each of them is read.
fn candidates(files: Vec<Archived>, wanted: &Wanted) -> Vec<Archived> {
    let sizes: BTreeSet<u64> = wanted.values().copied().collect();
    let is_wanted = |file: &Archived| file.stamp.kind == Kind::File && sizes.contains(&file.stamp.size);
    let mut bytes = 0u64;
    let mut fits = |file: &Archived| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(file.stamp.size);
        first || bytes <= READ_BYTES_MAX
    };
    let mut files: Vec<Archived> =
        files.into_iter().filter(is_wanted).take_while(|file| fits(file)).collect();
    for file in &mut files {
        file.stamp.size = u64::MAX;
    }
    files
}

fn found_in(file: Archived, found: Result<Option<Hashed>, DiskError>, wanted: &Wanted) -> Option<Kept> {
    let Ok(Some(Hashed { stamp, content: HashedContent::File(sha256) })) = found else { return None };
    let size = *wanted.get(&sha256)?;
    let file = Archived { stamp, ..file };
    Some(Kept { file, content: Some(EntryContent::File { size, sha256 }), source: None })
}

impl Share {
    /// Has what no peer has looked for.
    pub(super) fn pump_archive_search(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((sha256, size)) = self.work.take_missing() {
            self.archive_search.want(sha256, size);
        }
        if self.may_work() {
            self.archive_search.pump(ctx.out);
        }
    }

    /// Takes the end of a look through the archive: what was found is brought from there.
    pub(super) fn archive_searched(&mut self, ctx: &mut Ctx<'_>, result: Result<DiskDone, DiskError>) {
        let found = self.archive_search.handle_disk(result, ctx.out);
        if !found.is_empty() {
            self.work.retry_missing();
        }
        found.into_iter().for_each(|kept| self.late.add(kept, ctx.now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{file, path, stamp};
    use crate::io::Output;

    const ROOT: RootId = RootId(1);

    fn sha(content: u8) -> Sha256 {
        let EntryContent::File { sha256, .. } = file(content) else { panic!() };
        sha256
    }

    fn archived(content: u8, name: &str) -> Archived {
        Archived { folder: "f".into(), path: path(name), stamp: stamp(&file(content), 1) }
    }

    fn order(out: &mut Outbox) -> Option<(Token, DiskOp)> {
        match out.pop()? {
            Output::Disk { token, op } => Some((token, op)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finds_what_is_wanted_by_reading_what_has_its_size() {
        let (mut search, mut out) = (ArchiveSearch::new(ROOT), Outbox::default());
        let size = stamp(&file(1), 1).size;
        search.pump(&mut out);
        assert!(order(&mut out).is_none(), "nothing is wanted");
        search.want(sha(1), size);
        search.pump(&mut out);
        search.pump(&mut out);
        let (token, op) = order(&mut out).unwrap();
        assert!(matches!(op, DiskOp::ListArchive { .. }) && search.owns(token) && order(&mut out).is_none());
        let (mut same_size, mut other_size) = (archived(2, "b"), archived(3, "c"));
        (same_size.stamp.size, other_size.stamp.size) = (size, size + 1);
        let listed = [same_size, other_size, archived(1, "a")].to_vec();
        assert!(search.handle_disk(Ok(DiskDone::Archived(listed)), &mut out).is_empty());
        let (token, op) = order(&mut out).unwrap();
        let DiskOp::CheckArchived { files, .. } = op else { panic!("{op:?}") };
        let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(search.owns(token));
        let hashed = |content| {
            Ok(Some(Hashed { stamp: stamp(&file(content), 1), content: HashedContent::File(sha(content)) }))
        };
        let found = search.handle_disk(Ok(DiskDone::Checked([hashed(2), hashed(1)].to_vec())), &mut out);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].file, &found[0].content), (&archived(1, "a"), &Some(file(1))));
        search.want(sha(1), size);
        search.pump(&mut out);
        assert!(order(&mut out).is_none(), "it is looked for once");
    }

    #[test]
    fn limits_what_is_looked_for_and_what_is_read() {
        let mut search = ArchiveSearch::new(ROOT);
        for n in 0..=WANTED_MAX {
            let mut sha256 = [0; 32];
            sha256[..8].copy_from_slice(&n.to_be_bytes());
            search.want(Sha256(sha256), 1);
        }
        assert_eq!(search.wanted.len(), WANTED_MAX);
        let mut out = Outbox::default();
        for (sought, kept) in
            [(SOUGHT_MAX - WANTED_MAX, SOUGHT_MAX), (SOUGHT_MAX - WANTED_MAX + 1, WANTED_MAX)]
        {
            let mut search = ArchiveSearch { wanted: search.wanted.clone(), ..ArchiveSearch::new(ROOT) };
            search.sought = (0..sought)
                .map(|n| Sha256([&n.to_be_bytes()[..], &[1; 24]].concat().try_into().unwrap()))
                .collect();
            search.pump(&mut out);
            search.handle_disk(Ok(DiskDone::Archived(Vec::new())), &mut out);
            assert_eq!(search.sought.len(), kept);
        }
        for (size, read) in [(READ_BYTES_MAX / 2, 2), (READ_BYTES_MAX / 2 + 1, 1), (READ_BYTES_MAX + 1, 1)] {
            let mut file = archived(1, "a");
            file.stamp.size = size;
            let wanted = Wanted::from([(sha(1), size)]);
            assert_eq!(
                candidates([file.clone(), file.clone(), file].to_vec(), &wanted).len(),
                read,
                "{size}"
            );
        }
    }

    #[test]
    fn an_archive_that_cannot_be_read_holds_nothing() {
        let (mut search, mut out) = (ArchiveSearch::new(ROOT), Outbox::default());
        search.want(sha(1), 1);
        search.pump(&mut out);
        assert!(search.handle_disk(Err(DiskError::Io), &mut out).is_empty());
        assert!(search.job.is_none());
        search.want(sha(1), 1);
        assert_eq!(search.wanted.len(), 1, "it was not looked for");
    }
}
