//! A share: one club with the directory extension, and one folder.
//!
//! Everything that concerns one folder meets here: the pipeline through which its records and rows change, the links
//! to its peers, the survey that looks at the disk, and the work that brings paths to their version. The parts know
//! nothing of one another; this file connects them.

pub mod again;
pub mod archive_search;
pub mod archive_space;
pub mod archived;
mod batches;
pub mod clock;
pub mod faults;
pub mod finish;
pub mod folder;
pub mod fresh;
pub mod intents;
pub mod kept;
pub mod layout;
mod leftovers;
pub mod link;
pub mod local;
pub mod made;
pub mod newcomers;
pub mod pipeline;
pub mod place;
pub mod planning;
pub mod progress;
pub mod renewal;
pub mod resolve;
pub mod restored;
#[cfg(test)]
mod resume_tests;
pub mod status;
mod sums;
pub mod survey;
pub mod task;
pub mod txn;
pub mod unusable;
pub mod waits;
pub mod work;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::club::codebook::CodeBook;
use crate::club::identity::PeerKeys;
use crate::club::keys::Club;
use crate::club::level::Level;
use crate::engine::event::Event;
use crate::engine::links::Links;
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::files::serve::Server;
use crate::ids::{ConnId, PeerId, RootId, Token};
use crate::index::codec::PeerTable;
use crate::index::knowledge::Resume;
use crate::index::record::Record;
use crate::io::store::{Row, Space, StoreDone, StoreError, Write};
use crate::io::{Completion, DiskDone, DiskError, DiskOp, Noticed};
use crate::rng::Rng;
use crate::share::archive_search::ArchiveSearch;
use crate::share::archive_space::ArchiveSpace;
use crate::share::archived::{LateWrites, Taken};
use crate::share::clock::ClockWatch;
use crate::share::faults::Faults;
use crate::share::folder::Folder;
use crate::share::fresh::Fresh;
use crate::share::layout::Fact;
use crate::share::leftovers::Leftover;
use crate::share::link::PeerLink;
use crate::share::made::Made;
use crate::share::pipeline::{Loaded, Op, Pipeline};
use crate::share::progress::{Former, Progress};
use crate::share::renewal::Renewal;
use crate::share::resolve::Thrown;
use crate::share::restored::Restored;
use crate::share::survey::Survey;
use crate::share::waits::Waits;
use crate::share::work::Work;
use crate::time::{Instant, Now};

/// What a share needs of the engine during one call.
pub struct Ctx<'a> {
    /// The time of the call.
    pub now: Now,
    /// Where outputs go.
    pub out: &'a mut Outbox,
    /// All connections.
    pub links: &'a mut Links,
    /// Random numbers.
    pub rng: &'a mut Rng,
    /// Whether the user said that this computer's clock is right.
    pub clock_trusted: bool,
    /// The node's home; see [`crate::config::Config::home`].
    pub home: &'a [u8],
}

/// How far a share got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Attached with a code; the keys are not here yet.
    Joining(folder::Joining),
    /// A member.
    Member,
}

