//! The compact form in which records lie in the store: peers as small numbers, digests as bytes. Written by this
//! store alone; what is damaged in it is refused, never guessed at.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{PeerId, Sha256, Uuid};
use crate::index::clock::Clock;
use crate::index::record::{Change, EntryContent, EntryValue, Meta, Record, Value};
use crate::time::WallTime;

/// The form's version, its first byte.
const VERSION: u8 = 1;

/// How many peers a table may number. A record from outside that would pass it is not stored
/// ([`PeerTable::admits`]).
pub const TABLE_PEERS_MAX: usize = 1 << 16;

/// The peers of one club, numbered in the order in which they were met; the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable {
    peers: Vec<PeerId>,
    numbers: BTreeMap<PeerId, u32>,
}

impl PeerTable {
    /// The peer's number; a peer that is new gets the next one.
    pub fn number_of(&mut self, peer: PeerId) -> u32 {
        let next = self.peers.len();
        *self.numbers.entry(peer).or_insert_with(|| {
            self.peers.push(peer);
            // Memory ends before 2^32 peers of 16 bytes do, and `admits` long before that.
            u32::try_from(next).unwrap_or(u32::MAX)
        })
    }

    /// The peer with this number.
    pub fn get(&self, number: u32) -> Option<PeerId> {
        self.peers.get(usize::try_from(number).ok()?).copied()
    }

    /// How many peers it numbers. Grew while records were encoded: the table is to be stored in the same commit.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether it numbers none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether there is room for the peers of a record; asked before one from outside is stored. Only its clock
    /// counts: nothing else in a record that was checked names a peer that its clock does not.
    pub fn admits(&self, record: &Record) -> bool {
        let met = |peer: &PeerId| self.numbers.contains_key(peer);
        let new = record.clock.iter().filter(|(peer, _)| !met(peer)).count();
        self.peers.len() + new <= TABLE_PEERS_MAX
    }

    /// Appends the stored form: the peers in the order of their numbers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for peer in &self.peers {
            out.extend_from_slice(&peer.0);
        }
    }

    /// Reads what [`PeerTable::encode`] wrote; the whole of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<PeerTable, Damaged> {
        let (&VERSION, ids) = bytes.split_first().ok_or(Damaged)? else {
            return Err(Damaged);
        };
        let (ids, []) = ids.as_chunks::<{ PeerId::LEN }>() else {
            return Err(Damaged);
        };
        if ids.len() > TABLE_PEERS_MAX {
            return Err(Damaged);
        }
        let mut table = PeerTable::default();
        for id in ids {
            table.number_of(PeerId(*id));
        }
        // A peer that stands twice would shift the numbers of all after it.
        if table.len() == ids.len() { Ok(table) } else { Err(Damaged) }
    }
}

/// A stored form that cannot be read: the store is damaged, or of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// What the flags of a record say, lowest bits first, so that a plain file's fit one byte.
mod flag {
    /// The value's kind, three bits.
    pub(super) const KIND: u32 = 0b111;
    pub(super) const KIND_NULL: u32 = 0;
    pub(super) const KIND_JSON: u32 = 1;
    pub(super) const KIND_DIR: u32 = 2;
    pub(super) const KIND_LINK: u32 = 3;
    pub(super) const KIND_FILE: u32 = 4;
    pub(super) const MTIME: u32 = 1 << 3;
    pub(super) const MODE: u32 = 1 << 4;
    /// The key was not changed by the last update.
    pub(super) const KEY: u32 = 1 << 5;
    /// The clock holds more than the last update.
    pub(super) const CLOCK: u32 = 1 << 6;
    /// The value was changed neither by the last update nor with the key.
    pub(super) const VALUE: u32 = 1 << 7;
    /// The value was changed with the key; for VALUE unset.
    pub(super) const VALUE_AS_KEY: u32 = 1 << 8;
    /// Meta was changed neither by the last update nor with the key.
    pub(super) const META: u32 = 1 << 9;
    /// Meta was changed with the key; for META unset.
    pub(super) const META_AS_KEY: u32 = 1 << 10;
    /// The value's clock is not the record's.
    pub(super) const VALUE_CLOCK: u32 = 1 << 11;
    /// The deletions had seen what the record has seen.
    pub(super) const DELETED_AS_CLOCK: u32 = 1 << 12;
    /// The deletions had seen something else.
    pub(super) const DELETED_CLOCK: u32 = 1 << 13;
    pub(super) const CONFLICT_SOURCE: u32 = 1 << 14;
    pub(super) const VALUE_EXTRA: u32 = 1 << 15;
    pub(super) const META_MTIME: u32 = 1 << 16;
    pub(super) const META_EXTRA: u32 = 1 << 17;
    /// The first bit without a meaning.
    pub(super) const END: u32 = 1 << 18;
}

