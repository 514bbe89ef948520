//! Parses dates: RFC 3339 and similar forms here, HTTP's three forms with `httpdate`.

use std::time::{Duration, UNIX_EPOCH};

use crate::classify::parse::number::number;

/// The offset from UTC, in seconds.
type Zone = i64;

/// Parses a whole text as a date and returns the time since the epoch. It accepts HTTP's three forms and those of
/// [`written`].
pub(crate) fn instant(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii();
    if let Some((then, end)) = written(text, 0) {
        return (end == text.len()).then_some(then);
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

/// Returns the zone for dates without one: China's in a Chinese text, else UTC.
pub(crate) fn zone_of(text: &[u8]) -> Zone {
    let chinese = text.iter().take(512).any(|b| (0xe4..=0xe9).contains(b));
    if chinese { 8 * 3600 } else { 0 }
}

/// Parses the date and time at the start of a text. Returns the time since the epoch, and the length.
///
/// It accepts RFC 3339, also with a space for the `T` or slashes for the hyphens, dates with the name of the month, and
/// Go's `2026-09-19 20:01:30.5 +0800 CST`. A date before the epoch becomes the epoch.
pub(crate) fn written(text: &[u8], zone: Zone) -> Option<(Duration, usize)> {
    let (days, at) = numeric_day(text).or_else(|| named_day(text))?;
    let between = separator(&text[at..]);
    let (time, clock) = clock(&text[at + between..])?;
    let at = at + between + clock;
    let (zone, length) = offset(&text[at..]).unwrap_or((zone, 0));
    let secs = (days * 86_400).checked_sub(zone)?.checked_add(time.as_secs() as i64)?;
    let then = u64::try_from(secs).map_or(Duration::ZERO, |secs| Duration::new(secs, time.subsec_nanos()));
    Some((then, at + length))
}

/// Parses `2026-09-19`, `2026/09/19`, `2026-Sep-19`. Returns days since the epoch.
fn numeric_day(text: &[u8]) -> Option<(i64, usize)> {
    let mark = |at: usize| text.get(at).is_some_and(|c| matches!(c, b'-' | b'/'));
    let year = digits(text.get(..4)?)?;
    let (month, at) = match text.get(5..8).and_then(month) {
        Some(month) => (month, 8),
        None => (two(text, 5, 12)?, 7),
    };
    let day = two(text, at + 1, 31)?;
    (mark(4) && mark(at) && month > 0 && day > 0).then(|| (days_since_epoch(year, month, day), at + 3))
}

/// Parses `September 19, 2026`, `Sep 19 2026`, `19 September 2026`.
fn named_day(text: &[u8]) -> Option<(i64, usize)> {
    let mut words = text.split(|b| matches!(b, b' ' | b','));
    let mut at = 0;
    let mut next = || loop {
        let word = words.next()?;
        at += word.len() + 1;
        if !word.is_empty() {
            return Some((word, at - 1));
        }
    };
    let (first, second, (third, end)) = (next()?.0, next()?.0, next()?);
    let (name, day) = if first.first()?.is_ascii_digit() { (second, first) } else { (first, second) };
    let (month, day) = (month(name.get(..3)?)?, digits(day).filter(|d| (1..=31).contains(d))?);
    let year = digits(third).filter(|_| third.len() == 4)?;
    Some((days_since_epoch(year, month, day), end))
}

/// Returns the length of the separator between a date and its time.
fn separator(text: &[u8]) -> usize {
    let known = [&b", at "[..], b" at ", b", ", b" ", b"T", b"t"];
    known.iter().find(|between| text.starts_with(between)).map_or(0, |between| between.len())
}

/// Parses `20:01`, `20:01:30.5`, `8:01 PM`.
fn clock(text: &[u8]) -> Option<(Duration, usize)> {
    let wide = usize::from(text.get(1)?.is_ascii_digit());
    let (hour, minute) = (digits(text.get(..1 + wide)?).filter(|hour| *hour <= 24)?, two(text, 2 + wide, 59)?);
    let mut at = 4 + wide;
    if text[1 + wide] != b':' {
        return None;
    }
    let mut time = Duration::from_secs(hour as u64 * 3600 + minute as u64 * 60);
    if text.get(at) == Some(&b':') {
        time += Duration::from_secs(two(text, at + 1, 60)? as u64);
        at += 3;
        if text.get(at) == Some(&b'.') {
            let (fraction, length) = number(&text[at..])?;
            time += fraction.seconds();
            at += length;
        }
    }
    let blank = usize::from(text.get(at) == Some(&b' '));
    let half = text.get(at + blank..at + blank + 2).map(<[u8]>::to_ascii_lowercase);
    match half.as_deref() {
        Some(b"pm") if hour < 12 => Some((time + Duration::from_secs(12 * 3600), at + blank + 2)),
        Some(b"am") if hour == 12 => Some((time - Duration::from_secs(12 * 3600), at + blank + 2)),
        Some(b"am" | b"pm") => Some((time, at + blank + 2)),
        _ => Some((time, at)),
    }
}

/// Parses the zone at the start of a text. Returns it with its length: `Z`, `+08:00`, ` +0800 CST`, ` UTC`, ` (UTC+8)`,
/// ` PST`.
fn offset(text: &[u8]) -> Option<(Zone, usize)> {
    const NAMES: [(&[u8], Zone); 8] =
        [(b"UTC", 0), (b"GMT", 0), (b"Z", 0), (b"z", 0), (b"PST", -8), (b"PDT", -7), (b"EST", -5), (b"EDT", -4)];
    let mut at = text.iter().take(2).take_while(|b| matches!(b, b' ' | b'(')).count();
    let name = NAMES.iter().find(|(name, _)| text[at..].starts_with(name));
    at += name.map_or(0, |(name, _)| name.len());
    let Some(mark @ (b'+' | b'-')) = text.get(at) else {
        return name.map(|(_, hours)| (hours * 3600, at));
    };
    let wide = text[at + 1..].iter().take(2).take_while(|b| b.is_ascii_digit()).count();
    let hours = digits(&text[at + 1..at + 1 + wide]).filter(|hours| wide > 0 && *hours <= 23)?;
    let mut end = at + 1 + wide;
    let colon = usize::from(text.get(end) == Some(&b':'));
    let minutes = two(text, end + colon, 59);
    end += minutes.map_or(0, |_| colon + 2);
    // Go repeats the zone by its name or by the same digits.
    let again = text.get(end + 1..).unwrap_or_default();
    let letters = again.iter().take(5).take_while(|b| b.is_ascii_uppercase()).count();
    let digits_again = again.starts_with(&text[at..end]);
    if name.is_none() && text.get(end) == Some(&b' ') && ((2..=4).contains(&letters) || digits_again) {
        end += 1 + if digits_again { end - at } else { letters };
    }
    let seconds = hours * 3600 + minutes.unwrap_or(0) * 60;
    Some((if *mark == b'-' { -seconds } else { seconds }, end))
}

/// Returns the month by the first three letters of its name.
fn month(name: &[u8]) -> Option<i64> {
    const NAMES: &[u8] = b"janfebmaraprmayjunjulaugsepoctnovdec";
    let at = NAMES.chunks(3).position(|month| month.eq_ignore_ascii_case(name))?;
    Some(at as i64 + 1)
}

fn two(text: &[u8], at: usize, max: i64) -> Option<i64> {
    digits(text.get(at..at + 2)?).filter(|value| *value <= max)
}

/// Returns the days since 1970-01-01 in the Gregorian calendar. Years begin in March here, so that the leap day is the
/// last day.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn digits(text: &[u8]) -> Option<i64> {
    let value = |value: i64, b: &u8| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0'));
    (text.len() <= 4).then(|| text.iter().try_fold(0, value))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_789_819_200; // 2026-09-19 12:00 UTC

    #[test]
    fn calendar() {
        let secs = |text: &str| written(text.as_bytes(), 0).map(|t| t.0.as_secs());
        assert_eq!(secs("2000-02-29T00:00:00Z"), Some(951_782_400));
        assert_eq!(secs("1960-01-01T00:00:00Z"), Some(0));
        assert_eq!(secs("2024-13-01T00:00:00Z"), None);
        assert_eq!(secs("2024-01-01T00:0"), None);
    }

    #[test]
    fn zones() {
        for text in [
            "2026-09-19T12:00:00Z",
            "2026-09-19 12:00:00",
            "2026-09-19 20:00:00 +0800 CST",
            "2026-09-19 20:00:00.000 +0800 +0800",
            "2026-09-19 20:00:00 +08:00",
            "2026-09-19T20:00:00+08:00",
            "2026-09-19 20:00:00+08",
            "2026-09-19 12:00:00 UTC",
            "2026-09-19 12:00:00 +0000 UTC",
            "2026-09-19 20:00:00 (UTC+8)",
            "2026-09-19 20:00 UTC+08:00",
            "2026-09-19 05:00:00 PDT",
            "2026-09-19 07:30:00 -0430",
            "2026/09/19 12:00:00",
            "2026-Sep-19 12:00:00+0000 UTC",
            "September 19, 2026 at 12:00 PM",
            "Sep 19, 2026, 12:00:00 GMT",
            "19 Sep 2026 12:00:00",
        ] {
            let read = written(text.as_bytes(), 0).map(|(then, end)| (then.as_secs(), end));
            assert!(matches!(read, Some((NOON, _))), "{text}: {read:?}");
            assert!(read.unwrap().1 + 1 >= text.len(), "{text}: {read:?}");
        }
        assert_eq!(written(b"2026-09-19 20:00:00", zone_of("重置".as_bytes())).map(|t| t.0.as_secs()), Some(NOON));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "2026",
            "2026-09-19",
            "2026-09-19T",
            "May I",
            "2026-00-19T12:00",
            "99 Sep 2026 12:00",
            "2026-09-19 12:0",
        ] {
            assert_eq!(written(text.as_bytes(), 0), None, "{text}");
        }
    }
}
