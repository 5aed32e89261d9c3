//! A fetcher with a scripted disk, store and peers, for its tests.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::fetch::*;
use crate::files::path::RelPath;
use crate::files::rsync::{Command, Commands};
use crate::files::sources::*;
use crate::ids::{ConnId, PeerId, RootId, Sha256, TempId, Token};
use crate::io::disk::{Bytes, Kind, Stage, StageContent, Staged, Stamp};
use crate::io::store::Write;
use crate::io::{DiskDone, DiskError, DiskOp, Output, StoreDone, StoreOp};
use crate::time::{Instant, Now, WallTime};

pub(super) const ROOT: RootId = RootId(7);
pub(super) const A: ConnId = ConnId(1);
pub(super) const B: ConnId = ConnId(2);
pub(super) const MIB: usize = 1 << 20;

pub(super) fn sha(bytes: &[u8]) -> Sha256 {
    Sha256::from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref()).unwrap()
}

pub(super) fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + i / 4099 + seed * 31) as u8).collect()
}

pub(super) fn stamp(size: u64) -> Stamp {
    Stamp { kind: Kind::File, size, mtime_ns: 1, ctime_ns: 1, inode: 1, mode: 0o644 }
}

pub(super) fn path(name: &str) -> RelPath {
    RelPath::from_sort_key(name.as_bytes()).unwrap()
}

/// A fetcher with a disk, a store and peers that do what the test says.
pub(super) struct Rig {
    pub(super) fetcher: Fetcher,
    pub(super) out: Outbox,
    pub(super) now: Now,
    /// What the peers have, in common.
    pub(super) has: BTreeMap<Sha256, Vec<u8>>,
    pub(super) asked: VecDeque<Request>,
    pub(super) temps: BTreeMap<TempId, Vec<u8>>,
    pub(super) files: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) fail: Option<DiskError>,
    /// Disk operations that were carried out, by kind.
    pub(super) stages: Vec<usize>,
    pub(super) flushes: usize,
    pub(super) held: VecDeque<(Token, DiskOp)>,
}

impl Rig {
    pub(super) fn new(conns: &[ConnId]) -> Rig {
        let mut rig = Rig {
            fetcher: Fetcher::new(ROOT, 100),
            out: Outbox::default(),
            now: Now { mono: Instant(1_000_000_000), wall: WallTime(0) },
            has: BTreeMap::new(),
            asked: VecDeque::new(),
            temps: BTreeMap::new(),
            files: BTreeMap::new(),
            rows: BTreeMap::new(),
            fail: None,
            stages: Vec::new(),
            flushes: 0,
            held: VecDeque::new(),
        };
        for &conn in conns {
            rig.up(conn, false);
        }
        rig
    }

    pub(super) fn up(&mut self, conn: ConnId, writer: bool) {
        let peer = PeerId([conn.0 as u8; 16]);
        let can = Abilities { writer, rsync: false };
        self.fetcher.source_up(conn, peer, can, self.now, &mut self.out);
    }

    /// A link that gives patches too.
    pub(super) fn up_rsync(&mut self, conn: ConnId) {
        let (peer, can) = (PeerId([conn.0 as u8; 16]), Abilities { writer: false, rsync: true });
        self.fetcher.source_up(conn, peer, can, self.now, &mut self.out);
    }

    pub(super) fn down(&mut self, conn: ConnId) {
        self.asked.retain(|request| request.0 != conn);
        self.fetcher.source_down(conn, self.now, &mut self.out);
    }

    pub(super) fn later(&mut self, by: Duration) {
        self.now.mono = self.now.mono.plus(by);
        self.fetcher.handle_timeout(self.now, &mut self.out);
    }

    pub(super) fn give(&mut self, content: &[u8]) -> Sha256 {
        let sha = sha(content);
        self.has.insert(sha, content.to_vec());
        sha
    }

    /// A content that the peers have is wanted as the first, and its temp is opened.
    pub(super) fn begin(&mut self, content: &[u8]) -> Sha256 {
        let key = self.give(content);
        self.want(1, content);
        self.disk();
        key
    }

    pub(super) fn try_want(
        &mut self,
        id: u64,
        sha256: Sha256,
        size: usize,
        local: Option<(RelPath, Stamp)>,
    ) -> bool {
        let want =
            Want { id, sha256, size: size as u64, mode: Some(0o600), mtime_ns: Some(5), local, old: None };
        self.fetcher.want(want, self.now, &mut self.out)
    }

    pub(super) fn want(&mut self, id: u64, content: &[u8]) {
        assert!(self.try_want(id, sha(content), content.len(), None));
    }

    /// Takes the requests that are there; returns those of one link.
    pub(super) fn requests(&mut self, conn: ConnId) -> Vec<Request> {
        while let Some(request) = self.fetcher.poll_request() {
            self.asked.push_back(request);
        }
        self.asked.iter().filter(|request| request.0 == conn).copied().collect()
    }

    pub(super) fn data(&mut self, request: Request, bytes: Vec<u8>) -> Result<(), Misbehaved> {
        let (conn, sha, range) = request;
        let at = (range.0, bytes.len() as u64);
        self.asked.retain(|other| *other != request);
        self.fetcher.handle_data_start(conn, sha, at, self.now)?;
        self.fetcher.handle_payload(conn, bytes, true, self.now, &mut self.out)
    }

    pub(super) fn right(&self, (_, sha, range): Request) -> Vec<u8> {
        let content = &self.has[&sha];
        let (start, len) = range;
        content[start as usize..(start + len) as usize].to_vec()
    }

    pub(super) fn answer(&mut self, request: Request) {
        let bytes = self.right(request);
        self.data(request, bytes).unwrap();
    }

