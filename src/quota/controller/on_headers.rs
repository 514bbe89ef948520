//! The effects of the rate-limit figures of an answer on the buckets.

use super::{Bucket, Controller, Ticket};
use crate::classify::{BucketSnapshot, Dimension, MAX_DIMENSIONS, RateLimitSnapshot, Scope, Unit, Verdict};
use crate::event::QuotaEvent;
use crate::quota::controller::bucket::{BucketEstimate, Sent, Shown, Taken};
use crate::quota::controller::call_info::is_estimated;
use crate::quota::controller::cost_correction::Correction;
use crate::time::in_secs;

/// The figures of an answer.
#[derive(Clone, Copy)]
pub(super) struct Figures<'a> {
    headers: Option<&'a RateLimitSnapshot>,
    /// The bucket that the text of a 429 shows, if no header shows it.
    text: Option<BucketSnapshot>,
}

impl<'a> Figures<'a> {
    pub(super) fn of_headers(headers: Option<&'a RateLimitSnapshot>) -> Self {
        Self { headers, text: None }
    }

    pub(super) fn of_throttled(verdict: &Verdict, headers: Option<&'a RateLimitSnapshot>) -> Self {
        Self { headers, text: in_text(verdict, headers) }
    }

    /// Returns the figures of one bucket.
    pub(super) fn of(&self, dimension: Dimension) -> Option<&BucketSnapshot> {
        self.headers().iter().chain(&self.text).find(|bucket| bucket.dimension == dimension)
    }

    fn headers(&self) -> &'a [BucketSnapshot] {
        self.headers.map_or(&[], RateLimitSnapshot::buckets)
    }
}

impl Controller {
    /// Applies the figures of an answer that arrived at `t`. What accepted calls have really taken also corrects later estimates,
    /// unless one of them was throttled, because a throttled call takes nothing.
    pub(super) fn snapshots(&mut self, t: f64, ticket: &Ticket, figures: Figures<'_>, let_in: bool) {
        let at = self.secs(ticket.sent);
        let headers = figures.headers().iter().map(|bucket| (bucket, false));
        for (bucket, said) in headers.chain(figures.text.iter().map(|text| (text, true))) {
            let dimension = bucket.dimension;
            let known = self.buckets.iter_mut().find(|bucket| bucket.dimension == dimension);
            let Some(shown) = said_of(bucket, known.as_ref().map(|bucket| &bucket.estimate)) else { continue };
            let unit = dimension.unit();
            let (spent, now_spent) = (ticket.spent[unit as usize], self.spent[unit as usize]);
            let calls = ticket.spent[Unit::Requests as usize];
            let sent = Sent { seq: ticket.seq, at, spent, calls };
            let window = window_of(dimension);
            let teaches = let_in && is_estimated(unit);
            if let Some(bucket) = known {
                if teaches
                    && self.attribution.none_since(bucket.estimate.snap())
                    && let Some(taken) = bucket.estimate.taken(t, sent, shown)
                {
                    self.correction.call_took(taken.taken / taken.calls, taken.weight);
                    estimates_took(&mut self.correction, ticket, unit, taken);
                }
                let before = bucket.estimate.snapshot(t, sent, now_spent, shown);
                self.estimate_changed = true;
                if let Some(from) = before {
                    self.push_event(QuotaEvent::LimitChanged { dimension, from, to: shown.limit });
                }
            } else if self.buckets.len() < MAX_DIMENSIONS {
                if teaches && let Some(taken) = BucketEstimate::taken_since_full(sent, shown) {
                    estimates_took(&mut self.correction, ticket, unit, taken);
                }
                self.estimate_changed = true;
                let estimate = BucketEstimate::first(t, sent, now_spent, window, shown);
                self.buckets.reserve_exact(1); // a key is kept for long and has few buckets
                self.buckets.push(Bucket { dimension, estimate });
            }
            self.known |= !said;
        }
    }

    pub(super) fn of_unit(&mut self, unit: Unit) -> impl Iterator<Item = &mut BucketEstimate> {
        self.buckets.iter_mut().filter(move |bucket| bucket.dimension.unit() == unit).map(|bucket| &mut bucket.estimate)
    }

    pub(super) fn give_back(&mut self, unit: Unit, cost: f64) {
        self.spent[unit as usize] -= cost;
        self.of_unit(unit).for_each(|level| level.give_back(cost));
    }
}

/// Returns a bucket's figures if they are plausible.
fn said_of(bucket: &BucketSnapshot, known: Option<&BucketEstimate>) -> Option<Shown> {
    // Azure often sends only the remaining amount.
    let limit = bucket.limit.or_else(|| known.map(BucketEstimate::cap))?;
    let (remaining, reset) = (bucket.remaining?, bucket.reset.map(in_secs));
    (limit > 0.0 && (0.0..=limit).contains(&remaining)).then_some(Shown { limit, remaining, reset })
}

/// Corrects the estimates by what the calls between two snapshots have taken.
fn estimates_took(correction: &mut Correction, ticket: &Ticket, unit: Unit, taken: Taken) {
    if let Some(estimate) = ticket.call_info.estimate(unit)
        && taken.counted > 0.0
    {
        let counted = ticket.price[unit as usize] / estimate;
        correction.taken(counted * taken.taken / taken.counted, taken.weight);
    }
}

/// Returns the figures in the text of a 429, if no header shows that bucket: `Limit 30000, Used 22343, Requested 10955`. The
/// refill is not derived from the stated delay, which is often rounded up to whole seconds.
fn in_text(verdict: &Verdict, shown: Option<&RateLimitSnapshot>) -> Option<BucketSnapshot> {
    let (limit, used) = (verdict.limit?, verdict.used?);
    let dimension = match verdict.scope? {
        Scope::Requests => Dimension::Requests,
        Scope::Tokens => Dimension::Tokens,
        Scope::InputTokens => Dimension::InputTokens,
        Scope::OutputTokens => Dimension::OutputTokens,
        Scope::DailyRequests => Dimension::RequestsPerDay,
        Scope::DailyTokens => Dimension::TokensPerDay,
        _ => return None,
    };
    if shown.is_some_and(|shown| shown.get(dimension).is_some()) {
        return None;
    }
    Some(BucketSnapshot { dimension, limit: Some(limit), remaining: Some((limit - used).max(0.0)), reset: None })
}

/// Returns the seconds in which an empty bucket fills, if nothing else is known.
pub(super) fn window_of(dimension: Dimension) -> f64 {
    match dimension {
        Dimension::RequestsPerDay | Dimension::TokensPerDay => 86_400.0,
        Dimension::RequestsPerHour | Dimension::TokensPerHour => 3_600.0,
        _ => 60.0,
    }
}
