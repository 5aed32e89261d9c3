//! Answers `rsync.signature`: has a content compared with it window by window, as the link drains, and gives up where
//! that does not pay (protocol §8, "rsync"). Sends nothing that the club does not name, and reads no file that has
//! changed.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::rsync::{PATCH_BYTES_MAX, SIGNATURE_BYTES_MAX, Signature, window_bytes};
use crate::files::serve::Answer;
use crate::files::serve_find::{Finder, Found, Located};
use crate::files::sources::Misbehaved;
use crate::ids::{ConnId, RootId, Sha256, Token};
use crate::index::codec::PeerTable;
use crate::io::disk::Read;
use crate::io::{DiskDone, DiskError, DiskOp, StoreDone, StoreError};

/// At most this many contents are compared for one link at a time; what more it asks for is refused.
pub const COMPARED_MAX: usize = 16;
/// At most so many bytes of signatures are held for all links together; one that comes beyond is refused.
pub const SIGNATURES_BYTES_MAX: u64 = 8 << 20;
/// At most this many windows of one link are compared, or wait to be sent.
pub const LINK_WINDOWS_MAX: usize = 2;
/// At most this many windows are compared at once.
pub const WINDOWS_MAX: usize = 4;
/// So many new bytes may come without anything that was there before. Looking for blocks costs as much as sending.
pub const NEW_BYTES_MIN: u64 = 8 << 20;

/// A content of which patches are made.
#[derive(Debug)]
struct Patching {
    signature: Arc<Signature>,
    at: Option<Arc<Located>>,
    /// Whether the store was asked for this very request.
    fresh: bool,
    /// Which of the places is tried.
    attempt: usize,
    /// The window that is being compared.
    under_way: Option<Token>,
    next: u64,
    /// The block with which the next window may begin.
    expected: u64,
    /// Bytes of patches, and what they make.
    sent: u64,
    made: u64,
}

#[derive(Debug)]
struct Incoming {
    sha256: Sha256,
    start: u64,
    bytes: Vec<u8>,
    refused: bool,
}

#[derive(Debug, Default)]
struct Link {
    incoming: Option<Incoming>,
    patching: BTreeMap<Sha256, Patching>,
    /// Those of them that are not being compared, in turn.
    turns: VecDeque<Sha256>,
    windows: usize,
    room: u64,
}

/// Makes the patches for all links of a share.
#[derive(Debug)]
pub(super) struct Patches {
    root: RootId,
    links: BTreeMap<ConnId, Link>,
    finder: Finder,
    jobs: BTreeMap<Token, (ConnId, Sha256)>,
    answers: VecDeque<(ConnId, Answer)>,
    /// Bytes of signatures, coming or held.
    bytes: u64,
}

