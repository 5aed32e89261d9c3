//! Changes of the share, and the archive.

use std::os::unix::fs::PermissionsExt;

use clearskies_core::io::disk::SetMeta;

use super::super::{archive, install, temp};
use super::*;

const FOLDER: &str = "20260102T030405";

/// Runs a test with the calls of this kernel, and again without them.
fn both(check: impl Fn(&Bench)) {
    check(&Bench::new());
    let bench = Bench::new();
    bench.without_new_calls();
    check(&bench);
}

#[test]
fn installs_new_paths_and_never_over_anything() {
    both(|bench| {
        let staged = bench.stage_file(1, b"one");
        assert_eq!(bench.install(1, "dir/f", None, None), Err(DiskError::NotFound));
        std::fs::create_dir(bench.at("dir")).unwrap();
        let stamp = bench.install(1, "dir/f", None, None).unwrap();
        assert_eq!(stamp, Stamp { ctime_ns: stamp.ctime_ns, ..staged.stamp });
        assert_eq!(bench.stat("dir/f"), Ok(stamp));
        assert_eq!(bench.install(1, "dir/g", None, None), Err(DiskError::NotFound));
        bench.stage_file(2, b"two");
        assert_eq!(bench.install(2, "dir/f", None, None), Err(DiskError::Exists));
        assert_eq!(bench.install(2, "dir", None, None), Err(DiskError::Exists));
        assert_eq!(bench.install(2, "", None, None), Err(DiskError::Denied));
        assert_eq!(bench.read("dir/f"), "one");
        bench.stage(3, StageContent::Link("x".into())).unwrap();
        let link = bench.install(3, "dir/link", None, None).unwrap();
        assert_eq!((link.kind, bench.stat("dir/link")), (Kind::Link, Ok(link)));
        assert_eq!(bench.temps(), ["0000000000000002"]);
    });
}

#[test]
fn replaces_only_what_was_seen_and_archives_it() {
    both(|bench| {
        let old = bench.write("a/b/f", b"old");
        bench.stage_file(1, b"new");
        for wrong in [
            Stamp { size: 4, ..old },
            Stamp { mtime_ns: 0, ..old },
            Stamp { inode: 1, ..old },
            Stamp { kind: Kind::Link, ..old },
            Stamp { mode: 0, ..old },
        ] {
            assert_eq!(bench.install(1, "a/b/f", Some(wrong), Some(FOLDER)), Err(DiskError::Changed));
        }
        assert_eq!(bench.read("a/b/f"), "old");
        assert_eq!(bench.install(1, "a/b/gone", Some(old), Some(FOLDER)), Err(DiskError::Changed));
        assert_eq!(bench.install(1, "a/b/f", Some(old), Some("../up")), Err(DiskError::BadName));
        assert_eq!(bench.temps(), ["0000000000000001"], "the temp is still there");
        let other = Stamp { ctime_ns: 0, ..old };
        let stamp = bench.install(1, "a/b/f", Some(other), Some(FOLDER)).unwrap();
        assert_eq!((bench.read("a/b/f").as_str(), bench.stat("a/b/f")), ("new", Ok(stamp)));
        let archived = format!(".clearskies/archive/{FOLDER}/a/b");
        assert_eq!(bench.read(&format!("{archived}/f")), "old");
        // A name in the archive that is taken gets a suffix.
        bench.stage_file(2, b"newer");
        let stamp = bench.install(2, "a/b/f", Some(stamp), Some(FOLDER)).unwrap();
        assert_eq!(names(&bench.at(&archived)), ["f", "f~1"]);
        // Without a folder the old version goes.
        bench.stage_file(3, b"newest");
        bench.install(3, "a/b/f", Some(stamp), None).unwrap();
        assert_eq!(bench.read("a/b/f"), "newest");
        assert_eq!(names(&bench.at(&archived)), ["f", "f~1"]);
        assert!(bench.temps().is_empty());
    });
}

/// What `replace` does when the path changes between the look before and the exchange.
#[test]
fn an_exchange_that_meets_an_edit_is_undone() {
    use rustix::fd::AsFd;
    both(|bench| {
        let root = bench.root();
        let tmp = root.tmp().unwrap();
        for folder in [None, Some(FOLDER)] {
            let seen = bench.write("f", b"edit");
            let staged = bench.stage_file(1, b"theirs").stamp;
            let want = Stamp { size: 9, ..seen };
            let path = path("f");
            let place = install::Place { root: &root, dir: root.fd.as_fd(), name: "f", path: &path };
            let mut archive = archive::Archive::new(&root);
            let temp = temp::temp_name(TempId(1));
            let done = install::replace(&place, tmp.as_fd(), &temp, &mut archive, folder, &want, &staged);
            assert_eq!(done, Err(DiskError::Changed));
            assert_eq!((bench.read("f").as_str(), bench.temps()), ("edit", vec![temp]));
            if folder.is_some() {
                assert_eq!(names(&bench.at(&format!(".clearskies/archive/{FOLDER}"))), [""; 0]);
            }
        }
    });
}

