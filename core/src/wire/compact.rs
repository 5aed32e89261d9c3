//! The messages of the database and of the directory in CBOR (protocol §6): the same members as in JSON, with ids and
//! digests as byte strings, times as nanoseconds, and what nobody here understands as a text of JSON. Reads and writes;
//! every bound is checked here, nothing is applied, stored or believed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::Malformed;
use crate::ids::{PeerId, Sha256, Uuid};
use crate::index::canonical::{ENTRY_MEMBERS, META_MEMBERS, Text, extra_from_json};
use crate::index::check::{META_BYTES_MAX, VALUE_BYTES_MAX, check};
use crate::index::clock::{Clock, PEERS_MAX};
use crate::index::digest::Digest;
use crate::index::knowledge::Resume;
use crate::index::record::{Change, EntryContent, EntryValue, Meta, Record, Value};
use crate::time::WallTime;
use crate::wire::cbor::{
    Bytes, Later, decode, write_array, write_bool, write_bytes, write_i64, write_map, write_null, write_text,
    write_u64,
};
use crate::wire::database::{DatabaseMessage, UPDATES_MAX};
use crate::wire::directory::{DirectoryMessage, Members};
use crate::wire::json;

/// A batch of records takes no more of them once its body has so many bytes, some 16 records: what stands around them
/// is little then, a reader has the first while the last are written, and a slow link that breaks has told the earlier.
pub const UPDATES_BYTES: usize = 4 << 10;

/// What stands around a text of JSON where it is sent in JSON: the body.
const DEPTH_AROUND: u32 = 1;

/// Reads a body of the database's that passed the check of [`cbor`](crate::wire::cbor) and whose type is `type_name`.
pub(crate) fn read_database(type_name: &str, body: &[u8]) -> Result<DatabaseMessage, Malformed> {
    Ok(match type_name {
        "database.get_updates" => {
            let message: GetUpdatesIn =
                decode(body, "database.get_updates: a member is missing, too large or of the wrong type")?;
            DatabaseMessage::GetUpdates { since: message.since.0, resume: message.resume.map(Resume::from) }
        }
        "database.update" => {
            let message: RecordIn<'_> =
                decode(body, "database.update: a member is missing, too large or of the wrong type")?;
            let (record, at) = message.checked()?;
            DatabaseMessage::Update { record: Box::new(record), at }
        }
        "database.updates" => {
            let message: UpdatesIn =
                decode(body, "database.updates: a member is missing, too large or of the wrong type")?;
            DatabaseMessage::Updates { records: message.records.0?, at: message.at.map(Resume::from) }
        }
        "database.current" | "database.knowledge" => {
            let message: KnowledgeIn =
                decode(body, "database.knowledge: a member is missing, too large or of the wrong type")?;
            let knowledge = message.knowledge.0;
            if type_name == "database.current" {
                DatabaseMessage::Current { knowledge }
            } else {
                DatabaseMessage::Knowledge { knowledge }
            }
        }
        "database.looking" => {
            let message: LookingIn =
                decode(body, "database.looking: `looking` is missing, or neither true nor false")?;
            DatabaseMessage::Looking { looking: message.looking }
        }
        "database.digest" => {
            let message: DigestIn = decode(body, "database.digest: `digest` is missing, or not 16 bytes")?;
            DatabaseMessage::Digest { digest: Digest::from_bytes(message.digest.0) }
        }
        _ => DatabaseMessage::Unknown,
    })
}

