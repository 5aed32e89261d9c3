//! The disk pool: carries out [`DiskOp`]s on a few threads, each with exactly one completion.
//!
//! Owns the open roots and the order of work. What touches one temp (but for its flushes), one walk, or the life of one
//! root begins in the order in which it was submitted, and alone, except that two writes to other bytes of one temp run
//! side by side; all else runs in parallel. Knows nothing of shares, records or peers.

mod archive;
mod install;
mod read;
mod resolve;
mod root;
mod stat;
mod temp;
#[cfg(test)]
mod tests;
mod walk;
pub(crate) use walk::readable;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use clearskies_core::files::rsync::made_bytes;
use clearskies_core::ids::{RootId, TempId, Token};
use clearskies_core::io::disk::{DiskDone, DiskError, DiskOp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::watch::Watcher;
use read::Scratch;
use root::Root;
use stat::{fail, lock};

pub use root::MARKER_BYTES_MAX;

/// The most threads that a pool takes.
pub const THREADS_MAX: usize = 64;

/// Opens a directory for listing, beneath another one and through no link.
pub(crate) fn open_listed(
    dir: BorrowedFd<'_>,
    whole: &AtomicBool,
    path: &str,
) -> rustix::io::Result<OwnedFd> {
    resolve::open_beneath(dir, whole, path, resolve::LISTED)
}

/// How an operation ended.
pub type DiskResult = Result<DiskDone, DiskError>;

/// Threads that carry out disk operations.
pub struct DiskPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskPool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What all threads share.
struct Shared {
    disk: Disk,
    queue: Mutex<Queue>,
    wake: Condvar,
    done: Box<dyn Fn(Token, DiskResult) + Send + Sync>,
    /// How many threads may hash at once: one stays free, so that a large file does not hold up the rest.
    hashing_max: usize,
}

/// The state of the disk as the pool knows it.
struct Disk {
    roots: Mutex<HashMap<RootId, Arc<Root>>>,
    watcher: Option<Arc<dyn Watcher>>,
    stop: AtomicBool,
}

/// Work that must keep its order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Root(RootId),
    Walk(RootId, u64),
    Temp(RootId, TempId),
}

/// So many writes to one temp run side by side: one is hashed while the other is written. More would only hold up
/// others, as nothing is slower than the hash.
const ABREAST_MAX: usize = 2;

/// One piece of work.
struct Job {
    /// Counts up; the oldest goes first.
    number: u64,
    lane: Option<Lane>,
    /// The bytes of a temp that it writes, if that is all that it does.
    written: Option<Range<u64>>,
    work: Work,
}

/// Work of one lane that is ready or running, and what waits behind it.
#[derive(Default)]
struct Order {
    running: Vec<(u64, Option<Range<u64>>)>,
    waiting: VecDeque<Job>,
}

enum Work {
    Op(Token, DiskOp),
    /// One temp of a [`DiskOp::RemoveTemps`], which waits behind the writes of this temp.
    RemoveTemp(RootId, TempId, Arc<Removal>),
}

/// What a finished job completes.
enum Ticket {
    Whole(Token),
    Part(Arc<Removal>),
}

/// A [`DiskOp::RemoveTemps`] under way.
struct Removal {
    token: Token,
    left: AtomicUsize,
    failed: Mutex<Option<DiskError>>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Job>,
    hashes: VecDeque<Job>,
    hashing: usize,
    /// Lanes with a job that is ready or running.
    lanes: HashMap<Lane, Order>,
    submitted: u64,
    closed: bool,
}

impl Queue {
    fn push(&mut self, lane: Option<Lane>, written: Option<Range<u64>>, work: Work) {
        self.submitted += 1;
        let job = Job { number: self.submitted, lane, written, work };
        match lane {
            None => self.make_ready(job),
            Some(lane) => {
                self.lanes.entry(lane).or_default().waiting.push_back(job);
                self.drive(lane);
            }
        }
    }

