//! Temps: everything that is written before it is put at its path. Writes only within `.clearskies/tmp`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clearskies_core::files::path::RelPath;
use clearskies_core::files::rsync::{Command, Commands};
use clearskies_core::ids::TempId;
use clearskies_core::io::disk::{DiskDone, DiskError, MODE_BITS, Stage, StageContent, Staged, Stamp};
use ring::digest;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::read::{Scratch, finish, hash_from, open_content, read_at};
use super::resolve::{Dirs, LISTED};
use super::root::{Root, TMP};
use super::stat::{errno, fail, fail_name, lock, map, mtime, same_content, stamp_at, stamp_fd};

/// What a file's bits are where nobody says otherwise; the kernel takes the umask off.
const DEFAULT_MODE: u32 = 0o666;

/// Pieces of a temp that may be written ahead of its hash and still are taken into it on the way.
const AHEAD_MAX: usize = 64;

/// So much of what was written ahead is taken into the hash at once by who closes the gap; the next one goes on.
const CATCH_UP_BYTES: u64 = 8 << 20;

/// A large temp that is open for writing.
pub(super) struct OpenTemp {
    file: File,
    pub(super) taken: Mutex<Taken>,
    /// Whether its name is durable.
    named: AtomicBool,
}

/// What of a temp its hash has taken. Only one thread hashes at a time, and others write meanwhile.
pub(super) struct Taken {
    /// Of the first `hashed` bytes.
    context: digest::Context,
    pub(super) hashed: u64,
    /// Behind what is being taken just now; `hashed` where nothing is.
    until: u64,
    /// Where pieces begin that were written ahead of them, and where they end.
    ahead: BTreeMap<u64, u64>,
    /// False once bytes that the hash has taken were written again.
    in_order: bool,
}

/// A name in the directory for temps that no temp has: where it is gone, somebody else emptied the directory.
const MARK: &str = "mark";

/// The file name of a temp.
pub(super) fn temp_name(temp: TempId) -> String {
    format!("{:016x}", temp.0)
}

/// Permission bits for the kernel.
pub(super) fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & MODE_BITS) as _)
}

/// Permission bits for the kernel, with those of what is there that are not kept in step.
pub(super) fn bits_over(mode: u32, there: &Stamp) -> Mode {
    bits(mode) | Mode::from_raw_mode((there.mode & 0o7777 & !MODE_BITS) as _)
}

/// Makes a file that was not there; whatever had this name is removed, never opened.
pub(super) fn create_file(tmp: BorrowedFd<'_>, name: &str, mode: Option<u32>) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = bits(mode.unwrap_or(DEFAULT_MODE));
    match rustix::fs::openat(tmp, name, flags, create) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(tmp, name, AtFlags::empty())?;
            rustix::fs::openat(tmp, name, flags, create)
        }
        other => other,
    }
    .map(File::from)
}

/// Sets what a file shall have once all its bytes are there, and takes its stamp.
pub(super) fn finish_file(file: &File, mode: Option<u32>, mtime_ns: Option<i64>) -> Result<Stamp, Errno> {
    if let Some(at) = mtime_ns {
        rustix::fs::futimens(file, &mtime(at))?;
    }
    let stamp = stamp_fd(file)?;
    match mode {
        Some(mode) if stamp.mode != mode & MODE_BITS => {
            rustix::fs::fchmod(file, bits(mode))?;
            stamp_fd(file)
        }
        _ => Ok(stamp),
    }
}

/// [`DiskOp::Stage`](clearskies_core::io::DiskOp::Stage).
pub(super) fn stage(
    root: &Root,
    files: &[Stage],
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<DiskDone, DiskError> {
    root.verify()?;
    let tmp = root.tmp()?;
    let mut dirs = Dirs::new(root);
    let done = files
        .iter()
        .map(|stage| {
            let name = temp_name(stage.temp);
            let staged = stage_one(&mut dirs, tmp.as_fd(), &name, stage, scratch, stop);
            if staged.is_err() {
                // Half a temp is of no use to anyone; if this fails too, the sweep at the next start finds it.
                let _ = rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty());
            }
            staged
        })
        .collect();
    Ok(DiskDone::Staged(done))
}

