//! Scan reconciliation: compares a walk with the stored rows, path by path, and finds what was moved (sync.md,
//! Scanning). Pure; holds pages, never a share.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::files::path::RelPath;
use crate::files::row::{DiskState, PathRow};
use crate::index::record::EntryContent;
use crate::io::disk::{Entry, Kind, Stamp};
use crate::time::WallTime;

/// The clock's grain where it was not measured: that of FAT, the coarsest in use (sync.md).
pub const GRAIN_DEFAULT: Duration = Duration::from_secs(2);

/// What a scan says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// As the row says.
    Same,
    /// Something is here, and the row (an empty one if there was none) knows of nothing.
    New(Stamp, PathRow),
    /// The stamp differs, or was too young to be trusted: read it again.
    Changed(Stamp, PathRow),
    /// Nothing is here any more.
    Gone(PathRow),
    /// Neither present nor gone: its directory was not listed in full, or what stands here can never be synced.
    Unobserved,
}

/// One path of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The path.
    pub path: RelPath,
    /// What the scan says of it.
    pub observation: Observation,
}

/// A streaming merge of a walk with the rows of the same directory, both in the order of paths. Pages go in from
/// either side; [`Merge::poll`] gives what can be judged.
#[derive(Debug, Default)]
pub struct Merge {
    entries: VecDeque<Entry>,
    entries_done: bool,
    rows: VecDeque<(RelPath, PathRow)>,
    rows_done: bool,
    /// Directories that were not listed in full, in order.
    unobserved: Vec<RelPath>,
    failed: bool,
}

impl Merge {
    /// An empty merge.
    pub fn new() -> Merge {
        Merge::default()
    }

    /// A page of the walk. `unobserved` comes with the page that the listing's failure was part of, which is never
    /// later than the first entry behind that directory.
    pub fn push_entries(&mut self, entries: Vec<Entry>, unobserved: Vec<RelPath>, done: bool) {
        self.entries.extend(entries);
        self.unobserved.extend(unobserved);
        self.unobserved.sort();
        self.entries_done |= done;
    }

    /// A page of rows.
    pub fn push_rows(&mut self, rows: Vec<(RelPath, PathRow)>, done: bool) {
        self.rows.extend(rows);
        self.rows_done |= done;
    }

    /// The walk failed: what it did not reach is unobserved.
    pub fn fail_walk(&mut self) {
        self.failed = true;
        self.entries_done = true;
    }

    /// Whether a page of the walk is needed before anything more can be judged.
    pub fn wants_entries(&self) -> bool {
        self.entries.is_empty() && !self.entries_done
    }

    /// Whether a page of rows is needed before anything more can be judged.
    pub fn wants_rows(&self) -> bool {
        self.rows.is_empty() && !self.rows_done
    }

    /// Whether everything was judged.
    pub fn is_finished(&self) -> bool {
        self.entries_done && self.rows_done && self.entries.is_empty() && self.rows.is_empty()
    }

