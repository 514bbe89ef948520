//! When a call may go by what is believed of the buckets and by the learned rate.

use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, NOTHING};
use crate::classify::Unit;
use crate::event::QuotaEvent;
use crate::quota::controller::call_info::CallInfo;
use crate::time::{LONGEST, add, in_secs, secs};
use crate::wait_queue::{Admission, Decision, Probe};

/// When a call may go by the buckets and the learned rate.
pub(super) struct Pace {
    /// The earliest time.
    pub(super) at: Instant,
    /// The least time between this call and the next.
    pub(super) gap: Duration,
    /// How long the call waits at least at the head of the queue, by the server's own figures.
    pub(super) own: Duration,
}

impl Controller {
    /// When a call may go that has `ahead` others before it.
    ///
    /// A call waits until each bucket that it takes from holds what it needs, and stays a gap behind the call before. The
    /// largest wait and the largest gap count.
    pub(super) fn pace(&self, now: Instant, call_info: &CallInfo, ahead: usize) -> Pace {
        let (mut wait, mut own, mut gap) = (0.0, 0.0, 0.0);
        if !self.buckets.is_empty() || self.learned_rate.is_known() {
            let (t, price) = (self.secs(now), self.price(call_info));
            for bucket in &self.buckets {
                let unit = bucket.dimension.unit();
                let price = price[unit as usize];
                if price <= 0.0 {
                    continue; // a debt of a bucket does not concern calls that take nothing from it
                }
                let (need, level) = (bucket.estimate.need(price, unit == Unit::Requests), bucket.estimate.level(t));
                own = f64::max(own, bucket.estimate.shortest_wait(level, price));
                wait = f64::max(
                    wait,
                    bucket.estimate.wait_for(t, level, need + ahead as f64 * bucket.estimate.cost(price)),
                );
                gap = f64::max(gap, bucket.estimate.gap(level, price));
            }
            if let Some(rate) = self.learned_rate.rate(t) {
                gap = f64::max(gap, 1.0 / rate);
            }
        }
        let gap = if gap > in_secs(NOTHING) { secs(gap) } else { Duration::ZERO };
        let mut at = if wait > 0.0 { add(now, secs(wait)) } else { now };
        if let Some(last) = self.last.filter(|_| at > now || !gap.is_zero()) {
            let turns = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
            at = at.max(add(last, gap.saturating_mul(turns)));
            at = at.min(last + LONGEST); // one call a day finds out whether the figures are wrong
        }
        Pace { at, gap, own: secs(own) }
    }

    /// Rejects a call, or admits it as a probe, because its buckets are believed to be empty for longer than `max_wait`.
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
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::classify::Dimension;
    use crate::dialect::Dialect;
    use crate::quota::ControllerConfig;
    use crate::quota::controller::bucket::{BucketEstimate, Sent, Shown};
    use crate::quota::controller::{Bucket, CallInfo};
    use crate::request::Cost;

    /// A controller that has just seen such a bucket of requests, refilled at one a second, in the response to its only call.
    fn controller(now: Instant, remaining: f64) -> Controller {
        let config = ControllerConfig::default().into();
        let mut controller = Controller::new(config, &Dialect::GENERIC, Rng::with_seed(1), now);
        let shown = Shown { limit: 60.0, remaining, reset: Some(60.0 - remaining) };
        let sent = Sent { seq: 1, at: 0.0, spent: 1.0, calls: 1.0 };
        let estimate = BucketEstimate::first(0.0, sent, 1.0, 60.0, shown);
        controller.buckets.push(Bucket { dimension: Dimension::Requests, estimate });
        controller.last = Some(now);
        controller
    }

    #[test]
    fn what_is_believed_of_a_key_sets_when_a_call_goes_as_the_table_says() {
        type Event = fn(&mut Controller);
        // Of 60 requests a minute some are left. A call needs one and a margin of one.
        #[rustfmt::skip]
        let rows: [(&str, f64, Event, usize, [u64; 3]); 7] = [
            // what is believed                            left, then, calls ahead,  goes at, gap, waits at least: ms
            ("the bucket is nearly full: it is spread",    59.0, |_| {}, 0, [78, 78, 0]),
            ("three others are ahead: four gaps",          59.0, |_| {}, 3, [313, 78, 0]),
            ("half of it is left",                         30.0, |_| {}, 0, [143, 143, 0]),
            ("it is empty",                                 0.0, |_| {}, 0, [2_000, 1_000, 1_000]),
            ("it is empty, and three others are ahead",     0.0, |_| {}, 3, [5_000, 1_000, 1_000]),
            ("nothing was sent of late: no gap to keep",   30.0, |c| c.last = None, 0, [0, 143, 0]),
            ("a rate of two a second was learned",         30.0, |c| {
                (0..2).for_each(|_| c.learned_rate.sent(0.0));
                c.learned_rate.learn(0.0);
            },                                                           0, [714, 714, 0]),
        ];
        for (what, left, event, ahead, expected) in rows {
            let now = Instant::now();
            let mut controller = controller(now, left);
            event(&mut controller);
            let pace = controller.pace(now, &CallInfo::new(1, Cost::unknown()), ahead);
            let ms = [pace.at - now, pace.gap, pace.own].map(|time| time.as_secs_f64() * 1_000.0);
            let close = ms.iter().zip(expected).all(|(is, expected)| (is - expected as f64).abs() < 1.0);
            assert!(close, "{what}: {ms:?}");
        }
    }
}
