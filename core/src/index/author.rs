//! Local changes: the one place where revisions are used and times are given (protocol §7, §8). Pure: takes a
//! version, returns the next; stores nothing and asks nobody for the time.

use alloc::string::String;

use crate::error::Malformed;
use crate::ids::{PeerId, Uuid};
use crate::index::check::check;
use crate::index::clock::{Clock, REV_MAX};
use crate::index::record::{Change, Meta, Record, Value};
use crate::time::{NANOS_PER_SECOND, WallTime};

/// The year 2100: a clock that says more is not believed (protocol §7).
pub const WALL_MAX: WallTime = WallTime(4_102_444_800 * NANOS_PER_SECOND);

/// The year 2200: a record with a later time does not count for others' times (protocol §7).
pub const RECORD_TIME_MAX: WallTime = WallTime(7_258_118_400 * NANOS_PER_SECOND);

/// A clock that differs by more than this from all connected read_write peers is not believed (protocol §7).
pub const WALL_SKEW_MAX_NANOS: u64 = 24 * 60 * 60 * NANOS_PER_SECOND as u64;

/// Who changes, and how far its revisions went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// The peer ID under which this store may author.
    pub peer: PeerId,
    /// The last revision that was used; the next change takes the one after it.
    pub rev: u64,
    /// The time of changes from now on, as [`WallCheck::wall`] gives it.
    pub wall: WallTime,
}

impl Author {
    /// Takes the next revision; `None` when all below 2^62 are used.
    #[expect(
        clippy::should_implement_trait,
        reason = "an author is no iterator; a revision is taken, not listed"
    )]
    pub fn next(&mut self) -> Option<u64> {
        if self.rev >= REV_MAX {
            return None;
        }
        self.rev += 1;
        Some(self.rev)
    }

    /// Whether somebody names a revision of this peer that it has not used: then the store lost its tail and a new
    /// peer ID is due (protocol §7 "Revisions", case c). Only a read_write peer's word counts.
    pub fn contradicted_by(&self, clock: &Clock) -> bool {
        clock.get(self.peer) > self.rev
    }
}

/// Why a wall clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It says a time before this program was released.
    BeforeRelease,
    /// It says a time after [`WALL_MAX`].
    AfterMax,
    /// It is more than [`WALL_SKEW_MAX_NANOS`] away from every peer's.
    FarFromPeers,
}

/// What tells a believable wall clock from an insane one.
#[derive(Clone, Copy, Debug)]
pub struct WallCheck<'a> {
    /// What the system's clock says.
    pub now: WallTime,
    /// When this program was released.
    pub release: WallTime,
    /// What the connected read_write peers' clocks say now.
    pub peers: &'a [WallTime],
    /// The latest time of any stored record, as [`latest_stored`] collects it.
    pub latest: WallTime,
    /// Whether the user has said that the clock is right.
    pub confirmed: bool,
}

impl WallCheck<'_> {
    /// Why the clock is not to be believed; `None` if it is.
    pub fn doubt(&self) -> Option<Doubt> {
        let near = |peer: &WallTime| self.now.0.abs_diff(peer.0) <= WALL_SKEW_MAX_NANOS;
        if self.confirmed {
            None
        } else if self.now < self.release {
            Some(Doubt::BeforeRelease)
        } else if self.now > WALL_MAX {
            Some(Doubt::AfterMax)
        } else {
            (!self.peers.is_empty() && !self.peers.iter().any(near)).then_some(Doubt::FarFromPeers)
        }
    }

    /// Whether the clock is to be believed.
    pub fn sane(&self) -> bool {
        self.doubt().is_none()
    }

    /// The time that changes take: the clock's if it is sane, else the latest stored time plus one.
    pub fn wall(&self) -> WallTime {
        if self.sane() { self.now } else { WallTime(self.latest.0.saturating_add(1)) }
    }
}

