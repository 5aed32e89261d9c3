//! Stamps and errors: how the kernel's answers become the engine's words. Holds no state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clearskies_core::io::disk::{DiskError, Kind, Stamp};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// What the kernel says of a path, as a stamp.
// The widths of these fields differ between targets.
#[allow(clippy::unnecessary_cast)]
pub(super) fn stamp_of(stat: &Stat) -> Stamp {
    let kind = match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    let dir = kind == Kind::Dir;
    let nanos = |sec: i64, nsec: i64| if dir { 0 } else { sec.saturating_mul(NANOS).saturating_add(nsec) };
    Stamp {
        kind,
        size: if dir { 0 } else { stat.st_size as u64 },
        mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        mode: stat.st_mode as u32 & 0o7777,
    }
}

/// The device on which something lies.
#[allow(clippy::unnecessary_cast)] // The width of the device's number differs between targets.
pub(super) fn dev_of(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

/// As [`stamp_at`]; a directory that lies on another device than this one is [`DiskError::OtherVolume`].
pub(super) fn stamp_on(dev: u64, dir: BorrowedFd<'_>, name: &str, path: &str) -> Result<Stamp, DiskError> {
    let stat =
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| fail("look at", path, e))?;
    let stamp = stamp_of(&stat);
    // Some file systems that are made of others say another device of files alone.
    if stamp.kind == Kind::Dir && dev_of(&stat) != dev {
        return Err(DiskError::OtherVolume);
    }
    Ok(stamp)
}

/// The stamp of one name of a directory, following nothing.
pub(super) fn stamp_at(dir: BorrowedFd<'_>, name: &str) -> Result<Stamp, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stamp_of(&stat))
}

/// The stamp of an open file.
pub(super) fn stamp_fd(fd: impl AsFd) -> Result<Stamp, Errno> {
    rustix::fs::fstat(fd).map(|stat| stamp_of(&stat))
}

/// Whether both are one state of one file or link: size, mtime, inode and kind (sync.md, step 5). A rename changes
/// ctime, and a mode is no content.
pub(super) fn same_content(a: &Stamp, b: &Stamp) -> bool {
    a.kind == b.kind && a.size == b.size && a.mtime_ns == b.mtime_ns && a.inode == b.inode
}

/// [`same_content`], and of a file the same permission bits: where it is replaced, a change of them would be lost.
pub(super) fn same_version(a: &Stamp, b: &Stamp) -> bool {
    same_content(a, b) && (a.kind != Kind::File || a.mode == b.mode)
}

/// [`same_content`], but of a directory the kind alone counts.
pub(super) fn same_thing(a: &Stamp, b: &Stamp) -> bool {
    if b.kind == Kind::Dir { a.kind == Kind::Dir } else { same_content(a, b) }
}

/// Times that set the modification time alone.
pub(super) fn mtime(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(NANOS),
            // rem_euclid of a billion fits every width of this field.
            tv_nsec: mtime_ns.rem_euclid(NANOS) as _,
        },
    }
}

/// Maps what the kernel said; only [`DiskError::Io`] needs details that the engine cannot guess.
pub(super) fn map(error: Errno) -> DiskError {
    match error {
        Errno::NOENT => DiskError::NotFound,
        Errno::EXIST => DiskError::Exists,
        Errno::NOTEMPTY => DiskError::NotEmpty,
        // No link is followed: one in the way of a directory is no directory.
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP => DiskError::WrongKind,
        Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::TXTBSY | Errno::BUSY => DiskError::Denied,
        Errno::XDEV => DiskError::OtherVolume,
        // A file that is larger than the file system allows has no place on it either.
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => DiskError::NoSpace,
        Errno::NAMETOOLONG | Errno::ILSEQ => DiskError::BadName,
        _ => DiskError::Io,
    }
}

/// [`map`], and logs what would otherwise be lost.
pub(super) fn fail(doing: &str, path: &str, error: Errno) -> DiskError {
    let mapped = map(error);
    if mapped == DiskError::Io {
        log::warn!("could not {doing} {path:?}: {error}");
    }
    mapped
}

/// [`fail`] for calls that make a name: some file systems answer EINVAL to characters that they cannot hold.
pub(super) fn fail_name(doing: &str, path: &str, error: Errno) -> DiskError {
    if error == Errno::INVAL { DiskError::BadName } else { fail(doing, path, error) }
}

/// The errno within an error of the standard library.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Locks; what a panicking thread left is consistent, because no lock is held across a change in two steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
