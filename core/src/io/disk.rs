//! The disk: everything that the engine can ask of a share's folder.
//!
//! Paths are relative to the share's root and resolve beneath it, following no symbolic link: one on the way is no
//! directory, so that the operation fails with [`DiskError::WrongKind`]. Lists of items are answered by lists of
//! results in the same order; the operation as a whole fails only where nothing could be tried (the root is gone).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::files::path::RelPath;
use crate::files::rsync::{Head, Signature};
use crate::ids::{RootId, Sha256, TempId};

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device: never synced.
    Other,
}

/// Tells one state of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// What it is.
    pub kind: Kind,
    /// Bytes; of a directory always 0.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970; of a directory always 0.
    pub mtime_ns: i64,
    /// Last change of the inode, nanoseconds since 1970; of a directory always 0. A rename changes it.
    pub ctime_ns: i64,
    /// The inode's number.
    pub inode: u64,
    /// Permission bits, `0o7777`.
    pub mode: u32,
}

/// One entry of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: RelPath,
    /// What it is.
    pub stamp: Stamp,
}

/// A path's state after reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The stamp, the same before and after reading.
    pub stamp: Stamp,
    /// What was read.
    pub content: HashedContent,
}

/// What hashing a path gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashedContent {
    /// A regular file's SHA-256.
    File(Sha256),
    /// A symbolic link's target, verbatim.
    Link(String),
    /// A directory.
    Dir,
}

/// A small thing to be written as a temp in one step.
#[derive(Clone, PartialEq, Eq)]
pub struct Stage {
    /// The temp's name.
    pub temp: TempId,
    /// What it becomes.
    pub content: StageContent,
    /// Permission bits; `None` for the host's default (files `0o666`, less the umask). Links have none.
    pub mode: Option<u32>,
    /// Modification time, nanoseconds since 1970; `None` leaves it at now.
    pub mtime_ns: Option<i64>,
}

impl core::fmt::Debug for Stage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stage").field("temp", &self.temp).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What a [`Stage`] writes.
#[derive(Clone, PartialEq, Eq)]
pub enum StageContent {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A symbolic link with this target.
    Link(String),
    /// A copy of a file of the share (shared blocks where the file system can), which must have this stamp
    /// before and after.
    Copy {
        /// The file to copy.
        from: RelPath,
        /// The stamp that it must have (ctime and mode do not count).
        stamp: Stamp,
    },
}

/// A temp whose content is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Of the bytes written; of a link, of its target.
    pub sha256: Sha256,
    /// The temp's stamp, taken from its own descriptor. Installing it changes ctime alone.
    pub stamp: Stamp,
}

/// A temp to be put at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The temp; a [`Staged`] one.
    pub temp: TempId,
    /// Where it goes; its directory must exist.
    pub path: RelPath,
    /// What must be there now: nothing, or a file or link with this size, mtime, inode and kind, and of a file these
    /// permission bits: what replaces it has bits of its own, and a change of them would be lost.
    pub replaces: Option<Stamp>,
    /// Folder in the archive for what was replaced, see [`DiskOp::Install`]; `None` drops it.
    pub archive: Option<String>,
}

/// A path to be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// What to remove.
    pub path: RelPath,
    /// What must be there now, as in [`Install::replaces`] but for the bits; of a directory only the kind counts, and
    /// it must be empty, or the result is [`DiskError::NotEmpty`].
    pub stamp: Stamp,
    /// Folder in the archive for a file or link, as in [`Install::archive`].
    pub archive: Option<String>,
}

/// The bits of a mode that are kept in step: those of owner, group and others. The set-id bits would have a member hand
/// the others programs that run as somebody else; with the sticky bit, they stay on each disk as they are there.
pub const MODE_BITS: u32 = 0o777;

/// A change of permission bits or time, without touching content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetMeta {
    /// The path; links are left alone and answered with their stamp.
    pub path: RelPath,
    /// What must be there now, as in [`Remove::stamp`]; a directory need not be empty.
    pub stamp: Stamp,
    /// New permission bits, of [`MODE_BITS`]; the others stay.
    pub mode: Option<u32>,
    /// New modification time, nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
}

/// A piece of a file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The file.
    pub path: RelPath,
    /// What must be there, as in [`Remove::stamp`], or the result is [`DiskError::Changed`].
    pub stamp: Stamp,
    /// First byte.
    pub offset: u64,
    /// How many bytes; fewer come back only at the file's end.
    pub len: u32,
}

/// One file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Folder in the archive, as it was given when the file was put there.
    pub folder: String,
    /// The path that it had in the share.
    pub path: RelPath,
    /// Its stamp.
    pub stamp: Stamp,
}