/// The latest stored time once `record` is stored too. A record with a time after 2200 does not count.
pub fn latest_stored(latest: WallTime, record: &Record) -> WallTime {
    let time = record.latest_time();
    if time > RECORD_TIME_MAX { latest } else { latest.max(time) }
}

/// Why a change was not made. No revision was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// It would leave the record as it is (protocol §7).
    Same,
    /// All revisions of this peer ID are used.
    NoRevision,
    /// The version has seen a revision of this peer ID that it has not used: as [`Author::contradicted_by`].
    Contradicted,
    /// The version has the last time there is.
    NoTime,
    /// The new version would pass a limit, or the version it descends from breaks a rule.
    Refused(Malformed),
}

/// Changes of one record that are made as one, with one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The new key.
    pub key: Option<String>,
    /// The new value; it brings a tombstone back to life, unless `delete` is set.
    pub value: Option<Value>,
    /// What the new value had seen, if not all that the version it descends from had: its `value_clock` is then this
    /// and the new revision. `None`: the whole clock (protocol §7).
    pub value_seen: Option<Clock>,
    /// The new meta.
    pub meta: Option<Meta>,
    /// The meta is said again where it is what it was: others had set another meanwhile.
    pub meta_again: bool,
    /// Whether the record is deleted; that keeps its value (protocol §7 "Deleted records").
    pub delete: bool,
    /// When it happened, if not now: what a first scan finds was done while nobody looked. Never counts as later
    /// than now.
    pub time: Option<WallTime>,
}

/// A new record. `uuid` must be new to the club.
pub fn create(
    author: &mut Author,
    uuid: Uuid,
    key: String,
    value: Value,
    meta: Meta,
    time: Option<WallTime>,
) -> Result<Record, Unmade> {
    let (rev, change) = draft(author, None, time)?;
    let clock = Clock::of(author.peer, rev);
    let record = Record {
        uuid,
        key,
        value,
        meta,
        value_clock: clock.clone(),
        clock,
        deleted_clock: Clock::new(),
        update: change,
        key_change: change,
        value_change: change,
        meta_change: change,
    };
    finish(author, record)
}

/// A new value; on a tombstone it brings the record back.
pub fn edit(
    author: &mut Author,
    from: &Record,
    value: Value,
    time: Option<WallTime>,
) -> Result<Record, Unmade> {
    revise(author, from, Revision { value: Some(value), time, ..Revision::default() })
}

/// A new key.
pub fn move_to(author: &mut Author, from: &Record, key: String) -> Result<Record, Unmade> {
    revise(author, from, Revision { key: Some(key), ..Revision::default() })
}

/// A new meta.
pub fn set_meta(author: &mut Author, from: &Record, meta: Meta) -> Result<Record, Unmade> {
    revise(author, from, Revision { meta: Some(meta), ..Revision::default() })
}

/// A tombstone: its deletion has seen all that `from` had.
pub fn delete(author: &mut Author, from: &Record) -> Result<Record, Unmade> {
    revise(author, from, Revision { delete: true, ..Revision::default() })
}

/// The empty change: a new revision and nothing else (protocol §7 "Revisions").
pub fn touch_empty(author: &mut Author, from: &Record) -> Result<Record, Unmade> {
    let (rev, change) = draft(author, Some(from), None)?;
    let mut record = Record { update: change, ..from.clone() };
    record.clock.set(author.peer, rev);
    finish(author, record)
}

/// Makes changes of `old` beyond revision `above` again, as one: their numbers may name other changes as well, which
/// this version has not seen (protocol §7 "Revisions", case c). What others' values have seen of `old` stays seen.
pub fn reclaim(author: &mut Author, from: &Record, old: PeerId, above: u64) -> Result<Record, Unmade> {
    let (rev, change) = draft(author, Some(from), None)?;
    let contested = |change: &Change| change.peer == old && change.rev > above;
    let mut record = Record { update: change, ..from.clone() };
    if contested(&from.key_change) {
        record.key_change = change;
    }
    if contested(&from.meta_change) {
        record.meta_change = change;
    }
    if contested(&from.value_change) {
        record.value_change = change;
        record.value_clock.set(old, above);
        record.value_clock.set(author.peer, rev);
    }
    if from.deleted_clock.get(old) > above {
        record.deleted_clock.set(old, above);
        // The deletion has seen the value also where that is made again; a value that came back since stays.
        if from.deleted() {
            record.deleted_clock.set(author.peer, rev);
        }
    }
    let seen = above.max(record.value_clock.get(old)).min(from.clock.get(old));
    record.clock.set(old, seen);
    record.clock.set(author.peer, rev);
    finish(author, record)
}

