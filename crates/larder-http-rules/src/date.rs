//! HTTP dates (RFC 9110 §5.6.7): a strict parser and a formatter.
//!
//! Three forms are read: IMF-fixdate, the RFC 850 form with its two-digit year, and asctime. The grammar
//! is strict (no other zone than `GMT`, no doubled spaces, no one-digit hour) because lenient readers
//! disagree, and a cache that disagrees with the origin serves stale pages. Two things are lenient:
//! letter case, and the weekday, which must be one of the seven names but need not fit the date.
//!
//! ```
//! use larder_http_rules::date;
//! use std::time::{Duration, SystemTime, UNIX_EPOCH};
//!
//! let when = UNIX_EPOCH + Duration::from_secs(784_111_777);
//! assert_eq!(date::parse(b"Sun, 06 Nov 1994 08:49:37 GMT", SystemTime::now()), Some(when));
//! assert_eq!(date::parse(b"Sunday, 06-Nov-94 08:49:37 GMT", SystemTime::now()), Some(when));
//! assert_eq!(date::parse(b"Sun Nov  6 08:49:37 1994", SystemTime::now()), Some(when));
//! assert_eq!(date::parse(b"1994-11-06T08:49:37Z", SystemTime::now()), None);
//! assert_eq!(date::format(when), "Sun, 06 Nov 1994 08:49:37 GMT");
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::header::{AsHeaderName, HeaderMap};

/// Reads an HTTP date. `now` is needed for the two-digit years of the RFC 850 form only: one that would
/// lie more than 50 years ahead is taken as the past (RFC 9110 §5.6.7).
#[must_use]
pub fn parse(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let value = value.trim_ascii();
    let fields = match value.iter().position(|&b| b == b',') {
        Some(3) => imf_fixdate(value)?,
        Some(comma) => rfc850(value, comma, now)?,
        None => asctime(value)?,
    };
    fields.to_system_time()
}

/// Reads the only line of a date field; several lines are not a date (RFC 9110 §5.3).
pub fn parse_field(
    headers: &HeaderMap,
    name: impl AsHeaderName,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    parse(first.as_bytes(), now)
}