    /// The next path in order, or `None` until another page comes.
    pub fn poll(&mut self) -> Option<Seen> {
        if self.wants_entries() || self.wants_rows() {
            return None;
        }
        let order = match (self.entries.front(), self.rows.front()) {
            (Some(entry), Some((path, _))) => entry.path.cmp(path),
            (Some(_), None) => core::cmp::Ordering::Less,
            (None, Some(_)) => core::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        let entry = if order.is_le() { self.entries.pop_front() } else { None };
        let row = if order.is_ge() { self.rows.pop_front() } else { None };
        match (entry, row) {
            (Some(entry), row) => {
                let row = row.map(|(_, row)| row).unwrap_or_default();
                Some(Seen { observation: present(entry.stamp, row), path: entry.path })
            }
            (None, Some((path, row))) => Some(Seen { observation: self.absent(&path, row), path }),
            (None, None) => None,
        }
    }

    fn absent(&self, path: &RelPath, row: PathRow) -> Observation {
        if row.disk.is_none() {
            return Observation::Same;
        }
        let hidden = |dir: RelPath| self.unobserved.binary_search(&dir).is_ok();
        if self.failed || !self.unobserved.is_empty() && path.ancestors().any(hidden) {
            return Observation::Unobserved;
        }
        Observation::Gone(row)
    }
}

/// What a scan says of a path where something is.
pub fn present(stamp: Stamp, row: PathRow) -> Observation {
    match &row.disk {
        _ if stamp.kind == Kind::Other => Observation::Unobserved,
        None => Observation::New(stamp, row),
        Some(disk) if is_same(disk, &stamp) => Observation::Same,
        Some(_) => Observation::Changed(stamp, row),
    }
}

/// Whether the path need not be read again.
pub fn is_same(disk: &DiskState, stamp: &Stamp) -> bool {
    disk.settled && stamp_matches(&disk.stamp, stamp)
}

/// Whether two stamps show the same state. ctime counts: whoever writes and sets the mtime back changes it, and a
/// rename or chmod that did nothing else costs one hash. A directory's inode counts as well, because moves of
/// directories are told by it.
pub fn stamp_matches(a: &Stamp, b: &Stamp) -> bool {
    let times = a.kind == Kind::Dir || (a.size, a.mtime_ns, a.ctime_ns) == (b.size, b.mtime_ns, b.ctime_ns);
    a.kind == b.kind && a.inode == b.inode && a.mode == b.mode && times
}

/// Whether a stamp that was read at `hashed_at` or later tells later states from this one: a change within the same
/// grain of the clock would not show, and a time without a fraction of a second may be as coarse as any. A time in the
/// future is told from one set by a write now.
pub fn settled(stamp: &Stamp, hashed_at: WallTime, grain: Duration) -> bool {
    let old = |time: i64| {
        let grain = if time % 1_000_000_000 == 0 { grain.max(GRAIN_DEFAULT) } else { grain };
        u128::from(hashed_at.0.abs_diff(time)) >= grain.as_nanos()
    };
    stamp.kind == Kind::Dir || old(stamp.mtime_ns) && old(stamp.ctime_ns)
}

/// A path that appeared, and had no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appeared {
    /// The path.
    pub path: RelPath,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its content, once it was read; without it the inode alone counts.
    pub content: Option<EntryContent>,
}

/// A path that became another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it was; its row moves.
    pub from: RelPath,
    /// Where it is.
    pub to: RelPath,
    /// True where only the content says so: the target is an equal file, and its stamp was read anew.
    pub by_content: bool,
}

/// Finds moves between the paths that are gone at the end of a batch and those that appeared in it, both in the
/// order of paths. Directories go by their inode; what lay in them goes to the same place in the new one if it is
/// there; everything else by inode with unchanged size and mtime, then by content, equal names first. Each path is
/// used once; moves are ordered by `from`, so that a directory comes before what it holds. Paths that had no base
/// have no record that could move, and are left out, as are rows whose stamp was too young to be trusted (these may
/// still go by content). `dirs` are directories that are known to have moved, from where they were. Takes O(n log n).
pub fn match_moves(
    gone: &[(RelPath, PathRow)],
    appeared: &[Appeared],
    dirs: &BTreeMap<RelPath, RelPath>,
) -> Vec<Move> {
    let mut matching = Matching::new(gone, appeared, dirs);
    matching.known();
    matching.by_inode(true);
    matching.by_directory();
    matching.by_inode(false);
    matching.by_content(true);
    matching.by_content(false);
    matching.moves()
}

struct Matching<'a> {
    gone: &'a [(RelPath, PathRow)],
    appeared: &'a [Appeared],
    dirs: &'a BTreeMap<RelPath, RelPath>,
    /// Per gone path: the appeared one, and whether content alone told.
    target: Vec<Option<(usize, bool)>>,
    taken: Vec<bool>,
}

