//! Looking, hashing, reading, staging.

use clearskies_core::io::disk::{Hashed, HashedContent, Read};

use super::*;

impl Bench {
    fn hash(&self, rel: &str) -> Result<Hashed, DiskError> {
        match self.run(DiskOp::Hash { root: ROOT, paths: vec![path(rel)] }).unwrap() {
            DiskDone::Hashed(mut hashed) => hashed.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn piece(&self, rel: &str, stamp: Stamp, offset: u64, len: u32) -> Result<Vec<u8>, DiskError> {
        let reads = vec![Read { path: path(rel), stamp, offset, len }];
        match self.run(DiskOp::Read { root: ROOT, reads }).unwrap() {
            DiskDone::Data(mut data) => data.remove(0).map(|bytes| bytes.0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hashes_files_links_and_directories() {
    let bench = Bench::new();
    let large: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
    for data in [&b""[..], b"small", &large] {
        let stamp = bench.write("d/f", data);
        assert_eq!(bench.hash("d/f"), Ok(Hashed { stamp, content: HashedContent::File(sha(data)) }));
    }
    std::os::unix::fs::symlink("some/where", bench.at("link")).unwrap();
    assert_eq!(bench.hash("link").unwrap().content, HashedContent::Link("some/where".into()));
    let dir = bench.hash("d").unwrap();
    assert_eq!((dir.content, dir.stamp.size, dir.stamp.mtime_ns), (HashedContent::Dir, 0, 0));
    assert_eq!(bench.hash("").unwrap().content, HashedContent::Dir);
    assert_eq!(bench.hash("none"), Err(DiskError::NotFound));
    let name = std::ffi::CString::new(bench.at("pipe").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &*name, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(bench.hash("pipe"), Err(DiskError::WrongKind));
    use std::os::unix::ffi::OsStrExt;
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"\xff"), bench.at("odd")).unwrap();
    assert_eq!(bench.hash("odd"), Err(DiskError::BadName));
    assert_eq!(bench.stat(&"n".repeat(255)), Err(DiskError::NotFound));
}

#[test]
fn reads_pieces_of_what_was_seen() {
    let bench = Bench::new();
    let stamp = bench.write("f", b"0123456789");
    assert_eq!(bench.piece("f", stamp, 2, 3).unwrap(), b"234");
    assert_eq!(bench.piece("f", stamp, 8, 100).unwrap(), b"89");
    assert_eq!(bench.piece("f", stamp, 10, 1).unwrap(), b"");
    assert_eq!(bench.piece("f", stamp, u64::MAX, u32::MAX).unwrap(), b"");
    let other = Stamp { ctime_ns: 0, mode: 0, ..stamp };
    assert_eq!(bench.piece("f", other, 0, 1).unwrap(), b"0");
    for wrong in [Stamp { size: 11, ..stamp }, Stamp { mtime_ns: 1, ..stamp }, Stamp { inode: 1, ..stamp }] {
        assert_eq!(bench.piece("f", wrong, 0, 1), Err(DiskError::Changed));
    }
    assert_eq!(bench.piece("none", stamp, 0, 1), Err(DiskError::NotFound));
    // One bad item does not spoil the others.
    let read = |rel: &str, offset| Read { path: path(rel), stamp, offset, len: 2 };
    let reads = vec![read("f", 0), read("none", 0), read("f", 4), read("f", 6)];
    match bench.run(DiskOp::Read { root: ROOT, reads }).unwrap() {
        DiskDone::Data(data) => assert_eq!(
            data,
            [
                Ok(Bytes(b"01".to_vec())),
                Err(DiskError::NotFound),
                Ok(Bytes(b"45".to_vec())),
                Ok(Bytes(b"67".to_vec()))
            ]
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stages_files_links_and_copies() {
    let bench = Bench::new();
    let staged = bench.stage_file(1, b"hello");
    assert_eq!(staged.sha256, sha(b"hello"));
    assert_eq!((staged.stamp.mode, staged.stamp.mtime_ns, staged.stamp.size), (0o640, 1_500_000_001, 5));
    assert_eq!(bench.temps(), ["0000000000000001"]);
    assert_eq!(bench.stage_file(1, b"again").sha256, sha(b"again"));
    // Also over a link that somebody put there.
    std::os::unix::fs::symlink("/etc/passwd", bench.at(".clearskies/tmp/0000000000000002")).unwrap();
    assert_eq!(bench.stage_file(2, b"x").stamp.kind, Kind::File);
    let link = bench.stage(3, StageContent::Link("to/there".into())).unwrap();
    assert_eq!(
        (link.sha256, link.stamp.kind, link.stamp.mtime_ns),
        (sha(b"to/there"), Kind::Link, 1_500_000_001)
    );
    assert_eq!(bench.stage(4, StageContent::Link(String::new())), Err(DiskError::BadName));
    assert_eq!(bench.stage(4, StageContent::Link("a\0b".into())), Err(DiskError::BadName));
    let data = vec![9; 700_000];
    let stamp = bench.write("d/source", &data);
    let copy = |temp, stamp| bench.stage(temp, StageContent::Copy { from: path("d/source"), stamp });
    let copied = copy(5, Stamp { ctime_ns: 0, mode: 0, ..stamp }).unwrap();
    assert_eq!((copied.sha256, copied.stamp.size, copied.stamp.mode), (sha(&data), 700_000, 0o640));
    assert_eq!(copy(6, Stamp { size: 1, ..stamp }), Err(DiskError::Changed));
    assert_eq!(bench.temps().len(), 4);
    let files = vec![Stage {
        temp: TempId(9),
        content: StageContent::File(vec![1]),
        mode: Some(0o4755),
        mtime_ns: Some(-1),
    }];
    match bench.run(DiskOp::Stage { root: ROOT, files }).unwrap() {
        DiskDone::Staged(staged) => {
            let stamp = staged[0].unwrap().stamp;
            assert_eq!((stamp.mode, stamp.mtime_ns), (0o755, -1), "no set-id bit comes from others");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn large_temps_are_written_resumed_and_hashed() {
    let bench = Bench::new();
    let data: Vec<u8> = (0..100u8).collect();
    let write = |offset: usize, len: usize| {
        let data = Bytes(data[offset..offset + len].to_vec());
        bench.run(DiskOp::WriteTemp { root: ROOT, temp: TempId(1), offset: offset as u64, data })
    };
    let open = |size| bench.run(DiskOp::OpenTemp { root: ROOT, temp: TempId(1), size });
    let finish = || match bench.run(DiskOp::FinishTemp {
        root: ROOT,
        temp: TempId(1),
        mode: Some(0o600),
        mtime_ns: Some(5),
    }) {
        Ok(DiskDone::Staged(mut staged)) => staged.remove(0),
        other => panic!("{other:?}"),
    };
    let hashed = || {
        let root = bench.pool.shared.disk.root(ROOT).unwrap();
        let temp = crate::disk::lock(&root.temps).get(&TempId(1)).cloned().unwrap();
        crate::disk::lock(&temp.taken).hashed
    };
    assert_eq!(write(0, 1), Err(DiskError::NotFound));
    assert_eq!(finish(), Err(DiskError::NotFound));
    let orders: [&[(usize, usize)]; 7] = [
        &[(0, 50), (50, 50)],
        &[(50, 50), (0, 50)],
        &[(0, 30), (60, 40), (30, 30)],
        &[(0, 60), (30, 70)],
        &[(60, 40), (30, 30), (0, 30)],
        &[(60, 40), (20, 50), (0, 20), (20, 80)],
        &[(0, 100), (0, 100)],
    ];
    for order in orders {
        assert_eq!(open(100), Ok(DiskDone::TempOpened { existing: 0 }));
        for (offset, len) in order {
            assert_eq!(write(*offset, *len), Ok(DiskDone::Unit));
        }
        if order.len() == 3 {
            // Whatever their order: once all pieces are there, so is the hash.
            assert_eq!(hashed(), 100, "{order:?}");
        }
        let staged = finish().unwrap();
        assert_eq!((staged.sha256, staged.stamp.size), (sha(&data), 100), "{order:?}");
        assert_eq!((staged.stamp.mode, staged.stamp.mtime_ns), (0o600, 5));
        assert_eq!(finish(), Err(DiskError::NotFound));
        bench.run(DiskOp::RemoveTemps { root: ROOT, temps: vec![TempId(1), TempId(2)] }).unwrap();
    }
    // Opened again after a break.
    open(100).unwrap();
    write(0, 40).unwrap();
    assert_eq!(bench.run(DiskOp::FlushTemp { root: ROOT, temp: TempId(1) }), Ok(DiskDone::Unit));
    bench.open();
    assert_eq!(write(40, 1), Err(DiskError::NotFound));
    assert_eq!(open(100), Ok(DiskDone::TempOpened { existing: 40 }));
    write(40, 60).unwrap();
    assert_eq!(finish().unwrap().sha256, sha(&data));
    // One that is larger than it may be is cut.
    assert_eq!(open(10), Ok(DiskDone::TempOpened { existing: 10 }));
    assert_eq!(finish().unwrap().sha256, sha(&data[..10]));
    let huge = DiskOp::OpenTemp { root: ROOT, temp: TempId(3), size: 1 << 60 };
    assert_eq!(bench.run(huge), Err(DiskError::NoSpace));
    assert_eq!(bench.temps(), ["0000000000000001"]);
    open(100).unwrap();
    let data = Bytes(vec![1]);
    let beyond = DiskOp::WriteTemp { root: ROOT, temp: TempId(1), offset: u64::MAX, data };
    assert_eq!(bench.run(beyond), Err(DiskError::NoSpace));
}

#[test]
fn sweeping_keeps_what_it_should() {
    let bench = Bench::new();
    for temp in 1..=3 {
        bench.stage_file(temp, b"x");
    }
    bench.run(DiskOp::OpenTemp { root: ROOT, temp: TempId(4), size: 1 }).unwrap();
    let deep: PathBuf = std::iter::repeat_n("deep", 100).collect();
    std::fs::create_dir_all(bench.at(".clearskies/tmp").join(&deep)).unwrap();
    std::fs::write(bench.at(".clearskies/tmp").join(&deep).join("f"), b"x").unwrap();
    bench.run(DiskOp::SweepTemps { root: ROOT, keep: vec![TempId(2), TempId(5)] }).unwrap();
    assert_eq!(bench.temps(), ["0000000000000002"]);
    let write = DiskOp::WriteTemp { root: ROOT, temp: TempId(4), offset: 0, data: Bytes(vec![1]) };
    assert_eq!(bench.run(write), Err(DiskError::NotFound));
    // The directory for temps comes back when it is needed.
    std::fs::remove_dir_all(bench.at(".clearskies/tmp")).unwrap();
    bench.run(DiskOp::SweepTemps { root: ROOT, keep: vec![] }).unwrap();
    bench.stage_file(1, b"x");
}

#[test]
fn a_copy_has_as_many_bytes_as_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("from"), b"0123456789").unwrap();
    let from = std::fs::File::open(dir.path().join("from")).unwrap();
    for (size, copied) in [(0, &b""[..]), (9, b"012345678"), (10, b"0123456789"), (11, b"0123456789")] {
        let to = std::fs::File::create(dir.path().join("to")).unwrap();
        crate::disk::temp::copy_bytes(&from, &to, size, &mut crate::disk::read::Scratch::new()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), copied, "{size}");
    }
}
