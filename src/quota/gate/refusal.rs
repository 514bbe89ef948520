//! What a refusal teaches a key, and what becomes of the call.

use std::time::Duration;

use tokio::time::Instant;

use super::figures::{cost, in_text, is_of_tokens, unit_of};
use super::{Dim, Gate, QUOTA_PROBE, Ticket};
use crate::classify::{BucketSnapshot, Evidence, Kind, RateLimitSnapshot, Unit, Verdict};
use crate::quota::blame::{Cause, Class};
use crate::quota::cooldown::Why;
use crate::report::Event;
use crate::room::Rule;
use crate::time::add;

/// A key without a success for [`max_wait`](GateConfig::max_wait) closes after so many episodes in a row.
const CLOSE_AFTER: u32 = 5;

/// What a refusal means for the call that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// The key is closed: nobody waits for it.
    pub(crate) closed: bool,
    /// How long this call may not be sent again, whatever the key allows.
    pub(crate) not_before: Instant,
    /// It is this call alone that waits: it sleeps outside the queue.
    pub(crate) alone: bool,
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
        self.ended(Some(now), ticket.seq);
        let t = self.secs(now);
        self.ceiling.refused(t, ticket.sent);
        let text = in_text(verdict, shown);
        self.snapshots(t, ticket, shown, text, false);

        // The reset of a bucket is an upper bound: of use only where nothing else tells, and no reason to close the key.
        let reset = || verdict.retry_after.filter(|reset| !self.config.pacing && *reset <= self.config.max_wait);
        let hint = verdict.stated().or_else(reset);
        let explains = self.explains(t, ticket, verdict, shown, text);
        let class = match (verdict.kind, verdict.evidence) {
            (Kind::Concurrency, _) => Class::Concurrency,
            (Kind::Overloaded, _) => Class::Overload,
            (_, Evidence::Bare) if hint.is_none() && explains == 0 => Class::Neither,
            _ => Class::Rate,
        };
        let raw = verdict.scope.and_then(unit_of).map_or(0.0, |unit| ticket.asked.of(unit));
        if let Some(requested) = verdict.requested.filter(|_| raw > 0.0 && is_of_tokens(verdict)) {
            self.correction.asked(requested / raw);
        }
        let judged = self.blame.judge(ticket.seq, self.seq, class, self.window.refutes(ticket.flight));
        if judged.new && class != Class::Rate && class != Class::Overload {
            self.window.forget_peak(self.seq);
        }
        match judged.cause {
            Cause::Concurrency => self.window.lower(ticket.flight, self.seq),
            Cause::Rate if explains != 0 && class != Class::Overload => {
                if judged.new && ticket.known {
                    self.contradicted(t, explains, ticket.full);
                }
            }
            Cause::Rate if judged.new => self.learn(t),
            Cause::Rate => {}
        }
        self.cool_down(now, ticket.seq, hint, class, judged.cause, judged.new)
    }

    /// The quota is used up: the key is closed until one of the callers' own calls succeeds again. Tells for how long all
    /// other keys of the account are to be closed, too.
    pub(crate) fn exhausted(&mut self, now: Instant, ticket: &Ticket, verdict: &Verdict) -> Option<Duration> {
        self.silences(now);
        self.ended(Some(now), ticket.seq);
        self.ceiling.refused(self.secs(now), ticket.sent);
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

    /// Which buckets are, by the refusal's own figures, too empty for this call: a bit each.
    pub(super) fn explains(
        &self,
        t: f64,
        ticket: &Ticket,
        verdict: &Verdict,
        shown: Option<&RateLimitSnapshot>,
        text: Option<BucketSnapshot>,
    ) -> u8 {
        let headers = shown.map_or(&[][..], RateLimitSnapshot::buckets);
        let asked = verdict.requested.filter(|_| is_of_tokens(verdict)).unwrap_or(0.0);
        let short = |dim: &Dim| {
            let unit = dim.dimension.unit();
            let asked = if unit == Unit::Requests { 0.0 } else { asked };
            let cost = cost(&ticket.asked, unit, ticket.correction).max(asked);
            let bucket = headers.iter().chain(&text).find(|bucket| bucket.dimension == dim.dimension);
            !dim.level.doubted(t) && bucket.and_then(|bucket| bucket.remaining).is_some_and(|left| left < cost)
        };
        self.dims.iter().enumerate().filter(|(_, dim)| short(dim)).fold(0, |bits, (at, _)| bits | 1 << at)
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
        if !self.ceiling.learn(t) {
            self.cooldown.alone(true);
        }
    }

    pub(super) fn cool_down(
        &mut self,
        now: Instant,
        seq: u64,
        hint: Option<Duration>,
        class: Class,
        cause: Cause,
        new: bool,
    ) -> Fate {
        let k = self.blame.in_a_row();
        if k <= 1 {
            self.ailing = None; // trouble of before is over
        }
        let ailing = *self.ailing.get_or_insert(now);
        let mut own = None;
        let lasting = new && k >= CLOSE_AFTER && now.saturating_duration_since(ailing) >= self.config.max_wait;
        if hint.is_some_and(|hint| hint > self.config.max_wait) || lasting || self.cooldown.is_shut() {
            self.shut(now, self.config.max_wait, Why::Wait, seq);
        } else if class == Class::Concurrency && self.window.in_flight() > 0 {
            own = hint.map(|hint| self.cooldown.own_wait(hint)); // the key stays open
        } else if let Some(hint) = hint {
            self.cooldown.hinted(now, hint, k, &self.config.backoff);
            own = (class == Class::Concurrency).then(|| self.cooldown.own_wait(hint));
        } else if new && (cause == Cause::Rate || self.window.in_flight() == 0) {
            self.cooldown.unhinted(now, k, &self.config.backoff);
        }
        let until = self.cooldown.until().unwrap_or(now).max(now);
        let not_before = own.map_or(until, |wait| add(now, wait));
        Fate { closed: self.cooldown.is_shut(), not_before, alone: own.is_some() }
    }
}
