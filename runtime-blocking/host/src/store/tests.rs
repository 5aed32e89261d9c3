//! The store: what it keeps, in which order, and through which ends of the process.

use super::*;

fn put(space: Space, key: &[u8], value: &[u8]) -> Write {
    Write::Put { space, key: key.to_vec(), value: value.to_vec() }
}

fn commit(writes: Vec<Write>, durability: Durability) -> StoreOp {
    StoreOp::Commit { writes, durability }
}

fn range(start: &[u8], end: &[u8], limit: u32) -> Query {
    Query::Range { space: Space::Path, start: start.to_vec(), end: end.to_vec(), limit }
}

fn load(store: &mut Store, query: Query) -> Vec<Row> {
    match store.execute(&StoreOp::Load { queries: vec![query] }).unwrap() {
        StoreDone::Loaded(mut rows) => rows.remove(0),
        other => panic!("{other:?}"),
    }
}

fn get(store: &mut Store, space: Space, key: &[u8]) -> Option<Vec<u8>> {
    load(store, Query::Get { space, key: key.to_vec() }).pop().map(|row| row.1)
}

fn row(key: &[u8], value: &[u8]) -> Row {
    (key.to_vec(), value.to_vec())
}

#[test]
fn keeps_ordered_maps_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("db")).unwrap();
    let mut writes: Vec<Write> = Space::ALL.iter().map(|s| put(*s, b"k", &[*s as u8])).collect();
    for key in [&b"\xff"[..], b"b", b"a", b"a\0", b"", b"ab"] {
        writes.push(put(Space::Path, key, key));
    }
    writes.push(put(Space::Path, b"a", b"second"));
    store.execute(&commit(writes, Durability::Soon)).unwrap();
    for space in Space::ALL {
        assert_eq!(get(&mut store, space, b"k"), Some(vec![space as u8]));
    }
    assert_eq!(get(&mut store, Space::Path, b""), Some(vec![]));
    assert_eq!(get(&mut store, Space::Path, b"none"), None);
    let want = [row(b"a", b"second"), row(b"a\0", b"a\0"), row(b"ab", b"ab")];
    assert_eq!(load(&mut store, range(b"a", b"b", 100)), want);
    assert_eq!(load(&mut store, range(b"a", b"b", 2)), want[..2]);
    assert_eq!(load(&mut store, range(b"a", b"b", 0)), []);
    assert_eq!(load(&mut store, range(b"b", b"a", 9)), []);
    let last = |end: &[u8]| Query::Last { space: Space::Path, start: b"a".to_vec(), end: end.to_vec() };
    assert_eq!(load(&mut store, last(b"b")), want[2..]);
    assert_eq!(load(&mut store, last(b"a")), []);
    let writes = vec![
        Write::Delete { space: Space::Path, key: b"none".to_vec() },
        Write::Delete { space: Space::Path, key: b"ab".to_vec() },
        put(Space::Path, b"az", b""),
        Write::DeleteRange { space: Space::Path, start: b"a\0".to_vec(), end: b"b".to_vec() },
        put(Space::Path, b"ac", b"later"),
    ];
    store.execute(&commit(writes, Durability::Now)).unwrap();
    assert_eq!(load(&mut store, range(b"a", b"b", 100)), [row(b"a", b"second"), row(b"ac", b"later")]);
}

/// What a disk would hold if the process were killed now.
fn image(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_was_committed_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    std::fs::create_dir(&live).unwrap();
    let mut store = Store::open(&live.join("db")).unwrap();
    for (n, durability) in
        [(1u8, Durability::Now), (2, Durability::Soon), (3, Durability::Now), (4, Durability::Soon)]
    {
        store.execute(&commit(vec![put(Space::Meta, &[n], &[n])], durability)).unwrap();
        let killed = dir.path().join(format!("killed-{n}"));
        image(&live, &killed);
        let mut again = Store::open(&killed.join("db")).unwrap();
        for key in 1..=n {
            assert_eq!(get(&mut again, Space::Meta, &[key]), Some(vec![key]));
        }
    }
    assert!(store.sync_due().is_some());
    store.sync().unwrap();
    assert_eq!(store.sync_due(), None);
    store.execute(&commit(vec![], Durability::Now)).unwrap();
    store.close().unwrap();
    assert_eq!(get(&mut Store::open(&live.join("db")).unwrap(), Space::Meta, &[4]), Some(vec![4]));
}