/// One share.
pub struct Share {
    /// Its number.
    pub root: RootId,
    /// Its folder.
    pub folder: Folder,
    /// How far it got.
    pub membership: Membership,
    /// The club's keys, once a member.
    pub club: Option<Club>,
    /// This peer's own keys.
    pub keys: Arc<PeerKeys>,
    /// Random per start, tells two runs of one identity apart.
    pub run: [u8; 16],
    /// Codes made here.
    pub codes: CodeBook,
    /// Peers by number.
    pub peers: PeerTable,
    /// Names that peers gave themselves.
    pub names: BTreeMap<PeerId, String>,
    /// Versions that contradict others, by the member from which they came.
    pub faults: Faults,
    /// Bytes received from each member and sent to it in this run, over links that have ended.
    pub traffic: BTreeMap<PeerId, (u64, u64)>,
    /// What the last commit stored.
    pub progress: Progress,
    /// What the last commits stored.
    fresh: Fresh,
    made: Made,
    /// Links that are open.
    pub links: BTreeMap<ConnId, PeerLink>,
    /// Answers to requests for content.
    pub server: Server,
    /// Disk work.
    pub work: Work,
    /// Whether the archive has room.
    pub archive_space: ArchiveSpace,
    /// Looking at what was archived and may still be written to.
    pub late: LateWrites,
    /// Contents that no peer has, looked for in the archive.
    archive_search: ArchiveSearch,
    /// Files that were taken out of the archive and have no record yet.
    taken: BTreeMap<RelPath, Taken>,
    /// Files that a user had brought back from the archive and that were not looked at yet.
    pub restored: Restored,
    /// What was kept in a conflict, and thrown away before it was in its place.
    thrown: Thrown,
    /// Looking at the disk.
    pub survey: Survey,
    /// Since when there is no end of what looks find.
    looking_since: Option<Now>,
    /// Whether all that the first look of this run, or since the folder came back, found is stored.
    looked_through: bool,
    /// Whether the user stopped transfers.
    pub paused: bool,
    /// Whether the wall clock is believed.
    pub clock: ClockWatch,
    /// Whose changes are waited for.
    waits: Waits,
    /// Why a new identity is due, if it is.
    renewal: Option<Renewal>,
    /// Why the store refuses work, if it does.
    pub store_trouble: Option<StoreError>,
    /// Whether it refused to take what is to be kept, and not only to be read.
    refuses_writes: bool,
    /// Who answered when this node came to join, and did not take its code.
    pub refused_by: Option<SocketAddr>,
    /// Why the keys that came for its code were not taken, if so; it looks for nobody then.
    pub declined: Option<String>,
    /// First half of the uuids of new records; the second is the revision, so that they lie together in the store.
    uuid_prefix: [u8; 8],
    /// Versions that may have been put at these paths without the database knowing it; none of a directory that lives
    /// only for what lies beneath it.
    intents: BTreeMap<RelPath, Option<Arc<Record>>>,
    /// Keys of those that the last run left in the database.
    intents_left: Vec<Vec<u8>>,
    /// Those of the last run of which it is not known yet whether they came to pass, and the keys of their rows.
    left: Vec<(Vec<u8>, Leftover)>,
    pub(crate) resumes: BTreeMap<PeerId, Resume>,
    /// Writers whose answers were taken in full in this run.
    heard_from: BTreeSet<PeerId>,
    /// Peers that were asked for all once more, as they know the same and hold something else, and when.
    asked_anew: BTreeMap<PeerId, Instant>,
    pipeline: Pipeline,
    retry_store_at: Option<Instant>,
    /// A new identity that could not be stored.
    unstored: Option<Vec<Write>>,
    tokens: BTreeMap<Token, Asked>,
    /// How many peers the stored table has.
    peers_stored: usize,
    /// The removal of temps that nobody needs; no others are made while it is under way.
    sweeping: Option<Token>,
    /// The flush that comes before the folder is looked at, while it is under way.
    flushing: Option<Token>,
    /// Whether paths at which the last run may have installed something are still to be looked at.
    unjudged: bool,
    /// Whether the installs, and the downloads, that the last run left were asked for.
    asked_intents: bool,
    asked_partials: bool,
}

impl core::fmt::Debug for Share {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Share").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What the share itself asked of the store.
#[derive(Debug)]
enum Asked {
    /// Arrivals that a link is to be sent.
    Arrivals(ConnId, u64),
    /// The records of these arrivals.
    Records(ConnId, Vec<u64>, u64),
    /// Installs that were under way in the last run.
    Intents,
    /// Downloads that were under way in the last run.
    Partials,
    /// Records among which a former identity's changes are made again.
    Reclaim(Former),
    /// The new identity: nothing is told or stored under it before it is kept.
    Identity(Vec<Write>),
}

/// Observations of one operation.
const OBSERVATIONS: usize = 500;
/// What is found in one look after another counts as found at once for so long.
const LOOK_LASTS_MAX: Duration = Duration::from_secs(60);
/// How long a store that refuses work is left alone.
pub const STORE_PAUSE: core::time::Duration = core::time::Duration::from_secs(10);

impl Share {
    /// A share with nothing in it.
    pub fn new(
        root: RootId,
        folder: Folder,
        membership: Membership,
        keys: Arc<PeerKeys>,
        rng: &mut Rng,
    ) -> Share {
        let run = rng.bytes();
        Share {
            root,
            folder,
            membership,
            club: None,
            keys,
            run,
            codes: CodeBook::default(),
            peers: PeerTable::default(),
            names: BTreeMap::new(),
            faults: Faults::default(),
            traffic: BTreeMap::new(),
            progress: Progress { token: run, ..Progress::default() },
            fresh: Fresh::default(),
            made: Made::default(),
            links: BTreeMap::new(),
            server: Server::new(root),
            work: Work::new(root, u64::from_be_bytes(rng.bytes())),
            archive_space: ArchiveSpace::default(),
            late: LateWrites::new(root),
            archive_search: ArchiveSearch::new(root),
            taken: BTreeMap::new(),
            restored: Restored::new(root),
            thrown: Thrown::default(),
            survey: Survey::new(root),
            looking_since: None,
            looked_through: false,
            paused: false,
            clock: ClockWatch::default(),
            waits: Waits::default(),
            renewal: None,
            store_trouble: None,
            refuses_writes: false,
            refused_by: None,
            declined: None,
            uuid_prefix: rng.bytes(),
            intents: BTreeMap::new(),
            intents_left: Vec::new(),
            left: Vec::new(),
            heard_from: BTreeSet::new(),
            asked_anew: BTreeMap::new(),
            resumes: BTreeMap::new(),
            pipeline: Pipeline::default(),
            retry_store_at: None,
            unstored: None,
            tokens: BTreeMap::new(),
            peers_stored: 0,
            sweeping: None,
            flushing: None,
            unjudged: false,
            asked_intents: false,
            asked_partials: false,
        }
    }

