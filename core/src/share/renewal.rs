//! A peer's new identity (protocol §7, Revisions): when the old one may have named two changes alike, and what becomes
//! of the changes that it made.
//!
//! Where a peer knows changes of ours that this store does not, the store is an older one, and what this run wrote
//! took numbers that had been used. Those changes are made again under the new identity before anything else
//! happens in the share; what comes back of the old one is marked as new, so that it reaches everybody.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::club::identity::PeerKeys;
use crate::engine::event::Event;
use crate::files::path::RelPath;
use crate::ids::{ConnId, PeerId, RootId, Uuid};
use crate::index::author::{self, Unmade};
use crate::index::record::Record;
use crate::io::store::{Durability, Query, Row, Space, StoreOp, Write};
use crate::share::layout::{self, Fact};
use crate::share::pipeline::Op;
use crate::share::planning::{Judge, all};
use crate::share::progress::{Former, RunStart};
use crate::share::txn::Miss;
use crate::share::{Asked, Ctx, Share, encode_peers, put_fact};

/// Arrivals of one look-up.
const PAGE: u32 = 256;

/// Why a new identity is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The store was found to be another one before anything was done with it.
    StrangeStore,
    /// A peer knows changes of this identity that this store does not (case c).
    ChangesLost,
    /// Another node runs with a copy of this one's data.
    CopiedHome,
}

impl Renewal {
    fn why(self) -> &'static str {
        match self {
            Renewal::StrangeStore => "this node's database is not the one that it last wrote",
            Renewal::ChangesLost => "its database is older than what its peers know",
            Renewal::CopiedHome => "this node's data was copied to another one, which runs as well",
        }
    }

    /// Whether the old identity may have named two changes alike.
    fn is_contested(self) -> bool {
        self != Renewal::StrangeStore
    }
}

impl Share {
    /// A new identity is due. It is taken as soon as no batch is under way, and nothing is done before that.
    pub fn begin_renewal(&mut self, renewal: Renewal) {
        self.renewal.get_or_insert(renewal);
    }

    /// The store may lack what it held last: of what lies on the disk without a row only another member can say whether
    /// it was deleted meanwhile. Where no other was ever met, nobody can have.
    pub fn doubt_store(&mut self) {
        self.progress.tail_lost = true;
        let own = self.id();
        let others = self.progress.knowledge.iter().any(|(peer, _)| peer != own);
        self.progress.caught_up &= !(others || !self.names.is_empty() || !self.resumes.is_empty());
    }

    /// Takes the new identity that is due; true while it has to wait.
    pub(super) fn renew_if_due(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.renewal.is_none() || self.pipeline.is_busy() {
            return self.renewal.is_some();
        }
        if let Some(renewal) = self.renewal.take() {
            self.renew(ctx, renewal);
        }
        false
    }

    fn renew(&mut self, ctx: &mut Ctx<'_>, renewal: Renewal) {
        let old = self.id();
        let mut writes = Vec::new();
        if renewal.is_contested() || self.progress.is_unconfirmed() {
            self.progress.knowledge.set(old, 0);
            self.progress.give_up(old);
            // Where answers stand was judged by what the old identity seemed to have written.
            for peer in core::mem::take(&mut self.resumes).into_keys() {
                let key = layout::peer_fact_key(self.root, Fact::Resume, peer);
                writes.push(Write::Delete { space: Space::Meta, key });
            }
        }
        self.keys = Arc::new(PeerKeys::generate(ctx.rng));
        self.made.forget();
        // Revisions begin anew, and new records are named after them.
        self.uuid_prefix = ctx.rng.bytes();
        (self.progress.revision, self.progress.reclaimed, self.progress.told) = (0, 0, 0);
        self.progress.run = RunStart { revision: 0, arrival: self.progress.arrival };
        (self.progress.met, self.progress.heard) = (false, false);
        writes.push(put_fact(self.root, Fact::Identity, self.keys.seed().to_vec()));
        writes.push(Write::Delete { space: Space::Meta, key: layout::fact_key(self.root, Fact::Renewal) });
        let value = self.progress.encode(&mut self.peers);
        writes.push(put_fact(self.root, Fact::Progress, value));
        writes.push(put_fact(self.root, Fact::Peers, encode_peers(&self.peers)));
        self.unstored = Some(writes);
        self.stores_identity(ctx);
        // Also those that are still being opened: they may have begun under the old identity.
        let ours = |club: Option<RootId>| club.is_none_or(|club| club == self.root);
        let conns = ctx.links.all.iter().filter(|(_, link)| ours(link.club));
        for conn in conns.map(|(&conn, _)| conn).collect::<Vec<ConnId>>() {
            ctx.links.close(conn, "shutdown", "this peer takes a new identity");
            self.link_closed(ctx, conn);
        }
        let why = renewal.why();
        let message = format!("This node goes on under a new identity, because {why}.");
        ctx.out.event(Event::Notice { share: Some(self.folder.path.clone()), message });
    }

