//! What one link's peer has been sent and is still to be sent (protocol §7 "Knowledge", rules 2 and 4). Bookkeeping
//! alone: the engine loads the records and owns the stored knowledge.
//!
//! Everything here goes by arrival numbers: each record stands in the store under the number of its last change, and
//! one that changes moves to the end. So an answer that goes on to the end of the store skips none.

use alloc::vec::Vec;

use crate::ids::PeerId;
use crate::index::clock::Clock;
use crate::index::knowledge::{Resume, needs};
use crate::index::record::Record;

/// How many ranges of a link's own records are remembered; what is forgotten is sent back once, harmlessly.
pub const SKIP_RANGES_MAX: usize = 256;

/// The arrival number of the first record of a store.
pub const ARRIVAL_FIRST: u64 = 1;

/// The state of one link. `head` is always the arrival number of the last committed record, 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFeed {
    /// `None` until the peer has asked.
    asked: Option<Asked>,
    /// Inclusive ranges, ascending, apart from each other by more than one, none before the cursor.
    skip: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// What the peer needs no records about.
    since: Clock,
    /// The next arrival number to look at.
    next: u64,
    /// What `database.current` will say, until it was said.
    current: Option<Clock>,
    /// What the peer was last told that this side knows.
    told: Clock,
    /// The peer, and its newest revision that is known on both sides, as far as each says; 0 for none.
    last: (PeerId, u64),
    /// Whether it asked anew on this link: then what it knows shortens the answer in nothing. It asks so because its
    /// records of the same numbers are others.
    again: bool,
    /// What it said meanwhile that it knows: all of that counts once it was answered.
    said: Clock,
}

impl Asked {
    /// Whether the record has the peer's own newest change, or one after that: an answer shows it to the peer, to whom
    /// it is news if somebody else made it under the same identity.
    fn names_last(&self, record: &Record) -> bool {
        let (peer, rev) = self.last;
        rev > 0 && self.current.is_some() && record.clock.get(peer) >= rev
    }
}

impl LinkFeed {
    /// The feed of a new link.
    pub fn new() -> LinkFeed {
        LinkFeed::default()
    }

    /// This peer sent `database.get_updates`. `own_token` names this store, `knowledge` is what it knows now.
    /// Asking again begins anew: whoever does so has lost what it held.
    pub fn subscribe(
        &mut self,
        peer: PeerId,
        since: Clock,
        resume: Option<Resume>,
        own_token: [u8; 16],
        head: u64,
        knowledge: &Clock,
    ) {
        let again = self.asked.is_some();
        if again {
            self.skip.clear();
        }
        let next = match resume {
            Some(at) if at.token == own_token && at.arrival <= head => at.arrival.saturating_add(1),
            _ => ARRIVAL_FIRST,
        };
        let last = (peer, since.get(peer).min(knowledge.get(peer)));
        self.asked = Some(Asked {
            since,
            next,
            current: Some(knowledge.clone()),
            told: Clock::new(),
            last,
            again,
            said: Clock::new(),
        });
        self.pass(next);
    }

    /// Whether the peer is subscribed.
    pub fn subscribed(&self) -> bool {
        self.asked.is_some()
    }

    /// The peer said what it knows, in `database.current` or `database.knowledge`: that need not be sent to it. Its
    /// word is believed about itself, whatever the link. Of its own changes an answer shows it all that it asked for:
    /// their numbers may have been given twice, and it is to see what the first ones were for.
    pub fn peer_knows(&mut self, knowledge: &Clock) {
        if let Some(asked) = &mut self.asked {
            let mut since = asked.since.joined(knowledge);
            if asked.current.is_some() {
                let said = asked.said.joined(knowledge);
                if said.fits() {
                    asked.said = said;
                }
                if asked.again {
                    return;
                }
                let (peer, _) = asked.last;
                since.set(peer, asked.since.get(peer));
            }
            if since.fits() {
                asked.since = since;
            }
        }
    }

    /// The arrival number from which records are to be loaded and offered, or `None` when all up to `head` were.
    pub fn wants_more(&self, head: u64) -> Option<u64> {
        self.asked.as_ref().map(|asked| asked.next).filter(|next| *next <= head)
    }

    /// Whether this record is to be sent. Does not move the cursor.
    pub fn offer(&self, arrival: u64, record: &Record) -> bool {
        let Some(asked) = &self.asked else { return false };
        let wanted = needs(&record.clock, &asked.since) || asked.names_last(record);
        arrival >= asked.next && !self.skips(arrival) && wanted
    }

    /// Every record up to the arrival number `to` was offered, and sent if wanted.
    pub fn advance(&mut self, to: u64) {
        self.pass(to.saturating_add(1));
    }

