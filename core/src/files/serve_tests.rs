//! The server against a scripted disk and store.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::row::{Base, DiskState, PathRow};
use crate::files::serve::*;
use crate::files::serve_find::REMEMBERED_MAX;
use crate::files::sources::RANGE_BYTES;
use crate::ids::{ConnId, RootId, Sha256, Token, Uuid};
use crate::index::codec::PeerTable;
use crate::index::record::EntryContent;
use crate::io::disk::{Bytes, Kind, Read, Stamp};
use crate::io::store::{Query, Row, StoreError};
use crate::io::{DiskDone, DiskError, DiskOp, Output, StoreDone, StoreOp};

const ROOT: RootId = RootId(7);
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const MIB: usize = 1 << 20;

fn sha(n: u32) -> Sha256 {
    let digest = ring::digest::digest(&ring::digest::SHA256, &n.to_be_bytes());
    Sha256::from_slice(digest.as_ref()).unwrap()
}

fn path(name: &str) -> RelPath {
    RelPath::from_sort_key(name.as_bytes()).unwrap()
}

struct Rig {
    server: Server,
    out: Outbox,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes and inode of each file.
    files: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    peers: PeerTable,
    loads: usize,
    reads: Vec<usize>,
    store_fails: bool,
}

impl Rig {
    fn new() -> Rig {
        let mut rig = Rig {
            server: Server::new(ROOT),
            out: Outbox::default(),
            rows: BTreeMap::new(),
            files: BTreeMap::new(),
            peers: PeerTable::default(),
            loads: 0,
            reads: Vec::new(),
            store_fails: false,
        };
        rig.room(A, 8 * MIB);
        rig.room(B, 8 * MIB);
        rig
    }

    fn room(&mut self, conn: ConnId, bytes: usize) {
        self.server.set_room(conn, bytes as u64, &mut self.out);
    }

    fn file(&mut self, name: &str, sha256: Sha256, bytes: &[u8], base: Base) {
        let inode = self.files.len() as u64 + 1;
        let size = bytes.len() as u64;
        let stamp = Stamp { kind: Kind::File, size, mtime_ns: 0, ctime_ns: 0, inode, mode: 0o644 };
        let content = EntryContent::File { size, sha256 };
        let disk = Some(DiskState { stamp, content, settled: true });
        let row = PathRow { disk, base, ..PathRow::default() };
        let mut value = Vec::new();
        row.encode(&mut self.peers, &mut value);
        let path = path(name);
        let mut key = ROOT.0.to_be_bytes().to_vec();
        key.extend_from_slice(&path.sort_key());
        self.rows.insert(key, value);
        self.rows.insert(content_key(ROOT, &sha256, &path), vec![]);
        self.files.insert(path.sort_key(), (bytes.to_vec(), inode));
    }

    fn known(&mut self, name: &str, n: u32, len: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..len).map(|i| (i as u32 * 7 + n) as u8).collect();
        self.file(name, sha(n), &bytes, Base::Index(Uuid([1; 16])));
        bytes
    }

    fn ask(&mut self, conn: ConnId, n: u32, range: Option<(u64, u64)>) {
        self.server.handle_get(conn, sha(n), range, &mut self.out).unwrap();
    }

    fn step(&mut self) -> bool {
        match self.out.pop() {
            None => false,
            Some(Output::Store { token, op: StoreOp::Load { queries } }) => {
                self.loads += 1;
                let rows = queries.into_iter().map(|query| self.query(query)).collect();
                let result = if self.store_fails { Err(StoreError::Io) } else { Ok(StoreDone::Loaded(rows)) };
                assert!(self.server.owns(token));
                assert!(self.server.handle_store(token, result, &self.peers, &mut self.out));
                true
            }
            Some(Output::Disk { token, op: DiskOp::Read { reads, .. } }) => {
                self.reads.push(reads.len());
                let data = reads.into_iter().map(|read| self.read(read)).collect();
                assert!(self.server.handle_disk(token, Ok(DiskDone::Data(data)), &mut self.out));
                true
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn query(&self, query: Query) -> Vec<Row> {
        match query {
            Query::Get { key, .. } => {
                self.rows.get_key_value(&key).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect()
            }
            Query::Range { start, end, limit, .. } => {
                let rows = self.rows.range(start..end).take(limit as usize);
                rows.map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            Query::Last { .. } => unreachable!(),
        }
    }

    fn read(&self, read: Read) -> Result<Bytes, DiskError> {
        let (bytes, inode) = self.files.get(&read.path.sort_key()).ok_or(DiskError::NotFound)?;
        if *inode == 99 {
            return Err(DiskError::Denied);
        }
        if *inode != read.stamp.inode {
            return Err(DiskError::Changed);
        }
        let from = bytes.get(read.offset as usize..).unwrap_or_default();
        Ok(Bytes(from[..from.len().min(read.len as usize)].to_vec()))
    }

    /// Does all work and takes all answers.
    fn answers(&mut self) -> Vec<(ConnId, Answer)> {
        while self.step() {}
        core::iter::from_fn(|| self.server.poll_answer()).collect()
    }

    fn only(&mut self) -> Answer {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1);
        assert_eq!(self.server.buffered_bytes(), 0);
        answers.remove(0).1
    }
}

fn data(n: u32, start: u64, bytes: &[u8]) -> Answer {
    Answer::Data { sha256: sha(n), start, bytes: Bytes(bytes.to_vec()) }
}

#[test]
fn what_the_club_names_is_served_and_nothing_else() {
    let mut rig = Rig::new();
    let content = rig.known("d\0a", 1, 100);
    rig.file("local", sha(2), b"never in step", Base::None);
    rig.file("other", sha(3), b"x", Base::Index(Uuid([1; 16])));
    // A row that says of a file what is not true of it any more.
    rig.rows.insert(content_key(ROOT, &sha(4), &path("other")), vec![]);
    // The same content in another club.
    rig.rows.insert(content_key(RootId(8), &sha(5), &path("d\0a")), vec![]);
    rig.rows.insert(content_key(ROOT, &sha(6), &path("no row")), vec![]);
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), data(1, 0, &content));
    for n in [2, 4, 5, 6, 7] {
        rig.ask(A, n, None);
        assert_eq!(rig.only(), Answer::NotPresent { sha256: sha(n) }, "{n}");
    }
}

