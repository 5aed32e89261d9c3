//! How two versions of one record join, when their values conflict, and which of two records with one key is shown
//! (protocol §7 "Merging", "Conflict", "Two live records"). Pure functions; they store, announce and author nothing.

use core::cmp::Ordering;

use alloc::vec::Vec;

use crate::ids::Uuid;
use crate::index::canonical::{write_meta, write_value};
use crate::index::record::{Change, Record};

/// The join of two versions of one record: commutative, associative and idempotent, so that every peer reaches the
/// same result alone. It makes no new revision. It need not fit the limits of the wire (see
/// [`check`](crate::index::check::check_limits)) although both versions do; whoever stores it asks first.
pub fn join(a: &Record, b: &Record) -> Record {
    debug_assert_eq!(a.uuid, b.uuid, "only versions of one record join");
    let key = larger(a, b, |r| &r.key_change, |a, b| a.key.cmp(&b.key));
    let value = larger(a, b, |r| &r.value_change, value_order);
    let meta = larger(a, b, |r| &r.meta_change, meta_order);
    Record {
        uuid: a.uuid,
        key: key.key.clone(),
        value: value.value.clone(),
        meta: meta.meta.clone(),
        clock: a.clock.joined(&b.clock),
        deleted_clock: a.deleted_clock.joined(&b.deleted_clock),
        value_clock: value.value_clock.clone(),
        update: a.update.max(b.update),
        key_change: key.key_change,
        value_change: value.value_change,
        meta_change: meta.meta_change,
    }
}

/// The version whose part was changed last; of equal changes, which honest peers never make apart but for the source
/// of a conflict file, the one that `bytes` calls larger.
fn larger<'a>(
    a: &'a Record,
    b: &'a Record,
    change: impl Fn(&Record) -> &Change,
    bytes: impl Fn(&Record, &Record) -> Ordering,
) -> &'a Record {
    match change(a).cmp(change(b)).then_with(|| bytes(a, b)) {
        Ordering::Less => b,
        Ordering::Equal | Ordering::Greater => a,
    }
}

/// What says to which record it lost comes last, because a record that gives way says so without another
/// `value_change`; then by the canonical JSON of the value, then by the entries of its clock.
fn value_order(a: &Record, b: &Record) -> Ordering {
    if a.value == b.value {
        return a.value_clock.order(&b.value_clock);
    }
    let lost = |record: &Record| record.conflict_source().is_some();
    match lost(a).cmp(&lost(b)) {
        Ordering::Equal => {}
        order => return order,
    }
    let (mut x, mut y) = (Vec::new(), Vec::new());
    write_value(&a.value, &mut x);
    write_value(&b.value, &mut y);
    x.cmp(&y).then_with(|| a.value_clock.order(&b.value_clock))
}

/// By the canonical JSON.
fn meta_order(a: &Record, b: &Record) -> Ordering {
    if a.meta == b.meta {
        return Ordering::Equal;
    }
    let (mut x, mut y) = (Vec::new(), Vec::new());
    write_meta(&a.meta, &mut x);
    write_meta(&b.meta, &mut y);
    x.cmp(&y)
}

/// What became of a stored version and one that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The join.
    pub record: Record,
    /// Whether it differs from the stored version, and so is to be stored and sent.
    pub changed: bool,
    /// Whether it differs from what came in, and so is to be sent to where that came from too.
    pub answers: bool,
    /// A fault to log and count; never answered by a change.
    pub fault: Option<FaultyJoin>,
}

/// A join differs from a version whose clock covers the join's own: somebody used a dot for two changes, or claimed
/// to have seen what he had not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultyJoin {
    /// The stored version claimed to have seen the one that came in.
    Stored,
    /// The one that came in claimed to have seen the stored version.
    Incoming,
}

/// Joins a version that came in to the stored one, and says what follows.
pub fn merge(stored: &Record, incoming: &Record) -> Merged {
    let record = join(stored, incoming);
    let changed = record != *stored;
    let answers = record != *incoming;
    let fault = if changed && stored.clock.covers(&record.clock) {
        Some(FaultyJoin::Stored)
    } else if answers && incoming.clock.covers(&record.clock) {
        Some(FaultyJoin::Incoming)
    } else {
        None
    };
    Merged { record, changed, answers, fault }
}