/// Says again to which record a conflict file lost, after an edit by somebody who had not seen it give way. As with
/// [`give_way`], `value_change` and `value_clock` stay, so that whoever says it makes the same value.
pub fn name_source(author: &mut Author, from: &Record, lost_to: Uuid) -> Result<Record, Unmade> {
    let mut marked = from.clone();
    if let Value::Entry(entry) = &mut marked.value {
        entry.conflict_source.get_or_insert(lost_to);
    }
    touch_empty(author, &marked)
}

/// Several changes as one. What is set to what it is already counts as not set.
pub fn revise(author: &mut Author, from: &Record, revision: Revision) -> Result<Record, Unmade> {
    let Revision { key, value, value_seen, meta, meta_again, delete, time } = revision;
    let key = key.filter(|key| *key != from.key);
    let value = value.filter(|value| *value != from.value || (from.deleted() && !delete));
    let meta = meta.filter(|meta| meta_again || *meta != from.meta);
    let delete = delete && (value.is_some() || !from.deleted());
    if key.is_none() && value.is_none() && meta.is_none() && !delete {
        return Err(Unmade::Same);
    }
    let (rev, change) = draft(author, Some(from), time)?;
    let mut record = Record { update: change, ..from.clone() };
    record.clock.set(author.peer, rev);
    if let Some(key) = key {
        (record.key, record.key_change) = (key, change);
    }
    if let Some(value) = value {
        (record.value, record.value_change) = (value, change);
        record.value_clock = match value_seen {
            Some(mut seen) => {
                seen.set(author.peer, rev);
                seen
            }
            None => record.clock.clone(),
        };
    }
    if let Some(meta) = meta {
        (record.meta, record.meta_change) = (meta, change);
    }
    if delete {
        // The clock covers every deletion before, and with its own revision also a value that is set by this change.
        record.deleted_clock = record.clock.clone();
    }
    finish(author, record)
}

/// Whether `now` holds a value that `peer` set without having seen `base`, of which it is a later join. A new value by
/// the same peer cannot say that it has not seen that one: its revision, which is higher, covers it, and instead of a
/// conflict the value would be lost. Such a value belongs in a record of its own.
pub fn covers_own(peer: PeerId, base: &Record, now: Option<&Record>) -> bool {
    now.is_some_and(|now| {
        let set = &now.value_change;
        set.peer == peer && !set.seen_by(&base.clock) && !now.same_value(base)
    })
}

/// A loser to a value that is deleted takes its place (protocol §7 "Conflict"): written again into `stored`, the
/// join of both, with a `value_clock` that is the join of both values'.
pub fn take_place(author: &mut Author, stored: &Record, loser: &Record) -> Result<Record, Unmade> {
    let seen = stored.value_clock.joined(&loser.value_clock);
    revise(
        author,
        stored,
        Revision { value: Some(loser.value.clone()), value_seen: Some(seen), ..Revision::default() },
    )
}