/// Work on a share's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Opens a share's folder under a number, starts watching it, and reads its marker. Answer: [`DiskDone::Opened`].
    /// Paths that do not exist, are no directory or may not be read fail. Any root that was open under the number
    /// is closed first.
    OpenRoot {
        /// The number.
        root: RootId,
        /// Absolute path, as the host's file system has it.
        path: String,
        /// Whether to make the folder (with its parents) where nothing is.
        create: bool,
    },
    /// Closes a root and forgets it. Answer: [`DiskDone::Unit`].
    CloseRoot {
        /// The number.
        root: RootId,
    },
    /// Makes `.clearskies`, `.clearskies/tmp` and `.clearskies/archive` (mode 0700), and writes
    /// `.clearskies/share` durably. Answer: [`DiskDone::Unit`].
    WriteMarker {
        /// The number.
        root: RootId,
        /// The marker's whole content.
        marker: Vec<u8>,
    },
    /// Removes `.clearskies/share` (and temps), leaving the archive. Answer: [`DiskDone::Unit`].
    RemoveMarker {
        /// The number.
        root: RootId,
    },
    /// Whether the opened folder is still what its path names, on the same device, with its marker.
    /// Answer: [`DiskDone::Marker`] with the marker as it is now; fails with [`DiskError::RootMissing`].
    CheckRoot {
        /// The number.
        root: RootId,
    },
    /// Starts or continues a walk of a directory and all beneath it, in preorder, names of a directory in byte
    /// order. The directory itself is not part of it. Each directory is watched before it is listed.
    /// Every component `.clearskies` is skipped. Answer: [`DiskDone::Walked`].
    Walk {
        /// The number.
        root: RootId,
        /// Names this walk. A number that is not known begins a walk; a finished walk is forgotten.
        walk: u64,
        /// Where it begins; empty for the root. Read only when the walk begins.
        dir: RelPath,
        /// At most this many entries in the answer.
        limit: u32,
    },
    /// Forgets a walk that is not wanted any more. Answer: [`DiskDone::Unit`].
    EndWalk {
        /// The number.
        root: RootId,
        /// The walk.
        walk: u64,
    },
    /// Looks at paths. Answer: [`DiskDone::Stamps`].
    Stat {
        /// The number.
        root: RootId,
        /// The paths.
        paths: Vec<RelPath>,
    },
    /// Reads and hashes files, reads links. A file whose stamp differs after reading gives
    /// [`DiskError::Changed`]. Answer: [`DiskDone::Hashed`].
    Hash {
        /// The number.
        root: RootId,
        /// The paths.
        paths: Vec<RelPath>,
    },
    /// Reads pieces of files. Answer: [`DiskDone::Data`].
    Read {
        /// The number.
        root: RootId,
        /// The pieces.
        reads: Vec<Read>,
    },
    /// Sums the blocks of a piece of a file up, as a signature has them (`files/rsync.rs`); a block that the piece ends
    /// in is summed up as far as it goes. Answer: [`DiskDone::Data`] with one item.
    Sign {
        /// The number.
        root: RootId,
        /// The piece.
        read: Read,
        /// How to sum them up.
        head: Head,
    },
    /// Finds the blocks that a piece of a file has in common with a signature. Answer: [`DiskDone::Delta`].
    Delta {
        /// The number.
        root: RootId,
        /// The piece; it has two blocks, or ends with the file.
        read: Read,
        /// The block with which it may well begin.
        expected: u64,
        /// The signature.
        signature: Arc<Signature>,
    },
    /// Writes small temps in one step each. One that exists is replaced. Answer: [`DiskDone::Staged`].
    Stage {
        /// The number.
        root: RootId,
        /// The temps.
        files: Vec<Stage>,
    },
    /// Opens a large temp for writing, kept open until finished or removed; makes it, or keeps the bytes of one
    /// that exists. Space is reserved where the file system can. Answer: [`DiskDone::TempOpened`].
    OpenTemp {
        /// The number.
        root: RootId,
        /// The temp.
        temp: TempId,
        /// The final size in bytes.
        size: u64,
    },
    /// Writes a piece of an open temp. Writes of one temp are carried out in the order in which they were put
    /// out. Answer: [`DiskDone::Unit`].
    WriteTemp {
        /// The number.
        root: RootId,
        /// The temp.
        temp: TempId,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// Writes to an open temp what a delta makes out of a file, in order with its other writes. Answer:
    /// [`DiskDone::Unit`]. Where it fails, anything may be written there.
    PatchTemp {
        /// The number.
        root: RootId,
        /// The temp.
        temp: TempId,
        /// Where that begins in the temp.
        offset: u64,
        /// The file.
        from: RelPath,
        /// What must be there, as in [`Remove::stamp`], before and after.
        stamp: Stamp,
        /// The delta, which asks for nothing beyond that file (`files/rsync.rs`).
        delta: Bytes,
    },
    /// Makes the bytes of an open temp durable whose writing has completed; more may be written meanwhile. Answer:
    /// [`DiskDone::Unit`].
    FlushTemp {
        /// The number.
        root: RootId,
        /// The temp.
        temp: TempId,
    },
    /// After all writes: hashes the temp (at no cost where all writes came in order), sets mode and time, closes
    /// it. Answer: [`DiskDone::Staged`] with one item.
    FinishTemp {
        /// The number.
        root: RootId,
        /// The temp.
        temp: TempId,
        /// As in [`Stage::mode`].
        mode: Option<u32>,
        /// As in [`Stage::mtime_ns`].
        mtime_ns: Option<i64>,
    },
    /// Closes and removes temps; one that is not there is no error. Answer: [`DiskDone::Unit`].
    RemoveTemps {
        /// The number.
        root: RootId,
        /// The temps.
        temps: Vec<TempId>,
    },
    /// Removes all temps but these, and leaves a mark among them, as [`DiskOp::WriteMarker`] does where it makes the
    /// place for temps: where that is gone, somebody else has emptied the place. Answer: [`DiskDone::Swept`].
    SweepTemps {
        /// The number.
        root: RootId,
        /// The temps that stay.
        keep: Vec<TempId>,
    },
    /// Makes everything durable that was written to the root's file system. Answer: [`DiskDone::Unit`].
    Flush {
        /// The number.
        root: RootId,
    },
    /// Puts temps at their paths. What is replaced is exchanged with the temp atomically and then looked at: if
    /// it is not what `replaces` says, both are exchanged back and the result is [`DiskError::Changed`].
    /// What was replaced goes to `.clearskies/archive/<folder>/<path>`. A new path is renamed without replacing
    /// ([`DiskError::Exists`]). Answer: [`DiskDone::Stamps`] with the new stamps.
    Install {
        /// The number.
        root: RootId,
        /// The temps.
        items: Vec<Install>,
    },
    /// Makes directories (parents first); one that is already there is no error. Answer: [`DiskDone::Made`].
    MakeDirs {
        /// The number.
        root: RootId,
        /// The paths, each with its permission bits (`None`: `0o777` less the umask).
        dirs: Vec<(RelPath, Option<u32>)>,
    },
    /// Renames a file, link or whole directory, never over anything. Answer: [`DiskDone::Stamps`] with one item.
    Rename {
        /// The number.
        root: RootId,
        /// From here.
        from: RelPath,
        /// To there; its directory must exist.
        to: RelPath,
        /// What must be at `from`, as in [`Remove::stamp`]; a directory need not be empty.
        stamp: Stamp,
    },
    /// Takes paths away, in the order given: files and links to the archive, empty directories for good.
    /// Answer: [`DiskDone::Removed`].
    Remove {
        /// The number.
        root: RootId,
        /// The paths.
        items: Vec<Remove>,
    },
    /// Sets permission bits and times. Answer: [`DiskDone::Stamps`].
    SetMeta {
        /// The number.
        root: RootId,
        /// The changes.
        items: Vec<SetMeta>,
    },
    /// Lists the archive, newest folder first. Answer: [`DiskDone::Archived`].
    ListArchive {
        /// The number.
        root: RootId,
        /// At most this many.
        limit: u32,
    },
    /// Copies an archived file to a path where nothing is (making its directories); the archive keeps its own.
    /// Answer: [`DiskDone::Stamps`] with one item.
    RestoreArchived {
        /// The number.
        root: RootId,
        /// Folder in the archive.
        folder: String,
        /// The path it had.
        path: RelPath,
        /// The path it gets.
        to: RelPath,
    },
    /// Looks at archived files, and reads and hashes those that are in another state than expected.
    /// Answer: [`DiskDone::Checked`].
    CheckArchived {
        /// The number.
        root: RootId,
        /// The files, each with the stamp that is expected (as in [`Remove::stamp`]).
        files: Vec<Archived>,
    },
    /// Moves a file out of the archive to a path where nothing is (making its directories): the very inode, so that
    /// who holds it open goes on writing to what everybody sees. Answer: [`DiskDone::Stamps`] with one item.
    TakeArchived {
        /// The number.
        root: RootId,
        /// Folder in the archive.
        folder: String,
        /// The path it had.
        path: RelPath,
        /// The path it gets.
        to: RelPath,
    },
    /// Removes archive folders whose names sort before this one. Answer: [`DiskDone::Unit`].
    PruneArchive {
        /// The number.
        root: RootId,
        /// The first folder that stays.
        before: String,
    },
    /// Asks for free space. Answer: [`DiskDone::Space`].
    Space {
        /// The number.
        root: RootId,
    },
}

