//! What a refusal teaches a key, and what becomes of the call.

use std::time::Duration;

use tokio::time::Instant;

use super::on_headers::in_text;
use super::{Failing, Gate, QUOTA_PROBE, Ticket};
use crate::classify::{BucketSnapshot, Evidence, Kind, RateLimitSnapshot, Unit, Verdict};
use crate::event::Event;
use crate::quota::controller::attribution::{Cause, Class};
use crate::quota::controller::call_info::{Ask, unit_of};
use crate::quota::controller::cooldown::Why;
use crate::time::add;
use crate::wait_queue::Rule;

/// A key without a success for [`max_wait`](GateConfig::max_wait) closes after so many episodes in a row ...
const CLOSE_AFTER: u32 = 5;
/// ... of so many different calls at least.
const CLOSE_AFTER_CALLS: usize = 3;
/// A key that is closed because nothing succeeds is probed this often: 30 s.
const FAILING_PROBE: Duration = Duration::from_secs(30);

/// What explains a refusal, a bit for each bucket.
struct Explained {
    /// The bucket held less than the call was counted for.
    by_bucket: u8,
    /// The bucket held enough for what the call was counted for, but the server counts it for more.
    by_price: u8,
}

/// What a refusal means for the call that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    /// The key is closed: nobody waits for it.
    pub(crate) closed: bool,
    /// How long this call may not be sent again, whatever the key allows.
    pub(crate) not_before: Instant,
    /// It is this call alone that waits: it sleeps outside the queue.
    pub(crate) alone: bool,
    /// Other calls succeed: this one goes to the end of its class.
    pub(crate) own_affair: bool,
    /// It was a probe above the window: it costs the call no retry.
    pub(crate) was_probe: bool,
    /// What it asks for when it is sent again.
    pub(crate) ask: Ask,
}

impl Gate {
    /// A refusal that throttles: what it teaches, and what becomes of the call.
    pub(crate) fn refused(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        verdict: &Verdict,
        shown: Option<&RateLimitSnapshot>,
    ) -> Fate {
        self.silences(now);
        let sent = self.window.sent_at(ticket.seq, ticket.sent);
        self.ended(Some(now), ticket.seq);
        if let Some(sent) = sent {
            self.window.refusal_took(now.saturating_duration_since(sent));
        }
        let t = self.secs(now);
        if !verdict.upstream_failure {
            self.ceiling.refused(t, self.secs(ticket.sent));
        }
        let text = in_text(verdict, shown);
        self.snapshots(t, ticket, shown, text, false);
        let ask = self.told_price(ticket, verdict);

        // The reset of a bucket is an upper bound: of use only where nothing else tells, and no reason to close the key.
        let reset = || verdict.retry_after.filter(|reset| !self.config.pacing && *reset <= self.config.max_wait);
        let hint = verdict.stated().or_else(reset);
        let Explained { by_bucket: explains, by_price } = self.explains(t, ticket, verdict, shown, text);
        let class = match (verdict.kind, verdict.evidence) {
            (Kind::Concurrency, _) => Class::Concurrency,
            (Kind::Overloaded, _) => Class::Overload,
            (_, Evidence::Bare) if hint.is_none() && explains | by_price == 0 => Class::Neither,
            _ => Class::Rate,
        };
        if self.is_own_affair(now, ticket, class, hint) {
            return self.own_affair(now, hint, ask);
        }
        let judged = self.blame.judge(ticket.seq, self.seq, class, self.window.refutes(ticket.flight));
        if judged.new && class != Class::Rate && class != Class::Overload {
            self.window.forget_peak(self.seq);
        }
        if ticket.flight.above {
            self.probes.window_probe_refused();
        }
        match judged.cause {
            Cause::Concurrency => self.window.lower(ticket.flight, self.seq),
            Cause::Rate if explains != 0 && class != Class::Overload => {
                if judged.new && ticket.known {
                    self.contradicted(t, explains, ticket.full);
                }
            }
            // A failure behind the server says nothing of rates, only that it is too early.
            Cause::Rate if verdict.upstream_failure => {}
            Cause::Rate if judged.new && by_price == 0 => {
                self.taught_by = Some(ask.call);
                self.learn(t);
            }
            Cause::Rate => {}
        }
        self.failed(now, ticket.ask.call);
        self.cool_down(now, ticket.seq, hint, class, judged.cause, judged.new);
        let until = self.cooldown.until().unwrap_or(now).max(now);
        let own = self.waits_alone(class, hint);
        Fate {
            closed: self.cooldown.is_shut(),
            not_before: own.map_or(until, |wait| add(now, wait)),
            alone: own.is_some(),
            own_affair: false,
            was_probe: ticket.flight.above,
            ask,
        }
    }