/// The record of a conflict file (protocol §8): the losing version's value, as `uuid` and under `key`, both computed
/// from the loser. Its `value_change` and `value_clock` are the loser's own, so that whoever makes it makes the same
/// value, and a delete or an edit of it covers every later making. If a record `uuid` exists, join this to it.
///
/// A meta that was set after the value, by a change which the value's clock has not seen, is set anew by the maker: to
/// take that change over would need a clock that claims to have seen what its author did to the conflict file since.
pub fn conflict_copy(
    author: &mut Author,
    loser: &Record,
    winner: Uuid,
    key: String,
    uuid: Uuid,
) -> Result<Record, Unmade> {
    let (rev, change) = draft(author, Some(loser), None)?;
    let mut clock = loser.value_clock.clone();
    clock.set(author.peer, rev);
    let mut value = loser.value.clone();
    if let Value::Entry(entry) = &mut value {
        entry.conflict_source = Some(winner);
    }
    let meta_change = loser.meta_change;
    let record = Record {
        uuid,
        key,
        value,
        meta: loser.meta.clone(),
        clock,
        deleted_clock: Clock::new(),
        value_clock: loser.value_clock.clone(),
        update: change,
        key_change: change,
        value_change: loser.value_change,
        meta_change: if meta_change.seen_by(&loser.value_clock) { meta_change } else { change },
    };
    finish(author, record)
}

/// A record that is hidden under its key leaves it (protocol §7 "Two live records", §8): it gets another key and says
/// to which record it lost, if it is no conflict file already. Its `value_change` and `value_clock` stay, so that
/// whoever does it makes the same value, and a delete or an edit that had not seen it still counts.
pub fn give_way(author: &mut Author, from: &Record, key: String, lost_to: Uuid) -> Result<Record, Unmade> {
    let mut marked = from.clone();
    if let Value::Entry(entry) = &mut marked.value {
        entry.conflict_source.get_or_insert(lost_to);
    }
    move_to(author, &marked, key)
}

/// The next revision and its change, without taking it: later than every time in the version that it changes, and
/// otherwise `time` or now, whichever is earlier.
fn draft(author: &Author, from: Option<&Record>, time: Option<WallTime>) -> Result<(u64, Change), Unmade> {
    let mut ahead = *author;
    let rev = ahead.next().ok_or(Unmade::NoRevision)?;
    let mut time = time.map_or(author.wall, |t| t.min(author.wall));
    if let Some(from) = from {
        if author.contradicted_by(&from.clock) {
            return Err(Unmade::Contradicted);
        }
        let after = from.latest_time().0.checked_add(1).ok_or(Unmade::NoTime)?;
        time = time.max(WallTime(after));
    }
    Ok((rev, Change { time, peer: author.peer, rev }))
}