    /// Has a new identity stored; true until it is. Under one that a restart would not find nothing may be told.
    pub(super) fn stores_identity(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if let Some(writes) = self.unstored.take_if(|_| self.retry_store_at.is_none()) {
            let again = writes.clone();
            let token = ctx.out.store(StoreOp::Commit { writes, durability: Durability::Now });
            self.tokens.insert(token, Asked::Identity(again));
        }
        self.has_unkept_identity()
    }

    pub(super) fn has_unkept_identity(&self) -> bool {
        self.unstored.is_some() || self.tokens.values().any(|asked| matches!(asked, Asked::Identity(_)))
    }

    /// Whether changes of a former identity are still to be made again; then everything else waits.
    pub(super) fn is_reclaiming(&self) -> bool {
        self.progress.reclaims().is_some()
    }

    /// Asks for the next changes of a former identity; true while there are any.
    pub(super) fn pump_reclaim(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Some(former) = self.progress.reclaims() else { return false };
        if !self.tokens.values().any(|asked| matches!(asked, Asked::Reclaim(_))) {
            let start = layout::arrival_key(self.root, former.next);
            let end = layout::arrival_key(self.root, former.end.saturating_add(1));
            let query = Query::Range { space: Space::Arrival, start, end, limit: PAGE };
            let token = ctx.out.store(StoreOp::Load { queries: [query].into() });
            self.tokens.insert(token, Asked::Reclaim(*former));
        }
        true
    }

    /// The next changes of a former identity are known: they are made again.
    pub(super) fn reclaim_loaded(&mut self, ctx: &mut Ctx<'_>, former: Former, rows: Vec<Row>) {
        let full = rows.len() == PAGE as usize;
        let last = rows.last().and_then(|(key, _)| key.last_chunk::<8>()).map(|at| u64::from_be_bytes(*at));
        let next = last.filter(|_| full).unwrap_or(former.end).saturating_add(1);
        let uuids = rows.iter().filter_map(|(_, value)| Uuid::from_slice(value)).collect();
        let batch = self.new_batch([Op::Reclaim { old: former.id, uuids, next }].into());
        self.decide(ctx, batch);
    }
}

impl Judge<'_> {
    /// Makes changes of a former identity again.
    pub(super) fn reclaim(&mut self, old: PeerId, uuids: &[Uuid], next: u64) -> Result<(), Miss> {
        let Some(former) = self.progress.former.iter_mut().find(|former| former.id == old) else {
            return Ok(());
        };
        former.next = former.next.max(next);
        let above = former.above;
        if !self.may_author() {
            return Ok(());
        }
        all(uuids, |uuid| self.reclaim_one(old, above, *uuid))
    }

    fn reclaim_one(&mut self, old: PeerId, above: u64, uuid: Uuid) -> Result<(), Miss> {
        let Some(record) = self.txn.record(uuid)?.filter(|record| record.clock.get(old) > above) else {
            return Ok(());
        };
        let mut author = self.author();
        match author::reclaim(&mut author, &record, old, above) {
            Ok(version) => {
                self.progress.reclaimed = author.rev;
                self.put_authored(&author, version)
            }
            Err(why) => {
                log::error!("record {uuid}: cannot be made again: {why:?}");
                if let Some(path) = RelPath::from_key(&record.key) {
                    self.unmade(&path, why);
                }
                Ok(())
            }
        }
    }

    /// Stores a version that came from a peer, as it is or joined to the stored one. What comes back of a former
    /// identity is marked as new: somebody may have been told of other changes under its numbers, and would pass over
    /// it. Returns whether it was.
    pub(super) fn put_back(&mut self, stored: Option<&Record>, version: Arc<Record>) -> Result<bool, Miss> {
        let had = |id| stored.map_or(0, |stored| stored.clock.get(id));
        let news = |former: &Former| version.clock.get(former.id) > had(former.id);
        if !self.may_author() || !self.progress.former.iter().any(news) {
            return self.put(version).map(|()| false);
        }
        let mut author = self.author();
        match author::touch_empty(&mut author, &version) {
            Ok(marked) => self.put_authored(&author, marked).map(|()| true),
            Err(Unmade::Contradicted) => {
                self.effects.identity_lost = true;
                Ok(false)
            }
            // It cannot be marked, and is no less worth for that.
            Err(why) => {
                log::error!("record {}: cannot be marked as new: {why:?}", version.uuid);
                self.put(version).map(|()| false)
            }
        }
    }
}
