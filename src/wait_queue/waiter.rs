//! A call that waits: its place in a room, its bounds, and leaving when it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::timer::Share;
use super::{Closed, Place, Room, Rule};

/// How a wait ends.
pub(crate) enum Outcome<P> {
    /// It goes, with what the rule gave it.
    Admitted(P),
    /// Nobody is let in for now.
    Closed(Closed),
    /// Its buckets stay empty for longer than it may wait.
    Rejected { retry_after: Duration },
    /// The queue has no place left; when its turn would come, where that can be told.
    Full(Option<Duration>),
    /// Its time is up, or its turn does not come before it is.
    Late(Bound, Option<Duration>),
}

/// Which of a call's own bounds ended its wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Deadline,
    Timeout,
}

/// What a call accepts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// No place when so many of its class wait already.
    pub(crate) max_queue: Option<usize>,
    /// No longer than this in the queue at a time.
    pub(crate) timeout: Option<Duration>,
    /// Not after this.
    pub(crate) deadline: Option<Instant>,
    /// It had a place before: it is not turned away because the queue is full or looks long.
    pub(crate) again: bool,
}

/// A call in a room's queue. It enters at its first poll, and leaves when it is dropped.
pub(crate) struct Waiting<R: Rule> {
    room: Arc<Room<R>>,
    place: Place,
    ask: R::Ask,
    bounds: Bounds,
    /// In the timer of the runtime that polls it, while it is queued.
    share: Option<Share>,
    state: State,
}

enum State {
    Outside,
    Queued { timer: Option<(Pin<Box<Sleep>>, Bound)> },
    Done,
}

impl<R: Rule> Waiting<R> {
    pub(crate) fn new(room: Arc<Room<R>>, place: Place, ask: R::Ask, bounds: Bounds) -> Self {
        Self { room, place, ask, bounds, share: None, state: State::Outside }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<R::Pass>> {
        if self.bounds.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // Even if a slot is free: its caller has given up by now.
            self.leave();
            return Poll::Ready(Outcome::Late(Bound::Deadline, None));
        }
        let first = matches!(self.state, State::Outside);
        let polled = self.room.poll_place(&mut self.place, &mut self.share, &self.ask, &self.bounds, first, cx.waker());
        if let Poll::Ready(outcome) = polled {
            self.state = State::Done;
            return Poll::Ready(outcome);
        }
        if matches!(self.state, State::Outside) {
            self.state = State::Queued { timer: None };
            if let Some((at, bound)) = self.bounds.first() {
                self.state = State::Queued { timer: Some((Box::pin(tokio::time::sleep_until(at)), bound)) };
            }
        }
        if let State::Queued { timer: Some((sleep, bound)) } = &mut self.state
            && sleep.as_mut().poll(cx).is_ready()
        {
            let bound = *bound;
            self.leave();
            return Poll::Ready(Outcome::Late(bound, None));
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        if let State::Queued { .. } = std::mem::replace(&mut self.state, State::Done) {
            self.room.cancel(self.place, self.share.take());
        }
    }
}

impl Bounds {
    /// The bound that is met first.
    fn first(&self) -> Option<(Instant, Bound)> {
        let timeout = self.timeout.and_then(|time| Some((Instant::now().checked_add(time)?, Bound::Timeout)));
        let deadline = self.deadline.map(|at| (at, Bound::Deadline));
        [timeout, deadline].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl<R: Rule> Drop for Waiting<R> {
    fn drop(&mut self) {
        self.leave();
    }
}
