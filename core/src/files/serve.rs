//! Answers `directory.get`: finds a content's file through the store, reads it as the link drains, and sends nothing
//! that the club does not name (protocol §8, "Content"). Never sends, and never reads a file that has changed.
//!
//! Links at untrusted level must not be routed here: what lies on the disk is plaintext.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
pub use crate::files::serve_find::content_key;
use crate::files::serve_find::{Finder, Found, Located};
use crate::files::serve_patches::Patches;
use crate::files::sources::{Misbehaved, RANGE_BYTES};
use crate::ids::{ConnId, RootId, Sha256, Token};
use crate::index::codec::PeerTable;
use crate::io::disk::{Bytes, Read};
use crate::io::{DiskDone, DiskError, DiskOp, StoreDone, StoreError};

/// At most this many requests of one link are unanswered.
pub const GETS_MAX: usize = 4096;
/// At most this many pieces are read in one operation.
pub const READS_MAX: usize = 64;
/// An operation reads no more than this.
pub const READ_BYTES_MAX: u64 = 4 << 20;
/// At most this many operations read at once.
pub const READ_BATCHES_MAX: usize = 4;
/// At most this much is being read or waits to be taken, for all links together.
pub const SERVE_BYTES_MAX: u64 = 32 << 20;

/// Contents that were not here when they were asked for and of which the end of that is told.
pub const MISSED_MAX: usize = 16_384;

/// An answer to a `directory.get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `directory.data` with its payload, at most 1 MiB.
    Data {
        /// The content.
        sha256: Sha256,
        /// First byte.
        start: u64,
        /// The payload.
        bytes: Bytes,
    },
    /// `directory.not_present`.
    NotPresent {
        /// The content.
        sha256: Sha256,
    },
    /// `rsync.patch` with its payload.
    Patch {
        /// Of which content.
        sha256: Sha256,
        /// Start and length of what it makes.
        range: (u64, u64),
        /// The payload.
        delta: Bytes,
    },
    /// `rsync.end`.
    End {
        /// The content.
        sha256: Sha256,
    },
    /// `directory.get_error`.
    Error {
        /// The content.
        sha256: Sha256,
        /// A short, stable word.
        code: &'static str,
    },
}

/// A request whose content was found. It is in one place at a time: of a long one, one piece after the other is read.
#[derive(Debug)]
struct Ready {
    sha: Sha256,
    at: Arc<Located>,
    /// Which of the places is tried.
    attempt: usize,
    /// Whether the store was asked for this very request.
    fresh: bool,
    /// What the places that failed had to say.
    error: Option<&'static str>,
    next: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Conn {
    /// Requests without their last answer taken.
    unanswered: usize,
    ready: VecDeque<Ready>,
    /// What the link's send queue may still take.
    room: u64,
    /// What is being read for it, or waits to be taken.
    reserved: u64,
}

#[derive(Debug)]
struct Outcome {
    conn: ConnId,
    answer: Answer,
    last: bool,
}

/// Answers the requests of all links of a share.
#[derive(Debug)]
pub struct Server {
    root: RootId,
    conns: BTreeMap<ConnId, Conn>,
    finder: Finder,
    batches: BTreeMap<Token, Vec<(ConnId, Ready)>>,
    answers: VecDeque<Outcome>,
    /// The link that was served last.
    turn: ConnId,
    bytes: u64,
    /// Contents that were asked for and were not here, and who asked; told when they have come.
    missed: BTreeSet<(Sha256, ConnId)>,
    patches: Patches,
}

impl Server {
    /// Makes one.
    pub fn new(root: RootId) -> Server {
        Server {
            root,
            conns: BTreeMap::new(),
            finder: Finder::new(root),
            batches: BTreeMap::new(),
            answers: VecDeque::new(),
            turn: ConnId(0),
            bytes: 0,
            missed: BTreeSet::new(),
            patches: Patches::new(root),
        }
    }

    /// A content is here now: the links that asked for it before, and are to be told.
    pub fn appeared(&mut self, sha256: &Sha256) -> Vec<ConnId> {
        let waits = self.missed.range((*sha256, ConnId(0))..=(*sha256, ConnId(u64::MAX)));
        let waits: Vec<ConnId> = waits.map(|(_, conn)| *conn).collect();
        for &conn in &waits {
            self.missed.remove(&(*sha256, conn));
        }
        waits
    }

    fn miss(&mut self, sha256: Sha256, conn: ConnId) {
        if self.missed.len() >= MISSED_MAX {
            self.missed.pop_first();
        }
        self.missed.insert((sha256, conn));
    }

