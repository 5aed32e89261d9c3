//! The fetcher against a scripted disk, store and peers.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::files::fetch::*;
use crate::files::fetch_rig::*;
use crate::files::large::{FLUSH_BYTES, LARGE_ASKING_MAX, LARGE_OPEN_MAX};
use crate::files::partial::{Partial, Pieces, partial_key};
use crate::files::small::STAGE_FILES_MAX;
use crate::files::sources::*;
use crate::ids::{ConnId, Sha256, TempId};
use crate::io::store::Row;
use crate::io::{DiskError, DiskOp};

#[test]
fn small_contents_come_in_batches() {
    let mut rig = Rig::new(&[A]);
    let contents: Vec<Vec<u8>> = (0..600).map(|n| bytes(n, 1000 + n)).collect();
    for (id, content) in contents.iter().enumerate() {
        rig.give(content);
        rig.want(id as u64, content);
    }
    let requests = rig.requests(A);
    assert_eq!(requests.len(), 600);
    assert!(requests.iter().all(|request| request.2.0 == 0 && request.2.1 >= 1000));
    assert_eq!(rig.fetcher.outstanding_bytes(), contents.iter().map(|c| c.len() as u64).sum::<u64>());
    requests.into_iter().rev().for_each(|request| rig.answer(request));
    rig.disk();
    assert_eq!(rig.stages, [STAGE_FILES_MAX, STAGE_FILES_MAX, 600 - 2 * STAGE_FILES_MAX]);
    let mut got = 0;
    while let Some((id, result)) = rig.done() {
        assert_eq!(result.unwrap(), contents[id as usize]);
        got += 1;
    }
    assert_eq!(got, 600);
    rig.assert_empty();
}

#[test]
fn a_batch_waits_five_milliseconds_and_no_longer() {
    let mut rig = Rig::new(&[A]);
    let (one, two) = (bytes(1, 10), bytes(2, 10));
    rig.give(&one);
    rig.give(&two);
    rig.want(1, &one);
    rig.want(2, &two);
    let requests = rig.requests(A);
    rig.answer(requests[0]);
    assert!(!rig.disk());
    assert_eq!(rig.fetcher.poll_timeout(), Some(rig.now.mono.plus(Duration::from_millis(5))));
    rig.later(Duration::from_millis(5));
    assert!(rig.disk());
    assert_eq!(rig.done().unwrap(), (1, Ok(one)));
    rig.answer(requests[1]);
    assert!(rig.disk());
    assert_eq!(rig.done().unwrap(), (2, Ok(two)));
}

#[test]
fn equal_contents_are_fetched_once_and_empty_ones_never() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(1, 5000);
    rig.give(&content);
    (1..=3).for_each(|id| rig.want(id, &content));
    rig.want(4, &[]);
    assert!(rig.try_want(5, sha(b"not empty"), 0, None));
    assert_eq!(rig.requests(A).len(), 1);
    rig.settle();
    let outcomes: BTreeMap<_, _> = core::iter::from_fn(|| rig.done()).collect();
    assert_eq!(outcomes.len(), 5);
    (1..=3).for_each(|id| assert_eq!(outcomes[&id], Ok(content.clone())));
    assert_eq!(outcomes[&4], Ok(vec![]));
    assert_eq!(outcomes[&5], Err(FetchError::Impossible));
    assert_eq!(rig.temps.len(), 4);
    rig.assert_empty();
}

#[test]
fn wants_are_limited() {
    let mut rig = Rig::new(&[]);
    for id in 0..WANTS_MAX as u64 {
        assert!(rig.try_want(id, sha(&id.to_be_bytes()), 10, None));
    }
    assert_eq!(rig.fetcher.capacity(), 0);
    assert!(!rig.try_want(9999, sha(b"x"), 10, None));
    rig.fetcher.cancel(0, rig.now, &mut rig.out);
    assert!(!rig.try_want(1, sha(b"x"), 10, None), "a number in use");
    assert!(rig.try_want(9999, sha(b"x"), 10, None));
}

