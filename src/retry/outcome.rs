//! Handles an answer: updates the controller, then returns the answer, reads its body, or sends the call again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, response};
use http_body::Body;
use tokio::time::Instant;

use super::call::{Attempt, Call, Delay, RetryPlan, SHOULD_RETRY};
use super::config::ERROR_BODY_MAX;
use super::info::StopReason;
use super::policy::{Class, class_of};
use crate::classify::{self, Kind, RateLimitSnapshot, Verdict};
use crate::quota::Controller;
use crate::request::next_number;
use crate::response::body::{BodyGuard, ReadAhead, ResponseBody};
use crate::response::error_reply::ErrorReply;
use crate::response::rejection::{LocalRejection, RejectReason};
use crate::response::stream_errors::{Observer, first_event};
use crate::trace;
use crate::vocabulary::ReleaseAt;

/// A response body, untouched or partly read.
pub(super) enum Rest<RB: Body> {
    Whole(RB),
    Read(ReadAhead<RB>),
}

/// What happens after an answer.
pub(super) enum Outcome<RB: Body> {
    Response(Response<ResponseBody<RB>>),
    RetryPlan(RetryPlan),
    /// The body has to be read first: that of an error, or the first event of a stream.
    Read(response::Parts, RB),
}

impl<RB: Body<Data = Bytes>> Rest<RB> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Read(ahead) => ahead.is_end_stream(),
        }
    }

    fn into_body(self, guard: Option<BodyGuard>) -> ResponseBody<RB> {
        match self {
            Self::Whole(body) => ResponseBody::inner(body, guard),
            Self::Read(ahead) => ResponseBody::read(ahead, guard),
        }
    }
}

impl<C> Call<C> {
    /// Handles the head of a response.
    pub(super) fn answered<RB: Body<Data = Bytes>>(&mut self, response: Response<RB>) -> Outcome<RB> {
        if let Some(rejection) = response.extensions().get::<LocalRejection>() {
            // A local rejection of a limit below is returned at once. Nothing is learned from it.
            let rejection = rejection.clone();
            self.attempt = None;
            self.verdict = rejection.verdict().cloned().map(Box::new).or(self.verdict.take());
            let mut response = response.map(|body| ResponseBody::inner(body, None));
            response.extensions_mut().insert(self.info(Some(StopReason::Local), rejection.retry_after));
            return Outcome::Response(response);
        }
        let (parts, body) = response.into_parts();
        let is_success = parts.status.is_success();
        let reads = if is_success { self.peeks(&parts) } else { classify::reads_body(parts.status) };
        if reads {
            return Outcome::Read(parts, body);
        }
        if is_success { self.succeeded(parts, Rest::Whole(body)) } else { self.judge(parts, Rest::Whole(body), &[]) }
    }

    /// Returns whether the first event of a success is read before it is returned.
    fn peeks(&self, head: &response::Parts) -> bool {
        self.shared.config.peek_first_event && self.is_post && Observer::new(&head.headers).is_events()
    }

    /// Handles a response whose body has been read as far as needed.
    pub(super) fn read<RB: Body<Data = Bytes>>(&mut self, parts: response::Parts, ahead: ReadAhead<RB>) -> Outcome<RB> {
        let bytes = ahead.bytes(ERROR_BODY_MAX);
        if !parts.status.is_success() {
            return self.judge(parts, Rest::Read(ahead), &bytes);
        }
        if let Some(text) = first_event(&bytes)
            && let Some(error) = self.shared.judge_text(&self.controller, Some(&parts), text)
        {
            return self.judged(parts, Rest::Read(ahead), error.verdict, text);
        }
        self.succeeded(parts, Rest::Read(ahead))
    }

    /// Handles a success: updates the controller and returns the answer.
    fn succeeded<RB: Body<Data = Bytes>>(&mut self, mut parts: response::Parts, rest: Rest<RB>) -> Outcome<RB> {
        if self.attempts > 1 {
            parts.extensions.insert(self.info(None, None));
        }
        let guard = self.let_in(&parts, rest.is_end_stream());
        Outcome::Response(Response::from_parts(parts, rest.into_body(guard)))
    }

    /// Updates the controller after a success. Returns the guard for its body, which may be `over` already.
    fn let_in(&mut self, head: &response::Parts, over: bool) -> Option<BodyGuard> {
        if self.shared.config.allowed.retry_on.others {
            self.shared.budget.deposit();
        }
        let Attempt { ticket, permit } = self.attempt.take()?;
        let shown = RateLimitSnapshot::from_headers(&head.headers);
        let shown = shown.as_ref();
        if over || self.shared.config.release_at == ReleaseAt::Headers {
            self.settle(permit, |controller, now| controller.on_finished(now, &ticket, shown));
            return None;
        }
        let mut observer = Observer::new(&head.headers);
        let looks = self.is_post && observer.looks();
        let (estimated, probe) = self.update_quota(|controller, now| {
            let probe = looks && controller.is_closed();
            if probe {
                controller.on_accepted(now, &ticket, shown); // the body may contain an error
            } else {
                controller.on_success(now, &ticket, shown);
            }
            (controller.wants_usage(&ticket), probe)
        });
        if looks {
            observer = observer.with_errors(|| self.in_body(&ticket, probe, head));
        }
        Some(BodyGuard::new(permit, observer.with_usage(estimated)))
    }