    /// Makes ready what need not wait any more in a lane.
    fn drive(&mut self, lane: Lane) {
        while let Some(job) = self.lanes.get_mut(&lane).and_then(Order::next) {
            self.make_ready(job);
        }
    }

    fn make_ready(&mut self, job: Job) {
        match job.work {
            Work::Op(_, DiskOp::Hash { .. }) => self.hashes.push_back(job),
            _ => self.ready.push_back(job),
        }
    }

    /// The oldest job that may run now.
    fn next(&mut self, hashing_max: usize) -> Option<Job> {
        let hash = self.hashes.front().filter(|_| self.hashing < hashing_max).map(|job| job.number);
        match (self.ready.front().map(|job| job.number), hash) {
            (Some(ready), Some(hash)) if hash < ready => {}
            (Some(_), _) => return self.ready.pop_front(),
            (None, Some(_)) => {}
            (None, None) => return None,
        }
        self.hashing += 1;
        self.hashes.pop_front()
    }

    /// A job of a lane is done.
    fn leave(&mut self, lane: Lane, number: u64) {
        if let Some(order) = self.lanes.get_mut(&lane) {
            order.running.retain(|(other, _)| *other != number);
        }
        self.drive(lane);
        if self.lanes.get(&lane).is_some_and(|order| order.running.is_empty()) {
            self.lanes.remove(&lane);
        }
    }
}

impl Order {
    /// The oldest job that waits, if it may run beside those that do.
    fn next(&mut self) -> Option<Job> {
        let written = &self.waiting.front()?.written;
        let apart = |other: &Option<Range<u64>>| match (written, other) {
            (Some(this), Some(other)) => this.end <= other.start || other.end <= this.start,
            _ => false,
        };
        if self.running.len() >= ABREAST_MAX || !self.running.iter().all(|(_, other)| apart(other)) {
            return None;
        }
        let job = self.waiting.pop_front()?;
        self.running.push((job.number, job.written.clone()));
        Some(job)
    }
}

/// See [`Job::written`].
fn written(op: &DiskOp) -> Option<Range<u64>> {
    let (offset, len) = match op {
        DiskOp::WriteTemp { offset, data, .. } => (*offset, data.0.len() as u64),
        DiskOp::PatchTemp { offset, stamp, delta, .. } => (*offset, made_bytes(&delta.0, stamp.size)?),
        _ => return None,
    };
    Some(offset..offset.saturating_add(len))
}

