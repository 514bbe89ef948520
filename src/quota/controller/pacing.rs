//! When a call may go: what the levels of its buckets and the learned learned_rate allow.

use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, NOTHING};
use crate::classify::{Dimension, Unit};
use crate::event::QuotaEvent;
use crate::quota::controller::call_info::CallInfo;
use crate::time::{LONGEST, add, in_secs, secs};
use crate::wait_queue::{Admission, Decision, Probe};

/// When a call may go as far as the levels and the learned_rate tell.
pub(super) struct Pace {
    pub(super) at: Instant,
    /// How far the call after it has to stay behind.
    pub(super) gap: Duration,
    /// How long the call waits at the head of the queue at least, by the levels alone.
    pub(super) own: Duration,
}

impl Controller {
    /// When a call may go that has so many others before it.
    pub(super) fn pace(&mut self, now: Instant, call_info: &CallInfo, ahead: usize) -> Pace {
        let (mut wait, mut own, mut gap) = (0.0, 0.0, 0.0);
        if !self.buckets.is_empty() || self.learned_rate.is_known() {
            let (t, price) = (self.secs(now), self.price(call_info));
            for bucket in &self.buckets {
                let unit = bucket.dimension.unit();
                let price = price[unit as usize];
                if price <= 0.0 {
                    continue; // it takes nothing of this bucket, so that a debt there is not its affair
                }
                let (need, level) = (bucket.estimate.need(price, unit == Unit::Requests), bucket.estimate.level(t));
                own = f64::max(own, bucket.estimate.shortest_wait(level, price));
                wait = f64::max(
                    wait,
                    bucket.estimate.wait_for(t, level, need + ahead as f64 * bucket.estimate.cost(price)),
                );
                gap = f64::max(gap, bucket.estimate.gap(level, price));
            }
            if let Some(rate) = self.learned_rate_now(t) {
                gap = f64::max(gap, 1.0 / rate);
            }
        }
        let gap = if gap > in_secs(NOTHING) { secs(gap) } else { Duration::ZERO };
        let mut at = if wait > 0.0 { add(now, secs(wait)) } else { now };
        if let Some(last) = self.last.filter(|_| at > now || !gap.is_zero()) {
            let turns = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
            at = at.max(add(last, gap.saturating_mul(turns)));
            at = at.min(last + LONGEST); // whatever the figures say, one call a day finds out
        }
        Pace { at, gap, own: secs(own) }
    }

    /// The buckets are believed to be empty for longer than anybody waits: the call is rejected, or goes as a probe.
    pub(super) fn levels_block(&mut self, now: Instant, ahead: usize, own: Duration, until: Instant) -> Decision {
        let (probe_at, events) = self.probes.levels_block(self.heard, self.config.max_wait);
        if events {
            self.push_event(QuotaEvent::BucketEmpty { retry_after: own });
        }
        if ahead == 0 && probe_at <= now && until <= now {
            return Decision::Admit(Admission { probe: Some(Probe::Level), ..Admission::default() });
        }
        Decision::Reject { retry_after: own }
    }

    pub(super) fn learned_rate_now(&mut self, t: f64) -> Option<f64> {
        let rate = self.learned_rate.rate(t)?;
        let requests = self.buckets.iter().find(|bucket| bucket.dimension == Dimension::Requests);
        if requests.is_some_and(|bucket| !bucket.estimate.doubted(t) && rate > bucket.estimate.fastest()) {
            self.learned_rate.forget();
            return None;
        }
        Some(rate)
    }
}
