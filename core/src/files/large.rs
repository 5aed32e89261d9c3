//! Large contents: pieces from several links into one temp, which is flushed now and then so that it can go on after
//! a break. What is wrong in the end is fetched again from one peer alone, so that only a liar is blamed.

mod delta;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::fetch::{Common, FetchError, Old, ask_somewhere};
use crate::files::fetch_copies::StagedResults;
use crate::files::partial::{PARTIALS_MAX, partial_key, partial_sha, piece, pieces_of};
use crate::files::partial::{Parked, Partial, Pieces, RESUME_BYTES_MIN};
use crate::files::sources::{Among, Arrived, Choice, Key, RANGE_BYTES};
use crate::ids::{ConnId, PeerId, Sha256, TempId, Token};
use crate::io::disk::Bytes;
use crate::io::store::{Row, Space, Write};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::time::Instant;

use delta::Delta;
pub(super) use delta::{Links, may_pay};
pub use delta::{PATCH_TIMEOUT, Word};

/// At most this many contents of which something is still to be asked for are in progress at once.
pub const LARGE_ASKING_MAX: usize = 4;
/// At most this many temps are open for contents in progress, those that only wait for answers or the disk included.
pub const LARGE_OPEN_MAX: usize = 16;
/// A temp is flushed after so many new bytes. While that goes on, at most so many more are fetched: what a kill makes
/// the next run fetch again is twice this at most, however slow the volume is.
pub const FLUSH_BYTES: u64 = 64 << 20;
/// A temp with new bytes is flushed after this.
pub const FLUSH_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Queued(u64),
    Opening,
    Fetching,
    /// The temp becomes that of this want.
    Finishing(u64),
}

/// Who gave the bytes of a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Givers {
    None,
    One(PeerId),
    /// Several, or not known any more.
    Many,
}

#[derive(Debug)]
struct Large {
    size: u64,
    wants: Vec<u64>,
    absent: Vec<ConnId>,
    stage: Stage,
    /// Nobody has it; given up at this time.
    waiting: Option<Instant>,
    temp: TempId,
    /// Pieces to be asked for.
    missing: Pieces,
    /// Pieces asked for, and of whom: one link, or two near the end.
    asked: BTreeMap<u64, Vec<ConnId>>,
    /// Pieces in the temp.
    written: Pieces,
    /// Pieces in the temp that a flush has covered.
    durable: Pieces,
    dirty: u64,
    flushing: bool,
    flushed: Instant,
    /// Disk operations in progress, of the temp.
    ops: u32,
    givers: Givers,
    /// After a mixture was wrong: the one link that may give all of it.
    alone: bool,
    sole: Option<ConnId>,
    /// An older version that lies here, until the difference to it has come or is known not to come.
    old: Option<Old>,
    delta: Option<Delta>,
    /// Where a patch begins that could not be applied: what comes of it and of later ones is worth nothing.
    unpatched: Option<u64>,
}

impl Large {
    fn new(size: u64, wants: Vec<u64>, stage: Stage, old: Option<Old>) -> Large {
        Large {
            size,
            wants,
            absent: Vec::new(),
            stage,
            waiting: None,
            temp: TempId(0),
            missing: Pieces::all(pieces_of(size)),
            asked: BTreeMap::new(),
            written: Pieces::default(),
            durable: Pieces::default(),
            dirty: 0,
            flushing: false,
            flushed: Instant::default(),
            ops: 0,
            givers: Givers::None,
            alone: false,
            sole: None,
            old,
            delta: None,
            unpatched: None,
        }
    }

    fn is_asking(&self) -> bool {
        self.waiting.is_none()
            && match self.stage {
                Stage::Opening => true,
                Stage::Fetching => self.delta.is_none() && !self.missing.is_empty(),
                Stage::Queued(_) | Stage::Finishing(_) => false,
            }
    }

    fn is_all_here(&self) -> bool {
        self.missing.is_empty() && self.asked.is_empty() && self.delta.is_none()
    }

    /// Whether as much has come during a flush as the next one is to cover. `writing`: bytes on their way to the disk.
    fn awaits_flush(&self, writing: u64) -> bool {
        let asked = (self.asked.len() as u64).saturating_mul(RANGE_BYTES);
        self.flushing && self.dirty.saturating_add(asked).saturating_add(writing) >= FLUSH_BYTES
    }

