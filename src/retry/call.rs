//! One call through its attempts: what it holds, what it has used up, and how it is answered locally. No timers, no polling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header::HeaderName};
use http_body::Body;
use tokio::time::Instant;

use super::config::Shared;
use super::info::{RetryInfo, StopReason};
use super::policy::{Class, Spent, may_sleep};
use crate::backoff;
use crate::classify::Verdict;
use crate::quota::{Admitted, CallInfo, Clearance, Controller, Ticket};
use crate::request::{QuotaKey, ResendCount};
use crate::response::body::ResponseBody;
use crate::response::rejection::{LocalRejection, RejectReason};
use crate::retry::clone_body::CloneBody;
use crate::trace;
use crate::wait_queue::{Permit, QueuePosition, TryAdmit, WaitLimits, WaitQueue, Waiter};

pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An admitted attempt.
pub(super) struct Attempt {
    pub(super) ticket: Ticket,
    pub(super) permit: Permit,
}

/// A call, from its first attempt to its answer.
pub(super) struct Call<C> {
    pub(super) shared: Arc<Shared>,
    pub(super) controller: Arc<WaitQueue<Controller>>,
    pub(super) position: QueuePosition,
    pub(super) call_info: CallInfo,
    pub(super) deadline: Option<Instant>,
    pub(super) waited: Duration,
    pub(super) clone_body: C,
    pub(super) key: QuotaKey,
    pub(super) account: QuotaKey,
    pub(super) retry_allowed: bool,
    pub(super) nested: bool,
    /// The running attempt. The future drops the inner call first, then this.
    pub(super) attempt: Option<Attempt>,
    /// The running attempt has been polled, so it may have reached the server.
    pub(super) started: bool,
    /// A copy of the request exists.
    pub(super) replayable: bool,
    /// The request is a `POST`, so its success may contain an error. Answers to other methods may be files.
    pub(super) is_post: bool,
    pub(super) attempts: u32,
    pub(super) throttled: u32,
    /// Throttled window probes. They cost no retry, up to `max_retries` of them.
    pub(super) probes: u32,
    pub(super) others: u32,
    pub(super) slept: Duration,
    pub(super) verdict: Option<Box<Verdict>>,
}

/// When a call is sent again.
pub(super) struct RetryPlan {
    /// The earliest time.
    pub(super) at: Instant,
    /// The call sleeps outside the key's queue until then.
    pub(super) bypass_queue: bool,
}

/// The source of a call's delay before its next attempt.
#[derive(Clone, Copy)]
pub(super) enum Delay {
    /// The call's own backoff, at least as long as the server's hint.
    Backoff { hint: Option<Duration> },
    /// The key's controller.
    Controller { not_before: Instant, bypass_queue: bool },
}

/// What a call needs before its first attempt.
pub(super) struct CallContext {
    pub(super) controller: Arc<WaitQueue<Controller>>,
    pub(super) key: QuotaKey,
    pub(super) account: QuotaKey,
    pub(super) position: QueuePosition,
    pub(super) call_info: CallInfo,
    pub(super) deadline: Option<Instant>,
    /// The call may be sent more than once.
    pub(super) retry_allowed: bool,
    /// Another `RetryOn429` above handles this call. It is classified here, but neither paced nor retried.
    pub(super) nested: bool,
}

impl<C> Call<C> {
    pub(super) fn new(shared: Arc<Shared>, clone_body: C, context: CallContext) -> Self {
        let CallContext { controller, key, account, position, call_info, deadline, retry_allowed, nested } = context;
        Self {
            shared,
            controller,
            position,
            call_info,
            deadline,
            waited: Duration::ZERO,
            clone_body,
            key,
            account,
            retry_allowed,
            nested,
            attempt: None,
            started: false,
            replayable: false,
            is_post: false,
            attempts: 0,
            throttled: 0,
            probes: 0,
            others: 0,
            slept: Duration::ZERO,
            verdict: None,
        }
    }

    /// Admits the call at once if nothing holds it back. Returns false if it has to queue.
    pub(super) fn try_admit(&mut self) -> Result<bool, LocalRejection> {
        if self.nested {
            return Ok(true);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(LocalRejection::new(RejectReason::Deadline, None));
        }
        match self.controller.try_admit(self.call_info) {
            TryAdmit::Admitted(ticket) => self.admitted(ticket),
            TryAdmit::Wait => return Ok(false),
            TryAdmit::Closed(closed) => return Err(LocalRejection::closed(closed)),
            TryAdmit::Reject { retry_after } => {
                return Err(LocalRejection::new(RejectReason::Cooldown, Some(retry_after)));
            }
        }
        Ok(true)
    }

    /// Queues the call. `sleep` is the time that a retried call sleeps in the queue.
    pub(super) fn queue(&self, sleep: Option<Duration>) -> Waiter<Controller> {
        Waiter::new(Arc::clone(&self.controller), self.position, self.call_info, self.limits(sleep))
    }

    fn limits(&self, sleep: Option<Duration>) -> WaitLimits {
        let config = &self.shared.config;
        WaitLimits {
            max_queue: config.max_queue,
            timeout: config.queue_timeout.map(|time| time.saturating_add(sleep.unwrap_or_default())),
            deadline: self.deadline,
            again: sleep.is_some(),
        }
    }

    /// Records an admission.
    pub(super) fn admitted(&mut self, ticket: Ticket) {
        let permit = Permit::new(Arc::clone(&self.controller) as _, ticket.seq, self.shared.config.lend_unread_after);
        self.attempt = Some(Attempt { ticket, permit });
        self.started = false;
    }

