//! May this key send now? One state for each key, and what each event does to it: `state × event × now → decision`.
//!
//! The controller composes the parts beside it; only it knows more than one of them: here what lets a call go, in `pace` when,
//! in `429` what a 429 teaches, in `closed` what a body teaches, in `figures` what an answer's figures say. It is a
//! [`AdmissionPolicy`] of a wait queue, so that admission, order and the one timer are decided under one lock.

mod attribution;
mod bucket;
mod call_info;
mod call_specific;
mod cooldown;
mod cost_correction;
#[cfg(test)]
mod invariants;
mod learned_rate;
mod on_headers;
mod on_stream_error;
mod on_throttled;
mod pacing;
mod probe;
mod window;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::{Clearance, ControllerConfig};
use crate::classify::{Dimension, RateLimitSnapshot, Unit};
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::response::error_reply::ErrorReply;
use crate::time::{add, in_secs};
use crate::wait_queue::{Admission, AdmissionPolicy, Decision, Probe};
use attribution::Attribution;
use bucket::BucketEstimate;
pub(crate) use call_info::CallInfo;
use call_info::{Price, UNITS};
use call_specific::CallSpecific;
use cooldown::{ClosedReason, Cooldown, State};
use cost_correction::Correction;
use learned_rate::LearnedRate;
use on_headers::{Figures, window_of};
use probe::Probes;
use window::{Flight, Window};

/// A timer that fires late costs no pace, as long as it is less late than this: 5 ms.
const LATE: Duration = Duration::from_millis(5);
/// A key that nothing was asked of for so long begins anew, but for what concurrency taught: a minute.
const IDLE: Duration = Duration::from_secs(60);
/// A key whose quota is used up is probed after this, then after twice as long each time: 30 s.
const QUOTA_PROBE: Duration = Duration::from_secs(30);
/// A call that was throttled so often lets one that was not go first, before each further attempt.
const TWICE: u32 = 2;
/// What a wait must exceed to be one: less is the rounding of sums.
const NOTHING: Duration = Duration::from_micros(1);

/// An admission: what the controller must be told again when the call is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) seq: u64,
    flight: Flight,
    sent: Instant,
    call_info: CallInfo,
    /// What it took when it was sent.
    price: Price,
    /// What had been spent of each unit, this call included.
    spent: Price,
    /// How far the call after it was held back.
    gap: Duration,
    /// Which buckets had had time to fill, a bit each.
    full: u8,
    known: bool,
}

/// Rare, and a key is kept for long.
pub(crate) type PendingEvents = Option<Box<Vec<QuotaEvent>>>;

struct Bucket {
    dimension: Dimension,
    estimate: BucketEstimate,
}

/// All that is believed of one key.
pub(crate) struct Controller {
    config: Arc<ControllerConfig>,
    base: Instant,
    buckets: Vec<Bucket>,
    /// Headers have named a bucket.
    known: bool,
    seq: u64,
    /// The call whose 429 has taught the learned_rate.
    taught_by: Option<u64>,
    /// The latest first attempt.
    first_attempt: u64,
    last: Option<Instant>,
    /// When an answer or an end was last heard of.
    heard: Instant,
    spent: Price,
    correction: Correction,
    dialect: &'static Dialect,
    /// What nobody has been told yet.
    events: PendingEvents,
    failing: Option<Box<Failing>>, // rare
    /// What is believed of the moment when calls may go has changed since somebody asked.
    estimate_changed: bool,
    window: Window,
    learned_rate: LearnedRate,
    attribution: Attribution,
    call_specific: CallSpecific,
    cooldown: Cooldown,
    probes: Probes,
    /// What the server said when the quota was used up.
    closed_by: Option<Arc<ErrorReply>>,
}

/// Throttled, and nothing let in since.
#[derive(Debug)]
struct Failing {
    since: Instant,
    /// Different calls that were throttled, up to as many as it takes to close the key.
    calls: Vec<u64>,
}

