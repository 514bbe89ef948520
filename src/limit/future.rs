//! The steps of a call: a permit, the controller above if there is one, the readiness of the inner service, and the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::ReleaseAt;
use super::config::Config;
use super::policy::FixedLimit;
use crate::quota::{Admitted, Clearance};
use crate::ready::{Readiness, WaitEnd, take_ready};
use crate::response::body::{BodyGuard, ResponseBody};
use crate::response::rejection::{LocalRejection, RejectReason};
use crate::trace;
use crate::wait_queue::{Permit, QueuePosition, WaitLimits, WaitQueue, Waiter};

const POLLED_AGAIN: &str = "`ResponseFuture` polled after completion";

pin_project! {
    /// The future of [`ConcurrencyLimit`](super::ConcurrencyLimit).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S: Service<Request<B>>, B, RB> {
        #[pin]
        state: State<S, B, S::Future>,
        body: std::marker::PhantomData<fn() -> RB>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // The order of fields is the order of release: the call first, then its permit.
        Calling { #[pin] call: F, permit: Option<Permit>, release_at: ReleaseAt },
        Waiting { wait: Option<Box<Wait<S, B>>> },
        Done,
    }
}

/// What a waiting call needs.
pub(super) struct Plan {
    pub(super) config: Arc<Config>,
    pub(super) queue: Arc<WaitQueue<FixedLimit>>,
    pub(super) position: QueuePosition,
    pub(super) limits: WaitLimits,
    pub(super) admitted: Option<Admitted>,
}

struct Wait<S, B> {
    // The order of fields is the order of release here, too: a readied instance first, then the permit.
    inner: S,
    stage: Stage,
    permit: Option<Permit>,
    request: Request<B>,
    plan: Plan,
}

enum Stage {
    /// A permit.
    Queue(Waiter<FixedLimit>),
    /// The readiness of the inner service, with a permit.
    Ready(Readiness),
    /// The cooldown of the controller above, without a permit.
    Controller(Pin<Box<Sleep>>),
}

impl<S: Service<Request<B>>, B, RB> ResponseFuture<S, B, RB> {
    pub(super) fn calling(call: S::Future, permit: Permit, release_at: ReleaseAt) -> Self {
        Self { state: State::Calling { call, permit: Some(permit), release_at }, body: std::marker::PhantomData }
    }

    pub(super) fn waiting(inner: S, request: Request<B>, plan: Plan) -> Self {
        let stage = Stage::Queue(plan.queue());
        let wait = Box::new(Wait { inner, stage, permit: None, request, plan });
        Self { state: State::Waiting { wait: Some(wait) }, body: std::marker::PhantomData }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B, RB>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { call, permit, release_at } => {
                    let answer = ready!(call.poll(cx));
                    let (permit, release_at) = (permit.take(), *release_at);
                    // Drops the call's future first, then the permit, unless the body takes it.
                    this.state.set(State::Done);
                    let guard = permit.filter(|_| release_at == ReleaseAt::BodyEnd).map(BodyGuard::permit);
                    return Poll::Ready(answer.map(|response| response.map(|body| ResponseBody::inner(body, guard))));
                }
                StateProj::Waiting { wait } => {
                    let Some(mut waiting) = wait.take() else { panic!("{POLLED_AGAIN}") };
                    let Poll::Ready(end) = waiting.poll(cx) else {
                        *wait = Some(waiting);
                        return Poll::Pending;
                    };
                    this.state.set(State::Done);
                    // The ready instance is declared last, so that it is dropped before the permit.
                    let Wait { permit, request, plan, mut inner, .. } = *waiting;
                    match end {
                        WaitEnd::Ready(()) => {
                            let call = inner.call(request);
                            this.state.set(State::Calling { call, permit, release_at: plan.config.release_at });
                        }
                        WaitEnd::Rejected(rejection) => {
                            let mut response = (plan.config.reject_with)(&rejection).map(ResponseBody::local);
                            response.extensions_mut().insert(rejection);
                            return Poll::Ready(Ok(response));
                        }
                        WaitEnd::Failed(error) => return Poll::Ready(Err(error)),
                    }
                }
                StateProj::Done => panic!("{POLLED_AGAIN}"),
            }
        }
    }
}