#[test]
fn many_requests_take_few_operations() {
    let mut rig = Rig::new();
    for n in 0..600 {
        rig.known(&alloc::format!("{n}"), n, 100);
        rig.ask(A, n, None);
    }
    let answers = rig.answers();
    assert_eq!(answers.len(), 600);
    assert!(rig.loads <= 10, "{}", rig.loads);
    assert!(rig.reads.len() <= 14, "{:?}", rig.reads);
    assert!(rig.reads.iter().all(|&reads| reads <= READS_MAX));
}

#[test]
fn pieces_of_a_large_file_take_one_look_up() {
    let mut rig = Rig::new();
    let content = rig.known("large", 1, 3 * MIB + 10);
    rig.ask(A, 1, Some((0, RANGE_BYTES)));
    assert_eq!(rig.only(), data(1, 0, &content[..MIB]));
    assert_eq!(rig.loads, 2);
    for start in [1, 2, 3] {
        let len = (content.len() - start * MIB).min(MIB);
        rig.ask(A, 1, Some(((start * MIB) as u64, len as u64)));
        assert_eq!(rig.only(), data(1, (start * MIB) as u64, &content[start * MIB..start * MIB + len]));
    }
    assert_eq!(rig.loads, 2);
    rig.server.path_changed(&path("large"));
    rig.ask(A, 1, Some((0, 1)));
    rig.only();
    assert_eq!(rig.loads, 4);
}

#[test]
fn what_is_remembered_is_limited() {
    let mut rig = Rig::new();
    for n in 0..=REMEMBERED_MAX as u32 {
        rig.known(&alloc::format!("{n}"), n, 300_000);
        rig.ask(A, n, Some((0, 1)));
        rig.only();
    }
    let loads = rig.loads;
    rig.ask(A, 1, Some((0, 1)));
    rig.only();
    assert_eq!(rig.loads, loads);
    rig.ask(A, 0, Some((0, 1)));
    rig.only();
    assert_eq!(rig.loads, loads + 2);
}