impl Controller {
    pub(crate) fn new(config: Arc<ControllerConfig>, dialect: &'static Dialect, rng: Rng, now: Instant) -> Self {
        let seeds = [
            (Dimension::Requests, config.pacing.requests_per_minute),
            (Dimension::Tokens, config.pacing.tokens_per_minute),
        ];
        let seeded = |(dimension, limit): (Dimension, Option<f64>)| {
            Some(Bucket { dimension, estimate: BucketEstimate::seeded(0.0, limit?, window_of(dimension)) })
        };
        Self {
            base: now,
            buckets: seeds.into_iter().filter_map(seeded).collect(),
            known: false,
            seq: 0,
            taught_by: None,
            first_attempt: 0,
            last: None,
            heard: now,
            spent: Price::default(),
            correction: Correction::default(),
            dialect,
            events: None,
            failing: None,
            estimate_changed: false,
            window: Window::new(config.pacing.initial_window),
            learned_rate: LearnedRate::default(),
            attribution: Attribution::default(),
            call_specific: CallSpecific::default(),
            cooldown: Cooldown::new(rng),
            probes: Probes::default(),
            closed_by: None,
            config,
        }
    }

    /// A 2xx: what its headers show, and that it was let in. The permit stays taken until the body ends.
    pub(crate) fn on_success(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_accepted(now, ticket, shown);
        self.on_stream_end(ticket.seq);
    }

    /// A 2xx whose body may hold an error: it does not open a closed key before [`on_stream_end`](Self::on_stream_end).
    pub(crate) fn on_accepted(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.expire_acks(now);
        self.heard = now;
        if shown.is_some() {
            self.snapshots(self.secs(now), ticket, Figures::of_headers(shown), true);
        }
        self.on_progress();
        self.call_specific.succeeded(now, ticket.seq, ticket.sent, ticket.call_info.throttles);
        self.probes.succeeded();
        self.answered(ticket.seq);
        if self.window.close(ticket.seq) || ticket.flight.above {
            self.window.acked(ticket.flight, true);
        }
        self.window.success(ticket.flight);
    }

    /// A 2xx whose body is already over.
    pub(crate) fn on_finished(&mut self, now: Instant, ticket: &Ticket, shown: Option<&RateLimitSnapshot>) {
        self.on_success(now, ticket, shown);
        self.release(now, ticket.seq);
    }

    /// An answer that neither succeeds nor throttles: its headers show as much as any other's. The permit stays taken until
    /// the body ends. A call that was rejected unprocessed has taken no tokens.
    pub(crate) fn on_other_answer(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        unprocessed: bool,
        shown: Option<&RateLimitSnapshot>,
    ) {
        self.expire_acks(now);
        self.heard = now;
        self.on_progress();
        self.cooldown.back(ticket.seq); // a probe is answered, whoever reads its body
        let mut ticket = *ticket;
        if unprocessed {
            for unit in [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens] {
                let price = ticket.price[unit as usize];
                self.give_back(unit, price);
                ticket.spent[unit as usize] -= price;
            }
        }
        self.snapshots(self.secs(now), &ticket, Figures::of_headers(shown), false);
    }

    /// A call that was admitted but not sent after all gives back what it took.
    pub(crate) fn on_withdrawn(&mut self, now: Instant, ticket: &Ticket) {
        self.release(now, ticket.seq);
        self.learned_rate.throttled(self.secs(now), self.secs(ticket.sent));
        self.last = self.last.and_then(|last| last.checked_sub(ticket.gap));
        for unit in UNITS {
            self.give_back(unit, ticket.price[unit as usize]);
        }
    }

    /// Whether [`on_usage`](AdmissionPolicy::on_usage) wants to be told what a call has used, and what it was counted for.
    pub(crate) fn wants_usage(&self, ticket: &Ticket) -> Option<f64> {
        let seeded =
            || self.buckets.iter().any(|bucket| bucket.dimension.unit() == Unit::Tokens && bucket.estimate.is_seed());
        let wanted = !ticket.call_info.cost.is_known() || seeded();
        wanted.then_some(ticket.price[Unit::Tokens as usize])
    }

    /// What has happened since this was last asked.
    pub(crate) fn drain_events(&mut self) -> PendingEvents {
        if let Some(permits) = self.window.lent.report() {
            self.push_event(QuotaEvent::PermitsLent { permits });
        }
        self.events.take()
    }

