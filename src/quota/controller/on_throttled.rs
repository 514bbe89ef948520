//! What a 429 teaches a key, and what becomes of the call.

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

/// A key without a success for [`max_wait`](ControllerConfig::max_wait) closes after so many episodes in a row ...
const CLOSE_AFTER: u32 = 5;
/// ... of so many different calls at least.
const CLOSE_AFTER_CALLS: usize = 3;
/// A bucket that throttles, and says that it fills in a quarter of its window or less, is not believed.
const TOO_FAST: f64 = 4.0;
/// A key that is closed because nothing succeeds is probed this often: 30 s.
const FAILING_PROBE: Duration = Duration::from_secs(30);

/// What explains a 429, a bit for each bucket.
struct Explained {
    /// The bucket held less than the call was counted for.
    by_bucket: u8,
    /// The bucket held enough for what the call was counted for, but the server counts it for more.
    by_price: u8,
}

/// What a 429 means for the call that was throttled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThrottleOutcome {
    /// The key is closed: nobody waits for it.
    pub(crate) closed: bool,
    /// How long this call may not be sent again, whatever the key allows.
    pub(crate) not_before: Instant,
    /// It is this call alone that waits: it sleeps outside the queue.
    pub(crate) bypass_queue: bool,
    /// Other calls succeed: this one goes to the end of its class.
    pub(crate) own_affair: bool,
    /// It was a probe above the window: it costs the call no retry.
    pub(crate) was_probe: bool,
    /// What it asks for when it is sent again.
    pub(crate) call_info: CallInfo,
}

impl Controller {
    /// A 429 that throttles: what it teaches, and what becomes of the call.
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

        // The reset of a bucket is an upper bound: of use only where nothing else tells, and no reason to close the key.
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
                    self.learn(t); // what the calls before the first header came to is all that is known
                }
            }
            // A failure behind the server says nothing of rates, only that it is too early.
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

    /// What the call is going to call_info for: the server's own price where the 429 tells it, or at least more than the
    /// bucket had left.
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

    /// The 429 holds back this call alone, and teaches nothing.
    fn own_affair(&mut self, now: Instant, hint: Option<Duration>, call_info: CallInfo) -> ThrottleOutcome {
        // What this call's own 429s have taught, or those of another such call that may be gone.
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

    /// Nothing was let in since the first of several 429s.
    fn failed(&mut self, now: Instant, call: u64) {
        let failing = self.failing.get_or_insert_with(|| Box::new(Failing { since: now, calls: Vec::new() }));
        if failing.calls.len() < CLOSE_AFTER_CALLS && !failing.calls.contains(&call) {
            failing.calls.push(call);
        }
    }

    /// The quota is used up: the key is closed until one of the callers' own calls succeeds again. Tells for how long all
    /// other keys of the account are to be closed, too.
    pub(crate) fn on_quota_exhausted(&mut self, now: Instant, ticket: &Ticket, verdict: &Verdict) -> Option<Duration> {
        self.expire_acks(now);
        self.release(now, ticket.seq);
        self.learned_rate.throttled(self.secs(now), self.secs(ticket.sent));
        let why = if verdict.account { ClosedReason::Account } else { ClosedReason::Quota };
        self.close(now, QUOTA_PROBE, why, ticket.seq).filter(|_| verdict.account)
    }

    /// Another key of the account was told that the quota is used up. That key probes for all, if anybody calls it: the
    /// others do when half as much time again has passed, or up to as much, so that not all of them do at once.
    pub(crate) fn closed_with_account(&mut self, now: Instant, wait: Duration) {
        let left = wait + self.cooldown.drawn(wait);
        self.inherit(now, (left, wait));
    }

    /// The account is closed already: until a probe may go, and what probes wait.
    pub(crate) fn inherit(&mut self, now: Instant, (left, wait): (Duration, Duration)) {
        self.expire_acks(now);
        if self.cooldown.close_with_account(now, left, wait, self.seq) {
            self.push_event(QuotaEvent::Closed { quota: true, retry_after: left });
        }
    }

    /// A call of another key of the account has succeeded.
    pub(crate) fn opened_with_account(&mut self) {
        if self.cooldown.open_with_account() {
            self.push_event(QuotaEvent::Opened);
        }
    }

    /// Which buckets are, by the 429's own figures, too empty for this call.
    fn explains(&self, t: f64, ticket: &Ticket, verdict: &Verdict, figures: Figures<'_>) -> Explained {
        let asked = verdict.requested.filter(|_| verdict.scope.and_then(unit_of).is_some()).unwrap_or(0.0);
        let mut explained = Explained { by_bucket: 0, by_price: 0 };
        for (at, bucket) in self.buckets.iter().enumerate() {
            let unit = bucket.dimension.unit();
            let price = ticket.price[unit as usize];
            let Some(left) = figures.of(bucket.dimension).and_then(|shown| shown.remaining) else { continue };
            // A bucket that the call was not counted for says nothing of when such a call fits.
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

    /// Buckets that we took for full enough have throttled: others use them, or their figures are wrong.
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

    /// Whether one of these buckets says that it fills much faster than its name tells. Its limit may be that of a longer time
    /// than the one it is enforced over.
    fn is_too_fast(&self, buckets: u8) -> bool {
        let mut buckets = self.buckets.iter().enumerate().filter(|(at, _)| buckets & 1 << at != 0);
        buckets.any(|(_, bucket)| bucket.estimate.fills_in() < window_of(bucket.dimension) / TOO_FAST)
    }

    pub(super) fn learn(&mut self, t: f64) {
        self.taught_by = None; // a call that only its own 429s concern takes back no other lesson
        self.estimate_changed = true;
        if !self.learned_rate.learn(t) {
            self.cooldown.set_one_at_a_time(true);
        }
    }

    /// The wait of a call that was throttled for how many were out: its own, while the key stays open for others.
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
        // A call whose body nobody reads may never end: there is no use in waiting for that.
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