    /// What the call is going to ask for: the server's own price where the refusal tells it, or at least more than the
    /// bucket had left.
    fn told_price(&mut self, ticket: &Ticket, verdict: &Verdict) -> Ask {
        let mut ask = ticket.ask;
        ask.refusals.add(self.seq);
        let tokens = || verdict.requested.filter(|requested| *requested > 1.0).map(|_| Unit::Tokens);
        let unit = match verdict.scope {
            Some(scope) => unit_of(scope),
            None => tokens(),
        };
        let Some(unit) = unit else { return ask };
        let left = || Some(verdict.limit? - verdict.used?).filter(|left| *left > ticket.price[unit as usize]);
        let Some(price) = verdict.requested.or_else(left) else { return ask };
        if let (Some(requested), Some(estimate)) = (verdict.requested, ask.estimate(unit)) {
            self.correction.asked(requested / estimate);
        } else if !ask.cost.is_known() {
            self.correction.call_took(price, 1.0);
        }
        ask.price_told(unit, price);
        ask
    }

    fn is_own_affair(&mut self, now: Instant, ticket: &Ticket, class: Class, hint: Option<Duration>) -> bool {
        if class == Class::Concurrency || ticket.flight.above {
            return false;
        }
        let own = self.call_specific.refused(now, ticket.ask.refusals);
        own && !self.cooldown.is_shut() && hint.is_none_or(|hint| hint <= self.config.max_wait)
    }

    /// The refusal holds back this call alone, and teaches nothing.
    fn own_affair(&mut self, now: Instant, hint: Option<Duration>, ask: Ask) -> Fate {
        // What this call's own refusals have taught, or those of another such call that may be gone.
        if self.taught_by.take_if(|call| *call == ask.call || self.call_specific.are_most()).is_some() {
            self.ceiling.forget();
            self.blame.rested();
        }
        let wait = self.cooldown.wait_of_call(hint, ask.refusals.count, &self.config.backoff);
        Fate { closed: false, not_before: add(now, wait), alone: true, own_affair: true, was_probe: false, ask }
    }

    /// Nothing was let in since the first of several refusals.
    fn failed(&mut self, now: Instant, call: u64) {
        let failing = self.failing.get_or_insert_with(|| Box::new(Failing { since: now, calls: Vec::new() }));
        if failing.calls.len() < CLOSE_AFTER_CALLS && !failing.calls.contains(&call) {
            failing.calls.push(call);
        }
    }

    /// The quota is used up: the key is closed until one of the callers' own calls succeeds again. Tells for how long all
    /// other keys of the account are to be closed, too.
    pub(crate) fn exhausted(&mut self, now: Instant, ticket: &Ticket, verdict: &Verdict) -> Option<Duration> {
        self.silences(now);
        self.ended(Some(now), ticket.seq);
        self.ceiling.refused(self.secs(now), self.secs(ticket.sent));
        let why = if verdict.account { Why::Account } else { Why::Quota };
        self.shut(now, QUOTA_PROBE, why, ticket.seq).filter(|_| verdict.account)
    }

    /// Another key of the account was told that the quota is used up. That key probes for all, if anybody calls it: the
    /// others do when half as much time again has passed, or up to as much, so that not all of them do at once.
    pub(crate) fn closed_with_account(&mut self, now: Instant, wait: Duration) {
        let left = wait + self.cooldown.drawn(wait);
        self.inherit(now, (left, wait));
    }

