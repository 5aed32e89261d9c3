//! The database's messages, as text and back.

use super::*;
use crate::index::author::{conflict_copy, create, delete, edit, move_to, set_meta};
use crate::index::digest::Digest;
use crate::index::record::{EntryContent, EntryValue, Meta, Value};
use crate::index::testing::{WALL, author, clock, file, file_value, good_record, nth_peer, peer as nth};
use alloc::format;
use alloc::string::{String, ToString};
use proptest::prelude::*;

const AT: Resume = Resume { token: [0xab; 16], arrival: 42 };

fn written(message: &DatabaseMessage) -> String {
    let mut out = Vec::new();
    message.write(&mut out);
    String::from_utf8(out).unwrap()
}

fn update(record: &Record, at: Option<Resume>) -> String {
    let mut out = Vec::new();
    write_update(record, at, &mut out);
    String::from_utf8(out).unwrap()
}

fn read(json: &str) -> Result<DatabaseMessage, &'static str> {
    let start = json.find("database.").unwrap();
    let type_name = &json[start..start + json[start..].find('"').unwrap()];
    DatabaseMessage::read(type_name, json.as_bytes()).map_err(|e| e.0)
}

/// The text of a record, checked to come back as it was.
fn shown(record: &Record) -> String {
    let json = update(record, Some(AT));
    let back = DatabaseMessage::Update { record: Box::new(record.clone()), at: Some(AT) };
    assert_eq!(read(&json), Ok(back.clone()));
    assert_eq!(written(&back), json);
    json.replace(",\"", ",\n\"")
}

#[test]
fn a_file() {
    insta::assert_snapshot!(shown(&file(&mut author(1), "/dir/naïve \"name\"\n", 5)));
}

#[test]
fn a_directory() {
    let meta = Meta { unix_mode: Some(0o755), mtime: Some(WALL), extra: None };
    let dir = Value::Entry(EntryValue::new(EntryContent::Dir));
    insta::assert_snapshot!(shown(
        &create(&mut author(1), Uuid([1; 16]), "/d".into(), dir, meta, None).unwrap()
    ));
}

#[test]
fn a_link() {
    let entry = EntryValue::new(EntryContent::Link("../a\\b".into()));
    let value = Value::Entry(EntryValue { mtime: Some(WALL), ..entry });
    let link = create(&mut author(1), Uuid([1; 16]), "/l".into(), value, Meta::default(), None).unwrap();
    insta::assert_snapshot!(shown(&link));
}

