//! The store of a simulated machine: ordered maps, and two images of them. What a commit wrote is live at once; only
//! a part of it is durable, and a power cut keeps a legal prefix.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use clearskies_core::io::store::{Durability, Query, Row, Space, StoreDone, StoreError, StoreOp, Write};
use clearskies_core::time::Instant;

use super::rng::Rng;

/// How long a commit may stay off the disk ([`Durability::Soon`]).
pub const SOON: Duration = Duration::from_secs(5);

/// The maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>>);

impl Image {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put { space, key, value } => {
                self.0.entry(*space).or_default().insert(key.clone(), value.clone());
            }
            Write::Delete { space, key } => {
                self.0.entry(*space).or_default().remove(key);
            }
            Write::DeleteRange { space, start, end } => {
                let Some(map) = self.0.get_mut(space).filter(|_| start < end) else { return };
                let gone: Vec<Vec<u8>> =
                    map.range::<[u8], _>(between(start, end)).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| _ = map.remove(key));
            }
        }
    }

    fn query(&self, query: &Query) -> Vec<Row> {
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        let map = |space: &Space| self.0.get(space);
        match query {
            Query::Get { space, key } => {
                map(space).and_then(|map| map.get_key_value(key)).map(row).into_iter().collect()
            }
            // A range that ends before it starts holds nothing.
            Query::Range { start, end, .. } | Query::Last { start, end, .. } if start >= end => Vec::new(),
            Query::Range { space, start, end, limit } => {
                let rows = map(space).into_iter().flat_map(|map| map.range::<[u8], _>(between(start, end)));
                rows.take(*limit as usize).map(row).collect()
            }
            Query::Last { space, start, end } => map(space)
                .and_then(|map| map.range::<[u8], _>(between(start, end)).next_back())
                .map(row)
                .into_iter()
                .collect(),
        }
    }

    /// What a space holds, in the order of its keys.
    pub fn iter(&self, space: Space) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.0.get(&space).into_iter().flatten()
    }

    /// How many rows a space holds.
    pub fn rows(&self, space: Space) -> usize {
        self.0.get(&space).map_or(0, BTreeMap::len)
    }
}

/// From one key on, and before another.
fn between<'k>(start: &'k [u8], end: &'k [u8]) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    (Bound::Included(start), Bound::Excluded(end))
}

/// A machine's store.
#[derive(Debug, Default)]
pub struct SimStore {
    live: Image,
    /// As after the last power cut, or as it was put back.
    durable: Image,
    /// Commits since then, oldest first, and when they were made. They are made durable when the power goes, and not
    /// before: to most histories that never happens.
    pending: Vec<(Instant, Vec<Write>)>,
    /// How many of them no power cut loses.
    safe: usize,
    /// Commits that wrote something, since the start.
    pub commits: u64,
    /// The next operations end like this.
    pub faults: Vec<StoreError>,
}

impl SimStore {
    /// How the next operation fails, if it is to.
    pub(super) fn next_fault(&mut self) -> Option<StoreError> {
        (!self.faults.is_empty()).then(|| self.faults.remove(0))
    }

    /// Carries out one operation.
    pub fn execute(&mut self, now: Instant, op: StoreOp) -> Result<StoreDone, StoreError> {
        if let Some(error) = self.next_fault() {
            return Err(error);
        }
        match op {
            StoreOp::Load { queries } => {
                Ok(StoreDone::Loaded(queries.iter().map(|query| self.live.query(query)).collect()))
            }
            StoreOp::Commit { writes, durability } => {
                self.commits += u64::from(!writes.is_empty());
                writes.iter().for_each(|write| self.live.apply(write));
                self.pending.push((now, writes));
                if durability == Durability::Now {
                    self.safe = self.pending.len();
                }
                Ok(StoreDone::Committed)
            }
        }
    }

    /// What is older than [`SOON`] has reached the disk.
    fn settle(&mut self, now: Instant) {
        let rest = self.pending[self.safe..].iter();
        self.safe += rest.take_while(|(made, _)| now.since(*made) >= SOON).count();
    }

    fn flush(&mut self, count: usize) {
        for (_, writes) in self.pending.drain(..count) {
            writes.iter().for_each(|write| self.durable.apply(write));
        }
    }

    /// The program ended in good order: all of it is on the disk.
    pub fn close(&mut self) {
        self.safe = self.pending.len();
    }