    /// Takes over the stored peer table.
    pub fn set_peers(&mut self, peers: PeerTable) {
        self.peers_stored = peers.len();
        self.peers = peers;
    }

    /// Takes over the stored progress, in a new run.
    pub fn resume_from(&mut self, progress: Progress) {
        self.progress = progress;
        self.progress.begin_run(self.run);
        self.fresh.begin(self.progress.arrival);
    }

    /// The stored form of the progress of a share that has no records yet.
    pub fn encode_progress(&mut self) -> Vec<u8> {
        self.progress.encode(&mut self.peers)
    }

    /// Our own id in this club.
    pub fn id(&self) -> PeerId {
        self.keys.id()
    }

    /// Whether local changes may be authored and remote ones judged.
    fn is_member(&self) -> bool {
        self.membership == Membership::Member
    }

    /// Lets every part do what it can; called after each input.
    pub fn pump(&mut self, ctx: &mut Ctx<'_>) {
        if self.retry_store_at.is_none() && self.is_member() && self.folder.is_open() {
            self.load_leftovers(ctx);
        }
        self.heed_clock(ctx);
        if self.renew_if_due(ctx) || self.stores_identity(ctx) {
            return;
        }
        self.heed_newcomers(ctx.now.mono);
        self.pump_late(ctx);
        self.pump_archive_search(ctx);
        loop {
            self.pump_survey(ctx);
            self.pump_pipeline(ctx);
            self.pump_work(ctx);
            self.pump_pipeline(ctx);
            // A batch that had nothing to store is over at once, and no completion will call for what comes next.
            let held_up = self.retry_store_at.is_some() || self.renewal.is_some() || self.is_reclaiming();
            let stuck = self.pipeline.is_stuck() && !held_up;
            let lags = self.survey.lags(!self.pipeline.has_looks(), self.work.freed());
            let goes_on = stuck || lags && self.may_look();
            if !goes_on {
                break;
            }
        }
        if self.renewal.is_some() && !self.pipeline.is_busy() {
            // Found out just now, and no batch is under way any more: nothing is sent under the old identity.
            return self.pump(ctx);
        }
        self.pump_links(ctx);
    }

    /// Lets the survey go on, and hands over what it found.
    fn pump_survey(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(found) = self.survey.root_lost.take() {
            let judged = match found {
                Ok(marker) => self.folder.judge_marker(marker.as_deref()),
                Err(error) => Err(folder::Trouble::Unreachable(error)),
            };
            if let Err(trouble) = judged {
                self.folder_lost(ctx, trouble);
            }
        }
        // Nothing is judged before the installs of the last run are known, nor, without base, before a member was met.
        if !self.may_look() {
            return;
        }
        self.survey.without_base = !self.progress.looked_through;
        self.survey.after_loss = self.progress.tail_lost;
        self.survey.live = self.progress.totals.files;
        self.survey.grain = self.folder.grain;
        let (stored, freed) = (!self.pipeline.has_looks(), self.work.freed());
        self.survey.pump(ctx.now, stored, self.work.busy(), freed, ctx.out);
        self.looking_since = self.looking_since.filter(|since| {
            let stale = ctx.now.mono.since(since.mono) > LOOK_LASTS_MAX;
            !stale && (self.pipeline.has_looks() || self.survey.is_busy())
        });
        while !self.pipeline.is_full() {
            let ready = self.survey.take_ready(OBSERVATIONS);
            if ready.is_empty() {
                break;
            }
            let since = *self.looking_since.get_or_insert(ctx.now);
            self.pipeline.push(Op::Local(ready, since.wall));
        }
        if self.survey.take_finished() {
            let intents = core::mem::take(&mut self.intents_left);
            self.pipeline.push(Op::LookedThrough { intents });
        }
    }

