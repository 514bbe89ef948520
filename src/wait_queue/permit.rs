//! A permit of a queue, for as long as an attempt and its answer's body last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::unread::UnreadKey;
use super::{AdmissionPolicy, WaitQueue};
use crate::time::add;

/// Where a permit is given back to, whatever the policy behind it.
pub(crate) trait Release: Send + Sync {
    fn release(&self, seq: u64, body: BodyState);
    /// A response body goes to its caller; unread for so long, its permit is lent to whoever waits.
    fn handed_out(&self, lend_after: Duration) -> UnreadKey;
    /// An unread body is polled for the first time. False: its permit has been lent.
    fn first_poll(&self, key: UnreadKey) -> bool;
    /// A frame of the answer's body has come.
    fn delivered(&self);
    fn used(&self, estimated: f64, used: f64);
}

impl<R: AdmissionPolicy> Release for WaitQueue<R> {
    fn release(&self, seq: u64, body: BodyState) {
        let mut state = self.lock();
        let now = Instant::now();
        state.end(now, seq, body);
        self.finish(state, now);
    }

    fn handed_out(&self, lend_after: Duration) -> UnreadKey {
        let mut state = self.lock();
        let now = Instant::now();
        let key = state.unread.add(add(now, lend_after));
        self.finish(state, now); // whoever waits may have to be woken when this one is lent
        key
    }

    fn first_poll(&self, key: UnreadKey) -> bool {
        self.with(|state| state.unread.remove(key))
    }

    fn delivered(&self) {
        self.progressed.store(true, Ordering::Relaxed);
    }

    fn used(&self, estimated: f64, used: f64) {
        self.update(|policy, _| policy.on_usage(estimated, used));
    }
}

/// What has become of the response body that a permit belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyState {
    /// There is none yet. Unread for so long, the permit will be lent; `None`: never.
    Awaited { lend_after: Option<Duration> },
    /// The caller has it and has not polled it.
    Unread(UnreadKey),
    /// It has been polled, or its permit is never lent: it keeps the permit.
    Read,
    /// It was unread for too long, and its permit has been lent.
    Lent,
}

/// No admission has this number.
const SETTLED: u64 = 0;

/// A permit that is given back when it is dropped: `(queue, seq)`, for either policy.
#[must_use = "the permit is free again as soon as this is dropped"]
pub(crate) struct Permit {
    queue: Arc<dyn Release>,
    seq: u64,
    body: BodyState,
}

impl Permit {
    /// `lend_after`: how long its response body may stay unread before the permit is lent, if it is ever.
    pub(crate) fn new(queue: Arc<dyn Release>, seq: u64, lend_after: Option<Duration>) -> Self {
        Self { queue, seq, body: BodyState::Awaited { lend_after } }
    }

    /// Its response body goes to the caller.
    pub(crate) fn handed_out(&mut self) {
        if let BodyState::Awaited { lend_after } = self.body {
            self.body = lend_after.map_or(BodyState::Read, |after| BodyState::Unread(self.queue.handed_out(after)));
        }
    }

    /// Its response body is polled. Only the first poll takes the queue's lock.
    #[inline]
    pub(crate) fn polled(&mut self) {
        if let BodyState::Unread(key) = self.body {
            self.body = if self.queue.first_poll(key) { BodyState::Read } else { BodyState::Lent };
        }
    }

    #[cfg(test)]
    pub(super) fn body(&self) -> BodyState {
        self.body
    }

    /// Notes that something of the answer's body has come.
    pub(crate) fn delivered(&self) {
        self.queue.delivered();
    }

    /// Tells the queue what the call has used.
    pub(crate) fn used(&self, estimated: f64, used: f64) {
        self.queue.used(estimated, used);
    }

    /// Lets go of the permit without giving it back: its books are settled already.
    pub(crate) fn settled(mut self) {
        self.seq = SETTLED;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.seq != SETTLED {
            self.queue.release(self.seq, self.body);
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("seq", &self.seq).finish_non_exhaustive()
    }
}
