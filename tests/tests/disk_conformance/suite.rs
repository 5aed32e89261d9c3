//! The cases. Each begins with an empty folder.

use std::sync::Arc;

use clearskies_core::files::path::RelPath;
use clearskies_core::files::rsync::{DeltaWriter, Head, Signature, is_delta};
use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::disk::{
    Archived, Bytes, Entry, Hashed, HashedContent, Install, Kind, Made, Read, Remove, SetMeta, Stage,
    StageContent, Staged, Stamp,
};
use clearskies_core::io::{DiskDone, DiskError, DiskOp};
use clearskies_tests::sim::fs::digest;

use crate::Bench;

const ROOT: RootId = RootId(7);
const MTIME: i64 = 1_600_000_000_123_456_789;

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn open(bench: &mut dyn Bench) {
    let path = bench.folder();
    let done = bench.run(DiskOp::OpenRoot { root: ROOT, path, create: false });
    assert!(matches!(done, Ok(DiskDone::Opened { .. })), "{done:?}");
    let done = bench.run(DiskOp::WriteMarker { root: ROOT, marker: b"share".to_vec() });
    assert_eq!(done, Ok(DiskDone::Unit));
}

fn stats(bench: &mut dyn Bench, paths: &[&str]) -> Vec<Result<Stamp, DiskError>> {
    let paths = paths.iter().map(|path| rel(path)).collect();
    match bench.run(DiskOp::Stat { root: ROOT, paths }) {
        Ok(DiskDone::Stamps(stamps)) => stamps,
        other => panic!("{other:?}"),
    }
}