    /// How the server behind this key speaks.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// A call that was admitted has not been sent yet: its silence says nothing of the server.
    pub(crate) fn queued_below(&mut self, seq: u64) {
        self.window.waits_below(seq);
    }

    /// A call that was [queued below](Self::queued_below) is sent.
    pub(crate) fn sent_from_below(&mut self, now: Instant, seq: u64) {
        self.window.sent_from_below(seq, now);
    }

    /// Whether a call that was admitted is [queued below](Self::queued_below) yet.
    pub(crate) fn is_queued_below(&self, seq: u64) -> bool {
        self.window.is_below(seq)
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

    /// Whether forgetting the key would cost 429s: nothing may be sent for now, or how many at once was learned.
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

    fn expire_acks(&mut self, now: Instant) {
        while let Some(flight) = self.window.silent(now) {
            self.answered(flight.seq);
            self.window.acked(flight, false);
        }
    }

    /// A call has ended, whether its permit was lent or not.
    fn gone(&mut self, now: Instant, seq: u64) {
        self.expire_acks(now);
        self.heard = now;
        self.window.close(seq);
        self.cooldown.back(seq);
    }

    fn answered(&mut self, seq: u64) {
        if self.attribution.answered(seq) {
            self.cooldown.set_one_at_a_time(false);
        }
    }

    fn push_event(&mut self, event: QuotaEvent) {
        self.events.get_or_insert_default().push(event);
    }

    /// Closes the key, or keeps it closed. Tells for how long, unless it was a call of before that says what we know.
    fn close(&mut self, now: Instant, first: Duration, why: ClosedReason, seq: u64) -> Option<Duration> {
        let was_open = !self.cooldown.is_closed();
        let retry_after = self.cooldown.close(now, first, why, seq, self.seq)?;
        if was_open {
            self.push_event(QuotaEvent::Closed { quota: why.is_quota(), retry_after });
        }
        Some(retry_after)
    }

    /// What a call takes, and never more than the largest bucket of its unit holds.
    fn price(&self, call_info: &CallInfo) -> Price {
        let price = call_info.price(&self.correction);
        UNITS.map(|unit| {
            let caps = self
                .buckets
                .iter()
                .filter(|bucket| bucket.dimension.unit() == unit)
                .map(|bucket| bucket.estimate.cap());
            caps.reduce(f64::max).map_or(price[unit as usize], |cap| price[unit as usize].min(cap))
        })
    }
}

impl AdmissionPolicy for Controller {
    type Call = CallInfo;
    type Ticket = Ticket;

    fn on_arrival(&mut self, now: Instant) {
        if self.window.in_flight() > 0 {
            return;
        }
        if !self.learned_rate.is_known() {
            self.last = None; // nobody is before the call: what it is spread from is over
        }
        if now >= self.heard + IDLE {
            self.learned_rate.rested();
            self.attribution.rested();
            self.window.rested();
            self.probes.rested();
        }
    }

    fn decide(&mut self, now: Instant, call_info: &CallInfo, ahead: usize) -> Decision {
        self.expire_acks(now);
        match self.cooldown.opens(now, ahead, self.config.max_wait) {
            State::Closed(closed) => return Decision::Closed(closed),
            State::OneOut(at) => {
                return Decision::Blocked(self.window.next_silence().map_or(at, |silence| at.min(silence)));
            }
            State::Probe(closed) if !self.probes.may_go(now) => return Decision::Closed(closed),
            State::Probe(_) => {
                return Decision::Admit(Admission { probe: Some(Probe::Closed), ..Admission::default() });
            }
            State::At(until) if !self.config.pacing.enabled => return Decision::NotBefore(until),
            State::Now if !self.config.pacing.enabled => return Decision::Admit(Admission::default()),
            State::Now | State::At(_) => {}
        }
        let pace = self.pace(now, call_info, ahead);
        let until = self.cooldown.until().unwrap_or(now);
        if pace.own > self.config.max_wait.saturating_add(NOTHING) {
            return self.levels_block(now, ahead, pace.own, until);
        }
        let at = pace.at.max(until);
        if at > now + NOTHING || until > now {
            return Decision::NotBefore(at); // before the window is asked: this also tells when a call that comes now can go at best
        }
        if self.window.admits(ahead) {
            // The same calls again show nothing new: another one shows whether the key is throttled or these calls alone.
            let prefer_first_attempt =
                call_info.throttles.count >= TWICE && self.first_attempt <= call_info.throttles.last_sent;
            return Decision::Admit(Admission { gap: pace.gap, probe: None, prefer_first_attempt });
        }
        let at = self.probes.window_blocks(now, self.config.max_wait);
        if at <= now && ahead == 0 {
            return Decision::Admit(Admission {
                gap: pace.gap,
                probe: Some(Probe::Window),
                prefer_first_attempt: true,
            });
        }
        let silence = self.window.next_silence();
        Decision::Blocked(silence.map_or(at, |silence| at.min(silence)).max(now + NOTHING))
    }