impl DiskPool {
    /// One thread more than the machine has cores.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_add(1)
    }

    /// Starts a pool of at least two threads. `done` is called once per token, on any of them.
    ///
    /// # Errors
    /// The system refused to start a single thread.
    pub fn new(
        threads: usize,
        done: impl Fn(Token, DiskResult) + Send + Sync + 'static,
    ) -> std::io::Result<DiskPool> {
        Self::with_watcher(threads, None, done)
    }

    /// [`DiskPool::new`], with somebody who watches the directories of open roots.
    ///
    /// # Errors
    /// The system refused to start a single thread.
    pub fn with_watcher(
        threads: usize,
        watcher: Option<Arc<dyn Watcher>>,
        done: impl Fn(Token, DiskResult) + Send + Sync + 'static,
    ) -> std::io::Result<DiskPool> {
        let wanted = threads.clamp(2, THREADS_MAX);
        let shared = Arc::new(Shared {
            disk: Disk { roots: Mutex::default(), watcher, stop: AtomicBool::new(false) },
            queue: Mutex::default(),
            wake: Condvar::new(),
            done: Box::new(done),
            hashing_max: wanted - 1,
        });
        let mut pool = DiskPool { shared, threads: Vec::with_capacity(wanted) };
        for n in 0..wanted {
            let shared = pool.shared.clone();
            match std::thread::Builder::new().name(format!("disk-{n}")).spawn(move || shared.run()) {
                Ok(thread) => pool.threads.push(thread),
                Err(error) if pool.threads.is_empty() => return Err(error),
                Err(error) => {
                    log::warn!("the disk pool runs with {} of {wanted} threads: {error}", pool.threads.len());
                    break;
                }
            }
        }
        Ok(pool)
    }

    /// Takes an operation. Its completion may come before this returns.
    pub fn submit(&self, token: Token, op: DiskOp) {
        let written = written(&op);
        let mut queue = lock(&self.shared.queue);
        if queue.closed {
            drop(queue);
            self.shared.complete(token, Err(DiskError::Io));
            return;
        }
        match op {
            DiskOp::RemoveTemps { root, temps } => {
                if temps.is_empty() {
                    drop(queue);
                    self.shared.complete(token, Ok(DiskDone::Unit));
                    return;
                }
                let removal = Arc::new(Removal {
                    token,
                    left: AtomicUsize::new(temps.len()),
                    failed: Mutex::new(None),
                });
                for temp in temps {
                    let work = Work::RemoveTemp(root, temp, removal.clone());
                    queue.push(Some(Lane::Temp(root, temp)), None, work);
                }
            }
            op => queue.push(lane_of(&op), written, Work::Op(token, op)),
        }
        drop(queue);
        self.shared.wake.notify_all();
    }

    /// How many operations wait or run.
    pub fn pending(&self) -> usize {
        let queue = lock(&self.shared.queue);
        queue.ready.len()
            + queue.hashes.len()
            + queue.lanes.values().map(|order| order.waiting.len()).sum::<usize>()
    }

    /// Ends the threads. What runs is finished (hashing is broken off), what waits completes with
    /// [`DiskError::Io`]; when this returns every token has its completion.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let dropped = {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
            self.shared.disk.stop.store(true, Ordering::Relaxed);
            let mut jobs: Vec<Job> = queue.ready.drain(..).collect();
            jobs.extend(queue.hashes.drain(..));
            jobs.extend(queue.lanes.drain().flat_map(|(_, order)| order.waiting));
            jobs
        };
        self.shared.wake.notify_all();
        for job in dropped {
            let ticket = match job.work {
                Work::Op(token, _) => Ticket::Whole(token),
                Work::RemoveTemp(_, _, removal) => Ticket::Part(removal),
            };
            self.shared.finish(ticket, Err(DiskError::Io));
        }
        for thread in self.threads.drain(..) {
            // A worker catches what its jobs panic with, so only `done` itself can have panicked.
            if thread.join().is_err() {
                log::error!("a disk thread panicked");
            }
        }
    }
}

impl Drop for DiskPool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an operation must not overtake.
fn lane_of(op: &DiskOp) -> Option<Lane> {
    match op {
        DiskOp::OpenRoot { root, .. }
        | DiskOp::CloseRoot { root }
        | DiskOp::WriteMarker { root, .. }
        | DiskOp::RemoveMarker { root } => Some(Lane::Root(*root)),
        DiskOp::Walk { root, walk, .. } | DiskOp::EndWalk { root, walk } => Some(Lane::Walk(*root, *walk)),
        DiskOp::OpenTemp { root, temp, .. }
        | DiskOp::WriteTemp { root, temp, .. }
        | DiskOp::PatchTemp { root, temp, .. }
        | DiskOp::FinishTemp { root, temp, .. } => Some(Lane::Temp(*root, *temp)),
        _ => None,
    }
}