#[test]
fn what_nobody_has_gives_way_where_others_wait() {
    let mut rig = Rig::new(&[]);
    assert!(rig.try_want(1, sha(b"nowhere"), 10, None));
    rig.fetcher.set_crowded(true);
    let begun = rig.now.mono;
    assert_eq!(rig.fetcher.poll_timeout(), Some(begun.plus(UNAVAILABLE_CROWDED_AFTER)));
    rig.later(UNAVAILABLE_CROWDED_AFTER - Duration::from_nanos(1));
    assert_eq!(rig.done(), None);
    rig.fetcher.set_crowded(false);
    rig.later(Duration::from_nanos(1));
    assert_eq!(rig.done(), None);
    assert_eq!(rig.fetcher.poll_timeout(), Some(begun.plus(UNAVAILABLE_AFTER)));
    rig.fetcher.set_crowded(true);
    rig.later(Duration::ZERO);
    assert_eq!(rig.done(), Some((1, Err(FetchError::NotAvailable))));
}

#[test]
fn a_silent_link_gives_way_where_others_wait() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(1, 10);
    rig.give(&content);
    rig.want(1, &content);
    let late = rig.requests(A)[0];
    rig.up(B, false);
    rig.later(HUSH_AFTER);
    assert!(rig.requests(B).is_empty(), "nobody is in a hurry");
    rig.fetcher.set_crowded(true);
    assert_eq!(rig.fetcher.poll_timeout(), Some(rig.now.mono));
    rig.later(Duration::ZERO);
    assert_eq!(rig.requests(B).len(), 1);
    // Asked for nothing more, until it answers.
    let other = bytes(2, 10);
    rig.give(&other);
    rig.want(2, &other);
    assert!(!rig.requests(A).iter().any(|request| request.1 == sha(&other)));
    rig.answer(late);
    rig.settle();
    let outcomes: BTreeMap<_, _> = core::iter::from_fn(|| rig.done()).collect();
    assert_eq!(outcomes, BTreeMap::from([(1, Ok(content)), (2, Ok(other))]));
    // Who has just spoken is no silent link.
    let third = bytes(3, 10);
    rig.want(3, &third);
    let asked = rig.requests(A).len() + rig.requests(B).len();
    rig.later(HUSH_AFTER - Duration::from_nanos(1));
    assert_eq!((rig.requests(A).len() + rig.requests(B).len(), asked), (1, 1));
}

#[test]
fn requests_are_pipelined_up_to_the_limits() {
    let mut rig = Rig::new(&[A]);
    for id in 0..LINK_REQUESTS_MAX as u64 + 50 {
        assert!(rig.try_want(id, sha(&id.to_be_bytes()), 10, None));
    }
    assert_eq!(rig.requests(A).len(), LINK_REQUESTS_MAX);

    let mut rig = Rig::new(&[A, B, ConnId(3), ConnId(4)]);
    let content = bytes(3, 200 * MIB);
    rig.begin(&content);
    let mut most = 0;
    for turn in 0..80 {
        let conn = ConnId(1 + turn % 4);
        for request in rig.requests(conn) {
            rig.answer(request);
        }
        rig.disk();
        for conn in 1..=4 {
            let owed: u64 = rig.requests(ConnId(conn)).iter().map(|r| r.2.1).sum();
            assert!(owed <= LINK_BYTES_MAX);
        }
        assert!(rig.fetcher.outstanding_bytes() <= TOTAL_BYTES_MAX);
        most = most.max(rig.fetcher.outstanding_bytes());
    }
    assert_eq!(most, TOTAL_BYTES_MAX);
    assert_eq!(rig.done().unwrap().1.unwrap().len(), content.len());
    rig.assert_empty();
}

