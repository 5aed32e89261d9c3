//! What the node knows about one path: the disk, its base, and which records claim it (sync.md, "Three observations").

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{Sha256, Uuid};
use crate::index::codec::{Damaged, PeerTable, decode_record, encode_record};
use crate::index::record::{EntryContent, Record};
use crate::io::disk::{Kind, Stamp};

/// One row of [`Space::Path`](crate::io::store::Space::Path).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRow {
    /// What the disk held when it was last seen or written; `None`: nothing.
    pub disk: Option<DiskState>,
    /// Which version of which record that disk content is.
    pub base: Base,
    /// The live records with this key; the shown one and hidden ones.
    pub live: Vec<Uuid>,
    /// The newest tombstones with this key, newest last; at most [`PathRow::DEAD_MAX`].
    pub dead: Vec<Uuid>,
    /// True for a directory that sync made only for what lies beneath it; it has no record, and its end is no
    /// local change.
    pub implied: bool,
    /// How many bytes the path still wants, while it is not at its index version.
    pub pending: Option<u64>,
}

impl PathRow {
    /// How many tombstones a row remembers.
    pub const DEAD_MAX: usize = 4;

    /// Whether the row says nothing and need not be stored.
    pub fn is_empty(&self) -> bool {
        self.disk.is_none() && self.base == Base::None && self.live.is_empty() && self.dead.is_empty()
    }

    /// What the disk held.
    pub fn content(&self) -> Option<&EntryContent> {
        self.disk.as_ref().map(|disk| &disk.content)
    }

    /// The record whose version the disk content is.
    pub fn base_uuid(&self) -> Option<Uuid> {
        match &self.base {
            Base::None => None,
            Base::Index(uuid) => Some(*uuid),
            Base::Older(record) => Some(record.uuid),
        }
    }

    /// The base version itself, where `current` is what the index holds now of [`PathRow::base_uuid`].
    pub fn resolve_base<'a>(&'a self, current: Option<&'a Record>) -> Option<&'a Record> {
        match &self.base {
            Base::None => None,
            Base::Index(uuid) => current.filter(|record| record.uuid == *uuid),
            Base::Older(record) => Some(record),
        }
    }

    /// To be called before the index replaces `old`: a base that is this version is kept whole. Returns whether the
    /// row changed.
    pub fn keep_base(&mut self, old: &Record) -> bool {
        let changes = self.base == Base::Index(old.uuid);
        if changes {
            self.base = Base::Older(Box::new(old.clone()));
        }
        changes
    }

    /// Remembers that a directory that has no live record was left on disk for what it holds, so that it is no local
    /// change (sync.md, Scanning).
    pub fn leave_dir(&mut self) {
        self.base = Base::Index(Self::NO_RECORD);
        self.implied = false;
    }

    /// Something beneath went away: a directory that sync made, or left for what it holds, may be empty now
    /// and is to be
    /// looked at. Returns whether the row changed.
    pub fn recheck_dir(&mut self) -> bool {
        let stays = self.content() == Some(&EntryContent::Dir) && (self.implied || self.is_left_dir());
        let changes = stays && !self.is_dir_to_check();
        if changes {
            self.leave_dir();
            self.implied = true;
        }
        changes
    }

    /// Whether the directory on disk may be empty now, so that it is to be taken away or kept.
    pub fn is_dir_to_check(&self) -> bool {
        self.implied && self.is_left_dir()
    }

    /// Whether the directory on disk was left for what it holds.
    pub fn is_left_dir(&self) -> bool {
        self.base == Base::Index(Self::NO_RECORD) && self.content() == Some(&EntryContent::Dir)
    }

    /// No record has this uuid: it is a base that no index ever holds.
    const NO_RECORD: Uuid = Uuid([0; 16]);

    /// A live record has this key now.
    pub fn add_live(&mut self, uuid: Uuid) {
        self.dead.retain(|dead| *dead != uuid);
        if !self.live.contains(&uuid) {
            self.live.push(uuid);
        }
    }

