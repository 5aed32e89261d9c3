//! Brings paths to their index version: sweeps over what is pending, carries the plan's tasks out on disk, and groups
//! installs so that durability costs little (sync.md, "Bringing a path to a version").
//!
//! Owns disk work under way and what failed; decides nothing about records.

mod call_off;
mod dirs;
mod flush;
mod install;
mod removals;
mod retry;
mod sweep;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::outbox::Outbox;
use crate::files::archive_name::archive_folder;
use crate::files::fetch::{FetchError, Fetcher, Old, Want};
use crate::files::path::RelPath;
use crate::files::plan::wanted_meta;
use crate::files::reconcile::GRAIN_DEFAULT;
use crate::ids::{RootId, Sha256, TempId, Token, Uuid};
use crate::index::codec::PeerTable;
use crate::index::record::{EntryContent, Record, Value};
use crate::io::disk::{self, DiskDone, DiskError, DiskOp, Kind, SetMeta, Stage, StageContent, Stamp};
use crate::io::store::{StoreDone, StoreError};
use crate::share::finish::{Finished, Outcome};
use crate::share::task::Task;
use crate::share::work::dirs::{DirGroup, MadeFor, Making};
use crate::share::work::retry::{FAILURES_MAX, Failures};
use crate::share::work::sweep::Sweep;
use crate::time::{Instant, Now, WallTime};

pub use retry::Failure;

/// A path, and the version that was put there; of a directory that was made for what lies beneath it there is none.
pub type Unsure = (RelPath, Option<Arc<Record>>);

/// Paths that may be in work at once.
const TASKS_MAX: usize = 6000;
/// Paths of one page of a sweep.
const PAGE: u32 = 500;
/// Pages that may wait to be planned: one is decided while the next is loaded.
const PAGES_MAX: u32 = 2;
/// Items of one install group.
const GROUP_ITEMS_MAX: usize = 512;
/// Groups that may be under way at once: one is flushed while the next is written.
const GROUPS_MAX: usize = 3;
/// How long a finished download waits for company while others are still under way.
const GROUP_WAIT: Duration = Duration::from_millis(20);
/// Items of one disk operation, so that more than one thread of the pool has work.
const PER_OP: usize = 64;

/// Why a path could not be brought to its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk said no.
    Disk(DiskError),
    /// No peer that is connected has the content.
    NotAvailable,
    /// What a peer sent was not what the record says.
    WrongContent,
    /// It would replace or delete something, and the archive is full with what is younger than a day.
    ArchiveFull,
    /// A directory above it, or what stands in the place of one, could not be looked at.
    Unseen,
}

#[derive(Clone, Debug)]
struct Ready {
    path: RelPath,
    version: Arc<Record>,
    temp: TempId,
    replaces: Option<Stamp>,
    /// Whether missing directories were made for it already.
    retried: bool,
}

#[derive(Debug)]
struct Group {
    items: Vec<Ready>,
    /// Operations of the present step that are not answered yet.
    waiting: usize,
    /// What the installs left, until the group's last flush.
    finished: Vec<Finished>,
}

