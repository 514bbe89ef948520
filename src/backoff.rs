//! Delays without a hint from the server, and jitter. The functions are pure functions of a count and a random draw.

use std::time::Duration;

use fastrand::Rng;

/// The default first delay without a hint: 0.5 s.
pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(500);
/// The default maximum delay without a hint, before jitter: 30 s.
pub const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The maximum jitter added to a hint, as a divisor of the hint: a quarter.
const SPREAD_PART: u32 = 4;
/// The lower bound of the maximum jitter: 50 ms.
const SPREAD_MIN: Duration = Duration::from_millis(50);
/// The upper bound of the maximum jitter: 5 s.
const SPREAD_MAX: Duration = Duration::from_secs(5);

/// Exponential backoff with jitter: `U(0.5, 1) · min(max, first · 2^(n−1))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: DEFAULT_BACKOFF, max: DEFAULT_MAX_BACKOFF }
    }
}

impl Backoff {
    /// Returns the n-th delay in a row before jitter. `n` starts at 1.
    pub(crate) fn base(self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// Draws the n-th delay in a row, between half of [`base`](Self::base) and all of it. Jitter applies after the
    /// maximum, so delays at the maximum differ, too.
    pub(crate) fn draw(self, n: u32, rng: &mut Rng) -> Duration {
        drawn(self.base(n), rng)
    }
}

/// Draws a delay between half of `wait` and all of it.
pub(crate) fn drawn(wait: Duration, rng: &mut Rng) -> Duration {
    wait.mul_f64(0.5 + 0.5 * rng.f64())
}

/// Draws the jitter that is added to a hint, so that callers with the same hint do not retry at once. It never shortens
/// the hint.
pub(crate) fn spread(hint: Duration, rng: &mut Rng) -> Duration {
    (hint / SPREAD_PART).clamp(SPREAD_MIN, SPREAD_MAX).mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_no_count_overflows() {
        let backoff = Backoff::default();
        let secs: Vec<f64> = (1..=8).map(|n| backoff.base(n).as_secs_f64()).collect();
        assert_eq!(secs, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.base(0), DEFAULT_BACKOFF);
        assert_eq!(backoff.base(u32::MAX), DEFAULT_MAX_BACKOFF);
        let endless = Backoff { first: Duration::MAX, max: Duration::MAX };
        assert_eq!(endless.base(40), Duration::MAX);
    }

    #[test]
    fn jitter_is_alive_at_the_cap_and_no_two_draws_are_equal() {
        let mut rng = Rng::with_seed(1);
        let mut draws: Vec<Duration> = (0..100).map(|_| Backoff::default().draw(20, &mut rng)).collect();
        assert!(draws.iter().all(|wait| *wait >= DEFAULT_MAX_BACKOFF / 2 && *wait <= DEFAULT_MAX_BACKOFF));
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 100);
    }

    #[test]
    fn a_hint_is_exceeded_by_a_quarter_within_bounds_and_never_undercut() {
        let mut rng = Rng::with_seed(2);
        for (hint, most) in [(0, 50), (100, 50), (2_000, 500), (60_000, 5_000)] {
            let most = Duration::from_millis(most);
            assert!((0..1_000).all(|_| spread(Duration::from_millis(hint), &mut rng) <= most));
        }
    }
}
