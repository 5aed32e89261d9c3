//! A machine's file system in memory: inodes, directories, permission bits and time stamps with a coarse grain.
//! Knows nothing of shares; [`SimDisk`](super::SimDisk) is built on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::Sha256;
use clearskies_core::io::DiskError;
use clearskies_core::io::disk::{Kind, Stamp};

use super::Rng;
use journal::Undo;

mod journal;

/// The inode of `/`.
pub const TOP: u64 = 2;
/// Time stamps of files move in steps of this, as a kernel's do (one tick of 250 Hz).
pub const GRAIN_NS: i64 = 4_000_000;
/// What is taken from the permission bits of what is made without any.
pub const UMASK: u32 = 0o022;

/// What an inode holds.
#[derive(Clone, Debug)]
pub enum Body {
    /// A regular file.
    File {
        /// The bytes.
        data: Arc<Vec<u8>>,
        /// Their digest, once somebody asked.
        sha256: Option<Sha256>,
        /// Whether they would survive a power cut.
        flushed: bool,
    },
    /// A directory: names and inodes.
    Dir(BTreeMap<Vec<u8>, u64>),
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// A pipe.
    Other,
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it holds.
    pub body: Body,
    /// Permission bits.
    pub mode: u32,
    /// Last change of the content.
    pub mtime_ns: i64,
    /// Last change of the inode.
    pub ctime_ns: i64,
    /// The directory that holds it, by the name that it got last if it has several; its own number where none does.
    pub parent: u64,
    /// How many names it has; only a file has more than one.
    pub names: u32,
}

/// A file system.
#[derive(Clone, Debug)]
pub struct Fs {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Inodes that became free, used again last in first out, as ext4 does.
    free: Vec<u64>,
    /// Directories that somebody holds open: not used again while they are.
    pinned: BTreeSet<u64>,
    /// Directories that were freed since somebody asked.
    freed_dirs: Vec<u64>,
    now_ns: i64,
    used: u64,
    /// Changes of names that a power cut may take back, oldest first.
    journal: Vec<Undo>,
    /// Bytes that fit.
    pub capacity: u64,
}

impl Default for Fs {
    fn default() -> Fs {
        let body = Body::Dir(BTreeMap::new());
        let top = Node { body, mode: 0o755, mtime_ns: 0, ctime_ns: 0, parent: TOP, names: 1 };
        Fs {
            nodes: BTreeMap::from([(TOP, top)]),
            next: TOP + 1,
            free: Vec::new(),
            pinned: BTreeSet::new(),
            freed_dirs: Vec::new(),
            now_ns: 0,
            used: 0,
            journal: Vec::new(),
            capacity: 1 << 40,
        }
    }
}

impl Fs {
    /// Sets the time of what happens next; it moves in steps of [`GRAIN_NS`].
    pub fn set_now(&mut self, wall_ns: i64) {
        self.now_ns = wall_ns - wall_ns.rem_euclid(GRAIN_NS);
    }

    /// Bytes in files.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// An inode that is known to exist.
    pub fn node(&self, inode: u64) -> &Node {
        self.nodes.get(&inode).expect("an inode that a directory or a root names exists")
    }

    fn node_mut(&mut self, inode: u64) -> &mut Node {
        self.nodes.get_mut(&inode).expect("an inode that a directory or a root names exists")
    }

    /// Keeps an inode from being used again, until [`Fs::unpin`].
    pub fn pin(&mut self, inode: u64) {
        self.pinned.insert(inode);
    }

    /// The opposite of [`Fs::pin`].
    pub fn unpin(&mut self, inode: u64) {
        self.pinned.remove(&inode);
    }

    /// What an inode is, without reading it.
    pub fn stamp(&self, inode: u64) -> Stamp {
        let node = self.node(inode);
        let (kind, size) = match &node.body {
            Body::File { data, .. } => (Kind::File, data.len() as u64),
            Body::Link(target) => (Kind::Link, target.len() as u64),
            Body::Other => (Kind::Other, 0),
            Body::Dir(_) => {
                return Stamp { kind: Kind::Dir, size: 0, mtime_ns: 0, ctime_ns: 0, inode, mode: node.mode };
            }
        };
        Stamp { kind, size, mtime_ns: node.mtime_ns, ctime_ns: node.ctime_ns, inode, mode: node.mode }
    }

    /// A directory's names, if it is one and may be listed.
    pub fn list(&self, dir: u64) -> Result<Vec<Vec<u8>>, DiskError> {
        let node = self.node(dir);
        match &node.body {
            Body::Dir(_) if node.mode & 0o500 != 0o500 => Err(DiskError::Denied),
            Body::Dir(names) => Ok(names.keys().cloned().collect()),
            _ => Err(DiskError::WrongKind),
        }
    }

