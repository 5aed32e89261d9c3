//! Making patches against a scripted disk and store.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::files::row::{Base, DiskState, PathRow};
use crate::files::rsync::{BLOCK_BYTES_MIN, BLOCKS_MAX, DeltaWriter, HEAD_BYTES, Head};
use crate::files::serve_find::content_key;
use crate::ids::Uuid;
use crate::index::record::EntryContent;
use crate::io::disk::{Bytes, Kind, Stamp};
use crate::io::store::{Query, Row};
use crate::io::{Output, StoreOp};

const ROOT: RootId = RootId(7);
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const MIB: u64 = 1 << 20;
const SHA: Sha256 = Sha256([5; 32]);
const END: Answer = Answer::End { sha256: SHA };

fn path(name: &str) -> RelPath {
    RelPath::from_sort_key(name.as_bytes()).unwrap()
}

/// A file of 40 MiB of which each window is the same as before, unless `new` bytes of it are new.
struct Rig {
    patches: Patches,
    out: Outbox,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    peers: PeerTable,
    new: u64,
    fails: Option<DiskError>,
    windows: Vec<Read>,
}

impl Rig {
    fn new() -> Rig {
        let mut rig = Rig {
            patches: Patches::new(ROOT),
            out: Outbox::default(),
            rows: BTreeMap::new(),
            peers: PeerTable::default(),
            new: 0,
            fails: None,
            windows: Vec::new(),
        };
        rig.file(Base::Index(Uuid([1; 16])));
        rig
    }

    fn file(&mut self, base: Base) {
        let size = 40 * MIB;
        let stamp = Stamp { kind: Kind::File, size, mtime_ns: 0, ctime_ns: 0, inode: 1, mode: 0o644 };
        let content = EntryContent::File { size, sha256: SHA };
        let disk = Some(DiskState { stamp, content, settled: true });
        let mut value = Vec::new();
        PathRow { disk, base, ..PathRow::default() }.encode(&mut self.peers, &mut value);
        let mut key = ROOT.0.to_be_bytes().to_vec();
        key.extend_from_slice(&path("file").sort_key());
        self.rows.insert(key, value);
        self.rows.insert(content_key(ROOT, &SHA, &path("file")), vec![]);
    }

    fn sign(&mut self, conn: ConnId, sha: Sha256, start: u64, signature: &[u8]) -> Result<(), Misbehaved> {
        self.patches.handle_signature(conn, sha, start)?;
        let middle = signature.len() / 2;
        self.patches.handle_payload(conn, &signature[..middle], false, &mut self.out)?;
        self.patches.handle_payload(conn, &signature[middle..], true, &mut self.out)
    }

    fn rows(&self, query: &Query) -> Vec<Row> {
        match query {
            Query::Get { key, .. } => {
                self.rows.get(key).map(|value| (key.clone(), value.clone())).into_iter().collect()
            }
            Query::Range { start, end, .. } => {
                self.rows.range(start.clone()..end.clone()).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            Query::Last { .. } => unreachable!(),
        }
    }

    /// Does all work of the disk and the store that is there.
    fn work(&mut self) {
        while let Some(output) = self.out.pop() {
            match output {
                Output::Store { token, op: StoreOp::Load { queries } } => {
                    let rows = queries.iter().map(|query| self.rows(query)).collect();
                    let loaded = Ok(StoreDone::Loaded(rows));
                    assert!(self.patches.handle_store(token, loaded, &self.peers, &mut self.out));
                }
                Output::Disk { token, op: DiskOp::Delta { read, expected, .. } } => {
                    let len = u64::from(read.len);
                    let mut delta = DeltaWriter::default();
                    delta.literal(&vec![7; self.new.min(len) as usize]);
                    delta.copy(0, len - self.new.min(len));
                    let delta = Bytes(delta.finish());
                    let done = DiskDone::Delta { delta, len, next: expected + 1 };
                    let result = self.fails.map_or(Ok(done), Err);
                    self.windows.push(read);
                    assert!(self.patches.handle_disk(token, result, &mut self.out));
                }
                _ => unreachable!(),
            }
        }
    }

    /// All answers, where each is sent at once.
    fn answers(&mut self, conn: ConnId) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            self.patches.set_room(conn, 8 * MIB, &mut self.out);
            self.work();
            let Some((to, answer)) = self.patches.poll_answer() else { return answers };
            assert_eq!(to, conn);
            answers.push(answer);
        }
    }
}

fn signature(blocks: u64) -> Vec<u8> {
    let mut signature = Head { block: 1024, hash: 8 }.encode().to_vec();
    signature.resize(HEAD_BYTES + 12 * blocks as usize, 1);
    signature
}

fn ranges(answers: &[Answer]) -> Vec<(u64, u64)> {
    let range = |answer: &Answer| if let Answer::Patch { range, .. } = answer { Some(*range) } else { None };
    answers.iter().filter_map(range).collect()
}

#[test]
fn patches_follow_one_another_and_then_the_end() {
    for start in [0, 7, 36 * MIB, 40 * MIB - 1] {
        let mut rig = Rig::new();
        rig.sign(A, SHA, start, &signature(9)).unwrap();
        let answers = rig.answers(A);
        let mut next = start;
        for (start, len) in ranges(&answers) {
            assert_eq!(start, next);
            next += len;
        }
        assert_eq!(next, 40 * MIB);
        assert_eq!(answers.last(), Some(&END));
        assert_eq!(rig.patches.buffered_bytes(), 0);
    }
}

