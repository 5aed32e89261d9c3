//! The delete budget: many deletes at once are held until the user decides (sync.md, Deletes). Counts paths, and
//! never knows which.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::{Instant, Now};

/// Paths that are gone count together for this long.
pub const WINDOW: Duration = Duration::from_secs(600);
/// This many deletes within the window are never held.
pub const FREE_PATHS: u64 = 50;
/// A larger part of the share than this, in percent, is held.
pub const SHARE_PERCENT: u64 = 25;

/// Paths that are seen within this time share a bucket, so that the window stays small.
const BUCKET: Duration = Duration::from_secs(1);

/// Whether deletes may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    Send,
    /// All that were not sent are held until the user decides.
    Held,
}

/// The deletes of one share within any ten minutes, by hints and scans together, after moves were taken out.
#[derive(Clone, Debug, Default)]
pub struct DeleteBudget {
    /// When the first of a bucket was seen, and how many.
    window: VecDeque<(Instant, u64)>,
    in_window: u64,
    /// Of all, those that were not sent.
    unsent: u64,
    held: bool,
}

impl DeleteBudget {
    /// No deletes.
    pub fn new() -> DeleteBudget {
        DeleteBudget::default()
    }

    /// So many more paths are gone. `live` is how many live records the share has, these among them while they are
    /// not sent. Returns whether deletes may go out.
    pub fn note_gone(&mut self, now: Now, paths: u64, live: u64) -> Verdict {
        self.forget_old(now.mono);
        if paths > 0 {
            match self.window.back_mut() {
                Some((first, count)) if now.mono.since(*first) < BUCKET => {
                    *count = count.saturating_add(paths);
                }
                _ => self.window.push_back((now.mono, paths)),
            }
            self.in_window = self.in_window.saturating_add(paths);
            self.unsent = self.unsent.saturating_add(paths);
        }
        // What was sent is no longer live, and belonged to the share when the window began.
        let sent = self.in_window.saturating_sub(self.unsent);
        let share = live.saturating_add(sent);
        let many = self.in_window.saturating_mul(100) > share.saturating_mul(SHARE_PERCENT);
        if self.unsent > 0 && self.in_window > FREE_PATHS && many {
            self.held = true;
        }
        self.verdict()
    }

    /// So many of the paths that were gone are there again, or turned out to be moves. When none is left, nothing is
    /// held.
    pub fn note_back(&mut self, paths: u64) {
        let mut left = paths.min(self.unsent);
        self.unsent -= left;
        self.held &= self.unsent > 0;
        while let Some((_, count)) = self.window.back_mut().filter(|_| left > 0) {
            let taken = left.min(*count);
            *count -= taken;
            left -= taken;
            self.in_window = self.in_window.saturating_sub(taken);
            if *count == 0 {
                self.window.pop_back();
            }
        }
    }

    /// So many deletes were sent.
    pub fn note_sent(&mut self, paths: u64) {
        self.unsent = self.unsent.saturating_sub(paths);
    }

    /// Whether deletes may go out.
    pub fn verdict(&self) -> Verdict {
        if self.held { Verdict::Held } else { Verdict::Send }
    }

    /// How many deletes were not sent.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// The user agreed: what is held may go out, and counts no more.
    pub fn confirm(&mut self) {
        self.window.clear();
        self.in_window = 0;
        self.unsent = 0;
        self.held = false;
    }

    /// The user refused, and the paths are brought back: nothing is held, nothing counts.
    pub fn clear(&mut self) {
        self.confirm();
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some(&(_, count)) = self.window.front().filter(|(first, _)| now.since(*first) >= WINDOW) {
            self.in_window = self.in_window.saturating_sub(count);
            self.window.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    fn at(seconds: u64) -> Now {
        Now { mono: Instant(seconds * 1_000_000_000), wall: WallTime(0) }
    }

    #[test]
    fn both_bounds_must_be_passed() {
        for (gone, live, verdict) in [
            (50, 50, Verdict::Send),
            (51, 51, Verdict::Held),
            (51, 204, Verdict::Send),
            (51, 203, Verdict::Held),
            (25_000, 100_000, Verdict::Send),
            (25_001, 100_000, Verdict::Held),
            (0, 0, Verdict::Send),
            (u64::MAX, 1, Verdict::Held),
        ] {
            assert_eq!(DeleteBudget::new().note_gone(at(0), gone, live), verdict, "{gone} of {live}");
        }
    }

    #[test]
    fn the_window_slides() {
        let mut budget = DeleteBudget::new();
        assert_eq!(budget.note_gone(at(0), 30, 100), Verdict::Send);
        budget.note_sent(30);
        assert_eq!(budget.note_gone(at(599), 20, 70), Verdict::Send);
        let mut late = budget.clone();
        // What was sent still counts, and so does it for the size of the share.
        assert_eq!(budget.note_gone(at(599), 1, 70), Verdict::Held);
        assert_eq!(late.note_gone(at(600), 1, 70), Verdict::Send);
        assert_eq!(late.note_gone(at(601), 29, 70), Verdict::Send);
        assert_eq!(late.note_gone(at(602), 1, 70), Verdict::Held);
    }

    #[test]
    fn held_until_decided_or_back() {
        let mut budget = DeleteBudget::new();
        assert_eq!(budget.note_gone(at(0), 80, 100), Verdict::Held);
        // Time alone releases nothing.
        assert_eq!(budget.note_gone(at(10_000), 0, 100), Verdict::Held);
        budget.note_back(79);
        assert_eq!((budget.verdict(), budget.unsent()), (Verdict::Held, 1));
        budget.note_back(1);
        assert_eq!(budget.verdict(), Verdict::Send);
        assert_eq!(budget.note_gone(at(10_001), 80, 100), Verdict::Held);
        budget.confirm();
        assert_eq!((budget.verdict(), budget.unsent()), (Verdict::Send, 0));
        assert_eq!(budget.note_gone(at(10_002), 5, 20), Verdict::Send);
    }

    #[test]
    fn the_window_stays_small() {
        let mut budget = DeleteBudget::new();
        for step in 0..100_000 {
            let now = Now { mono: Instant(step * 20_000_000), wall: WallTime(0) };
            budget.note_gone(now, 1, 1_000_000_000);
        }
        assert!(budget.window.len() <= 601);
    }
}