impl Patches {
    pub(super) fn new(root: RootId) -> Patches {
        Patches {
            root,
            links: BTreeMap::new(),
            finder: Finder::new(root),
            jobs: BTreeMap::new(),
            answers: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The head of an `rsync.signature`; its payload follows.
    pub(super) fn handle_signature(
        &mut self,
        conn: ConnId,
        sha256: Sha256,
        start: u64,
    ) -> Result<(), Misbehaved> {
        let link = self.links.entry(conn).or_default();
        if link.incoming.is_some() {
            return Err(Misbehaved("a signature within a signature"));
        }
        if link.patching.contains_key(&sha256) {
            return Err(Misbehaved("a signature for what is being patched already"));
        }
        let refused = link.patching.len() >= COMPARED_MAX;
        link.incoming = Some(Incoming { sha256, start, bytes: Vec::new(), refused });
        Ok(())
    }

    /// A piece of the payload of the last `rsync.signature` on this link.
    pub(super) fn handle_payload(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        last: bool,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let incoming = link.incoming.as_mut().ok_or(Misbehaved("a payload without its signature"))?;
        let more = bytes.len() as u64;
        if incoming.bytes.len() as u64 + more > SIGNATURE_BYTES_MAX {
            return Err(Misbehaved("a signature longer than allowed"));
        }
        if self.bytes + more > SIGNATURES_BYTES_MAX {
            self.bytes -= core::mem::take(&mut incoming.bytes).len() as u64;
            incoming.refused = true;
        }
        if !incoming.refused {
            self.bytes += more;
            incoming.bytes.extend_from_slice(bytes);
        }
        if last && let Some(incoming) = link.incoming.take() {
            self.signed(conn, incoming, out);
        }
        Ok(())
    }

    fn signed(&mut self, conn: ConnId, incoming: Incoming, out: &mut Outbox) {
        let Incoming { sha256, start, bytes, refused } = incoming;
        self.bytes -= bytes.len() as u64;
        let signature = Signature::of(bytes).filter(|_| !refused);
        let (Some(signature), Some(link)) = (signature, self.links.get_mut(&conn)) else {
            self.answers.push_back((conn, Answer::End { sha256 }));
            return;
        };
        self.bytes += signature.bytes();
        let block = u64::from(signature.head.block);
        let patching = Patching {
            signature: Arc::new(signature),
            at: None,
            fresh: false,
            attempt: 0,
            under_way: None,
            next: start,
            // Most edits leave the rest where it was.
            expected: if start.is_multiple_of(block) { start / block } else { 0 },
            sent: 0,
            made: 0,
        };
        link.patching.insert(sha256, patching);
        self.finder.push(conn, sha256, None);
        self.drive(out);
    }

    /// An `rsync.end` of who asked: nothing more of this content is wanted.
    pub(super) fn handle_end(&mut self, conn: ConnId, sha256: Sha256) {
        self.end(conn, sha256);
    }

    /// Says that nothing more follows of a content, if anything would.
    fn end(&mut self, conn: ConnId, sha256: Sha256) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if let Some(patching) = link.patching.remove(&sha256) {
            link.turns.retain(|turn| *turn != sha256);
            self.bytes -= patching.signature.bytes();
            self.answers.push_back((conn, Answer::End { sha256 }));
        }
    }

    pub(super) fn set_room(&mut self, conn: ConnId, bytes: u64, out: &mut Outbox) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.room = bytes;
            self.drive(out);
        }
    }

    pub(super) fn wants_room(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| !link.turns.is_empty())
    }

    pub(super) fn conn_down(&mut self, conn: ConnId) {
        if let Some(link) = self.links.remove(&conn) {
            self.bytes -= link.incoming.map_or(0, |incoming| incoming.bytes.len() as u64);
            self.bytes -= link.patching.values().map(|patching| patching.signature.bytes()).sum::<u64>();
        }
        self.finder.conn_down(conn);
        self.answers.retain(|(other, _)| *other != conn);
    }

    pub(super) fn path_changed(&mut self, path: &RelPath) {
        self.finder.path_changed(path);
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        self.finder.owns(token) || self.jobs.contains_key(&token)
    }

    /// Takes a completion of the store; false if the token is another's.
    pub(super) fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        peers: &PeerTable,
        out: &mut Outbox,
    ) -> bool {
        if !self.finder.owns(token) {
            return false;
        }
        for found in self.finder.handle_store(token, result, peers, out) {
            self.found(found);
        }
        self.drive(out);
        true
    }

    fn found(&mut self, Found { conn, sha, at, fresh, .. }: Found) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(patching) = link.patching.get_mut(&sha).filter(|patching| patching.under_way.is_none())
        else {
            return;
        };
        match at {
            Ok(Some(at)) if patching.next < at.size => {
                (patching.at, patching.fresh, patching.attempt) = (Some(at), fresh, 0);
                link.turns.retain(|turn| *turn != sha);
                link.turns.push_back(sha);
            }
            _ => self.end(conn, sha),
        }
    }

    /// Takes a completion of the disk; false if the token is another's.
    pub(super) fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        out: &mut Outbox,
    ) -> bool {
        let Some((conn, sha256)) = self.jobs.remove(&token) else { return false };
        self.compared(token, conn, sha256, result);
        self.drive(out);
        true
    }

    fn compared(&mut self, token: Token, conn: ConnId, sha256: Sha256, result: Result<DiskDone, DiskError>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let patching = link.patching.get_mut(&sha256);
        let patching = patching.filter(|patching| patching.under_way == Some(token));
        let Some((patching, at)) = patching.and_then(|patching| patching.at.clone().map(|at| (patching, at)))
        else {
            link.windows -= 1;
            return;
        };
        patching.under_way = None;
        let left = at.size - patching.next;
        match result {
            Ok(DiskDone::Delta { delta, len, next }) if (1..=left).contains(&len) => {
                let start = patching.next;
                patching.next += len;
                patching.expected = next;
                patching.sent += delta.0.len() as u64;
                patching.made += len;
                let same = patching.made.saturating_sub(patching.sent);
                let more = len < left && patching.sent <= NEW_BYTES_MIN + same / 2;
                self.answers.push_back((conn, Answer::Patch { sha256, range: (start, len), delta }));
                if more {
                    link.turns.push_back(sha256);
                } else {
                    self.end(conn, sha256);
                }
                return;
            }
            // Another file may have the content still.
            _ => patching.attempt += 1,
        }
        link.windows -= 1;
        let (more, fresh) = (patching.attempt < at.places.len(), patching.fresh);
        if more {
            link.turns.push_back(sha256);
        } else if fresh {
            self.end(conn, sha256);
        } else {
            self.finder.forget(&sha256);
            self.finder.push(conn, sha256, None);
        }
    }

    /// The next answer to send.
    pub(super) fn poll_answer(&mut self) -> Option<(ConnId, Answer)> {
        let (conn, answer) = self.answers.pop_front()?;
        if let Answer::Patch { delta, .. } = &answer
            && let Some(link) = self.links.get_mut(&conn)
        {
            link.windows -= 1;
            link.room = link.room.saturating_sub(delta.0.len() as u64);
        }
        Some((conn, answer))
    }

    /// Bytes of signatures that are held.
    pub(super) fn buffered_bytes(&self) -> u64 {
        self.bytes
    }

    fn drive(&mut self, out: &mut Outbox) {
        for found in self.finder.drive(out) {
            self.found(found);
        }
        for (&conn, link) in &mut self.links {
            while self.jobs.len() < WINDOWS_MAX
                && link.has_room()
                && let Some(sha256) = link.turns.pop_front()
            {
                let Some(patching) = link.patching.get_mut(&sha256) else { continue };
                // There is a place for each attempt: `compared` stops before one is missing.
                let at =
                    patching.at.as_ref().and_then(|at| Some((at.places.get(patching.attempt)?, at.size)));
                let Some((place, size)) = at else { continue };
                let window = window_bytes(patching.signature.head.block).min(size - patching.next);
                let (path, stamp) = (place.path.clone(), place.stamp);
                // At most `WINDOW_BYTES_MAX`, so the cast is exact.
                let read = Read { path, stamp, offset: patching.next, len: window as u32 };
                let signature = patching.signature.clone();
                let op = DiskOp::Delta { root: self.root, read, expected: patching.expected, signature };
                let token = out.disk(op);
                patching.under_way = Some(token);
                link.windows += 1;
                self.jobs.insert(token, (conn, sha256));
            }
        }
    }
}

impl Link {
    /// Whether one more patch fits; if even one does not, one goes when nothing else is under way.
    fn has_room(&self) -> bool {
        let taken = (self.windows as u64 + 1) * PATCH_BYTES_MAX;
        self.windows < LINK_WINDOWS_MAX && (taken <= self.room || self.windows == 0 && self.room > 0)
    }
}

#[cfg(test)]
#[path = "serve_patches_tests.rs"]
mod tests;
