//! What a watcher tells of, through moves, nested roots and removals.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use clearskies_core::ids::Token;
use clearskies_core::io::Noticed;
use clearskies_core::io::disk::{DiskDone, DiskOp};

use super::*;
use crate::disk::DiskPool;

const ROOT: RootId = RootId(1);

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// Opens a directory and everything beneath it as a walk does.
fn add(watcher: &Inotify, root: RootId, top: &Path, rel: &str) {
    let fd = std::fs::File::open(top.join(rel)).unwrap();
    if rel.is_empty() {
        watcher.add_root(root, fd.as_fd());
    } else {
        watcher.add_dir(root, &path(rel), fd.as_fd());
    }
    let mut names: Vec<_> = std::fs::read_dir(top.join(rel)).unwrap().map(|e| e.unwrap()).collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() && name != ".clearskies" {
            add(watcher, root, top, path(rel).join(&name).unwrap().as_str());
        }
    }
}

/// What was hinted at since, and what was seen there.
fn heard(watcher: &Inotify) -> Vec<(u32, String, Noticed)> {
    let mut seen = Vec::new();
    watcher.poll(&mut |event| match event {
        WatchEvent::Hint { root, path, seen: what } => seen.push((root.0, path.as_str().to_owned(), what)),
        other => panic!("{other:?}"),
    });
    seen
}

/// The paths of all hints, each once, sorted.
fn hints(watcher: &Inotify) -> Vec<(u32, String)> {
    let seen: BTreeSet<_> = heard(watcher).into_iter().map(|(root, path, _)| (root, path)).collect();
    seen.into_iter().collect()
}

fn only(watcher: &Inotify) -> Vec<String> {
    hints(watcher).into_iter().map(|(_, path)| path).collect()
}

#[test]
fn tells_of_changes_at_any_depth() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    std::fs::create_dir_all(top.join("a/b")).unwrap();
    std::fs::create_dir_all(top.join(".clearskies/tmp")).unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, top, "");
    assert_eq!(watcher.watches(), 3);
    assert_eq!(only(&watcher), [""; 0]);
    std::fs::write(top.join("x"), b"x").unwrap();
    std::fs::write(top.join("a/b/y"), b"y").unwrap();
    std::fs::write(top.join(".clearskies/tmp/t"), b"y").unwrap();
    std::fs::remove_dir_all(top.join(".clearskies")).unwrap();
    assert_eq!(only(&watcher), ["a/b/y", "x"]);
    std::fs::remove_file(top.join("x")).unwrap();
    std::fs::set_permissions(top.join("a/b/y"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(only(&watcher), ["a/b/y", "x"]);
    // A new directory is watched at once.
    std::fs::create_dir(top.join("new")).unwrap();
    assert_eq!(only(&watcher), ["new"]);
    std::fs::write(top.join("new/z"), b"z").unwrap();
    assert_eq!(only(&watcher), ["new/z"]);
    std::fs::remove_dir_all(top.join("a")).unwrap();
    assert!(only(&watcher).contains(&"a".to_owned()));
    only(&watcher);
    assert_eq!(watcher.watches(), 2);
}

#[test]
fn says_when_whoever_changes_a_file_is_done_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, dir.path(), "");
    let last = || heard(&watcher).pop().map(|(_, path, seen)| (path, seen));
    let mut file = std::fs::File::create(dir.path().join("a")).unwrap();
    std::io::Write::write_all(&mut file, b"half of it").unwrap();
    assert_eq!(last(), Some(("a".to_owned(), Noticed::Changed)));
    drop(file);
    assert_eq!(last(), Some(("a".to_owned(), Noticed::Done)));
    std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    let moved: Vec<_> = heard(&watcher).into_iter().map(|(_, path, seen)| (path, seen)).collect();
    assert_eq!(moved, [("a".to_owned(), Noticed::Done), ("b".to_owned(), Noticed::Done)]);
}

#[test]
fn a_moved_directory_takes_its_watches_along() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    std::fs::create_dir_all(top.join("a/b/c")).unwrap();
    std::fs::create_dir_all(top.join("d")).unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, top, "");
    std::fs::rename(top.join("a/b"), top.join("d/e")).unwrap();
    // The walk may come first, or the events.
    for walk_first in [true, false] {
        if walk_first {
            add(&watcher, ROOT, top, "d");
        }
        let seen = only(&watcher);
        assert!(seen.is_empty() || seen.contains(&"d/e".to_owned()), "{seen:?}");
        add(&watcher, ROOT, top, "d");
        assert_eq!(watcher.watches(), 5);
        std::fs::write(top.join("d/e/c/f"), b"").unwrap();
        assert_eq!(only(&watcher), ["d/e/c/f"]);
        std::fs::rename(top.join("d/e"), top.join("a/b")).unwrap();
        std::fs::rename(top.join("a/b"), top.join("d/e")).unwrap();
    }
    only(&watcher);
    // One that leaves is not watched any more.
    let away = tempfile::tempdir().unwrap();
    std::fs::rename(top.join("d/e"), away.path().join("e")).unwrap();
    only(&watcher);
    assert_eq!(watcher.watches(), 3);
    std::fs::write(away.path().join("e/f"), b"").unwrap();
    assert_eq!(only(&watcher), [""; 0]);
    // Another directory of the same name takes its place.
    std::fs::rename(top.join("a"), top.join("z")).unwrap();
    std::fs::create_dir(top.join("a")).unwrap();
    only(&watcher);
    std::fs::write(top.join("a/f"), b"").unwrap();
    std::fs::write(top.join("z/f"), b"").unwrap();
    assert_eq!(only(&watcher), ["a/f", "z/f"]);
}