/// Appends the body of a message of the database. Nothing is appended for [`DatabaseMessage::Unknown`].
pub(crate) fn write_database(message: &DatabaseMessage, out: &mut Vec<u8>) {
    match message {
        DatabaseMessage::GetUpdates { since, resume } => {
            begin("database.get_updates", 1 + usize::from(resume.is_some()), out);
            write_text("since", out);
            write_clock(since, out);
            write_resume("resume", *resume, out);
        }
        DatabaseMessage::Update { record, at } => {
            let members = Later::map(out);
            write_text("type", out);
            write_text("database.update", out);
            let written = write_members(record, out);
            write_resume("at", *at, out);
            members.set(1 + written + u16::from(at.is_some()), out);
        }
        DatabaseMessage::Updates { records, at } => {
            begin("database.updates", 1 + usize::from(at.is_some()), out);
            write_text("records", out);
            write_array(records.len(), out);
            records.iter().for_each(|record| write_record(record, out));
            write_resume("at", *at, out);
        }
        DatabaseMessage::Current { knowledge } => write_knowledge("database.current", knowledge, out),
        DatabaseMessage::Knowledge { knowledge } => write_knowledge("database.knowledge", knowledge, out),
        DatabaseMessage::Looking { looking } => {
            begin("database.looking", 1, out);
            write_text("looking", out);
            write_bool(*looking, out);
        }
        DatabaseMessage::Digest { digest } => {
            begin("database.digest", 1, out);
            write_text("digest", out);
            write_bytes(&digest.to_bytes(), out);
        }
        DatabaseMessage::Unknown => {}
    }
}

/// Appends the body of a `database.updates` with as many of `records`, from the first, as belong into one; returns how
/// many these are. `at` goes with the last of all.
pub(crate) fn write_updates(records: &[&Record], at: Option<Resume>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let members = Later::map(out);
    write_text("type", out);
    write_text("database.updates", out);
    write_text("records", out);
    let length = Later::array(out);
    let mut count = 0;
    for record in records.iter().take(UPDATES_MAX) {
        if out.len() - start >= UPDATES_BYTES {
            break;
        }
        write_record(record, out);
        count += 1;
    }
    // At most UPDATES_MAX, so it fits.
    length.set(count as u16, out);
    let at = at.filter(|_| count == records.len());
    write_resume("at", at, out);
    members.set(2 + u16::from(at.is_some()), out);
    count
}

fn begin(type_name: &str, others: usize, out: &mut Vec<u8>) {
    write_map(1 + others, out);
    write_text("type", out);
    write_text(type_name, out);
}

fn write_knowledge(type_name: &str, knowledge: &Clock, out: &mut Vec<u8>) {
    begin(type_name, 1, out);
    write_text("knowledge", out);
    write_clock(knowledge, out);
}

fn write_record(record: &Record, out: &mut Vec<u8>) {
    let members = Later::map(out);
    let written = write_members(record, out);
    members.set(written, out);
}

/// Appends a record's members; returns how many.
fn write_members(record: &Record, out: &mut Vec<u8>) -> u16 {
    let mut written = 7;
    write_text("uuid", out);
    write_bytes(&record.uuid.0, out);
    write_text("key", out);
    write_text(&record.key, out);
    write_text("value", out);
    write_value(&record.value, out);
    if !record.meta.is_default() {
        written += 1;
        write_text("meta", out);
        write_meta(&record.meta, out);
    }
    write_text("last_updated_by", out);
    write_bytes(&record.update.peer.0, out);
    write_text("last_updated_rev", out);
    write_u64(record.update.rev, out);
    write_text("update_time", out);
    write_i64(record.update.time.0, out);
    write_text("vector_clock", out);
    write_clock(&record.clock, out);
    let changes = [
        ("key_change", &record.key_change),
        ("value_change", &record.value_change),
        ("meta_change", &record.meta_change),
    ];
    for (name, change) in changes {
        if *change != record.update {
            written += 1;
            write_text(name, out);
            write_array(3, out);
            write_i64(change.time.0, out);
            write_bytes(&change.peer.0, out);
            write_u64(change.rev, out);
        }
    }
    if record.value_clock != record.clock {
        written += 1;
        write_text("value_clock", out);
        write_clock(&record.value_clock, out);
    }
    if !record.deleted_clock.is_empty() {
        written += 1;
        write_text("deleted_clock", out);
        write_clock(&record.deleted_clock, out);
    }
    written
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => write_null(out),
        Value::Json(json) => write_text(json, out),
        Value::Entry(entry) => write_entry(entry, out),
    }
}

