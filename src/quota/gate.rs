//! May this key send now? One state for each key, and what each event does to it: `state × event × now → decision`.
//!
//! The gate composes the six parts beside it; only it knows more than one of them: here what lets a call go, in `pace`
//! when, in `refusal` what a refusal teaches, in `figures` what an answer's figures say. It is a [`Rule`] of a waiting
//! room, so that admission, order and the one timer are decided under one lock.

mod figures;
#[cfg(test)]
mod invariants;
mod pace;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::blame::{Blame, Cause, Class};
use super::ceiling::Ceiling;
use super::cooldown::{Cooldown, Opens, Why};
use super::correction::Correction;
use super::level::Level;
use super::window::{Flight, Window};
use super::{Clearance, GateConfig};
use crate::call::Cost;
use crate::classify::{Dimension, Kind, RateLimitSnapshot, Unit, Verdict};
use crate::dialect::Dialect;
use crate::report::Event;
use crate::room::{Next, Rule};
use crate::time::{add, in_secs};
use figures::{cost, window_of};

/// A timer that fires late costs no pace, as long as it is less late than this: 5 ms.
const LATE: Duration = Duration::from_millis(5);
/// A key that nothing was asked of for so long begins anew, but for what concurrency taught: a minute.
const IDLE: Duration = Duration::from_secs(60);
/// A key whose quota is used up is probed after this, then after twice as long each time: 30 s.
const QUOTA_PROBE: Duration = Duration::from_secs(30);
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

/// Rare, and a key is kept for long.
pub(crate) type News = Option<Box<Vec<Event>>>;

struct Dim {
    dimension: Dimension,
    level: Level,
}

/// All that is believed of one key.
pub(crate) struct Gate {
    config: Arc<GateConfig>,
    base: Instant,
    dims: Vec<Dim>,
    /// Headers have named a bucket.
    known: bool,
    seq: u64,
    last: Option<Instant>,
    /// When an answer or an end was last heard of.
    heard: Instant,
    spent: [f64; UNITS.len()],
    correction: Correction,
    dialect: &'static Dialect,
    /// What nobody has been told yet.
    news: News,
    /// Refused in a row, and not a success since: from when.
    ailing: Option<Instant>,
    window: Window,
    ceiling: Ceiling,
    blame: Blame,
    cooldown: Cooldown,
}

impl Gate {
    pub(crate) fn new(config: Arc<GateConfig>, dialect: &'static Dialect, rng: Rng, now: Instant) -> Self {
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
            heard: now,
            spent: [0.0; UNITS.len()],
            correction: Correction::default(),
            dialect,
            news: None,
            ailing: None,
            window: Window::new(config.initial_window),
            ceiling: Ceiling::default(),
            blame: Blame::default(),
            cooldown: Cooldown::new(rng),
            config,
        }
    }

    /// A 2xx: what its headers show, and that it was let in. The slot stays taken until the body ends.
    pub(crate) fn success(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.silences(now);
        self.heard = now;
        if shown.is_some() {
            self.snapshots(self.secs(now), ticket, shown, None, true);
        }
        self.ailing = None;
        self.answered(ticket.seq);
        if self.cooldown.success(ticket.seq) {
            self.report(Event::Opened);
        }
        if self.window.close(ticket.seq) {
            self.window.acked(ticket.flight, true, self.known);
        }
        self.window.success(ticket.flight);
    }

    /// A 2xx whose body is already over.
    pub(crate) fn finished(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.success(now, ticket, shown);
        self.ended(Some(now), ticket.seq);
    }

    /// An answer that neither succeeds nor throttles: its headers show as much as any other's. The slot stays taken until
    /// the body ends.
    pub(crate) fn other(&mut self, now: Instant, ticket: &Ticket, too_large: bool, shown: Option<&RateLimitSnapshot>) {
        self.silences(now);
        self.heard = now;
        let mut ticket = *ticket;
        if too_large {
            // What its bucket cannot hold it has not taken from there; counted, it would stop the key for minutes.
            for unit in [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens] {
                let cost = cost(&ticket.asked, unit, ticket.correction);
                self.give_back(unit, cost);
                ticket.spent[unit as usize] -= cost;
            }
        }
        self.snapshots(self.secs(now), &ticket, shown, None, false);
    }

    /// A call that was admitted but not sent after all gives back what it took.
    pub(crate) fn withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.ended(Some(now), ticket.seq);
        self.ceiling.refused(self.secs(now), ticket.sent);
        for unit in UNITS {
            self.give_back(unit, cost(&ticket.asked, unit, ticket.correction));
        }
    }

    /// Whether [`used`](Rule::used) wants to be told what a call has used, and what it was estimated at.
    #[inline]
    pub(crate) fn wants_usage(&self, ticket: &Ticket) -> Option<f64> {
        let seeded = self.dims.iter().any(|dim| dim.dimension.unit() == Unit::Tokens && dim.level.is_seed());
        seeded.then(|| cost(&ticket.asked, Unit::Tokens, ticket.correction))
    }

    /// What has happened since this was last asked.
    pub(crate) fn news(&mut self) -> News {
        self.news.take()
    }

    /// How the server behind this key speaks.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        self.dialect
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

    /// Whether forgetting the key would cost refusals: nothing may be sent for now, or how many at once was learned.
    pub(crate) fn worth_keeping(&self, now: Instant) -> bool {
        self.cooldown.holds(now) || self.window.is_learned()
    }

    /// When nothing is held back for the key's sake any more.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.cooldown.until()
    }

    // === inside ===

    fn secs(&self, at: Instant) -> f64 {
        in_secs(at.saturating_duration_since(self.base))
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

    fn report(&mut self, event: Event) {
        self.news.get_or_insert_default().push(event);
    }

    /// Closes the key, or keeps it closed. Tells for how long, unless it was a call of before that says what we know.
    fn shut(&mut self, now: Instant, first: Duration, why: Why, seq: u64) -> Option<Duration> {
        let was_open = !self.cooldown.is_shut();
        let retry_after = self.cooldown.shut(now, first, why, seq, self.seq)?;
        if was_open {
            self.report(Event::Closed { quota: why.is_quota(), retry_after });
        }
        Some(retry_after)
    }
}

