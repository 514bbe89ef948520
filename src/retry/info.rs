//! The course of a call, as an extension of its response.

use std::fmt;
use std::time::Duration;

use crate::classify::Verdict;

/// The course of a call, in the extensions of a response that was throttled, retried or rejected locally.
///
/// The response of a call that succeeds at the first attempt carries none.
///
/// ```
/// use tower_429::{RetryInfo, StopReason};
///
/// fn report<B>(response: &http::Response<B>) {
///     if let Some(info) = response.extensions().get::<RetryInfo>() {
///         println!("{} attempts, waited {:?}", info.attempts, info.waited);
///         if info.stopped == Some(StopReason::HintTooLong) {
///             println!("try again in {:?}", info.retry_after);
///         }
///     }
/// }
/// # report(&http::Response::new(()));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryInfo {
    /// The number of times the call was sent.
    pub attempts: u32,
    /// The total time the call waited in this layer: in the queue and between attempts.
    pub waited: Duration,
    /// The last verdict, if the server throttled the call. On a local rejection because of an exhausted quota: the verdict that
    /// exhausted it.
    pub verdict: Option<Verdict>,
    /// Why the call was not sent again. `None` if it succeeded, or if its last answer is of a kind that is not retried, such as a
    /// 404, or a 500 without [`RetryOn::openai_sdk`](crate::RetryOn::openai_sdk).
    pub stopped: Option<StopReason>,
    /// The time until another attempt is useful, if it is known.
    pub retry_after: Option<Duration>,
}

/// Why a call was returned instead of being sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// Retrying cannot help: an exhausted quota, or a request that is larger than its limit.
    Permanent,
    /// The server sent `x-should-retry: false`.
    ServerSaidNo,
    /// The server asks for a longer delay than [`max_wait`](crate::RetryOn429Layer::max_wait).
    HintTooLong,
    /// The call carries [`NoRetry`](crate::NoRetry), or another `RetryOn429` above handles it.
    RetryDisabled,
    /// The request body cannot be copied.
    NotReplayable,
    /// The call has used all its retries.
    RetriesSpent,
    /// The next sleep would exceed [`max_sleep`](crate::RetryOn429Layer::max_sleep).
    SleepSpent,
    /// The next sleep would end after the call's [`Deadline`](crate::Deadline).
    Deadline,
    /// The budget for retries after server and transport errors is spent.
    BudgetSpent,
    /// The server's answer has closed the key, so the call does not wait for a retry.
    Closed,
    /// The call was answered without the server, before or between attempts; see [`LocalRejection`](crate::LocalRejection).
    Local,
}

impl StopReason {
    /// A name for logs and metrics, distinct for each variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::ServerSaidNo => "server_said_no",
            Self::HintTooLong => "hint_too_long",
            Self::RetryDisabled => "retry_disabled",
            Self::NotReplayable => "not_replayable",
            Self::RetriesSpent => "retries_spent",
            Self::SleepSpent => "sleep_spent",
            Self::Deadline => "deadline",
            Self::BudgetSpent => "budget_spent",
            Self::Closed => "closed",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
