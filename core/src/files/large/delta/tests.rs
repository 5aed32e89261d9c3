//! Tests of fetching what differs: what peers may say, and what becomes of it.

use alloc::vec;

use super::*;
use crate::files::fetch::Want;
use crate::files::fetch_rig::{A, B, MIB, Rig, bytes, path, sha, stamp};
use crate::files::rsync::{BLOCKS_MAX, DeltaWriter, HEAD_BYTES, Signature};
use crate::io::disk::Stamp;

/// What lies at the path, and the delta that makes `new` of it where only the first byte differs.
fn old_of(new: &[u8]) -> Vec<u8> {
    let mut old = new.to_vec();
    old[0] ^= 1;
    old
}

fn delta(of: impl FnOnce(&mut DeltaWriter)) -> Vec<u8> {
    let mut writer = DeltaWriter::default();
    of(&mut writer);
    writer.finish()
}

/// The first `len` bytes of `new`, of which `old` has all but the first.
fn first(new: &[u8], len: usize) -> Vec<u8> {
    delta(|delta| {
        delta.literal(&new[..1]);
        delta.copy(1, len as u64 - 1);
    })
}

fn copy(from: usize, len: usize) -> Vec<u8> {
    delta(|delta| delta.copy(from as u64, len as u64))
}

fn want(rig: &mut Rig, id: u64, new: &[u8], old: &[u8]) {
    rig.files.insert(path("file").sort_key(), old.to_vec());
    let old = Old { path: path("file"), stamp: stamp(old.len() as u64), sha256: sha(old) };
    let want = Want {
        id,
        sha256: rig.give(new),
        size: new.len() as u64,
        mode: None,
        mtime_ns: None,
        local: None,
        old: Some(old),
    };
    assert!(rig.fetcher.want(want, rig.now, &mut rig.out));
    rig.disk();
}

/// A signature that was sent: to whom, of what, and from where on.
fn signed(rig: &mut Rig) -> Option<(ConnId, Sha256, u64)> {
    match rig.fetcher.poll_rsync()? {
        (conn, Word::Signature { sha256, start, signature, .. }) => {
            assert!(Signature::of(signature.0).is_some());
            Some((conn, sha256, start))
        }
        (_, Word::Stop { .. }) => None,
    }
}

fn patch(
    rig: &mut Rig,
    conn: ConnId,
    sha: Sha256,
    range: (usize, usize),
    delta: &[u8],
) -> Result<(), Misbehaved> {
    let range = (range.0 as u64, range.1 as u64);
    rig.fetcher.handle_patch_start(conn, sha, range, rig.now)?;
    rig.fetcher.handle_patch_payload(conn, delta, true, rig.now, &mut rig.out)
}

fn end(rig: &mut Rig, conn: ConnId, sha: Sha256) {
    rig.fetcher.handle_patch_end(conn, sha, rig.now, &mut rig.out);
}

/// One link that gives patches, of which those of 5 MiB are awaited.
fn asked() -> (Rig, Vec<u8>, Sha256) {
    let mut rig = Rig::new(&[]);
    rig.up_rsync(A);
    let new = bytes(1, 5 * MIB);
    want(&mut rig, 1, &new, &old_of(&new));
    assert_eq!(signed(&mut rig), Some((A, sha(&new), 0)));
    assert_eq!(rig.requests(A), []);
    (rig, new.clone(), sha(&new))
}

/// It comes as any other content does.
fn comes(rig: &mut Rig, new: &[u8], pieces: usize) {
    let before = rig.fetcher.received_bytes();
    rig.settle();
    assert_eq!(rig.fetcher.received_bytes() - before, (pieces * MIB) as u64);
    assert_eq!(rig.done(), Some((1, Ok(new.to_vec()))));
}

#[test]
fn patches_make_a_content_without_any_piece_fetched() {
    let (mut rig, new, sha) = asked();
    // Pieces of patches need not be those of the temp.
    assert_eq!(patch(&mut rig, A, sha, (0, MIB + 7), &first(&new, MIB + 7)), Ok(()));
    assert_eq!(patch(&mut rig, A, sha, (MIB + 7, 4 * MIB - 7), &copy(MIB + 7, 4 * MIB - 7)), Ok(()));
    comes(&mut rig, &new, 0);
    end(&mut rig, A, sha);
    rig.assert_empty();
    assert_eq!(rig.fetcher.poll_rsync(), None);
}