#[test]
fn undoing_an_exchange_leaves_the_newest_edit_at_its_path() {
    use rustix::fd::AsFd;
    let bench = Bench::new();
    let root = bench.root();
    let tmp = root.tmp().unwrap();
    let path = path("f");
    let place = install::Place { root: &root, dir: root.fd.as_fd(), name: "f", path: &path };
    let slot = bench.at(".clearskies/tmp/slot");
    let undo = |staged: &Stamp| {
        std::fs::write(&slot, b"edit").unwrap();
        install::turn_back(&place, tmp.as_fd(), "slot", staged).unwrap()
    };
    // Our own version is still at the path.
    let ours = bench.write("f", b"ours");
    assert!(undo(&ours));
    assert_eq!((bench.read("f").as_str(), std::fs::read(&slot).unwrap()), ("edit", b"ours".to_vec()));
    // It was written to: no temp any more.
    std::fs::remove_file(&slot).unwrap();
    let ours = bench.write("f", b"ours, written to");
    assert!(!undo(&Stamp { size: 4, ..ours }));
    assert_eq!(
        (bench.read("f").as_str(), std::fs::read(&slot).unwrap()),
        ("edit", b"ours, written to".to_vec())
    );
    // Somebody replaced it by a newer edit.
    std::fs::remove_file(&slot).unwrap();
    bench.write("f", b"newer");
    assert!(!undo(&Stamp { inode: 1, ..ours }));
    assert_eq!((bench.read("f").as_str(), std::fs::read(&slot).unwrap()), ("newer", b"edit".to_vec()));
    // Somebody removed it.
    std::fs::remove_file(&slot).unwrap();
    std::fs::remove_file(bench.at("f")).unwrap();
    assert!(!undo(&ours));
    assert_eq!((bench.read("f").as_str(), slot.exists()), ("edit", false));
}

#[test]
fn an_exchange_that_brings_out_something_else_is_undone() {
    for folder in [None, Some(FOLDER)] {
        let bench = Bench::new();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (file, other) = (bench.at("f"), bench.dir.path().join("other"));
        std::fs::write(&file, b"edit 0").unwrap();
        // Somebody saves by rename all the time, and remembers what was saved last.
        let writer = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut n = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    std::fs::write(&other, format!("edit {n}")).unwrap();
                    std::fs::rename(&other, &file).unwrap();
                }
                n
            }
        });
        let mut installed = 0;
        for temp in 0..400 {
            let Ok(seen) = bench.stat("f") else { continue };
            bench.stage_file(temp, b"from elsewhere");
            match bench.install(temp, "f", Some(seen), folder) {
                Ok(_) => installed += 1,
                Err(DiskError::Changed | DiskError::NotFound) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        let edits = writer.join().unwrap();
        // The last save is at the path, unless a later install replaced it knowingly; then it is in the archive.
        let last = bench.read("f");
        assert!(last == format!("edit {edits}") || last == "from elsewhere", "{last} {edits} {installed}");
        if last == "from elsewhere" && folder.is_some() {
            let archive = bench.at(&format!(".clearskies/archive/{FOLDER}"));
            let kept = names(&archive);
            let want = format!("edit {edits}");
            assert!(kept.iter().any(|name| std::fs::read_to_string(archive.join(name)).unwrap() == want));
        }
    }
}

#[test]
fn removes_only_what_was_seen() {
    both(|bench| {
        let stamp = bench.write("d/f", b"x");
        assert_eq!(bench.remove("d/f", Stamp { size: 2, ..stamp }, Some(FOLDER)), Err(DiskError::Changed));
        let dir = bench.stat("d").unwrap();
        assert_eq!(bench.remove("d", dir, None), Err(DiskError::NotEmpty));
        assert_eq!(bench.remove("d", stamp, None), Err(DiskError::Changed));
        assert_eq!(bench.remove("d/f", dir, None), Err(DiskError::Changed));
        assert_eq!(bench.remove("d/f", stamp, Some(FOLDER)), Ok(()));
        assert_eq!(bench.read(&format!(".clearskies/archive/{FOLDER}/d/f")), "x");
        assert_eq!(bench.remove("d/f", stamp, Some(FOLDER)), Err(DiskError::NotFound));
        let stamp = bench.write("d/g", b"y");
        assert_eq!(bench.remove("d/g", stamp, None), Ok(()));
        assert_eq!(bench.remove("d", dir, None), Ok(()));
        assert_eq!(bench.remove("", dir, None), Err(DiskError::Denied));
        // A file where the archive needs a directory, and the other way round.
        let stamp = bench.write("d", b"now a file");
        assert_eq!(bench.remove("d", stamp, Some(FOLDER)), Ok(()));
        assert_eq!(names(&bench.at(&format!(".clearskies/archive/{FOLDER}"))), ["d", "d~1"]);
        let stamp = bench.write("e", b"first a file");
        assert_eq!(bench.remove("e", stamp, Some(FOLDER)), Ok(()));
        let stamp = bench.write("e/f", b"then below");
        assert_eq!(bench.remove("e/f", stamp, Some(FOLDER)), Ok(()));
        assert_eq!(bench.read(&format!(".clearskies/archive/{FOLDER}/e~1/f")), "then below");
        assert!(bench.temps().is_empty());
    });
}

