//! What became of a call: an extension on whatever was throttled, retried or answered locally.

use std::fmt;
use std::time::Duration;

use crate::classify::Verdict;

/// In the extensions of a response that was throttled, came after a retry, or is a local answer.
///
/// A call that succeeds at once carries none.
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
    /// How often the call was sent.
    pub attempts: u32,
    /// How long it waited in all, in queues of this layer and between attempts.
    pub waited: Duration,
    /// What the server said last, if it throttled. On a local answer while a quota is used up: what it said of the quota.
    pub verdict: Option<Verdict>,
    /// Why the call was not sent again; nothing when it succeeded, or when its last answer is none that is retried: a 404,
    /// or a 500 without [`RetryOn::openai_sdk`](crate::RetryOn::openai_sdk).
    pub stopped: Option<StopReason>,
    /// When it is worth trying again, if that is known.
    pub retry_after: Option<Duration>,
}

/// Why a throttled call was handed back instead of being sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// No wait cures it: a quota that is used up, or a request that is larger than its limit.
    Permanent,
    /// The server said `x-should-retry: false`.
    ServerSaidNo,
    /// The server asks for a longer wait than [`max_wait`](crate::RetryOn429Layer::max_wait).
    HintTooLong,
    /// The call carries [`NoRetry`](crate::NoRetry), or another `RetryOn429` above handles it.
    RetryDisabled,
    /// Its body cannot be copied.
    NotReplayable,
    /// It has been sent as often as it may.
    RetriesSpent,
    /// The next sleep would exceed [`max_sleep`](crate::RetryOn429Layer::max_sleep).
    SleepSpent,
    /// The next sleep would end after the call's [`Deadline`](crate::Deadline).
    Deadline,
    /// The budget for retries of server and transport errors is used up.
    BudgetSpent,
    /// The key is closed: nobody waits for it.
    Closed,
    /// It was answered locally; see [`LocalRejection`](crate::LocalRejection).
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