    fn may_look(&self) -> bool {
        let member = self.is_member() && self.folder.is_open() && self.progress.caught_up;
        let free = self.retry_store_at.is_none() && self.flushing.is_none();
        member && !self.paused && free && !self.waits_for_leftovers() && self.left.is_empty()
    }

    /// Whether the first look of this run, or since the folder came back, is to come or under way, or not all that it
    /// found is stored.
    fn is_looking(&self) -> bool {
        !self.looked_through && self.is_member() && !self.paused && !self.folder.is_doubtful()
    }

    /// Makes durable what sync did on disk and the database does not know: a look may find it and have it stored, and
    /// what is gone after a power cut would then pass for a user's delete.
    fn flush_before_look(&mut self, ctx: &mut Ctx<'_>) {
        self.flushing = Some(ctx.out.disk(DiskOp::Flush { root: self.root }));
    }

    fn pump_work(&mut self, ctx: &mut Ctx<'_>) {
        self.work.enabled = self.may_work();
        self.work.pump(&self.peers, ctx.now, ctx.out);
        self.work.pump_removals(self.pipeline.is_idle(), ctx.now, ctx.out);
        self.work.pump_flush(ctx.now, ctx.out);
        let (unsure, groups) = self.work.take_unsure();
        if !groups.is_empty() {
            // The intents are kept until all of these were looked at.
            self.intents_left.extend(groups.into_iter().map(|group| self.work.intents_key(group)));
            self.intents.extend(unsure);
            self.unjudged = true;
            self.survey.look_through();
            self.flush_before_look(ctx);
        }
        let (items, groups) = self.work.take_finished();
        if !items.is_empty() || !groups.is_empty() {
            let intents = groups.into_iter().map(|group| self.work.intents_key(group)).collect();
            self.pipeline.push(Op::Finish { items, intents });
        }
        while let Some(page) = self.work.take_page() {
            self.pipeline.push(Op::Plan(page));
        }
        if let Some(paths) = self.work.take_unplanned() {
            self.pipeline.push(Op::Weigh(paths));
        }
        if self.work.take_no_space() {
            self.archive_space.no_space(ctx.now.mono);
        }
        if self.work.take_root_missing() {
            self.folder_lost(ctx, folder::Trouble::Unreachable(DiskError::RootMissing));
        }
    }

    /// The folder is not in order: everything that touches it stops until it is back.
    fn folder_lost(&mut self, ctx: &mut Ctx<'_>, trouble: folder::Trouble) {
        if self.folder.trouble() == Some(trouble) {
            return;
        }
        self.folder.lost(trouble, ctx.now);
        self.survey.abandon();
        // What was renamed when it went may not be durable and told: that is seen before more is renamed.
        self.looked_through = false;
        let message = status::folder_sentence(trouble, &self.folder.path);
        ctx.out.event(Event::Notice { share: Some(self.folder.path.clone()), message });
    }

    /// Whether paths may be brought to their version now.
    pub fn may_work(&self) -> bool {
        let ready = self.retry_store_at.is_none() && !self.waits_for_leftovers() && self.sweeping.is_none();
        let looked = self.progress.looked_through && !self.progress.tail_lost && ready;
        !self.paused && self.is_member() && self.folder.is_open() && looked
    }

    /// Whether changes made here may leave this peer.
    pub fn may_author(&self) -> bool {
        self.club.as_ref().map(Club::level) == Some(Level::ReadWrite)
    }

    /// Whether the database is at rest.
    pub fn is_settled(&self) -> bool {
        self.pipeline.is_idle()
    }

    /// Takes a completion, if it is this share's.
    pub fn handle_completion(&mut self, ctx: &mut Ctx<'_>, token: Token, completion: Completion) {
        match completion {
            Completion::Store(result) => self.handle_store(ctx, token, result),
            Completion::Disk(result) => self.handle_disk(ctx, token, result),
        }
    }