#[test]
fn makes_directories_and_renames() {
    both(|bench| {
        let dirs =
            vec![(path("a"), Some(0o300)), (path("a/b"), None), (path("c"), Some(0o1750)), (path("a"), None)];
        let made = match bench.run(DiskOp::MakeDirs { root: ROOT, dirs }).unwrap() {
            DiskDone::Made(made) => made,
            other => panic!("{other:?}"),
        };
        assert_eq!(made[0].unwrap().stamp.mode, 0o300);
        assert_eq!(made[2].unwrap().stamp.mode, 0o750);
        assert_eq!(made[3].map(|made| made.stamp), made[0].map(|made| made.stamp));
        let file = bench.write("a/b/f", b"x");
        let dirs = vec![(path("a/b/f"), None), (path("none/x"), None)];
        let made = bench.run(DiskOp::MakeDirs { root: ROOT, dirs });
        let want = vec![Err(DiskError::WrongKind), Err(DiskError::NotFound)];
        assert_eq!(made, Ok(DiskDone::Made(want)));
        let rename = |from: &str, to: &str, stamp| match bench
            .run(DiskOp::Rename { root: ROOT, from: path(from), to: path(to), stamp })
            .unwrap()
        {
            DiskDone::Stamps(mut stamps) => stamps.remove(0),
            other => panic!("{other:?}"),
        };
        let dir = bench.stat("a/b").unwrap();
        assert_eq!(rename("a/b", "a/b/c", dir), Err(DiskError::Exists));
        assert_eq!(rename("a/b", "c", dir), Err(DiskError::Exists));
        assert_eq!(rename("a/b", "c/b", dir).map(|stamp| stamp.inode), Ok(dir.inode));
        assert_eq!(rename("a/b", "x", dir), Err(DiskError::NotFound));
        assert_eq!(rename("c/b/f", "g", Stamp { size: 9, ..file }), Err(DiskError::Changed));
        assert_eq!(rename("c/b/f", "none/g", file), Err(DiskError::NotFound));
        bench.write("taken", b"t");
        assert_eq!(rename("c/b/f", "taken", file), Err(DiskError::Exists));
        let moved = rename("c/b/f", "g", file).unwrap();
        assert_eq!(moved, Stamp { ctime_ns: moved.ctime_ns, ..file });
        assert_eq!(bench.read("g"), "x");
    });
}

#[test]
fn sets_bits_and_times_without_following() {
    both(|bench| {
        let set = |rel: &str, stamp, mode, mtime_ns| {
            let items = vec![SetMeta { path: path(rel), stamp, mode, mtime_ns }];
            match bench.run(DiskOp::SetMeta { root: ROOT, items }).unwrap() {
                DiskDone::Stamps(mut stamps) => stamps.remove(0),
                other => panic!("{other:?}"),
            }
        };
        let stamp = bench.write("f", b"x");
        let stamp = set("f", stamp, Some(0o000), Some(-1_500_000_000)).unwrap();
        assert_eq!((stamp.mode, stamp.mtime_ns), (0, -1_500_000_000));
        let stamp = set("f", stamp, Some(0o4711), None).unwrap();
        assert_eq!((stamp.mode, stamp.mtime_ns), (0o711, -1_500_000_000), "nobody is handed a set-id bit");
        assert_eq!(bench.stat("f"), Ok(stamp));
        assert_eq!(set("f", Stamp { size: 7, ..stamp }, Some(0), None), Err(DiskError::Changed));
        std::os::unix::fs::symlink("f", bench.at("link")).unwrap();
        let link = bench.stat("link").unwrap();
        assert_eq!(set("link", link, Some(0o777), Some(0)), Ok(link));
        assert_eq!(bench.stat("f"), Ok(stamp));
        std::fs::create_dir(bench.at("d")).unwrap();
        let dir = bench.stat("d").unwrap();
        assert_eq!(set("d", dir, Some(0o700), Some(0)).unwrap().mode, 0o700);
        std::fs::set_permissions(bench.at("d"), std::fs::Permissions::from_mode(0o2750)).unwrap();
        let dir = bench.stat("d").unwrap();
        assert_eq!(set("d", dir, Some(0o755), None).unwrap().mode, 0o2755, "a user's own set-id bit stays");
        assert_eq!(std::fs::metadata(bench.at("d")).unwrap().mtime(), 0);
        assert_eq!(set("none", dir, None, None), Err(DiskError::NotFound));
    });
}