/// Writes an IMF-fixdate. Times outside the years 0 to 9999 are clamped to that range.
#[must_use]
pub fn format(time: SystemTime) -> String {
    let bytes = format_bytes(time);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes an IMF-fixdate as a header value.
#[must_use]
pub fn header_value(time: SystemTime) -> HeaderValue {
    HeaderValue::from_bytes(&format_bytes(time)).unwrap_or(HeaderValue::from_static(EPOCH))
}

const EPOCH: &str = "Thu, 01 Jan 1970 00:00:00 GMT";
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAY: i64 = 86_400;
const FIRST_SECOND: i64 = -62_167_219_200; // 0000-01-01T00:00:00Z
const LAST_SECOND: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

#[derive(Clone, Copy)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

impl Fields {
    fn to_system_time(self) -> Option<SystemTime> {
        let days = days_from_civil(self.year, self.month, self.day);
        if civil_from_days(days) != (self.year, self.month, self.day) {
            return None; // such as 30 February
        }
        from_unix(days * DAY + self.second_of_day)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(v: &[u8]) -> Option<Fields> {
    if v.len() != 29 || v[3] != b',' || v[4] != b' ' || v[7] != b' ' || v[11] != b' ' {
        return None;
    }
    weekday(&v[..3], 3)?;
    gmt(&v[25..])?;
    Some(Fields {
        day: digits(&v[5..7])?,
        month: month(&v[8..11])?,
        year: digits(&v[12..16])?,
        second_of_day: if v[16] == b' ' { clock(&v[17..25])? } else { return None },
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(v: &[u8], comma: usize, now: SystemTime) -> Option<Fields> {
    weekday(&v[..comma], usize::MAX)?;
    let v = &v[comma + 1..];
    if v.len() != 23 || v[0] != b' ' || v[3] != b'-' || v[7] != b'-' || v[10] != b' ' {
        return None;
    }
    gmt(&v[19..])?;
    let mut fields = Fields {
        day: digits(&v[1..3])?,
        month: month(&v[4..7])?,
        year: 0,
        second_of_day: clock(&v[11..19])?,
    };
    fields.year = century(digits(&v[8..10])?, &fields, now);
    Some(fields)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(v: &[u8]) -> Option<Fields> {
    if v.len() != 24 || v[3] != b' ' || v[7] != b' ' || v[10] != b' ' || v[19] != b' ' {
        return None;
    }
    weekday(&v[..3], 3)?;
    let day = if v[8] == b' ' { digits(&v[9..10])? } else { digits(&v[8..10])? };
    Some(Fields {
        day,
        month: month(&v[4..7])?,
        year: digits(&v[20..24])?,
        second_of_day: clock(&v[11..19])?,
    })
}

/// The latest year ending in these two digits that is at most 50 years after `now`.
fn century(two_digits: i64, fields: &Fields, now: SystemTime) -> i64 {
    let now = to_unix(now).clamp(FIRST_SECOND, LAST_SECOND);
    let (year, month, day) = civil_from_days(now.div_euclid(DAY));
    let latest = year + 50;
    let candidate = latest - (latest - two_digits).rem_euclid(100);
    let here = (fields.month, fields.day, fields.second_of_day);
    if candidate == latest && here > (month, day, now.rem_euclid(DAY)) {
        candidate - 100
    } else {
        candidate
    }
}

fn weekday(name: &[u8], length: usize) -> Option<()> {
    WEEKDAYS
        .iter()
        .any(|day| name.eq_ignore_ascii_case(&day.as_bytes()[..length.min(day.len())]))
        .then_some(())
}

fn month(name: &[u8]) -> Option<i64> {
    let index = MONTHS.iter().position(|month| name.eq_ignore_ascii_case(*month))?;
    i64::try_from(index + 1).ok()
}

fn gmt(zone: &[u8]) -> Option<()> {
    zone.eq_ignore_ascii_case(b" GMT").then_some(())
}

fn clock(v: &[u8]) -> Option<i64> {
    if v.len() != 8 || v[2] != b':' || v[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (digits(&v[..2])?, digits(&v[3..5])?, digits(&v[6..])?);
    // 60 is a leap second
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// All ASCII digits; callers pass at most four.
fn digits(v: &[u8]) -> Option<i64> {
    v.iter().try_fold(0, |sum, &b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

fn format_bytes(time: SystemTime) -> [u8; 29] {
    let seconds = to_unix(time).clamp(FIRST_SECOND, LAST_SECOND);
    let days = seconds.div_euclid(DAY);
    let (year, month, day) = civil_from_days(days);
    let clock = seconds.rem_euclid(DAY);
    // 1 January 1970 was a Thursday, index 3
    let weekday = WEEKDAYS[usize::try_from((days + 3).rem_euclid(7)).unwrap_or(0)].as_bytes();

    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(&weekday[..3]);
    write_digits(&mut out[5..7], day);
    let month = usize::try_from(month - 1).unwrap_or(0).min(11);
    out[8..11].copy_from_slice(MONTHS[month]);
    write_digits(&mut out[12..16], year);
    write_digits(&mut out[17..19], clock / 3600);
    write_digits(&mut out[20..22], clock / 60 % 60);
    write_digits(&mut out[23..25], clock % 60);
    out
}

fn write_digits(out: &mut [u8], mut number: i64) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn to_unix(time: SystemTime) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => seconds(after),
        Err(before) => {
            let before = before.duration();
            let up = i64::from(before.subsec_nanos() > 0);
            0i64.saturating_sub(seconds(before)).saturating_sub(up)
        }
    }
}

fn from_unix(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; the year is taken to begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digit_years_turn_at_fifty_years() {
        let now = parse(b"Sat, 15 Jun 2030 12:00:00 GMT", UNIX_EPOCH).unwrap();
        let full = |text: &str| parse(text.as_bytes(), now).map(format).unwrap();
        assert!(full("Sunday, 15-Jun-80 12:00:00 GMT").contains(" 15 Jun 2080 "));
        assert!(full("Sunday, 15-Jun-80 12:00:01 GMT").contains(" 15 Jun 1980 "));
        assert!(full("Sunday, 16-Jun-81 00:00:00 GMT").contains(" 16 Jun 1981 "));
        assert!(full("Sunday, 06-Nov-94 08:49:37 GMT").contains(" 06 Nov 1994 "));
        assert!(full("Sunday, 06-Nov-29 08:49:37 GMT").contains(" 06 Nov 2029 "));
    }

    #[test]
    fn outer_limits_are_clamped() {
        let far = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)).unwrap_or(UNIX_EPOCH);
        assert_eq!(format(far), "Fri, 31 Dec 9999 23:59:59 GMT");
        let early = UNIX_EPOCH - Duration::from_secs(1 << 40);
        assert_eq!(format(early), "Sat, 01 Jan 0000 00:00:00 GMT");
        assert_eq!(format(UNIX_EPOCH - Duration::from_millis(1)), "Wed, 31 Dec 1969 23:59:59 GMT");
    }
}
