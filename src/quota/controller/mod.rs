//! The controller of a key: its state, and what each event changes. `docs/pacing.md` explains the scheme.
//!
//! The controller composes its parts, and only it knows more than one of them. This file holds the state. `admission` decides
//! whether a call may be sent, `pacing` when, and `on_answer`, `on_headers`, `on_throttled` and `on_stream_error` apply answers.
//! The controller is the [`AdmissionPolicy`](crate::wait_queue::AdmissionPolicy) of a wait queue, so one lock covers admission,
//! order and timers.

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

/// A timer that fires up to this much late does not slow the pace: 5 ms.
const LATE: Duration = Duration::from_millis(5);
/// A key that is idle for this long starts again, but keeps its learned window: 60 s.
const IDLE: Duration = Duration::from_secs(60);
/// The time until the first probe of a key whose quota is exhausted: 30 s. It doubles with each failed probe.
const QUOTA_PROBE: Duration = Duration::from_secs(30);
/// A call that was throttled this often lets a first attempt go before each further attempt of its own.
const TWICE: u32 = 2;
/// A shorter wait is a rounding error of sums: 1 µs.
const NOTHING: Duration = Duration::from_micros(1);

/// An admission. The controller gets it back with the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) seq: u64,
    flight: Flight,
    sent: Instant,
    call_info: CallInfo,
    /// The price at admission.
    price: Price,
    /// The total spent of each unit, this call included.
    spent: Price,
    /// The gap that the next call keeps.
    gap: Duration,
    /// The buckets that had had time to fill, one bit for each.
    full: u8,
    known: bool,
    /// The call was sent above the window to test it.
    window_probe: bool,
}

/// Boxed, because events are rare and a key is kept for long.
pub(crate) type PendingEvents = Option<Box<Vec<QuotaEvent>>>;

struct Bucket {
    dimension: Dimension,
    estimate: BucketEstimate,
}

/// All beliefs about one key.
pub(crate) struct Controller {
    config: Arc<ControllerConfig>,
    base: Instant,
    buckets: Vec<Bucket>,
    /// Headers have shown a bucket.
    known: bool,
    seq: u64,
    /// The call whose 429 set the learned rate.
    taught_by: Option<u64>,
    /// The latest admission of a first attempt.
    first_attempt: u64,
    last: Option<Instant>,
    /// The time of the last answer or end of a call.
    heard: Instant,
    spent: Price,
    correction: Correction,
    dialect: &'static Dialect,
    /// Events that are not delivered yet.
    events: PendingEvents,
    failing: Option<Box<Failing>>, // rare
    /// The estimate of waits has changed since it was last read.
    estimate_changed: bool,
    window: Window,
    learned_rate: LearnedRate,
    attribution: Attribution,
    call_specific: CallSpecific,
    cooldown: Cooldown,
    probes: Probes,
    /// The server's error for the exhausted quota.
    closed_by: Option<Arc<ErrorReply>>,
}

/// The 429s since the last success.
#[derive(Debug)]
struct Failing {
    since: Instant,
    /// The different calls that were throttled, up to the number that closes the key.
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

    /// Takes the events that are not delivered yet.
    pub(crate) fn drain_events(&mut self) -> PendingEvents {
        if let Some(permits) = self.window.lent.report() {
            self.push_event(QuotaEvent::PermitsLent { permits });
        }
        self.events.take()
    }

    /// Returns the dialect of the key's provider.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// An admitted call waits in a limit below, so its silence says nothing about the server.
    pub(crate) fn queued_below(&mut self, seq: u64) {
        self.window.waits_below(seq);
    }

    /// A call that was [queued below](Self::queued_below) is sent.
    pub(crate) fn sent_from_below(&mut self, now: Instant, seq: u64) {
        self.window.sent_from_below(seq, now);
    }

    /// Returns whether an admitted call is still [queued below](Self::queued_below).
    pub(crate) fn is_queued_below(&self, seq: u64) -> bool {
        self.window.is_below(seq)
    }

    /// Returns whether an admitted call may still be sent, or whether a cooldown has begun.
    pub(crate) fn clearance(&self, now: Instant, seq: u64) -> Clearance {
        self.cooldown.clearance(now, seq)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.window.in_flight()
    }

    pub(crate) fn window(&self) -> u32 {
        self.window.size()
    }

    /// Returns whether forgetting the key would cost 429s: it is cooling down or closed, or its window is learned.
    pub(crate) fn worth_keeping(&self, now: Instant) -> bool {
        self.cooldown.holds(now) || self.window.is_learned()
    }

    /// Returns the end of the cooldown.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.cooldown.until()
    }

    fn secs(&self, at: Instant) -> f64 {
        in_secs(at.saturating_duration_since(self.base))
    }

    fn expire_acks(&mut self, now: Instant) {
        while let Some(flight) = self.window.silent(now) {
            self.answered(flight.seq);
            self.window.acked(flight, false);
        }
    }

    /// Records the end of a call, whether its permit was lent or not.
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

    /// Closes the key, or keeps it closed. Returns for how long, unless the call was sent before the key closed.
    fn close(&mut self, now: Instant, first: Duration, why: ClosedReason, seq: u64) -> Option<Duration> {
        let was_open = !self.cooldown.is_closed();
        let retry_after = self.cooldown.close(now, first, why, seq, self.seq)?;
        if was_open {
            self.push_event(QuotaEvent::Closed { quota: why.is_quota(), retry_after });
        }
        Some(retry_after)
    }

    /// Returns what a call takes, at most what the largest bucket of its unit holds.
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
