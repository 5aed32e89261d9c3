//! Time as an argument: the engine never asks for it.

use core::time::Duration;

/// Monotonic time: nanoseconds since a start that the host chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// This instant and `after` more; saturates at the end of time.
    pub fn plus(self, after: Duration) -> Instant {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    /// The first multiple of `grain` that is not earlier: what is due about the same time is then done at once.
    pub fn round_up(self, grain: Duration) -> Instant {
        let grain = u64::try_from(grain.as_nanos()).unwrap_or(u64::MAX).max(1);
        Instant(self.0.checked_next_multiple_of(grain).unwrap_or(u64::MAX))
    }

    /// How long ago `earlier` was; zero if it is not in the past.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The first pause before something that failed is tried again; it doubles with each failure up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LAST: Duration = Duration::from_secs(300);

/// How long to leave alone what failed, after so long the time before.
pub fn retry_pause(last: Option<Duration>) -> Duration {
    last.map_or(RETRY_FIRST, |last| (last * 2).min(RETRY_LAST))
}

/// Wall-clock time: nanoseconds since 1970-01-01T00:00:00Z. What people and records see; never used to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The time of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For waiting and measuring.
    pub mono: Instant,
    /// For records and people.
    pub wall: WallTime,
}
