//! One open root: its descriptor, its marker, and the check that it still is what its path names (sync.md,
//! "Deletes"). Never touches what the user keeps in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clearskies_core::files::reconcile::GRAIN_DEFAULT;
use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::disk::{DiskDone, DiskError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::resolve::{LISTED, PLACE, open_beneath};
use super::stat::{fail, lock, map};
use super::temp::OpenTemp;
use super::walk::Walk;

/// The directory of a share that is never synced.
pub(super) const OWN: &str = ".clearskies";
/// Where temps live.
pub(super) const TMP: &str = ".clearskies/tmp";
/// Where what was replaced lives.
pub(super) const ARCHIVE: &str = ".clearskies/archive";
/// The marker's name within [`OWN`].
const MARKER: &str = "share";

/// The longest marker in bytes.
pub const MARKER_BYTES_MAX: usize = 4096;

/// How long a successful check of the root counts.
const CHECK_FRESH: Duration = Duration::from_secs(1);

/// An open root.
pub(super) struct Root {
    /// Its number.
    pub(super) id: RootId,
    /// Its path as it was given.
    path: String,
    /// The folder itself.
    pub(super) fd: OwnedFd,
    /// Its device.
    pub(super) dev: u64,
    inode: u64,
    check: Mutex<Check>,
    /// Temps that are open for writing.
    pub(super) temps: Mutex<HashMap<TempId, Arc<OpenTemp>>>,
    /// Walks that are under way.
    pub(super) walks: Mutex<HashMap<u64, Walk>>,
    /// Whether the kernel resolves beneath by itself.
    pub(super) whole: AtomicBool,
    /// Whether the file system exchanges two names.
    pub(super) exchange: AtomicBool,
    /// Whether the file system renames without replacing.
    pub(super) noreplace: AtomicBool,
    counter: AtomicU64,
}

/// Kinds of file systems whose times are set from this computer's clock, in fractions of a second (ext3, which knows
/// whole seconds alone, has the number of ext4: whole seconds are not trusted so soon anyway).
#[cfg(any(target_os = "linux", target_os = "android"))]
const OWN_CLOCK: [u32; 8] = [
    0x0000_ef53, // ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0x794c_7630, // overlayfs
    0xca45_1a4e, // bcachefs
];

/// The last look at the root.
struct Check {
    /// The marker when it was read or written last.
    marker: Option<Vec<u8>>,
    /// When all was well.
    at: Option<Instant>,
}

/// A bound for the grain of a file system's times. Kinds that stamp with this computer's clock do it at least once in
/// 10 ms, whatever the kernel was built for; of what is elsewhere, and of other kinds, nothing is known.
pub(super) fn grain_of(fd: &OwnedFd) -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(stat) = rustix::fs::fstatfs(fd)
        && OWN_CLOCK.contains(&(stat.f_type as u32))
    {
        return Duration::from_millis(20);
    }
    let _ = fd;
    GRAIN_DEFAULT
}

impl Root {
    /// Opens a folder.
    pub(super) fn open_at(id: RootId, path: String, create: bool) -> Result<(Root, DiskDone), DiskError> {
        if !path.starts_with('/') {
            return Err(DiskError::BadName);
        }
        if create {
            match std::fs::create_dir_all(&path) {
                // Something else has that name: opening it says so.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.map_err(|e| fail("make", &path, super::stat::errno(&e)))?,
            }
        }
        let fd =
            rustix::fs::open(path.as_str(), LISTED, Mode::empty()).map_err(|e| fail("open", &path, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| fail("look at", &path, e))?;
        let full =
            std::fs::canonicalize(&path).map_err(|e| fail("resolve", &path, super::stat::errno(&e)))?;
        let full = full.into_os_string().into_string().map_err(|_| DiskError::BadName)?;
        #[allow(clippy::unnecessary_cast)] // The widths of these fields differ between targets.
        let (dev, inode) = (stat.st_dev as u64, stat.st_ino as u64);
        let root = Root {
            id,
            path,
            fd,
            dev,
            inode,
            check: Mutex::new(Check { marker: None, at: None }),
            temps: Mutex::default(),
            walks: Mutex::default(),
            // Android's sandbox kills a process that calls openat2.
            whole: AtomicBool::new(!cfg!(target_os = "android")),
            exchange: AtomicBool::new(true),
            noreplace: AtomicBool::new(true),
            counter: AtomicU64::new(0),
        };
        let empty = root.is_empty()?;
        let marker = root.read_marker()?;
        lock(&root.check).marker.clone_from(&marker);
        let opened = DiskDone::Opened { marker, empty, path: full, grain: grain_of(&root.fd) };
        Ok((root, opened))
    }

    /// Opens something beneath the root, following no link.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_beneath(self.fd.as_fd(), &self.whole, path, flags)
    }

