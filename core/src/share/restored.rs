//! Files that a user had brought back from the archive and that were not looked at yet. What the row of such a path has
//! is gone, whatever it says (sync.md, "Deletes"). It is kept in the store as well: after a kill the same bytes at the
//! same path would otherwise be taken for what lay there before.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::RootId;
use crate::io::store::{Space, Write};
use crate::share::archived::KEPT_MAX;
use crate::share::layout::{self, Fact};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Another file than this one was not brought back.
    inode: u64,
    /// Whether an earlier run brought it back.
    of_last_run: bool,
}

/// The files of one share.
#[derive(Debug)]
pub struct Restored {
    root: RootId,
    marks: BTreeMap<RelPath, Mark>,
}

impl Restored {
    /// None.
    pub fn new(root: RootId) -> Restored {
        Restored { root, marks: BTreeMap::new() }
    }

    /// Takes over what the last run stored: the rest of each key, and its value.
    pub fn load<'a>(&mut self, facts: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        for (rest, value) in facts {
            if let (Some(path), Ok(inode)) = (RelPath::from_sort_key(rest), value.try_into()) {
                self.add(path, Mark { inode: u64::from_be_bytes(inode), of_last_run: true });
            }
        }
    }

    /// A file with this inode was brought back to a path where nothing was.
    pub fn note(&mut self, path: RelPath, inode: u64) {
        self.add(path, Mark { inode, of_last_run: false });
    }

    fn add(&mut self, path: RelPath, mark: Mark) {
        if self.room() > 0 {
            self.marks.insert(path, mark);
        }
    }

    /// How many more there may be.
    pub fn room(&self) -> usize {
        KEPT_MAX.saturating_sub(self.marks.len())
    }

    /// Whether a path is among them.
    pub fn knows(&self, path: &RelPath) -> bool {
        self.marks.contains_key(path)
    }

    /// Whether the file with this inode is what was brought back to a path.
    pub fn is(&self, path: &RelPath, inode: u64) -> bool {
        self.marks.get(path).is_some_and(|mark| mark.inode == inode)
    }

    /// What the last run brought back.
    pub fn of_last_run(&self) -> impl Iterator<Item = &RelPath> {
        self.marks.iter().filter(|(_, mark)| mark.of_last_run).map(|(path, _)| path)
    }

    /// What is there is recorded, or is not what was brought back.
    pub fn forget(&mut self, path: &RelPath) {
        self.marks.remove(path);
    }

    /// All was looked at that the last run left, but for what is unseen: what was brought back is recorded by now.
    pub fn looked_through(&mut self, is_unseen: impl Fn(&RelPath) -> bool) {
        self.marks.retain(|path, mark| !mark.of_last_run || is_unseen(path));
    }

    /// The store may be older than what lies here: what it marks may have been recorded since. The writes that go with
    /// it.
    pub fn forget_all(&mut self) -> Vec<Write> {
        let marks = core::mem::take(&mut self.marks);
        marks.keys().map(|path| self.forgotten(path)).collect()
    }

    /// The write that [`Restored::note`] keeps.
    pub fn kept(root: RootId, path: &RelPath, inode: u64) -> Write {
        Write::Put { space: Space::Meta, key: key(root, path), value: inode.to_be_bytes().to_vec() }
    }

    /// The write that goes with [`Restored::forget`].
    pub fn forgotten(&self, path: &RelPath) -> Write {
        Write::Delete { space: Space::Meta, key: key(self.root, path) }
    }
}

fn key(root: RootId, path: &RelPath) -> Vec<u8> {
    let mut key = layout::fact_key(root, Fact::Restored);
    path.push_sort_key(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::share::layout::{MetaKey, meta_key};

    const ROOT: RootId = RootId(7);

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn what_is_kept_is_known_to_the_next_run() {
        let Write::Put { space: Space::Meta, key, value } = Restored::kept(ROOT, &path("d/ä"), 9) else {
            panic!()
        };
        let Some(MetaKey::Club(ROOT, fact, rest)) = meta_key(&key) else { panic!() };
        assert_eq!(fact, Fact::Restored as u8);
        let mut next = Restored::new(ROOT);
        next.load([(rest, value.as_slice()), (b"a", b"short".as_slice())].into_iter());
        next.note(path("new"), 3);
        assert_eq!(next.of_last_run().collect::<Vec<_>>(), [&path("d/ä")]);
        assert!(next.is(&path("d/ä"), 9) && !next.is(&path("d/ä"), 8) && next.is(&path("new"), 3));
        assert_eq!(next.forgotten(&path("d/ä")), Write::Delete { space: Space::Meta, key: key.clone() });
        let mut gone = Restored::new(ROOT);
        gone.load([(rest, value.as_slice())].into_iter());
        gone.note(path("new"), 3);
        gone.looked_through(|_| true);
        assert!(gone.knows(&path("d/ä")));
        gone.looked_through(|_| false);
        assert!(!gone.knows(&path("d/ä")) && gone.knows(&path("new")));
        next.forget(&path("d/ä"));
        assert!(!next.knows(&path("d/ä")) && !next.knows(&path("a")));
        assert_eq!(next.forget_all(), [next.forgotten(&path("new"))]);
        assert!(!next.knows(&path("new")));
    }

    #[test]
    fn so_many_and_no_more() {
        let mut restored = Restored::new(ROOT);
        (0..KEPT_MAX).for_each(|n| restored.note(path(&format!("{n}")), 1));
        assert!(restored.knows(&path(&format!("{}", KEPT_MAX - 1))));
        assert_eq!(restored.room(), 0);
        restored.note(path("beyond"), 1);
        assert!(!restored.knows(&path("beyond")));
    }
}
