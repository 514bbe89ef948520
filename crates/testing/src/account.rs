//! The account of one key: its buckets, its calls in flight, and the decision about the next call.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::builder::{Config, Foreign};
use crate::facts::Facts;
use crate::knobs::{Charge, Payment};
use crate::seen::Seen;
use crate::time::{later, seconds};
use crate::timing::exponential;
use crate::verdict::{Permit, Reason, Shortage};

/// The delay in a 429 by the concurrency limit: 1 s. The server does not know when a call will end.
pub const CONCURRENCY_HINT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) requests: Option<Bucket>,
    pub(crate) tokens: Option<Bucket>,
    pub(crate) hidden: Option<Bucket>,
    /// The calls in flight, and the tokens that each gives back at its end.
    running: BTreeMap<Permit, f64>,
    others: Option<Others>,
    pub(crate) accepted_on_quota: usize,
    pub(crate) seen: Seen,
}

/// The other tenants of the key.
#[derive(Debug)]
struct Others {
    rule: Foreign,
    next: Instant,
    rng: Rng,
}

impl Account {
    pub(crate) fn new(config: &Config, seed: u64, now: Instant) -> Self {
        let bucket = |limit: &Option<_>| limit.as_ref().map(|limit| Bucket::new(limit, now));
        let others = |rule| Others { rule, next: now, rng: Rng::with_seed(seed) };
        Self {
            requests: bucket(&config.requests),
            tokens: bucket(&config.tokens),
            hidden: bucket(&config.hidden),
            running: BTreeMap::new(),
            others: config.foreign.map(others),
            accepted_on_quota: 0,
            seen: Seen::default(),
        }
    }

    /// Processes all events up to `now` in order: ends of service, and calls of other tenants.
    pub(crate) fn advance(&mut self, now: Instant) {
        loop {
            let end = self.running.first_key_value().map(|(&(end, _), _)| end);
            let call = self.others.as_ref().map(|others| others.next);
            match (end, call) {
                (Some(end), call) if end <= now && call.is_none_or(|call| end <= call) => {
                    let given = self.running.pop_first().map_or(0.0, |(_, given)| given);
                    self.settle(given, end);
                }
                (_, Some(call)) if call <= now => self.foreign_call(call),
                _ => break,
            }
        }
        self.refill(now);
    }

    /// Returns why a call that arrives now is throttled, if it is, and the seconds until a retry can
    /// succeed. The account must be [up to date](Self::advance). This charges for the 429.
    pub(crate) fn throttle(&mut self, config: &Config, quota_ended: bool, facts: &Facts) -> Option<(Reason, f64)> {
        self.seen.note_arrival(facts);
        let (reason, wait) = self.shortage(config, quota_ended, price(config, facts))?;
        self.seen.note_throttled(&reason);
        if reason != Reason::Quota {
            self.charge(config.charge);
        }
        Some((reason, wait))
    }

    /// Charges an accepted call, and counts it as in flight until the time in `permit`.
    pub(crate) fn accept(&mut self, config: &Config, facts: &Facts, permit: Permit) {
        for bucket in [&mut self.requests, &mut self.hidden].into_iter().flatten() {
            bucket.take(1.0);
        }
        self.tokens.iter_mut().for_each(|tokens| tokens.take(price(config, facts)));
        let given = match config.payment {
            Payment::Ahead => 0.0,
            Payment::Refund => (facts.max_tokens - facts.output).max(0.0),
            Payment::Post => -facts.output,
        };
        self.running.insert(permit, given);
        self.accepted_on_quota += 1;
        self.seen.note_accepted(self.running.len());
    }

    /// Returns the first limit that a call exceeds, in the order of the checks.
    fn shortage(&self, config: &Config, quota_ended: bool, price: f64) -> Option<(Reason, f64)> {
        if quota_ended || config.quota.is_some_and(|calls| self.accepted_on_quota >= calls) {
            return Some((Reason::Quota, f64::INFINITY));
        }
        if let Some(at_once) = config.at_once.filter(|&most| self.running.len() >= most) {
            return Some((Reason::Concurrency { at_once }, CONCURRENCY_HINT.as_secs_f64()));
        }
        if let Some(requests) = self.requests.as_ref().filter(|requests| !requests.has(1.0)) {
            return Some((Reason::Requests(Shortage::of(requests, 1.0)), requests.wait(1.0)));
        }
        if let Some(tokens) = self.tokens.as_ref().filter(|tokens| !tokens.has(tokens.need(price))) {
            let wait = tokens.wait(tokens.need(price));
            return Some((Reason::Tokens(Shortage::of(tokens, price)), wait));
        }
        let hidden = self.hidden.as_ref().filter(|hidden| !hidden.has(1.0))?;
        let told = self.requests.as_ref().unwrap_or(hidden);
        Some((Reason::Hidden(Shortage::of(told, 1.0)), hidden.wait(1.0)))
    }

    fn charge(&mut self, charge: Charge) {
        for bucket in [&mut self.requests, &mut self.hidden].into_iter().flatten() {
            match charge {
                Charge::Burn => bucket.burn(),
                Charge::Debt(share) => bucket.owe(share.max(0.0)),
                Charge::Nothing => {}
            }
        }
    }

    /// Ends a call that its client has dropped. Does nothing if its service has ended.
    pub(crate) fn release(&mut self, permit: Permit, now: Instant) {
        self.advance(now);
        if let Some(given) = self.running.remove(&permit) {
            self.settle(given, now);
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Returns the seconds until the buckets accept a call of this price.
    pub(crate) fn wait_for(&self, price: f64) -> f64 {
        let one = [&self.requests, &self.hidden];
        let waits = one.into_iter().flatten().map(|bucket| bucket.wait(1.0));
        let tokens = self.tokens.as_ref().map(|tokens| tokens.wait(tokens.need(price)));
        waits.chain(tokens).fold(0.0, f64::max)
    }

    pub(crate) fn cut(&mut self, factor: f64) {
        let buckets = [&mut self.requests, &mut self.tokens, &mut self.hidden];
        buckets.into_iter().flatten().for_each(|bucket| bucket.cut(factor));
    }

    fn refill(&mut self, now: Instant) {
        let buckets = [&mut self.requests, &mut self.tokens, &mut self.hidden];
        buckets.into_iter().flatten().for_each(|bucket| bucket.advance(now));
    }

    fn settle(&mut self, given: f64, now: Instant) {
        if let Some(tokens) = &mut self.tokens {
            tokens.advance(now);
            tokens.settle(given);
        }
    }

    /// Processes a call of another tenant. It pays if both limits allow it, and is not charged otherwise.
    fn foreign_call(&mut self, now: Instant) {
        self.refill(now);
        let Some(others) = &mut self.others else {
            return;
        };
        let price = others.rule.tokens;
        let has_room = self.requests.as_ref().is_none_or(|requests| requests.has(1.0))
            && self.tokens.as_ref().is_none_or(|tokens| tokens.has(price));
        if has_room {
            self.requests.iter_mut().for_each(|requests| requests.take(1.0));
            self.tokens.iter_mut().for_each(|tokens| tokens.take(price));
        }
        let gap = seconds(exponential(others.rule.per_second, &mut others.rng));
        others.next = later(now, gap.max(Duration::from_nanos(1)));
    }
}

/// Returns the tokens that a call pays on arrival.
fn price(config: &Config, facts: &Facts) -> f64 {
    if config.payment == Payment::Post { facts.prompt() } else { facts.price }
}