impl Shared {
    fn run(&self) {
        let mut scratch = Scratch::new();
        loop {
            let job = {
                let mut queue = lock(&self.queue);
                loop {
                    if let Some(job) = queue.next(self.hashing_max) {
                        break job;
                    }
                    if queue.closed {
                        return;
                    }
                    queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            self.carry_out(job, &mut scratch);
        }
    }

    fn carry_out(&self, job: Job, scratch: &mut Scratch) {
        let Job { number, lane, work, .. } = job;
        let hashing = matches!(work, Work::Op(_, DiskOp::Hash { .. }));
        let (ticket, result) = match work {
            Work::Op(token, op) => (Ticket::Whole(token), guarded(|| self.disk.execute(op, scratch))),
            Work::RemoveTemp(root, temp, removal) => {
                let remove = || temp::remove(&*self.disk.root(root)?, temp).map(|()| DiskDone::Unit);
                (Ticket::Part(removal), guarded(remove))
            }
        };
        if hashing || lane.is_some() {
            let mut queue = lock(&self.queue);
            if hashing {
                queue.hashing -= 1;
            }
            if let Some(lane) = lane.filter(|_| !queue.closed) {
                queue.leave(lane, number);
            }
            drop(queue);
            self.wake.notify_all();
        }
        self.finish(ticket, result);
    }

    /// Completes a job's token, if this was the last part of it.
    fn finish(&self, ticket: Ticket, result: DiskResult) {
        match ticket {
            Ticket::Whole(token) => self.complete(token, result),
            Ticket::Part(removal) => {
                if let Err(error) = result {
                    lock(&removal.failed).get_or_insert(error);
                }
                if removal.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let failed = *lock(&removal.failed);
                    self.complete(removal.token, failed.map_or(Ok(DiskDone::Unit), Err));
                }
            }
        }
    }

    fn complete(&self, token: Token, result: DiskResult) {
        (self.done)(token, result);
    }
}

/// Runs a job; one that panics fails, and its thread lives on.
fn guarded(job: impl FnOnce() -> DiskResult) -> DiskResult {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
        log::error!("a disk operation panicked");
        Err(DiskError::Io)
    })
}

impl Disk {
    fn root(&self, root: RootId) -> Result<Arc<Root>, DiskError> {
        lock(&self.roots).get(&root).cloned().ok_or(DiskError::RootMissing)
    }