fn stat(bench: &mut dyn Bench, path: &str) -> Stamp {
    stats(bench, &[path]).remove(0).unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

fn stamps(bench: &mut dyn Bench, op: DiskOp) -> Vec<Result<Stamp, DiskError>> {
    match bench.run(op) {
        Ok(DiskDone::Stamps(stamps)) => stamps,
        other => panic!("{other:?}"),
    }
}

fn made(bench: &mut dyn Bench, dirs: Vec<(RelPath, Option<u32>)>) -> Vec<Result<Made, DiskError>> {
    match bench.run(DiskOp::MakeDirs { root: ROOT, dirs }) {
        Ok(DiskDone::Made(made)) => made,
        other => panic!("{other:?}"),
    }
}

fn stamp_of(bench: &mut dyn Bench, op: DiskOp) -> Result<Stamp, DiskError> {
    let mut all = stamps(bench, op);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn stage(bench: &mut dyn Bench, temp: u64, content: StageContent) -> Result<Staged, DiskError> {
    let file = Stage { temp: TempId(temp), content, mode: Some(0o640), mtime_ns: Some(MTIME) };
    match bench.run(DiskOp::Stage { root: ROOT, files: vec![file] }) {
        Ok(DiskDone::Staged(mut staged)) if staged.len() == 1 => staged.remove(0),
        other => panic!("{other:?}"),
    }
}

fn stage_file(bench: &mut dyn Bench, temp: u64, content: &[u8]) -> Staged {
    stage(bench, temp, StageContent::File(content.to_vec())).unwrap()
}

fn install(
    bench: &mut dyn Bench,
    temp: u64,
    path: &str,
    replaces: Option<Stamp>,
    archive: Option<&str>,
) -> Result<Stamp, DiskError> {
    let item = Install { temp: TempId(temp), path: rel(path), replaces, archive: archive.map(str::to_owned) };
    stamp_of(bench, DiskOp::Install { root: ROOT, items: vec![item] })
}

fn remove(bench: &mut dyn Bench, path: &str, stamp: Stamp, archive: Option<&str>) -> Result<(), DiskError> {
    let item = Remove { path: rel(path), stamp, archive: archive.map(str::to_owned) };
    match bench.run(DiskOp::Remove { root: ROOT, items: vec![item] }) {
        Ok(DiskDone::Removed(mut removed)) if removed.len() == 1 => removed.remove(0),
        other => panic!("{other:?}"),
    }
}

fn rename(bench: &mut dyn Bench, from: &str, to: &str, stamp: Stamp) -> Result<Stamp, DiskError> {
    stamp_of(bench, DiskOp::Rename { root: ROOT, from: rel(from), to: rel(to), stamp })
}

fn archive(bench: &mut dyn Bench, limit: u32) -> Vec<Archived> {
    match bench.run(DiskOp::ListArchive { root: ROOT, limit }) {
        Ok(DiskDone::Archived(archived)) => archived,
        other => panic!("{other:?}"),
    }
}

struct Walked {
    entries: Vec<Entry>,
    unobserved: Vec<(RelPath, DiskError)>,
    unusable: Vec<(RelPath, String)>,
}

fn walk(bench: &mut dyn Bench, walk: u64, dir: &str, limit: u32) -> Walked {
    let mut all = Walked { entries: Vec::new(), unobserved: Vec::new(), unusable: Vec::new() };
    for _ in 0..1000 {
        match bench.run(DiskOp::Walk { root: ROOT, walk, dir: rel(dir), limit }) {
            Ok(DiskDone::Walked { entries, unobserved, unusable, done }) => {
                assert!(entries.len() <= limit as usize);
                all.entries.extend(entries);
                all.unobserved.extend(unobserved);
                all.unusable.extend(unusable);
                if done {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the walk does not end");
}

fn names(walked: &Walked) -> Vec<&str> {
    walked.entries.iter().map(|entry| entry.path.as_str()).collect()
}

pub(crate) fn opens_what_is_a_folder(bench: &mut dyn Bench) {
    let folder = bench.folder();
    let open = |path: &str, create| DiskOp::OpenRoot { root: ROOT, path: path.into(), create };
    let done = bench.run(open(&folder, false));
    assert!(
        matches!(&done, Ok(DiskDone::Opened { marker: None, empty: true, path, .. }) if *path == folder),
        "{done:?}"
    );
    assert_eq!(bench.run(open(&format!("{folder}/none"), false)), Err(DiskError::NotFound));
    let done = bench.run(open(&format!("{folder}/made/deep"), true));
    assert!(matches!(done, Ok(DiskDone::Opened { marker: None, empty: true, .. })), "{done:?}");
    assert!(bench.exists("made/deep"));
    bench.write("file", b"1");
    assert_eq!(bench.run(open(&format!("{folder}/file"), false)), Err(DiskError::WrongKind));
    let done = bench.run(open(&format!("{folder}/file"), true));
    assert!(matches!(done, Err(DiskError::WrongKind | DiskError::Exists)), "{done:?}");
    let done = bench.run(open(&folder, true));
    assert!(matches!(done, Ok(DiskDone::Opened { marker: None, empty: false, .. })), "{done:?}");
}

pub(crate) fn keeps_a_marker(bench: &mut dyn Bench) {
    open(bench);
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Ok(DiskDone::Marker(Some(b"share".to_vec()))));
    let path = bench.folder();
    let again = DiskOp::OpenRoot { root: ROOT, path, create: false };
    let done = bench.run(again.clone());
    // The program's own folder does not count as contents.
    assert!(
        matches!(&done, Ok(DiskDone::Opened { marker: Some(m), empty: true, .. }) if m == b"share"),
        "{done:?}"
    );
    // The largest marker that is read comes back whole.
    assert_eq!(bench.run(DiskOp::WriteMarker { root: ROOT, marker: vec![7; 4096] }), Ok(DiskDone::Unit));
    let done = bench.run(again.clone());
    assert!(matches!(&done, Ok(DiskDone::Opened { marker: Some(m), .. }) if m.len() == 4096), "{done:?}");
    assert_eq!(bench.run(DiskOp::RemoveMarker { root: ROOT }), Ok(DiskDone::Unit));
    let done = bench.run(again);
    assert!(matches!(done, Ok(DiskDone::Opened { marker: None, empty: true, .. })), "{done:?}");
}

pub(crate) fn notices_another_root(bench: &mut dyn Bench) {
    open(bench);
    let check = DiskOp::CheckRoot { root: ROOT };
    assert!(bench.run(check.clone()).is_ok());
    bench.rename("../share", "../elsewhere");
    assert_eq!(bench.run(check.clone()), Err(DiskError::RootMissing));
    bench.mkdir("");
    assert_eq!(bench.run(check.clone()), Err(DiskError::RootMissing));
    bench.rename("../share", "../other");
    bench.rename("../elsewhere", "../share");
    assert!(bench.run(check.clone()).is_ok());
    bench.rename(".clearskies/share", ".clearskies/gone");
    let done = bench.run(check);
    assert!(matches!(done, Ok(DiskDone::Marker(None)) | Err(DiskError::RootMissing)), "{done:?}");
}

pub(crate) fn walks_in_preorder(bench: &mut dyn Bench) {
    open(bench);
    for dir in ["b/z", "b/a/deep", "empty"] {
        bench.mkdir(dir);
    }
    for file in ["a", "b/a/1", "b.txt", "b/a.txt", "c", "Z"] {
        bench.write(file, b"x");
    }
    bench.symlink("link", "b");
    let expected =
        ["Z", "a", "b", "b/a", "b/a/1", "b/a/deep", "b/a.txt", "b/z", "b.txt", "c", "empty", "link"];
    let whole = walk(bench, 1, "", 1000);
    assert_eq!(names(&whole), expected);
    assert!(whole.unobserved.is_empty() && whole.unusable.is_empty());
    for limit in [1, 2, 5] {
        assert_eq!(walk(bench, u64::from(limit) + 10, "", limit).entries, whole.entries);
    }
    // A finished walk is forgotten, an unfinished one goes on until it is ended.
    assert_eq!(walk(bench, 1, "", 1000).entries, whole.entries);
    let first = DiskOp::Walk { root: ROOT, walk: 3, dir: rel(""), limit: 1 };
    bench.run(first).unwrap();
    assert_eq!(bench.run(DiskOp::EndWalk { root: ROOT, walk: 3 }), Ok(DiskDone::Unit));
    assert_eq!(walk(bench, 3, "", 7).entries, whole.entries);
    assert_eq!(names(&walk(bench, 4, "b/a", 10)), ["b/a/1", "b/a/deep"]);

    let kind = |path: &str| whole.entries.iter().find(|entry| entry.path.as_str() == path).unwrap().stamp;
    let dir = kind("b");
    assert_eq!((dir.kind, dir.size, dir.mtime_ns, dir.ctime_ns), (Kind::Dir, 0, 0, 0));
    assert_eq!((kind("link").kind, kind("a").kind, kind("a").size), (Kind::Link, Kind::File, 1));
}

pub(crate) fn walks_leave_out_what_cannot_be_synced(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("sub/.clearskies");
    bench.write("sub/.clearskies/x", b"1");
    bench.write("sub/ok", b"1");
    bench.write_raw(b"bad\xff");
    let walked = walk(bench, 1, "", 1000);
    assert_eq!(names(&walked), ["sub", "sub/ok"]);
    assert_eq!(walked.unusable.len(), 1, "{:?}", walked.unusable);
    assert!(walked.unusable[0].0.is_root() && walked.unusable[0].1.contains("bad"));

    // A directory that is not there is gone, or at least unobserved; never an empty one.
    match bench.run(DiskOp::Walk { root: ROOT, walk: 2, dir: rel("none"), limit: 9 }) {
        Err(DiskError::NotFound) => {}
        Ok(DiskDone::Walked { entries, unobserved, done: true, .. }) => {
            assert!(entries.is_empty());
            assert_eq!(unobserved, [(rel("none"), DiskError::NotFound)]);
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn stats_in_order(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"12345");
    bench.mkdir("dir");
    bench.symlink("to-dir", "dir");
    bench.write("dir/in", b"");
    let found = stats(bench, &["a", "none", "dir", "none/x", "to-dir", "to-dir/in", "a/x", "dir/in"]);
    assert_eq!(found[0].unwrap().size, 5);
    assert_eq!(found[1], Err(DiskError::NotFound));
    assert_eq!(found[2].unwrap().kind, Kind::Dir);
    assert_eq!(found[3], Err(DiskError::NotFound));
    assert_eq!(found[4].unwrap().kind, Kind::Link);
    assert_eq!(found[5], Err(DiskError::WrongKind), "no link is followed");
    assert_eq!(found[6], Err(DiskError::WrongKind));
    assert_eq!(found[7].unwrap().size, 0);
    bench.chmod("a", 0o4711);
    assert_eq!(stat(bench, "a").mode, 0o4711);
    bench.wait();
    let before = stat(bench, "a");
    bench.write("a", b"54321");
    assert_ne!(stat(bench, "a"), before);
}

pub(crate) fn hashes_files_links_and_directories(bench: &mut dyn Bench) {
    open(bench);
    let large = vec![3u8; 3_000_000];
    bench.write("large", &large);
    bench.write("empty", b"");
    bench.symlink("link", "../no such place");
    bench.mkdir("dir");
    let paths = ["large", "empty", "link", "dir", "none"].map(rel).to_vec();
    let Ok(DiskDone::Hashed(hashed)) = bench.run(DiskOp::Hash { root: ROOT, paths }) else { panic!() };
    let content = |result: &Result<Hashed, DiskError>| result.clone().map(|hashed| hashed.content);
    assert_eq!(content(&hashed[0]), Ok(HashedContent::File(digest(&large))));
    assert_eq!(content(&hashed[1]), Ok(HashedContent::File(digest(b""))));
    assert_eq!(content(&hashed[2]), Ok(HashedContent::Link("../no such place".into())));
    assert_eq!(content(&hashed[3]), Ok(HashedContent::Dir));
    assert_eq!(content(&hashed[4]), Err(DiskError::NotFound));
    assert_eq!(hashed[0].as_ref().unwrap().stamp, stat(bench, "large"));
}

pub(crate) fn reads_pieces(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"0123456789");
    bench.mkdir("dir");
    let stamp = stat(bench, "a");
    let piece = |path: &str, offset, len| Read { path: rel(path), stamp, offset, len };
    let reads = vec![
        piece("a", 0, 4),
        piece("a", 8, 10),
        piece("a", 10, 1),
        piece("a", 1 << 40, 1),
        piece("b", 0, 1),
    ];
    let Ok(DiskDone::Data(data)) = bench.run(DiskOp::Read { root: ROOT, reads }) else { panic!() };
    let bytes = |text: &[u8]| Ok(Bytes(text.to_vec()));
    assert_eq!(data[..4], [bytes(b"0123"), bytes(b"89"), bytes(b""), bytes(b"")]);
    assert!(data[4].is_err());
    bench.wait();
    bench.write("a", b"9876543210");
    let Ok(DiskDone::Data(data)) = bench.run(DiskOp::Read { root: ROOT, reads: vec![piece("a", 0, 4)] })
    else {
        panic!()
    };
    assert_eq!(data, [Err(DiskError::Changed)]);
}

pub(crate) fn installs_new_files(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir");
    let staged = stage_file(bench, 1, b"content");
    assert_eq!(staged.sha256, digest(b"content"));
    assert_eq!((staged.stamp.kind, staged.stamp.size, staged.stamp.mode), (Kind::File, 7, 0o640));
    assert_eq!(staged.stamp.mtime_ns, MTIME);
    let installed = install(bench, 1, "dir/new", None, None).unwrap();
    assert_eq!(
        Stamp { ctime_ns: staged.stamp.ctime_ns, ..installed },
        staged.stamp,
        "ctime alone may change"
    );
    assert_eq!(stat(bench, "dir/new"), installed);
    assert_eq!(bench.read("dir/new").as_deref(), Some(&b"content"[..]));
    assert_eq!(install(bench, 1, "again", None, None), Err(DiskError::NotFound), "the temp is used up");

    stage_file(bench, 2, b"other");
    assert_eq!(install(bench, 2, "dir/new", None, None), Err(DiskError::Exists));
    assert_eq!(install(bench, 2, "none/new", None, None), Err(DiskError::NotFound));
    assert_eq!(install(bench, 2, "dir/new/new", None, None), Err(DiskError::WrongKind));
    assert_eq!(bench.read("dir/new").as_deref(), Some(&b"content"[..]));
    assert!(install(bench, 2, "other", None, None).is_ok(), "the temp is still there");

    // A temp that exists is replaced.
    stage_file(bench, 3, b"first, and longer");
    stage_file(bench, 3, b"second");
    install(bench, 3, "third", None, None).unwrap();
    assert_eq!(bench.read("third").as_deref(), Some(&b"second"[..]));

    let long = "x".repeat(255);
    stage_file(bench, 4, b"");
    assert!(install(bench, 4, &long, None, None).is_ok());
}

pub(crate) fn installs_links_and_copies(bench: &mut dyn Bench) {
    open(bench);
    let staged = stage(bench, 1, StageContent::Link("some/where".into())).unwrap();
    assert_eq!((staged.sha256, staged.stamp.kind), (digest(b"some/where"), Kind::Link));
    install(bench, 1, "link", None, None).unwrap();
    assert_eq!(bench.read("link").as_deref(), Some(&b"some/where"[..]));

    bench.write("source", b"to be copied");
    let stamp = stat(bench, "source");
    let copy = |stamp| StageContent::Copy { from: rel("source"), stamp };
    let staged = stage(bench, 2, copy(stamp)).unwrap();
    assert_eq!((staged.sha256, staged.stamp.size), (digest(b"to be copied"), 12));
    install(bench, 2, "copy", None, None).unwrap();
    assert_eq!(bench.read("copy").as_deref(), Some(&b"to be copied"[..]));
    assert_ne!(stat(bench, "copy").inode, stamp.inode);

    // Neither ctime nor mode count; anything else does.
    bench.wait();
    bench.chmod("source", 0o600);
    assert!(stage(bench, 3, copy(stamp)).is_ok());
    bench.write("source", b"TO BE COPIED");
    assert_eq!(stage(bench, 4, copy(stamp)), Err(DiskError::Changed));
    let gone = StageContent::Copy { from: rel("none"), stamp };
    assert!(stage(bench, 5, gone).is_err());
}

pub(crate) fn installs_over_the_expected_version_alone(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"old");
    let old = stat(bench, "a");
    bench.wait();
    bench.write("a", b"new");
    stage_file(bench, 1, b"remote");
    assert_eq!(install(bench, 1, "a", Some(old), Some("then")), Err(DiskError::Changed));
    assert_eq!(bench.read("a").as_deref(), Some(&b"new"[..]));
    assert!(archive(bench, 10).is_empty(), "nothing was replaced");

    // A chmod in between would be lost with what it was made on.
    let new = stat(bench, "a");
    bench.chmod("a", 0o600);
    assert_eq!(install(bench, 1, "a", Some(new), Some("then")), Err(DiskError::Changed));
    assert_eq!((bench.read("a").as_deref(), stat(bench, "a").mode), (Some(&b"new"[..]), 0o600));
    // The time of the last change of the inode does not count.
    bench.chmod("a", 0o644);
    let new = Stamp { mode: 0o644, ..new };
    let installed = install(bench, 1, "a", Some(new), Some("then")).unwrap();
    assert_eq!(bench.read("a").as_deref(), Some(&b"remote"[..]));

    bench.mkdir("dir");
    stage_file(bench, 2, b"remote");
    assert!(install(bench, 2, "dir", Some(installed), Some("then")).is_err());
    assert!(bench.exists("dir"));
    let missing = install(bench, 2, "none", Some(installed), Some("then"));
    assert!(matches!(missing, Err(DiskError::NotFound | DiskError::Changed)), "{missing:?}");
    assert!(!bench.exists("none"));
    bench.symlink("link", "a");
    let link = stat(bench, "link");
    assert!(install(bench, 2, "link", Some(link), Some("then")).is_ok(), "a link is replaced, not followed");
    assert_eq!(bench.read("a").as_deref(), Some(&b"remote"[..]));
}

pub(crate) fn keeps_what_it_replaced(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir");
    bench.write("dir/a", b"one");
    let one = stat(bench, "dir/a");
    stage_file(bench, 1, b"two");
    let two = install(bench, 1, "dir/a", Some(one), Some("20260101T000000Z")).unwrap();
    let kept = archive(bench, 10);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].folder.as_str(), kept[0].path.as_str()), ("20260101T000000Z", "dir/a"));
    assert_eq!(
        (kept[0].stamp.size, kept[0].stamp.mtime_ns, kept[0].stamp.inode),
        (one.size, one.mtime_ns, one.inode)
    );
    assert_eq!(bench.read(".clearskies/archive/20260101T000000Z/dir/a").as_deref(), Some(&b"one"[..]));

    stage_file(bench, 2, b"three");
    install(bench, 2, "dir/a", Some(two), None).unwrap();
    assert_eq!(archive(bench, 10).len(), 1, "without a folder it is dropped");
}

fn write_temp(bench: &mut dyn Bench, temp: u64, offset: u64, data: &[u8]) {
    let data = Bytes(data.to_vec());
    let done = bench.run(DiskOp::WriteTemp { root: ROOT, temp: TempId(temp), offset, data });
    assert_eq!(done, Ok(DiskDone::Unit));
}

fn open_temp(bench: &mut dyn Bench, temp: u64, size: u64) -> u64 {
    match bench.run(DiskOp::OpenTemp { root: ROOT, temp: TempId(temp), size }) {
        Ok(DiskDone::TempOpened { existing }) => existing,
        other => panic!("{other:?}"),
    }
}

fn finish_temp(bench: &mut dyn Bench, temp: u64) -> Staged {
    let op = DiskOp::FinishTemp { root: ROOT, temp: TempId(temp), mode: Some(0o600), mtime_ns: Some(MTIME) };
    match bench.run(op) {
        Ok(DiskDone::Staged(staged)) => staged[0].unwrap(),
        other => panic!("{other:?}"),
    }
}

fn sign(bench: &mut dyn Bench, path: &str, stamp: Stamp, offset: u64) -> Result<Vec<u8>, DiskError> {
    let read = Read { path: rel(path), stamp, offset, len: 4096 };
    match bench.run(DiskOp::Sign { root: ROOT, read, head: Head { block: 1024, hash: 8 } })? {
        DiskDone::Data(mut items) if items.len() == 1 => items.remove(0).map(|sums| sums.0),
        other => panic!("{other:?}"),
    }
}

fn patch(
    bench: &mut dyn Bench,
    offset: u64,
    from: &str,
    stamp: Stamp,
    delta: Vec<u8>,
) -> Result<DiskDone, DiskError> {
    let (temp, from, delta) = (TempId(9), rel(from), Bytes(delta));
    bench.run(DiskOp::PatchTemp { root: ROOT, temp, offset, from, stamp, delta })
}

pub(crate) fn signs_compares_and_patches(bench: &mut dyn Bench) {
    open(bench);
    let old: Vec<u8> = (0..10_000u32).map(|n| (n * n / 7 + n / 256) as u8).collect();
    let new = [&b"new"[..], &old[..7000], b"more", &old[7000..]].concat();
    bench.write("old", &old);
    bench.write("new", &new);
    let (at_old, at_new) = (stat(bench, "old"), stat(bench, "new"));
    let pieces: Vec<Vec<u8>> = (0..3).map(|n| sign(bench, "old", at_old, n * 4096).unwrap()).collect();
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [4 * 12, 4 * 12, 2 * 12]);
    let head = Head { block: 1024, hash: 8 };
    let signature = Signature::of([&head.encode()[..], &pieces.concat()].concat()).unwrap();

    assert_eq!(open_temp(bench, 9, new.len() as u64), 0);
    let (mut offset, mut expected, mut sent) = (0, 0, 0);
    while offset < new.len() as u64 {
        let read = Read { path: rel("new"), stamp: at_new, offset, len: 4096 };
        let signature = Arc::new(signature.clone());
        let done = bench.run(DiskOp::Delta { root: ROOT, read, expected, signature });
        let Ok(DiskDone::Delta { delta, len, next }) = done else { panic!("{done:?}") };
        assert!(len > 0 && is_delta(&delta.0, old.len() as u64, len));
        sent += delta.0.len();
        assert_eq!(patch(bench, offset, "old", at_old, delta.0), Ok(DiskDone::Unit));
        (offset, expected) = (offset + len, next);
    }
    assert!(sent < 3000, "{sent} bytes");
    assert_eq!(finish_temp(bench, 9).sha256, digest(&new));

    // What is not as it was is neither signed, nor compared, nor copied from.
    bench.wait();
    bench.write("old", b"other");
    bench.write("new", b"other");
    assert_eq!(sign(bench, "old", at_old, 0), Err(DiskError::Changed));
    let read = Read { path: rel("new"), stamp: at_new, offset: 0, len: 4096 };
    let op = DiskOp::Delta { root: ROOT, read, expected: 0, signature: Arc::new(signature) };
    assert_eq!(bench.run(op), Err(DiskError::Changed));
    open_temp(bench, 9, 10);
    let mut copy = DeltaWriter::default();
    copy.copy(0, 10);
    let copy = copy.finish();
    assert_eq!(patch(bench, 0, "old", at_old, copy.clone()), Err(DiskError::Changed));
    assert_eq!(patch(bench, 0, "gone", at_old, copy), Err(DiskError::NotFound));
}

pub(crate) fn writes_large_temps(bench: &mut dyn Bench) {
    open(bench);
    assert_eq!(open_temp(bench, 9, 3_000_000), 0);
    let (first, second, third) = (vec![1u8; 1_000_000], vec![2u8; 1_000_000], vec![3u8; 1_000_000]);
    write_temp(bench, 9, 2_000_000, &third);
    write_temp(bench, 9, 0, &first);
    assert_eq!(bench.run(DiskOp::FlushTemp { root: ROOT, temp: TempId(9) }), Ok(DiskDone::Unit));
    write_temp(bench, 9, 1_000_000, &second);
    let whole = [first, second, third].concat();
    let staged = finish_temp(bench, 9);
    assert_eq!(staged.sha256, digest(&whole));
    assert_eq!((staged.stamp.size, staged.stamp.mode, staged.stamp.mtime_ns), (3_000_000, 0o600, MTIME));
    assert_eq!(bench.run(DiskOp::Flush { root: ROOT }), Ok(DiskDone::Unit));
    let installed = install(bench, 9, "large", None, None).unwrap();
    assert_eq!(installed.mtime_ns, MTIME);
    assert!(bench.read("large").is_some_and(|bytes| bytes == whole));

    // In order, where the digest comes along at no cost, it is the same.
    open_temp(bench, 10, whole.len() as u64);
    for (index, piece) in whole.chunks(700_000).enumerate() {
        write_temp(bench, 10, index as u64 * 700_000, piece);
    }
    assert_eq!(finish_temp(bench, 10).sha256, digest(&whole));

    // The same place twice: what counts is what lies there.
    open_temp(bench, 11, 4);
    write_temp(bench, 11, 0, b"xxxx");
    write_temp(bench, 11, 0, b"abcd");
    assert_eq!(finish_temp(bench, 11).sha256, digest(b"abcd"));

    open_temp(bench, 12, 0);
    assert_eq!(finish_temp(bench, 12).sha256, digest(b""));
}

pub(crate) fn keeps_temps_over_a_restart(bench: &mut dyn Bench) {
    open(bench);
    open_temp(bench, 1, 10);
    write_temp(bench, 1, 0, b"01234");
    bench.run(DiskOp::FlushTemp { root: ROOT, temp: TempId(1) }).unwrap();
    bench.run(DiskOp::CloseRoot { root: ROOT }).unwrap();
    open(bench);
    assert!(open_temp(bench, 1, 10) >= 5);
    write_temp(bench, 1, 5, b"56789");
    assert_eq!(finish_temp(bench, 1).sha256, digest(b"0123456789"));
}

pub(crate) fn sweeps_temps(bench: &mut dyn Bench) {
    open(bench);
    for temp in 1..=4 {
        stage_file(bench, temp, b"1");
    }
    open_temp(bench, 5, 10);
    let done = bench.run(DiskOp::RemoveTemps { root: ROOT, temps: vec![TempId(1), TempId(5), TempId(99)] });
    assert_eq!(done, Ok(DiskDone::Unit));
    assert_eq!(install(bench, 1, "a", None, None), Err(DiskError::NotFound));
    let keep = vec![TempId(6), TempId(3), TempId(1)];
    let swept = |there, emptied| Ok(DiskDone::Swept { there, emptied });
    assert_eq!(bench.run(DiskOp::SweepTemps { root: ROOT, keep }), swept(vec![TempId(3)], false));
    assert_eq!(install(bench, 2, "a", None, None), Err(DiskError::NotFound));
    assert_eq!(install(bench, 4, "a", None, None), Err(DiskError::NotFound));
    assert!(install(bench, 3, "a", None, None).is_ok());
    assert_eq!(open_temp(bench, 5, 10), 0);
    stage_file(bench, 6, b"1");
    bench.rename(".clearskies/tmp", "emptied");
    let keep = || vec![TempId(6)];
    assert_eq!(
        bench.run(DiskOp::SweepTemps { root: ROOT, keep: keep() }),
        swept(vec![], true),
        "somebody else did"
    );
    stage_file(bench, 6, b"1");
    assert_eq!(bench.run(DiskOp::SweepTemps { root: ROOT, keep: keep() }), swept(vec![TempId(6)], true));
    assert_eq!(bench.run(DiskOp::SweepTemps { root: ROOT, keep: keep() }), swept(vec![TempId(6)], false));
}

pub(crate) fn makes_directories(bench: &mut dyn Bench) {
    open(bench);
    bench.write("file", b"");
    bench.mkdir("there");
    bench.chmod("there", 0o700);
    let dirs = vec![
        (rel("a"), None),
        (rel("a/b"), Some(0o750)),
        (rel("there"), Some(0o755)),
        (rel("none/c"), None),
        (rel("file"), None),
        (rel("file/d"), None),
    ];
    let made = made(bench, dirs);
    assert_eq!(made[0].unwrap().stamp.kind, Kind::Dir);
    assert_eq!(made[1].unwrap().stamp.mode, 0o750);
    assert_eq!(made[2].unwrap().stamp.mode, 0o700, "one that was there is left as it is");
    let empty: Vec<bool> = made[..3].iter().map(|made| made.unwrap().empty).collect();
    assert_eq!(empty, [true, true, false], "what lies in one that was there is not known");
    assert_eq!(made[3], Err(DiskError::NotFound));
    assert!(matches!(made[4], Err(DiskError::WrongKind | DiskError::Exists)), "{:?}", made[4]);
    assert_eq!(made[5], Err(DiskError::WrongKind));
    assert!(bench.exists("a/b"));
}

pub(crate) fn renames_without_replacing(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"1");
    bench.write("b", b"2");
    bench.mkdir("dir");
    let stamp = stat(bench, "a");
    assert_eq!(rename(bench, "a", "b", stamp), Err(DiskError::Exists));
    assert_eq!(rename(bench, "a", "dir", stamp), Err(DiskError::Exists));
    assert_eq!(rename(bench, "a", "none/a", stamp), Err(DiskError::NotFound));
    let gone = rename(bench, "none", "c", stamp);
    assert!(matches!(gone, Err(DiskError::NotFound | DiskError::Changed)), "{gone:?}");
    let moved = rename(bench, "a", "dir/a", stamp).unwrap();
    assert_eq!(Stamp { ctime_ns: stamp.ctime_ns, ..moved }, stamp);
    assert!(!bench.exists("a"));
    assert_eq!(bench.read("dir/a").as_deref(), Some(&b"1"[..]));
    bench.wait();
    bench.write("dir/a", b"3");
    assert_eq!(rename(bench, "dir/a", "a", moved), Err(DiskError::Changed));
    assert!(bench.exists("dir/a") && !bench.exists("a"));
    bench.symlink("link", "b");
    let link = stat(bench, "link");
    assert_eq!(rename(bench, "link", "moved", link).map(|stamp| stamp.kind), Ok(Kind::Link));
}

