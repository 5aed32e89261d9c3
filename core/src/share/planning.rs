//! Decides the operations of a batch: joins what came from peers, looks at pending paths, and takes over what disk
//! work and the survey found. Pure over a [`Txn`]; every decision may be made again after a miss.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::club::identity::PeerKeys;
use crate::club::level::Level;
use crate::engine::command::Existing;
use crate::files::conflict::{self, HiddenFate};
use crate::files::path::RelPath;
use crate::files::plan::{self, Policy, Step, Target, View};
use crate::files::row::{Base, PathRow};
use crate::ids::{ConnId, PeerId, RootId, Sha256, Uuid};
use crate::index::author::{self, Author, Unmade, WallCheck, latest_stored};
use crate::index::check::check_limits;
use crate::index::clock::Clock;
use crate::index::codec::PeerTable;
use crate::index::knowledge::Resume;
use crate::index::merge;
use crate::index::record::{Change, EntryContent, Record};
use crate::io::store::{Space, Write};
use crate::share::archived::{LateWrites, Taken};
use crate::share::finish::{self, Outcome};
use crate::share::kept::kept_for;
use crate::share::link::PeerLink;
use crate::share::made::Made;
use crate::share::pipeline::{Effects, Op};
use crate::share::progress::Progress;
use crate::share::resolve::Thrown;
use crate::share::restored::Restored;
use crate::share::survey::Survey;
use crate::share::task::Task;
use crate::share::txn::{Miss, Txn, is_pathless};
use crate::share::waits::Awaiting;
use crate::share::work::Work;
use crate::time::WallTime;

/// All that a decision may look at and change.
pub struct Judge<'a> {
    /// The share's number.
    pub root: RootId,
    /// Our identity.
    pub keys: &'a Arc<PeerKeys>,
    /// The level held here.
    pub level: Option<Level>,
    /// What becomes of contents without base.
    pub existing: Existing,
    /// Disk work under way.
    pub work: &'a Work,
    /// What is being looked at.
    pub survey: &'a Survey,
    /// Whose changes are waited for.
    pub awaiting: Awaiting<'a>,
    /// Open links.
    pub links: &'a BTreeMap<ConnId, PeerLink>,
    /// Installs that were under way when the last run ended.
    pub intents: &'a BTreeMap<RelPath, Option<Arc<Record>>>,
    /// Files that were taken out of the archive and have no record yet.
    pub taken: &'a BTreeMap<RelPath, Taken>,
    /// Files that a user had brought back from the archive and that were not looked at yet.
    pub restored: &'a Restored,
    /// What was kept in a conflict, and thrown away before it was in its place.
    pub thrown: &'a Thrown,
    /// Which records this peer's newest revisions were made for.
    pub made: &'a Made,
    /// What was moved to the archive a moment ago.
    pub late: &'a LateWrites,
    /// What says the time, and whether it is believed.
    pub clock: WallCheck<'a>,
    /// The view of the store.
    pub txn: &'a mut Txn,
    /// What the commit will store.
    pub progress: &'a mut Progress,
    /// What happens after it.
    pub effects: &'a mut Effects,
    /// The peers' numbers.
    pub peers: &'a PeerTable,
    /// Names that peers gave themselves.
    pub names: &'a BTreeMap<PeerId, String>,
    /// First half of the uuids of new records.
    pub uuid_prefix: [u8; 8],
}

/// Notes what an operation will surely need, so that its first decision finds it.
pub fn prefetch(txn: &mut Txn, op: &Op) {
    match op {
        Op::Remote { record, .. } => {
            let _ = txn.record(record.uuid);
            if let Some(path) = RelPath::from_key(&record.key) {
                let _ = txn.row(&path);
            }
        }
        Op::Knowledge { .. } | Op::CaughtUp | Op::Asked { .. } | Op::LookedThrough { .. } => {}
        Op::Resolve { path, .. } => drop(txn.row(path)),
        Op::Local(items, _) => items.iter().for_each(|item| drop(txn.row(&item.path))),
        Op::Finish { items, .. } => {
            for item in items {
                let _ = txn.row(&item.path);
                if let Outcome::Placed { version, .. } | Outcome::Recovered { version } = &item.outcome {
                    let _ = txn.record(version.uuid);
                }
            }
        }
        Op::Plan(paths) | Op::Weigh(paths) => paths.iter().for_each(|path| drop(txn.row(path))),
        Op::Reclaim { uuids, .. } => uuids.iter().for_each(|uuid| drop(txn.record(*uuid))),
    }
}