/// What was changed on disk, and groups whose intents are not needed any more once that is durable.
#[derive(Debug, Default)]
struct Changes {
    items: Vec<Finished>,
    groups: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Renaming {
    from: RelPath,
    to: RelPath,
    stamp: Stamp,
    version: Arc<Record>,
    /// Whether missing directories were made for it already.
    retried: bool,
}

#[derive(Debug)]
enum Job {
    Page,
    MakeDirs(DirGroup),
    /// What is stored before directories are made.
    DirIntents(DirGroup),
    StageLinks(Vec<(TempId, RelPath, Arc<Record>, Option<Stamp>)>),
    Rename(Renaming),
    /// Paths, and the folder of the archive that they go to.
    Remove(Vec<RelPath>, String),
    SetMeta(Vec<(SetMeta, Arc<Record>)>),
    GroupFlush(u64),
    GroupIntents(u64),
    /// A group's part, and the folder of the archive that what it replaces goes to.
    GroupInstall(u64, Vec<Ready>, String),
    GroupSync(u64),
    Flush,
    Forget,
}

/// The work of one share.
#[derive(Debug)]
pub struct Work {
    root: RootId,
    /// Downloads.
    pub fetcher: Fetcher,
    sweep: Sweep,
    sweeps: u64,
    /// Whether a sweep is due again once the present one ended.
    again: bool,
    /// Parts of downloads that nothing goes on with, as the sweep began, and that no pending path is known to want.
    unclaimed: BTreeSet<Sha256>,
    /// Whether the sweep ended that goes through what wants them.
    swept: bool,
    /// Pending paths that are not planned now, but may want one of them.
    unplanned: Vec<RelPath>,
    busy: BTreeSet<RelPath>,
    /// Those of them that [`Work::hold`] holds.
    held: BTreeSet<RelPath>,
    /// How often a path ceased to be busy.
    freed: u64,
    wants: BTreeMap<u64, (RelPath, Arc<Record>, Option<Stamp>)>,
    /// The downloads by the record that they are for.
    wanted: BTreeMap<Uuid, u64>,
    /// What downloads copy from, by their numbers.
    sources: BTreeMap<u64, RelPath>,
    /// Paths whose content has just come for another path, by that one: planned once the database knows of it, so that
    /// they are copied and not fetched.
    followers: BTreeMap<RelPath, Vec<RelPath>>,
    /// Directories that were made for what lies beneath them where something else was in work, such as the end of a
    /// file: told when that has ended. With the intents that say so.
    made_beside: BTreeMap<RelPath, (Stamp, Option<u64>)>,
    next_id: u64,
    next_temp: u64,
    intents_base: u64,
    /// Temps that were not put in place, by the key of the intents that name them.
    left_over: BTreeMap<Vec<u8>, Vec<TempId>>,
    links: Vec<(Stage, RelPath, Arc<Record>, Option<Stamp>)>,
    renames: Vec<Renaming>,
    dirs: Vec<(RelPath, Option<Arc<Record>>)>,
    metas: Vec<(SetMeta, Arc<Record>)>,
    removals: Vec<(RelPath, Stamp)>,
    /// When the first of the removals was found.
    removals_since: Option<Instant>,
    waiting_wants: VecDeque<Want>,
    ready: Vec<Ready>,
    ready_since: Option<Instant>,
    groups: BTreeMap<u64, Group>,
    jobs: BTreeMap<Token, Job>,
    failures: Failures,
    finished: Vec<Finished>,
    /// What was changed on disk and no flush covers, and since when there is some.
    unflushed: Changes,
    unflushed_since: Option<Instant>,
    /// What each flush that is under way covers.
    covered: BTreeMap<Token, Changes>,
    pages: VecDeque<Vec<RelPath>>,
    /// Pages that were given out and are not planned yet.
    planning: u32,
    /// Groups whose intents are not needed any more.
    groups_ended: Vec<u64>,
    /// As [`Work::take_unsure`] gives it.
    unsure: (Vec<Unsure>, Vec<u64>),
    root_missing: bool,
    /// Whether the volume was found full since it was last asked.
    no_space: bool,
    /// Contents that nobody turned out to have, for whoever looks elsewhere.
    missing: Vec<(Sha256, u64)>,
    /// Whether what would go to the archive waits.
    archive_full: bool,
    /// While the wall clock is not believed: what counts as the time instead, and since when.
    clock: Option<(WallTime, Instant)>,
    /// Whether disk work may begin (not paused, folder in order).
    pub enabled: bool,
}

impl Work {
    /// Nothing to do yet.
    pub fn new(root: RootId, temp_base: u64) -> Work {
        Work {
            root,
            fetcher: Fetcher::new(root, temp_base),
            sweep: Sweep::Rest,
            sweeps: 0,
            again: false,
            unclaimed: BTreeSet::new(),
            swept: false,
            unplanned: Vec::new(),
            busy: BTreeSet::new(),
            held: BTreeSet::new(),
            freed: 0,
            wants: BTreeMap::new(),
            wanted: BTreeMap::new(),
            sources: BTreeMap::new(),
            followers: BTreeMap::new(),
            made_beside: BTreeMap::new(),
            next_id: 0,
            // The fetcher counts up from its own base; this half of the numbers is never reached by it.
            next_temp: temp_base ^ (1 << 63),
            intents_base: temp_base,
            left_over: BTreeMap::new(),
            links: Vec::new(),
            renames: Vec::new(),
            dirs: Vec::new(),
            metas: Vec::new(),
            removals: Vec::new(),
            removals_since: None,
            waiting_wants: VecDeque::new(),
            ready: Vec::new(),
            ready_since: None,
            groups: BTreeMap::new(),
            jobs: BTreeMap::new(),
            failures: Failures::default(),
            finished: Vec::new(),
            unflushed: Changes::default(),
            unflushed_since: None,
            covered: BTreeMap::new(),
            pages: VecDeque::new(),
            planning: 0,
            groups_ended: Vec::new(),
            unsure: (Vec::new(), Vec::new()),
            root_missing: false,
            no_space: false,
            missing: Vec::new(),
            archive_full: false,
            clock: None,
            enabled: false,
        }
    }

