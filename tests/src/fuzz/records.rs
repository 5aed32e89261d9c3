//! Records: as messages, as they lie in the store, and as they join (protocol §7).

use clearskies_core::ids::{PeerId, Uuid};
use clearskies_core::index::check::{check, check_limits};
use clearskies_core::index::codec::{PeerTable, decode_clock, decode_record, encode_clock, encode_record};
use clearskies_core::index::merge::{conflicts, join, merge, shown};
use clearskies_core::index::record::{Meta, Record, Value};
use clearskies_core::index::{canonical::write_meta, canonical::write_value, clock::Clock};
use clearskies_core::wire::database::{BODY_BYTES_MAX, DatabaseMessage, UPDATES_MAX, write_update};
use clearskies_core::wire::message::{Encoding, Message};

/// The types of messages with records or clocks in them.
const TYPES: [&str; 4] =
    ["database.update", "database.get_updates", "database.current", "database.knowledge"];
/// So many versions of one record are joined with each other.
const VERSIONS_MAX: usize = 6;

/// Each line is tried as a message of each type, as a canonical text, and as a stored form; the records found so are
/// versions of one record that join to the same in any order.
pub fn records(bytes: &[u8]) {
    let mut versions: Vec<Record> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        for name in TYPES {
            versions.extend(message(name, line));
        }
        canonical(line);
        versions.extend(stored(line));
    }
    versions.extend(in_cbor(bytes));
    stored(bytes);
    versions.truncate(VERSIONS_MAX);
    versions.iter_mut().for_each(|version| version.uuid = Uuid([7; 16]));
    joined(&versions);
}

fn message(name: &str, body: &[u8]) -> Option<Record> {
    let message = DatabaseMessage::read(name, body).ok()?;
    assert!(body.len() <= BODY_BYTES_MAX);
    let mut text = Vec::new();
    message.write(&mut text);
    let again = DatabaseMessage::read(name, &text);
    assert_eq!(again.as_ref(), Ok(&message), "{}", String::from_utf8_lossy(&text));
    match message {
        DatabaseMessage::Update { record, at } => {
            assert_eq!(check(&record), Ok(()));
            let mut update = Vec::new();
            write_update(&record, at, &mut update);
            assert_eq!(update, text);
            compact(&record);
            Some(*record)
        }
        DatabaseMessage::Current { knowledge } | DatabaseMessage::Knowledge { knowledge } => {
            clock(&knowledge);
            None
        }
        DatabaseMessage::GetUpdates { since, .. } => {
            clock(&since);
            None
        }
        DatabaseMessage::Updates { .. } => unreachable!("JSON has no form for it"),
        DatabaseMessage::Looking { .. } | DatabaseMessage::Digest { .. } | DatabaseMessage::Unknown => None,
    }
}

/// The records of a message in CBOR: each is the same through JSON, and in what is written anew.
fn in_cbor(body: &[u8]) -> Vec<Record> {
    if body.first() == Some(&b'{') {
        return Vec::new();
    }
    let Ok(message) = Message::read(body.to_vec(), None, false) else { return Vec::new() };
    let mut again = Vec::new();
    message.write_in(Encoding::Cbor, &mut again);
    let Message::Database(message) = message else { return Vec::new() };
    let records = match message {
        DatabaseMessage::Update { ref record, .. } => vec![(**record).clone()],
        DatabaseMessage::Updates { ref records, .. } => records.clone(),
        _ => return Vec::new(),
    };
    assert!(!records.is_empty() && records.len() <= UPDATES_MAX);
    let again = Message::read(again, None, false);
    assert!(matches!(again, Ok(Message::Database(again)) if again == message), "written it is another");
    for record in &records {
        let mut text = Vec::new();
        write_update(record, None, &mut text);
        let single = message_of_update(&text);
        assert_eq!(single.as_ref(), Some(record), "{}", String::from_utf8_lossy(&text));
    }
    records
}

