//! Reads the rate-limit headers of a response, throttled or not.
//!
//! This code runs for every successful call. It walks over the headers once and does not allocate.

pub(crate) mod dimension;
pub(crate) mod windows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap};

use crate::classify::headers::dimension::{Part, bucket_of};
use crate::classify::parse::{date, duration};
use crate::vocabulary::Dimension;

/// The maximum number of buckets read from one response: 8. Further buckets are ignored.
pub const MAX_DIMENSIONS: usize = 8;

/// One bucket as the headers describe it.
///
/// A value that is absent, negative, not a number, or contradicted by another is `None`, never zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BucketSnapshot {
    /// What the bucket counts.
    pub dimension: Dimension,
    /// The size of the bucket, in units of the dimension.
    pub limit: Option<f64>,
    /// The amount that remains, in units of the dimension.
    pub remaining: Option<f64>,
    /// The time until the bucket resets, from the arrival of the response. With OpenAI it is the time until the bucket
    /// is *full*.
    pub reset: Option<Duration>,
}

/// The buckets that the rate-limit headers of one response describe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimitSnapshot {
    buckets: [BucketSnapshot; MAX_DIMENSIONS],
    used: u8,
}

impl RateLimitSnapshot {
    /// Reads the headers of a response. Returns `None` if they name no bucket.
    ///
    /// A reset given as a date is relative to the response's `date` header. Without that header it is `None`.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::of(headers, None)
    }

    /// Reads the headers like [`from_headers`](Self::from_headers). `now` replaces a missing `date` header.
    pub fn at(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        Self::of(headers, Some(&|| now.duration_since(UNIX_EPOCH).ok()))
    }

    pub(crate) fn of(headers: &HeaderMap, clock: Option<&dyn Fn() -> Option<Duration>>) -> Option<Self> {
        let unknown = BucketSnapshot { dimension: Dimension::Unnamed, limit: None, remaining: None, reset: None };
        let mut snapshot = Self { buckets: [unknown; MAX_DIMENSIONS], used: 0 };
        let now = || own_date(headers).or_else(|| clock?());
        for (name, value) in headers {
            if let Some((dimension, part)) = bucket_of(name.as_str().as_bytes()) {
                snapshot.note(dimension, part, value.as_bytes(), now);
            }
        }
        snapshot.settle();
        (snapshot.used > 0).then_some(snapshot)
    }

    /// Returns all buckets, in the order of the headers.
    pub fn buckets(&self) -> &[BucketSnapshot] {
        &self.buckets[..usize::from(self.used)]
    }

    /// Returns the bucket of a dimension, if the headers name it.
    pub fn get(&self, dimension: Dimension) -> Option<&BucketSnapshot> {
        self.buckets().iter().find(|bucket| bucket.dimension == dimension)
    }

    fn note(&mut self, dimension: Dimension, part: Part, value: &[u8], now: impl Fn() -> Option<Duration>) {
        let Some(index) = self.index(dimension) else { return };
        let bucket = &mut self.buckets[index];
        match part {
            // If a header is repeated, the first value that can be parsed counts.
            Part::Limit => fill(&mut bucket.limit, value),
            Part::Remaining => fill(&mut bucket.remaining, value),
            Part::Reset if bucket.reset.is_some() => {}
            Part::Reset => bucket.reset = reset(value, now),
            Part::Structured => structured(bucket, value),
            Part::Policy => bucket.limit = bucket.limit.or_else(|| policy(value)),
        }
    }

    /// Drops values that contradict each other.
    fn settle(&mut self) {
        for bucket in &mut self.buckets[..usize::from(self.used)] {
            // Some servers send `-1`, `-1` and `0` for limit, remaining and reset to say that nothing is known. The
            // zero is not a delay.
            if bucket.remaining.is_none() && bucket.reset.is_some_and(|reset| reset.is_zero()) {
                bucket.reset = None;
            }
            if bucket.remaining > bucket.limit && bucket.limit.is_some() {
                (bucket.limit, bucket.remaining) = (None, None);
            }
        }
    }

    fn index(&mut self, dimension: Dimension) -> Option<usize> {
        let used = usize::from(self.used);
        if let Some(at) = self.buckets[..used].iter().position(|bucket| bucket.dimension == dimension) {
            return Some(at);
        }
        self.buckets.get_mut(used)?.dimension = dimension;
        self.used += 1;
        Some(used)
    }
}

