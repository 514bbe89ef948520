//! Combines status, headers, codes and wording into one verdict.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::{Evidence, Kind, Scope, Verdict, reads_body};
use crate::classify::body::ErrorBody;
use crate::classify::codes::{self, Codes};
use crate::classify::headers::windows::Windows;
use crate::classify::headers::{self, RateLimitSnapshot};
use crate::classify::hint::{self, Stated};
use crate::classify::kind::Said;
use crate::classify::message::Wording;
use crate::dialect::Dialect;

/// Classifies a response. `clock` is called only if a date is given and the `date` header is missing.
pub(super) fn verdict(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    clock: &dyn Fn() -> SystemTime,
) -> Verdict {
    let now = || headers::own_date(headers).or_else(|| hint::since_epoch(clock()));
    let body = match (reads_body(status), status.is_success()) {
        (false, false) => ErrorBody::default(),
        (_, success) => {
            let mut found = ErrorBody::read(body, success, &now);
            if let Some(class) = headers.get("x-amzn-errortype").filter(|_| !success) {
                found.add_class(class.as_bytes());
            }
            found
        }
    };
    let mut words = Wording::read(&body.text, &now);
    if body.is_page {
        words = words.without_figures();
    }
    let codes = Codes::read(dialect, &body.codes, &body.titles, &body.text);
    let status = match body.status {
        Some(said) if status.is_success() => said,
        // An event in a stream has no status, so the code decides.
        None if status.is_success() && codes.any() => StatusCode::TOO_MANY_REQUESTS,
        _ => status,
    };
    let limit = words.size().or(body.limit);
    let axis = ["x-ratelimit-type", "policy-id", "rate_limit_type"].iter().find_map(|name| headers.get(*name));
    let axis = axis.and_then(|axis| codes::scope_of_header(axis.as_bytes())).or(body.axis);
    let (kind, upstream) = Said { body: &body, codes: &codes, words: &words, limit, axis }.kind(status);
    let mut verdict = Verdict::new(kind);
    if kind == Kind::Pass {
        return verdict;
    }
    verdict.upstream_failure = upstream;
    // The context size of a model is not a limit of the key.
    let of_model = kind == Kind::TooLarge && status == StatusCode::BAD_REQUEST;
    verdict.scope = match kind {
        Kind::Concurrency => Some(Scope::Concurrent),
        Kind::Overloaded | Kind::ServerError => None,
        _ if of_model => None,
        _ => scope(&words, &codes)
            .or(axis)
            // If the message says that a quota is exhausted, a rate-limit code names the wrong limit.
            .or_else(|| codes.scope().filter(|_| kind != Kind::QuotaExhausted || !codes.rate)),
    };
    if !matches!(kind, Kind::Overloaded | Kind::ServerError) && !of_model {
        verdict.limit = limit;
        verdict.used = words.used.or(body.used);
        verdict.requested = words.requested.or(body.requested);
    }
    verdict.model = words.model.map(str::to_owned).or_else(|| body.model.clone());
    let account = codes.account || words.account || status == StatusCode::PAYMENT_REQUIRED;
    verdict.account = kind == Kind::QuotaExhausted && account && words.scope().is_none() && verdict.model.is_none();

    let exhausted = kind != Kind::TooLarge && when(&mut verdict, headers, &body, &words, &now);
    let figures = limit.or(verdict.used).or(verdict.requested).is_some();
    if words.names_a_limit() || figures || verdict.retry_after.is_some() || exhausted || axis.is_some() {
        verdict.evidence = Evidence::Named;
    }
    verdict
}

