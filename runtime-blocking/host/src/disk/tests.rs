//! Every disk operation against real folders: what it does, and what it refuses.

mod install;
mod read;
mod walk;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clearskies_core::files::path::RelPath;
use clearskies_core::files::rsync::{DeltaWriter, made_bytes};
use clearskies_core::ids::{RootId, Sha256, TempId, Token};
use clearskies_core::io::disk::{
    Bytes, DiskDone, DiskError, DiskOp, Install, Kind, Remove, Stage, StageContent, Staged, Stamp,
};
use clearskies_core::rng::Rng;
use tempfile::TempDir;

use super::{DiskPool, DiskResult};

const ROOT: RootId = RootId(7);

/// A pool with one root open, marked as a share.
struct Bench {
    dir: TempDir,
    pool: DiskPool,
    done: Receiver<(Token, DiskResult)>,
    tokens: std::cell::Cell<u64>,
}

fn path(text: &str) -> RelPath {
    if text.is_empty() { RelPath::root() } else { RelPath::new(text).unwrap() }
}

fn sha(data: &[u8]) -> Sha256 {
    Sha256::from_slice(ring::digest::digest(&ring::digest::SHA256, data).as_ref()).unwrap()
}

impl Bench {
    fn bare(threads: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (tx, done) = channel();
        let pool = DiskPool::new(threads, move |token, result| {
            let _ = tx.send((token, result));
        })
        .unwrap();
        Bench { dir, pool, done, tokens: std::cell::Cell::new(0) }
    }

    fn new() -> Bench {
        let bench = Bench::bare(3);
        bench.open();
        bench.run(DiskOp::WriteMarker { root: ROOT, marker: b"mark".to_vec() }).unwrap();
        bench
    }

    fn open(&self) {
        let path = self.dir.path().join("share").to_str().unwrap().to_owned();
        self.run(DiskOp::OpenRoot { root: ROOT, path, create: true }).unwrap();
    }

    fn at(&self, rel: &str) -> PathBuf {
        self.dir.path().join("share").join(rel)
    }

    fn submit(&self, op: DiskOp) -> Token {
        let token = Token(self.tokens.get());
        self.tokens.set(token.0 + 1);
        self.pool.submit(token, op);
        token
    }

    /// Submits one operation and waits for it.
    fn run(&self, op: DiskOp) -> DiskResult {
        let token = self.submit(op);
        let (done, result) = self.done.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(done, token);
        result
    }

    fn write(&self, rel: &str, data: &[u8]) -> Stamp {
        if let Some(parent) = self.at(rel).parent() {
            std::fs::create_dir_all(parent).unwrap();
        }
        std::fs::write(self.at(rel), data).unwrap();
        self.stat(rel).unwrap()
    }

    fn read(&self, rel: &str) -> String {
        std::fs::read_to_string(self.at(rel)).unwrap()
    }

