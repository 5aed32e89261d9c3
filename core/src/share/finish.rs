//! What disk work leaves in the database.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use crate::files::conflict;
use crate::files::path::RelPath;
use crate::files::plan::has_meta_of;
use crate::files::row::{Base, DiskState, PathRow};
use crate::index::record::{EntryContent, Record};
use crate::io::disk::Stamp;
use crate::share::archived::Kept;
use crate::share::leftovers::placed_unseen;
use crate::share::pipeline::Effects;
use crate::share::txn::{Miss, Txn};

/// Disk work that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The path.
    pub path: RelPath,
    /// How.
    pub outcome: Outcome,
}

/// How disk work on a path ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The path holds this version.
    Placed {
        /// The version.
        version: Arc<Record>,
        /// Its content.
        content: EntryContent,
        /// Its stamp.
        stamp: Stamp,
        /// Whether the stamp tells a later change; of a directory, whether it is known what lies in it.
        settled: bool,
        /// The folder of the archive in which what was replaced lies.
        archived: Option<String>,
    },
    /// A killed run had put this version at the path.
    Recovered {
        /// The version.
        version: Arc<Record>,
    },
    /// Nothing lies at the path any more.
    Removed {
        /// The folder of the archive in which it lies.
        archived: Option<String>,
    },
    /// Nothing lay at the path that could be removed.
    Missed,
    /// What lay at the path lies elsewhere now.
    Moved {
        /// Where.
        to: RelPath,
        /// The version that it is.
        version: Arc<Record>,
        /// Its stamp there.
        stamp: Stamp,
    },
    /// A directory stays because of what it holds.
    Kept,
    /// A directory was made only for what lies beneath it.
    Implied {
        /// Its stamp.
        stamp: Stamp,
        /// Whether it is known what lies in it.
        settled: bool,
    },
    /// Another state than expected was found: it is looked at.
    Changed,
    /// It failed and is tried again later; the reason is kept by the share.
    Failed,
}

/// Applies one ended work.
pub fn apply(txn: &mut Txn, item: &Finished, effects: &mut Effects) -> Result<(), Miss> {
    let Finished { path, outcome } = item;
    match outcome {
        Outcome::Placed { version, content, stamp, settled, archived } => {
            let mut row = txn.row(path)?;
            note_archived(&row, path, archived.as_deref(), effects);
            row.base = base_for(txn, version, path)?;
            // What lies in a directory is not seen by giving it a mode.
            let listed = |disk: &DiskState| disk.is_listed(stamp);
            let dir = *content == EntryContent::Dir;
            let anew = dir && *settled && is_made_anew(&row, path, effects);
            let settled = !anew && (*settled || dir && row.disk.as_ref().is_some_and(listed));
            row.disk = Some(DiskState { stamp: *stamp, content: content.clone(), settled });
            txn.put_row(path, row);
        }
        Outcome::Recovered { version } => {
            let mut row = txn.row(path)?;
            let unseen = placed_unseen(version);
            if unseen.is_some() && !knows(txn, &row, version)? {
                row.base = base_for(txn, version, path)?;
                row.disk = unseen;
                txn.put_row(path, row);
            }
            // What lies there by now is looked at.
            effects.again.push(path.clone());
        }
        Outcome::Removed { archived } => {
            let row = txn.row(path)?;
            note_archived(&row, path, archived.as_deref(), effects);
            clear(txn, path, row)?;
        }
        Outcome::Missed => {
            let row = txn.row(path)?;
            let now = row.base_uuid().map(|uuid| txn.record(uuid)).transpose()?.flatten();
            let kept = match txn.base_of(&row)? {
                Some(base) => kept_record(txn, &base)?.is_some_and(|kept| kept.deleted()),
                None => false,
            };
            if kept || now.is_some_and(|now| !now.deleted() || !path.is_key(&now.key)) {
                // If a user moved it, or it was renamed here and the database does not know that, what the row knows is
                // all that tells the file from a new one.
                effects.again.push(path.clone());
            } else {
                clear(txn, path, row)?;
            }
        }
        Outcome::Moved { to, version, stamp } => {
            let mut from_row = txn.row(path)?;
            let mut to_row = txn.row(to)?;
            let base = base_of_renamed(txn, &from_row, version, to)?;
            let disk = from_row.disk.take();
            from_row.base = Base::None;
            if let Some(disk) = disk {
                to_row.disk = Some(renamed(disk, to, stamp, effects));
                to_row.base = base;
            }
            txn.put_row(path, from_row);
            txn.put_row(to, to_row);
            txn.emptied(path)?;
            effects.ended.push(to.clone());
        }
        Outcome::Kept => {
            let mut row = txn.row(path)?;
            row.leave_dir();
            txn.put_row(path, row);
        }
        Outcome::Implied { stamp, settled } => {
            let mut disk = DiskState { stamp: *stamp, content: EntryContent::Dir, settled: *settled };
            let mut row = txn.row(path)?;
            if *settled && is_made_anew(&row, path, effects) {
                disk.settled = false;
                (row.disk, row.base) = (Some(disk), Base::None);
                row.implied = true;
                txn.put_row(path, row);
            } else {
                imply(txn, path, disk)?;
            }
        }
        Outcome::Changed => effects.again.push(path.clone()),
        Outcome::Failed => {}
    }
    effects.ended.push(path.clone());
    Ok(())
}