/// Everything that is known of one path.
pub(super) struct Scene {
    pub(super) row: PathRow,
    pub(super) live: Vec<Arc<Record>>,
    pub(super) base: Option<Arc<Record>>,
    pub(super) base_now: Option<Arc<Record>>,
    pub(super) dead: Vec<Arc<Record>>,
    pub(super) implied_dir: bool,
}

impl Scene {
    /// The live record that the path shows.
    fn shown(&self) -> Option<Arc<Record>> {
        let live: Vec<&Record> = self.live.iter().map(AsRef::as_ref).collect();
        let shown = conflict::shown(&live, self.implied_dir)?;
        self.live.iter().find(|record| record.uuid == shown.uuid).cloned()
    }

    pub(super) fn dead_refs(&self) -> Vec<&Record> {
        self.dead.iter().map(AsRef::as_ref).collect()
    }

    pub(super) fn view<'a>(
        &'a self,
        path: &'a RelPath,
        dead: &'a [&'a Record],
        target: Target,
        conflict_made: bool,
        policy: Policy,
    ) -> View<'a> {
        let live: Vec<&'a Record> = self.live.iter().map(AsRef::as_ref).collect();
        View {
            path,
            row: &self.row,
            shown: conflict::shown(&live, self.implied_dir),
            implied_dir: self.implied_dir,
            base: self.base.as_deref(),
            base_now: self.base_now.as_deref(),
            target,
            dead,
            conflict_made,
            policy,
        }
    }
}

