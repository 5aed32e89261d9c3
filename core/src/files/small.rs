//! Small contents: one request each, then many temps in one disk operation. Never asks for a part of a file.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::fetch::{BUFFERED_BYTES_MAX, Common, FetchError, ask_somewhere};
use crate::files::fetch_copies::StagedResults;
use crate::files::sources::{Among, Arrived, Choice};
use crate::ids::{ConnId, PeerId, Sha256, TempId, Token};
use crate::io::disk::{Stage, StageContent};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::time::Instant;

/// At most this many temps in one operation.
pub const STAGE_FILES_MAX: usize = 256;
/// A batch of temps ends after this many bytes.
pub const STAGE_BYTES_MAX: u64 = 4 << 20;
/// Contents are held no longer than this for others to join their batch.
pub const STAGE_DELAY: Duration = Duration::from_millis(5);

/// How many contents that cannot be asked for now are passed over in one go.
const PASS_MAX: usize = 64;

#[derive(Debug)]
enum State {
    /// To be asked for; its place in the queue.
    Queued(u64),
    Asked(ConnId),
    /// Nobody has it; given up at this time.
    Waiting(Instant),
    Held {
        bytes: Vec<u8>,
        /// `None`: it is empty, and nobody gave it.
        from: Option<PeerId>,
    },
}

#[derive(Debug)]
struct Small {
    size: u64,
    wants: Vec<u64>,
    absent: Vec<ConnId>,
    state: State,
}

#[derive(Debug)]
struct Staging {
    id: u64,
    temp: TempId,
    sha: Sha256,
    size: u64,
    from: Option<PeerId>,
}

/// All small contents that are wanted.
#[derive(Debug, Default)]
pub(super) struct Smalls {
    contents: BTreeMap<Sha256, Small>,
    queue: BTreeMap<u64, Sha256>,
    next_place: u64,
    /// How many are asked for.
    asked: usize,
    held: VecDeque<Sha256>,
    held_bytes: u64,
    held_since: Option<Instant>,
    batches: BTreeMap<Token, Vec<Staging>>,
}

