//! What a call goes through: its key's queue, the inner service's readiness, the call, the body of a 429, and again.
//!
//! ```text
//!             ┌──────────────── a 429 that waiting cures ◀───────────────┐
//!             ▼                                                              │
//! Wait(Sleep) ▶ Wait(Queue) ▶ Wait(Ready) ─▶ Calling ─▶ Reading (a 429's body) ─▶ the answer
//!                                             ▲  └────────────────────────────▶ the answer
//!                  admitted at the door ──────┘
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::call::{Call, RetryPlan};
use super::outcome::Outcome;
use crate::quota::Controller;
use crate::response::body::{ReadAhead, ResponseBody};
use crate::response::rejection::{LocalRejection, RejectReason};
use crate::response::stream_errors::first_event;
use crate::retry::clone_body::CloneBody;
use crate::trace;
use crate::wait_queue::{WaitLimit, WaitOutcome, Waiter};

/// Of an error body so much is read for its verdict: 64 KiB.
pub const ERROR_BODY_MAX: usize = 64 << 10;
/// ... and for so long: 2 s.
pub const ERROR_BODY_TIME: Duration = Duration::from_secs(2);

/// A retry with a shorter delay yields to the runtime once. A service that rejects at once would otherwise keep its task
/// busy until the retries are spent. A timer counts in milliseconds: 1 ms.
const TICK: Duration = Duration::from_millis(1);

pin_project! {
    /// The future of [`RetryOn429`](super::RetryOn429).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, C, B, RB>
    where
        S: Service<Request<B>>,
        RB: Body,
    {
        // The order of fields is the order of release: a readied instance first, then the permit.
        pub(super) service: S,
        #[pin]
        pub(super) state: State<S::Future, B, RB>,
        pub(super) call: Call<C>,
        // A copy of the request, made before an attempt that may be followed by another.
        pub(super) spare: Option<Request<B>>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<F, B, RB: Body> {
        Calling { #[pin] future: F },
        // What only a call that waits or was throttled needs is boxed.
        Waiting { wait: Box<Wait<B>> },
        Reading { read: Box<Reading<RB>> },
        Answered { rejection: LocalRejection },
        Done,
    }
}

pub(super) struct Wait<B> {
    stage: Stage,
    /// Other tasks run before this wait begins.
    yields: bool,
    since: Instant,
    request: Option<Request<B>>,
    told: bool,
}

enum Stage {
    /// By itself, outside the queue.
    Sleep(Pin<Box<Sleep>>),
    /// For its turn at the controller.
    Queue(Waiter<Controller>),
    /// For the inner service, admitted: it was ready at the first look, or it was not.
    Ready { late: bool },
}

pub(super) struct Reading<RB: Body> {
    ahead: Option<ReadAhead<RB>>,
    parts: Option<response::Parts>,
}

impl<S, C, B, RB> ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: CloneBody<B>,
    RB: Body<Data = Bytes>,
{
    pub(super) fn wait(service: S, call: Call<C>, request: Request<B>) -> Self {
        let stage = Stage::Queue(call.queue(None));
        let wait = Wait { stage, yields: false, since: Instant::now(), request: Some(request), told: false };
        Self { service, state: State::Waiting { wait: Box::new(wait) }, call, spare: None }
    }

    pub(super) fn answer(service: S, call: Call<C>, rejection: LocalRejection) -> Self {
        Self { service, state: State::Answered { rejection }, call, spare: None }
    }
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: CloneBody<B>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let answer = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    this.call.started = true;
                    let mut result = ready!(future.poll(cx));
                    this.state.set(State::Done); // the inner future goes first, its permit after
                    if let Ok(response) = &mut result
                        && this.call.passes(response)
                    {
                        // As most answers are: handed on from where it is.
                        let guard = this.call.succeeded(response);
                        return Poll::Ready(result.map(|ok| ok.map(|body| ResponseBody::inner(body, guard))));
                    }
                    match result {
                        Ok(response) => this.call.answered(response),
                        Err(error) => match this.call.failed() {
                            Some(again) => Outcome::RetryPlan(again),
                            None => return Poll::Ready(Err(error)),
                        },
                    }
                }
                StateProj::Reading { read } => {
                    let (Some(ahead), Some(parts)) = (&mut read.ahead, &read.parts) else {
                        unreachable!("a body is read once")
                    };
                    if parts.status.is_success() {
                        // The first event of a stream; it takes as long as the model thinks.
                        let enough = |ahead: &ReadAhead<RB>| first_event(&ahead.bytes(ERROR_BODY_MAX)).is_some();
                        ready!(ahead.poll_read(cx, ERROR_BODY_MAX, None, enough));
                    } else {
                        ready!(ahead.poll_read(cx, ERROR_BODY_MAX, Some(ERROR_BODY_TIME), |_| false));
                    }
                    let (Some(ahead), Some(parts)) = (read.ahead.take(), read.parts.take()) else {
                        unreachable!("a body is read once")
                    };
                    this.state.set(State::Done);
                    this.call.read(parts, ahead)
                }
                StateProj::Waiting { wait } => {
                    match ready!(wait.poll(cx, this.service, this.call)) {
                        Ok(Ok(())) => {
                            this.call.waited += Instant::now().saturating_duration_since(wait.since);
                            let Some(request) = wait.request.take() else { unreachable!("a wait ends once") };
                            let (mut parts, body) = request.into_parts();
                            *this.spare = this.call.copy(&parts, &body);
                            this.call.mark(&mut parts);
                            let future = this.service.call(Request::from_parts(parts, body));
                            this.state.set(State::Calling { future });
                        }
                        Ok(Err(rejection)) => {
                            this.call.waited += Instant::now().saturating_duration_since(wait.since);
                            this.state.set(State::Answered { rejection });
                        }
                        Err(error) => {
                            this.state.set(State::Done);
                            this.call.attempt = None;
                            return Poll::Ready(Err(error));
                        }
                    }
                    continue;
                }
                StateProj::Answered { rejection } => {
                    let response = this.call.throttle(rejection.clone());
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Done => panic!("polled after completion"),
            };
            match answer {
                Outcome::Response(response) => return Poll::Ready(Ok(response)),
                Outcome::Read(parts, body) => {
                    let read = Reading { ahead: Some(ReadAhead::new(body)), parts: Some(parts) };
                    this.state.set(State::Reading { read: Box::new(read) });
                }
                Outcome::RetryPlan(again) => {
                    let wait = Wait::again(this.call, this.spare.take(), &again);
                    this.state.set(State::Waiting { wait: Box::new(wait) });
                }
            }
        }
    }
}

