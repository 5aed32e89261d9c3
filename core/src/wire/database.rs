//! The messages of the database (protocol §7) as JSON. Reads and writes; every bound is checked here, nothing is
//! applied, stored or believed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::Malformed;
use crate::ids::{PeerId, Uuid};
use crate::index::canonical::{
    Text, Tree, meta_of, value_of, write_hex, write_int, write_meta, write_quoted_time, write_value,
};
use crate::index::check::check;
use crate::index::clock::{Clock, PEERS_MAX, REV_MAX};
use crate::index::digest::Digest;
use crate::index::knowledge::Resume;
use crate::index::record::{Change, Record};
use crate::time::WallTime;
use crate::wire::json;
use crate::wire::time::parse_time;

/// The largest body that is read as a message of this family. A record at all its limits with 4096 peers in each
/// clock stays below it: some 60 bytes an entry, six a byte where text is escaped.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// The most records in one `database.updates` (protocol §7).
pub const UPDATES_MAX: usize = 1000;

const PREFIX: &str = "database.";

/// A message of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseMessage {
    /// The peer subscribes and asks for what it lacks.
    GetUpdates {
        /// What it knows.
        since: Clock,
        /// Where a cut answer goes on.
        resume: Option<Resume>,
    },
    /// One record.
    Update {
        /// The version.
        record: Box<Record>,
        /// Where it stands in the sender's store.
        at: Option<Resume>,
    },
    /// Several records, in the order of the sender's store. In CBOR alone: in JSON each goes by itself.
    Updates {
        /// The versions; 1 to [`UPDATES_MAX`].
        records: Vec<Record>,
        /// Where the last stands in the sender's store.
        at: Option<Resume>,
    },
    /// The answer to `GetUpdates` is complete.
    Current {
        /// What the sender knew when it began to answer.
        knowledge: Clock,
    },
    /// The sender's knowledge has grown; every record that it covers was sent.
    Knowledge {
        /// All of it.
        knowledge: Clock,
    },
    /// Whether the sender goes through its folder for the first time since it began: more may come than it knows of.
    Looking {
        /// Whether it does so still.
        looking: bool,
    },
    /// The sum over all records that the sender holds, after it has sent all of them and said what it knows.
    Digest {
        /// The sum.
        digest: Digest,
    },
    /// A message of this family that this version does not know; to be ignored.
    Unknown,
}

impl DatabaseMessage {
    /// Whether a message of this type belongs to this family.
    pub fn is(type_name: &str) -> bool {
        type_name.starts_with(PREFIX)
    }

