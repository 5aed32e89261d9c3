//! Times as they stand in JSON: ISO 8601, UTC, with up to nanoseconds (protocol §4). Knows the proleptic Gregorian
//! calendar and no time zone but `Z`.

use alloc::vec::Vec;

use crate::time::{NANOS_PER_SECOND, WallTime};

const SECONDS_PER_DAY: i64 = 86_400;

/// Appends `t` as `YYYY-MM-DDTHH:MM:SS[.fraction]Z`, without quotes; the fraction has no trailing zeros.
pub fn write_time(t: WallTime, out: &mut Vec<u8>) {
    let seconds = t.0.div_euclid(NANOS_PER_SECOND);
    let nanos = t.0.rem_euclid(NANOS_PER_SECOND);
    let (year, month, day) = date_of(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    // Any i64 of nanoseconds lies between the years 1677 and 2262: four digits always do.
    digits(year, 4, out);
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(day, 2, out);
    out.push(b'T');
    digits(of_day / 3600, 2, out);
    out.push(b':');
    digits(of_day / 60 % 60, 2, out);
    out.push(b':');
    digits(of_day % 60, 2, out);
    if nanos != 0 {
        out.push(b'.');
        digits(nanos, 9, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// Reads what [`write_time`] writes, with 0 to 9 digits of fraction. `None` for anything else, for dates that the
/// calendar lacks, leap seconds, and times that nanoseconds in 64 bits cannot hold.
pub fn parse_time(text: &str) -> Option<WallTime> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    if [head[4], head[7], head[10], head[13], head[16]] != *b"--T::" {
        return None;
    }
    let year = number(&head[0..4])?;
    let month = number(&head[5..7])?;
    let day = number(&head[8..10])?;
    let (hour, minute, second) = (number(&head[11..13])?, number(&head[14..16])?, number(&head[17..19])?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let fraction = rest.strip_suffix(b"Z")?;
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_i64.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    let seconds = days_before(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    // In 128 bits, because the earliest second that 64 bits hold a part of begins outside them.
    let all = i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(nanos);
    i64::try_from(all).ok().map(WallTime)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Years are counted from March, so that the
/// leap day is the last of its year.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date `days` after 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn digits(value: i64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        // A decimal digit fits a byte.
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn text(t: i64) -> String {
        let mut out = Vec::new();
        write_time(WallTime(t), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_times() {
        for (nanos, iso) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (4_107_542_399_000_000_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(text(nanos), iso);
            assert_eq!(parse_time(iso), Some(WallTime(nanos)));
        }
        assert_eq!(parse_time("1970-01-01T00:00:00.100Z"), Some(WallTime(100_000_000)));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+00:00",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T24:00:00Z",
            "2023-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "2262-04-11T23:47:16.854775808Z",
            "1677-09-21T00:12:43.145224191Z",
            "9999-12-31T23:59:59Z",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:0é",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back(t: i64) {
            prop_assert_eq!(parse_time(&text(t)), Some(WallTime(t)));
        }
    }
}