    /// Whether a path is in work, so that nothing else may touch it.
    pub fn is_busy(&self, path: &RelPath) -> bool {
        self.busy.contains(path)
    }

    /// All paths that are in work. What the database says of them may be out of date.
    pub fn busy(&self) -> &BTreeSet<RelPath> {
        &self.busy
    }

    /// Grows whenever a path has ceased to be in work.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Keeps everybody from a path that a user has something brought back to, unless it is in work by itself.
    pub fn hold(&mut self, path: RelPath) {
        if self.busy.insert(path.clone()) {
            self.held.insert(path);
        }
    }

    /// Ends [`Work::hold`].
    pub fn release(&mut self, path: &RelPath) {
        if self.held.remove(path) {
            self.free(path);
            self.wake();
        }
    }

    /// While the wall clock is not believed: the latest time that it may be, as far as anybody knows. The archive's
    /// folders are named by it and what passes meanwhile: by a time long past they would be pruned as soon as the clock
    /// is set right.
    pub fn set_archive_time(&mut self, latest: Option<WallTime>, now: Now) {
        let known = self.clock.is_some().then(|| self.archive_time(now));
        self.clock = latest.map(|latest| (known.map_or(latest, |known| latest.max(known)), now.mono));
    }

    fn archive_time(&self, now: Now) -> WallTime {
        self.clock.map_or(now.wall, |(time, since)| {
            let passed = i64::try_from(now.mono.since(since).as_nanos()).unwrap_or(i64::MAX);
            WallTime(time.0.saturating_add(passed))
        })
    }

    /// The archive's folder for what goes there now.
    fn archive_folder(&self, now: Now) -> String {
        archive_folder(self.archive_time(now))
    }