impl Smalls {
    pub(super) fn has(&self, sha: &Sha256) -> bool {
        self.contents.contains_key(sha)
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        self.batches.contains_key(&token)
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(super) fn temps(&self) -> impl Iterator<Item = TempId> {
        self.batches.values().flatten().map(|staging| staging.temp)
    }

    /// Who may be asked for a content.
    pub(super) fn among<'a>(&'a self, sha: &'a Sha256) -> Option<Among<'a>> {
        let content = self.contents.get(sha)?;
        Some(Among { sha, size: content.size, absent: &content.absent, sole: None })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.held_since.map(|since| since.plus(STAGE_DELAY))
    }

    /// Adds a want; false if its SHA-256 is being fetched under another size.
    pub(super) fn add(&mut self, id: u64, sha: Sha256, size: u64, now: Instant) -> bool {
        if let Some(content) = self.contents.get_mut(&sha) {
            let same = content.size == size;
            if same {
                content.wants.push(id);
            }
            return same;
        }
        let state = if size == 0 {
            self.held.push_back(sha);
            self.held_since.get_or_insert(now);
            State::Held { bytes: Vec::new(), from: None }
        } else {
            self.enqueue(sha)
        };
        self.contents.insert(sha, Small { size, wants: Vec::from([id]), absent: Vec::new(), state });
        true
    }

    pub(super) fn cancel(&mut self, sha: &Sha256, id: u64, common: &mut Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        content.wants.retain(|&want| want != id);
        if content.wants.is_empty() {
            self.forget(sha, common);
        }
    }

    /// A link does not answer; `absent`: and is not to be asked again.
    pub(super) fn lost(&mut self, conn: ConnId, sha: &Sha256, absent: bool, common: &Common) {
        let Some(content) = self.contents.get_mut(sha) else { return };
        if absent {
            common.mark_absent(&mut content.absent, conn);
        }
        if matches!(content.state, State::Asked(asked) if asked == conn) {
            self.asked -= 1;
            let state = self.enqueue(*sha);
            if let Some(content) = self.contents.get_mut(sha) {
                content.state = state;
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
        let Some(content) = self.contents.get(sha) else { return };
        let State::Waiting(until) = content.state else { return };
        common.stop_waiting(*sha, until);
        let state = self.enqueue(*sha);
        if let Some(content) = self.contents.get_mut(sha) {
            content.state = state;
        }
    }

    /// A content has waited long enough.
    pub(super) fn give_up(&mut self, sha: &Sha256, common: &mut Common, out: &mut Outbox) {
        if let Some(content) = self.forget(sha, common) {
            for id in content.wants {
                common.finish(id, Err(FetchError::NotAvailable), out);
            }
        }
    }

    pub(super) fn arrived(&mut self, conn: ConnId, arrived: Arrived, now: Instant, common: &mut Common) {
        let Arrived { sha, start, peer, bytes } = arrived;
        let Some(content) = self.contents.get_mut(&sha) else { return };
        if start != 0 || bytes.len() as u64 != content.size {
            return;
        }
        match content.state {
            State::Queued(place) => _ = self.queue.remove(&place),
            State::Asked(asked) => {
                self.asked -= 1;
                if asked != conn {
                    common.sources.drop_key(asked, &(sha, 0));
                }
            }
            State::Waiting(until) => common.stop_waiting(sha, until),
            State::Held { .. } => return,
        }
        self.held_bytes += content.size;
        content.state = State::Held { bytes, from: Some(peer) };
        self.held.push_back(sha);
        self.held_since.get_or_insert(now);
    }

    /// Returns the wants that have to be fetched again.
    pub(super) fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        now: Instant,
        common: &mut Common,
        out: &mut Outbox,
    ) -> Vec<u64> {
        let (mut again, mut useless) = (Vec::new(), Vec::new());
        let batch = self.batches.remove(&token).unwrap_or_default();
        let mut results = StagedResults::new(result);
        for Staging { id, temp, sha, size, from } in batch {
            common.writing -= size;
            match (results.next(), from) {
                (Ok(staged), _) if staged.sha256 == sha => {
                    common.finish(id, Ok((temp, staged)), out);
                    continue;
                }
                (Ok(_), Some(peer)) => {
                    common.sources.blame(sha, size, peer, now);
                    again.push(id);
                }
                (Ok(_), None) => common.finish(id, Err(FetchError::Impossible), out),
                (Err(error), _) => common.finish(id, Err(error.into()), out),
            }
            useless.push(temp);
        }
        common.remove_temps(useless, out);
        again
    }

    pub(super) fn drive(&mut self, now: Instant, common: &mut Common, out: &mut Outbox) {
        self.ask(now, common);
        while self.is_batch_due(now) && common.writing < BUFFERED_BYTES_MAX {
            self.stage(common, out);
        }
    }

    fn enqueue(&mut self, sha: Sha256) -> State {
        self.next_place += 1;
        self.queue.insert(self.next_place, sha);
        State::Queued(self.next_place)
    }

    /// Takes a content out of everything.
    fn forget(&mut self, sha: &Sha256, common: &mut Common) -> Option<Small> {
        let content = self.contents.remove(sha)?;
        match content.state {
            State::Queued(place) => _ = self.queue.remove(&place),
            State::Asked(_) => {
                self.asked -= 1;
                common.sources.drop_content(sha);
            }
            State::Waiting(until) => common.stop_waiting(*sha, until),
            State::Held { .. } => {
                self.held_bytes -= content.size;
                self.held.retain(|held| held != sha);
                self.held_since = self.held_since.filter(|_| !self.held.is_empty());
            }
        }
        Some(content)
    }

    fn ask(&mut self, now: Instant, common: &mut Common) {
        let end = self.next_place;
        let mut passed = 0;
        while passed < PASS_MAX && common.sources.any_room(true) {
            let Some((&place, &sha)) = self.queue.first_key_value() else { break };
            // Everything from here on was passed over in this very call.
            if place > end {
                break;
            }
            self.queue.remove(&place);
            let Some(content) = self.contents.get_mut(&sha) else { continue };
            let among = Among { sha: &sha, size: content.size, absent: &content.absent, sole: None };
            content.state = match ask_somewhere(common, &among, (0, content.size), true, now) {
                Choice::Ask(conn) => {
                    self.asked += 1;
                    State::Asked(conn)
                }
                Choice::Nobody => State::Waiting(common.wait(sha, now)),
                Choice::Busy => {
                    passed += 1;
                    self.next_place += 1;
                    self.queue.insert(self.next_place, sha);
                    State::Queued(self.next_place)
                }
            };
        }
        if !common.sources.any() {
            self.wait_all(now, common);
        }
    }

    /// Without any link nothing can be asked for, and everything waits.
    fn wait_all(&mut self, now: Instant, common: &mut Common) {
        for sha in mem::take(&mut self.queue).into_values() {
            if let Some(content) = self.contents.get_mut(&sha) {
                content.state = State::Waiting(common.wait(sha, now));
            }
        }
    }

    fn is_batch_due(&self, now: Instant) -> bool {
        let Some(since) = self.held_since else { return false };
        self.asked == 0
            || self.held.len() >= STAGE_FILES_MAX
            || self.held_bytes >= STAGE_BYTES_MAX
            || since.plus(STAGE_DELAY) <= now
    }

    /// Writes one batch of what is held.
    fn stage(&mut self, common: &mut Common, out: &mut Outbox) {
        let (mut batch, mut files, mut total) = (Vec::new(), Vec::new(), 0);
        while files.len() < STAGE_FILES_MAX
            && total < STAGE_BYTES_MAX
            && let Some(&sha) = self.held.front()
        {
            let Some((id, bytes, from)) = self.take_held(&sha) else { continue };
            let Some(want) = common.wants.get(&id) else { continue };
            let (mode, mtime_ns) = (want.mode, want.mtime_ns);
            let (temp, size) = (common.temp(), bytes.len() as u64);
            common.writing += size;
            total += size;
            files.push(Stage { temp, content: StageContent::File(bytes), mode, mtime_ns });
            batch.push(Staging { id, temp, sha, size, from });
        }
        if self.held.is_empty() {
            self.held_since = None;
        }
        if !files.is_empty() {
            self.batches.insert(out.disk(DiskOp::Stage { root: common.root, files }), batch);
        }
    }

    /// One want of the content that is held longest, with its bytes; the last want takes the content along.
    fn take_held(&mut self, sha: &Sha256) -> Option<(u64, Vec<u8>, Option<PeerId>)> {
        if let Some(Small { wants, state: State::Held { bytes, from }, .. }) = self.contents.get_mut(sha)
            && wants.len() > 1
            && let Some(id) = wants.pop()
        {
            return Some((id, bytes.clone(), *from));
        }
        self.held.pop_front();
        let content = self.contents.remove(sha)?;
        self.held_bytes -= content.size;
        let State::Held { bytes, from } = content.state else { return None };
        Some((*content.wants.first()?, bytes, from))
    }
}
