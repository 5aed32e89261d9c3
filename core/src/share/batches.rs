//! How a share's batches go: what is decided when, loaded ahead, stored, and what happens once it is stored. What is
//! decided is `planning.rs`'s and `local.rs`'s.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Ctx, Share, clock, encode_peers, encode_resume, layout, planning, put_fact};
use crate::club::keys::Club;
use crate::engine::event::Event;
use crate::files::path::{PathError, RelPath};
use crate::io::store::{Durability, Space, StoreOp, Write};
use crate::share::finish::Outcome;
use crate::share::layout::Fact;
use crate::share::local::Why;
use crate::share::pipeline::{Batch, Effects, Op};
use crate::share::renewal::Renewal;
use crate::share::task::Task;
use crate::share::txn::{Miss, Txn};
use crate::wire::directory::DirectoryMessage;
use crate::wire::message::Message;

impl Share {
    pub(super) fn pump_pipeline(&mut self, ctx: &mut Ctx<'_>) {
        let rests = self.pipeline.is_idle() && !self.is_reclaiming();
        if rests || self.retry_store_at.is_some() || self.renewal.is_some() {
            return;
        }
        if !self.pipeline.is_busy() && self.pump_reclaim(ctx) {
            return;
        }
        let mut turn = None;
        if !self.pipeline.is_busy() {
            turn = self.pipeline.next_ahead();
            if turn.is_none() && !self.pipeline.is_busy() {
                turn = self.next_batch();
            }
        }
        // Before the batch whose turn it is, so that the store has work while that is decided.
        if (turn.is_some() || self.pipeline.is_busy())
            && self.pipeline.wants_ahead()
            && let Some(next) = self.next_batch()
        {
            self.try_ahead(ctx, next);
        }
        if let Some(batch) = turn {
            self.decide(ctx, batch);
        }
    }

