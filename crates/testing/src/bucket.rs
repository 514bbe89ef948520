//! One bucket: its level as a function of the units taken and of the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::Limit;
use crate::time::{later, seconds};

/// Tolerance for comparisons of levels, because floating-point sums have rounding errors.
const GRAIN: f64 = 1e-6;

/// The state of one [`Limit`].
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    capacity: f64,
    refill: f64,
    shown: Option<f64>,
    /// May be negative.
    level: f64,
    /// The time of `level`.
    at: Instant,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    length: Duration,
    end: Instant,
}

impl Bucket {
    pub(crate) fn new(limit: &Limit, now: Instant) -> Self {
        let length = seconds(limit.capacity / limit.refill).max(Duration::from_millis(1));
        Self {
            capacity: limit.capacity,
            refill: limit.refill,
            shown: limit.shown,
            level: limit.start.unwrap_or(limit.capacity).min(limit.capacity),
            at: now,
            window: limit.fixed.then(|| Window { length, end: later(now, length) }),
        }
    }

    /// Refills the bucket up to `now`. A time before the last one changes nothing.
    pub(crate) fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at += elapsed;
        match &mut self.window {
            None => {
                let refilled = self.level + elapsed.as_secs_f64() * self.refill;
                self.level = refilled.min(self.capacity);
            }
            Some(window) if self.at >= window.end => {
                let over = (self.at - window.end).as_nanos() % window.length.as_nanos();
                let left = window.length.as_nanos() - over;
                window.end = self.at + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX));
                self.level = self.capacity;
            }
            Some(_) => {}
        }
    }

    pub(crate) fn level(&self) -> f64 {
        self.level
    }

    pub(crate) fn has(&self, units: f64) -> bool {
        self.level + GRAIN >= units
    }

    /// Returns the level that a call of this price needs. A call that costs more than the capacity needs
    /// a full bucket, and leaves it in debt.
    pub(crate) fn need(&self, price: f64) -> f64 {
        price.min(self.capacity.max(1.0))
    }

    /// Returns the seconds until the bucket has this many units, or infinity if it never has.
    pub(crate) fn wait(&self, units: f64) -> f64 {
        if self.has(units) {
            return 0.0;
        }
        if units > self.capacity + GRAIN {
            return f64::INFINITY;
        }
        match self.window {
            Some(window) => (window.end - self.at).as_secs_f64(),
            None => (units - self.level) / self.refill,
        }
    }

    pub(crate) fn take(&mut self, units: f64) {
        self.level -= units;
    }

    /// Takes one unit if one remains.
    pub(crate) fn burn(&mut self) {
        if self.has(1.0) {
            self.level -= 1.0;
        }
    }

    /// Takes one unit, down to a debt of `share` of the capacity.
    pub(crate) fn owe(&mut self, share: f64) {
        self.level = (self.level - 1.0).max(-share * self.capacity);
    }

    /// Returns units at the end of a call. A negative number takes units.
    pub(crate) fn settle(&mut self, units: f64) {
        self.level = (self.level + units).min(self.capacity);
    }

    /// Multiplies capacity and rate by `factor`. The level is at most the new capacity.
    pub(crate) fn cut(&mut self, factor: f64) {
        self.capacity *= factor;
        self.refill *= factor;
        self.shown = self.shown.map(|shown| shown * factor);
        self.level = self.level.min(self.capacity);
    }

    /// The limit that headers and messages name.
    pub(crate) fn limit(&self) -> u64 {
        whole(self.shown.unwrap_or(self.capacity))
    }

    pub(crate) fn remaining(&self) -> u64 {
        whole(self.level)
    }

    /// Returns the figure `Used` of a 429's message: the limit minus the level. It is above the limit if the bucket is in debt.
    pub(crate) fn used(&self) -> u64 {
        let limit = self.shown.unwrap_or(self.capacity);
        whole((limit - (self.level + GRAIN).floor()).max(0.0))
    }

    /// Returns the seconds until the bucket is full, or until its window ends.
    pub(crate) fn reset(&self) -> f64 {
        match self.window {
            Some(window) => (window.end - self.at).as_secs_f64(),
            None => (self.capacity - self.level.max(0.0)) / self.refill,
        }
    }

    /// Returns the seconds from an empty to a full bucket.
    pub(crate) fn period(&self) -> f64 {
        self.shown.unwrap_or(self.capacity) / self.refill
    }
}

/// Rounds `units` down to a whole number, at least 0.
fn whole(units: f64) -> u64 {
    (units + GRAIN).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bucket: &Bucket, start: Instant, secs: f64) -> f64 {
        let mut bucket = bucket.clone();
        bucket.advance(later(start, seconds(secs)));
        bucket.level()
    }

    #[test]
    fn a_continuous_bucket_gains_with_every_moment_up_to_its_capacity() {
        let start = Instant::now();
        let bucket = Bucket::new(&Limit::new(10, 2).starting_at(1), start);
        assert_eq!(after(&bucket, start, 0.5), 2.0);
        assert_eq!(after(&bucket, start, 4.0), 9.0);
        assert_eq!(after(&bucket, start, 400.0), 10.0);
        assert_eq!(bucket.wait(4.0), 1.5);
        assert_eq!(bucket.reset(), 4.5);
    }

    #[test]
    fn a_fixed_window_gives_nothing_until_its_end_and_then_everything() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&Limit::new(10, 2).starting_at(1).fixed_window(), start);
        assert_eq!(after(&bucket, start, 4.999), 1.0);
        assert_eq!(after(&bucket, start, 5.0), 10.0);
        bucket.advance(later(start, seconds(1_003.0)));
        bucket.take(10.0);
        assert_eq!(bucket.wait(1.0), 2.0);
        assert_eq!(bucket.reset(), 2.0);
    }

    #[test]
    fn a_bucket_without_refill_or_capacity_never_gives() {
        let start = Instant::now();
        let empty = Bucket::new(&Limit::new(5, 0).starting_at(0), start);
        assert_eq!(empty.wait(1.0), f64::INFINITY);
        let nothing = Bucket::new(&Limit::new(0, f64::NAN), start);
        assert_eq!(nothing.wait(nothing.need(1.0)), f64::INFINITY);
        assert_eq!(nothing.remaining(), 0);
    }

    #[test]
    fn time_that_runs_backwards_changes_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&Limit::new(10, 1).starting_at(0), later(start, seconds(9.0)));
        bucket.advance(start);
        assert_eq!(bucket.level(), 0.0);
        bucket.advance(later(start, seconds(10.0)));
        assert_eq!(bucket.level(), 1.0);
    }
}
