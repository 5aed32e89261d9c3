//! Large contents of which an older version is here: that is signed, and what differs is asked of one link, which gives
//! it from the first byte on (protocol §8, "rsync"). What it does not give, for whatever reason, is fetched as any
//! other content; so a delta can fail, and never harm.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::{Givers, Job, Large, Larges, Stage, Step};
use crate::engine::outbox::Outbox;
use crate::files::fetch::{Common, Old};
use crate::files::partial::pieces_of;
use crate::files::rsync::{
    BLOCK_BYTES_MAX, DELTA_BYTES_MIN, HASH_BYTES_MIN, Head, OLD_PART_MIN, PATCH_BYTES_MAX, SIGN_BYTES_MAX,
    WINDOW_BYTES_MAX, block_size, is_delta,
};
use crate::files::sources::{Among, Misbehaved, RANGE_BYTES};
use crate::ids::{ConnId, Sha256};
use crate::io::disk::{Bytes, Read};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::time::Instant;

/// A peer that gives no patch for so long gives none any more.
pub const PATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// At most this many pieces of one file are signed at once.
const SIGN_OPS_MAX: usize = 3;

/// A message of the `rsync` extension that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `rsync.signature`.
    Signature {
        /// What is wanted.
        sha256: Sha256,
        /// What is here.
        old_sha256: Sha256,
        /// First byte that is wanted.
        start: u64,
        /// The payload.
        signature: Bytes,
    },
    /// `rsync.end`: nothing more of this content is wanted.
    Stop {
        /// Which.
        sha256: Sha256,
    },
}

#[derive(Debug)]
struct Incoming {
    sha256: Sha256,
    start: u64,
    len: u64,
    bytes: Vec<u8>,
}

/// A link that speaks `rsync`.
#[derive(Debug, Default)]
struct Link {
    /// Where the next patch of each content begins that it was asked for and has not ended, and whether anybody waits
    /// for it.
    owed: BTreeMap<Sha256, (u64, bool)>,
    incoming: Option<Incoming>,
}

/// The links that speak `rsync`.
#[derive(Debug, Default)]
pub(in crate::files) struct Links {
    links: BTreeMap<ConnId, Link>,
    words: VecDeque<(ConnId, Word)>,
}

/// A patch that is complete.
#[derive(Debug)]
pub(in crate::files) struct Patch {
    sha256: Sha256,
    start: u64,
    len: u64,
    delta: Vec<u8>,
}

impl Links {
    pub(in crate::files) fn up(&mut self, conn: ConnId) {
        self.links.insert(conn, Link::default());
    }

    pub(in crate::files) fn down(&mut self, conn: ConnId) {
        self.links.remove(&conn);
        self.words.retain(|(other, _)| *other != conn);
    }

    pub(in crate::files) fn any(&self) -> bool {
        !self.links.is_empty()
    }

    pub(in crate::files) fn poll(&mut self) -> Option<(ConnId, Word)> {
        self.words.pop_front()
    }

    /// A link of these may be asked for patches of this content.
    fn pick(&self, common: &Common, among: &Among<'_>) -> Option<ConnId> {
        let free = self.links.iter().filter(|(_, link)| !link.owed.contains_key(among.sha));
        free.map(|(&conn, _)| conn).find(|&conn| common.sources.may_ask(conn, among))
    }

    fn ask(&mut self, conn: ConnId, word: Word) {
        if let (Some(link), Word::Signature { sha256, start, .. }) = (self.links.get_mut(&conn), &word) {
            link.owed.insert(*sha256, (*start, true));
            self.words.push_back((conn, word));
        }
    }

    /// All that was asked for of a content is here.
    fn settle(&mut self, conn: ConnId, sha256: &Sha256) {
        if let Some((_, wanted)) = self.links.get_mut(&conn).and_then(|link| link.owed.get_mut(sha256)) {
            *wanted = false;
        }
    }

