//! Downloads that may go on after a break: sets of pieces, the stored row of each download, and those that nobody
//! wants at the moment. Never asks a peer and never touches a temp.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::files::sources::RANGE_BYTES;
use crate::ids::{RootId, Sha256, TempId};

/// Only contents larger than this are kept over a break.
pub const RESUME_BYTES_MIN: u64 = 8 << 20;
/// At most this many downloads are kept while nobody wants them; past it the one that was put away first goes.
pub const PARTIALS_MAX: usize = 64;
/// At most this many runs of pieces are stored of one download; what is beyond is fetched again.
pub const PARTIAL_RUNS_MAX: usize = 1024;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 8 + 4;
const RUN_BYTES: usize = 16;

/// How many pieces of [`RANGE_BYTES`] a content has.
pub(super) fn pieces_of(size: u64) -> u64 {
    size.div_ceil(RANGE_BYTES)
}

/// First byte and length of a piece.
pub(super) fn piece(index: u64, size: u64) -> (u64, u64) {
    let start = index.saturating_mul(RANGE_BYTES);
    (start, size.saturating_sub(start).min(RANGE_BYTES))
}

/// A set of pieces, as runs `first..end` that neither touch nor overlap. Its size is the number of gaps, not
/// that of the content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    runs: BTreeMap<u64, u64>,
}

impl Pieces {
    pub(super) fn all(count: u64) -> Pieces {
        let mut pieces = Pieces::default();
        pieces.insert_run(0, count);
        pieces
    }

    /// Everything of `count` pieces that is not in `self`.
    pub(super) fn complement(&self, count: u64) -> Pieces {
        let mut rest = Pieces::default();
        let mut at = 0;
        for (&first, &end) in &self.runs {
            rest.insert_run(at, first.min(count));
            at = end;
        }
        rest.insert_run(at, count);
        rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.runs.first_key_value().map(|(&first, _)| first)
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.runs.range(..=index).next_back().is_some_and(|(_, &end)| index < end)
    }

    pub(super) fn insert(&mut self, index: u64) {
        self.insert_run(index, index.saturating_add(1));
    }

    fn insert_run(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        while let Some((&other, &other_end)) = self.runs.range(..=end).next_back()
            && other_end >= first
        {
            self.runs.remove(&other);
            first = first.min(other);
            end = end.max(other_end);
        }
        self.runs.insert(first, end);
    }

    pub(super) fn remove(&mut self, index: u64) {
        let Some((&first, &end)) = self.runs.range(..=index).next_back() else { return };
        if index >= end {
            return;
        }
        self.runs.remove(&first);
        if first < index {
            self.runs.insert(first, index);
        }
        if index + 1 < end {
            self.runs.insert(index + 1, end);
        }
    }

    /// The bytes of these pieces of a content of this size.
    pub(super) fn bytes(&self, size: u64) -> u64 {
        let start = |index: u64| index.saturating_mul(RANGE_BYTES).min(size);
        self.runs.iter().map(|(&first, &end)| start(end) - start(first)).sum()
    }

    /// Keeps what is below `count`.
    pub(super) fn truncate(&mut self, count: u64) {
        while let Some((&first, &end)) = self.runs.last_key_value()
            && end > count
        {
            self.runs.remove(&first);
            if first < count {
                self.runs.insert(first, count);
            }
        }
    }
}

/// A download that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) temp: TempId,
    pub(super) size: u64,
    /// Pieces whose bytes are durable.
    pub(super) have: Pieces,
}

/// The key of a download's row in `Space::Partial`.
pub fn partial_key(root: RootId, sha256: &Sha256) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + Sha256::LEN);
    key.extend_from_slice(&root.0.to_be_bytes());
    key.extend_from_slice(&sha256.0);
    key
}

/// Reads [`partial_key`]; `None` for another root's key and for anything else.
pub(super) fn partial_sha(root: RootId, key: &[u8]) -> Option<Sha256> {
    Sha256::from_slice(key.strip_prefix(&root.0.to_be_bytes())?)
}

impl Partial {
    /// The stored form: version, temp, size, number of runs, runs; numbers big-endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let runs = self.have.runs.len().min(PARTIAL_RUNS_MAX);
        let mut value = Vec::with_capacity(HEAD_BYTES + runs * RUN_BYTES);
        value.push(VERSION);
        value.extend_from_slice(&self.temp.0.to_be_bytes());
        value.extend_from_slice(&self.size.to_be_bytes());
        // At most PARTIAL_RUNS_MAX, so the cast is exact.
        value.extend_from_slice(&(runs as u32).to_be_bytes());
        for (first, end) in self.have.runs.iter().take(runs) {
            value.extend_from_slice(&first.to_be_bytes());
            value.extend_from_slice(&end.to_be_bytes());
        }
        value
    }

    /// Reads the stored form; `None` for anything that [`Partial::encode`] does not write.
    pub(super) fn decode(value: &[u8]) -> Option<Partial> {
        if value.len() > HEAD_BYTES + PARTIAL_RUNS_MAX * RUN_BYTES {
            return None;
        }
        let (&version, mut rest) = value.split_first()?;
        let temp = TempId(take_u64(&mut rest)?);
        let size = take_u64(&mut rest)?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let count = u32::from_be_bytes(*count) as usize;
        if version != VERSION || rest.len() % RUN_BYTES != 0 || rest.len() / RUN_BYTES != count {
            return None;
        }
        let mut have = Pieces::default();
        let mut after = None;
        for mut run in rest.chunks_exact(RUN_BYTES) {
            let (first, end) = (take_u64(&mut run)?, take_u64(&mut run)?);
            if first >= end || end > pieces_of(size) || after.is_some_and(|after| first <= after) {
                return None;
            }
            have.insert_run(first, end);
            after = Some(end);
        }
        Some(Partial { temp, size, have })
    }
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*head))
}

