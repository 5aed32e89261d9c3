//! The pure plan: from what the disk held, which version that was, and what the index wants, to the next step for
//! one path (sync.md, "Three observations, one pure plan"). It may be asked at any time, in any order, after any
//! crash; it performs nothing and remembers nothing.

use alloc::string::String;
use alloc::sync::Arc;

use crate::files::path::RelPath;
use crate::files::row::{DiskState, PathRow};
use crate::ids::{Sha256, Uuid};
use crate::index::merge::conflicts;
use crate::index::record::{EntryContent, EntryValue, Meta, Record, Value};
use crate::io::disk::{MODE_BITS, Stamp};
use crate::time::WallTime;

/// All that the plan looks at, for one path.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The path.
    pub path: &'a RelPath,
    /// Its row: the disk as it was last seen or written, and the base.
    pub row: &'a PathRow,
    /// The live record that is shown at this path (see [`crate::files::conflict::shown`]).
    pub shown: Option<&'a Record>,
    /// Whether live records lie beneath this path.
    pub implied_dir: bool,
    /// The row's base, resolved: the version that the disk content was when it was last in step.
    pub base: Option<&'a Record>,
    /// What the index holds now of the base's record, wherever its key is, deleted or not.
    pub base_now: Option<&'a Record>,
    /// The tombstones with this key that the row names, newest last.
    pub dead: &'a [&'a Record],
    /// What stands where the base's record moved to; read only if it did.
    pub target: Target,
    /// Whether the conflict record that [`Step::Conflict`] asks for was made, by anybody, live or deleted.
    pub conflict_made: bool,
    /// Local rules.
    pub policy: Policy,
}

/// What stands at the path to which the base's record moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    #[default]
    Free,
    /// That record, in some version, is on disk there already.
    Holds,
    /// Something else, which will go away or be resolved by itself.
    Taken,
    /// Something else, which directly or over others waits for this very path (a swap, a ring).
    Cycle,
    /// That path is ignored or not selected here.
    Unwanted,
}

/// What is known of other paths and records than the one that is planned.
pub trait Around {
    /// Why something cannot be told now.
    type Miss;
    /// The row of a path.
    fn row(&mut self, path: &RelPath) -> Result<PathRow, Self::Miss>;
    /// What the index holds of a record.
    fn record(&mut self, uuid: Uuid) -> Result<Option<Arc<Record>>, Self::Miss>;
}

/// How far a chain of paths that wait for each other is followed; a longer one counts as a ring.
const RING_MAX: usize = 16;

/// What stands where the base's record moved to: `now` is what the index holds of it, `here` is what is on disk at
/// `path`.
pub fn target<A: Around>(
    path: &RelPath,
    here: Option<&EntryContent>,
    now: Option<&Record>,
    around: &mut A,
) -> Result<Target, A::Miss> {
    let Some(now) = now.filter(|now| !now.deleted() && !path.is_key(&now.key)) else {
        return Ok(Target::Free);
    };
    let Some(to) = RelPath::from_key(&now.key) else { return Ok(Target::Free) };
    if to.is_beneath(path) {
        // The directory of that place is to stand here: what is here must go first.
        return Ok(Target::Cycle);
    }
    let Some((at, mut there)) = in_the_way(&to, around)? else { return Ok(Target::Free) };
    // A file above it goes by itself, unless it waits for this very path.
    let unless = if at == to { Target::Taken } else { Target::Free };
    if at == to && there.base_uuid() == Some(now.uuid) {
        // Another version may have been brought there: then this may be the only place that has what it wants, and
        // stays until that is copied.
        let wanted = here.is_some() && here == now.content() && there.content() != here;
        return Ok(if wanted { Target::Taken } else { Target::Holds });
    }
    if path.is_beneath(&to) {
        // What stands there is the directory of this path, and goes when it is empty.
        return Ok(Target::Cycle);
    }
    // Whether what stands there waits, directly or over others, for this path.
    for _ in 0..RING_MAX {
        let Some(uuid) = there.base_uuid() else { return Ok(unless) };
        let Some(record) = around.record(uuid)? else { return Ok(unless) };
        let Some(next) = RelPath::from_key(&record.key).filter(|_| !record.deleted()) else {
            return Ok(unless);
        };
        // A directory is to stand here for it, or one that holds this path is to go for it.
        if next == *path || next.is_beneath(path) || path.is_beneath(&next) {
            return Ok(Target::Cycle);
        }
        there = match in_the_way(&next, around)? {
            Some((_, row)) if row.base_uuid() != Some(uuid) => row,
            _ => return Ok(unless),
        };
    }
    Ok(Target::Cycle)
}

