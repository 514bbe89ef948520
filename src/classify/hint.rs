//! When to come back: which of the delays that an answer states counts.
//!
//! `retry-after-ms` (and Azure's `x-ms-retry-after-ms`) first, being exact; else the larger of `Retry-After` and what the
//! body says; else, as an upper bound, the reset of a bucket that is exhausted. What cannot be read is as if absent, zero
//! and dates in the past are zero, and all is rounded up to whole milliseconds. Of a header that is repeated the first
//! that can be read counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::{Dimension, HintSource, Scope};
use crate::classify::headers::{self, BucketSnapshot, RateLimitSnapshot};
use crate::classify::parse::duration;

/// When the headers alone say to come back, counted from the answer: `retry-after-ms` and its kin, else `retry-after`.
///
/// The reset of a bucket does not count here: it is an upper bound, not an advice. Dates are counted from the answer's
/// own `date` header, or from `now` if it has none. Rounded up to milliseconds, at most 100 years.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let now = || headers::own_date(headers).or_else(|| since_epoch(now));
    let stated = Stated::read(headers, &now);
    stated.exact.or(stated.coarse)
}

/// What the server itself says about a retry: OpenAI's and Anthropic's `x-should-retry`.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    headers.get_all("x-should-retry").iter().find_map(|value| match value.as_bytes().trim_ascii() {
        yes if yes.eq_ignore_ascii_case(b"true") => Some(true),
        no if no.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    })
}

