//! What an answer means for its call: tell the gate, then hand it on, read it, or send the call again.

use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Response, StatusCode, response};
use http_body::Body;
use tokio::time::Instant;

use super::body_errors::head_of;
use super::call::{Again, Call, Passage, SHOULD_RETRY};
use super::future::ERROR_BODY_MAX;
use super::info::StopReason;
use super::policy::{Class, class_of};
use crate::classify::{self, Kind, RateLimitSnapshot, Verdict};
use crate::limit::ReleaseAt;
use crate::quota::Gate;
use crate::request::next_number;
use crate::response::body::{Held, ReadAhead, ResponseBody};
use crate::response::error_reply::ErrorReply;
use crate::response::rejection::{Reason, Refusal};
use crate::response::stream_errors::{Observer, first_event};
use crate::trace;
use crate::wait_queue::Slot;

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
    Read(response::Parts, RB),
}

impl<RB: Body<Data = Bytes>> Rest<RB> {
    fn into_body(self, slot: Option<Slot>) -> ResponseBody<RB> {
        let held = slot.map(Held::slot);
        match self {
            Self::Whole(body) => ResponseBody::inner(body, held),
            Self::Read(ahead) => ResponseBody::read(ahead, held),
        }
    }
}

impl<C> Call<C> {
    /// Whether an answer is a success that is handed on at once.
    #[inline]
    pub(super) fn passes<RB>(&self, response: &Response<RB>) -> bool {
        response.status().is_success()
            && response.extensions().get::<Refusal>().is_none()
            && !(self.shared.config.peek_first_event && self.is_post && Observer::new(response.headers()).is_events())
    }

    /// The head of a response that does not [pass](Self::passes) is there.
    pub(super) fn answered<RB: Body<Data = Bytes>>(&mut self, response: Response<RB>) -> Answer<RB> {
        if let Some(refusal) = response.extensions().get::<Refusal>() {
            // Ours, from a limit below: it goes up at once and teaches nothing.
            let refusal = refusal.clone();
            self.passage = None;
            self.verdict = refusal.verdict().cloned().map(Box::new).or(self.verdict.take());
            let mut response = response.map(|body| ResponseBody::inner(body, None));
            response.extensions_mut().insert(self.info(Some(StopReason::Local), refusal.retry_after));
            return Answer::Response(response);
        }
        let (parts, body) = response.into_parts();
        if parts.status.is_success() || classify::reads_body(parts.status) {
            return Answer::Read(parts, body);
        }
        self.judge(parts, Rest::Whole(body), &[])
    }

    /// What was wanted of a response's body has been read.
    pub(super) fn read<RB: Body<Data = Bytes>>(
        &mut self,
        mut parts: response::Parts,
        ahead: ReadAhead<RB>,
    ) -> Answer<RB> {
        let bytes = ahead.bytes(ERROR_BODY_MAX);
        if !parts.status.is_success() {
            return self.judge(parts, Rest::Read(ahead), &bytes);
        }
        if let Some(text) = first_event(&bytes)
            && let Some(error) = self.shared.judge_text(&self.gate, Some(&parts), text)
        {
            return self.judged(parts, Rest::Read(ahead), error.verdict, text);
        }
        let held = self.let_in(&parts.headers, ahead.is_end_stream(), || parts.clone());
        self.tell_retries(&mut parts.extensions);
        Answer::Response(Response::from_parts(parts, ResponseBody::read(ahead, held)))
    }

    /// An answer [passes](Self::passes). What is returned goes with its body.
    #[inline]
    pub(super) fn succeeded<RB: Body>(&mut self, response: &mut Response<RB>) -> Option<Held> {
        self.tell_retries(response.extensions_mut());
        self.let_in(response.headers(), response.body().is_end_stream(), || head_of(response))
    }