    /// Nobody waits for this content any more.
    pub(in crate::files) fn drop_content(&mut self, sha256: &Sha256) {
        for (&conn, link) in &mut self.links {
            if let Some((_, wanted)) = link.owed.get_mut(sha256)
                && mem::take(wanted)
            {
                self.words.push_back((conn, Word::Stop { sha256: *sha256 }));
            }
        }
    }

    /// The head of an `rsync.patch`.
    pub(in crate::files) fn patch_start(
        &mut self,
        conn: ConnId,
        sha256: Sha256,
        (start, len): (u64, u64),
    ) -> Result<(), Misbehaved> {
        let link = self.links.get_mut(&conn).ok_or(Misbehaved("a patch before anything was asked"))?;
        if link.incoming.is_some() {
            return Err(Misbehaved("a patch within a patch"));
        }
        let (next, _) = link.owed.get_mut(&sha256).ok_or(Misbehaved("a patch that was not asked for"))?;
        if start != *next || len == 0 || len > WINDOW_BYTES_MAX {
            return Err(Misbehaved("a patch of another piece than was asked for"));
        }
        *next = start.saturating_add(len);
        link.incoming = Some(Incoming { sha256, start, len, bytes: Vec::new() });
        Ok(())
    }

    /// A piece of the payload that follows; returns the whole once it is there, if anybody waits for it.
    pub(in crate::files) fn payload(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<Patch>, Misbehaved> {
        let link = self.links.get_mut(&conn).ok_or(Misbehaved("a payload before anything was asked"))?;
        let incoming = link.incoming.as_mut().ok_or(Misbehaved("a payload without its patch"))?;
        if incoming.bytes.len() as u64 + bytes.len() as u64 > PATCH_BYTES_MAX {
            return Err(Misbehaved("a patch longer than allowed"));
        }
        incoming.bytes.extend_from_slice(bytes);
        if !last {
            return Ok(None);
        }
        let Some(Incoming { sha256, start, len, bytes }) = link.incoming.take() else { return Ok(None) };
        let wanted = link.owed.get(&sha256).is_some_and(|(_, wanted)| *wanted);
        Ok(wanted.then_some(Patch { sha256, start, len, delta: bytes }))
    }

    /// An `rsync.end`; whether somebody waited for more.
    pub(in crate::files) fn end(&mut self, conn: ConnId, sha256: &Sha256) -> bool {
        let owed = self.links.get_mut(&conn).and_then(|link| link.owed.remove(sha256));
        owed.is_some_and(|(_, wanted)| wanted)
    }
}

/// How far the delta of a content got.
#[derive(Debug)]
pub(super) struct Delta {
    head: Head,
    /// What comes of the signature, by where its blocks begin.
    sums: BTreeMap<u64, Vec<u8>>,
    /// First byte of the old file that is to be signed.
    unsigned: u64,
    signing: usize,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    conn: ConnId,
    /// First byte that the next patch makes.
    next: u64,
    /// When it is not waited for any more.
    until: Instant,
}

/// Whether a delta to a content of this size may pay at all.
pub(in crate::files) fn may_pay(old: &Old, size: u64) -> bool {
    size > DELTA_BYTES_MIN && old.stamp.size.saturating_mul(OLD_PART_MIN) >= size
}

impl Large {
    /// The rest is fetched as if there were no older version.
    fn give_delta_up(&mut self, sha: &Sha256, common: &mut Common) {
        self.old = None;
        if self.delta.take().is_some_and(|delta| delta.asked.is_some()) {
            common.deltas.drop_content(sha);
        }
    }

    /// When patches are not waited for any more. While the disk is behind, silence is our own.
    pub(super) fn patch_due(&self) -> Option<Instant> {
        let asked = self.delta.as_ref()?.asked.as_ref()?;
        (self.ops == 0).then_some(asked.until)
    }