    /// The account is closed already: until a probe may go, and what probes wait.
    pub(crate) fn inherit(&mut self, now: Instant, (left, wait): (Duration, Duration)) {
        self.silences(now);
        if self.cooldown.shut_with_account(now, left, wait, self.seq) {
            self.report(Event::Closed { quota: true, retry_after: left });
        }
    }

    /// A call of another key of the account has succeeded.
    pub(crate) fn opened_with_account(&mut self) {
        if self.cooldown.open_with_account() {
            self.report(Event::Opened);
        }
    }

    /// Which buckets are, by the refusal's own figures, too empty for this call.
    fn explains(
        &self,
        t: f64,
        ticket: &Ticket,
        verdict: &Verdict,
        shown: Option<&RateLimitSnapshot>,
        text: Option<BucketSnapshot>,
    ) -> Explained {
        let headers = shown.map_or(&[][..], RateLimitSnapshot::buckets);
        let asked = verdict.requested.filter(|_| verdict.scope.and_then(unit_of).is_some()).unwrap_or(0.0);
        let mut explained = Explained { by_bucket: 0, by_price: 0 };
        for (at, dim) in self.dims.iter().enumerate() {
            let unit = dim.dimension.unit();
            let price = ticket.price[unit as usize];
            let bucket = headers.iter().chain(&text).find(|bucket| bucket.dimension == dim.dimension);
            let Some(left) = bucket.and_then(|bucket| bucket.remaining) else { continue };
            // A bucket that the call was not counted for says nothing of when such a call fits.
            if price > 0.0 && !dim.level.doubted(t) {
                if left < price {
                    explained.by_bucket |= 1 << at;
                } else if unit != Unit::Requests && left < asked {
                    explained.by_price |= 1 << at;
                }
            }
        }
        explained
    }

    /// Buckets that we took for full enough have refused: others use them, or their figures are wrong.
    pub(super) fn contradicted(&mut self, t: f64, explains: u8, full: u8) {
        for (at, dim) in self.dims.iter_mut().enumerate() {
            if explains & 1 << at != 0 {
                dim.level.share();
                if full & 1 << at != 0 {
                    dim.level.doubt(t);
                }
            }
        }
        if explains & full != 0 {
            self.learn(t);
        }
    }

    pub(super) fn learn(&mut self, t: f64) {
        self.ceiling_now(t);
        self.outlook_changed = true;
        if !self.ceiling.learn(t) {
            self.cooldown.alone(true);
        }
    }

    /// The wait of a call that was refused for how many were out: its own, while the key stays open for others.
    fn waits_alone(&mut self, class: Class, hint: Option<Duration>) -> Option<Duration> {
        let hint = hint.filter(|hint| class == Class::Concurrency && *hint <= self.config.max_wait)?;
        Some(self.cooldown.own_wait(hint)).filter(|_| !self.cooldown.is_shut())
    }

    pub(super) fn cool_down(
        &mut self,
        now: Instant,
        seq: u64,
        hint: Option<Duration>,
        class: Class,
        cause: Cause,
        new: bool,
    ) {
        let k = self.blame.in_a_row();
        let max_wait = self.config.max_wait;
        let lasting = |failing: &Failing| {
            now.saturating_duration_since(failing.since) >= max_wait && failing.calls.len() >= CLOSE_AFTER_CALLS
        };
        let busy = self.window.in_flight() > 0 && self.config.pacing;
        // A call whose body nobody reads may never end: there is no use in waiting for that.
        let ends = busy && (hint.is_some() || self.window.lent.count() == 0);
        let before = self.cooldown.until();
        if hint.is_some_and(|hint| hint > max_wait) {
            self.shut(now, max_wait, Why::Wait, seq);
        } else if self.cooldown.is_shut() || new && k >= CLOSE_AFTER && self.failing.as_deref().is_some_and(lasting) {
            self.shut(now, FAILING_PROBE, Why::Failing, seq);
        } else if class == Class::Concurrency && ends {
            // The key stays open.
        } else if let Some(hint) = hint {
            self.cooldown.hinted(now, hint, k, &self.config.backoff);
        } else if new && (cause == Cause::Rate || !ends) {
            self.cooldown.unhinted(now, k, &self.config.backoff);
        }
        self.outlook_changed |= self.cooldown.until() != before;
    }
}
