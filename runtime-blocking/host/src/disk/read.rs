//! Looking at paths: stamps, hashes, pieces. Changes nothing on disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use clearskies_core::files::path::RelPath;
use clearskies_core::files::rsync::{Head, Signature};
use clearskies_core::ids::Sha256;
use clearskies_core::io::disk::{Bytes, DiskDone, DiskError, Hashed, HashedContent, Kind, Read, Stamp};
use ring::digest;
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::resolve::Dirs;
use super::root::Root;
use super::stat::{errno, fail, map, same_content, stamp_at, stamp_fd, stamp_on};
use crate::delta::{self, Piece};

/// Bytes that a worker reads and hashes at once.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// Flags for reading a file of which somebody else may have made something else meanwhile.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What a worker keeps for its whole life.
pub(super) struct Scratch {
    buffer: Vec<u8>,
}

impl Scratch {
    /// Takes no memory before it is used.
    pub(super) fn new() -> Scratch {
        Scratch { buffer: Vec::new() }
    }

    /// [`BUFFER_BYTES`] to read into.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.buffer.resize(BUFFER_BYTES, 0);
        &mut self.buffer
    }

    /// The same, for who needs it beside what else reads into one; to be given back.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.buffer();
        std::mem::take(&mut self.buffer)
    }

    /// Ends [`Scratch::take`].
    pub(super) fn give(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

/// A finished hash.
pub(super) fn finish(context: digest::Context) -> Sha256 {
    let mut out = [0; Sha256::LEN];
    out.copy_from_slice(context.finish().as_ref());
    Sha256(out)
}

/// `read`, again when a signal came in between.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Feeds a file's bytes from `offset` to its end into a hash.
pub(super) fn hash_from(
    file: &File,
    mut offset: u64,
    context: &mut digest::Context,
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<u64, std::io::Error> {
    let buffer = scratch.buffer();
    loop {
        let len = read_at(file, buffer, offset)?;
        if len == 0 {
            return Ok(offset);
        }
        context.update(&buffer[..len]);
        offset = offset.saturating_add(len as u64);
        if stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("stopped"));
        }
    }
}

/// [`DiskOp::Stat`](clearskies_core::io::DiskOp::Stat).
pub(super) fn stat(root: &Root, paths: &[RelPath]) -> Vec<Result<Stamp, DiskError>> {
    let mut dirs = Dirs::new(root);
    paths
        .iter()
        .map(|path| {
            if path.is_root() {
                return stamp_fd(&root.fd).map_err(map);
            }
            let (dir, name) = dirs.parent(path)?;
            stamp_on(root.dev, dir, name, path.as_str())
        })
        .collect()
}

/// [`DiskOp::Hash`](clearskies_core::io::DiskOp::Hash).
pub(super) fn hash(
    root: &Root,
    paths: &[RelPath],
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Vec<Result<Hashed, DiskError>> {
    let mut dirs = Dirs::new(root);
    paths.iter().map(|path| hash_one(root, &mut dirs, path, scratch, stop)).collect()
}

fn hash_one(
    root: &Root,
    dirs: &mut Dirs<'_>,
    path: &RelPath,
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<Hashed, DiskError> {
    if path.is_root() {
        let stamp = stamp_fd(&root.fd).map_err(map)?;
        return Ok(Hashed { stamp, content: HashedContent::Dir });
    }
    let (dir, name) = dirs.parent(path)?;
    hash_at(dir, name, path, scratch, stop)
}

/// Hashes what a directory has under a name; `path` is what it is called in the log.
pub(super) fn hash_at(
    dir: BorrowedFd<'_>,
    name: &str,
    path: &RelPath,
    scratch: &mut Scratch,
    stop: &AtomicBool,
) -> Result<Hashed, DiskError> {
    let failed = |e| fail("read", path.as_str(), e);
    // Opening a device may do things, so the kind is known before.
    let stamp = stamp_at(dir, name).map_err(failed)?;
    let content = match stamp.kind {
        Kind::Dir => HashedContent::Dir,
        Kind::Other => return Err(DiskError::WrongKind),
        Kind::Link => {
            let target = read_link(dir, name, path)?;
            if stamp_at(dir, name).map_err(failed)? != stamp {
                return Err(DiskError::Changed);
            }
            HashedContent::Link(target)
        }
        Kind::File => {
            let file = open_same(dir, name, path, &stamp)?;
            let mut context = digest::Context::new(&digest::SHA256);
            let len = hash_from(&file, 0, &mut context, scratch, stop).map_err(|e| failed(errno(&e)))?;
            if len != stamp.size || stamp_fd(&file).map_err(failed)? != stamp {
                return Err(DiskError::Changed);
            }
            HashedContent::File(finish(context))
        }
    };
    Ok(Hashed { stamp, content })
}

/// A link's target; one that is not UTF-8 cannot be synced.
pub(super) fn read_link(dir: BorrowedFd<'_>, name: &str, path: &RelPath) -> Result<String, DiskError> {
    let target =
        rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|e| fail("read the link", path.as_str(), e))?;
    target.into_string().map_err(|_| DiskError::BadName)
}

/// Opens the file that has this very stamp.
fn open_same(dir: BorrowedFd<'_>, name: &str, path: &RelPath, stamp: &Stamp) -> Result<File, DiskError> {
    let file = open_file(dir, name, path)?;
    if stamp_fd(&file).map_err(map)? != *stamp {
        return Err(DiskError::Changed);
    }
    Ok(file)
}

/// Opens a file for reading.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &str, path: &RelPath) -> Result<File, DiskError> {
    let fd =
        rustix::fs::openat(dir, name, READ, Mode::empty()).map_err(|e| fail("open", path.as_str(), e))?;
    Ok(File::from(fd))
}

