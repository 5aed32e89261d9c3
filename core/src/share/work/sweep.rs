//! The sweep over what is pending, page by page, as far as there is room. On the way it learns which begun downloads
//! nothing pending wants any more: their temps go when it has ended. Decides nothing about a path.

use alloc::vec::Vec;

use super::{Job, PAGE, PAGES_MAX, TASKS_MAX, Work};
use crate::engine::outbox::Outbox;
use crate::files::path::RelPath;
use crate::ids::Sha256;
use crate::index::record::{EntryContent, Record};
use crate::io::store::{Query, Space, StoreOp};
use crate::share::layout;

/// Where the sweep over pending paths is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Sweep {
    /// At its end; nothing was asked for since.
    #[default]
    Rest,
    /// To be started from the beginning.
    Due,
    /// At this key; `true` while a page is being loaded.
    At(Vec<u8>, bool),
}

impl Work {
    /// Something became pending.
    pub fn wake(&mut self) {
        match self.sweep {
            Sweep::Rest => self.sweep = Sweep::Due,
            Sweep::Due => {}
            Sweep::At(..) => self.again = true,
        }
    }

    /// Pending paths that are to be planned.
    pub fn take_page(&mut self) -> Option<Vec<RelPath>> {
        let page = self.pages.pop_front()?;
        self.planning += 1;
        Some(page)
    }

    /// Pending paths that are not planned now: only what they want is to be claimed.
    pub fn take_unplanned(&mut self) -> Option<Vec<RelPath>> {
        if self.unplanned.is_empty() {
            return None;
        }
        self.planning += 1;
        Some(core::mem::take(&mut self.unplanned))
    }

    /// A page was planned, or its contents claimed; its tasks were given before.
    pub fn planned(&mut self, out: &mut Outbox) {
        self.planning = self.planning.saturating_sub(1);
        self.forget_unclaimed(out);
    }

    /// Whether parts of downloads are kept that nothing goes on with.
    pub fn has_parked(&self) -> bool {
        self.fetcher.parked().next().is_some()
    }

    /// Whether it is to be learnt what pending paths want.
    pub fn weighs(&self) -> bool {
        !self.unclaimed.is_empty()
    }

    /// Whether nothing that wants this content is known yet, and a part of it is kept.
    pub fn is_unclaimed(&self, sha256: &Sha256) -> bool {
        self.unclaimed.contains(sha256)
    }

    /// Something pending wants this content.
    pub fn claim(&mut self, sha256: &Sha256) {
        self.unclaimed.remove(sha256);
    }

    /// A version was stored that may want its content.
    pub fn claim_for(&mut self, record: &Record) {
        if let Some(EntryContent::File { sha256, .. }) = record.content()
            && self.weighs()
            && !record.deleted()
        {
            self.claim(sha256);
        }
    }

    /// Goes on with the sweep while there is room.
    pub(super) fn sweep_on(&mut self, out: &mut Outbox) {
        loop {
            match &mut self.sweep {
                Sweep::Rest => return,
                // What the last one found out about downloads is made use of first.
                Sweep::Due if self.swept => return,
                Sweep::Due => {
                    let (start, _) = layout::club_range(self.root);
                    self.sweeps += 1;
                    self.sweep = Sweep::At(start, false);
                    self.unclaimed = self.fetcher.parked().copied().collect();
                }
                Sweep::At(_, true) => return,
                Sweep::At(start, loading) => {
                    let waiting = self.planning as usize + self.pages.len();
                    if waiting >= PAGES_MAX as usize
                        || self.busy.len() + (waiting + 1) * PAGE as usize > TASKS_MAX
                    {
                        return;
                    }
                    let (_, end) = layout::club_range(self.root);
                    let query =
                        Query::Range { space: Space::Pending, start: start.clone(), end, limit: PAGE };
                    *loading = true;
                    let token = out.store(StoreOp::Load { queries: [query].into() });
                    self.jobs.insert(token, Job::Page);
                    return;
                }
            }
        }
    }

    pub(super) fn page_loaded(&mut self, rows: Vec<(Vec<u8>, Vec<u8>)>, out: &mut Outbox) {
        let last = rows.last().map(|(key, _)| key.clone());
        let mut paths = Vec::new();
        for path in rows.iter().filter_map(|(key, _)| layout::path_of_key(key)) {
            let due = self.failures.met(&path, self.sweeps);
            if due && !self.busy.contains(&path) {
                paths.push(path);
            } else if self.weighs() {
                self.unplanned.push(path);
            }
        }
        if !paths.is_empty() {
            self.pages.push_back(paths);
        }
        match last {
            Some(mut key) if rows.len() == PAGE as usize => {
                key.push(0);
                self.sweep = Sweep::At(key, false);
            }
            _ => self.end_sweep(out),
        }
    }

    fn end_sweep(&mut self, out: &mut Outbox) {
        // What was not met in this sweep is not pending any more.
        let (busy, sweeps) = (&self.busy, self.sweeps);
        self.failures.retain(|path, failure| failure.sweep == sweeps || busy.contains(path));
        self.sweep = if core::mem::take(&mut self.again) { Sweep::Due } else { Sweep::Rest };
        self.swept = self.weighs();
        self.forget_unclaimed(out);
    }

    /// Takes away what the sweep has found nobody to want, once all that it met was gone through.
    fn forget_unclaimed(&mut self, out: &mut Outbox) {
        if !self.swept || self.planning > 0 || !self.pages.is_empty() || !self.unplanned.is_empty() {
            return;
        }
        self.swept = false;
        let mut unclaimed = core::mem::take(&mut self.unclaimed);
        for (_, version, _) in self.wants.values() {
            if let Some(EntryContent::File { sha256, .. }) = version.content() {
                unclaimed.remove(sha256);
            }
        }
        if !unclaimed.is_empty() {
            self.fetcher.retain_partials(|sha256| !unclaimed.contains(sha256), out);
        }
    }
}
