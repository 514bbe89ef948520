//! How much of an estimated token the server really takes, and what a call costs that has no estimate.
//!
//! A 429's `Requested` is the server's own price for that call. Where nothing is throttled, what the buckets have lost
//! between two snapshots tells the same, less exactly, and with what others took: it only bounds the price from above.
//! The usage that a response body reports tells what its own call took.

/// Estimates are multiplied with at least this: a call that reserves 32,000 tokens may use 300.
pub(super) const LEAST: f64 = 0.01;
/// ... and with at most this.
pub(super) const MOST: f64 = 4.0;
/// What one 429, or one snapshot at most, weighs against all before.
const WEIGHT: f64 = 0.2;
/// The price stays so far above what snapshots show that an estimate which is only rough needs no correction: a quarter.
const MARGIN: f64 = 1.25;

/// What estimates of tokens are multiplied with.
#[derive(Debug)]
pub(super) struct Correction {
    /// By what 429s say.
    asked: f64,
    /// By what snapshots, and 429s, show to have been taken.
    taken: f64,
    /// What a call of this key takes on average, in tokens.
    mean: Option<f64>,
}

impl Default for Correction {
    fn default() -> Self {
        Self { asked: 1.0, taken: 1.0, mean: None }
    }
}

impl Correction {
    pub(super) fn factor(&self) -> f64 {
        f64::min(self.asked, MARGIN * self.taken)
    }

    /// A 429 names the call's price, so many times its estimate.
    pub(super) fn asked(&mut self, times: f64) {
        self.asked = blend(self.asked, times, WEIGHT);
        self.taken = blend(self.taken, times, WEIGHT);
    }

    /// What a call without an estimate costs; 0 before anything was learned.
    pub(super) fn mean(&self) -> f64 {
        self.mean.unwrap_or(0.0)
    }

    /// A call has taken so many tokens; `weight` is less than 1 where that is known from several calls together.
    pub(super) fn call_took(&mut self, tokens: f64, weight: f64) {
        let mean = self.mean.get_or_insert(tokens);
        *mean += f64::min(weight, WEIGHT) * (tokens - *mean);
    }

    /// Calls between two snapshots have taken so many times their estimates; `weight` grows with how much they took.
    pub(super) fn taken(&mut self, times: f64, weight: f64) {
        self.taken = blend(self.taken, times, f64::min(weight, WEIGHT));
    }
}

fn blend(before: f64, seen: f64, weight: f64) -> f64 {
    ((1.0 - weight) * before + weight * seen).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_really_taken_bounds_the_price_with_a_margin() {
        let mut correction = Correction::default();
        for _ in 0..50 {
            correction.taken(1.0 / 3.0, 0.1);
        }
        assert!((correction.factor() - MARGIN / 3.0).abs() < 0.01, "{correction:?}");
    }

    #[test]
    fn a_rough_estimate_is_left_alone() {
        let mut correction = Correction::default();
        for times in [0.9, 1.1, 0.85, 1.05] {
            correction.taken(times, 0.2);
            assert_eq!(correction.factor(), 1.0);
        }
    }

    #[test]
    fn more_taken_than_estimated_raises_nothing_above_what_429s_say() {
        let mut correction = Correction::default();
        for _ in 0..50 {
            correction.taken(3.0, 1.0); // others may have taken it
        }
        assert_eq!(correction.factor(), 1.0);
        correction.asked(2.0);
        assert!((correction.factor() - 1.2).abs() < 1e-9, "{correction:?}");
    }

    #[test]
    fn a_429_raises_what_snapshots_had_lowered() {
        let mut correction = Correction::default();
        for _ in 0..50 {
            correction.taken(0.3, 0.2);
        }
        let before = correction.factor();
        correction.asked(1.0);
        assert!(correction.factor() > before, "{correction:?}");
    }

    #[test]
    fn figures_without_measure_stay_within_bounds() {
        let mut correction = Correction::default();
        for times in [f64::MAX, f64::INFINITY, 0.0, f64::MIN_POSITIVE] {
            correction.taken(times, f64::MAX);
            correction.asked(times);
            assert!((LEAST..=MOST).contains(&correction.factor()), "{times}: {correction:?}");
        }
    }
}
