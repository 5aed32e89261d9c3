//! The disk pool of a simulated machine: carries out every `DiskOp` as `core/src/io/disk.rs` states it, on a file
//! system in memory, with faults on demand. What users do to the same files is in `users.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::Noticed;
use clearskies_core::io::disk::{Bytes, DiskDone, DiskError, DiskOp, Kind, MODE_BITS, Staged, Stamp};
use clearskies_host::delta::{self, Piece};

use super::fs::{Body, Fs, GRAIN_NS, TOP, UMASK};
use super::rng::Rng;
use temps::file_body;
use watch::{Sign, Watches};

mod archive;
mod look;
mod ops;
mod place;
mod temps;
mod watch;

pub use ops::{carried_bytes, changes_files, op_name, root_of, temp_of};
pub use temps::count_temps;

/// A marker is read up to here.
const MARKER_BYTES_MAX: usize = 4096;
const PRIVATE: &[u8] = b".clearskies";

/// A hint of the watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// What was seen at this path.
    Seen(RootId, RelPath, Noticed),
    /// Hints of this root were lost.
    Overflow(RootId),
}

/// A failure that was ordered.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation's name, as [`op_name`] gives it; `None` for any.
    pub op: Option<&'static str>,
    /// The path that it must concern; `None`: the operation as a whole fails.
    pub path: Option<RelPath>,
    /// How it fails.
    pub error: DiskError,
    /// How many times.
    pub times: u32,
}

/// Failures by chance.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Where the chance comes from.
    pub rng: Rng,
    /// How many items in a thousand fail.
    pub per_mille: u32,
    /// With what.
    pub errors: Vec<DiskError>,
}

#[derive(Clone, Debug)]
struct Root {
    path: String,
    dir: u64,
    walks: BTreeMap<u64, Vec<Frame>>,
    watches: Watches,
    temps: BTreeSet<TempId>,
}

/// A directory of a walk, and the names in it that are still to come, last first.
#[derive(Clone, Debug)]
struct Frame {
    dir: RelPath,
    names: Vec<Vec<u8>>,
}

/// A machine's disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// The files.
    pub fs: Fs,
    /// Failures that wait for their operation.
    pub faults: Vec<Fault>,
    /// Failures by chance.
    pub chaos: Option<Chaos>,
    /// Absolute paths that are not there at the moment (a volume pulled out).
    pub unplugged: BTreeSet<String>,
    /// Operations that changed something, since the start.
    pub changes: u64,
    /// Files hashed, since the start.
    pub hashes: u64,
    /// Flushes of a whole root, since the start.
    pub flushes: u64,
    /// The name and content of each visible file right after the engine changed it, since somebody took them.
    pub shown: Vec<(String, Arc<Vec<u8>>)>,
    roots: BTreeMap<RootId, Root>,
    /// Hints that nobody saw anything for.
    hints: Vec<Hint>,
    /// Whether it is carrying out an operation.
    working: bool,
}

impl SimDisk {
    /// Carries out one operation at a time of the wall clock.
    pub fn execute(&mut self, wall_ns: i64, op: DiskOp) -> Result<DiskDone, DiskError> {
        self.fs.set_now(wall_ns);
        let name = op_name(&op);
        self.fail(name, None)?;
        if changes_files(&op) {
            self.changes += 1;
        }
        match op {
            DiskOp::OpenRoot { root, path, create } => self.open_root(root, path, create),
            DiskOp::CloseRoot { root } => {
                self.close_root(root);
                Ok(DiskDone::Unit)
            }
            op => {
                let root = root_of(&op);
                let dir = self.opened(root)?;
                self.working = true;
                let done = self.on_root(root, dir, op);
                self.working = false;
                done
            }
        }
    }

