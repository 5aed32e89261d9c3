//! What a power cut takes from directories. Names are written in order, and are safe when somebody flushed; a cut
//! keeps the first so many of the others. Bytes are another matter ([`Fs::tear`]): a name may be there without them.

use super::super::rng::Rng;
use super::{Body, Fs, Node};

/// How to take back one change of names.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// An inode was made.
    Made(u64),
    /// It got a name in a directory.
    Attached(u64, Vec<u8>),
    /// It lost that name.
    Detached(u64, Vec<u8>, u64),
    /// It lost its name because that directory was freed.
    Unnamed(u64, u64),
    /// It was freed.
    Freed(u64, Box<Node>),
    /// Several changes that come together or not at all, like the two of a rename.
    Together(Vec<Undo>),
}

impl Fs {
    /// All names so far are safe.
    pub fn sync_names(&mut self) {
        self.journal.clear();
    }

    /// What changed since the journal had so many entries is one change.
    pub(super) fn together(&mut self, since: usize) {
        let since = since.min(self.journal.len());
        let group = self.journal.split_off(since);
        self.journal.push(Undo::Together(group));
    }

    /// The power goes: keeps the first so many changes of names that nobody waited for.
    pub(super) fn lose_names(&mut self, rng: &mut Rng) {
        let kept = usize::try_from(rng.below(self.journal.len() as u64 + 1)).expect("no more than a length");
        while self.journal.len() > kept {
            let Some(undo) = self.journal.pop() else { break };
            self.take_back(undo);
        }
        self.journal.clear();
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Made(inode) => {
                if let Some(Node { body: Body::File { data, .. }, .. }) = self.nodes.remove(&inode) {
                    self.used -= data.len() as u64;
                }
                self.free.push(inode);
            }
            Undo::Attached(dir, name) => {
                if let Body::Dir(names) = &mut self.node_mut(dir).body
                    && let Some(inode) = names.remove(&name)
                {
                    self.unnamed(inode);
                }
            }
            Undo::Detached(dir, name, inode) => {
                if let Body::Dir(names) = &mut self.node_mut(dir).body {
                    names.insert(name, inode);
                }
                self.named(inode, dir);
            }
            Undo::Unnamed(inode, dir) => self.named(inode, dir),
            Undo::Together(group) => group.into_iter().rev().for_each(|undo| self.take_back(undo)),
            Undo::Freed(inode, node) => {
                if let Body::File { data, .. } = &node.body {
                    self.used += data.len() as u64;
                }
                self.free.retain(|free| *free != inode);
                self.nodes.insert(inode, *node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TOP;
    use super::*;

    fn names(fs: &Fs) -> String {
        let names = fs.list(TOP).unwrap();
        names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn file(fs: &mut Fs, name: &[u8]) {
        let body = Body::File { data: b"1234".to_vec().into(), sha256: None, flushed: true };
        let inode = fs.make(body, 0o644).unwrap();
        fs.attach(TOP, name, inode).unwrap();
    }

    #[test]
    fn a_file_lives_as_long_as_it_has_a_name() {
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut fs = Fs::default();
            file(&mut fs, b"a");
            let inode = fs.child(TOP, b"a").unwrap();
            let dir = fs.make_dir(TOP, b"d", 0o755).unwrap().0;
            assert_eq!(fs.link(dir, (TOP, b"e")), Err(clearskies_core::io::DiskError::WrongKind));
            fs.link(inode, (dir, b"b")).unwrap();
            fs.link(inode, (TOP, b"c")).unwrap();
            fs.sync_names();
            fs.remove(TOP, b"a").unwrap();
            fs.change(inode, |data| data.push(b'5')).unwrap();
            fs.flush(inode);
            fs.remove(TOP, b"d").unwrap();
            assert_eq!((fs.child(TOP, b"c"), fs.node(inode).names, fs.used()), (Ok(inode), 1, 5));
            fs.remove(TOP, b"c").unwrap();
            assert_eq!(fs.used(), 0);
            fs.tear(&mut Rng::new(seed));
            let names = names(&fs);
            assert_eq!(fs.used(), if names.is_empty() { 0 } else { 5 });
            if !names.is_empty() {
                let held = names.len() as u32;
                assert_eq!((fs.node(inode).names, fs.data(inode).unwrap().as_slice()), (held, &b"12345"[..]));
            }
            found.insert(names);
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["", "acd", "c", "cd"]);
    }

    #[test]
    fn a_power_cut_keeps_the_first_changes_of_names() {
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut fs = Fs::default();
            file(&mut fs, b"a");
            fs.sync_names();
            fs.rename((TOP, b"a"), (TOP, b"b")).unwrap();
            file(&mut fs, b"c");
            fs.remove(TOP, b"b").unwrap();
            file(&mut fs, b"d");
            fs.tear(&mut Rng::new(seed));
            let names = names(&fs);
            // An inode may have come without its name.
            assert!(fs.used() >= names.len() as u64 * 4);
            found.insert(names);
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "bc", "c", "cd"]);
    }
}
