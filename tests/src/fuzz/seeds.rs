//! Makes files to begin fuzzing with: right messages of all kinds, and plays at random. The corpora in
//! `tests/fuzz/corpus` hold these and what fuzzers found beside them.

use clearskies_core::club::code::AccessCode;
use clearskies_core::connection::units::{UNIT_INFLATED_MAX, deflate, store};
use clearskies_core::files::archive_name::archive_folder;
use clearskies_core::ids::{PeerId, Sha256, Uuid};
use clearskies_core::index::author::{self, Author};
use clearskies_core::index::clock::Clock;
use clearskies_core::index::codec::{PeerTable, encode_record};
use clearskies_core::index::knowledge::Resume;
use clearskies_core::index::record::{EntryContent, EntryValue, Meta, Record, Value};
use clearskies_core::rng::Rng as CoreRng;
use clearskies_core::time::WallTime;
use clearskies_core::wire::core_msgs::Opening;
use clearskies_core::wire::database::{DatabaseMessage, write_update};
use clearskies_core::wire::directory::DirectoryMessage;
use clearskies_core::wire::frame::{PAYLOAD_END, write_chunk_start, write_frame, write_statement};
use clearskies_core::wire::message::{Encoding, Message};

use super::host::BEGIN_NS;
use crate::sim::Rng;

/// Random plays of a target whose bytes are choices.
const PLAYS: u64 = 24;

/// The files for a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frames" => frames(),
        "codes" => codes(),
        "records" => records(),
        "control" => CONTROL.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "names" => names(),
        "hello" => hello(),
        "units" => units(),
        _ => plays(target, 600),
    }
}

fn plays(target: &str, length: u64) -> Vec<Vec<u8>> {
    let name = target.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut rng = Rng::new(name);
    let play = |rng: &mut Rng| {
        let length = rng.between(8, length);
        rng.bytes(usize::try_from(length).unwrap_or(8))
    };
    (0..PLAYS).map(|_| play(&mut rng)).collect()
}

fn hello() -> Vec<Vec<u8>> {
    let mut files = plays("hello", 64);
    for way in 0..3 {
        // A right hello without the secret, then a proof.
        files.push([way, 0, 0, 1, 3, 7, 4, 3, 9, 3, 8].to_vec());
        // A right challenge, then a proof.
        files.push([way, 1, 0, 2, 3, 7, 4, 5, 3, 9].to_vec());
        // An honest pair, in small pieces, and one that is meddled with.
        files.push([[way, 2].to_vec(), [0, 1, 40, 0, 0, 30].repeat(20)].concat());
        files.push([[way, 2].to_vec(), [0, 1, 40].repeat(4), [8, 0, 50, 3].to_vec()].concat());
    }
    files
}

/// Files of the target `units`: which way, which steps, and a stream or what is packed.
fn units() -> Vec<Vec<u8>> {
    let text = b"some words that come again, ".repeat(20);
    let frame = b"m35{\"type\":\"core.keys_acknowledgment\"}";
    let right = [store(frame), deflate(&text), store(&[0]), deflate(frame)].concat();
    let bomb = |length| deflate(&vec![0; length]);
    let data =
        |unit: &[u8]| unit.iter().position(|byte| *byte == b':').map_or(vec![], |at| unit[at + 1..].to_vec());
    let deflated = data(&deflate(&text));
    let mut files = vec![
        [&[0, 3], &right[..]].concat(),
        [&[0, 60], &right[..right.len() - 3]].concat(),
        [&[0, 60], &bomb(UNIT_INFLATED_MAX)[..]].concat(),
        [&[0, 60], &bomb(UNIT_INFLATED_MAX + 1)[..]].concat(),
        [&[1, 5], &deflated[..]].concat(),
        [&[1, 5], &deflated[..], b"x"].concat(),
        [&[1, 9], &deflated[..deflated.len() - 1]].concat(),
        [&[1, 9], &data(&deflate(b""))[..]].concat(),
        [&[1, 9], &data(&store(b""))[..]].concat(),
        [&[2, 9], &deflated[2..]].concat(),
        [&[3, 9], &frame[..]].concat(),
        [&[3, 50], &text[..]].concat(),
    ];
    for start in ["1052672:", "1052673:", "01:", "0:", "8:", "9:", ":", "m"] {
        files.push([&[0, 1], start.as_bytes()].concat());
    }
    files
}