    /// Tells the gate of a success. `head` copies the answer's head for the user's own judgement.
    fn let_in(&mut self, headers: &HeaderMap, over: bool, head: impl FnOnce() -> response::Parts) -> Option<Held> {
        if self.shared.config.allowed.retry_on.others {
            self.shared.budget.deposit();
        }
        let Passage { ticket, slot } = self.passage.take()?;
        let mut empty = RateLimitSnapshot::EMPTY;
        let shown = self.shared.shown(headers, &mut empty);
        if over || self.shared.config.release_at == ReleaseAt::Headers {
            self.settle(slot, |gate, now| gate.finished(now, &ticket, shown));
            return None;
        }
        let mut observer = Observer::new(headers);
        let looks = self.is_post && observer.looks();
        let (estimated, probe) = self.tell(|gate, now| {
            let probe = looks && gate.is_closed();
            if probe {
                gate.let_in(now, &ticket, shown); // its body may say otherwise
            } else {
                gate.success(now, &ticket, shown);
            }
            (gate.wants_usage(&ticket), probe)
        });
        if looks {
            observer = observer.with_errors(|| self.in_body(&ticket, probe, head));
        }
        Some(Held::new(slot, observer.with_usage(estimated)))
    }

    #[inline]
    fn tell_retries(&mut self, extensions: &mut Extensions) {
        if self.attempts > 1 {
            extensions.insert(self.info(None, None));
        }
    }

    /// Judges an answer that is no success, tells the gate, and decides. `read` is what was read of its body.
    pub(super) fn judge<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        rest: Rest<RB>,
        read: &[u8],
    ) -> Answer<RB> {
        let own = self.shared.config.classify.as_ref().and_then(|with| with(&parts, read));
        let verdict = own.unwrap_or_else(|| {
            let dialect = self.gate.look(Gate::dialect);
            let mut verdict = Verdict::in_dialect(dialect, parts.status, &parts.headers, read);
            if Reason::of_headers(&parts.headers) == Some(Reason::QuotaExhausted) {
                // Another process of ours says so of one of its keys: which keys share an account there is not known here.
                (verdict.kind, verdict.account) = (Kind::QuotaExhausted, false);
            }
            verdict
        });
        self.judged(parts, rest, verdict, read)
    }

    fn judged<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        rest: Rest<RB>,
        verdict: Verdict,
        text: &[u8],
    ) -> Answer<RB> {
        let class = class_of(&self.shared.config.allowed, &verdict, classify::should_retry(&parts.headers));
        if class.is_some() {
            trace::refused(&verdict, self.attempts);
        }
        let now = Instant::now();
        let mut fate = None;
        let mut empty = RateLimitSnapshot::EMPTY;
        let slot = self.passage.take().and_then(|Passage { ticket, slot }| {
            if verdict.kind == Kind::QuotaExhausted {
                slot.settled();
                let reply = ErrorReply::new(verdict.clone(), text);
                let keys = (self.key, self.account);
                self.shared.tell_error(keys, &self.gate, reply, |gate, now, _| gate.exhausted(now, &ticket, &verdict));
            } else if verdict.is_throttling() {
                let shown = self.shared.shown(&parts.headers, &mut empty);
                fate = Some(self.settle(slot, |gate, now| gate.refused(now, &ticket, &verdict, shown)));
            } else {
                let shown = self.shared.shown(&parts.headers, &mut empty);
                let unprocessed = verdict.kind == Kind::TooLarge || is_unprocessed(parts.status);
                self.tell(|gate, now| gate.other(now, &ticket, unprocessed, shown));
                return Some(slot); // as any answer: until its body ends
            }
            None
        });
        if let Some(fate) = &fate {
            self.ask = fate.ask;
            if fate.own_affair {
                self.place.number = next_number();
            }
        }
        let retry_after = verdict.retry_after;
        let pass = class.is_none();
        self.verdict = Some(Box::new(verdict));
        let stopped = match class {
            None => None,
            Some(Err(reason)) => Some(reason),
            Some(Ok(_)) if fate.as_ref().is_some_and(|fate| fate.closed) => Some(StopReason::Closed),
            Some(Ok(class)) => {
                let free = fate.as_ref().is_some_and(|fate| fate.was_probe) && self.probes < self.max_retries();
                let class = if free { Class::Probe } else { class };
                let alone = class == Class::Other || fate.as_ref().is_some_and(|fate| fate.alone);
                let hint = if class == Class::Other { retry_after } else { None };
                match self.again_at(class, now, hint, fate.as_ref().map(|fate| fate.not_before), alone) {
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
}

/// Whether a server that answers so has not begun to work on the request.
fn is_unprocessed(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 409 | 429)
}