    fn flush_due(&self) -> Option<Instant> {
        let wanted = self.stage == Stage::Fetching && !self.flushing && !self.is_all_here();
        // What a sole link gives may replace what a liar gave: no row may say that any of it is good.
        (wanted && !self.alone && self.dirty > 0 && self.size > RESUME_BYTES_MIN).then(|| {
            if self.dirty >= FLUSH_BYTES { Instant::default() } else { self.flushed.plus(FLUSH_AFTER) }
        })
    }
}

/// What a disk operation on a temp was for.
#[derive(Debug)]
enum Step {
    Open,
    Write { index: u64, len: u64 },
    Flush { covers: Pieces },
    Sign { offset: u64 },
    Patch { start: u64, end: u64 },
    Finish,
}

#[derive(Debug)]
struct Job {
    sha: Sha256,
    temp: TempId,
    step: Step,
}

/// A temp that nobody wants any more, once the operations on it have ended.
#[derive(Debug)]
struct Leaving {
    sha: Sha256,
    ops: u32,
    /// What may be used later; `None`: the temp is removed.
    keep: Option<Partial>,
}

/// All large contents that are wanted.
#[derive(Debug, Default)]
pub(super) struct Larges {
    contents: BTreeMap<Sha256, Large>,
    queue: BTreeMap<u64, Sha256>,
    next_place: u64,
    /// Those with a temp, in the order in which they were begun.
    active: Vec<Sha256>,
    jobs: BTreeMap<Token, Job>,
    leaving: BTreeMap<TempId, Leaving>,
    parked: Parked,
}

impl Larges {
    pub(super) fn load(&mut self, rows: &[Row], common: &mut Common, out: &mut Outbox) {
        let mut bad = Vec::new();
        for (key, value) in rows {
            let Some(sha) = partial_sha(common.root, key) else { continue };
            match Partial::decode(value) {
                Some(partial) if self.parked.len() < PARTIALS_MAX => _ = self.parked.put(sha, partial),
                _ => bad.push(Write::Delete { space: Space::Partial, key: key.clone() }),
            }
        }
        common.commit(bad, out);
    }

    pub(super) fn retain_parked(
        &mut self,
        mut wanted: impl FnMut(&Sha256) -> bool,
        common: &mut Common,
        out: &mut Outbox,
    ) {
        let unwanted: Vec<Sha256> =
            self.parked.iter().map(|(sha, _)| *sha).filter(|sha| !wanted(sha)).collect();
        for sha in unwanted {
            if let Some(partial) = self.parked.take(&sha) {
                common.remove_temps(Vec::from([partial.temp]), out);
                self.delete_row(&sha, partial.size, common, out);
            }
        }
        let mut sizes = Vec::new();
        for leaving in self.leaving.values_mut() {
            if let Some(partial) = leaving.keep.take_if(|_| !wanted(&leaving.sha)) {
                sizes.push((leaving.sha, partial.size));
            }
        }
        for (sha, size) in sizes {
            self.delete_row(&sha, size, common, out);
        }
    }

    pub(super) fn parked(&self) -> impl Iterator<Item = &Sha256> {
        let leaving = self.leaving.values().filter(|leaving| leaving.keep.is_some());
        self.parked.iter().map(|(sha, _)| sha).chain(leaving.map(|leaving| &leaving.sha))
    }

    pub(super) fn has(&self, sha: &Sha256) -> bool {
        self.contents.contains_key(sha)
    }

    /// Whether another content could begin now.
    pub(super) fn has_room(&self) -> bool {
        self.contents.len() < LARGE_OPEN_MAX
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        self.jobs.contains_key(&token)
    }

    /// Who may be asked for a content.
    pub(super) fn among<'a>(&'a self, sha: &'a Sha256) -> Option<Among<'a>> {
        let content = self.contents.get(sha)?;
        Some(Among { sha, size: content.size, absent: &content.absent, sole: None })
    }

    pub(super) fn temps(&self) -> Vec<TempId> {
        let active = self.active.iter().filter_map(|sha| self.contents.get(sha)).map(|content| content.temp);
        let parked = self.parked.iter().map(|(_, partial)| partial.temp);
        active.chain(parked).chain(self.leaving.keys().copied()).collect()
    }

