//! What change of a record a changed disk means (sync.md, Scanning). Pure; it authors nothing.

use crate::files::plan::{
    Reason, Target, View, Want, base_content, entry, has_mode, has_mtime, live_meta, wanted_mtime,
    was_deleted,
};
use crate::ids::Uuid;
use crate::index::record::{EntryContent, EntryValue, Meta, Record};
use crate::io::disk::{MODE_BITS, Stamp};
use crate::time::WallTime;

/// What a directory's owner needs to list it: read and search.
const OWNER_LISTS: u32 = 0o500;

/// A path as it was just found.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its stamp, the same before and after reading.
    pub stamp: &'a Stamp,
    /// What was read.
    pub content: &'a EntryContent,
}

/// In what situation a path was found; it decides about times, and about what has no base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In a run, by a hint or a later scan: it happened just now.
    Running,
    /// By the first scan of a run: it happened when the disk says.
    Offline,
    /// By the first scan after the end of the store may have been lost: what has no base may be new, or have come from
    /// others and be deleted by now.
    AfterLoss,
    /// The store was lost, the folder attached with contents, or the path selected again: what has no base may be
    /// old, new, or deleted long ago.
    WithoutBase,
}

/// What change a changed disk means. The row takes what was seen in the same commit that stores the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalChange {
    /// None; the row takes what was seen, and the plan says how it goes on.
    None,
    /// None: what was seen is this record's version in the index, which becomes base. Mode and time may be left to be
    /// set.
    Adopt {
        /// The record.
        uuid: Uuid,
    },
    /// It cannot be judged yet. The row stays as it is, and the path is looked at again.
    Wait(Reason),
    /// A new record, or a tombstone of this path that lives again (then it descends from the tombstone).
    Create {
        /// The tombstone.
        revive: Option<Uuid>,
        /// The whole value.
        value: EntryValue,
        /// The whole meta.
        meta: Meta,
        /// When.
        time: WallTime,
    },
    /// A new value of a record.
    Edit {
        /// The record.
        uuid: Uuid,
        /// Whether the new version descends from the base; else from nothing: its clock is its own dot alone.
        from_base: bool,
        /// The whole value.
        value: EntryValue,
        /// The whole meta, if it changes too.
        meta: Option<Meta>,
        /// When.
        time: WallTime,
    },
    /// Another mode or time of the same content; descends from the base.
    Meta {
        /// The record.
        uuid: Uuid,
        /// The whole meta.
        meta: Meta,
        /// When.
        time: WallTime,
    },
    /// The record is deleted; descends from the base, so that it deletes no more than the base had seen. If something
    /// is there, it is what another record wants, and has no base yet.
    Delete {
        /// The record.
        uuid: Uuid,
        /// When.
        time: WallTime,
    },
}

/// What it means that the disk holds `observed` where `view.row` says something else. `None`: nothing is there.
pub fn local_change(
    view: &View<'_>,
    observed: Option<Observed<'_>>,
    found: Found,
    now: WallTime,
) -> LocalChange {
    if view.policy.want == Want::Nothing {
        return LocalChange::None;
    }
    let base = view.base.filter(|base| !base.deleted());
    match (observed, base) {
        (None, None) => LocalChange::None,
        (None, Some(base)) => gone(view, base, now),
        (Some(seen), Some(base)) if base_content(view) == Some(seen.content) => {
            touched(view, &seen, base, found, now)
        }
        (Some(seen), Some(base)) if is_shown(view, seen.content) => {
            match view.shown.filter(|shown| shown.uuid == base.uuid) {
                // At once: when the index has moved on this would pass for an edit of what was here before.
                Some(shown) => LocalChange::Adopt { uuid: shown.uuid },
                // What another record wants here took the place of the base's content.
                None => gone(view, base, now),
            }
        }
        (Some(seen), None) if is_shown(view, seen.content) => LocalChange::None,
        (Some(seen), _)
            if *seen.content == EntryContent::Dir && stays_dir(view) && !implied_chmod(view, &seen) =>
        {
            LocalChange::None
        }
        (Some(seen), Some(base)) => edit_of_base(view, &seen, base, found, now),
        (Some(seen), None) => without_base(view, &seen, found, now),
    }
}