fn messages() -> Vec<Message> {
    let (sha256, clock) = (Sha256([0xab; 32]), Clock::of(PeerId([1; 16]), 7));
    let opening = Opening {
        software: "clearskies/0.1.0".into(),
        name: Some("d\u{e9}sk \"1\"".into()),
        speaks_protocol: true,
        extensions: vec!["a".into(), "b".into()],
        peer: PeerId([2; 16]),
        peer_key: [3; 32],
        peer_proof: [4; 64],
        writer: Some([5; 64]),
        run: [6; 16],
        time: WallTime(BEGIN_NS),
    };
    let resume = Some(Resume { token: [7; 16], arrival: 9 });
    vec![
        Message::Greeting(Box::new(opening.clone())),
        Message::Start(Box::new(opening)),
        Message::KeysAcknowledgment,
        Message::Ping { timeout: 60 },
        Message::Error { code: "protocol".into(), message: "a\nb".into() },
        Message::Database(DatabaseMessage::GetUpdates { since: clock.clone(), resume }),
        Message::Database(DatabaseMessage::Current { knowledge: clock.clone() }),
        Message::Database(DatabaseMessage::Knowledge { knowledge: clock }),
        Message::Database(DatabaseMessage::Looking { looking: true }),
        Message::Directory(DirectoryMessage::GetPresence),
        Message::Directory(DirectoryMessage::Present { sha256 }),
        Message::Directory(DirectoryMessage::Get { sha256, range: None }),
        Message::Directory(DirectoryMessage::Get { sha256, range: Some((0, 1 << 20)) }),
        Message::Directory(DirectoryMessage::NotPresent { sha256 }),
        Message::Directory(DirectoryMessage::GetError { sha256, code: "io".into() }),
        Message::Directory(DirectoryMessage::Data { sha256, range: (5, 5) }),
        Message::Directory(DirectoryMessage::BloomFilter { k_value: 4 }),
        Message::Unknown { type_name: "later.thing".into() },
    ]
}

/// A file of the target `frames`: which limit, which steps, and a stream.
fn stream(limit: u8, step: u8, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![limit, step];
    write(&mut out);
    out
}