#[test]
fn the_archive_is_listed_restored_and_pruned() {
    let bench = Bench::new();
    for (folder, rel) in [("2", "x/a"), ("1", "b"), ("3", "c"), ("2", "x/b")] {
        let stamp = bench.write(rel, folder.as_bytes());
        bench.remove(rel, stamp, Some(folder)).unwrap();
    }
    let list = |limit| match bench.run(DiskOp::ListArchive { root: ROOT, limit }).unwrap() {
        DiskDone::Archived(list) => {
            list.into_iter().map(|item| (item.folder, item.path.as_str().to_owned())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let item = |folder: &str, rel: &str| (folder.to_owned(), rel.to_owned());
    let want = [item("3", "c"), item("2", "x/a"), item("2", "x/b"), item("1", "b")];
    assert_eq!(list(100), want);
    assert_eq!(list(2), want[..2]);
    assert_eq!(list(0), []);
    let restore = |folder: &str, rel: &str, to: &str| {
        let op = DiskOp::RestoreArchived { root: ROOT, folder: folder.into(), path: path(rel), to: path(to) };
        match bench.run(op).unwrap() {
            DiskDone::Stamps(mut stamps) => stamps.remove(0),
            other => panic!("{other:?}"),
        }
    };
    let stamp = restore("2", "x/a", "new/dir/a").unwrap();
    assert_eq!((bench.read("new/dir/a").as_str(), bench.stat("new/dir/a")), ("2", Ok(stamp)));
    assert_eq!(restore("2", "x/a", "new/dir/a"), Err(DiskError::Exists));
    assert_eq!(restore("2", "none", "y"), Err(DiskError::NotFound));
    assert_eq!(restore("..", "share", "y"), Err(DiskError::BadName));
    assert_eq!(restore("2", "x", "y"), Err(DiskError::WrongKind));
    assert_eq!(list(100), want, "the archive keeps its own");
    bench.run(DiskOp::PruneArchive { root: ROOT, before: "3".into() }).unwrap();
    assert_eq!(list(100), want[..1]);
    assert_eq!(names(&bench.at(".clearskies/archive")), ["3"]);
    bench.run(DiskOp::RemoveMarker { root: ROOT }).unwrap();
    assert_eq!(list(100), want[..1], "and stays when the share goes");
}

/// Prints how many small files a second are staged and installed, and how fast a file is hashed.
#[test]
#[ignore = "a measurement, run by hand"]
fn speed() {
    let bench = Bench::new();
    let count = 100_000u64;
    std::fs::create_dir(bench.at("d")).unwrap();
    let start = std::time::Instant::now();
    for batch in 0..count / 500 {
        let temps = batch * 500..(batch + 1) * 500;
        let files = temps
            .map(|n| Stage {
                temp: TempId(n),
                content: StageContent::File(vec![7; 600]),
                mode: Some(0o644),
                mtime_ns: Some(1),
            })
            .collect();
        bench.submit(DiskOp::Stage { root: ROOT, files });
    }
    for _ in 0..count / 500 {
        bench.done.recv().unwrap().1.unwrap();
    }
    let staged = start.elapsed();
    for batch in 0..count / 500 {
        let temps = batch * 500..(batch + 1) * 500;
        let items = temps
            .map(|n| Install {
                temp: TempId(n),
                path: path(&format!("d/f{n}")),
                replaces: None,
                archive: None,
            })
            .collect();
        bench.submit(DiskOp::Install { root: ROOT, items });
    }
    for _ in 0..count / 500 {
        bench.done.recv().unwrap().1.unwrap();
    }
    let all = start.elapsed();
    println!("{:.0} files/s (staging took {staged:?} of {all:?})", count as f64 / all.as_secs_f64());
    std::fs::write(bench.at("big"), vec![1; 1 << 28]).unwrap();
    let start = std::time::Instant::now();
    bench.run(DiskOp::Hash { root: ROOT, paths: vec![path("big")] }).unwrap();
    println!("{:.0} MB/s hashed", 268.4 / start.elapsed().as_secs_f64());
}