fn write_entry(entry: &EntryValue, out: &mut Vec<u8>) {
    let of_content = match entry.content {
        EntryContent::Dir => 0,
        EntryContent::Link(_) => 1,
        EntryContent::File { .. } => 2,
    };
    let others = [entry.mtime.is_some(), entry.conflict_source.is_some(), entry.extra.is_some()];
    write_map(of_content + others.into_iter().filter(|there| *there).count(), out);
    match &entry.content {
        EntryContent::Dir => {}
        EntryContent::Link(target) => {
            write_text("link", out);
            write_text(target, out);
        }
        EntryContent::File { size, sha256 } => {
            write_text("size", out);
            write_u64(*size, out);
            write_text("sha256", out);
            write_bytes(&sha256.0, out);
        }
    }
    write_time(entry.mtime, out);
    if let Some(source) = entry.conflict_source {
        write_text("conflict_source", out);
        write_bytes(&source.0, out);
    }
    write_extra(entry.extra.as_deref(), out);
}

fn write_meta(meta: &Meta, out: &mut Vec<u8>) {
    let members = [meta.unix_mode.is_some(), meta.mtime.is_some(), meta.extra.is_some()];
    write_map(members.into_iter().filter(|there| *there).count(), out);
    if let Some(mode) = meta.unix_mode {
        write_text("unix_mode", out);
        write_u64(u64::from(mode), out);
    }
    write_time(meta.mtime, out);
    write_extra(meta.extra.as_deref(), out);
}

fn write_time(mtime: Option<WallTime>, out: &mut Vec<u8>) {
    if let Some(mtime) = mtime {
        write_text("mtime", out);
        write_i64(mtime.0, out);
    }
}

fn write_extra(extra: Option<&str>, out: &mut Vec<u8>) {
    if let Some(extra) = extra {
        write_text("extra", out);
        write_text(extra, out);
    }
}

fn write_clock(clock: &Clock, out: &mut Vec<u8>) {
    write_map(clock.iter().len(), out);
    for (peer, rev) in clock.iter() {
        write_bytes(&peer.0, out);
        write_u64(rev, out);
    }
}

fn write_resume(name: &str, at: Option<Resume>, out: &mut Vec<u8>) {
    if let Some(at) = at {
        write_text(name, out);
        write_array(2, out);
        write_bytes(&at.token, out);
        write_u64(at.arrival, out);
    }
}

#[derive(Deserialize)]
struct GetUpdatesIn {
    since: ClockIn,
    resume: Option<ResumeIn>,
}

#[derive(Deserialize)]
struct KnowledgeIn {
    knowledge: ClockIn,
}

#[derive(Deserialize)]
struct LookingIn {
    looking: bool,
}

#[derive(Deserialize)]
struct DigestIn {
    digest: Bytes<16>,
}

#[derive(Deserialize)]
struct UpdatesIn {
    records: RecordsIn,
    at: Option<ResumeIn>,
}

/// `[store token, arrival number]`.
#[derive(Deserialize)]
struct ResumeIn(Bytes<16>, u64);

impl From<ResumeIn> for Resume {
    fn from(ResumeIn(token, arrival): ResumeIn) -> Resume {
        Resume { token: token.0, arrival }
    }
}

/// `[time, peer, revision]`.
#[derive(Deserialize)]
struct ChangeIn(i64, Bytes<16>, u64);

#[derive(Deserialize)]
struct RecordIn<'a> {
    uuid: Bytes<16>,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(default)]
    value: ValueIn<'a>,
    #[serde(default)]
    meta: MetaIn<'a>,
    deleted: Option<bool>,
    last_updated_by: Bytes<16>,
    last_updated_rev: u64,
    update_time: i64,
    vector_clock: ClockIn,
    key_change: Option<ChangeIn>,
    value_change: Option<ChangeIn>,
    meta_change: Option<ChangeIn>,
    value_clock: Option<ClockIn>,
    deleted_clock: Option<ClockIn>,
    at: Option<ResumeIn>,
}

/// A directory's value. What it does not know stands in `extra`: so nothing that came is dropped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryIn<'a> {
    size: Option<u64>,
    sha256: Option<Bytes<32>>,
    #[serde(borrow)]
    link: Option<Text<'a>>,
    mtime: Option<i64>,
    conflict_source: Option<Bytes<16>>,
    extra: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MetaIn<'a> {
    unix_mode: Option<u32>,
    mtime: Option<i64>,
    #[serde(borrow)]
    extra: Option<Text<'a>>,
}