impl<'a> Matching<'a> {
    fn new(
        gone: &'a [(RelPath, PathRow)],
        appeared: &'a [Appeared],
        dirs: &'a BTreeMap<RelPath, RelPath>,
    ) -> Matching<'a> {
        let target = alloc::vec![None; gone.len()];
        let taken = alloc::vec![false; appeared.len()];
        Matching { gone, appeared, dirs, target, taken }
    }

    /// The gone paths that are still free, with what was on disk there.
    fn free_gone(&self) -> impl Iterator<Item = (usize, &'a RelPath, &'a DiskState)> {
        let gone = self.gone;
        self.target.iter().enumerate().filter(|(_, target)| target.is_none()).filter_map(move |(at, _)| {
            let (path, row) = &gone[at];
            row.base_uuid()?;
            Some((at, path, row.disk.as_ref()?))
        })
    }

    fn take(&mut self, from: usize, to: usize, by_content: bool) {
        self.target[from] = Some((to, by_content));
        self.taken[to] = true;
    }

    /// Pairs what has the same key, each side in its order.
    fn pair<K: Ord>(
        &mut self,
        gone_key: impl Fn(&'a RelPath, &'a DiskState) -> Option<K>,
        appeared_key: impl Fn(&'a Appeared) -> Option<K>,
        by_content: bool,
    ) {
        let mut waiting: BTreeMap<K, VecDeque<usize>> = BTreeMap::new();
        for (at, item) in self.appeared.iter().enumerate().filter(|(at, _)| !self.taken[*at]) {
            if let Some(key) = appeared_key(item) {
                waiting.entry(key).or_default().push_back(at);
            }
        }
        if waiting.is_empty() {
            return;
        }
        let keys: Vec<(usize, K)> =
            self.free_gone().filter_map(|(at, path, disk)| Some((at, gone_key(path, disk)?))).collect();
        for (from, key) in keys {
            let Some(to) = waiting.get_mut(&key).and_then(VecDeque::pop_front) else { continue };
            let read = self.appeared[to].content.as_ref();
            if read.is_none_or(|read| self.gone[from].1.content() == Some(read)) {
                self.take(from, to, by_content);
            }
        }
    }

    /// The directories that are known to have moved.
    fn known(&mut self) {
        for (from, to) in self.dirs {
            let from = self.gone.binary_search_by(|(path, _)| path.cmp(from));
            let to = self.appeared.binary_search_by(|item| item.path.cmp(to));
            if let (Ok(from), Ok(to)) = (from, to)
                && self.gone[from].1.base_uuid().is_some()
                && self.appeared[to].stamp.kind == Kind::Dir
            {
                self.take(from, to, false);
            }
        }
    }

    fn by_inode(&mut self, dirs: bool) {
        let wanted = |stamp: &Stamp| (stamp.kind == Kind::Dir) == dirs;
        self.pair(
            |_, disk| inode_key(&disk.stamp).filter(|_| wanted(&disk.stamp) && (dirs || disk.settled)),
            |item| inode_key(&item.stamp).filter(|_| wanted(&item.stamp)),
            false,
        );
    }

    /// What lay in a moved directory is looked for at the same place in the new one first.
    fn by_directory(&mut self) {
        let appeared = self.appeared;
        // The moved directories above the path at hand, outermost first.
        let mut above: Vec<(&RelPath, &RelPath)> = Vec::new();
        for at in 0..self.gone.len() {
            let (path, row) = &self.gone[at];
            while above.last().is_some_and(|(from, _)| !path.is_beneath(from)) {
                above.pop();
            }
            if let Some((to, _)) = self.target[at] {
                above.push((path, &appeared[to].path));
                continue;
            }
            let moved = above.last().copied().or_else(|| self.moved_above(path));
            let Some((from_dir, to_dir)) = moved else { continue };
            let (Some(disk), Some(_)) = (&row.disk, row.base_uuid()) else { continue };
            let Some(expected) = path.rebase(from_dir, to_dir) else { continue };
            let Ok(to) = appeared.binary_search_by(|item| item.path.cmp(&expected)) else { continue };
            let item = &appeared[to];
            let inode = inode_key(&disk.stamp).filter(|_| disk.settled);
            let same = inode.is_some() && inode == inode_key(&item.stamp);
            let equal = item.content.as_ref() == Some(&disk.content);
            let same = same && (equal || item.content.is_none());
            let both_dirs = disk.stamp.kind == Kind::Dir && item.stamp.kind == Kind::Dir;
            if !self.taken[to] && (same || equal || both_dirs) {
                self.take(at, to, !same && !both_dirs);
                if both_dirs {
                    above.push((path, &item.path));
                }
            }
        }
    }

    /// The nearest directory above a path that is known to have moved, and where it is.
    fn moved_above(&self, path: &RelPath) -> Option<(&'a RelPath, &'a RelPath)> {
        if self.dirs.is_empty() {
            return None;
        }
        path.ancestors().find_map(|dir| self.dirs.get_key_value(&dir))
    }

    fn by_content(&mut self, same_name: bool) {
        self.pair(
            |path, disk| Some((content_key(&disk.content)?, if same_name { path.name() } else { "" })),
            |item| {
                let content = item.content.as_ref().and_then(content_key)?;
                Some((content, if same_name { item.path.name() } else { "" }))
            },
            true,
        );
    }

    fn moves(self) -> Vec<Move> {
        let pairs = self.gone.iter().zip(&self.target);
        pairs
            .filter_map(|((from, _), target)| {
                let (to, by_content) = (*target)?;
                Some(Move { from: from.clone(), to: self.appeared[to].path.clone(), by_content })
            })
            .collect()
    }
}

