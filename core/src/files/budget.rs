//! The delete budget: many deletes at once are held until the user decides (sync.md, Deletes). Counts paths, and
//! never knows which.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::Instant;

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
    /// They are to be held until the user decides.
    Held,
}

/// The deletes of one share within any ten minutes, by hints and scans together, after moves were taken out.
#[derive(Clone, Debug, Default)]
pub struct DeleteBudget {
    /// When the first of a bucket was sent, and how many.
    window: VecDeque<(Instant, u64)>,
    in_window: u64,
}

impl DeleteBudget {
    /// No deletes.
    pub fn new() -> DeleteBudget {
        DeleteBudget::default()
    }

    /// Whether all paths that are gone and were not sent yet, `unsent` of them, may be sent. `live` is how many live
    /// records the share has, these among them.
    pub fn judge(&mut self, now: Instant, unsent: u64, live: u64) -> Verdict {
        self.forget_old(now);
        let gone = self.in_window.saturating_add(unsent);
        // What was sent is no longer live, and belonged to the share when the window began.
        let share = live.saturating_add(self.in_window);
        let many = gone.saturating_mul(100) > share.saturating_mul(SHARE_PERCENT);
        if unsent > 0 && gone > FREE_PATHS && many { Verdict::Held } else { Verdict::Send }
    }

    /// So many deletes were sent.
    pub fn note_sent(&mut self, now: Instant, paths: u64) {
        self.forget_old(now);
        if paths == 0 {
            return;
        }
        match self.window.back_mut() {
            Some((first, count)) if now.since(*first) < BUCKET => *count = count.saturating_add(paths),
            _ => self.window.push_back((now, paths)),
        }
        self.in_window = self.in_window.saturating_add(paths);
    }

    /// The user decided: what was sent counts no more.
    pub fn clear(&mut self) {
        self.window.clear();
        self.in_window = 0;
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

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
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
            assert_eq!(DeleteBudget::new().judge(at(0), gone, live), verdict, "{gone} of {live}");
        }
    }

    #[test]
    fn the_window_slides() {
        let mut budget = DeleteBudget::new();
        budget.note_sent(at(0), 30);
        budget.note_sent(at(599), 20);
        // What was sent still counts, and so does it for the size of the share.
        assert_eq!(budget.judge(at(599), 1, 50), Verdict::Held);
        assert_eq!(budget.judge(at(599), 0, 50), Verdict::Send);
        assert_eq!(budget.judge(at(600), 30, 50), Verdict::Send);
        assert_eq!(budget.judge(at(600), 31, 50), Verdict::Held);
    }

    #[test]
    fn asking_counts_nothing() {
        let mut budget = DeleteBudget::new();
        assert_eq!(budget.judge(at(0), 80, 100), Verdict::Held);
        assert_eq!(budget.judge(at(1), 50, 100), Verdict::Send);
        budget.note_sent(at(2), 80);
        assert_eq!(budget.judge(at(3), 5, 20), Verdict::Held);
        budget.clear();
        assert_eq!(budget.judge(at(4), 5, 20), Verdict::Send);
    }

    #[test]
    fn the_window_stays_small() {
        let mut budget = DeleteBudget::new();
        for step in 0..100_000 {
            budget.note_sent(Instant(step * 20_000_000), 1);
        }
        assert!(budget.window.len() <= 601);
    }
}