fn stage_one(
    dirs: &mut Dirs<'_>,
    tmp: BorrowedFd<'_>,
    name: &str,
    stage: &Stage,
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<Staged, DiskError> {
    let failed = |e| fail("write the temp", name, e);
    match &stage.content {
        StageContent::File(data) => {
            let file = create_file(tmp, name, stage.mode).map_err(failed)?;
            file.write_all_at(data, 0).map_err(|e| failed(errno(&e)))?;
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(data);
            let stamp = finish_file(&file, stage.mode, stage.mtime_ns).map_err(failed)?;
            Ok(Staged { sha256: finish(context), stamp })
        }
        StageContent::Link(target) => {
            if target.is_empty() || target.contains('\0') {
                return Err(DiskError::BadName);
            }
            let failed = |e| fail_name("make the link", name, e);
            match rustix::fs::symlinkat(target.as_str(), tmp, name) {
                Err(Errno::EXIST) => {
                    rustix::fs::unlinkat(tmp, name, AtFlags::empty()).map_err(failed)?;
                    rustix::fs::symlinkat(target.as_str(), tmp, name).map_err(failed)?;
                }
                other => other.map_err(failed)?,
            }
            if let Some(at) = stage.mtime_ns {
                rustix::fs::utimensat(tmp, name, &mtime(at), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
            let stamp = stamp_at(tmp, name).map_err(failed)?;
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(target.as_bytes());
            Ok(Staged { sha256: finish(context), stamp })
        }
        StageContent::Copy { from, stamp } => {
            let source = open_content(dirs, from, stamp)?;
            let file = create_file(tmp, name, stage.mode).map_err(failed)?;
            copy_bytes(&source, &file, stamp.size, scratch).map_err(failed)?;
            // The copy is hashed, not the source: what is put at the path is what was looked at.
            let mut context = digest::Context::new(&digest::SHA256);
            let len = hash_from(&file, 0, &mut context, scratch, stop).map_err(|e| failed(errno(&e)))?;
            let after = stamp_fd(&source).map_err(map)?;
            if len != stamp.size || !same_content(&after, stamp) {
                return Err(DiskError::Changed);
            }
            let stamp = finish_file(&file, stage.mode, stage.mtime_ns).map_err(failed)?;
            Ok(Staged { sha256: finish(context), stamp })
        }
    }
}

/// Copies so many bytes of a file into an empty one: shared blocks, then within the kernel, then by hand. Fewer where
/// the file became shorter: whoever asks looks at its stamp, or at what came of it.
pub(super) fn copy_bytes(from: &File, to: &File, size: u64, scratch: &mut Scratch) -> Result<(), Errno> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        let len = to.metadata().map_err(|e| errno(&e))?.len();
        return if len > size { to.set_len(size).map_err(|e| errno(&e)) } else { Ok(()) };
    }
    let mut at = 0u64;
    while at < size {
        let (mut from_at, mut to_at) = (at, at);
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len) {
            Ok(0) => break,
            Ok(len) => at = at.saturating_add(len as u64),
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => return Err(error),
            // Not on this file system, or not with these files.
            Err(_) => break,
        }
    }
    let buffer = scratch.buffer();
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let len = read_at(from, &mut buffer[..most], at).map_err(|e| errno(&e))?;
        if len == 0 {
            break;
        }
        to.write_all_at(&buffer[..len], at).map_err(|e| errno(&e))?;
        at = at.saturating_add(len as u64);
    }
    Ok(())
}

