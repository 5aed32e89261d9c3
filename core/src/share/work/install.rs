//! Install groups: many finished downloads are flushed once, noted as intents, put at their paths, and flushed again
//! before they count as present (sync.md, "Bringing a path to a version", step 6).

use alloc::vec::Vec;

use super::{GROUP_ITEMS_MAX, GROUP_WAIT, GROUPS_MAX, Group, Job, PER_OP, Ready, Trouble, Work};
use crate::engine::outbox::Outbox;
use crate::ids::{RootId, TempId};
use crate::index::codec::PeerTable;
use crate::io::disk::{DiskError, DiskOp, Install, Stamp};
use crate::io::store::{Durability, Space, StoreOp, Write};
use crate::share::finish::{Finished, Outcome};
use crate::share::intents::{self, Coming};
use crate::share::layout;
use crate::time::Now;

impl Work {
    pub(super) fn start_group(&mut self, now: Now, out: &mut Outbox) {
        while !self.ready.is_empty() && self.groups.len() < GROUPS_MAX {
            let waited = self.ready_since.is_some_and(|since| now.mono.since(since) >= GROUP_WAIT);
            // While much is under way a group waits to be full; the flush is what costs.
            let alone = self.wants.is_empty() && self.waiting_wants.is_empty() && self.groups.is_empty();
            if self.ready.len() < GROUP_ITEMS_MAX && !alone && !(waited && self.groups.is_empty()) {
                return;
            }
            let rest = self.ready.split_off(self.ready.len().min(GROUP_ITEMS_MAX));
            let items = core::mem::replace(&mut self.ready, rest);
            self.ready_since = (!self.ready.is_empty()).then_some(now.mono);
            self.next_id += 1;
            let id = self.next_id;
            self.groups.insert(id, Group { items, waiting: 0, finished: Vec::new() });
            self.flush(Job::GroupFlush(id), out);
        }
    }

    pub(super) fn fail_ready(&mut self, item: Ready, trouble: Trouble, now: Now, out: &mut Outbox) {
        let op = DiskOp::RemoveTemps { root: self.root, temps: [item.temp].into() };
        self.jobs.insert(out.disk(op), Job::Forget);
        self.fail(item.path, trouble, now);
    }

    /// Stores what is about to be installed, as one row, so that a crash is told from a user's edit.
    pub(super) fn store_intents(&mut self, id: u64, peers: &PeerTable, out: &mut Outbox) {
        let Some(group) = self.groups.get(&id) else { return };
        let coming = |item: &Ready| Coming::Temp(item.temp, item.version.clone());
        let items = group.items.iter().map(|item| (&item.path, coming(item)));
        let value = intents::encode(items, peers);
        let write = Write::Put { space: Space::Intent, key: self.intents_key(id), value };
        let token = out.store(StoreOp::Commit { writes: [write].into(), durability: Durability::Now });
        self.jobs.insert(token, Job::GroupIntents(id));
    }

    /// A temp that was not put in place stays as long as its intent: a start at which it is gone takes it to have been.
    pub fn keep_temps(&mut self, intents: Vec<u8>, temps: impl IntoIterator<Item = TempId>) {
        self.left_over.entry(intents).or_default().extend(temps);
    }

    /// Intents went from the database, and with them what was kept for them.
    pub fn forget_temps(&mut self, intents: &[Vec<u8>], out: &mut Outbox) {
        let temps: Vec<TempId> =
            intents.iter().filter_map(|key| self.left_over.remove(key)).flatten().collect();
        if !temps.is_empty() {
            let op = DiskOp::RemoveTemps { root: self.root, temps };
            self.jobs.insert(out.disk(op), Job::Forget);
        }
    }

    /// The last intents that earlier runs left: this one's come after them, so that those of the latest run count.
    pub fn count_intents_from(&mut self, last: &[u8]) {
        if let Some((_, group)) = last.split_last_chunk() {
            self.intents_base = u64::from_be_bytes(*group);
        }
    }

    /// The key of a group's intents; no earlier run used it.
    pub fn intents_key(&self, id: u64) -> Vec<u8> {
        layout::intents_key(self.root, self.intents_base.wrapping_add(id))
    }

    pub(super) fn install_group(&mut self, id: u64, now: Now, out: &mut Outbox) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let items = core::mem::take(&mut group.items);
        group.waiting += items.len().div_ceil(PER_OP);
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let part = items.by_ref().take(PER_OP).collect();
            self.install_part(id, part, now, out);
        }
    }

    pub(super) fn install_part(&mut self, id: u64, part: Vec<Ready>, now: Now, out: &mut Outbox) {
        let archive = self.archive_folder(now);
        let op = install_op(self.root, &part, &archive);
        self.jobs.insert(out.disk(op), Job::GroupInstall(id, part, archive));
    }

    /// The directories of a group were flushed, or not.
    pub(super) fn synced(&mut self, id: u64, error: Option<DiskError>, now: Now) {
        let Some(group) = self.groups.remove(&id) else { return };
        let Some(error) = error else {
            self.finished.extend(group.finished);
            self.groups_ended.push(id);
            return;
        };
        self.unsure.1.push(id);
        // Marked present now, and gone after a crash, it would pass for deleted by the user.
        for Finished { path, outcome } in group.finished {
            if let Outcome::Placed { version, .. } = outcome {
                self.unsure.0.push((path.clone(), Some(version)));
            }
            self.fail(path, Trouble::Disk(error), now);
        }
    }

    /// A part of a group was put in place, or not. What is left is tried once more when the directories above it are
    /// made.
    pub(super) fn installed(
        &mut self,
        id: u64,
        part: Vec<Ready>,
        archive: &str,
        results: Vec<Result<Stamp, DiskError>>,
        now: Now,
        out: &mut Outbox,
    ) -> Vec<Ready> {
        let mut again = Vec::new();
        let mut finished = Vec::new();
        for (item, result) in part.into_iter().zip(results) {
            match result {
                Ok(stamp) => {
                    let mut outcome = self.placed(&item.path, item.version, stamp, now);
                    if let (Outcome::Placed { archived, .. }, Some(_)) = (&mut outcome, item.replaces) {
                        *archived = Some(archive.into());
                    }
                    finished.push(Finished { path: item.path, outcome });
                }
                Err(DiskError::NotFound) if !item.retried => again.push(Ready { retried: true, ..item }),
                Err(error) => {
                    self.keep_temps(self.intents_key(id), [item.temp]);
                    self.fail(item.path, Trouble::Disk(error), now);
                }
            }
        }
        // Nothing is marked present before the directories are flushed.
        let Some(group) = self.groups.get_mut(&id) else { return Vec::new() };
        group.finished.extend(finished);
        if again.is_empty() {
            group.waiting = group.waiting.saturating_sub(1);
            if group.waiting == 0 {
                self.flush(Job::GroupSync(id), out);
            }
        }
        again
    }
}

fn install_op(root: RootId, part: &[Ready], archive: &str) -> DiskOp {
    let items = part
        .iter()
        .map(|item| Install {
            temp: item.temp,
            path: item.path.clone(),
            replaces: item.replaces,
            archive: Some(archive.into()),
        })
        .collect();
    DiskOp::Install { root, items }
}
