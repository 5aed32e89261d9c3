//! The disk pool of a simulated machine: carries out every `DiskOp` as `core/src/io/disk.rs` states it, on a file
//! system in memory, with faults on demand. What users do to the same files is in `users.rs`.

use std::collections::{BTreeMap, BTreeSet};

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::disk::{
    Archived, Bytes, DiskDone, DiskError, DiskOp, Entry, Hashed, HashedContent, Install, Kind, Read, Remove,
    SetMeta, Stage, StageContent, Staged, Stamp,
};

use super::fs::{Body, Fs, TOP, UMASK, digest};
use super::rng::Rng;

/// A marker is read up to here.
const MARKER_BYTES_MAX: usize = 4096;
const PRIVATE: &[u8] = b".clearskies";

/// A hint of the watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something at or beneath this path may have changed.
    Changed(RootId, RelPath),
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

#[derive(Debug)]
struct Root {
    path: String,
    dir: u64,
    walks: BTreeMap<u64, Vec<Frame>>,
    watched: BTreeSet<u64>,
    temps: BTreeSet<TempId>,
}

/// A directory of a walk, and the names in it that are still to come, last first.
#[derive(Debug)]
struct Frame {
    dir: RelPath,
    names: Vec<Vec<u8>>,
}

/// A machine's disk.
#[derive(Debug, Default)]
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
    roots: BTreeMap<RootId, Root>,
    hints: Vec<Hint>,
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
                self.on_root(root, dir, op)
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
            DiskOp::Stage { files, .. } => {
                Ok(DiskDone::Staged(files.into_iter().map(|file| self.stage(dir, file)).collect()))
            }
            DiskOp::OpenTemp { temp, .. } => self.open_temp(root, dir, temp),
            DiskOp::WriteTemp { temp, offset, data, .. } => {
                let inode = self.temp_open(root, dir, temp)?;
                self.fs.write_at(inode, offset, &data.0)?;
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
                self.fs.set_meta(inode, Some(mode.unwrap_or(0o666 & !UMASK)), mtime_ns);
                Ok(DiskDone::Staged(vec![Ok(Staged { sha256, stamp: self.fs.stamp(inode) })]))
            }
            DiskOp::RemoveTemps { temps, .. } => {
                self.remove_temps(root, dir, |temp| temps.contains(&temp))?;
                Ok(DiskDone::Unit)
            }
            DiskOp::SweepTemps { keep, .. } => {
                self.remove_temps(root, dir, |temp| !keep.contains(&temp))?;
                Ok(DiskDone::Unit)
            }
            DiskOp::Flush { .. } => {
                self.fs.flush_all();
                Ok(DiskDone::Unit)
            }
            DiskOp::Install { items, .. } => {
                Ok(DiskDone::Stamps(items.iter().map(|item| self.install(dir, item)).collect()))
            }
            DiskOp::MakeDirs { dirs, .. } => Ok(DiskDone::Stamps(
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

    /// The hints since the last call.
    pub fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.hints)
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

    /// A name in a directory changed: every root that watches the directory hears of it.
    pub(super) fn touched(&mut self, dir: u64, name: &[u8]) {
        let mut hints = Vec::new();
        for (id, root) in self.roots.iter().filter(|(_, root)| root.watched.contains(&dir)) {
            let Some(path) = self.fs.path_beneath(root.dir, dir) else { continue };
            if name == PRIVATE {
                continue;
            }
            let path = std::str::from_utf8(name).ok().and_then(|name| path.join(name)).unwrap_or(path);
            hints.push(Hint::Changed(*id, path));
        }
        hints.into_iter().for_each(|hint| self.hint(hint));
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
        let watched = BTreeSet::from([dir]);
        let open = Root { path: path.clone(), dir, walks: BTreeMap::new(), watched, temps: BTreeSet::new() };
        self.roots.insert(root, open);
        Ok(DiskDone::Opened { marker: self.marker(dir), empty, path })
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
        self.fs.make_dir(private, b"tmp", 0o700)?;
        self.fs.make_dir(private, b"archive", 0o700)?;
        if self.fs.child(private, b"share").is_ok() {
            self.fs.remove(private, b"share")?;
        }
        let inode = self.fs.make(file_body(marker), 0o600)?;
        self.fs.attach(private, b"share", inode)?;
        self.fs.flush(inode);
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

    fn walk(&mut self, root: RootId, walk: u64, start: RelPath, limit: u32) -> Result<DiskDone, DiskError> {
        let dir = self.opened(root)?;
        let mut entries = Vec::new();
        let mut unobserved = Vec::new();
        let mut unusable = Vec::new();
        let mut frames = match self.open(root)?.walks.remove(&walk) {
            Some(frames) => frames,
            None => {
                let mut frames = Vec::new();
                if let Err(error) = self.enter(root, dir, &start, &mut frames) {
                    unobserved.push((start, error));
                }
                frames
            }
        };
        while entries.len() < limit as usize {
            let Some(frame) = frames.last_mut() else { break };
            let Some(name) = frame.names.pop() else {
                frames.pop();
                continue;
            };
            let Some(path) = std::str::from_utf8(&name).ok().and_then(|name| frame.dir.join(name)) else {
                unusable.push((frame.dir.clone(), String::from_utf8_lossy(&name).into_owned()));
                continue;
            };
            // Gone since its directory was listed: the hint of that follows.
            let Ok(inode) = self.fs.resolve(dir, &path) else { continue };
            let stamp = self.fs.stamp(inode);
            if stamp.kind == Kind::Dir
                && let Err(error) = self.enter(root, dir, &path, &mut frames)
            {
                unobserved.push((path.clone(), error));
            }
            entries.push(Entry { path, stamp });
        }
        let done = frames.iter().all(|frame| frame.names.is_empty());
        if !done {
            self.open(root)?.walks.insert(walk, frames);
        }
        Ok(DiskDone::Walked { entries, unobserved, unusable, done })
    }

    /// Watches a directory, then lists it.
    fn enter(
        &mut self,
        root: RootId,
        top: u64,
        path: &RelPath,
        frames: &mut Vec<Frame>,
    ) -> Result<(), DiskError> {
        self.fail("walk", Some(path))?;
        let inode = self.fs.resolve(top, path)?;
        self.open(root)?.watched.insert(inode);
        let mut names = self.fs.list(inode)?;
        names.retain(|name| name != PRIVATE);
        names.reverse();
        frames.push(Frame { dir: path.clone(), names });
        Ok(())
    }

    fn stat(&mut self, dir: u64, path: &RelPath) -> Result<Stamp, DiskError> {
        self.fail("stat", Some(path))?;
        Ok(self.fs.stamp(self.fs.resolve(dir, path)?))
    }

    fn hash(&mut self, dir: u64, path: &RelPath) -> Result<Hashed, DiskError> {
        self.fail("hash", Some(path))?;
        self.hash_inode(self.fs.resolve(dir, path)?)
    }

    fn hash_inode(&mut self, inode: u64) -> Result<Hashed, DiskError> {
        let content = match &self.fs.node(inode).body {
            Body::File { .. } => {
                self.hashes += 1;
                HashedContent::File(self.fs.sha256(inode)?)
            }
            Body::Link(target) => {
                let target = String::from_utf8(target.clone()).map_err(|_| DiskError::BadName)?;
                HashedContent::Link(target)
            }
            Body::Dir(_) => HashedContent::Dir,
            Body::Other => return Err(DiskError::WrongKind),
        };
        Ok(Hashed { stamp: self.fs.stamp(inode), content })
    }

    fn read(&mut self, dir: u64, read: &Read) -> Result<Bytes, DiskError> {
        self.fail("read", Some(&read.path))?;
        let inode = self.fs.resolve(dir, &read.path)?;
        self.expect(inode, &read.stamp)?;
        let data = self.fs.data(inode)?;
        let start = usize::try_from(read.offset).unwrap_or(usize::MAX).min(data.len());
        let end = start.saturating_add(read.len as usize).min(data.len());
        Ok(Bytes(data[start..end].to_vec()))
    }

    /// Whether an inode is in the state that was expected: kind, and unless it is a directory size, time, inode.
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

    fn stage(&mut self, dir: u64, file: Stage) -> Result<Staged, DiskError> {
        let temps = self.temps_dir(dir)?;
        let name = temp_name(file.temp);
        let (body, sha256, is_link) = match file.content {
            StageContent::File(bytes) => {
                let sha256 = digest(&bytes);
                (file_body(bytes), sha256, false)
            }
            StageContent::Link(target) => {
                let sha256 = digest(target.as_bytes());
                (Body::Link(target.into_bytes()), sha256, true)
            }
            StageContent::Copy { from, stamp } => {
                self.fail("stage", Some(&from))?;
                let inode = self.fs.resolve(dir, &from)?;
                self.expect(inode, &stamp)?;
                let data = self.fs.data(inode)?;
                let sha256 = self.fs.sha256(inode)?;
                (Body::File { data, sha256: Some(sha256), flushed: false }, sha256, false)
            }
        };
        if self.fs.child(temps, &name).is_ok() {
            self.fs.remove(temps, &name)?;
        }
        let mode = if is_link { 0o777 } else { file.mode.unwrap_or(0o666 & !UMASK) };
        let inode = self.fs.make(body, mode)?;
        self.fs.attach(temps, &name, inode)?;
        self.fs.set_meta(inode, None, file.mtime_ns);
        Ok(Staged { sha256, stamp: self.fs.stamp(inode) })
    }

    fn open_temp(&mut self, root: RootId, dir: u64, temp: TempId) -> Result<DiskDone, DiskError> {
        let temps = self.temps_dir(dir)?;
        let name = temp_name(temp);
        let existing = match self.fs.child(temps, &name) {
            Ok(inode) => self.fs.data(inode)?.len() as u64,
            Err(_) => {
                let inode = self.fs.make(file_body(Vec::new()), 0o600)?;
                self.fs.attach(temps, &name, inode)?;
                0
            }
        };
        self.open(root)?.temps.insert(temp);
        Ok(DiskDone::TempOpened { existing })
    }

    fn temp_open(&mut self, root: RootId, dir: u64, temp: TempId) -> Result<u64, DiskError> {
        if !self.open(root)?.temps.contains(&temp) {
            return Err(DiskError::NotFound);
        }
        self.fs.child(self.temps_dir(dir)?, &temp_name(temp))
    }

    fn remove_temps(
        &mut self,
        root: RootId,
        dir: u64,
        gone: impl Fn(TempId) -> bool,
    ) -> Result<(), DiskError> {
        let Ok(temps) = self.temps_dir(dir) else { return Ok(()) };
        for name in self.fs.list(temps)? {
            if temp_id(&name).is_none_or(&gone) {
                self.fs.remove(temps, &name)?;
            }
        }
        self.open(root)?.temps.retain(|temp| !gone(*temp));
        Ok(())
    }

    fn install(&mut self, dir: u64, item: &Install) -> Result<Stamp, DiskError> {
        self.fail("install", Some(&item.path))?;
        let temps = self.temps_dir(dir)?;
        let name = temp_name(item.temp);
        let inode = self.fs.child(temps, &name)?;
        let parent = self.fs.resolve_parent(dir, &item.path)?;
        let place = item.path.name().as_bytes();
        if let Some(stamp) = &item.replaces {
            let old = self.fs.child(parent, place)?;
            self.expect(old, stamp)?;
            if stamp.kind == Kind::File && self.fs.stamp(old).mode != stamp.mode {
                return Err(DiskError::Changed);
            }
            self.put_away(dir, parent, &item.path, item.archive.as_deref())?;
        } else if self.fs.child(parent, place).is_ok() {
            return Err(DiskError::Exists);
        }
        self.fs.rename((temps, &name), (parent, place))?;
        self.touched(parent, place);
        Ok(self.fs.stamp(inode))
    }

    /// Moves a file or link to the archive, or drops it.
    fn put_away(
        &mut self,
        dir: u64,
        parent: u64,
        path: &RelPath,
        archive: Option<&str>,
    ) -> Result<(), DiskError> {
        let place = path.name().as_bytes();
        let Some(folder) = archive else {
            return self.fs.remove(parent, place);
        };
        let private = self.fs.make_dir(dir, PRIVATE, 0o700)?.0;
        let archive = self.fs.make_dir(private, b"archive", 0o700)?.0;
        // One path twice in one folder: the second gets a folder beside it, so that neither is lost.
        for attempt in 0u32.. {
            let name = if attempt == 0 { folder.to_owned() } else { format!("{folder}~{attempt}") };
            let folder = self.fs.make_dir(archive, name.as_bytes(), 0o700)?.0;
            let above = path.parent().ok_or(DiskError::Denied)?;
            let Ok(target) = self.fs.make_dirs(folder, &above, 0o700) else { continue };
            match self.fs.rename((parent, place), (target, place)) {
                Err(DiskError::Exists) => {}
                done => return done.map(|_| ()),
            }
        }
        Err(DiskError::Io)
    }

    fn make_dir(
        &mut self,
        root: RootId,
        dir: u64,
        path: &RelPath,
        mode: Option<u32>,
    ) -> Result<Stamp, DiskError> {
        self.fail("make_dirs", Some(path))?;
        let parent = self.fs.resolve_parent(dir, path)?;
        let mode = mode.unwrap_or(0o777 & !UMASK);
        let (inode, made) = self.fs.make_dir(parent, path.name().as_bytes(), mode)?;
        self.open(root)?.watched.insert(inode);
        if made {
            self.touched(parent, path.name().as_bytes());
        }
        Ok(self.fs.stamp(inode))
    }

    fn rename(&mut self, dir: u64, from: &RelPath, to: &RelPath, stamp: Stamp) -> Result<Stamp, DiskError> {
        self.fail("rename", Some(from))?;
        let parent = self.fs.resolve_parent(dir, from)?;
        self.expect(self.fs.child(parent, from.name().as_bytes())?, &stamp)?;
        let target = self.fs.resolve_parent(dir, to)?;
        let inode = self.fs.rename((parent, from.name().as_bytes()), (target, to.name().as_bytes()))?;
        self.touched(parent, from.name().as_bytes());
        self.touched(target, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    fn remove(&mut self, dir: u64, item: &Remove) -> Result<(), DiskError> {
        self.fail("remove", Some(&item.path))?;
        let parent = self.fs.resolve_parent(dir, &item.path)?;
        let place = item.path.name().as_bytes();
        let inode = self.fs.child(parent, place)?;
        self.expect(inode, &item.stamp)?;
        if item.stamp.kind != Kind::Dir {
            self.put_away(dir, parent, &item.path, item.archive.as_deref())?;
        } else if self.fs.is_empty_dir(inode) {
            self.fs.remove(parent, place)?;
        } else {
            return Err(DiskError::NotEmpty);
        }
        self.touched(parent, place);
        Ok(())
    }

    fn set_meta(&mut self, dir: u64, item: &SetMeta) -> Result<Stamp, DiskError> {
        self.fail("set_meta", Some(&item.path))?;
        let inode = self.fs.resolve(dir, &item.path)?;
        self.expect(inode, &item.stamp)?;
        if item.stamp.kind != Kind::Link {
            self.fs.set_meta(inode, item.mode, item.mtime_ns);
            if let Ok(parent) = self.fs.resolve_parent(dir, &item.path) {
                self.touched(parent, item.path.name().as_bytes());
            }
        }
        Ok(self.fs.stamp(inode))
    }

    fn archive_dir(&self, dir: u64) -> Option<u64> {
        self.fs.resolve_names(dir, &[PRIVATE, b"archive"]).ok()
    }

    fn list_archive(&self, dir: u64, limit: u32) -> Vec<Archived> {
        let mut found = Vec::new();
        let Some(archive) = self.archive_dir(dir) else { return found };
        let folders = self.fs.list(archive).unwrap_or_default();
        for name in folders.into_iter().rev() {
            let Ok(folder) = self.fs.child(archive, &name) else { continue };
            let name = String::from_utf8_lossy(&name).into_owned();
            self.collect(folder, &RelPath::root(), &mut |path, stamp| {
                found.push(Archived { folder: name.clone(), path, stamp });
            });
        }
        found.truncate(limit as usize);
        found
    }

    /// Names every file and link beneath a directory, in preorder.
    pub(super) fn collect(&self, dir: u64, path: &RelPath, each: &mut impl FnMut(RelPath, Stamp)) {
        for name in self.fs.list(dir).unwrap_or_default() {
            let Some(path) = std::str::from_utf8(&name).ok().and_then(|name| path.join(name)) else {
                continue;
            };
            let Ok(inode) = self.fs.child(dir, &name) else { continue };
            match self.fs.stamp(inode) {
                stamp if stamp.kind == Kind::Dir => self.collect(inode, &path, each),
                stamp => each(path, stamp),
            }
        }
    }

    fn restore(&mut self, dir: u64, folder: &str, path: &RelPath, to: &RelPath) -> Result<Stamp, DiskError> {
        self.fail("restore", Some(to))?;
        let archive = self.archive_dir(dir).ok_or(DiskError::NotFound)?;
        let source = self.fs.resolve(self.fs.child(archive, folder.as_bytes())?, path)?;
        let node = self.fs.node(source).clone();
        let above = to.parent().ok_or(DiskError::Denied)?;
        let parent = self.fs.make_dirs(dir, &above, 0o777 & !UMASK)?;
        if self.fs.child(parent, to.name().as_bytes()).is_ok() {
            return Err(DiskError::Exists);
        }
        let inode = self.fs.make(node.body, node.mode)?;
        self.fs.attach(parent, to.name().as_bytes(), inode)?;
        self.touched(parent, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    fn archived(&self, dir: u64, folder: &str, path: &RelPath) -> Result<(u64, u64), DiskError> {
        let archive = self.archive_dir(dir).ok_or(DiskError::NotFound)?;
        let place = self.fs.resolve_parent(self.fs.child(archive, folder.as_bytes())?, path)?;
        Ok((place, self.fs.child(place, path.name().as_bytes())?))
    }

    fn check_archived(&mut self, dir: u64, file: &Archived) -> Result<Option<Hashed>, DiskError> {
        self.fail("check_archived", Some(&file.path))?;
        let (_, inode) = self.archived(dir, &file.folder, &file.path)?;
        if self.expect(inode, &file.stamp).is_ok() {
            return Ok(None);
        }
        self.hash_inode(inode).map(Some)
    }

    fn take_archived(
        &mut self,
        dir: u64,
        folder: &str,
        path: &RelPath,
        to: &RelPath,
    ) -> Result<Stamp, DiskError> {
        self.fail("take_archived", Some(to))?;
        let (place, inode) = self.archived(dir, folder, path)?;
        if self.fs.stamp(inode).kind != Kind::File {
            return Err(DiskError::WrongKind);
        }
        let above = to.parent().ok_or(DiskError::Denied)?;
        let parent = self.fs.make_dirs(dir, &above, 0o777 & !UMASK)?;
        self.fs.rename((place, path.name().as_bytes()), (parent, to.name().as_bytes()))?;
        self.touched(parent, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    fn prune(&mut self, dir: u64, before: &str) -> Result<DiskDone, DiskError> {
        if let Some(archive) = self.archive_dir(dir) {
            for name in self.fs.list(archive)? {
                if name.as_slice() < before.as_bytes() {
                    self.fs.remove(archive, &name)?;
                }
            }
        }
        Ok(DiskDone::Unit)
    }
}

/// A new file that is not flushed.
fn file_body(bytes: Vec<u8>) -> Body {
    Body::File { data: bytes.into(), sha256: None, flushed: false }
}

fn temp_name(temp: TempId) -> Vec<u8> {
    format!("{:016x}", temp.0).into_bytes()
}

fn temp_id(name: &[u8]) -> Option<TempId> {
    u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok().map(TempId)
}

/// An operation's name, for logs and faults.
pub fn op_name(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::OpenRoot { .. } => "open_root",
        DiskOp::CloseRoot { .. } => "close_root",
        DiskOp::WriteMarker { .. } => "write_marker",
        DiskOp::RemoveMarker { .. } => "remove_marker",
        DiskOp::CheckRoot { .. } => "check_root",
        DiskOp::Walk { .. } => "walk",
        DiskOp::EndWalk { .. } => "end_walk",
        DiskOp::Stat { .. } => "stat",
        DiskOp::Hash { .. } => "hash",
        DiskOp::Read { .. } => "read",
        DiskOp::Stage { .. } => "stage",
        DiskOp::OpenTemp { .. } => "open_temp",
        DiskOp::WriteTemp { .. } => "write_temp",
        DiskOp::FlushTemp { .. } => "flush_temp",
        DiskOp::FinishTemp { .. } => "finish_temp",
        DiskOp::RemoveTemps { .. } => "remove_temps",
        DiskOp::SweepTemps { .. } => "sweep_temps",
        DiskOp::Flush { .. } => "flush",
        DiskOp::Install { .. } => "install",
        DiskOp::MakeDirs { .. } => "make_dirs",
        DiskOp::Rename { .. } => "rename",
        DiskOp::Remove { .. } => "remove",
        DiskOp::SetMeta { .. } => "set_meta",
        DiskOp::ListArchive { .. } => "list_archive",
        DiskOp::RestoreArchived { .. } => "restore",
        DiskOp::CheckArchived { .. } => "check_archived",
        DiskOp::TakeArchived { .. } => "take_archived",
        DiskOp::PruneArchive { .. } => "prune",
        DiskOp::Space { .. } => "space",
    }
}

/// Whether an operation may change what users see, or write content.
pub fn changes_files(op: &DiskOp) -> bool {
    matches!(
        op,
        DiskOp::Stage { .. }
            | DiskOp::WriteTemp { .. }
            | DiskOp::Install { .. }
            | DiskOp::MakeDirs { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::SetMeta { .. }
            | DiskOp::RestoreArchived { .. }
            | DiskOp::TakeArchived { .. }
            | DiskOp::WriteMarker { .. }
    )
}

/// The temp whose writes must stay in order.
pub fn temp_of(op: &DiskOp) -> Option<TempId> {
    match op {
        DiskOp::OpenTemp { temp, .. }
        | DiskOp::WriteTemp { temp, .. }
        | DiskOp::FlushTemp { temp, .. }
        | DiskOp::FinishTemp { temp, .. } => Some(*temp),
        _ => None,
    }
}

/// The root that an operation is about.
pub fn root_of(op: &DiskOp) -> RootId {
    match op {
        DiskOp::OpenRoot { root, .. }
        | DiskOp::CloseRoot { root }
        | DiskOp::WriteMarker { root, .. }
        | DiskOp::RemoveMarker { root }
        | DiskOp::CheckRoot { root }
        | DiskOp::Walk { root, .. }
        | DiskOp::EndWalk { root, .. }
        | DiskOp::Stat { root, .. }
        | DiskOp::Hash { root, .. }
        | DiskOp::Read { root, .. }
        | DiskOp::Stage { root, .. }
        | DiskOp::OpenTemp { root, .. }
        | DiskOp::WriteTemp { root, .. }
        | DiskOp::FlushTemp { root, .. }
        | DiskOp::FinishTemp { root, .. }
        | DiskOp::RemoveTemps { root, .. }
        | DiskOp::SweepTemps { root, .. }
        | DiskOp::Flush { root }
        | DiskOp::Install { root, .. }
        | DiskOp::MakeDirs { root, .. }
        | DiskOp::Rename { root, .. }
        | DiskOp::Remove { root, .. }
        | DiskOp::SetMeta { root, .. }
        | DiskOp::ListArchive { root, .. }
        | DiskOp::RestoreArchived { root, .. }
        | DiskOp::CheckArchived { root, .. }
        | DiskOp::TakeArchived { root, .. }
        | DiskOp::PruneArchive { root, .. }
        | DiskOp::Space { root } => *root,
    }
}
