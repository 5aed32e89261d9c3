//! Gets the contents that a share wants, from its peers or from its own files, as finished temps (sync.md, "Bringing
//! a path to a version"). Never decides what is wanted, never installs, never talks to a socket.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::fetch_copies::Copies;
use crate::files::large::{Larges, Links, Word, may_pay};
use crate::files::path::RelPath;
use crate::files::small::Smalls;
use crate::files::sources::{Among, Choice, Key, Sources};
pub use crate::files::sources::{Misbehaved, Request};
use crate::ids::{ConnId, PeerId, RootId, Sha256, TempId, Token};
use crate::io::disk::{Staged, Stamp};
use crate::io::store::{Durability, Row, Write};
use crate::io::{DiskDone, DiskError, DiskOp, StoreDone, StoreError, StoreOp};
use crate::time::{Instant, Now};

/// At most this many wants at once, including those whose outcome was not taken yet.
pub const WANTS_MAX: usize = 4096;
/// Contents of at most this size are fetched in one piece and staged many at a time.
pub const SMALL_BYTES_MAX: u64 = 256 * 1024;
/// While more than this waits for the disk or is being written, nothing more should be read from peers.
pub const BUFFERED_BYTES_MAX: u64 = 16 << 20;
/// A content that nobody has is given up after this.
pub const UNAVAILABLE_AFTER: Duration = Duration::from_secs(60);
/// What nobody has is given up together with the rest of so long.
const GIVEN_UP_GRAIN: Duration = Duration::from_secs(1);
/// It is given up after this where it keeps others from being asked for.
pub const UNAVAILABLE_CROWDED_AFTER: Duration = Duration::from_secs(5);

/// A content that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The caller's number; not in use for another want.
    pub id: u64,
    /// The content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Permission bits of the temp.
    pub mode: Option<u32>,
    /// Modification time of the temp, nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// A file of the share that should have the same content: it is copied, and fetched only if that fails.
    pub local: Option<(RelPath, Stamp)>,
    /// A file of the share with an older version of it: where that pays, only the difference is fetched.
    pub old: Option<Old>,
}

/// An older version of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// Where it lies.
    pub path: RelPath,
    /// What lies there.
    pub stamp: Stamp,
    /// Its content.
    pub sha256: Sha256,
}

/// What is to be known of the peer of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It is at read_write, or proven a writer.
    pub writer: bool,
    /// It takes signatures and gives patches.
    pub rsync: bool,
}

/// The outcome of a want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its number.
    pub id: u64,
    /// The finished temp, whose SHA-256 is the wanted one; it is the caller's from now on.
    pub result: Result<(TempId, Staged), FetchError>,
}

/// Why a content did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// No connected peer has it, or none that may be asked. To be wanted again later.
    NotAvailable,
    /// The same content was fetched as one large file for another want. To be wanted again now; with [`Want::local`]
    /// once the other one is installed.
    Again,
    /// The volume is full.
    NoSpace,
    /// No file of this size has this SHA-256.
    Impossible,
    /// The disk failed otherwise.
    Disk(DiskError),
}

impl From<DiskError> for FetchError {
    fn from(error: DiskError) -> FetchError {
        match error {
            DiskError::NoSpace => FetchError::NoSpace,
            other => FetchError::Disk(other),
        }
    }
}

/// What all ways of getting a content share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) root: RootId,
    pub(super) sources: Sources,
    /// The links that speak `rsync`.
    pub(super) deltas: Links,
    /// Wants without an outcome.
    pub(super) wants: BTreeMap<u64, Want>,
    done: VecDeque<Fetched>,
    /// Contents that nobody has, by the time at which they are given up.
    waiting: BTreeSet<(Instant, Sha256)>,
    /// Bytes in disk operations.
    pub(super) writing: u64,
    next_temp: u64,
    removing: BTreeSet<Token>,
    commits: BTreeSet<Token>,
}

impl Common {
    pub(super) fn temp(&mut self) -> TempId {
        let temp = TempId(self.next_temp);
        self.next_temp = self.next_temp.wrapping_add(1);
        temp
    }

    /// Ends a want; the temp of one that was cancelled meanwhile is removed.
    pub(super) fn finish(&mut self, id: u64, result: Result<(TempId, Staged), FetchError>, out: &mut Outbox) {
        if self.wants.remove(&id).is_some() {
            self.done.push_back(Fetched { id, result });
        } else if let Ok((temp, _)) = result {
            self.remove_temps(Vec::from([temp]), out);
        }
    }

