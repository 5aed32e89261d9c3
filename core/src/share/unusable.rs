//! Names on disk that can never be synced, by the directory that they are in. Only what is told of them; whoever lists
//! a directory decides which they are.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::{format, vec::Vec};
use core::ops::Bound;

use crate::files::path::RelPath;

/// Names of one directory that are told, and directories that have such names.
const NAMES_MAX: usize = 20;
const DIRS_MAX: usize = 1000;

/// Names that cannot be synced.
#[derive(Debug, Default)]
pub struct Unusable(BTreeMap<RelPath, BTreeSet<String>>);

impl Unusable {
    /// Such a name is in a directory, or was.
    pub fn note(&mut self, dir: RelPath, name: &str, there: bool) {
        if !there {
            if let Some(names) = self.0.get_mut(&dir) {
                names.remove(name);
                if names.is_empty() {
                    self.0.remove(&dir);
                }
            }
        } else if self.0.len() < DIRS_MAX || self.0.contains_key(&dir) {
            let names = self.0.entry(dir).or_default();
            if names.len() < NAMES_MAX {
                names.insert(name.to_string());
            }
        }
    }

    /// A directory is gone, with all that was beneath it.
    pub fn forget(&mut self, dir: &RelPath) {
        self.0.remove(dir);
        let beneath = self.0.range((Bound::Excluded(dir), Bound::Unbounded));
        let beneath: Vec<RelPath> =
            beneath.map(|(path, _)| path.clone()).take_while(|path| path.is_beneath(dir)).collect();
        beneath.iter().for_each(|path| drop(self.0.remove(path)));
    }

    /// Everything is looked at anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What there is to say of one directory, a sentence for each name.
    pub fn in_dir(&self, dir: &RelPath) -> impl Iterator<Item = String> {
        self.0.get(dir).into_iter().flatten().map(|name| sentence(name))
    }

    /// The directories and what there is to say of them.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, String)> {
        self.0.iter().flat_map(|(dir, names)| names.iter().map(move |name| (dir, sentence(name))))
    }
}

fn sentence(name: &str) -> String {
    format!("{name} has a name that cannot be synced (it is not UTF-8, or not allowed); rename it.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::path;

    #[test]
    fn each_name_is_told_and_forgotten() {
        let mut unusable = Unusable::default();
        for name in ["x", "y"] {
            unusable.note(path("d"), name, true);
        }
        unusable.note(path("d/e"), "z", true);
        unusable.note(path("d.e"), "z", true);
        assert_eq!((unusable.in_dir(&path("d")).count(), unusable.iter().count()), (2, 4));
        unusable.note(path("d"), "x", false);
        unusable.note(path("none"), "x", false);
        let told: Vec<String> = unusable.in_dir(&path("d")).collect();
        assert!(told.len() == 1 && told[0].starts_with("y has a name"), "{told:?}");
        unusable.forget(&path("d"));
        let left: Vec<&RelPath> = unusable.iter().map(|(dir, _)| dir).collect();
        assert_eq!(left, [&path("d.e")]);
    }

    #[test]
    fn no_more_than_the_limits() {
        let mut unusable = Unusable::default();
        for n in 0..=NAMES_MAX {
            unusable.note(path("d"), &format!("{n}"), true);
        }
        assert_eq!(unusable.iter().count(), NAMES_MAX);
        for n in 1..=DIRS_MAX {
            unusable.note(path(&format!("d{n}")), "x", true);
        }
        assert_eq!(unusable.iter().count(), NAMES_MAX + DIRS_MAX - 1);
        unusable.note(path("d1"), "y", true);
        assert_eq!(unusable.in_dir(&path("d1")).count(), 2);
    }
}
