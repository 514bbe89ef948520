//! Reads points of time: RFC 3339 by hand, HTTP's three forms through `httpdate`.

use std::time::{Duration, UNIX_EPOCH};

use super::number::number;

/// A whole text that is a date, as time since the epoch: one of HTTP's three forms or RFC 3339.
pub(crate) fn instant(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii();
    if let Some((then, end)) = rfc3339(text) {
        return (end == text.len()).then_some(then);
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

/// The RFC 3339 time that a text begins with, since the epoch, and its length. A missing zone is UTC, a blank may stand
/// for the `T`; times before the epoch are the epoch.
pub(crate) fn rfc3339(text: &[u8]) -> Option<(Duration, usize)> {
    let two = |at: usize, max: u64| digits(text.get(at..at + 2)?).filter(|v| *v <= max);
    let mark = |at: usize, b: &[u8]| text.get(at).is_some_and(|c| b.contains(c));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":")) {
        return None;
    }
    let (year, month, day) = (digits(text.get(..4)?)?, two(5, 12)?, two(8, 31)?);
    let (hour, minute) = (two(11, 24)?, two(14, 59)?);
    if month == 0 || day == 0 {
        return None;
    }
    let mut at = 16;
    let mut time = Duration::from_secs(hour * 3600 + minute * 60);
    if mark(at, b":") {
        time += Duration::from_secs(two(at + 1, 60)?);
        at += 3;
        if mark(at, b".") {
            let (fraction, length_of) = number(&text[at..])?;
            time += fraction.seconds();
            at += length_of;
        }
    }
    let mut offset = 0_i64;
    if mark(at, b"Zz") {
        at += 1;
    } else if text[at..].starts_with(b" UTC") || text[at..].starts_with(b" GMT") {
        at += 4;
    } else if mark(at, b"+-") {
        let colon = usize::from(mark(at + 3, b":"));
        let (hours, minutes) = (two(at + 1, 23)?, two(at + 3 + colon, 59)?);
        offset = (hours * 3600 + minutes * 60) as i64 * if text[at] == b'-' { -1 } else { 1 };
        at += 5 + colon;
    }
    let midnight = days_since_epoch(year as i64, month as i64, day as i64) * 86_400;
    let secs = midnight.checked_sub(offset)?.checked_add(time.as_secs() as i64)?;
    let then = u64::try_from(secs).map_or(Duration::ZERO, |secs| Duration::new(secs, time.subsec_nanos()));
    Some((then, at))
}

/// Days from 1970-01-01 in the Gregorian calendar (years begin in March here, so that the leap day is the last).
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, b| b.is_ascii_digit().then(|| value * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        assert_eq!(rfc3339(b"2000-02-29T00:00:00Z").map(|t| t.0.as_secs()), Some(951_782_400));
        assert_eq!(rfc3339(b"1960-01-01T00:00:00Z").map(|t| t.0.as_secs()), Some(0));
        assert_eq!(rfc3339(b"2024-13-01T00:00:00Z"), None);
        assert_eq!(rfc3339(b"2024-01-01T00:0"), None);
    }
}
