//! The rules that derive the kind of a response from its status, codes and wording. The first rule that matches
//! decides.

use std::time::Duration;

use http::StatusCode;

use super::{Kind, Scope};
use crate::classify::body::ErrorBody;
use crate::classify::codes::{self, Codes};
use crate::classify::message::Wording;

/// A limit that resets within a shorter time is a rate limit. From this time on it is a quota: 1 h.
const QUOTA_FROM: Duration = Duration::from_secs(3600);
/// A message about an exhausted quota counts as a rate limit if the stated delay is at most this: 120 s.
const SOON: Duration = Duration::from_secs(120);

/// The parts of a response that decide its kind.
pub(super) struct Said<'a> {
    pub(super) body: &'a ErrorBody,
    pub(super) codes: &'a Codes<'a>,
    pub(super) words: &'a Wording<'a>,
    /// The size of the limit.
    pub(super) limit: Option<f64>,
    /// The limit that a header or a field names.
    pub(super) axis: Option<Scope>,
}

/// The kind, and whether a failure upstream is the only cause that the response names.
pub(super) type Judged = (Kind, bool);

impl Said<'_> {
    pub(super) fn kind(&self, status: StatusCode) -> Judged {
        let (codes, words) = (self.codes, self.words);
        let stop = codes.stop || words.stop;
        let amazon = || codes::of_amazon(&self.body.codes, self.body.amazon);
        let kind = match status.as_u16() {
            402 => Kind::QuotaExhausted,
            408 | 409 => Kind::ServerError,
            429 => return self.too_many(),
            400 if codes.stop || words.stop_unquoted => Kind::QuotaExhausted,
            400 if amazon() == Some(Kind::RateLimited) && (words.month || words.stop_weak) => Kind::QuotaExhausted,
            400 if words.too_large || codes.too_large => Kind::TooLarge,
            400 => amazon().unwrap_or(Kind::Pass),
            // These statuses usually have another meaning. Only a code is reliable here; a message may be about
            // anything.
            401 | 412 | 422 if codes.stop_by_code => Kind::QuotaExhausted,
            403 if codes.stop || words.stop_unquoted => Kind::QuotaExhausted,
            403 if codes.rate || words.rate => Kind::RateLimited,
            404 if codes.stop => Kind::QuotaExhausted,
            413 if codes.stop => Kind::QuotaExhausted,
            413 => Kind::TooLarge,
            498 | 503 | 529 if codes.stop => Kind::QuotaExhausted,
            498 | 503 | 529 => Kind::Overloaded,
            500 | 502 if stop => Kind::QuotaExhausted,
            500 | 502 if self.body.local || codes.overload || words.overload => Kind::Overloaded,
            500 | 502 if codes.rate => Kind::RateLimited,
            // A proxy's error page lists possible causes, so its words are not reliable.
            504 | 520..=524 if self.body.is_page => Kind::ServerError,
            504 | 520..=524 if codes.stop => Kind::QuotaExhausted,
            504 | 520..=524 if codes.overload || words.overload => Kind::Overloaded,
            500..600 => Kind::ServerError,
            _ => Kind::Pass,
        };
        (kind, false)
    }

    /// Derives the kind of a 429.
    fn too_many(&self) -> Judged {
        let (codes, words) = (self.codes, self.words);
        let delay = words.delay.max(self.body.delay);
        if self.body.local {
            return (Kind::Overloaded, false);
        }
        if self.is_quota(delay) {
            return (Kind::QuotaExhausted, false);
        }
        let requested = words.requested.or(self.body.requested);
        let too_much = self.limit.is_some() && requested > self.limit;
        if self.limit == Some(0.0) || (delay.is_none() && (words.too_large || codes.too_large || too_much)) {
            return (Kind::TooLarge, false);
        }
        let names_rate = words.axis.or(words.hint_of_axis).is_some();
        if codes.overload || (words.overload && !names_rate) {
            return (Kind::Overloaded, false);
        }
        if codes.concurrent || words.concurrent || self.axis == Some(Scope::Concurrent) {
            return (Kind::Concurrency, false);
        }
        let rate = codes.rate || words.rate || names_rate || self.axis.is_some();
        if (codes.server || words.server_fault) && !rate {
            return (Kind::Overloaded, true);
        }
        (Kind::RateLimited, false)
    }

    /// Returns true if a quota, a plan, a budget or a balance is exhausted, so that no delay of a useful length helps.
    fn is_quota(&self, delay: Option<Duration>) -> bool {
        let (codes, words) = (self.codes, self.words);
        if codes.stop || words.account {
            return true;
        }
        let concurrent = codes.concurrent || words.concurrent;
        if words.stop {
            return delay.is_none_or(|delay| delay > SOON);
        }
        // Gemini also sends `You exceeded your current quota, please check your plan and billing details` for a limit
        // per minute.
        let weak = words.stop_weak || words.month || codes.stop_weak;
        let named = words.axis.is_some() || words.short_window;
        let rate = (codes.rate || named) && !codes.stop_weak && !words.month;
        weak && !concurrent && delay.map_or(!rate, |delay| delay >= QUOTA_FROM)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use http::HeaderMap;
    use std::time::SystemTime;

    fn judge(status: u16, body: &str) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        Verdict::of_at(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH)
    }

    fn kinds(status: u16, cases: &[(&str, Kind)]) {
        for (body, kind) in cases {
            assert_eq!(judge(status, body).kind, *kind, "{status} {body}");
        }
    }

    #[test]
    fn a_used_up_quota_that_comes_back_soon_is_a_rate() {
        kinds(
            429,
            &[
                ("You have exhausted your capacity on this model. Your quota will reset after 5s.", Kind::RateLimited),
                ("You have exhausted your capacity on this model. Your quota will reset after 58m.", Kind::RateLimited),
                (
                    "You have exhausted your capacity on this model. Your quota will reset after 3h.",
                    Kind::QuotaExhausted,
                ),
                ("You have reached your usage limit. Please try again in 20 seconds.", Kind::RateLimited),
                ("You have reached your usage limit. Please try again in 5 minutes.", Kind::QuotaExhausted),
                ("Your credits are exhausted. Try again in 20 seconds.", Kind::QuotaExhausted),
                (
                    r#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota"}}"#,
                    Kind::RateLimited,
                ),
                (r#"{"error":{"reason":"QUOTA_EXHAUSTED","status":"RESOURCE_EXHAUSTED"}}"#, Kind::QuotaExhausted),
                (r#"{"error":{"reason":"QUOTA_EXHAUSTED","retryDelay":"2s"}}"#, Kind::RateLimited),
                (
                    r#"{"error":{"code":"rate_limit_exceeded","message":"Monthly limit of 1000 reached"}}"#,
                    Kind::QuotaExhausted,
                ),
                (r#"{"error":{"message":"Rate limit exceeded. Our monthly plan has more."}}"#, Kind::RateLimited),
            ],
        );
    }

    #[test]
    fn a_failure_upstream_is_overload_that_teaches_nothing() {
        for (kind, failure, body) in [
            (Kind::Overloaded, true, r#"{"error":{"type":"api_error","message":"Internal server error"}}"#),
            (Kind::Overloaded, true, r#"{"error":{"type":"APIError","message":"Upstream returned status 429"}}"#),
            (Kind::Overloaded, true, r#"{"error":{"type":"server_error","message":"Something went wrong"}}"#),
            (Kind::Overloaded, false, r#"{"error":{"type":"server_error","message":"The model is overloaded"}}"#),
            (Kind::RateLimited, false, r#"{"error":{"type":"api_error","message":"Rate limit exceeded"}}"#),
            (Kind::Concurrency, false, r#"{"error":{"type":"api_error","message":"Too many concurrent calls"}}"#),
            (Kind::RateLimited, false, "Too many requests"),
        ] {
            let verdict = judge(429, body);
            assert_eq!((verdict.kind, verdict.upstream_failure), (kind, failure), "{body}");
        }
        assert!(!judge(503, r#"{"error":{"type":"server_error"}}"#).upstream_failure, "503 says so itself");
    }

    #[test]
    fn other_statuses_need_a_code() {
        for status in [401, 412, 422] {
            kinds(
                status,
                &[
                    (r#"{"error":{"code":"insufficient_quota","message":"m"}}"#, Kind::QuotaExhausted),
                    (r#"{"error":{"type":"budget_exceeded","message":"m"}}"#, Kind::QuotaExhausted),
                    (r#"{"detail":{"status":"quota_exceeded","message":"m"}}"#, Kind::QuotaExhausted),
                    (r#"{"error":"Insufficient balance"}"#, Kind::Pass),
                    (r#"{"error":{"code":"invalid_api_key","message":"You ran out of credits"}}"#, Kind::Pass),
                    ("Budget exceeded", Kind::Pass),
                ],
            );
        }
    }

    #[test]
    fn forbidden_by_a_quota() {
        kinds(
            403,
            &[
                (r#"{"errors":[{"code":"token_quota_reached","message":"m"}]}"#, Kind::QuotaExhausted),
                (
                    r#"{"error":{"code":403,"message":"Key limit exceeded (total limit). Manage it"}}"#,
                    Kind::QuotaExhausted,
                ),
                (r#"{"error":{"message":"该令牌额度已用尽"}}"#, Kind::QuotaExhausted),
                (r#"{"error":{"message":"Flagged: \"I ran out of credits\""}}"#, Kind::Pass),
                (r#"{"error":{"message":"Insufficient permissions to view the balance"}}"#, Kind::Pass),
            ],
        );
    }

    #[test]
    fn concurrency_beside_other_causes() {
        kinds(
            429,
            &[
                (
                    "Your current concurrency is 5, which exceeds your concurrency limit of 5 based on your remaining balance. Please top up your balance.",
                    Kind::Concurrency,
                ),
                ("Rate limit of 5 per 0s exceeded for UserConcurrentRequests", Kind::Concurrency),
                (r#"{"code":"throttling","message":"concurrency allocated quota exceeded"}"#, Kind::Concurrency),
                ("Rate limit exceeded. Limit type: max_parallel_requests. Current limit: 5", Kind::Concurrency),
            ],
        );
    }

    #[test]
    fn the_page_of_an_edge_is_no_overload() {
        kinds(
            524,
            &[
                ("<html><h1>A timeout occurred</h1>an overloaded background task</html>", Kind::ServerError),
                (r#"{"error":{"message":"The model is overloaded"}}"#, Kind::Overloaded),
                ("error code: 524", Kind::ServerError),
            ],
        );
    }

    #[test]
    fn a_request_that_is_too_long() {
        kinds(
            400,
            &[
                (r#"{"error":{"code":"context_length_exceeded","message":"m"}}"#, Kind::TooLarge),
                (r#"{"error":{"message":"prompt is too long: 201543 tokens > 200000 maximum"}}"#, Kind::TooLarge),
                (r#"{"error":{"message":"max_tokens is too large: 100000"}}"#, Kind::TooLarge),
                (r#"{"error":{"message":"Invalid value"}}"#, Kind::Pass),
            ],
        );
    }
}