/// [`DiskOp::OpenTemp`](clearskies_core::io::DiskOp::OpenTemp).
pub(super) fn open(root: &Root, temp: TempId, size: u64) -> Result<DiskDone, DiskError> {
    root.verify()?;
    let tmp = root.tmp()?;
    let name = temp_name(temp);
    let failed = |e| fail("open the temp", &name, e);
    // A second opening of the same temp starts from what the first one wrote.
    lock(&root.temps).remove(&temp);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::openat(&tmp, name.as_str(), flags, bits(DEFAULT_MODE)).map_err(failed)?);
    let mut existing = stamp_fd(&file).map_err(failed)?.size;
    if existing > size {
        rustix::fs::ftruncate(&file, size).map_err(failed)?;
        existing = size;
    }
    if let Err(error) = reserve(&file, existing, size) {
        if existing == 0 {
            let _ = rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty());
        }
        return Err(failed(error));
    }
    let taken = Taken {
        context: digest::Context::new(&digest::SHA256),
        hashed: 0,
        until: 0,
        ahead: BTreeMap::new(),
        in_order: true,
    };
    let open = OpenTemp { file, taken: Mutex::new(taken), named: AtomicBool::new(false) };
    lock(&root.temps).insert(temp, Arc::new(open));
    Ok(DiskDone::TempOpened { existing })
}

/// Takes the blocks of a file before its bytes come, so that a full volume shows at once. The file's size stays
/// what was written, because it tells how much is there.
fn reserve(file: &File, existing: u64, size: u64) -> Result<(), Errno> {
    if size <= existing {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Ok(()) => Ok(()),
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error),
        Err(_) => {
            let space = rustix::fs::fstatvfs(file)?;
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            if free < size - existing { Err(Errno::NOSPC) } else { Ok(()) }
        }
    }
}

fn opened(root: &Root, temp: TempId) -> Result<Arc<OpenTemp>, DiskError> {
    lock(&root.temps).get(&temp).cloned().ok_or(DiskError::NotFound)
}

/// [`DiskOp::WriteTemp`](clearskies_core::io::DiskOp::WriteTemp).
pub(super) fn write(
    root: &Root,
    temp: TempId,
    offset: u64,
    data: &[u8],
    scratch: &mut Scratch,
) -> Result<DiskDone, DiskError> {
    let open = opened(root, temp)?;
    let failed = |e| fail("write the temp", &temp_name(temp), e);
    if i64::try_from(offset.saturating_add(data.len() as u64)).is_err() {
        return Err(failed(Errno::FBIG));
    }
    open.write(offset, data, scratch).map_err(failed)?;
    Ok(DiskDone::Unit)
}

/// [`DiskOp::PatchTemp`](clearskies_core::io::DiskOp::PatchTemp).
pub(super) fn patch(
    root: &Root,
    temp: TempId,
    offset: u64,
    (from, stamp): (&RelPath, &Stamp),
    delta: &[u8],
    scratch: &mut Scratch,
) -> Result<DiskDone, DiskError> {
    let open = opened(root, temp)?;
    let mut dirs = Dirs::new(root);
    let source = open_content(&mut dirs, from, stamp)?;
    let failed = |e| fail("write the temp", &temp_name(temp), e);
    let mut at = offset;
    let mut buffer = scratch.take();
    let mut patch = || -> Result<(), DiskError> {
        for command in Commands::of(delta) {
            match command.map_err(|_| DiskError::Io)? {
                Command::Literal(range) => {
                    open.write(at, &delta[range.clone()], scratch).map_err(failed)?;
                    at = at.saturating_add(range.len() as u64);
                }
                Command::Copy { from, len } => {
                    let mut done = 0;
                    while done < len {
                        let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
                        let part = read_at(&source, &mut buffer[..part], from.saturating_add(done));
                        let part = part.map_err(|e| failed(errno(&e)))?;
                        if part == 0 {
                            return Err(DiskError::Changed);
                        }
                        open.write(at, &buffer[..part], scratch).map_err(failed)?;
                        at = at.saturating_add(part as u64);
                        done += part as u64;
                    }
                }
            }
        }
        Ok(())
    };
    let patched = patch();
    scratch.give(buffer);
    patched?;
    if same_content(&stamp_fd(&source).map_err(map)?, stamp) {
        Ok(DiskDone::Unit)
    } else {
        Err(DiskError::Changed)
    }
}

