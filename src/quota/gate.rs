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
use crate::classify::{Dimension, Evidence, Kind, MAX_DIMENSIONS, RateLimitSnapshot, Unit, Verdict};
use crate::room::{Next, Rule};
use crate::time::{add, secs};

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

/// Requests and tokens: what a call spends of.
const UNITS: usize = 2;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ask {
    /// The estimate of its tokens, before any correction.
    pub(crate) tokens: f64,
}

/// An admission: what the gate must be told again when the call is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) seq: u64,
    flight: Flight,
    /// When it went, in seconds of the gate's clock.
    sent: f64,
    raw: f64,
    tokens: f64,
    /// What had been spent of each unit, this call included.
    spent: [f64; UNITS],
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
    spent: [f64; UNITS],
    correction: f64,
    /// Refused, and not a success since: from when.
    ailing: Option<Instant>,
    window: Window,
    ceiling: Ceiling,
    blame: Blame,
    cooldown: Cooldown,
}

impl Gate {
    pub(crate) fn new(config: &GateConfig, rng: Rng, now: Instant) -> Self {
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
            spent: [0.0; UNITS],
            correction: 1.0,
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
        self.snapshots(now, ticket, shown);
        self.ailing = None;
        self.answered(ticket.seq);
        self.cooldown.success(ticket.seq);
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
        self.snapshots(now, ticket, shown);

        let hint = if self.pacing { verdict.stated() } else { verdict.retry_after };
        let explains = self.explains(t, ticket, verdict, shown);
        let class = match (verdict.kind, verdict.evidence) {
            (Kind::Concurrency, _) => Class::Concurrency,
            (Kind::Overloaded, _) => Class::Overload,
            (_, Evidence::Bare) if hint.is_none() && explains == 0 => Class::Neither,
            _ => Class::Rate,
        };
        if let Some(requested) = verdict.requested.filter(|_| ticket.raw > 0.0 && is_of_tokens(verdict)) {
            let seen = 0.8 * self.correction + 0.2 * requested / ticket.raw;
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
        self.cooldown.shut(now, QUOTA_PROBE, true, ticket.seq, self.seq);
    }

    /// A call that was admitted but not sent after all gives back what it took.
    pub(crate) fn withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.ended(now, ticket.seq);
        self.ceiling.refused(self.secs(now), ticket.sent);
        for (unit, cost) in [(Unit::Requests, 1.0), (Unit::Tokens, ticket.tokens)] {
            self.spent[index(unit)] -= cost;
            self.of_unit(unit).for_each(|level| level.give_back(cost));
        }
    }

