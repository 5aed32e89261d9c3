//! Resolves paths beneath a root, following no symbolic link (protocol §8, sync.md "Names").
//!
//! The kernel does it in one call where it can (`openat2`); elsewhere each component is opened by itself. Never opens
//! anything by an absolute path.

use std::sync::atomic::{AtomicBool, Ordering};

use clearskies_core::files::path::RelPath;
use clearskies_core::io::disk::DiskError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::root::Root;
use super::stat::{dev_of, map};

/// Flags for a directory that is only a place for names; needs no right to list it.
pub(super) const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Flags for a directory that is listed.
pub(super) const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How often a resolution that raced with a rename is tried again.
const AGAIN_MAX: usize = 8;

/// Opens `path` beneath `dir`. `whole` says whether to try the kernel's own way, and is cleared where there is none.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    whole: &AtomicBool,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    if path.is_empty() {
        return rustix::fs::openat(dir, ".", flags | OFlags::NOFOLLOW, Mode::empty());
    }
    if whole.load(Ordering::Relaxed) {
        for _ in 0..AGAIN_MAX {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            // Without NOFOLLOW a link at the end fails as a link, not as whatever `flags` do not want.
            match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => {
                    whole.store(false, Ordering::Relaxed);
                    break;
                }
                // Sandboxes that do not know the call answer EPERM; the other way is as safe and tells.
                Err(Errno::PERM) => break,
                other => return other,
            }
        }
    }
    open_by_component(dir, path, flags)
}

fn open_by_component(dir: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let here = at.as_ref().map_or(dir, AsFd::as_fd);
        let (name, more) = match rest.split_once('/') {
            Some((name, more)) => (name, Some(more)),
            None => (rest, None),
        };
        if matches!(name, "" | "." | "..") {
            return Err(Errno::XDEV);
        }
        let how = if more.is_some() { PLACE } else { flags };
        let next = rustix::fs::openat(here, name, how | OFlags::NOFOLLOW, Mode::empty())?;
        match more {
            Some(more) => rest = more,
            None => return Ok(next),
        }
        at = Some(next);
    }
}

/// How many directories a batch keeps open.
const RECENT_MAX: usize = 4;

/// The directories that one batch used last. Lives no longer than the batch, because a directory may be renamed.
pub(super) struct Dirs<'r> {
    root: &'r Root,
    recent: Vec<(String, OwnedFd)>,
}

impl<'r> Dirs<'r> {
    /// None yet.
    pub(super) fn new(root: &'r Root) -> Self {
        Dirs { root, recent: Vec::new() }
    }

    /// The directory that holds `path`, and its name there. The root itself is no name: [`DiskError::Denied`]. On
    /// another device nothing is looked at or changed: [`DiskError::OtherVolume`].
    pub(super) fn parent<'p>(&mut self, path: &'p RelPath) -> Result<(BorrowedFd<'_>, &'p str), DiskError> {
        let (parent, name) = match path.as_str().rsplit_once('/') {
            Some(split) => split,
            None if path.is_root() => return Err(DiskError::Denied),
            None => ("", path.as_str()),
        };
        if parent.is_empty() {
            return Ok((self.root.fd.as_fd(), name));
        }
        let at = match self.recent.iter().position(|(known, _)| known == parent) {
            Some(at) => at,
            None => {
                let fd = self.root.open(parent, PLACE).map_err(map)?;
                if dev_of(&rustix::fs::fstat(&fd).map_err(map)?) != self.root.dev {
                    return Err(DiskError::OtherVolume);
                }
                if self.recent.len() == RECENT_MAX {
                    self.recent.remove(0);
                }
                self.recent.push((parent.to_owned(), fd));
                self.recent.len() - 1
            }
        };
        Ok((self.recent[at].1.as_fd(), name))
    }
}
