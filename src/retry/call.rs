//! One call through its attempts: what it has had, and what an answer means for it. No timers, no polling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::HeaderName, request, response};
use http_body::Body;
use tokio::time::Instant;

use super::decide::{Class, Spent, class_of, may_sleep};
use super::future::ERROR_BODY_MAX;
use super::info::{RetryInfo, StopReason};
use super::layer::Shared;
use crate::backoff;
use crate::body::{ReadAhead, ResponseBody};
use crate::call::{Cost, QuotaKey, ResendCount};
use crate::classify::{self, BucketSnapshot, Kind, RateLimitSnapshot, Unit, Verdict};
use crate::dialect::Dialect;
use crate::limit::ReleaseAt;
use crate::observe::{self, Observer};
use crate::peek;
use crate::quota::{Admitted, Gate, Ticket};
use crate::refusal::Refusal;
use crate::replay::CloneBody;
use crate::room::{Bounds, Place, Room, Slot};
use crate::trace;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

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
    replay: C,
    key: QuotaKey,
    asked: bool,
    nested: bool,
    /// A copy of the request, made before an attempt that may be followed by another.
    spare: Option<Request<B>>,
    attempts: u32,
    throttled: u32,
    others: u32,
    slept: Duration,
    verdict: Option<Box<Verdict>>,
}

/// When a refused call goes again.
pub(super) struct Again {
    /// Not before this.
    pub(super) at: Instant,
    /// It sleeps by itself until then, instead of keeping its place in the key's queue.
    pub(super) alone: bool,
}

/// What was made of a response's body before it is handed back.
pub(super) enum Rest<RB: Body> {
    Whole(RB),
    Read(ReadAhead<RB>),
}

/// What an answer means.
pub(super) enum Answer<RB: Body> {
    Response(Response<ResponseBody<RB>>),
    Again(Again),
    /// A refusal whose body says more, or a stream whose first event does.
    Read(response::Parts, RB, Option<Passage>),
}

impl<RB: Body<Data = Bytes>> Rest<RB> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Read(ahead) => ahead.is_end_stream(),
        }
    }

    fn into_body(self, slot: Option<Slot>) -> ResponseBody<RB> {
        match self {
            Self::Whole(body) => ResponseBody::inner(body, slot),
            Self::Read(ahead) => ResponseBody::read(ahead, slot),
        }
    }
}

impl Shared {
    /// Marks a call before its first attempt.
    pub(super) fn mark(&self, parts: &mut request::Parts) {
        if let Some(name) = &self.config.idempotency_key
            && !parts.headers.contains_key(name)
        {
            let key = format!("{:032x}", fastrand::Rng::new().u128(..));
            if let Ok(key) = HeaderValue::try_from(key) {
                parts.headers.insert(name, key);
            }
        }
    }

    /// What an answer's headers show of the key's limits.
    fn shown(&self, headers: &HeaderMap) -> Option<RateLimitSnapshot> {
        let shown = RateLimitSnapshot::from_headers(headers)?;
        let tokens = |bucket: &BucketSnapshot| bucket.dimension.unit() != Unit::Requests;
        if !self.quotas.counts_tokens() && shown.buckets().iter().any(tokens) {
            self.quotas.note_tokens();
        }
        Some(shown)
    }