impl<B> Wait<B> {
    /// A throttled call waits: by itself, or at its old place in the queue, where the key's cooldown is its wait.
    fn again<C>(call: &Call<C>, request: Option<Request<B>>, again: &RetryPlan) -> Self {
        let since = Instant::now();
        let sleep = again.at.saturating_duration_since(since);
        let stage = if again.bypass_queue {
            Stage::Sleep(Box::pin(tokio::time::sleep_until(again.at)))
        } else {
            Stage::Queue(call.queue(Some(sleep)))
        };
        Self { stage, yields: sleep < TICK, since, request, told: false }
    }

    #[allow(clippy::type_complexity, reason = "the three ways a wait ends, once")]
    fn poll<S: Service<Request<B>> + Clone, C>(
        &mut self,
        cx: &mut Context<'_>,
        service: &mut S,
        call: &mut Call<C>,
    ) -> Poll<Result<Result<(), LocalRejection>, S::Error>> {
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let requeue = |call: &Call<C>| Stage::Queue(call.queue(Some(Duration::ZERO)));
        loop {
            match &mut self.stage {
                Stage::Sleep(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.stage = requeue(call);
                }
                Stage::Queue(waiting) => {
                    let Poll::Ready(outcome) = waiting.poll(cx) else {
                        if !self.told {
                            self.told = true;
                            trace::waiting(&call.controller);
                        }
                        return Poll::Pending;
                    };
                    let rejection = match outcome {
                        WaitOutcome::Admitted(ticket) => {
                            call.admitted(ticket);
                            call.deliver_events();
                            self.stage = Stage::Ready { late: false };
                            continue;
                        }
                        WaitOutcome::Closed(closed) => LocalRejection::closed(closed),
                        WaitOutcome::Rejected { retry_after } => {
                            LocalRejection::new(RejectReason::Cooldown, Some(retry_after))
                        }
                        WaitOutcome::Full(turn) => LocalRejection::new(RejectReason::QueueFull, turn),
                        WaitOutcome::Expired(WaitLimit::Timeout, turn) => {
                            LocalRejection::new(RejectReason::QueueTimeout, turn)
                        }
                        WaitOutcome::Expired(WaitLimit::Deadline, turn) => {
                            LocalRejection::new(RejectReason::Deadline, turn)
                        }
                    };
                    return Poll::Ready(Ok(Err(rejection)));
                }
                Stage::Ready { late } => {
                    let Poll::Ready(ready) = service.poll_ready(cx) else {
                        *late = true;
                        return Poll::Pending;
                    };
                    if let Err(error) = ready {
                        return Poll::Ready(Err(error));
                    }
                    if *late && call.is_stopped() {
                        // A cooldown has begun while the service was getting ready: as if it had not been admitted.
                        // What was made ready is given up, as at the door: it may hold somebody else's permit.
                        let fresh = service.clone();
                        drop(std::mem::replace(service, fresh));
                        call.withdraw();
                        self.stage = requeue(call);
                        continue;
                    }
                    return Poll::Ready(Ok(Ok(())));
                }
            }
        }
    }
}

impl<S: Service<Request<B>>, C, B, RB: Body> std::fmt::Debug for ResponseFuture<S, C, B, RB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
