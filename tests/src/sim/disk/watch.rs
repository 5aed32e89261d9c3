//! The watcher of one root, as inotify and the table behind it are (`host/src/watch.rs`). The kernel tells of
//! directories by the number of their watch; where such a directory lies is known from what was told before. The
//! watches of what moves away are given back, and a directory that comes is watched once its event is read: what
//! happened in it before was told to nobody.

use std::collections::{BTreeMap, VecDeque};

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::Noticed;

use super::super::fs::{Body, Fs};
use super::{Hint, PRIVATE};

/// What the kernel tells of a name in a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Something changed there.
    Changed,
    /// A directory was made there, or moved there.
    DirCame,
    /// What was there was moved away, or removed.
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Name(u64, Vec<u8>, Sign, Noticed),
    /// The directory is gone, and so is its watch.
    Ignored(u64),
}

/// The watches of one root.
#[derive(Clone, Debug)]
pub(super) struct Watches {
    /// What the kernel watches: inodes, and the numbers of their watches.
    watches: BTreeMap<u64, u64>,
    inodes: BTreeMap<u64, u64>,
    last: u64,
    /// Where the watched directories lie, as far as it is known.
    places: BTreeMap<u64, RelPath>,
    by_path: BTreeMap<RelPath, u64>,
    /// What was not read yet.
    events: VecDeque<Event>,
}

impl Watches {
    /// Watches the folder itself.
    pub(super) fn new(folder: u64) -> Watches {
        let mut watches = Watches {
            watches: BTreeMap::new(),
            inodes: BTreeMap::new(),
            last: 0,
            places: BTreeMap::new(),
            by_path: BTreeMap::new(),
            events: VecDeque::new(),
        };
        watches.insert(folder, &RelPath::root());
        watches
    }

    /// Watches a directory. Those above it were watched before, or nothing is.
    pub(super) fn add(&mut self, inode: u64, path: &RelPath) {
        if path.parent().is_some_and(|dir| self.by_path.contains_key(&dir)) {
            self.insert(inode, path);
            self.give_back();
        }
    }

    /// The kernel watches an inode, and the table has it at a path. A directory that it has elsewhere moves with all
    /// beneath it. Returns whether it is new.
    fn insert(&mut self, inode: u64, path: &RelPath) -> bool {
        let watch = *self.watches.entry(inode).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.inodes.insert(watch, inode);
        let before = self.places.get(&watch).cloned();
        if before.as_ref() == Some(path) {
            return false;
        }
        if before.as_ref().is_some_and(|before| path.is_beneath(before)) {
            // It cannot be beneath itself: what is known is out of date, and the walk that follows mends it.
            return false;
        }
        let moved = before.as_ref().map(|before| self.take_out(before)).unwrap_or_default();
        self.take_out(path);
        self.put(watch, path.clone());
        for (watch, inner) in moved {
            let place = before.as_ref().and_then(|before| inner.rebase(before, path));
            if let Some(place) = place.filter(|place| place != path) {
                self.put(watch, place);
            }
        }
        before.is_none()
    }

    fn put(&mut self, watch: u64, path: RelPath) {
        self.by_path.insert(path.clone(), watch);
        self.places.insert(watch, path);
    }

    /// Takes a path and all beneath it out of the table.
    fn take_out(&mut self, path: &RelPath) -> Vec<(u64, RelPath)> {
        let inner = self.by_path.range(path.clone()..).take_while(|(inner, _)| inner.starts_with(path));
        let out: Vec<(u64, RelPath)> = inner.map(|(inner, watch)| (*watch, inner.clone())).collect();
        for (watch, inner) in &out {
            self.places.remove(watch);
            self.by_path.remove(inner);
        }
        out
    }

    /// Gives the watches back that the table has no use for.
    fn give_back(&mut self) {
        if self.inodes.len() == self.places.len() {
            return;
        }
        let places = &self.places;
        self.inodes.retain(|watch, _| places.contains_key(watch));
        self.watches.retain(|_, watch| places.contains_key(watch));
    }

    /// The kernel notes what happened to a name in a directory, if that is watched.
    pub(super) fn note(&mut self, dir: u64, name: &[u8], sign: Sign, seen: Noticed) {
        let Some(watch) = self.watches.get(&dir) else { return };
        match self.events.back_mut() {
            // The same once more: what is done counts from when it is.
            Some(Event::Name(last, of, what, before)) if (*last, &**of, *what) == (*watch, name, sign) => {
                *before = seen;
            }
            _ => self.events.push_back(Event::Name(*watch, name.to_vec(), sign, seen)),
        }
    }

    /// An inode is no directory any more; its number may become that of another one.
    pub(super) fn freed(&mut self, inode: u64) {
        if let Some(watch) = self.watches.remove(&inode) {
            self.inodes.remove(&watch);
            self.events.push_back(Event::Ignored(watch));
        }
    }