#[test]
fn reading_stops_while_the_disk_is_behind() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(3, 64 * MIB);
    rig.begin(&content);
    let mut answered = 0;
    while rig.fetcher.wants_read(A) {
        let request = rig.requests(A)[0];
        rig.answer(request);
        answered += 1;
    }
    assert_eq!(answered, BUFFERED_BYTES_MAX / RANGE_BYTES + 1);
    // The silence is our own: nobody is blamed for it.
    let before = rig.requests(A).len();
    rig.later(REQUEST_TIMEOUT);
    assert_eq!(rig.requests(A).len(), before);
    rig.disk();
    assert!(rig.fetcher.wants_read(A));
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
}

#[test]
fn two_sources_share_the_pieces() {
    let mut rig = Rig::new(&[A, B]);
    let content = bytes(4, 20 * MIB + 17);
    rig.begin(&content);
    let mut count = [0, 0];
    while let Some(request) = rig.requests(A).first().or(rig.requests(B).first()).copied() {
        let conn = if count[0] % 3 == 2 && !rig.requests(B).is_empty() { B } else { request.0 };
        let request = rig.requests(conn)[0];
        count[conn.0 as usize - 1] += 1;
        rig.answer(request);
        rig.disk();
    }
    assert!(count[0] > 2 && count[1] > 2, "{count:?}");
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    assert!(rig.rows.is_empty());
    rig.assert_empty();
}

#[test]
fn what_a_slow_link_owes_is_asked_of_a_faster_one() {
    let mut rig = Rig::new(&[A, B]);
    let content = bytes(4, 8 * MIB);
    rig.begin(&content);
    let slow = rig.requests(B);
    assert!(!slow.is_empty());
    while let Some(&request) = rig.requests(A).first() {
        rig.answer(request);
        rig.disk();
    }
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    // The late answers are owed, and harmless.
    slow.into_iter().for_each(|request| rig.answer(request));
    rig.disk();
    rig.assert_empty();
}

#[test]
fn a_lying_sole_source_is_avoided() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(5, 3000);
    rig.give(&content);
    rig.want(1, &content);
    let request = rig.requests(A)[0];
    rig.data(request, bytes(6, 3000)).unwrap();
    rig.disk();
    assert!(rig.temps.is_empty() && rig.done().is_none());
    assert!(rig.requests(A).is_empty());
    rig.up(B, false);
    assert_eq!(rig.requests(B).len(), 1);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content.clone())));
    // For three hours, and no longer.
    rig.down(B);
    rig.later(AVOID_FOR - Duration::from_secs(1));
    rig.want(2, &content);
    assert!(rig.requests(A).is_empty());
    rig.later(UNAVAILABLE_AFTER);
    assert_eq!(rig.done().unwrap(), (2, Err(FetchError::NotAvailable)));
    rig.want(3, &content);
    assert_eq!(rig.requests(A).len(), 1);
}

#[test]
fn after_a_wrong_mixture_the_writer_is_asked_alone_and_the_liar_blamed_only_then() {
    let mut rig = Rig::new(&[A]);
    rig.up(B, true);
    let content = bytes(7, 4 * MIB);
    rig.begin(&content);
    // B, the writer, lies about each piece; A is honest.
    let lie = vec![0; MIB];
    let first: Vec<Request> = [rig.requests(A), rig.requests(B)].concat();
    assert_eq!(first.len(), 4);
    for request in first {
        if request.0 == B { rig.data(request, lie.clone()).unwrap() } else { rig.answer(request) }
    }
    // A was asked for some of B's pieces, because B was slower; it still owes them.
    let owed = rig.requests(A);
    rig.disk();
    assert_eq!(rig.requests(A), owed, "the writer comes first");
    assert!(!rig.requests(B).is_empty());
    while let Some(&request) = rig.requests(B).first() {
        rig.data(request, lie.clone()).unwrap();
    }
    rig.disk();
    assert!(rig.requests(B).is_empty());
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    assert_eq!(rig.temps.len(), 1);
    rig.assert_empty();
}