/// What must go before a path can be had: what is there, or a file or link where a directory above it is to be.
fn in_the_way<A: Around>(to: &RelPath, around: &mut A) -> Result<Option<(RelPath, PathRow)>, A::Miss> {
    let there = around.row(to)?;
    if there.disk.is_some() {
        return Ok(Some((to.clone(), there)));
    }
    for above in to.ancestors().filter(|above| !above.is_root()) {
        let row = around.row(&above)?;
        match row.content() {
            None => {}
            Some(EntryContent::Dir) => return Ok(None),
            Some(_) => return Ok(Some((above, row))),
        }
    }
    Ok(None)
}

/// What of a path is wanted here (sync.md, "Policy per path").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// All of it.
    #[default]
    Content,
    /// Directories and links, and files that are here already; other files' content when it is asked for.
    OnDemand,
    /// Nothing: ignored or not selected. The disk is left alone.
    Nothing,
}

/// Local rules for one path at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is wanted.
    pub want: Want,
    /// Whether this peer may author (it holds the read_write level).
    pub author: bool,
    /// Whether the peer was caught up once with a peer of the share, or made the share. Until then content without
    /// base is not judged.
    pub caught_up: bool,
    /// Whether K covers the clocks of the records concerned, or the hour of waiting is over (protocol §7). Until
    /// then nothing is removed, and no conflict record is made.
    pub known: bool,
}

impl Policy {
    /// A read_write peer that knows everything and wants everything.
    pub const FULL: Policy = Policy { want: Want::Content, author: true, caught_up: true, known: true };
}

/// The next step for a path. Each names the observation that it relied on: the operation must fail, and the path be
/// looked at again, where the disk shows anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Disk, base and index agree.
    Nothing,
    /// The disk holds the shown record's content: its index version becomes base. Relied on `row.disk`, no disk work.
    Adopt {
        /// The shown record.
        uuid: Uuid,
    },
    /// The disk holds the shown record's content with another mode or time: set them, then adopt.
    SetMeta {
        /// The shown record.
        uuid: Uuid,
        /// What is on disk.
        stamp: Stamp,
        /// Permission bits to set.
        mode: Option<u32>,
        /// Modification time to set.
        mtime_ns: Option<i64>,
    },
    /// The row's base means nothing any more: set it to none. Relied on `row.disk`, no disk work.
    Forget,
    /// The directory on disk stays only for what lies beneath it: base none, `implied` true. No disk work.
    KeepImplied,
    /// Nothing is there: make a directory.
    MakeDir {
        /// The shown record; `None` makes it for what lies beneath (`implied` becomes true).
        uuid: Option<Uuid>,
        /// Permission bits.
        mode: Option<u32>,
    },
    /// Make a link, in place of what is there.
    PutLink {
        /// The shown record.
        uuid: Uuid,
        /// The target.
        target: String,
        /// Modification time.
        mtime_ns: Option<i64>,
        /// What must be there: nothing, or this file or link. It goes to the archive.
        replaces: Option<Stamp>,
    },
    /// Get a file's content, and install it in place of what is there.
    BringFile {
        /// The shown record.
        uuid: Uuid,
        /// Bytes.
        size: u64,
        /// Of the content.
        sha256: Sha256,
        /// Permission bits.
        mode: Option<u32>,
        /// Modification time.
        mtime_ns: Option<i64>,
        /// What must be there: nothing, or this file or link. It goes to the archive.
        replaces: Option<Stamp>,
        /// The file on disk is an earlier version of the same record, so that a delta may pay.
        delta: bool,
    },
    /// The base's record, a file or link, has another key now, and nothing is there: rename. The row moves with it.
    MoveTo {
        /// To this path; its directory is to be made first.
        to: RelPath,
        /// What is on disk here.
        stamp: Stamp,
    },
    /// Take the file or link away, to the archive.
    Remove {
        /// What must be there.
        stamp: Stamp,
    },
    /// Take the directory away if it is empty. Where it is not, the caller says [`PathRow::leave_dir`].
    RemoveDir {
        /// What must be there.
        stamp: Stamp,
    },
    /// The disk differs from base: [`crate::files::local::local_change`] says what change that is. Relied on
    /// `row.disk`. A peer that may not author takes [`put_back`] instead.
    LocalChange,
    /// The disk holds a value (the base's) that lost to one which had not seen it, here or where the record moved to:
    /// author the conflict record ([`crate::files::conflict::conflict_file`]), named after the record's path, before
    /// the content here is replaced or taken away.
    Conflict,
    /// The disk holds a value (the base's) that lost to one which is now deleted, and has no conflict file: write it
    /// again, with a `value_clock` that is the join of both (protocol §7, Conflict).
    Rewrite,
    /// Something must happen first.
    Wait(Reason),
}