    fn on_root(&mut self, root: RootId, dir: u64, op: DiskOp) -> Result<DiskDone, DiskError> {
        match op {
            DiskOp::OpenRoot { .. } | DiskOp::CloseRoot { .. } => Err(DiskError::Io),
            DiskOp::WriteMarker { marker, .. } => self.write_marker(dir, marker),
            DiskOp::RemoveMarker { .. } => self.remove_marker(root, dir),
            DiskOp::CheckRoot { .. } => {
                let path = self.roots[&root].path.clone();
                if !self.fs.is_attached(dir) || self.absolute(&path) != Ok(dir) {
                    return Err(DiskError::RootMissing);
                }
                Ok(DiskDone::Marker(self.marker(dir)))
            }
            DiskOp::Walk { walk, dir: start, limit, .. } => self.walk(root, walk, start, limit),
            DiskOp::EndWalk { walk, .. } => {
                self.open(root)?.walks.remove(&walk);
                Ok(DiskDone::Unit)
            }
            DiskOp::Stat { paths, .. } => {
                Ok(DiskDone::Stamps(paths.iter().map(|path| self.stat(dir, path)).collect()))
            }
            DiskOp::Hash { paths, .. } => {
                Ok(DiskDone::Hashed(paths.iter().map(|path| self.hash(dir, path)).collect()))
            }
            DiskOp::Read { reads, .. } => {
                Ok(DiskDone::Data(reads.iter().map(|read| self.read(dir, read)).collect()))
            }
            DiskOp::Sign { read, head, .. } => {
                let data = self.read(dir, &read)?;
                Ok(DiskDone::Data(vec![Ok(Bytes(delta::sums(&data.0, head)))]))
            }
            DiskOp::Delta { read, expected, signature, .. } => {
                let data = self.read(dir, &read)?.0;
                let is_end = read.offset + data.len() as u64 >= read.stamp.size;
                let Piece { delta, len, next } = delta::delta(&data, is_end, expected, &signature);
                Ok(DiskDone::Delta { delta: Bytes(delta), len: len as u64, next })
            }
            DiskOp::Stage { files, .. } => {
                Ok(DiskDone::Staged(files.into_iter().map(|file| self.stage(dir, file)).collect()))
            }
            DiskOp::OpenTemp { temp, .. } => self.open_temp(root, dir, temp),
            DiskOp::WriteTemp { temp, offset, data, .. } => {
                let inode = self.temp_open(root, dir, temp)?;
                self.fs.write_at(inode, offset, &data.0)?;
                Ok(DiskDone::Unit)
            }
            DiskOp::PatchTemp { temp, offset, from, stamp, delta, .. } => {
                let inode = self.temp_open(root, dir, temp)?;
                let made = self.patched(dir, &from, stamp, &delta.0)?;
                self.fs.write_at(inode, offset, &made)?;
                Ok(DiskDone::Unit)
            }
            DiskOp::FlushTemp { temp, .. } => {
                let inode = self.temp_open(root, dir, temp)?;
                self.fs.flush(inode);
                Ok(DiskDone::Unit)
            }
            DiskOp::FinishTemp { temp, mode, mtime_ns, .. } => {
                let inode = self.temp_open(root, dir, temp)?;
                self.open(root)?.temps.remove(&temp);
                let sha256 = self.fs.sha256(inode)?;
                self.fs.set_meta(inode, Some(mode.unwrap_or(0o666 & !UMASK) & MODE_BITS), mtime_ns);
                Ok(DiskDone::Staged(vec![Ok(Staged { sha256, stamp: self.fs.stamp(inode) })]))
            }
            DiskOp::RemoveTemps { temps, .. } => {
                self.remove_temps(root, dir, |temp| temps.contains(&temp))?;
                Ok(DiskDone::Unit)
            }
            DiskOp::SweepTemps { keep, .. } => {
                self.remove_temps(root, dir, |temp| !keep.contains(&temp))?;
                let there = keep.into_iter().filter(|temp| self.has_temp(dir, *temp)).collect();
                Ok(DiskDone::Swept { there, emptied: self.mark_temps(dir)? })
            }
            DiskOp::Flush { .. } => {
                self.flushes += 1;
                self.fs.flush_all();
                Ok(DiskDone::Unit)
            }
            DiskOp::Install { items, .. } => {
                Ok(DiskDone::Stamps(items.iter().map(|item| self.install(dir, item)).collect()))
            }
            DiskOp::MakeDirs { dirs, .. } => Ok(DiskDone::Made(
                dirs.iter().map(|(path, mode)| self.make_dir(root, dir, path, *mode)).collect(),
            )),
            DiskOp::Rename { from, to, stamp, .. } => {
                Ok(DiskDone::Stamps(vec![self.rename(dir, &from, &to, stamp)]))
            }
            DiskOp::Remove { items, .. } => {
                Ok(DiskDone::Removed(items.iter().map(|item| self.remove(dir, item)).collect()))
            }
            DiskOp::SetMeta { items, .. } => {
                Ok(DiskDone::Stamps(items.iter().map(|item| self.set_meta(dir, item)).collect()))
            }
            DiskOp::ListArchive { limit, .. } => Ok(DiskDone::Archived(self.list_archive(dir, limit))),
            DiskOp::RestoreArchived { folder, path, to, .. } => {
                Ok(DiskDone::Stamps(vec![self.restore(dir, &folder, &path, &to)]))
            }
            DiskOp::CheckArchived { files, .. } => {
                Ok(DiskDone::Checked(files.iter().map(|file| self.check_archived(dir, file)).collect()))
            }
            DiskOp::TakeArchived { folder, path, to, .. } => {
                Ok(DiskDone::Stamps(vec![self.take_archived(dir, &folder, &path, &to)]))
            }
            DiskOp::PruneArchive { before, .. } => self.prune(dir, &before),
            DiskOp::Space { .. } => {
                let total = self.fs.capacity;
                Ok(DiskDone::Space { free: total.saturating_sub(self.fs.used()), total })
            }
        }
    }

