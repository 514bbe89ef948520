//! Reads buckets whose header name has a window or an owner that no [`Dimension`](super::Dimension) covers, such as
//! `x-ratelimit-remaining-tokens-5-minute` or Kong's `x-ai-ratelimit-remaining-minute-{provider}`.
//!
//! A bucket of unknown window cannot set a pace, so these are not part of a
//! [`RateLimitSnapshot`](super::RateLimitSnapshot). They only give the reset of an exhausted bucket.

use std::time::Duration;

use http::HeaderMap;

use crate::classify::headers;
use crate::classify::headers::dimension::bucket_of;
use crate::classify::parse::duration;

/// The maximum number of such buckets.
const MAX_BUCKETS: usize = 16;

/// One bucket. `before` and `after` are its name without the word `remaining` or `reset`.
struct Bucket<'h> {
    before: &'h str,
    after: &'h str,
    remaining: Option<f64>,
    reset: Option<Duration>,
}

/// The delays and resets that such headers give.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Windows {
    /// The longest stated delay: `x-ai-ratelimit-retry-after-minute-{provider}`.
    pub(crate) stated: Option<Duration>,
    /// The longest reset of an exhausted bucket.
    pub(crate) reset: Option<Duration>,
    /// Whether a bucket is exhausted, with a reset or without.
    pub(crate) exhausted: bool,
}

impl Windows {
    pub(crate) fn read(headers: &HeaderMap, now: &dyn Fn() -> Option<Duration>) -> Self {
        let mut found = Self::default();
        let mut buckets: Vec<Bucket<'_>> = Vec::new();
        for (name, value) in headers {
            let Some(rest) = family(name.as_str()).filter(|_| bucket_of(name.as_str().as_bytes()).is_none()) else {
                continue;
            };
            let value = value.as_bytes();
            if rest.starts_with("retry-after-") && rest != "retry-after-ms" || name == "x-ai-ratelimit-retry-after" {
                found.stated = found.stated.max(duration::delay(value, now).map(duration::ceil_ms));
            }
            for part in ["remaining", "reset"] {
                let Some((before, after)) = split(rest, part) else { continue };
                let known = buckets.iter().position(|bucket| bucket.before == before && bucket.after == after);
                let at = known.unwrap_or(buckets.len());
                if at == MAX_BUCKETS {
                    continue;
                }
                if known.is_none() {
                    buckets.push(Bucket { before, after, remaining: None, reset: None });
                }
                match part {
                    "remaining" => buckets[at].remaining = headers::count(value),
                    _ => buckets[at].reset = duration::reset(value, now),
                }
            }
        }
        // A bucket without `remaining` does not count as exhausted.
        for bucket in buckets.iter().filter(|bucket| bucket.remaining.is_some_and(|left| left < 1.0)) {
            found.exhausted = true;
            found.reset = found.reset.max(bucket.reset);
        }
        found
    }
}

/// Returns the name without the prefix of rate-limit headers.
fn family(name: &str) -> Option<&str> {
    const FAMILIES: [&str; 5] = ["x-ratelimit-", "x-rate-limit-", "x-ai-ratelimit-", "x-ai-rate-limit-", "ratelimit-"];
    FAMILIES.iter().find_map(|family| name.strip_prefix(family))
}

/// Returns the parts of a name before and after a word.
fn split<'n>(name: &'n str, word: &str) -> Option<(&'n str, &'n str)> {
    let at = name.find(word)?;
    let (before, after) = (&name[..at], &name[at + word.len()..]);
    let whole = before.is_empty() || before.ends_with('-');
    (whole && (after.is_empty() || after.starts_with('-'))).then_some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn read(pairs: &[(&'static str, &'static str)]) -> (Option<u64>, Option<u64>, bool) {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let map: HeaderMap = pairs.iter().map(pair).collect();
        let found = Windows::read(&map, &|| Some(Duration::from_secs(1_700_000_000)));
        let secs = |delay: Option<Duration>| delay.map(|delay| delay.as_secs());
        (secs(found.stated), secs(found.reset), found.exhausted)
    }

    #[test]
    fn names_with_an_odd_window_or_owner() {
        for (pairs, expected) in [
            (
                &[("x-ratelimit-remaining-tokens-5-minute", "0"), ("x-ratelimit-reset-tokens-5-minute", "120")][..],
                (None, Some(120), true),
            ),
            (
                &[("x-ai-ratelimit-remaining-minute-openai", "0"), ("x-ai-ratelimit-retry-after", "44")],
                (Some(44), None, true),
            ),
            (
                &[("x-ai-ratelimit-remaining-30-azure", "0"), ("x-ai-ratelimit-retry-after-30-azure", "17")],
                (Some(17), None, true),
            ),
            (&[("x-ai-ratelimit-remaining-proxy", "0"), ("x-ai-ratelimit-reset-proxy", "37")], (None, Some(37), true)),
            (
                &[
                    ("x-ratelimit-remaining-tokens-month", "0"),
                    ("x-ratelimit-reset-tokens-month", "90000"),
                    ("x-ratelimit-remaining-tokens-5-minute", "8"),
                    ("x-ratelimit-reset-tokens-5-minute", "300"),
                ],
                (None, Some(90_000), true),
            ),
            (&[("x-ratelimit-reset-tokens-5-minute", "300")], (None, None, false)),
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "9")], (None, None, false)),
            (&[("x-request-id", "1")], (None, None, false)),
        ] {
            assert_eq!(read(pairs), expected, "{pairs:?}");
        }
    }
}
