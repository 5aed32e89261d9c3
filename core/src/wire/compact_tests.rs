//! Tests of `compact.rs`: each message says in CBOR what it says in JSON.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::index::testing::{author, clock, file, good_record, nth_peer};
use crate::wire::frame::{LENGTH_MAX, Parser, Piece, write_frame};
use crate::wire::message::{Encoding, Message};

const AT: Resume = Resume { token: [0xab; 16], arrival: 42 };

fn written(message: &Message, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    message.write_in(encoding, &mut out);
    out
}

fn read(body: Vec<u8>, payload: bool) -> Result<Message, &'static str> {
    Message::read(body, None, payload).map_err(|fault| fault.0)
}

/// The message through JSON and through CBOR, the latter in frames that are cut at `cut`.
fn both(message: &Message, cut: usize) {
    let payload = message.has_payload();
    let text = written(message, Encoding::Json);
    assert_eq!(text.first(), Some(&b'{'));
    let through_json = read(text, payload).unwrap();
    let body = written(message, Encoding::Cbor);
    let mut frame = Vec::new();
    write_frame(&body, payload, &mut frame);
    let mut parser = Parser::new(LENGTH_MAX);
    parser.allow_cbor();
    let (mut first, mut second) = frame.split_at(cut.min(frame.len()));
    let piece = parser.next(&mut first).unwrap().or_else(|| parser.next(&mut second).unwrap());
    let Some(Piece::Body { body, signature: None, .. }) = piece else { panic!("{piece:?}") };
    let through_cbor = read(body, payload).unwrap();
    assert_eq!(format!("{through_cbor:?}"), format!("{message:?}"));
    assert_eq!(format!("{through_cbor:?}"), format!("{through_json:?}"));
}

fn updates(records: Vec<Record>, at: Option<Resume>) -> Message {
    Message::Database(DatabaseMessage::Updates { records, at })
}

fn resume() -> impl Strategy<Value = Option<Resume>> {
    proptest::option::of((any::<[u8; 16]>(), any::<u64>()))
        .prop_map(|at| at.map(|(token, arrival)| Resume { token, arrival }))
}

proptest! {
    #[test]
    fn both_encodings_carry_the_same_records(record in good_record(), at in resume(), cut in 0..400_usize) {
        let record = Box::new(record);
        both(&Message::Database(DatabaseMessage::Update { record, at }), cut);
    }

    #[test]
    fn both_encodings_carry_the_same_knowledge(k in clock(), resume in resume(), looking: bool, cut in 0..99_usize) {
        for message in [
            DatabaseMessage::GetUpdates { since: k.clone(), resume },
            DatabaseMessage::Current { knowledge: k.clone() },
            DatabaseMessage::Knowledge { knowledge: k },
            DatabaseMessage::Looking { looking },
            DatabaseMessage::Digest { digest: Digest::from_bytes([0x5a; 16]) },
        ] {
            both(&Message::Database(message), cut);
        }
    }

    #[test]
    fn both_encodings_carry_the_same_requests(
        digest: [u8; 32],
        start in 0..=u64::MAX / 2,
        length in 0..=u64::MAX / 2,
        code in "\\PC{0,9}",
        k_value: u32,
        cut in 0..99_usize,
    ) {
        let (sha256, range) = (Sha256(digest), (start, length));
        for message in [
            DirectoryMessage::GetPresence,
            DirectoryMessage::BloomFilter { k_value },
            DirectoryMessage::Present { sha256 },
            DirectoryMessage::NotPresent { sha256 },
            DirectoryMessage::Get { sha256, range: None },
            DirectoryMessage::Get { sha256, range: Some(range) },
            DirectoryMessage::Data { sha256, range },
            DirectoryMessage::GetError { sha256, code },
        ] {
            both(&Message::Directory(message), cut);
        }
    }

    #[test]
    fn batches_carry_what_single_updates_do(records in proptest::collection::vec(good_record(), 1..9), at in resume()) {
        let listed: Vec<&Record> = records.iter().collect();
        let mut body = Vec::new();
        prop_assert_eq!(write_updates(&listed, at, &mut body), records.len());
        let message = updates(records, at);
        let expected = format!("{message:?}");
        prop_assert_eq!(format!("{:?}", read(body, false).unwrap()), expected.clone());
        let again = read(written(&message, Encoding::Cbor), false).unwrap();
        prop_assert_eq!(format!("{again:?}"), expected);
    }
}

