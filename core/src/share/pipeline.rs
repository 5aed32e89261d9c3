//! The one way by which a share's records and rows change: load, decide, commit.
//!
//! Operations wait in a queue. A batch of them is decided together over one [`Txn`]; what it lacks is loaded and the
//! batch is decided again; then it is committed once, and only after that its effects happen: records are announced,
//! tasks begin. Batches are decided and committed one after the other, so no two operations ever work on the same row.
//!
//! While one batch is being loaded or committed, what the next one will need is loaded *ahead*: it is decided on trial
//! until nothing is missed, and for good once the batch before it is stored, over a view that is brought up to that
//! commit. So the store and the engine work at the same time.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::{ConnId, PeerId, Token, Uuid};
use crate::index::clock::Clock;
use crate::index::knowledge::Resume;
use crate::index::record::{Change, Record};
use crate::share::archived::Kept;
use crate::share::finish::Finished;
use crate::share::local::{Doubt, Observation, Vanished};
use crate::share::progress::Progress;
use crate::share::task::Task;
use crate::share::txn::{Changes, Txn};
use crate::time::WallTime;

/// One operation on the database.
#[derive(Debug)]
pub enum Op {
    /// A record came from a peer.
    Remote {
        /// The link.
        conn: ConnId,
        /// The record.
        record: Arc<Record>,
        /// Where the peer's answer stands after it.
        at: Option<Resume>,
    },
    /// A peer said what its records, all of which came before, make up.
    Knowledge {
        /// The link.
        conn: ConnId,
        /// The peer's knowledge.
        knowledge: Clock,
        /// Whether it ends the answer to `database.get_updates`.
        current: bool,
    },
    /// A peer's answer is enough now that was not when it came.
    CaughtUp,
    /// A peer asked for records.
    Asked {
        /// The link.
        conn: ConnId,
        /// What it knows.
        since: Clock,
        /// Where its last answer from here stood.
        resume: Option<Resume>,
    },
    /// The folder was looked at: one batch, which enters knowledge as one, and the time at which looks began to find
    /// what it belongs to.
    Local(Vec<Observation>, WallTime),
    /// Disk work ended.
    Finish {
        /// What became of each path.
        items: Vec<Finished>,
        /// Keys of intents that are not needed any more.
        intents: Vec<Vec<u8>>,
    },
    /// Paths that are not at their index version are to be looked at.
    Plan(Vec<RelPath>),
    /// Of paths that are not at their index version, and are not looked at now, it is noted which contents they want.
    Weigh(Vec<RelPath>),
    /// The folder was looked through, and everything found came before.
    LookedThrough {
        /// Keys of intents of the last run.
        intents: Vec<Vec<u8>>,
    },
    /// Records among which a former identity's changes are made again (protocol §7, case c).
    Reclaim {
        /// The identity.
        old: PeerId,
        /// The records.
        uuids: Vec<Uuid>,
        /// The arrival number after theirs.
        next: u64,
    },
    /// The user decided about a conflict file.
    Resolve {
        /// Its path.
        path: RelPath,
        /// Whether its content takes the place of the original's.
        keep: bool,
    },
}

impl Op {
    /// How often it is decided on trial before all that it needs is taken to be loaded: the row tells which records
    /// are needed, and a record which contents. What is missed nevertheless costs a load when it is its turn.
    fn trials(&self) -> u32 {
        match self {
            Op::Remote { .. } | Op::Knowledge { .. } | Op::CaughtUp | Op::Asked { .. } => 0,
            Op::Finish { .. } | Op::LookedThrough { .. } => 0,
            Op::Local(..) | Op::Plan(_) | Op::Weigh(_) | Op::Resolve { .. } | Op::Reclaim { .. } => 2,
        }
    }

    /// How much work an operation is, in records or paths.
    fn weight(&self) -> usize {
        match self {
            Op::Remote { .. } | Op::Knowledge { .. } | Op::CaughtUp | Op::Asked { .. } => 1,
            Op::LookedThrough { .. } | Op::Resolve { .. } => 1,
            Op::Local(items, _) => items.len(),
            Op::Finish { items, intents } => items.len() + intents.len(),
            Op::Plan(paths) | Op::Weigh(paths) => paths.len(),
            Op::Reclaim { uuids, .. } => uuids.len(),
        }
    }
}