    fn handle_store(&mut self, ctx: &mut Ctx<'_>, token: Token, result: Result<StoreDone, StoreError>) {
        // Whoever asked: what failed is asked again by its own part, and none of them before the pause is over.
        match &result {
            Err(error) => self.pause_store(ctx, *error, self.pipeline.is_committing(token)),
            Ok(done) if *done == StoreDone::Committed || !self.refuses_writes => {
                (self.store_trouble, self.refuses_writes) = (None, false);
            }
            Ok(_) => {}
        }
        if let Some(asked) = self.tokens.remove(&token) {
            return self.answered(ctx, asked, result);
        }
        if let Some(loaded) = self.pipeline.take_loaded(token) {
            let (mut batch, ahead) = match loaded {
                Loaded::Turn(batch) => (batch, false),
                Loaded::Ahead(batch) => (batch, true),
            };
            let taken = match result {
                Ok(StoreDone::Loaded(answers)) => {
                    batch.txn.loaded(answers, &self.peers).map_err(|_| StoreError::Corrupt)
                }
                Ok(StoreDone::Committed) => Err(StoreError::Io),
                Err(error) => Err(error),
            };
            self.pipeline.catch_up(token, &mut batch.txn);
            return match taken {
                Ok(()) if ahead => self.try_ahead(ctx, batch),
                Ok(()) => self.decide(ctx, batch),
                Err(error) => {
                    // What cannot be read is no better than what does not come.
                    self.pause_store(ctx, error, false);
                    self.put_back_ops(batch.ops, ahead);
                }
            };
        }
        if let Some(batch) = self.pipeline.take_committed(token) {
            return match result {
                Ok(_) => self.committed(ctx, batch),
                Err(_) => self.put_back_ops(batch.ops, false),
            };
        }
        if self.work.owns(token) {
            return self.work.handle_store(token, result, ctx.now, ctx.out);
        }
        if self.server.owns(token) {
            self.server.handle_store(token, result, &self.peers, ctx.out);
            return;
        }
        self.survey.handle_store(token, result, &self.peers, ctx.now);
    }

    fn handle_disk(&mut self, ctx: &mut Ctx<'_>, token: Token, result: Result<DiskDone, DiskError>) {
        if self.work.owns(token) {
            return self.work.handle_disk(token, result, &self.peers, ctx.now, ctx.out);
        }
        if self.sweeping == Some(token) {
            return self.temps_swept(result);
        }
        if self.flushing == Some(token) {
            self.flushing = None;
            if let Err(error) = result {
                // What the disk cannot make durable now is looked at all the same.
                log::warn!("{}: cannot be flushed: {error:?}", self.folder.path);
            }
            return;
        }
        if self.late.owns(token) {
            return self.late.handle_disk(token, result, ctx.now);
        }
        if self.archive_search.owns(token) {
            return self.archive_searched(ctx, result);
        }
        if self.server.owns(token) {
            self.server.handle_disk(token, result, ctx.out);
            return;
        }
        match self.folder.handle_disk(token, &result, ctx.home, ctx.now) {
            Some(Ok(())) => {
                self.survey.look_through();
                self.flush_before_look(ctx);
                self.work.retry_all();
                // What was to be removed while the folder was away is still there.
                self.sweep_temps(ctx);
                return;
            }
            Some(Err(trouble)) => {
                let message = status::folder_sentence(trouble, &self.folder.path);
                if self.folder.tell(trouble) {
                    ctx.out.event(Event::Notice { share: Some(self.folder.path.clone()), message });
                }
                return;
            }
            None => {}
        }
        self.survey.handle_disk(token, result, ctx.now, ctx.out);
    }

    /// The store failed: nothing is asked of it for a while.
    pub(super) fn pause_store(&mut self, ctx: &mut Ctx<'_>, error: StoreError, writes: bool) {
        // Not anew with each failure: what peers ask for may fail all the time.
        self.retry_store_at.get_or_insert(ctx.now.mono.plus(STORE_PAUSE));
        self.refuses_writes |= writes;
        if self.store_trouble != Some(error) {
            self.store_trouble = Some(error);
            let message = status::store_sentence(error).to_string();
            ctx.out.event(Event::Notice { share: Some(self.folder.path.clone()), message });
        }
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, asked: Asked, result: Result<StoreDone, StoreError>) {
        let mut answers = match (result, &asked) {
            (Ok(StoreDone::Loaded(answers)), _) => answers,
            (Ok(StoreDone::Committed), Asked::Identity(_)) => return,
            _ => return self.unanswered(asked),
        };
        let mut rows = || -> Vec<Row> { answers.pop().unwrap_or_default() };
        match asked {
            Asked::Arrivals(conn, head) => self.arrivals_loaded(ctx, conn, head, rows()),
            Asked::Records(conn, arrivals, to) => self.records_loaded(ctx, conn, &arrivals, to, answers),
            Asked::Intents => self.intents_loaded(ctx, rows()),
            Asked::Partials => {
                self.work.fetcher.load(&rows(), ctx.out);
                self.sweep_temps(ctx);
            }
            Asked::Reclaim(former) => self.reclaim_loaded(ctx, former, rows()),
            Asked::Identity(_) => {}
        }
    }

