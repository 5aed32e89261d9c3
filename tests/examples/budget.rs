//! One piece of work of the engine, for counting its instructions: `tests/budget.sh` runs each under callgrind, which
//! counts within [`measured`] alone, and compares with `tests/budget.txt`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clearskies_core::channel::tls::TlsIdentity;
use clearskies_core::channel::{Channel, Transport};
use clearskies_core::files::path::RelPath;
use clearskies_core::files::plan::{Policy, Step, Target, View, plan};
use clearskies_core::files::row::{Base, DiskState, PathRow};
use clearskies_core::ids::{PeerId, Sha256, Uuid};
use clearskies_core::index::author::{self, Author};
use clearskies_core::index::merge::merge;
use clearskies_core::index::record::{EntryContent, EntryValue, Meta, Record, Value};
use clearskies_core::io::disk::{Kind, Stamp};
use clearskies_core::rng::Rng;
use clearskies_core::time::WallTime;
use clearskies_core::wire::database::DatabaseMessage;
use clearskies_core::wire::frame::{Parser, Piece, write_frame};
use clearskies_core::wire::message::{Encoding, Message};
use clearskies_tests::sim::share::{SHARE, joined, rest};

/// The allocator of the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
type Work = Box<dyn FnOnce()>;
/// A name, and what prepares the work.
type Case = (&'static str, fn() -> Work);

const CASES: [Case; 6] = [
    ("parse_cbor", || parse(Encoding::Cbor)),
    ("parse_json", || parse(Encoding::Json)),
    ("merge", merging),
    ("plan", planning),
    ("seal", sealing),
    ("transfer", transfer),
];

/// Records of a message; as many as one of a first sync has.
const BATCH: usize = 25;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, prepare)) = CASES.iter().find(|(case, _)| *case == name) else {
        CASES.iter().for_each(|(case, _)| println!("{case}"));
        return ExitCode::FAILURE;
    };
    measured(prepare());
    ExitCode::SUCCESS
}

/// What callgrind counts: this name is given to it.
#[inline(never)]
fn measured(work: Work) {
    work();
    black_box(());
}

fn records(count: usize) -> Vec<Record> {
    let mut author = Author { peer: PeerId([7; 16]), rev: 0, wall: WallTime(1_800_000_000_000_000_000) };
    (0..count)
        .map(|at| {
            let mut sha256 = [0x5a; 32];
            sha256[..8].copy_from_slice(&(at as u64).to_be_bytes());
            let content = EntryContent::File { size: 4096 + at as u64, sha256: Sha256(sha256) };
            let mtime = Some(WallTime(1_790_000_000_000_000_000 + at as i64));
            let value = Value::Entry(EntryValue { mtime, ..EntryValue::new(content) });
            let meta = Meta { unix_mode: Some(0o644), ..Meta::default() };
            let mut uuid = [9; 16];
            uuid[..8].copy_from_slice(&(at as u64).to_be_bytes());
            let key = format!("/holiday {}/pictures/IMG_{at:05}.jpeg", at / 1000);
            author::create(&mut author, Uuid(uuid), key, value, meta, None).expect("within limits")
        })
        .collect()
}

/// Frames of records are found in a stream and read.
fn parse(encoding: Encoding) -> Work {
    const RECORDS: usize = 5000;
    let mut stream = Vec::new();
    let mut frame = |message: DatabaseMessage| {
        let mut body = Vec::new();
        Message::Database(message).write_in(encoding, &mut body);
        write_frame(&body, false, &mut stream);
    };
    let records = records(RECORDS);
    match encoding {
        Encoding::Cbor => records
            .chunks(BATCH)
            .for_each(|batch| frame(DatabaseMessage::Updates { records: batch.to_vec(), at: None })),
        Encoding::Json => records
            .into_iter()
            .for_each(|record| frame(DatabaseMessage::Update { record: Box::new(record), at: None })),
    }
    Box::new(move || {
        let mut parser = Parser::new(1 << 20);
        parser.allow_cbor();
        let mut read = 0;
        for mut input in stream.chunks(16 * 1024) {
            while let Some(piece) = parser.next(&mut input).expect("well-formed") {
                let Piece::Body { body, signature, payload } = piece else {
                    panic!("no payload was written")
                };
                match Message::read(body, signature, payload).expect("well-formed") {
                    Message::Database(DatabaseMessage::Updates { records, .. }) => read += records.len(),
                    Message::Database(DatabaseMessage::Update { .. }) => read += 1,
                    other => panic!("{other:?} was not written"),
                }
            }
        }
        assert_eq!(read, RECORDS);
    })
}

