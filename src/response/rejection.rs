//! Local rejections: responses of the layer to calls that it does not send. They have the form of a server's response,
//! so error types do not change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use crate::classify::Verdict;
use crate::response::error_reply::ErrorReply;
use crate::wait_queue::{Closed, WaitLimit, WaitOutcome};

/// The header that names the reason of a local rejection, so that this crate recognises it in another process.
const LOCAL: HeaderName = HeaderName::from_static("x-tower-429-local");

/// The reason why a call was rejected locally, without being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The queue of the call's class is full (`local_queue_full`).
    QueueFull,
    /// The queue timeout expired before the call's turn (`local_queue_timeout`).
    QueueTimeout,
    /// The call's [`Deadline`](crate::Deadline) has passed, or its turn does not come before it (`local_deadline`).
    Deadline,
    /// The key's quota is exhausted and no probe is due (the server's own code, else `local_quota_exhausted`).
    QuotaExhausted,
    /// The call would have to wait longer than `max_wait` (`local_cooldown`). The server asked for a longer delay, all
    /// calls for the key failed for that long, or a bucket stays empty for longer.
    Cooldown,
}

impl RejectReason {
    const ALL: [Self; 5] = [Self::QueueFull, Self::QueueTimeout, Self::Deadline, Self::QuotaExhausted, Self::Cooldown];

    /// Returns the `code` in the body of the response, if it does not repeat the server's own code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::QueueFull => "local_queue_full",
            Self::QueueTimeout => "local_queue_timeout",
            Self::Deadline => "local_deadline",
            Self::QuotaExhausted => "local_quota_exhausted",
            Self::Cooldown => "local_cooldown",
        }
    }

    /// Returns the value of the header `x-tower-429-local`. It is also the name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Deadline => "deadline",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Cooldown => "cooldown",
        }
    }

    /// Returns the reason in a local rejection of another process.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(LOCAL)?;
        Self::ALL.into_iter().find(|reason| said == reason.as_str())
    }

    const fn message(self) -> &'static str {
        match self {
            Self::QueueFull => "Not sent: the queue is full. Send fewer calls at a time, or raise max_queue.",
            Self::QueueTimeout => {
                "Not sent: the queue timeout expired. Send fewer calls at a time, or raise queue_timeout."
            }
            Self::Deadline => "Not sent: the call cannot start before its deadline. Use a later deadline.",
            Self::QuotaExhausted => "Not sent: the server reported an exhausted quota. Check the plan and the balance.",
            Self::Cooldown => {
                "Not sent: the delay for this key exceeds max_wait. Wait for retry-after, or raise max_wait."
            }
        }
    }
}

/// Marks a response as a local rejection, in the response's extensions. The call was not sent.
///
/// ```
/// use tower_429::{RejectReason, LocalRejection};
///
/// fn is_ours<B>(response: &http::Response<B>) -> bool {
///     response.extensions().get::<LocalRejection>().is_some_and(|rejection| rejection.reason == RejectReason::QueueFull)
/// }
/// # assert!(!is_ours(&http::Response::new(())));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LocalRejection {
    /// The reason of the rejection.
    pub reason: RejectReason,
    /// The delay after which a new call can succeed, if it is known.
    pub retry_after: Option<Duration>,
    /// The error with which the server reported the exhausted quota.
    said: Option<Arc<ErrorReply>>,
}

impl LocalRejection {
    pub(crate) const fn new(reason: RejectReason, retry_after: Option<Duration>) -> Self {
        Self { reason, retry_after, said: None }
    }

    /// Keeps the server's error if the reason is an exhausted quota.
    pub(crate) fn said_by(mut self, said: Option<Arc<ErrorReply>>) -> Self {
        self.said = said.filter(|_| self.reason == RejectReason::QuotaExhausted);
        self
    }

    /// Returns the server's verdict that reported the exhausted quota, or `None` for any other reason.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.said.as_ref().map(|said| &said.verdict)
    }

    /// Returns the ticket of an admitted call, or the rejection of a call that is not sent.
    pub(crate) fn of_wait<T>(outcome: WaitOutcome<T>) -> Result<T, Self> {
        Err(match outcome {
            WaitOutcome::Admitted(ticket) => return Ok(ticket),
            WaitOutcome::Closed(closed) => Self::closed(closed),
            WaitOutcome::Rejected { retry_after } => Self::new(RejectReason::Cooldown, Some(retry_after)),
            WaitOutcome::Full(wait) => Self::new(RejectReason::QueueFull, wait),
            WaitOutcome::Expired(WaitLimit::Timeout, wait) => Self::new(RejectReason::QueueTimeout, wait),
            WaitOutcome::Expired(WaitLimit::Deadline, wait) => Self::new(RejectReason::Deadline, wait),
        })
    }

    /// Creates the rejection of a key that is closed.
    pub(crate) const fn closed(closed: Closed) -> Self {
        let reason = if closed.quota { RejectReason::QuotaExhausted } else { RejectReason::Cooldown };
        Self::new(reason, Some(closed.retry_after))
    }

    /// Creates the default response: a 429 with an OpenAI-shaped body.
    ///
    /// The header `x-tower-429-local` names the reason. `retry-after-ms` and `retry-after` are set if the delay is
    /// known.
    ///
    /// While a quota is exhausted, the body repeats the `type` and the `code` of the server's error, for callers that
    /// match on them. They are repeated if they are a number, or up to 64 letters, digits, `_`, `.` and `-`.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_429::{ConcurrencyLimitLayer, LocalRejection};
    ///
    /// // Servers often prefer a 503.
    /// let layer = ConcurrencyLimitLayer::new(64).max_queue(256).reject_with(|rejection: &LocalRejection| {
    ///     let mut response = rejection.response();
    ///     *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    ///     response
    /// });
    /// # let _ = layer;
    /// ```
    pub fn response(&self) -> Response<Bytes> {
        let said = self.said.as_ref();
        let error_type = said.and_then(|said| said.error_type.clone()).unwrap_or_else(|| Value::from("requests"));
        let code = said.and_then(|said| said.code.clone()).unwrap_or_else(|| Value::from(self.reason.code()));
        let message = self.reason.message();
        let body = format!(r#"{{"error":{{"message":"{message}","type":{error_type},"param":null,"code":{code}}}}}"#);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(LOCAL, HeaderValue::from_static(self.reason.as_str()));
        if let Some(wait) = self.retry_after {
            let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            headers.insert(HeaderName::from_static("retry-after-ms"), ms.into());
            headers.insert(RETRY_AFTER, ms.div_ceil(1000).into());
        }
        response
    }
}

/// Creates the response to a call that is rejected locally.
pub(crate) type RejectWith = Arc<dyn Fn(&LocalRejection) -> Response<Bytes> + Send + Sync>;

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_answer_looks_like_the_servers_own() {
        let response = LocalRejection::new(RejectReason::Cooldown, Some(Duration::from_micros(1_000_500))).response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after-ms"], "1001");
        assert_eq!(response.headers()["retry-after"], "2");
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["code"], "local_cooldown");
    }

    #[test]
    fn a_wait_without_end_does_not_overflow() {
        let response = LocalRejection::new(RejectReason::Cooldown, Some(Duration::MAX)).response();
        assert_eq!(response.headers()["retry-after-ms"], u64::MAX.to_string().as_str());
    }
}