    fn free(&mut self, path: &RelPath) {
        if let Some((stamp, group)) = self.made_beside.remove(path) {
            // It stays in work until that is known: a look would take the directory for a user's.
            let outcome = Outcome::Implied { stamp, settled: true };
            self.unflushed_since = Some(Instant::default());
            self.unflushed.items.push(Finished { path: path.clone(), outcome });
            self.unflushed.groups.extend(group);
            return;
        }
        self.freed += u64::from(self.busy.remove(path));
        for path in self.followers.remove(path).unwrap_or_default() {
            self.finished.push(Finished { path, outcome: Outcome::Failed });
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.sweep == Sweep::Rest && self.busy.is_empty() && self.jobs.is_empty()
    }

    /// What was installed or made, but could not be flushed: until it is looked at again it is to be told from what a
    /// user did. With the groups whose intents say so until then.
    pub fn take_unsure(&mut self) -> (Vec<Unsure>, Vec<u64>) {
        core::mem::take(&mut self.unsure)
    }

    /// What has come in full and is not in its place yet.
    fn staged(&self) -> impl Iterator<Item = &Ready> {
        let grouped = self.groups.values().flat_map(|group| &group.items);
        let installing = self.jobs.values().flat_map(|job| match job {
            Job::GroupInstall(_, part, _) => part.as_slice(),
            Job::DirIntents(group) | Job::MakeDirs(group) => group.staged(),
            _ => &[],
        });
        self.ready.iter().chain(grouped).chain(installing)
    }

    /// The temps that something under way still needs.
    pub fn temps_in_use(&self) -> Vec<TempId> {
        let mut temps = self.fetcher.temps_in_use();
        temps.extend(self.staged().map(|item| item.temp));
        temps.extend(self.left_over.values().flatten());
        for job in self.jobs.values() {
            if let Job::StageLinks(links) = job {
                temps.extend(links.iter().map(|(temp, ..)| *temp));
            }
        }
        temps
    }

    /// Bytes of what is pending that are here already: parts of large downloads, and what waits to be put in place.
    pub fn arrived_bytes(&self) -> u64 {
        let staged = self.staged().map(|item| item.version.size());
        staged.fold(self.fetcher.written_bytes(), u64::saturating_add)
    }

    /// Whether the folder was found missing since the last call.
    pub fn take_root_missing(&mut self) -> bool {
        core::mem::take(&mut self.root_missing)
    }

    /// A new temp's number.
    fn new_temp(&mut self) -> TempId {
        self.next_temp = self.next_temp.wrapping_add(1);
        TempId(self.next_temp)
    }

    /// Work that ended since the last call, and the groups whose intents go with it.
    pub fn take_finished(&mut self) -> (Vec<Finished>, Vec<u64>) {
        (core::mem::take(&mut self.finished), core::mem::take(&mut self.groups_ended))
    }

    /// The database knows of this work's end.
    pub fn ended(&mut self, path: &RelPath) {
        self.free(path);
    }

    /// Takes a task of the plan.
    pub fn begin(&mut self, task: Task) {
        if self.busy.contains(task.path()) {
            return;
        }
        if let Task::Rename { to, .. } = &task {
            if self.busy.contains(to) {
                return;
            }
            self.busy.insert(to.clone());
        }
        if !matches!(task, Task::Remove { .. }) {
            self.busy.insert(task.path().clone());
        }
        match task {
            Task::MakeDir { path, version } => self.dirs.push((path, version)),
            Task::Bring { path, version, replaces, local, old } => {
                self.bring(path, version, replaces, local, old);
            }
            Task::Rename { from, to, stamp, version } => {
                self.renames.push(Renaming { from, to, stamp, version, retried: false });
            }
            Task::Remove { path, stamp } => {
                if self.removals.len() < TASKS_MAX {
                    self.removals.push((path, stamp));
                } else {
                    self.again = true;
                }
            }
            Task::SetMeta { path, stamp, version, mode, mtime_ns } => {
                self.metas.push((SetMeta { path, stamp, mode, mtime_ns }, version));
            }
        }
    }

    fn bring(
        &mut self,
        path: RelPath,
        version: Arc<Record>,
        replaces: Option<Stamp>,
        local: Option<(RelPath, Stamp)>,
        old: Option<Sha256>,
    ) {
        let Value::Entry(entry) = &version.value else {
            self.free(&path);
            return;
        };
        let (mode, mtime_ns) = wanted_meta(&version);
        match &entry.content {
            EntryContent::Dir => self.dirs.push((path, Some(version))),
            EntryContent::Link(target) => {
                let stage = Stage {
                    temp: self.new_temp(),
                    content: StageContent::Link(target.clone()),
                    mode: None,
                    mtime_ns,
                };
                self.links.push((stage, path, version, replaces));
            }
            EntryContent::File { size, sha256 } => {
                self.next_id += 1;
                let id = self.next_id;
                let (size, sha256) = (*size, *sha256);
                self.wanted.insert(version.uuid, id);
                if let Some((from, _)) = &local {
                    self.sources.insert(id, from.clone());
                }
                let old = replaces.zip(old);
                let old = old.map(|(stamp, sha256)| Old { path: path.clone(), stamp, sha256 });
                self.wants.insert(id, (path, version, replaces));
                self.waiting_wants.push_back(Want { id, sha256, size, mode, mtime_ns, local, old });
            }
        }
    }

    /// Puts out everything that can begin now.
    pub fn pump(&mut self, peers: &PeerTable, now: Now, out: &mut Outbox) {
        if !self.enabled {
            return;
        }
        self.take_fetched(now);
        self.put_out_batches(peers, now, out);
        self.start_group(now, out);
        self.sweep_on(out);
    }

    fn put_out_batches(&mut self, peers: &PeerTable, now: Now, out: &mut Outbox) {
        let root = self.root;
        let dirs = core::mem::take(&mut self.dirs);
        if !dirs.is_empty() {
            let dirs = dirs.into_iter().map(|(path, version)| Making::own(path, version));
            self.store_dir_intents(dirs.collect(), MadeFor::Them, peers, out);
        }
        let links = core::mem::take(&mut self.links);
        if !links.is_empty() {
            let files = links.iter().map(|(stage, ..)| stage.clone()).collect();
            let links =
                links.into_iter().map(|(s, path, version, replaces)| (s.temp, path, version, replaces));
            let job = Job::StageLinks(links.collect());
            self.jobs.insert(out.disk(DiskOp::Stage { root, files }), job);
        }
        for renaming in core::mem::take(&mut self.renames) {
            self.rename(renaming, out);
        }
        let metas = core::mem::take(&mut self.metas);
        if !metas.is_empty() {
            let items = metas.iter().map(|(item, _)| item.clone()).collect();
            self.jobs.insert(out.disk(DiskOp::SetMeta { root, items }), Job::SetMeta(metas));
        }
        while self.fetcher.capacity() > 0 {
            let Some(want) = self.waiting_wants.pop_front() else { break };
            if !self.wants.contains_key(&want.id) {
                // It was called off.
                continue;
            }
            let (id, taken) = (want.id, self.fetcher.want(want, now, out));
            if !taken {
                // Numbers are never used twice and there is capacity: this cannot happen, and would only cost a retry.
                if let Some((path, ..)) = self.take_want(id) {
                    self.free(&path);
                }
            }
        }
        // A failure that is not remembered has no pause: then giving up sooner would only mean asking more often.
        let remembers = self.failures.len() < FAILURES_MAX;
        self.fetcher.set_crowded(remembers && !self.waiting_wants.is_empty());
    }

    fn take_want(&mut self, id: u64) -> Option<(RelPath, Arc<Record>, Option<Stamp>)> {
        let want = self.wants.remove(&id)?;
        self.sources.remove(&id);
        if self.wanted.get(&want.1.uuid) == Some(&id) {
            self.wanted.remove(&want.1.uuid);
        }
        Some(want)
    }

    /// Takes finished downloads over.
    fn take_fetched(&mut self, now: Now) {
        while let Some(fetched) = self.fetcher.poll_done() {
            let Some((path, version, replaces)) = self.take_want(fetched.id) else { continue };
            match fetched.result {
                Ok((temp, _)) => {
                    self.ready_since.get_or_insert(now.mono);
                    self.ready.push(Ready { path, version, temp, replaces, retried: false });
                }
                Err(error) => {
                    let trouble = match error {
                        FetchError::Disk(error) => Trouble::Disk(error),
                        FetchError::NoSpace => Trouble::Disk(DiskError::NoSpace),
                        FetchError::NotAvailable => {
                            self.misses(&path, &version);
                            Trouble::NotAvailable
                        }
                        FetchError::Impossible => Trouble::WrongContent,
                        FetchError::Again => {
                            // The one that it came for is told of just before.
                            match self.ready.last() {
                                Some(first) if first.version.sha256() == version.sha256() => {
                                    self.followers.entry(first.path.clone()).or_default().push(path);
                                }
                                _ => self.finished.push(Finished { path, outcome: Outcome::Failed }),
                            }
                            continue;
                        }
                    };
                    self.fail(path, trouble, now);
                }
            }
        }
    }

    fn placed(&mut self, path: &RelPath, version: Arc<Record>, stamp: Stamp, now: Now) -> Outcome {
        self.failures.remove(path);
        let content = match &version.value {
            Value::Entry(entry) => entry.content.clone(),
            _ => EntryContent::Dir,
        };
        // What was just put there has the recorded time; whoever writes to it changes that.
        let settled = stamp.kind != Kind::Dir
            && u128::from(now.wall.0.abs_diff(stamp.mtime_ns)) >= GRAIN_DEFAULT.as_nanos();
        Outcome::Placed { version, content, stamp, settled, archived: None }
    }

    /// When a pause ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let group = self.ready_since.map(|since| since.plus(GROUP_WAIT));
        let retry = if self.sweep == Sweep::Rest && self.enabled { self.failures.next() } else { None };
        [
            group.filter(|_| self.groups.is_empty() && self.enabled),
            retry,
            self.flush_at(),
            self.fetcher.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A pause may have ended.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outbox) {
        self.fetcher.handle_timeout(now, out);
        if self.sweep != Sweep::Rest || !self.enabled {
            return;
        }
        if self.failures.mark_due(now.mono) {
            self.sweep = Sweep::Due;
        }
    }

    /// Whether a token is this work's.
    pub fn owns(&self, token: Token) -> bool {
        self.jobs.contains_key(&token) || self.fetcher.owns(token)
    }

    /// Takes the result of a store operation of its own.
    pub fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        now: Now,
        out: &mut Outbox,
    ) {
        let Some(job) = self.jobs.remove(&token) else {
            self.fetcher.handle_store(token, result);
            return;
        };
        match (job, result) {
            (Job::Page, Ok(StoreDone::Loaded(mut answers))) => {
                let rows = answers.pop().unwrap_or_default();
                self.page_loaded(rows, out);
            }
            (Job::Page, _) => self.sweep = Sweep::Due,
            (Job::GroupIntents(id), Ok(_)) => self.install_group(id, now, out),
            (Job::DirIntents(group), Ok(_)) => self.make_dirs(group, out),
            (Job::DirIntents(group), Err(_)) => self.fail_dirs(group, now, out),
            (Job::GroupIntents(id), Err(_)) => {
                let items = self.groups.remove(&id).map(|g| g.items).unwrap_or_default();
                for item in items {
                    self.fail_ready(item, Trouble::Disk(DiskError::Io), now, out);
                }
            }
            _ => {}
        }
    }