    pub(super) fn remove_temps(&mut self, temps: Vec<TempId>, out: &mut Outbox) {
        if !temps.is_empty() {
            self.removing.insert(out.disk(DiskOp::RemoveTemps { root: self.root, temps }));
        }
    }

    pub(super) fn commit(&mut self, writes: Vec<Write>, out: &mut Outbox) {
        if !writes.is_empty() {
            let op = StoreOp::Commit { writes, durability: Durability::Soon };
            self.commits.insert(out.store(op));
        }
    }

    /// A content has to wait for a source; returns until when.
    pub(super) fn wait(&mut self, sha: Sha256, now: Instant) -> Instant {
        let until = now.plus(UNAVAILABLE_AFTER).round_up(GIVEN_UP_GRAIN);
        self.waiting.insert((until, sha));
        until
    }

    pub(super) fn stop_waiting(&mut self, sha: Sha256, until: Instant) {
        self.waiting.remove(&(until, sha));
    }

    /// Notes that a link does not have a content.
    pub(super) fn mark_absent(&self, absent: &mut Vec<ConnId>, conn: ConnId) {
        absent.retain(|&other| other != conn && self.sources.is_up(other));
        absent.push(conn);
    }
}

/// Gets contents; one for each share.
#[derive(Debug)]
pub struct Fetcher {
    common: Common,
    copies: Copies,
    small: Smalls,
    large: Larges,
    /// Wants of a SHA-256 that is being fetched under another size, which somebody made up. Their turn comes when that
    /// has ended: told to want it again now, they would ask until then without a pause.
    other_size: BTreeMap<Sha256, Vec<u64>>,
    received: u64,
    /// Whether more is wanted than there is capacity for.
    crowded: bool,
}

impl Fetcher {
    /// Makes one. `temp_base` is random, so that no temp of an earlier run is taken for one of this.
    pub fn new(root: RootId, temp_base: u64) -> Fetcher {
        let common = Common {
            root,
            sources: Sources::default(),
            deltas: Links::default(),
            wants: BTreeMap::new(),
            done: VecDeque::new(),
            waiting: BTreeSet::new(),
            writing: 0,
            next_temp: temp_base,
            removing: BTreeSet::new(),
            commits: BTreeSet::new(),
        };
        Fetcher {
            common,
            copies: Copies::default(),
            small: Smalls::default(),
            large: Larges::default(),
            other_size: BTreeMap::new(),
            received: 0,
            crowded: false,
        }
    }

    /// Takes the rows of `Space::Partial` of this root, once, before anything is wanted. Rows that cannot be used
    /// are deleted. What is not wanted afterwards stays until [`Fetcher::retain_partials`].
    pub fn load(&mut self, rows: &[Row], out: &mut Outbox) {
        self.large.load(rows, &mut self.common, out);
    }

    /// The contents of which a part is kept, or is about to be, while nothing goes on with it.
    pub fn parked(&self) -> impl Iterator<Item = &Sha256> {
        self.large.parked()
    }

    /// Forgets the downloads begun, and not going on now, of which `wanted` says false.
    pub fn retain_partials(&mut self, wanted: impl FnMut(&Sha256) -> bool, out: &mut Outbox) {
        self.large.retain_parked(wanted, &mut self.common, out);
    }

    /// How many more wants it takes now.
    pub fn capacity(&self) -> usize {
        WANTS_MAX.saturating_sub(self.common.wants.len() + self.common.done.len())
    }

    /// Tells whether wants wait for capacity; then contents that nobody has, and links that say nothing, are given up
    /// sooner.
    pub fn set_crowded(&mut self, crowded: bool) {
        self.crowded = crowded;
    }

    /// When a content that waits until `until` is given up.
    fn patience(&self, until: Instant) -> Instant {
        let less = if self.crowded { UNAVAILABLE_AFTER - UNAVAILABLE_CROWDED_AFTER } else { Duration::ZERO };
        Instant(until.0.saturating_sub(u64::try_from(less.as_nanos()).unwrap_or(0)))
    }

    /// Takes a want; false, and nothing happens, if there is no capacity or the number is in use.
    #[must_use]
    pub fn want(&mut self, want: Want, now: Now, out: &mut Outbox) -> bool {
        if self.capacity() == 0 || self.common.wants.contains_key(&want.id) {
            return false;
        }
        let (id, copy) = (want.id, want.local.is_some() && want.size > 0);
        self.common.wants.insert(id, want);
        if copy {
            self.copies.add(id);
        } else {
            self.route(id, now.mono);
        }
        self.drive(now.mono, out);
        true
    }

