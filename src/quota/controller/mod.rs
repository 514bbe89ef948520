//! May this key send now? One state for each key, and what each event does to it: `state × event × now → decision`.
//!
//! The controller composes the parts beside it. Only it knows more than one of them. This file holds its state. What a call
//! meets is in `admission`, when it may go in `pacing`, and what an answer changes in `on_answer`, `on_headers`,
//! `on_throttled` and `on_stream_error`. The controller is the
//! [`AdmissionPolicy`](crate::wait_queue::AdmissionPolicy) of a wait queue, so that admission, order and the one timer are
//! decided under one lock.

mod admission;
mod attribution;
mod bucket;
mod call_info;
mod call_specific;
mod cooldown;
mod cost_correction;
#[cfg(test)]
mod invariants;
mod learned_rate;
mod on_answer;
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

use super::state::ClosedReason;
use super::{Clearance, ControllerConfig};
use crate::classify::Dimension;
use crate::dialect::Dialect;
use crate::event::QuotaEvent;
use crate::response::error_reply::ErrorReply;
use crate::time::in_secs;
use attribution::Attribution;
use bucket::BucketEstimate;
pub(crate) use call_info::CallInfo;
use call_info::{Price, UNITS};
use call_specific::CallSpecific;
use cooldown::Cooldown;
use cost_correction::Correction;
use learned_rate::LearnedRate;
use on_headers::window_of;
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
    /// The call was sent above the window to test it.
    window_probe: bool,
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