/// What a join of `a` and `b` no longer says: to which record the value lost, because its last author had not seen it
/// give way (protocol §8). It is a conflict file all the same.
pub fn forgotten_source(a: &Record, b: &Record, joined: &Record) -> Option<Uuid> {
    if joined.deleted() || joined.entry().is_none() || joined.conflict_source().is_some() {
        return None;
    }
    let unseen = |version: &&Record| !version.key_change.seen_by(&joined.value_clock);
    [a, b].into_iter().filter(unseen).find_map(Record::conflict_source)
}

/// Whether two values of one record conflict (protocol §7): neither's clock covers the other's change, and they are
/// not equal. Keys and meta never conflict. Which of them lost is said by [`join`].
pub fn conflicts(w: &Record, v: &Record) -> bool {
    !v.value_change.seen_by(&w.value_clock) && !w.value_change.seen_by(&v.value_clock) && !w.same_value(v)
}

/// Of the records under one key, the one that is shown (protocol §7, §8): tombstones aside, a directory before
/// anything else, then the larger `value_change`; of equal ones the smaller uuid. `implied_dir`: a live record lies
/// beneath the key, so that a directory stands there even without a record; then nothing but a directory is shown.
pub fn shown<'a>(records: impl IntoIterator<Item = &'a Record>, implied_dir: bool) -> Option<&'a Record> {
    records
        .into_iter()
        .filter(|r| !r.deleted() && (r.is_dir() || !implied_dir))
        .max_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| b.uuid.cmp(&a.uuid)))
}