    /// A call that was admitted has not been sent yet: its silence says nothing of the server.
    pub(crate) fn held(&mut self, seq: u64) {
        self.window.close(seq);
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

    fn snapshots(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        let Some(shown) = shown else { return };
        let (t, at) = (self.secs(now), ticket.sent);
        for bucket in shown.buckets() {
            let unit = bucket.dimension.unit();
            if !is_counted(unit) {
                continue;
            }
            let (Some(limit), Some(remaining)) = (bucket.limit, bucket.remaining) else { continue };
            if limit <= 0.0 || remaining < 0.0 || remaining > limit {
                continue;
            }
            let reset = bucket.reset.map(|reset| reset.as_secs_f64());
            let shown = Shown { limit, remaining, reset };
            let sent = Sent { seq: ticket.seq, at, spent: ticket.spent[index(unit)] };
            let (spent, window) = (self.spent[index(unit)], window_of(bucket.dimension));
            if let Some(dim) = self.dims.iter_mut().find(|dim| dim.dimension == bucket.dimension) {
                dim.level.snapshot(t, sent, spent, window, shown);
            } else if self.dims.len() < MAX_DIMENSIONS {
                let level = Level::first(t, sent, spent, window, shown);
                self.dims.reserve_exact(1); // a key is kept for long, and has few
                self.dims.push(Dim { dimension: bucket.dimension, level });
            }
            self.known = true;
        }
    }

    /// Which buckets are, by the refusal's own headers, too empty for this call: a bit each.
    fn explains(&self, t: f64, ticket: &Ticket, verdict: &Verdict, shown: Option<&RateLimitSnapshot>) -> u8 {
        let Some(shown) = shown else { return 0 };
        let asked = verdict.requested.filter(|_| is_of_tokens(verdict)).unwrap_or(0.0);
        let short = |dim: &Dim| {
            let cost = if dim.dimension.unit() == Unit::Requests { 1.0 } else { ticket.tokens.max(asked) };
            let bucket = shown.buckets().iter().find(|bucket| bucket.dimension == dim.dimension);
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
        let ailing = *self.ailing.get_or_insert(now);
        let k = self.blame.in_a_row();
        let mut own = None;
        let lasting = new && k >= CLOSE_AFTER && now.saturating_duration_since(ailing) >= self.max_wait;
        if hint.is_some_and(|hint| hint > self.max_wait) || lasting || self.cooldown.is_shut() {
            self.cooldown.shut(now, self.max_wait, false, seq, self.seq);
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
    type Ask = Ask;
    type Pass = Ticket;
    const CLOCK: bool = true;

    fn submit(&mut self, now: Instant) {
        if self.window.in_flight() == 0 && now >= self.idle_from + IDLE {
            self.ceiling.rested();
            self.blame.rested();
            self.window.rested();
        }
    }

    fn next(&mut self, now: Instant, ask: &Ask, ahead: usize) -> Next {
        self.silences(now);
        match self.cooldown.opens(now, ahead) {
            Opens::Closed(closed) => return Next::Closed(closed),
            Opens::OneOut => return Next::Park(self.window.next_silence()),
            Opens::At(until) if !self.pacing => return Next::At(until),
            Opens::Now if !self.pacing || self.cooldown.is_shut() => return Next::Go { gap: Duration::ZERO },
            Opens::Now | Opens::At(_) => {}
        }
        if !self.window.admits(ahead) {
            return Next::Park(self.window.next_silence());
        }
        let (mut wait, mut gap) = (0.0, 0.0);
        let t = self.secs(now);
        for dim in &self.dims {
            let requests = dim.dimension.unit() == Unit::Requests;
            let cost = if requests { 1.0 } else { ask.tokens * self.correction };
            let need = dim.level.need(cost, requests) + ahead as f64 * cost;
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
        }
        at = at.max(self.cooldown.until().unwrap_or(now));
        if at > now + NOTHING { Next::At(at) } else { Next::Go { gap } }
    }

    fn take(&mut self, now: Instant, ask: &Ask, gap: Duration) -> Ticket {
        self.seq += 1;
        let late = now.checked_sub(LATE).unwrap_or(now);
        self.last = Some(self.last.map_or(late, |last| late.max(add(last, gap))));
        let t = self.secs(now);
        let tokens = ask.tokens * self.correction;
        let full = self.dims.iter().enumerate().fold(0, |bits, (at, dim)| bits | u8::from(dim.level.full_by(t)) << at);
        for (unit, cost) in [(Unit::Requests, 1.0), (Unit::Tokens, tokens)] {
            self.spent[index(unit)] += cost;
            self.of_unit(unit).for_each(|level| level.spend(t, cost));
        }
        self.ceiling.sent(t);
        self.cooldown.sent(self.seq);
        let flight = self.window.sent(self.seq, now);
        Ticket { seq: self.seq, flight, sent: t, raw: ask.tokens, tokens, spent: self.spent, full, known: self.known }
    }

    /// The body's end or drop, or any end that is neither a success nor a refusal: what was spent stays spent.
    fn ended(&mut self, now: Instant, seq: u64) {
        self.silences(now);
        self.window.close(seq);
        self.window.left();
        self.cooldown.back(seq);
        self.idle_from = now;
    }
}

fn index(unit: Unit) -> usize {
    usize::from(unit != Unit::Requests)
}

/// Whether we know what a call takes of such a bucket.
fn is_counted(unit: Unit) -> bool {
    matches!(unit, Unit::Requests | Unit::Tokens)
}

/// Seconds in which an empty bucket fills, when nothing else is known.
fn window_of(dimension: Dimension) -> f64 {
    match dimension {
        Dimension::RequestsPerDay | Dimension::TokensPerDay => 86_400.0,
        _ => 60.0,
    }
}

fn is_of_tokens(verdict: &Verdict) -> bool {
    use crate::classify::Scope;
    matches!(verdict.scope, Some(Scope::Tokens | Scope::InputTokens | Scope::OutputTokens))
}
