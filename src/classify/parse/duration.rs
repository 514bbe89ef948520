//! Parses durations and dates as servers write them.
//!
//! All functions accept any input. An unreadable text gives `None`; so do negative numbers, `nan` and `inf`. A value
//! that is too large becomes [`MAX`].

use std::time::Duration;

use crate::classify::parse::date::instant;
use crate::classify::parse::number::{exponential, number};
use crate::classify::parse::time_unit::{MAX, MILLISECOND, SECOND, Unit, unit};

/// Rounds up to whole milliseconds, so that a delay is never shorter than stated.
pub(crate) fn ceil_ms(delay: Duration) -> Duration {
    let ms = Duration::from_millis(u64::from(delay.subsec_nanos().div_ceil(1_000_000)));
    Duration::from_secs(delay.as_secs()).saturating_add(ms).min(MAX)
}

/// Parses a whole text as a number of seconds: `20`, `23.517324`, `1e3`.
pub(crate) fn seconds(text: &[u8]) -> Option<Duration> {
    whole(text.trim_ascii(), SECOND)
}

/// Parses a whole text as a number of milliseconds.
pub(crate) fn millis(text: &[u8]) -> Option<Duration> {
    whole(text.trim_ascii(), MILLISECOND)
}

fn whole(text: &[u8], unit: Unit) -> Option<Duration> {
    let (value, end) = exponential(text)?;
    (end == text.len()).then(|| value.of(unit))
}

/// Parses a delay in a header or a field: seconds, a duration with units, `HH:MM:SS`, or a date.
///
/// `now` returns the time since the epoch. It is called only for a date.
pub(crate) fn delay(text: &[u8], now: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
    let text = unquote(text);
    if let Some(relative) = seconds(text).or_else(|| spelled(text)) {
        return Some(relative);
    }
    until(instant(text)?, now)
}

/// Parses the reset of a bucket. It accepts the forms of [`delay`]. A number from 10^9 on is a Unix time in seconds,
/// and from 10^12 on in milliseconds.
pub(crate) fn reset(text: &[u8], now: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
    let text = unquote(text);
    let (value, end) = exponential(text).unzip();
    match value.filter(|_| end == Some(text.len())) {
        Some(value) if value.whole < 1_000_000_000 => Some(value.of(SECOND)),
        Some(value) if value.whole < 1_000_000_000_000 => until(value.of(SECOND), now),
        Some(value) => until(value.of(MILLISECOND), now),
        None => spelled(text).or_else(|| until(instant(text)?, now)),
    }
}

/// Returns the time from `now` to `then`, or zero if `then` has passed.
pub(crate) fn until(then: Duration, now: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
    Some(then.saturating_sub(now()?).min(MAX))
}

/// Parses a whole text as a Go duration (`1h2m3.5s`, `350µs`), a duration in words (`6 seconds`), or `HH:MM:SS`.
pub(crate) fn spelled(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii();
    let (delay, end) = prose(text)?;
    (end == text.len()).then_some(delay)
}

/// Parses the duration with units at the start of a text. Returns it with its length in bytes: `6m0s`, `1 minute and 30
/// seconds`, `20.09:58:55`.
pub(crate) fn prose(text: &[u8]) -> Option<(Duration, usize)> {
    if text.first() == Some(&b'P') {
        return iso8601(text);
    }
    let (mut total, mut end) = (Duration::ZERO, 0);
    let mut at = 0;
    while let Some((value, digits)) = number(&text[at..]) {
        let mut word = at + digits;
        if at == 0 && text.get(digits) == Some(&b':') {
            return timespan(text);
        }
        word += text[word..].iter().take_while(|&&b| matches!(b, b' ' | b'-')).take(2).count();
        let Some((unit, letters)) = unit(&text[word..]) else { break };
        total = total.saturating_add(value.of(unit)).min(MAX);
        end = word + letters;
        at = end + gap(&text[end..]);
    }
    (end > 0).then_some((total, end))
}

/// Parses ISO 8601 durations of days and less: `PT1M2.5S`, `P1DT2H`.
fn iso8601(text: &[u8]) -> Option<(Duration, usize)> {
    let (mut total, mut at, mut in_day, mut seen) = (Duration::ZERO, 1, false, false);
    loop {
        if text.get(at) == Some(&b'T') && !in_day {
            (in_day, at) = (true, at + 1);
        }
        let Some((value, length)) = number(&text[at..]) else { break };
        let unit = match (text.get(at + length)?, in_day) {
            (b'D', false) => Unit::Seconds(86_400),
            (b'H', true) => Unit::Seconds(3600),
            (b'M', true) => Unit::Seconds(60),
            (b'S', true) => SECOND,
            _ => return None,
        };
        total = total.saturating_add(value.of(unit)).min(MAX);
        (at, seen) = (at + length + 1, true);
    }
    seen.then_some((total, at))
}