impl OpenTemp {
    /// Writes, and takes what was written into the hash where it is its turn. What the hash leaves out is read in the
    /// end.
    fn write(&self, offset: u64, data: &[u8], scratch: &mut Scratch) -> Result<(), Errno> {
        let written = self.file.write_all_at(data, offset).map_err(|e| errno(&e));
        let end = offset.saturating_add(data.len() as u64);
        let mut taken = lock(&self.taken);
        // What a write that failed left is not known.
        taken.in_order &= written.is_ok() && offset >= taken.until;
        written?;
        if !taken.in_order {
            return Ok(());
        }
        if offset == taken.until && taken.until == taken.hashed {
            taken.until = end;
            let mut context = taken.context.clone();
            drop(taken);
            context.update(data);
            taken = lock(&self.taken);
            taken.take(context);
        } else {
            taken.is_ahead(offset, end);
        }
        drop(taken);
        self.catch_up(scratch);
        Ok(())
    }

    /// Takes what lies behind the hash and was written before into it, unless another thread does.
    fn catch_up(&self, scratch: &mut Scratch) {
        let mut taken = lock(&self.taken);
        let last = taken.hashed.saturating_add(CATCH_UP_BYTES);
        while taken.in_order && taken.until == taken.hashed && taken.hashed < last {
            let start = taken.hashed;
            let Some(end) = taken.ahead.remove(&start) else { return };
            let buffer = scratch.buffer();
            let len = usize::try_from(end - start).unwrap_or(usize::MAX).min(buffer.len());
            taken.until = start + len as u64;
            if taken.until < end {
                let rest = taken.until;
                taken.ahead.insert(rest, end);
            }
            let mut context = taken.context.clone();
            drop(taken);
            let read = self.file.read_exact_at(&mut buffer[..len], start);
            context.update(&buffer[..len]);
            taken = lock(&self.taken);
            match read {
                Ok(()) => taken.take(context),
                Err(_) => (taken.in_order, taken.until) = (false, start),
            }
        }
    }
}

impl Taken {
    /// What was being taken is in this hash now.
    fn take(&mut self, context: digest::Context) {
        self.context = context;
        self.hashed = self.until;
    }

    /// Notes what is written before the hash comes to it.
    fn is_ahead(&mut self, offset: u64, end: u64) {
        if let Some((_, before)) = self.ahead.range_mut(..offset).next_back()
            && *before == offset
        {
            *before = end;
        } else if let Some(known) = self.ahead.get_mut(&offset) {
            *known = end.max(*known);
        } else if self.ahead.len() < AHEAD_MAX {
            self.ahead.insert(offset, end);
        }
    }
}

/// [`DiskOp::FlushTemp`](clearskies_core::io::DiskOp::FlushTemp). Others may write to the temp meanwhile.
pub(super) fn flush(root: &Root, temp: TempId) -> Result<DiskDone, DiskError> {
    let open = opened(root, temp)?;
    let failed = |e| fail("flush the temp", &temp_name(temp), e);
    rustix::fs::fdatasync(&open.file).map_err(failed)?;
    if !open.named.load(Ordering::Relaxed) {
        let tmp = root.open(".clearskies/tmp", LISTED).map_err(failed)?;
        rustix::fs::fsync(&tmp).map_err(failed)?;
        open.named.store(true, Ordering::Relaxed);
    }
    Ok(DiskDone::Unit)
}

