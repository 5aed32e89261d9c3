//! How fast bytes come and go: counted as they do, so that each look has the last seconds, whenever the one before it
//! was. Knows no links.

use crate::time::{Instant, NANOS_PER_SECOND};

/// The seconds over which a rate is measured, the one that has just begun among them.
const SECONDS: u64 = 5;

/// What came and went lately.
#[derive(Debug, Default)]
pub struct Rates {
    /// Bytes received.
    pub received: Meter,
    /// Bytes sent.
    pub sent: Meter,
}

/// Bytes of the last seconds.
#[derive(Debug, Default)]
pub struct Meter {
    /// A second and its bytes, at the second's place modulo [`SECONDS`].
    seconds: [(u64, u64); SECONDS as usize],
}

impl Meter {
    /// So many bytes more.
    pub fn note(&mut self, bytes: u64, now: Instant) {
        let second = second(now);
        let place = &mut self.seconds[(second % SECONDS) as usize];
        if place.0 != second {
            *place = (second, 0);
        }
        place.1 = place.1.saturating_add(bytes);
    }

    /// Bytes per second, over the last seconds or since bytes began to flow, but never over less than one second.
    pub fn per_second(&self, now: Instant) -> u64 {
        let now_second = second(now);
        let recent = self
            .seconds
            .iter()
            .filter(|(second, bytes)| *bytes > 0 && *second <= now_second && now_second - second < SECONDS);
        let Some(first) = recent.clone().map(|(second, _)| *second).min() else { return 0 };
        let bytes: u128 = recent.map(|(_, bytes)| u128::from(*bytes)).sum();
        let nanos = u128::from(now.0 - first * NANOS_PER_SECOND as u64).max(NANOS_PER_SECOND as u128);
        u64::try_from(bytes * NANOS_PER_SECOND as u128 / nanos).unwrap_or(u64::MAX)
    }
}

fn second(at: Instant) -> u64 {
    at.0 / NANOS_PER_SECOND as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant(ms * MS)
    }

    #[test]
    fn the_first_look_has_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.per_second(at(7)), 0);
        for ms in (20_000..30_000).step_by(100) {
            meter.note(1000, at(ms));
        }
        let rate = meter.per_second(at(30_000));
        assert!((9_900..=10_100).contains(&rate), "{rate}");
        assert_eq!(meter.per_second(at(30_000)), rate, "a look changes nothing");
        let rate = meter.per_second(at(33_999));
        assert!((2_000..=2_010).contains(&rate), "one second's bytes in five: {rate}");
        assert_eq!(meter.per_second(at(34_000)), 0);
    }

    #[test]
    fn a_burst_is_no_rate_beyond_its_bytes() {
        let mut meter = Meter::default();
        meter.note(500, at(10_999));
        assert_eq!(meter.per_second(at(10_999)), 500);
        assert_eq!(meter.per_second(at(12_000)), 250);
        meter.note(u64::MAX, at(12_000));
        assert!(meter.per_second(at(12_000)) > u64::MAX / 3);
    }
}