/// Downloads that nobody wants at the moment.
#[derive(Debug, Default)]
pub(super) struct Parked {
    by_sha: BTreeMap<Sha256, (u64, Partial)>,
    next: u64,
}

impl Parked {
    /// Puts one away; returns what has to go for it.
    pub(super) fn put(&mut self, sha: Sha256, partial: Partial) -> Option<(Sha256, Partial)> {
        self.next += 1;
        if let Some((_, old)) = self.by_sha.insert(sha, (self.next, partial)) {
            return Some((sha, old));
        }
        if self.by_sha.len() <= PARTIALS_MAX {
            return None;
        }
        let oldest = *self.by_sha.iter().min_by_key(|(_, (order, _))| *order)?.0;
        self.by_sha.remove(&oldest).map(|(_, partial)| (oldest, partial))
    }

    pub(super) fn take(&mut self, sha: &Sha256) -> Option<Partial> {
        self.by_sha.remove(sha).map(|(_, partial)| partial)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Sha256, &Partial)> {
        self.by_sha.iter().map(|(sha, (_, partial))| (sha, partial))
    }

    pub(super) fn len(&self) -> usize {
        self.by_sha.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(indexes: &[u64]) -> Pieces {
        let mut pieces = Pieces::default();
        for &index in indexes {
            pieces.insert(index);
        }
        pieces
    }

    #[test]
    fn pieces_join_and_split() {
        let mut set = pieces(&[1, 3, 2, 7]);
        assert_eq!(set.runs.len(), 2);
        assert_eq!(set.complement(10), pieces(&[0, 4, 5, 6, 8, 9]));
        set.remove(2);
        assert_eq!(set, pieces(&[1, 3, 7]));
        set.remove(2);
        set.truncate(4);
        assert_eq!(set, pieces(&[1, 3]));
        assert!(set.contains(3) && !set.contains(2) && !set.contains(4));
        assert_eq!(Pieces::all(3), pieces(&[2, 1, 0]));
        // The last piece of a content may be a short one.
        assert_eq!(pieces(&[0, 2]).bytes(2 * RANGE_BYTES + 5), RANGE_BYTES + 5);
        assert!(Pieces::all(0).is_empty());
        assert_eq!(Pieces::all(3).complement(3), Pieces::default());
    }

    #[test]
    fn a_row_is_read_as_written_and_nothing_else_is() {
        let size = 2 * PARTIAL_RUNS_MAX as u64 * RANGE_BYTES + 5;
        let have = pieces(&[0, 1, 5, 9]);
        let partial = Partial { temp: TempId(u64::MAX), size, have };
        let value = partial.encode();
        assert_eq!(Partial::decode(&value), Some(partial.clone()));
        for cut in 0..value.len() {
            assert_eq!(Partial::decode(&value[..cut]), None);
        }
        let mut other = value.clone();
        other[0] = 2;
        assert_eq!(Partial::decode(&other), None);
        let beyond = Partial { size: 9 * RANGE_BYTES, ..partial };
        assert_eq!(Partial::decode(&beyond.encode()), None);
    }

    #[test]
    fn a_row_holds_so_many_runs_and_no_more() {
        let size = u64::MAX;
        let runs = |n: u64| pieces(&(0..n).map(|i| 2 * i).collect::<Vec<_>>());
        let max = PARTIAL_RUNS_MAX as u64;
        let at = Partial { temp: TempId(1), size, have: runs(max) };
        assert_eq!(Partial::decode(&at.encode()), Some(at.clone()));
        let past = Partial { have: runs(max + 1), ..at.clone() };
        assert_eq!(Partial::decode(&past.encode()), Some(at.clone()));
        let mut long = at.encode();
        long[20] += 1;
        long.extend_from_slice(&[0xff; 15]);
        long.push(0xff);
        assert_eq!(Partial::decode(&long), None);
    }

    #[test]
    fn so_many_are_parked_and_no_more() {
        let mut parked = Parked::default();
        let partial = |n: u64| Partial { temp: TempId(n), size: 1, have: Pieces::default() };
        let sha = |n: u8| Sha256([n; 32]);
        for n in 0..PARTIALS_MAX as u8 {
            assert_eq!(parked.put(sha(255 - n), partial(n.into())), None);
        }
        assert_eq!(parked.put(sha(0), partial(999)), Some((sha(255), partial(0))));
        assert_eq!(parked.put(sha(0), partial(1000)), Some((sha(0), partial(999))));
        assert_eq!(parked.len(), PARTIALS_MAX);
    }
}