    /// A `directory.get` of a link at read_only or above.
    pub fn handle_get(
        &mut self,
        conn: ConnId,
        sha256: Sha256,
        range: Option<(u64, u64)>,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        let link = self.conns.entry(conn).or_default();
        if link.unanswered >= GETS_MAX {
            return Err(Misbehaved("more requests than may wait"));
        }
        link.unanswered += 1;
        match self.finder.cached(&sha256) {
            Some(at) => self.found(Found { conn, sha: sha256, range, at: Ok(Some(at)), fresh: false }),
            None => self.finder.push(conn, sha256, range),
        }
        self.drive(out);
        Ok(())
    }

    /// The head of an `rsync.signature` of a link at read_only or above; its payload follows.
    pub fn handle_signature(&mut self, conn: ConnId, sha256: Sha256, start: u64) -> Result<(), Misbehaved> {
        self.patches.handle_signature(conn, sha256, start)
    }

    /// A piece of the payload of the last `rsync.signature` on this link.
    pub fn handle_signature_payload(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        last: bool,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        self.patches.handle_payload(conn, bytes, last, out)
    }

    /// An `rsync.end` of who sent a signature.
    pub fn handle_end(&mut self, conn: ConnId, sha256: Sha256) {
        self.patches.handle_end(conn, sha256);
    }

    /// How many bytes the link's send queue may still take, not counting answers that were not taken yet.
    pub fn set_room(&mut self, conn: ConnId, bytes: u64, out: &mut Outbox) {
        self.conns.entry(conn).or_default().room = bytes;
        self.drive(out);
        self.patches.set_room(conn, bytes, out);
    }

    /// Whether the link has requests that wait for room.
    pub fn wants_room(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|link| !link.ready.is_empty()) || self.patches.wants_room(conn)
    }

    /// A link is gone; nothing may be called for it any more.
    pub fn conn_down(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.finder.conn_down(conn);
        self.patches.conn_down(conn);
        self.missed.retain(|(_, waits)| *waits != conn);
        let bytes = &mut self.bytes;
        self.answers.retain(|outcome| {
            let stays = outcome.conn != conn;
            *bytes -= if stays { 0 } else { size_of_answer(&outcome.answer) };
            stays
        });
    }

    /// What the store says of this path has changed: what was remembered of it is forgotten.
    pub fn path_changed(&mut self, path: &RelPath) {
        self.finder.path_changed(path);
        self.patches.path_changed(path);
    }

    /// Whether this completion is for the server.
    pub fn owns(&self, token: Token) -> bool {
        self.finder.owns(token) || self.batches.contains_key(&token) || self.patches.owns(token)
    }

