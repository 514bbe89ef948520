//! Decides whether a call is sent again: a pure function of the verdict and of what the call has used up.

use std::time::Duration;

use super::info::StopReason;
use crate::classify::{Kind, Verdict};

/// Maximum number of retries of a throttled call: 5.
pub const DEFAULT_MAX_RETRIES: u32 = 5;
/// Maximum number of retries after the answers and errors that [`RetryOn::openai_sdk`] adds: 2, as in OpenAI's SDKs.
pub const DEFAULT_MAX_OTHER_RETRIES: u32 = 2;
/// Maximum total time that a call sleeps after 429s: 120 s.
pub const DEFAULT_MAX_SLEEP: Duration = Duration::from_secs(120);

/// Selects which answers are retried besides throttled ones.
///
/// ```
/// use tower_429::{RetryOn, RetryOn429Layer};
///
/// // Also 408, 409, all 5xx and transport errors, as OpenAI's SDKs do. Such calls may have been processed and billed.
/// let layer = RetryOn429Layer::new().retry_on(RetryOn::openai_sdk());
/// # let _ = layer;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    pub(super) others: bool,
}

impl RetryOn {
    /// Retries throttled requests only: 429, and 503, 529, 498 and similar statuses that report overload. None of these
    /// requests was processed. This is the default.
    pub const fn throttling() -> Self {
        Self { others: false }
    }

    /// Also retries 408, 409, other 5xx and transport errors, as OpenAI's SDKs do.
    ///
    /// Each call gets up to [`DEFAULT_MAX_OTHER_RETRIES`] such retries, within a budget. Such a call may have been processed
    /// and billed.
    pub const fn openai_sdk() -> Self {
        Self { others: true }
    }
}

/// What the layer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) max_retries: u32,
    pub(crate) max_other_retries: u32,
    pub(crate) retry_on: RetryOn,
    pub(crate) max_wait: Duration,
    pub(crate) max_sleep: Duration,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            max_retries: DEFAULT_MAX_RETRIES,
            max_other_retries: DEFAULT_MAX_OTHER_RETRIES,
            retry_on: RetryOn::throttling(),
            max_wait: crate::quota::DEFAULT_MAX_WAIT,
            max_sleep: DEFAULT_MAX_SLEEP,
        }
    }
}

/// What a call has used up, and what forbids another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) throttled: u32,
    /// Throttled window probes. They cost no retry, up to `max_retries` of them.
    pub(crate) probes: u32,
    pub(crate) others: u32,
    pub(crate) slept: Duration,
    /// The time until the deadline.
    pub(crate) left: Option<Duration>,
    pub(crate) retry_allowed: bool,
    pub(crate) replayable: bool,
}

/// The kind of a further attempt, which decides what it counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Throttled,
    /// After a throttled window probe.
    Probe,
    Other,
}

/// Classifies a verdict, without looking at what the call has used up.
///
/// In the order of precedence: a permanent cause, `x-should-retry: false`, a delay that is too long, throttling, and
/// `x-should-retry: true` or a server error. `None`: the answer is passed on.
pub(crate) fn class_of(
    allowed: &Allowed,
    verdict: &Verdict,
    should_retry: Option<bool>,
) -> Option<Result<Class, StopReason>> {
    let stop = |reason| Some(Err(reason));
    match (verdict.kind, should_retry) {
        (Kind::QuotaExhausted | Kind::TooLarge, _) => stop(StopReason::Permanent),
        (Kind::Pass, None | Some(false)) => None,
        (Kind::ServerError, None) if !allowed.retry_on.others => None,
        (_, Some(false)) => stop(StopReason::ServerSaidNo),
        _ if verdict.stated().is_some_and(|hint| hint > allowed.max_wait) => stop(StopReason::HintTooLong),
        _ if verdict.is_throttling() => Some(Ok(Class::Throttled)),
        _ => Some(Ok(Class::Other)),
    }
}

