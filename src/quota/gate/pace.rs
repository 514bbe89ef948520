//! When a call may go: what the levels of its buckets and the learned ceiling allow.

use std::time::Duration;

use tokio::time::Instant;

use super::figures::cost;
use super::{Gate, NOTHING};
use crate::call::Cost;
use crate::classify::{Dimension, Unit};
use crate::quota::most;
use crate::time::{LONGEST, add, in_secs, secs};

impl Gate {
    /// When the call may go as far as the levels and the ceiling tell, and how far the one after it has to stay behind.
    pub(super) fn pace(&mut self, now: Instant, ask: &Cost, ahead: usize) -> (Instant, Duration) {
        let (mut wait, mut gap) = (0.0, 0.0);
        if !self.dims.is_empty() || self.ceiling.is_known() {
            let (t, correction) = (self.secs(now), self.correction.factor());
            for dim in &self.dims {
                let unit = dim.dimension.unit();
                let cost = cost(ask, unit, correction);
                let need = dim.level.need(cost, unit == Unit::Requests) + ahead as f64 * cost;
                let level = dim.level.level(t);
                wait = most(wait, dim.level.wait_for(t, level, need));
                gap = most(gap, dim.level.gap(level, cost));
            }
            if let Some(rate) = self.ceiling_now(t) {
                gap = most(gap, 1.0 / rate);
            }
        }
        let gap = if gap > in_secs(NOTHING) { secs(gap) } else { Duration::ZERO };
        let mut at = if wait > 0.0 { add(now, secs(wait)) } else { now };
        if let Some(last) = self.last.filter(|_| at > now || !gap.is_zero()) {
            let turns = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
            at = at.max(add(last, gap.saturating_mul(turns)));
            at = at.min(last + LONGEST); // whatever the figures say, one call a day finds out
        }
        (at, gap)
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