    /// Takes the result of a disk operation of its own.
    pub fn handle_disk(
        &mut self,
        token: Token,
        result: Result<DiskDone, DiskError>,
        peers: &PeerTable,
        now: Now,
        out: &mut Outbox,
    ) {
        self.root_missing |= matches!(result, Err(DiskError::RootMissing));
        let Some(job) = self.jobs.remove(&token) else {
            self.fetcher.handle_disk(token, result, now, out);
            return;
        };
        if let Some(changes) = self.covered.remove(&token) {
            self.flushed(changes, result.as_ref().err().copied(), now);
        }
        match job {
            Job::MakeDirs(group) => self.made_dirs(group, result, peers, now, out),
            Job::StageLinks(links) => {
                let staged = disk::per_item(result, links.len(), |done| match done {
                    DiskDone::Staged(staged) => Some(staged),
                    _ => None,
                });
                for ((temp, path, version, replaces), staged) in links.into_iter().zip(staged) {
                    match staged {
                        Ok(_) => {
                            self.ready_since.get_or_insert(now.mono);
                            self.ready.push(Ready { path, version, temp, replaces, retried: false });
                        }
                        Err(error) => self.fail(path, Trouble::Disk(error), now),
                    }
                }
            }
            Job::Rename(renaming) => self.renamed(renaming, stamps(result, 1).pop(), peers, now, out),
            Job::Remove(paths, archive) => self.removed(paths, &archive, result, now),
            Job::SetMeta(items) => {
                let stamps = stamps(result, items.len());
                for ((item, version), stamp) in items.into_iter().zip(stamps) {
                    match stamp {
                        Ok(mut stamp) => {
                            // Bits that were not set here and differ are a change that nobody has looked at yet.
                            if item.mode.is_none() {
                                stamp.mode = item.stamp.mode;
                            }
                            let outcome = self.placed(&item.path, version, stamp, now);
                            self.changed(item.path, outcome, now);
                        }
                        Err(error) => self.fail(item.path, Trouble::Disk(error), now),
                    }
                }
            }
            Job::GroupFlush(id) => match result {
                Ok(_) => self.store_intents(id, peers, out),
                Err(error) => {
                    let items = self.groups.remove(&id).map(|g| g.items).unwrap_or_default();
                    for item in items {
                        self.fail_ready(item, Trouble::Disk(error), now, out);
                    }
                }
            },
            Job::GroupInstall(id, part, archive) => {
                let stamps = stamps(result, part.len());
                let again = self.installed(id, part, &archive, stamps, now, out);
                if !again.is_empty() {
                    // A directory on the way is missing: one that lives only through what lies beneath it.
                    let dirs = self.above(again.iter().map(|item| &item.path));
                    self.store_dir_intents(dirs, MadeFor::Installs(id, again), peers, out);
                }
            }
            Job::GroupSync(id) => self.synced(id, result.err(), now),
            Job::Page | Job::DirIntents(_) | Job::GroupIntents(_) | Job::Flush | Job::Forget => {}
        }
    }