    /// Answers everything and does all disk work until nothing happens any more.
    pub(super) fn settle(&mut self) {
        loop {
            self.disk();
            let Some(&request) = self.requests(A).first().or(self.requests(B).first()) else {
                if !self.disk() {
                    return;
                }
                continue;
            };
            let (_, sha, (start, len)) = request;
            match self.has.get(&sha).is_some_and(|content| start + len <= content.len() as u64) {
                true => self.answer(request),
                false => self.refuse(request),
            }
        }
    }

    pub(super) fn refuse(&mut self, request: Request) {
        self.asked.retain(|other| *other != request);
        self.fetcher.handle_not_present(request.0, request.1, self.now, &mut self.out);
    }

    /// Carries out all disk and store work; whether there was any.
    pub(super) fn disk(&mut self) -> bool {
        let mut any = false;
        while let Some((token, op)) = self.next_op() {
            any = true;
            let result = self.carry_out(op);
            assert!(self.fetcher.handle_disk(token, result, self.now, &mut self.out));
        }
        any
    }

    /// The next disk operation, not carried out; the store's are carried out on the way.
    pub(super) fn next_op(&mut self) -> Option<(Token, DiskOp)> {
        if let Some(held) = self.held.pop_front() {
            return Some(held);
        }
        loop {
            match self.out.pop()? {
                Output::Disk { token, op } => return Some((token, op)),
                Output::Store { token, op: StoreOp::Commit { writes, .. } } => {
                    for write in writes {
                        match write {
                            Write::Put { key, value, .. } => _ = self.rows.insert(key, value),
                            Write::Delete { key, .. } => _ = self.rows.remove(&key),
                            Write::DeleteRange { .. } => unreachable!(),
                        }
                    }
                    assert!(self.fetcher.handle_store(token, Ok(StoreDone::Committed)));
                }
                _ => unreachable!(),
            }
        }
    }

    pub(super) fn carry_out(&mut self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if let (Some(error), false) = (self.fail, matches!(op, DiskOp::RemoveTemps { .. })) {
            return Err(error);
        }
        let done = |bytes: &[u8]| Staged { sha256: sha(bytes), stamp: stamp(bytes.len() as u64) };
        Ok(match op {
            DiskOp::Stage { files, .. } => {
                self.stages.push(files.len());
                let mut results = Vec::new();
                for Stage { temp, content, .. } in files {
                    let bytes = match content {
                        StageContent::File(bytes) => Some(bytes),
                        StageContent::Copy { from, .. } => self.files.get(&from.sort_key()).cloned(),
                        StageContent::Link(_) => unreachable!(),
                    };
                    results.push(
                        bytes
                            .map(|bytes| {
                                let staged = done(&bytes);
                                self.temps.insert(temp, bytes);
                                staged
                            })
                            .ok_or(DiskError::NotFound),
                    );
                }
                DiskDone::Staged(results)
            }
            DiskOp::OpenTemp { temp, size, .. } => {
                let existing = self.temps.get(&temp).map_or(0, Vec::len) as u64;
                self.temps.entry(temp).or_default().resize(size as usize, 0);
                DiskDone::TempOpened { existing }
            }
            DiskOp::WriteTemp { temp, offset, data: Bytes(data), .. } => {
                let at = offset as usize;
                self.temps.get_mut(&temp).ok_or(DiskError::NotFound)?[at..at + data.len()]
                    .copy_from_slice(&data);
                DiskDone::Unit
            }
            DiskOp::Sign { read, head, .. } => {
                let old = self.files.get(&read.path.sort_key()).ok_or(DiskError::Changed)?;
                let piece = old.len().saturating_sub(read.offset as usize).min(read.len as usize);
                let blocks = piece.div_ceil(head.block as usize);
                DiskDone::Data(vec![Ok(Bytes(vec![7; blocks * head.entry_bytes() as usize]))])
            }
            DiskOp::PatchTemp { temp, offset, from, delta, .. } => {
                let old = self.files.get(&from.sort_key()).ok_or(DiskError::Changed)?;
                let mut at = offset as usize;
                let made = self.temps.get_mut(&temp).ok_or(DiskError::NotFound)?;
                for command in Commands::of(&delta.0) {
                    let bytes = match command.map_err(|_| DiskError::Io)? {
                        Command::Literal(range) => &delta.0[range],
                        Command::Copy { from, len } => &old[from as usize..(from + len) as usize],
                    };
                    made[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                }
                DiskDone::Unit
            }
            DiskOp::FlushTemp { .. } => {
                self.flushes += 1;
                DiskDone::Unit
            }
            DiskOp::FinishTemp { temp, .. } => DiskDone::Staged(vec![Ok(done(&self.temps[&temp]))]),
            DiskOp::RemoveTemps { temps, .. } => {
                temps.iter().for_each(|temp| _ = self.temps.remove(temp));
                DiskDone::Unit
            }
            other => unreachable!("{other:?}"),
        })
    }

    /// The bytes of the next outcome's temp.
    pub(super) fn done(&mut self) -> Option<(u64, Result<Vec<u8>, FetchError>)> {
        let Fetched { id, result } = self.fetcher.poll_done()?;
        Some((
            id,
            result.map(|(temp, staged)| {
                let bytes = self.temps[&temp].clone();
                assert_eq!(staged.sha256, sha(&bytes));
                bytes
            }),
        ))
    }

    pub(super) fn assert_empty(&self) {
        assert_eq!(self.fetcher.capacity(), WANTS_MAX);
        assert_eq!(self.fetcher.outstanding_bytes(), 0);
        assert_eq!(self.fetcher.buffered_bytes(), 0);
        assert_eq!(self.fetcher.poll_timeout(), None);
    }
}
