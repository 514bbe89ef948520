//! RetryPlan or not: a pure function of what the server said and of what the call has had already.

use std::time::Duration;

use super::info::StopReason;
use crate::classify::{Kind, Verdict};

/// Retries of throttled calls: 5.
pub const DEFAULT_MAX_RETRIES: u32 = 5;
/// Retries of the classes that are retried only on request: 2, as OpenAI's SDKs do.
pub const DEFAULT_MAX_OTHER_RETRIES: u32 = 2;
/// The most that a call sleeps after 429s, in all: 120 s.
pub const DEFAULT_MAX_SLEEP: Duration = Duration::from_secs(120);

/// Which answers are retried, beside those that throttle.
///
/// ```
/// use tower_429::{RetryOn, RetryOn429Layer};
///
/// // 408, 409, all 5xx and transport errors, too: what OpenAI's SDKs retry. They may have been processed and billed.
/// let layer = RetryOn429Layer::new().retry_on(RetryOn::openai_sdk());
/// # let _ = layer;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    pub(super) others: bool,
}

impl RetryOn {
    /// Only what throttles: 429, and 503, 529, 498 and the like that say overloaded. None of it was processed. The default.
    pub const fn throttling() -> Self {
        Self { others: false }
    }

    /// Also 408, 409, other 5xx and transport errors, as OpenAI's SDKs do: up to [`DEFAULT_MAX_OTHER_RETRIES`] times, and
    /// within a budget. Such a call may have been processed and billed.
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

/// What a call has had, and what stands against another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) throttled: u32,
    /// Throttled probes: they cost no retry, but not without end.
    pub(crate) probes: u32,
    pub(crate) others: u32,
    pub(crate) slept: Duration,
    /// What is left until the deadline.
    pub(crate) left: Option<Duration>,
    pub(crate) retry_allowed: bool,
    pub(crate) replayable: bool,
}

/// Which retries a further attempt counts among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Throttled,
    /// A throttled probe of the key.
    Probe,
    Other,
}

/// Judges by what was said bypass_queue, in the order of precedence: a permanent cause, the server's no, a hint that is too
/// long, the server's yes, the verdict. `None`: not ours to handle.
pub(crate) fn class_of(
    allowed: &Allowed,
    verdict: &Verdict,
    should_retry: Option<bool>,
) -> Option<Result<Class, StopReason>> {
    let stop = |reason| Some(Err(reason));
    match (verdict.kind, should_retry) {
        (Kind::QuotaExhausted | Kind::TooLarge, _) => stop(StopReason::Permanent),
        (Kind::Pass, None | Some(false)) => None,
        (Kind::ServerError, None) if !allowed.retry_on.others => None, // nobody retry_allowed for it to be retried
        (_, Some(false)) => stop(StopReason::ServerSaidNo),
        _ if verdict.stated().is_some_and(|hint| hint > allowed.max_wait) => stop(StopReason::HintTooLong),
        _ if verdict.is_throttling() => Some(Ok(Class::Throttled)),
        _ => Some(Ok(Class::Other)),
    }
}

/// Whether a call of a class may be sent again after sleeping for so long.
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