    /// A want is not wanted any more, for good. No outcome follows; what was got of it is removed.
    pub fn cancel(&mut self, id: u64, now: Now, out: &mut Outbox) {
        if self.common.wants.contains_key(&id) {
            self.drop_want(id, false, out);
        } else if let Some(at) = self.common.done.iter().position(|done| done.id == id)
            && let Some(Fetched { result: Ok((temp, _)), .. }) = self.common.done.remove(at)
        {
            self.common.remove_temps(Vec::from([temp]), out);
        }
        self.drive(now.mono, out);
    }

    /// A want is not wanted at the moment. No outcome follows; what was got of it stays for later, as far as that is
    /// durable. False, and nothing happens, if all of it is here already.
    #[must_use]
    pub fn put_off(&mut self, id: u64, now: Now, out: &mut Outbox) -> bool {
        let over = match self.common.wants.get(&id) {
            Some(want) => self.large.is_finishing(&want.sha256, id),
            None => self.common.done.iter().any(|done| done.id == id),
        };
        if !over {
            self.drop_want(id, true, out);
            self.drive(now.mono, out);
        }
        !over
    }

    fn drop_want(&mut self, id: u64, keep: bool, out: &mut Outbox) {
        if let Some(want) = self.common.wants.remove(&id) {
            if let Some(others) = self.other_size.get_mut(&want.sha256)
                && others.contains(&id)
            {
                others.retain(|&other| other != id);
                return;
            }
            self.copies.cancel(id);
            self.small.cancel(&want.sha256, id, &mut self.common);
            self.large.cancel(&want.sha256, id, keep, &mut self.common, out);
        }
    }

    /// A link is there that may be asked for contents of this share.
    pub fn source_up(&mut self, conn: ConnId, peer: PeerId, can: Abilities, now: Now, out: &mut Outbox) {
        self.source_down(conn, now, out);
        self.common.sources.up(conn, peer, can.writer, now.mono);
        if can.rsync {
            self.common.deltas.up(conn);
        }
        self.wake_all();
        self.drive(now.mono, out);
    }

    /// A link is gone. What it still sends would count as never asked for.
    pub fn source_down(&mut self, conn: ConnId, now: Now, out: &mut Outbox) {
        for (sha, start) in self.common.sources.down(conn) {
            self.lost(conn, &(sha, start), false);
        }
        self.common.deltas.down(conn);
        self.large.patches_lost(conn);
        self.drive(now.mono, out);
    }

    /// The head of an `rsync.patch`; its payload follows.
    pub fn handle_patch_start(
        &mut self,
        conn: ConnId,
        sha256: Sha256,
        range: (u64, u64),
        now: Now,
    ) -> Result<(), Misbehaved> {
        self.common.sources.heard(conn, now.mono);
        self.common.deltas.patch_start(conn, sha256, range)
    }

    /// A piece of the payload of the last `rsync.patch` on this link.
    pub fn handle_patch_payload(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        last: bool,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        self.common.sources.heard(conn, now.mono);
        let Some(patch) = self.common.deltas.payload(conn, bytes, last)? else { return Ok(()) };
        let taken = self.large.patched(conn, patch, now.mono, &mut self.common, out);
        self.drive(now.mono, out);
        taken
    }

    /// An `rsync.end`: that link gives no more patches of this content.
    pub fn handle_patch_end(&mut self, conn: ConnId, sha256: Sha256, now: Now, out: &mut Outbox) {
        self.common.sources.heard(conn, now.mono);
        if self.common.deltas.end(conn, &sha256) {
            self.large.patches_ended(&sha256);
        }
        self.drive(now.mono, out);
    }

    /// The head of a `directory.data`; its payload follows.
    pub fn handle_data_start(
        &mut self,
        conn: ConnId,
        sha256: Sha256,
        range: (u64, u64),
        now: Now,
    ) -> Result<(), Misbehaved> {
        self.common.sources.data_start(conn, sha256, range, now.mono)
    }

