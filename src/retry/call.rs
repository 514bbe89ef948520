//! One call through its attempts: what it has had, and what an answer means for it. No timers, no polling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HeaderName};
use http_body::Body;
use tokio::time::Instant;

use super::decide::{Class, Spent, may_sleep};
use super::info::{RetryInfo, StopReason};
use super::layer::Shared;
use crate::backoff;
use crate::body::ResponseBody;
use crate::call::{Cost, QuotaKey, ResendCount};
use crate::classify::Verdict;
use crate::quota::{Admitted, Gate, Ticket};
use crate::refusal::Refusal;
use crate::replay::CloneBody;
use crate::room::{Bounds, Place, Room, Slot};
use crate::trace;

pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What an admitted attempt holds.
pub(super) struct Passage {
    pub(super) ticket: Ticket,
    pub(super) slot: Slot,
}

/// A call, from its first attempt to its answer.
pub(super) struct Call<C, B> {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Room<Gate>>,
    pub(super) place: Place,
    pub(super) ask: Cost,
    pub(super) deadline: Option<Instant>,
    pub(super) waited: Duration,
    pub(super) replay: C,
    pub(super) key: QuotaKey,
    pub(super) asked: bool,
    pub(super) nested: bool,
    /// A copy of the request, made before an attempt that may be followed by another.
    pub(super) spare: Option<Request<B>>,
    pub(super) attempts: u32,
    pub(super) throttled: u32,
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

impl<C, B> Call<C, B> {
    #[allow(clippy::too_many_arguments, reason = "the facts of one call, named at the only place that has them")]
    pub(super) fn new(
        shared: Arc<Shared>,
        replay: C,
        key: QuotaKey,
        gate: Arc<Room<Gate>>,
        place: Place,
        ask: Cost,
        deadline: Option<Instant>,
        asked: bool,
    ) -> Self {
        Self {
            shared,
            gate,
            place,
            ask,
            deadline,
            waited: Duration::ZERO,
            replay,
            key,
            asked,
            nested: false,
            spare: None,
            attempts: 0,
            throttled: 0,
            others: 0,
            slept: Duration::ZERO,
            verdict: None,
        }
    }

    /// A call that a `RetryOn429` above handles.
    pub(super) fn nested(shared: Arc<Shared>, replay: C, outer: &Admitted) -> Self {
        let ask = Cost::tokens(0.0);
        let gate = Arc::clone(&outer.gate);
        let mut call = Self::new(shared, replay, outer.key, gate, outer.place, ask, None, false);
        call.nested = true;
        call
    }

    /// What this call accepts of the queue: a new one, or one that goes again and has slept for so long.
    pub(super) fn bounds(&self, sleep: Option<Duration>) -> Bounds {
        let config = &self.shared.config;
        Bounds {
            max_queue: config.max_queue,
            timeout: config.queue_timeout.map(|time| time.saturating_add(sleep.unwrap_or_default())),
            deadline: self.deadline,
            again: sleep.is_some(),
        }
    }

    /// The copy that a further attempt sends.
    pub(super) fn take_spare(&mut self) -> Option<Request<B>> {
        self.spare.take()
    }

    /// Makes a request ready to be sent: copied if it may have to be sent again, then marked.
    pub(super) fn prepare(&mut self, request: &mut Request<B>, seq: u64)
    where
        C: CloneBody<B>,
    {
        // Copied first: the copy needs no permit of ours.
        self.spare = None;
        if self.may_go_again()
            && let Some(body) = self.replay.clone_body(request.body())
        {
            copy_head(request, self.spare.insert(Request::new(body)));
        }
        if self.attempts > 0 {
            request.extensions_mut().insert(ResendCount(self.attempts));
            if let Some(name) = &self.shared.config.retry_count {
                request.headers_mut().insert(name, self.attempts.into());
            }
        }
        self.attempts += 1;
        if !self.nested {
            let gate = Arc::clone(&self.gate);
            request.extensions_mut().insert(Admitted { place: self.place, key: self.key, gate, seq });
        }
    }

    fn may_go_again(&self) -> bool {
        let allowed = &self.shared.config.allowed;
        let others = allowed.retry_on.others && self.others < allowed.max_other_retries;
        self.asked && (self.throttled < allowed.max_retries || others)
    }

    /// Tells the gate something, and whoever watches what came of it.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
        let (told, news) = self.gate.tell(|gate, now| (event(gate, now), gate.news()));
        for event in &news {
            trace::event(event);
            if let Some(tell) = &self.shared.config.on_event {
                tell(self.key, event);
            }
        }
        told
    }

    /// The transport failed: whether the call goes again.
    pub(super) fn failed(&mut self, passage: Option<Passage>) -> Option<Again> {
        drop(passage);
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
            // A fresh generator for each draw: one that is cloned along with its call gives all the same jitter.
            let mut rng = fastrand::Rng::new();
            let drawn = self.shared.config.gate.backoff.draw(self.others + 1, &mut rng);
            hint.map_or(drawn, |hint| hint.max(drawn).saturating_add(backoff::spread(hint, &mut rng)))
        };
        let sleep = not_before.map_or_else(own, |at| at.saturating_duration_since(now));
        let spent = Spent {
            throttled: self.throttled,
            others: self.others,
            slept: self.slept,
            left: self.deadline.map(|deadline| deadline.saturating_duration_since(now)),
            asked: self.asked,
            replayable: self.spare.is_some(),
        };
        may_sleep(&self.shared.config.allowed, &spent, class, sleep)?;
        match class {
            Class::Throttled => self.throttled += 1,
            Class::Other if !self.shared.budget.withdraw(now) => return Err(StopReason::BudgetSpent),
            Class::Other => self.others += 1,
        }
        self.slept = self.slept.saturating_add(sleep);
        Ok(Again { at: crate::time::add(now, sleep), alone })
    }

    /// The answer of a call that was not let in.
    pub(super) fn refuse<RB: Body<Data = Bytes>>(&mut self, refusal: Refusal) -> Response<ResponseBody<RB>> {
        trace::answered_locally(&refusal);
        let mut response = (self.shared.config.refuse_with)(&refusal).map(ResponseBody::local);
        if self.shared.config.mark_final {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(refusal);
        response.extensions_mut().insert(self.info(Some(StopReason::Local), refusal.retry_after));
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

/// Makes a request like another in all but its body. In place: requests are large, and each move of one is a copy.
fn copy_head<B>(from: &Request<B>, to: &mut Request<B>) {
    *to.method_mut() = from.method().clone();
    *to.uri_mut() = from.uri().clone();
    *to.version_mut() = from.version();
    *to.headers_mut() = from.headers().clone();
    *to.extensions_mut() = from.extensions().clone();
}