#[test]
fn what_no_patch_made_is_fetched() {
    let (mut rig, new, sha) = asked();
    assert_eq!(patch(&mut rig, A, sha, (0, MIB + 7), &first(&new, MIB + 7)), Ok(()));
    end(&mut rig, A, sha);
    comes(&mut rig, &new, 4);
    // And where there is none at all.
    let (mut rig, new, sha) = asked();
    end(&mut rig, A, sha);
    comes(&mut rig, &new, 5);
}

#[test]
fn who_gives_no_patch_is_not_waited_for() {
    let (mut rig, new, sha) = asked();
    rig.later(PATCH_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.requests(A), []);
    rig.later(Duration::from_millis(1));
    assert_eq!(rig.fetcher.poll_rsync(), Some((A, Word::Stop { sha256: sha })));
    // What still comes is taken, and of no use.
    assert_eq!(patch(&mut rig, A, sha, (0, MIB), &first(&new, MIB)), Ok(()));
    comes(&mut rig, &new, 5);
    end(&mut rig, A, sha);
    assert!(patch(&mut rig, A, sha, (MIB, MIB), &copy(MIB, MIB)).is_err());
}

#[test]
fn what_was_not_asked_for_is_a_fault() {
    let (mut rig, new, sha) = asked();
    let good = first(&new, MIB);
    let mut refused = |conn, sha, range| patch(&mut rig, conn, sha, range, &good).is_err();
    assert!(refused(B, sha, (0, MIB)), "a link that is not there");
    assert!(refused(A, Sha256([9; 32]), (0, MIB)), "another content");
    assert!(refused(A, sha, (1, MIB)) && refused(A, sha, (MIB, MIB)), "another piece");
    assert!(refused(A, sha, (0, 0)), "no piece");
    assert!(refused(A, sha, (0, WINDOW_BYTES_MAX as usize + 1)), "a piece that is too long");
    rig.up_rsync(B);
    assert!(patch(&mut rig, B, sha, (0, MIB), &good).is_err(), "a link that was not asked");
    assert_eq!(rig.fetcher.handle_patch_start(A, sha, (0, WINDOW_BYTES_MAX), rig.now), Ok(()));
    assert!(
        rig.fetcher.handle_patch_start(A, sha, (WINDOW_BYTES_MAX, 1), rig.now).is_err(),
        "one within another"
    );
    let most = vec![0; PATCH_BYTES_MAX as usize];
    assert_eq!(rig.fetcher.handle_patch_payload(A, &most, false, rig.now, &mut rig.out), Ok(()));
    assert!(
        rig.fetcher.handle_patch_payload(A, &[0], false, rig.now, &mut rig.out).is_err(),
        "one that is too long"
    );
}

#[test]
fn a_delta_that_fits_not_is_a_fault_and_the_next_peer_gives_the_rest() {
    type Bad = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Bad); 7] = [
        ("a copy beyond the old content", |_| copy(4 * MIB + 1, MIB)),
        ("more than its piece", |new| first(new, MIB + 1)),
        ("less than its piece", |new| first(new, MIB - 1)),
        ("one that was cut", |new| first(new, MIB)[..8].to_vec()),
        ("another magic number", |new| [&[0x72, 0x73, 0x02, 0x37], &first(new, MIB)[4..]].concat()),
        ("something behind the end", |new| [&first(new, MIB)[..], &[0]].concat()),
        ("nothing", |_| Vec::new()),
    ];
    for (what, bad) in cases {
        let (mut rig, new, sha) = asked();
        assert!(patch(&mut rig, A, sha, (0, MIB), &bad(&new)).is_err(), "{what}");
        rig.down(A);
        rig.up_rsync(A);
        assert_eq!(signed(&mut rig), None, "{what}");
        comes(&mut rig, &new, 5);
    }
}

#[test]
fn a_patch_for_another_size_than_the_records_is_no_fault() {
    let (mut rig, new, sha) = asked();
    assert_eq!(patch(&mut rig, A, sha, (0, 5 * MIB + 1), &copy(0, MIB)), Ok(()));
    assert_eq!(rig.fetcher.poll_rsync(), Some((A, Word::Stop { sha256: sha })));
    comes(&mut rig, &new, 5);
}

#[test]
fn a_patch_that_makes_something_else_costs_a_download_and_blames_nobody() {
    let (mut rig, new, sha) = asked();
    assert_eq!(patch(&mut rig, A, sha, (0, 5 * MIB), &copy(0, 5 * MIB)), Ok(()));
    rig.disk();
    assert_eq!(rig.fetcher.poll_lie(), None);
    // The whole again, from one peer.
    comes(&mut rig, &new, 5);
    assert_eq!(signed(&mut rig), None);
}