#[test]
fn a_file_with_a_history() {
    let (mut a, mut b) = (author(1), author(2));
    let record = file(&mut a, "/a", 5);
    let record = edit(&mut b, &record, file_value(6), None).unwrap();
    let record = move_to(&mut a, &record, "/b".into()).unwrap();
    let meta = Meta { unix_mode: Some(0o600), mtime: None, extra: Some(r#"{"later":[1]}"#.into()) };
    insta::assert_snapshot!(shown(&set_meta(&mut a, &record, meta).unwrap()));
}

#[test]
fn a_tombstone() {
    let record = file(&mut author(1), "/a", 5);
    insta::assert_snapshot!(shown(&delete(&mut author(2), &record).unwrap()));
}

#[test]
fn a_conflict_file() {
    let (mut a, mut b) = (author(1), author(2));
    let record = file(&mut a, "/a.txt", 5);
    let loser = edit(&mut a, &record, file_value(6), None).unwrap();
    let key = "/a.CONFLICT.ABCD2345.txt".into();
    insta::assert_snapshot!(shown(&conflict_copy(&mut b, &loser, record.uuid, key, Uuid([9; 16])).unwrap()));
}

#[test]
fn a_value_of_another_application() {
    let value = Value::from_json(br#"{"b":1,"a":[null,-1]}"#).unwrap();
    let record = create(&mut author(1), Uuid([1; 16]), "app.x".into(), value, Meta::default(), None).unwrap();
    insta::assert_snapshot!(shown(&record));
}

#[test]
fn the_other_messages() {
    let knowledge = Clock::of(nth(1), 7).joined(&Clock::of(nth(2), REV_MAX));
    let all = [
        DatabaseMessage::GetUpdates { since: knowledge.clone(), resume: Some(AT) },
        DatabaseMessage::GetUpdates { since: Clock::new(), resume: None },
        DatabaseMessage::Current { knowledge: knowledge.clone() },
        DatabaseMessage::Knowledge { knowledge },
        DatabaseMessage::Looking { looking: true },
        DatabaseMessage::Looking { looking: false },
        DatabaseMessage::Digest { digest: Digest::from_bytes([0xa5; 16]) },
    ];
    let texts: Vec<String> = all.iter().map(written).collect();
    for (text, message) in texts.iter().zip(all) {
        assert_eq!(read(text), Ok(message));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn types_are_told_apart() {
    assert!(DatabaseMessage::is("database.update") && DatabaseMessage::is("database.new"));
    assert!(!DatabaseMessage::is("databases") && !DatabaseMessage::is("directory.get"));
    assert_eq!(DatabaseMessage::read("database.new", b"{}"), Ok(DatabaseMessage::Unknown));
    assert_eq!(written(&DatabaseMessage::Unknown), "");
}

#[test]
fn white_space_order_and_unknown_members_do_not_matter() {
    let record = file(&mut author(1), "/a", 5);
    let json = update(&record, None);
    let other = format!("{{\"new\" : {{\"x\":[1]}},{}", &json[1..]).replace(':', " : ").replace(" : 4", ":4");
    let other = other.replace("T03 : 04 : 05", "T03:04:05").replace("T22 : 13 : 20", "T22:13:20");
    assert_eq!(read(&other), read(&json));
    let escaped = json.replace("\"/a\"", "\"\\u002fa\"");
    assert_eq!(read(&escaped), read(&json));
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let mut me = author(1);
    let record = file(&mut me, "/a", 5);
    let json = update(&move_to(&mut me, &record, "/b".into()).unwrap(), Some(AT));
    let me = nth(1).to_hex();
    let shape = "database.update: a member is missing, too large or of the wrong type";
    for (from, to, why) in [
        ("\"uuid\":\"07", "\"uuid\":\"0", "record: uuid is not 16 bytes of hex"),
        ("\"uuid\":\"07", "\"uuid\":\"AA", "record: uuid is not 16 bytes of hex"),
        ("\"uuid\"", "\"uid\"", shape),
        ("\"key\":\"/b\"", "\"key\":5", shape),
        ("\"key\":\"/b\"", "\"key\":\"/b\",\"key\":\"/b\"", shape),
        ("\"last_updated_rev\":2", "\"last_updated_rev\":2.0", shape),
        ("\"last_updated_rev\":2", "\"last_updated_rev\":-2", shape),
        ("\"last_updated_rev\":2", "\"last_updated_rev\":3", "record: change that its clock has not seen"),
        ("\"last_updated_rev\":2", "\"last_updated_rev\":0", "record: revision out of range"),
        ("\"update_time\":\"2026", "\"update_time\":\"9999", "record: not a time"),
        ("\"update_time\":\"2026", "\"update_time\":\"1999", "record: change later than the last update"),
        ("\"deleted\":false", "\"deleted\":true", "record: deleted contradicts its clocks"),
        ("\"unix_mode\":\"644\"", "\"unix_mode\":\"9\"", "meta: unix_mode is no octal mode"),
        ("\"size\":5", "\"size\":4611686018427387905", "record: size too large"),
        ("\"at\":[\"ab", "\"at\":[\"", "database: store token is not 16 bytes of hex"),
        ("\"value_clock\":{", "\"value_clock\":{\"x\":1,", "clock: peer is not 16 bytes of hex"),
        ("\"value_clock\":{", &format!("\"value_clock\":{{\"{me}\":1,"), "clock: a peer twice"),
        (
            "\"value_clock\":{",
            &format!("\"value_clock\":{{\"{}\":4611686018427387904,", nth(2)),
            "clock: revision out of range",
        ),
    ] {
        assert!(json.contains(from), "{from}");
        let broken = json.replacen(from, to, 1);
        assert_eq!(read(&broken), Err(why), "{from} -> {to}");
    }
    assert!(read(&json.replace("\"size\":5", "\"size\":4611686018427387904")).is_ok());
    assert!(read(&json.replace("\"deleted\":false,", "")).is_ok());
    let zero = json.replace("\"value_clock\":{", &format!("\"value_clock\":{{\"{}\":0,", nth(2)));
    assert_eq!(read(&zero), read(&json));
}

#[test]
fn peers_in_a_clock_at_the_limit_and_past_it() {
    for (n, good) in [(PEERS_MAX, true), (PEERS_MAX + 1, false)] {
        let pairs: Vec<String> = (0..n).map(|i| format!("\"{}\":{REV_MAX}", nth_peer(i))).collect();
        let json = format!(r#"{{"type":"database.current","knowledge":{{{}}}}}"#, pairs.join(","));
        let read = read(&json);
        assert_eq!(read.is_ok(), good);
        assert!(good || read == Err("clock: too many peers"));
    }
}

#[test]
fn a_body_at_the_limit_and_past_it() {
    let json = written(&DatabaseMessage::Current { knowledge: Clock::new() });
    let mut body = json.into_bytes();
    body.resize(BODY_BYTES_MAX, b' ');
    assert!(DatabaseMessage::read("database.current", &body).is_ok());
    body.push(b' ');
    let long = Err(Malformed("database: message too long"));
    assert_eq!(DatabaseMessage::read("database.current", &body), long);
}

#[test]
fn a_value_of_too_many_parts_takes_no_memory() {
    use crate::index::canonical::PARTS_MAX;
    let record = file(&mut author(1), "/a", 5);
    let json = update(&record, None).replace("\"value\":", "\"value\":[[]],\"old\":");
    let parts = |n: usize| json.replace("[[]]", &format!("[{}[]]", "[],".repeat(n - 2)));
    // A list of that many is longer as text than a value may be, but it is read.
    assert_eq!(read(&parts(PARTS_MAX)), Err("record: value too long"));
    let shape = "database.update: a member is missing, too large or of the wrong type";
    assert_eq!(read(&parts(PARTS_MAX + 1)), Err(shape));
}

#[test]
fn the_largest_record_fits_a_body() {
    use crate::index::check::{KEY_BYTES_MAX, META_BYTES_MAX, VALUE_BYTES_MAX};
    let mut me = author(1);
    let mut record = file(&mut me, &"\u{1}".repeat(KEY_BYTES_MAX), 5);
    record.value = Value::Json(format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2)).into());
    record.meta.extra = Some(format!("{{\"a\":\"{}\"}}", "x".repeat(META_BYTES_MAX - 8)).into());
    let many = Clock::from_pairs((0..PEERS_MAX - 1).map(|i| (nth_peer(i), REV_MAX)).collect()).unwrap();
    record.clock.join(&many);
    record.deleted_clock.join(&many);
    record.value_clock = record.clock.clone();
    record.value_clock.set(nth_peer(0), 1);
    assert_eq!(check(&record), Ok(()));
    let json = update(&record, Some(AT));
    assert!(json.len() < BODY_BYTES_MAX, "{}", json.len());
    assert!(read(&json).is_ok());
}

/// Prints the rate; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, run by hand"]
fn rates() {
    extern crate std;
    use std::time::Instant;
    const RECORDS: u32 = 200_000;
    let (mut a, mut b) = (author(1), author(2));
    let record = file(&mut a, "/some/directory/with/a/file.txt", 5);
    let record = edit(&mut b, &record, file_value(6), None).unwrap();
    let mut out = Vec::new();
    let start = Instant::now();
    for _ in 0..RECORDS {
        out.clear();
        write_update(core::hint::black_box(&record), Some(AT), &mut out);
    }
    let write = f64::from(RECORDS) / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..RECORDS {
        DatabaseMessage::read("database.update", core::hint::black_box(&out)).unwrap();
    }
    let read = f64::from(RECORDS) / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..RECORDS {
        json::check(core::hint::black_box(&out)).unwrap();
    }
    let check = f64::from(RECORDS) / start.elapsed().as_secs_f64();
    std::println!("{} bytes: write {write:.0}/s, read {read:.0}/s; check {check:.0}/s", out.len());
}

proptest! {
    #[test]
    fn records_come_back(record in good_record(), arrival: u64) {
        let at = Some(Resume { token: [1; 16], arrival });
        let back = DatabaseMessage::Update { record: Box::new(record.clone()), at };
        prop_assert_eq!(read(&update(&record, at)), Ok(back));
    }

    #[test]
    fn clocks_come_back(since in clock()) {
        let message = DatabaseMessage::GetUpdates { since, resume: None };
        prop_assert_eq!(read(&written(&message)), Ok(message));
    }

    #[test]
    fn any_bytes_are_survived(
        record in good_record(),
        at: prop::sample::Index,
        byte: u8,
        junk in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut body = update(&record, None).to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(DatabaseMessage::Update { record, .. }) = DatabaseMessage::read("database.update", &body) {
            prop_assert_eq!(check(&record), Ok(()));
        }
        for name in ["database.update", "database.get_updates", "database.current"] {
            let _ = DatabaseMessage::read(name, &junk);
        }
    }
}