#[test]
fn the_file_is_private_and_used_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut store = Store::open(&path).unwrap();
    store.execute(&commit(vec![put(Space::Meta, b"k", b"v")], Durability::Soon)).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let second = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::opens_what_the_environment_names", "--ignored"])
        .env("STORE_PATH", &path)
        .output()
        .unwrap();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stdout));
}

/// The second process of the test above: locks of one process do not keep itself out.
#[test]
#[ignore = "run by the test above, as a process of its own"]
fn opens_what_the_environment_names() {
    if let Some(path) = std::env::var_os("STORE_PATH") {
        assert!(matches!(Store::open(Path::new(&path)), Err(OpenError::Busy)));
    }
}

#[test]
fn what_cannot_be_used_is_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, vec![b'x'; 9000]).unwrap();
    assert!(matches!(Store::open(&garbage), Err(OpenError::Corrupt)));
    assert_eq!(std::fs::read(&garbage).unwrap(), vec![b'x'; 9000]);
    let newer = dir.path().join("newer");
    drop(Store::open(&newer).unwrap());
    let connection = Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    match Store::open(&newer) {
        Err(error @ OpenError::Newer { found: 99, known: 1 }) => {
            assert!(error.to_string().contains("newer version"));
        }
        other => panic!("{other:?}"),
    }
    let foreign = dir.path().join("foreign");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    assert!(matches!(Store::open(&foreign), Err(OpenError::Foreign)));
    assert!(matches!(Store::open(&dir.path().join("no/db")), Err(OpenError::Io(_))));
    // Damage in the middle shows when it is met.
    let path = dir.path().join("hurt");
    let mut store = Store::open(&path).unwrap();
    let writes = (0..2000u32).map(|n| put(Space::Path, &n.to_be_bytes(), &[7; 100])).collect();
    store.execute(&commit(writes, Durability::Now)).unwrap();
    store.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[len / 4..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let mut store = Store::open(&path).unwrap();
    let all = StoreOp::Load { queries: vec![range(b"", b"\xff", 5000)] };
    assert_eq!(store.execute(&all), Err(StoreError::Corrupt));
}

#[test]
fn deleted_keys_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut store = Store::open(&path).unwrap();
    let secret = b"a very secret key, forty bytes or longer";
    store.execute(&commit(vec![put(Space::Meta, b"key", secret)], Durability::Now)).unwrap();
    let delete = Write::Delete { space: Space::Meta, key: b"key".to_vec() };
    store.execute(&commit(vec![delete], Durability::Now)).unwrap();
    assert!(store.sync_due().is_some());
    store.sync().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[test]
fn a_failed_commit_leaves_nothing_and_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("db")).unwrap();
    store
        .connection
        .execute_batch(
            "CREATE TRIGGER one BEFORE INSERT ON path WHEN new.k = x'ff' BEGIN SELECT RAISE(ABORT, 'no'); END;
             CREATE TRIGGER all_of_it BEFORE INSERT ON path WHEN new.k = x'fe'
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        )
        .unwrap();
    let bad = vec![put(Space::Record, b"x", b""), put(Space::Path, &[0xff], b"")];
    assert_eq!(store.execute(&commit(bad.clone(), Durability::Now)), Err(StoreError::Io));
    assert_eq!(get(&mut store, Space::Record, b"x"), None);
    let (good, other) = (vec![put(Space::Path, b"1", b"")], vec![put(Space::Path, b"2", b"")]);
    let group = [(good.as_slice(), Durability::Soon), (&bad, Durability::Soon), (&other, Durability::Now)];
    let results = store.commit_group(&group).unwrap();
    assert_eq!(results, [Ok(StoreDone::Committed), Err(StoreError::Io), Ok(StoreDone::Committed)]);
    assert_eq!(get(&mut store, Space::Record, b"x"), None);
    assert_eq!(load(&mut store, range(b"", b"\xff", 9)).len(), 2);
    assert_eq!(store.sync_due(), None);
    // Where the database undoes all of it, none took effect.
    let worse = vec![put(Space::Path, &[0xfe], b"")];
    let third = vec![put(Space::Path, b"3", b"")];
    assert_eq!(store.commit_group(&[(&third, Durability::Soon), (&worse, Durability::Soon)]), None);
    assert_eq!(get(&mut store, Space::Path, b"3"), None);
}

