//! May this key send now? One state for each key, and what each event does to it: `state × event × now → decision`.
//!
//! The gate composes the five parts beside it; only it knows more than one of them. It is a [`Rule`] of a waiting room,
//! so that admission, order and the one timer are decided under one lock.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::blame::{Blame, Cause, Class};
use super::ceiling::Ceiling;
use super::cooldown::{Cooldown, Opens};
use super::level::{Level, Sent, Shown};
use super::window::{Flight, Window};
use super::{Clearance, GateConfig};
use crate::call::Cost;
use crate::classify::{
    BucketSnapshot, Dimension, Evidence, Kind, MAX_DIMENSIONS, RateLimitSnapshot, Scope, Unit, Verdict,
};
use crate::dialect::Dialect;
use crate::report::Event;
use crate::room::{Next, Rule};
use crate::time::{LONGEST, add, secs};

/// A timer that fires late costs no pace, as long as it is less late than this: 5 ms.
const LATE: Duration = Duration::from_millis(5);
/// A key that nothing was asked of for so long begins anew, but for what concurrency taught: a minute.
const IDLE: Duration = Duration::from_secs(60);
/// A key without a success for [`max_wait`](GateConfig::max_wait) closes after so many episodes in a row.
const CLOSE_AFTER: u32 = 5;
/// A key whose quota is used up is probed after this, then after twice as long each time: 30 s.
const QUOTA_PROBE: Duration = Duration::from_secs(30);
/// The correction of token estimates stays within these bounds.
const CORRECTION: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// What a wait must exceed to be one: less is the rounding of sums.
const NOTHING: Duration = Duration::from_micros(1);

/// What a call spends of.
const UNITS: [Unit; 4] = [Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];

/// An admission: what the gate must be told again when the call is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) seq: u64,
    flight: Flight,
    /// When it went, in seconds of the gate's clock.
    sent: f64,
    /// Its cost as it was estimated, and what estimates were multiplied with.
    asked: Cost,
    correction: f64,
    /// What had been spent of each unit, this call included.
    spent: [f64; UNITS.len()],
    /// Which buckets had had time to fill, a bit each.
    full: u8,
    known: bool,
}

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

struct Dim {
    dimension: Dimension,
    level: Level,
}

/// All that is believed of one key.
pub(crate) struct Gate {
    pacing: bool,
    max_wait: Duration,
    base: Instant,
    dims: Vec<Dim>,
    /// Headers have named a bucket.
    known: bool,
    seq: u64,
    last: Option<Instant>,
    idle_from: Instant,
    spent: [f64; UNITS.len()],
    correction: f64,
    dialect: &'static Dialect,
    /// What nobody has been told yet.
    news: Vec<Event>,
    /// Refused in a row, and not a success since: from when.
    ailing: Option<Instant>,
    window: Window,
    ceiling: Ceiling,
    blame: Blame,
    cooldown: Cooldown,
}

impl Gate {
    pub(crate) fn new(config: &GateConfig, dialect: &'static Dialect, rng: Rng, now: Instant) -> Self {
        let seeds = [(Dimension::Requests, config.requests_per_minute), (Dimension::Tokens, config.tokens_per_minute)];
        let seeded = |(dimension, limit): (Dimension, Option<f64>)| {
            Some(Dim { dimension, level: Level::seeded(0.0, limit?, window_of(dimension)) })
        };
        Self {
            base: now,
            dims: seeds.into_iter().filter_map(seeded).collect(),
            known: false,
            seq: 0,
            last: None,
            idle_from: now,
            spent: [0.0; UNITS.len()],
            correction: 1.0,
            dialect,
            news: Vec::new(),
            ailing: None,
            window: Window::new(config.initial_window),
            ceiling: Ceiling::default(),
            blame: Blame::default(),
            cooldown: Cooldown::new(rng, config.backoff),
            pacing: config.pacing,
            max_wait: config.max_wait,
        }
    }

    /// A 2xx: what its headers show, and that it was let in. The slot stays taken until the body ends.
    pub(crate) fn success(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.silences(now);
        self.snapshots(now, ticket, shown, None);
        self.ailing = None;
        self.answered(ticket.seq);
        if self.cooldown.success(ticket.seq) {
            self.news.push(Event::Opened);
        }
        if self.window.close(ticket.seq) {
            self.window.acked(ticket.flight, true, self.known);
        }
        self.window.success(ticket.flight);
    }

    /// A 2xx whose body is already over.
    pub(crate) fn finished(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.success(now, ticket, shown);
        self.ended(now, ticket.seq);
    }