pub(crate) fn renames_directories_whole(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir/deep");
    bench.write("dir/deep/a", b"1");
    bench.mkdir("other");
    let (stamp, file) = (stat(bench, "dir"), stat(bench, "dir/deep/a"));
    assert!(rename(bench, "dir", "dir/deep/dir", stamp).is_err(), "not beneath itself");
    let moved = rename(bench, "dir", "other/dir", stamp).unwrap();
    assert_eq!((moved.kind, moved.inode), (Kind::Dir, stamp.inode));
    assert_eq!(stat(bench, "other/dir/deep/a"), file);
    assert_eq!(rename(bench, "other/dir", "moved", file), Err(DiskError::Changed), "the kind counts");
}

pub(crate) fn removes_the_expected_version_alone(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir");
    bench.write("dir/a", b"1");
    let old = stat(bench, "dir/a");
    bench.wait();
    bench.write("dir/a", b"2");
    assert_eq!(remove(bench, "dir/a", old, Some("f")), Err(DiskError::Changed));
    assert!(bench.exists("dir/a"));
    let new = stat(bench, "dir/a");
    bench.chmod("dir/a", 0o600);
    assert_eq!(remove(bench, "dir/a", new, Some("f")), Ok(()));
    assert!(!bench.exists("dir/a"));
    assert_eq!(bench.read(".clearskies/archive/f/dir/a").as_deref(), Some(&b"2"[..]));
    let gone = remove(bench, "dir/a", new, Some("f"));
    assert!(matches!(gone, Err(DiskError::NotFound | DiskError::Changed)), "{gone:?}");

    bench.write("b", b"3");
    let stamp = stat(bench, "b");
    assert_eq!(remove(bench, "b", stamp, None), Ok(()));
    assert_eq!(archive(bench, 10).len(), 1, "without a folder it is dropped");
    bench.symlink("link", "dir");
    let stamp = stat(bench, "link");
    assert_eq!(remove(bench, "link", stamp, Some("g")), Ok(()));
    assert!(bench.exists("dir") && !bench.exists("link"));
}

