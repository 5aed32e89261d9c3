//! Records, paths and disk states for the tests of this layer.

use alloc::string::String;

use crate::files::path::RelPath;
use crate::files::row::DiskState;
use crate::ids::{PeerId, Sha256, Uuid};
use crate::index::clock::Clock;
use crate::index::record::{Change, EntryContent, EntryValue, Meta, Record, Value};
use crate::io::disk::{Kind, Stamp};
use crate::time::WallTime;

/// A legal path.
pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("legal")
}

/// A file's content, told apart by one number.
pub(crate) fn file(n: u8) -> EntryContent {
    EntryContent::File { size: u64::from(n), sha256: Sha256([n; 32]) }
}

/// The clock that has seen these dots.
pub(crate) fn clock(dots: &[(u8, u64)]) -> Clock {
    let mut clock = Clock::default();
    for &(peer, rev) in dots {
        clock.set(PeerId([peer; 16]), rev);
    }
    clock
}

/// A record that this peer made at this revision, which is its time too.
pub(crate) fn record(uuid: u8, key: &str, content: EntryContent, peer: u8, rev: u64) -> Record {
    let change = Change { time: WallTime(rev as i64), peer: PeerId([peer; 16]), rev };
    let mtime = (content != EntryContent::Dir).then_some(WallTime(1));
    Record {
        uuid: Uuid([uuid; 16]),
        key: String::from(key),
        value: Value::Entry(EntryValue { content, mtime, conflict_source: None, extra: None }),
        meta: Meta { unix_mode: Some(0o644), mtime: None, extra: None },
        clock: clock(&[(peer, rev)]),
        deleted_clock: Clock::default(),
        value_clock: clock(&[(peer, rev)]),
        update: change,
        key_change: change,
        value_change: change,
        meta_change: change,
    }
}

/// A file's record.
pub(crate) fn file_record(uuid: u8, key: &str, n: u8, rev: u64) -> Record {
    record(uuid, key, file(n), 1, rev)
}

/// The record, with another content by this peer, having seen what it was.
pub(crate) fn edited(old: &Record, content: EntryContent, peer: u8, rev: u64) -> Record {
    let mut new = old.clone();
    let change = Change { time: WallTime(rev as i64), peer: PeerId([peer; 16]), rev };
    new.clock.set(change.peer, rev);
    new.value_clock = new.clock.clone();
    new.value_change = change;
    new.update = change;
    let mtime = (content != EntryContent::Dir).then_some(WallTime(1));
    new.value = Value::Entry(EntryValue { content, mtime, conflict_source: None, extra: None });
    new
}

/// The record, moved by this peer.
pub(crate) fn moved(old: &Record, key: &str, peer: u8, rev: u64) -> Record {
    let mut new = old.clone();
    let change = Change { time: WallTime(rev as i64), peer: PeerId([peer; 16]), rev };
    new.clock.set(change.peer, rev);
    new.key = String::from(key);
    new.key_change = change;
    new.update = change;
    new
}

/// The record, deleted by this peer.
pub(crate) fn deleted(old: &Record, peer: u8, rev: u64) -> Record {
    let mut new = old.clone();
    new.clock.set(PeerId([peer; 16]), rev);
    new.deleted_clock = new.clock.clone();
    new.update = Change { time: WallTime(rev as i64), peer: PeerId([peer; 16]), rev };
    new
}

/// A stamp that fits the content.
pub(crate) fn stamp(content: &EntryContent, inode: u64) -> Stamp {
    let (kind, size, times) = match content {
        EntryContent::Dir => (Kind::Dir, 0, 0),
        EntryContent::Link(target) => (Kind::Link, target.len() as u64, 1),
        EntryContent::File { size, .. } => (Kind::File, *size, 1),
    };
    Stamp { kind, size, mtime_ns: times, ctime_ns: times, inode, mode: 0o644 }
}

/// The disk with this content.
pub(crate) fn disk(content: EntryContent) -> DiskState {
    DiskState { stamp: stamp(&content, 1), content, settled: true }
}
