//! The interface between a queue and its admission policy.

use std::time::Duration;

use tokio::time::Instant;

/// The estimate that a probe tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The concurrency window is full.
    Window,
    /// The buckets are empty.
    Level,
    /// The key is closed.
    Closed,
}

/// The terms of an admission. The policy gets them back in [`AdmissionPolicy::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Admission {
    /// The minimum distance to the next admission.
    pub(crate) gap: Duration,
    /// Set if the call is admitted as a probe, against an estimate.
    pub(crate) probe: Option<Probe>,
    /// Whether the policy prefers a call that has not been throttled yet, because its result tells more.
    pub(crate) prefer_first_attempt: bool,
}

/// The policy's decision on the next call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decision {
    /// The call is admitted now.
    Admit(Admission),
    /// The call is not admitted before this time, which lies in the future.
    NotBefore(Instant),
    /// The call is not admitted before another call ends or this time comes. The time lies in the future.
    Blocked(Instant),
    /// The call is rejected: its wait would be too long. Another call may be admitted sooner.
    Reject { retry_after: Duration },
    /// The key is closed. All waiting calls are rejected now.
    Closed(Closed),
}

/// The state of a closed key: whether its quota is exhausted, and when to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) quota: bool,
    pub(crate) retry_after: Duration,
}

/// Decides which call is admitted when.
pub(crate) trait AdmissionPolicy: Send + 'static {
    /// The request of a call. Each waiter holds one, so it is small.
    type Call: Copy + Send;
    /// The result of an admission.
    type Ticket: Copy;

    /// Called when a call arrives at an empty queue.
    fn on_arrival(&mut self, now: Instant);
    /// Decides on the next call, when `ahead` other calls count as admitted before it.
    fn decide(&mut self, now: Instant, call: &Self::Call, ahead: usize) -> Decision;
    /// Admits the call.
    fn admit(&mut self, now: Instant, call: &Self::Call, admission: Admission) -> Self::Ticket;
    /// Returns the earliest start of a call with `ahead` calls before it, if it is known.
    fn earliest_start(&mut self, _now: Instant, _call: &Self::Call, _ahead: usize) -> Option<Instant> {
        None
    }
    /// Returns true if the results of [`earliest_start`](Self::earliest_start) have changed since the last call of this
    /// method.
    fn take_estimate_changed(&mut self) -> bool {
        false
    }
    /// Returns true if a call has not been throttled yet.
    fn is_first_attempt(_call: &Self::Call) -> bool {
        true
    }
    /// Called when an admitted call has ended. Its permit is released.
    fn release(&mut self, now: Instant, seq: u64);
    /// Returns how many permits must be lent to admit a call when `ahead` other calls count as admitted before it. 0
    /// means that lending does not help.
    fn missing_permits(&self, now: Instant, ahead: usize) -> usize;
    /// Called when the permit of an unread response body is lent. It no longer counts as in use.
    fn lend_permit(&mut self);
    /// Called when a lent permit has ended. It releases nothing, because it no longer counts.
    fn release_lent(&mut self, now: Instant, seq: u64);
    /// Called when part of an admitted call's response has arrived since the last call of this method.
    fn on_progress(&mut self) {}
    /// Called with the estimated and the used tokens of an admitted call.
    fn on_usage(&mut self, _estimated: f64, _used: f64) {}
}

/// The result of an attempt to be admitted without queueing.
pub(crate) enum TryAdmit<P> {
    Admitted(P),
    Wait,
    Closed(Closed),
    /// The buckets stay empty for longer than the call may wait.
    Reject {
        retry_after: Duration,
    },
}