#[test]
fn pieces_of_a_link_that_goes_down_go_to_the_next() {
    let mut rig = Rig::new(&[A]);
    let (large, small) = (bytes(8, 9 * MIB), bytes(9, 100));
    rig.give(&large);
    rig.give(&small);
    rig.want(1, &large);
    rig.want(2, &small);
    rig.disk();
    let requests = rig.requests(A);
    let piece = requests.iter().find(|request| request.2.1 == MIB as u64).copied().unwrap();
    rig.answer(piece);
    rig.fetcher.handle_data_start(A, large_key(&requests), (MIB as u64, MIB as u64), rig.now).unwrap();
    rig.down(A);
    assert_eq!(rig.fetcher.outstanding_bytes(), 0);
    rig.up(B, false);
    let of_large = |request: &&Request| request.2.1 == MIB as u64;
    let ranges: Vec<_> = rig.requests(B).iter().filter(of_large).map(|request| request.2).collect();
    assert_eq!(ranges[0], (MIB as u64, MIB as u64), "the first one is there");
    rig.settle();
    let outcomes: BTreeMap<_, _> = core::iter::from_fn(|| rig.done()).collect();
    assert_eq!(outcomes, BTreeMap::from([(1, Ok(large)), (2, Ok(small))]));
    rig.assert_empty();
}

fn large_key(requests: &[Request]) -> Sha256 {
    requests.iter().find(|request| request.2.1 == MIB as u64).unwrap().1
}

#[test]
fn a_download_goes_on_after_a_restart() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(10, 12 * MIB);
    let key = rig.begin(&content);
    for _ in 0..5 {
        let request = rig.requests(A)[0];
        rig.answer(request);
    }
    rig.disk();
    assert!(rig.rows.is_empty());
    rig.later(Duration::from_secs(5));
    rig.disk();
    assert_eq!((rig.flushes, rig.rows.len()), (1, 1));
    // This one is written, and never flushed.
    let request = rig.requests(A)[0];
    rig.answer(request);
    rig.disk();
    assert_eq!(rig.fetcher.written_bytes(), 6 * MIB as u64);

    let mut next = Rig::new(&[]);
    next.has = rig.has.clone();
    next.temps = rig.temps.clone();
    next.rows = rig.rows.clone();
    let mut rows: Vec<Row> = rig.rows.into_iter().collect();
    rows.push((partial_key(ROOT, &sha(b"other")), vec![1, 2, 3]));
    next.rows.extend(rows.iter().cloned());
    next.fetcher.load(&rows, &mut next.out);
    next.disk();
    assert_eq!(next.rows.len(), 1, "a row that cannot be read goes");
    assert_eq!(next.fetcher.temps_in_use(), rig.temps.keys().copied().collect::<Vec<_>>());
    next.up(B, false);
    next.want(1, &content);
    next.disk();
    assert_eq!(next.requests(B)[0], (B, key, (5 * MIB as u64, MIB as u64)));
    assert_eq!(next.fetcher.written_bytes(), 5 * MIB as u64, "what was flushed before counts");
    next.settle();
    assert_eq!(next.fetcher.received_bytes(), 7 * MIB as u64);
    assert_eq!(next.done().unwrap(), (1, Ok(content)));
    assert!(next.rows.is_empty());
    next.assert_empty();
}

#[test]
fn a_slow_flush_holds_up_what_a_kill_would_lose() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(11, 2 * FLUSH_BYTES as usize + 3 * MIB);
    rig.begin(&content);
    let mut flush = None;
    loop {
        while let Some((token, op)) = rig.next_op() {
            if let DiskOp::FlushTemp { .. } = op {
                assert!(flush.replace((token, op)).is_none(), "one at a time");
                continue;
            }
            let result = rig.carry_out(op);
            assert!(rig.fetcher.handle_disk(token, result, rig.now, &mut rig.out));
        }
        let Some(&request) = rig.requests(A).first() else { break };
        rig.answer(request);
    }
    assert_eq!(rig.fetcher.written_bytes(), 2 * FLUSH_BYTES);
    rig.held.extend(flush);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    rig.assert_empty();
}