/// Bytes on their way to the disk; `Debug` shows their number alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

/// A directory that was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its stamp.
    pub stamp: Stamp,
    /// Whether it is new, and nothing lay in it once it was watched: then it need not be walked.
    pub empty: bool,
}

/// How a disk operation ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// Done.
    Unit,
    /// A root is open.
    Opened {
        /// `.clearskies/share`, if it is there; at most 4 KiB of it.
        marker: Option<Vec<u8>>,
        /// Whether the folder holds anything beside `.clearskies`.
        empty: bool,
        /// The path with its links resolved.
        path: String,
        /// A bound for the grain of the file system's times, as against [`Now`](crate::time::Now): a change so long
        /// after another has another time. A time that is a whole second may still be as coarse as that.
        grain: Duration,
    },
    /// The marker as it is now.
    Marker(Option<Vec<u8>>),
    /// Part of a walk.
    Walked {
        /// Entries, in the walk's order.
        entries: Vec<Entry>,
        /// Directories (already in `entries`, or the walk's own) whose listing failed or is on another device:
        /// nothing may be concluded from what is absent beneath them.
        unobserved: Vec<(RelPath, DiskError)>,
        /// Names that cannot be synced (not UTF-8, or not allowed), shown in a readable form, with their directory.
        unusable: Vec<(RelPath, String)>,
        /// True at the end of the walk.
        done: bool,
    },
    /// Per item: its stamp.
    Stamps(Vec<Result<Stamp, DiskError>>),
    /// Per item: the directory.
    Made(Vec<Result<Made, DiskError>>),
    /// Per item: what it holds.
    Hashed(Vec<Result<Hashed, DiskError>>),
    /// Per item: the bytes.
    Data(Vec<Result<Bytes, DiskError>>),
    /// What a piece of a file has in common with a signature.
    Delta {
        /// A delta that makes the first of its bytes.
        delta: Bytes,
        /// How many these are; never none.
        len: u64,
        /// The block that may well come next.
        next: u64,
    },
    /// Per item: the finished temp.
    Staged(Vec<Result<Staged, DiskError>>),
    /// A temp is open.
    TempOpened {
        /// How many bytes the file had before.
        existing: u64,
    },
    /// What a sweep of temps found.
    Swept {
        /// Of the temps that were to stay those that are there.
        there: Vec<TempId>,
        /// Whether the mark was gone, and with it maybe others of the temps that were to stay.
        emptied: bool,
    },
    /// Per item: whether it went.
    Removed(Vec<Result<(), DiskError>>),
    /// The archive.
    Archived(Vec<Archived>),
    /// Per item: `None` if it is in the state that was expected, else what it holds.
    Checked(Vec<Result<Option<Hashed>, DiskError>>),
    /// Space on the root's volume, in bytes.
    Space {
        /// Free for this user.
        free: u64,
        /// In all.
        total: u64,
    },
}