    /// Who shares a limit with this call, what it costs, and the gate that decides.
    pub(super) fn identify<C: CloneBody<B>, B: Body>(
        &self,
        replay: &C,
        parts: &request::Parts,
        body: &B,
    ) -> (QuotaKey, Cost, Arc<Room<Gate>>) {
        let config = &self.config;
        let mut peeked: Option<Option<Bytes>> = None;
        let given = parts.extensions.get::<QuotaKey>().copied();
        let given = given.or_else(|| config.key.as_ref().and_then(|of| of(parts)));
        let key = given.unwrap_or_else(|| {
            let model = peek::model_in_path(parts.uri.path()).or_else(|| {
                let body = peeked.insert(replay.peek(body, peek::PEEK_MAX)).as_ref()?;
                peek::model(body)
            });
            let model = model.unwrap_or_default();
            QuotaKey::of(parts, config.pool.map_or(model, |of| of(model)))
        });
        let dialect = || config.dialect.unwrap_or_else(|| Dialect::for_host(parts.uri.host().unwrap_or_default()));
        let gate = self.quotas.gate(key, &config.gate, dialect);
        let cost = parts.extensions.get::<Cost>().copied();
        let cost = cost.or_else(|| {
            if !self.quotas.counts_tokens() {
                return None; // no request need be read to its end before a limit on tokens is known
            }
            let pricing = gate.look(|gate| gate.dialect().pricing);
            let body = peeked.get_or_insert_with(|| replay.peek(body, peek::PEEK_MAX)).clone().unwrap_or_default();
            let estimated = config.tokens.as_ref().and_then(|estimator| estimator.estimate(parts, &body));
            Some(estimated.unwrap_or_else(|| peek::cost(pricing, &body)))
        });
        (key, cost.unwrap_or(Cost::tokens(0.0)), gate)
    }
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
    fn tell<T>(&self, event: impl FnOnce(&mut Gate, Instant) -> T) -> T {
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

    /// A response's head is there.
    pub(super) fn answered<RB: Body<Data = Bytes>>(
        &mut self,
        response: Response<RB>,
        passage: Option<Passage>,
    ) -> Answer<RB> {
        let (mut parts, body) = response.into_parts();
        if let Some(refusal) = parts.extensions.get::<Refusal>().copied() {
            // Ours, from a limit below: it goes up at once and teaches nothing.
            drop(passage);
            let info = self.info(Some(StopReason::Local), refusal.retry_after);
            parts.extensions.insert(info);
            return Answer::Response(Response::from_parts(parts, ResponseBody::inner(body, None)));
        }
        if !parts.status.is_success() {
            if classify::reads_body(parts.status) {
                return Answer::Read(parts, body, passage);
            }
            return self.judge(parts, Rest::Whole(body), &[], passage);
        }
        if self.shared.config.peek_first_event && Observer::new(&parts.headers).is_events() {
            return Answer::Read(parts, body, passage);
        }
        self.succeeded(parts, Rest::Whole(body), passage)
    }

    /// What was wanted of a response's body has been read.
    pub(super) fn read<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        ahead: ReadAhead<RB>,
        passage: Option<Passage>,
    ) -> Answer<RB> {
        let bytes = ahead.bytes(ERROR_BODY_MAX);
        if !parts.status.is_success() {
            return self.judge(parts, Rest::Read(ahead), &bytes, passage);
        }
        match observe::first_event(&bytes).flatten() {
            Some(verdict) => self.judged(parts, Rest::Read(ahead), verdict, passage),
            None => self.succeeded(parts, Rest::Read(ahead), passage),
        }
    }

    fn succeeded<RB: Body<Data = Bytes>>(
        &mut self,
        mut parts: response::Parts,
        rest: Rest<RB>,
        passage: Option<Passage>,
    ) -> Answer<RB> {
        if self.shared.config.allowed.retry_on.others {
            self.shared.budget.deposit();
        }
        let over = rest.is_end_stream() || self.shared.config.release_at == ReleaseAt::Headers;
        let mut estimated = None;
        let slot = passage.and_then(|Passage { ticket, slot }| {
            let shown = self.shared.shown(&parts.headers);
            if over {
                self.tell(|gate, now| gate.finished(now, &ticket, shown.as_ref()));
                slot.settled();
                return None;
            }
            estimated = self.tell(|gate, now| {
                gate.success(now, &ticket, shown.as_ref());
                gate.wants_usage(&ticket)
            });
            Some(slot)
        });
        if self.attempts > 1 {
            let info = self.info(None, None);
            parts.extensions.insert(info);
        }
        let observer =
            if slot.is_some() { Observer::new(&parts.headers).with_usage(estimated) } else { Observer::default() };
        Answer::Response(Response::from_parts(parts, rest.into_body(slot).observed(observer)))
    }