#[test]
fn a_temp_that_was_lost_is_fetched_from_the_start_and_unwanted_ones_go() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(11, 9 * MIB);
    let key = rig.give(&content);
    let row = |temp| Partial { temp: TempId(temp), size: 9 * MIB as u64, have: Pieces::all(3) }.encode();
    let rows = vec![(partial_key(ROOT, &key), row(55)), (partial_key(ROOT, &sha(b"gone")), row(56))];
    rig.rows.extend(rows.iter().cloned());
    rig.temps.insert(TempId(56), vec![]);
    rig.fetcher.load(&rows, &mut rig.out);
    rig.fetcher.retain_partials(|sha| *sha == key, &mut rig.out);
    rig.disk();
    assert!(rig.temps.is_empty());
    assert_eq!(rig.rows.len(), 1);
    rig.want(1, &content);
    rig.disk();
    assert_eq!(rig.requests(A)[0].2, (0, MIB as u64));
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
}

#[test]
fn progress_survives_while_nobody_has_it_and_ends_with_a_cancel() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(12, 12 * MIB);
    rig.begin(&content);
    let request = rig.requests(A)[0];
    rig.answer(request);
    rig.disk();
    rig.down(A);
    rig.later(Duration::from_secs(5));
    rig.disk();
    rig.later(UNAVAILABLE_AFTER);
    rig.disk();
    assert_eq!(rig.done().unwrap(), (1, Err(FetchError::NotAvailable)));
    assert_eq!((rig.rows.len(), rig.temps.len()), (1, 1));
    rig.up(A, false);
    rig.want(2, &content);
    rig.disk();
    assert_eq!(rig.requests(A)[0].2, (MIB as u64, MIB as u64));
    rig.fetcher.cancel(2, rig.now, &mut rig.out);
    rig.disk();
    assert_eq!((rig.rows.len(), rig.temps.len()), (0, 0));
    assert_eq!(rig.fetcher.outstanding_bytes(), 0);
    // What A still owes is taken without complaint.
    for request in rig.requests(A) {
        rig.answer(request);
    }
    rig.assert_empty();
}

#[test]
fn what_is_put_off_goes_on_where_it_was_flushed_and_is_forgotten_when_unwanted() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(14, 12 * MIB);
    let key = rig.begin(&content);
    let request = rig.requests(A)[0];
    rig.answer(request);
    rig.disk();
    rig.later(Duration::from_secs(5));
    rig.disk();
    assert!(rig.fetcher.put_off(1, rig.now, &mut rig.out));
    rig.disk();
    assert!(rig.done().is_none());
    assert_eq!((rig.rows.len(), rig.temps.len(), rig.fetcher.parked().count()), (1, 1, 1));
    for owed in rig.requests(A) {
        rig.answer(owed);
    }
    rig.want(2, &content);
    rig.disk();
    assert_eq!(rig.requests(A)[0].2, (MIB as u64, MIB as u64));
    // Put off with a write under way: it is forgotten before it is put away.
    let request = rig.requests(A)[0];
    rig.answer(request);
    assert!(rig.fetcher.put_off(2, rig.now, &mut rig.out));
    assert_eq!(rig.fetcher.parked().collect::<Vec<_>>(), [&key]);
    rig.fetcher.retain_partials(|_| false, &mut rig.out);
    assert_eq!(rig.fetcher.parked().count(), 0);
    rig.disk();
    assert_eq!((rig.rows.len(), rig.temps.len()), (0, 0));
}

#[test]
fn what_is_here_in_full_is_not_put_off() {
    let mut rig = Rig::new(&[A]);
    for (id, content) in [(1, bytes(15, 100)), (2, bytes(16, 2 * MIB))] {
        rig.give(&content);
        rig.want(id, &content);
        rig.settle();
        assert!(!rig.fetcher.put_off(id, rig.now, &mut rig.out));
        assert_eq!(rig.done().unwrap(), (id, Ok(content)));
    }
}