/// [`DiskOp::FinishTemp`](clearskies_core::io::DiskOp::FinishTemp).
pub(super) fn finish_temp(
    root: &Root,
    temp: TempId,
    mode: Option<u32>,
    mtime_ns: Option<i64>,
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<DiskDone, DiskError> {
    let Some(open) = lock(&root.temps).remove(&temp) else {
        return Ok(DiskDone::Staged(vec![Err(DiskError::NotFound)]));
    };
    let mut taken = lock(&open.taken);
    let failed = |e| fail("finish the temp", &temp_name(temp), e);
    if !taken.in_order {
        taken.context = digest::Context::new(&digest::SHA256);
        taken.hashed = 0;
    }
    let Taken { context, hashed, .. } = &mut *taken;
    let staged = hash_from(&open.file, *hashed, context, scratch, stop)
        .map_err(|e| failed(errno(&e)))
        .and_then(|_| finish_file(&open.file, mode, mtime_ns).map_err(failed))
        .map(|stamp| Staged { sha256: finish(context.clone()), stamp });
    Ok(DiskDone::Staged(vec![staged]))
}

/// Removes one temp, open or not.
pub(super) fn remove(root: &Root, temp: TempId) -> Result<(), DiskError> {
    lock(&root.temps).remove(&temp);
    let name = temp_name(temp);
    let tmp = match root.tmp() {
        Ok(tmp) => tmp,
        // Where there is no place for temps there are none.
        Err(DiskError::RootMissing) => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(fail("remove the temp", &name, error)),
    }
}

/// [`DiskOp::SweepTemps`](clearskies_core::io::DiskOp::SweepTemps).
pub(super) fn sweep(root: &Root, mut keep: Vec<TempId>) -> Result<DiskDone, DiskError> {
    lock(&root.temps).retain(|temp, _| keep.contains(temp));
    let tmp = match root.open(TMP, LISTED) {
        Ok(tmp) => tmp,
        Err(Errno::NOENT) => return Ok(DiskDone::Swept { there: Vec::new(), emptied: true }),
        Err(error) => return Err(fail("list the temps of", TMP, error)),
    };
    let names: BTreeSet<String> = keep.iter().map(|temp| temp_name(*temp)).chain([MARK.into()]).collect();
    let met = RefCell::new(BTreeSet::new());
    empty_dir(&tmp, |name| {
        let known = std::str::from_utf8(name).ok().and_then(|name| names.get(name));
        met.borrow_mut().extend(known);
        known.is_some()
    })?;
    let met = met.into_inner();
    keep.retain(|temp| met.contains(&temp_name(*temp)));
    let emptied = !met.contains(&MARK.to_owned());
    if emptied {
        mark(&tmp)?;
    }
    Ok(DiskDone::Swept { there: keep, emptied })
}

/// Makes the mark in the directory for temps that tells whether somebody else emptied it.
pub(super) fn mark(tmp: &OwnedFd) -> Result<(), DiskError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(tmp, MARK, flags, Mode::from_raw_mode(0o600));
    made.map(drop).map_err(|error| fail("make", MARK, error))
}

/// Removes what a directory holds, except where `keep` says so. Directories within are first brought up to it, so
/// that depth costs neither stack nor descriptors.
pub(super) fn empty_dir(dir: &OwnedFd, keep: impl Fn(&[u8]) -> bool) -> Result<(), DiskError> {
    let failed = |e| fail("remove from", ".clearskies", e);
    let mut lifted = 0u64;
    // Each round removes at least the files; a round that removes nothing ends it.
    loop {
        let mut removed = false;
        let mut left = false;
        let mut listing = rustix::fs::Dir::read_from(dir).map_err(failed)?;
        let mut names = Vec::new();
        while let Some(entry) = listing.read() {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") && !keep(name.to_bytes()) {
                names.push(name);
            }
        }
        for name in names {
            match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
                Ok(()) => {
                    removed = true;
                    continue;
                }
                Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(failed(error)),
            }
            match rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR) {
                Ok(()) => removed = true,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    left = true;
                    removed |= lift(dir, &name, &mut lifted).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        if !left || !removed {
            return Ok(());
        }
    }
}

/// Removes the files of a directory and moves its directories beside it; returns whether anything went.
fn lift(dir: &OwnedFd, name: &std::ffi::CStr, lifted: &mut u64) -> Result<bool, Errno> {
    let flags = LISTED | OFlags::NOFOLLOW;
    let sub = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut listing = rustix::fs::Dir::read_from(&sub)?;
    let mut names = Vec::new();
    while let Some(entry) = listing.read() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    let mut went = false;
    for name in names {
        match rustix::fs::unlinkat(&sub, &name, AtFlags::empty()) {
            Ok(()) => went = true,
            Err(Errno::ISDIR | Errno::PERM) => {
                *lifted += 1;
                let to = format!("own-{}-lift-{lifted}", std::process::id());
                rustix::fs::renameat(&sub, &name, dir, to.as_str())?;
                went = true;
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    Ok(went)
}
