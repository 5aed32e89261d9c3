//! Contents that a file of the share already has: copied on the disk instead of fetched. Never asks a peer.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::engine::outbox::Outbox;
use crate::files::fetch::{Common, FetchError};
use crate::ids::{TempId, Token};
use crate::io::disk::{Stage, StageContent};
use crate::io::{DiskDone, DiskError, DiskOp};

/// At most this many copies in one operation.
pub const COPY_FILES_MAX: usize = 64;
/// A batch of copies ends after this many bytes: where the file system cannot share blocks, they are written.
pub const COPY_BYTES_MAX: u64 = 64 << 20;
/// At most this many batches of copies at once, so that the disk pool is free for other work in between.
pub const COPY_BATCHES_MAX: usize = 2;

/// Wants that are copied.
#[derive(Debug, Default)]
pub(super) struct Copies {
    queue: VecDeque<u64>,
    batches: BTreeMap<Token, Vec<(u64, TempId)>>,
}

impl Copies {
    pub(super) fn add(&mut self, id: u64) {
        self.queue.push_back(id);
    }

    pub(super) fn cancel(&mut self, id: u64) {
        self.queue.retain(|&queued| queued != id);
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        self.batches.contains_key(&token)
    }

    pub(super) fn temps(&self) -> impl Iterator<Item = TempId> {
        self.batches.values().flatten().map(|(_, temp)| *temp)
    }

    pub(super) fn drive(&mut self, common: &mut Common, out: &mut Outbox) {
        while self.batches.len() < COPY_BATCHES_MAX && !self.queue.is_empty() {
            let (mut batch, mut files, mut bytes) = (Vec::new(), Vec::new(), 0u64);
            while files.len() < COPY_FILES_MAX && bytes < COPY_BYTES_MAX {
                let Some(id) = self.queue.pop_front() else { break };
                let temp = common.temp();
                let Some(want) = common.wants.get(&id) else { continue };
                let Some((from, stamp)) = want.local.clone() else { continue };
                bytes = bytes.saturating_add(want.size);
                let content = StageContent::Copy { from, stamp };
                files.push(Stage { temp, content, mode: want.mode, mtime_ns: want.mtime_ns });
                batch.push((id, temp));
            }
            if !files.is_empty() {
                self.batches.insert(out.disk(DiskOp::Stage { root: common.root, files }), batch);
            }
        }
    }

    /// Returns the wants that have to be fetched after all.
    pub(super) fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        common: &mut Common,
        out: &mut Outbox,
    ) -> Vec<u64> {
        let (mut failed, mut useless) = (Vec::new(), Vec::new());
        let batch = self.batches.remove(&token).unwrap_or_default();
        let mut results = StagedResults::new(result);
        for (id, temp) in batch {
            let wanted = common.wants.get(&id).map(|want| (want.sha256, want.size));
            match results.next() {
                Ok(staged) if wanted.is_none_or(|wanted| wanted == (staged.sha256, staged.stamp.size)) => {
                    common.finish(id, Ok((temp, staged)), out);
                    continue;
                }
                Err(DiskError::NoSpace) => common.finish(id, Err(FetchError::NoSpace), out),
                // The file changed, is gone, or cannot be read: any other source will do.
                _ => failed.push(id),
            }
            useless.push(temp);
        }
        common.remove_temps(useless, out);
        failed
    }
}

/// The results of a `DiskOp::Stage`, item by item; whatever else the host may have answered is `Io`.
pub(super) struct StagedResults {
    items: alloc::vec::IntoIter<Result<crate::io::disk::Staged, DiskError>>,
    otherwise: DiskError,
}

impl StagedResults {
    pub(super) fn new(result: Result<DiskDone, DiskError>) -> StagedResults {
        let (items, otherwise) = match result {
            Ok(DiskDone::Staged(items)) => (items, DiskError::Io),
            Ok(_) => (Vec::new(), DiskError::Io),
            Err(error) => (Vec::new(), error),
        };
        StagedResults { items: items.into_iter(), otherwise }
    }

    pub(super) fn next(&mut self) -> Result<crate::io::disk::Staged, DiskError> {
        self.items.next().unwrap_or(Err(self.otherwise))
    }
}
