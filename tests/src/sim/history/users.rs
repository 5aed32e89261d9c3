//! What users do, and what the ledger learns of it.

use std::collections::{BTreeMap, BTreeSet};

use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::io::disk::{DiskError, Kind};

use super::super::disk::SimDisk;
use super::super::generate::LARGE;
use super::super::rng::Rng;
use super::super::script::{Step, Verb};
use super::super::share::SHARE;
use super::super::users::exchange;
use super::History;

/// A link that leads out of every share.
const LINK_TARGET: &str = "/outside";

/// Bytes beside the number of contents below [`LARGE`], below twice that, and beyond.
const LENGTHS: [u64; 3] = [0, 90_000, 900_000];
/// The most that a script may ask for.
const SIZE_MAX: u64 = 20_000_000;

/// The content with a number: no two numbers have the same.
pub fn content(number: u64, size: u64) -> Vec<u8> {
    let mut content = format!("<{number}>").into_bytes();
    let size = size.min(SIZE_MAX) + LENGTHS[usize::try_from(number / LARGE).map_or(2, |class| class.min(2))];
    let size = usize::try_from(size).expect("some megabytes at most");
    // Large ones have much in common, so that what differs is sent of them.
    let common = if number >= LARGE { size / 4 * 3 } else { 0 };
    content.extend(Rng::new(LARGE).bytes(common));
    content.extend(Rng::new(number).bytes(size - common));
    content
}

impl History {
    /// A path of a step as a user types it.
    pub(super) fn typed(&self, node: usize, path: &str) -> Option<String> {
        let Some(number) = path.strip_prefix('*') else { return Some(path.to_owned()) };
        let tree = self.world.nodes[node].disk.entries(SHARE);
        let number = number.parse::<usize>().unwrap_or_default();
        tree.keys().nth(number.checked_rem(tree.len())?).cloned()
    }

    /// All files of a machine, with their contents.
    pub(super) fn files(&self, node: usize) -> Vec<(String, Vec<u8>)> {
        self.files_where(node, |_| true)
    }