    /// A tombstone has this key now, and is the newest; the oldest is forgotten where there are too many.
    pub fn add_dead(&mut self, uuid: Uuid) {
        self.remove_record(uuid);
        if self.dead.len() >= Self::DEAD_MAX {
            self.dead.remove(0);
        }
        self.dead.push(uuid);
    }

    /// The record has another key now.
    pub fn remove_record(&mut self, uuid: Uuid) {
        self.live.retain(|live| *live != uuid);
        self.dead.retain(|dead| *dead != uuid);
    }

    /// Appends the stored form. Peers that the table lacks are added to it.
    pub fn encode(&self, peers: &mut PeerTable, out: &mut Vec<u8>) {
        let base = match &self.base {
            Base::None => 0,
            Base::Index(_) => BASE_INDEX,
            Base::Older(_) => BASE_OLDER,
        };
        out.push(VERSION);
        let mut flags = base | if self.implied { IMPLIED } else { 0 };
        flags |= if self.pending.is_some() { PENDING } else { 0 };
        if let Some(disk) = &self.disk {
            flags |= DISK | if disk.settled { SETTLED } else { 0 };
        }
        out.push(flags);
        if let Some(bytes) = self.pending {
            put_number(out, bytes);
        }
        if let Some(disk) = &self.disk {
            encode_disk(disk, out);
        }
        for uuids in [&self.live, &self.dead] {
            put_number(out, uuids.len() as u64);
            uuids.iter().for_each(|uuid| out.extend_from_slice(&uuid.0));
        }
        match &self.base {
            Base::None => {}
            Base::Index(uuid) => out.extend_from_slice(&uuid.0),
            Base::Older(record) => encode_record(record, peers, out),
        }
    }

    /// Reads what [`PathRow::encode`] wrote; nothing may be left over.
    pub fn decode(bytes: &[u8], peers: &PeerTable) -> Result<PathRow, Damaged> {
        let mut rest = bytes;
        let [VERSION, flags] = take_array(&mut rest)? else { return Err(Damaged) };
        if flags & !(BASE_INDEX | BASE_OLDER | IMPLIED | DISK | SETTLED | PENDING) != 0 {
            return Err(Damaged);
        }
        let pending = match flags & PENDING {
            0 => None,
            _ => Some(take_number(&mut rest)?),
        };
        let disk = match flags & DISK {
            0 => None,
            _ => Some(decode_disk(&mut rest, flags & SETTLED != 0)?),
        };
        let live = take_uuids(&mut rest)?;
        let dead = take_uuids(&mut rest)?;
        if dead.len() > Self::DEAD_MAX {
            return Err(Damaged);
        }
        let base = match flags & (BASE_INDEX | BASE_OLDER) {
            0 => Base::None,
            BASE_INDEX => Base::Index(Uuid(take_array(&mut rest)?)),
            BASE_OLDER => Base::Older(Box::new(decode_record(&mut rest, peers)?)),
            _ => return Err(Damaged),
        };
        if !rest.is_empty() {
            return Err(Damaged);
        }
        Ok(PathRow { disk, base, live, dead, implied: flags & IMPLIED != 0, pending })
    }
}

/// The stored form's version.
const VERSION: u8 = 1;

const BASE_INDEX: u8 = 1;
const BASE_OLDER: u8 = 2;
const IMPLIED: u8 = 4;
const DISK: u8 = 8;
const SETTLED: u8 = 16;
const PENDING: u8 = 32;