/// Whether a directory was just made where the row knows one. It is another, though it may have got that one's inode:
/// what lay in the one before is gone, and is missed when the new one is looked through.
fn is_made_anew(row: &PathRow, path: &RelPath, effects: &mut Effects) -> bool {
    let anew = row.content() == Some(&EntryContent::Dir);
    if anew {
        effects.again.push(path.clone());
    }
    anew
}

/// A directory stands at a path only for what lies beneath it, unless it is known there already.
pub fn imply(txn: &mut Txn, path: &RelPath, disk: DiskState) -> Result<(), Miss> {
    let mut row = txn.row(path)?;
    let wanted = txn.live_beneath(path)?;
    if row.disk.is_none() {
        row.disk = Some(disk);
        row.implied = true;
        if !wanted {
            // What it was made for went away meanwhile, and nobody else will have it looked at.
            row.recheck_dir();
        }
        txn.put_row(path, row);
    }
    Ok(())
}

/// Nothing lies at a path any more.
fn clear(txn: &mut Txn, path: &RelPath, mut row: PathRow) -> Result<(), Miss> {
    row.disk = None;
    row.base = Base::None;
    txn.put_row(path, row);
    txn.emptied(path)
}

/// What a row says of the disk was moved to the archive.
fn note_archived(row: &PathRow, path: &RelPath, folder: Option<&str>, effects: &mut Effects) {
    if let (Some(folder), Some(disk)) = (folder, &row.disk) {
        effects.archived.extend(Kept::new(folder, path, disk, row.base_uuid()));
    }
}

/// Whether what a row knows came after a version, or with it: an intent of an earlier run tells nothing then.
pub fn knows(txn: &mut Txn, row: &PathRow, version: &Record) -> Result<bool, Miss> {
    let base = txn.base_of(row)?;
    Ok(base.is_some_and(|base| base.uuid == version.uuid && base.clock.covers(&version.clock)))
}

/// The conflict file's record of a value that lost, if it is known.
pub fn kept_record(txn: &mut Txn, loser: &Record) -> Result<Option<Arc<Record>>, Miss> {
    let (_, uuid) = conflict::conflict_id(loser.uuid, &loser.value_change);
    txn.record(uuid)
}

/// What a row knows of a file that was renamed, and now has this stamp at `to`. A change of mode or time that nobody
/// has looked at yet went along: the row must not know of it, and it is looked at.
pub fn renamed(mut disk: DiskState, to: &RelPath, now: &Stamp, effects: &mut Effects) -> DiskState {
    let Stamp { size, mtime_ns, mode, .. } = disk.stamp;
    disk.stamp = Stamp { size, mtime_ns, mode, ..*now };
    if disk.stamp != *now {
        effects.again.push(to.clone());
    }
    disk
}

/// The base of what a row knows, renamed to `to` as `version`. Bits that were not set yet at its old path are not set
/// by the rename: with the index's version as its base, what the disk has would pass for a user's.
pub fn base_of_renamed(
    txn: &mut Txn,
    row: &PathRow,
    version: &Arc<Record>,
    to: &RelPath,
) -> Result<Base, Miss> {
    let lacks = row.disk.as_ref().is_some_and(|disk| !has_meta_of(disk, version));
    if lacks && matches!(row.base, Base::Older(_)) {
        return Ok(Base::Older(Box::new((**version).clone())));
    }
    base_for(txn, version, to)
}

