//! What content has to stay where it is although its record wants something else: another file still needs it
//! (sync.md, "Conflicts"). Says for which file; decides nothing else.

use crate::files::conflict;
use crate::files::path::RelPath;
use crate::files::row::Base;
use crate::index::merge;
use crate::index::record::{EntryContent, Record};
use crate::share::txn::{Miss, Txn};

/// The file that a base's content has to stay at `path` for: it is a value that lost, whose conflict file was not made
/// or is not on disk yet, or that of a conflict file which took the place of the original's and is not there yet. For a
/// file whose place is beneath `path`, or above it, it has to go, so that there can be a directory, or none any more;
/// it is brought from the archive.
pub fn kept_for(
    txn: &mut Txn,
    path: &RelPath,
    base: &Record,
    now: &Record,
    author: bool,
) -> Result<Option<RelPath>, Miss> {
    Ok(needed_for(txn, base, now, author)?.filter(|place| !place.is_beneath(path) && !path.is_beneath(place)))
}

fn needed_for(txn: &mut Txn, base: &Record, now: &Record, author: bool) -> Result<Option<RelPath>, Miss> {
    if now.deleted()
        && let Some(place) = source_unserved(txn, base, now)?
    {
        return Ok(Some(place));
    }
    // A later value may have seen both, while the conflict file still waits for its content.
    let lost = merge::conflicts(now, base);
    if !lost && txn.totals.conflicts == 0 {
        return Ok(None);
    }
    if base.content().is_none_or(|content| *content == EntryContent::Dir) {
        return Ok(None);
    }
    let (_, uuid) = conflict::conflict_id(base.uuid, &base.value_change);
    let Some(saved) = txn.record(uuid)? else {
        // A peer that may not author makes no conflict file; its archive keeps what goes.
        let place = RelPath::from_key(&now.key).or_else(|| RelPath::from_key(&base.key));
        let file = place.filter(|_| lost && author).and_then(|place| conflict::conflict_file(base, &place));
        return Ok(file.map(|file| file.path));
    };
    // Whoever deleted or edited the conflict file had its content before him.
    if saved.deleted() || saved.content() != base.content() {
        return Ok(None);
    }
    let Some(path) = RelPath::from_key(&saved.key) else { return Ok(None) };
    let row = txn.row(&path)?;
    let there = row.base == Base::Index(uuid) && row.disk.is_some();
    Ok(Some(path).filter(|_| !there))
}

/// The original of a deleted conflict file that wants its content and does not have it: this may be the only place
/// that has it.
fn source_unserved(txn: &mut Txn, base: &Record, deleted: &Record) -> Result<Option<RelPath>, Miss> {
    let Some(source) = deleted.conflict_source() else { return Ok(None) };
    let Some(source) = txn.record(source)?.filter(|source| !source.deleted()) else { return Ok(None) };
    let Some(place) = RelPath::from_key(&source.key) else { return Ok(None) };
    let served = source.content() != base.content() || txn.row(&place)?.content() == base.content();
    Ok(Some(place).filter(|_| !served))
}
