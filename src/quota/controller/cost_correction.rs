//! The factor between estimated tokens and the tokens that the server takes, and the price of a call without an estimate.
//!
//! The factor has two sources. `Requested` in the text of a 429 is the server's own price of that call. What the buckets lost
//! between two snapshots tells the price without a 429, but includes what others took, so it only limits the factor from
//! above. The price of a call without an estimate is the average of what calls of the key took, by snapshots and by the usage
//! in response bodies.

/// The smallest factor. A call that reserves 32,000 tokens may use 300.
pub(super) const LEAST: f64 = 0.01;
/// The largest factor.
pub(super) const MOST: f64 = 4.0;
/// What one 429 weighs against all before, and one snapshot at most.
const WEIGHT: f64 = 0.2;
/// The factor is limited to this many times what snapshots show. Estimates that are too high by up to a quarter are left alone.
const MARGIN: f64 = 1.25;

/// What is believed of the prices of a key's calls.
#[derive(Debug)]
pub(super) struct Correction {
    /// The factor by what 429s request.
    asked: f64,
    /// The factor by what snapshots, and 429s, show to have been taken.
    taken: f64,
    /// The tokens that a call of this key takes on average.
    mean: Option<f64>,
}

impl Default for Correction {
    fn default() -> Self {
        Self { asked: 1.0, taken: 1.0, mean: None }
    }
}

impl Correction {
    /// What estimates are multiplied with.
    pub(super) fn factor(&self) -> f64 {
        f64::min(self.asked, MARGIN * self.taken)
    }

    /// A 429 requests so many times the estimate of its call.
    pub(super) fn asked(&mut self, times: f64) {
        self.asked = blend(self.asked, times, WEIGHT);
        self.taken = blend(self.taken, times, WEIGHT);
    }

    /// The price of a call without an estimate; 0 before anything was learned.
    pub(super) fn mean(&self) -> f64 {
        self.mean.unwrap_or(0.0)
    }

    /// A call took so many tokens. `weight` is below 1 if that is the average of several calls.
    pub(super) fn call_took(&mut self, tokens: f64, weight: f64) {
        let mean = self.mean.get_or_insert(tokens);
        *mean += f64::min(weight, WEIGHT) * (tokens - *mean);
    }

    /// The calls between two snapshots took so many times their estimates. `weight` grows with how much they took.
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
    fn each_event_changes_the_factor_and_the_mean_as_the_table_says() {
        type Event = fn(&mut Correction);
        #[rustfmt::skip]
        let rows: [(&str, Event, (f64, f64)); 9] = [
            // event                                                                factor, mean
            ("a new key", |_| {},                                                     (1.0, 0.0)),
            ("a 429 requests twice the estimate: a fifth of it counts", |c| c.asked(2.0), (1.2, 0.0)),
            ("a 429 requests half of the estimate", |c| c.asked(0.5),                 (0.9, 0.0)),
            ("a snapshot shows half taken: the margin absorbs it", |c| c.taken(0.5, 1.0), (1.0, 0.0)),
            ("three snapshots do", |c| (0..3).for_each(|_| c.taken(0.5, 1.0)),          (0.945, 0.0)),
            ("a snapshot shows three times the estimate", |c| c.taken(3.0, 1.0),      (1.0, 0.0)),
            ("the first call without an estimate takes 4,000", |c| c.call_took(4e3, 1.0), (1.0, 4_000.0)),
            ("another one takes 9,000: a fifth of that counts",
                |c| { c.call_took(4e3, 1.0); c.call_took(9e3, 1.0); },                (1.0, 5_000.0)),
            ("several together took 9,000 each, by a weak snapshot",
                |c| { c.call_took(4e3, 1.0); c.call_took(9e3, 0.1); },                (1.0, 4_500.0)),
        ];
        for (what, event, (factor, mean)) in rows {
            let mut correction = Correction::default();
            event(&mut correction);
            let (is, is_mean) = (correction.factor(), correction.mean());
            assert!((is - factor).abs() < 1e-9 && (is_mean - mean).abs() < 1e-9, "{what}: {is}, {is_mean}");
        }
    }

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
