//! Whether peers that know the same hold the same. Revisions that a copied or restored home gave twice leave two peers
//! with different records for one number; neither misses any, by what they know. Once all is quiet each says the sum of
//! what it holds, and where the sums differ both ask for all once more (protocol §7, Knowledge).

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{Ctx, Share};
use crate::ids::PeerId;
use crate::index::clock::Clock;
use crate::index::digest::Digest;
use crate::time::Instant;
use crate::wire::database::DatabaseMessage;
use crate::wire::message::Message;

/// A sum is said once it was the same for so long: while changes come it would be wrong at once.
const QUIET: Duration = Duration::from_secs(5);
/// A peer is asked for all once more no sooner than after this time.
const ANEW_AFTER: Duration = Duration::from_secs(3600);
/// So many peers that were asked are remembered.
const ANEW_MAX: usize = 64;

/// The sums of one link.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Ours as the peer was told last.
    told: Option<Digest>,
    /// Ours as it is to be told, and when.
    due: Option<(Digest, Instant)>,
    /// The peer's, if nothing came from it since.
    theirs: Option<Digest>,
    /// When it may be asked for all, as its sum is another and it was asked not long ago.
    again_at: Option<Instant>,
}

impl Sums {
    /// The peer said its sum.
    pub(super) fn said(&mut self, digest: Digest) {
        self.theirs = Some(digest);
    }

    /// Something came from the peer that changes its sum, or what it goes with.
    pub(super) fn more_came(&mut self) {
        self.theirs = None;
    }

    /// The peer is told something that makes it forget our sum.
    pub(super) fn tell_again(&mut self) {
        self.told = None;
    }

    /// Our own sum, if it is to be told now; the peer has all that it is about.
    fn take_due(&mut self, ours: Digest, now: Instant) -> Option<Digest> {
        if self.told == Some(ours) {
            self.due = None;
            return None;
        }
        let at = match self.due {
            Some((digest, at)) if digest == ours => at,
            _ => now.plus(QUIET),
        };
        if at > now {
            self.due = Some((ours, at));
            return None;
        }
        (self.due, self.told) = (None, Some(ours));
        Some(ours)
    }
}

impl Share {
    /// Tells each peer that has all our sum, and compares with it what it told.
    pub(super) fn compare_sums(&mut self, ctx: &mut Ctx<'_>) {
        let Some(ours) = self.progress.totals.digest.filter(|_| self.pipeline.is_idle()) else { return };
        let now = ctx.now.mono;
        let (knowledge, head) = (&self.progress.knowledge, self.progress.arrival);
        for (&conn, link) in &mut self.links {
            let even = link.caught_up && link.queued == 0 && link.feed.is_even(knowledge, head);
            link.sums.again_at = None;
            if !even {
                link.sums.due = None;
                continue;
            }
            if let Some(digest) = link.sums.take_due(ours, now) {
                ctx.links.send(conn, &Message::Database(DatabaseMessage::Digest { digest }));
            }
            let knows_same = link.knowledge.as_ref() == Some(knowledge);
            if link.sums.theirs.filter(|_| knows_same).is_none_or(|theirs| theirs == ours) {
                continue;
            }
            if may_ask(&mut self.asked_anew, link.peer, now) {
                link.sums.theirs = None;
                log::warn!(
                    "{}: {} has other records of the same numbers. All are compared.",
                    self.folder.path,
                    super::shown_name(&self.names, link.peer)
                );
                link.caught_up = false;
                let all = DatabaseMessage::GetUpdates { since: Clock::new(), resume: None };
                ctx.links.send(conn, &Message::Database(all));
            } else {
                let asked = self.asked_anew.get(&link.peer);
                link.sums.again_at = asked.map(|asked| asked.plus(ANEW_AFTER));
            }
        }
    }

    /// When a sum is to be told, or a peer asked that has another.
    pub(super) fn sums_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter(|_| self.pipeline.is_idle());
        let due = |sums: &Sums| sums.due.map(|(_, at)| at).into_iter().chain(sums.again_at).min();
        links.filter_map(|link| due(&link.sums)).min()
    }
}

/// Whether a peer may be asked for all once more; if so, that is noted.
fn may_ask(asked: &mut BTreeMap<PeerId, Instant>, peer: PeerId, now: Instant) -> bool {
    asked.retain(|_, at| now.since(*at) < ANEW_AFTER);
    if asked.contains_key(&peer) || asked.len() >= ANEW_MAX {
        return false;
    }
    asked.insert(peer, now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(0).plus(Duration::from_secs(seconds))
    }

    fn sum(byte: u8) -> Digest {
        Digest::from_bytes([byte; 16])
    }

    #[test]
    fn a_sum_is_told_once_and_only_after_quiet() {
        let mut sums = Sums::default();
        assert_eq!(sums.take_due(sum(1), at(0)), None);
        assert_eq!(sums.take_due(sum(1), at(4)), None);
        assert_eq!(sums.take_due(sum(2), at(5)), None, "it changed");
        assert_eq!(sums.take_due(sum(2), at(9)), None);
        assert_eq!(sums.take_due(sum(2), at(10)), Some(sum(2)));
        assert_eq!((sums.take_due(sum(2), at(100)), sums.due), (None, None), "once");
        assert_eq!(sums.take_due(sum(3), at(100)), None);
        assert_eq!((sums.take_due(sum(2), at(104)), sums.due), (None, None), "it was told that");
    }

    #[test]
    fn all_is_asked_for_once_an_hour_and_of_so_many_peers() {
        let mut asked = BTreeMap::new();
        let peer = |number: usize| PeerId([u8::try_from(number).unwrap(); 16]);
        assert!((0..ANEW_MAX).all(|number| may_ask(&mut asked, peer(number), at(0))));
        assert!(!may_ask(&mut asked, peer(ANEW_MAX), at(0)), "one more");
        assert!(!may_ask(&mut asked, peer(0), at(3599)));
        assert!(may_ask(&mut asked, peer(0), at(3600)) && asked.len() == 1);
    }
}
