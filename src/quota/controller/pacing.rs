//! When a call may go: what the levels of its buckets and the learned ceiling allow.

use std::time::Duration;

use tokio::time::Instant;

use super::{Gate, NOTHING};
use crate::classify::{Dimension, Unit};
use crate::event::Event;
use crate::quota::controller::call_info::Ask;
use crate::quota::controller::probe::Probe;
use crate::time::{LONGEST, add, in_secs, secs};
use crate::wait_queue::{Go, Next};

/// When a call may go as far as the levels and the ceiling tell.
pub(super) struct Pace {
    pub(super) at: Instant,
    /// How far the call after it has to stay behind.
    pub(super) gap: Duration,
    /// How long the call waits at the head of the queue at least, by the levels alone.
    pub(super) own: Duration,
}

impl Gate {
    /// When a call may go that has so many others before it.
    pub(super) fn pace(&mut self, now: Instant, ask: &Ask, ahead: usize) -> Pace {
        let (mut wait, mut own, mut gap) = (0.0, 0.0, 0.0);
        if !self.dims.is_empty() || self.ceiling.is_known() {
            let (t, price) = (self.secs(now), self.price(ask));
            for dim in &self.dims {
                let unit = dim.dimension.unit();
                let price = price[unit as usize];
                if price <= 0.0 {
                    continue; // it takes nothing of this bucket, so that a debt there is not its affair
                }
                let (need, level) = (dim.level.need(price, unit == Unit::Requests), dim.level.level(t));
                own = f64::max(own, dim.level.shortest_wait(level, price));
                wait = f64::max(wait, dim.level.wait_for(t, level, need + ahead as f64 * dim.level.cost(price)));
                gap = f64::max(gap, dim.level.gap(level, price));
            }
            if let Some(rate) = self.ceiling_now(t) {
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
    pub(super) fn levels_block(&mut self, now: Instant, ahead: usize, own: Duration, until: Instant) -> Next {
        let (probe_at, news) = self.probes.levels_block(self.heard, self.config.max_wait);
        if news {
            self.report(Event::BucketEmpty { retry_after: own });
        }
        if ahead == 0 && probe_at <= now && until <= now {
            return Next::Go(Go { probe: Some(Probe::Level), ..Go::default() });
        }
        Next::Reject { retry_after: own }
    }

    pub(super) fn ceiling_now(&mut self, t: f64) -> Option<f64> {
        let rate = self.ceiling.rate(t)?;
        let requests = self.dims.iter().find(|dim| dim.dimension == Dimension::Requests);
        if requests.is_some_and(|dim| !dim.level.doubted(t) && rate > dim.level.fastest()) {
            self.ceiling.forget();
            return None;
        }
        Some(rate)
    }
}