/// Appends the stored form. Peers that the table lacks are added to it; the caller stores it in the same commit.
pub fn encode_record(record: &Record, peers: &mut PeerTable, out: &mut Vec<u8>) {
    let flags = flags_of(record);
    let has = |bit| flags & bit != 0;
    out.push(VERSION);
    put_int(u64::from(flags), out);
    out.extend_from_slice(&record.uuid.0);
    put_text(&record.key, out);
    put_change(&record.update, peers, out);
    if has(flag::KEY) {
        put_change(&record.key_change, peers, out);
    }
    if has(flag::VALUE) {
        put_change(&record.value_change, peers, out);
    }
    if has(flag::META) {
        put_change(&record.meta_change, peers, out);
    }
    if has(flag::CLOCK) {
        encode_clock(&record.clock, peers, out);
    }
    if has(flag::VALUE_CLOCK) {
        encode_clock(&record.value_clock, peers, out);
    }
    if has(flag::DELETED_CLOCK) {
        encode_clock(&record.deleted_clock, peers, out);
    }
    match &record.value {
        Value::Null => {}
        Value::Json(json) => put_text(json, out),
        Value::Entry(entry) => put_entry(entry, out),
    }
    if let Some(mode) = record.meta.unix_mode {
        put_int(u64::from(mode), out);
    }
    if let Some(mtime) = record.meta.mtime {
        put_time(mtime, out);
    }
    if let Some(extra) = &record.meta.extra {
        put_text(extra, out);
    }
}

fn flags_of(record: &Record) -> u32 {
    let mut flags = match &record.value {
        Value::Null => flag::KIND_NULL,
        Value::Json(_) => flag::KIND_JSON,
        Value::Entry(entry) => {
            let kind = match &entry.content {
                EntryContent::Dir => flag::KIND_DIR,
                EntryContent::Link(_) => flag::KIND_LINK,
                EntryContent::File { .. } => flag::KIND_FILE,
            };
            kind | when(entry.mtime.is_some(), flag::MTIME)
                | when(entry.conflict_source.is_some(), flag::CONFLICT_SOURCE)
                | when(entry.extra.is_some(), flag::VALUE_EXTRA)
        }
    };
    let part = |change: Change, with_key: u32, own: u32| {
        if change == record.update {
            0
        } else if change == record.key_change {
            with_key
        } else {
            own
        }
    };
    flags |= when(record.key_change != record.update, flag::KEY);
    flags |= part(record.value_change, flag::VALUE_AS_KEY, flag::VALUE);
    flags |= part(record.meta_change, flag::META_AS_KEY, flag::META);
    let mut entries = record.clock.iter();
    let lone = entries.next() == Some((record.update.peer, record.update.rev)) && entries.next().is_none();
    flags |= when(!lone, flag::CLOCK);
    flags |= when(record.value_clock != record.clock, flag::VALUE_CLOCK);
    if !record.deleted_clock.is_empty() {
        let same = record.deleted_clock == record.clock;
        flags |= if same { flag::DELETED_AS_CLOCK } else { flag::DELETED_CLOCK };
    }
    flags |= when(record.meta.unix_mode.is_some(), flag::MODE);
    flags |= when(record.meta.mtime.is_some(), flag::META_MTIME);
    flags | when(record.meta.extra.is_some(), flag::META_EXTRA)
}

fn when(condition: bool, flag: u32) -> u32 {
    if condition { flag } else { 0 }
}

fn put_entry(entry: &EntryValue, out: &mut Vec<u8>) {
    match &entry.content {
        EntryContent::Dir => {}
        EntryContent::Link(target) => put_text(target, out),
        EntryContent::File { size, sha256 } => {
            put_int(*size, out);
            out.extend_from_slice(&sha256.0);
        }
    }
    if let Some(mtime) = entry.mtime {
        put_time(mtime, out);
    }
    if let Some(source) = entry.conflict_source {
        out.extend_from_slice(&source.0);
    }
    if let Some(extra) = &entry.extra {
        put_text(extra, out);
    }
}