    /// The record stored under this arrival number came over this link just as it was stored: it needs no echo. Not
    /// to be called when the stored join differs from what the peer sent.
    pub fn note_from_link(&mut self, arrival: u64) {
        if self.asked.as_ref().is_some_and(|asked| arrival < asked.next) {
            return;
        }
        let at = self.skip.partition_point(|range| range.0 <= arrival);
        let joins_before = at > 0 && self.skip[at - 1].1.saturating_add(1) >= arrival;
        let joins_after = self.skip.get(at).is_some_and(|range| range.0 == arrival.saturating_add(1));
        match (joins_before, joins_after) {
            (true, true) => self.skip[at - 1].1 = self.skip.remove(at).1,
            (true, false) => self.skip[at - 1].1 = self.skip[at - 1].1.max(arrival),
            (false, true) => self.skip[at].0 = arrival,
            (false, false) => self.skip.insert(at, (arrival, arrival)),
        }
        if self.skip.len() > SKIP_RANGES_MAX {
            self.skip.remove(0);
        }
        if let Some(asked) = &self.asked {
            self.pass(asked.next);
        }
    }

    /// The knowledge for `database.current`, once: when every record up to `head` was sent. It is what was known
    /// when the answer began; records that moved to the end meanwhile were sent before it, as `head` is now.
    pub fn take_current(&mut self, head: u64) -> Option<Clock> {
        let asked = self.asked.as_mut().filter(|asked| asked.next > head)?;
        let current = asked.current.take()?;
        let since = asked.since.joined(&core::mem::take(&mut asked.said));
        if since.fits() {
            asked.since = since;
        }
        asked.told.clone_from(&current);
        Some(current)
    }

    /// The knowledge for `database.knowledge`: when `knowledge` has grown beyond what the peer was told, after
    /// `database.current`, and when every record up to `head` was sent. `knowledge` and `head` are of one commit.
    pub fn take_knowledge(&mut self, knowledge: &Clock, head: u64) -> Option<Clock> {
        let asked = self.asked.as_mut().filter(|asked| asked.next > head && asked.current.is_none())?;
        if asked.told.covers(knowledge) {
            return None;
        }
        asked.told.clone_from(knowledge);
        Some(knowledge.clone())
    }

    /// Whether the peer was sent every record up to `head`, and told all of `knowledge`.
    pub fn is_even(&self, knowledge: &Clock, head: u64) -> bool {
        let told =
            |asked: &Asked| asked.next > head && asked.current.is_none() && asked.told.covers(knowledge);
        self.asked.as_ref().is_some_and(told)
    }

    fn skips(&self, arrival: u64) -> bool {
        let at = self.skip.partition_point(|range| range.0 <= arrival);
        at > 0 && self.skip[at - 1].1 >= arrival
    }