/// Why a path waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Ignored or not selected.
    Unwanted,
    /// Its content is fetched when it is asked for.
    OnDemand,
    /// The peer was not yet caught up with any other, so what lies here cannot be judged.
    NotCaughtUp,
    /// Not every change that the records concerned have seen is known yet.
    NotKnown,
    /// Another live record has this path; a read_write peer will give one of them another name.
    Hidden,
    /// What lies here belongs to another path, where something else still is.
    TargetTaken,
    /// A directory stands here that holds things which are not synced.
    DirInTheWay,
    /// The record's value is of no shape that can be a file, or its new key is no possible path.
    Unusable,
}

/// Read, write and search for the owner.
const OWNER_ALL: u32 = 0o700;
/// Read for the owner.
const OWNER_READ: u32 = 0o400;

/// What a path should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal<'a> {
    Absent,
    ImpliedDir,
    Shown(&'a Record, &'a EntryValue),
    Unusable,
}

impl<'a> Goal<'a> {
    fn of(view: &View<'a>) -> Goal<'a> {
        let entry = view.shown.map(|record| (record, entry(record)));
        match entry {
            Some((record, Some(value))) if !view.implied_dir || value.content == EntryContent::Dir => {
                Goal::Shown(record, value)
            }
            _ if view.implied_dir => Goal::ImpliedDir,
            Some(_) => Goal::Unusable,
            None => Goal::Absent,
        }
    }

    fn content(self) -> Option<&'a EntryContent> {
        match self {
            Goal::Shown(_, value) => Some(&value.content),
            Goal::ImpliedDir => Some(&EntryContent::Dir),
            Goal::Absent | Goal::Unusable => None,
        }
    }
}

/// What became of the record whose version the disk holds.
enum Fate {
    /// There is no base.
    None,
    /// It is shown here.
    Shown,
    /// It has this key, and another is shown.
    Hidden,
    /// It has another key.
    Elsewhere(Option<RelPath>),
    /// It is deleted, or the index does not know it.
    Deleted,
}

/// The next step for a path.
pub fn plan(view: &View<'_>) -> Step {
    if view.policy.want == Want::Nothing {
        return if view.base.is_some() || view.row.base_uuid().is_some() {
            Step::Forget
        } else {
            Step::Wait(Reason::Unwanted)
        };
    }
    let goal = Goal::of(view);
    if goal == Goal::Unusable {
        return Step::Wait(Reason::Unusable);
    }
    match &view.row.disk {
        None if base_content(view).is_some() => match fate(view) {
            Fate::Shown | Fate::Hidden => Step::LocalChange,
            // Whoever moved or deleted it has done here what the disk shows.
            _ => Step::Forget,
        },
        None => bring(view, goal, None),
        Some(disk) if goal.content() == Some(&disk.content) => in_place(view, goal, disk),
        Some(disk) if !unchanged(view, disk) => changed(view, goal, disk),
        Some(disk) => leave(view, goal, disk),
    }
}

