//! A waiting call: its position in a queue, its limits, and its removal on drop.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::timer::Share;
use super::{AdmissionPolicy, Closed, QueuePosition, WaitQueue};

/// The result of a wait.
pub(crate) enum WaitOutcome<P> {
    /// The call is admitted, with the policy's ticket.
    Admitted(P),
    /// The key is closed.
    Closed(Closed),
    /// The buckets stay empty for longer than the call may wait.
    Rejected { retry_after: Duration },
    /// The queue is full. The value is the time until the call's turn, if it is known.
    Full(Option<Duration>),
    /// A limit of the call has expired, or its turn comes after it. The value is the time until the call's turn, if it
    /// is known.
    Expired(WaitLimit, Option<Duration>),
}

/// The limit that ended a call's wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitLimit {
    Deadline,
    Timeout,
}

/// The limits of a call's wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WaitLimits {
    /// The maximum number of waiting calls of its class.
    pub(crate) max_queue: Option<usize>,
    /// The maximum time of one wait in the queue.
    pub(crate) timeout: Option<Duration>,
    /// The latest time at which the wait may end.
    pub(crate) deadline: Option<Instant>,
    /// Whether the call was admitted before. It is then not rejected because the queue is full or long.
    pub(crate) again: bool,
}

/// A waiting call. It enters the queue at its first poll and leaves it when it is dropped.
pub(crate) struct Waiter<R: AdmissionPolicy> {
    queue: Arc<WaitQueue<R>>,
    waiting: WaitingCall<R::Call>,
    state: State,
}

/// What a call passes to the queue at each poll.
pub(super) struct WaitingCall<C> {
    pub(super) position: QueuePosition,
    pub(super) call: C,
    pub(super) limits: WaitLimits,
    /// In the timer of the runtime that polls it, while it is queued.
    pub(super) share: Option<Share>,
}

enum State {
    Outside,
    Queued { timer: Option<(Pin<Box<Sleep>>, WaitLimit)> },
    Done,
}

impl<R: AdmissionPolicy> Waiter<R> {
    pub(crate) fn new(queue: Arc<WaitQueue<R>>, position: QueuePosition, call: R::Call, limits: WaitLimits) -> Self {
        Self { queue, waiting: WaitingCall { position, call, limits, share: None }, state: State::Outside }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<WaitOutcome<R::Ticket>> {
        if self.waiting.limits.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // The call expires even if a permit is free, because its caller no longer needs the response.
            self.leave();
            return Poll::Ready(WaitOutcome::Expired(WaitLimit::Deadline, None));
        }
        let first = matches!(self.state, State::Outside);
        let polled = self.queue.poll_position(&mut self.waiting, first, cx.waker());
        if let Poll::Ready(outcome) = polled {
            self.state = State::Done;
            return Poll::Ready(outcome);
        }
        if matches!(self.state, State::Outside) {
            self.state = State::Queued { timer: None };
            if let Some((at, bound)) = self.waiting.limits.first() {
                self.state = State::Queued { timer: Some((Box::pin(tokio::time::sleep_until(at)), bound)) };
            }
        }
        if let State::Queued { timer: Some((sleep, bound)) } = &mut self.state
            && sleep.as_mut().poll(cx).is_ready()
        {
            let bound = *bound;
            self.leave();
            return Poll::Ready(WaitOutcome::Expired(bound, None));
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        if let State::Queued { .. } = std::mem::replace(&mut self.state, State::Done) {
            self.queue.cancel(self.waiting.position, self.waiting.share.take());
        }
    }
}

impl WaitLimits {
    /// Returns the limit that expires first.
    fn first(&self) -> Option<(Instant, WaitLimit)> {
        let timeout = self.timeout.and_then(|time| Some((Instant::now().checked_add(time)?, WaitLimit::Timeout)));
        let deadline = self.deadline.map(|at| (at, WaitLimit::Deadline));
        [timeout, deadline].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl<R: AdmissionPolicy> Drop for Waiter<R> {
    fn drop(&mut self) {
        self.leave();
    }
}
