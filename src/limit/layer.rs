//! [`ConcurrencyLimitLayer`]: the builder of the service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use super::config::{Config, Shared};
use super::handle::LimitHandle;
use super::service::ConcurrencyLimit;
use crate::response::rejection::LocalRejection;
use crate::vocabulary::ReleaseAt;

/// Limits how many calls run at once.
///
/// See the [module documentation](crate::limit) for examples and for the differences from tower's layer of the same name.
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ConcurrencyLimitLayer {
    config: Config,
    shared: Arc<Shared>,
}

impl ConcurrencyLimitLayer {
    /// Creates a limit of `n` calls at once, in all.
    ///
    /// # Panics
    ///
    /// Panics if `n` is zero. [`LimitHandle::resize`] pauses a limit.
    pub fn new(n: usize) -> Self {
        assert!(n > 0, "a concurrency limit of 0 lets nothing through; use LimitHandle::resize(0) to pause");
        Self { config: Config::default(), shared: Arc::new(Shared::new(n)) }
    }

    /// Limits each [`QuotaKey`](crate::QuotaKey) to `n` calls, instead of all calls together.
    ///
    /// The key is the one that a [`RetryOn429`](crate::RetryOn429) above found, else the one in the request's extensions, else
    /// host and credential.
    pub fn per_key(mut self) -> Self {
        self.config.per_key = true;
        self
    }

    /// Sets the maximum number of keys that a limit [per key](Self::per_key) remembers. 0 counts as 1. Default:
    /// [`MAX_LIMIT_KEYS`](super::MAX_LIMIT_KEYS).
    ///
    /// While all of them are in use, the calls of all other keys share one limit of `n`, and one queue.
    ///
    /// ```
    /// use tower_429::ConcurrencyLimitLayer;
    ///
    /// let layer = ConcurrencyLimitLayer::new(4).per_key().max_keys(100_000);
    /// # let _ = layer;
    /// ```
    pub fn max_keys(self, n: usize) -> Self {
        self.shared.keys().set_max(n);
        self
    }

    /// Sets how many calls of each [`Priority`](crate::Priority) may wait, for each key if the limit is per key. Default: no
    /// limit.
    ///
    /// Up to 3 `n` calls may wait in all, so a queue full of batch calls does not reject an interactive one. Further calls are
    /// rejected locally at once (`local_queue_full`). With 0, no call waits.
    pub fn max_queue(mut self, n: usize) -> Self {
        self.config.max_queue = Some(n);
        self
    }

    /// Sets the maximum time that a call waits. Default: no limit.
    ///
    /// After that time the call is rejected locally (`local_queue_timeout`).
    pub fn queue_timeout(mut self, time: Duration) -> Self {
        self.config.queue_timeout = Some(time);
        self
    }

    /// Sets when a permit is released. Default: [`ReleaseAt::BodyEnd`].
    pub fn release_at(mut self, when: ReleaseAt) -> Self {
        self.config.release_at = when;
        self
    }

    /// Sets how long a response body may stay unpolled before its permit is lent to a waiting call; see
    /// [unread bodies](crate::limit#unread-bodies). `None` turns lending off. Default:
    /// [`DEFAULT_LEND_UNREAD_AFTER`](super::DEFAULT_LEND_UNREAD_AFTER).
    pub fn lend_unread_after(mut self, time: Option<Duration>) -> Self {
        self.config.lend_unread_after = time;
        self
    }

    /// Sets how local rejections are answered. Default: [`LocalRejection::response`].
    pub fn reject_with(
        mut self,
        response: impl Fn(&LocalRejection) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.config.reject_with = Arc::new(response);
        self
    }

    /// Returns a handle that resizes and observes the limit at run time.
    pub fn handle(&self) -> LimitHandle {
        LimitHandle { shared: Arc::clone(&self.shared) }
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::from_parts(inner, Arc::new(self.config.clone()), Arc::clone(&self.shared))
    }
}
