//! Derives the delay before a retry from the headers and the body.
//!
//! `retry-after-ms` and Azure's `x-ms-retry-after-ms` take precedence because they are exact. Next is the larger of
//! `retry-after` and the delay in the body. The last is the reset of an exhausted bucket, which is an upper bound. A
//! value that cannot be parsed counts as absent. Dates in the past count as zero. Delays are rounded up to whole
//! milliseconds. If a header is repeated, the first value that can be parsed counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::{Dimension, HintSource, Scope};
use crate::classify::headers::{self, BucketSnapshot, RateLimitSnapshot};
use crate::classify::parse::duration;

/// Returns the delay that the headers state: `retry-after-ms` and its variants, else `retry-after`.
///
/// The reset of a bucket does not count here, because it is only an upper bound. Dates are relative to the `date`
/// header, or to `now` if there is none. The delay is rounded up to milliseconds and is at most 100 years.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let now = || headers::own_date(headers).or_else(|| since_epoch(now));
    let stated = Stated::read(headers, &now);
    stated.exact.or(stated.coarse)
}

/// Returns the value of the header `x-should-retry`, which OpenAI and Anthropic send.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    headers.get_all("x-should-retry").iter().find_map(|value| match value.as_bytes().trim_ascii() {
        yes if yes.eq_ignore_ascii_case(b"true") => Some(true),
        no if no.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    })
}

/// Returns the time since the Unix epoch. A time before the epoch is zero.
pub(super) fn since_epoch(now: SystemTime) -> Option<Duration> {
    Some(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The delays that the headers state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stated {
    /// A delay in milliseconds. It takes precedence.
    pub(super) exact: Option<Duration>,
    /// A delay in seconds, or until a date.
    pub(super) coarse: Option<Duration>,
}

impl Stated {
    pub(super) fn read(headers: &HeaderMap, now: &dyn Fn() -> Option<Duration>) -> Self {
        let (mut found, mut reset_at) = (Self::default(), None);
        for (name, value) in headers {
            let name = name.as_str();
            // LiteLLM's proxy forwards the headers of the upstream server with this prefix.
            let name = name.strip_prefix("llm_provider-").unwrap_or(name);
            let value = value.as_bytes();
            match name {
                "retry-after-ms" | "x-ms-retry-after-ms" | "x-retry-after-ms" if found.exact.is_none() => {
                    found.exact = duration::millis(value).map(duration::ceil_ms);
                }
                "retry-after" if found.coarse.is_none() => {
                    found.coarse = duration::delay(value, now).map(duration::ceil_ms);
                }
                // LiteLLM sends this header for its own limits.
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

/// Returns the exhausted bucket that an error response refers to: the one in `scope`, else the one with the longest
/// reset.
pub(super) fn exhausted(snapshot: &RateLimitSnapshot, scope: Option<Scope>) -> Option<&BucketSnapshot> {
    let all = || snapshot.buckets().iter().filter(|bucket| is_exhausted(bucket));
    let named = all().filter(|bucket| scope.is_some_and(|scope| speaks_of(bucket.dimension, scope)));
    named.reduce(longer).or_else(|| all().reduce(longer))
}

/// Returns the bucket with the longer reset, or the first if both are equal.
fn longer<'s>(one: &'s BucketSnapshot, two: &'s BucketSnapshot) -> &'s BucketSnapshot {
    if two.reset > one.reset { two } else { one }
}

/// Returns true if nothing remains. A reset without `remaining` counts, because servers do not send the reset of a full
/// bucket.
fn is_exhausted(bucket: &BucketSnapshot) -> bool {
    match bucket.remaining {
        Some(remaining) => remaining < 1.0,
        None => bucket.reset.is_some(),
    }
}

/// Returns true if a bucket belongs to a scope.
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

/// Returns the scope of a bucket.
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

/// Returns the time until an Anthropic subscription window ends. It is `None` if the status says that the window allows
/// requests.
pub(super) fn unified_reset(headers: &HeaderMap, now: &dyn Fn() -> Option<Duration>) -> Option<Duration> {
    let reset = headers.get("anthropic-ratelimit-unified-reset")?;
    let status = headers.get("anthropic-ratelimit-unified-status");
    let met = status.is_none_or(|status| !status.as_bytes().starts_with(b"allowed"));
    met.then(|| duration::reset(reset.as_bytes(), now))?
}

/// Returns the delay of a response and its source.
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
