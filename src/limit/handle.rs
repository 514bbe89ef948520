//! [`LimitHandle`]: resizes and observes a limit at run time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::config::Shared;
use super::policy::FixedLimit;
use crate::wait_queue::WaitQueue;

/// Resizes and observes a [`ConcurrencyLimitLayer`](super::ConcurrencyLimitLayer) at run time.
///
/// ```
/// use tower_429::ConcurrencyLimitLayer;
///
/// let layer = ConcurrencyLimitLayer::new(8);
/// let handle = layer.handle();
/// handle.resize(2); // running calls go on, and the next one waits until fewer than two run
/// assert_eq!((handle.in_use(), handle.queued()), (0, 0));
/// ```
#[derive(Debug, Clone)]
pub struct LimitHandle {
    pub(super) shared: Arc<Shared>,
}

impl LimitHandle {
    /// Sets the limit, of each key if it is per key.
    ///
    /// Running calls go on if it becomes smaller. If it becomes larger, as many waiting calls are sent at once as fit. With 0, no
    /// further call is sent.
    pub fn resize(&self, n: usize) {
        self.shared.size.store(n, Ordering::SeqCst);
        // Read again under each queue's lock: of two that resize at once, the same one is the last for all.
        self.queues().for_each(|queue| queue.update(|limit, _| limit.size = self.shared.size.load(Ordering::SeqCst)));
    }

    /// Returns how many permits are taken, over all keys. Lent permits do not count.
    pub fn in_use(&self) -> usize {
        self.queues().map(|queue| queue.read(|limit| limit.in_use)).sum()
    }

    /// Returns how many permits are lent because nobody reads their response bodies, over all keys; see
    /// [unread bodies](crate::limit#unread-bodies).
    pub fn lent(&self) -> usize {
        self.queues().map(|queue| queue.read(|limit| limit.lent.count() as usize)).sum()
    }

    /// Returns how many calls wait, over all keys.
    pub fn queued(&self) -> usize {
        self.queues().map(|queue| queue.queued()).sum()
    }

    /// Upgrades one queue after another, so that a key does not count as used while others are read.
    fn queues(&self) -> impl Iterator<Item = Arc<WaitQueue<FixedLimit>>> + use<> {
        let shared = &self.shared;
        let keys = shared.keys();
        let queues: Vec<_> = keys.values().chain([&shared.all, &shared.others]).map(Arc::downgrade).collect();
        queues.into_iter().filter_map(|queue: Weak<_>| queue.upgrade())
    }
}
