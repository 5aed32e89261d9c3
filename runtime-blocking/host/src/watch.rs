//! Watching directories: hints that something may have changed (sync.md, "Scanning").
//!
//! A hint is never more than a hint; what is true is read from the disk. Owns the table of watches, and reads no
//! file.

use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::Noticed;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What a watcher has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something at or beneath this path may have changed.
    Hint {
        /// The root.
        root: RootId,
        /// The path.
        path: RelPath,
        /// What was seen there.
        seen: Noticed,
    },
    /// In this directory a name came or went that cannot be synced; the name as people can read it.
    Unusable {
        /// The root.
        root: RootId,
        /// The directory.
        dir: RelPath,
        /// The name.
        name: String,
        /// Whether it is there now.
        there: bool,
    },
    /// Hints of this root were lost, or the root itself was moved or removed: all of it is to be looked through.
    Overflow(RootId),
    /// The system watches no more directories for this user; told once. What is not watched is seen by scans only.
    Limit,
}

/// Watches directories. Shared by the threads that walk and the one that polls.
pub trait Watcher: Send + Sync {
    /// Begins with a root: `dir` is the open folder.
    fn add_root(&self, root: RootId, dir: BorrowedFd<'_>);

    /// Watches one directory, which is open. Its parents were added before. Whether it is watched now.
    fn add_dir(&self, root: RootId, path: &RelPath, dir: BorrowedFd<'_>) -> bool;

    /// Forgets a root with all that is beneath it.
    fn remove_root(&self, root: RootId);

    /// Hands over what was seen since the last call; does not wait.
    fn poll(&self, sink: &mut dyn FnMut(WatchEvent));

    /// How many watches there are.
    fn watches(&self) -> usize;
}

/// What [`WatchEvent::Limit`] means, for people.
pub const LIMIT_REACHED: &str = "Not every folder can be watched: the system's limit is reached. Changes there are \
                                 found by looking through the folders now and then. On Linux, raise \
                                 fs.inotify.max_user_watches.";

/// What is asked of the kernel.
const MASK: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Bytes of events read at once.
const EVENT_BYTES: usize = 16 * 1024;

/// At most this many events in one poll, so that a flood does not starve the caller.
const EVENTS_PER_POLL_MAX: usize = 16_384;

/// No node.
const NONE: u32 = u32::MAX;

/// Watching by inotify: one instance for all roots.
#[derive(Debug)]
pub struct Inotify {
    fd: OwnedFd,
    table: Mutex<Table>,
    /// Whether the kernel resolves beneath by itself, as for the disk.
    whole: AtomicBool,
}

/// One watched directory: a node of a tree, so that a moved directory takes its whole subtree along.
#[derive(Debug)]
struct Node {
    wd: i32,
    root: RootId,
    parent: u32,
    /// First of the directories in it; they are a list.
    child: u32,
    next: u32,
    previous: u32,
    /// Another node with the same watch: roots may lie within one another.
    twin: u32,
    name: Box<str>,
}

#[derive(Debug, Default)]
struct Table {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    by_wd: HashMap<i32, u32>,
    /// Parent and hash of the name → node.
    by_name: HashMap<(u32, u64), u32>,
    roots: HashMap<RootId, (u32, OwnedFd)>,
    hasher: RandomState,
    /// Watches without a node, not given back yet.
    stale: Vec<i32>,
    limit_hit: bool,
    limit_told: bool,
}

impl Table {
    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize).and_then(Option::as_ref)
    }

