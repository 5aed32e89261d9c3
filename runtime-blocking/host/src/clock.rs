//! The machine's clocks, in the engine's words. Owns the start of this process's monotonic time.

use std::time::{Duration, SystemTime};

use clearskies_core::time::{Instant, Now, WallTime};

/// Tells the engine's time; copies tell the same.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: wall() }
    }

    /// The monotonic time alone.
    pub fn mono(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long until `at`; zero once it has come.
    pub fn until(&self, at: Instant) -> Duration {
        at.since(self.mono())
    }
}

/// The wall clock; times that do not fit 64 bits of nanoseconds are the nearest that do.
fn wall() -> WallTime {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    WallTime(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_forward() {
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono >= first.mono);
        assert!(first.wall.0 > 1_600_000_000_000_000_000);
        assert_eq!(clock.until(first.mono), Duration::ZERO);
        assert!(clock.until(first.mono.plus(Duration::from_secs(60))) > Duration::from_secs(50));
    }
}
