//! What a call goes through: wait for a slot, perhaps for the gate above, then for the inner service, then call.

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
use super::layer::Config;
use super::policy::Places;
use crate::quota::{Admitted, Clearance};
use crate::response::body::{Held, ResponseBody};
use crate::response::rejection::{Reason, Refusal};
use crate::trace;
use crate::wait_queue::{Bound, Bounds, Outcome, Place, Room, Slot, Waiting};

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
        // The order of fields is the order of release: the call first, then its slot.
        Calling { #[pin] call: F, slot: Option<Slot>, release_at: ReleaseAt },
        Waiting { wait: Box<Wait<S, B>> },
        Done,
    }
}

/// What a call needs to wait by.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) room: Arc<Room<Places>>,
    pub(super) place: Place,
    pub(super) bounds: Bounds,
    pub(super) admitted: Option<Admitted>,
}

struct Wait<S, B> {
    // The order of fields is the order of release here, too: a readied instance first, then the slot.
    inner: S,
    stage: Stage,
    request: Option<Request<B>>,
    plan: Plan,
}

enum Stage {
    /// For a slot.
    Queue(Waiting<Places>),
    /// For the inner service, with a slot: it was ready at the first look, or it was not.
    Ready { slot: Option<Slot>, late: bool },
    /// For the gate above, without a slot.
    Gate(Pin<Box<Sleep>>),
}

impl<S: Service<Request<B>>, B, RB> ResponseFuture<S, B, RB> {
    pub(super) fn calling(call: S::Future, slot: Slot, release_at: ReleaseAt) -> Self {
        Self { state: State::Calling { call, slot: Some(slot), release_at }, body: std::marker::PhantomData }
    }

    pub(super) fn waiting(inner: S, request: Request<B>, plan: Plan) -> Self {
        let stage = Stage::Queue(plan.queue());
        let wait = Box::new(Wait { inner, stage, request: Some(request), plan });
        Self { state: State::Waiting { wait }, body: std::marker::PhantomData }
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
                StateProj::Calling { call, slot, release_at } => {
                    let answer = ready!(call.poll(cx));
                    let (slot, release_at) = (slot.take(), *release_at);
                    // The call's own future goes first, then, unless the body has it, the slot.
                    this.state.set(State::Done);
                    let held = slot.filter(|_| release_at == ReleaseAt::BodyEnd).map(Held::slot);
                    return Poll::Ready(answer.map(|response| response.map(|body| ResponseBody::inner(body, held))));
                }
                StateProj::Waiting { wait } => match ready!(wait.poll(cx)) {
                    Ok(Ok((request, slot))) => {
                        let call = wait.inner.call(request);
                        let release_at = wait.plan.config.release_at;
                        this.state.set(State::Calling { call, slot: Some(slot), release_at });
                    }
                    Ok(Err(refusal)) => {
                        let refuse_with = wait.plan.config.refuse_with;
                        this.state.set(State::Done); // whatever the user's function does
                        let mut response = refuse_with(&refusal).map(ResponseBody::local);
                        response.extensions_mut().insert(refusal);
                        return Poll::Ready(Ok(response));
                    }
                    Err(error) => {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                },
                StateProj::Done => panic!("polled after completion"),
            }
        }
    }
}

impl<S: Service<Request<B>> + Clone, B> Wait<S, B> {
    #[allow(clippy::type_complexity, reason = "the three ways a wait ends, once")]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<(Request<B>, Slot), Refusal>, S::Error>> {
        loop {
            match &mut self.stage {
                Stage::Queue(waiting) => {
                    let reason = match ready!(waiting.poll(cx)) {
                        Outcome::Admitted(seq) => {
                            let slot = self.plan.slot(seq);
                            // It had to queue: a cooldown may have begun meanwhile.
                            match self.plan.look_at_gate() {
                                Ok(None) => self.stage = Stage::Ready { slot: Some(slot), late: false },
                                Ok(Some(wait)) => self.stage = wait,
                                Err(refusal) => return Poll::Ready(Ok(Err(refusal))),
                            }
                            continue;
                        }
                        Outcome::Full(_) => Reason::QueueFull,
                        Outcome::Late(Bound::Timeout, _) => Reason::QueueTimeout,
                        Outcome::Late(Bound::Deadline, _) | Outcome::Closed(_) | Outcome::Rejected { .. } => {
                            Reason::Deadline
                        }
                    };
                    return Poll::Ready(Ok(Err(Refusal::new(reason, None))));
                }
                Stage::Ready { slot, late } => {
                    let Poll::Ready(ready) = self.inner.poll_ready(cx) else {
                        *late = true;
                        return Poll::Pending;
                    };
                    if let Err(error) = ready {
                        return Poll::Ready(Err(error));
                    }
                    if *late {
                        match self.plan.look_at_gate() {
                            Ok(None) => {}
                            Ok(Some(wait)) => {
                                // Nothing is held while it waits: the readied instance goes, then the slot.
                                let fresh = self.inner.clone();
                                drop(std::mem::replace(&mut self.inner, fresh));
                                self.stage = wait;
                                continue;
                            }
                            Err(refusal) => return Poll::Ready(Ok(Err(refusal))),
                        }
                    }
                    let (Some(request), Some(slot)) = (self.request.take(), slot.take()) else {
                        unreachable!("a wait ends once")
                    };
                    if let Some(admitted) = &self.plan.admitted {
                        admitted.sent();
                    }
                    return Poll::Ready(Ok(Ok((request, slot))));
                }
                Stage::Gate(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    match self.plan.look_at_gate() {
                        Ok(None) => self.stage = Stage::Queue(self.plan.queue_again()),
                        Ok(Some(wait)) => self.stage = wait,
                        Err(refusal) => return Poll::Ready(Ok(Err(refusal))),
                    }
                }
            }
        }
    }
}

impl Plan {
    fn queue(&self) -> Waiting<Places> {
        Waiting::new(Arc::clone(&self.room), self.place, (), self.bounds)
    }

    /// The slot of an admission, which may be due to slots that were lent.
    fn slot(&self, seq: u64) -> Slot {
        if let Some(permits) = self.room.tell(|places, _| places.lent.report()) {
            trace::slots_lent(permits);
        }
        Slot::new(Arc::clone(&self.room) as _, seq, self.config.lend_unread_after)
    }

    /// Under its old number, and whoever had a place has it again.
    fn queue_again(&mut self) -> Waiting<Places> {
        self.bounds.again = true;
        self.queue()
    }

    /// Whether the gate above would still let the call go; if not, what to wait for, or the answer.
    fn look_at_gate(&self) -> Result<Option<Stage>, Refusal> {
        let Some(admitted) = &self.admitted else { return Ok(None) };
        match admitted.clearance(Instant::now()) {
            Clearance::Clear => Ok(None),
            Clearance::Closed(closed) => Err(Refusal::closed(closed).said_by(admitted.closed_by())),
            Clearance::Until(until) if self.bounds.deadline.is_some_and(|deadline| deadline < until) => {
                Err(Refusal::new(Reason::Deadline, None))
            }
            Clearance::Until(until) => Ok(Some(Stage::Gate(Box::pin(tokio::time::sleep_until(until))))),
        }
    }
}

impl<S: Service<Request<B>>, B, RB> std::fmt::Debug for ResponseFuture<S, B, RB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
