//! Changes within the share: putting temps at their paths, taking paths away, renaming, metadata (sync.md, "Bringing
//! a path to a version", step 5). Never replaces or removes what is not what the engine saw.

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::disk::{DiskError, Install, Kind, Made, Remove, SetMeta, Stamp};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{Archive, DISPLACED};
use super::resolve::{Dirs, LISTED};
use super::root::Root;
use super::stat::{dev_of, fail, fail_name, mtime, same_content, same_thing, same_version};
use super::stat::{stamp_at, stamp_fd, stamp_of, stamp_on};
use super::temp::{bits, bits_over, temp_name};
use crate::watch::Watcher;

type Stamps = Vec<Result<Stamp, DiskError>>;

/// [`DiskOp::Install`](clearskies_core::io::DiskOp::Install).
pub(super) fn install(root: &Root, items: &[Install]) -> Result<Stamps, DiskError> {
    root.verify()?;
    let tmp = root.tmp()?;
    let mut dirs = Dirs::new(root);
    let mut archive = Archive::new(root);
    Ok(items.iter().map(|item| install_one(root, tmp.as_fd(), &mut dirs, &mut archive, item)).collect())
}

fn install_one(
    root: &Root,
    tmp: BorrowedFd<'_>,
    dirs: &mut Dirs<'_>,
    archive: &mut Archive<'_>,
    item: &Install,
) -> Result<Stamp, DiskError> {
    let (dir, name) = dirs.parent(&item.path)?;
    let temp = temp_name(item.temp);
    let failed = |e| fail_name("install", item.path.as_str(), e);
    let staged = stamp_at(tmp, &temp).map_err(failed)?;
    if !matches!(staged.kind, Kind::File | Kind::Link) {
        return Err(DiskError::WrongKind);
    }
    match &item.replaces {
        None => root.rename_new(tmp, &temp, dir, name).map_err(failed)?,
        Some(want) => {
            match stamp_at(dir, name) {
                Ok(seen) if same_version(&seen, want) => {}
                Ok(_) | Err(Errno::NOENT) => return Err(DiskError::Changed),
                Err(error) => return Err(failed(error)),
            }
            let place = Place { root, dir, name, path: &item.path };
            replace(&place, tmp, &temp, archive, item.archive.as_deref(), want, &staged)?;
        }
    }
    // Anything but ctime that differs was done by somebody else since, and is theirs to be found.
    match stamp_at(dir, name) {
        Ok(now) if same_content(&now, &staged) && now.mode == staged.mode => Ok(now),
        _ => Ok(staged),
    }
}

/// A path that is being replaced.
pub(super) struct Place<'a> {
    pub(super) root: &'a Root,
    pub(super) dir: BorrowedFd<'a>,
    pub(super) name: &'a str,
    pub(super) path: &'a RelPath,
}

/// Exchanges the temp with what is at the path. The temp goes to the archive's slot first, so that the exchange puts
/// the old version right there: no crash can leave it among the temps, which are swept.
pub(super) fn replace(
    place: &Place<'_>,
    tmp: BorrowedFd<'_>,
    temp: &str,
    archive: &mut Archive<'_>,
    folder: Option<&str>,
    want: &Stamp,
    staged: &Stamp,
) -> Result<(), DiskError> {
    let Place { root, dir, name, path } = *place;
    let failed = |e| fail("install", path.as_str(), e);
    if root.exchange.load(std::sync::atomic::Ordering::Relaxed) {
        let slot = match folder {
            Some(folder) => Some(archive.put(folder, path, tmp, temp)?),
            None => None,
        };
        let (slot_dir, slot_name) = slot.as_ref().map_or((tmp, temp), |slot| (slot.dir, slot.name.as_str()));
        let back = || {
            if folder.is_some() {
                // Where this fails the archive holds one copy too many, and the engine stages the temp again.
                let _ = root.rename_new(slot_dir, slot_name, tmp, temp);
            }
        };
        match root.exchange(slot_dir, slot_name, dir, name) {
            Ok(true) => {
                let out = stamp_at(slot_dir, slot_name).map_err(failed)?;
                if same_version(&out, want) {
                    if folder.is_none() {
                        rustix::fs::unlinkat(tmp, temp, AtFlags::empty()).map_err(failed)?;
                    }
                    return Ok(());
                }
                if turn_back(place, slot_dir, slot_name, staged)? {
                    back();
                } else if folder.is_none() {
                    rescue(root, path, tmp, temp);
                }
                return Err(DiskError::Changed);
            }
            Ok(false) => back(),
            Err(error) => {
                back();
                return Err(if error == Errno::NOENT { DiskError::Changed } else { failed(error) });
            }
        }
    }
    replace_by_moves(place, tmp, temp, archive, folder, want)
}