    /// Reads a body whose member `type` is `type_name`. The error names the rule that it breaks.
    ///
    /// The message layer has run [`json::check`] over the body. Without that, only the members that are ignored here
    /// would go unchecked.
    pub fn read(type_name: &str, body: &[u8]) -> Result<DatabaseMessage, Malformed> {
        let name = type_name.strip_prefix(PREFIX).unwrap_or_default();
        if !matches!(name, "get_updates" | "update" | "current" | "knowledge" | "looking" | "digest") {
            return Ok(DatabaseMessage::Unknown);
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(Malformed("database: message too long"));
        }
        match name {
            "get_updates" => {
                let message: GetUpdatesIn<'_> = shaped(
                    body,
                    "database.get_updates: a member is missing, too large or of the wrong type",
                )?;
                let resume = message.resume.map(|at| resume(&at)).transpose()?;
                Ok(DatabaseMessage::GetUpdates { since: message.since.checked()?, resume })
            }
            "update" => {
                let message: UpdateIn<'_> =
                    shaped(body, "database.update: a member is missing, too large or of the wrong type")?;
                let (record, at) = message.checked()?;
                Ok(DatabaseMessage::Update { record: Box::new(record), at })
            }
            "looking" => {
                let message: LookingIn =
                    shaped(body, "database.looking: `looking` is missing, or neither true nor false")?;
                Ok(DatabaseMessage::Looking { looking: message.looking })
            }
            "digest" => {
                let wrong = "database.digest: `digest` is missing, or not 32 digits of lowercase hex";
                let message: DigestIn<'_> = shaped(body, wrong)?;
                let digest = Uuid::from_hex(&message.digest.0).ok_or(Malformed(wrong))?;
                Ok(DatabaseMessage::Digest { digest: Digest::from_bytes(digest.0) })
            }
            name => {
                let message: KnowledgeIn =
                    shaped(body, "database.knowledge: a member is missing, too large or of the wrong type")?;
                let knowledge = message.knowledge.checked()?;
                Ok(if name == "current" {
                    DatabaseMessage::Current { knowledge }
                } else {
                    DatabaseMessage::Knowledge { knowledge }
                })
            }
        }
    }

    /// Appends the whole body. Nothing is appended for [`DatabaseMessage::Unknown`], nor for what has no form in JSON,
    /// [`DatabaseMessage::Updates`].
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            DatabaseMessage::GetUpdates { since, resume } => {
                out.extend_from_slice(br#"{"type":"database.get_updates","since":"#);
                write_clock(since, out);
                if let Some(at) = resume {
                    out.extend_from_slice(br#","resume":"#);
                    write_resume(at, out);
                }
                out.push(b'}');
            }
            DatabaseMessage::Update { record, at } => write_update(record, *at, out),
            DatabaseMessage::Current { knowledge } => {
                out.extend_from_slice(br#"{"type":"database.current","knowledge":"#);
                write_clock(knowledge, out);
                out.push(b'}');
            }
            DatabaseMessage::Knowledge { knowledge } => {
                out.extend_from_slice(br#"{"type":"database.knowledge","knowledge":"#);
                write_clock(knowledge, out);
                out.push(b'}');
            }
            DatabaseMessage::Looking { looking } => {
                out.extend_from_slice(br#"{"type":"database.looking","looking":"#);
                out.extend_from_slice(if *looking { b"true}" } else { b"false}" });
            }
            DatabaseMessage::Digest { digest } => {
                out.extend_from_slice(br#"{"type":"database.digest","digest":"#);
                write_hex(&digest.to_bytes(), out);
                out.push(b'}');
            }
            DatabaseMessage::Updates { .. } | DatabaseMessage::Unknown => {}
        }
    }
}

/// Appends the whole body of a `database.update`.
pub fn write_update(record: &Record, at: Option<Resume>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"database.update","uuid":"#);
    write_hex(&record.uuid.0, out);
    out.extend_from_slice(br#","key":"#);
    json::write_str(&record.key, out);
    out.extend_from_slice(br#","value":"#);
    write_value(&record.value, out);
    if !record.meta.is_default() {
        out.extend_from_slice(br#","meta":"#);
        write_meta(&record.meta, out);
    }
    let deleted: &[u8] = if record.deleted() { br#","deleted":true"# } else { br#","deleted":false"# };
    out.extend_from_slice(deleted);
    out.extend_from_slice(br#","last_updated_by":"#);
    write_hex(&record.update.peer.0, out);
    out.extend_from_slice(br#","last_updated_rev":"#);
    write_int(record.update.rev, out);
    out.extend_from_slice(br#","update_time":"#);
    write_quoted_time(record.update.time, out);
    out.extend_from_slice(br#","vector_clock":"#);
    write_clock(&record.clock, out);
    let changes: [(&[u8], &Change); 3] = [
        (br#","key_change":"#, &record.key_change),
        (br#","value_change":"#, &record.value_change),
        (br#","meta_change":"#, &record.meta_change),
    ];
    for (name, change) in changes {
        if *change != record.update {
            out.extend_from_slice(name);
            write_change(change, out);
        }
    }
    if record.value_clock != record.clock {
        out.extend_from_slice(br#","value_clock":"#);
        write_clock(&record.value_clock, out);
    }
    if !record.deleted_clock.is_empty() {
        out.extend_from_slice(br#","deleted_clock":"#);
        write_clock(&record.deleted_clock, out);
    }
    if let Some(at) = at {
        out.extend_from_slice(br#","at":"#);
        write_resume(&at, out);
    }
    out.push(b'}');
}

fn write_clock(clock: &Clock, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (peer, rev)) in clock.iter().enumerate() {
        if at != 0 {
            out.push(b',');
        }
        write_hex(&peer.0, out);
        out.push(b':');
        write_int(rev, out);
    }
    out.push(b'}');
}

fn write_change(change: &Change, out: &mut Vec<u8>) {
    out.push(b'[');
    write_quoted_time(change.time, out);
    out.push(b',');
    write_hex(&change.peer.0, out);
    out.push(b',');
    write_int(change.rev, out);
    out.push(b']');
}

fn write_resume(at: &Resume, out: &mut Vec<u8>) {
    out.push(b'[');
    write_hex(&at.token, out);
    out.push(b',');
    write_int(at.arrival, out);
    out.push(b']');
}

#[derive(Deserialize)]
struct GetUpdatesIn<'a> {
    since: ClockIn,
    #[serde(borrow)]
    resume: Option<ResumeIn<'a>>,
}

#[derive(Deserialize)]
struct KnowledgeIn {
    knowledge: ClockIn,
}

#[derive(Deserialize)]
struct DigestIn<'a> {
    #[serde(borrow)]
    digest: Text<'a>,
}

#[derive(Deserialize)]
struct LookingIn {
    looking: bool,
}

#[derive(Deserialize)]
struct UpdateIn<'a> {
    #[serde(borrow)]
    uuid: Text<'a>,
    key: Text<'a>,
    #[serde(default)]
    value: Tree<'a>,
    #[serde(default)]
    meta: Tree<'a>,
    deleted: Option<bool>,
    last_updated_by: Text<'a>,
    last_updated_rev: u64,
    update_time: Text<'a>,
    vector_clock: ClockIn,
    key_change: Option<ChangeIn<'a>>,
    value_change: Option<ChangeIn<'a>>,
    meta_change: Option<ChangeIn<'a>>,
    value_clock: Option<ClockIn>,
    deleted_clock: Option<ClockIn>,
    at: Option<ResumeIn<'a>>,
}

/// `[time, peer, revision]`.
#[derive(Deserialize)]
struct ChangeIn<'a>(#[serde(borrow)] Text<'a>, Text<'a>, u64);

/// `[store token, arrival number]`.
#[derive(Deserialize)]
struct ResumeIn<'a>(#[serde(borrow)] Text<'a>, u64);

impl UpdateIn<'_> {
    fn checked(self) -> Result<(Record, Option<Resume>), Malformed> {
        let update = Change {
            time: time(&self.update_time)?,
            peer: peer(&self.last_updated_by)?,
            rev: self.last_updated_rev,
        };
        let part = |part: Option<ChangeIn<'_>>| part.map_or(Ok(update), |c| change(&c));
        let clock = self.vector_clock.checked()?;
        let record = Record {
            uuid: Uuid::from_hex(&self.uuid.0).ok_or(Malformed("record: uuid is not 16 bytes of hex"))?,
            key: self.key.0.into_owned(),
            value: value_of(self.value),
            meta: meta_of(self.meta)?,
            value_clock: self.value_clock.map_or_else(|| Ok(clock.clone()), ClockIn::checked)?,
            deleted_clock: self.deleted_clock.map_or_else(|| Ok(Clock::new()), ClockIn::checked)?,
            clock,
            update,
            key_change: part(self.key_change)?,
            value_change: part(self.value_change)?,
            meta_change: part(self.meta_change)?,
        };
        check(&record)?;
        if self.deleted.is_some_and(|deleted| deleted != record.deleted()) {
            return Err(Malformed("record: deleted contradicts its clocks"));
        }
        let at = self.at.map(|at| resume(&at)).transpose()?;
        Ok((record, at))
    }
}

fn shaped<'a, T: Deserialize<'a>>(body: &'a [u8], otherwise: &'static str) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|_| Malformed(otherwise))
}

fn time(text: &Text<'_>) -> Result<WallTime, Malformed> {
    parse_time(&text.0).ok_or(Malformed("record: not a time"))
}

fn peer(text: &Text<'_>) -> Result<PeerId, Malformed> {
    PeerId::from_hex(&text.0).ok_or(Malformed("record: peer is not 16 bytes of hex"))
}

fn change(ChangeIn(at, by, rev): &ChangeIn<'_>) -> Result<Change, Malformed> {
    Ok(Change { time: time(at)?, peer: peer(by)?, rev: *rev })
}

fn resume(ResumeIn(token, arrival): &ResumeIn<'_>) -> Result<Resume, Malformed> {
    let token = Uuid::from_hex(&token.0).ok_or(Malformed("database: store token is not 16 bytes of hex"))?;
    Ok(Resume { token: token.0, arrival: *arrival })
}

/// A clock, or why it is none: the parser's own errors could not say it.
struct ClockIn(Result<Clock, Malformed>);

impl ClockIn {
    fn checked(self) -> Result<Clock, Malformed> {
        self.0
    }
}

impl<'de> Deserialize<'de> for ClockIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClockIn, D::Error> {
        deserializer.deserialize_map(ClockVisitor).map(ClockIn)
    }
}

struct ClockVisitor;

impl<'de> Visitor<'de> for ClockVisitor {
    type Value = Result<Clock, Malformed>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a clock")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        let mut fault = None;
        while let Some((name, rev)) = map.next_entry::<Text<'de>, u64>()? {
            fault = match PeerId::from_hex(&name.0) {
                None => Some("clock: peer is not 16 bytes of hex"),
                Some(_) if rev > REV_MAX => Some("clock: revision out of range"),
                Some(_) if pairs.len() == PEERS_MAX => Some("clock: too many peers"),
                // A missing entry is 0, so that one says nothing.
                Some(_) if rev == 0 => None,
                Some(peer) => {
                    pairs.push((peer, rev));
                    None
                }
            };
            if fault.is_some() {
                break;
            }
        }
        // What is left has to be read past, or the parser takes it for its own error.
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        let clock = match fault {
            Some(fault) => Err(Malformed(fault)),
            None => Clock::from_pairs(pairs).ok_or(Malformed("clock: a peer twice")),
        };
        Ok(clock)
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