pub(crate) fn removes_empty_directories_alone(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("a/b");
    bench.write("a/b/file", b"1");
    let (a, b, file) = (stat(bench, "a"), stat(bench, "a/b"), stat(bench, "a/b/file"));
    assert_eq!(remove(bench, "a", a, Some("f")), Err(DiskError::NotEmpty));
    assert_eq!(remove(bench, "a", file, Some("f")), Err(DiskError::Changed));
    let item = |path: &str, stamp| Remove { path: rel(path), stamp, archive: Some("f".into()) };
    let items = vec![item("a/b/file", file), item("a/b", b), item("a", a), item("none", a)];
    let Ok(DiskDone::Removed(removed)) = bench.run(DiskOp::Remove { root: ROOT, items }) else { panic!() };
    assert_eq!(removed[..3], [Ok(()), Ok(()), Ok(())]);
    assert!(removed[3].is_err());
    assert!(!bench.exists("a"));
    assert_eq!(archive(bench, 10).len(), 1);
}

pub(crate) fn sets_modes_and_times(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"1");
    bench.mkdir("dir");
    bench.chmod("dir", 0o2755);
    bench.symlink("link", "a");
    let (file, dir, link) = (stat(bench, "a"), stat(bench, "dir"), stat(bench, "link"));
    let item = |path: &str, stamp, mode, mtime_ns| SetMeta { path: rel(path), stamp, mode, mtime_ns };
    let items = vec![
        item("a", file, Some(0o4600), None),
        item("dir", dir, Some(0o700), None),
        item("link", link, Some(0o600), Some(MTIME)),
        item("none", file, Some(0o600), None),
    ];
    let set = stamps(bench, DiskOp::SetMeta { root: ROOT, items });
    let changed = set[0].unwrap();
    assert_eq!((changed.mode, changed.mtime_ns, changed.inode), (0o600, file.mtime_ns, file.inode));
    assert_eq!(set[1].unwrap().mode, 0o2700, "what a user set beyond the permission bits stays");
    assert_eq!(set[2], Ok(link));
    assert!(set[3].is_err());
    let touched = item("a", changed, None, Some(MTIME));
    let touched = stamp_of(bench, DiskOp::SetMeta { root: ROOT, items: vec![touched] }).unwrap();
    assert_eq!((touched.mode, touched.mtime_ns), (0o600, MTIME));
    let late = item("a", file, Some(0o644), None);
    let late = stamp_of(bench, DiskOp::SetMeta { root: ROOT, items: vec![late] });
    assert_eq!(late, Err(DiskError::Changed), "its time is another one now");
    assert_eq!(stat(bench, "a").mode, 0o600);
}

