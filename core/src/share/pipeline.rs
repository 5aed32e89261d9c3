//! The one way by which a share's records and rows change: load, decide, commit.
//!
//! Operations wait in a queue. A batch of them is decided together over one [`Txn`]; what it lacks is loaded and the
//! batch is decided again; then it is committed once, and only after that its effects happen: records are announced,
//! tasks begin. One batch is under way at a time, so no two operations ever work on the same row.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::{ConnId, Token};
use crate::index::clock::Clock;
use crate::index::knowledge::Resume;
use crate::index::record::Record;
use crate::share::finish::Finished;
use crate::share::local::Observation;
use crate::share::progress::Progress;
use crate::share::task::Task;
use crate::share::txn::Txn;

/// One operation on the database.
#[derive(Debug)]
pub enum Op {
    /// A record came from a peer.
    Remote {
        /// The link.
        conn: ConnId,
        /// The record.
        record: Box<Record>,
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
    /// The folder was looked at. One batch, which enters knowledge as one.
    Local(Vec<Observation>),
    /// Disk work ended.
    Finish(Vec<Finished>),
    /// Paths that are not at their index version are to be looked at.
    Plan(Vec<RelPath>),
    /// The folder was looked through, and everything found came before.
    LookedThrough,
    /// The user decided about a conflict file.
    Resolve {
        /// Its path.
        path: RelPath,
        /// Whether its content takes the place of the original's.
        keep: bool,
    },
}

impl Op {
    /// How much work an operation is, in records or paths.
    fn weight(&self) -> usize {
        match self {
            Op::Remote { .. } | Op::Knowledge { .. } | Op::LookedThrough | Op::Resolve { .. } => 1,
            Op::Local(items) => items.len(),
            Op::Finish(items) => items.len(),
            Op::Plan(paths) => paths.len(),
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
    /// Knowledge that peers told of themselves.
    pub peer_knowledge: Vec<(ConnId, Clock)>,
    /// Paths to be looked at again, because they changed meanwhile.
    pub again: Vec<RelPath>,
    /// Contents that can be read here from now on.
    pub appeared: Vec<crate::ids::Sha256>,
    /// Sentences for the user.
    pub notices: Vec<alloc::string::String>,
    /// Links that broke a rule.
    pub misbehaved: Vec<(ConnId, &'static str)>,
    /// A peer knows changes of this peer's own identity that this store does not know (protocol §7, case c).
    pub identity_lost: bool,
    /// Work that ended, so that its paths may be planned again.
    pub ended: Vec<RelPath>,
    /// How many operations from each link were done.
    pub done_from: Vec<ConnId>,
    /// Where the answers of links stand.
    pub resume: BTreeMap<ConnId, Resume>,
    /// Joins that showed that somebody broke the rules.
    pub faults: u64,
}

/// Where a batch is.
#[derive(Debug)]
enum Phase {
    Loading(Token),
    Committing(Token),
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
    phase: Phase,
}

/// The queue and the batch under way.
#[derive(Debug, Default)]
pub struct Pipeline {
    queue: VecDeque<Op>,
    weight: usize,
    batch: Option<Batch>,
}

impl Pipeline {
    /// The weight of one batch, in records and paths; enough that a commit's cost is spread thin.
    pub const BATCH_WEIGHT: usize = 1000;
    /// Above this weight the share asks its links for no more.
    pub const QUEUE_WEIGHT_MAX: usize = 4 * Self::BATCH_WEIGHT;

    /// Adds an operation.
    pub fn push(&mut self, op: Op) {
        self.weight += op.weight();
        self.queue.push_back(op);
    }

    /// Whether links should hold back.
    pub fn is_full(&self) -> bool {
        self.weight >= Self::QUEUE_WEIGHT_MAX
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.batch.is_none()
    }

    /// Whether a batch is under way.
    pub fn is_busy(&self) -> bool {
        self.batch.is_some()
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
    pub fn loading(&mut self, token: Token, ops: Vec<Op>, txn: Txn, effects: Effects, progress: Progress) {
        self.batch = Some(Batch { ops, txn, effects, progress, phase: Phase::Loading(token) });
    }

    /// Notes that a batch is being committed.
    pub fn committing(&mut self, token: Token, ops: Vec<Op>, txn: Txn, effects: Effects, progress: Progress) {
        self.batch = Some(Batch { ops, txn, effects, progress, phase: Phase::Committing(token) });
    }

    /// Takes the batch whose load this token ends.
    pub fn take_loaded(&mut self, token: Token) -> Option<Batch> {
        self.batch.take_if(|batch| matches!(batch.phase, Phase::Loading(t) if t == token))
    }

    /// Takes the batch whose commit this token ends.
    pub fn take_committed(&mut self, token: Token) -> Option<Batch> {
        self.batch.take_if(|batch| matches!(batch.phase, Phase::Committing(t) if t == token))
    }
}