    /// Bytes in temps, each counted for every want of its content.
    pub(super) fn written_bytes(&self) -> u64 {
        let bytes =
            |content: &Large| content.written.bytes(content.size).saturating_mul(content.wants.len() as u64);
        self.contents.values().map(bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let active = self.active.iter().filter_map(|sha| self.contents.get(sha));
        active.flat_map(|content| [content.flush_due(), content.patch_due()]).flatten().min()
    }

    /// Adds a want; false if its SHA-256 is being fetched under another size.
    pub(super) fn add(&mut self, id: u64, sha: Sha256, size: u64, old: Option<Old>) -> bool {
        if let Some(content) = self.contents.get_mut(&sha) {
            let same = content.size == size;
            if same {
                content.wants.push(id);
            }
            return same;
        }
        let stage = self.enqueue(sha);
        self.contents.insert(sha, Large::new(size, Vec::from([id]), stage, old));
        true
    }

    /// Takes a want back. `keep`: what a flush has covered stays for later.
    pub(super) fn cancel(
        &mut self,
        sha: &Sha256,
        id: u64,
        keep: bool,
        common: &mut Common,
        out: &mut Outbox,
    ) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        content.wants.retain(|&want| want != id);
        if content.wants.is_empty() {
            self.end(sha, FetchError::NotAvailable, keep, common, out);
        }
    }

    /// Whether all of a content is in the temp that becomes that of this want.
    pub(super) fn is_finishing(&self, sha: &Sha256, id: u64) -> bool {
        self.contents.get(sha).is_some_and(|content| content.stage == Stage::Finishing(id))
    }

    /// A link will not give a piece; `absent`: and is not to be asked for this content again.
    pub(super) fn lost(&mut self, conn: ConnId, (sha, start): &Key, absent: bool, common: &Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        if absent {
            common.mark_absent(&mut content.absent, conn);
        }
        let index = start / RANGE_BYTES;
        if let Some(askers) = content.asked.get_mut(&index) {
            askers.retain(|&asker| asker != conn);
            if askers.is_empty() {
                content.asked.remove(&index);
                content.missing.insert(index);
            }
        }
    }

    pub(super) fn present(&mut self, conn: ConnId, sha: &Sha256) {
        if let Some(content) = self.contents.get_mut(sha) {
            content.absent.retain(|&absent| absent != conn);
        }
    }

    /// Asks again for a content that waited for a source.
    pub(super) fn wake(&mut self, sha: &Sha256, common: &mut Common) {
        if let Some(content) = self.contents.get_mut(sha)
            && let Some(until) = content.waiting.take()
        {
            common.stop_waiting(*sha, until);
            if let Stage::Queued(place) = content.stage {
                self.queue.insert(place, *sha);
            }
        }
    }

    /// A content has waited long enough; what is there of it stays for later.
    pub(super) fn give_up(&mut self, sha: &Sha256, common: &mut Common, out: &mut Outbox) {
        self.end(sha, FetchError::NotAvailable, true, common, out);
    }

    pub(super) fn arrived(&mut self, conn: ConnId, arrived: Arrived, common: &mut Common, out: &mut Outbox) {
        let Arrived { sha, start, peer, bytes } = arrived;
        let Some(content) = self.contents.get_mut(&sha) else { return };
        let index = start / RANGE_BYTES;
        let len = bytes.len() as u64;
        let fits = content.stage == Stage::Fetching && piece(index, content.size) == (start, len);
        if !fits || content.alone && content.sole != Some(conn) {
            return;
        }
        if let Some(askers) = content.asked.remove(&index) {
            for asker in askers.into_iter().filter(|&asker| asker != conn) {
                common.sources.drop_key(asker, &(sha, start));
            }
        } else if content.missing.contains(index) {
            content.missing.remove(index);
        } else {
            return;
        }
        content.givers = match content.givers {
            Givers::None => Givers::One(peer),
            Givers::One(other) if other == peer => Givers::One(peer),
            _ => Givers::Many,
        };
        content.ops += 1;
        common.writing += len;
        let temp = content.temp;
        let op = DiskOp::WriteTemp { root: common.root, temp, offset: start, data: Bytes(bytes) };
        self.jobs.insert(out.disk(op), Job { sha, temp, step: Step::Write { index, len } });
    }