pub(crate) fn lists_restores_and_prunes_the_archive(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir");
    for (folder, content) in [("20260101", "one"), ("20260301", "three"), ("20260201", "two")] {
        bench.write("dir/a", content.as_bytes());
        let stamp = stat(bench, "dir/a");
        remove(bench, "dir/a", stamp, Some(folder)).unwrap();
    }
    let folders = |kept: Vec<Archived>| kept.into_iter().map(|file| file.folder).collect::<Vec<_>>();
    assert_eq!(folders(archive(bench, 10)), ["20260301", "20260201", "20260101"]);
    assert_eq!(folders(archive(bench, 2)), ["20260301", "20260201"]);

    let restore = |folder: &str, to: &str| DiskOp::RestoreArchived {
        root: ROOT,
        folder: folder.into(),
        path: rel("dir/a"),
        to: rel(to),
    };
    let back = stamp_of(bench, restore("20260201", "new/place/a")).unwrap();
    assert_eq!((back.kind, back.size), (Kind::File, 3));
    assert_eq!(bench.read("new/place/a").as_deref(), Some(&b"two"[..]));
    assert_eq!(archive(bench, 10).len(), 3, "the archive keeps its own");
    assert_ne!(archive(bench, 10)[1].stamp.inode, back.inode, "a copy");
    assert_eq!(stamp_of(bench, restore("20260301", "new/place/a")), Err(DiskError::Exists));
    let none = bench.run(restore("20250101", "b"));
    let nothing = |done: &DiskDone| matches!(done, DiskDone::Stamps(stamps) if stamps[0].is_err());
    assert!(none.as_ref().map_or(true, nothing), "{none:?}");

    let prune = DiskOp::PruneArchive { root: ROOT, before: "20260201".into() };
    assert_eq!(bench.run(prune), Ok(DiskDone::Unit));
    assert_eq!(folders(archive(bench, 10)), ["20260301", "20260201"]);
}