    fn stat(&self, rel: &str) -> Result<Stamp, DiskError> {
        match self.run(DiskOp::Stat { root: ROOT, paths: vec![path(rel)] }).unwrap() {
            DiskDone::Stamps(mut stamps) => stamps.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn stage(&self, temp: u64, content: StageContent) -> Result<Staged, DiskError> {
        let files =
            vec![Stage { temp: TempId(temp), content, mode: Some(0o640), mtime_ns: Some(1_500_000_001) }];
        match self.run(DiskOp::Stage { root: ROOT, files }).unwrap() {
            DiskDone::Staged(mut staged) => staged.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn stage_file(&self, temp: u64, data: &[u8]) -> Staged {
        self.stage(temp, StageContent::File(data.to_vec())).unwrap()
    }

    fn install(
        &self,
        temp: u64,
        rel: &str,
        replaces: Option<Stamp>,
        archive: Option<&str>,
    ) -> Result<Stamp, DiskError> {
        let items = vec![Install {
            temp: TempId(temp),
            path: path(rel),
            replaces,
            archive: archive.map(str::to_owned),
        }];
        match self.run(DiskOp::Install { root: ROOT, items })? {
            DiskDone::Stamps(mut stamps) => stamps.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&self, rel: &str, stamp: Stamp, archive: Option<&str>) -> Result<(), DiskError> {
        let items = vec![Remove { path: path(rel), stamp, archive: archive.map(str::to_owned) }];
        match self.run(DiskOp::Remove { root: ROOT, items })? {
            DiskDone::Removed(mut removed) => removed.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// The temps, without the mark.
    fn temps(&self) -> Vec<String> {
        names(&self.at(".clearskies/tmp")).into_iter().filter(|name| name != "mark").collect()
    }

    /// The open root itself, to take features away from it.
    fn root(&self) -> std::sync::Arc<super::root::Root> {
        self.pool.shared.disk.root(ROOT).unwrap()
    }

    fn without_new_calls(&self) {
        let root = self.root();
        root.whole.store(false, Ordering::Relaxed);
        root.exchange.store(false, Ordering::Relaxed);
        root.noreplace.store(false, Ordering::Relaxed);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn roots_open_check_and_close() {
    let bench = Bench::bare(2);
    let share = bench.dir.path().join("a/share");
    let text = share.to_str().unwrap().to_owned();
    let open = |create| bench.run(DiskOp::OpenRoot { root: ROOT, path: text.clone(), create });
    assert_eq!(open(false), Err(DiskError::NotFound));
    let full = std::fs::canonicalize(bench.dir.path()).unwrap().join("a/share").to_str().unwrap().to_owned();
    let grain = super::root::grain_of(&std::fs::File::open(bench.dir.path()).unwrap().into());
    assert!((1..=2000).contains(&grain.as_millis()));
    let opened = |marker, empty| Ok(DiskDone::Opened { marker, empty, path: full.clone(), grain });
    assert_eq!(open(true), opened(None, true));
    let marker = b"m".repeat(super::MARKER_BYTES_MAX);
    let long = b"m".repeat(super::MARKER_BYTES_MAX + 1);
    let write = |marker: &[u8]| bench.run(DiskOp::WriteMarker { root: ROOT, marker: marker.to_vec() });
    assert_eq!(write(&marker), Ok(DiskDone::Unit));
    assert_eq!(write(&long), Err(DiskError::Io));
    assert_eq!(open(false), opened(Some(marker.clone()), true));
    for own in ["", "/tmp", "/archive"] {
        let mode = std::fs::metadata(share.join(format!(".clearskies{own}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
    std::fs::write(share.join("file"), b"x").unwrap();
    assert_eq!(open(false), opened(Some(marker.clone()), false));
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Ok(DiskDone::Marker(Some(marker))));
    assert_eq!(bench.run(DiskOp::RemoveMarker { root: ROOT }), Ok(DiskDone::Unit));
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Ok(DiskDone::Marker(None)));
    assert!(
        matches!(bench.run(DiskOp::Space { root: ROOT }), Ok(DiskDone::Space { free, total }) if free <= total)
    );
    assert_eq!(bench.run(DiskOp::Flush { root: ROOT }), Ok(DiskDone::Unit));
    assert_eq!(bench.run(DiskOp::CloseRoot { root: ROOT }), Ok(DiskDone::Unit));
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Err(DiskError::RootMissing));
    let file = share.join("file").to_str().unwrap().to_owned();
    assert_eq!(
        bench.run(DiskOp::OpenRoot { root: ROOT, path: file, create: false }),
        Err(DiskError::WrongKind)
    );
    let relative = DiskOp::OpenRoot { root: ROOT, path: "share".into(), create: true };
    assert_eq!(bench.run(relative), Err(DiskError::BadName));
}

/// Forgets that the root was found well a moment ago.
fn expire() {
    std::thread::sleep(Duration::from_millis(1050));
}

#[test]
fn a_swapped_root_or_a_lost_marker_stops_every_change() {
    let bench = Bench::new();
    let stamp = bench.write("a", b"a");
    bench.stage_file(1, b"b");
    std::fs::remove_file(bench.at(".clearskies/share")).unwrap();
    expire();
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Err(DiskError::RootMissing));
    assert_eq!(bench.install(1, "b", None, None), Err(DiskError::RootMissing));
    assert_eq!(bench.remove("a", stamp, None), Err(DiskError::RootMissing));
    std::fs::write(bench.at(".clearskies/share"), b"other").unwrap();
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Ok(DiskDone::Marker(Some(b"other".to_vec()))));
    assert_eq!(bench.remove("a", stamp, None), Err(DiskError::RootMissing));
    std::fs::write(bench.at(".clearskies/share"), b"mark").unwrap();
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Ok(DiskDone::Marker(Some(b"mark".to_vec()))));
    // Another folder under the same path, with the same marker.
    let (here, away) = (bench.at(""), bench.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    std::fs::create_dir_all(here.join(".clearskies")).unwrap();
    std::fs::write(here.join(".clearskies/share"), b"mark").unwrap();
    expire();
    assert_eq!(bench.remove("a", stamp, None), Err(DiskError::RootMissing));
    assert_eq!(bench.run(DiskOp::CheckRoot { root: ROOT }), Err(DiskError::RootMissing));
    let walk = DiskOp::Walk { root: ROOT, walk: 1, dir: RelPath::root(), limit: 10 };
    assert_eq!(bench.run(walk), Err(DiskError::RootMissing));
    assert!(away.join("a").exists());
}

#[test]
fn nothing_leaves_the_root_through_links() {
    for old in [false, true] {
        let bench = Bench::new();
        let outside = bench.dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), b"s").unwrap();
        std::fs::create_dir(bench.at("real")).unwrap();
        std::fs::write(bench.at("real/file"), b"f").unwrap();
        std::os::unix::fs::symlink(&outside, bench.at("out")).unwrap();
        std::os::unix::fs::symlink("real", bench.at("in")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), bench.at("link")).unwrap();
        if old {
            bench.without_new_calls();
        }
        for rel in ["out/secret", "out/new", "in/file", "out/deep/er"] {
            assert_eq!(bench.stat(rel), Err(DiskError::WrongKind), "{rel} {old}");
        }
        assert_eq!(bench.stat("real/file/x"), Err(DiskError::WrongKind));
        assert_eq!(bench.stat("none/x"), Err(DiskError::NotFound));
        assert_eq!(bench.stat("link").unwrap().kind, Kind::Link);
        bench.stage_file(1, b"evil");
        assert_eq!(bench.install(1, "out/new", None, None), Err(DiskError::WrongKind));
        let dirs = vec![(path("out/dir"), None)];
        let made = bench.run(DiskOp::MakeDirs { root: ROOT, dirs });
        assert_eq!(made, Ok(DiskDone::Made(vec![Err(DiskError::WrongKind)])));
        let stamp = Stamp {
            inode: std::fs::metadata(outside.join("secret")).unwrap().ino(),
            ..bench.stat("link").unwrap()
        };
        assert_eq!(bench.remove("out/secret", stamp, None), Err(DiskError::WrongKind));
        // A link under a file's stamp is another thing, and never followed.
        assert_eq!(bench.stage(2, StageContent::Copy { from: path("link"), stamp }), Err(DiskError::Changed));
        let to = path("out/restored");
        let restore = DiskOp::RestoreArchived { root: ROOT, folder: "f".into(), path: path("a"), to };
        assert!(matches!(bench.run(restore), Ok(DiskDone::Stamps(s)) if s[0].is_err()));
        assert_eq!(names(&outside), ["secret"]);
        // The share's own directory must be one.
        std::fs::rename(bench.at(".clearskies"), bench.dir.path().join("own")).unwrap();
        std::os::unix::fs::symlink(bench.dir.path().join("own"), bench.at(".clearskies")).unwrap();
        expire();
        assert_eq!(bench.install(1, "new", None, None), Err(DiskError::RootMissing));
        let write = DiskOp::WriteMarker { root: ROOT, marker: b"x".to_vec() };
        assert_eq!(bench.run(write), Err(DiskError::WrongKind));
    }
}

#[test]
fn every_token_completes_exactly_once() {
    let bench = Bench::new();
    let mut tokens = Vec::new();
    for n in 0..200u64 {
        let temp = TempId(n % 3);
        tokens.push(bench.submit(match n % 5 {
            0 => DiskOp::OpenTemp { root: ROOT, temp, size: 10 },
            1 => DiskOp::WriteTemp { root: ROOT, temp, offset: 0, data: Bytes(vec![1; 10]) },
            2 => DiskOp::Hash { root: ROOT, paths: vec![path("none")] },
            3 => DiskOp::RemoveTemps { root: ROOT, temps: vec![TempId(0), TempId(1), TempId(2), TempId(2)] },
            _ => DiskOp::Stat { root: RootId(99), paths: vec![] },
        }));
    }
    tokens.push(bench.submit(DiskOp::RemoveTemps { root: ROOT, temps: Vec::new() }));
    let Bench { pool, done, dir, .. } = bench;
    pool.shutdown();
    let mut completed: Vec<Token> = done.try_iter().map(|(token, _)| token).collect();
    completed.sort();
    tokens.sort();
    // The two of `Bench::new` were taken by then.
    assert_eq!(completed, tokens);
    drop(dir);
}

#[test]
fn writes_of_one_temp_keep_their_order() {
    let bench = Bench::new();
    bench.submit(DiskOp::OpenTemp { root: ROOT, temp: TempId(1), size: 4 });
    for n in 0..300u16 {
        let data = Bytes(u32::from(n).to_be_bytes().to_vec());
        bench.submit(DiskOp::WriteTemp { root: ROOT, temp: TempId(1), offset: 0, data });
    }
    let last = bench.submit(DiskOp::FinishTemp { root: ROOT, temp: TempId(1), mode: None, mtime_ns: None });
    loop {
        let (token, result) = bench.done.recv_timeout(Duration::from_secs(10)).unwrap();
        if token == last {
            match result.unwrap() {
                DiskDone::Staged(staged) => {
                    assert_eq!(staged[0].unwrap().sha256, sha(&299u32.to_be_bytes()));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(result.is_ok());
    }
}

/// Two writes to other bytes of one temp are ready together; all else of it waits for what came before.
#[test]
fn writes_apart_run_side_by_side() {
    let temp = TempId(1);
    let write = |offset, len| DiskOp::WriteTemp { root: ROOT, temp, offset, data: Bytes(vec![1; len]) };
    let ready = |ops: Vec<DiskOp>, done: &[u64]| {
        let mut queue = super::Queue::default();
        for op in ops {
            queue.push(super::lane_of(&op), super::written(&op), super::Work::Op(Token(1), op));
        }
        done.iter().for_each(|number| queue.leave(super::Lane::Temp(ROOT, temp), *number));
        queue.ready.iter().map(|job| job.number).collect::<Vec<_>>()
    };
    let finish = || DiskOp::FinishTemp { root: ROOT, temp, mode: None, mtime_ns: None };
    let open = || DiskOp::OpenTemp { root: ROOT, temp, size: 100 };
    assert_eq!(ready(vec![open(), write(0, 10), write(10, 10)], &[]), [1]);
    assert_eq!(ready(vec![open(), write(0, 10), write(10, 10)], &[1]), [1, 2, 3]);
    assert_eq!(ready(vec![write(10, 10), write(0, 10), write(20, 10)], &[]), [1, 2]);
    assert_eq!(ready(vec![write(10, 10), write(0, 10), write(20, 10)], &[2]), [1, 2, 3]);
    assert_eq!(ready(vec![write(10, 10), write(0, 11), write(50, 10)], &[]), [1]);
    assert_eq!(ready(vec![write(10, 10), write(19, 1), write(50, 10)], &[1]), [1, 2, 3]);
    assert_eq!(ready(vec![write(0, 10), finish(), write(50, 10)], &[]), [1]);
    assert_eq!(ready(vec![write(0, 10), write(50, 10), finish()], &[1]), [1, 2]);
    assert_eq!(ready(vec![write(0, 10), write(50, 10), finish()], &[1, 2]), [1, 2, 3]);
    let mut delta = DeltaWriter::default();
    delta.copy(0, 7);
    delta.literal(b"abc");
    let delta = Bytes(delta.finish());
    assert_eq!(made_bytes(&delta.0, 7), Some(10));
    assert_eq!(made_bytes(&delta.0, 6), None);
    assert_eq!(made_bytes(&delta.0[1..], 7), None);
}

/// Whatever runs beside what, and whatever is written twice: the hash is that of what is there in the end.
#[test]
fn pieces_in_any_order_make_one_hash() {
    const PIECE: usize = 100_000;
    let bench = Bench::new();
    let mut rng = Rng::from_seed([7; 32]);
    let mut content = vec![0; 40 * PIECE];
    for round in 0..4 {
        let temp = TempId(round);
        bench.submit(DiskOp::OpenTemp { root: ROOT, temp, size: content.len() as u64 });
        let mut order: Vec<usize> = (0..40).collect();
        for at in (1..order.len()).rev() {
            // Pieces overtake others that are near, or any.
            let reach = if round % 2 == 0 { 4 } else { 40 };
            order.swap(at, at - rng.below(reach.min(at as u64 + 1)) as usize);
        }
        if round > 1 {
            order.extend([3, 20, 39]);
        }
        for piece in order {
            let offset = piece * PIECE;
            rng.fill(&mut content[offset..offset + PIECE]);
            let data = Bytes(content[offset..offset + PIECE].to_vec());
            bench.submit(DiskOp::WriteTemp { root: ROOT, temp, offset: offset as u64, data });
        }
        let finish = bench.submit(DiskOp::FinishTemp { root: ROOT, temp, mode: None, mtime_ns: None });
        let staged = loop {
            match bench.done.recv_timeout(Duration::from_secs(10)).unwrap() {
                (token, Ok(DiskDone::Staged(staged))) if token == finish => break staged,
                (_, result) => assert!(result.is_ok(), "{result:?}"),
            }
        };
        assert_eq!(staged[0].unwrap().sha256, sha(&content), "round {round}");
    }
}

#[test]
fn a_panic_completes_its_token() {
    assert_eq!(super::guarded(|| panic!("a test")), Err(DiskError::Io));
}