    pub(super) fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        now: Instant,
        common: &mut Common,
        out: &mut Outbox,
    ) {
        let Some(Job { sha, temp, step }) = self.jobs.remove(&token) else { return };
        match step {
            Step::Write { len, .. } => common.writing -= len,
            Step::Patch { start, end } => common.writing -= end - start,
            Step::Open | Step::Flush { .. } | Step::Sign { .. } | Step::Finish => {}
        }
        let Some(content) = self.contents.get_mut(&sha).filter(|content| content.temp == temp) else {
            self.leave(temp, common, out);
            return;
        };
        content.ops -= 1;
        content.wait_for_patch(now);
        if let Step::Finish = step {
            self.finished(sha, result, now, common, out);
            return;
        }
        match (step, result) {
            (Step::Open, Ok(DiskDone::TempOpened { existing })) => {
                content.durable.truncate(existing / RANGE_BYTES + u64::from(existing == content.size));
                content.written = content.durable.clone();
                content.missing = content.written.complement(pieces_of(content.size));
                content.stage = Stage::Fetching;
                content.flushed = now;
            }
            (Step::Write { index, len }, Ok(_)) => {
                content.written.insert(index);
                content.dirty = content.dirty.saturating_add(len);
            }
            (Step::Flush { covers }, Ok(_)) => {
                content.flushing = false;
                content.flushed = now;
                content.durable = covers;
                let have = content.durable.clone();
                let value = Partial { temp, size: content.size, have }.encode();
                let key = partial_key(common.root, &sha);
                common.commit(Vec::from([Write::Put { space: Space::Partial, key, value }]), out);
            }
            (Step::Sign { offset }, result) => self.signed(&sha, offset, result, common),
            (Step::Patch { start, end }, Ok(_)) => self.wrote_patch(&sha, start, end),
            (Step::Patch { start, .. }, Err(error))
                if !matches!(error, DiskError::NoSpace | DiskError::RootMissing) =>
            {
                self.patch_failed(&sha, start, common);
            }
            (step, result) => {
                let error = result.err().unwrap_or(DiskError::Io);
                // A flush that failed may have lost what was written before it.
                let keep = matches!(error, DiskError::NoSpace | DiskError::RootMissing)
                    && !matches!(step, Step::Flush { .. });
                self.end(&sha, error.into(), keep, common, out);
            }
        }
    }

    pub(super) fn drive(&mut self, now: Instant, common: &mut Common, out: &mut Outbox) {
        self.begin(now, common, out);
        self.drive_deltas(now, common, out);
        self.ask(now, common);
        for at in 0..self.active.len() {
            let sha = self.active[at];
            let Some(content) = self.contents.get_mut(&sha) else { continue };
            if content.flush_due().is_some_and(|due| due <= now) {
                content.flushing = true;
                content.dirty = 0;
                content.ops += 1;
                let (temp, covers) = (content.temp, content.written.clone());
                let op = DiskOp::FlushTemp { root: common.root, temp };
                self.jobs.insert(out.disk(op), Job { sha, temp, step: Step::Flush { covers } });
            }
            if content.stage == Stage::Fetching
                && content.is_all_here()
                && content.ops == 0
                && let Some(&id) = content.wants.first()
            {
                content.stage = Stage::Finishing(id);
                content.ops += 1;
                if let Some(until) = content.waiting.take() {
                    common.stop_waiting(sha, until);
                }
                let (mode, mtime_ns) =
                    common.wants.get(&id).map_or((None, None), |want| (want.mode, want.mtime_ns));
                let temp = content.temp;
                let op = DiskOp::FinishTemp { root: common.root, temp, mode, mtime_ns };
                self.jobs.insert(out.disk(op), Job { sha, temp, step: Step::Finish });
            }
        }
    }

    fn enqueue(&mut self, sha: Sha256) -> Stage {
        self.next_place += 1;
        self.queue.insert(self.next_place, sha);
        Stage::Queued(self.next_place)
    }

    /// Opens temps for the next contents, as long as few are in progress.
    fn begin(&mut self, now: Instant, common: &mut Common, out: &mut Outbox) {
        let is_asking = |sha: &&Sha256| self.contents.get(*sha).is_some_and(Large::is_asking);
        let mut asking = self.active.iter().filter(is_asking).count();
        while asking < LARGE_ASKING_MAX && self.active.len() < LARGE_OPEN_MAX {
            let Some((_, sha)) = self.queue.pop_first() else { break };
            let Some(content) = self.contents.get_mut(&sha) else { continue };
            let among = Among { sha: &sha, size: content.size, absent: &content.absent, sole: None };
            if common.sources.pick(&among, (0, 0), false) == Choice::Nobody {
                content.waiting = Some(common.wait(sha, now));
                continue;
            }
            asking += 1;
            self.active.push(sha);
            self.open(sha, common, out);
        }
    }

    fn open(&mut self, sha: Sha256, common: &mut Common, out: &mut Outbox) {
        let parked = self.parked.take(&sha);
        let mut useless = None;
        let Some(content) = self.contents.get_mut(&sha) else { return };
        content.temp = match parked {
            Some(partial) if partial.size == content.size && !content.alone => {
                content.givers = Givers::Many;
                content.durable = partial.have;
                partial.temp
            }
            other => {
                useless = other;
                common.temp()
            }
        };
        content.stage = Stage::Opening;
        content.ops += 1;
        let (temp, size) = (content.temp, content.size);
        let op = DiskOp::OpenTemp { root: common.root, temp, size };
        self.jobs.insert(out.disk(op), Job { sha, temp, step: Step::Open });
        if let Some(partial) = useless {
            common.remove_temps(Vec::from([partial.temp]), out);
            self.delete_row(&sha, partial.size, common, out);
        }
    }

    /// Asks for pieces, in turn for each content, while links have room.
    fn ask(&mut self, now: Instant, common: &mut Common) {
        let mut more = true;
        while more && common.sources.any_room(false) {
            more = false;
            for sha in &self.active {
                if let Some(content) = self.contents.get_mut(sha) {
                    more |= ask_one(sha, content, now, common);
                }
            }
        }
        if !common.sources.any() {
            for sha in &self.active {
                if let Some(content) = self.contents.get_mut(sha)
                    && content.is_asking()
                    && content.stage == Stage::Fetching
                {
                    content.waiting = Some(common.wait(*sha, now));
                }
            }
        }
    }

    fn finished(
        &mut self,
        sha: Sha256,
        result: Result<DiskDone, DiskError>,
        now: Instant,
        common: &mut Common,
        out: &mut Outbox,
    ) {
        let Some(content) = self.contents.get_mut(&sha) else { return };
        let (temp, size, givers) = (content.temp, content.size, content.givers);
        let Stage::Finishing(id) = content.stage else { return };
        match StagedResults::new(result).next() {
            Ok(staged) if staged.sha256 == sha => {
                content.wants.retain(|&want| want != id);
                self.forget(&sha, common);
                common.finish(id, Ok((temp, staged)), out);
                self.delete_row(&sha, size, common, out);
            }
            Ok(_) => {
                if let Givers::One(peer) = givers {
                    common.sources.blame(sha, size, peer, now);
                }
                common.remove_temps(Vec::from([temp]), out);
                self.delete_row(&sha, size, common, out);
                self.again(sha, givers);
                return;
            }
            Err(error) => {
                self.end(&sha, error.into(), false, common, out);
                return;
            }
        }
        // Others wanted the same: once this one is installed, they can be copied.
        for id in self.take_wants(&sha) {
            common.finish(id, Err(FetchError::Again), out);
        }
        self.contents.remove(&sha);
    }

    fn take_wants(&mut self, sha: &Sha256) -> Vec<u64> {
        self.contents.get_mut(sha).map(|content| core::mem::take(&mut content.wants)).unwrap_or_default()
    }

    /// Begins from the start, with a new temp, after what came was wrong.
    fn again(&mut self, sha: Sha256, givers: Givers) {
        self.active.retain(|active| *active != sha);
        let stage = self.enqueue(sha);
        if let Some(content) = self.contents.get_mut(&sha) {
            let fresh = Large::new(content.size, core::mem::take(&mut content.wants), stage, None);
            let absent = core::mem::take(&mut content.absent);
            let alone = content.alone || givers != Givers::None && !matches!(givers, Givers::One(_));
            *content = Large { absent, alone, ..fresh };
        }
    }

    /// Takes a content out of all lists but `contents`.
    fn forget(&mut self, sha: &Sha256, common: &mut Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        if let Stage::Queued(place) = content.stage {
            self.queue.remove(&place);
        }
        if let Some(until) = content.waiting.take() {
            common.stop_waiting(*sha, until);
        }
        self.active.retain(|active| active != sha);
        common.sources.drop_content(sha);
        common.deltas.drop_content(sha);
    }

    /// Ends a content without success. `keep`: what a flush has covered stays for later.
    fn end(&mut self, sha: &Sha256, error: FetchError, keep: bool, common: &mut Common, out: &mut Outbox) {
        self.forget(sha, common);
        let Some(content) = self.contents.remove(sha) else { return };
        for &id in &content.wants {
            common.finish(id, Err(error), out);
        }
        let (temp, size) = (content.temp, content.size);
        if let Stage::Queued(_) = content.stage {
            // It was never opened; what an earlier run left of it is in `parked` still.
            if !keep && let Some(partial) = self.parked.take(sha) {
                common.remove_temps(Vec::from([partial.temp]), out);
                self.delete_row(sha, size, common, out);
            }
            return;
        }
        let keep = keep && size > RESUME_BYTES_MIN && !content.durable.is_empty() && !content.alone;
        if !keep {
            self.delete_row(sha, size, common, out);
        }
        let keep = keep.then_some(Partial { temp, size, have: content.durable });
        self.leaving.insert(temp, Leaving { sha: *sha, ops: content.ops + 1, keep });
        self.leave(temp, common, out);
    }

    /// An operation on a temp that nobody wants has ended; after the last one it is put away or removed.
    fn leave(&mut self, temp: TempId, common: &mut Common, out: &mut Outbox) {
        let Some(leaving) = self.leaving.get_mut(&temp) else { return };
        leaving.ops -= 1;
        if leaving.ops > 0 {
            return;
        }
        let Some(Leaving { sha, keep, .. }) = self.leaving.remove(&temp) else { return };
        let Some(partial) = keep.filter(|_| !self.contents.contains_key(&sha)) else {
            common.remove_temps(Vec::from([temp]), out);
            return;
        };
        if let Some((gone, old)) = self.parked.put(sha, partial) {
            common.remove_temps(Vec::from([old.temp]), out);
            if gone != sha {
                self.delete_row(&gone, old.size, common, out);
            }
        }
    }

    fn delete_row(&self, sha: &Sha256, size: u64, common: &mut Common, out: &mut Outbox) {
        if size > RESUME_BYTES_MIN {
            let key = partial_key(common.root, sha);
            common.commit(Vec::from([Write::Delete { space: Space::Partial, key }]), out);
        }
    }
}

