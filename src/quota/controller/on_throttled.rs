//! The effects of a 429 on a key, and what the throttled call does next.

use std::time::Duration;

use tokio::time::Instant;

use super::on_headers::{Figures, window_of};
use super::{Controller, Failing, QUOTA_PROBE, Ticket};
use crate::classify::{Evidence, Kind, RateLimitSnapshot, Unit, Verdict};
use crate::event::QuotaEvent;
use crate::quota::controller::attribution::{Attributed, Cause, Class};
use crate::quota::controller::call_info::{CallInfo, unit_of};
use crate::quota::state::ClosedReason;
use crate::time::add;
use crate::wait_queue::AdmissionPolicy;

/// A key without a success for [`max_wait`](ControllerConfig::max_wait) closes after this many episodes in a row ...
const CLOSE_AFTER: u32 = 5;
/// ... with 429s of at least this many different calls.
const CLOSE_AFTER_CALLS: usize = 3;
/// A bucket that throttles although it claims to fill in this part of its window, a quarter, is not believed.
const TOO_FAST: f64 = 4.0;
/// The time between probes of a key that is closed because nothing succeeds: 30 s.
const FAILING_PROBE: Duration = Duration::from_secs(30);

/// The buckets that explain a 429, one bit for each.
struct Explained {
    /// The bucket held less than the price the call was counted at.
    by_bucket: u8,
    /// The bucket held enough for that price, but the server counts the call at a higher one.
    by_price: u8,
}

/// What a throttled call does next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThrottleOutcome {
    /// The key is closed, so the call is not retried.
    pub(crate) closed: bool,
    /// The call is not sent again before this moment, even if the key is open.
    pub(crate) not_before: Instant,
    /// Only this call waits, so it sleeps outside the queue.
    pub(crate) bypass_queue: bool,
    /// The 429 concerns this call alone, so the call goes to the end of its class.
    pub(crate) own_affair: bool,
    /// The call was a window probe, so the 429 costs it no retry.
    pub(crate) was_probe: bool,
    /// The call's cost and history for its next attempt.
    pub(crate) call_info: CallInfo,
}

impl Controller {
    /// A throttling answer.
    pub(crate) fn on_throttled(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        verdict: &Verdict,
        shown: Option<&RateLimitSnapshot>,
    ) -> ThrottleOutcome {
        self.expire_acks(now);
        let sent = self.window.sent_at(ticket.seq, ticket.sent);
        self.release(now, ticket.seq);
        if let Some(sent) = sent {
            self.window.throttle_took(now.saturating_duration_since(sent));
        }
        let t = self.secs(now);
        if !verdict.upstream_failure {
            self.learned_rate.throttled(t, self.secs(ticket.sent));
        }
        let figures = Figures::of_throttled(verdict, shown);
        self.snapshots(t, ticket, figures, false);
        let call_info = self.told_price(ticket, verdict);

        // The reset of a bucket is an upper bound. It is used only without pacing, and never closes the key.
        let reset =
            || verdict.retry_after.filter(|reset| !self.config.pacing.enabled && *reset <= self.config.max_wait);
        let hint = verdict.stated().or_else(reset);
        let Explained { by_bucket: explains, by_price } = self.explains(t, ticket, verdict, figures);
        let class = match (verdict.kind, verdict.evidence) {
            (Kind::Concurrency, _) => Class::Concurrency,
            (Kind::Overloaded, _) => Class::Overload,
            (_, Evidence::Bare) if hint.is_none() && explains | by_price == 0 => Class::Neither,
            _ => Class::Rate,
        };
        if self.is_own_affair(now, ticket, class, hint) {
            return self.own_affair(now, hint, call_info);
        }
        let attributed = self.attribution.attribute(ticket.seq, self.seq, class, self.window.refutes(ticket.flight));
        if attributed.new && class != Class::Rate && class != Class::Overload {
            self.window.forget_peak(self.seq);
        }
        if ticket.window_probe {
            self.probes.window_probe_throttled();
        }
        match attributed.cause {
            Cause::Concurrency => self.window.lower(ticket.flight, self.seq),
            Cause::Rate if explains != 0 && class != Class::Overload => {
                if attributed.new && ticket.known {
                    self.contradicted(t, explains, ticket.full);
                } else if attributed.new && self.is_too_fast(explains) {
                    self.learn(t); // only the rate of the calls before the first header is known
                }
            }
            // An upstream failure says nothing about rates. It only starts a cooldown.
            Cause::Rate if verdict.upstream_failure => {}
            Cause::Rate if attributed.new && by_price == 0 => {
                self.learn(t);
                self.taught_by = Some(call_info.call);
            }
            Cause::Rate => {}
        }
        self.failed(now, ticket.call_info.call);
        self.cool_down(now, ticket.seq, hint, attributed);
        let until = self.cooldown.until().unwrap_or(now).max(now);
        let own = self.waits_alone(class, hint);
        ThrottleOutcome {
            closed: self.cooldown.is_closed(),
            not_before: own.map_or(until, |wait| add(now, wait)),
            bypass_queue: own.is_some(),
            own_affair: false,
            was_probe: ticket.window_probe,
            call_info,
        }
    }