#[test]
fn what_the_club_does_not_name_is_refused_like_what_is_not_there() {
    let mut rig = Rig::new();
    let other = Sha256([6; 32]);
    rig.sign(A, other, 0, &signature(9)).unwrap();
    assert_eq!(rig.answers(A), [Answer::End { sha256: other }]);
    // It lies here, but no record of the club has named it yet.
    rig.file(Base::None);
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    assert_eq!(rig.answers(A), [END]);
    assert!(rig.windows.is_empty());
}

#[test]
fn a_signature_of_no_use_is_refused() {
    let bad: [Vec<u8>; 5] = [
        Vec::new(),
        signature(9)[..20].to_vec(),
        [&[0x72, 0x73, 0x01, 0x37], &signature(9)[4..]].concat(),
        Head { block: 0, hash: 8 }.encode().to_vec(),
        Head { block: BLOCK_BYTES_MIN - 1, hash: 8 }.encode().to_vec(),
    ];
    for bad in bad {
        let mut rig = Rig::new();
        rig.sign(A, SHA, 0, &bad).unwrap();
        assert_eq!(rig.answers(A), [END]);
    }
    let mut rig = Rig::new();
    rig.sign(A, SHA, 40 * MIB, &signature(9)).unwrap();
    assert_eq!(rig.answers(A), [END], "from beyond its end on");
}

#[test]
fn a_signature_is_so_long_and_no_longer() {
    let mut most = Head { block: 1024, hash: 16 }.encode().to_vec();
    most.resize(SIGNATURE_BYTES_MAX as usize, 1);
    assert_eq!(Signature::of(most.clone()).unwrap().blocks(), BLOCKS_MAX);
    let mut rig = Rig::new();
    rig.sign(A, SHA, 0, &most).unwrap();
    assert!(!ranges(&rig.answers(A)).is_empty());
    most.push(1);
    assert!(rig.sign(A, SHA, 0, &most).is_err());
}

#[test]
fn so_many_bytes_of_signatures_are_held_and_no_more() {
    let mut most = Head { block: 1024, hash: 16 }.encode().to_vec();
    most.resize(SIGNATURE_BYTES_MAX as usize, 1);
    let mut rig = Rig::new();
    let shas: Vec<Sha256> = (0..4).map(|n| Sha256([n; 32])).collect();
    for sha in &shas[..3] {
        rig.sign(A, *sha, 0, &most).unwrap();
    }
    assert_eq!(rig.patches.buffered_bytes(), 3 * SIGNATURE_BYTES_MAX);
    rig.sign(B, shas[3], 0, &most).unwrap();
    assert_eq!(rig.patches.buffered_bytes(), 3 * SIGNATURE_BYTES_MAX);
    assert_eq!(rig.patches.poll_answer(), Some((B, Answer::End { sha256: shas[3] })));
    // One that is still coming counts as well.
    rig.patches.handle_signature(B, shas[3], 0).unwrap();
    rig.patches.handle_payload(B, &most[..100], false, &mut rig.out).unwrap();
    assert_eq!(rig.patches.buffered_bytes(), 3 * SIGNATURE_BYTES_MAX + 100);
    rig.patches.conn_down(B);
    rig.patches.conn_down(A);
    assert_eq!(rig.patches.buffered_bytes(), 0);
}

#[test]
fn so_many_contents_are_compared_for_a_link_and_no_more() {
    let mut rig = Rig::new();
    for n in 0..=COMPARED_MAX as u8 {
        assert_eq!(rig.patches.poll_answer(), None);
        rig.sign(A, Sha256([n; 32]), 0, &signature(1)).unwrap();
    }
    let last = Sha256([COMPARED_MAX as u8; 32]);
    assert_eq!(rig.patches.poll_answer(), Some((A, Answer::End { sha256: last })));
    assert!(rig.sign(A, Sha256([0; 32]), 0, &signature(1)).is_err(), "one that is being patched");
}

#[test]
fn what_does_not_pay_ends() {
    let mut rig = Rig::new();
    rig.new = 4 * MIB;
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    let answers = rig.answers(A);
    // The first that goes beyond what may be new is sent still.
    assert_eq!(ranges(&answers), [(0, 4 * MIB), (4 * MIB, 4 * MIB)]);
    assert_eq!(answers.last(), Some(&END));
}

#[test]
fn who_wants_no_more_gets_no_more() {
    let mut rig = Rig::new();
    rig.patches.set_room(A, 8 * MIB, &mut rig.out);
    rig.patches.handle_end(A, SHA);
    assert_eq!(rig.answers(A), []);
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    rig.patches.handle_end(A, SHA);
    assert_eq!(rig.answers(A), [END]);
    assert!(rig.windows.is_empty());
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    assert!(!ranges(&rig.answers(A)).is_empty());
}

#[test]
fn a_link_that_takes_nothing_is_compared_nothing_for() {
    let mut rig = Rig::new();
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    rig.patches.set_room(A, 0, &mut rig.out);
    rig.work();
    assert!(rig.windows.is_empty() && rig.patches.wants_room(A));
    rig.patches.set_room(A, 1, &mut rig.out);
    rig.work();
    assert_eq!(rig.windows.len(), 1);
    rig.patches.set_room(A, 8 * MIB, &mut rig.out);
    rig.work();
    assert_eq!(rig.windows.len(), LINK_WINDOWS_MAX, "what is not taken holds the rest up");
}

#[test]
fn a_file_that_changed_is_looked_for_once_more_and_given_up() {
    let mut rig = Rig::new();
    rig.fails = Some(DiskError::Changed);
    rig.sign(A, SHA, 0, &signature(9)).unwrap();
    assert_eq!(rig.answers(A), [END]);
    assert_eq!(rig.windows.len(), 1, "the store had been asked just before");
}