/// The step that undoes a local change which may not leave this peer: the local version goes to the archive and the
/// index version comes back. For a change of mode or time alone, and where there is nothing to undo, it is what the
/// plan says.
pub fn put_back(view: &View<'_>) -> Step {
    let step = plan(view);
    if step != Step::LocalChange {
        return step;
    }
    let goal = Goal::of(view);
    match &view.row.disk {
        Some(disk) => replace(view, goal, disk, false),
        None => match bring(view, goal, None) {
            Step::Nothing => Step::Forget,
            step => step,
        },
    }
}

/// The disk holds the wanted content: base and meta are left to be set.
fn in_place(view: &View<'_>, goal: Goal<'_>, disk: &DiskState) -> Step {
    let Goal::Shown(record, _) = goal else {
        let settled = view.row.implied && view.row.base_uuid().is_none();
        return if settled { Step::Nothing } else { Step::KeepImplied };
    };
    if view.row.base == crate::files::row::Base::Index(record.uuid) {
        // Mode and time were set as well as this file system can when the base was; comparing them here would
        // repeat for ever what it cannot hold. A local chmod is seen by comparing stamps.
        return Step::Nothing;
    }
    let (mode, mtime_ns) = missing_meta(record, disk);
    if mode.is_none() && mtime_ns.is_none() {
        return Step::Adopt { uuid: record.uuid };
    }
    Step::SetMeta { uuid: record.uuid, stamp: disk.stamp, mode, mtime_ns }
}

/// Mode and time that a record asks for and the disk does not have.
fn missing_meta(record: &Record, disk: &DiskState) -> (Option<u32>, Option<i64>) {
    let (mode, mtime_ns) = wanted_meta(record);
    let mode = mode.filter(|mode| *mode != disk.stamp.mode && has_mode(&disk.content));
    (mode, mtime_ns.filter(|time| *time != disk.stamp.mtime_ns && has_mtime(&disk.content)))
}

/// Whether what is on disk has the mode and time that a record asks for.
pub(crate) fn has_meta_of(disk: &DiskState, record: &Record) -> bool {
    missing_meta(record, disk) == (None, None)
}

/// The disk holds something that neither base nor index says.
fn changed(view: &View<'_>, goal: Goal<'_>, disk: &DiskState) -> Step {
    if view.row.base_uuid().is_some() {
        return Step::LocalChange;
    }
    if !view.policy.caught_up {
        return Step::Wait(Reason::NotCaughtUp);
    }
    if was_deleted(view, &disk.content) {
        return dispose(view, goal, disk);
    }
    Step::LocalChange
}

/// The disk is unchanged, and the path should be something else.
fn leave(view: &View<'_>, goal: Goal<'_>, disk: &DiskState) -> Step {
    let lost = |now: &Record| {
        disk.content != EntryContent::Dir && view.base.is_some_and(|base| conflicts(now, base))
    };
    match fate(view) {
        Fate::Shown => match view.base_now.or(view.shown) {
            Some(now) if lost(now) && unsaved(view) => conflict(view),
            _ => replace(view, goal, disk, true),
        },
        Fate::Hidden => Step::Wait(Reason::Hidden),
        Fate::Elsewhere(None) if goal == Goal::Absent => Step::Wait(Reason::Unusable),
        // It can be put nowhere, and its place is needed: as if it were deleted.
        Fate::Elsewhere(None) => match view.base_now {
            Some(now) if lost(now) && unsaved(view) => conflict(view),
            _ => dispose(view, goal, disk),
        },
        // Where it can move or must wait, the conflict is met at the new path.
        Fate::Elsewhere(Some(_))
            if matches!(view.target, Target::Holds | Target::Unwanted | Target::Cycle)
                && view.base_now.is_some_and(lost)
                && unsaved(view) =>
        {
            conflict(view)
        }
        Fate::Elsewhere(Some(to)) => move_away(view, goal, disk, to),
        // Once it has its conflict file, that is where it is kept.
        Fate::Deleted if view.base_now.is_some_and(lost) && unsaved(view) => {
            if view.policy.known {
                Step::Rewrite
            } else {
                Step::Wait(Reason::NotKnown)
            }
        }
        Fate::Deleted | Fate::None => dispose(view, goal, disk),
    }
}