pub(crate) fn finds_and_takes_out_what_was_written_late(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("dir");
    bench.write("dir/a", b"old");
    let stamp = stat(bench, "dir/a");
    remove(bench, "dir/a", stamp, Some("20260101")).unwrap();
    let check = |path: &str, stamp| DiskOp::CheckArchived {
        root: ROOT,
        files: vec![Archived { folder: "20260101".into(), path: rel(path), stamp }],
    };
    assert_eq!(bench.run(check("dir/a", stamp)), Ok(DiskDone::Checked(vec![Ok(None)])));
    assert_eq!(bench.run(check("dir/b", stamp)), Ok(DiskDone::Checked(vec![Err(DiskError::NotFound)])));

    bench.wait();
    bench.write(".clearskies/archive/20260101/dir/a", b"late");
    let Ok(DiskDone::Checked(found)) = bench.run(check("dir/a", stamp)) else { panic!() };
    let [Ok(Some(late))] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(late.content, HashedContent::File(digest(b"late")));
    assert_eq!((late.stamp.inode, late.stamp.size), (stamp.inode, 4));

    let take = |folder: &str, to: &str| DiskOp::TakeArchived {
        root: ROOT,
        folder: folder.into(),
        path: rel("dir/a"),
        to: rel(to),
    };
    bench.write("taken", b"mine");
    assert_eq!(stamp_of(bench, take("20260101", "taken")), Err(DiskError::Exists));
    assert_eq!(bench.read("taken").as_deref(), Some(&b"mine"[..]));
    let out = stamp_of(bench, take("20260101", "new/place/a")).unwrap();
    assert_eq!((out.inode, out.mtime_ns), (stamp.inode, late.stamp.mtime_ns), "the very file");
    assert_eq!(bench.read("new/place/a").as_deref(), Some(&b"late"[..]));
    assert!(archive(bench, 10).is_empty());
    assert_eq!(stamp_of(bench, take("20260101", "b")), Err(DiskError::NotFound));
    bench.symlink("up", "..");
    remove_into_archive_again(bench);
    assert!(stamp_of(bench, take("20260102", "up/a")).is_err() && !bench.exists("../a"));
}