/// The paths at which directories came that nobody had watched.
fn new_dirs(watcher: &Inotify) -> Vec<String> {
    heard(watcher)
        .into_iter()
        .filter(|(.., seen)| *seen == Noticed::NewDir)
        .map(|(_, path, _)| path)
        .collect()
}

#[test]
fn tells_of_directories_in_which_nothing_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    std::fs::create_dir_all(top.join("a/b")).unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, top, "");
    // Away and back before anybody looks, and so out of the folder and in again.
    std::fs::rename(top.join("a"), top.join("c")).unwrap();
    std::fs::rename(top.join("c"), top.join("a")).unwrap();
    assert!(new_dirs(&watcher).contains(&"a".to_owned()));
    add(&watcher, ROOT, top, "");
    // Removed and made anew, perhaps with the inode that it had.
    std::fs::remove_dir_all(top.join("a")).unwrap();
    std::fs::create_dir(top.join("a")).unwrap();
    std::fs::write(top.join("a/f"), b"f").unwrap();
    assert_eq!(new_dirs(&watcher), ["a"]);
    // Whoever makes a directory and watches it at once knows all that came in it since.
    std::fs::create_dir(top.join("own")).unwrap();
    add(&watcher, ROOT, top, "own");
    std::fs::write(top.join("own/f"), b"f").unwrap();
    assert_eq!(new_dirs(&watcher), [""; 0]);
}

#[test]
fn roots_within_roots_are_both_told() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    std::fs::create_dir_all(top.join("in/deep")).unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, top, "");
    add(&watcher, RootId(2), &top.join("in"), "");
    assert_eq!(watcher.watches(), 3);
    std::fs::write(top.join("in/deep/f"), b"").unwrap();
    assert_eq!(hints(&watcher), [(1, "in/deep/f".to_owned()), (2, "deep/f".to_owned())]);
    watcher.remove_root(ROOT);
    assert_eq!(watcher.watches(), 2);
    std::fs::write(top.join("in/deep/g"), b"").unwrap();
    assert_eq!(hints(&watcher), [(2, "deep/g".to_owned())]);
    watcher.remove_root(RootId(2));
    assert_eq!(watcher.watches(), 0);
    std::fs::write(top.join("in/deep/h"), b"").unwrap();
    assert_eq!(hints(&watcher), []);
    let table = watcher.table();
    assert!(table.nodes.iter().all(Option::is_none) && table.by_name.is_empty() && table.stale.is_empty());
}

#[test]
fn a_root_that_goes_away_is_to_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("share");
    std::fs::create_dir(&top).unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, &top, "");
    std::fs::rename(&top, dir.path().join("moved")).unwrap();
    let mut seen = Vec::new();
    watcher.poll(&mut |event| seen.push(event));
    assert_eq!(seen, [WatchEvent::Overflow(ROOT)]);
}

#[test]
fn what_the_table_cannot_hold_is_told_once() {
    let watcher = Inotify::new().unwrap();
    watcher.table().limit_hit = true;
    for want in [1, 0] {
        let mut told = 0;
        watcher.poll(&mut |event| told += usize::from(event == WatchEvent::Limit));
        assert_eq!(told, want);
    }
}

#[test]
fn lost_events_are_an_overflow_of_every_root() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Inotify::new().unwrap();
    add(&watcher, ROOT, dir.path(), "");
    let mut seen = Vec::new();
    watcher.take(&mut watcher.table(), -1, ReadFlags::QUEUE_OVERFLOW, None, &mut |event| seen.push(event));
    assert_eq!(seen, [WatchEvent::Overflow(ROOT)]);
}

#[test]
fn the_pool_watches_before_it_lists() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let watcher = Arc::new(Inotify::new().unwrap());
    let (tx, done) = channel();
    let pool = DiskPool::with_watcher(2, Some(watcher.clone()), move |_, result| {
        let _ = tx.send(result);
    })
    .unwrap();
    let run = |op| {
        pool.submit(Token(1), op);
        done.recv_timeout(Duration::from_secs(10)).unwrap().unwrap()
    };
    let text = dir.path().to_str().unwrap().to_owned();
    run(DiskOp::OpenRoot { root: ROOT, path: text, create: false });
    assert_eq!(watcher.watches(), 1);
    let walk = DiskOp::Walk { root: ROOT, walk: 1, dir: RelPath::root(), limit: 100 };
    assert!(matches!(run(walk), DiskDone::Walked { done: true, .. }));
    assert_eq!(watcher.watches(), 3);
    // Above the second one nothing is watched: who puts something into it would not be heard.
    std::fs::create_dir(dir.path().join("unseen")).unwrap();
    let dirs = vec![(path("a/c"), None), (path("unseen/d"), None)];
    let DiskDone::Made(made) = run(DiskOp::MakeDirs { root: ROOT, dirs }) else { panic!() };
    let empty: Vec<bool> = made.iter().map(|made| made.unwrap().empty).collect();
    assert_eq!((watcher.watches(), empty), (4, vec![true, false]));
    std::fs::write(dir.path().join("a/c/f"), b"").unwrap();
    assert!(only(&watcher).contains(&"a/c/f".to_owned()));
    run(DiskOp::CloseRoot { root: ROOT });
    assert_eq!(watcher.watches(), 0);
}