impl<S: Service<Request<B>> + Clone, B> Wait<S, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<WaitEnd<(), S::Error>> {
        loop {
            match &mut self.stage {
                Stage::Queue(waiter) => {
                    match LocalRejection::of_wait(ready!(waiter.poll(cx))) {
                        Ok(seq) => self.permit = Some(self.plan.permit(seq)),
                        Err(rejection) => return Poll::Ready(WaitEnd::Rejected(rejection)),
                    }
                    // The call had to queue: a cooldown may have begun meanwhile.
                    match self.plan.check_controller() {
                        Ok(None) => self.stage = Stage::Ready(Readiness::default()),
                        Ok(Some(wait)) => self.give_up(wait),
                        Err(rejection) => return Poll::Ready(WaitEnd::Rejected(rejection)),
                    }
                }
                Stage::Ready(readiness) => {
                    let waited = match ready!(readiness.poll(cx, &mut self.inner)) {
                        Ok(waited) => waited,
                        Err(error) => return Poll::Ready(WaitEnd::Failed(error)),
                    };
                    if waited {
                        match self.plan.check_controller() {
                            Ok(None) => {}
                            Ok(Some(wait)) => {
                                drop(take_ready(&mut self.inner));
                                self.give_up(wait);
                                continue;
                            }
                            Err(rejection) => return Poll::Ready(WaitEnd::Rejected(rejection)),
                        }
                    }
                    if let Some(admitted) = &self.plan.admitted {
                        admitted.sent();
                    }
                    return Poll::Ready(WaitEnd::Ready(()));
                }
                Stage::Controller(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    match self.plan.check_controller() {
                        Ok(None) => self.stage = Stage::Queue(self.plan.queue_again()),
                        Ok(Some(wait)) => self.stage = wait,
                        Err(rejection) => return Poll::Ready(WaitEnd::Rejected(rejection)),
                    }
                }
            }
        }
    }

    /// Waits for the controller above, without a permit.
    fn give_up(&mut self, wait: Stage) {
        self.stage = wait;
        self.permit = None;
    }
}

impl Plan {
    fn queue(&self) -> Waiter<FixedLimit> {
        Waiter::new(Arc::clone(&self.queue), self.position, (), self.limits)
    }

    /// Makes the permit of an admission, and logs permits that were lent for it.
    fn permit(&self, seq: u64) -> Permit {
        if let Some(permits) = self.queue.update(|places, _| places.lent.report()) {
            trace::permits_lent(permits);
        }
        Permit::new(Arc::clone(&self.queue) as _, seq, self.config.lend_unread_after)
    }

    /// Queues again, at the call's old position. A full queue does not reject it.
    fn queue_again(&mut self) -> Waiter<FixedLimit> {
        self.limits.again = true;
        self.queue()
    }

    /// Asks the controller above whether the call may still go. Returns what to wait for, if anything, or the rejection.
    fn check_controller(&self) -> Result<Option<Stage>, LocalRejection> {
        let Some(admitted) = &self.admitted else { return Ok(None) };
        match admitted.clearance(Instant::now()) {
            Clearance::Clear => Ok(None),
            Clearance::Closed(closed) => Err(LocalRejection::closed(closed).said_by(admitted.closed_by())),
            Clearance::Until(until) if self.limits.deadline.is_some_and(|deadline| deadline < until) => {
                Err(LocalRejection::new(RejectReason::Deadline, None))
            }
            Clearance::Until(until) => Ok(Some(Stage::Controller(Box::pin(tokio::time::sleep_until(until))))),
        }
    }
}

impl<S: Service<Request<B>>, B, RB> std::fmt::Debug for ResponseFuture<S, B, RB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