    /// The next operations of the queue, with a view that lacks all that they are known to need.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let ops = self.pipeline.take_ops();
        (!ops.is_empty()).then(|| self.new_batch(ops))
    }

    pub(super) fn new_batch(&self, ops: Vec<Op>) -> Batch {
        let mut txn = Txn::new(self.root, self.progress.totals, self.progress.arrival);
        for op in &ops {
            planning::prefetch(&mut txn, op);
        }
        Batch::new(ops, txn)
    }

    /// Decides the operations of a batch; false if something is missing.
    pub(super) fn judge(&self, ctx: &Ctx<'_>, batch: &mut Batch) -> bool {
        let Batch { ops, txn, effects, progress, .. } = batch;
        txn.restart(self.progress.totals, self.progress.arrival);
        (*effects, *progress) = (Effects::default(), self.progress.clone());
        if txn.has_missing() {
            return false;
        }
        let peers = self.clock.peers(ctx.now, &self.links);
        let clock = clock::check(ctx, &peers);
        let mut missed = false;
        for op in ops.iter() {
            let judged = planning::Judge {
                root: self.root,
                keys: &self.keys,
                level: self.club.as_ref().map(Club::level),
                existing: self.folder.policy,
                work: &self.work,
                survey: &self.survey,
                awaiting: self.awaiting(ctx.now.mono),
                links: &self.links,
                intents: &self.intents,
                taken: &self.taken,
                restored: &self.restored,
                thrown: &self.thrown,
                made: &self.made,
                late: &self.late,
                peers: &self.peers,
                names: &self.names,
                uuid_prefix: self.uuid_prefix,
                clock,
                txn,
                progress,
                effects,
            }
            .op(op);
            missed |= judged == Err(Miss);
        }
        !missed
    }

    /// Loads what the batch ahead lacks, as far as that can be told before the one under way is stored.
    pub(super) fn try_ahead(&mut self, ctx: &mut Ctx<'_>, mut batch: Batch) {
        let misses = batch.txn.has_missing() || batch.take_trial() && !self.judge(ctx, &mut batch);
        let token = misses.then(|| ctx.out.store(StoreOp::Load { queries: batch.txn.take_queries() }));
        self.pipeline.ahead(token, batch);
    }

    /// Decides a batch whose turn it is; loads what it lacks, or commits it.
    pub(super) fn decide(&mut self, ctx: &mut Ctx<'_>, mut batch: Batch) {
        if self.renewal.is_some() {
            return self.pipeline.put_back_all(batch.ops);
        }
        let complete = self.judge(ctx, &mut batch);
        if batch.effects.identity_lost {
            // Nothing of it is kept: all of it is decided under the new identity.
            self.pipeline.put_back_all(batch.ops);
            return self.begin_renewal(Renewal::ChangesLost);
        }
        if !complete {
            let token = ctx.out.store(StoreOp::Load { queries: batch.txn.take_queries() });
            self.pipeline.loading(token, batch);
            return;
        }
        let Batch { txn, effects, progress, .. } = &mut batch;
        let mut writes = txn.writes(&mut self.peers);
        progress.totals = txn.totals;
        progress.arrival = txn.arrival;
        if writes.is_empty() && *progress == self.progress {
            self.committed(ctx, batch);
            return;
        }
        for (conn, resume) in &effects.resume {
            if let Some(link) = self.links.get(conn) {
                let key = layout::peer_fact_key(self.root, Fact::Resume, link.peer);
                writes.push(Write::Put { space: Space::Meta, key, value: encode_resume(resume) });
                self.resumes.insert(link.peer, *resume);
            }
        }
        effects.appeared = core::mem::take(&mut txn.appeared);
        let value = progress.encode(&mut self.peers);
        writes.push(put_fact(self.root, Fact::Progress, value));
        if self.peers.len() != self.peers_stored {
            writes.push(put_fact(self.root, Fact::Peers, encode_peers(&self.peers)));
        }
        // That a writer was met is kept before anything is told to it: later it may know what this run did.
        let meets = progress.met && !self.progress.met;
        let durability = if meets { Durability::Now } else { Durability::Soon };
        let token = ctx.out.store(StoreOp::Commit { writes, durability });
        self.pipeline.committing(token, batch);
    }

    /// A batch took effect.
    pub(super) fn committed(&mut self, ctx: &mut Ctx<'_>, batch: Batch) {
        let Batch { ops, txn, effects, progress, .. } = batch;
        // A path that failed wants another version now, which may not fail.
        if self.work.failures().next().is_some() {
            txn.new_keys().for_each(|path| self.work.forget_failure(&path));
        }
        for record in txn.new_versions() {
            self.work.superseded(record, ctx.now, ctx.out);
            self.work.claim_for(record);
            self.made.note(self.keys.id(), record);
        }
        self.fresh.stored(txn.arrived());
        self.pipeline.settle(txn.into_changes());
        self.pipeline.stored(&ops);
        self.looked_through |= ops.iter().any(|op| matches!(op, Op::LookedThrough { .. }));
        // Anything that the database learned may be what a pending path waited for, or what ends a download's use.
        let waits = progress.totals.pending > 0 || self.work.has_parked();
        let wake = waits && (progress != self.progress || !effects.ended.is_empty());
        self.progress = progress;
        self.waits.note(&effects.awaited, &self.progress.knowledge, &self.progress.former, ctx.now.mono);
        let mut deleted = Vec::new();
        for op in &ops {
            if let Op::Remote { record, .. } = op {
                deleted.extend(RelPath::from_key(&record.key).filter(|_| record.deleted()));
            }
        }
        for link in effects.faults.iter().filter_map(|conn| self.links.get(conn)) {
            self.faults.note(link.peer);
        }
        self.work.hurry(deleted);
        for (conn, arrival) in effects.from_link {
            if let Some(link) = self.links.get_mut(&conn) {
                link.feed.note_from_link(arrival);
            }
        }
        for (conn, since, resume) in effects.asked {
            self.answer(conn, since, resume);
        }
        for (conn, knowledge) in effects.peer_knowledge {
            if let Some(link) = self.links.get_mut(&conn) {
                link.feed.peer_knows(&knowledge);
                link.knowledge = Some(knowledge);
            }
        }
        for conn in effects.caught_up {
            if let Some(link) = self.links.get_mut(&conn) {
                link.caught_up = true;
                self.heard_from.insert(link.peer);
            }
        }
        for conn in effects.done_from {
            if let Some(link) = self.links.get_mut(&conn) {
                link.queued = link.queued.saturating_sub(1);
            }
        }
        for sha256 in &effects.appeared {
            for conn in self.server.appeared(sha256) {
                let message = DirectoryMessage::Present { sha256: *sha256 };
                ctx.links.send(conn, &Message::Directory(message));
            }
        }
        for path in &effects.ended {
            self.work.ended(path);
            if self.survey.held.contains(path) {
                self.survey.hint(path.clone(), ctx.now);
            }
        }
        // An intent explains the first look at its path and no later one: the same content may come from the user then.
        self.forget_intents(&effects.judged, &ops);
        self.intents_dropped(ctx, &ops);
        let grown = effects.archived.iter().fold(0u64, |sum, kept| sum.saturating_add(kept.file.stamp.size));
        self.archive_space.grew(grown, ctx.now.mono);
        // What a peer writes that may not author is put back into the archive anyway.
        if self.may_author() {
            effects.archived.into_iter().for_each(|kept| self.late.add(kept, ctx.now));
        }
        self.thrown.note(&effects.thrown);
        for path in &effects.recorded {
            self.taken.remove(path);
            self.restored.forget(path);
        }
        self.survey.note_absent(effects.deleted, effects.vanished, ctx.now);
        for path in effects.again {
            self.survey.hint(path, ctx.now);
        }
        let displaced = effects.doubted.iter().filter(|doubt| doubt.why == Why::Moved);
        let displaced: BTreeSet<RelPath> = displaced.map(|doubt| doubt.other.clone()).collect();
        if !displaced.is_empty() {
            self.work.displaced(&displaced, ctx.now, ctx.out);
        }
        for doubt in effects.doubted {
            self.survey.note_doubted(doubt, self.work.busy(), ctx.now);
        }
        for task in effects.tasks {
            let unseen = self.survey.is_above_unseen(task.path());
            if self.is_looking() && matches!(task, Task::Rename { .. }) {
                // The last run may have renamed it and not told the database: that is to be seen first.
                self.unjudged = true;
            } else if !self.is_unjudged(&task) && !self.work.holds_back(&task, unseen, ctx.now) {
                self.work.begin(task);
            }
        }
        for message in effects.notices {
            let share = Some(self.folder.path.clone());
            ctx.out.event(Event::Notice { share, message });
        }
        for (conn, (count, key)) in effects.pathless {
            let (path, who) = (&self.folder.path, self.who(ctx, conn));
            let why = RelPath::check_key(&key).err().map_or("", PathError::sentence);
            log::warn!(
                "{path}: {who} told of {count} paths that cannot be; no files come of them: {key:?}: {why}"
            );
        }
        for (conn, why) in effects.misbehaved {
            log::warn!("{}: {}: {why}", self.folder.path, self.who(ctx, conn));
            ctx.links.close(conn, "protocol", why);
        }
        effects.claimed.iter().for_each(|sha256| self.work.claim(sha256));
        for _ in ops.iter().filter(|op| matches!(op, Op::Plan(_) | Op::Weigh(_))) {
            self.work.planned(ctx.out);
        }
        if wake {
            self.work.wake();
        }
    }

    pub(super) fn forget_intents(&mut self, judged: &[RelPath], ops: &[Op]) {
        for path in judged {
            self.intents.remove(path);
        }
        for op in ops {
            match op {
                Op::LookedThrough { .. } => {
                    let survey = &self.survey;
                    self.restored.looked_through(|path| survey.is_unseen(path));
                    self.intents.retain(|path, _| survey.is_unseen(path));
                    if core::mem::take(&mut self.unjudged) {
                        self.work.wake();
                    }
                }
                Op::Finish { items, .. } => {
                    let is_placed = |outcome: &Outcome| {
                        matches!(outcome, Outcome::Placed { .. } | Outcome::Recovered { .. })
                    };
                    let placed = items.iter().filter(|item| is_placed(&item.outcome));
                    for item in placed {
                        self.intents.remove(&item.path);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a task concerns a path at which the last run may have put something that was not looked at since: worked
    /// at first, it would not be looked at as what that run left there.
    fn is_unjudged(&self, task: &Task) -> bool {
        let left = |path: &RelPath| self.intents.contains_key(path);
        self.unjudged && (left(task.path()) || matches!(task, Task::Rename { to, .. } if left(to)))
    }

    /// A batch could not be loaded or stored: nothing of it happened, and it is tried again.
    pub(super) fn put_back_ops(&mut self, ops: Vec<Op>, ahead: bool) {
        if ahead {
            self.pipeline.put_back(ops);
        } else {
            self.pipeline.put_back_all(ops);
        }
    }
}
