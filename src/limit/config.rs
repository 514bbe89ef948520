//! The settings of a limit, and the queues that all its services share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Request;

use super::policy::FixedLimit;
use crate::key_map::{KeyMap, Standing};
use crate::quota::Admitted;
use crate::request::QuotaKey;
use crate::response::rejection::{LocalRejection, RejectWith};
use crate::vocabulary::ReleaseAt;
use crate::wait_queue::{DEFAULT_LEND_UNREAD_AFTER, WaitQueue};

/// The default of [`max_keys`](super::ConcurrencyLimitLayer::max_keys): a limit per key remembers at most 10,240 keys.
///
/// The idle key that was used longest ago is forgotten first. A key in use is never forgotten.
pub const MAX_LIMIT_KEYS: usize = 10_240;

#[derive(Clone)]
pub(super) struct Config {
    pub(super) per_key: bool,
    pub(super) max_queue: Option<usize>,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) release_at: ReleaseAt,
    pub(super) lend_unread_after: Option<Duration>,
    pub(super) reject_with: RejectWith,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) all: Arc<WaitQueue<FixedLimit>>,
    /// Shared by the keys that are not remembered, because all remembered keys are in use.
    pub(super) others: Arc<WaitQueue<FixedLimit>>,
    keys: Mutex<KeyMap<Arc<WaitQueue<FixedLimit>>>>,
    pub(super) size: AtomicUsize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            per_key: false,
            max_queue: None,
            queue_timeout: None,
            release_at: ReleaseAt::BodyEnd,
            lend_unread_after: Some(DEFAULT_LEND_UNREAD_AFTER),
            reject_with: Arc::new(LocalRejection::response),
        }
    }
}

impl Shared {
    pub(super) fn new(n: usize) -> Self {
        let [all, others] = [(); 2].map(|()| WaitQueue::new(FixedLimit::new(n)));
        Self { all, others, keys: Mutex::new(KeyMap::new(MAX_LIMIT_KEYS)), size: AtomicUsize::new(n) }
    }

    /// Returns the queue of a request.
    pub(super) fn queue<B>(
        &self,
        per_key: bool,
        request: &Request<B>,
        admitted: Option<&Admitted>,
    ) -> Arc<WaitQueue<FixedLimit>> {
        if !per_key {
            return Arc::clone(&self.all);
        }
        let key = admitted.map(|admitted| admitted.key);
        let key = key.or_else(|| request.extensions().get::<QuotaKey>().copied());
        let key = key.unwrap_or_else(|| QuotaKey::of_head(request.uri(), request.headers(), b""));
        let mut keys = self.keys();
        if let Some(queue) = keys.get(key) {
            return Arc::clone(queue);
        }
        let in_use = |queue: &Arc<_>| if Arc::strong_count(queue) > 1 { Standing::InUse } else { Standing::Idle };
        let (removed, fits) = keys.make_room(in_use);
        if !fits {
            return Arc::clone(&self.others);
        }
        let queue = WaitQueue::new(FixedLimit::new(self.size.load(Ordering::SeqCst)));
        keys.insert(key, Arc::clone(&queue));
        drop(keys);
        drop(removed); // outside the lock: it may be much
        queue
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, KeyMap<Arc<WaitQueue<FixedLimit>>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("per_key", &self.per_key)
            .field("max_queue", &self.max_queue)
            .field("queue_timeout", &self.queue_timeout)
            .finish_non_exhaustive()
    }
}