impl Rule for Gate {
    type Ask = Cost;
    type Pass = Ticket;
    const CLOCK: bool = true;

    #[inline]
    fn submit(&mut self, now: Instant) {
        if self.window.in_flight() == 0 && now >= self.heard + IDLE {
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
            Opens::Probe(closed) if self.config.pacing && !self.window.admits(ahead) => return Next::Closed(closed),
            Opens::Probe(_) => return Next::Go { gap: Duration::ZERO },
            Opens::At(until) if !self.config.pacing => return Next::At(until),
            Opens::Now if !self.config.pacing => return Next::Go { gap: Duration::ZERO },
            Opens::Now | Opens::At(_) => {}
        }
        let (mut at, gap) = self.pace(now, ask, ahead);
        at = at.max(self.cooldown.until().unwrap_or(now));
        if at > now + NOTHING {
            return Next::At(at); // before the window is asked: this also tells when a call that comes now can go at best
        }
        if self.window.admits(ahead) { Next::Go { gap } } else { Next::Park(self.window.next_silence()) }
    }

    fn take(&mut self, now: Instant, ask: &Cost, gap: Duration) -> Ticket {
        self.seq += 1;
        let late = now.checked_sub(LATE).unwrap_or(now);
        let after = |last| if gap.is_zero() { last } else { add(last, gap) };
        self.last = Some(self.last.map_or(late, |last| late.max(after(last))));
        let (t, correction) = (self.secs(now), self.correction.factor());
        let full = self.dims.iter().enumerate().fold(0, |bits, (at, dim)| bits | u8::from(dim.level.full_by(t)) << at);
        for unit in UNITS {
            self.spent[unit as usize] += cost(ask, unit, correction);
        }
        for dim in &mut self.dims {
            dim.level.spend(t, cost(ask, dim.dimension.unit(), correction));
        }
        self.ceiling.sent(t);
        self.cooldown.sent(self.seq);
        let flight = self.window.sent(self.seq, now);
        Ticket { seq: self.seq, flight, sent: t, asked: *ask, correction, spent: self.spent, full, known: self.known }
    }

    /// The body's end or drop, or any end that is neither a success nor a refusal: what was spent stays spent.
    fn ended(&mut self, now: Option<Instant>, seq: u64) {
        if let Some(now) = now {
            self.silences(now);
            self.heard = now;
        }
        self.window.close(seq);
        self.window.left();
        self.cooldown.back(seq);
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
            self.shut(now, QUOTA_PROBE, Why::Quota, seq); // a body cannot reach the account's other keys
        } else if verdict.is_throttling() {
            let class = if verdict.kind == Kind::Overloaded { Class::Overload } else { Class::Rate };
            let judged = self.blame.judge(seq, self.seq, class, false);
            self.cool_down(now, seq, verdict.stated(), class, Cause::Rate, judged.new);
        }
    }
}