/// What an operation on `count` items answered for each; `part` takes the answers out. Where it failed as a whole each
/// has that error, and where it answered anything else [`DiskError::Io`].
pub fn per_item<T>(
    result: Result<DiskDone, DiskError>,
    count: usize,
    part: impl FnOnce(DiskDone) -> Option<Vec<Result<T, DiskError>>>,
) -> Vec<Result<T, DiskError>> {
    let error = match result.map(part) {
        Ok(Some(items)) if items.len() == count => return items,
        Ok(_) => DiskError::Io,
        Err(error) => error,
    };
    (0..count).map(|_| Err(error)).collect()
}

/// Why a disk operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// Nothing is there, or a directory on the way is missing.
    NotFound,
    /// Something is there already.
    Exists,
    /// A directory is not empty.
    NotEmpty,
    /// A directory is needed on the way, or at the path, and something else is there; or the other way round.
    WrongKind,
    /// Not permitted, read-only, or the path would leave the share.
    Denied,
    /// It lies on another volume than the share's folder, or is a directory on which one is mounted.
    OtherVolume,
    /// The volume or the quota is full.
    NoSpace,
    /// The name is too long or not possible on this file system.
    BadName,
    /// The share's folder is gone, is another one, or lost its marker.
    RootMissing,
    /// Another state was found than was expected, or it changed while it was read.
    Changed,
    /// Anything else; the host has logged the details.
    Io,
}