    /// One name of a directory. A link on the way is never followed: one in place of the directory is none.
    pub fn child(&self, dir: u64, name: &[u8]) -> Result<u64, DiskError> {
        let node = self.node(dir);
        match &node.body {
            Body::Dir(_) if node.mode & 0o100 == 0 => Err(DiskError::Denied),
            Body::Dir(names) => names.get(name).copied().ok_or(DiskError::NotFound),
            Body::Link(_) | Body::File { .. } | Body::Other => Err(DiskError::WrongKind),
        }
    }

    /// A path beneath a directory.
    pub fn resolve(&self, start: u64, path: &RelPath) -> Result<u64, DiskError> {
        path.components().try_fold(start, |dir, name| self.child(dir, name.as_bytes()))
    }

    /// Names beneath a directory.
    pub fn resolve_names(&self, start: u64, names: &[&[u8]]) -> Result<u64, DiskError> {
        names.iter().try_fold(start, |dir, name| self.child(dir, name))
    }

    /// The directory of a path beneath a directory; the path is not the root.
    pub fn resolve_parent(&self, start: u64, path: &RelPath) -> Result<u64, DiskError> {
        let parent = path.parent().ok_or(DiskError::Denied)?;
        let dir = self.resolve(start, &parent)?;
        match &self.node(dir).body {
            Body::Dir(_) => Ok(dir),
            _ => Err(DiskError::WrongKind),
        }
    }

    /// The name of an inode in its directory, if it has one.
    fn name_of(&self, inode: u64) -> Option<&[u8]> {
        match &self.node(self.node(inode).parent).body {
            Body::Dir(names) => {
                names.iter().find(|(_, child)| **child == inode).map(|(name, _)| name.as_slice())
            }
            _ => None,
        }
    }

    /// The directory of an inode and its name there, if it has one.
    pub fn place_of(&self, inode: u64) -> Option<(u64, Vec<u8>)> {
        let node = self.nodes.get(&inode)?;
        (node.parent != inode).then(|| Some((node.parent, self.name_of(inode)?.to_vec())))?
    }

    /// The path of an inode beneath a directory; `None` if it does not lie there, or cannot be named.
    pub fn path_beneath(&self, start: u64, inode: u64) -> Option<RelPath> {
        if inode == start {
            return Some(RelPath::root());
        }
        if inode == TOP || self.node(inode).parent == inode {
            return None;
        }
        let dir = self.path_beneath(start, self.node(inode).parent)?;
        dir.join(std::str::from_utf8(self.name_of(inode)?).ok()?)
    }