#[test]
fn a_full_disk_ends_the_want_and_leaves_no_temp() {
    let mut rig = Rig::new(&[A]);
    let (small, large) = (bytes(1, 10), bytes(2, 2 * MIB));
    rig.give(&small);
    rig.give(&large);
    rig.want(1, &small);
    rig.fail = Some(DiskError::NoSpace);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Err(FetchError::NoSpace)));
    rig.fail = None;
    rig.want(2, &large);
    rig.disk();
    rig.fail = Some(DiskError::NoSpace);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (2, Err(FetchError::NoSpace)));
    assert!(rig.temps.is_empty());
    rig.assert_empty();
}

#[test]
fn a_full_disk_keeps_what_was_flushed() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(2, 10 * MIB);
    rig.begin(&content);
    let request = rig.requests(A)[0];
    rig.answer(request);
    rig.disk();
    rig.later(Duration::from_secs(5));
    rig.disk();
    rig.fail = Some(DiskError::NoSpace);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Err(FetchError::NoSpace)));
    assert_eq!((rig.temps.len(), rig.rows.len()), (1, 1));
    assert_eq!(rig.fetcher.temps_in_use().len(), 1);
}

#[test]
fn a_request_without_an_answer_is_asked_elsewhere() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(1, 10);
    rig.give(&content);
    rig.want(1, &content);
    let late = rig.requests(A)[0];
    rig.up(B, false);
    rig.later(REQUEST_TIMEOUT - Duration::from_secs(1));
    assert!(rig.requests(B).is_empty());
    rig.later(Duration::from_secs(1));
    let request = rig.requests(B)[0];
    rig.answer(request);
    rig.disk();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    rig.answer(late);
    assert!(!rig.disk());
}

#[test]
fn a_link_that_never_answers_leaves_no_want_without_outcome() {
    let mut rig = Rig::new(&[A]);
    for id in 0..4096 {
        assert!(rig.try_want(id, sha(&id.to_be_bytes()), 100_000, None));
    }
    for _ in 0..3 {
        rig.later(REQUEST_TIMEOUT);
    }
    let outcomes = core::iter::from_fn(|| rig.fetcher.poll_done()).count();
    assert_eq!(outcomes, 4096);
    assert_eq!(rig.fetcher.poll_timeout(), None);
    // Once it answers, it is asked again.
    let content = bytes(1, 10);
    rig.give(&content);
    rig.want(9999, &content);
    assert!(!rig.requests(A).iter().any(|request| request.1 == sha(&content)));
    for owed in rig.requests(A) {
        rig.data(owed, vec![0; 100_000]).unwrap();
    }
    assert!(rig.requests(A).iter().any(|request| request.1 == sha(&content)));
}

#[test]
fn refusals_go_to_other_peers_then_wait() {
    let mut rig = Rig::new(&[A, B]);
    let (small, large) = (bytes(1, 10), bytes(2, 3 * MIB));
    rig.want(1, &small);
    rig.want(2, &large);
    rig.settle();
    assert!(rig.done().is_none());
    let until = rig.now.mono.plus(UNAVAILABLE_AFTER);
    assert_eq!(rig.fetcher.poll_timeout(), Some(until));
    rig.has.insert(sha(&small), small.clone());
    rig.fetcher.handle_present(B, sha(&small), rig.now, &mut rig.out);
    assert_eq!(rig.requests(B), [(B, sha(&small), (0, small.len() as u64))]);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(small)));
    rig.later(UNAVAILABLE_AFTER);
    rig.disk();
    assert_eq!(rig.done().unwrap(), (2, Err(FetchError::NotAvailable)));
    assert_eq!(rig.temps.len(), 1);
    rig.assert_empty();
}

/// What could not be read, or was not there, may be by now: whoever wants the content anew asks everybody.
#[test]
fn who_refused_is_asked_again_for_the_next_want() {
    let mut rig = Rig::new(&[A]);
    for content in [bytes(1, 10), bytes(2, 3 * MIB)] {
        rig.want(1, &content);
        rig.settle();
        rig.later(UNAVAILABLE_AFTER);
        rig.disk();
        assert_eq!(rig.done().unwrap(), (1, Err(FetchError::NotAvailable)));
        rig.give(&content);
        rig.want(2, &content);
        rig.settle();
        assert_eq!(rig.done().unwrap(), (2, Ok(content)));
    }
}