#[test]
fn a_whole_large_file_comes_in_pieces() {
    let mut rig = Rig::new();
    let content = rig.known("large", 1, 2 * MIB + 5);
    rig.ask(A, 1, None);
    let answers = rig.answers();
    let starts: Vec<_> = answers
        .iter()
        .map(|(_, answer)| match answer {
            Answer::Data { start, bytes, .. } => (*start as usize, bytes.0.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(starts, [(0, MIB), (MIB, MIB), (2 * MIB, 5)]);
    let joined: Vec<u8> = answers
        .into_iter()
        .flat_map(|(_, answer)| match answer {
            Answer::Data { bytes, .. } => bytes.0,
            _ => vec![],
        })
        .collect();
    assert!(joined == content);
}

#[test]
fn empty_files_and_bad_ranges() {
    let mut rig = Rig::new();
    rig.known("empty", 1, 0);
    rig.known("ten", 2, 10);
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), data(1, 0, &[]));
    for range in [(0, 11), (10, 1), (11, 0), (0, 0), (u64::MAX, u64::MAX), (1, u64::MAX)] {
        rig.ask(A, 2, Some(range));
        assert_eq!(rig.only(), Answer::Error { sha256: sha(2), code: "range" }, "{range:?}");
    }
    rig.ask(A, 2, Some((9, 1)));
    assert!(matches!(rig.only(), Answer::Data { start: 9, .. }));
}

#[test]
fn nothing_is_read_beyond_the_room_of_a_link() {
    let mut rig = Rig::new();
    rig.known("large", 1, 10 * MIB);
    rig.room(A, 3 * MIB);
    for piece in 0..10 {
        rig.ask(A, 1, Some((piece * RANGE_BYTES, RANGE_BYTES)));
    }
    while rig.step() {}
    assert_eq!(rig.server.buffered_bytes(), 3 * RANGE_BYTES);
    assert_eq!(rig.answers().len(), 3);
    assert!(rig.answers().is_empty());
    assert!(rig.server.wants_room(A));
    // Less than a piece is room for one, if nothing else is under way.
    rig.room(A, 10);
    assert_eq!(rig.answers().len(), 1);
    rig.room(A, 0);
    assert!(rig.answers().is_empty());
    rig.room(A, 8 * MIB);
    assert_eq!(rig.answers().len(), 6);
}

#[test]
fn all_links_together_hold_no_more_than_the_limit() {
    let mut rig = Rig::new();
    rig.known("large", 1, 10 * MIB);
    for conn in 10..20 {
        rig.room(ConnId(conn), 8 * MIB);
        for piece in 0..8 {
            rig.ask(ConnId(conn), 1, Some((piece * RANGE_BYTES, RANGE_BYTES)));
        }
    }
    while rig.step() {}
    assert_eq!(rig.server.buffered_bytes(), SERVE_BYTES_MAX);
    let mut count = 0;
    while rig.server.poll_answer().is_some() {
        count += 1;
        // Anything that happens on any link lets the reading go on.
        rig.room(B, 8 * MIB);
        while rig.step() {}
    }
    assert_eq!(count, 80);
}

#[test]
fn links_take_turns() {
    let mut rig = Rig::new();
    rig.known("large", 1, 10 * MIB);
    // Known from now on, so that no look-up comes in between.
    rig.ask(A, 1, Some((0, 1)));
    rig.only();
    for _ in 0..8 {
        rig.ask(A, 1, Some((0, RANGE_BYTES)));
    }
    rig.ask(B, 1, Some((0, RANGE_BYTES)));
    rig.ask(B, 1, Some((0, RANGE_BYTES)));
    let answers = rig.answers();
    let last_of_b = answers.iter().rposition(|(conn, _)| *conn == B).unwrap();
    assert!(last_of_b < 8, "{last_of_b}");
}

#[test]
fn a_changed_file_is_looked_for_elsewhere() {
    let mut rig = Rig::new();
    let content = rig.known("one", 1, 400_000);
    rig.known("two", 1, 400_000);
    rig.files.get_mut(&path("one").sort_key()).unwrap().1 = 50;
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), data(1, 0, &content));
    rig.files.remove(&path("two").sort_key());
    // What was remembered is wrong, so the store is asked once more.
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), Answer::NotPresent { sha256: sha(1) });
    rig.known("three", 1, 400_000);
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), data(1, 0, &content));
    // Cut while it was read: the stamp was right.
    rig.files.get_mut(&path("three").sort_key()).unwrap().0.truncate(5);
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), Answer::NotPresent { sha256: sha(1) });
}

#[test]
fn errors_of_disk_and_store_have_codes() {
    let mut rig = Rig::new();
    rig.known("a", 1, 10);
    rig.files.get_mut(&path("a").sort_key()).unwrap().1 = 99;
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), Answer::Error { sha256: sha(1), code: "denied" });
    rig.store_fails = true;
    rig.ask(A, 1, None);
    assert_eq!(rig.only(), Answer::Error { sha256: sha(1), code: "io" });
    rig.store_fails = false;
    rig.ask(A, 1, None);
    while let Some(output) = rig.out.pop() {
        match output {
            Output::Disk { token, .. } => {
                assert!(rig.server.handle_disk(token, Err(DiskError::Io), &mut rig.out));
                break;
            }
            output => {
                rig.out.push(output);
                rig.step();
            }
        }
    }
    assert_eq!(rig.only(), Answer::Error { sha256: sha(1), code: "io" });
    assert!(!rig.server.handle_disk(Token(12345), Err(DiskError::Io), &mut rig.out));
}

#[test]
fn requests_are_limited_and_end_with_their_link() {
    let mut rig = Rig::new();
    rig.known("a", 0, 2 * MIB);
    for n in 0..GETS_MAX as u32 {
        rig.ask(A, n % 2, None);
    }
    assert!(rig.server.handle_get(A, sha(0), None, &mut rig.out).is_err());
    rig.ask(B, 0, None);
    assert!(rig.step());
    rig.server.conn_down(A);
    let answers = rig.answers();
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|(conn, _)| *conn == B));
    assert_eq!(rig.server.buffered_bytes(), 0);
}

#[test]
fn an_answered_request_makes_place_for_another() {
    let mut rig = Rig::new();
    for n in 0..GETS_MAX as u32 {
        rig.ask(A, n, None);
    }
    assert_eq!(rig.answers().len(), GETS_MAX);
    for n in 0..GETS_MAX as u32 {
        rig.ask(A, n, None);
    }
    assert!(rig.server.handle_get(A, sha(0), None, &mut rig.out).is_err());
}
