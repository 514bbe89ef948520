//! A call that waits: its place in a queue, its limits, and leaving when it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::timer::Share;
use super::{AdmissionPolicy, Closed, QueuePosition, WaitQueue};

/// How a wait ends.
pub(crate) enum WaitOutcome<P> {
    /// It goes, with what the policy gave it.
    Admitted(P),
    /// Nobody is let in for now.
    Closed(Closed),
    /// Its buckets stay empty for longer than it may wait.
    Rejected { retry_after: Duration },
    /// The queue has no place left; when its turn would come, where that can be told.
    Full(Option<Duration>),
    /// Its time is up, or its turn does not come before it is.
    Expired(WaitLimit, Option<Duration>),
}

/// Which of a call's own limits ended its wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitLimit {
    Deadline,
    Timeout,
}

/// What a call accepts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WaitLimits {
    /// No place when so many of its class wait already.
    pub(crate) max_queue: Option<usize>,
    /// No longer than this in the queue at a time.
    pub(crate) timeout: Option<Duration>,
    /// Not after this.
    pub(crate) deadline: Option<Instant>,
    /// It had a place before: it is not turned away because the queue is full or looks long.
    pub(crate) again: bool,
}

/// A call in a queue's queue. It enters at its first poll, and leaves when it is dropped.
pub(crate) struct Waiter<R: AdmissionPolicy> {
    queue: Arc<WaitQueue<R>>,
    waiting: WaitingCall<R::Call>,
    state: State,
}

/// What a queue is told of a call at each poll.
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
            // Even if a permit is free: its caller has given up by now.
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
    /// The bound that is met first.
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
