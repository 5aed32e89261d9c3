//! Whether the archive has room: when it is looked through beyond the daily round, and whether replacing waits
//! (sync.md, "Deletes"). Never looks at a disk.

use core::time::Duration;

use crate::time::Instant;

/// An archive is looked through again no sooner than this.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// While replacing waits, the archive is looked through this often.
const LOOK_WAITING: Duration = Duration::from_secs(600);
/// An archive that grew by less than this, in bytes, is not looked through for that.
const GROWN_BYTES_MIN: u64 = 1024 * 1024;
/// At least this part of a volume is to be free, in percent,
const FREE_PERCENT: u64 = 1;
/// but no more than this, in bytes.
const FREE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What is known of the space that the archive and its volume have, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free on the volume.
    pub free: u64,
    /// Of the whole volume.
    pub total: u64,
    /// What the archive may take.
    pub limit: u64,
    /// What is still to be received.
    pub wanted: u64,
}

impl Space {
    /// How much the archive may keep of the `used` bytes that it has. Where the volume is too full for what is still
    /// to come it is less than its limit; what is younger than a day stays all the same.
    pub fn keep_max(&self, used: u64) -> u64 {
        let reserve = (self.total / 100 * FREE_PERCENT).min(FREE_BYTES_MAX);
        let lacking = |wanted: u64| reserve.saturating_add(wanted).saturating_sub(self.free);
        // What would not fit in place of the whole archive is no reason to give it up.
        let lacking = if lacking(self.wanted) <= used { lacking(self.wanted) } else { lacking(0) };
        self.limit.min(used.saturating_sub(lacking))
    }

    /// Whether replacing has to wait, when `kept` of `used` bytes stay in the archive: it is over its limit with what
    /// is younger than a day, and the volume has less free than the archive may take.
    pub fn must_wait(&self, kept: u64, used: u64) -> bool {
        let free = self.free.saturating_add(used.saturating_sub(kept));
        kept > self.limit && free < self.limit
    }
}

/// The archive of one share.
#[derive(Debug, Default)]
pub struct ArchiveSpace {
    limit: Option<u64>,
    /// What it held when it was looked through, and what came to it since.
    used: u64,
    grown: u64,
    looked_at: Option<Instant>,
    look_at: Option<Instant>,
    full: bool,
}

impl ArchiveSpace {
    /// So many bytes more were moved to the archive.
    pub fn grew(&mut self, bytes: u64, now: Instant) {
        self.grown = self.grown.saturating_add(bytes);
        self.used = self.used.saturating_add(bytes);
        // Until its limit is known the first round, soon after the start, has to do.
        if self.limit.is_some_and(|limit| self.grown >= (limit / 4).max(GROWN_BYTES_MIN)) {
            self.ask(now);
        }
    }

    /// It was looked through, and keeps so many bytes.
    pub fn keeps(&mut self, bytes: u64) {
        self.used = bytes;
    }

    /// What it holds, in bytes, as far as that is known.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The volume is full.
    pub fn no_space(&mut self, now: Instant) {
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        let soonest = self.looked_at.map_or(now, |at| at.plus(LOOK_PAUSE).max(now));
        self.look_at = Some(self.look_at.map_or(soonest, |at| at.min(soonest)));
    }

    /// When the archive is to be looked through, if it is before the next round.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// The archive is being looked through.
    pub fn looking(&mut self, now: Instant) {
        self.looked_at = Some(now);
        self.look_at = self.full.then(|| now.plus(LOOK_WAITING));
        self.grown = 0;
    }

    /// The archive was looked through. Returns whether replacing waits, if that is news.
    pub fn judged(&mut self, limit: u64, full: bool, now: Instant) -> Option<bool> {
        self.limit = Some(limit);
        let news = core::mem::replace(&mut self.full, full) != full;
        if full {
            self.look_at = Some(now.plus(LOOK_WAITING));
        }
        news.then_some(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn a_full_volume_keeps_less() {
        let space = Space { free: 500, total: 1000, limit: 100, wanted: 0 };
        assert_eq!(space.keep_max(80), 80, "within its limit, and room enough");
        assert_eq!(space.keep_max(101), 100, "over its limit");
        assert_eq!(Space { free: 10, ..space }.keep_max(80), 80, "at the reserve");
        assert_eq!(Space { free: 9, ..space }.keep_max(80), 79, "one below it");
        assert_eq!(Space { wanted: 550, ..space }.keep_max(80), 20);
        assert_eq!(Space { wanted: 570, ..space }.keep_max(80), 0);
        assert_eq!(Space { wanted: 571, ..space }.keep_max(80), 80, "it would not fit anyway");
        let large = Space { free: FREE_BYTES_MAX, total: 1 << 50, limit: 1 << 40, wanted: 0 };
        assert_eq!(large.keep_max(7), 7);
    }

    #[test]
    fn replacing_waits_over_the_limit_where_little_is_free() {
        let space = Space { free: 99, total: 1000, limit: 100, wanted: 0 };
        assert!(space.must_wait(101, 101));
        assert!(!space.must_wait(100, 100), "at the limit");
        assert!(!space.must_wait(101, 102), "what goes makes room");
        assert!(!Space { free: 100, ..space }.must_wait(101, 101), "room enough");
    }

    #[test]
    fn it_is_looked_through_when_it_grew() {
        let mut archive = ArchiveSpace::default();
        archive.grew(u64::MAX, at(1));
        assert_eq!(archive.look_at(), None, "the first round comes soon");
        archive.looking(at(2));
        assert_eq!(archive.judged(8 * MIB, false, at(2)), None);
        archive.grew(2 * MIB - 1, at(3));
        assert_eq!(archive.look_at(), None);
        archive.grew(1, at(4));
        assert_eq!(archive.look_at(), Some(at(62)), "a minute after the last time");
        assert_eq!(archive.used(), u64::MAX);
        archive.looking(at(62));
        archive.keeps(7);
        archive.grew(1, at(62));
        assert_eq!(archive.used(), 8);
        assert_eq!(archive.look_at(), None);
        archive.no_space(at(200));
        assert_eq!(archive.look_at(), Some(at(200)));
    }

    #[test]
    fn waiting_is_told_once_and_ends() {
        let mut archive = ArchiveSpace::default();
        assert_eq!(archive.judged(1, true, at(1)), Some(true));
        assert_eq!(archive.judged(1, true, at(2)), None);
        assert_eq!(archive.look_at(), Some(at(602)));
        archive.looking(at(602));
        assert_eq!(archive.look_at(), Some(at(1202)), "also where that look fails");
        assert_eq!(archive.judged(1, false, at(603)), Some(false));
    }
}