/// The base of content at `path` that is `version`: the index's own version where that looks the same there.
pub fn base_for(txn: &mut Txn, version: &Arc<Record>, path: &RelPath) -> Result<Base, Miss> {
    Ok(match txn.record(version.uuid)? {
        Some(now) if now.looks_like(version) && path.is_key(&now.key) => Base::Index(version.uuid),
        _ => Base::Older(Box::new((**version).clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{edited, file, file_record, path, record, stamp};
    use crate::ids::RootId;
    use crate::index::codec::PeerTable;
    use crate::share::txn::Totals;
    use alloc::vec::Vec;

    /// Does it with a store that has nothing.
    fn done<T>(txn: &mut Txn, mut act: impl FnMut(&mut Txn) -> Result<T, Miss>) -> T {
        loop {
            if let Ok(result) = act(txn) {
                return result;
            }
            let queries = txn.take_queries();
            txn.loaded(queries.iter().map(|_| Vec::new()).collect(), &PeerTable::default()).unwrap();
        }
    }

    fn applied(txn: &mut Txn, item: &Finished) -> PathRow {
        done(txn, |txn| apply(txn, item, &mut Effects::default()));
        txn.row(&item.path).unwrap()
    }

    #[test]
    fn what_an_earlier_run_put_there_replaces_nothing_newer() {
        let mut txn = Txn::new(RootId(1), Totals::default(), 0);
        let first = Arc::new(file_record(1, "/a", 1, 1));
        let second = Arc::new(edited(&first, file(2), 2, 1));
        let third = Arc::new(edited(&second, file(3), 1, 2));
        let recovered = |version: &Arc<Record>| Finished {
            path: path("a"),
            outcome: Outcome::Recovered { version: version.clone() },
        };
        let row = applied(&mut txn, &recovered(&first));
        assert_eq!(row.content(), Some(&file(1)));
        assert_eq!(row.base, Base::Older(Box::new((*first).clone())));
        let (version, content) = (second.clone(), file(2));
        let stamp = stamp(&content, 1);
        let placed = Outcome::Placed { version, content, stamp, settled: true, archived: None };
        let row = applied(&mut txn, &Finished { path: path("a"), outcome: placed });
        assert_eq!(applied(&mut txn, &recovered(&first)), row);
        assert_eq!(applied(&mut txn, &recovered(&second)), row);
        let row = applied(&mut txn, &recovered(&third));
        assert_eq!(row.content(), Some(&file(3)));
        assert_eq!(row.base, Base::Older(Box::new((*third).clone())));
    }

    #[test]
    fn a_directory_that_was_just_made_is_not_the_one_that_was_known() {
        let stamp = stamp(&EntryContent::Dir, 1);
        let version = Arc::new(record(1, "/d", EntryContent::Dir, 1, 1));
        let content = EntryContent::Dir;
        for settled in [true, false] {
            let placed = Outcome::Placed {
                version: version.clone(),
                content: content.clone(),
                stamp,
                settled,
                archived: None,
            };
            for outcome in [placed, Outcome::Implied { stamp, settled }] {
                let mut txn = Txn::new(RootId(1), Totals::default(), 0);
                let mut apply = |before: bool| {
                    let mut effects = Effects::default();
                    let disk = before.then(|| DiskState { stamp, content: content.clone(), settled: true });
                    done(&mut txn, |txn| txn.row(&path("d")));
                    txn.put_row(&path("d"), PathRow { disk, ..PathRow::default() });
                    let item = Finished { path: path("d"), outcome: outcome.clone() };
                    done(&mut txn, |txn| apply(txn, &item, &mut effects));
                    (txn.row(&path("d")).unwrap().disk.unwrap().settled, effects.again)
                };
                assert_eq!(apply(false), (settled, Vec::new()));
                let again = if settled { [path("d")].into() } else { Vec::new() };
                assert_eq!(apply(true), (!settled, again));
            }
        }
    }

    #[test]
    fn bits_that_a_path_lacked_are_still_to_be_set_where_it_was_renamed_to() {
        let mut txn = Txn::new(RootId(1), Totals::default(), 0);
        let mut version = file_record(1, "/a", 1, 1);
        version.meta.unix_mode = Some(0o600);
        let version = Arc::new(version);
        let moved = Arc::new(Record { key: "/b".into(), ..(*version).clone() });
        done(&mut txn, |txn| txn.put_record(moved.clone()));
        let mut based = |base: &Base, mode: u32| {
            let stamp = Stamp { mode, ..stamp(&file(1), 1) };
            let disk = Some(DiskState { stamp, content: file(1), settled: true });
            let row = PathRow { disk, base: base.clone(), ..PathRow::default() };
            done(&mut txn, |txn| base_of_renamed(txn, &row, &moved, &path("b")))
        };
        let older = Base::Older(Box::new((*moved).clone()));
        assert_eq!(based(&older, 0o644), older);
        assert_eq!(based(&older, 0o600), Base::Index(moved.uuid));
        // What a user did to what was in step is no lack.
        assert_eq!(based(&Base::Index(version.uuid), 0o644), Base::Index(moved.uuid));
    }
}