fn remove_into_archive_again(bench: &mut dyn Bench) {
    bench.write("dir/a", b"again");
    let stamp = stat(bench, "dir/a");
    remove(bench, "dir/a", stamp, Some("20260102")).unwrap();
}

pub(crate) fn never_leaves_the_share(bench: &mut dyn Bench) {
    open(bench);
    bench.mkdir("../outside/sub");
    bench.write("../outside/secret", b"secret");
    let folder = bench.folder();
    let outside = format!("{}/outside", folder.rsplit_once('/').unwrap().0);
    for (link, target) in [("up", "../outside"), ("far", outside.as_str())] {
        bench.symlink(link, target);
        let paths = vec![rel(&format!("{link}/secret"))];
        let Ok(DiskDone::Hashed(hashed)) = bench.run(DiskOp::Hash { root: ROOT, paths }) else { panic!() };
        assert_eq!(hashed, [Err(DiskError::WrongKind)]);
        stage_file(bench, 1, b"evil");
        assert_eq!(install(bench, 1, &format!("{link}/new"), None, None), Err(DiskError::WrongKind));
        let dirs = vec![(rel(&format!("{link}/dir")), None)];
        assert_eq!(made(bench, dirs), [Err(DiskError::WrongKind)]);
        let own = stat(bench, link);
        assert_eq!(rename(bench, link, &format!("{link}2/x"), own), Err(DiskError::NotFound));
        bench.write("mine", b"1");
        let mine = stat(bench, "mine");
        assert_eq!(rename(bench, "mine", &format!("{link}/mine"), mine), Err(DiskError::WrongKind));
        assert_eq!(remove(bench, &format!("{link}/secret"), mine, None), Err(DiskError::WrongKind));
        let read = Read { path: rel(&format!("{link}/secret")), stamp: mine, offset: 0, len: 9 };
        let Ok(DiskDone::Data(data)) = bench.run(DiskOp::Read { root: ROOT, reads: vec![read] }) else {
            panic!()
        };
        assert_eq!(data, [Err(DiskError::WrongKind)]);
        let walked = walk(bench, 50, "", 100);
        assert!(walked.entries.iter().all(|entry| !entry.path.as_str().contains("secret")));
    }
    assert_eq!(bench.read("../outside/secret").as_deref(), Some(&b"secret"[..]));
    assert!(
        !bench.exists("../outside/new")
            && !bench.exists("../outside/dir")
            && !bench.exists("../outside/mine")
    );
}

pub(crate) fn closed_roots_do_nothing(bench: &mut dyn Bench) {
    open(bench);
    bench.write("a", b"1");
    assert_eq!(bench.run(DiskOp::CloseRoot { root: ROOT }), Ok(DiskDone::Unit));
    let stat = DiskOp::Stat { root: ROOT, paths: vec![rel("a")] };
    assert_eq!(bench.run(stat), Err(DiskError::RootMissing));
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Err(DiskError::RootMissing));
    let flush = DiskOp::Flush { root: RootId(99) };
    assert_eq!(bench.run(flush), Err(DiskError::RootMissing));
    open(bench);
    assert_eq!(names(&walk(bench, 1, "", 9)), ["a"]);
}

pub(crate) fn tells_the_space(bench: &mut dyn Bench) {
    open(bench);
    let Ok(DiskDone::Space { free, total }) = bench.run(DiskOp::Space { root: ROOT }) else { panic!() };
    assert!(free <= total && total > 0);
}