/// Checks the new version and only then takes its revision.
fn finish(author: &mut Author, record: Record) -> Result<Record, Unmade> {
    check(&record).map_err(Unmade::Refused)?;
    author.rev = record.update.rev;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::check::{KEY_BYTES_MAX, UNIX_MODE_MAX};
    use crate::index::clock::PEERS_MAX;
    use crate::index::merge::{conflicts, forgotten_source, join, merge};
    use crate::index::testing::{WALL, author, file, file_value, good_record, nth_peer, peer};
    use proptest::prelude::*;

    const DAY: i64 = WALL_SKEW_MAX_NANOS as i64;

    #[test]
    fn each_change_takes_one_revision_and_touches_its_part_alone() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        assert_eq!((a.update.rev, &a.clock, &a.value_clock), (1, &Clock::of(peer(1), 1), &a.clock));
        let b = move_to(&mut me, &a, "/b".into()).unwrap();
        assert_eq!((b.key_change, b.value_change, b.meta_change), (b.update, a.update, a.update));
        assert_eq!(b.value_clock, a.value_clock);
        let c = edit(&mut me, &b, file_value(2), None).unwrap();
        assert_eq!((c.key_change, c.value_change, &c.value_clock), (b.update, c.update, &c.clock));
        let d = touch_empty(&mut me, &c).unwrap();
        assert_eq!((d.value_change, &d.value_clock, d.update.rev), (c.update, &c.clock, 4));
        let gone = delete(&mut me, &d).unwrap();
        assert_eq!((&gone.value, gone.value_change, &gone.deleted_clock), (&c.value, c.update, &gone.clock));
        let back = edit(&mut me, &gone, c.value.clone(), None).unwrap();
        assert!(!back.deleted());
        assert_eq!(me.rev, 6);
        let times = [&a, &b, &c, &d, &gone, &back].map(|r| r.update.time.0 - WALL.0);
        assert_eq!(times, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_changes_nothing_is_not_made() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        assert_eq!(move_to(&mut me, &a, "/a".into()), Err(Unmade::Same));
        assert_eq!(edit(&mut me, &a, a.value.clone(), None), Err(Unmade::Same));
        assert_eq!(set_meta(&mut me, &a, a.meta.clone()), Err(Unmade::Same));
        assert_eq!(revise(&mut me, &a, Revision::default()), Err(Unmade::Same));
        let gone = delete(&mut me, &a).unwrap();
        assert_eq!(delete(&mut me, &gone), Err(Unmade::Same));
        assert_eq!(me.rev, 2);
    }

    #[test]
    fn a_peer_cannot_conflict_with_itself() {
        let (mut me, mut other) = (author(1), author(2));
        let base = file(&mut other, "/a", 1);
        let mine = edit(&mut me, &base, file_value(2), None).unwrap();
        let again = edit(&mut me, &base, file_value(3), None).unwrap();
        assert!(!conflicts(&again, &mine), "which is why it is asked for");
        assert!(covers_own(me.peer, &base, Some(&mine)));
        // Another's value conflicts, one that was seen is replaced, and an equal one is none.
        assert!(!covers_own(other.peer, &base, Some(&mine)));
        assert!(!covers_own(me.peer, &mine, Some(&mine)));
        assert!(!covers_own(me.peer, &base, Some(&move_to(&mut me, &base, "/b".into()).unwrap())));
        assert!(!covers_own(me.peer, &base, None));
    }

    #[test]
    fn one_revision_may_carry_all() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        let meta = Meta { unix_mode: Some(0o600), ..Meta::default() };
        let all = Revision {
            key: Some("/b".into()),
            value: Some(file_value(2)),
            meta: Some(meta),
            delete: true,
            ..Revision::default()
        };
        let b = revise(&mut me, &a, all).unwrap();
        assert_eq!((b.key_change, b.value_change, b.meta_change), (b.update, b.update, b.update));
        assert!(b.deleted() && me.rev == 2);
    }

    #[test]
    fn time_never_runs_against_causality_nor_into_the_future() {
        let mut me = author(1);
        let at = |me: &mut Author, time| {
            create(me, Uuid([1; 16]), "/t".into(), Value::Null, Meta::default(), time).unwrap().update.time
        };
        assert_eq!(at(&mut me, Some(WallTime(5))), WallTime(5));
        assert_eq!(at(&mut me, Some(WallTime(WALL.0 + 1))), WALL);
        let mut far = file(&mut me, "/a", 1);
        far.meta_change.time = WallTime(i64::MAX - 1);
        far.update.time = WallTime(i64::MAX - 1);
        let last = move_to(&mut me, &far, "/b".into()).unwrap();
        assert_eq!(last.update.time, WallTime(i64::MAX));
        let used = me.rev;
        assert_eq!(delete(&mut me, &last), Err(Unmade::NoTime));
        assert_eq!(me.rev, used);
        assert_eq!(latest_stored(WALL, &far), WALL);
        far.update.time = RECORD_TIME_MAX;
        far.meta_change.time = RECORD_TIME_MAX;
        assert_eq!(latest_stored(WALL, &far), RECORD_TIME_MAX);
    }

    #[test]
    fn an_insane_clock_is_not_believed() {
        let good =
            WallCheck { now: WALL, release: WallTime(5), peers: &[], latest: WallTime(9), confirmed: false };
        assert_eq!(good.wall(), WALL);
        assert_eq!(WallCheck { now: WallTime(5), ..good }.wall(), WallTime(5));
        assert_eq!(WallCheck { now: WallTime(4), ..good }.wall(), WallTime(10));
        assert_eq!(WallCheck { now: WALL_MAX, ..good }.wall(), WALL_MAX);
        assert_eq!(WallCheck { now: WallTime(WALL_MAX.0 + 1), ..good }.wall(), WallTime(10));
        let apart = [WallTime(WALL.0 + DAY), WallTime(WALL.0 + DAY + 1)];
        assert!(WallCheck { peers: &apart, ..good }.sane());
        assert!(!WallCheck { peers: &apart[1..], ..good }.sane());
        assert!(WallCheck { peers: &apart[1..], confirmed: true, ..good }.sane());
    }

    #[test]
    fn limits_hold_for_authors_too() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        let too_long = move_to(&mut me, &a, "x".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(too_long, Err(Unmade::Refused(Malformed("record: key too long"))));
        let meta = Meta { unix_mode: Some(UNIX_MODE_MAX + 1), ..Meta::default() };
        assert!(matches!(set_meta(&mut me, &a, meta), Err(Unmade::Refused(_))));
        let mut full = a.clone();
        full.clock = Clock::from_stored((0..PEERS_MAX).map(|i| (nth_peer(i), 1)).collect()).unwrap();
        assert!(matches!(move_to(&mut me, &full, "/b".into()), Err(Unmade::Refused(_))));
        assert_eq!(me.rev, 1);
        me.rev = REV_MAX - 1;
        let last = move_to(&mut me, &a, "/b".into()).unwrap();
        assert_eq!(last.update.rev, REV_MAX);
        assert_eq!(move_to(&mut me, &last, "/c".into()), Err(Unmade::NoRevision));
        assert!(!me.contradicted_by(&Clock::of(peer(1), REV_MAX)));
        assert!(author(1).contradicted_by(&Clock::of(peer(1), 1)));
        assert_eq!(delete(&mut author(1), &a), Err(Unmade::Contradicted));
    }

    #[test]
    fn conflict_copies_made_apart_join_without_fault() {
        let (mut a, mut b) = (author(1), author(2));
        let v = file(&mut a, "/a", 1);
        let loser = edit(&mut a, &v, file_value(2), None).unwrap();
        let uuid = Uuid([9; 16]);
        let x = conflict_copy(&mut a, &loser, v.uuid, "/a.CONFLICT".into(), uuid).unwrap();
        let y = conflict_copy(&mut b, &loser, v.uuid, "/a.CONFLICT".into(), uuid).unwrap();
        assert_eq!((x.value_change, &x.value_clock), (loser.value_change, &loser.value_clock));
        assert_eq!((&x.value, x.conflict_source()), (&y.value, Some(v.uuid)));
        assert!(!conflicts(&x, &y) && merge(&x, &y).fault.is_none());
        // A delete and an edit of it cover every later making.
        let gone = delete(&mut a, &x).unwrap();
        assert!(join(&gone, &y).deleted());
        let edited = edit(&mut a, &x, file_value(5), None).unwrap();
        assert!(!conflicts(&edited, &y));
        assert_eq!(join(&edited, &y).size(), 5);
    }

    #[test]
    fn records_that_give_way_apart_join_without_fault() {
        let (mut a, mut b) = (author(1), author(2));
        let v = file(&mut a, "/n", 1);
        let (first, second) = (Uuid([8; 16]), Uuid([9; 16]));
        let x = give_way(&mut a, &v, "/n.CONFLICT".into(), first).unwrap();
        let y = give_way(&mut b, &v, "/n.CONFLICT".into(), first).unwrap();
        assert_eq!((x.value_change, &x.value_clock, &x.value), (v.value_change, &v.value_clock, &y.value));
        for (known, news) in [(&x, &y), (&x, &v), (&v, &x), (&y, &x)] {
            let merged = merge(known, news);
            assert!(merged.fault.is_none() && !conflicts(known, news));
            assert_eq!(
                (merged.record.key.as_str(), merged.record.conflict_source()),
                ("/n.CONFLICT", Some(first))
            );
        }
        // Who saw another winner: one of both, the same everywhere.
        let z = give_way(&mut b, &v, "/n.CONFLICT".into(), second).unwrap();
        assert_eq!(join(&x, &z).value, join(&z, &x).value);
        assert!(merge(&x, &z).fault.is_none());
        // A delete and an edit that had not seen it count all the same.
        assert!(join(&x, &delete(&mut b, &v).unwrap()).deleted());
        let edited = edit(&mut b, &v, file_value(5), None).unwrap();
        assert!(!conflicts(&x, &edited));
        assert_eq!(join(&x, &edited).size(), 5);
        // It stays listed: whoever joins them says so again, and all say the same.
        let joined = join(&x, &edited);
        assert_eq!((joined.conflict_source(), forgotten_source(&x, &edited, &joined)), (None, Some(first)));
        let (p, q) =
            (name_source(&mut a, &joined, first).unwrap(), name_source(&mut b, &joined, first).unwrap());
        assert_eq!((p.conflict_source(), p.size(), &p.value), (Some(first), 5, &q.value));
        assert!(merge(&p, &q).fault.is_none() && merge(&p, &edited).fault.is_none());
        assert_eq!(join(&join(&edited, &p), &q).conflict_source(), Some(first));
        // Who had seen it, and made it a file like any other, is heeded.
        let mut ordinary = x.value.clone();
        if let Value::Entry(entry) = &mut ordinary {
            entry.conflict_source = None;
        }
        let decided = edit(&mut a, &x, ordinary, None).unwrap();
        assert_eq!(forgotten_source(&x, &decided, &join(&x, &decided)), None);
        // What is a conflict file already stays that of its own source.
        let again = give_way(&mut a, &x, "/m".into(), second).unwrap();
        assert_eq!(again.conflict_source(), Some(first));
    }

    #[test]
    fn a_conflict_copy_claims_nothing_that_it_has_not_seen() {
        let (mut a, mut b) = (author(1), author(2));
        let v = file(&mut a, "/a", 1);
        let meta = Meta { unix_mode: Some(0o600), ..Meta::default() };
        let chmod = set_meta(&mut b, &v, meta.clone()).unwrap();
        let copy = conflict_copy(&mut a, &chmod, v.uuid, "/c".into(), Uuid([9; 16])).unwrap();
        assert_eq!((&copy.meta, copy.meta_change), (&meta, copy.update));
        assert_eq!(copy.clock.get(peer(2)), 0);
    }

    #[test]
    fn a_loser_takes_the_place_of_a_deleted_winner() {
        let (mut a, mut b, mut c) = (author(1), author(2), author(3));
        let v = file(&mut a, "/a", 1);
        b.wall.0 += 5;
        let winner = edit(&mut b, &v, file_value(3), None).unwrap();
        let winner = delete(&mut b, &winner).unwrap();
        let (loser, third) =
            (edit(&mut a, &v, file_value(2), None).unwrap(), edit(&mut c, &v, file_value(4), None).unwrap());
        let stored = join(&join(&winner, &loser), &third);
        assert!(stored.deleted() && conflicts(&stored, &loser));
        let back = take_place(&mut a, &stored, &loser).unwrap();
        assert!(!back.deleted() && back.size() == 2);
        assert!(!conflicts(&back, &winner) && !conflicts(&back, &loser));
        // The third value was no part of it and still stands apart.
        assert!(conflicts(&back, &third));
    }

    #[test]
    fn value_seen_says_which_values_an_edit_replaces() {
        let (mut a, mut b) = (author(1), author(2));
        let v = file(&mut a, "/a", 1);
        let lost = edit(&mut a, &v, file_value(2), None).unwrap();
        let won = edit(&mut b, &v, file_value(3), None).unwrap();
        let stored = join(&lost, &won);
        assert_eq!(stored.value, won.value);
        // By its default an edit of the join counts as having replaced the loser too.
        let edited = edit(&mut b, &stored, file_value(4), None).unwrap();
        assert!(!conflicts(&edited, &lost));
        let value_seen = Some(stored.value_clock.clone());
        let narrow = Revision { value: Some(file_value(5)), value_seen, ..Revision::default() };
        let narrow = revise(&mut b, &stored, narrow).unwrap();
        assert!(conflicts(&narrow, &lost) && !conflicts(&narrow, &won));
        assert_eq!(join(&stored, &narrow), narrow);
    }

    /// What one ID wrote, lost with its store, and wrote otherwise under the same number; the second is made again.
    fn written_twice(
        change: impl Fn(&mut Author, &Record, u64) -> Result<Record, Unmade>,
    ) -> (Record, Record, Record) {
        let mut me = author(1);
        let base = file(&mut me, "/a", 1);
        let (mut lost, mut restored) = (me, me);
        let first = edit(&mut lost, &base, file_value(2), None).unwrap();
        let second = change(&mut restored, &base, 3).unwrap();
        assert_eq!(first.update.rev, second.update.rev);
        let again = reclaim(&mut author(3), &second, peer(1), me.rev).unwrap();
        (first, second, again)
    }

    #[test]
    fn what_was_written_under_a_used_number_is_made_again_and_hides_nothing() {
        let (lost, second, again) = written_twice(|me, base, n| edit(me, base, file_value(n), None));
        assert!(!conflicts(&second, &lost), "one number, so nobody could tell");
        assert!(conflicts(&again, &lost) && again.value == second.value);
        for (stored, incoming) in [(&again, &lost), (&lost, &again)] {
            let merged = merge(stored, incoming);
            assert_eq!((merged.fault, merged.record.value_change), (None, again.value_change));
        }
        let (lost, second, again) = written_twice(|me, base, _| delete(me, base));
        assert!(join(&second, &lost).deleted(), "the deletion seems to have seen the edit");
        assert!(again.deleted() && !join(&again, &lost).deleted());
        let (lost, _, again) = written_twice(|me, base, _| move_to(me, base, "/b".into()));
        let joined = join(&again, &lost);
        assert_eq!((joined.key.as_str(), &joined.value), ("/b", &lost.value));
    }

    #[test]
    fn a_value_that_came_back_under_a_used_number_stays() {
        let mut me = author(1);
        let base = file(&mut me, "/a", 1);
        let gone = delete(&mut me, &base).unwrap();
        let back = edit(&mut me, &gone, file_value(4), None).unwrap();
        assert!(!reclaim(&mut author(3), &back, peer(1), 1).unwrap().deleted());
        assert!(reclaim(&mut author(3), &gone, peer(1), 0).unwrap().deleted());
    }

    #[test]
    fn what_others_have_seen_of_a_used_number_stays_seen() {
        let (mut me, mut other) = (author(1), author(2));
        let base = file(&mut me, "/a", 1);
        let mine = edit(&mut me, &base, file_value(2), None).unwrap();
        let theirs = edit(&mut other, &mine, file_value(3), None).unwrap();
        let again = reclaim(&mut author(3), &theirs, peer(1), 1).unwrap();
        assert_eq!((again.value_change, &again.value_clock), (theirs.value_change, &theirs.value_clock));
        assert_eq!(again.clock.get(peer(1)), 2);
        assert_eq!(
            reclaim(&mut Author { rev: REV_MAX, ..author(3) }, &mine, peer(1), 1),
            Err(Unmade::NoRevision)
        );
    }

    proptest! {
        #[test]
        fn a_record_made_again_looks_as_before(record in good_record(), old in 0u8..3, above in 0u64..4) {
            let mut me = Author { peer: peer(9), rev: 0, wall: WALL };
            let again = reclaim(&mut me, &record, peer(old), above).unwrap();
            prop_assert_eq!((&again.key, &again.value, &again.meta), (&record.key, &record.value, &record.meta));
            prop_assert_eq!(again.deleted(), record.deleted());
            prop_assert_eq!(again.clock.get(peer(9)), 1);
            for change in [again.key_change, again.value_change, again.meta_change] {
                prop_assert!(change.peer != peer(old) || change.rev <= above);
            }
        }
    }
}