fn message_of_update(text: &[u8]) -> Option<Record> {
    match Message::read(text.to_vec(), None, false).ok()? {
        Message::Database(DatabaseMessage::Update { record, .. }) => Some(*record),
        _ => None,
    }
}

fn clock(clock: &Clock) {
    assert!(clock.fits());
    let mut peers = PeerTable::default();
    let mut bytes = Vec::new();
    encode_clock(clock, &mut peers, &mut bytes);
    assert_eq!(decode_clock(&mut bytes.as_slice(), &peers).as_ref(), Ok(clock));
    assert!(clock.covers(clock) && !clock.concurrent(clock));
}

/// What is stored is read as it was; the table that it needs is too.
fn compact(record: &Record) {
    let mut peers = PeerTable::default();
    assert!(peers.admits(record));
    let mut bytes = Vec::new();
    encode_record(record, &mut peers, &mut bytes);
    let mut table = Vec::new();
    peers.encode(&mut table);
    let peers = PeerTable::decode(&table).expect("what was written is read");
    let mut rest = bytes.as_slice();
    assert_eq!(decode_record(&mut rest, &peers).as_ref(), Ok(record));
    assert!(rest.is_empty());
    for end in 0..bytes.len() {
        assert!(decode_record(&mut &bytes[..end], &peers).is_err(), "a torn record is read");
    }
}

/// A text of JSON has one canonical form.
fn canonical(text: &[u8]) {
    if let Ok(value) = Value::from_json(text) {
        let mut form = Vec::new();
        write_value(&value, &mut form);
        let again = Value::from_json(&form);
        assert_eq!(again.as_ref(), Ok(&value), "{}", String::from_utf8_lossy(&form));
        let mut second = Vec::new();
        again.iter().for_each(|value| write_value(value, &mut second));
        assert_eq!(form, second);
    }
    if let Ok(meta) = Meta::from_json(text) {
        let mut form = Vec::new();
        write_meta(&meta, &mut form);
        assert_eq!(Meta::from_json(&form).as_ref(), Ok(&meta), "{}", String::from_utf8_lossy(&form));
    }
}

/// Any bytes as a stored form: refused, or a record that is stored in the same way again.
fn stored(bytes: &[u8]) -> Option<Record> {
    let mut peers = PeerTable::default();
    (0..4).for_each(|n| _ = peers.number_of(PeerId([n; 16])));
    let _ = PeerTable::decode(bytes);
    let mut rest = bytes;
    let _ = decode_clock(&mut rest, &peers);
    let mut rest = bytes;
    let record = decode_record(&mut rest, &peers).ok()?;
    let mut again = Vec::new();
    encode_record(&record, &mut peers, &mut again);
    assert_eq!(decode_record(&mut again.as_slice(), &peers).as_ref(), Ok(&record));
    check(&record).is_ok().then_some(record)
}

/// Joins are the same in every order, cover all that they join, and change nothing when done again.
fn joined(versions: &[Record]) {
    for a in versions {
        assert_eq!(&join(a, a), a);
        for b in versions {
            let ab = join(a, b);
            assert_eq!(ab, join(b, a), "the order matters");
            assert_eq!(join(&ab, a), ab, "joining again changes something");
            assert!(ab.clock.covers(&a.clock) && ab.clock.covers(&b.clock));
            assert_eq!(conflicts(a, b), conflicts(b, a));
            // Only its limits may stand in the way of storing it.
            assert!(check(&ab).is_ok() || check_limits(&ab).is_err(), "{:?}", check(&ab));
            let merged = merge(a, b);
            assert_eq!((merged.changed, merged.answers), (merged.record != *a, merged.record != *b));
            for c in versions {
                assert_eq!(join(&ab, c), join(a, &join(b, c)), "the grouping matters");
            }
        }
    }
    let forth = shown(versions, false).map(|record| &record.value_change);
    assert_eq!(forth, shown(versions.iter().rev(), false).map(|record| &record.value_change));
}