/// What happens after a batch was committed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Disk work to begin.
    pub tasks: Vec<Task>,
    /// Records that came from a link and were stored as they came: they need not go back.
    pub from_link: Vec<(ConnId, u64)>,
    /// Links whose answer to `database.get_updates` is complete.
    pub caught_up: Vec<ConnId>,
    /// Links whose peers asked for records, and what they said of what they have.
    pub asked: Vec<(ConnId, Clock, Option<Resume>)>,
    /// Knowledge that peers told of themselves.
    pub peer_knowledge: Vec<(ConnId, Clock)>,
    /// The newest change of each author that something waits for.
    pub awaited: Clock,
    /// Paths to be looked at again, because they changed meanwhile.
    pub again: Vec<RelPath>,
    /// Paths that cannot be judged before another one was looked at, or is not in work any more.
    pub doubted: Vec<Doubt>,
    /// Contents that something pending wants, and of which a part is kept.
    pub claimed: Vec<crate::ids::Sha256>,
    /// Files that were moved to the archive.
    pub archived: Vec<Kept>,
    /// Files that came out of the archive and have a record now.
    pub recorded: Vec<RelPath>,
    /// Originals whose kept content was thrown away, and the changes that kept it.
    pub thrown: Vec<(Uuid, Change)>,
    /// Contents that can be read here from now on.
    pub appeared: Vec<crate::ids::Sha256>,
    /// Sentences for the user.
    pub notices: Vec<alloc::string::String>,
    /// Records from links whose keys are meant as paths and cannot be: how many, and one of the keys.
    pub pathless: BTreeMap<ConnId, (u64, alloc::string::String)>,
    /// Links that broke a rule.
    pub misbehaved: Vec<(ConnId, &'static str)>,
    /// A peer knows changes of this peer's own identity that this store does not know (protocol §7, case c).
    pub identity_lost: bool,
    /// Paths that were looked at: what the last run may have put there has been told from a user's edit.
    pub judged: Vec<RelPath>,
    /// Work that ended, so that its paths may be planned again.
    pub ended: Vec<RelPath>,
    /// Deletes that the survey found and that were authored.
    pub deleted: u64,
    /// Absences that would be deletes, of which the survey asked whether they are news.
    pub vanished: Vec<Vanished>,
    /// How many operations from each link were done.
    pub done_from: Vec<ConnId>,
    /// Where the answers of links stand.
    pub resume: BTreeMap<ConnId, Resume>,
    /// Links over which versions came whose joins show that somebody broke the rules, once for each.
    pub faults: Vec<ConnId>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading(Token),
    Committing(Token),
    /// Of a batch ahead: nothing is missing any more.
    Ready,
}

/// A batch under way.
#[derive(Debug)]
pub struct Batch {
    /// Its operations.
    pub ops: Vec<Op>,
    /// Its view of the store.
    pub txn: Txn,
    /// What happens after the commit.
    pub effects: Effects,
    /// The progress that the commit stores.
    pub progress: Progress,
    /// How often it was decided on trial.
    tried: u32,
    phase: Phase,
}

impl Batch {
    /// A batch of which nothing was decided yet.
    pub fn new(ops: Vec<Op>, txn: Txn) -> Batch {
        let (effects, progress) = (Effects::default(), Progress::default());
        Batch { ops, txn, effects, progress, tried: 0, phase: Phase::Ready }
    }

    /// Whether it is worth deciding on trial once more; counts it.
    pub fn take_trial(&mut self) -> bool {
        let worth = self.ops.iter().any(|op| op.trials() > self.tried);
        self.tried += u32::from(worth);
        worth
    }
}

/// A batch that was loading.
#[derive(Debug)]
pub enum Loaded {
    /// It is its turn.
    Turn(Batch),
    /// The one before it is not stored yet.
    Ahead(Batch),
}

/// The queue and the batch under way.
#[derive(Debug, Default)]
pub struct Pipeline {
    queue: VecDeque<Op>,
    weight: usize,
    /// Operations of the survey that are not stored yet, wherever they are.
    looks: usize,
    batch: Option<Batch>,
    ahead: Option<Batch>,
    /// What the last commit changed, for the load of the batch ahead that was put out before it.
    settled: Option<(Token, Changes)>,
}

impl Pipeline {
    /// The weight of one batch, in records and paths; enough that a commit's cost is spread thin.
    pub const BATCH_WEIGHT: usize = 1000;
    /// Above this weight the share asks its links for no more.
    pub const QUEUE_WEIGHT_MAX: usize = 4 * Self::BATCH_WEIGHT;
    /// From this weight on the queue is worth a batch ahead; less waits, so that batches stay large.
    const AHEAD_WEIGHT: usize = Self::BATCH_WEIGHT / 4;

    /// Adds an operation.
    pub fn push(&mut self, op: Op) {
        self.weight += op.weight();
        self.looks += usize::from(matches!(op, Op::Local(..)));
        self.queue.push_back(op);
    }