/// Sets the delay of the verdict, and the limit of the exhausted bucket. Returns true if a bucket is exhausted.
fn when(
    verdict: &mut Verdict,
    headers: &HeaderMap,
    body: &ErrorBody,
    words: &Wording<'_>,
    now: &dyn Fn() -> Option<Duration>,
) -> bool {
    let mut stated = Stated::read(headers, now);
    let mut snapshot = RateLimitSnapshot::of(headers, Some(now));
    if !body.headers.is_empty() {
        let inner = Stated::read(&body.headers, now);
        stated = Stated { exact: stated.exact.or(inner.exact), coarse: stated.coarse.max(inner.coarse) };
        snapshot = snapshot.or_else(|| RateLimitSnapshot::of(&body.headers, Some(now)));
    }
    let throttled = verdict.is_throttling() || verdict.kind == Kind::QuotaExhausted;
    let bucket = snapshot.as_ref().filter(|_| throttled).and_then(|snapshot| hint::exhausted(snapshot, verdict.scope));
    if let Some(bucket) = bucket.filter(|_| verdict.kind != Kind::Overloaded)
        && verdict.scope.is_none_or(|scope| hint::speaks_of(bucket.dimension, scope))
    {
        verdict.scope = verdict.scope.or_else(|| hint::scope_of(bucket.dimension));
        verdict.limit = verdict.limit.or(bucket.limit);
    }
    let windows = if throttled { Windows::read(headers, now) } else { Windows::default() };
    stated.coarse = stated.coarse.or(windows.stated);
    let reset = bucket.and_then(|bucket| bucket.reset).max(windows.reset).or_else(|| hint::unified_reset(headers, now));
    if let Some((delay, source)) = hint::delay(stated, words.delay.max(body.delay), reset) {
        (verdict.retry_after, verdict.source) = (Some(delay), Some(source));
    }
    bucket.is_some() || windows.exhausted
}