    pub(super) fn wait_for_patch(&mut self, now: Instant) {
        if let Some(asked) = self.delta.as_mut().and_then(|delta| delta.asked.as_mut()) {
            asked.until = now.plus(PATCH_TIMEOUT);
        }
    }
}

impl Larges {
    /// Goes on with what is to be had as the difference to an older version.
    pub(super) fn drive_deltas(&mut self, now: Instant, common: &mut Common, out: &mut Outbox) {
        for at in 0..self.active.len() {
            let sha = self.active[at];
            self.begin_delta(&sha, common);
            self.sign(&sha, now, common, out);
            if let Some(content) = self.contents.get_mut(&sha)
                && content.patch_due().is_some_and(|due| due <= now)
            {
                content.give_delta_up(&sha, common);
            }
        }
    }

    fn begin_delta(&mut self, sha: &Sha256, common: &mut Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        let idle = content.stage == Stage::Fetching && content.waiting.is_none() && content.asked.is_empty();
        let Some(old) = content.old.as_ref().filter(|_| idle && content.delta.is_none()) else { return };
        let among = Among { sha, size: content.size, absent: &content.absent, sole: None };
        if !common.sources.any_may_be_asked(&among) {
            return;
        }
        let block = block_size(old.stamp.size).filter(|block| *block <= BLOCK_BYTES_MAX);
        let pays = may_pay(old, content.size) && !content.alone && !content.missing.is_empty();
        let (Some(block), Some(_), true) = (block, common.deltas.pick(common, &among), pays) else {
            content.old = None;
            return;
        };
        let head = Head { block, hash: HASH_BYTES_MIN };
        content.delta = Some(Delta { head, sums: BTreeMap::new(), unsigned: 0, signing: 0, asked: None });
    }

    /// Has more of the old file signed, or asks for patches once all is.
    fn sign(&mut self, sha: &Sha256, now: Instant, common: &mut Common, out: &mut Outbox) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        let (Some(old), Some(delta)) = (&content.old, &mut content.delta) else { return };
        while delta.asked.is_none() && delta.signing < SIGN_OPS_MAX && delta.unsigned < old.stamp.size {
            let offset = delta.unsigned;
            let len = SIGN_BYTES_MAX - SIGN_BYTES_MAX % delta.head.block;
            delta.unsigned = offset.saturating_add(u64::from(len));
            delta.signing += 1;
            content.ops += 1;
            let read = Read { path: old.path.clone(), stamp: old.stamp, offset, len };
            let op = DiskOp::Sign { root: common.root, read, head: delta.head };
            let job = Job { sha: *sha, temp: content.temp, step: Step::Sign { offset } };
            self.jobs.insert(out.disk(op), job);
        }
        if delta.asked.is_some() || delta.signing > 0 {
            return;
        }
        let among = Among { sha, size: content.size, absent: &content.absent, sole: None };
        let (Some(conn), Some(first)) = (common.deltas.pick(common, &among), content.missing.first()) else {
            // If nobody is left who can be asked, another try is worth while once somebody is.
            content.delta = None;
            return;
        };
        let mut signature = delta.head.encode().to_vec();
        mem::take(&mut delta.sums).values().for_each(|sums| signature.extend_from_slice(sums));
        let start = first * RANGE_BYTES;
        delta.asked = Some(Asked { conn, next: start, until: now.plus(PATCH_TIMEOUT) });
        let word =
            Word::Signature { sha256: *sha, old_sha256: old.sha256, start, signature: Bytes(signature) };
        common.deltas.ask(conn, word);
    }