    fn earliest_start(&mut self, now: Instant, call_info: &CallInfo, ahead: usize) -> Option<Instant> {
        let pace = if self.config.pacing.enabled { self.pace(now, call_info, ahead).at } else { now };
        Some(self.cooldown.until().map_or(pace, |until| until.max(pace)))
    }

    fn take_estimate_changed(&mut self) -> bool {
        std::mem::take(&mut self.estimate_changed)
    }

    fn is_first_attempt(call_info: &CallInfo) -> bool {
        call_info.throttles.count == 0
    }

    fn admit(&mut self, now: Instant, call_info: &CallInfo, admission: Admission) -> Ticket {
        self.seq += 1;
        let late = now.checked_sub(LATE).unwrap_or(now);
        let after = |last| if admission.gap.is_zero() { last } else { add(last, admission.gap) };
        self.last = Some(self.last.map_or(late, |last| late.max(after(last))));
        let (t, price) = (self.secs(now), self.price(call_info));
        let full = self
            .buckets
            .iter()
            .enumerate()
            .fold(0, |bits, (at, bucket)| bits | u8::from(bucket.estimate.full_by(t)) << at);
        for unit in UNITS {
            self.spent[unit as usize] += price[unit as usize];
        }
        for bucket in &mut self.buckets {
            bucket.estimate.spend(t, price[bucket.dimension.unit() as usize]);
        }
        if call_info.throttles.count == 0 {
            self.first_attempt = self.seq;
        }
        self.learned_rate.sent(t);
        self.cooldown.sent(now, self.seq);
        self.probes.admitted(now, admission.probe);
        let flight = self.window.sent(self.seq, now);
        let (seq, spent, known) = (self.seq, self.spent, self.known);
        Ticket { seq, flight, sent: now, call_info: *call_info, price, spent, gap: admission.gap, full, known }
    }

    /// The body's end or drop, or any end that is neither a success nor a 429: what was spent stays spent.
    fn release(&mut self, now: Instant, seq: u64) {
        self.gone(now, seq);
        self.window.left(seq);
    }

    fn missing_permits(&self, now: Instant, ahead: usize) -> usize {
        match self.cooldown.opens(now, ahead, self.config.max_wait) {
            State::Now | State::At(_) if self.config.pacing.enabled => self.window.missing(ahead),
            _ => 0,
        }
    }

    fn lend_permit(&mut self) {
        self.window.lend();
    }

    fn release_lent(&mut self, now: Instant, seq: u64) {
        self.gone(now, seq);
        self.window.lent.returned();
    }

    /// Of use for buckets that no header ever showed, since a snapshot would have put them right, and for calls without an
    /// estimate.
    fn on_usage(&mut self, counted: f64, used: f64) {
        self.correction.call_took(used, 1.0);
        let more = used - counted;
        let mut seeds = self.of_unit(Unit::Tokens).filter(|level| level.is_seed()).peekable();
        if seeds.peek().is_some() {
            seeds.for_each(|level| level.give_back(-more));
            self.spent[Unit::Tokens as usize] += more;
        }
    }

    fn on_progress(&mut self) {
        self.failing = None;
    }
}