    /// Returns the call with the price that the 429 states, or with a price above what the bucket had left.
    fn told_price(&mut self, ticket: &Ticket, verdict: &Verdict) -> CallInfo {
        let mut call_info = ticket.call_info;
        call_info.throttles.add(self.seq);
        let tokens = || verdict.requested.filter(|requested| *requested > 1.0).map(|_| Unit::Tokens);
        let unit = match verdict.scope {
            Some(scope) => unit_of(scope),
            None => tokens(),
        };
        let Some(unit) = unit else { return call_info };
        let left = || Some(verdict.limit? - verdict.used?).filter(|left| *left > ticket.price[unit as usize]);
        let Some(price) = verdict.requested.or_else(left) else { return call_info };
        if let (Some(requested), Some(estimate)) = (verdict.requested, call_info.estimate(unit)) {
            self.correction.asked(requested / estimate);
        } else if !call_info.cost.is_known() {
            self.correction.call_took(price, 1.0);
        }
        call_info.price_told(unit, price);
        call_info
    }

    fn is_own_affair(&mut self, now: Instant, ticket: &Ticket, class: Class, hint: Option<Duration>) -> bool {
        if class == Class::Concurrency || ticket.window_probe {
            return false;
        }
        let own = self.call_specific.throttled(now, ticket.call_info.throttles);
        own && !self.cooldown.is_closed() && hint.is_none_or(|hint| hint <= self.config.max_wait)
    }

    /// The 429 concerns this call alone: only the call is held back, and nothing is learned.
    fn own_affair(&mut self, now: Instant, hint: Option<Duration>, call_info: CallInfo) -> ThrottleOutcome {
        // The rate was learned from 429s of this call, or of another call of this kind.
        if self.taught_by.take_if(|call| *call == call_info.call || self.call_specific.are_most()).is_some() {
            self.learned_rate.forget();
            self.attribution.rested();
        }
        let wait = self.cooldown.wait_of_call(hint, call_info.throttles.count, &self.config.backoff);
        ThrottleOutcome {
            closed: false,
            not_before: add(now, wait),
            bypass_queue: true,
            own_affair: true,
            was_probe: false,
            call_info,
        }
    }

    /// Records a 429 since the last success.
    fn failed(&mut self, now: Instant, call: u64) {
        let failing = self.failing.get_or_insert_with(|| Box::new(Failing { since: now, calls: Vec::new() }));
        if failing.calls.len() < CLOSE_AFTER_CALLS && !failing.calls.contains(&call) {
            failing.calls.push(call);
        }
    }

    /// The quota is exhausted. The key is closed until a call succeeds. Returns for how long the other keys of the account are
    /// closed, if the whole account is exhausted.
    pub(crate) fn on_quota_exhausted(&mut self, now: Instant, ticket: &Ticket, verdict: &Verdict) -> Option<Duration> {
        self.expire_acks(now);
        self.release(now, ticket.seq);
        self.learned_rate.throttled(self.secs(now), self.secs(ticket.sent));
        let why = if verdict.account { ClosedReason::Account } else { ClosedReason::Quota };
        self.close(now, QUOTA_PROBE, why, ticket.seq).filter(|_| verdict.account)
    }

    /// The quota of the account is exhausted, as another key was told. That key probes for all. The other keys probe after one and
    /// a half to two times its wait, at random, so that they do not probe at once.
    pub(crate) fn closed_with_account(&mut self, now: Instant, wait: Duration) {
        let left = wait + self.cooldown.drawn(wait);
        self.inherit(now, (left, wait));
    }

    /// The key is new and its account is closed: its probe is due after `left`, further ones after `wait`.
    pub(crate) fn inherit(&mut self, now: Instant, (left, wait): (Duration, Duration)) {
        self.expire_acks(now);
        if self.cooldown.close_with_account(now, left, wait, self.seq) {
            self.push_event(QuotaEvent::Closed { quota: true, retry_after: left });
        }
    }