    /// The files at a path and beneath.
    fn files_at(&self, node: usize, path: &str) -> Vec<(String, Vec<u8>)> {
        self.files_where(node, |name| {
            name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn files_where(&self, node: usize, wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
        let entries = self.world.nodes[node].disk.entries(SHARE).into_iter();
        let files = entries.filter(|(path, _)| wanted(path));
        files.filter_map(|(path, (_, data))| Some((path, data?.to_vec()))).collect()
    }

    fn kind_at(&self, node: usize, path: &str) -> Option<Kind> {
        self.world.nodes[node].disk.kind(&format!("{SHARE}/{path}"))
    }

    fn on_disk(&mut self, node: usize, act: impl FnOnce(&mut SimDisk, i64) -> Result<(), DiskError>) -> bool {
        self.world.node(node).disk(act).is_ok()
    }

    /// Makes a directory and its parents, one after the other.
    fn make_dirs(&mut self, node: usize, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(end, _)| end).skip(1).chain([path.len()]);
        ends.into_iter().all(|end| self.on_disk(node, |disk, now| disk.mkdir(now, &path[..end])))
    }

    /// What was written to a file that has other names stands at all of them.
    fn stands_twice(&mut self, node: usize, at: &str, content: &[u8]) {
        if self.world.nodes[node].disk.has_other_names(at) {
            self.ledger.handled(&[content.to_vec()]);
        }
    }

    /// Where users gave files several names: the inode of each path.
    fn inodes(&self, node: usize) -> BTreeMap<String, u64> {
        let disk = &self.world.nodes[node].disk;
        let paths = if self.linked { disk.entries(SHARE) } else { BTreeMap::new() }.into_keys();
        let inode = |path: String| disk.inode(&format!("{SHARE}/{path}")).map(|inode| (path, inode));
        paths.filter_map(inode).collect()
    }

    pub(super) fn user(&mut self, step: &Step) {
        let node = step.node;
        self.act(step);
        for (content, path) in self.ledger.deleted_by(node) {
            if self.kind_at(node, &path) == Some(Kind::File) && self.is_known(node, &path, &content) {
                self.ledger.overwritten(&content);
            }
        }
        if self.ledger.deletes().next().is_none() {
            return;
        }
        let entries = self.world.nodes[node].disk.entries(SHARE);
        let is_other = |(content, path): &(&Vec<u8>, &String)| match entries.get(*path) {
            Some((_, data)) => data.as_ref().is_none_or(|data| **data != **content),
            None => false,
        };
        let followed: Vec<Vec<u8>> =
            self.ledger.deletes().filter(is_other).map(|(content, _)| content.clone()).collect();
        followed.iter().for_each(|content| self.ledger.followed(content));
    }

    fn act(&mut self, step: &Step) {
        let node = step.node;
        let Some(path) = self.typed(node, &step.path) else { return };
        self.ledger.had_a_hand(node);
        let at = format!("{SHARE}/{path}");
        let before = self.files_at(node, &path);
        let old: Vec<Vec<u8>> = before.iter().map(|(_, data)| data.clone()).collect();
        match step.verb {
            Verb::Write | Verb::Save => {
                if matches!(self.kind_at(node, &path), Some(Kind::Dir | Kind::Link)) {
                    return;
                }
                let content = content(step.number, step.size);
                let above = at.rsplit_once('/').map_or_else(String::new, |(above, _)| above.to_owned());
                let save = step.verb == Verb::Save;
                let same = old.as_slice() == std::slice::from_ref(&content);
                let known = !same && self.is_known(node, &path, &content);
                let beside = if save { self.files_at(node, &format!("{path}.new")) } else { Vec::new() };
                let new = format!("{at}.new");
                let first = if save { &new } else { &at };
                let done = self.make_dirs(node, &above)
                    && self.on_disk(node, |disk, now| disk.write(now, first, &content))
                    && (!save || self.on_disk(node, |disk, now| disk.rename_over(now, &new, &at)));
                if done {
                    if same {
                        // The same bytes once more are no change, whoever changes them meanwhile.
                        self.ledger.handled(&old);
                    } else {
                        self.ledger.replaced(&old);
                        self.ledger.wrote(&content);
                        self.stands_twice(node, &at, &content);
                        if known {
                            self.ledger.went_unseen(&content);
                        }
                    }
                    // What is made beside it takes the place of what had that name.
                    let beside: Vec<Vec<u8>> = beside.into_iter().map(|(_, data)| data).collect();
                    self.ledger.replaced(&beside);
                } else {
                    // A full disk leaves what it could take.
                    for path in [new, at] {
                        let left = self.world.nodes[node].disk.read_file(&path);
                        if let Some(left) = left.filter(|left| old.first() != Some(left)) {
                            self.ledger.replaced(&old);
                            self.ledger.wrote(&left);
                            // An empty file is what is left of nothing: nobody misses it.
                            self.ledger.handled(std::slice::from_ref(&left));
                            if left.is_empty() {
                                self.ledger.replaced(&[left]);
                            }
                        }
                    }
                }
            }
            Verb::Append | Verb::Truncate => {
                let [old] = old.as_slice() else { return };
                let mut new = old.clone();
                match step.verb {
                    Verb::Append => new.extend(content(step.number, 0)),
                    _ => new.truncate(old.len() / 2),
                }
                let done = self.on_disk(node, |disk, now| match step.verb {
                    Verb::Append => disk.append(now, &at, &new[old.len()..]),
                    _ => disk.truncate(now, &at, new.len()),
                });
                if done {
                    if new == *old {
                        // What is empty stays so: no change, whoever changes it meanwhile.
                        self.ledger.handled(std::slice::from_ref(old));
                        return;
                    }
                    self.ledger.replaced(std::slice::from_ref(old));
                    self.ledger.wrote(&new);
                    self.stands_twice(node, &at, &new);
                    if self.is_known(node, &path, &new) {
                        // Longer and cut off again, before any program looked.
                        self.ledger.went_unseen(&new);
                    }
                }
            }
            Verb::Rewrite => {
                let [(name, data)] = before.as_slice() else { return };
                if *name == path && self.on_disk(node, |disk, now| disk.write(now, &at, data)) {
                    self.ledger.handled(&old);
                }
            }
            Verb::Touch => {
                let mtime_ns =
                    self.world.wall_ns(node) + i64::try_from(step.number).unwrap_or(0) * 1_000_000_000;
                if self.on_disk(node, |disk, now| disk.touch(now, &at, mtime_ns)) {
                    self.ledger.handled(&old);
                }
            }
            Verb::Chmod => {
                let is_dir = self.kind_at(node, &path) == Some(Kind::Dir);
                // A folder that its owner shut cannot be synced, and says so: that would be no rest.
                let least = if is_dir { 0o700 } else { 0o400 };
                let mode = u32::try_from(step.number & 0o777).expect("nine bits") | least;
                if self.on_disk(node, |disk, now| disk.chmod(now, &at, mode)) {
                    self.ledger.handled(&old);
                }
            }
            Verb::Mkdir => {
                self.make_dirs(node, &at);
            }
            Verb::Rename | Verb::Swap => {
                let Some(to) = self.typed(node, &step.to) else { return };
                let (to_at, swap) = (format!("{SHARE}/{to}"), step.verb == Verb::Swap);
                let there = self.files_at(node, &to).into_iter().map(|(_, data)| data);
                let moved: Vec<Vec<u8>> = old.into_iter().chain(there).collect();
                let renames = if swap { exchange(&at, &to_at).to_vec() } else { vec![[at, to_at]] };
                let _ = renames
                    .iter()
                    .all(|[from, to]| self.on_disk(node, |disk, now| disk.rename_path(now, from, to)));
                self.ledger.handled(&moved);
                self.ledger.moved_away(&path);
                if swap {
                    self.ledger.moved_away(&to);
                }
            }
            Verb::Remove => {
                let inodes = self.inodes(node);
                // As far as it got: a closed directory may end it in the middle.
                self.on_disk(node, |disk, now| disk.remove_path(now, &at));
                let left = self.files_at(node, &path);
                if self.anew.contains(&node) {
                    // What its program has not seen yet it cannot tell to be gone.
                    self.ledger.handled(&self.unseen(node, &before));
                }
                let gone: Vec<_> = before.into_iter().filter(|file| !left.contains(file)).collect();
                // What has another name yet stands there.
                let there: BTreeSet<u64> = self.inodes(node).into_values().collect();
                let stands = |(path, _): &&(String, Vec<u8>)| {
                    inodes.get(path).is_some_and(|inode| there.contains(inode))
                };
                let (kept, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(|file| stands(&file));
                let kept: Vec<_> = kept.into_iter().map(|(_, data)| data).collect();
                self.ledger.handled(&kept);
                self.ledger.deleted(node, &gone);
                // A copied home makes again what it did since it started, and cannot know which of it others had seen
                // (sync.md, Known gaps).
                let again = gone.iter().map(|(_, data)| data).filter(|data| self.made_again.contains(*data));
                let again: Vec<_> = again.cloned().collect();
                self.ledger.handled(&again);
                if self.ledger.forgetful {
                    // What power or a backup took from the store, and is gone before it is looked at, nobody can tell
                    // of: neither of a file nor of its last version.
                    self.ledger.handled(&self.unseen(node, &gone));
                    let unknown = gone.into_iter().filter(|(path, _)| !self.knows(node, path));
                    let unknown: Vec<_> = unknown.map(|(_, data)| data).collect();
                    self.ledger.handled(&unknown);
                }
            }
            Verb::Link => {
                self.on_disk(node, |disk, now| disk.symlink(now, &at, LINK_TARGET));
            }
            Verb::HardLink => {
                let ([old], Some(to)) = (old.as_slice(), self.typed(node, &step.to)) else { return };
                let to_at = format!("{SHARE}/{to}");
                if self.on_disk(node, |disk, now| disk.hard_link(now, &at, &to_at)) {
                    self.linked = true;
                    self.ledger.wrote(old);
                    self.ledger.handled(std::slice::from_ref(old));
                }
            }
            Verb::Restore => self.restore(node, step.number),
            Verb::Resolve => self.resolve(node, step.number),
            Verb::Decide if self.runs(node) => {
                let confirm = step.number == 1;
                if !confirm {
                    self.ledger.undeleted(node);
                }
                let decide = Command::DecideDeletions { path: SHARE.into(), confirm };
                let _ = self.world.ask(node, decide);
            }
            _ => {}
        }
    }

    fn restore(&mut self, node: usize, number: u64) {
        if !self.runs(node) {
            return;
        }
        let Ok(Reply::Archive(list)) = self.world.ask(node, Command::Archive { path: SHARE.into() }) else {
            return;
        };
        let number = usize::try_from(number).unwrap_or(0);
        let Some(pick) = number.checked_rem(list.len()).and_then(|number| list.get(number)) else { return };
        let (folder, path) = (pick.folder.clone(), pick.path.as_str().to_owned());
        let kept =
            self.world.nodes[node].disk.read_file(&format!("{SHARE}/.clearskies/archive/{folder}/{path}"));
        let ask = Command::Restore { path: format!("{SHARE}/{path}"), folder: Some(folder) };
        // Whether it came back or not, it may stand where it was deleted.
        if let Some(kept) = kept {
            let alive = self.ledger.alive().any(|content| *content == kept);
            self.ledger.handled(std::slice::from_ref(&kept));
            if self.world.ask(node, ask).is_ok() && !alive {
                self.ledger.restored(node, &kept);
            }
        }
    }

    fn resolve(&mut self, node: usize, number: u64) {
        if !self.runs(node) {
            return;
        }
        let Ok(Reply::Conflicts(list)) = self.world.ask(node, Command::Conflicts { path: None }) else {
            return;
        };
        let pick = usize::try_from(number / 2).unwrap_or(0).checked_rem(list.len());
        let Some(pick) = pick.and_then(|number| list.get(number)).cloned() else { return };
        let keep = number.is_multiple_of(2);
        self.ledger.settled();
        if keep {
            self.ledger.kept(node);
        }
        let _ = self.world.ask(node, Command::Resolve { path: pick.path, keep });
    }
}
