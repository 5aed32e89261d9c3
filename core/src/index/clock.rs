//! Vector clocks: which changes a version has seen. Knows nothing of times or values.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::ids::PeerId;

/// The most peers that a clock may name on the wire (protocol §7).
pub const PEERS_MAX: usize = 4096;

/// The largest revision; each is below 2^62 (protocol §7).
pub const REV_MAX: u64 = (1 << 62) - 1;

/// Peer → revision; a missing entry is 0. Sorted by peer, without zeros, so equal clocks are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clock(Vec<(PeerId, u64)>);

impl Clock {
    /// The empty clock, which has seen nothing.
    pub const fn new() -> Clock {
        Clock(Vec::new())
    }

    /// The clock that has seen one peer's changes up to `rev`.
    pub fn of(peer: PeerId, rev: u64) -> Clock {
        let mut clock = Clock::new();
        clock.set(peer, rev);
        clock
    }

    /// Takes entries as they are if they are a clock that may travel: strictly ascending peers, at most
    /// [`PEERS_MAX`], each revision within 1..=[`REV_MAX`].
    pub fn from_sorted(pairs: Vec<(PeerId, u64)>) -> Option<Clock> {
        let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0);
        let sane = pairs.len() <= PEERS_MAX && pairs.iter().all(|&(_, rev)| (1..=REV_MAX).contains(&rev));
        (sorted && sane).then_some(Clock(pairs))
    }

    /// As [`Clock::from_sorted`], from entries in any order; a peer named twice is refused.
    pub fn from_pairs(mut pairs: Vec<(PeerId, u64)>) -> Option<Clock> {
        if !pairs.is_sorted_by_key(|&(peer, _)| peer) {
            pairs.sort_unstable_by_key(|&(peer, _)| peer);
        }
        Clock::from_sorted(pairs)
    }

    /// Takes entries that are strictly ascending and without zeros, however many.
    pub(crate) fn from_stored(pairs: Vec<(PeerId, u64)>) -> Option<Clock> {
        let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0);
        (sorted && pairs.iter().all(|&(_, rev)| rev != 0)).then_some(Clock(pairs))
    }

    /// The revision up to which this clock has seen `peer`; 0 if it saw nothing.
    pub fn get(&self, peer: PeerId) -> u64 {
        self.find(peer).map_or(0, |at| self.0[at].1)
    }

    /// Sets one entry, up or down; 0 removes it.
    pub fn set(&mut self, peer: PeerId, rev: u64) {
        match (self.find(peer), rev) {
            (Ok(at), 0) => {
                self.0.remove(at);
            }
            (Ok(at), rev) => self.0[at].1 = rev,
            (Err(_), 0) => {}
            (Err(at), rev) => self.0.insert(at, (peer, rev)),
        }
    }

    /// Raises each entry to that of `other` where that is larger.
    pub fn join(&mut self, other: &Clock) {
        if self.covers(other) {
            return;
        }
        if self.0.is_empty() {
            self.0.extend_from_slice(&other.0);
            return;
        }
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        while let (Some((&x, a_rest)), Some((&y, b_rest))) = (a.split_first(), b.split_first()) {
            let order = x.0.cmp(&y.0);
            all.push(match order {
                Ordering::Less => x,
                Ordering::Greater => y,
                Ordering::Equal => (x.0, x.1.max(y.1)),
            });
            if order.is_le() {
                a = a_rest;
            }
            if order.is_ge() {
                b = b_rest;
            }
        }
        all.extend_from_slice(a);
        all.extend_from_slice(b);
        self.0 = all;
    }

    /// The entry-wise maximum of two clocks.
    pub fn joined(&self, other: &Clock) -> Clock {
        let mut all = self.clone();
        all.join(other);
        all
    }

    /// Whether `other ≤ self`: everything that `other` has seen, this has seen too.
    pub fn covers(&self, other: &Clock) -> bool {
        if other.0.len() > self.0.len() {
            return false;
        }
        // A record's few entries against knowledge of thousands: looking each up beats walking both.
        if other.0.len() < self.0.len() / 16 {
            return other.0.iter().all(|&(peer, rev)| self.covers_dot(peer, rev));
        }
        let mut mine = self.0.iter();
        other.0.iter().all(|&(peer, rev)| {
            mine.by_ref().find(|m| m.0 >= peer).is_some_and(|m| m.0 == peer && m.1 >= rev)
        })
    }

    /// Whether this clock has seen the change that `peer` made in revision `rev`.
    pub fn covers_dot(&self, peer: PeerId, rev: u64) -> bool {
        self.get(peer) >= rev
    }

    /// Whether neither clock covers the other.
    pub fn concurrent(&self, other: &Clock) -> bool {
        !self.covers(other) && !other.covers(self)
    }

    /// The entries, ascending by peer; no revision is 0.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PeerId, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many peers it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has seen nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it may travel: at most [`PEERS_MAX`] peers. A join of two clocks that fit need not fit.
    pub fn fits(&self) -> bool {
        self.0.len() <= PEERS_MAX
    }

    /// A total order without meaning, for ties: entry by entry, peer before revision, the shorter first.
    pub(crate) fn order(&self, other: &Clock) -> Ordering {
        self.0.cmp(&other.0)
    }

    fn find(&self, peer: PeerId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&peer, |&(p, _)| p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{clock, peer};
    use proptest::prelude::*;

    #[test]
    fn entries_are_kept_sorted_and_without_zeros() {
        let mut c = Clock::new();
        c.set(peer(2), 5);
        c.set(peer(1), 3);
        c.set(peer(3), 0);
        assert_eq!(c.iter().collect::<Vec<_>>(), [(peer(1), 3), (peer(2), 5)]);
        assert_eq!((c.get(peer(1)), c.get(peer(9))), (3, 0));
        c.set(peer(1), 0);
        assert_eq!(c, Clock::of(peer(2), 5));
        assert!(c.covers_dot(peer(2), 5) && !c.covers_dot(peer(2), 6));
    }

    #[test]
    fn pairs_are_checked() {
        assert!(Clock::from_sorted(alloc::vec![(peer(1), 1), (peer(2), REV_MAX)]).is_some());
        assert!(Clock::from_sorted(alloc::vec![(peer(2), 1), (peer(1), 1)]).is_none());
        assert!(Clock::from_pairs(alloc::vec![(peer(2), 1), (peer(1), 1)]).is_some());
        assert!(Clock::from_pairs(alloc::vec![(peer(1), 1), (peer(1), 1)]).is_none());
        assert!(Clock::from_sorted(alloc::vec![(peer(1), 0)]).is_none());
        assert!(Clock::from_sorted(alloc::vec![(peer(1), REV_MAX + 1)]).is_none());
    }

    #[test]
    fn peers_at_the_limit_and_past_it() {
        let pairs = |n: usize| (0..n).map(|i| (crate::index::testing::nth_peer(i), 1)).collect::<Vec<_>>();
        let full = Clock::from_sorted(pairs(PEERS_MAX)).unwrap();
        assert!(full.fits());
        assert!(Clock::from_sorted(pairs(PEERS_MAX + 1)).is_none());
        let over = Clock::from_stored(pairs(PEERS_MAX + 1)).unwrap();
        assert!(!over.fits() && over.covers(&full) && !full.covers(&over));
    }

    proptest! {
        #[test]
        fn join_is_the_least_clock_that_covers_both(a in clock(), b in clock(), c in clock()) {
            let j = a.joined(&b);
            prop_assert!(j.covers(&a) && j.covers(&b));
            prop_assert_eq!(&j, &b.joined(&a));
            prop_assert_eq!(j.joined(&c), a.joined(&b.joined(&c)));
            for (p, rev) in j.iter() {
                prop_assert_eq!(rev, a.get(p).max(b.get(p)));
            }
            prop_assert_eq!(a.covers(&b), b.iter().all(|(p, rev)| a.get(p) >= rev));
            prop_assert_eq!(a.concurrent(&b), j != a && j != b);
        }

        #[test]
        fn few_entries_against_many(extra in 40usize..200, b in clock()) {
            let pairs = (0..extra).map(|i| (crate::index::testing::nth_peer(i), 2)).collect();
            let mut a = Clock::from_sorted(pairs).unwrap();
            prop_assert_eq!(a.covers(&b), b.iter().all(|(p, rev)| a.get(p) >= rev));
            a.join(&b);
            prop_assert!(a.covers(&b));
        }
    }
}
