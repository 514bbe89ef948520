//! One call through its attempts: what it has had, and what an answer means for it. No timers, no polling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header::HeaderName};
use http_body::Body;
use tokio::time::Instant;

use super::info::{RetryInfo, StopReason};
use super::layer::Shared;
use super::policy::{Class, Spent, may_sleep};
use crate::backoff;
use crate::classify::Verdict;
use crate::quota::{Admitted, Ask, Clearance, Gate, Ticket};
use crate::request::{QuotaKey, ResendCount};
use crate::response::body::ResponseBody;
use crate::response::rejection::{Reason, Refusal};
use crate::retry::clone_body::CloneBody;
use crate::trace;
use crate::wait_queue::{Bounds, Entry, Place, Room, Slot, Waiting};

pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What an admitted attempt holds.
pub(super) struct Passage {
    pub(super) ticket: Ticket,
    pub(super) slot: Slot,
}

/// A call, from its first attempt to its answer.
pub(super) struct Call<C> {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Room<Gate>>,
    pub(super) place: Place,
    pub(super) ask: Ask,
    pub(super) deadline: Option<Instant>,
    pub(super) waited: Duration,
    pub(super) replay: C,
    pub(super) key: QuotaKey,
    pub(super) account: QuotaKey,
    pub(super) asked: bool,
    pub(super) nested: bool,
    /// What the running attempt holds. The future drops what it called first, then this.
    pub(super) passage: Option<Passage>,
    /// The running attempt has been polled: it may have reached the server.
    pub(super) started: bool,
    /// There is a copy of the request.
    pub(super) replayable: bool,
    /// It is a `POST`: a success may hold an error of the server's. Other answers may be files of the user's.
    pub(super) is_post: bool,
    pub(super) attempts: u32,
    pub(super) throttled: u32,
    /// Refused probes, which cost no retry, up to as many as there are retries.
    pub(super) probes: u32,
    pub(super) others: u32,
    pub(super) slept: Duration,
    pub(super) verdict: Option<Box<Verdict>>,
}

/// When a refused call goes again.
pub(super) struct Again {
    /// Not before this.
    pub(super) at: Instant,
    /// It sleeps by itself until then, instead of keeping its place in the key's queue.
    pub(super) alone: bool,
}

/// What is known of a call before its first attempt.
pub(super) struct Facts {
    pub(super) gate: Arc<Room<Gate>>,
    pub(super) key: QuotaKey,
    pub(super) account: QuotaKey,
    pub(super) place: Place,
    pub(super) ask: Ask,
    pub(super) deadline: Option<Instant>,
    /// It may be sent more than once.
    pub(super) asked: bool,
    /// Another `RetryOn429` above handles this call: not paced, not retried, only judged.
    pub(super) nested: bool,
}

/// How a call gets in.
pub(super) enum Entrance {
    /// It goes at once.
    Open,
    /// It queues.
    Queue,
}

impl<C> Call<C> {
    #[inline]
    pub(super) fn new(shared: Arc<Shared>, replay: C, facts: Facts) -> Self {
        let Facts { gate, key, account, place, ask, deadline, asked, nested } = facts;
        Self {
            shared,
            gate,
            place,
            ask,
            deadline,
            waited: Duration::ZERO,
            replay,
            key,
            account,
            asked,
            nested,
            passage: None,
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

    /// Whether the call goes at once, if nobody is before it.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<Entrance, Refusal> {
        if self.nested {
            return Ok(Entrance::Open);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Refusal::new(Reason::Deadline, None));
        }
        match self.gate.enter(self.ask) {
            Entry::Admitted(ticket) => self.admitted(ticket),
            Entry::Wait => return Ok(Entrance::Queue),
            Entry::Closed(closed) => return Err(Refusal::closed(closed)),
            Entry::Reject { retry_after } => return Err(Refusal::new(Reason::Cooldown, Some(retry_after))),
        }
        Ok(Entrance::Open)
    }

    /// The call in its key's queue: a new one, or one that goes again and has slept for so long.
    pub(super) fn queue(&self, sleep: Option<Duration>) -> Waiting<Gate> {
        Waiting::new(Arc::clone(&self.gate), self.place, self.ask, self.bounds(sleep))
    }

    fn bounds(&self, sleep: Option<Duration>) -> Bounds {
        let config = &self.shared.config;
        Bounds {
            max_queue: config.max_queue,
            timeout: config.queue_timeout.map(|time| time.saturating_add(sleep.unwrap_or_default())),
            deadline: self.deadline,
            again: sleep.is_some(),
        }
    }

    /// The gate has let the call go.
    pub(super) fn admitted(&mut self, ticket: Ticket) {
        let slot = Slot::new(Arc::clone(&self.gate) as _, ticket.seq, self.shared.config.lend_unread_after);
        self.passage = Some(Passage { ticket, slot });
        self.started = false;
    }

