//! Conversions of times that never panic.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The duration that stands for "never": 366 days.
pub const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// Converts seconds to a duration, rounded up to nanoseconds. Negative numbers and NaN become 0. The
/// maximum is [`LONGEST_WAIT`].
pub(crate) fn seconds(seconds: f64) -> Duration {
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    if seconds >= LONGEST_WAIT.as_secs_f64() {
        return LONGEST_WAIT;
    }
    Duration::from_nanos((seconds * 1e9).ceil() as u64)
}

/// Rounds `span` up to a whole number of `unit`s. A remainder of one nanosecond is dropped as a
/// rounding error.
pub(crate) fn round_up(span: Duration, unit: Duration) -> Duration {
    let unit = unit.as_nanos().max(1);
    let units = span.as_nanos().saturating_sub(1).div_ceil(unit);
    Duration::from_nanos(u64::try_from(units * unit).unwrap_or(u64::MAX))
}

/// Returns the time `span` after `now`. `span` counts as at most [`LONGEST_WAIT`].
pub(crate) fn later(now: Instant, span: Duration) -> Instant {
    now + span.min(LONGEST_WAIT)
}

/// A timer that is created only when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Is ready at `deadline`. If that has passed, it is ready at once and needs no runtime.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if Instant::now() < deadline {
            let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.0 = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_time_become_one() {
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::INFINITY), LONGEST_WAIT);
        assert_eq!(seconds(1.5), Duration::from_millis(1_500));
    }

    #[test]
    fn rounding_up_forgives_what_floating_point_left() {
        let ms = Duration::from_millis(1);
        assert_eq!(round_up(Duration::from_nanos(120_000_001), ms), 120 * ms);
        assert_eq!(round_up(Duration::from_nanos(120_000_002), ms), 121 * ms);
        assert_eq!(round_up(Duration::MAX, ms), Duration::from_nanos(u64::MAX));
    }
}
