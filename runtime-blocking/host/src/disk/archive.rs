//! The archive: what sync replaced or deleted, kept for a while (sync.md, "Deletes").
//!
//! Layout: `.clearskies/archive/<folder>/<path>`. Nothing in it is ever written over; a name that is taken gets a
//! suffix.

use std::sync::atomic::AtomicBool;

use clearskies_core::files::path::RelPath;
use clearskies_core::io::disk::{Archived, DiskError, Hashed, Kind, Stamp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::read::{Scratch, open_file, read_link};
use super::resolve::{LISTED, PLACE};
use super::root::{ARCHIVE, Root};
use super::stat::{fail, fail_name, map, mtime, same_content, stamp_at, stamp_fd};
use super::temp::{copy_bytes, create_file, empty_dir, finish_file};
use super::walk::{Found, Ground, Walk};

/// How many names are tried for one archived file.
const SUFFIX_MAX: u32 = 1000;

/// The longest name that the usual file systems hold, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// How many directories of the archive a batch keeps open.
const RECENT_MAX: usize = 4;

/// Folder for what came out of an exchange and belongs to nobody; see `install.rs`.
pub(super) const DISPLACED: &str = "displaced";

/// Puts files into the archive; lives as long as one batch.
pub(super) struct Archive<'r> {
    root: &'r Root,
    top: Option<OwnedFd>,
    recent: Vec<(String, OwnedFd)>,
}

/// Where a file lies in the archive.
pub(super) struct Slot<'a> {
    /// The directory.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(super) name: String,
}

/// Whether a string can be a folder of the archive: one plain component.
fn folder_ok(folder: &str) -> bool {
    !folder.contains('/') && RelPath::root().join(folder).is_some()
}