fn frames() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for message in messages() {
        let mut body = Vec::new();
        message.write(&mut body);
        files.push(stream(3, 5, |out| {
            write_frame(&body, message.has_payload(), out);
            if message.has_payload() {
                write_chunk_start(5, out);
                out.extend_from_slice(b"bytes");
                out.extend_from_slice(PAYLOAD_END);
            }
        }));
        files.push(body);
    }
    for record in versions() {
        files.push(stream(2, 9, |out| {
            let mut body = Vec::new();
            write_update(&record, None, &mut body);
            write_frame(&body, false, out);
        }));
    }
    files.push(stream(1, 2, |out| write_statement(br#"{"type":"core.club"}"#, &[9; 64], out)));
    for text in JSON {
        files.push(stream(3, 1, |out| out.extend_from_slice(text.as_bytes())));
        files.push(stream(0, 3, |out| write_frame(text.as_bytes(), false, out)));
    }
    for body in in_cbor() {
        files.push(stream(3, 7, |out| write_frame(&body, false, out)));
    }
    files
}

const JSON: [&str; 10] = [
    r#"{"a":[1,-1,18446744073709551615,-9223372036854775808],"b":{"c":null,"d":[true,false]}}"#,
    r#"{"type":"a","\u0061":"\ud83d\ude00\n\"\\"}"#,
    r#"{"a":1,"\u0061":2}"#,
    r#"{"a":1.5}"#,
    r#"{"a":-0}"#,
    r#"{"type":"core.keys","access_level":"read_only","club":{"body":"{}","signature":""},"name":"","keys":[]}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    r#"{"type":"core.error","code":"x"}"#,
    " {\t\"a\" : [ ] ,\r\n\"b\":\"\u{e9}\"} ",
    r#"{"type":"database.later"}"#,
];

/// Versions of one record, some of which conflict.
fn versions() -> Vec<Record> {
    let mut authors =
        [1, 2, 3].map(|n| Author { peer: PeerId([n; 16]), rev: 4, wall: WallTime(BEGIN_NS + i64::from(n)) });
    let file = |n: u8| {
        let value = EntryValue::new(EntryContent::File { size: u64::from(n), sha256: Sha256([n; 32]) });
        Value::Entry(EntryValue { mtime: Some(WallTime(BEGIN_NS)), ..value })
    };
    let meta = Meta { unix_mode: Some(0o644), ..Meta::default() };
    let [a, b, c] = &mut authors;
    let mut versions = Vec::new();
    let first = author::create(a, Uuid([7; 16]), "/d/a".into(), file(1), meta, None);
    versions.extend(first);
    if let Some(first) = versions.first().cloned() {
        versions.extend(author::edit(b, &first, file(2), None));
        versions.extend(author::edit(c, &first, file(3), None));
        versions.extend(author::delete(a, &first));
        versions.extend(author::move_to(b, &first, "/b".into()));
        let link = Value::Entry(EntryValue::new(EntryContent::Link("../x".into())));
        versions.extend(author::edit(c, &first, link, None));
        versions.extend(author::edit(a, &first, Value::Json(r#"{"x":[1,"y"]}"#.into()), None));
        versions.extend(author::touch_empty(b, &first));
    }
    versions
}

fn records() -> Vec<Vec<u8>> {
    let versions = versions();
    let text = |record: &Record| {
        let mut body = Vec::new();
        write_update(record, Some(Resume { token: [1; 16], arrival: 2 }), &mut body);
        body
    };
    let mut files: Vec<Vec<u8>> = versions.iter().map(text).collect();
    for pair in versions.windows(3) {
        files.push(pair.iter().map(text).collect::<Vec<_>>().join(&b'\n'));
    }
    for record in &versions {
        // The numbers of the target's own table.
        let mut peers = PeerTable::default();
        (0..4).for_each(|n| _ = peers.number_of(PeerId([n; 16])));
        let mut bytes = Vec::new();
        encode_record(record, &mut peers, &mut bytes);
        files.push(bytes);
    }
    for message in messages() {
        let mut body = Vec::new();
        if let Message::Database(message) = message {
            message.write(&mut body);
            files.push(body);
        }
    }
    files.extend(JSON.iter().map(|text| text.as_bytes().to_vec()));
    files.extend(in_cbor());
    files
}

/// Bodies in CBOR: of each message that can be, of a batch, and of one record.
fn in_cbor() -> Vec<Vec<u8>> {
    let records = versions();
    let at = Some(Resume { token: [1; 16], arrival: 2 });
    let update = records.first().map(|record| DatabaseMessage::Update { record: record.clone().into(), at });
    let batch = DatabaseMessage::Updates { records, at };
    let mut all = messages();
    all.extend(update.into_iter().chain([batch]).map(Message::Database));
    all.retain(|message| matches!(message, Message::Database(_) | Message::Directory(_)));
    let body = |message: &Message| {
        let mut body = Vec::new();
        message.write_in(Encoding::Cbor, &mut body);
        body
    };
    all.iter().map(body).collect()
}

fn codes() -> Vec<Vec<u8>> {
    let code = AccessCode::generate(&mut CoreRng::from_seed([1; 32])).to_text();
    let key = "00112233445566778899aabbccddeeff";
    [
        code.clone(),
        code.to_lowercase(),
        format!("{} {}\u{2011}{}", &code[..4], &code[4..9], &code[9..]),
        code.replace('O', "0").replace('L', "1"),
        format!("clearskies:{code}"),
        format!("clearskies://directory/{code}?a=192.0.2.1:4000&a=[2001:db8::1]:5&k={key}"),
        format!("CLEARSKIES:{code}?a=%5b::1%5d:1&a=host.example:65535&later=1"),
        format!("{code}?a=[fe80::1%25eth0]:4&a=[fe80::1%3]:4"),
        format!("{code}?k={key}&k={key}"),
        code[..20].to_owned(),
        format!("{code}A"),
        "192.0.2.1:4000".into(),
        "[::ffff:192.0.2.1%4]:1".into(),
        "a-b_c.example:1".into(),
        "1.2.3:4".into(),
        "SYNC".into(),
        String::new(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn names() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = [0, -1, BEGIN_NS, i64::MAX, i64::MIN]
        .map(|time| archive_folder(WallTime(time)).into_bytes())
        .to_vec();
    let folders: Vec<String> =
        (0..6).map(|day| archive_folder(WallTime(BEGIN_NS - day * 86_400_000_000_000))).collect();
    let mut prune = BEGIN_NS.to_be_bytes().to_vec();
    prune.extend_from_slice(&[0, 3, 0, 60, b'\n']);
    prune.extend_from_slice(folders.join("\n").as_bytes());
    files.push(prune);
    let long = "x".repeat(255);
    let deep = "d/".repeat(2000);
    for text in [
        "a/b/c",
        "/a/b",
        "/a.CONFLICT.ABCDEFGH.txt",
        "a/../b",
        "..",
        ".clearskies/x",
        "a/.clearskies",
        "/\u{e9}\u{301}/\u{1f600}",
        "a//b",
        "/",
        "a\u{0}b",
        &long,
        &format!("/{long}x"),
        &deep,
        "2026-01-02T03:04:05.5Z\n1969-12-31T23:59:59Z",
        "20261321T231500.123456789Z\n20240229T000000.000000000Z",
    ] {
        files.push(text.as_bytes().to_vec());
    }
    files
}

const CONTROL: [&str; 24] = [
    r#"{"type":"stop"}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"status"}
{"type":"node_status"}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"create_access_code","path":"/a","mode":"read_write","valid_for":60,"multi_use":true}"#,
    r#"{"type":"create_access_code","path":"/a","mode":"read_only","valid_for":null}"#,
    r#"{"type":"add_share","code":"SYNC74YAAEBAGBAFAYDQQCIKBMGA2DQPP","path":"/a","merge":true,"peers":["[::1]:5"]}"#,
    r#"{"type":"add_share","code":"SYNC74YAAEBAGBAFAYDQQCIKBMGA2DQPP?a=h:1","path":"/a","replace":true}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"remove_share","path":"/a"}"#,
    r#"{"type":"get_config"}
{"type":"set_config","config":{"a":1,"b":true,"c":"x"}}"#,
    r#"{"type":"set_config_value","key":"archive_days","value":"7"}
{"type":"get_config_value","key":"archive_days"}"#,
    r#"{"type":"set_config_value","key":"listen_port","value":65536}"#,
    r#"{"type":"connect","address":"192.0.2.1:4000"}
{"type":"peers"}
{"type":"address"}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"conflicts","path":"/a"}
{"type":"resolve","path":"/a/x.CONFLICT.ABCDEFGH.txt","keep":true}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"deletions","path":null}
{"type":"decide_deletions","path":"/a","confirm":false}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"archive","path":"/a"}
{"type":"restore","path":"/a/x","folder":"20270115T080000.000000000Z"}"#,
    r#"{"type":"create_share","path":"/a"}
{"type":"why","path":"/a/x"}
{"type":"why","path":"/a/../b"}"#,
    r#"{"type":"pause"}
{"type":"resume","unknown":[1]}"#,
    r#"{"type":"list_shares"}"#,
    r#"{"type":7}"#,
    r#"{"type":"create_share","path":"/a\u0000b"}"#,
    r#"{"type":"create_share","path":"a"}"#,
    r#"{"type":"create_share","type":"stop","path":"//a/."}"#,
    "[]",
    "{",
    "",
];