#[test]
fn refusals_and_data_may_come_in_any_order() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(2, 2 * MIB);
    let key = rig.begin(&content);
    let requests = rig.requests(A);
    assert_eq!(requests.len(), 2);
    // One of two was refused, which one is not said; then the other is answered.
    rig.fetcher.handle_not_present(A, key, rig.now, &mut rig.out);
    rig.answer(requests[0]);
    rig.answer_fails(requests[1]);
}

impl Rig {
    /// Nothing is owed any more, so an answer is one that nobody asked for.
    fn answer_fails(&mut self, request: Request) {
        let bytes = self.right(request);
        assert!(self.data(request, bytes).is_err());
    }
}

#[test]
fn what_was_not_asked_for_is_misbehaviour() {
    let content = bytes(1, 1000);
    let key = sha(&content);
    let fresh = || {
        let mut rig = Rig::new(&[A, B]);
        rig.give(&content);
        rig.want(1, &content);
        assert_eq!(rig.requests(A).len(), 1);
        rig
    };
    let start = |conn, sha, range| {
        let mut rig = fresh();
        rig.fetcher.handle_data_start(conn, sha, range, rig.now)
    };
    assert!(start(A, key, (0, 1000)).is_ok());
    assert!(start(B, key, (0, 1000)).is_err(), "asked of another");
    assert!(start(A, sha(b""), (0, 1000)).is_err());
    assert!(start(A, key, (1, 999)).is_err());
    assert!(start(A, key, (0, 999)).is_err());
    assert!(start(A, key, (0, 1001)).is_err());
    assert!(start(ConnId(9), key, (0, 1000)).is_err());
    let payload = |pieces: &[usize]| {
        let mut rig = fresh();
        rig.fetcher.handle_data_start(A, key, (0, 1000), rig.now).unwrap();
        let mut at = 0;
        for (i, &len) in pieces.iter().enumerate() {
            let bytes = vec![1; len];
            at += 1;
            rig.fetcher.handle_payload(A, bytes, at == pieces.len(), rig.now, &mut rig.out).map_err(|_| i)?;
        }
        Ok(())
    };
    assert_eq!(payload(&[1000]), Ok(()));
    assert_eq!(payload(&[1, 998, 1, 0]), Ok(()));
    assert_eq!(payload(&[1001]), Err(0));
    assert_eq!(payload(&[999]), Err(0));
    assert_eq!(payload(&[999, 2]), Err(1));
    assert_eq!(payload(&[0]), Err(0));
    let mut rig = fresh();
    assert!(rig.fetcher.handle_payload(A, vec![], true, rig.now, &mut rig.out).is_err());
    let request = rig.requests(A)[0];
    rig.answer(request);
    assert!(rig.fetcher.handle_data_start(A, key, (0, 1000), rig.now).is_err(), "twice");
}

#[test]
fn a_local_copy_is_taken_where_it_is_right() {
    let mut rig = Rig::new(&[A]);
    let (good, bad, gone) = (bytes(1, 100), bytes(2, 100), bytes(3, 100));
    [&good, &bad, &gone].into_iter().for_each(|content| _ = rig.give(content));
    rig.files.insert(b"good".to_vec(), good.clone());
    rig.files.insert(b"bad".to_vec(), bytes(4, 100));
    for (id, content, name) in [(1, &good, "good"), (2, &bad, "bad"), (3, &gone, "gone")] {
        assert!(rig.try_want(id, sha(content), 100, Some((path(name), stamp(100)))));
    }
    assert!(rig.requests(A).is_empty());
    rig.disk();
    assert_eq!(rig.done().unwrap(), (1, Ok(good)));
    assert_eq!(rig.requests(A).len(), 2);
    rig.settle();
    let outcomes: BTreeMap<_, _> = core::iter::from_fn(|| rig.done()).collect();
    assert_eq!(outcomes, BTreeMap::from([(2, Ok(bad)), (3, Ok(gone))]));
    assert_eq!(rig.temps.len(), 3);
    rig.assert_empty();
}

