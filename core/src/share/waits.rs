//! How long changes have been waited for that other versions build on and that have not arrived (protocol §7, "Two live
//! records under one key"). Says who is waited for and until when; what waits is decided elsewhere.
//!
//! The hour is counted for each author: from the moment when its newest missing change became known, or when it left,
//! whichever is later. Nothing of it is stored, so a start begins it anew. For a former identity of this very node it
//! is two minutes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::ids::{ConnId, PeerId};
use crate::index::clock::Clock;
use crate::index::record::Record;
use crate::share::Share;
use crate::share::link::PeerLink;
use crate::share::progress::Former;
use crate::time::Instant;

/// How long an absent author's changes are waited for (protocol §7).
pub const ABSENT_WAIT: Duration = Duration::from_secs(60 * 60);
/// How long is waited for changes of an identity that this node itself gave up: nobody comes back under it, so this is
/// the time in which the members that hold them connect.
pub const FORMER_WAIT: Duration = Duration::from_secs(2 * 60);
/// What is waited for no longer than this is no news to anybody.
pub(super) const TOLD_AFTER: Duration = Duration::from_secs(60);

/// What is waited for from one author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    /// The largest revision that a stored version names and knowledge does not cover.
    rev: u64,
    since: Instant,
    /// How long.
    span: Duration,
    /// Whether what waits was looked at since that was over.
    woken: bool,
}

impl Wait {
    fn is_over(&self, now: Instant) -> bool {
        now.since(self.since) >= self.span
    }
}

/// Who is waited for; at most as many as a share has peers.
#[derive(Debug, Default)]
pub struct Waits(BTreeMap<PeerId, Wait>);

impl Waits {
    /// Versions name these changes, and knowledge does not cover them; `former` are identities that this node gave up.
    pub fn note(&mut self, missing: &Clock, knowledge: &Clock, former: &[Former], now: Instant) {
        for (peer, rev) in missing.iter().filter(|(peer, rev)| !knowledge.covers_dot(*peer, *rev)) {
            if self.0.get(&peer).is_none_or(|wait| wait.rev < rev) {
                let own = former.iter().any(|former| former.id == peer);
                let span = if own { FORMER_WAIT } else { ABSENT_WAIT };
                self.0.insert(peer, Wait { rev, since: now, span, woken: false });
            }
        }
        self.0.retain(|peer, wait| !knowledge.covers_dot(*peer, wait.rev));
    }

    /// A peer's link is gone: it may come back within the hour.
    fn left(&mut self, peer: PeerId, now: Instant) {
        if let Some(wait) = self.0.get_mut(&peer) {
            *wait = Wait { since: now, woken: false, ..*wait };
        }
    }

    /// Whether a change is waited for no longer, although it is not known.
    fn is_over(&self, peer: PeerId, rev: u64, now: Instant) -> bool {
        self.0.get(&peer).is_some_and(|wait| wait.rev >= rev && wait.is_over(now))
    }

    /// Notes whose hour is over; whether what waits is to be looked at.
    fn wake(&mut self, links: &BTreeMap<ConnId, PeerLink>, now: Instant) -> bool {
        let mut any = false;
        for (peer, wait) in &mut self.0 {
            if !wait.woken && wait.is_over(now) && is_absent(*peer, links) {
                wait.woken = true;
                any = true;
            }
        }
        any
    }
}

fn is_absent(peer: PeerId, links: &BTreeMap<ConnId, PeerLink>) -> bool {
    !links.values().any(|link| link.peer == peer)
}

/// What decides whether enough is known to judge a version by.
#[derive(Clone, Copy, Debug)]
pub struct Awaiting<'a> {
    /// Who is waited for.
    pub waits: &'a Waits,
    /// Who is there.
    pub links: &'a BTreeMap<ConnId, PeerLink>,
    /// The time.
    pub now: Instant,
}

impl Awaiting<'_> {
    /// What a version has seen and is still to be waited for; nothing once the author has been absent for an hour.
    pub fn missing<'k>(
        &'k self,
        knowledge: &'k Clock,
        record: &'k Record,
    ) -> impl Iterator<Item = (PeerId, u64)> + 'k {
        // Nearly always all of it is known, and that is told without looking at each entry.
        let some = !knowledge.covers(&record.clock);
        let entries = some.then(|| record.clock.iter()).into_iter().flatten();
        entries.filter(|&(peer, rev)| {
            let over = || self.waits.is_over(peer, rev, self.now) && is_absent(peer, self.links);
            !knowledge.covers_dot(peer, rev) && !over()
        })
    }
}