impl Judge<'_> {
    /// Decides one operation. All of it is gone through even after a miss, so that one load brings all that is needed.
    pub fn op(&mut self, op: &Op) -> Result<(), Miss> {
        match op {
            Op::Remote { conn, record, at } => {
                if let Some(at) = at {
                    self.effects.resume.insert(*conn, *at);
                }
                self.effects.done_from.push(*conn);
                self.remote(*conn, record)
            }
            Op::Asked { conn, since, resume } => {
                self.asked(*conn, since, *resume);
                Ok(())
            }
            Op::Knowledge { conn, knowledge, current } => {
                self.effects.done_from.push(*conn);
                self.knowledge(*conn, knowledge, *current);
                Ok(())
            }
            Op::CaughtUp => {
                self.progress.caught_up = true;
                Ok(())
            }
            Op::Local(items, since) => self.local(items, *since),
            Op::Resolve { path, keep } => self.resolve(path, *keep),
            Op::Finish { items, intents } => {
                self.drop_intents(intents);
                all(items, |item| finish::apply(self.txn, item, self.effects))
            }
            Op::Plan(paths) => all(paths, |path| self.look(path)),
            Op::Weigh(paths) => all(paths, |path| self.weigh(path)),
            Op::Reclaim { old, uuids, next } => self.reclaim(*old, uuids, *next),
            Op::LookedThrough { intents } => {
                self.progress.looked_through = true;
                self.progress.tail_lost = false;
                for path in self.restored.of_last_run().filter(|path| !self.survey.is_unseen(path)) {
                    self.txn.put_extra(self.restored.forgotten(path));
                }
                self.drop_intents(intents);
                Ok(())
            }
        }
    }

    fn drop_intents(&mut self, keys: &[Vec<u8>]) {
        for key in keys {
            self.txn.put_extra(Write::Delete { space: Space::Intent, key: key.clone() });
        }
    }

    /// Who authors changes here, and with what time.
    pub(super) fn author(&self) -> Author {
        Author { peer: self.keys.id(), rev: self.progress.revision, wall: self.wall() }
    }

    /// The time that changes take now (protocol §7, Time).
    pub(super) fn wall(&self) -> WallTime {
        WallCheck { latest: self.progress.latest, ..self.clock }.wall()
    }

    /// Stores a version of a record.
    pub(super) fn put(&mut self, record: impl Into<Arc<Record>>) -> Result<(), Miss> {
        let record = record.into();
        self.progress.latest = latest_stored(self.progress.latest, &record);
        self.txn.put_record(record)
    }

    /// Stores a version that was authored here.
    pub(super) fn put_authored(&mut self, author: &Author, record: Record) -> Result<(), Miss> {
        self.put(record)?;
        self.progress.revision = author.rev;
        self.progress.knowledge.set(author.peer, author.rev);
        Ok(())
    }

    /// Says why a change was not made, unless there was none.
    pub(super) fn unmade(&mut self, path: &RelPath, why: Unmade) {
        match why {
            Unmade::Same => {}
            // The identity is about to be replaced; the path is looked at again under the new one.
            Unmade::Contradicted => self.effects.identity_lost = true,
            Unmade::NoRevision | Unmade::NoTime => {
                self.effects.notices.push(format!("{}: no more changes can be numbered.", path.as_str()));
            }
            Unmade::Refused(why) => {
                self.effects.notices.push(format!("{}: cannot be recorded: {why}.", path.as_str()));
            }
        }
    }

    fn is_writer(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| link.writer)
    }

    /// Whether our own identity made a change to this record that this store does not know (protocol §7, case c). Of
    /// what was written up to this run's beginning the store lacks nothing. And a record that is not known here may be
    /// a conflict file: whoever sees the conflict makes it, with the clock of the content that lost.
    fn is_lost(&self, stored: Option<&Record>, record: &Record) -> bool {
        let own = |record: &Record| record.clock.get(self.keys.id());
        let known = stored.map_or_else(|| self.progress.confirmed(), own);
        own(record) > known.max(self.progress.run.revision)
            || self.made.contradicts(self.keys.id(), record)
            || stored.map_or_else(|| self.is_missing(record), |stored| self.is_doubled(stored, record))
    }

    /// Whether this very peer made or changed a record in this run that this store does not have: no record is ever
    /// forgotten. The value of a conflict file says nothing: it is the loser's, whoever makes the record.
    fn is_missing(&self, record: &Record) -> bool {
        let is_own =
            |change: &Change| change.peer == self.keys.id() && change.rev > self.progress.run.revision;
        is_own(&record.key_change) || record.conflict_source().is_none() && is_own(&record.value_change)
    }

    /// Whether one change of our own identity was made at two times, so that it is two.
    fn is_doubled(&self, stored: &Record, record: &Record) -> bool {
        let parts = |record: &Record| [record.key_change, record.value_change, record.meta_change];
        let pairs = parts(stored).into_iter().zip(parts(record));
        let same = |a: &Change, b: &Change| (a.peer, a.rev) == (self.keys.id(), b.rev) && a.peer == b.peer;
        pairs.into_iter().any(|(a, b)| same(&a, &b) && a.time != b.time)
    }

    fn remote(&mut self, conn: ConnId, record: &Arc<Record>) -> Result<(), Miss> {
        let stored = self.txn.record(record.uuid)?;
        if self.is_writer(conn) && self.is_lost(stored.as_deref(), record) {
            self.effects.identity_lost = true;
            return Ok(());
        }
        if !self.peers.admits(record) {
            self.effects.misbehaved.push((conn, "a record names more peers than a share can have"));
            return Ok(());
        }
        if is_pathless(record) && !record.deleted() {
            let (count, _) = self.effects.pathless.entry(conn).or_insert_with(|| (0, record.key.clone()));
            *count += 1;
        }
        let Some(stored) = stored else {
            let marked = self.put_back(None, record.clone())?;
            if !marked {
                self.effects.from_link.push((conn, self.txn.arrival));
            }
            return self.delete_again(record);
        };
        let merged = merge::merge(&stored, record);
        if let Some(fault) = merged.fault {
            let who = self.links.get(&conn).map_or_else(|| conn.0.to_string(), |link| self.who(link.peer));
            log::warn!(
                "{who}: record {} contradicts what is known of the same change: {fault:?}",
                record.uuid
            );
            self.effects.faults.push(conn);
        }
        if merged.changed && check_limits(&merged.record).is_err() {
            // Two legal versions whose join is none: the stored one stays, and the peer keeps its own.
            self.effects.faults.push(conn);
            return Ok(());
        }
        if merged.changed {
            let source = merge::forgotten_source(&stored, record, &merged.record);
            self.left_before(&stored, &merged.record)?;
            let mut marked = self.put_back(Some(&stored), merged.record.into())?;
            marked |= self.name_source(record.uuid, source)?;
            if !merged.answers && !marked {
                self.effects.from_link.push((conn, self.txn.arrival));
            }
        }
        self.delete_again(record)
    }

    /// Somebody put to a path what lay there by its row, and may not lie there any more: a look, or sync that was to
    /// take it away, missed it before this was heard of; or it was to go for another version, and perhaps went, when
    /// the program was killed. Whoever took it away, a user or sync, has not seen this, and it is no delete of it.
    fn left_before(&mut self, stored: &Record, version: &Record) -> Result<(), Miss> {
        let is_file = !matches!(version.content(), None | Some(EntryContent::Dir));
        if version.value_change == stored.value_change || version.deleted() || !is_file {
            return Ok(());
        }
        let Some(path) = RelPath::from_key(&version.key) else { return Ok(()) };
        let mut row = self.txn.row(&path)?;
        let may_be_gone = self.survey.is_missing(&path)
            || self.work.missed(&path)
            || !self.survey.looked && matches!(row.base, Base::Older(_));
        let base_lives = row.resolve_base(Some(stored)).is_some_and(|base| !base.deleted());
        if may_be_gone
            && base_lives
            && row.base_uuid() == Some(version.uuid)
            && row.content() == version.content()
        {
            row.disk = None;
            row.base = Base::None;
            self.txn.put_row(&path, row);
        }
        Ok(())
    }

    /// A conflict file that was edited by somebody who had not seen it give way stays one. Returns whether that was to
    /// be said.
    pub(super) fn name_source(&mut self, uuid: Uuid, source: Option<Uuid>) -> Result<bool, Miss> {
        let Some(source) = source.filter(|_| self.may_author()) else { return Ok(false) };
        let Some(stored) = self.txn.record(uuid)? else { return Ok(false) };
        let mut author = self.author();
        match author::name_source(&mut author, &stored, source) {
            Ok(named) => self.put_authored(&author, named).map(|()| true),
            Err(Unmade::Contradicted) => {
                self.effects.identity_lost = true;
                Ok(false)
            }
            // It is no less worth where that cannot be said.
            Err(why) => {
                log::error!("record {uuid}: cannot be listed as a conflict: {why:?}");
                Ok(false)
            }
        }
    }

    /// A peer says what it has, before it is sent anything. If it is a writer, it knows no change of ours but those of
    /// earlier runs: so ours are safe to tell from now on, to others as well.
    fn asked(&mut self, conn: ConnId, since: &Clock, resume: Option<Resume>) {
        if self.is_writer(conn) {
            if since.get(self.keys.id()) > self.progress.confirmed() {
                self.effects.identity_lost = true;
                return;
            }
            self.progress.met = true;
        }
        self.effects.asked.push((conn, since.clone(), resume));
    }

    fn knowledge(&mut self, conn: ConnId, knowledge: &Clock, current: bool) {
        if self.is_writer(conn) {
            if knowledge.get(self.keys.id()) > self.progress.confirmed() {
                self.effects.identity_lost = true;
                return;
            }
            self.progress.knowledge.join(knowledge);
            if current {
                self.progress.caught_up |=
                    self.links.get(&conn).is_some_and(|link| link.may_judge(knowledge));
                self.progress.heard = true;
                self.effects.caught_up.push(conn);
            }
        }
        self.effects.peer_knowledge.push((conn, knowledge.clone()));
    }

    /// Notes which of the contents that a pending path wants are here in part.
    fn weigh(&mut self, path: &RelPath) -> Result<(), Miss> {
        if !self.work.weighs() {
            return Ok(());
        }
        let row = self.txn.row(path)?;
        for record in self.txn.live_records(&row)? {
            if let Some(EntryContent::File { sha256, .. }) = record.content()
                && self.work.is_unclaimed(sha256)
            {
                self.effects.claimed.push(*sha256);
            }
        }
        Ok(())
    }

    /// Looks at one pending path.
    fn look(&mut self, path: &RelPath) -> Result<(), Miss> {
        self.weigh(path)?;
        if self.work.is_busy(path) {
            return Ok(());
        }
        let scene = self.scene(path)?;
        let live_refs: Vec<&Record> = scene.live.iter().map(AsRef::as_ref).collect();
        let known = self.knows(live_refs.iter().copied().chain(scene.base_now.as_deref()));
        // A file is hidden as well where live records lie beneath its key: then its path is a directory.
        let hides = scene.live.len() > 1 || scene.implied_dir && !scene.live.is_empty();
        if hides && self.may_author() && known && self.resolve_hidden(path, &live_refs, scene.implied_dir)? {
            return Ok(());
        }
        let conflict_made = match &scene.base {
            Some(base) if scene.base_now.as_deref().is_some_and(|now| merge::conflicts(now, base)) => {
                let (_, uuid) = conflict::conflict_id(base.uuid, &base.value_change);
                self.txn.record(uuid)?.is_some()
            }
            _ => false,
        };
        let target = self.target(path, scene.row.content(), scene.base_now.as_deref())?;
        let policy =
            Policy { author: self.may_author(), caught_up: self.progress.caught_up, known, ..Policy::FULL };
        let dead = scene.dead_refs();
        let view = scene.view(path, &dead, target, conflict_made, policy);
        // Contents that were there before attaching, and the user wants the club's instead; or a peer that may not
        // author.
        let replaced = self.existing == Existing::Replace && scene.row.base == Base::None;
        let step = match plan::plan(&view) {
            Step::LocalChange if replaced || !self.may_author() => plan::put_back(&view),
            step => step,
        };
        let shown = scene.shown();
        self.carry_out(path, scene.row, step, shown, scene.base, scene.base_now)
    }

    /// Loads everything that is known of a path.
    pub(super) fn scene(&mut self, path: &RelPath) -> Result<Scene, Miss> {
        let row = self.txn.row(path)?;
        let live = self.txn.live_records(&row);
        let base = self.txn.base_of(&row);
        let base_now = row.base_uuid().map(|uuid| self.txn.record(uuid)).transpose();
        let dead = if row.live.is_empty() { self.txn.dead_records(&row) } else { Ok(Vec::new()) };
        let (live, base, base_now, dead) = (live?, base?, base_now?.flatten(), dead?);
        // Where a directory is shown anyway, it does not matter what lies beneath.
        let implied_dir = !live.iter().any(|record| record.is_dir()) && self.txn.live_beneath(path)?;
        Ok(Scene { row, live, base, base_now, dead, implied_dir })
    }

    pub(super) fn may_author(&self) -> bool {
        self.level == Some(Level::ReadWrite)
    }

    /// Whether K covers everything that these versions have seen, or their authors were waited for long enough.
    fn knows<'r>(&mut self, records: impl Iterator<Item = &'r Record>) -> bool {
        let mut known = true;
        for record in records {
            for (peer, rev) in self.awaiting.missing(&self.progress.knowledge, record) {
                known = false;
                if !self.effects.awaited.covers_dot(peer, rev) {
                    self.effects.awaited.set(peer, rev);
                }
            }
        }
        known
    }

    /// What stands where the base's record moved to; `here` is what is on disk at `path`.
    fn target(
        &mut self,
        path: &RelPath,
        here: Option<&EntryContent>,
        base_now: Option<&Record>,
    ) -> Result<Target, Miss> {
        let target = plan::target(path, here, base_now, self.txn)?;
        let to = base_now.filter(|now| !now.deleted() && !path.is_key(&now.key));
        let to = to.and_then(|now| RelPath::from_key(&now.key));
        // Being brought there already: then it need not be moved.
        let busy = target == Target::Free && to.is_some_and(|to| self.work.is_busy(&to));
        Ok(if busy { Target::Taken } else { target })
    }

    /// Gives hidden records another key, or deletes what is the same as the shown one. False if there are none but such
    /// as can be no file, and stay.
    fn resolve_hidden(&mut self, path: &RelPath, live: &[&Record], implied_dir: bool) -> Result<bool, Miss> {
        let fates = conflict::resolve(live, implied_dir, path);
        let any = !fates.is_empty();
        for (uuid, fate) in fates {
            let Some(record) = live.iter().find(|record| record.uuid == uuid) else { continue };
            let mut author = self.author();
            let made = match fate {
                HiddenFate::Rename { to, lost_to } => {
                    let made = author::give_way(&mut author, record, to.to_key(), lost_to);
                    if made.is_ok() {
                        let who = self.who(record.value_change.peer);
                        self.effects.notices.push(format!(
                            "{}: made here and elsewhere at once; the one of {who} is kept as {}.",
                            path.as_str(),
                            to.name()
                        ));
                    }
                    made
                }
                HiddenFate::Delete => author::delete(&mut author, record),
            };
            match made {
                Ok(record) => self.put_authored(&author, record)?,
                Err(why) => self.unmade(path, why),
            }
        }
        Ok(any)
    }

    fn carry_out(
        &mut self,
        path: &RelPath,
        mut row: PathRow,
        step: Step,
        shown: Option<Arc<Record>>,
        base: Option<Arc<Record>>,
        base_now: Option<Arc<Record>>,
    ) -> Result<(), Miss> {
        match step {
            Step::Nothing => {}
            Step::Adopt { uuid } => {
                row.base = Base::Index(uuid);
                row.implied = false;
                self.txn.put_row(path, row);
            }
            Step::Forget => {
                row.base = Base::None;
                self.txn.put_row(path, row);
            }
            Step::KeepImplied => {
                row.base = Base::None;
                row.implied = true;
                self.txn.put_row(path, row);
            }
            Step::SetMeta { stamp, mode, mtime_ns, .. } => {
                if let Some(version) = shown {
                    let path = path.clone();
                    self.effects.tasks.push(Task::SetMeta { path, stamp, version, mode, mtime_ns });
                }
            }
            Step::MakeDir { .. } => {
                self.effects.tasks.push(Task::MakeDir { path: path.clone(), version: shown });
            }
            Step::PutLink { replaces, .. } | Step::BringFile { replaces, .. } => {
                if let Some(version) = shown {
                    if self.fall_back(path, &row, &version, base.as_deref())? {
                        return Ok(());
                    }
                    let old = row.disk.as_ref().and_then(|disk| match disk.content {
                        EntryContent::File { sha256, .. } => Some(sha256),
                        _ => None,
                    });
                    return self.bring(path, version, replaces, old, base, base_now);
                }
            }
            Step::MoveTo { to, stamp } => {
                if let (Some(version), false) = (base, self.work.is_busy(&to)) {
                    let from = path.clone();
                    self.effects.tasks.push(Task::Rename { from, to, stamp, version });
                }
            }
            Step::Remove { stamp } | Step::RemoveDir { stamp } => {
                if base.is_some() && !self.may_go(path, &base, &base_now)? {
                    return Ok(());
                }
                self.effects.tasks.push(Task::Remove { path: path.clone(), stamp });
            }
            Step::LocalChange => {
                // The row may hold it already, found while a record wanted just this here: it is read once more, or
                // the survey would find it unchanged.
                if row.disk.as_mut().is_some_and(|disk| core::mem::take(&mut disk.settled)) {
                    self.txn.put_row(path, row);
                }
                self.effects.again.push(path.clone());
            }
            Step::Conflict => {
                if let Some(loser) = base {
                    // Beside the winner, wherever that moved to meanwhile.
                    let place = base_now.and_then(|now| RelPath::from_key(&now.key));
                    return self.make_conflict(place.as_ref().unwrap_or(path), &loser);
                }
            }
            Step::Rewrite => {
                if let (Some(loser), Some(stored)) = (base, base_now) {
                    let mut author = self.author();
                    match author::take_place(&mut author, &stored, &loser) {
                        Ok(record) => self.put_authored(&author, record)?,
                        Err(why) => self.unmade(path, why),
                    }
                }
            }
            Step::Wait(_) => {}
        }
        Ok(())
    }

    /// Has content brought to a path: from this disk where it is at hand.
    fn bring(
        &mut self,
        path: &RelPath,
        version: Arc<Record>,
        replaces: Option<crate::io::disk::Stamp>,
        old: Option<Sha256>,
        base: Option<Arc<Record>>,
        base_now: Option<Arc<Record>>,
    ) -> Result<(), Miss> {
        if replaces.is_some() && !self.may_go(path, &base, &base_now)? {
            return Ok(());
        }
        let mut local = None;
        if let Some(EntryContent::File { size, sha256 }) = version.content()
            && *size > 0
        {
            let content = EntryContent::File { size: *size, sha256: *sha256 };
            let paths = self.txn.paths_with(sha256)?;
            let rows = all_of(&paths, |from| self.txn.row(from))?;
            // The file that this record was, under another name: it is renamed when its own turn comes, which is
            // in the same sweep.
            for (from, row) in paths.iter().zip(rows) {
                let Some(disk) = row.disk.as_ref().filter(|disk| disk.content == content) else { continue };
                if row.base_uuid() == Some(version.uuid)
                    && replaces.is_none()
                    && !row.live.contains(&version.uuid)
                    && !path.is_beneath(from)
                {
                    if self.work.is_busy(from) {
                        return Ok(());
                    }
                    let Some(was) = self.txn.base_of(&row)? else { continue };
                    let (from, to, stamp) = (from.clone(), path.clone(), disk.stamp);
                    self.effects.tasks.push(Task::Rename { from, to, stamp, version: was });
                    return Ok(());
                }
                local.get_or_insert((from.clone(), disk.stamp));
            }
            local = local.or_else(|| self.late.with_content(sha256));
        }
        self.effects.tasks.push(Task::Bring { path: path.clone(), version, replaces, local, old });
        Ok(())
    }

    /// Whether the content of a base may go from a path.
    fn may_go(
        &mut self,
        path: &RelPath,
        base: &Option<Arc<Record>>,
        base_now: &Option<Arc<Record>>,
    ) -> Result<bool, Miss> {
        let (Some(base), Some(now)) = (base, base_now) else { return Ok(true) };
        let author = self.may_author();
        Ok(kept_for(self.txn, path, base, now, author)?.is_none())
    }

    /// Makes the record of a conflict file; its content is brought from the loser's own path.
    fn make_conflict(&mut self, path: &RelPath, loser: &Record) -> Result<(), Miss> {
        let Some(file) = conflict::conflict_file(loser, path) else { return Ok(()) };
        let existing = self.txn.record(file.uuid)?;
        let mut author = self.author();
        let winner = file.value.conflict_source.unwrap_or(loser.uuid);
        match author::conflict_copy(&mut author, loser, winner, file.path.to_key(), file.uuid) {
            Ok(record) => {
                let record = match existing {
                    Some(stored) => merge::join(&stored, &record),
                    None => record,
                };
                let who = self.who(loser.value_change.peer);
                self.effects.notices.push(format!(
                    "{}: changed here and elsewhere at once; the version of {who} is kept as {}.",
                    path.as_str(),
                    file.path.name()
                ));
                self.put_authored(&author, record)
            }
            Err(why) => {
                self.unmade(path, why);
                Ok(())
            }
        }
    }

    fn who(&self, peer: PeerId) -> String {
        if peer == self.keys.id() {
            return "this computer".to_string();
        }
        super::shown_name(self.names, peer)
    }

    /// A new record's name.
    pub(super) fn new_uuid(&mut self) -> Uuid {
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&self.uuid_prefix);
        uuid[8..].copy_from_slice(&(self.progress.revision + 1).to_be_bytes());
        let uuid = Uuid(uuid);
        // No other run drew this prefix and no other change has this revision, so there is nothing to load.
        self.txn.note_new(uuid);
        uuid
    }
}

/// Goes through all items even after a miss.
pub(super) fn all<T>(items: &[T], mut each: impl FnMut(&T) -> Result<(), Miss>) -> Result<(), Miss> {
    let mut done = Ok(());
    for item in items {
        done = each(item).and(done);
    }
    done
}

/// Gathers one thing per item, going through all items even after a miss.
fn all_of<T, R>(items: &[T], mut each: impl FnMut(&T) -> Result<R, Miss>) -> Result<Vec<R>, Miss> {
    let found: Vec<R> = items.iter().map_while(|item| each(item).ok()).collect();
    if found.len() == items.len() {
        return Ok(found);
    }
    items[found.len()..].iter().for_each(|item| drop(each(item)));
    Err(Miss)
}