/// Asks for one piece of a content; whether it did.
fn ask_one(sha: &Sha256, content: &mut Large, now: Instant, common: &mut Common) -> bool {
    let fetches = content.stage == Stage::Fetching && content.waiting.is_none() && content.delta.is_none();
    if !fetches || content.awaits_flush(common.writing) {
        return false;
    }
    if content.alone && !choose_sole(sha, content, common) {
        content.waiting = Some(common.wait(*sha, now));
        return false;
    }
    let among = Among { sha, size: content.size, absent: &content.absent, sole: content.sole };
    let Some(index) = content.missing.first() else { return ask_twice(sha, content, now, common) };
    match ask_somewhere(common, &among, piece(index, content.size), false, now) {
        Choice::Ask(conn) => {
            content.missing.remove(index);
            content.asked.insert(index, Vec::from([conn]));
            true
        }
        Choice::Busy => false,
        Choice::Nobody => {
            content.waiting = Some(common.wait(*sha, now));
            false
        }
    }
}

/// Keeps the one link that may give all of a content, or takes the next one and begins anew; false if there is none.
fn choose_sole(sha: &Sha256, content: &mut Large, common: &mut Common) -> bool {
    let among = Among { sha, size: content.size, absent: &content.absent, sole: None };
    let still = Among { sole: content.sole, ..among };
    if content.sole.is_some() && common.sources.pick_sole(&still).is_some() {
        return true;
    }
    content.sole = common.sources.pick_sole(&among);
    if content.sole.is_some() && content.givers != Givers::None {
        // Writes of one temp are carried out in order, so what the next one gives replaces what is there.
        common.sources.drop_content(sha);
        content.asked.clear();
        content.missing = Pieces::all(pieces_of(content.size));
        content.givers = Givers::None;
    }
    content.sole.is_some()
}

/// When all is asked for: asks an idle, faster link for what a slow one still owes.
fn ask_twice(sha: &Sha256, content: &mut Large, now: Instant, common: &mut Common) -> bool {
    if content.alone {
        return false;
    }
    let among = Among { sha, size: content.size, absent: &content.absent, sole: None };
    let size = content.size;
    let single = content.asked.iter_mut().rev().filter(|(_, askers)| askers.len() == 1);
    for (&index, askers) in single {
        let Some(&slow) = askers.first() else { continue };
        let range = piece(index, size);
        if let Some(conn) = common.sources.pick_faster(slow, &among, range) {
            common.sources.ask(conn, (*sha, range.0), range.1, false, now);
            askers.push(conn);
            return true;
        }
    }
    false
}
