//! A record: one key and value of the replicated database, with the bookkeeping that makes merging exact.

use alloc::boxed::Box;
use alloc::string::String;

use crate::ids::{PeerId, Sha256, Uuid};
use crate::index::clock::Clock;
use crate::time::WallTime;

/// When, by whom and in which revision something was changed. Ordered by time, then peer, then revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Wall clock of the author, never earlier than what it changed.
    pub time: WallTime,
    /// The author.
    pub peer: PeerId,
    /// The author's revision; with `peer` it is a *dot*, which names one change for ever.
    pub rev: u64,
}

/// One version of a record. `uuid` names the record, `clock` the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's name.
    pub uuid: Uuid,
    /// The key; a path with a leading `/` in a share.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The small second value.
    pub meta: Meta,
    /// Everything this version has seen.
    pub clock: Clock,
    /// What the record's deletions had seen; empty if it was never deleted.
    pub deleted_clock: Clock,
    /// The clock when the value was set.
    pub value_clock: Clock,
    /// The last change of all.
    pub update: Change,
    /// The last change of the key.
    pub key_change: Change,
    /// The last change of the value.
    pub value_change: Change,
    /// The last change of meta.
    pub meta_change: Change,
}

/// A record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// JSON null: what a tombstone carries, among others.
    Null,
    /// A value of the shape that the directory extension uses (protocol §8).
    Entry(EntryValue),
    /// Any other JSON, canonical (members sorted, no white space).
    Json(Box<str>),
}

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryValue {
    /// File, directory or link.
    pub content: EntryContent,
    /// Modification time when the content was set; files and links.
    pub mtime: Option<WallTime>,
    /// Of a conflict file: the uuid of the record that it lost to.
    pub conflict_source: Option<Uuid>,
    /// Members that this version does not know, as a canonical JSON object; kept whoever writes.
    pub extra: Option<Box<str>>,
}

/// The content of a path. Two values are *equal* when these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryContent {
    /// A directory.
    Dir,
    /// A symbolic link with its target, verbatim.
    Link(String),
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Of the content.
        sha256: Sha256,
    },
}

/// The second value: what may change without touching content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub unix_mode: Option<u32>,
    /// A directory's modification time, or a later touch of a file's.
    pub mtime: Option<WallTime>,
    /// Members that this version does not know, as a canonical JSON object.
    pub extra: Option<Box<str>>,
}
