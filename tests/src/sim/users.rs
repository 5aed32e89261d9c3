//! What people and their programs do to the files of a simulated machine, while the engine is not asked. Each change
//! is heard by the watcher. Paths are absolute.

use std::collections::BTreeMap;
use std::sync::Arc;

use clearskies_core::files::path::RelPath;
use clearskies_core::io::DiskError;
use clearskies_core::io::disk::Kind;

use super::disk::{Hint, SimDisk, count_temps};
use super::fs::{Body, TOP, UMASK};

/// What a path of a tree is, for comparing trees: times, owners and inodes do not count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A directory with its permission bits.
    Dir(u32),
    /// A file with its permission bits and bytes.
    File(u32, Vec<u8>),
    /// A link and its target.
    Link(String),
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Dir(mode) => write!(f, "dir {mode:o}"),
            Item::File(mode, data) if data.len() <= 40 => {
                write!(f, "file {mode:o} {:?}", String::from_utf8_lossy(data))
            }
            Item::File(mode, data) => write!(f, "file {mode:o} {} bytes", data.len()),
            Item::Link(target) => write!(f, "link {target}"),
        }
    }
}

/// A tree by path.
pub type Tree = BTreeMap<String, Item>;

/// What each path is, with the bytes of files.
pub type Entries = BTreeMap<String, (Kind, Option<Arc<Vec<u8>>>)>;

/// The renames that exchange two paths.
pub fn exchange(a: &str, b: &str) -> [[String; 2]; 3] {
    let aside = format!("{a}.swap");
    [[a, &aside], [b, a], [&aside, b]].map(|both| both.map(str::to_owned))
}