#[test]
fn an_old_file_that_changes_is_of_no_use_from_then_on() {
    let (mut rig, new, sha) = asked();
    assert_eq!(patch(&mut rig, A, sha, (0, MIB + 7), &first(&new, MIB + 7)), Ok(()));
    rig.disk();
    rig.files.clear();
    assert_eq!(patch(&mut rig, A, sha, (MIB + 7, MIB), &copy(MIB + 7, MIB)), Ok(()));
    assert_eq!(patch(&mut rig, A, sha, (2 * MIB + 7, MIB), &copy(2 * MIB + 7, MIB)), Ok(()));
    comes(&mut rig, &new, 4);
    // Before it is signed.
    let mut rig = Rig::new(&[]);
    rig.up_rsync(A);
    let new = bytes(1, 5 * MIB);
    rig.files.clear();
    let old = Old { path: path("gone"), stamp: stamp(5 * MIB as u64), sha256: sha };
    let sha256 = rig.give(&new);
    let want = Want {
        id: 1,
        sha256,
        size: new.len() as u64,
        mode: None,
        mtime_ns: None,
        local: None,
        old: Some(old),
    };
    assert!(rig.fetcher.want(want, rig.now, &mut rig.out));
    comes(&mut rig, &new, 5);
}

#[test]
fn another_link_gives_the_rest_or_the_same_once_it_is_back() {
    let (mut rig, new, sha) = asked();
    assert_eq!(patch(&mut rig, A, sha, (0, MIB + 7), &first(&new, MIB + 7)), Ok(()));
    rig.disk();
    rig.down(A);
    rig.up_rsync(B);
    rig.disk();
    assert_eq!(signed(&mut rig), Some((B, sha, MIB as u64)));
    assert_eq!(patch(&mut rig, B, sha, (MIB, 4 * MIB), &copy(MIB, 4 * MIB)), Ok(()));
    comes(&mut rig, &new, 0);
}

#[test]
fn what_cannot_pay_is_not_tried() {
    let tried = |new: usize, old: usize, rsync: bool| {
        let mut rig = Rig::new(&[]);
        if rsync {
            rig.up_rsync(A)
        } else {
            rig.up(A, false)
        }
        want(&mut rig, 1, &bytes(1, new), &bytes(2, old));
        signed(&mut rig).is_some()
    };
    let least = DELTA_BYTES_MIN as usize;
    assert!(tried(least + 1, least, true) && !tried(least, least, true));
    assert!(tried(8 * MIB, MIB, true) && !tried(8 * MIB + 1, MIB, true));
    assert!(!tried(MIB, MIB, false));
}

#[test]
fn who_is_asked_no_more_is_told_so_and_may_be_asked_again_after_its_end() {
    let (mut rig, new, sha) = asked();
    rig.fetcher.cancel(1, rig.now, &mut rig.out);
    assert_eq!(rig.fetcher.poll_rsync(), Some((A, Word::Stop { sha256: sha })));
    want(&mut rig, 2, &new, &old_of(&new));
    assert_eq!(signed(&mut rig), None, "two answers could not be told apart");
    rig.fetcher.cancel(2, rig.now, &mut rig.out);
    end(&mut rig, A, sha);
    want(&mut rig, 3, &new, &old_of(&new));
    assert_eq!(signed(&mut rig), Some((A, sha, 0)));
}

#[test]
fn the_largest_file_is_signed_and_one_larger_is_not() {
    let most = BLOCKS_MAX * u64::from(BLOCK_BYTES_MAX);
    for (size, tried) in [(most, true), (most + 1, false)] {
        let mut rig = Rig::new(&[]);
        rig.up_rsync(A);
        let stamp = Stamp { size, ..stamp(0) };
        let old = Old { path: path("file"), stamp, sha256: Sha256([1; 32]) };
        let new = bytes(1, MIB);
        let sha256 = rig.give(&new);
        let size = new.len() as u64;
        let want = Want { id: 1, sha256, size, mode: None, mtime_ns: None, local: None, old: Some(old) };
        assert!(rig.fetcher.want(want, rig.now, &mut rig.out));
        let (token, op) = rig.next_op().unwrap();
        let opened = rig.carry_out(op);
        assert!(rig.fetcher.handle_disk(token, opened, rig.now, &mut rig.out));
        let signing = rig.next_op().is_some_and(|(_, op)| matches!(op, DiskOp::Sign { .. }));
        assert_eq!(signing, tried);
    }
    assert_eq!(HEAD_BYTES, 12);
}
