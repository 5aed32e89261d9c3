//! What the last run left: installs that may have come to pass without the database knowing it, begun downloads, and
//! temps that nobody needs. Decides nothing about a path.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::intents::{self, Coming, Intent};
use super::{Asked, Ctx, Share, layout};
use crate::files::path::RelPath;
use crate::files::plan::wanted_meta;
use crate::files::row::DiskState;
use crate::ids::TempId;
use crate::index::record::{EntryContent, Record};
use crate::io::disk::{DiskDone, DiskError, DiskOp, Kind, Stamp};
use crate::io::store::{Query, Space, StoreOp};
use crate::share::finish::{Finished, Outcome};
use crate::share::pipeline::Op;

/// Installs and downloads that the last run may have left; more than it ever had under way.
const LEFTOVERS_MAX: u32 = 10_000;

/// What the last run was about to put in place.
#[derive(Debug)]
pub(super) struct Leftover {
    path: RelPath,
    temp: TempId,
    version: Arc<Record>,
}

impl Share {
    /// Asks the store for what the last run left.
    pub(super) fn load_leftovers(&mut self, ctx: &mut Ctx<'_>) {
        let (start, end) = layout::club_range(self.root);
        let range =
            |space| Query::Range { space, start: start.clone(), end: end.clone(), limit: LEFTOVERS_MAX };
        if !core::mem::replace(&mut self.asked_intents, true) {
            let token = ctx.out.store(StoreOp::Load { queries: [range(Space::Intent)].into() });
            self.tokens.insert(token, Asked::Intents);
        }
        if !core::mem::replace(&mut self.asked_partials, true) {
            let token = ctx.out.store(StoreOp::Load { queries: [range(Space::Partial)].into() });
            self.tokens.insert(token, Asked::Partials);
        }
    }

    pub(super) fn waits_for_leftovers(&self) -> bool {
        let asked = self.asked_intents && self.asked_partials;
        !asked || self.tokens.values().any(|asked| matches!(asked, Asked::Intents | Asked::Partials))
    }

    pub(super) fn intents_loaded(&mut self, ctx: &mut Ctx<'_>, rows: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in rows {
            match intents::decode(&value, &self.peers) {
                Ok(items) => {
                    for Intent { path, coming } in items {
                        self.intents.insert(path.clone(), coming.version().cloned());
                        // Nothing tells of a directory whether it was made.
                        if let Coming::Temp(temp, version) = coming {
                            self.left.push((key.clone(), Leftover { path, temp, version }));
                        }
                    }
                }
                Err(_) => log::error!("{}: what was being installed cannot be read", self.folder.path),
            }
            self.intents_left.push(key);
        }
        if let Some(last) = self.intents_left.last() {
            self.work.count_intents_from(last);
        }
        self.unjudged = !self.intents.is_empty();
        self.sweep_temps(ctx);
    }

    /// Has all temps removed that nothing needs any more, once it is known what the last run left.
    pub(super) fn sweep_temps(&mut self, ctx: &mut Ctx<'_>) {
        if self.waits_for_leftovers() {
            return;
        }
        let mut keep = self.work.temps_in_use();
        keep.extend(self.left.iter().map(|(_, item)| item.temp));
        self.sweeping = Some(ctx.out.disk(DiskOp::SweepTemps { root: self.root, keep }));
    }

    /// What a killed run had put in place counts as placed, whatever its user did with it since: that change is of this
    /// version. After a power cut, with a store from elsewhere, or where somebody emptied the place for temps, one that
    /// is not there proves nothing.
    pub(super) fn temps_swept(&mut self, result: Result<DiskDone, DiskError>) {
        self.sweeping = None;
        let there: Option<BTreeSet<TempId>> = match result {
            Ok(DiskDone::Swept { there, emptied: false }) => Some(there.into_iter().collect()),
            _ => None,
        };
        let same_disk = self.progress.looked_through && !self.progress.tail_lost && self.renewal.is_none();
        let mut items = Vec::new();
        for (key, Leftover { path, temp, version }) in core::mem::take(&mut self.left) {
            if same_disk && there.as_ref().is_some_and(|there| !there.contains(&temp)) {
                items.push(Finished { path, outcome: Outcome::Recovered { version } });
            } else {
                self.work.keep_temps(key, [temp]);
            }
        }
        if !items.is_empty() {
            self.pipeline.push(Op::Finish { items, intents: Vec::new() });
        }
    }

    /// Intents went from the database.
    pub(super) fn intents_dropped(&mut self, ctx: &mut Ctx<'_>, ops: &[Op]) {
        for op in ops {
            if let Op::Finish { intents, .. } | Op::LookedThrough { intents } = op {
                self.work.forget_temps(intents, ctx.out);
            }
        }
    }
}

/// What the disk holds of a version that was put in place, and not looked at since: no stamp of a real file equals this
/// one. `None` of what is nothing that can be put anywhere.
pub(super) fn placed_unseen(version: &Record) -> Option<DiskState> {
    let content = version.content()?.clone();
    let kind = match content {
        EntryContent::Dir => Kind::Dir,
        EntryContent::Link(_) => Kind::Link,
        EntryContent::File { .. } => Kind::File,
    };
    let (mode, mtime) = wanted_meta(version);
    let (mtime_ns, mode) = (mtime.unwrap_or_default(), mode.unwrap_or(0o644));
    let stamp = Stamp { kind, size: version.size(), mtime_ns, ctime_ns: 0, inode: 0, mode };
    Some(DiskState { stamp, content, settled: false })
}
