//! What a queue asks of the policy that it is built around, and what the policy answers.

use std::time::Duration;

use tokio::time::Instant;

/// The belief that a probe tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// No more calls may be in flight.
    Window,
    /// The buckets are empty.
    Level,
    /// The key is closed.
    Closed,
}

/// How a call may go; the policy gets it back when the call does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Admission {
    /// How far the call after it has to stay behind.
    pub(crate) gap: Duration,
    /// It goes although what is believed speaks against it.
    pub(crate) probe: Option<Probe>,
    /// A call that has not been throttled yet would tell more.
    pub(crate) prefer_first_attempt: bool,
}

/// What a policy says to the call whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decision {
    /// It may go now.
    Admit(Admission),
    /// Not before this moment, which lies in the future.
    NotBefore(Instant),
    /// Not before something ends, or this moment, which lies in the future.
    Blocked(Instant),
    /// Not for longer than this call waits; another one may go sooner.
    Reject { retry_after: Duration },
    /// Not for long: everybody is to be answered now.
    Closed(Closed),
}

/// Why nobody is let in, and when it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) quota: bool,
    pub(crate) retry_after: Duration,
}

/// Who may go when: the decision that a queue is built around.
pub(crate) trait AdmissionPolicy: Send + 'static {
    /// What a call asks for; kept for each waiter, so it is small.
    type Call: Copy + Send;
    /// What an admitted call gets.
    type Ticket: Copy;

    /// Somebody comes to an empty queue.
    fn on_arrival(&mut self, now: Instant);
    /// What the call whose turn it is may do when `ahead` others are counted as gone before it.
    fn decide(&mut self, now: Instant, call: &Self::Call, ahead: usize) -> Decision;
    /// The call goes.
    fn admit(&mut self, now: Instant, call: &Self::Call, admission: Admission) -> Self::Ticket;
    /// When a call with so many others before it can go at best, where that can be told.
    fn earliest_start(&mut self, _now: Instant, _call: &Self::Call, _ahead: usize) -> Option<Instant> {
        None
    }
    /// Whether [`earliest_start`](Self::earliest_start) tells something else than when this was last asked.
    fn take_estimate_changed(&mut self) -> bool {
        false
    }
    /// Whether a call has not been throttled yet.
    fn is_first_attempt(_call: &Self::Call) -> bool {
        true
    }
    /// An admitted call has ended, and its permit is free again.
    fn release(&mut self, now: Instant, seq: u64);
    /// How many permits have to be lent so that a call may go when `ahead` others are counted as gone before it. 0: it
    /// lacks something else.
    fn missing_permits(&self, now: Instant, ahead: usize) -> usize;
    /// A permit whose response body nobody reads is lent: it no longer counts as in use.
    fn lend_permit(&mut self);
    /// A permit that was lent has ended: nothing is free again because of it.
    fn release_lent(&mut self, now: Instant, seq: u64);
    /// Something of an admitted call's answer has come since this was last told.
    fn on_progress(&mut self) {}
    /// What was admitted at an estimated cost has used so much.
    fn on_usage(&mut self, _estimated: f64, _used: f64) {}
}

/// What a call at the door gets.
pub(crate) enum TryAdmit<P> {
    Admitted(P),
    Wait,
    Closed(Closed),
    /// Its buckets stay empty for longer than it may wait.
    Reject {
        retry_after: Duration,
    },
}