    fn rename(&mut self, renaming: Renaming, out: &mut Outbox) {
        let Renaming { from, to, stamp, .. } = renaming.clone();
        let op = DiskOp::Rename { root: self.root, from, to, stamp };
        self.jobs.insert(out.disk(op), Job::Rename(renaming));
    }

    fn renamed(
        &mut self,
        renaming: Renaming,
        result: Option<Result<Stamp, DiskError>>,
        peers: &PeerTable,
        now: Now,
        out: &mut Outbox,
    ) {
        match result.unwrap_or(Err(DiskError::Io)) {
            Ok(stamp) => {
                let Renaming { from, to, version, .. } = renaming;
                self.failures.remove(&from);
                self.failures.remove(&to);
                self.changed(from, Outcome::Moved { to, version, stamp }, now);
            }
            Err(DiskError::NotFound) if !renaming.retried => {
                let dirs = self.above([&renaming.to].into_iter());
                let renaming = Renaming { retried: true, ..renaming };
                self.store_dir_intents(dirs, MadeFor::Rename(renaming), peers, out);
            }
            Err(error) => {
                self.free(&renaming.to);
                // The directories were just made, so it is the source that is not there.
                let error = if error == DiskError::NotFound { DiskError::Changed } else { error };
                self.fail(renaming.from.clone(), Trouble::Disk(error), now);
                // Either end would ask for the same again.
                self.pause(renaming.to, Trouble::Disk(error), now);
            }
        }
    }
}

/// The stamps of an answer, or its error for each of `count` items.
fn stamps(result: Result<DiskDone, DiskError>, count: usize) -> Vec<Result<Stamp, DiskError>> {
    disk::per_item(result, count, |done| match done {
        DiskDone::Stamps(stamps) => Some(stamps),
        _ => None,
    })
}