/// Reads what [`encode_record`] wrote, from the start of `bytes`; moves `bytes` behind it.
pub fn decode_record(bytes: &mut &[u8], peers: &PeerTable) -> Result<Record, Damaged> {
    if take::<1>(bytes)? != [VERSION] {
        return Err(Damaged);
    }
    let flags = u32::try_from(take_int(bytes)?).map_err(|_| Damaged)?;
    if flags >= flag::END {
        return Err(Damaged);
    }
    let has = |bit| flags & bit != 0;
    let uuid = Uuid(take(bytes)?);
    let key = take_text(bytes)?.into();
    let update = take_change(bytes, peers)?;
    let key_change = if has(flag::KEY) { take_change(bytes, peers)? } else { update };
    let mut part = |own, with_key| match (has(own), has(with_key)) {
        (true, _) => take_change(bytes, peers),
        (false, true) => Ok(key_change),
        (false, false) => Ok(update),
    };
    let value_change = part(flag::VALUE, flag::VALUE_AS_KEY)?;
    let meta_change = part(flag::META, flag::META_AS_KEY)?;
    let clock =
        if has(flag::CLOCK) { decode_clock(bytes, peers)? } else { Clock::of(update.peer, update.rev) };
    let value_clock = if has(flag::VALUE_CLOCK) { decode_clock(bytes, peers)? } else { clock.clone() };
    let deleted_clock = match (has(flag::DELETED_CLOCK), has(flag::DELETED_AS_CLOCK)) {
        (true, _) => decode_clock(bytes, peers)?,
        (false, true) => clock.clone(),
        (false, false) => Clock::new(),
    };
    let value = take_value(bytes, flags)?;
    let mode = |bytes: &mut &[u8]| u32::try_from(take_int(bytes)?).map_err(|_| Damaged);
    let meta = Meta {
        unix_mode: has(flag::MODE).then(|| mode(bytes)).transpose()?,
        mtime: has(flag::META_MTIME).then(|| take_time(bytes)).transpose()?,
        extra: has(flag::META_EXTRA).then(|| take_text(bytes)).transpose()?.map(Into::into),
    };
    Ok(Record {
        uuid,
        key,
        value,
        meta,
        clock,
        deleted_clock,
        value_clock,
        update,
        key_change,
        value_change,
        meta_change,
    })
}

fn take_value(bytes: &mut &[u8], flags: u32) -> Result<Value, Damaged> {
    let content = match flags & flag::KIND {
        flag::KIND_NULL => return Ok(Value::Null),
        flag::KIND_JSON => return Ok(Value::Json(take_text(bytes)?.into())),
        flag::KIND_DIR => EntryContent::Dir,
        flag::KIND_LINK => EntryContent::Link(String::from(take_text(bytes)?)),
        flag::KIND_FILE => EntryContent::File { size: take_int(bytes)?, sha256: Sha256(take(bytes)?) },
        _ => return Err(Damaged),
    };
    let has = |bit| flags & bit != 0;
    Ok(Value::Entry(EntryValue {
        content,
        mtime: has(flag::MTIME).then(|| take_time(bytes)).transpose()?,
        conflict_source: has(flag::CONFLICT_SOURCE).then(|| take(bytes)).transpose()?.map(Uuid),
        extra: has(flag::VALUE_EXTRA).then(|| take_text(bytes)).transpose()?.map(Into::into),
    }))
}

/// Appends a clock. Peers that the table lacks are added to it.
pub fn encode_clock(clock: &Clock, peers: &mut PeerTable, out: &mut Vec<u8>) {
    put_int(clock.len() as u64, out);
    for (peer, rev) in clock.iter() {
        put_int(u64::from(peers.number_of(peer)), out);
        put_int(rev, out);
    }
}

/// Reads what [`encode_clock`] wrote, from the start of `bytes`; moves `bytes` behind it.
pub fn decode_clock(bytes: &mut &[u8], peers: &PeerTable) -> Result<Clock, Damaged> {
    let count = usize::try_from(take_int(bytes)?).map_err(|_| Damaged)?;
    // An entry takes two bytes at least: what claims more entries than that is damaged, and no memory is taken.
    if count > bytes.len() / 2 {
        return Err(Damaged);
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push((take_peer(bytes, peers)?, take_int(bytes)?));
    }
    Clock::from_stored(entries).ok_or(Damaged)
}

fn put_change(change: &Change, peers: &mut PeerTable, out: &mut Vec<u8>) {
    put_time(change.time, out);
    put_int(u64::from(peers.number_of(change.peer)), out);
    put_int(change.rev, out);
}

fn take_change(bytes: &mut &[u8], peers: &PeerTable) -> Result<Change, Damaged> {
    Ok(Change { time: take_time(bytes)?, peer: take_peer(bytes, peers)?, rev: take_int(bytes)? })
}

fn take_peer(bytes: &mut &[u8], peers: &PeerTable) -> Result<PeerId, Damaged> {
    let number = u32::try_from(take_int(bytes)?).map_err(|_| Damaged)?;
    peers.get(number).ok_or(Damaged)
}

fn put_time(time: WallTime, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.0.to_le_bytes());
}