fn encode_disk(disk: &DiskState, out: &mut Vec<u8>) {
    let stamp = &disk.stamp;
    out.push(match stamp.kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Link => 2,
        Kind::Other => 3,
    });
    put_number(out, stamp.size);
    out.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
    // Most files were never touched after they were written: the difference is small.
    put_number(out, zigzag(stamp.ctime_ns.wrapping_sub(stamp.mtime_ns)));
    put_number(out, stamp.inode);
    put_number(out, stamp.mode.into());
    match &disk.content {
        EntryContent::Dir => out.push(0),
        EntryContent::Link(target) => {
            out.push(1);
            put_number(out, target.len() as u64);
            out.extend_from_slice(target.as_bytes());
        }
        EntryContent::File { size, sha256 } => {
            out.push(2);
            put_number(out, *size);
            out.extend_from_slice(&sha256.0);
        }
    }
}

fn decode_disk(rest: &mut &[u8], settled: bool) -> Result<DiskState, Damaged> {
    let kind = match take_array(rest)? {
        [0] => Kind::File,
        [1] => Kind::Dir,
        [2] => Kind::Link,
        [3] => Kind::Other,
        _ => return Err(Damaged),
    };
    let size = take_number(rest)?;
    let mtime_ns = i64::from_le_bytes(take_array(rest)?);
    let ctime_ns = mtime_ns.wrapping_add(unzigzag(take_number(rest)?));
    let inode = take_number(rest)?;
    let mode = u32::try_from(take_number(rest)?).map_err(|_| Damaged)?;
    let content = match take_array(rest)? {
        [0] => EntryContent::Dir,
        [1] => {
            let len = usize::try_from(take_number(rest)?).map_err(|_| Damaged)?;
            let text = core::str::from_utf8(take(rest, len)?).map_err(|_| Damaged)?;
            EntryContent::Link(String::from(text))
        }
        [2] => EntryContent::File { size: take_number(rest)?, sha256: Sha256(take_array(rest)?) },
        _ => return Err(Damaged),
    };
    Ok(DiskState { stamp: Stamp { kind, size, mtime_ns, ctime_ns, inode, mode }, content, settled })
}

/// LEB128.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take_array(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(Damaged);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Damaged> {
    let (head, tail) = rest.split_at_checked(len).ok_or(Damaged)?;
    *rest = tail;
    Ok(head)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damaged> {
    take(rest, N)?.try_into().map_err(|_| Damaged)
}

/// The list's length is bounded by the bytes that are there.
fn take_uuids(rest: &mut &[u8]) -> Result<Vec<Uuid>, Damaged> {
    let count = take_number(rest)?;
    if count > (rest.len() / Uuid::LEN) as u64 {
        return Err(Damaged);
    }
    (0..count).map(|_| take_array(rest).map(Uuid)).collect()
}

/// What the disk held at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Tells this state from another.
    pub stamp: Stamp,
    /// The content.
    pub content: EntryContent,
    /// False while the stamp was too young, when the content was read, to be trusted: then it is hashed again at
    /// the next look.
    pub settled: bool,
}

impl DiskState {
    /// Whether it is of the directory that has this stamp, and what lies in it was listed.
    pub fn is_listed(&self, stamp: &Stamp) -> bool {
        self.settled && self.stamp.inode == stamp.inode
    }
}