/// Whether nobody has made the conflict record yet, and this peer may.
fn unsaved(view: &View<'_>) -> bool {
    view.policy.author && !view.conflict_made
}

fn conflict(view: &View<'_>) -> Step {
    if view.policy.known { Step::Conflict } else { Step::Wait(Reason::NotKnown) }
}

/// The base's record lives at `to` now.
fn move_away(view: &View<'_>, goal: Goal<'_>, disk: &DiskState, to: RelPath) -> Step {
    if disk.content == EntryContent::Dir {
        // A directory is made anew at its new path and what it holds moves over one by one, because only what has a
        // record moves with it: what is not synced stays where the user put it.
        return dispose(view, goal, disk);
    }
    match view.target {
        Target::Free => Step::MoveTo { to, stamp: disk.stamp },
        // In a ring all would wait for ever: this path is served first, and its old content is at hand in the
        // archive for the other.
        Target::Holds | Target::Unwanted | Target::Cycle => dispose(view, goal, disk),
        // Its record has a later content, and another wants this path: what is fetched there may never come.
        Target::Taken if goal != Goal::Absent && is_replaced(view) => dispose(view, goal, disk),
        Target::Taken => Step::Wait(Reason::TargetTaken),
    }
}

/// Whether the base's record has another content now, by somebody who had seen the base's.
fn is_replaced(view: &View<'_>) -> bool {
    let (Some(base), Some(now)) = (view.base, view.base_now) else { return false };
    entry(now).map(|value| &value.content) != entry(base).map(|value| &value.content) && !conflicts(now, base)
}

/// What is on disk has no place any more: replace it, or take it away, once enough is known.
fn dispose(view: &View<'_>, goal: Goal<'_>, disk: &DiskState) -> Step {
    if !view.policy.known {
        return Step::Wait(Reason::NotKnown);
    }
    replace(view, goal, disk, false)
}

/// Brings the path to its goal, over what is on disk.
fn replace(view: &View<'_>, goal: Goal<'_>, disk: &DiskState, delta: bool) -> Step {
    if disk.content == EntryContent::Dir {
        return match goal {
            _ if !view.row.is_left_dir() || view.row.is_dir_to_check() => {
                Step::RemoveDir { stamp: disk.stamp }
            }
            Goal::Absent => Step::Nothing,
            _ => Step::Wait(Reason::DirInTheWay),
        };
    }
    match goal.content() {
        None | Some(EntryContent::Dir) => Step::Remove { stamp: disk.stamp },
        Some(_) => match bring(view, goal, Some(disk.stamp)) {
            Step::BringFile { uuid, size, sha256, mode, mtime_ns, replaces, .. } => {
                let delta = delta && matches!(disk.content, EntryContent::File { .. });
                Step::BringFile { uuid, size, sha256, mode, mtime_ns, replaces, delta }
            }
            step => step,
        },
    }
}

/// Brings the path to its goal where nothing is, or over a file or link.
fn bring(view: &View<'_>, goal: Goal<'_>, replaces: Option<Stamp>) -> Step {
    let (record, value) = match goal {
        Goal::Absent | Goal::Unusable if view.row.base_uuid().is_some() => return Step::Forget,
        Goal::Absent | Goal::Unusable => return Step::Nothing,
        Goal::ImpliedDir => return Step::MakeDir { uuid: None, mode: None },
        Goal::Shown(record, value) => (record, value),
    };
    let (mode, mtime_ns) = wanted_meta(record);
    let uuid = record.uuid;
    match &value.content {
        EntryContent::Dir => Step::MakeDir { uuid: Some(uuid), mode },
        EntryContent::Link(target) => Step::PutLink { uuid, target: target.clone(), mtime_ns, replaces },
        EntryContent::File { .. } if replaces.is_none() && view.policy.want == Want::OnDemand => {
            Step::Wait(Reason::OnDemand)
        }
        EntryContent::File { size, sha256 } => {
            Step::BringFile { uuid, size: *size, sha256: *sha256, mode, mtime_ns, replaces, delta: false }
        }
    }
}