    /// Moves the cursor to `next`, never back, and over ranges that need no echo.
    fn pass(&mut self, next: u64) {
        let Some(asked) = &mut self.asked else { return };
        asked.next = asked.next.max(next);
        let mut passed = 0;
        for &(first, last) in &self.skip {
            if first > asked.next {
                break;
            }
            asked.next = asked.next.max(last.saturating_add(1));
            passed += 1;
        }
        self.skip.drain(..passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{author, file, peer};
    use proptest::prelude::*;

    const OWN: [u8; 16] = [5; 16];

    fn k(rev: u64) -> Clock {
        Clock::of(peer(1), rev)
    }

    fn asked(since: Clock, head: u64, knowledge: &Clock) -> LinkFeed {
        let mut feed = LinkFeed::new();
        feed.subscribe(peer(9), since, None, OWN, head, knowledge);
        feed
    }

    #[test]
    fn an_answer_goes_to_the_end_then_says_what_was_known_when_it_began() {
        let mut feed = LinkFeed::new();
        assert_eq!((feed.wants_more(9), feed.take_current(0), feed.subscribed()), (None, None, false));
        feed.subscribe(peer(9), Clock::new(), None, OWN, 3, &k(3));
        assert!(feed.subscribed());
        assert_eq!(feed.wants_more(3), Some(1));
        assert_eq!(feed.take_current(3), None);
        feed.advance(3);
        // A record moved to the end meanwhile: it goes first.
        assert_eq!((feed.take_current(4), feed.wants_more(4)), (None, Some(4)));
        feed.advance(4);
        assert_eq!(feed.take_knowledge(&k(4), 4), None, "never before current");
        assert_eq!(feed.take_current(4), Some(k(3)));
        assert_eq!(feed.take_current(4), None);
        assert_eq!(feed.take_knowledge(&k(4), 4), Some(k(4)));
        assert_eq!(feed.take_knowledge(&k(4), 4), None);
        assert_eq!(feed.take_knowledge(&k(5), 5), None, "the record goes first");
        feed.advance(5);
        assert_eq!(feed.take_knowledge(&k(5), 5), Some(k(5)));
    }

    #[test]
    fn who_asks_anew_is_shown_all_whatever_it_says_it_knows() {
        let mut me = author(1);
        let a = file(&mut me, "/a", 1);
        let mut feed = asked(Clock::new(), 1, &k(1));
        feed.peer_knows(&k(1));
        assert!(!feed.offer(1, &a), "it has it meanwhile");
        feed.subscribe(peer(9), Clock::new(), None, OWN, 1, &k(1));
        feed.peer_knows(&k(1));
        assert!(feed.offer(1, &a), "perhaps another one of that number");
        feed.advance(1);
        assert_eq!(feed.take_current(1), Some(k(1)));
        assert!(!feed.offer(2, &a), "once it was answered its word counts");
    }

    #[test]
    fn an_empty_store_is_current_at_once() {
        let mut feed = asked(Clock::new(), 0, &Clock::new());
        assert_eq!(feed.wants_more(0), None);
        assert_eq!(feed.take_current(0), Some(Clock::new()));
        assert_eq!(feed.take_knowledge(&Clock::new(), 0), None);
    }

    #[test]
    fn a_cut_answer_goes_on_in_the_same_store_only() {
        for (token, arrival, from) in
            [(OWN, 5, 6), (OWN, 9, 10), (OWN, 10, 1), ([6; 16], 5, 1), (OWN, u64::MAX, 1)]
        {
            let mut feed = LinkFeed::new();
            feed.subscribe(peer(9), Clock::new(), Some(Resume { token, arrival }), OWN, 9, &k(1));
            assert_eq!(feed.wants_more(9), (from <= 9).then_some(from));
        }
    }

    #[test]
    fn what_is_known_or_came_from_the_link_is_not_sent() {
        let mut me = author(1);
        let (a, b) = (file(&mut me, "/a", 1), file(&mut me, "/b", 2));
        let mut feed = asked(k(1), 5, &k(2));
        assert!(!feed.offer(1, &a) && feed.offer(2, &b));
        feed.note_from_link(2);
        assert!(!feed.offer(2, &b) && feed.offer(3, &b));
        feed.peer_knows(&k(2));
        assert!(!feed.offer(3, &b));
        let mut again = asked(Clock::new(), 5, &k(2));
        again.advance(4);
        assert!(!again.offer(4, &a) && again.offer(5, &a));
    }

    #[test]
    fn the_newest_change_of_who_asks_is_shown_to_it_with_the_answer() {
        let mut me = author(1);
        let (a, b, c) = (file(&mut me, "/a", 1), file(&mut me, "/b", 2), file(&mut me, "/c", 3));
        // What it says that it made, and what is known of it here: the smaller counts.
        for (since, known, shown) in
            [(3, 2, [false, true, true]), (2, 2, [false, true, true]), (3, 0, [false; 3])]
        {
            let mut feed = LinkFeed::new();
            feed.subscribe(peer(1), k(since), None, OWN, 3, &k(known));
            feed.peer_knows(&k(3));
            assert_eq!([(1, &a), (2, &b), (3, &c)].map(|(at, record)| feed.offer(at, record)), shown);
            feed.advance(3);
            assert!(feed.take_current(3).is_some() && !feed.offer(4, &c), "once");
        }
        // It is nobody else's.
        assert!(!asked(k(3), 3, &k(3)).offer(3, &c));
    }

    #[test]
    fn whoever_asks_again_gets_all() {
        let mut feed = LinkFeed::new();
        feed.note_from_link(1);
        feed.subscribe(peer(9), Clock::new(), None, OWN, 2, &k(2));
        assert_eq!(feed.wants_more(2), Some(2));
        feed.note_from_link(4);
        feed.subscribe(peer(9), Clock::new(), None, OWN, 4, &k(2));
        assert_eq!(feed.wants_more(4), Some(1));
        let record = file(&mut author(1), "/a", 1);
        assert!(feed.offer(1, &record) && feed.offer(4, &record));
        feed.advance(4);
        assert_eq!(feed.take_current(4), Some(k(2)));
    }

    #[test]
    fn ranges_at_the_limit_and_past_it() {
        let mut feed = asked(Clock::new(), 0, &Clock::new());
        let record = file(&mut author(1), "/a", 1);
        for i in 0..=SKIP_RANGES_MAX as u64 {
            assert_eq!(feed.skip.len() as u64, i);
            feed.note_from_link(3 + 2 * i);
        }
        assert_eq!(feed.skip.len(), SKIP_RANGES_MAX);
        assert!(feed.offer(3, &record) && !feed.offer(5, &record));
        feed.note_from_link(6);
        assert_eq!((feed.skip.len(), feed.skip[0]), (SKIP_RANGES_MAX - 1, (5, 7)));
        feed.note_from_link(u64::MAX);
        feed.advance(u64::MAX);
        assert!(feed.skip.is_empty());
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_noted(noted in proptest::collection::btree_set(2u64..60, 0..40), to in 0u64..60) {
            let mut order: Vec<_> = noted.iter().copied().collect();
            order.reverse();
            order.rotate_left(noted.len() / 3);
            let mut feed = asked(Clock::new(), 0, &Clock::new());
            let record = file(&mut author(1), "/a", 1);
            order.iter().for_each(|&arrival| feed.note_from_link(arrival));
            for arrival in 1..60 {
                prop_assert_eq!(feed.offer(arrival, &record), !noted.contains(&arrival));
            }
            prop_assert!(feed.skip.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            feed.advance(to);
            let first = (to + 1..).find(|arrival| !noted.contains(arrival)).unwrap();
            prop_assert_eq!(feed.wants_more(u64::MAX), Some(first));
            for arrival in first..60 {
                prop_assert_eq!(feed.offer(arrival, &record), !noted.contains(&arrival));
            }
        }
    }
}