/// Versions that come are merged with those that are stored: older ones, newer ones and edits at once.
fn merging() -> Work {
    let stored = records(4000);
    let mut there = Author { peer: PeerId([8; 16]), rev: 0, wall: WallTime(1_800_000_001_000_000_000) };
    let mut here = Author { peer: PeerId([7; 16]), rev: 1 << 20, wall: WallTime(1_800_000_002_000_000_000) };
    let edit = |author: &mut Author, record: &Record, size| {
        let content = EntryContent::File { size, sha256: Sha256([3; 32]) };
        author::edit(author, record, Value::Entry(EntryValue::new(content)), None).expect("within limits")
    };
    let incoming: Vec<Record> = stored.iter().map(|record| edit(&mut there, record, 1)).collect();
    let edited: Vec<Record> = stored.iter().map(|record| edit(&mut here, record, 2)).collect();
    Box::new(move || {
        let mut changed = 0;
        for ((stored, incoming), edited) in stored.iter().zip(&incoming).zip(&edited) {
            for (stored, incoming) in [(stored, incoming), (incoming, stored), (edited, incoming)] {
                changed += usize::from(black_box(merge(stored, incoming)).changed);
            }
        }
        assert_eq!(changed, 2 * stored.len());
    })
}

/// Paths are planned: in step, to be fetched, edited here, and to be removed.
fn planning() -> Work {
    let shown = records(4000);
    let mut author = Author { peer: PeerId([8; 16]), rev: 0, wall: WallTime(1_800_000_001_000_000_000) };
    let deleted: Vec<Record> =
        shown.iter().map(|record| author::delete(&mut author, record).expect("within limits")).collect();
    let paths: Vec<RelPath> = shown.iter().filter_map(|record| RelPath::from_key(&record.key)).collect();
    let rows: Vec<PathRow> = shown
        .iter()
        .map(|record| {
            let stamp = Stamp {
                kind: Kind::File,
                size: record.size(),
                mtime_ns: record.mtime().map_or(0, |time| time.0),
                ctime_ns: 1,
                inode: 1,
                mode: 0o644,
            };
            let content = record.content().cloned().expect("a file");
            let disk = Some(DiskState { stamp, content, settled: true });
            PathRow { disk, base: Base::Index(record.uuid), live: vec![record.uuid], ..PathRow::default() }
        })
        .collect();
    let empty: Vec<PathRow> =
        shown.iter().map(|record| PathRow { live: vec![record.uuid], ..PathRow::default() }).collect();
    Box::new(move || {
        let mut steps = [0; 3];
        for at in 0..shown.len() {
            let (path, record, gone) = (&paths[at], &shown[at], &deleted[at]);
            let view = View {
                path,
                row: &rows[at],
                shown: Some(record),
                implied_dir: false,
                base: Some(record),
                base_now: Some(record),
                dead: &[],
                target: Target::Free,
                conflict_made: false,
                policy: Policy::FULL,
            };
            let fetch = View { row: &empty[at], base: None, base_now: None, ..view };
            let remove = View { shown: None, base_now: Some(gone), ..view };
            for (count, view) in steps.iter_mut().zip([view, fetch, remove]) {
                *count += usize::from(black_box(plan(&view)) != Step::Nothing);
            }
        }
        assert_eq!(steps, [0, shown.len(), shown.len()]);
    })
}

/// A link's bytes are sealed on one side and opened on the other.
fn sealing() -> Work {
    const PART: usize = 64 * 1024;
    let mut rng = Rng::from_seed([1; 32]);
    let transport = Transport::Tls(TlsIdentity::new(&mut rng));
    let dialled = transport.dial(IpAddr::V4(Ipv4Addr::LOCALHOST), &mut rng);
    let (mut near, mut far) = (dialled.expect("a channel"), transport.accept(&mut rng).expect("a channel"));
    while near.exporter().is_none() || far.exporter().is_none() {
        carry(&mut near, &mut far);
        carry(&mut far, &mut near);
    }
    let part: Vec<u8> = (0..PART).map(|at| at as u8).collect();
    Box::new(move || {
        let (mut sealed, mut opened) = (Vec::new(), 0);
        for _ in 0..128 {
            sealed.clear();
            near.seal(&[&part], &mut sealed).expect("established");
            let mut input = &sealed[..];
            while !input.is_empty() {
                far.feed(&mut input).expect("sealed by the other end");
                let length = far.plaintext().len();
                opened += length;
                far.consume(length);
            }
        }
        assert_eq!(opened, 128 * PART);
    })
}

fn carry(from: &mut Channel, to: &mut Channel) {
    let mut bytes = Vec::new();
    from.flush(&mut bytes);
    let mut input = &bytes[..];
    while !input.is_empty() {
        to.feed(&mut input).expect("a handshake");
    }
}

/// Two engines in virtual time come into step: 1000 files of 1 KiB, seen, told, fetched and put in place. What the
/// simulator itself does is counted as well.
fn transfer() -> Work {
    let mut world = joined(1);
    for at in 0..10 {
        world.node(0).mkdir(&format!("{SHARE}/d{at}"));
    }
    for at in 0..1000 {
        let path = format!("{SHARE}/d{}/f{at}", at % 10);
        world.node(0).write(&path, &[at as u8; 1024]);
    }
    Box::new(move || {
        rest(&mut world);
        assert_eq!(world.node(1).tree(SHARE).len(), 1010);
    })
}