/// The version that a path's disk content is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// None: never in step, or forgotten.
    #[default]
    None,
    /// The version of this record that the index holds now.
    Index(Uuid),
    /// An earlier version than the index holds; kept whole, because a local change descends from it.
    Older(Box<Record>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::file_record;
    use proptest::prelude::*;

    fn any_row() -> impl Strategy<Value = PathRow> {
        let uuid = any::<[u8; 16]>().prop_map(Uuid);
        let content = prop_oneof![
            Just(EntryContent::Dir),
            "[a-z/.]{0,20}".prop_map(EntryContent::Link),
            any::<(u64, [u8; 32])>().prop_map(|(size, sha)| EntryContent::File { size, sha256: Sha256(sha) }),
        ];
        let kind = proptest::sample::select(alloc::vec![Kind::File, Kind::Dir, Kind::Link, Kind::Other]);
        let stamp = (kind, any::<(u64, i64, i64, u64, u32)>()).prop_map(|(kind, numbers)| {
            let (size, mtime_ns, ctime_ns, inode, mode) = numbers;
            Stamp { kind, size, mtime_ns, ctime_ns, inode, mode }
        });
        let disk = (stamp, content, any::<bool>()).prop_map(|(stamp, content, settled)| DiskState {
            stamp,
            content,
            settled,
        });
        let base = prop_oneof![Just(Base::None), uuid.clone().prop_map(Base::Index)];
        let live = proptest::collection::vec(uuid.clone(), 0..3);
        let dead = proptest::collection::vec(uuid, 0..=PathRow::DEAD_MAX);
        let pending = proptest::option::of(any::<u64>());
        (proptest::option::of(disk), base, live, dead, any::<bool>(), pending).prop_map(
            |(disk, base, live, dead, implied, pending)| PathRow { disk, base, live, dead, implied, pending },
        )
    }

    proptest! {
        #[test]
        fn encodes_and_decodes(row in any_row()) {
            let mut bytes = Vec::new();
            let mut peers = PeerTable::default();
            row.encode(&mut peers, &mut bytes);
            prop_assert_eq!(PathRow::decode(&bytes, &peers), Ok(row));
            for len in 0..bytes.len() {
                prop_assert_eq!(PathRow::decode(&bytes[..len], &peers), Err(Damaged));
            }
            bytes.push(0);
            prop_assert_eq!(PathRow::decode(&bytes, &peers), Err(Damaged));
        }

        #[test]
        fn survives_any_bytes(mut bytes in any::<Vec<u8>>(), flags in 0u8..32) {
            let _ = PathRow::decode(&bytes, &PeerTable::default());
            bytes.splice(0..0, [VERSION, flags]);
            let _ = PathRow::decode(&bytes, &PeerTable::default());
        }
    }

    #[test]
    fn an_older_base_is_kept_whole() {
        let record = file_record(1, "/a", 1, 1);
        let mut row = PathRow { base: Base::Index(record.uuid), ..PathRow::default() };
        assert!(row.keep_base(&record));
        assert!(!row.keep_base(&record));
        assert_eq!(row.base, Base::Older(Box::new(record.clone())));
        assert_eq!(row.resolve_base(None), Some(&record));
        let mut bytes = Vec::new();
        let mut peers = PeerTable::default();
        row.encode(&mut peers, &mut bytes);
        assert_eq!(PathRow::decode(&bytes, &peers), Ok(row));
    }

    #[test]
    fn a_small_file_takes_few_bytes() {
        let mut row = PathRow { base: Base::Index(Uuid([1; 16])), ..PathRow::default() };
        row.add_live(Uuid([1; 16]));
        let stamp = Stamp {
            kind: Kind::File,
            size: 1000,
            mtime_ns: 1 << 60,
            ctime_ns: (1 << 60) + 9999,
            inode: 1 << 20,
            mode: 0o644,
        };
        let content = EntryContent::File { size: 1000, sha256: Sha256([7; 32]) };
        row.disk = Some(DiskState { stamp, content, settled: true });
        let mut bytes = Vec::new();
        row.encode(&mut PeerTable::default(), &mut bytes);
        assert!(bytes.len() <= 96, "{}", bytes.len());
    }

    #[test]
    fn records_of_a_key() {
        let mut row = PathRow::default();
        for n in 0..=PathRow::DEAD_MAX as u8 {
            row.add_live(Uuid([n; 16]));
            row.add_live(Uuid([n; 16]));
            row.add_dead(Uuid([n; 16]));
        }
        assert!(row.live.is_empty());
        assert_eq!(row.dead, [1, 2, 3, 4].map(|n| Uuid([n; 16])));
        row.add_live(Uuid([2; 16]));
        assert_eq!(row.dead, [1, 3, 4].map(|n| Uuid([n; 16])));
        row.add_dead(Uuid([1; 16]));
        assert_eq!(row.dead, [3, 4, 1].map(|n| Uuid([n; 16])));
    }
}