fn take_time(bytes: &mut &[u8]) -> Result<WallTime, Damaged> {
    Ok(WallTime(i64::from_le_bytes(take(bytes)?)))
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_int(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    let len = usize::try_from(take_int(bytes)?).map_err(|_| Damaged)?;
    let (text, rest) = bytes.split_at_checked(len).ok_or(Damaged)?;
    *bytes = rest;
    core::str::from_utf8(text).map_err(|_| Damaged)
}

/// Appends LEB128.
fn put_int(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        // The low seven bits fit a byte.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_int(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes)?;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(Damaged);
        }
        value |= part << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Damaged)?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::author::{delete, edit};
    use crate::index::testing::{any_record, author, clock, file, file_value, nth_peer, peer};
    use proptest::prelude::*;

    fn encoded(record: &Record, peers: &mut PeerTable) -> Vec<u8> {
        let mut out = Vec::new();
        encode_record(record, peers, &mut out);
        out
    }

    #[test]
    fn a_plain_file_is_small() {
        let mut peers = PeerTable::default();
        let mut me = author(1);
        me.rev = 100_000;
        let record = file(&mut me, "/directory/file", 1_000_000);
        let bytes = encoded(&record, &mut peers);
        // Digest, key, uuid, two times; version, flags, lengths, number, revision, size and mode take the rest.
        assert_eq!(bytes.len(), 32 + 15 + 16 + 8 + 8 + 12);
        let edited = edit(&mut me, &record, file_value(5), None).unwrap();
        let gone = delete(&mut me, &edited).unwrap();
        assert!(encoded(&gone, &mut peers).len() < 130);
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn peers_are_numbered_both_ways() {
        let mut table = PeerTable::default();
        assert!(table.is_empty());
        assert_eq!([peer(9), peer(3), peer(9)].map(|p| table.number_of(p)), [0, 1, 0]);
        assert_eq!((table.get(1), table.get(2), table.len()), (Some(peer(3)), None, 2));
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert_eq!(PeerTable::decode(&bytes), Ok(table));
        assert_eq!(PeerTable::decode(&bytes[..bytes.len() - 1]), Err(Damaged));
        bytes.extend_from_slice(&peer(9).0);
        assert_eq!(PeerTable::decode(&bytes), Err(Damaged));
        assert_eq!(PeerTable::decode(&[]), Err(Damaged));
        assert_eq!(PeerTable::decode(&[VERSION + 1]), Err(Damaged));
    }

    #[test]
    fn a_table_at_its_limit_and_past_it() {
        let mut table = PeerTable::default();
        for i in 0..TABLE_PEERS_MAX - 1 {
            table.number_of(nth_peer(i));
        }
        let record = file(&mut author(200), "/a", 1);
        assert!(table.admits(&record));
        table.number_of(peer(201));
        assert!(!table.admits(&record));
        assert!(table.admits(&file(&mut author(201), "/a", 1)));
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert!(PeerTable::decode(&bytes).is_ok());
        bytes.extend_from_slice(&peer(200).0);
        assert_eq!(PeerTable::decode(&bytes), Err(Damaged));
    }

    #[test]
    fn numbers_at_their_limits() {
        for value in [0, 0x7f, 0x80, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_int(value, &mut out);
            assert_eq!(take_int(&mut out.as_slice()), Ok(value));
        }
        let mut past = [0xff; 10];
        past[9] = 2;
        assert_eq!(take_int(&mut past.as_slice()), Err(Damaged));
        assert_eq!(take_int(&mut [0x80; 11].as_slice()), Err(Damaged));
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(any_record(), 1..4)) {
            let mut peers = PeerTable::default();
            let mut bytes = Vec::new();
            for record in &records {
                encode_record(record, &mut peers, &mut bytes);
            }
            let mut rest = bytes.as_slice();
            for record in &records {
                prop_assert_eq!(&decode_record(&mut rest, &peers).unwrap(), record);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn clocks_come_back(c in clock()) {
            let mut peers = PeerTable::default();
            let mut bytes = Vec::new();
            encode_clock(&c, &mut peers, &mut bytes);
            prop_assert_eq!(decode_clock(&mut bytes.as_slice(), &peers), Ok(c));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut peers = PeerTable::default();
            (0..5).for_each(|i| _ = peers.number_of(peer(i)));
            let _ = decode_record(&mut bytes.as_slice(), &peers);
            let _ = decode_clock(&mut bytes.as_slice(), &peers);
            let _ = PeerTable::decode(&bytes);
        }

        #[test]
        fn damage_is_survived(record in any_record(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut peers = PeerTable::default();
            let mut bytes = encoded(&record, &mut peers);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_record(&mut bytes.as_slice(), &peers);
            let good = encoded(&record, &mut peers);
            let cut = cut.index(good.len());
            prop_assert_eq!(decode_record(&mut &good[..cut], &peers), Err(Damaged));
        }
    }
}