    /// The store did not answer: it is asked again after the pause, and nothing goes on meanwhile that needs it.
    fn unanswered(&mut self, asked: Asked) {
        match asked {
            // Taken for none, records would be passed over, and the peer told that it has them.
            Asked::Arrivals(conn, _) | Asked::Records(conn, ..) => self.not_loaded(conn),
            // Nothing begins before they are known: without them an install of the last run passes for an edit.
            Asked::Intents => self.asked_intents = false,
            Asked::Partials => self.asked_partials = false,
            Asked::Reclaim(_) => {}
            Asked::Identity(writes) => self.unstored = Some(writes),
        }
    }

    /// When this share wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.renewal.is_some() || self.has_unkept_identity() {
            // Nothing else is done before that.
            return self.retry_store_at;
        }
        let looks = self.may_look() && !self.pipeline.has_looks();
        let survey = self.survey.poll_timeout().filter(|_| looks);
        let late = self.late.poll_timeout().filter(|_| self.may_work());
        let (work, folder) = (self.work.poll_timeout(), self.folder.poll_timeout());
        let waits = self.waits_timeout().into_iter().chain(self.newcomers_timeout()).min();
        let parts = [work, survey, late, self.retry_store_at, folder, waits, self.sums_timeout()];
        parts.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        if self.retry_store_at.is_some_and(|at| at <= ctx.now.mono) {
            self.retry_store_at = None;
        }
        self.end_waits(ctx.now.mono);
        self.work.handle_timeout(ctx.now, ctx.out);
        self.folder.handle_timeout(ctx.now, ctx.out);
    }

    /// Whether there is more for a link whose send queue is empty.
    pub fn has_more_for(&self, conn: ConnId) -> bool {
        let link = self.links.get(&conn);
        link.is_some_and(|link| link.feed.wants_more(self.progress.arrival).is_some())
            || self.server.wants_room(conn)
    }

    /// A hint from the watcher.
    pub fn handle_fs_event(&mut self, now: Now, path: &RelPath, seen: Noticed) {
        match seen {
            Noticed::Changed => self.survey.hint(path.clone(), now),
            Noticed::Done => self.survey.hint_done(path.clone(), now),
            Noticed::NewDir => self.survey.hint_new_dir(path.clone(), now),
        }
    }
}

/// A write of one of a club's facts.
pub fn put_fact(root: RootId, fact: Fact, value: Vec<u8>) -> Write {
    Write::Put { space: Space::Meta, key: layout::fact_key(root, fact), value }
}

fn encode_peers(peers: &PeerTable) -> Vec<u8> {
    let mut value = Vec::new();
    peers.encode(&mut value);
    value
}

/// The stored form of how far a peer's records were received.
fn encode_resume(resume: &Resume) -> Vec<u8> {
    let mut value = resume.token.to_vec();
    value.extend_from_slice(&resume.arrival.to_be_bytes());
    value
}

/// Reads how far a peer's records were received.
pub fn decode_resume(bytes: &[u8]) -> Option<Resume> {
    let (token, arrival) = bytes.split_first_chunk::<16>()?;
    Some(Resume { token: *token, arrival: u64::from_be_bytes(arrival.try_into().ok()?) })
}

/// What a member calls its computer, if it said so.
pub fn known_name(names: &BTreeMap<PeerId, String>, peer: PeerId) -> Option<&str> {
    names.get(&peer).map(String::as_str).filter(|name| !name.is_empty())
}

/// A member as people see it: what it calls its computer, else its id.
pub fn shown_name(names: &BTreeMap<PeerId, String>, peer: PeerId) -> String {
    known_name(names, peer).map_or_else(|| short_id(peer), String::from)
}

/// An id as people see it where no name is known.
pub fn short_id(id: PeerId) -> String {
    id.to_string()[..8].to_string()
}
