//! [`ConcurrencyLimit`]: takes a permit for each call, or queues the call.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::ConcurrencyLimitLayer;
use super::config::{Config, Shared};
use super::future::{Plan, ResponseFuture};
use crate::quota::Admitted;
use crate::ready::take_ready;
use crate::request::{Deadline, next_number};
use crate::response::body::ResponseBody;
use crate::wait_queue::{Permit, QueuePosition, TryAdmit, WaitLimits};

/// Limits how many calls of the inner service run at once; see [`ConcurrencyLimitLayer`].
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit<S> {
    inner: S,
    config: Arc<Config>, // a service is cloned for each call
    shared: Arc<Shared>,
}

impl ConcurrencyLimit<()> {
    /// Creates the layer; see [`ConcurrencyLimitLayer::new`].
    ///
    /// # Panics
    ///
    /// Panics if `n` is zero.
    pub fn layer(n: usize) -> ConcurrencyLimitLayer {
        ConcurrencyLimitLayer::new(n)
    }
}

impl<S> ConcurrencyLimit<S> {
    /// Wraps a service with a limit of `n` calls at once; see [`ConcurrencyLimitLayer::new`].
    ///
    /// # Panics
    ///
    /// Panics if `n` is zero.
    pub fn new(inner: S, n: usize) -> Self {
        ConcurrencyLimitLayer::new(n).layer(inner)
    }

    pub(super) fn from_parts(inner: S, config: Arc<Config>, shared: Arc<Shared>) -> Self {
        Self { inner, config, shared }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service, without the limit.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for ConcurrencyLimit<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let config = &self.config;
        let admitted = request.extensions().get::<Admitted>();
        let queue = self.shared.queue(config.per_key, &request, admitted);
        // The ready instance is called, or dropped if the call has to wait.
        let mut ready = take_ready(&mut self.inner);
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.instant());
        // The deadline of a call that comes through a controller was checked there.
        let late = admitted.is_none() && deadline.is_some_and(|deadline| deadline <= Instant::now());
        if !late && let TryAdmit::Admitted(seq) = queue.try_admit(()) {
            let permit = Permit::new(queue, seq, config.lend_unread_after);
            return ResponseFuture::calling(ready.call(request), permit, config.release_at);
        }
        drop(ready);
        if let Some(admitted) = admitted {
            admitted.queued_below();
        }
        let position = admitted.map_or_else(
            || QueuePosition { class: request.extensions().get().copied().unwrap_or_default(), number: next_number() },
            |admitted| admitted.position,
        );
        let limits = WaitLimits { max_queue: config.max_queue, timeout: config.queue_timeout, deadline, again: false };
        let plan = Plan { config: Arc::clone(config), queue, position, limits, admitted: admitted.cloned() };
        ResponseFuture::waiting(self.inner.clone(), request, plan)
    }
}
