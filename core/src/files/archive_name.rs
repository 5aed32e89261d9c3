//! Names of the archive's folders, and how long they stay (sync.md, Deletes). Never looks at a disk.

use alloc::format;
use alloc::string::String;

use crate::time::{NANOS_PER_SECOND, WallTime};

/// How long the archive keeps what it holds, in days, unless the user says otherwise.
pub const KEEP_DAYS_DEFAULT: u32 = 30;
/// How much of its volume the archive may take, in percent, unless the user says otherwise.
pub const VOLUME_PERCENT_DEFAULT: u64 = 10;
/// Nothing younger than this is pruned, in days; when space is short, replacing waits.
pub const KEEP_DAYS_MIN: u32 = 1;

const SECONDS_PER_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the Gregorian calendar.
const DAYS_TO_1970: i64 = 719_468;
/// Days in 400 years.
const DAYS_PER_ERA: i64 = 146_097;

/// The folder for what is replaced or deleted at this time: one component, whose byte order is the order of time,
/// like `20261121T231500.123456789Z`.
pub fn archive_folder(time: WallTime) -> String {
    let seconds = time.0.div_euclid(NANOS_PER_SECOND);
    let nanos = time.0.rem_euclid(NANOS_PER_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // 64 bits of nanoseconds reach from 1677 to 2262: a year has four digits.
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{nanos:09}Z")
}

/// The time that a folder's name says; `None` for any name that [`archive_folder`] never makes.
pub fn parse_archive_folder(name: &str) -> Option<WallTime> {
    if name.len() != "20261121T231500.123456789Z".len() || !name.is_ascii() {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = name.get(from..to).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let days = days(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let seconds = (days * 24 + number(9, 11)?) * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    // i128 holds every time of four-digit years.
    let nanos = i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(number(16, 25)?);
    let time = WallTime(i64::try_from(nanos).ok()?);
    // One spelling each: this also refuses a 13th month and a 25th hour.
    (archive_folder(time) == name).then_some(time)
}

/// The first folder that stays when everything older than `keep_days` is pruned; at least [`KEEP_DAYS_MIN`] is kept.
pub fn prune_before(now: WallTime, keep_days: u32) -> String {
    let days = i64::from(keep_days.max(KEEP_DAYS_MIN));
    let age = days.saturating_mul(SECONDS_PER_DAY).saturating_mul(NANOS_PER_SECOND);
    archive_folder(WallTime(now.0.saturating_sub(age)))
}

/// The first folder that stays so that the archive keeps within both bounds: its age, and `limit_bytes` of space.
/// `folders` are names with the bytes they hold, newest first; a name that is no folder of ours is passed over.
/// The day that is always kept may exceed the space; then the caller waits with replacing.
pub fn prune_for_space<'a>(
    folders: impl IntoIterator<Item = (&'a str, u64)>,
    now: WallTime,
    keep_days: u32,
    limit_bytes: u64,
) -> String {
    let by_age = prune_before(now, keep_days);
    let always = prune_before(now, KEEP_DAYS_MIN);
    let mut used = 0u64;
    let mut oldest_kept = always.as_str();
    for (name, bytes) in folders {
        if parse_archive_folder(name).is_none() {
            continue;
        }
        if name < by_age.as_str() {
            break;
        }
        used = used.saturating_add(bytes);
        if used > limit_bytes && name < always.as_str() {
            return String::from(oldest_kept);
        }
        oldest_kept = oldest_kept.min(name);
    }
    by_age
}

/// How many bytes of a volume the archive may take.
pub fn limit_bytes(volume_total: u64, percent: u64) -> u64 {
    volume_total / 100 * percent.min(100)
}

/// Year, month and day of a day since 1970, in the Gregorian calendar: years begin in March, so that the leap day is
/// the last.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let era = day.div_euclid(DAYS_PER_ERA);
    let of_era = day.rem_euclid(DAYS_PER_ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month_day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, month_day)
}

/// The day since 1970 of a date; the opposite of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const DAY: i64 = SECONDS_PER_DAY * NANOS_PER_SECOND;

    #[test]
    fn known_times() {
        for (nanos, name) in [
            (0, "19700101T000000.000000000Z"),
            (-1, "19691231T235959.999999999Z"),
            (951_782_400_000_000_000, "20000229T000000.000000000Z"),
            (1_795_302_900_123_456_789, "20261121T231500.123456789Z"),
            (i64::MAX, "22620411T234716.854775807Z"),
            (i64::MIN, "16770921T001243.145224192Z"),
        ] {
            assert_eq!(archive_folder(WallTime(nanos)), name);
            assert_eq!(parse_archive_folder(name), Some(WallTime(nanos)));
        }
    }

    #[test]
    fn other_names() {
        for name in [
            "",
            "20261121T231500.123456789",
            "20261121T231500.123456789z",
            "20261121T231500,123456789Z",
            "20261321T231500.123456789Z",
            "20260230T231500.123456789Z",
            "20261121T241500.123456789Z",
            "20261121T236000.123456789Z",
            "20261121 231500.123456789Z",
            "+0261121T231500.123456789Z",
            "99991121T231500.123456789Z",
            "20261121T231500.12345678\u{e9}Z",
        ] {
            assert_eq!(parse_archive_folder(name), None, "{name:?}");
        }
    }

    #[test]
    fn pruning_keeps_a_day() {
        let now = WallTime(100 * DAY);
        assert_eq!(prune_before(now, 30), archive_folder(WallTime(70 * DAY)));
        assert_eq!(prune_before(now, 0), archive_folder(WallTime(99 * DAY)));
        assert_eq!(prune_before(WallTime(i64::MIN), u32::MAX), archive_folder(WallTime(i64::MIN)));
    }

    #[test]
    fn pruning_for_space() {
        let now = WallTime(100 * DAY);
        let name = |days: i64| archive_folder(WallTime(now.0 - days * DAY));
        let names: Vec<(alloc::string::String, u64)> =
            [(0, 10), (2, 10), (5, 10), (29, 10), (31, 10)].map(|(days, bytes)| (name(days), bytes)).into();
        let prune = |limit| prune_for_space(names.iter().map(|(n, b)| (n.as_str(), *b)), now, 30, limit);
        assert_eq!(prune(100), name(30));
        assert_eq!(prune(40), name(30));
        assert_eq!(prune(39), name(5));
        assert_eq!(prune(20), name(2));
        // Nothing younger than a day goes, whatever the space.
        assert_eq!(prune(19), name(1));
        assert_eq!(prune(0), name(1));
        assert_eq!(prune_for_space([("notes", 99)], now, 30, 1), name(30));
        assert_eq!(limit_bytes(1000, VOLUME_PERCENT_DEFAULT), 100);
    }

    proptest! {
        #[test]
        fn names_are_times(a in any::<i64>(), b in any::<i64>()) {
            let (a_name, b_name) = (archive_folder(WallTime(a)), archive_folder(WallTime(b)));
            prop_assert_eq!(a.cmp(&b), a_name.cmp(&b_name));
            prop_assert_eq!(parse_archive_folder(&a_name), Some(WallTime(a)));
            prop_assert!(crate::files::path::RelPath::new(&a_name).is_some());
        }

        #[test]
        fn any_name_is_survived(name in any::<alloc::string::String>(), digits in "[0-9]{8}T[0-9]{6}[.][0-9]{9}Z") {
            let _ = parse_archive_folder(&name);
            let _ = parse_archive_folder(&digits);
        }
    }
}