    /// The power goes: some number of the newest commits that nobody waited for is lost. Whether any was.
    pub fn power_cut(&mut self, now: Instant, rng: &mut Rng) -> bool {
        self.settle(now);
        let pending = self.pending.len() - self.safe;
        let kept = usize::try_from(rng.below(pending as u64 + 1)).expect("no more than a length");
        self.flush(self.safe + kept);
        self.pending.clear();
        self.safe = 0;
        let lost = kept < pending;
        if lost {
            self.live = self.durable.clone();
        }
        lost
    }

    /// The maps as a user's backup would hold them.
    pub fn backup(&self) -> Image {
        self.live.clone()
    }

    /// Puts a backup in the place of the store; an empty one wipes it.
    pub fn put_back(&mut self, image: Image) {
        self.live = image.clone();
        self.durable = image;
        self.pending.clear();
        self.safe = 0;
    }

    /// The maps as they are now.
    pub fn live(&self) -> &Image {
        &self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Write {
        Write::Put { space: Space::Meta, key: key.into(), value: value.into() }
    }

    fn commit(store: &mut SimStore, at: u64, durability: Durability, writes: Vec<Write>) {
        let op = StoreOp::Commit { writes, durability };
        assert_eq!(store.execute(Instant(at), op), Ok(StoreDone::Committed));
    }

    fn load(store: &mut SimStore, query: Query) -> Vec<(String, String)> {
        let done = store.execute(Instant(0), StoreOp::Load { queries: vec![query] }).unwrap();
        let StoreDone::Loaded(rows) = done else { panic!("not an answer to a load") };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        rows.into_iter().flatten().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn range(start: &str, end: &str, limit: u32) -> Query {
        Query::Range { space: Space::Meta, start: start.into(), end: end.into(), limit }
    }

    #[test]
    fn queries_see_every_commit_before_them() {
        let mut store = SimStore::default();
        commit(
            &mut store,
            0,
            Durability::Soon,
            vec![put("a", "1"), put("b", "2"), put("c", "3"), put("a", "4")],
        );
        assert_eq!(
            load(&mut store, range("a", "c", 9)),
            [("a".into(), "4".into()), ("b".into(), "2".into())]
        );
        assert_eq!(load(&mut store, range("a", "z", 1)), [("a".into(), "4".into())]);
        assert_eq!(load(&mut store, range("z", "a", 9)), []);
        let last = Query::Last { space: Space::Meta, start: "a".into(), end: "c".into() };
        assert_eq!(load(&mut store, last), [("b".into(), "2".into())]);
        let gone = Write::DeleteRange { space: Space::Meta, start: "a".into(), end: "c".into() };
        commit(&mut store, 0, Durability::Soon, vec![gone]);
        assert_eq!(load(&mut store, range("", "z", 9)), [("c".into(), "3".into())]);
        assert_eq!(load(&mut store, Query::Get { space: Space::Record, key: "c".into() }), []);
    }

    #[test]
    fn a_power_cut_keeps_a_prefix() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut store = SimStore::default();
            commit(&mut store, 0, Durability::Soon, vec![put("a", "1")]);
            commit(&mut store, 1, Durability::Now, vec![put("b", "2")]);
            commit(&mut store, 2, Durability::Soon, vec![put("c", "3")]);
            commit(&mut store, 3, Durability::Soon, vec![put("d", "4"), put("e", "5")]);
            store.power_cut(Instant(4), &mut Rng::new(seed));
            let kept: String = load(&mut store, range("", "z", 9)).into_iter().map(|(key, _)| key).collect();
            assert!(["ab", "abc", "abcde"].contains(&kept.as_str()), "{kept}");
            lost += usize::from(kept == "ab");
        }
        assert!(lost > 0 && lost < 50);
    }

    #[test]
    fn five_seconds_are_safe() {
        let mut store = SimStore::default();
        commit(&mut store, 0, Durability::Soon, vec![put("a", "1")]);
        let later = Instant(0).plus(SOON);
        assert!(!store.power_cut(later, &mut Rng::new(1)));
        assert_eq!(load(&mut store, range("", "z", 9)).len(), 1);
    }

    #[test]
    fn a_failed_commit_leaves_nothing() {
        let mut store = SimStore { faults: vec![StoreError::NoSpace], ..SimStore::default() };
        let op = StoreOp::Commit { writes: vec![put("a", "1")], durability: Durability::Now };
        assert_eq!(store.execute(Instant(0), op), Err(StoreError::NoSpace));
        assert_eq!(store.live().rows(Space::Meta), 0);
    }
}