/// Zero for what is before the epoch.
pub(super) fn since_epoch(now: SystemTime) -> Option<Duration> {
    Some(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The delays that headers state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stated {
    /// In milliseconds: these count before all else.
    pub(super) exact: Option<Duration>,
    /// In seconds, or as a date.
    pub(super) coarse: Option<Duration>,
}

impl Stated {
    pub(super) fn read(headers: &HeaderMap, now: &dyn Fn() -> Option<Duration>) -> Self {
        let (mut found, mut reset_at) = (Self::default(), None);
        for (name, value) in headers {
            let name = name.as_str();
            // LiteLLM's proxy hands the headers of the server behind it on with a prefix.
            let name = name.strip_prefix("llm_provider-").unwrap_or(name);
            let value = value.as_bytes();
            match name {
                "retry-after-ms" | "x-ms-retry-after-ms" | "x-retry-after-ms" if found.exact.is_none() => {
                    found.exact = duration::millis(value).map(duration::ceil_ms);
                }
                "retry-after" if found.coarse.is_none() => {
                    found.coarse = duration::delay(value, now).map(duration::ceil_ms);
                }
                // LiteLLM's own limits.
                "reset_at" => reset_at = reset_at.or_else(|| duration::reset(value, now).map(duration::ceil_ms)),
                _ => {}
            }
        }
        for name in ["x-retry-after", "x-ratelimit-retry-after", "x-ratelimit-timeremaining"] {
            if found.coarse.is_none() {
                let mut values = headers.get_all(name).iter();
                found.coarse = values.find_map(|v| duration::delay(v.as_bytes(), now)).map(duration::ceil_ms);
            }
        }
        found.coarse = found.coarse.or(reset_at);
        found
    }
}

/// The exhausted bucket that an error answer speaks of: the one it names, else the one that takes longest.
pub(super) fn exhausted(snapshot: &RateLimitSnapshot, scope: Option<Scope>) -> Option<&BucketSnapshot> {
    let all = || snapshot.buckets().iter().filter(|bucket| is_exhausted(bucket));
    let named = all().filter(|bucket| scope.is_some_and(|scope| speaks_of(bucket.dimension, scope)));
    named.reduce(longer).or_else(|| all().reduce(longer))
}

/// Of equals the first.
fn longer<'s>(one: &'s BucketSnapshot, two: &'s BucketSnapshot) -> &'s BucketSnapshot {
    if two.reset > one.reset { two } else { one }
}

/// Nothing left, or a reset without a word of what is left: nobody tells when a full bucket is reset.
fn is_exhausted(bucket: &BucketSnapshot) -> bool {
    match bucket.remaining {
        Some(remaining) => remaining < 1.0,
        None => bucket.reset.is_some(),
    }
}

/// Whether a bucket is one of those that a scope means.
pub(super) fn speaks_of(dimension: Dimension, scope: Scope) -> bool {
    match scope {
        Scope::Requests => matches!(dimension, Dimension::Requests | Dimension::ProjectRequests | Dimension::Unnamed),
        Scope::DailyRequests => {
            matches!(dimension, Dimension::Requests | Dimension::RequestsPerDay | Dimension::Unnamed)
        }
        Scope::DailyTokens => matches!(dimension, Dimension::Tokens | Dimension::TokensPerDay),
        Scope::Tokens => matches!(
            dimension,
            Dimension::Tokens | Dimension::ProjectTokens | Dimension::UsageBasedTokens | Dimension::TokensPerHour
        ),
        Scope::InputTokens => dimension == Dimension::InputTokens,
        Scope::OutputTokens => dimension == Dimension::OutputTokens,
        _ => false,
    }
}

/// The scope that a bucket's name gives.
pub(super) fn scope_of(dimension: Dimension) -> Option<Scope> {
    Some(match dimension {
        Dimension::Requests | Dimension::ProjectRequests | Dimension::RequestsPerHour | Dimension::Unnamed => {
            Scope::Requests
        }
        Dimension::Tokens | Dimension::ProjectTokens | Dimension::UsageBasedTokens | Dimension::TokensPerHour => {
            Scope::Tokens
        }
        Dimension::InputTokens => Scope::InputTokens,
        Dimension::OutputTokens => Scope::OutputTokens,
        Dimension::RequestsPerDay => Scope::DailyRequests,
        Dimension::TokensPerDay => Scope::DailyTokens,
    })
}

/// Until the window of a subscription at Anthropic ends, unless it is said not to be what was met.
pub(super) fn unified_reset(headers: &HeaderMap, now: &dyn Fn() -> Option<Duration>) -> Option<Duration> {
    let reset = headers.get("anthropic-ratelimit-unified-reset")?;
    let status = headers.get("anthropic-ratelimit-unified-status");
    let met = status.is_none_or(|status| !status.as_bytes().starts_with(b"allowed"));
    met.then(|| duration::reset(reset.as_bytes(), now))?
}

/// The delay of an answer and where it was found.
pub(super) fn delay(stated: Stated, body: Option<Duration>, reset: Option<Duration>) -> Option<(Duration, HintSource)> {
    let said = stated.exact.or_else(|| stated.coarse.max(body.map(duration::ceil_ms)));
    let found = said.map(|delay| (delay, HintSource::Stated));
    found.or_else(|| reset.map(|delay| (duration::ceil_ms(delay), HintSource::Reset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn read(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        retry_after(&headers, UNIX_EPOCH + NOW)
    }

    #[test]
    fn precedence() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(read(&[("retry-after", "1"), ("retry-after-ms", "494")]), ms(494));
        assert_eq!(read(&[("retry-after", "1"), ("x-ms-retry-after-ms", "90000")]), ms(90_000));
        assert_eq!(read(&[("retry-after", "1"), ("retry-after-ms", "-3")]), ms(1000));
        assert_eq!(read(&[("retry-after", "soon"), ("retry-after", "2")]), ms(2000));
        assert_eq!(read(&[("llm_provider-retry-after", "3")]), ms(3000));
        assert_eq!(read(&[("x-ratelimit-timeremaining", "55")]), ms(55_000));
        assert_eq!(read(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]), ms(30_000));
        let date = ("date", "Tue, 14 Nov 2023 22:13:40 GMT");
        assert_eq!(read(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT"), date]), ms(10_000));
        assert_eq!(read(&[("retry-after", "18446744073709551615")]), Some(crate::classify::parse::time_unit::MAX));
        assert_eq!(read(&[("x-ratelimit-reset-tokens", "5s")]), None);
    }

    #[test]
    fn should_retry_is_a_word() {
        let of = |value| should_retry(&HeaderMap::from_iter([("x-should-retry".parse().unwrap(), value)]));
        assert_eq!(of(http::HeaderValue::from_static("TRUE")), Some(true));
        assert_eq!(of(http::HeaderValue::from_static("false ")), Some(false));
        assert_eq!(of(http::HeaderValue::from_static("1")), None);
        assert_eq!(should_retry(&HeaderMap::new()), None);
    }
}
