//! The steps of a call: its key's queue, the readiness of the inner service, the attempt, the body of a 429, and a retry.
//!
//! ```text
//!             ┌──────────────── a 429 that is retried ───◀───────────────┐
//!             ▼                                                              │
//! Wait(Sleep) ▶ Wait(Queue) ▶ Wait(Ready) ─▶ Calling ─▶ Reading (a 429's body) ─▶ the answer
//!                                             ▲  └────────────────────────────▶ the answer
//!                  admitted at once ──────────┘
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
use super::config::{ERROR_BODY_MAX, ERROR_BODY_TIME};
use super::outcome::Outcome;
use crate::quota::Controller;
use crate::ready::{Readiness, WaitEnd, take_ready};
use crate::response::body::{ReadAhead, ResponseBody};
use crate::response::rejection::LocalRejection;
use crate::response::stream_errors::first_event;
use crate::retry::clone_body::CloneBody;
use crate::wait_queue::Waiter;

/// A retry with a shorter delay than this, 1 ms, yields to the runtime once. Otherwise a service that throttles at once would
/// block its task until the retries are spent.
const TICK: Duration = Duration::from_millis(1);
const POLLED_AGAIN: &str = "`ResponseFuture` polled after completion";

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
        // A copy of the request for a further attempt.
        pub(super) spare: Option<Request<B>>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<F, B, RB: Body> {
        Calling { #[pin] future: F },
        // The state of a waiting or throttled call is boxed, because most calls never need it.
        Waiting { wait: Option<Box<Wait<B>>> },
        Reading { read: Option<Box<Reading<RB>>> },
        Answered { rejection: LocalRejection },
        Done,
    }
}

pub(super) struct Wait<B> {
    stage: Stage,
    /// The wait yields to the runtime first.
    yields: bool,
    since: Instant,
    request: Request<B>,
    traced: bool,
}

enum Stage {
    /// A sleep outside the queue.
    Sleep(Pin<Box<Sleep>>),
    /// The key's queue.
    Queue(Waiter<Controller>),
    /// The readiness of the inner service, after admission.
    Ready(Readiness),
}

pub(super) struct Reading<RB: Body> {
    ahead: ReadAhead<RB>,
    parts: response::Parts,
}

impl<S, C, B, RB> ResponseFuture<S, C, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: CloneBody<B>,
    RB: Body<Data = Bytes>,
{
    pub(super) fn wait(service: S, call: Call<C>, request: Request<B>) -> Self {
        let stage = Stage::Queue(call.queue(None));
        let wait = Wait { stage, yields: false, since: Instant::now(), request, traced: false };
        Self { service, state: State::Waiting { wait: Some(Box::new(wait)) }, call, spare: None }
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let answer = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    this.call.started = true;
                    let result = ready!(future.poll(cx));
                    this.state.set(State::Done); // drops the inner future before its permit
                    match result {
                        Ok(response) => this.call.answered(response),
                        Err(error) => match this.call.failed() {
                            Some(again) => Outcome::RetryPlan(again),
                            None => return Poll::Ready(Err(error)),
                        },
                    }
                }
                StateProj::Reading { read } => {
                    let Some(mut reading) = read.take() else { panic!("{POLLED_AGAIN}") };
                    if reading.poll(cx).is_pending() {
                        *read = Some(reading);
                        return Poll::Pending;
                    }
                    this.state.set(State::Done);
                    let Reading { ahead, parts } = *reading;
                    this.call.read(parts, ahead)
                }
                StateProj::Waiting { wait } => {
                    let Some(mut waiting) = wait.take() else { panic!("{POLLED_AGAIN}") };
                    let Poll::Ready(end) = waiting.poll(cx, this.service, this.call) else {
                        *wait = Some(waiting);
                        return Poll::Pending;
                    };
                    this.call.waited += Instant::now().saturating_duration_since(waiting.since);
                    match end {
                        WaitEnd::Ready(()) => {
                            let (mut parts, body) = waiting.request.into_parts();
                            *this.spare = this.call.copy(&parts, &body);
                            this.call.mark(&mut parts);
                            let future = this.service.call(Request::from_parts(parts, body));
                            this.state.set(State::Calling { future });
                        }
                        WaitEnd::Rejected(rejection) => this.state.set(State::Answered { rejection }),
                        WaitEnd::Failed(error) => {
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
                StateProj::Done => panic!("{POLLED_AGAIN}"),
            };
            match answer {
                Outcome::Response(response) => return Poll::Ready(Ok(response)),
                Outcome::Read(parts, body) => {
                    let reading = Reading { ahead: ReadAhead::new(body), parts };
                    this.state.set(State::Reading { read: Some(Box::new(reading)) });
                }
                Outcome::RetryPlan(again) => {
                    let Some(request) = this.spare.take() else {
                        unreachable!("only a call with a copy is sent again")
                    };
                    let wait = Wait::again(this.call, request, &again);
                    this.state.set(State::Waiting { wait: Some(Box::new(wait)) });
                }
            }
        }
    }
}

impl<RB: Body<Data = Bytes>> Reading<RB> {
    /// Reads as much of the body as the verdict needs.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.parts.status.is_success() {
            // The first event of a stream takes as long as the model thinks.
            let enough = |ahead: &ReadAhead<RB>| first_event(&ahead.bytes(ERROR_BODY_MAX)).is_some();
            self.ahead.poll_read(cx, ERROR_BODY_MAX, None, enough)
        } else {
            self.ahead.poll_read(cx, ERROR_BODY_MAX, Some(ERROR_BODY_TIME), |_| false)
        }
    }
}

impl<B> Wait<B> {
    /// Starts the wait of a call that is sent again: a sleep outside the queue, or its old position in the queue.
    fn again<C>(call: &Call<C>, request: Request<B>, again: &RetryPlan) -> Self {
        let since = Instant::now();
        let sleep = again.at.saturating_duration_since(since);
        let stage = if again.bypass_queue {
            Stage::Sleep(Box::pin(tokio::time::sleep_until(again.at)))
        } else {
            Stage::Queue(call.queue(Some(sleep)))
        };
        Self { stage, yields: sleep < TICK, since, request, traced: false }
    }

    fn poll<S: Service<Request<B>> + Clone, C>(
        &mut self,
        cx: &mut Context<'_>,
        service: &mut S,
        call: &mut Call<C>,
    ) -> Poll<WaitEnd<(), S::Error>> {
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
                Stage::Queue(waiter) => {
                    let Poll::Ready(outcome) = waiter.poll(cx) else {
                        if !self.traced {
                            self.traced = true;
                            call.trace_wait();
                        }
                        return Poll::Pending;
                    };
                    match LocalRejection::of_wait(outcome) {
                        Ok(ticket) => call.admitted(ticket),
                        Err(rejection) => return Poll::Ready(WaitEnd::Rejected(rejection)),
                    }
                    call.deliver_events();
                    self.stage = Stage::Ready(Readiness::default());
                }
                Stage::Ready(readiness) => {
                    let waited = match ready!(readiness.poll(cx, service)) {
                        Ok(waited) => waited,
                        Err(error) => return Poll::Ready(WaitEnd::Failed(error)),
                    };
                    if waited && call.is_stopped() {
                        // A cooldown has begun meanwhile, so the admission is returned. The ready instance is dropped, because
                        // it may hold a permit of a layer below.
                        drop(take_ready(service));
                        call.withdraw();
                        self.stage = requeue(call);
                        continue;
                    }
                    return Poll::Ready(WaitEnd::Ready(()));
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