/// Whether the disk is as it was when it was last in step.
fn unchanged(view: &View<'_>, disk: &DiskState) -> bool {
    match base_content(view) {
        Some(content) => *content == disk.content,
        // Made for what lay beneath, or left for what it holds: no local change either way.
        None => disk.content == EntryContent::Dir && (view.row.implied || view.row.is_left_dir()),
    }
}

/// What the base version says that the disk should hold.
pub(crate) fn base_content<'a>(view: &View<'a>) -> Option<&'a EntryContent> {
    view.base.filter(|base| !base.deleted()).and_then(entry).map(|value| &value.content)
}

/// Whether this is what a tombstone of the path held.
pub(crate) fn was_deleted(view: &View<'_>, content: &EntryContent) -> bool {
    view.dead.iter().filter_map(|dead| entry(dead)).any(|value| value.content == *content)
}

fn fate(view: &View<'_>) -> Fate {
    let Some(uuid) = view.row.base_uuid() else { return Fate::None };
    match view.base_now {
        Some(now) if now.deleted() => Fate::Deleted,
        Some(now) if !view.path.is_key(&now.key) => Fate::Elsewhere(RelPath::from_key(&now.key)),
        Some(_) if view.shown.is_some_and(|shown| shown.uuid == uuid) && !hidden_by_dir(view) => Fate::Shown,
        Some(_) => Fate::Hidden,
        None => Fate::Deleted,
    }
}

/// A directory that live records imply is shown before a file or link (protocol §8).
fn hidden_by_dir(view: &View<'_>) -> bool {
    view.implied_dir && view.shown.and_then(entry).is_some_and(|value| value.content != EntryContent::Dir)
}

/// The value of a record of the directory extension.
pub(crate) fn entry(record: &Record) -> Option<&EntryValue> {
    match &record.value {
        Value::Entry(value) => Some(value),
        Value::Null | Value::Json(_) => None,
    }
}

/// Permission bits and modification time in nanoseconds that a record asks for. A touch counts while no later
/// content has been set. A directory is never shut to its owner: nothing could be brought into it, and its bits may be
/// those of a file that it took the place of. Nor is a file: it could neither be looked at nor sent on.
pub fn wanted_meta(record: &Record) -> (Option<u32>, Option<i64>) {
    let least = if record.is_dir() { OWNER_ALL } else { OWNER_READ };
    (record.meta.unix_mode.map(|mode| mode & MODE_BITS | least), wanted_mtime(record).map(|time| time.0))
}

/// The modification time that a record asks for.
pub(crate) fn wanted_mtime(record: &Record) -> Option<WallTime> {
    let set = entry(record).and_then(|value| value.mtime);
    let later = set.is_none() || record.meta_change > record.value_change;
    record.meta.mtime.filter(|_| later).or(set)
}

/// What a record's meta says that still counts, to change something of it: without a touch that a later content
/// ended, which would be in force again with a later change.
pub(crate) fn live_meta(record: &Record) -> Meta {
    let counts = record.meta.mtime == wanted_mtime(record);
    Meta { mtime: record.meta.mtime.filter(|_| counts), ..record.meta.clone() }
}

/// Whether permission bits are kept: links have none.
pub(crate) fn has_mode(content: &EntryContent) -> bool {
    !matches!(content, EntryContent::Link(_))
}

/// Whether a modification time is kept: that of a directory follows what happens in it, that of a link is set when
/// it is made.
pub(crate) fn has_mtime(content: &EntryContent) -> bool {
    matches!(content, EntryContent::File { .. })
}

#[cfg(test)]
mod tests;