/// Returns the limit that the message names. If only the code gives its window of a day, the daily limit is returned.
fn scope(words: &Wording<'_>, codes: &Codes<'_>) -> Option<Scope> {
    let named = words.scope()?;
    let longer = words.axis.is_none() && codes.scope() == Some(named.daily());
    Some(if longer { named.daily() } else { named })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        Verdict::of_at(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn by_status_alone() {
        for (statuses, kind) in [
            (&[200_u16, 204, 301, 400, 401, 403, 404, 422][..], Kind::Pass),
            (&[429], Kind::RateLimited),
            (&[498, 503, 529], Kind::Overloaded),
            (&[402], Kind::QuotaExhausted),
            (&[413], Kind::TooLarge),
            (&[408, 409, 500, 502, 504, 520, 599], Kind::ServerError),
        ] {
            for status in statuses {
                assert_eq!(judge(*status, &[], "").kind, kind, "{status}");
            }
        }
    }

    #[test]
    fn evidence() {
        let bare = r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;
        let verdict = judge(429, &[], bare);
        assert_eq!((verdict.kind, verdict.evidence), (Kind::RateLimited, Evidence::Bare));
        assert_eq!((verdict.scope, verdict.retry_after, verdict.model), (Some(Scope::Requests), None, None));
        let full = [("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-reset-requests", "1s")];
        let empty = [("x-ratelimit-remaining-requests", "0")];
        for (headers, body, evidence) in [
            (&[][..], "", Evidence::Bare),
            (&[], "Too many requests", Evidence::Bare),
            (&full, bare, Evidence::Bare),
            (&empty, bare, Evidence::Named),
            (&[("retry-after", "1")], bare, Evidence::Named),
            (&[], "Rate limit reached for requests", Evidence::Named),
            (&[], "Rate limit reached. Limit 5, Used 5", Evidence::Named),
            (&[], "Too many concurrent requests", Evidence::Named),
            (&[], "Slow down: RPM exceeded", Evidence::Named),
        ] {
            assert_eq!(judge(429, headers, body).evidence, evidence, "{headers:?} {body}");
        }
    }

    #[test]
    fn whose_quota_is_used_up() {
        for (status, body, account) in [
            (429, r#"{"error":{"code":"insufficient_quota","message":"m"}}"#, true),
            (429, r#"{"error":{"code":"credit_balance_exhausted","type":"insufficient_quota"}}"#, true),
            (400, r#"{"error":{"message":"Your credit balance is too low to access the Anthropic API."}}"#, true),
            (400, r#"{"error":{"message":"Budget has been exceeded!","type":"budget_exceeded"}}"#, true),
            (402, "", true),
            (
                429,
                r#"{"error":"Your team has either used all available credits or reached its spending limit."}"#,
                true,
            ),
            (429, r#"{"error":{"message":"You exceeded your current quota"}}"#, false),
            (403, r#"{"code":"AllocationQuota.FreeTierOnly","message":"m"}"#, false),
            (429, r#"{"code":"Throttling.AllocationQuota","message":"Free allocated quota exceeded."}"#, false),
            (429, r#"{"error":{"code":"insufficient_quota","message":"Quota exceeded for model gpt-4o"}}"#, false),
            (429, r#"{"error":{"message":"Rate limit exceeded: free-models-per-day."}}"#, false),
            (402, r#"{"error":{"message":"You requested up to 32000 tokens, limit 27342 tokens per day"}}"#, false),
        ] {
            let verdict = judge(status, &[], body);
            assert_eq!((verdict.kind, verdict.account), (Kind::QuotaExhausted, account), "{body}");
        }
        let empty = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-limit-requests", "5")];
        let verdict = judge(429, &empty, r#"{"error":{"code":"insufficient_quota"}}"#);
        assert!(
            verdict.account && verdict.scope == Some(Scope::Requests),
            "a bucket that is empty, too, changes nothing"
        );
    }

    #[test]
    fn our_own_429s_are_overload() {
        for code in ["queue_full", "queue_timeout", "deadline", "quota_exhausted", "cooldown"] {
            let body = format!(r#"{{"error":{{"message":"m","type":"rate_limit_error","code":"local_{code}"}}}}"#);
            for status in [429, 503] {
                assert_eq!(judge(status, &[], &body).kind, Kind::Overloaded, "{code}");
            }
        }
    }

    #[test]
    fn a_stated_delay_beats_a_request_above_its_limit() {
        let text = "Rate limit reached for m-1 on tokens per min (TPM): Limit 1, Used 0, Requested 19304.";
        assert_eq!(judge(429, &[], text).kind, Kind::TooLarge);
        let verdict = judge(429, &[], &format!("{text} Please try again in 28ms."));
        assert_eq!((verdict.kind, verdict.stated()), (Kind::RateLimited, Some(Duration::from_millis(28))));
    }

    #[test]
    fn words_that_never_mean_stop() {
        for text in [
            "Quota exceeded for this minute",
            "Rate limit reached. Upgrade your plan at https://example.com/billing",
            "Rate limit exceeded, add a payment method or buy credits to raise it",
            "Tokens per minute quota exceeded",
        ] {
            assert_eq!(judge(429, &[], text).kind, Kind::RateLimited, "{text}");
        }
    }

    #[test]
    fn a_quoted_request_decides_nothing() {
        let quoted = r#"{"error":{"message":"Invalid prompt: 'I ran out of credits'","type":"invalid_request_error"}}"#;
        assert_eq!(judge(400, &[], quoted).kind, Kind::Pass);
        let said = r#"{"error":{"message":"You've run out of credits.","type":"invalid_request_error"}}"#;
        assert_eq!(judge(400, &[], said).kind, Kind::QuotaExhausted);
    }

    #[test]
    fn a_reset_is_no_stated_delay() {
        let headers = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")];
        let verdict = judge(429, &headers, "");
        assert_eq!((verdict.retry_after, verdict.stated()), (Some(Duration::from_secs(360)), None));
    }

    #[test]
    fn a_compressed_body_is_classified_by_status() {
        let body = [&b"\x1f\x8b\x08\0"[..], b"insufficient_quota"].concat();
        let verdict = Verdict::of_at(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), &body, SystemTime::UNIX_EPOCH);
        assert_eq!(verdict.kind, Kind::RateLimited);
    }
}