impl Share {
    /// What decides whether enough is known.
    pub fn awaiting(&self, now: Instant) -> Awaiting<'_> {
        Awaiting { waits: &self.waits, links: &self.links, now }
    }

    pub(super) fn peer_left(&mut self, peer: PeerId, now: Instant) {
        self.waits.left(peer, now);
    }

    /// When an absent author's hour is over.
    pub(super) fn waits_timeout(&self) -> Option<Instant> {
        let waits = self.waits.0.iter();
        let open = waits.filter(|(peer, wait)| !wait.woken && is_absent(**peer, &self.links));
        open.map(|(_, wait)| wait.since.plus(wait.span)).min()
    }

    /// Has what waits looked at where an hour is over.
    pub(super) fn end_waits(&mut self, now: Instant) {
        if self.waits.wake(&self.links, now) {
            log::info!("{}: goes on without changes that were waited for", self.folder.path);
            self.work.wake();
        }
    }

    /// What is told of a change that is waited for.
    pub fn wait_sentence(&self, peer: PeerId, now: Instant) -> String {
        let who = super::shown_name(&self.names, peer);
        if !is_absent(peer, &self.links) {
            return format!("Changes of {who} that others build on are still to come; {who} is connected.");
        }
        let wait = self.waits.0.get(&peer);
        let left = wait.map_or(ABSENT_WAIT, |wait| wait.span.saturating_sub(now.since(wait.since)));
        let minutes = left.as_secs().div_ceil(60);
        format!(
            "Changes of {who} that others build on have not arrived, and {who} is not connected; what waits for them \
             goes on when they come, or in {minutes} minutes."
        )
    }

    /// Sentences about absent authors who keep paths waiting.
    pub(super) fn wait_problems(&self, now: Instant) -> impl Iterator<Item = String> {
        let waits = self.waits.0.iter().filter(|_| self.progress.totals.pending > 0);
        let told = waits.filter(move |(peer, wait)| {
            let waited = now.since(wait.since);
            (TOLD_AFTER..wait.span).contains(&waited) && is_absent(**peer, &self.links)
        });
        told.map(move |(peer, _)| self.wait_sentence(*peer, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{author, file, peer};

    fn at(seconds: u64) -> Instant {
        Instant(1_000).plus(Duration::from_secs(seconds))
    }

    /// Whether a file of author 1, its first change, is still waited for.
    fn waits(waits: &Waits, links: &BTreeMap<ConnId, PeerLink>, now: Instant) -> bool {
        let record = file(&mut author(1), "/a", 1);
        Awaiting { waits, links, now }.missing(&Clock::new(), &record).next().is_some()
    }

    #[test]
    fn an_absent_author_is_waited_for_an_hour() {
        let (mut all, links, none) = (Waits::default(), BTreeMap::new(), Clock::new());
        assert!(waits(&all, &links, at(10_000)), "what nobody has noted has not waited");
        all.note(&Clock::of(peer(1), 1), &none, &[], at(0));
        assert!(waits(&all, &links, at(3599)));
        assert!(!all.wake(&links, at(3599)));
        assert!(!waits(&all, &links, at(3600)));
        assert!(all.wake(&links, at(3600)) && !all.wake(&links, at(3601)), "once");
        // Noted again it goes on; a newer change begins anew.
        all.note(&Clock::of(peer(1), 1), &none, &[], at(3700));
        assert!(!waits(&all, &links, at(3700)));
        all.note(&Clock::of(peer(1), 2), &none, &[], at(3800));
        assert!(waits(&all, &links, at(3800 + 3599)) && !waits(&all, &links, at(3800 + 3600)));
    }

    #[test]
    fn a_former_identity_of_this_node_is_waited_for_no_longer_than_two_minutes() {
        let (mut all, links) = (Waits::default(), BTreeMap::new());
        let former = Former { id: peer(1), above: 0, next: 1, end: 0 };
        all.note(&Clock::of(peer(1), 1), &Clock::new(), &[former], at(0));
        assert!(waits(&all, &links, at(119)) && !waits(&all, &links, at(120)));
        assert!(all.wake(&links, at(120)));
    }

    #[test]
    fn whoever_leaves_has_the_hour_anew_and_whoever_is_there_is_waited_for() {
        let (mut all, mut links, none) = (Waits::default(), BTreeMap::new(), Clock::new());
        links.insert(ConnId(1), PeerLink::new(peer(1), true, at(0)));
        all.note(&Clock::of(peer(1), 1), &none, &[], at(0));
        assert!(waits(&all, &links, at(100_000)) && !all.wake(&links, at(100_000)));
        links.clear();
        all.left(peer(1), at(100_000));
        assert!(waits(&all, &links, at(103_599)) && !waits(&all, &links, at(103_600)));
    }

    #[test]
    fn what_is_known_is_not_waited_for() {
        let (mut all, links) = (Waits::default(), BTreeMap::new());
        let record = file(&mut author(1), "/a", 1);
        let known = record.clock.clone();
        all.note(&Clock::of(peer(1), 1), &Clock::new(), &[], at(0));
        assert_eq!(Awaiting { waits: &all, links: &links, now: at(1) }.missing(&known, &record).next(), None);
        all.note(&Clock::new(), &known, &[], at(2));
        assert!(all.0.is_empty());
        all.note(&known, &known, &[], at(2));
        assert!(all.0.is_empty());
    }
}