#[test]
fn the_thread_answers_in_order_and_finishes_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (tx, done) = channel();
    let store = Store::open(&path).unwrap();
    let thread = StoreThread::spawn(store, move |token, result| {
        let _ = tx.send((token, result));
    })
    .unwrap();
    for n in 0..500u64 {
        let op = if n % 7 == 3 {
            // Sees every commit before it.
            StoreOp::Load { queries: vec![range(b"", b"\xff", 1000)] }
        } else {
            let durability = if n % 50 == 0 { Durability::Now } else { Durability::Soon };
            commit(vec![put(Space::Path, &n.to_be_bytes(), b"v")], durability)
        };
        thread.submit(Token(n), op).unwrap();
    }
    thread.shutdown();
    let mut commits = 0;
    for (n, (token, result)) in done.iter().enumerate() {
        assert_eq!(token, Token(n as u64));
        match result.unwrap() {
            StoreDone::Committed => commits += 1,
            StoreDone::Loaded(rows) => assert_eq!(rows[0].len(), commits),
        }
    }
    let rows = load(&mut Store::open(&path).unwrap(), range(b"", b"\xff", 1000));
    assert_eq!((rows.len(), commits), (429, 429));
}

/// Prints how long a usual commit and a usual load take.
#[test]
fn a_store_at_rest_keeps_no_long_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let log_bytes = || std::fs::metadata(durable::beside(&path, "-wal")).unwrap().len();
    let mut store = Store::open(&path).unwrap();
    let edit = commit(vec![put(Space::Path, b"edit", &[1; 1000])], Durability::Soon);
    store.execute(&edit).unwrap();
    let short = log_bytes();
    store.rest().unwrap();
    assert!(short > 0 && log_bytes() == short, "a short log is not written a second time");

    let kib = |i: u16| put(Space::Path, &i.to_be_bytes(), &[7; 1024]);
    store.execute(&commit((0..2000).map(kib).collect(), Durability::Soon)).unwrap();
    assert!(log_bytes() > u64::from(WAL_BYTES_AT_REST));
    store.rest().unwrap();
    assert_eq!(log_bytes(), 0);
    store.execute(&edit).unwrap();
    store.sync_due().expect("what follows is synced in its turn");
    store.sync().unwrap();
    assert_eq!(get(&mut store, Space::Path, &1999u16.to_be_bytes()), Some(vec![7; 1024]));
}

#[test]
fn the_thread_rests_once_nothing_is_asked_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let options = StoreOptions { rest_after: Duration::from_millis(50), ..StoreOptions::default() };
    let store = Store::open_with(&path, options).unwrap();
    assert_eq!(store.rest_due(), None, "nothing was asked yet");
    let thread = StoreThread::spawn(store, |_, result| drop(result.unwrap())).unwrap();
    let kib = |i: u16| put(Space::Path, &i.to_be_bytes(), &[7; 1024]);
    thread.submit(Token(1), commit((0..2000).map(kib).collect(), Durability::Now)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    // The log is long first, and short in the end.
    while std::fs::metadata(&path).unwrap().len() < 2_000_000
        || std::fs::metadata(durable::beside(&path, "-wal")).unwrap().len() > 0
    {
        assert!(Instant::now() < deadline, "it never rested");
        std::thread::sleep(Duration::from_millis(10));
    }
    thread.shutdown();
}

#[test]
#[ignore = "a measurement, run by hand"]
fn speed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("db")).unwrap();
    let spaces = [Space::Record, Space::Arrival, Space::Path, Space::Content];
    let key = |n: u32| [&n.wrapping_mul(2_654_435_761).to_be_bytes()[..], &[3; 28]].concat();
    for round in 0..50u32 {
        let writes =
            (0..1000).map(|n| put(spaces[n as usize % 4], &key(round * 1000 + n), &[5; 200])).collect();
        let op = commit(writes, Durability::Soon);
        let start = Instant::now();
        store.execute(&op).unwrap();
        let committed = start.elapsed();
        let queries = (0..1000)
            .map(|n| Query::Get { space: spaces[n as usize % 4], key: key(round * 1000 + n) })
            .collect();
        let op = StoreOp::Load { queries };
        let start = Instant::now();
        store.execute(&op).unwrap();
        if round % 10 == 9 {
            println!("commit of 1000: {committed:?}, load of 1000: {:?}", start.elapsed());
        }
    }
}