/// What it means instead of [`LocalChange::Adopt`] where the very file lay at another path before: somebody put it
/// here, and that is told. Else whoever moved or deleted the index's version elsewhere would have seen this one. `None`
/// without a base.
pub fn put_here(view: &View<'_>, seen: &Observed<'_>, found: Found, now: WallTime) -> Option<LocalChange> {
    let base = view.base.filter(|base| !base.deleted())?;
    Some(edit_of_base(view, seen, base, found, now))
}

/// The base's content is not there any more.
fn gone(view: &View<'_>, base: &Record, now: WallTime) -> LocalChange {
    match view.base_now {
        // What is gone and stands where its record moved to is our own half of that very move, cut off by a crash.
        Some(current)
            if !current.deleted() && (view.path.is_key(&current.key) || view.target != Target::Holds) =>
        {
            LocalChange::Delete { uuid: base.uuid, time: later(now, base) }
        }
        _ => LocalChange::None,
    }
}

/// The content is the base's; mode or time may differ. They are compared with the last stamp as well, because a file
/// system may not hold what the record says.
fn touched(view: &View<'_>, seen: &Observed<'_>, base: &Record, found: Found, now: WallTime) -> LocalChange {
    let meta = meta_now(view, seen, base, wanted_mtime(base));
    if meta == live_meta(base) {
        return LocalChange::None;
    }
    let wall = match found {
        Found::Offline | Found::AfterLoss => WallTime(seen.stamp.ctime_ns).min(now),
        Found::Running | Found::WithoutBase => now,
    };
    // Of a directory the times are not known.
    let wall = if has_mtime(seen.content) { wall } else { now };
    LocalChange::Meta { uuid: base.uuid, meta, time: later(wall, base) }
}

/// There is no base, and the content is not the shown one's.
fn without_base(view: &View<'_>, seen: &Observed<'_>, found: Found, now: WallTime) -> LocalChange {
    // A base that is deleted says that nothing was here: then this is new, whatever the situation.
    if matches!(found, Found::AfterLoss | Found::WithoutBase) && view.row.base_uuid().is_none() {
        if !view.policy.caught_up {
            return LocalChange::Wait(Reason::NotCaughtUp);
        }
        if was_deleted(view, seen.content) {
            return LocalChange::None;
        }
    }
    let time = when(seen, found, now);
    if let Some(shown) = view.shown.filter(|shown| entry(shown).is_some()) {
        if view.implied_dir && entry(shown).is_some_and(|value| value.content == *seen.content) {
            return LocalChange::Adopt { uuid: shown.uuid };
        }
        if found == Found::WithoutBase {
            return edit(view, seen, shown, false, time);
        }
        // What others brought here meanwhile may be a file that this very peer holds elsewhere, and edits there: two
        // values of one record by one peer cannot conflict, because its later revision covers the earlier one.
        let (value, meta) = (value_now(seen, None), meta_now_without(seen));
        return LocalChange::Create { revive: None, value, meta, time };
    }
    let tombstone = view.base.or(view.dead.last().copied());
    LocalChange::Create {
        revive: tombstone.map(|record| record.uuid),
        value: value_now(seen, None),
        meta: meta_now_without(seen),
        time: tombstone.map_or(time, |record| later(time, record)),
    }
}

fn edit_of_base(
    view: &View<'_>,
    seen: &Observed<'_>,
    base: &Record,
    found: Found,
    now: WallTime,
) -> LocalChange {
    edit(view, seen, base, true, later(when(seen, found, now), base))
}