    /// The program ends: what it held open is closed, and what it knew is gone.
    pub fn close_all(&mut self) {
        for root in self.roots.keys().copied().collect::<Vec<_>>() {
            self.close_root(root);
        }
        self.hints.clear();
    }

    /// The machine loses its power, as [`Fs::tear`] says.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        self.close_all();
        self.fs.tear(rng);
    }

    /// Whether there is anything for the watcher to tell.
    pub fn has_hints(&self) -> bool {
        !self.hints.is_empty() || self.roots.values().any(|root| root.watches.has_news())
    }

    /// What the watcher saw since the last call.
    pub fn take_hints(&mut self) -> Vec<Hint> {
        self.poll_hints(|| false)
    }

    /// As [`SimDisk::take_hints`], where what `is_lost` says is lost, and only that is told.
    pub fn poll_hints(&mut self, mut is_lost: impl FnMut() -> bool) -> Vec<Hint> {
        let mut hints = std::mem::take(&mut self.hints);
        for (id, root) in &mut self.roots {
            root.watches.poll((*id, root.dir), &self.fs, &mut is_lost, &mut hints);
        }
        hints
    }

    /// The watcher loses what it did not tell.
    pub(super) fn lose_hints(&mut self) {
        self.hints.clear();
        self.roots.values_mut().for_each(|root| root.watches.lose());
    }

    /// Adds a hint, right or wrong.
    pub fn hint(&mut self, hint: Hint) {
        if self.hints.last() != Some(&hint) {
            self.hints.push(hint);
        }
    }

    /// The roots that are open.
    pub fn open_roots(&self) -> Vec<RootId> {
        self.roots.keys().copied().collect()
    }

    /// A name in a directory came, went or changed: every root that watches the directory hears of it, and what is seen
    /// there now is kept in [`SimDisk::shown`].
    pub(super) fn touched(&mut self, dir: u64, name: &[u8]) {
        self.show(dir, name, Noticed::Changed);
    }

    /// As [`SimDisk::touched`], where what was written is closed, or the name came or went by a rename.
    pub(super) fn done(&mut self, dir: u64, name: &[u8]) {
        self.show(dir, name, Noticed::Done);
    }

    fn show(&mut self, dir: u64, name: &[u8], seen: Noticed) {
        let found = self.fs.child(dir, name).ok();
        let body = found.map(|inode| &self.fs.node(inode).body);
        if self.working
            && let Some(Body::File { data, .. }) = body
        {
            self.shown.push((String::from_utf8_lossy(name).into_owned(), Arc::clone(data)));
        }
        let sign = match body {
            Some(Body::Dir(_)) => Sign::DirCame,
            Some(_) => Sign::Changed,
            None => Sign::Left,
        };
        self.tell(dir, name, sign, seen);
    }

    /// The bits or times of what a directory has under a name changed.
    pub(super) fn altered(&mut self, dir: u64, name: &[u8]) {
        self.tell(dir, name, Sign::Changed, Noticed::Changed);
    }

    fn tell(&mut self, dir: u64, name: &[u8], sign: Sign, seen: Noticed) {
        let freed = self.fs.take_freed_dirs();
        for root in self.roots.values_mut() {
            freed.iter().for_each(|inode| root.watches.freed(*inode));
            root.watches.note(dir, name, sign, seen);
        }
    }

    /// An absolute path's inode.
    pub(super) fn absolute(&self, path: &str) -> Result<u64, DiskError> {
        if self.unplugged.iter().any(|gone| path == gone || path.starts_with(&format!("{gone}/"))) {
            return Err(DiskError::NotFound);
        }
        let names = path.split('/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(TOP, |dir, name| self.fs.child(dir, name.as_bytes()))
    }

    fn fail(&mut self, op: &'static str, path: Option<&RelPath>) -> Result<(), DiskError> {
        let meant = |fault: &&mut Fault| {
            fault.times > 0 && fault.op.is_none_or(|name| name == op) && fault.path.as_ref() == path
        };
        if let Some(fault) = self.faults.iter_mut().find(meant) {
            fault.times -= 1;
            let error = fault.error;
            self.faults.retain(|fault| fault.times > 0);
            return Err(error);
        }
        let Some(chaos) = self.chaos.as_mut().filter(|_| path.is_some()) else { return Ok(()) };
        if !chaos.rng.per_mille(chaos.per_mille) {
            return Ok(());
        }
        Err(chaos.rng.pick(&chaos.errors).copied().unwrap_or(DiskError::Io))
    }

    fn opened(&self, root: RootId) -> Result<u64, DiskError> {
        let open = self.roots.get(&root).ok_or(DiskError::RootMissing)?;
        let gone = self
            .unplugged
            .iter()
            .any(|gone| open.path == *gone || open.path.starts_with(&format!("{gone}/")));
        if gone { Err(DiskError::RootMissing) } else { Ok(open.dir) }
    }

    fn open(&mut self, root: RootId) -> Result<&mut Root, DiskError> {
        self.roots.get_mut(&root).ok_or(DiskError::RootMissing)
    }

    fn open_root(&mut self, root: RootId, path: String, create: bool) -> Result<DiskDone, DiskError> {
        self.close_root(root);
        let dir = match self.absolute(&path) {
            Err(DiskError::NotFound) if create && !self.unplugged.contains(&path) => {
                let names = path.split('/').filter(|name| !name.is_empty());
                let mut dir = TOP;
                for name in names {
                    dir = self.fs.make_dir(dir, name.as_bytes(), 0o777 & !UMASK)?.0;
                }
                dir
            }
            other => other?,
        };
        let names = self.fs.list(dir)?;
        let empty = names.iter().all(|name| name == PRIVATE);
        self.fs.pin(dir);
        let watches = Watches::new(dir);
        let open = Root { path: path.clone(), dir, walks: BTreeMap::new(), watches, temps: BTreeSet::new() };
        self.roots.insert(root, open);
        let grain = Duration::from_nanos(2 * GRAIN_NS as u64);
        Ok(DiskDone::Opened { marker: self.marker(dir), empty, path, grain })
    }

    fn close_root(&mut self, root: RootId) {
        let Some(closed) = self.roots.remove(&root) else { return };
        if self.roots.values().all(|open| open.dir != closed.dir) {
            self.fs.unpin(closed.dir);
        }
    }

    fn marker(&self, dir: u64) -> Option<Vec<u8>> {
        let inode = self.fs.resolve_names(dir, &[PRIVATE, b"share"]).ok()?;
        let data = self.fs.data(inode).ok()?;
        Some(data[..data.len().min(MARKER_BYTES_MAX)].to_vec())
    }

    fn write_marker(&mut self, dir: u64, marker: Vec<u8>) -> Result<DiskDone, DiskError> {
        let private = self.fs.make_dir(dir, PRIVATE, 0o700)?.0;
        if self.fs.make_dir(private, b"tmp", 0o700)?.1 {
            self.mark_temps(dir)?;
        }
        self.fs.make_dir(private, b"archive", 0o700)?;
        if self.fs.child(private, b"share").is_ok() {
            self.fs.remove(private, b"share")?;
        }
        let inode = self.fs.make(file_body(marker), 0o600)?;
        self.fs.attach(private, b"share", inode)?;
        self.fs.flush(inode);
        self.fs.sync_names();
        Ok(DiskDone::Unit)
    }

    fn remove_marker(&mut self, root: RootId, dir: u64) -> Result<DiskDone, DiskError> {
        self.remove_temps(root, dir, |_| true)?;
        match self.fs.child(dir, PRIVATE) {
            Ok(private) if self.fs.child(private, b"share").is_ok() => self.fs.remove(private, b"share")?,
            _ => {}
        }
        Ok(DiskDone::Unit)
    }

    fn expect(&self, inode: u64, wanted: &Stamp) -> Result<(), DiskError> {
        let found = self.fs.stamp(inode);
        let same = found.kind == wanted.kind
            && (found.kind == Kind::Dir
                || (found.size, found.mtime_ns, found.inode) == (wanted.size, wanted.mtime_ns, wanted.inode));
        if same { Ok(()) } else { Err(DiskError::Changed) }
    }

    fn temps_dir(&self, dir: u64) -> Result<u64, DiskError> {
        self.fs.resolve_names(dir, &[PRIVATE, b"tmp"])
    }

    /// The directory for temps; made anew where only it is gone.
    fn make_temps_dir(&mut self, dir: u64) -> Result<u64, DiskError> {
        let private = self.fs.resolve_names(dir, &[PRIVATE])?;
        Ok(self.fs.make_dir(private, b"tmp", 0o700)?.0)
    }
}