    /// Judges an answer that is no success, tells the gate, and decides.
    pub(super) fn judge<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        rest: Rest<RB>,
        read: &[u8],
        passage: Option<Passage>,
    ) -> Answer<RB> {
        let own = self.shared.config.classify.as_ref().and_then(|with| with(&parts, read));
        let verdict = own.unwrap_or_else(|| {
            let dialect = self.gate.look(Gate::dialect);
            Verdict::in_dialect(dialect, parts.status, &parts.headers, read)
        });
        self.judged(parts, rest, verdict, passage)
    }

    fn judged<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        rest: Rest<RB>,
        verdict: Verdict,
        passage: Option<Passage>,
    ) -> Answer<RB> {
        let class = class_of(&self.shared.config.allowed, &verdict, classify::should_retry(&parts.headers));
        if class.is_some() {
            trace::refused(&verdict, self.attempts);
        }
        let now = Instant::now();
        let mut fate = None;
        let slot = passage.and_then(|Passage { ticket, slot }| {
            if verdict.kind == Kind::QuotaExhausted {
                self.tell(|gate, now| gate.exhausted(now, &ticket));
            } else if verdict.is_throttling() {
                let shown = self.shared.shown(&parts.headers);
                if verdict.requested.is_some_and(|requested| requested > 1.0) {
                    self.shared.quotas.note_tokens(); // its text speaks of a limit on tokens
                }
                fate = Some(self.tell(|gate, now| gate.refused(now, &ticket, &verdict, shown.as_ref())));
            } else {
                let shown = self.shared.shown(&parts.headers);
                let too_large = verdict.kind == Kind::TooLarge;
                if too_large || shown.is_some() {
                    self.gate.tell(|gate, now| gate.other(now, &ticket, too_large, shown.as_ref()));
                }
                return Some(slot); // as any answer: until its body ends
            }
            slot.settled();
            None
        });
        let retry_after = verdict.retry_after;
        let pass = class.is_none();
        self.verdict = Some(Box::new(verdict));
        let stopped = match class {
            None => None,
            Some(Err(reason)) => Some(reason),
            Some(Ok(_)) if fate.is_some_and(|fate| fate.closed) => Some(StopReason::Closed),
            Some(Ok(class)) => {
                let alone = class == Class::Other || fate.is_some_and(|fate| fate.alone);
                let hint = if class == Class::Other { retry_after } else { None };
                match self.again_at(class, now, hint, fate.map(|fate| fate.not_before), alone) {
                    Ok(again) => {
                        // Nothing of an attempt is held while waiting: body, then slot, go now.
                        drop((parts, rest));
                        drop(slot);
                        return Answer::Again(again);
                    }
                    Err(reason) => Some(reason),
                }
            }
        };
        let slot = slot.filter(|_| self.shared.config.release_at == ReleaseAt::BodyEnd);
        self.hand_back(parts, rest, slot, stopped, retry_after, pass)
    }

    fn hand_back<RB: Body<Data = Bytes>>(
        &mut self,
        mut parts: response::Parts,
        rest: Rest<RB>,
        slot: Option<Slot>,
        stopped: Option<StopReason>,
        retry_after: Option<Duration>,
        pass: bool,
    ) -> Answer<RB> {
        if let Some(reason) = stopped {
            trace::gave_up(reason, self.attempts);
            if self.shared.config.mark_final && !self.nested {
                parts.headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
        }
        if pass && self.attempts == 1 {
            self.verdict = None; // nothing was refused
        }
        if let Some(verdict) = self.verdict.as_deref().cloned() {
            let info = self.info(stopped, retry_after);
            parts.extensions.insert(info);
            parts.extensions.insert(verdict);
        }
        Answer::Response(Response::from_parts(parts, rest.into_body(slot)))
    }

    fn again(&mut self, class: Class, now: Instant, hint: Option<Duration>) -> Result<Again, StopReason> {
        self.again_at(class, now, hint, None, true)
    }

    /// Whether, and when, the call goes again.
    fn again_at(
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

    fn info(&mut self, stopped: Option<StopReason>, retry_after: Option<Duration>) -> RetryInfo {
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