fn edit(view: &View<'_>, seen: &Observed<'_>, old: &Record, from_base: bool, time: WallTime) -> LocalChange {
    let value = value_now(seen, entry(old));
    // The value says the new time, so a touch of the old content is over.
    let mut meta = if from_base { meta_now(view, seen, old, value.mtime) } else { meta_now_without(seen) };
    // What has no bits, as a link, has none to set either: those of the file that it is beside stay.
    meta.unix_mode = meta.unix_mode.or(old.meta.unix_mode);
    if *seen.content != EntryContent::Dir {
        meta.mtime = None;
    }
    meta.extra.clone_from(&old.meta.extra);
    let meta = (!from_base || meta != old.meta).then_some(meta);
    LocalChange::Edit { uuid: old.uuid, from_base, value, meta, time }
}

/// The value of what was seen. Members that we do not know are kept, and a conflict file stays one.
fn value_now(seen: &Observed<'_>, old: Option<&EntryValue>) -> EntryValue {
    let mtime = (*seen.content != EntryContent::Dir).then_some(WallTime(seen.stamp.mtime_ns));
    EntryValue {
        content: seen.content.clone(),
        mtime,
        conflict_source: old.and_then(|old| old.conflict_source),
        extra: old.and_then(|old| old.extra.clone()),
    }
}

/// The meta of what was seen, with what really changed since the last stamp. `mtime` is the time that counts as
/// recorded.
fn meta_now(view: &View<'_>, seen: &Observed<'_>, base: &Record, mtime: Option<WallTime>) -> Meta {
    let last = view.row.disk.as_ref().map(|disk| &disk.stamp).filter(|last| last.kind == seen.stamp.kind);
    let mut meta = live_meta(base);
    let mode = mode_of(seen);
    if mode.is_some() && last.is_none_or(|last| Some(last.mode & MODE_BITS) != mode) {
        meta.unix_mode = mode;
    }
    let time = WallTime(seen.stamp.mtime_ns);
    let moved = last.is_none_or(|last| last.mtime_ns != seen.stamp.mtime_ns);
    if has_mtime(seen.content) && moved && mtime != Some(time) {
        meta.mtime = Some(time);
    }
    meta
}

fn meta_now_without(seen: &Observed<'_>) -> Meta {
    Meta { unix_mode: mode_of(seen), mtime: None, extra: None }
}

/// The permission bits to record. A directory that its owner may not list is unobserved, and so are its bits: elsewhere
/// they would shut the directory as well.
pub(crate) fn mode_of(seen: &Observed<'_>) -> Option<u32> {
    let mode = seen.stamp.mode & MODE_BITS;
    let shut = *seen.content == EntryContent::Dir && mode & OWNER_LISTS != OWNER_LISTS;
    (has_mode(seen.content) && !shut).then_some(mode)
}

/// Whether the path should hold exactly this by the index.
fn is_shown(view: &View<'_>, content: &EntryContent) -> bool {
    let is_dir = *content == EntryContent::Dir;
    view.shown.and_then(entry).is_some_and(|value| value.content == *content) && (is_dir || !view.implied_dir)
}

/// Whether a directory without a live base is one that sync made or left, or that lives for what lies beneath.
fn stays_dir(view: &View<'_>) -> bool {
    let was_dir = view.row.content() == Some(&EntryContent::Dir);
    view.implied_dir && view.base.is_none_or(Record::deleted)
        || was_dir && view.row.implied
        || view.row.is_left_dir()
}

/// Whether a user gave other bits to a directory that lives only for what lies beneath: then it is to have a record,
/// so that they are the same everywhere.
fn implied_chmod(view: &View<'_>, seen: &Observed<'_>) -> bool {
    let last = view.row.disk.as_ref().map(|disk| &disk.stamp).filter(|last| last.kind == seen.stamp.kind);
    let differs = last.is_some_and(|last| mode_of(seen).is_some_and(|mode| mode != last.mode & MODE_BITS));
    differs && view.row.implied && view.implied_dir
}

/// When the content was made: now, or as the disk says, but never later than now.
fn when(seen: &Observed<'_>, found: Found, now: WallTime) -> WallTime {
    match found {
        Found::Running => now,
        // A directory's time says nothing.
        _ if *seen.content == EntryContent::Dir => now,
        Found::Offline | Found::AfterLoss | Found::WithoutBase => WallTime(seen.stamp.mtime_ns).min(now),
    }
}