#[derive(Default)]
enum ValueIn<'a> {
    #[default]
    Null,
    Json(Text<'a>),
    Entry(EntryIn<'a>),
}

impl RecordIn<'_> {
    fn checked(self) -> Result<(Record, Option<Resume>), Malformed> {
        let update = Change {
            time: WallTime(self.update_time),
            peer: PeerId(self.last_updated_by.0),
            rev: self.last_updated_rev,
        };
        let part = |part: Option<ChangeIn>| {
            part.map_or(update, |ChangeIn(time, peer, rev)| Change {
                time: WallTime(time),
                peer: PeerId(peer.0),
                rev,
            })
        };
        let clock = self.vector_clock.0;
        let record = Record {
            uuid: Uuid(self.uuid.0),
            key: self.key.0.into_owned(),
            value: self.value.checked()?,
            meta: self.meta.checked()?,
            value_clock: self.value_clock.map_or_else(|| clock.clone(), |clock| clock.0),
            deleted_clock: self.deleted_clock.map_or_else(Clock::new, |clock| clock.0),
            clock,
            update,
            key_change: part(self.key_change),
            value_change: part(self.value_change),
            meta_change: part(self.meta_change),
        };
        check(&record)?;
        if self.deleted.is_some_and(|deleted| deleted != record.deleted()) {
            return Err(Malformed("record: deleted contradicts its clocks"));
        }
        Ok((record, self.at.map(Resume::from)))
    }
}

impl ValueIn<'_> {
    fn checked(self) -> Result<Value, Malformed> {
        let entry = match self {
            ValueIn::Null => return Ok(Value::Null),
            ValueIn::Json(text) if text.0.len() > VALUE_BYTES_MAX => {
                return Err(Malformed("record: value too long"));
            }
            ValueIn::Json(text) => {
                json::check_within(text.0.as_bytes(), DEPTH_AROUND)?;
                return Value::from_json(text.0.as_bytes());
            }
            ValueIn::Entry(entry) => entry,
        };
        let content = match (entry.size, entry.sha256, entry.link) {
            (None, None, None) => EntryContent::Dir,
            (None, None, Some(target)) => EntryContent::Link(target.0.into_owned()),
            (Some(size), Some(sha256), None) => EntryContent::File { size, sha256: Sha256(sha256.0) },
            _ => return Err(Malformed("value: neither a directory, nor a link, nor a file")),
        };
        Ok(Value::Entry(EntryValue {
            content,
            mtime: entry.mtime.map(WallTime),
            conflict_source: entry.conflict_source.map(|source| Uuid(source.0)),
            extra: extra(entry.extra, VALUE_BYTES_MAX, &ENTRY_MEMBERS)?,
        }))
    }
}

impl MetaIn<'_> {
    fn checked(self) -> Result<Meta, Malformed> {
        let extra = extra(self.extra, META_BYTES_MAX, &META_MEMBERS)?;
        Ok(Meta { unix_mode: self.unix_mode, mtime: self.mtime.map(WallTime), extra })
    }
}

/// Reads the members that nobody here understands.
fn extra(text: Option<Text<'_>>, max: usize, known: &[&str]) -> Result<Option<Box<str>>, Malformed> {
    let Some(Text(text)) = text else { return Ok(None) };
    if text.len() > max {
        return Err(Malformed("record: more unknown members than allowed"));
    }
    json::check_within(text.as_bytes(), DEPTH_AROUND)?;
    extra_from_json(text.as_bytes(), known).map(Some)
}

impl<'de: 'a, 'a> Deserialize<'de> for ValueIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = ValueIn<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map, a text or null")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(ValueIn::Null)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(ValueIn::Json(Text(text.into())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                EntryIn::deserialize(MapAccessDeserializer::new(map)).map(ValueIn::Entry)
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ClockIn(Clock);