    /// A refusal that throttles: what it teaches, and what becomes of the call.
    pub(crate) fn refused(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        verdict: &Verdict,
        shown: Option<&RateLimitSnapshot>,
    ) -> Fate {
        self.silences(now);
        self.ended(now, ticket.seq);
        let t = self.secs(now);
        self.ceiling.refused(t, ticket.sent);
        let text = in_text(verdict, shown);
        self.snapshots(now, ticket, shown, text);

        // The reset of a bucket is an upper bound: of use only where nothing else tells, and no reason to close the key.
        let reset = || verdict.retry_after.filter(|reset| !self.pacing && *reset <= self.max_wait);
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
            let seen = 0.8 * self.correction + 0.2 * requested / raw;
            self.correction = seen.clamp(*CORRECTION.start(), *CORRECTION.end());
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

    /// The quota is used up: the key is closed until one of the callers' own calls succeeds again.
    pub(crate) fn exhausted(&mut self, now: Instant, ticket: &Ticket) {
        self.silences(now);
        self.ended(now, ticket.seq);
        self.ceiling.refused(self.secs(now), ticket.sent);
        self.shut(now, QUOTA_PROBE, true, ticket.seq);
    }

    /// An answer that neither succeeds nor throttles: its headers show as much as any other's. The slot stays taken until
    /// the body ends.
    pub(crate) fn other(&mut self, now: Instant, ticket: &Ticket, too_large: bool, shown: Option<&RateLimitSnapshot>) {
        let mut ticket = *ticket;
        if too_large {
            // What its bucket cannot hold it has not taken from there; counted, it would stop the key for minutes.
            for unit in [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens] {
                let cost = cost(&ticket.asked, unit, ticket.correction);
                self.give_back(unit, cost);
                ticket.spent[unit as usize] -= cost;
            }
        }
        self.snapshots(now, &ticket, shown, None);
    }

    /// A call that was admitted but not sent after all gives back what it took.
    pub(crate) fn withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.ended(now, ticket.seq);
        self.ceiling.refused(self.secs(now), ticket.sent);
        for unit in UNITS {
            self.give_back(unit, cost(&ticket.asked, unit, ticket.correction));
        }
    }

    /// Whether [`used`](Rule::used) wants to be told what a call has used, and what it was estimated at.
    pub(crate) fn wants_usage(&self, ticket: &Ticket) -> Option<f64> {
        let seeded = self.dims.iter().any(|dim| dim.dimension.unit() == Unit::Tokens && dim.level.is_seed());
        seeded.then(|| cost(&ticket.asked, Unit::Tokens, ticket.correction))
    }

    /// What has happened since this was last asked.
    pub(crate) fn news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// How the server behind this key speaks.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// Whether a call that has been admitted may still go, or a cooldown has begun since.
    pub(crate) fn clearance(&self, now: Instant, seq: u64) -> Clearance {
        self.cooldown.clearance(now, seq)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.window.in_flight()
    }

    pub(crate) fn window(&self) -> u32 {
        self.window.size()
    }