/// Later than every time in the version that is changed (protocol §7, Time).
fn later(time: WallTime, base: &Record) -> WallTime {
    let changes = [&base.update, &base.key_change, &base.value_change, &base.meta_change];
    let latest = changes.iter().map(|change| change.time.0).max().unwrap_or(i64::MIN);
    WallTime(time.0.max(latest.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::*;
    use crate::files::path::RelPath;
    use crate::files::plan::Policy;
    use crate::files::row::{Base, PathRow};
    use crate::index::record::Value;
    use alloc::boxed::Box;

    const NOW: WallTime = WallTime(1000);

    struct Case {
        path: RelPath,
        row: PathRow,
        shown: Option<Record>,
        base: Option<Record>,
        base_now: Option<Record>,
        dead: Option<Record>,
        implied_dir: bool,
        caught_up: bool,
        target: Target,
    }

    impl Case {
        fn empty() -> Case {
            Case {
                path: path("a"),
                row: PathRow::default(),
                shown: None,
                base: None,
                base_now: None,
                dead: None,
                implied_dir: false,
                caught_up: true,
                target: Target::Free,
            }
        }

        /// In step with this record.
        fn in_step(record: &Record) -> Case {
            let mut case = Case::empty();
            case.row.disk = entry(record).map(|value| disk(value.content.clone()));
            case.row.base = Base::Index(record.uuid);
            case.shown = Some(record.clone());
            case.base = Some(record.clone());
            case.base_now = Some(record.clone());
            case
        }

        /// The index went on to this version of the base's record.
        fn moved_on(mut self, now: &Record) -> Case {
            self.row.base = Base::Older(Box::new(self.base.clone().expect("in step")));
            self.base_now = Some(now.clone());
            self.shown = (!now.deleted() && self.path.is_key(&now.key)).then(|| now.clone());
            self
        }

        fn with<T>(&self, then: impl FnOnce(&View<'_>) -> T) -> T {
            let dead: Option<&Record> = self.dead.as_ref();
            then(&View {
                path: &self.path,
                row: &self.row,
                shown: self.shown.as_ref(),
                implied_dir: self.implied_dir,
                base: self.base.as_ref(),
                base_now: self.base_now.as_ref(),
                dead: dead.as_slice(),
                target: self.target,
                conflict_made: false,
                policy: Policy { caught_up: self.caught_up, ..Policy::FULL },
            })
        }

        fn sees(&self, seen: Option<(&EntryContent, Stamp)>, found: Found) -> LocalChange {
            let seen = seen.as_ref().map(|(content, stamp)| Observed { stamp, content });
            self.with(|view| local_change(view, seen, found, NOW))
        }

        fn finds(&self, content: &EntryContent, found: Found) -> LocalChange {
            self.sees(Some((content, stamp(content, 7))), found)
        }
    }

    #[test]
    fn a_new_path_is_created() {
        let case = Case::empty();
        let LocalChange::Create { revive: None, value, meta, time: NOW } =
            case.finds(&file(1), Found::Running)
        else {
            panic!()
        };
        assert_eq!((value.content, value.mtime), (file(1), Some(WallTime(1))));
        assert_eq!(meta.unix_mode, Some(0o644));
        for found in [Found::Offline, Found::WithoutBase] {
            assert!(matches!(
                case.finds(&file(1), found),
                LocalChange::Create { revive: None, time: WallTime(1), .. }
            ));
        }
        let mut future = stamp(&file(1), 7);
        future.mtime_ns = 5000;
        let change = case.sees(Some((&file(1), future)), Found::Offline);
        assert!(matches!(change, LocalChange::Create { time: NOW, .. }));
        // A directory's time says nothing.
        let change = case.finds(&EntryContent::Dir, Found::Offline);
        assert!(matches!(change, LocalChange::Create { time: NOW, .. }));
    }

    #[test]
    fn a_tombstone_lives_again_in_a_run_and_not_without_base() {
        let mut case = Case::empty();
        let dead = deleted(&file_record(3, "/a", 1, 1), 1, 2000);
        case.dead = Some(dead.clone());
        assert!(matches!(
            case.finds(&file(1), Found::Running),
            LocalChange::Create { revive: Some(uuid), time: WallTime(2001), .. } if uuid == dead.uuid
        ));
        for found in [Found::AfterLoss, Found::WithoutBase] {
            assert_eq!(case.finds(&file(1), found), LocalChange::None);
            assert!(matches!(case.finds(&file(2), found), LocalChange::Create { revive: Some(_), .. }));
        }
    }

    #[test]
    fn without_base_waits_until_caught_up_and_then_descends_from_nothing() {
        let mut case = Case::empty();
        case.caught_up = false;
        assert_eq!(case.finds(&file(1), Found::WithoutBase), LocalChange::Wait(Reason::NotCaughtUp));
        case.shown = Some(file_record(3, "/a", 2, 5));
        assert_eq!(case.finds(&file(2), Found::WithoutBase), LocalChange::None);
        case.caught_up = true;
        assert!(matches!(
            case.finds(&file(1), Found::WithoutBase),
            LocalChange::Edit { from_base: false, time: WallTime(1), meta: Some(_), .. }
        ));
    }

    #[test]
    fn what_has_no_bits_takes_none_from_the_file_that_it_is_beside() {
        let mut case = Case::empty();
        let mut shown = file_record(3, "/a", 2, 5);
        shown.meta.unix_mode = Some(0o700);
        case.shown = Some(shown);
        for (content, mode) in [(EntryContent::Link("t".into()), 0o700), (file(1), 0o644)] {
            let LocalChange::Edit { from_base: false, meta: Some(meta), .. } =
                case.finds(&content, Found::WithoutBase)
            else {
                panic!()
            };
            assert_eq!(meta.unix_mode, Some(mode));
        }
    }

    #[test]
    fn what_is_made_where_others_have_a_file_is_a_record_of_its_own() {
        let mut case = Case::empty();
        case.shown = Some(file_record(3, "/a", 2, 5));
        for (found, at) in [(Found::Running, NOW), (Found::Offline, WallTime(1))] {
            assert!(matches!(
                case.finds(&file(1), found),
                LocalChange::Create { revive: None, time, .. } if time == at
            ));
        }
        assert_eq!(case.finds(&file(2), Found::Running), LocalChange::None);
    }

    #[test]
    fn an_edit_descends_from_base() {
        let old = file_record(1, "/a", 1, 500);
        let newer = edited(&old, file(3), 2, 600);
        for case in [
            Case::in_step(&old),
            Case::in_step(&old).moved_on(&newer),
            Case::in_step(&old).moved_on(&deleted(&old, 2, 600)),
            Case::in_step(&old).moved_on(&moved(&old, "/b", 2, 600)),
        ] {
            let LocalChange::Edit { uuid, from_base: true, value, meta: None, time } =
                case.finds(&file(2), Found::Offline)
            else {
                panic!()
            };
            assert_eq!((uuid, value.content, time), (old.uuid, file(2), WallTime(501)));
        }
        // The same bytes as the index: no change at all, and its version from now on.
        let case = Case::in_step(&old).moved_on(&newer);
        assert_eq!(case.finds(&file(3), Found::Running), LocalChange::Adopt { uuid: old.uuid });
        // Another kind is an edit too.
        let case = Case::in_step(&old);
        for content in [EntryContent::Dir, EntryContent::Link("t".into())] {
            assert!(matches!(case.finds(&content, Found::Running), LocalChange::Edit { time: NOW, .. }));
        }
    }

    #[test]
    fn what_was_put_over_an_older_version_is_told() {
        let old = file_record(1, "/a", 1, 1);
        let case = Case::in_step(&old).moved_on(&edited(&old, file(3), 2, 2));
        assert_eq!(case.finds(&file(3), Found::Running), LocalChange::Adopt { uuid: old.uuid });
        let seen = Observed { stamp: &stamp(&file(3), 7), content: &file(3) };
        let change = case.with(|view| put_here(view, &seen, Found::Running, NOW));
        let Some(LocalChange::Edit { uuid, from_base: true, value, .. }) = change else {
            panic!("{change:?}")
        };
        assert_eq!((uuid, value.content), (old.uuid, file(3)));
    }

    #[test]
    fn an_edit_ends_an_earlier_touch_and_keeps_what_it_does_not_know() {
        let mut old = file_record(1, "/a", 1, 5);
        old.meta.mtime = Some(WallTime(77));
        old.meta.extra = Some("{\"x\":1}".into());
        if let Value::Entry(value) = &mut old.value {
            value.extra = Some("{\"y\":1}".into());
            value.conflict_source = Some(Uuid([8; 16]));
        }
        let change = Case::in_step(&old).finds(&file(2), Found::Running);
        let LocalChange::Edit { value, meta: Some(meta), .. } = change else { panic!() };
        assert_eq!((meta.mtime, &meta.extra), (None, &old.meta.extra));
        assert_eq!((value.extra.as_deref(), value.conflict_source), (Some("{\"y\":1}"), Some(Uuid([8; 16]))));
    }

    #[test]
    fn new_bits_do_not_bring_an_ended_touch_back() {
        let mut record = file_record(1, "/a", 1, 5);
        // Touched by somebody before somebody else's content, which is the later change of the two.
        record.meta.mtime = Some(WallTime(77));
        record.meta_change.time = WallTime(record.value_change.time.0 - 1);
        let case = Case::in_step(&record);
        let same = stamp(&file(1), 1);
        assert_eq!(case.sees(Some((&file(1), same)), Found::Running), LocalChange::None);
        let change = case.sees(Some((&file(1), Stamp { mode: 0o600, ..same })), Found::Running);
        let LocalChange::Meta { meta, .. } = change else { panic!("{change:?}") };
        assert_eq!((meta.unix_mode, meta.mtime), (Some(0o600), None));
    }

    #[test]
    fn mode_and_time() {
        let record = file_record(1, "/a", 1, 5);
        let case = Case::in_step(&record);
        let same = stamp(&file(1), 1);
        for (mode, mtime_ns, ctime_ns, expect) in [
            (0o644, 1, 1, None),
            // Only the inode changed: an editor's save, or a rename to and fro.
            (0o644, 1, 9, None),
            (0o755, 1, 9, Some((Some(0o755), None))),
            (0o644, 8, 9, Some((Some(0o644), Some(WallTime(8))))),
            (0o600, 8, 9, Some((Some(0o600), Some(WallTime(8))))),
        ] {
            let seen = Stamp { mode, mtime_ns, ctime_ns, ..same };
            let change = case.sees(Some((&file(1), seen)), Found::Offline);
            match (change, expect) {
                (LocalChange::None, None) => {}
                (LocalChange::Meta { meta, time, .. }, Some(expect)) => {
                    assert_eq!((meta.unix_mode, meta.mtime), expect);
                    assert_eq!(time, WallTime(9));
                }
                other => panic!("{other:?}"),
            }
        }
        // A file system that shows other modes and times than were asked for is not a user's change.
        let mut case = Case::in_step(&record);
        let coarse = Stamp { mode: 0o777, mtime_ns: 0, ..same };
        case.row.disk = Some(crate::files::row::DiskState { stamp: coarse, content: file(1), settled: true });
        assert_eq!(case.sees(Some((&file(1), coarse)), Found::Running), LocalChange::None);
        // A touch back to the recorded time.
        let mut case = Case::in_step(&record);
        case.row.disk = Some(crate::files::row::DiskState { stamp: coarse, content: file(1), settled: true });
        let seen = Stamp { mode: 0o777, mtime_ns: 1, ..same };
        assert_eq!(case.sees(Some((&file(1), seen)), Found::Running), LocalChange::None);
    }

    #[test]
    fn set_id_bits_are_told_to_nobody() {
        let case = Case::in_step(&file_record(1, "/a", 1, 5));
        let seen = Stamp { mode: 0o4644, ..stamp(&file(1), 1) };
        assert_eq!(case.sees(Some((&file(1), seen)), Found::Running), LocalChange::None);
        let change = Case::empty().sees(Some((&file(1), Stamp { mode: 0o6755, ..seen })), Found::Running);
        assert!(
            matches!(change, LocalChange::Create { meta, .. } if meta.unix_mode == Some(0o755)),
            "not the mode that all may have"
        );
    }

    #[test]
    fn a_directory_that_is_shut_keeps_its_recorded_mode() {
        let dir = record(1, "/a", EntryContent::Dir, 1, 5);
        let case = Case::in_step(&dir);
        let seen = |mode| Stamp { mode, ..stamp(&EntryContent::Dir, 1) };
        for mode in [0, 0o077, 0o100, 0o400] {
            let change = case.sees(Some((&EntryContent::Dir, seen(mode))), Found::Running);
            assert_eq!(change, LocalChange::None, "{mode:o}");
        }
        let change = case.sees(Some((&EntryContent::Dir, seen(0o500))), Found::Running);
        assert!(matches!(change, LocalChange::Meta { meta, .. } if meta.unix_mode == Some(0o500)));
        let change = Case::empty().sees(Some((&EntryContent::Dir, seen(0))), Found::Running);
        assert!(matches!(change, LocalChange::Create { meta, .. } if meta.unix_mode.is_none()));
    }

    #[test]
    fn what_is_gone_is_deleted_only_where_it_lives() {
        let record = file_record(1, "/a", 1, 5);
        let case = Case::in_step(&record);
        assert_eq!(case.sees(None, Found::Running), LocalChange::Delete { uuid: record.uuid, time: NOW });
        let newer = edited(&record, file(2), 2, 6);
        assert!(matches!(
            Case::in_step(&record).moved_on(&newer).sees(None, Found::Running),
            LocalChange::Delete { .. }
        ));
        let dead = Case::in_step(&record).moved_on(&deleted(&record, 2, 6));
        assert_eq!(dead.sees(None, Found::Running), LocalChange::None);
        let mut away = Case::in_step(&record).moved_on(&moved(&record, "/b", 2, 6));
        assert!(matches!(away.sees(None, Found::Running), LocalChange::Delete { .. }));
        away.target = Target::Holds;
        assert_eq!(away.sees(None, Found::Running), LocalChange::None);
        assert_eq!(Case::empty().sees(None, Found::Running), LocalChange::None);
    }

    #[test]
    fn directories_that_sync_made_or_left_are_no_change() {
        let dir = EntryContent::Dir;
        let mut made = Case::empty();
        made.row = PathRow { disk: Some(disk(dir.clone())), implied: true, ..PathRow::default() };
        assert_eq!(made.finds(&dir, Found::Running), LocalChange::None);
        assert_eq!(made.sees(None, Found::Running), LocalChange::None);
        made.implied_dir = true;
        let chmod = Stamp { mode: 0o700, ..stamp(&dir, 1) };
        assert!(matches!(
            made.sees(Some((&dir, chmod)), Found::Running),
            LocalChange::Create { meta, .. } if meta.unix_mode == Some(0o700)
        ));
        let mut left = Case::in_step(&record(1, "/a", dir.clone(), 1, 1));
        left.dead = Some(deleted(left.base.as_ref().expect("in step"), 2, 2));
        (left.base, left.base_now, left.shown) = (None, None, None);
        left.row.leave_dir();
        assert_eq!(left.finds(&dir, Found::Running), LocalChange::None);
        // A file in its place is a new file.
        assert!(matches!(left.finds(&file(1), Found::Running), LocalChange::Create { revive: Some(_), .. }));
        let mut implied = Case::empty();
        implied.implied_dir = true;
        assert_eq!(implied.finds(&dir, Found::Running), LocalChange::None);
    }
}
