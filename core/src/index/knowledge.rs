//! Knowledge: how far this database holds what each peer wrote (protocol §7 "Knowledge"). Says what raises it and
//! what it spares others to send; which records those are is found elsewhere.

use alloc::vec::Vec;

use crate::ids::PeerId;
use crate::index::clock::Clock;
use crate::index::record::Record;

/// From how many peers a word is kept that does not raise knowledge (protocol §7, rule 3).
pub const HEARSAY_PEERS_MAX: usize = 64;

/// The vector K: for every version written by p at revision ≤ K\[p\], this database holds it, or one whose clock
/// covers it. Stored in one transaction with the records that it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge(Clock);

impl Knowledge {
    /// Knowledge as it was stored.
    pub const fn from_clock(clock: Clock) -> Knowledge {
        Knowledge(clock)
    }

    /// The vector, as it travels.
    pub const fn clock(&self) -> &Clock {
        &self.0
    }

    /// Everything of `peer` up to `rev` is held: after own changes that are committed as one. Never lowers.
    pub fn raise(&mut self, peer: PeerId, rev: u64) {
        if !self.0.covers_dot(peer, rev) {
            self.0.set(peer, rev);
        }
    }

    /// K = max(K, K'): the word of a trusted peer, all before it applied and stored (rule 3). Returns whether K grew.
    /// A word that would make K unfit to travel is not taken, which costs resends and nothing else.
    pub fn max(&mut self, other: &Clock) -> bool {
        if self.0.covers(other) {
            return false;
        }
        let joined = self.0.joined(other);
        let fits = joined.fits();
        if fits {
            self.0 = joined;
        }
        fits
    }

    /// Whether everything that the record has seen is held: only then a peer judges conflicts and absences by it.
    pub fn covers(&self, record: &Record) -> bool {
        self.0.covers(&record.clock)
    }

    /// What an ID wrote may be lost: it counts as never heard (protocol §7 "Revisions", case c).
    pub fn forget(&mut self, peer: PeerId) {
        self.0.set(peer, 0);
    }
}

/// Whether a peer that declared `since` lacks something of a record with this clock (rule 2).
pub fn needs(record_clock: &Clock, since: &Clock) -> bool {
    !since.covers(record_clock)
}

/// Where a cut answer goes on: the last arrival number of a store that the asker has stored (rule 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Names the answering store; another one numbers its arrivals in another order.
    pub token: [u8; 16],
    /// The arrival number there.
    pub arrival: u64,
}

/// Whether the sender of a `database.current` or `database.knowledge` is believed (rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The link is at read_write, or the sender has proven itself a writer on it: its word raises K.
    Trusted,
    /// Its word serves only as `since` toward itself.
    Hearsay,
}

/// What peers said that are not believed: kept per proven peer ID, never passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearsay(Vec<(PeerId, Clock)>);

impl Hearsay {
    /// Keeps what `peer` said it knows; with [`HEARSAY_PEERS_MAX`] peers the one longest unheard is dropped.
    pub fn hear(&mut self, peer: PeerId, word: &Clock) {
        let mut known = match self.0.iter().position(|(p, _)| *p == peer) {
            Some(at) => self.0.remove(at).1,
            None => Clock::new(),
        };
        if self.0.len() == HEARSAY_PEERS_MAX {
            self.0.remove(0);
        }
        known.join(word);
        self.0.push((peer, if known.fits() { known } else { word.clone() }));
    }

    /// The `since` of a `database.get_updates` toward `peer`: what is known, and what this peer said it gave.
    pub fn since(&self, own: &Knowledge, peer: PeerId) -> Clock {
        let heard = self.0.iter().find(|(p, _)| *p == peer);
        let since = heard.map_or_else(Clock::new, |(_, word)| own.clock().joined(word));
        if since.is_empty() || !since.fits() { own.clock().clone() } else { since }
    }

    /// What each peer said, the longest unheard first; to be stored.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PeerId, &Clock)> {
        self.0.iter().map(|(peer, word)| (*peer, word))
    }

    /// Forgets what was heard of one author: as [`Knowledge::forget`].
    pub fn forget(&mut self, author: PeerId) {
        for (_, word) in &mut self.0 {
            word.set(author, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::clock::PEERS_MAX;
    use crate::index::testing::{author, clock, file, nth_peer, peer};
    use proptest::prelude::*;

    #[test]
    fn knowledge_rises_and_is_forgotten() {
        let mut k = Knowledge::default();
        k.raise(peer(1), 5);
        k.raise(peer(1), 3);
        assert_eq!(k.clock(), &Clock::of(peer(1), 5));
        assert!(!k.max(&Clock::of(peer(1), 5)) && k.max(&Clock::of(peer(2), 1)));
        let record = file(&mut author(1), "/a", 1);
        assert!(k.covers(&record) && !needs(&record.clock, k.clock()));
        k.forget(peer(1));
        assert!(!k.covers(&record) && needs(&record.clock, k.clock()));
    }

    #[test]
    fn knowledge_stays_fit_to_travel() {
        let many = |n| Clock::from_stored((0..n).map(|i| (nth_peer(i), 1)).collect()).unwrap();
        let mut k = Knowledge::default();
        assert!(k.max(&many(PEERS_MAX)));
        assert!(!k.max(&Clock::of(peer(9), 1)));
        assert!(k.clock().fits());
    }

    #[test]
    fn hearsay_serves_toward_its_speaker_alone_and_is_bounded() {
        let own = Knowledge::from_clock(Clock::of(peer(1), 1));
        let mut heard = Hearsay::default();
        for i in 0..HEARSAY_PEERS_MAX {
            heard.hear(nth_peer(i), &Clock::of(peer(2), 1));
        }
        heard.hear(nth_peer(0), &Clock::of(peer(3), 1));
        assert_eq!(heard.since(&own, nth_peer(0)).len(), 3);
        assert_eq!(heard.since(&own, peer(9)), *own.clock());
        heard.hear(peer(9), &Clock::of(peer(3), 1));
        assert_eq!(heard.iter().len(), HEARSAY_PEERS_MAX);
        assert_eq!(heard.since(&own, nth_peer(1)), *own.clock());
        assert_eq!(heard.since(&own, nth_peer(0)).len(), 3);
        heard.forget(peer(3));
        assert_eq!(heard.since(&own, nth_peer(0)).len(), 2);
    }

    proptest! {
        #[test]
        fn needs_is_an_entry_beyond_since(record in clock(), since in clock()) {
            let beyond = record.iter().any(|(p, rev)| rev > since.get(p));
            prop_assert_eq!(needs(&record, &since), beyond);
        }
    }
}