    /// A piece of the payload of the last `directory.data` on this link.
    pub fn handle_payload(
        &mut self,
        conn: ConnId,
        bytes: Vec<u8>,
        last: bool,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), Misbehaved> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        let Some(arrived) = self.common.sources.payload(conn, bytes, last, now.mono)? else { return Ok(()) };
        let (sha, peer) = (arrived.sha, arrived.peer);
        // What a liar still owed is of no use.
        let avoided = |among: Among<'_>| self.common.sources.is_avoided(sha, among.size, peer);
        if let Some(among) = self.small.among(&sha) {
            if !avoided(among) {
                self.small.arrived(conn, arrived, now.mono, &mut self.common);
            }
        } else if self.large.among(&sha).is_some_and(|among| !avoided(among)) {
            self.large.arrived(conn, arrived, &mut self.common, out);
        }
        self.drive(now.mono, out);
        Ok(())
    }

    /// A `directory.not_present`, or a `directory.get_error`: that link is not asked again for this want. Whoever wants
    /// it anew, after a pause that grows, asks it as well. One that answers nothing is ignored.
    pub fn handle_not_present(&mut self, conn: ConnId, sha256: Sha256, now: Now, out: &mut Outbox) {
        for start in self.common.sources.refuse(conn, &sha256, now.mono) {
            self.lost(conn, &(sha256, start), true);
        }
        self.drive(now.mono, out);
    }

    /// A `directory.present`.
    pub fn handle_present(&mut self, conn: ConnId, sha256: Sha256, now: Now, out: &mut Outbox) {
        self.small.present(conn, &sha256);
        self.large.present(conn, &sha256);
        self.wake(&sha256);
        self.drive(now.mono, out);
    }

    /// Whether this completion is for the fetcher.
    pub fn owns(&self, token: Token) -> bool {
        self.common.removing.contains(&token)
            || self.common.commits.contains(&token)
            || self.copies.owns(token)
            || self.small.owns(token)
            || self.large.owns(token)
    }

    /// Takes a completion of the disk; false if the token is another's (see [`Fetcher::owns`]).
    pub fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        now: Now,
        out: &mut Outbox,
    ) -> bool {
        if self.copies.owns(token) {
            for id in self.copies.handle_disk(token, result, &mut self.common, out) {
                self.route(id, now.mono);
            }
        } else if self.small.owns(token) {
            for id in self.small.handle_disk(token, result, now.mono, &mut self.common, out) {
                self.route(id, now.mono);
            }
        } else if self.large.owns(token) {
            self.large.handle_disk(token, result, now.mono, &mut self.common, out);
        } else if !self.common.removing.remove(&token) {
            return false;
        }
        self.drive(now.mono, out);
        true
    }

    /// Takes a completion of the store; false if the token is another's. A row that could not be stored costs
    /// nothing but fetching again after a restart.
    pub fn handle_store(&mut self, token: Token, result: Result<StoreDone, StoreError>) -> bool {
        let own = self.common.commits.remove(&token);
        if own && let Err(error) = result {
            log::warn!("a download's progress could not be stored: {error:?}");
        }
        own
    }

    /// When [`Fetcher::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.common.waiting.first().map(|(until, _)| self.patience(*until));
        // While the disk is behind, its completions are what the next batch waits for.
        let stage = self.small.poll_timeout().filter(|_| self.common.writing < BUFFERED_BYTES_MAX);
        let expiry = self.common.sources.poll_expiry();
        let expiry = expiry.filter(|_| !self.common.wants.is_empty() && !self.is_behind());
        let hush = self.common.sources.poll_hush().filter(|_| self.crowded && !self.is_behind());
        let asked = self.common.sources.poll_timeout();
        let times = [waiting, asked, hush, stage, self.large.poll_timeout(), expiry];
        times.into_iter().flatten().min()
    }

    /// Time has passed; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outbox) {
        let mono = now.mono;
        for (conn, key) in self.common.sources.overdue(mono) {
            self.overdue(conn, &key, mono);
        }
        if self.crowded && !self.is_behind() {
            for (conn, key) in self.common.sources.hush(mono) {
                self.common.sources.give_up(conn, &key, mono);
                self.lost(conn, &key, true);
            }
        }
        while let Some(&(until, sha)) = self.common.waiting.first()
            && self.patience(until) <= mono
        {
            self.common.waiting.pop_first();
            self.small.give_up(&sha, &mut self.common, out);
            self.large.give_up(&sha, &mut self.common, out);
        }
        self.drive(mono, out);
    }

    /// The next `directory.get` to send; to be called until it gives none.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.common.sources.poll_request()
    }

    /// The next message of the `rsync` extension to send; to be called until there is none.
    pub fn poll_rsync(&mut self) -> Option<(ConnId, Word)> {
        self.common.deltas.poll()
    }

    /// A peer that gave something else for a content than what has this SHA-256; each is told once.
    pub fn poll_lie(&mut self) -> Option<(PeerId, Sha256)> {
        self.common.sources.poll_lie()
    }

    /// The next outcome.
    pub fn poll_done(&mut self) -> Option<Fetched> {
        self.common.done.pop_front()
    }

    /// Bytes asked for and not yet received.
    pub fn outstanding_bytes(&self) -> u64 {
        self.common.sources.outstanding()
    }

    /// Bytes of content received since the start, useful or not.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Bytes of large contents in progress that are in their temps, each counted for every want of its content.
    pub fn written_bytes(&self) -> u64 {
        self.large.written_bytes()
    }

    /// Bytes received and not yet on disk.
    pub fn buffered_bytes(&self) -> u64 {
        self.common.writing + self.small.held_bytes()
    }

    /// Whether this link may be read from; depends on the disk's progress alone.
    pub fn wants_read(&self, _conn: ConnId) -> bool {
        !self.is_behind()
    }

    /// The temps that `DiskOp::SweepTemps` must keep for the fetcher, including those of outcomes not yet taken.
    pub fn temps_in_use(&self) -> Vec<TempId> {
        let mut temps = self.large.temps();
        temps.extend(self.small.temps());
        temps.extend(self.copies.temps());
        temps.extend(self.common.done.iter().filter_map(|done| Some(done.result.as_ref().ok()?.0)));
        temps
    }

    /// Puts a want with the contents to be fetched.
    fn route(&mut self, id: u64, now: Instant) {
        let Some(want) = self.common.wants.get(&id) else { return };
        let (sha, size) = (want.sha256, want.size);
        let old = want.old.clone().filter(|old| may_pay(old, size));
        // A difference takes a round trip more: of many small ones the whole is there sooner.
        let differs = old.is_some() && self.common.deltas.any() && self.large.has_room();
        let small = size <= SMALL_BYTES_MAX && !differs;
        let taken = if small { self.large.has(&sha) } else { self.small.has(&sha) };
        let added = !taken
            && if small { self.small.add(id, sha, size, now) } else { self.large.add(id, sha, size, old) };
        if !added {
            self.other_size.entry(sha).or_default().push(id);
        }
    }

    /// Puts those wants with the contents to be fetched that waited for another size of theirs to end.
    fn route_other_sizes(&mut self, now: Instant) {
        let has = |sha: &&Sha256| self.small.has(sha) || self.large.has(sha);
        let turn: Vec<Sha256> = self.other_size.keys().filter(|sha| !has(sha)).copied().collect();
        for sha in turn {
            for id in self.other_size.remove(&sha).unwrap_or_default() {
                self.route(id, now);
            }
        }
    }

    /// A link will not answer a request any more.
    fn lost(&mut self, conn: ConnId, key: &Key, absent: bool) {
        self.small.lost(conn, &key.0, absent, &self.common);
        self.large.lost(conn, key, absent, &self.common);
    }

    fn overdue(&mut self, conn: ConnId, key: &Key, now: Instant) {
        let among = self.small.among(&key.0).or_else(|| self.large.among(&key.0));
        let elsewhere = among.is_some_and(|among| self.common.sources.has_other(conn, &among));
        if !self.is_behind() && (elsewhere || self.common.sources.is_silent(conn, now)) {
            self.common.sources.give_up(conn, key, now);
            self.lost(conn, key, true);
        } else {
            self.common.sources.wait_on(conn, key, now);
        }
    }

    /// While nothing is read because the disk is behind, silence is our own.
    fn is_behind(&self) -> bool {
        self.buffered_bytes() > BUFFERED_BYTES_MAX
    }

    fn wake(&mut self, sha: &Sha256) {
        self.small.wake(sha, &mut self.common);
        self.large.wake(sha, &mut self.common);
    }

    fn wake_all(&mut self) {
        let waiting: Vec<Sha256> = self.common.waiting.iter().map(|(_, sha)| *sha).collect();
        for sha in &waiting {
            self.wake(sha);
        }
    }

    /// Does all that can be done now.
    fn drive(&mut self, now: Instant, out: &mut Outbox) {
        self.common.sources.forgive(now);
        if !self.is_behind() {
            self.common.sources.expire(now);
        }
        if self.common.sources.take_recovered() {
            self.wake_all();
        }
        self.route_other_sizes(now);
        self.copies.drive(&mut self.common, out);
        self.small.drive(now, &mut self.common, out);
        self.large.drive(now, &mut self.common, out);
    }
}

/// Asks for a content, or a piece of it, wherever that goes best.
pub(super) fn ask_somewhere(
    common: &mut Common,
    among: &Among<'_>,
    range: (u64, u64),
    whole: bool,
    now: Instant,
) -> Choice {
    let choice = common.sources.pick(among, range, whole);
    if let Choice::Ask(conn) = choice {
        common.sources.ask(conn, (*among.sha, range.0), range.1, whole, now);
    }
    choice
}