    fn node_mut(&mut self, id: u32) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize).and_then(Option::as_mut)
    }

    fn name_key(&self, parent: u32, name: &str) -> (u32, u64) {
        (parent, self.hasher.hash_one(name))
    }

    fn child(&self, parent: u32, name: &str) -> Option<u32> {
        let id = *self.by_name.get(&self.name_key(parent, name))?;
        self.node(id).filter(|node| *node.name == *name).map(|_| id)
    }

    fn find(&self, root: RootId, path: &RelPath) -> Option<u32> {
        let top = self.roots.get(&root)?.0;
        path.components().try_fold(top, |at, name| self.child(at, name))
    }

    /// The path of a node.
    fn path(&self, id: u32) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = self.node(id)?;
        while at.parent != NONE {
            names.push(&*at.name);
            at = self.node(at.parent)?;
        }
        names.iter().rev().try_fold(RelPath::root(), |path, name| path.join(name))
    }

    /// Puts a watch into the tree. A watch that this root has elsewhere moves, with all beneath it. Returns its node,
    /// and whether that is new.
    fn insert(&mut self, wd: i32, root: RootId, parent: u32, name: &str) -> (u32, bool) {
        let mut twin = self.by_wd.get(&wd).copied().unwrap_or(NONE);
        let first = twin;
        while let Some(node) = self.node(twin) {
            if node.root == root {
                if node.parent != parent || *node.name != *name {
                    self.move_to(twin, parent, name);
                }
                return (twin, false);
            }
            twin = node.twin;
        }
        // Whatever was known under this name is another directory.
        if let Some(old) = self.child(parent, name) {
            self.forget(old);
        }
        let node = Node {
            wd,
            root,
            parent: NONE,
            child: NONE,
            next: NONE,
            previous: NONE,
            twin: first,
            name: Box::from(name),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                // The kernel's watches are numbered by i32, so that nodes of a few roots fit.
                (self.nodes.len() - 1) as u32
            }
        };
        self.by_wd.insert(wd, id);
        self.link(id, parent);
        (id, true)
    }

    fn link(&mut self, id: u32, parent: u32) {
        let Some(above) = self.node_mut(parent) else { return };
        let next = std::mem::replace(&mut above.child, id);
        if let Some(next) = self.node_mut(next) {
            next.previous = id;
        }
        let Some(node) = self.node_mut(id) else { return };
        node.parent = parent;
        node.next = next;
        node.previous = NONE;
        let name = node.name.clone();
        let key = self.name_key(parent, &name);
        self.by_name.insert(key, id);
    }

    fn unlink(&mut self, id: u32) {
        let Some(node) = self.node_mut(id) else { return };
        let (parent, next, previous) = (node.parent, node.next, node.previous);
        (node.parent, node.next, node.previous) = (NONE, NONE, NONE);
        let name = node.name.clone();
        let key = self.name_key(parent, &name);
        if self.by_name.get(&key) == Some(&id) {
            self.by_name.remove(&key);
        }
        if let Some(next) = self.node_mut(next) {
            next.previous = previous;
        }
        match self.node_mut(previous) {
            Some(previous) => previous.next = next,
            None => {
                if let Some(above) = self.node_mut(parent) {
                    above.child = next;
                }
            }
        }
    }

    fn move_to(&mut self, id: u32, parent: u32, name: &str) {
        // A directory cannot be beneath itself; a table that says so is stale, and the walk that follows mends it.
        let mut above = parent;
        while let Some(node) = self.node(above) {
            if above == id {
                return;
            }
            above = node.parent;
        }
        self.unlink(id);
        if let Some(old) = self.child(parent, name) {
            self.forget(old);
        }
        if let Some(node) = self.node_mut(id) {
            node.name = Box::from(name);
        }
        self.link(id, parent);
    }

    /// Forgets a node and all beneath it; watches that nobody needs any more become stale.
    fn forget(&mut self, id: u32) {
        self.unlink(id);
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            let Some(node) = self.nodes.get_mut(id as usize).and_then(Option::take) else { continue };
            self.free.push(id);
            let key = self.name_key(node.parent, &node.name);
            if self.by_name.get(&key) == Some(&id) {
                self.by_name.remove(&key);
            }
            let mut child = node.child;
            while let Some(below) = self.node(child) {
                left.push(child);
                child = below.next;
            }
            self.drop_twin(node.wd, id, node.twin);
        }
    }

    fn drop_twin(&mut self, wd: i32, id: u32, twin: u32) {
        let Some(first) = self.by_wd.get(&wd).copied() else { return };
        if first == id {
            if twin == NONE {
                self.by_wd.remove(&wd);
                self.stale.push(wd);
            } else {
                self.by_wd.insert(wd, twin);
            }
            return;
        }
        let mut at = first;
        while let Some(node) = self.node_mut(at) {
            if node.twin == id {
                node.twin = twin;
                return;
            }
            at = node.twin;
        }
    }
}