    /// Whether there is anything to read.
    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty()
    }

    /// What was not read is lost.
    pub(super) fn lose(&mut self) {
        self.events.clear();
    }

    /// Reads what the kernel noted since the last time; what `is_lost` says is lost, and only that is told.
    pub(super) fn poll(
        &mut self,
        (root, folder): (RootId, u64),
        fs: &Fs,
        is_lost: &mut impl FnMut() -> bool,
        hints: &mut Vec<Hint>,
    ) {
        while let Some(event) = self.events.pop_front() {
            let hint = match event {
                Event::Name(..) if is_lost() => Some(Hint::Overflow(root)),
                Event::Name(watch, name, sign, seen) => {
                    self.take((root, folder), fs, (watch, &name), (sign, seen))
                }
                Event::Ignored(watch) => {
                    if let Some(path) = self.places.get(&watch).cloned() {
                        self.take_out(&path);
                    }
                    None
                }
            };
            if hint.is_some() && hints.last() != hint.as_ref() {
                hints.extend(hint);
            }
        }
        self.give_back();
    }

    fn take(
        &mut self,
        (root, folder): (RootId, u64),
        fs: &Fs,
        (watch, name): (u64, &[u8]),
        (sign, seen): (Sign, Noticed),
    ) -> Option<Hint> {
        // The place of a watch that was given back is not known any more.
        let dir = self.places.get(&watch).cloned()?;
        if name == PRIVATE {
            return None;
        }
        let Some(path) = std::str::from_utf8(name).ok().and_then(|name| dir.join(name)) else {
            return Some(Hint::Seen(root, dir, Noticed::Changed));
        };
        match sign {
            Sign::Changed => {}
            Sign::Left => drop(self.take_out(&path)),
            Sign::DirCame => {
                // What is there now: it may have gone on, or be something else.
                let inode = fs.resolve(folder, &path).ok();
                let inode = inode.filter(|inode| matches!(fs.node(*inode).body, Body::Dir(_)));
                if inode.is_none_or(|inode| self.insert(inode, &path)) {
                    return Some(Hint::Seen(root, path, Noticed::NewDir));
                }
            }
        }
        Some(Hint::Seen(root, path, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SimDisk;
    use super::*;
    use clearskies_core::io::disk::DiskOp;

    const ROOT: RootId = RootId(1);

    fn told(hints: Vec<Hint>) -> Vec<String> {
        hints
            .into_iter()
            .map(|hint| match hint {
                Hint::Seen(_, path, Noticed::NewDir) => format!("new {}", path.as_str()),
                Hint::Seen(_, path, _) => path.as_str().to_owned(),
                Hint::Overflow(_) => "overflow".to_owned(),
            })
            .collect()
    }

    fn walk(disk: &mut SimDisk) {
        disk.execute(0, DiskOp::Walk { root: ROOT, walk: 1, dir: RelPath::root(), limit: 100 }).unwrap();
    }

    fn watched() -> SimDisk {
        let mut disk = SimDisk::default();
        disk.mkdir(0, "/share/d/e").unwrap();
        disk.execute(0, DiskOp::OpenRoot { root: ROOT, path: "/share".into(), create: false }).unwrap();
        walk(&mut disk);
        disk
    }

    #[test]
    fn what_comes_is_watched_once_it_was_told() {
        let mut disk = watched();
        disk.mkdir(0, "/share/new/inner").unwrap();
        disk.write(0, "/share/new/before", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["new new"]);
        disk.write(0, "/share/new/after", b"1").unwrap();
        disk.write(0, "/share/new/inner/after", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["new/after"]);
        walk(&mut disk);
        disk.write(0, "/share/new/inner/walked", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["new/inner/walked"]);
    }

    #[test]
    fn what_moves_is_forgotten_with_all_beneath_it() {
        let mut disk = watched();
        disk.rename_path(0, "/share/d", "/share/f").unwrap();
        disk.write(0, "/share/f/e/before", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["d", "new f"]);
        disk.write(0, "/share/f/e/after", b"1").unwrap();
        disk.write(0, "/share/f/after", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["f/after"]);
        disk.rename_path(0, "/share/f", "/elsewhere").unwrap();
        disk.write(0, "/elsewhere/queued", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["f"]);
        disk.write(0, "/elsewhere/unheard", b"1").unwrap();
        assert!(disk.take_hints().is_empty());
    }

    #[test]
    fn a_walk_that_meets_the_new_place_first_keeps_what_lies_beneath() {
        let mut disk = watched();
        disk.rename_path(0, "/share/d", "/share/f").unwrap();
        walk(&mut disk);
        assert_eq!(told(disk.take_hints()), ["d", "f"]);
        disk.write(0, "/share/f/e/heard", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["f/e/heard"]);
    }

    #[test]
    fn what_is_made_anew_is_another_directory_whatever_its_inode() {
        let mut disk = watched();
        disk.remove_path(0, "/share/d").unwrap();
        disk.mkdir(0, "/share/d/e").unwrap();
        assert_eq!(told(disk.take_hints()), ["d/e", "d", "new d"]);
        disk.write(0, "/share/d/e/unheard", b"1").unwrap();
        assert!(disk.take_hints().is_empty());
    }

    #[test]
    fn what_is_lost_leaves_the_table_as_it_was() {
        let mut disk = watched();
        disk.rename_path(0, "/share/d", "/share/f").unwrap();
        assert_eq!(told(disk.poll_hints(|| true)), ["overflow"]);
        disk.write(0, "/share/f/heard", b"1").unwrap();
        assert_eq!(told(disk.take_hints()), ["d/heard"]);
    }
}