    /// Classifies an answer that is no success, updates the controller and decides. `read` is the part of the body that was read.
    pub(super) fn judge<RB: Body<Data = Bytes>>(
        &mut self,
        parts: response::Parts,
        rest: Rest<RB>,
        read: &[u8],
    ) -> Outcome<RB> {
        let own = self.shared.config.classify.as_ref().and_then(|with| with(&parts, read));
        let verdict = own.unwrap_or_else(|| {
            let dialect = self.controller.read(Controller::dialect);
            let mut verdict = Verdict::in_dialect(dialect, parts.status, &parts.headers, read);
            if RejectReason::of_headers(&parts.headers) == Some(RejectReason::QuotaExhausted) {
                // Another process with this layer rejected the call. Which of its keys share an account is not known here.
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
    ) -> Outcome<RB> {
        let class = class_of(&self.shared.config.allowed, &verdict, classify::should_retry(&parts.headers));
        if class.is_some() {
            trace::throttled(&verdict, self.attempts);
        }
        let now = Instant::now();
        let shown = RateLimitSnapshot::from_headers(&parts.headers);
        let shown = shown.as_ref();
        let mut outcome = None;
        let permit = self.attempt.take().and_then(|Attempt { ticket, permit }| {
            if verdict.kind == Kind::QuotaExhausted {
                permit.settled();
                let reply = ErrorReply::new(verdict.clone(), text);
                let keys = (self.key, self.account);
                self.shared.close_quota(keys, &self.controller, reply, |controller, now, _| {
                    controller.on_quota_exhausted(now, &ticket, &verdict)
                });
            } else if verdict.is_throttling() {
                let throttled =
                    |controller: &mut Controller, now| controller.on_throttled(now, &ticket, &verdict, shown);
                outcome = Some(self.settle(permit, throttled));
            } else {
                let unprocessed = verdict.kind == Kind::TooLarge || is_unprocessed(parts.status);
                self.update_quota(|controller, now| controller.on_other_answer(now, &ticket, unprocessed, shown));
                return Some(permit); // held until the body ends
            }
            None
        });
        if let Some(outcome) = &outcome {
            self.call_info = outcome.call_info;
            if outcome.own_affair {
                self.position.number = next_number();
            }
        }
        let retry_after = verdict.retry_after;
        // An answer that is passed on carries no verdict, unless an earlier attempt was throttled.
        self.verdict = (class.is_some() || self.attempts > 1).then(|| Box::new(verdict));
        let stopped = match class {
            None => None,
            Some(Err(reason)) => Some(reason),
            Some(Ok(_)) if outcome.as_ref().is_some_and(|outcome| outcome.closed) => Some(StopReason::Closed),
            Some(Ok(class)) => {
                let free =
                    outcome.as_ref().is_some_and(|outcome| outcome.was_probe) && self.probes < self.max_retries();
                let class = if free { Class::Probe } else { class };
                let delay = match &outcome {
                    Some(outcome) => {
                        Delay::Controller { not_before: outcome.not_before, bypass_queue: outcome.bypass_queue }
                    }
                    None => Delay::Backoff { hint: retry_after },
                };
                match self.again(class, now, delay) {
                    Ok(again) => {
                        // A waiting call holds nothing of its last attempt: the body is dropped first, then the permit.
                        drop((parts, rest));
                        drop(permit);
                        return Outcome::RetryPlan(again);
                    }
                    Err(reason) => Some(reason),
                }
            }
        };
        let permit = permit.filter(|_| self.shared.config.release_at == ReleaseAt::BodyEnd);
        self.hand_back(parts, rest.into_body(permit.map(BodyGuard::permit)), stopped, retry_after)
    }

    fn hand_back<RB: Body<Data = Bytes>>(
        &mut self,
        mut parts: response::Parts,
        body: ResponseBody<RB>,
        stopped: Option<StopReason>,
        retry_after: Option<Duration>,
    ) -> Outcome<RB> {
        if let Some(reason) = stopped {
            trace::gave_up(&reason, self.attempts);
            if self.shared.config.mark_final && !self.nested {
                parts.headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
        }
        if let Some(verdict) = self.verdict.as_deref().cloned() {
            let info = self.info(stopped, retry_after);
            parts.extensions.insert(info);
            parts.extensions.insert(verdict);
        }
        Outcome::Response(Response::from_parts(parts, body))
    }
}

/// Returns whether the status shows that the server did not process the request.
fn is_unprocessed(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 409 | 429)
}