/// What makes a path the same file under another name.
pub type InodeKey = (u64, Kind, u64, i64);

/// What makes a path the same file under another name; `None` where the file system has no inodes.
pub fn inode_key(stamp: &Stamp) -> Option<InodeKey> {
    let (size, mtime_ns) = if stamp.kind == Kind::Dir { (0, 0) } else { (stamp.size, stamp.mtime_ns) };
    (stamp.inode != 0).then_some((stamp.inode, stamp.kind, size, mtime_ns))
}

/// Directories are all alike: only files and links go by content.
fn content_key(content: &EntryContent) -> Option<&EntryContent> {
    (*content != EntryContent::Dir).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{disk, file, path, stamp};
    use crate::files::row::Base;
    use crate::ids::Uuid;
    use alloc::string::String;
    use proptest::prelude::*;

    fn row(content: EntryContent, inode: u64) -> PathRow {
        let mut disk = disk(content);
        disk.stamp.inode = inode;
        PathRow { disk: Some(disk), base: Base::Index(Uuid([1; 16])), ..PathRow::default() }
    }

    fn entry(at: &str, content: EntryContent, inode: u64) -> Entry {
        Entry { path: path(at), stamp: stamp(&content, inode) }
    }

    fn word(observation: &Observation) -> &'static str {
        match observation {
            Observation::Same => "same",
            Observation::New(..) => "new",
            Observation::Changed(..) => "changed",
            Observation::Gone(_) => "gone",
            Observation::Unobserved => "unobserved",
        }
    }

    fn all(merge: &mut Merge) -> Vec<(String, &'static str)> {
        core::iter::from_fn(|| merge.poll())
            .map(|seen| (seen.path.as_str().into(), word(&seen.observation)))
            .collect()
    }

    #[test]
    fn observations() {
        let dir = EntryContent::Dir;
        let mut young = row(file(1), 9);
        if let Some(disk) = &mut young.disk {
            disk.settled = false;
        }
        let mut merge = Merge::new();
        merge.push_rows(
            alloc::vec![
                (path("a"), row(dir.clone(), 1)),
                (path("a/gone"), row(file(1), 2)),
                (path("a/same"), row(file(1), 3)),
                (path("a.txt"), row(file(1), 4)),
                (path("absent"), PathRow::default()),
                (path("bad"), row(dir.clone(), 5)),
                (path("bad/x"), row(file(1), 6)),
                (path("bad/y"), row(file(1), 7)),
                (path("bad2"), row(file(1), 8)),
                (path("young"), young),
            ],
            true,
        );
        let mut socket = entry("socket", file(1), 1);
        socket.stamp.kind = Kind::Other;
        merge.push_entries(
            alloc::vec![
                entry("a", dir.clone(), 1),
                entry("a/new", file(1), 20),
                entry("a/same", file(1), 3),
                entry("a.txt", file(2), 4),
                entry("bad", dir, 5),
                entry("bad/y", file(1), 7),
                socket,
                entry("young", file(1), 9),
            ],
            alloc::vec![path("bad")],
            true,
        );
        let expect = [
            ("a", "same"),
            ("a/gone", "gone"),
            ("a/new", "new"),
            ("a/same", "same"),
            ("a.txt", "changed"),
            ("absent", "same"),
            ("bad", "same"),
            ("bad/x", "unobserved"),
            ("bad/y", "same"),
            ("bad2", "gone"),
            ("socket", "unobserved"),
            ("young", "changed"),
        ];
        assert_eq!(all(&mut merge), expect.map(|(p, w)| (p.into(), w)));
        assert!(merge.is_finished());
    }

    #[test]
    fn nothing_is_judged_before_both_sides_are_there() {
        let mut merge = Merge::new();
        merge.push_rows(alloc::vec![(path("a"), row(file(1), 1))], true);
        assert!(merge.wants_entries() && merge.poll().is_none());
        merge.push_entries(alloc::vec![entry("b", file(1), 2)], Vec::new(), false);
        assert_eq!(all(&mut merge), [("a".into(), "gone"), ("b".into(), "new")]);
        assert!(merge.wants_entries() && !merge.is_finished());
        // The root itself could not be listed any further.
        merge.push_rows(alloc::vec![(path("c"), row(file(1), 3))], true);
        merge.push_entries(Vec::new(), alloc::vec![RelPath::root()], true);
        assert_eq!(all(&mut merge), [("c".into(), "unobserved")]);
        let mut merge = Merge::new();
        merge.push_rows(alloc::vec![(path("c"), row(file(1), 3))], true);
        merge.fail_walk();
        assert_eq!(all(&mut merge), [("c".into(), "unobserved")]);
        assert!(merge.is_finished());
    }

    #[test]
    fn stamps() {
        let a = stamp(&file(1), 1);
        assert!(stamp_matches(&a, &a));
        for b in [
            Stamp { size: 2, ..a },
            Stamp { mtime_ns: 2, ..a },
            Stamp { ctime_ns: 2, ..a },
            Stamp { inode: 2, ..a },
            Stamp { mode: 0o600, ..a },
            Stamp { kind: Kind::Link, ..a },
        ] {
            assert!(!stamp_matches(&a, &b));
        }
        let grain = Duration::from_nanos(10);
        let times = |mtime_ns, ctime_ns| Stamp { mtime_ns, ctime_ns, ..a };
        for (stamp, expect) in [
            (times(90, 90), true),
            (times(91, 90), false),
            (times(90, 91), false),
            (times(1, 100), false),
            (times(1000, 90), true),
            (times(109, 1), false),
            (times(110, 1), true),
            (times(i64::MIN, i64::MAX), true),
        ] {
            assert_eq!(settled(&stamp, WallTime(100), grain), expect, "{stamp:?}");
        }
        assert!(settled(&stamp(&EntryContent::Dir, 1), WallTime(0), grain));
        let second = 1_000_000_000;
        for (ctime_ns, hashed_at, expect) in [
            (5 * second, 7 * second - 1, false),
            (5 * second, 7 * second, true),
            (5 * second + 1, 7 * second - 1, true),
        ] {
            assert_eq!(settled(&times(1, ctime_ns), WallTime(hashed_at), grain), expect, "{ctime_ns}");
        }
    }

    fn appeared(at: &str, content: EntryContent, inode: u64, read: bool) -> Appeared {
        Appeared { path: path(at), stamp: stamp(&content, inode), content: read.then_some(content) }
    }

    fn moves(gone: &[(&str, PathRow)], appeared: &[Appeared]) -> Vec<(String, String, bool)> {
        let gone: Vec<_> = gone.iter().map(|(at, row)| (path(at), row.clone())).collect();
        match_moves(&gone, appeared, &BTreeMap::new())
            .into_iter()
            .map(|m| (m.from.as_str().into(), m.to.as_str().into(), m.by_content))
            .collect()
    }

    fn expect(moves: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
        moves.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), *c)).collect()
    }

    #[test]
    fn moves_of_files() {
        // By inode, without reading.
        let found = moves(&[("a", row(file(1), 5))], &[appeared("b", file(1), 5, false)]);
        assert_eq!(found, expect(&[("a", "b", false)]));
        // Another size under the same inode is another file.
        assert!(moves(&[("a", row(file(1), 5))], &[appeared("b", file(2), 5, true)]).is_empty());
        // By content, the equal name first.
        let found = moves(
            &[("d/a", row(file(1), 5)), ("d/b", row(file(1), 6))],
            &[appeared("e/b", file(1), 7, true), appeared("e/x", file(1), 8, true)],
        );
        assert_eq!(found, expect(&[("d/a", "e/x", true), ("d/b", "e/b", true)]));
        // Read, and it is another file after all.
        let mut other = appeared("b", file(1), 5, true);
        other.content = Some(EntryContent::Link("x".into()));
        assert!(moves(&[("a", row(file(1), 5))], &[other]).is_empty());
        // Not read yet: not told by content.
        assert!(moves(&[("a", row(file(1), 5))], &[appeared("b", file(1), 6, false)]).is_empty());
        // No record, no move; a young stamp does not tell; no inodes do not tell.
        let mut unknown = row(file(1), 5);
        unknown.base = Base::None;
        assert!(moves(&[("a", unknown)], &[appeared("b", file(1), 5, true)]).is_empty());
        let mut young = row(file(1), 5);
        if let Some(disk) = &mut young.disk {
            disk.settled = false;
        }
        assert!(moves(&[("a", young.clone())], &[appeared("b", file(1), 5, false)]).is_empty());
        assert_eq!(moves(&[("a", young)], &[appeared("b", file(1), 5, true)]), expect(&[("a", "b", true)]));
        assert!(moves(&[("a", row(file(1), 0))], &[appeared("b", file(1), 0, false)]).is_empty());
    }

    #[test]
    fn moves_of_directories_take_what_they_hold() {
        let dir = EntryContent::Dir;
        let found = moves(
            &[
                ("d", row(dir.clone(), 1)),
                ("d/a", row(file(1), 2)),
                ("d/b", row(file(1), 3)),
                ("d/c", row(file(1), 2)),
                ("d/sub", row(dir.clone(), 0)),
                ("d/sub/x", row(file(4), 9)),
                ("other", row(file(9), 8)),
            ],
            &[
                appeared("e", dir.clone(), 1, false),
                appeared("e/a", file(1), 2, false),
                appeared("e/b", file(1), 3, false),
                appeared("e/c", file(1), 2, false),
                appeared("e/sub", dir.clone(), 0, false),
                appeared("e/sub/x", file(4), 99, true),
                appeared("new", file(7), 77, true),
            ],
        );
        // `a` and `c` are hard links of one file: each goes to its own name.
        let moved = [
            ("d", "e", false),
            ("d/a", "e/a", false),
            ("d/b", "e/b", false),
            ("d/c", "e/c", false),
            ("d/sub", "e/sub", false),
            ("d/sub/x", "e/sub/x", true),
        ];
        assert_eq!(found, expect(&moved));
        // Directories without an inode in common are not told by anything else.
        assert!(moves(&[("d", row(dir.clone(), 1))], &[appeared("e", dir, 2, true)]).is_empty());
    }

    #[test]
    fn what_is_known_of_a_directory_counts_in_every_batch() {
        let dir = EntryContent::Dir;
        let dirs = BTreeMap::from([(path("d"), path("f"))]);
        let gone = [(path("d"), row(dir.clone(), 1)), (path("d/a"), row(file(4), 9))];
        // Both have the inode, and both files the content.
        let twins = |top: &str| {
            let (dir, inner) = (appeared(top, dir.clone(), 1, false), alloc::format!("{top}/a"));
            [dir, appeared(&inner, file(4), 99, true)]
        };
        let found = [twins("e"), twins("f")].concat();
        let to =
            |moves: Vec<Move>| moves.into_iter().map(|m| String::from(m.to.as_str())).collect::<Vec<_>>();
        assert_eq!(to(match_moves(&gone, &found, &dirs)), ["f", "f/a"]);
        // The directory itself was in the batch before.
        assert_eq!(to(match_moves(&gone[1..], &found, &dirs)), ["f/a"]);
        assert_eq!(to(match_moves(&gone[1..], &found, &BTreeMap::new())), ["e/a"]);
    }

    #[test]
    fn many_moves_are_found_quickly() {
        let mut gone = Vec::new();
        let mut found = Vec::new();
        for n in 0..20_000u64 {
            gone.push((path(&alloc::format!("d/{n:05}")), row(file(1), n + 1)));
            found.push(appeared(&alloc::format!("e/{n:05}"), file(1), 20_000 - n, n % 2 == 0));
        }
        assert_eq!(match_moves(&gone, &found, &BTreeMap::new()).len(), 20_000);
    }

    proptest! {
        #[test]
        fn merging_names_each_path_once(
            walk in proptest::collection::btree_set("[ab.](/[ab.]){0,2}", 0..20),
            known in proptest::collection::btree_set("[ab.](/[ab.]){0,2}", 0..20),
            page in 1usize..4,
        ) {
            let legal = |texts: &alloc::collections::BTreeSet<String>| {
                let mut paths: Vec<RelPath> = texts.iter().filter_map(|text| RelPath::new(text)).collect();
                paths.sort();
                paths
            };
            let (walk, known) = (legal(&walk), legal(&known));
            let mut merge = Merge::new();
            let mut entries = walk.iter().map(|p| Entry { path: p.clone(), stamp: stamp(&file(1), 1) });
            let mut rows = known.iter().map(|p| (p.clone(), row(file(1), 1)));
            let mut seen = Vec::new();
            while !merge.is_finished() {
                if merge.wants_entries() {
                    let next: Vec<_> = entries.by_ref().take(page).collect();
                    let done = next.len() < page;
                    merge.push_entries(next, Vec::new(), done);
                }
                if merge.wants_rows() {
                    let next: Vec<_> = rows.by_ref().take(page).collect();
                    let done = next.len() < page;
                    merge.push_rows(next, done);
                }
                while let Some(next) = merge.poll() {
                    let expect = match (walk.contains(&next.path), known.contains(&next.path)) {
                        (true, true) => "same",
                        (true, false) => "new",
                        _ => "gone",
                    };
                    prop_assert_eq!(word(&next.observation), expect);
                    seen.push(next.path);
                }
            }
            let mut all: Vec<RelPath> = walk.into_iter().chain(known).collect();
            all.sort();
            all.dedup();
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn moves_use_each_path_once(
            gone in proptest::collection::btree_map("[a-d](/[ab]){0,2}", (0u8..4, 0u64..5), 0..12),
            new in proptest::collection::btree_map("[e-h](/[ab]){0,2}", (0u8..4, 0u64..5, any::<bool>()), 0..12),
        ) {
            let content = |n: u8| if n == 0 { EntryContent::Dir } else { file(n) };
            let mut gone: Vec<_> = gone.iter().map(|(at, (n, inode))| (path(at), row(content(*n), *inode))).collect();
            let mut new: Vec<_> =
                new.iter().map(|(at, (n, inode, read))| appeared(at, content(*n), *inode, *read)).collect();
            gone.sort_by(|a, b| a.0.cmp(&b.0));
            new.sort_by(|a, b| a.path.cmp(&b.path));
            let found = match_moves(&gone, &new, &BTreeMap::new());
            prop_assert!(found.is_sorted_by(|a, b| a.from < b.from));
            let targets: alloc::collections::BTreeSet<_> = found.iter().map(|m| m.to.clone()).collect();
            prop_assert_eq!(targets.len(), found.len());
            for m in &found {
                let from = gone.iter().find(|(p, _)| *p == m.from).and_then(|(_, r)| r.disk.as_ref());
                let to = new.iter().find(|item| item.path == m.to);
                let (Some(from), Some(to)) = (from, to) else { panic!("unknown path") };
                prop_assert_eq!(from.stamp.kind, to.stamp.kind);
                // What stands there now is what was gone, as far as anybody looked.
                prop_assert!(from.stamp.size == to.stamp.size);
                if let Some(content) = &to.content {
                    prop_assert_eq!(content, &from.content);
                }
            }
        }
    }
}
