//! A permit of a queue. It lasts as long as an attempt and its response body.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::unread::UnreadKey;
use super::{AdmissionPolicy, WaitQueue};
use crate::time::add;

/// Receives released permits, for any policy.
pub(crate) trait Release: Send + Sync {
    fn release(&self, seq: u64, body: BodyState);
    /// Records that a response body goes to its caller. If it stays unread for `lend_after`, its permit may be lent.
    fn handed_out(&self, lend_after: Duration) -> UnreadKey;
    /// Records the first poll of an unread body. Returns false if its permit has been lent.
    fn first_poll(&self, key: UnreadKey) -> bool;
    /// Records that a frame of the response body has arrived.
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
        self.finish(state, now); // sets the timer for the lending, if calls wait
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

/// The state of the response body that a permit belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyState {
    /// There is no response yet. The permit may be lent after the body has been unread for `lend_after`; `None` means
    /// never.
    Awaited { lend_after: Option<Duration> },
    /// The caller has the body and has not polled it.
    Unread(UnreadKey),
    /// The body has been polled, or its permit is never lent.
    Read,
    /// The body was unread for too long, and its permit has been lent.
    Lent,
}

/// Marks a permit that needs no release. No admission has this number.
const SETTLED: u64 = 0;

/// A permit that is released when it is dropped. It works with any policy.
#[must_use = "the permit is free again as soon as this is dropped"]
pub(crate) struct Permit {
    queue: Arc<dyn Release>,
    seq: u64,
    body: BodyState,
}

impl Permit {
    /// Creates a permit. `lend_after` is how long the response body may stay unread before the permit may be lent;
    /// `None` means never.
    pub(crate) fn new(queue: Arc<dyn Release>, seq: u64, lend_after: Option<Duration>) -> Self {
        Self { queue, seq, body: BodyState::Awaited { lend_after } }
    }

    /// Records that the response body goes to the caller.
    pub(crate) fn handed_out(&mut self) {
        if let BodyState::Awaited { lend_after } = self.body {
            self.body = lend_after.map_or(BodyState::Read, |after| BodyState::Unread(self.queue.handed_out(after)));
        }
    }

    /// Records a poll of the response body. Only the first poll takes the queue's lock.
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

    /// Records that a frame of the response body has arrived.
    pub(crate) fn delivered(&self) {
        self.queue.delivered();
    }

    /// Reports the estimated and the used tokens of the call.
    pub(crate) fn used(&self, estimated: f64, used: f64) {
        self.queue.used(estimated, used);
    }

    /// Drops the permit without a release, because the policy has already accounted for it.
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