    /// Makes an inode that no directory names yet.
    pub fn make(&mut self, body: Body, mode: u32) -> Result<u64, DiskError> {
        if let Body::File { data, .. } = &body {
            self.account(0, data.len() as u64)?;
        }
        let inode = match self.free.pop() {
            Some(inode) => inode,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        let now_ns = self.now_ns;
        let node = Node { body, mode, mtime_ns: now_ns, ctime_ns: now_ns, parent: inode, names: 0 };
        self.nodes.insert(inode, node);
        self.journal.push(Undo::Made(inode));
        Ok(inode)
    }

    fn account(&mut self, before: u64, after: u64) -> Result<(), DiskError> {
        let used = self.used - before + after;
        if after > before && used > self.capacity {
            return Err(DiskError::NoSpace);
        }
        self.used = used;
        Ok(())
    }

    /// Names an inode in a directory, where nothing has that name.
    pub fn attach(&mut self, dir: u64, name: &[u8], inode: u64) -> Result<(), DiskError> {
        if name.len() > RelPath::NAME_LEN_MAX {
            return Err(DiskError::BadName);
        }
        let now_ns = self.now_ns;
        let node = self.node_mut(dir);
        if node.mode & 0o300 != 0o300 {
            return Err(DiskError::Denied);
        }
        let Body::Dir(names) = &mut node.body else { return Err(DiskError::WrongKind) };
        if names.contains_key(name) {
            return Err(DiskError::Exists);
        }
        names.insert(name.to_vec(), inode);
        node.mtime_ns = now_ns;
        self.named(inode, dir);
        self.node_mut(inode).ctime_ns = now_ns;
        self.journal.push(Undo::Attached(dir, name.to_vec()));
        Ok(())
    }

    /// Takes a name out of a directory; the inode stays, without a name.
    pub fn detach(&mut self, dir: u64, name: &[u8]) -> Result<u64, DiskError> {
        let now_ns = self.now_ns;
        let node = self.node_mut(dir);
        if node.mode & 0o300 != 0o300 {
            return Err(DiskError::Denied);
        }
        let Body::Dir(names) = &mut node.body else { return Err(DiskError::WrongKind) };
        let inode = names.remove(name).ok_or(DiskError::NotFound)?;
        node.mtime_ns = now_ns;
        self.unnamed(inode);
        self.node_mut(inode).ctime_ns = now_ns;
        self.journal.push(Undo::Detached(dir, name.to_vec(), inode));
        Ok(inode)
    }

    /// An inode got a name in a directory.
    fn named(&mut self, inode: u64, dir: u64) {
        let node = self.node_mut(inode);
        node.parent = dir;
        node.names += 1;
    }

    /// An inode lost a name. Where it has others, nobody knows any more in which directory.
    fn unnamed(&mut self, inode: u64) {
        let node = self.node_mut(inode);
        node.parent = inode;
        node.names -= 1;
    }

    /// Gives a file one more name (a hard link), where nothing has it.
    pub fn link(&mut self, inode: u64, to: (u64, &[u8])) -> Result<(), DiskError> {
        match self.node(inode).body {
            Body::File { .. } => self.attach(to.0, to.1, inode),
            _ => Err(DiskError::WrongKind),
        }
    }

    /// Renames, never over anything. A directory cannot go beneath itself.
    pub fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) -> Result<u64, DiskError> {
        let inode = self.child(from.0, from.1)?;
        let mut dir = to.0;
        while dir != TOP {
            if dir == inode {
                return Err(DiskError::WrongKind);
            }
            let parent = self.node(dir).parent;
            if parent == dir {
                break;
            }
            dir = parent;
        }
        match self.child(to.0, to.1) {
            Ok(_) => return Err(DiskError::Exists),
            Err(DiskError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let since = self.journal.len();
        self.detach(from.0, from.1)?;
        if let Err(error) = self.attach(to.0, to.1, inode) {
            self.attach(from.0, from.1, inode).expect("it was there a moment ago");
            self.together(since);
            return Err(error);
        }
        self.together(since);
        Ok(inode)
    }

    /// Frees an inode that has no name, and all beneath it.
    pub fn free(&mut self, inode: u64) {
        let freed = Box::new(self.node(inode).clone());
        self.journal.push(Undo::Freed(inode, freed));
        let children: Vec<u64> = match &mut self.node_mut(inode).body {
            Body::Dir(names) => {
                let names = std::mem::take(names);
                self.freed_dirs.push(inode);
                names.into_values().collect()
            }
            Body::File { data, .. } => {
                let len = data.len() as u64;
                self.used -= len;
                Vec::new()
            }
            _ => Vec::new(),
        };
        for child in children {
            self.unnamed(child);
            self.journal.push(Undo::Unnamed(child, inode));
            if self.node(child).names == 0 {
                self.free(child);
            }
        }
        if self.pinned.contains(&inode) {
            self.node_mut(inode).parent = inode;
        } else {
            self.nodes.remove(&inode);
            self.free.push(inode);
        }
    }

    /// The directories that were freed since the last call.
    pub fn take_freed_dirs(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.freed_dirs)
    }

    /// Takes a name out and frees what it named, unless that has another one.
    pub fn remove(&mut self, dir: u64, name: &[u8]) -> Result<(), DiskError> {
        let since = self.journal.len();
        let inode = self.detach(dir, name)?;
        if self.node(inode).names == 0 {
            self.free(inode);
        }
        self.together(since);
        Ok(())
    }

    /// Whether a directory is reachable from the top.
    pub fn is_attached(&self, mut inode: u64) -> bool {
        while inode != TOP {
            let parent = self.node(inode).parent;
            if parent == inode {
                return false;
            }
            inode = parent;
        }
        true
    }

    /// Whether a directory holds nothing.
    pub fn is_empty_dir(&self, inode: u64) -> bool {
        matches!(&self.node(inode).body, Body::Dir(names) if names.is_empty())
    }

    /// A directory made with all its parents.
    pub fn make_dirs(&mut self, start: u64, path: &RelPath, mode: u32) -> Result<u64, DiskError> {
        let mut dir = start;
        for name in path.components() {
            dir = self.make_dir(dir, name.as_bytes(), mode)?.0;
        }
        Ok(dir)
    }

    /// A directory that is there, or is made (then the answer's second part is true).
    pub fn make_dir(&mut self, dir: u64, name: &[u8], mode: u32) -> Result<(u64, bool), DiskError> {
        match self.child(dir, name) {
            Ok(inode) if matches!(self.node(inode).body, Body::Dir(_)) => Ok((inode, false)),
            Ok(_) => Err(DiskError::WrongKind),
            Err(DiskError::NotFound) => {
                let inode = self.make(Body::Dir(BTreeMap::new()), mode)?;
                match self.attach(dir, name, inode) {
                    Ok(()) => Ok((inode, true)),
                    Err(error) => {
                        self.free(inode);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// What a program gets that reads a file.
    pub fn data(&self, inode: u64) -> Result<Arc<Vec<u8>>, DiskError> {
        if matches!(self.node(inode).body, Body::File { .. }) && self.node(inode).mode & 0o400 == 0 {
            return Err(DiskError::Denied);
        }
        self.bytes(inode).ok_or(DiskError::WrongKind)
    }

    /// A file's bytes, also where nobody may read it: what is there, and not what a program gets.
    pub fn bytes(&self, inode: u64) -> Option<Arc<Vec<u8>>> {
        match &self.node(inode).body {
            Body::File { data, .. } => Some(Arc::clone(data)),
            _ => None,
        }
    }

    /// Changes a file's bytes in place.
    pub fn change(&mut self, inode: u64, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), DiskError> {
        let node = self.node_mut(inode);
        let Body::File { data, .. } = &node.body else { return Err(DiskError::WrongKind) };
        let before = data.len() as u64;
        let mut bytes = data.as_ref().clone();
        change(&mut bytes);
        self.account(before, bytes.len() as u64)?;
        let now_ns = self.now_ns;
        let node = self.node_mut(inode);
        node.body = Body::File { data: Arc::new(bytes), sha256: None, flushed: false };
        node.mtime_ns = now_ns;
        node.ctime_ns = now_ns;
        Ok(())
    }

    /// Overwrites a piece of a file in place, without the cost of [`Fs::change`].
    pub fn write_at(&mut self, inode: u64, offset: u64, piece: &[u8]) -> Result<(), DiskError> {
        let start = usize::try_from(offset).map_err(|_| DiskError::NoSpace)?;
        let Body::File { data, .. } = &self.node(inode).body else { return Err(DiskError::WrongKind) };
        let before = data.len();
        let after = before.max(start.checked_add(piece.len()).ok_or(DiskError::NoSpace)?);
        self.account(before as u64, after as u64)?;
        let now_ns = self.now_ns;
        let node = self.node_mut(inode);
        if let Body::File { data, sha256, flushed } = &mut node.body {
            let bytes = Arc::make_mut(data);
            bytes.resize(after, 0);
            bytes[start..start + piece.len()].copy_from_slice(piece);
            (*sha256, *flushed) = (None, false);
        }
        node.mtime_ns = now_ns;
        node.ctime_ns = now_ns;
        Ok(())
    }

    /// A file's digest.
    pub fn sha256(&mut self, inode: u64) -> Result<Sha256, DiskError> {
        let data = self.data(inode)?;
        let Body::File { sha256, .. } = &mut self.node_mut(inode).body else {
            return Err(DiskError::WrongKind);
        };
        Ok(*sha256.get_or_insert_with(|| digest(&data)))
    }

    /// Sets permission bits and time.
    pub fn set_meta(&mut self, inode: u64, mode: Option<u32>, mtime_ns: Option<i64>) {
        let now_ns = self.now_ns;
        let node = self.node_mut(inode);
        if mode.is_some() || mtime_ns.is_some() {
            node.ctime_ns = now_ns;
        }
        node.mode = mode.map_or(node.mode, |mode| mode & 0o7777);
        node.mtime_ns = mtime_ns.unwrap_or(node.mtime_ns);
    }

    /// A write that leaves no trace in the time stamp's grain, as a clock set back does.
    pub fn set_ctime(&mut self, inode: u64, ctime_ns: i64) {
        self.node_mut(inode).ctime_ns = ctime_ns;
    }

    /// Makes one file's bytes safe.
    pub fn flush(&mut self, inode: u64) {
        if let Body::File { flushed, .. } = &mut self.node_mut(inode).body {
            *flushed = true;
        }
    }

    /// Makes all bytes and names safe.
    pub fn flush_all(&mut self) {
        self.sync_names();
        for node in self.nodes.values_mut() {
            if let Body::File { flushed, .. } = &mut node.body {
                *flushed = true;
            }
        }
    }

    /// A power cut: the newest names go, and each file that was not flushed holds all, a part or none of its bytes, or
    /// zeros in place of the rest.
    pub fn tear(&mut self, rng: &mut Rng) {
        self.lose_names(rng);
        for node in self.nodes.values_mut() {
            let Body::File { data, sha256, flushed } = &mut node.body else { continue };
            if *flushed {
                continue;
            }
            let keep = usize::try_from(rng.below(data.len() as u64 + 1)).expect("no more than a length");
            let mut bytes = data.as_ref().clone();
            match rng.below(4) {
                0 => {}
                1 => bytes.clear(),
                2 => bytes.truncate(keep),
                _ => bytes[keep..].fill(0),
            }
            self.used = self.used - data.len() as u64 + bytes.len() as u64;
            *data = Arc::new(bytes);
            (*sha256, *flushed) = (None, true);
        }
    }
}

/// SHA-256 of some bytes.
pub fn digest(bytes: &[u8]) -> Sha256 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Sha256::from_slice(digest.as_ref()).expect("SHA-256 has 32 bytes")
}
