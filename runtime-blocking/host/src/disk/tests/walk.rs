//! Tests of walks: order, limits, what is left out, and what cannot be listed.

use clearskies_core::io::disk::Entry;

use super::*;

type Unobserved = Vec<(RelPath, DiskError)>;
type Unusable = Vec<(RelPath, String)>;

impl Bench {
    /// A whole walk, `limit` at a time.
    fn walk(&self, dir: &str, limit: u32) -> (Vec<Entry>, Unobserved, Unusable) {
        let mut all = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let walk = DiskOp::Walk { root: ROOT, walk: 1, dir: path(dir), limit };
            match self.run(walk).unwrap() {
                DiskDone::Walked { entries, unobserved, unusable, done } => {
                    assert!(entries.len() <= limit as usize);
                    all.0.extend(entries);
                    all.1.extend(unobserved);
                    all.2.extend(unusable);
                    if done {
                        return all;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn walked(&self, dir: &str, limit: u32) -> Vec<String> {
        self.walk(dir, limit).0.iter().map(|entry| entry.path.as_str().to_owned()).collect()
    }
}

#[test]
fn goes_in_the_order_of_paths() {
    let bench = Bench::new();
    for rel in ["b/x", "a/z", "a/b/c", "a.txt", "a-/q", "ä", "Z", "a/.hidden"] {
        bench.write(rel, b"");
    }
    std::fs::create_dir(bench.at("b/.clearskies")).unwrap();
    std::fs::write(bench.at("b/.clearskies/hidden"), b"").unwrap();
    std::fs::create_dir(bench.at("empty")).unwrap();
    std::os::unix::fs::symlink("a", bench.at("link")).unwrap();
    let want = [
        "Z",
        "a",
        "a/.hidden",
        "a/b",
        "a/b/c",
        "a/z",
        "a-",
        "a-/q",
        "a.txt",
        "b",
        "b/x",
        "empty",
        "link",
        "ä",
    ];
    for old in [false, true] {
        for limit in [1, 2, 3, 1000] {
            assert_eq!(bench.walked("", limit), want);
        }
        assert_eq!(bench.walked("a", 2), ["a/.hidden", "a/b", "a/b/c", "a/z"]);
        let entries = bench.walk("", 100).0;
        assert!(entries.windows(2).all(|pair| pair[0].path < pair[1].path));
        for entry in entries {
            assert_eq!(bench.stat(entry.path.as_str()), Ok(entry.stamp));
        }
        if !old {
            bench.without_new_calls();
        }
    }
    // A walk that was ended begins anew.
    let walk = || DiskOp::Walk { root: ROOT, walk: 5, dir: path(""), limit: 1 };
    let first = bench.run(walk());
    assert_ne!(bench.run(walk()), first);
    bench.run(DiskOp::EndWalk { root: ROOT, walk: 5 }).unwrap();
    assert_eq!(bench.run(walk()), first);
}

#[test]
fn deep_trees_cost_few_descriptors() {
    let bench = Bench::new();
    let deep = vec!["d"; 300].join("/");
    bench.write(&format!("{deep}/f"), b"");
    for level in [10, 100, 200] {
        bench.write(&format!("{}/z", vec!["d"; level].join("/")), b"");
    }
    let walked = bench.walked("", 7);
    assert_eq!(walked.len(), 304);
    assert_eq!(walked.last().unwrap(), &format!("{}/z", ["d"; 10].join("/")));
}

#[test]
fn what_cannot_be_seen_is_said() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    bench.write("dir/ok", b"");
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\n");
    std::fs::write(bench.at("dir").join(odd), b"").unwrap();
    let (entries, unobserved, unusable) = bench.walk("", 100);
    assert_eq!(entries.len(), 2);
    assert_eq!(unobserved, []);
    assert_eq!(unusable, [(path("dir"), "odd\\xff\\n".to_owned())]);
    assert_eq!(bench.walk("none", 10).1, [(path("none"), DiskError::NotFound)]);
    assert_eq!(bench.walk("dir/ok", 10).1, [(path("dir/ok"), DiskError::WrongKind)]);
    std::os::unix::fs::symlink("dir", bench.at("link")).unwrap();
    assert_eq!(bench.walk("link", 10).1, [(path("link"), DiskError::WrongKind)]);
    // Directories that vanish between two pieces of a walk.
    for rel in ["p/q/r", "p/q/s", "p/t"] {
        bench.write(rel, b"");
    }
    let step = |limit| bench.run(DiskOp::Walk { root: ROOT, walk: 9, dir: path("p"), limit }).unwrap();
    assert!(matches!(step(2), DiskDone::Walked { entries, done: false, .. } if entries.len() == 2));
    std::fs::remove_dir_all(bench.at("p")).unwrap();
    assert!(matches!(step(9), DiskDone::Walked { entries, done: true, .. } if entries.is_empty()));
}

#[test]
fn an_unreadable_or_foreign_directory_is_unobserved() {
    let bench = Bench::new();
    bench.write("shut/in", b"");
    bench.write("z", b"");
    // Tests may run as root, whom bits do not stop; another device does.
    let mut walk = super::super::walk::Walk::new(RelPath::root());
    let root = bench.root();
    let ground = super::super::walk::Ground {
        anchor: rustix::fd::AsFd::as_fd(&root.fd),
        dev: root.dev + 1,
        whole: &root.whole,
        watch: None,
    };
    let mut found = super::super::walk::Found::default();
    assert!(walk.step(&ground, 100, &mut found));
    assert_eq!(found.unobserved, [(RelPath::root(), DiskError::OtherVolume)]);
    if rustix::process::geteuid().is_root() {
        return;
    }
    std::fs::set_permissions(bench.at("shut"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let (entries, unobserved, _) = bench.walk("", 100);
    assert_eq!(entries.len(), 2);
    assert_eq!(unobserved, [(path("shut"), DiskError::Denied)]);
    std::fs::set_permissions(bench.at("shut"), std::fs::Permissions::from_mode(0o755)).unwrap();
}