    /// When nothing is held back for the key's sake any more.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.cooldown.until()
    }

    // === inside ===

    fn secs(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.base).as_secs_f64()
    }

    fn of_unit(&mut self, unit: Unit) -> impl Iterator<Item = &mut Level> {
        self.dims.iter_mut().filter(move |dim| dim.dimension.unit() == unit).map(|dim| &mut dim.level)
    }

    fn give_back(&mut self, unit: Unit, cost: f64) {
        self.spent[unit as usize] -= cost;
        self.of_unit(unit).for_each(|level| level.give_back(cost));
    }

    fn silences(&mut self, now: Instant) {
        while let Some(flight) = self.window.silent(now) {
            self.answered(flight.seq);
            self.window.acked(flight, false, self.known);
        }
    }

    fn answered(&mut self, seq: u64) {
        if self.blame.answered(seq) {
            self.cooldown.alone(false);
        }
    }

    fn shut(&mut self, now: Instant, first: Duration, quota: bool, seq: u64) {
        if let Some(retry_after) = self.cooldown.shut(now, first, quota, seq, self.seq) {
            self.news.push(Event::Closed { quota, retry_after });
        }
    }

    fn snapshots(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        shown: Option<&RateLimitSnapshot>,
        text: Option<BucketSnapshot>,
    ) {
        let (t, at) = (self.secs(now), ticket.sent);
        let headers = shown.map_or(&[][..], RateLimitSnapshot::buckets);
        for (bucket, said) in headers.iter().map(|bucket| (bucket, false)).chain(text.iter().map(|text| (text, true))) {
            let dimension = bucket.dimension;
            let known = self.dims.iter_mut().find(|dim| dim.dimension == dimension);
            // Azure often tells only what remains.
            let limit = bucket.limit.or_else(|| known.as_ref().map(|dim| dim.level.limit()));
            let (Some(limit), Some(remaining)) = (limit, bucket.remaining) else { continue };
            if limit <= 0.0 || remaining < 0.0 || remaining > limit {
                continue;
            }
            let reset = bucket.reset.map(|reset| reset.as_secs_f64());
            let shown = Shown { limit, remaining, reset };
            let unit = dimension.unit() as usize;
            let sent = Sent { seq: ticket.seq, at, spent: ticket.spent[unit] };
            let window = window_of(dimension);
            if let Some(dim) = known {
                let before = dim.level.snapshot(t, sent, self.spent[unit], window, shown);
                self.news.extend(before.map(|from| Event::LimitChanged { dimension, from, to: limit }));
            } else if self.dims.len() < MAX_DIMENSIONS {
                let level = Level::first(t, sent, self.spent[unit], window, shown);
                self.dims.reserve_exact(1); // a key is kept for long, and has few
                self.dims.push(Dim { dimension, level });
            }
            self.known |= !said;
        }
    }

    /// Which buckets are, by the refusal's own figures, too empty for this call: a bit each.
    fn explains(
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
    fn contradicted(&mut self, t: f64, explains: u8, full: u8) {
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

    fn learn(&mut self, t: f64) {
        self.ceiling_now(t);
        if !self.ceiling.learn(t) {
            self.cooldown.alone(true);
        }
    }

    fn ceiling_now(&mut self, t: f64) -> Option<f64> {
        let rate = self.ceiling.rate(t)?;
        let requests = self.dims.iter().find(|dim| dim.dimension == Dimension::Requests);
        if requests.is_some_and(|dim| !dim.level.doubted(t) && rate > dim.level.fastest()) {
            self.ceiling.forget();
            return None;
        }
        Some(rate)
    }

    fn cool_down(
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
        let lasting = new && k >= CLOSE_AFTER && now.saturating_duration_since(ailing) >= self.max_wait;
        if hint.is_some_and(|hint| hint > self.max_wait) || lasting || self.cooldown.is_shut() {
            self.shut(now, self.max_wait, false, seq);
        } else if class == Class::Concurrency && self.window.in_flight() > 0 {
            own = hint.map(|hint| self.cooldown.own_wait(hint)); // the key stays open
        } else if let Some(hint) = hint {
            self.cooldown.hinted(now, hint, k);
            own = (class == Class::Concurrency).then(|| self.cooldown.own_wait(hint));
        } else if new && (cause == Cause::Rate || self.window.in_flight() == 0) {
            self.cooldown.unhinted(now, k);
        }
        let until = self.cooldown.until().unwrap_or(now).max(now);
        let not_before = own.map_or(until, |wait| add(now, wait));
        Fate { closed: self.cooldown.is_shut(), not_before, alone: own.is_some() }
    }
}

impl Rule for Gate {
    type Ask = Cost;
    type Pass = Ticket;
    const CLOCK: bool = true;

    fn submit(&mut self, now: Instant) {
        if self.window.in_flight() == 0 && now >= self.idle_from + IDLE {
            self.ceiling.rested();
            self.blame.rested();
            self.window.rested();
        }
    }

    fn next(&mut self, now: Instant, ask: &Cost, ahead: usize) -> Next {
        self.silences(now);
        match self.cooldown.opens(now, ahead) {
            Opens::Closed(closed) => return Next::Closed(closed),
            Opens::OneOut => return Next::Park(self.window.next_silence()),
            Opens::Probe(closed) if self.pacing && !self.window.admits(ahead) => return Next::Closed(closed),
            Opens::Probe(_) => return Next::Go { gap: Duration::ZERO },
            Opens::At(until) if !self.pacing => return Next::At(until),
            Opens::Now if !self.pacing => return Next::Go { gap: Duration::ZERO },
            Opens::Now | Opens::At(_) => {}
        }
        let (mut wait, mut gap) = (0.0, 0.0);
        let t = self.secs(now);
        for dim in &self.dims {
            let unit = dim.dimension.unit();
            let cost = cost(ask, unit, self.correction);
            let need = dim.level.need(cost, unit == Unit::Requests) + ahead as f64 * cost;
            wait = f64::max(wait, dim.level.wait_for(t, need));
            gap = f64::max(gap, dim.level.gap(t, cost));
        }
        if let Some(rate) = self.ceiling_now(t) {
            gap = f64::max(gap, 1.0 / rate);
        }
        let gap = if gap > 0.0 { secs(gap) } else { Duration::ZERO };
        let mut at = if wait > 0.0 { add(now, secs(wait)) } else { now };
        if let Some(last) = self.last {
            let turns = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
            at = at.max(add(last, gap.saturating_mul(turns)));
            at = at.min(last + LONGEST); // whatever the figures say, one call a day finds out
        }
        at = at.max(self.cooldown.until().unwrap_or(now));
        if at > now + NOTHING {
            return Next::At(at); // before the window is asked: this also tells when a call that comes now can go at best
        }
        if self.window.admits(ahead) { Next::Go { gap } } else { Next::Park(self.window.next_silence()) }
    }

    fn take(&mut self, now: Instant, ask: &Cost, gap: Duration) -> Ticket {
        self.seq += 1;
        let late = now.checked_sub(LATE).unwrap_or(now);
        self.last = Some(self.last.map_or(late, |last| late.max(add(last, gap))));
        let t = self.secs(now);
        let full = self.dims.iter().enumerate().fold(0, |bits, (at, dim)| bits | u8::from(dim.level.full_by(t)) << at);
        for unit in UNITS {
            self.spent[unit as usize] += cost(ask, unit, self.correction);
        }
        for dim in &mut self.dims {
            dim.level.spend(t, cost(ask, dim.dimension.unit(), self.correction));
        }
        self.ceiling.sent(t);
        self.cooldown.sent(self.seq);
        let flight = self.window.sent(self.seq, now);
        Ticket {
            seq: self.seq,
            flight,
            sent: t,
            asked: *ask,
            correction: self.correction,
            spent: self.spent,
            full,
            known: self.known,
        }
    }

    /// The body's end or drop, or any end that is neither a success nor a refusal: what was spent stays spent.
    fn ended(&mut self, now: Instant, seq: u64) {
        self.silences(now);
        self.window.close(seq);
        self.window.left();
        self.cooldown.back(seq);
        self.idle_from = now;
    }

    /// Of use for buckets that no header ever showed: a snapshot would have put them right.
    fn used(&mut self, estimated: f64, used: f64) {
        let more = used - estimated;
        self.spent[Unit::Tokens as usize] += more;
        self.of_unit(Unit::Tokens).filter(|level| level.is_seed()).for_each(|level| level.give_back(-more));
    }

    /// An error within a success: the key cools down, once an episode. What it says of rates is not learned from: the call
    /// had been let in.
    fn heard(&mut self, now: Instant, seq: u64, verdict: &Verdict) {
        self.silences(now);
        if verdict.kind == Kind::QuotaExhausted {
            self.shut(now, QUOTA_PROBE, true, seq);
        } else if verdict.is_throttling() {
            let class = if verdict.kind == Kind::Overloaded { Class::Overload } else { Class::Rate };
            let judged = self.blame.judge(seq, self.seq, class, false);
            self.cool_down(now, seq, verdict.stated(), class, Cause::Rate, judged.new);
        }
    }
}

#[cfg(test)]
mod invariants;

/// What a call takes of a bucket of this unit, as far as estimates have proved right.
fn cost(ask: &Cost, unit: Unit, correction: f64) -> f64 {
    match unit {
        Unit::Requests => 1.0,
        Unit::Tokens | Unit::InputTokens => ask.of(unit) * correction,
        Unit::OutputTokens => ask.of(unit),
    }
}

/// The refusal's text as a snapshot, where no header shows that bucket: `Limit 30000, Used 22343, Requested 10955`. The
/// refill is not read from its hint: that is often rounded up to whole seconds.
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

fn unit_of(scope: Scope) -> Option<Unit> {
    match scope {
        Scope::Tokens => Some(Unit::Tokens),
        Scope::InputTokens => Some(Unit::InputTokens),
        Scope::OutputTokens => Some(Unit::OutputTokens),
        _ => None,
    }
}

/// Seconds in which an empty bucket fills, when nothing else is known.
fn window_of(dimension: Dimension) -> f64 {
    match dimension {
        Dimension::RequestsPerDay | Dimension::TokensPerDay => 86_400.0,
        Dimension::RequestsPerHour | Dimension::TokensPerHour => 3_600.0,
        _ => 60.0,
    }
}

fn is_of_tokens(verdict: &Verdict) -> bool {
    verdict.scope.and_then(unit_of).is_some()
}