impl<'de> Deserialize<'de> for ClockIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClockIn, D::Error> {
        struct ClockVisitor;
        impl<'de> Visitor<'de> for ClockVisitor {
            type Value = ClockIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a clock")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((peer, rev)) = map.next_entry::<Bytes<16>, u64>()? {
                    // A missing entry is 0, so that one says nothing.
                    if rev == 0 {
                        continue;
                    }
                    if pairs.len() == PEERS_MAX {
                        return Err(A::Error::custom("too many peers"));
                    }
                    pairs.push((PeerId(peer.0), rev));
                }
                let clock = Clock::from_pairs(pairs).ok_or_else(|| A::Error::custom("no clock"))?;
                Ok(ClockIn(clock))
            }
        }
        deserializer.deserialize_map(ClockVisitor)
    }
}

/// Records, or the first rule that one breaks: the decoder's own errors could not say it.
struct RecordsIn(Result<Vec<Record>, Malformed>);

impl<'de> Deserialize<'de> for RecordsIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RecordsIn, D::Error> {
        struct RecordsVisitor;
        impl<'de> Visitor<'de> for RecordsVisitor {
            type Value = RecordsIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 to {UPDATES_MAX} records")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut records, mut fault) = (Vec::new(), None);
                // What follows a fault has to be read past, or the decoder takes it for its own error.
                while let Some(record) = seq.next_element::<RecordIn<'de>>()? {
                    if records.len() == UPDATES_MAX {
                        return Err(A::Error::custom("too many records"));
                    }
                    match record.checked() {
                        _ if fault.is_some() => {}
                        Ok((_, Some(_))) => fault = Some(Malformed("database.updates: a record with `at`")),
                        Ok((record, None)) => records.push(record),
                        Err(broken) => fault = Some(broken),
                    }
                }
                if records.is_empty() && fault.is_none() {
                    return Err(A::Error::custom("no records"));
                }
                Ok(RecordsIn(fault.map_or(Ok(records), Err)))
            }
        }
        deserializer.deserialize_seq(RecordsVisitor)
    }
}

#[derive(Deserialize)]
struct DirectoryIn<'a> {
    sha256: Option<Bytes<32>>,
    range: Option<(u64, u64)>,
    k_value: Option<u32>,
    #[serde(borrow)]
    code: Option<Text<'a>>,
}

/// Reads a body of the directory's that passed the same check and whose type is `type_name`.
pub(crate) fn read_directory(type_name: &str, body: &[u8]) -> Result<DirectoryMessage, Malformed> {
    let members: DirectoryIn<'_> = decode(body, "a directory message with a member of the wrong type")?;
    let range = members.range;
    if range.is_some_and(|(start, length)| start.checked_add(length).is_none()) {
        return Err(Malformed("a range that is not [start, length]"));
    }
    let sha256 = members.sha256.map(|digest| Sha256(digest.0));
    let (k_value, code) = (members.k_value, members.code.map(|code| code.0));
    Members { sha256, range, k_value, code }.into_message(type_name)
}

/// Appends the body of a message of the directory.
pub(crate) fn write_directory(message: &DirectoryMessage, out: &mut Vec<u8>) {
    let (sha256, range, others) = match message {
        DirectoryMessage::GetPresence => (None, None, 0),
        DirectoryMessage::BloomFilter { .. } => (None, None, 1),
        DirectoryMessage::Present { sha256 } | DirectoryMessage::NotPresent { sha256 } => {
            (Some(sha256), None, 1)
        }
        DirectoryMessage::Get { sha256, range } => (Some(sha256), *range, 1 + usize::from(range.is_some())),
        DirectoryMessage::Data { sha256, range } => (Some(sha256), Some(*range), 2),
        DirectoryMessage::GetError { sha256, .. } => (Some(sha256), None, 2),
    };
    begin(message.type_name(), others, out);
    if let Some(sha256) = sha256 {
        write_text("sha256", out);
        write_bytes(&sha256.0, out);
    }
    if let Some((start, length)) = range {
        write_text("range", out);
        write_array(2, out);
        write_u64(start, out);
        write_u64(length, out);
    }
    match message {
        DirectoryMessage::BloomFilter { k_value } => {
            write_text("k_value", out);
            write_u64(u64::from(*k_value), out);
        }
        DirectoryMessage::GetError { code, .. } => {
            write_text("code", out);
            write_text(code, out);
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
