//! Walks: listing a directory and all beneath it, piece by piece, in the order of paths (sync.md, "Scanning").
//!
//! Holds the names of one directory per level, and never reads a file.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicBool;

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::disk::{DiskDone, DiskError, Entry, Kind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::resolve::{LISTED, open_beneath};
use super::root::{OWN, Root};
use super::stat::{dev_of, fail, lock, map, stamp_of};
use crate::watch::Watcher;

/// How many levels keep their directory open; those above are opened again by path.
const OPEN_LEVELS_MAX: usize = 32;

/// The most entries in one answer, whatever was asked for.
const LIMIT_MAX: u32 = 65_536;

/// Bytes of directory entries read at once.
const LISTING_BYTES: usize = 32 * 1024;

/// A walk under way.
pub(super) struct Walk {
    begin: Option<RelPath>,
    levels: Vec<Level>,
}

/// One directory on the way from the walk's own to where it stands.
struct Level {
    path: RelPath,
    fd: Option<OwnedFd>,
    names: Names,
}

/// The names of a directory: all of them in one piece of memory, each with its NUL, and where each begins, in the
/// reverse of byte order.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Names {
    /// Reads a directory, without `.`, `..` and `.clearskies`.
    fn read(dir: BorrowedFd<'_>) -> Result<Names, Errno> {
        let mut names = Names::default();
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(dir, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if matches!(name, b".\0" | b"..\0") || &name[..name.len() - 1] == OWN.as_bytes() {
                continue;
            }
            let start = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            names.starts.push(start);
            names.bytes.extend_from_slice(name);
        }
        let bytes = &names.bytes;
        names.starts.sort_unstable_by(|a, b| name_at(bytes, *b).cmp(name_at(bytes, *a)));
        Ok(names)
    }

    fn pop(&mut self) -> Option<&CStr> {
        self.starts.pop().map(|start| name_at(&self.bytes, start))
    }
}

/// The name that begins there. Every start was taken from the same bytes, with its NUL behind it.
fn name_at(bytes: &[u8], start: u32) -> &CStr {
    CStr::from_bytes_until_nul(bytes.get(start as usize..).unwrap_or_default()).unwrap_or_default()
}

/// Whether a directory could be listed and has nothing in it, our own folder aside.
pub(super) fn is_empty(dir: BorrowedFd<'_>) -> bool {
    Names::read(dir).is_ok_and(|names| names.starts.is_empty())
}

/// What a walk needs of its surroundings.
pub(super) struct Ground<'a> {
    /// The directory that the walk's paths are relative to.
    pub(super) anchor: BorrowedFd<'a>,
    /// Its device.
    pub(super) dev: u64,
    /// How to resolve, see [`open_beneath`].
    pub(super) whole: &'a AtomicBool,
    /// Who watches the directories.
    pub(super) watch: Option<(&'a dyn Watcher, RootId)>,
}

/// What one piece of a walk found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) unobserved: Vec<(RelPath, DiskError)>,
    pub(super) unusable: Vec<(RelPath, String)>,
}

impl Found {
    fn len(&self) -> usize {
        self.entries.len() + self.unobserved.len() + self.unusable.len()
    }
}

impl Walk {
    /// A walk of a directory.
    pub(super) fn new(dir: RelPath) -> Walk {
        Walk { begin: Some(dir), levels: Vec::new() }
    }

    /// Goes on until `limit` things were found; returns whether that was all.
    pub(super) fn step(&mut self, ground: &Ground<'_>, limit: usize, found: &mut Found) -> bool {
        if let Some(dir) = self.begin.take() {
            match open_beneath(ground.anchor, ground.whole, dir.as_str(), LISTED) {
                Ok(fd) => self.enter(ground, dir, fd, found),
                Err(error) => {
                    let error = fail("list", dir.as_str(), error);
                    found.unobserved.push((dir, error));
                }
            }
        }
        while found.len() < limit {
            let Some(level) = self.levels.last_mut() else { return true };
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            if level.fd.is_none() {
                match open_beneath(ground.anchor, ground.whole, level.path.as_str(), LISTED) {
                    Ok(fd) => level.fd = Some(fd),
                    Err(error) => {
                        found.unobserved.push((level.path.clone(), fail("list", level.path.as_str(), error)));
                        self.levels.pop();
                        continue;
                    }
                }
            }
            let Some(fd) = level.fd.as_ref() else { continue };
            let Some(path) = name.to_str().ok().and_then(|name| level.path.join(name)) else {
                found.unusable.push((level.path.clone(), readable(name.to_bytes())));
                continue;
            };
            let stamp = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stamp_of(&stat),
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    // What cannot be looked at may be there or not: nothing of this directory is known.
                    found.unobserved.push((level.path.clone(), fail("look at", path.as_str(), error)));
                    self.levels.pop();
                    continue;
                }
            };
            let sub = (stamp.kind == Kind::Dir)
                .then(|| rustix::fs::openat(fd, name, LISTED | OFlags::NOFOLLOW, Mode::empty()));
            found.entries.push(Entry { path: path.clone(), stamp });
            match sub {
                None => {}
                Some(Ok(fd)) => self.enter(ground, path, fd, found),
                Some(Err(error)) => {
                    let error = fail("list", path.as_str(), error);
                    found.unobserved.push((path, error));
                }
            }
        }
        // Empty levels at the top are no reason for one more answer.
        while self.levels.last().is_some_and(|level| level.names.starts.is_empty()) {
            self.levels.pop();
        }
        self.levels.is_empty()
    }

    /// Watches a directory, then lists it.
    fn enter(&mut self, ground: &Ground<'_>, path: RelPath, fd: OwnedFd, found: &mut Found) {
        match rustix::fs::fstat(&fd) {
            Ok(stat) if dev_of(&stat) == ground.dev => {}
            Ok(_) => {
                found.unobserved.push((path, DiskError::OtherVolume));
                return;
            }
            Err(error) => {
                found.unobserved.push((path, map(error)));
                return;
            }
        }
        if let Some((watcher, root)) = ground.watch {
            watcher.add_dir(root, &path, fd.as_fd());
        }
        match Names::read(fd.as_fd()) {
            Ok(names) => {
                if self.levels.len() >= OPEN_LEVELS_MAX {
                    let above = self.levels.len() - OPEN_LEVELS_MAX;
                    self.levels[above].fd = None;
                }
                self.levels.push(Level { path, fd: Some(fd), names });
            }
            Err(error) => {
                let error = fail("list", path.as_str(), error);
                found.unobserved.push((path, error));
            }
        }
    }
}

/// A name for people's eyes: what is not UTF-8, and what would move the cursor, as `\x..`.
pub(crate) fn readable(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// [`DiskOp::Walk`](clearskies_core::io::DiskOp::Walk).
pub(super) fn walk(
    root: &Root,
    watcher: Option<&dyn Watcher>,
    number: u64,
    dir: RelPath,
    limit: u32,
) -> Result<DiskDone, DiskError> {
    root.check()?;
    let known = lock(&root.walks).remove(&number);
    let mut walk = known.unwrap_or_else(|| Walk::new(dir));
    let ground = Ground {
        anchor: root.fd.as_fd(),
        dev: root.dev,
        whole: &root.whole,
        watch: watcher.map(|watcher| (watcher, root.id)),
    };
    let mut found = Found::default();
    let done = walk.step(&ground, limit.clamp(1, LIMIT_MAX) as usize, &mut found);
    if !done {
        lock(&root.walks).insert(number, walk);
    }
    let Found { entries, unobserved, unusable } = found;
    Ok(DiskDone::Walked { entries, unobserved, unusable, done })
}