    fn execute(&self, op: DiskOp, scratch: &mut Scratch) -> DiskResult {
        let stop = &self.stop;
        match op {
            DiskOp::OpenRoot { root, path, create } => self.open_root(root, path, create),
            DiskOp::CloseRoot { root } => {
                self.close_root(root);
                Ok(DiskDone::Unit)
            }
            DiskOp::WriteMarker { root, marker } => {
                self.root(root)?.write_marker(marker)?;
                Ok(DiskDone::Unit)
            }
            DiskOp::RemoveMarker { root } => {
                self.root(root)?.remove_marker()?;
                Ok(DiskDone::Unit)
            }
            DiskOp::CheckRoot { root } => self.root(root)?.check().map(DiskDone::Marker),
            DiskOp::Walk { root, walk, dir, limit } => {
                walk::walk(&*self.root(root)?, self.watcher.as_deref(), walk, dir, limit)
            }
            DiskOp::EndWalk { root, walk } => {
                lock(&self.root(root)?.walks).remove(&walk);
                Ok(DiskDone::Unit)
            }
            DiskOp::Stat { root, paths } => Ok(DiskDone::Stamps(read::stat(&*self.root(root)?, &paths))),
            DiskOp::Hash { root, paths } => {
                Ok(DiskDone::Hashed(read::hash(&*self.root(root)?, &paths, scratch, stop)))
            }
            DiskOp::Read { root, reads } => Ok(DiskDone::Data(read::read(&*self.root(root)?, &reads))),
            DiskOp::Sign { root, read, head } => read::sign(&*self.root(root)?, &read, head, scratch),
            DiskOp::Delta { root, read, expected, signature } => {
                read::compare(&*self.root(root)?, &read, expected, &signature)
            }
            DiskOp::Stage { root, files } => temp::stage(&*self.root(root)?, &files, scratch, stop),
            DiskOp::OpenTemp { root, temp, size } => temp::open(&*self.root(root)?, temp, size),
            DiskOp::WriteTemp { root, temp, offset, data } => {
                temp::write(&*self.root(root)?, temp, offset, &data.0, scratch)
            }
            DiskOp::PatchTemp { root, temp, offset, from, stamp, delta } => {
                temp::patch(&*self.root(root)?, temp, offset, (&from, &stamp), &delta.0, scratch)
            }
            DiskOp::FlushTemp { root, temp } => temp::flush(&*self.root(root)?, temp),
            DiskOp::FinishTemp { root, temp, mode, mtime_ns } => {
                temp::finish_temp(&*self.root(root)?, temp, mode, mtime_ns, scratch, stop)
            }
            DiskOp::RemoveTemps { root, temps } => {
                let root = self.root(root)?;
                temps.into_iter().try_for_each(|temp| temp::remove(&root, temp))?;
                Ok(DiskDone::Unit)
            }
            DiskOp::SweepTemps { root, keep } => temp::sweep(&*self.root(root)?, keep),
            DiskOp::Flush { root } => {
                let root = self.root(root)?;
                rustix::fs::syncfs(&root.fd).map_err(|e| fail("flush the volume of", ".", e))?;
                Ok(DiskDone::Unit)
            }
            DiskOp::Install { root, items } => {
                install::install(&*self.root(root)?, &items).map(DiskDone::Stamps)
            }
            DiskOp::MakeDirs { root, dirs } => {
                let watcher = self.watcher.as_deref().map(|watcher| (watcher, root));
                install::make_dirs(&*self.root(root)?, watcher, &dirs).map(DiskDone::Made)
            }
            DiskOp::Rename { root, from, to, stamp } => {
                let root = self.root(root)?;
                root.verify()?;
                Ok(DiskDone::Stamps(vec![install::rename(&root, &from, &to, &stamp)]))
            }
            DiskOp::Remove { root, items } => {
                install::remove(&*self.root(root)?, &items).map(DiskDone::Removed)
            }
            DiskOp::SetMeta { root, items } => {
                install::set_meta(&*self.root(root)?, &items).map(DiskDone::Stamps)
            }
            DiskOp::ListArchive { root, limit } => {
                archive::list(&*self.root(root)?, limit).map(DiskDone::Archived)
            }
            DiskOp::RestoreArchived { root, folder, path, to } => {
                let root = self.root(root)?;
                root.verify()?;
                Ok(DiskDone::Stamps(vec![archive::restore(&root, &folder, &path, &to, scratch)]))
            }
            DiskOp::CheckArchived { root, files } => {
                Ok(DiskDone::Checked(archive::check(&*self.root(root)?, &files, scratch, stop)))
            }
            DiskOp::TakeArchived { root, folder, path, to } => {
                let root = self.root(root)?;
                root.verify()?;
                Ok(DiskDone::Stamps(vec![archive::take(&root, &folder, &path, &to)]))
            }
            DiskOp::PruneArchive { root, before } => {
                let root = self.root(root)?;
                root.verify()?;
                archive::prune(&root, &before)?;
                Ok(DiskDone::Unit)
            }
            DiskOp::Space { root } => {
                let root = self.root(root)?;
                let space =
                    rustix::fs::fstatvfs(&root.fd).map_err(|e| fail("ask for the space of", ".", e))?;
                Ok(DiskDone::Space {
                    free: space.f_bavail.saturating_mul(space.f_frsize),
                    total: space.f_blocks.saturating_mul(space.f_frsize),
                })
            }
        }
    }

    fn open_root(&self, id: RootId, path: String, create: bool) -> DiskResult {
        self.close_root(id);
        let (root, opened) = Root::open_at(id, path, create)?;
        if let Some(watcher) = &self.watcher {
            watcher.add_root(id, root.fd.as_fd());
        }
        lock(&self.roots).insert(id, Arc::new(root));
        Ok(opened)
    }

    fn close_root(&self, id: RootId) {
        // What still runs on it holds it until it is done.
        let known = lock(&self.roots).remove(&id).is_some();
        if let Some(watcher) = self.watcher.as_ref().filter(|_| known) {
            watcher.remove_root(id);
        }
    }
}
