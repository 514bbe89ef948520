//! [`RetryOn429`]: finds a call's key and cost, asks its controller, and sends the call or queues it.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::call::Call;
use super::config::Shared;
use super::future::{ResponseFuture, State};
use crate::ready::take_ready;
use crate::response::body::ResponseBody;
use crate::retry::clone_body::{ByClone, CloneBody};

/// Retries and paces the calls of the inner service; see [`RetryOn429Layer`](super::RetryOn429Layer).
#[derive(Debug, Clone)]
pub struct RetryOn429<S, C = ByClone> {
    inner: S,
    clone_body: C,
    shared: Arc<Shared>,
}

impl<S> RetryOn429<S> {
    /// Wraps a service with the default settings; see [`RetryOn429Layer::new`](super::RetryOn429Layer::new).
    pub fn new(inner: S) -> Self {
        super::RetryOn429Layer::new().layer(inner)
    }
}

impl RetryOn429<()> {
    /// Creates the layer with the default settings; see [`RetryOn429Layer::new`](super::RetryOn429Layer::new).
    pub fn layer() -> super::RetryOn429Layer {
        super::RetryOn429Layer::new()
    }
}

impl<S, C> RetryOn429<S, C> {
    pub(super) fn from_parts(inner: S, clone_body: C, shared: Arc<Shared>) -> Self {
        Self { inner, clone_body, shared }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service, without retries.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, B, RB> Service<Request<B>> for RetryOn429<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: CloneBody<B> + Clone,
    B: Body,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, C, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let context = self.shared.context(&self.clone_body, &mut parts, &body);
        let mut call = Call::new(self.shared.clone(), self.clone_body.clone(), context);
        // The ready instance is called, or dropped if the call has to wait. It is declared after the call, so that it is dropped
        // first if something panics.
        let mut ready = take_ready(&mut self.inner);
        match call.try_admit() {
            Ok(true) => {
                // Requests and futures are large, so they are moved as little as possible on the path of nearly all calls.
                let spare = call.copy(&parts, &body);
                call.mark(&mut parts);
                let state = State::Calling { future: ready.call(Request::from_parts(parts, body)) };
                ResponseFuture { service: ready, state, call, spare }
            }
            Ok(false) => {
                drop(ready);
                ResponseFuture::wait(self.inner.clone(), call, Request::from_parts(parts, body))
            }
            Err(rejection) => ResponseFuture::answer(ready, call, rejection),
        }
    }
}