/// Returns the `date` header, as time since the epoch.
pub(crate) fn own_date(headers: &HeaderMap) -> Option<Duration> {
    date::instant(headers.get(header::DATE)?.as_bytes())
}

fn fill(field: &mut Option<f64>, value: &[u8]) {
    if field.is_none() {
        *field = count(value).or_else(|| count(first_item(value)));
    }
}

fn reset(value: &[u8], now: impl Fn() -> Option<Duration>) -> Option<Duration> {
    duration::reset(value, &now).or_else(|| duration::reset(first_item(value), &now))
}

/// A whole text that is a number, finite and without a sign.
pub(crate) fn count(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let value = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
    (value.is_finite() && value >= 0.0 && !matches!(text[0], b'+' | b'-')).then_some(value)
}

/// Returns the first item of a list: older IETF drafts write `100, 100;w=60`. A date is returned whole, because it
/// contains a comma.
fn first_item(value: &[u8]) -> &[u8] {
    if !value.first().is_some_and(u8::is_ascii_digit) {
        return value;
    }
    value.split(|b| matches!(b, b',' | b';')).next().unwrap_or(value)
}

/// Reads `"burst";r=5;t=10, "daily";r=500;t=3600`, or the older `limit=100, remaining=50, reset=30`. The item with the
/// least remaining counts, and among equals the one with the longest reset.
fn structured(bucket: &mut BucketSnapshot, value: &[u8]) {
    for item in value.split(|b| *b == b',') {
        let (mut remaining, mut reset) = (None, None);
        for parameter in item.split(|b| *b == b';') {
            match split_once(parameter) {
                Some((b"r" | b"remaining", value)) => remaining = count(value),
                Some((b"t" | b"reset", value)) => reset = duration::seconds(value),
                Some((b"limit", value)) => bucket.limit = bucket.limit.or_else(|| count(value)),
                _ => {}
            }
        }
        if remaining.is_some() && bucket.remaining.is_none_or(|least| remaining < Some(least)) {
            (bucket.remaining, bucket.reset) = (remaining, reset);
        } else if remaining == bucket.remaining {
            // Among items with equal `remaining`, the longest reset counts.
            bucket.reset = bucket.reset.max(reset);
        }
        bucket.reset = bucket.reset.or(reset);
    }
}

/// Returns the quota of a policy, if there is exactly one and it counts requests.
fn policy(value: &[u8]) -> Option<f64> {
    let mut parameters = value.split(|b| matches!(b, b',' | b';')).filter_map(split_once);
    let quota = parameters.clone().filter(|(key, _)| *key == b"q").count();
    let other_unit = parameters.clone().any(|(key, unit)| key == b"qu" && unit != b"\"requests\"");
    (quota == 1 && !other_unit).then(|| count(parameters.find(|(key, _)| *key == b"q")?.1))?
}

