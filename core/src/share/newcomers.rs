//! Whose answer is enough to judge by what lies in a folder without base (sync.md, Scanning). Who has just joined knows
//! nothing of what was deleted: two that lost their homes, and meet before they meet anybody else, would take for new
//! what one of them has still.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::index::clock::Clock;
use crate::share::Share;
use crate::share::link::PeerLink;
use crate::share::pipeline::Op;
use crate::share::waits::{ABSENT_WAIT, TOLD_AFTER};
use crate::time::Instant;

/// How long one that knows of nothing is linked before its answer is enough: those who know more may be gone for good.
pub const NEWCOMER_WAIT: Duration = ABSENT_WAIT;

impl PeerLink {
    /// Whether a member that says that this is all it knows may know what became of what lies in a folder. Who does not
    /// know of a single change may be at the beginning itself, until its own folder is looked through.
    pub(super) fn may_judge(&self, knowledge: &Clock) -> bool {
        self.writer && !(self.looking && knowledge.is_empty())
    }

    /// What it said when its answer was complete, or since.
    fn told(&self) -> Option<&Clock> {
        self.knowledge.as_ref().filter(|_| self.writer && self.caught_up)
    }

    /// Whether its answer is enough by now.
    fn is_enough(&self, now: Instant) -> bool {
        self.told().is_some_and(|told| self.may_judge(told) || now.since(self.since) >= NEWCOMER_WAIT)
    }
}

impl Share {
    /// Takes an answer for enough that was not when it came: its sender has learned something meanwhile, has looked
    /// through its folder, or is all there is.
    pub(super) fn heed_newcomers(&mut self, now: Instant) {
        if self.progress.caught_up || !self.pipeline.is_idle() || self.retry_store_at.is_some() {
            return;
        }
        if self.links.values().any(|link| link.is_enough(now)) {
            self.pipeline.push(Op::CaughtUp);
        }
    }

    /// When the answer of one that knows of nothing is enough.
    pub(super) fn newcomers_timeout(&self) -> Option<Instant> {
        let waits = !self.progress.caught_up && self.pipeline.is_idle() && self.retry_store_at.is_none();
        let told = self.links.values().filter(|link| waits && link.told().is_some());
        told.map(|link| link.since.plus(NEWCOMER_WAIT)).min()
    }

    /// The sentence about members that know of nothing, while nobody else is there.
    pub(super) fn newcomer_problem(&self, now: Instant) -> Option<String> {
        let left = self.newcomers_timeout()?.since(now);
        // Another one's answer may be under way.
        let others = self.links.values().any(|link| link.writer && link.told().is_none());
        if others || left.is_zero() || left > NEWCOMER_WAIT - TOLD_AFTER {
            return None;
        }
        let minutes = left.as_secs().div_ceil(60);
        Some(format!(
            "Nobody is connected who knows what the share holds; what is in the folder is compared with it when \
             somebody is, or in {minutes} minutes."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::peer;

    #[test]
    fn who_knows_of_nothing_and_has_not_looked_judges_nothing() {
        let mut link = PeerLink::new(peer(1), true, Instant(0));
        let (none, some) = (Clock::new(), Clock::of(peer(2), 1));
        assert!(link.may_judge(&none) && link.may_judge(&some), "an empty share is one");
        link.looking = true;
        assert!(!link.may_judge(&none) && link.may_judge(&some));
        link.writer = false;
        assert!(!link.may_judge(&some));
    }

    #[test]
    fn one_that_knows_of_nothing_is_enough_after_an_hour() {
        let at = |seconds| Instant(1_000).plus(Duration::from_secs(seconds));
        let mut link = PeerLink::new(peer(1), true, at(0));
        (link.looking, link.knowledge) = (true, Some(Clock::new()));
        assert!(!link.is_enough(at(3600)), "its answer is not complete");
        link.caught_up = true;
        assert!(!link.is_enough(at(3599)) && link.is_enough(at(3600)));
        link.knowledge = Some(Clock::of(peer(2), 1));
        assert!(link.is_enough(at(1)), "it has heard from others meanwhile");
        (link.looking, link.knowledge) = (false, Some(Clock::new()));
        assert!(link.is_enough(at(1)), "it has looked through its folder");
    }
}
