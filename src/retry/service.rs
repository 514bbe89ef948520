//! [`RetryOn429`]: finds a call's key and cost, asks its gate, and sends it or has it wait.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::call::Call;
use super::future::ResponseFuture;
use super::layer::Shared;
use crate::body::ResponseBody;
use crate::call::{Deadline, NoRetry, Priority, next_number};
use crate::quota::Admitted;
use crate::refusal::{Reason, Refusal};
use crate::replay::{ByClone, CloneBody};
use crate::room::{Entry, Place};

/// The service of a [`RetryOn429Layer`](super::RetryOn429Layer).
#[derive(Debug, Clone)]
pub struct RetryOn429<S, C = ByClone> {
    inner: S,
    replay: C,
    shared: Arc<Shared>,
}

impl<S, C> RetryOn429<S, C> {
    pub(super) fn new(inner: S, replay: C, shared: Arc<Shared>) -> Self {
        Self { inner, replay, shared }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without retries.
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
        // The readied instance is the one called, unless the call has to wait: then it is given up.
        let fresh = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, fresh);
        let (mut parts, body) = request.into_parts();
        if let Some(outer) = parts.extensions.get::<Admitted>().cloned() {
            // Another `RetryOn429` above handles this call: not paced, not retried, only judged.
            let call = Call::nested(self.shared.clone(), self.replay.clone(), &outer);
            return ResponseFuture::unpaced(ready, call, Request::from_parts(parts, body));
        }
        self.shared.mark(&mut parts);
        let (key, ask, gate) = self.shared.identify(&self.replay, &parts, &body);
        let class = parts.extensions.get::<Priority>().copied().unwrap_or_default();
        let place = Place { class, number: next_number() };
        let deadline = parts.extensions.get::<Deadline>().map(|deadline| deadline.at());
        let asked = parts.extensions.get::<NoRetry>().is_none();
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let request = Request::from_parts(parts, body);
        let entry = if late { None } else { Some(gate.enter(ask)) };
        let call = Call::new(self.shared.clone(), self.replay.clone(), key, gate, place, ask, deadline, asked);
        match entry {
            Some(Entry::Admitted(ticket)) => ResponseFuture::send(ready, call, request, ticket),
            Some(Entry::Wait) => {
                drop(ready);
                ResponseFuture::wait(self.inner.clone(), call, request)
            }
            Some(Entry::Closed(closed)) => ResponseFuture::answer(ready, call, Refusal::closed(closed)),
            None => ResponseFuture::answer(ready, call, Refusal::new(Reason::Deadline, None)),
        }
    }
}