/// Opens a file for reading that has the content of this stamp (ctime and mode do not count).
pub(super) fn open_content(dirs: &mut Dirs<'_>, path: &RelPath, stamp: &Stamp) -> Result<File, DiskError> {
    let (dir, name) = dirs.parent(path)?;
    let now = stamp_at(dir, name).map_err(|e| fail("look at", path.as_str(), e))?;
    if stamp.kind != Kind::File || !same_content(&now, stamp) {
        return Err(DiskError::Changed);
    }
    let file = open_file(dir, name, path)?;
    if !same_content(&stamp_fd(&file).map_err(map)?, stamp) {
        return Err(DiskError::Changed);
    }
    Ok(file)
}

/// [`DiskOp::Read`](clearskies_core::io::DiskOp::Read).
pub(super) fn read(root: &Root, reads: &[Read]) -> Vec<Result<Bytes, DiskError>> {
    let mut dirs = Dirs::new(root);
    // Pieces of one file mostly follow one another.
    let mut open: Option<(&RelPath, File)> = None;
    reads
        .iter()
        .map(|read| {
            if open.as_ref().is_none_or(|(path, _)| **path != read.path) {
                open = None;
                open = Some((&read.path, open_content(&mut dirs, &read.path, &read.stamp)?));
            }
            let Some((_, file)) = &open else { return Err(DiskError::Io) };
            read_one(file, read)
        })
        .collect()
}

/// One piece of a file.
fn read_piece(root: &Root, read: &Read) -> Result<Vec<u8>, DiskError> {
    let mut dirs = Dirs::new(root);
    let file = open_content(&mut dirs, &read.path, &read.stamp)?;
    Ok(read_one(&file, read)?.0)
}

/// [`DiskOp::Sign`](clearskies_core::io::DiskOp::Sign).
pub(super) fn sign(
    root: &Root,
    read: &Read,
    head: Head,
    scratch: &mut Scratch,
) -> Result<DiskDone, DiskError> {
    let mut dirs = Dirs::new(root);
    let file = open_content(&mut dirs, &read.path, &read.stamp)?;
    let buffer = scratch.buffer();
    let block = head.block as usize;
    // As many whole blocks as stay in the processor's cache; of large ones all are read at once.
    let step = if block <= buffer.len() { buffer.len() / block * block } else { read.len as usize };
    let end = read.offset.saturating_add(u64::from(read.len)).min(read.stamp.size);
    let (mut at, mut sums) = (read.offset, Vec::new());
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(step);
        if let Some(buffer) = buffer.get_mut(..len) {
            read_full(&file, buffer, at).map_err(|e| failed_to_read(read, &e))?;
            sums.extend(delta::sums(buffer, head));
        } else {
            // A piece has at most 4 MiB, so the cast is exact.
            let piece = Read { offset: at, len: len as u32, ..read.clone() };
            sums.extend(delta::sums(&read_one(&file, &piece)?.0, head));
        }
        at += len as u64;
    }
    if !same_content(&stamp_fd(&file).map_err(map)?, &read.stamp) {
        return Err(DiskError::Changed);
    }
    Ok(DiskDone::Data(vec![Ok(Bytes(sums))]))
}

/// Fills a buffer.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match read_at(file, &mut buffer[done..], offset.saturating_add(done as u64))? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => done += len,
        }
    }
    Ok(())
}

fn failed_to_read(read: &Read, error: &std::io::Error) -> DiskError {
    // Shorter than its stamp says.
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return DiskError::Changed;
    }
    fail("read", read.path.as_str(), errno(error))
}

/// [`DiskOp::Delta`](clearskies_core::io::DiskOp::Delta).
pub(super) fn compare(
    root: &Root,
    read: &Read,
    expected: u64,
    signature: &Signature,
) -> Result<DiskDone, DiskError> {
    let data = read_piece(root, read)?;
    let is_end = read.offset.saturating_add(data.len() as u64) >= read.stamp.size;
    let Piece { delta, len, next } = delta::delta(&data, is_end, expected, signature);
    if len == 0 {
        return Err(DiskError::Io);
    }
    Ok(DiskDone::Delta { delta: Bytes(delta), len: len as u64, next })
}

fn read_one(file: &File, read: &Read) -> Result<Bytes, DiskError> {
    let check = || match stamp_fd(file) {
        Ok(now) if same_content(&now, &read.stamp) => Ok(()),
        Ok(_) => Err(DiskError::Changed),
        Err(error) => Err(fail("look at", read.path.as_str(), error)),
    };
    check()?;
    let len = read.stamp.size.saturating_sub(read.offset).min(u64::from(read.len));
    let len = usize::try_from(len).map_err(|_| DiskError::Io)?;
    // Not zeroed first: for large files that would cost as much as a tenth of the rest.
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        let offset = read.offset.saturating_add(data.len() as u64);
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut data), offset) {
            // Shorter than its stamp says.
            Ok(0) => return Err(DiskError::Changed),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(fail("read", read.path.as_str(), error)),
        }
    }
    // The allocator may have given more room than was asked for.
    data.truncate(len);
    check()?;
    Ok(Bytes(data))
}