#[test]
fn copies_are_batched_within_their_limits() {
    let mut rig = Rig::new(&[]);
    let content = bytes(1, 100);
    rig.files.insert(b"f".to_vec(), content.clone());
    for id in 0..200 {
        assert!(rig.try_want(id, sha(&content), 100, Some((path("f"), stamp(100)))));
    }
    let (first, second) = (rig.next_op().unwrap(), rig.next_op().unwrap());
    assert!(rig.next_op().is_none(), "two at a time");
    rig.held.extend([first, second]);
    rig.disk();
    assert_eq!(rig.stages, [1, 1, 64, 64, 64, 6]);
}

#[test]
fn few_large_contents_are_begun_at_once() {
    let mut rig = Rig::new(&[A]);
    for id in 0..30 {
        assert!(rig.try_want(id, sha(&id.to_be_bytes()), 30 * MIB, None));
    }
    assert_eq!(core::iter::from_fn(|| rig.next_op()).count(), LARGE_ASKING_MAX);

    let mut rig = Rig::new(&[A]);
    for id in 0..30 {
        let content = bytes(id, 300_000);
        rig.give(&content);
        rig.want(id as u64, &content);
    }
    rig.disk();
    assert!(rig.temps.len() <= LARGE_OPEN_MAX);
    rig.settle();
    assert_eq!(core::iter::from_fn(|| rig.done()).count(), 30);
    rig.assert_empty();
}

#[test]
fn a_second_want_of_a_large_content_is_told_to_come_again() {
    let mut rig = Rig::new(&[A]);
    let content = bytes(1, 2 * MIB);
    rig.give(&content);
    rig.want(1, &content);
    rig.want(2, &content);
    rig.settle();
    assert_eq!(rig.done().unwrap(), (1, Ok(content)));
    assert_eq!(rig.done().unwrap(), (2, Err(FetchError::Again)));
    rig.assert_empty();
}

#[test]
fn a_want_under_another_size_waits_until_the_first_has_ended() {
    let (small, large) = (bytes(1, 100), bytes(2, 2 * MIB));
    for (content, lie) in [(&small, 2 * MIB), (&small, 10), (&large, 10), (&large, 3 * MIB)] {
        let mut rig = Rig::new(&[A]);
        rig.give(content);
        assert!(rig.try_want(1, sha(content), lie, None));
        rig.want(2, content);
        assert!(rig.try_want(3, sha(content), lie, None));
        rig.fetcher.cancel(3, rig.now, &mut rig.out);
        assert_eq!(rig.done(), None, "neither came, and none is told to ask again at once");
        rig.settle();
        rig.later(UNAVAILABLE_AFTER + Duration::from_secs(1));
        rig.settle();
        assert!(matches!(rig.done(), Some((1, Err(_)))));
        assert_eq!(rig.done(), Some((2, Ok(content.clone()))));
        assert_eq!(rig.done(), None);
        rig.assert_empty();
    }
}

#[test]
fn a_cancelled_want_leaves_nothing_at_any_moment() {
    let small = bytes(1, 100);
    let large = bytes(2, 2 * MIB);
    for content in [&small, &large] {
        for moment in 0..12 {
            let mut rig = Rig::new(&[A]);
            rig.give(content);
            rig.want(1, content);
            for _ in 0..moment {
                if let Some(request) = rig.requests(A).first().copied() {
                    rig.answer(request);
                } else if let Some((token, op)) = rig.next_op() {
                    let result = rig.carry_out(op);
                    rig.fetcher.handle_disk(token, result, rig.now, &mut rig.out);
                }
            }
            rig.fetcher.cancel(1, rig.now, &mut rig.out);
            rig.settle();
            assert!(rig.temps.is_empty(), "{moment}");
            assert!(rig.done().is_none());
            rig.assert_empty();
        }
    }
}