/// Checks whether a call of a class may be sent again after sleeping for this long.
pub(crate) fn may_sleep(allowed: &Allowed, spent: &Spent, class: Class, sleep: Duration) -> Result<(), StopReason> {
    let (used, most) = match class {
        Class::Throttled => (spent.throttled, allowed.max_retries),
        Class::Probe => (spent.probes, allowed.max_retries),
        Class::Other => (spent.others, allowed.max_other_retries),
    };
    if !spent.retry_allowed {
        return Err(StopReason::RetryDisabled);
    }
    if used >= most {
        return Err(StopReason::RetriesSpent);
    }
    if !spent.replayable {
        return Err(StopReason::NotReplayable);
    }
    if spent.slept.saturating_add(sleep) > allowed.max_sleep {
        return Err(StopReason::SleepSpent);
    }
    if spent.left.is_some_and(|left| sleep >= left) {
        return Err(StopReason::Deadline);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_said_is_judged_in_the_order_of_precedence() {
        let sdk = Allowed { retry_on: RetryOn::openai_sdk(), ..Allowed::default() };
        let of = |allowed: &Allowed, kind, hint: Option<u64>, should_retry| {
            let mut verdict = Verdict::new(kind);
            if let Some(hint) = hint {
                verdict = verdict.with_retry_after(SECOND * u32::try_from(hint).unwrap());
            }
            class_of(allowed, &verdict, should_retry)
        };
        let all = Allowed::default();
        use Class::{Other, Throttled};
        for (allowed, kind, hint, should_retry, expected) in [
            (&all, Kind::RateLimited, None, None, Some(Ok(Throttled))),
            (&all, Kind::Concurrency, None, None, Some(Ok(Throttled))),
            (&all, Kind::Overloaded, None, Some(true), Some(Ok(Throttled))),
            (&all, Kind::QuotaExhausted, Some(1), Some(true), Some(Err(StopReason::Permanent))),
            (&all, Kind::TooLarge, None, Some(true), Some(Err(StopReason::Permanent))),
            (&all, Kind::RateLimited, Some(1), Some(false), Some(Err(StopReason::ServerSaidNo))),
            (&all, Kind::RateLimited, Some(121), Some(false), Some(Err(StopReason::ServerSaidNo))),
            (&all, Kind::RateLimited, Some(121), Some(true), Some(Err(StopReason::HintTooLong))),
            (&all, Kind::RateLimited, Some(120), None, Some(Ok(Throttled))),
            (&all, Kind::ServerError, None, None, None),
            (&all, Kind::ServerError, Some(121), None, None),
            (&all, Kind::ServerError, None, Some(false), Some(Err(StopReason::ServerSaidNo))),
            (&all, Kind::ServerError, None, Some(true), Some(Ok(Other))),
            (&sdk, Kind::ServerError, None, None, Some(Ok(Other))),
            (&sdk, Kind::ServerError, Some(121), None, Some(Err(StopReason::HintTooLong))),
            (&sdk, Kind::ServerError, None, Some(false), Some(Err(StopReason::ServerSaidNo))),
            (&sdk, Kind::Pass, None, None, None),
            (&sdk, Kind::Pass, None, Some(false), None),
            (&sdk, Kind::Pass, None, Some(true), Some(Ok(Other))),
        ] {
            assert_eq!(of(allowed, kind, hint, should_retry), expected, "{kind:?} {hint:?} {should_retry:?}");
        }
    }

    #[test]
    fn each_bound_stops_a_call_by_its_own_name() {
        let fresh = Spent {
            throttled: 0,
            probes: 0,
            others: 0,
            slept: Duration::ZERO,
            left: None,
            retry_allowed: true,
            replayable: true,
        };
        let allowed = Allowed::default();
        let judge = |spent: Spent, class, sleep| may_sleep(&allowed, &spent, class, sleep);
        assert_eq!(judge(fresh, Class::Throttled, SECOND), Ok(()));
        for (spent, class, sleep, reason) in [
            (Spent { throttled: 5, ..fresh }, Class::Throttled, SECOND, StopReason::RetriesSpent),
            (Spent { others: 2, ..fresh }, Class::Other, SECOND, StopReason::RetriesSpent),
            (Spent { retry_allowed: false, ..fresh }, Class::Throttled, SECOND, StopReason::RetryDisabled),
            (Spent { replayable: false, ..fresh }, Class::Throttled, SECOND, StopReason::NotReplayable),
            (Spent { slept: 119 * SECOND, ..fresh }, Class::Throttled, 2 * SECOND, StopReason::SleepSpent),
            (Spent { left: Some(SECOND), ..fresh }, Class::Throttled, SECOND, StopReason::Deadline),
        ] {
            assert_eq!(judge(spent, class, sleep), Err(reason));
        }
        assert_eq!(judge(Spent { slept: 119 * SECOND, ..fresh }, Class::Throttled, SECOND), Ok(()));
        assert_eq!(judge(Spent { throttled: 5, others: 1, ..fresh }, Class::Other, SECOND), Ok(()));
    }
}
