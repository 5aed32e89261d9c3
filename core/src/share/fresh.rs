//! The records that were stored last, by their arrival numbers: links that keep up are sent these without asking the
//! store for what it was just given. Older ones are the store's alone.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::ids::{PeerId, Uuid};
use crate::index::record::{EntryContent, Record, Value};

/// Records that are kept.
const FRESH_MAX: usize = 1000;
/// A record that may take more is left to the store, and with it all that are older.
const RECORD_BYTES_MAX: usize = 1024;

/// The newest records of a store.
#[derive(Debug, Default)]
pub struct Fresh {
    /// Those of the store with greater arrival numbers are all here.
    older: u64,
    records: BTreeMap<u64, Arc<Record>>,
    arrivals: BTreeMap<Uuid, u64>,
}

impl Fresh {
    /// Forgets all; of the store nothing is known up to this arrival number.
    pub fn begin(&mut self, arrival: u64) {
        *self = Fresh { older: arrival, ..Fresh::default() };
    }

    /// These were stored under their arrival numbers, ascending; no others were after those of the last call.
    pub fn stored(&mut self, new: Vec<(u64, Arc<Record>)>) {
        for (arrival, record) in new {
            if let Some(before) = self.arrivals.insert(record.uuid, arrival) {
                self.records.remove(&before);
            }
            if bytes(&record) > RECORD_BYTES_MAX {
                self.begin(arrival);
                continue;
            }
            self.records.insert(arrival, record);
            if self.records.len() > FRESH_MAX
                && let Some((oldest, record)) = self.records.pop_first()
            {
                self.arrivals.remove(&record.uuid);
                self.older = oldest;
            }
        }
    }

    /// The records with these arrival numbers, if they are all here; not more than `count`.
    pub fn range(
        &self,
        arrivals: RangeInclusive<u64>,
        count: usize,
    ) -> Option<impl Iterator<Item = (u64, &Arc<Record>)>> {
        let here = *arrivals.start() > self.older;
        here.then(|| self.records.range(arrivals).take(count).map(|(arrival, record)| (*arrival, record)))
    }
}

/// Bytes of a record's variable parts, or more than is kept.
fn bytes(record: &Record) -> usize {
    let clocks = [&record.clock, &record.deleted_clock, &record.value_clock];
    let dots: usize = clocks.iter().map(|clock| clock.len() * size_of::<(PeerId, u64)>()).sum();
    let text = |extra: &Option<Box<str>>| extra.as_ref().map_or(0, |extra| extra.len());
    let value = match &record.value {
        Value::Null => 0,
        Value::Json(json) => json.len(),
        Value::Entry(entry) => match &entry.content {
            EntryContent::Link(target) => target.len() + text(&entry.extra),
            EntryContent::Dir | EntryContent::File { .. } => text(&entry.extra),
        },
    };
    record.key.len() + value + text(&record.meta.extra) + dots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::author;
    use crate::index::author::Author;
    use crate::index::testing::{author as member, file};

    fn shown(fresh: &Fresh, arrivals: RangeInclusive<u64>) -> Option<Vec<u64>> {
        fresh.range(arrivals, FRESH_MAX).map(|range| range.map(|(arrival, _)| arrival).collect())
    }

    /// A record of its own.
    fn record(me: &mut Author, number: u64, key: &str) -> Record {
        let mut uuid = Uuid([0; 16]);
        uuid.0[..8].copy_from_slice(&number.to_be_bytes());
        Record { uuid, ..file(me, key, 1) }
    }

    fn stored(fresh: &mut Fresh, me: &mut Author, arrivals: RangeInclusive<u64>) {
        fresh.stored(arrivals.map(|arrival| (arrival, record(me, arrival, "/a").into())).collect());
    }

    #[test]
    fn gives_what_came_since_it_began_and_nothing_older() {
        let (mut fresh, mut me) = (Fresh::default(), member(1));
        fresh.begin(5);
        stored(&mut fresh, &mut me, 6..=8);
        assert_eq!(shown(&fresh, 6..=8), Some([6, 7, 8].into()));
        assert_eq!(shown(&fresh, 8..=8), Some([8].into()));
        assert_eq!(shown(&fresh, 5..=8), None);
        let page = fresh.range(6..=8, 2).map(|range| range.count());
        assert_eq!(page, Some(2));
    }

    #[test]
    fn a_record_that_changes_moves_to_its_new_number() {
        let (mut fresh, mut me) = (Fresh::default(), member(1));
        let record = record(&mut me, 1, "/a");
        let changed = author::delete(&mut me, &record).unwrap();
        fresh.stored([(1, record.into())].into());
        stored(&mut fresh, &mut me, 2..=2);
        fresh.stored([(3, changed.into())].into());
        assert_eq!(shown(&fresh, 1..=3), Some([2, 3].into()));
    }

    #[test]
    fn counts_at_the_limit_and_past_it() {
        let (mut fresh, mut me) = (Fresh::default(), member(1));
        let most = FRESH_MAX as u64;
        stored(&mut fresh, &mut me, 1..=most);
        assert_eq!(shown(&fresh, 1..=most).map(|all| all.len()), Some(FRESH_MAX));
        stored(&mut fresh, &mut me, most + 1..=most + 1);
        assert_eq!(shown(&fresh, 1..=most + 1), None);
        assert_eq!(shown(&fresh, 2..=most + 1).map(|all| all.len()), Some(FRESH_MAX));
        assert_eq!(fresh.arrivals.len(), FRESH_MAX);
    }

    #[test]
    fn sizes_at_the_limit_and_past_it() {
        let (mut fresh, mut me) = (Fresh::default(), member(1));
        let empty = bytes(&file(&mut me, "/", 1)) - 1;
        for (len, is_kept) in [(RECORD_BYTES_MAX - empty, true), (RECORD_BYTES_MAX - empty + 1, false)] {
            fresh.begin(0);
            stored(&mut fresh, &mut me, 1..=1);
            let long = record(&mut me, 2, &"k".repeat(len));
            fresh.stored([(2, long.into())].into());
            stored(&mut fresh, &mut me, 3..=3);
            assert_eq!(shown(&fresh, 1..=3).is_some(), is_kept);
            assert_eq!(shown(&fresh, 3..=3), Some([3].into()));
        }
    }
}