/// Undoes an exchange that brought out something else. A writer may replace the path again in between: what lies in
/// the slot at the end must be our own temp, or else it is theirs and goes back too. Returns false if our temp is
/// gone, and the slot holds a version that its writer replaced.
pub(super) fn turn_back(
    place: &Place<'_>,
    slot_dir: BorrowedFd<'_>,
    slot: &str,
    staged: &Stamp,
) -> Result<bool, DiskError> {
    let Place { root, dir, name, path } = *place;
    let failed = |e| fail("put back", path.as_str(), e);
    let at_path = stamp_at(dir, name);
    match at_path {
        // Removed meanwhile: what came out goes back where it was.
        Err(Errno::NOENT) => {
            match root.rename_new(slot_dir, slot, dir, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            return Ok(false);
        }
        Err(error) => return Err(failed(error)),
        Ok(_) => {}
    }
    root.exchange(slot_dir, slot, dir, name).map_err(failed)?;
    let out = stamp_at(slot_dir, slot).map_err(failed)?;
    if out.inode == staged.inode {
        // Written to while it was at the path: it is somebody's version now, and no temp any more.
        return Ok(same_content(&out, staged));
    }
    // What came out is newer than what went back, and goes to the path for good.
    root.exchange(slot_dir, slot, dir, name).map_err(failed)?;
    Ok(false)
}

/// Keeps a version that belongs to nobody from being swept away.
fn rescue(root: &Root, path: &RelPath, tmp: BorrowedFd<'_>, temp: &str) {
    let mut archive = Archive::new(root);
    match archive.put(DISPLACED, path, tmp, temp) {
        Ok(_) | Err(DiskError::NotFound) => {}
        Err(error) => log::warn!("could not archive a displaced version of {path:?}: {error:?}"),
    }
}

/// Where names cannot be exchanged: move aside, check, rename without replacing, put back if either fails.
fn replace_by_moves(
    place: &Place<'_>,
    tmp: BorrowedFd<'_>,
    temp: &str,
    archive: &mut Archive<'_>,
    folder: Option<&str>,
    want: &Stamp,
) -> Result<(), DiskError> {
    let Place { root, dir, name, path } = *place;
    let failed = |e| fail_name("install", path.as_str(), e);
    let aside_name = root.scratch_name();
    let slot = match folder {
        Some(folder) => Some(archive.put(folder, path, dir, name)?),
        None => {
            root.rename_new(dir, name, tmp, &aside_name).map_err(failed)?;
            None
        }
    };
    let (aside, aside_name) = slot.as_ref().map_or((tmp, aside_name.as_str()), |s| (s.dir, s.name.as_str()));
    let checked = match stamp_at(aside, aside_name) {
        Ok(out) if same_version(&out, want) => root.rename_new(tmp, temp, dir, name).map_err(failed),
        Ok(_) => Err(DiskError::Changed),
        Err(error) => Err(failed(error)),
    };
    match checked {
        Ok(()) => {
            if folder.is_none() {
                rustix::fs::unlinkat(aside, aside_name, AtFlags::empty()).map_err(failed)?;
            }
            Ok(())
        }
        Err(error) => {
            put_back(place, aside, aside_name, folder.is_none());
            Err(if error == DiskError::Exists { DiskError::Changed } else { error })
        }
    }
}

/// Brings what was moved aside back to its path; if something new is there, it stays in the archive.
fn put_back(place: &Place<'_>, aside: BorrowedFd<'_>, aside_name: &str, from_tmp: bool) {
    let Place { root, dir, name, path } = *place;
    match root.rename_new(aside, aside_name, dir, name) {
        Ok(()) => {}
        Err(Errno::EXIST) if !from_tmp => {}
        Err(error) => {
            log::warn!("could not put {path:?} back, it stays in the archive: {error}");
            if from_tmp {
                rescue(root, path, aside, aside_name);
            }
        }
    }
}

/// [`DiskOp::Remove`](clearskies_core::io::DiskOp::Remove).
pub(super) fn remove(root: &Root, items: &[Remove]) -> Result<Vec<Result<(), DiskError>>, DiskError> {
    root.verify()?;
    let tmp = root.tmp()?;
    let mut dirs = Dirs::new(root);
    let mut archive = Archive::new(root);
    Ok(items.iter().map(|item| remove_one(root, tmp.as_fd(), &mut dirs, &mut archive, item)).collect())
}

fn remove_one(
    root: &Root,
    tmp: BorrowedFd<'_>,
    dirs: &mut Dirs<'_>,
    archive: &mut Archive<'_>,
    item: &Remove,
) -> Result<(), DiskError> {
    let (dir, name) = dirs.parent(&item.path)?;
    let failed = |e| fail("remove", item.path.as_str(), e);
    let seen = stamp_on(root.dev, dir, name, item.path.as_str())?;
    if !same_thing(&seen, &item.stamp) {
        return Err(DiskError::Changed);
    }
    match seen.kind {
        Kind::Dir => return rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(failed),
        Kind::Other => return Err(DiskError::WrongKind),
        Kind::File | Kind::Link => {}
    }
    let aside_name = root.scratch_name();
    let slot = match &item.archive {
        Some(folder) => Some(archive.put(folder, &item.path, dir, name)?),
        None => {
            root.rename_new(dir, name, tmp, &aside_name).map_err(failed)?;
            None
        }
    };
    let (aside, aside_name) = slot.as_ref().map_or((tmp, aside_name.as_str()), |s| (s.dir, s.name.as_str()));
    let out = stamp_at(aside, aside_name);
    if !out.is_ok_and(|out| same_content(&out, &item.stamp)) {
        put_back(&Place { root, dir, name, path: &item.path }, aside, aside_name, item.archive.is_none());
        return Err(DiskError::Changed);
    }
    match item.archive {
        Some(_) => Ok(()),
        None => rustix::fs::unlinkat(aside, aside_name, AtFlags::empty()).map_err(failed),
    }
}

/// [`DiskOp::Rename`](clearskies_core::io::DiskOp::Rename).
pub(super) fn rename(root: &Root, from: &RelPath, to: &RelPath, want: &Stamp) -> Result<Stamp, DiskError> {
    if to.starts_with(from) {
        return Err(DiskError::Exists);
    }
    let (mut from_dirs, mut to_dirs) = (Dirs::new(root), Dirs::new(root));
    let (from_dir, from_name) = from_dirs.parent(from)?;
    let (to_dir, to_name) = to_dirs.parent(to)?;
    let seen = stamp_at(from_dir, from_name).map_err(|e| fail("rename", from.as_str(), e))?;
    if !same_thing(&seen, want) {
        return Err(DiskError::Changed);
    }
    if seen.kind == Kind::Other {
        return Err(DiskError::WrongKind);
    }
    root.rename_new(from_dir, from_name, to_dir, to_name)
        .map_err(|e| fail_name("rename to", to.as_str(), e))?;
    let out = stamp_at(to_dir, to_name).map_err(|e| fail("rename", from.as_str(), e))?;
    if !same_thing(&out, want) || out.inode != seen.inode {
        if let Err(error) = root.rename_new(to_dir, to_name, from_dir, from_name) {
            log::warn!("could not rename {to:?} back to {from:?}: {error}");
        }
        return Err(DiskError::Changed);
    }
    Ok(out)
}

/// [`DiskOp::MakeDirs`](clearskies_core::io::DiskOp::MakeDirs).
pub(super) fn make_dirs(
    root: &Root,
    watcher: Option<(&dyn Watcher, RootId)>,
    wanted: &[(RelPath, Option<u32>)],
) -> Result<Vec<Result<Made, DiskError>>, DiskError> {
    root.verify()?;
    let mut dirs = Dirs::new(root);
    Ok(wanted.iter().map(|(path, mode)| make_dir(&mut dirs, watcher, path, *mode)).collect())
}

fn make_dir(
    dirs: &mut Dirs<'_>,
    watcher: Option<(&dyn Watcher, RootId)>,
    path: &RelPath,
    mode: Option<u32>,
) -> Result<Made, DiskError> {
    let (dir, name) = dirs.parent(path)?;
    let failed = |e| fail_name("make", path.as_str(), e);
    // Until its bits are set it must be possible to open it.
    let create = mode.map_or(0o777, |mode| mode | 0o700);
    match rustix::fs::mkdirat(dir, name, bits(create)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let seen = stamp_at(dir, name).map_err(failed)?;
            return if seen.kind == Kind::Dir {
                Ok(Made { stamp: seen, empty: false })
            } else {
                Err(DiskError::WrongKind)
            };
        }
        Err(error) => return Err(failed(error)),
    }
    let fd = rustix::fs::openat(dir, name, LISTED | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let watched = watcher.is_some_and(|(watcher, root)| watcher.add_dir(root, path, fd.as_fd()));
    // Whatever comes into it from here on is an event.
    let empty = watched && super::walk::is_empty(fd.as_fd());
    let stamp = stamp_fd(&fd).map_err(failed)?;
    let Some(mode) = mode else { return Ok(Made { stamp, empty }) };
    rustix::fs::fchmod(&fd, bits_over(mode, &stamp)).map_err(failed)?;
    Ok(Made { stamp: stamp_fd(&fd).map_err(failed)?, empty })
}

/// [`DiskOp::SetMeta`](clearskies_core::io::DiskOp::SetMeta).
pub(super) fn set_meta(root: &Root, items: &[SetMeta]) -> Result<Stamps, DiskError> {
    root.verify()?;
    let mut dirs = Dirs::new(root);
    Ok(items.iter().map(|item| set_meta_one(root, &mut dirs, item)).collect())
}

fn set_meta_one(root: &Root, dirs: &mut Dirs<'_>, item: &SetMeta) -> Result<Stamp, DiskError> {
    let failed = |e| fail("set the metadata of", item.path.as_str(), e);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (dir, name) = if item.path.is_root() { (root.fd.as_fd(), ".") } else { dirs.parent(&item.path)? };
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let seen = stamp_of(&stat);
    if seen.kind == Kind::Dir && dev_of(&stat) != root.dev {
        return Err(DiskError::OtherVolume);
    }
    if !same_thing(&seen, &item.stamp) {
        return Err(DiskError::Changed);
    }
    match seen.kind {
        Kind::Link => return Ok(seen),
        Kind::Other => return Err(DiskError::WrongKind),
        Kind::File | Kind::Dir => {}
    }
    // An inode that is held without rights can be changed by this name, also where it may not be read.
    let held = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let by_name = match item.mtime_ns {
        Some(at) => rustix::fs::utimensat(CWD, held.as_str(), &mtime(at), AtFlags::empty()),
        None => Ok(()),
    }
    .and_then(|()| match item.mode {
        Some(mode) => rustix::fs::chmodat(CWD, held.as_str(), bits_over(mode, &seen), AtFlags::empty()),
        None => Ok(()),
    });
    match by_name {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => set_meta_readable(dir, name, &seen, item).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    stamp_fd(&fd).map_err(failed)
}

/// Where no `/proc` is: through an ordinary descriptor of the same inode.
fn set_meta_readable(dir: BorrowedFd<'_>, name: &str, seen: &Stamp, item: &SetMeta) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if stamp_fd(&fd)?.inode != seen.inode {
        return Err(Errno::NOENT);
    }
    if let Some(at) = item.mtime_ns {
        rustix::fs::futimens(&fd, &mtime(at))?;
    }
    match item.mode {
        Some(mode) => rustix::fs::fchmod(&fd, bits_over(mode, seen)),
        None => Ok(()),
    }
}