    /// Takes a completion of the store; false if the token is another's (see [`Server::owns`]).
    pub fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        peers: &PeerTable,
        out: &mut Outbox,
    ) -> bool {
        if !self.finder.owns(token) {
            return self.patches.handle_store(token, result, peers, out);
        }
        for found in self.finder.handle_store(token, result, peers, out) {
            self.found(found);
        }
        self.drive(out);
        true
    }

    /// Takes a completion of the disk; false if the token is another's (see [`Server::owns`]).
    pub fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        out: &mut Outbox,
    ) -> bool {
        let Some(batch) = self.batches.remove(&token) else {
            return self.patches.handle_disk(token, result, out);
        };
        let (items, otherwise) = match result {
            Ok(DiskDone::Data(items)) => (items, DiskError::Io),
            Ok(_) => (Vec::new(), DiskError::Io),
            Err(error) => (Vec::new(), error),
        };
        let mut items = items.into_iter();
        for (conn, ready) in batch {
            self.read(conn, ready, items.next().unwrap_or(Err(otherwise)));
        }
        self.drive(out);
        true
    }

    /// The next answer to send; its bytes count against the room of its link.
    pub fn poll_answer(&mut self) -> Option<(ConnId, Answer)> {
        let Some(Outcome { conn, answer, last }) = self.answers.pop_front() else {
            return self.patches.poll_answer();
        };
        let size = size_of_answer(&answer);
        self.bytes -= size;
        if let Some(link) = self.conns.get_mut(&conn) {
            link.reserved = link.reserved.saturating_sub(size);
            link.room = link.room.saturating_sub(size);
            link.unanswered = link.unanswered.saturating_sub(usize::from(last));
        }
        Some((conn, answer))
    }

    /// Bytes being read, or waiting to be taken, and those of signatures.
    pub fn buffered_bytes(&self) -> u64 {
        self.bytes + self.patches.buffered_bytes()
    }

    /// A content was looked for.
    fn found(&mut self, Found { conn, sha, range, at, fresh }: Found) {
        let Some(link) = self.conns.get_mut(&conn) else { return };
        let answer = match at {
            Err(code) => Answer::Error { sha256: sha, code },
            Ok(None) => Answer::NotPresent { sha256: sha },
            Ok(Some(at)) => {
                let (next, len) = range.unwrap_or((0, at.size));
                let end = next.saturating_add(len);
                if next < end && end <= at.size {
                    link.ready.push_back(Ready { sha, at, attempt: 0, fresh, error: None, next, end });
                    return;
                }
                if range.is_none() {
                    Answer::Data { sha256: sha, start: 0, bytes: Bytes(Vec::new()) }
                } else {
                    Answer::Error { sha256: sha, code: "range" }
                }
            }
        };
        if matches!(answer, Answer::NotPresent { .. }) {
            self.miss(sha, conn);
        }
        self.answers.push_back(Outcome { conn, answer, last: true });
    }

    /// A piece was read, or not.
    fn read(&mut self, conn: ConnId, mut ready: Ready, result: Result<Bytes, DiskError>) {
        let len = ready.piece();
        let Some(link) = self.conns.get_mut(&conn) else {
            self.bytes -= len;
            return;
        };
        let sha = ready.sha;
        let error = match result {
            Ok(bytes) if bytes.0.len() as u64 == len => {
                let last = ready.next + len == ready.end;
                let answer = Answer::Data { sha256: sha, start: ready.next, bytes };
                self.answers.push_back(Outcome { conn, answer, last });
                if !last {
                    ready.next += len;
                    link.ready.push_front(ready);
                }
                return;
            }
            // The stamp fits and the length does not: it was cut while it was read.
            Ok(_) => DiskError::Changed,
            Err(error) => error,
        };
        self.bytes -= len;
        link.reserved = link.reserved.saturating_sub(len);
        self.finder.forget(&sha);
        ready.error = ready.error.or(code_of(error));
        ready.attempt += 1;
        if ready.attempt < ready.at.places.len() {
            link.ready.push_front(ready);
        } else if !ready.fresh {
            self.finder.push(conn, sha, Some((ready.next, ready.end - ready.next)));
        } else {
            let answer = match ready.error {
                Some(code) => Answer::Error { sha256: sha, code },
                None => Answer::NotPresent { sha256: sha },
            };
            if matches!(answer, Answer::NotPresent { .. }) {
                self.miss(sha, conn);
            }
            self.answers.push_back(Outcome { conn, answer, last: true });
        }
    }

    fn drive(&mut self, out: &mut Outbox) {
        for found in self.finder.drive(out) {
            self.found(found);
        }
        while self.batches.len() < READ_BATCHES_MAX && self.bytes < SERVE_BYTES_MAX {
            let (batch, reads) = self.next_batch();
            if batch.is_empty() {
                break;
            }
            self.batches.insert(out.disk(DiskOp::Read { root: self.root, reads }), batch);
        }
    }

    /// Pieces for one operation: of each link one in turn, as long as they have room.
    fn next_batch(&mut self) -> (Vec<(ConnId, Ready)>, Vec<Read>) {
        let (mut batch, mut reads, mut total) = (Vec::new(), Vec::new(), 0);
        while reads.len() < READS_MAX && total < READ_BYTES_MAX && self.bytes < SERVE_BYTES_MAX {
            let after = self.conns.range((Bound::Excluded(self.turn), Bound::Unbounded));
            let mut round = after.chain(self.conns.range(..=self.turn));
            let Some((&conn, _)) = round.find(|(_, link)| link.may_read()) else { break };
            self.turn = conn;
            let Some(link) = self.conns.get_mut(&conn) else { break };
            let Some(ready) = link.ready.pop_front() else { break };
            let len = ready.piece();
            // There is a place for each attempt: `read` stops before one is missing.
            let Some(place) = ready.at.places.get(ready.attempt) else { continue };
            let (path, stamp) = (place.path.clone(), place.stamp);
            // A piece has at most 1 MiB, so the cast is exact.
            reads.push(Read { path, stamp, offset: ready.next, len: len as u32 });
            link.reserved += len;
            self.bytes += len;
            total += len;
            batch.push((conn, ready));
        }
        (batch, reads)
    }
}

impl Conn {
    /// Whether its next piece fits its room; if that is smaller than any piece, one goes when nothing else is
    /// under way.
    fn may_read(&self) -> bool {
        let free = self.room.saturating_sub(self.reserved);
        self.ready.front().is_some_and(|ready| ready.piece() <= free || self.reserved == 0 && free > 0)
    }
}

impl Ready {
    /// Length of the piece that is read next.
    fn piece(&self) -> u64 {
        (self.end - self.next).min(RANGE_BYTES)
    }
}

/// The code of an error that another try would not mend; `None` where the file is simply not there any more.
fn code_of(error: DiskError) -> Option<&'static str> {
    match error {
        DiskError::NotFound | DiskError::Changed | DiskError::WrongKind | DiskError::RootMissing => None,
        DiskError::Denied | DiskError::OtherVolume => Some("denied"),
        _ => Some("io"),
    }
}

fn size_of_answer(answer: &Answer) -> u64 {
    match answer {
        Answer::Data { bytes, .. } => bytes.0.len() as u64,
        // What is done for patches is counted where they are made.
        Answer::Patch { .. } | Answer::End { .. } | Answer::NotPresent { .. } | Answer::Error { .. } => 0,
    }
}