    /// A call of another key of the account succeeded.
    pub(crate) fn opened_with_account(&mut self) {
        if self.cooldown.open_with_account() {
            self.push_event(QuotaEvent::Opened);
        }
    }

    /// Returns the buckets that are too empty for this call, by the figures of its 429.
    fn explains(&self, t: f64, ticket: &Ticket, verdict: &Verdict, figures: Figures<'_>) -> Explained {
        let asked = verdict.requested.filter(|_| verdict.scope.and_then(unit_of).is_some()).unwrap_or(0.0);
        let mut explained = Explained { by_bucket: 0, by_price: 0 };
        for (at, bucket) in self.buckets.iter().enumerate() {
            let unit = bucket.dimension.unit();
            let price = ticket.price[unit as usize];
            let Some(left) = figures.of(bucket.dimension).and_then(|shown| shown.remaining) else { continue };
            // A bucket that the call takes nothing from does not explain its 429.
            if price > 0.0 && !bucket.estimate.doubted(t) {
                if left < price {
                    explained.by_bucket |= 1 << at;
                } else if unit != Unit::Requests && left < asked {
                    explained.by_price |= 1 << at;
                }
            }
        }
        explained
    }

    /// Buckets have throttled although they were believed to hold enough: others use them, or their figures are wrong.
    pub(super) fn contradicted(&mut self, t: f64, explains: u8, full: u8) {
        for (at, bucket) in self.buckets.iter_mut().enumerate() {
            if explains & 1 << at != 0 {
                bucket.estimate.share();
                if full & 1 << at != 0 {
                    bucket.estimate.doubt(t);
                }
            }
        }
        if explains & full != 0 {
            self.learn(t);
        }
    }

    /// Returns whether one of these buckets claims to fill much faster than its period. Its limit may count a longer time than it
    /// is enforced over.
    fn is_too_fast(&self, buckets: u8) -> bool {
        let mut buckets = self.buckets.iter().enumerate().filter(|(at, _)| buckets & 1 << at != 0);
        buckets.any(|(_, bucket)| bucket.estimate.fills_in() < window_of(bucket.dimension) / TOO_FAST)
    }

    pub(super) fn learn(&mut self, t: f64) {
        self.taught_by = None; // a rate that was learned from other evidence is not taken back by a call's own 429s
        self.estimate_changed = true;
        if !self.learned_rate.learn(t) {
            self.cooldown.set_one_at_a_time(true);
        }
    }

    /// Returns the wait of a call that met a concurrency cap. The key stays open for other calls.
    fn waits_alone(&mut self, class: Class, hint: Option<Duration>) -> Option<Duration> {
        let hint = hint.filter(|hint| class == Class::Concurrency && *hint <= self.config.max_wait)?;
        Some(self.cooldown.own_wait(hint)).filter(|_| !self.cooldown.is_closed())
    }

    pub(super) fn cool_down(
        &mut self,
        now: Instant,
        seq: u64,
        hint: Option<Duration>,
        Attributed { class, cause, new }: Attributed,
    ) {
        let k = self.attribution.in_a_row();
        let max_wait = self.config.max_wait;
        let lasting = |failing: &Failing| {
            now.saturating_duration_since(failing.since) >= max_wait && failing.calls.len() >= CLOSE_AFTER_CALLS
        };
        let busy = self.window.in_flight() > 0 && self.config.pacing.enabled;
        // A call whose body nobody reads may never end, so its end is not waited for.
        let ends = busy && (hint.is_some() || self.window.lent.count() == 0);
        let before = self.cooldown.until();
        if hint.is_some_and(|hint| hint > max_wait) {
            self.close(now, max_wait, ClosedReason::DelayTooLong, seq);
        } else if self.cooldown.is_closed() || new && k >= CLOSE_AFTER && self.failing.as_deref().is_some_and(lasting) {
            self.close(now, FAILING_PROBE, ClosedReason::Failing, seq);
        } else if class == Class::Concurrency && ends {
            // The key stays open.
        } else if let Some(hint) = hint {
            self.cooldown.hinted(now, hint, k, &self.config.backoff);
        } else if new && (cause == Cause::Rate || !ends) {
            self.cooldown.unhinted(now, k, &self.config.backoff);
        }
        self.estimate_changed |= self.cooldown.until() != before;
    }
}