impl SimDisk {
    fn split<'a>(&self, path: &'a str) -> Result<(u64, &'a [u8]), DiskError> {
        let (above, name) = path.rsplit_once('/').ok_or(DiskError::NotFound)?;
        Ok((self.absolute(above)?, name.as_bytes()))
    }

    /// Writes a file: made, or changed in place.
    pub fn write(&mut self, wall_ns: i64, path: &str, content: &[u8]) -> Result<(), DiskError> {
        self.edit(wall_ns, path, |data| {
            data.clear();
            data.extend_from_slice(content);
        })
    }

    /// Appends to a file, which is made where it is missing.
    pub fn append(&mut self, wall_ns: i64, path: &str, content: &[u8]) -> Result<(), DiskError> {
        self.edit(wall_ns, path, |data| data.extend_from_slice(content))
    }

    fn edit(&mut self, wall_ns: i64, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (dir, name) = self.split(path)?;
        let inode = match self.fs.child(dir, name) {
            Ok(inode) => inode,
            Err(DiskError::NotFound) => {
                let body = Body::File { data: Vec::new().into(), sha256: None, flushed: true };
                let inode = self.fs.make(body, 0o666 & !UMASK)?;
                self.fs.attach(dir, name, inode)?;
                self.touched(dir, name);
                inode
            }
            Err(error) => return Err(error),
        };
        self.fs.change(inode, change)?;
        // What a user saved counts as safe: losing it in a power cut would not be the engine's doing.
        self.fs.flush(inode);
        self.done(dir, name);
        Ok(())
    }

    /// Cuts a file to so many bytes.
    pub fn truncate(&mut self, wall_ns: i64, path: &str, len: usize) -> Result<(), DiskError> {
        self.absolute(path)?;
        self.edit(wall_ns, path, |data| data.truncate(len))
    }

    /// Gives a file a second name. The watcher hears of the new name alone.
    pub fn hard_link(&mut self, wall_ns: i64, path: &str, to: &str) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (inode, to) = (self.absolute(path)?, self.split(to)?);
        self.fs.link(inode, to)?;
        self.touched(to.0, to.1);
        Ok(())
    }

    /// Whether what is at a path has other names as well.
    pub fn has_other_names(&self, path: &str) -> bool {
        self.absolute(path).is_ok_and(|inode| self.fs.node(inode).names > 1)
    }

    /// What tells the names of one file: all of them have it.
    pub fn inode(&self, path: &str) -> Option<u64> {
        self.absolute(path).ok()
    }

    /// What is at a path; `None` also for what is no file, directory or link.
    pub fn kind(&self, path: &str) -> Option<Kind> {
        match self.fs.node(self.absolute(path).ok()?).body {
            Body::Dir(_) => Some(Kind::Dir),
            Body::File { .. } => Some(Kind::File),
            Body::Link(_) => Some(Kind::Link),
            Body::Other => None,
        }
    }

    /// Opens a file as a program does that goes on writing to it whatever becomes of its name.
    pub fn open_file(&mut self, path: &str) -> Result<u64, DiskError> {
        let inode = self.absolute(path)?;
        self.fs.pin(inode);
        Ok(inode)
    }

    /// Writes through what [`SimDisk::open_file`] gave.
    pub fn write_open(&mut self, wall_ns: i64, inode: u64, content: &[u8]) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        self.fs.change(inode, |data| {
            data.clear();
            data.extend_from_slice(content);
        })?;
        self.fs.flush(inode);
        if let Some((dir, name)) = self.fs.place_of(inode) {
            self.done(dir, &name);
        }
        Ok(())
    }

    /// Saves a file as editors do: a new file, renamed over the old one.
    pub fn save(&mut self, wall_ns: i64, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let beside = format!("{path}.new");
        self.write(wall_ns, &beside, content)?;
        self.rename_over(wall_ns, &beside, path)
    }

    /// Renames, over what is there.
    pub fn rename_over(&mut self, wall_ns: i64, from: &str, to: &str) -> Result<(), DiskError> {
        let (dir, name) = self.split(to)?;
        if self.fs.child(dir, name).is_ok() {
            self.fs.remove(dir, name)?;
        }
        self.rename_path(wall_ns, from, to)
    }

    /// A file's bytes, also where its permission bits let nobody read it.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let inode = self.absolute(path).ok()?;
        self.fs.bytes(inode).map(|data| data.to_vec())
    }

    /// Makes a directory and its parents.
    pub fn mkdir(&mut self, wall_ns: i64, path: &str) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let mut dir = TOP;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let (inode, made) = self.fs.make_dir(dir, name.as_bytes(), 0o777 & !UMASK)?;
            if made {
                self.touched(dir, name.as_bytes());
            }
            dir = inode;
        }
        Ok(())
    }

    /// Removes whatever is there, with all beneath it.
    pub fn remove_path(&mut self, wall_ns: i64, path: &str) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (dir, name) = self.split(path)?;
        // As `rm -r` does: one by one, each with its hint.
        if let Ok(inode) = self.fs.child(dir, name)
            && let Body::Dir(names) = &self.fs.node(inode).body
        {
            for child in names.keys().cloned().collect::<Vec<_>>() {
                self.remove_path(wall_ns, &format!("{path}/{}", String::from_utf8_lossy(&child)))?;
            }
        }
        self.fs.remove(dir, name)?;
        self.touched(dir, name);
        Ok(())
    }

    /// Renames, never over anything.
    pub fn rename_path(&mut self, wall_ns: i64, from: &str, to: &str) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (from, to) = (self.split(from)?, self.split(to)?);
        self.fs.rename(from, to)?;
        self.done(from.0, from.1);
        self.done(to.0, to.1);
        Ok(())
    }

    /// Exchanges two paths.
    pub fn swap(&mut self, wall_ns: i64, a: &str, b: &str) -> Result<(), DiskError> {
        exchange(a, b).iter().try_for_each(|[from, to]| self.rename_path(wall_ns, from, to))
    }

    /// Sets permission bits.
    pub fn chmod(&mut self, wall_ns: i64, path: &str, mode: u32) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (dir, name) = self.split(path)?;
        let inode = self.fs.child(dir, name)?;
        self.fs.set_meta(inode, Some(mode), None);
        self.altered(dir, name);
        Ok(())
    }

    /// Sets a file's time.
    pub fn touch(&mut self, wall_ns: i64, path: &str, mtime_ns: i64) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let (dir, name) = self.split(path)?;
        let inode = self.fs.child(dir, name)?;
        self.fs.set_meta(inode, None, Some(mtime_ns));
        self.altered(dir, name);
        Ok(())
    }

    /// Makes a symbolic link where nothing is.
    pub fn symlink(&mut self, wall_ns: i64, path: &str, target: &str) -> Result<(), DiskError> {
        self.special(wall_ns, path.as_bytes(), Body::Link(target.as_bytes().to_vec()), 0o777)
    }

    /// Makes something under a name that need not be UTF-8.
    pub fn special(&mut self, wall_ns: i64, path: &[u8], body: Body, mode: u32) -> Result<(), DiskError> {
        self.fs.set_now(wall_ns);
        let cut = path.iter().rposition(|byte| *byte == b'/').ok_or(DiskError::NotFound)?;
        let above = std::str::from_utf8(&path[..cut]).map_err(|_| DiskError::BadName)?;
        let dir = self.absolute(above)?;
        let inode = self.fs.make(body, mode)?;
        self.fs.attach(dir, &path[cut + 1..], inode)?;
        self.touched(dir, &path[cut + 1..]);
        Ok(())
    }

    /// The watcher loses what it had and says so.
    pub fn overflow(&mut self) {
        self.lose_hints();
        for root in self.open_roots() {
            self.hint(Hint::Overflow(root));
        }
    }

    /// What is in a directory, by name; nothing where there is none.
    pub fn names(&self, path: &str) -> Vec<String> {
        let names = self.absolute(path).and_then(|dir| self.fs.list(dir)).unwrap_or_default();
        names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// How many temps a share keeps.
    pub fn temps(&self, share: &str) -> usize {
        count_temps(&self.names(&format!("{share}/.clearskies/tmp")))
    }

    /// A folder's tree, without the program's own folder.
    pub fn tree(&self, path: &str) -> Tree {
        let mut tree = Tree::new();
        if let Ok(dir) = self.absolute(path) {
            self.grow(dir, "", &mut tree);
            tree.retain(|path, _| path != ".clearskies" && !path.starts_with(".clearskies/"));
        }
        tree
    }

    /// A folder's paths in the order of [`SimDisk::tree`], with the bytes of files, which are not copied.
    pub fn entries(&self, path: &str) -> Entries {
        let mut entries = BTreeMap::new();
        if let Ok(dir) = self.absolute(path) {
            self.gather(dir, "", &mut entries);
        }
        entries
    }

    fn gather(&self, dir: u64, above: &str, entries: &mut Entries) {
        let Body::Dir(names) = &self.fs.node(dir).body else { return };
        for (name, inode) in names.iter().filter(|(name, _)| !above.is_empty() || *name != b".clearskies") {
            let path = format!("{above}{}", String::from_utf8_lossy(name));
            let entry = match &self.fs.node(*inode).body {
                Body::Dir(_) => {
                    self.gather(*inode, &format!("{path}/"), entries);
                    (Kind::Dir, None)
                }
                Body::File { data, .. } => (Kind::File, Some(Arc::clone(data))),
                Body::Link(_) => (Kind::Link, None),
                Body::Other => continue,
            };
            entries.insert(path, entry);
        }
    }

    fn grow(&self, dir: u64, above: &str, tree: &mut Tree) {
        let Body::Dir(names) = &self.fs.node(dir).body else { return };
        for (name, inode) in names {
            let path = format!("{above}{}", String::from_utf8_lossy(name));
            let node = self.fs.node(*inode);
            let item = match &node.body {
                Body::Dir(_) => {
                    self.grow(*inode, &format!("{path}/"), tree);
                    Item::Dir(node.mode)
                }
                Body::File { data, .. } => Item::File(node.mode, data.to_vec()),
                Body::Link(target) => Item::Link(String::from_utf8_lossy(target).into_owned()),
                Body::Other => continue,
            };
            tree.insert(path, item);
        }
    }

    /// Everything that a folder's archive keeps: the path it had, and the bytes of files.
    pub fn archive(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        let mut kept = Vec::new();
        let Ok(archive) = self.absolute(&format!("{path}/.clearskies/archive")) else { return kept };
        for folder in self.fs.list(archive).unwrap_or_default() {
            let Ok(folder) = self.fs.child(archive, &folder) else { continue };
            self.collect(folder, &RelPath::root(), &mut |path, stamp| {
                if stamp.kind == Kind::File {
                    let data = self.fs.bytes(stamp.inode).map(|data| data.to_vec());
                    kept.extend(data.map(|data| (path.as_str().to_owned(), data)));
                }
            });
        }
        kept
    }
}