    fn is_empty(&self) -> Result<bool, DiskError> {
        let dir = rustix::fs::Dir::read_from(&self.fd).map_err(|e| fail("list", &self.path, e))?;
        for entry in dir {
            let entry = entry.map_err(|e| fail("list", &self.path, e))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && name != OWN.as_bytes() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The marker as it is now; nothing where it or its directory is missing or is something else.
    fn read_marker(&self) -> Result<Option<Vec<u8>>, DiskError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match self.open(".clearskies/share", flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(fail("read the marker of", &self.path, error)),
        };
        let mut marker = Vec::new();
        let file = std::fs::File::from(fd);
        match std::io::Read::read_to_end(&mut std::io::Read::take(file, MARKER_BYTES_MAX as u64), &mut marker)
        {
            Ok(_) => Ok(Some(marker)),
            Err(error) => Err(fail("read the marker of", &self.path, super::stat::errno(&error))),
        }
    }

    /// Whether the path still names this folder.
    #[allow(clippy::unnecessary_cast)] // The widths of these fields differ between targets.
    fn check_same(&self) -> Result<(), DiskError> {
        match rustix::fs::stat(self.path.as_str()) {
            Ok(stat) if stat.st_dev as u64 == self.dev && stat.st_ino as u64 == self.inode => Ok(()),
            _ => Err(DiskError::RootMissing),
        }
    }

    /// [`DiskOp::CheckRoot`](clearskies_core::io::DiskOp::CheckRoot).
    pub(super) fn check(&self) -> Result<Option<Vec<u8>>, DiskError> {
        let mut check = lock(&self.check);
        check.at = None;
        self.check_same()?;
        let marker = self.read_marker().map_err(|_| DiskError::RootMissing)?;
        if marker.is_none() && check.marker.is_some() {
            return Err(DiskError::RootMissing);
        }
        if marker == check.marker {
            check.at = Some(Instant::now());
        }
        Ok(marker)
    }

    /// Called before anything is changed: the root is the same folder with the same marker as when it was opened.
    pub(super) fn verify(&self) -> Result<(), DiskError> {
        let mut check = lock(&self.check);
        if check.at.is_some_and(|at| at.elapsed() < CHECK_FRESH) {
            return Ok(());
        }
        check.at = None;
        self.check_same()?;
        match self.read_marker() {
            Ok(marker) if marker == check.marker => {
                check.at = Some(Instant::now());
                Ok(())
            }
            _ => Err(DiskError::RootMissing),
        }
    }

    /// [`DiskOp::WriteMarker`](clearskies_core::io::DiskOp::WriteMarker).
    pub(super) fn write_marker(&self, marker: Vec<u8>) -> Result<(), DiskError> {
        if marker.len() > MARKER_BYTES_MAX {
            log::warn!("a marker of {} bytes is too long", marker.len());
            return Err(DiskError::Io);
        }
        let mut check = lock(&self.check);
        check.at = None;
        self.check_same()?;
        let failed = |e| fail("write the marker of", &self.path, e);
        let private = Mode::from_raw_mode(0o700);
        for dir in [OWN, TMP, ARCHIVE] {
            // The first component was opened as a directory before the second is made in it.
            let (parent, name) = dir.rsplit_once('/').unwrap_or(("", dir));
            let parent = self.open(parent, PLACE).map_err(failed)?;
            match rustix::fs::mkdirat(&parent, name, private) {
                Ok(()) if dir == TMP => super::temp::mark(&self.open(TMP, PLACE).map_err(failed)?)?,
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            let fd = self.open(dir, LISTED).map_err(failed)?;
            rustix::fs::fchmod(&fd, private).map_err(failed)?;
        }
        let own = self.open(OWN, LISTED).map_err(failed)?;
        let tmp = self.open(TMP, PLACE).map_err(failed)?;
        let name = self.scratch_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&tmp, name.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let mut file = std::fs::File::from(fd);
        std::io::Write::write_all(&mut file, &marker)
            .and_then(|()| file.sync_all())
            .map_err(|e| failed(super::stat::errno(&e)))?;
        rustix::fs::renameat(&tmp, name.as_str(), &own, MARKER).map_err(failed)?;
        rustix::fs::fsync(&own).map_err(failed)?;
        rustix::fs::fsync(&self.fd).map_err(failed)?;
        check.marker = Some(marker);
        Ok(())
    }

    /// [`DiskOp::RemoveMarker`](clearskies_core::io::DiskOp::RemoveMarker).
    pub(super) fn remove_marker(&self) -> Result<(), DiskError> {
        {
            let mut check = lock(&self.check);
            check.at = None;
            self.check_same()?;
            match self.open(OWN, PLACE) {
                Ok(own) => match rustix::fs::unlinkat(&own, MARKER, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(fail("remove the marker of", &self.path, error)),
                },
                Err(Errno::NOENT) => {}
                Err(error) => return Err(fail("remove the marker of", &self.path, error)),
            }
            check.marker = None;
        }
        super::temp::sweep(self, Vec::new()).map(drop)
    }

    /// The directory for temps; made anew where only it is gone.
    pub(super) fn tmp(&self) -> Result<OwnedFd, DiskError> {
        self.own_dir(TMP)
    }

    /// One of the directories beneath [`OWN`]; made where it is missing and the share is not.
    pub(super) fn own_dir(&self, path: &str) -> Result<OwnedFd, DiskError> {
        let missing = match self.open(path, PLACE) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        if missing != Errno::NOENT {
            return Err(fail("open", path, missing));
        }
        let own = self.open(OWN, PLACE).map_err(|_| DiskError::RootMissing)?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        match rustix::fs::mkdirat(&own, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => self.open(path, PLACE).map_err(map),
            Err(error) => Err(fail("make", path, error)),
        }
    }

    /// A name in the directory for temps that no temp has, and that is used once.
    pub(super) fn scratch_name(&self) -> String {
        format!("own-{}-{}", std::process::id(), self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Renames; never over anything.
    pub(super) fn rename_new(
        &self,
        from_dir: BorrowedFd<'_>,
        from: &str,
        to_dir: BorrowedFd<'_>,
        to: &str,
    ) -> Result<(), Errno> {
        if self.noreplace.load(Ordering::Relaxed) {
            match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                other => return other,
            }
        }
        match rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(from_dir, from, AtFlags::empty()),
            Err(error @ (Errno::EXIST | Errno::NOENT | Errno::NAMETOOLONG | Errno::NOSPC)) => Err(error),
            // Directories and file systems without hard links: as near as such a file system allows.
            Err(_) => match rustix::fs::statat(to_dir, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(from_dir, from, to_dir, to),
                Err(error) => Err(error),
            },
        }
    }

    /// Exchanges two names; `false` where the file system cannot.
    pub(super) fn exchange(
        &self,
        a_dir: BorrowedFd<'_>,
        a: &str,
        b_dir: BorrowedFd<'_>,
        b: &str,
    ) -> Result<bool, Errno> {
        if !self.exchange.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match rustix::fs::renameat_with(a_dir, a, b_dir, b, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.exchange.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