    pub(super) fn signed(
        &mut self,
        sha: &Sha256,
        offset: u64,
        result: Result<DiskDone, DiskError>,
        common: &mut Common,
    ) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        let Some(delta) = &mut content.delta else { return };
        delta.signing -= 1;
        let sums = match result {
            Ok(DiskDone::Data(mut items)) => items.pop().and_then(Result::ok),
            _ => None,
        };
        match sums {
            Some(Bytes(sums)) => _ = delta.sums.insert(offset, sums),
            // It changed, or cannot be read.
            None => content.give_delta_up(sha, common),
        }
    }

    /// A patch came that somebody waits for.
    pub(in crate::files) fn patched(
        &mut self,
        conn: ConnId,
        patch: Patch,
        now: Instant,
        common: &mut Common,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        let Patch { sha256: sha, start, len, delta } = patch;
        let Some(content) = self.contents.get_mut(&sha) else { return Ok(()) };
        let asked = content.delta.as_mut().and_then(|delta| delta.asked.as_mut());
        let asked = asked.filter(|asked| asked.conn == conn && asked.next == start);
        let (Some(old), Some(asked)) = (&content.old, asked) else { return Ok(()) };
        let end = start.saturating_add(len);
        if end > content.size {
            // What a record says of its size may be a lie, and who has that content is no liar.
            content.give_delta_up(&sha, common);
            return Ok(());
        }
        if !is_delta(&delta, old.stamp.size, len) {
            content.give_delta_up(&sha, common);
            return Err(Misbehaved("a patch that does not fit what was signed"));
        }
        asked.next = end;
        asked.until = now.plus(PATCH_TIMEOUT);
        // What is wrong in the end is so without anybody's fault: blocks are compared by a part of an old hash.
        content.givers = Givers::Many;
        let (first, over) = covered(start, end, content.size);
        (first..over).for_each(|index| content.missing.remove(index));
        content.ops += 1;
        common.writing += len;
        let op = DiskOp::PatchTemp {
            root: common.root,
            temp: content.temp,
            offset: start,
            from: old.path.clone(),
            stamp: old.stamp,
            delta: Bytes(delta),
        };
        let job = Job { sha, temp: content.temp, step: Step::Patch { start, end } };
        self.jobs.insert(out.disk(op), job);
        if end == content.size {
            (content.old, content.delta) = (None, None);
            common.deltas.settle(conn, &sha);
        }
        Ok(())
    }

    /// The disk did what a patch says.
    pub(super) fn wrote_patch(&mut self, sha: &Sha256, start: u64, end: u64) {
        let Some(content) = self.contents.get_mut(sha).filter(|content| content.unpatched.is_none()) else {
            return;
        };
        let (first, over) = covered(start, end, content.size);
        (first..over).for_each(|index| content.written.insert(index));
        content.dirty = content.dirty.saturating_add(end - start);
    }

    /// The disk could not do what a patch says: the old file changed. From there on all is fetched.
    pub(super) fn patch_failed(&mut self, sha: &Sha256, start: u64, common: &mut Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        if content.unpatched.is_none_or(|from| start < from) {
            content.unpatched = Some(start);
            for index in start / RANGE_BYTES..pieces_of(content.size) {
                if !content.asked.contains_key(&index) {
                    content.missing.insert(index);
                    content.written.remove(index);
                    content.durable.remove(index);
                }
            }
        }
        content.give_delta_up(sha, common);
    }

    /// Nothing more comes as a difference: it was all, or the rest is better fetched otherwise.
    pub(in crate::files) fn patches_ended(&mut self, sha: &Sha256) {
        if let Some(content) = self.contents.get_mut(sha) {
            content.old = None;
            content.delta = None;
        }
    }

    /// A link is gone: another one is asked for what it did not give, or the same once it is back.
    pub(in crate::files) fn patches_lost(&mut self, conn: ConnId) {
        for content in self.contents.values_mut() {
            let asked = content.delta.as_ref().and_then(|delta| delta.asked.as_ref());
            if asked.is_some_and(|asked| asked.conn == conn) {
                content.delta = None;
            }
        }
    }
}

/// The pieces of a content that are complete once these bytes are there, and all before them.
fn covered(start: u64, end: u64, size: u64) -> (u64, u64) {
    (start / RANGE_BYTES, if end == size { pieces_of(size) } else { end / RANGE_BYTES })
}

#[cfg(test)]
mod tests;