#[test]
fn a_batch_has_so_many_records_and_no_more() {
    let record = file(&mut author(1), "/a", 1);
    let full = updates(vec![record.clone(); UPDATES_MAX], None);
    assert!(read(written(&full, Encoding::Cbor), false).is_ok());
    for count in [0, UPDATES_MAX + 1] {
        let wrong = written(&updates(vec![record.clone(); count], None), Encoding::Cbor);
        assert!(read(wrong, false).is_err(), "{count}");
    }
}

#[test]
fn batches_end_where_they_are_full() {
    let record = file(&mut author(1), "/a", 1);
    let many = vec![&record; UPDATES_MAX + 1];
    let (mut rest, mut total) = (&many[..], 0);
    while !rest.is_empty() {
        let mut body = Vec::new();
        let count = write_updates(rest, Some(AT), &mut body);
        assert!(count > 0 && body.len() < UPDATES_BYTES + 1000, "{count} in {}", body.len());
        let Ok(Message::Database(DatabaseMessage::Updates { records, at })) = read(body, false) else {
            panic!()
        };
        rest = &rest[count..];
        assert_eq!(
            (records.len(), at.is_some()),
            (count, rest.is_empty()),
            "only the last says where it stands"
        );
        total += count;
    }
    assert_eq!(total, UPDATES_MAX + 1);
}

/// What the encoding is for: a record of a usual file takes two thirds of the bytes at most.
#[test]
fn a_record_is_shorter_than_in_json() {
    let record = Box::new(file(&mut author(1), "/folder/some file.txt", 5000));
    let message = Message::Database(DatabaseMessage::Update { record: record.clone(), at: None });
    let mut alone = Vec::new();
    write_record(&record, &mut alone);
    let (json, cbor) = (written(&message, Encoding::Json).len(), alone.len());
    assert!(3 * cbor <= 2 * json, "{cbor} bytes of CBOR, {json} of JSON");
}

/// The largest record there can be fits a body behind a batch that is nearly full.
#[test]
fn the_largest_record_fits() {
    let mut record = file(&mut author(1), "/a", 1);
    let peers: Vec<_> = (0..PEERS_MAX - 1).map(|n| (nth_peer(n), 1 << 60)).collect();
    let mut clock = Clock::from_pairs(peers).unwrap();
    clock.join(&record.clock);
    (record.clock, record.value_clock) = (clock.clone(), clock);
    record.key = "/".repeat(4096);
    let text = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2));
    record.value = Value::Json(text.into());
    let mut body = Vec::new();
    write_record(&record, &mut body);
    assert!(UPDATES_BYTES + 2 * body.len() < crate::wire::cbor::BODY_BYTES_MAX, "{}", body.len());
    assert!(read(written(&updates(vec![record], None), Encoding::Cbor), false).is_ok());
}