    /// Whether a cooldown has begun since the gate let the call go.
    pub(super) fn is_stopped(&self) -> bool {
        let now = Instant::now();
        let stopped = |seq| self.gate.look(|gate| gate.clearance(now, seq)) != Clearance::Clear;
        self.passage.as_ref().is_some_and(|passage| stopped(passage.ticket.seq))
    }

    /// Gives its admission back.
    pub(super) fn withdraw(&mut self) {
        if let Some(Passage { ticket, slot }) = self.passage.take() {
            self.gate.tell(|gate, now| gate.withdrawn(now, &ticket));
            slot.settled();
        }
    }

    /// A copy of the request, if it may have to be sent again. It is made before [`mark`](Self::mark): it needs no permit of
    /// ours.
    #[inline]
    pub(super) fn copy<B>(&mut self, parts: &Parts, body: &B) -> Option<Request<B>>
    where
        C: CloneBody<B>,
    {
        let body = if self.may_go_again() { self.replay.clone_body(body) } else { None };
        self.replayable = body.is_some();
        Some(Request::from_parts(parts.clone(), body?))
    }

    /// Marks a request that is sent now.
    #[inline]
    pub(super) fn mark(&mut self, parts: &mut Parts) {
        if self.attempts > 0 {
            parts.extensions.insert(ResendCount(self.attempts));
            if let Some(name) = &self.shared.config.retry_count {
                parts.headers.insert(name, self.attempts.into());
            }
        }
        self.attempts += 1;
        self.is_post = parts.method == Method::POST;
        if let Some(Passage { ticket, .. }) = &self.passage {
            let (gate, seq) = (Arc::clone(&self.gate), ticket.seq);
            parts.extensions.insert(Admitted { place: self.place, key: self.key, gate, seq });
        }
    }

    pub(super) fn max_retries(&self) -> u32 {
        self.shared.config.allowed.max_retries
    }

    fn may_go_again(&self) -> bool {
        let allowed = &self.shared.config.allowed;
        let others = allowed.retry_on.others && self.others < allowed.max_other_retries;
        self.asked && (self.throttled < allowed.max_retries || others)
    }

    /// The transport failed: whether the call goes again.
    pub(super) fn failed(&mut self) -> Option<Again> {
        self.passage = None;
        if !self.shared.config.allowed.retry_on.others {
            return None;
        }
        self.again(Class::Other, Instant::now(), None).ok()
    }

    pub(super) fn again(&mut self, class: Class, now: Instant, hint: Option<Duration>) -> Result<Again, StopReason> {
        self.again_at(class, now, hint, None, true)
    }

    /// Whether, and when, the call goes again.
    pub(super) fn again_at(
        &mut self,
        class: Class,
        now: Instant,
        hint: Option<Duration>,
        not_before: Option<Instant>,
        alone: bool,
    ) -> Result<Again, StopReason> {
        let own = || {
            // A generator for each draw: one that is cloned along with its call gives all the same jitter.
            let mut rng = self.shared.quotas.rng();
            let drawn = self.shared.config.gate.backoff.draw(self.others + 1, &mut rng);
            hint.map_or(drawn, |hint| hint.max(drawn).saturating_add(backoff::spread(hint, &mut rng)))
        };
        let sleep = not_before.map_or_else(own, |at| at.saturating_duration_since(now));
        let spent = Spent {
            throttled: self.throttled,
            probes: self.probes,
            others: self.others,
            slept: self.slept,
            left: self.deadline.map(|deadline| deadline.saturating_duration_since(now)),
            asked: self.asked,
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
        Ok(Again { at: crate::time::add(now, sleep), alone })
    }

    /// The answer of a call that was not let in.
    pub(super) fn refuse<RB: Body<Data = Bytes>>(&mut self, mut refusal: Refusal) -> Response<ResponseBody<RB>> {
        if refusal.reason == Reason::QuotaExhausted {
            // A key that is first met while its account is closed has not told of it yet.
            refusal = refusal.said_by(self.tell(|gate, _| gate.closed_by()));
            self.verdict = refusal.verdict().cloned().map(Box::new).or(self.verdict.take());
        }
        trace::answered_locally(&refusal);
        let mut response = (self.shared.config.refuse_with)(&refusal).map(ResponseBody::local);
        if self.shared.config.mark_final {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(self.info(Some(StopReason::Local), refusal.retry_after));
        response.extensions_mut().insert(refusal);
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
    /// A call that is dropped before it was sent gives back all that it took.
    fn drop(&mut self) {
        let held = |passage: &Passage| self.gate.look(|gate| gate.is_held(passage.ticket.seq));
        if self.passage.as_ref().is_some_and(|passage| !self.started || held(passage)) {
            self.withdraw();
        }
    }
}
