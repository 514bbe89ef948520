//! [`ConcurrencyLimitLayer`]: the limit's settings and its state, shared by all services that it makes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Request;
use tower_layer::Layer;

use super::ReleaseAt;
use super::policy::FixedLimit;
use super::service::ConcurrencyLimit;
use crate::key_map::{KeyMap, Standing};
use crate::quota::Admitted;
use crate::request::QuotaKey;
use crate::response::rejection::{LocalRejection, RejectWith};
use crate::wait_queue::{DEFAULT_LEND_UNREAD_AFTER, WaitQueue};

/// A limit per key remembers at most so many keys unless [`max_keys`](ConcurrencyLimitLayer::max_keys) says otherwise:
/// 10,240. The idle key that was used longest ago is forgotten first, one in use never.
pub const MAX_LIMIT_KEYS: usize = 10_240;

/// Limits how many calls run at once. See the [module documentation](crate::limit) for examples and for the differences
/// from tower's layer of the same name.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimitLayer {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
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
    all: Arc<WaitQueue<FixedLimit>>,
    /// For the keys that are not remembered, because all that are remembered are in use.
    others: Arc<WaitQueue<FixedLimit>>,
    keys: Mutex<KeyMap<Arc<WaitQueue<FixedLimit>>>>,
    size: AtomicUsize,
}

impl ConcurrencyLimitLayer {
    /// At most `n` calls at once, in all.
    ///
    /// # Panics
    ///
    /// If `n` is 0: as a fixed limit that is a mistake. Use [`LimitHandle::resize`] to pause.
    pub fn new(n: usize) -> Self {
        assert!(n > 0, "a concurrency limit of 0 lets nothing through; use LimitHandle::resize(0) to pause");
        let config = Config {
            per_key: false,
            max_queue: None,
            queue_timeout: None,
            release_at: ReleaseAt::BodyEnd,
            lend_unread_after: Some(DEFAULT_LEND_UNREAD_AFTER),
            reject_with: LocalRejection::response,
        };
        let [all, others] = [(); 2].map(|()| WaitQueue::new(FixedLimit::new(n)));
        let keys = Mutex::new(KeyMap::new(MAX_LIMIT_KEYS));
        Self { config, shared: Arc::new(Shared { all, others, keys, size: AtomicUsize::new(n) }) }
    }

    /// `n` at once for each [`QuotaKey`] instead of in all: the key that a [`RetryOn429`](crate::RetryOn429) above found,
    /// or else the one in the request's extensions, or else host and credential.
    #[must_use]
    pub fn per_key(mut self) -> Self {
        self.config.per_key = true;
        self
    }

    /// The most keys that a limit [per key](Self::per_key) remembers. Default: [`MAX_LIMIT_KEYS`]. 0 counts as 1.
    ///
    /// While all of them are in use, the calls of all other keys share one limit of `n`, and one queue.
    ///
    /// ```
    /// use tower_429::ConcurrencyLimitLayer;
    ///
    /// let layer = ConcurrencyLimitLayer::new(4).per_key().max_keys(100_000);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn max_keys(self, n: usize) -> Self {
        self.shared.keys().set_max(n);
        self
    }

    /// At most `n` calls of each [`Priority`](crate::Priority) wait, and so at most 3 `n` in all; of each key if it is per
    /// key. A queue full of batch calls does not reject an interactive one. More calls are answered locally at once
    /// (`local_queue_full`). Default: no bound. 0: nobody waits.
    #[must_use]
    pub fn max_queue(mut self, n: usize) -> Self {
        self.config.max_queue = Some(n);
        self
    }

    /// No call waits longer than this at a time; then it is answered locally (`local_queue_timeout`). Default: no bound.
    #[must_use]
    pub fn queue_timeout(mut self, time: Duration) -> Self {
        self.config.queue_timeout = Some(time);
        self
    }

    /// When a permit is free again. Default: [`ReleaseAt::BodyEnd`].
    #[must_use]
    pub fn release_at(mut self, when: ReleaseAt) -> Self {
        self.config.release_at = when;
        self
    }

    /// How long a response body may stay unpolled before its permit is lent to a call that waits; see
    /// [unread bodies](crate::limit#unread-bodies). Default: [`DEFAULT_LEND_UNREAD_AFTER`]. `None`: never.
    #[must_use]
    pub fn lend_unread_after(mut self, time: Option<Duration>) -> Self {
        self.config.lend_unread_after = time;
        self
    }

    /// What a call that is not let in is answered with. Default: [`LocalRejection::response`].
    #[must_use]
    pub fn reject_with(mut self, throttle: RejectWith) -> Self {
        self.config.reject_with = throttle;
        self
    }

    /// A handle that resizes and observes the limit at run time.
    pub fn handle(&self) -> LimitHandle {
        LimitHandle { shared: Arc::clone(&self.shared) }
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::new(inner, self.clone())
    }
}

impl Shared {
    /// The queue that a request belongs to.
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

    fn keys(&self) -> MutexGuard<'_, KeyMap<Arc<WaitQueue<FixedLimit>>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resizes and observes a [`ConcurrencyLimitLayer`] at run time.
///
/// ```
/// use tower_429::ConcurrencyLimitLayer;
///
/// let layer = ConcurrencyLimitLayer::new(8);
/// let handle = layer.handle();
/// handle.resize(2); // calls that run go on; the next one waits until fewer than two do
/// assert_eq!((handle.in_use(), handle.queued()), (0, 0));
/// ```
#[derive(Debug, Clone)]
pub struct LimitHandle {
    shared: Arc<Shared>,
}

impl LimitHandle {
    /// Sets the limit, of each key if it is per key. Smaller: running calls go on. 0 pauses. Larger: waiters go at once.
    pub fn resize(&self, n: usize) {
        self.shared.size.store(n, Ordering::SeqCst);
        // Read again under each queue's lock: of two that resize at once, the same one is the last for all.
        self.queues().for_each(|queue| queue.update(|places, _| places.size = self.shared.size.load(Ordering::SeqCst)));
    }

    /// How many permits are taken, over all keys. Slots that are lent do not count.
    pub fn in_use(&self) -> usize {
        self.queues().map(|queue| queue.read(|places| places.in_use)).sum()
    }

    /// How many permits are lent because nobody reads their response bodies, over all keys; see
    /// [unread bodies](crate::limit#unread-bodies).
    pub fn lent(&self) -> usize {
        self.queues().map(|queue| queue.read(|places| places.lent.count() as usize)).sum()
    }

    /// How many calls wait, over all keys.
    pub fn queued(&self) -> usize {
        self.queues().map(|queue| queue.queued()).sum()
    }

    /// One after another, so that a key does not count as used while others are looked at.
    fn queues(&self) -> impl Iterator<Item = Arc<WaitQueue<FixedLimit>>> + use<> {
        let shared = &self.shared;
        let keys = shared.keys();
        let queues: Vec<_> = keys.values().chain([&shared.all, &shared.others]).map(Arc::downgrade).collect();
        queues.into_iter().filter_map(|queue: Weak<_>| queue.upgrade())
    }
}