/// A record whose value and meta are these items.
fn record_with(value: &[u8], meta: &[u8]) -> Result<Record, &'static str> {
    let record = file(&mut author(1), "/a", 1);
    let mut body = Vec::new();
    write_map(9, &mut body);
    for (name, text) in [("type", "database.update"), ("key", "/a")] {
        write_text(name, &mut body);
        write_text(text, &mut body);
    }
    for (name, bytes) in [("uuid", [1; 16]), ("last_updated_by", record.update.peer.0)] {
        write_text(name, &mut body);
        write_bytes(&bytes, &mut body);
    }
    for (name, number) in [("last_updated_rev", record.update.rev), ("update_time", 5)] {
        write_text(name, &mut body);
        write_u64(number, &mut body);
    }
    write_text("vector_clock", &mut body);
    write_clock(&record.clock, &mut body);
    for (name, item) in [("value", value), ("meta", meta)] {
        write_text(name, &mut body);
        body.extend_from_slice(item);
    }
    match read(body, false)? {
        Message::Database(DatabaseMessage::Update { record, .. }) => Ok(*record),
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts_of_json_are_as_strict_as_bodies() {
    let text = |text: &str| {
        let mut out = Vec::new();
        write_text(text, &mut out);
        out
    };
    let with_extra = |json: &str| {
        let mut out = Vec::new();
        write_map(1, &mut out);
        write_extra(Some(json), &mut out);
        out
    };
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let none = [0xa0];
    for good in ["1", "{\"a\":1}", &nested(31)] {
        assert!(record_with(&text(good), &none).is_ok(), "{good}");
    }
    // In JSON it would stand in a body, which counts as a level.
    for bad in ["", "1.5", "{\"a\":1,\"a\":2}", "1 1", "\"\\ud800\"", &nested(32)] {
        assert!(record_with(&text(bad), &none).is_err(), "{bad}");
    }
    let inner = |levels| format!("{{\"x\":{}}}", nested(levels));
    assert!(record_with(&with_extra(&inner(30)), &with_extra(&inner(30))).is_ok());
    for bad in ["{}", "[]", "1", "{\"mtime\":1}", "{\"a\":1,\"a\":2}", &inner(31)] {
        assert!(record_with(&with_extra(bad), &none).is_err(), "{bad}");
        assert!(record_with(&none, &with_extra(bad)).is_err(), "{bad}");
    }
    assert!(record_with(&with_extra("{\"unix_mode\":1}"), &with_extra("{\"size\":1}")).is_ok());
    let filled = |max: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(max - 8));
    assert!(record_with(&with_extra(&filled(VALUE_BYTES_MAX)), &with_extra(&filled(META_BYTES_MAX))).is_ok());
    assert!(record_with(&with_extra(&filled(VALUE_BYTES_MAX + 1)), &none).is_err());
    assert!(record_with(&none, &with_extra(&filled(META_BYTES_MAX + 1))).is_err());
    assert!(record_with(&text(&format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2))), &none).is_ok());
    assert!(record_with(&text(&format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 1))), &none).is_err());
    let unknown = [0xa1, 0x61, b'x', 0];
    assert!(record_with(&unknown, &none).is_err() && record_with(&none, &unknown).is_err());
}

#[test]
fn core_and_statements_stay_json() {
    let body = |name: &str| {
        let mut out = Vec::new();
        begin(name, 0, &mut out);
        out
    };
    assert!(read(body("core.keys_acknowledgment"), false).is_err());
    assert!(Message::read(body("database.update"), Some([0; 64]), false).is_err());
    let unknown = read(body(".org.example.hello"), true).unwrap();
    assert!(matches!(unknown, Message::Unknown { type_name } if type_name == ".org.example.hello"));
    assert!(read(body(&"t".repeat(128)), false).is_ok() && read(body(&"t".repeat(129)), false).is_err());
    let ping = written(&Message::Ping { timeout: 60 }, Encoding::Cbor);
    assert_eq!(String::from_utf8(ping).unwrap(), "{\"type\":\"core.ping\",\"timeout\":60}");
}

#[test]
fn a_clock_at_its_limit_and_past_it() {
    let asking = |count: usize| {
        let mut body = Vec::new();
        begin("database.knowledge", 1, &mut body);
        write_text("knowledge", &mut body);
        write_map(count, &mut body);
        for n in 0..count {
            write_bytes(&nth_peer(n).0, &mut body);
            write_u64(1, &mut body);
        }
        read(body, false)
    };
    assert!(asking(PEERS_MAX).is_ok() && asking(PEERS_MAX + 1).is_err());
}