fn rank(record: &Record) -> (bool, Change) {
    (record.is_dir(), record.value_change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::author::{Revision, create, delete, edit, move_to, revise, set_meta, touch_empty};
    use crate::index::check::check;
    use crate::index::record::{EntryContent, EntryValue, Meta, Value};
    use crate::index::testing::{any_record, author, file, file_value, good_record};
    use crate::time::WallTime;
    use proptest::prelude::*;

    fn mode(unix_mode: u32) -> Meta {
        Meta { unix_mode: Some(unix_mode), ..Meta::default() }
    }

    fn dir() -> Value {
        Value::Entry(EntryValue::new(EntryContent::Dir))
    }

    #[test]
    fn move_chmod_and_edit_made_apart_all_survive() {
        let (mut a, mut b, mut c) = (author(1), author(2), author(3));
        let v = file(&mut a, "/a", 1);
        let moved = move_to(&mut a, &v, "/b".into()).unwrap();
        let chmod = set_meta(&mut b, &v, mode(0o600)).unwrap();
        let edited = edit(&mut c, &v, file_value(2), None).unwrap();
        let all = join(&join(&moved, &edited), &chmod);
        assert_eq!((all.key.as_str(), all.size(), all.meta.unix_mode), ("/b", 2, Some(0o600)));
        assert!(!all.deleted() && check(&all).is_ok());
        assert_eq!(all.value_clock, edited.value_clock);
    }

    #[test]
    fn a_later_change_beats_what_it_had_seen_whatever_the_clocks_say() {
        let (mut a, mut b) = (author(9), author(1));
        b.wall = WallTime(a.wall.0 - 1_000_000_000_000);
        let v = file(&mut a, "/a", 1);
        let w = edit(&mut b, &v, file_value(2), None).unwrap();
        assert_eq!(join(&v, &w), w);
        let gone = delete(&mut b, &w).unwrap();
        assert_eq!(join(&join(&v, &gone), &w), gone);
    }

    #[test]
    fn an_edit_beats_a_delete_that_had_not_seen_it_whichever_is_later() {
        for (a_wall, b_wall) in [(0, 5), (5, 0)] {
            let (mut a, mut b) = (author(1), author(2));
            let v = file(&mut a, "/a", 1);
            a.wall.0 += a_wall;
            b.wall.0 += b_wall;
            let gone = delete(&mut a, &v).unwrap();
            let edited = edit(&mut b, &v, file_value(2), None).unwrap();
            let j = join(&gone, &edited);
            assert!(!j.deleted());
            assert_eq!(j.size(), 2);
        }
    }

    #[test]
    fn conflict_is_judged_by_values_alone_and_through_third_parties() {
        let (mut a, mut b, mut c) = (author(1), author(2), author(3));
        let v = file(&mut a, "/a", 1);
        let w = edit(&mut a, &v, file_value(2), None).unwrap();
        let x = edit(&mut b, &v, file_value(3), None).unwrap();
        assert!(conflicts(&w, &x) && conflicts(&x, &w) && !conflicts(&v, &w) && !conflicts(&w, &v));
        let merged = move_to(&mut c, &join(&w, &x), "/b".into()).unwrap();
        let lost = if merged.value == w.value { &x } else { &w };
        assert!(merged.clock.covers(&lost.clock) && conflicts(&merged, lost));
        let same = edit(&mut b, &v, file_value(2), None).unwrap();
        assert!(!conflicts(&w, &same));
        let chmod = set_meta(&mut b, &v, mode(0)).unwrap();
        assert!(!conflicts(&chmod, &w));
    }

    #[test]
    fn faults_are_named() {
        let mut a = author(1);
        let v = file(&mut a, "/a", 1);
        let w = edit(&mut a, &v, file_value(2), None).unwrap();
        let m = merge(&v, &w);
        assert_eq!((m.changed, m.answers, m.fault), (true, false, None));
        let m = merge(&w, &v);
        assert_eq!((m.changed, m.answers, m.fault), (false, true, None));
        // The same dot for two values.
        let mut twin = w.clone();
        twin.value = file_value(200);
        let (m, n) = (merge(&w, &twin), merge(&twin, &w));
        assert_eq!(m.record, n.record);
        assert!(m.fault.is_some() && n.fault.is_some());
        // A clock that claims what the version had not seen.
        let mut liar = v.clone();
        liar.clock = w.clock.clone();
        assert_eq!(merge(&liar, &w).fault, Some(FaultyJoin::Stored));
        assert_eq!(merge(&w, &liar).fault, Some(FaultyJoin::Incoming));
        let empty = touch_empty(&mut a, &w).unwrap();
        assert_eq!(merge(&w, &empty).fault, None);
    }

    #[test]
    fn a_directory_is_shown_first_then_the_later_value() {
        let mut a = author(1);
        let old_dir = create(&mut a, Uuid([1; 16]), "/a".into(), dir(), Meta::default(), None).unwrap();
        a.wall.0 += 1;
        let early = Record { uuid: Uuid([2; 16]), ..file(&mut a, "/a", 1) };
        a.wall.0 += 1;
        let late = Record { uuid: Uuid([3; 16]), ..file(&mut a, "/a", 2) };
        let twin = Record { uuid: Uuid([4; 16]), ..late.clone() };
        assert_eq!(shown([&early, &late], false), Some(&late));
        assert_eq!(shown([&late, &early, &old_dir], false), Some(&old_dir));
        assert_eq!(shown([&late, &twin], false), Some(&late));
        assert_eq!(shown([&late, &early], true), None);
        assert_eq!(shown([&late, &old_dir], true), Some(&old_dir));
        let gone = delete(&mut a, &late).unwrap();
        assert_eq!(shown([&gone, &early], false), Some(&early));
        assert_eq!(shown([], false), None);
    }

    #[test]
    fn ties_go_to_the_larger_bytes() {
        let mut a = author(1);
        let v = file(&mut a, "/a", 1);
        let mut w = v.clone();
        w.key = "/b".into();
        w.meta = mode(0o700);
        w.value_clock.set(crate::index::testing::peer(2), 1);
        let j = join(&v, &w);
        assert_eq!((j.key.as_str(), &j.meta, &j.value_clock), ("/b", &w.meta, &w.value_clock));
        assert_eq!(j, join(&w, &v));
    }

    proptest! {
        #[test]
        fn join_is_commutative_associative_and_idempotent(a in any_record(), b in any_record(), c in any_record()) {
            let ab = join(&a, &b);
            prop_assert_eq!(&ab, &join(&b, &a));
            prop_assert_eq!(join(&ab, &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(&join(&a, &a), &a);
            prop_assert_eq!(&join(&ab, &a), &ab);
        }

        #[test]
        fn a_join_of_good_records_is_good(a in good_record(), b in good_record()) {
            prop_assert_eq!(check(&join(&a, &b)), Ok(()));
        }

        #[test]
        fn later_beats_seen(v in good_record(), size in 10u64..20, wall in 0i64..9, me in 0u8..5, gone: bool) {
            let mut me = author(me);
            (me.rev, me.wall) = (100, WallTime(wall));
            let change = Revision {
                key: Some("/new".into()),
                value: Some(file_value(size)),
                meta: Some(mode(0o111)),
                ..Revision::default()
            };
            let w = if gone { delete(&mut me, &v) } else { revise(&mut me, &v, change) };
            if let Ok(w) = w {
                prop_assert_eq!(check(&w), Ok(()));
                prop_assert_eq!(w.deleted(), gone);
                let m = merge(&v, &w);
                prop_assert_eq!((&m.record, m.answers, m.fault), (&w, false, None));
                prop_assert!(!conflicts(&v, &w));
            } else {
                prop_assert!(gone && v.deleted());
            }
        }
    }
}