/// The name that is tried as the `n`th.
fn suffixed(name: &str, n: u32) -> String {
    if n == 0 {
        return name.to_owned();
    }
    let suffix = format!("~{n}");
    let mut end = name.len().min(NAME_BYTES_MAX - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

impl<'r> Archive<'r> {
    /// Opens nothing yet.
    pub(super) fn new(root: &'r Root) -> Self {
        Archive { root, top: None, recent: Vec::new() }
    }

    /// Moves `name` of `from` into the archive, at the place of `path` in `folder`.
    pub(super) fn put(
        &mut self,
        folder: &str,
        path: &RelPath,
        from: BorrowedFd<'_>,
        name: &str,
    ) -> Result<Slot<'_>, DiskError> {
        let root = self.root;
        let dir = self.dir_for(folder, path)?;
        for n in 0..SUFFIX_MAX {
            let slot = suffixed(path.name(), n);
            match root.rename_new(from, name, dir, &slot) {
                Ok(()) => return Ok(Slot { dir, name: slot }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(fail("archive", path.as_str(), error)),
            }
        }
        Err(DiskError::Exists)
    }

    /// The directory of the archive for a path, made where it is missing.
    fn dir_for(&mut self, folder: &str, path: &RelPath) -> Result<BorrowedFd<'_>, DiskError> {
        if !folder_ok(folder) {
            return Err(DiskError::BadName);
        }
        let parent = path.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let key = format!("{folder}/{parent}");
        if let Some(at) = self.recent.iter().position(|(known, _)| *known == key) {
            return Ok(self.recent[at].1.as_fd());
        }
        let top = match self.top.take() {
            Some(top) => top,
            None => self.root.own_dir(ARCHIVE)?,
        };
        let top = self.top.insert(top);
        let mut at = enter(top.as_fd(), folder).map_err(|e| fail("make in the archive", path.as_str(), e))?;
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            at = enter(at.as_fd(), name).map_err(|e| fail("make in the archive", path.as_str(), e))?;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push((key, at));
        let last = self.recent.len() - 1;
        Ok(self.recent[last].1.as_fd())
    }
}

/// Opens a directory of the archive, or makes it; where a file has its name it gets a suffix.
fn enter(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    for n in 0..SUFFIX_MAX {
        let name = suffixed(name, n);
        let flags = PLACE | rustix::fs::OFlags::NOFOLLOW;
        match rustix::fs::openat(dir, name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => continue,
            other => return other,
        }
        match rustix::fs::mkdirat(dir, name.as_str(), Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        match rustix::fs::openat(dir, name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            other => return other,
        }
    }
    Err(Errno::EXIST)
}

/// The archive's folders, oldest first, and the archive itself.
fn folders(root: &Root) -> Result<(Vec<String>, Option<OwnedFd>), DiskError> {
    let top = match root.open(ARCHIVE, LISTED) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok((Vec::new(), None)),
        Err(error) => return Err(fail("list", ARCHIVE, error)),
    };
    let mut listing = rustix::fs::Dir::read_from(&top).map_err(|e| fail("list", ARCHIVE, e))?;
    let mut names = Vec::new();
    while let Some(entry) = listing.read() {
        let entry = entry.map_err(|e| fail("list", ARCHIVE, e))?;
        match entry.file_name().to_str() {
            Ok(name) if folder_ok(name) => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.sort_unstable();
    Ok((names, Some(top)))
}

/// [`DiskOp::ListArchive`](clearskies_core::io::DiskOp::ListArchive).
pub(super) fn list(root: &Root, limit: u32) -> Result<Vec<Archived>, DiskError> {
    let (names, top) = folders(root)?;
    let Some(top) = top else { return Ok(Vec::new()) };
    let limit = limit as usize;
    let mut out = Vec::new();
    let whole = AtomicBool::new(root.whole.load(std::sync::atomic::Ordering::Relaxed));
    for folder in names.into_iter().rev() {
        let flags = LISTED | rustix::fs::OFlags::NOFOLLOW;
        let Ok(fd) = rustix::fs::openat(&top, folder.as_str(), flags, Mode::empty()) else { continue };
        let ground = Ground { anchor: fd.as_fd(), dev: root.dev, whole: &whole, watch: None };
        let mut walk = Walk::new(RelPath::root());
        let mut done = false;
        while !done && out.len() < limit {
            let mut found = Found::default();
            done = walk.step(&ground, 1000, &mut found);
            let files = found.entries.into_iter().filter(|e| matches!(e.stamp.kind, Kind::File | Kind::Link));
            let room = limit - out.len();
            out.extend(files.take(room).map(|entry| Archived {
                folder: folder.clone(),
                path: entry.path,
                stamp: entry.stamp,
            }));
        }
    }
    Ok(out)
}

/// The directory of the archive in which a file lies.
fn open_place(root: &Root, folder: &str, path: &RelPath) -> Result<OwnedFd, DiskError> {
    if !folder_ok(folder) || path.is_root() {
        return Err(DiskError::BadName);
    }
    let parent = path.parent().unwrap_or_else(RelPath::root);
    let place = match parent.as_str() {
        "" => format!("{ARCHIVE}/{folder}"),
        parent => format!("{ARCHIVE}/{folder}/{parent}"),
    };
    root.open(&place, PLACE).map_err(|e| fail("look into the archive for", path.as_str(), e))
}

/// [`DiskOp::CheckArchived`](clearskies_core::io::DiskOp::CheckArchived).
pub(super) fn check(
    root: &Root,
    files: &[Archived],
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Vec<Result<Option<Hashed>, DiskError>> {
    files
        .iter()
        .map(|file| {
            let dir = open_place(root, &file.folder, &file.path)?;
            let name = file.path.name();
            let now = stamp_at(dir.as_fd(), name)
                .map_err(|e| fail("look at the archived", file.path.as_str(), e))?;
            if same_content(&now, &file.stamp) {
                return Ok(None);
            }
            super::read::hash_at(dir.as_fd(), name, &file.path, scratch, stop).map(Some)
        })
        .collect()
}

/// [`DiskOp::TakeArchived`](clearskies_core::io::DiskOp::TakeArchived).
pub(super) fn take(root: &Root, folder: &str, path: &RelPath, to: &RelPath) -> Result<Stamp, DiskError> {
    if to.is_root() {
        return Err(DiskError::BadName);
    }
    let from = open_place(root, folder, path)?;
    let failed = |e| fail_name("take out of the archive", path.as_str(), e);
    let found = stamp_at(from.as_fd(), path.name()).map_err(failed)?;
    if found.kind != Kind::File {
        return Err(DiskError::WrongKind);
    }
    let dir = make_parents(root, to)?;
    root.rename_new(from.as_fd(), path.name(), dir.as_fd(), to.name()).map_err(failed)?;
    stamp_at(dir.as_fd(), to.name()).map_err(failed)
}

/// [`DiskOp::RestoreArchived`](clearskies_core::io::DiskOp::RestoreArchived).
pub(super) fn restore(
    root: &Root,
    folder: &str,
    path: &RelPath,
    to: &RelPath,
    scratch: &mut Scratch,
) -> Result<Stamp, DiskError> {
    if to.is_root() {
        return Err(DiskError::BadName);
    }
    let failed = |e| fail("restore", path.as_str(), e);
    let from = open_place(root, folder, path)?;
    let stamp = stamp_at(from.as_fd(), path.name()).map_err(failed)?;
    let tmp = root.tmp()?;
    let name = root.scratch_name();
    let made = make_copy(from.as_fd(), path, &stamp, tmp.as_fd(), &name, scratch);
    let restored = made.and_then(|made| {
        let dir = make_parents(root, to)?;
        root.rename_new(tmp.as_fd(), &name, dir.as_fd(), to.name())
            .map_err(|e| fail_name("restore", to.as_str(), e))?;
        match stamp_at(dir.as_fd(), to.name()) {
            Ok(now) if same_content(&now, &made) => Ok(now),
            _ => Ok(made),
        }
    });
    if restored.is_err() {
        let _ = rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty());
    }
    restored
}

fn make_copy(
    from: BorrowedFd<'_>,
    path: &RelPath,
    stamp: &Stamp,
    tmp: BorrowedFd<'_>,
    name: &str,
    scratch: &mut Scratch,
) -> Result<Stamp, DiskError> {
    let failed = |e| fail("restore", path.as_str(), e);
    match stamp.kind {
        Kind::Link => {
            let target = read_link(from, path.name(), path)?;
            rustix::fs::symlinkat(target.as_str(), tmp, name).map_err(failed)?;
            rustix::fs::utimensat(tmp, name, &mtime(stamp.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed)?;
            stamp_at(tmp, name).map_err(failed)
        }
        Kind::File => {
            let source = open_file(from, path.name(), path)?;
            let file = create_file(tmp, name, Some(stamp.mode)).map_err(failed)?;
            copy_bytes(&source, &file, stamp.size, scratch).map_err(failed)?;
            if !same_content(&stamp_fd(&source).map_err(map)?, stamp) {
                return Err(DiskError::Changed);
            }
            let made = finish_file(&file, Some(stamp.mode), Some(stamp.mtime_ns)).map_err(failed)?;
            if made.size == stamp.size { Ok(made) } else { Err(DiskError::Io) }
        }
        Kind::Dir | Kind::Other => Err(DiskError::WrongKind),
    }
}

/// Makes the directories above a path of the share, and opens the last.
fn make_parents(root: &Root, path: &RelPath) -> Result<OwnedFd, DiskError> {
    let parent = path.parent().unwrap_or_else(RelPath::root);
    let mut at = root.open("", PLACE).map_err(map)?;
    for name in parent.components() {
        match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail_name("make", parent.as_str(), error)),
        }
        at = super::resolve::open_beneath(at.as_fd(), &root.whole, name, PLACE).map_err(map)?;
    }
    Ok(at)
}

/// [`DiskOp::PruneArchive`](clearskies_core::io::DiskOp::PruneArchive).
pub(super) fn prune(root: &Root, before: &str) -> Result<(), DiskError> {
    let (names, top) = folders(root)?;
    let Some(top) = top else { return Ok(()) };
    for folder in names.iter().filter(|name| name.as_str() < before) {
        let flags = LISTED | rustix::fs::OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(&top, folder.as_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(fail("prune", folder, error)),
        };
        empty_dir(&fd, |_| false)?;
        match rustix::fs::unlinkat(&top, folder.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(fail("prune", folder, error)),
        }
    }
    Ok(())
}