/// Returns the length of the separator between two parts of a duration.
fn gap(text: &[u8]) -> usize {
    if !matches!(text.first(), Some(b' ' | b',')) {
        return 0;
    }
    [&b", and "[..], b" and ", b", ", b" "].iter().find(|g| text.starts_with(g)).map_or(0, |g| g.len())
}

/// Parses `HH:MM:SS` or .NET's `d.HH:MM:SS`, with or without a fraction.
fn timespan(text: &[u8]) -> Option<(Duration, usize)> {
    let mut end = text.iter().take(40).take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b':')).count();
    end -= usize::from(text[..end].ends_with(b"."));
    let mut parts = text[..end].split(|b| *b == b':');
    let (first, minutes, secs) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = match first.iter().position(|b| *b == b'.') {
        Some(dot) => (whole(&first[..dot], Unit::Seconds(86_400))?, &first[dot + 1..]),
        None => (Duration::ZERO, first),
    };
    let rest = whole(hours, Unit::Seconds(3600))?.saturating_add(whole(minutes, Unit::Seconds(60))?);
    Some((days.saturating_add(rest).saturating_add(whole(secs, SECOND)?).min(MAX), end))
}

fn unquote(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text).trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn durations() {
        let cases: &[(&str, Option<u64>)] = &[
            ("8ms", Some(8)),
            ("6m0s", Some(360_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("18.642s", Some(18_642)),
            ("1.5ms", Some(2)),
            ("350µs", Some(1)),
            ("0s", Some(0)),
            ("51.84 seconds", Some(51_840)),
            ("1 minute and 30 seconds", Some(90_000)),
            ("2 Hours, 5 Minutes", Some(7_500_000)),
            ("20.09:58:55", Some((20 * 86_400 + 9 * 3600 + 58 * 60 + 55) * 1000)),
            ("00:00:07", Some(7000)),
            ("PT1M2.5S", Some(62_500)),
            ("P1DT2H", Some(93_600_000)),
            ("P", None),
            ("PT5", None),
            ("1小时5分钟30秒", Some(3_930_000)),
            ("19hr 5min", Some(68_700_000)),
            ("30", None),
            ("-5s", None),
            ("infs", None),
            ("5 apples", None),
            ("", None),
            (".s", None),
        ];
        for (text, ms) in cases {
            assert_eq!(spelled(text.as_bytes()).map(|d| ceil_ms(d).as_millis() as u64), *ms, "{text}");
        }
    }

    #[test]
    fn delays_and_resets() {
        let cases: &[(&str, Option<u64>, Option<u64>)] = &[
            ("20", Some(20_000), Some(20_000)),
            (" 23.517324 ", Some(23_518), Some(23_518)),
            ("1e3", Some(1_000_000), Some(1_000_000)),
            ("-1", None, None),
            ("nan", None, None),
            ("inf", None, None),
            ("+3", None, None),
            ("", None, None),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Some(30_000), Some(30_000)),
            ("Tuesday, 14-Nov-23 22:13:50 GMT", Some(30_000), Some(30_000)),
            ("Tue Nov 14 22:13:50 2023", Some(30_000), Some(30_000)),
            ("Tue, 14 Nov 2000 22:13:50 GMT", Some(0), Some(0)),
            ("2023-11-14T22:13:50Z", Some(30_000), Some(30_000)),
            ("2023-11-15T00:13:50.25+02:00", Some(30_250), Some(30_250)),
            ("1700000030", Some(1_700_000_030_000), Some(30_000)),
            ("1700000030500", Some(MAX.as_millis() as u64), Some(30_500)),
            ("\"55\"", Some(55_000), Some(55_000)),
        ];
        for (text, as_delay, as_reset) in cases {
            let ms = |d: Option<Duration>| d.map(|d| ceil_ms(d).as_millis() as u64);
            assert_eq!(ms(delay(text.as_bytes(), || Some(NOW))), *as_delay, "{text} as delay");
            assert_eq!(ms(reset(text.as_bytes(), || Some(NOW))), *as_reset, "{text} as reset");
        }
    }

    #[test]
    fn huge_saturates() {
        for text in ["18446744073709551615", "1e300", "1e999", "99999999999999999999999999999999999999999999999"] {
            assert_eq!(seconds(text.as_bytes()), Some(MAX), "{text}");
        }
        assert_eq!(spelled(b"99999999999999999999h99999999999d"), Some(MAX));
    }
}