fn split_once(parameter: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = parameter.iter().position(|b| *b == b'=')?;
    Some((parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    type Pairs<'a> = &'a [(&'a str, &'a str)];
    type Expected = (Dimension, Option<f64>, Option<f64>, Option<u64>);

    fn read(pairs: &[(&str, &str)]) -> Vec<Expected> {
        let snapshot = RateLimitSnapshot::from_headers(&headers(pairs));
        let row = |b: &BucketSnapshot| (b.dimension, b.limit, b.remaining, b.reset.map(|d| d.as_millis() as u64));
        snapshot.iter().flat_map(|s| s.buckets()).map(row).collect()
    }

    #[test]
    fn by_provider() {
        use Dimension::*;
        let date = ("date", "Tue, 14 Nov 2023 22:13:20 GMT");
        let cases: &[(Pairs<'_>, &[Expected])] = &[
            (
                &[
                    ("x-ratelimit-limit-requests", "500"),
                    ("x-ratelimit-remaining-requests", "499"),
                    ("x-ratelimit-reset-requests", "120ms"),
                    ("x-ratelimit-limit-tokens", "30000"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "1m0.052s"),
                    ("x-ratelimit-remaining-project-tokens", "9"),
                ],
                &[
                    (Requests, Some(500.0), Some(499.0), Some(120)),
                    (Tokens, Some(30000.0), Some(0.0), Some(60_052)),
                    (ProjectTokens, None, Some(9.0), None),
                ],
            ),
            (&[("x-rate-limit-reset-tokens", "12")], &[(Tokens, None, None, Some(12_000))]),
            (
                &[
                    ("x-ratelimit-limit-tokens", "-1"),
                    ("x-ratelimit-remaining-tokens", "-1"),
                    ("x-ratelimit-reset-tokens", "0"),
                ],
                &[(Tokens, None, None, None)],
            ),
            (
                &[
                    ("x-ratelimit-remaining-requests-day", "7"),
                    ("x-ratelimit-reset-requests-day", "33011.382867"),
                    ("x-ratelimit-remaining-tokens-minute", "8"),
                    ("x-ratelimit-limit-req-minute", "60"),
                ],
                &[
                    (RequestsPerDay, None, Some(7.0), Some(33_011_382)),
                    (Tokens, None, Some(8.0), None),
                    (Requests, Some(60.0), None, None),
                ],
            ),
            (
                &[
                    ("anthropic-ratelimit-input-tokens-limit", "40000"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:13:50Z"),
                    date,
                ],
                &[(InputTokens, Some(40000.0), Some(0.0), Some(30_000))],
            ),
            (&[("ratelimit", "\"api\";r=0;t=55")], &[(Unnamed, None, Some(0.0), Some(55_000))]),
            (
                &[("ratelimit", "\"a\";r=9;t=5, \"b\";r=2;t=50"), ("ratelimit-policy", "\"x\";q=500;w=300")],
                &[(Unnamed, Some(500.0), Some(2.0), Some(50_000))],
            ),
            (&[("ratelimit", "\"a\";r=0;t=5, \"b\";r=0;t=50")], &[(Unnamed, None, Some(0.0), Some(50_000))]),
            (&[("ratelimit", "\"b\";r=0;t=50, \"a\";r=0;t=5")], &[(Unnamed, None, Some(0.0), Some(50_000))]),
            (
                &[("ratelimit-limit", "100, 100;w=60"), ("ratelimit-reset", "30")],
                &[(Unnamed, Some(100.0), None, Some(30_000))],
            ),
            (&[("x-ratelimit-reset", "1700000030000"), date], &[(Unnamed, None, None, Some(30_000))]),
            (&[("x-ratelimit-reset", "1700000030000")], &[(Unnamed, None, None, None)]),
            (
                &[("x-ratelimit-limit-tokens", "5"), ("x-ratelimit-remaining-tokens", "6")],
                &[(Tokens, None, None, None)],
            ),
            (&[("x-ratelimit-limit-tokens", "nan")], &[(Tokens, None, None, None)]),
            (&[("x-ratelimit-tokens-query-cost", "5"), ("x-request-id", "1"), ("age", "2")], &[]),
        ];
        for (pairs, expected) in cases {
            assert_eq!(&read(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn repeated_and_too_many() {
        assert_eq!(
            read(&[("x-ratelimit-limit-tokens", "?"), ("x-ratelimit-limit-tokens", "7")]),
            [(Dimension::Tokens, Some(7.0), None, None)]
        );
        let names = ["requests", "tokens", "input-tokens", "output-tokens", "project-tokens", "project-requests"];
        let more = ["requests-hour", "requests-day", "tokens-hour", "tokens-day"];
        let names: Vec<_> = names.iter().chain(&more).map(|n| format!("x-ratelimit-limit-{n}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read(&pairs).len(), MAX_DIMENSIONS);
    }

    #[test]
    fn counts() {
        for (text, expected) in [
            ("0", Some(0.0)),
            (" 30000 ", Some(30_000.0)),
            ("1e3", Some(1_000.0)),
            ("0.5", Some(0.5)),
            ("99999999999999999999", Some(1e20)),
            ("", None),
            ("-1", None),
            ("-0", None),
            ("+1", None),
            ("1,000", None),
            ("inf", None),
            ("nan", None),
        ] {
            assert_eq!(count(text.as_bytes()), expected, "{text}");
        }
    }
}