impl Inotify {
    /// Starts watching nothing.
    ///
    /// # Errors
    /// The system gives no more inotify instances, or has none.
    pub fn new() -> std::io::Result<Inotify> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Inotify { fd, table: Mutex::default(), whole: AtomicBool::new(!cfg!(target_os = "android")) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the kernel; the table is locked, so that no event of a new watch is read before it is known.
    fn watch(&self, table: &mut Table, dir: BorrowedFd<'_>) -> Option<i32> {
        // By the descriptor: the path may name something else by now. The dot makes the link be followed.
        let path = format!("/proc/self/fd/{}/.", dir.as_raw_fd());
        match inotify::add_watch(&self.fd, path.as_str(), MASK) {
            Ok(wd) => Some(wd),
            Err(Errno::NOSPC | Errno::NOMEM) => {
                table.limit_hit = true;
                None
            }
            Err(error) => {
                log::debug!("could not watch a directory: {error}");
                None
            }
        }
    }

    /// Gives back the watches that the table has no use for.
    fn clear_stale(&self, table: &mut Table) {
        for wd in std::mem::take(&mut table.stale) {
            if !table.by_wd.contains_key(&wd) {
                // The kernel drops the watch of a removed directory by itself, perhaps already.
                let _ = inotify::remove_watch(&self.fd, wd);
            }
        }
    }

    /// Watches a directory that has just appeared; the walk that the hint leads to watches what is in it. False if it
    /// was watched already: then whoever did that has walked it since, or was watching what is in it all along.
    fn appeared(&self, table: &mut Table, parent: u32, name: &str) -> bool {
        let Some(root) = table.node(parent).map(|node| node.root) else { return false };
        let Some(path) = table.path(parent).and_then(|path| path.join(name)) else { return false };
        let opened = match table.roots.get(&root) {
            Some((_, fd)) => crate::disk::open_listed(fd.as_fd(), &self.whole, path.as_str()),
            None => return false,
        };
        let wd = opened.ok().and_then(|dir| self.watch(table, dir.as_fd()));
        // What could not be opened or watched may be so for a moment only, while it is no directory known before.
        wd.is_none_or(|wd| table.insert(wd, root, parent, name).1)
    }

    /// Takes one event in.
    fn take(
        &self,
        table: &mut Table,
        wd: i32,
        what: ReadFlags,
        name: Option<&CStr>,
        sink: &mut dyn FnMut(WatchEvent),
    ) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            for root in table.roots.keys() {
                sink(WatchEvent::Overflow(*root));
            }
            return;
        }
        let mut at = table.by_wd.get(&wd).copied().unwrap_or(NONE);
        while let Some(node) = table.node(at) {
            let (root, is_root, twin) = (node.root, node.parent == NONE, node.twin);
            let own = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            if what.intersects(own) {
                if is_root || what.contains(ReadFlags::UNMOUNT) {
                    sink(WatchEvent::Overflow(root));
                }
                if what.contains(ReadFlags::IGNORED) && !is_root {
                    table.forget(at);
                }
            } else {
                self.take_hint(table, at, root, what, name, sink);
            }
            at = twin;
        }
    }

    fn take_hint(
        &self,
        table: &mut Table,
        at: u32,
        root: RootId,
        what: ReadFlags,
        name: Option<&CStr>,
        sink: &mut dyn FnMut(WatchEvent),
    ) {
        let Some(dir) = table.path(at) else { return };
        let Some(name) = name else {
            sink(WatchEvent::Hint { root, path: dir, seen: Noticed::Changed });
            return;
        };
        let Some((name, path)) = name.to_str().ok().and_then(|name| Some((name, dir.join(name)?))) else {
            // Our own folder is no news.
            if name.to_bytes() != b".clearskies" {
                let there = !what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
                let name = crate::disk::readable(name.to_bytes());
                sink(WatchEvent::Unusable { root, dir, name, there });
            }
            return;
        };
        let done = ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        let mut seen = if what.intersects(done) { Noticed::Done } else { Noticed::Changed };
        if what.contains(ReadFlags::ISDIR) {
            if what.contains(ReadFlags::MOVED_FROM) {
                if let Some(child) = table.child(at, name) {
                    table.forget(child);
                }
            } else if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
                && self.appeared(table, at, name)
            {
                seen = Noticed::NewDir;
            }
        }
        sink(WatchEvent::Hint { root, path, seen });
    }
}

impl Watcher for Inotify {
    fn add_root(&self, root: RootId, dir: BorrowedFd<'_>) {
        self.remove_root(root);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(dir, ".", flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(error) => {
                log::warn!("a share is not watched: {error}");
                return;
            }
        };
        let mut table = self.table();
        if let Some(wd) = self.watch(&mut table, dir) {
            let (id, _) = table.insert(wd, root, NONE, "");
            table.roots.insert(root, (id, fd));
        }
    }

    fn add_dir(&self, root: RootId, path: &RelPath, dir: BorrowedFd<'_>) -> bool {
        let mut table = self.table();
        let Some(parent) = path.parent() else { return table.roots.contains_key(&root) };
        let Some(parent) = table.find(root, &parent) else { return false };
        let Some(wd) = self.watch(&mut table, dir) else { return false };
        table.insert(wd, root, parent, path.name());
        self.clear_stale(&mut table);
        true
    }

    fn remove_root(&self, root: RootId) {
        let mut table = self.table();
        if let Some((id, _)) = table.roots.remove(&root) {
            table.forget(id);
            self.clear_stale(&mut table);
        }
    }

    fn poll(&self, sink: &mut dyn FnMut(WatchEvent)) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut table = self.table();
        let mut seen = 0;
        // What was read must be taken in whole, or its rest is lost with the buffer.
        while seen < EVENTS_PER_POLL_MAX || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) => {
                    self.take(&mut table, event.wd(), event.events(), event.file_name(), sink);
                    seen += 1;
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => {
                    log::warn!("could not read what was watched: {error}");
                    break;
                }
            }
        }
        self.clear_stale(&mut table);
        if table.limit_hit && !table.limit_told {
            table.limit_told = true;
            sink(WatchEvent::Limit);
        }
    }

    fn watches(&self) -> usize {
        self.table().by_wd.len()
    }
}

/// Readable when there is something to poll for.
impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