    /// Whether something that was found on disk is not stored yet, so that rows may be older than it.
    pub fn has_looks(&self) -> bool {
        self.looks > 0
    }

    /// Notes that these operations are stored.
    pub fn stored(&mut self, ops: &[Op]) {
        let looks = ops.iter().filter(|op| matches!(op, Op::Local(..))).count();
        self.looks = self.looks.saturating_sub(looks);
    }

    /// Whether links should hold back.
    pub fn is_full(&self) -> bool {
        self.weight >= Self::QUEUE_WEIGHT_MAX
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.batch.is_none() && self.ahead.is_none()
    }

    /// Whether operations wait and nothing is under way that would bring their turn.
    pub fn is_stuck(&self) -> bool {
        !self.queue.is_empty() && self.batch.is_none()
    }

    /// Whether a batch is under way.
    pub fn is_busy(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether the next batch should be loaded ahead of the one under way.
    pub fn wants_ahead(&self) -> bool {
        self.ahead.is_none() && self.weight >= Self::AHEAD_WEIGHT
    }

    /// The operations of the next batch.
    pub fn take_ops(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut weight = 0;
        while let Some(op) = self.queue.front() {
            if weight > 0 && weight + op.weight() > Self::BATCH_WEIGHT {
                break;
            }
            weight += op.weight();
            ops.extend(self.queue.pop_front());
        }
        self.weight = self.weight.saturating_sub(weight);
        ops
    }

    /// Puts the operations of a batch that could not be committed back in front.
    pub fn put_back(&mut self, ops: Vec<Op>) {
        for op in ops.into_iter().rev() {
            self.weight += op.weight();
            self.queue.push_front(op);
        }
    }

    /// Notes that a batch loads what it lacks.
    pub fn loading(&mut self, token: Token, batch: Batch) {
        self.batch = Some(Batch { phase: Phase::Loading(token), ..batch });
    }

    /// Notes that a batch is being committed.
    pub fn committing(&mut self, token: Token, batch: Batch) {
        self.batch = Some(Batch { phase: Phase::Committing(token), ..batch });
    }

    /// Notes that the batch ahead loads what it lacks; `None`: it lacks nothing.
    pub fn ahead(&mut self, token: Option<Token>, batch: Batch) {
        self.ahead = Some(Batch { phase: token.map_or(Phase::Ready, Phase::Loading), ..batch });
    }

    /// The batch ahead is next: returns it if it can be decided, and otherwise lets it wait for its load as the batch
    /// under way.
    pub fn next_ahead(&mut self) -> Option<Batch> {
        let batch = self.ahead.take()?;
        if batch.phase == Phase::Ready {
            return Some(batch);
        }
        self.batch = Some(batch);
        None
    }

    /// Takes the batch whose load this token ends.
    pub fn take_loaded(&mut self, token: Token) -> Option<Loaded> {
        let loads = |batch: &mut Batch| batch.phase == Phase::Loading(token);
        match self.batch.take_if(loads) {
            Some(batch) => Some(Loaded::Turn(batch)),
            None => self.ahead.take_if(loads).map(Loaded::Ahead),
        }
    }

    /// Whether this token is the commit of the batch under way.
    pub fn is_committing(&self, token: Token) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.phase == Phase::Committing(token))
    }

    /// Takes the batch whose commit this token ends.
    pub fn take_committed(&mut self, token: Token) -> Option<Batch> {
        self.batch.take_if(|batch| batch.phase == Phase::Committing(token))
    }

    /// A batch was stored: the view of the one ahead is brought up to it.
    pub fn settle(&mut self, changes: Changes) {
        self.settled = None;
        if let Some(ahead) = &mut self.ahead {
            ahead.txn.absorb(&changes);
            if let Phase::Loading(token) = ahead.phase {
                self.settled = Some((token, changes));
            }
        }
    }

    /// Brings a view up to the last commit, if the load that has just ended was put out before it. No other load: what
    /// the commit made out of date would be thrown away again each time it comes.
    pub fn catch_up(&mut self, token: Token, txn: &mut Txn) {
        if let Some((_, changes)) = self.settled.take_if(|(load, _)| *load == token) {
            txn.absorb(&changes);
        }
    }

    /// Puts the operations of a batch back in front, and behind them those of the batch ahead.
    pub fn put_back_all(&mut self, ops: Vec<Op>) {
        if let Some(ahead) = self.ahead.take() {
            self.put_back(ahead.ops);
        }
        self.put_back(ops);
    }
}
