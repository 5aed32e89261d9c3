//! A record: one key and value of the replicated database, with the bookkeeping that makes merging exact. Says what
//! a record means; who may make one, and how two join, is said elsewhere.

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
    /// JSON null.
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

impl Change {
    /// Whether `clock` has seen this change.
    pub fn seen_by(&self, clock: &Clock) -> bool {
        clock.covers_dot(self.peer, self.rev)
    }
}

impl Record {
    /// Whether it is a tombstone: its deletions had seen the value (protocol §7).
    pub fn deleted(&self) -> bool {
        self.value_change.seen_by(&self.deleted_clock)
    }

    /// The peer that made the last change.
    pub fn last_updated_by(&self) -> PeerId {
        self.update.peer
    }

    /// The largest time of any change in this version; mtimes are content and do not count.
    pub fn latest_time(&self) -> WallTime {
        let changes = [self.key_change.time, self.value_change.time, self.meta_change.time];
        changes.into_iter().fold(self.update.time, WallTime::max)
    }

    /// The directory extension's value, if it is of that shape; a tombstone's too.
    pub fn entry(&self) -> Option<&EntryValue> {
        match &self.value {
            Value::Entry(entry) => Some(entry),
            Value::Null | Value::Json(_) => None,
        }
    }

    /// File, directory or link, if the value is of that shape; a tombstone's too.
    pub fn content(&self) -> Option<&EntryContent> {
        self.entry().map(|entry| &entry.content)
    }

    /// Bytes of the file; 0 for all else.
    pub fn size(&self) -> u64 {
        self.content().map_or(0, EntryContent::size)
    }

    /// The SHA-256 that it names, if it is a file.
    pub fn sha256(&self) -> Option<Sha256> {
        self.content().and_then(EntryContent::sha256)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.content() == Some(&EntryContent::Dir)
    }

    /// The modification time to show: a later touch counts before the one set with the content, an earlier touch
    /// was overwritten by it (protocol §8).
    pub fn mtime(&self) -> Option<WallTime> {
        let set = self.entry().and_then(|entry| entry.mtime);
        match self.meta.mtime {
            Some(touch) if set.is_none() || self.meta_change > self.value_change => Some(touch),
            _ => set,
        }
    }

    /// The record that this conflict file lost to.
    pub fn conflict_source(&self) -> Option<Uuid> {
        self.entry().and_then(|entry| entry.conflict_source)
    }

    /// Whether two versions say the same of what is at their path, whatever that is.
    pub fn looks_like(&self, other: &Record) -> bool {
        self.deleted() == other.deleted() && self.value == other.value && self.meta == other.meta
    }

    /// Whether both values are *equal* (protocol §8): of the directory's values kind, size, sha256 and link decide
    /// and mtime does not count; others are equal as JSON.
    pub fn same_value(&self, other: &Record) -> bool {
        self.value.same(&other.value)
    }
}

impl Value {
    /// As [`Record::same_value`].
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Entry(a), Value::Entry(b)) => a.content == b.content,
            (a, b) => a == b,
        }
    }
}

impl EntryValue {
    /// A value that says no more than its content.
    pub fn new(content: EntryContent) -> EntryValue {
        EntryValue { content, mtime: None, conflict_source: None, extra: None }
    }
}

impl EntryContent {
    /// Bytes of the file; 0 for a directory or link.
    pub fn size(&self) -> u64 {
        match self {
            EntryContent::File { size, .. } => *size,
            EntryContent::Dir | EntryContent::Link(_) => 0,
        }
    }

    /// The SHA-256 of the file.
    pub fn sha256(&self) -> Option<Sha256> {
        match self {
            EntryContent::File { sha256, .. } => Some(*sha256),
            EntryContent::Dir | EntryContent::Link(_) => None,
        }
    }
}

impl Meta {
    /// Whether it says nothing; then it is left out on the wire.
    pub fn is_default(&self) -> bool {
        *self == Meta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{author, file, peer};
    use crate::index::{author as make, clock::REV_MAX};

    #[test]
    fn deleted_follows_from_the_clocks() {
        let mut me = author(1);
        let record = file(&mut me, "/a", 1);
        assert!(!record.deleted());
        let gone = make::delete(&mut me, &record).unwrap();
        assert!(gone.deleted());
        assert_eq!(gone.last_updated_by(), peer(1));
        let mut other = record.clone();
        other.deleted_clock = Clock::of(peer(2), REV_MAX);
        assert!(!other.deleted());
    }

    #[test]
    fn mtime_does_not_count_for_equality_and_a_later_touch_is_shown() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        let mut b = a.clone();
        let Value::Entry(entry) = &mut b.value else { panic!() };
        entry.mtime = Some(WallTime(77));
        assert!(a.same_value(&b) && a != b);
        assert_eq!(b.mtime(), Some(WallTime(77)));
        let meta = Meta { mtime: Some(WallTime(99)), ..Meta::default() };
        let touched = make::set_meta(&mut me, &b, meta).unwrap();
        assert_eq!(touched.mtime(), Some(WallTime(99)));
        let edited = make::edit(&mut me, &touched, b.value.clone(), None);
        assert_eq!(edited, Err(make::Unmade::Same));
        let edited = make::edit(&mut me, &touched, a.value.clone(), None).unwrap();
        assert_eq!(edited.mtime(), a.mtime());
        assert_eq!((a.size(), a.is_dir(), a.sha256().is_some()), (1, false, true));
    }
}
