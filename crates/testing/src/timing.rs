//! Network latency and service time.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use crate::time::seconds;

/// Network latencies, each drawn uniformly from its range.
///
/// Default: all zero. A 429 is then ready in the first poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// From the client's send to the server's decision.
    pub request: Range<Duration>,
    /// From the decision to the client's receipt of a 429.
    pub throttle: Range<Duration>,
    /// From the end of the service time to the client. For a stream: from its head, and from its end.
    pub answer: Range<Duration>,
}

impl Latency {
    /// Latencies of a call over the internet: 10–40 ms for a request, 30–80 ms for a 429, and 10–40 ms
    /// for a response.
    #[must_use]
    pub fn internet() -> Self {
        let ms = Duration::from_millis;
        Self { request: ms(10)..ms(40), throttle: ms(30)..ms(80), answer: ms(10)..ms(40) }
    }
}

/// How long the server works on an accepted call. The call is in flight for this time.
///
/// Default: [`Fixed`](Self::Fixed) of zero. A single call sets its own with the
/// [`x-testing-service-ms`](crate::SERVICE_MS_HEADER) header.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServiceTime {
    /// The same for every call.
    Fixed(Duration),
    /// A uniform distribution between the two.
    Uniform(Duration, Duration),
    /// A log-normal distribution, as for responses of varying length.
    LogNormal {
        /// The mean of the times (not of their logarithms).
        mean: Duration,
        /// The standard deviation of their natural logarithms. 0.5 is usual, 1 is wide.
        sigma: f64,
    },
    /// Many short calls and a few very long ones: a Pareto distribution of shape 1.6, from 0.4 to 20
    /// times the mean.
    HeavyTail {
        /// The approximate mean of the times.
        mean: Duration,
    },
}

impl Default for ServiceTime {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl ServiceTime {
    pub(crate) fn draw(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Fixed(span) => span,
            Self::Uniform(from, to) => between(&(from..to), rng),
            Self::LogNormal { mean, sigma } => {
                let normal = normal(rng);
                seconds(mean.as_secs_f64() * (sigma * normal - sigma * sigma / 2.0).exp())
            }
            Self::HeavyTail { mean } => {
                let factor = (0.4 * (1.0 - rng.f64()).powf(-1.0 / 1.6)).min(20.0);
                seconds(mean.as_secs_f64() * factor)
            }
        }
    }
}

/// Draws a duration uniformly from the range. Returns the start if the range is empty.
pub(crate) fn between(range: &Range<Duration>, rng: &mut Rng) -> Duration {
    let width = range.end.saturating_sub(range.start);
    if width.is_zero() {
        return range.start;
    }
    range.start.saturating_add(seconds(width.as_secs_f64() * rng.f64()))
}

/// Draws the seconds to the next event of a Poisson process with this rate.
pub(crate) fn exponential(per_second: f64, rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln() / per_second
}

/// Draws from the standard normal distribution, by the Box-Muller method.
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(times: &ServiceTime) -> f64 {
        let mut rng = Rng::with_seed(7);
        (0..20_000).map(|_| times.draw(&mut rng).as_secs_f64()).sum::<f64>() / 20_000.0
    }

    #[test]
    fn drawn_times_have_the_mean_they_were_asked_for() {
        let second = Duration::from_secs(1);
        assert_eq!(mean(&ServiceTime::Fixed(second)), 1.0);
        assert!((mean(&ServiceTime::Uniform(second, 3 * second)) - 2.0).abs() < 0.02);
        assert!((mean(&ServiceTime::LogNormal { mean: second, sigma: 0.5 }) - 1.0).abs() < 0.02);
        assert!((mean(&ServiceTime::HeavyTail { mean: second }) - 1.0).abs() < 0.1);
    }

    #[test]
    fn absurd_spreads_are_still_durations() {
        let mut rng = Rng::with_seed(1);
        for sigma in [f64::NAN, f64::INFINITY, 1e9, -1e9] {
            ServiceTime::LogNormal { mean: Duration::MAX, sigma }.draw(&mut rng);
        }
        assert_eq!(between(&(Duration::MAX..Duration::ZERO), &mut rng), Duration::MAX);
        between(&(Duration::ZERO..Duration::MAX), &mut rng);
    }
}