    /// Returns whether a cooldown has begun since the admission.
    pub(super) fn is_stopped(&self) -> bool {
        let now = Instant::now();
        let stopped = |seq| self.controller.read(|controller| controller.clearance(now, seq)) != Clearance::Clear;
        self.attempt.as_ref().is_some_and(|attempt| stopped(attempt.ticket.seq))
    }

    /// Returns the admission unused.
    pub(super) fn withdraw(&mut self) {
        if let Some(Attempt { ticket, permit }) = self.attempt.take() {
            self.controller.update(|controller, now| controller.on_withdrawn(now, &ticket));
            permit.settled();
        }
    }

    /// Copies the request if it may be sent again. The copy is made before [`mark`](Self::mark), without the attempt's extensions.
    pub(super) fn copy<B>(&mut self, parts: &Parts, body: &B) -> Option<Request<B>>
    where
        C: CloneBody<B>,
    {
        let body = if self.may_go_again() { self.clone_body.clone_body(body) } else { None };
        self.replayable = body.is_some();
        Some(Request::from_parts(parts.clone(), body?))
    }

    /// Marks the request of an attempt.
    pub(super) fn mark(&mut self, parts: &mut Parts) {
        if self.attempts > 0 {
            parts.extensions.insert(ResendCount(self.attempts));
            if let Some(name) = &self.shared.config.retry_count {
                parts.headers.insert(name, self.attempts.into());
            }
        }
        self.attempts += 1;
        self.is_post = parts.method == Method::POST;
        if let Some(Attempt { ticket, .. }) = &self.attempt {
            let (controller, seq) = (Arc::clone(&self.controller), ticket.seq);
            parts.extensions.insert(Admitted { position: self.position, key: self.key, controller, seq });
        }
    }

    pub(super) fn max_retries(&self) -> u32 {
        self.shared.config.allowed.max_retries
    }

    fn may_go_again(&self) -> bool {
        let allowed = &self.shared.config.allowed;
        let others = allowed.retry_on.others && self.others < allowed.max_other_retries;
        self.retry_allowed && (self.throttled < allowed.max_retries || others)
    }

    /// Decides whether a call is sent again after a transport error.
    pub(super) fn failed(&mut self) -> Option<RetryPlan> {
        self.attempt = None;
        if !self.shared.config.allowed.retry_on.others {
            return None;
        }
        self.again(Class::Other, Instant::now(), Delay::Backoff { hint: None }).ok()
    }

    /// Decides whether and when the call is sent again.
    pub(super) fn again(&mut self, class: Class, now: Instant, delay: Delay) -> Result<RetryPlan, StopReason> {
        let (sleep, bypass_queue) = match delay {
            Delay::Controller { not_before, bypass_queue } => (not_before.saturating_duration_since(now), bypass_queue),
            Delay::Backoff { hint } => {
                // Each draw has its own generator, because a cloned one would give all calls the same jitter.
                let mut rng = self.shared.quotas.rng();
                let drawn = self.shared.config.controller.backoff.draw(self.others + 1, &mut rng);
                let sleep = hint.map_or(drawn, |hint| hint.max(drawn).saturating_add(backoff::spread(hint, &mut rng)));
                (sleep, true)
            }
        };
        let spent = Spent {
            throttled: self.throttled,
            probes: self.probes,
            others: self.others,
            slept: self.slept,
            left: self.deadline.map(|deadline| deadline.saturating_duration_since(now)),
            retry_allowed: self.retry_allowed,
            replayable: self.replayable,
        };
        may_sleep(&self.shared.config.allowed, &spent, class, sleep)?;
        match class {
            Class::Throttled => self.throttled += 1,
            Class::Probe => self.probes += 1,
            Class::Other if !self.shared.budget.withdraw(now) => return Err(StopReason::BudgetSpent),
            Class::Other => self.others += 1,
        }
        self.slept = self.slept.saturating_add(sleep);
        Ok(RetryPlan { at: crate::time::add(now, sleep), bypass_queue })
    }

    /// Makes the answer of a call that is rejected locally.
    pub(super) fn throttle<RB: Body<Data = Bytes>>(
        &mut self,
        mut rejection: LocalRejection,
    ) -> Response<ResponseBody<RB>> {
        if rejection.reason == RejectReason::QuotaExhausted {
            // A new key of a closed account delivers its event here.
            rejection = rejection.said_by(self.update_quota(|controller, _| controller.closed_by()));
            self.verdict = rejection.verdict().cloned().map(Box::new).or(self.verdict.take());
        }
        trace::rejected_locally(&rejection);
        let mut response = (self.shared.config.reject_with)(&rejection).map(ResponseBody::local);
        if self.shared.config.mark_final {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(self.info(Some(StopReason::Local), rejection.retry_after));
        response.extensions_mut().insert(rejection);
        response
    }

    pub(super) fn info(&mut self, stopped: Option<StopReason>, retry_after: Option<Duration>) -> RetryInfo {
        RetryInfo {
            attempts: self.attempts,
            waited: self.waited,
            verdict: self.verdict.take().map(|verdict| *verdict),
            stopped,
            retry_after,
        }
    }
}

impl<C> Drop for Call<C> {
    /// A call that is dropped before it was sent returns its admission.
    fn drop(&mut self) {
        let queued_below =
            |attempt: &Attempt| self.controller.read(|controller| controller.is_queued_below(attempt.ticket.seq));
        if self.attempt.as_ref().is_some_and(|attempt| !self.started || queued_below(attempt)) {
            self.withdraw();
        }
    }
}
